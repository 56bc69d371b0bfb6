"""Every configuration file builds a complete plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from harness import ROOT, Workflow

CONFIGS = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (ROOT / "config" / "presets").glob("*.yaml"))


def dry_run(folder: Path, config: dict) -> str:
    run = Workflow(folder, config).run("--dry-run")
    assert run.status == 0, run.output
    return run.output


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", CONFIGS)
def test_plan_trains_all_five_networks(name, preset, tmp_path):
    config = yaml.safe_load((ROOT / "config" / name).read_text())
    config["preset"] = preset
    if "folder" in config:
        # Films that exist, so that the plan does not depend on the data at hand.
        (tmp_path / "films").mkdir()
        (tmp_path / "project.json").write_text("{}")
        config["folder"]["path"] = "films"
        config["annotations"]["via"] = ["project.json"]
    output = dry_run(tmp_path, config)
    for model in ("unet", "mask_rcnn", "pspnet", "deeplabv3", "yolact"):
        assert f"models/{model}/model.pth" in output


def test_some_models_only(tmp_path):
    output = dry_run(tmp_path, {"models": ["unet"]})
    assert "models/unet/model.pth" in output
    assert "yolact" not in output


def test_seeds_and_folds_train_every_network_again(tmp_path):
    training = {"seeds": [0, 7], "folds": 3}
    output = dry_run(tmp_path, {"models": ["unet", "yolact"], "training": training})
    for model in ("unet", "yolact"):
        for replicate in ("seed0", "seed7", "fold1", "fold2", "fold3"):
            assert f"replicates/{model}/{replicate}/model.pth" in output
            assert f"replicates/{model}/{replicate}/predictions.parquet" in output
    assert "fold4" not in output


def test_training_asks_for_a_gpu_only_where_there_is_one_to_ask_for(tmp_path):
    always = dry_run(tmp_path / "always", {"training": {"gpu": "always"}})
    never = dry_run(tmp_path / "never", {"training": {"gpu": "never"}})
    assert "gpu=1," in always
    assert "gpu=1," not in never


def test_tuning_is_planned_on_demand_only(tmp_path):
    workflow = Workflow(tmp_path, {"models": ["unet", "yolact"]})
    assert "tune_network" not in workflow.run("--dry-run").output
    run = workflow.run("--dry-run", "--", "tune")
    assert run.status == 0, run.output
    for model in ("unet", "yolact"):
        assert f"tuning/{model}.yaml" in run.output
    assert "models/unet" not in run.output
