"""The profile: the standard's tables as data, what they come to, and its options."""

from __future__ import annotations

import warnings
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from test_deidentify import KEYED, film, saved, unhurried

from lumbarflow.deidentify.engine import deidentify, header, shifted
from lumbarflow.deidentify.profile import (
    SAFE,
    TABLE,
    TEXTS,
    Action,
    Options,
    rules,
    standard_codes,
)
from lumbarflow.deidentify.vocabulary import anatomical, radiological

EVERYTHING = Options(device=True, institution=True, descriptions="vocabulary")


def walk(table, depth=0):
    for tag, rule in table.items():
        yield depth, tag, rule
        yield from walk(rule.items, depth + 1)


def test_the_tables_of_the_standard_are_whole():
    """Floors: a later version of a package must not shrink them unseen."""
    assert len(TABLE) >= 650
    assert len(standard_codes()) >= 39_000
    for iod, attributes, nested in (("CR", 160, 300), ("DX", 250, 600)):
        found = list(walk(rules(iod, SAFE)))
        assert sum(depth == 0 for depth, *_ in found) >= attributes
        assert sum(depth > 0 for depth, *_ in found) >= nested


@pytest.mark.parametrize("iod", ["CR", "DX"])
@pytest.mark.parametrize("options", [SAFE, Options(dates="removed", patient_characteristics=False)])
def test_what_the_table_lists_never_stays_as_it_is(iod, options):
    done = {Action.EMPTY, Action.DUMMY, Action.UID, Action.PSEUDONYM}
    retained = {Action.DATE} if options is SAFE else set()
    for _, tag, rule in walk(rules(iod, options)):
        if tag not in TABLE:
            continue
        keyword = keyword_for_tag(tag)
        if options is SAFE and keyword in ("PatientSex", "PatientAge"):
            continue
        allowed = done | retained
        if rule.vr == "SQ":  # its items are cleaned
            allowed = allowed | {Action.ITEMS}
            assert TABLE[tag] != "X"
        assert rule.action in allowed, keyword


@pytest.mark.parametrize("iod", ["CR", "DX"])
@pytest.mark.parametrize("options", [SAFE, EVERYTHING])
def test_no_free_text_stays(iod, options):
    kept = {Action.KEEP, Action.TEXT, Action.WORDS, Action.CODE_STRING, Action.BODY_PART}
    for depth, tag, rule in walk(rules(iod, options)):
        assert not (tag >> 16) % 2
        if rule.vr in ("PN", "LT", "ST", "UT", "UC", "UR", "UN", "OB", "OW", "AE", "TM", "AS"):
            special = keyword_for_tag(tag) in ("PatientName", "PatientAge", "PixelData")
            assert rule.action not in kept and (special or rule.action is not Action.TEXT)
        if options is SAFE and rule.vr in ("LO", "SH") and rule.action in kept:
            assert keyword_for_tag(tag) in TEXTS, depth


@unhurried
@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.dates(date(1900, 1, 1), date(2100, 1, 1)),
       st.text(max_size=8))  # fmt: skip
def test_intervals_between_dates_survive(first, second, patient):
    def clean(day, uid):
        text = day.strftime("%Y%m%d")
        source = film(PatientID=patient, StudyDate=text, ContentDate=text, SOPInstanceUID=uid,
                      StudyInstanceUID="1.2.3", AcquisitionDateTime=f"{text}101112.5",
                      StudyTime="101112", ContentTime="101112", PatientBirthDate=text)  # fmt: skip
        return header(source, KEYED)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = clean(first, "1.2.3.4"), clean(second, "1.2.3.5")
    days = [date.fromisoformat(found.StudyDate) for found in (one, two)]
    assert days[0] - days[1] == first - second
    assert timedelta(1) <= first - days[0] <= timedelta(3650)
    assert one.AcquisitionDateTime == one.ContentDate == one.StudyDate
    assert not one.PatientBirthDate and not one.StudyTime and not one.ContentTime
    assert one.LongitudinalTemporalInformationModified == "MODIFIED"


@pytest.mark.parametrize(
    "text", ["", "SMITH", "20200230", "2020", "00000000", "20201301", "00010101"]
)
def test_what_is_no_date_goes(text):
    assert shifted(text, 400) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = film(StudyDate="20200101")
        source["StudyDate"]._value = text
        assert not header(source, KEYED).StudyDate


def test_old_dates_with_dots():
    assert shifted("1991.12.31", 31) == shifted("19911231", 31) == "19911130"


def test_dates_of_equipment_would_give_the_offset_away():
    clean = header(film(DateOfLastDetectorCalibration="20200101"), KEYED)
    assert "DateOfLastDetectorCalibration" not in clean


def test_options():
    source = film(
        PatientSex="F", PatientAge="093Y", PatientSize=1.7, PatientWeight=70, StudyDate="20200131",
        AcquisitionDate="20200131", DeviceSerialNumber="SN 77", StationName="ROOM 3",
        InstitutionName="St Mary", InstitutionAddress="Road 1",
        StudyDescription="LSpine lateral Mr Smithson 1958", SeriesDescription="LWS seitl. - Meier",
    )  # fmt: skip
    safe = deidentify(source, KEYED)
    assert (safe.PatientSex, safe.PatientAge) == ("F", "089Y")
    for keyword in ("PatientSize", "PatientWeight", "DeviceSerialNumber", "StationName",
                    "InstitutionName", "StudyDescription", "SeriesDescription"):  # fmt: skip
        assert keyword not in safe
    assert codes(safe) == ["113100", "113107", "113108"]

    rich = deidentify(source, KEYED, EVERYTHING)
    assert (rich.DeviceSerialNumber, rich.StationName) == ("SN 77", "ROOM 3")
    assert rich.InstitutionName == "St Mary" and "InstitutionAddress" not in rich
    assert rich.StudyDescription == "lateral" or "lateral" in rich.StudyDescription.split()
    assert not {"smithson", "meier", "1958", "mr"} & set(
        f"{rich.StudyDescription} {rich.SeriesDescription}".lower().split()
    )
    assert codes(rich) == ["113100", "113105", "113107", "113108", "113109", "113112"]

    bare = deidentify(source, KEYED, Options(dates="removed", patient_characteristics=False))
    assert not bare.StudyDate and "AcquisitionDate" not in bare
    assert not bare.PatientSex and "PatientAge" not in bare
    assert bare.LongitudinalTemporalInformationModified == "REMOVED"
    assert codes(bare) == ["113100"]


def codes(clean) -> list[str]:
    items = clean.DeidentificationMethodCodeSequence
    assert all(item.CodingSchemeDesignator == "DCM" and item.CodeMeaning for item in items)
    return [item.CodeValue for item in items]


def coded(value, scheme, meaning) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def test_codes_of_the_standard_stay_with_the_standards_words():
    known = coded("T-11503", "SRT", "Spine of Mr Smithson")
    known.AnatomicRegionModifierSequence = [coded("999-SMITHSON", "99HOSP", "Smithson")]
    local = coded("SMITHSON7", "99HOSP", "Smithson")
    source = film(AnatomicRegionSequence=[known, local], ProcedureCodeSequence=[local])
    clean = deidentify(source, KEYED)
    (item,) = clean.AnatomicRegionSequence
    assert (item.CodeValue, item.CodeMeaning) == (
        "T-11503",
        "Lumbar spine structure (body structure)",
    )
    assert "ProcedureCodeSequence" not in clean
    assert b"mithson" not in saved(clean) and b"SMITHSON" not in saved(clean)


@pytest.mark.parametrize(
    ("text", "stays"),
    [("LSPINE", True), ("SPINE LUMBAR", False), ("LWS", True), ("SMITHSPINE", False),
     ("JOHN SMITH", False), ("P", False), ("", False), ("LSPINE SMITH", False)],
)  # fmt: skip
def test_a_body_part_is_one_of_the_standard_or_known_words(text, stays):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = header(film(BodyPartExamined=text), KEYED)
    found = clean.get("BodyPartExamined")
    assert found in (None, text) and (not stays or found == text)
    if "SMITH" in text:
        assert found is None


def test_words():
    assert radiological("LSpine, ap/LAT: Smith 12.3.1958") == ["lspine", "ap", "lat"]
    assert anatomical("LSPINE") and not anatomical("") and not anatomical("SMITHSON")


def test_uids_of_the_standard_stay_and_look_alikes_do_not():
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    item.ReferencedSOPInstanceUID = "1.2.840.10008.19580312.4711"
    clean = deidentify(film(ReferencedImageSequence=[item]), KEYED)
    (kept,) = clean.ReferencedImageSequence
    assert kept.ReferencedSOPClassUID == item.ReferencedSOPClassUID
    assert kept.ReferencedSOPInstanceUID == KEYED.uid(item.ReferencedSOPInstanceUID)


def test_the_audit_counts_every_element():
    from collections import Counter

    source = film(PatientName="A^B", InstitutionName="X", StudyDate="20200101")
    source.add_new(0x00091010, "LO", "private")
    source.add_new(0x60000022, "LO", "overlay")
    source.add_new(0x50000022, "LO", "curve")
    audit = Counter()
    header(source, KEYED, SAFE, audit)
    assert sum(audit.values()) == len(source)
    assert audit["PixelData", "written anew"] == 1
    assert audit["private elements", "removed"] == 1
    assert audit["overlays", "removed"] == audit["curves", "removed"] == 1
    assert audit["InstitutionName", "removed"] == 1
    assert audit["PatientName", "replaced by the pseudonym"] == 1
    assert audit["StudyDate", "shifted"] == 1
    assert audit["Rows", "kept"] == 1


def test_every_kept_attribute_has_the_dictionarys_vr():
    for iod in ("CR", "DX"):
        for _, tag, rule in walk(rules(iod, EVERYTHING)):
            assert rule.vr == dictionary_VR(tag)
