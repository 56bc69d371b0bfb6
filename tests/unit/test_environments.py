"""Conda environments: each holds what its rules' scripts import, and each rule has a small one.

A rule's script is followed through the package as its digest of code is (:func:`code.closure`).
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.utils import canonicalize_name

from lumbarflow import code, networks

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow/scripts"
LISTS = tomllib.loads((ROOT / "requirements/environments.toml").read_text())
PACKAGES = importlib.metadata.packages_distributions()
# Methods of pandas that import another package when they are called.
IMPLIED = {"read_parquet": "pyarrow", "to_parquet": "pyarrow"}


class Rule(NamedTuple):
    """What a rule says of itself: its name, its environment's name and its script's, or None."""

    name: str
    environment: str | None
    script: str | None
    body: str

    @property
    def modules(self) -> list[str]:
        """Files of the package that its script loads by name: any network's."""
        by_name = "networks/{wildcards.model}.py" in self.body
        return [f"networks/{name}.py" for name in networks.available()] if by_name else []


def rules() -> list[Rule]:
    """All rules that are written out; one by `use rule` has another's environment and script."""
    block = r"^ *(?:rule|checkpoint) (\w+):\n(.*?)(?=^ *(?:rule|checkpoint|use rule) |\Z)"
    found = []
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for name, body in re.findall(block, path.read_text(), re.MULTILINE | re.DOTALL):
            environment = re.search(r'conda:\s+"\.\./\.\./envs/(\w+)\.yaml"', body)
            script = re.search(r'script:\s+"\.\./scripts/(\w+\.py)"', body)
            found.append(Rule(name, *(match and match[1] for match in (environment, script)), body))
    return found


RULES = rules()
WITH_SCRIPT = [rule for rule in RULES if rule.script]


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules of others that a file imports anywhere, also by name or through pandas."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Attribute) and node.attr in IMPLIED:
            found.add(IMPLIED[node.attr])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
            found.add(ast.literal_eval(node.args[0]))
    names = {name.partition(".")[0] for name in found}
    return frozenset(names - sys.stdlib_module_names - {"lumbarflow"})


@cache
def needs(rule: Rule) -> dict[str, set[str]]:
    """The modules of others that a rule's script imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in [SCRIPTS / rule.script, *code.closure(SCRIPTS / rule.script, *rule.modules)]:
        if path.suffix == ".py":
            for module in imported(path):
                found.setdefault(module, set()).add(path.relative_to(SCRIPTS).as_posix())
    return found


@cache
def listed(name: str, folder: Path = ROOT / "envs") -> set[str]:
    """Normalised names of all packages of an environment, with the one that is built in it."""
    *_, pip = yaml.safe_load((folder / f"{name}.yaml").read_text())["dependencies"]
    script = folder / f"{name}.post-deploy.sh"
    built = re.findall(r"(\S+)==\S+$", script.read_text() if script.exists() else "", re.MULTILINE)
    return {canonicalize_name(line.partition("==")[0]) for line in pip["pip"]} | {
        canonicalize_name(package) for package in built
    }


def missing(rule: Rule, packages: set[str]) -> dict[str, set[str]]:
    """The modules that a rule imports and none of `packages` has, with the files that do."""
    return {
        module: files
        for module, files in needs(rule).items()
        if packages.isdisjoint(
            # The set-up replaces opencv-python by its headless build where libGL is absent.
            canonicalize_name(package).removesuffix("-headless")
            for package in PACKAGES.get(module, [])
        )
    }


def test_rules_are_found():
    written = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert len(RULES) == len(re.findall(r"^ *(?:rule|checkpoint) \w+:", written, re.MULTILINE))
    assert len(WITH_SCRIPT) == len(re.findall(r"^ *script:", written, re.MULTILINE))
    assert {rule.script for rule in WITH_SCRIPT} == {path.name for path in SCRIPTS.glob("*.py")}
    assert {rule.environment for rule in WITH_SCRIPT} == set(LISTS["environments"])


def test_imports_are_found():
    modules = {rule.name: set(needs(rule)) for rule in WITH_SCRIPT}
    assert {"torch", "mmdet", "segmentation_models_pytorch", "cv2"} <= modules["train"]
    assert {"pynetdicom", "rapidocr", "pyarrow"} <= modules["retrieve"]
    assert "torch" not in modules["retrieve"] | modules["evaluate"] | modules["report"]


@pytest.mark.parametrize("rule", WITH_SCRIPT, ids=lambda rule: rule.name)
def test_a_rules_environment_holds_what_its_script_imports(rule):
    assert not missing(rule, listed(rule.environment))


@pytest.mark.parametrize("rule", WITH_SCRIPT, ids=lambda rule: rule.name)
def test_what_a_script_imports_is_named_directly(rule):
    """Not left to what another package happens to need: the next version may not need it."""
    names = [*LISTS["environments"][rule.environment], LISTS["built"].get(rule.environment, "")]
    named = {canonicalize_name(name) for name in names}
    assert not missing(rule, named), "name it in requirements/environments.toml"


@pytest.mark.parametrize("rule", [r for r in RULES if r.environment], ids=lambda rule: rule.name)
def test_no_smaller_environment_would_do(rule):
    """`prepare` is the smallest; another is smaller where the rule's has all its packages too."""
    mine = listed(rule.environment)
    smaller = {name for name in LISTS["environments"] if listed(name) < mine}
    smaller |= {"prepare"} - {rule.environment}
    enough = [name for name in smaller if not rule.script or not missing(rule, listed(name))]
    assert not enough, f"{rule.name} needs less than {rule.environment}"


@pytest.mark.parametrize(
    ("environment", "package", "module", "hit"),
    [
        ("acquire", "pynetdicom", "pynetdicom", {"retrieve", "query"}),
        ("acquire", "rapidocr", "rapidocr", {"retrieve", "import_folder"}),
        ("clinic", "highdicom", "highdicom", {"dicom_new"}),
        ("prepare", "pycocotools", "pycocotools", {"evaluate", "via_project"}),
        ("report", "Jinja2", "jinja2", {"report"}),
        ("train", "mmdet", "mmdet", {"train", "predict", "preannotate", "tune_network"}),
        ("train", "optuna", "optuna", {"tune_network"}),
    ],
)
def test_a_package_taken_away_is_missed(tmp_path, environment, package, module, hit):
    changed = shutil.copytree(ROOT / "envs", tmp_path / "envs") / f"{environment}.yaml"
    lines = changed.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.strip().startswith(f"- {package}==")]
    assert len(kept) == len(lines) - 1
    changed.write_text("".join(kept))
    packages = listed(environment, changed.parent)
    failing = {
        rule.name: missing(rule, packages)
        for rule in WITH_SCRIPT
        if rule.environment == environment and missing(rule, packages)
    }
    assert hit <= set(failing)
    assert all(set(modules) == {module} for modules in failing.values())


def test_every_package_that_is_named_is_used_or_serves_one():
    serving = {
        "clinic": {"python-gdcm"},  # decodes compressed films for pydicom
        "train": {"ninja", "psutil", "setuptools", "wheel"},  # build mmcv
    }
    for environment, named in LISTS["environments"].items():
        modules = {
            m for rule in WITH_SCRIPT if rule.environment == environment for m in needs(rule)
        }
        used = {
            canonicalize_name(package).removesuffix("-headless")
            for module in modules
            for package in PACKAGES.get(module, [])
        }
        unused = {canonicalize_name(name) for name in named} - used
        assert unused == serving.get(environment, set()), environment
