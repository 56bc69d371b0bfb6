"""De-identification of CR and DX objects by an allow-list.

Only attributes that describe the picture are carried over into a new data set; everything else,
private elements, sequences, overlays, file-meta titles and the preamble included, is never copied
(DICOM PS3.15 Annex E asks for removal of at least these). Pixels are decoded and stored anew, as
comments in compressed streams, bytes after the picture and unused high bits (retired overlays) hide
text, too. Dates are dropped; the interval to the patient's first study is kept in the manifest.
"""

from __future__ import annotations

import re

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian

from ..errors import InputError
from .pixels import padding, stored_values
from .pseudonyms import Pseudonyms
from .render import Lut, modality_lut, voi_luts

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image Storage",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image Storage - For Presentation",
}

# Image Pixel, VOI LUT, Modality LUT and detector geometry; numbers and code strings, no free text.
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
    "PixelRepresentation",
    "PixelAspectRatio",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
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
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 6.2, VR CS
_OLDEST_YEARS = 89


def deidentify(source: Dataset, pseudonyms: Pseudonyms) -> FileDataset:
    """Return a new object with the picture of `source`, pseudonyms and nothing else.

    Args:
        source: a CR or DX object with pixel data; not changed.
        pseudonyms: the keyed mapping.

    Raises:
        InputError: the SOP class is not CR or DX (its name is in the sentence), or the pixels or an
            attribute that describes them cannot be read.
        UnreadableTransferSyntax: no installed decoder reads the transfer syntax.
    """
    sop_class = str(source.get("SOPClassUID", ""))
    if sop_class not in SOP_CLASSES:
        raise InputError(f"objects of the class {UID(sop_class).name} are not taken")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = pseudonyms.uid(str(source.get("SOPInstanceUID", "")))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    try:
        for keyword in _KEPT:
            _copy(source, result, keyword)
        _copy_pixels(source, result)
        if lut := modality_lut(source):
            result.ModalityLUTSequence = [_lut_item(lut)]
            # Unspecified (PS3.3 C.11.1.1.2): the type may be free text.
            result.ModalityLUTSequence[0].ModalityLUTType = "US"
        if luts := voi_luts(source):
            result.VOILUTSequence = [_lut_item(lut) for lut in luts]
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise, and quote, whatever they met
        raise InputError(f"the picture cannot be read ({type(error).__name__})") from None
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
    """The identifier of the patient within the archive; kept in memory only.

    Without one nobody knows whose study it is: it counts as its patient's only one.
    """
    issuer = str(source.get("IssuerOfPatientID", "") or "")
    number = str(source.get("PatientID", "") or "").strip()
    return f"{issuer}\0{number}" if number else f"study {source.get('StudyInstanceUID', '')}"


def age_years(source: Dataset) -> int | None:
    """Age at the study in years, at most 89 as ages above identify; None where not in years."""
    text = str(source.get("PatientAge", "") or "")
    if len(text) == 4 and text.endswith("Y") and text[:3].isdigit():
        return min(int(text[:3]), _OLDEST_YEARS)
    return None


def _copy(source: Dataset, target: Dataset, keyword: str) -> None:
    """Copy an element with the dictionary's VR, unless it is empty or a text that is no code."""
    value = source.get(keyword)
    if value is None or value == "":
        return
    setattr(target, keyword, value)
    texts = value if isinstance(value, MultiValue) else [value]
    if target[keyword].VR == "CS" and not all(_CODE_STRING.fullmatch(str(text)) for text in texts):
        del target[keyword]


def _copy_pixels(source: Dataset, target: Dataset) -> None:
    """Pixels, little endian in the lowest bits, other bits 0 or the sign; padding values."""
    pixels = stored_values(source)
    target.HighBit = target.BitsStored - 1
    data = source.PixelData
    # What is as it should be is not copied.
    if len(data) != pixels.nbytes or not np.may_share_memory(pixels, np.frombuffer(data, np.uint8)):
        data = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    target.PixelData = data + b"\0" * (len(data) % 2)
    if ends := padding(source):
        vr = "SS" if source.PixelRepresentation else "US"
        # Black first: the higher value with MONOCHROME1 (PS3.3 C.7.5.1.1.2).
        first, last = ends[::-1] if source.PhotometricInterpretation == "MONOCHROME1" else ends
        target.add_new("PixelPaddingValue", vr, first)
        if first != last:
            target.add_new("PixelPaddingRangeLimit", vr, last)


def _lut_item(lut: Lut) -> Dataset:
    """A look-up table without its explanation, its numbers in little endian."""
    item = Dataset()
    count, signed = len(lut.entries), lut.first < 0
    # 65536 entries are written as 0; the descriptor has one VR for its three numbers.
    count = (count + 2**15) % 2**16 - 2**15 if signed else count % 2**16
    item.add_new("LUTDescriptor", "SS" if signed else "US", [count, lut.first, lut.bits])
    data = lut.entries.tobytes()
    item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    return item
