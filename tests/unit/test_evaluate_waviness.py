"""Waviness: nothing on convex outlines, more with more and deeper waves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.evaluate.waviness import depth, outline, waviness
from lumbarflow.prepare.masks import rasterise


def body(size, turn=0.0, wave=0.0, count=11):
    """The mask of a body about `size` px wide, turned, with waves of a depth relative to it."""
    t = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radius = (np.abs(np.cos(t)) ** 6 + np.abs(np.sin(t)) ** 6) ** (-1 / 6)
    z = size / 2 * radius * (1 + wave * np.sin(count * t)) * (1.2 * np.cos(t) + 1j * np.sin(t))
    z = z * np.exp(1j * turn) + size * (1 + 1j)
    return rasterise(np.stack([z.real, z.imag], axis=1), 2 * size, 2 * size)


def of(mask):
    points = outline(mask)
    return waviness(points, depth(points))


@settings(max_examples=30, deadline=None)
@given(st.integers(15, 300), st.floats(0, np.pi))
def test_a_convex_body_has_none_however_it_is_turned(size, turn):
    assert of(body(size, turn)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("turn", [0, 0.1, 0.7])
def test_deeper_and_more_waves_count_more(turn):
    values = [of(body(250, turn, wave)) for wave in (0, 0.02, 0.05)]
    assert values[0] < values[1] - 0.3 < values[2] - 0.9
    assert of(body(250, turn, 0.02, 25)) > 2 * values[1]


def test_scale_hardly_matters():
    assert of(body(400, 0.2, 0.05)) == pytest.approx(of(body(150, 0.2, 0.05)), rel=0.1)


def test_waves_less_deep_than_asked_do_not_count():
    points = outline(body(250, 0.2, 0.02))
    assert waviness(points, 8.0) == pytest.approx(1, abs=0.05)
    assert waviness(points, 1.0) > 1.5


def test_only_the_largest_part_counts():
    mask = body(60)
    alone = of(mask)
    mask[:3, :3] = True
    assert of(mask) == alone


def test_what_has_no_shape_has_no_waviness():
    assert np.isnan(of(np.zeros((3, 3), bool)))
    assert np.isnan(of(np.eye(3, dtype=bool)[:1]))
