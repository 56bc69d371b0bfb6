"""From bytes to JSON values and cells, with one sentence for what is damaged as a whole."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ...errors import InputError
from ..films import path_tail

MAX_BYTES = 2**30
"""Largest annotation file, bytes: one with all its films embedded may be large."""

FORMS = "VIA 1, 2 and 3 (projects and exports, JSON and CSV) and COCO JSON are read"


def not_annotations(path: Path, why: str) -> InputError:
    """The sentence for a file of another kind."""
    return InputError(f"{path} is not an annotation file that can be used: {why}.")


def load(path: Path) -> str:
    """The text of the file: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        InputError: it is missing, too large, empty or not such text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path} is larger than {MAX_BYTES} bytes: divide it into files of fewer films."
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: correct the path of the annotation file.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give a readable annotation file."
        ) from None
    try:
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is not UTF-8 text: give the file that the annotation tool exported, or in a "
            "spreadsheet save it as CSV UTF-8."
        ) from None
    if not text.strip():
        raise InputError(f"{path} is empty: export it from its tool again.")
    return text


def parse_json(path: Path, text: str) -> Any:
    """The JSON value of `text`.

    Raises:
        InputError: it is cut, not JSON, or has an entry twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Plain parsing would silently keep the last entry only, and lose annotations. The key may
        # hold the name of a film, so its place is told instead.
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            number = next(n for n, (key, _) in enumerate(pairs, 1) if key in seen or seen.add(key))
            raise InputError(
                f"{path} has a key twice in one of its objects (number {number} of {len(pairs)} "
                "there): merge or remove one of the two entries."
            )
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        if _is_cut(text, error):
            end = text.rstrip()
            line, column = end.count("\n") + 1, len(end) - end.rfind("\n") - 1
            raise InputError(
                f"{path} is not complete JSON (it ends at line {line}, column {column}): "
                "export it from its tool again."
            ) from None
        raise InputError(
            f"{path} is not valid JSON at line {error.lineno}, column {error.colno}: "
            "export it from its tool again."
        ) from None
    except ValueError:  # a whole number of thousands of digits
        raise not_annotations(path, "it holds a number that is too long") from None
    except RecursionError:
        raise not_annotations(path, FORMS) from None


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    # The parser stops at the end, or a few characters before in a cut number, literal or escape;
    # for a string without an end it gives the start.
    end = text.rstrip()
    return (
        error.msg.startswith("Unterminated string")
        or error.pos >= len(end)
        or (end[-1] not in "}]" and len(end) - error.pos < 8)
    )


def cell_json(cell: str) -> Any:
    """The JSON value of a cell; ValueError if it has none."""
    try:
        return json.loads(cell)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def rows(lines: list[str], separator: str) -> Iterator[list[str]]:
    """The rows of a CSV file, blank ones left out; csv.Error if it is damaged."""
    before = csv.field_size_limit(MAX_BYTES)  # outlines make long cells
    try:
        yield from (row for row in csv.reader(lines, delimiter=separator) if any(row))
    finally:
        csv.field_size_limit(before)


def separator_of(header: str) -> str:
    """The character between the columns of a header: spreadsheets write others than commas."""
    return max(",;\t", key=header.count)


def film_name(value: Any) -> str:
    """The name of a film as its file tells it; of a URI the file's name; empty if there is none."""
    if not isinstance(value, str):
        return ""
    name = value.strip()
    scheme = re.match(r"(?i)(file|https?|blob):", name)
    if scheme:
        if scheme[1].lower() != "file":
            name = re.split(r"[?#]", name, maxsplit=1)[0]
        name = path_tail(unquote(name))
    elif re.match(r"(?i)data:", name):
        return ""
    return name if path_tail(name).strip() else ""


def size_of(value: Any) -> int | None:
    """A size in bytes, given as number or text; None if unknown (VIA writes -1)."""
    try:
        size = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if 0 <= size < 2**63 else None


def number(value: Any) -> float:
    """A finite number, given as number or text; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError("too large a number") from None
    if not math.isfinite(result):
        raise ValueError("not a finite number")
    return result


def attributes_of(value: Any) -> dict[str, Any]:
    """Attributes; none where the file holds something else."""
    return dict(value) if isinstance(value, dict) else {}


def picture_of(value: Any) -> str:
    """Where a picture may be had: a path or a ``data:`` URI; empty for web addresses."""
    if not isinstance(value, str) or re.match(r"(?i)(https?|blob):", value):
        return ""
    if re.match(r"(?i)file:", value):
        return unquote(value[5:]).replace("\\", "/").removeprefix("//")
    return value
