"""Polygons to masks and back.

The rule: coordinates are continuous, the pixel in row r and column c has its centre at
(x, y) = (c + 0.5, r + 0.5), and a pixel belongs to a polygon if its centre lies inside by the
even-odd rule; of centres on an edge, those on left and top edges belong. So polygons that share an
edge share no pixel and leave none between them. COCO has the same coordinates; the rasteriser of
pycocotools works on a grid of fifths of a pixel and may differ from this one along the outline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from ..files import write_png

MAX_CLASSES = 8
"""Classes that the bits of an 8-bit mask image can hold."""

Polygon = Sequence[Sequence[float]] | np.ndarray
"""N points [x, y] in pixels; the last is joined to the first."""


def rasterise_window(polygon: Polygon, rows: int, columns: int) -> tuple[int, int, np.ndarray]:
    """Rasterise a polygon within its bounding box, cut to an image of rows x columns.

    Returns:
        The first row and the first column of the box, and the mask of the box (h x w, bool).
    """
    points = np.asarray(polygon, dtype=float).reshape(-1, 2)
    following = np.roll(points, -1, axis=0)
    # Edges run downwards, whichever way they were drawn: neighbours round a shared edge alike.
    downwards = (points[:, 1] <= following[:, 1])[:, None]
    (x0, y0), (x1, y1) = (
        np.where(downwards, points, following).T,
        np.where(downwards, following, points).T,
    )
    first = np.clip(np.ceil(y0 - 0.5), 0, rows).astype(int)
    last = np.clip(np.ceil(y1 - 0.5), 0, rows).astype(int)
    count = last - first
    if not count.any():
        return 0, 0, np.zeros((0, 0), dtype=bool)
    # One entry for each crossing of an edge with a row of pixel centres.
    edge = np.repeat(np.arange(len(points)), count)
    row = first[edge] + np.arange(len(edge)) - (np.cumsum(count) - count)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
    column = np.clip(np.ceil(x - 0.5), 0, columns).astype(int)
    top, left = int(row.min()), int(column.min())
    shape = int(row.max()) - top + 1, int(column.max()) - left
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    np.add.at(crossings, (row - top, column - left), 1)
    return top, left, (np.cumsum(crossings, axis=1)[:, :-1] & 1).astype(bool)


def rasterise(polygon: Polygon, rows: int, columns: int) -> np.ndarray:
    """The mask of a polygon (rows x columns, bool); what lies outside the image is cut off."""
    mask = np.zeros((rows, columns), dtype=bool)
    top, left, window = rasterise_window(polygon, rows, columns)
    mask[top : top + window.shape[0], left : left + window.shape[1]] = window
    return mask


def bit_mask(
    structures: Iterable[Mapping[str, Any]], classes: Sequence[str], rows: int, columns: int
) -> np.ndarray:
    """All structures of a film in one mask (rows x columns, uint8) that keeps overlaps.

    A pixel is the sum of 2^(k-1) over the classes k = 1, 2, ... (in the order of `classes`) that
    cover it.

    Args:
        structures: dictionaries with class_name and polygon.
        classes: the class names of the configuration, eight at most.
        rows, columns: size of the film in pixels.

    Raises:
        InputError: more than eight classes, or a structure of a class that is not among them.
    """
    _check_count(len(classes))
    bits = np.zeros((rows, columns), dtype=np.uint8)
    for structure in structures:
        if structure["class_name"] not in classes:
            raise InputError(
                f"A record has the class {structure['class_name']!r}, which is not in `classes` "
                f"({', '.join(classes)}): add it there and run the workflow again."
            )
        top, left, window = rasterise_window(structure["polygon"], rows, columns)
        bit = np.uint8(1 << list(classes).index(structure["class_name"]))
        bits[top : top + window.shape[0], left : left + window.shape[1]] |= window * bit
    return bits


def class_planes(bits: np.ndarray, n_classes: int) -> np.ndarray:
    """Split a bit mask (H x W, uint8) into one mask a class (n_classes x H x W, bool).

    Raises:
        InputError: more than eight classes.
    """
    _check_count(n_classes)
    weights = (1 << np.arange(n_classes)).astype(np.uint8)
    return (bits[None, :, :] & weights[:, None, None]) > 0


def _check_count(n_classes: int) -> None:
    if n_classes > MAX_CLASSES:
        raise InputError(
            f"`classes` has {n_classes} entries, but mask images hold {MAX_CLASSES} at most: "
            "merge or remove some."
        )


def trace(mask: np.ndarray) -> list[list[list[float]]]:
    """The outlines of a mask (H x W, bool) along the borders of its pixels.

    Returns:
        A polygon for the outer border of every 4-connected part (clockwise on screen) and for
        every hole (anticlockwise). The masks of the polygons, combined by exclusive or, give
        `mask` again, exactly.
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    inside = padded.astype(np.int8)
    # Unit steps along pixel borders with the mask on the right hand, as (from, to) grid corners.
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(where: np.ndarray, start: tuple[int, int], step: tuple[int, int]) -> None:
        for r, c in np.argwhere(where).tolist():
            x, y = c + start[0], r + start[1]
            steps.setdefault((x, y), []).append((x + step[0], y + step[1]))

    # Differences at index (r, c) lie between padded pixels r and r + 1 (or c and c + 1), thus at
    # corner r (or c) of the unpadded image.
    vertical = np.diff(inside, axis=0)[:, 1:-1]
    horizontal = np.diff(inside, axis=1)[1:-1, :]
    add(vertical > 0, (0, 0), (1, 0))  # the top of a pixel: rightwards
    add(vertical < 0, (1, 0), (-1, 0))  # the bottom: leftwards
    add(horizontal > 0, (0, 1), (0, -1))  # the left side: upwards
    add(horizontal < 0, (0, 0), (0, 1))  # the right side: downwards

    polygons = []
    while steps:
        start = next(iter(steps))
        here, direction, corners = start, None, []
        while True:
            ways = steps[here]
            # Where two parts meet at a corner, turn right: each part keeps its own outline.
            right = None if direction is None else (-direction[1], direction[0])
            following = next(
                (way for way in ways if (way[0] - here[0], way[1] - here[1]) == right), ways[0]
            )
            ways.remove(following)
            if not ways:
                del steps[here]
            turned = (following[0] - here[0], following[1] - here[1])
            if turned != direction:
                corners.append([float(here[0]), float(here[1])])
            here, direction = following, turned
            if here == start:
                break
        polygons.append(corners)
    return polygons


def write_masks(
    folder: str | Path, records: Iterable[Mapping[str, Any]], classes: Sequence[str]
) -> int:
    """Write the bit mask of each record to ``folder/{image_id}.png``, and remove those of others.

    A mask that is there already stays the file that it is.

    Args:
        folder: made where it is missing.
        records: records of films (see :mod:`lumbarflow.annotate.records`).
        classes: the class names in configuration order.

    Returns:
        How many files are new or changed.

    Raises:
        InputError: there are too many classes.
    """
    folder, written, changed = Path(folder), set(), 0
    for record in records:
        mask = bit_mask(record["structures"], classes, record["rows"], record["columns"])
        path = folder / f"{record['image_id']}.png"
        written.add(path)
        there = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.exists() else None
        if there is None or not np.array_equal(there, mask):
            write_png(path, mask)
            changed += 1
    for path in set(folder.glob("*.png")) - written:
        path.unlink()
    return changed
