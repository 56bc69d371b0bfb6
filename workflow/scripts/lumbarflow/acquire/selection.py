"""Which studies of an archive are wanted: a query, a list of numbers from a CSV file, or both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from ..errors import InputError
from ..files import read_csv

# Column of a cohort file -> DICOM keyword.
COLUMNS = {
    "accession_number": "AccessionNumber",
    "study_instance_uid": "StudyInstanceUID",
    "patient_id": "PatientID",
}
_SHORT_NAMES = {"study_uid": "study_instance_uid", "accession": "accession_number"}
_LONGEST = {"AccessionNumber": 16, "StudyInstanceUID": 64, "PatientID": 64}  # PS3.5 6.2
# A star or a question mark is a wild card in a query, and a backslash starts another value.
_MATCHES_OTHERS = re.compile(r"[*?\\\x00-\x1f]")


@dataclass(frozen=True)
class Selection:
    """What is asked of an archive.

    Args:
        modalities: DX, CR or both.
        study_dates: DICOM date or range, or empty.
        body_parts: patterns of Body Part Examined, empty for all.
        descriptions: patterns of Study or Series Description, empty for all.
        cohort: rows of the cohort file, None without one; see :func:`read_cohort`.
    """

    modalities: tuple[str, ...]
    study_dates: str = ""
    body_parts: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    cohort: Mapping[int, Mapping[str, str]] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Selection:
        """The selection of `archive` in the configuration.

        Raises:
            InputError: the cohort file cannot be used.
        """
        return cls(
            modalities=tuple(settings["modalities"]),
            study_dates=settings["study_dates"],
            body_parts=tuple(settings["body_parts"]),
            descriptions=tuple(settings["descriptions"]),
            cohort=read_cohort(settings["cohort"]) if settings["cohort"] else None,
        )

    def queries(self) -> Iterator[tuple[int | None, dict[str, str]]]:
        """Line of the cohort file, if any, and study-level matching keys of each C-FIND."""
        for line, row in (self.cohort or {None: {}}).items():
            yield line, {"StudyDate": self.study_dates} | dict(row)

    def excludes(self, *levels: Dataset) -> str | None:
        """Why a series is not wanted: `modality`, `body_part`, `description`; otherwise None.

        Args:
            levels: what is known of the series and its study. What is not known excludes nothing,
                as archives leave out optional keys.
        """
        if not _fits(self.modalities, _values(levels, "Modality")):
            return "modality"
        if not _fits(self.body_parts, _values(levels, "BodyPartExamined")):
            return "body_part"
        # A series is named by either description.
        described = _values(levels, "StudyDescription") + _values(levels, "SeriesDescription")
        return None if _fits(self.descriptions, described, anywhere=True) else "description"


def _values(levels: Iterable[Dataset], keyword: str) -> list[str]:
    found = (str(level.get(keyword, None) or "").strip() for level in levels)
    return [value for value in found if value]


def _fits(patterns: tuple[str, ...], values: list[str], anywhere: bool = False) -> bool:
    if not patterns or not values:
        return True
    wanted = [f"*{pattern}*" if anywhere else pattern for pattern in patterns]
    return any(fnmatchcase(v.casefold(), w.casefold()) for v in values for w in wanted)


def read_cohort(path: str | Path) -> dict[int, dict[str, str]]:
    """Read a cohort file: DICOM keywords and values by line number; equal rows once.

    It is a CSV file with a header and any of the columns accession_number, study_instance_uid and
    patient_id; two of them in a row must both fit. Separators are commas, semicolons or tabs. Other
    columns are not read. The values identify patients: no sentence quotes them.

    Raises:
        InputError: the file is missing, has none of the columns or no row, or a value is no number
            of its kind.
    """
    try:
        header, lines = read_csv(path)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file in UTF-8: save it as CSV UTF-8.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): check archive.cohort."
        ) from None
    names = [_column(name) for name in header]
    if not set(names) & set(COLUMNS):
        raise InputError(
            f"{path} has none of the columns {', '.join(COLUMNS)}: name one in its first line."
        )
    rows: dict[int, dict[str, str]] = {}
    for line, cells in lines:
        pairs = zip(names, cells, strict=False)
        row = {COLUMNS[name]: cell for name, cell in pairs if name in COLUMNS and cell}
        for keyword, value in row.items():
            _check(path, line, keyword, value)
        if row and row not in rows.values():
            rows[line] = row
    if not rows:
        raise InputError(f"{path} lists no study: add a line for each below its header.")
    return rows


def _column(name: str) -> str:
    """`AccessionNumber`, `Accession Number` and `accession_number` are one column."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s.-]+", "_", name.strip())
    return _SHORT_NAMES.get(words.lower(), words.lower())


def _check(path: str | Path, line: int, keyword: str, value: str) -> None:
    good = len(value) <= _LONGEST[keyword] and not _MATCHES_OTHERS.search(value)
    if keyword == "StudyInstanceUID":
        good = good and re.fullmatch(r"[0-9]+(\.[0-9]+)+", value) is not None
    if not good:
        column = next(name for name, other in COLUMNS.items() if other == keyword)
        raise InputError(
            f"{path}, line {line}: the {column} is not one (too long, or with characters that it "
            "cannot have): correct it, and keep such columns as text in a spreadsheet."
        )
