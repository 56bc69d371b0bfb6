"""Digests of the package code behind a script, which Snakemake's own code trigger does not see."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


def digest(script: str | Path, *modules: str) -> str:
    """A digest (16 hexadecimal digits) of the package modules that a script runs.

    Args:
        script: a script beside the package; its imports are followed through the package.
        modules: further modules, loaded by name (for example `networks/unet.py`).
    """
    start = [*_imports(Path(script)), *(_PACKAGE / module for module in modules)]
    found: set[Path] = set()
    while start:
        path = start.pop()
        if path not in found:
            found.add(path)
            start += _imports(path)
    result = hashlib.sha256()
    for path in sorted(found):
        result.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return result.hexdigest()[:16]


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Files of the package that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = path.parents[node.level - 1]
        elif (node.module or "").split(".")[0] == _PACKAGE.name:
            base = _PACKAGE.parent
        else:
            continue
        base = base.joinpath(*(node.module or "").split("."))
        for target in (base, *(base / alias.name for alias in node.names)):
            for file in (target.with_suffix(".py"), target / "__init__.py"):
                if file.exists():
                    found.append(file)
    return tuple(found)
