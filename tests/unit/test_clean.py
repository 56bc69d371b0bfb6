"""tools/clean.py: says what it would delete, deletes nothing else, and that only on a word."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load():
    """Import tools/clean.py, which is no package."""
    spec = importlib.util.spec_from_file_location("clean", ROOT / "tools/clean.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


clean = load()


def write(path: Path, size: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Results of a run with one finished and one unfinished training, in a checkout of its own."""
    monkeypatch.setattr(clean, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in (
        "config.yaml",
        "images/manifest.parquet",
        "logs/train/unet.log",
        "models/unet/model.pth",
        "models/unet/checkpoints/a/last.pth",
        "models/unet/tensorboard/train/events",
        "models/yolact/checkpoints/a/last.pth",
        "replicates/unet/seed2/model.pth",
        "replicates/unet/seed2/checkpoints/a/last.pth",
        "replicates/unet/fold1/checkpoints/a/last.pth",
        "prepared/ready/train.npy",
        "prepared/coco/train.json",
    ):
        write(tmp_path / "results" / name)
    write(tmp_path / "archive/truth.json")
    write(tmp_path / "archive/objects/1.dcm")
    write(tmp_path / ".lumbarflow/pseudonym.key")
    return tmp_path


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


DELETED = {
    "clean": lambda name: name.startswith("results/"),
    "clean-models": lambda name: name.startswith(("results/models/", "results/replicates/")),
    "clean-spare": lambda name: name.startswith(
        (
            "results/models/unet/checkpoints",
            "results/models/unet/tensorboard",
            "results/replicates/unet/seed2/checkpoints",
            "results/prepared/ready",
        )
    ),
    "clean-archive": lambda name: name.startswith("archive/"),
}


@pytest.mark.parametrize("target", clean.TARGETS)
@pytest.mark.parametrize("word", ["", "yes", "Results"])
def test_without_the_word_it_only_says(folder, capsys, target, word):
    before = files(folder)
    assert clean.main([target, "--confirm", word]) == 0
    assert files(folder) == before
    said = capsys.readouterr().out
    assert "Nothing is deleted yet" in said and f"make {target} CONFIRM=" in said
    gone = [name for name in before if DELETED[target](name)]
    assert f"{len(gone)} files  in all" in said
    assert f"  {clean.human(100 * len(gone))}" in said


@pytest.mark.parametrize("target", clean.TARGETS)
def test_with_the_word_just_that_goes(folder, target):
    before = files(folder)
    word = "archive" if target == "clean-archive" else "results"
    assert clean.main([target, "--confirm", word]) == 0
    assert files(folder) == {name for name in before if not DELETED[target](name)}
    assert (folder / word).is_dir()


def test_no_folder_is_nothing_to_delete(folder, capsys):
    assert clean.main(["clean", "--folder", "absent", "--confirm", "absent"]) == 0
    assert "no folder absent" in capsys.readouterr().out


def test_a_folder_from_within_needs_its_name_too(folder, monkeypatch):
    monkeypatch.chdir(folder / "results")
    before = files(folder)
    assert clean.main(["clean", "--folder", ".", "--confirm", ""]) == 0
    assert files(folder) == before
    assert clean.main(["clean", "--folder", ".", "--confirm", "results"]) == 0
    assert files(folder) == {name for name in before if not DELETED["clean"](name)}


def test_a_second_time_there_is_nothing(folder, capsys):
    clean.main(["clean-spare", "--confirm", "results"])
    capsys.readouterr()
    assert clean.main(["clean-spare", "--confirm", "results"]) == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_other_results_folders(folder, capsys):
    (folder / "results").rename(folder / "results-clinic")
    assert clean.main(["clean", "--folder", "results-clinic", "--confirm", "results"]) == 0
    assert "make clean RESULTS=results-clinic CONFIRM=results-clinic" in capsys.readouterr().out
    assert (folder / "results-clinic/config.yaml").exists()
    assert clean.main(["clean", "--folder", "results-clinic", "--confirm", "results-clinic"]) == 0
    assert not any((folder / "results-clinic").iterdir())


def test_what_a_link_leads_to_stays(folder):
    (folder / "films").mkdir()
    write(folder / "films/1.png")
    (folder / "results/films").symlink_to(folder / "films")
    clean.main(["clean", "--confirm", "results"])
    assert (folder / "films/1.png").exists()
    assert not any((folder / "results").iterdir())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (".", "holds this checkout"),
        ("..", "holds this checkout"),
        (".lumbarflow", "nothing of a Lumbarflow results folder"),
        ("archive", "nothing of a Lumbarflow results folder"),
    ],
)
def test_other_folders_are_left_alone(folder, capsys, name, sentence):
    before = files(folder)
    assert clean.main(["clean", "--folder", name, "--confirm", Path(name).name]) == 1
    assert sentence in capsys.readouterr().err
    assert files(folder) == before


def test_nothing_goes_while_a_workflow_runs(folder, capsys):
    write(folder / ".snakemake/locks/0.output.lock")
    before = files(folder)
    assert clean.main(["clean", "--confirm", "results"]) == 1
    assert "workflow is running" in capsys.readouterr().err
    assert files(folder) == before


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (12_300, "12 kB"), (4_560_000_000, "4.6 GB")]
)
def test_sizes(size, text):
    assert clean.human(size) == text


@pytest.mark.parametrize("target", clean.TARGETS)
def test_make_has_the_targets(target):
    done = subprocess.run(
        ["make", "-n", target, "RESULTS=r", "ARCHIVE=r", "CONFIRM=c"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'tools/clean.py {target} --folder "r" --confirm "c"' in done.stdout
