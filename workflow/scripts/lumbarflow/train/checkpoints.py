"""Checkpoints of a training: written whole, and passed over where they cannot be read."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..files import atomic_path

_LOG = logging.getLogger(__name__)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, texts and containers of them to `path`, atomically."""
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load(path: Path) -> dict[str, Any] | None:
    """What :func:`save` wrote, its tensors on the CPU; None where there is no readable file.

    A file that a crash or a full disk has damaged is told in the log: the training starts anew.
    """
    if not path.exists():
        return None
    if not _is_whole(path):
        _LOG.warning("the checkpoint %s is not readable: starting anew", path)
        return None
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_whole(path: Path) -> bool:
    # PyTorch writes ZIP archives, with a checksum of every member.
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile raises all kinds, according to where the damage lies
        return False
