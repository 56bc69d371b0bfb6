"""Small grey DICOM objects, drawn at random, and what they look like, worked out pixel by pixel."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pydicom
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def film(pixels, bits=12, **attributes) -> FileDataset:
    """A DX object of 16 bits allocated around rows x columns of uint16 or int16."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = DX, "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = DX, "1.2.3.4"
    dataset.ViewPosition = "LL"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.add_new("PixelData", "OW", pixels.astype(f"<{pixels.dtype.kind}2").tobytes())
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def look_up_table(values, first=0, bits=8, stored_as="list", **attributes) -> Dataset:
    """An item of a LUT sequence; its data a list of words, words, or bytes (`packed`)."""
    item = Dataset()
    count = len(values) % 2**16
    if first < 0:
        item.add_new("LUTDescriptor", "SS", [(count + 2**15) % 2**16 - 2**15, first, bits])
    else:
        item.add_new("LUTDescriptor", "US", [count, first, bits])
    if stored_as == "list":
        item.add_new("LUTData", "US", [int(value) for value in values])
    else:
        data = np.asarray(values).astype("u1" if stored_as == "packed" else "<u2").tobytes()
        item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def saved(dataset: Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def reread(dataset: Dataset) -> FileDataset:
    """The object as it comes from a file, its elements not decoded yet."""
    return pydicom.dcmread(BytesIO(saved(dataset)))


@st.composite
def tables(draw, lowest: int, highest: int) -> Dataset:
    """A look-up table for inputs of about a range."""
    bits = draw(st.integers(8, 16))
    values = draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=40))
    least, most = (-(2**15), 2**15 - 1) if lowest < 0 else (0, 2**16 - 1)
    first = draw(st.integers(max(lowest - 9, least), min(highest + 9, most)))
    forms = ["list", "words"] + ["packed"] * (bits == 8)
    return look_up_table(values, first, bits, draw(st.sampled_from(forms)))


@st.composite
def objects(draw) -> FileDataset:
    """Any combination of bit layout, polarity, padding, modality and VOI transformation."""
    allocated = draw(st.sampled_from([8, 16, 16, 32]))
    stored = draw(st.integers(1, allocated))
    signed = draw(st.booleans())
    lowest = -(2 ** (stored - 1)) if signed else 0
    highest = lowest + 2**stored - 1
    raw = draw(arrays(f"<u{allocated // 8}", (3, 5)))  # unused bits hold anything
    dataset = film(np.zeros((3, 5), np.uint16))
    dataset.BitsAllocated, dataset.BitsStored = allocated, stored
    dataset.HighBit = draw(st.integers(stored - 1, allocated - 1))
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = raw.tobytes() + b"\0" * (raw.nbytes % 2)
    dataset.PhotometricInterpretation = draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
    if shape := draw(st.sampled_from([None, "IDENTITY", "INVERSE"])):
        dataset.PresentationLUTShape = shape
    if allocated <= 16:
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")[: draw(st.integers(0, 2))]:
            dataset.add_new(keyword, "SS" if signed else "US", draw(st.integers(lowest, highest)))
    modality = draw(st.sampled_from(["none", "rescale", "table"]))
    if modality == "rescale":
        slope = draw(st.sampled_from([1, 2, -1, 0.5, -3, 0.25]))
        intercept = draw(st.sampled_from([0, -5, 7.5, 1000, -1024]))
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        ends = [end * slope + intercept for end in (lowest, highest)]
        lowest, highest = (max(min(ends), -(2**15)), min(max(ends), 2**16 - 1))
    elif modality == "table":
        dataset.ModalityLUTSequence = [draw(tables(max(lowest, -(2**15)), min(highest, 2**15)))]
        lowest, highest = 0, 2**16 - 1
    lowest, highest = math.floor(max(lowest, -(2**15))), math.ceil(min(highest, 2**16 - 1))
    highest = max(highest, lowest)
    if draw(st.booleans()):
        items = [draw(tables(lowest, highest)) for _ in range(draw(st.integers(1, 2)))]
        dataset.VOILUTSequence = items
    if draw(st.booleans()):
        number = draw(st.integers(1, 2))
        centre, width = st.integers(lowest, highest), st.integers(1, highest - lowest + 2)
        dataset.WindowCenter = [draw(centre) + draw(st.sampled_from([0, 0.5]))] * number
        dataset.WindowWidth = [draw(width), 7][:number]
        function = draw(st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]))
        if function:
            dataset.VOILUTFunction = function
    return dataset


def naive_picture(dataset: Dataset) -> np.ndarray:
    """The picture of a little endian object by the standard's text, a pixel at a time."""
    size = dataset.BitsAllocated // 8
    shape = dataset.Rows, dataset.Columns
    stored = []
    for place in range(0, shape[0] * shape[1] * size, size):
        word = int.from_bytes(dataset.PixelData[place : place + size], "little")
        value = word >> (dataset.HighBit + 1 - dataset.BitsStored) & (1 << dataset.BitsStored) - 1
        if dataset.PixelRepresentation and value >= 1 << dataset.BitsStored - 1:
            value -= 1 << dataset.BitsStored
        stored.append(value)
    pad = dataset.get("PixelPaddingValue")
    ends = sorted([pad, dataset.get("PixelPaddingRangeLimit", pad)]) if pad is not None else [1, 0]
    is_padding = [ends[0] <= value <= ends[1] for value in stored]
    values = [_naive_modality(dataset, value) for value in stored]
    rest = [value for value, skip in zip(values, is_padding, strict=True) if not skip]
    low, high = np.percentile(rest, (0.5, 99.5)) if rest else (0, 1)
    greys = []
    for value, skip in zip(values, is_padding, strict=True):
        share = _naive_voi(dataset, value)
        if share is None:
            share = (value - low) / max(high - low, 1e-6)
        share = min(max(share, 0), 1)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            share = 1 - share
        greys.append(0 if skip else round(share * 255))
    return np.array(greys, np.uint8).reshape(shape)


def _naive_table(item: Dataset, value: float) -> tuple[int, int]:
    """The entry for a value, and the highest that there can be."""
    count, first, bits = item.LUTDescriptor
    count = count % 65536 or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        size = 2 if len(data) >= 2 * count else 1
        data = [int.from_bytes(data[i * size : i * size + size], "little") for i in range(count)]
    elif isinstance(data, int):
        data = [data]
    return data[min(max(round(value) - first, 0), count - 1)], 2**bits - 1


def _naive_modality(dataset: Dataset, value: int) -> float:
    if "ModalityLUTSequence" in dataset:
        return _naive_table(dataset.ModalityLUTSequence[0], value)[0]
    return value * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def _naive_voi(dataset: Dataset, value: float) -> float | None:
    """Share of white; None without a VOI transformation."""
    if "VOILUTSequence" in dataset:
        entry, highest = _naive_table(dataset.VOILUTSequence[0], value)
        return entry / highest
    if "WindowCenter" not in dataset:
        return None
    centre, width = dataset.WindowCenter, dataset.WindowWidth
    if isinstance(centre, list | pydicom.multival.MultiValue):
        centre, width = centre[0], width[0]
    centre, width = float(centre), float(width)
    function = dataset.get("VOILUTFunction", "LINEAR")
    if function == "SIGMOID":
        power = -4 * (value - centre) / width
        return 1 / (1 + math.exp(power)) if power < 700 else 0
    if function == "LINEAR_EXACT":
        if value <= centre - width / 2:
            return 0
        return 1 if value > centre + width / 2 else (value - centre) / width + 0.5
    if value <= centre - 0.5 - (width - 1) / 2:
        return 0
    if value > centre - 0.5 + (width - 1) / 2:
        return 1
    return (value - (centre - 0.5)) / (width - 1) + 0.5
