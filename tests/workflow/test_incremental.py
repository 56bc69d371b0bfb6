"""The annotation loop: only what a change touches runs again. The tests run in their order.

Sixty small films of forty patients, two of the networks; the rows of the table in
docs/how-to/resume-and-rerun.md are carried out one after the other.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tiny_films
from harness import Workflow, contents

from lumbarflow.acquire.folder import film_names
from lumbarflow.deidentify import pseudonyms

MODELS = ["unet", "mask_rcnn"]
ALL_MODELS = ["unet", "mask_rcnn", "pspnet", "deeplabv3", "yolact"]
NETWORK = {"width": 8, "size": [96, 64], "iterations": 1, "epoch_iterations": 1, "batch_size": 2}

ACQUIRE = ["import_folder", "publish images/manifest", "publish images/deidentification"]
ANNOTATE = [
    "read_annotations",
    "publish annotations/qc",
    "publish annotations/agreement",
    "publish_records",
]
DIVIDE = ["split", "publish splits"]
# What follows from other predictions or outlines, and from other outlines alone.
SCORE = ["evaluate", "report", "paper"]
MEASURE = ["measure_annotation", "evaluate_measurements", "compare", "changes annotation"]


def each(rule: str, models: list[str] = MODELS) -> list[str]:
    return [f"{rule} {model}" for model in models]


def measured(models: list[str] = MODELS, *, predicted: bool = True) -> list[str]:
    """What measures again after a change of annotations, and of predictions if `predicted`."""
    again = [*each("tune_labelling", models), *each("label", models)] if predicted else []
    return [*MEASURE, *each("changes", models), *again]


class Cohort(Workflow):
    """The workflow on a folder of films, with what an annotator and a user do between runs."""

    def __init__(self, folder: Path):
        self.films = folder / "films"
        self.films.mkdir(parents=True)
        self.rng = np.random.default_rng(5)
        self.drawn = {}
        for number in range(60):
            self.add_film(f"p{number if number < 40 else number - 40:02d}_{number:02d}.png")
        super().__init__(
            folder,
            {
                "source": "folder",
                "folder": {"path": "films", "patient_pattern": "^(p[0-9]+)_"},
                "annotations": {"via": ["via.json"]},
                "privacy": {"find_burned_in_text": False, "verify": "off"},
                "splits": {"test": 12, "validation": 0.15},
                "models": MODELS,
                "networks": {name: dict(NETWORK) for name in ALL_MODELS},
                "training": {"continue_from_previous": True},
                "evaluation": {"bootstrap_samples": 100},
                "report": {"films": 1},
            },
        )
        self.save()

    def add_film(self, name: str) -> None:
        """A film in the folder, with its regions in the VIA file."""
        found = tiny_films.structures(self.rng)
        cv2.imwrite(str(self.films / name), tiny_films.film(found, self.rng))
        self.drawn[name] = [
            {
                "shape_attributes": {
                    "name": "polygon",
                    "all_points_x": [x for x, _ in structure["polygon"]],
                    "all_points_y": [y for _, y in structure["polygon"]],
                },
                "region_attributes": {"structure": structure["class_name"], "level": ""},
            }
            for structure in found
        ]

    def save(self, name: str = "via.json", films: Collection[str] = (), **layout) -> None:
        """Save the VIA project, or one of the same drawings with some of the films."""
        metadata = {
            f"{film}-1": {"filename": film, "size": -1, "regions": regions, "file_attributes": {}}
            for film, regions in self.drawn.items()
            if film in films or not films
        }
        project = {
            "_via_settings": {"project": {"name": str(layout)}},
            "_via_img_metadata": metadata,
            "_via_attributes": {"region": {}, "file": {}},
        }
        (self.folder / name).write_text(json.dumps(project, **layout))

    def move_point(self, name: str) -> None:
        """Draw the first region of a film otherwise."""
        self.drawn[name][0]["shape_attributes"]["all_points_x"][0] -= 3

    def image_ids(self) -> dict[str, str]:
        """Pseudonyms by file names."""
        keyed = pseudonyms.load(self.folder / ".lumbarflow" / "pseudonym.key")
        return {name: image_id for image_id, name in film_names(self.films, keyed).items()}

    def subsets(self) -> dict[str, str]:
        """Subsets by file names."""
        splits = pd.read_parquet(self.results / "splits.parquet").set_index("image_id")["subset"]
        ids = self.image_ids()
        return {name: splits[ids[name]] for name in ids if ids[name] in splits}

    def film_of(self, subset: str) -> str:
        """A film of a subset."""
        return next(name for name, found in sorted(self.subsets().items()) if found == subset)

    def state(self) -> dict[str, tuple[int, int]]:
        """Inode and time of each record, mask, film and set of weights."""
        patterns = ("annotations/records/*.json", "prepared/masks/*.png", "images/png/*.png")
        return {
            str(path.relative_to(self.results)): (path.stat().st_ino, path.stat().st_mtime_ns)
            for pattern in (*patterns, "models/*/model.pth")
            for path in self.results.glob(pattern)
        }

    def goes(self, jobs: list[str], changed: set[str] = frozenset()) -> None:
        """Run; exactly `jobs` must run, and of the files in `state` only those `changed` change."""
        before = self.state()
        run = self.run()
        assert run.status == 0, run.output
        assert run.jobs == sorted(jobs)
        after = self.state()
        assert {path for path in before | after if before.get(path) != after.get(path)} == changed

    def files(self, *names: str) -> set[str]:
        """The record and the mask of films."""
        ids = self.image_ids()
        return {
            path
            for name in names
            for path in (
                f"annotations/records/{ids[name]}.json",
                f"prepared/masks/{ids[name]}.png",
            )
        }


WEIGHTS = {f"models/{model}/model.pth" for model in MODELS}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    cohort = Cohort(tmp_path_factory.mktemp("incremental"))
    run = cohort.run()
    assert run.status == 0, run.output
    return cohort


def test_file_saved_again(cohort):
    cohort.save(indent=3, sort_keys=True)
    cohort.goes([])


def test_polygon_on_a_test_film(cohort):
    name = cohort.film_of("test")
    cohort.move_point(name)
    cohort.save()
    cohort.goes(
        [*ANNOTATE, "prepare", *SCORE, *measured(predicted=False)],
        cohort.files(name),
    )
    cohort.goes([])


def test_polygon_on_a_training_film(cohort):
    name = cohort.film_of("train")
    cohort.move_point(name)
    cohort.save()
    cohort.goes(
        [*ANNOTATE, "prepare", *each("train"), *each("predict"), *SCORE, *measured()],
        cohort.files(name) | WEIGHTS,
    )
    for model in MODELS:
        run = json.loads((cohort.results / f"models/{model}/run.json").read_text())
        assert run["continued_from_previous"]


def test_level_on_a_training_film_is_not_seen_by_networks(cohort):
    name = cohort.film_of("train")
    cohort.drawn[name][0]["region_attributes"]["level"] = "L4"
    cohort.save()
    ids = cohort.image_ids()
    cohort.goes(
        [*ANNOTATE, "prepare", "report", "paper", *measured(predicted=False)],
        {f"annotations/records/{ids[name]}.json"},
    )


@pytest.mark.parametrize("subset", ["train", "test"])
def test_new_film_of_a_patient(cohort, subset):
    before = cohort.subsets()
    name = f"{cohort.film_of(subset).split('_')[0]}_new.png"
    cohort.add_film(name)
    cohort.save()
    trained = each("train") if subset == "train" else []
    files = cohort.files(name) | {f"images/png/{cohort.image_ids()[name]}.png"}
    cohort.goes(
        [
            *(*ACQUIRE, *ANNOTATE, *DIVIDE, "prepare"),
            *(*trained, *each("predict"), *SCORE, *measured()),
        ],
        files | (WEIGHTS if trained else set()),
    )
    assert cohort.subsets() == before | {name: subset}


@pytest.mark.parametrize("subset", ["test", "train"])
def test_annotation_deleted(cohort, subset):
    before = cohort.subsets()
    name = cohort.film_of(subset)
    del cohort.drawn[name]
    cohort.save()
    trained = each("train") if subset == "train" else []
    cohort.goes(
        [*ANNOTATE, *DIVIDE, "prepare", *trained, *each("predict"), *SCORE, *measured()],
        cohort.files(name) | (WEIGHTS if trained else set()),
    )
    del before[name]
    assert cohort.subsets() == before
    assert not [path for path in cohort.files(name) if (cohort.results / path).exists()]


def test_new_film_without_annotation(cohort):
    picture = np.full(tiny_films.FILM, 90, np.uint8)
    picture[40:80, 20:60] = 160
    cv2.imwrite(str(cohort.films / "p99_1.png"), picture)
    cohort.goes(
        [*ACQUIRE, *ANNOTATE, "report", "paper"],
        {f"images/png/{cohort.image_ids()['p99_1.png']}.png"},
    )


def test_another_annotator_s_file_for_annotated_films(cohort):
    films = [cohort.film_of("train"), cohort.film_of("test")]
    drawn = copy.deepcopy(cohort.drawn)
    for film in films:
        cohort.move_point(film)
    cohort.save("second.json", films)
    cohort.drawn = drawn
    via = {"via": ["via.json", "second.json"]}
    ids = cohort.image_ids()
    cohort.overlay({"annotations": via | {"annotators": {"rule": "first"}}})
    cohort.goes(
        [*ANNOTATE, "report", "paper", "resolved_config"],
        {f"annotations/records/{ids[film]}.json" for film in films},
    )
    cohort.overlay({"annotations": via | {"annotators": {"rule": "last"}}})
    cohort.goes(
        [
            *(*ANNOTATE, "prepare", *each("train"), *each("predict"), *SCORE, *measured()),
            "resolved_config",
        ],
        cohort.files(*films) | WEIGHTS,
    )
    cohort.overlay({})
    run = cohort.run()
    assert run.status == 0, run.output


def test_moving_films_is_refused_unless_allowed(cohort):
    before, kept = cohort.subsets(), contents(cohort.results)
    cohort.overlay({"splits": {"seed": 77}})
    run = cohort.run()
    assert run.status != 0
    assert "splits.allow_moves: true" in run.sentence
    assert set(run.jobs) <= {"resolved_config", "split"}
    now = contents(cohort.results)
    assert {name for name in kept | now if kept.get(name) != now.get(name)} <= {"config.yaml"}

    cohort.overlay({"splits": {"seed": 77, "allow_moves": True}})
    run = cohort.run("--until", "prepare")
    assert run.status == 0, run.output
    assert run.jobs == sorted([*DIVIDE, "prepare"])
    assert cohort.subsets() != before
    run = cohort.run("--dry-run")
    assert run.jobs == sorted(
        [*each("train"), *each("predict"), *SCORE, *measured(), "resolved_config"]
    )


def test_all_five_networks_are_planned(cohort):
    cohort.overlay({"splits": {"seed": 77}, "models": ALL_MODELS})
    run = cohort.run("--dry-run")
    assert run.jobs == sorted(
        [
            *(*each("train", ALL_MODELS), *each("predict", ALL_MODELS), *SCORE),
            *(*measured(ALL_MODELS), "resolved_config"),
        ]
    )
