"""What training and prediction ask of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..train.films import TrainingFilms


@dataclass(frozen=True)
class Settings:
    """Settings of one network; see `networks` and `training` in the configuration's schema."""

    classes: list[str]
    foreground: list[str]
    backbone: str
    width: int
    weights: str | None
    size: tuple[int, int]  # rows, columns
    iterations: int
    epoch_iterations: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    moving_average: float  # decay a step; 0 for none
    seed: int
    augmentation: dict[str, float]
    normalisation: tuple[float, float]  # mean and standard deviation of the training films' grey
    anchors: dict[str, Any] | None = None  # see :mod:`lumbarflow.networks.anchors`

    @property
    def epochs(self) -> int:
        """Number of epochs, an epoch being `epoch_iterations` steps."""
        return max(1, round(self.iterations / self.epoch_iterations))

    @property
    def foreground_indices(self) -> list[int]:
        """Positions of the foreground classes within `classes`."""
        return [self.classes.index(name) for name in self.foreground]


@dataclass(frozen=True)
class Instance:
    """One predicted object: class, score (0..1) and mask (rows x columns of the film, bool)."""

    class_name: str
    score: float
    mask: np.ndarray


class Network(Protocol):
    """A network that can be trained and can predict."""

    precision: torch.dtype
    """Of mixed precision on a GPU."""

    memory_format: torch.memory_format
    """In which the module computes."""

    smallest_batch: int
    """Fewer films at a time cannot be normalised."""

    def build(self, settings: Settings, initialise: bool = False) -> nn.Module:
        """The module whose weights are trained and kept, with random weights if `initialise`."""

    def anchors(
        self, films: TrainingFilms, settings: Settings, kept: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """What a detector's boxes start from, from the training films; None for other networks.

        `kept` are those of the weights that the training begins with, if any.
        """

    def example(
        self,
        films: TrainingFilms,
        index: int,
        rng: np.random.Generator | None,
        *,
        settings: Settings,
    ) -> Any:
        """One film as the network learns from it, changed at random where `rng` is given."""

    def collate(self, examples: list[Any]) -> Any:
        """Examples as the batch that `losses` takes."""

    def losses(self, module: nn.Module, batch: Any, settings: Settings) -> dict[str, torch.Tensor]:
        """Losses of a batch by name, each a mean over its films; their sum is made small."""

    def validate(
        self, module: nn.Module, films: TrainingFilms, settings: Settings
    ) -> tuple[float | None, float]:
        """Mean loss, where there is one, and mean Dice (0..1) of the foreground over the films."""

    def choose(
        self, module: nn.Module, films: TrainingFilms, settings: Settings
    ) -> dict[str, float | list[float]]:
        """The thresholds (see `predict` in the configuration) that are best on validation films."""

    def predict(
        self,
        state: dict[str, Any],
        films: Iterator[tuple[str, np.ndarray]],
        settings: Settings,
        thresholds: dict[str, Any],
    ) -> Iterator[tuple[str, list[Instance]]]:
        """Yield the instances of each film.

        Args:
            state: the weights that training kept.
            films: pairs of image_id and film (rows x columns, uint8).
            settings: as in training.
            thresholds: `predict` of the configuration; what it leaves open as `choose` gave it.
        """


def device() -> torch.device:
    """The GPU where there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def parameter_count(state: dict[str, Any]) -> int:
    """Number of values in the weights, buffers of whole numbers not counted."""
    return sum(value.numel() for value in state.values() if value.is_floating_point())


def loader_workers() -> int:
    """Processes that prepare batches: none on a CPU, whose cores compute, some beside a GPU."""
    return min(8, max(0, torch.get_num_threads() - 1)) if torch.cuda.is_available() else 0
