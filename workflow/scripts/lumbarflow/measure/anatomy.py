"""The words in which the parts of this stage speak: bodies, their shapes, the spine, measurements.

Points are (x, y) = (column, row) in pixels of the film, whole numbers at the corners of pixels, as
in annotations: the centre of the upper left pixel is (0.5, 0.5).

"Superior" and "inferior", "anterior" and "posterior" are the patient's, wherever they lie on the
film; corners always come in the order of :data:`CORNERS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CORNERS = ("posterior_superior", "anterior_superior", "anterior_inferior", "posterior_inferior")
STATUSES = ("measured", "uncertain", "not_measurable")


@dataclass(frozen=True, eq=False)
class Body:
    """A vertebral or sacral body, as one network or annotator sees it.

    Attributes:
        instance_id: as in the table of predictions, or the record's structure_id.
        class_name: `lumbar_vertebra` or `sacral_vertebra`.
        score: 0 to 1; 1 for what was drawn.
        origin: x, y of the window's upper left pixel on the film.
        mask: the window, rows x columns bool; empty rows and columns round it are allowed.
        outline: N x 2 points as drawn, where there are any; more exact than the mask.
        level: as drawn by an annotator; None on predictions.
        repair: what was done to it: "" nothing, `split` from a fused one, or `merged` of pieces.
    """

    instance_id: str
    class_name: str
    score: float
    origin: tuple[int, int]
    mask: np.ndarray
    outline: np.ndarray | None = None
    level: str | None = None
    repair: str = ""


@dataclass(frozen=True, eq=False)
class Endplate:
    """A body's upper or lower side.

    Attributes:
        posterior, anterior: 2, px: where the fitted line meets the body's two walls.
        middle: 2, px: the contour half-way between them, in a hollow or on a hump.
        residual_px: root mean square distance of the contour from the fitted curve where it was
            fitted.
        support: 0 to 1: the share of the width on which the contour follows the fitted curve.
    """

    posterior: np.ndarray
    anterior: np.ndarray
    middle: np.ndarray
    residual_px: float
    support: float


@dataclass(frozen=True, eq=False)
class Osteophyte:
    """A bony spur at a corner of :data:`CORNERS`.

    Attributes:
        corner: which.
        tip: 2, px.
        length_px: how far the tip lies beyond the wall.
        area_px: its area in square pixels.
    """

    corner: str
    tip: np.ndarray
    length_px: float
    area_px: float


@dataclass(frozen=True, eq=False)
class Shape:
    """A body's geometry; lines and corners leave osteophytes out.

    Attributes:
        contour: N x 2, px, smooth, not repeating the first point.
        superior, inferior: the endplates. A sacral body has both; only its superior one counts.
        osteophytes: found ones.
        quality: 0 to 1: how far the contour looks like that of one body, seen whole.
        cut: whether the body touches the edge of the film.
    """

    contour: np.ndarray
    superior: Endplate
    inferior: Endplate
    osteophytes: tuple[Osteophyte, ...]
    quality: float
    cut: bool

    @property
    def corners(self) -> np.ndarray:
        """4 x 2, px, in the order of :data:`CORNERS`."""
        return np.array(
            [
                self.superior.posterior,
                self.superior.anterior,
                self.inferior.anterior,
                self.inferior.posterior,
            ]
        )


@dataclass(frozen=True, eq=False)
class Vertebra:
    """A body of the chain, with its level.

    Attributes:
        body: the mask.
        level: the most probable one of T10 to L6, S1, S2; None where none is.
        level_probability: of `level`, 0 to 1.
        shape: None where the contour has no shape of a body.
    """

    body: Body
    level: str | None
    level_probability: float
    shape: Shape | None


@dataclass(frozen=True, eq=False)
class Implant:
    """A cage, screw or other hardware: class_name, score, and the largest outline, N x 2 in px."""

    instance_id: str
    class_name: str
    score: float
    outline: np.ndarray
    level: str | None = None


@dataclass(frozen=True, eq=False)
class LabelledSpine:
    """A film's chain of bodies and what stands on it.

    Attributes:
        rows, columns: of the film.
        vertebrae: from cranial to caudal.
        anterior: where the patient faces on the film: `left` or `right`.
        anterior_probability: 0.5 to 1.
        sacrum_seen: whether S1 is among the vertebrae with certainty.
        flags: what a reader should know, in words of :mod:`.levels`: such as `possible_l6`.
        implants: hardware on the film.
    """

    rows: int
    columns: int
    vertebrae: tuple[Vertebra, ...]
    anterior: str
    anterior_probability: float
    sacrum_seen: bool
    flags: tuple[str, ...] = ()
    implants: tuple[Implant, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """A row of `measurements/{source}.parquet`, but for its film.

    Attributes:
        name: such as `lordosis`; see docs/reference/measurements.md.
        site: such as `L1-S1`, `L4/L5` or `L3`.
        value: None where nothing can be measured.
        unit: `deg`, `mm`, `px`, `%` or `1`.
        confidence: 0 to 1: how probable it is that the value lies within the tolerance of its kind.
        status: one of :data:`STATUSES`.
        reason: why it is not `measured`, in words for the reader; otherwise empty.
        features: what the confidence is computed from; not in the table.
    """

    name: str
    site: str
    value: float | None
    unit: str
    confidence: float
    status: str
    reason: str = ""
    features: dict[str, float] = field(default_factory=dict, compare=False, hash=False)
