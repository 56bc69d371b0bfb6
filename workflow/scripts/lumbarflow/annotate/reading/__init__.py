"""Reading annotation files of every form, recognised by content.

One module a form. All of them turn what can be read into :mod:`lumbarflow.annotate.regions`; what
cannot becomes a note, and only a file that is damaged as a whole raises an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..regions import AnnotatedFilm, AnnotationFile, Note
from . import coco, via, via3
from .text import FORMS, load, not_annotations, parse_json

__all__ = ["read"]

Films = tuple[list[AnnotatedFilm], list[Note]]
Reader = tuple[str, Callable[[Any], bool], Callable[[Path, Any], Films]]
_JSON: tuple[Reader, ...] = (
    ("VIA 2 project", via.is_project, via.read_project),
    ("COCO", coco.is_coco, coco.read_coco),
    ("VIA 3 project", via3.is_project, via3.read_project),
    ("VIA export, JSON", via.is_export, via.read_export),
)
_CSV: tuple[Reader, ...] = (
    ("VIA export, CSV", via.is_csv, via.read_csv),
    ("VIA 3 export, CSV", via3.is_csv, via3.read_csv),
)


def read(path: str | Path) -> AnnotationFile:
    """Read an annotation file: VIA 1, 2 or 3, project or export, JSON or CSV, or COCO JSON.

    Curves become polygons of :data:`.shapes.CURVE_POINTS` points; a polyline that ends where it
    began becomes a polygon. A region that cannot be read keeps its place, with shape `damaged` and
    a note. Of a URI only the file's name is kept.

    Raises:
        InputError: the file is missing, cut, too large, or of none of these forms.
    """
    path = Path(path)
    text = load(path)
    data = parse_json(path, text) if text.lstrip()[0] in "{[" else text
    for form, fits, reader in _CSV if isinstance(data, str) else _JSON:
        if fits(data):
            try:
                return AnnotationFile(path, form, *reader(path, data))
            except RecursionError:
                raise not_annotations(path, "it is nested too deeply") from None
    raise not_annotations(path, FORMS)
