"""Everything measured on one film's spine, with what supports each value in the picture.

What should be there is always told: a value that the picture does not support is a row
`not_measurable` with the reason. Every name and its source: docs/reference/measurements.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import cv2
import numpy as np

from ..annotate.spine import RANK, skipped
from .anatomy import CORNERS, Endplate, Implant, LabelledSpine, Measurement, Shape, Vertebra
from .geometry import ALIKE, COBB, measure
from .hardware import Screw, centre, screw

#: Every name, and the unit of its values; `length` is mm, or px where the spacing is unknown.
QUANTITIES = {
    "lordosis": "deg",
    "cobb": "deg",
    "sacral_slope": "deg",
    "body_height_anterior": "length",
    "body_height_middle": "length",
    "body_height_posterior": "length",
    "wedge_ratio": "1",
    "biconcavity_ratio": "1",
    "crush_ratio": "1",
    "genant_grade": "1",
    "osteophyte_length": "length",
    "disc_angle": "deg",
    "segmental_angle": "deg",
    "disc_height_anterior": "length",
    "disc_height_middle": "length",
    "disc_height_posterior": "length",
    "disc_height_index": "1",
    "slip": "length",
    "slip_percent": "%",
    "slip_grade": "1",
    "screw_endplate_angle": "deg",
    "screw_tip_to_anterior_wall": "length",
    "cage_position": "1",
}

#: What :attr:`.Measurement.features` holds, of the worst body or endplate that a value rests on;
#: but for pixels, 0 is bad and 1 is good.
FEATURES = {
    "level": "probability of the level",
    "facing": "probability of the side to which the patient faces",
    "score": "score of the instances, implants included",
    "quality": "quality of the shapes",
    "support": "support of the endplates",
    "evenness": "how near the contour lies to the endplates' curves; 1 on them",
    "length_px": "length of the shortest endplate, in pixels",
    "whole": "0 where a body touches the film's edge, else 1",
    "unrepaired": "0 where a body was split or merged, else 1",
    "sacrum": "1 where the sacrum is seen with certainty, else 0",
    "unflagged": "0 where the film has flags, else 1",
}

_BODY = (
    "body_height_anterior",
    "body_height_middle",
    "body_height_posterior",
    "wedge_ratio",
    "biconcavity_ratio",
    "genant_grade",
)
# What rests on the two endplates that face a disc.
_DISC = (
    "disc_angle",
    "disc_height_anterior",
    "disc_height_middle",
    "disc_height_posterior",
    "slip",
    "slip_percent",
    "slip_grade",
)
_GAPS = ("disc_height_anterior", "disc_height_middle", "disc_height_posterior", "disc_height_index")
_SIDES = ("superior", "inferior")
_WORDS = {"superior": "upper", "inferior": "lower"}
# A corner nearer to the film's edge than this share of its endplate's length is not seen.
_EDGE = 0.04
# With a residual of this share of the endplate's length the evenness is 1/e.
_RESIDUAL = 0.05

# Shafts are up to 8.5 mm wide, bodies about 35 mm deep; and some blur.
_WIDEST_SHAFT = 0.36

_Part = tuple[str, str]  # level, side
_Row = tuple[str, str, tuple[_Part, ...]]  # name, site, what it rests on


@dataclass(frozen=True)
class Limits:
    """How much support a value needs; all are 0 to 1.

    Attributes:
        least_quality: shapes of less are not those of one body, and nothing is measured on them.
        least_support: the same for endplates.
        sure_quality, sure_support: with less, values are uncertain.
        sure_level: levels of less probability make values uncertain.
        sure_facing: the same for the side to which the patient faces.
        largest_residual: root mean square residual of an endplate as a share of its length, above
            which values are uncertain.
    """

    least_quality: float = 0.25
    least_support: float = 0.25
    sure_quality: float = 0.5
    sure_support: float = 0.5
    sure_level: float = 0.8
    sure_facing: float = 0.9
    largest_residual: float = 0.06


def measure_spine(
    spine: LabelledSpine,
    spacing_mm: float | None,
    cobb: Iterable[tuple[str, str]] = COBB,
    limits: Limits | None = None,
) -> list[Measurement]:
    """Measure all of :data:`QUANTITIES` on a film.

    Values are expected from the uppermost labelled vertebra (L1 where none is higher) to S1, of
    every corner of a body, and of every screw and cage.

    Args:
        spine: the labelled spine.
        spacing_mm: side of a pixel in the patient; None where unknown: lengths are then in px.
        cobb: upper and lower level of each Cobb angle.
        limits: how much support values need; the usual ones if None.

    Returns:
        A row for each name and site. Its confidence is, before calibration, the probability of the
        level, times that of the side to which the patient faces, times what the outline's shape is
        worth; its features are those of :data:`FEATURES`.
    """
    film = _Film(spine, spacing_mm, tuple(cobb), limits or Limits())
    return [*map(film.row, film.expected()), *film.spurs(), *film.screws(), *film.cages()]


class _Film:
    """A spine in the patient's directions: x to the front, y downwards, in the unit of lengths."""

    def __init__(
        self,
        spine: LabelledSpine,
        spacing_mm: float | None,
        cobb: Sequence[tuple[str, str]],
        limits: Limits,
    ) -> None:
        self.spine, self.cobb, self.limits = spine, cobb, limits
        self.unit, scale = ("px", 1.0) if spacing_mm is None else ("mm", float(spacing_mm))
        self.scale = scale
        forward = 1.0 if spine.anterior == "right" else -1.0
        self.axes = np.array([forward * scale, scale])
        self.place: dict[str, int] = {}  # of each level in the chain
        for index, vertebra in enumerate(spine.vertebrae):
            level = vertebra.level
            best = self.place.get(level) if level else None
            if level and (best is None or _surer(vertebra, spine.vertebrae[best])):
                self.place[level] = index
        self.of_level = {level: spine.vertebrae[index] for level, index in self.place.items()}
        self.unlabelled = any(vertebra.level is None for vertebra in spine.vertebrae)
        self.plates = {
            (level, side): _Plate(getattr(vertebra.shape, side))
            for level, vertebra in self.of_level.items()
            if vertebra.shape is not None
            for side in _SIDES
        }
        self.order = _expected_levels(self.of_level)
        self.corners = {
            level: vertebra.shape.corners * self.axes
            for level, vertebra in self.of_level.items()
            if vertebra.shape is not None and vertebra.shape.quality >= limits.least_quality
        }
        middles = {
            level: np.array([self.plates[level, side].fit.middle for side in _SIDES]) * self.axes
            for level in self.corners
        }
        found = measure(self.corners, self.order, middles, cobb, self.unit)
        self.values = {(row["name"], row["site"]): row["value"] for row in found}

    def expected(self) -> list[_Row]:
        """Every measurement of corners that a film should give."""
        rows: list[_Row] = []
        pairs = [("lordosis", "L1", "S1"), ("lordosis", "L1", "L5")]
        for name, above, below in [*pairs, *(("cobb", *pair) for pair in self.cobb)]:
            rows.append((name, f"{above}-{below}", ((above, "superior"), _end(below))))
        rows.append(("sacral_slope", "S1", (("S1", "superior"),)))
        for level in self.order[:-1]:
            both = ((level, "superior"), (level, "inferior"))
            rows += [(name, level, both) for name in _BODY]
            if level in ALIKE:
                rows.append(("crush_ratio", level, both))
        for above, below in pairwise(self.order):
            site = f"{above}/{below}"
            facing = ((above, "inferior"), (below, "superior"))
            rows += [(name, site, facing) for name in _DISC]
            rows.append(("segmental_angle", site, ((above, "superior"), _end(below))))
            rows.append(("disc_height_index", site, ((above, "superior"), *facing)))
        return rows

    def row(self, row: _Row) -> Measurement:
        name, site, parts = row
        doubts = self.between(name, *site.split("/")) if "/" in site else []
        fault = ""
        if name in ("crush_ratio", "genant_grade") and self.alone(site):
            few = f"there are too few other bodies to compare the height of {site} with"
            doubts, fault = [few], few if name == "crush_ratio" else ""
        return self.judge(name, site, parts, lambda: self.values[name, site], doubts, fault)

    def alone(self, level: str) -> bool:
        """Whether a body's height should be compared with others, but cannot be."""
        return (
            level in ALIKE and level in self.corners and ("crush_ratio", level) not in self.values
        )

    def between(self, name: str, above: str, below: str) -> list[str]:
        """What is doubtful about the disc between two bodies."""
        doubts = []
        if {above, below} <= self.place.keys() and self.place[below] - self.place[above] != 1:
            doubts.append(f"another body lies between {above} and {below}")
        if name in _GAPS and {above, below} <= self.corners.keys():
            back, front = self.corners[below][:2]
            plate, away = front - back, self.corners[above][2:] - back
            if (plate[0] * away[:, 1] > plate[1] * away[:, 0]).any():
                doubts.append(f"the outlines of {above} and {below} overlap")
        return doubts

    def spurs(self) -> list[Measurement]:
        """The osteophyte at every corner; 0 where there is none."""
        rows = []
        for level in self.order:
            for corner in CORNERS:
                part = (level, corner.split("_")[1])
                if level == "S1" and part[1] == "inferior":
                    continue
                name, site = "osteophyte_length", f"{level} {corner}"
                rows.append(self.judge(name, site, (part,), partial(self.spur, level, corner)))
        return rows

    def spur(self, level: str, corner: str) -> float:
        found = [s.length_px for s in self.of_level[level].shape.osteophytes if s.corner == corner]
        return max(found, default=0.0) * self.scale

    def screws(self) -> list[Measurement]:
        rows, count = [], {}
        for implant in self.implants("screw"):
            found = screw(implant.outline * self.axes)
            level = implant.level or self.holding_screw(found, implant)
            count[level] = count.get(level, 0) + 1
            site = f"{level or '?'} screw {count[level]}"
            fault = self.fault_of_screw(found, level)
            upper, lower = ((level, side) for side in _SIDES)
            for name, parts, value in (
                ("screw_endplate_angle", (upper,), self.screw_angle),
                ("screw_tip_to_anterior_wall", (upper, lower), self.screw_depth),
            ):
                parts = parts if level in self.order else ()
                call = partial(value, found, level)
                rows.append(self.judge(name, site, parts, call, (), fault, implant))
        return rows

    def fault_of_screw(self, found: Screw | None, level: str | None) -> str:
        if level not in self.order:
            return "no labelled body down to S1 holds the screw"
        if level not in self.corners:
            return ""
        four = self.corners[level]
        if found is None or found.width > _WIDEST_SHAFT * np.linalg.norm(four[1] - four[0]):
            return "the outline is not that of one screw"
        if _behind(found.head, *four[[0, 3]]) < 0:
            return "the screw does not come from behind"
        return ""

    def screw_angle(self, found: Screw, level: str) -> float:
        back, front = self.corners[level][:2]
        plate, axis = front - back, found.tip - found.head
        turn = np.degrees(np.arctan2(plate[1], plate[0]) - np.arctan2(axis[1], axis[0]))
        return float((turn + 180) % 360 - 180)

    def screw_depth(self, found: Screw, level: str) -> float:
        return _behind(found.tip, *self.corners[level][1:3])

    def holding_screw(self, found: Screw | None, implant: Implant) -> str | None:
        """The level whose body holds the most of a screw's front half, if any."""
        points = implant.outline * self.axes
        if found is not None:
            points = np.linspace((found.head + found.tip) / 2, found.tip, 9)
        best, most = None, 0
        for level, vertebra in self.of_level.items():
            if vertebra.shape is not None:
                contour = (vertebra.shape.contour * self.axes).astype(np.float32)
                count = sum(cv2.pointPolygonTest(contour, point, False) >= 0 for point in points)
                if count > most:
                    best, most = level, count
        return best

    def cages(self) -> list[Measurement]:
        rows, count = [], {}
        for implant in self.implants("cage"):
            middle = centre(implant.outline * self.axes)
            disc = tuple(implant.level.split("/")) if implant.level else self.holding_cage(middle)
            disc = disc if disc in pairwise(self.order) else None
            count[disc] = count.get(disc, 0) + 1
            site = f"{'/'.join(disc) if disc else '?'} cage {count[disc]}"
            fault = "" if disc else "the cage lies in no disc between labelled bodies"
            parts = ((disc[0], "inferior"), (disc[1], "superior")) if disc else ()
            call = partial(self.cage_position, middle, disc)
            rows.append(self.judge("cage_position", site, parts, call, (), fault, implant))
        return rows

    def cage_position(self, middle: np.ndarray, disc: tuple[str, str]) -> float:
        return self.along_disc(middle, disc)[0]

    def holding_cage(self, middle: np.ndarray) -> tuple[str, str] | None:
        """The disc that a cage lies in."""
        best, nearest = None, 0.5
        for above, below in pairwise(self.order):
            if {above, below} <= self.corners.keys():
                along, across = self.along_disc(middle, (above, below))
                if -0.25 < along < 1.25 and abs(across) < nearest:
                    best, nearest = (above, below), abs(across)
        return best

    def along_disc(self, point: np.ndarray, disc: tuple[str, str]) -> tuple[float, float]:
        """Where a point lies in a disc, from its back (0) to its front (1), and how far off it."""
        above, below = self.corners[disc[0]], self.corners[disc[1]]
        back, front = (above[3] + below[0]) / 2, (above[2] + below[1]) / 2
        plate = front - back
        away = (point - back) / (plate @ plate)
        return float(away @ plate), float(plate[0] * away[1] - plate[1] * away[0])

    def implants(self, class_name: str) -> list[Implant]:
        """Those of a class from above downwards, of one height from behind to the front."""
        found = [i for i in self.spine.implants if i.class_name == class_name]
        return sorted(found, key=lambda i: tuple((centre(i.outline) * self.axes)[::-1]))

    def judge(
        self,
        name: str,
        site: str,
        parts: Sequence[_Part],
        value: Callable[[], float],
        doubts: Sequence[str] = (),
        fault: str = "",
        implant: Implant | None = None,
    ) -> Measurement:
        """A row: the value with its support, or why there is none."""
        unit = QUANTITIES[name]
        unit = self.unit if unit == "length" else unit
        faults = [fault] if fault else []
        faults += [reason for part in parts for reason in [self.fault(part)] if reason]
        if faults:
            return Measurement(name, site, None, unit, 0.0, "not_measurable", _sentence(faults), {})
        features = self.features(parts, implant)
        reasons = [*doubts, *self.doubts(parts)]
        status = "uncertain" if reasons else "measured"
        worth = min(features["quality"], features["support"], features["score"])
        confidence = features["level"] * features["facing"] * features["evenness"] * worth
        return Measurement(
            name, site, float(value()), unit, confidence, status, _sentence(reasons), features
        )

    def fault(self, part: _Part) -> str:
        """Why nothing can be measured on an endplate; empty where it can."""
        level, side = part
        if level not in self.of_level:
            seen = "seen with certainty" if self.unlabelled else "seen"
            return f"{level} is not {seen}"
        shape = self.of_level[level].shape
        if shape is None or shape.quality < self.limits.least_quality:
            return f"the outline of {level} is not that of one body"
        plate = self.plates[part]
        if shape.cut and self.off_film(plate):
            return f"the film's edge cuts {level}"
        if plate.fit.support < self.limits.least_support or not plate.length:
            return f"the {_WORDS[side]} endplate of {level} is not seen"
        return ""

    def doubts(self, parts: Sequence[_Part]) -> list[str]:
        """Why a value that rests on these endplates is uncertain."""
        limits, found = self.limits, []
        for level in dict.fromkeys(level for level, _ in parts):
            vertebra = self.of_level[level]
            if vertebra.level_probability < limits.sure_level:
                unseen = (
                    "" if self.spine.sacrum_seen else ", as the sacrum is not seen with certainty"
                )
                found.append(f"the level of {level} is not certain{unseen}")
            if vertebra.shape.quality < limits.sure_quality:
                found.append(f"the outline of {level} is irregular")
        for part in parts:
            plate, which = self.plates[part], f"the {_WORDS[part[1]]} endplate of {part[0]}"
            if plate.fit.support < limits.sure_support:
                found.append(f"{which} is seen in part only")
            elif plate.residual > limits.largest_residual:
                found.append(f"{which} is uneven")
        if self.spine.anterior_probability < limits.sure_facing:
            found.append("the side to which the patient faces is not certain")
        return found

    def features(self, parts: Sequence[_Part], implant: Implant | None) -> dict[str, float]:
        bodies = [self.of_level[level] for level, _ in parts]
        shapes: list[Shape] = [body.shape for body in bodies]
        plates = [self.plates[part] for part in parts]
        scores = [body.body.score for body in bodies] + ([implant.score] if implant else [])
        found = {
            "level": min(body.level_probability for body in bodies),
            "facing": self.spine.anterior_probability,
            "score": min(scores),
            "quality": min(shape.quality for shape in shapes),
            "support": min(plate.fit.support for plate in plates),
            "evenness": np.exp(-((max(plate.residual for plate in plates) / _RESIDUAL) ** 2)),
            "length_px": min(plate.length for plate in plates),
            "whole": not any(shape.cut for shape in shapes),
            "unrepaired": not any(body.body.repair for body in bodies),
            "sacrum": self.spine.sacrum_seen,
            "unflagged": not self.spine.flags,
        }
        return {name: float(value) for name, value in found.items()}

    def off_film(self, plate: _Plate) -> bool:
        """Whether a corner of an endplate lies on the film's edge or beyond it."""
        ends = np.array([plate.fit.posterior, plate.fit.anterior])
        size = np.array([self.spine.columns, self.spine.rows])
        margin = 1.0 + _EDGE * plate.length
        return bool(((ends < margin) | (ends > size - margin)).any())


class _Plate:
    """An endplate with its length in pixels and its residual as a share of it."""

    def __init__(self, fit: Endplate) -> None:
        self.fit = fit
        self.length = float(np.linalg.norm(fit.anterior - fit.posterior))
        self.residual = fit.residual_px / self.length if self.length else np.inf


def _surer(one: Vertebra, other: Vertebra) -> bool:
    """Whether one of two bodies of the same level has it with more right."""
    ranks = [(v.level_probability, v.shape is not None, v.body.score) for v in (one, other)]
    return ranks[0] > ranks[1]


def _expected_levels(present: Iterable[str]) -> list[str]:
    """Levels that a film should show, from cranial to S1."""
    ranks = {RANK[level] for level in present if RANK[level] <= RANK["S1"]}
    ranks = sorted(ranks | {RANK["L1"], RANK["S1"]})
    names = {rank: name for name, rank in RANK.items()}
    order = [names[ranks[0]]]
    for upper, lower in pairwise(ranks):
        order += [*skipped(upper, lower), names[lower]]
    return order


def _end(level: str) -> _Part:
    """Where an angle down to a level ends: at its lower endplate, of S1 at its upper one."""
    return (level, "superior" if level == "S1" else "inferior")


def _sentence(reasons: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(reasons))


def _behind(point: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> float:
    """How far a point lies behind the line of a wall, from its upper to its lower corner."""
    along, away = lower - upper, point - upper
    return float((along[0] * away[1] - along[1] * away[0]) / np.linalg.norm(along))
