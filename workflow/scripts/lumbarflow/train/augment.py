"""Random changes of radiographs, the same for every network: geometry, appearance, hidden bone.

Appearance changes in the ways in which films differ: tone curve of the console, its treatment of
broad contrast and of edges, unequal exposure and bowel gas, quantum noise, shutters. Metal and
blank patches drawn over the film leave its annotation as it is: what they hide is still there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from ..prepare.coco import clip
from . import overlays

_SHUTTER = 0.12  # largest part of a side that a shutter closes
_REVERSED = 0.15  # share of the films with changed local contrast on which broad contrast is turned
_COARSE_ROWS = 44  # of the fields that vary broadly, before they are scaled up
_SHARPENING = 2.0  # weight of the unsharp mask at full strength
_EDGE = 1 / 300  # of the rows: the largest blur, and the width of what is sharpened

# Byte to normal deviate: a byte a pixel costs a tenth of drawing from the normal distribution.
_NORMAL = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)], np.float32)
_NORMAL /= _NORMAL.std()


@dataclass(frozen=True)
class Change:
    """One draw for a canvas.

    Attributes:
        matrix: affine map of pixel coordinates (2 x 3).
        curve: grey-level curve (256, uint8).
        opening: left, top, right and bottom of what the shutters leave open, in pixels, right and
            bottom not included; None without shutters.
        implants, cutouts: number of decoys and of patches drawn over the film.
        detail: factor of what differs from the surroundings.
        broad: factor of what the surroundings differ by from the film's mean.
        reach: standard deviation of the surroundings, in rows / 44.
        shading: largest change by unequal exposure and gas, in grey levels.
        blur: its standard deviation, in pixels.
        sharpening: weight of an unsharp mask.
        noise: standard deviation of the noise at middle grey, in grey levels.
        grain: standard deviation of the noise's correlation, in pixels; 0 for white noise.
    """

    matrix: np.ndarray
    curve: np.ndarray
    opening: tuple[int, int, int, int] | None = None
    implants: int = 0
    cutouts: int = 0
    detail: float = 1.0
    broad: float = 1.0
    reach: float = 3.0
    shading: float = 0.0
    blur: float = 0.0
    sharpening: float = 0.0
    noise: float = 0.0
    grain: float = 0.0

    def picture(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The changed picture (rows x columns, uint8); what is padding or shut off is 0.

        Implants, cutouts, shading and noise are drawn from `rng`.
        """
        moved = cv2.warpAffine(picture, self.matrix, picture.shape[::-1], flags=cv2.INTER_LINEAR)
        film = (moved > 0).view(np.uint8)
        if self.implants:
            moved = overlays.implants(moved, self.implants, rng)
        if self.cutouts:
            moved = overlays.cutouts(moved, self.cutouts, rng)
        if self.shading or self.detail != 1 or self.broad != 1:
            field = self._field(moved, film, rng)
            moved = cv2.addWeighted(moved, self.detail, field, 1, 0, dtype=cv2.CV_8U)
        moved = cv2.LUT(moved, self.curve)
        moved = self._sharpened(moved)
        if self.noise:
            moved = cv2.add(moved, self._noise(moved, rng), dtype=cv2.CV_8U)
        moved *= film  # the padding stays black, as at prediction
        return self._shut(moved)

    def bits(self, bits: np.ndarray) -> np.ndarray:
        """The moved bit mask (rows x columns, uint8), nothing being behind the shutters."""
        size = bits.shape[::-1]
        return self._shut(cv2.warpAffine(bits, self.matrix, size, flags=cv2.INTER_NEAREST))

    def points(self, points: np.ndarray) -> np.ndarray:
        """The moved outline (N x 2), cut at the shutters: to no point where it is hidden."""
        moved = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        if self.opening is None:
            return moved
        left, top, right, bottom = self.opening
        corner = np.array([left - 0.5, top - 0.5])  # pixel centres are at whole numbers
        return clip(moved - corner, bottom - top, right - left) + corner

    def _shut(self, image: np.ndarray) -> np.ndarray:
        """Set what is behind the shutters to 0, in place."""
        if self.opening is not None:
            left, top, right, bottom = self.opening
            image[:top], image[bottom:] = 0, 0
            image[:, :left], image[:, right:] = 0, 0
        return image

    def _field(self, picture: np.ndarray, film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What to add to `detail` times the picture (rows x columns, float32).

        All of it varies broadly: it is made small and scaled up.
        """
        rows, columns = picture.shape
        small = max(2, round(_COARSE_ROWS * columns / rows)), _COARSE_ROWS
        field = np.zeros(small[::-1], np.float32)
        if self.detail != 1 or self.broad != 1:
            weights, levels = (
                cv2.GaussianBlur(
                    cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.float32),
                    (0, 0),
                    self.reach,
                )
                for image in (255 * film, picture * film)
            )
            # Surroundings are those within the film: its border is not a dark neighbour.
            surroundings = 255 * levels / np.maximum(weights, 5)
            mean = cv2.mean(picture, film)[0]
            field += (self.broad - self.detail) * surroundings + (1 - self.broad) * mean
        if self.shading:
            field += self._shading(small, rng)
        return cv2.resize(field, (columns, rows), interpolation=cv2.INTER_LINEAR)

    def _shading(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Unequal exposure, and bubbles of gas (float32; `size` is columns and rows)."""
        waves = rng.uniform(-1, 1, (4, 3)).astype(np.float32)
        shade = cv2.resize(waves, size, interpolation=cv2.INTER_LINEAR)
        bubbles = np.zeros(size[::-1], np.float32)
        for _ in range(rng.integers(0, 6)):
            x, y = rng.uniform(0, 1, 2) * size
            axes = rng.uniform(0.5, 4, 2)
            angle = rng.uniform(0, 180)
            cv2.ellipse(bubbles, ((x, y), tuple(2 * axes), angle), rng.uniform(0.3, 1.0), -1)
        return self.shading * (shade - cv2.GaussianBlur(bubbles, (0, 0), 0.8))

    def _sharpened(self, picture: np.ndarray) -> np.ndarray:
        if self.blur:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur)
        if self.sharpening:
            blurred = cv2.GaussianBlur(picture, (0, 0), len(picture) * _EDGE)
            picture = cv2.addWeighted(picture, 1 + self.sharpening, blurred, -self.sharpening, 0)
        return picture

    def _noise(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Noise (float32) that grows with brightness: fewer photons reach the film behind bone."""
        drawn = np.frombuffer(rng.bytes(picture.size), np.uint8).reshape(picture.shape)
        noise = cv2.LUT(drawn, _NORMAL)
        gain = self.noise
        if self.grain:
            kernel = cv2.getGaussianKernel(2 * int(np.ceil(2.5 * self.grain)) + 1, self.grain)
            noise = cv2.sepFilter2D(noise, -1, kernel, kernel)
            gain /= float((kernel**2).sum())  # in either direction the root of it
        # Brightness is the logarithm of the dose; its noise goes with the root of the dose.
        response = gain * np.exp(np.linspace(-0.5, 0.5, 256))
        return noise * cv2.LUT(picture, response.astype(np.float32))


def draw(rng: np.random.Generator, size: tuple[int, int], limits: Mapping[str, float]) -> Change:
    """Draw a change for a canvas of `size` (rows, columns).

    Args:
        rng: source of randomness.
        size: rows and columns.
        limits: `training.augmentation` of the configuration; what is not among them stays as it is.
    """
    edge = size[0] * _EDGE

    def either(name: str) -> float:
        return rng.uniform(-1, 1) * limits.get(name, 0)

    def half(name: str) -> float:
        """Nothing for half of the films."""
        return max(0.0, either(name))

    def some(name: str, most: int) -> int:
        return int(rng.integers(1, most + 1)) if rng.random() < limits.get(name, 0) else 0

    curve = _curve(either("contrast"), either("contrast"), either("contrast"))
    sharpness = either("sharpness")
    local = limits.get("local_contrast", 0)
    turned = rng.random() < _REVERSED * local
    shut = rng.random() < limits.get("collimation_probability", 0)
    return Change(
        matrix=_matrix(rng, size, limits),
        curve=curve,
        opening=_opening(rng, size) if shut else None,
        implants=some("implant_probability", 3),
        cutouts=some("cutout_probability", 3),
        detail=float(np.exp(either("local_contrast"))),
        broad=-local if turned else 1 + either("local_contrast"),
        reach=rng.uniform(1.5, 5),
        shading=255 * half("shading"),
        blur=max(0.0, -sharpness) * edge,
        sharpening=max(0.0, sharpness) * _SHARPENING,
        noise=255 * half("noise"),
        grain=max(0.0, rng.uniform(-1, 1)) * edge,
    )


def _matrix(
    rng: np.random.Generator, size: tuple[int, int], limits: Mapping[str, float]
) -> np.ndarray:
    """Rotation, scale, shift and mirror image about the canvas's centre (2 x 3)."""
    rows, columns = size
    angle = rng.uniform(-1, 1) * limits.get("rotation_degrees", 0)
    scale = 1 + rng.uniform(-1, 1) * limits.get("scale", 0)
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, scale)
    matrix[:, 2] += rng.uniform(-1, 1, 2) * limits.get("shift", 0) * np.array([columns, rows])
    if rng.random() < limits.get("flip_probability", 0):
        mirror = np.array([[-1.0, 0, columns - 1], [0, 1, 0], [0, 0, 1]])
        matrix = matrix @ mirror
    return matrix


def _curve(gamma: float, contrast: float, brightness: float) -> np.ndarray:
    """A grey-level curve (256, uint8) that never falls; 0, 0, 0 leaves levels as they are."""
    grey = np.linspace(0, 1, 256) ** np.exp(gamma)
    shown = (grey - 0.5) * np.exp(contrast) + 0.5 + 0.4 * brightness
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)


def _opening(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What shutters leave open: left, top, right, bottom."""
    rows, columns = size
    closed = rng.uniform(0, _SHUTTER, 4) * (rng.random(4) < 0.5)
    left, top, right, bottom = np.rint(closed * [columns, rows, columns, rows]).astype(int).tolist()
    return left, top, columns - right, rows - bottom
