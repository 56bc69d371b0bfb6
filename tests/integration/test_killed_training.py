"""Trainings killed at random moments end with the weights of one that was not, bit for bit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_films
import torch

from lumbarflow.train import run

ROOT = Path(__file__).parents[2]
KILLS = 10

TRAIN = """
import json, logging, sys
from pathlib import Path
import tiny_films
from lumbarflow.train.run import train

model, data, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
outputs = {name: folder / name for name in ("weights", "history", "record")}
train(model, data / "prepared" / "coco", data / "prepared" / "masks", data / "png",
      tiny_films.parameters(iterations=24), 1, outputs, folder / "checkpoints",
      logging.getLogger())
"""


def start(model: str, data: Path, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, model, str(data), str(folder)],
        env={
            "PYTHONPATH": f"{ROOT / 'workflow' / 'scripts'}:{ROOT / 'tests'}",
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
        },
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("model", ["unet", "mask_rcnn"])
def test_killed_at_random_moments(model, tmp_path):
    tiny_films.write(tmp_path / "data")
    (tmp_path / "straight").mkdir()
    (tmp_path / "killed").mkdir()
    process = start(model, tmp_path / "data", tmp_path / "straight")
    assert process.wait() == 0, process.stderr.read()

    choice = random.Random(7)
    killed = 0
    while True:
        process = start(model, tmp_path / "data", tmp_path / "killed")
        checkpoints = tmp_path / "killed" / "checkpoints"
        before = stamp(checkpoints)
        # The next moment is somewhere in the two epochs after the first checkpoint, so that each
        # start gets on and none only imports.
        while process.poll() is None and stamp(checkpoints) == before:
            time.sleep(0.005)
        if killed < KILLS:
            time.sleep(choice.uniform(0, 0.4))
            process.kill()
        if process.wait() == 0:
            break
        assert process.returncode == -9, process.stderr.read()
        killed += 1
    assert killed >= KILLS / 2  # the others came too late

    straight, resumed = (
        run.read_weights(tmp_path / name / "weights").state for name in ("straight", "killed")
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "history").open()]
        for name in ("straight", "killed")
    ]
    assert losses[0] == losses[1]


def stamp(checkpoints: Path) -> tuple:
    """Changes with each checkpoint."""
    return tuple(path.stat().st_mtime_ns for path in sorted(checkpoints.glob("*/last.pth")))
