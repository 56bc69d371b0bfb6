"""The common table of predictions."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lumbarflow import networks, rle
from lumbarflow.errors import InputError
from lumbarflow.files import write_png, write_table
from lumbarflow.networks.base import Instance
from lumbarflow.networks.semantic import _instances
from lumbarflow.predict import table

# The design's columns, spelt out a second time on purpose.
DESIGN = [
    "image_id",
    "instance_id",
    "class_name",
    "level",
    "score",
    "bbox_x",
    "bbox_y",
    "bbox_w",
    "bbox_h",
    "rle_counts",
    "rle_height",
    "rle_width",
]
CLASSES = ["lumbar_vertebra", "screw"]
THRESHOLDS = {"probability_threshold": 0.5, "minimum_area": 0.0, "score_threshold": 0.4}

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)).filter(np.any)
log = logging.getLogger("lumbarflow.test")


@settings(max_examples=60, deadline=None)
@given(masks, st.floats(0, 1))
def test_a_row_holds_the_mask_and_its_bounds(mask, score):
    row = table.row("film", 3, Instance("screw", score, mask))
    assert list(row) == DESIGN == list(table.COLUMNS)
    assert row["instance_id"] == "film-p003"
    assert row["level"] is None
    assert row["score"] == score
    assert (rle.decode(row["rle_counts"], row["rle_height"], row["rle_width"]) == mask).all()
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (row["bbox_x"], row["bbox_y"]) == (columns[0], rows[0])
    assert row["bbox_x"] + row["bbox_w"] == columns[-1] + 1
    assert row["bbox_y"] + row["bbox_h"] == rows[-1] + 1


def planes(*boxes, value=0.9):
    """Probabilities of each class on 40 x 30 pixels, high in boxes (top, left, height, width)."""
    result = np.full((len(CLASSES), 40, 30), 0.1, np.float32)
    for class_index, (top, left, height, width) in boxes:
        result[class_index, top : top + height, left : left + width] = value
    return result


def test_connected_components_become_instances():
    found = list(_instances(planes((0, (2, 3, 5, 6)), (0, (20, 3, 4, 4))), CLASSES, THRESHOLDS))
    assert [instance.class_name for instance in found] == ["lumbar_vertebra"] * 2
    assert [int(instance.mask.sum()) for instance in found] == [30, 16]
    assert [instance.score for instance in found] == pytest.approx([0.9, 0.9])
    assert all(instance.mask.shape == (40, 30) for instance in found)


def test_pixels_that_touch_at_a_corner_are_apart():
    found = list(_instances(planes((0, (2, 2, 4, 4)), (0, (6, 6, 4, 4))), CLASSES, THRESHOLDS))
    assert len(found) == 2


def test_overlapping_classes_survive():
    found = list(_instances(planes((0, (2, 3, 8, 8)), (1, (4, 5, 3, 12))), CLASSES, THRESHOLDS))
    assert [instance.class_name for instance in found] == CLASSES
    assert int((found[0].mask & found[1].mask).sum()) == 3 * 6


def test_small_components_do_not_count():
    probabilities = planes((0, (2, 3, 2, 3)), (0, (20, 3, 1, 5)))
    limits = THRESHOLDS | {"minimum_area": 6 / 1200}
    assert [
        int(instance.mask.sum()) for instance in _instances(probabilities, CLASSES, limits)
    ] == [6]


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 12, 9), elements=st.floats(0, 1, width=32)), st.floats(0.05, 0.95)
)
def test_instances_cover_what_reaches_the_threshold_once(probabilities, threshold):
    limits = THRESHOLDS | {"probability_threshold": threshold}
    found = list(_instances(probabilities, CLASSES, limits))
    for class_name, plane in zip(CLASSES, probabilities, strict=True):
        covered = np.zeros(plane.shape, int)
        for instance in found:
            if instance.class_name == class_name:
                covered += instance.mask
                assert (
                    cv2.connectedComponents(instance.mask.astype(np.uint8), connectivity=4)[0] == 2
                )
                assert threshold <= instance.score + 1e-6 <= 1 + 1e-5
        assert (covered == (plane >= threshold)).all()


class Canned:
    """A network that finds what it was given."""

    def __init__(self, found):
        self.found = found

    def predict(self, state, films, settings, thresholds):
        for image_id, film in films:
            assert film.ndim == 2
            assert film.dtype == np.uint8
            yield image_id, self.found.get(image_id, [])


@pytest.fixture
def canned(monkeypatch, tmp_path):
    """Predict films of 6 x 5 pixels with a network that finds what the test says."""
    for image_id in ("a", "b"):
        write_png(tmp_path / f"{image_id}.png", np.zeros((6, 5), np.uint8))
    monkeypatch.setattr(table, "read_weights", lambda path: (None, {}, {}))

    def run(found, image_ids=("a", "b")):
        monkeypatch.setattr(networks, "load", lambda name: Canned(found))
        return table.predict(
            "unet", tmp_path / "model.pth", list(image_ids), tmp_path, THRESHOLDS, 1, log
        )

    return run


def test_predict_makes_a_row_an_instance(canned, tmp_path):
    mask = np.zeros((6, 5), bool)
    mask[1:3, 2:5] = True
    found = canned({"b": [Instance("screw", 0.75, mask), Instance("lumbar_vertebra", 0.5, ~mask)]})
    assert found.columns.tolist() == DESIGN
    assert found["image_id"].tolist() == ["b", "b"]
    assert found["instance_id"].is_unique
    assert found["level"].isna().all()
    assert found.loc[0, ["bbox_x", "bbox_y", "bbox_w", "bbox_h"]].tolist() == [2, 1, 3, 2]
    write_table(tmp_path / "predictions.parquet", found)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), found)


def test_nothing_found_is_an_empty_table_of_the_same_types(canned):
    mask = np.ones((6, 5), bool)
    empty = canned({})
    assert len(empty) == 0
    assert empty.dtypes.equals(canned({"a": [Instance("screw", 1.0, mask)]}).dtypes)
    assert empty.dtypes.equals(canned({}, image_ids=[]).dtypes)


def test_a_missing_film_is_a_sentence(canned):
    with pytest.raises(InputError, match=r"c\.png is missing"):
        canned({}, image_ids=["a", "c"])
