"""Counting right levels, shifted films and confusions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.evaluate.levels import (
    CONFUSION,
    FILMS,
    LEVELS,
    MISSED,
    RELIABILITY,
    SUMMARY,
    UNNAMED,
    confusion,
    film_table,
    level_table,
    reliability,
    shifted,
    summarise,
)
from lumbarflow.measure.anatomy import Body, Vertebra

CHAIN = ("T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "S2")


def body(name, row, level=None, rows=20, column=10):
    return Body(name, "lumbar_vertebra", 0.9, (column, row), np.ones((rows, 30), bool), None, level)


def reference(levels):
    return [body(f"R{k}", 30 * k, level) for k, level in enumerate(levels)]


def found(levels, probability=0.9, offset=0):
    return [
        Vertebra(body(f"P{k}", 30 * k + offset), level, probability, None)
        for k, level in enumerate(levels)
    ]


def table(drawn, told, model="unet", image_id="film", **options):
    return level_table(model, image_id, reference(drawn), found(told, **options))


def test_a_row_for_each_reference_vertebra():
    predicted = found(["L1", "L2", None, "L5"])
    # Of the fifth vertebra only a third is found; the last one is nowhere.
    predicted.append(Vertebra(body("P4", 120, rows=7), "L4", 0.8, None))
    rows = level_table("unet", "film", reference(["L1", "L3", "L4", None, "L4", "S1"]), predicted)
    assert rows.dtypes.astype(str).to_dict() == LEVELS
    assert rows["reference_id"].tolist() == ["R0", "R1", "R2", "R3", "R4", "R5"]
    assert rows["matched"].tolist() == [True, True, True, True, False, False]
    assert rows["iou"].tolist() == pytest.approx([1, 1, 1, 1, 7 / 20, 0])
    assert rows["matched_id"].fillna("").tolist() == ["P0", "P1", "P2", "P3", "", ""]
    assert rows["predicted_level"].fillna("").tolist() == ["L1", "L2", "", "L5", "", ""]
    assert rows["correct"].isna().tolist() == [False, False, False, True, False, False]
    assert rows["correct"].dropna().tolist() == [True, False, False, False, False]
    assert rows["probability"].notna().tolist() == [True, True, False, True, False, False]


def test_each_body_matches_one_vertebra_and_the_better_one():
    # Windows 20 rows high: one body lies 2 rows from the first vertebra, another 4.
    predicted = [
        Vertebra(body("near", 2), "L1", 0.9, None),
        Vertebra(body("far", 4), "L2", 0.9, None),
    ]
    rows = level_table("unet", "film", reference(["L1"]), predicted)
    assert rows["matched_id"].tolist() == ["near"]
    assert rows["iou"].tolist() == pytest.approx([18 / 22])


def test_films_without_anything():
    assert level_table("unet", "film", [], found(["L1"])).empty
    rows = table(["L1", "L2"], [])
    assert not rows["matched"].any() and shifted(rows) is None
    assert film_table(rows).loc[0, "shifted_by_one"] == np.False_
    assert rows.iloc[:0].pipe(film_table).pipe(summarise).empty
    empty = Body("E", "lumbar_vertebra", 1.0, (0, 0), np.zeros((4, 4), bool), None, "L1")
    rows = level_table("unet", "film", [empty], [Vertebra(empty, "L1", 1.0, None)])
    assert rows["iou"].tolist() == [0.0] and not rows["matched"].any()


@given(st.integers(1, 5), st.integers(-2, 2))
@settings(max_examples=40, deadline=None)
def test_a_constant_shift_is_found(count, shift):
    drawn = CHAIN[2 : 2 + count]
    told = [CHAIN[2 + k + shift] for k in range(count)]
    rows = table(drawn, told)
    assert shifted(rows) == shift
    assert film_table(rows)["shifted_by_one"].tolist() == [abs(shift) == 1]


def test_variants_count_where_they_stand():
    with_l6 = ("T12", "L1", "L2", "L3", "L4", "L5", "L6", "S1", "S2")
    assert shifted(table(with_l6, CHAIN)) == -1
    assert shifted(table(CHAIN, with_l6)) == 1
    assert shifted(table(["L5"], ["S1"])) == 1 and shifted(table(["L6"], ["S1"])) == 1
    assert shifted(table(["T12"], ["L1"])) == 1 and shifted(table(["L1"], ["T13"])) == -1


def test_most_of_the_matched_vertebrae_decide():
    drawn = ("L1", "L2", "L3", "L4", "L5")
    assert shifted(table(drawn, ("L1", "L2", "L4", "L5", "S1"))) == 1
    # Half of them are not most, nor are vertebrae without a level shifted.
    assert shifted(table(drawn[:4], ("L1", "L2", "L4", "L5"))) is None
    assert shifted(table(drawn, ("L2", "L3", None, None, None))) is None
    assert shifted(table(drawn, (None,) * 5)) is None
    assert shifted(table((None, None, "L3"), ("L1", "L2", "L4"))) == 1


@pytest.fixture
def rows():
    films = [
        table(CHAIN, CHAIN, image_id="right"),
        table(CHAIN, CHAIN[1:], image_id="shifted"),
        table(CHAIN, (*CHAIN[:4], None, *CHAIN[5:]), image_id="unnamed", probability=0.55),
        table(CHAIN[:4], ("T11", "T12", "L2", "L2"), "pspnet", "right"),
    ]
    return pd.concat(films, ignore_index=True)


def test_films_and_their_sums(rows):
    films = film_table(rows)
    assert films.dtypes.astype(str).to_dict() == FILMS
    assert films["shift"].tolist() == [0, 1, 0, 0]
    assert films["n_correct"].tolist() == [9, 0, 8, 3]
    assert films["n_matched"].tolist() == [9, 8, 9, 4]
    summary = summarise(films).set_index("model")
    assert summarise(films).dtypes.astype(str).to_dict() == SUMMARY
    unet = summary.loc["unet"]
    assert (unet["n_films"], unet["n_reference"], unet["n_shifted_by_one"]) == (3, 27, 1)
    assert unet["share_matched"] == pytest.approx(26 / 27)
    assert unet["share_correct"] == pytest.approx(17 / 26)
    assert unet["recognition_rate"] == pytest.approx(17 / 27)
    assert unet["share_shifted_by_one"] == pytest.approx(1 / 3)
    assert summary.loc["pspnet", "share_correct"] == pytest.approx(3 / 4)


def test_shares_of_nothing_are_not_numbers():
    summary = summarise(film_table(table(["L1"], [])))
    assert summary["share_matched"].tolist() == [0.0] and summary["share_correct"].isna().all()


def test_confusions_from_head_to_foot(rows):
    found = confusion(rows)
    assert found.dtypes.astype(str).to_dict() == CONFUSION
    assert found["count"].sum() == len(rows)
    of_unet = found[found["model"] == "unet"]
    assert of_unet["reference_level"].drop_duplicates().tolist() == list(CHAIN)
    at_l3 = of_unet[of_unet["reference_level"] == "L3"]
    assert at_l3["predicted_level"].tolist() == ["L3", "L4", UNNAMED]
    at_s2 = of_unet[of_unet["reference_level"] == "S2"]
    assert dict(zip(at_s2["predicted_level"], at_s2["count"], strict=True)) == {"S2": 2, MISSED: 1}
    assert found["model"].tolist()[-1] == "pspnet"


def test_reliability_counts_what_is_named(rows):
    found = reliability(rows)
    assert found.dtypes.astype(str).to_dict() == RELIABILITY
    unet = found[found["model"] == "unet"].set_index("low")
    assert unet.index.tolist() == [0.5, 0.9]
    assert unet["n"].tolist() == [8, 17]
    assert unet["mean_probability"].tolist() == pytest.approx([0.55, 0.9])
    assert unet["share_correct"].tolist() == pytest.approx([1.0, 9 / 17])
    certain = reliability(table(["L1"], ["L1"], probability=1.0))
    assert certain[["low", "high", "n"]].to_numpy().tolist() == [[0.9, 1.0, 1]]
