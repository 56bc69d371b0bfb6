"""Side markers and burned-in text: where they lie and what they may not touch."""

import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.synthetic.marks import _can_be_drawn, burn_text, side_marker
from lumbarflow.synthetic.people import REGIONS, make_patient, make_study


@given(
    st.integers(0, 2**32),
    st.sampled_from([(250, 120, 1.6), (900, 480, 0.45), (2500, 1200, 0.16)]),
    st.tuples(*[st.floats(0, 0.15)] * 4),
    st.sampled_from(["left", "right"]),
)
@settings(max_examples=80, deadline=None)
def test_markers_lie_in_the_field_beside_its_middle(seed, size, blades, anterior):
    rows, columns, spacing = size
    field = (
        int(blades[0] * columns),
        int(blades[1] * rows),
        int((1 - blades[2]) * columns),
        int((1 - blades[3]) * rows),
    )
    rng = np.random.default_rng(seed)
    x, y, patch = side_marker(rng, (rows, columns), spacing, field, anterior)
    assert patch.dtype == np.float32 and patch.min() >= 0 and patch.max() <= 1
    assert patch.max() > 0.5  # solid lead somewhere
    assert field[0] <= x and x + patch.shape[1] <= field[2]
    assert field[1] <= y and y + patch.shape[0] <= field[3]
    middle = (field[0] + field[2]) / 2
    free = 0.1 * (field[2] - field[0])
    assert x > middle + free or x + patch.shape[1] < middle - free


def test_markers_are_as_large_as_lead_letters():
    heights = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, _, patch = side_marker(rng, (2500, 1200), 0.16, (0, 0, 1200, 2500), "left")
        heights.append(max(patch.shape) * 0.16)
    assert min(heights) > 8 and max(heights) < 45


def test_markers_vary_and_repeat_with_their_seed():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return side_marker(rng, (900, 480), 0.45, (0, 0, 480, 900), "right")

    assert np.array_equal(draw(1)[2], draw(1)[2])
    assert len({(x, y) for x, y, _ in map(draw, range(12))}) == 12


@given(
    st.integers(0, 2**32),
    st.sampled_from(list(REGIONS)),
    st.sampled_from([(250, 120), (640, 800), (900, 480)]),
)
@settings(max_examples=60, deadline=None)
def test_text_keeps_to_the_corners(seed, region, shape):
    rng = np.random.default_rng(seed)
    patient = make_patient(rng, region)
    study = make_study(rng, patient, datetime.date(2019, 3, 14), True)
    film = rng.uniform(0.3, 0.7, shape).astype(np.float32)
    before = film.copy()
    written = burn_text(film, patient, study, rng)
    assert np.array_equal(film, before)
    assert written.dtype == np.float32 and written.shape == shape
    assert written.min() >= 0 and written.max() <= 1
    changed = written != film
    assert changed.any()
    rows, columns = shape
    assert not changed[:, round(0.45 * columns) : round(0.55 * columns)].any()
    assert not changed[round(0.3 * rows) : round(0.7 * rows)].any()


@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_text_can_be_read_on_black_and_on_white(ground):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patient = make_patient(rng)
        study = make_study(rng, patient, datetime.date(2019, 3, 14), True)
        film = np.full((900, 480), ground, np.float32)
        assert np.abs(burn_text(film, patient, study, rng) - film).max() > 0.3


def test_letters_without_a_font_are_not_written():
    assert _can_be_drawn("Müllerschön Ćwierkała Дмитрий Διονυσ")
    assert not _can_be_drawn("霧ヶ丘中央病院") and not _can_be_drawn("안개")
