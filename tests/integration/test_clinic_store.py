"""Segmentation and report judged by other tools, and on their way to an archive and back."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path

import highdicom
import pydicom
import pytest
from clinic_films import DEVICE, encoded, film, measurements, spine
from integration.servers import CALLER, HOST, TITLE, free_port, orthanc, program
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from lumbarflow.acquire.dimse import Archive, PassingError
from lumbarflow.acquire.embedded_archive import running
from lumbarflow.clinic.report import measurement_report
from lumbarflow.clinic.segmentation import segmentation
from lumbarflow.clinic.store import store
from lumbarflow.errors import InputError

SEEDS = (200003, 200011)


def objects(seed: int, modality: str, identified: bool = False) -> list[Dataset]:
    """A film's segmentation and its report."""
    original, clean, _ = film(seed, modality)
    source = original if identified else clean
    made = segmentation(source, spine(seed), DEVICE)
    found = measurements(seed, whole=seed == SEEDS[0])
    return [made, measurement_report(source, made, spine(seed), found, DEVICE)]


@pytest.fixture(scope="module")
def made() -> list[Dataset]:
    """Of CR and DX films, de-identified and not."""
    return [
        *objects(SEEDS[0], "DX"),
        *objects(SEEDS[1], "CR"),
        *objects(SEEDS[1], "DX", identified=True),
    ]


def at(port: int, **changes) -> Archive:
    settings = {"ae_title": TITLE, "calling_ae_title": CALLER, "timeout_seconds": 20} | changes
    return Archive(HOST, port, **settings)


def run(name: str, *arguments) -> tuple[int, str]:
    done = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, errors="replace"
    )
    return done.returncode, done.stdout + done.stderr


# Other tools --------------------------------------------------------------------------------------


def test_dciodvfy_finds_no_error(made, tmp_path):
    path = tmp_path / "object.dcm"
    for item in made:
        path.write_bytes(encoded(item))
        _, told = run("dciodvfy", path)
        assert ("Segmentation" if item.Modality == "SEG" else "ComprehensiveSR") in told
        assert not [line for line in told.splitlines() if "Error" in line]


def test_dcmtk_reads_the_report(made, tmp_path):
    path = tmp_path / "object.dcm"
    for item in made[1::2]:
        path.write_bytes(encoded(item))
        status, told = run("dsrdump", "+Pn", path)
        assert status == 0
        # All warnings but that its checker of values does not know Unicode.
        lines = told.splitlines()
        warnings = [x for x in lines if x.startswith(("W:", "E:")) and "ISO_IR 192" not in x]
        assert not warnings
        assert 'TEXT:(,,"Tracking Identifier")="L4/L5"' in told
        assert "NUM" in told and '(deg,UCUM,"Degree")' in told


# To an archive and back ---------------------------------------------------------------------------


def held(server) -> dict[str, Dataset]:
    """What Orthanc holds, by SOP Instance UID."""
    found = {}
    with closing(http.client.HTTPConnection(HOST, server.http_port)) as connection:

        def get(path: str) -> bytes:
            connection.request("GET", path)
            return connection.getresponse().read()

        for name in json.loads(get("/instances")):
            item = pydicom.dcmread(BytesIO(get(f"/instances/{name}/file")))
            found[item.SOPInstanceUID] = item
    return found


def test_objects_go_into_orthanc_and_come_back(made, tmp_path):
    with orthanc(tmp_path) as server:
        server.load([film(SEEDS[0], "DX")[1]])
        store(made, at(server.port))
        store(made[:2], at(server.port))  # again
        back = held(server)
    assert len(back) == len(made) + 1
    for item in made:
        got = back[item.SOPInstanceUID]
        assert got == pydicom.dcmread(BytesIO(encoded(item)))
        if item.Modality == "SEG":
            read = highdicom.seg.segread(BytesIO(encoded(got)))
            assert read.number_of_segments == len(item.SegmentSequence)
        else:
            content = highdicom.sr.srread(BytesIO(encoded(got))).content
            assert content.get_planar_roi_measurement_groups()
    # The film and what was found on it are one study.
    assert len({item.StudyInstanceUID for item in back.values()}) == 3


def test_nothing_to_store_calls_nobody():
    store([], at(free_port()))


@contextmanager
def archive(status: int = 0x0000, classes=(), syntaxes=None):
    """An archive that answers every C-STORE with a status; yields its port and what came."""
    got: list[Dataset] = []

    def on_store(event: evt.Event) -> int:
        got.append(event.dataset)
        return status

    ae = AE(ae_title=TITLE)
    ae.add_supported_context(Verification)
    for sop_class in classes:
        ae.add_supported_context(sop_class, syntaxes)
    server = ae.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()


def classes_of(items: list[Dataset]) -> set[str]:
    return {item.SOPClassUID for item in items}


def test_an_archive_that_knows_only_implicit_vr_gets_the_same(made):
    with archive(classes=classes_of(made), syntaxes=[ImplicitVRLittleEndian]) as (port, got):
        store(made[:2], at(port))
    assert [item.SOPInstanceUID for item in got] == [item.SOPInstanceUID for item in made[:2]]
    assert got[0].PixelData == made[0].PixelData


def test_a_warning_of_the_archive_is_no_failure(made):
    with archive(0xB000, classes_of(made)) as (port, got):
        store(made[:2], at(port))
    assert len(got) == 2


def sentence(caught) -> str:
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize(("status", "kind"), [(0xA700, PassingError), (0xC000, InputError)])
def test_a_refused_object_is_one_sentence(made, status, kind):
    with archive(status, classes_of(made)) as (port, got):
        with pytest.raises(kind) as caught:
            store(made, at(port))
        assert f"refused C-STORE with status 0x{status:04X}" in sentence(caught)
    assert len(got) == 1


def test_an_archive_that_takes_no_reports_is_named(made):
    taken = [made[0].SOPClassUID]
    with archive(classes=taken) as (port, got), pytest.raises(InputError) as caught:
        store(made, at(port))
    assert "does not offer Comprehensive SR Storage" in sentence(caught)
    assert "retrieve_by" not in sentence(caught)
    assert not got


def test_the_embedded_archive_takes_nothing(made, tmp_path):
    (tmp_path / "objects").mkdir()
    with running(tmp_path, HOST, 0, TITLE) as port, pytest.raises(InputError) as caught:
        store(made, at(port))
    assert "does not offer Segmentation Storage and Comprehensive SR Storage" in sentence(caught)


def test_an_archive_that_hangs_up_is_one_sentence(made):
    def hang_up(event: evt.Event) -> int:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000

    ae = AE(ae_title=TITLE)
    for sop_class in classes_of(made):
        ae.add_supported_context(sop_class)
    server = ae.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, hang_up)])
    try:
        with pytest.raises(PassingError) as caught:
            store(made, at(server.server_address[1]))
    finally:
        server.shutdown()
    assert "stopped answering during C-STORE" in sentence(caught)


def test_nobody_there_is_one_sentence(made):
    with pytest.raises(PassingError) as caught:
        store(made, at(free_port()))
    assert "cannot be reached" in sentence(caught)


def test_an_unknown_title_is_one_sentence(made, tmp_path: Path):
    with orthanc(tmp_path) as server, pytest.raises(InputError) as caught:
        store(made, at(server.port, ae_title="ANOTHER"))
    assert "archive.ae_title" in sentence(caught)
