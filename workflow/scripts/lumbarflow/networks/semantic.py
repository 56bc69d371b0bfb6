"""Semantic networks: one sigmoid output a class, so that a screw over a vertebra is both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn

from ..prepare.masks import class_planes
from ..train import augment
from ..train.batches import dice
from ..train.films import TrainingFilms, fit, place_picture
from .base import Instance, Settings, device

_THRESHOLDS = [round(0.05 * step, 2) for step in range(4, 17)]


class SemanticNetwork:
    """A network of segmentation-models-pytorch; see :class:`lumbarflow.networks.base.Network`.

    Args:
        build: makes the module from the settings: 1 input channel, a logit a class, the size of
            its input.
        smallest_batch: films that it needs at a time.
    """

    precision = torch.bfloat16
    memory_format = torch.channels_last

    def __init__(self, build: Callable[[Settings], nn.Module], smallest_batch: int = 1):
        self._build = build
        self.smallest_batch = smallest_batch

    def build(self, settings: Settings, initialise: bool = False) -> nn.Module:
        """The module; random weights cost too little to be left out."""
        return self._build(settings)

    def anchors(self, films: TrainingFilms, settings: Settings, kept: Any) -> None:
        """None: there are no boxes."""

    def example(
        self,
        films: TrainingFilms,
        index: int,
        rng: np.random.Generator | None,
        *,
        settings: Settings,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Picture (1 x rows x columns, float32) and planes (classes x rows x columns, uint8)."""
        picture, bits = films.pictures[index], films.bits[index]
        if rng is not None:
            change = augment.draw(rng, settings.size, settings.augmentation)
            picture, bits = change.picture(picture, rng), change.bits(bits)
        planes = class_planes(bits, len(settings.classes)).astype(np.uint8)
        return _tensor(picture, settings), torch.from_numpy(planes)

    def collate(
        self, examples: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures and planes of several films."""
        pictures, planes = zip(*examples, strict=True)
        return torch.stack(pictures), torch.stack(planes)

    def losses(
        self, module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], settings: Settings
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy for every pixel, and soft Dice, which thin and rare classes need."""
        pictures, planes = batch
        return _losses(_logits(module, pictures), planes.to(device()).float())

    @torch.no_grad()
    def validate(
        self, module: nn.Module, films: TrainingFilms, settings: Settings
    ) -> tuple[float, float]:
        """Mean loss and mean Dice of the foreground over the films."""
        losses, scores = [], []
        chosen = settings.foreground_indices
        for index in range(len(films)):
            picture, planes = self.example(films, index, None, settings=settings)
            logits = _logits(module, picture[None])
            found = _losses(logits, planes[None].to(device()).float())
            losses.append(float(sum(found.values())))
            predicted = (logits[0, chosen] > 0).any(dim=0).cpu().numpy()
            scores.append(dice(planes[chosen].numpy().any(axis=0), predicted))
        return float(np.mean(losses)), float(np.mean(scores))

    @torch.no_grad()
    def choose(
        self, module: nn.Module, films: TrainingFilms, settings: Settings
    ) -> dict[str, list[float]]:
        """For each class the probability from which its Dice, of all films together, is highest."""
        both, predicted = np.zeros((2, len(_THRESHOLDS), len(settings.classes)))
        reference = np.zeros(len(settings.classes))
        for index in range(len(films)):
            picture, planes = self.example(films, index, None, settings=settings)
            truth = planes.numpy().astype(bool)
            probabilities = torch.sigmoid(_logits(module, picture[None]))[0].cpu().numpy()
            reference += truth.sum(axis=(1, 2))
            for row, threshold in enumerate(_THRESHOLDS):
                found = probabilities >= threshold
                predicted[row] += found.sum(axis=(1, 2))
                both[row] += (found & truth).sum(axis=(1, 2))
        score = 2 * both / np.maximum(predicted + reference, 1)
        # Of equals, and where a class is nowhere to be seen, the one nearest to a half.
        order = np.argsort(np.abs(np.array(_THRESHOLDS) - 0.5), kind="stable")
        best = order[np.argmax(score[order], axis=0)]
        return {"probability_threshold": [_THRESHOLDS[row] for row in best]}

    def predict(
        self,
        state: dict[str, Any],
        films: Iterator[tuple[str, np.ndarray]],
        settings: Settings,
        thresholds: dict[str, Any],
    ) -> Iterator[tuple[str, list[Instance]]]:
        """See :class:`lumbarflow.networks.base.Network`."""
        model = self._build(settings)
        model.load_state_dict(state)
        model.to(device(), memory_format=torch.channels_last).eval()
        for image_id, film in films:
            probabilities = _probabilities(model, film, settings)
            yield image_id, list(_instances(probabilities, settings.classes, thresholds))


def _tensor(picture: np.ndarray, settings: Settings) -> torch.Tensor:
    """A picture (rows x columns, uint8) as 1 x rows x columns, of zero mean and unit deviation."""
    mean, deviation = settings.normalisation
    return torch.from_numpy((picture.astype(np.float32) - mean) / deviation)[None]


def _logits(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    pictures = pictures.to(device(), memory_format=torch.channels_last)
    with torch.autocast(device().type, torch.bfloat16, enabled=device().type == "cuda"):
        return model(pictures).float()


_DICE = smp.losses.DiceLoss(mode="multilabel", from_logits=True)


def _losses(logits: torch.Tensor, planes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "cross_entropy": nn.functional.binary_cross_entropy_with_logits(logits, planes),
        "dice": _DICE(logits, planes),
    }


@torch.no_grad()
def _probabilities(model: nn.Module, film: np.ndarray, settings: Settings) -> np.ndarray:
    """Class probabilities (classes x rows x columns of the film, float32)."""
    box = fit(film.shape, settings.size)
    picture = _tensor(place_picture(film, settings.size), settings)
    inside = torch.sigmoid(_logits(model, picture[None]))[0, :, : box.rows, : box.columns]
    planes = inside.cpu().numpy()
    return np.stack(
        [cv2.resize(p, film.shape[::-1], interpolation=cv2.INTER_LINEAR) for p in planes]
    )


def _instances(
    probabilities: np.ndarray, classes: list[str], thresholds: dict[str, Any]
) -> Iterator[Instance]:
    """Connected components of each class; the score is the mean probability inside."""
    smallest = thresholds["minimum_area"] * probabilities[0].size
    limits = np.broadcast_to(thresholds["probability_threshold"], len(classes))
    for class_name, plane, limit in zip(classes, probabilities, limits, strict=True):
        mask = (plane >= limit).astype(np.uint8)
        count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for label in range(1, count):
            if statistics[label, cv2.CC_STAT_AREA] >= smallest:
                component = labels == label
                yield Instance(class_name, float(plane[component].mean()), component)
