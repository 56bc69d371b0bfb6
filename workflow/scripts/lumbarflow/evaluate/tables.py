"""The metric tables of a model on the test films, their intervals, and the paper's Table 1."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..annotate.records import read_record
from ..errors import InputError
from ..files import read_grey
from ..parallel import each
from .class_summary import summarise_classes
from .film import (
    BOUNDARIES,
    COUNTS,
    DETECTIONS,
    FOREGROUND,
    INSTANCES,
    Drawn,
    Reference,
    boundary_rows,
    count_rows,
    detection_rows,
    outline_rows,
    overlap_columns,
    see,
    vertebra_rows,
)
from .metrics import binary_metrics_from_counts
from .scores import ALL, score_reliability

#: The rows of the paper's Table 1, in its order.
TABLE1_ROWS = {
    "pixel_accuracy": "Pixel Accuracy Average",
    "mean_iou": "Mean IoU Average",
    "mean_accuracy": "Mean Accuracy Average",
    "frequency_weighted_iou": "Frequency Weighted IoU Average",
}
#: The models in the order of the paper's Table 1.
PAPER_ORDER = ("unet", "mask_rcnn", "pspnet", "deeplabv3", "yolact")
METRICS = (*TABLE1_ROWS, "dice")
#: Columns that `metrics/instances` has besides: of the instances labelled without separation.
UNREPAIRED = {"iou_unrepaired": "float64", "level_unrepaired": "string"}


def score_masks(
    model: str,
    predictions: pd.DataFrame,
    references: Iterable[Reference],
    classes: Sequence[str],
    foreground: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score one network's masks on the films in `references`; other films are not looked at.

    The four metrics and Dice of a film are those of the merged binary mask: the union of the
    `foreground` classes against everything else. A film without predictions is scored as all
    background.

    Args:
        model: name of the model.
        predictions: what the network said, with the columns of `predictions/networks/*.parquet`.
        references: the test films only.
        classes: all classes in configuration order (at most eight, the bits of a mask).
        foreground: the classes that are merged.

    Returns:
        The rows for `metrics/per_image` and `metrics/per_class`, see :func:`pixel_tables`.

    Raises:
        InputError: a foreground class is not among the classes, or a prediction has an unknown
            class or another size than its film.
    """
    _check_classes(model, predictions, classes, foreground)
    by_image = dict(iter(predictions.groupby("image_id")))
    rows: list[dict[str, Any]] = []
    for reference in references:
        drawn = Drawn(reference, classes, foreground)
        instances = by_image.get(reference.image_id, predictions.iloc[:0])
        rows += count_rows(drawn, see(model, instances, drawn, classes, foreground), foreground)
    return pixel_tables(pd.DataFrame(rows, columns=list(COUNTS)))


def pixel_tables(counts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows for `metrics/per_image` and `metrics/per_class` of those of `metrics/counts`.

    Returns:
        All values are fractions. In `per_class`, `iou` and `dice` are NaN where a class is neither
        in the reference nor predicted, and `n_reference`, `n_predicted` count instances.
    """
    merged = counts[counts["class_name"] == FOREGROUND]
    scores = [
        binary_metrics_from_counts(*numbers)
        for numbers in merged[["n_both", "n_reference", "n_predicted", "n_pixels"]].to_numpy(int)
    ]
    per_image = merged[["model", "image_id"]].reset_index(drop=True)
    per_image[list(METRICS)] = pd.DataFrame(scores, columns=list(METRICS), dtype=float)
    classes = counts[counts["class_name"] != FOREGROUND].reset_index(drop=True)
    per_class = classes[["model", "image_id", "class_name"]].assign(
        **overlap_columns(classes),
        n_reference=classes["reference_instances"],
        n_predicted=classes["predicted_instances"],
    )
    return per_image, per_class


def match_vertebrae(
    model: str,
    predictions: pd.DataFrame,
    references: Iterable[Reference],
    foreground: Sequence[str],
) -> pd.DataFrame:
    """Find each reference vertebra among a network's labelled instances.

    Args:
        model: name of the model.
        predictions: labelled instances, with the columns of `predictions/*.parquet`.
        references: the test films only.
        foreground: the classes whose structures count as vertebrae.

    Returns:
        The rows for `metrics/instances`. Reference vertebrae are matched to instances of any
        foreground class, so that a lumbar vertebra called sacral is still found; one without
        overlap has no `matched_instance_id` and IoU 0. `predicted_level` is null where the
        instance has no level. `waviness` and `reference_waviness`, of the two outlines, are NaN
        where the two overlap by less than half.

    Raises:
        InputError: an instance has another size than its film.
    """
    by_image = dict(iter(predictions.groupby("image_id")))
    rows: list[dict[str, Any]] = []
    for reference in references:
        drawn = Drawn(reference, (), ())
        instances = by_image.get(reference.image_id, predictions.iloc[:0])
        rows += outline_rows(model, instances, drawn, foreground)
    return _instances(rows, predictions)


def _instances(rows: Sequence[Mapping[str, Any]], predictions: pd.DataFrame) -> pd.DataFrame:
    """A table of rows of :func:`vertebra_rows`; identifiers as in `predictions`."""
    identifier = "Int64" if pd.api.types.is_integer_dtype(predictions["instance_id"]) else "string"
    types = INSTANCES | {"matched_instance_id": identifier}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def summarise(per_image: pd.DataFrame, seed: int, n_boot: int = 2000) -> pd.DataFrame:
    """Mean of every metric over the films of each model, with a 95% bootstrap interval.

    The interval is the percentile bootstrap (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 13) over patients where `per_image` has a `patient_id` column, since
    films of one patient are not independent, and over films otherwise. All models see the same
    resamples.

    Args:
        per_image: rows of `metrics/per_image` of one or more models, optionally with `patient_id`.
        seed: seed of the resampling; the order of the rows does not matter.
        n_boot: number of resamples.

    Returns:
        Columns model, metric, mean, ci_low, ci_high (fractions), n (films).
    """
    unit = "patient_id" if "patient_id" in per_image else "image_id"
    rows = []
    for model, films in per_image.groupby("model", sort=False):
        units = films.groupby(unit, sort=True)
        sizes = units.size().to_numpy()
        # Seeded per model: models compared on the same films get the same resamples.
        picks = np.random.default_rng(seed).integers(0, len(sizes), (n_boot, len(sizes)))
        for metric in METRICS:
            totals = units[metric].sum().to_numpy()
            means = totals[picks].sum(axis=1) / sizes[picks].sum(axis=1)
            low, high = np.percentile(means, [2.5, 97.5])
            rows.append(
                {
                    "model": model,
                    "metric": metric,
                    "mean": totals.sum() / sizes.sum(),
                    "ci_low": low,
                    "ci_high": high,
                    "n": len(films),
                }
            )
    return pd.DataFrame(rows, columns=["model", "metric", "mean", "ci_low", "ci_high", "n"])


def table1(summary: pd.DataFrame, models: Sequence[str], names: Mapping[str, str]) -> pd.DataFrame:
    """The paper's Table 1: a row a metric, a column a model, in percent with two decimals.

    Args:
        summary: rows of :func:`summarise`.
        models: the models wanted; they come out in :func:`paper_order`.
        names: display name of each model; a model without one keeps its own name.

    Returns:
        A `metric` column with the paper's row names, then a column for each model.

    Raises:
        InputError: a model has no scores, for want of predictions.
    """
    table = pd.DataFrame({"metric": list(TABLE1_ROWS.values())})
    means = summary.set_index(["model", "metric"])["mean"]
    for model in paper_order(models):
        if model not in means.index.get_level_values("model"):
            raise InputError(
                f"The model {model} has no scores in metrics/summary.parquet, so it has no column "
                f"in Table 1: make predictions/{model}.parquet first, or take {model} out of "
                "`models`."
            )
        values = [round(100 * means[model, metric], 2) for metric in TABLE1_ROWS]
        table[names.get(model, model)] = values
    return table


def paper_order(models: Sequence[str]) -> list[str]:
    """`models` in the order of the paper's Table 1; models that it lacks follow as given."""
    known = [model for model in PAPER_ORDER if model in models]
    return known + [model for model in models if model not in PAPER_ORDER]


def score_all(
    models: Mapping[str, Mapping[str, str | Path]],
    films: pd.DataFrame,
    masks: Path,
    records: Path,
    classes: Sequence[str],
    evaluation: Mapping[str, Any],
    titles: Mapping[str, str],
    processes: int,
    log: logging.Logger,
) -> dict[str, pd.DataFrame]:
    """Score every model on the test films.

    Args:
        models: for each model the paths of its three tables: `networks` (what the network said),
            `unrepaired` (the same, labelled as it is) and `labelled` (separated, then labelled).
        films: the test films: image_id, patient_id and pixel_spacing_mm (null where unknown).
        masks: folder with `{image_id}.png`, the reference bit masks.
        records: folder with `{image_id}.json`.
        classes: all classes in configuration order.
        evaluation: `evaluation` of the configuration.
        titles: display name of each model.
        processes: how many to use.
        log: where progress is told.

    Returns:
        The tables counts, boundaries, detections, per_image, per_class, instances, summary,
        class_summary, score_reliability and table1. Masks are scored as the networks drew them.
        `instances` also has `iou_unrepaired` and `level_unrepaired`: of the same vertebra among the
        instances that were labelled without separating them.
    """
    foreground = evaluation["foreground"]
    read = {
        model: {name: pd.read_parquet(path) for name, path in paths.items()}
        for model, paths in models.items()
    }
    for model, tables in read.items():
        _check_classes(model, tables["networks"], classes, foreground)
    by_film = {
        (model, name): (dict(iter(table.groupby("image_id"))), table.iloc[:0])
        for model, tables in read.items()
        for name, table in tables.items()
    }
    tasks = [
        (
            film.image_id,
            None if pd.isna(film.pixel_spacing_mm) else float(film.pixel_spacing_mm),
            {key: found.get(film.image_id, none) for key, (found, none) in by_film.items()},
        )
        for film in films.itertuples()
    ]
    work = partial(
        _score_film,
        masks=masks,
        records=records,
        classes=classes,
        foreground=foreground,
        tolerances={unit: evaluation[f"tolerance_{unit}"] for unit in ("mm", "px")},
    )
    done = list(each(work, tasks, processes, log))
    tables = {
        name: pd.DataFrame(
            [row for model in models for film in done for row in film[model][name]],
            columns=list(columns),
        ).astype(columns)
        for name, columns in {
            "counts": COUNTS,
            "boundaries": BOUNDARIES,
            "detections": DETECTIONS,
            "instances": INSTANCES | UNREPAIRED,
        }.items()
    }
    tables["per_image"], tables["per_class"] = pixel_tables(tables["counts"])
    patients = films[["image_id", "patient_id"]]
    resampling = {"seed": evaluation["seed"], "n_boot": evaluation["bootstrap_samples"]}
    summary = summarise(tables["per_image"].merge(patients, on="image_id"), **resampling)
    return tables | {
        "summary": summary,
        "class_summary": summarise_classes(tables, patients, **resampling),
        "score_reliability": score_reliability(tables["detections"]),
        "table1": table1(summary, list(models), titles),
    }


def _score_film(
    image_id: str,
    spacing_mm: float | None,
    predictions: Mapping[tuple[str, str], pd.DataFrame],
    *,
    masks: Path,
    records: Path,
    classes: Sequence[str],
    foreground: Sequence[str],
    tolerances: Mapping[str, float],
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The rows of one film, by model and table; predictions by model and table too."""
    structures = read_record(records / f"{image_id}.json")["structures"]
    reference = Reference(image_id, read_grey(masks / f"{image_id}.png"), structures, spacing_mm)
    drawn = Drawn(reference, classes, foreground)
    result = {}
    for model in dict.fromkeys(model for model, _ in predictions):
        seen = see(model, predictions[model, "networks"], drawn, classes, foreground)
        found = outline_rows(model, predictions[model, "labelled"], drawn, foreground)
        before = vertebra_rows(model, predictions[model, "unrepaired"], drawn, foreground)
        result[model] = {
            "counts": list(count_rows(drawn, seen, foreground)),
            "boundaries": list(boundary_rows(drawn, seen, tolerances)),
            "detections": list(detection_rows(drawn, seen)),
            "instances": [
                row | {"iou_unrepaired": b["iou"], "level_unrepaired": b["predicted_level"]}
                for row, b in zip(found, before, strict=True)
            ],
        }
    return result


def _check_classes(
    model: str, predictions: pd.DataFrame, classes: Sequence[str], foreground: Sequence[str]
) -> None:
    for name in {FOREGROUND, ALL} & set(classes):
        raise InputError(
            f"`classes` in the configuration has {name!r}, which the metric tables use for several "
            "classes together: give that class another name."
        )
    for name in foreground:
        if name not in classes:
            raise InputError(
                f"The foreground class {name!r} is not one of `classes` in the configuration "
                f"({', '.join(classes)}): correct one of the two."
            )
    for name in predictions["class_name"].unique():
        if name not in classes:
            raise InputError(
                f"predictions/{model}.parquet has the class {name!r}, which is not in `classes` of "
                f"the configuration ({', '.join(classes)}): predict again with the same classes."
            )
