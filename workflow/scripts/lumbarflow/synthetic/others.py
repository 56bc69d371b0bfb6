"""What an archive holds beside films of the spine: small CT, MR and ultrasound series, chests.

Pictures are crude: nobody is to look at them, only to leave them out.
"""

from __future__ import annotations

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from .dicom import empty_object, identify
from .people import Patient, Study, make_uid

OBJECTS = {"CT": 3, "MR": 3, "US": 1, "chest": 1}
"""Objects of a series of each kind."""
KINDS = tuple(OBJECTS)
_SIDE = 128
_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "US": SecondaryCaptureImageStorage,
    "chest": ComputedRadiographyImageStorage,
}


def make_other(
    kind: str,
    number: int,
    patient: Patient,
    study: Study,
    rng: np.random.Generator,
    *,
    sop_instance_uid: str,
) -> FileDataset:
    """An object of 128 x 128 pixels that is no film of the spine.

    Args:
        kind: `CT` or `MR` slices of the lumbar spine, a secondary capture of `US`, or a `chest`.
        number: of the object in its series, from 0.
        patient: who is on it.
        study: the study that it belongs to.
        rng: equal ones for all objects of a series.
        sop_instance_uid: the object's UID.
    """
    ds = empty_object(_CLASSES[kind], sop_instance_uid, ExplicitVRLittleEndian)
    identify(ds, patient, study, rng)
    frame = make_uid(rng)
    ds.SeriesNumber, ds.InstanceNumber = 10, number + 1
    ds.Manufacturer = "Synthetic Radiography"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    if kind in ("CT", "MR"):
        _slice(ds, kind, number, frame)
    elif kind == "US":
        ds.Modality, ds.ConversionType = "US", "WSD"
        ds.SeriesDescription, ds.BodyPartExamined = "Abdomen", "ABDOMEN"
        ds.PatientOrientation = None
    else:
        ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "CHEST", "PA"
        ds.SeriesDescription = ds.StudyDescription = "Thorax p.a."
        ds.PatientOrientation = ["L", "F"]
        ds.KVP, ds.PlateID = "120", ""
        ds.ImagerPixelSpacing = ["2.7", "2.7"]
    _store(ds, kind, number, rng)
    return ds


def _slice(ds: Dataset, kind: str, number: int, frame_of_reference: str) -> None:
    """Modules of cross-sections: where the plane lies and how it was made."""
    ds.Modality, ds.BodyPartExamined = kind, "LSPINE"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = UID(frame_of_reference), ""
    ds.PixelSpacing = ["1.5", "1.5"]
    ds.SliceThickness = "4"
    ds.AcquisitionNumber = 1
    if kind == "CT":
        ds.SeriesDescription = "LWS axial"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-96, -96, 4 * number]
        ds.KVP, ds.PatientPosition = "120", "HFS"
    else:
        ds.SeriesDescription = "T2 TSE sag"
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        ds.ImagePositionPatient = [4 * number - 4, -96, 96]
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "SK", ""
        ds.MRAcquisitionType, ds.PatientPosition = "2D", "HFS"
        ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = "3500", "100", "15"


def _store(ds: Dataset, kind: str, number: int, rng: np.random.Generator) -> None:
    """A body with organs in it, as uint16 of 12 bits."""
    picture = np.zeros((_SIDE, _SIDE), np.float32)
    middle = (_SIDE // 2, _SIDE // 2)
    cv2.ellipse(picture, middle, (54, 40), 0, 0, 360, 0.5, -1)
    for _ in range(8 + number):
        place = tuple(int(x) for x in rng.integers(34, _SIDE - 34, 2))
        axes = tuple(int(x) for x in rng.integers(4, 14, 2))
        turn, grey = float(rng.uniform(0, 180)), float(rng.uniform(0.3, 0.8))
        cv2.ellipse(picture, place, axes, turn, 0, 360, grey, -1)
    picture += rng.normal(0, 0.02, picture.shape).astype(np.float32)
    values = np.rint(np.clip(cv2.GaussianBlur(picture, (0, 0), 1.0), 0, 1) * 4095).astype("<u2")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    if kind == "CT":
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    else:
        ds.WindowCenter, ds.WindowWidth = "2048", "4096"
    ds.add_new("PixelData", "OW", values.tobytes())
