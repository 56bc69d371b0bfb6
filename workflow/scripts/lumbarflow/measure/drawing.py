"""Drawing on films: bodies, endplates, angles, slips and implants where they were found.

Colours are Okabe and Ito's ("Color Universal Design", 2008), told apart with every kind of colour
vision, and light enough to stand on a film with a dark border; what is uncertain is also dashed, in
slanted letters or followed by a question mark, so that prints without colour tell it too. Sizes of
letters and lines follow the size of the film: at a height of 20 cm all can be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..annotate.spine import RANK
from .anatomy import CORNERS, Body, Endplate, Implant, LabelledSpine, Measurement, Shape, Vertebra
from .sheet import BLACK, WHITE, Colour, Sheet, text_width

#: Red, green, blue of each class; others are grey.
COLOURS: dict[str, Colour] = {
    "lumbar_vertebra": (86, 180, 233),
    "sacral_vertebra": (230, 159, 0),
    "cage": (0, 200, 150),
    "screw": (240, 228, 66),
    "instrumentation": (204, 121, 167),
}
OTHER = (190, 190, 190)
ALARM = (255, 130, 50)  # vermilion, a little lighter: slips and osteophytes
GREY = (110, 110, 110)

#: Bodies of a less probable level are dashed.
DOUBTFUL_LEVEL = 0.8
#: Bodies of a poorer shape, and endplates with less support, are dashed.
DOUBTFUL_SHAPE = 0.5
#: Slips are drawn from this size on; where pixels have no size in mm, from this share of the depth.
SLIP_MM, SLIP_PERCENT = 3.0, 8.0

_PRECISION = {"deg": 1, "mm": 1, "px": 0, "%": 0, "1": 2}
_UNITS = {"deg": "°", "mm": " mm", "px": " px", "%": " %", "1": ""}
_MEYERDING = ("0", "I", "II", "III", "IV", "V")
#: Words for names that are not their own.
NAMES = {
    "lordosis": "Lordosis",
    "sacral_slope": "Sacral slope",
    "cobb": "Cobb angle",
}
_FIRST_LEVEL = re.compile(r"[^A-Z0-9]")


@dataclass(frozen=True)
class View:
    """Where points of a film lie on a sheet.

    Attributes:
        scale: pixels of the sheet to one of the film.
        left, top: the point of the film, px, that lies in the sheet's upper left corner.
    """

    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return (np.asarray(points, np.float64) - (self.left, self.top)) * self.scale


class Found(dict[tuple[str, str], Measurement]):
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


def scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    """A film (rows x columns uint8) made larger or smaller."""
    if scale == 1:
        return picture
    size = [max(1, round(n * scale)) for n in picture.shape[::-1]]
    way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(picture, size, interpolation=way)


def draw_spine(
    sheet: Sheet, view: View, spine: LabelledSpine, found: Found, unit: float
) -> tuple[bool, bool]:
    """Draw all that stands on the film; `unit` is a hundredth of its height.

    Returns:
        Whether slips and the lordosis were drawn.
    """
    for implant in spine.implants:
        points = view(implant.outline)
        sheet.line(points, colour_of(implant), 0.1 * unit, closed=True, halo=BLACK)
    for vertebra in spine.vertebrae:
        points = view(outline_of(vertebra))
        dash = 0.0 if is_certain(vertebra) else 0.6 * unit
        sheet.line(
            points, colour_of(vertebra.body), 0.12 * unit, closed=True, dash=dash, halo=BLACK
        )
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
            write(sheet, say(angle), place, 1.5 * unit, forwards, angle.status == "uncertain")
        slip = found.number("slip", site)
        if slip is not None and _slipped(slip, found):
            _draw_slip(sheet, view, above.shape, below.shape, slip, found, unit, forwards)
            slips = True
    for vertebra in spine.vertebrae:
        _draw_level(sheet, view, vertebra, unit)
    return slips, lordosis


def _before_disc(
    view: View, above: Shape, below: Shape, level: str | None, unit: float, forwards: float
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


def colour_of(what: Body | Implant) -> Colour:
    """The colour of its class."""
    return COLOURS.get(what.class_name, OTHER)


def outline_of(vertebra: Vertebra) -> np.ndarray:
    """The best outline of a body, N x 2 in px of the film."""
    if vertebra.shape is not None:
        return vertebra.shape.contour
    if vertebra.body.outline is not None:
        return vertebra.body.outline
    return edge_of(vertebra)


def edge_of(vertebra: Vertebra) -> np.ndarray:
    """The outline of a body's mask through the centres of its outermost pixels."""
    contours, _ = cv2.findContours(
        vertebra.body.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return np.array([vertebra.body.origin], np.float64)
    longest = max(contours, key=len)[:, 0].astype(np.float64)
    return longest + vertebra.body.origin + 0.5


def is_certain(vertebra: Vertebra) -> bool:
    """Whether a body is drawn without reserve."""
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


def _draw_plates(sheet: Sheet, view: View, vertebra: Vertebra, unit: float) -> None:
    for plate in _plates(vertebra):
        ends = view(np.array([plate.posterior, plate.anterior]))
        dash = 0.0 if plate.support >= DOUBTFUL_SHAPE else 0.6 * unit
        sheet.line(ends, WHITE, 0.12 * unit, dash=dash, halo=BLACK)


def _draw_corners(sheet: Sheet, view: View, vertebra: Vertebra, unit: float) -> None:
    plates = _plates(vertebra)
    for plate in plates:
        for corner in (plate.posterior, plate.anterior):
            sheet.dot(view(corner), WHITE, 0.28 * unit, halo=BLACK, border=0.1 * unit)
    if plates and vertebra.shape is not None:
        for spur in vertebra.shape.osteophytes:
            corner = vertebra.shape.corners[CORNERS.index(spur.corner)]
            draw_spur(sheet, view(corner), view(spur.tip), unit)


def draw_spur(sheet: Sheet, corner: np.ndarray, tip: np.ndarray, unit: float) -> None:
    """Draw an osteophyte: a line from its corner to a triangle on its tip."""
    sheet.line([corner, tip], ALARM, 0.14 * unit, halo=BLACK)
    across = np.array([[0, -1], [0.87, 0.5], [-0.87, 0.5]]) * 0.5 * unit
    sheet.area(across * 1.5 + tip, BLACK)
    sheet.area(across + tip, ALARM)


def _draw_level(sheet: Sheet, view: View, vertebra: Vertebra, unit: float) -> None:
    points = view(outline_of(vertebra))
    middle = _centroid(points)
    # In a small body small letters.
    size = min(2.4 * unit, 0.4 * float(np.ptp(points[:, 1])))
    if size < 0.6 * unit:
        return
    doubtful = not is_certain(vertebra)
    word = vertebra.level or "?"
    if vertebra.level is None or vertebra.level_probability == 1:
        write(sheet, word, middle, size, 0, doubtful, weight=600)
        return
    write(sheet, word, middle - np.array([0, 0.35 * size]), size, 0, doubtful, weight=600)
    share = percent(vertebra.level_probability)
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


def write(
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


def _slipped(slip: Measurement, found: Found) -> bool:
    if slip.unit == "mm":
        return abs(slip.value) >= SLIP_MM
    share = found.number("slip_percent", slip.site)
    return share is not None and abs(share.value) >= SLIP_PERCENT


def _draw_slip(
    sheet: Sheet,
    view: View,
    above: Shape,
    below: Shape,
    slip: Measurement,
    found: Found,
    unit: float,
    forwards: float,
) -> None:
    corner, start, front = (
        view(p)
        for p in (above.inferior.posterior, below.superior.posterior, below.superior.anterior)
    )
    plate = (front - start) / max(float(np.linalg.norm(front - start)), 1e-9)
    foot = start + ((corner - start) @ plate) * plate
    sheet.line([corner, foot], ALARM, 0.1 * unit, dash=0.3 * unit, halo=BLACK)
    sheet.line([start, foot], ALARM, 0.24 * unit, halo=BLACK)
    back = -np.sign((foot - start) @ plate) * plate * 0.6 * unit
    side = np.array([-plate[1], plate[0]]) * 0.35 * unit
    sheet.line([foot + back + side, foot, foot + back - side], ALARM, 0.16 * unit, halo=BLACK)
    grade = found.number("slip_grade", slip.site)
    lines = [f"slip {say(slip)}"]
    if grade is not None and round(grade.value) > 0:
        lines.append(f"grade {_MEYERDING[min(round(grade.value), 5)]}")
    x = forwards * min(forwards * corner[0], forwards * start[0]) - forwards * 1.2 * unit
    y = float(corner[1] + start[1]) / 2 - 0.9 * unit * (len(lines) - 1)
    for line in lines:
        write(sheet, line, (x, y), 1.5 * unit, -forwards, slip.status == "uncertain")
        y += 1.8 * unit


def _draw_lordosis(
    sheet: Sheet, view: View, spine: LabelledSpine, found: Found, unit: float
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
    write(sheet, "lordosis", place - np.array([0, 1.1 * unit]), 1.6 * unit, forwards, False)
    write(sheet, say(lordosis), place + np.array([0, 1.1 * unit]), 1.9 * unit, forwards, uncertain)
    return True


def say(measurement: Measurement, unit: bool = True) -> str:
    """A value in words, with a true minus sign."""
    if measurement.value is None:
        return "–"
    number = f"{measurement.value:.{_PRECISION.get(measurement.unit, 1)}f}"
    if not number.strip("-0."):
        number = number.lstrip("-")
    return number.replace("-", "−") + (_UNITS.get(measurement.unit, "") if unit else "")


def percent(share: float) -> str:
    """A probability in words."""
    # What is not certain is not rounded up to certainty.
    return f"{min(round(100 * share), 99 if share < 1 else 100)} %"


def site_words(site: str) -> str:
    """A site as it is printed."""
    return site.replace("-", "–").replace("_", " ")


def name_words(name: str) -> str:
    """A name as it is printed."""
    return NAMES.get(name, name.replace("_", " ").capitalize())
