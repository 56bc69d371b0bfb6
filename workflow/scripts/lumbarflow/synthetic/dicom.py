"""DX objects around synthetic films: valid, varied, and full of invented identifying data.

The attributes follow the Digital X-Ray Image IOD (DICOM PS3.3, A.26). All people are invented.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from .film import FULL_SCALE, Film

# Names are long enough not to turn up by accident in text that holds no identifying data.
_FAMILIES = (
    "Müllerschön", "Großkreuz", "Jägerhuber", "Schröderling", "Lindqvist", "Østergaard",
    "Fernández", "Lefèvre", "Brännström", "Kowalczyk", "Hawthorne", "Whitcombe", "Abernathy",
    "Vanderbilt", "Papadakis", "Zimmerli", "Öztürkmen", "Castiglione", "Rutherford", "Winterbourne",
)  # fmt: skip
_GIVEN = {
    "F": ("Friederike", "Annegret", "Séverine", "Gwendolyn", "Ingeborg", "Zoë-Marlene", "Henrietta",
          "Françoise", "Rosalinde", "Kunigunde"),
    "M": ("Jürgen-Karl", "Bartholomew", "Thorbjörn", "Guillermo", "Leopoldus", "Frédéric",
          "Archibald", "Günther", "Cornelius", "Wolfgang"),
}  # fmt: skip
_PHYSICIANS = (
    "Quackenbush^Eleonora^^Dr.", "Trübenbach^Hieronymus^^Prof.", "Montgomery^Philippa^^Dr.",
    "Søndergård^Valdemar^^Dr.", "Bellingham^Octavius^^Dr.",
)  # fmt: skip
_INSTITUTIONS = (
    ("Marienhospital Wolkenstein", "Wolkensteiner Allee 14, 99998 Wolkenstein"),
    ("Universitätsklinik Sternbrück", "Sternbrücker Weg 3, 99997 Sternbrück"),
    ("Saint Crispin Infirmary", "221 Crispin Terrace, Northmarket"),
)
_STREETS = ("Holunderweg", "Mühlengasse", "Rosemary Crescent", "Kastanienallee", "Tollgate Lane")
_TOWNS = ("Wolkenstein", "Sternbrück", "Northmarket", "Oberlindenau")


@dataclass(frozen=True)
class Patient:
    """An invented patient; every field but `sex` identifies."""

    name: str  # DICOM PN
    patient_id: str
    other_id: str
    birth_date: str  # YYYYMMDD
    address: str
    telephone: str
    sex: str  # F or M


@dataclass(frozen=True)
class Study:
    """An examination of a patient."""

    uid: str
    date: str
    time: str
    accession_number: str
    description: str
    institution: str
    institution_address: str
    referring_physician: str
    operator: str


def make_patient(rng: np.random.Generator) -> Patient:
    """Invent an adult patient."""
    sex = str(rng.choice(("F", "M")))
    family, given = str(rng.choice(_FAMILIES)), str(rng.choice(_GIVEN[sex]))
    middle = f"^{rng.choice(_GIVEN[sex])}" if rng.random() < 0.2 else ""
    born = datetime.date(1935, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 20000)))
    return Patient(
        name=f"{family}^{given}{middle}",
        patient_id=f"PID{rng.integers(10**7, 10**8)}",
        other_id=f"KV{rng.integers(10**8, 10**9)}",
        birth_date=born.strftime("%Y%m%d"),
        address=f"{rng.choice(_STREETS)} {rng.integers(100, 1000)}, {rng.choice(_TOWNS)}",
        telephone=f"+990-{rng.integers(10**3, 10**4)}-{rng.integers(10**5, 10**6)}",
        sex=sex,
    )


def make_study(rng: np.random.Generator, date: datetime.date, postoperative: bool) -> Study:
    """Invent a study on a day."""
    institution, address = _INSTITUTIONS[rng.integers(len(_INSTITUTIONS))]
    region = str(rng.choice(("Lumbar spine lateral", "LWS seitlich stehend", "L-spine 2 views")))
    return Study(
        uid=make_uid(rng),
        date=date.strftime("%Y%m%d"),
        time=f"{rng.integers(7, 18):02d}{rng.integers(60):02d}{rng.integers(60):02d}",
        accession_number=f"ACC{rng.integers(10**9, 10**10)}",
        description=f"{region}{', postop' if postoperative else ''}",
        institution=institution,
        institution_address=address,
        referring_physician=str(rng.choice(_PHYSICIANS)),
        operator=str(rng.choice(_PHYSICIANS)),
    )


def make_uid(rng: np.random.Generator) -> str:
    """A UID below the 2.25 root (PS3.5, B.2) from 120 random bits."""
    return f"2.25.{int.from_bytes(rng.bytes(15), 'big')}"


def identifiers(patient: Patient, study: Study) -> set[str]:
    """Every identifying string that :func:`make_dx` writes, names also part by part."""
    fields = asdict(patient) | asdict(study)
    for harmless in ("sex", "uid", "date", "time", "description"):
        del fields[harmless]
    found = set(fields.values())
    for name in (patient.name, study.referring_physician, study.operator):
        # Titles and empty components of a PN identify nobody.
        found.update(part for part in name.split("^") if part and not part.endswith("."))
    return found


def make_dx(
    film: Film, patient: Patient, study: Study, rng: np.random.Generator, *, sop_instance_uid: str
) -> FileDataset:
    """Wrap a film in a DX image object for presentation.

    Args:
        film: a film of any view.
        patient: who is on it.
        study: when and where it was taken.
        rng: draws polarity, grey-scale transformation and which optional attributes are there.
        sop_instance_uid: the object's UID.

    Returns:
        An uncompressed Explicit VR Little Endian object of 12 bits stored in 16, ready to save.
        Some are MONOCHROME1 (stored inverted), some carry a window, some a VOI LUT.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    # Every invented string fits Latin-1.
    ds.SpecificCharacterSet = "ISO_IR 100" if rng.random() < 0.6 else "ISO_IR 192"
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = UID(sop_instance_uid)

    _identify(ds, patient, study, rng)
    _describe(ds, film, rng)
    _store_pixels(ds, film.pixels, rng)
    return ds


def _identify(ds: Dataset, patient: Patient, study: Study, rng: np.random.Generator) -> None:
    """Patient and study modules, and the places where names hide."""
    ds.PatientName = patient.name
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = patient.birth_date
    ds.PatientSex = patient.sex
    ds.PatientAge = f"{(int(study.date) - int(patient.birth_date)) // 10000:03d}Y"
    ds.OtherPatientIDs = [patient.other_id]
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
    block.add_new(0x01, "LO", patient.name.replace("^", " "))
    block.add_new(0x02, "LO", patient.patient_id)
    nested = Dataset()
    nested.PatientName = patient.name
    block.add_new(0x03, "SQ", Sequence([nested]))


def _describe(ds: Dataset, film: Film, rng: np.random.Generator) -> None:
    """Series, equipment, anatomy, positioning and detector."""
    plan = film.plan
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.SeriesInstanceUID = UID(make_uid(rng))
    ds.SeriesNumber = 1 if plan.view == "lateral" else 2
    ds.SeriesDescription = "Lateral" if plan.view == "lateral" else "AP"
    ds.InstanceNumber = 1
    ds.Manufacturer = "Synthetic Radiography"
    ds.ManufacturerModelName = "Flat Panel 43"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.BodyPartExamined = "LSPINE"
    ds.AnatomicRegionSequence = _code("122496007", "Lumbar spine")
    ds.ImageLaterality = "U"
    if plan.view == "lateral":
        ds.ViewPosition = "LL"
        ds.ViewCodeSequence = _code("399173006", "left lateral")
        ds.PatientOrientation = ["P" if plan.anterior == "left" else "A", "F"]
    else:
        ds.ViewPosition = "AP"
        ds.ViewCodeSequence = _code("399348003", "antero-posterior")
        ds.PatientOrientation = ["L", "F"]
    ds.PositionerType = "NONE"
    ds.KVP = f"{rng.integers(78, 96)}"
    ds.DetectorType = "SCINTILLATOR"
    spacing = f"{plan.pixel_spacing_mm:.6g}"
    ds.ImagerPixelSpacing = [spacing, spacing]
    choice = rng.random()
    if choice < 0.9:  # of the others, nobody can tell the size in the patient
        ds.EstimatedRadiographicMagnificationFactor = f"{plan.magnification:.6g}"
    if choice < 0.25:  # uncalibrated: the same values (PS3.3, 10.7)
        ds.PixelSpacing = [spacing, spacing]
    elif choice < 0.4:
        calibrated = f"{plan.pixel_spacing_mm / plan.magnification:.6g}"
        ds.PixelSpacing = [calibrated, calibrated]
        ds.PixelSpacingCalibrationType = "GEOMETRY"
        ds.PixelSpacingCalibrationDescription = "Magnification at the spine"
    ds.AcquisitionContextSequence = Sequence([])


def _code(value: str, meaning: str) -> Sequence:
    """A code sequence of one SNOMED CT concept."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return Sequence([item])


def _store_pixels(ds: Dataset, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Pixel data with polarity and grey-scale transformation."""
    inverted = rng.random() < 0.3
    stored = FULL_SCALE - pixels if inverted else pixels
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.PixelIntensityRelationship = "LOG"
    # -1: higher values mean less radiation on the detector, as where bone is bright.
    ds.PixelIntensityRelationshipSign = 1 if inverted else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    if rng.random() < 0.75:
        centre = float(rng.integers(1850, 2250))
        ds.WindowCenter = f"{FULL_SCALE - centre if inverted else centre:g}"
        ds.WindowWidth = f"{rng.integers(3200, 4096)}"
        if rng.random() < 0.3:
            ds.VOILUTFunction = "SIGMOID"
    else:
        grey = np.linspace(-1, 1, FULL_SCALE + 1)
        steep = rng.uniform(0.8, 1.6)
        curve = np.rint((np.tanh(steep * grey) / np.tanh(steep) + 1) / 2 * FULL_SCALE)
        lut = Dataset()
        lut.add_new("LUTDescriptor", "US", [FULL_SCALE + 1, 0, 12])
        lut.LUTExplanation = "Standard contrast"
        lut.add_new("LUTData", "OW", curve.astype("<u2").tobytes())
        ds.VOILUTSequence = Sequence([lut])
    ds.add_new("PixelData", "OW", stored.astype("<u2").tobytes())


def save(ds: FileDataset, path: str | Path) -> None:
    """Write an object as a DICOM file, preamble and meta information included."""
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
