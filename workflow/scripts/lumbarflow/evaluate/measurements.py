"""Measurements against a reference: errors, agreement, and whether confidences keep their word."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution

from ..measure.confidence import TOLERANCES, film_scale, levels_of, limit_of

#: Columns of :func:`compare` and their types.
COMPARED = {
    "image_id": "string",
    "name": "string",
    "site": "string",
    "value": "float64",
    "reference": "float64",
    "error": "float64",
    "unit": "string",
    "status": "string",
    "confidence": "float64",
    "expected": "bool",
    "tolerance": "float64",
    "right": "boolean",
}
#: Columns of :func:`summarise` and their types.
SUMMARY = {
    "name": "string",
    "site": "string",
    "unit": "string",
    "metric": "string",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n": "int64",
}
#: Columns of :func:`reliability` and their types.
RELIABILITY = {
    "bin_low": "float64",
    "bin_high": "float64",
    "n": "int64",
    "confidence": "float64",
    "right": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
}
METRICS = (
    *("share_measurable", "share_measured", "bias", "mae", "sd", "limit_low", "limit_high"),
    *("icc", "share_right"),
)
#: Of confidences: finer where most of them lie.
EDGES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
#: A standard deviation of errors on fewer films is not taken for that of the network.
MIN_FILMS = 10

_Z = 1.959964  # of a 95 % interval


def compare(
    measured: pd.DataFrame,
    reference: pd.DataFrame,
    levels: Mapping[str, Collection[str]] | None = None,
    wrong_levels: Mapping[str, Collection[str]] | None = None,
) -> pd.DataFrame:
    """Put every reference value beside what was measured.

    Args:
        measured: rows of `measurements/{source}.parquet`.
        reference: the same of `annotation`, or of `truth.parquet`; only its films are looked at,
            and of its names those that have a tolerance.
        levels: by image_id the levels that the film shows. Reference values of other levels, such
            as of bodies above the collimated field, are then not expected to be measured.
        wrong_levels: what :func:`wrong_levels` returns; what is said of these levels is wrong,
            however near its value.

    Returns:
        The columns of :data:`COMPARED`, by image_id, name and site: a row for each expected value
        and for each measured one. error is value - reference, null where one of them is missing or
        their units differ; status is `not_measurable` where there is no row; expected is false of
        what was measured beyond the reference or its levels; tolerance is in the row's unit; right
        tells whether the error lies within it and the levels are right, null where that cannot be
        told. Where nothing in the reference answers to a value, reference is null.
    """
    keys = ["image_id", "name", "site"]
    names = set(reference["name"]) & set(TOLERANCES)
    known = reference.loc[reference["name"].isin(names) & reference["value"].notna()]
    known = known[[*keys, "value", "unit"]].rename(columns={"value": "reference"})
    films = set(reference["image_id"])
    found = measured.loc[measured["name"].isin(names) & measured["image_id"].isin(films)]
    found = found[[*keys, "value", "unit", "status", "confidence"]]
    both = known.merge(found, on=keys, how="outer", suffixes=("_reference", ""))
    both["expected"] = both["reference"].notna()
    if levels is not None:
        both["expected"] &= pd.Series(
            [
                levels_of(site) <= set(levels.get(film, ()))
                for film, site in zip(both["image_id"], both["site"], strict=True)
            ],
            index=both.index,
            dtype=bool,
        )
    both = both[both["expected"] | both["value"].notna()].sort_values(keys, ignore_index=True)
    both["status"] = both["status"].fillna("not_measurable")
    both["confidence"] = both["confidence"].fillna(0.0)
    same_unit = both["unit"] == both["unit_reference"]
    both["error"] = (both["value"] - both["reference"]).where(same_unit)
    # What has no value has no unit of its own: it belongs to the rows of its reference.
    both["unit"] = both["unit"].where(both["value"].notna(), both["unit_reference"])
    in_pixels = known[known["unit"] == "px"].rename(columns={"reference": "value"})
    scales = {film: film_scale(rows) for film, rows in in_pixels.groupby("image_id")}
    both["tolerance"] = [
        limit_of(name, unit, scales.get(film))
        for name, unit, film in zip(both["name"], both["unit"], both["image_id"], strict=True)
    ]
    both["tolerance"] = both["tolerance"].astype("float64")
    right = (both["error"].abs() <= both["tolerance"]).astype("boolean")
    right = right.mask(both["error"].isna() | both["tolerance"].isna())
    if wrong_levels is not None:
        wrong = [
            bool(levels_of(site) & set(wrong_levels.get(film, ())))
            for film, site in zip(both["image_id"], both["site"], strict=True)
        ]
        right = right.mask(np.array(wrong, bool) & both["value"].notna().to_numpy(), False)
    both["right"] = right
    return both[list(COMPARED)].astype(COMPARED)


def summarise(
    compared: pd.DataFrame,
    patients: Mapping[str, str] | None = None,
    *,
    by_site: bool = False,
    uncertain: bool = True,
    seed: int = 0,
    n_boot: int = 2000,
) -> pd.DataFrame:
    """Errors and agreement of each measurement.

    - share_measurable: of the expected values, those for which there is a value;
    - share_measured: those whose status is `measured`;
    - bias: mean error; mae: mean absolute error; sd: standard deviation of the error;
    - limit_low, limit_high: limits of agreement, bias -/+ 1.96 sd (Bland and Altman, Lancet
      1986;327:307);
    - icc: :func:`intraclass_correlation` of value and reference. Over all sites it is higher than
      at one, as sites differ more than patients do;
    - share_right: of the values that can be judged, those that are right.

    Intervals are percentile bootstrap intervals over patients (Efron and Tibshirani 1993, chapter
    13), or over films where the patients are not told; that of icc is McGraw and Wong's where no
    patient has more than one value. They are null where there is but one patient.

    Args:
        compared: what :func:`compare` returns.
        patients: patient_id by image_id.
        by_site: a summary for each site, not of all.
        uncertain: whether errors of `uncertain` values count besides those of `measured` ones.
        seed: of the resampling; the order of the rows does not matter.
        n_boot: number of resamples.

    Returns:
        The columns of :data:`SUMMARY`: a row for each name, unit and metric of :data:`METRICS`;
        site is `all` unless by_site. value is in `unit`, shares and icc are fractions; n is the
        number of values behind it.
    """
    table = compared.copy()
    table["cluster"] = [
        image if patients is None else patients.get(image, image) for image in table["image_id"]
    ]
    if not by_site:
        table["site"] = "all"
    statuses = ("measured", "uncertain") if uncertain else ("measured",)
    rows = []
    for (name, site, unit), group in table.groupby(["name", "site", "unit"], sort=True):
        for metric, values in _metrics(group, statuses, seed, n_boot).items():
            rows.append({"name": name, "site": site, "unit": unit, "metric": metric} | values)
    return pd.DataFrame(rows, columns=list(SUMMARY)).astype(SUMMARY)


@dataclass(frozen=True)
class Agreement:
    """A coefficient of agreement with the bounds of its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


def intraclass_correlation(ratings: np.ndarray) -> Agreement:
    """ICC(2,1): how far single ratings by different raters agree absolutely.

    Two-way random effects, single rating (Shrout and Fleiss, Psychol Bull 1979;86:420); the
    interval is that of McGraw and Wong, Psychol Methods 1996;1:30, table 7, case ICC(A,1).

    Args:
        ratings: n subjects x k raters, float64, without NaN.

    Returns:
        At most 1; NaN for fewer than two subjects or raters, or where nothing varies.
    """
    ratings = np.asarray(ratings, np.float64)
    n, k = ratings.shape
    undefined = Agreement(np.nan, np.nan, np.nan)
    if n < 2 or k < 2:
        return undefined
    centred = ratings - ratings.mean()
    rows, columns = centred.mean(axis=1), centred.mean(axis=0)
    residual = centred - rows[:, None] - columns
    between = k * (rows @ rows) / (n - 1)
    raters = n * (columns @ columns) / (k - 1)
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    value = float(_icc(between, raters, error, n, k))
    if not np.isfinite(value):
        return undefined
    if value >= 1:
        return Agreement(1.0, 1.0, 1.0)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * raters + b * error) ** 2 / (
        (a * raters) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    spread = k * raters + (k * n - k - n) * error
    # Both quantiles may be infinite, where the raters' means differ and little else does.
    low = between / f_distribution.ppf(0.975, n - 1, freedom)
    high = between * f_distribution.ppf(0.975, freedom, n - 1)
    low, high = (n * (end - error) / (spread + n * end) for end in (low, high))
    high = high if np.isfinite(high) else 1.0
    return Agreement(value, float(low), float(high))


def reliability(compared: pd.DataFrame, edges: Sequence[float] = EDGES) -> pd.DataFrame:
    """Whether of the values with a confidence about p the share p is right.

    Args:
        compared: what :func:`compare` returns; values that can be judged count, whatever their
            status.
        edges: of the bins, rising from 0 to 1; a bin holds its lower edge, the last also its upper.

    Returns:
        The columns of :data:`RELIABILITY`, a row a bin that is not empty: number of values, their
        mean confidence, the share that is right, and its 95 % interval (Wilson, J Am Stat Assoc
        1927;22:209), which takes values of a film for independent and so is rather too narrow.
    """
    judged = compared[compared["value"].notna() & compared["right"].notna()]
    right = judged["right"].to_numpy(bool)
    confidence = judged["confidence"].to_numpy(np.float64)
    bins = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2)
    rows = []
    for k in np.unique(bins):
        inside = bins == k
        n, share = int(inside.sum()), float(right[inside].mean())
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * np.sqrt(share * (1 - share) / n + (_Z / (2 * n)) ** 2) / (1 + _Z**2 / n)
        rows.append(
            {
                "bin_low": edges[k],
                "bin_high": edges[k + 1],
                "n": n,
                "confidence": float(confidence[inside].mean()),
                "right": share,
                "ci_low": max(0.0, middle - half),
                "ci_high": min(1.0, middle + half),
            }
        )
    return pd.DataFrame(rows, columns=list(RELIABILITY)).astype(RELIABILITY)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) of a :func:`reliability` table.

    The mean difference, over all values, between the confidence and the share right in its bin: 0
    to 1, NaN of no values.
    """
    if table.empty:
        return float("nan")
    return float(np.average((table["confidence"] - table["right"]).abs(), weights=table["n"]))


def error_sds(compared: pd.DataFrame) -> dict[str, float]:
    """Standard deviation of the error by name, for :func:`~lumbarflow.measure.changes.changes`.

    Args:
        compared: what :func:`compare` returns.

    Returns:
        In the unit of :data:`~lumbarflow.measure.confidence.TOLERANCES`, of `measured` values;
        names with errors on fewer than :data:`MIN_FILMS` films are left out.
    """
    units = compared["name"].map({name: known.unit for name, known in TOLERANCES.items()})
    errors = compared[
        (compared["status"] == "measured") & compared["error"].notna() & (compared["unit"] == units)
    ]
    return {
        str(name): float(rows["error"].std())
        for name, rows in errors.groupby("name")
        if rows["image_id"].nunique() >= MIN_FILMS
    }


def wrong_levels(instances: pd.DataFrame) -> dict[str, set[str]]:
    """By image_id, the levels that were given to bodies which have another one.

    Args:
        instances: image_id, level and predicted_level of matched vertebrae, as in
            `metrics/instances.parquet` after labelling, of one network.
    """
    both = instances.dropna(subset=["level", "predicted_level"])
    wrong = both[both["level"] != both["predicted_level"]]
    return {str(film): set(rows["predicted_level"]) for film, rows in wrong.groupby("image_id")}


def _metrics(
    group: pd.DataFrame, statuses: Sequence[str], seed: int, n_boot: int
) -> dict[str, dict[str, float]]:
    """value, ci_low, ci_high and n of each metric, from sums over the clusters."""
    expected = group["expected"]
    pairs = group["error"].notna() & group["status"].isin(statuses)
    error = group["error"].where(pairs, 0.0)
    middle = ((group["value"] + group["reference"]) / 2).where(pairs)
    # About the mean: squares of what is left do not cancel.
    middle = (middle - middle.mean()).where(pairs, 0.0)
    judged = group["right"].notna() & group["value"].notna() & group["status"].isin(statuses)
    columns = {
        "expected": expected,
        "measurable": expected & group["value"].notna(),
        "measured": expected & (group["status"] == "measured"),
        "n": pairs,
        "error": error,
        "absolute": error.abs(),
        "error2": error**2,
        "middle": middle,
        "middle2": middle**2,
        "judged": judged,
        "right": group["right"].fillna(False).astype(bool) & judged,
    }
    sums = pd.DataFrame(columns).astype("float64").groupby(group["cluster"], sort=True).sum()
    totals = sums.to_numpy()
    clusters = len(totals)
    order = list(sums.columns)
    whole = _from_sums(dict(zip(order, totals.sum(axis=0)[:, None], strict=True)))
    counts = {"share_measurable": "expected", "share_measured": "expected", "share_right": "judged"}
    found = {
        metric: {
            "value": float(whole[metric][0]),
            "ci_low": np.nan,
            "ci_high": np.nan,
            "n": int(sums[counts.get(metric, "n")].sum()),
        }
        for metric in METRICS
    }
    if clusters < 2:
        return found
    # Seeded alike for each measurement and network: the same patients get the same draws.
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(clusters, np.full(clusters, 1 / clusters), n_boot) @ totals
    drawn = _from_sums(dict(zip(order, draws.T, strict=True)))
    for metric in METRICS:
        values = drawn[metric][np.isfinite(drawn[metric])]
        if values.size:
            low, high = np.percentile(values, [2.5, 97.5])
            found[metric] |= {"ci_low": float(low), "ci_high": float(high)}
    if sums["n"].max() <= 1 and sums["n"].sum() >= 2:
        exact = intraclass_correlation(group.loc[pairs, ["value", "reference"]].to_numpy())
        found["icc"] |= {"ci_low": exact.low, "ci_high": exact.high}
    return found


def _from_sums(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics from the sums that :func:`_metrics` takes; NaN where they are undefined."""
    n = sums["n"]
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = sums["error"] / n
        # Rounding may leave a little less than nothing.
        errors2 = np.maximum(sums["error2"] - n * bias**2, 0)
        middles2 = np.maximum(sums["middle2"] - sums["middle"] ** 2 / n, 0)
        variance = np.where(n > 1, errors2 / (n - 1), np.nan)
        sd = np.sqrt(variance)
        # Of two raters: subjects differ by their means, raters by the bias.
        between = np.where(n > 1, 2 * middles2 / (n - 1), np.nan)
        return {
            "share_measurable": sums["measurable"] / sums["expected"],
            "share_measured": sums["measured"] / sums["expected"],
            "bias": bias,
            "mae": sums["absolute"] / n,
            "sd": sd,
            "limit_low": bias - 1.96 * sd,
            "limit_high": bias + 1.96 * sd,
            "icc": _icc(between, n * bias**2 / 2, variance / 2, n, 2),
            "share_right": sums["right"] / sums["judged"],
        }


def _icc(between, raters, error, n, k):  # type: ignore[no-untyped-def]
    """ICC(2,1) from the mean squares between subjects, between raters, and of the error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (between - error) / (between + (k - 1) * error + k * (raters - error) / n)
