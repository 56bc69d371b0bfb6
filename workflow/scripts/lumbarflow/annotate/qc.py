"""Quality checks of annotations.

A finding of severity `error` keeps the region out of training and evaluation, a `warning` asks for
a look, an `info` only tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..prepare.masks import rasterise_window
from .via import ViaRegion


class Finding(NamedTuple):
    """A row of the table of findings; structure_id is None for a finding about the whole film."""

    image_id: str
    structure_id: str | None
    check: str
    severity: str
    message: str


class Problem(NamedTuple):
    """What is wrong with a region, before it is known whose it is."""

    check: str
    severity: str
    message: str


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table of strings: image_id, structure_id, check, severity, message."""
    return pd.DataFrame(list(findings), columns=list(Finding._fields)).astype("string")


def check_region(region: ViaRegion, rows: int, columns: int) -> list[Problem]:
    """The problems of a region that should outline a structure on a film of rows x columns.

    An `error` comes alone: the other checks suppose a proper outline.
    """
    if region.shape == "point":
        return [Problem("point", "error", "a point outlines nothing: draw a polygon")]
    if not region.closed:
        return [
            Problem(
                "open_line", "error", "an open line outlines nothing: close it or draw a polygon"
            )
        ]
    points = np.asarray(region.points, dtype=float).reshape(-1, 2)
    if not encloses_area(points):
        return [Problem("degenerate", "error", "fewer than three distinct points, or no area")]
    if not rasterise_window(points, rows, columns)[2].any():
        return [Problem("no_pixel", "error", "the outline covers no pixel of the film")]
    problems = []
    if intersects_itself(points):
        problems.append(
            Problem(
                "self_intersection",
                "warning",
                "the outline crosses itself; parts covered twice count as outside",
            )
        )
    outside = int(((points < 0) | (points > (columns, rows))).any(axis=1).sum())
    if outside:
        problems.append(
            Problem(
                "outside_image",
                "warning",
                f"{outside} of {len(points)} points lie outside the film; "
                "what is outside is cut off",
            )
        )
    return problems


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
    """Whether two edges of the closed polygon (N x 2) cross; touching is not crossing."""
    start = np.asarray(points, dtype=float).reshape(-1, 2)
    end = np.roll(start, -1, axis=0)
    edge = end - start

    def side(of: np.ndarray) -> np.ndarray:
        """Sign [i, j]: on which side of edge i the point `of[j]` lies."""
        offset = of[None, :, :] - start[:, None, :]
        return np.sign(edge[:, None, 0] * offset[..., 1] - edge[:, None, 1] * offset[..., 0])

    # Edges i and j cross if each has its ends on both sides of the other.
    splits = side(start) * side(end) < 0
    return bool((splits & splits.T).any())
