"""Quality checks: each planted fault is found, alone, and what is right raises nothing."""

from __future__ import annotations

import os
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.qc import (
    CHECKS,
    Finding,
    check_film,
    encloses_area,
    findings_table,
    graded,
    intersects_itself,
)
from lumbarflow.annotate.shapes import measure, overlapping, shared_area
from lumbarflow.annotate.spine import LEVELS, RANK, course, longest_rise, skipped
from lumbarflow.files import read_json
from lumbarflow.prepare.masks import rasterise
from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.film import choose_format, plan_film
from lumbarflow.synthetic.spine import make_spine
from lumbarflow.synthetic.surgery import make_surgery

unhurried = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def draw(seed, postoperative=False):
    """Structures of a synthetic film, its size, its spacing in the patient."""
    rng = np.random.default_rng(seed)
    spine = make_spine(rng, draw_build(rng), bodies_only=True)
    shape, spacing = choose_format(rng, 0.25)
    implants = make_surgery(rng, spine) if postoperative else ()
    plan = plan_film(rng, spine, implants, shape, spacing)
    structures = [
        {"structure_id": f"film-{n:03d}", **structure}
        for n, structure in enumerate(plan.structures, 1)
    ]
    return structures, *shape, spacing / plan.magnification


class Drawn:
    """A sound film to plant faults on; parts go by their level, implants by class and number."""

    def __init__(self, postoperative=False):
        structures, self.rows, self.columns, self.spacing = draw(11, postoperative)
        self.structures = deepcopy(structures)
        self.lines = []
        bodies = [s["polygon"] for s in self.structures if s["class_name"] == "lumbar_vertebra"]
        areas = measure([np.array(polygon) for polygon in bodies]).area
        self.size = float(np.sqrt(np.median(areas)))

    def __getitem__(self, name):
        found = [s for s in self.structures if name in (s["level"], s["class_name"])]
        return found[0]

    def names(self):
        return [s["level"] for s in self.structures if s["class_name"].endswith("vertebra")]

    def move(self, name, x, y, scale=1.0):
        """Shift a part by x and y body sizes, after scaling it about its centre."""
        polygon = np.array(self[name]["polygon"])
        centre = polygon.mean(axis=0)
        moved = centre + scale * (polygon - centre) + np.multiply((x, y), self.size)
        self[name]["polygon"] = moved.tolist()

    def remove(self, name):
        self.structures.remove(self[name])

    def add(self, name, **changes):
        part = deepcopy(self[name]) | {"structure_id": "film-900"} | changes
        self.structures.append(part)
        return part

    def found(self, settings=None, spacing=False):
        """(check, structure_id) of each problem; `spacing`: whether it is known."""
        problems = check_film(
            self.structures,
            self.lines,
            self.rows,
            self.columns,
            self.spacing if spacing else None,
            settings or {},
        )
        assert all(problem.message for problem in problems)
        return sorted((problem.check, problem.structure_id or "") for problem in problems)


@pytest.mark.parametrize("postoperative", [False, True])
def test_sound_films_raise_nothing(postoperative):
    for seed in range(25):
        structures, rows, columns, spacing = draw(seed, postoperative)
        for known in (spacing, None):
            assert check_film(structures, [], rows, columns, known, {}) == [], seed


def test_nothing_drawn_raises_nothing():
    assert check_film([], [], 100, 80, None, {}) == []


def test_a_line_or_a_dot_is_degenerate():
    film = Drawn()
    film["L2"]["polygon"] = [[10, 10], [20, 20], [30, 30]]
    assert film.found() == [("degenerate", film["L2"]["structure_id"])]
    film["L2"]["polygon"] = [[10, 10], [1e300, 20], [float("nan"), 30]]
    assert film.found() == [("degenerate", film["L2"]["structure_id"])]


def test_off_the_film_covers_no_pixel():
    film = Drawn()
    film.move("L2", 100, 0)
    assert film.found() == [("no_pixel", film["L2"]["structure_id"])]


def test_an_outline_that_crosses_itself():
    film = Drawn()
    polygon = film["L2"]["polygon"]
    film["L2"]["polygon"] = polygon[:10] + polygon[30:9:-1] + polygon[31:]
    assert ("self_intersection", film["L2"]["structure_id"]) in film.found()


def test_points_outside_the_film():
    film = Drawn()
    corner = film["L2"]["polygon"][0]
    film["L2"]["polygon"][0] = [corner[0], -1.5]
    film["L2"]["polygon"] = film["L2"]["polygon"][:1] + film["L2"]["polygon"][8:]
    found = film.found()
    assert ("outside_image", film["L2"]["structure_id"]) in found
    film["L2"]["polygon"][0] = [corner[0], -0.9]
    assert "outside_image" not in dict(film.found())


def test_a_line_outside_the_film():
    film = Drawn()
    points = [[5, 5], [5, film.rows + 9.0]]
    film.lines = [{"structure_id": "film-800", "level": None, "points": points}]
    assert film.found() == [("outside_image", "film-800")]


def test_tiny_and_huge_bodies():
    film = Drawn()
    film.move("L3", 0, 0, scale=0.4)
    assert film.found() == [("tiny_area", film["L3"]["structure_id"])]
    film.move("L3", 0, 0, scale=4.5)
    assert film.found() == [("huge_area", film["L3"]["structure_id"])]


def test_a_stray_click_is_tiny_for_every_class():
    film = Drawn(postoperative=True)
    x, y = film["screw"]["polygon"][0]
    film["screw"]["polygon"] = [[x, y], [x + 3, y], [x, y + 3]]
    assert film.found() == [("tiny_area", film["screw"]["structure_id"])]


def test_a_body_cut_by_the_border_may_be_small():
    film = Drawn()
    film.remove("T12")
    x, size = film["L1"]["polygon"][0][0], film.size
    cut = [[x, 0], [x + size, 0], [x + size, size / 5], [x, size / 5]]
    film["L1"]["polygon"] = cut
    assert "tiny_area" not in dict(film.found())


def test_millimetres_tell_the_size_of_a_single_body():
    film = Drawn()
    film.structures = [film["L3"]]
    film.move("L3", 0, 0, scale=0.3)
    alone = ("isolated", film["L3"]["structure_id"])
    assert film.found() == [alone]
    assert film.found(spacing=True) == [("tiny_area", film["L3"]["structure_id"])]


def test_a_film_drawn_round_is_huge():
    film = Drawn()
    frame = [[0, 0], [film.columns, 0], [film.columns, film.rows], [0, film.rows]]
    film.add("L3", class_name="instrumentation", level=None, polygon=frame)
    assert film.found() == [("huge_area", "film-900")]


def test_a_copy_is_a_duplicate_and_the_one_without_a_level_the_spare():
    film = Drawn()
    film.add("L3")
    assert film.found() == [("duplicate", "film-900")]
    first = film["L3"]
    first["level"] = None
    assert film.found() == [("duplicate", first["structure_id"])]


def test_a_body_drawn_twice_is_nearly_a_duplicate():
    film = Drawn()
    film.add("L3")
    film.structures[-1]["polygon"] = (
        np.array(film["L3"]["polygon"]) + np.multiply((0.12, 0.05), film.size)
    ).tolist()
    assert film.found() == [("near_duplicate", "film-900")]


def test_the_same_outline_in_two_classes_is_a_duplicate():
    film = Drawn(postoperative=True)
    film.add("cage", class_name="screw")
    assert film.found() == [("duplicate", "film-900")]


def test_screws_may_lie_one_behind_the_other_but_not_be_copies():
    film = Drawn(postoperative=True)
    copy = film.add("screw")
    assert film.found() == [("duplicate", "film-900")]
    copy["polygon"] = (np.array(copy["polygon"]) + 0.3).tolist()
    assert film.found() == []


def test_neighbours_that_overlap():
    film = Drawn()
    film.move("L4", 0, -0.5)
    assert ("overlap", film["L4"]["structure_id"]) in film.found()
    assert set(dict(film.found())) == {"overlap"}


def test_a_vertebra_beside_the_spine():
    film = Drawn()
    film.move("L3", 2.2, 0)
    assert film.found() == [("off_course", film["L3"]["structure_id"])]


def test_a_vertebra_far_from_the_others():
    film = Drawn()
    film.columns += round(9 * film.size)
    film.move("L3", 6, 0)
    assert film.found() == [("isolated", film["L3"]["structure_id"])]


def test_a_gap_that_the_levels_do_not_tell_of():
    film = Drawn()
    film.remove("L3")
    lower = film["L4"]
    for level, named in (("L2", "L3"), ("L1", "L2"), ("T12", "L1")):
        film[level]["level"] = named
    film.structures = [s for s in film.structures if s["level"] != "T11"]
    assert film.found() == [("gap", lower["structure_id"])]


def test_one_vertebra_without_a_level():
    film = Drawn()
    expected = [("no_level", film["L2"]["structure_id"])]
    film["L2"]["level"] = None
    assert film.found() == expected


def test_no_levels_at_all_are_told_once():
    film = Drawn()
    for structure in film.structures:
        structure["level"] = None
    assert film.found() == [("levels_absent", "")]


@pytest.mark.parametrize(("level", "wrong"), [("L3", "L2"), ("L2", "L3"), ("L4", "L1")])
def test_a_level_given_twice(level, wrong):
    film = Drawn()
    expected = [("level_twice", film[level]["structure_id"])]
    film[level]["level"] = wrong
    assert film.found() == expected


def test_a_level_out_of_order():
    film = Drawn()
    expected = [("level_order", film["L2"]["structure_id"])]
    film["L2"]["level"] = "L6"
    assert film.found() == expected


def test_levels_from_below_are_told_once():
    film = Drawn()
    film.structures = [s for s in film.structures if s["class_name"] == "lumbar_vertebra"]
    for structure, level in zip(film.structures, film.names()[::-1], strict=True):
        structure["level"] = level
    assert film.found() == [("level_order", "")]


@pytest.mark.parametrize(("missing", "below"), [("L3", "L4"), ("L5", "S1"), ("S1", "S2")])
def test_a_level_that_is_skipped(missing, below):
    film = Drawn()
    film.remove(missing)
    assert film.found() == [("level_missing", film[below]["structure_id"])]


def test_six_lumbar_vertebrae_are_in_order():
    film = Drawn()
    for level, named in (("L5", "L6"), ("L4", "L5"), ("L3", "L4"), ("L2", "L3"), ("L1", "L2")):
        film[level]["level"] = named
    film["T12"]["level"] = "L1"
    film.structures = [s for s in film.structures if s["level"] != "T11"]
    assert film.found() == []


def test_thirteen_thoracic_vertebrae_are_in_order():
    film = Drawn()
    film["T12"]["level"] = "T13"
    assert film.found() == []
    film["L3"]["level"] = "T13"
    assert [check for check, _ in film.found()] == ["level_twice"]


def test_a_sacral_level_on_a_lumbar_vertebra():
    film = Drawn()
    film["S1"]["class_name"] = "lumbar_vertebra"
    assert film.found() == [("level_class", film["S1"]["structure_id"])]


def test_sacrum_above_lumbar():
    film = Drawn()
    film["L2"]["class_name"] = "sacral_vertebra"
    structure_id = film["L2"]["structure_id"]
    assert film.found() == [("level_class", structure_id), ("sacrum_above_lumbar", structure_id)]


def test_a_lumbar_vertebra_below_the_sacrum():
    film = Drawn()
    film["S2"].update(class_name="lumbar_vertebra", level=None)
    assert "sacrum_above_lumbar" in dict(film.found())


def test_an_endplate_of_the_sacrum_above_the_lumbar_spine():
    film = Drawn()
    for name, expected in (("L2", ["sacrum_above_lumbar"]), ("S1", [])):
        points = film[name]["polygon"][:5]
        film.lines = [{"structure_id": "film-800", "level": "S1", "points": points}]
        assert [check for check, _ in film.found()] == expected


def test_a_screw_far_from_any_vertebra():
    film = Drawn(postoperative=True)
    screw = np.array(film["screw"]["polygon"])
    x = film.columns - screw[:, 0].max() if screw[:, 0].mean() > film.columns / 2 else -screw.min()
    film.columns += round(8 * film.size)
    film.move("screw", (x / film.size) + 6, 0)
    assert film.found() == [("screw_far", film["screw"]["structure_id"])]


def test_screws_above_the_uppermost_vertebra_hold_in_one_that_is_not_drawn():
    film = Drawn(postoperative=True)
    down = 3 * film.size
    for structure in film.structures:
        structure["polygon"] = (np.array(structure["polygon"]) + np.array((0, down))).tolist()
    film.rows += round(down)
    top, second = (np.mean(s["polygon"], axis=0) for s in film.structures[:2])
    above = top + 2 * (top - second)
    screw = np.array(film["screw"]["polygon"])
    film["screw"]["polygon"] = (screw - screw.mean(axis=0) + above).tolist()
    assert film.found() == []


def test_screws_without_a_vertebra():
    film = Drawn(postoperative=True)
    film.structures = [s for s in film.structures if s["class_name"] == "screw"]
    assert film.found() == [("screw_far", "")]


def test_more_vertebrae_than_a_spine_has():
    boxes = [
        [[x, y], [x + 8, y], [x + 8, y + 8], [x, y + 8]] for x in (1, 21) for y in range(0, 400, 10)
    ]
    film = Drawn()
    film.rows, film.columns = 500, 100
    part = film["L3"]
    film.structures = [
        part | {"structure_id": f"film-{n}", "polygon": box}
        for n, box in enumerate([*boxes, [[41, 1], [49, 1], [49, 9], [41, 9]]])
    ]
    assert film.found() == [("too_many_vertebrae", "")]


@pytest.mark.parametrize(
    ("severity", "expected"), [("error", ["error"]), ("info", ["info"]), ("off", []), (False, [])]
)
def test_severities_come_from_the_configuration(severity, expected):
    film = Drawn()
    film.remove("L3")
    problems = check_film(
        film.structures,
        [],
        film.rows,
        film.columns,
        None,
        {"severity": {"level_missing": severity}},
    )
    assert [problem.severity for problem in problems] == expected


def test_other_findings_keep_their_severity():
    findings = [
        Finding("a", None, "no_annotation", "info", "x"),
        Finding(None, None, "y", "error", "x"),
    ]
    assert graded(findings, {"severity": {"gap": "error"}}) == findings
    assert list(findings_table(findings)["severity"]) == ["info", "error"]


def faulty(fault):
    film = Drawn()
    if fault == "off_course":
        film.move("L3", 2.2, 0)
    elif fault == "overlap":
        film.move("L4", 0, -0.5)
    elif fault == "level_missing":
        film.remove("L2")
    elif fault == "tiny_area":
        film.move("L3", 0, 0, scale=0.4)
    elif fault == "near_duplicate":
        film.add("L3")
        film.structures[-1]["polygon"] = (
            np.array(film["L3"]["polygon"]) + 0.1 * film.size
        ).tolist()
    return film


@unhurried
@given(
    st.sampled_from(["", "off_course", "overlap", "level_missing", "tiny_area", "near_duplicate"]),
    st.floats(-55, 55),
    st.floats(0.7, 6),
    st.booleans(),
)
def test_findings_do_not_depend_on_place_tilt_size_or_side(fault, degrees, scale, mirrored):
    film = faulty(fault)
    before = film.found()
    assert [check for check, _ in before] == [fault] * bool(fault)
    turn = np.radians(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if mirrored:
        matrix = matrix @ np.diag([-1.0, 1.0])
    moved = [np.array(s["polygon"]) @ matrix.T for s in film.structures]
    margin = 2 * scale * film.size
    low, high = (getattr(np.vstack(moved), which)(axis=0) for which in ("min", "max"))
    for structure, polygon in zip(film.structures, moved, strict=True):
        structure["polygon"] = (polygon - low + margin).tolist()
    film.columns, film.rows = np.ceil(high - low + 2 * margin).astype(int).tolist()
    assert film.found() == before


def test_a_spine_that_lies_across_the_film_is_read_as_its_levels_run():
    for quarter in ([[0, -1], [1, 0]], [[0, 1], [-1, 0]]):
        film = Drawn()
        moved = [np.array(s["polygon"]) @ np.array(quarter, float) for s in film.structures]
        low = np.vstack(moved).min(axis=0)
        for structure, polygon in zip(film.structures, moved, strict=True):
            structure["polygon"] = (polygon - low + 9).tolist()
        film.rows, film.columns = film.columns + 20, film.rows + 20
        assert film.found() == []


def test_hostile_films_are_judged_in_bounded_work():
    rng = np.random.default_rng(3)
    box = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], float)
    crowd = [
        {
            "structure_id": f"{n}",
            "class_name": ("lumbar_vertebra", "screw", "cage")[n % 3],
            "level": "L1",
            "polygon": box + rng.uniform(0, 12, 2),
        }
        for n in range(3000)
    ]
    assert "too_many_vertebrae" in {p.check for p in check_film(crowd, [], 90, 90, None, {})}
    zigzag = np.column_stack([np.arange(20_000) % 7, np.arange(20_000) % 2 * 50.0])
    assert intersects_itself(zigzag + rng.uniform(0, 1, zigzag.shape))


@unhurried
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=4, max_size=9))
def test_crossings_are_those_of_all_pairs_of_edges(points):
    start = np.array(points, float)
    end = np.roll(start, -1, axis=0)

    def side(a, b, p):
        return np.sign((b - a)[0] * (p - a)[1] - (b - a)[1] * (p - a)[0])

    crossing = any(
        side(start[i], end[i], start[j]) * side(start[i], end[i], end[j]) < 0
        and side(start[j], end[j], start[i]) * side(start[j], end[j], end[i]) < 0
        for i in range(len(start))
        for j in range(i)
    )
    assert intersects_itself(points) == crossing
    if len(set(points)) > 2 and encloses_area(points) and measure([start]).simple[0]:
        assert not crossing


@unhurried
@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=1, max_size=12))
def test_pairs_of_boxes_that_meet(boxes):
    low = np.array([box[:2] for box in boxes], float)
    high = low + np.array([box[2:] for box in boxes])
    one, other = overlapping(low, high)
    found = {frozenset(pair) for pair in zip(one.tolist(), other.tolist(), strict=True)}
    assert len(found) == len(one)
    assert found == {
        frozenset((i, j))
        for i in range(len(boxes))
        for j in range(i)
        if (low[i] <= high[j]).all() and (low[j] <= high[i]).all()
    }


@unhurried
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(20, 60))
def test_shared_area_is_that_of_the_masks(x, y, width):
    one = np.array([[100, 100], [160, 110], [150, 160], [105, 150]], float)
    other = np.array([[0, 0], [width, 5], [width - 5, 45], [3, 40]]) + np.array((100 + x, 105 + y))
    masks = [rasterise(outline, 260, 260) for outline in (one, other)]
    box = np.minimum(one.max(0), other.max(0)) - np.maximum(one.min(0), other.min(0))
    allowed = 0.05 * np.maximum(box, 0).prod() + 12
    assert shared_area(one, other) == pytest.approx((masks[0] & masks[1]).sum(), abs=allowed)


def test_measures_of_a_rectangle():
    box = np.array([[2, 1], [8, 1], [8, 5], [2, 5]], float)
    bow_tie = box[[0, 1, 3, 2]]
    found = measure([box, bow_tie, box[::-1]])
    assert found.area.tolist() == [24, 0, 24]
    assert found.length[0] == 20
    assert found.centre.tolist() == [[5, 3]] * 3
    assert (found.low[0].tolist(), found.high[0].tolist()) == ([2, 1], [8, 5])
    assert found.simple.tolist() == [True, False, True]


@unhurried
@given(st.permutations(range(9)), st.floats(-0.9, 0.9), st.floats(-0.15, 0.15))
def test_the_course_is_followed_whatever_the_order_of_drawing(order, slope, curve):
    y = np.arange(9.0)
    spine = np.column_stack([slope * y + curve * (y - 4) ** 2, y])
    followed, off = course(spine[list(order)])
    assert off == []
    assert [order[k] for k in followed] == list(range(9))


@unhurried
@given(st.lists(st.integers(0, 8), max_size=9))
def test_no_rising_subsequence_is_longer(values):
    rise = longest_rise(values)
    chosen = [values[k] for k in rise]
    assert rise == sorted(set(rise))
    assert all(a < b for a, b in pairwise(chosen))
    longest = []
    for value in values:
        longest.append(
            1 + max([n for n, v in zip(longest, values, strict=False) if v < value], default=0)
        )
    assert len(rise) == max(longest, default=0)


def test_levels_between_two():
    assert skipped(RANK["L2"], RANK["L5"]) == ["L3", "L4"]
    assert skipped(RANK["L5"], RANK["S1"]) == []
    assert skipped(RANK["L6"], RANK["S1"]) == []
    assert skipped(RANK["T12"], RANK["L1"]) == []
    assert list(LEVELS) == sorted(
        LEVELS, key=lambda level: ("CTLS".index(level[0]), int(level[1:]))
    )


def test_what_nothing_could_be_trained_on_stays_an_error():
    for check in ("no_class", "several_classes", "point", "open_line", "degenerate", "no_pixel"):
        assert CHECKS[check].severity == "error"
        assert CHECKS[check].fixed


@pytest.mark.skipif(
    not (DATA / "lumbar_films").is_dir(), reason=f"the real lumbar films are not at {DATA}"
)
def test_real_films_raise_nothing():
    folder = DATA / "lumbar_films"
    films = read_json(folder / "via_project.json")["_via_img_metadata"].values()
    assert len(films) == 26
    found = []
    for film in films:
        rows, columns = cv2.imread(str(folder / "films" / film["filename"]), 0).shape
        structures, lines = [], []
        for number, region in enumerate(film["regions"], 1):
            shape, named = region["shape_attributes"], region["region_attributes"]
            points = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
            common = {"structure_id": f"{film['filename']}-{number}", "level": named["level"]}
            if shape["name"] == "polygon":
                structures.append(common | {"class_name": named["structure"], "polygon": points})
            else:
                lines.append(common | {"points": points})
        found += check_film(structures, lines, rows, columns, None, {})
    assert pd.DataFrame(found).empty
