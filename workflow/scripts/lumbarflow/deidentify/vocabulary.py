"""Words that a description of a radiograph may keep: of radiology and anatomy, never of people."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from functools import cache
from pathlib import Path

from ..acquire.view import WORDS

_IODS = Path(__file__).with_name("iods.json")
_MORE = {"xr", "dx", "cr", "rx", "x", "ray", "radiograph", "views", "view", "standing", "erect"}


def anatomical(text: str) -> bool:
    """Whether a Body Part Examined is a term of PS3.16 annex L or made of known words only."""
    words = _words(text)
    return text in _body_parts() or (bool(words) and all(word in _known() for word in words))


def radiological(text: str) -> list[str]:
    """The words of a text that are known, in their order."""
    return [word for word in _words(text) if word in _known()]


def _words(text: str) -> list[str]:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"[^\W\d_]+", "".join(c for c in letters if not unicodedata.combining(c)))


@cache
def _body_parts() -> frozenset[str]:
    return frozenset(json.loads(_IODS.read_text(encoding="utf-8"))["body_parts"])


@cache
def _known() -> frozenset[str]:
    """The words that the view is told by; single letters and open endings could be anybody's."""
    tables = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    lists = [texts for table in tables.values() for texts in table.values()]
    words = {word for texts in lists for text in texts for word in _words(text.rstrip("*"))}
    return frozenset(word for word in words | _MORE if len(word) > 1)
