"""What training and prediction ask of a network."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import InputError
from ..train.films import TrainingFilms
from ..train.history import History


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
    seed: int
    augmentation: dict[str, float]

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

    def fit(
        self,
        train: TrainingFilms,
        validation: TrainingFilms,
        settings: Settings,
        work: Path,
        history: History,
    ) -> dict[str, Any]:
        """Train, or go on from the last checkpoint in `work`, and return the best state dict.

        The epoch with the best validation Dice of the foreground is kept. `history` gets a row a
        split and epoch.
        """

    def predict(
        self,
        state: dict[str, Any],
        films: Iterator[tuple[str, np.ndarray]],
        settings: Settings,
        thresholds: dict[str, float],
    ) -> Iterator[tuple[str, list[Instance]]]:
        """Yield the instances of each film.

        Args:
            state: the weights that `fit` returned.
            films: pairs of image_id and film (rows x columns, uint8).
            settings: as in training.
            thresholds: `predict` of the configuration.
        """


def device() -> torch.device:
    """The GPU where there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def fetching_weights(settings: Settings) -> Iterator[None]:
    """Turn a failing download of pretrained weights into a sentence.

    Raises:
        InputError: the weights cannot be fetched.
    """
    try:
        yield
    except OSError as error:
        if settings.weights is None or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"The {settings.weights} weights of {settings.backbone} cannot be fetched "
            f"({type(error).__name__}): connect to the network once, or set "
            "networks.<name>.weights to null to train from scratch, which takes more iterations."
        ) from None


def parameter_count(state: dict[str, Any]) -> int:
    """Number of values in the weights, buffers of whole numbers not counted."""
    return sum(value.numel() for value in state.values() if value.is_floating_point())


def loader_workers() -> int:
    """Processes that prepare batches: none on a CPU, whose cores compute, some beside a GPU."""
    return min(8, max(0, torch.get_num_threads() - 1)) if torch.cuda.is_available() else 0
