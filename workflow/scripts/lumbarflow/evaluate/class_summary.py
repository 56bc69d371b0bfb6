"""What the metrics come to by class, each with an interval over patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from .detection import MOST, average_precision, panoptic_quality
from .film import FOREGROUND, FOUND_IOU, RIGHT, overlap_columns
from .measurements import EDGES
from .scores import ALL

#: Columns of :func:`summarise_classes` and their types.
CLASS_SUMMARY = {
    "model": "string",
    "class_name": "string",
    "metric": "string",
    "unit": "string",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n": "int64",
}
_TABLES = ("counts", "boundaries", "detections", "instances")
_FRACTION = "fraction"
_PRECISIONS = {"ap": slice(None), "ap_50": slice(0, 1), "ap_75": slice(5, 6)}


class _Figure(NamedTuple):
    """A figure: its value, the same of each resample, and how many things are behind it."""

    value: float
    samples: np.ndarray
    n: int


class _Patients:
    """Resamples of the patients, the same for all networks.

    Args:
        patients: image_id and patient_id of every test film.
        seed: as in :func:`.tables.summarise`, whose draws these are.
        n_boot: number of resamples.
    """

    def __init__(self, patients: pd.DataFrame, seed: int, n_boot: int):
        codes, units = pd.factorize(patients["patient_id"], sort=True)
        self._number = dict(zip(patients["image_id"], codes, strict=True))
        count = len(units)
        picks = np.random.default_rng(seed).integers(0, count, (n_boot, count))
        #: How often each patient is in each resample.
        self.drawn = np.stack([np.bincount(row, minlength=count) for row in picks]).astype(float)

    def numbered(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with a column more: the number of the film's patient."""
        return table.assign(patient=table["image_id"].map(self._number).astype(int))

    def sums(self, patients: pd.Series, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums over rows.

        Args:
            patients: of the rows, as numbers.
            values: rows x K.

        Returns:
            The K sums, and those of each resample (n_boot x K).
        """
        parts = np.zeros((self.drawn.shape[1], values.shape[1]))
        np.add.at(parts, patients.to_numpy(), values)
        return values.sum(axis=0), self.drawn @ parts

    def mean(self, table: pd.DataFrame, column: str) -> _Figure:
        """The mean of a column where it is known."""
        values = table[column].to_numpy(float)
        known = np.isfinite(values)
        pairs = np.stack([np.where(known, values, 0.0), known], axis=1)
        total, samples = self.sums(table["patient"], pairs)
        value, spread = (_divide(one.T[0], one.T[1]) for one in (total, samples))
        return _Figure(float(value), spread, int(known.sum()))


def summarise_classes(
    tables: Mapping[str, pd.DataFrame], patients: pd.DataFrame, seed: int, n_boot: int = 2000
) -> pd.DataFrame:
    """Summarise the metric tables by model and class.

    - `iou`, `dice`, `surface_dice`, `hausdorff_95`, `mean_distance`: means over the films that have
      one. Films with and without a known spacing are apart, with `unit` `mm` and `px`, in the last
      three.
    - `ap`, `ap_50`, `ap_75`: average precision, see :mod:`.detection`, at all thresholds, 0.5 and
      0.75; `panoptic_quality`, `segmentation_quality`, `recognition_quality`. The class
      :data:`.scores.ALL` has their means over the classes.
    - `calibration_error`: expected calibration error of the scores (Naeini et al., AAAI 2015).
    - `recognition_rate`: reference vertebrae found with the right level, of those with a level.
    - `waviness`, `reference_waviness`: means over the vertebrae found.

    Args:
        tables: counts, boundaries, detections and instances, of one or more models on the test
            films.
        patients: image_id and patient_id of every test film.
        seed: of the resampling.
        n_boot: number of resamples; all models see the same.

    Returns:
        The columns of :data:`CLASS_SUMMARY`. Intervals are 95% percentile bootstrap intervals over
        patients; `n` counts what is behind `value`: films, vertebrae, structures (ap), instances
        (calibration_error), or both together (the qualities). A figure of nothing has no row.
    """
    resamples = _Patients(patients, seed, n_boot)
    known = {name: resamples.numbered(tables[name]) for name in _TABLES}
    rows = []
    for model in tables["counts"]["model"].unique():
        part = {name: table[table["model"] == model] for name, table in known.items()}
        for class_name, metric, unit, figure in _figures(part, resamples):
            if figure.n and np.isfinite(figure.value):
                finite = figure.samples[np.isfinite(figure.samples)]
                low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else [np.nan] * 2
                rows.append((model, class_name, metric, unit, figure.value, low, high, figure.n))
    return pd.DataFrame(rows, columns=list(CLASS_SUMMARY)).astype(CLASS_SUMMARY)


def _figures(
    tables: Mapping[str, pd.DataFrame], resamples: _Patients
) -> Iterator[tuple[str, str, str, _Figure]]:
    """Class, metric, unit and figure, of one model."""
    overlaps = tables["counts"].assign(**overlap_columns(tables["counts"]))
    for class_name in tables["counts"]["class_name"].unique():
        films = overlaps[overlaps["class_name"] == class_name]
        for metric in ("iou", "dice"):
            yield class_name, metric, _FRACTION, resamples.mean(films, metric)
        found = tables["boundaries"][tables["boundaries"]["class_name"] == class_name]
        for unit, films in found.groupby("unit"):
            for metric in ("surface_dice", "hausdorff_95", "mean_distance"):
                yield class_name, metric, unit, resamples.mean(films, metric)
    yield from _detection(tables, resamples)
    yield from _panoptic(tables["counts"], resamples)
    yield from _calibration(tables["detections"], resamples)
    vertebrae = tables["instances"]
    named = vertebrae.dropna(subset="level")
    told = (named["predicted_level"] == named["level"]).fillna(False) & (named["iou"] >= FOUND_IOU)
    rate = resamples.mean(named.assign(right=told.astype(float)), "right")
    yield FOREGROUND, "recognition_rate", _FRACTION, rate
    for metric in ("waviness", "reference_waviness"):
        yield FOREGROUND, metric, "ratio", resamples.mean(vertebrae, metric)


def _detection(
    tables: Mapping[str, pd.DataFrame], resamples: _Patients
) -> Iterator[tuple[str, str, str, _Figure]]:
    # COCOeval takes films in the order of their names, which tells where scores are equal.
    detections = tables["detections"].sort_values("image_id", kind="stable")
    place = detections.groupby(["image_id", "class_name"])["score"].rank("first", ascending=False)
    detections = detections[place <= MOST]
    found: dict[str, list[_Figure]] = {metric: [] for metric in _PRECISIONS}
    counts = tables["counts"]
    for class_name in counts.loc[counts["class_name"] != FOREGROUND, "class_name"].unique():
        drawn = counts[counts["class_name"] == class_name]
        n, samples_n = resamples.sums(
            drawn["patient"], drawn[["reference_instances"]].to_numpy(float)
        )
        if not n[0]:
            continue
        part = detections[detections["class_name"] == class_name]
        scores, right = part["score"].to_numpy(float), part[list(RIGHT)].to_numpy(bool)
        values = average_precision(scores, right, n[0])
        weights = resamples.drawn[:, part["patient"].to_numpy()]
        samples = average_precision(scores, right, samples_n[:, 0], weights)
        for metric, chosen in _PRECISIONS.items():
            figure = _Figure(
                float(values[chosen].mean()), samples[:, chosen].mean(axis=1), int(n[0])
            )
            found[metric].append(figure)
            yield class_name, metric, _FRACTION, figure
    for metric, figures in found.items():
        yield ALL, metric, _FRACTION, _over_classes(figures)


def _panoptic(
    counts: pd.DataFrame, resamples: _Patients
) -> Iterator[tuple[str, str, str, _Figure]]:
    columns = ["matched_instances", "matched_iou", "reference_instances", "predicted_instances"]
    found: dict[str, list[_Figure]] = {}
    for class_name, part in counts.groupby("class_name", sort=False):
        total, samples = resamples.sums(part["patient"], part[columns].to_numpy(float))
        values, spread = panoptic_quality(*total), panoptic_quality(*samples.T)
        for metric, value in values.items():
            figure = _Figure(float(value), spread[metric], int(total[2] + total[3]))
            if class_name != FOREGROUND and np.isfinite(value):
                found.setdefault(metric, []).append(figure)
            yield class_name, metric, _FRACTION, figure
    for metric, figures in found.items():
        yield ALL, metric, _FRACTION, _over_classes(figures)


def _calibration(
    detections: pd.DataFrame, resamples: _Patients
) -> Iterator[tuple[str, str, str, _Figure]]:
    for class_name, part in [(ALL, detections), *detections.groupby("class_name")]:
        scores = part["score"].to_numpy(float)
        gaps = np.zeros((len(part), len(EDGES) - 1))
        bins = np.clip(np.searchsorted(EDGES, scores, side="right") - 1, 0, len(EDGES) - 2)
        gaps[np.arange(len(part)), bins] = scores - part["right_50"].to_numpy(float)
        total, samples = resamples.sums(
            part["patient"], np.column_stack([gaps, np.ones(len(part))])
        )
        value, spread = (
            _divide(np.abs(one[..., :-1]).sum(axis=-1), one[..., -1]) for one in (total, samples)
        )
        yield class_name, "calibration_error", _FRACTION, _Figure(value, spread, len(part))


def _over_classes(figures: list[_Figure]) -> _Figure:
    """The mean over classes; in a resample, over those that are in it."""
    if not figures:
        return _Figure(np.nan, np.zeros(0), 0)
    samples = np.stack([figure.samples for figure in figures])
    known = np.isfinite(samples)
    means = _divide(np.where(known, samples, 0).sum(axis=0), known.sum(axis=0))
    value = float(np.mean([figure.value for figure in figures]))
    return _Figure(value, means, sum(figure.n for figure in figures))


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part, float) / np.asarray(whole, float)
