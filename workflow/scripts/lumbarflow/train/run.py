"""The training of one network: settings, resumption, best weights, record of the run."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import networks
from ..errors import InputError
from ..files import atomic_path, read_json, write_json, write_text
from ..linking import link
from ..networks import pretrained
from ..networks.base import Network, Settings, device, parameter_count
from ..prepare.coco import training_digest
from . import checkpoints, films, loop, processes
from .history import History
from .tensorboard import TensorBoard

READY = "ready"
"""Beside the folder of masks: films as networks see them, for all trainings."""

PREVIOUS = "previous.pth"
"""The latest weights of a network, within its folder of checkpoints."""

_PACKAGES = ("torch", "segmentation-models-pytorch", "mmdet", "mmengine", "mmcv", "numpy")


def train(
    model: str,
    coco: Path,
    masks: Path,
    pictures: Path,
    parameters: Mapping[str, Any],
    threads: int,
    outputs: Mapping[str, Path],
    work: Path,
    log: logging.Logger,
    stop: loop.Stop | None = None,
    gpus: int = 1,
) -> dict[str, Any]:
    """Train `model` and write its weights, history and record.

    Checkpoints lie in `work/{key}`, the key being a digest of the annotations, the parameters, the
    canvas and what the training began with: an interrupted training goes on there, a finished one
    is taken from there, a changed one starts anew. They stay, so that annotations changed back and
    forth do not cost a training. `work/previous.pth` keeps the latest weights with the films that
    they have seen; with the parameter `continue_from_previous` a changed training starts from them.

    Args:
        model: name of the network.
        coco: folder with `{train,val,test}.json`.
        masks: folder with the bit masks `{image_id}.png`.
        pictures: folder with `{image_id}.png`.
        parameters: `network`, `training`, `classes` and `foreground` of the configuration; where
            known `films`, a digest of the films, and `code`, one of the code; and
            `continue_from_previous`.
        threads: CPU threads.
        outputs: paths of `weights`, `history` and `record`.
        work: folder for checkpoints.
        log: where progress is told.
        stop: may end the training early; see :data:`lumbarflow.train.loop.Stop`.
        gpus: how many of them share each batch, as far as the machine has them.

    Returns:
        The record, as it is written.

    Raises:
        InputError: a subset is empty, a film is missing, or the loss diverges.
    """
    torch.set_num_threads(threads)
    started = time.monotonic()
    size = canvas(parameters, coco)
    load = partial(_subsets, coco, masks, pictures, size, threads)
    subsets = load()
    network = networks.load(model)
    settings = make_settings(parameters, size, subsets[0])
    data = _key(coco, parameters, size)
    subset_ids = {name: _ids(coco, name) for name in ("train", "val", "test")}
    pretrained.refuse_seen(settings.weights, subset_ids)
    key, previous = data, None
    if parameters.get("continue_from_previous"):
        key, previous = _beginning(work, data, settings, subset_ids, log)
    _keep_latest(work, key)
    folder = work / key
    folder.mkdir(parents=True, exist_ok=True)
    if previous is not None:
        start = {name: previous[name] for name in ("state_dict", "seen")}
        start["anchors"] = previous["settings"]["anchors"]
        checkpoints.save(folder / checkpoints.START, start)
    count = max(1, min(gpus, torch.cuda.device_count()))
    if parameters["network"]["batch_size"] is None:
        found = _batch_size(folder, network, subsets[0], settings, count)
        settings = make_settings(parameters, size, subsets[0], found)
    start = checkpoints.load(folder / checkpoints.START) or {}
    found = network.anchors(subsets[0], settings, start.get("anchors"))
    settings = replace(settings, anchors=found)
    log.info(
        "%s: %d training and %d validation films of %d x %d pixels, %d epochs of %d steps on %s",
        model,
        *map(len, subsets),
        *settings.size,
        settings.epochs,
        settings.epoch_iterations,
        device(),
    )
    board = TensorBoard(outputs["weights"].parent / "tensorboard")
    history = History(folder / "history.jsonl", settings.epochs, log, board)
    state = processes.run(count, partial(_fit, network, load, settings, folder, history, stop))
    history.rows = checkpoints.latest(folder)["history"]
    module = network.build(settings)
    module.load_state_dict(state)
    chosen = network.choose(module.to(device()).eval(), subsets[1], settings)
    with atomic_path(outputs["weights"]) as temporary:
        content = {
            "settings": _plain(settings),
            "state_dict": state,
            "thresholds": chosen,
            "data": data,
            "key": key,
            "seen": _seen(subset_ids, start.get("seen", {}), settings.weights),
        }
        torch.save(content, temporary)
    link(outputs["weights"], work / PREVIOUS)
    write_text(outputs["history"], history.path.read_text(encoding="utf-8"))
    record = {
        "model": model,
        "parameters": parameter_count(state),
        "continued_from_previous": bool(start),
        "best_epoch": history.best["epoch"],
        "best_validation_dice": history.best["metrics"]["dice"],
        "thresholds": chosen,
        "epochs": history.rows[-1]["epoch"],
        "iterations": history.rows[-1]["epoch"] * settings.epoch_iterations,
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
    return record


def _subsets(
    coco: Path, masks: Path, pictures: Path, size: tuple[int, int], threads: int
) -> list[films.TrainingFilms]:
    return [
        films.load(coco, masks, pictures, name, size, masks.parent / READY, threads)
        for name in ("train", "val")
    ]


def _fit(
    network: Network,
    load: Callable[[], list[films.TrainingFilms]],
    settings: Settings,
    folder: Path,
    history: History,
    stop: loop.Stop | None,
) -> dict[str, Any]:
    # Each process opens the films itself: they are files in memory, shared by all.
    return loop.fit(network, *load(), settings, folder, history, stop)


def canvas(parameters: Mapping[str, Any], coco: Path) -> tuple[int, int]:
    """Rows and columns of the network's canvas; where none is configured, all films fit it."""
    size = parameters["network"]["size"]
    return tuple(size or films.full_size(coco, ("train", "val", "test")))


def make_settings(
    parameters: Mapping[str, Any],
    size: tuple[int, int],
    train: films.TrainingFilms,
    batch_size: int | None = None,
) -> Settings:
    """Settings of a network from the configuration and the training films.

    Args:
        parameters: see :func:`train`.
        size: rows and columns of the canvas.
        train: the training films.
        batch_size: films a step, where the configuration leaves it open.
    """
    network = dict(parameters["network"]) | {"size": size}
    network["batch_size"] = network["batch_size"] or batch_size or 1
    if network["epoch_iterations"] is None:  # one pass
        network["epoch_iterations"] = max(1, len(train) // network["batch_size"])
    return Settings(
        classes=list(parameters["classes"]),
        foreground=list(parameters["foreground"]),
        seed=parameters["training"]["seed"],
        augmentation=dict(parameters["training"]["augmentation"]),
        normalisation=films.grey_levels(train),
        **network,
    )


class Weights(NamedTuple):
    """A trained network: its settings, state dict, and thresholds chosen on validation films."""

    settings: Settings
    state: dict[str, Any]
    thresholds: dict[str, Any]


def read_weights(path: Path) -> Weights:
    """What :func:`train` wrote.

    Raises:
        InputError: the file is of another version of Lumbarflow.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    try:
        pairs = {name: tuple(content["settings"][name]) for name in ("size", "normalisation")}
        settings = Settings(**content["settings"] | pairs)
        return Weights(settings, content["state_dict"], content["thresholds"])
    except (KeyError, TypeError):
        raise InputError(
            f"{path} was trained by another version of Lumbarflow: train the network again."
        ) from None


def _beginning(
    work: Path,
    data: str,
    settings: Settings,
    subset_ids: Mapping[str, list[str]],
    log: logging.Logger,
) -> tuple[str, dict[str, Any] | None]:
    """The key of a training that goes on from previous weights, and what it starts with.

    Args:
        work: folder of the checkpoints.
        data: the key of the training without previous weights.
        settings: of the training.
        subset_ids: see :func:`_ids`, of each subset.
        log: where a refusal is told.
    """
    previous = checkpoints.load(work / PREVIOUS)
    if previous is None:
        return data, None
    if previous["data"] == data:
        # Stopped between its end and that of its job, or asked for again: it began with others.
        return previous["key"], None
    trained, chosen = (set(previous["seen"][name]) for name in ("train", "val"))
    if previous["settings"]["classes"] != settings.classes:
        reason = "they are of other classes"
    elif not (trained | chosen).isdisjoint(subset_ids["test"]):
        reason = "they have seen films or patients of the present test subset"
    elif not trained.isdisjoint(subset_ids["val"]):
        reason = "they were trained on films or patients of the present validation subset"
    else:
        return hashlib.sha256(f"{data} {previous['key']}".encode()).hexdigest()[:16], previous
    log.warning("not continuing from the previous weights, for %s: starting anew", reason)
    return data, None


def _ids(coco: Path, subset: str) -> list[str]:
    """The films of a subset, and their patients where they are known."""
    images = read_json(coco / f"{subset}.json")["images"]
    return sorted(
        {image[key] for image in images for key in ("image_id", "patient_id") if key in image}
    )


def _seen(
    subset_ids: Mapping[str, list[str]], before: Mapping[str, list[str]], weights: str | None
) -> dict[str, list[str]]:
    """Films and patients that the weights have seen, those that they began with included."""
    given = pretrained.seen(weights)
    return {
        name: sorted({*subset_ids[name], *before.get(name, []), *given[name]})
        for name in ("train", "val")
    }


def _keep_latest(work: Path, key: str) -> None:
    """Remove the checkpoints of other trainings but the latest."""
    others = [folder for folder in work.glob("*/") if folder.name != key]
    for folder in sorted(others, key=lambda path: path.stat().st_mtime)[:-1]:
        shutil.rmtree(folder)


def _plain(settings: Settings) -> dict[str, Any]:
    pairs = {"size": list(settings.size), "normalisation": list(settings.normalisation)}
    return vars(settings) | pairs


def _batch_size(
    folder: Path, network: Network, train: films.TrainingFilms, settings: Settings, count: int
) -> int:
    """What fits the memory, found once: a resumed training goes on with the same batches.

    Rounded up to a multiple of `count`, the number of GPUs that share it.
    """
    path = folder / "batch_size.json"
    if not path.exists():
        found = loop.largest_batch(network, train, settings)
        write_json(path, -(-found // count) * count)
    return read_json(path)


def _key(coco: Path, parameters: Mapping[str, Any], size: tuple[int, int]) -> str:
    # The canvas too: where the configuration gives none, it depends on the test films as well.
    settings = {k: v for k, v in parameters.items() if k != "continue_from_previous"}
    weights = pretrained.digest(parameters["network"]["weights"])
    digest = hashlib.sha256(json.dumps([settings, size, weights], sort_keys=True).encode())
    for subset in ("train", "val"):
        digest.update(training_digest(read_json(coco / f"{subset}.json")).encode())
    return digest.hexdigest()[:16]
