"""The training of one network: settings, resumption, best weights, record of the run."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import networks
from ..files import atomic_path, write_json, write_text
from ..networks.base import Settings, device, parameter_count
from . import films
from .history import History

_PACKAGES = ("torch", "segmentation-models-pytorch", "mmdet", "mmengine", "mmcv", "numpy")


def train(
    model: str,
    prepared: Path,
    pictures: Path,
    parameters: Mapping[str, Any],
    threads: int,
    outputs: Mapping[str, Path],
    work: Path,
    log: logging.Logger,
) -> None:
    """Train `model` and write its weights, history and record.

    Checkpoints lie in `work/{key}`, the key being a digest of the annotations, the parameters and
    the canvas: an interrupted training goes on there, a finished one is taken from there, a changed
    one starts anew. They stay, so that annotations changed back and forth do not cost a training.

    Args:
        model: name of the network.
        prepared: folder with `coco/` and `masks/`.
        pictures: folder with `{image_id}.png`.
        parameters: `network`, `training`, `classes` and `foreground` of the configuration, and
            `code`, a digest of the code.
        threads: CPU threads.
        outputs: paths of `weights`, `history` and `record`.
        work: folder for checkpoints.
        log: where progress is told.

    Raises:
        InputError: a subset is empty, a film is missing, or the loss diverges.
    """
    torch.set_num_threads(threads)
    started = time.monotonic()
    settings = make_settings(parameters, prepared)
    subsets = [films.load(prepared, pictures, name, settings.size) for name in ("train", "val")]
    if parameters["network"]["epoch_iterations"] is None:
        settings = _one_pass(settings, len(subsets[0]))
    key = _key(prepared, parameters, settings.size)
    _keep_latest(work, key)
    folder = work / key
    folder.mkdir(parents=True, exist_ok=True)
    log.info(
        "%s: %d training and %d validation films of %d x %d pixels, %d epochs of %d steps on %s",
        model,
        *map(len, subsets),
        *settings.size,
        settings.epochs,
        settings.epoch_iterations,
        device(),
    )
    history = History(folder / "history.jsonl", settings.epochs, log)
    state = networks.load(model).fit(*subsets, settings, folder, history)
    with atomic_path(outputs["weights"]) as temporary:
        torch.save({"settings": _plain(settings), "state_dict": state}, temporary)
    write_text(outputs["history"], history.path.read_text(encoding="utf-8"))
    record = {
        "model": model,
        "parameters": parameter_count(state),
        "best_epoch": history.best["epoch"],
        "best_validation_dice": history.best["metrics"]["dice"],
        "epochs": settings.epochs,
        "iterations": settings.epochs * settings.epoch_iterations,
        "seconds": round(sum(row["seconds"] for row in history.rows), 1),
        "device": str(device()),
        "threads": threads,
        "seed": settings.seed,
        "settings": _plain(settings),
        "versions": {name: version(name) for name in _PACKAGES},
    }
    write_json(outputs["record"], record)
    log.info(
        "%s: best epoch %d with validation Dice %.3f, %.0f s in this run",
        model,
        record["best_epoch"],
        record["best_validation_dice"],
        time.monotonic() - started,
    )


def make_settings(parameters: Mapping[str, Any], prepared: Path) -> Settings:
    """Settings of a network from the configuration, its canvas chosen where none is given."""
    network = dict(parameters["network"])
    size = network.pop("size") or films.full_size(prepared, ("train", "val", "test"))
    iterations = network.pop("epoch_iterations") or network["iterations"]
    return Settings(
        classes=list(parameters["classes"]),
        foreground=list(parameters["foreground"]),
        size=tuple(size),
        epoch_iterations=iterations,
        seed=parameters["training"]["seed"],
        augmentation=dict(parameters["training"]["augmentation"]),
        **network,
    )


def read_weights(path: Path) -> tuple[Settings, dict[str, Any]]:
    """Settings and state dict of a trained network."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    settings = content["settings"] | {"size": tuple(content["settings"]["size"])}
    return Settings(**settings), content["state_dict"]


def _keep_latest(work: Path, key: str) -> None:
    """Remove the checkpoints of other trainings but the latest."""
    others = [folder for folder in work.glob("*") if folder.name != key]
    for folder in sorted(others, key=lambda path: path.stat().st_mtime)[:-1]:
        shutil.rmtree(folder)


def _one_pass(settings: Settings, training_films: int) -> Settings:
    steps = max(1, training_films // settings.batch_size)
    return Settings(**(vars(settings) | {"epoch_iterations": steps}))


def _plain(settings: Settings) -> dict[str, Any]:
    return vars(settings) | {"size": list(settings.size)}


def _key(prepared: Path, parameters: Mapping[str, Any], size: tuple[int, int]) -> str:
    # The canvas too: where the configuration gives none, it depends on the test films as well.
    digest = hashlib.sha256(json.dumps([parameters, size], sort_keys=True).encode())
    for subset in ("train", "val"):
        digest.update((prepared / "coco" / f"{subset}.json").read_bytes())
    return digest.hexdigest()[:16]
