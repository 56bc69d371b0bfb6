"""Ctrl-C during training, then the same command."""

from __future__ import annotations

import copy
import json

import pytest
from harness import TINY, Workflow, times

EPOCHS = 30


@pytest.mark.parametrize("model", ["unet", "mask_rcnn"])
def test_training_goes_on_and_finished_work_stays(model, tmp_path):
    config = copy.deepcopy(TINY)
    config["models"] = [model]
    config["networks"][model] |= {"iterations": EPOCHS, "epoch_iterations": 1}
    workflow = Workflow(tmp_path, config)
    stopped = workflow.interrupt_when(f"epoch 2 of {EPOCHS}", f"train/{model}.log")
    assert stopped.status != 0
    assert "Traceback" not in stopped.output
    before = times(workflow.results)

    run = workflow.run()
    assert run.status == 0, run.output
    assert "going on after epoch" in run.output
    assert not {"synthetic_cohort", "retrieve", "read_annotations", "split", "prepare"} & run.ran
    after = times(workflow.results)
    kept = [path for path in before if path.startswith(("images/", "prepared/", "annotations/"))]
    assert kept
    assert all(after[path] == before[path] for path in kept)
    rows = (workflow.results / f"models/{model}/history.jsonl").read_text().splitlines()
    epochs = [row["epoch"] for row in map(json.loads, rows) if row["split"] == "val"]
    assert epochs == list(range(1, EPOCHS + 1))
