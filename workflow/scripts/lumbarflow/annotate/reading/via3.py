"""VIA 3: projects and annotations exported as CSV.

Format: the files that VIA 3 writes. Shapes are numbered 1 point, 2 rectangle, 3 circle, 4 ellipse,
5 line, 6 polyline, 7 polygon, 8 rectangle by extreme points, 9 circle by three points; values of
radio, drop-down and checkbox attributes are numbers of their options.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..regions import AnnotatedFilm, Note, Region
from .shapes import region, via3_shape
from .text import attributes_of, cell_json, film_name, not_annotations, picture_of, rows

_CHECKBOX, _CHOICES = 2, (2, 3, 4)
_LOCATION_INLINE = 4
Films = tuple[list[AnnotatedFilm], list[Note]]


def is_project(data: Any) -> bool:
    """Whether parsed JSON is a VIA 3 project."""
    return isinstance(data, dict) and {"file", "metadata", "view"} <= set(data)


def is_csv(text: str) -> bool:
    """Whether the text begins with the comments of a VIA 3 export."""
    return text.lstrip()[:1] in "#\"'" and "CSV_HEADER" in text[:100_000]


def read_project(path: Path, data: dict[str, Any]) -> Films:
    """The films of a VIA 3 project, in the order of its files."""
    files, views, drawn = (data[key] for key in ("file", "view", "metadata"))
    if not all(isinstance(part, dict) for part in (files, views, drawn)):
        raise not_annotations(path, "its list of films is damaged, so save the project again")
    prefixes = attributes_of(attributes_of(data.get("config")).get("file")).get("loc_prefix")
    reader = _Films(data.get("attribute"))
    for fid, entry in files.items():
        reader.add_file(fid, attributes_of(entry), attributes_of(prefixes))
    shown = {vid: attributes_of(view).get("fid_list") for vid, view in views.items()}
    for number, entry in enumerate(drawn.values(), 1):
        entry = attributes_of(entry)
        vid = entry.get("vid")
        fids = shown.get(str(vid)) if isinstance(vid, str | int) else None
        reader.add(number, fids, entry.get("z"), entry.get("xy"), entry.get("av"))
    return reader.films(), reader.problems


class _Films:
    """Collects the films of a file and what was drawn on them."""

    def __init__(self, attributes: Any) -> None:
        self.problems: list[Note] = []
        self._attributes = attributes_of(attributes)
        self._files: dict[str, dict[str, Any]] = {}

    def add_file(self, fid: str, entry: dict[str, Any], prefixes: Mapping[str, Any]) -> None:
        number, source = len(self._files) + 1, entry.get("src")
        name = film_name(entry.get("fname")) or film_name(source)
        picture = picture_of(source)
        if picture and not picture.startswith("data:"):
            prefix = prefixes.get(str(entry.get("loc")))
            picture = (prefix if isinstance(prefix, str) else "") + picture
        if entry.get("loc") == _LOCATION_INLINE and picture and not picture.startswith("data:"):
            picture = ""
        self._files[fid] = {
            "name": name,
            "number": number,
            "picture": picture or picture_of(name),
            "regions": [],
            "attributes": {},
        }
        if not name:
            message = f"entry {number} of the file's list of films has no file name"
            self.problems.append(Note("damaged_entry", "error", message))

    def add(self, number: int, fids: Any, times: Any, shape: Any, values: Any) -> None:
        files = [
            self._files[str(fid)]
            for fid in (fids if isinstance(fids, list) else [])
            if isinstance(fid, str | int) and str(fid) in self._files
        ]
        if len(files) != 1:
            what = "several films" if files else "no film of the file"
            message = f"region {number} of the file belongs to {what}"
            self.problems.append(Note("damaged_entry", "error", message))
        elif times not in ([], None):
            message = f"region {number} of the file belongs to a moment of a video, not to a film"
            self.problems.append(Note("damaged_entry", "error", message))
        elif shape in ([], None):  # attributes of the whole film
            files[0]["attributes"].update(self._named(values))
        else:
            drawn: Region = region(lambda: via3_shape(shape), self._named(values))
            files[0]["regions"].append(drawn)

    def films(self) -> list[AnnotatedFilm]:
        return [
            AnnotatedFilm(
                file_name=file["name"],
                size=None,
                regions=file["regions"],
                attributes=file["attributes"],
                number=file["number"],
                picture=file["picture"],
            )
            for file in self._files.values()
            if file["name"] or file["picture"]
        ]

    def _named(self, values: Any) -> dict[str, Any]:
        """Attribute names and option texts for their numbers."""
        named: dict[str, Any] = {}
        for aid, value in attributes_of(values).items():
            attribute = self._attributes.get(aid)
            if isinstance(attribute, str):  # early exports tell the names only
                named[attribute] = value
                continue
            attribute = attributes_of(attribute)
            name = attribute.get("aname")
            options = attribute.get("options")
            if isinstance(options, list):
                options = {str(n): option for n, option in enumerate(options)}
            if attribute.get("type") in _CHOICES and isinstance(value, str | int):
                options, chosen = attributes_of(options), str(value).split(",")
                texts = [options.get(key.strip(), key) for key in chosen if key.strip()]
                single = texts[0] if texts else ""
                ticked = {text: True for text in texts if isinstance(text, str)}
                value = ticked if attribute.get("type") == _CHECKBOX else single
            named[name if isinstance(name, str) and name else aid] = value
        return named


def read_csv(path: Path, text: str) -> Films:
    """The films of a CSV export of VIA 3, in the order in which they are met."""
    lines = text.lstrip().splitlines(keepends=True)
    comments = [
        line.strip().strip('"').lstrip("# ") for line in lines if line.startswith(("#", '"#'))
    ]
    said = dict(
        (part.strip() for part in comment.split("=", 1)) for comment in comments if "=" in comment
    )
    header = [cell.strip() for cell in said.get("CSV_HEADER", "").split(",")]
    needed = {"file_list", "spatial_coordinates", "metadata"}
    if not needed <= set(header):
        raise InputError(f"{path} lacks some columns of a VIA 3 export: export it again as CSV.")
    try:
        attributes = cell_json(said.get("ATTRIBUTE") or said.get("ATTRIBUTES") or "{}")
    except ValueError:
        attributes = {}
    reader = _Films(attributes)
    fids: dict[str, str] = {}
    body = [line for line in lines if not line.startswith(("#", '"#'))]
    try:
        for number, row in enumerate(rows(body, ","), 1):
            try:
                cells = {
                    key: cell_json(cell or "null")
                    for key, cell in zip(header, row, strict=False)
                    if key in needed | {"temporal_coordinates"}
                }
                names = cells["file_list"]
                if len(row) < len(header) or not isinstance(names, list):
                    raise ValueError("cells are missing")
            except (KeyError, ValueError):
                message = f"row {number} of the file cannot be read"
                reader.problems.append(Note("damaged_entry", "error", message))
                continue
            for name in filter(lambda name: isinstance(name, str), names):
                if name not in fids:
                    fids[name] = str(len(fids))
                    reader.add_file(fids[name], {"src": name}, {})
            shown = [fids[name] for name in names if isinstance(name, str)]
            times, shape = cells.get("temporal_coordinates"), cells["spatial_coordinates"]
            reader.add(number, shown, times, shape, cells["metadata"])
    except csv.Error:
        raise InputError(f"{path} is damaged CSV: export it from VIA again.") from None
    return reader.films(), reader.problems
