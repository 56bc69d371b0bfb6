"""A plain search of bytes for secrets: no tags, no rules, nothing of the package that is tested."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
from planted import SHORTEST, Secret

_PREFIX = 6  # bytes that a pattern is first looked for by
_BITS = 24
_DIGITS = frozenset(b"0123456789")


class Search:
    """All secrets in all forms, looked for at once.

    A form is the text as it is, in capitals or in small letters, in UTF-8, UTF-16 (both orders) or
    Latin-1, or the bytes that stood in the source. Each place of a file whose first bytes are those
    of a form is compared with all of them. Digits are found only where no others are beside them.
    """

    def __init__(self, secrets: Iterable[Secret]):
        self._secrets: dict[bytes, set[Secret]] = defaultdict(set)
        for secret in secrets:
            for form in forms(secret):
                self._secrets[form].add(secret)
        self._lengths: dict[bytes, set[int]] = defaultdict(set)
        for form in self._secrets:
            if len(form) < SHORTEST:
                raise ValueError(f"{form!r} is too short to be searched for")
            self._lengths[form[:_PREFIX]].add(len(form))
        self._marks = np.zeros(2**_BITS, bool)
        starts = b"".join(prefix.ljust(8, b"\0") for prefix in self._lengths)
        self._marks[_hashes(np.frombuffer(starts, "<u8"))] = True

    def found(self, data: bytes) -> set[Secret]:
        """The secrets of which a form stands in `data`."""
        padded = data + b"\0" * 8
        # A number of 8 bytes begins at every byte.
        windows = np.ndarray((len(data),), "<u8", padded, strides=(1,))
        found: set[Secret] = set()
        for place in np.flatnonzero(self._marks[_hashes(windows)]).tolist():
            for length in self._lengths.get(data[place : place + _PREFIX], ()):
                form = data[place : place + length]
                if form in self._secrets and not _in_a_number(data, place, form):
                    found |= self._secrets[form]
        return found


def _hashes(windows: np.ndarray) -> np.ndarray:
    first = windows & np.uint64(2 ** (8 * _PREFIX) - 1)
    return (first * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _BITS)


def _in_a_number(data: bytes, place: int, form: bytes) -> bool:
    if not form.isdigit():
        return False
    around = data[place - 1 : place] + data[place + len(form) : place + len(form) + 1]
    return not _DIGITS.isdisjoint(around)


def forms(secret: Secret) -> set[bytes]:
    """The bytes that a secret may stand in a file as."""
    found = set(secret.encoded)
    for text in {secret.text, secret.text.upper(), secret.text.lower()}:
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "latin-1"):
            try:
                found.add(text.encode(encoding))
            except UnicodeEncodeError:
                continue  # not in Latin-1
    return found


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what is packed in them: PNG, Parquet, JSON, deflated DICOM."""
    data = path.read_bytes()
    yield data
    if data.startswith(b"\x89PNG"):
        yield from _png(data)
    elif data[:4] == b"PAR1":
        table = pyarrow.parquet.read_table(path)
        yield str(table.schema.metadata).encode()
        yield pd.DataFrame(table.to_pydict()).to_csv().encode()
    elif path.suffix == ".json":
        yield json.dumps(json.loads(data), ensure_ascii=False).encode()
    elif data[128:132] == b"DICM":
        yield from inflated(data)


def inflated(data: bytes) -> Iterator[bytes]:
    """The data set of a DICOM file that is deflated."""
    if b"1.2.840.10008.1.2.1.99\0" in data[:1500] or b"1.2.840.10008.1.2.1.99" in data[:1500]:
        start = 144 + int.from_bytes(data[140:144], "little")
        yield zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:])


def _png(data: bytes) -> Iterator[bytes]:
    """Pixels of a PNG, and its other chunks, inflated where they are deflated."""
    place, pixels = 8, b""
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IDAT":
            pixels += content
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            yield content
            for start in range(len(content)):
                if content[start : start + 1] == b"x":
                    try:
                        yield zlib.decompress(content[start:])
                    except zlib.error:
                        continue
    yield zlib.decompress(pixels)
