"""One test film, as annotators drew it and as a network saw it: the rows of the metric tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from .. import runs
from ..errors import InputError
from ..prepare.masks import rasterise_window
from .boundaries import Boundary, boundary, compare
from .detection import THRESHOLDS, match, match_panoptic
from .metrics import match_instances
from .waviness import depth, outline, waviness

#: What tables call the union of the classes of `evaluation.foreground`.
FOREGROUND = "foreground"
#: A vertebra is found by an instance with which it has this intersection over union.
FOUND_IOU = 0.5

#: Columns of `metrics/counts` and their types; a row is a film of a model and a class, or
#: :data:`FOREGROUND`.
COUNTS = {
    "model": "string",
    "image_id": "string",
    "class_name": "string",
    "n_both": "int64",  # pixels in both masks
    "n_reference": "int64",
    "n_predicted": "int64",
    "n_pixels": "int64",  # of the film
    "reference_instances": "int64",
    "predicted_instances": "int64",
    "matched_instances": "int64",  # pairs, see `match_panoptic`
    "matched_iou": "float64",  # the sum of their intersections over union
}
#: Columns of `metrics/boundaries` and their types; rows as in `metrics/counts`.
BOUNDARIES = {
    "model": "string",
    "image_id": "string",
    "class_name": "string",
    "unit": "string",
    "tolerance": "float64",
    "reference_length": "float64",
    "predicted_length": "float64",
    "reference_within": "float64",
    "predicted_within": "float64",
    "hausdorff_95": "float64",
    "mean_distance": "float64",
    "surface_dice": "float64",
}
#: Whether an instance is right at each of the thresholds of average precision.
RIGHT = tuple(f"right_{round(100 * threshold)}" for threshold in THRESHOLDS)
#: Columns of `metrics/detections` and their types; a row is an instance of a model.
DETECTIONS = {
    "model": "string",
    "image_id": "string",
    "instance_id": "string",
    "class_name": "string",
    "score": "float64",
    "structure_id": "string",  # of its class, with which it overlaps most; null of none
    "iou": "float64",  # with that
    **dict.fromkeys(RIGHT, "bool"),
}
#: Columns of `metrics/instances` and their types; a row is a reference vertebra of a model.
INSTANCES = {
    "model": "string",
    "image_id": "string",
    "class_name": "string",
    "level": "string",
    "matched_instance_id": "string",
    "iou": "float64",
    "predicted_level": "string",
    "level_probability": "float64",
    "waviness": "float64",
    "reference_waviness": "float64",
}


@dataclass(frozen=True, eq=False)
class Reference:
    """What annotators drew on one test film.

    Attributes:
        image_id: pseudonym of the film.
        bits: H x W uint8, the bit mask of `prepared/masks`: bit k-1 is set where class k covers.
        structures: the record's structures, with `class_name`, `level` (or None) and `polygon`
            (x, y in pixels).
        spacing_mm: side of a pixel; None where it is unknown.
    """

    image_id: str
    bits: np.ndarray
    structures: Sequence[Mapping[str, Any]]
    spacing_mm: float | None = None


class Drawn:
    """A reference as run lengths, made once for all networks.

    Attributes:
        reference: as given.
        shape: rows and columns of the film.
        planes: the mask of each class, and of their union :data:`FOREGROUND`.
        areas: pixels of each of these.
        structures: the mask of each structure.
        names: the class of each structure.
    """

    def __init__(self, reference: Reference, classes: Sequence[str], foreground: Sequence[str]):
        self.reference = reference
        self.shape = reference.bits.shape
        # Runs go down the columns of a film.
        bits = np.asfortranarray(reference.bits)
        present = np.bitwise_or.reduce(bits, axis=None)
        self.planes = {
            name: runs.of_plane(bits & (1 << k) > 0)
            if present >> k & 1
            else runs.union([], *self.shape)
            for k, name in enumerate(classes)
        }
        self.planes[FOREGROUND] = runs.union([self.planes[n] for n in foreground], *self.shape)
        self.areas = {name: runs.area(plane) for name, plane in self.planes.items()}
        self.structures = [
            runs.of_window(*rasterise_window(s["polygon"], *self.shape), *self.shape)
            for s in reference.structures
        ]
        self.names = np.array([s["class_name"] for s in reference.structures], dtype=object)

    @cached_property
    def outlines(self) -> list[tuple[np.ndarray, float]]:
        """The outline of each structure, and from which depth waves count on it."""
        found = (outline(runs.window(mask)[2]) for mask in self.structures)
        return [(points, depth(points)) for points in found]

    @cached_property
    def boundaries(self) -> dict[str, Boundary]:
        """The boundary of each of the planes."""
        return {name: _boundary(plane) for name, plane in self.planes.items()}


@dataclass(frozen=True, eq=False)
class Seen:
    """What one network saw on one film.

    Attributes:
        key: `model` and `image_id`, the first columns of every table.
        instances: its rows of the table of predictions.
        planes: the mask of each class, and of their union :data:`FOREGROUND`.
        overlaps: intersections over union of the structures with the instances.
    """

    key: Mapping[str, str]
    instances: pd.DataFrame
    planes: Mapping[str, runs.Runs]
    overlaps: np.ndarray


def see(
    model: str,
    instances: pd.DataFrame,
    drawn: Drawn,
    classes: Sequence[str],
    foreground: Sequence[str],
) -> Seen:
    """Hold what a network saw on a film against what was drawn.

    Args:
        model: name of the model.
        instances: the film's rows of `predictions/networks/*.parquet`.
        drawn: on this film.
        classes: all classes in configuration order.
        foreground: the classes that are merged.

    Raises:
        InputError: an instance has another size than its film.
    """
    masks = _masks(model, drawn, instances)
    names = instances["class_name"].to_list()
    planes = {
        name: runs.union(
            [mask for mask, kind in zip(masks, names, strict=True) if kind == name], *drawn.shape
        )
        for name in classes
    }
    planes[FOREGROUND] = runs.union([planes[name] for name in foreground], *drawn.shape)
    key = {"model": model, "image_id": drawn.reference.image_id}
    return Seen(key, instances, planes, runs.iou_matrix(drawn.structures, masks))


def count_rows(drawn: Drawn, seen: Seen, foreground: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of `metrics/counts` of a film and model: :data:`COUNTS`."""
    for name, plane in seen.planes.items():
        members = list(foreground) if name == FOREGROUND else [name]
        rows = np.isin(drawn.names, members)
        columns = seen.instances["class_name"].isin(members).to_numpy(bool)
        pairs = match_panoptic(seen.overlaps[np.ix_(rows, columns)])
        yield {
            **seen.key,
            "class_name": name,
            "n_both": runs.shared(drawn.planes[name], plane),
            "n_reference": drawn.areas[name],
            "n_predicted": runs.area(plane),
            "n_pixels": drawn.reference.bits.size,
            "reference_instances": int(rows.sum()),
            "predicted_instances": int(columns.sum()),
            "matched_instances": len(pairs),
            "matched_iou": float(pairs.sum()),
        }


def overlap_columns(counts: pd.DataFrame) -> dict[str, pd.Series]:
    """`iou` and `dice` of masks counted in rows of `metrics/counts`; NaN where both are empty."""
    both = counts["n_both"].astype(float)
    total = counts["n_reference"].astype(float) + counts["n_predicted"]
    return {"iou": both / (total - both), "dice": 2 * both / total}


def boundary_rows(
    drawn: Drawn, seen: Seen, tolerances: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """The rows of `metrics/boundaries` of a film and model: :data:`BOUNDARIES`.

    Args:
        drawn: on the film.
        seen: on the same film.
        tolerances: of surface Dice, in `mm` and in `px`; the latter where the spacing is unknown.
    """
    spacing = drawn.reference.spacing_mm
    unit = "px" if spacing is None else "mm"
    for name, plane in seen.planes.items():
        found = compare(drawn.boundaries[name], _boundary(plane), tolerances[unit], spacing or 1.0)
        yield {
            **seen.key,
            "class_name": name,
            "unit": unit,
            "tolerance": tolerances[unit],
            **found,
        }


def detection_rows(drawn: Drawn, seen: Seen) -> Iterator[dict[str, Any]]:
    """The rows of `metrics/detections` of a film and model: :data:`DETECTIONS`."""
    names = seen.instances["class_name"].to_numpy(object)
    scores = seen.instances["score"].to_numpy(float)
    right = np.zeros((len(names), len(THRESHOLDS)), bool)
    for name in np.unique(names.astype(str)):
        columns = names == name
        overlaps = seen.overlaps[np.ix_(drawn.names == name, columns)]
        right[columns] = match(scores[columns], overlaps)
    same = np.where(drawn.names[:, None] == names, seen.overlaps, 0.0)
    for column, instance in enumerate(seen.instances.itertuples()):
        best = int(same[:, column].argmax()) if len(same) else -1
        found = best >= 0 and same[best, column] > 0
        yield {
            **seen.key,
            "instance_id": instance.instance_id,
            "class_name": instance.class_name,
            "score": instance.score,
            "structure_id": drawn.reference.structures[best]["structure_id"] if found else None,
            "iou": same[best, column] if found else 0.0,
            **dict(zip(RIGHT, right[column].tolist(), strict=True)),
        }


def vertebra_rows(
    model: str, instances: pd.DataFrame, drawn: Drawn, foreground: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The rows of `metrics/instances` of a film and model, without the columns on waviness.

    Args:
        model: name of the model.
        instances: the film's rows of `predictions/*.parquet`.
        drawn: on this film.
        foreground: the classes whose structures count as vertebrae.

    Raises:
        InputError: an instance has another size than its film.
    """
    for _, row in _matched(model, instances, drawn, foreground):
        yield row


def outline_rows(
    model: str, instances: pd.DataFrame, drawn: Drawn, foreground: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The rows of :func:`vertebra_rows` with the columns on waviness, where a vertebra is found."""
    for (at, mask), row in _matched(model, instances, drawn, foreground):
        waves = dict.fromkeys(("waviness", "reference_waviness"), np.nan)
        if row["iou"] >= FOUND_IOU:
            points, least = drawn.outlines[at]
            waves["waviness"] = waviness(outline(runs.window(mask)[2]), least)
            waves["reference_waviness"] = waviness(points, least)
        yield row | waves


def _matched(
    model: str, instances: pd.DataFrame, drawn: Drawn, foreground: Sequence[str]
) -> Iterator[tuple[tuple[int, runs.Runs | None], dict[str, Any]]]:
    """Each vertebra's place among the structures, the mask that it was matched to, and its row."""
    instances = instances[instances["class_name"].isin(list(foreground))]
    masks = _masks(model, drawn, instances)
    chosen = np.flatnonzero(np.isin(drawn.names, list(foreground)))
    overlaps = runs.iou_matrix([drawn.structures[k] for k in chosen], masks)
    for row, (at, column) in enumerate(zip(chosen, match_instances(overlaps), strict=True)):
        vertebra = drawn.reference.structures[at]
        found = instances.iloc[column] if column >= 0 else None
        yield (
            (at, None if found is None else masks[column]),
            {
                "model": model,
                "image_id": drawn.reference.image_id,
                "class_name": vertebra["class_name"],
                "level": vertebra["level"],
                "matched_instance_id": None if found is None else found["instance_id"],
                "iou": 0.0 if found is None else overlaps[row, column],
                "predicted_level": None if found is None else found["level"],
                "level_probability": None if found is None else found.get("level_probability"),
            },
        )


def _masks(model: str, drawn: Drawn, instances: pd.DataFrame) -> list[runs.Runs]:
    """Masks of the predicted instances of one film."""
    masks = []
    for counts, height, width in zip(
        instances["rle_counts"], instances["rle_height"], instances["rle_width"], strict=True
    ):
        if (height, width) != drawn.shape:
            raise InputError(
                f"predictions/{model}.parquet has a mask of {height} x {width} pixels for the film "
                f"{drawn.reference.image_id} of {drawn.shape[0]} x {drawn.shape[1]}: "
                "predict again from the present images."
            )
        masks.append(runs.of_string(counts, height, width))
    return masks


def _boundary(mask: runs.Runs) -> Boundary:
    top, left, inside = runs.window(mask)
    return boundary(inside, top, left)
