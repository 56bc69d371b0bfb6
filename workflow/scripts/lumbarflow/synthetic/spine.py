"""The lumbar spine of one patient in three dimensions: bones as closed surfaces, levels as frames.

Coordinates are millimetres in the patient, x anterior, y caudal, z to the left, with the origin at
the centre of the S1 upper endplate. Frames of vertebrae and discs are (anterior, cranial, right).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from .alignment import Build, Level
from .meshes import Frame, Mesh, loft, tube

AROUND = 40  # points of a body's ring; the first lies in front, the one half-way behind
_ENDPLATE = np.array([0.12, 0.4, 0.66, 0.86, 1.0])  # rings of an endplate, relative radii
_WALL = np.array([0.05, 0.12, 0.28, 0.5, 0.72, 0.88, 0.95])  # rings of the wall, relative heights
_RIM = 0.86  # within this part of the radius the endplate is hollow

# Sacral segment: height; depth at its upper and lower ends and width, relative to those of S1.
_SACRUM = {
    "S1": (29.0, (1.0, 0.71), (1.0, 0.76)),
    "S2": (25.0, (0.67, 0.51), (0.74, 0.62)),
    "S3": (21.0, (0.47, 0.39), (0.6, 0.5)),
    "S4": (18.0, (0.37, 0.29), (0.5, 0.42)),
    "S5": (14.0, (0.28, 0.2), (0.4, 0.3)),
}
_S1_DEPTH, _S1_WIDTH = 34.5, 51.0


@dataclass(frozen=True)
class Bone:
    """An outer surface, and the border between its cortical shell and the cancellous inside."""

    outer: Mesh
    inner: Mesh
    cancellous: float  # bone mass inside, relative to that of the shell: 0.05 to 0.35


@dataclass(frozen=True)
class Pedicle:
    """Where a screw goes: from `entry` behind the facet along `axis` (unit) into the body."""

    entry: np.ndarray
    axis: np.ndarray
    length: float  # mm from the entry to the front wall
    radius: float  # mm, of the narrowest place


@dataclass(frozen=True)
class Vertebra:
    """A vertebra or sacral segment; see :func:`make_spine`."""

    level: str
    frame: Frame  # origin at the centre of the body
    depth: float
    width: float
    height: float
    corners: np.ndarray  # 4 x 3: posterior-superior, anterior-superior, anterior-, posterior-inf.
    hollows: np.ndarray  # 2 x 3: the middle of the upper and of the lower endplate
    pedicles: tuple[Pedicle, Pedicle]  # right, left
    body: Mesh
    section: np.ndarray  # K x 3, closed: the outer surface in the midsagittal plane


@dataclass(frozen=True)
class Disc:
    """An intervertebral disc: frame, height at its centre (mm) and lordotic wedge (radians)."""

    level: str
    frame: Frame
    height: float
    wedge: float
    depth: float
    width: float


@dataclass(frozen=True)
class Spine:
    """One patient's spine, the same on each of the patient's films."""

    build: Build
    vertebrae: tuple[Vertebra, ...]  # cranial to caudal, down to L5 or L6
    sacrum: tuple[Vertebra, ...]  # S1 to S3
    discs: tuple[Disc, ...]
    bones: tuple[Bone, ...]

    def vertebra(self, level: str) -> Vertebra:
        """The vertebra or sacral segment of a level; KeyError where there is none."""
        for vertebra in self.vertebrae + self.sacrum:
            if vertebra.level == level:
                return vertebra
        raise KeyError(level)


@dataclass(frozen=True)
class _Endplate:
    """A plane with an oval on it: centre, its anterior, cranial and right axes, half-axes."""

    frame: Frame
    half_depth: float
    half_width: float


def make_spine(rng: np.random.Generator, build: Build, bodies_only: bool = False) -> Spine:
    """Build the bones of a patient.

    Args:
        rng: the only source of chance.
        build: the patient in numbers.
        bodies_only: leave out `bones`, which take nearly all of the time.

    Returns:
        Vertebrae T8 to L5 (or L6), the sacrum, the discs, and as bones also posterior elements,
        pelvis and ribs. Corners are where the rims of the endplates meet the midsagittal plane,
        spurs left out; `section` runs over spurs.
    """
    size = build.size
    sacrum, bones, s1 = _sacrum(rng, build)
    vertebrae, discs = [], []
    below, below_name = s1, "S1"
    centre, tilt = np.zeros(3), build.sacral_slope
    for level in reversed(build.levels):
        height, wedge, dish = _after_fracture(level)
        disc_tilt = tilt - level.disc_wedge / 2
        axes = _axes(disc_tilt, level.tilt, level.rotation)
        disc_frame = Frame(
            centre + level.disc_height / 2 * axes[1] + level.slip / 2 * axes[0], axes
        )
        lower_axes = _axes(tilt - level.disc_wedge, level.tilt, level.rotation)
        lower = centre + level.disc_height * axes[1] + level.slip * axes[0]
        upper_tilt = tilt - level.disc_wedge - wedge
        upper_axes = _axes(upper_tilt, level.tilt, level.rotation)
        middle_axes = _axes(upper_tilt + wedge / 2, level.tilt, level.rotation)
        upper = lower + height * middle_axes[1]
        ends = (
            _Endplate(Frame(upper, upper_axes), level.depth * 0.49, level.width * 0.48),
            _Endplate(Frame(lower, lower_axes), level.depth * 0.5, level.width * 0.5),
        )
        frame = Frame((upper + lower) / 2, middle_axes)
        rings = _body_rings(ends, level.waist, dish, level.osteophytes)
        pedicles = _pedicles(level, frame, height)
        vertebrae.append(_vertebra(level.name, frame, ends, rings, height, dish, pedicles))
        if not bodies_only:
            inner = _body_rings(
                _inset(ends, 0.4 * size, 0.45 * size), level.waist, dish, level.osteophytes
            )
            cancellous = float(rng.uniform(0.13, 0.19)) * build.density
            bones.append(Bone(vertebrae[-1].body, loft(inner), cancellous))
            bones += _posterior_elements(rng, level, frame, height, build)
        discs.append(
            Disc(
                f"{level.name}/{below_name}",
                disc_frame,
                level.disc_height,
                level.disc_wedge,
                2 * min(ends[1].half_depth, below.half_depth),
                2 * min(ends[1].half_width, below.half_width),
            )
        )
        below, below_name = ends[0], level.name
        centre, tilt = upper, upper_tilt
    vertebrae.reverse()
    discs.reverse()
    if bodies_only:
        return Spine(build, tuple(vertebrae), tuple(sacrum), tuple(discs), ())
    bones += _pelvis(rng, build)
    for vertebra in vertebrae:
        if vertebra.level.startswith("T"):
            bones += _ribs(rng, vertebra, build)
    return Spine(build, tuple(vertebrae), tuple(sacrum), tuple(discs), tuple(bones))


def _axes(tilt: float, lateral: float = 0.0, rotation: float = 0.0) -> np.ndarray:
    """Anterior, cranial and right axes of a frame whose anterior end lies lower by `tilt`."""
    forward = np.array([np.cos(tilt), np.sin(tilt), 0.0])
    up = np.array([np.sin(tilt), -np.cos(tilt), 0.0])
    right = np.array([0.0, 0.0, -1.0])
    up, right = (
        up * np.cos(lateral) + right * np.sin(lateral),
        right * np.cos(lateral) - up * np.sin(lateral),
    )
    forward, right = (
        forward * np.cos(rotation) + right * np.sin(rotation),
        right * np.cos(rotation) - forward * np.sin(rotation),
    )
    return np.stack([forward, up, right])


def _after_fracture(level: Level) -> tuple[float, float, tuple[float, float]]:
    """Height at the rims' middle, wedge and hollows of a body with its losses of height."""
    front = level.height + level.depth * np.tan(level.wedge) / 2
    back = level.height - level.depth * np.tan(level.wedge) / 2
    front, back = front * (1 - level.loss[0]), back * (1 - level.loss[2])
    height = (front + back) / 2
    wedge = float(np.arctan((front - back) / level.depth))
    sunk = max(0.0, height - level.height * (1 - level.loss[1]))
    return height, wedge, (level.dish[0] + 0.6 * sunk, level.dish[1] + 0.4 * sunk)


def _inset(ends: tuple[_Endplate, _Endplate], plate: float, wall: float):
    """Endplates moved inwards by the thickness of the endplate and of the wall."""
    return tuple(
        _Endplate(
            Frame(end.frame.origin + move * end.frame.axes[1], end.frame.axes),
            end.half_depth - wall,
            end.half_width - wall,
        )
        for end, move in zip(ends, (-plate, plate), strict=True)
    )


def _oval(half_depth: float, half_width: float) -> np.ndarray:
    """An endplate's rim, AROUND x 2 (anterior, right): a kidney flattened behind."""
    angle = 2 * np.pi * np.arange(AROUND) / AROUND
    c, s = np.cos(angle), np.sin(angle)
    blunt = 2 / 2.35
    u, w = np.sign(c) * np.abs(c) ** blunt, np.sign(s) * np.abs(s) ** blunt
    u += 0.05 * np.exp(-((w / 0.45) ** 2)) * (c < 0) * np.abs(c)
    return np.column_stack([u * half_depth, w * half_width])


def _body_rings(
    ends: tuple[_Endplate, _Endplate],
    waist: float,
    dish: tuple[float, float],
    spurs: tuple[float, float],
) -> np.ndarray:
    """Rings (K x AROUND x 3) from the middle of the lower endplate over the wall to the upper."""
    upper, lower = ends
    angle = 2 * np.pi * np.arange(AROUND) / AROUND
    # Spurs grow in front and a little at the sides, over the last few millimetres of the wall.
    front = np.exp(-((np.minimum(angle, 2 * np.pi - angle) / 0.75) ** 2))

    def plate(end: _Endplate, hollow: float, spur: float, side: float) -> np.ndarray:
        oval = _oval(end.half_depth, end.half_width)
        depth = hollow * np.clip(1 - (_ENDPLATE / _RIM) ** 2, 0, None)
        rings = np.empty((len(_ENDPLATE), AROUND, 3))
        rings[..., (0, 2)] = _ENDPLATE[:, None, None] * oval
        rings[-1, :, 0] += spur * front
        rings[..., 1] = (side * depth)[:, None]
        rings[-1, :, 1] -= side * 0.22 * spur * front  # claws bend over the disc
        return end.frame.place(rings)

    bottom, top = plate(lower, dish[1], spurs[1], 1.0), plate(upper, dish[0], spurs[0], -1.0)
    low, high = plate(lower, 0.0, 0.0, 1.0)[-1], plate(upper, 0.0, 0.0, -1.0)[-1]
    s = _WALL[:, None, None]
    straight = low * (1 - s) + high * s
    middle = lower.frame.origin * (1 - s) + upper.frame.origin * s
    # Walls bend in least behind, where the pedicles are.
    bend = waist * (1.0 + 0.35 * (1 - np.cos(angle)) / 2 - 0.85 * ((1 - np.cos(angle)) / 2) ** 4)
    bend = bend * (np.sin(np.pi * _WALL) ** 1.6)[:, None]
    wall = middle + (straight - middle) * (1 - bend)[..., None]
    tall = np.linalg.norm(upper.frame.origin - lower.frame.origin)
    for end, spur, away in ((lower, spurs[1], _WALL), (upper, spurs[0], 1 - _WALL)):
        reach = spur * np.exp(-((away * tall / (1.2 + 0.5 * spur)) ** 2))
        wall += (reach[:, None] * front)[..., None] * end.frame.axes[0]
    return np.concatenate([bottom, wall, top[::-1]])


def _vertebra(
    level: str,
    frame: Frame,
    ends: tuple[_Endplate, _Endplate],
    rings: np.ndarray,
    height: float,
    dish: tuple[float, float],
    pedicles: tuple[Pedicle, Pedicle],
) -> Vertebra:
    """A vertebra of its body's rings (K x AROUND x 3, mm), from the lower endplate upwards."""
    upper, lower = ends
    half = AROUND // 2
    plain = [_oval(end.half_depth, end.half_width) for end in ends]
    corners = np.stack(
        [
            upper.frame.place((plain[0][half, 0], 0, 0)),
            upper.frame.place((plain[0][0, 0], 0, 0)),
            lower.frame.place((plain[1][0, 0], 0, 0)),
            lower.frame.place((plain[1][half, 0], 0, 0)),
        ]
    )
    return Vertebra(
        level=level,
        frame=frame,
        depth=float(upper.half_depth + lower.half_depth) * 0.985,
        width=float(upper.half_width + lower.half_width),
        height=height,
        corners=corners,
        hollows=np.stack([upper.frame.place((0, -dish[0], 0)), lower.frame.place((0, dish[1], 0))]),
        pedicles=pedicles,
        body=loft(rings),
        section=np.vstack([rings[::-1, 0], rings[:, half]]),
    )


def _pedicles(level: Level, frame: Frame, height: float) -> tuple[Pedicle, Pedicle]:
    """Both pedicles' screw paths: from behind the facets, a little medially, into the body."""
    a, b = level.depth / 2, level.width / 2
    inward = np.radians(
        8.0 if level.name.startswith("T") else {"L5": 22, "L6": 24}.get(level.name, 14)
    )
    found = []
    for side in (1, -1):
        across = np.array([-a - 4.0, 0.19 * height, side * 0.6 * b])  # the isthmus
        axis = np.array([np.cos(inward), 0.0, -side * np.sin(inward)])
        entry = across - axis * 19.0
        length = (a - entry[0]) / axis[0] - 1.0
        found.append(
            Pedicle(frame.place(entry), frame.turn(axis), float(length), min(level.pedicle))
        )
    return found[0], found[1]


def _shell(axis: np.ndarray, radii: object, thickness: float, cancellous: float) -> Bone:
    """A tubular bone with a cortical shell."""
    radii = np.asarray(radii, float)
    inner = np.maximum(radii - thickness, 0.25 * radii)
    return Bone(tube(axis, radii, 10), tube(axis, inner, 10), cancellous)


def _posterior_elements(
    rng: np.random.Generator, level: Level, frame: Frame, height: float, build: Build
) -> list[Bone]:
    """Pedicles, laminae, articular, transverse and spinous processes."""
    a, b, h, k = level.depth / 2, level.width / 2, height, build.size
    h = max(h, 0.8 * level.height)
    thoracic = level.name.startswith("T")
    cancellous = 0.16 * build.density
    shell = float(np.clip(1.0 * build.density, 0.5, 1.3))
    half_wide, half_tall = level.pedicle
    bones = []

    def add(points: object, radii: object, thick: float = shell) -> None:
        points = np.asarray(points, float)
        points = points + rng.normal(0.0, 0.5, points.shape) * (1, 1, 0.7)
        bones.append(_shell(frame.place(points), radii, thick, cancellous))

    for side in (-1, 1):
        s = side * b
        root = (-a + 3.5, 0.17 * h, 0.58 * s)
        end = (-a - 9 * k, 0.2 * h, 0.66 * s)
        add(
            [root, (-a - 3 * k, 0.19 * h, 0.6 * s), end],
            [(half_wide, half_tall * 1.15), (half_wide, half_tall), (half_wide * 1.1, half_tall)],
        )
        facet = (-a - 15 * k, 0.02 * h, 0.55 * s)
        add(
            [(-a - 9 * k, 0.2 * h, 0.62 * s), facet, (-a - 20 * k, -0.3 * h, 0.42 * s)],
            [(5.5 * k, 6.5 * k), (5.0 * k, 4.6 * k), (5.5 * k, 4.0 * k)],
        )
        add(
            [
                (-a - 20 * k, -0.25 * h, 0.42 * s),
                (-a - 19 * k, -0.55 * h, 0.46 * s),
                (-a - 17 * k, -0.86 * h, 0.48 * s),
            ],
            [(5.5 * k, 4.0 * k), (5.5 * k, 4.4 * k), (3.0 * k, 2.6 * k)],
        )
        add(
            [
                (-a - 10 * k, 0.22 * h, 0.64 * s),
                (-a - 12.5 * k, 0.52 * h, 0.66 * s),
                (-a - 13 * k, 0.8 * h, 0.64 * s),
            ],
            [(5.5 * k, 5.0 * k), (5.0 * k, 4.4 * k), (2.6 * k, 2.4 * k)],
        )
        reach = 8.0 if thoracic else 24.0
        add(
            [
                (-a - 9 * k, 0.12 * h, 0.7 * s),
                (-a - 15 * k, 0.12 * h, s + side * reach * 0.6 * k),
                (-a - 18 * k, 0.16 * h, s + side * reach * k),
            ],
            [(4.0 * k, 5.0 * k), (3.0 * k, 4.2 * k), (2.2 * k, 3.4 * k)],
            0.6 * shell,
        )
        add(
            [
                (-a - 18 * k, -0.12 * h, 0.45 * s),
                (-a - 23 * k, -0.2 * h, 0.22 * s),
                (-a - 26 * k, -0.24 * h, 0.03 * s),
            ],
            [(3.2 * k, 7.5 * k), (3.0 * k, 7.5 * k), (2.8 * k, 7.5 * k)],
        )
    drop = 16.0 if thoracic else 5.0
    tip = {"L5": 24.0, "L6": 22.0}.get(level.name, 32.0) * k * rng.uniform(0.9, 1.1)
    tall = (6.0 if thoracic else 10.5) * k
    add([(-a - 24 * k, -0.22 * h, 0), (-a - 24 * k - 0.55 * tip, -0.24 * h - 0.5 * drop, 0),
         (-a - 24 * k - tip, -0.25 * h - drop, 0)],
        [(2.6 * k, 0.85 * tall), (2.4 * k, tall), (3.4 * k, 0.8 * tall)], 0.8 * shell)  # fmt: skip
    return bones


def _sacrum(rng: np.random.Generator, build: Build) -> tuple[list[Vertebra], list[Bone], _Endplate]:
    """The sacrum below the S1 endplate: segments, bones, and the endplate itself."""
    size = build.size
    depth, width = _S1_DEPTH * size, _S1_WIDTH * size
    kyphosis = np.radians(rng.uniform(7.0, 13.0))
    segments, bones = [], []
    upper, tilt = np.zeros(3), build.sacral_slope
    first = None
    path = []
    for name, (height, depths, widths) in _SACRUM.items():
        height = height * size * rng.normal(1.0, 0.03)
        lower_tilt = tilt - kyphosis * (0.5 if name == "S1" else 1.0)
        middle = _axes((tilt + lower_tilt) / 2)
        lower = upper - height * middle[1]
        ends = (
            _Endplate(Frame(upper, _axes(tilt)), depth * depths[0] / 2, width * widths[0] / 2),
            _Endplate(
                Frame(lower, _axes(lower_tilt)), depth * depths[1] / 2, width * widths[1] / 2
            ),
        )
        first = first or ends[0]
        frame = Frame((upper + lower) / 2, middle)
        dish = (0.8, 0.5)
        rings = _body_rings(ends, 0.05, dish, (0.0, 0.0))
        inner = _body_rings(_inset(ends, 0.6 * size, 0.6 * size), 0.05, dish, (0.0, 0.0))
        bones.append(Bone(loft(rings), loft(inner), 0.13 * build.density))
        if name in ("S1", "S2", "S3"):
            level = Level(name, height, depth * sum(depths) / 2, width * sum(widths) / 2, 0, 0, 0,
                          (9.0 * size, 9.0 * size), 0.05, dish)  # fmt: skip
            pedicles = _pedicles(level, frame, height)
            segments.append(_vertebra(name, frame, ends, rings, height, dish, pedicles))
        path.append((frame, ends[0].half_depth + ends[1].half_depth))
        upper, tilt = lower - 1.8 * size * _axes(lower_tilt)[1], lower_tilt

    shell, cancellous = 0.7 * build.density, 0.05 * build.density
    for side in (-1, 1):
        ala = [(-4, -2, 15), (-9, -9, 32), (-15, -20, 47), (-20, -33, 56)]
        at = segments[0].frame.place(np.array(ala) * size * (1, 1, side))
        radii = np.array([(12, 17), (12, 19), (11, 20), (7, 17)]) * size
        bones.append(_shell(at, radii, shell, cancellous))
        lower_part = [(-8, 0, 12), (-12, -2, 26), (-14, -6, 38)]
        at = segments[1].frame.place(np.array(lower_part) * size * (1, 1, side))
        bones.append(_shell(at, np.array([(8, 14), (8, 14), (5, 10)]) * size, shell, cancellous))
        joint = segments[0].frame.place(
            np.array([(-24, 8, 17), (-25, 20, 18), (-25, 30, 18)]) * size * (1, 1, side)
        )
        bones.append(_shell(joint, np.array([(6, 6), (5, 5), (3, 3)]) * size, shell, cancellous))
        lamina = np.array([f.place((-d / 2 - 15 * size, 0, side * 9 * size)) for f, d in path[:4]])
        bones.append(_shell(lamina, 3.4 * size * np.ones(4), 0.8 * shell, cancellous))
    crest = np.array([f.place((-d / 2 - s * size, 0, 0)) for (f, d), s in
                      zip(path, (24, 21, 17, 12, 8), strict=True)])  # fmt: skip
    bones.append(_shell(crest, np.array([5.5, 5.0, 4.2, 3.4, 2.6]) * size, 0.8 * shell, cancellous))
    return segments, bones, first


def _sheet(middle: np.ndarray, thickness: np.ndarray) -> Mesh:
    """A closed plate about a grid of points (R x C x 3), with its thickness (R x C, mm)."""
    du, dv = np.gradient(middle, axis=0), np.gradient(middle, axis=1)
    normal = np.cross(du, dv)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True) + 1e-9
    half = normal * thickness[..., None] / 2
    front, back = middle + half, (middle - half)[:, ::-1]
    # Each row of the grid is one ring about the plate.
    return loft(np.concatenate([front, back], axis=1))


def _pelvis(rng: np.random.Generator, build: Build) -> list[Bone]:
    """Iliac wings down to the acetabula, and the femoral heads."""
    size = build.size
    # Landmarks at a sacral slope of 40 degrees; the pelvis turns with it about the S1 endplate.
    turn = (build.sacral_slope - np.radians(40.0)) * 0.8
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    crest = np.array(
        [(-48, 34, 40), (-46, 5, 55), (-30, -24, 84), (0, -42, 112), (32, -32, 126), (60, 0, 124),
         (74, 34, 116)], float,
    )  # fmt: skip
    foot = np.array(
        [(-44, 58, 42), (-34, 66, 50), (-18, 74, 62), (2, 84, 72), (22, 88, 80), (42, 80, 92),
         (58, 62, 104)], float,
    )  # fmt: skip
    rows = np.linspace(0, 1, 9)[:, None, None]
    columns = np.linspace(0, len(crest) - 1, 19)
    edges = [PchipInterpolator(range(len(e)), e)(columns) for e in (crest, foot)]
    wide = rng.uniform(0.94, 1.06)
    bones = []
    for side in (-1, 1):
        grid = edges[0] * (1 - rows) + edges[1] * rows
        grid[..., 2] -= 14 * np.sin(np.pi * rows[..., 0]) * np.sin(np.linspace(0, np.pi, 19))
        grid = (grid + rng.normal(0.0, 1.5, 3)) * (1, 1, side * wide) * size @ rotation.T
        thick = np.interp(rows[:, 0, 0], [0, 0.12, 0.5, 0.8, 1], [15, 8, 5, 10, 17])[:, None]
        thick = thick * np.interp(np.linspace(0, 1, 19), [0, 0.2, 0.7, 1], [1.2, 1, 0.8, 0.9])
        thick *= size
        cancellous = 0.1 * build.density
        bones.append(
            Bone(_sheet(grid, thick), _sheet(grid, np.maximum(thick - 2.2, 0.5)), cancellous)
        )
        head = np.array([26.0, 112.0, side * 88.0 * wide]) * size @ rotation.T
        ring = np.sin(np.linspace(0.12, np.pi - 0.12, 9))
        axis = head + np.cos(np.linspace(0.12, np.pi - 0.12, 9))[:, None] * (0, 24.0 * size, 0)
        bones.append(_shell(axis, 24.0 * size * ring, 0.9, cancellous))
    return bones


def _ribs(rng: np.random.Generator, vertebra: Vertebra, build: Build) -> list[Bone]:
    """The pair of ribs of a thoracic vertebra: backwards and sideways, then down and forwards."""
    a, k = vertebra.depth / 2, build.size
    longest = {"T13": 0.35, "T12": 0.75, "T11": 0.95}.get(vertebra.level, 1.0)
    bones = []
    for side in (-1, 1):
        path = np.array(
            [(-a - 4, -3, 17), (-a - 20, 2, 34), (-a - 34, -8, 62), (-a - 30, -26, 98),
             (-a + 5, -52, 124), (45, -80, 128), (80, -96, 118)], float,
        )  # fmt: skip
        path *= (1, 1.0, side)
        path[:, 1] *= rng.uniform(0.8, 1.15)
        count = max(3, round(len(path) * longest))
        # Ribs hang from the trunk, not from the tilt of their own vertebra.
        points = vertebra.frame.origin + path[:count] * k * (1, -1, -1)
        fine = np.linspace(0, count - 1, 4 * count)
        smooth = PchipInterpolator(range(count), points)(fine)
        radii = np.tile([3.0 * k, 5.4 * k], (len(smooth), 1))
        radii[-2:] *= np.array([[0.8], [0.35]])
        bones.append(_shell(smooth, radii, 0.8, 0.1))
    return bones
