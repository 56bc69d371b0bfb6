"""The training loop, the same for every network.

AdamW (Loshchilov and Hutter, ICLR 2019) with warm-up and cosine; the weights that are validated and
kept are a moving average of those of the last steps (Polyak and Juditsky 1992) where the settings
ask for one.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ..errors import InputError
from ..networks import pretrained
from ..networks.base import Network, Settings, device, loader_workers
from . import checkpoints, processes
from .batches import Items, Passes
from .films import TrainingFilms
from .history import History
from .schedule import learning_rate_factor

_GRADIENT_NORM = 5.0
_MEMORY_SHARE = 0.85  # of the GPU's memory that a tried batch may take
_RETURNS = 3  # to the last checkpoint, each with half the rate, before a training is given up

_LOG = logging.getLogger(__name__)

Stop = Callable[[int, float], bool]
"""Asked after an epoch (counted from 1), given its validation Dice: is the training to end?"""


def fit(
    network: Network,
    train: TrainingFilms,
    validation: TrainingFilms,
    settings: Settings,
    work: Path,
    history: History,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Train, or go on from the last checkpoint in `work`, and return the best state dict.

    The epoch with the best validation Dice of the foreground is kept. Everything is decided by the
    settings, the films and the number of the epoch, so that on one machine's CPU a training that
    was interrupted ends with the weights of one that was not, bit for bit.

    - A loss or gradient that is no number: back to the last checkpoint with half the learning rate.
    - Memory runs out: the batch is worked through in smaller parts; the sum of their gradients is
      that of the whole batch, but for normalisation over the parts.
    - Several processes (see :mod:`.processes`) share each batch; the first validates and writes.

    Args:
        network: what is trained.
        train: the films to learn from.
        validation: the films that choose the epoch.
        settings: of the network.
        work: folder of the checkpoints.
        history: gets a row a split and epoch.
        stop: may end the training early.

    Raises:
        InputError: the loss diverges at lower rates, too, a single film does not fit the memory
            (with several processes the share of one), or a batch cannot be shared by the processes.
    """
    if settings.batch_size % processes.world():
        raise InputError(
            f"networks.<name>.batch_size: expected a multiple of {processes.world()}, the number "
            f"of GPUs, found {settings.batch_size}."
        )
    training = _Training(network, settings)
    _restore(training, work, history)
    while not _is_over(training, history, stop):
        try:
            _train_epoch(training, train, history)
        except FloatingPointError:
            _return_slower(training, work, history)
            continue
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            _return_smaller(training, work, history)
            continue
        training.epoch += 1
        if processes.rank() == 0:
            _validate(training, validation, history)
            checkpoints.save_latest(work, training.content() | {"history": history.rows})
    return {name: value.cpu() for name, value in training.best.items()}


def largest_batch(
    network: Network, films: TrainingFilms, settings: Settings, most: int = 32
) -> int:
    """The largest power of two of films that a step on this machine's GPU has memory for.

    On a CPU, where a larger batch is not faster, it is 4.

    Args:
        network: what is trained.
        films: some of them are tried.
        settings: of the network; its batch size does not matter.
        most: where to stop.
    """
    if device().type == "cpu":
        return 4
    fitting = network.smallest_batch
    while fitting < most:
        training = _Training(network, replace(settings, batch_size=2 * fitting))
        training.begin()
        # A step takes a little more later on: objects differ in number, and memory fragments.
        torch.cuda.set_per_process_memory_fraction(_MEMORY_SHARE)
        examples = [
            network.example(films, number % len(films), None, settings=settings)
            for number in range(2 * fitting)
        ]
        try:
            _step(training, _in_parts(network, 2 * fitting, examples), 0.0, _Clock())
        except torch.OutOfMemoryError:
            break
        except FloatingPointError:
            pass  # it fits: the training has its own ways with that
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            del training
            torch.cuda.empty_cache()
        fitting *= 2
    _LOG.info("a batch of %d films fits the memory", fitting)
    return fitting


class _Training:
    """What changes while a network is trained: all that a checkpoint holds."""

    def __init__(self, network: Network, settings: Settings):
        self.network, self.settings = network, settings
        self.rate, self.part, self.returns = 1.0, settings.batch_size // processes.world(), 0
        self.start()

    def start(self) -> None:
        """Begin anew, with the same random weights each time."""
        torch.manual_seed(self.settings.seed)
        self.module = self.network.build(self.settings, initialise=True)
        if processes.world() > 1 and device().type == "cuda":
            self.module = nn.SyncBatchNorm.convert_sync_batchnorm(self.module)
        self.module.to(device(), memory_format=self.network.memory_format)
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        on_gpu = device().type == "cuda"
        self.scaler = torch.amp.GradScaler(
            device().type, enabled=on_gpu and self.network.precision == torch.float16
        )
        self.average: AveragedModel | None = None
        self.epoch, self.best = 0, {}

    def begin(self) -> None:
        """Start the moving average at the present weights, where the settings ask for one."""
        self.losses: nn.Module = _Losses(self.network, self.module, self.settings)
        if processes.world() > 1:
            # Slim variants leave stages of the backbone unused.
            self.losses = DistributedDataParallel(self.losses, find_unused_parameters=True)
        if self.settings.moving_average:
            self.average = AveragedModel(
                self.module,
                multi_avg_fn=partial(_move, self.settings.moving_average),
                use_buffers=True,
            )

    @property
    def judged(self) -> nn.Module:
        """The module that is validated and kept."""
        return self.module if self.average is None else self.average.module

    def content(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "model": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "rate": self.rate,
            "part": self.part,
            "returns": self.returns,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`content` gave."""
        self.module.load_state_dict(saved["model"])
        self.begin()
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.epoch, self.best = saved["epoch"], saved["best"]
        self.rate = min(self.rate, saved["rate"])
        self.part = min(self.part, saved["part"])
        self.returns = max(self.returns, saved["returns"])


class _Losses(nn.Module):
    """From a batch to its losses: the call that processes have to meet at."""

    def __init__(self, network: Network, module: nn.Module, settings: Settings):
        super().__init__()
        self.module = module
        self._network, self._settings = network, settings

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        return self._network.losses(self.module, batch, self._settings)


def _restore(training: _Training, work: Path, history: History) -> None:
    """Go on from the last readable checkpoint, or begin."""
    saved = checkpoints.latest(work)
    if saved is None:
        pretrained.begin(training.module, training.settings, _LOG)
        checkpoints.begin(training.module, work)
        training.begin()
        return
    training.load(saved)
    if processes.rank() == 0:
        history.resume(saved["history"], saved["epoch"])


def _is_over(training: _Training, history: History, stop: Stop | None) -> bool:
    ended = training.epoch == training.settings.epochs
    # Also after a resumption: it may not have been asked about the last epoch.
    if processes.rank() == 0 and stop is not None and training.epoch:
        ended |= stop(training.epoch, history.rows[-1]["metrics"]["dice"])
    return processes.agree(not ended) == 0


def _return(training: _Training, work: Path, history: History) -> None:
    training.start()
    _restore(training, work, history)


def _return_slower(training: _Training, work: Path, history: History) -> None:
    if training.returns == _RETURNS:
        raise InputError(
            "The training loss is no longer a number: lower networks.<name>.learning_rate."
        ) from None
    training.returns += 1
    training.rate /= 2
    _LOG.warning(
        "the training loss is no longer a number: going back to the last checkpoint with %g times "
        "the learning rate",
        training.rate,
    )
    _return(training, work, history)


def _return_smaller(training: _Training, work: Path, history: History) -> None:
    if processes.world() > 1:  # the others wait for this one: they cannot go back together
        raise InputError(
            f"{training.part} film(s) of {training.settings.size[0]} x {training.settings.size[1]} "
            "pixels, the share of one GPU, do not fit its memory: lower networks.<name>.batch_size "
            "or networks.<name>.size."
        ) from None
    smaller = -(-training.part // 2)
    if smaller < training.network.smallest_batch or smaller == training.part:
        raise InputError(
            f"Not even {training.part} film(s) of {training.settings.size[0]} x "
            f"{training.settings.size[1]} pixels fit the memory: lower networks.<name>.size or "
            "networks.<name>.width."
        ) from None
    training.part = smaller
    _LOG.warning("the memory is full: going on with %d film(s) at a time", smaller)
    if device().type == "cuda":
        torch.cuda.empty_cache()
    _return(training, work, history)


def _is_out_of_memory(error: Exception) -> bool:
    # What PyTorch raises on a CPU has no class of its own.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )


def _train_epoch(training: _Training, films: TrainingFilms, history: History) -> None:
    """One epoch and its row in the history.

    Raises:
        FloatingPointError: a loss or gradient is no number.
    """
    settings, epoch = training.settings, training.epoch
    torch.manual_seed(settings.seed + epoch + 1)  # dropout and sampled regions, also if resumed
    training.module.train()
    started = time.monotonic()
    clock, losses = _Clock(), defaultdict(float)
    steps = settings.epochs * settings.epoch_iterations
    batches = _batches(training, films)
    for number in range(settings.epoch_iterations):
        parts = next(batches)
        clock.lap("data")
        rate = settings.learning_rate * training.rate
        rate *= learning_rate_factor(epoch * settings.epoch_iterations + number, steps)
        found = _step(training, parts, rate, clock)
        for name, value in found.items():
            losses[name] += value / settings.epoch_iterations
        if processes.rank() == 0:
            history.progress(epoch + 1, number + 1, settings.epoch_iterations, sum(found.values()))
    if processes.rank():
        return
    history.add(
        epoch + 1,
        "train",
        sum(losses.values()),
        {},
        time.monotonic() - started,
        settings.epoch_iterations * settings.batch_size,
        times=clock.seconds,
        losses=dict(losses) if len(losses) > 1 else None,
        learning_rate=rate,
    )


def _step(training: _Training, parts: list[Any], rate: float, clock: _Clock) -> dict[str, float]:
    """One step of the optimiser; the losses by name, averaged over the batch."""
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.zero_grad(set_to_none=True)
    means: dict[str, float] = defaultdict(float)
    for batch, share in parts:
        with torch.autocast(
            device().type, training.network.precision, enabled=device().type == "cuda"
        ):
            losses = training.losses(batch)
        loss = sum(losses.values()) * share
        if not processes.agree(math.isfinite(float(loss.detach()))):
            raise FloatingPointError
        clock.lap("forward")
        training.scaler.scale(loss).backward()
        clock.lap("backward")
        for name, value in losses.items():
            means[name] += float(value.detach()) * share
    training.scaler.unscale_(training.optimizer)
    norm = nn.utils.clip_grad_norm_(training.module.parameters(), _GRADIENT_NORM)
    # The scaler leaves such a step out. Without it the weights would be lost, and the next
    # checkpoint with them. Processes share the gradient, and so agree.
    if not training.scaler.is_enabled() and not math.isfinite(float(norm)):
        raise FloatingPointError
    training.scaler.step(training.optimizer)
    training.scaler.update()
    if training.average is not None:
        training.average.update_parameters(training.module)
    clock.lap("step")
    return means


def _batches(training: _Training, films: TrainingFilms) -> Iterator[list[tuple[Any, float]]]:
    """The batches of an epoch, each in parts with their shares of it."""
    settings, network = training.settings, training.network
    passes = Passes(len(films), settings.epoch_iterations * settings.batch_size, settings.seed)
    passes.set_epoch(training.epoch)
    share = [
        draw for number, draw in enumerate(passes) if number % processes.world() == processes.rank()
    ]
    loader = DataLoader(
        Items(films, partial(network.example, settings=settings)),
        batch_size=settings.batch_size // processes.world(),
        sampler=share,
        num_workers=loader_workers(),
        collate_fn=partial(_in_parts, network, training.part),
        worker_init_fn=_compute_alone,
    )
    return iter(loader) if loader_workers() else _ahead(iter(loader))


def _compute_alone(worker: int) -> None:
    # There is a worker a core, and OpenCV's threads do not survive the fork that makes it.
    cv2.setNumThreads(0)


def _in_parts(network: Network, size: int, examples: list[Any]) -> list[tuple[Any, float]]:
    parts = [examples[start : start + size] for start in range(0, len(examples), size)]
    # A last part of one film would be too small for some networks.
    if len(parts) > 1 and len(parts[-1]) < network.smallest_batch:
        parts[-2:] = [parts[-2] + parts[-1]]
    return [(network.collate(part), len(part) / len(examples)) for part in parts]


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Make the next batch in a thread while the network computes: OpenCV and NumPy let it."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _validate(training: _Training, films: TrainingFilms, history: History) -> None:
    """Score the weights on the validation films and keep them where they are the best."""
    started = time.monotonic()
    training.judged.eval()
    loss, score = training.network.validate(training.judged, films, training.settings)
    passed = time.monotonic() - started
    history.add(training.epoch, "val", loss, {"dice": score}, passed, len(films))
    if history.best["epoch"] == training.epoch:
        state = training.judged.state_dict()
        training.best = {name: value.detach().cpu().clone() for name, value in state.items()}


def _move(
    decay: float,
    averages: list[torch.Tensor],
    values: list[torch.Tensor],
    count: torch.Tensor | int,
) -> None:
    """Move averages towards values, faster in the first steps, when the average knows little."""
    share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value.detach(), share)
        else:
            average.copy_(value)


class _Clock:
    """Seconds by what they went into."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(("data", "forward", "backward", "step"), 0.0)
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Count the time since the last lap as `name`."""
        if device().type == "cuda":
            torch.cuda.synchronize()  # it computes on after Python has gone on
        now = time.monotonic()
        self.seconds[name] += now - self._last
        self._last = now
