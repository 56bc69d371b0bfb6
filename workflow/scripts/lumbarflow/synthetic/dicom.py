"""DICOM objects around synthetic films: valid, varied, and full of invented identifying data.

The attributes follow the Digital X-Ray and the Computed Radiography Image IOD (DICOM PS3.3, A.26
and A.2) with the habits of several kinds of equipment: views in View Position or only in words,
words in the language of the place or in English, magnification told or not.

Grey values are stored such that the object's own windows and look-up tables (PS3.3 C.11) turn them
back into the film: a console's picture is the same whatever way it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from .film import Film
from .people import REGIONS, Patient, Region, Study, make_uid

# Transfer syntaxes with their shares: what costs most time to compress is rarest.
_SYNTAXES = {
    ExplicitVRLittleEndian: 0.38,
    ImplicitVRLittleEndian: 0.14,
    DeflatedExplicitVRLittleEndian: 0.04,
    RLELossless: 0.08,
    JPEGLosslessSV1: 0.16,
    JPEGLSLossless: 0.1,
    JPEG2000Lossless: 0.1,
}
_COMPRESSED = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
_BITS = {10: 0.1, 12: 0.45, 14: 0.25, 15: 0.05, 16: 0.15}
_GREY = {"window": 0.5, "sigmoid": 0.15, "lut": 0.25, "none": 0.1}
# From black to white a sigmoid window spans so many units of the logistic function.
_LOGITS = 10.0
_LOGISTIC = 1 / (1 + np.exp(-_LOGITS * np.linspace(-0.5, 0.5, 1025))), np.linspace(0, 1, 1025)
_SID_MM = (1000, 1150, 1150, 1500, 1800)  # source to detector


@dataclass(frozen=True)
class Coding:
    """How an object stores its picture.

    Attributes:
        modality: `DX` or `CR`.
        syntax: transfer syntax.
        bits: stored, 10 to 16, in words of 16.
        inverted: MONOCHROME1 instead of MONOCHROME2.
        grey: how stored values become the picture: by a linear `window`, a `sigmoid` one, a `lut`,
            or `none`, as the whole range of the bits.
    """

    modality: str = "DX"
    syntax: UID = ExplicitVRLittleEndian
    bits: int = 12
    inverted: bool = False
    grey: str = "window"


@dataclass(frozen=True)
class _Console:
    """Habits of a kind of equipment."""

    modality: str
    manufacturer: str
    model: str
    view_positions: tuple[str | None, ...]  # what it writes for a lateral film
    orientation: bool  # whether it writes Patient Orientation
    english: bool  # or in the language of the place
    body_part: str
    spacing: tuple[float, ...]  # shares: none, as at the detector, calibrated Pixel Spacing


_CONSOLES = (
    _Console("DX", "Synthetic Radiography", "Flat Panel 43", ("LL",), True, False, "LSPINE",
             (0.6, 0.25, 0.15)),
    _Console("DX", "Nebelhorn Imaging", "Stativ DR-2", ("LL", "RL"), True, False, "LSPINE",
             (0.5, 0.2, 0.3)),
    _Console("DX", "Kitakaze X-Ray", "KX-Wall 3543", (None,), True, True, "LSPINE", (0.7, 0.3, 0)),
    _Console("DX", "Halyard Medical", "Bucky One", ("LATERAL",), True, True, "LSPINE",
             (0.4, 0.3, 0.3)),
    _Console("CR", "Synthetic Radiography", "Plate Reader 5", ("LL", "RL"), False, False, "LSPINE",
             (0.3, 0.7, 0)),
    _Console("CR", "Kitakaze X-Ray", "KC-Cassette", ("LATERAL", ""), True, True, "LSPINE",
             (0.6, 0.4, 0)),
    # Nobody chose a view at this one: it writes the same for every film.
    _Console("CR", "Veldhoven Plates", "Reader 12", ("AP",), False, False, "LSPINE", (0.5, 0.5, 0)),
)  # fmt: skip


def choose_coding(rng: np.random.Generator) -> Coding:
    """Draw how an object stores its picture."""
    modality = str(rng.choice(("DX", "CR"), p=(0.65, 0.35)))
    syntax, bits, grey = _draw(rng, _SYNTAXES), _draw(rng, _BITS), _draw(rng, _GREY)
    # Tables of nearly 2**16 entries are not for every reader; DX objects must have something.
    if (grey == "lut" and bits > 14) or (grey == "none" and modality == "DX"):
        grey = "window"
    return Coding(modality, syntax, bits, bool(rng.random() < 0.3), grey)


def _draw(rng: np.random.Generator, shares: dict):
    return list(shares)[rng.choice(len(shares), p=list(shares.values()))]


def make_object(
    film: Film,
    patient: Patient,
    study: Study,
    rng: np.random.Generator,
    *,
    sop_instance_uid: str,
    coding: Coding | None = None,
    text: bool = False,
) -> FileDataset:
    """Wrap a film in a DX image object for presentation or a CR one.

    Args:
        film: a film of any view.
        patient: who is on it.
        study: when and where it was taken.
        rng: draws the equipment and which optional attributes are there.
        sop_instance_uid: the object's UID.
        coding: how the picture is stored; drawn if None.
        text: whether there is text in the picture.

    Returns:
        An object ready to save.
    """
    coding = coding or choose_coding(rng)
    ds = empty_object(
        DigitalXRayImageStorageForPresentation
        if coding.modality == "DX"
        else ComputedRadiographyImageStorage,
        sop_instance_uid,
        coding.syntax,
    )
    identify(ds, patient, study, rng)
    _hide(ds, patient, study, rng)
    _describe(ds, film, REGIONS[patient.region], coding.modality, rng)
    _store_pixels(ds, film.pixels, coding, rng)
    if coding.modality == "DX" or rng.random() < 0.6:  # type 3 in CR: the others do not tell
        ds.BurnedInAnnotation = "YES" if text else "NO"
    return ds


def empty_object(sop_class: UID, sop_instance_uid: str, syntax: UID) -> FileDataset:
    """An object of a class with its file meta information and nothing else."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = syntax
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = UID(sop_instance_uid)
    return ds


def identify(ds: Dataset, patient: Patient, study: Study, rng: np.random.Generator) -> None:
    """Write the patient and study modules, in a character set of the patient's region."""
    charsets = REGIONS[patient.region].charsets
    charset = charsets[rng.integers(len(charsets))].split("\\")
    if charset != [""]:
        ds.SpecificCharacterSet = charset if len(charset) > 1 else charset[0]
    ds.PatientName = patient.name
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = patient.birth_date
    ds.PatientSex = patient.sex
    ds.PatientAge = f"{(int(study.date) - int(patient.birth_date)) // 10000:03d}Y"
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = patient.other_id, "TEXT"
    other.IssuerOfPatientID = "99INSURANCE"
    ds.OtherPatientIDsSequence = Sequence([other])
    ds.PatientAddress = patient.address
    ds.PatientTelephoneNumbers = patient.telephone
    ds.StudyInstanceUID = UID(study.uid)
    ds.StudyID = str(rng.integers(1, 9999))
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = study.date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = study.time
    ds.AccessionNumber = study.accession_number
    ds.StudyDescription = study.description
    ds.ReferringPhysicianName = study.referring_physician
    ds.OperatorsName = study.operator
    ds.InstitutionName = study.institution
    ds.InstitutionAddress = study.institution_address
    ds.SeriesInstanceUID = UID(make_uid(rng))


def _hide(ds: Dataset, patient: Patient, study: Study, rng: np.random.Generator) -> None:
    """The places where names are written besides."""
    family = patient.name.split("^")[0]
    if rng.random() < 0.3:
        ds.PatientComments = f"Known to the ward as {family}, call {patient.telephone}"
    if rng.random() < 0.3:
        request = Dataset()
        request.AccessionNumber = study.accession_number
        request.RequestedProcedureDescription = f"Lumbar spine for {family}"
        request.RequestedProcedureID = study.accession_number
        request.ScheduledProcedureStepID = "1"
        ds.RequestAttributesSequence = Sequence([request])
    block = ds.private_block(0x0019, "SYNTHETIC CONSOLE 1.0", create=True)
    block.add_new(0x01, "LO", patient.name.split("=")[0].replace("^", " "))
    block.add_new(0x02, "LO", patient.patient_id)
    nested = Dataset()
    nested.PatientName = patient.name
    block.add_new(0x03, "SQ", Sequence([nested]))


def _describe(
    ds: Dataset, film: Film, region: Region, modality: str, rng: np.random.Generator
) -> None:
    """Series, equipment, anatomy, positioning, exposure and size of a pixel."""
    plan = film.plan
    lateral = plan.view == "lateral"
    consoles = [console for console in _CONSOLES if console.modality == modality]
    console = consoles[rng.integers(len(consoles))]
    words = REGIONS["english"] if console.english else region
    texts = words.lateral if lateral else words.frontal
    ds.Modality = modality
    ds.SeriesNumber = 1 if lateral else 2
    ds.SeriesDescription = texts[rng.integers(len(texts))]
    ds.InstanceNumber = 1
    ds.Manufacturer, ds.ManufacturerModelName = console.manufacturer, console.model
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.BodyPartExamined = console.body_part
    position = console.view_positions[rng.integers(len(console.view_positions))]
    if not lateral:
        position = "AP"
    if position is not None:
        ds.ViewPosition = position
    if console.orientation:
        side = {"left": "P", "right": "A"}[plan.anterior] if lateral else "L"
        ds.PatientOrientation = [side, "F"]
    else:
        ds.PatientOrientation = None
    _expose(ds, plan.kvp, modality, rng)
    if modality == "DX":
        ds.PresentationIntentType = "FOR PRESENTATION"
        ds.AnatomicRegionSequence = _code("122496007", "Lumbar spine")
        ds.ImageLaterality = "U"
        right = position == "RL"
        ds.ViewCodeSequence = (
            _code("399348003", "antero-posterior")
            if not lateral
            else _code("399198007", "right lateral")
            if right
            else _code("399173006", "left lateral")
        )
        ds.PositionerType = "NONE"
        ds.DetectorType = "SCINTILLATOR"
        ds.AcquisitionContextSequence = Sequence([])
    else:
        ds.PlateID = f"P{rng.integers(10**5, 10**6)}"
        ds.Sensitivity = f"{rng.integers(180, 900)}"
    _measure(ds, plan.pixel_spacing_mm, plan.magnification, console, rng)


def _expose(ds: Dataset, kvp: float, modality: str, rng: np.random.Generator) -> None:
    """Technique factors that fit together."""
    milliseconds, milliamperes = int(rng.integers(40, 400)), int(rng.choice((160, 200, 250, 320)))
    ds.KVP = f"{kvp:.4g}"
    ds.ExposureTime = milliseconds
    ds.XRayTubeCurrent = milliamperes
    ds.Exposure = round(milliseconds * milliamperes / 1000)
    if modality == "DX" and rng.random() < 0.7:
        ds.Grid = ["FIXED", "FOCUSED"]
        ds.ExposureIndex = f"{rng.integers(180, 900)}"
        ds.FocalSpots = f"{rng.choice((0.6, 1.2))}"


def _measure(
    ds: Dataset,
    spacing_mm: float,
    magnification: float,
    console: _Console,
    rng: np.random.Generator,
) -> None:
    """What tells the size of a pixel, at the detector and in the patient (PS3.3 10.7)."""
    spacing = f"{spacing_mm:.6g}"
    ds.ImagerPixelSpacing = [spacing, spacing]
    sid = int(rng.choice(_SID_MM))
    told = rng.random() < 0.9  # of the others, nobody can tell the size in the patient
    if told:
        ds.DistanceSourceToDetector = sid
        ds.DistanceSourceToPatient = f"{sid / magnification:.7g}"
        if console.modality == "DX":
            ds.EstimatedRadiographicMagnificationFactor = f"{magnification:.6g}"
    kind = rng.choice(3, p=console.spacing)
    if kind == 1:  # uncalibrated: the same values
        ds.PixelSpacing = [spacing, spacing]
    elif kind == 2:
        calibrated = f"{spacing_mm / magnification:.6g}"
        ds.PixelSpacing = [calibrated, calibrated]
        ds.PixelSpacingCalibrationType = "GEOMETRY"
        ds.PixelSpacingCalibrationDescription = "Magnification at the spine"


def _code(value: str, meaning: str) -> Sequence:
    """A code sequence of one SNOMED CT concept."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return Sequence([item])


# Pixels ----------------------------------------------------------------------------------------


def _store_pixels(
    ds: Dataset, pixels: np.ndarray, coding: Coding, rng: np.random.Generator
) -> None:
    """Pixel data (from 0 to 1, bone bright) with polarity and grey-scale transformation."""
    most = 2**coding.bits - 1
    black, white = 0, most
    if coding.grey != "none":  # consoles leave room at both ends
        black = int(rng.uniform(0, 0.12) * most)
        white = int(rng.uniform(0.85, 1) * most)
    bend = {"sigmoid": _LOGISTIC, "lut": _tone_curve(rng)}.get(coding.grey)
    grey = np.clip(pixels, 0, 1)
    if bend is not None:
        grey = np.interp(grey, *bend).astype(np.float32)
    stored = np.rint(black + grey * np.float32(white - black)).astype(np.uint16)
    if coding.inverted:
        stored = most - stored
        black, white = most - white, most - black

    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if coding.inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, coding.bits, coding.bits - 1
    ds.PixelRepresentation = 0
    slope, intercept = 1.0, 0.0
    if coding.modality == "DX":
        ds.PixelIntensityRelationship = "LOG"
        # -1: higher values mean less radiation on the detector, as where bone is bright.
        ds.PixelIntensityRelationshipSign = 1 if coding.inverted else -1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
        ds.PresentationLUTShape = "INVERSE" if coding.inverted else "IDENTITY"
        ds.LossyImageCompression = "00"
    elif coding.grey in ("window", "sigmoid") and rng.random() < 0.4:
        slope, intercept = float(rng.choice((0.25, 0.5, 2.0))), float(rng.integers(-1024, 1))
        ds.RescaleIntercept, ds.RescaleSlope = f"{intercept:g}", f"{slope:g}"
        ds.RescaleType = "US"
    low, high = slope * black + intercept, slope * white + intercept
    if coding.grey == "window":
        _window(ds, (low + high) / 2 + 0.5, high - low + 1, rng)
    elif coding.grey == "sigmoid":
        _window(ds, (low + high) / 2, (high - low) * 4 / _LOGITS, rng)
        ds.VOILUTFunction = "SIGMOID"
    elif coding.grey == "lut":
        ds.VOILUTSequence = _table(bend, black, white, coding.inverted)
    _encode(ds, stored, coding)


def _tone_curve(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey of the film and what is stored for it, both from 0 to 1; with a toe and a shoulder."""
    stored = np.linspace(0, 1, 1025)
    steep, middle = rng.uniform(0.8, 1.6), rng.uniform(0.4, 0.6)
    curve = np.tanh(2 * steep * (stored - middle))
    return (curve - curve[0]) / (curve[-1] - curve[0]), stored


def _window(ds: Dataset, centre: float, width: float, rng: np.random.Generator) -> None:
    """A window (PS3.3 C.11.2.1.2), sometimes with alternatives behind it."""
    if rng.random() < 0.25:
        widths = [width, 0.8 * width, 1.3 * width]
        ds.WindowCenter = [f"{centre:.10g}"] * 3
        ds.WindowWidth = [f"{value:.10g}" for value in widths]
        ds.WindowCenterWidthExplanation = ["NORMAL", "HARDER", "SOFTER"]
    else:
        ds.WindowCenter, ds.WindowWidth = f"{centre:.10g}", f"{width:.10g}"


def _table(bend: tuple[np.ndarray, np.ndarray], black: int, white: int, inverted: bool) -> Sequence:
    """A VOI LUT (PS3.3 C.11.2.1.1) of 16 bits for the values from black to white."""
    grey, stored = bend
    curve = np.interp(np.linspace(0, 1, white - black + 1), stored, grey)
    if inverted:  # MONOCHROME1 is turned round behind the table
        curve = 1 - curve[::-1]
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [white - black + 1, black, 16])
    lut.LUTExplanation = "Standard contrast"
    lut.add_new("LUTData", "OW", np.rint(curve * 65535).astype("<u2").tobytes())
    return Sequence([lut])


def _encode(ds: Dataset, stored: np.ndarray, coding: Coding) -> None:
    """Set Pixel Data in the object's transfer syntax."""
    values = np.ascontiguousarray(stored, "<u2")
    if coding.syntax not in _COMPRESSED:
        ds.add_new("PixelData", "OW", values.tobytes())
        return
    ds.add_new("PixelData", "OB", encapsulate([_compressed(values, coding)]))
    ds["PixelData"].is_undefined_length = True


def _compressed(values: np.ndarray, coding: Coding) -> bytes:
    """One frame as gdcm compresses it, without loss."""
    writer = gdcm.ImageWriter()  # it must outlive its image
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((values.shape[1], values.shape[0], 1))
    kind = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, coding.bits, coding.bits - 1, 0))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(values.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(coding.syntax)))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"gdcm cannot compress to {coding.syntax.name}")
    frame = change.GetOutput().GetDataElement().GetSequenceOfFragments().GetFragment(0)
    return frame.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")


def save(ds: FileDataset, path: str | Path) -> None:
    """Write an object as a DICOM file, preamble and meta information included."""
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
