"""Storing objects in an archive (C-STORE, DICOM PS3.4 annex B)."""

from __future__ import annotations

from collections.abc import Sequence

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
