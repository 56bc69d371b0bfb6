"""How far the boundaries of two masks lie apart: Hausdorff distance and surface Dice.

Definitions: Nikolov et al., "Clinically Applicable Segmentation of Head and Neck Anatomy for
Radiotherapy", J Med Internet Res 2021;23(7):e26151. The boundary runs over the corners at which
four pixels meet that are not all alike; each such corner stands for the length of boundary that
marching squares draw there, so that neither the one nor the other side of a pixel counts as edge
and slanted lines are not too long. Beyond the film's border all is background.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

#: Length of boundary, px, at a corner by the pixels that are inside: 8 upper left, 4 upper right,
#: 2 lower left, 1 lower right.
_LENGTHS = np.zeros(16)
_LENGTHS[[1, 2, 4, 8, 7, 11, 13, 14]] = np.sqrt(0.5)
_LENGTHS[[3, 5, 10, 12]] = 1.0
_LENGTHS[[6, 9]] = np.sqrt(2)


@dataclass(frozen=True, eq=False)
class Boundary:
    """The boundary of a mask.

    Attributes:
        corners: N x 2 whole numbers: x and y of corners of pixels, px of the film.
        lengths: N, px: of the boundary at each.
    """

    corners: np.ndarray
    lengths: np.ndarray

    @cached_property
    def length(self) -> float:
        """Of the whole boundary, px."""
        return float(self.lengths.sum())

    @cached_property
    def tree(self) -> cKDTree:
        """For the nearest corner; built for speed, as each is used a few times only."""
        return cKDTree(self.corners, leafsize=32, balanced_tree=False, compact_nodes=False)


def boundary(window: np.ndarray, top: int = 0, left: int = 0) -> Boundary:
    """The boundary of a mask (h x w bool), whose first pixel is in row `top` and column `left`."""
    inside = np.pad(window, 1).view(np.uint8)
    code = inside[:-1, :-1] << 3
    code |= inside[:-1, 1:] << 2
    code |= inside[1:, :-1] << 1
    code |= inside[1:, 1:]
    # 0 and 15, all alike, become 255 and 14: the largest ones less one.
    found = np.flatnonzero(code - 1 < 14)
    rows, columns = np.divmod(found, code.shape[1])
    return Boundary(np.stack([columns + left, rows + top], axis=1), _LENGTHS[code.ravel()[found]])


def compare(
    reference: Boundary, prediction: Boundary, tolerance: float, scale: float = 1.0
) -> dict[str, float]:
    """Compare the boundaries of two masks of one film.

    - hausdorff_95: the larger one of two distances: that from the other boundary within which 95 %
      of the reference's length lie, and of the prediction's
    - mean_distance: from the other boundary, over the length of both
    - surface_dice: share of the length of both that is not farther than `tolerance` from the other

    Args:
        reference: of the annotated mask.
        prediction: of the predicted mask.
        tolerance: a distance in the unit of `scale`.
        scale: side of a pixel, in mm for example; distances come out in this unit.

    Returns:
        The three, and before them what they are made of: reference_length, predicted_length,
        and how much of these is within tolerance: reference_within, predicted_within, in the unit
        of `scale`. Distances are NaN where one of the masks is empty, surface_dice only where both
        are; where one is, it is 0.
    """
    pair = (reference, prediction)
    lengths = [one.length * scale for one in pair]
    result = dict(zip(("reference_length", "predicted_length"), lengths, strict=True))
    if not all(lengths):
        nothing = {"reference_within": 0.0, "predicted_within": 0.0}
        distances = {"hausdorff_95": np.nan, "mean_distance": np.nan}
        dice = {"surface_dice": 0.0 if any(lengths) else np.nan}
        return result | nothing | distances | dice
    away = [other.tree.query(one.corners)[0] * scale for one, other in (pair, pair[::-1])]
    within = [
        float(one.lengths[distance <= tolerance].sum()) * scale
        for one, distance in zip(pair, away, strict=True)
    ]
    total = sum(
        float(one.lengths @ distance) * scale for one, distance in zip(pair, away, strict=True)
    )
    return result | {
        "reference_within": within[0],
        "predicted_within": within[1],
        "hausdorff_95": max(
            _quantile(distance, one.lengths, 0.95) for one, distance in zip(pair, away, strict=True)
        ),
        "mean_distance": total / sum(lengths),
        "surface_dice": sum(within) / sum(lengths),
    }


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The least value that, with those below it, has at least this share of the weight."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    # Sums of lengths are not exact: a share that is just reached counts.
    at = np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))
    return float(values[order[min(at, len(order) - 1)]])
