"""Pictures of what was found on a film: overlays, the steps of the geometry, changes over time.

Nothing is written on a picture that its arguments do not hold: pseudonyms at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from .anatomy import CORNERS, LabelledSpine, Measurement, Shape, Vertebra
from .drawing import (
    ALARM,
    DOUBTFUL_SHAPE,
    GREY,
    Found,
    View,
    colour_of,
    draw_spine,
    draw_spur,
    edge_of,
    name_words,
    outline_of,
    percent,
    say,
    scaled,
    site_words,
    write,
)
from .margin import Cell, draw_margin, value_cell
from .sheet import BLACK, WHITE, Colour, Sheet, wrap

# Films of fewer rows are enlarged by a whole number, so that letters and lines stay sharp.
_FEW_ROWS = 1500


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
    :data:`.drawing.SLIP_MM` or more. What is uncertain is dashed.

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
    film = Sheet(spine.rows * scale, spine.columns * scale, BLACK)
    film.picture(scaled(picture, scale))
    drawn = draw_spine(film, View(scale), spine, Found(measurements), film.rows / 100)
    pixel_mm = None if spacing_mm is None else spacing_mm / scale
    margin = draw_margin(spine, measurements, title, drawn, film.rows, pixel_mm)
    page = Sheet(max(film.rows, margin.rows), film.columns + margin.columns)
    page.sheet(film)
    page.sheet(margin, (film.columns, 0))
    return page.pixels()


def _check(picture: np.ndarray, spine: LabelledSpine) -> None:
    if picture.shape != (spine.rows, spine.columns):
        raise ValueError(
            f"a film of {spine.rows} x {spine.columns} has no picture of shape {picture.shape}"
        )


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
    outline = np.vstack([edge_of(vertebra), outline_of(vertebra)])
    low, high = outline.min(axis=0), outline.max(axis=0)
    side = 1.5 * max(*(high - low), 1.0)
    left, top = (low + high - side) / 2
    view = View(_SIDE / side, left, top)
    film = _cut(picture, view, _SIDE, _SIDE)
    found = Found(measurements)
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
    chance = "" if sure else f" ({percent(vertebra.level_probability)})"
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


def _mask_step(view: View, vertebra: Vertebra) -> _Step:
    body = vertebra.body
    done = {"split": ", split from a fused one", "merged": ", merged of pieces"}
    kind = body.class_name.replace("_", " ").capitalize()

    def draw(panel: Sheet) -> None:
        _fill(panel, _mask_window(view, vertebra), colour_of(body), 0.5)

    if body.outline is not None:
        return "Mask", draw, f"{kind}, drawn by an annotator."
    return "Mask", draw, f"{kind}, score {body.score:.2f}{done.get(body.repair, '')}."


def _contour_step(view: View, vertebra: Vertebra) -> _Step:
    def draw(panel: Sheet) -> None:
        _fill(panel, _mask_window(view, vertebra), WHITE, 0.3)
        points = view(outline_of(vertebra))
        dash = 0.0 if vertebra.shape is not None else _PEN
        panel.line(
            points, colour_of(vertebra.body), 0.18 * _PEN, closed=True, dash=dash, halo=BLACK
        )

    if vertebra.shape is None:
        return "Contour", draw, "Not that of one body seen whole: nothing is measured on it."
    if vertebra.body.outline is not None:
        return "Contour", draw, "As drawn, over the mask (light)."
    return "Contour", draw, "The edge of the mask (light), smoothed to fractions of a pixel."


def _mask_window(view: View, vertebra: Vertebra) -> np.ndarray:
    """A body's mask as it lies on a panel, its pixels squares: H x W uint8 of 0 and 1."""
    shift = view(np.array(vertebra.body.origin)) + (view.scale - 1) / 2
    matrix = np.array([[view.scale, 0, shift[0]], [0, view.scale, shift[1]]])
    mask = vertebra.body.mask.astype(np.uint8)
    return cv2.warpAffine(mask, matrix, (_SIDE, _SIDE), flags=cv2.INTER_NEAREST)


def _osteophyte_step(view: View, vertebra: Vertebra, shape: Shape, found: Found) -> _Step:
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
        panel.area(plain, colour_of(vertebra.body), 0.4)
        # A tip may lie a little beside the pixels that it was found from.
        reach = round(0.1 * depth)
        spurs = set()
        for spur in shape.osteophytes:
            x, y = np.rint(view(spur.tip)).astype(int)
            near = pieces[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            spurs |= set(near[near > 0].tolist())
        _fill(panel, np.isin(pieces, list(spurs)).astype(np.uint8), ALARM, 0.7)
        panel.line(points, WHITE, 0.1 * _PEN, closed=True, halo=BLACK)
        for spur in shape.osteophytes:
            corner = view(shape.corners[CORNERS.index(spur.corner)])
            tip = view(spur.tip)
            draw_spur(panel, corner, tip, _PEN)
            out = 1.0 if tip[0] > _SIDE / 2 else -1.0
            place = tip + np.array([out * 1.2 * _PEN, 0])
            known = found.number("osteophyte_length", f"{vertebra.level} {spur.corner}")
            length = f"{spur.length_px:.0f} px" if known is None else say(known)
            doubtful = known is not None and known.status == "uncertain"
            write(panel, length, place, 2.4 * _PEN, out, doubtful)

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


def _corner_step(view: View, vertebra: Vertebra, shape: Shape) -> _Step:
    def draw(panel: Sheet) -> None:
        panel.line(
            view(shape.contour), colour_of(vertebra.body), 0.14 * _PEN, closed=True, halo=BLACK
        )
        for name, corner in zip(("PS", "AS", "AI", "PI"), view(shape.corners), strict=True):
            panel.dot(corner, WHITE, 0.5 * _PEN, halo=BLACK, border=0.16 * _PEN)
            out = corner - view(shape.corners).mean(axis=0)
            place = corner + out / max(float(np.linalg.norm(out)), 1e-9) * 2.6 * _PEN
            write(panel, name, place, 2.4 * _PEN, 0, False)

    words = "Where the lines of endplates and walls meet, without osteophytes; "
    return "Corners", draw, words + "A anterior, P posterior, S superior, I inferior."


def _endplate_step(view: View, vertebra: Vertebra, shape: Shape) -> _Step:
    def draw(panel: Sheet) -> None:
        panel.line(
            view(shape.contour), colour_of(vertebra.body), 0.14 * _PEN, closed=True, halo=BLACK
        )
        for plate in (shape.superior, shape.inferior):
            ends = view(np.array([plate.posterior, plate.anterior]))
            dash = 0.0 if plate.support >= DOUBTFUL_SHAPE else _PEN
            panel.line(ends, WHITE, 0.26 * _PEN, dash=dash, halo=BLACK)
            for end in ends:
                panel.dot(end, WHITE, 0.4 * _PEN, halo=BLACK, border=0.14 * _PEN)
            panel.dot(view(plate.middle), ALARM, 0.5 * _PEN, halo=BLACK, border=0.16 * _PEN)

    told = [
        f"{name}: residual {plate.residual_px:.1f} px, support {percent(plate.support)}"
        for name, plate in (("Upper", shape.superior), ("lower", shape.inferior))
    ]
    words = "From corner to corner; the dot is the contour's middle. "
    return "Endplates", draw, f"{words}{'; '.join(told)}."


def _height_step(view: View, vertebra: Vertebra, shape: Shape, found: Found) -> _Step:
    upper, lower = shape.superior, shape.inferior
    lines = {
        "anterior": (upper.anterior, lower.anterior),
        "middle": (upper.middle, lower.middle),
        "posterior": (upper.posterior, lower.posterior),
    }
    site = vertebra.level or ""

    def draw(panel: Sheet) -> None:
        panel.line(
            view(shape.contour), colour_of(vertebra.body), 0.14 * _PEN, closed=True, halo=BLACK
        )
        for part, ends in lines.items():
            length = float(np.linalg.norm(ends[0] - ends[1]))
            known = found.number(f"body_height_{part}", site)
            words = f"{length:.0f} px" if known is None else say(known)
            line = view(np.array(ends))
            panel.line(line, WHITE, 0.2 * _PEN, halo=BLACK)
            for end in line:
                panel.dot(end, WHITE, 0.4 * _PEN, halo=BLACK, border=0.14 * _PEN)
            doubtful = known is not None and known.status == "uncertain"
            write(panel, words, line.mean(axis=0), 2.4 * _PEN, 0, doubtful)

    words = "Between the corners of the front and the back, and between the middles."
    said = [
        f"{label} {say(m)}"
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


def _cut(picture: np.ndarray, view: View, rows: int, columns: int) -> np.ndarray:
    """The part of a film that a view shows, rows x columns uint8; black beyond its edges."""
    factor = np.ones(2)
    if view.scale < 1:
        # Averages first: what is made smaller by picking pixels has false patterns.
        before = np.array(picture.shape[::-1])
        picture = scaled(picture, view.scale)
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
        view = View(scale, left, top)
        panel = Sheet(rows, columns, BLACK)
        panel.picture(_cut(study.picture, view, rows, columns))
        draw_spine(panel, view, study.spine, Found(study.measurements), unit)
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
    points = np.vstack([outline_of(vertebra) for vertebra in spine.vertebrae])
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


def _change_lines(studies: Sequence[Study], changes: pd.DataFrame) -> list[list[Cell]]:
    """The table below the films: a line for each measurement that changed between two of them."""
    rows = changes.to_dict("records")
    changed = dict.fromkeys((r["name"], r["site"]) for r in rows if r["status"] == "changed")
    total = {(r["name"], r["site"]): r for r in rows if r["first_to_last"]}
    values = [Found(study.measurements) for study in studies]
    heads = ["changed", *(study.label for study in studies), "change", "smallest detectable"]
    lines = [[Cell(words, 0, colour=GREY) for words in heads]] if changed else []
    for name, site in list(changed)[:_MOST_CHANGES]:
        line = [Cell(f"{name_words(name)} {site_words(site)}", 0)]
        for found in values:
            cell = value_cell(found.get((name, site)), 0, unit=True)
            line.append(cell)
        row = total.get((name, site))
        if row is None or pd.isna(row["change"]):
            line += [Cell("–", 0, colour=GREY)] * 2
        else:
            change, least = (
                say(Measurement(name, site, float(value), row["unit"], 1.0, "measured"))
                for value in (row["change"], row["smallest_detectable_change"])
            )
            sign = "+" if row["change"] > 0 else ""
            weight = 650 if row["status"] == "changed" else 400
            line += [Cell(sign + change, 0, weight=weight), Cell(least, 0, colour=GREY)]
        lines.append(line)
    counts = {status: sum(r["status"] == status for r in total.values()) for status in _COUNTED}
    told = ", ".join(f"{count} {_COUNTED[status]}" for status, count in counts.items())
    if len(changed) > _MOST_CHANGES:
        told = f"{len(changed) - _MOST_CHANGES} more changed; {told}"
    lines.append([Cell(f"First to last: {told}.", 0, colour=GREY)])
    return lines


_COUNTED = {
    "changed": "changed beyond the error of measuring",
    "within_error": "within it",
    "not_comparable": "not comparable",
}
