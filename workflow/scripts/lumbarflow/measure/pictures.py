"""Pictures of what was found on a film: overlays, the steps of the geometry, changes over time.

Colours are Okabe and Ito's ("Color Universal Design", 2008), told apart with every kind of colour
vision, and light enough to stand on a film with a dark border; what is uncertain is also dashed, in
slanted letters or followed by a question mark, so that prints without colour tell it too. Sizes of
letters and lines follow the size of the film: at a height of 20 cm all can be read.

Nothing is written on a picture that its arguments do not hold: pseudonyms at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from ..annotate.spine import RANK
from .anatomy import CORNERS, Endplate, LabelledSpine, Measurement, Shape, Vertebra
from .sheet import BLACK, WHITE, Colour, Sheet, text_width, wrap

#: Red, green, blue of each class; others are grey.
COLOURS: dict[str, Colour] = {
    "lumbar_vertebra": (86, 180, 233),
    "sacral_vertebra": (230, 159, 0),
    "cage": (0, 200, 150),
    "screw": (240, 228, 66),
    "instrumentation": (204, 121, 167),
}
_OTHER = (190, 190, 190)
_ALARM = (255, 130, 50)  # vermilion, a little lighter: slips and osteophytes
_GREY = (110, 110, 110)
_RULE = (200, 200, 200)

#: Bodies of a less probable level are dashed.
DOUBTFUL_LEVEL = 0.8
#: Bodies of a poorer shape, and endplates with less support, are dashed.
DOUBTFUL_SHAPE = 0.5
#: Slips are drawn from this size on; where pixels have no size in mm, from this share of the depth.
SLIP_MM, SLIP_PERCENT = 3.0, 8.0

# Films of fewer rows are enlarged by a whole number, so that letters and lines stay sharp.
_FEW_ROWS = 1500
_PRECISION = {"deg": 1, "mm": 1, "px": 0, "%": 0, "1": 2}
_UNITS = {"deg": "°", "mm": " mm", "px": " px", "%": " %", "1": ""}
_MEYERDING = ("0", "I", "II", "III", "IV", "V")
_NAMES = {
    "lordosis": "Lordosis",
    "sacral_slope": "Sacral slope",
    "cobb": "Cobb angle",
}
_FIRST_LEVEL = re.compile(r"[^A-Z0-9]")
_LEVEL_WORDS = re.compile(r"\b([tls]\d+)\b")


@dataclass(frozen=True, eq=False)
class Study:
    """One film of a patient, for :func:`changes_figure`.

    Attributes:
        label: what tells it from the others, such as `day 0`.
        picture: rows x columns uint8.
        spine: what was found on it.
        measurements: of it.
        spacing_mm: side of a pixel in the patient, None where it is unknown.
    """

    label: str
    picture: np.ndarray
    spine: LabelledSpine
    measurements: Sequence[Measurement]
    spacing_mm: float | None = None


@dataclass(frozen=True)
class _View:
    """Where a film's points lie on a sheet."""

    scale: float = 1.0
    left: float = 0.0  # what the film's upper left corner has to move by, in the film's pixels
    top: float = 0.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return (np.asarray(points, np.float64) - (self.left, self.top)) * self.scale


class _Found(dict[tuple[str, str], Measurement]):
    """Measurements by name and site."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        super().__init__({(m.name, m.site): m for m in measurements})

    def number(self, name: str, site: str) -> Measurement | None:
        """The measurement if it has a value."""
        found = self.get((name, site))
        return None if found is None or found.value is None else found

    def sites(self, names: Sequence[str]) -> list[str]:
        """Where any of these was looked for, from cranial to caudal."""
        found = dict.fromkeys(site for name, site in self if name in names)
        return sorted(found, key=lambda site: RANK.get(_FIRST_LEVEL.split(site)[0], -1))


# The overlay ------------------------------------------------------------------------------------


def overlay(
    picture: np.ndarray,
    spine: LabelledSpine,
    measurements: Sequence[Measurement],
    *,
    title: str = "",
    spacing_mm: float | None = None,
) -> np.ndarray:
    """Draw what was found over a film, beside it a margin with the legend and the values.

    On the film: outlines by class, levels with their probabilities, endplates, corners and
    osteophytes, the segmental angle in front of each disc, the lordosis, and slips of
    :data:`SLIP_MM` or more. What is uncertain is dashed.

    Args:
        picture: rows x columns uint8.
        spine: what was found on it.
        measurements: of it.
        title: the margin's first line, such as the image_id and the network.
        spacing_mm: side of a pixel in the patient, for a scale; None leaves the scale out.

    Returns:
        H x W x 3 uint8 (red, green, blue): the film, enlarged by a whole number if it has few rows,
        and a white margin to its right.
    """
    _check(picture, spine)
    scale = -(-_FEW_ROWS // picture.shape[0]) if picture.shape[0] < _FEW_ROWS else 1
    found = _Found(measurements)
    film = Sheet(spine.rows * scale, spine.columns * scale, BLACK)
    view = _View(scale)
    film.picture(_scaled(picture, scale))
    unit = film.rows / 100
    drawn = _draw_spine(film, view, spine, found, unit)
    lines = [
        *_heading(spine, title),
        *_legend(spine, *drawn),
        *_values(spine, found),
        *_remarks(measurements),
    ]
    margin = _margin(lines, film.rows, unit, None if spacing_mm is None else spacing_mm / scale)
    page = Sheet(max(film.rows, margin.rows), film.columns + margin.columns)
    page.sheet(film)
    page.sheet(margin, (film.columns, 0))
    return page.pixels()


def _check(picture: np.ndarray, spine: LabelledSpine) -> None:
    if picture.shape != (spine.rows, spine.columns):
        raise ValueError(
            f"a film of {spine.rows} x {spine.columns} has no picture of shape {picture.shape}"
        )


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return picture
    size = [max(1, round(n * scale)) for n in picture.shape[::-1]]
    way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(picture, size, interpolation=way)


def _draw_spine(
    sheet: Sheet, view: _View, spine: LabelledSpine, found: _Found, unit: float
) -> tuple[bool, bool]:
    """Draw all that stands on the film; `unit` is a hundredth of its height.

    Returns:
        Whether slips and the lordosis were drawn.
    """
    for implant in spine.implants:
        points = view(implant.outline)
        sheet.line(points, _colour(implant), 0.1 * unit, closed=True, halo=BLACK)
    for vertebra in spine.vertebrae:
        points = view(_contour(vertebra))
        dash = 0.0 if _certain(vertebra) else 0.6 * unit
        sheet.line(points, _colour(vertebra.body), 0.12 * unit, closed=True, dash=dash, halo=BLACK)
    for vertebra in spine.vertebrae:
        _draw_plates(sheet, view, vertebra, unit)
    lordosis = _draw_lordosis(sheet, view, spine, found, unit)
    for vertebra in spine.vertebrae:
        _draw_corners(sheet, view, vertebra, unit)
    forwards = 1.0 if spine.anterior == "right" else -1.0
    slips = False
    for above, below, site in _discs(spine):
        if above.shape is None or below.shape is None:
            continue
        angle = found.number("segmental_angle", site)
        if angle is not None:
            place = _before_disc(view, above.shape, below.shape, below.level, unit, forwards)
            _write(sheet, _say(angle), place, 1.5 * unit, forwards, angle.status == "uncertain")
        slip = found.number("slip", site)
        if slip is not None and _slipped(slip, found):
            _draw_slip(sheet, view, above.shape, below.shape, slip, found, unit, forwards)
            slips = True
    for vertebra in spine.vertebrae:
        _draw_level(sheet, view, vertebra, unit)
    return slips, lordosis


def _before_disc(
    view: _View, above: Shape, below: Shape, level: str | None, unit: float, forwards: float
) -> tuple[float, float]:
    """Where words in front of a disc begin, clear of both bodies and their osteophytes."""
    corners = view(np.array([above.inferior.anterior, below.superior.anterior]))
    # Before S1 is the lordosis.
    y = float(corners[0, 1] if level == "S1" else corners[:, 1].mean())
    spurs = [spur.tip for shape in (above, below) for spur in shape.osteophytes]
    points = np.vstack([corners, view(np.array([*above.contour, *below.contour, *spurs]))])
    # Letters are about this high.
    beside = np.abs(points[:, 1] - y) < 1.5 * unit
    beside[:2] = True
    x = forwards * float((forwards * points[beside, 0]).max())
    return x + forwards * unit, y


def _colour(what: object) -> Colour:
    return COLOURS.get(what.class_name, _OTHER)


def _contour(vertebra: Vertebra) -> np.ndarray:
    """The best outline of a body, N x 2 in px of the film."""
    if vertebra.shape is not None:
        return vertebra.shape.contour
    if vertebra.body.outline is not None:
        return vertebra.body.outline
    return _edge(vertebra)


def _edge(vertebra: Vertebra) -> np.ndarray:
    """The outline of a body's mask through the centres of its outermost pixels."""
    contours, _ = cv2.findContours(
        vertebra.body.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return np.array([vertebra.body.origin], np.float64)
    longest = max(contours, key=len)[:, 0].astype(np.float64)
    return longest + vertebra.body.origin + 0.5


def _certain(vertebra: Vertebra) -> bool:
    return (
        vertebra.level is not None
        and vertebra.level_probability >= DOUBTFUL_LEVEL
        and vertebra.shape is not None
        and vertebra.shape.quality >= DOUBTFUL_SHAPE
        and not vertebra.shape.cut
    )


def _plates(vertebra: Vertebra) -> list[Endplate]:
    """The endplates that count: of the sacrum only the upper one, of its lower pieces none."""
    shape, level = vertebra.shape, vertebra.level
    if shape is None:
        return []
    if level == "S1" or (level is None and vertebra.body.class_name == "sacral_vertebra"):
        return [shape.superior]
    if level is not None and level.startswith("S"):
        return []
    return [shape.superior, shape.inferior]


def _draw_plates(sheet: Sheet, view: _View, vertebra: Vertebra, unit: float) -> None:
    for plate in _plates(vertebra):
        ends = view(np.array([plate.posterior, plate.anterior]))
        dash = 0.0 if plate.support >= DOUBTFUL_SHAPE else 0.6 * unit
        sheet.line(ends, WHITE, 0.12 * unit, dash=dash, halo=BLACK)


def _draw_corners(sheet: Sheet, view: _View, vertebra: Vertebra, unit: float) -> None:
    plates = _plates(vertebra)
    for plate in plates:
        for corner in (plate.posterior, plate.anterior):
            sheet.dot(view(corner), WHITE, 0.28 * unit, halo=BLACK, border=0.1 * unit)
    if plates and vertebra.shape is not None:
        for spur in vertebra.shape.osteophytes:
            corner = vertebra.shape.corners[CORNERS.index(spur.corner)]
            _draw_spur(sheet, view(corner), view(spur.tip), unit)


def _draw_spur(sheet: Sheet, corner: np.ndarray, tip: np.ndarray, unit: float) -> None:
    sheet.line([corner, tip], _ALARM, 0.14 * unit, halo=BLACK)
    across = np.array([[0, -1], [0.87, 0.5], [-0.87, 0.5]]) * 0.5 * unit
    sheet.area(across * 1.5 + tip, BLACK)
    sheet.area(across + tip, _ALARM)


def _draw_level(sheet: Sheet, view: _View, vertebra: Vertebra, unit: float) -> None:
    points = view(_contour(vertebra))
    middle = _centroid(points)
    # In a small body small letters.
    size = min(2.4 * unit, 0.4 * float(np.ptp(points[:, 1])))
    if size < 0.6 * unit:
        return
    doubtful = not _certain(vertebra)
    word = vertebra.level or "?"
    if vertebra.level is None or vertebra.level_probability == 1:
        _write(sheet, word, middle, size, 0, doubtful, weight=600)
        return
    _write(sheet, word, middle - np.array([0, 0.35 * size]), size, 0, doubtful, weight=600)
    share = _percent(vertebra.level_probability)
    place = middle + np.array([0, 0.55 * size])
    sheet.text(
        share, place, 0.55 * size, WHITE, weight=500, align="centre", italic=doubtful, halo=BLACK
    )


def _centroid(points: np.ndarray) -> np.ndarray:
    """The middle of an outline's area."""
    moments = cv2.moments(points.astype(np.float32)[:, None])
    if not moments["m00"]:
        return points.mean(axis=0)
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"]


def _write(
    sheet: Sheet,
    words: str,
    at: Sequence[float],
    size: float,
    side: float,
    uncertain: bool,
    weight: int = 600,
) -> None:
    """Write white words with a dark border: from `at` to the right (1) or left (-1), or on it (0).

    They are moved into the sheet where they would reach out of it.
    """
    words = f"{words}?" if uncertain and not words.endswith("?") else words
    width = text_width(words, size, weight, uncertain)
    start = at[0] - width * (1 - side) / 2
    start = min(max(start, 0.3 * size), sheet.columns - 0.3 * size - width)
    y = min(max(at[1], 0.8 * size), sheet.rows - 0.8 * size)
    sheet.text(words, (start, y), size, WHITE, weight=weight, italic=uncertain, halo=BLACK)


def _discs(spine: LabelledSpine) -> list[tuple[Vertebra, Vertebra, str]]:
    """Neighbours whose levels follow each other, down to S1, and the site of their disc."""
    pairs = zip(spine.vertebrae, spine.vertebrae[1:], strict=False)
    return [
        (above, below, f"{above.level}/{below.level}")
        for above, below in pairs
        if above.level and below.level and not above.level.startswith("S")
    ]


def _slipped(slip: Measurement, found: _Found) -> bool:
    if slip.unit == "mm":
        return abs(slip.value) >= SLIP_MM
    share = found.number("slip_percent", slip.site)
    return share is not None and abs(share.value) >= SLIP_PERCENT


def _draw_slip(
    sheet: Sheet,
    view: _View,
    above: Shape,
    below: Shape,
    slip: Measurement,
    found: _Found,
    unit: float,
    forwards: float,
) -> None:
    corner, start, front = (
        view(p)
        for p in (above.inferior.posterior, below.superior.posterior, below.superior.anterior)
    )
    plate = (front - start) / max(float(np.linalg.norm(front - start)), 1e-9)
    foot = start + ((corner - start) @ plate) * plate
    sheet.line([corner, foot], _ALARM, 0.1 * unit, dash=0.3 * unit, halo=BLACK)
    sheet.line([start, foot], _ALARM, 0.24 * unit, halo=BLACK)
    back = -np.sign((foot - start) @ plate) * plate * 0.6 * unit
    side = np.array([-plate[1], plate[0]]) * 0.35 * unit
    sheet.line([foot + back + side, foot, foot + back - side], _ALARM, 0.16 * unit, halo=BLACK)
    grade = found.number("slip_grade", slip.site)
    lines = [f"slip {_say(slip)}"]
    if grade is not None and round(grade.value) > 0:
        lines.append(f"grade {_MEYERDING[min(round(grade.value), 5)]}")
    x = forwards * min(forwards * corner[0], forwards * start[0]) - forwards * 1.2 * unit
    y = float(corner[1] + start[1]) / 2 - 0.9 * unit * (len(lines) - 1)
    for line in lines:
        _write(sheet, line, (x, y), 1.5 * unit, -forwards, slip.status == "uncertain")
        y += 1.8 * unit


def _draw_lordosis(
    sheet: Sheet, view: _View, spine: LabelledSpine, found: _Found, unit: float
) -> bool:
    """Draw the upper endplates of L1 and S1, the former moved to a point before the latter.

    Where they really meet, or perpendiculars to them, lies beyond many films.

    Returns:
        Whether there is a lordosis to draw.
    """
    lordosis = found.number("lordosis", "L1-S1")
    ends = [v for v in spine.vertebrae if v.level in ("L1", "S1") and v.shape is not None]
    if lordosis is None or [v.level for v in ends] != ["L1", "S1"]:
        return False
    plates = [view(np.array([v.shape.superior.posterior, v.shape.superior.anterior])) for v in ends]
    ways = [(b - a) / max(float(np.linalg.norm(b - a)), 1e-9) for a, b in plates]
    uncertain = lordosis.status == "uncertain"
    dash = 0.6 * unit if uncertain else 0.0
    # As long as there is room before the sacrum.
    room = np.array([sheet.columns, sheet.rows]) - 0.5 * unit
    for size in (1.0, 0.8, 0.6, 0.4):
        length = 6 * size * unit
        vertex = plates[1][1] + 0.7 * length * ways[1]
        tips = vertex + length * np.array(ways)
        if ((tips > 0.5 * unit) & (tips < room)).all():
            break
    for line in (plates[0], [plates[1][0], tips[1]], [vertex, tips[0]]):
        sheet.line(line, WHITE, 0.24 * unit, dash=dash, halo=BLACK)
    angles = [np.arctan2(way[1], way[0]) for way in ways]
    turn = (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi
    along = angles[0] + np.linspace(0, turn, 40)
    arc = np.column_stack([np.cos(along), np.sin(along)])
    sheet.line(vertex + 0.75 * length * arc, WHITE, 0.12 * unit, halo=BLACK)
    forwards = 1.0 if spine.anterior == "right" else -1.0
    place = vertex + (length + 0.7 * unit) * arc[20]
    _write(sheet, "lordosis", place - np.array([0, 1.1 * unit]), 1.6 * unit, forwards, False)
    _write(
        sheet, _say(lordosis), place + np.array([0, 1.1 * unit]), 1.9 * unit, forwards, uncertain
    )
    return True


# Words ------------------------------------------------------------------------------------------


def _say(measurement: Measurement, unit: bool = True) -> str:
    """A value in words, with a true minus sign."""
    if measurement.value is None:
        return "–"
    number = f"{measurement.value:.{_PRECISION.get(measurement.unit, 1)}f}"
    if not number.strip("-0."):
        number = number.lstrip("-")
    return number.replace("-", "−") + (_UNITS.get(measurement.unit, "") if unit else "")


def _percent(share: float) -> str:
    # What is not certain is not rounded up to certainty.
    return f"{min(round(100 * share), 99 if share < 1 else 100)} %"


def _site(site: str) -> str:
    return site.replace("-", "–").replace("_", " ")


# The margin -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    """Words at a place in a line of the margin: from the left, or ending there."""

    words: str
    at: float
    right: bool = False
    weight: int = 400
    italic: bool = False
    colour: Colour = BLACK


@dataclass(frozen=True)
class _Row:
    """A line of the margin; lengths are in sizes of its letters."""

    cells: tuple[_Cell, ...] = ()
    height: float = 1.35
    samples: tuple[tuple[float, str], ...] = ()
    rule: bool = False


# Width of the margin's text, in sizes of its letters.
_WIDTH = 26.0


def _heading(spine: LabelledSpine, title: str) -> list[_Row]:
    # Bold letters are wider than those that lines are broken for.
    lines = wrap(title, 100, 90 * _WIDTH)
    rows = [_Row((_Cell(line, 0, weight=650),), 1.5) for line in lines]
    facing = f"Faces {spine.anterior} ({_percent(spine.anterior_probability)})"
    sacrum = "sacrum seen" if spine.sacrum_seen else "sacrum not seen"
    rows.append(_Row((_Cell(f"{facing}, {sacrum}", 0),)))
    for flag in spine.flags:
        if flag == "sacrum_not_seen" and not spine.sacrum_seen:
            continue
        words = _LEVEL_WORDS.sub(lambda m: m[1].upper(), flag.replace("_", " "))
        rows.append(_Row((_Cell(f"▲ {words}", 0, weight=650),)))
    return rows


def _legend(spine: LabelledSpine, slips: bool, lordosis: bool) -> list[_Row]:
    seen = {v.body.class_name for v in spine.vertebrae} | {i.class_name for i in spine.implants}
    items = [(name, name.replace("_", " ")) for name in COLOURS if name in seen]
    items += [(name, name.replace("_", " ")) for name in sorted(seen - COLOURS.keys())]
    if any(v.shape is not None for v in spine.vertebrae):
        items.append(("endplate", "endplate, corners"))
        items.append(("angle", "segmental angle"))
    if any(v.shape is not None and v.shape.osteophytes for v in spine.vertebrae):
        items.append(("spur", "osteophyte"))
    if slips:
        items.append(("slip", "slip"))
    items.append(("uncertain", "uncertain"))
    rows = [_Row(height=0.4)]
    for k in range(0, len(items), 2):
        pair = [(12.5 * n, *item) for n, item in enumerate(items[k : k + 2])]
        cells = tuple(_Cell(words, at + 2.6) for at, _, words in pair)
        rows.append(_Row(cells, samples=tuple((at, name) for at, name, _ in pair)))
    if lordosis:
        words = "lordosis: L1's endplate, moved to S1's"
        rows.append(_Row((_Cell(words, 2.6),), samples=((0, "lordosis"),)))
    return rows


def _title(words: str) -> list[_Row]:
    return [_Row(height=0.5), _Row((_Cell(words, 0, weight=650),), 1.5)]


def _value_cell(
    measurement: Measurement | None, at: float, unit: bool = False, grade: bool = False
) -> _Cell:
    if measurement is None or measurement.value is None:
        return _Cell("–", at, right=True, colour=_GREY)
    words = f"{measurement.value:.0f}" if grade else _say(measurement, unit)
    uncertain = measurement.status == "uncertain"
    return _Cell(words + "?" * uncertain, at, right=True, italic=uncertain)


def _confidence_cell(measurements: Sequence[Measurement | None], at: float) -> _Cell:
    """The lowest confidence of those that have a value."""
    shares = [m.confidence for m in measurements if m is not None and m.value is not None]
    words = _percent(min(shares)) if shares else "–"
    return _Cell(words, at, right=True, colour=_GREY)


def _heads(*words: tuple[str, float]) -> _Row:
    """Headings of columns; the first begins where it says, the others end there."""
    (first, at), *others = words
    cells = (_Cell(first, at, colour=_GREY), *(_Cell(w, x, True, colour=_GREY) for w, x in others))
    return _Row(cells, 1.3, rule=True)


def _values(spine: LabelledSpine, found: _Found) -> list[_Row]:
    rows = [*_title("Alignment"), _heads(("angle", 0), ("value", 22.0), ("conf.", _WIDTH))]
    start = len(rows)
    for (name, site), m in found.items():
        if name in ("lordosis", "sacral_slope", "cobb"):
            label = _NAMES[name] if name == "sacral_slope" else f"{_NAMES[name]} {_site(site)}"
            cells = (_Cell(label, 0), _value_cell(m, 22.0, True), _confidence_cell([m], _WIDTH))
            rows.append(_Row(cells))
    rows = rows if len(rows) > start else []
    return rows + _disc_rows(found) + _body_rows(spine, found) + _implant_rows(found)


_DISC_HEIGHTS = ("disc_height_anterior", "disc_height_middle", "disc_height_posterior")
_BODY_HEIGHTS = ("body_height_anterior", "body_height_middle", "body_height_posterior")


def _unit_of(found: _Found, names: Sequence[str]) -> str:
    return next((m.unit for (name, _), m in found.items() if name in names), "mm")


def _disc_rows(found: _Found) -> list[_Row]:
    names = ("segmental_angle", *_DISC_HEIGHTS, "slip")
    sites = found.sites(names)
    if not sites:
        return []
    ends = (8.2, 11.6, 15.0, 18.4, 22.0)
    unit = _unit_of(found, (*_DISC_HEIGHTS, "slip"))
    rows = _title(f"Segments: angle °, disc height and slip {unit}")
    heads = ("angle", "ant.", "mid.", "post.", "slip", "conf.")
    rows.append(_heads(("disc", 0), *zip(heads, (*ends, _WIDTH), strict=True)))
    for site in sites:
        row = [found.get((name, site)) for name in names]
        cells = [_value_cell(m, at) for m, at in zip(row, ends, strict=True)]
        rows.append(_Row((_Cell(_site(site), 0), *cells, _confidence_cell(row, _WIDTH))))
    return rows


def _body_rows(spine: LabelledSpine, found: _Found) -> list[_Row]:
    names = (*_BODY_HEIGHTS, "wedge_ratio", "genant_grade")
    levels = found.sites(names)
    if not levels:
        return []
    drawn = {v.level: v for v in spine.vertebrae if v.level}
    ends = (6.3, 9.6, 12.9, 17.2, 22.0)
    rows = _title(f"Bodies: height {_unit_of(found, _BODY_HEIGHTS)}")
    heads = ("ant.", "mid.", "post.", "wedge", "Genant", "conf.")
    rows.append(_heads(("level", 0), *zip(heads, (*ends, _WIDTH), strict=True)))
    for level in levels:
        row = [found.get((name, level)) for name in names]
        doubtful = level in drawn and not _certain(drawn[level])
        cells = [
            _value_cell(m, at, grade=name == "genant_grade")
            for name, m, at in zip(names, row, ends, strict=True)
        ]
        first = _Cell(level + "?" * doubtful, 0, italic=doubtful)
        rows.append(_Row((first, *cells, _confidence_cell(row, _WIDTH))))
    return rows


def _implant_rows(found: _Found) -> list[_Row]:
    names = ("screw_endplate_angle", "screw_tip_to_anterior_wall", "cage_position")
    sites = found.sites(names)
    if not sites:
        return []
    ends = (12.5, 17.5, 22.0)
    heads = ("angle °", f"tip {_unit_of(found, names[1:2])}", "cage", "conf.")
    rows = _title("Implants: angle and tip of screws, place of cages")
    rows.append(_heads(("implant", 0), *zip(heads, (*ends, _WIDTH), strict=True)))
    for site in sites:
        row = [found.get((name, site)) for name in names]
        # Screws have no place in a disc, and cages no tip.
        cells = [_value_cell(m, at) for m, at in zip(row, ends, strict=True) if m is not None]
        rows.append(_Row((_Cell(_site(site), 0), *cells, _confidence_cell(row, _WIDTH))))
    return rows


# More reasons than this are left to the table.
_MOST_REMARKS = 6


def _remarks(measurements: Sequence[Measurement]) -> list[_Row]:
    """Why values are uncertain or missing: each reason once, with the sites that it concerns."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for m in measurements:
        if m.status != "measured" and m.reason:
            sites = reasons.setdefault((m.status, m.reason), [])
            if m.site not in sites:
                sites.append(m.site)
    if not reasons:
        return []
    rows = _title("Remarks")
    for (status, reason), sites in list(reasons.items())[:_MOST_REMARKS]:
        more = f" and {len(sites) - 4} more" if len(sites) > 4 else ""
        where = ", ".join(_site(site) for site in sites[:4]) + more
        kind = "not measured" if status == "not_measurable" else status
        for line in wrap(f"{where}: {kind}, {reason}", 100, 100 * _WIDTH):
            rows.append(_Row((_Cell(line, 0, colour=_GREY),), 1.25))
    if len(reasons) > _MOST_REMARKS:
        words = f"{len(reasons) - _MOST_REMARKS} more reasons are in the table of measurements."
        rows.append(_Row((_Cell(words, 0, colour=_GREY),), 1.25))
    return rows


def _margin(rows: Sequence[_Row], height: int, unit: float, pixel_mm: float | None) -> Sheet:
    """The margin as a sheet: as high as the film, or higher where there is too much to say."""
    if pixel_mm is not None:
        rows = [*rows, _Row(height=0.8), _Row(height=1.5)]
    needed = sum(row.height for row in rows) + 2.0
    size = max(min(1.5 * unit, height / needed), 0.95 * unit)
    sheet = Sheet(max(height, round(needed * size)), round((_WIDTH + 2.4) * size))
    left, y = 1.2 * size, 1.0 * size
    for row in rows:
        middle = y + row.height * size / 2
        for cell in row.cells:
            align = "right" if cell.right else "left"
            sheet.text(
                cell.words, (left + cell.at * size, middle), size, cell.colour,
                weight=cell.weight, align=align, italic=cell.italic,
            )  # fmt: skip
        for at, name in row.samples:
            _sample(sheet, name, (left + at * size, middle), size)
        y += row.height * size
        if row.rule:
            ends = [(left, y), (left + _WIDTH * size, y)]
            sheet.line(ends, _RULE, max(1.0, 0.05 * size))
    if pixel_mm is not None:
        _scale_bar(sheet, (left, y - 0.75 * size), size, pixel_mm)
    return sheet


def _scale_bar(sheet: Sheet, at: tuple[float, float], size: float, pixel_mm: float) -> None:
    """A bar of a round length, as long as it would be on the film."""
    longest = 14 * size * pixel_mm
    length = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= longest), default=1)
    (x, y), end = at, at[0] + length / pixel_mm
    tick = 0.35 * size
    sheet.line(
        [(x, y - tick), (x, y + tick), (x, y), (end, y), (end, y - tick), (end, y + tick)],
        BLACK,
        0.1 * size,
    )
    sheet.text(f"{length} mm in the patient", (end + 0.8 * size, y), size)


def _sample(sheet: Sheet, name: str, at: tuple[float, float], size: float) -> None:
    """A specimen of what is drawn on the film, on a dark ground as there."""
    x, y = at
    wide, high = 2.0 * size, 0.55 * size
    box = np.array([(x, y - high), (x + wide, y - high), (x + wide, y + high), (x, y + high)])
    sheet.area(box, (60, 60, 60))
    ends = np.array([(x + 0.25 * size, y), (x + wide - 0.25 * size, y)])
    match name:
        case "endplate":
            sheet.line(ends, WHITE, 0.09 * size, halo=BLACK)
            for end in ends:
                sheet.dot(end, WHITE, 0.19 * size, halo=BLACK, border=0.07 * size)
        case "lordosis":
            for turn in (-0.45, 0.45):
                tip = ends[0] + 1.5 * size * np.array([np.cos(turn), np.sin(turn)])
                tip[1] = min(max(tip[1], y - 0.42 * size), y + 0.42 * size)
                sheet.line([ends[0], tip], WHITE, 0.16 * size, halo=BLACK)
        case "angle":
            sheet.text("12°", (x + wide / 2, y), 0.8 * size, WHITE, weight=500, align="centre")
        case "spur":
            _draw_spur(sheet, ends[0], ends[1], 0.6 * size)
        case "slip":
            sheet.line(ends, _ALARM, 0.16 * size, halo=BLACK)
            tip = ends[1] + np.array([(-0.4, -0.25), (0, 0), (-0.4, 0.25)]) * size
            sheet.line(tip, _ALARM, 0.11 * size, halo=BLACK)
        case "uncertain":
            sheet.line(ends - (0, 0.25 * size), WHITE, 0.09 * size, dash=0.3 * size)
            place = (x + wide / 2, y + 0.2 * size)
            sheet.text("L3?", place, 0.6 * size, WHITE, align="centre", italic=True)
        case _:
            sheet.line(ends, COLOURS.get(name, _OTHER), 0.12 * size, halo=BLACK)


# The steps of the geometry ----------------------------------------------------------------------

#: Sides of a step's picture and of the gaps between them, and size of the captions, px.
_SIDE, _GAP, _CAPTION = 600, 36, 26


def geometry_steps(
    picture: np.ndarray,
    spine: LabelledSpine,
    index: int,
    measurements: Sequence[Measurement] = (),
) -> np.ndarray:
    """How one body is measured, step by step, as in Figure 8 of the paper.

    A the mask; B its contour; C osteophytes, by subtraction and opening; D corners; E endplates;
    F heights. Of a body without a shape there are A and B only.

    Args:
        picture: rows x columns uint8.
        spine: what was found on it.
        index: which of its vertebrae.
        measurements: of the film; heights that are not among them are written in pixels.

    Returns:
        H x W x 3 uint8 (red, green, blue).
    """
    return _steps(picture, spine, index, measurements).pixels()


def geometry_steps_svg(
    picture: np.ndarray,
    spine: LabelledSpine,
    index: int,
    measurements: Sequence[Measurement] = (),
) -> str:
    """The same as :func:`geometry_steps`, as an SVG document whose lines and words stay sharp."""
    return _steps(picture, spine, index, measurements).svg()


def _steps(
    picture: np.ndarray, spine: LabelledSpine, index: int, measurements: Sequence[Measurement]
) -> Sheet:
    _check(picture, spine)
    vertebra = spine.vertebrae[index]
    outline = np.vstack([_edge(vertebra), _contour(vertebra)])
    low, high = outline.min(axis=0), outline.max(axis=0)
    side = 1.5 * max(*(high - low), 1.0)
    left, top = (low + high - side) / 2
    view = _View(_SIDE / side, left, top)
    film = _cut(picture, view, _SIDE, _SIDE)
    found = _Found(measurements)
    panels = [_mask_step(view, vertebra), _contour_step(view, vertebra)]
    shape = vertebra.shape
    if shape is not None:
        panels.append(_osteophyte_step(view, vertebra, shape, found))
        panels.append(_corner_step(view, vertebra, shape))
        panels.append(_endplate_step(view, vertebra, shape))
        panels.append(_height_step(view, vertebra, shape, found))
    captions = [wrap(words, _CAPTION, _SIDE) for _, _, words in panels]
    below = round(1.4 * _CAPTION * (max(map(len, captions)) + 1) + _GAP)
    across = min(3, len(panels))
    rows = -(-len(panels) // across)
    head = 2 * _CAPTION + 2 * _GAP
    page = Sheet(head + rows * (_SIDE + below + _GAP // 2), across * (_SIDE + _GAP) + _GAP)
    level = vertebra.level or "unknown"
    sure = vertebra.level is None or vertebra.level_probability == 1
    chance = "" if sure else f" ({_percent(vertebra.level_probability)})"
    words = f"Level {level}{chance}, patient faces {spine.anterior}"
    page.text(words, (_GAP, _GAP + _CAPTION / 2), 1.3 * _CAPTION, weight=650)
    for k, ((title, draw, _), caption) in enumerate(zip(panels, captions, strict=True)):
        x = _GAP + (k % across) * (_SIDE + _GAP)
        y = head - _GAP // 2 + (k // across) * (_SIDE + below)
        panel = Sheet(_SIDE, _SIDE, BLACK)
        panel.picture(film)
        draw(panel)
        page.sheet(panel, (x, y))
        line = y + _SIDE + _CAPTION
        page.text(f"{'ABCDEF'[k]}  {title}", (x, line), 1.1 * _CAPTION, weight=650)
        for number, words in enumerate(caption, 1):
            page.text(words, (x, line + 1.4 * number * _CAPTION), _CAPTION)
    return page


#: Title, what draws on the panel, and caption.
_Step = tuple[str, Callable[[Sheet], None], str]
_PEN = _SIDE / 55  # the `unit` of panels


def _mask_step(view: _View, vertebra: Vertebra) -> _Step:
    body = vertebra.body
    done = {"split": ", split from a fused one", "merged": ", merged of pieces"}
    kind = body.class_name.replace("_", " ").capitalize()

    def draw(panel: Sheet) -> None:
        _fill(panel, _mask_window(view, vertebra), _colour(body), 0.5)

    if body.outline is not None:
        return "Mask", draw, f"{kind}, drawn by an annotator."
    return "Mask", draw, f"{kind}, score {body.score:.2f}{done.get(body.repair, '')}."


def _contour_step(view: _View, vertebra: Vertebra) -> _Step:
    def draw(panel: Sheet) -> None:
        _fill(panel, _mask_window(view, vertebra), WHITE, 0.3)
        points = view(_contour(vertebra))
        dash = 0.0 if vertebra.shape is not None else _PEN
        panel.line(points, _colour(vertebra.body), 0.18 * _PEN, closed=True, dash=dash, halo=BLACK)

    if vertebra.shape is None:
        return "Contour", draw, "Not that of one body seen whole: nothing is measured on it."
    if vertebra.body.outline is not None:
        return "Contour", draw, "As drawn, over the mask (light)."
    return "Contour", draw, "The edge of the mask (light), smoothed to fractions of a pixel."


def _mask_window(view: _View, vertebra: Vertebra) -> np.ndarray:
    """A body's mask as it lies on a panel, its pixels squares: H x W uint8 of 0 and 1."""
    shift = view(np.array(vertebra.body.origin)) + (view.scale - 1) / 2
    matrix = np.array([[view.scale, 0, shift[0]], [0, view.scale, shift[1]]])
    mask = vertebra.body.mask.astype(np.uint8)
    return cv2.warpAffine(mask, matrix, (_SIDE, _SIDE), flags=cv2.INTER_NEAREST)


def _osteophyte_step(view: _View, vertebra: Vertebra, shape: Shape, found: _Found) -> _Step:
    def draw(panel: Sheet) -> None:
        points = view(shape.contour)
        plain = view(_plain(shape))
        masks = np.zeros((2, _SIDE, _SIDE), np.uint8)
        for mask, outline in zip(masks, (points, plain), strict=True):
            cv2.fillPoly(mask, [np.rint(outline - 0.5).astype(np.int32)], 1)
        depth = float(np.linalg.norm(plain[0] - plain[_BOW]))
        disc = _disc(0.03 * depth)
        left = masks[0] & ~cv2.dilate(masks[1], _disc(0.02 * depth))
        _, pieces = cv2.connectedComponents(cv2.morphologyEx(left, cv2.MORPH_OPEN, disc))
        panel.area(plain, _colour(vertebra.body), 0.4)
        # A tip may lie a little beside the pixels that it was found from.
        reach = round(0.1 * depth)
        spurs = set()
        for spur in shape.osteophytes:
            x, y = np.rint(view(spur.tip)).astype(int)
            near = pieces[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            spurs |= set(near[near > 0].tolist())
        _fill(panel, np.isin(pieces, list(spurs)).astype(np.uint8), _ALARM, 0.7)
        panel.line(points, WHITE, 0.1 * _PEN, closed=True, halo=BLACK)
        for spur in shape.osteophytes:
            corner = view(shape.corners[CORNERS.index(spur.corner)])
            tip = view(spur.tip)
            _draw_spur(panel, corner, tip, _PEN)
            out = 1.0 if tip[0] > _SIDE / 2 else -1.0
            place = tip + np.array([out * 1.2 * _PEN, 0])
            known = found.number("osteophyte_length", f"{vertebra.level} {spur.corner}")
            length = f"{spur.length_px:.0f} px" if known is None else _say(known)
            doubtful = known is not None and known.status == "uncertain"
            _write(panel, length, place, 2.4 * _PEN, out, doubtful)

    words = "The contour less the body within its smooth sides; opening drops slivers. "
    count = len(shape.osteophytes)
    said = {0: "No spur reaches beyond a wall.", 1: "One spur reaches beyond its wall."}
    return "Osteophytes", draw, words + said.get(count, f"{count} spurs reach beyond their walls.")


# Points of a bowed side.
_BOW = 16


def _plain(shape: Shape) -> np.ndarray:
    """A body's outline without osteophytes: its corners joined by bowed sides, N x 2 px."""
    corners = shape.corners
    depth = np.linalg.norm(corners[1] - corners[0])
    share = np.linspace(0, 1, _BOW, endpoint=False)[:, None]
    sides = []
    for number, start in enumerate(corners):
        end = corners[(number + 1) % 4]
        along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
        out = np.array([along[1], -along[0]])
        if number in (0, 2):
            middle = (shape.superior if number == 0 else shape.inferior).middle
            bow = float((middle - (start + end) / 2) @ out)
        else:
            # Walls: where the contour crosses half-way.
            away = shape.contour - (start + end) / 2
            near = (np.abs(away @ along) < 0.1 * depth) & (np.abs(away @ out) < 0.3 * depth)
            bow = float(np.median(away[near] @ out)) if near.any() else 0.0
        sides.append(start + share * (end - start) + 4 * bow * share * (1 - share) * out)
    return np.vstack(sides)


def _disc(radius: float) -> np.ndarray:
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _corner_step(view: _View, vertebra: Vertebra, shape: Shape) -> _Step:
    def draw(panel: Sheet) -> None:
        panel.line(
            view(shape.contour), _colour(vertebra.body), 0.14 * _PEN, closed=True, halo=BLACK
        )
        for name, corner in zip(("PS", "AS", "AI", "PI"), view(shape.corners), strict=True):
            panel.dot(corner, WHITE, 0.5 * _PEN, halo=BLACK, border=0.16 * _PEN)
            out = corner - view(shape.corners).mean(axis=0)
            place = corner + out / max(float(np.linalg.norm(out)), 1e-9) * 2.6 * _PEN
            _write(panel, name, place, 2.4 * _PEN, 0, False)

    words = "Where the lines of endplates and walls meet, without osteophytes; "
    return "Corners", draw, words + "A anterior, P posterior, S superior, I inferior."


def _endplate_step(view: _View, vertebra: Vertebra, shape: Shape) -> _Step:
    def draw(panel: Sheet) -> None:
        panel.line(
            view(shape.contour), _colour(vertebra.body), 0.14 * _PEN, closed=True, halo=BLACK
        )
        for plate in (shape.superior, shape.inferior):
            ends = view(np.array([plate.posterior, plate.anterior]))
            dash = 0.0 if plate.support >= DOUBTFUL_SHAPE else _PEN
            panel.line(ends, WHITE, 0.26 * _PEN, dash=dash, halo=BLACK)
            for end in ends:
                panel.dot(end, WHITE, 0.4 * _PEN, halo=BLACK, border=0.14 * _PEN)
            panel.dot(view(plate.middle), _ALARM, 0.5 * _PEN, halo=BLACK, border=0.16 * _PEN)

    told = [
        f"{name}: residual {plate.residual_px:.1f} px, support {_percent(plate.support)}"
        for name, plate in (("Upper", shape.superior), ("lower", shape.inferior))
    ]
    words = "From corner to corner; the dot is the contour's middle. "
    return "Endplates", draw, f"{words}{'; '.join(told)}."


def _height_step(view: _View, vertebra: Vertebra, shape: Shape, found: _Found) -> _Step:
    upper, lower = shape.superior, shape.inferior
    lines = {
        "anterior": (upper.anterior, lower.anterior),
        "middle": (upper.middle, lower.middle),
        "posterior": (upper.posterior, lower.posterior),
    }
    site = vertebra.level or ""

    def draw(panel: Sheet) -> None:
        panel.line(
            view(shape.contour), _colour(vertebra.body), 0.14 * _PEN, closed=True, halo=BLACK
        )
        for part, ends in lines.items():
            length = float(np.linalg.norm(ends[0] - ends[1]))
            known = found.number(f"body_height_{part}", site)
            words = f"{length:.0f} px" if known is None else _say(known)
            line = view(np.array(ends))
            panel.line(line, WHITE, 0.2 * _PEN, halo=BLACK)
            for end in line:
                panel.dot(end, WHITE, 0.4 * _PEN, halo=BLACK, border=0.14 * _PEN)
            doubtful = known is not None and known.status == "uncertain"
            _write(panel, words, line.mean(axis=0), 2.4 * _PEN, 0, doubtful)

    words = "Between the corners of the front and the back, and between the middles."
    said = [
        f"{label} {_say(m)}"
        for label, name in (("wedge ratio", "wedge_ratio"), ("biconcavity", "biconcavity_ratio"))
        if (m := found.number(name, site)) is not None
    ]
    more = f" {', '.join(said).capitalize()}." if said else ""
    return "Heights", draw, words + more


def _fill(panel: Sheet, ink: np.ndarray, colour: Colour, opacity: float) -> None:
    """Colour the pixels of a panel that are set."""
    contours, _ = cv2.findContours(ink, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        if len(contour) > 2:
            panel.area(contour[:, 0] + 0.5, colour, opacity)


def _cut(picture: np.ndarray, view: _View, rows: int, columns: int) -> np.ndarray:
    """The part of a film that a view shows, rows x columns uint8; black beyond its edges."""
    factor = np.ones(2)
    if view.scale < 1:
        # Averages first: what is made smaller by picking pixels has false patterns.
        before = np.array(picture.shape[::-1])
        picture = _scaled(picture, view.scale)
        factor = np.array(picture.shape[::-1]) / before
    scale = view.scale / factor
    shift = -np.array([view.left, view.top]) * view.scale + (scale - 1) / 2
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return cv2.warpAffine(picture, matrix, (columns, rows), flags=cv2.INTER_CUBIC)


# Over time --------------------------------------------------------------------------------------

#: Height of the films of a patient's studies, and the most that they are wide together, px.
_FILM_ROWS, _FILM_COLUMNS = 1500, 3000
#: More changes than this are left to the table.
_MOST_CHANGES = 14


def changes_figure(studies: Sequence[Study], changes: pd.DataFrame, title: str = "") -> np.ndarray:
    """A patient's studies side by side at one scale, and the measurements that changed.

    The scale is that of the patient where the pixels' sizes are known on all films; otherwise
    bodies are made equally deep. Films are cut to the spine.

    Args:
        studies: two to four, the first first.
        changes: of this patient, as :func:`.changes.changes` tells.
        title: the first line, such as the patient's pseudonym.

    Returns:
        H x W x 3 uint8 (red, green, blue).
    """
    if not studies:
        raise ValueError("a figure of changes needs studies")
    for study in studies:
        _check(study.picture, study.spine)
    boxes = [_spine_box(study.spine) for study in studies]
    sizes = _pixel_sizes(studies)
    wide = max((box[2] - box[0] + 1) * size for box, size in zip(boxes, sizes, strict=True))
    high = max((box[3] - box[1] + 1) * size for box, size in zip(boxes, sizes, strict=True))
    # Room in front of the spine and behind it for words.
    wide, high = wide + 0.24 * high, 1.1 * high
    gap = 30
    most = (_FILM_COLUMNS - gap * (len(studies) + 1)) / len(studies)
    per = min(_FILM_ROWS / high, most / wide)  # pixels of the figure per unit of length
    rows, columns = round(high * per), round(wide * per)
    unit = rows / 88
    size = 1.75 * unit
    head = round(gap + (3.2 * size if title else 1.6 * size))
    width = gap + len(studies) * (columns + gap)
    lines = _change_lines(studies, changes)
    page = Sheet(round(head + rows + (len(lines) * 1.5 + 1.5) * size), width)
    if title:
        page.text(title, (gap, gap + 0.7 * size), 1.15 * size, weight=650)
    for k, (study, box, pixel) in enumerate(zip(studies, boxes, sizes, strict=True)):
        scale = pixel * per
        left = (box[0] + box[2]) / 2 - columns / scale / 2
        top = (box[1] + box[3]) / 2 - rows / scale / 2
        view = _View(scale, left, top)
        panel = Sheet(rows, columns, BLACK)
        panel.picture(_cut(study.picture, view, rows, columns))
        _draw_spine(panel, view, study.spine, _Found(study.measurements), unit)
        x = gap + k * (columns + gap)
        page.sheet(panel, (x, head))
        page.text(study.label, (x, head - 0.85 * size), size, weight=650)
    y = head + rows + 1.2 * size
    # Columns of the table: the name, a column a study, the change, what can be detected.
    first = 14 * size
    step = min((width - 2 * gap - first) / (len(studies) + 2.5), 9 * size)
    ends = [gap] + [gap + first + n * step for n in range(1, len(studies) + 2)]
    ends.append(ends[-1] + 1.5 * step)
    for line in lines:
        for number, (x, cell) in enumerate(zip(ends, line, strict=False)):
            align = "right" if number else "left"
            page.text(
                cell.words, (x, y), size, cell.colour,
                weight=cell.weight, align=align, italic=cell.italic,
            )  # fmt: skip
        y += 1.5 * size
    return page.pixels()


def _spine_box(spine: LabelledSpine) -> np.ndarray:
    """x0, y0, x1, y1 of all bodies, px; the whole film where there are none."""
    if not spine.vertebrae:
        return np.array([0.0, 0.0, spine.columns, spine.rows])
    points = np.vstack([_contour(vertebra) for vertebra in spine.vertebrae])
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _pixel_sizes(studies: Sequence[Study]) -> list[float]:
    """The side of each film's pixels, in mm or in depths of a body."""
    known = [study.spacing_mm for study in studies if study.spacing_mm is not None]
    if len(known) == len(studies):
        return known
    sizes = []
    for study in studies:
        shapes = [v.shape for v in study.spine.vertebrae if v.shape is not None]
        depths = [np.linalg.norm(shape.corners[1] - shape.corners[0]) for shape in shapes]
        sizes.append(1 / max(float(np.median(depths)), 1.0) if depths else 1 / study.spine.rows)
    return sizes


def _change_lines(studies: Sequence[Study], changes: pd.DataFrame) -> list[list[_Cell]]:
    """The table below the films: a line for each measurement that changed between two of them."""
    rows = changes.to_dict("records")
    changed = dict.fromkeys((r["name"], r["site"]) for r in rows if r["status"] == "changed")
    total = {(r["name"], r["site"]): r for r in rows if r["first_to_last"]}
    values = [_Found(study.measurements) for study in studies]
    heads = ["changed", *(study.label for study in studies), "change", "smallest detectable"]
    lines = [[_Cell(words, 0, colour=_GREY) for words in heads]] if changed else []
    for name, site in list(changed)[:_MOST_CHANGES]:
        line = [_Cell(f"{_title_of(name)} {_site(site)}", 0)]
        for found in values:
            cell = _value_cell(found.get((name, site)), 0, unit=True)
            line.append(cell)
        row = total.get((name, site))
        if row is None or pd.isna(row["change"]):
            line += [_Cell("–", 0, colour=_GREY)] * 2
        else:
            change, least = (
                _say(Measurement(name, site, float(value), row["unit"], 1.0, "measured"))
                for value in (row["change"], row["smallest_detectable_change"])
            )
            sign = "+" if row["change"] > 0 else ""
            weight = 650 if row["status"] == "changed" else 400
            line += [_Cell(sign + change, 0, weight=weight), _Cell(least, 0, colour=_GREY)]
        lines.append(line)
    counts = {status: sum(r["status"] == status for r in total.values()) for status in _COUNTED}
    told = ", ".join(f"{count} {_COUNTED[status]}" for status, count in counts.items())
    if len(changed) > _MOST_CHANGES:
        told = f"{len(changed) - _MOST_CHANGES} more changed; {told}"
    lines.append([_Cell(f"First to last: {told}.", 0, colour=_GREY)])
    return lines


_COUNTED = {
    "changed": "changed beyond the error of measuring",
    "within_error": "within it",
    "not_comparable": "not comparable",
}


def _title_of(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " ").capitalize())
