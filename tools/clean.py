"""Delete what the workflow made, after saying what that is and how large.

    python3 tools/clean.py clean            everything in the results folder
    python3 tools/clean.py clean-models     the trained networks
    python3 tools/clean.py clean-spare      what no step needs again: nothing has to be made anew
    python3 tools/clean.py clean-archive    the synthetic films of the embedded archive

Nothing is deleted unless --confirm repeats the name of the folder. Needs the standard library only.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TARGETS = {
    "clean": "everything in it; the next run starts from the archive or the folder of films",
    "clean-models": "trained networks; the next run trains them anew",
    "clean-spare": "checkpoints and curves of finished trainings, films ready in memory; nothing "
    "runs again",
    "clean-archive": "the synthetic films of the embedded archive; the next demo makes them anew",
}
# What a results folder holds in any state, and an archive's folder.
MARKS = {"results": ("config.yaml", "images", "incoming", "logs"), "archive": ("truth.json",)}


class CleanError(Exception):
    """Nothing can be deleted; the message is one sentence for the user."""


def chosen(target: str, folder: Path) -> list[Path]:
    """The files and folders that a target deletes, sorted.

    Args:
        target: a key of `TARGETS`.
        folder: the results folder, or the archive's.
    """
    if target in ("clean", "clean-archive"):
        return sorted(folder.iterdir())
    if target == "clean-models":
        return [path for path in (folder / "models", folder / "replicates") if path.exists()]
    # Where there are no weights yet, the checkpoints are the only copy of the work so far.
    finished = [*folder.glob("models/*/model.pth"), *folder.glob("replicates/*/*/model.pth")]
    spare = [path.parent / name for path in finished for name in ("checkpoints", "tensorboard")]
    return sorted(path for path in [folder / "prepared/ready", *spare] if path.exists())


def check(target: str, folder: Path) -> None:
    """Raise CleanError where `folder` is not what the target cleans, or is in use."""
    kind = "archive" if target == "clean-archive" else "results"
    place = folder.resolve()
    if place == ROOT or place in ROOT.parents:
        raise CleanError(f"{folder} holds this checkout: name the {kind} folder itself.")
    if any(place.iterdir()) and not any((place / mark).exists() for mark in MARKS[kind]):
        raise CleanError(
            f"{folder} has nothing of a Lumbarflow {kind} folder "
            f"({', '.join(MARKS[kind])}): nothing is deleted there."
        )
    locks = ROOT / ".snakemake/locks"
    if locks.is_dir() and any(locks.iterdir()):
        raise CleanError(
            "a workflow is running in this folder, or was killed: wait for its end, or after a "
            "kill start `snakemake --unlock`, then clean again."
        )


def size_of(path: Path) -> tuple[int, int]:
    """Files below a path, itself where it is one, and their bytes; links count as themselves."""
    whole = path.is_dir() and not path.is_symlink()
    files = [file for file in path.rglob("*") if not file.is_dir()] if whole else [path]
    return len(files), sum(file.lstat().st_size for file in files)


def human(size: int) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def table(paths: list[Path], folder: Path) -> str:
    """One line for each path with its size and number of files, and a line for all."""
    sizes = [size_of(path) for path in paths]
    rows = [
        f"  {human(size):>8}  {count:>7} files  {path.relative_to(folder)}"
        for path, (count, size) in zip(paths, sizes, strict=True)
    ]
    count, size = (sum(column) for column in zip(*sizes, strict=True))
    return "\n".join([*rows, f"  {human(size):>8}  {count:>7} files  in all"])


def delete(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description="Delete what the workflow made.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--folder", default="", help="results folder, or the archive's")
    parser.add_argument("--confirm", default="", help="the folder's name, to delete indeed")
    given = parser.parse_args(arguments)
    default = "archive" if given.target == "clean-archive" else "results"
    folder = Path(given.folder or default)
    if not folder.is_dir():
        print(f"There is no folder {folder}: nothing to delete.")
        return 0
    word = folder.absolute().name
    try:
        check(given.target, folder)
        paths = chosen(given.target, folder)
    except CleanError as error:
        print(f"lumbarflow: {error}", file=sys.stderr)
        return 1
    if not paths:
        print(f"{folder} has nothing of this kind: nothing to delete.")
        return 0
    print(f"{folder.resolve()}: {TARGETS[given.target]}\n{table(paths, folder)}")
    if given.confirm != word:
        variable = "" if folder == Path(default) else f" {default.upper()}={folder}"
        print(f"Nothing is deleted yet. If it is meant: make {given.target}{variable} ", end="")
        print(f"CONFIRM={word}")
        return 0
    for path in paths:
        delete(path)
    print("Deleted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
