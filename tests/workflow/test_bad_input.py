"""Bad input: one clear sentence, an exit status other than 0, and results left as they were."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from harness import TINY, Workflow, contents, times

UNTIL_SPLIT = ("--until", "split")
SUBSETS = ("train", "train", "train", "train", "val", "test")


def film(rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(rng.integers(0, 255, (120, 80), dtype=np.uint8), (9, 9), 0)


def region(class_name: str = "lumbar_vertebra") -> dict:
    points = {"all_points_x": [20, 50, 50, 20], "all_points_y": [30, 30, 60, 60]}
    return {
        "shape_attributes": {"name": "polygon", **points},
        "region_attributes": {"structure": class_name, "level": "L3"},
    }


def project(names: list[str], **classes: str) -> dict:
    return {
        name: {"filename": name, "size": -1, "regions": [region(**classes)], "file_attributes": {}}
        for name in names
    }


@pytest.fixture
def folder_run(tmp_path) -> Workflow:
    """Six films in a folder, annotated and divided: a finished run up to the prepared data."""
    rng = np.random.default_rng(3)
    films = tmp_path / "films"
    films.mkdir()
    names = [f"film_{number}.png" for number in range(6)]
    for name in names:
        cv2.imwrite(str(films / name), film(rng))
    (tmp_path / "via.json").write_text(json.dumps(project(names)))
    lines = ["file_name,subset", *map(",".join, zip(names, SUBSETS, strict=True))]
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n")
    workflow = Workflow(
        tmp_path,
        {
            "source": "folder",
            "folder": {"path": "films"},
            "annotations": {"via": ["via.json"]},
            "splits": {"file": "split.csv"},
        },
    )
    run = workflow.run("--until", "prepare")
    assert run.status == 0, run.output
    return workflow


def fails(workflow: Workflow, *arguments: str) -> str:
    """Run, expect one sentence and untouched results; return the sentence."""
    before = contents(workflow.results)
    run = workflow.run(*(arguments or UNTIL_SPLIT))
    assert run.status != 0
    assert "Traceback" not in run.output
    assert contents(workflow.results) == before
    # The next run must not take what is left for up to date.
    again = workflow.run(*(arguments or UNTIL_SPLIT))
    assert again.status != 0
    assert again.sentence == run.sentence
    return run.sentence


def test_via_file_cut_in_the_middle(folder_run):
    path = folder_run.folder / "via.json"
    path.write_text(path.read_text()[:400])
    sentence = fails(folder_run)
    assert "via.json" in sentence
    assert "export" in sentence


def test_annotation_file_of_other_films(folder_run):
    (folder_run.folder / "via.json").write_text(json.dumps(project(["film_77.png"])))
    sentence = fails(folder_run)
    assert "via.json" in sentence
    assert "film_77" not in sentence  # may be a patient's name


def test_film_that_is_not_an_image(folder_run):
    (folder_run.folder / "films" / "film_3.png").write_text("not an image")
    sentence = fails(folder_run)
    assert "film_3.png" in sentence


def test_class_that_the_configuration_does_not_know(folder_run):
    names = [f"film_{number}.png" for number in range(6)]
    content = project(names) | project(names[:1], class_name="lumbar_vertebrre")
    (folder_run.folder / "via.json").write_text(json.dumps(content))
    run = folder_run.run("--until", "read_annotations")
    assert run.status == 0, run.output
    (path,) = (folder_run.results / "incoming").rglob("qc.parquet")
    findings = pd.read_parquet(path)
    said = " ".join(findings.loc[findings["check"] == "unknown_class", "message"])
    assert "'lumbar_vertebrre'" in said
    assert "did you mean 'lumbar_vertebra'?" in said


def test_no_annotated_film_in_a_subset(folder_run):
    path = folder_run.folder / "split.csv"
    path.write_text(path.read_text().replace("test", "train"))
    sentence = fails(folder_run)
    assert "split.csv" in sentence
    assert "test" in sentence


def test_split_file_with_a_patient_in_two_subsets(folder_run):
    folder_run.overlay({"folder": {"patient_pattern": "^(film)_"}})
    before = contents(folder_run.results)
    run = folder_run.run(*UNTIL_SPLIT)
    assert run.status != 0
    assert "split.csv" in run.sentence
    assert "patient" in run.sentence
    assert contents(folder_run.results)["splits.parquet"] == before["splits.parquet"]


def test_folder_that_is_not_there(folder_run):
    folder_run.overlay({"folder": {"path": "filmz"}})
    sentence = fails(folder_run)
    assert "folder.path" in sentence
    assert "filmz" in sentence


def test_via_file_that_is_not_there(folder_run):
    folder_run.overlay({"annotations": {"via": ["vio.json"]}})
    sentence = fails(folder_run)
    assert "annotations.via" in sentence
    assert "vio.json" in sentence


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"models": ["unet", "yollact"]}, ["yollact", "'yolact'"]),
        ({"trainin": {}}, ["trainin", "'training'"]),
        ({"synthetic": {"patients": "many"}}, ["synthetic.patients", "whole number", "'many'"]),
        ({"preset": "papper"}, ["preset", "demo, paper", "'paper'"]),
        ({"splits": {"validation": 1.5}}, ["splits.validation", "less than 1"]),
    ],
)
def test_wrong_configuration(config, words, tmp_path):
    run = Workflow(tmp_path, config).run("--dry-run")
    assert run.status != 0
    assert "Traceback" not in run.output
    assert all(word in run.sentence for word in words), run.sentence


UNTIL_RETRIEVED = ("--until", "retrieve")


@pytest.fixture(scope="module")
def archive_run(tmp_path_factory) -> Workflow:
    """The tiny cohort, retrieved."""
    workflow = Workflow(tmp_path_factory.mktemp("archive"), TINY)
    run = workflow.run("--until", "simulate_annotators")
    assert run.status == 0, run.output
    return workflow


def hospital(archive_run: Workflow, **settings: object) -> None:
    """Ask an archive that the workflow does not start; it has no simulated annotators."""
    archive = {"embedded": False, **settings}
    archive_run.overlay({"archive": archive, "annotations": {"via": ["test.yaml"]}})


def test_archive_not_reachable(archive_run):
    hospital(archive_run, port=9)
    sentence = fails(archive_run, *UNTIL_RETRIEVED)
    assert "127.0.0.1:9" in sentence
    assert "archive.port" in sentence


@pytest.fixture(scope="module")
def archive_port(archive_run):
    """A separate archive that answers to the AE title HOSPITAL."""
    from lumbarflow.acquire.embedded_archive import running

    with running(archive_run.folder / "archive", "127.0.0.1", 0, "HOSPITAL") as port:
        yield port


def test_wrong_ae_title(archive_run, archive_port):
    hospital(archive_run, port=archive_port, ae_title="HOSPITEL")
    sentence = fails(archive_run, *UNTIL_RETRIEVED)
    assert "HOSPITEL" in sentence
    assert "archive.ae_title" in sentence


def test_empty_query_result(archive_run, archive_port):
    dates = "18950101-18951231"
    hospital(archive_run, port=archive_port, ae_title="HOSPITAL", study_dates=dates)
    sentence = fails(archive_run, *UNTIL_RETRIEVED)
    assert "archive.study_dates" in sentence


def test_separate_archive_is_retrieved_from(archive_run, archive_port):
    """The same films from an archive that the workflow did not start: nothing is fetched twice."""
    hospital(archive_run, port=archive_port, ae_title="HOSPITAL")
    before = times(archive_run.results / "images" / "png")
    run = archive_run.run("--until", "retrieve")
    assert run.status == 0, run.output
    assert times(archive_run.results / "images" / "png") == before


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A real file system that is soon full."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        assert "CI" not in os.environ, f"CI must be able to mount: {mounted.stderr}"
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_disk_full_while_writing_a_film(small_disk, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    workflow = Workflow(checkout, TINY | {"results": str(small_disk / "results")})
    workflow.results = small_disk / "results"
    run = workflow.run("--until", "retrieve")
    assert run.status != 0
    assert "Traceback" not in run.output
    assert "disk is full while writing" in run.sentence
    assert "`results`" in run.sentence
    whole = list((workflow.results / "images" / "studies").glob("*.json"))
    assert not list(small_disk.rglob("*.part*"))

    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    before = {path: path.stat().st_mtime_ns for path in whole}
    run = workflow.run("--until", "retrieve")
    assert run.status == 0, run.output
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_more_folds_than_patients(folder_run):
    folder_run.overlay({"training": {"folds": 6}})
    sentence = fails(folder_run, "--until", "make_folds")
    assert "training.folds: 6 folds" in sentence and "5" in sentence


def test_folds_and_seeds_that_cannot_be(folder_run):
    for training, key in (({"folds": 2}, "training.folds"), ({"seeds": [1]}, "training.seeds")):
        folder_run.overlay({"training": training})
        assert fails(folder_run).startswith(f"{key}: ")
