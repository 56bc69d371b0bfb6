"""Which film a user's file means: annotators and split files name films in their own way."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

# Only what looks like an extension: UIDs as file names contain dots too.
_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


def path_tail(name: str) -> str:
    """The last part of a POSIX or Windows path or of a URI."""
    return re.split(r"[\\/]", name)[-1]


class FilmIndex:
    """Finds films by name among `images`: image_id and, where known, file_name (source name).

    A film may be called by its source file name or by ``{image_id}.png``.
    """

    def __init__(self, images: pd.DataFrame) -> None:
        self._exact: dict[str, set[str]] = defaultdict(set)
        self._tails: dict[str, set[str]] = defaultdict(set)
        self._stems: dict[str, set[str]] = defaultdict(set)
        sources = images["file_name"] if "file_name" in images else [None] * len(images)
        for image_id, source in zip(images["image_id"], sources, strict=True):
            for name in {f"{image_id}.png"} | ({source} if isinstance(source, str) else set()):
                tail = path_tail(name)
                self._exact[name].add(image_id)
                self._tails[tail].add(image_id)
                self._stems[_EXTENSION.sub("", tail)].add(image_id)

    def find(self, name: str) -> list[str]:
        """The image_ids that `name` may mean, sorted: one if all is well, none if unknown.

        The exact name goes before the tail of its path, and that before the name without its
        extension, so that a more distant likeness never makes a good name ambiguous.
        """
        tail = path_tail(name)
        for index, key in (
            (self._exact, name),
            (self._tails, tail),
            (self._stems, tail),
            (self._stems, _EXTENSION.sub("", tail)),
        ):
            if key in index:
                return sorted(index[key])
        return []


def name_some(names: Iterable[str], limit: int = 5) -> str:
    """`names` for a sentence: the first few, and how many more there are."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
