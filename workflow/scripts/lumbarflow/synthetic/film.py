"""A radiograph of a patient: where everything falls on the film, and its grey values.

Within this subpackage pixel coordinates are (x, y) = (column, row) with whole numbers at the
centres of pixels; outlines and measured corners have them at the corners of pixels, as all
annotations do.

A body's outline is its midsagittal section in projection: where rotation, tilt or the beam's
divergence show an endplate as two lines, it runs half-way between them, as in vertebral morphometry
(Hurxthal, Am J Roentgenol 1968;103:635). Implants are outlined around their whole shadow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from .alignment import LUMBAR, draw_build
from .measures import true_measurements
from .meshes import Mesh, join
from .projection import Beam, path_length, silhouette
from .radiography import METALS, Exposure, draw_exposure, expose, process
from .spine import Spine, make_spine
from .surgery import Implant, make_surgery
from .tissue import make_tissue, make_trunk, smooth_noise

DETECTOR_SPACINGS_MM = (0.139, 0.143, 0.148, 0.16, 0.175, 0.194, 0.2)
SOURCE_DISTANCES_MM = (1100.0, 1150.0, 1150.0, 1500.0, 1800.0)
# What annotators name; screws of other vertebrae have no level.
_LEVELS = ("T11", "T12", "T13", *LUMBAR, "L6", "S1", "S2")
_SEEN_AS_ONE = 0.4  # intersection over union of two shadows
_LEAD_MM = 1.5  # how thick markers are
_FINE_ROWS = 1500  # films of as many rows are drawn at half resolution, but for sharp metal


@dataclass(frozen=True)
class FilmPlan:
    """Where everything lies on a film: all but the grey values."""

    spine: Spine
    implants: tuple[Implant, ...]
    beam: Beam
    shape: tuple[int, int]  # rows, columns
    pixel_spacing_mm: float  # at the detector
    magnification: float  # in the patient's midsagittal plane
    anterior: str  # "left" or "right", where the patient faces
    field: tuple[int, int, int, int]  # the collimated field: x0, y0, x1, y1, end excluded
    view: str  # "lateral" or "AP"
    exposure: Exposure
    structures: list[dict[str, Any]] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kvp(self) -> float:
        """The tube's peak voltage."""
        return self.exposure.kvp


@dataclass(frozen=True)
class Film:
    """A radiograph: rows x columns float32 of 0 to 1, bone bright."""

    pixels: np.ndarray
    plan: FilmPlan

    @property
    def structures(self) -> list[dict[str, Any]]:
        """What an annotator outlines: `class_name`, `level` (or None), `polygon` in pixels."""
        return self.plan.structures


def choose_format(rng: np.random.Generator, scale: float = 1.0) -> tuple[tuple[int, int], float]:
    """Draw a film's size: (rows, columns) and the pixel spacing in mm, divided by `scale`."""
    spacing = float(rng.choice(DETECTOR_SPACINGS_MM))
    rows = int(np.clip(rng.uniform(395, 425) / spacing, 2000, 2900))
    columns = int(np.clip(rng.uniform(195, 230) / spacing, 1000, 1600))
    return (round(rows * scale), round(columns * scale)), spacing / scale


def plan_film(
    rng: np.random.Generator,
    spine: Spine,
    implants: tuple[Implant, ...],
    shape: tuple[int, int],
    pixel_spacing_mm: float,
    view: str = "lateral",
    *,
    collimated: bool = True,
) -> FilmPlan:
    """Place a patient before the detector and list the structures to annotate (none on AP views).

    Annotated are T11 or T12 to L5 (L6), S1, S2 and all implants of an annotation class; all lie
    inside the collimated field, whose upper edge runs just above the uppermost annotated body.

    Args:
        rng: the only source of chance.
        spine: whose film it is.
        implants: what surgery put in.
        shape: rows and columns.
        pixel_spacing_mm: at the detector; shape times spacing should be about 400 x 200 mm.
        view: "lateral" or "AP".
        collimated: whether a collimator cuts off what lies around.
    """
    rows, columns = shape
    top = str(rng.choice(("T11", "T12"), p=(0.3, 0.7)))
    names = [v.level for v in spine.vertebrae]
    whole = spine.vertebrae[names.index(top) :] + spine.sacrum[:2]
    anterior = str(rng.choice(("left", "right")))
    distance = float(rng.choice(SOURCE_DISTANCES_MM))
    magnification = float(rng.uniform(1.08, 1.2))
    aside = np.array([rng.normal(10, 12), rng.normal(10, 25), 0.0])
    centred = spine.vertebra("L3").frame.origin + aside
    lean = np.radians(rng.normal(0, (2.0, 1.0, 2.0)).clip(-4.5, 4.5))
    exposure = draw_exposure(rng)
    points = np.vstack(
        [v.section for v in whole] + [m.vertices for i in implants for _, m in i.solids]
    )

    def beam(magnification: float, centre: np.ndarray) -> Beam:
        right, down, along = _directions(view, anterior, lean)
        middle = centred * (1, 1, 0)
        # The origin's plane, side to side through the patient's middle, is magnified as told.
        source = middle - along * (distance / magnification)
        return Beam(source, right, down, along, distance, centre, pixel_spacing_mm)

    def extent(magnification: float) -> tuple[np.ndarray, np.ndarray]:
        pixels = beam(magnification, np.zeros(2)).project(points)
        return pixels.min(axis=0), pixels.max(axis=0)

    low, high = extent(magnification)
    # A tall or wide patient stands nearer to the detector rather than being cut off.
    available = np.array([columns, rows]) - np.array([24.0, 34.0]) / pixel_spacing_mm
    fitting = float(min(1.0, *(available / (high - low))))
    if fitting < 1:
        magnification *= fitting
        low, high = extent(magnification)
    slack = np.array([columns, rows]) - (high - low)
    share = np.array([np.clip(rng.normal(0.5, 0.12), 0.2, 0.8), rng.uniform(0.12, 0.4)])
    upper_left = share * slack
    lit = (0, 0, columns, rows)
    if collimated:
        lit = _collimate(rng, upper_left, upper_left + high - low, shape, pixel_spacing_mm)
    plan = FilmPlan(
        spine, implants, beam(magnification, upper_left - low), shape, pixel_spacing_mm,
        magnification, anterior, lit, view, exposure,
    )  # fmt: skip
    if view == "lateral":
        for vertebra in whole:
            name = "sacral_vertebra" if vertebra.level.startswith("S") else "lumbar_vertebra"
            if vertebra.level in _replaced(implants):
                continue
            outline = plan.beam.project(vertebra.section)
            plan.structures.append(_structure(name, vertebra.level, outline))
        plan.structures.extend(_implant_structures(implants, plan.beam))
        plan.measurements.extend(true_measurements(spine, plan.beam, anterior))
    return plan


def render_film(
    plan: FilmPlan,
    rng: np.random.Generator,
    marker: tuple[int, int, np.ndarray] | None = None,
) -> Film:
    """Draw the grey values of a planned film.

    Args:
        plan: what is where.
        rng: the only source of chance.
        marker: a letter of lead on the detector, if any: see :func:`.marks.side_marker`.
    """
    step = 2 if plan.shape[0] >= _FINE_ROWS else 1
    beam = plan.beam.reduced(step)
    shape = tuple(-(-n // step) for n in plan.shape)
    # Of a vertebra that was replaced, the body has been taken out.
    gone = [plan.spine.vertebra(level).body for level in _replaced(plan.implants)]
    bones = [bone for bone in plan.spine.bones if not any(bone.outer is body for body in gone)]
    meshes = join(mesh for bone in bones for mesh in (bone.outer, bone.inner))
    weights = np.concatenate(
        [
            np.repeat(weight, len(mesh.faces))
            for bone in bones
            for mesh, weight in ((bone.outer, 1.0), (bone.inner, bone.cancellous - 1.0))
        ]
    )
    bone = np.maximum(path_length(meshes, beam, shape, weights), 0)
    bone *= 1 + 0.07 * smooth_noise(rng, shape, 0.35 / beam.pixel_mm)
    bone *= 1 + 0.05 * smooth_noise(rng, shape, 2.2 / beam.pixel_mm)
    trunk = make_trunk(rng, plan.spine)
    tissue = make_tissue(rng, plan.spine, trunk, beam, shape, plan.view == "lateral")
    bone += tissue.plaques
    lengths = {"bone": bone, "tissue": np.maximum(tissue.soft - bone, 0)}
    metal: dict[str, tuple[tuple[int, int], np.ndarray]] = {}
    for material in sorted({m for i in plan.implants for m, _ in i.solids}):
        mesh = join(m for i in plan.implants for name, m in i.solids if name == material)
        if material in METALS:
            metal[material] = _patch(mesh, plan.beam, plan.shape)
        else:
            lengths[material] = path_length(mesh, beam, shape)
    if marker is not None:
        x, y, letter = marker
        metal["lead"] = ((y, x), letter * np.float32(_LEAD_MM))
    lit = _lit(plan)
    signal = expose(lengths, metal, plan.exposure, plan.shape, plan.pixel_spacing_mm, lit, rng)
    return Film(process(signal, plan.exposure, plan.pixel_spacing_mm, lit), plan)


def simulate_film(
    rng: np.random.Generator,
    shape: tuple[int, int],
    pixel_spacing_mm: float,
    operated: bool = False,
    view: str = "lateral",
    collimated: bool = True,
) -> Film:
    """A film of a stranger, with an instrumented fusion if `operated`; see :func:`plan_film`."""
    spine = make_spine(rng, draw_build(rng))
    implants = make_surgery(rng, spine) if operated else ()
    plan = plan_film(rng, spine, implants, shape, pixel_spacing_mm, view, collimated=collimated)
    return render_film(plan, rng)


def sample(
    seed: int, index: int, scale: float = 0.25, operated: float = 0.5
) -> tuple[np.ndarray, list[dict[str, Any]], dict[str, Any]]:
    """One lateral film of a stranger, for training without a cohort.

    It shows a whole detector, 430 x 340 mm: users cut out of it what they like.

    Args:
        seed: of the whole set.
        index: which film.
        scale: size relative to a full radiograph.
        operated: share of films with implants.

    Returns:
        Grey values (rows x columns uint8, bone bright), structures as of :class:`Film`, and what is
        known of the film: `diseases`, `variant`, `anterior`, `implants` (their kinds), and
        `bodies`, the outlines of all vertebral bodies by level (points N x 2 in pixels), whether
        annotators name them or not; they may reach beyond the film.
    """
    rng = np.random.default_rng([seed, index])
    spacing = 0.16 / scale
    shape = (round(430 / spacing), round(340 / spacing))
    film = simulate_film(rng, shape, spacing, rng.random() < operated, collimated=False)
    known = {
        "diseases": film.plan.spine.build.diseases,
        "variant": film.plan.spine.build.variant,
        "anterior": film.plan.anterior,
        "implants": [implant.kind for implant in film.plan.implants],
        "bodies": {
            vertebra.level: _structure(
                "lumbar_vertebra", vertebra.level, film.plan.beam.project(vertebra.section)
            )["polygon"]
            for vertebra in film.plan.spine.vertebrae
            if vertebra.level not in _replaced(film.plan.implants)
        },
    }
    return np.rint(film.pixels * 255).astype(np.uint8), film.structures, known


def _directions(
    view: str, anterior: str, lean: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The detector's columns, rows and the central ray, in the patient.

    `lean` are turns (radians) about the patient's long, antero-posterior and left-right axes.
    """
    mirrored = -1.0 if anterior == "left" else 1.0
    if view == "lateral":
        basis = np.array([(mirrored, 0, 0), (0, 1, 0), (0, 0, 1)], float)
    else:
        basis = np.array([(0, 0, mirrored), (0, 1, 0), (-1, 0, 0)], float)
    for axis, angle in zip(((0, 2), (1, 2), (0, 1)), lean, strict=True):
        turn = np.eye(3)
        a, b = axis
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        basis = basis @ turn
    return basis[0], basis[1], basis[2]


def _collimate(rng, low, high, shape, pixel_mm) -> tuple[int, int, int, int]:
    """The lit field about what is annotated (`low` to `high`, pixels)."""
    rows, columns = shape
    blades = np.maximum(rng.uniform(-8.0, 9.0, 3), 0.0) / pixel_mm
    gap, top_gap = 4.0 / pixel_mm, rng.uniform(1.0, 4.0) / pixel_mm
    return (
        int(max(min(blades[0], low[0] - gap), 0)),
        int(max(low[1] - top_gap, 0)),
        int(np.ceil(min(columns, max(columns - blades[1], high[0] + gap)))),
        int(rows - min(blades[2], 0.1 * rows, max(rows - high[1] - gap, 0))),
    )


def _structure(class_name: str, level: str | None, outline: np.ndarray) -> dict[str, Any]:
    # Silhouettes have a point a quarter of a pixel.
    if len(outline) > 200:
        outline = cv2.approxPolyDP(outline.astype(np.float32)[:, None], 0.25, True)[:, 0]
    # Outlines have pixel corners, not centres, at whole numbers.
    polygon = np.round(outline.astype(float) + 0.5, 2).tolist()
    return {"class_name": class_name, "level": level, "polygon": polygon}


def _implant_structures(implants: tuple[Implant, ...], beam: Beam) -> list[dict[str, Any]]:
    """Each implant's shadow. Cages of one disc that lie behind each other are seen as one."""
    found: list[tuple[Implant, Mesh, np.ndarray]] = []
    for implant in implants:
        if not implant.class_name:
            continue
        mesh = join(m for _, m in implant.solids)
        outline = silhouette(mesh, beam)
        for i, (other, its_mesh, its_outline) in enumerate(found):
            same = implant.class_name == other.class_name == "cage" and implant.level == other.level
            if same and _overlap(outline, its_outline) > _SEEN_AS_ONE:
                both = join([its_mesh, mesh])
                found[i] = (other, both, silhouette(both, beam))
                break
        else:
            found.append((implant, mesh, outline))
    return [
        _structure(i.class_name, i.level if i.level in _LEVELS or "/" in str(i.level) else None, o)
        for i, _, o in found
    ]


def _replaced(implants: tuple[Implant, ...]) -> set[str]:
    """The levels whose bodies surgery took out."""
    return {str(i.level) for i in implants if i.kind == "vertebral_body_replacement"}


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two outlines."""
    low = np.floor(np.minimum(one.min(axis=0), other.min(axis=0)))
    size = np.ceil(np.maximum(one.max(axis=0), other.max(axis=0)) - low).astype(int) + 1
    masks = np.zeros((2, size[1], size[0]), np.uint8)
    for mask, outline in zip(masks, (one, other), strict=True):
        cv2.fillPoly(mask, [np.rint(outline - low).astype(np.int32)], 1)
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


def _patch(mesh: Mesh, beam: Beam, shape: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
    """Lengths in a mesh at the film's resolution, on the part of the film that it covers."""
    points = beam.project(mesh.vertices)
    limit = np.array(shape[::-1])
    low = np.clip(np.floor(points.min(axis=0)).astype(int) - 1, 0, limit - 1)
    high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 2, low + 1, limit)
    part = Beam(beam.source, beam.right, beam.down, beam.along, beam.distance_mm,
                beam.centre - low, beam.pixel_mm)  # fmt: skip
    return (int(low[1]), int(low[0])), path_length(mesh, part, tuple((high - low)[::-1]))


def _lit(plan: FilmPlan) -> np.ndarray:
    """What the collimator lets through: 0 to 1 with a penumbra, rows x columns float32."""
    x0, y0, x1, y1 = plan.field
    rows, columns = plan.shape
    penumbra = max(0.5 / plan.pixel_spacing_mm, 0.5)

    def ramp(count: int, start: int, stop: int) -> np.ndarray:
        at = np.arange(count, dtype=np.float32)
        value = np.ones(count, np.float32)
        if start > 0:
            value *= np.clip(0.5 + (at - start + 0.5) / penumbra, 0, 1)
        if stop < count:
            value *= np.clip(0.5 + (stop - 0.5 - at) / penumbra, 0, 1)
        return value

    return ramp(rows, y0, y1)[:, None] * ramp(columns, x0, x1)
