"""Instances against what was drawn: average precision as of COCO, and panoptic quality.

Average precision is that of pycocotools' COCOeval on masks (Lin et al., "Microsoft COCO", ECCV
2014): all areas, at most 100 instances a film and class. Panoptic quality: Kirillov et al., CVPR
2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metrics import match_instances

#: Intersections over union from which an instance is right.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: Instances of a class that count on a film: those that score most.
MOST = 100
#: Pairs that overlap more belong together in panoptic quality.
PANOPTIC_IOU = 0.5
_RECALLS = np.linspace(0, 1, 101)
# Elements of one array while average precisions of many resamples are computed.
_CHUNK = 2_000_000


def match(scores: Sequence[float], overlaps: np.ndarray) -> np.ndarray:
    """Which instances of a class are right on a film, as COCOeval tells.

    By falling score, and at each of :data:`THRESHOLDS` on its own, every instance takes that of the
    structures still free with which it overlaps most, the last of equal ones.

    Args:
        scores: of D instances.
        overlaps: R x D intersections over union with the structures of this class.

    Returns:
        D x 10 bool; all false beyond the :data:`MOST` best instances.
    """
    right = np.zeros((overlaps.shape[1], len(THRESHOLDS)), bool)
    free = np.ones((len(THRESHOLDS), overlaps.shape[0]), bool)
    if not right.size or not free.size:
        return right
    every = np.arange(len(THRESHOLDS))
    for instance in np.argsort(-np.asarray(scores), kind="stable")[:MOST]:
        offered = np.where(free, overlaps[:, instance], -1.0)
        last = offered.shape[1] - 1 - offered[:, ::-1].argmax(axis=1)
        found = offered[every, last] >= THRESHOLDS
        free[every[found], last[found]] = False
        right[instance] = found
    return right


def average_precision(
    scores: np.ndarray,
    right: np.ndarray,
    n_reference: int | np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Mean precision at 101 recalls, at each of the thresholds.

    Args:
        scores: of D instances of a class on all films, the films in the order of their names; of
            equal scores the first comes first.
        right: D x T bool, see :func:`match`.
        n_reference: structures of the class; of B resamples B.
        weights: B x D: how often each instance is in each of B resamples; None is once in one.

    Returns:
        B x T, from 0 to 1, NaN where there is no structure; of one resample T.
    """
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    n_reference = np.atleast_1d(np.asarray(n_reference, float))
    right = np.asarray(right, bool)[order]
    once = weights is None
    weights = np.ones((1, len(order))) if once else np.asarray(weights, float)[:, order]
    result = np.full((len(weights), right.shape[1]), np.nan)
    step = max(1, _CHUNK // max(1, len(order)))
    for first in range(0, len(weights), step):
        rows = slice(first, first + step)
        known = n_reference[rows] > 0
        totals = n_reference[rows][known, None]
        part = weights[rows][known]
        told = np.maximum(np.cumsum(part, axis=1), np.finfo(float).tiny)
        for at, found in enumerate(right.T):
            result[np.flatnonzero(known) + first, at] = _area(
                np.cumsum(part * found, axis=1), told, totals
            )
    return result[0] if once else result


def _area(hits: np.ndarray, told: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Mean over the recalls of the best precision from there on: B of B x D, B x D and B x 1."""
    if not hits.shape[1]:
        return np.zeros(len(hits))
    precision = np.maximum.accumulate((hits / told)[:, ::-1], axis=1)[:, ::-1]
    # Each recall is first reached at one instance: count how many are at each.
    reached = np.searchsorted(_RECALLS, hits / totals, side="right")
    return (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)


def match_panoptic(overlaps: np.ndarray) -> np.ndarray:
    """Intersections over union of the pairs that count in panoptic quality.

    Pairs with more than :data:`PANOPTIC_IOU` are taken by falling overlap, one to one; where
    instances do not overlap each other, there is no choice.

    Args:
        overlaps: R x P intersections over union.
    """
    columns = match_instances(np.where(overlaps > PANOPTIC_IOU, overlaps, 0.0))
    rows = np.flatnonzero(columns >= 0)
    return overlaps[rows, columns[rows]]


def panoptic_quality(
    matched: np.ndarray | float,
    iou_sum: np.ndarray | float,
    n_reference: np.ndarray | float,
    n_predicted: np.ndarray | float,
) -> dict[str, np.ndarray]:
    """Panoptic quality and its two factors, from sums over films (numbers or arrays of them).

    Args:
        matched: pairs, see :func:`match_panoptic`.
        iou_sum: the sum of their intersections over union.
        n_reference: structures.
        n_predicted: instances.

    Returns:
        panoptic_quality, segmentation_quality (mean intersection over union of the pairs) and
        recognition_quality (the F1 score of the pairs), from 0 to 1, NaN of nothing.
    """
    matched, iou_sum = np.asarray(matched, float), np.asarray(iou_sum, float)
    somewhere = np.asarray(n_reference, float) + n_predicted
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "panoptic_quality": 2 * iou_sum / somewhere,
            "segmentation_quality": iou_sum / matched,
            "recognition_quality": 2 * matched / somewhere,
        }
