"""From a DICOM object to the 8-bit picture that annotators and networks see."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from ..errors import InputError


def render(dataset: Dataset) -> np.ndarray:
    """Return the picture as rows x columns uint8, bone bright.

    Modality LUT, then VOI LUT or window (DICOM PS3.3 C.11.1 and C.11.2), then MONOCHROME1 inverted
    (C.7.6.3.1.2). Without either, the range between the 0.5th and 99.5th percentile is used.

    Raises:
        InputError: the pixels cannot be decoded or are not grey.
    """
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("NumberOfFrames", 1) != 1:
        raise InputError("pixels are not a single grey picture")
    try:
        stored = dataset.pixel_array
    except Exception as error:  # pydicom and its decoders raise whatever they met
        raise InputError(f"pixels cannot be decoded ({type(error).__name__})") from None
    values = apply_modality_lut(stored, dataset).astype(np.float32)
    if "VOILUTSequence" in dataset or "WindowWidth" in dataset:
        # VOI LUTs are indexed by whole numbers.
        whole = "VOILUTSequence" in dataset
        shown = apply_voi_lut(values.astype(np.int32) if whole else values, dataset)
        low, high = _output_range(dataset, shown)
    else:
        shown = values
        low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((shown.astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1)
    picture = np.rint(scaled * 255).astype(np.uint8)
    return 255 - picture if photometric == "MONOCHROME1" else picture


def _output_range(dataset: Dataset, shown: np.ndarray) -> tuple[float, float]:
    if "VOILUTSequence" in dataset:
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return 0.0, float(2**bits - 1)
    if "ModalityLUTSequence" in dataset:
        return 0.0, float(2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    # apply_voi_lut maps windows to the whole range of the rescaled stored values.
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    bits = int(dataset.BitsStored)
    half = 2 ** (bits - 1)
    ends = (-half, half - 1) if dataset.PixelRepresentation else (0, 2 * half - 1)
    low, high = sorted(end * slope + intercept for end in ends)
    return low, high
