"""Writing files whole or not at all, so that a full disk or a killed job leaves no half file."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from .errors import InputError

# On radiographs a quarter of the time of zlib's level 3, and smaller files: their noise has no
# repetitions to search for.
_PNG = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that becomes `path` when the block ends without error.

    Raises:
        InputError: the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"The disk is full while writing {path}: free some space there (or set `results` "
                "to a folder on a larger disk) and start the same command again."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a killed process left half written by :func:`atomic_path` in `folder`."""
    for path in Path(folder).glob(".*.part*"):
        path.unlink(missing_ok=True)


def empty_folder(path: str | Path) -> Path:
    """Make `path` a folder without anything in it."""
    shutil.rmtree(path, ignore_errors=True)
    Path(path).mkdir(parents=True)
    return Path(path)


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` atomically, as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file that the workflow wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_csv(path: str | Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows, each with its line number from 1, of a CSV file that a person wrote.

    Spreadsheets write commas, semicolons or tabs, and a byte order mark. Blanks around cells are
    left out; an empty file has an empty header.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    separator = max(",;\t", key=(lines[0] if lines else "").count)
    reader = csv.reader(lines, delimiter=separator)
    rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    return (rows[0][1], rows[1:]) if rows else ([], [])


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write `table` to `path` atomically, as Parquet without the index."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write an image (H x W or H x W x 3 BGR, uint8) to `path` atomically, as PNG."""
    # Encoding in memory first: cv2.imwrite reports a full disk only as False.
    ok, encoded = cv2.imencode(".png", image, _PNG)
    if not ok:
        raise ValueError(f"an array of shape {image.shape} and type {image.dtype} is not an image")
    write_bytes(path, encoded.tobytes())


def read_grey(path: str | Path) -> np.ndarray:
    """Read an 8-bit grey image as H x W uint8.

    Raises:
        InputError: the file is missing or is not an image.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the workflow again to make it.") from None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is None:
        raise InputError(f"{path} is not a readable image: replace or remove it.")
    return image
