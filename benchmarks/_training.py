"""What benchmarks of training share: sets of films on disk, trainings within a time, scores.

Every training runs in a process of its own, so that none warms, slows or breaks another.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml
from _films import LEVELS, ROOT, Annotated, Labelled, change_greys, cut

from lumbarflow import networks, rle
from lumbarflow.config import maxima, overlay, resolve
from lumbarflow.errors import InputError
from lumbarflow.evaluate.metrics import binary_metrics
from lumbarflow.files import read_json, write_json, write_png
from lumbarflow.predict.table import predict
from lumbarflow.prepare.coco import coco_dataset
from lumbarflow.prepare.masks import bit_mask, rasterise
from lumbarflow.train.run import train
from lumbarflow.train.strength import strengthened

LOG = logging.getLogger("training")
FORK = multiprocessing.get_context("fork")  # imports take seconds; the parent never computes

_VISIBLE = 0.3  # share of a body that a window must show for an annotator to outline it
_TRIAL_STEPS = 3
_MOST_EPOCHS = 60  # further ones would validate more than they learn
_USED = 0.95  # of the time that is left once the trial has told how long an epoch takes
_SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


# --- Sets of films ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Cohort:
    """Films on disk, as the stages of the workflow leave them to the training."""

    folder: Path
    classes: list[str]
    foreground: list[str]
    names: dict[str, list[str]]  # by subset

    @property
    def coco(self) -> Path:
        """The folder of the subsets' COCO files."""
        return self.folder / "coco"

    @property
    def masks(self) -> Path:
        """The folder of the bit masks."""
        return self.folder / "masks"

    @property
    def pictures(self) -> Path:
        """The folder of the films."""
        return self.folder / "png"

    def reference(self, name: str) -> np.ndarray:
        """The foreground of a film (rows x columns, bool)."""
        bits = cv2.imread(str(self.masks / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        wanted = sum(1 << self.classes.index(each) for each in self.foreground)
        return (bits & wanted) > 0


def write_cohort(
    folder: Path,
    subsets: Mapping[str, Sequence[Annotated]],
    classes: Sequence[str],
    foreground: Sequence[str],
) -> Cohort:
    """Write films, masks and COCO files of the subsets train, val and test."""
    cohort = Cohort(
        folder,
        list(classes),
        list(foreground),
        {subset: [film.name for film in films] for subset, films in subsets.items()},
    )
    for subset, films in subsets.items():
        records = []
        for film in films:
            rows, columns = film.picture.shape
            structures = [
                {"structure_id": f"{film.name}-{number}", "level": None} | dict(structure)
                for number, structure in enumerate(film.structures)
            ]
            write_png(cohort.pictures / f"{film.name}.png", film.picture)
            mask = bit_mask(structures, classes, rows, columns)
            write_png(cohort.masks / f"{film.name}.png", mask)
            records.append(
                {"image_id": film.name, "rows": rows, "columns": columns, "structures": structures}
            )
        table = pd.DataFrame({"image_id": cohort.names[subset]})
        write_json(cohort.coco / f"{subset}.json", coco_dataset(records, table, classes))
    return cohort


def windows(films: Iterable[Labelled], rows: int, seed: int) -> list[Annotated]:
    """Synthetic films cut and processed as real ones are, with T12 to L5 as far as they show."""
    found = []
    for number, film in enumerate(films):
        rng = np.random.default_rng([seed, number])
        size = rows, round(rows / rng.uniform(1.3, 1.9))
        picture, lit, outlines = cut(film, size, rng)
        changed = change_greys(picture.astype(np.float32) / 255, lit, rng)
        seen = {
            level: points
            for level, points in outlines.items()
            if level in LEVELS
            and rasterise(points, *size).sum() > _VISIBLE * cv2.contourArea(np.float32(points))
        }
        picture = np.rint(changed * 255).astype(np.uint8)
        found.append(Annotated(f"window{number:05d}", picture, bodies(seen)))
    return found


def bodies(outlines: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Outlines by level as structures of the class lumbar_vertebra."""
    return [
        {"class_name": "lumbar_vertebra", "level": level, "polygon": points.tolist()}
        for level, points in outlines.items()
    ]


# --- Settings --------------------------------------------------------------------------------


def configuration(*files: str, **values: Any) -> dict[str, Any]:
    """The default configuration with files of config/ and values laid over it."""
    user: dict[str, Any] = {}
    for name in ("config.yaml", *files):
        user = overlay(user, yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8")))
    return resolve(
        overlay(user, values), _SCHEMA, ROOT / "config" / "presets", networks.available()
    )


def parameters(config: Mapping[str, Any], network: str, **changes: Any) -> dict[str, Any]:
    """What the rule `train` hands to the training of a network, some of its settings changed."""
    settings = dict(config["networks"][network])
    del settings["title"]
    training, strength = config["training"], settings.pop("augmentation")
    limits = maxima(_SCHEMA, "training.augmentation")
    augmentation = strengthened(training["augmentation"], strength, limits)
    return {
        "network": settings | changes,
        "training": {"seed": training["seed"], "augmentation": augmentation},
        "classes": config["classes"],
        "foreground": config["evaluation"]["foreground"],
    }


# --- Trainings -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """The cost of a training and the scores of what came out of it.

    seconds is all of it, from the reading of films to the weights; seconds_per_image the median
    over steps or epochs, without validation.
    """

    seconds: float
    seconds_per_image: float
    iterations: int
    scores: dict[str, dict[str, float]]  # by test film

    def mean(self, metric: str) -> float:
        """The mean of a metric over the test films."""
        return float(np.mean([score[metric] for score in self.scores.values()]))


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns when it runs in a process of its own; None where that breaks off."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = None
    process.join()
    if process.exitcode:
        print(f"  broken off with status {process.exitcode}", flush=True)
        return None
    return result


def _send(sender: Any, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        sender.send(work(*arguments))
    except InputError as error:
        sys.exit(f"  {error}")


def outputs_in(folder: Path) -> dict[str, Path]:
    """The files that a training writes into its folder."""
    names = {"weights": "model.pth", "history": "history.jsonl", "record": "run.json"}
    return {key: folder / name for key, name in names.items()}


def train_in(
    folder: Path,
    network: str,
    cohort: Cohort,
    settings: Mapping[str, Any],
    threads: int,
    stop: Callable[[int, float], bool] | None = None,
) -> list[dict[str, Any]]:
    """Train with Lumbarflow, weights and checkpoints in `folder`; the rows of the history."""
    cv2.setNumThreads(threads)
    outputs = outputs_in(folder)
    train(
        network,
        cohort.coco,
        cohort.masks,
        cohort.pictures,
        settings,
        threads,
        outputs,
        folder / "checkpoints",
        LOG,
        stop,
    )
    return history(folder)


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of the history that a training wrote into its folder."""
    lines = outputs_in(folder)["history"].read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def train_within(
    seconds: float,
    folder: Path,
    network: str,
    cohort: Cohort,
    settings: Mapping[str, Any],
    threads: int,
) -> Trained:
    """Train with Lumbarflow for as many steps as fit the time, told by a trial of two epochs.

    The trial is not counted. Whatever it told, no epoch begins when the time is over.
    """
    per_step, between, around = _trial(folder / "trial", network, cohort, settings, threads)
    shutil.rmtree(folder / "trial", ignore_errors=True)  # checkpoints are large
    left = max(0.0, seconds - around) * _USED
    epoch = max(settings["network"]["epoch_iterations"], math.ceil(left / per_step / _MOST_EPOCHS))
    if epoch * per_step + between > left:  # not even one epoch fits
        epoch = max(1, int((left - between) / per_step))
    epochs = max(1, int(left / (epoch * per_step + between)))
    network_settings = settings["network"] | {
        "iterations": epochs * epoch,
        "epoch_iterations": epoch,
    }
    started = time.monotonic()
    rows = train_in(
        folder,
        network,
        cohort,
        settings | {"network": network_settings},
        threads,
        lambda *_: time.monotonic() - started > seconds,
    )
    passed = time.monotonic() - started
    trained = [row for row in rows if row["split"] == "train"]
    return Trained(
        passed,
        float(np.median([1 / row["images_per_second"] for row in trained])),
        epoch * len(trained),
        {},
    )


def _trial(
    folder: Path, network: str, cohort: Cohort, settings: Mapping[str, Any], threads: int
) -> tuple[float, float, float]:
    """Seconds of a step, between the steps of two epochs, and before and after all epochs."""
    short = settings["network"] | {
        "iterations": 2 * _TRIAL_STEPS,
        "epoch_iterations": _TRIAL_STEPS,
    }
    ends: list[float] = []
    started = time.monotonic()

    def note(*_: Any) -> bool:
        ends.append(time.monotonic())
        return False

    rows = train_in(folder, network, cohort, settings | {"network": short}, threads, note)
    passed = time.monotonic() - started
    epoch = ends[1] - ends[0]
    steps = next(row["seconds"] for row in rows if (row["epoch"], row["split"]) == (2, "train"))
    return steps / _TRIAL_STEPS, max(0.0, epoch - steps), max(0.0, passed - 2 * epoch)


# --- Scores ----------------------------------------------------------------------------------


def found_by(
    network: str, weights: Path, cohort: Cohort, thresholds: Mapping[str, Any], threads: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The foreground (rows x columns, bool) that a trained network sees on each test film."""
    names = cohort.names["test"]
    table = predict(network, weights, names, cohort.pictures, thresholds, threads, LOG)
    table = table[table["class_name"].isin(cohort.foreground)]
    sizes = {
        image["image_id"]: (image["height"], image["width"])
        for image in read_json(cohort.coco / "test.json")["images"]
    }
    for name in names:
        merged = np.zeros(sizes[name], bool)
        for row in table[table["image_id"] == name].itertuples():
            merged |= rle.decode(row.rle_counts, row.rle_height, row.rle_width)
        yield name, merged


def score(cohort: Cohort, found: Iterable[tuple[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Metrics of the merged foreground, by test film."""
    return {name: binary_metrics(cohort.reference(name), mask) for name, mask in found}
