"""Further seeds and folds: planned where they are asked for, trained, scored, and run again."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from test_incremental import DIVIDE, Cohort

REPLICATES = {"seeds": [7], "folds": 3}
NAMES = ["seed7", "fold1", "fold2", "fold3"]
ASKED = {"models": ["unet"], "training": REPLICATES}
JOBS = [
    f"{rule} unet {name}" for rule in ("train_replicate", "predict_replicate") for name in NAMES
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    cohort = Cohort(tmp_path_factory.mktemp("replicates"))
    cohort.overlay(ASKED)
    run = cohort.run()
    assert run.status == 0, run.output
    assert set(JOBS) | {"make_folds", "evaluate_replicates"} <= set(run.jobs)
    return cohort


def test_folds_hold_every_film_out_once_and_no_patient_crosses(cohort):
    folds = cohort.results / "prepared/folds"
    splits = pd.read_parquet(cohort.results / "splits.parquet")
    held_out = []
    for name in NAMES[1:]:
        patients, films = {}, {}
        for subset in ("train", "val", "test"):
            coco = json.loads((folds / name / "coco" / f"{subset}.json").read_text())
            films[subset] = [image["image_id"] for image in coco["images"]]
            patients[subset] = {image["patient_id"] for image in coco["images"]}
            assert {image["id"] for image in coco["images"]} == {
                annotation["image_id"] for annotation in coco["annotations"]
            }
        assert not patients["train"] & patients["val"]
        assert not patients["test"] & (patients["train"] | patients["val"])
        held_out += films["test"]
    assert sorted(held_out) == sorted(splits.loc[splits["subset"] != "test", "image_id"])


def test_replicates_are_scored_on_what_they_have_not_seen(cohort):
    table = pd.read_parquet(cohort.results / "metrics/replicates.parquet")
    main = pd.read_parquet(cohort.results / "metrics/per_image.parquet")
    splits = pd.read_parquet(cohort.results / "splits.parquet")
    test = set(splits.loc[splits["subset"] == "test", "image_id"])
    assert set(table["replicate"]) == {"seed1", *NAMES}
    for replicate, films in table.groupby("replicate"):
        if replicate.startswith("seed"):
            assert set(films["image_id"]) == test
        else:
            path = cohort.results / f"prepared/folds/{replicate}/coco/test.json"
            images = json.loads(path.read_text())["images"]
            assert sorted(films["image_id"]) == sorted(image["image_id"] for image in images)
            assert test.isdisjoint(films["image_id"])
    own = table[table["replicate"] == "seed1"].set_index("image_id")["mean_iou"]
    assert own.to_dict() == main.set_index("image_id")["mean_iou"].to_dict()
    assert 'id="replicates"' in (cohort.results / "report/index.html").read_text()


def test_trainings_have_their_seeds_and_differ(cohort):
    runs, weights = {}, set()
    for name in NAMES:
        folder = cohort.results / "replicates/unet" / name
        runs[name] = json.loads((folder / "run.json").read_text())
        weights.add((folder / "history.jsonl").read_text())
    assert {name: run["seed"] for name, run in runs.items()} == {
        **{"seed7": 7, "fold1": 1, "fold2": 1, "fold3": 1}
    }
    assert len(weights) == len(NAMES)


def test_second_run_has_nothing_to_do(cohort):
    cohort.goes([])


def test_an_outline_trains_the_folds_that_see_it(cohort):
    """Last but one, as it changes the cohort."""
    name = cohort.film_of("train")
    folds = pd.read_parquet(cohort.results / "prepared/folds/films.parquet").set_index("image_id")
    held_out = folds.loc[cohort.image_ids()[name], "fold"]
    cohort.move_point(name)
    cohort.save()
    run = cohort.run("--until", "make_folds")
    assert run.status == 0, run.output
    assert run.jobs == ["make_folds", "prepare", "publish_records", "read_annotations"]
    run = cohort.run("--dry-run")
    trained = {job for job in run.jobs if job.startswith("train")}
    assert trained == {"train unet", *JOBS[:4]} - {f"train_replicate unet fold{held_out}"}
    assert "evaluate_replicates" in run.jobs


def test_taken_away_nothing_of_it_is_planned(cohort):
    cohort.overlay({"models": ["unet"]})
    run = cohort.run("--dry-run")
    cohort.overlay(ASKED)
    assert run.status == 0, run.output
    assert not [job for job in run.jobs if "replicate" in job or "folds" in job]
    assert not set(DIVIDE) & set(run.jobs)
