"""Which view a radiograph shows, from what its header says: is it a lateral lumbar film?

No attribute can be trusted alone: some equipment writes AP and `L\\F` for every film, body parts
are often wrong (in 15% of headers: Güld et al., Proc SPIE 4685, 2002), and a description of the
study names the pictures that were ordered, not the one at hand. So each piece of evidence has a
weight, and a film is decided where one view and one region have a clear lead. The words that
descriptions are read by are in view_words.toml.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

WORDS = Path(__file__).with_name("view_words.toml")

#: Why a film is not taken.
REASONS = ("not_lateral", "not_lumbar", "view_uncertain")
VIEWS = ("lateral", "frontal", "oblique", "other")
REGIONS = ("lumbar", "part", "whole", "elsewhere")

# What a piece of evidence counts, by its source, for a view and for a region.
VIEW_WEIGHTS = {
    "film_text": 5,
    "view_code": 4,
    "orientation": 4,
    "view_position": 1,
    "study_text": 1,
}
# Frontal is also what equipment writes where nobody chose a view, and what is left of "AP + side"
# where the second word is not known. Together with View Position these stay below LEAD: a film is
# frontal only where a description of the film itself says so.
FRONTAL_WEIGHTS = {"view_code": 0.3, "orientation": 0.3, "study_text": 0.3}
REGION_WEIGHTS = {"film_text": 5, "anatomy_code": 2, "body_part": 2, "study_text": 2}
# The best must lead the next by this much, and nothing that contradicts it may be strong.
LEAD = 2
STRONG = 4

# Descriptions of the film, and of what was ordered. Reasons for the examination are left out:
# they name regions that hurt, not those that are seen.
_FILM_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_FILM_CODES = ("PerformedProtocolCodeSequence",)
_STUDY_TEXTS = (
    "StudyDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
)
_STUDY_CODES = ("ProcedureCodeSequence", "RequestedProcedureCodeSequence")
_REQUEST_TEXTS = ("RequestedProcedureDescription", "ScheduledProcedureStepDescription")


@dataclass(frozen=True)
class Choice:
    """What a film shows.

    Attributes:
        view: `lateral`, `frontal`, `oblique`, `other`, or None where that cannot be told.
        region: `lumbar`, `part` (a junction or a spot film), `whole` (the whole spine),
            `elsewhere`, or None.
        reason: why the film is not taken, one of :data:`REASONS`; None for a lateral lumbar film.
        evidence: what was found, as `source:finding`, for example `film_text:lateral`; words of
            this module only, never text of the header.
    """

    view: str | None
    region: str | None
    reason: str | None
    evidence: tuple[str, ...]


def choose(dataset: Dataset) -> Choice:
    """Tell whether an object is a lateral film of the lumbar spine; pixels are not looked at.

    A film of another region or of the whole spine is `not_lumbar`: there the lumbar vertebrae are
    small, and stitched or magnified in another way. One of another view is `not_lateral`. What is
    missing, contradictory, or shows a part of the lumbar spine only is `view_uncertain`.
    """
    found = sorted(set(_evidence(dataset)))
    view = _decide(found, VIEWS, VIEW_WEIGHTS)
    region = _decide(found, REGIONS, REGION_WEIGHTS)
    if region in ("elsewhere", "whole"):
        reason = "not_lumbar"
    elif view not in (None, "lateral"):
        reason = "not_lateral"
    else:
        reason = None if view and region == "lumbar" else "view_uncertain"
    return Choice(view, region, reason, tuple(f"{source}:{finding}" for source, finding in found))


@cache
def fingerprint() -> str:
    """A digest (16 hexadecimal digits) of what choices follow from: this module and the words."""
    content = Path(__file__).read_bytes() + WORDS.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _decide(
    found: Iterable[tuple[str, str]], names: Iterable[str], weights: Mapping[str, float]
) -> str | None:
    """The name that leads in weight, or None."""
    sums: dict[str, float] = dict.fromkeys(names, 0)
    for source, finding in found:
        if finding in sums and source in weights:
            special = FRONTAL_WEIGHTS if finding == "frontal" else {}
            sums[finding] += special.get(source, weights[source])
    (best, most), (_, next_most), *_ = sorted(sums.items(), key=lambda item: -item[1])
    return best if most - next_most >= LEAD and next_most < STRONG else None


def _evidence(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Pairs of source and finding."""
    for source, texts in (
        ("film_text", _film_texts(dataset)),
        ("study_text", _study_texts(dataset)),
    ):
        for text in texts:
            for finding in (view_in(text), region_in(text)):
                if finding:
                    yield source, finding
    for item in _items(dataset, "ViewCodeSequence"):
        if finding := _coded(item, VIEWS) or view_in(_text(item, "CodeMeaning")):
            yield "view_code", finding
    for item in _items(dataset, "AnatomicRegionSequence"):
        if finding := _coded(item, REGIONS) or region_in(_text(item, "CodeMeaning")):
            yield "anatomy_code", finding
    if finding := region_in(_text(dataset, "BodyPartExamined")):
        yield "body_part", finding
    if finding := _view_position(_text(dataset, "ViewPosition")):
        yield "view_position", finding
    if finding := _orientation(dataset.get("PatientOrientation")):
        yield "orientation", finding


def _film_texts(dataset: Dataset) -> Iterator[str]:
    for keyword in _FILM_TEXTS:
        yield _text(dataset, keyword)
    for keyword in _FILM_CODES:
        yield from (_text(item, "CodeMeaning") for item in _items(dataset, keyword))


def _study_texts(dataset: Dataset) -> Iterator[str]:
    for keyword in _STUDY_TEXTS:
        yield _text(dataset, keyword)
    for keyword in _STUDY_CODES:
        yield from (_text(item, "CodeMeaning") for item in _items(dataset, keyword))
    for item in _items(dataset, "RequestAttributesSequence"):
        for keyword in _REQUEST_TEXTS:
            yield _text(item, keyword)


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        return " / ".join(map(str, value))
    return str(value or "")


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = dataset.get(keyword)
    items = value if isinstance(value, Iterable) else ()
    return [item for item in items if isinstance(item, Dataset)]


def _coded(item: Dataset, names: Iterable[str]) -> str | None:
    """The name that a SNOMED code stands for; the schemes of the two editions share no codes."""
    codes = _tables()["codes"]
    value = _text(item, "CodeValue")
    return next((name for name in names if value in codes.get(name, ())), None)


def _view_position(value: str) -> str | None:
    terms = _tables()["view_position"]
    term = next((view for view, values in terms.items() if value.strip().upper() in values), None)
    return term or view_in(value)


def _orientation(value: Any) -> str | None:
    """The view from the directions of rows and columns (DICOM PS3.3 C.7.6.1.1.1)."""
    if not isinstance(value, MultiValue) or len(value) != 2:
        return None
    axes = {"A": "depth", "P": "depth", "L": "width", "R": "width", "H": "height", "F": "height"}
    seen = frozenset(axes.get(str(direction)[:1]) for direction in value)
    return {
        frozenset({"depth", "height"}): "lateral",
        frozenset({"width", "height"}): "frontal",
        frozenset({"depth", "width"}): "other",
    }.get(seen)


def view_in(text: str) -> str | None:
    """The one view that a description names; None for none, or for several."""
    named = meanings(text) & {*VIEWS, "several"}
    return named.pop() if len(named) == 1 and "several" not in named else None


def region_in(text: str) -> str | None:
    """The one region that a description names; a part of the lumbar spine is one."""
    named = meanings(text) & {*REGIONS}
    if "part" in named:
        return "part"
    return named.pop() if len(named) == 1 else None


def meanings(text: str) -> set[str]:
    """The meanings (keys of view_words.toml) of all words of a text, the longest entry first."""
    words = _words(text)
    found = set()
    place = 0
    while place < len(words):
        length, meaning = _longest(words, place)
        found |= meaning
        place += max(length, 1)
    return found


def _longest(words: list[str], place: int) -> tuple[int, set[str]]:
    """Words that the longest entry at a place takes, and what it means; ties mean all of theirs."""
    best: tuple[int, int] = 0, 0
    found: set[str] = set()
    for entry, meaning in _entries().get(words[place][0], ()):
        part = words[place : place + len(entry)]
        if len(part) == len(entry) and all(map(_fits, part, entry)):
            size = len(entry), sum(len(word) for word in entry)
            if size > best:
                best, found = size, set()
            if size == best:
                found.add(meaning)
    return best[0], found


def _fits(word: str, pattern: str) -> bool:
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern


@cache
def _tables() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


@cache
def _entries() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Entries of all languages, as words and their meaning, by their first letter."""
    entries: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for language, table in _tables().items():
        if language in ("codes", "view_position"):
            continue
        for meaning, texts in table.items():
            for text in texts:
                for spelling in {text, text.translate(_IN_TWO_LETTERS)}:
                    words = tuple(_words(spelling, keep="*"))
                    entries.setdefault(words[0][0], []).append((words, meaning))
    return entries


_IN_TWO_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_LIKE_LATIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe"})
_UNSPACED = r"\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3"  # kana, Chinese characters, Hangul


def _words(text: str, keep: str = "") -> list[str]:
    """Words in lower case without accents; each Chinese, Japanese or Korean character is one.

    LSpineLat, LSPINE_LAT and LAT2 come apart; L5 stays.
    """
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"(?<=[a-zà-ÿ])(?=[A-Z])", " ", text)
    text = re.sub("→|->", " to ", text)
    letters = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    plain = unicodedata.normalize("NFC", plain).casefold().translate(_LIKE_LATIN)
    plain = re.sub(rf"([{_UNSPACED}])", r" \1 ", plain)
    plain = re.sub(r"(?<=[^\W\d_]{2})(?=\d)", " ", plain)
    return re.findall(rf"[^\W_]+[{re.escape(keep)}]?" if keep else r"[^\W_]+", plain)
