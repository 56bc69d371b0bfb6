"""The synthetic cohort: who has which films, determinism, restart, one film alone."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.errors import InputError
from lumbarflow.synthetic import cohort as module
from lumbarflow.synthetic.__main__ import main
from lumbarflow.synthetic.cohort import cohort_parameters, generate_cohort, plan_jobs
from lumbarflow.synthetic.others import KINDS

SCALE = 0.1
IMPLANTS = {"cage", "screw", "instrumentation"}
DISTRACTORS = {"frontal": 0.2, "other_modalities": 0.3, "duplicates": 0.2}


def parameters(**changes):
    defaults = {
        "patients": 10, "seed": 1, "postoperative_fraction": 0.72, "follow_up_fraction": 0.4,
        "scale": SCALE, "side_marker_fraction": 0.6,
        "burned_in_text_fraction": 0.05, "distractors": None, "test_only": (),
    }  # fmt: skip
    return cohort_parameters(**defaults | changes)


def area(polygon):
    x, y = np.asarray(polygon).T
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def of_films(jobs):
    return [job for job in jobs if job.view == "lateral" and not job.copy]


@given(st.integers(1, 60), st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_shares_are_met(patients, seed, operated, followed, share):
    jobs = plan_jobs(
        parameters(
            patients=patients,
            seed=seed,
            postoperative_fraction=operated,
            follow_up_fraction=followed,
            burned_in_text_fraction=share,
            distractors={"frontal": share, "other_modalities": share, "duplicates": share},
        )
    )
    assert [job.index for job in jobs] == list(range(len(jobs)))
    films = of_films(jobs)
    assert {job.patient for job in films} == set(range(patients))
    studies = Counter(job.patient for job in films)
    assert set(studies.values()) <= {1, 2, 3, 4}
    assert sum(count > 1 for count in studies.values()) == round(followed * patients)
    # Exact where a patient with few enough films is left.
    shown = sum(job.postoperative for job in films)
    assert shown == round(operated * len(films))
    views = Counter(job.view for job in jobs if not job.copy)
    assert views["AP"] == round(share * len(films))
    assert sum(job.copy for job in jobs) == round(share * len(films))
    others = {(job.patient, job.study) for job in jobs if job.view in KINDS}
    assert len(others) == round(share * len(films))
    texts = sum(job.text for job in jobs if job.view not in KINDS and not job.copy)
    assert texts == round(share * (len(films) + views["AP"]))


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_an_operation_is_never_undone(seed):
    by_patient = {}
    for job in of_films(plan_jobs(parameters(patients=30, seed=seed))):
        by_patient.setdefault(job.patient, []).append((job.study, job.postoperative, job.operated))
    pairs = 0
    for films in by_patient.values():
        shown = [after for _, after, _ in sorted(films)]
        assert shown == sorted(shown)
        assert {operated for *_, operated in films} == {any(shown)}
        pairs += len(set(shown)) == 2
    assert pairs > 0  # films from before and after


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    storage = tmp_path_factory.mktemp("cohort")
    return storage, generate_cohort(
        storage, 7, 11, scale=SCALE, burned_in_text_fraction=0.2, distractors=DISTRACTORS,
        log=lambda _: None,
    )  # fmt: skip


def contents(storage):
    return {p.name: p.read_bytes() for p in sorted((storage / "objects").iterdir())}


def test_cohort_lists_every_object(cohort):
    storage, truth = cohort
    assert json.loads((storage / "truth.json").read_text(encoding="utf-8")) == truth
    assert {f"objects/{name}" for name in contents(storage)} == {i["file"] for i in truth["images"]}
    people = {}
    for image in truth["images"]:
        ds = pydicom.dcmread(storage / image["file"], stop_before_pixels=True)
        assert ds.SOPInstanceUID == image["sop_instance_uid"]
        lateral = image["view"] == "lateral"
        assert bool(image["structures"]) == lateral
        if image["view"] not in KINDS:
            assert (ds.Rows, ds.Columns) == (image["rows"], image["columns"])
            assert float(ds.ImagerPixelSpacing[0]) == pytest.approx(
                image["pixel_spacing_mm"], rel=1e-4
            )
            assert ds.Modality in ("DX", "CR")
        if lateral:
            fitted = {s["class_name"] for s in image["structures"]} & IMPLANTS
            assert bool(fitted) == image["postoperative"]
        for text in (str(ds.PatientName), ds.PatientID, ds.PatientBirthDate, ds.AccessionNumber,
                     ds.PatientAddress, ds.InstitutionName, str(ds.OperatorsName)):  # fmt: skip
            assert text in truth["identifiers"]
        people.setdefault(ds.PatientID, set()).add(image["patient"])
    assert sorted(map(list, people.values())) == [[number] for number in range(7)]


def test_studies_follow_one_another_and_share_their_number(cohort):
    storage, truth = cohort
    dates = {}
    for image in truth["images"]:
        ds = pydicom.dcmread(storage / image["file"], stop_before_pixels=True)
        key = image["patient"], image["study"]
        dates.setdefault(key, set()).add((ds.StudyInstanceUID, ds.StudyDate))
    assert all(len(found) == 1 for found in dates.values())
    ordered = sorted((*key, next(iter(found))[1]) for key, found in dates.items())
    for (patient, _, day), (other, _, later) in pairwise(ordered):
        assert patient != other or day < later


def test_films_of_one_patient_share_anatomy_and_construct(cohort):
    shapes, constructs = {}, {}
    for image in cohort[1]["images"]:
        if image["view"] != "lateral" or image["duplicate_of"]:
            continue
        # Ratios of areas do not depend on magnification or on how the patient stands.
        areas = {
            s["level"]: area(s["polygon"])
            for s in image["structures"]
            if s["class_name"] == "lumbar_vertebra"
        }
        shapes.setdefault(image["patient"], []).append(areas["L1"] / areas["L4"])
        levels = [s["level"] for s in image["structures"] if s["class_name"] in IMPLANTS]
        if levels:
            constructs.setdefault(image["patient"], []).append(levels)
    assert any(len(ratios) > 1 for ratios in shapes.values())
    for first, *others in shapes.values():
        assert others == pytest.approx([first] * len(others), rel=0.03)
    for first, *others in constructs.values():
        assert all(levels == first for levels in others)


def test_duplicates_differ_in_their_uids_only(cohort):
    storage, truth = cohort
    files = {image["sop_instance_uid"]: image for image in truth["images"]}
    copies = [image for image in truth["images"] if image["duplicate_of"]]
    assert copies
    for image in copies:
        first = files[image["duplicate_of"]]
        one, other = (pydicom.dcmread(storage / i["file"]) for i in (first, image))
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert one.SeriesInstanceUID != other.SeriesInstanceUID
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
            del one[keyword], other[keyword]
        assert one == other
        assert image["structures"] == first["structures"]


def test_cohort_does_not_depend_on_workers(cohort, tmp_path):
    storage, truth = cohort
    same = generate_cohort(
        tmp_path, 7, 11, scale=SCALE, burned_in_text_fraction=0.2, distractors=DISTRACTORS,
        workers=2, log=lambda _: None,
    )  # fmt: skip
    assert same == truth
    assert contents(tmp_path) == contents(storage)


def test_one_film_is_made_alone(cohort, tmp_path, capsys):
    storage, truth = cohort
    for image in truth["images"][:3]:
        index = image["index"]
        arguments = ["--truth", str(storage / "truth.json"), "--out", str(tmp_path)]
        main(["--index", str(index), *arguments])
        assert (tmp_path / f"{index:05d}.dcm").read_bytes() == contents(storage)[f"{index:05d}.dcm"]
        assert json.loads((tmp_path / f"{index:05d}.json").read_text()) == image
    with pytest.raises(InputError, match="--index is 999"):
        main(["--index", "999", *arguments])
    with pytest.raises(InputError, match="is no truth"):
        main(["--index", "0", "--truth", str(tmp_path / "absent.json"), "--out", str(tmp_path)])


def test_restart_makes_only_what_is_missing_and_other_parameters_start_anew(tmp_path):
    said = []
    truth = generate_cohort(tmp_path, 2, 1, scale=SCALE, log=said.append)
    assert "a second" in said[-1]
    before = contents(tmp_path)
    first, *others = sorted((tmp_path / "objects").iterdir())
    first.unlink()
    (tmp_path / "truth.json").unlink()
    times = [p.stat().st_mtime_ns for p in others]
    said.clear()
    assert generate_cohort(tmp_path, 2, 1, scale=SCALE, log=said.append) == truth
    assert contents(tmp_path) == before
    assert [p.stat().st_mtime_ns for p in others] == times
    assert said[0].startswith(f"kept {len(others)} of {len(before)}")

    foreign = tmp_path / "objects" / "someone-elses.dcm"
    foreign.write_bytes(b"kept")
    other = generate_cohort(tmp_path, 1, 2, follow_up_fraction=0, scale=SCALE, log=said.append)
    assert set(contents(tmp_path)) == {"00000.dcm", foreign.name}
    assert {p.name for p in (tmp_path / "truth").iterdir()} == {"00000.json"}
    assert other["images"][0]["sop_instance_uid"] not in {
        i["sop_instance_uid"] for i in truth["images"]
    }


def test_what_is_for_testing_only_reserves_all_films_of_its_patient(tmp_path, monkeypatch):
    monkeypatch.setattr(
        module, "_rare", lambda anatomy, implants: {"fracture"} if implants else set()
    )
    options = {"scale": SCALE, "follow_up_fraction": 1, "log": lambda _: None}
    half = {"postoperative_fraction": 0.4} | options
    images = generate_cohort(tmp_path, 4, 3, test_only=["fracture"], **half)["images"]
    reserved = {image["patient"] for image in images if image["reserved"] == "test"}
    shown = {image["patient"] for image in images if image["postoperative"]}
    assert reserved == shown and shown != {image["patient"] for image in images}
    for image in images:
        assert image["reserved"] == ("test" if image["patient"] in reserved else None)
    free = generate_cohort(tmp_path, 4, 3, **half)["images"]
    assert {image["reserved"] for image in free} == {None}


@pytest.mark.parametrize(
    ("name", "value"),
    [("patients", 0), ("seed", -1), ("postoperative_fraction", 1.5), ("follow_up_fraction", -0.1),
     ("burned_in_text_fraction", 2), ("scale", 0.0), ("distractors", {"frontal": 3}),
     ("distractors", {"mammograms": 0.1}), ("test_only", ["scoliosis"])],
)  # fmt: skip
def test_bad_parameters_are_named(tmp_path, name, value):
    parameters = {"patients": 1, "seed": 1, name: value}
    with pytest.raises(InputError, match=name):
        generate_cohort(tmp_path, **parameters)
    assert not list(tmp_path.iterdir())
