"""The metric tables of a model on the test films, their intervals, and the paper's Table 1."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..annotate.records import read_record
from ..errors import InputError
from ..files import read_grey
from ..prepare.masks import rasterise
from ..rle import decode
from .metrics import binary_metrics, iou_matrix, match_instances
from .metrics import dice as dice_of
from .metrics import iou as iou_of

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


@dataclass(frozen=True, eq=False)
class Reference:
    """What annotators drew on one test film.

    Attributes:
        image_id: pseudonym of the film.
        bits: H x W uint8, the bit mask of `prepared/masks`: bit k-1 is set where class k covers.
        structures: the record's structures, with `class_name`, `level` (or None) and `polygon`
            (x, y in pixels).
    """

    image_id: str
    bits: np.ndarray
    structures: Sequence[Mapping[str, Any]]


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
        The rows for `metrics/per_image` and `metrics/per_class`. All values are fractions. In
        `per_class`, `iou` and `dice` are NaN where a class is neither in the reference nor
        predicted, and `n_reference`, `n_predicted` count instances.

    Raises:
        InputError: a foreground class is not among the classes, or a prediction has an unknown
            class or another size than its film.
    """
    _check_classes(model, predictions, classes, foreground)
    by_image = dict(iter(predictions.groupby("image_id")))
    per_image, per_class = [], []
    for reference in references:
        instances = by_image.get(reference.image_id, predictions.iloc[:0])
        masks = _decode(model, reference, instances)
        names = instances["class_name"].to_list()
        row = {"model": model, "image_id": reference.image_id}

        predicted = _planes(masks, names, classes, reference.bits.shape)
        annotated = {name: (reference.bits >> k & 1) > 0 for k, name in enumerate(classes)}
        merged = [
            np.logical_or.reduce([planes[name] for name in foreground])
            for planes in (annotated, predicted)
        ]
        per_image.append(row | binary_metrics(*merged))

        drawn = [structure["class_name"] for structure in reference.structures]
        for name in classes:
            pair = annotated[name], predicted[name]
            somewhere = pair[0].any() or pair[1].any()
            per_class.append(
                row
                | {
                    "class_name": name,
                    "iou": iou_of(*pair) if somewhere else np.nan,
                    "dice": dice_of(*pair) if somewhere else np.nan,
                    "n_reference": drawn.count(name),
                    "n_predicted": names.count(name),
                }
            )
    return (
        pd.DataFrame(per_image, columns=["model", "image_id", *METRICS]),
        pd.DataFrame(
            per_class,
            columns=[
                *("model", "image_id", "class_name", "iou", "dice", "n_reference", "n_predicted")
            ],
        ),
    )


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
        instance has no level.

    Raises:
        InputError: an instance has another size than its film.
    """
    by_image = dict(iter(predictions.groupby("image_id")))
    rows = []
    for reference in references:
        instances = by_image.get(reference.image_id, predictions.iloc[:0])
        instances = instances[instances["class_name"].isin(list(foreground))]
        masks = _decode(model, reference, instances)
        row = {"model": model, "image_id": reference.image_id}
        rows += [row | match for match in _matches(reference, instances, masks, foreground)]
    identifier = "Int64" if pd.api.types.is_integer_dtype(predictions["instance_id"]) else "string"
    return pd.DataFrame(
        rows,
        columns=[
            *("model", "image_id", "class_name", "level", "matched_instance_id", "iou"),
            *("predicted_level", "level_probability"),
        ],
    ).astype(
        {
            "level": "string",
            "matched_instance_id": identifier,
            "predicted_level": "string",
            "level_probability": "float64",
        }
    )


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


def _check_classes(
    model: str, predictions: pd.DataFrame, classes: Sequence[str], foreground: Sequence[str]
) -> None:
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


def _decode(model: str, reference: Reference, predictions: pd.DataFrame) -> list[np.ndarray]:
    """Masks (H x W bool) of the predicted instances of one film."""
    masks = []
    sizes = zip(
        predictions["rle_counts"], predictions["rle_height"], predictions["rle_width"], strict=True
    )
    for counts, height, width in sizes:
        if (height, width) != reference.bits.shape:
            raise InputError(
                f"predictions/{model}.parquet has a mask of {height} x {width} pixels for the film "
                f"{reference.image_id} of {reference.bits.shape[0]} x {reference.bits.shape[1]}: "
                "predict again from the present images."
            )
        masks.append(decode(counts, int(height), int(width)))
    return masks


def _planes(
    masks: Sequence[np.ndarray], names: Sequence[str], classes: Sequence[str], shape: tuple
) -> dict[str, np.ndarray]:
    """Union of the masks of each class, H x W bool."""
    # Decoded masks lie column by column in memory: merge them so, and turn each class once.
    planes = {name: np.zeros(shape, bool, order="F") for name in classes}
    for mask, name in zip(masks, names, strict=True):
        planes[name] |= mask
    return {name: np.ascontiguousarray(plane) for name, plane in planes.items()}


def _matches(
    reference: Reference,
    predictions: pd.DataFrame,
    masks: Sequence[np.ndarray],
    foreground: Sequence[str],
) -> Iterable[dict[str, Any]]:
    """One row for each reference vertebra of a film, without model and image_id."""
    vertebrae = [s for s in reference.structures if s["class_name"] in foreground]
    overlaps = iou_matrix(
        [rasterise(s["polygon"], *reference.bits.shape) for s in vertebrae], masks
    )
    for row, (vertebra, column) in enumerate(
        zip(vertebrae, match_instances(overlaps), strict=True)
    ):
        found = predictions.iloc[column] if column >= 0 else None
        yield {
            "class_name": vertebra["class_name"],
            "level": vertebra["level"],
            "matched_instance_id": None if found is None else found["instance_id"],
            "iou": 0.0 if found is None else overlaps[row, column],
            "predicted_level": None if found is None else found["level"],
            "level_probability": None if found is None else found.get("level_probability"),
        }


def score_all(
    models: Mapping[str, Mapping[str, str | Path]],
    splits: pd.DataFrame,
    masks: Path,
    records: Path,
    classes: Sequence[str],
    evaluation: Mapping[str, Any],
    titles: Mapping[str, str],
    log: logging.Logger,
) -> dict[str, pd.DataFrame]:
    """Score every model on the test films.

    Args:
        models: for each model the paths of its three tables: `networks` (what the network said),
            `unrepaired` (the same, labelled as it is) and `labelled` (separated, then labelled).
        splits: `splits.parquet`; only its test films are scored.
        masks: folder with `{image_id}.png`, the reference bit masks.
        records: folder with `{image_id}.json`.
        classes: all classes in configuration order.
        evaluation: `evaluation` of the configuration.
        titles: display name of each model.
        log: where progress is told.

    Returns:
        The tables per_image, per_class, instances, summary and table1. Masks are scored as the
        networks drew them. `instances` also has `iou_unrepaired` and `level_unrepaired`: of the
        same vertebra among the instances that were labelled without separating them.
    """
    test = splits[splits["subset"] == "test"]
    foreground = evaluation["foreground"]
    references = [
        Reference(
            image_id,
            read_grey(masks / f"{image_id}.png"),
            read_record(records / f"{image_id}.json")["structures"],
        )
        for image_id in test["image_id"]
    ]
    scored = []
    for model, paths in models.items():
        tables = {name: pd.read_parquet(path) for name, path in paths.items()}
        found = match_vertebrae(model, tables["labelled"], references, foreground)
        before = match_vertebrae(model, tables["unrepaired"], references, foreground)
        found["iou_unrepaired"] = before["iou"]
        found["level_unrepaired"] = before["predicted_level"]
        scored.append(
            (*score_masks(model, tables["networks"], references, classes, foreground), found)
        )
        log.info("%s: %d vertebrae on %d films", model, len(found), len(references))
    per_image, per_class, instances = (
        pd.concat(tables, ignore_index=True) for tables in zip(*scored, strict=True)
    )
    summary = summarise(
        per_image.merge(test[["image_id", "patient_id"]], on="image_id"),
        evaluation["seed"],
        evaluation["bootstrap_samples"],
    )
    return {
        "per_image": per_image,
        "per_class": per_class,
        "instances": instances,
        "summary": summary,
        "table1": table1(summary, list(models), titles),
    }
