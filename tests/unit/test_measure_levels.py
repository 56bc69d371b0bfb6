"""Levels of the bodies on a film, from exact outlines and from what networks make of them."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.spine import RANK
from lumbarflow.measure import levels as module
from lumbarflow.measure.anatomy import Body, Endplate, Shape
from lumbarflow.measure.levels import FLAGS, LEVELS, VARIANTS, Prior, label
from lumbarflow.prepare.masks import rasterise_window
from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.film import choose_format, plan_film
from lumbarflow.synthetic.spine import make_spine

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[3] / "shared" / "data"))
NO_MASK = np.zeros((0, 0), bool)
unhurried = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def shape_of(corners, cut=False):
    plates = [
        Endplate(back, front, (back + front) / 2, 0.0, 1.0)
        for back, front in (corners[:2], corners[:1:-1])
    ]
    return Shape(corners, *plates, (), 1.0, cut)


def body_of(outline, class_name="lumbar_vertebra", score=1.0, level=None):
    return Body("", class_name, score, (0, 0), NO_MASK, outline, level)


@cache
def film(seed, variant="any"):
    """Bodies with their true levels, shapes of their true corners, where the patient faces, and
    pixels a mm, of a film that is not drawn."""
    rng = np.random.default_rng(seed)
    build = draw_build(rng)
    while variant != "any" and build.variant != variant:
        build = draw_build(rng)
    spine = make_spine(rng, build, bodies_only=True)
    plan = plan_film(rng, spine, (), *choose_format(rng))
    bodies, shapes = [], []
    for structure in plan.structures:
        if structure["class_name"] in ("lumbar_vertebra", "sacral_vertebra"):
            level = structure["level"]
            outline = np.array(structure["polygon"])
            bodies.append(body_of(outline, structure["class_name"], level=level))
            shapes.append(shape_of(plan.beam.project(spine.vertebra(level).corners) + 0.5))
    return bodies, shapes, plan.anterior, plan.magnification / plan.pixel_spacing_mm


def ordinary(seed):
    return film(seed, None)


def networked(seed, variant="any"):
    """A film as networks see it: noise, wrong classes, missed and extra bodies."""
    bodies, shapes, anterior, per_mm = film(seed, variant)
    rng = np.random.default_rng([seed, 1])
    seen, fitted = [], []
    for body, shape in zip(bodies, shapes, strict=True):
        if rng.random() < 0.012:
            continue
        if body.level in ("L5", "S1", "S2") and rng.random() < 0.03:
            other = {"lumbar_vertebra": "sacral_vertebra", "sacral_vertebra": "lumbar_vertebra"}
            body = replace(body, class_name=other[body.class_name])
        middle = body.outline.mean(axis=0)
        outline = (body.outline - middle) * np.exp(rng.normal(0, 0.015)) + middle
        outline = outline + rng.normal(0, 0.5 * per_mm, 2)
        seen.append(replace(body, outline=outline, score=float(rng.beta(12, 1))))
        corners = shape.corners + rng.normal(0, 0.5 * per_mm, (4, 2))
        fitted.append(None if rng.random() < 0.02 else shape_of(corners))
        if rng.random() < 0.005:
            speck = (outline - middle) * 0.4 + middle + rng.normal(0, 12 * per_mm, 2)
            seen.append(body_of(speck, body.class_name, 0.4))
            fitted.append(None)
    return seen, fitted, anterior


def truth(bodies):
    return tuple(body.level for body in bodies)


def without(bodies, shapes, *levels):
    kept = [k for k, body in enumerate(bodies) if body.level not in levels]
    return [bodies[k] for k in kept], [shapes[k] for k in kept]


def test_exact_outlines_get_their_levels():
    same, lower = [], []
    for seed in range(200000, 200012):
        bodies, shapes, anterior, _ = film(seed)
        labels = label(bodies, shapes, anterior)
        right = [a == b for a, b in zip(labels.levels, truth(bodies), strict=True)]
        same += right
        lower += right[truth(bodies).index("L1") :]
        assert labels.sacrum_seen and "sacrum_not_seen" not in labels.flags
    # One of these patients has a thirteenth thoracic vertebra, which cannot be known.
    assert np.mean(lower) >= 0.99 and np.mean(same) >= 0.96


def test_what_networks_see_gets_its_levels_as_often_as_the_probabilities_say():
    outcomes = []
    for seed in range(200000, 200012):
        bodies, shapes, anterior = networked(seed)
        labels = label(bodies, shapes, anterior)
        outcomes += [
            (chance, level == body.level)
            for body, level, chance in zip(bodies, labels.levels, labels.probabilities, strict=True)
            if body.level is not None
        ]
    chances, right = np.array(outcomes, float).T
    assert right.mean() >= 0.96
    assert abs(right.mean() - chances.mean()) <= 0.03
    assert chances[right == 0].mean() < chances[right == 1].mean()


@pytest.mark.parametrize("missing", ["T12", "L1", "L3", "L4", "L5", "S1", "S2"])
def test_a_missed_body_shifts_no_other(missing):
    for seed in (202000, 202001):
        bodies, shapes, anterior, _ = ordinary(seed)
        bodies, shapes = without(bodies, shapes, missing, *(["T11"] if missing == "T12" else []))
        labels = label(bodies, shapes, anterior)
        assert labels.levels == truth(bodies)
        assert ("gap_in_chain" in labels.flags) == (missing not in ("T12", "S2"))
        assert labels.sacrum_seen == (missing != "S1")


def test_class_is_no_more_than_evidence():
    for seed in (202000, 202001):
        bodies, shapes, anterior, _ = ordinary(seed)
        for level, wrong in (
            ("S1", "lumbar_vertebra"),
            ("L5", "sacral_vertebra"),
            ("L2", "sacral_vertebra"),
        ):
            called = [
                replace(body, class_name=wrong) if body.level == level else body for body in bodies
            ]
            assert label(called, shapes, anterior).levels == truth(bodies)


def test_an_extra_body_gets_no_level():
    for seed, at in ((202002, 2), (202003, 4)):
        bodies, shapes, anterior, per_mm = ordinary(seed)
        twin = body_of(bodies[at].outline + np.array([0, 6]) * per_mm, score=0.3)
        aside = body_of(bodies[at].outline + np.array([60, 10]) * per_mm, score=0.3)
        for extra in (twin, aside):
            labels = label([*bodies, extra], [*shapes, None], anterior)
            assert labels.levels == (*truth(bodies), None)
            assert "extra_body" in labels.flags


def union(one, other):
    points = np.vstack([one.outline, other.outline]).astype(np.float32)
    return cv2.convexHull(points)[:, 0].astype(float)


@pytest.mark.parametrize("upper", ["L1", "L3", "S1"])
def test_a_merged_body_shifts_no_other(upper):
    bodies, shapes, anterior, _ = ordinary(202004)
    at = truth(bodies).index(upper)
    one = replace(bodies[at], outline=union(bodies[at], bodies[at + 1]))
    corners = np.vstack([shapes[at].corners[:2], shapes[at + 1].corners[2:]])
    bodies = [*bodies[:at], one, *bodies[at + 2 :]]
    shapes = [*shapes[:at], shape_of(corners), *shapes[at + 2 :]]
    labels = label(bodies, shapes, anterior)
    # The upper endplate of S1 is what is measured: with S2 it is S1 still.
    expected = [level if level != upper or upper == "S1" else None for level in truth(bodies)]
    assert list(labels.levels) == expected
    assert ("merged_bodies" in labels.flags) == (upper != "S1")


def test_without_the_sacrum_levels_are_guesses_and_told_as_such():
    surer, right = [], []
    for seed in range(202000, 202006):
        bodies, shapes, anterior, _ = ordinary(seed)
        seen = label(bodies, shapes, anterior)
        some, of_some = without(bodies, shapes, "S1", "S2")
        labels = label(some, of_some, anterior)
        assert not labels.sacrum_seen and labels.flags[0] == "sacrum_not_seen"
        surer.append(np.mean(seen.probabilities[: len(some)]) - np.mean(labels.probabilities))
        right.append(labels.levels == truth(some))
    assert np.mean(surer) > 0 and np.mean(right) >= 0.75
    # Two bodies in the middle of nowhere could be anything.
    bodies, shapes, anterior, _ = ordinary(202000)
    some, of_some = without(bodies, shapes, "T11", "T12", "L1", "L4", "L5", "S1", "S2")
    assert max(label(some, of_some, anterior).probabilities) < 0.8


def test_a_sixth_lumbar_vertebra_is_told_or_flagged():
    told, flagged, films = 0, 0, range(202070, 202078)
    for seed in films:
        bodies, shapes, anterior = networked(seed, "L6")
        labels = label(bodies, shapes, anterior)
        wrong = sum(
            level != body.level
            for level, body in zip(labels.levels, bodies, strict=True)
            if body.level
        )
        told += wrong <= 1
        flagged += "possible_l6" in labels.flags
    assert told >= 0.75 * len(films) and flagged >= 0.75 * len(films)


def test_variants_are_seldom_suspected_without_reason():
    flags = Counter()
    for seed in range(202000, 202006):
        bodies, shapes, anterior, _ = ordinary(seed)
        flags.update(label(bodies, shapes, anterior).flags)
    assert flags["possible_l6"] + flags["possible_t13"] <= 1
    assert flags["possible_transitional"] <= 3


def test_a_thirteenth_thoracic_vertebra_shifts_nothing_below_it():
    for seed in (202120, 202121):
        bodies, shapes, anterior, _ = film(seed, "T13")
        labels = label(bodies, shapes, anterior)
        at = truth(bodies).index("L1")
        assert labels.levels[at:] == truth(bodies)[at:]
        assert labels.variants["T13"] > Prior().variants["T13"] / 3


def test_a_sacralised_l5_is_l5_and_flagged():
    flagged = 0
    for seed in range(202130, 202133):
        bodies, shapes, anterior, _ = film(seed, "sacralised L5")
        labels = label(bodies, shapes, anterior)
        assert labels.levels == truth(bodies)
        flagged += "possible_transitional" in labels.flags
    assert flagged >= 2


@unhurried
@given(st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_bodies_changes_nothing(seed, random):
    bodies, shapes, anterior = networked(200000 + seed)
    order = list(range(len(bodies)))
    random.shuffle(order)
    labels = label(bodies, shapes, anterior)
    shuffled = label([bodies[k] for k in order], [shapes[k] for k in order], anterior)
    assert shuffled.levels == tuple(labels.levels[k] for k in order)
    assert np.allclose(shuffled.probabilities, [labels.probabilities[k] for k in order])
    assert shuffled.flags == labels.flags


@unhurried
@given(
    st.integers(0, 5),
    st.floats(0.2, 3.0),
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    st.booleans(),
)
def test_size_place_and_side_of_the_film_change_nothing(seed, size, move, mirror):
    bodies, shapes, anterior = networked(200000 + seed)
    factor = size * np.array([-1.0 if mirror else 1.0, 1.0])
    other = {"left": "right", "right": "left"}[anterior] if mirror else anterior
    labels = label(bodies, shapes, anterior)
    moved = label(
        [replace(body, outline=body.outline * factor + move) for body in bodies],
        [shape and shape_of(shape.corners * factor + move) for shape in shapes],
        other,
    )
    assert moved.levels == labels.levels
    assert np.allclose(moved.probabilities, labels.probabilities, atol=1e-3)


@unhurried
@given(st.integers(0, 5), st.sets(st.integers(0, 8)), st.booleans())
def test_levels_rise_and_probabilities_are_such(seed, dropped, shapeless):
    bodies, shapes, anterior = networked(200000 + seed)
    bodies = [body for k, body in enumerate(bodies) if k not in dropped]
    shapes = [shape for k, shape in enumerate(shapes) if k not in dropped]
    labels = label(bodies, [None] * len(bodies) if shapeless else shapes, anterior)
    named = [level for level in labels.levels if level is not None]
    assert len(set(named)) == len(named) and set(named) <= set(LEVELS)
    heights = [body.outline[:, 1].mean() for body in bodies]
    chain = [
        RANK[level]
        for level, _ in sorted(zip(labels.levels, heights, strict=True), key=lambda pair: pair[1])
        if level is not None and not level.startswith("S")
    ]
    assert chain == sorted(chain)
    assert all(0 <= chance <= 1 for chance in labels.probabilities)
    for level, chance, chances in zip(
        labels.levels, labels.probabilities, labels.alternatives, strict=True
    ):
        assert sum(chances.values()) <= 1 + 1e-9
        assert level is None or chances[level] == chance
    assert set(labels.flags) <= set(FLAGS)
    assert set(labels.variants) == set(VARIANTS)
    assert sum(labels.variants.values()) == pytest.approx(1)


def test_bodies_without_shapes_have_levels_too():
    right = total = 0
    for seed in range(202000, 202006):
        bodies, shapes, anterior, _ = ordinary(seed)
        labels = label(bodies, [None] * len(shapes), anterior)
        right += sum(a == b for a, b in zip(labels.levels, truth(bodies), strict=True))
        total += len(bodies)
    assert right >= 0.95 * total


def test_a_wrong_side_does_not_shift_the_chain():
    for seed in (202000, 202001):
        bodies, shapes, anterior, _ = ordinary(seed)
        swapped = [shape_of(shape.corners[[1, 0, 3, 2]]) for shape in shapes]
        other = {"left": "right", "right": "left"}[anterior]
        assert label(bodies, swapped, other).levels == truth(bodies)


def test_masks_and_outlines_agree():
    bodies, shapes, anterior, _ = ordinary(202005)
    masked = []
    for body in bodies:
        top, left, mask = rasterise_window(body.outline, 4000, 4000)
        masked.append(replace(body, outline=None, origin=(left, top), mask=mask))
    drawn, seen = label(bodies, shapes, anterior), label(masked, shapes, anterior)
    assert seen.levels == drawn.levels
    assert np.allclose(seen.probabilities, drawn.probabilities, atol=0.01)


def test_a_cut_body_counts_by_its_depth():
    bodies, shapes, anterior, _ = ordinary(202005)
    low = bodies[0].outline[:, 1].mean()
    half = bodies[0].outline.copy()
    half[:, 1] = np.maximum(half[:, 1], low)
    labels = label(
        [replace(bodies[0], outline=half), *bodies[1:]],
        [shape_of(shapes[0].corners, cut=True), *shapes[1:]],
        anterior,
    )
    assert labels.levels == truth(bodies)


def test_films_with_next_to_nothing():
    labels = label([], [], "left")
    assert labels.levels == () and labels.flags == ("sacrum_not_seen",)
    empty = Body("", "lumbar_vertebra", 0.9, (3, 4), np.zeros((5, 5), bool))
    labels = label([empty], [None], "right")
    assert labels.levels == (None,) and "extra_body" in labels.flags
    bodies, shapes, anterior, _ = ordinary(202005)
    one = label(bodies[3:4], shapes[3:4], anterior)
    assert one.probabilities[0] < 0.8 and not one.sacrum_seen


def test_the_prior_decides_where_the_film_cannot():
    bodies, shapes, anterior, _ = ordinary(202005)
    some, of_some = without(bodies, shapes, "T11", "T12", "L4", "L5", "S1", "S2")
    high = label(some, of_some, anterior, Prior(top={"L1": 1.0}))
    low = label(some, of_some, anterior, Prior(top={"L3": 1.0}))
    assert high.alternatives[0].get("L1", 0) > low.alternatives[0].get("L1", 0)
    none = label(bodies, shapes, anterior, Prior(variants={"": 1.0}))
    assert none.variants[""] == pytest.approx(1)


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_chain_told_has_the_largest_sum(count, seed):
    chances = np.random.default_rng(seed).dirichlet(np.full(15, 0.15), count)
    told = module._most_expected(chances)
    worth = np.where(chances >= module._LEAST, chances, 0)
    best = max(
        sum(worth[k, level] for k, level in zip(chosen, levels, strict=True))
        for size in range(count + 1)
        for chosen in itertools.combinations(range(count), size)
        for levels in itertools.combinations(range(15), size)
    )
    unnamed = {level for level in range(15) if module._CHAIN[level] not in LEVELS}
    found = sum(chances[k, level] for k, level in enumerate(told) if level is not None)
    assert found <= best + 1e-9
    if not worth[:, list(unnamed)].any():
        assert found == pytest.approx(best)
    named = [level for level in told if level is not None]
    assert named == sorted(set(named)) and not unnamed & set(named)


def test_probabilities_are_those_of_all_chains_together():
    """Forward and backward sums against the sum over every chain, written out."""
    bodies, shapes, anterior, _ = ordinary(202005)
    looks = module._looks(
        bodies[-3:],
        [module._see(body) for body in bodies[-3:]],
        shapes[-3:],
        1.0 if anterior == "right" else -1.0,
    )
    prior = Prior(variants={"L6": 1.0})
    posterior, _ = module._posterior(looks, prior)
    model, states = module._model(), module._states()
    extra = module._extra(looks, prior)
    share = np.exp(-0.5 * ((module._SHARES - module._typical_share()) / 0.3) ** 2)
    share = share / share.sum() / len(module._SCALES)
    at = VARIANTS.index("L6")
    total, found = extra**3, np.zeros_like(posterior)
    top, bottom = (
        np.array([table.get(module._CHAIN[state[side]], module._RARE) for state in states])
        for side, table in enumerate((prior.top, prior.bottom))
    )
    emission = [module._emission(looks, k, prior)[:, at] for k in range(3)]
    steps = {}
    for j, i in itertools.combinations(range(3), 2):
        steps[j, i] = np.zeros((len(states), len(states), len(module._SCALES), len(share)))
        steps[j, i][model.source, model.target] = module._step(looks, j, i, prior)[:, at]
    for size in (1, 2, 3):
        for chosen in itertools.combinations(range(3), size):
            path = top[:, None, None] * emission[chosen[0]]
            names = "abc"[:size]
            terms, operands = ["ayz"], [path]
            for before, after in itertools.pairwise(range(size)):
                terms += [names[before] + names[after] + "yz", names[after] + "yz"]
                operands += [steps[chosen[before], chosen[after]], emission[chosen[after]]]
            terms += [names[-1], "z"]
            operands += [bottom, share]
            for place, k in enumerate(chosen):
                rule = ",".join(terms) + "->" + names[place]
                weight = np.einsum(rule, *operands, optimize=True) * extra ** (3 - size)
                found[k] += weight
            total += weight.sum()
    assert np.allclose(posterior, found / total, atol=1e-9)


def test_real_films_get_their_levels():
    project = DATA / "lumbar_films" / "via_project.json"
    if not project.is_file():
        pytest.skip(f"the real films are not at {project.parent}: set LUMBARFLOW_DATA")
    right = total = 0
    for image in json.loads(project.read_text())["_via_img_metadata"].values():
        bodies, shapes = [], []
        for region in image["regions"]:
            drawn = region["shape_attributes"]
            points = np.column_stack([drawn["all_points_x"], drawn["all_points_y"]]).astype(float)
            class_name = "lumbar_vertebra"
            if drawn["name"] == "polyline":
                # Of S1 only its endplate is drawn: a body of the usual size hangs on it.
                back, front = points
                plate = front - back
                down = np.array([-plate[1], plate[0]]) * 0.95
                down *= np.sign(down @ (points.mean(axis=0) - bodies[-1].outline.mean(axis=0)))
                middle = points.mean(axis=0) + down
                points = np.array([back, front, middle + plate * 0.36, middle - plate * 0.36])
                class_name = "sacral_vertebra"
            level = region["region_attributes"]["level"]
            bodies.append(body_of(points, class_name, level=level))
            shapes.append(shape_of(points))
        across = np.mean(
            [shape.superior.anterior - shape.superior.posterior for shape in shapes], 0
        )
        labels = label(bodies, shapes, "right" if across[0] > 0 else "left")
        right += sum(a == b for a, b in zip(labels.levels, truth(bodies), strict=True))
        total += len(bodies)
    assert total >= 150 and right >= 0.97 * total
