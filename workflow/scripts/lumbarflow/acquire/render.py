"""From a DICOM object to the 8-bit picture that annotators and networks see.

The grey-scale pipeline of PS3.3 C.7.6.3, C.11.1, C.11.2 and PS3.4 N.2 is worked out once for every
value that the pixels can have, and the picture looked up in that table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from ..errors import InputError
from .pixels import padding, stored_range, stored_values
from .spacing import pixel_aspect

_NUMBERS = ("US", "SS", "OW", "OB")  # value representations that a look-up table may have


def render(dataset: Dataset) -> np.ndarray:
    """Return the picture as uint8 of rows x columns, with square pixels and bone bright.

    1. Modality LUT Sequence, or else Rescale Slope and Intercept (C.11.1).
    2. The first VOI LUT, or else the first window: LINEAR, LINEAR_EXACT or SIGMOID (C.11.2). Where
       an object has both they are alternatives; the LUT is the tone curve of the acquisition, the
       window a straight line instead of it for viewers that know no curves. Without either, or
       with a window that has no width, grey values are stretched.
    3. MONOCHROME1 is inverted (C.7.6.3.1.2). Presentation LUT Shape has to follow it (INVERSE with
       MONOCHROME1, IDENTITY with MONOCHROME2: C.7.6.1), so it adds nothing; where it contradicts,
       Photometric Interpretation decides, which every object has.
    4. Padding (C.7.5.1.1.2) has no part in the stretch, and is black.
    5. Pixels that are not square are divided along their longer side, so that no detail is lost.

    Raises:
        UnreadableTransferSyntax: no installed decoder reads the transfer syntax.
        InputError: the pixels cannot be decoded, are not grey, or their look-up tables are broken.
    """
    values = stored_values(dataset)
    try:
        picture = _mapped(values, lambda stored, counts: _grey(dataset, stored, counts))
        return _square(picture, pixel_aspect(dataset))
    except InputError:
        raise
    except Exception as error:  # pydicom raises, and quotes, whatever it met
        raise InputError(f"pixels cannot be shown ({type(error).__name__})") from None


def stretch(values: np.ndarray) -> np.ndarray:
    """Map an array of integers from its 0.5th to its 99.5th percentile to 0..255 (uint8)."""
    return _mapped(values, lambda levels, counts: _stretched(levels.astype(float), counts()))


@dataclass(frozen=True)
class Lut:
    """A look-up table of a modality or VOI transformation (PS3.3 C.11.1.1.1 and C.11.2.1.1).

    Attributes:
        first: the value that the first entry is for.
        entries: uint16 or uint8; the ends hold for all values beyond them.
        bits: of an entry, as its descriptor says.
    """

    first: int
    entries: np.ndarray
    bits: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The entries for an array of numbers, as float64."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)].astype(float)

    @property
    def highest(self) -> int:
        """The highest output; some tables have deeper entries than their descriptor says."""
        return max(2**self.bits - 1, int(self.entries.max()), 1)


def modality_lut(dataset: Dataset) -> Lut | None:
    """The Modality LUT, or None.

    Raises:
        InputError: it holds no numbers or fewer than it says.
    """
    sequence = dataset.get("ModalityLUTSequence")
    return _lut(dataset, sequence[0], stored_range(dataset)[0] < 0) if sequence else None


def voi_luts(dataset: Dataset) -> list[Lut]:
    """The VOI LUTs, the one to use first.

    Raises:
        InputError: one holds no numbers or fewer than it says.
    """
    if not (sequence := dataset.get("VOILUTSequence")):
        return []
    signed = bool((_modality(dataset, np.array(stored_range(dataset), float)) < 0).any())
    return [_lut(dataset, item, signed) for item in sequence]


def _lut(dataset: Dataset, item: Dataset, signed: bool) -> Lut:
    """Read a look-up table whose inputs may be negative (`signed`) or not."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    if item["LUTData"].VR not in _NUMBERS:
        raise InputError("a look-up table of the pixels does not hold numbers")
    # Neither end of the descriptor can be trusted to have the sign that its VR gives it.
    count, first = count & 0xFFFF or 2**16, first & 0xFFFF
    if signed and first >= 2**15:
        first -= 2**16
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    data = item.LUTData
    if not isinstance(data, bytes):  # pydicom has read the words
        data = (np.atleast_1d(data).astype(np.int64) & 0xFFFF).astype(f"{order}u2").tobytes()
    words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype("<u2")
    # Entries of 8 bits may come two in a word or one: only the length tells.
    packed = bits == 8 and len(data) < 2 * count
    entries = (words.view(np.uint8) if packed else words)[:count]
    if len(entries) < count:
        raise InputError("a look-up table of the pixels is shorter than it says")
    return Lut(first, entries, bits)


def _mapped(values: np.ndarray, grey_of: Callable[..., np.ndarray]) -> np.ndarray:
    """Give every value of an integer array a grey value (uint8).

    `grey_of` is called once: with an array of values, all that there are among them, and a function
    that counts how many pixels have each.
    """
    lowest, highest = min(int(values.min()), 0), int(values.max())
    if highest - lowest >= 2**16:
        stored, index, found = np.unique(values, return_inverse=True, return_counts=True)
        return np.take(grey_of(stored, lambda: found), index)
    index = values.view(f"u{values.itemsize}")
    if lowest < 0:  # modulo the word, as the difference may be too large for its signed type
        index = index - index.dtype.type(lowest % 2 ** (8 * values.itemsize))
    stored = np.arange(lowest, highest + 1)
    table = grey_of(stored, lambda: np.bincount(index.ravel(), minlength=len(stored)))
    picture = np.empty(values.shape, np.uint8)
    for start in range(0, len(index), 64):  # numpy makes 8 bytes of every index at hand
        picture[start : start + 64] = np.take(table, index[start : start + 64])
    return picture


def _grey(dataset: Dataset, stored: np.ndarray, counts: Callable[[], np.ndarray]) -> np.ndarray:
    """The grey value (uint8) of stored values; `counts` tells how many pixels have each."""
    is_padding = np.zeros(len(stored), bool)
    if pad := padding(dataset):
        is_padding = (stored >= pad[0]) & (stored <= pad[1])
    values = _modality(dataset, stored.astype(float))
    luts = voi_luts(dataset)
    if luts:
        grey = _to_8_bit(luts[0](values) / luts[0].highest)
    else:
        shares = _windowed(dataset, values)
        if shares is None:
            grey = _stretched(values, np.where(is_padding, 0, counts()))
        else:
            grey = _to_8_bit(shares)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    grey[is_padding] = 0
    return grey


def _modality(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Stored values (float64) through the modality transformation."""
    if lut := modality_lut(dataset):
        return lut(values)
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    # A slope of 0 would make the picture a single grey.
    return values * (slope or 1.0) + (intercept or 0.0)


def _windowed(dataset: Dataset, values: np.ndarray) -> np.ndarray | None:
    """Shares of white by the first window (PS3.3 C.11.2.1.2, C.11.2.1.3); None without one."""
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = _first(dataset, "VOILUTFunction")
    exact = function in ("LINEAR_EXACT", "SIGMOID")
    if centre is None or width is None or width <= 0 or (width < 1 and not exact):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -50, 50)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width == 1:
        return (values > centre - 0.5).astype(float)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _stretched(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Grey of values (float64) between the 0.5th and the 99.5th percentile of the pixels."""
    order = np.argsort(values, kind="stable")
    until = np.cumsum(counts[order])  # pixels up to each value
    if until[-1] == 0:
        return np.zeros(len(values), np.uint8)

    def percentile(share: float) -> float:
        """Between the two pixels next to it, as numpy's."""
        place = share * (until[-1] - 1)
        below, above = (
            values[order[np.searchsorted(until, end, side="right")]]
            for end in (np.floor(place), np.ceil(place))
        )
        return below + (above - below) * (place - np.floor(place))

    low, high = percentile(0.005), percentile(0.995)
    return _to_8_bit((values - low) / max(high - low, 1e-6))


def _square(picture: np.ndarray, aspect: float) -> np.ndarray:
    """Divide pixels of a height over width of `aspect` into square ones, interpolating linearly."""
    rows, columns = picture.shape
    if aspect == 1:
        return picture
    size = (columns, round(rows * aspect)) if aspect > 1 else (round(columns / aspect), rows)
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def _first(dataset: Dataset, keyword: str) -> Any:
    """The first of one or more values; None where there is none."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        return value[0] if value else None
    return value


def _number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a finite number; None where there is none."""
    value = _first(dataset, keyword)
    number = np.nan if value is None or value == "" else float(value)
    return number if np.isfinite(number) else None


def _to_8_bit(shares: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
