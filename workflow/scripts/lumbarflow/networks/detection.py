"""Instance segmentation networks of MMDetection."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import mmdet.models  # noqa: F401  (registers the networks)
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from ..prepare.masks import class_planes, rasterise
from ..train import augment
from ..train.batches import dice
from ..train.films import TrainingFilms, fit, place_picture
from . import anchors, pretrained
from .base import Instance, Settings, device

_LOG = logging.getLogger(__name__)

_VALIDATION_SCORE = 0.3  # while the network is trained
_THRESHOLDS = [round(0.05 * step, 2) for step in range(2, 15)]


class DetectionNetwork:
    """A network of MMDetection; see :class:`lumbarflow.networks.base.Network`.

    Args:
        build: makes MMDetection's model configuration from the settings.
    """

    precision = torch.float16  # mmcv's operators know no bfloat16
    # mmcv's RoIAlign takes every tensor for one in the usual order, and reads others wrongly.
    memory_format = torch.contiguous_format
    smallest_batch = 1

    def __init__(self, build: Callable[[Settings], Config]):
        self._build = build

    def build(self, settings: Settings, initialise: bool = False) -> nn.Module:
        """The module, initialised as its configuration says if `initialise`."""
        init_default_scope("mmdet")
        module = MODELS.build(self._build(settings))
        if initialise:
            # It tells of every tensor, to a logger that heeds no level set otherwise.
            MMLogger.get_current_instance().setLevel("ERROR")
            module.init_weights()
        return module

    def anchors(
        self, films: TrainingFilms, settings: Settings, kept: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """See :func:`lumbarflow.networks.anchors.of_films`."""
        kept = kept or pretrained.anchors(settings.weights)
        strides = anchors.strides_of(self._build(settings))
        found = anchors.of_films(films, strides, settings.augmentation, kept)
        if found is not None:
            share = 100 * found["coverage"]
            _LOG.info("%.1f %% of the training films' boxes have a fitting anchor", share)
        return found

    def example(
        self,
        films: TrainingFilms,
        index: int,
        rng: np.random.Generator | None,
        *,
        settings: Settings,
    ) -> dict[str, Any]:
        """Picture and instances of a film as MMDetection takes them."""
        picture, polygons = films.pictures[index], films.polygons[index]
        contours = [(polygon.class_index, polygon.points) for polygon in polygons]
        if rng is not None:
            change = augment.draw(rng, settings.size, settings.augmentation)
            picture = change.picture(picture, rng)
            contours = [(label, change.points(points)) for label, points in contours]
        sample = _sample(films.image_ids[index], picture.shape)
        sample.gt_instances = _truth(contours, picture.shape)
        return {"inputs": _tensor(picture), "data_samples": sample}

    def collate(self, examples: list[dict[str, Any]]) -> dict[str, list[Any]]:
        """Pictures and samples of several films."""
        return {key: [example[key] for example in examples] for key in ("inputs", "data_samples")}

    def losses(
        self, module: nn.Module, batch: dict[str, list[Any]], settings: Settings
    ) -> dict[str, torch.Tensor]:
        """The losses by MMDetection's names, those of several scales added up."""
        found = module(**module.data_preprocessor(batch, training=True), mode="loss")
        return {
            name: value.mean() if isinstance(value, torch.Tensor) else sum(v.mean() for v in value)
            for name, value in found.items()
            if "loss" in name  # others are told for information only
        }

    @torch.no_grad()
    def validate(
        self, module: nn.Module, films: TrainingFilms, settings: Settings
    ) -> tuple[None, float]:
        """Mean Dice of the union of the foreground classes, as for the semantic networks."""
        chosen = settings.foreground_indices
        scores = []
        for found, bits in zip(self._found(module, films, settings), films.bits, strict=True):
            reference = class_planes(bits, len(settings.classes))[chosen].any(axis=0)
            predicted = _union(found, chosen, _VALIDATION_SCORE, reference.shape)
            scores.append(dice(reference, predicted))
        return None, float(np.mean(scores))

    @torch.no_grad()
    def choose(
        self, module: nn.Module, films: TrainingFilms, settings: Settings
    ) -> dict[str, list[float]]:
        """For each class the score from which its Dice, of all films together, is highest."""
        found = self._found(module, films, settings)
        chosen = []
        for label in range(len(settings.classes)):
            both, total = np.zeros((2, len(_THRESHOLDS)))
            for instances, bits in zip(found, films.bits, strict=True):
                reference = (bits >> label & 1).astype(bool)
                for row, threshold in enumerate(_THRESHOLDS):
                    predicted = _union(instances, [label], threshold, reference.shape)
                    both[row] += (predicted & reference).sum()
                    total[row] += predicted.sum() + reference.sum()
            # Of equals, and where a class is nowhere to be seen, the one nearest to the usual.
            order = np.argsort(np.abs(np.array(_THRESHOLDS) - _VALIDATION_SCORE), kind="stable")
            score = 2 * both / np.maximum(total, 1)
            chosen.append(_THRESHOLDS[order[np.argmax(score[order])]])
        return {"score_threshold": chosen}

    def predict(
        self,
        state: dict[str, Any],
        films: Iterator[tuple[str, np.ndarray]],
        settings: Settings,
        thresholds: dict[str, Any],
    ) -> Iterator[tuple[str, list[Instance]]]:
        """See :class:`lumbarflow.networks.base.Network`."""
        model = self.build(settings)
        model.load_state_dict(state)
        model.to(device()).eval()
        for image_id, film in films:
            yield image_id, list(_instances(model, film, settings, thresholds))

    def _found(
        self, module: nn.Module, films: TrainingFilms, settings: Settings
    ) -> list[InstanceData]:
        """What the network finds on the canvas of each film."""
        return [
            _detect(module, films.pictures[index], settings.size, 1.0)
            for index in range(len(films))
        ]


def start_from(name: str) -> Config:
    """MMDetection's own model configuration `name`, to be changed where needed."""
    return copy.deepcopy(get_config(f"mmdet::{name}").model)


def set_backbone(model: Config, settings: Settings) -> None:
    """Put the ResNet of the settings and a pyramid of their width into a model configuration.

    Batch normalisation is trained throughout: radiographs differ from photographs, and from
    scratch nothing is learnt with frozen statistics.
    """
    depth = int(settings.backbone.removeprefix("resnet"))
    model.backbone.depth = depth
    model.backbone.frozen_stages = -1
    model.backbone.norm_eval = False
    model.backbone.init_cfg = None
    expansion = 1 if depth < 50 else 4
    model.neck.in_channels = [64 * expansion * 2**stage for stage in range(4)]
    model.neck.out_channels = settings.width
    mean, deviation = settings.normalisation
    model.data_preprocessor.update(
        mean=[mean] * 3, std=[deviation] * 3, bgr_to_rgb=False, pad_size_divisor=32
    )


def _tensor(picture: np.ndarray) -> torch.Tensor:
    """A picture (rows x columns, uint8) as 3 equal channels."""
    return torch.from_numpy(np.array(picture))[None].repeat(3, 1, 1)


def _sample(image_id: str, canvas: tuple[int, int], scale: float = 1.0) -> DetDataSample:
    """A sample whose results come back for the whole canvas at the film's own scale."""
    original = (math.ceil(canvas[0] / scale), math.ceil(canvas[1] / scale))
    sample = DetDataSample(
        metainfo={
            "img_id": image_id,
            "img_shape": canvas,
            "ori_shape": original,
            "scale_factor": (scale, scale),
        }
    )
    return sample


def _truth(contours: list[tuple[int, np.ndarray]], size: tuple[int, int]) -> InstanceData:
    boxes, labels, masks = [], [], []
    for label, points in contours:
        mask = rasterise(points + 0.5, *size)  # whose pixel corners are at whole numbers
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) < anchors.SMALLEST_SIDE or len(columns) < anchors.SMALLEST_SIDE:
            continue
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        labels.append(label)
        masks.append(mask)
    stack = np.stack(masks).astype(np.uint8) if masks else np.zeros((0, *size), np.uint8)
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        masks=BitmapMasks(stack, *size),
    )


def _union(
    instances: InstanceData, labels: list[int], threshold: float, size: tuple[int, int]
) -> np.ndarray:
    """What instances of these classes with a score of `threshold` or more cover (bool)."""
    wanted = torch.isin(instances.labels.cpu(), torch.tensor(labels))
    wanted &= instances.scores.cpu() >= threshold
    masks = torch.as_tensor(instances.masks).cpu()[wanted]
    return masks.any(dim=0).numpy() if len(masks) else np.zeros(size, bool)


@torch.no_grad()
def _detect(
    model: nn.Module, picture: np.ndarray, canvas: tuple[int, int], scale: float
) -> InstanceData:
    """The instances on a canvas, their masks at the film's own scale."""
    batch = {"inputs": [_tensor(picture)], "data_samples": [_sample("film", canvas, scale)]}
    with torch.autocast(device().type, torch.float16, enabled=device().type == "cuda"):
        return model.test_step(batch)[0].pred_instances


def _instances(
    model: nn.Module,
    film: np.ndarray,
    settings: Settings,
    thresholds: dict[str, Any],
) -> Iterator[Instance]:
    canvas = place_picture(film, settings.size)
    found = _detect(model, canvas, settings.size, fit(film.shape, settings.size).scale)
    rows, columns = film.shape
    smallest = max(1, thresholds["minimum_area"] * film.size)
    order = torch.argsort(found.scores, descending=True)
    limits = np.broadcast_to(thresholds["score_threshold"], len(settings.classes))
    for index in order.tolist():
        score = float(found.scores[index])
        if score < limits[int(found.labels[index])]:
            continue
        mask = torch.as_tensor(found.masks[index]).cpu().numpy()[:rows, :columns].astype(bool)
        if mask.sum() >= smallest:
            yield Instance(settings.classes[int(found.labels[index])], score, mask)
