"""How far annotators of a film agree: overlap, corners, what one of them left out, levels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from ..prepare.masks import Polygon, rasterise_window

#: Outlines that overlap less are not of the same structure. Neighbouring bodies overlap by a few
#: per cent, a thin screw drawn twice by more than this.
MIN_DICE = 0.3
#: The classes whose outlines have corners: by default those that count as vertebrae.
VERTEBRAE = ("lumbar_vertebra", "sacral_vertebra")
#: Columns of `annotations/agreement.parquet` and their types.
AGREEMENT = {
    "image_id": "string",
    "annotator_a": "string",
    "annotator_b": "string",
    "source_a": "string",
    "source_b": "string",
    "structure_a": "string",
    "structure_b": "string",
    "class_name": "string",
    "level_a": "string",
    "level_b": "string",
    "status": "string",
    "level_agrees": "boolean",
    "dice": "Float64",
    "corner_distance_px": "Float64",
    "corner_distance_mm": "Float64",
}

# The tip of a corner, as a share of the square root of the area, and how often it is looked for:
# the bisectors depend on the other corners.
_TIP = 0.05
_REFINEMENTS = 3
_ANGLES = np.arange(48) * (2 * np.pi / 48)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])


def compare(
    drawings: Sequence[Mapping[str, Any]],
    rows: int,
    columns: int,
    spacing_mm: float | None,
    vertebrae: Collection[str] = VERTEBRAE,
) -> list[dict[str, Any]]:
    """Compare the drawings of a film, each with each of the later ones.

    Args:
        drawings: annotator, source and structures (structure_id, class_name, level, polygon) of
            each file.
        rows, columns: size of the film in pixels; what lies outside does not count.
        spacing_mm: side of a pixel in mm, None where it is unknown.
        vertebrae: the classes whose corners are compared.

    Returns:
        A dictionary for each structure of a pair of drawings a and b: the columns of
        :data:`AGREEMENT` but image_id. status is `matched`, `missing` (drawn in a only) or `extra`
        (in b only). dice (0 to 1) and the corner distances, means over the four corners, are of
        matched structures and None elsewhere; level_agrees is None unless both have a level.
    """
    masks = [_windows(drawing["structures"], rows, columns) for drawing in drawings]
    found = []
    for (a, masks_a), (b, masks_b) in combinations(zip(drawings, masks, strict=True), 2):
        pair = {f"{key}_a": a[key] for key in ("annotator", "source")}
        pair |= {f"{key}_b": b[key] for key in ("annotator", "source")}
        matches = _match(a["structures"], masks_a, b["structures"], masks_b)
        of_a = {i: (j, dice) for i, j, dice in matches}
        for i, one in enumerate(a["structures"]):
            j, dice = of_a.get(i, (None, None))
            other = None if j is None else b["structures"][j]
            found.append(pair | _row(one, other, dice, spacing_mm, vertebrae))
        taken = {j for _, j, _ in matches}
        for j, other in enumerate(b["structures"]):
            if j not in taken:
                found.append(pair | _row(None, other, None, spacing_mm, vertebrae))
    return found


def agreement_table(
    records: Iterable[Mapping[str, Any]],
    spacings_mm: Mapping[str, float | None],
    vertebrae: Collection[str] = VERTEBRAE,
) -> pd.DataFrame:
    """The comparison of all films that several annotators drew on.

    Args:
        records: of all annotated films; those without `drawings` add nothing.
        spacings_mm: side of a pixel in mm by image_id; None or NaN where it is unknown.
        vertebrae: see :func:`compare`.

    Returns:
        The columns of :data:`AGREEMENT`; a row for each pair of annotators, film and structure.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        spacing = spacings_mm.get(record["image_id"])
        compared = compare(
            record.get("drawings", ()),
            record["rows"],
            record["columns"],
            None if pd.isna(spacing) else float(spacing),
            vertebrae,
        )
        rows += [{"image_id": record["image_id"]} | row for row in compared]
    return pd.DataFrame(rows, columns=list(AGREEMENT)).astype(AGREEMENT)


def match(
    a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], rows: int, columns: int
) -> list[tuple[int, int, float]]:
    """Which structures of two annotators are the same: the pairs with the largest sum of Dice.

    Only structures of the same class with a Dice coefficient of :data:`MIN_DICE` or more are
    matched, each once (assignment problem; Kuhn 1955, "The Hungarian method").

    Args:
        a, b: structures with class_name and polygon.
        rows, columns: size of the film in pixels.

    Returns:
        Index in `a`, index in `b` and Dice coefficient, by the index in `a`.
    """
    return _match(a, _windows(a, rows, columns), b, _windows(b, rows, columns))


def corners(polygon: Polygon) -> np.ndarray | None:
    """The four corners of an outline, sharp or rounded, of few points or many.

    First those of the largest quadrilateral between its points. Then each is put where the outline
    reaches farthest along the bisector of its angle, across the bisector in the middle of the tip:
    that part of the outline of which a few points placed a little differently change nothing.

    Args:
        polygon: points [x, y] in pixels.

    Returns:
        4 x 2 float64, in order round the outline (clockwise on the screen); None where the hull
        has fewer than four points.
    """
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    # Extreme points in directions all round are the hull, in order, without its smallest bends.
    extreme = ((points - points.mean(axis=0)) @ _DIRECTIONS).argmax(axis=0)
    hull = np.array(list(dict.fromkeys(map(tuple, points[extreme].tolist()))))
    n = len(hull)
    if n < 4:
        return None
    # Twice the area of the triangle over the diagonal i, j with the tip k; its sign tells the side.
    x, y = (hull - hull.mean(axis=0)).T
    cross = np.outer(x, y) - np.outer(y, x)
    doubled = cross[:, :, None] + cross[None, :, :] + cross.T[:, None, :]
    area = doubled.max(axis=2) - doubled.min(axis=2)
    i, j = divmod(int(area.argmax()), n)
    four = sorted({i, j, int(doubled[i, j].argmax()), int(doubled[i, j].argmin())})
    if len(four) < 4:
        return None
    outline = _dense(points)
    found = hull[four]
    for _ in range(_REFINEMENTS):
        found = _tips(outline, found)
    return found


def corner_distance(a: Polygon, b: Polygon) -> float | None:
    """Mean distance in pixels between the corners of two outlines; None where one has no four.

    Of the ways to pair the corners in their order round the outlines, the nearest one counts.
    """
    one, other = corners(a), corners(b)
    if one is None or other is None:
        return None
    return min(
        float(np.linalg.norm(one - np.roll(other, shift, axis=0), axis=1).mean())
        for shift in range(4)
    )


def _row(
    a: Mapping[str, Any] | None,
    b: Mapping[str, Any] | None,
    dice: float | None,
    spacing_mm: float | None,
    vertebrae: Collection[str],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "structure_a": a and a["structure_id"],
        "structure_b": b and b["structure_id"],
        "class_name": (a or b)["class_name"],
        "level_a": a and a["level"],
        "level_b": b and b["level"],
        "status": "matched" if a and b else "missing" if a else "extra",
        "level_agrees": None,
        "dice": dice,
        "corner_distance_px": None,
        "corner_distance_mm": None,
    }
    if a and b:
        if a["level"] and b["level"]:
            row["level_agrees"] = a["level"] == b["level"]
        if a["class_name"] in vertebrae:
            distance = corner_distance(a["polygon"], b["polygon"])
            row["corner_distance_px"] = distance
            if distance is not None and spacing_mm is not None:
                row["corner_distance_mm"] = distance * spacing_mm
    return row


_Window = tuple[int, int, np.ndarray]


def _windows(structures: Iterable[Mapping[str, Any]], rows: int, columns: int) -> list[_Window]:
    return [rasterise_window(structure["polygon"], rows, columns) for structure in structures]


def _match(
    a: Sequence[Mapping[str, Any]],
    masks_a: Sequence[_Window],
    b: Sequence[Mapping[str, Any]],
    masks_b: Sequence[_Window],
) -> list[tuple[int, int, float]]:
    dice = np.zeros((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            if one["class_name"] == other["class_name"]:
                dice[i, j] = _dice(masks_a[i], masks_b[j])
    dice[dice < MIN_DICE] = 0
    pairs = zip(*linear_sum_assignment(dice, maximize=True), strict=True)
    return [(int(i), int(j), float(dice[i, j])) for i, j in pairs if dice[i, j] > 0]


def _dice(a: _Window, b: _Window) -> float:
    """Dice coefficient of two masks, each given by first row, first column and h x w bool."""
    (top_a, left_a, mask_a), (top_b, left_b, mask_b) = a, b
    top, left = max(top_a, top_b), max(left_a, left_b)
    bottom = min(top_a + mask_a.shape[0], top_b + mask_b.shape[0])
    right = min(left_a + mask_a.shape[1], left_b + mask_b.shape[1])
    if top >= bottom or left >= right:
        return 0.0
    both = np.count_nonzero(
        mask_a[top - top_a : bottom - top_a, left - left_a : right - left_a]
        & mask_b[top - top_b : bottom - top_b, left - left_b : right - left_b]
    )
    total = np.count_nonzero(mask_a) + np.count_nonzero(mask_b)
    return 2 * both / total if total else 0.0


def _dense(points: np.ndarray) -> np.ndarray:
    """400 points at equal distances along a closed outline (N x 2)."""
    closed = np.vstack([points, points[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    places = np.arange(400) * (along[-1] / 400)
    return np.stack([np.interp(places, along, closed[:, k]) for k in (0, 1)], axis=1)


def _tips(outline: np.ndarray, quadrilateral: np.ndarray) -> np.ndarray:
    """The corners of a quadrilateral (4 x 2) moved to the tips of a dense outline (N x 2)."""
    before = quadrilateral - np.roll(quadrilateral, 1, axis=0)
    after = quadrilateral - np.roll(quadrilateral, -1, axis=0)
    lengths = np.linalg.norm(before, axis=1, keepdims=True)
    if not lengths.all():
        return quadrilateral
    out = before / lengths + after / np.roll(lengths, -1, axis=0)
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    if not norms.all():
        return quadrilateral
    out /= norms
    across = np.stack([-out[:, 1], out[:, 0]], axis=1)
    diagonals = quadrilateral[2:] - quadrilateral[:2]
    area = abs(diagonals[0, 0] * diagonals[1, 1] - diagonals[0, 1] * diagonals[1, 0]) / 2
    reach = outline @ out.T
    most = reach.max(axis=0)
    tip = reach >= most - _TIP * np.sqrt(area)
    side = np.where(tip, outline @ across.T, 0).sum(axis=0) / tip.sum(axis=0)
    return most[:, None] * out + side[:, None] * across
