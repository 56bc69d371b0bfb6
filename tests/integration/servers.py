"""Real DICOM servers, each running for the length of a `with` block, and what comes between.

:func:`orthanc` and :func:`dcmqrscp` are archives, :func:`proxy` cuts, slows or encrypts the
connections to one, :func:`faulty` is an archive with a fault of choice.
"""

from __future__ import annotations

import http.client
import os
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sysconfig
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from lumbarflow.files import write_json

HOST = "127.0.0.1"
TITLE = "LUMBARPACS"  # of every server here
CALLER = "LUMBARFLOW"
# The others are of dcmtk.
_PACKAGES = {"Orthanc": "orthanc", "openssl": "openssl", "dciodvfy": "dicom3tools"}
_SECONDS_TO_START = 60
_SECONDS_TO_STOP = 30
_PDU = 131072  # bytes, the most that Orthanc and dcmtk take


def program(name: str) -> str:
    """The path of a program; a test is skipped where it is not installed, and fails in CI."""
    # pynetdicom brings commands of the same names as dcmtk's, which lie beside our Python.
    ours = Path(sysconfig.get_path("scripts")).resolve()
    folders = [*os.environ["PATH"].split(os.pathsep), "/usr/sbin"]
    others = [folder for folder in folders if Path(folder).resolve() != ours]
    path = shutil.which(name, path=os.pathsep.join(others))
    if path is None:
        package = _PACKAGES.get(name, "dcmtk")
        assert os.environ.get("CI") != "true", f"install {package}"
        pytest.skip(f"{name} ({package}) is not installed")
    return path


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


# Certificates ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """PEM files of an authority made for the test, `ca.pem`, and of whom it vouches for.

    `server` is for 127.0.0.1 and localhost, `elsewhere` for another host, `client` for a caller;
    `stranger` is for 127.0.0.1, too, but vouches for itself.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def pair(self, name: str) -> tuple[Path, Path]:
        """The certificate and the private key of a name."""
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def context(
        self, name: str | None, *, server: bool = False, require: bool = False
    ) -> ssl.SSLContext:
        """A TLS context that trusts the authority and shows the certificate of `name`.

        With `server` it is for the accepting side, which asks callers for theirs with `require`.
        """
        side = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(side, cafile=self.authority)
        if name is not None:
            context.load_cert_chain(*self.pair(name))
        if server and require:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and its certificates with openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder)

    def make(name: str, extensions: str, signed: bool = True) -> None:
        certificate, key = made.pair(name)
        config = folder / f"{name}.conf"
        config.write_text(
            "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n"
            f"[name]\nCN = {name}\n[extensions]\nsubjectKeyIdentifier = hash\n{extensions}\n"
        )
        command = [
            program("openssl"),
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
        ]
        command += ["-config", config, "-keyout", key, "-out", certificate]
        if signed:
            command += ["-CA", made.authority, "-CAkey", folder / "ca.key"]
        subprocess.run(command, check=True, capture_output=True)

    here = "subjectAltName = IP:127.0.0.1, DNS:localhost"
    make("ca", "basicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign", signed=False)
    make("server", here)
    make("elsewhere", "subjectAltName = DNS:pacs.invalid")
    make("client", "extendedKeyUsage = clientAuth")
    make("stranger", here, signed=False)
    return made


@dataclass(frozen=True)
class Tls:
    """How a server speaks TLS: whose certificate it shows and whether callers must show one."""

    certificates: Certificates
    name: str = "server"
    require: bool = False


# Servers ---------------------------------------------------------------------------------------


class Server:
    """A server's process: stop or kill it, and start it again with the same port and data."""

    title = TITLE

    def __init__(
        self,
        folder: Path,
        port: int,
        command: list[str],
        *,
        callers: Collection[str] | None,
        tls: Tls | None = None,
    ):
        self.folder, self.port = folder, port
        # It goes, too, where the tests are killed and no block is left.
        setpriv = shutil.which("setpriv")
        self._command = [*([setpriv, "--pdeathsig", "KILL"] if setpriv else []), *command]
        self._tls = tls
        self._caller = next(iter(callers or [CALLER]))
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the process and wait until it answers a C-ECHO."""
        log = self.folder / "log.txt"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, which is signalled as one
            )
        end = time.monotonic() + _SECONDS_TO_START
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"{self._command} did not start: {log.read_text()}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether the server answers a C-ECHO."""
        try:
            socket.create_connection((HOST, self.port), 5).close()
        except OSError:
            return False
        ae = AE(self._caller)
        ae.add_requested_context(Verification)
        tls = None
        if self._tls is not None:
            context = self._tls.certificates.context("client")
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            tls = (context, HOST)
        assoc = ae.associate(HOST, self.port, ae_title=self.title, tls_args=tls)
        if not assoc.is_established:
            return False
        status = assoc.send_c_echo()
        assoc.release()
        return status.get("Status") == 0

    def stop(self) -> None:
        """End the process as its administrator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a power cut does."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        for sent in (number, signal.SIGKILL):  # the second for children that serve on
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_STOP)


class Orthanc(Server):
    """Orthanc; its REST interface is on `http_port`."""

    def __init__(self, *arguments, http_port: int, **options):
        super().__init__(*arguments, **options)
        self.http_port = http_port

    def load(self, objects: Iterable[Dataset | Path]) -> None:
        """Store data sets or files."""
        with closing(http.client.HTTPConnection(HOST, self.http_port)) as connection:
            for item in objects:
                data = encoded(item)
                try:
                    status = self._post(connection, data)
                except ConnectionError:  # it closes connections that rest for half a second
                    connection.close()
                    status = self._post(connection, data)
                assert status == 200, f"Orthanc refused an object with status {status}"

    @staticmethod
    def _post(connection: http.client.HTTPConnection, data: bytes) -> int:
        connection.request("POST", "/instances", data)
        answer = connection.getresponse()
        answer.read()
        return answer.status


class Dcmqrscp(Server):
    """dcmtk's archive."""

    def load(self, objects: Iterable[Dataset | Path]) -> None:
        """Store data sets or files."""
        storage = self.folder / "storage"
        start = len(list(storage.iterdir()))
        files = []
        for number, item in enumerate(objects, start):
            files.append(storage / f"{number:05d}.dcm")
            files[-1].write_bytes(encoded(item))
        for first in range(0, len(files), 500):
            command = [program("dcmqridx"), storage, *files[first : first + 500]]
            subprocess.run(command, check=True, capture_output=True)


def encoded(item: Dataset | Path) -> bytes:
    """A data set, or a file's content, as a DICOM file's bytes."""
    if isinstance(item, Path):
        return item.read_bytes()
    buffer = BytesIO()
    item.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@contextmanager
def orthanc(
    folder: Path,
    *,
    callers: Collection[str] | None = None,
    move_to: Mapping[str, int] | None = None,
    get: bool = True,
    tls: Tls | None = None,
    port: int | None = None,
    **settings: object,
) -> Iterator[Orthanc]:
    """Run Orthanc with its data in `folder`.

    Args:
        folder: made where missing; data that an earlier Orthanc left there are served again.
        callers: calling AE titles that may query and retrieve; None for all.
        move_to: ports of this machine by the AE title of a C-MOVE's destination.
        get: whether C-GET is allowed.
        tls: where the DICOM port speaks TLS.
        port: TCP port for DICOM; a free one where None.
        settings: further keys of Orthanc's configuration.
    """
    path = program("Orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    port, http_port = port or free_port(), free_port()
    peers = dict.fromkeys(callers or (), free_port()) | dict(move_to or {})
    allowed = callers is None
    content = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": TITLE,
        "DicomPort": port,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": allowed,
        "DicomAlwaysAllowGet": allowed and get,
        "DicomAlwaysAllowMove": allowed,
        "DicomModalities": {
            title: {"AET": title, "Host": HOST, "Port": number, "AllowGet": get}
            for title, number in peers.items()
        },
        "UnknownSopClassAccepted": True,
        "StorageCompression": False,
        "SyncStorageArea": False,
        "MaximumPduLength": _PDU,
        "DicomAssociationCloseDelay": 0,
        "SaveJobs": False,
    }
    if tls is not None:
        certificate, key = tls.certificates.pair(tls.name)
        content |= {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(certificate),
            "DicomTlsPrivateKey": str(key),
            "DicomTlsTrustedCertificates": str(tls.certificates.authority),
            "DicomTlsRemoteCertificateRequired": tls.require,
        }
    write_json(folder / "Orthanc.json", content | settings)
    command = [path, str(folder / "Orthanc.json")]
    yield from _running(
        Orthanc(folder, port, command, callers=callers, tls=tls, http_port=http_port)
    )


@contextmanager
def dcmqrscp(
    folder: Path,
    *,
    callers: Collection[str] | None = None,
    move_to: Mapping[str, int] | None = None,
    get: bool = True,
    port: int | None = None,
) -> Iterator[Dcmqrscp]:
    """Run dcmtk's dcmqrscp with its data in `folder`; arguments as for :func:`orthanc`.

    It does not speak TLS: put a :func:`proxy` before it. It serves uncompressed objects only.
    """
    path = program("dcmqrscp")
    (folder / "storage").mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    peers = dict.fromkeys(callers or (), free_port()) | dict(move_to or {})
    hosts = [f"h{n} = ({name}, localhost, {at})" for n, (name, at) in enumerate(peers.items())]
    allowed = "ANY" if callers is None else ", ".join(f"h{n}" for n in range(len(callers)))
    lines = [
        f"NetworkTCPPort = {port}", f"MaxPDUSize = {_PDU}", "MaxAssociations = 16",
        "HostTable BEGIN", *hosts, "HostTable END",
        "VendorTable BEGIN", "VendorTable END",
        "AETable BEGIN", f"{TITLE} {folder / 'storage'} RW (500, 1000mb) {allowed}",
        "AETable END",
    ]  # fmt: skip
    (folder / "dcmqrscp.cfg").write_text("\n".join(lines) + "\n")
    command = [path, "-c", str(folder / "dcmqrscp.cfg")]
    command += [] if get else ["--disable-get"]
    yield from _running(Dcmqrscp(folder, port, command, callers=callers))


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


# Between caller and server ---------------------------------------------------------------------


class Proxy:
    """What a :func:`proxy` did: `connections` it took and `cuts` it made."""

    def __init__(self, port: int):
        self.port, self.connections, self.cuts = port, 0, 0


@contextmanager
def proxy(
    target_port: int,
    *,
    cut_after: int | None = None,
    times: int | None = None,
    bytes_per_second: float | None = None,
    tls: Tls | None = None,
) -> Iterator[Proxy]:
    """Pass TCP connections on to a port of this machine.

    Args:
        target_port: where the server listens.
        cut_after: reset a connection once the server has sent so many bytes.
        times: cut so many connections, then none; all where None.
        bytes_per_second: what the server sends goes on no faster.
        tls: speak TLS with the caller; the server is spoken to without.
    """
    context = None
    if tls is not None:
        context = tls.certificates.context(tls.name, server=True, require=tls.require)
    listener = socket.create_server((HOST, 0))
    state = Proxy(listener.getsockname()[1])
    stopped = threading.Event()

    def serve() -> None:
        with suppress(OSError):  # closed at the end
            while True:
                client, _ = listener.accept()
                state.connections += 1
                threading.Thread(target=connect, args=[client], daemon=True).start()

    def connect(client: socket.socket) -> None:
        with (
            suppress(OSError),
            closing(client),
            socket.create_connection((HOST, target_port)) as server,
            closing(context.wrap_socket(client, server_side=True) if context else client) as caller,
        ):
            for end in (server, caller):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pump(caller, server)

    def pump(caller: socket.socket, server: socket.socket) -> None:
        sent = 0
        while not stopped.is_set():
            pending = isinstance(caller, ssl.SSLSocket) and caller.pending()
            ready = [caller] if pending else select.select([caller, server], [], [], 0.5)[0]
            for source in ready:
                data = source.recv(1 << 16)
                if not data:
                    return
                if source is caller:
                    server.sendall(data)
                    continue
                may_cut = cut_after is not None and (times is None or state.cuts < times)
                if may_cut and sent + len(data) >= cut_after:
                    state.cuts += 1
                    caller.sendall(data[: cut_after - sent])
                    reset = struct.pack("ii", 1, 0)  # no lingering: RST in place of FIN
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    return
                caller.sendall(data)
                sent += len(data)
                if bytes_per_second is not None:
                    stopped.wait(len(data) / bytes_per_second)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()
        thread.join()


# Archives with a fault -------------------------------------------------------------------------

_UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
# Keys that every archive must answer (PS3.4 C.6.2.1); the others are optional.
_REQUIRED = {
    "STUDY": ["StudyDate", "StudyTime", "AccessionNumber", "PatientName", "PatientID", "StudyID"],
    "SERIES": ["Modality", "SeriesNumber"],
    "IMAGE": ["InstanceNumber"],
}
_PENDING = 0xFF00


@dataclass
class Faulty:
    """A running :func:`faulty` archive: how many requests of each kind it met."""

    port: int
    title: str
    finds: int = 0
    gets: int = 0
    moves: int = 0


@contextmanager
def faulty(
    objects: Iterable[Dataset],
    *,
    hang_after: int | None = None,
    times: int | None = None,
    find_hangs: bool = False,
    seconds_per_film: float = 0.0,
    keys: str = "all",
    status: Mapping[str, int] | None = None,
    get: bool = True,
    move_to: Mapping[str, int] | None = None,
) -> Iterator[Faulty]:
    """Run an archive of pynetdicom over `objects` that answers, but not as one would like.

    Args:
        objects: what it holds.
        hang_after: a retrieval stops without a word once it has sent so many objects.
        times: so many retrievals hang or fail, later ones are right; all where None.
        find_hangs: C-FIND never answers.
        seconds_per_film: how long it takes over each object that it sends.
        keys: `all` answers all keys asked for, `required` leaves the optional ones out, `unique`
            gives UIDs only.
        status: answer these (`find`, `get`, `move`) with a failure status.
        get: whether C-GET is offered.
        move_to: ports of this machine by the AE title of a C-MOVE's destination.
    """
    held = list(objects)
    status, move_to = dict(status or {}), dict(move_to or {})
    stopped = threading.Event()

    def matches(item: Dataset, asked: Dataset) -> bool:
        for keyword in (*_UNIQUE.values(), "PatientID", "AccessionNumber", "Modality", "StudyDate"):
            wanted, value = asked.get(keyword), str(item.get(keyword, "") or "")
            if wanted is None or wanted == "":
                continue
            if keyword == "StudyDate" and "-" in wanted:
                first, last = wanted.split("-")
                if not (first <= value and (not last or value <= last)):
                    return False
            elif value not in ([wanted] if isinstance(wanted, str) else list(wanted)):
                return False
        return True

    def answer(item: Dataset, asked: Dataset) -> Dataset:
        level = asked.QueryRetrieveLevel
        above = list(_UNIQUE)[: list(_UNIQUE).index(level) + 1]
        given = {_UNIQUE[name] for name in above}
        if keys == "required":
            given |= set(_REQUIRED[level])
        result = Dataset()
        result.QueryRetrieveLevel = level
        for element in asked:
            name = element.keyword
            if name != "QueryRetrieveLevel" and (keys == "all" or name in given):
                source = "Modality" if name == "ModalitiesInStudy" else name
                setattr(result, name, item.get(source))
        return result

    def on_find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        state.finds += 1
        if find_hangs:
            stopped.wait()
        if "find" in status:
            yield status["find"], None
            return
        asked, seen = event.identifier, set()
        for item in held:
            uid = item.get(_UNIQUE[asked.QueryRetrieveLevel])
            if uid not in seen and matches(item, asked):
                seen.add(uid)
                yield _PENDING, answer(item, asked)

    def send(event: evt.Event, kind: str, count: int) -> Iterator:
        wrong = times is None or count <= times
        if kind in status and wrong:
            yield 1
            yield status[kind], None
            return
        chosen = [item for item in held if matches(item, event.identifier)]
        yield len(chosen)
        for number, item in enumerate(chosen):
            if wrong and number == hang_after:
                stopped.wait()
            stopped.wait(seconds_per_film)
            yield _PENDING, item

    def on_get(event: evt.Event) -> Iterator:
        state.gets += 1
        yield from send(event, "get", state.gets)

    def on_move(event: evt.Event) -> Iterator:
        state.moves += 1
        port = move_to.get(event.move_destination.strip())
        yield (HOST, port) if port else (None, None)
        if port:
            yield from send(event, "move", state.moves)

    ae = AE(ae_title=TITLE)
    ae.maximum_associations = 100  # those that hang stay
    ae.require_called_aet = True
    ae.add_supported_context(Verification)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    if get:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    for item in held:
        ae.add_requested_context(item.SOPClassUID, item.file_meta.TransferSyntaxUID)
    for sop_class in {item.SOPClassUID for item in held}:
        ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
    handlers = [
        (evt.EVT_C_ECHO, lambda event: 0x0000),
        (evt.EVT_C_FIND, on_find),
        (evt.EVT_C_GET, on_get),
        (evt.EVT_C_MOVE, on_move),
    ]
    server = ae.start_server((HOST, 0), block=False, evt_handlers=handlers)
    state = Faulty(server.server_address[1], TITLE)
    try:
        yield state
    finally:
        stopped.set()
        server.shutdown()
