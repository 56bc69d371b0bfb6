"""profiles/: Snakemake takes every line of them, and they name rules and resources that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from snakemake.cli import parse_args

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*/profile.yaml"))
WRITTEN = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
RULES = set(re.findall(r"^ *(?:rule|checkpoint) (\w+):", WRITTEN, re.MULTILINE))
RULES |= set(re.findall(r"^ *use rule \w+ as (\w+) with:", WRITTEN, re.MULTILINE))
# Rules name these alone; sites name the rest.
RESOURCES = {"gpu", "mem_mb", "runtime"}
EXECUTORS = {"slurm": {"slurm_account", "slurm_partition", "gpu_model"}}


def loaded(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def blocks(pattern: str) -> list[str]:
    """The bodies of the directive whose line matches `pattern`, in all rules."""
    found = []
    for indent, body in re.findall(rf"^( +){pattern}\n((?:\1 +.*\n)+)", WRITTEN, re.MULTILINE):
        first = re.escape(indent) + r"    "
        found.append("".join(re.findall(rf"^{first}(\S.*\n)", body, re.MULTILINE)))
    return found


def test_profiles_are_found():
    assert {path.parent.name for path in PROFILES} >= {"default", "slurm", "workstation"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_snakemake_takes_every_key(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, arguments = parse_args(["--workflow-profile", str(path.parent)])
    for key, value in loaded(path).items():
        read = getattr(arguments, key.replace("-", "_"))
        if isinstance(value, bool | int) or key == "executor":
            assert read == value or str(read) == str(value), key


def test_a_key_that_snakemake_does_not_know_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "profile.yaml").write_text("rerun-incompleet: true\n")
    with pytest.raises((SystemExit, AttributeError)):
        test_snakemake_takes_every_key(tmp_path / "profile.yaml", monkeypatch)


def test_the_workstation_has_the_machines_figures(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, arguments = parse_args(["--workflow-profile", "profiles/workstation"])
    profile = loaded(ROOT / "profiles/workstation/profile.yaml")
    given = arguments.resources
    assert {name: given[name].value for name in profile["resources"]} == profile["resources"]
    assert profile["resources"]["gpu"] > 1
    assert arguments.set_threads == profile["set-threads"]


def test_rules_name_only_the_common_resources():
    named = {
        name for body in blocks("resources:") for name in re.findall(r"^(\w+)=", body, re.MULTILINE)
    }
    assert named == RESOURCES


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_rules_and_resources_of_a_profile_exist(path):
    profile = loaded(path)
    allowed = RESOURCES | EXECUTORS.get(profile.get("executor"), set())
    assert set(profile.get("set-threads", {})) <= RULES
    assert set(profile.get("set-resources", {})) <= RULES
    for resources in (
        profile.get("resources", {}),
        profile.get("default-resources", {}),
        *profile.get("set-resources", {}).values(),
    ):
        assert set(resources) <= allowed


def test_the_workstation_has_threads_for_every_rule_on_a_gpu():
    profile = loaded(ROOT / "profiles/workstation/profile.yaml")
    rules = re.findall(
        r"^ *(?:rule|checkpoint) (\w+):\n(.*?)(?=^ *(?:rule|checkpoint|use rule) |\Z)",
        WRITTEN,
        re.MULTILINE | re.DOTALL,
    )
    on_gpu = {name for name, body in rules if re.search(r"^ *gpu=", body, re.MULTILINE)}
    copies = re.findall(r"^ *use rule (\w+) as (\w+) with:", WRITTEN, re.MULTILINE)
    on_gpu |= {copy for original, copy in copies if original in on_gpu}
    assert {"train", "predict", "train_replicate"} <= on_gpu
    assert set(profile["set-threads"]) == on_gpu
