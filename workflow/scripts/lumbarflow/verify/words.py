"""Words that name nobody: the program's own, DICOM's, those of plain technical English."""

from __future__ import annotations

import builtins
import calendar
import pydoc_data.topics
import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pydicom.datadict import DicomDictionary
from pydicom.uid import UID_dictionary

_WORKFLOW = Path(__file__).parents[3]
_SOURCES = {".py", ".smk", ".yaml", ".toml", ".j2", ".rst", ".js", ".css"}
_SHORTEST_WORD = 4
_SHORTEST_WIDE = 2  # letters of scripts that write a syllable or a word as one letter
_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def words(text: str) -> list[str]:
    """The runs of letters of a text, in any script."""
    return _WORD.findall(text)


def is_wide(word: str) -> bool:
    """Whether a word is written in Chinese, Japanese or Korean letters."""
    return any(unicodedata.east_asian_width(letter) in "WF" for letter in word)


@cache
def background() -> frozenset[str]:
    """Lower-case words that outputs hold although no original brought them.

    They are those of the workflow's sources (without the invented names of the synthetic cohort),
    of DICOM's data dictionary, of Python's own manual and of the calendar.
    """
    texts = [
        entry for _, _, name, _, keyword in DicomDictionary.values() for entry in (name, keyword)
    ]
    texts += [entry[0] for entry in UID_dictionary.values()]
    texts += pydoc_data.topics.topics.values()
    texts += [*sys.stdlib_module_names, *dir(builtins), *calendar.month_name, *calendar.day_name]
    for path in _WORKFLOW.rglob("*"):
        if path.suffix in _SOURCES and "synthetic" not in path.parts:
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return vocabulary(texts)


def vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """The lower-case words of texts; of names in camel case also the parts."""
    found: set[str] = set()
    for text in texts:
        for word in words(text):
            found.update((word.lower(), *map(str.lower, _CAMEL.split(word))))
    return frozenset(found)


def stands_alone(word: str, common: frozenset[str]) -> bool:
    """Whether a word is long and rare enough to tell a person by itself."""
    if word.lower() in common:
        return False
    return len(word) >= (_SHORTEST_WIDE if is_wide(word) else _SHORTEST_WORD)
