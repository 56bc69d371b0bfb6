"""From a DICOM object to the 8-bit picture that annotators and networks see."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from ..errors import InputError


def render(dataset: Dataset) -> np.ndarray:
    """Return the picture as rows x columns uint8, bone bright.

    Modality LUT, then VOI LUT or window (DICOM PS3.3 C.11.1 and C.11.2), then MONOCHROME1 inverted
    (C.7.6.3.1.2). Without either, or with a window that has no width, grey values are stretched.

    Raises:
        InputError: the pixels cannot be decoded, are not grey, or their look-up tables are broken.
    """
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("NumberOfFrames", 1) != 1:
        raise InputError("pixels are not a single grey picture")
    try:
        picture = _shown(dataset)
    except Exception as error:  # pydicom and its decoders raise, and quote, whatever they met
        raise InputError(f"pixels cannot be decoded ({type(error).__name__})") from None
    return 255 - picture if photometric == "MONOCHROME1" else picture


def stretch(values: np.ndarray) -> np.ndarray:
    """Map the range from the 0.5th to the 99.5th percentile of an array of numbers to 0..255."""
    low, high = np.percentile(values, (0.5, 99.5))
    return _to_8_bit((values - np.float32(low)) / np.float32(max(high - low, 1e-6)))


def _shown(dataset: Dataset) -> np.ndarray:
    values = dataset.pixel_array
    if table := dataset.get("ModalityLUTSequence"):
        values, _ = _look_up(values, table[0])
    elif "RescaleSlope" in dataset and "RescaleIntercept" in dataset:
        values = values * np.float32(dataset.RescaleSlope) + np.float32(dataset.RescaleIntercept)
    if table := dataset.get("VOILUTSequence"):
        values, highest = _look_up(values, table[0])
        return _to_8_bit(values / np.float32(highest))
    function = dataset.get("VOILUTFunction", "LINEAR")
    centre, width = (_first(dataset.get(key)) for key in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width < (1 if function == "LINEAR" else 1e-6):
        return stretch(values)
    return _to_8_bit(_window(values.astype(np.float32), centre, width, function))


def _look_up(values: np.ndarray, item: Dataset) -> tuple[np.ndarray, int]:
    """Apply a look-up table (C.11.1.1.1); return the outputs and the highest that it can give.

    pydicom's VOI look-up takes the index modulo 256 where the outputs have 8 bits.
    """
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries & 0xFFFF or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        packed = bits == 8 and len(data) < 2 * entries
        table = np.frombuffer(data, np.uint8 if packed else "<u2")
    else:
        table = np.asarray(data)
    index = np.clip(np.rint(values).astype(np.int32) - first, 0, entries - 1)
    return table[index], 2**bits - 1


def _first(value: Any) -> float | None:
    """The first of one or more decimal strings; None where there is none."""
    value = value[0] if isinstance(value, MultiValue) else value
    return None if value is None else float(value)


def _window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Apply a window (PS3.3 C.11.2.1.2 and C.11.2.1.3) to float32 values; black is 0, white 1."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -50, 50)))
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return (values - centre) / width + 0.5


def _to_8_bit(shares: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
