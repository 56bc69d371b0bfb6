"""Associations with a DICOM archive: C-ECHO, C-FIND, C-GET, C-MOVE, C-STORE, plain diagnoses.

Every sentence of an :class:`InputError` names the configuration key to change and no patient.
What may pass is a :class:`PassingError`; :mod:`lumbarflow.acquire.lines` repeats such requests.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    DigitalXRayImageStorageForProcessing,
    Verification,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as StudyFind,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as StudyGet,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as StudyMove,
)

from ..deidentify.engine import SOP_CLASSES
from ..errors import InputError

_UNCOMPRESSED = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
]
_COMPRESSED = [
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
]
# Raw films are not wanted, but archives that do not tell the class of an object (PS3.4 C.6.1.1.5)
# send them with the others, and count them as failures where they cannot.
_OFFERED = (*SOP_CLASSES, DigitalXRayImageStorageForProcessing)
# The most that dcmtk, hence Orthanc, sends at once; the usual 16 kB take twice the time.
_LARGEST_PDU = 131072
_PDU_HEADER = 6  # bytes
_BITE = 1 << 18  # bytes
_QUICK_ACKNOWLEDGEMENT = getattr(socket, "TCP_QUICKACK", None)  # Linux
_PENDING = (0xFF00, 0xFF01)
_SUCCESS, _SOME_FAILED = 0x0000, 0xB000
_STORED_WITH_WARNING = (0xB000, 0xB006, 0xB007)
# Refused for want of resources, processing failure, resource limitation (PS3.7 annex C).
_PASSING = (0xA700, 0xA701, 0xA702, 0x0110, 0x0213)
_UNKNOWN_DESTINATION = 0xA801  # PS3.4 C.4.2.1.5

OnStore = Callable[[evt.Event], int]


class PassingError(InputError):
    """A failure that may pass: the same request may succeed a little later."""


class RefusedError(InputError):
    """A request that the archive refused; others may succeed."""


@dataclass(frozen=True)
class Tls:
    """Files (PEM) of an encrypted association; None for the certificates of the machine."""

    ca_file: str | None = None
    certificate_file: str | None = None
    private_key_file: str | None = None


@dataclass(frozen=True)
class Archive:
    """Address, titles and habits of an archive; see `archive` in the configuration's schema."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    timeout_seconds: float = 30
    retrieve_by: str = "get"
    storage_port: int = 11113
    associations: int = 3
    attempts: int = 6
    series_seconds: float = 600
    tls: Tls | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Archive:
        """The archive of `archive` in the configuration."""
        values = {field.name: settings[field.name] for field in fields(cls) if field.name != "tls"}
        tls = dict(settings["tls"])
        return cls(**values, tls=Tls(**tls) if tls.pop("enabled") else None)

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"

    @property
    def services(self) -> list[str]:
        """SOP classes without which nothing can be retrieved."""
        return [StudyFind, StudyGet if self.retrieve_by == "get" else StudyMove]


# Making an association ---------------------------------------------------------------------------


@contextmanager
def association(
    archive: Archive, on_store: OnStore | None = None, services: Sequence[str] | None = None
) -> Iterator[Association]:
    """Open an association for C-ECHO and other services; release it at the end.

    Args:
        archive: whom to call.
        on_store: handler of the objects that a C-GET brings; returns a C-STORE status.
        services: SOP classes that are needed; those of :attr:`Archive.services` if None.

    Raises:
        InputError: the archive cannot be reached, refuses a title, or offers none of the services;
            a :class:`PassingError` where that may pass.
    """
    assoc = associate(archive, on_store, services)
    try:
        yield assoc
    except BaseException:
        cut(assoc)
        raise
    finally:
        if assoc.is_established:
            assoc.release()


def associate(
    archive: Archive, on_store: OnStore | None = None, services: Sequence[str] | None = None
) -> Association:
    """Open an association, see :func:`association`, which the caller has to release."""
    needed = [UID(service) for service in services or archive.services]
    ae = AE(ae_title=archive.calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = archive.timeout_seconds
    ae.dimse_timeout = ae.network_timeout = archive.timeout_seconds
    for service in (Verification, *needed):
        ae.add_requested_context(service)
    roles, handlers = [], []
    if on_store is not None and archive.retrieve_by == "get":
        for sop_class in _OFFERED:
            ae.add_requested_context(sop_class, _UNCOMPRESSED)
            # One context each, so that the archive can send what it holds without decoding it.
            for syntax in _COMPRESSED:
                ae.add_requested_context(sop_class, syntax)
            roles.append(build_role(sop_class, scp_role=True))
        handlers = [(evt.EVT_C_STORE, on_store)]
    handlers.append((evt.EVT_CONN_OPEN, _hurry))
    context = _client_context(archive)
    try:
        assoc = ae.associate(
            archive.host,
            archive.port,
            ae_title=archive.ae_title,
            max_pdu=_LARGEST_PDU,
            ext_neg=roles,
            evt_handlers=handlers,
            tls_args=(context, archive.host) if context else None,
        )
    except OSError as error:
        raise _unreachable(error, archive) from None
    if not assoc.is_established:
        raise _diagnosis(assoc, archive)
    accepted = {item.abstract_syntax for item in assoc.accepted_contexts}
    if missing := [service.name for service in needed if service not in accepted]:
        assoc.release()
        raise InputError(
            f"The archive {archive} does not offer {' and '.join(missing)}: ask its administrator "
            f"to allow it for {archive.calling_ae_title} (archive.calling_ae_title)"
            f"{', or change archive.retrieve_by' if services is None else ''}."
        )
    return assoc


class _PromptSocket(socket.socket):
    """A socket that neither waits nor takes PDUs in small bites, as those of pynetdicom do.

    Requests go out in parts, of which Nagle's algorithm holds the second back until the first is
    acknowledged, and acknowledgements wait 40 ms for something to go with. The kernel forgets that
    they should not, hence it is told again at each PDU.

    pynetdicom reads 4 kB at a time. Each time, threads change over; here it is once in `_BITE`, and
    the rest of the bite waits in memory, never beyond the end of the PDU, where the next is looked
    for in the kernel.
    """

    _unread = memoryview(b"")
    _of_pdu = 0  # bytes of the PDU that are still to come

    def send(self, data: bytes, flags: int = 0) -> int:
        sent = super().send(data, flags)
        self._acknowledge()
        return sent

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self._unread:
            at_start = self._of_pdu == 0
            data = super().recv(size if at_start else min(self._of_pdu, _BITE), flags)
            if at_start:
                if len(data) == _PDU_HEADER:  # type, reserved byte, length (PS3.8 9.3.1)
                    self._of_pdu = int.from_bytes(data[2:])
                self._acknowledge()
                return data
            self._of_pdu -= len(data)
            self._unread = memoryview(data)
        piece, self._unread = self._unread[:size], self._unread[size:]
        return bytes(piece)

    def _acknowledge(self) -> None:
        if _QUICK_ACKNOWLEDGEMENT is not None:
            self.setsockopt(socket.IPPROTO_TCP, _QUICK_ACKNOWLEDGEMENT, 1)


def _hurry(event: evt.Event) -> None:
    """Make the socket of a new connection a prompt one."""
    carrier = event.assoc.dul.socket
    carrier.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if type(carrier.socket) is socket.socket:  # not one of TLS, which keeps its state
        plain = carrier.socket
        timeout = plain.gettimeout()
        carrier.socket = _PromptSocket(fileno=plain.detach())
        carrier.socket.settimeout(timeout)


def hang_up(assoc: Association) -> None:
    """Close the connection under an association: whoever waits for an answer gets none, at once."""
    with suppress(OSError, AttributeError):  # it may be closing
        assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)


def cut(assoc: Association) -> None:
    """Break an association off, also where the other side has stopped in mid-sentence."""
    if assoc.is_established:
        # Its thread may be waiting for bytes without limit; an A-ABORT alone would wait, too.
        hang_up(assoc)
        assoc.abort()


def check(archive: Archive) -> None:
    """Make an association and send a C-ECHO.

    Raises:
        InputError: the archive cannot be used; the sentence says which setting to change.
    """
    with association(archive) as assoc:
        # Not every archive offers verification; the association itself has shown most.
        if any(c.abstract_syntax == Verification for c in assoc.accepted_contexts):
            _wait_until_still(assoc)
            status = assoc.send_c_echo()
            if not status or status.Status != _SUCCESS:
                raise _status_error(status, archive, "C-ECHO")


def _diagnosis(assoc: Association, archive: Archive) -> InputError:
    """Why no association came about, from what is left of the attempt or by trying the port."""
    if assoc.is_rejected:
        return _rejection(assoc.acceptor.primitive, archive)
    if assoc.rejected_contexts:
        return InputError(
            f"The archive {archive} accepted no presentation context (PS3.8 7.1.1.14): ask its "
            f"administrator to allow query and retrieval for {archive.calling_ae_title} "
            "(archive.calling_ae_title), or change archive.retrieve_by."
        )
    try:
        raw = socket.create_connection((archive.host, archive.port), archive.timeout_seconds)
    except OSError as error:
        return _unreachable(error, archive)
    with raw:
        problem = _tls_problem(raw, archive)
    return problem or PassingError(
        f"The archive {archive} broke off before an association was made: check that archive.port "
        "is its DICOM port, and that it accepts this machine and archive.calling_ae_title."
    )


def _rejection(answer: Any, archive: Archive) -> InputError:
    # Result source and diagnostic of an A-ASSOCIATE-RJ (DICOM PS3.8 table 9-21).
    reasons = {
        (1, 3): (
            f"it does not know the calling AE title {archive.calling_ae_title}: register it "
            "there or change archive.calling_ae_title"
        ),
        # dcmqrscp says so of unknown callers, too.
        (1, 7): (
            f"it does not answer to the AE title {archive.ae_title}: change archive.ae_title, or "
            f"register the calling AE title {archive.calling_ae_title} there"
        ),
    }
    key = (answer.result_source, answer.diagnostic)
    if answer.result_source == 3:
        reasons[key] = f"{answer.reason_str}; lower archive.associations where it allows few"
    reason = reasons.get(key, f"{answer.reason_str}; ask its administrator")
    kind = PassingError if answer.result == 2 else InputError  # 2: rejected, transient
    return kind(f"The archive at {archive.host}:{archive.port} refused the association: {reason}.")


def _unreachable(error: OSError, archive: Archive) -> InputError:
    if isinstance(error, socket.gaierror):
        return InputError(f"The host name {archive.host} is not known: check archive.host.")
    cause = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
    return PassingError(
        f"The archive at {archive.host}:{archive.port} cannot be reached ({cause}): check "
        "archive.host, archive.port and whether the archive is running."
    )


# TLS ----------------------------------------------------------------------------------------------


def _client_context(archive: Archive) -> ssl.SSLContext | None:
    """What TLS asks of the archive: a certificate of a known authority, for this host name."""
    if archive.tls is None:
        return None
    return _with_certificate(
        _trusting(ssl.Purpose.SERVER_AUTH, archive.tls), archive.tls, needed=False
    )


def _server_context(tls: Tls) -> ssl.SSLContext:
    """The same for the archive that connects to us with the films of a C-MOVE."""
    context = _with_certificate(_trusting(ssl.Purpose.CLIENT_AUTH, tls), tls, needed=True)
    if tls.ca_file:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _trusting(purpose: ssl.Purpose, tls: Tls) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(purpose, cafile=tls.ca_file)
    except (OSError, ssl.SSLError):
        raise InputError(
            f"{tls.ca_file} holds no readable certificates (PEM): check archive.tls.ca_file."
        ) from None


def _with_certificate(context: ssl.SSLContext, tls: Tls, needed: bool) -> ssl.SSLContext:
    if tls.certificate_file is None:
        if needed:
            raise InputError(
                "The archive brings films of a C-MOVE over TLS: set archive.tls.certificate_file "
                "and archive.tls.private_key_file, or archive.retrieve_by to get."
            )
        return context

    def no_password() -> str:
        raise ValueError

    try:
        context.load_cert_chain(tls.certificate_file, tls.private_key_file, no_password)
    except (OSError, ssl.SSLError, ValueError):
        raise InputError(
            f"{tls.certificate_file} and its private key cannot be used (PEM, without password): "
            "check archive.tls.certificate_file and archive.tls.private_key_file."
        ) from None
    return context


def _tls_problem(raw: socket.socket, archive: Archive) -> InputError | None:
    """What is wrong with TLS at the connection `raw`, None where TLS is not the cause."""
    context = _client_context(archive)
    if context is None:
        # Without names: this only asks whether the other side speaks TLS at all.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    where = f"The archive at {archive.host}:{archive.port}"
    try:
        with context.wrap_socket(raw, server_hostname=archive.host) as secure:
            if archive.tls is None:
                return InputError(f"{where} speaks TLS: set archive.tls.enabled to true.")
            # With TLS 1.3, a missing certificate is told only after the handshake.
            secure.settimeout(min(2.0, archive.timeout_seconds))
            secure.recv(1)
    except TimeoutError:
        return None
    except ssl.SSLCertVerificationError as error:
        return InputError(
            f"{where} has a certificate that is not accepted ({error.verify_message}): check "
            "archive.tls.ca_file and that archive.host is the name in the certificate."
        )
    except OSError as error:
        if archive.tls is None:
            return None
        reason = str(getattr(error, "reason", "") or "")
        if "CERTIFICATE" in reason or "ALERT" in reason:
            return InputError(
                f"{where} does not accept our certificate ({reason}): set "
                "archive.tls.certificate_file and archive.tls.private_key_file to one that it "
                "knows."
            )
        return InputError(
            f"{where} does not speak TLS: set archive.tls.enabled to false, or archive.port to "
            "its port for TLS."
        )
    return None


# Requests -----------------------------------------------------------------------------------------


def identifier(level: str, **keys: Any) -> Dataset:
    """A query/retrieve identifier: `keys` are DICOM keywords, an empty text asks for the value."""
    result = Dataset()
    result.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(result, keyword, value)
    return result


def _wait_until_still(assoc: Association) -> None:
    """Wait until the association's own thread stands still, before a request.

    It takes messages that come for requests of the archive. pynetdicom stops it for a request of
    ours, but by a mark that may be from before (`_is_paused` in pynetdicom 3.0.4): under load, the
    thread is still on its way to a last look and takes our answer. A film was then missing from an
    answer, or none came.
    """
    checkpoint = assoc._reactor_checkpoint
    checkpoint.clear()
    while assoc.is_alive() and not checkpoint._cond._waiters:
        time.sleep(0.0002)


def find(assoc: Association, archive: Archive, query: Dataset) -> list[Dataset]:
    """Return the data sets that match `query` in the Study Root model (DICOM PS3.4 C.4.1).

    Raises:
        InputError: the archive answers with a failure or not at all.
    """
    found = []
    _wait_until_still(assoc)
    for status, answer in assoc.send_c_find(query, StudyFind):
        if not status or status.Status not in (_SUCCESS, *_PENDING):
            raise _status_error(status, archive, "C-FIND")
        if status.Status in _PENDING and answer is not None:
            found.append(answer)
    return found


def fetch(assoc: Association, archive: Archive, query: Dataset) -> None:
    """Fetch what `query` names by C-GET or C-MOVE (PS3.4 C.4.3, C.4.2), within the time limit.

    The objects come to the handler of the association, or of :func:`receiving`. Some may be missing
    at the end: the caller counts them.

    Raises:
        InputError: the archive answers with a failure or not at all.
    """
    late = threading.Event()

    def stop() -> None:
        late.set()
        hang_up(assoc)

    _wait_until_still(assoc)
    if archive.retrieve_by == "get":
        service, answers = "C-GET", assoc.send_c_get(query, StudyGet)
    else:
        service = "C-MOVE"
        answers = assoc.send_c_move(query, archive.calling_ae_title, StudyMove)
    timer = threading.Timer(archive.series_seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        for status, _ in answers:
            if not status or status.Status not in (_SUCCESS, _SOME_FAILED, *_PENDING):
                if late.is_set():
                    raise PassingError(
                        f"The archive {archive} did not finish a {service} within "
                        f"{archive.series_seconds:g} s: raise archive.series_seconds."
                    )
                raise _status_error(status, archive, service)
    finally:
        timer.cancel()


def send(assoc: Association, archive: Archive, dataset: Dataset) -> None:
    """Send an object for storage (PS3.4 B.2); the association must have its SOP class.

    Raises:
        InputError: the archive answers with a failure or not at all.
    """
    _wait_until_still(assoc)
    status = assoc.send_c_store(dataset) if assoc.is_established else None
    # An archive that stores and changes or doubts something warns (PS3.4 table B.2-1).
    if not status or status.Status not in (_SUCCESS, *_STORED_WITH_WARNING):
        raise _status_error(status, archive, "C-STORE")


def _status_error(status: Dataset | None, archive: Archive, service: str) -> InputError:
    if not status:
        return PassingError(
            f"The archive {archive} stopped answering during {service}: run the same command again "
            "(what is already here stays), or raise archive.timeout_seconds."
        )
    # Orthanc answers an unknown destination with a status of its own.
    if service == "C-MOVE" and status.Status not in _PASSING:
        kind = InputError if status.Status == _UNKNOWN_DESTINATION else RefusedError
        return kind(
            f"The archive {archive} refused C-MOVE with status 0x{status.Status:04X}: it may not "
            f"know {archive.calling_ae_title} as a destination; register this title there with "
            f"this machine's address and archive.storage_port ({archive.storage_port}), or set "
            "archive.retrieve_by to get."
        )
    kind = PassingError if status.Status in _PASSING else RefusedError
    return kind(
        f"The archive {archive} refused {service} with status 0x{status.Status:04X}: ask its "
        "administrator, naming this status."
    )


@contextmanager
def receiving(archive: Archive, on_store: OnStore) -> Iterator[None]:
    """Receive the objects that an archive sends after C-MOVE requests, for the length of the block.

    Raises:
        InputError: the port cannot be used.
    """
    ae = AE(ae_title=archive.calling_ae_title)
    ae.maximum_pdu_size = _LARGEST_PDU
    ae.require_called_aet = True
    ae.network_timeout = ae.dimse_timeout = archive.timeout_seconds
    ae.maximum_associations = 2 * archive.associations + 2  # an archive may not close them at once
    ae.add_supported_context(Verification)
    for sop_class in _OFFERED:
        ae.add_supported_context(sop_class, _UNCOMPRESSED + _COMPRESSED)
    try:
        server = ae.start_server(
            ("", archive.storage_port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, on_store), (evt.EVT_CONN_OPEN, _hurry)],
            ssl_context=_server_context(archive.tls) if archive.tls else None,
        )
    except OSError as error:
        raise InputError(
            f"The port {archive.storage_port} cannot be used to receive films ({error.strerror}): "
            "change archive.storage_port, here and in the archive."
        ) from None
    try:
        yield
    finally:
        server.shutdown()
