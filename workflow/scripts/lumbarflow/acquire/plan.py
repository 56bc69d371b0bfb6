"""What an archive holds of a selection, asked by C-FIND before anything is pulled."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from ..deidentify.engine import SOP_CLASSES
from ..errors import InputError
from .days import study_days
from .dimse import Archive, find, identifier
from .lines import Line, Lines
from .progress import Progress
from .selection import Selection

# What a person wants to know of a selection; counts only, as the rest identifies.
SUMMARY = {
    "modality": "string",
    "year": "Int64",
    "reason": "string",  # why it is left out, null where it would be retrieved
    "studies": "Int64",
    "series": "Int64",
    "images": "Int64",
}
_STUDY_KEYS = (
    "StudyInstanceUID",
    "PatientID",
    "StudyDate",
    "StudyDescription",
    "NumberOfStudyRelatedInstances",
    # What identifies: the verifier looks for it in what is written.
    "PatientName",
    "PatientBirthDate",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
_SERIES_KEYS = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "NumberOfSeriesRelatedInstances",
)
_TOLD_LINES = 20


@dataclass(frozen=True)
class Study:
    """A study that matches; `listed` is its number of images, None where the archive is silent."""

    uid: str
    day: int | None  # since the patient's first study of this selection
    year: int | None
    listed: int | None
    answer: Dataset


@dataclass(frozen=True)
class Series:
    """A series and why it is left out, None to take it; `images` maps SOP instances to classes.

    A series may hold objects that are not negotiated, such as raw films "for processing"; archives
    need not tell the class (PS3.4 C.6.1.1.5): then it is None, and the object is expected.
    """

    uid: str
    modality: str | None
    reason: str | None
    images: dict[str, str | None]

    @property
    def wanted(self) -> list[str]:
        """SOP instance UIDs to fetch."""
        known = (None, *SOP_CLASSES)
        return [] if self.reason else [uid for uid, name in self.images.items() if name in known]


def find_studies(
    lines: Lines, archive: Archive, selection: Selection, log: logging.Logger
) -> list[Study]:
    """The studies that match, in a fixed order.

    Raises:
        InputError: the archive cannot be asked, or none matches.
    """
    answers: dict[str, Dataset] = {}
    unmatched = []
    for number, keys in selection.queries():
        found = 0
        # Archives that cannot match by modality answer with all studies; a list of numbers is
        # short enough for a look at the series of each.
        for modality in selection.modalities if number is None else [""]:
            query = identifier("STUDY", **dict.fromkeys(_STUDY_KEYS, ""))
            query.update(identifier("STUDY", ModalitiesInStudy=modality, **keys))
            for answer in lines.do(lambda assoc, query=query: find(assoc, archive, query)):
                if answer.get("StudyInstanceUID"):
                    answers[str(answer.StudyInstanceUID)] = answer
                    found += 1
        if number is not None and not found:
            unmatched.append(number)
    if unmatched:
        shown = ", ".join(map(str, unmatched[:_TOLD_LINES]))
        log.warning(
            "%d of %d lines of the cohort file match no study: line %s%s",
            len(unmatched),
            len(selection.cohort or ()),
            shown,
            " ..." if len(unmatched) > _TOLD_LINES else "",
        )
    if not answers:
        raise InputError(
            f"The archive {archive} has no study for this query: widen archive.study_dates, "
            "archive.modalities and archive.cohort, or check that this archive holds the films."
        )
    days = study_days(
        (str(answer.get("PatientID") or ""), uid, answer.get("StudyDate"))
        for uid, answer in answers.items()
    )
    return [
        Study(
            uid,
            days[uid],
            _count(str(answer.get("StudyDate") or "")[:4]),
            _count(answer.get("NumberOfStudyRelatedInstances")),
            answer,
        )
        for uid, answer in sorted(answers.items())
    ]


def find_series(
    assoc: Association, archive: Archive, study: Study, selection: Selection
) -> list[Series]:
    """The series of a study with their images; those of series left out are only counted."""
    keys = {"StudyInstanceUID": study.uid}
    query = identifier("SERIES", **dict.fromkeys(_SERIES_KEYS, ""), **keys)
    result = []
    for answer in find(assoc, archive, query):
        uid = str(answer.SeriesInstanceUID)
        reason = selection.excludes(study.answer, answer)
        count = _count(answer.get("NumberOfSeriesRelatedInstances"))
        if reason and count is not None:
            images: dict[str, str | None] = dict.fromkeys(map(str, range(count)))
        else:
            series = keys | {"SeriesInstanceUID": uid}
            images = {
                str(image.SOPInstanceUID): str(image.get("SOPClassUID") or "") or None
                for image in find(
                    assoc, archive, identifier("IMAGE", **series, SOPInstanceUID="", SOPClassUID="")
                )
            }
        result.append(Series(uid, str(answer.get("Modality") or "") or None, reason, images))
    return result


def look_up(
    lines: Lines,
    archive: Archive,
    studies: list[Study],
    selection: Selection,
    log: logging.Logger,
) -> list[tuple[Study, list[Series]]]:
    """The series and images of each study, in the order of the studies."""
    progress = Progress(len(studies), log, "studies looked up")

    def look(line: Line, study: Study) -> tuple[Study, list[Series]]:
        found = line.do(lambda assoc: find_series(assoc, archive, study, selection))
        progress.done()
        return study, found

    return sorted(lines.share(studies, look), key=lambda item: item[0].uid)


def summary(planned: Iterable[tuple[Study, list[Series]]]) -> pd.DataFrame:
    """Counts by modality, year and reason for exclusion; see :data:`SUMMARY`."""
    rows = []
    for study, found in planned:
        for series in found:
            wanted = len(series.wanted)
            others = len(series.images) - wanted
            shared = {"modality": series.modality, "year": study.year, "study": study.uid}
            if wanted or not others:
                rows.append(shared | {"reason": series.reason, "images": wanted})
            if others:
                reason = series.reason or "sop_class_not_taken"
                rows.append(shared | {"reason": reason, "images": others})
    table = pd.DataFrame(rows, columns=["modality", "year", "reason", "study", "images"])
    groups = table.groupby(["reason", "modality", "year"], dropna=False)
    counts = groups.agg(
        studies=("study", "nunique"), series=("study", "size"), images=("images", "sum")
    ).reset_index()
    return counts[list(SUMMARY)].astype(SUMMARY)


def summary_text(table: pd.DataFrame) -> str:
    """The summary as text for a terminal."""
    shown = table.assign(
        reason=table["reason"].fillna("to be retrieved"),
        modality=table["modality"].fillna("unknown"),
        year=table["year"].astype("string").fillna("unknown"),
    )
    images = int(table.loc[table["reason"].isna(), "images"].sum())
    return (
        f"{images} of {int(table['images'].sum())} images would be retrieved\n"
        f"{shown.to_string(index=False)}"
    )


def _count(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
