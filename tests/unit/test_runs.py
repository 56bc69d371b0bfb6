"""Masks as run lengths against the same masks pixel by pixel."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow import runs
from lumbarflow.rle import encode

seeds = st.integers(0, 2**32 - 1)


def random_masks(seed, count):
    """Masks of one small film: speckled, empty or full."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 10, 2))
    return [rng.random(shape) < rng.choice([0, 0.1, 0.5, 0.9, 1]) for _ in range(count)]


def placed(top, left, window, shape):
    mask = np.zeros(shape, bool)
    mask[top : top + window.shape[0], left : left + window.shape[1]] = window
    return mask


@settings(deadline=None)
@given(seeds)
def test_the_window_holds_all_of_the_mask(seed):
    (mask,) = random_masks(seed, 1)
    encoded = runs.of_plane(mask)
    top, left, window = runs.window(encoded)
    assert window.dtype == bool
    assert np.array_equal(placed(top, left, window, mask.shape), mask)
    assert runs.area(encoded) == np.count_nonzero(mask)
    assert runs.of_window(top, left, window, *mask.shape) == encoded
    if mask.any():
        assert window[0].any() and window[-1].any() and window[:, 0].any() and window[:, -1].any()


@settings(deadline=None)
@given(seeds)
def test_long_runs_are_read(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 900, 2)
    mask = np.zeros(shape, bool)
    for _ in range(3):
        y, x = (rng.integers(0, side) for side in shape)
        mask[y : y + rng.integers(1, 700), x : x + rng.integers(1, 700)] ^= True
    top, left, window = runs.window(runs.of_string(encode(mask), *mask.shape))
    assert np.array_equal(placed(top, left, window, mask.shape), mask)


@settings(deadline=None)
@given(seeds, st.integers(0, 3), st.integers(0, 3))
def test_unions_and_overlaps(seed, n_first, n_second):
    masks = random_masks(seed, 7)
    shape, first, second = masks[0].shape, masks[:n_first], masks[4 : 4 + n_second]
    a, b = ([runs.of_plane(mask) for mask in group] for group in (first, second))
    united = np.logical_or.reduce([np.zeros(shape, bool), *first])
    assert runs.union(a, *shape) == runs.of_plane(united)
    matrix = runs.iou_matrix(a, b)
    assert matrix.shape == (len(a), len(b))
    for (row, column), value in np.ndenumerate(matrix):
        one, other = first[row], second[column]
        both, either = np.count_nonzero(one & other), np.count_nonzero(one | other)
        assert runs.shared(a[row], b[column]) == both
        assert value == (both / either if either else 0)
