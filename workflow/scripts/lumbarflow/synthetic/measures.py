"""The truth of a synthetic film: what is measured on the spine in three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..measure.anatomy import CORNERS
from ..measure.geometry import measure
from .projection import Beam
from .spine import Spine


def true_measurements(spine: Spine, beam: Beam, anterior: str) -> list[dict[str, Any]]:
    """Exact measurements of a patient before a detector, and the corners in pixels.

    Lengths are mm in the patient. Besides what :func:`.geometry.measure` tells: per corner
    `corner_x` and `corner_y` (px, whole numbers at the corners of pixels; site as in
    "L4 anterior_superior").
    """
    # Patients lean a little: up is where the film's top is, not where the patient's head is.
    front = beam.right if anterior == "right" else -beam.right
    axes = np.column_stack([front, beam.down, beam.along])
    chain = [*spine.vertebrae, spine.sacrum[0]]
    corners = {v.level: v.corners @ axes for v in chain}
    hollows = {v.level: v.hollows @ axes for v in chain}
    found = measure(corners, [v.level for v in chain], hollows)
    for vertebra in chain:
        for name, (x, y) in zip(CORNERS, beam.project(vertebra.corners), strict=True):
            if vertebra.level == "S1" and name.endswith("inferior"):
                continue
            for axis, value in (("x", x), ("y", y)):
                site = f"{vertebra.level} {name}"
                at = float(value + 0.5)
                found.append({"name": f"corner_{axis}", "site": site, "value": at, "unit": "px"})
    return found
