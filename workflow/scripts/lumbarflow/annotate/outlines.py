"""From masks to outlines that a person can edit: edges between pixels, and few points.

The borders of the pixels give the topology (:func:`lumbarflow.prepare.masks.trace`). Each step
along a border is then moved to where the slightly smoothed mask crosses the level, interpolated
between the centres of the two pixels on either side, as in marching squares (Lorensen and Cline,
"Marching Cubes", SIGGRAPH 1987, in two dimensions). Of these points, those are kept without which
the outline would move by more than a tolerance (Douglas and Peucker, Cartographica 10, 1973).
"""

from __future__ import annotations

import cv2
import numpy as np

from ..prepare.masks import trace

SMOOTHING = 0.5
"""Standard deviation in pixels: flattens stairs, but hardly rounds corners."""

TOLERANCE = 0.4
"""Pixels by which leaving out points may move the outline."""

_MARGIN = 4  # pixels around the mask, wider than the smoothing reaches
_RUN = 2  # pixels of a straight run of borders that makes a corner, not a stair


def outlines(
    field: np.ndarray,
    level: float = 0.5,
    smoothing: float = SMOOTHING,
    tolerance: float = TOLERANCE,
    most_points: int | None = None,
) -> list[list[list[float]]]:
    """The outlines of what lies above `level`: one for each part, holes filled, the largest first.

    Args:
        field: rows x columns; a mask (bool), or numbers from 0 to 1 such as the share of annotators
            who include a pixel.
        level: where the edge lies.
        smoothing: standard deviation in pixels of the Gaussian that the field is smoothed with; 0
            for a field that is smooth already.
        tolerance: pixels by which leaving out points may move the outline.
        most_points: points that an outline may have; where it needs more, the tolerance is raised.

    Returns:
        Polygons of points [x, y] in pixels, in continuous coordinates (see
        :mod:`lumbarflow.annotate`), hundredths of a pixel, clockwise on screen. An empty list if
        nothing lies above the level.
    """
    above = np.asarray(field) > level
    if not above.any():
        return []
    # Only the part that matters: a structure is small beside its film.
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    top, left = max(0, rows[0] - _MARGIN), max(0, columns[0] - _MARGIN)
    values = np.asarray(field)[top : rows[-1] + _MARGIN + 1, left : columns[-1] + _MARGIN + 1]
    values = values.astype(np.float32)
    if smoothing:
        # Beyond the film's edge the structure goes on as it is there.
        smooth = cv2.GaussianBlur(values, (0, 0), smoothing, borderType=cv2.BORDER_REPLICATE)
        if (smooth > level).any():  # smoothing must not erase what is thin
            values = smooth
    found = []
    for corners in trace(values > level):
        if _signed_area(np.array(corners)) > 0:  # not a hole
            points = simplify(_edge(values, level, corners), tolerance, most_points)
            if len(points) >= 3:
                found.append((_signed_area(points), np.add(points, (left, top))))
    found.sort(key=lambda part: -part[0])
    return [np.round(points, 2).tolist() for _, points in found]


def simplify(points: np.ndarray, tolerance: float, most_points: int | None = None) -> np.ndarray:
    """The closed polygon (N x 2) with fewer of its points, by Douglas and Peucker.

    No point left out lies more than `tolerance` pixels from the result, or as many more as it takes
    to come down to `most_points` (three at least).
    """
    while True:
        kept = cv2.approxPolyDP(points.astype(np.float32)[:, None], tolerance, True)[:, 0]
        if len(kept) < 3:
            return points  # smaller than the tolerance
        if most_points is None or len(kept) <= max(3, most_points):
            return kept.astype(float)
        tolerance *= 1.25


def _edge(values: np.ndarray, level: float, corners: list[list[float]]) -> np.ndarray:
    """A point for each step along a border that `trace` found: where the values cross the level."""
    corner = np.array(corners, dtype=int)
    way = np.roll(corner, -1, axis=0) - corner
    length = np.abs(way).sum(axis=1)
    step = np.repeat(way // length[:, None], length, axis=0)
    number = np.arange(len(step)) - np.repeat(np.cumsum(length) - length, length)
    middle = np.repeat(corner, length, axis=0) + (number + 0.5)[:, None] * step
    inwards = np.stack([-step[:, 1], step[:, 0]], axis=1)  # the mask is on the right hand
    inner = np.floor(middle + inwards / 2).astype(int)
    outer = inner - inwards
    rows, columns = values.shape
    within = ((outer >= 0) & (outer < (columns, rows))).all(axis=1)
    high = values[inner[:, 1], inner[:, 0]]
    low = values[outer[:, 1].clip(0, rows - 1), outer[:, 0].clip(0, columns - 1)]
    # At the edge of the film the structure ends there.
    share = np.where(within, (high - level) / np.where(within, high - low, 1), 0.5)
    shift = inwards * (0.5 - share)[:, None]
    # Corners between straight runs are no stairs: cutting them off would cost half a pixel. The
    # two sides meet where their shifts, taken beside the rounded steps at the corner, put it.
    sharp = np.minimum(length, np.roll(length, 1)) >= _RUN
    start = (np.cumsum(length) - length)[sharp]
    met = corner[sharp] + shift[start - 2] + shift[start + 1]
    return np.insert(middle + shift, start, met, axis=0)


def _signed_area(points: np.ndarray) -> float:
    """The area of a polygon (N x 2) in square pixels, positive if it is clockwise on screen."""
    following = np.roll(points, -1, axis=0)
    return float((points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum() / 2)
