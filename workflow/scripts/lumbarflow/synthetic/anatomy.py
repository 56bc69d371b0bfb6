"""A patient's lumbar spine in the midsagittal plane, and the implants of a fusion.

Coordinates are millimetres in the patient, x anterior, y caudal (down), with the origin at the
centre of the S1 upper endplate. Angles are radians; an endplate's tilt is positive when its
anterior end lies lower. Every point list is an N x 2 float64 array.

Sizes follow published morphometry of the adult spine: vertebral depths from Panjabi et al.
(Spine 1991;16:888 thoracic, 1992;17:299 lumbar), body and disc heights from Zhou et al.
(Eur Spine J 2000;9:242), sacral slope and lordosis from Vialle et al. (J Bone Joint Surg Am
2005;87:260); all rounded and varied from patient to patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

LEVELS = ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")
"""Bodies above the sacrum, cranial to caudal. T10 only fills the upper edge of a film."""

# Level: (body height, body depth, body wedge in degrees, height and wedge of the disc below);
# a positive wedge is higher in front.
_TYPICAL = {
    "T10": (23.0, 29.5, -4.0, 5.0, 1.0),
    "T11": (24.0, 30.5, -4.0, 5.5, 1.5),
    "T12": (25.5, 31.5, -4.0, 6.2, 2.0),
    "L1": (26.5, 32.5, -3.0, 7.3, 5.0),
    "L2": (27.5, 33.5, -1.0, 8.4, 7.0),
    "L3": (28.0, 34.5, 1.0, 9.4, 9.0),
    "L4": (28.0, 35.0, 3.0, 10.2, 11.0),
    "L5": (27.0, 35.0, 9.0, 9.5, 14.0),
}
EDGE_POINTS = 13
"""Points of each of a body outline's four edges: upper endplate, front, lower endplate, back."""

_TYPICAL_LORDOSIS = 55.0  # degrees L1 to S1, the sum of the wedges above
# Sacral segment: height and depth of its upper and lower ends relative to the S1 endplate.
_SACRUM = {
    "S1": (29.0, 0.98, 0.70),
    "S2": (25.0, 0.66, 0.50),
    "S3": (21.0, 0.46, 0.38),
    "S4": (18.0, 0.36, 0.28),
}


@dataclass(frozen=True)
class Body:
    """A vertebral body: its outline and the frame that its other parts are placed in."""

    level: str
    outline: np.ndarray
    corners: np.ndarray  # 4 x 2: posterior-superior, anterior-superior, anterior-, posterior-inf.
    centre: np.ndarray
    tilt: float
    height: float
    depth: float

    def place(self, points: object) -> np.ndarray:
        """Points (N x 2: mm anterior, mm cranial of the centre) in patient coordinates."""
        return _place(self.centre, self.tilt, points)


@dataclass(frozen=True)
class Disc:
    """An intervertebral disc: frame, height at its centre, and lordotic wedge."""

    level: str
    outline: np.ndarray
    centre: np.ndarray
    tilt: float
    height: float
    wedge: float
    depth: float

    def place(self, points: object) -> np.ndarray:
        """Points (N x 2: mm anterior, mm cranial of the centre) in patient coordinates."""
        return _place(self.centre, self.tilt, points)


@dataclass(frozen=True)
class Anatomy:
    """One patient's spine, the same on each of the patient's films."""

    bodies: tuple[Body, ...]  # T10 to L5
    sacrum: tuple[Body, ...]  # S1 to S4
    discs: tuple[Disc, ...]  # T10/T11 to L5/S1
    size: float  # relative to the typical adult
    top_level: str  # the uppermost level shown whole on films: T11 or T12

    def body(self, level: str) -> Body:
        """The body of a level."""
        return next(b for b in self.bodies + self.sacrum if b.level == level)


@dataclass(frozen=True)
class Implant:
    """A part of an instrumented fusion; `markers` are the radiopaque parts of a lucent cage."""

    class_name: str  # cage, screw or instrumentation
    level: str | None
    outline: np.ndarray
    opacity: float  # 0 to 1
    markers: tuple[np.ndarray, ...] = ()


def make_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient's spine.

    Returns:
        Bodies T10 to L5 and S1 to S4 with the discs between, in patient millimetres.
    """
    size = float(np.clip(rng.normal(1.0, 0.05), 0.9, 1.1))
    slope = float(np.clip(rng.normal(38.0, 7.0), 24.0, 52.0))
    # Lordosis goes with the sacral slope, or the trunk would not be upright.
    lordosis = (slope + rng.normal(16.0, 4.0)) / _TYPICAL_LORDOSIS
    narrowed = rng.choice(3, p=(0.45, 0.35, 0.2))
    degenerated = dict(
        zip(
            rng.choice(("L2", "L3", "L4", "L5"), narrowed, replace=False, p=(0.1, 0.2, 0.35, 0.35)),
            rng.uniform(0.45, 0.8, narrowed),
            strict=True,
        )
    )
    slipped = rng.choice(("L4", "L5")) if rng.random() < 0.12 else None

    bodies: list[Body] = []
    discs: list[Disc] = []
    tilt = np.radians(slope)
    centre = np.zeros(2)
    below, depth_below = "S1", 35.0 * size
    s1_depth = depth_below
    for level in reversed(LEVELS):
        height, depth, wedge, disc_height, disc_wedge = _TYPICAL[level]
        lumbar = lordosis if level.startswith("L") else 1.0
        height *= size * rng.normal(1.0, 0.025)
        depth *= size * rng.normal(1.0, 0.025)
        disc_height *= size * rng.normal(1.0, 0.06) * degenerated.get(level, 1.0)
        wedge = np.radians(wedge * lumbar + rng.normal(0.0, 1.0))
        disc_wedge *= lumbar * degenerated.get(level, 1.0)
        disc_wedge = np.radians(disc_wedge + rng.normal(0.0, 1.0))
        lip = 1.5 if level in degenerated else rng.uniform(0.0, 0.6)

        disc_tilt = tilt - disc_wedge / 2
        disc_centre = centre + disc_height / 2 * _up(disc_tilt)
        lower = centre + disc_height * _up(disc_tilt)
        if level == slipped:
            lower = lower + rng.uniform(3.0, 7.0) * _forward(disc_tilt)
        lower_tilt = tilt - disc_wedge
        upper_tilt = lower_tilt - wedge
        upper = lower + height * _up((lower_tilt + upper_tilt) / 2)
        body = _make_body(
            rng, level, upper, upper_tilt, depth * 0.98, lower, lower_tilt, depth, lip
        )
        half = min(depth, depth_below) / 2
        discs.append(
            Disc(
                f"{level}/{below}",
                np.vstack(
                    [
                        lower + half * _forward(lower_tilt),
                        lower - half * _forward(lower_tilt),
                        centre - half * _forward(tilt),
                        centre + half * _forward(tilt),
                    ]
                ),
                disc_centre,
                disc_tilt,
                disc_height,
                disc_wedge,
                2 * half,
            )
        )
        bodies.append(body)
        centre, tilt, below, depth_below = upper, upper_tilt, level, depth
    return Anatomy(
        tuple(reversed(bodies)),
        _make_sacrum(rng, np.radians(slope), s1_depth, size),
        tuple(reversed(discs)),
        size,
        str(rng.choice(("T11", "T12"), p=(0.3, 0.7))),
    )


def make_implants(rng: np.random.Generator, anatomy: Anatomy) -> tuple[Implant, ...]:
    """Draw a posterior instrumented fusion of one to four segments of `anatomy`.

    Returns:
        Two pedicle screws a fused vertebra (left and right, projected nearly on each other), a rod
        a side, and cages in most of the fused discs; in drawing order.
    """
    bodies = anatomy.bodies + anatomy.sacrum[:1]
    lowest = len(bodies) - 1 - int(rng.choice(3, p=(0.45, 0.42, 0.13)))
    segments = int(rng.choice((1, 2, 3, 4), p=(0.4, 0.33, 0.17, 0.1)))
    fused = bodies[lowest - segments : lowest + 1]
    discs = anatomy.discs[lowest - segments : lowest]

    with_cage = rng.random(segments) < 0.75
    cages = [_make_cage(rng, disc) for disc, wanted in zip(discs, with_cage, strict=True) if wanted]
    # The middle screws of long constructs are sometimes left out.
    screwed = [b for b in fused if b in (fused[0], fused[-1]) or rng.random() > 0.1]
    length = rng.uniform(40.0, 48.0)
    radius = rng.uniform(3.0, 3.6)
    rods, screws = [], []
    # Both screws of a vertebra go in alike; its rotation on the film parts them.
    directions = rng.normal(0.0, np.radians(2.5), len(screwed))
    depths = rng.uniform(0.18, 0.32, len(screwed))
    for side in (-1, 1):
        offset = np.array([rng.normal(0.0, 2.0) + side, rng.normal(0.0, 1.2) + side])
        heads = []
        for body, direction, depth in zip(screwed, directions, depths, strict=True):
            direction += rng.normal(0.0, np.radians(1.2))
            screw, head = _make_screw(rng, body, (length, radius), depth, direction, offset)
            screws.append(screw)
            heads.append(head)
        rods.append(_make_rod(np.array(heads), rng.uniform(2.6, 3.1), rng.uniform(5.0, 11.0)))
    return tuple(cages + screws + rods)


def _up(tilt: float) -> np.ndarray:
    return np.array([np.sin(tilt), -np.cos(tilt)])


def _forward(tilt: float) -> np.ndarray:
    return np.array([np.cos(tilt), np.sin(tilt)])


def _place(centre: np.ndarray, tilt: float, points: object) -> np.ndarray:
    return centre + np.asarray(points, float) @ np.array([_forward(tilt), _up(tilt)])


def _make_body(
    rng: np.random.Generator,
    level: str,
    upper: np.ndarray,
    upper_tilt: float,
    upper_depth: float,
    lower: np.ndarray,
    lower_tilt: float,
    lower_depth: float,
    lip: float,
) -> Body:
    """A body between two endplates, with concave endplates and walls and lipped front corners."""
    corners = np.vstack(
        [
            upper - upper_depth / 2 * _forward(upper_tilt),
            upper + (upper_depth / 2 + lip) * _forward(upper_tilt),
            lower + (lower_depth / 2 + lip) * _forward(lower_tilt),
            lower - lower_depth / 2 * _forward(lower_tilt),
        ]
    )
    centre = (upper + lower) / 2
    # Upper endplate, front wall, lower endplate, back wall: how far each bends inwards.
    concavity = (
        rng.uniform(0.5, 1.2),
        rng.uniform(1.3, 2.3) + lip,
        rng.uniform(0.8, 1.6),
        rng.uniform(0.7, 1.4),
    )
    t = np.linspace(0.045, 0.955, EDGE_POINTS)[:, None]
    edges = []
    for start, end, bend in zip(corners, np.roll(corners, -1, axis=0), concavity, strict=True):
        along = (end - start) / np.linalg.norm(end - start)
        inward = np.array([-along[1], along[0]])
        edges.append(start + t * (end - start) + bend * 4 * t * (1 - t) * inward)
    return Body(
        level,
        np.vstack(edges),
        corners,
        centre,
        (upper_tilt + lower_tilt) / 2,
        float(np.linalg.norm(upper - lower)),
        (upper_depth + lower_depth) / 2,
    )


def _make_sacrum(
    rng: np.random.Generator, slope: float, depth: float, size: float
) -> tuple[Body, ...]:
    kyphosis = np.radians(rng.uniform(7.0, 13.0))
    segments = []
    upper, tilt = np.zeros(2), slope
    for level, (height, upper_part, lower_part) in _SACRUM.items():
        lower_tilt = tilt - kyphosis * (0.5 if level == "S1" else 1.0)
        lower = upper - height * size * rng.normal(1.0, 0.03) * _up((tilt + lower_tilt) / 2)
        body = _make_body(
            rng, level, upper, tilt, depth * upper_part, lower, lower_tilt, depth * lower_part, 0.0
        )
        segments.append(body)
        upper, tilt = lower - 1.8 * _up(lower_tilt), lower_tilt  # the remnant of a disc
    return tuple(segments)


def _make_screw(
    rng: np.random.Generator,
    body: Body,
    shaft: tuple[float, float],
    depth: float,
    direction: float,
    offset: np.ndarray,
) -> tuple[Implant, np.ndarray]:
    """A pedicle screw with a tulip head; also returns where its rod passes.

    `shaft` is length and radius; the tip lies `depth` body depths in front of the centre.
    """
    length, radius = shaft
    pitch, head_length, head_half = 2.8, 13.0, 6.3
    tip = body.depth * depth
    # Shaft outline along the screw's axis: threads as a triangle wave, tapering to the tip.
    x = np.arange(2.0, length - 3.0, pitch / 4)
    taper = radius * (1.0 - 0.35 * (x / length) ** 2)
    thread = np.abs((x / pitch) % 1.0 - 0.5) * 4 - 1.0
    above = np.column_stack([x, taper + 0.42 * thread])
    below = np.column_stack([x, -(taper - 0.42 * thread)])
    head_back = [[-head_length, -head_half * 0.92], [-head_length, head_half * 0.92]]
    outline = np.vstack(
        [
            head_back,
            [[-2.0, head_half], [0.0, head_half * 0.7], [1.0, radius]],
            above,
            [[length - 1.0, radius * 0.35], [length, 0.0], [length - 1.0, -radius * 0.35]],
            below[::-1],
            [[1.0, -radius], [0.0, -head_half * 0.7], [-2.0, -head_half]],
        ]
    )
    turn = np.array(
        [[np.cos(direction), np.sin(direction)], [-np.sin(direction), np.cos(direction)]]
    )
    anchor = np.array([tip, body.height * rng.uniform(0.16, 0.22)])

    def insert(points: np.ndarray) -> np.ndarray:
        return body.place((points - [length, 0.0]) @ turn + anchor) + offset

    seat = insert(np.array([[-head_length / 2, 0.0]]))[0]
    opacity = rng.uniform(0.82, 0.92)
    return Implant("screw", body.level, insert(outline), opacity), seat


def _make_rod(heads: np.ndarray, radius: float, overhang: float) -> Implant:
    """A rod bent through the screw heads (cranial to caudal) and a little beyond them."""
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(heads, axis=0), axis=1))])
    curve = CubicSpline(arc, heads, bc_type="natural")
    inner = np.linspace(0.0, arc[-1], 8 * len(heads))
    first, last = curve(0.0, 1), curve(arc[-1], 1)
    axis = np.vstack(
        [
            heads[0] - overhang * first / np.linalg.norm(first),
            curve(inner),
            heads[-1] + overhang * last / np.linalg.norm(last),
        ]
    )
    return Implant("instrumentation", None, widen(axis, radius), 0.95)


def _make_cage(rng: np.random.Generator, disc: Disc) -> Implant:
    """An interbody cage: titanium (opaque all over) or a lucent polymer with metal markers."""
    half = disc.depth * rng.uniform(0.33, 0.42)
    shift = rng.uniform(-0.05, 0.08) * disc.depth
    slant = np.tan(disc.wedge / 2) * 0.8
    x = np.array([-half, -half * 0.9, half * 0.9, half]) + shift
    # It touches the endplates, or sinks a little into those of a collapsed disc.
    reach = np.maximum(disc.height / 2 + x * slant + 0.4, 3.2)
    reach[[0, 3]] *= 0.72
    outline = disc.place(
        np.vstack([np.column_stack([x, reach]), np.column_stack([x, -reach])[::-1]])
    )
    if rng.random() < 0.6:
        return Implant("cage", disc.level, outline, rng.uniform(0.6, 0.8))
    bars = []
    for position in (-0.82, 0.82):
        at = position * half + shift
        tall = float(np.interp(at, x, reach)) * 0.85
        bars.append(
            disc.place([[at - 0.9, tall], [at + 0.9, tall], [at + 0.9, -tall], [at - 0.9, -tall]])
        )
    return Implant("cage", disc.level, outline, rng.uniform(0.28, 0.4), tuple(bars))


def widen(axis: np.ndarray, half_width: float | np.ndarray) -> np.ndarray:
    """The outline of a band of the given half width (mm, scalar or one a point) about an axis."""
    direction = np.gradient(axis, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    normal = np.column_stack([-direction[:, 1], direction[:, 0]]) * np.reshape(half_width, (-1, 1))
    return np.vstack([axis + normal, (axis - normal)[::-1]])


def posterior_elements(body: Body) -> dict[str, np.ndarray]:
    """Outlines of the neural arch of a body, as a lateral film shows them.

    Returns:
        `pedicle`, `facets` (pars and articular processes) and `spinous` (spinous process).
    """
    back, up = -body.depth / 2, body.height / 2
    thoracic = body.level.startswith("T")
    pedicle = [
        [back + 2, 0.75 * up],
        [back - 9, 0.82 * up],
        [back - 10, 0.08 * up],
        [back - 4, 0.12 * up],
        [back + 2, 0.02 * up],
    ]
    facets = [
        [back - 8, 0.9 * up],
        [back - 7, 1.55 * up],
        [back - 12, 1.75 * up],
        [back - 16, 1.1 * up],
        [back - 19, 0.1 * up],
        [back - 21, -1.2 * up],
        [back - 16, -1.5 * up],
        [back - 13, -0.7 * up],
        [back - 8, 0.05 * up],
    ]
    reach, drop = (42.0, 24.0) if thoracic else (48.0, 8.0)
    if body.level == "L5":
        reach = 40.0
    spinous = [
        [back - 18, 0.0],
        [back - 30, -2.0 - drop * 0.3],
        [back - reach, -4.0 - drop],
        [back - reach - 2, -12.0 - drop],
        [back - reach + 3, -20.0 - drop],
        [back - 32, -17.0 - drop * 0.5],
        [back - 20, -12.0],
    ]
    return {
        "pedicle": body.place(round_off(pedicle)),
        "facets": body.place(round_off(facets)),
        "spinous": body.place(round_off(spinous)),
    }


def round_off(outline: object) -> np.ndarray:
    """Round the corners of an outline (N x 2) by cutting them twice (Chaikin's algorithm)."""
    points = np.asarray(outline, float)
    for _ in range(2):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1)
        points = points.reshape(-1, 2)
    return points


def rib(body: Body, rng: np.random.Generator) -> np.ndarray:
    """The outline of a rib that leaves the spine at a thoracic body, running down and forward."""
    length = {"T12": 0.6, "T11": 0.85}.get(body.level, 1.1) * rng.uniform(0.85, 1.1)
    start = np.array([-body.depth / 2 - 4.0, 4.0])
    points = start + length * np.array(
        [[0, 0], [-20, -3], [-37, -22], [-36, -52], [-10, -90], [32, -124], [74, -146]]
    )
    t = np.linspace(0, 1, 40)
    axis = CubicSpline(np.linspace(0, 1, len(points)), points)(t)
    return body.place(widen(axis, (3.0 + 1.2 * t) * np.sqrt(1.02 - t**6)))
