"""Synthetic films: where structures lie, what is bright, and the same film from the same seed."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.film import choose_format, plan_film, render_film, sample, simulate_film
from lumbarflow.synthetic.radiography import (
    ENERGIES_KEV,
    draw_exposure,
    expose,
    linear_attenuation,
    spectrum,
)
from lumbarflow.synthetic.spine import make_spine
from lumbarflow.synthetic.surgery import make_surgery

SCALE = 0.2
IMPLANTS = {"cage", "screw", "instrumentation"}


def plan_of(seed, operated=True, scale=SCALE, **choices):
    rng = np.random.default_rng(seed)
    spine = make_spine(rng, draw_build(rng), bodies_only=True)
    implants = make_surgery(rng, spine) if operated else ()
    return plan_film(rng, spine, implants, *choose_format(rng, scale), **choices)


def film_of(seed, operated=True, **choices):
    rng = np.random.default_rng(seed)
    return simulate_film(rng, *choose_format(rng, SCALE), operated, **choices)


def area(polygon):
    x, y = np.asarray(polygon).T
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def raster(polygon, shape):
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(polygon) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask > 0


@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([SCALE, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_every_structure_lies_inside_the_collimated_field(seed, operated, scale):
    plan = plan_of(seed, operated, scale)
    x0, y0, x1, y1 = plan.field
    assert 0 <= x0 < x1 <= plan.shape[1] and 0 <= y0 < y1 <= plan.shape[0]
    for structure in plan.structures:
        polygon = np.array(structure["polygon"])
        assert (polygon >= (x0, y0)).all() and (polygon < (x1, y1)).all()
        assert area(polygon) > 0
    levels = [s["level"] for s in plan.structures if s["class_name"] == "lumbar_vertebra"]
    names = [v.level for v in plan.spine.vertebrae]
    assert levels in (names[names.index("T11") :], names[names.index("T12") :])
    sacral = [s["level"] for s in plan.structures if s["class_name"] == "sacral_vertebra"]
    assert sacral == ["S1", "S2"]
    fitted = {s["class_name"] for s in plan.structures} & IMPLANTS
    assert bool(fitted) == any(i.class_name for i in plan.implants)


@given(st.integers(0, 2**32), st.sampled_from(["left", "right"]))
@settings(max_examples=20, deadline=None)
def test_bodies_face_where_the_film_says(seed, anterior):
    plan = plan_of(seed, operated=False)
    for vertebra in plan.spine.vertebrae[-5:]:
        behind, before = plan.beam.project(vertebra.corners[:2])
        assert (before[0] > behind[0]) == (plan.anterior == "right")
    assert plan.magnification == pytest.approx(
        plan.beam.magnification(np.array([0.0, 0.0, 0.0])), rel=0.02
    )


@pytest.mark.parametrize("seed", range(3))
def test_bodies_are_brighter_than_discs_and_implants_than_bodies(seed):
    film = film_of(seed)
    pixels, plan = film.pixels, film.plan
    assert pixels.dtype == np.float32 and pixels.shape == plan.shape
    assert pixels.min() >= 0 and pixels.max() <= 1
    metal = np.zeros(plan.shape, bool)
    bodies = {}
    for structure in film.structures:
        mask = raster(structure["polygon"], plan.shape)
        if structure["class_name"] in IMPLANTS:
            metal |= mask
        elif structure["class_name"] == "lumbar_vertebra":
            bodies[structure["level"]] = mask
    metal = cv2.dilate(metal.astype(np.uint8), np.ones((5, 5))) > 0
    everything = np.logical_or.reduce(list(bodies.values()))
    brighter = []
    for disc in plan.spine.discs:
        above, below = disc.level.split("/")
        if above not in bodies or below not in bodies:
            continue
        # A little of the disc's middle: rims and spurs reach into its border.
        corners = [(-0.2, -0.15), (0.2, -0.15), (0.2, 0.15), (-0.2, 0.15)]
        points = disc.frame.place([(a * disc.depth, b * disc.height, 0) for a, b in corners])
        gap = raster(plan.beam.project(points), plan.shape) & ~everything & ~metal
        bone = (bodies[above] | bodies[below]) & ~metal
        if gap.sum() > 8:
            brighter.append(pixels[bone].mean() > pixels[gap].mean())
    assert len(brighter) >= 2 and np.mean(brighter) > 0.7
    screws = [s for s in film.structures if s["class_name"] == "screw"]
    for screw in screws:
        inside = raster(screw["polygon"], plan.shape)
        around = cv2.dilate(inside.astype(np.uint8), np.ones((15, 15))) > 0
        assert pixels[inside].mean() > pixels[around & ~metal].mean()


def test_film_repeats_with_its_seed_and_differs_with_another():
    one, same, other = film_of(5), film_of(5), film_of(6)
    assert np.array_equal(one.pixels, same.pixels) and one.structures == same.structures
    assert one.pixels.shape != other.pixels.shape or not np.array_equal(one.pixels, other.pixels)
    grey, structures, known = sample(1, 2, 0.15, operated=1.0)
    again = sample(1, 2, 0.15, operated=1.0)
    assert np.array_equal(grey, again[0]) and structures == again[1] and known == again[2]
    assert grey.dtype == np.uint8 and known["implants"]


def test_nothing_is_seen_outside_the_collimated_field():
    film = film_of(3, operated=False)
    x0, y0, x1, y1 = film.plan.field
    outside = np.ones(film.pixels.shape, bool)
    outside[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = False
    assert outside.any() and not film.pixels[outside].any()
    assert film.pixels[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5].any()


def test_a_marker_of_lead_is_bright_where_it_lies():
    rng = np.random.default_rng(8)
    spine = make_spine(rng, draw_build(rng))
    plan = plan_film(rng, spine, (), *choose_format(rng, SCALE), collimated=False)
    letter = np.ones((12, 7), np.float32)
    y, x = plan.shape[0] // 2, plan.shape[1] // 2
    with_marker = render_film(plan, np.random.default_rng(1), (x, y, letter))
    without = render_film(plan, np.random.default_rng(1))
    there = np.s_[y + 2 : y + 10, x + 2 : x + 5]
    assert with_marker.pixels[there].mean() > without.pixels[there].mean() + 0.1


def test_a_frontal_film_has_no_structures_and_shows_both_sides():
    film = film_of(4, view="AP")
    assert not film.structures and not film.plan.measurements
    # The spine stands in the middle of the trunk: both halves are about equally bright.
    x0, y0, x1, y1 = film.plan.field
    middle = film.plan.beam.project(film.plan.spine.vertebra("L3").frame.origin)
    assert x0 < middle[0] < x1 and y0 < middle[1] < y1


def test_full_size_format_is_that_of_radiographs():
    for seed in range(20):
        (rows, columns), spacing = choose_format(np.random.default_rng(seed))
        assert 2000 <= rows <= 2900 and 1000 <= columns <= 1600 and 0.139 <= spacing <= 0.2


def test_dense_matter_attenuates_more_and_soft_rays_more():
    # Above its K edge at 67 keV tantalum, above 88 keV lead absorbs more again.
    for material in ("tissue", "bone", "titanium", "steel", "peek", "cement"):
        assert (np.diff(linear_attenuation(material)) < 0).all()
    order = ["tissue", "bone", "titanium", "steel", "lead"]
    at_60 = [linear_attenuation(m)[list(ENERGIES_KEV).index(60)] for m in order]
    assert at_60 == sorted(at_60)
    hard, soft = spectrum(95), spectrum(75)
    assert hard.sum() == pytest.approx(1) and soft.sum() == pytest.approx(1)
    assert hard @ ENERGIES_KEV > soft @ ENERGIES_KEV


@given(st.integers(0, 2**32), st.floats(20, 60))
@settings(max_examples=20, deadline=None)
def test_more_matter_gives_more_signal(seed, added):
    rng = np.random.default_rng(seed)
    exposure = draw_exposure(rng)
    shape = (64, 64)
    thick = np.full(shape, 200.0, np.float32)
    thick[:, 32:] += np.float32(added)
    lengths = {"tissue": thick, "bone": np.zeros(shape, np.float32)}
    signal = expose(lengths, {}, exposure, shape, 0.8, np.ones(shape, np.float32), rng)
    assert signal[:, 44:].mean() > signal[:, :20].mean()
