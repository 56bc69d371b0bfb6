"""Where patients face: told from bodies and hardware, the other way on a mirrored film."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.measure.anatomy import Body, Implant
from lumbarflow.measure.orientation import cues, facing
from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.film import choose_format, plan_film
from lumbarflow.synthetic.spine import make_spine
from lumbarflow.synthetic.surgery import make_surgery

unhurried = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2] / "../shared/data"))
FILMS = DATA / "lumbar_films"


def drawn(outline, class_name="lumbar_vertebra"):
    return Body("b", class_name, 1.0, (0, 0), np.zeros((1, 1), bool), np.asarray(outline, float))


def film(seed):
    """Bodies and implants of a patient, operated for even seeds, and where the patient faces."""
    rng = np.random.default_rng(seed)
    spine = make_spine(rng, draw_build(rng), bodies_only=True)
    surgery = make_surgery(rng, spine) if seed % 2 == 0 else ()
    plan = plan_film(rng, spine, surgery, *choose_format(rng))
    bodies, implants = [], []
    for structure in plan.structures:
        name, outline = structure["class_name"], np.array(structure["polygon"])
        if name in ("lumbar_vertebra", "sacral_vertebra"):
            bodies.append(drawn(outline, name))
        elif name:
            implants.append(Implant("i", name, 1.0, outline))
    return bodies, implants, plan.anterior


PATIENTS = {seed: film(seed) for seed in range(200100, 200108)}


def moved(bodies, implants, matrix, shift=(0.0, 0.0)):
    return (
        [drawn(body.outline @ matrix.T + shift, body.class_name) for body in bodies],
        [Implant("i", i.class_name, 1.0, i.outline @ matrix.T + shift) for i in implants],
    )


@pytest.mark.parametrize("seed", PATIENTS)
def test_patients_face_where_they_face(seed):
    bodies, implants, anterior = PATIENTS[seed]
    side, probability = facing(bodies, implants)
    assert side == anterior
    assert probability > 0.9


@unhurried
@given(st.sampled_from(sorted(PATIENTS)), st.data())
def test_a_mirrored_film_faces_the_other_way(seed, data):
    bodies, implants, _ = PATIENTS[seed]
    first = data.draw(st.integers(0, len(bodies) - 2))
    bodies = bodies[first : data.draw(st.integers(first + 2, len(bodies)))]
    there = moved(bodies, implants, np.diag([-1.0, 1.0]), (1500.0, 0.0))
    assert cues(*there) == pytest.approx(-cues(bodies, implants), abs=0.02)
    (side, probability), (other, its) = facing(bodies, implants), facing(*there)
    assert its == pytest.approx(probability, abs=0.05)
    if probability > 0.55:
        assert {side, other} == {"left", "right"}


@unhurried
@given(
    st.sampled_from(sorted(PATIENTS)),
    st.floats(-15, 15),
    st.floats(0.3, 1.2),
    st.randoms(use_true_random=False),
)
def test_neither_rotation_nor_scale_nor_order_matter(seed, degrees, scale, shuffler):
    bodies, implants, anterior = PATIENTS[seed]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    bodies, implants = moved(bodies, implants, scale * np.array([[c, -s], [s, c]]), (300.0, 300.0))
    shuffler.shuffle(bodies)
    assert facing(bodies, implants)[0] == anterior


def test_with_nothing_to_see_nothing_is_known():
    assert facing([]) == ("right", 0.5)
    box = np.array([(300.0, 300), (500, 300), (500, 460), (300, 460)])
    assert facing([drawn(box)])[1] == pytest.approx(0.5, abs=0.01)
    column = [drawn(box + np.array([0, 200 * k])) for k in range(5)]
    assert facing(column)[1] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["screw", "instrumentation"])
def test_hardware_behind_a_straight_spine_tells_and_cages_do_not(name):
    box = np.array([(300.0, 300), (500, 300), (500, 460), (300, 460)])
    column = [drawn(box + np.array([0, 200 * k])) for k in range(5)]
    behind = np.array([(120.0, 560), (330, 560), (330, 590), (120, 590)])
    side, probability = facing(column, [Implant("i", name, 1.0, behind)])
    assert side == "right"
    assert probability > 0.7
    assert facing(column, [Implant("i", "cage", 1.0, behind)])[1] == pytest.approx(0.5, abs=0.02)


def test_the_fewer_bodies_the_less_certain():
    whole, part = [], []
    for bodies, _, anterior in PATIENTS.values():
        for kept, found in ((bodies, whole), (bodies[:3], part)):
            side, probability = facing(kept)
            found.append(probability if side == anterior else 1 - probability)
    assert np.mean(whole) > 0.97
    assert 0.5 < np.mean(part) < np.mean(whole)


@pytest.mark.skipif(not FILMS.is_dir(), reason="real films (LUMBARFLOW_DATA) are not there")
def test_real_patients_without_a_sacrum_drawn():
    project = json.loads((FILMS / "via_project.json").read_text())
    for image in project["_via_img_metadata"].values():
        shapes = [region["shape_attributes"] for region in image["regions"]]
        boxes = [
            np.column_stack([s["all_points_x"], s["all_points_y"]])
            for s in shapes
            if s["name"] == "polygon"
        ]
        # Corners are drawn from the upper back one over the upper front one.
        right = np.mean([box[1, 0] - box[0, 0] for box in boxes]) > 0
        side, probability = facing([drawn(box) for box in boxes])
        assert side == ("right" if right else "left")
        assert probability > 0.7
