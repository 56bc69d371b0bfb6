"""Retrieval over the network from the embedded archive, and that archive spoken to by dcmtk."""

from __future__ import annotations

import errno
import logging
import shutil
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from integration.servers import program
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from lumbarflow.acquire.dimse import Archive, association, find, identifier
from lumbarflow.acquire.embedded_archive import running
from lumbarflow.acquire.films import MANIFEST, take_dicom
from lumbarflow.acquire.retrieve import retrieve
from lumbarflow.acquire.selection import Selection
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.profile import TEXTS
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError
from lumbarflow.files import read_json
from lumbarflow.synthetic.cohort import generate_cohort

KEYED = Pseudonyms(b"a key for these tests only")
TITLE = "LUMBARPACS"
PATIENTS = 13
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    generate_cohort(
        folder,
        PATIENTS,
        5,
        follow_up_fraction=0.5,
        scale=0.12,
        side_marker_fraction=0,
        burned_in_text_fraction=0,
        log=lambda _: None,
    )
    return folder


@pytest.fixture(scope="module")
def laterals(storage) -> set[str]:
    """SOP Instance UIDs of the lateral films."""
    images = read_json(storage / "truth.json")["images"]
    return {image["sop_instance_uid"] for image in images if image["view"] == "lateral"}


@pytest.fixture(scope="module")
def truth(storage) -> list[pydicom.Dataset]:
    """Every object of the archive, without pixels."""
    files = sorted((storage / "objects").glob("*.dcm"))
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in files]


@pytest.fixture(scope="module")
def identifying(truth) -> set[str]:
    """Texts and UIDs of the archive that nothing written may hold."""
    found = set()
    for source in truth:
        for element in source.iterall():
            stays = element.keyword in (*TEXTS, "CodeValue", "CodeMeaning")
            if element.VR in {"PN", "LO", "ST", "LT", "SH", "UI"} and element.value and not stays:
                for value in map(str, element.value if element.VM > 1 else [element.value]):
                    found |= {value, *value.split("^")}
    harmless = {source.get("SOPClassUID") for source in truth} | {"Lateral"}  # ImageLaterality
    harmless |= {f"1.2.840.10008.{rest}" for rest in ("1.2.1",)}
    return {value for value in found - harmless if len(value) >= 6}


@pytest.fixture(scope="module")
def archive(storage):
    with running(storage, "127.0.0.1", 0, TITLE) as port:
        yield Archive("127.0.0.1", port, TITLE, "LUMBARFLOW", 20, attempts=2)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("lumbarflow.acquire.lines._LONGEST_PAUSE", 0.2)


def fetch(archive, out: Path, decisions=None, allow_missing=False, **changes) -> pd.DataFrame:
    selection = Selection(**({"modalities": ("DX", "CR")} | changes))
    log = logging.getLogger("test_archive")
    manifest = out / "manifest.parquet"
    retrieve(
        archive, selection, Deidentifier(KEYED), out, manifest, decisions or {}, log, allow_missing
    )
    return pd.read_parquet(manifest)


class Messages(logging.Handler):
    """Keeps the messages that a logger gives it."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture(scope="module")
def retrieved(archive, tmp_path_factory) -> tuple[Path, pd.DataFrame, list[str]]:
    """A finished retrieval: its folder, its manifest and what was logged."""
    out = tmp_path_factory.mktemp("retrieved")
    messages = Messages()
    log = logging.getLogger("test_archive")
    log.addHandler(messages)
    log.setLevel(logging.DEBUG)
    table = fetch(archive, out)
    log.removeHandler(messages)
    return out, table, messages.texts


@pytest.fixture
def out(retrieved, tmp_path) -> Path:
    """A copy of the finished retrieval, to do things to."""
    return Path(shutil.copytree(retrieved[0], tmp_path / "out"))


def times(out: Path) -> dict[Path, int]:
    """When each file but the manifest was written."""
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    return {path: path.stat().st_mtime_ns for path in files}


# What comes ------------------------------------------------------------------------------------


def patient_spacing(source: pydicom.Dataset) -> tuple[float | None, str | None]:
    """The size of a pixel in the patient, and what tells it."""
    if "PixelSpacingCalibrationType" in source:
        return float(source.PixelSpacing[0]), "geometry"
    if source.Modality == "DX":
        magnification = source.get("EstimatedRadiographicMagnificationFactor")
    elif "DistanceSourceToPatient" in source:
        magnification = source.DistanceSourceToDetector / source.DistanceSourceToPatient
    else:
        magnification = None
    if magnification is None:
        return None, None
    return float(source.ImagerPixelSpacing[0]) / float(magnification), "magnification"


def test_every_film_is_in_the_manifest(retrieved, truth, laterals):
    out, table, _ = retrieved
    assert list(table.columns) == list(MANIFEST)
    rows = table.set_index("image_id")
    assert set(rows.index) == {KEYED.image(source.SOPInstanceUID) for source in truth}
    for source in truth:
        row = rows.loc[KEYED.image(source.SOPInstanceUID)]
        assert row["patient_id"] == KEYED.patient(f"\0{source.PatientID}")
        assert row["study_id"] == KEYED.study(source.StudyInstanceUID)
        assert (row["rows"], row["columns"]) == (source.Rows, source.Columns)
        detector = float(source.ImagerPixelSpacing[0])
        assert row["imager_pixel_spacing_mm"] == pytest.approx(detector)
        expected, told_by = patient_spacing(source)
        if expected is None:
            assert pd.isna(row["pixel_spacing_mm"]) and pd.isna(row["pixel_spacing_source"])
        else:
            assert row["pixel_spacing_mm"] == pytest.approx(expected, rel=1e-4)
            assert row["pixel_spacing_source"] == told_by
        lateral = source.SOPInstanceUID in laterals
        assert row["view"] == ("lateral" if lateral else "frontal")
        assert row["status"] == ("accepted" if lateral else "rejected")
        assert lateral or row["reason"] == "not_lateral"
    assert (rows["status"] == "rejected").sum() >= 1
    accepted = set(rows.index[rows["status"] == "accepted"])
    assert {path.stem for path in (out / "png").iterdir()} == accepted
    assert {path.stem for path in (out / "dicom").iterdir()} == accepted


def test_study_days_count_from_the_patients_first_study(retrieved, truth):
    rows = retrieved[1].set_index("image_id")
    days = {}
    for source in truth:
        days.setdefault(source.PatientID, []).append(date.fromisoformat(source.StudyDate))
    for source in truth:
        expected = (date.fromisoformat(source.StudyDate) - min(days[source.PatientID])).days
        assert rows.loc[KEYED.image(source.SOPInstanceUID), "study_day"] == expected
    assert (rows["study_day"] > 0).any() and (rows["study_day"] == 0).any()


def test_nothing_identifying_is_written_or_logged(retrieved, identifying, truth):
    out, _, texts = retrieved
    for source in truth:  # another patient's moved date may be the same by chance
        path = out / f"dicom/{KEYED.image(source.SOPInstanceUID)}.dcm"
        dates = {element.value for element in source.iterall() if element.VR == "DA"}
        data = path.read_bytes() if path.exists() else b""
        assert dates and not [day for day in dates if day.encode() in data]
    assert len(identifying) > 50
    assert any("studies match" in text for text in texts)
    written = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(written) > 2 * PATIENTS
    for value in identifying:
        for form in (value.encode(), value.encode("latin-1", "replace")):
            assert not [path for path, data in written.items() if form in data], value
        assert not [text for text in texts if value in text]
        assert not [path for path in written if value in str(path.relative_to(out))]
    assert not list(out.rglob("*.sqlite"))


def test_study_dates_narrow_the_query(archive, retrieved, truth, tmp_path):
    days = sorted({source.StudyDate for source in truth})
    middle = days[len(days) // 2]
    table = fetch(archive, tmp_path, study_dates=f"{middle}-")
    expected = {KEYED.image(s.SOPInstanceUID) for s in truth if s.StudyDate >= middle}
    assert set(table["image_id"]) == expected
    # Asked for all afterwards: days count from studies that the first query did not see.
    pd.testing.assert_frame_equal(fetch(archive, tmp_path), retrieved[1])


# Restart ---------------------------------------------------------------------------------------


def test_a_second_run_fetches_nothing(archive, retrieved, out, caplog):
    caplog.set_level(logging.INFO, "test_archive")
    before = times(out)
    pd.testing.assert_frame_equal(fetch(archive, out), retrieved[1])
    assert times(out) == before
    assert "; 0 studies fetched now" in caplog.text


def test_what_a_killed_run_did_not_finish_is_fetched_and_no_more(archive, retrieved, out):
    first = retrieved[1]
    studies = first.set_index("image_id")["study_id"]
    before = times(out)
    records = sorted((out / "studies").iterdir())
    films = sorted((out / "png").iterdir())
    lost = {records[0].stem, studies[films[0].stem], studies[films[-1].stem]}
    records[0].unlink()
    films[0].unlink()
    (out / "dicom" / f"{films[-1].stem}.dcm").unlink()
    (out / "manifest.parquet").unlink()
    pd.testing.assert_frame_equal(fetch(archive, out), first)
    after = times(out)
    assert after.keys() == before.keys()
    for path, when in after.items():
        study = path.stem if path.parent.name == "studies" else studies[path.stem]
        assert (when != before[path]) == (study in lost), path


def test_other_decisions_or_modalities_are_asked_for_anew(archive, truth, laterals, out):
    dx = [source for source in truth if source.Modality == "DX"]
    day = next(source.StudyDate for source in dx if source.SOPInstanceUID in laterals)
    narrow = fetch(archive, out, study_dates=day, modalities=["DX"])
    (out / "png" / f"{narrow['image_id'][0]}.png").write_bytes(b"old")
    fetch(archive, out, study_dates=day, modalities=["DX"])
    assert (out / "png" / f"{narrow['image_id'][0]}.png").read_bytes() == b"old"
    fetch(archive, out, study_dates=day)
    assert (out / "png" / f"{narrow['image_id'][0]}.png").read_bytes() != b"old"
    frontal = next(source for source in truth if source.SOPInstanceUID not in laterals)
    chosen = {KEYED.image(frontal.SOPInstanceUID): "accept"}
    wider = fetch(archive, out, study_dates=frontal.StudyDate, decisions=chosen)
    assert set(wider["status"]) == {"accepted"}


# Mistakes --------------------------------------------------------------------------------------


@contextmanager
def listening(answer: bytes | None):
    """A TCP port that is no DICOM archive: it answers so and hangs up, or never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer is None:
            yield server.getsockname()[1]
            return
        script = (
            "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]))\n"
            "while True:\n"
            "    c, _ = s.accept(); c.sendall(bytes.fromhex(sys.argv[2])); c.close()\n"
        )
        command = [shutil.which("python3"), "-c", script, str(server.fileno()), answer.hex()]
        with subprocess.Popen(command, pass_fds=[server.fileno()]) as process:
            yield server.getsockname()[1]
            process.kill()


def fails(archive, out: Path, **changes) -> str:
    with pytest.raises(InputError) as caught:
        fetch(archive, out, **changes)
    assert not (out / "manifest.parquet").exists()
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def test_a_wrong_ae_title(archive, tmp_path):
    text = fails(replace(archive, ae_title="ELSEWHERE"), tmp_path)
    assert "ELSEWHERE" in text and "change archive.ae_title" in text


def test_an_unknown_host(archive, tmp_path):
    text = fails(replace(archive, host="pacs.invalid"), tmp_path)
    assert "pacs.invalid" in text and "archive.host" in text


def test_a_closed_port(archive, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = fails(replace(archive, port=port), tmp_path)
    assert f"127.0.0.1:{port}" in text and "archive.port" in text and "refused" in text


def test_a_port_of_another_service(archive, tmp_path):
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        text = fails(replace(archive, port=port, timeout_seconds=3), tmp_path)
    assert "archive.port" in text


def test_an_archive_that_never_answers(archive, tmp_path):
    with listening(None) as port:
        text = fails(replace(archive, port=port, timeout_seconds=1), tmp_path)
    assert "archive.port" in text or "archive.timeout_seconds" in text


def test_an_empty_query(archive, tmp_path):
    text = fails(archive, tmp_path, study_dates="29991231-")
    assert "archive.study_dates" in text and "archive.modalities" in text


def test_no_lateral_film(archive, truth, tmp_path):
    decisions = {KEYED.image(source.SOPInstanceUID): "reject" for source in truth}
    text = fails(archive, tmp_path, decisions=decisions, study_dates=truth[0].StudyDate)
    assert "None of" in text and "rejected_by_reader" in text


def test_an_archive_that_cannot_start(storage, tmp_path, capfd):
    with (
        pytest.raises(InputError, match=r"did not start: .*archive\.host"),
        running(storage, "203.0.113.7", 11112, TITLE),
    ):
        pass
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "broken.dcm").write_text("not DICOM")
    with (
        pytest.raises(InputError, match="did not start"),
        running(tmp_path, "127.0.0.1", 0, TITLE),
    ):
        pass
    assert "Traceback" not in capfd.readouterr().err


def test_another_port_is_taken_where_the_configured_one_is_in_use(storage):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with running(storage, "127.0.0.1", taken, TITLE) as port:
            assert port != taken
            again = Archive("127.0.0.1", port, TITLE, "ANYONE", 20)
            with association(again) as assoc:
                assert assoc.send_c_echo().Status == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 2).close()


def test_the_query_tells_patients_and_modalities_apart(archive, truth):
    with association(archive) as assoc:
        query = identifier("STUDY", StudyInstanceUID="", PatientID=truth[0].PatientID)
        studies = find(assoc, archive, query)
    expected = {s.StudyInstanceUID for s in truth if s.PatientID == truth[0].PatientID}
    assert {study.StudyInstanceUID for study in studies} == expected


# Another implementation ------------------------------------------------------------------------


@pytest.fixture(params=["echoscu", "findscu", "getscu"])
def tool(request) -> str:
    return program(request.param)


def test_dcmtk_speaks_with_the_embedded_archive(tool, archive, truth, tmp_path):
    address = ["-aec", TITLE, archive.host, str(archive.port)]
    # getscu asks for uncompressed objects.
    packed = {s.StudyInstanceUID for s in truth if s.file_meta.TransferSyntaxUID not in NATIVE}
    uid = next(s.StudyInstanceUID for s in truth if s.StudyInstanceUID not in packed)
    keys = {
        "echoscu": [],
        "findscu": ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID"],
        "getscu": ["-S", "+B", "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY",
                   "-k", f"StudyInstanceUID={uid}"],
    }[Path(tool).name]  # fmt: skip
    run = subprocess.run([tool, "-v", *keys, *address], capture_output=True, text=True)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    if tool.endswith("findscu"):
        assert all(source.StudyInstanceUID in output for source in truth)
    if tool.endswith("getscu"):
        got = {pydicom.dcmread(path).SOPInstanceUID for path in tmp_path.iterdir()}
        assert got == {s.SOPInstanceUID for s in truth if s.StudyInstanceUID == uid}


# An archive that is not perfect ----------------------------------------------------------------

DX = "1.2.840.10008.5.1.4.1.1.1.1"
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


def small_film(uid: str, **changes) -> pydicom.Dataset:
    source = pydicom.Dataset()
    source.file_meta = pydicom.dataset.FileMetaDataset()
    source.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    values = {
        "SOPClassUID": DX, "SOPInstanceUID": uid, "StudyInstanceUID": "1.2.3", "PatientID": "P",
        "SeriesInstanceUID": "1.2.3.4", "SeriesDescription": "LWS seitlich",
        "Rows": 2, "Columns": 2, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
    }  # fmt: skip
    for keyword, value in (values | changes).items():
        setattr(source, keyword, value)
    source.add_new("PixelData", "OW", b"\0\1\2\3")
    return source


@contextmanager
def serving(films, listed=None, find_status=0xFF00, classes=True, get_offered=True):
    """An archive of one series: `listed` (UID to class) is what it says, `films` what it sends."""

    def on_find(event):
        asked = event.identifier
        uids = listed or {film.SOPInstanceUID: film.SOPClassUID for film in films}
        images = asked.QueryRetrieveLevel == "IMAGE"
        for uid, sop_class in uids.items() if images else [(None, None)]:
            answer = identifier(asked.QueryRetrieveLevel, StudyInstanceUID="1.2.3")
            answer.PatientID, answer.SeriesInstanceUID, answer.Modality = "P", "1.2.3.4", "DX"
            if uid:
                answer.SOPInstanceUID = uid
                if classes:
                    answer.SOPClassUID = sop_class
            yield find_status, answer if find_status == 0xFF00 else None

    def on_get(event):
        yield len(films)
        for film in films:
            yield 0xFF00, film

    ae = AE(ae_title=TITLE)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    if get_offered:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_supported_context(DX, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, on_find), (evt.EVT_C_GET, on_get)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield Archive("127.0.0.1", server.server_address[1], TITLE, "LUMBARFLOW", 10)
    finally:
        server.shutdown()


def test_objects_of_other_classes_in_a_series_are_rejected_and_do_not_block(tmp_path):
    with serving([small_film("1.5.1")], {"1.5.1": DX, "1.5.2": FOR_PROCESSING}) as archive:
        rows = fetch(archive, tmp_path).set_index("image_id")
    assert rows.loc[KEYED.image("1.5.1"), "status"] == "accepted"
    assert rows.loc[KEYED.image("1.5.2"), "reason"] == "sop_class_not_taken"
    assert set(rows["study_id"]) == {KEYED.study("1.2.3")}


def test_an_image_that_comes_twice_is_one_film(tmp_path, monkeypatch):
    taken = []

    def counted(dataset, *arguments):
        taken.append(dataset.SOPInstanceUID)
        return take_dicom(dataset, *arguments)

    monkeypatch.setattr("lumbarflow.acquire.retrieve.take_dicom", counted)
    films = [small_film("1.5.1"), small_film("1.5.1"), small_film("1.5.2")]
    with serving(films) as archive:
        rows = fetch(archive, tmp_path)
    assert len(rows) == 2 and taken == ["1.5.1", "1.5.2"]


@pytest.mark.parametrize("classes", [True, False])
def test_fewer_films_than_listed_are_told(tmp_path, classes):
    with serving([small_film("1.5.1")], {"1.5.1": DX, "1.5.2": DX}, classes=classes) as archive:
        text = fails(archive, tmp_path)
    assert "did not send 1 images of 1 studies" in text and "run the same command again" in text
    assert not (tmp_path / "studies").exists()


def test_a_film_with_a_broken_attribute_is_rejected(tmp_path):
    broken = small_film("1.5.2")
    broken.add_new("WindowWidth", "LO", "Whitcombe")
    with serving([small_film("1.5.1"), broken]) as archive:
        rows = fetch(archive, tmp_path).set_index("image_id")
    assert rows.loc[KEYED.image("1.5.2"), "reason"] == "pixels_not_readable"


def test_text_in_place_of_a_number_does_not_reach_the_manifest(tmp_path):
    broken = small_film("1.5.2")
    broken.add_new("Rows", "LO", "Whitcombe")
    with serving([small_film("1.5.1"), broken]) as archive:
        rows = fetch(archive, tmp_path).set_index("image_id")
    assert pd.isna(rows.loc[KEYED.image("1.5.2"), "rows"])
    assert not [p for p in tmp_path.rglob("*.*") if b"Whitcombe" in p.read_bytes()]


def test_an_object_that_cannot_be_taken_is_rejected_and_its_text_not_told(
    tmp_path, monkeypatch, caplog
):
    def taken(dataset, *arguments):
        if dataset.PatientID == "Whitcombe":
            raise ValueError(f"what is {dataset.PatientID}?")
        return take_dicom(dataset, *arguments)

    monkeypatch.setattr("lumbarflow.acquire.retrieve.take_dicom", taken)
    with serving([small_film("1.5.1"), small_film("1.5.2", PatientID="Whitcombe")]) as archive:
        rows = fetch(archive, tmp_path).set_index("image_id")
    assert rows["reason"].to_dict() == {
        KEYED.image("1.5.1"): None,
        KEYED.image("1.5.2"): "not_readable",
    }
    told = [r.getMessage() for r in caplog.records if r.name == "test_archive"]
    assert any("ValueError" in text for text in told)
    assert not [text for text in told if "Whitcombe" in text]


def test_a_failure_status_and_a_missing_service_are_told(tmp_path):
    with serving([], find_status=0xA700) as archive:
        text = fails(archive, tmp_path)
    assert "refused C-FIND with status 0xA700" in text
    with serving([], get_offered=False) as archive:
        text = fails(archive, tmp_path)
    assert "does not offer" in text and "GET" in text and "archive.calling_ae_title" in text


def test_a_full_disk_stops_the_retrieval_and_keeps_what_is_there(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lumbarflow.files.os.fsync", full)
    with serving([small_film("1.5.1")]) as archive:
        text = fails(archive, tmp_path)
    assert "disk is full" in text and not list(tmp_path.rglob("*.*"))
