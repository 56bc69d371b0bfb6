"""Spinal surgery: implants of a fusion (and rarer operations), placed in a patient's spine.

Most operations are instrumented fusions: pedicle screws with polyaxial heads, a rod a side that
follows them, and cages in the fused discs (:mod:`interbody`). Screws deviate from the pedicle's
axis by the few degrees and millimetres of freehand placement; a tenth breach or are too short
(69 to 94% of freehand screws lie wholly in the pedicle: Gelalis et al., Eur Spine J 2012;21:247).
About one operation in eight has unusual hardware.

Coordinates are the patient's (:mod:`meshes`), lengths millimetres. Shapes are in :mod:`implants`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline

from . import implants as shapes
from .implants import Solids, System, pointing
from .interbody import draw_cages, draw_prosthesis
from .meshes import Frame, Mesh, join, tube

if TYPE_CHECKING:
    from .anatomy import Disc, Pedicle, Spine, Vertebra

UNUSUAL = (
    "hook",
    "wire",
    "cross_link",
    "broken_screw",
    "broken_rod",
    "iliac_screw",
    "interspinous",
    "disc_prosthesis",
)
"""Kinds that about one operation in eight has."""

TEST_ONLY = ("vertebral_body_replacement",)
"""Kinds that are put in only where asked."""

KINDS = ("plate", "cement", *UNUSUAL, *TEST_ONLY)
"""What can be asked for beside the screws, rods and cages of every fusion."""

_UNUSUAL_SHARE = (0.1, 0.06, 0.3, 0.1, 0.1, 0.14, 0.12, 0.08)
_STOCK_RADII = (2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.25)
_ROD_SLACK = 1.2  # furthest that a rod's axis runs beside the middle of a head
_BREACHES = ("aside", "through", "short")


@dataclass(frozen=True)
class Implant:
    """An implant, or the part of one that is outlined on its own."""

    kind: str
    class_name: str | None  # screw, instrumentation, cage; None: it is not annotated
    level: str | None  # a vertebra (screws, body replacement), a disc ("L4/L5") or None
    solids: Solids  # (material, mesh), patient coordinates


@dataclass(frozen=True)
class Anchor:
    """A screw or hook, by its geometry: `ball` is the joint of shaft and head."""

    kind: str  # pedicle_screw, iliac_screw or hook
    level: str
    ball: np.ndarray  # 3
    axis: np.ndarray  # 3, unit: from the ball to the tip
    radius: float  # over the thread
    length: float  # ball to tip
    outwards: np.ndarray  # 3, unit: from the ball to the rod's seat

    def seat(self, system: System) -> np.ndarray:
        """Where the head holds the middle of the rod."""
        return self.ball + system.seat * self.outwards


def make_surgery(
    rng: np.random.Generator, spine: Spine, kinds: Collection[str] | None = None
) -> tuple[Implant, ...]:
    """Operate on a spine.

    Args:
        rng: draws the operation.
        spine: the patient's; it is not changed.
        kinds: what the operation must hold beside screws, rods and cages: some of `KINDS`, or
            nothing for an ordinary fusion. None draws that too, except the `TEST_ONLY` ones.

    Returns:
        Implants of one to six segments, cages first. Every mesh is closed and turned outwards.

    Raises:
        ValueError: for a kind that is not in `KINDS`.
    """
    wanted = _draw_kinds(rng) if kinds is None else set(kinds)
    if not wanted <= set(KINDS):
        raise ValueError(f"no such hardware: {sorted(wanted - set(KINDS))}")
    bones = (*spine.vertebrae, spine.sacrum[0])
    top, bottom, replaced = _choose_levels(rng, bones, wanted)
    operation: list[Implant] = []

    # Devices that keep a segment mobile are put in alone, or above a fusion.
    mobile = wanted & {"interspinous", "disc_prosthesis"}
    if mobile:
        alone = wanted == mobile and rng.random() < 0.6
        top = max(top, 1)
        index = (bottom if alone else top) - 1
        for kind in sorted(mobile):
            disc = spine.discs[index]
            if kind == "interspinous":
                operation.append(_interspinous(rng, bones[index], bones[index + 1], disc))
            else:
                operation.append(_instrument(kind, disc.level, draw_prosthesis(rng, disc)))
        if alone:
            return tuple(operation)

    bare = {replaced - 1, replaced} if replaced is not None else set()
    discs = [spine.discs[i] for i in range(top, bottom) if i not in bare]
    anterior = "plate" in wanted and wanted <= {"plate", "cement"} and rng.random() < 0.5
    share = 1.0 if anterior else 0.75
    for level, solids in draw_cages(rng, discs, share, "alif" if "plate" in wanted else None):
        operation.append(Implant("cage", "cage", level, solids))
    if "plate" in wanted:
        at = int(rng.integers(max(top, bottom - 2), bottom))
        operation += _plate(rng, bones[at], bones[at + 1])
    if replaced is not None:
        operation.append(_body_replacement(rng, *bones[replaced - 1 : replaced + 2]))
    if not anterior:
        fused = [bone for i, bone in enumerate(bones) if top <= i <= bottom and i != replaced]
        operation += _posterior(rng, fused, wanted)
    if "cement" in wanted:
        free = [bone for i, bone in enumerate(spine.vertebrae) if not top <= i <= bottom]
        operation += _cement(rng, free or list(bones[top:bottom]))
    return tuple(operation)


def place_screw(
    rng: np.random.Generator,
    pedicle: Pedicle,
    level: str,
    stock: float = 3.75,
    breach: str | None = None,
) -> Anchor:
    """Put a screw through a pedicle.

    Args:
        rng: draws the deviation from the pedicle's axis.
        pedicle: its narrowest place is taken to lie 40% of the way to the front wall, at most
            16 mm, behind the entry.
        level: of the vertebra.
        stock: the thickest screws at hand (radius, mm).
        breach: None: the thread stays within the pedicle; "aside": it leaves it, "through": it
            leaves the body in front, "short": it ends behind the middle of the body.
    """
    fitting = [r for r in _STOCK_RADII if r <= min(stock, 0.92 * pedicle.radius)]
    radius = fitting[-1] if fitting else 0.92 * pedicle.radius
    narrow = min(16.0, 0.4 * pedicle.length)
    side = pointing(pedicle.entry, pedicle.axis, np.array([0.0, 1.0, 0.0]))
    turn, slant = rng.uniform(0, 2 * np.pi, 2)
    shift = 0.7 * max(pedicle.radius - radius - 0.2, 0.0) * rng.random()
    angle = np.radians(min(abs(rng.normal(0.0, 2.0)), 4.0))
    if breach == "aside":
        shift, angle, slant = 0.6 * pedicle.radius, np.radians(rng.uniform(7.0, 14.0)), turn
    middle = side.place([narrow, shift * np.cos(turn), shift * np.sin(turn)])
    axis = side.turn([np.cos(angle), np.sin(angle) * np.cos(slant), np.sin(angle) * np.sin(slant)])
    part = {"through": rng.uniform(1.04, 1.15), "short": rng.uniform(0.5, 0.6)}.get(
        breach, rng.uniform(0.68, 0.9)
    )
    stand_off = rng.uniform(3.5, 6.0)
    ball = middle - (narrow + stand_off) * axis
    # Screws come in steps of 5 mm.
    steps = (stand_off + part * pedicle.length) / 5.0
    length = max(20.0, 5.0 * (np.ceil(steps) if breach == "through" else np.floor(steps)))
    return Anchor("pedicle_screw", level, ball, axis, float(radius), float(length), -axis)


def fit_rod(
    rng: np.random.Generator, anchors: Sequence[Anchor], system: System
) -> tuple[list[Anchor], CubicSpline, np.ndarray]:
    """Bend a rod smoothly along the heads and turn the heads to it.

    Screws are driven a little deeper or less deep so that the rod need not wind; heads tilt on
    their balls as far as the system allows.

    Returns:
        The anchors as they end up, the rod's axis (argument: mm along it; value: 3, patient), and
        the arguments at which it passes the heads.
    """
    anchors = list(anchors)
    bow = rng.uniform(-0.01, 0.035)  # of its length: rods come slightly lordotic
    deepest = np.full(len(anchors), 3.0)
    for turn in range(3):
        seats = np.array([a.seat(system) for a in anchors])
        arc = _arc(seats)
        degree = min(len(anchors) - 1, 3 if len(anchors) < 6 else 4)
        scaled = arc / arc[-1]
        basis = np.vander(scaled, degree + 1)
        smooth = basis @ np.linalg.lstsq(basis, seats, rcond=None)[0]
        along = np.gradient(smooth, arc, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        for i, anchor in enumerate(anchors):
            back = -anchor.axis
            drawn = float(np.clip((smooth[i] - seats[i]) @ back, -deepest[i], 3.0))
            if turn == 2:
                drawn = 0.0
            deepest[i] += drawn
            ball = anchor.ball + drawn * back
            to_rod = smooth[i] - ball
            to_rod -= (to_rod @ along[i]) * along[i]
            outwards = _within(to_rod, back, system.reach)
            anchors[i] = replace(anchor, ball=ball, outwards=outwards)
    seats = np.array([a.seat(system) for a in anchors])
    aside = seats - smooth
    distance = np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-9)
    passed = smooth + aside * np.maximum(0.0, 1.0 - _ROD_SLACK / distance)
    arc = _arc(passed)
    knots, points = arc, passed
    if len(anchors) == 2:
        forwards = -(anchors[0].outwards + anchors[1].outwards) / 2
        middle = passed.mean(axis=0) + bow * arc[-1] * forwards
        knots, points = np.insert(arc, 1, arc[-1] / 2), np.insert(passed, 1, middle, axis=0)
    return anchors, CubicSpline(knots, points, bc_type="natural"), arc


def _draw_kinds(rng: np.random.Generator) -> set[str]:
    kinds = set()
    if rng.random() < 0.125:
        kinds.add(str(rng.choice(UNUSUAL, p=_UNUSUAL_SHARE)))
    if rng.random() < 0.05:
        kinds.add("plate")
    if rng.random() < 0.06:
        kinds.add("cement")
    return kinds


def _choose_levels(
    rng: np.random.Generator, bones: Sequence[Vertebra], wanted: set[str]
) -> tuple[int, int, int | None]:
    """The first and last bone of the construct, and the one that is replaced if any."""
    last = len(bones) - 1
    if "vertebral_body_replacement" in wanted:
        # The thoracolumbar junction and the upper lumbar spine.
        replaced = max(1, last - int(rng.choice((6, 5, 4, 3, 2), p=(0.2, 0.3, 0.25, 0.15, 0.1))))
        reach = int(rng.choice((1, 2), p=(0.7, 0.3)))
        return max(0, replaced - reach), min(last, replaced + reach), replaced
    # From the sacrum upwards: most fusions end on S1 or L5.
    bottom = last - int(rng.choice(7, p=(0.46, 0.31, 0.1, 0.05, 0.03, 0.03, 0.02)))
    if "iliac_screw" in wanted:
        bottom = last
    elif "interspinous" in wanted:
        bottom = min(bottom, last - 1)
    bottom = max(bottom, 2)
    segments = int(rng.choice((1, 2, 3, 4, 5, 6), p=(0.4, 0.27, 0.14, 0.09, 0.05, 0.05)))
    if wanted & {"hook", "wire", "cross_link"}:
        segments = max(segments, 2)
    return max(0, bottom - segments), bottom, None


def _posterior(
    rng: np.random.Generator, fused: Sequence[Vertebra], wanted: set[str]
) -> list[Implant]:
    """Screws or hooks, rods, and what is fastened to them, of neighbouring bones."""
    system = shapes.make_system(rng)
    stock = float(rng.choice((3.25, 3.5, 3.75, 4.25), p=(0.4, 0.2, 0.3, 0.1)))
    one_sided = len(fused) == 2 and not wanted and rng.random() < 0.06
    sides = (int(rng.integers(2)),) if one_sided else (0, 1)
    # Middle screws are sometimes left out, hooks stand in for the uppermost screws.
    hooked = "hook" in wanted
    constructs = []
    for side in sides:
        anchors = []
        for i, bone in enumerate(fused):
            at_end = i in (0, len(fused) - 1)
            if not at_end and rng.random() < 0.09:
                continue
            pedicle = bone.pedicles[side]
            if hooked and i == 0:
                anchors.append(_place_hook(pedicle, bone))
                continue
            breach = str(rng.choice(_BREACHES)) if rng.random() < 0.1 else None
            anchors.append(place_screw(rng, pedicle, bone.level, stock, breach))
        if "iliac_screw" in wanted:
            anchors.append(_place_iliac_screw(rng, fused[-1], side))
        constructs.append(fit_rod(rng, anchors, system))

    head = shapes.head(system)
    broken_rod = int(rng.integers(len(sides))) if "broken_rod" in wanted else None
    broken_screw = (int(rng.integers(len(sides))), -1) if "broken_screw" in wanted else (None, 0)
    screws: list[Implant] = []
    rods: list[Implant] = []
    for i, (anchors, curve, arc) in enumerate(constructs):
        broken = anchors[broken_screw[1]] if i == broken_screw[0] else None
        for anchor, at in zip(anchors, arc, strict=True):
            screws += _anchor_solids(rng, anchor, curve(at, 1), system, head, anchor is broken)
        rods += _rod(rng, curve, arc, system, i == broken_rod)
    extras = []
    if "wire" in wanted:
        for anchors, curve, arc in constructs:
            at = (arc[0] + arc[1]) / 2
            frame = pointing(curve(at), anchors[0].outwards + anchors[1].outwards, curve(at, 1))
            extras.append(
                _instrument("wire", None, (("steel", shapes.wire(system).placed(frame)),))
            )
    if len(constructs) == 2 and ("cross_link" in wanted or (len(fused) > 4 and rng.random() < 0.1)):
        extras.append(_cross_link(constructs, system))
    if "cement" in wanted and rng.random() < 0.3:
        extras += [
            _cement_at(rng, a.ball + (a.length - 4.0) * a.axis, rng.uniform(5.0, 9.0, 3))
            for anchors, *_ in constructs
            for a in anchors
            if a.kind == "pedicle_screw"
        ]
    return screws + rods + extras


def _place_hook(pedicle: Pedicle, bone: Vertebra) -> Anchor:
    # On the lamina: towards the midline from where a screw would go in, and below it.
    across = np.sign(bone.frame.local(pedicle.entry)[2])
    ball = pedicle.entry + bone.frame.turn([-6.0, -4.0, -5.0 * across])
    axis = bone.frame.turn([1.0, 0.0, 0.0])
    return Anchor("hook", bone.level, ball, axis, 0.0, 0.0, -axis)


def _place_iliac_screw(rng: np.random.Generator, sacrum: Vertebra, side: int) -> Anchor:
    """A sacral-alar-iliac screw: lateral of the S1 and S2 foramina, through the joint, forward."""
    pedicle = sacrum.pedicles[side]
    across = np.sign(sacrum.frame.local(pedicle.entry)[2])
    start = pedicle.entry + sacrum.frame.turn([-2.0, -rng.uniform(18.0, 24.0), 2.0 * across])
    axis = sacrum.frame.turn([0.7, -rng.uniform(0.25, 0.45), rng.uniform(0.45, 0.6) * across])
    axis /= np.linalg.norm(axis)
    length = float(rng.choice((70.0, 80.0, 90.0)))
    ball = start - 4.0 * axis
    radius = float(rng.choice((3.75, 4.25)))
    return Anchor("iliac_screw", "S2", ball, axis, radius, length, -axis)


def _anchor_solids(
    rng: np.random.Generator,
    anchor: Anchor,
    along: np.ndarray,
    system: System,
    head: Mesh,
    broken: bool,
) -> list[Implant]:
    turned = pointing(anchor.ball, anchor.outwards, along)
    if anchor.kind == "hook":
        mesh = join([head, shapes.hook_blade()]).placed(turned)
        return [_instrument("hook", anchor.level, ((system.material, mesh),))]
    inwards = pointing(anchor.ball, anchor.axis, along)
    at = anchor.length * rng.uniform(0.35, 0.6) if broken else None
    shaft = shapes.screw_shaft(system, anchor.radius, anchor.length, stop=at).placed(inwards)
    whole = Implant(
        anchor.kind, "screw", anchor.level, ((system.material, join([head.placed(turned), shaft])),)
    )
    if at is None:
        return [whole]
    # The part in the body stays, that in the pedicle moves with the rod.
    left = shapes.screw_shaft(system, anchor.radius, anchor.length, start=at)
    moved = inwards.turn([rng.uniform(0.5, 2.0), *rng.uniform(-1.5, 1.5, 2)])
    left = left.placed(Frame(anchor.ball + moved, inwards.axes))
    return [
        replace(whole, kind="broken_screw"),
        Implant("broken_screw", "screw", anchor.level, ((system.material, left),)),
    ]


def _rod(
    rng: np.random.Generator, curve: CubicSpline, arc: np.ndarray, system: System, broken: bool
) -> list[Implant]:
    over = rng.uniform(5.0, 11.0, 2)
    if rng.random() < 0.1:
        over[rng.integers(2)] += 10.0
    gap = rng.uniform(0.5, 3.0)
    i = int(rng.integers(len(arc) - 1))
    cut = arc[i] + rng.uniform(0.35, 0.65) * (arc[i + 1] - arc[i])
    spans = [(-over[0], arc[-1] + over[1])]
    if broken:
        spans = [(-over[0], cut), (cut + gap, arc[-1] + over[1])]
    pieces = []
    for start, stop in spans:
        at = np.linspace(start, stop, max(4, int((stop - start) / 3.0)))
        held = np.clip(at, arc[0], arc[-1])
        # Straight beyond the last heads.
        axis = curve(held) + (at - held)[:, None] * curve(held, 1)
        if broken and start > 0:
            axis = axis + rng.uniform(-1.5, 1.5, 3)
        mesh = tube(axis, system.rod_radius, 12)
        kind = "broken_rod" if broken else "rod"
        pieces.append(_instrument(kind, None, ((system.rod_material, mesh),)))
    return pieces


def _cross_link(constructs: Sequence[tuple], system: System) -> Implant:
    ends, clamps = [], []
    for anchors, curve, arc in constructs:
        i = (len(arc) - 1) // 2
        at = 0.45 * arc[i] + 0.55 * arc[i + 1]
        ends.append(curve(at) + 1.5 * anchors[i].outwards)
        points = [curve(at - 4.0), curve(at + 4.0)]
        clamps.append(tube(points, system.rod_radius + 1.8, 10))
    middle = (ends[0] + ends[1]) / 2 + 3.0 * constructs[0][0][0].outwards
    bar = CubicSpline((0.0, 1.0, 2.0), [ends[0], middle, ends[1]])(np.linspace(0, 2, 9))
    mesh = join([tube(bar, np.array([[2.6, 1.7]] * 9), 10), *clamps])
    return _instrument("cross_link", None, ((system.material, mesh),))


def _plate(rng: np.random.Generator, upper: Vertebra, lower: Vertebra) -> list[Implant]:
    """A plate on the front of two bodies, with two screws into each."""
    far = rng.uniform(0.35, 0.6)
    rims = [upper.corners[1], upper.corners[2], lower.corners[1], lower.corners[2]]
    path = np.array(
        [rims[1] + far * (rims[0] - rims[1]), rims[1], rims[2], rims[2] + far * (rims[3] - rims[2])]
    )
    front = upper.frame.axes[0] + lower.frame.axes[0]
    front /= np.linalg.norm(front)
    # Bent over both rims without touching, and straight where the screws are.
    line = CubicSpline(_arc(path), path)(np.linspace(0, _arc(path)[-1], 9)) + 1.8 * front
    half_width = rng.uniform(10.0, 13.0)
    material = "titanium"
    mesh = tube(line, np.array([[half_width, rng.uniform(1.1, 1.6)]] * 9), 16)
    parts = [_instrument("plate", None, ((material, mesh),))]
    system = replace(shapes.make_system(rng), material=material, pitch=1.75, thread=0.3)
    length = float(rng.choice((20.0, 25.0, 30.0)))
    for bone, at, tip in ((upper, line[0], 1), (lower, line[-1], -1)):
        inner = at + 3.0 * (line[4] - at) / np.linalg.norm(line[4] - at)
        for side in (-1, 1):
            axis = bone.frame.turn([-1.0, 0.12 * tip, -0.15 * side])
            start = inner + bone.frame.turn([0.5, 0.0, side * half_width * 0.6])
            frame = pointing(start, axis, np.array([0.0, 0.0, 1.0]))
            shaft = shapes.screw_shaft(system, 2.1, length, start=0.0).placed(frame)
            parts.append(Implant("plate_screw", "screw", bone.level, ((material, shaft),)))
    return parts


def _cement(rng: np.random.Generator, bones: Sequence[Vertebra]) -> list[Implant]:
    """Cement in one or two bodies, the flattest ones first, as of vertebral fractures."""
    flat = np.array([bone.height / bone.depth for bone in bones])
    chance = np.exp(-12 * (flat - flat.min()))
    count = min(len(bones), int(rng.choice((1, 2), p=(0.75, 0.25))))
    lumps = []
    for i in rng.choice(len(bones), count, replace=False, p=chance / chance.sum()):
        bone = bones[i]
        size = np.array([bone.depth, bone.height, bone.width])
        for side in (-1, 1):
            if side < 0 or rng.random() < 0.6:
                centre = size * [rng.uniform(-0.02, 0.1), rng.uniform(-0.06, 0.06), 0.17 * side]
                radii = size * rng.uniform((0.22, 0.2, 0.15), (0.34, 0.34, 0.25))
                lumps.append(_cement_at(rng, bone.frame.place(centre), radii, bone.frame))
    return lumps


def _cement_at(
    rng: np.random.Generator, centre: np.ndarray, radii: np.ndarray, frame: Frame | None = None
) -> Implant:
    axes = np.eye(3) if frame is None else frame.axes
    mesh = shapes.blob(rng, radii).placed(Frame(centre, axes))
    return Implant("cement", None, None, (("cement", mesh),))


def _interspinous(
    rng: np.random.Generator, upper: Vertebra, lower: Vertebra, disc: Disc
) -> Implant:
    entries = [p.entry for bone in (upper, lower) for p in bone.pedicles]
    place = disc.frame.local(np.mean(entries, axis=0))
    place[0] -= rng.uniform(10.0, 15.0)
    place[1] -= rng.uniform(3.0, 7.0)
    place[2] = rng.normal(0.0, 0.7)
    frame = Frame(disc.frame.place(place), disc.frame.axes)
    solids = shapes.interspinous(rng, rng.uniform(8.0, 12.0))
    return _instrument("interspinous", disc.level, shapes.placed(solids, frame))


def _body_replacement(
    rng: np.random.Generator, above: Vertebra, replaced: Vertebra, below: Vertebra
) -> Implant:
    """A strut from the lower endplate above to the upper endplate below the replaced body."""
    ends = np.array([above.corners[2:].mean(axis=0), below.corners[:2].mean(axis=0)])
    up = ends[0] - ends[1]
    frame = pointing(ends.mean(axis=0), up, replaced.frame.axes[2])
    # Rows anterior, cranial, right: the strut stands on the line between both endplates.
    axes = np.array([np.cross(frame.axes[0], frame.axes[1]), frame.axes[0], frame.axes[1]])
    frame = Frame(frame.origin + rng.uniform(-2.0, 3.0) * axes[0], axes)
    tilts = []
    for front, back in ((above.corners[2], above.corners[3]), (below.corners[1], below.corners[0])):
        anterior, cranial, _ = frame.axes @ (front - back)
        tilts.append(float(np.clip(cranial / anterior, -0.4, 0.4)))
    length = float(np.linalg.norm(up)) + rng.uniform(0.0, 1.5)
    solids = shapes.body_replacement(rng, length, (tilts[0], tilts[1]))
    kind = "vertebral_body_replacement"
    return _instrument(kind, replaced.level, shapes.placed(solids, frame))


def _instrument(kind: str, level: str | None, solids: Solids) -> Implant:
    return Implant(kind, "instrumentation", level, solids)


def _arc(points: np.ndarray) -> np.ndarray:
    """Length along a line of points (N x 3): N, from 0."""
    return np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))


def _within(direction: np.ndarray, axis: np.ndarray, most: float) -> np.ndarray:
    """The unit vector along `direction`, turned to at most `most` radians from the unit `axis`."""
    direction = direction / np.linalg.norm(direction)
    cosine = direction @ axis
    if cosine >= np.cos(most):
        return direction
    aside = direction - cosine * axis
    aside /= np.linalg.norm(aside)
    return np.cos(most) * axis + np.sin(most) * aside
