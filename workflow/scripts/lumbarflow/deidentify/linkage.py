"""The linkage table, pseudonym to original, for those who must be able to go back."""

from __future__ import annotations

import csv
import io
import os
import stat
import threading
from pathlib import Path

from pydicom.dataset import Dataset

from ..errors import InputError
from .engine import patient_key
from .pseudonyms import Pseudonyms

COLUMNS = ("kind", "pseudonym", "original", "issuer", "days_shifted")


class Linkage:
    """Appends what is new to a CSV file that only its owner can read.

    A row is a patient (original: Patient ID, with its issuer, and the days by which the patient's
    dates are moved back), a study or an image (original: the UID).
    """

    def __init__(self, path: str | Path, results: str | Path):
        """Open or make the table.

        Args:
            path: the CSV file.
            results: the folder of the results, in which the table must not be.

        Raises:
            InputError: the table would be within the results, others may read it, it is no linkage
                table, or it cannot be written.
        """
        self._path = Path(path)
        self._lock = threading.Lock()
        if self._path.resolve().is_relative_to(Path(results).resolve()):
            raise InputError(
                f"privacy.linkage: {path} lies within the results ({results}), which are passed "
                "on: choose a place outside of them that only you can read."
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "r+", newline="", encoding="utf-8") as stream:
                if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                    raise InputError(
                        f"privacy.linkage: others than its owner may read or write {path}: "
                        f"`chmod 600 {path}`."
                    )
                text = stream.read()
                if not text:
                    csv.writer(stream).writerow(COLUMNS)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise InputError(
                f"privacy.linkage: {path} cannot be used ({reason}): correct the path."
            ) from None
        rows = list(csv.reader(io.StringIO(text)))
        if rows and tuple(rows[0]) != COLUMNS:
            raise InputError(
                f"privacy.linkage: {path} is not a linkage table, and is left as it is: choose "
                "another file name."
            )
        self._known = {row[1] for row in rows[1:] if len(row) == len(COLUMNS)}

    def add(self, dataset: Dataset, pseudonyms: Pseudonyms) -> None:
        """Note the patient, the study and the image of an object."""
        rows = []
        patient = patient_key(dataset)
        if number := str(dataset.get("PatientID", "") or "").strip():
            issuer = str(dataset.get("IssuerOfPatientID", "") or "")
            days = pseudonyms.days(patient)
            rows.append(("patient", pseudonyms.patient(patient), number, issuer, days))
        for kind, keyword in (("study", "StudyInstanceUID"), ("image", "SOPInstanceUID")):
            if uid := str(dataset.get(keyword, "") or ""):
                rows.append((kind, getattr(pseudonyms, kind)(uid), uid, "", ""))
        with self._lock:
            new = [row for row in rows if row[1] not in self._known]
            if new:
                self._known |= {row[1] for row in new}
                with self._path.open("a", newline="", encoding="utf-8") as stream:
                    csv.writer(stream).writerows(new)
