"""How wavy the outline of a mask is: the paper's Figure 4 as a number."""

from __future__ import annotations

import cv2
import numpy as np

#: Waves less deep than this share of an outline's length do not count: the length of a vertebra's
#: outline is four times its side.
DEPTH = 0.001
#: Nor those less deep than this many pixels: the steps of a mask lie within one pixel of the line
#: that they stand for.
LEAST_DEPTH = 1.0


def outline(mask: np.ndarray) -> np.ndarray:
    """The outer border of a mask's largest part.

    Args:
        mask: h x w bool.

    Returns:
        N x 1 x 2 int32: x and y of the centres of the part's outermost pixels, in turn; none of an
        empty mask.
    """
    found, _ = cv2.findContours(
        np.pad(mask, 1).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return max(found, key=cv2.contourArea, default=np.zeros((0, 1, 2), np.int32))


def depth(points: np.ndarray) -> float:
    """From which depth, px, waves count on an outline and on those held against it."""
    length = cv2.arcLength(points, closed=True) if len(points) else 0.0
    return max(LEAST_DEPTH, DEPTH * length)


def waviness(points: np.ndarray, least: float) -> float:
    """Total absolute curvature of a closed outline, relative to the least possible.

    The outline is made smooth by leaving out what departs less than `least` from a straight line
    (Douglas and Peucker, Cartographica 1973;10:112), the steps of its pixels above all. What is
    left turns by 2 pi in all where it is convex, and by more with every wave (Fenchel's theorem).

    Args:
        points: see :func:`outline`.
        least: see :func:`depth`, px; the same for outlines that are compared.

    Returns:
        1 of a convex outline, and for every wave what its bends add; NaN of one too small to have a
        shape.
    """
    corners = cv2.approxPolyDP(points, least, closed=True)[:, 0] if len(points) else points
    if len(corners) < 3:
        return float("nan")
    sides = np.diff(corners @ np.array([1, 1j]), append=corners[:1] @ np.array([1, 1j]))
    turns = np.angle(np.roll(sides, -1) * sides.conj())
    return float(np.abs(turns).sum() / (2 * np.pi))
