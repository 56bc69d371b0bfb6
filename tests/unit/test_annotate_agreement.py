"""Agreement of annotators and the rules that choose or merge what they drew."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.agreement import (
    AGREEMENT,
    agreement_table,
    compare,
    corner_distance,
    corners,
    match,
)
from lumbarflow.annotate.merging import check_priority, majority_outline, merge
from lumbarflow.errors import InputError
from lumbarflow.prepare.masks import rasterise

unhurried = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]
ROWS, COLUMNS = 260, 120
LEVELS = ("L1", "L2", "L3", "L4")


def box(x, y, width=50, height=34):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def structure(number, polygon, class_name="lumbar_vertebra", level=None, origin="drawn"):
    return {
        "structure_id": f"IMG-{number:03d}",
        "class_name": class_name,
        "level": level,
        "polygon": polygon,
        "origin": origin,
    }


def drawing(annotator, structures, lines=(), rejected=(), letter=""):
    named = {"annotator": annotator, "source": f"{annotator}.json"}
    return named | {
        "structures": [
            s | named | {"structure_id": s["structure_id"].replace("-", f"-{letter}")}
            for s in structures
        ],
        "lines": [line | named for line in lines],
        "rejected": [region | named for region in rejected],
    }


def spine(dx=0.0, dy=0.0, levels=LEVELS):
    return [
        structure(n, box(30 + dx, 20 + 50 * n + dy), level=level)
        for n, level in enumerate(levels, 1)
    ]


def rule_of(drawings, rule, priority=()):
    return merge(drawings, rule, priority, CLASSES, ROWS, COLUMNS)


# Agreement ----------------------------------------------------------------------------------------


def test_two_annotators_who_agree_but_for_a_shift():
    rows = compare([drawing("anna", spine()), drawing("bert", spine(3, 4))], ROWS, COLUMNS, 0.2)
    assert len(rows) == 4
    for row, level in zip(rows, LEVELS, strict=True):
        assert (row["annotator_a"], row["annotator_b"]) == ("anna", "bert")
        assert (row["source_a"], row["source_b"]) == ("anna.json", "bert.json")
        assert (row["level_a"], row["level_b"], row["level_agrees"]) == (level, level, True)
        assert row["status"] == "matched"
        assert row["dice"] == pytest.approx(47 * 30 / (50 * 34))
        assert row["corner_distance_px"] == pytest.approx(5)
        assert row["corner_distance_mm"] == pytest.approx(1)


def test_missing_extra_and_levels():
    anna = drawing("anna", [*spine()[:3], structure(9, box(5, 5, 20, 8), "screw")])
    bert = drawing("bert", spine(levels=(None, "L3", "L3", "L4"))[0:4])
    rows = compare([anna, bert], ROWS, COLUMNS, None)
    told = {
        (row["structure_a"], row["structure_b"]): (row["status"], row["level_agrees"])
        for row in rows
    }
    assert told == {
        ("IMG-001", "IMG-001"): ("matched", None),
        ("IMG-002", "IMG-002"): ("matched", False),
        ("IMG-003", "IMG-003"): ("matched", True),
        ("IMG-009", None): ("missing", None),
        (None, "IMG-004"): ("extra", None),
    }
    for row in rows:
        assert (row["dice"] is None) == (row["status"] != "matched")
        assert row["corner_distance_mm"] is None


def test_other_classes_are_never_matched_and_have_no_corners():
    anna = [structure(1, box(10, 10)), structure(2, box(10, 60, 40, 9), "screw")]
    bert = [structure(1, box(10, 10), "sacral_vertebra"), structure(2, box(10, 60, 40, 9), "screw")]
    rows = compare([drawing("anna", anna), drawing("bert", bert)], ROWS, COLUMNS, 1.0)
    assert [row["status"] for row in rows] == ["missing", "matched", "extra"]
    assert rows[1]["dice"] == 1
    assert rows[1]["corner_distance_px"] is None


def test_the_best_sum_of_overlaps_wins_over_the_best_pair():
    # The best pair, 2 with 1, would leave 1 and 2 without a partner.
    a = [structure(1, box(30, 20, 50, 30)), structure(2, box(30, 36, 50, 30))]
    b = [structure(1, box(30, 34, 50, 30)), structure(2, box(30, 54, 50, 30))]
    assert [(i, j) for i, j, _ in match(a, b, ROWS, COLUMNS)] == [(0, 0), (1, 1)]


def test_the_table():
    record = {"image_id": "IMG", "rows": ROWS, "columns": COLUMNS}
    drawings = [drawing("anna", spine()), drawing("bert", spine(1)), drawing("carl", spine(2))]
    records = [record | {"drawings": drawings}, record | {"image_id": "ALONE"}]
    table = agreement_table(records, {"IMG": float("nan")})
    assert table.dtypes.astype(str).to_dict() == AGREEMENT
    assert len(table) == 3 * 4
    pairs = set(zip(table["annotator_a"], table["annotator_b"], strict=True))
    assert pairs == {("anna", "bert"), ("anna", "carl"), ("bert", "carl")}
    assert table["corner_distance_mm"].isna().all()
    empty = agreement_table([record], {})
    assert empty.dtypes.astype(str).to_dict() == AGREEMENT
    assert empty.empty


def rounded(width, height, tilt_degrees, points=200):
    """A superellipse with flat sides, turned."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    x = np.sign(cos) * np.abs(cos) ** 0.2 * width / 2
    y = np.sign(sin) * np.abs(sin) ** 0.2 * height / 2
    turn = np.exp(1j * np.radians(tilt_degrees)) * (x + 1j * y)
    return np.stack([turn.real, turn.imag], axis=1)


def test_corners_of_a_body_with_concave_endplates_and_many_points():
    side = np.linspace(0, 1, 30, endpoint=False)
    a, b, c, d = map(np.array, ([10.0, 10], [60, 16], [58, 50], [8, 44]))
    sag = 4 * np.outer(4 * side * (1 - side), [0, 1])
    body = np.concatenate(
        [
            *(a + np.outer(side, b - a) + sag, b + np.outer(side, c - b)),
            *(c + np.outer(side, d - c) - sag, d + np.outer(side, a - d)),
        ]
    )
    found = corners(body)
    for corner in (a, b, c, d):
        assert np.linalg.norm(found - corner, axis=1).min() < 0.5


def test_corners_of_a_box():
    found = corners([[10, 10], [60, 16], [58, 50], [8, 44]])
    assert found == pytest.approx(np.array([[60, 16], [58, 50], [8, 44], [10, 10]]), abs=0.2)


def test_where_the_points_of_a_rounded_body_lie_hardly_matters():
    rng = np.random.default_rng(5)
    few, many = rounded(300, 210, 5, points=40), rounded(300, 210, 5, points=93)
    assert corner_distance(few, many) < 1.5
    assert corner_distance(few, many + rng.normal(0, 1, many.shape)) < 3


@pytest.mark.parametrize("points", [[[0, 0]], [[0, 0], [4, 0], [0, 4]], [[1, 1]] * 5])
def test_no_corners(points):
    assert corners(points) is None
    assert corner_distance(points, box(0, 0)) is None


tilts = st.floats(-60, 60)
shifts = st.tuples(st.floats(-40, 40), st.floats(-40, 40))


@unhurried
@given(tilts, shifts, st.integers(0, 199), st.booleans())
def test_corner_distance_of_a_moved_outline_is_the_way_it_moved(tilt, shift, first, backwards):
    body = rounded(60, 42, tilt)
    moved = np.roll(body, first, axis=0)[:: -1 if backwards else 1] + shift
    assume(np.hypot(*shift) < 20)  # beyond, another pairing of the corners may be nearer
    assert corner_distance(body, moved) == pytest.approx(np.hypot(*shift), abs=1)
    assert corner_distance(body, moved) == pytest.approx(corner_distance(moved, body))


# Rules --------------------------------------------------------------------------------------------


def test_one_drawing_is_taken_as_it_is():
    anna = drawing(
        "anna", spine(), lines=[{"name": "s1", "level": "S1"}], rejected=[{"check": "x"}]
    )
    assert rule_of([anna], "consensus") == (anna["structures"], anna["lines"], anna["rejected"], [])


@pytest.mark.parametrize(
    ("rule", "priority", "chosen"),
    [
        ("first", [], "bert"),
        ("last", [], "carl"),
        ("first", ["carl"], "carl"),
        ("last", ["carl"], "anna"),
        ("first", ["anna", "carl", "bert"], "anna"),
        ("last", ["anna", "carl", "bert"], "bert"),
    ],
)
def test_first_and_last(rule, priority, chosen):
    drawings = [drawing(name, spine()) for name in ("bert", "anna", "carl")]
    structures, _, _, problems = rule_of(drawings, rule, priority)
    assert {s["annotator"] for s in structures} == {chosen}
    (problem,) = problems
    assert problem[:3] == (None, "several_annotators", "info")
    assert f"{chosen} is used" in problem.message


def test_a_drawing_without_a_sound_structure_is_not_chosen():
    drawings = [drawing("anna", [], rejected=[{"check": "point"}]), drawing("bert", spine())]
    structures, *_ = rule_of(drawings, "first")
    assert [s["annotator"] for s in structures] == ["bert"] * 4


def test_consensus_of_three():
    anna, bert = drawing("anna", spine()), drawing("bert", spine(2, 0)[:3], letter="b")
    carl = drawing("carl", [*spine(4, 0)[:3], structure(7, box(2, 2, 20, 8), "screw")], letter="c")
    structures, _, _, problems = rule_of([anna, bert, carl], "consensus")
    assert [s["level"] for s in structures] == ["L1", "L2", "L3"]
    for kept in structures:
        assert kept["annotator"] == "anna, bert, carl"
        assert kept["source"] == "anna.json, bert.json, carl.json"
        assert kept["structure_id"].startswith("IMG-00")
        # Two of three cover from 32 to 82: the left edge of bert, the right edge of bert.
        x, _ = np.array(kept["polygon"]).T
        assert (x.min(), x.max()) == pytest.approx((32, 82), abs=0.05)
    assert {(p.structure_id, p.check, p.severity) for p in problems} == {
        ("IMG-004", "not_drawn_by_all", "warning"),
        ("IMG-c007", "not_drawn_by_all", "warning"),
    }
    assert all("drawn by 1 of 3" in p.message and "not used" in p.message for p in problems)


def test_of_two_the_first_decides_what_stays():
    anna, bert = drawing("anna", spine()[:2]), drawing("bert", spine(4)[1:3], letter="b")
    for priority, levels in (([], ["L1", "L2"]), (["bert"], ["L2", "L3"])):
        structures, _, _, problems = rule_of([anna, bert], "consensus", priority)
        assert [s["level"] for s in structures] == levels
        assert sorted(p.message.rpartition(": ")[2] for p in problems) == ["not used", "used"]
        both = next(s for s in structures if s["level"] == "L2")
        x, _ = np.array(both["polygon"]).T
        assert (x.min(), x.max()) == pytest.approx((32, 82), abs=0.05)  # midway


@pytest.mark.parametrize(
    ("levels", "level", "told"),
    [
        (("L3", "L3", "L4"), "L3", True),
        (("L3", "L4", "L4"), "L4", True),
        (("L3", "L4", "L5"), "L3", True),
        ((None, "L4", None), "L4", False),
        ((None, "L5", "L4"), "L5", True),
        ((None, None, None), None, False),
    ],
)
def test_level_by_majority_else_by_priority(levels, level, told):
    drawings = [
        drawing(name, [structure(1, box(30, 30), level=given)])
        for name, given in zip(("anna", "bert", "carl"), levels, strict=True)
    ]
    (kept,), _, _, problems = rule_of(drawings, "consensus")
    assert kept["level"] == level
    assert [p.check for p in problems] == ["levels_differ"] * told


def test_an_accepted_prediction_leaves_its_mark():
    drawings = [
        drawing("anna", [structure(1, box(30, 30))]),
        drawing("bert", [structure(1, box(30, 30), origin="predicted by unet")]),
    ]
    (kept,), *_ = rule_of(drawings, "consensus")
    assert kept["origin"] == "predicted by unet"


def test_lines_and_rejected_regions_of_a_consensus():
    s1 = {"name": "s1_endplate", "level": "S1"}
    l5 = {"name": "endplate", "level": "L5"}
    anna = drawing("anna", spine(), lines=[s1], rejected=[{"check": "point"}])
    bert = drawing("bert", spine(), lines=[s1, l5], rejected=[{"check": "open_line"}])
    _, lines, rejected, _ = rule_of([bert, anna], "consensus")
    assert [(line["name"], line["annotator"]) for line in lines] == [
        ("s1_endplate", "anna"),
        ("endplate", "bert"),
    ]
    assert {region["check"] for region in rejected} == {"point", "open_line"}


shaky = st.lists(st.floats(-4, 4), min_size=8, max_size=8)


@settings(unhurried, max_examples=20)
@given(st.lists(shaky, min_size=2, max_size=3), st.data())
def test_a_consensus_depends_on_no_order_of_files(noise, data):
    drawings = [
        drawing(
            name,
            [
                structure(n, (np.array(box(30, 20 + 50 * n)) + np.reshape(shift, (4, 2))).tolist())
                for n in range(data.draw(st.integers(1, 3)))
            ],
        )
        for name, shift in zip(("anna", "bert", "carl"), noise, strict=False)
    ]
    results = [rule_of(list(order), "consensus") for order in itertools.permutations(drawings)]
    assert all(result == results[0] for result in results)


@unhurried
@given(st.lists(shaky, min_size=2, max_size=5))
def test_a_majority_outline_encloses_what_most_cover(noise):
    polygons = [np.array(box(30, 40)) + np.reshape(shift, (4, 2)) for shift in noise]
    votes = np.sum([rasterise(polygon, ROWS, COLUMNS) for polygon in polygons], axis=0)
    merged = rasterise(majority_outline(polygons, ROWS, COLUMNS), ROWS, COLUMNS)
    # But for pixels whose centre is on an edge, so to say; a tie may go either way.
    wrong = (merged & (2 * votes < len(polygons))) | (~merged & (2 * votes > len(polygons)))
    edges = [polygon.astype(np.float32) for polygon in polygons]
    for row, column in np.argwhere(wrong):
        centre = (column + 0.5, row + 0.5)
        assert min(abs(cv2.pointPolygonTest(edge, centre, True)) for edge in edges) < 0.5


wild = st.one_of(st.floats(-20, 280), st.floats(-1e9, 1e9), st.sampled_from([0, 60, 120, 260]))
outline = st.lists(st.tuples(wild, wild), min_size=3, max_size=7)


@settings(unhurried, max_examples=20)
@given(st.lists(outline, min_size=2, max_size=3))
def test_any_outlines_can_be_merged(polygons):
    merged = np.array(majority_outline(polygons, ROWS, COLUMNS))
    assert len(merged) >= 3
    given_first = np.array_equal(merged, np.array(polygons[0], dtype=float))
    assert given_first or ((merged >= 0) & (merged <= (COLUMNS, ROWS))).all()
    for a, b in itertools.combinations(polygons, 2):
        distance = corner_distance(a, b)
        assert distance is None or np.isfinite(distance)


@unhurried
@given(shaky, st.integers(1, 4))
def test_a_unanimous_outline_stays_as_it_is(shift, copies):
    polygon = (np.array(box(30, 40)) + np.reshape(shift, (4, 2))).tolist()
    assert majority_outline([polygon] * copies, ROWS, COLUMNS) == polygon


def test_a_majority_outline_at_the_border_of_the_film_and_beyond_it():
    left = majority_outline([box(-30, 40), box(-26, 40)], ROWS, COLUMNS)
    x, _ = np.array(left).T
    assert (x.min(), x.max()) == pytest.approx((0, 22), abs=0.05)
    outside = [box(-500, 40), box(-501, 40)]
    assert majority_outline(outside, ROWS, COLUMNS) == outside[0]
    nothing_common = [box(10, 10, 9, 9), box(40, 10, 9, 9), box(70, 10, 9, 9)]
    assert majority_outline(nothing_common, ROWS, COLUMNS) == nothing_common[0]


def test_priority_names_annotators():
    check_priority(["bert"], ["anna", "bert"])
    with pytest.raises(InputError, match=r"'brt'.*anna, bert; did you mean 'bert'"):
        check_priority(["brt"], ["anna", "bert"])
