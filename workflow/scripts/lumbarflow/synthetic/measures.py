"""What can be measured on a spine whose corners are known: angles, heights, slip.

The same formulas serve the truth (corners in three dimensions, mm) and outlines on a film (corners
in two, in pixels of known size). Every vertebra has four corners in this order: posterior-superior,
anterior-superior, anterior-inferior, posterior-inferior; of the sacrum only the upper two count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .projection import Beam
from .spine import Spine

CORNERS = ("posterior_superior", "anterior_superior", "anterior_inferior", "posterior_inferior")


def measure(corners: Mapping[str, np.ndarray], order: Sequence[str]) -> list[dict[str, Any]]:
    """Everything that the corners tell.

    Args:
        corners: level to 4 x 2 or 4 x 3 coordinates in mm; the first axis points to the patient's
            front, the second downwards, and a third, if any, sideways.
        order: the levels from cranial to caudal, down to S1.

    Returns:
        Dictionaries of `name`, `site`, `value` and `unit`. Angles are seen from the side and
        positive where the spine is lordotic:

        - `lordosis` (L1-S1), between the upper endplates of L1 and S1;
        - `sacral_slope` (S1), of the upper endplate against the horizontal;
        - `disc_angle` (L4/L5), between the endplates that face the disc;
        - `segmental_angle` (L4/L5), from the upper endplate of the upper vertebra to the lower one
          of the lower vertebra, or to the upper one of S1;
        - `body_height_anterior`, `_posterior` (L4), and their quotient, `wedge_ratio`;
        - `disc_height_anterior`, `_posterior` (L4/L5): the distance of the upper vertebra's lower
          corner from the line of the lower vertebra's upper endplate;
        - `slip` (L4/L5): how far the lower back corner of the upper vertebra lies in front of the
          upper back corner of the lower one, along the latter's endplate; `slip_percent` of its
          depth; `slip_grade` after Meyerding (Surg Gynecol Obstet 1932;54:371), 0 to 5.
    """
    found: list[dict[str, Any]] = []

    def add(name: str, site: str, value: float, unit: str) -> None:
        found.append({"name": name, "site": site, "value": float(value), "unit": unit})

    present = [level for level in order if level in corners]
    upper = {level: _tilt(corners[level][0], corners[level][1]) for level in present}
    lower = {level: _tilt(corners[level][3], corners[level][2]) for level in present}
    if {"L1", "S1"} <= upper.keys():
        add("lordosis", "L1-S1", upper["S1"] - upper["L1"], "deg")
    if "S1" in upper:
        add("sacral_slope", "S1", upper["S1"], "deg")
    for level in present:
        if level.startswith("S"):
            continue
        front = np.linalg.norm(corners[level][1] - corners[level][2])
        back = np.linalg.norm(corners[level][0] - corners[level][3])
        add("body_height_anterior", level, front, "mm")
        add("body_height_posterior", level, back, "mm")
        add("wedge_ratio", level, front / back, "1")
    for above, below in pairwise(order):
        if above not in upper or below not in upper or above.startswith("S"):
            continue
        site = f"{above}/{below}"
        add("disc_angle", site, upper[below] - lower[above], "deg")
        end = upper[below] if below == "S1" else lower[below]
        add("segmental_angle", site, end - upper[above], "deg")
        plate = corners[below][1] - corners[below][0]
        depth = np.linalg.norm(plate)
        plate = plate / depth
        for part, corner in (("anterior", 2), ("posterior", 3)):
            away = corners[above][corner] - corners[below][0]
            gap = np.linalg.norm(away - (away @ plate) * plate)
            add(f"disc_height_{part}", site, gap, "mm")
        slip = (corners[above][3] - corners[below][0]) @ plate
        share = 100 * slip / depth
        add("slip", site, slip, "mm")
        add("slip_percent", site, share, "%")
        # Less than a twentieth is within what people are born with.
        add("slip_grade", site, 0 if abs(share) < 5 else min(5, abs(share) // 25 + 1), "1")
    return found


def true_measurements(spine: Spine, beam: Beam, anterior: str) -> list[dict[str, Any]]:
    """Exact measurements of a patient before a detector, and the corners in pixels.

    Besides what :func:`measure` tells: `body_height_middle` between the hollows of the endplates,
    `disc_height_middle` between those that face the disc, and per corner `corner_x` and `corner_y`
    (px, whole numbers at the corners of pixels; site as in "L4 anterior_superior").
    """
    # Patients lean a little: up is where the film's top is, not where the patient's head is.
    front = beam.right if anterior == "right" else -beam.right
    axes = np.column_stack([front, beam.down, beam.along])
    chain = [*spine.vertebrae, spine.sacrum[0]]
    order = [v.level for v in chain]
    found = measure({v.level: v.corners @ axes for v in chain}, order)

    def add(name: str, site: str, value: float, unit: str) -> None:
        found.append({"name": name, "site": site, "value": float(value), "unit": unit})

    for vertebra in spine.vertebrae:
        height = np.linalg.norm(vertebra.hollows[0] - vertebra.hollows[1])
        add("body_height_middle", vertebra.level, height, "mm")
    for above, below in pairwise(chain):
        gap = np.linalg.norm(above.hollows[1] - below.hollows[0])
        add("disc_height_middle", f"{above.level}/{below.level}", gap, "mm")
    for vertebra in chain:
        for name, (x, y) in zip(CORNERS, beam.project(vertebra.corners), strict=True):
            if vertebra.level == "S1" and name.endswith("inferior"):
                continue
            add("corner_x", f"{vertebra.level} {name}", x + 0.5, "px")
            add("corner_y", f"{vertebra.level} {name}", y + 0.5, "px")
    return found


def _tilt(back: np.ndarray, front: np.ndarray) -> float:
    """How many degrees the front end of an endplate lies lower."""
    across = front - back
    return float(np.degrees(np.arctan2(across[1], across[0])))
