"""Closed surfaces in three dimensions: what bones and implants are made of.

A mesh is closed and its faces turn outwards (counter-clockwise seen from outside), so that the
length of a ray inside it is the sum of the depths where the ray leaves less those where it enters
(:mod:`projection`). Lengths are millimetres. Meshes of one part may overlap: their lengths add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Frame:
    """A right-handed frame in the patient: `axes` has the rows anterior, cranial and right.

    The patient's own coordinates are x anterior, y caudal, z left, in millimetres; their frame has
    the axes (1, 0, 0), (0, -1, 0) and (0, 0, -1).
    """

    origin: np.ndarray  # 3, mm
    axes: np.ndarray  # 3 x 3, orthonormal rows

    def place(self, points: object) -> np.ndarray:
        """Points (... x 3: mm anterior, cranial and right of the origin) in patient coordinates."""
        return self.origin + np.asarray(points, float) @ self.axes

    def turn(self, directions: object) -> np.ndarray:
        """Directions (... x 3) of this frame in patient coordinates."""
        return np.asarray(directions, float) @ self.axes

    def local(self, points: object) -> np.ndarray:
        """Points (... x 3) of patient coordinates in this frame: the inverse of :meth:`place`."""
        return (np.asarray(points, float) - self.origin) @ self.axes.T


@dataclass(frozen=True)
class Mesh:
    """A closed triangle mesh, or several: N x 3 float64 vertices, M x 3 int32 faces."""

    vertices: np.ndarray
    faces: np.ndarray

    def placed(self, frame: Frame) -> Mesh:
        """This mesh, drawn in `frame`, in patient coordinates."""
        return Mesh(frame.place(self.vertices), self.faces)

    def volume(self) -> float:
        """The enclosed volume in cubic millimetres; negative for a mesh that is inside out."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        return float(np.einsum("ij,ij->", a, _cross(b, c)) / 6)


def join(meshes: Iterable[Mesh]) -> Mesh:
    """Several meshes as one."""
    meshes = list(meshes)
    if not meshes:
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int32))
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    return Mesh(
        np.vstack([m.vertices for m in meshes]),
        np.vstack([m.faces + np.int32(o) for m, o in zip(meshes, offsets, strict=True)]),
    )


def loft(rings: object) -> Mesh:
    """A solid through K rings of N points each (K x N x 3), its ends closed over their centroids.

    Seen along the way from the first ring to the last, the points of a ring go clockwise (the
    right-hand rule about that way); a loft that is drawn the other way round is turned outwards.
    """
    rings = np.asarray(rings, float)
    count, around = rings.shape[:2]
    vertices = np.vstack([rings.reshape(-1, 3), rings[0].mean(axis=0), rings[-1].mean(axis=0)])
    return _outwards(vertices, _loft_faces(count, around))


@cache
def _loft_faces(count: int, around: int) -> np.ndarray:
    """Faces of a loft through `count` rings of `around` points, its two centroids last."""
    here = np.arange(around)
    after = np.roll(here, -1)
    row = np.arange(count - 1)[:, None] * around
    a, b, c, d = row + here, row + after, row + around + after, row + around + here
    side = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
    first, last = count * around, count * around + 1
    start = np.column_stack([after, here, np.full(around, first)])
    top = (count - 1) * around
    end = np.column_stack([top + here, top + after, np.full(around, last)])
    faces = np.vstack([side, start, end]).astype(np.int32)
    faces.setflags(write=False)  # shared by all lofts of this shape
    return faces


def tube(axis: object, radius: object, segments: int = 12) -> Mesh:
    """A solid of round or oval section along a line.

    Args:
        axis: K x 3 points, K at least 2.
        radius: one radius, K radii, or K x 2 half-axes: in the plane of the line's bend or, of a
            straight line, nearest to the left-right direction (first), and across it (second).
        segments: points around.
    """
    axis = np.asarray(axis, float)
    radii = np.asarray(radius, float)
    if radii.ndim < 2:
        radii = np.repeat(np.broadcast_to(radii, len(axis))[:, None], 2, axis=1)
    tangent = np.empty_like(axis)
    tangent[1:-1] = axis[2:] - axis[:-2]
    tangent[0], tangent[-1] = axis[1] - axis[0], axis[-1] - axis[-2]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    # One reference for the whole line: a frame that is carried along would twist oval sections.
    reference = np.array([0.0, 0.0, 1.0])
    if np.abs(tangent @ reference).max() > 0.95:
        reference = np.array([1.0, 0.0, 0.0])
    first = reference - (tangent @ reference)[:, None] * tangent
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = _cross(tangent, first)
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    ring = (
        np.cos(angle)[None, :, None] * (radii[:, :1] * first)[:, None]
        + np.sin(angle)[None, :, None] * (radii[:, 1:] * second)[:, None]
    )
    return loft(axis[:, None] + ring)


def lathe(profile: object, segments: int = 16) -> Mesh:
    """A solid of revolution about the first axis: `profile` is K x 2, position and radius in mm."""
    profile = np.asarray(profile, float)
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = np.empty((len(profile), segments, 3))
    rings[..., 0] = profile[:, :1]
    rings[..., 1] = profile[:, 1:] * np.cos(angle)
    rings[..., 2] = profile[:, 1:] * np.sin(angle)
    return loft(rings)


def box(low: object, high: object) -> Mesh:
    """A block with edges along the axes, between two opposite corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return loft([[(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)] for x in (x0, x1)])


def ellipsoid(radii: object, segments: int = 16) -> Mesh:
    """An ellipsoid about the origin with the given half-axes (3, mm)."""
    angle = np.linspace(0.0, np.pi, segments // 2 + 1)
    mesh = lathe(np.column_stack([-np.cos(angle), np.maximum(np.sin(angle), 1e-6)]), segments)
    return Mesh(mesh.vertices * np.asarray(radii, float), mesh.faces)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cross products of N x 3 vectors, without the checks that cost more than the sums."""
    (a0, a1, a2), (b0, b1, b2) = a.T, b.T
    return np.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=1)


def _outwards(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    # About the centroid: the volume of something small and far away would drown in rounding.
    if Mesh(vertices - vertices.mean(axis=0), faces).volume() < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    return Mesh(vertices, faces)
