"""What the archives of the tests and of the retrieval benchmark hold; the same on every run."""

from __future__ import annotations

import copy
import datetime
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
)

from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.dicom import Coding, make_object
from lumbarflow.synthetic.film import Film, plan_film, simulate_film
from lumbarflow.synthetic.people import make_patient, make_study, make_uid
from lumbarflow.synthetic.spine import make_spine

SMALL = (64, 48)  # rows and columns
BIG = (2500, 1500)
_BASES = 4  # simulated films that the big ones vary
_FILMS_OF_A_STUDY = 2
_STUDIES_OF_A_PATIENT = 2


def small_film(number: int, view: str = "lateral") -> FileDataset:
    """A film of 64 x 48 pixels, 12 bits in 16: quick to send.

    Numbers that follow each other share a study, and pairs of studies a patient.
    """
    rng = np.random.default_rng([81, number])
    spine = make_spine(rng, draw_build(rng), bodies_only=True)
    plan = plan_film(rng, spine, (), SMALL, 6.25, view)
    return _object(number, Film(rng.random(SMALL, np.float32), plan), rng)


def big_film(number: int) -> FileDataset:
    """A lateral film of 2500 x 1500 pixels, 12 bits in 16, uncompressed: 7.5 MB.

    Its noise costs a compressor as much as that of the simulated film that it varies.
    """
    rng = np.random.default_rng([82, number])
    base = _base(number % _BASES)
    pixels = np.roll(base.pixels, int(rng.integers(-40, 41)), axis=1)
    pixels += np.roll(_grain(), rng.integers(0, BIG), (0, 1))
    return _object(number, replace(base, pixels=pixels.clip(0, 1)), rng)


@cache
def _base(number: int) -> Film:
    rng = np.random.default_rng([83, number])
    return simulate_film(rng, BIG, 0.16, number % 2 == 1)


@cache
def _grain() -> np.ndarray:
    return np.random.default_rng(84).integers(-3, 4, BIG).astype(np.float32) / 4095


def _object(number: int, film: Film, rng: np.random.Generator) -> FileDataset:
    """The film in a DX object of the study and the patient that its number stands for."""
    study_number = number // _FILMS_OF_A_STUDY
    patient_number, visit = divmod(study_number, _STUDIES_OF_A_PATIENT)
    patient = make_patient(np.random.default_rng([85, patient_number]), "german")
    of_study = np.random.default_rng([86, study_number])
    day = datetime.date(2015 + 3 * visit, 1, 1) + datetime.timedelta(int(of_study.integers(1000)))
    study = make_study(of_study, patient, day, False)
    uid = make_uid(rng)
    return make_object(film, patient, study, rng, sop_instance_uid=uid, coding=Coding())


# Distractors -----------------------------------------------------------------------------------


def distractors(start: int = 10_000) -> dict[str, list[Dataset]]:
    """What archives hold beside the wanted films, by what it is.

    Each kind has a study of its own, which begins with a lateral film, and patients that no
    :func:`small_film` below `start` has:

    - `ct`, `sr`: a CT and a report are in the study, the CT in a second one alone, too
    - `chest`, `knee`: films of other parts of the body; the knee's is a lateral one
    - `ap`: the AP view, in the same series
    - `for_processing`: the raw film, in the same series
    - `twice`: the very same object again
    - `second_series`: the same picture once more, as another object in another series
    - `second_study`: the very same object, listed under another study
    - `no_patient_id`: the Patient ID is empty
    """
    result = {}
    for count, kind in enumerate(_MAKERS):
        number = start + count * _FILMS_OF_A_STUDY * _STUDIES_OF_A_PATIENT
        film = small_film(number)
        result[kind] = _MAKERS[kind](film, number)
    return result


def _variant(film: FileDataset, **changes: object) -> FileDataset:
    """Another object of the film's study, in a series of its own."""
    rng = np.random.default_rng([87, *str(film.SOPInstanceUID).encode()])
    other = copy.deepcopy(film)
    changes = {"SOPInstanceUID": make_uid(rng), "SeriesInstanceUID": make_uid(rng)} | changes
    for keyword, value in changes.items():
        setattr(other, keyword, value)
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    other.file_meta.MediaStorageSOPClassUID = other.SOPClassUID
    return other


def _ct(film: FileDataset, number: int) -> list[Dataset]:
    def slice_of(other: FileDataset) -> FileDataset:
        image = _variant(other, SOPClassUID=CTImageStorage, Modality="CT")
        image.SeriesDescription = "LWS sagittal"
        for keyword in ("ViewPosition", "ViewCodeSequence", "PresentationIntentType"):
            image.pop(keyword, None)
        return image

    return [film, slice_of(film), slice_of(small_film(number + _FILMS_OF_A_STUDY))]


def _sr(film: FileDataset, number: int) -> list[Dataset]:
    report = _variant(film, SOPClassUID=BasicTextSRStorage, Modality="SR", ValueType="TEXT")
    report.TextValue = "Lateral lumbar spine."
    del report.PixelData, report.Rows, report.Columns
    return [film, report]


def _part(
    code: str, meaning: str, text: str, view: str
) -> Callable[[FileDataset, int], list[Dataset]]:
    def made(film: FileDataset, number: int) -> list[Dataset]:
        other = _variant(film, BodyPartExamined=code, ViewPosition=view)
        other.StudyDescription = other.SeriesDescription = text
        other.AnatomicRegionSequence[0].CodeValue, region = meaning.split(" ", 1)
        other.AnatomicRegionSequence[0].CodeMeaning = region
        if view != "LL":
            other.ViewCodeSequence = small_film(number, "AP").ViewCodeSequence
            other.PatientOrientation = ["L", "F"]
        return [other]

    return made


def _ap(film: FileDataset, number: int) -> list[Dataset]:
    frontal = small_film(number + 1, "AP")
    frontal.SeriesInstanceUID = film.SeriesInstanceUID
    return [film, frontal]


def _for_processing(film: FileDataset, number: int) -> list[Dataset]:
    raw = _variant(
        film,
        SOPClassUID=DigitalXRayImageStorageForProcessing,
        PresentationIntentType="FOR PROCESSING",
        SeriesInstanceUID=film.SeriesInstanceUID,
    )
    return [film, raw]


def _second_study(film: FileDataset, number: int) -> list[Dataset]:
    rng = np.random.default_rng([88, number])
    again = _variant(film, SOPInstanceUID=film.SOPInstanceUID, StudyInstanceUID=make_uid(rng))
    return [film, again]


def _no_patient_id(film: FileDataset, number: int) -> list[Dataset]:
    film.PatientID = ""
    return [film]


_MAKERS = {
    "ct": _ct,
    "sr": _sr,
    "chest": _part("CHEST", "51185008 Chest", "Thorax p.a.", "PA"),
    "knee": _part("KNEE", "72696002 Knee", "Knie seitlich", "LL"),
    "ap": _ap,
    "for_processing": _for_processing,
    "twice": lambda film, number: [film, film],
    "second_series": lambda film, number: [film, _variant(film)],
    "second_study": _second_study,
    "no_patient_id": _no_patient_id,
}


def samples() -> list[Path]:
    """Real objects, by the environment variable LUMBARFLOW_DATA; none where they are absent."""
    data = os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[3] / "shared" / "data")
    return sorted(path for path in (Path(data) / "dicom_samples").rglob("*") if path.is_file())


def uids(objects: Iterable[Dataset | Path]) -> set[str]:
    """The SOP Instance UIDs of data sets or files."""
    return {str(header(item).SOPInstanceUID) for item in objects}


def header(item: Dataset | Path) -> Dataset:
    """A data set, or a file's without its pixels."""
    return dcmread(item, stop_before_pixels=True) if isinstance(item, Path) else item
