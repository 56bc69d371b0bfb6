"""Quality checks of annotations.

A finding of severity `error` keeps the region out of training and evaluation, a `warning` asks for
a look, an `info` only tells. Which severity a check has can be changed in the configuration
(`annotations.severity`), except where nothing could be trained on.

The checks of the spine suppose an adult's lateral film, and no more of its position than that the
head end is up: they work along the course of the spine (:mod:`lumbarflow.annotate.spine`) and in
units of the bodies drawn, so that tilted and curved spines and any size of film are treated alike.
Limits are set so that they let variants pass that are common (slips, collapsed discs and
vertebrae, six or four lumbar vertebrae, pairs of screws one behind the other).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from ..prepare.masks import rasterise_window
from .shapes import encloses_area, intersects_itself, measure, overlapping, shared_area
from .spine import RANK, course, longest_rise, skipped


class Check(NamedTuple):
    """A check: its severity unless configured, what it finds, and what to do about it.

    A `fixed` severity cannot be configured.
    """

    severity: str
    meaning: str
    remedy: str
    fixed: bool = False


_REDRAW = "draw it again"
_RIGHT_LEVEL = "correct the level"
#: Every check, in the order of the documentation.
CHECKS = {
    "no_class": Check("error", "the class is not filled in", "choose the class", True),
    "several_classes": Check("error", "more than one box is ticked", "leave one ticked", True),
    "point": Check("error", "a point outlines nothing", "draw a polygon", True),
    "open_line": Check(
        "error", "an open line outlines nothing", "close it or draw a polygon", True
    ),
    "degenerate": Check("error", "fewer than three distinct points, or no area", _REDRAW, True),
    "no_pixel": Check("error", "the outline covers no pixel of the film", _REDRAW, True),
    "ignored_class": Check("info", "the class is in `annotations.ignore`", "none needed", True),
    "duplicate": Check(
        "error",
        "nine tenths or more of the joint area in common with another outline; of two screws or "
        "two other implants, which may lie one behind the other, the same points",
        "delete one of the two",
    ),
    "near_duplicate": Check(
        "warning",
        "two vertebrae, or two cages, with half or more of their joint area in common",
        "delete one of the two",
    ),
    "self_intersection": Check(
        "warning", "the outline crosses itself; parts covered twice count as outside", _REDRAW
    ),
    "outside_image": Check(
        "warning",
        "points more than a pixel outside the film; what is outside is cut off",
        "move the points onto the film",
    ),
    "tiny_area": Check(
        "warning",
        "under 16 square pixels; or far smaller than the film's lumbar bodies (a lumbar body under "
        "0.3 of their median area, a sacral one 0.15, an implant 0.01), unless cut by the film's "
        "border; or a lumbar body under 150 mm², where the spacing is known",
        "delete a stray click; draw the whole structure",
    ),
    "huge_area": Check(
        "warning",
        "over a quarter of the film; or far larger than the film's lumbar bodies (a lumbar body "
        "over 2.5 times their median area, a screw 2, a cage 4, a sacral one 6, other implants "
        "12); or a lumbar body over 4000 mm², where the spacing is known",
        "outline each structure on its own",
    ),
    "overlap": Check(
        "warning",
        "two bodies share more than 0.15 of the smaller one: more than projection explains",
        "correct the endplates between the two",
    ),
    "off_course": Check(
        "warning",
        "a vertebra beside the line of the others, which would have to bend by more than 75°",
        "correct its place or its class",
    ),
    "isolated": Check(
        "warning",
        "a vertebra whose nearest other is more than three body sizes away, or that is alone",
        "draw its neighbours, or delete it",
    ),
    "gap": Check(
        "warning",
        "room for another body between two neighbours whose levels do not tell of one",
        "draw the one between, or correct the levels",
    ),
    "too_many_vertebrae": Check(
        "warning",
        "more than 40 vertebrae on the film: the spine is not checked",
        "draw each vertebra once, as one outline",
    ),
    "no_level": Check(
        "warning", "a vertebra without a level, on a film where others have one", "fill it in"
    ),
    "levels_absent": Check("info", "no vertebra on the film has a level", "fill in the levels"),
    "level_twice": Check("warning", "two vertebrae with one level", _RIGHT_LEVEL),
    "level_order": Check("warning", "a level out of order along the spine", _RIGHT_LEVEL),
    "level_missing": Check(
        "warning",
        "a level is skipped between two neighbours (T13 and L6 may be)",
        "draw the missing vertebra, or correct the levels",
    ),
    "level_class": Check(
        "warning",
        "a sacral level on a lumbar vertebra, or the other way round",
        "correct the level or the class",
    ),
    "sacrum_above_lumbar": Check(
        "warning",
        "sacral and lumbar vertebrae, or the line of a sacral endplate, in the wrong order",
        "correct the class",
    ),
    "screw_far": Check(
        "warning",
        "a screw more than 1.5 body sizes away from the centre of every vertebra, and not where "
        "the spine goes on upwards",
        "correct its class, or draw its vertebra",
    ),
    "film_rejected": Check(
        "warning",
        "the film was rejected at retrieval, so its regions are not used",
        "see the film's reason in the image manifest",
    ),
    "no_annotation": Check("info", "the film has no annotation", "annotate it"),
    # What reading and merging the files find.
    "damaged_region": Check(
        "error", "the region's shape or numbers are damaged", "draw it again", True
    ),
    "unknown_class": Check(
        "error",
        "the class is not known",
        "add it to `annotations.class_names` or `annotations.ignore`",
        True,
    ),
    "no_class_attribute": Check(
        "error",
        "no attribute of the file is known to hold the class",
        "set `annotations.class_attribute`",
        True,
    ),
    "damaged_entry": Check(
        "error", "an entry of the file is damaged, or belongs to no film", "export again", True
    ),
    "film_not_found": Check(
        "error",
        "an entry fits none of the films (an info if it has no regions)",
        "correct its name, or add the film",
        True,
    ),
    "film_ambiguous": Check(
        "error", "an entry fits several films", "write the film's path, or image_id.png", True
    ),
    "film_twice": Check(
        "warning",
        "one file has regions on the film in several entries: all are taken",
        "delete the entry that is not wanted",
        True,
    ),
    "unknown_subset": Check(
        "warning",
        "the film's attribute `subset` is not `test`, and not used",
        "write test, to keep the film for testing, or nothing",
        True,
    ),
    "no_region": Check("warning", "the file has no region on any film", "export again", True),
    "unknown_level": Check(
        "warning", "the level is not known, and left out", "correct it, or add its name", True
    ),
    "level_conflict": Check(
        "warning",
        "the class names another level than the level attribute, which counts",
        "correct one of the two",
        True,
    ),
    "not_drawn_by_all": Check(
        "warning", "not all annotators of the film drew the structure", "agree on it", True
    ),
    "levels_differ": Check(
        "warning", "annotators gave the structure different levels", "agree on one", True
    ),
    "several_annotators": Check("info", "several annotators drew on the film", "none needed", True),
    "line_closed": Check(
        "info", "a line whose ends nearly meet was taken for an outline", "none needed", True
    ),
    "several_parts": Check(
        "info", "parts or holes were joined to one outline", "draw each part by itself", True
    ),
    "film_by_likeness": Check(
        "info", "the film was found by its content or size", "correct its name in the file", True
    ),
    "prediction_not_reviewed": Check(
        "info", "predicted outlines that nobody accepted: no annotations", "review them", True
    ),
    "prediction_half_reviewed": Check(
        "warning",
        "predicted outlines that nobody accepted beside annotations: the film is used without them",
        "accept or delete them",
        True,
    ),
}


class Finding(NamedTuple):
    """A row of the table of findings.

    structure_id is None for a finding about the whole film, image_id for one about a whole file.
    """

    image_id: str | None
    structure_id: str | None
    check: str
    severity: str
    message: str


class Problem(NamedTuple):
    """A finding on a film whose name its checker does not know; structure_id as in Finding."""

    structure_id: str | None
    check: str
    severity: str
    message: str


Found = TypeVar("Found", Finding, Problem)


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table of strings: image_id, structure_id, check, severity, message."""
    return pd.DataFrame(list(findings), columns=list(Finding._fields)).astype("string")


def graded(findings: Iterable[Found], settings: Mapping[str, Any]) -> list[Found]:
    """Findings with the severities of `annotations.severity`; without those of checks set to off.

    Args:
        findings: of any checks; those that the configuration does not name stay as they are.
        settings: the section `annotations` of the configuration; `severity` maps a check to
            error, warning, info or off (which YAML reads as false).
    """
    severities = settings.get("severity") or {}
    kept = []
    for finding in findings:
        severity = severities.get(finding.check, finding.severity)
        if severity not in ("off", False):
            kept.append(finding._replace(severity=severity))
    return kept


#: A polygon may touch the film's border, and a click beside it lands a little outside.
_BORDER = 1.0
_FARTHEST = 1e7  # pixels; farther coordinates are damage, and would spoil the arithmetic

#: Least and greatest area in units of the median lumbar body of the film.
_AREA_RANGE = {
    "lumbar_vertebra": (0.3, 2.5),
    "sacral_vertebra": (0.15, 6.0),
    "cage": (0.01, 4.0),
    "screw": (0.01, 2.0),
    "instrumentation": (0.01, 12.0),
}
#: Square millimetres in the patient: a lumbar body has 600 to 1400.
_BODY_MM2 = (150.0, 4000.0)
_STRAY_CLICK = 16.0  # square pixels
_FILM_SHARE = 0.25
_CUT = 0.01  # of the film's size: nearer to its border a body may be cut

_SAME, _NEARLY_SAME = 0.9, 0.5  # intersection over union
_OVERLAP = 0.15  # of the smaller body
#: Distances in units of the body size, the root of the median area: centres of neighbours are 0.9
#: to 1.5 apart, those of bodies with one missing between them 2.2 and more.
_GAP, _ISOLATED, _FAR_SCREW = 1.9, 3.0, 1.5
_MOST_VERTEBRAE = 40
#: Pairs of outlines compared on a film; 12 structures have 66.
_MOST_COMPARED = 5_000

_BODIES = ("lumbar_vertebra", "sacral_vertebra")
#: Two screws of a vertebra, or two rods, may well cover each other: only these may not.
_SOLITARY = {"lumbar_vertebra": "body", "sacral_vertebra": "body", "cage": "cage"}


def check_film(
    structures: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    rows: int,
    columns: int,
    spacing_mm: float | None,
    settings: Mapping[str, Any],
) -> list[Problem]:
    """All checks of what is drawn on a film.

    Args:
        structures: structure_id, class_name, level (or None) and polygon (points [x, y] in
            pixels), as in a record.
        lines: structure_id, level and points of open lines, as in a record.
        rows, columns: size of the film in pixels.
        spacing_mm: side of a pixel in the patient; None where unknown.
        settings: the section `annotations` of the configuration; read is `severity`.

    Returns:
        The problems, each with its severity as configured and the structure_id of its structure
        or line (None: about the whole film), in the order of the checks.
    """
    film = _Film(structures, rows, columns, spacing_mm)
    problems = [*film.check_outlines(), *_lines_outside(lines, rows, columns)]
    if film.ids:
        for check in (
            film.check_areas,
            film.check_duplicates,
            film.check_course,
            film.check_levels,
            lambda: film.check_sacrum(lines),
            film.check_screws,
        ):
            problems += check()
    return graded(problems, settings)


def _problem(check: str, structure_id: str | None, message: str | None = None) -> Problem:
    return Problem(structure_id, check, CHECKS[check].severity, message or CHECKS[check].meaning)


def _outside(points: np.ndarray, size: np.ndarray, structure_id: str | None) -> Iterator[Problem]:
    outside = ((points < -_BORDER) | (points > size + _BORDER)).any(axis=1)
    if count := int(outside.sum()):
        message = (
            f"{count} of {len(points)} points lie outside the film; what is outside is cut off"
        )
        yield _problem("outside_image", structure_id, message)


def _lines_outside(
    lines: Sequence[Mapping[str, Any]], rows: int, columns: int
) -> Iterator[Problem]:
    for line in lines:
        points = np.asarray(line["points"], dtype=float).reshape(-1, 2)
        yield from _outside(points, np.array([columns, rows], float), line["structure_id"])


class _Film:
    """What is drawn on a film, measured; the checks take away what later ones must not rely on.

    Attributes:
        ids, classes, levels: of the structures with a sound outline, N each.
        outlines: N arrays of points.
        area: N, square pixels; centre, low, high: N x 2.
        size: root of the median area of the film's lumbar bodies, pixels; None without any.
        unreliable: indices of structures of a doubtful shape or area, or with a twin.
        bodies: indices of the other vertebrae; none where there are more than a spine has.
        spine: those of them on the course of the spine, cranial first.
    """

    def __init__(
        self,
        structures: Sequence[Mapping[str, Any]],
        rows: int,
        columns: int,
        spacing_mm: float | None,
    ) -> None:
        self.rows, self.columns, self.spacing = rows, columns, spacing_mm
        self.structures = structures
        self.ids: list[str] = []
        self.unreliable: set[int] = set()
        self.bodies: list[int] = []
        self.spine: list[int] = []

    def check_outlines(self) -> Iterator[Problem]:
        """Problems of each outline by itself; keeps the sound ones and measures them."""
        outlines = [np.asarray(s["polygon"], dtype=float).reshape(-1, 2) for s in self.structures]
        extent = np.array([self.columns, self.rows], float)
        drawn, damaged = [], []
        for k, points in enumerate(outlines):
            finite = len(points) > 2 and bool((np.abs(points) < _FARTHEST).all())
            (drawn if finite else damaged).append(k)
        measures = measure([outlines[k] for k in drawn]) if drawn else None
        sound = []
        for at, k in enumerate(drawn):
            points, structure_id = outlines[k], self.structures[k]["structure_id"]
            area, length = measures.area[at], measures.length[at]
            # Areas that no rounding could have made need no closer look.
            if area <= 1e-6 * length**2 and not encloses_area(points):
                damaged.append(k)
                continue
            inside = bool((measures.low[at] >= 0).all() and (measures.high[at] <= extent).all())
            # With more area than length it is not so thin as to miss every pixel centre.
            covers = inside and area > length
            if not covers and not rasterise_window(points, self.rows, self.columns)[2].any():
                yield _problem("no_pixel", structure_id)
                continue
            if not measures.simple[at] and intersects_itself(points):
                yield _problem("self_intersection", structure_id)
                # The lobes of the shoelace formula cancel.
                measures.area[at] = max(shared_area(points, points), 1e-9)
                if abs(area - measures.area[at]) > 0.2 * measures.area[at]:
                    self.unreliable.add(len(sound))
            if not inside:
                yield from _outside(points, extent, structure_id)
            sound.append((at, k))
        for k in sorted(damaged):
            yield _problem("degenerate", self.structures[k]["structure_id"])
        kept = [self.structures[k] for _, k in sound]
        self.ids = [structure["structure_id"] for structure in kept]
        self.classes = [structure["class_name"] for structure in kept]
        self.levels = [structure.get("level") for structure in kept]
        self.outlines = [outlines[k] for _, k in sound]
        if not sound:
            return
        at = [at for at, _ in sound]
        self.area, self.centre = measures.area[at], measures.centre[at]
        self.low, self.high = measures.low[at], measures.high[at]
        bodies = self._of("lumbar_vertebra") or self._of(*_BODIES)
        self.size = float(np.sqrt(np.median(self.area[bodies]))) if bodies else None

    def check_areas(self) -> Iterator[Problem]:
        """Areas that no structure of its class has."""
        lumbar = self._of("lumbar_vertebra")
        # Of two bodies nobody can tell which one has the wrong size.
        median = float(np.median(self.area[lumbar])) if len(lumbar) > 2 else None
        border = _CUT * max(self.rows, self.columns)
        cut = (self.low < border).any(axis=1)
        cut |= (self.high > np.array([self.columns, self.rows]) - border).any(axis=1)
        for k, name in enumerate(self.classes):
            area = float(self.area[k])
            unit = median if name in _AREA_RANGE else None
            least, greatest = _AREA_RANGE.get(name, (0.0, np.inf))
            body_mm2 = None
            if name == "lumbar_vertebra" and self.spacing:
                body_mm2 = area * self.spacing**2
            if area < _STRAY_CLICK or (
                not cut[k] and ((unit and area < least * unit) or (body_mm2 or 1e9) < _BODY_MM2[0])
            ):
                check, word = "tiny_area", "too small for"
            elif (
                area > _FILM_SHARE * self.rows * self.columns
                or (unit and area > greatest * unit)
                or (body_mm2 or 0) > _BODY_MM2[1]
            ):
                check, word = "huge_area", "too large for"
            else:
                continue
            self.unreliable.add(k)
            message = f"its area of {area:.0f} px²"
            if self.spacing:
                message += f" ({area * self.spacing**2:.0f} mm²)"
            message += f" is {word} its class {name}"
            if unit:
                message += f": {area / unit:.2g} of the film's median lumbar body"
            yield _problem(check, self.ids[k], message)

    def check_duplicates(self) -> Iterator[Problem]:
        """Outlines drawn twice, and bodies that overlap by more than projection explains."""
        one, other = overlapping(self.low, self.high)
        box = np.minimum(self.high[one], self.high[other]) - np.maximum(
            self.low[one], self.low[other]
        )
        box = np.maximum(box, 0).prod(axis=1)
        # What the boxes share bounds what the outlines can.
        areas = np.sort(np.stack([self.area[one], self.area[other]]), axis=0)
        alike = box >= _SAME * areas[1]
        body = np.array([name in _BODIES for name in self.classes])
        solitary = np.array([_SOLITARY.get(name, "") for name in self.classes])
        paired = (solitary[one] == solitary[other]) & (solitary[one] != "")
        near = paired & (box >= _NEARLY_SAME * areas[1])
        over = body[one] & body[other] & (box > _OVERLAP * areas[0])
        compare = np.flatnonzero(alike | near | over)[:_MOST_COMPARED]
        pairs = sorted(
            (min(a, b), max(a, b), bool(p))
            for a, b, p in zip(
                one[compare].tolist(), other[compare].tolist(), paired[compare], strict=True
            )
        )
        twins: set[int] = set()
        for a, b, may_not_meet in pairs:
            if a in twins or b in twins:
                continue
            shared = shared_area(self.outlines[a], self.outlines[b])
            union = self.area[a] + self.area[b] - shared
            share = min(shared / union, 1.0)
            if not may_not_meet and self.classes[a] == self.classes[b]:
                # Two screws, or rods, one behind the other: only a copy is too many.
                same = self.outlines[a].shape == self.outlines[b].shape
                share = float(same and np.allclose(self.outlines[a], self.outlines[b], atol=0.01))
            if share >= _SAME or (may_not_meet and share >= _NEARLY_SAME):
                # The later one is in doubt, unless only it has a level.
                spare, kept = (a, b) if self.levels[b] and not self.levels[a] else (b, a)
                twins.add(spare)
                check = "duplicate" if share >= _SAME else "near_duplicate"
                message = f"the outline has {share:.0%} of the joint area in common with that of "
                yield _problem(check, self.ids[spare], message + self._name(kept))
            elif body[a] and body[b] and not {a, b} & self.unreliable:
                covered = shared / min(self.area[a], self.area[b])
                if covered > _OVERLAP:
                    message = f"the body shares {min(covered, 1):.0%} of the smaller one with "
                    yield _problem("overlap", self.ids[b], message + self._name(a))
        self.unreliable |= twins

    def check_course(self) -> Iterator[Problem]:
        """Vertebrae off the course of the spine, alone, or with room for another between them."""
        bodies = [k for k in self._of(*_BODIES) if k not in self.unreliable]
        if len(bodies) > _MOST_VERTEBRAE:
            message = f"the film has {len(bodies)} vertebrae: the spine is not checked"
            yield _problem("too_many_vertebrae", None, message)
            return
        self.bodies = self.spine = bodies
        if len(bodies) == 1:
            message = "the vertebra is the only one on the film"
            yield _problem("isolated", self.ids[bodies[0]], message)
        if len(bodies) < 2:
            return
        centres = self.centre[bodies]
        distance = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1)) / self.size
        np.fill_diagonal(distance, np.inf)
        alone = distance.min(axis=1) > _ISOLATED
        for k in np.flatnonzero(alone):
            message = (
                f"the nearest other vertebra is {distance[k].min():.1f} body sizes away"
                f"{self._mm(distance[k].min() * self.size)}"
            )
            yield _problem("isolated", self.ids[bodies[k]], message)
        bodies = [body for body, lonely in zip(bodies, alone, strict=True) if not lonely]
        order, off = course(self.centre[bodies])
        for k in off:
            message = "the vertebra lies beside the line of the others"
            yield _problem("off_course", self.ids[bodies[k]], message)
        self.spine = [bodies[k] for k in order]
        self._orient()
        near_off = self.centre[[bodies[k] for k in off]] if off else np.empty((0, 2))
        for upper, lower in pairwise(self.spine):
            apart = float(np.hypot(*(self.centre[lower] - self.centre[upper])))
            local = np.sqrt(self.area[[upper, lower]]).mean()
            steps = self._steps(upper, lower)
            if apart <= _GAP * max(self.size, local) or steps not in (None, 1):
                continue
            middle = (self.centre[upper] + self.centre[lower]) / 2
            # The one off the course may well be the one between.
            if (np.hypot(*(near_off - middle).T) < 1.5 * self.size).any():
                continue
            message = (
                f"{apart / self.size:.1f} body sizes{self._mm(apart)} from centre to centre of it "
                f"and {self._name(upper)}: there is room for another between"
            )
            yield _problem("gap", self.ids[lower], message)

    def _orient(self) -> None:
        """Turn the course of a spine that lies across the film as its levels or classes run."""
        if len(self.spine) < 2:
            return
        across, down = np.abs(self.centre[self.spine[-1]] - self.centre[self.spine[0]])
        if down >= across / 2:
            return
        ranks = [RANK[self.levels[k]] for k in self.spine if self.levels[k] in RANK]
        sacral = [n for n, k in enumerate(self.spine) if self.classes[k] == "sacral_vertebra"]
        falls = len(longest_rise(ranks[::-1])) > len(longest_rise(ranks))
        if falls or (len(ranks) < 2 and sacral and np.mean(sacral) < (len(self.spine) - 1) / 2):
            self.spine.reverse()

    def check_levels(self) -> Iterator[Problem]:
        """Levels that are absent, twice, out of order, skipped or of the other class."""
        bodies = self.bodies
        unnamed = [k for k in bodies if not self.levels[k]]
        if bodies and len(unnamed) == len(bodies):
            yield _problem("levels_absent", None, "no vertebra on the film has a level")
            return
        for k in unnamed:
            yield _problem("no_level", self.ids[k], "the vertebra has no level")
        for k in bodies:
            level = self.levels[k]
            if level in RANK and level.startswith("S") != (self.classes[k] == "sacral_vertebra"):
                message = f"the level {level} does not go with the class {self.classes[k]}"
                yield _problem("level_class", self.ids[k], message)
        spine = self.spine
        named = [k for k in spine if self.levels[k] in RANK]
        ranks = [RANK[self.levels[k]] for k in named]
        rise = longest_rise(ranks)
        fall = longest_rise(ranks[::-1]) if len(rise) < len(ranks) else []
        if len(fall) > max(len(rise), 2):
            message = "the levels run from the lower end of the film upwards: is it upside down?"
            yield _problem("level_order", None, message)
            named, ranks, rise = named[::-1], ranks[::-1], fall
            spine = spine[::-1]
        drawn = Counter(self.levels[k] for k in bodies)
        # A body with a fault of its own is not missing.
        present = {s.get("level") for s in self.structures if s["class_name"] in _BODIES}
        in_order = [named[position] for position in rise]
        for k in bodies:
            level = self.levels[k]
            if level not in RANK or k in in_order:
                continue
            twin = next((j for j in in_order if self.levels[j] == level), None)
            if twin is None and drawn[level] > 1:  # both out of order or off the course
                twin = next(j for j in bodies if self.levels[j] == level)
            if twin not in (None, k):
                message = f"{level} is the level of {self._name(twin)}, too"
                yield _problem("level_twice", self.ids[k], message)
            elif k in named:
                place = named.index(k)
                around = [self.levels[j] for j in named[max(place - 1, 0) : place + 2] if j != k]
                message = f"{level} is out of order beside {' and '.join(around)}"
                yield _problem("level_order", self.ids[k], message)
        for upper, lower in pairwise(in_order):
            if any(k in spine[spine.index(upper) + 1 : spine.index(lower)] for k in bodies):
                continue  # the one between them has its own finding
            missing = [
                level
                for level in skipped(RANK[self.levels[upper]], RANK[self.levels[lower]])
                if level not in present
            ]
            if not missing:
                continue
            apart = float(np.hypot(*(self.centre[lower] - self.centre[upper])))
            room = "room" if apart > _GAP * self.size else "no room"
            message = (
                f"{', '.join(missing)} missing between {self.levels[upper]} and "
                f"{self.levels[lower]}, with {room} for it on the film"
            )
            yield _problem("level_missing", self.ids[lower], message)

    def check_sacrum(self, lines: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
        """Sacral vertebrae, and lines of sacral endplates, above lumbar vertebrae."""
        sacral = [self.classes[k] == "sacral_vertebra" for k in self.spine]
        # The cut along the spine that leaves the fewest bodies on the wrong side of it.
        wrong = [
            sum(sacral[:cut]) + len(sacral) - cut - sum(sacral[cut:])
            for cut in range(len(sacral) + 1)
        ]
        # Of equally good ones the lowest, which blames the sacral body rather than the lumbar.
        cut = max(n for n, count in enumerate(wrong) if count == min(wrong))
        for place, k in enumerate(self.spine):
            if sacral[place] and place < cut:
                message = "the sacral vertebra lies above a lumbar one"
                yield _problem("sacrum_above_lumbar", self.ids[k], message)
            elif not sacral[place] and place >= cut:
                message = "the lumbar vertebra lies below the sacral ones"
                yield _problem("sacrum_above_lumbar", self.ids[k], message)
        lumbar = [k for k, is_sacral in zip(self.spine, sacral, strict=True) if not is_sacral]
        if len(lumbar) < 2:
            return
        last = self.centre[lumbar[-1]]
        down = last - self.centre[lumbar[-2]]
        for line in lines:
            points = np.asarray(line["points"], dtype=float).reshape(-1, 2)
            if not str(line.get("level") or "").startswith("S") or not len(points):
                continue
            if (points.mean(axis=0) - last) @ down < 0:
                message = "the line of a sacral endplate lies above the lowest lumbar vertebra"
                yield _problem("sacrum_above_lumbar", line["structure_id"], message)

    def check_screws(self) -> Iterator[Problem]:
        """Screws that hold in no vertebra that is drawn or could be above them."""
        screws, bodies = self._of("screw"), self.bodies
        if screws and not self._of(*_BODIES):
            yield _problem("screw_far", None, "the film has screws but no vertebra")
        if not bodies:
            return
        # Long constructs reach above the uppermost vertebra that is drawn.
        above = None
        if len(self.spine) > 1:
            top, second = self.centre[self.spine[0]], self.centre[self.spine[1]]
            above = top, (top - second) / np.hypot(*(top - second))
        reach = _FAR_SCREW * self.size
        for k in screws:
            if k in self.unreliable:
                continue
            offset = self.outlines[k][:, None] - self.centre[bodies]
            if ((offset**2).sum(axis=2) <= reach**2).any():
                continue
            if above is not None:
                offset = self.centre[k] - above[0]
                along = offset @ above[1]
                across = abs(offset[0] * above[1][1] - offset[1] * above[1][0])
                if along > 0 and across < 1.5 * self.size:
                    continue
            message = f"no centre of a vertebra within 1.5 body sizes{self._mm(reach)} of it"
            yield _problem("screw_far", self.ids[k], message)

    def _of(self, *names: str) -> list[int]:
        return [k for k, name in enumerate(self.classes) if name in names]

    def _name(self, k: int) -> str:
        level = f" ({self.levels[k]})" if self.levels[k] else ""
        return f"{self.ids[k]}{level}"

    def _mm(self, pixels: float) -> str:
        return f" ({pixels * self.spacing:.0f} mm)" if self.spacing else ""

    def _steps(self, upper: int, lower: int) -> int | None:
        """How many levels down it is from one to the other; None where a level is not known."""
        ranks = [RANK.get(self.levels[k]) for k in (upper, lower)]
        if None in ranks:
            return None
        return len(skipped(*ranks)) + 1 if ranks[1] > ranks[0] else None
