"""Letters on films: lead side markers, and text that a console burns into the picture.

Markers lie on the detector and are part of the exposure; text is written into the finished picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from .people import Patient, Study, alphabetic

_FINE = 4  # letters are drawn larger and averaged, for soft edges
_INITIALS = "ABCDEFGHJKLMNPRSTVW"
_SMALLEST_INITIALS = 8  # pixels; smaller ones would only be specks
_DATES = ("{d}.{m}.{y}", "{y}-{m}-{d}", "{d}/{m}/{y}", "{m}/{d}/{y}", "{y}{m}{d}")
_HERSHEY = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)


def side_marker(
    rng: np.random.Generator,
    shape: tuple[int, int],
    pixel_spacing_mm: float,
    field: tuple[int, int, int, int],
    anterior: str,
) -> tuple[int, int, np.ndarray]:
    """A lead letter near the border of a film: L or R, some with initials or balls in a bubble.

    Many are seen from behind or lie askew, as on real films.

    Args:
        rng: draws letter, size and place.
        shape: rows and columns of the film.
        pixel_spacing_mm: at the detector, where the marker lies.
        field: the collimated field: x0, y0, x1, y1, end excluded.
        anterior: `left` or `right`, where the patient faces.

    Returns:
        x and y of the patch's upper left pixel and the patch: rows x columns float32, the share of
        each pixel that is behind lead (0 to 1). It lies inside the film and the field, and never
        over the middle of its width.
    """
    height = rng.uniform(9.0, 17.0) / pixel_spacing_mm
    letter = _letter(rng, height)
    if rng.random() < 0.4:
        letter = letter[:, ::-1]
    quarter = float(rng.choice((0, 90, -90, 180), p=(0.82, 0.07, 0.07, 0.04)))
    patch = _turned(letter, quarter + float(rng.normal(0, 6)))

    x0, y0 = max(field[0], 0), max(field[1], 0)
    x1, y1 = min(field[2], shape[1]), min(field[3], shape[0])
    # A fifth of the width stays free on each side of the middle.
    share = min(0.3 * (x1 - x0) / patch.shape[1], 0.3 * (y1 - y0) / patch.shape[0], 1.0)
    size = [max(round(side * share), 1) for side in patch.shape[::-1]]
    patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
    rows, columns = patch.shape

    # In front of the belly there is room; behind the back the film is often black anyway.
    front = rng.random() < 0.7
    at_left = front == (anterior == "left")
    gap = round(min(rng.uniform(1.0, 12.0) / pixel_spacing_mm, 0.05 * (x1 - x0)))
    x = x0 + gap if at_left else x1 - gap - columns
    low, high = (0.02, 0.3) if rng.random() < 0.7 else (0.55, 0.9)
    y = y0 + round(rng.uniform(low, high) * (y1 - y0 - rows))
    return x, y, patch


def _letter(rng: np.random.Generator, height: float) -> np.ndarray:
    """A letter (float32, 0 to 1) of so many pixels height, with what is cast beside it."""
    letter = _drawn("LR"[rng.integers(2)], height, int(rng.choice((600, 800, 1000))))
    extra = rng.random()
    if extra < 0.2 and height * 0.4 >= _SMALLEST_INITIALS:
        initials = "".join(_INITIALS[i] for i in rng.integers(len(_INITIALS), size=2))
        letter = _beside(letter, _drawn(initials, 0.4 * height, 700), below=rng.random() < 0.5)
    elif extra < 0.35:  # steel balls that run to the lowest place of a bubble
        letter = _beside(letter, _balls(rng, 0.35 * height), below=rng.random() < 0.7)
    return letter


def _drawn(text: str, height: float, weight: int) -> np.ndarray:
    """A text whose capitals are so many pixels high, cut to its ink (float32, 0 to 1)."""
    return _reduced(_ink(text, max(height, 4.0) * _FINE, "sans", weight))


def _ink(text: str, height: float, font: str | int, weight: int) -> np.ndarray:
    """A text in capitals of about so many pixels height, cut to its ink (uint8, 0 to 255).

    `font` is one that OpenCV carries: a name (outlines of any weight) or a number (Hershey's).
    """
    canvas = np.zeros((round(2.4 * height) + 8, round(1.6 * height * len(text)) + 16), np.uint8)
    origin = (8, round(1.6 * height) + 4)
    if isinstance(font, str):
        size = max(round(height / 0.7), 4)  # capitals are 0.7 of a font's size
        cv2.putText(canvas, text, origin, 255, cv2.FontFace(font), size, weight)
    else:
        line = max(round(height * weight / 5000), 1)
        cv2.putText(canvas, text, origin, font, height / 21, 255, line, cv2.LINE_AA)
    rows, columns = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _balls(rng: np.random.Generator, size: float) -> np.ndarray:
    """Three balls that lie beside each other (float32, 0 to 1)."""
    side = max(round(size * _FINE), 6 * _FINE)
    canvas = np.zeros((side, side), np.uint8)
    radius = max(side // 7, 2)
    middle, low = side // 2 + int(rng.integers(-radius, radius + 1)), side - radius - 1
    for x, y in ((-2, 0), (0, 0), (2, 0), (-1, -2)):
        if rng.random() < 0.85:
            place = (middle + x * radius, low + y * radius)
            cv2.circle(canvas, place, radius, 255, -1, cv2.LINE_AA)
    return _reduced(canvas)


def _reduced(canvas: np.ndarray) -> np.ndarray:
    """A picture (uint8) at 1 / _FINE of its size, float32 from 0 to 1."""
    size = [-(-side // _FINE) for side in canvas.shape[::-1]]
    padded = np.zeros((size[1] * _FINE, size[0] * _FINE), np.uint8)
    padded[: canvas.shape[0], : canvas.shape[1]] = canvas
    return cv2.resize(padded, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _beside(letter: np.ndarray, other: np.ndarray, below: bool) -> np.ndarray:
    """Two pictures in one, the second below or to the right of the first."""
    if not below:
        return _beside(letter.T, other.T, True).T
    gap = max(len(letter) // 8, 1)
    width = max(letter.shape[1], other.shape[1])
    result = np.zeros((len(letter) + gap + len(other), width), np.float32)
    result[: len(letter), : letter.shape[1]] = letter
    result[-len(other) :, : other.shape[1]] = other
    return result


def _turned(picture: np.ndarray, degrees: float) -> np.ndarray:
    """A picture turned about its middle on a patch large enough for it."""
    rows, columns = picture.shape
    turn = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), degrees, 1.0)
    cosine, sine = abs(turn[0, 0]), abs(turn[0, 1])
    size = np.ceil([columns * cosine + rows * sine, columns * sine + rows * cosine]).astype(int) + 2
    turn[:, 2] += (size - 1) / 2 - ((columns - 1) / 2, (rows - 1) / 2)
    patch = cv2.warpAffine(np.ascontiguousarray(picture), turn, size.tolist())
    return np.clip(patch, 0, 1)


# Burned-in text --------------------------------------------------------------------------------


def burn_text(
    pixels: np.ndarray, patient: Patient, study: Study, rng: np.random.Generator
) -> np.ndarray:
    """A copy of a film with text in one or two corners that tells who is on it.

    Name, number, dates, hospital and operator in several orders; bright or dark letters of several
    fonts and sizes, some in a box. Names are written in their alphabetic form.

    Args:
        pixels: rows x columns float32 from 0 to 1, bone bright.
        patient: who is on the film.
        study: when and where it was taken.
        rng: draws what is written, how and where.
    """
    result = pixels.copy()
    lines = _lines(patient, study, rng)
    split = int(rng.integers(1, len(lines) + 1)) if len(lines) > 1 else 1
    corners = rng.permutation(4)
    font = ("sans", "italic", "uni", *_HERSHEY)[rng.integers(3 + len(_HERSHEY))]
    # Consoles write in pixels of the film, whatever these measure.
    height = max(float(rng.uniform(0.006, 0.016)) * max(pixels.shape), 7.0)
    style = font, height, int(rng.choice((400, 500, 700)))
    look = float(rng.choice((1.0, 0.0, rng.uniform(0.75, 1.0)), p=(0.65, 0.15, 0.2))), rng.random()
    for part, corner in zip((lines[:split], lines[split:]), corners[:2].tolist(), strict=True):
        if part:
            _write(result, part, corner, style, look)
    return result


def _lines(patient: Patient, study: Study, rng: np.random.Generator) -> list[str]:
    """What is written: always the name, and some of the rest."""
    family, given = alphabetic(patient.name)
    names = (f"{family}, {given}", f"{family.upper()} {given}", f"{family}^{given}")
    style = _DATES[rng.integers(len(_DATES))]
    born, taken = (
        style.format(y=text[:4], m=text[4:6], d=text[6:])
        for text in (patient.birth_date, study.date)
    )
    rest = [
        patient.patient_id,
        f"*{born}",
        f"{taken} {study.time[:2]}:{study.time[2:4]}",
        study.accession_number,
        *([study.institution] if _can_be_drawn(study.institution) else []),
        alphabetic(study.operator)[0],
    ]
    chosen = rng.permutation(len(rest))[: rng.integers(1, 5)]
    return [names[rng.integers(len(names))], *(rest[i] for i in sorted(chosen.tolist()))]


def _can_be_drawn(text: str) -> bool:
    """Whether the fonts have all letters: none of Chinese, Japanese or Korean."""
    return all(ord(letter) < 0x2000 for letter in text)


def _write(
    film: np.ndarray,
    lines: list[str],
    corner: int,
    style: tuple[str | int, float, int],
    look: tuple[float, float],
) -> None:
    """Write lines into a corner (0 to 3: upper left, upper right, lower left, lower right)."""
    font, height, weight = style
    grey, box = look
    if not all(letter.isascii() for line in lines for letter in line):
        font = "uni"  # the others have not all letters
    inks = [_ink(line, height, font, weight) for line in lines]
    rows, columns = film.shape
    margin = max(round(0.012 * max(film.shape)), 2)
    # Text keeps to its side: the spine runs down the middle.
    share = min(0.36 * columns / max(ink.shape[1] for ink in inks), 1.0)
    step = round(1.9 * height * share)
    width = round(max(ink.shape[1] for ink in inks) * share)
    tall = step * len(inks)
    x0 = margin if corner % 2 == 0 else columns - margin - width
    y0 = margin if corner < 2 else rows - margin - tall
    pad = max(round(0.4 * height * share), 1)
    behind = film[max(y0 - pad, 0) : y0 + tall, max(x0 - pad, 0) : x0 + width + pad]
    if box < 0.2:  # letters on a field of the other end of the scale
        behind[:] = 0.0 if grey > 0.5 else 1.0
    elif abs(float(behind.mean()) - grey) < 0.3:  # nobody could read it
        grey = 1.0 - round(grey)
    for number, ink in enumerate(inks):
        if share < 1:
            size = [max(round(side * share), 1) for side in ink.shape[::-1]]
            ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
        x = x0 if corner % 2 == 0 else columns - margin - ink.shape[1]
        y = y0 + number * step
        target = film[y : y + ink.shape[0], x : x + ink.shape[1]]
        opacity = ink[: target.shape[0], : target.shape[1]].astype(np.float32) / 255
        target += opacity * (np.float32(grey) - target)
