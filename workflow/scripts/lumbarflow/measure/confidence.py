"""How far a measurement can be trusted: the tolerance of its kind, and how probably it is met.

A value is right where it lies within its tolerance of the reference and the levels that it names
are the right ones. How probably a value is right is learnt on validation films, by logistic
regression on the confidence and the features that came with it (Platt, "Probabilistic outputs for
support vector machines", 1999), shrunk towards leaving the confidence as it was.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit

from ..errors import InputError
from .anatomy import Measurement


@dataclass(frozen=True)
class Tolerance:
    """What is good enough for a kind of measurement.

    Attributes:
        value: the largest error that is right.
        unit: of value and error_sd: `deg`, `mm`, `%` or `1`.
        error_sd: standard deviation of the error of one measurement, where none is known of the
            network at hand: about what observers differ by, divided by the square root of two.
    """

    value: float
    unit: str
    error_sd: float


#: Of every measurement, by name: about what two readers of the same film differ by, rounded.
#:
#: - angles: readers of lordosis differ by 2.7 to 4.3 degrees on average (Lee et al., Eur Spine J
#:   2013;22:813), 92 % of readings by less than 10 (Polly et al., Spine 1996;21:1530), trained ones
#:   by less than 3.9 in 95 % (Hicks et al., J Spinal Disord Tech 2006;19:501); of a segment by
#:   2.6 +/- 2.3 degrees (Tallroth et al., Eur J Radiol 1994;18:227); of sacral slope by up to 6
#:   (Janusz et al., Eur Spine J 2016;25:3622);
#: - slip: by 1.3 +/- 1.1 mm (Tallroth 1994); per cents are of an endplate about 35 mm deep;
#: - heights of discs and distances near them: limits of agreement from 1.0 to 2.6 mm (Tunset et
#:   al., Chiropr Man Therap 2013;21:26, on MRI); the index is of the same depth;
#: - loss of a body's height, relative: limits of agreement of 12.5 % (Buckens et al., PLoS One
#:   2013;8:e71204, on CT); heights in mm accordingly;
#: - grades: the same grade, as an error of one is no longer the same.
#:
#: For spurs and implants no such figures are known: they are as for the like above.
TOLERANCES: Mapping[str, Tolerance] = {
    "lordosis": Tolerance(5.0, "deg", 2.5),
    "cobb": Tolerance(5.0, "deg", 2.5),
    "sacral_slope": Tolerance(5.0, "deg", 2.5),
    "disc_angle": Tolerance(4.0, "deg", 2.0),
    "segmental_angle": Tolerance(4.0, "deg", 2.0),
    "body_height_anterior": Tolerance(2.0, "mm", 1.0),
    "body_height_middle": Tolerance(2.0, "mm", 1.0),
    "body_height_posterior": Tolerance(2.0, "mm", 1.0),
    "wedge_ratio": Tolerance(0.1, "1", 0.045),
    "biconcavity_ratio": Tolerance(0.1, "1", 0.045),
    "crush_ratio": Tolerance(0.1, "1", 0.045),
    "genant_grade": Tolerance(0.5, "1", 0.5),
    "disc_height_anterior": Tolerance(1.5, "mm", 0.8),
    "disc_height_middle": Tolerance(1.5, "mm", 0.8),
    "disc_height_posterior": Tolerance(1.5, "mm", 0.8),
    "disc_height_index": Tolerance(0.04, "1", 0.02),
    "slip": Tolerance(3.0, "mm", 1.2),
    "slip_percent": Tolerance(8.0, "%", 3.5),
    "slip_grade": Tolerance(0.5, "1", 0.5),
    "osteophyte_length": Tolerance(2.0, "mm", 1.0),
    "screw_endplate_angle": Tolerance(4.0, "deg", 2.0),
    "screw_tip_to_anterior_wall": Tolerance(3.0, "mm", 1.2),
    "cage_position": Tolerance(0.1, "1", 0.045),
}

#: Mean posterior height of the bodies of L1 to L5 in mm (Zhou et al., Eur Spine J 2000;9:242,
#: rounded): the scale by which errors in pixels are judged on films of unknown spacing.
TYPICAL_BODY_HEIGHT_MM = 27.0
LUMBAR = ("L1", "L2", "L3", "L4", "L5")
#: Below, a value is more probably wrong than right.
UNCERTAIN_BELOW = 0.5

# Features from 0 to 1 of which a reader may be told as the weakest: their words, and what they
# commonly are.
_WEAKNESSES = {
    "level": ("the level", 1.0),
    "facing": ("the side to which the patient faces", 1.0),
    "score": ("the network's score", 0.95),
    "quality": ("the outline", 0.9),
    "support": ("the endplates", 0.8),
    "evenness": ("how even the endplates are", 0.9),
}
# Nothing is certain: confidences stay within these, which also keeps their logits finite.
_LEAST, _MOST = 0.01, 0.99
# Values of a film share its contours and levels: together they count as this many.
_VALUES_PER_FILM = 10.0
# Standard deviations of the prior: of all, of the slope, of each name's and each feature's weight.
_PRIOR = {"intercept": 1.5, "slope": 0.5, "name": 0.5, "feature": 0.5}


@dataclass(frozen=True)
class Feature:
    """How a feature counts: `weight` for each `sd` above `mean`.

    Values outside `low` to `high`, the range on the validation films, count as its end; where a
    measurement lacks the feature, it counts as `mean`.
    """

    mean: float
    sd: float
    low: float
    high: float
    weight: float

    def scaled(self, value: float) -> float:
        """`value` in standard deviations from the mean."""
        return (min(max(value, self.low), self.high) - self.mean) / self.sd


@dataclass(frozen=True)
class Calibration:
    """From the confidence and features of a measurement to the probability that it is right.

    The log odds are `intercept` + `slope` x log odds of the confidence + what its name and its
    features add. As it is without arguments, it leaves confidences alone, but that none is below
    0.01 or above 0.99.

    Attributes:
        names: what is added by the measurement's name.
        features: how features count, by their name.
        films, values: what it was fitted on.
    """

    intercept: float = 0.0
    slope: float = 1.0
    names: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, Feature] = field(default_factory=dict)
    films: int = 0
    values: int = 0

    def probability(self, measurement: Measurement) -> float:
        """How probably `measurement`, which has a value, is right: 0.01 to 0.99."""
        odds = self.intercept + self.slope * _logit(measurement.confidence)
        odds += self.names.get(measurement.name, 0.0)
        for name, feature in self.features.items():
            if name in measurement.features:
                odds += feature.weight * feature.scaled(measurement.features[name])
        return round(float(np.clip(expit(odds), _LEAST, _MOST)), 4)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The reverse of :meth:`as_dict`.

        Raises:
            InputError: it is none.
        """
        try:
            features = {name: Feature(**known) for name, known in values["features"].items()}
            return cls(**{**values, "features": features})
        except (KeyError, TypeError, AttributeError):
            raise InputError(
                "The calibration of confidences is not of this version: remove its file and run "
                "the workflow again to make it."
            ) from None


def calibrated(
    measurements: Iterable[Measurement],
    calibration: Calibration | None = None,
    uncertain_below: float = UNCERTAIN_BELOW,
) -> list[Measurement]:
    """The measurements with calibrated confidence, and as `uncertain` where that is low.

    Args:
        measurements: with raw confidences, in any order, which stays.
        calibration: by default one that leaves the confidences alone.
        uncertain_below: a `measured` value with a lower confidence becomes `uncertain`.

    Returns:
        As many measurements. Those without a value stay as they are; what is uncertain already
        stays so, for the reason that it has.
    """
    calibration = calibration or Calibration()
    found = []
    for measurement in measurements:
        if measurement.value is not None:
            confidence = calibration.probability(measurement)
            measurement = replace(measurement, confidence=confidence)
            if measurement.status == "measured" and confidence < uncertain_below:
                reason = _why(measurement)
                measurement = replace(measurement, status="uncertain", reason=reason)
        found.append(measurement)
    return found


def judge(
    measurements: Iterable[Measurement],
    reference: pd.DataFrame,
    wrong_levels: Collection[str] = (),
) -> list[tuple[Measurement, bool]]:
    """Which values of a film are right.

    Args:
        measurements: of one film.
        reference: name, site, value and unit of what the same film shows, from its annotation or
            as known of a synthetic film.
        wrong_levels: levels that the network gave to bodies which have another one.

    Returns:
        The measurements with a value, each with whether it is right; without those that cannot be
        judged, for want of a reference, a tolerance or a common unit.
    """
    known = {
        (row.name_, row.site): (row.value, row.unit)
        for row in reference.rename(columns={"name": "name_"}).itertuples()
        if not pd.isna(row.value)
    }
    scale = film_scale(reference)
    judged = []
    for measurement in measurements:
        if measurement.value is None:
            continue
        if levels_of(measurement.site) & set(wrong_levels):
            judged.append((measurement, False))
            continue
        value, unit = known.get((measurement.name, measurement.site), (None, None))
        limit = limit_of(measurement.name, measurement.unit, scale)
        if unit == measurement.unit and limit is not None:
            judged.append((measurement, abs(measurement.value - value) <= limit))
    return judged


def fit(films: Iterable[Sequence[tuple[Measurement, bool]]]) -> Calibration:
    """Learn how probably values are right from those of the validation films.

    The penalised likelihood has one maximum, found by L-BFGS-B. The prior is the calibration that
    leaves confidences alone, so that few films change little. A film counts as ten values, however
    many it has, since they are wrong together.

    Args:
        films: what :func:`judge` returns for each film.

    Returns:
        A calibration that never falls with the confidence. Of no films, the default one.
    """
    films = [list(film) for film in films if film]
    rows = [pair for film in films for pair in film]
    if not rows:
        return Calibration()
    weights = np.concatenate(
        [np.full(len(film), min(1.0, _VALUES_PER_FILM / len(film))) for film in films]
    )
    right = np.array([ok for _, ok in rows], np.float64)
    names = sorted({measurement.name for measurement, _ in rows})
    features = _ranges([measurement for measurement, _ in rows])
    columns = [np.ones(len(rows)), [_logit(m.confidence) for m, _ in rows]]
    columns += [[m.name == name for m, _ in rows] for name in names]
    columns += [
        [feature.scaled(m.features[name]) if name in m.features else 0.0 for m, _ in rows]
        for name, feature in features.items()
    ]
    design = np.column_stack([np.asarray(column, np.float64) for column in columns])
    sd = [_PRIOR["intercept"], _PRIOR["slope"]]
    sd += [_PRIOR["name"]] * len(names) + [_PRIOR["feature"]] * len(features)
    prior = np.zeros(len(sd))
    prior[1] = 1.0

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        odds = design @ at
        off = (at - prior) / sd
        value = weights @ (np.logaddexp(0, odds) - right * odds) + off @ off / 2
        return float(value), design.T @ (weights * (expit(odds) - right)) + off / sd

    bounds = [(None, None), (0.0, None)] + [(None, None)] * (len(sd) - 2)
    best = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds).x
    of_names = dict(zip(names, best[2:].tolist(), strict=False))
    of_features = {
        name: replace(feature, weight=float(weight))
        for (name, feature), weight in zip(features.items(), best[2 + len(names) :], strict=True)
    }
    return Calibration(float(best[0]), float(best[1]), of_names, of_features, len(films), len(rows))


def limit_of(name: str, unit: str, mm_per_px: float | None = None) -> float | None:
    """The tolerance of a measurement in `unit`.

    Args:
        name: of the measurement.
        unit: as in :class:`.Measurement`.
        mm_per_px: scale of the film, for lengths in pixels.

    Returns:
        None where none is known, or no way to the unit.
    """
    tolerance = TOLERANCES.get(name)
    factor = None if tolerance is None else conversion(tolerance.unit, unit, mm_per_px)
    return None if factor is None else tolerance.value * factor


def conversion(unit: str, to: str, mm_per_px: float | None = None) -> float | None:
    """What a number in `unit` is multiplied by to be in another one; None where there is no way."""
    factors = {(unit, unit): 1.0, ("1", "%"): 100.0, ("%", "1"): 0.01}
    if mm_per_px:
        factors["mm", "px"] = 1 / mm_per_px
    return factors.get((unit, to))


def film_scale(measurements: pd.DataFrame) -> float | None:
    """About how many mm a pixel is, from the height of the lumbar bodies of one film.

    Args:
        measurements: name, site, value and unit; heights in px count.

    Returns:
        None where there is no height in pixels.
    """
    heights = measurements.loc[
        (measurements["name"] == "body_height_posterior")
        & measurements["site"].isin(LUMBAR)
        & (measurements["unit"] == "px"),
        "value",
    ].dropna()
    return None if heights.empty else TYPICAL_BODY_HEIGHT_MM / float(heights.median())


def levels_of(site: str) -> set[str]:
    """The levels that a site names: of `L4/L5` L4 and L5."""
    return set(re.findall(r"\b[CTLS]\d+\b", site))


def _ranges(measurements: Sequence[Measurement]) -> dict[str, Feature]:
    """The features that differ between measurements, as yet without weight."""
    found = {}
    for name in sorted({name for measurement in measurements for name in measurement.features}):
        values = np.array([m.features[name] for m in measurements if name in m.features])
        sd = float(values.std())
        if sd > 1e-9:
            low, high = float(values.min()), float(values.max())
            found[name] = Feature(float(values.mean()), sd, low, high, 0.0)
    return found


def _why(measurement: Measurement) -> str:
    limit = limit_of(measurement.name, measurement.unit)
    within = "right" if limit is None else f"within {limit:g} {measurement.unit}".removesuffix(" 1")
    reason = f"only {measurement.confidence:.0%} likely to be {within}"
    known = {name: measurement.features[name] for name in _WEAKNESSES.keys() & measurement.features}
    if known:
        weakest = min(sorted(known), key=lambda name: known[name] / _WEAKNESSES[name][1])
        reason += f"; weakest: {_WEAKNESSES[weakest][0]} ({known[weakest]:.2f})"
    return reason


def _logit(confidence: float) -> float:
    return float(logit(min(max(confidence, _LEAST), _MOST)))
