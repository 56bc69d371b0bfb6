"""Digests of what Snakemake's own triggers do not see: package code, and files in a folder."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


def closure(script: str | Path, *modules: str) -> list[Path]:
    """The files of the package that a script runs, sorted.

    Args:
        script: a script beside the package; its imports are followed through the package.
        modules: further files of the package, loaded by name (for example `networks/unet.py`).
    """
    start = [*_imports(Path(script)), *(_PACKAGE / module for module in modules)]
    found: set[Path] = set()
    while start:
        path = start.pop()
        if path not in found:
            found.add(path)
            start += _imports(path) if path.suffix == ".py" else ()
    return sorted(found)


def digest(script: str | Path, *modules: str) -> str:
    """A digest (16 hexadecimal digits) of the files that :func:`closure` finds."""
    result = hashlib.sha256()
    for path in closure(script, *modules):
        result.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return result.hexdigest()[:16]


def folder_digest(folder: str | Path) -> str:
    """A digest (16 hexadecimal digits) of the names, sizes and times of the files in a folder.

    It stands for them as a parameter, so that their names, which may identify, are not recorded.
    """
    result = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            state = path.stat()
            result.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return result.hexdigest()[:16]


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Files of the package that a file imports."""
    targets: list[Path] = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in set(ast.walk(tree)) - _not_run(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            targets += [_PACKAGE.parent.joinpath(*name) for name in names if _ours(name)]
        elif isinstance(node, ast.ImportFrom):
            name = (node.module or "").split(".")
            if node.level or _ours(name):
                start = path.parents[node.level - 1] if node.level else _PACKAGE.parent
                base = start.joinpath(*name)
                targets += [base, *(base / alias.name for alias in node.names)]
    files = {path.with_suffix(".py") for path in targets}
    # Importing a module runs its packages first.
    files |= {folder / "__init__.py" for path in targets for folder in (path, path.parent)}
    return tuple(sorted(file for file in files if file.exists()))


def _not_run(tree: ast.Module) -> set[ast.AST]:
    """What is there for type checkers alone."""
    return {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }


def _ours(name: list[str]) -> bool:
    return name[0] == _PACKAGE.name
