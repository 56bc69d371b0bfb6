"""Random changes of films: limits, and picture, mask and outline moving together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_films import AUGMENTATION, STILL

from lumbarflow.prepare.masks import rasterise
from lumbarflow.train.augment import draw

SIZE = 120, 90
seeds = st.integers(0, 2**32 - 1)
unhurried = settings(max_examples=60, deadline=None)

# In OpenCV's coordinates: pixel centres at whole numbers.
OUTLINE = np.array([[30.2, 38.7], [61.5, 41.0], [58.9, 77.3], [33.0, 74.6]])
MASK = rasterise(OUTLINE + 0.5, *SIZE)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@unhurried
@given(seeds)
def test_no_limits_change_nothing(seed):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, SIZE, dtype=np.uint8)
    change = draw(rng, SIZE, STILL)
    assert (change.picture(picture, rng) == picture).all()
    assert (change.bits(picture) == picture).all()
    assert change.points(OUTLINE) == pytest.approx(OUTLINE)


@unhurried
@given(seeds)
def test_picture_mask_and_outline_move_together(seed):
    rng = np.random.default_rng(seed)
    change = draw(rng, SIZE, AUGMENTATION | {"contrast": 0})
    bits = change.bits(MASK * np.uint8(5))
    assert set(np.unique(bits)) == {0, 5}
    outline = rasterise(change.points(OUTLINE) + 0.5, *SIZE)
    picture = change.picture(np.where(MASK, 250, 1).astype(np.uint8), rng)
    assert iou(bits > 0, outline) > 0.9
    assert iou(bits > 0, picture > 125) > 0.9


@unhurried
@given(seeds)
def test_moves_stay_within_the_limits(seed):
    change = draw(np.random.default_rng(seed), SIZE, AUGMENTATION)
    linear = change.matrix[:, :2]
    scale = np.sqrt(abs(np.linalg.det(linear)))
    assert 0.88 - 1e-9 <= scale <= 1.12 + 1e-9
    assert linear @ linear.T == pytest.approx(scale**2 * np.eye(2))  # no shear
    angle = np.degrees(np.arctan2(-linear[1, 0] * np.sign(linear[0, 0]), abs(linear[0, 0])))
    assert abs(angle) <= 8 + 1e-9
    centre = np.array([[(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2]])
    assert (np.abs(change.points(centre) - centre) <= 0.06 * np.array(SIZE[::-1]) + 1e-9).all()


@unhurried
@given(seeds)
def test_padding_stays_black(seed):
    rng = np.random.default_rng(seed)
    picture = np.zeros(SIZE, np.uint8)
    picture[:100, :60] = rng.integers(1, 256, (100, 60))
    change = draw(rng, SIZE, AUGMENTATION | {"contrast": 0.9})
    covered = change.picture(picture, np.random.default_rng(1)) > 0
    # The picture grows by the interpolation, by less than two pixels each way.
    near = change.points(np.array([[-2.0, -2], [61, -2], [61, 101], [-2, 101]]))
    assert not (covered & ~rasterise(near + 0.5, *SIZE)).any()


def test_a_flip_mirrors():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, SIZE, dtype=np.uint8)
    change = draw(rng, SIZE, STILL | {"flip_probability": 1})
    assert (change.picture(picture, rng) == picture[:, ::-1]).all()
    assert (change.bits(picture) == picture[:, ::-1]).all()
    mirrored = rasterise(change.points(OUTLINE) + 0.5, *SIZE)
    assert iou(mirrored, MASK[:, ::-1]) > 0.98


@unhurried
@given(seeds)
def test_the_same_seed_gives_the_same_change(seed):
    picture = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)
    first, second = (
        draw(rng, SIZE, AUGMENTATION).picture(picture, rng)
        for rng in (np.random.default_rng(seed), np.random.default_rng(seed))
    )
    assert (first == second).all()
    other = np.random.default_rng(seed + 1)
    assert (draw(other, SIZE, AUGMENTATION).picture(picture, other) != first).any()


@unhurried
@given(seeds)
def test_the_grey_levels_keep_their_order(seed):
    limits = STILL | {"contrast": 0.9}
    curve = draw(np.random.default_rng(seed), SIZE, limits).curve
    assert curve.shape == (256,)
    assert curve.dtype == np.uint8
    assert (np.diff(curve.astype(int)) >= 0).all()
