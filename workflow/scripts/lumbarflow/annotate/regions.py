"""What annotators drew, whatever tool wrote the file: the common form that every reader gives.

Nothing here knows films, classes or levels: those are found by :mod:`.films` and :mod:`.mapping`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

OPEN_SHAPES = ("polyline", "point", "damaged")
"""Shapes that outline no area."""


class Note(NamedTuple):
    """What a reader says about a region or a file: becomes a finding."""

    check: str
    severity: str
    message: str


@dataclass(frozen=True)
class Region:
    """A drawn region.

    shape is one of polygon, rect, circle, ellipse (all closed), polyline (open), point or damaged
    (the file holds a region here, but no shape that can be read). points are [x, y] in pixels,
    finite; those of a closed shape do not repeat the first one at the end.
    """

    shape: str
    points: list[list[float]]
    attributes: dict[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether the points outline an area."""
        return self.shape not in OPEN_SHAPES


@dataclass(frozen=True)
class AnnotatedFilm:
    """A film of an annotation file.

    number is the entry's number in the file, from 1: findings name it where the file name may not
    be told. size is in bytes, None if unknown. picture is where the film's picture may be had: a
    path, relative to the annotation file or absolute, or a ``data:`` URI; empty if unknown.
    """

    file_name: str
    size: int | None
    regions: list[Region]
    attributes: dict[str, Any] = field(default_factory=dict)
    number: int = 1
    picture: str = field(default="", repr=False)


@dataclass(frozen=True)
class AnnotationFile:
    """A whole annotation file: path, form in words, films in the file's order, and notes on it."""

    path: Path
    form: str
    films: list[AnnotatedFilm]
    problems: list[Note] = field(default_factory=list)
