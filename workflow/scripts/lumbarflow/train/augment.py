"""Random changes of radiographs, the same for every network: geometry and grey levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Change:
    """One draw: an affine map of pixel coordinates (2 x 3) and a grey-level curve (256, uint8)."""

    matrix: np.ndarray
    curve: np.ndarray
    noise: float

    def picture(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The changed picture (rows x columns, uint8)."""
        moved = cv2.warpAffine(picture, self.matrix, picture.shape[::-1], flags=cv2.INTER_LINEAR)
        shown = self.curve[moved].astype(np.float32)
        shown += rng.normal(0, self.noise, shown.shape).astype(np.float32)
        shown[moved == 0] = 0  # the padding stays black, as at prediction
        return np.clip(shown, 0, 255).astype(np.uint8)

    def bits(self, bits: np.ndarray) -> np.ndarray:
        """The moved bit mask (rows x columns, uint8)."""
        return cv2.warpAffine(bits, self.matrix, bits.shape[::-1], flags=cv2.INTER_NEAREST)

    def points(self, points: np.ndarray) -> np.ndarray:
        """The moved points (N x 2)."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]


def draw(rng: np.random.Generator, size: tuple[int, int], limits: Mapping[str, float]) -> Change:
    """Draw a change for a canvas of `size` (rows, columns).

    Args:
        rng: source of randomness.
        size: rows and columns.
        limits: `training.augmentation` of the configuration.
    """
    rows, columns = size
    angle = rng.uniform(-1, 1) * limits["rotation_degrees"]
    scale = 1 + rng.uniform(-1, 1) * limits["scale"]
    centre = ((columns - 1) / 2, (rows - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    matrix[:, 2] += rng.uniform(-1, 1, 2) * limits["shift"] * np.array([columns, rows])
    if rng.random() < limits["flip_probability"]:
        mirror = np.array([[-1.0, 0, columns - 1], [0, 1, 0], [0, 0, 1]])
        matrix = matrix @ mirror
    strength = limits["contrast"]
    grey = np.linspace(0, 1, 256)
    gamma = np.exp(rng.uniform(-1, 1) * strength)
    contrast = np.exp(rng.uniform(-1, 1) * strength)
    brightness = rng.uniform(-1, 1) * strength * 0.4
    curve = np.clip((grey**gamma - 0.5) * contrast + 0.5 + brightness, 0, 1)
    return Change(matrix, np.rint(curve * 255).astype(np.uint8), rng.uniform(0, 12) * strength)
