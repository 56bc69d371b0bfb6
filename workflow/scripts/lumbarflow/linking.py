"""Folders that hold the same files twice, so that a job which makes one anew keeps what is equal.

Snakemake deletes the output folder of a job that starts. A twin of it keeps the files: what has
not changed is the same file afterwards, with its inode and time.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_files(source: str | Path, target: str | Path, pattern: str) -> None:
    """Make the files of `target` that match `pattern` those of `source`, as links to them.

    Files are linked, not copied, where the file system has hard links: writers must replace files
    as :mod:`lumbarflow.files` does, never change them in place. A `source` that is not there
    leaves `target` empty.
    """
    source, target = Path(source), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in source.glob(pattern)} if source.is_dir() else {}
    for path in target.glob(pattern):
        if path.name not in wanted or not path.samefile(wanted[path.name]):
            path.unlink()
    for name, path in wanted.items():
        if not (target / name).exists():
            link(path, target / name)


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no links."""
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    temporary.replace(target)
