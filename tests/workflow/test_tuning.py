"""The target `tune`: stopped and gone on with, its winner laid over the configuration."""

from __future__ import annotations

import json

import pandas as pd
import yaml
from harness import TINY, Workflow

TRIALS = 3


def test_a_search_goes_on_and_its_winner_is_a_configuration(tmp_path):
    tuning = {"trials": TRIALS, "iterations": 8}
    workflow = Workflow(tmp_path, TINY | {"models": ["unet"], "tuning": tuning})
    stopped = workflow.interrupt_when(f"trial 2 of {TRIALS}", "tune/unet.log", "--", "tune")
    assert stopped.status != 0
    assert "Traceback" not in stopped.output

    run = workflow.run("--", "tune")
    assert run.status == 0, run.output
    assert "tune_network unet" in run.jobs
    assert f"trial {TRIALS} of {TRIALS}" in run.output
    assert f"trial 1 of {TRIALS}" not in run.output
    folder = workflow.results / "tuning"
    trials = pd.read_parquet(folder / "trials.parquet")
    assert trials["trial"].tolist() == list(range(1, TRIALS + 1))
    assert json.loads((folder / "unet/data/coco/test.json").read_text())["images"] == []
    winner = yaml.safe_load((folder / "unet.yaml").read_text())["networks"]["unet"]
    best = trials[trials["winner"]].iloc[0]
    assert winner["learning_rate"] == best["learning_rate"]

    # A word that stands after the configuration file is a further one.
    assert workflow.run("results/tuning/unet.yaml", "--until", "resolved_config").status == 0
    resolved = yaml.safe_load((workflow.results / "config.yaml").read_text())
    assert winner.items() <= resolved["networks"]["unet"].items()
