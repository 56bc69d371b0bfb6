"""What may lie over bone on a radiograph: metal of all kinds, and patches without any picture.

They are decoys, drawn without regard to anatomy. Sizes are shares of the canvas's rows, which stand
for some 400 mm of a patient.
"""

from __future__ import annotations

import cv2
import numpy as np

_SHIFT = 4  # binary digits below the pixel in OpenCV's drawing
_ONE = 1 << _SHIFT


def implants(picture: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`picture` (rows x columns, uint8) under `count` rods, rows of screws, plates or wires."""
    layer = np.zeros_like(picture)
    for _ in range(count):
        kind = (_rod, _screws, _plate, _wire)[rng.integers(4)]
        kind(layer, rng, int(rng.integers(170, 256)))
    return _cover(picture, cv2.GaussianBlur(layer, (3, 3), 0), rng.uniform(225, 255))


def cutouts(picture: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`picture` (rows x columns, uint8) with `count` patches of one level each over it."""
    rows, columns = picture.shape
    for _ in range(count):
        centre = rng.uniform(0, 1, 2) * (columns, rows)
        patch = tuple(centre), tuple(rng.uniform(0.02, 0.09, 2) * rows), rng.uniform(0, 90)
        layer = np.zeros_like(picture)
        cv2.fillConvexPoly(layer, _fixed(cv2.boxPoints(patch)), 255, cv2.LINE_AA, _SHIFT)
        picture = _cover(picture, cv2.GaussianBlur(layer, (3, 3), 0), rng.uniform(0, 255))
    return picture


def _cover(picture: np.ndarray, layer: np.ndarray, level: float) -> np.ndarray:
    """The picture with `level` over it, as opaque as `layer` says (uint8, 255 opaque)."""
    seen = cv2.multiply(picture, cv2.bitwise_not(layer), scale=1 / 255)
    return cv2.add(seen, cv2.convertScaleAbs(layer, alpha=level / 255))


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points (N x 2, x and y in pixels) as OpenCV draws them with `_SHIFT`."""
    return np.rint(np.asarray(points) * _ONE).astype(np.int32)


def _place(layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A point of the canvas, off its border: x, y."""
    return rng.uniform(0.15, 0.85, 2) * layer.shape[::-1]


def _thickness(layer: np.ndarray, share: float) -> int:
    return max(1, round(share * len(layer)))


def _direction(angle: float) -> np.ndarray:
    """Unit vector at `angle` (radians) from the vertical: x, y."""
    return np.array([np.sin(angle), np.cos(angle)])


def _curved(layer: np.ndarray, rng: np.random.Generator, length: float, bend: float) -> np.ndarray:
    """A bent line of `length` rows, near the vertical (9 x 2)."""
    along = _direction(rng.normal(0, 0.3))
    across = np.array([along[1], -along[0]])
    step = np.linspace(-0.5, 0.5, 9)[:, None] * length * len(layer)
    sag = (np.linspace(-1, 1, 9)[:, None] ** 2 - 0.5) * rng.normal(0, bend) * len(layer)
    return _place(layer, rng) + step * along + sag * across


def _rod(layer: np.ndarray, rng: np.random.Generator, opacity: int) -> None:
    """One rod, or two that lie nearly behind each other."""
    points = _curved(layer, rng, rng.uniform(0.12, 0.45), 0.02)
    width = _thickness(layer, rng.uniform(0.011, 0.018))
    beside = np.array([rng.normal(0, 0.02) * len(layer), 0])
    for offset in (0, beside)[: rng.integers(1, 3)]:
        line = [_fixed(points + offset)]
        cv2.polylines(layer, line, False, opacity, width, cv2.LINE_AA, _SHIFT)


def _screws(layer: np.ndarray, rng: np.random.Generator, opacity: int) -> None:
    """Threaded shafts with heads, one below the other."""
    head, rows = _place(layer, rng), len(layer)
    angle = rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.25)
    length = rng.uniform(0.07, 0.13) * rows
    width = rng.uniform(0.010, 0.018) * rows
    gap = rng.uniform(0.06, 0.1) * rows
    for _ in range(rng.integers(1, 5)):
        along = _direction(angle + rng.normal(0, 0.06))
        across = np.array([along[1], -along[0]])
        ends = [_fixed([head, head + length * along])]
        core = max(1, round(0.75 * width))
        cv2.polylines(layer, ends, False, opacity, core, cv2.LINE_AA, _SHIFT)
        pitch = max(2.0, 0.45 * width)
        turns = head + np.arange(pitch, length, pitch)[:, None] * along
        tilt = across * 0.6 * width + along * 0.2 * width
        threads = list(_fixed(np.stack([turns - tilt, turns + tilt], axis=1)))
        thin = max(1, round(0.2 * width))
        cv2.polylines(layer, threads, False, opacity, thin, cv2.LINE_AA, _SHIFT)
        top = [_fixed([head - 0.8 * width * across, head + 0.8 * width * across])]
        cv2.polylines(layer, top, False, opacity, max(1, round(width)), cv2.LINE_AA, _SHIFT)
        head = head + np.array([rng.normal(0, 0.01) * rows, gap])


def _plate(layer: np.ndarray, rng: np.random.Generator, opacity: int) -> None:
    """A bar with rounded ends, often with holes."""
    points = _curved(layer, rng, rng.uniform(0.05, 0.2), 0.005)
    width = _thickness(layer, rng.uniform(0.016, 0.035))
    cv2.polylines(layer, [_fixed(points)], False, opacity, width, cv2.LINE_AA, _SHIFT)
    if rng.random() < 0.5:
        for x, y in _fixed(points[1::2]).tolist():
            cv2.circle(layer, (x, y), width * _ONE // 4, 0, -1, cv2.LINE_AA, _SHIFT)


def _wire(layer: np.ndarray, rng: np.random.Generator, opacity: int) -> None:
    """A thin lead or cable across the film, any way."""
    points = rng.uniform(-0.1, 1.1, (3, 2)) * layer.shape[::-1]
    t = np.linspace(0, 1, 13)[:, None]
    bezier = (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]
    width = _thickness(layer, rng.uniform(0.003, 0.006))
    cv2.polylines(layer, [_fixed(bezier)], False, opacity, width, cv2.LINE_AA, _SHIFT)
