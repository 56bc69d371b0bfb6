"""Real objects and every kind of transfer syntax, against references computed another way."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from dicom_films import film, reread
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, UID_dictionary

from lumbarflow.acquire.films import take_dicom
from lumbarflow.acquire.pixels import UnreadableTransferSyntax
from lumbarflow.acquire.render import render
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.engine import SOP_CLASSES, deidentify
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2] / "../shared/data"))
SAMPLES = DATA / "dicom_samples"
KEYED = Pseudonyms(b"a key for these tests only")
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample objects in {SAMPLES}")
pytestmark = pytest.mark.filterwarnings("ignore")


def needs_dcmtk(program: str):
    return pytest.mark.skipif(not shutil.which(program), reason=f"dcmtk's {program} is not here")


def sample(name: str) -> pydicom.FileDataset:
    return pydicom.dcmread(SAMPLES / f"{name}.dcm")


def taken(source: pydicom.Dataset, folder: Path) -> dict:
    accept = {KEYED.image(str(source.SOPInstanceUID)): "accept"}
    return take_dicom(source, Deidentifier(KEYED), folder, accept, None)


# Transfer syntaxes -----------------------------------------------------------------------------


@needs_samples
def test_the_lossless_encodings_of_a_film_give_identical_png_files(tmp_path):
    files = set()
    for name in ("j2kr", "jlsl", "jpll", "rle"):
        source = sample(f"cr_tibia_{name}")
        row = taken(source, tmp_path / name)
        assert row["status"] == "accepted"
        files.add((tmp_path / name / "png" / f"{row['image_id']}.png").read_bytes())
    assert len(files) == 1


@needs_samples
@pytest.mark.parametrize("name", ["j2ki", "jlsn"])
def test_the_lossy_encodings_are_near_the_lossless_one(name):
    lossless = render(sample("cr_tibia_rle")).astype(int)
    assert 0 < np.abs(render(sample(f"cr_tibia_{name}")) - lossless).mean() < 2


@needs_samples
def test_every_cr_and_dx_sample_is_accepted_and_not_one_grey(tmp_path):
    syntaxes = set()
    for path in sorted(SAMPLES.glob("*.dcm")):
        source = pydicom.dcmread(path)
        if source.SOPClassUID not in SOP_CLASSES:
            continue
        row = taken(source, tmp_path)
        assert row["status"] == "accepted", path.name
        picture = cv2.imread(str(tmp_path / "png" / f"{row['image_id']}.png"), -1)
        assert picture.dtype == np.uint8
        assert picture.shape == (row["rows"], row["columns"]) == (source.Rows, source.Columns)
        assert np.ptp(picture) > 40  # three of them are 16 x 16 pixels of one film
        written = pydicom.dcmread(tmp_path / "dicom" / f"{row['image_id']}.dcm")
        assert (render(written) == picture).all() and (render(source) == picture).all()
        syntaxes.add(source.file_meta.TransferSyntaxUID)
    assert len(syntaxes) == 8


unreadable = [
    uid
    for uid, entry in sorted(UID_dictionary.items())
    if entry[1] == "Transfer Syntax"
    and uid not in {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
    and "Deflated" not in entry[0]
]


@pytest.mark.parametrize("uid", unreadable)
def test_a_syntax_without_a_decoder_is_named_and_a_broken_stream_is_not(uid, tmp_path):
    """Every syntax of the standard, around a stream that is none of its kind."""
    source = film(RAMP)
    source.PixelData = encapsulate([b"\1\2\3\4" * 9])
    source["PixelData"].is_undefined_length = True
    source.file_meta.TransferSyntaxUID = uid
    try:
        available = get_decoder(uid).is_available
    except NotImplementedError:
        available = False
    twelve_bit_jpeg = uid == "1.2.840.10008.1.2.4.51"
    row = taken(source, tmp_path)
    assert row["status"] == "rejected"
    if available and not twelve_bit_jpeg:
        assert row["reason"] == "pixels_not_readable"
    else:
        assert row["reason"] == f"transfer_syntax_not_readable: {UID(uid).name}"
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.113619.5.2", "private transfer syntax"),
        ("1.2.3.19410523", "private transfer syntax"),
        ("1.2.840.10008.1.2.4.999", "1.2.840.10008.1.2.4.999"),
        ("1.2.840.10008.1.2.19410523", "private transfer syntax"),
    ],
)
def test_a_syntax_that_nobody_knows_is_named_if_it_cannot_identify(uid, name):
    source = film(RAMP)
    source.file_meta.TransferSyntaxUID = uid
    for read in (render, lambda dataset: deidentify(dataset, KEYED)):
        with pytest.raises(UnreadableTransferSyntax) as caught:
            read(source)
        assert caught.value.transfer_syntax == name


@needs_dcmtk("dcmcjpeg")
def test_jpeg_extended_is_read_with_8_bits_and_named_with_12(tmp_path):
    for bits, pixels in ((8, RAMP >> 4), (12, RAMP)):
        source = film(pixels, bits)
        if bits == 8:
            source.BitsAllocated = 8
            source.PixelData = pixels.astype(np.uint8).tobytes()
        encoded = converted(source, tmp_path, "dcmcjpeg", "+ee")
        assert encoded.file_meta.TransferSyntaxUID.name == "JPEG Extended (Process 2 and 4)"
        if bits == 8:
            difference = render(encoded).astype(int) - render(source)
            assert np.abs(difference).mean() < 3
        else:
            with pytest.raises(UnreadableTransferSyntax, match="JPEG Extended"):
                render(encoded)


@pytest.mark.parametrize(
    ("program", "options"),
    [
        pytest.param(program, options, marks=needs_dcmtk(program), id=f"{program} {options}")
        for program, options in (
            ("dcmcjpeg", "+el"),
            ("dcmcjpeg", "+e1"),
            ("dcmcjpls", "+el"),
            ("dcmcrle", "-q"),
            ("dcmconv", "+te"),
            ("dcmconv", "+tb"),
            ("dcmconv", "+ti"),
            ("dcmconv", "+td"),
        )
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_what_dcmtk_encodes_without_loss_is_the_same_picture(program, options, signed, tmp_path):
    pixels = RAMP.astype(np.int16) - 2048 if signed else RAMP
    source = film(pixels, WindowCenter=-9 if signed else 2000, WindowWidth=3000)
    encoded = converted(source, tmp_path, program, options)
    assert (render(encoded) == render(source)).all()
    assert (render(reread(deidentify(encoded, KEYED))) == render(source)).all()


def converted(source: pydicom.Dataset, folder: Path, program: str, option: str):
    """The object as a program of dcmtk encodes it."""
    source.StudyInstanceUID, source.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    source.save_as(folder / "source.dcm", enforce_file_format=True)
    command = [program, option, folder / "source.dcm", folder / "encoded.dcm"]
    subprocess.run(command, check=True, capture_output=True)
    return pydicom.dcmread(folder / "encoded.dcm")


def test_a_cut_stream_is_not_blamed_on_its_syntax():
    source = film(RAMP)
    source.PixelData = source.PixelData[:-2]
    with pytest.raises(InputError) as caught:
        render(source)
    assert not isinstance(caught.value, UnreadableTransferSyntax)


@needs_samples
@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("cr_tibia_jlsl", {"BitsStored": 9, "HighBit": 8}, "more bits than their header says"),
        ("cr_tibia_j2kr", {"BitsStored": 9, "HighBit": 8}, "more bits than their header says"),
        ("cr_tibia_jpll", {"HighBit": 15}, "do not lie in the lowest bits"),
        # With these, gdcm would end the process.
        ("cr_monochrome1_jpeg_baseline", {"BitsStored": 7, "HighBit": 6}, "do not have a depth"),
        ("cr_tibia_jpll", {"BitsAllocated": 32}, "do not have a depth"),
    ],
)
def test_a_header_that_contradicts_a_compressed_stream_is_refused(name, changes, sentence):
    source = sample(name)
    for keyword, value in changes.items():
        setattr(source, keyword, value)
    with pytest.raises(InputError, match=sentence):
        render(source)


def test_an_object_without_a_transfer_syntax_is_refused():
    source = film(RAMP)
    del source.file_meta.TransferSyntaxUID
    with pytest.raises(InputError, match="cannot be read"):
        render(source)


# Look-up tables and windows of real objects ----------------------------------------------------


@needs_samples
def test_a_modality_lut_is_that_of_a_plain_loop():
    """mlut_18 has no VOI transformation: what the table gives is stretched and rounded."""
    source = sample("mlut_18")
    item = source.ModalityLUTSequence[0]
    _, first, _ = item.LUTDescriptor
    looked_up = [item.LUTData[value - first] for value in source.pixel_array.ravel().tolist()]
    low, high = np.percentile(looked_up, (0.5, 99.5))
    expected = np.clip((np.array(looked_up) - low) / (high - low), 0, 1) * 255
    assert np.abs(render(source).ravel() - expected).max() <= 0.5 + 1e-9


@needs_samples
def test_a_voi_lut_is_that_of_a_plain_loop():
    """vlut_04: 16 bits to 8, rounded to the nearest."""
    source = sample("vlut_04")
    item = source.VOILUTSequence[0]
    _, first, bits = item.LUTDescriptor
    shown = [
        round(item.LUTData[value - first] / (2**bits - 1) * 255)
        for value in source.pixel_array.ravel().tolist()
    ]
    assert render(source).ravel().tolist() == shown


@needs_samples
@needs_dcmtk("dcmj2pnm")
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("mlut_18", "+Wm"),  # no window: from the lowest to the highest value, which fill it
        ("vlut_04", "+Wl 1"),
        ("dx_lateral_cat", "+Wi 1"),
        ("dx_monochrome1_small", "+Wi 1"),
        ("cr_cspine_6154", "+Wi 1"),
        ("cr_cspine_6247", "+Wi 1"),
        ("cr_cspine_6278", "+Wi 1"),
        ("cr_monochrome1_jpeg_baseline", "+Wi 1"),
        ("cr_tibia_rle", "+Wi 1"),
        ("cr_tibia_jpll", "+Wi 1"),
    ],
)
def test_dcmtk_shows_the_same_picture(name, option, tmp_path):
    """Within 1 grey value, as dcmtk cuts off where we round."""
    target = tmp_path / "shown.png"
    command = ["dcmj2pnm", "+on", *option.split(), SAMPLES / f"{name}.dcm", target]
    subprocess.run(command, check=True, capture_output=True)
    difference = render(sample(name)).astype(int) - cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert np.abs(difference).max() <= 1
