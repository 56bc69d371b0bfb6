"""Random changes of films: limits, and picture, mask and outline moving together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_films import AUGMENTATION, STILL

from lumbarflow.prepare.masks import rasterise
from lumbarflow.train import overlays
from lumbarflow.train.augment import Change, draw

SIZE = 120, 90
APPEARANCE = "contrast", "local_contrast", "shading", "sharpness", "noise"
HIDING = "implant_probability", "cutout_probability"
MOVES = {name: AUGMENTATION[name] for name in AUGMENTATION if name not in APPEARANCE + HIDING}
MOVES |= {"collimation_probability": 0.7}
seeds = st.integers(0, 2**32 - 1)
unhurried = settings(max_examples=60, deadline=None)

# In OpenCV's coordinates: pixel centres at whole numbers.
OUTLINE = np.array([[30.2, 38.7], [61.5, 41.0], [58.9, 77.3], [33.0, 74.6]])
MASK = rasterise(OUTLINE + 0.5, *SIZE)
# To the borders, and not convex: shutters cut it.
WIDE = np.array([[3.0, 4], [86, 2], [84, 117], [60, 112], [45, 50], [20, 115], [5, 110]])

NOTHING = Change(np.eye(2, 3), np.arange(256, dtype=np.uint8))


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def textured(seed=0):
    """A film (SIZE) with broad and fine structure, black right and below."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SIZE)
    picture = 120 + 40 * np.sin(rows / 15) + 25 * np.cos(columns / 4) + rng.normal(0, 6, SIZE)
    picture[105:], picture[:, 80:] = 0, 0
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def changed(picture=None, seed=0, **fields):
    """The picture after one kind of change."""
    shown = textured() if picture is None else picture
    return Change(NOTHING.matrix, NOTHING.curve, **fields).picture(
        shown, np.random.default_rng(seed)
    )


@unhurried
@given(seeds, st.sampled_from([STILL, {}]))
def test_no_limits_change_nothing(seed, limits):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, SIZE, dtype=np.uint8)
    change = draw(rng, SIZE, limits)
    assert (change.picture(picture, rng) == picture).all()
    assert (change.bits(picture) == picture).all()
    assert change.points(OUTLINE) == pytest.approx(OUTLINE)


@unhurried
@given(seeds, st.sampled_from([OUTLINE, WIDE]))
def test_picture_mask_and_outline_move_together(seed, points):
    rng = np.random.default_rng(seed)
    change = draw(rng, SIZE, MOVES)
    mask = rasterise(points + 0.5, *SIZE)
    bits = change.bits(mask * np.uint8(5))
    assert set(np.unique(bits)) == {0, 5}
    outline = rasterise(change.points(points) + 0.5, *SIZE)
    picture = change.picture(np.where(mask, 250, 1).astype(np.uint8), rng)
    assert iou(bits > 0, outline) > 0.9
    assert iou(bits > 0, picture > 125) > 0.9


@unhurried
@given(seeds)
def test_outlines_end_at_the_shutters(seed):
    change = draw(np.random.default_rng(seed), SIZE, STILL | {"collimation_probability": 1})
    left, top, right, bottom = change.opening
    assert 0 <= left <= 0.13 * SIZE[1] and 0.87 * SIZE[1] <= right <= SIZE[1]
    assert 0 <= top <= 0.13 * SIZE[0] and 0.87 * SIZE[0] <= bottom <= SIZE[0]
    whole = np.full(SIZE, 7, np.uint8)
    for shown in (change.bits(whole), change.picture(whole, np.random.default_rng(0))):
        assert (shown[top:bottom, left:right] == 7).all()
        assert (shown > 0).sum() == (bottom - top) * (right - left)
    around = np.array([[-40.0, -40], [140, -40], [140, 170], [-40, 170]])
    cut = change.points(around)
    assert cut.min(axis=0) == pytest.approx([left - 0.5, top - 0.5])
    assert cut.max(axis=0) == pytest.approx([right - 0.5, bottom - 0.5])
    assert change.points(around[:3] / 9 + (300, 300)).shape == (0, 2)
    assert (whole == 7).all()


@unhurried
@given(seeds)
def test_moves_stay_within_the_limits(seed):
    change = draw(np.random.default_rng(seed), SIZE, MOVES | {"collimation_probability": 0})
    linear = change.matrix[:, :2]
    scale = np.sqrt(abs(np.linalg.det(linear)))
    assert 0.88 - 1e-9 <= scale <= 1.12 + 1e-9
    assert linear @ linear.T == pytest.approx(scale**2 * np.eye(2))  # no shear
    assert linear[1, 1] > 0  # never upside down
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
    strong = dict.fromkeys((*APPEARANCE, *HIDING), 0.9)
    change = draw(rng, SIZE, AUGMENTATION | strong)
    shown = change.picture(picture, np.random.default_rng(1))
    assert shown.shape == SIZE and shown.dtype == np.uint8
    # The picture grows by the interpolation, by less than two pixels each way.
    near = rasterise(
        change.points(np.array([[-2.0, -2], [61, -2], [61, 101], [-2, 101]])) + 0.5, *SIZE
    )
    assert not ((shown > 0) & ~near).any()


def test_every_limit_of_the_configuration_is_tested_here():
    root = Path(__file__).resolve().parents[2]
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text("utf-8"))
    group = schema["properties"]["training"]["properties"]["augmentation"]
    assert set(group["properties"]) == set(MOVES) | {*APPEARANCE, *HIDING}


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
    picture = np.random.default_rng(1).integers(1, 256, SIZE, dtype=np.uint8)
    kept = picture.copy()
    picture.flags.writeable = False  # as the mapped films are
    limits = AUGMENTATION | dict.fromkeys(HIDING, 1)
    first, second = (
        draw(rng, SIZE, limits).picture(picture, rng)
        for rng in (np.random.default_rng(seed), np.random.default_rng(seed))
    )
    assert (first == second).all()
    other = np.random.default_rng(seed + 1)
    assert (draw(other, SIZE, limits).picture(picture, other) != first).any()
    assert (picture == kept).all()


@pytest.mark.parametrize("name", [*APPEARANCE, *HIDING])
def test_appearance_leaves_mask_and_outline(name):
    picture = textured()
    differing = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        change = draw(rng, SIZE, STILL | {name: 0.5})
        shown = change.picture(picture, rng)
        differing += (shown != picture).any()
        assert not shown[picture == 0].any()
        assert (change.bits(picture) == picture).all()
        assert change.points(OUTLINE) == pytest.approx(OUTLINE)
    assert differing >= 8


@unhurried
@given(seeds)
def test_the_grey_levels_keep_their_order(seed):
    limits = STILL | {"contrast": 0.9}
    curve = draw(np.random.default_rng(seed), SIZE, limits).curve
    assert curve.shape == (256,)
    assert curve.dtype == np.uint8
    assert (np.diff(curve.astype(int)) >= 0).all()


@pytest.mark.parametrize("grain", [0.0, 0.8, 2.0])
def test_noise_has_the_strength_that_is_drawn(grain):
    plain = np.full((300, 300), 128, np.uint8)
    noise = changed(plain, noise=9.0, grain=grain).astype(float) - 128
    assert noise.std() == pytest.approx(9, rel=0.1)
    assert abs(noise.mean()) < 0.6
    neighbours = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    # The correlation of white noise that a Gaussian has smoothed.
    assert neighbours == pytest.approx(np.exp(-1 / (4 * grain**2)) if grain else 0, abs=0.07)


def test_bright_parts_have_more_noise():
    dark, bright = (
        changed(np.full((200, 200), level, np.uint8), noise=5.0).std() for level in (60, 190)
    )
    assert bright > 1.3 * dark


def test_blur_and_sharpening():
    steep = {
        name: np.abs(np.diff(changed(**fields)[:100, :75].astype(float))).mean()
        for name, fields in {"none": {}, "blur": {"blur": 1.2}, "edges": {"sharpening": 1}}.items()
    }
    assert steep["blur"] < 0.8 * steep["none"]
    assert steep["edges"] > 1.1 * steep["none"]


def test_local_contrast_of_a_plain_film_does_not_show():
    plain = np.where(textured() > 0, 90, 0).astype(np.uint8)
    shown = changed(plain, detail=1.5, broad=-0.5)
    assert np.abs(shown.astype(int) - plain).max() <= 1  # also where it borders on the padding


@pytest.mark.parametrize("broad", [-0.5, 0.4, 1.5])
def test_broad_contrast_is_scaled_and_details_stay(broad):
    rows, columns = np.indices((440, 200))
    waves, lines = 40 * np.cos(rows / 440 * 2 * np.pi), 12 * np.cos(columns / 2)
    picture = np.rint(128 + waves + lines).astype(np.uint8)
    shown = changed(picture, broad=broad, reach=2.0)[40:-40, 40:-40].astype(float)
    by_row = shown.mean(axis=1)
    assert np.polyfit(waves[40:-40, 0], by_row, 1)[0] == pytest.approx(broad, abs=0.12)
    by_column = shown.mean(axis=0)
    assert np.polyfit(lines[0, 40:-40], by_column, 1)[0] == pytest.approx(1, abs=0.12)


def test_shading_is_broad_and_within_its_limit():
    plain = np.full((440, 240), 128, np.uint8)
    for seed in range(10):
        shade = changed(plain, seed, shading=30.0).astype(float) - 128
        assert shade.std() > 1
        assert shade.min() >= -75  # gas may overlap
        assert shade.max() <= 31
        assert np.abs(np.diff(shade, axis=0)).max() < 8


def test_implants_are_bright_and_leave_most_of_the_film():
    picture = np.minimum(textured(), 180)
    shares = []
    for seed in range(40):
        shown = overlays.implants(picture, 1, np.random.default_rng(seed))
        assert (shown.astype(int) >= picture.astype(int) - 1).all()
        shares.append((shown > picture + 5).mean())
    assert 0.003 < np.mean(shares) < 0.1
    assert max(shares) < 0.25


def test_cutouts_are_plain_and_small():
    picture = np.random.default_rng(0).integers(0, 256, (480, 300), dtype=np.uint8)
    plain = 0
    for seed in range(40):
        shown = overlays.cutouts(picture, 1, np.random.default_rng(seed))
        covered = shown != picture
        assert covered.mean() < 0.02
        mask = np.pad(covered.astype(np.uint8), 4)
        inside = cv2.erode(mask, np.ones((9, 9)))[4:-4, 4:-4] > 0
        levels = shown[inside].astype(int)
        assert not inside.any() or np.ptp(levels) <= 1
        plain += inside.any()
    assert plain > 10
