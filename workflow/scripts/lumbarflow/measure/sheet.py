"""A sheet of pictures, lines and words that becomes pixels or an SVG drawing.

Places on a sheet are (x, y) in its pixels, with whole numbers at the corners of pixels. Colours are
red, green, blue, 0 to 255. A halo is a border in another colour that keeps a line or a word apart
from whatever lies behind it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from xml.sax.saxutils import escape

import cv2
import numpy as np

Colour = tuple[int, int, int]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

#: Height of capitals, as a share of the size of the fonts.
CAPITALS = 0.7
_SHIFT = 6  # binary digits of a pixel's fractions that OpenCV is told
_SHARP = 1 << _SHIFT


@dataclass(frozen=True, eq=False)
class _Line:
    points: np.ndarray
    colour: Colour
    width: float
    closed: bool
    dash: float
    halo: Colour | None


@dataclass(frozen=True, eq=False)
class _Area:
    points: np.ndarray
    colour: Colour
    opacity: float


@dataclass(frozen=True)
class _Text:
    words: str
    at: tuple[float, float]
    size: float
    colour: Colour
    weight: int
    align: str
    italic: bool
    halo: Colour | None


@dataclass(frozen=True, eq=False)
class _Picture:
    pixels: np.ndarray
    at: tuple[int, int]


@dataclass(eq=False)
class Sheet:
    """Shapes on a background, drawn in the order in which they came.

    Attributes:
        rows, columns: its size in pixels.
        paper: colour of the background.
    """

    rows: int
    columns: int
    paper: Colour = WHITE
    _shapes: list[_Line | _Area | _Text | _Picture | tuple[Sheet, tuple[int, int]]] = field(
        default_factory=list
    )

    def picture(self, pixels: np.ndarray, at: tuple[int, int] = (0, 0)) -> None:
        """Put a picture (H x W grey or H x W x 3, uint8) with its upper left corner at `at`."""
        self._shapes.append(_Picture(pixels, at))

    def sheet(self, other: Sheet, at: tuple[int, int] = (0, 0)) -> None:
        """Put a sheet that fits, its upper left corner at `at`; what reaches out of it is cut."""
        self._shapes.append((other, at))

    def line(
        self,
        points: np.ndarray | Sequence[Sequence[float]],
        colour: Colour,
        width: float,
        *,
        closed: bool = False,
        dash: float = 0.0,
        halo: Colour | None = None,
    ) -> None:
        """Draw a line through N x 2 points; with `dash`, in dashes of this length."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        self._shapes.append(_Line(points, colour, width, closed, dash, halo))

    def area(self, points: np.ndarray, colour: Colour, opacity: float = 1.0) -> None:
        """Fill a polygon of N x 2 points."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        self._shapes.append(_Area(points, colour, opacity))

    def dot(
        self,
        at: Sequence[float],
        colour: Colour,
        radius: float,
        *,
        halo: Colour | None = None,
        border: float = 0.0,
    ) -> None:
        """Draw a disc, with a border where a halo is given."""
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        circle = np.column_stack([np.cos(turn), np.sin(turn)])
        if halo is not None:
            self.area(circle * (radius + border) + at, halo)
        self.area(circle * radius + at, colour)

    def text(
        self,
        words: str,
        at: Sequence[float],
        size: float,
        colour: Colour = BLACK,
        *,
        weight: int = 400,
        align: str = "left",
        italic: bool = False,
        halo: Colour | None = None,
    ) -> None:
        """Write a line of words.

        Args:
            words: what to write.
            at: the line's start, middle or end, as `align` says; half-way up the capitals.
            size: of the font, px.
            colour: of the letters.
            weight: 400 regular, 600 bold.
            align: `left`, `centre` or `right`.
            italic: whether the letters lean.
            halo: colour of the border round the letters, if any.
        """
        place = (float(at[0]), float(at[1]))
        self._shapes.append(_Text(words, place, size, colour, weight, align, italic, halo))

    def pixels(self) -> np.ndarray:
        """The sheet as rows x columns x 3 uint8, red, green, blue."""
        page = np.empty((self.rows, self.columns, 3), np.uint8)
        self._draw(page)
        return page

    def _draw(self, page: np.ndarray) -> None:
        # Several times as fast as an assignment of three values to each pixel.
        cv2.rectangle(page, (0, 0), (self.columns, self.rows), self.paper, cv2.FILLED)
        for shape in self._shapes:
            match shape:
                case _Line():
                    _draw_line(page, shape)
                case _Area():
                    _draw_area(page, shape)
                case _Text():
                    _draw_text(page, shape)
                case _Picture():
                    _paste(page, shape)
                case other, (x, y):
                    other._draw(page[y : y + other.rows, x : x + other.columns])

    def svg(self) -> str:
        """The sheet as an SVG document; the same sheet gives the same text."""
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + self._element((0, 0)) + "\n"

    def _element(self, at: tuple[int, int]) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" x="{at[0]}" y="{at[1]}" '
            f'width="{self.columns}" height="{self.rows}" '
            f'viewBox="0 0 {self.columns} {self.rows}" '
            'font-family="Rubik, Helvetica, Arial, sans-serif" stroke-linejoin="round">',
            f'<rect width="100%" height="100%" fill="{_hex(self.paper)}"/>',
        ]
        for shape in self._shapes:
            match shape:
                case _Line():
                    parts += _line_elements(shape)
                case _Area():
                    parts.append(
                        f'<polygon points="{_points(shape.points)}" fill="{_hex(shape.colour)}" '
                        f'fill-opacity="{shape.opacity:g}"/>'
                    )
                case _Text():
                    parts.append(_text_element(shape))
                case _Picture():
                    parts.append(_picture_element(shape))
                case other, place:
                    parts.append(other._element(place))
        return "\n".join([*parts, "</svg>"])


@cache
def text_width(words: str, size: float, weight: int = 400, italic: bool = False) -> float:
    """How many pixels a line of words takes."""
    face = _face(italic)
    return float(cv2.getTextSize((1, 1), words, (0, 0), face, round(size), weight)[2])


def wrap(words: str, size: float, width: float) -> list[str]:
    """Break a text between words into lines of at most `width` pixels (one word may be wider)."""
    lines: list[str] = []
    for word in words.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@cache
def _face(italic: bool) -> cv2.FontFace:
    """A font that OpenCV carries: the same letters on every machine."""
    return cv2.FontFace("italic" if italic else "sans")


def _border(width: float) -> int:
    """The width of the halo round a line, or round letters of this stroke."""
    return max(1, round(0.6 * width))


# Pixels -----------------------------------------------------------------------------------------


def _fixed(points: np.ndarray) -> np.ndarray:
    # OpenCV has whole numbers at the centres of pixels.
    return np.rint((points - 0.5) * _SHARP).astype(np.int32)


def _draw_line(page: np.ndarray, line: _Line) -> None:
    points = np.vstack([line.points, line.points[:1]]) if line.closed else line.points
    parts = _dashes(points, line.dash) if line.dash else [points]
    fixed = [_fixed(part) for part in parts]
    width = max(1, round(line.width))
    if line.halo is not None:
        wide = width + 2 * _border(line.width)
        cv2.polylines(page, fixed, False, line.halo, wide, cv2.LINE_AA, _SHIFT)
    cv2.polylines(page, fixed, False, line.colour, width, cv2.LINE_AA, _SHIFT)


def _dashes(points: np.ndarray, length: float) -> list[np.ndarray]:
    """The pieces of a line that dashes and gaps, both of this length, leave of it."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    pieces = []
    for start in np.arange(0, along[-1], 2 * length):
        end = min(start + length, along[-1])
        between = along[(along > start) & (along < end)]
        places = np.concatenate([[start], between, [end]])
        pieces.append(np.column_stack([np.interp(places, along, points[:, k]) for k in (0, 1)]))
    return pieces


def _draw_area(page: np.ndarray, area: _Area) -> None:
    if area.opacity == 1:
        cv2.fillPoly(page, [_fixed(area.points)], area.colour, cv2.LINE_AA, _SHIFT)
        return
    low = np.floor(area.points.min(axis=0)).astype(int) - 1
    width, height = np.ceil(area.points.max(axis=0)).astype(int) + 1 - low
    ink = np.zeros((height, width), np.uint8)
    cv2.fillPoly(ink, [_fixed(area.points - low)], 255, cv2.LINE_AA, _SHIFT)
    _blend(page, ink, low, area.colour, area.opacity)


def _draw_text(page: np.ndarray, text: _Text) -> None:
    size = round(text.size)
    border = _border(size / 8) if text.halo is not None else 0
    width = text_width(text.words, text.size, text.weight, text.italic)
    # Room for letters that reach out of their line.
    pad = border + size // 3
    ink = np.zeros((size + 2 * pad, int(width) + 2 * pad), np.uint8)
    baseline = pad + size * 3 // 4
    face = _face(text.italic)
    cv2.putText(ink, text.words, (pad, baseline), (255,), face, size, text.weight)
    shift = {"left": 0.0, "centre": width / 2, "right": width}[text.align]
    # Whole pixels keep letters as sharp as the font is made for them.
    low = np.rint([text.at[0] - shift - pad, text.at[1] + CAPITALS * size / 2 - baseline]).astype(
        int
    )
    if text.halo is not None:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * border + 1, 2 * border + 1))
        _blend(page, cv2.dilate(ink, disc), low, text.halo, 1.0)
    _blend(page, ink, low, text.colour, 1.0)


def _blend(
    page: np.ndarray, ink: np.ndarray, low: np.ndarray, colour: Colour, opacity: float
) -> None:
    """Lay a colour on the page, H x W uint8 `ink` thick, with its upper left pixel at `low`."""
    window, part = _common(page, ink, low)
    share = part[..., None].astype(np.float32) * (opacity / 255)
    window[:] = window + share * (np.float32(colour) - window) + np.float32(0.5)


def _paste(page: np.ndarray, picture: _Picture) -> None:
    window, part = _common(page, picture.pixels, picture.at)
    if part.ndim == 2 and part.size:
        part = cv2.cvtColor(part, cv2.COLOR_GRAY2RGB)
    window[:] = part


def _common(
    page: np.ndarray, patch: np.ndarray, low: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where a patch lies on the page, and the part of it that does: two views of one size."""
    x, y = int(low[0]), int(low[1])
    x0, y0 = max(x, 0), max(y, 0)
    x1 = max(min(x + patch.shape[1], page.shape[1]), x0)
    y1 = max(min(y + patch.shape[0], page.shape[0]), y0)
    return page[y0:y1, x0:x1], patch[y0 - y : y1 - y, x0 - x : x1 - x]


# SVG --------------------------------------------------------------------------------------------


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _points(points: np.ndarray) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _line_elements(line: _Line) -> list[str]:
    name = "polygon" if line.closed else "polyline"
    dash = f' stroke-dasharray="{line.dash:.2f}"' if line.dash else ""
    start = f'<{name} points="{_points(line.points)}" fill="none"{dash} '
    strokes = [(line.colour, line.width)]
    if line.halo is not None:
        strokes.insert(0, (line.halo, line.width + 2 * _border(line.width)))
    return [f'{start}stroke="{_hex(c)}" stroke-width="{w:.2f}"/>' for c, w in strokes]


def _text_element(text: _Text) -> str:
    anchor = {"left": "start", "centre": "middle", "right": "end"}[text.align]
    y = text.at[1] + CAPITALS * text.size / 2
    style = ' font-style="italic"' if text.italic else ""
    if text.halo is not None:
        width = 2 * _border(text.size / 8)
        style += f' stroke="{_hex(text.halo)}" stroke-width="{width}" paint-order="stroke"'
    return (
        f'<text x="{text.at[0]:.2f}" y="{y:.2f}" font-size="{text.size:.2f}" '
        f'font-weight="{text.weight}" text-anchor="{anchor}" fill="{_hex(text.colour)}"{style}>'
        f"{escape(text.words)}</text>"
    )


def _picture_element(picture: _Picture) -> str:
    pixels = picture.pixels if picture.pixels.ndim == 2 else picture.pixels[..., ::-1]
    _, encoded = cv2.imencode(".png", pixels)
    data = base64.b64encode(encoded.tobytes()).decode("ascii")
    height, width = picture.pixels.shape[:2]
    x, y = picture.at
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{height}" '
        f'href="data:image/png;base64,{data}"/>'
    )
