"""A folder of films: what is taken, what is refused, and that names stay behind."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset
from pydicom.fileset import FileSet
from pydicom.filewriter import dcmwrite
from pydicom.uid import RLELossless
from test_deidentify import PICTURE, saved
from test_deidentify import film as any_film

from lumbarflow import files
from lumbarflow.acquire import folder as folder_module
from lumbarflow.acquire import survey as survey_module
from lumbarflow.acquire.films import MANIFEST
from lumbarflow.acquire.folder import (
    film_files,
    film_names,
    import_folder,
    picture_patient,
    with_file_names,
)
from lumbarflow.acquire.survey import survey
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError
from lumbarflow.files import read_grey

KEYED = Pseudonyms(b"a key for these tests only")
GREY = np.tile(np.arange(40, 240, dtype=np.uint8), (120, 1))


def png(path: Path, image=GREY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """What a power cut would leave is not tested here."""
    monkeypatch.setattr(files.os, "fsync", lambda _: None)


@pytest.fixture
def films(tmp_path) -> Path:
    """One film of each kind, with names that must not be seen again."""
    folder = tmp_path / "films"
    png(folder / "Abernathy_1.png")
    png(folder / "follow-up 2019" / "Abernathy_2.PNG", GREY[::-1])
    (folder / "Whitcombe_1.jpg").write_bytes(cv2.imencode(".jpg", GREY)[1].tobytes())
    (folder / "Kowalczyk.dcm").write_bytes(saved(dicom_film(PatientName="Kowalczyk^Anna")))
    other = dicom_film(SOPInstanceUID="1.2.3.5", PatientID="PID2", SeriesDescription="AP")
    (folder / "Rutherford").write_bytes(saved(other))
    (folder / ".hidden.png").write_text("passed over")
    (folder / "notes.txt").write_text("passed over")
    return folder


def dicom_film(**changes) -> FileDataset:
    """A film whose header tells that it is a lateral one of the lumbar spine."""
    return any_film(**({"BodyPartExamined": "LSPINE", "SeriesDescription": "Lateral"} | changes))


def take(folder, pattern=None, view="lateral", out=None, decisions=None, threads=2) -> pd.DataFrame:
    out = out or Path(folder).parent / "out"
    log = logging.getLogger("test_folder")
    manifest = out / "manifest.parquet"
    import_folder(
        folder, Deidentifier(KEYED), out, manifest, view, decisions or {}, pattern, log, threads
    )
    return pd.read_parquet(manifest)


def dcm(path: Path, number: int = 4, **changes) -> Path:
    """A DICOM film with a UID of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(dicom_film(SOPInstanceUID=f"1.2.3.{number}", **changes)))
    return path


def image_id(number: int) -> str:
    return KEYED.image(f"1.2.3.{number}")


def test_png_jpeg_and_dicom_side_by_side(films, tmp_path):
    table = take(films)
    assert list(table.columns) == list(MANIFEST)
    assert sorted(table["status"]) == ["accepted"] * 4 + ["rejected"]
    assert list(table.loc[table["status"] == "rejected", "reason"]) == ["not_lateral"]
    taken = set(table.loc[table["status"] == "accepted", "image_id"])
    assert {path.stem for path in (tmp_path / "out" / "png").iterdir()} == taken
    assert len(list((tmp_path / "out" / "dicom").iterdir())) == 1
    for row in table[table["status"] == "accepted"].itertuples():
        picture = read_grey(tmp_path / "out" / "png" / f"{row.image_id}.png")
        assert picture.shape == (row.rows, row.columns)
    names = film_names(films, KEYED)
    by_name = {Path(name).name: image_id for image_id, name in names.items()}
    assert set(names) == set(table["image_id"])
    picture = read_grey(tmp_path / "out" / "png" / f"{by_name['Abernathy_2.PNG']}.png")
    np.testing.assert_array_equal(picture, GREY[::-1])
    assert by_name["Kowalczyk.dcm"] == KEYED.image("1.2.3.4")


def test_names_are_in_no_written_file_or_log(films, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    take(films, pattern="([A-Z][a-z]+)_")
    take(films, pattern="([A-Z][a-z]+)_")
    assert "5 films, of which 5 are here" in caplog.text
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) >= 11
    for name in ("Abernathy", "Whitcombe", "Kowalczyk", "Rutherford", "follow-up", "PID2"):
        assert name not in caplog.text
        for path in written:
            assert name.encode() not in path.read_bytes()
            assert name not in str(path.relative_to(tmp_path / "out"))


def test_the_pattern_groups_the_films_of_a_patient(films):
    alone = take(films)
    assert alone["patient_id"].nunique() == 5
    grouped = take(films, pattern="([A-Z][a-z]+)_[0-9]").set_index("image_id")
    names = film_names(films, KEYED)
    patients = {Path(names[i]).name: p for i, p in grouped["patient_id"].items()}
    assert patients["Abernathy_1.png"] == patients["Abernathy_2.PNG"]
    assert len(set(patients.values())) == 4


@pytest.mark.parametrize("pattern", ["(", "[A-Z]+", "(?P<", "*"])
def test_a_pattern_without_a_group_is_refused(films, pattern):
    with pytest.raises(InputError, match=r"folder\.patient_pattern: .* regular expression with"):
        take(films, pattern=pattern)


@pytest.mark.parametrize("pattern", ["^([0-9]+)", "^([0-9]+)?"])
def test_a_name_without_a_patient_is_refused(films, pattern):
    """An empty or absent group would make one patient of all films."""
    with pytest.raises(InputError, match=r"folder\.patient_pattern does not fit"):
        take(films, pattern=pattern)


def test_image_ids_do_not_depend_on_where_the_folder_is(films, tmp_path):
    first = take(films)
    moved = films.rename(tmp_path / "elsewhere")
    assert list(take(moved)["image_id"]) == list(first["image_id"])
    assert picture_patient(moved / "a" / "b.png", moved, None) == "a/b.png"


def test_file_names_for_annotators(films):
    table = with_file_names(take(films), films, KEYED)
    assert "follow-up 2019/Abernathy_2.PNG" in set(table["file_name"])
    plain = with_file_names(table, None, KEYED)
    assert list(plain["file_name"]) == [f"{name}.png" for name in table["image_id"]]


@pytest.mark.parametrize("depth", [12, 16])
def test_deep_grey_values_are_spread_over_8_bits(tmp_path, depth):
    deep = np.linspace(0, 2**depth - 1, GREY.size).reshape(GREY.shape).astype(np.uint16)
    png(tmp_path / "films" / "deep.png", deep)
    image_id = take(tmp_path / "films")["image_id"][0]
    picture = read_grey(tmp_path / "out" / "png" / f"{image_id}.png")
    assert picture.dtype == np.uint8 and len(np.unique(picture)) == 256
    assert (np.diff(picture.ravel().astype(int)) >= 0).all()


def test_8_bit_grey_values_stay_and_colour_becomes_grey(tmp_path):
    png(tmp_path / "films" / "grey.png")
    png(tmp_path / "films" / "colour.png", cv2.merge([GREY, GREY, GREY]))
    for image_id in take(tmp_path / "films")["image_id"]:
        picture = read_grey(tmp_path / "out" / "png" / f"{image_id}.png")
        np.testing.assert_array_equal(picture, GREY)


WHOLE_PNG = cv2.imencode(".png", GREY)[1].tobytes()
BROKEN_PICTURES = {
    "words.png": b"not an image",
    "words.jpg": b"not an image",
    "empty.png": b"",
    "cut.png": WHOLE_PNG[: len(WHOLE_PNG) // 2],
}
BROKEN_OBJECTS = {
    "words.dcm": b"not an image",
    "empty.dcm": b"",
    "cut.dcm": saved(dicom_film())[:140],
    "directory": saved(dicom_film(SOPInstanceUID=None)),
    "cut": saved(dicom_film())[:300],
}


def refused(folder) -> str:
    with pytest.raises(InputError) as caught:
        take(folder)
    assert not (folder.parent / "out" / "manifest.parquet").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", BROKEN_PICTURES)
def test_a_picture_that_is_not_an_image_is_a_sentence_that_names_it(films, name):
    (films / name).write_bytes(BROKEN_PICTURES[name])
    assert refused(films) == f"{films / name} is not a readable image: replace or remove it."


def found_by(sentence: str) -> list[str]:
    """What the command in a sentence prints."""
    command = re.search("`(.*)`", sentence)[1]
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.mark.parametrize("name", BROKEN_OBJECTS)
def test_a_dicom_file_that_is_no_film_is_found_without_being_named(films, name, caplog):
    (films / name).write_bytes(BROKEN_OBJECTS[name])
    sentence = refused(films)
    assert name not in sentence + caplog.text
    assert "replace or remove it" in sentence
    assert found_by(sentence) == [str(films / name)]


def test_all_other_films_are_taken_before_a_broken_one_is_told(films, tmp_path, caplog):
    for name, content in (BROKEN_PICTURES | BROKEN_OBJECTS).items():
        (films / name).write_bytes(content)
    assert refused(films).endswith("; the log tells of 8 more such files.")
    assert caplog.text.count("is not a readable") == 9
    assert len(list((tmp_path / "out" / "png").iterdir())) == 4
    for name in BROKEN_PICTURES | BROKEN_OBJECTS:
        (films / name).unlink()
    caplog.set_level(logging.INFO)
    assert len(take(films)) == 5
    assert "5 films, of which 5 are here" in caplog.text


def test_what_cannot_be_read_is_a_sentence(films, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(survey_module, "_is_object", refuse)
        sentence = refused(films)
        assert "permission denied" in sentence and "make it readable" in sentence
        assert found_by(sentence) == []  # of root everything is readable
    wanted = films / "Kowalczyk.dcm"

    def scratched(path, **how):
        if path == wanted:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return pydicom.dcmread(path, **how)

    monkeypatch.setattr(folder_module.pydicom, "dcmread", scratched)
    sentence = refused(films)
    assert "copy it again" in sentence and "Kowalczyk" not in sentence
    assert found_by(sentence) == [str(wanted)]


def told(caplog) -> list[str]:
    """What was logged; jobs switch the logs of DICOM libraries off."""
    return [record.getMessage() for record in caplog.records if record.name == "test_folder"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("lost", [20, 60, 120])
def test_a_dicom_film_whose_pixels_are_cut_is_rejected(films, caplog, lost, compressed):
    whole = dicom_film(SOPInstanceUID="1.2.3.6")
    if compressed:
        whole.compress(RLELossless)
        whole.SOPInstanceUID = "1.2.3.6"
    (films / "cut.dcm").write_bytes(saved(whole)[:-lost])
    table = take(films).set_index("image_id")
    assert table.loc[image_id(6), "reason"] == "pixels_not_readable"
    (sentence,) = (text for text in told(caplog) if "1 DICOM films" in text)
    assert "cut.dcm" not in sentence
    assert found_by(sentence) == [str(films / "cut.dcm")]
    (films / "cut.dcm").write_bytes(saved(whole))
    assert take(films).set_index("image_id").loc[image_id(6), "status"] == "accepted"


def test_a_dicom_film_with_odd_attributes_does_not_stop_the_others(films):
    odd = dicom_film(SOPInstanceUID="1.2.3.7")
    odd.add_new("PixelSpacing", "DS", "0.14")  # one value instead of two
    odd.add_new("WindowCenter", "DS", "")
    odd.add_new("WindowWidth", "DS", "")
    (films / "odd.dcm").write_bytes(saved(odd))
    row = take(films).set_index("image_id").loc[KEYED.image("1.2.3.7")]
    assert row["status"] == "accepted" and pd.isna(row["pixel_spacing_mm"])


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match=r"does not exist: check folder\.path"):
        take(tmp_path / "absent")
    (tmp_path / "films").mkdir()
    with pytest.raises(InputError, match=r"holds no PNG, JPEG or DICOM film: check folder\.path"):
        film_files(tmp_path / "films")
    (tmp_path / "films" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no"):
        take(tmp_path / "films")
    with pytest.raises(InputError, match="does not exist"):
        film_files(tmp_path / "films" / "notes.txt")


def test_a_view_that_is_not_lateral_leaves_nothing(films, tmp_path):
    for path in films.glob("*.dcm"):
        path.unlink()
    with pytest.raises(InputError, match=r"None of 4 films was accepted \(not_lateral 4\)"):
        take(films, view="frontal")
    assert not list((tmp_path / "out").rglob("*.png"))
    assert len(take(films, view="lateral")) == 4


def test_a_reader_overrules_the_choice(films, tmp_path):
    table = take(films).set_index("image_id")
    names = {Path(name).name: image_id for image_id, name in film_names(films, KEYED).items()}
    chosen = {names["Abernathy_1.png"]: "reject", names["Rutherford"]: "accept"}
    changed = take(films, decisions=chosen).set_index("image_id")
    assert table.loc[names["Rutherford"], "reason"] == "not_lateral"
    assert changed.loc[names["Rutherford"], ["status", "view"]].to_list() == ["accepted", "lateral"]
    assert changed.loc[names["Abernathy_1.png"], "reason"] == "rejected_by_reader"
    assert changed.drop(index=list(chosen)).equals(table.drop(index=list(chosen)))
    shown = {path.stem for path in (tmp_path / "out" / "png").iterdir()}
    assert shown == set(changed.index[changed["status"] == "accepted"])


def test_a_film_that_is_there_twice_is_one_row(films, caplog):
    original = (films / "Kowalczyk.dcm").read_bytes()
    (films / "copy.dcm").write_bytes(original)
    assert len(take(films)) == 5
    assert "1 DICOM files are copies" in caplog.text
    assert pydicom.dcmread(io.BytesIO(original)).SOPInstanceUID == "1.2.3.4"


@pytest.mark.parametrize("broken", ["a.dcm", "b.dcm", "c.dcm"])
def test_of_copies_the_first_whole_one_counts(tmp_path, broken):
    for number, name in enumerate(("a.dcm", "b.dcm", "c.dcm")):
        dcm(tmp_path / "films" / name, Rows=PICTURE.shape[0], WindowCenter=1000 * number,
            WindowWidth=3000)  # fmt: skip
    path = tmp_path / "films" / broken
    path.write_bytes(path.read_bytes()[:-20])
    row = take(tmp_path / "films").iloc[0]
    assert row["status"] == "accepted"
    taken = pydicom.dcmread(tmp_path / "out" / "dicom" / f"{row['image_id']}.dcm")
    assert taken.WindowCenter == (1000 if broken == "a.dcm" else 0)


def test_pictures_of_the_same_content_are_kept_and_told(tmp_path, caplog):
    png(tmp_path / "films" / "a.png")
    png(tmp_path / "films" / "b.png")
    png(tmp_path / "films" / "c.png", GREY[:, :100])
    assert list(take(tmp_path / "films")["status"]) == ["accepted"] * 3
    assert "1 PNG or JPEG films" in caplog.text
    assert set(found_by(caplog.text)) == {str(tmp_path / "films" / n) for n in ("a.png", "b.png")}


# What is a film --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["IM000001", "a.dcm", "a.DCM", "a.dicom", "a.dic", "a.ima", "a.img", "a.001", "a.txt", "a.png",
     "1.2.840.99", "DICOM/PAT 1/ä.b"],
)  # fmt: skip
def test_dicom_files_are_recognised_by_what_they_hold(tmp_path, name):
    dcm(tmp_path / "films" / name)
    assert list(take(tmp_path / "films")["image_id"]) == [image_id(4)]


@pytest.mark.parametrize("name", ["IM000001", "a.dcm"])
@pytest.mark.parametrize("form", ["no preamble", "implicit", "explicit", "big endian"])
def test_dicom_files_without_a_preamble(tmp_path, name, form):
    source = dicom_film(
        PixelData=PICTURE.astype(">u2" if form == "big endian" else "<u2").tobytes()
    )
    if form == "no preamble":
        content = saved(source)[132:]
    else:
        stream = io.BytesIO()
        bare = Dataset()
        bare.update({element.tag: element for element in source})
        dcmwrite(stream, bare, implicit_vr=form == "implicit", little_endian=form != "big endian")
        content = stream.getvalue()
    assert content[128:132] != b"DICM"
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / name).write_bytes(content)
    assert list(take(tmp_path / "films")["status"]) == ["accepted"]
    taken = pydicom.dcmread(tmp_path / "out" / "dicom" / f"{image_id(4)}.dcm")
    np.testing.assert_array_equal(taken.pixel_array, PICTURE)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"", b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x08\x00\x16\x00UI"]),
    st.binary(max_size=300),
)
def test_other_files_are_no_films(tmp_path_factory, start, rest):
    folder = tmp_path_factory.mktemp("folder")
    png(folder / "film.png")
    (folder / "viewer").write_bytes(start + rest)
    found = survey(folder)
    assert [file.name for file in found.pictures] == ["film.png"]
    assert not found.objects and found.passed_over == {"other files": 1}


def test_what_is_passed_over_is_counted_by_kind(films, caplog):
    for name in ("VIEWER.EXE", "autorun.inf", "index.html", "ReadMe.PDF", "Thumbs.db", ".DS_Store",
                 "LICENSE", "jre/lib.dll", ".git/config"):  # fmt: skip
        path = films / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0" * 200)
    caplog.set_level(logging.INFO)
    assert len(take(films)) == 5
    assert (
        "passed over: 2 documents, 3 hidden, 1 other files, 3 programs, 1 thumbnails, 1 web pages"
        in caplog.text
    )


def test_objects_that_are_no_films_are_rejected_without_being_decoded(tmp_path):
    png(tmp_path / "films" / "film.png")
    dcm(tmp_path / "films" / "ct.dcm", SOPClassUID=CT, Modality="CT")
    (tmp_path / "films" / "report.dcm").write_bytes(saved(structured_report(7)))
    table = take(tmp_path / "films").set_index("image_id")
    assert list(table.loc[[image_id(4), image_id(7)], "reason"]) == ["sop_class_not_taken"] * 2


# Discs -----------------------------------------------------------------------------------------

CR, CT, SR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "2", "88.11"))


def disc_object(number: int, **changes) -> FileDataset:
    """An object with all that a DICOMDIR says of it."""
    values = {
        "SOPInstanceUID": f"1.2.3.{number}",
        "PatientID": "P1",
        "PatientName": "Abernathy^Anna",
        "StudyInstanceUID": "1.2.3",
        "StudyDate": "20190304",
        "StudyTime": "1200",
        "StudyID": "1",
        "SeriesInstanceUID": f"1.2.3.{number}.1",
        "SeriesNumber": number,
        "InstanceNumber": number,
    }
    return dicom_film(**values | changes)


def structured_report(number: int) -> FileDataset:
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "1", "99TEST", "Abernathy"
    pixels = ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
              "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation",
              "ViewPosition")  # fmt: skip
    return disc_object(number, SOPClassUID=SR, Modality="SR", CompletionFlag="COMPLETE",
                       VerificationFlag="UNVERIFIED", ContentDate="20190304", ContentTime="12",
                       ConceptNameCodeSequence=[name], **dict.fromkeys(pixels))  # fmt: skip


def disc(place: Path, objects: list[FileDataset]) -> Path:
    """A disc with a viewer."""
    files = FileSet()
    for dataset in objects:
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        files.add(dataset)
    files.write(place)
    png(place / "VIEWER" / "logo.png")
    (place / "AUTORUN.INF").write_text("[autorun]")
    return place


def mixed_disc(place: Path, first: int = 10) -> Path:
    """DX 0 and CR 1, both lateral; CT 2; report 3; CR 4, not lateral, of a second study."""
    return disc(
        place,
        [
            disc_object(first),
            disc_object(first + 1, SOPClassUID=CR, Modality="CR"),
            disc_object(first + 2, SOPClassUID=CT, Modality="CT"),
            structured_report(first + 3),
            disc_object(first + 4, SOPClassUID=CR, Modality="CR", SeriesDescription="AP",
                        StudyInstanceUID="1.2.4", StudyDate="20190305"),
        ],
    )  # fmt: skip


REASONS = {10: None, 11: None, 12: "sop_class_not_taken", 13: "sop_class_not_taken",
           14: "not_lateral"}  # fmt: skip


def reasons(table: pd.DataFrame) -> dict[str, str | None]:
    return {
        row.image_id: None if row.status == "accepted" else row.reason for row in table.itertuples()
    }


def expected(*firsts: int) -> dict[str, str | None]:
    return {
        image_id(first - 10 + number): reason
        for first in firsts
        for number, reason in REASONS.items()
    }


def renamed(place: Path, change: Callable[[str], str]) -> None:
    for path in sorted(place.rglob("*"), reverse=True):
        path.rename(path.with_name(change(path.name)))


COPIES = {
    "as it is": lambda place: None,
    "lower case": lambda place: renamed(place, str.lower),
    "version": lambda place: [
        path.rename(f"{path};1") for path in place.rglob("*") if path.is_file()
    ],
    "lower case, dot and version": lambda place: [
        renamed(place, str.lower),
        [path.rename(f"{path}.;1") for path in place.rglob("*") if path.is_file()],
    ],
    "suffix": lambda place: [path.rename(f"{path}.dcm") for path in place.rglob("IM*")],
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_disc_is_read_by_its_dicomdir(tmp_path, monkeypatch, caplog, copy):
    place = mixed_disc(tmp_path / "films")
    COPIES[copy](place)
    opened = []
    read = pydicom.dcmread
    monkeypatch.setattr(
        folder_module.pydicom,
        "dcmread",
        lambda path, **how: opened.append(path) or read(path, **how),
    )
    table = take(place)
    assert reasons(table) == expected(10)
    assert len(set(opened)) == 1 + 3  # the DICOMDIR; neither the CT nor the report
    assert table.set_index("image_id").loc[image_id(14), "study_day"] == 1
    assert sorted(table["study_day"]) == [0, 0, 0, 0, 1]
    assert not caplog.text


def test_discs_and_loose_films_side_by_side(tmp_path, caplog):
    films = tmp_path / "films"
    mixed_disc(films / "CD1")
    mixed_disc(films / "more" / "CD2", first=20)
    shutil.copytree(films / "CD1", films / "CD1 again")
    png(films / "film.png")
    dcm(films / "more" / "film.dcm", 30)
    caplog.set_level(logging.INFO)
    table = take(films)
    picture = {KEYED.image("file:film.png"): None}
    assert reasons(table) == expected(10, 20) | picture | {image_id(30): None}
    assert "3 pictures beside a DICOMDIR" in caplog.text
    assert "3 DICOM files are copies" in caplog.text


def test_files_that_a_dicomdir_lists_and_that_are_not_there(tmp_path, caplog):
    place = mixed_disc(tmp_path / "films")
    by_uid = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in place.rglob("IM*")}
    by_uid["1.2.3.11"].unlink()
    by_uid["1.2.3.12"].unlink()
    wanted = expected(10)
    del wanted[image_id(11)]
    assert reasons(take(place)) == wanted
    assert "1 of 3 films are missing" in caplog.text and "IM0" not in caplog.text
    assert found_by(caplog.text) == [str(place / "DICOMDIR")]


def cut_directory(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def ring(content: bytes) -> bytes:
    directory = pydicom.dcmread(io.BytesIO(content))
    first = directory.DirectoryRecordSequence[0]
    first.OffsetOfTheNextDirectoryRecord = first.seq_item_tell
    return saved(directory)


def elsewhere(content: bytes) -> bytes:
    directory = pydicom.dcmread(io.BytesIO(content))
    for record in directory.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["OTHER", "PLACE"]
    return saved(directory)


@pytest.mark.parametrize(
    "spoil",
    [lambda content: b"", lambda content: b"words", cut_directory, ring, elsewhere],
    ids=["empty", "words", "cut", "ring", "elsewhere"],
)
def test_without_a_sound_dicomdir_every_file_is_looked_at(tmp_path, caplog, spoil):
    place = mixed_disc(tmp_path / "films")
    directory = place / "DICOMDIR"
    directory.write_bytes(spoil(directory.read_bytes()))
    assert reasons(take(place)) == expected(10)  # and the viewer's logo is no film
    assert "is broken or lists nothing that is there" in caplog.text


def test_records_out_of_use_are_left_out(tmp_path, caplog):
    place = mixed_disc(tmp_path / "films")
    directory = pydicom.dcmread(place / "DICOMDIR")
    for record in directory.DirectoryRecordSequence:
        if record.get("ReferencedSOPInstanceUIDInFile") == "1.2.3.10":
            record.RecordInUseFlag = 0
    (place / "DICOMDIR").write_bytes(saved(directory))
    wanted = expected(10)
    del wanted[image_id(10)]
    assert reasons(take(place)) == wanted
    assert "1 DICOM files are passed over" in caplog.text


def test_files_that_the_dicomdir_does_not_list_are_told(tmp_path, caplog):
    place = mixed_disc(tmp_path / "films")
    dcm(place / "Whitcombe" / "film.dcm", 40)
    assert reasons(take(place)) == expected(10)
    assert "1 DICOM files are passed over" in caplog.text and "Whitcombe" not in caplog.text


def test_a_dicomdir_cannot_point_out_of_its_folder(tmp_path):
    outside = dcm(tmp_path / "outside", 50)
    place = mixed_disc(tmp_path / "films")
    directory = pydicom.dcmread(place / "DICOMDIR")
    record = directory.DirectoryRecordSequence[-1]
    record["ReferencedFileID"].value = ["..", "outside"]
    (place / "DICOMDIR").write_bytes(saved(directory))
    assert outside.exists() and image_id(50) not in set(take(place)["image_id"])


def test_study_days_of_loose_dicom_files(tmp_path):
    films = tmp_path / "films"
    for number, (patient, date) in enumerate(
        [
            ("A", "20190301"),
            ("A", "20200301"),
            ("B", "20100101"),
            ("B", ""),
            ("", "20110101"),
            ("A", "2019.02.28"),
        ]
    ):
        dcm(films / f"{number}", number, PatientID=patient, StudyDate=date,
            StudyInstanceUID=f"1.2.{number}")  # fmt: skip
    days = take(films).set_index("image_id")["study_day"]
    found = [days[image_id(number)] for number in range(6)]
    assert [None if pd.isna(day) else int(day) for day in found] == [1, 367, 0, None, None, 0]


# Going on --------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path).removeprefix(str(folder)): path.read_bytes() for path in paths}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("img-*")}


def taken_again(folder: Path, monkeypatch, **how) -> set[str]:
    """The files that another run takes."""
    again = set()
    take_film = folder_module._Taker.take

    def watched(taker, film):
        again.update(Path(file.name).name for file in film.files)
        return take_film(taker, film)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module._Taker, "take", watched)
        take(folder, **how)
    return again


def test_a_second_run_takes_over_what_is_whole_and_unchanged(films, tmp_path, monkeypatch):
    first = take(films)
    before = contents(tmp_path / "out")
    assert taken_again(films, monkeypatch) == set()
    assert contents(tmp_path / "out") == before

    png(films / "new.png")
    dcm(films / "new.dcm", 60)
    assert taken_again(films, monkeypatch) == {"new.png", "new.dcm"}
    (films / "new.png").unlink()
    (films / "new.dcm").unlink()
    pd.testing.assert_frame_equal(take(films), first)

    png(films / "Abernathy_1.png", GREY // 2)
    os.utime(films / "Kowalczyk.dcm", ns=(1, 1))
    assert taken_again(films, monkeypatch) == {"Abernathy_1.png", "Kowalczyk.dcm"}
    assert taken_again(films, monkeypatch, pattern="([A-Z][a-z]+)_") == {
        "Abernathy_1.png", "Abernathy_2.PNG", "Whitcombe_1.jpg"}  # fmt: skip
    names = {Path(name).name: image_id for image_id, name in film_names(films, KEYED).items()}
    chosen = {names["Abernathy_1.png"]: "reject", names["Rutherford"]: "accept"}
    take(films)
    again = taken_again(films, monkeypatch, decisions=chosen)
    assert again == {"Abernathy_1.png", "Rutherford"}


@pytest.mark.parametrize("harm", ["unlink", "cut"])
@pytest.mark.parametrize("kind", ["png", "dicom", "folder"])
def test_what_is_not_whole_on_disk_is_made_again(films, tmp_path, monkeypatch, kind, harm):
    table = take(films)
    before = contents(tmp_path / "out")
    (path,) = (tmp_path / "out" / kind).glob(f"{image_id(4)}.*")
    path.unlink() if harm == "unlink" else path.write_bytes(path.read_bytes()[:-9])
    assert taken_again(films, monkeypatch) == {"Kowalczyk.dcm"}
    assert contents(tmp_path / "out") == before
    pd.testing.assert_frame_equal(take(films), table)


def test_another_release_makes_the_films_again(films, monkeypatch):
    take(films)
    monkeypatch.setattr(folder_module, "_RULES", "another digest")
    assert len(taken_again(films, monkeypatch)) == 5


def test_the_number_of_threads_changes_nothing(films, tmp_path):
    for threads in (1, 2, 5):
        take(films, out=tmp_path / str(threads), threads=threads)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "5")


@pytest.mark.parametrize("writes", range(0, 12, 3))
def test_a_full_disk_is_a_sentence_and_what_is_here_stays(films, tmp_path, monkeypatch, writes):
    left = [writes]

    def fsync(_):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        assert "disk is full while writing" in refused(films)
    assert not list((tmp_path / "out").rglob("*.part*"))
    before = times(tmp_path / "out" / "folder")
    take(films)
    assert before.items() <= times(tmp_path / "out" / "folder").items()


KILLED = """
import logging, os, signal, sys
from pathlib import Path
from lumbarflow import files
from lumbarflow.acquire.folder import import_folder
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms

folder, out, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
keyed = Pseudonyms(b"a key for these tests only")

def run(out, deadly):
    left = [deadly]
    def step():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    replace = Path.replace
    def killing_fsync(_):
        step()
    def killing_replace(path, target):
        step()
        replace(path, target)
        step()
    files.os.fsync, Path.replace = killing_fsync, killing_replace
    import_folder(folder, Deidentifier(keyed), out, out / "manifest.parquet", "lateral", {}, None,
                  logging.getLogger(), 1 + deadly % 3)

for number in range(1, steps + 1):
    child = os.fork()
    if not child:
        run(out / str(number), number)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_at_any_moment(tmp_path):
    """SIGKILL before and after each of the steps that make files whole."""
    films, undisturbed = tmp_path / "films", tmp_path / "undisturbed"
    png(films / "film.png")
    dcm(films / "film.dcm")
    dcm(films / "AP.dcm", 5, SeriesDescription="AP")
    take(films, out=undisturbed)
    steps = 3 * (1 + 2 + 3 + 1)  # of the picture, the object and its picture, records, manifest
    command = [sys.executable, "-c", KILLED, str(films), str(tmp_path / "out"), str(steps)]
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.split() == [str(int(signal.SIGKILL))] * steps
    for number in range(1, steps + 1):
        out = tmp_path / "out" / str(number)
        assert (out / "manifest.parquet").exists() == (number == steps)
        records = times(out / "folder")
        take(films, out=out)
        assert records.items() <= times(out / "folder").items()
        assert contents(out) == contents(undisturbed)


JOB = """
import runpy, sys
from types import SimpleNamespace as Names
script, folder, out = sys.argv[1:]
settings = {"path": folder, "view": "lateral", "patient_pattern": None}
privacy = {"key_file": f"{out}/key", "linkage": None, "dates": "shifted", "device": False,
           "patient_characteristics": True, "institution": False, "descriptions": "removed",
           "find_burned_in_text": False, "verify": "all"}
params = Names(folder=settings, privacy=privacy, results=out, decisions=None)
output = Names(manifest=f"{out}/manifest.parquet", audit=f"{out}/deidentification.parquet")
job = Names(params=params, output=output, log=[f"{out}/log"], rule="import_folder", threads=2,
            config={})
runpy.run_path(script, {"snakemake": job})
"""


def test_a_job_tells_no_names_of_dicom_files(tmp_path):
    """Not even through the DICOM library, which quotes names in its warnings."""
    films = tmp_path / "films"
    compressed = dicom_film(PatientName="Kowalczyk^Anna")
    compressed.compress(RLELossless)
    place = mixed_disc(films / "Kowalczyk" / "Anna")
    min(place.rglob("IM*")).rename(place / "Kowalczyk_lost")
    dcm(films / "Kowalczyk_1.dcm", 60, PatientName="Kowalczyk^Anna", PatientID="Kowalczyk")
    (films / "Kowalczyk_2.dcm").write_bytes(saved(compressed)[:-20])
    script = Path(files.__file__).parents[1] / "import_folder.py"
    command = [sys.executable, "-c", JOB, str(script), str(films), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(script.parent)}

    def run() -> subprocess.CompletedProcess:
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    sound = run()
    assert sound.returncode == 0, sound.stderr
    (films / "Kowalczyk_3.dcm").write_bytes(saved(dicom_film())[:140])
    (films / "Kowalczyk_4.dcm").write_bytes(saved(compressed)[:200])
    broken = run()
    assert broken.returncode == 1 and "Traceback" not in broken.stderr
    assert "lumbarflow: error: A file of 140 bytes" in broken.stderr
    for text in (sound.stdout, sound.stderr, broken.stdout, broken.stderr):
        assert "Kowalczyk" not in text
    written = contents(tmp_path / "out")
    assert {"/log", "/manifest.parquet"} < set(written)
    assert not [name for name, data in written.items() if b"Kowalczyk" in name.encode() + data]
