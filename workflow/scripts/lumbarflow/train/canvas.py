"""Films of a subset kept ready: memory-mapped arrays, made once for all networks of a canvas.

`{cache}/{rows}x{columns}-{digest}/` holds `{subset}-pictures.npy` and `{subset}-bits.npy` (films x
rows x columns, uint8) and `{subset}.json` with their checksums; the digest is one of whatever
decides their content. A folder appears whole or not at all, so that several jobs may make the same
one at a time. One that is damaged is made again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np

from ..annotate.watching import digest
from ..errors import InputError
from ..files import read_json, write_json

Pair = tuple[np.ndarray, np.ndarray]
"""Picture and bit mask."""

_ARRAYS = "pictures", "bits"
_KEPT = 3 * 86_400  # seconds after its last use; a training has two days (rules/train.smk)
_ATTEMPTS = 3
_PROGRESS = 30  # seconds between two lines in the log
_CHUNK = 1 << 24  # bytes

_LOG = logging.getLogger(__name__)


def ready(
    cache: Path,
    subset: str,
    canvas: tuple[int, int],
    constants: Any,
    sources: Sequence[Path],
    prepare: Callable[[int], Pair],
    threads: int | None = None,
) -> Pair:
    """Pictures and bit masks of a subset, mapped into memory for reading.

    Folders of the same subset but of other films are removed where no job has asked for them for
    three days.

    Args:
        cache: the folder for all subsets and canvases.
        subset: its name.
        canvas: rows and columns.
        constants: a JSON value: what decides the content beside the sources.
        sources: the files that the arrays are made from, an equal number for each film.
        prepare: makes picture and bit mask (rows x columns, uint8) of the film with that number;
            called by several threads.
        threads: their number; without, that of the CPUs.

    Raises:
        InputError: `prepare` raises it, or the disk does not give back what was written.
    """
    films = len(sources) // len(_ARRAYS)
    stamps = [[path.name, _stamp(path)] for path in sources]
    key = digest([subset, constants, cv2.__version__, stamps])
    folder = cache / f"{canvas[0]}x{canvas[1]}-{key}"
    for _ in range(_ATTEMPTS):
        found = _open(folder, subset, (films, *canvas))
        if found is not None:
            with suppress(OSError):  # it may be another user's
                os.utime(folder)
            _tidy(cache, subset, key)
            return found
        _make(folder, subset, (films, *canvas), prepare, threads or os.cpu_count() or 1)
    raise InputError(
        f"{folder} cannot be read as it was written: check the disk, or set `results` to a folder "
        "on another one."
    )


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file; None without."""
    with suppress(FileNotFoundError):
        state = path.stat()
        return [state.st_size, state.st_mtime_ns]
    return None


def _open(folder: Path, subset: str, shape: tuple[int, int, int]) -> Pair | None:
    """The arrays of a folder; None where there is none, a damaged one being removed."""
    if not folder.exists():
        return None
    try:
        checksums = read_json(folder / f"{subset}.json")
        arrays = []
        for name in _ARRAYS:
            path = folder / f"{subset}-{name}.npy"
            if _checksum(np.memmap(path, np.uint8, "r")) != checksums[name]:
                raise ValueError("wrong checksum")
            arrays.append(np.load(path, mmap_mode="r"))
            if arrays[-1].shape != shape:
                raise ValueError("wrong shape")
    except (OSError, ValueError, KeyError, TypeError):
        _LOG.warning("the films kept ready in %s are damaged: making them again", folder)
        damaged = _hidden(folder)
        with suppress(FileNotFoundError):  # another job has seen it too
            folder.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
        return None
    return arrays[0], arrays[1]


def _checksum(data: np.ndarray) -> int:
    result = 0
    for start in range(0, data.size, _CHUNK):
        result = zlib.crc32(data[start : start + _CHUNK], result)
    return result


def _make(
    folder: Path,
    subset: str,
    shape: tuple[int, int, int],
    prepare: Callable[[int], Pair],
    threads: int,
) -> None:
    """Make the arrays in a folder of their own, which then takes its place."""
    part = _hidden(folder)
    part.mkdir(parents=True)
    try:
        _write(part, subset, shape, prepare, threads)
        part.rename(folder)
    except OSError as error:
        # Another job was faster: what it has made is as good.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{uuid4().hex}")


def _write(
    folder: Path,
    subset: str,
    shape: tuple[int, int, int],
    prepare: Callable[[int], Pair],
    threads: int,
) -> None:
    films, rows, columns = shape
    _LOG.info("making %d %s films ready on %d x %d pixels", films, subset, rows, columns)
    told = time.monotonic()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    checksums = {}
    with ThreadPoolExecutor(threads) as pool:
        handles = [(folder / f"{subset}-{name}.npy").open("wb") for name in _ARRAYS]
        try:
            for handle in handles:
                np.lib.format.write_array_header_1_0(handle, header)
            # Written and not mapped: a full disk is an error there and the end of the process here.
            for done, pair in enumerate(_ahead(pool, prepare, films, 2 * threads), 1):
                for handle, array in zip(handles, pair, strict=True):
                    handle.write(np.ascontiguousarray(array).data)
                if time.monotonic() - told > _PROGRESS:
                    told = time.monotonic()
                    _LOG.info("%d of %d films are ready", done, films)
        finally:
            for handle in handles:
                handle.close()
    for name in _ARRAYS:
        checksums[name] = _checksum(np.memmap(folder / f"{subset}-{name}.npy", np.uint8, "r"))
    write_json(folder / f"{subset}.json", checksums)


def _ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[int], Pair], films: int, ahead: int
) -> Iterable[Pair]:
    """What `prepare` makes of every film, in order, at most `ahead` of them in memory."""
    for start in range(0, films, ahead):
        yield from pool.map(prepare, range(start, min(start + ahead, films)))


def _tidy(cache: Path, subset: str, key: str) -> None:
    """Remove folders of this subset's former films, and what killed jobs have left half made."""
    limit = time.time() - _KEPT
    former = (path.parent for path in cache.glob(f"*/{subset}-pictures.npy"))
    for folder in [*former, *cache.glob(".*x*-*.*")]:
        with suppress(OSError):
            if not folder.name.endswith(f"-{key}") and folder.stat().st_mtime < limit:
                shutil.rmtree(folder, ignore_errors=True)
