"""The stock recipes that `training.py` compares with: what the libraries' documentation trains.

- segmentation-models-pytorch: its example `binary_segmentation_buildings` (the introduction on the
  Oxford pets does the same): the network with its default arguments, Adam with a rate of 0.0002
  that falls as a cosine to 0.00001, soft Dice loss, batches of 8, no augmentation; films read with
  OpenCV, squashed to the given size, normalised as ImageNet. Several classes that overlap take the
  loss in its mode `multilabel`.
- MMDetection: its configuration files `mask-rcnn_r50_fpn_1x_coco` and `yolact_r50_1xb8-55e_coco`
  with its Runner. Set are the class count, paths and image size; the schedule is scaled to the
  time, and the rate to the batch by the library's own `auto_scale_lr`. YOLACT takes squares only:
  one with as many pixels as the given size, its anchors placed by the same rule as for 550 pixels.

All with a ResNet-18 and no pretrained weights. In favour of the stock recipes: MMDetection's frozen
layers, which suit pretrained weights only, are trained; no time goes into validation or
checkpoints, which choose nothing in either recipe; steps are never cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from _training import Cohort, Trained, score
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lumbarflow.files import read_json
from lumbarflow.networks.base import device
from lumbarflow.prepare.masks import class_planes

BACKBONE = "resnet18"
SCORE = 0.3  # from which a detector's instance counts: the default of MMDetection's demonstrations

_SEMANTIC = {"unet": "Unet", "pspnet": "PSPNet", "deeplabv3": "DeepLabV3"}
_MEAN = np.float32([0.485, 0.456, 0.406])
_DEVIATION = np.float32([0.229, 0.224, 0.225])
_RATE, _LAST_RATE, _BATCH = 2e-4, 1e-5, 8
_CONFIGS = {
    "mask_rcnn": "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    "yolact": "yolact/yolact_r50_1xb8-55e_coco.py",
}
_STAGES = [64, 128, 256, 512]  # channels of ResNet-18
_WARM_UP = 500
_LARGEST_WARM_UP = 0.1  # share of the steps, where 500 would be more
_TRIAL_STEPS = 4


def train_stock(
    seconds: float,
    folder: Path,
    network: str,
    cohort: Cohort,
    size: tuple[int, int],
    threads: int,
) -> Trained:
    """Train a network by its library's stock recipe for about `seconds`, and score it.

    Args:
        seconds: of the training; a trial before it, not counted, tells how many steps they are.
        folder: where MMDetection writes its logs.
        network: name.
        cohort: whose training films are trained on, and whose test films are scored.
        size: rows and columns that films are brought to.
        threads: CPU threads and, for segmentation-models-pytorch, processes that read films.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    torch.manual_seed(1)
    if network in _SEMANTIC:
        return _semantic(seconds, network, cohort, size, threads)
    return _detection(seconds, folder, network, cohort, size)


# --- segmentation-models-pytorch -------------------------------------------------------------


class _Films(Dataset):
    """Films and masks read from disk, as tensors of one size."""

    def __init__(self, cohort: Cohort, size: tuple[int, int]):
        self._cohort, self._size = cohort, size

    def __len__(self) -> int:
        return len(self._cohort.names["train"])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        name = self._cohort.names["train"][index]
        bits = cv2.imread(str(self._cohort.masks / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        bits = cv2.resize(bits, self._size[::-1], interpolation=cv2.INTER_NEAREST)
        planes = class_planes(bits, len(self._cohort.classes)).astype(np.float32)
        return _read(self._cohort, name, self._size), torch.from_numpy(planes)


def _read(cohort: Cohort, name: str, size: tuple[int, int]) -> torch.Tensor:
    """A film as 3 x rows x columns, normalised as ImageNet."""
    picture = cv2.cvtColor(cv2.imread(str(cohort.pictures / f"{name}.png")), cv2.COLOR_BGR2RGB)
    picture = cv2.resize(picture, size[::-1]).astype(np.float32) / 255
    return torch.from_numpy((picture - _MEAN) / _DEVIATION).permute(2, 0, 1).contiguous()


def _semantic(
    seconds: float, network: str, cohort: Cohort, size: tuple[int, int], threads: int
) -> Trained:
    loader = DataLoader(
        _Films(cohort, size),
        batch_size=_BATCH,
        shuffle=True,
        num_workers=threads,
        persistent_workers=True,
        drop_last=len(cohort.names["train"]) % _BATCH == 1,  # cannot be normalised
    )
    _, trial = _train_semantic(_new(network, cohort), loader, _TRIAL_STEPS)
    steps = max(1, round(seconds / float(np.median(trial))))
    started = time.monotonic()
    model, durations = _train_semantic(_new(network, cohort), loader, steps)
    passed = time.monotonic() - started
    scores = score(cohort, _found_semantic(model, cohort, size))
    return Trained(passed, float(np.median(durations)) / _BATCH, steps, scores)


def _new(network: str, cohort: Cohort) -> nn.Module:
    return smp.create_model(
        _SEMANTIC[network],
        encoder_name=BACKBONE,
        encoder_weights=None,
        in_channels=3,
        classes=len(cohort.classes),
    ).to(device())


def _train_semantic(
    model: nn.Module, loader: DataLoader, steps: int
) -> tuple[nn.Module, list[float]]:
    """The trained network and the seconds from step to step."""
    loss_of = smp.losses.DiceLoss(smp.losses.MULTILABEL_MODE, from_logits=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, _LAST_RATE)
    model.train()
    ends = [time.monotonic()]
    while len(ends) <= steps:
        for pictures, planes in loader:
            loss = loss_of(model(pictures.to(device())), planes.to(device()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()
            ends.append(time.monotonic())
            if len(ends) > steps:
                break
    return model, _between(ends)


@torch.no_grad()
def _found_semantic(
    model: nn.Module, cohort: Cohort, size: tuple[int, int]
) -> Iterator[tuple[str, np.ndarray]]:
    model.eval()
    wanted = [cohort.classes.index(name) for name in cohort.foreground]
    for name, (rows, columns) in _test_films(cohort):
        logits = model(_read(cohort, name, size)[None].to(device()))
        share = torch.sigmoid(logits[0, wanted]).amax(0).cpu().numpy()
        yield name, cv2.resize(share, (columns, rows)) > 0.5


# --- MMDetection -----------------------------------------------------------------------------


class _Clock(Hook):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(self, *_: object, **__: object) -> None:
        self.ends.append(time.monotonic())


def _detection(
    seconds: float, folder: Path, network: str, cohort: Cohort, size: tuple[int, int]
) -> Trained:
    init_default_scope("mmdet")
    config = _config(network, cohort, size)
    batch = config.train_dataloader.batch_size
    _, trial, _ = _train_detector(config, folder / "trial", 1, batch * _TRIAL_STEPS)
    films = sum(1 for _ in _annotated(cohort))
    steps = seconds / float(np.median(trial))
    epochs = max(1, round(steps / math.ceil(films / batch)))
    started = time.monotonic()
    model, durations, steps = _train_detector(config, folder, epochs, films)
    passed = time.monotonic() - started
    scores = score(cohort, _found_detector(model, config, cohort))
    return Trained(passed, float(np.median(durations)) / batch, steps, scores)


def _annotated(cohort: Cohort) -> Iterator[int]:
    """The training films on which something is drawn: MMDetection leaves the others out."""
    yield from {
        annotation["image_id"]
        for annotation in read_json(cohort.coco / "train.json")["annotations"]
    }


def _config(network: str, cohort: Cohort, size: tuple[int, int]) -> Config:
    """MMDetection's own configuration, with what a user has to set for these films."""
    config = get_config(f"mmdet::{_CONFIGS[network]}").copy()
    model = config.model
    model.backbone.update(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None)
    model.neck.in_channels = _STAGES
    heads = model.roi_head if network == "mask_rcnn" else model
    heads.bbox_head.num_classes = heads.mask_head.num_classes = len(cohort.classes)
    if network == "yolact":
        side = max(64, 32 * round(math.sqrt(size[0] * size[1]) / 32))
        size = side, side
        cells = [math.ceil(side / 2**level) for level in range(3, 8)]
        generator = model.bbox_head.anchor_generator
        generator.strides = [side / count for count in cells]
        generator.centers = [(side / 2 / count,) * 2 for count in cells]
    for loader, subset in ((config.train_dataloader, "train"), (config.test_dataloader, "test")):
        loader.dataset.update(
            data_root="",
            ann_file=str(cohort.coco / f"{subset}.json"),
            data_prefix={"img": str(cohort.pictures)},
            metainfo={"classes": tuple(cohort.classes)},
        )
        for step in loader.dataset.pipeline:
            if step.type == "Resize":
                step.scale = size[::-1]
    config.auto_scale_lr.enable = True
    config.log_level = "ERROR"
    config.default_hooks.checkpoint = None
    return config


def _train_detector(
    config: Config, folder: Path, epochs: int, films: int
) -> tuple[nn.Module, list[float], int]:
    """The network trained on the first `films`, the seconds from step to step, and the steps."""
    config = config.copy()
    loader = config.train_dataloader
    loader.dataset.indices = films
    steps = epochs * math.ceil(films / loader.batch_size)
    stock_epochs = config.train_cfg.max_epochs
    warm_up, falls = config.param_scheduler
    warm_up.end = max(1, min(_WARM_UP, round(steps * _LARGEST_WARM_UP)))
    milestones = [round(epoch / stock_epochs * steps) for epoch in falls.milestones]
    falls.update(by_epoch=False, begin=0, end=steps, milestones=milestones)
    config.train_cfg.max_epochs = epochs
    for subset in ("val", "test"):
        for part in ("dataloader", "evaluator", "cfg"):
            config[f"{subset}_{part}"] = None
    config.work_dir = str(folder)
    config.experiment_name = folder.name
    runner = Runner.from_cfg(config)
    clock = _Clock()
    runner.register_hook(clock)
    runner.train()
    return runner.model, _between(clock.ends), len(clock.ends)


@torch.no_grad()
def _found_detector(
    model: nn.Module, config: Config, cohort: Cohort
) -> Iterator[tuple[str, np.ndarray]]:
    model.cfg = config
    model.eval()
    pipeline = Compose(config.test_dataloader.dataset.pipeline)
    wanted = torch.tensor([cohort.classes.index(name) for name in cohort.foreground])
    for name, shape in _test_films(cohort):
        path = str(cohort.pictures / f"{name}.png")
        found = inference_detector(model, path, pipeline).pred_instances.cpu()
        kept = torch.isin(found.labels, wanted) & (found.scores >= SCORE)
        masks = torch.as_tensor(found.masks)[kept]
        yield name, masks.any(0).numpy() if len(masks) else np.zeros(shape, bool)


# --- Both ------------------------------------------------------------------------------------


def _test_films(cohort: Cohort) -> Iterator[tuple[str, tuple[int, int]]]:
    for image in read_json(cohort.coco / "test.json")["images"]:
        yield image["image_id"], (image["height"], image["width"])


def _between(ends: list[float]) -> list[float]:
    """Durations between moments, the first of three or more left out: it warms up."""
    durations = np.diff(ends)
    return (durations[1:] if len(durations) > 1 else durations).tolist()
