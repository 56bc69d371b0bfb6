"""Films from a folder of PNG, JPEG and DICOM files, with the same rules as from an archive."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError

from ..errors import InputError
from ..files import write_png
from .films import MANIFEST, take_dicom, write_manifest
from .pseudonyms import Pseudonyms
from .render import stretch

_PICTURES = {".png", ".jpg", ".jpeg"}
_DICOM = {".dcm", ".dicom", ""}


def film_files(folder: str | Path) -> list[Path]:
    """The films of a folder and the folders below it, sorted; hidden files are passed over.

    Raises:
        InputError: the folder is missing or holds no film.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The folder {folder} does not exist: check folder.path.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix.lower() in _PICTURES | _DICOM
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise InputError(
            f"The folder {folder} holds no PNG, JPEG or DICOM film: check folder.path."
        )
    return files


def import_folder(
    folder: str | Path,
    pseudonyms: Pseudonyms,
    images: Path,
    manifest: Path,
    view: str,
    views: list[str],
    patient_pattern: str | None,
    log: logging.Logger,
) -> None:
    """Take every film of `folder` and write the manifest.

    Args:
        folder: the folder.
        pseudonyms: the keyed mapping.
        images: folder for `dicom/` and `png/`.
        manifest: the manifest to write.
        view: what PNG and JPEG films show.
        views: values of View Position that count as lateral.
        patient_pattern: regular expression, its first group is the patient in a picture's name.
        log: where progress is told.

    Raises:
        InputError: a file is not an image, no film is accepted, or the disk is full.
    """
    files = film_files(folder)
    rows = []
    for number, path in enumerate(files, start=1):
        if path.suffix.lower() in _PICTURES:
            patient = picture_patient(path, folder, patient_pattern)
            rows.append(_take_picture(path, folder, pseudonyms, images, view, views, patient))
        else:
            rows.append(take_dicom(_read_dicom(path), pseudonyms, images, views, None))
        if number % 20 == 0 or number == len(files):
            log.info("film %d of %d", number, len(files))
    table = write_manifest(manifest, rows)
    log.info("%d films accepted of %d", int((table["status"] == "accepted").sum()), len(table))


def film_names(folder: str | Path, pseudonyms: Pseudonyms) -> dict[str, str]:
    """File name of each film by image_id: names stay out of what the workflow writes."""
    names = {}
    for path in film_files(folder):
        if path.suffix.lower() in _PICTURES:
            image_id = _picture_id(path, folder, pseudonyms)
        else:
            image_id = pseudonyms.image(str(_read_dicom(path, pixels=False).SOPInstanceUID))
        names[image_id] = path.relative_to(folder).as_posix()
    return names


def picture_patient(path: Path, folder: str | Path, pattern: str | None) -> str:
    """The patient in a picture's name, or the name itself where there is no pattern.

    Raises:
        InputError: the pattern is no regular expression with a group, or does not fit the name.
    """
    name = path.relative_to(folder).as_posix()
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
        return (found and found.group(1)) or _no_patient(path)
    except (re.error, IndexError):
        raise InputError(
            f"folder.patient_pattern: {pattern!r} is not a regular expression with a group."
        ) from None


def _no_patient(path: Path) -> str:
    raise InputError(
        f"folder.patient_pattern does not fit the name of {path}: change the pattern or the name."
    )


def _picture_id(path: Path, folder: str | Path, pseudonyms: Pseudonyms) -> str:
    return pseudonyms.image(f"file:{path.relative_to(folder).as_posix()}")


def _take_picture(
    path: Path,
    folder: str | Path,
    pseudonyms: Pseudonyms,
    images: Path,
    view: str,
    views: list[str],
    patient: str,
) -> dict[str, Any]:
    image = _read_picture(path)
    image_id = _picture_id(path, folder, pseudonyms)
    row = dict.fromkeys(MANIFEST) | {
        "image_id": image_id,
        "patient_id": pseudonyms.patient(f"file:{patient}"),
        "study_id": pseudonyms.study(f"file:{path.relative_to(folder).as_posix()}"),
        "rows": image.shape[0],
        "columns": image.shape[1],
        "view": view,
        "status": "rejected",
    }
    if view.upper() not in {value.upper() for value in views}:
        return row | {"reason": "not_lateral"}
    write_png(images / "png" / f"{image_id}.png", image)
    return row | {"status": "accepted"}


def _read_picture(path: Path) -> np.ndarray:
    """Read a PNG or JPEG film as rows x columns uint8; deeper grey values are stretched."""
    data = np.fromfile(path, np.uint8)
    mode = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    image = cv2.imdecode(data, mode) if data.size else None
    if image is None:
        raise InputError(f"{path} is not a readable image: replace or remove it.")
    # 12 bits in 16 are usual: dividing by 256 would leave 16 grey values.
    return image if image.dtype == np.uint8 else stretch(image)


def _read_dicom(path: Path, pixels: bool = True) -> pydicom.FileDataset:
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
    except (InvalidDicomError, EOFError, OSError):
        raise InputError(f"{path} is not a readable DICOM file: replace or remove it.") from None
    if "SOPInstanceUID" not in dataset:
        raise InputError(f"{path} is a DICOM file without an image: remove it.")
    return dataset


def with_file_names(
    manifest: pd.DataFrame, folder: str | Path | None, pseudonyms: Pseudonyms
) -> pd.DataFrame:
    """The manifest with the column file_name: of the folder's films, or `{image_id}.png`.

    The names are in this table only, not in any file: annotators and split files use them.
    """
    if folder is None:
        return manifest.assign(file_name=manifest["image_id"] + ".png")
    names = film_names(folder, pseudonyms)
    fallback = manifest["image_id"] + ".png"
    return manifest.assign(file_name=manifest["image_id"].map(names).fillna(fallback))
