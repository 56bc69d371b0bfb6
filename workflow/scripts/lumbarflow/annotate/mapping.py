"""From the attributes of a region to its class and its level.

The names that annotators use in several languages are in ``names.toml``; the configuration adds
its own, which go first.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from .regions import AnnotationFile, Note, Region
from .spine import RANK

SUBSET = "subset"
"""The film attribute that reserves a film: `test` keeps it, and its patient, for testing."""

_CLASS_OF = {"T": "lumbar_vertebra", "L": "lumbar_vertebra", "S": "sacral_vertebra"}
_LONGEST = 200
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th|te|ter|er|re|eme|o|a)\b")
_BETWEEN = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_PREDICTED = re.compile(r"predicted by [\w.-]{1,40}")


class Meaning(NamedTuple):
    """What a region's attributes say.

    class_name is None for a line and where it is unknown; name is the value as it was drawn (or
    None); line tells that it is kept as a line: of a class in `annotations.ignore`, or an endplate.
    """

    class_name: str | None
    level: str | None
    name: str | None
    line: bool
    notes: tuple[Note, ...]


def shown(value: str, longest: int = 40) -> str:
    """A value for messages and records: printable, on one line, and not too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in value[:_LONGEST]).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def choices(value: Any) -> list[str]:
    """The values of an attribute: text, or the ticked boxes of a checkbox dictionary or list."""
    if isinstance(value, dict):
        values = [key for key, ticked in value.items() if ticked]
    else:
        values = value if isinstance(value, list) else [value]
    texts = (str(v).strip() for v in values if isinstance(v, str | int | float))
    return [text[:_LONGEST] for text in texts if text]


def normalised(text: str) -> str:
    """A name without case, accents and punctuation, letters and digits apart, single blanks."""
    plain = unicodedata.normalize("NFKD", text[:_LONGEST]).casefold()
    plain = unicodedata.normalize("NFKD", plain)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = _ORDINAL.sub(r"\1 ", re.sub(r"[\W_]+", " ", plain))
    return " ".join(_BETWEEN.sub(" ", plain).split())[:_LONGEST].rstrip()


@cache
def names() -> dict[str, Any]:
    """``names.toml``, normalised: attributes, classes, lines, levels and words."""
    with Path(__file__).with_name("names.toml").open("rb") as file:
        read = tomllib.load(file)
    result: dict[str, Any] = {
        "attributes": {
            of: list(dict.fromkeys(normalised(name) for name in listed))
            for of, listed in read["attributes"].items()
        }
    }
    for section in ("classes", "lines", "levels", "words"):
        result[section] = {
            normalised(name): meaning
            for meaning, listed in read[section].items()
            for name in listed
        }
    return result


class Level(NamedTuple):
    """A level found in a text, and the words of the text beside it."""

    level: str | None
    region: str | None
    rest: str


def find_level(text: str) -> Level:
    """The level in a text: `L5`, `5. LWK`, `lumbar 5`, `Th12`, `L4/L5`, `L5-S1` and so on.

    Returns:
        level: canonical (`L5`, `L4/L5`), None where there is none or it is not a possible one;
        region: its letter (C, T, L or S), None for a disc level;
        rest: the other words, normalised, without words for vertebrae and sides.
    """
    known = names()["levels"]
    words, found, rest = names()["words"], [], []
    tokens = normalised(text).split()
    for n, token in enumerate(tokens):
        beside = tokens[max(0, n - 1) : n + 2]
        if token.isascii() and token.isdigit():
            found.append(int(token[:4]))
        elif token in known and (len(token) > 2 or any(t.isdigit() for t in beside)):
            if not found or found[-1] != known[token]:
                found.append(known[token])
        elif token not in words:
            rest.append(token)
    return _level_of(found, " ".join(rest))


def _level_of(found: list[str | int], rest: str) -> Level:
    kinds = "".join("n" if isinstance(item, int) else "w" for item in found)
    match kinds:
        case "wn" | "wnw" if kinds == "wn" or found[2] == found[0]:
            pairs = [(found[0], found[1])]
        case "nw":
            pairs = [(found[1], found[0])]
        case "wnn":  # L4-5
            pairs = [(found[0], found[1]), (found[0], found[2])]
        case "wnwn":
            pairs = [(found[0], found[1]), (found[2], found[3])]
        case "nwnw":
            pairs = [(found[1], found[0]), (found[3], found[2])]
        case "nnw":
            pairs = [(found[2], found[0]), (found[2], found[1])]
        case _:
            return Level(None, None, rest)
    levels = [f"{letter}{number}" for letter, number in pairs]
    if any(level not in RANK for level in levels):
        return Level(None, None, rest)
    level = "/".join(levels)
    return Level(level, str(pairs[0][0]) if len(pairs) == 1 else None, rest)


class Vocabulary:
    """The mapping that the configuration and ``names.toml`` give.

    Args:
        classes: the class names of the configuration.
        settings: the section `annotations`: class_attribute and level_attribute (a name or a list
            of names of region attributes), class_names (value -> class), level_names (value ->
            level), ignore (values of the class attribute to keep as lines).

    Raises:
        InputError: class_names leads to a class that is not in `classes`.
    """

    def __init__(self, classes: Sequence[str], settings: Mapping[str, Any]) -> None:
        self.classes = list(classes)
        self.attributes = {
            "class": _listed(settings.get("class_attribute", "structure")),
            "level": _listed(settings.get("level_attribute", "level")),
        }
        # VIA keeps blanks around the options of a list; no class name means them.
        self.ignore = {str(value).strip() for value in settings.get("ignore") or ()}
        own = {str(k).strip(): v for k, v in (settings.get("class_names") or {}).items()}
        for value, name in own.items():
            if name not in self.classes:
                raise InputError(
                    f"`annotations.class_names` maps {value!r} to {name!r}, which is not in "
                    f"`classes` ({', '.join(self.classes)}){nearest(name, self.classes)}: "
                    "correct one of the two."
                )
        self._own = own
        self._classes = (
            names()["classes"]
            | {normalised(name): name for name in self.classes}
            | {normalised(value): name for value, name in own.items()}
        )
        self._levels = {
            normalised(str(value)): str(level)
            for value, level in (settings.get("level_names") or {}).items()
        }
        self._known: dict[tuple[str, str], Meaning] = {}

    def attributes_in(self, file: AnnotationFile) -> tuple[list[str], list[str]]:
        """The names of the class and level attributes that a file uses.

        Those of the configuration if the file has any of them, or else the built-in ones, those
        whose values mean something before the others. Where there is only an attribute for
        levels, it gives the classes too.
        """
        seen: dict[str, Counter[str]] = {}
        for film in file.films:
            for region in film.regions:
                for name, value in region.attributes.items():
                    for text in choices(value):
                        seen.setdefault(name, Counter())[text] += 1
        by_class = self._in("class", seen)
        levels = [name for name in self._in("level", seen) if name not in by_class]
        return by_class or levels, levels

    def _in(self, of: str, seen: Mapping[str, Counter[str]]) -> list[str]:
        configured = [name for name in self.attributes[of] if name in seen]
        if configured:
            return configured
        known = names()["attributes"][of]
        present = [name for name in seen if normalised(name) in known]

        def rank(name: str) -> tuple[int, int]:
            meant = sum(
                count
                for text, count in seen[name].items()
                if (
                    find_level(text).level is not None
                    if of == "level"
                    else not self._class_of(text, None).notes
                )
            )
            return -meant, known.index(normalised(name))

        ranked = sorted(present, key=rank)
        # Of several built-in names one is meant; configured ones may all be.
        return ranked[:1]

    def meaning(self, region: Region, by_class: Sequence[str], by_level: Sequence[str]) -> Meaning:
        """Class and level of a region by the attributes of these names."""
        values = next((v for v in map(choices, map(region.attributes.get, by_class)) if v), [])
        levels = next((v for v in map(choices, map(region.attributes.get, by_level)) if v), [])
        if len(values) > 1:  # class and level as boxes of one list
            plain = [value for value in values if not self._only_level(value)]
            if len(plain) == 1 and len(values) == 2:
                values = [plain[0] + " " + next(v for v in values if v != plain[0])]
            else:
                message = f"the region has {len(values)} classes: choose one"
                note = Note("several_classes", "error", message)
                return Meaning(None, None, None, False, (note,))
        key = (values[0] if values else "", " ".join(levels))
        if key not in self._known:
            self._known[key] = self._mean(*key, by_class)
        return self._known[key]

    def _only_level(self, text: str) -> bool:
        level = find_level(text)
        return level.level is not None and not level.rest

    def _mean(self, value: str, level_text: str, by_class: Sequence[str]) -> Meaning:
        notes: list[Note] = []
        level, region = self._level(level_text)
        if level_text and level is None:
            message = f"the level {shown(level_text)!r} is not known: write it as L5 or S1"
            notes.append(Note("unknown_level", "warning", message))
        if not value:
            wanted = " or ".join(repr(shown(n)) for n in by_class) or "for the class"
            message = f"the region has no class: fill in its attribute {wanted}"
            return Meaning(None, level, None, False, (*notes, Note("no_class", "error", message)))
        if value in self.ignore:
            message = f"{shown(value)} is in `annotations.ignore`: kept as drawn, not a structure"
            note = Note("ignored_class", "info", message)
            level = level or find_level(value).level
            return Meaning(None, level, shown(value), True, (*notes, note))
        meant = self._class_of(value, region)
        if meant.level and level and meant.level != level:
            message = f"the class says {meant.level}, the level {level}: the level counts"
            notes.append(Note("level_conflict", "warning", message))
        return meant._replace(level=level or meant.level, notes=(*notes, *meant.notes))

    def _level(self, text: str) -> tuple[str | None, str | None]:
        own = self._levels.get(normalised(text)) if text else None
        found = find_level(own or text)
        return own or found.level, found.region

    def _class_of(self, value: str, region: str | None) -> Meaning:
        """The meaning of a value of the class attribute; region is the letter of the level."""
        if value in self.classes:
            return Meaning(value, None, shown(value), False, ())
        if value in self._own:
            return Meaning(self._own[value], None, shown(value), False, ())
        text, lines = normalised(value), names()["lines"]
        own = self._levels.get(text)
        level = Level(own, find_level(own).region, "") if own else find_level(value)
        name = self._classes.get(text) or self._classes.get(level.rest)
        if name is None and (text in lines or level.rest in lines):
            return Meaning(None, level.level, shown(value), True, ())
        if name is None and not level.rest:  # a level alone, or a word for a vertebra
            name = _CLASS_OF.get(level.region or region or "")
        if name in self.classes:
            return Meaning(name, level.level, shown(value), False, ())
        known = [*self.classes, *self._own, *sorted(self.ignore)]
        what = f"means {name}, which is not in `classes`" if name else "is not known"
        message = (
            f"the class {shown(value)!r} {what}{nearest(value, known)}: correct it, or add it to "
            "`annotations.class_names` or `annotations.ignore`"
        )
        note = Note("unknown_class", "error", message)
        return Meaning(None, level.level, shown(value), False, (note,))


def origin_of(region: Region, film_attributes: Mapping[str, Any]) -> str | None:
    """`drawn`, `predicted by ...` for a prediction that was accepted, None for one that was not.

    A prediction is accepted by its attribute `review`, or with all others of a film by the film's
    attribute `reviewed`. VIA's export to COCO leaves out texts, `origin` among them: there a region
    with a `review` is a prediction.
    """
    origin = " ".join(choices(region.attributes.get("origin")))
    review = choices(region.attributes.get("review"))
    exported = "origin" not in region.attributes and review in (["unreviewed"], ["accepted"])
    if not origin.lower().startswith("predicted") and not exported:
        return "drawn"
    accepted = review == ["accepted"]
    if not accepted and choices(film_attributes.get("reviewed")) != ["yes"]:
        return None
    return origin if _PREDICTED.fullmatch(origin) else "predicted by a network"


def reserved(film_attributes: Mapping[str, Any]) -> tuple[bool, list[Note]]:
    """Whether a film is reserved for testing, and what is to say about the attribute."""
    chosen = [choice.lower() for choice in choices(film_attributes.get(SUBSET))]
    notes = [
        Note("unknown_subset", "warning", f"the film's subset {shown(choice)!r} is not `test`")
        for choice in chosen
        if choice != "test"
    ]
    return "test" in chosen, notes


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name nearest to `name`, as the end of a sentence; empty if none is near."""
    lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name[:_LONGEST].lower(), lower, n=1)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(name) for name in value]
