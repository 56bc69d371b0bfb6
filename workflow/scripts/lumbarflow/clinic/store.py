"""Storing objects in an archive (C-STORE, DICOM PS3.4 annex B)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from ..acquire.dimse import Archive, association, send


def store(objects: Sequence[Dataset], archive: Archive) -> None:
    """Store objects in an archive, over one association.

    What was stored before a failure stays there: storing it again is harmless, as the same film
    gives the same objects.

    Args:
        objects: with file meta information, uncompressed.
        archive: where to; see `archive` in the configuration.

    Raises:
        InputError: the archive cannot be reached, does not take such objects, or refuses one; a
            :class:`~lumbarflow.acquire.dimse.PassingError` where that may pass.
    """
    if not objects:
        return
    classes = list(dict.fromkeys(item.SOPClassUID for item in objects))
    with association(archive, services=classes) as assoc:
        for item in objects:
            send(assoc, archive, item)


def store_files(objects: Path, films: Path, archive: Mapping[str, Any], log: logging.Logger) -> int:
    """Store the objects of a folder, each film before what was found on it.

    Args:
        objects: folder of `{image_id}.seg.dcm` and `{image_id}.sr.dcm`.
        films: folder of `{image_id}.dcm`.
        archive: `new_studies.store_in` of the configuration.
        log: where progress is told.

    Returns:
        How many were stored, films included.

    Raises:
        InputError: as of :func:`store`.
    """
    to = Archive(**archive)
    names = sorted({path.name.split(".")[0] for path in objects.glob("*.dcm")})
    count = 0
    for number, name in enumerate(names, start=1):
        paths = [films / f"{name}.dcm", *sorted(objects.glob(f"{name}.*.dcm"))]
        store([pydicom.dcmread(path) for path in paths], to)
        count += len(paths)
        log.info("film %d of %d stored in %s", number, len(names), to)
    return count
