"""Digests of what annotators changed: what runs again depends on contents, not on times of files.

Annotators save their files again without a change, and one changed outline out of thousands must
not cost a training. A digest is 16 hexadecimal digits; equal digests mean equal contents. As they
stand for names and outlines in Snakemake's records, nothing identifying gets there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .mapping import SUBSET
from .records import read_record

# How the annotation tools keep their windows and exports: nothing drawn is in it. COCO's
# `info` has the day of the export.
_NOT_DRAWN = ("_via_settings", "_via_image_id_list", "project", "config", "info")


def digest(value: Any) -> str:
    """A digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def annotation_digest(paths: Iterable[str | Path]) -> str:
    """A digest of annotation files: of their contents, not of their layout and settings.

    JSON files (VIA, COCO) are compared as values without the settings of the tool, all others by
    their lines. A damaged file has a digest as well; it is up to the reader to refuse it.

    Raises:
        OSError: a file is not there.
    """
    return digest([_file_digest(str(path), *_stamp(Path(path))) for path in paths])


@cache
def _file_digest(path: str, size: int, changed: int) -> str:
    content = Path(path).read_bytes()
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return digest([line.strip().hex() for line in content.splitlines() if line.strip()])
    if isinstance(value, dict):
        value = {key: entry for key, entry in value.items() if key not in _NOT_DRAWN}
    return digest(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key twice: plain parsing would hide one of them")
    return result


def annotated_films(folder: str | Path) -> list[str]:
    """The films, by image_id, whose records in `folder` hold a structure to train on.

    A film whose every outline was rejected must not train as mere background.
    """
    return [record["image_id"] for record in _records(Path(folder)) if record["structures"]]


def reserved_films(folder: str | Path) -> list[str]:
    """The films among them, by image_id, that an annotator reserved for testing."""
    reserved = {record["image_id"] for record in _records(Path(folder)) if SUBSET in record}
    return [image_id for image_id in annotated_films(folder) if image_id in reserved]


def structures_digest(folder: str | Path, image_ids: Sequence[str] | None = None) -> str:
    """A digest of the structures in the records of some films, or of all in `folder`.

    What does not reach masks and metrics, such as who drew and what was rejected, is left out.

    Raises:
        InputError: a record is missing or damaged.
    """
    if image_ids is None:
        records = _records(Path(folder))
    else:
        records = [read_record(Path(folder) / f"{image_id}.json") for image_id in image_ids]
    keys = ("structure_id", "class_name", "level", "polygon")
    return digest(
        [
            [
                record["image_id"],
                record["rows"],
                record["columns"],
                [[structure[key] for key in keys] for structure in record["structures"]],
            ]
            for record in records
        ]
    )


def pictures_stamp(folder: str | Path, image_ids: Iterable[str]) -> str:
    """A digest of sizes and times of ``{image_id}.png``: quick, and enough to look closer."""
    return digest([[image_id, *_stamp(Path(folder) / f"{image_id}.png")] for image_id in image_ids])


def pictures_digest(folder: str | Path, image_ids: Iterable[str]) -> str:
    """A digest of the contents of ``{image_id}.png``."""
    found = []
    for image_id in image_ids:
        with (Path(folder) / f"{image_id}.png").open("rb") as handle:
            found.append([image_id, hashlib.file_digest(handle, "sha256").hexdigest()])
    return digest(found)


def missing_files(folder: str | Path, twin: str | Path, pattern: str) -> list[str]:
    """Names of the files in `twin` that somebody took out of `folder`; none if it is not there."""
    if not Path(folder).is_dir():
        return []
    there = {path.name for path in Path(folder).glob(pattern)}
    return sorted(path.name for path in Path(twin).glob(pattern) if path.name not in there)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros where it is missing."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _records(folder: Path) -> list[Mapping[str, Any]]:
    return [_record(str(path), *_stamp(path)) for path in sorted(folder.glob("*.json"))]


@cache
def _record(path: str, size: int, changed: int) -> Mapping[str, Any]:
    # Several rules look at the records while the jobs are planned.
    return read_record(path)
