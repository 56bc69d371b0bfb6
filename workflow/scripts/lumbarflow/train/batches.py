"""Which films make up an epoch, reproducibly also after a resumption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from .films import TrainingFilms


class Draw(NamedTuple):
    """One film of an epoch: its index and the seed of its augmentation."""

    film: int
    seed: tuple[int, int, int]


class Passes(Sampler[Draw]):
    """`length` films an epoch, in random order, each pass over all films before the next one.

    The order depends on the seed and the epoch alone, so that a resumed training goes on as an
    uninterrupted one would.
    """

    def __init__(self, films: int, length: int, seed: int):
        self.films, self.length, self.seed = films, length, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        first = self.epoch * self.length
        for position in range(first, first + self.length):
            passed, place = divmod(position, self.films)
            order = np.random.default_rng((self.seed, passed)).permutation(self.films)
            yield Draw(int(order[place]), (self.seed, self.epoch, position))


class Items(Dataset):
    """`make(films, index, rng)` for each draw of :class:`Passes`, or in order without `rng`."""

    def __init__(self, films: TrainingFilms, make: Callable[..., Any]):
        self.films, self.make = films, make

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, draw: Draw | int) -> Any:
        if isinstance(draw, Draw):
            return self.make(self.films, draw.film, np.random.default_rng(draw.seed))
        return self.make(self.films, draw, None)


def dice(reference: np.ndarray, predicted: np.ndarray) -> float:
    """Dice coefficient of two masks (bool); 1 where both are empty."""
    total = int(reference.sum()) + int(predicted.sum())
    return 2 * int((reference & predicted).sum()) / total if total else 1.0
