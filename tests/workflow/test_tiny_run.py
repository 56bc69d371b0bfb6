"""The complete workflow on a tiny cohort: contracts, privacy, and runs after the first."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from harness import TINY, times
from pycocotools.coco import COCO

from lumbarflow import rle

MODELS = list(TINY["networks"])
COLUMNS = {
    "images/manifest.parquet": "image_id patient_id study_id study_day rows columns "
    "pixel_spacing_mm view status reason",
    "annotations/qc.parquet": "image_id structure_id check severity message",
    "splits.parquet": "image_id patient_id subset",
    "metrics/counts.parquet": "model image_id class_name n_both n_reference n_predicted n_pixels",
    "metrics/boundaries.parquet": "model image_id class_name unit hausdorff_95 surface_dice",
    "metrics/detections.parquet": "model image_id instance_id class_name score right_50 right_95",
    "metrics/class_summary.parquet": "model class_name metric unit value ci_low ci_high n",
    "metrics/score_reliability.parquet": "model class_name bin_low bin_high n confidence right",
    "metrics/per_image.parquet": "model image_id pixel_accuracy mean_accuracy mean_iou "
    "frequency_weighted_iou dice",
    "metrics/per_class.parquet": "model image_id class_name iou dice n_reference n_predicted",
    "metrics/instances.parquet": "model image_id level matched_instance_id iou predicted_level",
    "metrics/summary.parquet": "model metric mean ci_low ci_high n",
    **{
        f"predictions/{model}.parquet": "image_id instance_id class_name level score bbox_x "
        "bbox_y bbox_w bbox_h rle_counts rle_height rle_width"
        for model in MODELS
    },
    **{
        f"measurements/{source}.parquet": "image_id name site value unit confidence status reason"
        for source in [*MODELS, "annotation"]
    },
}


@pytest.mark.parametrize("path", COLUMNS)
def test_table_has_the_columns_others_rely_on(tiny_run, path):
    table = pd.read_parquet(tiny_run.results / path)
    assert set(COLUMNS[path].split()) <= set(table.columns)


def test_manifest_and_images_agree(tiny_run):
    images = tiny_run.results / "images"
    manifest = pd.read_parquet(images / "manifest.parquet")
    accepted = manifest[manifest["status"] == "accepted"]
    assert {path.stem for path in (images / "png").glob("*.png")} == set(accepted["image_id"])
    assert {path.stem for path in (images / "dicom").glob("*.dcm")} == set(accepted["image_id"])
    assert (manifest.loc[manifest["status"] == "rejected", "reason"] == "not_lateral").all()
    assert accepted["patient_id"].nunique() < len(accepted)  # some have a second study
    for row in accepted.itertuples():
        picture = cv2.imread(str(images / "png" / f"{row.image_id}.png"), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint8
        assert picture.shape == (row.rows, row.columns)
        dataset = pydicom.dcmread(images / "dicom" / f"{row.image_id}.dcm")
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.PatientID == row.patient_id


def test_no_patient_is_in_two_subsets(tiny_run):
    splits = pd.read_parquet(tiny_run.results / "splits.parquet")
    assert (splits.groupby("patient_id")["subset"].nunique() == 1).all()
    assert set(splits["subset"]) == {"train", "val", "test"}


def test_masks_and_coco_hold_the_records(tiny_run):
    results = tiny_run.results
    classes = yaml.safe_load((results / "config.yaml").read_text())["classes"]
    splits = pd.read_parquet(results / "splits.parquet")
    for subset, films in splits.groupby("subset"):
        coco = COCO(results / "prepared" / "coco" / f"{subset}.json")
        names = {Path(image["file_name"]).stem for image in coco.imgs.values()}
        assert names == set(films["image_id"])
        assert [category["name"] for category in coco.dataset["categories"]] == classes
    for image_id in splits["image_id"]:
        record = json.loads((results / "annotations/records" / f"{image_id}.json").read_text())
        mask = cv2.imread(
            str(results / "prepared" / "masks" / f"{image_id}.png"), cv2.IMREAD_UNCHANGED
        )
        assert mask.shape == (record["rows"], record["columns"])
        used = {classes.index(structure["class_name"]) for structure in record["structures"]}
        seen = {k for k in range(len(classes)) if (mask & (1 << k)).any()}
        assert seen == used


def test_predictions_are_of_test_films_at_full_resolution(tiny_run):
    results = tiny_run.results
    splits = pd.read_parquet(results / "splits.parquet").set_index("image_id")["subset"]
    manifest = pd.read_parquet(results / "images/manifest.parquet").set_index("image_id")
    for model in MODELS:
        for row in pd.read_parquet(results / f"predictions/{model}.parquet").itertuples():
            assert splits[row.image_id] == "test"
            film = manifest.loc[row.image_id]
            assert (row.rle_height, row.rle_width) == (film["rows"], film["columns"])
            mask = rle.decode(row.rle_counts, row.rle_height, row.rle_width)
            box = cv2.boundingRect(mask.astype(np.uint8))
            assert box == (row.bbox_x, row.bbox_y, row.bbox_w, row.bbox_h)


def test_metrics_are_of_test_films_and_table1_is_full(tiny_run):
    results = tiny_run.results
    splits = pd.read_parquet(results / "splits.parquet")
    test = set(splits.loc[splits["subset"] == "test", "image_id"])
    per_image = pd.read_parquet(results / "metrics/per_image.parquet")
    assert all(set(films["image_id"]) == test for _, films in per_image.groupby("model"))
    with (results / "metrics/table1.csv").open() as handle:
        header, *rows = csv.reader(handle)
    assert header == ["metric", "U-Net", "Mask R-CNN", "PSPNet", "DeepLabV3", "YOLACT"]
    assert len(rows) == 4
    assert all(0 <= float(cell) <= 100 for row in rows for cell in row[1:])


def test_history_has_a_row_a_split_and_epoch(tiny_run):
    for model in MODELS:
        lines = (tiny_run.results / f"models/{model}/history.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert [(row["epoch"], row["split"]) for row in rows] == [
            (1, "train"),
            (1, "val"),
            (2, "train"),
            (2, "val"),
        ]
        keys = {"epoch", "split", "loss", "metrics", "seconds", "images_per_second"}
        assert all(keys <= set(row) for row in rows)


def test_annotations_are_measured_on_every_film(tiny_run):
    measured = pd.read_parquet(tiny_run.results / "measurements/annotation.parquet")
    splits = pd.read_parquet(tiny_run.results / "splits.parquet")
    assert set(measured["image_id"]) == set(splits["image_id"])
    lordosis = measured[(measured["name"] == "lordosis") & (measured["site"] == "L1-S1")]
    assert (lordosis["status"] == "measured").mean() > 0.8
    truth = pd.read_parquet(tiny_run.results / "truth.parquet")
    both = lordosis.merge(truth, on=["image_id", "name", "site"], suffixes=("", "_truth"))
    # Annotators of small films put their points a degree or two off.
    assert (both["value"] - both["value_truth"]).abs().median() < 4
    summary = pd.read_parquet(tiny_run.results / "metrics/measurement_summary.parquet")
    assert set(summary["against"]) == {"annotation", "truth"}


def test_every_test_film_has_an_overlay_of_every_network(tiny_run):
    splits = pd.read_parquet(tiny_run.results / "splits.parquet")
    test = set(splits.loc[splits["subset"] == "test", "image_id"])
    for model in MODELS:
        folder = tiny_run.results / "measurements/overlays" / model
        assert {path.stem for path in folder.glob("*.png")} == test


def test_report_opens_without_a_network(tiny_run):
    page = (tiny_run.results / "report/index.html").read_text()
    assert 'src="http' not in page
    assert "YOLACT" in page


def test_a_paper_gets_its_tables_and_texts(tiny_run):
    folder = tiny_run.results / "report/paper"
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    splits = pd.read_parquet(tiny_run.results / "splits.parquet")
    tested = f"{(splits['subset'] == 'test').sum()} test films"
    for name in ("methods.md", "checklist.md", "table1.md", "table1.tex"):
        assert tested in texts[name], name
    for name in ("table1.tex", "table2.tex", "comparisons.tex"):
        assert "\\toprule" in texts[name], name


def check_no_trace(run, secrets) -> None:
    """None of the texts is in a file or a file name of the run and its record."""
    wanted = {text.encode() for text in secrets}
    wanted |= {text.encode("latin-1") for text in secrets if max(map(ord, text)) < 256}
    places = [run.results, run.folder / ".snakemake"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes() + str(path.relative_to(run.folder)).encode()
        found = [text for text in wanted if text in content]
        assert not found, f"{path} holds {found[:3]}"


def test_nothing_identifying_is_written(tiny_run):
    """Every name, number, date and UID of the cohort, in every file of the run and its record."""
    truth = json.loads((tiny_run.folder / "archive" / "truth.json").read_text())
    # Shorter ones are in random bytes by chance.
    secrets = {text for text in truth["identifiers"] if len(text) >= 4 and len(text.encode()) >= 5}
    secrets |= {image["sop_instance_uid"] for image in truth["images"]}
    for path in (tiny_run.folder / "archive" / "objects").glob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        secrets |= {str(dataset[name].value) for name in ("StudyInstanceUID", "AccessionNumber")}
        secrets |= {str(dataset.PatientBirthDate), str(dataset.PatientID)}
    assert len(secrets) > 50
    key = (tiny_run.folder / ".lumbarflow" / "pseudonym.key").read_text().strip()
    check_no_trace(tiny_run, {*secrets, key})


def test_second_run_has_nothing_to_do(tiny_run):
    before = times(tiny_run.results)
    run = tiny_run.run()
    assert run.status == 0
    assert "Nothing to be done" in run.output
    assert run.ran == set()
    assert times(tiny_run.results) == before


def test_changed_threshold_predicts_again_but_trains_no_network(tiny_run):
    tiny_run.overlay({"predict": {"score_threshold": 0.3}})
    run = tiny_run.run("--dry-run")
    tiny_run.overlay({})
    assert run.status == 0, run.output
    assert {"predict", "evaluate", "report"} <= run.ran
    assert not {"train", "retrieve", "prepare"} & run.ran


def test_changed_title_only_renames(tiny_run):
    tiny_run.overlay({"networks": {"unet": {"title": "our U-Net"}}})
    run = tiny_run.run("--dry-run")
    tiny_run.overlay({})
    assert {"evaluate", "report"} <= run.ran
    assert not {"train", "predict"} & run.ran


def test_changed_code_of_one_network_trains_that_one(tiny_run):
    path = tiny_run.folder / "workflow/scripts/lumbarflow/networks/unet.py"
    text = path.read_text()
    try:
        path.write_text(text + "\n# changed\n")
        run = tiny_run.run("--dry-run")
    finally:
        path.write_text(text)
    assert run.status == 0, run.output
    assert "models/unet/model.pth" in run.output
    assert "models/yolact/model.pth" not in run.output.split("rule evaluate")[0]
    assert not {"retrieve", "prepare", "split"} & run.ran


def test_own_annotations_are_read_without_fetching_again(tiny_run):
    project = tiny_run.results / "annotations/simulated_via_project.json"
    (tiny_run.folder / "own_project.json").write_text(project.read_text())
    tiny_run.overlay({"annotations": {"via": ["own_project.json"]}})
    run = tiny_run.run("--dry-run")
    tiny_run.overlay({})
    assert run.status == 0, run.output
    assert {"read_annotations", "publish_records"} <= run.ran
    assert not {"retrieve", "synthetic_cohort", "simulate_annotators"} & run.ran


def test_a_cohort_file_leaves_no_trace_of_its_numbers(tiny_run):
    """Last, as it narrows the cohort."""
    paths = (tiny_run.folder / "archive" / "objects").glob("*.dcm")
    objects = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    numbers = sorted({str(dataset.PatientID) for dataset in objects})
    wanted = numbers[: len(numbers) // 2]
    text = "\n".join(["patient_id", *wanted, "PID000unknown"])
    (tiny_run.folder / "cohort.csv").write_text(text)
    tiny_run.overlay({"archive": {"cohort": "cohort.csv"}})
    for arguments in (["--", "query"], ["--until", "retrieve"]):
        run = tiny_run.run(*arguments)
        assert run.status == 0, run.output
        assert f"1 of {len(wanted) + 1} lines of the cohort file match no study" in run.output
        assert not [number for number in [*wanted, "PID000unknown"] if number in run.output]
    manifest = pd.read_parquet(tiny_run.results / "incoming" / "images" / "manifest.parquet")
    assert len(manifest) == sum(str(dataset.PatientID) in wanted for dataset in objects)
    check_no_trace(tiny_run, [*wanted, "PID000unknown"])
