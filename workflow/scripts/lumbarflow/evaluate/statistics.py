"""Paired comparisons of networks over films: tests, effect sizes, intervals and power.

Films of one patient resemble each other. Whatever is said here of chance therefore treats the films
of a patient as one: bootstraps draw patients, and tests change the signs of a patient's differences
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from .levels import film_table, of_instances
from .strata import STRATA
from .tables import METRICS

#: Films' scores that are compared; greater is better.
SCORES = (*METRICS, "recognition_rate")
#: Families of networks, in the order in which one is taken from the other.
FAMILIES = ("semantic", "instance")
#: Power and two-sided level of significance of :func:`detectable_difference`.
POWER, ALPHA = 0.8, 0.05

#: Columns of :func:`compare_networks` and their types.
COMPARISONS = {
    "metric": "string",
    "kind": "string",
    "a": "string",
    "b": "string",
    "stratum": "string",
    "value": "string",
    "n_films": "int64",
    "n_patients": "int64",
    "mean_a": "float64",
    "mean_b": "float64",
    "difference": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "rank_biserial": "float64",
    "p": "float64",
    "p_holm": "float64",
    "detectable": "float64",
    "interaction_p": "float64",
    "interaction_p_holm": "float64",
}
#: Columns of :func:`strata_means` and their types.
MEANS = {
    "model": "string",
    "metric": "string",
    "stratum": "string",
    "value": "string",
    "n_films": "int64",
    "n_patients": "int64",
    "mean": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
}
# Smaller differences are rounding.
_DECIMALS = 12
# Up to this sum of ranks the distribution is computed exactly: about 450 films.
_EXACT = 200_000


def signed_rank_p(differences: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Wilcoxon's signed rank test of paired differences, which may come in clusters.

    The statistic is that of Wilcoxon (Biometrics Bull 1945;1:80): the sum of the signed ranks of
    the differences that are not 0, equal ones sharing their mean rank. Its distribution is that of
    all changes of sign, each cluster's together: exact with ties and clusters, and beyond some 450
    differences the normal one of Rosner, Glynn and Lee (Biometrics 2006;62:185).

    Args:
        differences: n values; NaN is left out.
        clusters: n labels, such as patients; without, every difference is its own.

    Returns:
        The two-sided p value; 1 where nothing differs.
    """
    values = np.round(np.asarray(differences, np.float64), _DECIMALS)
    labels = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    differ = np.isfinite(values) & (values != 0)
    if not differ.any():
        return 1.0
    values = values[differ]
    # Doubled, so that shared ranks are whole numbers.
    signed = np.rint(2 * stats.rankdata(np.abs(values)) * np.sign(values)).astype(np.int64)
    _, place = np.unique(labels[differ], return_inverse=True)
    sums = np.bincount(place, weights=signed).astype(np.int64)
    observed, steps = abs(int(sums.sum())), np.abs(sums)
    total = int(steps.sum())
    if observed == 0:
        return 1.0
    if total > _EXACT:
        return float(2 * stats.norm.sf(observed / np.sqrt((steps.astype(float) ** 2).sum())))
    # Of the sum of the steps that go up: what it lacks of half the total is symmetric.
    chances = np.zeros(total + 1)
    chances[0], reach = 1.0, 0
    for step in steps[steps > 0]:
        moved = 0.5 * chances[: reach + 1]
        chances[: reach + 1] = moved
        chances[step : reach + step + 1] += moved
        reach += int(step)
    return float(min(1.0, 2 * chances[: (total - observed) // 2 + 1].sum()))


def rank_biserial(differences: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation (Kerby, Compr Psychol 2014;3:11.IT.3.1).

    Args:
        differences: n values; NaN and 0 are left out.

    Returns:
        The sum of the ranks of positive less that of negative differences, by the sum of all ranks:
        from -1 to 1; 0 where nothing differs.
    """
    values = np.round(np.asarray(differences, np.float64), _DECIMALS)
    values = values[np.isfinite(values) & (values != 0)]
    if not len(values):
        return 0.0
    ranks = stats.rankdata(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def holm(p: np.ndarray) -> np.ndarray:
    """P values corrected for their number (Holm, Scand J Statist 1979;6:65).

    Args:
        p: n values; NaN does not count as a test and stays.
    """
    p = np.asarray(p, np.float64)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def interaction_p(
    differences: np.ndarray,
    groups: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Whether the mean of paired differences is another in each group: a permutation test.

    The statistic is Welch's (Biometrika 1951;38:330): distances of the groups' means from their
    mean, each by its own variance. Studentised so, the test keeps its level where only the spread
    differs from group to group (Chung and Romano, Ann Stat 2013;41:484).

    Args:
        differences: n independent units x m contrasts, without NaN.
        groups: n labels; groups of one unit are left out.
        n_permutations: how many times units are dealt to the groups anew.
        rng: for that.

    Returns:
        m p values; NaN with fewer than two groups of two units.
    """
    labels, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    kept = counts[place] > 1
    contrasts = differences.shape[1]
    if (counts > 1).sum() < 2:
        return np.full(contrasts, np.nan)
    values = np.round(differences[kept], _DECIMALS)
    values = values - values.mean(axis=0)
    _, place = np.unique(labels[place[kept]], return_inverse=True)
    dealt = rng.permuted(np.tile(place, (n_permutations, 1)), axis=1)
    found = _welch(values, np.vstack([place, dealt]), int(place.max()) + 1)
    # What is equal but for rounding is as extreme.
    extreme = found[1:] >= found[0] * (1 - 1e-9)
    return (1 + extreme.sum(axis=0)) / (n_permutations + 1)


def detectable_difference(differences: np.ndarray) -> float:
    """The smallest mean difference that as many units would have shown with 80 % power.

    That of a paired t test at a two-sided level of 5 % (noncentral t distribution), by the spread
    observed. It is corrected by the asymptotic efficiency of the signed rank test, 3/pi.

    Args:
        differences: a value for each patient.

    Returns:
        In the unit of the differences; NaN for fewer than six, with which no signed rank test can
        reach 5 %.
    """
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 6:
        return float("nan")
    return float(_detectable_effect(len(values)) * values.std(ddof=1))


def film_scores(
    per_image: pd.DataFrame, instances: pd.DataFrame, replicates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The scores of every network on every test film.

    Args:
        per_image: `metrics/per_image.parquet`.
        instances: `metrics/instances.parquet`.
        replicates: `metrics/replicates.parquet`, where networks were trained with further seeds: a
            film's score is then the mean over all seeds, the first one being among them, so that
            less of it is the chance of one training. Recognition is that of the first. Folds, which
            score other films, are left out.

    Returns:
        model, image_id and the columns of :data:`SCORES`; recognition_rate is the share of the
        vertebrae with a drawn level that were found with that level, NaN where there is none.
    """
    keys = {"model": object, "image_id": object}
    scores = per_image[[*keys, *METRICS]].astype(keys)
    if replicates is not None:
        again = replicates[replicates["kind"] == "seed"].astype(keys)
        means = again.groupby(list(keys), as_index=False)[list(METRICS)].mean()
        scores = scores[list(keys)].merge(means, on=list(keys), how="left")
    films = film_table(of_instances(instances))
    rate = films["n_correct"] / films["n_reference"].where(films["n_reference"] > 0)
    films = films[list(keys)].assign(recognition_rate=rate).astype(keys)
    return scores.merge(films, on=list(keys), how="left")


def compare_networks(
    scores: pd.DataFrame,
    strata: pd.DataFrame,
    families: Mapping[str, str | None],
    *,
    seed: int,
    n_boot: int = 2000,
) -> pd.DataFrame:
    """Compare networks pair by pair, and the families, on all test films and in each stratum.

    A family's score on a film is the mean over its networks. Differences are those of a film.

    Args:
        scores: rows of :func:`film_scores`.
        strata: rows of :func:`~.strata.film_strata` of these films.
        families: for each network, in the order in which they are compared, `semantic`, `instance`
            or None.
        seed: of resampling and permutations.
        n_boot: number of resamples and of permutations.

    Returns:
        The columns of :data:`COMPARISONS`, a row a metric, contrast and stratum. kind is `pair` (of
        networks a and b) or `family` (a is `semantic`, b `instance`); stratum and value are `all`
        for all films. difference is mean_a - mean_b, its interval a percentile bootstrap over
        patients; p that of :func:`signed_rank_p` with the patients as clusters, p_holm corrected
        for the contrasts of the same kind, metric and stratum, over all values of it; detectable
        that of :func:`detectable_difference` of the patients' means. interaction_p, the same for
        all values of a stratum, is that of :func:`interaction_p`: whether the difference depends on
        the stratum. A unit there is the mean over a patient's films of that value;
        interaction_p_holm is corrected for the contrasts and strata of the same kind and metric.
        What cannot be computed for want of patients is NaN.
    """
    contrasts = _contrasts(families)
    rows: list[dict[str, Any]] = []
    for metric in SCORES if contrasts else ():
        table = scores.pivot(index="image_id", columns="model", values=metric)
        films = strata[strata["image_id"].isin(table.index)].sort_values("image_id")
        table = table.reindex(films["image_id"])
        # Films x contrasts.
        a, b = (
            np.column_stack([table[models].mean(axis=1, skipna=False) for models in side])
            for side in zip(
                *((contrast.of_a, contrast.of_b) for contrast in contrasts), strict=True
            )
        )
        rows += [{"metric": metric} | row for row in _compare(a, b, films, contrasts, seed, n_boot)]
    found = pd.DataFrame(rows, columns=list(COMPARISONS)).astype(COMPARISONS)
    by = ["metric", "kind", "stratum"]
    found["p_holm"] = found.groupby(by, sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
    keys = ["metric", "kind", "a", "b", "stratum"]
    tests = found[found["stratum"] != "all"].drop_duplicates(keys)
    corrected = tests.groupby(["metric", "kind"], sort=False)["interaction_p"].transform(
        lambda p: holm(p.to_numpy())
    )
    known = tests[keys].assign(interaction_p_holm=corrected)
    found = found.drop(columns="interaction_p_holm").merge(known, on=keys, how="left")
    return found[list(COMPARISONS)].astype(COMPARISONS)


def strata_means(
    scores: pd.DataFrame, strata: pd.DataFrame, *, seed: int, n_boot: int = 2000
) -> pd.DataFrame:
    """The mean scores of every network on all test films and in each stratum.

    Args:
        scores, strata, seed, n_boot: as of :func:`compare_networks`.

    Returns:
        The columns of :data:`MEANS`, a row a model, metric and value of a stratum that a film has;
        intervals are percentile bootstrap intervals over patients, NaN with one patient.
    """
    films = strata.astype({"image_id": object})
    rows = []
    for model, of_model in scores.groupby("model", sort=False):
        merged = of_model.merge(films, on="image_id").sort_values("image_id")
        for stratum, value, chosen in _parts(merged):
            values = merged.loc[chosen, list(SCORES)].to_numpy(float)
            patients = merged.loc[chosen, "patient_id"].to_numpy(object)
            means, low, high, n_films, n_patients = _bootstrap(values, patients, seed, n_boot)
            rows += [
                {
                    **{"model": model, "metric": metric, "stratum": stratum, "value": value},
                    **{"n_films": n_films[k], "n_patients": n_patients[k]},
                    **{"mean": means[k], "ci_low": low[k], "ci_high": high[k]},
                }
                for k, metric in enumerate(SCORES)
            ]
    return pd.DataFrame(rows, columns=list(MEANS)).astype(MEANS)


@dataclass(frozen=True)
class _Contrast:
    """What is compared: names of both sides, and the networks of each."""

    kind: str
    a: str
    b: str
    of_a: list[str]
    of_b: list[str]


def _contrasts(families: Mapping[str, str | None]) -> list[_Contrast]:
    pairs = [_Contrast("pair", a, b, [a], [b]) for a, b in combinations(families, 2)]
    members = [[model for model, of in families.items() if of == family] for family in FAMILIES]
    return pairs + ([_Contrast("family", *FAMILIES, *members)] if all(members) else [])


def _parts(films: pd.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """stratum, value and the chosen films (bool): all of them, then each value that occurs."""
    parts = [("all", "all", np.ones(len(films), bool))]
    for stratum, values in STRATA.items():
        for value in values:
            chosen = (films[stratum] == value).fillna(False).to_numpy(bool)
            if chosen.any():
                parts.append((stratum, value, chosen))
    return parts


def _compare(
    a: np.ndarray,
    b: np.ndarray,
    films: pd.DataFrame,
    contrasts: Sequence[_Contrast],
    seed: int,
    n_boot: int,
) -> list[dict[str, Any]]:
    """The rows of one metric, without the corrections for the number of tests."""
    differences = np.round(a - b, _DECIMALS)
    patients = films["patient_id"].to_numpy(object)
    dependence = {
        stratum: _dependence(differences, films, stratum, seed, n_boot) for stratum in STRATA
    }
    rows = []
    for stratum, value, chosen in _parts(films):
        of_films, of_patients = differences[chosen], patients[chosen]
        means, low, high, n_films, n_patients = _bootstrap(of_films, of_patients, seed, n_boot)
        by_patient = pd.DataFrame(of_films).groupby(of_patients).mean().to_numpy()
        for k, contrast in enumerate(contrasts):
            if n_films[k] == 0:
                continue
            known = chosen & np.isfinite(differences[:, k])
            rows.append(
                {
                    **{"kind": contrast.kind, "a": contrast.a, "b": contrast.b},
                    **{"stratum": stratum, "value": value},
                    **{"n_films": n_films[k], "n_patients": n_patients[k]},
                    **{"mean_a": a[known, k].mean(), "mean_b": b[known, k].mean()},
                    **{"difference": means[k], "ci_low": low[k], "ci_high": high[k]},
                    "rank_biserial": rank_biserial(of_films[:, k]),
                    "p": signed_rank_p(of_films[:, k], of_patients),
                    "detectable": detectable_difference(by_patient[:, k]),
                    "interaction_p": dependence[stratum][k] if stratum != "all" else np.nan,
                }
            )
    return rows


def _dependence(
    differences: np.ndarray, films: pd.DataFrame, stratum: str, seed: int, n_permutations: int
) -> np.ndarray:
    """Interaction of each contrast with a stratum, from means over a patient's films of a value."""
    known = films[stratum].notna().to_numpy()
    keys = [films.loc[known, name].astype(str).to_numpy(object) for name in ("patient_id", stratum)]
    units = pd.DataFrame(differences[known]).groupby(keys).mean()
    found = np.full(differences.shape[1], np.nan)
    groups = units.index.get_level_values(1).to_numpy()
    whole = units.notna().to_numpy()
    # Contrasts that lack the same units are tested together: all but a few lack none.
    for pattern in np.unique(whole, axis=1).T:
        same = (whole == pattern[:, None]).all(axis=0)
        rng = np.random.default_rng(seed)
        found[same] = interaction_p(
            units.to_numpy()[pattern][:, same], groups[pattern], n_permutations, rng
        )
    return found


def _bootstrap(
    values: np.ndarray, patients: np.ndarray, seed: int, n_boot: int
) -> tuple[np.ndarray, ...]:
    """Means over films (n x m, NaN left out) with bounds, and numbers of films and of patients."""
    known = np.isfinite(values)
    of_patients = pd.DataFrame(np.where(known, values, 0.0)).groupby(patients).sum().to_numpy()
    counts = pd.DataFrame(known.astype(float)).groupby(patients).sum().to_numpy()
    n_films, n_patients = counts.sum(axis=0).astype(int), (counts > 0).sum(axis=0)
    # Seeded alike everywhere: what is compared on the same films gets the same draws.
    rng = np.random.default_rng(seed)
    number = len(counts)
    draws = rng.multinomial(number, np.full(number, 1 / number), n_boot)
    with np.errstate(invalid="ignore"):
        means = of_patients.sum(axis=0) / counts.sum(axis=0)
        drawn = (draws @ of_patients) / (draws @ counts)
    bounds = np.full((2, values.shape[1]), np.nan)
    several = n_patients > 1
    bounds[:, several] = np.nanpercentile(drawn[:, several], [2.5, 97.5], axis=0)
    return means, *bounds, n_films, n_patients


def _welch(values: np.ndarray, dealt: np.ndarray, groups: int) -> np.ndarray:
    """Welch's statistic of each dealing (d x n labels) and contrast (n x m values): d x m."""
    # Two equal values say little about a variance, and none of what never differs matters.
    spread = values.var(axis=0)
    floor = 1e-9 * np.where(spread > 0, spread, 1.0)
    squares = values**2
    weights, means = [], []
    for group in range(groups):
        inside = (dealt == group).astype(np.float64)
        # Dealing keeps the sizes of the groups.
        size = inside[0].sum()
        mean = inside @ values / size
        variance = np.maximum((inside @ squares - size * mean**2) / (size - 1), floor)
        weights.append(size / variance)
        means.append(mean)
    weight, mean = np.array(weights), np.array(means)
    centre = (weight * mean).sum(axis=0) / weight.sum(axis=0)
    return (weight * (mean - centre) ** 2).sum(axis=0)


@cache
def _detectable_effect(n: int) -> float:
    """The standardised effect that a signed rank test of n pairs shows with 80 % power."""
    limit = stats.t.ppf(1 - ALPHA / 2, n - 1)

    def lacks(shift: float) -> float:
        power = stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)
        return float(power) - POWER

    return float(optimize.brentq(lacks, 1.0, 8.0) / np.sqrt(n * 3 / np.pi))
