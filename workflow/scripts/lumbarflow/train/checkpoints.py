"""Checkpoints of a training: written whole, and passed over where they cannot be read."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..files import atomic_path

LAST, BEFORE = "last.pth", "before.pth"
"""In a training's folder: the checkpoint of the last epoch, and that of the epoch before."""

START = "start.pth"
"""In a training's folder: the weights that it began with (`state_dict`), and what they had seen."""

_LOG = logging.getLogger(__name__)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, texts and containers of them to `path`, atomically."""
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load(path: Path) -> dict[str, Any] | None:
    """What :func:`save` wrote, its tensors on the CPU; None where there is no readable file.

    A file that a crash or a full disk has damaged is told in the log.
    """
    if not path.exists():
        return None
    if not _is_whole(path):
        _LOG.warning("the checkpoint %s is not readable: doing without it", path)
        return None
    return torch.load(path, map_location="cpu", weights_only=True)


def latest(work: Path) -> dict[str, Any] | None:
    """The latest readable checkpoint of the training in `work`, None where there is none."""
    for name in (LAST, BEFORE):
        if (saved := load(work / name)) is not None:
            return saved
    return None


def save_latest(work: Path, content: dict[str, Any]) -> None:
    """Write the checkpoint of the training in `work`, and keep the one before."""
    with atomic_path(work / LAST) as temporary:
        torch.save(content, temporary)
        if (work / LAST).exists():
            (work / LAST).replace(work / BEFORE)


def begin(model: torch.nn.Module, work: Path) -> None:
    """Load the weights that a training in `work` shall begin with, where there are any.

    Weights of another shape are told in the log and passed over.
    """
    saved = load(work / START)
    if saved is None:
        return
    own, previous = model.state_dict(), saved["state_dict"]
    shapes = [{name: value.shape for name, value in state.items()} for state in (own, previous)]
    if shapes[0] != shapes[1]:
        _LOG.warning("the previous weights do not fit the network: starting anew")
        return
    model.load_state_dict(previous)
    _LOG.info("starting from the previous weights")


def _is_whole(path: Path) -> bool:
    # PyTorch writes ZIP archives, with a checksum of every member.
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile raises all kinds, according to where the damage lies
        return False
