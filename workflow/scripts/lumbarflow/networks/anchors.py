"""Anchors of the detectors, from the boxes of the training films.

A detector starts from anchors: boxes of given shapes about the places of a grid, a grid a level of
its pyramid. Stock shapes fit the things of photographs; screws, rods and cages are far thinner. The
shapes come from k-means with the distance 1 - IoU (Redmon and Farhadi, YOLO9000, 2017), the IoU
being that with the nearest place of the level's grid, so that thin things get a fine grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..train import augment
from ..train.films import TrainingFilms

TARGET = 0.95
"""Share of the boxes that shall have an anchor with an IoU of at least one half (`coverage`)."""

SMALLEST_SIDE = 2.0
"""Pixels of the canvas; thinner boxes only disturb the box regression."""

_IOU = 0.5
# A place of a level. With fewer, screws and rods go without; more bring hardly a better fit. The
# same for all films, so that heads fit the weights of an earlier training.
_SHAPES = 5
_DRAWS = 4  # changes of each film at random, beside the film itself
_BOXES = 5000  # more do not change the shapes, but take their time
_ROUNDS = 30
_LOSS = 0.02  # of coverage, for which learnt anchors are not given up


def of_films(
    films: TrainingFilms,
    strides: Sequence[int],
    augmentation: Mapping[str, float] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Anchors that fit the objects of the training films, as they are and as augmentation has them.

    Every class counts the same, however rare it is. The same films give the same anchors.

    Args:
        films: the training films on the canvas.
        strides: pixels between the places of each level of the detector's pyramid, finest first.
        augmentation: `training.augmentation` of the configuration; None for films as they are.
        kept: anchors that earlier weights were trained with, whose heads have learnt them: of the
            same strides they stay where they reach :data:`TARGET`, or nearly as much as new ones.

    Returns:
        A plain dict, None where the films hold no object: `strides`; `shapes`, a list a level of
        [width, height] in pixels of the canvas, equally many a level; `coverage`, the mean over the
        classes of the share of boxes (0..1) that have an anchor with an IoU of at least one half;
        `objects`, the highest number of objects on a film.
    """
    boxes, classes = boxes_of(films, augmentation)
    if not len(boxes):
        return None
    weights = _balanced(classes)
    found: dict[str, Any] = {"strides": [int(stride) for stride in strides]}
    found["shapes"] = _shapes(boxes, weights, found["strides"])
    found["coverage"] = coverage(boxes, found, weights)
    if kept is not None and list(kept["strides"]) == found["strides"]:
        share = coverage(boxes, kept, weights)
        if share >= min(TARGET, found["coverage"] - _LOSS):
            found |= {"shapes": kept["shapes"], "coverage": share}
    return found | {"objects": max(len(polygons) for polygons in films.polygons)}


def boxes_of(
    films: TrainingFilms, augmentation: Mapping[str, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of all objects on the canvas and their classes.

    Args:
        films: films on the canvas.
        augmentation: `training.augmentation` of the configuration, for some changed films as well.

    Returns:
        Boxes (N x 4, float64: left, top, right, bottom, pixel corners at whole numbers) within the
        canvas, without those thinner than training takes, and class indices (N, int64).
    """
    rng = np.random.default_rng(0)
    boxes, classes = [], []
    for picture, polygons in zip(films.pictures, films.polygons, strict=True):
        rows, columns = picture.shape
        changes = [lambda points: points]
        if augmentation is not None:
            draws = [augment.draw(rng, picture.shape, augmentation) for _ in range(_DRAWS)]
            changes += [change.points for change in draws]
        for change in changes:
            for polygon in polygons:
                points = np.clip(change(polygon.points) + 0.5, 0, (columns, rows))
                if not len(points):  # behind a shutter
                    continue
                box = np.concatenate([points.min(axis=0), points.max(axis=0)])
                if (box[2:] - box[:2]).min() >= SMALLEST_SIDE:
                    boxes.append(box)
                    classes.append(polygon.class_index)
    return np.reshape(boxes, (-1, 4)).astype(np.float64), np.array(classes, np.int64)


def coverage(
    boxes: np.ndarray, anchors: Mapping[str, Any], weights: np.ndarray | None = None
) -> float:
    """Share (0..1) of the boxes that have an anchor with an IoU of at least one half.

    Args:
        boxes: N x 4 (left, top, right, bottom) in pixels of the canvas, N at least 1.
        anchors: see :func:`of_films`; `strides` and `shapes` are read.
        weights: how much each box counts (N); None for all the same.
    """
    strides, shapes = _flat(anchors)
    covered = _ious(boxes, strides, shapes).max(axis=1) >= _IOU
    return float(np.average(covered, weights=weights))


def generator(anchors: Mapping[str, Any]) -> dict[str, Any]:
    """The anchors as MMDetection's configuration of an anchor generator.

    Its YOLO generator is the one that takes any shapes; places are at the middle of their cells.
    """
    return {
        "type": "YOLOAnchorGenerator",
        "strides": list(anchors["strides"]),
        "base_sizes": [[tuple(shape) for shape in level] for level in anchors["shapes"]],
    }


def strides_of(model: Mapping[str, Any]) -> list[int]:
    """Strides of the levels that have anchors, of a detector's configuration (MMDetection)."""
    head = model.get("rpn_head") or model["bbox_head"]
    return list(head["anchor_generator"]["strides"])


def _balanced(classes: np.ndarray) -> np.ndarray:
    """A weight a box (N, float64), of the same sum for every class."""
    return 1 / np.bincount(classes)[classes]


def _shapes(
    boxes: np.ndarray, weights: np.ndarray, strides: Sequence[int]
) -> list[list[list[float]]]:
    """`shapes` of :func:`of_films`, those of a level in the order of their ratios.

    So that similar films give similar anchors.
    """
    if len(boxes) > _BOXES:
        chosen = np.random.default_rng(0).choice(len(boxes), _BOXES, replace=False)
        boxes, weights = boxes[chosen], weights[chosen]
    found = _k_means(boxes, weights, np.repeat(strides, _SHAPES))
    return [
        sorted(level.round(2).tolist(), key=lambda shape: shape[1] / shape[0])
        for level in found.reshape(len(strides), _SHAPES, 2)
    ]


def _k_means(boxes: np.ndarray, weights: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Shapes (K x 2: width, height) of one anchor for each of the `strides` (K), of best mean IoU.

    The mean IoU of the boxes (N x 4) with their best anchors is weighted with `weights` (N).
    """
    shapes = _first_shapes(boxes, strides)
    logs = np.log(boxes[:, 2:] - boxes[:, :2])
    best_mean, best = -1.0, shapes
    for _ in range(_ROUNDS):
        ious = _ious(boxes, strides, shapes)
        nearest, fit = ious.argmax(axis=1), ious.max(axis=1)
        mean = float(np.average(fit, weights=weights))
        if mean > best_mean:
            best_mean, best = mean, shapes
        total = np.bincount(nearest, weights, len(strides))
        sums = [np.bincount(nearest, weights * log, len(strides)) for log in logs.T]
        used = total > 0
        shapes = shapes.copy()
        shapes[used] = np.exp(np.transpose(sums)[used] / total[used, None])
        # An anchor without boxes takes the shape of one that fits none.
        worst = np.argsort(fit, kind="stable")[: (~used).sum()]
        shapes[np.flatnonzero(~used)[: len(worst)]] = np.exp(logs[worst])
    return best


def _first_shapes(boxes: np.ndarray, strides: np.ndarray) -> np.ndarray:
    """Shapes (K x 2) to begin with: the larger the coarser, within a level by ratio."""
    sides = np.log(boxes[:, 2:] - boxes[:, :2])
    sides = sides[np.argsort(sides.sum(axis=1), kind="stable")]
    levels, counts = np.unique(strides, return_counts=True)
    shapes = []
    # Each box as often as there are anchors, so that few boxes give enough shapes as well.
    for level, count in zip(
        np.array_split(np.repeat(sides, len(strides), axis=0), len(levels)), counts, strict=True
    ):
        level = level[np.argsort(level[:, 1] - level[:, 0], kind="stable")]
        shapes += [part.mean(axis=0) for part in np.array_split(level, count)]
    return np.exp(shapes)


def _flat(anchors: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Strides (K) and shapes (K x 2) of all levels in one."""
    counts = [len(level) for level in anchors["shapes"]]
    return np.repeat(anchors["strides"], counts), np.concatenate(anchors["shapes"])


def _ious(boxes: np.ndarray, strides: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """IoU (N x K) of each box (N x 4) with each anchor (K) about the grid's place nearest to it."""
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
    centres = ((boxes[:, 2:] + boxes[:, :2]) / 2)[:, None]
    strides = strides[:, None]
    apart = np.abs(centres % strides - strides / 2)
    overlap = np.minimum(np.minimum(sides, shapes), (sides + shapes) / 2 - apart)
    common = overlap.clip(0).prod(axis=2)
    return common / (sides.prod(axis=2) + shapes.prod(axis=1) - common)
