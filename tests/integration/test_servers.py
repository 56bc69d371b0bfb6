"""The servers that other tests rely on do what they are started for, seen by dcmtk's tools."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.loads import big_film, distractors, samples, small_film, uids
from integration.servers import (
    CALLER,
    HOST,
    TITLE,
    Certificates,
    Tls,
    dcmqrscp,
    faulty,
    free_port,
    make_certificates,
    orthanc,
    program,
    proxy,
)
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet, Verification

FILMS = [small_film(number) for number in range(6)]
OTHERS = [item for kind in distractors().values() for item in kind]
STARTS = {"orthanc": orthanc, "dcmqrscp": dcmqrscp}


def call(tool: str, port: int, *options: object, title: str = TITLE) -> tuple[int, str]:
    """Call a server with one of dcmtk's tools; return its exit status and what it said."""
    command = [program(tool), "-v", *options, "-aet", CALLER, "-aec", title, HOST, port]
    # Names come in the character set of the object.
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace")
    return run.returncode, run.stdout + run.stderr


def of_studies(objects: list[Dataset]) -> list[str]:
    """Options that name the studies of objects."""
    studies = "\\".join(sorted({item.StudyInstanceUID for item in objects}))
    return ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={studies}"]


def get(port: int, folder: Path, objects: list[Dataset], *options: str) -> list[Path]:
    """What getscu brings of the objects' studies."""
    folder.mkdir(exist_ok=True)
    call("getscu", port, "+B", "-od", folder, *of_studies(objects), *options)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module", params=sorted(STARTS))
def server(request, tmp_path_factory):
    """A server of each kind that holds everything; `receiver_port` is where C-MOVE sends to."""
    port = free_port()
    folder = tmp_path_factory.mktemp(request.param)
    with STARTS[request.param](folder, move_to={"RECEIVER": port}) as server:
        server.load([*FILMS, *OTHERS, *samples()])
        server.receiver_port = port
        yield server


def test_echo_and_find(server):
    assert call("echoscu", server.port)[0] == 0
    status, text = call("findscu", server.port, *of_studies([]), "-k", "PatientID")
    assert status == 0
    assert all(item.StudyInstanceUID in text for item in FILMS + OTHERS)


def test_get_before_and_after_a_stop_and_a_kill(server, tmp_path):
    for number, end in enumerate([None, server.stop, server.kill]):
        if end is not None:
            end()
            assert not server.answers()
            server.start()
        assert uids(get(server.port, tmp_path / str(number), FILMS)) == uids(FILMS)


def test_the_distractors_are_there(server, tmp_path):
    got = get(server.port, tmp_path, OTHERS)
    assert uids(got) == uids(OTHERS)
    classes = {dcmread(path, stop_before_pixels=True).Modality for path in got}
    assert classes == {"DX", "CT", "SR"}


def test_move(server, tmp_path):
    options = ["-od", tmp_path, "+P", server.receiver_port, "-aem", "RECEIVER"]
    status, text = call("movescu", server.port, *options, *of_studies(FILMS))
    assert status == 0, text
    assert uids(list(tmp_path.iterdir())) == uids(FILMS)


def test_orthanc_sends_an_object_as_it_is_compressed(tmp_path):
    held = [path for path in samples() if path.stem == "cr_tibia_jpll"]
    if not held:
        pytest.skip("no real objects: set LUMBARFLOW_DATA")
    source, got = dcmread(held[0]), []

    def on_store(event):
        got.append((event.context.transfer_syntax, event.dataset.PixelData))
        return 0x0000

    # getscu proposes all syntaxes in one context, of which servers choose an uncompressed one.
    # dcmqrscp sends on whichever context of the class was accepted first, and fails here.
    ae = AE(CALLER)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    for syntax in (ExplicitVRLittleEndian, JPEGLosslessSV1):
        ae.add_requested_context(source.SOPClassUID, syntax)
    query = Dataset()
    query.QueryRetrieveLevel, query.SOPInstanceUID = "IMAGE", source.SOPInstanceUID
    query.StudyInstanceUID = source.StudyInstanceUID
    query.SeriesInstanceUID = source.SeriesInstanceUID
    with orthanc(tmp_path) as server:
        server.load(held)
        assoc = ae.associate(
            HOST,
            server.port,
            ae_title=TITLE,
            ext_neg=[build_role(source.SOPClassUID, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, on_store)],
        )
        list(assoc.send_c_get(query, StudyRootQueryRetrieveInformationModelGet))
        assoc.release()
    assert got == [(JPEGLosslessSV1, source.PixelData)]


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_titles_and_services_that_are_refused(start, tmp_path):
    with start(tmp_path / "a", callers=["SOMEBODY"]) as server:
        server.load(FILMS)
        assert call("echoscu", server.port, title="ELSEWHERE")[0] != 0
        assert not get(server.port, tmp_path / "stranger", FILMS)
        tool = [program("getscu"), "+B", "-od", tmp_path / "a", "-aet", "SOMEBODY", "-aec", TITLE]
        command = [*tool, *of_studies(FILMS), HOST, server.port]
        before = len(list((tmp_path / "a").iterdir()))
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        assert len(list((tmp_path / "a").iterdir())) == before + len(FILMS)
    with start(tmp_path / "b", get=False) as server:
        server.load(FILMS)
        assert call("findscu", server.port, *of_studies([]))[0] == 0
        assert not get(server.port, tmp_path / "refused", FILMS)


# Encryption ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def echo(port: int, context: ssl.SSLContext) -> bool:
    """Whether a C-ECHO succeeds over TLS with the host's name checked."""
    ae = AE(CALLER)
    ae.add_requested_context(Verification)
    assoc = ae.associate(HOST, port, ae_title=TITLE, tls_args=(context, HOST))
    if not assoc.is_established:
        return False
    status = assoc.send_c_echo()
    assoc.release()
    return status.get("Status") == 0


def encrypted_orthanc(folder: Path, tls: Tls):
    return orthanc(folder, tls=tls)


def proxied_dcmqrscp(folder: Path, tls: Tls):
    """dcmqrscp behind a proxy that decrypts for it."""

    @contextmanager
    def both():
        with dcmqrscp(folder) as server, proxy(server.port, tls=tls) as encrypted:
            yield encrypted

    return both()


ENCRYPTED = {"orthanc": encrypted_orthanc, "dcmqrscp": proxied_dcmqrscp}


@pytest.mark.parametrize("start", ENCRYPTED.values(), ids=ENCRYPTED)
def test_tls_with_and_without_a_certificate_of_the_caller(start, certificates, tmp_path):
    unknown = certificates.context(None)
    known = certificates.context("client")
    certificate, key = certificates.pair("client")
    dcmtk = ["+tls", key, certificate, "+cf", certificates.authority]
    with start(tmp_path / "any", Tls(certificates)) as server:
        assert echo(server.port, unknown) and echo(server.port, known)
        assert call("echoscu", server.port, *dcmtk)[0] == 0
        assert call("echoscu", server.port)[0] != 0
        assert not echo(server.port, ssl.create_default_context())  # knows no such authority
    with start(tmp_path / "known", Tls(certificates, require=True)) as server:
        assert not echo(server.port, unknown) and echo(server.port, known)
        assert call("echoscu", server.port, *dcmtk)[0] == 0
    for name in ("elsewhere", "stranger"):
        with start(tmp_path / name, Tls(certificates, name)) as server:
            assert not echo(server.port, known)


# Faults ----------------------------------------------------------------------------------------


def test_a_proxy_cuts_as_often_as_told(tmp_path):
    with orthanc(tmp_path / "orthanc") as server:
        server.load(FILMS)
        with proxy(server.port, cut_after=20_000, times=2) as cutting:
            first = get(cutting.port, tmp_path / "first", FILMS)
            second = get(cutting.port, tmp_path / "second", FILMS)
            third = get(cutting.port, tmp_path / "third", FILMS)
        assert len(first) == len(second) < len(FILMS)
        assert uids(third) == uids(FILMS)
        assert (cutting.cuts, cutting.connections) == (2, 3)


def test_an_archive_that_hangs_and_then_does_not(tmp_path):
    with faulty(FILMS, hang_after=2, times=1) as server:
        assert len(get(server.port, tmp_path / "first", FILMS, "-td", "1")) == 2
        assert uids(get(server.port, tmp_path / "second", FILMS, "-td", "1")) == uids(FILMS)
        assert server.gets == 2


@pytest.mark.parametrize("keys", ["all", "required", "unique"])
def test_an_archive_that_leaves_keys_out(keys):
    wanted = ["-k", "StudyDate", "-k", "StudyDescription", "-k", "ModalitiesInStudy"]
    with faulty(FILMS, keys=keys) as server:
        status, text = call("findscu", server.port, *of_studies([]), *wanted)
    assert status == 0
    answers = text.partition("Find Response")[2]
    assert all(film.StudyInstanceUID in answers for film in FILMS)
    assert (FILMS[0].StudyDate in answers) == (keys != "unique")
    assert (FILMS[0].StudyDescription in answers) == (keys == "all")


def test_an_archive_that_refuses(tmp_path):
    with faulty(FILMS, status={"get": 0xA701}, times=1) as server:
        assert not get(server.port, tmp_path / "first", FILMS)
        assert uids(get(server.port, tmp_path / "second", FILMS)) == uids(FILMS)


# Loads -----------------------------------------------------------------------------------------


def test_the_same_objects_on_every_run():
    again = [item for kind in distractors().values() for item in kind]
    assert again == OTHERS
    assert small_film(3) == FILMS[3]
    assert len(uids(FILMS)) == len(FILMS)
    assert len({film.StudyInstanceUID for film in FILMS}) == len(FILMS) / 2


def test_a_big_film_is_of_the_size_of_real_ones():
    first, second = big_film(0), big_film(4)  # of the same base
    assert (first.Rows, first.Columns, first.BitsAllocated) == (2500, 1500, 16)
    assert first.PixelData != second.PixelData and big_film(0) == first
