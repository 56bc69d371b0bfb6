"""The learning rate over a training."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbarflow.train.schedule import learning_rate_factor


@given(st.integers(1, 400))
def test_the_rate_rises_then_falls_within_its_bounds(steps):
    factors = [learning_rate_factor(step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1
    top = factors.index(1)
    assert top <= max(1, round(0.08 * steps))
    assert all(a < b for a, b in itertools.pairwise(factors[: top + 1]))
    assert all(a >= b for a, b in itertools.pairwise(factors[top:]))
    assert min(factors[top:]) >= 0.01


def test_the_rate_ends_at_a_hundredth():
    assert learning_rate_factor(999, 1000) == pytest.approx(0.01, abs=1e-4)
    assert learning_rate_factor(1000, 1000) == pytest.approx(0.01)
    assert learning_rate_factor(5000, 1000) == pytest.approx(0.01)


def test_the_rate_by_hand():
    assert [learning_rate_factor(step, 100) for step in (0, 3, 7, 8)] == [1 / 8, 1 / 2, 1, 1]
    assert learning_rate_factor(54, 100) == pytest.approx(0.505)  # half way down
