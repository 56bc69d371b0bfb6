"""Retrieval from real archives: what is chosen, how it comes, and every way in which it fails."""

from __future__ import annotations

import logging
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from integration.loads import distractors, samples, small_film
from integration.servers import (
    CALLER,
    HOST,
    TITLE,
    Certificates,
    Orthanc,
    dcmqrscp,
    faulty,
    free_port,
    make_certificates,
    orthanc,
    proxy,
)
from integration.servers import Tls as ServerTls
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind

from lumbarflow.acquire import lines
from lumbarflow.acquire.dimse import Archive, Tls
from lumbarflow.acquire.plan import summary_text
from lumbarflow.acquire.retrieve import query, retrieve
from lumbarflow.acquire.selection import Selection, read_cohort
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError

KEYED = Pseudonyms(b"a key for these tests only")
FILMS = [small_film(number) for number in range(8)]
KINDS = distractors()
LOG = logging.getLogger("test_retrieval")
ALL = Selection(("DX", "CR"))


def at(port: int, **changes) -> Archive:
    return replace(Archive(HOST, port, TITLE, CALLER, 10, attempts=3), **changes)


def fetch(archive: Archive, out: Path, selection=ALL, **options) -> pd.DataFrame:
    manifest = out / "manifest.parquet"
    retrieve(archive, selection, Deidentifier(KEYED), out, manifest, {}, LOG, **options)
    return pd.read_parquet(manifest).set_index("image_id")


def fails(archive: Archive, out: Path, selection=ALL) -> str:
    with pytest.raises(InputError) as caught:
        fetch(archive, out, selection)
    assert not (out / "manifest.parquet").exists()
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def ids(films) -> set[str]:
    return {KEYED.image(film.SOPInstanceUID) for film in films}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(lines, "_LONGEST_PAUSE", 0.2)


@pytest.fixture(scope="module", params=[orthanc, dcmqrscp])
def loaded(request, tmp_path_factory):
    """An archive with films and everything that is not wanted; and the port for C-MOVE."""
    port = free_port()
    folder = tmp_path_factory.mktemp(request.param.__name__)
    with request.param(folder, move_to={CALLER: port}) as server:
        server.load(FILMS)
        for kind in KINDS.values():
            server.load(kind)
        yield server, port


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An Orthanc with films only."""
    with orthanc(tmp_path_factory.mktemp("films")) as server:
        server.load(FILMS)
        yield server


# What comes ------------------------------------------------------------------------------------


def test_wanted_films_are_accepted_and_the_others_rejected(loaded, tmp_path):
    rows = fetch(at(loaded[0].port), tmp_path)
    assert set(rows.loc[list(ids(FILMS)), "status"]) == {"accepted"}
    raw = next(f for f in KINDS["for_processing"] if "PROCESSING" in f.PresentationIntentType)
    frontal = KINDS["ap"][1]
    expected = {
        KEYED.image(raw.SOPInstanceUID): "sop_class_not_taken",
        KEYED.image(frontal.SOPInstanceUID): "not_lateral",
        KEYED.image(KINDS["chest"][0].SOPInstanceUID): "not_lumbar",
        KEYED.image(KINDS["knee"][0].SOPInstanceUID): "not_lumbar",
    }
    assert rows.loc[list(expected), "reason"].to_dict() == expected
    # Neither the CT nor the report was asked for, whatever else their studies hold.
    unwanted = [f for kind in ("ct", "sr") for f in KINDS[kind] if f.Modality in ("CT", "SR")]
    assert not ids(unwanted) & set(rows.index)
    assert rows.index.is_unique
    assert rows.loc[list(ids(KINDS["twice"])), "status"].tolist() == ["accepted"]
    accepted = set(rows.index[rows["status"] == "accepted"])
    assert {path.stem for path in (tmp_path / "png").iterdir()} == accepted


def test_c_move_brings_the_same(loaded, tmp_path):
    server, port = loaded
    got = fetch(at(server.port), tmp_path / "get")
    moved = fetch(at(server.port, retrieve_by="move", storage_port=port), tmp_path / "move")
    pd.testing.assert_frame_equal(moved, got)
    for path in (tmp_path / "get" / "png").iterdir():
        assert path.read_bytes() == (tmp_path / "move" / "png" / path.name).read_bytes()


def test_real_objects_come_as_they_are_stored(tmp_path):
    files = [path for path in samples() if path.name.startswith(("cr_", "dx_", "vlut", "mlut"))]
    if not files:
        pytest.skip("no sample objects: set LUMBARFLOW_DATA")
    with orthanc(tmp_path / "server") as server:
        server.load(files)
        server.load(FILMS[:1])
        rows = fetch(at(server.port), tmp_path / "out")
    assert len(rows) > 10
    assert "not_sent" not in set(rows["reason"])


def test_new_studies_are_added_and_earlier_ones_not_touched(tmp_path):
    with orthanc(tmp_path / "server") as server:
        server.load(FILMS[:4])
        fetch(at(server.port), tmp_path / "out")
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
        server.load(FILMS[4:])
        rows = fetch(at(server.port), tmp_path / "out")
    assert set(rows.index) == ids(FILMS)
    assert len(before) == 4
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_film_added_to_a_known_study_is_fetched(tmp_path):
    with orthanc(tmp_path / "server") as server:
        server.load(FILMS[:3])
        assert len(fetch(at(server.port), tmp_path / "out")) == 3
        server.load(FILMS[3:4])  # of the study of the third
        assert FILMS[3].StudyInstanceUID == FILMS[2].StudyInstanceUID
        assert set(fetch(at(server.port), tmp_path / "out").index) == ids(FILMS[:4])


@pytest.mark.parametrize("keys", ["required", "unique"])
def test_an_archive_that_leaves_out_optional_keys(keys, tmp_path):
    chosen = Selection(("DX", "CR"), body_parts=("LSPINE",))
    with faulty([*FILMS, *KINDS["chest"], *KINDS["ct"]], keys=keys) as server:
        rows = fetch(at(server.port), tmp_path, chosen, allow_missing=True)
    assert set(rows.loc[list(ids(FILMS)), "status"]) == {"accepted"}
    assert rows.loc[KEYED.image(KINDS["chest"][0].SOPInstanceUID), "reason"] == "body_part"


# What is asked for -----------------------------------------------------------------------------


def cohort(tmp_path: Path, text: str) -> Selection:
    path = tmp_path / "cohort.csv"
    path.write_text(text)
    return Selection(("DX", "CR"), cohort=read_cohort(path))


@pytest.mark.parametrize(
    ("column", "keyword"),
    [
        ("accession_number", "AccessionNumber"),
        ("study_instance_uid", "StudyInstanceUID"),
        ("patient_id", "PatientID"),
    ],
)
def test_a_list_of_numbers(loaded, column, keyword, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    value = str(FILMS[0][keyword].value)
    chosen = cohort(tmp_path, f"{column}\n1.2.3.4\n{value}\n")
    rows = fetch(at(loaded[0].port), tmp_path / "out", chosen)
    assert set(rows.index) == ids(f for f in FILMS if f[keyword].value == value)
    assert "1 of 2 lines of the cohort file match no study: line 2" in caplog.text
    told = [record.getMessage() for record in caplog.records if record.name == LOG.name]
    assert told and not [text for text in told if value in text]
    assert not [p for p in (tmp_path / "out").rglob("*") if value in str(p)]


def test_dates_and_descriptions(loaded, tmp_path):
    day = max(film.StudyDate for film in FILMS)
    chosen = Selection(("DX", "CR"), study_dates=f"{day}-{day}")
    rows = fetch(at(loaded[0].port), tmp_path, chosen)
    assert ids(f for f in FILMS if f.StudyDate == day) <= set(rows.index)
    text = fails(
        at(loaded[0].port), tmp_path / "none", Selection(("DX",), descriptions=("Schulter",))
    )
    assert "archive.descriptions" in text


def test_the_query_counts_without_fetching(loaded):
    table = query(at(loaded[0].port), Selection(("DX", "CR"), body_parts=("LSPINE",)), LOG)
    wanted = table[table["reason"].isna()]
    every = [*FILMS, *(film for kind in KINDS.values() for film in kind)]
    films = {
        film.SOPInstanceUID
        for film in every
        if film.get("PresentationIntentType") == "FOR PRESENTATION"
        and film.BodyPartExamined == "LSPINE"
    }
    assert set(wanted["modality"]) == {"DX"}
    # One is listed under two studies; dcmqrscp tells no class, hence does not tell the raw film.
    assert len(films) <= wanted["images"].sum() <= len(films) + 3
    years = {int(f.StudyDate[:4]) for f in every}
    assert set(table["year"]) <= years
    counts = table.groupby("reason")["images"].sum()
    # dcmqrscp does not match by modality, hence lists the study with the CT alone, too, and does
    # not tell the part of the body.
    assert counts["modality"] == (2 if isinstance(loaded[0], Orthanc) else 3)
    assert counts.get("body_part", 0) == (2 if isinstance(loaded[0], Orthanc) else 0)
    assert counts.get("sop_class_not_taken", 0) == int(isinstance(loaded[0], Orthanc))
    text = summary_text(table)
    assert "would be retrieved" in text and "modality" in text
    assert not [f for f in every if str(f.PatientName) in text or f.StudyInstanceUID in text]


# What goes wrong and is mended -----------------------------------------------------------------


def test_dropped_associations_are_made_again(archive, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with proxy(archive.port, cut_after=9_000, times=3) as between:
        rows = fetch(at(between.port, attempts=6), tmp_path)
    assert between.cuts == 3 and "Trying again" in caplog.text
    assert set(rows.index) == ids(FILMS)


@pytest.mark.parametrize("fault", [{"hang_after": 0}, {"status": {"get": 0xA702}}])
def test_a_retrieval_that_hangs_or_is_refused_for_now_is_repeated(fault, tmp_path):
    with faulty(FILMS, times=2, **fault) as server:
        rows = fetch(at(server.port, series_seconds=1.5, timeout_seconds=20), tmp_path)
    assert set(rows.index) == ids(FILMS)
    assert server.gets > len({film.SeriesInstanceUID for film in FILMS})


def test_a_retrieval_that_always_hangs_is_told_and_the_others_stay(tmp_path):
    with faulty(FILMS, hang_after=0) as server:
        archive = at(server.port, series_seconds=1, timeout_seconds=20, attempts=1)
        text = fails(archive, tmp_path)
    assert "archive.series_seconds" in text and "archive.allow_missing" in text


def test_a_silent_archive_is_told(tmp_path):
    with faulty(FILMS, find_hangs=True) as server:
        text = fails(at(server.port, timeout_seconds=1, attempts=2), tmp_path)
    assert "archive.timeout_seconds" in text


def test_an_archive_that_goes_away_for_good(tmp_path):
    with orthanc(tmp_path / "server") as server:
        server.load(FILMS)
        with proxy(server.port, bytes_per_second=5_000) as slow:
            killer = threading.Timer(2.0, server.kill)
            killer.start()
            text = fails(at(slow.port, timeout_seconds=3), tmp_path / "out")
            killer.join()
    assert "archive" in text
    assert not list((tmp_path / "out").rglob(".*.part*"))


def test_missing_images_are_told_or_allowed(tmp_path, caplog):
    with faulty(FILMS, status={"get": 0xC001}, times=1) as server:
        text = fails(at(server.port, associations=1), tmp_path)
        assert "did not send" in text and "0xC001" in text and "archive.allow_missing" in text
        first = KEYED.study(min(film.StudyInstanceUID for film in FILMS))
        assert first in text
        rows = fetch(at(server.port, associations=1), tmp_path)  # asked for again
        assert set(rows["status"]) == {"accepted"}
    with faulty(FILMS, status={"get": 0xC001}, times=1) as server:
        rows = fetch(at(server.port, associations=1), tmp_path / "allowed", allow_missing=True)
        assert set(rows["reason"].dropna()) == {"not_sent"}
        assert 0 < (rows["reason"] == "not_sent").sum() < len(FILMS)
        rows = fetch(at(server.port, associations=1), tmp_path / "allowed")
        assert set(rows["status"]) == {"accepted"}


# What goes wrong and is told -------------------------------------------------------------------


def test_c_move_to_a_title_that_the_archive_does_not_know(archive, tmp_path):
    text = fails(at(archive.port, retrieve_by="move", storage_port=free_port()), tmp_path)
    assert CALLER in text and ("archive.storage_port" in text or "C-MOVE" in text)


def test_c_move_to_a_port_in_use(archive, tmp_path):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        text = fails(at(archive.port, retrieve_by="move", storage_port=port), tmp_path)
    assert str(port) in text and "archive.storage_port" in text


def test_an_archive_without_c_get(tmp_path):
    with dcmqrscp(tmp_path / "server", get=False) as server:
        server.load(FILMS[:1])
        text = fails(at(server.port), tmp_path / "out")
    assert "GET" in text and "archive.retrieve_by" in text


def test_no_presentation_context_accepted(tmp_path):
    ae = AE(ae_title=TITLE)
    ae.add_supported_context(ModalityWorklistInformationFind)
    server = ae.start_server((HOST, 0), block=False)
    try:
        text = fails(at(server.server_address[1]), tmp_path)
    finally:
        server.shutdown()
    assert "no presentation context" in text and "archive.calling_ae_title" in text


# TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def ours(certificates: Certificates, name: str | None = None) -> Tls:
    pair = map(str, certificates.pair(name)) if name else (None, None)
    return Tls(str(certificates.authority), *pair)


def test_tls_with_and_without_our_certificate(certificates, tmp_path):
    with orthanc(tmp_path / "a", tls=ServerTls(certificates)) as server:
        server.load(FILMS[:2])
        rows = fetch(at(server.port, tls=ours(certificates)), tmp_path / "one")
        assert set(rows.index) == ids(FILMS[:2])
    with orthanc(tmp_path / "b", tls=ServerTls(certificates, require=True)) as server:
        server.load(FILMS[:2])
        rows = fetch(at(server.port, tls=ours(certificates, "client")), tmp_path / "two")
        assert set(rows.index) == ids(FILMS[:2])
        text = fails(at(server.port, tls=ours(certificates)), tmp_path / "three")
        assert "archive.tls.certificate_file" in text


@pytest.mark.parametrize("name", ["stranger", "elsewhere"])
def test_a_certificate_that_is_not_the_archives(certificates, name, archive, tmp_path):
    with proxy(archive.port, tls=ServerTls(certificates, name)) as secure:
        text = fails(at(secure.port, tls=ours(certificates)), tmp_path)
    assert "archive.tls.ca_file" in text and "archive.host" in text
    assert ("self-signed" in text or "self signed" in text) == (name == "stranger")


def test_one_side_without_tls(certificates, archive, tmp_path):
    text = fails(at(archive.port, tls=ours(certificates), timeout_seconds=3), tmp_path / "plain")
    assert "does not speak TLS" in text and "archive.tls.enabled" in text
    with proxy(archive.port, tls=ServerTls(certificates)) as secure:
        text = fails(at(secure.port, timeout_seconds=3), tmp_path / "secure")
    assert "speaks TLS" in text and "archive.tls.enabled" in text


def test_certificate_files_that_cannot_be_used(certificates, archive, tmp_path):
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    text = fails(at(archive.port, tls=Tls(str(broken))), tmp_path / "a")
    assert str(broken) in text and "archive.tls.ca_file" in text
    tls = replace(ours(certificates, "client"), private_key_file=str(broken))
    text = fails(at(archive.port, tls=tls), tmp_path / "b")
    assert "archive.tls.private_key_file" in text
    moving = at(archive.port, tls=ours(certificates), retrieve_by="move", storage_port=free_port())
    with proxy(archive.port, tls=ServerTls(certificates)) as secure:
        text = fails(replace(moving, port=secure.port), tmp_path / "c")
    assert "archive.tls.certificate_file" in text
