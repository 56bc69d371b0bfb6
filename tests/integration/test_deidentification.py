"""The corpus of planted values through the whole real path, judged by its answer key.

Three looks at what is written: the key of actions (judging.py), a plain search of all bytes for
every planted value (byte_search.py), and dciodvfy. None of them knows how the work was done.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import pandas as pd
import pydicom
import pytest
from byte_search import Search, contents
from judging import Result, judge, table
from planted import (
    BURNED_IN,
    FILE_NAMES,
    PLACES,
    TYPES,
    Planted,
    corpus,
    unvalidated,
)
from pydicom.dataset import Dataset

from lumbarflow import files
from lumbarflow.acquire.folder import import_folder
from lumbarflow.deidentify.burned_in import TextFinder
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.engine import SOP_CLASSES, deidentify
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError
from lumbarflow.verify.search import search
from lumbarflow.verify.values import Witness

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2] / "../shared/data"))
SAMPLES = DATA / "dicom_samples"
KEYED = Pseudonyms(b"a key for these tests only")
OTHER = Pseudonyms(b"another key for these tests")
OTHER_CLASSES = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.1.1.1", "1.2.276.0.77")


@dataclass
class Run:
    """What an import of planted objects wrote."""

    out: Path
    keyed: Pseudonyms
    manifest: pd.DataFrame  # by image_id

    def path(self, kind: str, uid: str) -> Path:
        return self.out / kind / f"{self.keyed.image(uid)}.{'png' if kind == 'png' else 'dcm'}"

    def result(self, uid: str) -> Result:
        row = self.manifest.loc[self.keyed.image(uid)]
        if row["status"] != "accepted":
            return Result(reason=row["reason"])
        picture = cv2.imread(str(self.path("png", uid)), cv2.IMREAD_UNCHANGED)
        return Result(pydicom.dcmread(self.path("dicom", uid)), picture)


def take(objects: Iterable[Planted], folder: Path, deidentifier: Deidentifier) -> Run:
    """Write the objects to a folder and import it."""
    for planted in objects:
        path = folder / "films" / planted.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(planted.data)
    log, told = logging.getLogger(f"planted {folder.name}"), io.StringIO()
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler(told))
    out = folder / "images"
    manifest = out / "manifest.parquet"
    with pytest.MonkeyPatch.context() as patch, unvalidated():
        patch.setattr(files.os, "fsync", lambda _: None)  # no power cut is tested here
        films = folder / "films"
        import_folder(films, deidentifier, out, manifest, "lateral", {}, None, log, 2)
    (out / "log.txt").write_text(told.getvalue())
    table = pd.read_parquet(manifest).set_index("image_id")
    return Run(out, deidentifier.pseudonyms, table)


@pytest.fixture(scope="module")
def objects() -> list[Planted]:
    return corpus()


@pytest.fixture(scope="module")
def strangers(objects) -> list[Planted]:
    """Objects that are no CR or DX films."""
    return [
        other_class(planted, sop_class)
        for planted, sop_class in zip(objects, OTHER_CLASSES, strict=False)
    ]


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness()


@pytest.fixture(scope="module")
def run(objects, strangers, witness, tmp_path_factory) -> Run:
    whole = Deidentifier(KEYED, finder=TextFinder(), witness=witness)
    return take([*objects, *strangers], tmp_path_factory.mktemp("first"), whole)


def other_class(planted: Planted, sop_class: str) -> Planted:
    with unvalidated():
        dataset = pydicom.dcmread(io.BytesIO(planted.data))
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = planted.uid + ".1"
        encoded = io.BytesIO()
        dataset.save_as(encoded)
    return Planted(
        f"others/{planted.name}", encoded.getvalue(), planted.patient, planted.uid + ".1", [],
        planted.secrets, planted.pixels,
    )  # fmt: skip


def test_the_corpus_has_every_kind_of_place_and_type(objects):
    places = Counter(place for planted in objects for place in planted.places)
    assert len(objects) >= 500 and len(places) >= 40
    assert {*PLACES, BURNED_IN, FILE_NAMES} <= set(places)
    assert min(places.values()) >= 5
    assert places[BURNED_IN] >= 60
    assert {action.kind for planted in objects for action in planted.actions} == set(TYPES)
    assert len({planted.patient for planted in objects}) >= 35
    assert len({planted.uid for planted in objects}) == len(objects)
    assert len({planted.name for planted in objects}) == len(objects)


def test_every_required_action_is_done(run, objects):
    verdicts = judge(objects, {planted.uid: run.result(planted.uid) for planted in objects})
    counts = table(verdicts)
    print(f"\n{counts.to_string()}")
    reasons = run.manifest["reason"].value_counts()
    print(f"\nrejected:\n{reasons.to_string()}")
    missed = Counter(
        (verdict.action.kind, ".".join(map(str, verdict.action.where)))
        for verdict in verdicts
        if not verdict.done
    )
    assert not missed, missed.most_common(40)
    assert (counts["required"] > 0).all()
    plain = [run.result(planted.uid).reason for planted in objects if not planted.words]
    assert set(plain) <= {None, "burned_in_text_uncertain"}
    # Films that are lost as their text, which they do not have, is not certain.
    assert sum(reason is not None for reason in plain) <= 0.03 * len(plain)


def test_no_planted_value_is_in_any_byte(run, objects):
    everything = Search(secret for planted in objects for secret in planted.secrets)
    paths = [path for path in run.out.rglob("*") if path.is_file()]
    assert len(paths) > len(objects)
    left: Counter[tuple[str, str]] = Counter()
    for path in paths:
        name = str(path.relative_to(run.out)).encode()
        for content in (name, *contents(path)):
            left.update((secret.place, path.suffix) for secret in everything.found(content))
    assert not left, left.most_common()


def test_the_verifier_finds_nothing(run, objects, witness):
    found = search(witness, [run.out], sample="all", log=logging.getLogger("verification"))
    print(f"\n{found.audit}")
    assert not found.findings, found.findings[:20]
    assert found.audit["objects"] >= len(objects)


def test_other_classes_are_rejected(run, strangers):
    assert len(strangers) == len(OTHER_CLASSES)
    for planted in strangers:
        row = run.manifest.loc[KEYED.image(planted.uid)]
        assert (row["status"], row["reason"]) == ("rejected", "sop_class_not_taken")
        assert not run.path("dicom", planted.uid).exists()
        assert not run.path("png", planted.uid).exists()


def test_patients_and_days_of_the_manifest_are_right(run, objects):
    first: dict[int, pd.Timestamp] = {}
    days = {}
    with unvalidated():
        for planted in objects:
            dataset = pydicom.dcmread(io.BytesIO(planted.data), specific_tags=["StudyDate"])
            day = days[planted.uid] = pd.Timestamp(dataset.StudyDate)
            first[planted.patient] = min(first.get(planted.patient, day), day)
    offsets: dict[int, int] = {}
    patients: dict[int, str] = {}
    for planted in objects:
        row = run.manifest.loc[KEYED.image(planted.uid)]
        assert row["study_day"] == (days[planted.uid] - first[planted.patient]).days
        if row["status"] == "accepted":
            clean = run.result(planted.uid).dataset
            assert clean.PatientID == clean.PatientName == row["patient_id"]
            assert patients.setdefault(planted.patient, row["patient_id"]) == row["patient_id"]
            offset = (pd.Timestamp(clean.StudyDate) - days[planted.uid]).days
            assert offsets.setdefault(planted.patient, offset) == offset < 0
    assert len(set(patients.values())) == len(patients) >= 35
    # Offsets are secret: most patients have one of their own.
    assert len(set(offsets.values())) > len(offsets) / 2


def test_one_key_gives_the_same_objects_and_another_key_others(run, objects, tmp_path):
    """Bytes of DICOM and PNG files, of a share of the objects, in folders of other names."""
    share = [
        Planted(f"{number % 7}/{number}", *list(vars(planted).values())[1:])
        for number, planted in enumerate(objects[::18])
    ]
    again, other = (
        take(share, tmp_path / name, Deidentifier(keyed, finder=TextFinder()))
        for name, keyed in (("again", KEYED), ("other", OTHER))
    )
    compared = 0
    for planted in share:
        here, there = run.result(planted.uid), again.result(planted.uid)
        assert here.reason == there.reason
        if here.dataset is None:
            continue
        compared += 1
        for kind in ("dicom", "png"):
            before, after = (r.path(kind, planted.uid).read_bytes() for r in (run, again))
            assert before == after
        changed = other.result(planted.uid).dataset
        for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            assert changed[keyword].value != here.dataset[keyword].value
        assert changed.PixelData == here.dataset.PixelData
    assert compared > len(share) / 2
    dates = ((other.result(p.uid).dataset, run.result(p.uid).dataset) for p in share)
    different = [a.StudyDate != b.StudyDate for a, b in dates if a is not None and b is not None]
    assert sum(different) > len(different) / 2


# dciodvfy --------------------------------------------------------------------------------------


def dciodvfy(path: Path) -> set[str]:
    """The errors that dciodvfy reports of a file, without values."""
    program = shutil.which("dciodvfy")
    if program is None:
        assert os.environ.get("CI") != "true", "install dicom3tools"
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    run = subprocess.run([program, path], capture_output=True, text=True, errors="replace")
    lines = (run.stdout + run.stderr).splitlines()
    return {re.sub(r"<[^>]*>\s*-|\d{4,}", "", line) for line in lines if "Error" in line}


def new_errors(source: Dataset, path: Path, folder: Path) -> set[str]:
    """Of the output beside its input, which is written uncompressed: dciodvfy does not inflate."""
    before = folder / "before.dcm"
    if source.file_meta.TransferSyntaxUID.is_deflated:
        source.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    source.save_as(before)
    return dciodvfy(path) - dciodvfy(before)


def test_dciodvfy_finds_no_new_errors_in_the_corpus(tmp_path):
    """In objects with hardly anything planted: errors of the input would hide others."""
    sample = corpus(40, seed=9, kinds=0) + corpus(30, seed=10, kinds=2)
    done = take(sample, tmp_path, Deidentifier(KEYED))
    judged, new = 0, Counter()
    with unvalidated():
        for planted in sample:
            path = done.path("dicom", planted.uid)
            if path.exists():
                source = pydicom.dcmread(io.BytesIO(planted.data))
                new.update(new_errors(source, path, tmp_path))
                judged += 1
    assert not new, new.most_common()
    assert judged >= 60


def real_films() -> list[Path]:
    return sorted(SAMPLES.rglob("*.dcm")) if SAMPLES.is_dir() else []


@pytest.mark.skipif(not real_films(), reason=f"no sample objects in {SAMPLES}")
@pytest.mark.filterwarnings("ignore")
def test_dciodvfy_finds_no_new_errors_in_real_objects(tmp_path):
    judged, new = 0, Counter()
    for path in real_films():
        source = pydicom.dcmread(path)
        if source.get("SOPClassUID") not in SOP_CLASSES:
            continue
        try:
            clean = deidentify(source, KEYED)
        except InputError:
            continue
        clean.save_as(tmp_path / "after.dcm", enforce_file_format=True)
        new.update(new_errors(source, tmp_path / "after.dcm", tmp_path))
        judged += 1
    assert not new, new.most_common()
    assert judged >= 5


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-s"]))
