"""What surgeons put into a disc: the size, shape and place of cages and disc prostheses.

Plans are N x 2 (mm anterior and right of the disc's centre), see :func:`implants.footprint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import implants as shapes
from .implants import Solids, Surface

if TYPE_CHECKING:
    from .anatomy import Disc


def draw_cages(
    rng: np.random.Generator, discs: Sequence[Disc], share: float, approach: str | None = None
) -> list[tuple[str, Solids]]:
    """Cages of one approach and material in a share of the discs.

    Args:
        rng: draws them.
        discs: those of the fused segments.
        share: how likely a disc is to get a cage.
        approach: "tlif" (one cage, banana-shaped or oblique), "plif" (two blocks side by side),
            "alif" (one wide block), "llif" (one across the whole disc), or None to draw it.

    Returns:
        Level and solids (patient coordinates) of each cage; two a disc for "plif".
    """
    approaches = ("tlif", "plif", "alif", "llif")
    drawn = str(rng.choice(approaches, p=(0.42, 0.28, 0.17, 0.13)))
    kind = str(rng.choice(("peek", "solid", "windowed", "parts"), p=(0.42, 0.16, 0.34, 0.08)))
    return [
        (disc.level, shapes.placed(solids, disc.frame))
        for disc in discs
        if rng.random() < share
        for solids in _cage_solids(rng, disc, approach or drawn, kind)
    ]


def draw_prosthesis(rng: np.random.Generator, disc: Disc) -> Solids:
    """A disc prosthesis in the middle of a disc, in patient coordinates."""
    plan = shapes.footprint(disc.depth * rng.uniform(0.68, 0.8), disc.width * 0.66, 2.6)
    place = np.array([rng.uniform(-1.0, 2.0), rng.normal(0.0, 1.0)])
    (plan,) = _inside([plan + place], disc)
    middle = max(disc.height / 2 + rng.uniform(0.0, 0.5), 3.5)
    slope = np.tan(np.clip(disc.wedge, -0.05, 0.25) / 2)
    solids = shapes.disc_prosthesis(rng, plan, lambda p: np.maximum(middle + slope * p[:, 0], 3.0))
    return shapes.placed(solids, disc.frame)


def _cage_solids(rng: np.random.Generator, disc: Disc, approach: str, kind: str) -> list[Solids]:
    side = float(rng.choice((-1.0, 1.0)))
    wall = rng.uniform(1.6, 2.6)
    # Depth, width, squareness, bend; then yaw (radians) and place (mm anterior and right).
    if approach == "tlif" and rng.random() < 0.65:
        size = (rng.uniform(9.5, 12.0), rng.uniform(26.0, 33.0), 3.5, rng.uniform(4.0, 7.0))
        blocks = [(side * np.radians(rng.uniform(-15, 50)), disc.depth * rng.uniform(0, 0.2),
                   side * rng.uniform(0, 4))]  # fmt: skip
    elif approach == "tlif":
        size = (rng.uniform(25.0, 30.0), rng.uniform(9.5, 11.5), 5.0, 0.0)
        blocks = [(side * np.radians(rng.uniform(25, 55)), disc.depth * rng.uniform(-0.05, 0.1),
                   side * rng.uniform(0, 4))]  # fmt: skip
    elif approach == "plif":
        size = (rng.uniform(21.0, 26.0), rng.uniform(9.0, 11.0), 6.0, 0.0)
        blocks = [(s * np.radians(rng.uniform(-2, 10)), disc.depth * rng.uniform(-0.1, 0.1),
                   s * rng.uniform(7.5, 10.0)) for s in (-1.0, 1.0)]  # fmt: skip
    elif approach == "alif":
        size = (disc.depth * rng.uniform(0.64, 0.78), disc.width * rng.uniform(0.58, 0.72),
                rng.uniform(2.5, 3.5), 0.0)  # fmt: skip
        blocks = [(rng.normal(0, 0.05), disc.depth * rng.uniform(0, 0.1), rng.normal(0, 1.5))]
        wall *= 1.5
    else:
        size = (rng.uniform(17.0, 22.0), disc.width * rng.uniform(0.86, 0.96), 5.0, 0.0)
        blocks = [(rng.normal(0, 0.08), disc.depth * rng.uniform(-0.05, 0.12), 0.0)]
    depth, width, power, bend = size
    outer = shapes.footprint(depth, width, power, bend)
    inner = shapes.footprint(depth - 2 * wall, width - 2 * wall, power, bend)
    half = _cage_height(rng, disc)
    solids = []
    for yaw, *place in blocks:
        turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        plans = [plan @ turn + place for plan in (outer, inner)]
        solids.append(shapes.cage(rng, *_inside(plans, disc), half, kind))
    return solids


def _cage_height(rng: np.random.Generator, disc: Disc) -> Surface:
    """Half the height of a cage: it fills the disc and sinks a little into its endplates."""
    middle = max(disc.height / 2 + rng.uniform(-0.2, 0.7), 2.8)
    slope = np.tan(np.clip(disc.wedge * rng.uniform(0.6, 1.0), -0.05, 0.35) / 2)
    tooth, pitch = rng.choice((0.0, 0.35, 0.6)), rng.uniform(2.0, 3.0)

    def half(places: np.ndarray) -> np.ndarray:
        anterior = places[:, 0]
        teeth = tooth * ((anterior / pitch) % 1.0 - 0.5)
        return np.maximum(middle + slope * anterior, 2.6) + teeth

    return half


def _inside(plans: list[np.ndarray], disc: Disc) -> list[np.ndarray]:
    """Plans (the first is the outer one) moved, and if need be shrunk, into a disc's footprint."""
    reach = np.array([disc.depth, disc.width]) / 2

    def sticks_out() -> bool:
        return bool(((np.abs(plans[0] / reach) ** 2.5).sum(axis=1) > 0.96).any())

    for _ in range(12):
        if not sticks_out():
            return plans
        plans = [plan - 0.2 * plans[0].mean(axis=0) for plan in plans]
    while sticks_out():
        plans = [0.97 * plan for plan in plans]
    return plans
