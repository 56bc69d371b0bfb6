"""The shapes of spinal implants as closed surfaces, each in a frame of its own.

Screws, heads and hooks lie along their first axis; devices of the disc space have the axes
anterior, cranial and right. Sizes (mm) are those of the usual titanium systems: 5.5 and 6 mm rods,
screws of 4.5 to 8.5 mm, thread pitch 2 to 3 mm. :mod:`surgery` puts them into a spine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .meshes import Frame, Mesh, box, ellipsoid, join, lathe, loft, tube

Solids = tuple[tuple[str, Mesh], ...]
"""Materials and what is made of them."""

Surface = Callable[[np.ndarray], np.ndarray]
"""Height (N, mm cranial) at places (N x 2: mm anterior and right) of a disc space."""

NECK = 2.5
"""Where a screw's shaft begins, in front of the centre of its ball (mm)."""

_AROUND = 12  # points around a screw
_PITCH_STEPS = 5  # rings a turn of thread
_MOST_RINGS = 115


@dataclass(frozen=True)
class System:
    """One maker's screws and rods: what all those of an operation have in common (mm)."""

    material: str
    rod_material: str
    rod_radius: float
    pitch: float  # of the thread
    thread: float  # depth of the thread, of the screw's radius
    core: float  # radius of the core at the tip, of its radius at the neck
    taper: float  # what the outer radius loses towards the tip, of itself
    head_radius: float
    head_above: float  # how far the head rises above the rod
    set_screw: float  # how far the set screw stands out of the head
    reach: float  # furthest angle of the head to the screw, radians; 0: they are one piece

    @property
    def seat(self) -> float:
        """From the centre of a screw's ball to that of the rod in its head."""
        return 3.4 + self.rod_radius


def make_system(rng: np.random.Generator) -> System:
    """Draw a maker and its materials: mostly titanium, with titanium or cobalt-chrome rods."""
    material = str(rng.choice(("titanium", "steel"), p=(0.93, 0.07)))
    rods = str(rng.choice(("titanium", "cobalt_chrome"), p=(0.72, 0.28)))
    rod_radius = float(rng.choice((2.75, 3.0, 3.175), p=(0.6, 0.3, 0.1)))
    return System(
        material,
        rods if material == "titanium" else material,
        rod_radius,
        float(rng.uniform(2.0, 3.0)),
        float(rng.uniform(0.17, 0.3)),
        float(rng.uniform(0.5, 0.85)),
        float(rng.choice((0.05, 0.3), p=(0.6, 0.4)) * rng.uniform(0.6, 1.3)),
        rod_radius + float(rng.uniform(3.2, 4.1)),
        float(rng.uniform(3.6, 5.6)),
        float(rng.choice((-0.3, rng.uniform(0.5, 2.5)))),
        float(np.radians(rng.choice((28.0, 0.0), p=(0.85, 0.15)))),
    )


def pointing(origin: np.ndarray, axis: np.ndarray, beside: np.ndarray) -> Frame:
    """The frame at `origin` with the first axis along `axis` and the second nearest `beside`."""
    first = axis / np.linalg.norm(axis)
    second = beside - (beside @ first) * first
    second /= np.linalg.norm(second)
    return Frame(np.asarray(origin, float), np.array([first, second, np.cross(first, second)]))


def placed(solids: Solids, frame: Frame) -> Solids:
    """Solids drawn in `frame`, in patient coordinates."""
    return tuple((material, mesh.placed(frame)) for material, mesh in solids)


def screw_shaft(
    system: System, radius: float, length: float, start: float = NECK, stop: float | None = None
) -> Mesh:
    """A screw's threaded shaft on the first axis: the ball's centre at 0, the tip at `length`.

    The core is conical, the thread a helix. `start` and `stop` (mm, default the tip) cut a piece
    out, for broken screws.
    """
    stop = length if stop is None else stop
    step = max(system.pitch / _PITCH_STEPS, (stop - start) / _MOST_RINGS)
    x = np.append(np.arange(start, stop, step), stop)
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    turns = x[:, None] / system.pitch - angle / (2 * np.pi)
    # Trapezoids: a narrow crest, flanks, and a root as wide as the crest.
    crest = np.clip(1.5 * np.abs(2 * (turns % 1.0) - 1.0) - 0.25, 0.0, 1.0)
    part = (x / length)[:, None]
    outer = radius * (1 - system.taper * part**2)
    core = radius * (1 - system.thread) * (1 - (1 - system.core) * part)
    # The thread runs out at the neck and at the pointed tip.
    runs = np.clip((x - NECK - 1.0) / 3.0, 0.0, 1.0)[:, None]
    point = np.sqrt(np.clip((length - x) / 5.0, 0.02, 1.0))[:, None]
    reach = point * (core + (outer - core) * crest * runs)
    rings = np.empty((len(x), _AROUND, 3))
    rings[..., 0] = x[:, None]
    rings[..., 1] = reach * np.cos(angle)
    rings[..., 2] = reach * np.sin(angle)
    return loft(rings)


def head(system: System) -> Mesh:
    """A tulip head: first axis away from the bone, second along the rod, the ball's centre at 0.

    A cup with two walls that hold the rod, and the set screw with its socket above the rod.
    """
    radius, half = system.head_radius, system.rod_radius + 0.25
    floor = system.seat - system.rod_radius
    top = system.seat + system.rod_radius + system.head_above
    cup = lathe([(-3.0, 0.6 * radius), (-2.0, 0.9 * radius), (-0.8, radius), (floor, radius)])
    angle = np.linspace(np.arcsin(half / radius), np.pi - np.arcsin(half / radius), 7)
    segment = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    walls = [
        loft([np.column_stack([np.full(len(segment), x), segment * side]) for x in (floor, top)])
        for side in (-1, 1)
    ]
    low, high = system.seat + system.rod_radius + 0.1, top + system.set_screw
    cap = lathe([(low, half), (high, half), (high, 1.9), (high - 2.4, 1.7)], 12)
    return join([cup, *walls, cap])


def hook_blade() -> Mesh:
    """A laminar hook in front of a head (same frame); its blade turns along the rod."""
    angle = np.linspace(0, 0.55 * np.pi, 7)
    bend = np.column_stack([-9.0 - 4.5 * np.sin(angle), 4.5 * (1 - np.cos(angle))])
    path = np.vstack([[(-2.0, 0.0), (-6.0, 0.0)], bend, [(-12.5, 10.5)]])
    return tube(np.insert(path, 2, 0.0, axis=1), np.array([[2.6, 1.1]] * len(path)), 10)


def wire(system: System) -> Mesh:
    """A twisted wire round a rod and the lamina in front of it; axes as those of a head."""
    angle = np.linspace(0, 2 * np.pi, 25)
    loop = np.column_stack(
        [7.5 * np.cos(angle) - 4.0, (system.rod_radius + 3.0) * np.sin(angle), 0.4 * angle - 1.2]
    )
    turn = np.linspace(0, 6 * np.pi, 25)
    tail = np.column_stack([3.5 + 0.3 * turn, 0.7 * np.cos(turn), 0.7 * np.sin(turn)])
    return join([tube(loop, 0.55, 6), tube(tail, 0.55, 6)])


def footprint(
    depth: float, width: float, power: float = 2.0, bend: float = 0.0, count: int = 40
) -> np.ndarray:
    """A plan (count x 2: mm anterior and right), anticlockwise seen from above.

    An ellipse (`power` 2) or rounder to squarer block (4 and more), whose ends lie `bend` mm
    behind its middle: the banana of a transforaminal cage.
    """
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    sine, cosine = np.sin(angle), np.cos(angle)
    anterior = np.sign(sine) * np.abs(sine) ** (2 / power)
    right = np.sign(cosine) * np.abs(cosine) ** (2 / power)
    return np.column_stack([anterior * depth / 2 + bend * (0.5 - right**2), right * width / 2])


def hoop(outer: np.ndarray, inner: np.ndarray, floor: Surface, roof: Surface) -> Mesh:
    """A ring between two plans (N x 2, see :func:`footprint`) and two heights."""
    around = len(outer)
    corners = [(outer, roof), (inner, roof), (inner, floor), (outer, floor)]
    rings = np.stack([np.insert(p, 1, height(p), axis=1) for p, height in corners], axis=1)
    here = np.arange(around)[:, None] * 4
    after = np.roll(here, -1, axis=0)
    i, j = np.arange(4), np.roll(np.arange(4), -1)
    a, b, c, d = here + i, after + i, after + j, here + j
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
    return Mesh(rings.reshape(-1, 3), faces.astype(np.int32))


def slab(plan: np.ndarray, floor: Surface, roof: Surface) -> Mesh:
    """A solid between two heights above a plan (N x 2) that its centre sees all of."""
    return loft([np.insert(plan, 1, height(plan), axis=1) for height in (floor, roof)])


def cage(
    rng: np.random.Generator, plan: np.ndarray, inner: np.ndarray, half: Surface, kind: str
) -> Solids:
    """An interbody cage between the heights -`half` and `half` over a ring-shaped plan.

    Args:
        plan, inner: its outer and inner outline (N x 2 each), N a multiple of 8.
        half: half its height.
        kind: "peek" (lucent, with tantalum pins or beads), "solid" or "windowed" (titanium), or
            "parts": two titanium shells on a spindle, as of an expandable cage.
    """
    count = len(plan)

    def scaled(part: float) -> Surface:
        return lambda places: part * half(places)

    def less(thickness: float, sign: int = 1) -> Surface:
        return lambda places: sign * (half(places) - thickness)

    if kind == "peek":
        return (
            ("peek", hoop(plan, inner, scaled(-1), scaled(1))),
            ("tantalum", _markers(rng, (plan + inner) / 2, half)),
        )
    if kind == "solid":
        return (("titanium", hoop(plan, inner, scaled(-1), scaled(1))),)
    if kind == "parts":
        shells = [
            hoop(plan, inner, scaled(0.3), scaled(1)),
            hoop(plan, inner, scaled(-1), scaled(-0.3)),
        ]
        middle = plan.mean(axis=0)
        tall = float(half(middle[None])[0]) * 0.8
        narrow = np.linalg.norm(plan - middle, axis=1).min()
        spindle = slab(footprint(narrow, narrow, count=12) + middle, lambda p: -tall + 0 * p[:, 0],
                       lambda p: tall + 0 * p[:, 0])  # fmt: skip
        return (("titanium", join([*shells, spindle])),)
    rim = rng.uniform(1.2, 1.9)
    parts = [hoop(plan, inner, less(rim), scaled(1)), hoop(plan, inner, scaled(-1), less(rim, -1))]
    # Posts between the rims: the windows of the walls.
    posts = int(rng.choice((4, 8)))
    width = int(count / posts * rng.uniform(0.3, 0.5))
    for first in np.arange(posts) * (count // posts):
        chosen = np.arange(first, first + width + 1) % count
        post = np.vstack([plan[chosen], inner[chosen[::-1]]])
        parts.append(slab(post, less(rim, -1), less(rim)))
    return (("titanium", join(parts)),)


def _markers(rng: np.random.Generator, line: np.ndarray, half: Surface) -> Mesh:
    """Three or four pins or beads of tantalum in the wall of a cage."""
    count = len(line)
    pattern = ((1, 3, 6), (2, 6), (1, 3, 5, 7), (2, 5, 7))[rng.integers(4)]
    places = line[[count * p // 8 for p in pattern]]
    beads = rng.random() < 0.35
    radius = rng.uniform(0.6, 0.85) if beads else rng.uniform(0.4, 0.6)
    parts = []
    for place, tall in zip(places, half(places) - 1.0, strict=True):
        if beads:
            parts.append(_moved(ellipsoid([radius] * 3, 8), place))
        else:
            ends = [(place[0], -tall, place[1]), (place[0], tall, place[1])]
            parts.append(tube(ends, radius, 8))
    return join(parts)


def disc_prosthesis(rng: np.random.Generator, plan: np.ndarray, half: Surface) -> Solids:
    """Two metal endplates with keels, and a plastic core between their domes."""
    metal = str(rng.choice(("cobalt_chrome", "titanium")))
    thick, keel = rng.uniform(1.6, 2.4), rng.uniform(3.0, 5.0)
    middle = plan.mean(axis=0)
    tall = float(half(middle[None])[0])
    reach = 0.3 * float(np.ptp(plan[:, 0]))
    gap = max(tall - thick, 0.8)
    parts = []
    for sign in (-1, 1):
        parts.append(
            slab(plan, lambda p, s=sign: s * (half(p) - thick), lambda p, s=sign: s * half(p))
        )
        near, far = sorted((sign * (tall - 0.5), sign * (tall + keel)))
        parts.append(
            box(
                (middle[0] - reach, near, middle[1] - 0.8),
                (middle[0] + reach, far, middle[1] + 0.8),
            )
        )
    core = ellipsoid((reach, gap, reach * 1.2), 16)
    return ((metal, join(parts)), ("peek", _moved(core, middle)))


def interspinous(rng: np.random.Generator, gap: float) -> Solids:
    """A spacer between two spinous processes `gap` mm apart: a U of titanium, or a winged block."""
    half = gap / 2
    if rng.random() < 0.5:
        angle = np.linspace(0.5 * np.pi, 1.5 * np.pi, 11)
        bend = np.column_stack([-half * np.cos(angle), half * np.sin(angle)])
        path = np.vstack([[(-14.0, half)], bend, [(-14.0, -half)]])
        arch = tube(np.insert(path, 2, 0.0, axis=1), np.array([[4.5, 0.9]] * len(path)), 12)
        wings = [
            box((-13.0, sign * half + min(0, sign * 7), side - 0.7),
                (-5.0, sign * half + max(0, sign * 7), side + 0.7))
            for sign in (-1, 1) for side in (-4.5, 4.5)
        ]  # fmt: skip
        return (("titanium", join([arch, *wings])),)
    material = str(rng.choice(("titanium", "peek")))
    wings = [
        slab_across(footprint(10.0, gap + 16.0, 2.5, count=20), side, 1.6) for side in (-11.0, 11.0)
    ]
    core = slab_across(footprint(9.0, gap, 2.5, count=20), 0.0, 20.4)
    return (("titanium", join(wings)), (material, core))


def slab_across(plan: np.ndarray, at: float, thickness: float) -> Mesh:
    """A plate across the right-left axis: a plan (N x 2: mm anterior and cranial), thickened."""
    return loft([np.insert(plan, 2, z, axis=1) for z in (at - thickness / 2, at + thickness / 2)])


def blob(rng: np.random.Generator, radii: np.ndarray, segments: int = 20) -> Mesh:
    """A lobed lump of cement within an ellipsoid of the given half-axes (3, mm)."""
    mesh = ellipsoid((1.0, 1.0, 1.0), segments)
    waves = rng.normal(0.0, 2.2, (6, 3))
    phase = rng.uniform(0, 2 * np.pi, 6)
    noise = np.sin(mesh.vertices @ waves.T + phase).sum(axis=1) / 6
    reach = np.clip(0.78 + 0.45 * noise, 0.35, 1.0)[:, None]
    return Mesh(mesh.vertices * reach * radii, mesh.faces)


def body_replacement(rng: np.random.Generator, length: float, tilts: tuple[float, float]) -> Solids:
    """A corpectomy cage about the cranial axis, its middle at the origin.

    Args:
        rng: its style: an expandable strut with end caps, or a cylinder of titanium mesh.
        length: mm between the endplates that it stands on.
        tilts: slopes of its upper and lower ends (mm cranial a mm anterior).
    """
    end = rng.uniform(9.5, 12.5)
    upper, lower = tilts

    def level(height: float, slope: float) -> Surface:
        return lambda p: height + slope * p[:, 0]

    half = length / 2
    if rng.random() < 0.3:
        radius = end - 1.0
        plan, inner = footprint(2 * radius, 2 * radius), footprint(2 * radius - 3, 2 * radius - 3)
        heights = np.linspace(-half, half, max(3, round(length / 5.0)))
        parts = []
        for height in heights:
            slope = lower + (upper - lower) * (height + half) / length
            parts.append(hoop(plan, inner, level(height - 0.7, slope), level(height + 0.7, slope)))
        for first in range(0, 40, 5):
            chosen = np.array([first, first + 1])
            post = np.vstack([plan[chosen], inner[chosen[::-1]]])
            parts.append(slab(post, level(-half, lower), level(half, upper)))
        return (("titanium", join(parts)),)
    cap = rng.uniform(2.0, 3.5)
    plan = footprint(2 * end, rng.uniform(2.0, 2.6) * end, 2.6)
    caps = [
        slab(plan, level(half - cap, upper), level(half, upper)),
        slab(plan, level(-half, lower), level(cap - half, lower)),
    ]
    stroke = rng.uniform(-0.15, 0.3) * half
    wide, thin = rng.uniform(7.5, 9.0), rng.uniform(5.5, 7.0)
    low, high = cap - half, half - cap
    # The outer sleeve below, the threaded stem above it.
    ridges = np.arange(stroke, high, 0.75)
    stem = np.column_stack([ridges, thin - 0.5 * (np.arange(len(ridges)) % 2)])
    profile = [(low, wide), (stroke - 4.0, wide), (stroke - 4.0, wide + 1.0), (stroke, wide + 1.0)]
    strut = lathe([*profile, *stem, (high, thin)])
    upright = Frame(np.zeros(3), np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    return (("titanium", join([*caps, strut.placed(upright)])),)


def _moved(mesh: Mesh, place: np.ndarray) -> Mesh:
    """A mesh moved to a place (2: mm anterior and right) in the disc space."""
    return Mesh(mesh.vertices + np.insert(place, 1, 0.0), mesh.faces)
