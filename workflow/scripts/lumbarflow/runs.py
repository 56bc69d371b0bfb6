"""Masks as COCO run lengths: areas, unions and overlaps without decoding them.

A mask on a full-size film is millions of pixels but a few thousand runs: on these, sums cost next
to nothing, and they are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

#: A mask as pycocotools takes it: `size` (rows, columns) and `counts` (compressed, bytes).
Runs = dict


def of_string(counts: str, rows: int, columns: int) -> Runs:
    """A mask from the string of a table of predictions."""
    return {"size": [int(rows), int(columns)], "counts": counts.encode("ascii")}


def of_plane(plane: np.ndarray) -> Runs:
    """A mask (H x W bool; column by column in memory is fastest)."""
    return coco_mask.encode(np.asfortranarray(plane).view(np.uint8))


def of_window(top: int, left: int, window: np.ndarray, rows: int, columns: int) -> Runs:
    """A mask from the part of it (h x w bool) that begins at row `top` and column `left`."""
    strip = np.zeros((window.shape[1], rows), bool)
    strip[:, top : top + window.shape[0]] = window.T
    # Runs down the columns of the film, of background and foreground in turn.
    edges = np.flatnonzero(np.diff(strip.ravel(), prepend=False, append=False)) + left * rows
    counts = np.diff(edges, prepend=0, append=rows * columns).tolist()
    if counts[-1] == 0:
        counts.pop()
    return coco_mask.frPyObjects({"size": [rows, columns], "counts": counts}, rows, columns)


def area(mask: Runs) -> int:
    """Pixels of a mask."""
    return int(coco_mask.area(mask))


def union(masks: Sequence[Runs], rows: int, columns: int) -> Runs:
    """Pixels in any of the masks of one film of rows x columns; there may be none."""
    if not masks:
        return of_window(0, 0, np.zeros((0, 0), bool), rows, columns)
    return coco_mask.merge(list(masks))


def shared(a: Runs, b: Runs) -> int:
    """How many pixels two masks of one film share."""
    return area(coco_mask.merge([a, b], intersect=True))


def iou_matrix(references: Sequence[Runs], predictions: Sequence[Runs]) -> np.ndarray:
    """Intersection over union of every reference mask with every predicted mask.

    Returns:
        R x P float64, from 0 to 1. An empty mask has IoU 0 with everything: it can match nothing.
    """
    if not references or not predictions:
        return np.zeros((len(references), len(predictions)))
    return coco_mask.iou(list(references), list(predictions), [0] * len(predictions))


def window(mask: Runs) -> tuple[int, int, np.ndarray]:
    """First row, first column and pixels (h x w bool) of the bounding box of a mask."""
    left, top, width, height = (int(value) for value in coco_mask.toBbox(mask))
    if not width or not height:
        return 0, 0, np.zeros((0, 0), bool)
    rows = mask["size"][0]
    ends = np.cumsum(_lengths(mask["counts"]))
    start, stop = ends[: len(ends) // 2 * 2].reshape(-1, 2).T
    start, stop = start[start < stop], stop[start < stop]
    if (start // rows != (stop - 1) // rows).any():
        # A run goes on in the next column.
        plane = coco_mask.decode(mask)[top : top + height, left : left + width]
        return top, left, np.ascontiguousarray(plane).view(bool)
    # Only the box is filled: films are mostly background.
    steps = np.zeros(width * height + 1, np.int8)
    first = (start // rows - left) * height + start % rows - top
    steps[first] += 1
    steps[first + stop - start] -= 1
    inside = np.cumsum(steps[:-1], dtype=np.int8).reshape(width, height)
    return top, left, np.ascontiguousarray(inside.T).view(bool)


def _lengths(counts: bytes) -> np.ndarray:
    """Lengths of the runs, of background and foreground in turn, from pycocotools' string.

    A number is written in groups of five bits, the lowest first, one a character; all but its last
    character have bit 32. From the fourth number on it is the difference to the last but one.
    """
    characters = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = characters & 32 == 0
    begins = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(characters)) - np.repeat(begins, np.diff(begins, append=len(characters)))
    numbers = np.add.reduceat((characters & 31) << 5 * place, begins)
    negative = characters[last] & 16 > 0
    numbers -= negative * (np.int64(1) << 5 * (place[last] + 1))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
