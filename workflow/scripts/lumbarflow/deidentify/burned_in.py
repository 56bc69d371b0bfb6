"""Text burned into the pixels of a radiograph: where it is, and how to blank it.

The two networks of PP-OCRv6 (Apache-2.0) that the rapidocr package carries in its wheel do the
seeing. They run on onnxruntime straight from the files of the installed package: nothing can be
fetched and nothing is logged. The first marks the pixels of text (differentiable binarisation, Liao
et al., AAAI 2020), the second reads a line (connectionist temporal classification, Graves et al.,
ICML 2006). What was read decides what happens to it and never leaves this module.

The first network needs capitals of about 10 pixels, and half a second a megapixel. So it is shown
the whole film small, and enlarged only those windows that have a texture like that of small text:
strong gradients in more than one direction, measured by the smaller eigenvalue of the structure
tensor (Shi and Tomasi, CVPR 1994) against what is usual on this film at the same grey.
"""

from __future__ import annotations

import importlib.util
import math
import threading
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; bottom and right are excluded."""

_MARKERS = tomllib.loads(Path(__file__).with_name("markers.toml").read_text(encoding="utf-8"))

_COARSE_AREA = 0.28e6  # pixels of the small picture of the whole film
_FINE = 0.5  # pixels of the film to one of the enlarged windows
_TEXTURE = 2.5  # times what is usual
_TILE, _OVERLAP = 320, 80  # pixels; in larger windows the spine outshines small letters
_CONTEXT = 28  # pixels around what has a texture like text: without them any corner is a letter
_MARKS = (0.3, 0.65)  # probabilities from which a pixel counts as text
_UNCLIP = 1.6  # the network marks lines shrunk by area over outline times this
_LARGEST = 0.4  # of the shorter side of a film: the height of a line with its margins
_SMALL = 0.06  # of that side: lines under it are smaller than vertebrae
_MOST_HIDDEN = 0.009  # of a film, by one box
_DARK = 24  # grey levels: darker is no patient
_PADDING = 8  # pixels; without them letters at the edge are not seen
_END = 1.5  # heights of a line by which it may go on, unseen, at both ends
_STRIP = 48  # rows of what the second network reads
_FEW = 5  # letters of a marker and initials
_GAP, _SPACE = (
    1.6,
    0.6,
)  # of a space: times the smallest step between letters, and heights of a line
_ROUNDS = 3  # of looking for what is left beside blanked text


@dataclass(frozen=True)
class BurnedIn:
    """What was found in a picture.

    Attributes:
        blank: boxes to blank, each with a margin around its text.
        markers: boxes of laterality and position markers of two letters or more, and of single
            letters beside blanked text; they stay. Other single letters stay without being listed.
        uncertain: whether there is anything else that may be text.
    """

    blank: tuple[Box, ...] = ()
    markers: tuple[Box, ...] = ()
    uncertain: bool = False


class TextFinder:
    """Finds text in pictures; one a process is enough.

    Several threads may call :meth:`find` at once: the first call loads the networks under a lock,
    and nothing that the calls share changes afterwards.
    """

    def __init__(self, threads: int = 1):
        """Set how many threads a run of a network takes; nothing is loaded yet."""
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: _Networks | None = None

    def find(self, picture: np.ndarray) -> BurnedIn:
        """Find the text in a picture.

        Args:
            picture: rows x columns uint8 with square pixels.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = _Networks(self._threads)
        return _find(self._loaded, picture)


def blanked(values: np.ndarray, picture_shape: tuple[int, int], boxes: Iterable[Box]) -> np.ndarray:
    """Return a copy of pixel values with every box set to one value.

    Args:
        values: rows x columns of any integer dtype, as stored.
        picture_shape: rows and columns of the picture that the boxes were found in; they differ
            from those of `values` where pixels are not square.
        boxes: in pixels of that picture.

    Returns:
        The copy. A box, grown outwards to whole pixels, takes the median of the pixels that
        surround it and are in no box: a value of the film that depends on nothing inside.
    """
    result = values.copy()
    hidden = np.zeros(values.shape, bool)
    areas = []
    for top, left, bottom, right in boxes:
        if top >= bottom or left >= right:
            continue
        rows, columns = (
            slice(first * stored // seen, -(-last * stored // seen))
            for first, last, stored, seen in zip(
                (top, left), (bottom, right), values.shape, picture_shape, strict=True
            )
        )
        areas.append((rows, columns))
        hidden[rows, columns] = True
    for rows, columns in areas:
        around = tuple(slice(max(part.start - 3, 0), part.stop + 3) for part in (rows, columns))
        ring = values[around][~hidden[around]]
        if ring.size == 0:
            ring = values[~hidden]
        # The lower median is a value that occurs, and does not overflow as a mean of two may.
        result[rows, columns] = np.sort(ring)[(ring.size - 1) // 2] if ring.size else 0
    return result


# Networks ------------------------------------------------------------------------------------


class _Networks:
    """The two networks of the installed rapidocr package."""

    def __init__(self, threads: int):
        import onnxruntime  # here, as it takes a while and few processes need it

        # Not imported: that would set up its logger, and its classes fetch models that they miss.
        package = importlib.util.find_spec("rapidocr")
        folder = Path(next(iter(package.submodule_search_locations))) / "models"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        self._marker, self._reader = (
            onnxruntime.InferenceSession(
                str(folder / name), options, providers=["CPUExecutionProvider"]
            )
            for name in ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx")
        )
        letters = self._reader.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._letters = ["", *letters, " "]  # 0 is the blank of CTC

    def mark(self, picture: np.ndarray) -> np.ndarray:
        """Probability of text for every pixel of a float32 picture of -1 to 1."""
        rows, columns = picture.shape
        size = (-(-(n + 2 * _PADDING) // 32) * 32 for n in picture.shape)
        padded = np.zeros((1, 3, *size), np.float32)
        inside = slice(_PADDING, _PADDING + rows), slice(_PADDING, _PADDING + columns)
        padded[0, :, *inside] = picture
        return self._marker.run(None, {"x": padded})[0][0, 0, *inside]

    def read(self, strip: np.ndarray) -> tuple[list[tuple[str, float]], float]:
        """Letters of a line (48 rows, -1 to 1), their places (0 to 1), and the confidence."""
        stacked = np.repeat(strip[None, None], 3, axis=1).astype(np.float32)
        scores = self._reader.run(None, {"x": stacked})[0][0]
        best, top = scores.argmax(axis=1), scores.max(axis=1)
        new = np.flatnonzero((best > 0) & np.r_[True, best[1:] != best[:-1]])
        letters = [(self._letters[best[step]], (step + 0.5) / len(best)) for step in new]
        return letters, float(top[new].mean()) if len(new) else 0.0


class _Pyramid:
    """A picture and, made when they are asked for, its reductions by 2, 4, 8 ..."""

    def __init__(self, picture: np.ndarray):
        self._levels = {1: picture}

    def near(self, scale: float) -> tuple[np.ndarray, int]:
        """The reduction that is just not coarser than `scale`, and by how much it is reduced."""
        step = 2 ** max(math.floor(math.log2(scale)), 0)
        if step not in self._levels:
            size = [max(n // step, 1) for n in self._levels[1].shape[::-1]]
            self._levels[step] = cv2.resize(self._levels[1], size, interpolation=cv2.INTER_AREA)
        return self._levels[step], step


# Finding lines -------------------------------------------------------------------------------


@dataclass(repr=False)  # what is read must not reach a traceback
class _Line:
    """A line of text, or what looks like one, in pixels of the picture."""

    centre: np.ndarray  # x, y
    along: float  # with the margins that text lines are given
    across: float
    angle: float  # of the reading direction, degrees from rightwards to downwards
    score: float  # mean probability of text
    letters: list[tuple[str, float]]  # with their places along the line, 0 to 1
    confidence: float = 0.0
    agreement: float = 1.0  # of two readings, 0 to 1
    share: float = 0.0  # height over the shorter side of the film

    @property
    def count(self) -> int:
        """Number of letters and digits."""
        return sum(letter.isalnum() for letter, _ in self.letters)

    @property
    def ratio(self) -> float:
        return self.along / self.across

    def box(self, first: float = 0.0, last: float = 1.0) -> Box:
        """The upright box around a part of the line."""
        turn = math.radians(self.angle)
        direction = np.array([math.cos(turn), math.sin(turn)])
        middle = self.centre + direction * self.along * ((first + last) / 2 - 0.5)
        half = np.abs(direction) * self.along * (last - first) / 2
        half = half + np.abs(direction[::-1]) * self.across / 2
        left, top = np.maximum(np.floor(middle - half), 0)
        right, bottom = np.maximum(np.ceil(middle + half), 0)
        return int(top), int(left), int(bottom), int(right)

    def beside(self, other: _Line) -> bool:
        """Whether the other line is before, after or on this one."""
        turn = math.radians(self.angle)
        x, y = other.centre - self.centre
        return abs(y * math.cos(turn) - x * math.sin(turn)) < 0.6 * max(self.across, other.across)


def _lines(networks: _Networks, picture: np.ndarray) -> list[_Line]:
    """Everything in a picture that may be a line, read."""
    pyramid = _Pyramid(picture)
    scale = max(math.sqrt(picture.size / _COARSE_AREA), 0.5)
    whole = (0, 0, *picture.shape)
    found = _search(networks, pyramid, whole, scale)
    # Large letters without contrast are more like letters when they are small.
    for plain in (False, True):
        found += _search(networks, pyramid, whole, 2 * scale, plain)
    fine = _FINE
    while 1.3 * fine < scale:
        level, step = pyramid.near(fine)
        for window in _windows(level):
            box = tuple(step * edge for edge in window)
            found += _search(networks, pyramid, box, fine)
        fine *= 4
    lines = _readings(networks, pyramid, found)
    # What is like text and could not be read gets a second look, at its own scale.
    again = []
    for line in lines:
        if line.score > 0.7 and not _is_text(line):
            window = _grown(line.box(), 2 * line.across, picture.shape)
            again += _search(networks, pyramid, window, max(line.across / 40, 0.4), plain=True)
    return lines + _readings(networks, pyramid, again)


def _windows(picture: np.ndarray) -> list[Box]:
    """Overlapping boxes over all that has a texture like text of 8 to 50 pixels."""
    soft = cv2.GaussianBlur(picture, (0, 0), 0.8)
    size = [max(n // 4, 1) for n in picture.shape[::-1]]

    def pooled(values: np.ndarray) -> np.ndarray:
        return cv2.blur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (3, 3))

    along, down = (cv2.Sobel(soft, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    xx, yy, xy = pooled(along * along), pooled(down * down), pooled(along * down)
    smaller = (xx + yy - np.sqrt((xx - yy) ** 2 + 4 * xy * xy)) / 32
    grey = pooled(soft) >> 4
    usual = np.full(16, np.median(smaller), np.float32)
    for value in np.unique(grey):
        here = smaller[grey == value]
        if here.size > 50:
            usual[value] = np.median(here)
    like_text = (smaller > _TEXTURE * (4 + usual[grey])).astype(np.uint8)
    for way in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):
        like_text = cv2.morphologyEx(like_text, way, np.ones((3, 3), np.uint8))
    reach = _CONTEXT // 4
    like_text = cv2.dilate(like_text, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    boxes = cv2.connectedComponentsWithStats(like_text)[2][1:, :4] * 4
    return [
        (top, left, bottom, right)
        for x, y, width, height in boxes.tolist()
        for top, bottom in _tiles(y, y + height)
        for left, right in _tiles(x, x + width)
    ]


def _tiles(first: int, last: int) -> list[tuple[int, int]]:
    """A range, in overlapping parts of one length where it is long."""
    count = max(math.ceil((last - first - _OVERLAP) / (_TILE - _OVERLAP)), 1)
    step = (last - first - _OVERLAP) / count
    starts = [first + round(number * step) for number in range(count)]
    return [(start, min(start + math.ceil(step) + _OVERLAP, last)) for start in starts]


def _search(
    networks: _Networks, pyramid: _Pyramid, box: Box, scale: float, plain: bool = False
) -> list[_Line]:
    """Lines within a box of the picture, as seen at 1:`scale`; not read yet.

    Low contrasts are raised unless `plain`.
    """
    level, step = pyramid.near(scale)
    top, left = box[0] // step, box[1] // step
    part = level[top : -(-box[2] // step), left : -(-box[3] // step)]
    if step != scale:
        size = [max(round(n * step / scale), 1) for n in part.shape[::-1]]
        way = cv2.INTER_AREA if scale > step else cv2.INTER_CUBIC
        part = cv2.resize(part, size, interpolation=way)
    marked = networks.mark(part / np.float32(127.5) - 1 if plain else _local_contrast(part))
    offset = np.array([left, top]) * step
    lines = _outlined(marked, _MARKS[0], scale, offset)
    # Where bones are marked together with the text on them, the text is marked more strongly.
    return lines + [
        core
        for core in _outlined(marked, _MARKS[1], scale, offset)
        if all(_covered(line.box(), core.box()) < 0.5 for line in lines)
    ]


def _outlined(marked: np.ndarray, least: float, scale: float, offset: np.ndarray) -> list[_Line]:
    """Lines where `marked`, seen at 1:`scale` from `offset` (x, y), is more than `least`."""
    outlines, inside = cv2.findContours(
        (marked > least).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    lines = []
    for index, outline in enumerate(outlines):
        (x, y), (along, across), angle = cv2.minAreaRect(outline)
        if inside[0][index][3] >= 0 or min(along, across) < 2:  # a hole, a speck
            continue
        x0, y0, width, height = cv2.boundingRect(outline)
        filled = np.zeros((height, width), np.uint8)
        cv2.drawContours(filled, [outline], -1, 1, -1, offset=(-x0, -y0))
        score = cv2.mean(marked[y0 : y0 + height, x0 : x0 + width], filled)[0]
        if along < across:
            along, across, angle = across, along, angle + 90
        growth = 1 + _UNCLIP * (along + 1) * (across + 1) / (along + across + 2)
        centre = (np.array([x, y]) + 0.5) * scale + offset
        size = (along + growth) * scale, (across + growth) * scale
        lines.append(_Line(centre, *size, (angle + 45) % 180 - 45, score, []))
    return lines


def _local_contrast(picture: np.ndarray) -> np.ndarray:
    """Deviation from the local mean in local standard deviations, halved and cut to -1 to 1."""
    grey, window = picture.astype(np.float32), (61, 61)
    mean = cv2.blur(grey, window)
    variance = np.maximum(cv2.blur(grey * grey, window) - mean * mean, 0)
    return np.clip(0.5 * (grey - mean) / np.sqrt(variance + 25), -1, 1)


# Reading -------------------------------------------------------------------------------------


def _readings(networks: _Networks, pyramid: _Pyramid, lines: list[_Line]) -> list[_Line]:
    """Read what can be two letters or more; the rest, and what was read twice, is left out."""
    side = min(pyramid.near(1)[0].shape)
    done: list[_Line] = []
    for line in sorted(lines, key=lambda line: -line.score * min(line.ratio, 3)):
        square = line.ratio < 1.15 and line.score < 0.8
        if square or line.score < 0.4 or not 7 <= line.across <= _LARGEST * side:
            continue
        known = (other for other in done if _is_text(other))
        if any(_covered(line.box(), other.box()) > 0.7 for other in known):
            continue
        line.share = line.across / side
        _read(networks, pyramid, line)
        done.append(line)
    return done


def _read(networks: _Networks, pyramid: _Pyramid, line: _Line) -> None:
    """Fill in letters, confidence and agreement, and turn the line by 180 degrees if that reads."""
    level, step = pyramid.near(max(line.across / 40, 1))
    line.letters, line.confidence = networks.read(_strip(level, step, line))
    upright = abs(line.angle) < 45
    if line.confidence < 0.8 and (not upright or (line.score > 0.85 and line.ratio > 1.4)):
        line.angle += 180
        letters, confidence = networks.read(_strip(level, step, line))
        if confidence > line.confidence:
            line.letters, line.confidence = letters, confidence
        else:
            line.angle -= 180
    # Bones and screws read like letters, but like others when they are cut out another way.
    if line.count >= 2 and line.confidence > 0.5 and (line.count < 5 or line.confidence < 0.9):
        other, _ = networks.read(_strip(level, step, line, 1.2))
        texts = (
            "".join(letter for letter, _ in letters if letter.isalnum())
            for letters in (line.letters, other)
        )
        line.agreement = SequenceMatcher(None, *texts, autojunk=False).ratio()


def _strip(level: np.ndarray, step: int, line: _Line, wider: float = 1.0) -> np.ndarray:
    """A line cut out of a level of the pyramid, upright, 48 rows, -1 to 1."""
    across, along = wider * line.across, line.along + (wider - 1) * line.across
    width = int(np.clip(round(along * _STRIP / across), 16, 1600))
    turn, zoom = math.radians(line.angle), across / step / _STRIP
    axes = zoom * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    corner = line.centre / step - 0.5 - axes @ [(width - 1) / 2, (_STRIP - 1) / 2]
    strip = cv2.warpAffine(
        level,
        np.column_stack([axes, corner]),
        (width, _STRIP),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    low, high = np.percentile(strip, (1, 99))
    return np.clip((strip - low) / max(high - low, 8) * 2 - 1, -1, 1)


# Deciding ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Marker:
    """A marker that stays, and how many letters and digits the line has that it was read in."""

    box: Box
    count: int


def _find(networks: _Networks, picture: np.ndarray) -> BurnedIn:
    texts: list[tuple[Box, _Line]] = []
    markers: list[_Marker] = []
    doubtful: list[Box] = []
    for line in _lines(networks, picture):
        if _is_text(line):
            for box, is_marker in _parts(line):
                if is_marker:
                    markers.append(_Marker(box, line.count))
                else:
                    texts.append((_grown(box, _margin(line), picture.shape), line))
        elif _is_doubtful(line):
            doubtful.append(line.box())
    # Ends of lines that were not marked with the rest: seen nearer, then with the rest blanked.
    new = texts
    for number in range(_ROUNDS):
        if not new:
            break
        hidden = [box for box, _ in texts] if number else []
        pyramid = _Pyramid(blanked(picture, picture.shape, hidden))
        left = _left_over(networks, pyramid, new, markers)
        texts += left
        new = left if number else texts.copy()
    blank = []
    for box, line in texts:
        # The longest reading is believed: what is read in part is not another text.
        kept = [marker.box for marker in markers if marker.count >= line.count]
        blank += _without(box, kept)
    known = [box for box, _ in texts] + [marker.box for marker in markers]
    open_questions = any(all(_covered(box, other) < 0.9 for other in known) for box in doubtful)
    uncertain = open_questions or bool(new) or any(_hides_much(picture, box) for box in blank)
    return BurnedIn(tuple(blank), tuple(marker.box for marker in markers), uncertain)


def _hides_much(picture: np.ndarray, box: Box) -> bool:
    """Whether a box to be blanked holds a good part of the patient: threads of screws look like
    letters, and blanking them on a film that is kept would take vertebrae with them."""
    top, left, bottom, right = box
    part = picture[top:bottom, left:right]
    lit = np.count_nonzero((part > _DARK) & (part < 255 - _DARK))
    return lit > _MOST_HIDDEN * picture.size


def _left_over(
    networks: _Networks,
    pyramid: _Pyramid,
    texts: list[tuple[Box, _Line]],
    markers: list[_Marker],
) -> list[tuple[Box, _Line]]:
    """What else is written around texts; markers among it are added to `markers`."""
    shape = pyramid.near(1)[0].shape
    found = []
    for box, line in texts:
        window = _grown(box, 2 * line.across, shape)
        around = _search(networks, pyramid, window, max(line.across / 36, 0.5))
        around = [other for other in around if 0.4 < other.across / line.across < 2.5]
        _readings(networks, pyramid, around)
        for other in around:
            if any(
                other.count <= marker.count and _covered(other.box(), marker.box) > 0.6
                for marker in markers
            ):
                continue
            parts = list(_parts(other)) if _is_text(other) else [(other.box(), False)]
            apart = _distance(other.box(), box) > 0.2 * line.across
            kinds = [kind for _, _, kind in _kinds(other)]
            if apart and other.confidence > 0.6 and kinds and all(kinds):
                markers.append(_Marker(other.box(), other.count))
                continue
            # Bones beside text are larger than it, or read with less confidence.
            alike = other.across < 1.6 * line.across
            read = alike and other.count and min(other.confidence, other.score) > 0.5
            goes_on = alike and line.beside(other) and (other.count or other.score >= 0.8)
            for part, is_marker in parts:
                place = _grown(part, _margin(other), shape)
                known = _covered(place, box) > 0.95 or _distance(part, box) > 1.5 * line.across
                if not (is_marker or known) and (read or goes_on or _is_text(other)):
                    found.append((place, other))
    return found


def _is_text(line: _Line) -> bool:
    """Whether somebody wrote this: two letters or more."""
    if _is_foreign(line):
        return True
    if line.score < 0.5 or line.ratio > 0.8 * len(line.letters) + 1.1 or _is_large_comb(line):
        return False
    three = _is_three(line)
    if line.count == 2:
        score, confidence = 0.8, 0.93 if line.share < _SMALL else 0.97
    else:
        score, confidence = (0.6, 0.9) if three else (0.5, 0.82)
    sure = line.score >= score and line.confidence >= confidence and line.agreement >= 0.6
    if line.count >= 2 and sure:
        return True
    readable = line.count >= 3 and not three and line.score >= 0.8 and not _is_comb(line)
    return readable and line.confidence >= 0.6 and line.agreement >= 0.6


def _is_three(line: _Line) -> bool:
    """Whether it reads as three letters of the kind that bones, too, are read as."""
    return line.count == 3 and all(letter.isascii() for letter, _ in line.letters)


def _is_foreign(line: _Line) -> bool:
    """Whether it is a line in an alphabet that the second network reads in part."""
    return line.score > 0.92 and line.ratio > 4 and 0 < line.count < line.ratio


def _is_doubtful(line: _Line) -> bool:
    """Whether it is a word for the one network and nothing sure for the other."""
    if _is_large_comb(line):
        return line.score >= 0.8 and line.confidence >= 0.93
    if _is_comb(line) and line.count != 2:
        return False
    if line.score >= 0.95 and line.ratio >= 3:
        return True
    if line.count == 2 or _is_three(line):
        if line.share < _SMALL:
            return line.score >= 0.85 and line.confidence >= 0.65
        return min(line.score, line.agreement) >= 0.6 and line.confidence >= 0.85
    return line.count >= 3 and line.score >= 0.8 and line.confidence >= 0.6


def _is_comb(line: _Line) -> bool:
    """Whether it reads as strokes only, like the threads of screws and the lines of a grid."""
    letters = [letter for letter, _ in line.letters if letter.isalnum()]
    strokes = sum(letter in "IiLlTtJjWwMmNnVvUuCc1740中山工申电" for letter in letters)
    return bool(letters) and strokes >= 0.8 * len(letters)


def _is_large_comb(line: _Line) -> bool:
    """Whether it reads as two to four strokes of the size of vertebrae, whose edges they may be."""
    return line.share >= _SMALL and 2 <= line.count <= 4 and _is_comb(line)


def _parts(line: _Line) -> Iterator[tuple[Box, bool]]:
    """Boxes of a line, and whether each is a marker that stays.

    A marker stays if the line holds nothing else but initials and the like: up to three letters.
    """
    words = _kinds(line)
    if words and all(kind for _, _, kind in words):
        yield line.box(), True
        return
    others = [length for length, _, kind in words if not kind]
    if not any(kind == "always" for _, _, kind in words) or max(others, default=0) > 3:
        yield line.box(-_END / line.ratio, 1 + _END / line.ratio), False
        return
    for _, place, kind in words:
        yield line.box(*place), kind == "always"


def _kinds(line: _Line) -> list[tuple[int, tuple[float, float], str]]:
    """Words of a line: length, where they begin and end (0 to 1), and the kind of marker if any."""
    return [(len(text), (first, last), _kind(text)) for text, first, last in _words(line)]


def _words(line: _Line) -> Iterator[tuple[str, float, float]]:
    """Words of a line (letters and digits only) with where they begin and end, 0 to 1."""
    words: list[list[tuple[str, float]]] = [[]]
    places = [place for letter, place in line.letters if letter.isalnum()]
    # Between a marker's letter and initials the network does not always read a space.
    *_, usual, _ = [np.inf, np.inf, *np.sort(np.diff(places))]
    wide = max(_GAP * usual, _SPACE / line.ratio)
    for letter, place in line.letters:
        if letter.isspace():
            words.append([])
        elif letter.isalnum():
            if len(places) <= _FEW and words[-1] and place - words[-1][-1][1] > wide:
                words.append([])
            words[-1].append((letter, place))
    words = [word for word in words if word]
    borders = [(a[-1][1] + b[0][1]) / 2 for a, b in pairwise(words)]
    for word, first, last in zip(words, [0.0, *borders], [*borders, 1.0], strict=False):
        yield "".join(letter for letter, _ in word), first, last


def _kind(word: str) -> str:
    """`always` or `alone`, when a marker stays; nothing if the word is none."""
    name = word.upper() if len(word) > 3 else word
    return next((kind for kind, words in _MARKERS.items() if name in words), "")


# Boxes ---------------------------------------------------------------------------------------


def _margin(line: _Line) -> float:
    return 0.25 * line.across + 2


def _grown(box: Box, margin: float, shape: tuple[int, ...]) -> Box:
    reach = math.ceil(margin)
    top, left = (max(edge - reach, 0) for edge in box[:2])
    bottom, right = (min(edge + reach, n) for edge, n in zip(box[2:], shape, strict=True))
    return top, left, bottom, right


def _without(box: Box, holes: Iterable[Box]) -> list[Box]:
    """The rectangles that are left of a box."""
    pieces = [box]
    for hole in holes:
        left_of: list[Box] = []
        for top, left, bottom, right in pieces:
            first, last = max(top, hole[0]), min(bottom, hole[2])
            start, end = max(left, hole[1]), min(right, hole[3])
            if first >= last or start >= end:
                left_of.append((top, left, bottom, right))
                continue
            left_of += [
                (top, left, first, right),
                (last, left, bottom, right),
                (first, left, last, start),
                (first, end, last, right),
            ]
        pieces = [piece for piece in left_of if piece[0] < piece[2] and piece[1] < piece[3]]
    return pieces


def _covered(box: Box, other: Box) -> float:
    """Share of a box that the other one covers."""
    height = min(box[2], other[2]) - max(box[0], other[0])
    width = min(box[3], other[3]) - max(box[1], other[1])
    return max(height, 0) * max(width, 0) / max((box[2] - box[0]) * (box[3] - box[1]), 1)


def _distance(box: Box, other: Box) -> int:
    """Gap between two boxes, the larger one of both directions."""
    gaps = (box[0] - other[2], other[0] - box[2], box[1] - other[3], other[1] - box[3])
    return max(0, *gaps)
