"""Masks as run lengths against the same masks pixel by pixel."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lumbarflow.evaluate import runs
from lumbarflow.evaluate.metrics import iou
from lumbarflow.rle import encode

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
masks = shapes.flatmap(lambda shape: hnp.arrays(bool, shape))
several = shapes.flatmap(
    lambda shape: st.tuples(st.just(shape), *[st.lists(hnp.arrays(bool, shape), max_size=3)] * 2)
)


def placed(top, left, window, shape):
    mask = np.zeros(shape, bool)
    mask[top : top + window.shape[0], left : left + window.shape[1]] = window
    return mask


@given(masks)
def test_the_window_holds_all_of_the_mask(mask):
    encoded = runs.of_plane(mask)
    top, left, window = runs.window(encoded)
    assert window.dtype == bool
    assert np.array_equal(placed(top, left, window, mask.shape), mask)
    assert runs.area(encoded) == np.count_nonzero(mask)
    assert runs.of_window(top, left, window, *mask.shape) == encoded
    if mask.any():
        assert window[0].any() and window[-1].any() and window[:, 0].any() and window[:, -1].any()


@given(st.integers(0, 2**32 - 1))
def test_long_runs_are_read(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 900, 2)
    mask = np.zeros(shape, bool)
    for _ in range(3):
        y, x = (rng.integers(0, side) for side in shape)
        mask[y : y + rng.integers(1, 700), x : x + rng.integers(1, 700)] ^= True
    top, left, window = runs.window(runs.of_string(encode(mask), *mask.shape))
    assert np.array_equal(placed(top, left, window, mask.shape), mask)


@given(several)
def test_unions_and_overlaps(case):
    shape, first, second = case
    a, b = ([runs.of_plane(mask) for mask in group] for group in (first, second))
    united = np.logical_or.reduce([np.zeros(shape, bool), *first])
    assert runs.union(a, *shape) == runs.of_plane(united)
    matrix = runs.iou_matrix(a, b)
    assert matrix.shape == (len(a), len(b))
    for (row, column), value in np.ndenumerate(matrix):
        one, other = first[row], second[column]
        assert runs.shared(a[row], b[column]) == np.count_nonzero(one & other)
        assert value == (iou(one, other) if (one | other).any() else 0)
