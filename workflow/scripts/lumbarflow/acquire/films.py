"""One film: is it wanted, and if so its de-identified object, its picture and its manifest row."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset

from ..errors import InputError
from ..files import write_bytes, write_png, write_table
from .deidentify import SOP_CLASSES, age_years, deidentify, patient_key
from .pseudonyms import Pseudonyms
from .render import render

# Columns of images/manifest.parquet and their types; null where unknown.
MANIFEST = {
    "image_id": "string",
    "patient_id": "string",
    "study_id": "string",
    "study_day": "Int64",  # days since the patient's first study
    "rows": "Int64",
    "columns": "Int64",
    "pixel_spacing_mm": "Float64",
    "pixel_spacing_source": "string",  # `patient` (calibrated) or `detector`
    "view": "string",
    "status": "string",
    "reason": "string",
    "modality": "string",
    "patient_sex": "string",
    "patient_age_years": "Int64",
}


def take_dicom(
    dataset: Dataset,
    pseudonyms: Pseudonyms,
    images: Path,
    views: Iterable[str],
    study_day: int | None,
) -> dict[str, Any]:
    """De-identify, render and write one object; return its manifest row.

    Args:
        dataset: the object as received, with file meta; it is only read.
        pseudonyms: the keyed mapping.
        images: the folder that `dicom/` and `png/` are written to, for accepted films only.
        views: values of View Position that count as lateral.
        study_day: days between the patient's first study and this one.

    Raises:
        InputError: the disk is full.
    """
    uid = str(dataset.get("SOPInstanceUID", ""))
    image_id = pseudonyms.image(uid)
    spacing, spacing_source = pixel_spacing(dataset)
    row = dict.fromkeys(MANIFEST)
    row |= {
        "image_id": image_id,
        "patient_id": pseudonyms.patient(patient_key(dataset)),
        "study_id": pseudonyms.study(str(dataset.get("StudyInstanceUID", ""))),
        "study_day": study_day,
        "rows": _count(dataset, "Rows"),
        "columns": _count(dataset, "Columns"),
        "pixel_spacing_mm": spacing,
        "pixel_spacing_source": spacing_source,
        "view": _code(dataset, "ViewPosition"),
        "modality": _code(dataset, "Modality"),
        "patient_sex": _code(dataset, "PatientSex"),
        "patient_age_years": age_years(dataset),
        "status": "rejected",
    }
    if (row["view"] or "").upper() not in {view.upper() for view in views}:
        return row | {"reason": "not_lateral"}
    if _code(dataset, "BurnedInAnnotation") == "YES":
        return row | {"reason": "burned_in_annotation"}
    if str(dataset.get("SOPClassUID", "")) not in SOP_CLASSES:
        return row | {"reason": "sop_class_not_taken"}
    try:
        clean = deidentify(dataset, pseudonyms)
        picture = render(clean)
    except InputError:
        return row | {"reason": "pixels_not_readable"}
    encoded = BytesIO()  # pydicom hides the cause of a failing write
    clean.save_as(encoded, enforce_file_format=True)
    write_bytes(images / "dicom" / f"{image_id}.dcm", encoded.getvalue())
    write_png(images / "png" / f"{image_id}.png", picture)
    return row | {"status": "accepted"}


def rejected_unseen(
    pseudonyms: Pseudonyms, uid: str, study_uid: str, study_day: int | None
) -> dict[str, Any]:
    """Manifest row of an object that the archive lists but that is of no class to ask for."""
    return dict.fromkeys(MANIFEST) | {
        "image_id": pseudonyms.image(uid),
        "study_id": pseudonyms.study(study_uid),
        "study_day": study_day,
        "status": "rejected",
        "reason": "sop_class_not_taken",
    }


def pixel_spacing(dataset: Dataset) -> tuple[float | None, str | None]:
    """Row spacing in mm and where it holds: in the `patient` (calibrated) or at the `detector`.

    Pixel Spacing (0028,0030) is taken as calibrated; Imager Pixel Spacing (0018,1164) is at the
    detector (DICOM PS3.3 10.7.1). Unequal or non-positive spacings count as unknown.
    """
    for keyword, source in (("PixelSpacing", "patient"), ("ImagerPixelSpacing", "detector")):
        try:
            row, column = map(float, dataset.get(keyword))
        except (TypeError, ValueError):  # missing, not two, or not numbers
            continue
        if 0 < row < np.inf and np.isclose(row, column, rtol=0.01):
            return row, source
    return None, None


def _count(dataset: Dataset, keyword: str) -> int | None:
    value = dataset.get(keyword)
    return value if isinstance(value, int) else None


def _code(dataset: Dataset, keyword: str) -> str | None:
    """A coded value; anything longer than a code string may hold, or not plain, is dropped."""
    value = str(dataset.get(keyword, "") or "").strip()
    return value if value and len(value) <= 16 and value.isascii() else None


def manifest_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table with the manifest's columns and types, sorted by image_id."""
    table = pd.DataFrame(list(rows), columns=list(MANIFEST)).astype(MANIFEST)
    return table.drop_duplicates("image_id").sort_values("image_id", ignore_index=True)


def write_manifest(path: Path, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Write and return the manifest.

    Raises:
        InputError: no film was accepted; the sentence counts the reasons.
    """
    table = manifest_table(rows)
    if not (table["status"] == "accepted").any():
        counts = table["reason"].value_counts()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        raise InputError(
            f"None of {len(table)} films was accepted ({reasons}): "
            "widen the source (archive.* or folder.* in the configuration)."
        )
    write_table(path, table)
    return table
