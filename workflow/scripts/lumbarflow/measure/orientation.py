"""Where a patient faces on a lateral film, told from the bodies and the hardware.

Lateral films are taken from either side and shown either way round, and nothing in their header is
certain (the laterality is of the side next to the detector). But lumbar spines are hollow behind,
the sacrum turns backwards, and rods and the heads of screws lie behind the bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..annotate.agreement import corners
from ..annotate.spine import course
from .anatomy import Body, Implant
from .shape import area, centroid, chain_directions, contour_of

#: Log odds that the patient faces right for each of the cues of :func:`cues`: a logistic regression
#: without intercept (mirrored films face the other way just as surely) on synthetic patients,
#: diseased and operated, of whom bodies were left out at random.
WEIGHTS = np.array([8.0, 8.0, 4.0, 3.0, 3.0])


def facing(bodies: Sequence[Body], implants: Iterable[Implant] = ()) -> tuple[str, float]:
    """Which way the patient faces.

    Args:
        bodies: of the film, in any order.
        implants: its hardware; cages tell nothing.

    Returns:
        `left` or `right`, and how probable that is, 0.5 (nothing tells; then `right`) to 1.
    """
    odds = float(cues(bodies, implants) @ WEIGHTS)
    probability = 1 / (1 + np.exp(-min(abs(odds), 30.0)))
    return ("right" if odds >= 0 else "left"), float(probability)


def cues(bodies: Sequence[Body], implants: Iterable[Implant] = ()) -> np.ndarray:
    """What tells where the patient faces; a mirrored film has the same cues with the other sign.

    Returns:
        Five numbers, 0 where there is nothing to see, positive if the patient seems to face right:
        how far the line through the lumbar bodies turns backwards from its upper to its lower end,
        and on from there to the sacrum; by how much the bodies themselves are turned from the
        uppermost to the lowest (radians, at most about 1); and how far screws and other hardware
        lie behind the bodies, in diameters of a body, at most 1.
    """
    seen = [(body, contour) for body in bodies if (contour := contour_of(body)) is not None]
    found = np.zeros(5)
    if not seen:
        return found
    centres = np.array([centroid(contour) for _, contour in seen])
    chain, _ = course(centres)
    seen, centres = [seen[k] for k in chain], centres[chain]
    sacral = np.array([body.class_name == "sacral_vertebra" for body, _ in seen])
    steps = np.diff(centres, axis=0)
    heading = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    lumbar = heading[~sacral[1:]]
    if len(lumbar) > 1:
        found[0] = lumbar[-1] - lumbar[0]
    if len(lumbar) and sacral[1:].any():
        found[1] = heading[sacral[1:]].mean() - lumbar[-1]
    tilts = [_tilt(contour) for (_, contour), low in zip(seen, sacral, strict=True) if not low]
    tilts = [tilt for tilt in tilts if tilt is not None]
    if len(tilts) > 1:
        found[2] = tilts[-1] - tilts[0]
    found[:3] = np.clip(found[:3], -1, 1)

    size = float(np.median([np.sqrt(abs(area(contour))) for _, contour in seen]))
    _, rightwards = chain_directions(centres, "right")
    offsets: dict[bool, list[float]] = {True: [], False: []}
    for implant in implants:
        if implant.class_name == "cage" or len(implant.outline) < 3:
            continue
        away = np.asarray(implant.outline, float).mean(axis=0) - centres
        nearest = int(np.hypot(*away.T).argmin())
        offset = float(away[nearest] @ rightwards[nearest]) / size
        offsets[implant.class_name == "screw"].append(float(np.clip(-offset, -1, 1)))
    found[3] = np.mean(offsets[True]) if offsets[True] else 0.0
    found[4] = np.mean(offsets[False]) if offsets[False] else 0.0
    return found


def _tilt(contour: np.ndarray) -> float | None:
    """How far a body's endplates fall to the right, radians from -pi/4 to pi/4."""
    four = corners(contour)
    if four is None:
        return None
    # The endplates are the pair of sides that lie more level.
    sides = np.roll(four, -1, axis=0) - four
    pairs = [sides[0] - sides[2], sides[1] - sides[3]]
    across = max(pairs, key=lambda side: abs(side[0]) / max(np.hypot(*side), 1e-9))
    return float(np.arctan(across[1] / across[0])) if across[0] else 0.0
