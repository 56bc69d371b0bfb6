"""What the corners of vertebral bodies tell: angles, heights, ratios and slips.

The same formulas serve the truth of synthetic films (corners in three dimensions, mm) and outlines
on a film (in two, pixels). Every name, with its source: docs/reference/measurements.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

#: Pairs of levels between which Cobb angles are measured: thoracolumbar junction, lower arc.
COBB = (("T12", "L2"), ("L4", "S1"))
#: Least loss of height, as a fraction, of the grades 1, 2 and 3 (Genant et al. 1993).
GENANT = (0.2, 0.25, 0.4)
#: Slips of a smaller share of the depth are within what people are born with.
LEAST_SLIP_PERCENT = 5.0
#: Bodies of about the same height behind: the median of the others tells what one should have.
#: T11 is lower by nature, and so, behind, are L5 and L6.
ALIKE = ("T12", "L1", "L2", "L3", "L4")

_LORDOSIS = (("L1", "S1"), ("L1", "L5"))
_LEAST_ALIKE = 2  # bodies that a body's height can be compared with


def measure(
    corners: Mapping[str, np.ndarray],
    order: Sequence[str],
    middles: Mapping[str, np.ndarray] | None = None,
    cobb: Iterable[tuple[str, str]] = COBB,
    unit: str = "mm",
) -> list[dict[str, Any]]:
    """Everything that the corners tell.

    Args:
        corners: level to 4 x 2 or 4 x 3 coordinates in the order of :data:`.anatomy.CORNERS`; the
            first axis points to the patient's front, the second downwards, and a third, if any,
            sideways. Of the sacrum only the upper two count.
        order: the levels from cranial to caudal, down to S1; one without corners leaves a gap.
        middles: level to 2 x 2 or 2 x 3, the middle of the upper and of the lower endplate, in its
            hollow; without it there are no `_middle` heights, nor what needs them.
        cobb: upper and lower level of each `cobb` angle.
        unit: of the coordinates.

    Returns:
        Dictionaries of `name`, `site`, `value` and `unit`. Angles are seen from the side and
        positive where the spine is lordotic:

        - `lordosis` (L1-S1, L1-L5) and `cobb` (L4-S1), from the upper endplate of the upper
          vertebra to the lower one of the lower vertebra, or to the upper one of S1;
        - `sacral_slope` (S1), of the upper endplate against the horizontal;
        - `disc_angle` (L4/L5), between the endplates that face the disc;
        - `segmental_angle` (L4/L5), as `lordosis`, of neighbours;
        - `body_height_anterior`, `_middle`, `_posterior` (L4), and the quotients of the former two
          by the last, `wedge_ratio` and `biconcavity_ratio`;
        - `crush_ratio` (L4), of the height behind to the median one of the other bodies of
          :data:`ALIKE`, of which there must be two; of bodies of :data:`ALIKE` only;
        - `genant_grade` (L4), 0 to 3: see :func:`genant_grade`;
        - `disc_height_anterior`, `_posterior` (L4/L5): the distance of the upper vertebra's lower
          corner from the line of the lower vertebra's upper endplate; `_middle`: between the
          middles of the two endplates; `disc_height_index`: the mean of the anterior and posterior
          one as a share of the mean depth of the upper vertebra's two endplates;
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
    lower |= {level: tilt for level, tilt in upper.items() if level.startswith("S")}
    for name, pairs in (("lordosis", _LORDOSIS), ("cobb", cobb)):
        for above, below in pairs:
            if {above, below} <= upper.keys():
                add(name, f"{above}-{below}", lower[below] - upper[above], "deg")
    if "S1" in upper:
        add("sacral_slope", "S1", upper["S1"], "deg")
    bodies = [level for level in present if not level.startswith("S")]
    behind = {n: float(np.linalg.norm(corners[n][0] - corners[n][3])) for n in bodies}
    for level in bodies:
        front = np.linalg.norm(corners[level][1] - corners[level][2])
        back = behind[level]
        add("body_height_anterior", level, front, unit)
        add("body_height_posterior", level, back, unit)
        add("wedge_ratio", level, front / back, "1")
        others = [behind[n] for n in bodies if n != level and n in ALIKE]
        expected = back
        if level in ALIKE and len(others) >= _LEAST_ALIKE:
            expected = np.median(others)
            add("crush_ratio", level, back / expected, "1")
        if middles is None:
            continue
        middle = np.linalg.norm(middles[level][0] - middles[level][1])
        add("body_height_middle", level, middle, unit)
        add("biconcavity_ratio", level, middle / back, "1")
        add("genant_grade", level, genant_grade(front, middle, back, expected), "1")
    for above, below in pairwise(order):
        if above not in upper or below not in upper or above.startswith("S"):
            continue
        site = f"{above}/{below}"
        add("disc_angle", site, upper[below] - lower[above], "deg")
        add("segmental_angle", site, lower[below] - upper[above], "deg")
        plate = corners[below][1] - corners[below][0]
        depth = np.linalg.norm(plate)
        plate = plate / depth
        gaps = []
        for part, corner in (("anterior", 2), ("posterior", 3)):
            away = corners[above][corner] - corners[below][0]
            gaps.append(np.linalg.norm(away - (away @ plate) * plate))
            add(f"disc_height_{part}", site, gaps[-1], unit)
        if middles is not None:
            gap = np.linalg.norm(middles[above][1] - middles[below][0])
            add("disc_height_middle", site, gap, unit)
        ends = corners[above][[1, 2]] - corners[above][[0, 3]]
        add("disc_height_index", site, np.mean(gaps) / np.linalg.norm(ends, axis=1).mean(), "1")
        slip = (corners[above][3] - corners[below][0]) @ plate
        share = 100 * slip / depth
        add("slip", site, slip, unit)
        add("slip_percent", site, share, "%")
        small = abs(share) < LEAST_SLIP_PERCENT
        add("slip_grade", site, 0 if small else min(5, abs(share) // 25 + 1), "1")
    return found


def genant_grade(anterior: float, middle: float, posterior: float, expected: float) -> int:
    """Grade of a fracture by the greatest loss of height (Genant et al., 1993;8:1137).

    The losses of the three shapes: wedge and biconcave, of the heights in front and in the middle
    against that behind; crush, of the height behind against the expected one.

    Args:
        anterior, middle, posterior: heights of the body, in any one unit.
        expected: height behind that it should have, as other bodies of the patient have it.

    Returns:
        0 for less than 20 %; 1, mild, from 20; 2, moderate, from 25; 3, severe, from 40 %.
    """
    left = min(anterior / posterior, middle / posterior, posterior / expected)
    return int(np.searchsorted(GENANT, 1 - left, side="right"))


def _tilt(back: np.ndarray, front: np.ndarray) -> float:
    """How many degrees the front end of an endplate lies lower."""
    across = front - back
    return float(np.degrees(np.arctan2(across[1], across[0])))
