"""The directory of a DICOM disc (DICOMDIR, DICOM PS3.3 Annex F and PS3.10 8.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from ..deidentify.engine import SOP_CLASSES, patient_key


class Listed(NamedTuple):
    """An object that a DICOMDIR lists; texts are empty where it does not say."""

    uid: str
    sop_class: str
    modality: str
    file: str  # key of the referenced file, see `file_key`
    study: str
    patient: str
    study_date: str

    @property
    def film(self) -> bool:
        """Whether it may be a film that is taken; the class decides, where it is told."""
        if self.sop_class:
            return self.sop_class in SOP_CLASSES
        return self.modality in ("CR", "DX", "")


def file_key(name: str) -> str:
    """A file name with what copying changes taken away: case, version `;1`, last dot, `.dcm`."""
    return re.sub(r"(\.dcm)?\.?(;[0-9]+)?$", "", name.lower())


def read_dicomdir(path: Path) -> list[Listed]:
    """The objects that a DICOMDIR lists, with what the records above them say.

    Raises:
        ValueError: it cannot be read, or its records do not hang together.
    """
    try:
        return [
            _listed(record, above)
            for record, above in _records(pydicom.dcmread(path))
            if record.get("ReferencedSOPInstanceUIDInFile") and record.get("ReferencedFileID")
        ]
    except Exception as error:  # pydicom raises, and quotes, whatever it met
        raise ValueError(f"not a readable DICOMDIR ({type(error).__name__})") from None


def _records(directory: Dataset) -> Iterator[tuple[Dataset, dict[str, Dataset]]]:
    """Each record in use with the records above it by type; they are linked by their offsets."""
    by_offset = {record.seq_item_tell: record for record in directory.DirectoryRecordSequence}
    first = directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity
    levels: list[tuple[int, dict[str, Dataset]]] = [(first, {})]
    while levels:
        offset, above = levels.pop()
        while offset:
            record = by_offset.pop(offset)  # KeyError: a dead end or a ring
            offset = record.get("OffsetOfTheNextDirectoryRecord") or 0
            if record.get("RecordInUseFlag") == 0:
                continue
            yield record, above
            below = record.get("OffsetOfReferencedLowerLevelDirectoryEntity")
            if below:
                levels.append((below, above | {str(record.DirectoryRecordType): record}))


def _listed(record: Dataset, above: dict[str, Dataset]) -> Listed:
    nothing = Dataset()
    patient, study, series = (above.get(level, nothing) for level in ("PATIENT", "STUDY", "SERIES"))
    file_id = record.ReferencedFileID
    parts = file_id if isinstance(file_id, MultiValue) else [file_id]
    names = [name for part in parts for name in re.split(r"[\\/]", str(part)) if name]
    return Listed(
        uid=str(record.ReferencedSOPInstanceUIDInFile),
        sop_class=str(record.get("ReferencedSOPClassUIDInFile") or ""),
        modality=str(series.get("Modality") or ""),
        file="/".join(map(file_key, names)),
        study=str(study.get("StudyInstanceUID") or ""),
        patient=patient_key(patient) if patient.get("PatientID") else "",
        study_date=str(study.get("StudyDate") or ""),
    )
