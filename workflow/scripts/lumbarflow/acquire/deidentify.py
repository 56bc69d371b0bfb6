"""De-identification of CR and DX objects by an allow-list.

Only attributes that describe the picture are carried over into a new data set; everything else,
private elements, sequences, overlays, file-meta titles and the preamble included, is never copied
(DICOM PS3.15 Annex E asks for removal of at least these). Dates are dropped; the interval to the
patient's first study is kept in the manifest.
"""

from __future__ import annotations

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID

from ..errors import InputError
from .pseudonyms import Pseudonyms

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image Storage",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image Storage - For Presentation",
}

# Image Pixel, VOI LUT, Modality LUT and detector geometry; plain values only, no free text.
_KEPT = (
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "PatientSex",
    "PresentationIntentType",
    "ImageLaterality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "DetectorType",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "RescaleIntercept",
    "RescaleSlope",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "LossyImageCompression",
)
_KEPT_LUT_SEQUENCES = ("VOILUTSequence", "ModalityLUTSequence")
_OLDEST_YEARS = 89


def deidentify(source: Dataset, pseudonyms: Pseudonyms) -> FileDataset:
    """Return a new object with the picture of `source`, pseudonyms and nothing else.

    Args:
        source: a CR or DX object with pixel data; not changed.
        pseudonyms: the keyed mapping.

    Raises:
        InputError: the SOP class is not CR or DX (its name is in the sentence).
    """
    sop_class = str(source.get("SOPClassUID", ""))
    if sop_class not in SOP_CLASSES:
        raise InputError(f"objects of the class {UID(sop_class).name} are not taken")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = pseudonyms.uid(str(source.SOPInstanceUID))
    meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    result = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in _KEPT:
        if keyword in source:
            result[keyword] = source[keyword]
    for keyword in _KEPT_LUT_SEQUENCES:
        if keyword in source:
            setattr(result, keyword, [_lut_item(item) for item in source[keyword].value])
    result["PixelData"] = source["PixelData"]
    result.SOPClassUID = sop_class
    result.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(result, keyword, pseudonyms.uid(str(source.get(keyword, ""))))
    patient = pseudonyms.patient(patient_key(source))
    result.PatientID = result.PatientName = patient
    age = age_years(source)
    if age is not None:
        result.PatientAge = f"{age:03d}Y"
    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(result, keyword, None)
    result.ReferringPhysicianName = None
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = "Lumbarflow allow-list"
    result.LongitudinalTemporalInformationModified = "REMOVED"
    return result


def patient_key(source: Dataset) -> str:
    """The identifier of the patient within the archive; kept in memory only."""
    issuer = str(source.get("IssuerOfPatientID", "") or "")
    return f"{issuer}\0{str(source.get('PatientID', '') or '').strip()}"


def age_years(source: Dataset) -> int | None:
    """Age at the study in years, at most 89 as ages above identify; None where not in years."""
    text = str(source.get("PatientAge", "") or "")
    if len(text) == 4 and text.endswith("Y") and text[:3].isdigit():
        return min(int(text[:3]), _OLDEST_YEARS)
    return None


def _lut_item(item: Dataset) -> Dataset:
    kept = Dataset()
    for keyword in ("LUTDescriptor", "LUTData", "ModalityLUTType"):
        if keyword in item:
            kept[keyword] = item[keyword]
    return kept
