"""The verifier finds every kind of leak, and raises no alarm on what the workflow writes."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import logging
import lzma
import os
import sqlite3
import struct
import subprocess
import sys
import threading
import urllib.parse
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from test_deidentify import film as plain_film
from test_deidentify import saved

from lumbarflow.acquire.films import take_dicom
from lumbarflow.acquire.folder import import_folder
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError
from lumbarflow.verify.patterns import Patterns
from lumbarflow.verify.quarantine import quarantine
from lumbarflow.verify.search import Verification, search
from lumbarflow.verify.values import Witness
from lumbarflow.verify.words import background

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2] / "../shared/data"))
SAMPLES = DATA / "dicom_samples"
PACKAGE = Path(__file__).parents[2] / "workflow" / "scripts"
LOG = logging.getLogger("test_verify")
IDS = ("img-0123456789abcdef", "std-0123456789abcdef", "pat-0123456789abcdef")
STUDY_UID = "1.2.826.0.1.3680043.10.77.4411.20417730012"
OWN_UID = "2.25.151562373451245781223477310064520913377"
RANDOM = np.random.default_rng(4).bytes


def original(**changes) -> FileDataset:
    """A film with identifying values of every sort."""
    values = {
        "PatientName": "Kowalczyk^Annamaria^Zofia",
        "PatientID": "PID20417",
        "OtherPatientIDs": ["730412", "00-551-2290"],
        "PatientBirthDate": "19520417",
        "StudyDate": "20190314",
        "AccessionNumber": "8841207733",
        "ReferringPhysicianName": "Müller^Jürgen^^Dr.",
        "OperatorsName": "Page^May",
        "PerformingPhysicianName": "Li^An",
        "RequestingPhysician": "Ngo^Yun",
        "InstitutionName": "Hartungsche Privatklinik Oberstdorf",
        "PatientTelephoneNumbers": "+49 8322 4471903",
        "PatientComments": "Fell from the cherry tree behind the barn",
        "StudyInstanceUID": STUDY_UID,
        "SOPInstanceUID": OWN_UID,
        "DeviceSerialNumber": "SN77K2041",
        "StationName": "ROENTGEN2",
        "StudyID": "42",
        "Manufacturer": "Siemens",
        "SpecificCharacterSet": "ISO_IR 192",
    }
    return plain_film(**(values | changes))


def witness(*originals: Dataset, ids=IDS) -> Witness:
    seen = Witness()
    for each in originals or [original()]:
        seen.see(each, None, ids)
    return seen


def look(folder: Path, seen: Witness | None = None, **how) -> Verification:
    return search(seen or witness(), [folder], **({"sample": "all", "log": LOG} | how))


def kinds(folder: Path, seen: Witness | None = None) -> set[str]:
    return {found.kind for found in look(folder, seen).findings}


# One planted failure a kind ----------------------------------------------------------------------


def text(content: str, name: str = "run.log", encoding: str = "utf-8"):
    return lambda folder: (folder / name).write_bytes(content.encode(encoding))


def binary(content: bytes | Callable[[], bytes], name: str = "blob.bin"):
    return lambda folder: (folder / name).write_bytes(content)


def noise(content: bytes) -> bytes:
    """Random bytes with something in their midst."""
    return RANDOM(3001) + content + RANDOM(2003)


NAME = b"Kowalczyk^Annamaria"
LINE = b"12:01:33 took a film of Kowalczyk^Annamaria, all well\n" * 3


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png(*chunks: tuple[bytes, bytes], pixels: bytes | None = None, behind: bytes = b"") -> bytes:
    """A small picture with further chunks before its pixels."""
    rows = zlib.compress(pixels or b"".join(b"\0" + bytes(range(40, 72)) for _ in range(32)))
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", rows[:40]), (b"IDAT", rows[40:]), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in every:
        parts += [struct.pack(">I", len(body)), kind, body]
        parts.append(struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts) + behind


ZTXT = (b"zTXt", b"Comment" + bytes(2) + zlib.compress(b"of Zofia"))
GZIP_NAME = b"\x1f\x8b\x08\x08" + bytes(6) + b"Zofia.txt\0\x03\0" + bytes(8)


def jpeg(comment: bytes) -> bytes:
    data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    return data[:2] + segment + data[2:]


def zipped(name: str, content: bytes, method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("data/pickle.bin", RANDOM(200))
        archive.writestr(name, content)
    return stream.getvalue()


def table(column: str, cells: list, **metadata: str):
    def write(folder: Path) -> None:
        cells_ = pa.table({"image_id": ["img-1"] * len(cells), column: cells})
        pq.write_table(cells_.replace_schema_metadata(metadata), folder / "manifest.parquet")

    return write


def database(value: object):
    def write(folder: Path) -> None:
        connection = sqlite3.connect(folder / "state.db")
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table job (id integer, what)")
        connection.execute("insert into job values (1, ?)", (value,))
        connection.commit()
        connection.close()

    return write


def dicom(change: Callable[[FileDataset], None], name: str = f"{IDS[0]}.dcm"):
    """A de-identified object in which something is left."""

    def write(folder: Path) -> None:
        film = plain_film(PatientID=IDS[2], PatientName=IDS[2], StudyDate="20181103")
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        film.SeriesInstanceUID, film.StudyInstanceUID = "2.25.2", "2.25.3"
        change(film)
        (folder / name).write_bytes(saved(film))

    return write


def attribute(keyword: str, value: object):
    return dicom(lambda film: setattr(film, keyword, value))


def nested(film: FileDataset) -> None:
    inner, outer = Dataset(), Dataset()
    inner.private_block(0x0013, "MAKER", create=True).add_new(1, "UN", b"for Kowalczyk, urgent")
    outer.ReferencedSeriesSequence = [inner]
    film.ReferencedStudySequence = [outer]


def in_pixels(film: FileDataset) -> None:
    # Twelve bits leave no letters in the high bytes: an 8-bit film may hold any.
    data = bytearray(np.tile(np.arange(60, 160, dtype=np.uint8), 200).tobytes())
    data[7001 : 7001 + len(NAME)] = NAME
    film.Rows, film.Columns, film.PixelData = 100, 200, bytes(data)
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit = 7


def deflated(film: FileDataset) -> None:
    film.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    film.ImageComments = "seen by May Page"


def named(name: str):
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("nothing")

    return write


def linked(folder: Path) -> None:
    (folder / "link").symlink_to("/mnt/pacs/Kowalczyk_Annamaria/IM1")


def row(day: str, near: str = IDS[1]) -> str:
    return json.dumps({"study_id": near, "view": "lateral", "when": day}, indent=1)


def page(content: str) -> str:
    return f"<!doctype html><html><body><h1>Report</h1>{content}</body></html>"


LEAKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    # Names, in a log
    "name with carets": ("PatientName", text("a film of Kowalczyk^Annamaria^Zofia")),
    "name in capitals": ("PatientName", text("a film of KOWALCZYK^ANNAMARIA")),
    "name in lower case": ("PatientName", text("a film of kowalczyk annamaria")),
    "name with comma": ("PatientName", text("a film of Kowalczyk, Annamaria")),
    "given name first": ("PatientName", text("a film of Annamaria Kowalczyk")),
    "name without separator": ("PatientName", text("a film of KowalczykAnnamaria")),
    "name with underscore": ("PatientName", text("file Kowalczyk_Annamaria_1.dcm")),
    "family name alone": ("PatientName", text("error: KOWALCZYK not found")),
    "given name alone": ("PatientName", text("error: annamaria not found")),
    "second given name alone": ("PatientName", text("error: zofia not found")),
    "name in camel case": ("PatientName", text("patientKowalczykFilm")),
    "name in UTF-16": ("PatientName", text("a film of Kowalczyk", encoding="utf-16")),
    "name in UTF-16, big endian": ("PatientName", text("a film of Zofia", encoding="utf-16-be")),
    "umlaut in UTF-8": ("ReferringPhysicianName", text("by Müller")),
    "umlaut in capitals": ("ReferringPhysicianName", text("BY MÜLLER")),
    "umlaut in Latin-1": ("ReferringPhysicianName", text("by Müller", encoding="latin-1")),
    "umlaut as ue": ("ReferringPhysicianName", text("by Mueller")),
    "umlaut left out": ("ReferringPhysicianName", text("by MULLER")),
    "umlaut decomposed": ("ReferringPhysicianName", text("by Mu\u0308ller")),
    "name of common words": ("OperatorsName", text("seen by May Page at noon")),
    "name of common words, carets": ("OperatorsName", text("seen by page^may")),
    "name of short words": ("PerformingPhysicianName", text("seen by Li, An")),
    "name of short words, carets": ("PerformingPhysicianName", text("seen by LI^AN")),
    "name of short, rare words": ("RequestingPhysician", text("seen by yun ngo")),
    # Numbers, UIDs, texts, dates
    "patient number": ("PatientID", text("retrieving pid20417 now")),
    "number quoted": ("OtherPatientIDs", text('{"who": "730412"}', "a.json")),
    "number after a word": ("OtherPatientIDs", text("rejected patient 730412: no pixels")),
    "number in a path": ("OtherPatientIDs", text("cannot open /in/730412.dcm")),
    "number without its dashes": ("OtherPatientIDs", text("key 005512290")),
    "number without its zeros": ("OtherPatientIDs", text("key 5512290", "id_5512290.txt")),
    "accession number": ("AccessionNumber", text("acc=8841207733;")),
    "accession number, UTF-16": ("AccessionNumber", text("acc 8841207733", encoding="utf-16")),
    "telephone number": ("PatientTelephoneNumbers", text("call +4983224471903")),
    "serial number": ("DeviceSerialNumber", text("made on sn77k2041.")),
    "station": ("StationName", text("from ROENTGEN2")),
    "UID": ("StudyInstanceUID", text(f"study {STUDY_UID}")),
    "UID with dashes": ("StudyInstanceUID", text(STUDY_UID.replace(".", "-"))),
    "UID as a prefix": ("StudyInstanceUID", text(f"{STUDY_UID}.17.2")),
    "last part of a UID": ("StudyInstanceUID", text("study 20417730012")),
    "UID as a UUID": ("SOPInstanceUID", text(f"key {uuid.UUID(int=int(OWN_UID[5:]))}")),
    "UID in 16 bytes": ("SOPInstanceUID", binary(noise(int(OWN_UID[5:]).to_bytes(16, "big")))),
    "institution": ("InstitutionName", text("at HARTUNGSCHE PRIVATKLINIK OBERSTDORF")),
    "word of the institution": ("InstitutionName", text("host oberstdorf-pacs")),
    "piece of a comment": ("PatientComments", text("note: from the cherry tree")),
    "birth date as DICOM": ("PatientBirthDate", text(row("19520417"), "a.json")),
    "birth date as ISO": ("PatientBirthDate", text(row("1952-04-17"), "a.json")),
    "birth date in German": ("PatientBirthDate", text(row("17.4.1952"), "a.json")),
    "birth date in American": ("PatientBirthDate", text(row("04/17/1952"), "a.json")),
    "birth date in six digits": ("PatientBirthDate", text(row("520417"), "a.json")),
    "birth date in words": ("PatientBirthDate", text(row("17 Apr 1952"), "a.json")),
    "date in the study's own file": ("StudyDate", text("on 2019-03-14", f"{IDS[1]}.json")),
    # Text that is written otherwise
    "JSON escape": ("ReferringPhysicianName", text(json.dumps("by Müller"), "a.json")),
    "JSON escape in JSON": (
        "ReferringPhysicianName",
        text(json.dumps(json.dumps("by Müller")).replace("\\\\", "\\"), "a.json"),
    ),
    "JSON escape of ASCII": (
        "PatientName",
        text("".join(f"\\u{ord(letter):04x}" for letter in "Kowalczyk"), "a.json"),
    ),
    "Python's bytes": ("ReferringPhysicianName", text(repr("by Müller".encode()))),
    "HTML entity": ("ReferringPhysicianName", text(page("by M&uuml;ller"), "index.html")),
    "numeric HTML entity": ("PatientName", text(page("K&#111;walczyk"), "index.html")),
    "percent-encoding": ("ReferringPhysicianName", text("GET /?name=M%C3%BCller")),
    "base64": ("PatientName", text(b64(LINE))),
    "base64, second place": ("PatientName", text("x" + b64(LINE))),
    "base64, third place": ("PatientName", text("xx" + b64(LINE))),
    "base64, fourth place": ("PatientName", text("xxx" + b64(LINE))),
    "base64 in lines": ("PatientName", text(base64.encodebytes(LINE * 3).decode())),
    "base64 for URLs": (
        "PatientName",
        text(base64.urlsafe_b64encode(b"\xfb\xff\xbe" + LINE).decode()),
    ),
    "base64 in base64": ("PatientName", text(b64(b64(LINE).encode()))),
    "base64 in the midst of bytes": ("PatientName", binary(noise(base64.b64encode(LINE)))),
    "UTF-16 in base64": ("PatientName", text(b64("for Kowalczyk, urgent".encode("utf-16-le")))),
    "hexadecimal": ("PatientName", text(f"key={NAME.hex()}")),
    "hexadecimal, odd": ("PatientName", text(f"key=a{NAME.hex().upper()}")),
    "deflated in base64": ("PatientName", text(b64(zlib.compress(LINE)))),
    "picture in a page": (
        "PatientName",
        text(
            page(f'<img src="data:image/png;base64,{b64(png(ZTXT))}">'),
            "index.html",
        ),
    ),
    # Streams
    "random bytes": ("PatientName", binary(noise(NAME))),
    "random bytes, UTF-16": ("PatientName", binary(noise(NAME.decode().encode("utf-16-le")))),
    "random bytes, family name": ("PatientName", binary(noise(b"Kowalczyk\0"))),
    "gzip": ("PatientName", binary(gzip.compress(LINE), "run.log.gz")),
    "gzip, name of the file": ("PatientName", binary(GZIP_NAME)),
    "second gzip member": ("PatientName", binary(gzip.compress(b"a") + gzip.compress(LINE))),
    "bzip2": ("PatientName", binary(bz2.compress(LINE))),
    "xz": ("PatientName", binary(lzma.compress(LINE))),
    "zlib in the midst of bytes": ("PatientName", binary(noise(zlib.compress(LINE)))),
    "gzip in the midst of bytes": ("PatientName", binary(noise(gzip.compress(LINE)))),
    "zip": ("PatientName", binary(zipped("a.txt", LINE, zipfile.ZIP_DEFLATED), "model.pth")),
    "zip, stored": ("PatientName", binary(zipped("a.txt", LINE, zipfile.ZIP_STORED))),
    "zip, name of the entry": ("PatientName", binary(zipped("Zofia", b"", zipfile.ZIP_STORED))),
    "zip in the midst of bytes": (
        "PatientName",
        binary(noise(zipped("a.txt", LINE, zipfile.ZIP_DEFLATED))),
    ),
    "gzip in zip": (
        "PatientName",
        binary(zipped("a.gz", gzip.compress(LINE), zipfile.ZIP_STORED)),
    ),
    # Pictures
    "PNG tEXt": ("PatientName", binary(png((b"tEXt", b"Comment\0of Zofia")), "a.png")),
    "PNG zTXt": ("PatientName", binary(png(ZTXT))),
    "PNG iTXt": ("PatientName", binary(png((b"iTXt", b"Title\0\0\0en\0\0" + b"of Zofia")))),
    "PNG iTXt, compressed": (
        "ReferringPhysicianName",
        binary(png((b"iTXt", b"Title\0\1\0en\0\0" + zlib.compress("Müller".encode())))),
    ),
    "PNG eXIf": ("PatientName", binary(png((b"eXIf", b"MM\0*\0\0\0\x08" + b"Zofia\0")))),
    "PNG chunk of one's own": ("PatientName", binary(png((b"prVt", b"\1\2Zofia\0")))),
    "PNG pixels": ("PatientName", binary(png(pixels=RANDOM(400) + NAME + RANDOM(400)))),
    "behind the PNG": ("PatientName", binary(png(behind=b"of Zofia"))),
    "JPEG comment": ("PatientName", binary(jpeg(b"of Zofia"), "a.jpg")),
    "behind the JPEG": ("PatientName", binary(jpeg(b"none") + b"of Zofia", "a.jpg")),
    # Tables
    "Parquet cell": ("PatientName", table("note", ["of Zofia", "b"])),
    "Parquet bytes": ("PatientName", table("note", [b"of Zofia", b"\xff"])),
    "Parquet list": ("PatientName", table("note", [["a", "Zofia"], []])),
    "Parquet category": (
        "PatientName",
        lambda folder: pd.DataFrame({"a": pd.Categorical(["Zofia"])}).to_parquet(folder / "a"),
    ),
    "Parquet number": ("AccessionNumber", table("accession", [8841207733])),
    "Parquet metadata": ("PatientName", table("note", ["a"], origin="of Zofia")),
    "Parquet column": ("PatientName", table("Zofia", ["a"])),
    "Parquet, birth date": (
        "PatientBirthDate",
        lambda folder: pd.DataFrame(
            {"image_id": [IDS[0], "img-2"], "born": pd.to_datetime(["1952-04-17", "1999-01-01"])}
        ).to_parquet(folder / "a.parquet"),
    ),
    "SQLite": ("PatientName", database("of Zofia")),
    "SQLite bytes": ("PatientName", database(b"of Zofia")),
    # Objects
    "DICOM attribute": ("PatientName", attribute("ImageComments", "of Zofia")),
    "DICOM, name of common words": ("OperatorsName", attribute("ImageComments", "by May Page")),
    "DICOM, nested private bytes": ("PatientName", dicom(nested)),
    "DICOM file meta": (
        "PatientName",
        dicom(lambda film: setattr(film.file_meta, "SourceApplicationEntityTitle", "ZOFIA")),
    ),
    "DICOM preamble": (
        "PatientName",
        dicom(lambda film: setattr(film, "preamble", b"Zofia".ljust(128, b"\0"))),
    ),
    "DICOM overlay": (
        "PatientName",
        dicom(lambda film: film.add_new(0x60003000, "OW", noise(NAME) + b"\0")),
    ),
    "DICOM pixels": ("PatientName", dicom(in_pixels)),
    "DICOM deflated": ("OperatorsName", dicom(deflated)),
    "DICOM in base64": (
        "OperatorsName",
        text(b64(saved(plain_film(ImageComments="seen by May Page")))),
    ),
    "date at its attribute": ("StudyDate", attribute("StudyDate", "20190314")),
    "short number at its attribute": ("StudyID", attribute("StudyID", "42")),
    "date in a text": ("PatientBirthDate", attribute("StudyComments", "born 1952-04-17")),
    # Names of files
    "name of a file": ("PatientName", named("Kowalczyk.txt")),
    "name of a folder": ("PatientName", named("zofia/a.txt")),
    "name of folder and file": ("OperatorsName", named("Page/May.txt")),
    "number as a file": ("OtherPatientIDs", named("730412")),
    "UID as a file": ("StudyInstanceUID", named(f"{STUDY_UID.replace('.', '_')}.png")),
    "base64 as a file": ("PatientName", named(b64(b"results/Kowalczyk.dcm"))),
    "percent-encoding as a file": (
        "ReferringPhysicianName",
        named(urllib.parse.quote("Müller") + ".txt"),
    ),
    "target of a link": ("PatientName", linked),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_found(tmp_path, leak, caplog):
    kind, plant = LEAKS[leak]
    (tmp_path / "out").mkdir()
    plant(tmp_path / "out")
    with caplog.at_level(logging.INFO):
        found = look(tmp_path / "out").findings
    assert kind in {each.kind for each in found}
    told = caplog.text + "".join(map(repr, found))
    for value in ("Kowalczyk", "zofia", "müller", "20417", "730412", "0417", "page/", "oberst"):
        assert value not in told.lower().replace(str(tmp_path).lower(), "")


# No alarm ----------------------------------------------------------------------------------------

HARMLESS = {
    "words": "the page may take a while: Li and An are an item, the model may page; siemens",
    "parts of words": "kowalczykowa? no. zofiaxyz, oberstdorfer, limit, annamariam",
    "longer numbers": "18841207733 88412077330 0.8841207733 8841207733.5 a8841207733f",
    "counts": '730412 bytes, 730412 of 1730412, {"size": 730412, "x": [730412, 1]}',
    "other UIDs": f"{STUDY_UID[:-1]} 9{STUDY_UID} {STUDY_UID}1 1.2.840.10008.1.2.1",
    "dates of nobody": "19520417 2019-03-14 and born 17.04.1952",
    "words of the program in bytes": "the page may turn\0, may page\0\1\2",
    "dates of others": json.dumps({"study_id": "std-00000000000000ff", "day": "2019-03-14"}),
    "hashes": "d0b88412077330ff 5e55a8841207733b 19520417fedcba98",
    "equipment": "Siemens SIEMENS",
    "short numbers": "42 of 42 films, StudyID 42",
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_there_anyway_is_no_leak(tmp_path, case):
    (tmp_path / "run.log").write_text(HARMLESS[case])
    assert not look(tmp_path).findings


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Witness]:
    """What the real code makes of a folder and of single objects, with records and logs."""
    folder = tmp_path_factory.mktemp("verify")
    results, films = folder / "results", folder / "films"
    keyed, seen = Pseudonyms(b"a key for these tests only"), Witness()
    handler = logging.FileHandler(folder / "import.log")
    LOG.addHandler(handler)
    films.mkdir()
    rng = np.random.default_rng(2)
    for number, name in enumerate(["Page^May", "Li^An", "Model^Spine", "Brandstetter^Katharina"]):
        # Flat, smooth and noisy pictures, among whose values letters are common.
        grey = np.linspace(60, 130, 300 * 200).reshape(200, 300) + rng.normal(0, number, (200, 300))
        film = original(
            PatientName=name,
            PatientID=f"{number}730{number}",
            SOPInstanceUID=f"1.2.826.0.1.3680043.10.77.{number}.1",
            StudyInstanceUID=f"1.2.826.0.1.3680043.10.77.{number}",
            StudyDate=f"2019031{number}",
            BodyPartExamined="LSPINE",
            SeriesDescription="Lumbar spine lateral",
            Rows=200,
            Columns=300,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelData=grey.astype(np.uint8).tobytes(),
        )
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = films / f"Film of {name.replace('^', ' ')}.dcm"
        path.write_bytes(saved(film))
        ids = (keyed.image(film.SOPInstanceUID), keyed.study(film.StudyInstanceUID), None)
        seen.see(pydicom.dcmread(path), path.relative_to(films), ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_folder(
            films, Deidentifier(keyed), results / "images", results / "images/manifest.parquet",
            "lateral", {}, None, LOG,
        )  # fmt: skip
    LOG.removeHandler(handler)
    (results / "logs").mkdir()
    log = (folder / "import.log").read_text()
    (results / "logs/import_folder.log").write_text(
        f"[Thu Mar 14 12:01:00 2019]\n2019-03-14\n{log}"
    )
    records = results / ".snakemake/metadata"
    records.mkdir(parents=True)
    for path in [*results.rglob("*.*")]:
        name = base64.urlsafe_b64encode(str(path).encode()).decode()
        content = {"code": "page may", "starttime": 1732282740.41, "params": [repr(str(path))]}
        (records / name[-250:]).write_text(json.dumps(content | {"size": path.stat().st_size}))
    (results / ".snakemake/conda").mkdir()
    (results / ".snakemake/conda/Brandstetter.txt").write_text("software, not ours")
    return results, seen


def test_no_alarm_on_what_the_workflow_writes(written):
    results, seen = written
    verification = look(results, seen)
    assert verification.findings == []
    audit = verification.audit
    assert audit["objects"] == audit["originals"] == 4
    assert audit["files"] >= 20 and audit["bytes"] > 4 * 200 * 300
    assert audit["values"] > 30 and audit["not_searchable"] >= 3
    assert audit["bytes_by_layer"]["PNG pixels"] > 4 * 200 * 300
    assert {"DICOM elements", "Parquet cells", "base64"} <= set(audit["bytes_by_layer"])
    json.dumps(audit)


def test_an_original_among_the_results_is_found(written, tmp_path):
    results, seen = written
    film = next((results.parent / "films").iterdir())
    (tmp_path / "img-1.dcm").write_bytes(film.read_bytes())
    assert len(kinds(tmp_path, seen)) > 5


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample objects in {SAMPLES}")
@pytest.mark.filterwarnings("ignore")
def test_no_alarm_on_real_objects(tmp_path):
    keyed, seen = Pseudonyms(b"a key for these tests only"), Witness()
    for path in sorted(SAMPLES.rglob("*")):
        if path.is_file() and path.stat().st_size < 1 << 20:
            film = pydicom.dcmread(path, force=True)
            ids = [keyed.image(str(film.get("SOPInstanceUID"))), None, None]
            seen.see(film, path.relative_to(SAMPLES), ids)
            take_dicom(film, Deidentifier(keyed), tmp_path, {ids[0]: "accept"}, None)
    assert look(tmp_path, seen).findings == []
    assert len([*tmp_path.rglob("*.dcm")]) >= 2


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32), st.booleans())
def test_no_alarm_in_smooth_or_random_bytes(seed, smooth):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, 200_000)
    if smooth:
        data = np.clip(rng.normal(0, 2, 200_000).cumsum() % 60 + 65, 0, 255)
    assert not found_in(data.astype(np.uint8).tobytes(), WITNESS)


WITNESS = witness()


def found_in(content: bytes, seen: Witness) -> set[str]:
    """Kinds found in a file of this content."""
    path = Path(os.environ["PYTEST_TMP"]) / "blob.bin"
    path.write_bytes(content)
    return {found.kind for found in look(path, seen).findings}


@pytest.fixture(autouse=True, scope="module")
def folder_for_examples(tmp_path_factory):
    """A folder that the examples of one test share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_TMP", str(tmp_path_factory.mktemp("examples")))
        yield


# Any name, any form ------------------------------------------------------------------------------

LATIN = "abcdefghijklmnopqrstuvwxyzäöüßéèčłñå"
SCRIPTS = {
    "ISO_IR 100": "abcdefghijklmnopqrstuvwxyzäöüéèñå",
    "ISO_IR 144": "абвгдежзийклмнопрстуфхцчшщ",
    "ISO_IR 126": "αβγδεζηθικλμνξοπρστυφχψω",
    "ISO 2022 IR 149": "김이박최정강조윤장임한오서신권황안송류전홍길동",
    "ISO 2022 IR 87": "山田太郎佐藤鈴木高橋伊渡辺中村小林加吉",
    "GB18030": "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗",
    "ISO_IR 192": LATIN,
}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_name_in_any_form_is_found_in_text_and_in_random_bytes(data):
    charset = data.draw(st.sampled_from(sorted(SCRIPTS)))
    letters = st.sampled_from(SCRIPTS[charset])
    wide = charset in ("ISO 2022 IR 149", "ISO 2022 IR 87", "GB18030")
    part = st.text(letters, min_size=2 if wide else 7, max_size=9).map(str.title)
    family, given_name = data.draw(part), data.draw(part)
    assume(not {family.lower(), given_name.lower()} & background())
    film = Dataset()
    film.SpecificCharacterSet = ["", charset] if "2022" in charset else charset
    film.PatientName = f"{family}^{given_name}"
    seen = witness(film)
    separator = data.draw(st.sampled_from(["^", " ", ", ", "_", "-", ""]))
    order = data.draw(st.permutations([family, given_name]))
    form = data.draw(st.sampled_from([str, str.upper, str.lower]))(separator.join(order))
    codecs = {"ISO_IR 100": "latin-1", "ISO_IR 144": "iso8859_5", "ISO_IR 126": "iso8859_7",
              "ISO 2022 IR 149": "euc_kr", "ISO 2022 IR 87": "iso2022_jp",
              "GB18030": "gb18030", "ISO_IR 192": "utf-8"}  # fmt: skip
    codec = data.draw(st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", codecs[charset]]))
    if wide and codec.startswith("utf-16"):
        return  # Chinese letters in UTF-16 look like Latin ones: found in UTF-16 text only
    try:
        planted = form.encode(codec)
    except UnicodeEncodeError:  # ß in capitals, a final sigma
        return
    # Four bytes of a wide script are no evidence among random ones.
    places = [lambda content: b"by " + content + b"\n"]
    if len(planted) > 9 and len(set(planted)) > 8 and not wide and form.isascii():
        places.append(noise)
    wrap = data.draw(st.sampled_from([*places, lambda content: base64.b64encode(b"by " + content)]))
    assert "PatientName" in found_in(wrap(planted), seen)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample objects in {SAMPLES}")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(p.name for p in (SAMPLES / "charsets").glob("*")))
def test_names_of_real_objects_in_every_character_set(tmp_path, name):
    film = pydicom.dcmread(SAMPLES / "charsets" / name, force=True)
    raw = bytes(film.get_item("PatientName").value)
    seen = witness(film)
    for number, content in enumerate(
        [raw, str(film.PatientName).encode(), str(film.PatientName).encode("utf-16-le")]
    ):
        (tmp_path / f"{number}.txt").write_bytes(b"by " + content + b".")
    assert {found.path.name for found in look(tmp_path, seen).findings} == {
        "0.txt",
        "1.txt",
        "2.txt",
    }


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_occurrence_of_every_pattern_is_found(data):
    pattern = st.binary(min_size=4, max_size=12)
    patterns = data.draw(st.lists(pattern, min_size=1, max_size=20))
    parts = data.draw(st.lists(st.one_of(st.sampled_from(patterns), st.binary(max_size=6))))
    content = b"".join(parts)
    expected = {
        (at, each)
        for each in patterns
        for at in range(len(content))
        if content.startswith(each, at)
    }
    assert set(Patterns(patterns).find(content)) == expected


def test_patterns_at_the_seams_of_what_is_read_at_a_time():
    patterns = [b"first one", b"second", b"four"]
    content = bytearray(200_000)
    places = [*range(0, 199_000, 4999), 32764, 65530, 199_991]
    for place in places:
        content[place : place + 9] = b"first one"
    assert sorted(Patterns(patterns).find(bytes(content))) == [
        (at, b"first one") for at in sorted(places)
    ]


# The witness -------------------------------------------------------------------------------------


def values(dataset: Dataset, path: Path | None = None) -> set[str]:
    seen = Witness()
    seen.see(dataset, path)
    return {value.text for each in seen.sample(None) for value in each.values}


def test_values_are_taken_by_their_representation():
    item = Dataset()
    item.PersonName, item.CodeValue = "Nested^Name", "T-1234"
    source = Dataset()
    source.PersonIdentificationCodeSequence = [item]
    source.AnatomicRegionSequence = [item]
    block = source.private_block(0x0029, "SOME MAKER", create=True)
    block.add_new(1, "LO", "a private text")
    block.add_new(2, "UN", b"bytes that are text")
    block.add_new(3, "OB", bytes(range(200)))
    block.add_new(4, "LO", "Apparatus 2000 S")
    source.ManufacturerModelName = "Apparatus 2000 S"
    source.add_new(0x50000022, "LO", "a curve of Somebody")
    source.PatientAge, source.Modality, source.SOPClassUID = (
        "093Y",
        "DX",
        "1.2.840.10008.5.1.4.1.1.1",
    )
    source.AcquisitionDateTime = "20190314101112"
    found = values(source)
    assert found == {
        "Nested^Name", "T-1234", "a private text", "bytes that are text", "a curve of Somebody",
        "093Y", "20190314", "20190314101112",
    }  # fmt: skip


def test_values_that_somebody_wants_are_left_alone(tmp_path):
    seen = Witness(kept=["InstitutionName"])
    seen.see(original())
    (tmp_path / "a.txt").write_text("Hartungsche Privatklinik Oberstdorf")
    assert not look(tmp_path, seen).findings


def test_words_that_the_user_gave_are_no_leak(tmp_path):
    (tmp_path / "config.yaml").write_text("host: zofia\npath: /data/zofia")
    assert look(tmp_path).findings
    assert not look(tmp_path, given=["host: zofia"]).findings


def test_titles_and_places_that_the_user_gave_are_no_leak(tmp_path):
    film = original(StationName="ROOM4711", PatientID="AB12345")
    film.file_meta.SourceApplicationEntityTitle = "GATE4711"
    config = "archive: {title: GATE4711, place: Room4711, list: AB12345}"
    (tmp_path / "config.yaml").write_text(config)
    assert len(look(tmp_path, witness(film)).findings) == 3
    (found,) = look(tmp_path, witness(film), given=[config]).findings
    assert found.kind == "PatientID"


def test_codes_and_equipment_identify_nobody():
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "F-10450", "SRT"
    item.CodeMeaning = "recumbent somehow"
    source = Dataset()
    source.PatientOrientationCodeSequence = [item]
    source.Manufacturer = source.StationName = source.DetectorID = "Makerson 2000"
    source.SoftwareVersions = "V1234.5"
    source.PixelSpacingCalibrationDescription = "by a steel ball"
    assert values(source) == set()
    source.StationName = "ROOM2000"
    assert values(source) == {"ROOM2000"}


def test_names_of_the_originals_files(tmp_path):
    assert values(Dataset(), Path("Smith_Jane/IM00012.dcm")) == {"Smith", "Jane"}
    seen = Witness()
    seen.see(Dataset(), Path("0091733455/Abernathy-19520417.dcm"))
    (tmp_path / "a.txt").write_text("of Abernathy, 0091733455")
    assert kinds(tmp_path, seen) == {"file name"}


@settings(deadline=None, max_examples=40)
@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_broken_originals_are_taken_as_they_are(data):
    """Bytes changed anywhere, or the end cut off."""
    content = bytearray(saved(original()))
    for _ in range(data.draw(st.integers(0, 30))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(200, len(content)))
    try:
        film = pydicom.dcmread(io.BytesIO(bytes(content[:cut])), force=True)
    except Exception:
        return
    before = saved_or_none(film)
    witness(film)
    assert saved_or_none(film) == before


def saved_or_none(film: FileDataset) -> bytes | None:
    try:
        return saved(film)
    except Exception:
        return None


def test_wrong_values_are_kept_as_they_are(tmp_path):
    source = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source.add_new(0x00100030, "DA", "17th of Rembrandtember")
        source.add_new(0x00080018, "UI", "SMITHJANE.1952")
        source.add_new(0x00100010, "PN", b"Gutenberg^\xff\xfe")
    (tmp_path / "a.txt").write_text("17th of Rembrandtember")
    (tmp_path / "b.txt").write_text("smithjane.1952")
    (tmp_path / "c.txt").write_text("gutenberg")
    found = look(tmp_path, witness(source)).findings
    assert {each.place for each in found} == {"a.txt", "b.txt", "c.txt"}


def test_threads_may_see_at_a_time():
    seen = Witness()
    films = [original(PatientID=f"PID{number}") for number in range(40)]
    threads = [threading.Thread(target=seen.see, args=(film,)) for film in films]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 40
    assert "PID" not in repr(seen)


# The search --------------------------------------------------------------------------------------


def many(number: int) -> Witness:
    seen = Witness()
    for each in range(number):
        ids = (f"img-{each:016x}", f"std-{each // 2:016x}", f"pat-{each:016x}")
        seen.see(original(PatientID=f"MRN{each:03d}77{each:03d}"), None, ids)
    answer = Dataset()
    answer.PatientName, answer.StudyInstanceUID = "Answerson^Ann", STUDY_UID
    seen.see(answer, None, (None, "std-0000000000000003", None))
    return seen


def test_a_sample_is_the_same_at_every_run_and_its_files_only_are_searched(tmp_path):
    seen = many(20)
    chosen = [each.ids.image for each in many(20).sample(5) if each.ids.image]
    assert len(chosen) == 5 == len(set(chosen))
    for each in range(20):
        film = plain_film(PatientID="of Zofia Kowalczyk")
        (tmp_path / f"img-{each:016x}.dcm").write_bytes(saved(film))
        (tmp_path / f"img-{each:016x}.json").write_text("{}")
    verification = look(tmp_path, seen, sample=5)
    names = {found.path.stem for found in verification.findings}
    assert names == set(chosen)
    assert verification.audit["files"] == 25 and verification.audit["files_passed_over"] == 15
    everything = look(tmp_path, seen, sample="all")
    assert len({found.path for found in everything.findings}) == 20
    assert look(tmp_path, seen, sample=99).audit["files"] == 40


def test_answers_about_sampled_studies_are_looked_for(tmp_path):
    (tmp_path / "run.log").write_text("by Answerson")
    assert kinds(tmp_path, many(20)) == {"PatientName"}
    studies = {each.ids.study for each in many(20).sample(5) if each.ids.image}
    found = look(tmp_path, many(20), sample=5).findings
    assert bool(found) == ("std-0000000000000003" in studies)
    assert look(tmp_path, many(20), sample=20).findings


def test_values_that_cannot_be_looked_for_are_counted(tmp_path):
    few = Dataset()
    few.PatientID, few.PatientName, few.StudyDate = "12", "Li", "20190314"
    seen = Witness()
    seen.see(few)
    audit = look(tmp_path, seen).audit
    assert audit["values"] == audit["not_searchable"] == 3


@pytest.mark.parametrize("days", [1, 286])
def test_shifted_dates_are_told_from_original_ones(tmp_path, days):
    """A date of one attribute may, shifted, be that of another: that is no leak."""
    film = original(StudyDate="20190314", DateOfLastCalibration="20180601")
    attribute("StudyDate", "20180601")(tmp_path)
    assert not look(tmp_path, witness(film)).findings
    attribute("DateOfLastCalibration", "20180601")(tmp_path)
    assert kinds(tmp_path, witness(film)) == {"DateOfLastCalibration"}


def test_a_broken_structure_is_searched_as_far_as_it_goes(tmp_path):
    whole = {
        "a.png": png((b"tEXt", b"Comment\0of Zofia"))[:80],
        "a.gz": gzip.compress(LINE)[:-9],
        "a.zip": zipped("a.txt", LINE, zipfile.ZIP_DEFLATED)[:-60],
        "a.parquet": b"PAR1" + noise(NAME) + b"PAR1",
        "a.db": b"SQLite format 3\0" + noise(NAME),
        "a.dcm": saved(original())[:600],
    }
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    assert {found.place for found in look(tmp_path).findings} == set(whole)


def test_a_huge_file_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("lumbarflow.verify.search._PIECE", 150_000)
    content = bytearray(np.random.default_rng(1).bytes(500_000))
    place = 150_000 - 5  # across the seam
    content[place : place + len(NAME)] = NAME
    (tmp_path / "a.bin").write_bytes(content)
    found = look(tmp_path)
    assert found.audit["bytes"] == 500_000
    assert place in {each.offset for each in found.findings}


def test_what_cannot_be_read_stops(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="Verification cannot read a file or folder in"):
        look(tmp_path)


def test_the_verifier_shares_nothing_with_what_it_checks():
    script = (
        "import sys, lumbarflow.verify.search, lumbarflow.verify.quarantine\n"
        "print(*sorted(name for name in sys.modules if name.startswith('lumbarflow')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE, capture_output=True, text=True, check=True
    )
    ours = {name for name in run.stdout.split() if not name.startswith("lumbarflow.verify")}
    assert ours == {"lumbarflow", "lumbarflow.errors"}
    for path in (PACKAGE / "lumbarflow" / "verify").glob("*.py"):
        source = path.read_text()
        for word in ("deidentify", "acquire", "import_module", "__import__", "dicomanonymizer"):
            assert word not in source, path.name


# Quarantine --------------------------------------------------------------------------------------


def test_quarantine_takes_away_what_holds_a_leak(tmp_path):
    results = tmp_path / "results"
    (results / "images").mkdir(parents=True)
    (results / "images" / "clean.json").write_text("{}")
    (results / "images" / "a.json").write_text("of Zofia")
    (results / "Kowalczyk").mkdir()
    (results / "Kowalczyk" / "b.json").write_text("also of Zofia")
    (results / "images" / "Annamaria.txt").write_text("")
    linked(results)
    error = quarantine(look(results).findings, results)
    assert isinstance(error, InputError)
    place = results / "quarantine"
    assert place.stat().st_mode & 0o777 == 0o700
    moved = sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))
    assert moved == ["images", "images/a.json", "withheld-0001", "withheld-0001/b.json",
                     "withheld-0002", "withheld-0003"]  # fmt: skip
    assert [path.name for path in results.rglob("*.json") if place not in path.parents] == [
        "clean.json"
    ]
    assert str(error).startswith("Verification: 4 files hold identifying values of the originals (")
    assert "PatientName" in str(error) and str(place) in str(error) and "\n" not in str(error)
    assert not any(name in str(error) for name in ("Kowalczyk", "Zofia", "Annamaria"))
    # What is there is not met again, and a second leak finds its place.
    assert not look(results).findings
    (results / "images" / "a.json").write_text("again of Zofia")
    quarantine(look(results).findings, results)
    assert (place / "images" / "a.json-0002").read_text() == "again of Zofia"
