"""Changes between a patient's studies against the error of measuring."""

import numpy as np
import pandas as pd
import pytest

from lumbarflow.measure.changes import COLUMNS, changes, smallest_detectable_change
from lumbarflow.measure.confidence import TOLERANCES

LIMIT = smallest_detectable_change(TOLERANCES["lordosis"].error_sd)


def films(*rows):
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "study_id", "study_day"])
    return table.astype({"study_day": "Int64"})


def rows(*rows):
    columns = ["image_id", "name", "site", "value", "unit", "confidence", "status", "reason"]
    return pd.DataFrame([(*row, *([""] * (8 - len(row)))) for row in rows], columns=columns)


def lordosis(image_id, value, confidence=0.9, status="measured", reason=""):
    return (image_id, "lordosis", "L1-S1", value, "deg", confidence, status, reason)


THREE = films(("c", "p", "s3", 900), ("a", "p", "s1", 0), ("b", "p", "s2", 400))


def test_the_smallest_detectable_change():
    # Hicks et al. 2006 report 3.90 degrees for a standard error of measurement of 1.41.
    assert smallest_detectable_change(1.407) == pytest.approx(3.90, abs=0.005)
    rng = np.random.default_rng(200000)
    differences = np.diff(rng.normal(0, 3, (100_000, 2)), axis=1)
    exceeding = np.mean(np.abs(differences) > smallest_detectable_change(3))
    assert exceeding == pytest.approx(0.05, abs=0.005)


def test_steps_that_are_each_within_the_error_may_add_up_to_a_change():
    step = 0.6 * LIMIT
    table = changes(
        rows(lordosis("a", 40.0), lordosis("b", 40 + step), lordosis("c", 40 + 2 * step)), THREE
    )
    assert table.dtypes.astype(str).to_dict() == COLUMNS
    assert table["study_id_from"].tolist() == ["s1", "s2", "s1"]
    assert table["study_id_to"].tolist() == ["s2", "s3", "s3"]
    assert table["study_day_to"].tolist() == [400, 900, 900]
    assert table["consecutive"].tolist() == [True, True, False]
    assert table["first_to_last"].tolist() == [False, False, True]
    assert table["change"].tolist() == pytest.approx([step, step, 2 * step])
    assert table["smallest_detectable_change"].tolist() == pytest.approx([LIMIT] * 3)
    assert table["status"].tolist() == ["within_error", "within_error", "changed"]
    assert (table["reason"] == "").all()


def test_two_studies_are_consecutive_and_first_and_last():
    table = changes(rows(lordosis("a", 60.0), lordosis("b", 40.0)), THREE)
    assert len(table) == 1 and table[["consecutive", "first_to_last"]].all(axis=None)
    assert table["change"].item() == -20 and table["status"].item() == "changed"


def test_the_error_of_the_network_at_hand_counts_before_the_table():
    measurements = rows(lordosis("a", 60.0), lordosis("b", 40.0))
    assert changes(measurements, THREE, {"lordosis": 8.0})["status"].item() == "within_error"
    assert changes(measurements, THREE, {"slip": 8.0})["status"].item() == "changed"


def test_missing_and_uncertain_values_are_not_compared_and_the_reader_learns_why():
    absent = lordosis("b", None, 0.0, "not_measurable", "S1 is not seen")
    doubtful = lordosis("c", 60.0, 0.4, "uncertain", "the level of L1")
    slip = ("c", "slip", "L4/L5", 3.0, "mm", 0.9, "measured")
    table = changes(rows(lordosis("a", 40.0), absent, doubtful, slip), THREE)
    assert (table["status"] == "not_comparable").all()
    lordoses = table[table["name"] == "lordosis"]
    assert lordoses["reason"].tolist() == [
        "not measurable at the later study: S1 is not seen",
        "not measurable at the earlier study: S1 is not seen; "
        "uncertain at the later study: the level of L1",
        "uncertain at the later study: the level of L1",
    ]
    assert lordoses["change"].tolist() == pytest.approx([np.nan, np.nan, 20], nan_ok=True)
    slips = table[table["name"] == "slip"]
    assert slips["reason"].tolist() == ["not measurable at the earlier study"] * 2


def test_pixels_of_two_films_are_not_compared():
    manifest = THREE[THREE["image_id"] != "c"]
    for units, words in ((("px", "px"), "no common scale"), (("mm", "px"), "of one film")):
        table = changes(
            rows(
                *(
                    (film, "slip", "L4/L5", value, unit, 0.9, "measured")
                    for film, value, unit in zip("ab", (1.0, 30.0), units, strict=True)
                )
            ),
            manifest,
        )
        assert table["status"].item() == "not_comparable" and words in table["reason"].item()
        assert table["change"].isna().item()
    ratios = [
        (film, "wedge_ratio", "L4", v, "1", 0.9, "measured")
        for film, v in zip("ab", (1, 0.7), strict=True)
    ]
    assert changes(rows(*ratios), manifest)["status"].item() == "changed"


def test_a_value_without_known_error_is_not_called_a_change():
    made = [
        (film, "new_angle", "L4", v, "deg", 0.9, "measured")
        for film, v in zip("ab", (1, 70), strict=True)
    ]
    table = changes(rows(*made), THREE)
    assert table["status"].item() == "not_comparable" and "unknown" in table["reason"].item()
    assert changes(rows(*made), THREE, {"new_angle": 2.0})["status"].item() == "changed"


def test_of_several_films_of_a_day_the_most_confident_one_stands_for_all_its_values():
    manifest = films(
        ("a", "p", "s1", 0), ("b1", "p", "s2", 9), ("b2", "p", "s2", 9), ("b3", "p", "s3", 9)
    )
    slips = [(film, "slip", "L4/L5", 2.0, "mm", 0.6, "measured") for film in ("a", "b2")]
    table = changes(
        rows(
            lordosis("a", 50.0),
            lordosis("b1", 90.0, 0.95),  # surer, but there is less on it
            lordosis("b2", 51.0, 0.8),
            lordosis("b3", None, 1.0, "not_measurable"),
            *slips,
        ),
        manifest,
    )
    assert set(table["image_id_to"]) == {"b2"}
    assert set(table["status"]) == {"within_error"}


def test_patients_are_not_mixed_and_films_without_day_or_company_are_left_out():
    manifest = films(
        ("a", "p", "s1", 0), ("b", "q", "s2", 5), ("c", "p", "s3", None), ("d", "q", "s4", 70)
    )
    table = changes(rows(*(lordosis(film, 50.0) for film in "abcd")), manifest)
    assert table[["patient_id", "image_id_from", "image_id_to"]].values.tolist() == [
        ["q", "b", "d"]
    ]
    none = changes(rows(lordosis("a", 50.0)), manifest)
    assert none.empty and none.dtypes.astype(str).to_dict() == COLUMNS
