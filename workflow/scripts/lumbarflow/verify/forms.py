"""Every form in which an identifying value could survive, as bytes to look for."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from .values import DATE, FILE_NAME, NAME, NUMBER, PLACE, TEXT, UID, Value
from .words import is_wide, stands_alone, words

# ASCII letters to lower case, so that one comparison is enough; other letters come in each case.
FOLD = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))

SHORTEST_PATTERN = 4  # bytes
_SHORTEST_NUMBER = 5  # digits
_LONGEST_COUNT = 7  # digits; shorter numbers are also met as counts and sizes
_SHORTEST_UID = 12  # characters
_SHORTEST_TEXT = 8  # letters
_SHORTEST_WORD = 6  # letters of a text's or a place's word
_SHORTEST_LAST_PART = 10  # digits of a UID's last part
_SHORTEST_LETTERS = 8  # bytes of other letters that look like Latin ones
_LONGEST_TEXT = 300  # words that are looked at
_WORDS_TOGETHER = 3
_SEPARATORS = ("^", " ", ", ", ",", "_", "-", ".", "+", "/", "\t", "=", "|", ";", "")
_SPELLINGS = (
    str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "aa", "ø": "oe", "æ": "ae"}),
    str.maketrans("ßøæłđıð", "soaldid"),
)
_MONTHS = "January February March April May June July August September October November December"
_ESCAPE = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]")


class Rule(Enum):
    """What the surroundings of a hit must be like in text; see :mod:`.search`."""

    WORD = "a word of its own"
    JOINED = "anywhere"
    CAPITALS = "words of their own with capitals"
    TOKEN = "between other characters than letters and digits"
    NUMBER = "digits of their own"
    SHORT_NUMBER = "digits of their own, quoted, in a name or after a word for a number"
    UID = "not within a longer number"
    DATE = "digits of their own, beside a pseudonym of the original"
    BYTES = "anywhere, as bytes"


class Form(NamedTuple):
    """A folded byte pattern of at least four bytes; `label` tells the form and the encoding."""

    pattern: bytes
    label: str
    rule: Rule
    codec: str


def forms(value: Value, common: frozenset[str]) -> Iterator[Form]:
    """Every form of a value; none where it is too short or too common to be looked for.

    Args:
        value: an identifying value.
        common: lower-case words that are no evidence.
    """
    seen = set()
    for form in _forms(value, common):
        if len(form.pattern) >= SHORTEST_PATTERN and form not in seen:
            seen.add(form)
            yield form


def identifies(value: Value, common: frozenset[str]) -> bool:
    """Whether a value tells anything of somebody: texts of common words do not."""
    if value.sort not in (TEXT, PLACE) and not (value.sort == NAME and value.kind == FILE_NAME):
        return True
    return bool(value.raw) or any(stands_alone(word, common) for word in words(value.text))


def _forms(value: Value, common: frozenset[str]) -> Iterator[Form]:
    if value.sort == NAME:
        texts = _name(value.text, common)
    elif value.sort == NUMBER:
        texts = _number(value.text, common)
    elif value.sort == UID:
        texts = _uid(value.text)
    elif value.sort == DATE:
        texts = _date(value.text, value.kind == "PatientBirthDate")
    elif value.sort in (TEXT, PLACE):
        texts = _text(value.text, common, value.sort == PLACE)
    else:
        return
    for text, label, rule in texts:
        if isinstance(text, bytes):
            yield Form(text.translate(FOLD), label, rule, "bytes")
            continue
        for spelling, told in _spellings(text):
            for codec, pattern in _encoded(spelling, value.codecs):
                yield Form(pattern.translate(FOLD), f"{label}{told}, {codec}", rule, codec)
    for piece in _pieces(value.raw):
        yield Form(piece.translate(FOLD), "as in the original, bytes", Rule.BYTES, "bytes")


Texts = Iterator[tuple[str | bytes, str, Rule]]


# Names -------------------------------------------------------------------------------------------


def _name(text: str, common: frozenset[str]) -> Texts:
    for group in text.split("="):
        components = [" ".join(part.split()) for part in group.split("^")][:3]
        for component in components:
            found = words(component)
            for word in found:
                if stands_alone(word, common):
                    yield word, "part of the name", Rule.JOINED if is_wide(word) else Rule.WORD
            for token in component.split():
                if any(letter.isdigit() for letter in token):
                    yield from _number(token, common)
        family, given, middle = (*components, "", "", "")[:3]
        if given:
            yield from _together(family, given, middle, common)
            yield from _whole(group.strip("^ "))
        elif len(typed := re.split(r",? ", family)) > 1:  # typed without carets
            yield from _together(typed[0], " ".join(typed[1:]), "", common)
            yield from _together(typed[-1], " ".join(typed[:-1]), "", common)


def _together(family: str, given: str, middle: str, common: frozenset[str]) -> Texts:
    """Family and given name in either order with any separator."""
    if not family or not given:
        return
    givens = {given, *given.split()[:1], *([f"{given} {middle}"] if middle else [])}
    letters = sum(map(len, words(family + " " + given)))
    wide = is_wide(family + given)
    weak = all(word.lower() in common or len(word) < 3 for word in words(f"{family} {given}"))
    for name in sorted(givens):
        for separator in _SEPARATORS:
            for first, second, order in (
                (family, name, "family and given name"),
                (name, family, "given and family name"),
            ):
                joined = f"{first}{separator}{second}"
                if separator == "" and (joined.lower() in common or letters < 4):
                    continue
                if wide:
                    rule = Rule.JOINED
                elif weak and separator != "^":
                    # "page" and "may" stand beside each other in any text, but not as "Page May".
                    rule = Rule.CAPITALS
                else:
                    rule = Rule.JOINED if letters >= 8 else Rule.WORD
                if letters + len(separator) >= 4 or wide:
                    yield joined, order, rule


def _whole(group: str) -> Texts:
    letters = sum(map(len, words(group)))
    if letters >= 4:
        yield group, "name as in DICOM", Rule.JOINED if letters >= 8 else Rule.WORD


# Numbers, UIDs, dates, texts ---------------------------------------------------------------------


def _number(text: str, common: frozenset[str]) -> Texts:
    plain = re.sub(r"[\s\-/.()+_]", "", text)
    for form in dict.fromkeys((" ".join(text.split()), plain, plain.lstrip("0"))):
        characters = re.sub(r"\W", "", form)
        digits = sum(letter.isdigit() for letter in form)
        if characters.isdigit():
            if len(characters.lstrip("0")) >= _SHORTEST_NUMBER:
                rule = Rule.NUMBER if len(characters) > _LONGEST_COUNT else Rule.SHORT_NUMBER
                yield form, "number", rule
        # Pieces as short as L5-S1 or 2-1 are no identifier.
        elif max(map(len, re.split(r"\W", form))) < 4 or len(characters) < _SHORTEST_NUMBER:
            continue
        elif digits >= 3 or any(stands_alone(word, common) for word in words(form)):
            yield form, "identifier", Rule.TOKEN


def _uid(text: str) -> Texts:
    if len(text) >= _SHORTEST_UID and text.count(".") >= 3:
        for separator in ".-_/":
            yield text.replace(".", separator), "UID", Rule.UID
        yield text.replace(".", ""), "UID", Rule.UID
    last = text.rpartition(".")[2]
    if len(last) >= _SHORTEST_LAST_PART and last.isdigit():
        yield last, "last part of the UID", Rule.NUMBER
    if text.startswith("2.25.") and last.isdigit() and int(last) < 2**128:
        number = uuid.UUID(int=int(last))
        for form in (str(number), number.hex):
            yield form, "UUID", Rule.TOKEN
        yield number.bytes, "UUID, bytes", Rule.BYTES
    elif not re.fullmatch(r"[\d.]+", text) and len(text) >= _SHORTEST_TEXT:
        yield text, "UID", Rule.TOKEN


def _date(text: str, of_birth: bool) -> Texts:
    year, month, day = text[:4], text[4:6], text[6:]
    name = _MONTHS.split()[int(month) - 1]
    m, d = str(int(month)), str(int(day))
    for form in (
        *(separator.join((year, month, day)) for separator in ("", "-", "/", ".", "_", " ")),
        *(separator.join((day, month, year)) for separator in ("", "-", "/", ".", "_", " ")),
        *(separator.join((month, day, year)) for separator in ("", "-", "/", ".")),
        *(separator.join((year, m, d)) for separator in "-/."),
        *(separator.join((d, m, year)) for separator in "-/."),
        *(separator.join((m, d, year)) for separator in "-/."),
        *(f"{one} {called} {year}" for one in (d, day) for called in (name, name[:3])),
        *(f"{called} {one}, {year}" for one in (d, day) for called in (name, name[:3])),
        *(f"{one}-{name[:3]}-{year}" for one in (d, day)),
        *([text[2:]] if of_birth else []),
    ):
        yield form, "date", Rule.DATE


def _text(text: str, common: frozenset[str], place: bool) -> Texts:
    """Every few words that follow each other; of a place also each rare word."""
    found = list(re.finditer(r"[^\W_]+(?:['’@.\-][^\W_]+)*", text))[:_LONGEST_TEXT]
    for start in range(max(len(found) - _WORDS_TOGETHER + 1, 1)):
        run = found[start : start + _WORDS_TOGETHER]
        if not any(stands_alone(word, common) for match in run for word in words(match[0])):
            continue
        plain = [match[0] for match in run]
        exact = text[run[0].start() : run[-1].end()]
        for form in dict.fromkeys((exact, *(mark.join(plain) for mark in (" ", "_", "-", "")))):
            letters = len(re.sub(r"\W", "", form))
            if is_wide(form) or letters >= (_SHORTEST_WORD if len(run) == 1 else _SHORTEST_TEXT):
                yield form, "words of the text", Rule.JOINED if is_wide(form) else Rule.TOKEN
    for word in words(text) if place else ():
        if stands_alone(word, common) and (len(word) >= _SHORTEST_WORD or is_wide(word)):
            yield word, "word of the place", Rule.WORD


# Spellings and encodings -------------------------------------------------------------------------


def _spellings(text: str) -> Iterator[tuple[str, str]]:
    """A text in each case, composed and decomposed, and without its accents."""
    yield text, ""
    if text.isascii():
        return
    low = text.lower()
    cases = dict.fromkeys((low, text.upper(), text.title(), text.casefold()))
    yield from ((form, "") for form in cases)
    yield from ((unicodedata.normalize("NFD", form), ", decomposed") for form in (text, low))
    for table in _SPELLINGS:
        plain = unicodedata.normalize("NFKD", low.translate(table))
        plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
        if plain.isascii():
            yield plain, " without accents"


def _encoded(text: str, codecs: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    narrow = () if text.isascii() else ("latin-1", *codecs)
    done = set()
    for codec in ("utf-8", "utf-16-le", "utf-16-be", *narrow):
        try:
            pattern = text.encode(codec)
        except (UnicodeEncodeError, LookupError):
            continue
        if pattern.startswith(b"\x1b"):
            # The last switch of character sets is not written where text in another one follows.
            pattern = pattern[: _last_escape(pattern)]
        if not text.isascii() and pattern.isascii() and len(pattern) < _SHORTEST_LETTERS:
            continue  # in UTF-16 many Chinese letters are two Latin ones
        if pattern not in done:
            done.add(pattern)
            yield codec, pattern


def _last_escape(pattern: bytes) -> int:
    *_, last = [None, *_ESCAPE.finditer(pattern)]
    return last.start() if last and last.end() == len(pattern) else len(pattern)


def _pieces(raw: bytes) -> Iterator[bytes]:
    """The parts of an original's bytes that are not plain ASCII."""
    if raw:
        for piece in {raw.strip(b" \0"), *re.split(rb"[\^=\\\r\n]", raw)}:
            piece = piece.strip(b" \0")
            if len(piece) >= SHORTEST_PATTERN + 2 and (b"\x1b" in piece or _mostly_high(piece)):
                yield piece[:64]


def _mostly_high(piece: bytes) -> bool:
    return 3 * sum(byte > 127 for byte in piece) >= len(piece) or (
        not piece.isascii() and len(piece) >= 8
    )
