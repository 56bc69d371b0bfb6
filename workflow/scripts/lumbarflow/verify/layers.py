"""What a file holds when it is unwrapped: as it is, decompressed, decoded, field by field."""

from __future__ import annotations

import base64
import binascii
import bz2
import html
import lzma
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
from pydicom.dataset import Dataset

DEEPEST = 5  # wrappings within wrappings
LARGEST = 1 << 30  # bytes of one decompressed stream
_SHORTEST_RUN = 16  # base64 characters
_SHORTEST_HEX = 12
_PURE_RUN = 200  # longer runs of letters and digits are no text
_SAMPLE = 1 << 14  # bytes of which most that are no text are told
_LONGEST_FIELD = 1 << 16  # bytes; longer DICOM values are numbers, not text

_TEXT_BYTES = bytes([9, 10, 12, 13, 27, *range(32, 127), *range(128, 256)])
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_BASE64 = bytes(byte in _ALPHABET for byte in range(256))
_STANDARD = bytes.maketrans(b"-_", b"+/")
_HEX = bytes(byte in b"0123456789abcdefABCDEF" for byte in range(256))
_LINES = re.compile(rb"(?<=[A-Za-z0-9+/]{56})\r?\n(?=[A-Za-z0-9+/])")
_LONG_RUN = re.compile(rb"[A-Za-z0-9+/]{%d,}" % _PURE_RUN)
_UNICODE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_BYTE_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_ENTITY = re.compile(rb"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
_PERCENT = re.compile(rb"%[0-9a-fA-F]{2}")
_ZLIB_STARTS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


class Layer(NamedTuple):
    """Bytes to search: `text` where letters are letters, `rows` where a line is a table's row."""

    name: str
    data: bytes
    text: bool
    rows: bool = False


def layers(data: bytes, name: str = "content") -> Iterator[Layer]:
    """The content itself, then everything that is wrapped in it, at any depth up to `DEEPEST`.

    Structures are told by what they begin with, never by a file's name. Broken ones give what can
    be read of them.
    """
    yield from _unwrap(data, name, None, 0, False)


def is_text(data: bytes) -> bool:
    """Whether bytes are text in an 8-bit encoding or in UTF-16, without exception."""
    if len(data) > _SAMPLE and not is_text(data[:_SAMPLE]):
        return False
    strange = data.translate(None, _TEXT_BYTES)
    if not strange:
        high = len(data) - len(data.translate(None, bytes(range(128, 256))))
        return 3 * high <= len(data) or _is_utf8(data)
    nuls = max(data[parity::2].count(0) for parity in (0, 1))
    return 3 * nuls >= len(data) and not strange.translate(None, b"\0")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4  # cut within a letter
    return True


def _unwrap(data: bytes, name: str, text: bool | None, depth: int, rows: bool) -> Iterator[Layer]:
    """A layer and what is in it; `text` None: look."""
    if not data:
        return
    text = is_text(data) if text is None else text
    yield Layer(name, data, text, rows)
    if depth >= DEEPEST:
        return
    structure = next((read for start, at, read in _STRUCTURES if data.startswith(start, at)), None)
    if structure:
        try:
            for part, content, kind, is_rows in structure(data):
                yield from _unwrap(content, _below(name, part), kind, depth + 1, is_rows)
        except Exception:  # broken, or only looks like one: what it is made of is looked for below
            structure = None
    # Streams within compressed structures are the structure's own.
    if structure not in (_png, _gzip, _zip, _bz2, _xz, _parquet):
        for part, content, kind, is_rows in _streams(data):
            yield from _unwrap(content, _below(name, part), kind, depth + 1, is_rows)
    if text:
        decoders = (_escapes, _entities, _percents, _base64, _hex)
    else:
        decoders = (_base64, _hex) if depth == 0 else ()
    for decoder in decoders:
        for part, content, kind, is_rows in decoder(data):
            yield from _unwrap(content, _below(name, part), kind, depth + 1, is_rows or rows)


def _below(name: str, part: str) -> str:
    return part if name == "content" else f"{name} > {part}"


Part = tuple[str, bytes, bool | None, bool]


# Structures --------------------------------------------------------------------------------------


def _png(data: bytes) -> Iterator[Part]:
    at, pixels = 8, []
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        at += 12 + size
        name = f"PNG {kind.decode('latin-1')}"
        if kind == b"IDAT":
            pixels.append(body)
        elif kind in (b"zTXt", b"iCCP"):
            key, _, rest = body.partition(b"\0")
            yield name, key, True, False
            yield name, _inflate(rest[1:], zlib.MAX_WBITS)[0], None, False
        elif kind == b"iTXt":
            key, _, rest = body.partition(b"\0")
            language, _, rest2 = rest[2:].partition(b"\0")
            translated, _, content = rest2.partition(b"\0")
            if rest[:1] == b"\1":
                content = _inflate(content, zlib.MAX_WBITS)[0]
            for part in (key, language, translated, content):
                yield name, part, True, False
        elif kind not in (b"IHDR", b"PLTE", b"tRNS", b"IEND"):
            yield name, body, len(body) < _LONGEST_FIELD or None, False
        if kind == b"IEND":
            break
    if pixels:
        inflated, rest = _inflate(b"".join(pixels), zlib.MAX_WBITS)
        yield "PNG pixels", inflated, False, False
        yield "PNG after the pixels", rest, None, False
    yield "after the PNG", data[at:], None, False


def _jpeg(data: bytes) -> Iterator[Part]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xFE or 0xE0 <= data[at + 1] <= 0xEF:
            yield "JPEG segment", data[at + 4 : at + 2 + size], True, False
        at += 2 + size
    end = data.rfind(b"\xff\xd9")
    yield "after the JPEG", data[end + 2 :] if end > 0 else b"", None, False


def _gzip(data: bytes) -> Iterator[Part]:
    yield "gzip header", data[10:266], True, False
    while data.startswith(b"\x1f\x8b"):
        content, data = _inflate(data, 16 + zlib.MAX_WBITS)
        yield "gzip", content, None, False
    yield "after the gzip stream", data, None, False


def _bz2(data: bytes) -> Iterator[Part]:
    decompressor = bz2.BZ2Decompressor()
    yield "bzip2", decompressor.decompress(data, LARGEST), None, False
    yield "after the bzip2 stream", decompressor.unused_data, None, False


def _xz(data: bytes) -> Iterator[Part]:
    decompressor = lzma.LZMADecompressor()
    yield "xz", decompressor.decompress(data, LARGEST), None, False
    yield "after the xz stream", decompressor.unused_data, None, False


def _zip(data: bytes) -> Iterator[Part]:
    """Every local entry, whether the directory at the end lists it or not."""
    at = data.find(b"PK\3\4")
    while at >= 0:
        head = data[at : at + 30]
        if len(head) < 30:
            break
        flags, method = struct.unpack_from("<HH", head, 6)
        size, names, extra = struct.unpack_from("<I4xHH", head, 18)
        start = at + 30 + names + extra
        yield "zip entry name", data[at + 30 : start], True, False
        after = at + 4
        if method == 8:
            content, rest = _inflate(data[start:], -zlib.MAX_WBITS)
            yield "zip entry", content, None, False
            after = len(data) - len(rest) if content else after
        elif method == 0:
            end = start + size
            if flags & 8 or size == 0xFFFFFFFF:  # the size is behind the content
                end = data.find(b"PK\3\4", start)
            yield "zip entry", data[start : end if end >= 0 else None], None, False
            after = max(end, after)
        at = data.find(b"PK\3\4", after)
    directory = data.find(b"PK\1\2")
    if directory >= 0:
        yield "zip directory", data[directory:], True, False


def _parquet(data: bytes) -> Iterator[Part]:
    """Cells row by row, and the footer: schema, key-value metadata, least and greatest values."""
    size = int.from_bytes(data[-8:-4], "little")
    yield "Parquet footer", data[max(len(data) - 8 - size, 0) : -8], True, False
    table = pq.ParquetFile(pa.BufferReader(data))
    for key, value in (table.schema_arrow.metadata or {}).items():
        yield "Parquet metadata", key + b"\n" + value, True, False
    for batch in table.iter_batches(10_000):
        columns = [column for column in batch.columns if not pa.types.is_floating(column.type)]
        cells = [[_cell(cell) for cell in column.to_pylist()] for column in columns]
        rows = b"\n".join(b"\t".join(row) for row in zip(*cells, strict=True))
        yield "Parquet cells", rows, True, True


def _cell(cell: object) -> bytes:
    """A cell's text, quoted unless it is a number."""
    if isinstance(cell, bytes):
        return b'"' + cell + b'"'
    text = str(cell).replace("\n", " ") if isinstance(cell, str) else str(cell)
    return (text if isinstance(cell, (int, float)) else f'"{text}"').encode("utf-8", "replace")


def _sqlite(data: bytes) -> Iterator[Part]:
    # Files with a write-ahead log are marked so, and without their log cannot be opened then.
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(data[:18] + b"\1\1" + data[20:])
        connection.text_factory = bytes
        tables = connection.execute("select name, sql from sqlite_master").fetchall()
        yield "SQLite schema", b"\n".join(_cell(cell) for row in tables for cell in row), True, True
        for name, _ in tables:
            quoted = name.decode().replace('"', '""')
            try:
                rows = connection.execute(f'select * from "{quoted}"').fetchall()
            except sqlite3.Error:  # an index, or a broken page
                continue
            cells = (b"\t".join(_cell(cell) for cell in row) for row in rows)
            yield "SQLite cells", b"\n".join(cells), True, True
    finally:
        connection.close()


def _dicom(data: bytes) -> Iterator[Part]:
    """Preamble, file meta and elements as text; the rest is in the content as it is."""
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    yield "DICOM preamble", data[:128].strip(b"\0"), True, False
    for part, name in ((dataset.file_meta, "DICOM file meta"), (dataset, "DICOM elements")):
        # Shifted dates may be any day: those are compared attribute by attribute.
        texts = [
            b'"' + value.strip(b" \0") + b'"'
            for vr, value in fields(part)
            if vr not in ("DA", "DT") and len(value) < _LONGEST_FIELD
        ]
        yield name, b"\n".join(texts), True, False
    if dataset.file_meta.get("TransferSyntaxUID") == "1.2.840.10008.1.2.1.99":
        start = 144 + dataset.file_meta.get("FileMetaInformationGroupLength", 0)
        yield "DICOM deflated", _inflate(data[start:], -zlib.MAX_WBITS)[0], False, False


def fields(dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    """VR and bytes of every element of text or bytes at any depth, but not of pixels."""
    tags = dataset.keys()  # to go through the data set itself would decode it
    for tag in tags:
        element = dataset.get_item(tag)
        vr, value = str(element.VR), element.value
        if vr == "SQ" or not isinstance(value, (bytes, type(None))):
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    yield from fields(item)
                continue
            value = str(element.value).encode("utf-8", "replace")
        if value and vr not in _NUMBERS:
            yield vr, value


_NUMBERS = {"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OW", "OF", "OD", "OL", "OV"}
_NUMBERS |= {"IS", "DS"}

_STRUCTURES = (
    (b"\x89PNG\r\n\x1a\n", 0, _png),
    (b"\xff\xd8\xff", 0, _jpeg),
    (b"\x1f\x8b", 0, _gzip),
    (b"BZh", 0, _bz2),
    (b"\xfd7zXZ\0", 0, _xz),
    (b"PK\3\4", 0, _zip),
    (b"PAR1", 0, _parquet),
    (b"SQLite format 3\0", 0, _sqlite),
    (b"DICM", 128, _dicom),
)


# Streams anywhere --------------------------------------------------------------------------------


def _inflate(data: bytes, bits: int) -> tuple[bytes, bytes]:
    """What a stream inflates to, as far as it goes, and what is behind it."""
    decompressor = zlib.decompressobj(bits)
    parts, at, size = [], 0, 0
    try:
        while at < len(data) and not decompressor.eof and size < LARGEST:
            parts.append(decompressor.decompress(data[at : at + 65536]))
            at, size = at + 65536, size + len(parts[-1])
    except zlib.error:
        return b"".join(parts), b""
    rest = decompressor.unused_data + data[at:] if decompressor.eof else b""
    return b"".join(parts), rest


def _streams(data: bytes) -> Iterator[Part]:
    """zlib and gzip streams and zip entries anywhere."""
    for start, name, bits in (
        *((start, "zlib stream", zlib.MAX_WBITS) for start in _ZLIB_STARTS),
        (b"\x1f\x8b\x08", "gzip stream", 16 + zlib.MAX_WBITS),
    ):
        at = data.find(start, 1 if bits > zlib.MAX_WBITS else 0)
        while at >= 0:
            # Most starts are none: a short look shows it.
            if _inflate(data[at : at + 512], bits)[0] or _inflate(data[at : at + 65536], bits)[0]:
                content = _inflate(data[at:], bits)[0]
                if len(content) >= 4:
                    yield name, content, None, False
            at = data.find(start, at + 2)
    inner = data.find(b"PK\3\4", 1)
    if inner > 0:
        yield "zip within", data[inner:], False, False


# Text --------------------------------------------------------------------------------------------


def _escapes(data: bytes) -> Iterator[Part]:
    r"""\uXXXX and \/ of JSON and \xXX of Python."""
    if b"\\u" in data or b"\\/" in data:
        text = data.decode("utf-8", "surrogateescape").replace("\\/", "/")
        text = _UNICODE.sub(lambda match: _of_units(match[0]), text)
        if (unescaped := text.encode("utf-8", "surrogateescape")) != data:
            yield "unescaped", unescaped, True, False
    if b"\\x" in data:
        unescaped = _BYTE_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), data)
        if unescaped != data:
            yield "unescaped", unescaped, None, False


def _of_units(escapes: str) -> str:
    units = bytes.fromhex(escapes.replace("\\u", ""))
    return units.decode("utf-16-be", "replace")


def _entities(data: bytes) -> Iterator[Part]:
    if _ENTITY.search(data):
        text = html.unescape(data.decode("utf-8", "surrogateescape"))
        unescaped = text.encode("utf-8", "replace")
        if unescaped != data:
            yield "HTML entities", unescaped, True, False


def _percents(data: bytes) -> Iterator[Part]:
    if _PERCENT.search(data):
        unescaped = unquote_to_bytes(data)
        if unescaped != data:
            yield "percent-encoding", unescaped, True, False


def without_runs(data: bytes) -> bytes:
    """A text with blanks for its long runs of letters and digits, which are no words."""
    return _LONG_RUN.sub(lambda match: b" " * len(match[0]), data)


def _runs(data: bytes, table: bytes, shortest: int) -> Iterator[bytes]:
    """Runs of at least `shortest` bytes that the table marks; faster than a regular expression."""
    marks = data.translate(table)
    wanted = b"\1" * shortest
    at = marks.find(wanted)
    while at >= 0:
        end = marks.find(b"\0", at + shortest)
        end = len(data) if end < 0 else end
        yield data[at:end]
        at = marks.find(wanted, end)


def _base64(data: bytes) -> Iterator[Part]:
    """Runs of base64, standard or for URLs, from each of the four places that one may begin at."""
    data = _LINES.sub(b"", data) if is_text(data) else data
    texts: list[bytes] = []
    others: list[bytes] = []
    for run in _runs(data, _BASE64, _SHORTEST_RUN):
        run = run.translate(_STANDARD)
        for start in range(4):
            part = run[start : start + (len(run) - start) // 4 * 4 or None]
            rest = run[start + len(part) :]
            if len(rest) > 1:
                part += rest + b"=" * (4 - len(rest))
            try:
                decoded = base64.b64decode(part)
            except binascii.Error:
                continue
            begins = any(decoded.startswith(magic, at) for magic, at, _ in _STRUCTURES)
            if begins or (
                decoded.startswith(_ZLIB_STARTS) and _inflate(decoded, zlib.MAX_WBITS)[0]
            ):
                yield "base64", decoded, None, False
                break
            (texts if is_text(decoded) else others).append(decoded)
    yield from _joined("base64", texts, others)


def _hex(data: bytes) -> Iterator[Part]:
    texts: list[bytes] = []
    others: list[bytes] = []
    for run in _runs(data, _HEX, _SHORTEST_HEX):
        for part in (run[: len(run) // 2 * 2], run[1 : 1 + (len(run) - 1) // 2 * 2]):
            decoded = bytes.fromhex(part.decode())
            (texts if is_text(decoded) else others).append(decoded)
    yield from _joined("hexadecimal", texts, others)


def _joined(name: str, texts: list[bytes], others: list[bytes]) -> Iterator[Part]:
    """Many short pieces as one, which is quicker to search."""
    yield name, b"\n".join(texts), True, False
    yield name, b"\n\0".join(others), False, False
