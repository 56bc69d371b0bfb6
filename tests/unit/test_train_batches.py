"""Which films make up an epoch."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.train.batches import Items, Passes, dice
from lumbarflow.train.films import TrainingFilms

numbers = st.integers(1, 12)
seeds = st.integers(0, 1000)
unhurried = settings(max_examples=60, deadline=None)


def epoch(passes, number):
    passes.set_epoch(number)
    return list(passes)


@unhurried
@given(films=numbers, length=numbers, seed=seeds)
def test_every_film_comes_once_a_pass(films, length, seed):
    passes = Passes(films, length, seed)
    assert len(passes) == length
    drawn = list(itertools.chain.from_iterable(epoch(passes, number) for number in range(films)))
    assert len(drawn) == films * length
    for start in range(0, len(drawn), films):
        assert sorted(draw.film for draw in drawn[start : start + films]) == list(range(films))
    assert set(Counter(draw.seed for draw in drawn).values()) == {1}


@unhurried
@given(films=numbers, length=numbers, seed=seeds, number=st.integers(0, 20))
def test_an_epoch_depends_on_seed_and_number_alone(films, length, seed, number):
    straight, resumed = Passes(films, length, seed), Passes(films, length, seed)
    for earlier in range(number):
        epoch(straight, earlier)
    assert epoch(straight, number) == epoch(resumed, number) == epoch(resumed, number)


def test_other_seeds_and_passes_have_other_orders():
    orders = {
        tuple(draw.film for draw in epoch(Passes(12, 12, seed), number))
        for seed in range(3)
        for number in range(3)
    }
    assert len(orders) == 9


def test_items_make_what_is_drawn():
    films = TrainingFilms(["a", "b"], [], [], [])
    items = Items(films, lambda films, index, rng: (films.image_ids[index], rng and rng.random()))
    assert len(items) == 2
    assert items[1] == ("b", None)
    first, second = epoch(Passes(2, 2, 5), 0)
    name, number = items[first]
    assert name == films.image_ids[first.film]
    assert number == np.random.default_rng(first.seed).random()
    assert number != items[second][1]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [([0, 0], [0, 0], 1), ([1, 0], [0, 0], 0), ([1, 1], [1, 0], 2 / 3), ([1, 1], [1, 1], 1)],
)
def test_dice(a, b, expected):
    assert dice(np.array(a, bool), np.array(b, bool)) == pytest.approx(expected)
