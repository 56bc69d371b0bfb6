"""Cohort files and what of an archive they and the query select."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lumbarflow.acquire.selection import COLUMNS, Selection, read_cohort
from lumbarflow.errors import InputError

SECRET = "QZ4711secret"


def cohort(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "cohort.csv"
    path.write_bytes(text.encode(encoding))
    return read_cohort(path)


def refused(tmp_path, text: str, encoding: str = "utf-8") -> str:
    with pytest.raises(InputError) as caught:
        cohort(tmp_path, text, encoding)
    sentence = str(caught.value)
    assert str(tmp_path / "cohort.csv") in sentence and sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["accession_number", "AccessionNumber", "Accession Number"])
def test_separators_and_spellings(tmp_path, separator, name):
    rows = cohort(tmp_path, f"note{separator}{name}\nx{separator}A1\ny{separator} 0042 \n")
    assert rows == {2: {"AccessionNumber": "A1"}, 3: {"AccessionNumber": "0042"}}


def test_a_spreadsheets_byte_order_mark_quotes_and_blank_lines(tmp_path):
    text = 'patient_id;study_uid\r\n"P;1";\r\n;;\r\n\r\nP2;1.2.3\r\nP2;1.2.3\r\n'
    rows = cohort(tmp_path, text, "utf-8-sig")
    assert rows == {2: {"PatientID": "P;1"}, 5: {"PatientID": "P2", "StudyInstanceUID": "1.2.3"}}


values = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=16)


@given(
    st.lists(values, min_size=1, max_size=8), st.sampled_from(["patient_id", "accession_number"])
)
def test_every_different_value_is_asked_for_once(tmp_path_factory, numbers, column):
    folder = tmp_path_factory.mktemp("cohort")
    rows = cohort(folder, "\n".join([column, *numbers]) + "\n")
    assert [row[COLUMNS[column]] for row in rows.values()] == list(dict.fromkeys(numbers))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has none of the columns"),
        (f"number\n{SECRET}\n", "has none of the columns accession_number"),
        ("patient_id\n", "lists no study"),
        ("patient_id;note\n\n ; \n", "lists no study"),
        (f"patient_id\nok\n{SECRET}*\n", "line 3: the patient_id"),
        (f"patient_id\n{SECRET}\\other\n", "line 2: the patient_id"),
        (f"accession_number\n{SECRET}{SECRET}\n", "line 2: the accession_number"),
        (f"study_instance_uid\n1.2.3\n{SECRET}\n", "line 3: the study_instance_uid"),
    ],
)
def test_what_cannot_be_asked_for_is_told_by_its_line(tmp_path, text, told):
    sentence = refused(tmp_path, text)
    assert told in sentence
    assert SECRET not in sentence


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv cannot be read .*archive\.cohort"):
        read_cohort(tmp_path / "gone.csv")
    assert "UTF-8" in refused(tmp_path, "patient_id\nMüller\n", "utf-16")


def level(**values) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


CHOSEN = Selection(("DX", "CR"), body_parts=("LSPINE", "L?SPINE"), descriptions=("lws", "lumb*lat"))


@pytest.mark.parametrize(
    ("study", "series", "reason"),
    [
        ({}, {}, None),
        ({}, {"Modality": "DX"}, None),
        ({}, {"Modality": "CT", "BodyPartExamined": "CHEST"}, "modality"),
        ({}, {"Modality": "DX", "BodyPartExamined": "lspine"}, None),
        ({}, {"Modality": "DX", "BodyPartExamined": "L-SPINE"}, None),
        ({}, {"Modality": "DX", "BodyPartExamined": "TLSPINE"}, "body_part"),
        ({"StudyDescription": "LWS in 2 Ebenen"}, {"SeriesDescription": "seitlich"}, None),
        ({"StudyDescription": "Röntgen"}, {"SeriesDescription": "Lumbar spine LAT"}, None),
        ({"StudyDescription": "Knie"}, {"Modality": "DX"}, "description"),
        ({"StudyDescription": ""}, {"SeriesDescription": ""}, None),
    ],
)
def test_series_are_left_out_by_what_is_known_of_them(study, series, reason):
    assert CHOSEN.excludes(level(**study), level(**series)) == reason


def test_a_query_is_one_for_all_or_one_a_line():
    assert list(Selection(("DX",), "20200101-").queries()) == [(None, {"StudyDate": "20200101-"})]
    listed = Selection(("DX",), cohort={2: {"PatientID": "P"}, 5: {"AccessionNumber": "A"}})
    assert list(listed.queries()) == [
        (2, {"StudyDate": "", "PatientID": "P"}),
        (5, {"StudyDate": "", "AccessionNumber": "A"}),
    ]
