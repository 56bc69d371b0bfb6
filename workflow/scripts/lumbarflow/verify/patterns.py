"""Many byte patterns in one pass over the data, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

_WIDTHS = (8, 6, 4)  # bytes of a pattern's end that are looked up, by its length
_CHUNK = 1 << 15  # positions at a time: what is computed for them stays in the cache
# Multiplying by odd numbers (2**64 / golden ratio, and any other) spreads all bits upward.
_MIXERS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_TABLE_BITS = 21, 24  # the first table stays in the cache, the second is asked of what is left


class Patterns:
    """Finds every occurrence of each of a set of byte patterns of at least four bytes.

    The last 8, 6 or 4 bytes at every position of the data are looked up in a table of hashes; what
    is there is compared. Hash and table are numpy's work, so the time hardly depends on the number
    of patterns (Rabin and Karp, 1987, with an exact comparison at the end).
    """

    def __init__(self, patterns: Iterable[bytes]):
        """Prepare for `patterns`, of at least four bytes each."""
        ends: dict[int, dict[int, list[bytes]]] = {}
        for pattern in set(patterns):
            width = next(width for width in _WIDTHS if len(pattern) >= width)
            end = int.from_bytes(pattern[-width:], "little")
            ends.setdefault(width, {}).setdefault(end, []).append(pattern)
        self._ends = [_Ends(width, by_end) for width, by_end in sorted(ends.items())]

    def find(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Each (start, pattern) in `data`."""
        for ends in self._ends:
            yield from ends.find(data)


class _Ends:
    """Patterns of which the last `width` bytes are looked up."""

    def __init__(self, width: int, by_end: dict[int, list[bytes]]):
        self._width, self._by_end = width, by_end
        # The bytes beyond the width are the highest ones: they are shifted out.
        self._drop = np.uint64(64 - 8 * width)
        self._sorted = np.sort(np.fromiter(by_end, np.uint64, len(by_end)) << self._drop)
        self._first, self._second = (
            self._table(min(max(len(by_end).bit_length() + 5, 10), bits), mixer)
            for bits, mixer in zip(_TABLE_BITS, _MIXERS, strict=True)
        )

    def _table(self, bits: int, mixer: np.uint64) -> tuple[np.ndarray, np.uint64, int]:
        table = np.zeros(1 << bits, bool)
        table[_hash(self._sorted, mixer, bits)] = True
        return table, mixer, bits

    def find(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        count = len(data) - self._width + 1
        if count <= 0:
            return
        # Eight bytes from every position on, as one number each; nothing is copied for it.
        every = np.ndarray((count,), "<u8", data + bytes(8 - self._width), 0, (1,))
        # Working in the same few arrays: new ones would cost more than the work.
        space = min(_CHUNK, count)
        keys, mixed = np.empty(space, np.uint64), np.empty(space, np.uint64)
        found = np.empty(space, bool)
        for start in range(0, count, _CHUNK):
            size = min(_CHUNK, count - start)
            np.left_shift(every[start : start + size], self._drop, out=keys[:size])
            _hash(keys, *self._first[1:], out=mixed)  # beyond `size` old ones: not looked at
            self._first[0].take(mixed.view(np.int64), out=found, mode="clip")
            there = np.flatnonzero(found[:size])
            left = keys[there]
            good = self._second[0][_hash(left, *self._second[1:]).view(np.int64)]
            there, left = there[good], left[good]
            if not len(left):
                continue
            nearest = np.minimum(np.searchsorted(self._sorted, left), len(self._sorted) - 1)
            for position in (start + there[self._sorted[nearest] == left]).tolist():
                end = position + self._width
                for pattern in self._by_end[int.from_bytes(data[position:end], "little")]:
                    if data.endswith(pattern, 0, end):
                        yield end - len(pattern), pattern


def _hash(
    keys: np.ndarray, mixer: np.uint64, bits: int, out: np.ndarray | None = None
) -> np.ndarray:
    """The highest `bits` of the products, which depend on all bits of the keys."""
    mixed = np.multiply(keys, mixer, out=out)
    mixed >>= np.uint64(64 - bits)
    return mixed.view(np.int64)  # as indices, unsigned ones are several times slower
