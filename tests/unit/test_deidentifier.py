"""One film through header, pixels and notes; the finder of text is a stand-in with known boxes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pydicom
import pytest
from test_deidentify import KEYED, film
from test_view import LATERAL

from lumbarflow.acquire.films import BLURRED_SIDE, take_dicom
from lumbarflow.acquire.render import render
from lumbarflow.deidentify.audit import table
from lumbarflow.deidentify.burned_in import BurnedIn
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.files import read_grey

IMAGE = KEYED.image("1.2.3.4")
ROWS, COLUMNS = 120, 90
RAMP = (np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS) * 7) % 4096


class Finder:
    def __init__(self, *blank, uncertain=False):
        self.found = BurnedIn(blank, (), uncertain)

    def find(self, picture):
        assert picture.dtype == np.uint8
        return self.found


def take(tmp_path, finder, **changes):
    source = film(Rows=ROWS, Columns=COLUMNS, PixelData=RAMP.tobytes(), **LATERAL | changes)
    return take_dicom(source, Deidentifier(KEYED, finder=finder), tmp_path, {}, 0)


def written(tmp_path) -> set[str]:
    return {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("flag", [None, "NO", "YES"])
def test_text_is_blanked_in_object_and_picture_whatever_the_header_says(tmp_path, flag):
    row = take(tmp_path, Finder((10, 5, 30, 60)), BurnedInAnnotation=flag)
    assert (row["status"], row["blanked_texts"]) == ("accepted", 1)
    clean = pydicom.dcmread(tmp_path / f"dicom/{IMAGE}.dcm")
    pixels = clean.pixel_array
    assert len(np.unique(pixels[10:30, 5:60])) == 1
    outside = np.ones_like(pixels, bool)
    outside[10:30, 5:60] = False
    assert (pixels[outside] == RAMP[outside]).all()
    np.testing.assert_array_equal(read_grey(tmp_path / f"png/{IMAGE}.png"), render(clean))
    assert clean.BurnedInAnnotation == "NO"
    assert "113101" in [item.CodeValue for item in clean.DeidentificationMethodCodeSequence]


def test_without_text_no_pixel_changes(tmp_path):
    row = take(tmp_path, Finder())
    assert (row["status"], row["blanked_texts"]) == ("accepted", 0)
    assert (pydicom.dcmread(tmp_path / f"dicom/{IMAGE}.dcm").pixel_array == RAMP).all()


@pytest.mark.parametrize(
    ("finder", "flag"),
    [(Finder(uncertain=True), None), (Finder((0, 0, 9, 9), uncertain=True), "NO"),
     (Finder(), "YES"), (Finder(), "yes ")],
)  # fmt: skip
def test_what_is_not_certain_is_rejected_and_blurred(tmp_path, finder, flag):
    row = take(tmp_path, finder, BurnedInAnnotation=flag)
    assert (row["status"], row["reason"]) == ("rejected", "burned_in_text_uncertain")
    assert written(tmp_path) == {f"uncertain/{IMAGE}.png"}
    shown = read_grey(tmp_path / f"uncertain/{IMAGE}.png").astype(float)
    # No detail finer than the coarse picture: neighbours differ by little.
    step = max(shown.shape) // BLURRED_SIDE
    assert np.abs(np.diff(shown, axis=0)).max() <= 255 / step + 1


def test_without_a_search_the_header_is_believed(tmp_path):
    assert take(tmp_path, None, BurnedInAnnotation="YES")["reason"] == "burned_in_annotation"
    row = take(tmp_path, None, BurnedInAnnotation=None)
    assert (row["status"], row["blanked_texts"]) == ("accepted", None)
    clean = pydicom.dcmread(tmp_path / f"dicom/{IMAGE}.dcm")
    assert "BurnedInAnnotation" not in clean
    assert "113101" not in [item.CodeValue for item in clean.DeidentificationMethodCodeSequence]


def test_films_to_decide_show_no_text_either(tmp_path):
    source = film(Rows=ROWS, Columns=COLUMNS, PixelData=RAMP.tobytes())
    deidentifier = Deidentifier(KEYED, finder=Finder((10, 5, 30, 60)))
    row = take_dicom(source, deidentifier, tmp_path, {}, 0)
    assert (row["reason"], row["blanked_texts"]) == ("view_uncertain", 1)
    assert len(np.unique(read_grey(tmp_path / f"uncertain/{IMAGE}.png")[10:30, 5:60])) == 1


def test_the_audit_adds_up(tmp_path):
    rows = [
        take(tmp_path, Finder((10, 5, 30, 60), (1, 1, 5, 5))),
        take(tmp_path, Finder()),
        take(tmp_path, Finder(uncertain=True)),
        take(tmp_path, None, SOPClassUID="1.2"),
    ]
    audit = table(rows, Deidentifier(KEYED), {"values": 7, "findings": 0, "seconds": 1.5})
    counts = audit.set_index(["part", "item", "outcome"])["count"]
    assert counts["film", "films", "accepted"] == 2
    assert counts["film", "films", "burned_in_text_uncertain"] == 1
    assert counts["film", "films", "sop_class_not_taken"] == 1
    assert counts["text", "films searched", ""] == 3 and counts["text", "areas blanked", ""] == 2
    assert counts["attribute", "PatientID", "replaced by the pseudonym"] == 3
    assert counts["verification", "values", ""] == 7
    fingerprint = audit.loc[audit["part"] == "key", "item"]
    assert fingerprint.tolist() == [KEYED.fingerprint]
    assert not audit.isna().any(axis=None) and pd.api.types.is_integer_dtype(audit["count"])
