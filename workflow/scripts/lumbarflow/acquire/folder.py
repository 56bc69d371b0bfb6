"""Films from a folder of PNG, JPEG and DICOM files or copied discs, by the rules of an archive."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ..code import digest
from ..deidentify.deidentifier import Deidentifier
from ..deidentify.engine import SOP_CLASSES, patient_key
from ..deidentify.pseudonyms import Pseudonyms
from ..errors import InputError
from ..files import read_json, remove_leftovers, write_json, write_png
from . import films as film_rules
from .days import study_days
from .films import MANIFEST, blurred, follows, rejected_unseen, take_dicom, write_manifest
from .progress import Progress
from .render import stretch
from .survey import File, find_command, name_below, survey, unreadable
from .view import fingerprint

_ASKED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "StudyDate",
    "PatientID",
    "IssuerOfPatientID",
)
_NOT_DECODED, _NO_DECODER = "pixels_not_readable", "transfer_syntax_not_readable"
_RULES = digest(film_rules.__file__, "acquire/films.py")  # the code that makes a film what it is


class _NotAFilm(InputError):
    """The sentence of a file that is no film; it does not keep others from being taken."""


class _Header(NamedTuple):
    """What a DICOM file says of itself before its picture is decoded; kept in memory only."""

    file: File
    uid: str
    sop_class: str
    study: str
    patient: str
    study_date: str

    @property
    def film(self) -> bool:
        return self.sop_class in SOP_CLASSES or not self.sop_class


class _Film(NamedTuple):
    """A film to take: a picture of a patient, or a DICOM object, which may be in several files."""

    image_id: str
    files: list[File]
    patient: str | None = None
    study: str | None = None


def import_folder(
    folder: str | Path,
    deidentifier: Deidentifier,
    images: Path,
    manifest: Path,
    view: str,
    decisions: Mapping[str, str],
    patient_pattern: str | None,
    log: logging.Logger,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """Take every film of `folder` and write the manifest.

    A film counts as here once `images/folder/{image_id}.json`, written after it, exists and fits
    its files; then it is not decoded again. A file that is no film does not keep the others from
    being taken, but there is no manifest then.

    Args:
        folder: the folder, see :func:`lumbarflow.acquire.survey.survey`.
        deidentifier: what films are de-identified with.
        images: folder for `dicom/`, `png/`, `uncertain/` and `folder/`.
        manifest: the manifest to write.
        view: what PNG and JPEG films show; `lateral` for those that are wanted.
        decisions: `accept` or `reject` by image_id, of the reader who overrules the choice.
        patient_pattern: regular expression, its first group is the patient in a picture's name.
        log: where progress is told; no names.
        threads: films that are taken at a time.

    Returns:
        The rows of the manifest; those of DICOM films that were looked at with their `audit`, see
        :func:`.films.take_dicom`.

    Raises:
        InputError: a file is not an image or cannot be read, no film is accepted, or the disk is
            full; what is here stays.
    """
    folder, pseudonyms = Path(folder), deidentifier.pseudonyms
    found = survey(folder)
    if found.passed_over:
        log.info("passed over: %s", found.others())
    films = _pictures(found.pictures, folder, pseudonyms, patient_pattern)
    for kind in ("png", "dicom", "uncertain", "folder"):
        remove_leftovers(images / kind)
    remove_leftovers(manifest.parent)
    taker = _Taker(folder, deidentifier, images, view, decisions)
    with ThreadPoolExecutor(threads) as pool:
        headers, failures = _each(pool, lambda file: _header(file, folder), found.objects)
        films += _dicom_films(headers, pseudonyms)
        here = [row for film in films if (row := taker.known(film))]
        ids = {row["image_id"] for row in here}
        new = [film for film in films if film.image_id not in ids]
        log.info("%d films, of which %d are here", len(films), len(here))
        progress = Progress(len(new), log)
        taken, not_films = _each(pool, lambda film: _counted(taker, film, progress), new)
    for sentence in (*found.warnings, *_remarks(folder, films, taken)):
        log.warning("%s", sentence)
    _raise_first([*failures, *not_films], log)
    entries = (*headers, *found.listed)
    days = study_days((entry.patient, entry.study, entry.study_date) for entry in entries)
    study = {film.image_id: film.study for film in films}
    rows = [row | {"study_day": days.get(study[row["image_id"]])} for row in (*here, *taken)]
    rows += [
        rejected_unseen(
            pseudonyms, entry.uid, entry.study, days.get(entry.study), "sop_class_not_taken"
        )
        for entry in entries
        if not entry.film
    ]
    table = write_manifest(manifest, rows)
    log.info("%d films accepted of %d", int((table["status"] == "accepted").sum()), len(table))
    return rows


def film_files(folder: str | Path) -> list[Path]:
    """The films of a folder and the folders below it, sorted.

    Raises:
        InputError: as of :func:`lumbarflow.acquire.survey.survey`.
    """
    found = survey(folder)
    return sorted(file.path for file in (*found.pictures, *found.objects))


def film_names(folder: str | Path, pseudonyms: Pseudonyms) -> dict[str, str]:
    """File name of each film by image_id: names stay out of what the workflow writes."""
    found = survey(folder)
    names = {_picture_id(file, pseudonyms): file.name for file in found.pictures}
    for file in found.objects:
        names.setdefault(pseudonyms.image(_header(file, Path(folder)).uid), file.name)
    return names


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


def picture_patient(path: Path, folder: str | Path, pattern: str | None) -> str:
    """The patient in a picture's name, or the name itself where there is no pattern.

    Raises:
        InputError: the pattern is no regular expression with a group, or does not fit the name.
    """
    name = name_below(path, folder)
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
        patient = found and found.group(1)
    except (re.error, IndexError):
        raise InputError(
            f"folder.patient_pattern: {pattern!r} is not a regular expression with a group."
        ) from None
    if not patient:
        raise InputError(
            f"folder.patient_pattern does not fit the name of {folder}/{name}: change the pattern "
            "or the name."
        )
    return patient


# Work in threads ---------------------------------------------------------------------------------


def _each(
    pool: Executor, function: Callable[[Any], Any], items: Iterable[Any]
) -> tuple[list[Any], list[_NotAFilm]]:
    """What `function` returns for each item, in order, and each `_NotAFilm` that it raises.

    Anything else that it raises, such as a full disk, ends the work: what is queued is dropped.
    """
    results, failures = [], []
    futures = [pool.submit(function, item) for item in items]
    try:
        for future in futures:
            try:
                results.append(future.result())
            except _NotAFilm as failure:
                failures.append(failure)
    finally:
        for future in futures:
            future.cancel()
    return results, failures


def _counted(taker: _Taker, film: _Film, progress: Progress) -> dict[str, Any]:
    try:
        row = taker.take(film)
    except _NotAFilm:
        progress.failed()
        raise
    progress.done()
    return row


def _raise_first(failures: list[_NotAFilm], log: logging.Logger) -> None:
    """End with the first sentence; the log has them all."""
    if len(failures) > 1:
        for failure in failures:
            log.warning("%s", failure)
        sentence = str(failures[0]).removesuffix(".")
        raise InputError(f"{sentence}; the log tells of {len(failures) - 1} more such files.")
    if failures:
        raise failures[0]


# Films -------------------------------------------------------------------------------------------


class _Taker:
    """Takes films of one folder, or takes over what an earlier run has finished."""

    def __init__(
        self,
        folder: Path,
        deidentifier: Deidentifier,
        images: Path,
        view: str,
        decisions: Mapping[str, str],
    ):
        self._folder, self._deidentifier, self._images = folder, deidentifier, images
        self._pseudonyms = deidentifier.pseudonyms
        self._view, self._decisions = view, decisions

    def take(self, film: _Film) -> dict[str, Any]:
        """Write a film and then its record; return its manifest row."""
        row = self._picture(film) if film.patient is not None else self._object(film)
        if not _undecoded(row):  # may be decoded after the next installation
            content = {"made_from": self._origin(film), "row": row, "bytes": self._bytes(row)}
            write_json(self._record(film), content)
        return row

    def known(self, film: _Film) -> dict[str, Any] | None:
        """The row of a film that is whole on disk and was made so from the same files."""
        try:
            content = read_json(self._record(film))
        except (OSError, ValueError):  # none, or not one
            return None
        row = content["row"]
        same = content["made_from"] == self._origin(film) and row.keys() >= MANIFEST.keys()
        same = same and follows(row, self._decisions)
        if not same or content["bytes"] != self._bytes(row):
            return None
        if film.patient is None and self._deidentifier.takes_notes:
            original = _dcmread(film.files[0], self._folder, stop_before_pixels=True)
            self._deidentifier.note(original, Path(film.files[0].name))
        return row

    def _record(self, film: _Film) -> Path:
        return self._images / "folder" / f"{film.image_id}.json"

    def _forget(self, film: _Film) -> None:
        """Remove a record before what it speaks of is written over."""
        self._record(film).unlink(missing_ok=True)

    def _origin(self, film: _Film) -> str:
        """A keyed digest of all that the film depends on; names must not be in the results."""
        asked = [_RULES, fingerprint(), self._deidentifier.rules]
        if film.patient is not None:
            asked += [self._view, film.patient]
        files = [[file.name, file.size, file.mtime_ns] for file in film.files]
        return self._pseudonyms.uid(json.dumps([files, asked], sort_keys=True))

    def _bytes(self, row: dict[str, Any]) -> dict[str, int]:
        """Sizes of what is on disk of a film, by kind."""
        paths = {
            kind: self._images / kind / f"{row['image_id']}.{suffix}"
            for kind, suffix in (("png", "png"), ("dicom", "dcm"), ("uncertain", "png"))
        }
        return {kind: path.stat().st_size for kind, path in paths.items() if path.exists()}

    def _object(self, film: _Film) -> dict[str, Any]:
        """Take a DICOM film from the first of its files that is whole."""
        for file in film.files:
            dataset = _read_dicom(file, self._folder)
            self._forget(film)
            try:
                self._deidentifier.note(dataset, Path(file.name))
                row = take_dicom(dataset, self._deidentifier, self._images, self._decisions, None)
            except (InputError, OSError):
                raise
            except Exception as error:  # it may quote what the file holds
                raise _broken(file, self._folder, type(error).__name__) from None
            if "PixelData" not in dataset:  # cut: what else the header said may be gone, too
                row["reason"] = _NOT_DECODED
            if not _undecoded(row):
                break
        return row

    def _picture(self, film: _Film) -> dict[str, Any]:
        file = film.files[0]
        image = _read_picture(file, self._folder)
        decision = self._decisions.get(film.image_id)
        row = dict.fromkeys(MANIFEST) | {
            "image_id": film.image_id,
            "patient_id": self._pseudonyms.patient(f"file:{film.patient}"),
            "study_id": self._pseudonyms.study(f"file:{file.name}"),
            "rows": image.shape[0],
            "columns": image.shape[1],
            "view": "lateral" if decision == "accept" else self._view,
            "view_evidence": f"reader:{decision}" if decision else None,
            "status": "rejected",
        }
        png, shown = (self._images / kind / f"{film.image_id}.png" for kind in ("png", "uncertain"))
        self._forget(film)
        if decision == "reject" or (decision is None and self._view != "lateral"):
            row["reason"] = "rejected_by_reader" if decision else "not_lateral"
        else:
            clean = self._deidentifier.picture(image)
            row["blanked_texts"] = clean.blanked
            if clean.uncertain:
                row["reason"] = "burned_in_text_uncertain"
                write_png(shown, blurred(clean.picture))
            else:
                row["status"] = "accepted"
                write_png(png, clean.picture)
        for path, kept in ((png, "accepted"), (shown, "burned_in_text_uncertain")):
            if kept not in (row["status"], row["reason"]):
                path.unlink(missing_ok=True)
        return row


def _undecoded(row: dict[str, Any]) -> bool:
    return (row["reason"] or "").startswith((_NOT_DECODED, _NO_DECODER))


def _picture_id(file: File, pseudonyms: Pseudonyms) -> str:
    return pseudonyms.image(f"file:{file.name}")


def _pictures(
    files: list[File], folder: Path, pseudonyms: Pseudonyms, pattern: str | None
) -> list[_Film]:
    """One film for each picture."""
    return [
        _Film(_picture_id(file, pseudonyms), [file], picture_patient(file.path, folder, pattern))
        for file in files
    ]


def _dicom_films(headers: Iterable[_Header], pseudonyms: Pseudonyms) -> list[_Film]:
    """One film for each object, with all files that hold it."""
    films: dict[str, _Film] = {}
    for header in headers:
        if header.film:
            film = _Film(pseudonyms.image(header.uid), [], study=header.study)
            films.setdefault(header.uid, film).files.append(header.file)
    return list(films.values())


def _remarks(folder: Path, films: list[_Film], taken: list[dict[str, Any]]) -> Iterator[str]:
    """What the user should know of a folder that can be worked with."""
    if copies := sum(len(film.files) - 1 for film in films):
        yield f"{copies} DICOM files are copies of a film that is here already: each counts once."
    if undecoded := {row["image_id"] for row in taken if _undecoded(row)}:
        file = next(film.files[0] for film in films if film.image_id in undecoded)
        yield (
            f"{len(undecoded)} DICOM films in {folder} are cut or cannot be decoded and are "
            f"rejected as {_NOT_DECODED} or {_NO_DECODER}: replace or remove them "
            f"({find_command(folder, file)} finds the first)."
        )
    if alike := _alike([film.files[0] for film in films if film.patient is not None], folder):
        yield (
            f"{sum(map(len, alike)) - len(alike)} PNG or JPEG films in {folder} have the content "
            "of another one and count as films of their own: remove the copies, or a film may be "
            f"in two subsets ({find_command(folder, alike[0][0])} finds the first)."
        )


def _alike(files: list[File], folder: Path) -> list[list[File]]:
    """Files of the same content; only those of the same size are read."""
    by_size: dict[int, list[File]] = defaultdict(list)
    for file in files:
        by_size[file.size].append(file)
    by_content: dict[bytes, list[File]] = defaultdict(list)
    for same in by_size.values():
        if len(same) > 1:
            for file in same:
                by_content[sha256(_bytes_of(file, folder)).digest()].append(file)
    return [same for same in by_content.values() if len(same) > 1]


# Reading -----------------------------------------------------------------------------------------


def _bytes_of(file: File, folder: Path) -> bytes:
    try:
        return file.path.read_bytes()
    except OSError as error:
        raise _NotAFilm(str(unreadable(folder, error, file))) from None


def _read_picture(file: File, folder: Path) -> np.ndarray:
    """Read a PNG or JPEG film as rows x columns uint8; deeper grey values are stretched."""
    data = np.frombuffer(_bytes_of(file, folder), np.uint8)
    mode = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    image = cv2.imdecode(data, mode) if data.size else None
    if image is None:
        raise _NotAFilm(f"{folder}/{file.name} is not a readable image: replace or remove it.")
    # 12 bits in 16 are usual: dividing by 256 would leave 16 grey values.
    return image if image.dtype == np.uint8 else stretch(image)


def _header(file: File, folder: Path) -> _Header:
    """Read what a DICOM file says of itself."""
    dataset = _dcmread(file, folder, stop_before_pixels=True, specific_tags=list(_ASKED))
    try:
        uid = str(dataset.get("SOPInstanceUID") or "")
        header = _Header(
            file,
            uid,
            sop_class=str(dataset.get("SOPClassUID") or ""),
            study=str(dataset.get("StudyInstanceUID") or ""),
            patient=patient_key(dataset) if dataset.get("PatientID") else "",
            study_date=str(dataset.get("StudyDate") or ""),
        )
    except Exception as error:  # values are decoded only here
        raise _broken(file, folder, type(error).__name__) from None
    if not uid:
        raise _broken(file, folder, "no identity")
    return header


def _read_dicom(file: File, folder: Path) -> FileDataset:
    """Read a DICOM film; one that is cut within its pixels may come without them."""
    # Of compressed pixels that end too early nothing at all is returned, not even the header.
    dataset = _dcmread(file, folder) or _dcmread(file, folder, stop_before_pixels=True)
    if "TransferSyntaxUID" not in dataset.file_meta:  # a file without the DICM prefix
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _dcmread(file: File, folder: Path, **how: Any) -> FileDataset:
    try:
        # The survey has looked at what the file holds: it needs no DICM prefix.
        return pydicom.dcmread(file.path, force=True, **how)
    except OSError as error:
        raise _NotAFilm(str(unreadable(folder, error, file))) from None
    except Exception as error:
        raise _broken(file, folder, type(error).__name__) from None


def _broken(file: File, folder: Path, why: str) -> _NotAFilm:
    return _NotAFilm(
        f"A file of {file.size} bytes in {folder} is not a readable DICOM film ({why}): replace or "
        f"remove it ({find_command(folder, file)} finds it)."
    )
