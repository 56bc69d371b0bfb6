"""The shadow of closed surfaces in a cone beam: how long each pixel's ray is inside them.

The x-ray source is a point, the detector a plane. A ray's length inside a closed mesh is the sum of
its depths where it leaves the mesh less those where it enters, so each triangle is drawn once, in
any order, with its depth interpolated, and added with its sign. For that to cancel where the ray
misses, each pixel must belong to exactly one of two triangles that share an edge: vertices are
snapped to 1/256 pixel, edges are evaluated exactly, and pixels on an edge go to its upper or left
triangle, as graphics hardware does.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .meshes import Mesh

_SNAP = 256.0  # steps a pixel that vertices lie on
_MOST_SAMPLES = 2_000_000  # pixels tested at once: bounds the memory
# Sizes to which the boxes about triangles are rounded up, in pixels.
_BOXES = np.unique(np.rint(1.2 ** np.arange(0, 56)).astype(np.int64))


@dataclass(frozen=True)
class Beam:
    """A film's geometry: patient millimetres to pixels, and how far along its ray a point lies.

    `right`, `down` and `along` are unit vectors in the patient: the detector's columns and rows,
    and the central ray. Pixel (0, 0) is the centre of the upper left pixel.
    """

    source: np.ndarray  # 3: the focal spot
    right: np.ndarray  # 3
    down: np.ndarray  # 3
    along: np.ndarray  # 3
    distance_mm: float  # source to detector
    centre: np.ndarray  # 2: the pixel that the central ray meets
    pixel_mm: float  # pixel spacing at the detector

    def project(self, points: object) -> np.ndarray:
        """Pixel coordinates (... x 2: column, row) of points (... x 3)."""
        relative = np.asarray(points, float) - self.source
        depth = relative @ self.along
        scale = self.distance_mm / self.pixel_mm / depth
        across = relative @ np.column_stack([self.right, self.down])
        return self.centre + across * scale[..., None]

    def magnification(self, points: object) -> np.ndarray:
        """How much larger than life things at `points` (... x 3) are on the detector."""
        return self.distance_mm / ((np.asarray(points, float) - self.source) @ self.along)

    def reduced(self, step: int) -> Beam:
        """The same beam on a grid `step` times coarser, whose pixels cover whole blocks."""
        centre = (self.centre + 0.5) / step - 0.5
        return Beam(
            self.source,
            self.right,
            self.down,
            self.along,
            self.distance_mm,
            centre,
            self.pixel_mm * step,
        )


def path_length(
    mesh: Mesh, beam: Beam, shape: tuple[int, int], weights: np.ndarray | None = None
) -> np.ndarray:
    """Millimetres that the ray of each pixel runs inside `mesh`: rows x columns float32.

    `weights` (one a face, the same over each closed surface) turn lengths into amounts: surfaces
    that lie inside others with a negative weight make shells and lighter cores of them. Without
    weights nothing is negative.
    """
    pixels = shape[0] * shape[1]
    total = np.zeros(pixels)
    waiting: list[tuple[np.ndarray, np.ndarray]] = []

    count = 0

    def add() -> None:
        nonlocal total, count
        if waiting:
            index, depth = (np.concatenate(part) for part in zip(*waiting, strict=True))
            total += np.bincount(index, depth, pixels)
            waiting.clear()
            count = 0

    for samples in _samples(mesh, beam, shape, weights):
        waiting.append(samples)
        count += len(samples[0])
        if count > _MOST_SAMPLES:
            add()
    add()
    if weights is None:
        np.maximum(total, 0, out=total)  # what is left where a ray misses is rounding
    return total.astype(np.float32).reshape(shape)


def silhouette(mesh: Mesh, beam: Beam) -> np.ndarray:
    """The outer outline of a mesh's largest connected shadow: N x 2 float64, pixel coordinates.

    It may lie off the detector. Drawn at four times the film's resolution; fine threads survive.
    """
    fine = 4
    points = beam.project(mesh.vertices)
    low = np.floor(points.min(axis=0)) - 2
    size = np.ceil(points.max(axis=0) - low).astype(int) + 3
    view = Beam(
        beam.source,
        beam.right,
        beam.down,
        beam.along,
        beam.distance_mm,
        (beam.centre - low + 0.5) * fine - 0.5,
        beam.pixel_mm / fine,
    )
    inside = path_length(mesh, view, (size[1] * fine, size[0] * fine)) > 1e-6
    contours, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    outline = max(contours, key=cv2.contourArea)[:, 0].astype(float)
    return (outline + 0.5) / fine - 0.5 + low


def _samples(mesh: Mesh, beam: Beam, shape: tuple[int, int], weights: np.ndarray | None):
    """Flat pixel indices and signed distances (mm) of all triangles, in chunks."""
    if not len(mesh.faces):
        return
    relative = mesh.vertices - beam.source
    range_mm = np.linalg.norm(relative, axis=1)
    # Small numbers round less: distances count from the middle of the mesh.
    range_mm -= range_mm.mean()
    points = np.rint(beam.project(mesh.vertices) * _SNAP)
    corners, ranges = points[mesh.faces], range_mm[mesh.faces]

    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Columns go right and rows down, so that a face turned to the source has a sign of its own.
    flip = area < 0
    corners[flip] = corners[flip][:, ::-1]
    ranges[flip] = ranges[flip][:, ::-1]
    handed = np.sign(np.dot(np.cross(beam.right, beam.down), beam.along))
    sign = np.where(flip, -1.0, 1.0) * handed
    if weights is not None:
        sign = sign * weights

    low = np.ceil(corners.min(axis=1) / _SNAP).astype(np.int64)
    high = np.floor(corners.max(axis=1) / _SNAP).astype(np.int64)
    low = np.maximum(low, 0)
    high = np.minimum(high, np.array(shape[::-1]) - 1)
    size = high - low + 1
    used = np.flatnonzero((area != 0) & (size > 0).all(axis=1))
    if not len(used):
        return
    # Triangles whose boxes are about equally large are tested together.
    rounded = _BOXES[np.searchsorted(_BOXES, size[used])]
    order = np.lexsort(rounded.T)
    used, rounded = used[order], rounded[order]
    starts = np.flatnonzero(np.any(np.diff(rounded, axis=0, prepend=-1) != 0, axis=1))
    for start, stop in zip(starts, [*starts[1:], len(used)], strict=True):
        width, height = (int(n) for n in rounded[start])
        step = max(1, _MOST_SAMPLES // (width * height))
        for first in range(start, stop, step):
            chosen = used[first : min(first + step, stop)]
            triangle, y, x = _covered(corners[chosen], low[chosen], high[chosen], width, height)
            a, b, c = (corners[chosen, i] for i in range(3))
            da, db, dc = (ranges[chosen, i] for i in range(3))
            double = _cross(b - a, c - a)
            across = (db - da) * (c - a)[:, 1] - (dc - da) * (b - a)[:, 1]
            down = (dc - da) * (b - a)[:, 0] - (db - da) * (c - a)[:, 0]
            across, down = across / double * _SNAP, down / double * _SNAP
            start_at = da - across * a[:, 0] / _SNAP - down * a[:, 1] / _SNAP
            depth = start_at[triangle] + across[triangle] * x + down[triangle] * y
            yield y * shape[1] + x, depth * sign[chosen][triangle]


def _covered(corners, low, high, width, height):
    """Which pixels triangles (n x 3 x 2, positive area) cover: triangle, row and column of each."""
    x = low[:, 0, None] + np.arange(width)
    y = low[:, 1, None] + np.arange(height)
    inside = (y <= high[:, 1, None])[:, :, None] & (x <= high[:, 0, None])[:, None, :]
    for i in range(3):
        a, b = corners[:, i], corners[:, (i + 1) % 3]
        along = b - a
        # Upper and left edges own their pixels (columns right, rows down, positive area). All
        # numbers are whole and far below 2**53.
        owns = ((along[:, 1] == 0) & (along[:, 0] > 0)) | (along[:, 1] < 0)
        by_row = along[:, 0, None] * (y * _SNAP - a[:, 1, None]) - np.where(owns, 0, 1)[:, None]
        by_column = along[:, 1, None] * (x * _SNAP - a[:, 0, None])
        inside &= by_row[:, :, None] >= by_column[:, None, :]
    triangle, row, column = np.nonzero(inside)
    return triangle, row + low[triangle, 1], column + low[triangle, 0]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
