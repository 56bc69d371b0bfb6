"""Pixel spacing: where it comes from, and null rather than guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lumbarflow.acquire.spacing import Spacing, pixel_aspect, pixel_spacing
from lumbarflow.deidentify.engine import SOP_CLASSES
from lumbarflow.errors import InputError

CR, DX = SOP_CLASSES
AT_DETECTOR = {"ImagerPixelSpacing": [0.15, 0.15]}
CORRECTED = {"PixelSpacing": [0.12, 0.12]}
MAGNIFIED = {"EstimatedRadiographicMagnificationFactor": 1.25}
DISTANCES = {"DistanceSourceToDetector": 1150, "DistanceSourceToPatient": 920}
UNKNOWN = Spacing(None, None, None)
DETECTOR_ONLY = Spacing(None, None, 0.15)


def described(*groups: dict, sop_class: str = DX, **attributes) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    for group in (*groups, attributes):
        for keyword, value in group.items():
            setattr(dataset, keyword, value)
    return dataset


def close(spacing: Spacing, expected: Spacing) -> bool:
    numbers = ((spacing.mm, expected.mm), (spacing.imager_mm, expected.imager_mm))
    return spacing.source == expected.source and all(
        one == other if other is None else one == pytest.approx(other) for one, other in numbers
    )


@pytest.mark.parametrize("kind", ["GEOMETRY", "FIDUCIAL"])
@pytest.mark.parametrize("detector", [AT_DETECTOR, {}])
def test_a_calibrated_spacing_names_its_calibration(kind, detector):
    dataset = described(CORRECTED, detector, MAGNIFIED, PixelSpacingCalibrationType=kind)
    expected = Spacing(0.12, kind.lower(), 0.15 if detector else None)
    assert close(pixel_spacing(dataset), expected)


def test_a_spacing_smaller_than_at_the_detector_was_calibrated():
    calibrated = Spacing(0.12, "calibrated", 0.15)
    assert close(pixel_spacing(described(CORRECTED, AT_DETECTOR)), calibrated)
    scanned = described(CORRECTED, NominalScannedPixelSpacing=[0.15, 0.15])
    assert close(pixel_spacing(scanned), calibrated)


def test_a_spacing_larger_than_at_the_detector_is_impossible():
    dataset = described(AT_DETECTOR, PixelSpacing=[0.2, 0.2])
    assert close(pixel_spacing(dataset), DETECTOR_ONLY)


def test_of_a_spacing_alone_nobody_can_tell_whether_it_was_calibrated():
    assert pixel_spacing(described(CORRECTED)) == UNKNOWN
    assert pixel_spacing(described(CORRECTED, MAGNIFIED)) == UNKNOWN


@pytest.mark.parametrize("kind", [None, "GEOMETRY", "FIDUCIAL"])
@pytest.mark.parametrize("same", [[0.15, 0.15], ["0.15000000000", "0.1501"]])
def test_a_spacing_as_at_the_detector_is_no_calibration(kind, same):
    dataset = described(AT_DETECTOR, PixelSpacing=same, PixelSpacingCalibrationType=kind)
    assert close(pixel_spacing(dataset), DETECTOR_ONLY)
    dataset = described(dataset_of(dataset), MAGNIFIED)
    assert close(pixel_spacing(dataset), Spacing(0.12, "magnification", 0.15))


def dataset_of(dataset: Dataset) -> dict:
    return {element.keyword: element.value for element in dataset}


def test_at_the_detector_alone_nothing_is_known_in_the_patient():
    assert close(pixel_spacing(described(AT_DETECTOR)), DETECTOR_ONLY)


def test_a_magnification_is_divided_by():
    magnified = Spacing(0.12, "magnification", 0.15)
    assert close(pixel_spacing(described(AT_DETECTOR, MAGNIFIED)), magnified)
    assert close(pixel_spacing(described(AT_DETECTOR, DISTANCES, sop_class=CR)), magnified)


def test_in_dx_the_distance_to_the_patient_ends_at_the_table():
    assert close(pixel_spacing(described(AT_DETECTOR, DISTANCES)), DETECTOR_ONLY)


@pytest.mark.parametrize("factor", [1, 1.0001, 0.8, 0, -1.2, 3.5, 1000, None, "inf", "nan"])
def test_a_magnification_that_cannot_be_is_none(factor):
    dataset = described(AT_DETECTOR, EstimatedRadiographicMagnificationFactor=factor)
    assert close(pixel_spacing(dataset), DETECTOR_ONLY)


@pytest.mark.parametrize(
    "distances",
    [
        {"DistanceSourceToDetector": 1150},
        {"DistanceSourceToPatient": 920},
        {"DistanceSourceToDetector": 1150, "DistanceSourceToPatient": None},
        {"DistanceSourceToDetector": 1150, "DistanceSourceToPatient": 0},
        {"DistanceSourceToDetector": 1150, "DistanceSourceToPatient": 1150},
        {"DistanceSourceToDetector": 920, "DistanceSourceToPatient": 1150},
        {"DistanceSourceToDetector": 1150, "DistanceSourceToPatient": 100},
    ],
)
def test_distances_that_give_no_magnification(distances):
    dataset = described(AT_DETECTOR, distances, sop_class=CR)
    assert close(pixel_spacing(dataset), DETECTOR_ONLY)


@pytest.mark.parametrize(
    "spacing", [None, [], [0.1], 0.1, [0, 0], [-0.1, -0.1], [0.1, 0], ["nan", "nan"], [1, 2, 3]]
)
def test_a_spacing_of_no_two_positive_numbers_counts_as_missing(spacing):
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        dataset = described(MAGNIFIED, {keyword: spacing})
        assert pixel_spacing(dataset) == UNKNOWN
        assert pixel_aspect(dataset) == 1


@given(st.floats(0.05, 2), st.floats(0.3, 3.3), st.floats(1.01, 2.9))
def test_the_spacing_is_that_of_the_divided_pixel(side, aspect, magnification):
    """The longer side is divided until it is as the shorter one."""
    dataset = described(
        ImagerPixelSpacing=[f"{side * aspect:.8g}", f"{side:.8g}"],
        EstimatedRadiographicMagnificationFactor=f"{magnification:.8g}",
    )
    spacing = pixel_spacing(dataset)
    shorter = min(side, side * aspect)
    assert spacing.imager_mm == pytest.approx(shorter, rel=0.006)
    assert spacing.mm == pytest.approx(shorter / magnification, rel=0.006)
    assert pixel_aspect(dataset) == pytest.approx(aspect, rel=0.006)


def test_nearly_square_pixels_are_square():
    dataset = described(PixelSpacing=[1.2, 1.2012], ImagerPixelSpacing=[1.5, 1.5015])
    assert pixel_aspect(dataset) == 1
    assert close(pixel_spacing(dataset), Spacing(1.2006, "calibrated", 1.50075))


def test_pixels_far_from_square_are_refused():
    with pytest.raises(InputError):
        pixel_aspect(described(PixelAspectRatio=[9, 2]))
