"""VIA 1 and 2: projects, and annotations exported as JSON or CSV.

Format: Dutta and Zisserman, "The VIA Annotation Software for Images, Audio and Video", ACM
Multimedia 2019, and the files that both versions write.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..regions import AnnotatedFilm, Note, Region
from .shapes import region, via_shape
from .text import (
    attributes_of,
    cell_json,
    film_name,
    not_annotations,
    picture_of,
    rows,
    separator_of,
    size_of,
)

_COLUMNS = (
    "filename",
    "file_size",
    "file_attributes",
    "region_count",
    "region_id",
    "region_shape_attributes",
    "region_attributes",
)
Films = tuple[list[AnnotatedFilm], list[Note]]


def is_project(data: Any) -> bool:
    """Whether parsed JSON is a VIA 2 project."""
    return isinstance(data, dict) and "_via_img_metadata" in data


def is_export(data: Any) -> bool:
    """Whether parsed JSON is an export of VIA 1 or 2: at least one entry is a film with regions."""
    return any(_is_film(entry) for entry in _entries(data))


def is_csv(text: str) -> bool:
    """Whether the first line has the columns of VIA 1 and 2."""
    return {"filename", "region_shape_attributes"} <= set(_header(text.lstrip().splitlines()[0]))


def read_project(path: Path, data: dict[str, Any]) -> Films:
    """The films of a VIA 2 project."""
    metadata = data["_via_img_metadata"]
    if not isinstance(metadata, dict | list):
        raise not_annotations(path, "its list of films is damaged, so save the project again")
    settings = attributes_of(data.get("_via_settings"))
    folder = attributes_of(settings.get("core")).get("default_filepath")
    return _films(_entries(metadata), folder if isinstance(folder, str) else "")


def read_export(path: Path, data: Any) -> Films:
    """The films of a JSON export of VIA 1 or 2."""
    return _films(_entries(data))


def _entries(data: Any) -> list[Any]:
    if isinstance(data, dict):
        return list(data.values())
    return data if isinstance(data, list) else []


def _is_film(entry: Any) -> bool:
    return isinstance(entry, dict) and "filename" in entry and "regions" in entry


def _films(entries: Iterable[Any], folder: str = "") -> Films:
    films, problems = [], []
    for number, entry in enumerate(entries, 1):
        name = film_name(entry["filename"]) if _is_film(entry) else ""
        regions = entry["regions"] if name else None
        if isinstance(regions, dict):  # VIA 1
            regions = list(regions.values())
        if not isinstance(regions, list):
            message = f"entry {number} of the file has no file name or no list of regions"
            problems.append(Note("damaged_entry", "error", message))
            continue
        films.append(
            AnnotatedFilm(
                file_name=name,
                size=size_of(entry.get("size")),
                regions=[_region(drawn) for drawn in regions],
                attributes=attributes_of(entry.get("file_attributes")),
                number=number,
                picture=_picture(entry, folder),
            )
        )
    return films, problems


def _picture(entry: dict[str, Any], folder: str) -> str:
    embedded = entry.get("base64_img_data")
    if isinstance(embedded, str) and embedded:
        return embedded if embedded.startswith("data:") else f"data:;base64,{embedded}"
    name = picture_of(entry["filename"])
    return f"{folder.rstrip('/')}/{name}" if folder and name else name


def _region(drawn: Any) -> Region:
    drawn = attributes_of(drawn)
    return region(
        lambda: via_shape(drawn.get("shape_attributes")),
        attributes_of(drawn.get("region_attributes")),
    )


def _header(line: str) -> list[str]:
    separator = separator_of(line)
    return [cell.strip().strip("\"'# ").lower() for cell in line.split(separator)]


def read_csv(path: Path, text: str) -> Films:
    """The films of a CSV export of VIA 1 or 2: a row a region, or a row for a film without any."""
    lines = text.lstrip().splitlines(keepends=True)
    header = _header(lines[0])
    if not set(_COLUMNS) <= set(header):
        missing = ", ".join(name for name in _COLUMNS if name not in header)
        raise InputError(f"{path} lacks the columns {missing}: export it from VIA again as CSV.")
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    problems: list[Note] = []
    table = rows(lines[1:], separator_of(lines[0]))
    try:
        for number, row in enumerate(table, 1):
            extra = len(row) - len(header)
            if extra > 0 and header[0] == "filename":
                # VIA 1 writes names with commas as they are.
                row = [",".join(row[: extra + 1]), *row[extra + 1 :]]
            if len(row) < len(header):
                message = f"row {number} of the file has {len(row)} of {len(header)} cells"
                problems.append(Note("damaged_entry", "error", message))
                continue
            cells = dict(zip(header, row, strict=False))
            _add_row(entries, cells)
    except csv.Error:
        raise InputError(f"{path} is damaged CSV: export it from VIA again.") from None
    films, damaged = _films(entries.values())
    return films, problems + damaged


def _add_row(entries: dict[tuple[str, str], dict[str, Any]], cells: dict[str, str]) -> None:
    name, size = cells["filename"], cells["file_size"].strip()
    entry = entries.setdefault(
        (name, size), {"filename": name, "size": size, "regions": [], "file_attributes": {}}
    )
    if not entry["file_attributes"]:
        entry["file_attributes"] = _value(cells["file_attributes"])
    shape = _value(cells["region_shape_attributes"])
    if shape != {} or size_of(cells["region_count"]):
        attributes = _value(cells["region_attributes"])
        entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})


def _value(cell: str) -> Any:
    try:
        return cell_json(cell) if cell.strip() else {}
    except ValueError:
        return None
