"""Tolerances, whether values are right, and calibrated confidences."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.errors import InputError
from lumbarflow.measure.anatomy import Measurement
from lumbarflow.measure.confidence import (
    TOLERANCES,
    Calibration,
    Feature,
    calibrated,
    film_scale,
    fit,
    judge,
    levels_of,
    limit_of,
)


def measurement(confidence=0.9, name="lordosis", site="L1-S1", value=50.0, unit="deg", **more):
    return Measurement(name, site, value, unit, confidence, more.pop("status", "measured"), **more)


def reference(*rows):
    return pd.DataFrame(rows, columns=["name", "site", "value", "unit"])


def simulated(rng, films, truth, per_film=12, name="lordosis"):
    """Films whose values are right with probability truth(confidence, features)."""
    made = []
    for _ in range(films):
        film = []
        for _ in range(per_film):
            confidence, support = rng.uniform(0.05, 0.95), rng.uniform(0, 1)
            one = measurement(confidence, name, features={"support": support})
            film.append((one, bool(rng.random() < truth(confidence, support))))
        made.append(film)
    return made


def expected_error(calibration, rng, truth):
    film = simulated(rng, 1, truth, 2000)[0]
    return np.mean(
        [
            abs(calibration.probability(m) - truth(m.confidence, m.features["support"]))
            for m, _ in film
        ]
    )


def test_the_default_leaves_confidences_alone_but_claims_no_certainty():
    found = calibrated([measurement(c) for c in (0.0, 0.3, 0.75, 1.0)])
    assert [m.confidence for m in found] == pytest.approx([0.01, 0.3, 0.75, 0.99])


def test_low_confidence_makes_a_value_uncertain_and_says_why():
    low = measurement(0.34, features={"level": 0.65, "support": 0.6, "other": 0.1})
    (found,) = calibrated([low])
    assert found.status == "uncertain"
    assert found.value == low.value
    assert found.reason == ("only 34% likely to be within 5 deg; weakest: the level (0.65)")
    assert calibrated([low], uncertain_below=0.3)[0].status == "measured"
    assert calibrated([measurement(0.5)])[0] == measurement(0.5)


def test_what_is_uncertain_or_not_measurable_keeps_its_status_and_reason():
    cut = measurement(0.9, status="uncertain", reason="cut by the edge of the film")
    absent = measurement(0.0, value=None, status="not_measurable", reason="S1 is not seen")
    assert calibrated([cut, absent]) == [cut, absent]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_higher_confidence_never_becomes_a_lower_one(a, b, seed):
    rng = np.random.default_rng(seed)
    # Even where on the validation films the more confident were the more wrong.
    calibration = fit(simulated(rng, 5, lambda c, s: 1 - c))
    low, high = sorted((a, b))
    assert calibration.probability(measurement(low)) <= calibration.probability(measurement(high))


@pytest.mark.parametrize(
    "truth",
    [
        lambda c, s: 0.4 * c,  # overconfident
        lambda c, s: 0.6 + 0.4 * c,  # too modest
        lambda c, s: 0.2 + 0.7 * s,  # confidence says nothing, the feature all
    ],
)
def test_many_films_teach_the_calibration(truth):
    rng = np.random.default_rng(200000)
    before = expected_error(Calibration(), rng, truth)
    after = expected_error(fit(simulated(rng, 150, truth)), rng, truth)
    assert after < 0.06 < 0.15 < before


def test_few_films_change_little_and_none_nothing():
    rng = np.random.default_rng(200001)
    one = fit(simulated(rng, 1, lambda c, s: 0.0))
    many = fit(simulated(rng, 100, lambda c, s: 0.0))
    raw = measurement(0.9)
    assert many.probability(raw) < 0.05 < 0.2 < one.probability(raw) < 0.9
    assert fit([]) == fit([[]]) == Calibration()


def test_a_film_counts_the_same_however_many_values_it_has():
    film = [(measurement(0.9), False)] * 20
    assert fit([film]).probability(measurement(0.9)) == pytest.approx(
        fit([film * 5]).probability(measurement(0.9)), abs=1e-4
    )


def test_names_differ_and_unknown_ones_take_the_common_calibration():
    rng = np.random.default_rng(200002)
    films = [
        good + bad
        for good, bad in zip(
            simulated(rng, 60, lambda c, s: 0.95, 5, "slip"),
            simulated(rng, 60, lambda c, s: 0.5, 5, "disc_angle"),
            strict=True,
        )
    ]
    calibration = fit(films)
    slip, angle, new = (
        calibration.probability(measurement(0.7, name)) for name in ("slip", "disc_angle", "cobb")
    )
    assert angle < new < slip


def test_the_order_of_films_and_values_does_not_matter():
    films = simulated(np.random.default_rng(200003), 8, lambda c, s: c)
    other = [film[::-1] for film in films[::-1]]
    raw = measurement(0.6, features={"support": 0.2})
    assert fit(films).probability(raw) == pytest.approx(fit(other).probability(raw), abs=1e-4)


def test_features_beyond_those_seen_count_as_the_farthest_seen():
    calibration = Calibration(features={"residual_px": Feature(1.0, 0.5, 0.2, 2.0, -0.8)})
    at = [
        calibration.probability(measurement(0.8, features={"residual_px": value}))
        for value in (0.2, 2.0, 50.0)
    ]
    assert at[0] > at[1] == at[2]
    assert calibration.probability(measurement(0.8)) == pytest.approx(0.8)


def test_a_calibration_survives_json_and_another_file_is_told():
    calibration = fit(simulated(np.random.default_rng(200004), 5, lambda c, s: 0.8 * s))
    assert calibration.features and calibration.films == 5 and calibration.values == 60
    again = Calibration.from_dict(json.loads(json.dumps(calibration.as_dict())))
    assert again == calibration
    with pytest.raises(InputError, match="remove its file"):
        Calibration.from_dict({"slope": 1})
    with pytest.raises(InputError, match="remove its file"):
        Calibration.from_dict({"features": {}, "other": 1})


def test_values_are_right_within_the_tolerance_and_at_the_right_level():
    found = judge(
        [
            measurement(value=54.0),
            measurement(name="slip", site="L4/L5", value=4.0, unit="mm"),
            measurement(name="slip", site="L3/L4", value=0.0, unit="mm"),
            measurement(name="body_height_middle", site="L2", value=26.0, unit="mm"),
            measurement(name="wedge_ratio", site="T12", value=0.9, unit="1"),
            measurement(name="sacral_slope", site="S1", value=None, status="not_measurable"),
        ],
        reference(
            ("lordosis", "L1-S1", 50.0, "deg"),
            ("slip", "L4/L5", 0.5, "mm"),
            ("slip", "L3/L4", 0.0, "mm"),
            ("body_height_middle", "L2", 180.0, "px"),
            ("sacral_slope", "S1", 40.0, "deg"),
        ),
        wrong_levels={"L3", "T12"},
    )
    assert [(m.name, m.site, right) for m, right in found] == [
        ("lordosis", "L1-S1", True),
        ("slip", "L4/L5", False),
        ("slip", "L3/L4", False),  # near enough, but not of this level
        ("wedge_ratio", "T12", False),  # nothing to compare, but surely wrong
    ]


def test_pixels_are_judged_by_the_height_of_the_bodies():
    film = reference(
        *(("body_height_posterior", level, 135.0, "px") for level in ("T12", "L2", "L4")),
        ("slip", "L4/L5", 10.0, "px"),
    )
    assert film_scale(film) == pytest.approx(0.2)
    assert film_scale(film.assign(unit="mm")) is None
    for value, right in ((24.9, True), (25.1, False)):
        one = measurement(name="slip", site="L4/L5", value=value, unit="px")
        assert judge([one], film) == [(one, right)]
    assert limit_of("slip", "px") is None
    assert limit_of("cage_position", "%") == pytest.approx(100 * limit_of("cage_position", "1"))
    assert limit_of("slip", "deg") is limit_of("unheard_of", "mm") is None


def test_tolerances_are_positive_and_wider_than_the_error():
    assert all(t.value >= t.error_sd > 0 for t in TOLERANCES.values())


def test_levels_of_sites():
    assert levels_of("L4/L5") == {"L4", "L5"}
    assert levels_of("T12-L5") == {"T12", "L5"}
    assert levels_of("S1") == {"S1"}
    assert levels_of("L4 anterior_superior") == {"L4"}
    assert levels_of("film") == set()
