"""Measured against reference values: pairs, errors, agreement, reliability."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lumbarflow.evaluate.measurements import (
    COMPARED,
    METRICS,
    RELIABILITY,
    SUMMARY,
    calibration_error,
    compare,
    error_sds,
    intraclass_correlation,
    reliability,
    summarise,
    wrong_levels,
)

# Six targets rated by four judges: Shrout and Fleiss 1979, table 2.
RATINGS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)


def measured(*rows):
    columns = ["image_id", "name", "site", "value", "unit", "status", "confidence"]
    return pd.DataFrame(rows, columns=columns).assign(reason="")


def known(*rows):
    return pd.DataFrame(rows, columns=["image_id", "name", "site", "value", "unit"])


def lordoses(values, references, statuses=None):
    films = [f"film{k:04d}" for k in range(len(values))]
    statuses = statuses or ["measured"] * len(films)
    return compare(
        measured(
            *(
                (film, "lordosis", "L1-S1", value, "deg", status, 0.9)
                for film, value, status in zip(films, values, statuses, strict=True)
            )
        ),
        known(
            *(
                (film, "lordosis", "L1-S1", v, "deg")
                for film, v in zip(films, references, strict=True)
            )
        ),
    )


def metric(summary, name, column="value"):
    return summary.set_index("metric")[column][name]


def test_the_worked_example_of_shrout_and_fleiss():
    found = intraclass_correlation(RATINGS)
    assert found.value == pytest.approx(0.29, abs=0.005)
    # The bounds that they, and packages after them, give.
    assert (found.low, found.high) == pytest.approx((0.019, 0.761), abs=0.002)


@given(
    arrays(
        np.float64, st.tuples(st.integers(2, 8), st.integers(2, 4)), elements=st.floats(-50, 50)
    ),
    st.floats(-20, 20),
    st.floats(0.1, 10),
)
@settings(max_examples=40, deadline=None)
def test_the_coefficient_does_not_know_units_or_raters(ratings, shift, scale):
    assume(np.ptp(ratings) > 1e-3)
    found = intraclass_correlation(ratings)
    other = intraclass_correlation(scale * ratings[::-1, ::-1] + shift)
    assert other.value == pytest.approx(found.value, abs=1e-6, nan_ok=True)
    assert np.isnan(found.value) or found.value <= 1
    # The interval of McGraw and Wong need not hold a coefficient below 0.
    if found.value > 0:
        assert found.low <= found.value <= found.high


def test_coefficients_that_are_one_or_undefined():
    perfect = intraclass_correlation(np.repeat([[1.0], [2.0], [4.0]], 2, axis=1))
    assert perfect.value == perfect.low == perfect.high == 1
    assert np.isnan(intraclass_correlation(np.ones((4, 2))).value)
    assert np.isnan(intraclass_correlation(np.ones((1, 2))).value)


def test_every_expected_and_every_measured_value_has_a_row():
    table = compare(
        measured(
            ("a", "slip", "L4/L5", 5.0, "mm", "measured", 0.9),
            ("a", "slip", "L3/L4", 4.0, "mm", "uncertain", 0.4),
            ("a", "slip", "L2/L3", 1.0, "mm", "measured", 0.8),
            ("a", "slip", "L5/S1", None, "mm", "not_measurable", 0.0),
            ("other", "slip", "L4/L5", 5.0, "mm", "measured", 0.9),
        ),
        known(
            ("a", "slip", "L4/L5", 4.0, "mm"),
            ("a", "slip", "L3/L4", 0.0, "mm"),
            ("a", "slip", "L5/S1", 0.0, "mm"),
            ("a", "slip", "L1/L2", 0.0, "mm"),
            ("a", "slip", "T12/L1", 0.0, "mm"),
            ("a", "corner_x", "L4 anterior_superior", 100.0, "px"),
        ),
        levels={"a": ["L1", "L2", "L3", "L4", "L5", "S1"]},
    )
    assert table.dtypes.astype(str).to_dict() == COMPARED
    rows = table.set_index("site")
    assert list(rows.index) == ["L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"]
    assert rows["status"].to_dict() == {
        "L1/L2": "not_measurable",
        "L2/L3": "measured",
        "L3/L4": "uncertain",
        "L4/L5": "measured",
        "L5/S1": "not_measurable",
    }
    assert rows["error"].to_dict() == pytest.approx(
        {"L1/L2": np.nan, "L2/L3": np.nan, "L3/L4": 4, "L4/L5": 1, "L5/S1": np.nan}, nan_ok=True
    )
    assert rows["right"].to_list() == [pd.NA, pd.NA, False, True, pd.NA]
    assert (rows["unit"] == "mm").all()
    assert rows.index[~rows["expected"]].tolist() == ["L2/L3"]


def test_what_is_measured_beyond_the_levels_of_the_film_counts_as_error_but_not_as_a_share():
    rows = [("a", "slip", site) for site in ("T10/T11", "L4/L5")]
    table = compare(
        measured((*rows[0], 2.0, "mm", "measured", 0.9)),
        known(*((*row, 0.0, "mm") for row in rows)),
        levels={"a": {"L4", "L5"}},
    )
    assert table["expected"].tolist() == [True, False]
    summary = summarise(table)
    assert metric(summary, "share_measurable") == 0
    assert metric(summary, "mae") == 2


def test_the_right_value_of_the_wrong_level_is_wrong():
    rows = (("a", "slip", "L3/L4"), ("a", "slip", "L4/L5"), ("a", "slip", "L1/L2"))
    table = compare(
        measured(*((*row, 0.0, "mm", "measured", 0.9) for row in rows)),
        known(*((*row, 0.0, "mm") for row in rows[:2])),
        wrong_levels={"a": {"L3", "L2"}},
    )
    right = table.set_index("site")["right"].to_dict()
    assert right == {"L1/L2": False, "L3/L4": False, "L4/L5": True}


def test_levels_given_to_bodies_of_another():
    table = pd.DataFrame(
        [("a", "L3", "L4"), ("a", "L4", "L5"), ("a", "L2", None), ("b", "L1", "L1")],
        columns=["image_id", "level", "predicted_level"],
    ).astype("string")
    assert wrong_levels(table) == {"a": {"L4", "L5"}}


def test_pixels_and_millimetres_are_not_subtracted():
    heights = [("a", "body_height_posterior", level) for level in ("L1", "L2")]
    table = compare(
        measured(*((*row, 100.0, "px", "measured", 0.9) for row in heights)),
        known((*heights[0], 28.0, "mm"), (*heights[1], 108.0, "px")),
    )
    assert table["error"].to_list() == pytest.approx([np.nan, -8], nan_ok=True)
    # 27 mm are 108 px, so that 2 mm are 8.
    assert table["tolerance"].to_list() == pytest.approx([8, 8])
    assert table["right"].to_list() == [pd.NA, True]


def test_errors_and_limits_by_hand():
    values, references = [52.0, 49.0, 61.0, 38.0], [50.0, 50.0, 58.0, 38.0]
    summary = summarise(lordoses(values, references))
    assert summary.dtypes.astype(str).to_dict() == SUMMARY
    assert summary["metric"].tolist() == list(METRICS)
    errors = np.array([2, -1, 3, 0])
    sd = errors.std(ddof=1)
    assert metric(summary, "bias") == pytest.approx(1)
    assert metric(summary, "mae") == pytest.approx(1.5)
    assert metric(summary, "sd") == pytest.approx(sd)
    assert metric(summary, "limit_low") == pytest.approx(1 - 1.96 * sd)
    assert metric(summary, "limit_high") == pytest.approx(1 + 1.96 * sd)
    exact = intraclass_correlation(np.column_stack([values, references]))
    assert metric(summary, "icc") == pytest.approx(exact.value)
    assert metric(summary, "icc", "ci_low") == pytest.approx(exact.low)
    assert metric(summary, "share_measured") == metric(summary, "share_right") == 1


@given(arrays(np.float64, (6, 2), elements=st.floats(-90, 90)))
@settings(max_examples=10, deadline=None)
def test_the_coefficient_from_sums_is_that_from_the_ratings(pairs):
    assume(np.ptp(pairs) > 1e-2)
    summary = summarise(lordoses(pairs[:, 0], pairs[:, 1]), n_boot=5)
    exact = intraclass_correlation(pairs)
    assert metric(summary, "icc") == pytest.approx(exact.value, abs=1e-6, nan_ok=True)


def test_shares_and_uncertain_values():
    statuses = ["measured", "measured", "uncertain", "not_measurable"]
    table = lordoses([50.0, 51.0, 70.0, None], [50.0, 50.0, 50.0, 50.0], statuses)
    everything, sure = summarise(table), summarise(table, uncertain=False)
    for summary in (everything, sure):
        assert metric(summary, "share_measurable") == 0.75
        assert metric(summary, "share_measured") == 0.5
        assert metric(summary, "share_measured", "n") == 4
    assert metric(everything, "mae") == 7 and metric(everything, "mae", "n") == 3
    assert metric(sure, "mae") == 0.5 and metric(sure, "mae", "n") == 2
    assert metric(everything, "share_right") == pytest.approx(2 / 3)
    assert metric(sure, "share_right") == 1


def test_intervals_are_over_patients():
    rng = np.random.default_rng(200000)
    # Ten patients with ten films each, whose errors are the patient's.
    errors = np.repeat(rng.normal(0, 3, 10), 10)
    references = rng.normal(50, 10, 100)
    table = lordoses(references + errors, references)
    patients = {film: film[:7] for film in table["image_id"]}
    of_films, of_patients = summarise(table), summarise(table, patients)

    def width(summary):
        return metric(summary, "bias", "ci_high") - metric(summary, "bias", "ci_low")

    assert width(of_patients) > 2 * width(of_films)
    assert metric(of_patients, "bias") == metric(of_films, "bias")
    low, high = (metric(of_patients, "icc", column) for column in ("ci_low", "ci_high"))
    assert low < metric(of_patients, "icc") < high


def test_one_film_has_no_interval_and_the_order_of_rows_does_not_matter():
    one = summarise(lordoses([50.0], [48.0]))
    assert one[["ci_low", "ci_high"]].isna().all(axis=None)
    assert metric(one, "bias") == 2 and np.isnan(metric(one, "sd"))
    table = lordoses(np.arange(40.0, 60), np.arange(41.0, 61) ** 1.01)
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(summarise(table), summarise(shuffled))


def test_sites_apart():
    rows = [(film, "slip", site) for film in "abc" for site in ("L3/L4", "L4/L5")]
    table = compare(
        measured(*((*row, float(k), "mm", "measured", 0.9) for k, row in enumerate(rows))),
        known(*((*row, 0.0, "mm") for row in rows)),
    )
    bias = summarise(table, by_site=True).query("metric == 'bias'").set_index("site")["value"]
    assert bias.to_dict() == {"L3/L4": 2, "L4/L5": 3}
    assert summarise(table).query("metric == 'bias'")["value"].item() == 2.5


def judged(confidences, right):
    table = lordoses(np.full(len(right), 50.0), np.where(right, 50.0, 80.0))
    return table.assign(confidence=confidences)


def test_reliability_bins_by_hand():
    table = judged([0.95, 1.0, 0.96, 0.72, 0.78, 0.1], [True, True, False, True, False, False])
    found = reliability(table)
    assert found.dtypes.astype(str).to_dict() == RELIABILITY
    assert found["bin_low"].tolist() == [0, 0.7, 0.95]
    assert found["n"].tolist() == [1, 2, 3]
    assert found["confidence"].tolist() == pytest.approx([0.1, 0.75, 0.97])
    assert found["right"].tolist() == pytest.approx([0, 0.5, 2 / 3])
    # Wilson's interval of none of one, and of one of two.
    assert found["ci_high"].tolist()[0] == pytest.approx(0.7935, abs=1e-3)
    assert found[["ci_low", "ci_high"]].to_numpy()[1] == pytest.approx([0.0945, 0.9055], abs=1e-3)
    error = (1 * 0.1 + 2 * 0.25 + 3 * (0.97 - 2 / 3)) / 6
    assert calibration_error(found) == pytest.approx(error)


def test_honest_confidences_have_a_small_calibration_error_and_boasts_a_large_one():
    rng = np.random.default_rng(200001)
    confidences = rng.uniform(0.3, 1, 2000)
    right = rng.random(2000) < confidences
    assert calibration_error(reliability(judged(confidences, right))) < 0.04
    assert calibration_error(reliability(judged(np.full(2000, 0.99), right))) > 0.3


def test_nothing_to_judge():
    empty = reliability(lordoses([None], [50.0], ["not_measurable"]))
    assert empty.empty and np.isnan(calibration_error(empty))
    assert summarise(lordoses([], [])).empty


def test_error_sds_of_measured_values_on_enough_films():
    errors = np.tile([-2.0, 2.0], 6)
    table = lordoses(50 + errors, np.full(12, 50.0))
    assert error_sds(table) == {"lordosis": pytest.approx(errors.std(ddof=1))}
    assert error_sds(table.iloc[:9]) == {}
    assert error_sds(table.assign(status="uncertain")) == {}
