"""Errors by their kind, planted one by one on films of rectangles, and the order of films."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow import rle
from lumbarflow.evaluate.failures import (
    ERRORS,
    KINDS,
    RANKING,
    disagreements,
    film_errors,
    find_errors,
    outlines,
    rank_films,
)
from lumbarflow.evaluate.strata import COLUMNS, STRATA
from lumbarflow.prepare.masks import rasterise

ROWS, COLUMNS_ = 260, 120
FOREGROUND = ["lumbar_vertebra", "sacral_vertebra"]
LEVELS = ("L2", "L3", "L4", "L5")


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


#: Four bodies of 50 x 40 pixels, 10 apart.
BODIES = [box(30, 10 + 50 * k, 80, 50 + 50 * k) for k in range(4)]
AREA = 50 * 40


def record(bodies=BODIES, implants=()):
    structures = [
        {"structure_id": f"s{k}", "class_name": "lumbar_vertebra", "level": level, "polygon": body}
        for k, (level, body) in enumerate(zip(LEVELS, bodies, strict=False))
    ]
    structures += [
        {"structure_id": f"m{k}", "class_name": "screw", "level": None, "polygon": polygon}
        for k, polygon in enumerate(implants)
    ]
    return {"image_id": "film", "rows": ROWS, "columns": COLUMNS_, "structures": structures}


def instances(*shapes, image_id="film", class_name="lumbar_vertebra"):
    """Shapes are (level, polygon) or (level, polygons of one mask)."""
    rows = []
    for k, (level, polygon) in enumerate(shapes):
        polygons = polygon if np.ndim(polygon) == 3 else [polygon]
        mask = np.logical_or.reduce([rasterise(one, ROWS, COLUMNS_) for one in polygons])
        rows.append(
            {
                **{"image_id": image_id, "instance_id": f"p{k}", "class_name": class_name},
                **{"level": level, "rle_counts": rle.encode(mask)},
                **{"rle_height": ROWS, "rle_width": COLUMNS_},
            }
        )
    columns = ["image_id", "instance_id", "class_name", "level", "rle_counts"]
    table = pd.DataFrame(rows, columns=[*columns, "rle_height", "rle_width"])
    return table.astype(dict.fromkeys(columns, "string"))


def errors(shapes, implants=(), labelled=True):
    found = film_errors(
        outlines(record(implants=implants), FOREGROUND), instances(*shapes), labelled
    )
    return [(row["kind"], row["level"], row["instance_id"], row["size"]) for row in found]


GOOD = list(zip(LEVELS, BODIES, strict=True))


def test_what_is_right_has_no_errors():
    assert errors(GOOD) == []
    moved = [(level, np.add(body, (3, 2))) for level, body in GOOD]
    assert errors(moved) == []


def test_missed():
    assert errors(GOOD[:3]) == [("missed", "L5", None, 1.0)]
    small = box(30, 160, 80, 176)
    assert errors([*GOOD[:3], ("L5", small)]) == [("missed", "L5", "p3", pytest.approx(0.6))]


def test_nothing_predicted_is_all_missed():
    assert [row[:2] for row in errors([])] == [("missed", level) for level in LEVELS]


def test_extra():
    thoracic = box(30, 210, 80, 250)
    assert errors([*GOOD, ("T11", thoracic)]) == [("extra", "T11", "p4", 1.0)]
    twice = np.add(BODIES[1], (2, 0))
    assert errors([*GOOD, ("L3", twice)]) == [("extra", "L3", "p4", 1.0)]
    assert errors([*GOOD, (None, box(100, 220, 109, 230))]) == []  # a speck


def test_extra_on_a_film_without_vertebrae():
    found = film_errors(outlines(record([]), FOREGROUND), instances(("T11", BODIES[0])), True)
    assert [(row["kind"], row["level"], row["size"]) for row in found] == [("extra", "T11", 1.0)]


def test_fused():
    both = box(30, 60, 80, 150)
    assert errors([GOOD[0], (None, both), GOOD[3]]) == [("fused", "L3+L4", "p1", 2.0)]
    whole = box(30, 10, 80, 200)
    assert errors([(None, whole)]) == [("fused", "L2+L3+L4+L5", "p0", 4.0)]


def test_a_body_that_reaches_over_a_found_one_is_not_fused():
    reaching = box(30, 60, 80, 131)
    found = errors([GOOD[0], ("L3", reaching), GOOD[2], GOOD[3]])
    assert found == [("leaking_outline", "L3", "p1", pytest.approx(31 / 40))]


def test_split():
    upper, lower = box(30, 10, 80, 35), box(30, 37, 80, 50)
    assert errors([("L2", upper), (None, lower), *GOOD[1:]]) == [("split", "L2", "p0", 2.0)]
    halves = box(30, 10, 80, 29), box(30, 31, 80, 50)
    found = errors([("L2", halves[0]), (None, halves[1]), *GOOD[1:]])
    assert found == [("split", "L2", "p0", 2.0)]


def test_level_shifted():
    names = ["L1", "L2", "L3", "L4"]
    shapes = list(zip(names, BODIES, strict=True))
    found = [("level_shifted", level, f"p{k}", -1.0) for k, level in enumerate(LEVELS)]
    assert errors(shapes) == found
    assert errors(shapes, labelled=False) == []
    assert errors([("S1", BODIES[0]), *GOOD[1:]]) == [("level_shifted", "L2", "p0", 4.0)]
    assert errors([(None, BODIES[0]), *GOOD[1:]]) == []


def test_leaking_outline():
    leak = [BODIES[0], box(80, 10, 95, 50)]
    assert errors([("L2", leak), *GOOD[1:]]) == [
        ("leaking_outline", "L2", "p0", pytest.approx(15 / 50))
    ]
    much = box(0, 5, 115, 55)
    found = errors([("L2", much), *GOOD[1:]])
    assert found == [("leaking_outline", "L2", "p0", pytest.approx((115 * 50 - AREA) / AREA))]


def test_implant_as_bone():
    rod = box(90, 10, 100, 210)
    assert errors([*GOOD, (None, rod)], implants=[rod]) == [
        ("implant_as_bone", None, "p4", pytest.approx(1.0))
    ]
    cage = box(35, 51, 75, 59)
    grown = [BODIES[0], cage]
    assert errors([("L2", grown), *GOOD[1:]], implants=[cage]) == [
        ("implant_as_bone", "L2", "p0", pytest.approx(320 / AREA))
    ]


def test_implants_within_bone_are_no_error():
    screw = box(40, 20, 75, 30)
    assert errors(GOOD, implants=[screw]) == []


def test_table_of_all_networks_and_stages():
    tables = {
        "unet": {
            "network": pd.concat(
                [
                    instances((None, box(30, 10, 80, 200))),
                    instances((None, box(90, 0, 100, 90)), class_name="screw"),
                ]
            ),
            "labelled": instances(*GOOD),
        },
        "yolact": {"network": instances(*GOOD[1:]), "labelled": instances(*GOOD[1:])},
    }
    films = {"film": record(), "empty": record()}
    table = find_errors(films, tables, FOREGROUND)
    assert dict(table.dtypes.astype(str)) == ERRORS
    counts = table.groupby(["model", "stage", "image_id", "kind"]).size().to_dict()
    assert counts == {
        ("unet", "network", "film", "fused"): 1,
        ("unet", "network", "empty", "missed"): 4,
        ("unet", "labelled", "empty", "missed"): 4,
        ("yolact", "network", "film", "missed"): 1,
        ("yolact", "labelled", "film", "missed"): 1,
        ("yolact", "network", "empty", "missed"): 4,
        ("yolact", "labelled", "empty", "missed"): 4,
    }
    assert set(table["kind"]) <= set(KINDS)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(-30, 150, width=32), st.floats(-30, 290, width=32)),
        min_size=3,
        max_size=9,
    )
)
def test_polygons_are_encoded_by_their_pixels(polygon):
    structure = {"class_name": FOREGROUND[0], "level": None, "polygon": polygon}
    record = {"rows": ROWS, "columns": COLUMNS_, "structures": [structure]}
    code = outlines(record, FOREGROUND).vertebrae[0]
    mask = rasterise(polygon, ROWS, COLUMNS_)
    assert np.array_equal(rle.decode(code["counts"].decode(), ROWS, COLUMNS_), mask)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 90), st.integers(0, 200), st.integers(5, 60), st.integers(5, 90)),
        max_size=7,
    )
)
def test_every_vertebra_has_one_fate_and_every_body_is_told_of_once(shapes):
    polygons = [("L3", box(x, y, x + w, y + h)) for x, y, w, h in shapes]
    found = errors(polygons, implants=[box(85, 0, 100, 150)])
    fates = [row for row in found if row[0] in ("missed", "fused", "split")]
    told = [level for row in fates for level in row[1].split("+")]
    assert len(told) == len(set(told))
    wholes = [row[2] for row in found if row[0] in ("extra", "fused")]
    assert len(wholes) == len(set(wholes))
    # What belongs to no vertebra does nothing else.
    extra = {row[2] for row in found if row[0] == "extra"}
    assert not extra & {row[2] for row in found if row[0] != "extra"}
    assert all(row[3] >= 0 for row in found if row[0] != "level_shifted")


def test_disagreement_is_one_less_the_mean_dice_of_pairs():
    tables = {
        "a": instances(*GOOD),
        "b": instances(*GOOD),
        "c": instances(*GOOD[:2]),
    }
    expected = 2 * (1 - 2 * 2 / (4 + 2)) / 3
    films = ["film", "none"]
    assert disagreements(tables, films, FOREGROUND) == {"film": pytest.approx(expected), "none": 0}
    assert np.isnan(disagreements({"a": tables["a"]}, ["film"], FOREGROUND)["film"])


def ranked(models, **changes):
    per_image = pd.DataFrame(
        [
            {"model": model, "image_id": film, "mean_iou": score}
            for model, scores in models.items()
            for film, score in zip("xyz", scores, strict=True)
        ]
    )
    errors_of = pd.DataFrame(
        [["unet", "y", stage, "missed", "L3", None, 1.0] for stage in ("network", "labelled")],
        columns=list(ERRORS),
    ).astype(ERRORS)
    strata = pd.DataFrame({"image_id": list("xyz"), "patient_id": list("ppq")})
    strata[list(STRATA)] = ["with", "mild", None, "without"]
    families = {"unet": "semantic", "pspnet": "semantic", "yolact": "instance", "own": None}
    disagreement = changes.get("disagreement", {"x": 0.1, "y": 0.3, "z": 0.2})
    return rank_films(per_image, errors_of, disagreement, strata.astype(COLUMNS), families)


def test_films_are_ranked_by_error_and_by_disagreement():
    table = ranked({"unet": [0.9, 0.5, 0.6], "pspnet": [0.7, 0.6, 0.8], "yolact": [0.8, 0.7, 0.5]})
    assert list(table) == [*RANKING, *STRATA]
    assert table["image_id"].tolist() == ["y", "z", "x"]
    table = table.set_index("image_id")
    assert table["disagreement_rank"].to_dict() == {"y": 1, "z": 2, "x": 3}
    assert table.loc["y", "error"] == pytest.approx(0.4)
    assert table["n_errors"].to_dict() == {"x": 0, "y": 1, "z": 0}
    assert table.loc["z", ["best_model", "worst_model"]].tolist() == ["pspnet", "yolact"]
    assert table.loc["x", "semantic_minus_instance"] == pytest.approx(0.0)
    assert table.loc["z", "semantic_minus_instance"] == pytest.approx(0.2)
    assert table.loc["z", "degeneration"] == "mild"


def test_one_network_is_ranked_without_disagreement():
    nothing = dict.fromkeys("xyz", float("nan"))
    table = ranked({"own": [0.9, 0.5, 0.6]}, disagreement=nothing)
    assert table["image_id"].tolist() == ["y", "z", "x"]
    assert table["disagreement_rank"].isna().all()
    assert table["semantic_minus_instance"].isna().all()
