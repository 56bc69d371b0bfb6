"""The linkage table: complete, private, outside of the results, and never twice the same."""

from __future__ import annotations

import csv
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from test_deidentify import KEYED, film

from lumbarflow.deidentify.engine import deidentify
from lumbarflow.deidentify.linkage import COLUMNS, Linkage
from lumbarflow.errors import InputError


def rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_pseudonym_leads_back_to_its_original(tmp_path):
    path = tmp_path / "private" / "linkage.csv"
    source = film(PatientID='A;1,\n"x', IssuerOfPatientID="H\u00f4pital", StudyDate="20200131")
    for _ in range(2):  # a second run adds nothing
        linkage = Linkage(path, tmp_path / "results")
        linkage.add(source, KEYED)
        linkage.add(source, KEYED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    patient, study, image = rows(path)
    clean = deidentify(source, KEYED)
    assert patient["pseudonym"] == clean.PatientID
    assert (patient["original"], patient["issuer"]) == (source.PatientID, "H\u00f4pital")
    assert (study["kind"], study["original"]) == ("study", "1.2.3")
    assert (image["pseudonym"], image["original"]) == (KEYED.image("1.2.3.4"), "1.2.3.4")
    # The shifted date leads back, too.
    moved = date.fromisoformat(clean.StudyDate) + timedelta(int(patient["days_shifted"]))
    assert moved.strftime("%Y%m%d") == "20200131"


def test_many_threads_lose_no_row(tmp_path):
    linkage = Linkage(tmp_path / "linkage.csv", tmp_path / "results")
    films = [film(PatientID=f"P{n}", StudyInstanceUID=f"1.{n}", SOPInstanceUID=f"2.{n}")
             for n in range(60)]  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda source: linkage.add(source, KEYED), films * 2))
    assert len(rows(tmp_path / "linkage.csv")) == 180


def test_a_table_in_an_unsafe_place_is_refused(tmp_path):
    results = tmp_path / "results"
    with pytest.raises(InputError, match=r"privacy\.linkage.* within the results"):
        Linkage(results / "deep" / "linkage.csv", results)
    assert not results.exists()
    path = tmp_path / "linkage.csv"
    path.write_text(",".join(COLUMNS) + "\n")
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        Linkage(path, results)


@pytest.mark.parametrize("content", [b"my,own,notes\n1,2,3\n", b"\xff\xfe\0"])
def test_another_file_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "notes.csv"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError, match="not "):
        Linkage(path, tmp_path / "results")
    assert path.read_bytes() == content


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(InputError, match="cannot be used"):
        Linkage(tmp_path, tmp_path / "results")
