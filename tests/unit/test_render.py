"""Rendering: polarity, modality and VOI transformations, and the codecs that archives send."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from lumbarflow.acquire.deidentify import deidentify
from lumbarflow.acquire.films import take_dicom
from lumbarflow.acquire.pseudonyms import Pseudonyms
from lumbarflow.acquire.render import render, stretch
from lumbarflow.errors import InputError

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2] / "../shared/data"))
SAMPLES = DATA / "dicom_samples"
KEYED = Pseudonyms(b"a key for these tests only")
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample objects in {SAMPLES}")
unhurried = settings(max_examples=50, deadline=None)


def film(pixels=RAMP, bits=12, **attributes) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.ViewPosition = "LL"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.add_new("PixelData", "OW", pixels.astype(f"<{pixels.dtype.kind}2").tobytes())
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def table(values, first=0, bits=8, **attributes) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, bits])
    item.add_new("LUTData", "US", [int(v) for v in values])
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def grey(shares) -> np.ndarray:
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def near(picture, expected):
    """Equal up to the rounding of halves."""
    return np.abs(picture.astype(int) - expected.astype(int)).max() <= 1


@unhurried
@given(
    arrays(np.uint16, (5, 7), elements=st.integers(0, 4095)),
    st.integers(0, 4095),
    st.integers(2, 5000),
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    st.sampled_from([(1, 0), (1, -1024), (0.5, 10), (2.5, 3)]),
)
def test_windows_follow_the_standard(pixels, centre, width, function, rescale):
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3, on rescaled values."""
    slope, intercept = rescale
    picture = render(
        film(pixels, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function,
             RescaleSlope=slope, RescaleIntercept=intercept)
    )  # fmt: skip
    x = pixels.astype(float) * slope + intercept
    expected = {
        "LINEAR": (x - (centre - 0.5)) / (width - 1) + 0.5,
        "LINEAR_EXACT": (x - centre) / width + 0.5,
        "SIGMOID": 1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -500, 500))),
    }[function]
    assert picture.dtype == np.uint8 and picture.shape == pixels.shape
    assert near(picture, grey(expected))


def test_a_linear_window_is_the_default_and_the_first_one_counts():
    one = render(film(WindowCenter=2000, WindowWidth=3000))
    assert (one == render(film(WindowCenter=[2000, 9], WindowWidth=[3000, 9]))).all()
    assert one.flat[2000] in (127, 128) and one.flat[400] == 0 and one.flat[3600] == 255


def test_a_window_of_width_1_is_a_threshold():
    picture = render(film(WindowCenter=2000, WindowWidth=1))
    assert (picture.flat[:2000] == 0).all() and (picture.flat[2000:] == 255).all()


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"WindowCenter": 2000, "WindowWidth": 3000},
        {"WindowCenter": 2000, "WindowWidth": 3000, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": table(np.linspace(0, 255, 4096))},
        {"RescaleSlope": 2, "RescaleIntercept": -5},
    ],
)
def test_monochrome1_is_inverted(attributes):
    """Low stored values are bright: the same film stored either way looks the same upside down."""
    bright_high = render(film(**attributes))
    bright_low = render(film(PhotometricInterpretation="MONOCHROME1", **attributes))
    assert (bright_low == 255 - bright_high).all()
    assert bright_high.flat[0] < bright_high.flat[-1]


def test_a_negative_slope_turns_the_grey_values():
    attributes = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    picture = render(film(**attributes, **window))
    assert near(picture, render(film(**window))[::-1, ::-1])
    assert picture.flat[0] == 255 and picture.flat[-1] == 0
    assert render(film(**attributes)).flat[0] == 255


def test_without_a_window_grey_values_are_stretched():
    """Between the 0.5th and the 99.5th percentile, so that a few metal pixels do not darken all."""
    pixels = np.clip(RAMP, 1000, 1999)
    assert near(render(film(pixels)), stretch(pixels))
    pixels.flat[:10] = 4095
    picture = render(film(pixels))
    assert picture.min() == 0 and picture.flat[0] == 255
    assert picture[pixels == 1500].mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("value", [0, 700, 4095])
def test_an_even_picture_is_black(value):
    assert not render(film(np.full((4, 4), value, np.uint16))).any()


@pytest.mark.parametrize(
    "broken",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": None},
        {"WindowWidth": 300},
        {"VOILUTSequence": []},
        {"RescaleSlope": None, "RescaleIntercept": None},
    ],
)
def test_an_empty_or_impossible_window_counts_as_none(broken):
    clean = deidentify(film(**broken), KEYED)
    assert (render(clean) == render(film())).all()


@unhurried
@given(arrays(np.int16, (4, 6), elements=st.integers(-2048, 2047)))
def test_signed_values(pixels):
    picture = render(film(pixels, WindowCenter=0, WindowWidth=4096))
    assert near(picture, grey((pixels + 0.5) / 4095 + 0.5))


def test_a_voi_lut_comes_before_a_window():
    curve = np.sqrt(np.linspace(0, 1, 4096)) * 1023
    lut = table(curve, bits=10, LUTExplanation="Contrast")
    picture = render(film(VOILUTSequence=lut, WindowCenter=5, WindowWidth=9))
    assert near(picture.reshape(-1), grey(curve.astype(int) / 1023))


def test_a_voi_lut_holds_its_ends_outside_of_its_range():
    picture = render(film(VOILUTSequence=table([10, 100, 200], first=2000)))
    assert (picture.flat[:2001] == 10).all()
    assert picture.flat[2001] == 100
    assert (picture.flat[2002:] == 200).all()


@pytest.mark.parametrize(
    "data", [bytes(range(255, -1, -1)), np.arange(255, -1, -1).astype("<u2").tobytes()]
)
def test_look_up_tables_of_bytes_and_of_words(data):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 1000, 8])
    item.add_new("LUTData", "OW", data)
    picture = render(film(VOILUTSequence=[item]))
    assert (picture.flat[1000:1256] == np.arange(255, -1, -1)).all()


def test_a_look_up_table_of_65536_entries():
    """Its number of entries is written as 0."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [0, 0, 16])
    item.add_new("LUTData", "OW", np.arange(65536).astype("<u2").tobytes())
    pixels = np.array([[0, 30000, 65535]], np.uint16)
    assert render(film(pixels, bits=16, VOILUTSequence=[item])).tolist() == [[0, 117, 255]]


def test_a_voi_lut_applies_to_what_the_modality_lut_gives():
    modality = table(np.arange(4096) // 16, bits=8, ModalityLUTType="US")
    voi = table(255 - np.arange(256))
    picture = render(film(ModalityLUTSequence=modality, VOILUTSequence=voi))
    assert (picture == 255 - RAMP // 16).all()
    windowed = render(film(ModalityLUTSequence=modality, WindowCenter=128, WindowWidth=256))
    assert (windowed == RAMP // 16).all()


@pytest.mark.parametrize(
    "attributes",
    [
        {"PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"NumberOfFrames": 2},
        {"PixelData": b"\0\0"},
        {"BitsAllocated": 12},
        {"VOILUTSequence": [Dataset()]},
    ],
)
def test_what_is_not_a_grey_picture_is_refused(attributes):
    with pytest.raises(InputError, match="pixels"):
        render(film(**attributes))


# Real objects ----------------------------------------------------------------------------------


def accepted(path: Path, folder: Path) -> dict:
    source = pydicom.dcmread(path)
    source.ViewPosition = "LL"
    return take_dicom(source, KEYED, folder, ["LL"], None)


@needs_samples
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["j2kr", "jlsl", "jpll", "rle", "j2ki", "jlsn"])
def test_codecs_give_the_same_picture_or_a_rejection(name, tmp_path):
    """The lossless ones hold identical pixels; without a decoder a film is rejected, no crash."""
    path = SAMPLES / f"cr_tibia_{name}.dcm"
    row = accepted(path, tmp_path)
    source = pydicom.dcmread(path)
    if not get_decoder(source.file_meta.TransferSyntaxUID).is_available:
        assert (row["status"], row["reason"]) == ("rejected", "pixels_not_readable")
        assert not list(tmp_path.rglob("*.*"))
        return
    assert row["status"] == "accepted"
    picture = render(deidentify(source, KEYED))
    reference = render(deidentify(pydicom.dcmread(SAMPLES / "cr_tibia_rle.dcm"), KEYED))
    assert picture.shape == (row["rows"], row["columns"])
    if name in ("j2ki", "jlsn"):  # lossy
        assert np.abs(picture.astype(int) - reference).mean() < 2
    else:
        assert (picture == reference).all()


@needs_samples
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    ["dx_lateral_cat", "dx_monochrome1_small", "cr_monochrome1_jpeg_baseline", "cr_cspine_6154",
     "mlut_18", "vlut_04"],
)  # fmt: skip
def test_real_objects_use_the_whole_grey_scale_or_are_rejected(name, tmp_path):
    path = SAMPLES / f"{name}.dcm"
    source = pydicom.dcmread(path)
    row = accepted(path, tmp_path)
    if row["status"] == "rejected":
        taken = source.SOPClassUID.name.startswith(("Computed Radiography", "Digital X-Ray"))
        jpeg = source.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        assert not taken or (jpeg and not get_decoder(JPEGBaseline8Bit).is_available)
        return
    picture = render(deidentify(source, KEYED))
    assert picture.shape == (source.Rows, source.Columns)
    assert np.ptp(picture) > 50
