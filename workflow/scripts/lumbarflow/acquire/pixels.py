"""The stored pixel values of a CR or DX object, whatever its transfer syntax (DICOM PS3.5 8)."""

from __future__ import annotations

import re

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
    UID_dictionary,
)

from ..errors import InputError

_NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_STANDARD_SYNTAX = re.compile(r"1\.2\.840\.10008\.1\.2(\.\d{1,3}){1,3}")


class UnreadableTransferSyntax(InputError):
    """No installed decoder reads this transfer syntax; the object itself may be sound.

    Attributes:
        transfer_syntax: its name in the standard; the UID of a private one may identify.
    """

    def __init__(self, uid: UID):
        if uid in UID_dictionary:
            self.transfer_syntax = uid.name
        else:  # a syntax of the standard that is newer than this pydicom has its UID as name
            standard = _STANDARD_SYNTAX.fullmatch(uid)
            self.transfer_syntax = str(uid) if standard else "private transfer syntax"
        super().__init__(f"no installed decoder reads pixels in {self.transfer_syntax}")


def stored_values(dataset: Dataset) -> np.ndarray:
    """Decode the pixels of a single grey picture.

    Args:
        dataset: an object with file meta and pixel data; not changed.

    Returns:
        rows x columns of 8, 16 or 32 bits as allocated, signed or not by Pixel Representation: Bits
        Stored from High Bit down, whatever the other bits hold. Uncompressed pixels that need no
        change are a read-only view of the object's.

    Raises:
        UnreadableTransferSyntax: no installed decoder reads the transfer syntax.
        InputError: the pixels are broken, not a single grey picture, or contradict their header.
    """
    try:
        syntax = UID(dataset.file_meta.TransferSyntaxUID)
        if syntax not in _NATIVE and not _has_decoder(syntax):
            raise UnreadableTransferSyntax(syntax)
        return _stored_values(dataset, syntax)
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise, and quote, whatever they met
        raise InputError(f"the pixels cannot be read ({type(error).__name__})") from None


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """The lowest and the highest value that Bits Stored can hold."""
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def padding(dataset: Dataset) -> tuple[int, int] | None:
    """The lowest and the highest stored value that is padding, or None (PS3.3 C.7.5.1.1.2).

    A value that Bits Stored cannot hold is not valid, and counts as missing.
    """
    ends = [_pad(dataset, key) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    known = [end for end in ends if end is not None]
    return min(known), max(known)


def _pad(dataset: Dataset, keyword: str) -> int | None:
    value = dataset.get(keyword)
    if not isinstance(value, int):
        return None
    # The VR (US or SS) often contradicts Pixel Representation: both are read as 16 bits.
    if dataset.BitsAllocated <= 16:
        value &= 0xFFFF
        if dataset.PixelRepresentation and value >= 2**15:
            value -= 2**16
    lowest, highest = stored_range(dataset)
    return value if lowest <= value <= highest else None


def _has_decoder(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _stored_values(dataset: Dataset, syntax: UID) -> np.ndarray:
    grey = dataset.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    if not grey or dataset.SamplesPerPixel != 1 or int(dataset.get("NumberOfFrames") or 1) != 1:
        raise InputError("the pixels are not a single grey picture")
    allocated, stored, high = dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit
    if allocated not in (8, 16, 32) or not 1 <= stored <= high + 1 <= allocated:
        raise InputError("the pixels do not fit the bits that their header names")
    shape = dataset.Rows, dataset.Columns
    dtype = np.dtype(f"{'i' if dataset.PixelRepresentation else 'u'}{allocated // 8}")
    if syntax in _NATIVE:
        data = _in_words(dataset, syntax) if allocated == 8 else dataset.PixelData
        order = "<" if syntax.is_little_endian else ">"
        values = np.frombuffer(data, dtype.newbyteorder(order), shape[0] * shape[1])
    else:
        values = _decompressed(dataset, syntax)
    values = values.reshape(shape).astype(dtype, copy=False)
    return _without_other_bits(values, allocated - 1 - high, allocated - stored)


def _in_words(dataset: Dataset, syntax: UID) -> bytes:
    """Pixel data of 8 bits: big endian words (OW) hold the second of two pixels first."""
    data = dataset.PixelData
    if syntax.is_little_endian or dataset["PixelData"].VR != "OW":
        return data
    return np.frombuffer(data, "<u2").byteswap().tobytes()


def _decompressed(dataset: Dataset, syntax: UID) -> np.ndarray:
    """The pixels in as many bits as their decoder gives; the sign may not be extended.

    They are taken as bytes, as pydicom would cut an array down to Bits Stored without a word.
    """
    allocated, stored, high = dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit
    rle = syntax == RLELossless
    if not rle and high != stored - 1:
        raise InputError("the compressed pixels do not lie in the lowest bits")
    if syntax in _JPEG and (allocated == 32 or allocated == 8 != stored):
        raise InputError("the pixels do not have a depth that JPEG has")  # gdcm would abort
    try:
        data, found = get_decoder(syntax).as_buffer(dataset, index=0)
    except Exception:
        # The decoders that take this syntax read its 8-bit variant only.
        if syntax == JPEGExtended12Bit and stored > 8:
            raise UnreadableTransferSyntax(syntax) from None
        raise
    kind = "i" if dataset.PixelRepresentation else "u"
    values = np.frombuffer(data, f"<{kind}{found['bits_allocated'] // 8}")
    if not rle:
        lowest, highest = int(values.min()), int(values.max())
        below, above = stored_range(dataset)
        if lowest >= 0:
            above = 2**stored - 1  # decoders that know no sign give the bits of negative values
        if lowest < below or highest > above:
            raise InputError("the compressed pixels have more bits than their header says")
    return values


def _without_other_bits(values: np.ndarray, above: int, others: int) -> np.ndarray:
    """Move the stored bits down and extend the sign; other bits may hold a retired overlay.

    Args:
        values: integers with all their bits.
        above: number of bits above the stored ones.
        others: number of all bits that are not stored.
    """
    if others == 0:
        return values
    if above == others and values.dtype.kind == "u":
        used = int(np.bitwise_or.reduce(values, axis=None))
        if used >> (8 * values.itemsize - others) == 0:
            return values
    return (values << above) >> others
