"""From a spine in millimetres to a lateral radiograph with its reference outlines.

The film is a sum of projected attenuations (soft tissue, gas, bone), blurred by focal spot and
scatter, flattened as radiography consoles do, and given noise; implants come last because they
saturate. Nothing here claims dosimetric truth: the aim is the look that a network has to learn.

Coordinates in pixels are (x, y) = (column, row) with integers at the centres of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from .anatomy import (
    EDGE_POINTS,
    Anatomy,
    Implant,
    make_implants,
    posterior_elements,
    rib,
    round_off,
    widen,
)

FULL_SCALE = 4095  # 12 bits
DETECTOR_SPACINGS_MM = (0.139, 0.143, 0.148, 0.16, 0.175, 0.194, 0.2)
_SHIFT = 4  # fractional bits of the coordinates that OpenCV fills polygons with


@dataclass(frozen=True)
class FilmPlan:
    """Where everything lies on a film: all but the grey values."""

    anatomy: Anatomy
    implants: tuple[Implant, ...]
    matrix: np.ndarray  # 2 x 3: patient millimetres to pixels
    shape: tuple[int, int]  # rows, columns
    pixel_spacing_mm: float  # at the detector
    magnification: float
    anterior: str  # "left" or "right", where the patient faces
    field: tuple[int, int, int, int]  # the collimated field: x0, y0, x1, y1, end excluded
    view: str  # "lateral" or "AP"
    structures: list[dict[str, Any]] = field(default_factory=list)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Patient millimetres (N x 2) to pixels (N x 2)."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]


@dataclass(frozen=True)
class Film:
    """A radiograph: rows x columns uint16 of 0 to 4095, bone bright."""

    pixels: np.ndarray
    plan: FilmPlan

    @property
    def structures(self) -> list[dict[str, Any]]:
        """What an annotator outlines: `class_name`, `level` (or None), `polygon` in pixels."""
        return self.plan.structures

    @property
    def pixel_spacing_mm(self) -> float:
        """Distance of pixels at the detector, in millimetres, the same both ways."""
        return self.plan.pixel_spacing_mm


def choose_format(rng: np.random.Generator, scale: float = 1.0) -> tuple[tuple[int, int], float]:
    """Draw a film's size: (rows, columns) and the pixel spacing in mm, divided by `scale`."""
    spacing = float(rng.choice(DETECTOR_SPACINGS_MM))
    rows = int(np.clip(rng.uniform(395, 425) / spacing, 2000, 2900))
    columns = int(np.clip(rng.uniform(195, 230) / spacing, 1000, 1600))
    return (round(rows * scale), round(columns * scale)), spacing / scale


def simulate_film(
    rng: np.random.Generator,
    anatomy: Anatomy,
    postoperative: bool,
    shape: tuple[int, int],
    pixel_spacing_mm: float,
) -> Film:
    """Make a lateral film of `anatomy`, with an instrumented fusion if `postoperative`.

    Args:
        rng: the only source of chance: equal generators give equal films.
        anatomy: the spine.
        postoperative: whether to put in screws, rods and cages.
        shape: rows and columns.
        pixel_spacing_mm: at the detector; shape times spacing should be about 400 x 200 mm.
    """
    return render_film(plan_film(rng, anatomy, postoperative, shape, pixel_spacing_mm), rng)


def plan_film(
    rng: np.random.Generator,
    anatomy: Anatomy,
    postoperative: bool,
    shape: tuple[int, int],
    pixel_spacing_mm: float,
    view: str = "lateral",
) -> FilmPlan:
    """Place a patient on the detector and list the structures to annotate (none on AP views).

    Annotated are T11 or T12 to L5, S1, S2 and all implants; all lie inside the collimated field,
    whose upper edge runs just above the uppermost annotated body.
    """
    implants = make_implants(rng, anatomy) if postoperative and view == "lateral" else ()
    rows, columns = shape
    levels = [b.level for b in anatomy.bodies]
    whole = anatomy.bodies[levels.index(anatomy.top_level) :] + anatomy.sacrum[:2]
    outlines = [b.outline for b in whole] + [i.outline for i in implants]

    anterior = str(rng.choice(("left", "right")))
    magnification = float(rng.uniform(1.08, 1.18))
    turn = np.radians(np.clip(rng.normal(0.0, 2.0), -4.5, 4.5))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if anterior == "left":
        rotation = np.diag([-1.0, 1.0]) @ rotation
    turned = np.vstack(outlines) @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    # A tall or wide patient stands nearer to the detector rather than being cut off.
    available = np.array([columns, rows]) * pixel_spacing_mm - (24.0, 34.0)
    magnification = float(min(magnification, *(available / (high - low))))
    per_mm = magnification / pixel_spacing_mm

    slack = np.array([columns, rows]) - (high - low) * per_mm
    top_gap = rng.uniform(1.0, 4.0) / pixel_spacing_mm
    x_share = np.clip(rng.normal(0.5, 0.1), 0.25, 0.75)
    y_share = rng.uniform(0.12, 0.4)
    origin = np.array([x_share, y_share]) * slack - low * per_mm
    matrix = np.column_stack([rotation * per_mm, origin])

    left, upper = low * per_mm + origin
    right = high[0] * per_mm + origin[0]
    blades = np.maximum(rng.uniform(-8.0, 9.0, 3), 0.0) / pixel_spacing_mm
    gap = 4.0 / pixel_spacing_mm
    collimated = (
        int(max(min(blades[0], left - gap), 0)),
        int(max(upper - top_gap, 0)),
        int(np.ceil(min(columns, max(columns - blades[1], right + gap)))),
        int(rows - min(blades[2], 0.1 * rows, max(rows - high[1] * per_mm - origin[1] - gap, 0))),
    )
    plan = FilmPlan(
        anatomy,
        implants,
        matrix,
        (rows, columns),
        pixel_spacing_mm,
        magnification,
        anterior,
        collimated,
        view,
    )
    if view == "lateral":
        for body in whole:
            name = "sacral_vertebra" if body.level.startswith("S") else "lumbar_vertebra"
            plan.structures.append(_structure(plan, name, body.level, body.outline))
        for part in implants:
            plan.structures.append(_structure(plan, part.class_name, part.level, part.outline))
    return plan


def render_film(plan: FilmPlan, rng: np.random.Generator) -> Film:
    """Draw the grey values of a planned film."""
    painter = _Painter(plan)
    if plan.view == "AP":
        _paint_frontal(painter, plan.anatomy)
    else:
        _paint_soft_tissue(painter, plan.anatomy, rng)
        _paint_bone(painter, plan.anatomy, rng)
    return Film(_expose(painter, plan, rng), plan)


def _structure(
    plan: FilmPlan, class_name: str, level: str | None, outline: np.ndarray
) -> dict[str, Any]:
    polygon = np.round(plan.to_pixels(outline), 2).tolist()
    return {"class_name": class_name, "level": level, "polygon": polygon}


class _Painter:
    """Layers (float32) at the working resolution, painted in patient millimetres."""

    def __init__(self, plan: FilmPlan) -> None:
        self.plan = plan
        # Large films are drawn at half resolution: the detector's own blur is wider than that.
        self.step = 2 if plan.shape[0] >= 1500 else 1
        self.shape = tuple(-(-n // self.step) for n in plan.shape)
        self.per_mm = plan.magnification / plan.pixel_spacing_mm / self.step
        self.soft = np.zeros(self.shape, np.float32)
        self.bone = np.zeros(self.shape, np.float32)
        self.metal = np.zeros(self.shape, np.float32)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        return (self.plan.to_pixels(points) + 0.5) / self.step - 0.5

    def fill(
        self, layer: np.ndarray, outline: np.ndarray, value: float, blur_mm: float = 0.0
    ) -> None:
        """Add `value` inside an outline (mm)."""
        self._stamp(layer, outline, value, blur_mm, None)

    def stroke(
        self,
        layer: np.ndarray,
        line: np.ndarray,
        value: float,
        width_mm: float,
        blur_mm: float,
        closed: bool = True,
    ) -> None:
        """Add `value` along a line (mm)."""
        self._stamp(layer, line, value, blur_mm, (width_mm, closed))

    def cover(self, layer: np.ndarray, outline: np.ndarray, value: float) -> None:
        """Raise a layer to `value` inside an outline (mm): opaque things do not add up."""
        window, mask = self._mask(outline, 0.0, None)
        if mask is not None:
            np.maximum(layer[window], mask * value, out=layer[window])

    def _stamp(
        self,
        layer: np.ndarray,
        points: np.ndarray,
        value: float,
        blur_mm: float,
        line: tuple[float, bool] | None,
    ) -> None:
        window, mask = self._mask(points, blur_mm, line)
        if mask is not None:
            layer[window] += mask * np.float32(value)

    def _mask(
        self, points: np.ndarray, blur_mm: float, line: tuple[float, bool] | None
    ) -> tuple[tuple[slice, slice], np.ndarray | None]:
        points = self.pixels(points)
        sigma = blur_mm * self.per_mm
        width = max(1, round(line[0] * self.per_mm)) if line else 0
        margin = int(3 * sigma) + width + 2
        limit = np.array(self.shape[::-1])
        x0, y0 = np.clip(np.floor(points.min(axis=0)).astype(int) - margin, 0, limit)
        x1, y1 = np.clip(np.ceil(points.max(axis=0)).astype(int) + margin + 1, 0, limit)
        window = (slice(y0, y1), slice(x0, x1))
        if x1 <= x0 or y1 <= y0:
            return window, None
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed = np.round((points - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
        if line:
            cv2.polylines(mask, [fixed], line[1], 255, width, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
        soft = mask.astype(np.float32) / 255
        if sigma > 0.3:
            soft = _blur(soft, sigma)
        return window, soft


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> np.ndarray:
    """Unit-variance noise (float32) whose blobs are about `grain` pixels wide."""
    small = [max(2, round(n / grain) + 1) for n in shape]
    noise = rng.standard_normal(small, dtype=np.float32)
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _paint_soft_tissue(p: _Painter, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Trunk, air behind it, lung at the top, pelvis at the bottom, and bowel gas."""
    fat = rng.uniform(0.0, 25.0)
    upper = anatomy.bodies[0].centre
    lumbar = anatomy.body("L3").centre
    # The skin of the back: over the thoracic spine, in the lordosis, over the buttocks.
    back = np.array(
        [
            upper + np.array([-88.0 - 0.6 * fat, -160.0]),
            upper + np.array([-74.0 - 0.6 * fat, 0.0]),
            lumbar + np.array([-68.0 - 0.5 * fat, 0.0]),
            (-88.0 - fat, 30.0),
            (-112.0 - fat, 110.0),
            (-110.0 - fat, 220.0),
        ]
    )
    belly = rng.uniform(88.0, 150.0)
    front = np.array(
        [
            (belly - 20, 220.0),
            (belly + 5, 60.0),
            lumbar + np.array([belly, 0.0]),
            upper + np.array([belly, -160.0]),
        ]
    )
    t = np.linspace(0, 1, 30)
    skin_back = CubicSpline(np.linspace(0, 1, len(back)), back)(t)
    skin_front = CubicSpline(np.linspace(0, 1, len(front)), front)(t)
    trunk = np.vstack([skin_back, skin_front])
    # The trunk is an ellipse in cross-section: its thickness grows quickly behind the skin.
    p.fill(p.soft, trunk, 0.22, 1.0)
    p.fill(p.soft, trunk, 0.34, 16.0)
    pelvis = np.array(
        [(-120.0, 0.0), (-30, -55.0), (60.0, -40.0), (150, 10), (150, 230), (-140, 230)]
    )
    p.fill(p.soft, pelvis, rng.uniform(0.04, 0.14), 26.0)
    dome = anatomy.body("L1").centre + np.array(
        [(-10, -20), (15, -48), (55, -58), (100, -45), (140, -10), (180, -240), (-60, -240)]
    )
    p.fill(p.soft, dome, -rng.uniform(0.05, 0.13), 3.0)
    recess = anatomy.body("T12").centre + np.array(
        [(-22, -12), (-36, 20), (-48, 34), (-58, 8), (-60, -200), (-18, -200)]
    )
    p.fill(p.soft, recess, -rng.uniform(0.03, 0.09), 2.5)
    muscle = widen(np.array([b.centre for b in anatomy.bodies]) - (42.0, 0.0), 22.0)
    p.fill(p.soft, muscle, 0.03, 7.0)

    for _ in range(rng.integers(1, 5)):
        middle = np.array([rng.uniform(38.0, 95.0), rng.uniform(-130.0, 50.0)])
        depth = rng.uniform(0.03, 0.1)
        for _ in range(rng.integers(3, 10)):
            at = middle + rng.normal(0.0, 13.0, 2)
            radius = rng.uniform(3.0, 12.0)
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            wobble = (
                1
                + 0.18 * np.sin(2 * angle + rng.uniform(0, 6))
                + 0.1 * np.sin(3 * angle + rng.uniform(0, 6))
            )
            ring = np.column_stack([np.cos(angle), rng.uniform(0.5, 0.9) * np.sin(angle)])
            p.fill(p.soft, at + radius * wobble[:, None] * ring, -depth, rng.uniform(0.5, 2.0))
    p.soft += 0.012 * _smooth_noise(rng, p.shape, 9 * p.per_mm) * (p.soft > 0.1)


def _paint_bone(p: _Painter, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Spine, ribs and pelvis; each with its dense cortex."""
    density = rng.uniform(0.085, 0.165)  # less in osteoporosis
    cortex = rng.uniform(0.05, 0.085)
    double = np.array([rng.normal(0.0, 0.8), rng.normal(0.0, 1.1)])  # left and right rims part

    for body in anatomy.bodies:
        p.fill(p.bone, body.outline, density, 0.15)
        p.stroke(p.bone, body.outline, cortex, 0.9, 0.25)
        # Endplates are denser than walls, and their far rims project beside the near ones.
        lower = body.outline[2 * EDGE_POINTS : 3 * EDGE_POINTS]
        for edge in (body.outline[:EDGE_POINTS], lower):
            p.stroke(p.bone, edge, cortex, 1.5, 0.35, closed=False)
            p.stroke(p.bone, edge + double, 0.5 * cortex, 0.8, 0.3, closed=False)
        arch = posterior_elements(body)
        p.fill(p.bone, arch["pedicle"], 0.85 * density, 0.8)
        p.stroke(p.bone, arch["pedicle"], 0.5 * cortex, 0.8, 0.4)
        p.fill(p.bone, arch["facets"], 0.85 * density, 1.4)
        p.stroke(p.bone, arch["facets"] + double, 0.5 * cortex, 0.9, 0.5)
        p.fill(p.bone, arch["spinous"], 0.4 * density, 1.8)
        p.stroke(p.bone, arch["spinous"], 0.35 * cortex, 0.9, 0.8)
        if body.level.startswith("T"):
            for side in (-1, 1):
                shape = rib(body, rng) + rng.normal(0.0, 3.0, 2) + (2.0 * side, 0.0)
                p.fill(p.bone, shape, 0.18 * density, 0.8)
                p.stroke(p.bone, shape, 0.35 * cortex, 0.8, 0.5)

    fade = (1.0, 0.95, 0.7, 0.55)
    for segment, strength in zip(anatomy.sacrum, fade, strict=True):
        p.fill(p.bone, segment.outline, density * strength, 0.25)
        p.stroke(p.bone, segment.outline, 0.9 * cortex * strength, 1.0, 0.35)
    # The sacral canal and crest: one uneven band behind the segments.
    back = [b.place([[-b.depth / 2 - 9.0, y]])[0] for b in anatomy.sacrum for y in (10.0, -8.0)]
    crest = np.array(back) + rng.normal(0.0, 1.3, (len(back), 2))
    crest = round_off(widen(crest, np.linspace(9.5, 4.5, len(back))))
    p.fill(p.bone, crest, 0.45 * density, 1.8)
    p.stroke(p.bone, crest, 0.35 * cortex, 1.0, 0.7)
    s1 = anatomy.sacrum[0]
    p.stroke(p.bone, s1.outline[:EDGE_POINTS], 1.1 * cortex, 1.5, 0.4, closed=False)

    wing = np.array(
        [(-58, 40), (-60, 12), (-44, -16), (-14, -36), (18, -37), (46, -22), (66, 6), (70, 34),
         (58, 62), (48, 100), (-8, 110), (-22, 72), (-44, 60)],
        float,
    )  # fmt: skip
    t = np.linspace(0, 1, 80)
    closed = np.vstack([wing, wing[:1]])
    wing = CubicSpline(np.linspace(0, 1, len(closed)), closed, bc_type="periodic")(t)[:-1]
    for _ in range(2):
        shifted = wing * anatomy.size * rng.uniform(0.96, 1.04) + rng.normal(0.0, 4.0, 2)
        p.fill(p.bone, shifted, 0.16 * density, 2.0)
        p.stroke(p.bone, shifted[2:46], 0.5 * cortex, 1.3, 0.7, closed=False)
        head = np.array([28.0, 108.0]) + rng.normal(0.0, 4.0, 2)
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        ball = head + 24.0 * np.column_stack([np.cos(angle), np.sin(angle)])
        p.fill(p.bone, ball, 0.4 * density, 1.0)
        p.stroke(p.bone, ball, 0.5 * cortex, 1.0, 0.5)
    trabeculae = 0.6 * _smooth_noise(rng, p.shape, 0.9 * p.per_mm) + 0.8 * _smooth_noise(
        rng, p.shape, 5 * p.per_mm
    )
    p.bone *= 1 + 0.1 * trabeculae


def _paint_frontal(p: _Painter, anatomy: Anatomy) -> None:
    """A crude anteroposterior view: the column seen from the front."""
    middle = p.plan.anatomy.body("L3").centre[0]
    level_y = {b.level: b.centre[1] for b in anatomy.bodies + anatomy.sacrum}

    def both(points: list[tuple[float, float]]) -> list[np.ndarray]:
        return [np.array(points) * (side, 1) + (middle, 0) for side in (-1, 1)]

    for half in both([(0, -400), (125, -400), (110, -80), (140, 60), (130, 300), (0, 300)]):
        p.fill(p.soft, half, 0.5, 6.0)
    for body in anatomy.bodies + anatomy.sacrum[:1]:
        y, tall, wide = level_y[body.level], body.height / 2, body.depth * 0.66
        for half in both(
            [(0, y - tall), (wide, y - tall), (wide - 3, y), (wide, y + tall), (0, y + tall)]
        ):
            p.fill(p.bone, half, 0.14, 0.4)
        for oval in both([(15, y - 8), (21, y - 8), (22, y + 2), (15, y + 2)]):
            p.stroke(p.bone, oval, 0.08, 1.4, 0.5)
        for half in both([(wide, y - 4), (wide + 18, y - 7), (wide + 17, y), (wide, y + 2)]):
            p.fill(p.bone, half, 0.07, 0.6)
        for half in both([(0, y - 2), (4, y), (4, y + 14), (0, y + 16)]):
            p.fill(p.bone, half, 0.06, 0.6)
    for half in both([(20, 5), (40, -25), (95, -30), (118, 5), (80, 70), (25, 60)]):
        p.fill(p.bone, half, 0.09, 2.0)
        p.stroke(p.bone, half, 0.05, 1.4, 0.6)


def _expose(p: _Painter, plan: FilmPlan, rng: np.random.Generator) -> np.ndarray:
    """Sum the layers, blur, flatten, add noise, cut to the collimated field: 12-bit grey values."""
    value = p.soft + p.bone
    value = cv2.GaussianBlur(value, (0, 0), max(rng.uniform(0.15, 0.4) * p.per_mm, 0.4))
    low = _blur(value, 22 * p.per_mm)
    # Scatter veils, the console's equalisation takes part of the large differences out.
    value -= rng.uniform(0.15, 0.4) * (low - np.float32(0.55)) * (low > 0.2)
    value = cv2.resize(value, plan.shape[::-1], interpolation=cv2.INTER_LINEAR)

    gain, middle = rng.uniform(1.0, 1.45), rng.uniform(0.5, 0.58)
    value = 0.5 + gain * (value - 0.08 - middle)
    # Fewer photons where the patient is thick.
    noise = rng.standard_normal(plan.shape, dtype=np.float32)
    noise = 0.6 * noise + 0.9 * cv2.GaussianBlur(noise, (0, 0), 0.9)
    value += noise * rng.uniform(0.008, 0.022) * (0.4 + np.clip(value, 0, 1))
    # A soft shoulder and toe instead of hard clipping.
    value = 0.5 + 0.5 * np.tanh(1.15 * (value - 0.5) * 2) / np.tanh(1.15)

    if plan.implants:
        for part in plan.implants:
            p.cover(p.metal, part.outline, part.opacity)
            for marker in part.markers:
                p.cover(p.metal, marker, 0.95)
        metal = cv2.resize(p.metal, plan.shape[::-1], interpolation=cv2.INTER_LINEAR)
        np.clip(metal, 0, 1, out=metal)
        value += metal * (np.float32(0.985) + 0.006 * noise - value)

    x0, y0, x1, y1 = plan.field
    lit = np.zeros(plan.shape, np.float32)
    lit[y0:y1, x0:x1] = 1
    penumbra = max(0.4 / plan.pixel_spacing_mm, 0.5)
    for edge, axis, inside in ((y0, 0, 1), (y1, 0, -1), (x0, 1, 1), (x1, 1, -1)):
        if 0 < edge < plan.shape[axis]:
            ramp = np.clip(0.5 + inside * (np.arange(plan.shape[axis]) - edge) / penumbra, 0, 1)
            lit *= ramp.astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
    value *= lit
    value += 0.02
    return np.clip(np.rint(value * FULL_SCALE), 0, FULL_SCALE).astype(np.uint16)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur (sigma in pixels); wide ones are computed on a reduced copy."""
    factor = max(1, int(sigma / 3))
    if factor == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    size = [max(2, -(-n // factor)) for n in image.shape[::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
