"""Geometry of outlines: measures of all outlines of a film at once, crossings, shared area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

#: Pairs of edges, or of outlines, that are looked at: far more than anyone draws on a film, and a
#: bound on the time that a damaged file can take.
MOST_PAIRS = 1_000_000
_GRID = 64  # cells a side in which shared area is counted: to about 2 % of the common box


class Measures(NamedTuple):
    """Measures of N outlines in pixels.

    Attributes:
        area: N, of the shoelace formula; the lobes of an outline that crosses itself cancel.
        length: N, of the closed outline.
        centre: N x 2, of the area; of the box where there is hardly any area.
        low, high: N x 2, corners of the box.
        simple: N, whether the outline goes once round its centre without turning back, as most
            bodies do: then it does not cross itself.
    """

    area: np.ndarray
    length: np.ndarray
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray
    simple: np.ndarray


def measure(outlines: Sequence[np.ndarray]) -> Measures:
    """Measure outlines (each n x 2, n at least 1, finite), one at least."""
    sizes = np.array([len(outline) for outline in outlines])
    points = np.concatenate(outlines)
    starts = np.cumsum(sizes) - sizes
    after = np.arange(1, len(points) + 1)
    after[starts + sizes - 1] = starts
    first = points[starts]
    # About each outline's first point, so that products stay small and areas exact.
    local = points - np.repeat(first, sizes, axis=0)
    cross = local[:, 0] * local[after, 1] - local[:, 1] * local[after, 0]
    twice = np.add.reduceat(cross, starts)
    moment = np.add.reduceat((local + local[after]) * cross[:, None], starts)
    edges = points[after] - points
    length = np.add.reduceat(np.hypot(edges[:, 0], edges[:, 1]), starts)
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = first + moment / (3 * twice[:, None])
    inside = ((centre >= low) & (centre <= high)).all(axis=1)
    centre = np.where(inside[:, None], centre, (low + high) / 2)
    x, y = (points - np.repeat(centre, sizes, axis=0)).T
    turn = x * y[after] - y * x[after]
    one_way = (np.minimum.reduceat(turn, starts) > 0) | (np.maximum.reduceat(turn, starts) < 0)
    rounds = np.add.reduceat(((y < 0) != (y[after] < 0)).astype(int), starts) // 2
    return Measures(np.abs(twice) / 2, length, centre, low, high, one_way & (rounds == 1))


def encloses_area(points: Sequence[Sequence[float]] | np.ndarray) -> bool:
    """Whether points (N x 2) have three distinct ones that do not lie on one straight line.

    The polygon's signed area would not do: the lobes of a figure of eight cancel.
    """
    distinct = np.unique(np.asarray(points, dtype=float).reshape(-1, 2), axis=0)
    if len(distinct) < 3:
        return False
    rest = distinct[1:] - distinct[0]
    axis = rest[np.argmax((rest**2).sum(axis=1))]
    off_axis = np.abs(rest[:, 0] * axis[1] - rest[:, 1] * axis[0])
    return bool(off_axis.max() > 1e-9 * (axis**2).sum())


def intersects_itself(points: Sequence[Sequence[float]] | np.ndarray) -> bool:
    """Whether two edges of the closed polygon (N x 2) cross; touching is not crossing.

    Of polygons with more than :data:`MOST_PAIRS` pairs of edges at equal height and at equal
    breadth, only so many pairs are looked at.
    """
    start = np.asarray(points, dtype=float).reshape(-1, 2)
    if len(start) < 4:
        return False
    end = np.roll(start, -1, axis=0)
    one, other = overlapping(np.minimum(start, end), np.maximum(start, end))

    def splits(edge: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Whether the ends of the edges `of` lie on both sides of the edges `edge`."""
        along, a, b = end[edge] - start[edge], start[of] - start[edge], end[of] - start[edge]
        side_a = np.sign(along[:, 0] * a[:, 1] - along[:, 1] * a[:, 0])
        side_b = np.sign(along[:, 0] * b[:, 1] - along[:, 1] * b[:, 0])
        return side_a * side_b < 0

    return bool((splits(one, other) & splits(other, one)).any())


def overlapping(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of N boxes (corners N x 2) that meet, as two arrays of indices.

    Boxes are swept along the axis on which fewer meet; at most :data:`MOST_PAIRS` that meet there
    are looked at.
    """
    sweeps = []
    for axis in (0, 1):
        order = np.argsort(low[:, axis], kind="stable")
        reach = np.searchsorted(low[order, axis], high[order, axis], side="right")
        sweeps.append((order, np.maximum(reach - np.arange(len(order)) - 1, 0)))
    order, count = min(sweeps, key=lambda sweep: sweep[1].sum())
    before = np.cumsum(count) - count
    count = np.clip(MOST_PAIRS - before, 0, count)
    one = np.repeat(np.arange(len(order)), count)
    other = one + 1 + np.arange(len(one)) - before[one]
    one, other = order[one], order[other]
    meet = ((low[one] <= high[other]) & (low[other] <= high[one])).all(axis=1)
    return one[meet], other[meet]


def shared_area(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two outlines (n x 2) share, in square pixels, to about 2 % of their box."""
    low = np.maximum(one.min(axis=0), other.min(axis=0))
    size = np.minimum(one.max(axis=0), other.max(axis=0)) - low
    if (size <= 0).any():
        return 0.0
    cells = [np.zeros((_GRID, _GRID), np.uint8) for _ in range(2)]
    for outline, cell in zip((one, other), cells, strict=True):
        # OpenCV counts from the centre of the first pixel, in sixteenths with shift 4.
        scaled = np.clip((outline - low) * (_GRID / size) - 0.5, -1e6, 1e6)
        cv2.fillPoly(cell, [np.rint(scaled * 16).astype(np.int32)], 1, shift=4)
    return float(np.count_nonzero(cells[0] & cells[1]) / _GRID**2 * size.prod())
