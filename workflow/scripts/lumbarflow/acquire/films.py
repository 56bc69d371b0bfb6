"""One film: is it wanted, and if so its de-identified object, its picture and its manifest row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from pydicom.dataset import Dataset

from ..deidentify.deidentifier import Deidentifier
from ..deidentify.engine import SOP_CLASSES, age_years, patient_key, sex, tells_of_text
from ..deidentify.pseudonyms import Pseudonyms
from ..errors import InputError
from ..files import read_csv, write_bytes, write_png, write_table
from .pixels import UnreadableTransferSyntax
from .spacing import pixel_spacing
from .view import choose

# Columns of images/manifest.parquet and their types; null where unknown.
MANIFEST = {
    "image_id": "string",
    "patient_id": "string",
    "study_id": "string",
    "study_day": "Int64",  # days since the patient's first study
    "rows": "Int64",
    "columns": "Int64",
    "pixel_spacing_mm": "Float64",  # in the patient
    "pixel_spacing_source": "string",
    "imager_pixel_spacing_mm": "Float64",  # at the detector
    "view": "string",
    "view_evidence": "string",  # what the view was told by, as `source:finding source:finding`
    "status": "string",
    "reason": "string",
    "modality": "string",
    "patient_sex": "string",
    "patient_age_years": "Int64",
    "blanked_texts": "Int64",  # areas of burned-in text; null where nobody looked for any
}
DECISIONS = ("accept", "reject")
_DECIDE = ", or decide on the films in images/uncertain yourself (films.view_decisions)"
UNCERTAIN_SIDE = 480  # longest side of the picture of a film to decide, pixels
#: Longest side to which a film with text is blurred: letters of a tenth of its height are lost.
BLURRED_SIDE = 48
# Reasons for which a film is rejected and yet has a picture for its reader.
_SHOWN = ("view_uncertain", "burned_in_text_uncertain")


def take_dicom(
    dataset: Dataset,
    deidentifier: Deidentifier,
    images: Path,
    decisions: Mapping[str, str],
    study_day: int | None,
) -> dict[str, Any]:
    """De-identify, render and write one object; return its manifest row.

    Args:
        dataset: the object as received, with file meta; it is only read.
        deidentifier: what films are de-identified with.
        images: the folder that `dicom/` and `png/` are written to for accepted films, and
            `uncertain/` for a small picture of films of which the header does not tell the view,
            and, blurred, of those that may hold text. Files of a film that is rejected now are
            removed.
        decisions: `accept` or `reject` by image_id, of the reader who overrules the choice.
        study_day: days between the patient's first study and this one.

    Returns:
        The columns of :data:`MANIFEST`, and `audit`: [attribute, outcome, count] of each attribute
        that was met.

    Raises:
        InputError: the disk is full.
    """
    row = _take(dataset, deidentifier, images, decisions, study_day)
    for name, path in _files(images, row["image_id"]).items():
        if name not in _kept(row):
            path.unlink(missing_ok=True)
    return row


def _take(
    dataset: Dataset,
    deidentifier: Deidentifier,
    images: Path,
    decisions: Mapping[str, str],
    study_day: int | None,
) -> dict[str, Any]:
    pseudonyms = deidentifier.pseudonyms
    uid = str(dataset.get("SOPInstanceUID", ""))
    image_id = pseudonyms.image(uid)
    spacing = pixel_spacing(dataset)
    choice, decision = choose(dataset), decisions.get(image_id)
    evidence = [*choice.evidence, *([f"reader:{decision}"] if decision else [])]
    row = dict.fromkeys(MANIFEST)
    row |= {
        "image_id": image_id,
        "patient_id": pseudonyms.patient(patient_key(dataset)),
        "study_id": pseudonyms.study(str(dataset.get("StudyInstanceUID", ""))),
        "study_day": study_day,
        "rows": _count(dataset, "Rows"),
        "columns": _count(dataset, "Columns"),
        "pixel_spacing_mm": spacing.mm,
        "pixel_spacing_source": spacing.source,
        "imager_pixel_spacing_mm": spacing.imager_mm,
        "view": "lateral" if decision == "accept" else choice.view,
        "view_evidence": " ".join(evidence) or None,
        "modality": _modality(dataset),
        "status": "rejected",
    }
    if deidentifier.options.patient_characteristics:
        row |= {"patient_sex": sex(dataset), "patient_age_years": age_years(dataset)}
    if str(dataset.get("SOPClassUID", "")) not in SOP_CLASSES:
        return row | {"reason": "sop_class_not_taken"}
    if decision == "reject":
        return row | {"reason": "rejected_by_reader"}
    view_uncertain = decision is None and choice.reason == "view_uncertain"
    if decision is None and choice.reason and not view_uncertain:
        return row | {"reason": choice.reason}
    if not deidentifier.searches_text and tells_of_text(dataset):
        return row | {"reason": "burned_in_annotation"}
    try:
        film = deidentifier.film(dataset)
    except UnreadableTransferSyntax as error:
        return row | {"reason": f"transfer_syntax_not_readable: {error.transfer_syntax}"}
    except InputError:
        return row | {"reason": "pixels_not_readable"}
    row |= {
        "blanked_texts": film.blanked,
        "audit": [[*key, count] for key, count in sorted(film.audit.items())],
    }
    files = _files(images, image_id)
    if film.uncertain:
        write_png(files["uncertain"], blurred(film.picture))
        return row | {"reason": "burned_in_text_uncertain"}
    if view_uncertain:
        write_png(files["uncertain"], _small(film.picture, UNCERTAIN_SIDE))
        return row | {"reason": "view_uncertain"}
    encoded = BytesIO()  # pydicom hides the cause of a failing write
    film.dataset.save_as(encoded, enforce_file_format=True)
    write_bytes(files["dicom"], encoded.getbuffer())
    write_png(files["png"], film.picture)
    rows, columns = film.picture.shape  # where pixels are not square, not those of the header
    return row | {"status": "accepted", "rows": rows, "columns": columns}


def _files(images: Path, image_id: str) -> dict[str, Path]:
    """The files that a film may have."""
    return {
        "dicom": images / "dicom" / f"{image_id}.dcm",
        "png": images / "png" / f"{image_id}.png",
        "uncertain": images / "uncertain" / f"{image_id}.png",
    }


def _kept(row: Mapping[str, Any]) -> set[str]:
    """Which of :func:`_files` a row stands for."""
    if row["status"] == "accepted":
        return {"dicom", "png"}
    return {"uncertain"} if row["reason"] in _SHOWN else set()


def is_whole(row: Mapping[str, Any], images: Path) -> bool:
    """Whether the files that a row of :func:`take_dicom` stands for are all there."""
    files = _files(images, row["image_id"])
    return all(files[name].exists() for name in _kept(row))


def follows(row: Mapping[str, Any], decisions: Mapping[str, str]) -> bool:
    """Whether a row of an earlier run agrees with the reader's decisions of this one."""
    # Of an object that was never looked at, or is no film.
    if row["patient_id"] is None or row["reason"] == "sop_class_not_taken":
        return True
    marks = (row["view_evidence"] or "").split()
    taken = next((value for value in DECISIONS if f"reader:{value}" in marks), None)
    return taken == decisions.get(row["image_id"])


def blurred(picture: np.ndarray) -> np.ndarray:
    """A small picture (uint8) of a film in which no letter can be read."""
    coarse = _small(picture, BLURRED_SIDE)
    share = UNCERTAIN_SIDE / max(coarse.shape)
    rows, columns = (max(round(side * share), 1) for side in coarse.shape)
    return cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)


def _small(picture: np.ndarray, longest: int) -> np.ndarray:
    share = longest / max(picture.shape)
    if share >= 1:
        return picture
    rows, columns = (max(round(side * share), 1) for side in picture.shape)
    return cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)


def read_decisions(path: str | Path | None) -> dict[str, str]:
    """The reader's decisions, `accept` or `reject` by image_id; none where there is no file.

    Args:
        path: CSV with the columns `image_id` and `decision`; commas, semicolons or tabs.

    Raises:
        InputError: the file is missing or no such table, a decision is another word, or a film has
            two.
    """
    if path is None:
        return {}
    try:
        names, rows = read_csv(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(
            f"films.view_decisions: {path} cannot be read ({reason}): correct the path or the file."
        ) from None
    if not {"image_id", "decision"} <= set(names):
        raise InputError(f"{path} lacks a column: its first line must be image_id,decision.")
    decisions: dict[str, str] = {}
    for line, cells in rows:
        values = dict(zip(names, cells, strict=False))
        image_id, decision = values.get("image_id", ""), values.get("decision", "").lower()
        if not image_id and not decision:
            continue
        where = f"{path}, line {line}"
        if decision not in DECISIONS:
            raise InputError(f"{where}: the decision must be accept or reject.")
        if not image_id:
            raise InputError(f"{where}: the image_id is missing: fill it in or remove the line.")
        if image_id in decisions:
            raise InputError(f"{where}: this image_id is there twice: keep one line of it.")
        decisions[image_id] = decision
    return decisions


def rejected_unseen(
    pseudonyms: Pseudonyms, uid: str, study_uid: str, study_day: int | None, reason: str
) -> dict[str, Any]:
    """Manifest row of an object that is known but was not asked for, not sent or not readable."""
    return dict.fromkeys(MANIFEST) | {
        "image_id": pseudonyms.image(uid),
        "study_id": pseudonyms.study(study_uid),
        "study_day": study_day,
        "status": "rejected",
        "reason": reason,
    }


def _count(dataset: Dataset, keyword: str) -> int | None:
    value = dataset.get(keyword)
    return value if isinstance(value, int) else None


def _modality(dataset: Dataset) -> str | None:
    """A modality of two letters, as all of films are; anything else may be text."""
    value = str(dataset.get("Modality", "") or "").strip()
    return value if re.fullmatch("[A-Z]{2}", value) else None


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
            f"None of {len(table)} films was accepted ({reasons}): widen the source (archive.* or "
            f"folder.* in the configuration){_DECIDE if 'view_uncertain' in counts else ''}."
        )
    write_table(path, table)
    return table
