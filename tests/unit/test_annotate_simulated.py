"""Simulated annotators: near the truth as people are, and the same every time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.shapes import intersects_itself
from lumbarflow.annotate.simulated import (
    IMPLANT_VERTICES,
    VERTICES,
    click,
    corners_and_bends,
    draw,
)
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.evaluate.truth import truth_table
from lumbarflow.prepare.masks import rasterise

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEYED = Pseudonyms(b"a key for these tests only")


def body(centre, width=38.0, height=30.0, waist=2.0, angle=0.0):
    """A dense outline (mm) with round corners and a waist."""
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.25 * width / 2
    y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.25 * height / 2
    x = x * (1 - 2 * waist / width * np.cos(np.pi * y / height) ** 2)
    y = y * (1 - 2 * waist / height * np.cos(np.pi * x / width) ** 2)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.column_stack([x * cos - y * sin, x * sin + y * cos]) + centre


def screw(centre, angle=0.0):
    """Threads, a neck and a head (mm)."""
    along = np.linspace(0, 38, 120)
    half = 2.6 + 0.4 * np.sin(along * 2.4)
    shaft = np.column_stack([np.r_[along, along[::-1]], np.r_[half, -half[::-1]]])
    head = np.array([(-1, -5), (-13, -6), (-13, 6), (-1, 5)])
    points = np.vstack([shaft, head])
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]]) + centre


def overlap(one, other, spacing):
    """The Dice coefficient of two outlines, counted on cells of 0.3 mm whatever the pixels are."""
    size = round(100 / 0.3)
    a, b = (rasterise(points * (spacing / 0.3), size, size) for points in (one, other))
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@unhurried
@given(
    st.integers(0, 2**32),
    st.floats(24, 50),
    st.floats(12, 40),
    st.floats(0, 3),
    st.floats(-1, 1),
    st.sampled_from([0.14, 0.16, 0.2, 0.4, 1.0]),
    st.floats(-0.4, 0.4),
)
def test_bodies_are_drawn_as_people_draw(seed, width, height, waist, angle, spacing, edge):
    outline = body((40, 40), width, height, waist, angle) / spacing
    shape = (round(80 / spacing),) * 2
    drawn = np.array(
        click(
            np.random.default_rng(seed),
            outline,
            shape,
            spacing,
            VERTICES["lumbar_vertebra"],
            edge,
        )
    )
    assert 8 <= len(drawn) <= 30
    assert (drawn >= 0).all() and (drawn <= shape[0]).all()
    assert not intersects_itself(drawn)
    assert overlap(outline, drawn, spacing) > 0.93


@unhurried
@given(st.integers(0, 2**32), st.floats(-3, 3), st.sampled_from([0.16, 1.0]))
def test_screws_are_drawn_with_few_points(seed, angle, spacing):
    outline = screw((50, 50), angle) / spacing
    shape = (round(100 / spacing),) * 2
    drawn = np.array(click(np.random.default_rng(seed), outline, shape, spacing, IMPLANT_VERTICES))
    assert 8 <= len(drawn) <= 20
    assert not intersects_itself(drawn)
    assert overlap(outline, drawn, spacing) > 0.75


def test_clicks_miss_by_one_or_two_pixels_of_a_full_size_film():
    outline = body((300, 300), 240, 190, 10)
    missed = []
    for seed in range(40):
        drawn = click(np.random.default_rng(seed), outline, (600, 600), 0.16, (10, 24))
        distance = np.linalg.norm(np.array(drawn)[:, None] - outline[None], axis=2)
        missed.append(distance.min(axis=1).mean())
    assert 0.5 < np.mean(missed) < 2


def test_an_annotator_s_habit_is_to_draw_outside_or_inside():
    outline = body((300, 300), 240, 190, 10)

    def area(edge, outline):
        drawn = click(np.random.default_rng(1), outline, (600, 600), 0.16, (20, 20), edge)
        return rasterise(drawn, 600, 600).sum()

    for way in (outline, outline[::-1]):
        assert area(-0.5, way) < area(0.0, way) < area(0.5, way)


def test_clicks_stay_on_the_film():
    outline = body((2, 20), 38, 30) / 0.16
    drawn = np.array(click(np.random.default_rng(3), outline, (300, 250), 0.16, (12, 20)))
    assert drawn.min() == 0 and drawn[:, 0].max() < 250 and drawn[:, 1].max() < 300


def test_corners_come_first_and_then_the_bend():
    side = np.linspace(0, 1, 50, endpoint=False)
    flat = [
        np.column_stack([100 * side, 0 * side]),
        np.column_stack([100 + 0 * side, 60 * side]),
        np.column_stack([100 - 100 * side, 60 - 8 * np.sin(np.pi * side)]),
        np.column_stack([0 * side, 60 - 60 * side]),
    ]
    outline = np.vstack(flat)
    assert corners_and_bends(outline, 4).tolist() == [0, 50, 100, 150]
    assert corners_and_bends(outline, 5).tolist() == [0, 50, 100, 125, 150]


@pytest.fixture
def cohort(tmp_path):
    """Truth, manifest and pictures of three films, of which one was rejected."""
    images = []
    for number in range(3):
        polygon = (body((60, 50 + 10 * number)) / 0.16).tolist()
        screw_ = (screw((60, 120)) / 0.16).tolist()
        images.append(
            {
                "sop_instance_uid": f"1.2.{number}",
                "rows": 1200,
                "columns": 800,
                "pixel_spacing_mm": 0.16,
                "reserved": "test" if number == 1 else None,
                "structures": [
                    {"class_name": "lumbar_vertebra", "level": "L3", "polygon": polygon},
                    {"class_name": "screw", "level": "L3", "polygon": screw_},
                    {"class_name": None, "level": "L3", "polygon": polygon},
                ],
                "measurements": [
                    {"name": "lordosis", "site": "L1-S1", "value": 50.5 + number, "unit": "deg"},
                    {"name": "wedge_ratio", "site": "L3", "value": 0.9, "unit": "1"},
                ],
            }
        )
    ids = [KEYED.image(image["sop_instance_uid"]) for image in images]
    manifest = pd.DataFrame({"image_id": ids, "status": ["accepted", "accepted", "rejected"]})
    for image_id in ids[:2]:
        (tmp_path / f"{image_id}.png").write_bytes(b"film")
    return {"images": images}, manifest, tmp_path, ids


def test_films_are_drawn_alike_whatever_others_there_are(cohort):
    truth, manifest, pictures, ids = cohort
    films = draw(truth, manifest, KEYED, pictures, 5)
    assert [film.file_name for film in films] == sorted(f"{i}.png" for i in ids[:2])
    assert all(film.size == 4 for film in films)
    reserved = {film.file_name: film.attributes for film in films}
    assert reserved == {f"{ids[0]}.png": {}, f"{ids[1]}.png": {"subset": "test"}}
    for film in films:
        # Cement has no class: nobody outlines it.
        assert [r["class_name"] for r in film.regions] == ["lumbar_vertebra", "screw"]
    alone = draw({"images": truth["images"][1:]}, manifest, KEYED, pictures, 5)
    assert alone == [film for film in films if film.file_name == f"{ids[1]}.png"]
    assert draw(truth, manifest, KEYED, pictures, 6) != films
    assert draw(truth, manifest, KEYED, pictures, 5, annotator=1) != films


def test_the_second_annotator_overlooks_and_misnames_a_little(cohort):
    truth, _, pictures, _ = cohort
    images = [truth["images"][0] | {"sop_instance_uid": f"1.3.{n}"} for n in range(200)]
    ids = [KEYED.image(image["sop_instance_uid"]) for image in images]
    for image_id in ids:
        (pictures / f"{image_id}.png").touch()
    manifest = pd.DataFrame({"image_id": ids, "status": "accepted"})
    first, second = (draw({"images": images}, manifest, KEYED, pictures, 1, a) for a in (0, 1))
    assert all(len(film.regions) == 2 for film in first)
    overlooked = sum(2 - len(film.regions) for film in second)
    levels = [r["level"] for film in second for r in film.regions if r["class_name"] != "screw"]
    assert 0 < overlooked < 20
    assert set(levels) == {"L3", "L2"} and levels.count("L2") < 20


def test_the_truth_is_told_under_pseudonyms(cohort):
    truth, manifest, _, ids = cohort
    table = truth_table(truth, manifest, KEYED)
    assert table.columns.tolist() == ["image_id", "name", "site", "value", "unit"]
    assert table["image_id"].tolist() == sorted(ids[:2] * 2)
    values = table[table["name"] == "lordosis"].set_index("image_id")["value"]
    assert values.to_dict() == {ids[0]: 50.5, ids[1]: 51.5}
    del truth["images"][0]["measurements"], truth["images"][1]["measurements"]
    empty = truth_table(truth, manifest, KEYED)
    assert empty.empty and empty.dtypes.to_dict() == table.dtypes.to_dict()
