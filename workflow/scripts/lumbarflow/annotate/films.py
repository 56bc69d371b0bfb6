"""Which film a user's file means: annotators and split files name films in their own way."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import pandas as pd

from .regions import AnnotatedFilm

# Only what looks like an extension: UIDs as file names contain dots too.
_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


def path_tail(name: str) -> str:
    """The last part of a POSIX or Windows path or of a URI."""
    return re.split(r"[\\/]", name)[-1]


class Match(NamedTuple):
    """The image_ids that a film of an annotation file may mean, and by what: one if all is well.

    by is `name`, `size` or `content`.
    """

    image_ids: list[str]
    by: str


class FilmIndex:
    """Finds films among `images`: image_id and, where known, file_name (source name) and pictures.

    A film may be called by its source file name or by ``{image_id}.png``. pictures is a list of
    the paths where the film's picture lies: films of other names are found by size and content.
    """

    def __init__(self, images: pd.DataFrame) -> None:
        self._exact: dict[str, set[str]] = defaultdict(set)
        self._tails: dict[str, set[str]] = defaultdict(set)
        self._stems: dict[str, set[str]] = defaultdict(set)
        self._pictures = (
            dict(zip(images["image_id"], images["pictures"], strict=True))
            if "pictures" in images
            else {}
        )
        self._by_size: dict[int, dict[str, list[Path]]] | None = None
        sources = images["file_name"] if "file_name" in images else [None] * len(images)
        for image_id, source in zip(images["image_id"], sources, strict=True):
            for name in {f"{image_id}.png"} | ({source} if isinstance(source, str) else set()):
                name = unicodedata.normalize("NFC", name)
                tail = path_tail(name)
                self._exact[name].add(image_id)
                self._tails[tail].add(image_id)
                self._stems[_EXTENSION.sub("", tail)].add(image_id)

    def find(self, name: str) -> list[str]:
        """The image_ids that `name` may mean, sorted: one if all is well, none if unknown.

        The exact name goes before the tail of its path, and that before the name without its
        extension, so that a more distant likeness never makes a good name ambiguous.
        """
        for spelled in dict.fromkeys((name, unquote(name))):
            spelled = unicodedata.normalize("NFC", spelled)
            tail = path_tail(spelled)
            for index, key in (
                (self._exact, spelled),
                (self._tails, tail),
                (self._stems, tail),
                (self._stems, _EXTENSION.sub("", tail)),
            ):
                if key in index:
                    return sorted(index[key])
        return []

    def match(self, film: AnnotatedFilm, folder: Path) -> Match:
        """The films that an entry of an annotation file in `folder` may mean.

        By name first. What a name leaves open, or does not tell, the size in bytes and the
        content decide: of the picture that the entry holds, or that lies beside the file.
        """
        named = self.find(film.file_name)
        if len(named) == 1:
            return Match(named, "name")
        same = self._same_content(film, folder)
        for by, found in (("content", same), ("size", self._same_size(film.size))):
            among = sorted(set(found) & set(named)) if named else found
            if len(among) == 1 or (among and not named):
                return Match(among, by)
        return Match(named, "name")

    def _same_size(self, size: int | None) -> list[str]:
        return sorted(self._sizes().get(size, {})) if size else []

    def _same_content(self, film: AnnotatedFilm, folder: Path) -> list[str]:
        """The films with the very bytes of the entry's picture; none if it cannot be had."""
        if film.picture.startswith("data:"):
            data = _embedded(film.picture)
            candidates = self._sizes().get(len(data), {}) if data else {}
        else:
            path = _beside(folder, film.picture)
            try:
                candidates = self._sizes().get(path.stat().st_size, {}) if path else {}
                data = path.read_bytes() if candidates else b""
            except (OSError, ValueError):
                return []
        if not candidates:
            return []
        wanted = hashlib.sha256(data).digest()
        return sorted(
            image_id
            for image_id, paths in candidates.items()
            if any(hashlib.sha256(path.read_bytes()).digest() == wanted for path in paths)
        )

    def _sizes(self) -> dict[int, dict[str, list[Path]]]:
        """Paths by size in bytes and image_id; looked up only when names do not do."""
        if self._by_size is None:
            self._by_size = defaultdict(lambda: defaultdict(list))
            for image_id, paths in self._pictures.items():
                for path in map(Path, paths):
                    if path.is_file():
                        self._by_size[path.stat().st_size][image_id].append(path)
        return self._by_size


def _embedded(uri: str) -> bytes:
    """The bytes of a ``data:`` URI (RFC 2397); none if it is damaged."""
    head, _, body = uri.partition(",")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote(body).encode("ascii"), validate=False)
    except (binascii.Error, UnicodeEncodeError):
        return b""


def _beside(folder: Path, picture: str) -> Path | None:
    """The file that an entry refers to, as it stands or by the tail of its path beside it."""
    try:
        for name in dict.fromkeys((picture.replace("\\", "/"), path_tail(picture))):
            if name and (folder / name).is_file():
                return folder / name
    except (OSError, ValueError):
        pass
    return None


def name_some(names: Iterable[str], limit: int = 5) -> str:
    """`names` for a sentence: the first few, and how many more there are."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
