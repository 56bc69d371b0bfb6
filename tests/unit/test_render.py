"""Rendering: bit layouts, padding, modality and VOI transformations, polarity and aspect ratio."""

from __future__ import annotations

import struct
from copy import deepcopy

import numpy as np
import pytest
from dicom_films import film as film_of
from dicom_films import look_up_table, naive_picture, objects, reread
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lumbarflow.acquire.pixels import stored_values
from lumbarflow.acquire.render import render, stretch
from lumbarflow.deidentify.engine import deidentify
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError

KEYED = Pseudonyms(b"a key for these tests only")
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)

unhurried = settings(max_examples=50, deadline=None)


def film(pixels=RAMP, bits=12, **attributes):
    return film_of(pixels, bits, **attributes)


def table(values, first=0, bits=8, **attributes) -> list[Dataset]:
    return [look_up_table(values, first, bits, **attributes)]


def grey(shares) -> np.ndarray:
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def near(picture, expected):
    """Equal up to the rounding of halves."""
    return np.abs(picture.astype(int) - expected.astype(int)).max() <= 1


@settings(max_examples=120, deadline=None)
@given(objects())
def test_any_object_looks_as_the_standard_says(dataset):
    """Against a reference that reads bits and follows the text a pixel at a time.

    The tolerance is one grey value, for halves that are rounded either way.
    """
    assert near(render(dataset), naive_picture(dataset))


@settings(max_examples=25, deadline=None)
@given(objects())
def test_any_encoding_without_loss_gives_the_same_picture(dataset):
    picture = render(dataset)
    for syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        again = deepcopy(dataset)
        again.file_meta.TransferSyntaxUID = syntax
        assert (render(reread(again)) == picture).all()
    assert (render(big_endian(dataset)) == picture).all()
    assert (render(reread(big_endian(dataset))) == picture).all()
    compressed = deepcopy(dataset)
    compressed.PixelData = encapsulate([run_lengths(dataset)])
    compressed["PixelData"].is_undefined_length = True
    compressed.file_meta.TransferSyntaxUID = RLELossless
    assert (render(compressed) == picture).all()


def run_lengths(dataset: Dataset) -> bytes:
    """An RLE frame (PS3.5 G): a segment for each byte of a word, the highest first, of literals."""
    size, count = dataset.BitsAllocated // 8, dataset.Rows * dataset.Columns
    planes = np.frombuffer(dataset.PixelData, np.uint8, count * size).reshape(count, size)
    segments = [bytes([count - 1]) + planes[:, byte].tobytes() for byte in reversed(range(size))]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = [64 + sum(map(len, segments[:number])) for number in range(size)]
    return struct.pack("<16L", size, *starts, *[0] * (15 - size)) + b"".join(segments)


def big_endian(dataset: Dataset) -> Dataset:
    """The object with its words swapped, also those of look-up tables and of 8-bit pixels (OW)."""
    meta = deepcopy(dataset.file_meta)
    meta.TransferSyntaxUID = ExplicitVRBigEndian
    swapped = FileDataset(
        None,
        deepcopy(dataset),
        preamble=b"\0" * 128,
        file_meta=meta,
        is_implicit_VR=False,
        is_little_endian=False,
    )
    size = max(dataset.BitsAllocated // 8, 2)
    data = np.frombuffer(swapped.PixelData, f"<u{size}").byteswap().tobytes()
    swapped.add_new("PixelData", "OW", data)
    for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
        for item in swapped.get(keyword, []):
            if isinstance(item.LUTData, bytes):
                words = np.frombuffer(item.LUTData, "<u2").byteswap()
                item.add_new("LUTData", "OW", words.tobytes())
    return swapped


@unhurried
@given(objects())
def test_pixels_that_are_not_shifted_are_those_of_pydicom(dataset):
    """Its decoder takes the lowest bits for the stored ones."""
    dataset.HighBit = dataset.BitsStored - 1
    np.testing.assert_array_equal(stored_values(dataset), pixel_array(dataset))


def test_sound_pixels_are_not_copied():
    dataset = film()
    values = stored_values(dataset)
    assert np.may_share_memory(values, np.frombuffer(dataset.PixelData, np.uint8))
    assert deidentify(dataset, KEYED).PixelData is dataset.PixelData


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


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
def test_a_presentation_lut_shape_does_not_invert_once_more(photometric, shape):
    plain = film(PhotometricInterpretation=photometric)
    shaped = film(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert (render(shaped) == render(plain)).all()


# Padding ---------------------------------------------------------------------------------------


@unhurried
@given(st.data())
def test_padding_does_not_change_the_rest_and_is_black(data):
    """Without a window: the same film with any border of padding around it."""
    inner = data.draw(arrays(np.uint16, (6, 5), elements=st.integers(1000, 3000)))
    ends = data.draw(st.sampled_from([(0, 0), (0, 999), (4095, 4095), (4095, 3001), (3500, 3600)]))
    border = data.draw(arrays(np.uint16, (10, 9), elements=st.integers(min(ends), max(ends))))
    border[2:8, 2:7] = inner
    photometric = data.draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
    bare = render(film(inner, PhotometricInterpretation=photometric))
    dataset = film(border, PhotometricInterpretation=photometric)
    dataset.PixelPaddingValue = ends[0]
    if ends[0] != ends[1]:
        dataset.PixelPaddingRangeLimit = ends[1]
    picture = render(dataset)
    assert (picture[2:8, 2:7] == bare).all()
    picture[2:8, 2:7] = 0
    assert not picture.any()


def test_a_film_of_nothing_but_padding_is_black():
    pixels = np.full((4, 4), 4095, np.uint16)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        dataset = film(pixels, PhotometricInterpretation=photometric, PixelPaddingValue=4095)
        assert not render(dataset).any()


@pytest.mark.parametrize(("vr", "value"), [("US", 65536 - 2000), ("SS", -2000)])
def test_a_padding_value_of_either_representation(vr, value):
    """Signed pixels whose padding value is written as an unsigned number are common."""
    pixels = np.array([[-2000, -100, 0, 100]], np.int16)
    dataset = film(pixels, WindowCenter=-3000, WindowWidth=100)
    dataset.add_new("PixelPaddingValue", vr, value)
    assert render(dataset).tolist() == [[0, 255, 255, 255]]
    clean = reread(deidentify(dataset, KEYED))
    assert clean.PixelPaddingValue == -2000
    assert render(clean).tolist() == [[0, 255, 255, 255]]


@pytest.mark.parametrize("value", [4096, 63536, -1, None, b"12"])
def test_a_padding_value_that_no_pixel_can_have_is_none(value):
    dataset = film()
    dataset.add_new("PixelPaddingValue", "OB" if isinstance(value, bytes) else "SS", value)
    if value == 63536:
        dataset.add_new("PixelPaddingValue", "US", value)
    assert (render(dataset) == render(film())).all()
    assert "PixelPaddingValue" not in deidentify(dataset, KEYED)


# Aspect ratio ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (128, 64)),
        ({"PixelSpacing": [0.1, 0.15]}, (64, 96)),
        ({"ImagerPixelSpacing": [0.3, 0.1]}, (192, 64)),
        ({"PixelAspectRatio": [5, 4]}, (80, 64)),
        ({"PixelAspectRatio": [4, 5]}, (64, 80)),
        ({"PixelAspectRatio": [5, 4], "ImagerPixelSpacing": [0.1, 0.1]}, (64, 64)),
        ({"PixelSpacing": [0.1401, 0.14]}, (64, 64)),
        ({"PixelSpacing": [0, 0], "PixelAspectRatio": [1, 2]}, (64, 128)),
        ({"PixelAspectRatio": [0, 5]}, (64, 64)),
        ({"PixelSpacing": None, "PixelAspectRatio": None}, (64, 64)),
    ],
)
def test_pixels_become_square_by_dividing_their_longer_side(attributes, shape):
    picture = render(film(**attributes))
    assert picture.shape == shape
    assert (render(reread(deidentify(film(**attributes), KEYED))) == picture).all()


def test_an_oblong_disc_becomes_a_round_one():
    row, column = np.mgrid[:60, :120] + 0.5
    disc = ((row - 30) * 2) ** 2 + (column - 60) ** 2 < 40**2
    picture = render(film(disc.astype(np.uint16) * 4000, PixelSpacing=[0.2, 0.1]))
    rows, columns = np.nonzero(picture > 127)
    assert picture.shape == (120, 120)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 2
    assert rows.mean() + 0.5 == pytest.approx(60, abs=0.1)
    assert (render(film(RAMP, PixelSpacing=[0.2, 0.1]))[::2] != 0).any()


def test_pixels_far_from_square_are_refused():
    with pytest.raises(InputError, match="far from square"):
        render(film(PixelSpacing=[1, 0.1]))


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


def test_a_look_up_table_with_deeper_entries_than_it_says():
    """Not cut off at 255, nor black."""
    picture = render(film(VOILUTSequence=table(np.arange(4096), bits=8)))
    assert near(picture, grey(RAMP / 4095))


def test_the_sign_of_a_first_value_is_that_of_what_it_is_compared_with():
    """Whatever VR the descriptor has: signed pixels from -2048, unsigned ones from 40000."""
    pixels = np.array([[-2048, -2047, 2047]], np.int16)
    item = look_up_table([0, 65535], bits=16, LUTDescriptor=[2, 65536 - 2048, 16])
    assert render(film(pixels, VOILUTSequence=[item])).tolist() == [[0, 255, 255]]
    item = look_up_table([0, 65535], bits=16)
    item.add_new("LUTDescriptor", "SS", [2, 40000 - 65536, 16])
    pixels = np.array([[39999, 40000, 40001]], np.uint16)
    assert render(film(pixels, bits=16, VOILUTSequence=[item])).tolist() == [[0, 0, 255]]


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
        {"BitsStored": 17},
        {"BitsStored": 0, "HighBit": -1},
        {"HighBit": 10},
        {"HighBit": 16},
        {"VOILUTSequence": [Dataset()]},
        {"VOILUTSequence": [look_up_table([1, 2, 3, 4], bits=16, LUTDescriptor=[5, 0, 16])]},
    ],
)
def test_what_is_not_a_grey_picture_is_refused(attributes):
    with pytest.raises(InputError, match="pixels"):
        render(film(**attributes))
