"""The order in which films are to be annotated."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow import rle
from lumbarflow.annotate.ranking import COLUMNS, best_model, rank, unannotated

FOREGROUND = ["lumbar_vertebra", "sacral_vertebra"]
SIZE = 20, 10


def box(image_id, top, bottom, score=1.0, class_name="lumbar_vertebra", level=None) -> dict:
    """An instance that covers the rows from top to bottom."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom] = True
    return {
        "image_id": image_id,
        "class_name": class_name,
        "level": level,
        "score": score,
        "rle_counts": rle.encode(mask),
        "rle_height": SIZE[0],
        "rle_width": SIZE[1],
    }


def table(*rows: dict) -> pd.DataFrame:
    names = ["image_id", "class_name", "level", "score", "rle_counts", "rle_height", "rle_width"]
    return pd.DataFrame(rows, columns=names).astype({"level": "string"})


def films(**patients: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(patients), "patient_id": list(patients.values())})


def test_parts_of_the_score_worked_by_hand():
    predictions = {
        "a": table(box("x", 0, 10, 0.9), box("x", 12, 14, 0.7, "screw")),
        "b": table(box("x", 5, 10, 0.6)),
    }
    (row,) = rank(films(x="p"), [], predictions, FOREGROUND).to_dict("records")
    assert row["outline_disagreement"] == pytest.approx(1 - 2 * 5 / 15)
    assert row["count_disagreement"] == pytest.approx(1 - 1 / 2)
    assert row["low_confidence"] == pytest.approx(1 - (0.8 + 0.6) / 2)
    assert row["score"] == pytest.approx((1 / 3 + 1 / 2 + 0.3) / 3)
    assert row["reason"] == "the networks find different structures (0.50 in common)"


def test_levels_count_where_they_are_known():
    predictions = {
        "a": table(box("x", 0, 10, level="L4")),
        "b": table(box("x", 0, 10, level="L5")),
    }
    (row,) = rank(films(x="p"), [], predictions, FOREGROUND).to_dict("records")
    assert row["count_disagreement"] == 1
    assert row["outline_disagreement"] == 0


def test_a_film_on_which_no_network_finds_anything_is_unsure_not_agreed_on():
    predictions = {"a": table(), "b": table()}
    (row,) = rank(films(x="p"), [], predictions, FOREGROUND).to_dict("records")
    assert (row["outline_disagreement"], row["count_disagreement"]) == (0, 0)
    assert row["low_confidence"] == 1


def test_one_network_gives_confidence_alone():
    rows = rank(films(x="p", y="q"), [], {"a": table(box("x", 0, 9, 0.9), box("y", 0, 9, 0.4))}, [])
    assert rows["image_id"].tolist() == ["y", "x"]
    assert rows["outline_disagreement"].isna().all() and rows["count_disagreement"].isna().all()
    assert rows["score"].tolist() == pytest.approx([0.6, 0.1])
    assert rows["reason"][0] == "the networks are unsure (mean score 0.40)"


def test_a_patients_further_films_wait():
    scores = {"x1": 0.2, "x2": 0.3, "y1": 0.5}
    predictions = {"a": table(*(box(name, 0, 9, score) for name, score in scores.items()))}
    rows = rank(films(x1="x", x2="x", y1="y"), [], predictions, [])
    assert rows["image_id"].tolist() == ["x1", "y1", "x2"]  # values 0.8, 0.5, 0.7 / 2
    assert rows["patient_films_before"].tolist() == [0, 0, 1]
    assert rows["reason"][2].endswith("; 1 other film of the patient before")


def test_annotated_films_of_the_patient_count_too():
    predictions = {"a": table(box("x1", 0, 9, 0.2), box("y1", 0, 9, 0.5))}
    rows = rank(films(x0="x", x1="x", x2="x", y1="y"), ["x0", "x2"], predictions, [])
    assert rows["image_id"].tolist() == ["y1", "x1"]
    assert rows["patient_films_before"].tolist() == [0, 2]


def test_with_nothing_trained_films_are_spread_over_patients():
    rows = rank(films(a1="a", a2="a", b1="b", b2="b", c1="c"), [], {}, FOREGROUND)
    assert rows["image_id"].tolist() == ["a1", "b1", "c1", "a2", "b2"]
    assert rows["score"].isna().all()
    assert set(rows["reason"]) >= {"no trained network yet"}


def test_nothing_to_annotate_is_an_empty_table():
    rows = rank(films(x="p"), ["x"], {"a": table()}, FOREGROUND)
    assert rows.empty and list(rows) == list(COLUMNS)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_order_is_that_of_choosing_the_best_film_again_and_again(data):
    """One sort by discounted score does what the greedy choice does."""
    names = [f"f{n}" for n in range(data.draw(st.integers(1, 8)))]
    patients = {name: data.draw(st.sampled_from("abc")) for name in names}
    scores = {name: data.draw(st.integers(0, 100)) / 100 for name in names}
    predictions = {"a": table(*(box(name, 0, 9, scores[name]) for name in names))}
    rows = rank(films(**patients), [], predictions, [])
    assert rows["order"].tolist() == list(range(1, len(names) + 1))
    assert sorted(rows["image_id"]) == names
    left, seen = set(names), dict.fromkeys("abc", 0)
    for image_id in rows["image_id"]:
        value = {name: (1 - scores[name]) * 0.5 ** seen[patients[name]] for name in left}
        assert value[image_id] == pytest.approx(max(value.values()))
        left.remove(image_id)
        seen[patients[image_id]] += 1
    again = rank(films(**patients).iloc[::-1], [], predictions, [])
    pd.testing.assert_frame_equal(again, rows)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.floats(0, 1)), max_size=3),
        min_size=2,
        max_size=5,
    )
)
def test_parts_lie_between_nought_and_one_and_equal_networks_agree(networks):
    tables = [table(*(box("x", t, t + h, s) for t, h, s in boxes)) for boxes in networks]
    rows = rank(films(x="p"), [], dict(enumerate(tables)), FOREGROUND)
    for name in ("outline_disagreement", "count_disagreement", "low_confidence", "score"):
        assert 0 <= rows[name][0] <= 1 + 1e-12
    same = rank(films(x="p"), [], {"a": tables[0], "b": tables[0]}, FOREGROUND)
    assert same["outline_disagreement"][0] == same["count_disagreement"][0] == 0


def test_best_model_is_the_one_with_the_best_validation_dice(tmp_path):
    runs = {}
    for model, dice in (("unet", 0.8), ("pspnet", 0.9), ("yolact", 0.9)):
        runs[model] = tmp_path / f"{model}.json"
        runs[model].write_text(json.dumps({"best_validation_dice": dice}))
    assert best_model(runs) == "pspnet"
    assert best_model({}) is None


def test_unannotated_films_are_accepted_and_have_no_record(tmp_path):
    manifest = pd.DataFrame(
        {"image_id": ["c", "b", "a", "d"], "status": ["accepted"] * 3 + ["rejected"]}
    )
    (tmp_path / "b.json").write_text("{}")
    assert unannotated(manifest, tmp_path) == ["a", "c"]
    assert unannotated(manifest, None) == ["a", "b", "c"]
