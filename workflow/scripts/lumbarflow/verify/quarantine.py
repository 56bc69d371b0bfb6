"""Takes away what holds identifying values, so that nothing of it is used."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from .search import QUARANTINE, Finding

_TOLD_KINDS = 5


def quarantine(findings: Iterable[Finding], root: Path) -> InputError:
    """Move files and folders with a finding to `{root}/quarantine/`, which only its owner can read.

    What is moved keeps its relative path, unless a name in it is itself the leak: then it is
    numbered, `withheld-0001`.

    Args:
        findings: of :func:`lumbarflow.verify.search.search`, at least one.
        root: the results folder.

    Returns:
        The sentence that ends the run, for the caller to raise; it holds no value.
    """
    findings = list(findings)
    target = root / QUARANTINE
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o700)
    moved: set[Path] = set()
    # Folders come before what is in them, which goes with them.
    for found in sorted(findings, key=lambda found: len(found.path.parts)):
        if found.path in moved or moved.intersection(found.path.parents):
            continue
        withheld = any(other.in_name and other.path == found.path for other in findings)
        place = _free(target / ("withheld-0001" if withheld else found.place))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found.path, place)
        moved.add(found.path)
    kinds = Counter(found.kind for found in findings)
    told = ", ".join(kind for kind, _ in kinds.most_common(_TOLD_KINDS))
    more = f" and {len(kinds) - _TOLD_KINDS} more kinds" if len(kinds) > _TOLD_KINDS else ""
    files = f"{len(moved)} file" + ("s hold" if len(moved) != 1 else " holds")
    return InputError(
        f"Verification: {files} identifying values of the originals ({told}{more}) and "
        f"{'were' if len(moved) != 1 else 'was'} moved to {target}: the log tells which and where "
        "in them; report this as an error of the workflow, delete that folder, and do not pass on "
        "anything of these results before it is solved."
    )


def _free(path: Path) -> Path:
    """The path, or the next one that is not taken."""
    number = 1
    while path.exists() or path.is_symlink():
        number += 1
        stem = path.name.rpartition("-")[0] if number > 2 else path.name.removesuffix("-0001")
        path = path.with_name(f"{stem}-{number:04d}")
    return path
