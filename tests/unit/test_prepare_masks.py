"""Masks: the pixel rule, the way back to outlines, overlaps, COCO files."""

from __future__ import annotations

import contextlib
import io
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools.coco import COCO

from lumbarflow.errors import InputError
from lumbarflow.prepare.coco import clip, coco_dataset
from lumbarflow.prepare.masks import bit_mask, class_planes, rasterise, rasterise_window, trace

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ROWS, COLUMNS = 24, 30
CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))
coordinate = st.floats(-10, 40)
polygons = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8)


def slow_rasterise(polygon, rows, columns):
    """Even-odd by one horizontal ray to the left of each pixel centre, in plain Python."""
    mask = np.zeros((rows, columns), dtype=bool)
    for r, c in itertools.product(range(rows), range(columns)):
        x, y = c + 0.5, r + 0.5
        for (xa, ya), (xb, yb) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            (x0, y0), (x1, y1) = sorted([(xa, ya), (xb, yb)], key=lambda p: p[1])
            if y0 <= y < y1 and x0 + (y - y0) * ((x1 - x0) / (y1 - y0)) <= x:
                mask[r, c] ^= True
    return mask


@unhurried
@given(polygons)
def test_rasterise_is_the_even_odd_rule_at_pixel_centres(polygon):
    mask = rasterise(polygon, ROWS, COLUMNS)
    assert mask.shape == (ROWS, COLUMNS)
    assert mask.dtype == bool
    assert (mask == slow_rasterise(polygon, ROWS, COLUMNS)).all()


def test_rasterise_by_hand():
    whole_pixels = rasterise([(1, 2), (5, 2), (5, 4), (1, 4)], 6, 8)
    assert np.argwhere(whole_pixels).tolist() == [[r, c] for r in (2, 3) for c in (1, 2, 3, 4)]
    # Centres on left and top edges belong, those on right and bottom edges do not.
    assert np.argwhere(
        rasterise([(0.5, 0.5), (2.5, 0.5), (2.5, 1.5), (0.5, 1.5)], 4, 4)
    ).tolist() == [
        [0, 0],
        [0, 1],
    ]
    # A shift by less than half a pixel moves the outline: sub-pixel coordinates count.
    assert rasterise([(0.6, 0), (3, 0), (3, 1), (0.6, 1)], 1, 4).tolist() == [
        [False, True, True, False]
    ]


@unhurried
@given(polygons)
def test_direction_and_first_point_do_not_matter(polygon):
    mask = rasterise(polygon, ROWS, COLUMNS)
    assert (rasterise(polygon[::-1], ROWS, COLUMNS) == mask).all()
    assert (rasterise(polygon[1:] + polygon[:1], ROWS, COLUMNS) == mask).all()


@unhurried
@given(coordinate, coordinate, coordinate, coordinate)
def test_parts_that_share_an_edge_neither_overlap_nor_leave_a_gap(x0, y0, x1, y1):
    top, bottom = (x0, y0), (x1, y1)
    left = rasterise([(-50, -50), (60, -50), top, bottom, (-50, 90)], ROWS, COLUMNS)
    right = rasterise([(60, -50), (60, 90), (-50, 90), bottom, top], ROWS, COLUMNS)
    assert (left ^ right).all()


@unhurried
@given(polygons)
def test_window_is_the_part_of_the_mask_that_is_set(polygon):
    mask = rasterise(polygon, ROWS, COLUMNS)
    top, left, window = rasterise_window(polygon, ROWS, COLUMNS)
    height, width = window.shape
    assert (mask[top : top + height, left : left + width] == window).all()
    assert mask.sum() == window.sum()


def combined(outlines, shape):
    mask = np.zeros(shape, dtype=bool)
    for outline in outlines:
        mask ^= rasterise(outline, *shape)
    return mask


@unhurried
@given(masks)
def test_trace_is_undone_by_rasterise(mask):
    assert (combined(trace(mask), mask.shape) == mask).all()


@unhurried
@given(polygons)
def test_a_polygon_traced_and_rasterised_again_is_the_same_mask(polygon):
    mask = rasterise(polygon, ROWS, COLUMNS)
    assert (combined(trace(mask), mask.shape) == mask).all()


def test_trace_by_hand():
    assert trace(np.zeros((3, 3), dtype=bool)) == []
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    outer, hole = sorted(trace(ring), key=lambda outline: min(outline))
    assert sorted(outer) == [[0, 0], [0, 3], [3, 0], [3, 3]]
    assert sorted(hole) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    # Parts that touch at a corner have an outline each.
    assert [len(outline) for outline in trace(np.eye(2, dtype=bool))] == [4, 4]


def box(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


structures = st.lists(
    st.fixed_dictionaries({"class_name": st.sampled_from(CLASSES), "polygon": polygons}), max_size=5
)


def planes_of(drawn, classes):
    planes = np.zeros((len(classes), ROWS, COLUMNS), dtype=bool)
    for structure in drawn:
        planes[classes.index(structure["class_name"])] |= rasterise(
            structure["polygon"], ROWS, COLUMNS
        )
    return planes


@unhurried
@given(structures, st.permutations(range(len(CLASSES))))
def test_permuting_classes_permutes_bits(drawn, order):
    permuted = [CLASSES[k] for k in order]
    planes = class_planes(bit_mask(drawn, CLASSES, ROWS, COLUMNS), len(CLASSES))
    again = class_planes(bit_mask(drawn, permuted, ROWS, COLUMNS), len(CLASSES))
    assert (again == planes[list(order)]).all()
    assert (planes == planes_of(drawn, CLASSES)).all()


def test_bits_by_hand():
    drawn = [
        {"class_name": "lumbar_vertebra", "polygon": box(0, 0, 3, 1)},
        {"class_name": "lumbar_vertebra", "polygon": box(0, 0, 1, 1)},
        {"class_name": "screw", "polygon": box(1, 0, 1, 1)},
        {"class_name": "instrumentation", "polygon": box(1, 0, 3, 1)},
    ]
    bits = bit_mask(drawn, CLASSES, 1, 5)
    assert bits.dtype == np.uint8
    assert bits.tolist() == [[1, 1 + 8 + 16, 1 + 16, 16, 0]]


def test_eight_classes_fit_and_nine_do_not():
    names = [f"class_{k}" for k in range(9)]
    drawn = [{"class_name": "class_7", "polygon": box(0, 0, 1, 1)}]
    assert bit_mask(drawn, names[:8], 1, 1).tolist() == [[128]]
    with pytest.raises(InputError, match="`classes` has 9 entries"):
        bit_mask(drawn, names, 1, 1)
    with pytest.raises(InputError, match="`classes` has 9 entries"):
        class_planes(np.zeros((1, 1), dtype=np.uint8), 9)


def test_a_class_that_left_the_configuration_gives_a_sentence():
    with pytest.raises(InputError, match="'rib'"):
        bit_mask([{"class_name": "rib", "polygon": box(0, 0, 1, 1)}], CLASSES, 4, 4)


def distance(polygon, x, y):
    """From a point to the outline of a polygon, in pixels."""
    start = np.array(polygon, dtype=float)
    edge = np.roll(start, -1, axis=0) - start
    length = np.maximum((edge**2).sum(axis=1), 1e-300)
    along = np.clip(((np.array([x, y]) - start) * edge).sum(axis=1) / length, 0, 1)
    return np.hypot(*(start + along[:, None] * edge - (x, y)).T).min()


def test_clip_by_hand():
    inside = box(1, 2, 3, 4)
    assert clip(inside, ROWS, COLUMNS).tolist() == inside
    corner = clip(box(-5, -5, 10, 10), ROWS, COLUMNS)
    assert sorted(corner.tolist()) == sorted(box(0, 0, 5, 5))
    assert len(clip(box(50, 0, 5, 5), ROWS, COLUMNS)) == 0


@unhurried
@given(polygons)
def test_clipping_cuts_only_what_is_outside(polygon):
    clipped = clip(polygon, ROWS, COLUMNS)
    assert ((clipped >= 0) & (clipped <= (COLUMNS, ROWS))).all()
    # The new corners are rounded: pixels may differ only where a centre lies on an edge.
    for row, column in np.argwhere(
        rasterise(polygon, ROWS, COLUMNS) != rasterise(clipped, ROWS, COLUMNS)
    ):
        assert distance(polygon, column + 0.5, row + 0.5) < 1e-9


def record(image_id, *drawn):
    return {
        "image_id": image_id,
        "rows": ROWS,
        "columns": COLUMNS,
        "structures": [
            {
                "structure_id": f"{image_id}-{n:03d}",
                "class_name": name,
                "level": level,
                "polygon": polygon,
            }
            for n, (name, level, polygon) in enumerate(drawn, 1)
        ],
    }


def test_coco_loads_in_pycocotools(tmp_path):
    records = [
        record("IMG2", ("cage", "L4/L5", box(2.5, 3, 6, 5))),
        record("IMG9", ("cage", None, box(0, 0, 2, 2))),
        record(
            "IMG1",
            ("lumbar_vertebra", "L1", [(3.3, 2.1), (17.2, 4.4), (15.7, 13.6), (4.9, 12.2)]),
            ("screw", "L1", box(-4, 1, 10, 3)),
        ),
    ]
    dataset = coco_dataset(records, pd.DataFrame({"image_id": ["IMG1", "IMG2"]}), CLASSES)
    path = tmp_path / "train.json"
    path.write_text(json.dumps(dataset))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert [c["name"] for c in coco.loadCats([1, 2, 3, 4, 5])] == CLASSES
    assert [(i["id"], i["file_name"], i["image_id"]) for i in dataset["images"]] == [
        (1, "IMG1.png", "IMG1"),
        (2, "IMG2.png", "IMG2"),
    ]
    assert [(a["image_id"], a["category_id"], a["level"]) for a in dataset["annotations"]] == [
        (1, 1, "L1"),
        (1, 4, "L1"),
        (2, 3, "L4/L5"),
    ]
    assert dataset["annotations"][1]["bbox"] == [0, 1, 6, 3]
    assert dataset["annotations"][1]["area"] == 18
    drawn = [s["polygon"] for i in (2, 0) for s in records[i]["structures"]]
    for annotation, polygon in zip(dataset["annotations"], drawn, strict=True):
        ours = rasterise(polygon, ROWS, COLUMNS)
        theirs = coco.annToMask(annotation) > 0
        assert annotation["area"] == ours.sum()
        # Both rules agree but along the outline.
        differ = np.argwhere(ours != theirs)
        assert all(distance(polygon, column + 0.5, row + 0.5) < 1 for row, column in differ)
        x, y, width, height = annotation["bbox"]
        assert not np.delete(ours, slice(int(x), int(np.ceil(x + width))), axis=1).any()
        assert not np.delete(ours, slice(int(y), int(np.ceil(y + height))), axis=0).any()


def test_coco_rule_agrees_on_whole_pixels():
    dataset = coco_dataset(
        [record("IMG1", ("cage", None, box(3, 4, 7, 5)))],
        pd.DataFrame({"image_id": ["IMG1"]}),
        CLASSES,
    )
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    theirs = coco.annToMask(dataset["annotations"][0]) > 0
    assert (theirs == rasterise(box(3, 4, 7, 5), ROWS, COLUMNS)).all()


def test_a_film_without_a_record_gives_a_sentence():
    with pytest.raises(InputError, match="IMG1 has no annotation record"):
        coco_dataset([], pd.DataFrame({"image_id": ["IMG1"]}), CLASSES)
