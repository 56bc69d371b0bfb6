"""Where an implant's outline lies: its centre, and the axis of a screw."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Of a screw's length from the end of its head, as fractions: behind is the head, which is wide and
# tilts on its shaft, in front the point.
_SHAFT = (0.4, 0.94)
_SLICES = 12
_POINTS = 600
# Outlines whose variance along them is less than this many times that across are no screws.
_ELONGATION = 6.0


@dataclass(frozen=True, eq=False)
class Screw:
    """A screw's axis.

    Attributes:
        head, tip: 2, the ends of the outline on the axis; in the units of the outline.
        width: the median width of the shaft.
    """

    head: np.ndarray
    tip: np.ndarray
    width: float


def centre(outline: np.ndarray) -> np.ndarray:
    """The centre of an outline's area (N x 2); of its points where it has no area."""
    start = outline[0]
    points = outline - start
    following = np.roll(points, -1, axis=0)
    cross = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    if abs(cross.sum()) < 1e-9:
        return outline.mean(axis=0)
    return start + ((points + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def screw(outline: np.ndarray) -> Screw | None:
    """The axis of a screw that was driven in from behind: midway through its shaft.

    Args:
        outline: N x 2, x to the patient's front.

    Returns:
        None where the outline is not long.
    """
    points = _dense(outline)
    middle = points.mean(axis=0)
    spread, directions = np.linalg.eigh(np.cov((points - middle).T))
    if spread[1] < _ELONGATION * spread[0]:
        return None
    along, width = directions[:, 1], 0.0
    for _ in range(2):
        along = along if along[0] > 0 else -along
        across = np.array([-along[1], along[0]])
        slices = _slices((points - middle) @ along, (points - middle) @ across)
        if len(slices) < 3:
            return None
        at, low, high = np.array(slices).T
        midline = middle + at[:, None] * along + ((low + high) / 2)[:, None] * across
        width = float(np.median(high - low))
        middle = midline.mean(axis=0)
        along = np.linalg.svd(midline - middle)[2][0]
    along = along if along[0] > 0 else -along
    reach = (points - middle) @ along
    return Screw(middle + reach.min() * along, middle + reach.max() * along, width)


def _slices(along: np.ndarray, across: np.ndarray) -> list[tuple[float, float, float]]:
    """The place, and the lowest and highest coordinate across, of slices of the shaft."""
    low, high = along.min(), along.max()
    found = []
    for start, stop in pairwise(low + (high - low) * np.linspace(*_SHAFT, _SLICES + 1)):
        inside = across[(along >= start) & (along < stop)]
        if len(inside) >= 2:
            found.append(((start + stop) / 2, inside.min(), inside.max()))
    return found


def _dense(outline: np.ndarray) -> np.ndarray:
    """Points at equal distances along a closed outline (N x 2)."""
    closed = np.vstack([outline, outline[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    places = np.arange(_POINTS) * (along[-1] / _POINTS)
    return np.stack([np.interp(places, along, closed[:, k]) for k in (0, 1)], axis=1)
