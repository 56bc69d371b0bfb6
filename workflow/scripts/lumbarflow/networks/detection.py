"""Instance segmentation networks of MMDetection, trained by mmengine's Runner."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mmdet.models  # noqa: F401  (registers the networks)
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from ..errors import InputError
from ..prepare.masks import class_planes, rasterise
from ..train import augment, checkpoints
from ..train.batches import Items, Passes, dice
from ..train.films import TrainingFilms, fit, place_picture
from ..train.history import History
from ..train.schedule import learning_rate_factor
from .base import Instance, Settings, device, fetching_weights, loader_workers

_WEIGHT_DECAY = 1e-2
_GRADIENT_NORM = 10.0
_SMALLEST_SIDE = 2.0  # pixels of the canvas; thinner boxes only disturb the box regression
_VALIDATION_SCORE = 0.3


class DetectionNetwork:
    """Trains and runs a network of MMDetection.

    Args:
        build: makes MMDetection's model configuration from the settings.
    """

    def __init__(self, build: Callable[[Settings], Config]):
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
        passes = Passes(len(train), settings.epoch_iterations * settings.batch_size, settings.seed)
        epochs = _Epochs(history, validation, settings, work / "last.pth")
        runner = Runner(
            model=self._build(settings),
            work_dir=str(work),
            train_dataloader=DataLoader(
                Items(train, _Item(settings)),
                batch_size=settings.batch_size,
                sampler=passes,
                num_workers=loader_workers(),
                collate_fn=_collate,
            ),
            val_dataloader=DataLoader(
                Items(validation, _Item(settings)), batch_size=1, collate_fn=_collate
            ),
            val_evaluator=Evaluator([_ForegroundDice(validation, settings)]),
            train_cfg={"by_epoch": True, "max_epochs": settings.epochs, "val_interval": 1},
            val_cfg={},
            optim_wrapper=_optimizer(settings),
            custom_hooks=[_LearningRate(settings), epochs],
            default_hooks={
                "timer": {"type": "IterTimerHook"},
                "checkpoint": None,
                "logger": None,
                "param_scheduler": None,
                "sampler_seed": {"type": "DistSamplerSeedHook"},
                "runtime_info": {"type": "RuntimeInfoHook"},
            },
            default_scope="mmdet",
            randomness={"seed": settings.seed},
            experiment_name="training",
            log_level="ERROR",
            visualizer={"type": "DetLocalVisualizer", "vis_backends": []},
        )
        with fetching_weights(settings):  # it initialises the network
            runner.train()
        return epochs.best

    def predict(
        self,
        state: dict[str, Any],
        films: Iterator[tuple[str, np.ndarray]],
        settings: Settings,
        thresholds: dict[str, float],
    ) -> Iterator[tuple[str, list[Instance]]]:
        """See :class:`lumbarflow.networks.base.Network`."""
        init_default_scope("mmdet")
        model = MODELS.build(self._build(replace(settings, weights=None)))
        model.load_state_dict(state)
        model.to(device()).eval()
        for image_id, film in films:
            yield image_id, list(_instances(model, film, settings, thresholds))


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
    model.backbone.init_cfg = (
        {"type": "Pretrained", "checkpoint": f"torchvision://{settings.backbone}"}
        if settings.weights
        else None
    )
    expansion = 1 if depth < 50 else 4
    model.neck.in_channels = [64 * expansion * 2**stage for stage in range(4)]
    model.neck.out_channels = settings.width
    model.data_preprocessor.update(
        mean=[128.0] * 3, std=[64.0] * 3, bgr_to_rgb=False, pad_size_divisor=32
    )


class _Item:
    """Picture and instances of a film as MMDetection takes them."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def __call__(
        self, films: TrainingFilms, index: int, rng: np.random.Generator | None
    ) -> dict[str, Any]:
        picture, polygons = films.pictures[index], films.polygons[index]
        contours = [(polygon.class_index, polygon.points) for polygon in polygons]
        if rng is not None:
            change = augment.draw(rng, self._settings.size, self._settings.augmentation)
            picture = change.picture(picture, rng)
            contours = [(label, change.points(points)) for label, points in contours]
        sample = _sample(films.image_ids[index], picture.shape)
        sample.gt_instances = _truth(contours, picture.shape)
        return {"inputs": _tensor(picture), "data_samples": sample}


def _tensor(picture: np.ndarray) -> torch.Tensor:
    """A picture (rows x columns, uint8) as 3 equal channels."""
    return torch.from_numpy(np.ascontiguousarray(picture))[None].repeat(3, 1, 1)


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
        if len(rows) < _SMALLEST_SIDE or len(columns) < _SMALLEST_SIDE:
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


def _collate(items: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [item[key] for item in items] for key in ("inputs", "data_samples")}


def _optimizer(settings: Settings) -> dict[str, Any]:
    return {
        "type": "AmpOptimWrapper" if torch.cuda.is_available() else "OptimWrapper",
        "optimizer": {
            "type": "AdamW",
            "lr": settings.learning_rate,
            "weight_decay": _WEIGHT_DECAY,
        },
        "clip_grad": {"max_norm": _GRADIENT_NORM},
    }


class _LearningRate(Hook):
    """The common schedule, step by step."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        steps = self._settings.epochs * self._settings.epoch_iterations
        factor = learning_rate_factor(runner.iter, steps)
        for group in runner.optim_wrapper.param_groups:
            group["lr"] = self._settings.learning_rate * factor


class _Epochs(Hook):
    """Fills the history, keeps the best weights, and saves and resumes after each validation.

    The checkpoint hook of mmengine saves before the validation, so that an epoch interrupted
    there would never be validated, and it writes in place.
    """

    priority = "LOWEST"

    def __init__(
        self, history: History, validation: TrainingFilms, settings: Settings, checkpoint: Path
    ):
        self.best: dict[str, torch.Tensor] = {}
        self._history = history
        self._validation = validation
        self._settings = settings
        self._checkpoint = checkpoint
        self._losses: list[float] = []
        self._seen = 0
        self._started = 0.0

    def before_train(self, runner: Runner) -> None:
        saved = checkpoints.load(self._checkpoint)
        if saved is None:
            checkpoints.begin(runner.model, self._checkpoint.parent)
            return
        runner.model.load_state_dict(saved["model"])
        runner.optim_wrapper.load_state_dict(saved["optimizer"])
        # As Runner.resume does.
        runner.train_loop._epoch = saved["epoch"]
        runner.train_loop._iter = saved["epoch"] * self._settings.epoch_iterations
        self.best = saved["best"]
        self._history.resume(saved["history"], saved["epoch"])

    def before_train_epoch(self, runner: Runner) -> None:
        torch.manual_seed(self._settings.seed + runner.epoch + 1)  # of the sampled regions
        self._losses, self._seen, self._started = [], 0, time.monotonic()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loss = float(outputs["loss"].detach())
        if not math.isfinite(loss):
            raise InputError(
                "The training loss is no longer a number: lower networks.<name>.learning_rate."
            )
        self._losses.append(loss)
        self._seen += len(data_batch["inputs"])

    def after_train_epoch(self, runner: Runner) -> None:
        self._history.add(
            runner.epoch + 1,
            "train",
            float(np.mean(self._losses)),
            {},
            time.monotonic() - self._started,
            self._seen,
        )

    def before_val_epoch(self, runner: Runner) -> None:
        self._started = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._history.add(
            runner.epoch,
            "val",
            None,
            {"dice": metrics["foreground/dice"]},
            time.monotonic() - self._started,
            len(self._validation),
        )
        state = runner.model.state_dict()
        if self._history.best["epoch"] == runner.epoch:
            self.best = {name: value.cpu().clone() for name, value in state.items()}
        checkpoints.save(
            self._checkpoint,
            {
                "model": state,
                "optimizer": runner.optim_wrapper.state_dict(),
                "epoch": runner.epoch,
                "best": self.best,
                "history": self._history.rows,
            },
        )


class _ForegroundDice(BaseMetric):
    """Mean Dice of the union of the foreground classes, as for the semantic networks."""

    def __init__(self, films: TrainingFilms, settings: Settings):
        super().__init__(prefix="foreground")
        chosen = settings.foreground_indices
        self._classes = torch.tensor(chosen)
        self._references = {
            image_id: class_planes(bits, len(settings.classes))[chosen].any(axis=0)
            for image_id, bits in zip(films.image_ids, films.bits, strict=True)
        }

    def process(self, data_batch: Any, data_samples: list[dict[str, Any]]) -> None:
        for sample in data_samples:
            found = sample["pred_instances"]
            wanted = torch.isin(found["labels"].cpu(), self._classes)
            wanted &= found["scores"].cpu() >= _VALIDATION_SCORE
            masks = torch.as_tensor(found["masks"]).cpu()[wanted]
            reference = self._references[sample["img_id"]]
            predicted = masks.any(dim=0).numpy() if len(masks) else np.zeros_like(reference)
            self.results.append(dice(reference, predicted))

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {"dice": float(np.mean(results))}


@torch.no_grad()
def _instances(
    model: torch.nn.Module,
    film: np.ndarray,
    settings: Settings,
    thresholds: dict[str, float],
) -> Iterator[Instance]:
    canvas = place_picture(film, settings.size)
    scale = fit(film.shape, settings.size).scale
    batch = {
        "inputs": [_tensor(canvas)],
        "data_samples": [_sample("film", canvas.shape, scale)],
    }
    found = model.test_step(batch)[0].pred_instances
    rows, columns = film.shape
    smallest = max(1, thresholds["minimum_area"] * film.size)
    order = torch.argsort(found.scores, descending=True)
    for index in order.tolist():
        score = float(found.scores[index])
        if score < thresholds["score_threshold"]:
            break
        mask = torch.as_tensor(found.masks[index]).cpu().numpy()[:rows, :columns].astype(bool)
        if mask.sum() >= smallest:
            yield Instance(settings.classes[int(found.labels[index])], score, mask)


logging.getLogger("mmengine").setLevel(logging.ERROR)
