"""What surrounds the bones: the trunk, lungs, bowel gas, and plaques of the aorta.

All is given as lengths along the rays (mm, float32 images), on coarse grids where it is smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from .meshes import Mesh, ellipsoid, join, tube
from .projection import Beam, path_length
from .spine import Spine

_COARSE_MM = 1.6  # at the detector, about; the trunk has no finer detail


@dataclass(frozen=True)
class Trunk:
    """Ovals at heights y (mm): middle and half-depth front to back, half-width, bluntness."""

    heights: np.ndarray  # K, rising
    back: np.ndarray  # K: x of the skin behind
    front: np.ndarray  # K: x of the skin in front
    half_width: np.ndarray  # K
    power: float  # 2 is an ellipse, more is blunter

    def crossing(self, points: np.ndarray, lateral: bool) -> np.ndarray:
        """Millimetres of trunk on the rays (sideways, or sagittal) through `points` (... x 3)."""
        y = points[..., 1]
        y = np.clip(y, self.heights[0], self.heights[-1])
        back, front, wide = (
            PchipInterpolator(self.heights, v)(y) for v in (self.back, self.front, self.half_width)
        )
        deep = (front - back) / 2
        if lateral:
            position, across = (points[..., 0] - (front + back) / 2) / deep, wide
        else:
            position, across = points[..., 2] / wide, deep
        inside = np.clip(1 - np.abs(position) ** self.power, 0, None)
        return (2 * across * inside ** (1 / self.power)).astype(np.float32)


@dataclass(frozen=True)
class Tissue:
    """Lengths along the rays of a film's working grid, in mm."""

    soft: np.ndarray  # trunk without gas and lungs; bone and implants still to be taken out
    plaques: np.ndarray  # calcium, as cortical bone


def make_trunk(rng: np.random.Generator, spine: Spine) -> Trunk:
    """The outline of the trunk about a spine."""
    size, fat = spine.build.size, spine.build.fat
    centres = np.array([v.frame.origin for v in spine.vertebrae])
    order = np.argsort(centres[:, 1])
    heights = np.concatenate([centres[order, 1], [30.0, 80.0, 140.0, 220.0]])
    # Skin lies behind the spinous processes, buttocks behind the sacrum.
    skin = (84.0 + 24.0 * (fat - 1)) * size
    spine_x = np.concatenate([centres[order, 0], [-12.0, -35.0, -45.0, -30.0]])
    cushion = np.concatenate([np.full(len(order), skin), np.array([84, 96, 100, 90]) * fat**0.5])
    back = spine_x - cushion
    belly = rng.uniform(105, 165) * size * fat
    bulge = rng.uniform(0.0, 0.2) * np.exp(-(((heights - rng.uniform(-60, 20)) / 70) ** 2))
    chest = np.interp(heights, [-260, -120, 20, 150], [0.85, 1.0, 1.0, 0.85])
    front = centres[:, 0].mean() + belly * (chest + bulge)
    wide = np.interp(heights, [-260, -140, -70, 30, 120], [0.92, 0.93, 0.9, 1.05, 1.1])
    return Trunk(
        heights, back, front, wide * rng.uniform(145, 175) * size * fat**0.8, rng.uniform(2.7, 3.6)
    )


def make_tissue(
    rng: np.random.Generator,
    spine: Spine,
    trunk: Trunk,
    beam: Beam,
    shape: tuple[int, int],
    lateral: bool = True,
) -> Tissue:
    """Everything soft on the film's working grid.

    Args:
        rng: the only source of chance.
        spine: whose trunk it is.
        trunk: its outline.
        beam: the beam on the working grid.
        shape: rows and columns of that grid.
        lateral: whether the central ray runs from side to side (or from front to back).
    """
    step = max(1, round(_COARSE_MM / beam.pixel_mm))
    coarse = beam.reduced(step)
    small = (-(-shape[0] // step), -(-shape[1] // step))
    points = _back_project(coarse, small)
    soft = trunk.crossing(points, lateral)
    # Muscle, fat and organs differ a little in density.
    soft *= 1 + 0.035 * smooth_noise(rng, small, 26 / coarse.pixel_mm)
    soft *= 1 + 0.018 * smooth_noise(rng, small, 9 / coarse.pixel_mm)
    soft *= 1 + rng.uniform(0.002, 0.014) * smooth_noise(rng, small, 3.5 / coarse.pixel_mm)
    if lateral:
        soft = _with_lungs(rng, spine, soft, points, coarse)
        soft -= _mottled_gas(rng, spine, points, coarse)
    soft = cv2.resize(soft, (small[1] * step, small[0] * step), interpolation=cv2.INTER_CUBIC)
    soft = soft[: shape[0], : shape[1]].copy()
    soft -= 0.93 * path_length(_bowel(rng, spine, trunk), beam, shape)
    np.clip(soft, 0, None, out=soft)
    return Tissue(soft, path_length(_plaques(rng, spine), beam, shape))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """A Gaussian random field of unit variance, smooth over `sigma` pixels (float32)."""
    factor = max(1, int(sigma / 2.5))
    small = [max(4, -(-n // factor) + 4) for n in shape]
    field = cv2.GaussianBlur(rng.standard_normal(small, np.float32), (0, 0), sigma / factor)
    field /= field.std() + 1e-6
    if factor > 1:
        size = (small[1] * factor, small[0] * factor)
        field = cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)
    return field[: shape[0], : shape[1]]


def _back_project(beam: Beam, shape: tuple[int, int]) -> np.ndarray:
    """Where each pixel's ray meets the patient's middle plane: rows x columns x 3, mm."""
    columns, rows = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    across = (np.stack([columns, rows], -1) - beam.centre) * beam.pixel_mm
    to_middle = -float(beam.source @ beam.along)  # the origin lies in that plane
    scale = to_middle / beam.distance_mm
    return (
        beam.source
        + to_middle * beam.along
        + scale * (across[..., :1] * beam.right + across[..., 1:] * beam.down)
    )


def _with_lungs(
    rng: np.random.Generator, spine: Spine, soft: np.ndarray, points: np.ndarray, beam: Beam
) -> np.ndarray:
    """Take both lungs out of the trunk above the domes of the diaphragm."""
    top = spine.vertebra("T11").frame.origin
    x, y = points[..., 0] - top[0], points[..., 1] - top[1]
    summit = rng.uniform(-34, 34)
    depth = rng.uniform(30, 75)  # below the dome's summit where a ray runs in lung throughout
    for _ in range(2):
        summit_x = rng.uniform(25, 60)
        fall = rng.uniform(0.006, 0.013)
        dome = summit + fall * (x - summit_x) ** 2 + rng.uniform(-7, 7)
        # The recess behind ends on the twelfth rib.
        dome = -12 * np.logaddexp(-dome / 12, -rng.uniform(26, 52) / 12)
        above = np.clip((dome - y) / 4.0, 0, 1)
        air = np.clip((dome - y) / depth, 0, 1) ** 0.55 * above
        vessels = 1 + 0.12 * smooth_noise(rng, soft.shape, 4.5 / beam.pixel_mm)
        soft = soft * (1 - 0.32 * air * vessels).astype(np.float32)
    return soft


def _mottled_gas(
    rng: np.random.Generator, spine: Spine, points: np.ndarray, beam: Beam
) -> np.ndarray:
    """Millimetres of gas mixed with stool in the colon: irregular patches before the spine."""
    shape = points.shape[:2]
    gas = np.zeros(shape, np.float32)
    front = spine.vertebra("L3").frame.origin[0]
    for _ in range(int(rng.integers(0, 4))):
        centre = np.array([front + rng.uniform(10, 110), rng.uniform(-130, 90)])
        radii = rng.uniform(15, 45, 2)
        away = (((points[..., :2] - centre) / radii) ** 2).sum(axis=-1)
        texture = smooth_noise(rng, shape, rng.uniform(3, 6) / beam.pixel_mm)
        texture += 0.6 * smooth_noise(rng, shape, 1.8 / beam.pixel_mm)
        patch = np.clip(texture + 0.8 - 1.6 * away, 0, 2) * np.clip(1.2 - away, 0, 1)
        gas += (rng.uniform(6, 22) * patch).astype(np.float32)
    return gas


def _bowel(rng: np.random.Generator, spine: Spine, trunk: Trunk) -> Mesh:
    """Gas in loops of bowel: clusters of bubbles, before the spine and before the sacrum."""
    bubbles = []
    for _ in range(int(rng.integers(0, 7))):
        y = rng.uniform(-150, 60)
        front = np.interp(y, trunk.heights, trunk.front)
        spine_x = np.interp(
            y,
            [v.frame.origin[1] for v in spine.vertebrae],
            [v.frame.origin[0] for v in spine.vertebrae],
        )
        centre = np.array([rng.uniform(spine_x + 12, front - 15), y, rng.uniform(-80, 80)])
        for _ in range(int(rng.integers(1, 9))):
            radii = rng.uniform(3, 15) * rng.uniform(0.6, 1.5, 3)
            mesh = ellipsoid(radii, 14)
            bubbles.append(Mesh(mesh.vertices + centre + rng.normal(0, 15, 3), mesh.faces))
    if rng.random() < 0.5:  # the rectum
        for _ in range(int(rng.integers(1, 5))):
            radii = rng.uniform(8, 20) * rng.uniform(0.7, 1.3, 3)
            mesh = ellipsoid(radii, 18)
            centre = np.array([rng.uniform(0, 45), rng.uniform(40, 110), rng.uniform(-15, 15)])
            bubbles.append(Mesh(mesh.vertices + centre, mesh.faces))
    return join(bubbles)


def _plaques(rng: np.random.Generator, spine: Spine) -> Mesh:
    """Calcified plaques along the aorta, before L1 to L4."""
    amount = spine.build.calcification
    plaques = []
    course = np.array(
        [v.frame.place((v.depth / 2 + 9, 0, -8)) for v in spine.vertebrae if v.level[0] == "L"]
    )
    for _ in range(int(rng.poisson(14 * amount))):
        start = rng.uniform(0, len(course) - 2.2)
        along = start + np.linspace(0, rng.uniform(0.05, 0.35), 5)
        line = np.stack([np.interp(along, range(len(course)), course[:, i]) for i in range(3)], 1)
        wall = rng.uniform(0, 2 * np.pi)
        line += np.array([8.5 * np.cos(wall), 0, 8.5 * np.sin(wall)]) + rng.normal(0, 0.5, (5, 3))
        plaques.append(tube(line, rng.uniform(0.4, 1.1), 6))
    return join(plaques)
