"""Films of a cohort from a DICOM archive, study by study, restartable."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association

from ..errors import InputError
from ..files import read_json, write_json
from .deidentify import SOP_CLASSES
from .dimse import Archive, association, find, get, identifier
from .films import rejected_unseen, take_dicom, write_manifest
from .pseudonyms import Pseudonyms

_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_PROCESS = 0x0000, 0xA700, 0xC000


def retrieve(
    archive: Archive,
    pseudonyms: Pseudonyms,
    images: Path,
    manifest: Path,
    modalities: list[str],
    study_dates: str,
    views: list[str],
    log: logging.Logger,
) -> None:
    """Fetch every study of the query that is not here yet, and write the manifest.

    Names, numbers and dates stay in the memory of this process; a study counts as here once
    `images/studies/{study_id}.json`, written after its last film, exists.

    Args:
        archive: whom to ask.
        pseudonyms: the keyed mapping.
        images: folder for `dicom/`, `png/` and `studies/`.
        manifest: the manifest to write.
        modalities: DX, CR or both.
        study_dates: DICOM date or range, or empty.
        views: values of View Position that count as lateral.
        log: where progress is told.

    Raises:
        InputError: the archive cannot be used, the query is empty, no film is accepted, or the disk
            is full; films and studies that are here stay.
    """
    rows: list[dict[str, Any]] = []
    receiver = _Receiver(pseudonyms, images, views)
    with association(archive, receiver.on_store) as assoc:
        query = identifier(
            "STUDY", StudyInstanceUID="", PatientID="", StudyDate=study_dates, ModalitiesInStudy=""
        )
        studies = find(assoc, archive, query)
        log.info("%s: %d studies match", archive, len(studies))
        if not studies:
            raise InputError(
                f"The archive {archive} has no study for this query: widen archive.study_dates "
                "and archive.modalities, or check that this archive holds the films."
            )
        days = _study_days(studies)
        started, fetched = time.monotonic(), 0
        for number, study in enumerate(studies, start=1):
            uid = str(study.StudyInstanceUID)
            record = images / "studies" / f"{pseudonyms.study(uid)}.json"
            asked = {"views": views, "modalities": modalities}
            study_rows = _known_rows(record, images, asked)
            if study_rows is None:
                receiver.study_uid, receiver.study_day = uid, days[uid]
                study_rows = _fetch_study(assoc, archive, modalities, receiver)
                write_json(record, asked | {"rows": study_rows})
                fetched += 1
                left = (time.monotonic() - started) / fetched * (len(studies) - number)
                if fetched % 10 == 0 or number == len(studies):
                    log.info("study %d of %d, about %.0f s left", number, len(studies), left)
            # With another query, another study may be the patient's first.
            rows += [row | {"study_day": days[uid]} for row in study_rows]
    table = write_manifest(manifest, rows)
    accepted = int((table["status"] == "accepted").sum())
    log.info(
        "%d films accepted, %d rejected; %d studies fetched now, %d were here",
        accepted,
        len(table) - accepted,
        fetched,
        len(studies) - fetched,
    )


def _study_days(studies: list[Dataset]) -> dict[str, int | None]:
    """Days since the patient's first study of this query, by Study Instance UID."""
    first: dict[str, date] = {}
    dates: dict[str, date | None] = {}
    for study in studies:
        day = _date(study.get("StudyDate"))
        dates[str(study.StudyInstanceUID)] = day
        patient = str(study.get("PatientID", ""))
        if day is not None:
            first[patient] = min(day, first.get(patient, day))
    return {
        str(study.StudyInstanceUID): (day - first[str(study.get("PatientID", ""))]).days
        if (day := dates[str(study.StudyInstanceUID)]) is not None
        else None
        for study in studies
    }


def _date(value: Any) -> date | None:
    try:
        return datetime.strptime(str(value), "%Y%m%d").date()
    except ValueError:
        return None


def _known_rows(
    record: Path, images: Path, asked: dict[str, list[str]]
) -> list[dict[str, Any]] | None:
    """The manifest rows of a study that is whole on disk and was `asked` for so, otherwise None."""
    if not record.exists():
        return None
    content = read_json(record)
    accepted = [row["image_id"] for row in content["rows"] if row["status"] == "accepted"]
    here = all(
        (images / "png" / f"{name}.png").exists() and (images / "dicom" / f"{name}.dcm").exists()
        for name in accepted
    )
    same = all(content.get(key) == value for key, value in asked.items())
    return content["rows"] if here and same else None


class _Receiver:
    """Takes the objects of a C-GET as they arrive; `rows` and `failures` are for the caller."""

    def __init__(self, pseudonyms: Pseudonyms, images: Path, views: list[str]):
        self.study_uid = ""
        self.study_day: int | None = None
        self.rows: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self._pseudonyms, self._images, self._views = pseudonyms, images, views

    def reject(self, uids: Iterable[str]) -> None:
        """Note objects of the current study that are of no class to ask for."""
        for uid in uids:
            self.rows.append(rejected_unseen(self._pseudonyms, uid, self.study_uid, self.study_day))

    def on_store(self, event: evt.Event) -> int:
        """Handle a C-STORE request; return its status."""
        try:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.rows.append(
                take_dicom(dataset, self._pseudonyms, self._images, self._views, self.study_day)
            )
        except (InputError, OSError) as error:  # pynetdicom would swallow it: the caller raises it
            self.failures.append(error)
            return _OUT_OF_RESOURCES
        except Exception as error:  # a broken object; the exception may quote what it holds
            sentence = (
                f"The archive sent an object that cannot be read ({type(error).__name__}, study "
                f"{self._pseudonyms.study(self.study_uid)}): correct it there, or leave its study "
                "out with archive.study_dates."
            )
            self.failures.append(InputError(sentence))
            return _CANNOT_PROCESS
        return _SUCCESS


def _fetch_study(
    assoc: Association, archive: Archive, modalities: list[str], receiver: _Receiver
) -> list[dict[str, Any]]:
    """Fetch the series of the wanted modalities; return the manifest rows of their images."""
    receiver.rows = []
    keys = {"StudyInstanceUID": receiver.study_uid}
    for series in find(
        assoc, archive, identifier("SERIES", **keys, SeriesInstanceUID="", Modality="")
    ):
        if series.get("Modality") not in modalities:
            continue
        keys["SeriesInstanceUID"] = series.SeriesInstanceUID
        listed = find(
            assoc, archive, identifier("IMAGE", **keys, SOPInstanceUID="", SOPClassUID="")
        )
        # A series may hold objects that were not negotiated, such as raw films "for processing".
        # Archives need not tell the class (PS3.4 C.6.1.1.5): then all are expected.
        others = [
            image for image in listed if image.get("SOPClassUID") not in (None, "", *SOP_CLASSES)
        ]
        wanted = len(listed) - len(others)
        before = len(receiver.rows)
        try:
            if wanted:
                get(assoc, archive, identifier("SERIES", **keys))
        except InputError as error:
            # An archive whose films are not taken here fails, too: the first failure is the cause.
            receiver.failures.append(error)
        if receiver.failures:
            raise receiver.failures[0]
        if len(receiver.rows) - before < wanted:
            raise InputError(
                f"The archive {archive} sent {len(receiver.rows) - before} of {wanted} images of "
                "a series: run the same command again (what is already here stays)."
            )
        receiver.reject(str(image.SOPInstanceUID) for image in others)
    return receiver.rows
