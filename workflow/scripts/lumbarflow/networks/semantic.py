"""Semantic networks: one sigmoid output a class, so that a screw over a vertebra is both."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.data import DataLoader

from ..errors import InputError
from ..prepare.masks import class_planes
from ..train import augment, checkpoints
from ..train.batches import Items, Passes, dice
from ..train.films import TrainingFilms, fit, place_picture
from ..train.history import History
from ..train.schedule import learning_rate_factor
from .base import Instance, Settings, device, fetching_weights, loader_workers

_WEIGHT_DECAY = 1e-4
_GRADIENT_NORM = 5.0


class SemanticNetwork:
    """Trains and runs a network of segmentation-models-pytorch.

    Args:
        build: makes the module from the settings: 1 input channel, a logit a class, the size of
            its input.
    """

    def __init__(self, build: Callable[[Settings], nn.Module]):
        self._build = build

    def fit(
        self,
        train: TrainingFilms,
        validation: TrainingFilms,
        settings: Settings,
        work: Path,
        history: History,
    ) -> dict[str, Any]:
        """See :class:`lumbarflow.networks.base.Network`."""
        torch.manual_seed(settings.seed)
        with fetching_weights(settings):
            model = self._build(settings)
        model.to(device(), memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY
        )
        checkpoint = work / "last.pth"
        first, best = 0, {}
        saved = checkpoints.load(checkpoint)
        if saved is None:
            checkpoints.begin(model, work)
        else:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            first, best = saved["epoch"], saved["best"]
            history.resume(saved["history"], first)
        passes = Passes(len(train), settings.epoch_iterations * settings.batch_size, settings.seed)
        loader = DataLoader(
            Items(train, _Item(settings)),
            batch_size=settings.batch_size,
            sampler=passes,
            num_workers=loader_workers(),
        )
        for epoch in range(first, settings.epochs):
            passes.set_epoch(epoch)
            torch.manual_seed(settings.seed + epoch + 1)  # dropout, also after a resumption
            started = time.monotonic()
            loss = _train_epoch(model, optimizer, loader, settings, epoch)
            history.add(epoch + 1, "train", loss, {}, time.monotonic() - started, len(passes))
            started = time.monotonic()
            loss, score = _validate(model, validation, settings)
            history.add(
                epoch + 1,
                "val",
                loss,
                {"dice": score},
                time.monotonic() - started,
                len(validation),
            )
            if history.best["epoch"] == epoch + 1:
                best = copy.deepcopy(model.state_dict())
            checkpoints.save(
                checkpoint,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epoch": epoch + 1,
                    "best": best,
                    "history": history.rows,
                },
            )
        return {name: value.cpu() for name, value in best.items()}

    def predict(
        self,
        state: dict[str, Any],
        films: Iterator[tuple[str, np.ndarray]],
        settings: Settings,
        thresholds: dict[str, float],
    ) -> Iterator[tuple[str, list[Instance]]]:
        """See :class:`lumbarflow.networks.base.Network`."""
        model = self._build(replace(settings, weights=None))
        model.load_state_dict(state)
        model.to(device(), memory_format=torch.channels_last).eval()
        for image_id, film in films:
            probabilities = _probabilities(model, film, settings.size)
            yield image_id, list(_instances(probabilities, settings.classes, thresholds))


class _Item:
    """Picture and class planes of a film as tensors, changed at random where `rng` is given."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def __call__(
        self, films: TrainingFilms, index: int, rng: np.random.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        picture, bits = films.pictures[index], films.bits[index]
        if rng is not None:
            change = augment.draw(rng, self._settings.size, self._settings.augmentation)
            picture, bits = change.picture(picture, rng), change.bits(bits)
        planes = class_planes(bits, len(self._settings.classes))
        return _tensor(picture), torch.from_numpy(planes.astype(np.float32))


def _tensor(picture: np.ndarray) -> torch.Tensor:
    """A picture (rows x columns, uint8) as 1 x rows x columns, about zero mean and unit range."""
    return torch.from_numpy(picture.astype(np.float32) / 64 - 2)[None]


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader,
    settings: Settings,
    epoch: int,
) -> float:
    """One epoch; return the mean loss."""
    model.train()
    steps = settings.epochs * settings.epoch_iterations
    total = 0.0
    for number, (pictures, planes) in enumerate(loader):
        step = epoch * settings.epoch_iterations + number
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(step, steps)
        loss = _loss(_logits(model, pictures), planes.to(device()))
        if not torch.isfinite(loss):
            raise InputError(
                "The training loss is no longer a number: lower networks.<name>.learning_rate."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _GRADIENT_NORM)
        optimizer.step()
        total += float(loss.detach())
    return total / settings.epoch_iterations


def _logits(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    pictures = pictures.to(device(), memory_format=torch.channels_last)
    with torch.autocast(device().type, torch.bfloat16, enabled=device().type == "cuda"):
        return model(pictures).float()


_DICE = smp.losses.DiceLoss(mode="multilabel", from_logits=True)
_CROSS_ENTROPY = smp.losses.SoftBCEWithLogitsLoss()


def _loss(logits: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy for every pixel plus soft Dice, which thin and rare classes need."""
    return _CROSS_ENTROPY(logits, planes) + _DICE(logits, planes)


@torch.no_grad()
def _validate(model: nn.Module, films: TrainingFilms, settings: Settings) -> tuple[float, float]:
    """Mean loss and mean Dice of the foreground over the films."""
    model.eval()
    item = _Item(settings)
    losses, scores = [], []
    for index in range(len(films)):
        picture, planes = item(films, index, None)
        logits = _logits(model, picture[None])
        losses.append(float(_loss(logits, planes[None].to(device()))))
        chosen = settings.foreground_indices
        predicted = (logits[0, chosen] > 0).any(dim=0).cpu().numpy()
        scores.append(dice(planes[chosen].numpy().any(axis=0), predicted))
    return float(np.mean(losses)), float(np.mean(scores))


@torch.no_grad()
def _probabilities(model: nn.Module, film: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class probabilities (classes x rows x columns of the film, float32)."""
    box = fit(film.shape, size)
    picture = _tensor(place_picture(film, size))
    inside = torch.sigmoid(_logits(model, picture[None]))[0, :, : box.rows, : box.columns]
    planes = inside.cpu().numpy()
    return np.stack(
        [cv2.resize(p, film.shape[::-1], interpolation=cv2.INTER_LINEAR) for p in planes]
    )


def _instances(
    probabilities: np.ndarray, classes: list[str], thresholds: dict[str, float]
) -> Iterator[Instance]:
    """Connected components of each class; the score is the mean probability inside."""
    smallest = thresholds["minimum_area"] * probabilities[0].size
    for class_name, plane in zip(classes, probabilities, strict=True):
        mask = (plane >= thresholds["probability_threshold"]).astype(np.uint8)
        count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for label in range(1, count):
            if statistics[label, cv2.CC_STAT_AREA] >= smallest:
                component = labels == label
                yield Instance(class_name, float(plane[component].mean()), component)
