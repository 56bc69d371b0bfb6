"""Outlines of masks: where the edge is, how many points, and back again."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.outlines import outlines, simplify
from lumbarflow.prepare.masks import rasterise

ROWS, COLUMNS = 90, 80


def along(polygon: list, steps: int = 40) -> np.ndarray:
    """Points along a closed polygon, corners included."""
    start = np.array(polygon, dtype=float)
    way = np.roll(start, -1, axis=0) - start
    return (start[:, None] + way[:, None] * (np.arange(steps) / steps)[:, None]).reshape(-1, 2)


def distances(points: np.ndarray, polygon: list) -> np.ndarray:
    """Distance in pixels of each point (N x 2) to the border of a polygon."""
    start = np.array(polygon, dtype=float)
    way = np.roll(start, -1, axis=0) - start
    offset = points[:, None] - start
    share = ((offset * way).sum(-1) / np.maximum((way**2).sum(-1), 1e-12)).clip(0, 1)
    return np.linalg.norm(offset - share[..., None] * way, axis=-1).min(axis=1)


@st.composite
def bodies(draw) -> list:
    """A quadrilateral as a vertebral body is: corners near right angles, turned at will."""
    width, height = draw(st.floats(10, 50)), draw(st.floats(10, 40))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    shift = [draw(st.floats(-0.06, 0.06)) for _ in range(8)]
    corners += np.reshape(shift, (4, 2)) * min(width, height)
    angle = draw(st.floats(0, np.pi))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = draw(st.floats(36, 44)), draw(st.floats(36, 54))
    return (corners @ turn.T + centre).tolist()


@settings(deadline=None, max_examples=80)
@given(bodies())
def test_rasterised_and_traced_back_within_one_pixel(body):
    # The largest: smoothing may part the last pixels of a row from the rest.
    outline = outlines(rasterise(body, ROWS, COLUMNS))[0]
    assert distances(along(outline), body).max() <= 1
    sides = along(body)
    from_corner = np.linalg.norm(sides[:, None] - np.array(body), axis=-1).min(axis=1)
    assert distances(sides[from_corner >= 1], outline).max() <= 1
    # The mask has lost up to a pixel of a corner itself.
    assert distances(np.array(body), outline).max() <= 1.25


@settings(deadline=None, max_examples=40)
@given(bodies(), st.integers(0, 30), st.integers(0, 30))
def test_moving_the_mask_moves_the_outline(body, right, down):
    mask = rasterise(body, ROWS, COLUMNS)
    larger = np.zeros((ROWS + 80, COLUMNS + 80), dtype=bool)
    larger[40 + down : 40 + down + ROWS, 40 + right : 40 + right + COLUMNS] = mask
    assume(not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()))
    moved = np.add(outlines(mask)[0], (40 + right, 40 + down))
    np.testing.assert_allclose(np.array(outlines(larger)[0]), moved, atol=0.011)


def test_edges_of_a_smooth_field_are_found_between_pixels():
    columns = np.arange(60) + 0.5
    for edge in (30.1, 30.5, 30.9):
        ramp = np.clip((columns - edge) / 8 + 0.5, 0, 1)  # crosses one half at `edge`
        field = np.tile(ramp, (40, 1))
        (outline,) = outlines(field, smoothing=0, tolerance=0.01)
        assert min(x for x, _ in outline) == np.float64(edge).round(2)


def test_a_straight_slope_needs_few_points():
    body = [[20.2, 11.7], [60.4, 18.1], [55.9, 60.3], [15.6, 54.2]]
    (outline,) = outlines(rasterise(body, ROWS, COLUMNS), tolerance=1.0)
    assert len(outline) <= 8


def test_most_points_is_kept_to():
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    star = np.stack(
        [
            40 + np.cos(angles) * (25 + 6 * np.cos(9 * angles)),
            45 + np.sin(angles) * (25 + 6 * np.cos(9 * angles)),
        ],
        axis=1,
    )
    mask = rasterise(star, ROWS, COLUMNS)
    assert len(outlines(mask)[0]) > 20
    (outline,) = outlines(mask, most_points=20)
    assert 3 <= len(outline) <= 20


def test_parts_come_by_size_and_holes_are_filled():
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:10, 5:10] = True
    mask[15:35, 20:50] = True
    mask[22:28, 30:40] = False
    large, small = outlines(mask)
    filled = mask.copy()
    filled[22:28, 30:40] = True
    filled[5:10, 5:10] = False
    assert (rasterise(large, 40, 60) != filled).sum() <= 4  # the corners
    assert distances(np.array(small), [[5, 5], [10, 5], [10, 10], [5, 10]]).max() < 0.5


def test_what_the_film_cuts_off_ends_at_its_edge():
    mask = np.zeros((30, 30), dtype=bool)
    mask[:12, 8:] = True
    (outline,) = outlines(mask)
    points = np.array(outline)
    assert points[:, 1].min() == 0
    assert points[:, 0].max() == 30


def test_thin_and_small_masks_keep_an_outline():
    mask = np.zeros((30, 30), dtype=bool)
    mask[10, 10] = True
    assert len(outlines(mask)) == 1
    mask[10, 5:25] = True
    (outline,) = outlines(mask)
    assert np.ptp(np.array(outline)[:, 0]) > 18


def test_an_empty_mask_has_no_outline():
    assert outlines(np.zeros((5, 5), dtype=bool)) == []


def test_outlines_run_clockwise_on_screen():
    mask = np.zeros((20, 20), dtype=bool)
    mask[4:12, 3:15] = True
    x, y = np.array(outlines(mask)[0]).T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0


def test_simplified_points_are_points_of_the_polygon_within_the_tolerance():
    angles = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    circle = np.stack([50 + 30 * np.cos(angles), 50 + 30 * np.sin(angles)], axis=1)
    kept = simplify(circle, 0.5)
    assert len(kept) < 40
    assert distances(circle, kept.tolist()).max() <= 0.5 + 1e-4
    assert np.abs(kept[:, None] - circle[None]).max(-1).min(1).max() < 1e-4
