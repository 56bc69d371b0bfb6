"""A folder of films: what is taken, what is refused, and that names stay behind."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from test_deidentify import film as dicom_film
from test_deidentify import saved

from lumbarflow.acquire.films import MANIFEST
from lumbarflow.acquire.folder import (
    film_files,
    film_names,
    import_folder,
    picture_patient,
    with_file_names,
)
from lumbarflow.acquire.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError
from lumbarflow.files import read_grey

KEYED = Pseudonyms(b"a key for these tests only")
VIEWS = ["LL", "LATERAL"]
GREY = np.tile(np.arange(40, 240, dtype=np.uint8), (120, 1))


def png(path: Path, image=GREY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


@pytest.fixture
def films(tmp_path) -> Path:
    """One film of each kind, with names that must not be seen again."""
    folder = tmp_path / "films"
    png(folder / "Abernathy_1.png")
    png(folder / "follow-up 2019" / "Abernathy_2.PNG", GREY[::-1])
    (folder / "Whitcombe_1.jpg").write_bytes(cv2.imencode(".jpg", GREY)[1].tobytes())
    (folder / "Kowalczyk.dcm").write_bytes(saved(dicom_film(PatientName="Kowalczyk^Anna")))
    other = dicom_film(SOPInstanceUID="1.2.3.5", PatientID="PID2", ViewPosition="AP")
    (folder / "Rutherford").write_bytes(saved(other))
    (folder / ".hidden.png").write_text("passed over")
    (folder / "notes.txt").write_text("passed over")
    return folder


def take(folder, pattern=None, view="LL", out=None) -> pd.DataFrame:
    out = out or Path(folder).parent / "out"
    log = logging.getLogger("test_folder")
    import_folder(folder, KEYED, out, out / "manifest.parquet", view, VIEWS, pattern, log)
    return pd.read_parquet(out / "manifest.parquet")


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
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) >= 6
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
BROKEN = {
    "words.png": b"not an image",
    "words.jpg": b"not an image",
    "empty.png": b"",
    "cut.png": WHOLE_PNG[: len(WHOLE_PNG) // 2],
    "words.dcm": b"not an image",
    "empty.dcm": b"",
    "cut.dcm": saved(dicom_film())[:140],
    "directory": saved(dicom_film(SOPInstanceUID=None)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_a_film_is_a_sentence_that_names_it(films, name):
    (films / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError) as caught:
        take(films)
    assert name in str(caught.value)
    assert any(fix in str(caught.value) for fix in ("replace", "remove"))
    assert not (films.parent / "out" / "manifest.parquet").exists()


def test_a_dicom_film_whose_pixels_are_cut_is_rejected(films):
    content = saved(dicom_film(SOPInstanceUID="1.2.3.6"))
    (films / "cut.dcm").write_bytes(content[:-20])
    table = take(films).set_index("image_id")
    assert table.loc[KEYED.image("1.2.3.6"), "reason"] == "pixels_not_readable"


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
        take(films, view="AP")
    assert not list((tmp_path / "out").rglob("*.png"))
    assert len(take(films, view="lateral")) == 4


def test_a_film_that_is_there_twice_is_one_row(films):
    original = (films / "Kowalczyk.dcm").read_bytes()
    (films / "copy.dcm").write_bytes(original)
    assert len(take(films)) == 5
    assert pydicom.dcmread(io.BytesIO(original)).SOPInstanceUID == "1.2.3.4"
