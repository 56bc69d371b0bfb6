"""The margin beside an overlay: the legend, the values, and why some are missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .anatomy import LabelledSpine, Measurement
from .drawing import (
    ALARM,
    COLOURS,
    GREY,
    NAMES,
    OTHER,
    Found,
    draw_spur,
    is_certain,
    percent,
    say,
    site_words,
)
from .sheet import BLACK, WHITE, Colour, Sheet, wrap


@dataclass(frozen=True)
class Cell:
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

    cells: tuple[Cell, ...] = ()
    height: float = 1.35
    samples: tuple[tuple[float, str], ...] = ()
    rule: bool = False


_RULE = (200, 200, 200)
_LEVEL_WORDS = re.compile(r"\b([tls]\d+)\b")

# Width of the margin's text, in sizes of its letters.
_WIDTH = 26.0


def draw_margin(
    spine: LabelledSpine,
    measurements: Sequence[Measurement],
    title: str,
    drawn: tuple[bool, bool],
    height: int,
    pixel_mm: float | None,
) -> Sheet:
    """Write the margin of a film.

    Args:
        spine: what was found on it.
        measurements: of it.
        title: the first line, if any.
        drawn: whether slips and the lordosis are drawn on the film.
        height: of the film as it is drawn, px.
        pixel_mm: side of such a pixel in the patient, for a scale; None leaves the scale out.

    Returns:
        A sheet as high as the film, or higher where there is too much to say.
    """
    rows = [
        *_heading(spine, title),
        *_legend(spine, *drawn),
        *_values(spine, Found(measurements)),
        *_remarks(measurements),
    ]
    return _set(rows, height, pixel_mm)


def _heading(spine: LabelledSpine, title: str) -> list[_Row]:
    # Bold letters are wider than those that lines are broken for.
    lines = wrap(title, 100, 90 * _WIDTH)
    rows = [_Row((Cell(line, 0, weight=650),), 1.5) for line in lines]
    facing = f"Faces {spine.anterior} ({percent(spine.anterior_probability)})"
    sacrum = "sacrum seen" if spine.sacrum_seen else "sacrum not seen"
    rows.append(_Row((Cell(f"{facing}, {sacrum}", 0),)))
    for flag in spine.flags:
        if flag == "sacrum_not_seen" and not spine.sacrum_seen:
            continue
        words = _LEVEL_WORDS.sub(lambda m: m[1].upper(), flag.replace("_", " "))
        rows.append(_Row((Cell(f"▲ {words}", 0, weight=650),)))
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
        cells = tuple(Cell(words, at + 2.6) for at, _, words in pair)
        rows.append(_Row(cells, samples=tuple((at, name) for at, name, _ in pair)))
    if lordosis:
        words = "lordosis: L1's endplate, moved to S1's"
        rows.append(_Row((Cell(words, 2.6),), samples=((0, "lordosis"),)))
    return rows


def _title(words: str) -> list[_Row]:
    return [_Row(height=0.5), _Row((Cell(words, 0, weight=650),), 1.5)]


def value_cell(
    measurement: Measurement | None, at: float, unit: bool = False, grade: bool = False
) -> Cell:
    """A value that ends at a place, slanted and with a question mark where it is uncertain."""
    if measurement is None or measurement.value is None:
        return Cell("–", at, right=True, colour=GREY)
    words = f"{measurement.value:.0f}" if grade else say(measurement, unit)
    uncertain = measurement.status == "uncertain"
    return Cell(words + "?" * uncertain, at, right=True, italic=uncertain)


def _confidence_cell(measurements: Sequence[Measurement | None], at: float) -> Cell:
    """The lowest confidence of those that have a value."""
    shares = [m.confidence for m in measurements if m is not None and m.value is not None]
    words = percent(min(shares)) if shares else "–"
    return Cell(words, at, right=True, colour=GREY)


def _heads(*words: tuple[str, float]) -> _Row:
    """Headings of columns; the first begins where it says, the others end there."""
    (first, at), *others = words
    cells = (Cell(first, at, colour=GREY), *(Cell(w, x, True, colour=GREY) for w, x in others))
    return _Row(cells, 1.3, rule=True)


def _values(spine: LabelledSpine, found: Found) -> list[_Row]:
    rows = [*_title("Alignment"), _heads(("angle", 0), ("value", 22.0), ("conf.", _WIDTH))]
    start = len(rows)
    for (name, site), m in found.items():
        if name in ("lordosis", "sacral_slope", "cobb"):
            label = NAMES[name] if name == "sacral_slope" else f"{NAMES[name]} {site_words(site)}"
            cells = (Cell(label, 0), value_cell(m, 22.0, True), _confidence_cell([m], _WIDTH))
            rows.append(_Row(cells))
    rows = rows if len(rows) > start else []
    return rows + _disc_rows(found) + _body_rows(spine, found) + _implant_rows(found)


_DISC_HEIGHTS = ("disc_height_anterior", "disc_height_middle", "disc_height_posterior")
_BODY_HEIGHTS = ("body_height_anterior", "body_height_middle", "body_height_posterior")


def _unit_of(found: Found, names: Sequence[str]) -> str:
    return next((m.unit for (name, _), m in found.items() if name in names), "mm")


def _disc_rows(found: Found) -> list[_Row]:
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
        cells = [value_cell(m, at) for m, at in zip(row, ends, strict=True)]
        rows.append(_Row((Cell(site_words(site), 0), *cells, _confidence_cell(row, _WIDTH))))
    return rows


def _body_rows(spine: LabelledSpine, found: Found) -> list[_Row]:
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
        doubtful = level in drawn and not is_certain(drawn[level])
        cells = [
            value_cell(m, at, grade=name == "genant_grade")
            for name, m, at in zip(names, row, ends, strict=True)
        ]
        first = Cell(level + "?" * doubtful, 0, italic=doubtful)
        rows.append(_Row((first, *cells, _confidence_cell(row, _WIDTH))))
    return rows


def _implant_rows(found: Found) -> list[_Row]:
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
        cells = [value_cell(m, at) for m, at in zip(row, ends, strict=True) if m is not None]
        rows.append(_Row((Cell(site_words(site), 0), *cells, _confidence_cell(row, _WIDTH))))
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
        where = ", ".join(site_words(site) for site in sites[:4]) + more
        kind = "not measured" if status == "not_measurable" else status
        for line in wrap(f"{where}: {kind}, {reason}", 100, 100 * _WIDTH):
            rows.append(_Row((Cell(line, 0, colour=GREY),), 1.25))
    if len(reasons) > _MOST_REMARKS:
        words = f"{len(reasons) - _MOST_REMARKS} more reasons are in the table of measurements."
        rows.append(_Row((Cell(words, 0, colour=GREY),), 1.25))
    return rows


def _set(rows: Sequence[_Row], height: int, pixel_mm: float | None) -> Sheet:
    """Set the lines in letters as large as there is room for, within what can be read."""
    if pixel_mm is not None:
        rows = [*rows, _Row(height=0.8), _Row(height=1.5)]
    needed = sum(row.height for row in rows) + 2.0
    size = max(min(0.015 * height, height / needed), 0.0095 * height)
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
            draw_spur(sheet, ends[0], ends[1], 0.6 * size)
        case "slip":
            sheet.line(ends, ALARM, 0.16 * size, halo=BLACK)
            tip = ends[1] + np.array([(-0.4, -0.25), (0, 0), (-0.4, 0.25)]) * size
            sheet.line(tip, ALARM, 0.11 * size, halo=BLACK)
        case "uncertain":
            sheet.line(ends - (0, 0.25 * size), WHITE, 0.09 * size, dash=0.3 * size)
            place = (x + wide / 2, y + 0.2 * size)
            sheet.text("L3?", place, 0.6 * size, WHITE, align="centre", italic=True)
        case _:
            sheet.line(ends, COLOURS.get(name, OTHER), 0.12 * size, halo=BLACK)
