"""Size of a pixel: in the patient, with its provenance, and at the detector (DICOM PS3.3 10.7)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from ..errors import InputError

_CR = "1.2.840.10008.5.1.4.1.1.1"
_SAME = 0.005  # relative; spacings that differ by less are taken as equal
_LARGEST_ASPECT = 4.0
_LARGEST_MAGNIFICATION = 3.0  # far above that of any film of a spine: about 1.1 to 1.4


class Spacing(NamedTuple):
    """Side of a pixel of the square-pixelled picture, mm; None where it is not known.

    Attributes:
        mm: in the patient.
        source: where `mm` comes from: `geometry`, `fiducial`, `calibrated` or `magnification`.
        imager_mm: at the front of the detector, where everything is larger than in the patient.
    """

    mm: float | None
    source: str | None
    imager_mm: float | None


def pixel_spacing(dataset: Dataset) -> Spacing:
    """Return the size of a pixel, and nothing guessed.

    Pixel Spacing holds in the patient where it differs from the spacing at the detector. Where it
    is the same nothing was calibrated, whatever its type says. Where there is none to compare with
    and no Pixel Spacing Calibration Type, nobody can tell (PS3.3 10.7.1.1).

    Without a calibration, the spacing at the detector is divided by the Estimated Radiographic
    Magnification Factor. In its place the distances from the source count for CR only: in DX
    (C.8.11.5) Distance Source to Patient ends at the table, and the patient lies before it.

    What is not two positive numbers, and magnifications not between 1 and 3, count as missing:
    scanners write 1 where nobody measured it, and a spine never lies on the detector.
    """
    patient = _pair(dataset, "PixelSpacing")
    detector = _pair(dataset, "ImagerPixelSpacing") or _pair(dataset, "NominalScannedPixelSpacing")
    imager_mm = _side(detector) if detector else None
    if patient and not (detector and np.allclose(patient, detector, rtol=_SAME, atol=0)):
        calibration = str(dataset.get("PixelSpacingCalibrationType") or "").upper()
        if calibration in ("GEOMETRY", "FIDUCIAL"):
            return Spacing(_side(patient), calibration.lower(), imager_mm)
        if imager_mm and _possible(imager_mm / _side(patient)):
            return Spacing(_side(patient), "calibrated", imager_mm)
        return Spacing(None, None, imager_mm)
    magnification = _magnification(dataset)
    if imager_mm and magnification:
        return Spacing(imager_mm / magnification, "magnification", imager_mm)
    return Spacing(None, None, imager_mm)


def pixel_aspect(dataset: Dataset) -> float:
    """Height of a pixel over its width; 1 where they differ by less than 0.5 % or are not known.

    The spacings come before Pixel Aspect Ratio, which is for objects without (PS3.3 C.7.6.3).

    Raises:
        InputError: a side is more than 4 times the other.
    """
    keywords = (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
        "PixelAspectRatio",
    )
    pairs = (_pair(dataset, keyword) for keyword in keywords)
    height, width = next((pair for pair in pairs if pair), (1.0, 1.0))
    if max(height, width) > _LARGEST_ASPECT * min(height, width):
        raise InputError("the pixels are too far from square")
    return 1.0 if np.isclose(height, width, rtol=_SAME, atol=0) else height / width


def _magnification(dataset: Dataset) -> float | None:
    """Distance from source to detector over that from source to spine; None where not told."""
    factor = _number(dataset.get("EstimatedRadiographicMagnificationFactor"))
    if factor and _possible(factor):
        return factor
    to_detector = _number(dataset.get("DistanceSourceToDetector"))
    to_patient = _number(dataset.get("DistanceSourceToPatient"))
    if dataset.get("SOPClassUID") == _CR and to_detector and to_patient:
        factor = to_detector / to_patient
        return factor if _possible(factor) else None
    return None


def _possible(magnification: float) -> bool:
    return 1 + _SAME < magnification < _LARGEST_MAGNIFICATION


def _side(pair: tuple[float, float]) -> float:
    """Side of a square pixel: pixels that are not square are divided along their longer side."""
    height, width = pair
    same = np.isclose(height, width, rtol=_SAME, atol=0)
    return (height + width) / 2 if same else min(pair)


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Two positive numbers, or None."""
    value = dataset.get(keyword)
    if not isinstance(value, MultiValue | list | tuple) or len(value) != 2:
        return None
    first, second = map(_number, value)
    return (first, second) if first and second else None


def _number(value: object) -> float | None:
    """A positive finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < np.inf else None
