"""Hausdorff distance and surface Dice against the definitions, computed another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lumbarflow.evaluate.boundaries import boundary, compare


def random_pair(seed):
    """Two masks of one small film: speckled, empty or nearly alike."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 13, 2)
    one, other = (rng.random(shape) < rng.choice([0, 0.1, 0.5, 0.9, 1]) for _ in range(2))
    return (one, one ^ other) if rng.random() < 0.3 else (one, other)


pairs = st.integers(0, 2**32 - 1).map(random_pair)
scales = st.sampled_from([1.0, 0.143, 2.5])


def slow_boundary(mask):
    """Lengths of boundary on the grid of corners, by marching squares, corner by corner."""
    padded = np.pad(mask, 1)
    lengths = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    for row, column in np.ndindex(*lengths.shape):
        (a, b), (c, d) = padded[row : row + 2, column : column + 2]
        cut = [a != b, b != d, d != c, c != a]  # sides of the square that the boundary crosses
        if sum(cut) == 2:
            opposite = (cut[0] and cut[2]) or (cut[1] and cut[3])
            lengths[row, column] = 1 if opposite else np.sqrt(0.5)
        elif sum(cut) == 4:
            lengths[row, column] = 2 * np.sqrt(0.5)
    return lengths


def slow_compare(reference, prediction, tolerance, scale):
    lengths = [slow_boundary(mask) for mask in (reference, prediction)]
    away = [ndimage.distance_transform_edt(one == 0) * scale for one in lengths]
    ends, within, total = [], 0.0, 0.0
    for one, other in zip(lengths, away[::-1], strict=True):
        at = one > 0
        pairs = sorted(zip(other[at], one[at] * scale, strict=True))
        reached, whole = 0.0, sum(length for _, length in pairs)
        for distance, length in pairs:
            reached += length
            if reached >= 0.95 * whole - 1e-9:
                ends.append(distance)
                break
        within += sum(length for distance, length in pairs if distance <= tolerance)
        total += sum(distance * length for distance, length in pairs)
    whole = sum(one.sum() for one in lengths) * scale
    return {
        "hausdorff_95": max(ends),
        "mean_distance": total / whole,
        "surface_dice": within / whole,
    }


def fast(reference, prediction, tolerance=1.0, scale=1.0):
    return compare(boundary(reference), boundary(prediction), tolerance, scale)


@settings(deadline=None, max_examples=60)
@given(pairs, scales, st.floats(0.2, 4))
def test_equals_the_definitions(pair, scale, tolerance):
    assume(pair[0].any() and pair[1].any())
    found = fast(*pair, tolerance, scale)
    expected = slow_compare(*pair, tolerance, scale)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["reference_length"] == pytest.approx(slow_boundary(pair[0]).sum() * scale)
    within = found["reference_within"] + found["predicted_within"]
    whole = found["reference_length"] + found["predicted_length"]
    assert found["surface_dice"] == pytest.approx(within / whole)


# Where just 95 % of a length are reached, rounding decides in the library: no new cases each time.
@settings(deadline=None, derandomize=True)
@given(pairs, scales)
def test_equals_the_library_of_the_definitions(pair, scale):
    library = pytest.importorskip(
        "surface_distance", reason="needs the package surface-distance, for this comparison only"
    )
    assume(pair[0].any() and pair[1].any())
    found = fast(*pair, 1.0, scale)
    known = library.compute_surface_distances(*pair, (scale, scale))
    assert found["hausdorff_95"] == pytest.approx(library.compute_robust_hausdorff(known, 95))
    assert found["surface_dice"] == pytest.approx(
        library.compute_surface_dice_at_tolerance(known, 1.0)
    )


@settings(deadline=None)
@given(pairs)
def test_exchanging_the_masks_changes_nothing(pair):
    one, other = fast(*pair), fast(*pair[::-1])
    for name in ("hausdorff_95", "mean_distance", "surface_dice"):
        assert one[name] == pytest.approx(other[name], nan_ok=True)


@settings(deadline=None)
@given(pairs, st.integers(0, 30), st.integers(0, 30))
def test_the_place_on_the_film_does_not_matter(pair, top, left):
    moved = compare(*(boundary(mask, top, left) for mask in pair), 1.0)
    assert moved == pytest.approx(fast(*pair), nan_ok=True)


def test_a_shifted_square():
    reference, prediction = np.zeros((2, 40, 40), bool)
    reference[10:20, 10:20] = True
    prediction[10:20, 13:23] = True
    found = fast(reference, prediction, tolerance=1.5, scale=0.5)
    # Its side walls are 3 px apart; the 10 px between are half of the upper and lower ones.
    assert found["hausdorff_95"] == 1.5
    assert found["surface_dice"] == 1
    assert fast(reference, prediction, tolerance=2.9)["surface_dice"] < 0.8
    # Four sides, with the corners cut off.
    assert found["reference_length"] == pytest.approx(0.5 * (4 * 9 + 4 * np.sqrt(0.5)))


def test_empty_masks_have_no_distance():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    missed = fast(full, empty)
    assert np.isnan(missed["hausdorff_95"]) and np.isnan(missed["mean_distance"])
    assert missed["surface_dice"] == 0
    assert missed["reference_length"] > 0 == missed["predicted_length"]
    assert np.isnan(fast(empty, empty)["surface_dice"])
