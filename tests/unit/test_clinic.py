"""Segmentation and structured report: what goes in comes out, alike each time, and no more."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from clinic_films import (
    DEVICE,
    body_of,
    encoded,
    film,
    measurements,
    reread,
    spine,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lumbarflow.clinic.coding import (
    SCHEME,
    UNITS,
    Device,
    derived_uid,
    places,
    private,
    structure,
    tracking_uid,
)
from lumbarflow.clinic.report import measurement_report
from lumbarflow.clinic.segmentation import segment_numbers, segmentation
from lumbarflow.errors import InputError
from lumbarflow.measure.anatomy import Measurement, Vertebra

SEED = 200003  # an operated patient
TEMPLATE = {"Finding Site", "Finding category", "English (United States)"}
PAGE = Path(__file__).resolve().parents[2] / "docs/reference/dicom-objects.md"


@pytest.fixture(scope="module")
def source() -> Dataset:
    return film(SEED, "DX")[1]


@pytest.fixture(scope="module")
def segments(source):
    return segmentation(source, spine(SEED), DEVICE)


@pytest.fixture(scope="module")
def report(source, segments):
    flagged = replace(spine(SEED), flags=("possible_l6", "gap_in_chain"))
    return measurement_report(source, segments, flagged, measurements(SEED), DEVICE)


def masks_of(segments) -> np.ndarray:
    """What another reader finds: rows x columns x segments."""
    read = highdicom.seg.segread(BytesIO(encoded(segments)))
    film_uid = read.SourceImageSequence[0].ReferencedSOPInstanceUID
    return read.get_pixels_by_source_instance([film_uid])[0]


def groups_of(report) -> dict[str, Dataset]:
    """The measurement groups that another reader finds, by their tracking identifiers."""
    content = highdicom.sr.srread(BytesIO(encoded(report))).content
    found = [*content.get_planar_roi_measurement_groups(), *content.get_image_measurement_groups()]
    return {group.tracking_identifier: group for group in found}


def properties_of(item) -> dict[str, object]:
    """The values below a content item, by their meaning."""
    return {
        child.ConceptNameCodeSequence[0].CodeMeaning: getattr(child.value, "meaning", child.value)
        for child in item.get("ContentSequence", ())
    }


# Codes and UIDs -----------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.text() | st.binary(), max_size=4), st.lists(st.text(), max_size=4))
def test_uids_are_valid_and_depend_on_every_part(one, other):
    uid = derived_uid(*one)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d{0,38})", uid)
    parts = [[part.encode() if isinstance(part, str) else part for part in x] for x in (one, other)]
    assert (uid == derived_uid(*other)) == (parts[0] == parts[1])


@pytest.mark.parametrize(
    ("class_name", "level", "code"),
    [
        ("lumbar_vertebra", "L4", "11994002"),
        ("lumbar_vertebra", "T12", "23215003"),
        ("sacral_vertebra", "S2", "54735007"),
        ("lumbar_vertebra", "S1", "54735007"),  # a network's class, but the chain knows better
        ("sacral_vertebra", "L5", "49668003"),
        ("lumbar_vertebra", "L6", "51282000"),
        ("lumbar_vertebra", None, "51282000"),
        ("sacral_vertebra", None, "54735007"),
        ("screw", "L4", "68183006"),
        ("cage", None, "40388003"),
    ],
)
def test_structures_have_standard_codes(class_name, level, code):
    assert structure(class_name, level).value == code


@pytest.mark.parametrize(
    ("site", "meanings"),
    [
        ("L4", ["L4 vertebra"]),
        ("L4/L5", ["L4/L5 disc"]),
        ("L5/S1", ["L5/S1 disc"]),
        ("L4/L5 cage 1", ["L4/L5 disc"]),
        ("L5/L6", ["L5 vertebra", "Vertebra"]),
        ("L1-S1", ["L1 vertebra", "Sacrum"]),
        ("L4 anterior_superior", ["L4 vertebra"]),
        ("? screw 2", ["Lumbar spine"]),
    ],
)
def test_sites_are_places_of_the_standard(site, meanings):
    assert [place.meaning for place in places(site)] == meanings


def test_private_codes_are_the_words_of_the_tables():
    code = private("possible_l6")
    assert (code.value, code.scheme_designator, code.meaning) == (
        "possible_l6",
        SCHEME,
        "Possible L6",
    )


@settings(max_examples=30)
@given(st.from_regex(r"[a-z]{1,9}(_[a-z]{1,9}){0,4}", fullmatch=True))
def test_private_codes_fit_and_differ(word):
    code = private(word)
    assert len(code.value) <= 16 and word.startswith(code.value.partition("-")[0])
    assert "LongCodeValue" not in code
    assert private(f"{word}_a").value != private(f"{word}_b").value


def test_a_vertebra_is_recognised_in_the_patients_other_studies():
    one, other, stranger = (Dataset() for _ in range(3))
    for number, (item, patient) in enumerate(((one, "a"), (other, "a"), (stranger, "b"))):
        item.PatientID = patient
        item.SOPInstanceUID = item.StudyInstanceUID = f"1.{number}"
    another = replace(DEVICE, network="yolact")
    assert tracking_uid(one, "L4", DEVICE) == tracking_uid(other, "L4", another)
    assert tracking_uid(one, "L4", DEVICE) != tracking_uid(one, "L5", DEVICE)
    assert tracking_uid(one, "L4", DEVICE) != tracking_uid(stranger, "L4", DEVICE)
    # What is only counted may be another one elsewhere.
    assert tracking_uid(one, "Screw 1", DEVICE) != tracking_uid(other, "Screw 1", DEVICE)
    assert tracking_uid(one, "Screw 1", DEVICE) != tracking_uid(one, "Screw 1", another)


# Segmentation -------------------------------------------------------------------------------------


def test_masks_come_back_as_they_went_in(segments):
    true, read = spine(SEED), masks_of(segments)
    numbers = segment_numbers(segments)
    assert read.shape[:2] == (true.rows, true.columns)
    for vertebra in true.vertebrae:
        expected = np.zeros(read.shape[:2], bool)
        (x, y), mask = vertebra.body.origin, vertebra.body.mask
        expected[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        assert np.array_equal(read[..., numbers[vertebra.level] - 1] > 0, expected)
    # Implants: the pixels inside the outline, give or take its border.
    for number, implant in enumerate(true.implants, len(true.vertebrae)):
        drawn = body_of("", "screw", implant.outline, read.shape[:2])
        assert read[..., number].sum() == pytest.approx(drawn.mask.sum(), rel=0.1, abs=12)


def test_segments_tell_what_they_are(segments):
    true = spine(SEED)
    labels = [item.SegmentLabel for item in segments.SegmentSequence]
    assert labels[: len(true.vertebrae)] == [vertebra.level for vertebra in true.vertebrae]
    screws = sum(implant.class_name == "screw" for implant in true.implants)
    assert screws > 0
    assert labels.count("Screw 1") == 1 and f"Screw {screws}" in labels
    for item in segments.SegmentSequence:
        bone = item.SegmentLabel in {vertebra.level for vertebra in true.vertebrae}
        category = "Anatomical Structure" if bone else "Physical object"
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == category
        # An implant has its region and, as SNOMED's code is broad, its class.
        assert ("AnatomicRegionSequence" in item) == (not bone)
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        if not bone:
            modifier = kind.SegmentedPropertyTypeModifierCodeSequence[0]
            assert item.SegmentLabel.startswith(modifier.CodeMeaning)
    assert segments.SegmentSequence[0].SegmentDescription.endswith("probability 0.970")


def test_unknown_levels_are_counted_and_said_to_be_unknown(source):
    true = spine(SEED)
    first, *others = true.vertebrae
    nameless = replace(true, vertebrae=(Vertebra(first.body, None, 0.3, None), *others))
    made = segmentation(source, nameless, DEVICE)
    assert made.SegmentSequence[0].SegmentLabel == "Vertebra 1"
    assert made.SegmentSequence[0].SegmentDescription == "Level not known"
    assert "Vertebra 1" in groups_of(measurement_report(source, made, nameless, [], DEVICE))


def test_pixels_that_are_not_square_get_their_own_masks_back(source):
    true = spine(SEED)
    stretched = tuple(
        replace(
            vertebra,
            body=replace(
                vertebra.body,
                origin=(vertebra.body.origin[0], 2 * vertebra.body.origin[1]),
                mask=np.repeat(vertebra.body.mask, 2, axis=0),
            ),
        )
        for vertebra in true.vertebrae
    )
    tall = replace(true, rows=2 * true.rows, vertebrae=stretched, implants=())
    plain = replace(true, implants=())
    assert np.array_equal(
        masks_of(segmentation(source, tall, DEVICE)), masks_of(segmentation(source, plain, DEVICE))
    )


def test_a_body_that_reaches_beyond_the_film_ends_at_its_edge(source):
    true = spine(SEED)
    body = replace(true.vertebrae[0].body, origin=(-3, -2), mask=np.ones((9, 8), bool))
    off = replace(true, vertebrae=(Vertebra(body, "L1", 0.9, None),), implants=())
    read = masks_of(segmentation(source, off, DEVICE))[..., 0]
    assert read.sum() == 7 * 5 and read[:7, :5].all()


def test_a_structure_without_a_pixel_is_no_segment(source):
    true = spine(SEED)
    gone = replace(true.vertebrae[0].body, origin=(true.columns + 5, 0))
    outside = replace(true, vertebrae=(Vertebra(gone, "T12", 0.5, None),), implants=())
    assert segmentation(source, outside, DEVICE) is None
    groups = groups_of(measurement_report(source, None, outside, [], DEVICE))
    assert set(groups) == {"film", "T12"}


def test_another_films_picture_is_refused(source):
    other = replace(spine(SEED), rows=11, columns=12)
    with pytest.raises(InputError, match=r"its picture has 11 x 12: predict again"):
        segmentation(source, other, DEVICE)


# Report -------------------------------------------------------------------------------------------


def test_every_measurement_is_found_with_its_site_status_and_confidence(report):
    groups = groups_of(report)
    for wanted in measurements(SEED):
        group = groups[wanted.site]
        meaning = private(wanted.name).meaning if wanted.name != "cobb" else "Cobb angle"
        if wanted.value is None:
            [item] = [
                item
                for item in group[0].ContentSequence
                if item.ConceptNameCodeSequence[0].CodeMeaning == meaning
            ]
            assert item.ValueType == "CODE" and item.value.meaning == "Value indeterminate"
            assert properties_of(item) == {"Comment": wanted.reason}
            continue
        [found] = [item for item in group.get_measurements() if item.name.meaning == meaning]
        assert found.value == pytest.approx(wanted.value, abs=0.0006)
        assert found.unit.value == UNITS[wanted.unit].value
        assert properties_of(found[0]) == {
            "Measurement status": wanted.status.capitalize(),
            "Certainty of Finding": pytest.approx(100 * wanted.confidence),
        } | ({"Comment": wanted.reason} if wanted.reason else {})


def test_groups_refer_to_the_segments_that_they_are_of(report, segments):
    groups, numbers = groups_of(report), segment_numbers(segments)
    [reference, origin] = groups["L4"].referenced_segmentation_frame
    assert reference.referenced_sop_instance_uid == segments.SOPInstanceUID
    assert reference.referenced_segment_numbers == [numbers["L4"]]
    assert origin.referenced_sop_instance_uid == report.get_evidence()[0][2]
    assert groups["L4"].tracking_uid == segments.SegmentSequence[numbers["L4"] - 1].TrackingUID
    images = groups["L4/L5"].source_images
    used = [i for i in images if i.referenced_sop_instance_uid == segments.SOPInstanceUID]
    expected = [[numbers["L4"]], [numbers["L5"]]]
    assert [image.referenced_segment_numbers for image in used] == expected
    assert {uid for *_, uid, _ in report.get_evidence()} == {
        segments.SOPInstanceUID,
        origin.referenced_sop_instance_uid,
    }


def test_the_film_is_described(report):
    film_group = groups_of(report)["film"]
    answers = [(e.name.meaning, e.value.value) for e in film_group.get_qualitative_evaluations()]
    assert ("Patient faces", f"{spine(SEED).anterior}_on_film") in answers
    assert ("Sacrum", "seen") in answers
    assert [value for name, value in answers if name == "Flag"] == ["possible_l6", "gap_in_chain"]


def test_nothing_claims_that_a_person_has_seen_it(report):
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    contexts = highdicom.sr.srread(BytesIO(encoded(report))).content.get_observer_contexts()
    assert [context.observer_type.meaning for context in contexts] == ["Device"]
    assert contexts[0].observer_identifying_attributes.name == "Lumbarflow unet"


def test_a_film_on_which_nothing_was_found_has_a_report(source):
    empty = replace(spine(SEED), vertebrae=(), implants=(), sacrum_seen=False)
    missing = Measurement("lordosis", "L1-S1", None, "deg", 0.0, "not_measurable", "L1 not seen")
    assert segmentation(source, empty, DEVICE) is None
    groups = groups_of(measurement_report(source, None, empty, [missing], DEVICE))
    assert not groups["L1-S1"].get_measurements()


ANY_FILM = film(SEED, "DX")[1]
VALUES = st.floats(-500, 500, allow_nan=False)
ROWS = st.builds(
    lambda name, site, value, unit, confidence, reason: Measurement(
        name,
        site,
        value,
        unit,
        confidence,
        "not_measurable" if value is None else "uncertain" if reason else "measured",
        reason,
    ),
    st.from_regex(r"[a-z]{1,12}(_[a-z]{1,12}){0,3}", fullmatch=True).filter(lambda n: n != "cobb"),
    st.sampled_from(["L1-S1", "L3", "L4/L5", "L5/L6", "L2 posterior_inferior", "? screw 1"]),
    st.none() | VALUES,
    st.sampled_from(list(UNITS)),
    st.floats(0, 1),
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20),
)


@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(ROWS, max_size=4, unique_by=lambda row: (row.name, row.site)))
def test_any_rows_of_a_table_come_through(rows):
    bare = replace(spine(SEED), vertebrae=(), implants=())
    groups = groups_of(measurement_report(ANY_FILM, None, bare, rows, DEVICE))
    for row in rows:
        found = {item.name.value: item for item in groups[row.site].get_measurements()}
        code = private(row.name).value
        assert (code in found) == (row.value is not None)
        if row.value is not None:
            assert found[code].value == pytest.approx(row.value, abs=0.0006)
            assert properties_of(found[code][0]).get("Comment", "") == row.reason


# Alike, and no more than the film tells -----------------------------------------------------------


def test_the_same_input_gives_the_same_bytes(source, segments, report):
    assert encoded(source) == encoded(film(SEED, "DX")[1])  # it is only read
    again = segmentation(source, spine(SEED), DEVICE)
    assert encoded(again) == encoded(segments)
    flagged = replace(spine(SEED), flags=("possible_l6", "gap_in_chain"))
    other = measurement_report(source, again, flagged, measurements(SEED), DEVICE)
    assert encoded(other) == encoded(report)


def test_other_content_is_another_object_of_the_same_series(source, segments, report):
    true, found = spine(SEED), measurements(SEED)
    moved = replace(true.vertebrae[0].body, origin=(9, 9))
    other = replace(true, vertebrae=(replace(true.vertebrae[0], body=moved), *true.vertebrae[1:]))
    made = segmentation(source, other, DEVICE)
    assert made.SOPInstanceUID != segments.SOPInstanceUID
    assert made.SeriesInstanceUID == segments.SeriesInstanceUID != source.SeriesInstanceUID
    changed = [replace(found[0], value=found[0].value + 1), *found[1:]]
    written = measurement_report(source, segments, true, changed, DEVICE)
    assert written.SOPInstanceUID != report.SOPInstanceUID
    assert written.SeriesInstanceUID == report.SeriesInstanceUID != segments.SeriesInstanceUID
    # And another network's objects stand beside this one's.
    for device in (Device("yolact", DEVICE.version), Device(DEVICE.network, "0.2")):
        beside = segmentation(source, true, device)
        assert beside.SeriesInstanceUID != segments.SeriesInstanceUID
        assert beside.SOPInstanceUID != segments.SOPInstanceUID


def test_patient_and_study_are_the_films(source, segments, report):
    for made in (reread(segments), reread(report)):
        for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "StudyDate"):
            assert made.get(keyword) == source.get(keyword), keyword
        # Nothing tells when it was made: among moved dates that would stand out.
        dates = {str(e.value)[:8] for e in made.iterall() if e.VR in ("DA", "DT") and e.value}
        assert dates <= {str(source.StudyDate), str(source.get("ContentDate"))}
        assert "FrameOfReferenceUID" not in made


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
def test_nothing_identifying_comes_from_a_deidentified_film(seed):
    _, clean, identifying = film(seed, "CR" if seed % 2 else "DX")
    made = segmentation(clean, spine(seed), DEVICE)
    written = measurement_report(clean, made, spine(seed), measurements(seed), DEVICE)
    known = encoded(clean)
    for data in (encoded(made), encoded(written)):
        for text in identifying:
            assert text.encode() not in data or text.encode() in known


@pytest.mark.parametrize("charset", ["ISO_IR 192", "\\ISO 2022 IR 87", "ISO_IR 144", None])
def test_an_identified_film_keeps_its_names_and_no_message_tells_them(charset, caplog):
    names = {
        "ISO_IR 192": "Ümlaut^Ägidius",
        "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "ISO_IR 144": "Люкceмбypг",
        None: "Smith and a name that is far too long for what the standard allows, by much",
    }
    source = film(SEED, "DX")[1]
    if charset:
        source.SpecificCharacterSet = charset.split("\\")
    elif "SpecificCharacterSet" in source:
        del source.SpecificCharacterSet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source.PatientName = names[charset]
        source = reread(source)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = segmentation(source, spine(SEED), DEVICE)
        written = measurement_report(source, made, spine(SEED), [], DEVICE)
    messages = [str(warning.message) for warning in told] + caplog.messages
    assert not any(names[charset][:5] in message for message in messages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [str(reread(item).PatientName) for item in (made, written)] == [names[charset]] * 2


def test_a_film_that_tells_little_is_enough(source):
    poor = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(poor, keyword, source.get(keyword))
    poor.Modality, poor.Rows, poor.Columns = source.Modality, source.Rows, source.Columns
    made = segmentation(poor, spine(SEED), DEVICE)
    written = measurement_report(poor, made, spine(SEED), measurements(SEED), DEVICE)
    assert f"{written.ContentDate} {written.ContentTime}" == "19000101 000000"
    assert set(groups_of(written)) >= {"film", "L4", "L4/L5"}


def test_values_that_break_their_rules_are_kept_as_they_are(source):
    odd = reread(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd.PatientSex, odd.StudyTime, odd.PatientBirthDate = "X", "7 o'clock", "1950-02-30"
        odd.ContentDate = odd.StudyDate = "201931"
        made = segmentation(odd, spine(SEED), DEVICE)
        assert f"{made.PatientSex} {made.ContentTime}" == "X 000000"
        assert made["PatientBirthDate"].value == odd["PatientBirthDate"].value


# The page -----------------------------------------------------------------------------------------


def codes_in(dataset: Dataset) -> dict[tuple[str, str], str]:
    """The meaning of every code of an object but those that templates and modules prescribe."""
    prescribed = ("PurposeOf", "Derivation", "DeidentificationMethod", "Language", "Observer")
    return {
        (item.CodingSchemeDesignator, item.CodeValue): item.CodeMeaning
        for element in dataset.iterall()
        if element.VR == "SQ" and not element.keyword.startswith(prescribed)
        for item in element.value
        if "CodeMeaning" in item and item.CodingSchemeDesignator != "DCM"
    }


def test_the_page_lists_the_codes(segments, report):
    rows = re.findall(
        r"^\| `([^`]+)` \| (\w+) \| ([^|]+?) \|", PAGE.read_text(encoding="utf-8"), re.M
    )
    listed = {(scheme, value): meaning for value, scheme, meaning in rows}
    assert len(listed) == len(rows)
    used = codes_in(reread(segments)) | codes_in(reread(report))
    for site in ("T10/T11", "T11/T12", "T12/L1", "T11", "L6", "L5/L6", "?"):
        used |= {(code.scheme_designator, code.value): code.meaning for code in places(site)}
    # The template's own concepts are the standard's business.
    used = {key: meaning for key, meaning in used.items() if meaning not in TEMPLATE}
    assert {key: listed.get(key) for key in used} == used
    # And a private code on the page is that of its word.
    for (scheme, value), meaning in listed.items():
        if scheme == SCHEME:
            assert private(meaning.lower().replace(" ", "_")).value == value
