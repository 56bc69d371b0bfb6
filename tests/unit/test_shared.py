"""The modules that all parts share: whole files, RLE, digests of code, jobs and their logs."""

from __future__ import annotations

import ast
import errno
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lumbarflow import code, files, gpu, jobs, rle
from lumbarflow.errors import InputError

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow/scripts"
unhurried = settings(max_examples=100, deadline=None)


# Files -----------------------------------------------------------------------------------------


def write_and_fail(path: Path, error: BaseException) -> None:
    with files.atomic_path(path) as temporary:
        temporary.write_text("half of the new")
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("old", ["the old", None])
def test_a_failing_block_leaves_what_was_there(tmp_path, error, old):
    path = tmp_path / "table.parquet"
    if old is not None:
        path.write_text(old)
    with pytest.raises(type(error)):
        write_and_fail(path, error)
    assert [p.name for p in tmp_path.iterdir()] == (["table.parquet"] if old else [])
    assert old is None or path.read_text() == old


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "picture.png"
    with files.atomic_path(str(path)) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".png"
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence_and_the_old_file_stays(tmp_path, number):
    path = tmp_path / "file"
    path.write_text("the old")
    with pytest.raises(InputError, match=f"disk is full while writing {path}.*`results`"):
        write_and_fail(path, OSError(number, os.strerror(number)))
    assert path.read_text() == "the old" and list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(tmp_path):
    with pytest.raises(PermissionError):
        write_and_fail(tmp_path / "file", PermissionError(errno.EACCES, "denied"))


WRITERS = {
    "bytes": lambda path: files.write_bytes(path, bytes(300_000)),
    "text": lambda path: files.write_text(path, "x" * 300_000),
    "json": lambda path: files.write_json(path, list(range(100_000))),
    "png": lambda path: files.write_png(
        path, np.random.default_rng(0).integers(0, 256, (600, 600), np.uint8)
    ),
    "table": lambda path: files.write_table(
        path, pd.DataFrame({"x": np.random.default_rng(0).random(60_000)})
    ),
}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "run these tests as root"
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        assert os.environ.get("CI") != "true", done.stderr
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_really_full_disk(small_disk, kind):
    path = small_disk / "file.png"
    path.write_bytes(b"the old")
    with pytest.raises(InputError, match=f"disk is full while writing {path}"):
        WRITERS[kind](path)
    assert path.read_bytes() == b"the old"
    assert list(small_disk.iterdir()) == [path]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@unhurried
@given(json_values)
def test_json_comes_back_and_is_written_one_way(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    first = path.read_bytes()
    if isinstance(value, dict):
        value = dict(reversed(value.items()))
    files.write_json(path, value)
    assert path.read_bytes() == first


@unhurried
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_pictures_come_back(tmp_path_factory, image):
    path = tmp_path_factory.getbasetemp() / "image.png"
    files.write_png(path, image)
    np.testing.assert_array_equal(files.read_grey(path), image)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_what_is_no_picture_is_a_sentence(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} is not a readable image"):
        files.read_grey(path)
    path.unlink()
    with pytest.raises(InputError, match=f"{path} is missing"):
        files.read_grey(path)


def test_tables_come_back(tmp_path):
    table = pd.DataFrame({"a": [1, None], "b": ["x", None]}).astype({"a": "Int64", "b": "string"})
    files.write_table(tmp_path / "t.parquet", table)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)


# RLE -------------------------------------------------------------------------------------------

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=30))


@unhurried
@given(masks, st.sampled_from(["C", "F"]), st.booleans())
def test_masks_come_back_from_rle(mask, order, as_numbers):
    given_ = np.array(mask, np.uint8 if as_numbers else bool, order=order)
    counts = rle.encode(given_)
    assert isinstance(counts, str) and counts.isascii()
    decoded = rle.decode(counts, *mask.shape)
    assert decoded.dtype == bool and decoded.shape == mask.shape
    np.testing.assert_array_equal(decoded, mask)


def test_rle_of_a_worked_case():
    """Column by column: 5 pixels off, 2 on, 2 off; each count as one character from '0' on."""
    mask = np.zeros((3, 3), bool)
    mask[2, 1] = mask[0, 2] = True
    assert rle.encode(mask) == "522"


# Digests of code -------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package and its scripts that may be changed."""
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "_PACKAGE", scripts / "lumbarflow")
    code._imports.cache_clear()
    yield scripts
    code._imports.cache_clear()


def digest_of(scripts: Path, name: str, *modules: str) -> str:
    code._imports.cache_clear()
    return code.digest(scripts / name, *modules)


def change(path: Path) -> None:
    path.write_text(path.read_text() + "\n# changed\n")


@pytest.mark.parametrize(
    ("script", "module", "matters"),
    [
        ("retrieve.py", "acquire/retrieve.py", True),
        ("retrieve.py", "deidentify/pseudonyms.py", True),
        ("retrieve.py", "acquire/render.py", True),  # by way of films
        ("retrieve.py", "acquire/__init__.py", True),
        ("retrieve.py", "jobs.py", True),
        ("retrieve.py", "errors.py", True),
        ("retrieve.py", "evaluate/metrics.py", False),
        ("retrieve.py", "networks/unet.py", False),
        ("retrieve.py", "config.py", False),
        ("evaluate.py", "evaluate/metrics.py", True),
        ("evaluate.py", "runs.py", True),
        ("evaluate.py", "acquire/render.py", False),
    ],
)
def test_a_digest_changes_with_the_modules_that_a_script_runs(package, script, module, matters):
    before = digest_of(package, script)
    assert before == digest_of(package, script) and len(before) == 16
    change(package / "lumbarflow" / module)
    assert (digest_of(package, script) != before) == matters


def test_modules_that_are_loaded_by_name_count(package):
    unet, yolact = (digest_of(package, "train.py", f"networks/{n}.py") for n in ("unet", "yolact"))
    assert unet != yolact
    change(package / "lumbarflow/networks/yolact.py")
    assert digest_of(package, "train.py", "networks/unet.py") == unet
    assert digest_of(package, "train.py", "networks/yolact.py") != yolact
    change(package / "lumbarflow/networks/semantic.py")
    assert digest_of(package, "train.py", "networks/unet.py") != unet


def test_every_form_of_import_is_followed(package):
    forms = {
        "from lumbarflow import rle": True,
        "from lumbarflow.rle import encode": True,
        "import lumbarflow.rle": True,
        "import lumbarflow.rle as masks": True,
        "def later():\n    from lumbarflow import rle": True,
        "if TYPE_CHECKING:\n    from lumbarflow import rle": False,
        "import numpy": False,
        "from lumbarflow import gpu": False,
        "import lumbarflow_rle": False,
    }
    for text, matters in forms.items():
        rle_file = package / "lumbarflow/rle.py"
        (package / "one.py").write_text(text)
        before = digest_of(package, "one.py")
        change(rle_file)
        assert (digest_of(package, "one.py") != before) == matters, text


def test_the_script_of_a_training_begins_nothing_where_it_is_imported():
    # As the processes of several GPUs do.
    imported, works = [], []
    for node in ast.parse((SCRIPTS / "train.py").read_text(encoding="utf-8")).body:
        (imported if isinstance(node, ast.Import | ast.ImportFrom) else works).append(node)
    assert imported
    assert [ast.unparse(node.test) for node in works] == ["__name__ == '__main__'"]


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_every_script_has_a_digest(script):
    code._imports.cache_clear()
    assert int(code.digest(script), 16) >= 0


# Jobs ------------------------------------------------------------------------------------------

BODY = """
import sys, logging, warnings
from types import SimpleNamespace
sys.path.insert(0, {scripts!r})
from lumbarflow.errors import InputError
from lumbarflow.jobs import job
with job(SimpleNamespace(log=[{log!r}], rule="a_rule")) as log:
    log.info("started")
    {body}
"""


def run(tmp_path: Path, body: str) -> tuple[subprocess.CompletedProcess, str]:
    log = tmp_path / "logs" / "rule.log"
    script = BODY.format(scripts=str(SCRIPTS), log=str(log), body=body)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done, log.read_text()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise InputError('first line\\nand  more.')", "first line and more."),
        ("raise OSError(28, 'No space', 'some.png')", "The disk is full while writing some.png:"),
        ("raise OSError(122, 'Quota')", "The disk is full: free some space"),
    ],
)
def test_bad_input_ends_with_one_sentence(tmp_path, body, sentence):
    done, log = run(tmp_path, body)
    assert done.returncode == 1
    for text in (done.stderr, log):
        lines = text.splitlines()
        assert lines[-1].startswith(jobs.ERROR_PREFIX + sentence)
        assert sum(line.startswith(jobs.ERROR_PREFIX) for line in lines) == 1
        assert "Traceback" not in text and "started" in text
    assert jobs.sentences(tmp_path, 0) == [log.splitlines()[-1]]


@pytest.mark.parametrize("error", ["ValueError('x')", "OSError(13, 'denied')"])
def test_a_mistake_in_the_code_keeps_its_traceback(tmp_path, error):
    done, _ = run(tmp_path, f"raise {error}")
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert jobs.sentences(tmp_path, 0) == []


def test_a_job_that_ends_well_has_no_sentence(tmp_path):
    done, log = run(tmp_path, "log.info('done')")
    assert done.returncode == 0 and "done" in log and "done" in done.stderr
    assert jobs.sentences(tmp_path, 0) == []


def test_dicom_libraries_are_silenced(tmp_path):
    """They quote what they meet."""
    body = """
    from pydicom.dataset import Dataset
    for name in ("pydicom", "pynetdicom", "pynetdicom.acse", "pydicom.pixels.decoders.base"):
        logging.getLogger(name).critical("QZsecretXW")
    dataset = Dataset()
    dataset.PatientBirthDate = "QZsecretXW"
    dataset.Modality = "QZsecretXW"
    import pynetdicom.utils
    pynetdicom.utils.LOGGER.error("QZsecretXW")
    log.info("done")
    """
    done, log = run(tmp_path, body.strip())
    assert done.returncode == 0, done.stderr
    assert "done" in log
    assert "QZsecretXW" not in done.stdout + done.stderr + log


def test_only_logs_of_this_run_are_repeated(tmp_path):
    old, new = tmp_path / "old.log", tmp_path / "deep" / "new.log"
    new.parent.mkdir()
    old.write_text(f"{jobs.ERROR_PREFIX}old\n")
    os.utime(old, (1000, 1000))
    new.write_text(f"12:00:00 fine\n{jobs.ERROR_PREFIX}new\nother\n")
    (tmp_path / "binary.log").write_bytes(b"\xff\xfe\n")
    assert jobs.sentences(tmp_path, time.time() - 60) == [f"{jobs.ERROR_PREFIX}new"]
    assert jobs.sentences(tmp_path, time.time() + 60) == []
    assert jobs.sentences(tmp_path / "absent", 0) == []


def test_job_in_this_process(tmp_path):
    """A sentence is raised as SystemExit, also where the log cannot take it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    dicom = {name: logging.getLogger(name) for name in ("pydicom", "pynetdicom")}
    kept = {name: (logger.handlers[:], logger.propagate) for name, logger in dicom.items()}
    log_file = tmp_path / "a.log"
    try:
        with (
            warnings.catch_warnings(),
            pytest.raises(SystemExit) as caught,
            jobs.job(SimpleNamespace(log=[str(log_file)], rule="a_rule")),
        ):
            log_file.unlink()
            log_file.mkdir()
            raise InputError("x.")
        assert caught.value.code == 1
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:], root.level = handlers, level
        for name, logger in dicom.items():
            logger.handlers[:], logger.propagate = kept[name]


# GPU -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "present"),
    [
        ("echo 'GPU 0: Some (UUID: x)'", True),
        ("echo 'No devices were found'; exit 6", False),
        ("echo 'GPU 0: broken driver'; exit 9", False),
        ("true", False),
        (None, False),
    ],
)
def test_a_gpu_is_what_the_driver_lists(tmp_path, monkeypatch, script, present):
    if script is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.present() is present


SMI = '#!/bin/sh\nfor i in 0 1 2 3; do echo "GPU $i: Some (UUID: GPU-$i)"; done\n'
HOLD = """
import os, sys
sys.path.insert(0, {scripts!r})
from lumbarflow import gpu
gpu.use({granted})
print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def job_on_gpus(tmp_path):
    """Start a job that takes GPUs of a machine with four, and stays; its GPUs and the process."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    started = []

    def start(granted: int, **environment: str):
        kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(scripts=str(SCRIPTS), granted=granted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | paths | environment,
        )
        started.append(process)
        return process.stdout.readline().strip(), process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_jobs_that_run_at_a_time_have_gpus_of_their_own(job_on_gpus):
    first, process = job_on_gpus(1)
    second, _ = job_on_gpus(1)
    both, _ = job_on_gpus(2)
    assert [first, second, both] == ["GPU-0", "GPU-1", "GPU-2,GPU-3"]
    assert job_on_gpus(1)[0] == "all"  # shared where none is free
    process.kill()
    process.wait()
    assert job_on_gpus(1)[0] == "GPU-0"


def test_a_job_takes_gpus_among_those_that_are_named(job_on_gpus):
    assert [job_on_gpus(1, CUDA_VISIBLE_DEVICES="3, 1")[0] for _ in range(2)] == ["3", "1"]


@pytest.mark.parametrize(
    ("granted", "named", "seen"),
    [
        (0, None, ""),
        (0, "0,1", ""),
        (1, "2", "2"),
        (2, "2,3", "2,3"),
        (4, None, "all"),
        (1, "", ""),
    ],
)
def test_nothing_is_chosen_where_there_is_no_choice(job_on_gpus, tmp_path, granted, named, seen):
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert job_on_gpus(granted, **environment)[0] == seen
    assert not list(tmp_path.glob("lumbarflow-gpus-*"))
