"""A corpus of CR and DX objects with identifying values planted in many places, and its key.

Every object is a film that the workflow takes (a lateral one of the lumbar spine) with a realistic
header, to which some of the kinds of place below add values that identify. The answer key of an
object lists what has to be done, by the action types of the MIDI validation (Medical Imaging
De-Identification, Rutherford et al., Sci Data 8:183, 2021), and every planted value as a secret.
All people, hospitals and numbers are invented; names are made of odd syllables, so that a search of
bytes finds them and nothing else.
"""

from __future__ import annotations

import datetime
import io
import itertools
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom import dcmwrite
from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lumbarflow.synthetic.film import simulate_film

TYPES = (
    "tag retained",
    "text not null",
    "text retained",
    "text removed",
    "date shifted",
    "UID changed",
    "pixels hidden",
    "pixels retained",
    "UID consistent",
    "patient ID consistent",
)
BURNED_IN = "text in the pixels"
FILE_NAMES = "names of files and folders"
SHORTEST = 7  # bytes of a secret: shorter ones stand in pixels by chance
_LITTLE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_NATIVE = (*_LITTLE, ExplicitVRBigEndian)


@dataclass(frozen=True)
class Action:
    """What has to be done at one place.

    Attributes:
        kind: one of :data:`TYPES`.
        where: keywords or tags from the data set down, each sequence with all of its items; the
            first may be `file_meta`. Empty for the whole object.
        expected: the value that has to stay, to go or to be changed; of `text removed`, None where
            nothing may be left there. Of `pixels hidden` the number of the word.
        optional: whether a changed value may also be absent.
    """

    kind: str
    where: tuple[str | int, ...] = ()
    expected: Any = None
    optional: bool = False


@dataclass(frozen=True)
class Secret:
    """A planted value: `encoded` are its bytes, as they stand in the object or in other forms."""

    place: str
    text: str
    encoded: tuple[bytes, ...] = ()


@dataclass
class Planted:
    """An object as a file, with its answer key.

    Attributes:
        name: path of the file below the folder; it identifies, too.
        data: the bytes of the file.
        patient: number of the patient.
        uid: SOP Instance UID.
        actions: the answer key.
        secrets: every planted value.
        pixels: stored values (rows x columns), without what is hidden beside them.
        tolerance: how far values may be off, where the file is lossy.
        words: masks (bool, rows x columns) of words drawn into the pixels.
    """

    name: str
    data: bytes
    patient: int
    uid: str
    actions: list[Action]
    secrets: list[Secret]
    pixels: np.ndarray
    tolerance: int = 0
    words: list[np.ndarray] = field(default_factory=list)

    @property
    def places(self) -> set[str]:
        return {secret.place for secret in self.secrets}


# People ----------------------------------------------------------------------------------------

_FIRST = (
    "Brun", "Drav", "Flen", "Gorv", "Hulb", "Jarm", "Kelv", "Mork", "Norv", "Quil", "Skru",
    "Stav", "Tulm", "Vex", "Wolv", "Yarm", "Zelv", "Blar", "Crov", "Dwel", "Frim", "Glum",
    "Hask", "Jolv", "Krem", "Lunt", "Melk", "Prul", "Risk", "Smel", "Thro", "Vlim", "Wurn",
    "Zorb",
)  # fmt: skip
_SECOND = (
    "abran", "echol", "idorf", "omert", "uldig", "avost", "enfri", "iskol", "otterb", "umbra",
    "agnul", "ebrok", "ilvan", "ossel", "urtan", "awend", "emmar", "ixel", "obrin", "uspel",
)  # fmt: skip
_LAST = (
    "dtke", "feld", "glow", "hurst", "jevic", "kamp", "lette", "mark", "nitz", "quist",
    "rode", "stedt", "thorp", "vang", "wexler", "bryk", "cham", "dorff", "gard", "klev",
    "linde", "mose", "plog", "sund",
)  # fmt: skip
_COMBINATIONS = [a + b + c for a, b, c in itertools.product(_FIRST, _SECOND, _LAST)]
_SHORT = [a + b for a, b in itertools.product(_FIRST, _LAST)]  # code strings can hold them
# Letters that Annex E does not care about and code strings cannot hold.
_ACCENTED = (("ü", "ö"), ("ö", "ä"), ("ä", "ü"), ("ø", "å"))
# Specific Character Set and names; groups of a name: alphabetic, ideographic, phonetic.
_SCRIPTS: tuple[tuple[str | list[str], str], ...] = (
    ("ISO_IR 101", "Wąchoczeńska^Świętosława"),
    ("ISO_IR 144", "Люксембургова^Ярополкина"),
    ("ISO_IR 126", "Διονυσοπουλοσ^Πολυχρονησ"),
    ("ISO_IR 127", "قبانيشرق^لنزارمنير"),
    ("ISO_IR 138", "שרונסקיה^דבורהלאה"),
    ("ISO_IR 166", "สุวรรณภูมิ^ปิยะพงษ์ชัย"),
    ("ISO_IR 192", "Ćwierkała^Źdźbłomiła=夏侯惇元讓^司馬懿仲達=ꙮлексѣй^ѭславина"),
    (
        ["", "ISO 2022 IR 87"],
        "Yamashirogo^Kogorotaro=山城守殿^古五郎丸=やましろのかみ^こごろうまる",
    ),
    (
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        "ﾂﾁﾐｶﾄﾞﾔﾏ^ｷﾖﾏｻﾋｺ=土御門山^清正彦郎=つちみかどやま^きよまさひこ",
    ),
    (["", "ISO 2022 IR 149"], "Hwangboseon^Seonwoobin=皇甫善宇^先祐彬洙=황보선우^선우빈수"),
    ("GB18030", "Ouyangzhao^Zhaoxingde=欧阳昭德^昭星德华"),
)


@dataclass(frozen=True)
class _Patient:
    number: int
    charset: str | list[str] | None
    name: str  # DICOM PN
    patient_id: str
    birth_date: str
    sex: str

    @property
    def family(self) -> str:
        return self.name.split("=")[0].split("^")[0]

    @property
    def encodings(self) -> list[str]:
        return convert_encodings(self.charset or "ISO_IR 6")


class _Odd:
    """Names and numbers that are given out once."""

    def __init__(self, rng: np.random.Generator):
        self._names = iter(rng.permutation(_COMBINATIONS).tolist())
        self._short = iter(rng.permutation(_SHORT).tolist())
        self._numbers = itertools.count(int(rng.integers(10**9, 2 * 10**9)), 7919)

    def name(self) -> str:
        return next(self._names)

    def short(self) -> str:
        """A name of 7 to 10 letters."""
        return next(self._short)

    def number(self) -> str:
        """Ten digits."""
        return str(next(self._numbers))


def _patients(count: int, odd: _Odd, rng: np.random.Generator) -> list[_Patient]:
    found = []
    for number in range(count):
        name, charset = f"{odd.short()}^{odd.name()}", None
        if number % 2:  # every second one writes in another script
            charset, name = _SCRIPTS[number // 2 % len(_SCRIPTS)]
            if number // 2 >= len(_SCRIPTS):  # the next ones with a number, not to be the same
                first, *rest = name.split("=")
                name = "=".join([f"{first}^{odd.name()}", *rest])
        elif number % 4 == 0:
            charset = "ISO_IR 100" if number % 8 else "ISO_IR 192"
            first, second = _ACCENTED[number // 4 % len(_ACCENTED)]
            family, given = name.split("^")
            name = (
                f"{family[:3]}{first}{family[3:]}^{given[:3]}{second}{given[3:]}^{odd.name()}^Dr."
            )
        born = datetime.date(1926, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 10500)))
        found.append(
            _Patient(number, charset, name, f"PID-{odd.number()}", born.strftime("%Y%m%d"),
                     "MFO"[number % 7 % 3])
        )  # fmt: skip
    return found


# Objects ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Series:
    """What the objects of a series share."""

    patient: _Patient
    study: int
    number: int
    date: datetime.date
    time: str
    study_uid: str
    series_uid: str
    frame_uid: str
    accession: str
    study_id: str
    institution: str
    referring: str


class _Object:
    """An object while values are planted in it."""

    def __init__(self, index: int, series: _Series, odd: _Odd, rng: np.random.Generator):
        self.index, self.series, self.odd, self.rng = index, series, odd, rng
        self.person = series.patient
        self.actions: list[Action] = []
        self.secrets: list[Secret] = []
        self.words: list[np.ndarray] = []
        self.planted: set[tuple[str | int, ...]] = set()
        self.after_pixels = b""
        self.in_stream = b""
        self.before_data_set = b""
        self.bits_above: np.ndarray | None = None
        self.tolerance = 0
        self.ds = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)

    @property
    def syntax(self) -> str:
        return self.ds.file_meta.TransferSyntaxUID

    @property
    def plain(self) -> str:
        """An identifying name that stands elsewhere in the header and fits a code string."""
        family = self.person.family
        return family if family.isascii() and len(family) <= 10 else self.series.institution

    # Planting --------------------------------------------------------------------------------

    def item(self, *sequences: str | int) -> Dataset:
        """The first item down these sequences; made where there is none."""
        dataset: Dataset = self.ds
        for name in sequences:
            tag = tag_for_keyword(name) if isinstance(name, str) else name
            if tag not in dataset or not dataset[tag].value:
                dataset.add_new(tag, "SQ", [Dataset()])
            dataset = dataset[tag].value[0]
        return dataset

    def put(self, where: str | tuple[str | int, ...], value: Any, vr: str | None = None) -> tuple:
        """Set an element, down the sequences that `where` names (with dots)."""
        path = tuple(where.split(".")) if isinstance(where, str) else where
        *sequences, last = path
        if sequences[:1] == ["file_meta"]:
            setattr(self.ds.file_meta, last, value)
            return path
        tag = tag_for_keyword(last) if isinstance(last, str) else last
        self.item(*sequences).add_new(tag, vr or dictionary_VR(tag), value)
        return path

    def hide(
        self,
        place: str,
        where: str | tuple[str | int, ...],
        text: str,
        *secrets: str,
        vr: str | None = None,
        value: Any = None,
    ) -> None:
        """Plant a text, unless another is there; `secrets` are its parts that identify, or all.

        `value` is what is written where that is not the text itself.
        """
        path = tuple(where.split(".")) if isinstance(where, str) else where
        if path in self.planted:
            return
        self.put(path, text if value is None else value, vr)
        self.planted.add(path)
        for secret in secrets or (text,):
            self.actions.append(Action("text removed", path, secret))
            self.secret(place, secret)

    def secret(self, place: str, text: str, encoded: tuple[bytes, ...] = ()) -> None:
        if not text.isascii():
            encoded = (*encoded, encode_string(text, self.person.encodings))
        self.secrets.append(Secret(place, text, encoded))

    def bytes_secret(self, place: str, text: str, encoded: bytes) -> None:
        self.secrets.append(Secret(place, text, (encoded,)))

    def must(self, kind: str, where: str, expected: Any = None, optional: bool = False) -> None:
        self.actions.append(Action(kind, tuple(where.split(".")), expected, optional))

    def mention(self) -> tuple[str, str]:
        """A sentence with a name in its middle, and the name."""
        name = self.odd.name()
        sentences = (
            "done by J. {} after the round",
            "please send a copy to Mrs {} and the ward",
            "LWS seitlich fuer Herrn {}, bitte anrufen",
            "compared with the film that Dr. {} brought",
            "asked for by {}/orthopaedics",
            "{}: known, see letter",
        )
        return sentences[int(self.rng.integers(len(sentences)))].format(name), name

    def gossip(self, place: str, where: str | tuple[str | int, ...], **how: Any) -> None:
        """Plant a sentence about somebody."""
        text, name = self.mention()
        self.hide(place, where, text, name, **how)

    def uid(self, place: str, where: str, optional: bool = True) -> None:
        """Plant a UID with a patient's number and birth date inside."""
        value = f"1.2.276.0.9901.{self.odd.number()}.{self.person.birth_date}.{self.index}"
        self.change_uid(place, where, value, optional)

    def change_uid(self, place: str, where: str, value: str, optional: bool = False) -> None:
        path = self.put(where, value)
        self.planted.add(path)
        self.secret(place, value)
        for kind in ("UID changed", "UID consistent"):
            self.actions.append(Action(kind, path, value, optional))

    def date(self, where: str, value: str, optional: bool = True) -> None:
        self.put(where, value)
        self.must("date shifted", where, value, optional)

    def day(self, before: int = 0) -> str:
        return (self.series.date - datetime.timedelta(days=before)).strftime("%Y%m%d")


@cache
def _films(seed: int) -> list[np.ndarray]:
    """Small synthetic films of different people, float from 0 to 1, 280 to 380 rows."""
    rng = np.random.default_rng(seed)
    films = []
    for number in range(24):
        rows = int(rng.integers(280, 381))
        shape = rows, 2 * int(rows * rng.uniform(0.31, 0.38))
        film = simulate_film(rng, shape, 410 / rows, number % 4 == 3)
        films.append(film.pixels / film.pixels.max())
    return films


def _picture(rng: np.random.Generator, highest: int) -> np.ndarray:
    """One of the films at another exposure and with noise of its own; float."""
    films = _films(0)
    picture = films[int(rng.integers(len(films)))] ** rng.uniform(0.9, 1.1)
    return np.clip(picture + rng.normal(0, 0.004, picture.shape), 0, 1) * highest


def _letters(shape: tuple[int, int], text: str, origin: tuple[int, int], height: int) -> np.ndarray:
    """A text as opacity (0..1), its capitals `height` pixels high, below and right of `origin`."""
    scale = height / 21  # capitals of the Hershey fonts at scale 1 are 21 pixels high
    canvas = np.zeros(shape, np.uint8)
    line = max(round(height / 9), 1)
    cv2.putText(
        canvas, text, (origin[1] + line, origin[0] + height + line), cv2.FONT_HERSHEY_SIMPLEX,
        scale, 255, line, cv2.LINE_AA,
    )  # fmt: skip
    return canvas / 255


def _bitmap(shape: tuple[int, int], text: str) -> np.ndarray:
    """A text in capitals as a bitmap (bool)."""
    return _letters(shape, text, (4, 2), max(shape[1] // 14, 8)) > 0.5


def _make(index: int, instance: int, series: _Series, odd: _Odd, rng: np.random.Generator):
    """The object before anything unusual is planted, and its pixels."""
    o = _Object(index, series, odd, rng)
    ds, person = o.ds, series.patient
    dx = index % 3 != 1
    sop_class = DigitalXRayImageStorageForPresentation if dx else ComputedRadiographyImageStorage
    uid = f"1.2.276.0.9900.{odd.number()}.{person.birth_date}.{series.study}.{instance}"
    syntaxes = (
        ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless,
        DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian,
        JPEG2000Lossless, JPEGLSLossless, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEGBaseline8Bit,
    )  # fmt: skip
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.file_meta.TransferSyntaxUID = syntaxes[index % 13 % len(syntaxes)]
    if person.charset is not None:
        ds.SpecificCharacterSet = person.charset
    ds.SOPClassUID = sop_class
    _identify(o, uid, instance)
    _describe(o, dx)
    pixels = _depict(o, dx)
    _keep(o, dx)
    return o, pixels


def _identify(o: _Object, uid: str, instance: int) -> None:
    """What every header identifies by: patient, study, series and equipment."""
    ds, s, person = o.ds, o.series, o.series.patient
    place = "SOP instance, study and series UIDs"
    o.change_uid(place, "SOPInstanceUID", uid)
    for kind in ("UID changed", "UID consistent"):
        o.must(kind, "file_meta.MediaStorageSOPInstanceUID", uid)
    o.change_uid(place, "StudyInstanceUID", s.study_uid)
    o.change_uid(place, "SeriesInstanceUID", s.series_uid)
    ds.PatientName = person.name
    place = "patient's name" if person.name.isascii() else "patient's name in another script"
    for part in {*person.name.split("="), *person.name.replace("=", "^").split("^")}:
        if len(part.encode()) >= SHORTEST and len(encode_string(part, person.encodings)) >= 7:
            o.actions.append(Action("text removed", ("PatientName",), part))
            o.secret(place, part)
    o.hide("patient's number", "PatientID", person.patient_id)
    o.actions.append(Action("patient ID consistent", ("PatientID",), person.patient_id))
    o.hide("birth date", "PatientBirthDate", person.birth_date)
    ds.PatientSex = person.sex
    years = s.date.year - int(person.birth_date[:4])
    o.put("PatientAge", f"{years:03d}Y")
    o.must("text retained", "PatientAge", f"{min(years, 89):03d}Y")
    if years > 89:
        o.must("text removed", "PatientAge", f"{years:03d}Y")
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        o.date(keyword, o.day(), optional=False)
        o.put(keyword.replace("Date", "Time"), s.time)
        o.must("text removed", keyword.replace("Date", "Time"), s.time)
    o.actions.append(Action("text removed", (), o.day()))
    o.hide("accession number and study ID", "AccessionNumber", s.accession)
    o.hide("accession number and study ID", "StudyID", s.study_id)
    o.hide("physicians' names", "ReferringPhysicianName", s.referring, s.referring.split("^")[0])
    o.hide("institution", "InstitutionName", f"Klinikum {s.institution}", s.institution)
    ds.SeriesNumber, ds.InstanceNumber = s.number, instance
    ds.Manufacturer, ds.ManufacturerModelName = "Synthetic Radiography", "Flat Panel 43"
    ds.SoftwareVersions = ["VA12B", "SP03"]


def _describe(o: _Object, dx: bool) -> None:
    """Anatomy, view, exposure, detector and positioner."""
    ds, rng = o.ds, o.rng
    ds.Modality = "DX" if dx else "CR"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "LSPINE", "LL", ["P", "F"]
    ds.KVP, ds.ExposureTime, ds.XRayTubeCurrent = f"{rng.integers(78, 96)}", "80", "320"
    ds.Exposure = "25"
    ds.DistanceSourceToDetector, ds.DistanceSourceToPatient = "1150", "1000"
    ds.ImagerPixelSpacing = ["0.148", "0.148"]
    ds.PixelSpacing, ds.PixelSpacingCalibrationType = ["0.129", "0.129"], "GEOMETRY"
    ds.PixelSpacingCalibrationDescription = "Magnification at the spine"
    for where, code, meaning in (
        ("AnatomicRegionSequence", "122496007", "Lumbar spine"),
        ("ViewCodeSequence", "399173006", "left lateral"),
    ):
        item = o.item(where)
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", meaning
    ds.LossyImageCompression = "00"
    if not dx:
        ds.PlateType, ds.CassetteOrientation, ds.CassetteSize = "BaFBr", "PORTRAIT", "35CMX43CM"
        ds.FilterType, ds.FocalSpots = "NONE", "1.2"
        return
    ds.PresentationIntentType, ds.ImageLaterality = "FOR PRESENTATION", "U"
    ds.PositionerType, ds.DetectorType = "COLUMN", "SCINTILLATOR"
    ds.Grid = ["FIXED", "FOCUSED"]
    ds.DetectorConfiguration, ds.DetectorTemperature = "AREA", "31.5"
    ds.DetectorConditionsNominalFlag, ds.FieldOfViewShape = "YES", "RECTANGLE"
    ds.AcquisitionDeviceProcessingCode = "LSP-3"
    ds.EstimatedRadiographicMagnificationFactor = "1.15"
    ds.add_new("AcquisitionContextSequence", "SQ", [])


def _depict(o: _Object, dx: bool) -> np.ndarray:
    """Pixel description and the picture as integers."""
    ds, rng = o.ds, o.rng
    stored = (12, 14, 10, 16, 12, 8)[o.index % 6]
    if o.syntax == JPEGBaseline8Bit:
        stored = 8
    allocated = 8 if stored == 8 else 16
    picture = _picture(rng, 2**stored - 1)
    inverted = o.index % 5 == 2
    if inverted:
        picture = 2**stored - 1 - picture
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = picture.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = 0
    if dx:
        ds.PixelIntensityRelationship = "LOG"
        ds.PixelIntensityRelationshipSign = 1 if inverted else -1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
        ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
        ds.BurnedInAnnotation = "NO"
    ds.WindowCenter, ds.WindowWidth = f"{2**stored * 0.45:g}", f"{2**stored * 0.95:g}"
    return np.rint(picture).astype(f"u{allocated // 8}")


def _keep(o: _Object, dx: bool) -> None:
    """The part of the answer key that says what has to stay."""
    retained = ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "SeriesNumber",
                "InstanceNumber", "Manufacturer", "PatientOrientation", "PixelData"]  # fmt: skip
    retained += ["AcquisitionContextSequence", "DetectorType", "AnatomicRegionSequence"] * dx
    retained += ["BodyPartExamined", "ViewPosition"] * (not dx)
    for keyword in retained:
        o.must("tag retained", keyword)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
                    "Modality", "PatientName", "PatientID", "DeidentificationMethod",
                    "DeidentificationMethodCodeSequence"):  # fmt: skip
        o.must("text not null", keyword)
    for keyword in ("ImageType", "ImageLaterality", "PresentationIntentType", "RescaleType",
                    "PixelIntensityRelationship", "PresentationLUTShape") * dx:  # fmt: skip
        o.must("text not null", keyword)
    for keyword, value in (
        ("PatientIdentityRemoved", "YES"),
        ("LongitudinalTemporalInformationModified", "MODIFIED"),
        ("BurnedInAnnotation", "NO"),
    ):
        o.must("text not null", keyword, value)


def _kept_values(o: _Object) -> Iterator[Action]:
    """Values that have to stay as they are, unless something was planted in their place."""
    for where in (
        "Modality", "SOPClassUID", "PatientSex", "BodyPartExamined", "ViewPosition",
        "PatientOrientation", "Manufacturer", "ManufacturerModelName", "PixelSpacing",
        "PixelSpacingCalibrationType", "ImagerPixelSpacing", "KVP", "DetectorType",
        "DistanceSourceToDetector", "DistanceSourceToPatient", "ImageType", "SeriesNumber",
        "InstanceNumber", "PhotometricInterpretation", "BitsStored", "WindowCenter", "WindowWidth",
        "ImageLaterality", "PositionerType", "PresentationLUTShape", "RescaleSlope",
        "EstimatedRadiographicMagnificationFactor", "AnatomicRegionSequence.CodeValue",
        "ViewCodeSequence.CodeValue",
    ):  # fmt: skip
        path = tuple(where.split("."))
        *sequences, last = path
        holder = o.item(*sequences)
        if o.ds.Modality == "CR" and sequences == ["ViewCodeSequence"]:
            continue  # the CR object does not have it
        if path not in o.planted and last in holder:
            yield Action("text retained", path, holder[last].value)


# Kinds of place --------------------------------------------------------------------------------

Plant = Callable[[_Object], None]
PLACES: dict[str, Plant] = {}


def _place(name: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        PLACES[name] = plant
        return plant

    return add


def _texts(name: str, *wheres: str) -> None:
    """A kind of place of free texts: a sentence in one or two of these attributes."""

    def plant(o: _Object) -> None:
        for where in o.rng.permutation(wheres)[:2].tolist():
            o.gossip(name, where)

    PLACES[name] = plant


def _people(name: str, *wheres: str) -> None:
    """A kind of place of person names."""

    def plant(o: _Object) -> None:
        for where in o.rng.permutation(wheres)[:2].tolist():
            family, given = o.odd.name(), o.odd.name()
            o.hide(name, where, f"{family}^{given}", family, given)

    PLACES[name] = plant


def _known(name: str, *wheres: tuple[str, str]) -> None:
    """A kind of place that stays unless it holds a value that identifies the patient elsewhere.

    Each of `wheres` is an attribute and a text around the value.
    """

    def plant(o: _Object) -> None:
        where, text = wheres[int(o.rng.integers(len(wheres)))]
        plain = o.plain
        values = {
            "family": plain,
            "number": o.person.patient_id,
            "physician": o.series.referring.split("^")[0],
            "institution": o.series.institution,
            "capitals": plain.upper(),
        }
        o.hide(name, where, text.format(**values))

    PLACES[name] = plant


_people("other names of the patient", "OtherPatientNames", "PatientBirthName",
        "PatientMotherBirthName")  # fmt: skip
_people("physicians' names", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy",
        "ConsultingPhysicianName", "RequestingPhysician")  # fmt: skip
_people("operators' names", "OperatorsName", "PerformingPhysicianName")
_people("responsible person", "ResponsiblePerson", "ReviewerName", "VerifyingObserverName",
        "HumanPerformerName")  # fmt: skip
_texts("patient's address", "PatientAddress", "PatientTelecomInformation",
       "PatientInstitutionResidence")  # fmt: skip
_texts("patient's state and history", "AdditionalPatientHistory", "MedicalAlerts", "Allergies",
       "SpecialNeeds", "PatientState")  # fmt: skip
_texts("patient comments", "PatientComments")
_texts("study and procedure comments", "StudyComments", "RequestedProcedureComments",
       "CommentsOnThePerformedProcedureStep", "ImagingServiceRequestComments")  # fmt: skip
_texts("study, series and protocol descriptions", "StudyDescription", "SeriesDescription",
       "ProtocolName", "PerformedProcedureStepDescription")  # fmt: skip
_texts("diagnoses and reasons", "AdmittingDiagnosesDescription", "ReasonForStudy",
       "ReasonForTheRequestedProcedure", "InterpretationText")  # fmt: skip
_texts("image comments", "ImageComments")
_texts("acquisition and derivation texts", "AcquisitionComments", "DerivationDescription",
       "AcquisitionProtocolDescription")  # fmt: skip
_texts("processing description", "AcquisitionDeviceProcessingDescription")
_texts("long texts of the equipment, not in Annex E", "DetectorDescription", "DetectorMode",
       "ExposureControlModeDescription", "GridAbsorbingMaterial")  # fmt: skip
_texts("addresses and departments", "InstitutionAddress", "InstitutionalDepartmentName",
       "RequestingService", "CurrentPatientLocation")  # fmt: skip
_texts("clinical trial", "ClinicalTrialSponsorName", "ClinicalTrialSiteName",
       "ClinicalTrialSubjectReadingID")  # fmt: skip
_texts("visit", "VisitComments", "RouteOfAdmissions", "DischargeDiagnosisDescription",
       "PatientTransportArrangements")  # fmt: skip
_texts("links", "RetrieveURL", "PixelDataProviderURL")
_texts("group of presentation states and reports", "ContentDescription", "ContentLabel",
       "UnformattedTextValue")  # fmt: skip

_known("model and maker with a name inside",
       ("ManufacturerModelName", "Flat Panel of {family}"),
       ("Manufacturer", "Radiography for {institution}"),
       ("DetectorManufacturerName", "made for {family}"),
       ("DetectorManufacturerModelName", "DET {number}"))  # fmt: skip
_known("codes of the equipment with a name inside",
       ("AcquisitionDeviceProcessingCode", "{number}"),
       ("PhosphorType", "{physician} mix"),
       ("PlateType", "{capitals}"),
       ("FilterType", "{capitals}"))  # fmt: skip
_known("body part with a name inside", ("BodyPartExamined", "{capitals}SPINE"))
_known("explanations of tables and windows",
       ("WindowCenterWidthExplanation", "as {family} wants it"),
       ("PixelSpacingCalibrationDescription", "ruler beside {family}"),
       ("RescaleType", "{capitals}"))  # fmt: skip
_known("code value with a number inside",
       ("ViewCodeSequence.ViewModifierCodeSequence.CodeValue", "{capitals}"),
       ("AnatomicRegionSequence.AnatomicRegionModifierSequence.CodeValue", "{capitals}"),
)  # fmt: skip


@_place("other numbers of the patient")
def _(o: _Object) -> None:
    name = "other numbers of the patient"
    o.hide(name, "OtherPatientIDs", o.odd.number(), vr="LO")
    o.hide(name, "OtherPatientIDsSequence.PatientID", o.odd.number())
    o.hide(name, "OtherPatientIDsSequence.IssuerOfPatientID", o.odd.name())
    o.put("OtherPatientIDsSequence.TypeOfPatientID", "TEXT")
    o.hide(name, "MedicalRecordLocator", o.odd.number())


@_place("telephone numbers")
def _(o: _Object) -> None:
    o.hide("telephone numbers", "PatientTelephoneNumbers", f"+990-{o.odd.number()}")
    o.hide("telephone numbers", "ReferringPhysicianTelephoneNumbers", f"+991 {o.odd.number()}")


@_place("characteristics of the patient")
def _(o: _Object) -> None:
    name = "characteristics of the patient"
    o.hide(name, "EthnicGroup", o.odd.name())
    o.hide(name, "Occupation", o.odd.name())
    o.hide(name, "PatientReligiousPreference", o.odd.name())
    o.hide(name, "MilitaryRank", o.odd.name())
    o.hide(name, "PatientInsurancePlanCodeSequence.CodeMeaning", o.odd.name())
    o.put("PatientInsurancePlanCodeSequence.CodeValue", "1")
    o.put("PatientInsurancePlanCodeSequence.CodingSchemeDesignator", "99LOCAL")
    for keyword, value in (("PatientWeight", "83.7"), ("PatientSize", "1.731")):
        o.put(keyword, value)
        o.must("text removed", keyword)


@_place("birth time and baptism")
def _(o: _Object) -> None:
    o.put("PatientBirthTime", "031542.5")
    o.must("text removed", "PatientBirthTime")
    o.put("LastMenstrualDate", o.day(19))
    o.must("text removed", "LastMenstrualDate")
    o.hide("birth time and baptism", "PatientBirthDateInAlternativeCalendar", o.odd.name())


@_place("dates in texts")
def _(o: _Object) -> None:
    name = "dates in texts"
    born = datetime.datetime.strptime(o.person.birth_date, "%Y%m%d")
    for where, form in (
        ("ImageComments", "%d.%m.%Y"),
        ("AcquisitionDeviceProcessingDescription", "%Y-%m-%d"),
        ("DetectorDescription", "%d %b %Y"),
    ):
        text = born.strftime(form)
        o.hide(name, where, f"born {text}, second film", text)


@_place("dates and times of the equipment and the series")
def _(o: _Object) -> None:
    name = "dates and times of the equipment and the series"
    o.date("DateOfLastCalibration", o.day(int(o.rng.integers(2000, 2400))))
    o.date("InstanceCreationDate", o.day())
    o.date("PerformedProcedureStepStartDate", o.day())
    o.date("AcquisitionDateTime", f"{o.day()}{o.series.time}.250000")
    stamp = f"{o.day()}{o.series.time}.250000"
    o.actions.append(Action("text removed", ("AcquisitionDateTime",), stamp))
    o.secret(name, stamp)
    o.hide(name, "TimezoneOffsetFromUTC", "+0545")
    o.secrets.pop()  # too short to be searched for


@_place("station, serial numbers, plate and cassette")
def _(o: _Object) -> None:
    name = "station, serial numbers, plate and cassette"
    o.hide(name, "StationName", f"XR{o.odd.number()}")
    o.hide(name, "DeviceSerialNumber", f"SN{o.odd.number()}")
    for keyword in ("DetectorID", "PlateID", "CassetteID", "GantryID"):
        o.hide(name, keyword, o.odd.number())


@_place("application entities")
def _(o: _Object) -> None:
    name = "application entities"
    o.hide(name, "RetrieveAETitle", f"A{o.odd.number()}")
    o.hide(name, "PerformedStationAETitle", f"B{o.odd.number()}")
    o.hide(name, "ScheduledProcedureStepSequence.ScheduledStationAETitle", f"C{o.odd.number()}")


@_place("admission and order numbers")
def _(o: _Object) -> None:
    name = "admission and order numbers"
    for keyword in ("AdmissionID", "PlacerOrderNumberImagingServiceRequest",
                    "FillerOrderNumberImagingServiceRequest", "PerformedProcedureStepID",
                    "ServiceEpisodeID"):  # fmt: skip
        o.hide(name, keyword, o.odd.number())


@_place("request attributes")
def _(o: _Object) -> None:
    name, under = "request attributes", "RequestAttributesSequence."
    o.gossip(name, f"{under}RequestedProcedureDescription")
    o.hide(name, f"{under}RequestedProcedureID", o.odd.number())
    o.hide(name, f"{under}ScheduledProcedureStepID", o.odd.number())
    o.hide(name, f"{under}AccessionNumber", o.odd.number())
    o.gossip(name, f"{under}ReasonForTheRequestedProcedure")
    code = f"{under}ScheduledProtocolCodeSequence."
    o.hide(name, f"{code}CodeMeaning", o.odd.name())
    o.put(f"{code}CodeValue", "LWS2")
    o.put(f"{code}CodingSchemeDesignator", "99LOCAL")


@_place("local codes of procedures")
def _(o: _Object) -> None:
    name = "local codes of procedures"
    for sequence in ("ProcedureCodeSequence", "PerformedProtocolCodeSequence",
                     "RequestedProcedureCodeSequence"):  # fmt: skip
        o.gossip(name, f"{sequence}.CodeMeaning")
        o.hide(name, f"{sequence}.CodeValue", o.odd.number())
        scheme = o.odd.name()[:13].upper()
        o.hide(name, f"{sequence}.CodingSchemeDesignator", f"99{scheme}")


@_place("meanings of standard codes")
def _(o: _Object) -> None:
    name = "meanings of standard codes"
    o.gossip(name, "ViewCodeSequence.CodeMeaning")
    o.gossip(name, "AnatomicRegionSequence.CodeMeaning")
    under = "AnatomicRegionSequence.AnatomicRegionModifierSequence."
    if (*under.split(".")[:-1], "CodeValue") not in o.planted:
        o.put(f"{under}CodeValue", "7771000")
    o.put(f"{under}CodingSchemeDesignator", "SCT")
    o.gossip(name, f"{under}CodeMeaning")


@_place("coding schemes")
def _(o: _Object) -> None:
    name, under = "coding schemes", "CodingSchemeIdentificationSequence."
    o.put(f"{under}CodingSchemeDesignator", "99LOCAL")
    o.hide(name, f"{under}CodingSchemeName", o.odd.name())
    o.hide(name, f"{under}CodingSchemeResponsibleOrganization", o.odd.name())
    o.uid(name, f"{under}CodingSchemeUID")


@_place("identification of persons")
def _(o: _Object) -> None:
    name = "identification of persons"
    for sequence in ("ReferringPhysicianIdentificationSequence", "OperatorIdentificationSequence",
                     "PhysiciansOfRecordIdentificationSequence"):  # fmt: skip
        code = f"{sequence}.PersonIdentificationCodeSequence."
        o.put(f"{code}CodeValue", "7")
        o.put(f"{code}CodingSchemeDesignator", "99LOCAL")
        o.hide(name, f"{code}CodeMeaning", o.odd.name())
        o.gossip(name, f"{sequence}.PersonAddress")
        o.hide(name, f"{sequence}.InstitutionName", o.odd.name())


@_place("institution's codes")
def _(o: _Object) -> None:
    name, under = "institution's codes", "InstitutionCodeSequence."
    o.put(f"{under}CodeValue", "K1")
    o.put(f"{under}CodingSchemeDesignator", "99LOCAL")
    o.gossip(name, f"{under}CodeMeaning")


@_place("performed procedure steps")
def _(o: _Object) -> None:
    name, under = "performed procedure steps", "ReferencedPerformedProcedureStepSequence."
    o.put(f"{under}ReferencedSOPClassUID", "1.2.840.10008.3.1.2.3.3")
    o.uid(name, f"{under}ReferencedSOPInstanceUID")
    o.hide(name, "PerformedLocation", o.odd.name())
    o.hide(name, "PerformedStationName", o.odd.name()[:16])


@_place("references to studies and patients")
def _(o: _Object) -> None:
    name = "references to studies and patients"
    for sequence, sop_class in (("ReferencedStudySequence", "1.2.840.10008.3.1.2.3.1"),
                                ("ReferencedPatientSequence", "1.2.840.10008.3.1.2.1.1"),
                                ("ReferencedVisitSequence", "1.2.840.10008.3.1.2.2.1"),
                                ):  # fmt: skip
        o.put(f"{sequence}.ReferencedSOPClassUID", sop_class)
        o.uid(name, f"{sequence}.ReferencedSOPInstanceUID")


@_place("references to images")
def _(o: _Object) -> None:
    """To the study's first picture, so that it shows whether UIDs fit together."""
    name = "references to images"
    for sequence in ("ReferencedImageSequence", "SourceImageSequence"):
        o.put(f"{sequence}.ReferencedSOPClassUID", str(o.ds.SOPClassUID))
        o.change_uid(name, f"{sequence}.ReferencedSOPInstanceUID", o.series.frame_uid + ".1", True)
        purpose = f"{sequence}.PurposeOfReferenceCodeSequence."
        o.put(f"{purpose}CodeValue", "121311")
        o.put(f"{purpose}CodingSchemeDesignator", "DCM")
        o.gossip(name, f"{purpose}CodeMeaning")


@_place("other UIDs")
def _(o: _Object) -> None:
    o.change_uid("other UIDs", "FrameOfReferenceUID", o.series.frame_uid, True)
    for keyword in ("IrradiationEventUID", "DeviceUID", "InstanceCreatorUID",
                    "SynchronizationFrameOfReferenceUID"):  # fmt: skip
        o.uid("other UIDs", keyword)


@_place("nested in a sequence that stays")
def _(o: _Object) -> None:
    """Attributes that have no business in an item of a code sequence."""
    name = "nested in a sequence that stays"
    family, given = o.odd.name(), o.odd.name()
    o.hide(name, "ViewCodeSequence.PatientName", f"{family}^{given}", family, given)
    o.hide(name, "AnatomicRegionSequence.PatientID", o.odd.number())
    o.gossip(name, "ViewCodeSequence.ImageComments")


@_place("nested deeply")
def _(o: _Object) -> None:
    name = "nested deeply"
    path = ("AnatomicRegionSequence", "AnatomicRegionModifierSequence", "EquivalentCodeSequence",
            "ContentSequence", "ReferencedImageSequence", "PurposeOfReferenceCodeSequence",
            )  # fmt: skip
    family = o.odd.name()
    o.hide(name, (*path, "PatientName"), f"{family}^X", family)
    o.gossip(name, (*path, "CodeMeaning"))
    o.gossip(name, (*path[:4], "TextValue"))


@_place("sequences that Annex E does not list")
def _(o: _Object) -> None:
    name = "sequences that Annex E does not list"
    family = o.odd.name()
    o.hide(name, "DisplayedAreaSelectionSequence.OperatorsName", f"{family}^Y", family)
    o.hide(name, "GraphicLayerSequence.GraphicLayerDescription", o.odd.name())
    o.gossip(name, "ContentSequence.ImageComments")
    o.gossip(name, "PatientOrientationCodeSequence.CodeMeaning")
    o.hide(name, "ReferencedRequestSequence.AccessionNumber", o.odd.number())


@_place("contributing equipment")
def _(o: _Object) -> None:
    name, under = "contributing equipment", "ContributingEquipmentSequence."
    o.put(f"{under}PurposeOfReferenceCodeSequence.CodeValue", "109101")
    o.put(f"{under}PurposeOfReferenceCodeSequence.CodingSchemeDesignator", "DCM")
    o.put(f"{under}PurposeOfReferenceCodeSequence.CodeMeaning", "Acquisition Equipment")
    o.put(f"{under}Manufacturer", "Synthetic Radiography")
    o.hide(name, f"{under}InstitutionName", o.odd.name())
    o.hide(name, f"{under}StationName", o.odd.name()[:16])
    o.gossip(name, f"{under}ContributionDescription")
    family = o.odd.name()
    o.hide(name, f"{under}OperatorsName", f"{family}^Z", family)


@_place("acquisition context")
def _(o: _Object) -> None:
    name, under = "acquisition context", "AcquisitionContextSequence."
    o.put(f"{under}ValueType", "TEXT")
    concept = f"{under}ConceptNameCodeSequence."
    o.put(f"{concept}CodeValue", "121106")
    o.put(f"{concept}CodingSchemeDesignator", "DCM")
    o.put(f"{concept}CodeMeaning", "Comment")
    o.gossip(name, f"{under}TextValue")
    family = o.odd.name()
    o.hide(name, f"{under}PersonName", f"{family}^V", family)


@_place("original attributes")
def _(o: _Object) -> None:
    name, under = "original attributes", "OriginalAttributesSequence."
    o.put(f"{under}ReasonForTheAttributeModification", "CORRECT")
    o.put(f"{under}AttributeModificationDateTime", f"{o.day()}120000")
    o.hide(name, f"{under}SourceOfPreviousValues", o.odd.name())
    o.hide(name, f"{under}ModifyingSystem", o.odd.name())
    family = o.odd.name()
    o.hide(name, f"{under}ModifiedAttributesSequence.PatientName", f"{family}^W", family)
    o.hide(name, f"{under}ModifiedAttributesSequence.PatientID", o.odd.number())


@_place("digital signatures")
def _(o: _Object) -> None:
    name, under = "digital signatures", "DigitalSignaturesSequence."
    signer = o.odd.name()
    o.put(f"{under}MACIDNumber", 1)
    o.put(f"{under}CertificateType", "X509_1993_SIG")
    o.put(f"{under}DigitalSignatureDateTime", f"{o.day()}120000")
    o.uid(name, f"{under}DigitalSignatureUID")
    o.hide(name, f"{under}CertificateOfSigner", signer, value=_even(f"CN={signer}"))
    o.put(f"{under}Signature", b"\1\2\3\4")


@_place("encrypted attributes")
def _(o: _Object) -> None:
    under, name = "EncryptedAttributesSequence.", o.odd.name()
    o.put(f"{under}EncryptedContentTransferSyntaxUID", ExplicitVRLittleEndian)
    content = _even(f"recipient {name}")
    o.hide("encrypted attributes", f"{under}EncryptedContent", name, value=content)


@_place("icon image")
def _(o: _Object) -> None:
    """A small picture with a name in it."""
    icon = np.full((64, 128), 90, np.uint8)
    name = o.odd.name()
    icon[_bitmap(icon.shape, name[:10])] = 255
    icon[0] = np.arange(128) + o.index % 100  # so that no two are the same
    item = o.item("IconImageSequence")
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.Rows, item.Columns = icon.shape
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit, item.PixelRepresentation = 7, 0
    data = icon.tobytes()
    if o.syntax == ExplicitVRBigEndian:
        item.add_new("PixelData", "OB", data)
    else:
        item.add_new("PixelData", "OW", data)
    o.bytes_secret("icon image", name, icon[:14].tobytes())
    o.must("text removed", "IconImageSequence.PixelData")


@_place("overlays")
def _(o: _Object) -> None:
    """A name drawn in an overlay, and texts beside it."""
    rows, columns = o.ds.Rows, o.ds.Columns
    name = o.odd.name()
    drawn = _bitmap((rows, columns), name)
    o.put((0x60000010,), rows, "US")
    o.put((0x60000011,), columns, "US")
    o.put((0x60000040,), "G", "CS")
    o.put((0x60000050,), [1, 1], "SS")
    o.put((0x60000100,), 1, "US")
    o.put((0x60000102,), 0, "US")
    data = np.packbits(drawn.ravel(), bitorder="little").tobytes()
    data += b"\0" * (len(data) % 2)
    if o.syntax == ExplicitVRBigEndian:
        data = np.frombuffer(data, "<u2").byteswap().tobytes()
    o.put((0x60003000,), data, "OW")
    used = np.flatnonzero(np.frombuffer(data, np.uint8))
    o.bytes_secret("overlays", name, data[used[0] : used[0] + 160])
    o.actions.append(Action("text removed", (0x60003000,)))


@_place("texts of overlays")
def _(o: _Object) -> None:
    name = "texts of overlays"
    o.gossip(name, (0x60020022,), vr="LO")
    o.gossip(name, (0x60024000,), vr="LT")
    o.hide(name, (0x60021500,), o.odd.name(), vr="LO")


@_place("curves")
def _(o: _Object) -> None:
    name = "curves"
    o.put((0x50000005,), 1, "US")
    o.hide(name, (0x50000022,), o.odd.name(), vr="LO")
    drawn = o.odd.name()
    o.hide(name, (0x50003000,), drawn, vr="OB", value=_even(drawn))
    o.hide(name, (0x50022500,), o.odd.name(), vr="LO")


@_place("overlay in unused bits of the pixels")
def _(o: _Object) -> None:
    if o.syntax not in _LITTLE or o.ds.BitsAllocated == o.ds.BitsStored:
        return
    shape = o.ds.Rows, o.ds.Columns
    o.bits_above = _bitmap(shape, o.odd.name())
    o.put((0x60040010,), shape[0], "US")
    o.put((0x60040011,), shape[1], "US")
    o.put((0x60040040,), "G", "CS")
    o.put((0x60040050,), [1, 1], "SS")
    o.put((0x60040100,), 16, "US")
    o.put((0x60040102,), o.ds.BitsStored, "US")
    o.actions.append(Action("text removed", (0x60040102,)))


@_place("preamble")
def _(o: _Object) -> None:
    name = o.odd.name()
    o.ds.preamble = f"II*\0 scanned by {name}".encode().ljust(128, b"\0")
    o.secret("preamble", name)
    o.actions.append(Action("text removed", ("preamble",), name))


@_place("titles in the file meta information")
def _(o: _Object) -> None:
    name = "titles in the file meta information"
    for keyword in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle",
                    "ReceivingApplicationEntityTitle"):  # fmt: skip
        o.hide(name, f"file_meta.{keyword}", f"D{o.odd.number()}")
    o.hide(name, "file_meta.ImplementationVersionName", f"E{o.odd.number()}")
    address = f"dicom://{o.odd.name().lower()}.example"
    o.hide(name, "file_meta.SourcePresentationAddress", address)


@_place("private information in the file meta information")
def _(o: _Object) -> None:
    name = "private information in the file meta information"
    o.ds.file_meta.PrivateInformationCreatorUID = f"1.2.276.0.9902.{o.odd.number()}"
    o.secret(name, o.ds.file_meta.PrivateInformationCreatorUID)
    text = o.odd.name()
    o.hide(name, "file_meta.PrivateInformation", text, value=_even(text))


@_place("private elements")
def _(o: _Object) -> None:
    name = "private elements"
    creator = f"{o.odd.name().upper()} 1.0"
    o.hide(name, (0x00190010,), creator, vr="LO")
    o.gossip(name, (0x00191001,), vr="LT")
    family = o.odd.name()
    o.hide(name, (0x00191002,), f"{family}^P", family, vr="PN")
    binary = o.odd.name()
    o.hide(name, (0x00191003,), binary, vr="OB", value=_even(f"\0{binary}"))


@_place("private elements without a creator")
def _(o: _Object) -> None:
    name = "private elements without a creator"
    o.hide(name, (0x00213305,), o.odd.name(), vr="LO")
    text = o.odd.name()
    o.hide(name, (0x00290005,), text, vr="UN", value=_even(text))


@_place("private sequences")
def _(o: _Object) -> None:
    name = "private sequences"
    o.put((0x00E10010,), "SYNTHETIC 2.0", "LO")
    family = o.odd.name()
    o.hide(name, (0x00E11001, "PatientName"), f"{family}^Q", family)
    o.gossip(name, (0x00E11001, "ContentSequence", "TextValue"))


@_place("private elements in items of standard sequences")
def _(o: _Object) -> None:
    name = "private elements in items of standard sequences"
    for sequence in ("ViewCodeSequence", "AnatomicRegionSequence"):
        o.put((sequence, 0x00090010), "SYNTHETIC 3.0", "LO")
        o.hide(name, (sequence, 0x00091001), o.odd.name(), vr="LO")


@_place("after the pixels")
def _(o: _Object) -> None:
    """Behind the last row, or behind the end of the compressed picture."""
    name = o.odd.name()
    o.after_pixels = _even(f"\0\0 {name} \0")
    o.bytes_secret("after the pixels", name, name.encode())


@_place("comments and segments in compressed pixels")
def _(o: _Object) -> None:
    if o.syntax in _NATIVE or o.syntax == RLELossless:
        return
    name = o.odd.name()
    o.in_stream = f"taken by {name}".encode()
    o.bytes_secret("comments and segments in compressed pixels", name, name.encode())


@_place("explanations inside look-up tables")
def _(o: _Object) -> None:
    if o.syntax == ExplicitVRBigEndian or "WindowCenter" not in o.ds:
        return
    name = "explanations inside look-up tables"
    plain = o.plain
    count = min(2**o.ds.BitsStored, 4096)
    item = o.item("VOILUTSequence")
    item.add_new("LUTDescriptor", "US", [count, 0, 12])
    values = np.linspace(0, 4095, count)
    item.add_new("LUTData", "OW", np.rint(values).astype("<u2").tobytes())
    o.hide(name, "VOILUTSequence.LUTExplanation", f"curve of {plain}")
    for keyword in ("WindowCenter", "WindowWidth"):
        del o.ds[keyword]


@_place("data set trailing padding")
def _(o: _Object) -> None:
    name = o.odd.name()
    o.hide("data set trailing padding", (0xFFFCFFFC,), name, vr="OB", value=_even(name))


@_place("group length that is none")
def _(o: _Object) -> None:
    """An element (0008,0000) with a text, at the start of the data set."""
    if o.syntax != ExplicitVRLittleEndian:
        return
    text = _even(o.odd.name())
    o.before_data_set = b"\x08\0\0\0LO" + struct.pack("<H", len(text)) + text
    name = text.decode().strip("\0 ")
    o.secret("group length that is none", name)
    o.actions.append(Action("text removed", (0x00080000,), name))


@_place("unknown value representation")
def _(o: _Object) -> None:
    name = "unknown value representation"
    for where in ("PatientComments", "EthnicGroup", "DetectorDescription"):
        text = o.odd.name()
        o.hide(name, where, text, vr="UN", value=_even(text))


@_place("value representation of another kind")
def _(o: _Object) -> None:
    """Texts where numbers or codes belong; in implicit VR it is the number that is no number."""
    if o.syntax == ImplicitVRLittleEndian:
        return
    name = "value representation of another kind"
    o.hide(name, "Sensitivity", o.odd.name(), vr="LO")
    o.hide(name, "ImageRotation", o.odd.name(), vr="ST")
    o.hide(name, "FilterMaterial", o.odd.name(), vr="LO")
    o.gossip(name, "AcquisitionNumber", vr="LT")


@_place("second and later values")
def _(o: _Object) -> None:
    name = "second and later values"
    plain = o.plain
    software = f"site of {plain}"
    o.hide(name, "SoftwareVersions", software, value=["VA12B", "SP03", software])
    third = f"{plain.upper()}XX"
    o.hide(name, "ImageType", third, value=["ORIGINAL", "PRIMARY", third])


@_place("names cut off to the length of a code")
def _(o: _Object) -> None:
    """A name of the header of which a short attribute holds the beginning."""
    name, family = "names cut off to the length of a code", o.odd.name()
    if ("OperatorsName",) not in o.planted:
        o.hide(name, "OperatorsName", f"{family}^N", family)
        keyword = "AcquisitionDeviceProcessingCode" if o.ds.Modality == "DX" else "PlateType"
        o.hide(name, keyword, f"{family[:9].upper()} 2", family[:9].upper())


@_place("values that are too long")
def _(o: _Object) -> None:
    name = "values that are too long"
    for where, vr in (("SeriesDescription", "LO"), ("StationName", "SH")):
        person = o.odd.name()
        o.hide(name, where, f"{'a very long story ' * 5}of {person}", person, vr=vr)
    plain = o.plain
    text = f"{'Synthetic Radiography ' * 4}for {plain}"
    o.hide(name, "Manufacturer", text, f"for {plain}")


@_place("attributes that the standard does not know")
def _(o: _Object) -> None:
    name = "attributes that the standard does not know"
    o.hide(name, (0x0018FFF2,), o.odd.name(), vr="LO")
    o.hide(name, (0x00F20010,), o.odd.name(), vr="UT")
    o.gossip(name, ("ViewCodeSequence", 0x0008FFF4), vr="ST")


@_place("body part with a name in other letters")
def _(o: _Object) -> None:
    """The name of the patient as a code string can hold it."""
    family = o.person.family
    letters = {"ü": "UE", "ö": "OE", "ä": "AE", "ø": "OE", "å": "AA"}
    if set(family) & set(letters):
        plain = "".join(letters.get(letter, letter) for letter in family).upper()
        o.hide("body part with a name in other letters", "BodyPartExamined", plain[:16])


@_place("free text in another script")
def _(o: _Object) -> None:
    """The patient's name in a text of the object's own character set."""
    name = "free text in another script"
    part = o.person.name.split("=")[-1].split("^")[0]
    if part.isascii():
        return
    for where in ("ImageComments", "StudyDescription", "DetectorMode"):
        o.hide(name, where, f"film: {part} / 2", part)


@_place("patient's name in kept text in another script")
def _(o: _Object) -> None:
    part = o.person.name.split("=")[-1].split("^")[0]
    if not part.isascii():
        name = "patient's name in kept text in another script"
        o.hide(name, "ManufacturerModelName", f"{part} 43", part)


def _even(text: str) -> bytes:
    data = text.encode("latin-1")
    return data + b"\0" * (len(data) % 2)


# Pixels ----------------------------------------------------------------------------------------


def _burn(o: _Object, pixels: np.ndarray, text: str | None) -> np.ndarray:
    """Draw a marker, or lines of text at least 14 pixels high; return the new pixels."""
    rng, highest = o.rng, 2**o.ds.BitsStored - 1
    rows, columns = pixels.shape
    values = pixels.astype(float)

    def draw(word: str, origin: tuple[int, int], height: int, *shades: float) -> np.ndarray:
        """Draw a word in the first shade that it can be read in; return where it is seen."""
        opacity = _letters(pixels.shape, word, origin, height)
        for shade in shades:
            change = (shade * highest - values) * opacity
            seen = np.abs(change) >= 0.06 * highest
            if seen.sum() >= 0.8 * (opacity >= 0.25).sum():
                break
        values[:] += change
        return seen

    if text is None:
        height = int(rng.integers(rows // 14, rows // 9))
        origin = (int(rows * 0.08), int(rng.choice([0.08, 0.8]) * columns))
        draw(str(rng.choice(["L", "R"])), origin, height, 0.95)
        return np.rint(values).astype(pixels.dtype)
    longest = max(map(len, text.split()))
    left = int((0.02, 0.1)[int(rng.integers(2))] * columns)
    # Letters are up to as wide as high.
    height = max(min(int(rng.integers(14, 27)), (columns - left) // longest), 14)
    top = int((0.02, 0.45, 0.85)[int(rng.integers(3))] * rows)
    # As the picture lies there: less contrast, or bright letters on dark and dark ones on bright.
    there = float(np.median(values[top : top + height + 8, left:])) / highest
    strong, other = (0.98, 0.02) if there < 0.5 else (0.02, 0.98)
    faint = there + 0.35 * np.sign(strong - there)
    shades = (faint, strong, other) if rng.random() < 0.3 else (strong, other)
    for number, word in enumerate(text.split()):
        line = top + number * (height + 8)
        if line + height + 6 < rows:
            o.words.append(draw(word, (line, left), height, *shades))
            o.actions.append(Action("pixels hidden", ("PixelData",), len(o.words) - 1))
    o.secrets.append(Secret(BURNED_IN, text))
    return np.rint(values).astype(pixels.dtype)


def _compressed(values: np.ndarray, stored: int, syntax: str) -> bytes:
    """One frame as gdcm compresses it."""
    import gdcm

    writer = gdcm.ImageWriter()  # it must outlive its image
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((values.shape[1], values.shape[0], 1))
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 * values.itemsize, stored, stored - 1, 0))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(values.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"gdcm cannot compress to {syntax}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    return fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")


def _with_comment(frame: bytes, text: bytes, syntax: str) -> bytes:
    """A frame with the text in a comment and in an application segment."""
    length = struct.pack(">H", len(text) + 2)
    if syntax == JPEG2000Lossless:  # COM (with its registration) after SIZ
        size = struct.unpack(">H", frame[4:6])[0]
        comment = b"\xff\x64" + struct.pack(">H", len(text) + 4) + b"\0\1" + text
        return frame[: 4 + size] + comment + frame[4 + size :]
    segments = b"\xff\xfe" + length + text
    if syntax != JPEGLSLossless:  # gdcm reads no others there
        segments += b"\xff\xec" + length + text
    return frame[:2] + segments + frame[2:]


def _store(o: _Object, pixels: np.ndarray) -> np.ndarray:
    """Set Pixel Data; return the values that have to be found there."""
    ds, syntax = o.ds, o.syntax
    stored = int(ds.BitsStored)
    written = pixels
    if o.bits_above is not None:
        written = pixels | (o.bits_above.astype(np.uint16) << stored).astype(pixels.dtype)
        rows = np.flatnonzero(o.bits_above.any(axis=1))
        row = int(rows[len(rows) // 2])
        name = "overlay in unused bits of the pixels"
        o.bytes_secret(name, f"{name} {o.index}", written[row].astype("<u2").tobytes())
    if syntax in _NATIVE:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        data = written.astype(written.dtype.newbyteorder(order)).tobytes()
        ds.add_new("PixelData", "OW" if pixels.itemsize == 2 else "OB", data)
        ds["PixelData"].value = data + b"\0" * (len(data) % 2) + o.after_pixels
        return pixels
    if syntax == RLELossless:
        ds.PixelData = pixels.tobytes()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        uid = ds.SOPInstanceUID
        ds.compress(RLELossless)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    elif syntax == JPEGBaseline8Bit:
        frame = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 97])[1].tobytes()
        pixels = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_GRAYSCALE)
        o.tolerance = 2  # decoders round differently
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod = "6", "ISO_10918_1"
    else:
        frame = _compressed(pixels, stored, syntax)
    if o.in_stream:
        frame = _with_comment(frame, o.in_stream, syntax)
    frame += o.after_pixels
    ds.add_new("PixelData", "OB", encapsulate([frame + b"\0" * (len(frame) % 2)]))
    ds["PixelData"].is_undefined_length = True
    return pixels


# The corpus ------------------------------------------------------------------------------------


def corpus(count: int = 520, seed: int = 4, kinds: int = 13) -> list[Planted]:
    """Make `count` objects, the same for the same seed.

    Every eighth has text in its pixels and every other eighth a marker of the side only. Kinds of
    place are used in turn, so many in each object, beside those that every header has.
    """
    with unvalidated():
        return list(_corpus(count, np.random.default_rng(seed), kinds))


@contextmanager
def unvalidated() -> Iterator[None]:
    """pydicom neither checks nor warns: values that are too long, and the like, are on purpose."""
    settings = pydicom.config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before


def _corpus(count: int, rng: np.random.Generator, kinds: int) -> Iterator[Planted]:
    odd = _Odd(rng)
    queue: list[str] = []
    for index, (series, instance) in enumerate(itertools.islice(_course(count, odd, rng), count)):
        o, pixels = _make(index, instance, series, odd, rng)
        chosen: list[str] = []
        while len(chosen) < kinds:
            queue = queue or rng.permutation([*PLACES]).tolist()
            chosen.append(queue.pop())
        for name in dict.fromkeys(chosen):
            PLACES[name](o)
        yield _file(o, _drawn(o, pixels))


def _course(count: int, odd: _Odd, rng: np.random.Generator) -> Iterator[tuple[_Series, int]]:
    """Series of studies of patients, and the number of each picture in its study."""
    for person in _patients(-(-count // 13), odd, rng):
        day = datetime.date(2008, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 1500)))
        for study in range(1, 4):
            institution, referring = odd.short(), f"{odd.short()}^{odd.name()}^^Dr."
            accession, study_id = f"ACC{odd.number()}", odd.number()
            root = f"1.2.276.0.9903.{odd.number()}.{day:%Y%m%d}"
            time = f"{rng.integers(7, 18):02d}{rng.integers(60):02d}{rng.integers(60):02d}"
            picture = itertools.count(1)
            for number in range(1, 3):
                series = _Series(
                    person, study, number, day, time, root, f"{root}.{number}", f"{root}.9",
                    accession, study_id, institution, referring,
                )  # fmt: skip
                for _ in range(2 + (study + number) % 2):
                    yield series, next(picture)
            day += datetime.timedelta(days=int(rng.integers(20, 700)))


def _drawn(o: _Object, pixels: np.ndarray) -> np.ndarray:
    """The pixels with what is drawn into them, and Burned In Annotation as it may come."""
    if o.syntax == JPEGBaseline8Bit or o.index % 4:
        return pixels
    if o.index % 8 == 4:
        return _burn(o, pixels, None)
    texts = (
        o.odd.name().upper(),
        f"{o.odd.name()[:9].upper()} {o.odd.number()}",
        f"{o.odd.name()[:10]} {o.person.birth_date[6:]}.{o.person.birth_date[4:6]}."
        f"{o.person.birth_date[:4]}",
        f"{o.odd.name()[:10].upper()} HOSPITAL",
    )
    flag = (None, "NO", "YES", "NO")[o.index // 8 % 4]
    o.ds.pop("BurnedInAnnotation", None)
    if flag:
        o.ds.BurnedInAnnotation = flag
    return _burn(o, pixels, texts[o.index // 8 % len(texts)])


def _file(o: _Object, pixels: np.ndarray) -> Planted:
    """The object as bytes, under a name that identifies."""
    pixels = _store(o, pixels)
    o.actions.append(Action("pixels retained", ("PixelData",)))
    o.actions += _kept_values(o)
    buffer = io.BytesIO()
    dcmwrite(buffer, o.ds, enforce_file_format=True)
    data = buffer.getvalue()
    if o.before_data_set:
        start = 144 + struct.unpack("<I", data[140:144])[0]
        data = data[:start] + o.before_data_set + data[start:]
    folder, name = o.odd.name(), o.odd.name()
    born = f"{o.person.birth_date[:4]}-{o.person.birth_date[4:6]}-{o.person.birth_date[6:]}"
    for text in (folder, name, born):
        o.secret(FILE_NAMES, text)
    return Planted(
        f"{folder} {born}/LWS/IM{o.index:04d}_{name}.dcm", data, o.person.number,
        str(o.ds.SOPInstanceUID), o.actions, o.secrets, pixels, o.tolerance, o.words,
    )  # fmt: skip
