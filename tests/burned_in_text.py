"""Text planted in radiographs, with the truth, and what becomes of it.

Names, numbers, dates, hospitals and initials are drawn into films that hold no text, in the ways
in which consoles, digitisers and lead letters write: bright, dark, outlined, on a plate; from 10 to
150 pixels high; from full to low contrast; in dark borders, in the field, over bone and implants;
upright and turned. Markers (L, R, LAT, ERECT ...) are planted, too: they are to stay. Run this file
to print the tables.

Films: synthetic ones of any number; where LUMBARFLOW_DATA points to them, real lumbar films, half
of them for development and half for the clean figures, and the sample objects. A film counts as
another one when it is cropped, mirrored or turned upside down, and is marked so.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
import pydicom
from PIL import Image, ImageDraw, ImageFont

from lumbarflow.acquire.render import render
from lumbarflow.deidentify.burned_in import BurnedIn, TextFinder
from lumbarflow.synthetic.film import choose_format, simulate_film

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[1] / "../shared/data"))
SEEDS = {"develop": 1, "clean": 8}  # a clean seed is new after each look at its figures
COVERED = 0.99  # share of a text's changed pixels that must be blanked

# Fonts ---------------------------------------------------------------------------------------

_FOLDER = Path(matplotlib.get_data_path()) / "fonts/ttf"
_FILES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
)
_ASCII_FILES = ("cmr10", "cmss10", "cmtt10", "cmb10")  # letters and digits only
_HERSHEY = {
    "hershey-simplex": cv2.FONT_HERSHEY_SIMPLEX,
    "hershey-plain": cv2.FONT_HERSHEY_PLAIN,
    "hershey-duplex": cv2.FONT_HERSHEY_DUPLEX,
    "hershey-complex": cv2.FONT_HERSHEY_COMPLEX,
    "hershey-triplex": cv2.FONT_HERSHEY_TRIPLEX,
    "hershey-complex-small": cv2.FONT_HERSHEY_COMPLEX_SMALL,
    "hershey-script": cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
}
FONTS = {
    "latin": (*_FILES, "cv2-sans", "cv2-italic"),
    "ascii": (*_FILES, *_ASCII_FILES, *_HERSHEY, "cv2-sans", "cv2-italic", "console"),
    "cyrillic": tuple(name for name in _FILES if name.startswith("DejaVu")),
    "greek": tuple(name for name in _FILES if name.startswith("DejaVu")),
    "chinese": ("cv2-uni",),
}

_NAMES = (
    "MUELLER", "SCHMIDT", "Kovács", "NAGY", "O'Brien", "García", "LEFÈVRE", "Østergård", "Silva",
    "Wiśniewski", "Dvořák", "ROSSI", "SMITH", "Åkesson", "Türkoğlu", "HORVÁTH", "Jönsson",
    "PETROVIC",
)  # fmt: skip
_FIRST = (
    "ANNA", "Péter", "JOHN", "Zoë", "MARIA", "Jürgen", "Łukasz", "IBOLYA", "François", "Li", "ERIK",
    "Núria", "TOMÁŠ", "Eva",
)  # fmt: skip
_PLACES = (
    "ST. ELISABETH KLINIKUM", "Hôpital Saint-Luc", "UNIVERSITY HOSPITAL", "Városi Kórház",
    "Orthopädie München", "GENERAL HOSPITAL", "Radiologie Dr. Weiß", "Clínica del Pilar",
    "CITY MEDICAL CENTER", "Praxis Nord",
)  # fmt: skip
_CYRILLIC = ("Иванов Пётр", "КУЗНЕЦОВА А.В.", "Шевченко Олена", "Городская больница")
_GREEK = ("Παπαδόπουλος", "ΓΕΩΡΓΙΟΥ ΜΑΡΙΑ", "Νικολαΐδης Κ.")
_CHINESE = ("王小明", "患者姓名 李娜", "人民医院", "張偉 1961")
MARKERS = (
    "L", "R", "LT", "RT", "LEFT", "RIGHT", "LAT", "LATERAL", "ERECT", "STANDING", "SUPINE", "PRONE",
    "AP", "PA", "FLEXION", "EXTENSION", "UPRIGHT", "WB", "LI", "RE", "links", "rechts", "stehend",
    "droite", "gauche", "debout",
)  # fmt: skip


def _date(rng: np.random.Generator) -> str:
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(1931, 2024)
    name = ("JAN", "FEB", "MAR", "APR", "MAI", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
    return str(
        rng.choice(
            [
                f"{day:02d}.{month:02d}.{year}",
                f"{year}-{month:02d}-{day:02d}",
                f"{month}/{day}/{year % 100:02d}",
                f"{day:02d}-{name[month - 1]}-{year}",
                f"{year}{month:02d}{day:02d}",
                f"*{day:02d}.{month:02d}.{year}",
                f"{month:02d}/{day:02d}/{year} {rng.integers(24):02d}:{rng.integers(60):02d}",
            ]
        )
    )


def _number(rng: np.random.Generator) -> str:
    return str(
        rng.choice(
            [
                f"{rng.integers(10**6, 10**8)}",
                f"ID {rng.integers(10**5, 10**7)}",
                f"PID: {rng.integers(1000):04d}-{rng.integers(1000):03d}",
                f"ACC{rng.integers(10**7, 10**8)}",
                f"{rng.choice(list('ABCDEFGHKMNPRSTUVWXYZ'))}{rng.integers(10**4, 10**6)}",
                f"#{rng.integers(10**3, 10**5)}",
            ]
        )
    )


def _name(rng: np.random.Generator) -> str:
    last, first = rng.choice(_NAMES), rng.choice(_FIRST)
    return str(
        rng.choice(
            [f"{last} {first}", f"{last}^{first}", f"{last}, {first}", f"{first} {last}", last]
        )
    )


def _initials(rng: np.random.Generator) -> str:
    a, b = rng.choice(list("ABCDEFGHIJKMNOPSTUVWZ"), 2)
    text = str(rng.choice([f"{a}{b}", f"{a}{b}", f"{a}.{b}.", f"{a}{b}{rng.integers(1, 10)}"]))
    return text if text not in MARKERS else "JS"


TEXTS: dict[str, tuple[str, Callable[[np.random.Generator], str]]] = {
    "name": ("latin", _name),
    "identifier": ("ascii", _number),
    "date": ("ascii", _date),
    "hospital": ("latin", lambda rng: str(rng.choice(_PLACES))),
    "initials": ("ascii", _initials),
    "technique": ("ascii", lambda rng: f"{rng.integers(60, 110)} kV {rng.integers(5, 90)} mAs"),
    "ruler number": ("ascii", lambda rng: str(rng.choice(["10", "15", "20", "25", "30"]))),
    "cyrillic": ("cyrillic", lambda rng: str(rng.choice(_CYRILLIC))),
    "greek": ("greek", lambda rng: str(rng.choice(_GREEK))),
    "chinese": ("chinese", lambda rng: str(rng.choice(_CHINESE))),
    "marker": ("ascii", lambda rng: str(rng.choice(MARKERS))),
}
SHARES = {
    "name": 26,
    "identifier": 18,
    "date": 16,
    "hospital": 12,
    "initials": 10,
    "technique": 4,
    "ruler number": 3,
    "cyrillic": 3,
    "greek": 2,
    "chinese": 3,
}
CONTRASTS = {"full": 0.4, "medium": 0.3, "low": 0.3}
HEIGHTS = (10, 15, 25, 50, 100, 151)


@cache
def _free_type(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FOLDER / f"{name}.ttf"), size)


def drawn(text: str, font: str, height: int) -> np.ndarray:
    """Coverage of the pixels by a text whose capitals are `height` pixels high, 0 to 1, cropped.

    OpenCV from version 5 draws its Hershey names with built-in outline fonts. `console` is a
    bitmap font with square dots, as old digitisers have.
    """
    if font == "console":
        canvas = Image.new("L", (16 * len(text) + 32, 32))
        ImageDraw.Draw(canvas).text((8, 8), text, 255, ImageFont.load_default_imagefont())
        ink = _cropped(np.asarray(canvas))
        factor = max(round(height / 8), 1)
        return ink.repeat(factor, 0).repeat(factor, 1) / np.float32(255)
    if font.startswith("cv2-"):
        face = cv2.FontFace(font[4:])
        canvas = np.zeros((4 * height, (len(text) + 4) * 2 * height), np.uint8)
        cv2.putText(canvas, text, (height, 5 * height // 2), 255, face, round(height * 1.36))
        return _cropped(canvas) / np.float32(255)
    if font in _HERSHEY:
        thickness = max(1, round(height / 9))
        scale = cv2.getFontScaleFromHeight(_HERSHEY[font], height, thickness)
        canvas = np.zeros((4 * height, (len(text) + 4) * 2 * height), np.uint8)
        start = (height, 5 * height // 2)
        cv2.putText(
            canvas, text, start, _HERSHEY[font], scale, 255, thickness, lineType=cv2.LINE_AA
        )
        return _cropped(canvas) / np.float32(255)
    loaded = _free_type(font, max(round(height / 0.72), 4))
    left, top, right, bottom = loaded.getbbox(text)
    canvas = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, 255, loaded)
    return _cropped(np.asarray(canvas)) / np.float32(255)


def _cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


# Planting ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """A text in a film: what it is, and `changed`, the pixels that differ within `box`."""

    kind: str
    font: str
    height: int
    contrast: str
    style: str
    place: str
    turn: int
    box: tuple[int, int, int, int]
    changed: np.ndarray

    @property
    def size(self) -> str:
        lower = max(edge for edge in HEIGHTS if edge <= self.height)
        return f"{lower:3d} to {HEIGHTS[HEIGHTS.index(lower) + 1] - 1}"


def plant(
    picture: np.ndarray,
    rng: np.random.Generator,
    kind: str,
    text: str | None = None,
    **fixed: object,
) -> Planted | None:
    """Draw a text into `picture`, in place; None where it finds no room.

    `fixed` may set font, height, contrast, style, turn and place; the rest is drawn.
    """
    rows, columns = picture.shape
    alphabet, write = TEXTS[kind]
    text = text or write(rng)
    font = str(fixed.get("font") or rng.choice(FONTS[alphabet]))
    turn = int(fixed.get("turn", rng.choice([0, 90, 270, 180], p=[0.76, 0.11, 0.11, 0.02])))
    largest = min(150, min(rows, columns) // 6)
    height = int(fixed.get("height") or np.exp(rng.uniform(np.log(10), np.log(largest + 0.99))))
    ink = drawn(text, font, height)
    room = (rows, columns) if turn in (0, 180) else (columns, rows)
    while ink.shape[0] > 0.9 * room[0] or ink.shape[1] > 0.9 * room[1]:
        if height <= 10:
            return None
        height = max(10, int(height * 0.8))
        ink = drawn(text, font, height)
    ink = np.ascontiguousarray(np.rot90(ink, turn // 90))
    if rng.random() < 0.3 and height >= 14:  # lens, scanner or scaling
        soft = rng.uniform(0.3, 0.03 * height + 0.3)
        margin = int(3 * soft + 1)
        ink = cv2.GaussianBlur(np.pad(ink, margin), (0, 0), soft)
    style = str(fixed.get("style") or rng.choice(["plain", "outlined", "plate"], p=[0.8, 0.1, 0.1]))
    pad = max(2, height // 4) if style == "plate" else max(1, height // 12)
    if style != "plain":
        ink = np.pad(ink, pad)
    if ink.shape[0] >= rows or ink.shape[1] >= columns:
        return None
    wanted = str(fixed.get("place") or rng.choice(["border", "field", "structure"]))
    row, column, place = _position(picture, ink.shape, wanted, rng)
    contrast = str(fixed.get("contrast") or rng.choice(list(CONTRASTS), p=list(CONTRASTS.values())))
    window = picture[row : row + ink.shape[0], column : column + ink.shape[1]]
    before = window.copy()
    window[:] = _inked(before, ink, style, contrast, pad, rng)
    box = (row, column, row + ink.shape[0], column + ink.shape[1])
    changed = window != before
    if style == "plate":  # the plate itself tells nothing
        changed &= ink > 0.05
    return Planted(kind, font, height, contrast, style, place, turn, box, changed)


def _position(
    picture: np.ndarray, shape: tuple[int, int], wanted: str, rng: np.random.Generator
) -> tuple[int, int, str]:
    """A place of the kind that is wanted, or of another: (row, column, kind)."""
    rows, columns = picture.shape
    for _ in range(25):
        row = int(rng.integers(rows - shape[0] + 1))
        column = int(rng.integers(columns - shape[1] + 1))
        if wanted == "border" and rng.random() < 0.7:  # where consoles write
            margin = int(rng.integers(0, max(rows // 25, 2)))
            row = min(row, margin) if rng.random() < 0.5 else max(row, rows - shape[0] - margin)
            row = int(np.clip(row, 0, rows - shape[0]))
        place = _place(picture[row : row + shape[0], column : column + shape[1]])
        if place == wanted:
            break
    return row, column, place


def _place(window: np.ndarray) -> str:
    values = cv2.resize(window, (48, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    if np.median(values) < 30:
        return "border"
    return "structure" if values.std() > 14 else "field"


def _inked(
    before: np.ndarray,
    ink: np.ndarray,
    style: str,
    contrast: str,
    pad: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The window with the text. What nobody could read counts for nothing: the difference in grey
    is at least 28 and 1.5 standard deviations of what lies behind."""
    back = before.astype(np.float32)
    middle, spread = float(np.median(back)), float(back.std())
    bright = middle < (128 if rng.random() < 0.8 else 90)
    step = {"full": 255.0, "medium": rng.uniform(60, 110), "low": rng.uniform(28, 45)}[contrast]
    step = max(step, 1.5 * spread)
    if style == "plate":
        plate = 255.0 if rng.random() < 0.5 else 0.0
        letter = 255.0 - plate if contrast == "full" else abs(plate - max(step, 60))
        back = np.full_like(back, plate)
        return np.rint(back + ink * (letter - back)).astype(np.uint8)
    if style == "outlined":
        rim = cv2.dilate(ink, np.ones((2 * (pad // 2) + 1,) * 2, np.uint8))
        back = back + rim * ((0.0 if bright else 255.0) - back)
        letter = 255.0 if bright else 0.0
        return np.rint(back + ink * (letter - back)).astype(np.uint8)
    if contrast == "full":
        values = back + ink * ((255.0 if bright else 0.0) - back)
    else:
        # Added to what lies behind, as lead letters are, or one grey, as consoles write.
        target = np.clip(middle + (step if bright else -step), 0, 255)
        lead = back + ink * (step if bright else -step)
        flat = back + ink * (target - back)
        values = lead if rng.random() < 0.5 else flat
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# Films ---------------------------------------------------------------------------------------


def synthetic(seed: int, number: int) -> np.ndarray:
    """A film of 400 to 4300 rows, with or without implants, now and then a frontal one."""
    rng = np.random.default_rng([seed, number])
    shape, spacing = choose_format(rng, float(rng.choice([0.2, 0.3, 0.45, 0.7, 1, 1, 1.5])))
    operated, frontal = bool(rng.random() < 0.5), rng.random() < 0.08
    film = simulate_film(rng, shape, spacing, operated, "AP" if frontal else "lateral")
    return np.rint(film.pixels * 255).astype(np.uint8)


@cache
def real(part: str) -> tuple[np.ndarray, ...]:
    """Half of the real films: those of even place for development, the others for clean figures."""
    paths = sorted((DATA / "lumbar_films/films").glob("*.png"))
    chosen = paths[::2] if part == "develop" else paths[1::2]
    return tuple(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in chosen)


def without_text(part: str, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Films that hold no text of two letters or more, each with its source."""
    for film in real(part):
        rows, columns = film.shape
        yield "real", film
        yield "real, mirrored", film[:, ::-1].copy()
        yield "real, upside down", film[::-1].copy()
        yield "real, cropped", film[rows // 5 : rows * 4 // 5, columns // 8 :].copy()
        yield "real, on its side", np.rot90(film).copy()
        yield (
            "real, enlarged",
            cv2.resize(film, None, fx=2.2, fy=2.2, interpolation=cv2.INTER_CUBIC),
        )
    for name in ("cr_tibia_rle", "cr_monochrome1_jpeg_baseline", "dx_lateral_cat"):
        path = DATA / f"dicom_samples/{name}.dcm"
        if path.exists():
            yield "sample object", render(pydicom.dcmread(path))
    for number in range(count):
        yield "synthetic", synthetic(SEEDS[part], number)


def background(part: str, rng: np.random.Generator, pool: list[np.ndarray]) -> np.ndarray:
    """A film to plant in: two of three synthetic, the others real if there are any."""
    films = real(part)
    if films and rng.random() < 0.35:
        return films[int(rng.integers(len(films)))].copy()
    return pool[int(rng.integers(len(pool)))].copy()


# Measuring -----------------------------------------------------------------------------------


def hidden(text: Planted, shape: tuple[int, int], found: BurnedIn) -> float:
    """Share of the text's changed pixels that lie in boxes to blank."""
    boxes = np.zeros(shape, bool)
    for top, left, bottom, right in found.blank:
        boxes[top:bottom, left:right] = True
    top, left, bottom, right = text.box
    return float(boxes[top:bottom, left:right][text.changed].mean())


def outcome(text: Planted, shape: tuple[int, int], found: BurnedIn) -> str:
    """What becomes of a text: `blanked`, `uncertain` (the film is rejected) or `missed`."""
    if hidden(text, shape, found) >= COVERED:
        return "blanked"
    return "uncertain" if found.uncertain else "missed"


def measure_texts(finder: TextFinder, part: str, count: int, pool: list) -> pd.DataFrame:
    """Plant one text a film; a row a text."""
    rng = np.random.default_rng([SEEDS[part], 10])
    weights = np.array(list(SHARES.values()), float) / sum(SHARES.values())
    rows = []
    while len(rows) < count:
        picture = background(part, rng, pool)
        text = plant(picture, rng, str(rng.choice(list(SHARES), p=weights)))
        if text is None or not text.changed.any():
            continue
        found = finder.find(picture)
        row = {key: getattr(text, key) for key in ("kind", "size", "contrast", "style", "place")}
        row |= {
            "turn": text.turn,
            "font": text.font,
            "outcome": outcome(text, picture.shape, found),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def measure_markers(finder: TextFinder, part: str, count: int, pool: list) -> dict[str, int]:
    """Plant a marker a film, every other time with initials beside it."""
    rng = np.random.default_rng([SEEDS[part], 11])
    tally = dict.fromkeys(
        ("alone", "alone, kept", "beside initials", "beside initials, kept", "initials hidden"), 0
    )
    while tally["alone"] + tally["beside initials"] < count:
        picture = background(part, rng, pool)
        fixed = {"turn": 0, "style": "plain", "contrast": rng.choice(["full", "medium"])}
        beside = (tally["alone"] + tally["beside initials"]) % 2
        word = str(rng.choice(["L", "R", "LAT", "ERECT"] if beside else MARKERS))
        marker = plant(picture, rng, "marker", word, height=int(rng.integers(14, 60)), **fixed)
        if marker is None or not marker.changed.any():
            continue
        if beside:
            top, _, bottom, right = marker.box
            initials = drawn(_initials(rng), marker.font, marker.height)
            left = right + round(0.7 * marker.height)
            window = picture[bottom - initials.shape[0] : bottom, left : left + initials.shape[1]]
            if window.shape != initials.shape:
                continue
            before = window.copy()
            bright = (
                picture[top:bottom, marker.box[1] : right][marker.changed].mean() > before.mean()
            )
            window[:] = np.rint(before + initials * ((255 if bright else 0) - before.astype(float)))
            box = (bottom - initials.shape[0], left, bottom, left + initials.shape[1])
            second = Planted(
                "initials",
                marker.font,
                marker.height,
                "full",
                "plain",
                "",
                0,
                box,
                window != before,
            )
        found = finder.find(picture)
        kept = hidden(marker, picture.shape, found) == 0
        name = "beside initials" if beside else "alone"
        tally[name] += 1
        tally[f"{name}, kept"] += kept
        if beside:
            tally["initials hidden"] += outcome(second, picture.shape, found) != "missed"
    return tally


def measure_without_text(finder: TextFinder, part: str, count: int) -> pd.DataFrame:
    """A row a film that holds no text: its source, what was done to it, and its time."""
    rows = []
    for source, picture in without_text(part, count):
        start, used = time.perf_counter(), time.process_time()
        found = finder.find(picture)
        rows.append(
            {
                "source": source,
                "altered": bool(found.blank),
                "uncertain": found.uncertain,
                "megapixels": picture.size / 1e6,
                "ms": 1000 * (time.perf_counter() - start),
                "CPU ms": 1000 * (time.process_time() - used),
            }
        )
    return pd.DataFrame(rows)


def table(texts: pd.DataFrame, key: str) -> pd.DataFrame:
    """n, blanked, uncertain and missed by one property, and the share that is not missed."""
    counts = pd.crosstab(texts[key], texts["outcome"])
    counts = counts.reindex(columns=["blanked", "uncertain", "missed"], fill_value=0)
    counts.insert(0, "n", counts.sum(axis=1))
    counts["held, %"] = (100 * (1 - counts["missed"] / counts["n"])).round(1)
    return counts


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Burned-in text: planted, and what became of it.")
    parser.add_argument("--part", choices=list(SEEDS), default="develop")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--markers", type=int, default=120)
    parser.add_argument("--films", type=int, default=240, help="synthetic films without text")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    finder = TextFinder()
    finder.find(np.zeros((64, 64), np.uint8))
    # Films with planted text are others than those without.
    pool = [synthetic(SEEDS[options.part], 10_000 + number) for number in range(60)]
    texts = measure_texts(finder, options.part, options.texts, pool)
    texts["all"] = "all"
    for key in ("all", "kind", "size", "contrast", "place", "style", "turn", "font"):
        print(f"\n{table(texts, key).to_string()}", flush=True)
    print("\nMarkers:", measure_markers(finder, options.part, options.markers, pool), flush=True)
    films = measure_without_text(finder, options.part, options.films)
    print("\nFilms without text:")
    print(films.groupby("source")[["altered", "uncertain"]].agg(["size", "sum"]).to_string())
    print(f"altered {films['altered'].mean():.2%}, uncertain {films['uncertain'].mean():.2%}")
    usual = films[films["megapixels"].between(2.8, 4.5)]
    for name, part in (("all", films), ("2.8 to 4.5 megapixels", usual)):
        medians = part[["megapixels", "ms", "CPU ms"]].median().round(1).to_dict()
        print(f"{name}: n {len(part)}, {medians}")


if __name__ == "__main__":
    main()
