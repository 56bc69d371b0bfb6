"""The networks that are compared: one file each, found by name.

A further network is one file here with a `NETWORK` (see :mod:`lumbarflow.networks.base`) and one
entry under `networks` in the configuration.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is not in every environment
    from .base import Network

_NOT_NETWORKS = {"__init__", "base", "semantic", "detection", "anchors", "pretrained"}


def available() -> list[str]:
    """Names of the networks that exist as code, without importing them."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if file.stem not in _NOT_NETWORKS)


def load(name: str) -> Network:
    """The network called `name`."""
    return importlib.import_module(f"{__name__}.{name}").NETWORK


def family(name: str) -> str | None:
    """`semantic` or `instance`, by the module that the network's file is made from; None of others.

    Told without importing the network, which not every environment can.
    """
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    families = {"semantic": "semantic", "detection": "instance"}
    return next((kind for base, kind in families.items() if base in imported), None)
