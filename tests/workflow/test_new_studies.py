"""The target predict_new: networks of one results folder on the films of another."""

from __future__ import annotations

import shutil

import highdicom
import numpy as np
import pandas as pd
import pydicom
import pytest
from harness import TINY, Workflow

from lumbarflow.files import write_png

NEW = {
    "source": "folder",
    "folder": {"path": "films", "view": "lateral"},
    "privacy": TINY.get("privacy", {}) | {"find_burned_in_text": False, "verify": "off"},
}


@pytest.fixture
def films(tiny_run, tmp_path):
    """Two DICOM films as an archive would hand them over, and a picture."""
    storage = tiny_run.folder / "archive"
    taken = 0
    (tmp_path / "films").mkdir()
    for path in sorted(storage.rglob("*.dcm")):
        if pydicom.dcmread(path, stop_before_pixels=True).get("Modality") in ("CR", "DX"):
            shutil.copy(path, tmp_path / "films" / f"{taken}.dcm")
            taken += 1
        if taken == 2:
            break
    picture = np.random.default_rng(3).integers(30, 200, (160, 90)).astype(np.uint8)
    write_png(tmp_path / "films/picture.png", picture)
    return tmp_path


def test_new_films_are_measured_by_networks_trained_elsewhere(tiny_run, films):
    trained = str(tiny_run.results)
    workflow = Workflow(films, NEW | {"new_studies": {"trained": trained, "model": "unet"}})
    run = workflow.run("--", "predict_new")
    assert run.status == 0, run.output
    assert not {"train", "predict", "read_annotations", "split"} & run.ran
    folder = workflow.results / "new"
    manifest = pd.read_parquet(workflow.results / "images/manifest.parquet")
    names = set(manifest.loc[manifest["status"] == "accepted", "image_id"])
    assert len(names) == 3
    assert {path.stem for path in (folder / "overlays").glob("*.png")} == names
    assert set(pd.read_parquet(folder / "measurements.parquet")["image_id"]) == names
    assert set(pd.read_csv(folder / "measurements.csv")["image_id"]) == names
    reports = {path.name.split(".")[0]: path for path in (folder / "dicom").glob("*.sr.dcm")}
    dicom = {path.stem for path in (workflow.results / "images/dicom").glob("*.dcm")}
    assert len(dicom) == 2 and set(reports) == dicom
    for name, path in reports.items():
        film = pydicom.dcmread(workflow.results / f"images/dicom/{name}.dcm")
        assert highdicom.sr.srread(path).StudyInstanceUID == film.StudyInstanceUID
    assert workflow.run("--", "predict_new").ran == set()


def test_without_a_trained_network_a_sentence_says_so(films):
    workflow = Workflow(films, NEW | {"new_studies": {"trained": "elsewhere"}})
    run = workflow.run("--", "predict_new")
    assert run.status != 0
    assert "no trained network" in run.output and "new_studies.trained" in run.output
    assert "Traceback" not in run.output
