"""The set-up: pins, conda environments, the bootstrap, the runners of tests and benchmarks."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def load(name: str):
    """Import tools/NAME.py, which is no package."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench, bootstrap, make_envs = load("bench"), load("bootstrap"), load("make_envs")

LISTS = tomllib.loads((ROOT / "requirements/environments.toml").read_text())
DIRECT = {
    canonicalize_name(name)
    for group in (LISTS["environments"], LISTS["other"])
    for names in group.values()
    for name in names
} | set(LISTS["built"].values())
PINS = make_envs.read_pins((ROOT / "requirements/pins.txt").read_text())


# Pins and environments ------------------------------------------------------------------------


def test_pins_are_what_the_direct_requirements_need_and_no_more():
    built = set(LISTS["built"].values())
    assert make_envs.closure(sorted(DIRECT - built)) | built == set(PINS)


def test_pins_are_installed_at_their_versions():
    # Of .venv only: once imported, setuptools puts the packages that it carries on sys.path too.
    found = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    installed = {canonicalize_name(d.name): d.version for d in found}
    wrong = {
        name: (version, installed.get(name))
        for name, (_, version) in PINS.items()
        # The one that replaces it where the machine has no libGL has the same version.
        if installed.get(name) != version and installed.get(f"{name}-headless") != version
    }
    assert not wrong


def test_pins_build_mmcv():
    assert int(PINS["setuptools"][1].split(".")[0]) < 81
    assert PINS["mmcv"][1].startswith("2.1.")


@pytest.mark.parametrize(
    "line", ["numpy", "numpy>=2", "numpy==2.*", "mmcv @ file:///a.whl", "a==1; b", "numpy=="]
)
def test_a_line_that_is_no_exact_pin_is_refused(line):
    with pytest.raises(ValueError, match="name==version"):
        make_envs.read_pins(f"# header\n{line}\n")


def test_a_name_pinned_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        make_envs.read_pins("typing_extensions==1\ntyping-extensions==2\n")


names = st.from_regex(r"[a-z][a-z0-9]{0,8}([-_][a-z0-9]{1,5})?", fullmatch=True)
versions = st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,3}){0,3}", fullmatch=True)


@given(st.dictionaries(names.map(canonicalize_name), versions))
def test_pins_written_are_read_back(pins):
    text = "# header\n\n" + "".join(f"{name}=={version}\n" for name, version in pins.items())
    assert {name: version for name, (_, version) in make_envs.read_pins(text).items()} == pins


def test_environment_files_are_what_the_generator_writes():
    expected = make_envs.generate()
    assert {path.name for path in (ROOT / "envs").iterdir()} == set(expected)
    for name, text in expected.items():
        assert (ROOT / "envs" / name).read_text() == text, f"run tools/make_envs.py: {name}"


def test_a_requirement_without_a_pin_is_refused(tmp_path):
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/pins.txt").write_text("numpy==2.4.6\n")
    (tmp_path / "requirements/environments.toml").write_text(
        '[environments]\na = ["numpy", "scipy"]\n[built]\n'
    )
    with pytest.raises(ValueError, match="scipy has no version"):
        make_envs.generate(tmp_path)


@pytest.mark.parametrize("name", LISTS["environments"])
def test_environments_pin_everything_from_conda_forge(name):
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    written = make_envs.read_pins("\n".join(pip["pip"]))
    assert written.items() <= PINS.items()
    assert {canonicalize_name(direct) for direct in LISTS["environments"][name]} <= set(written)


def test_every_imported_package_is_a_direct_requirement():
    imported = set()
    for path in [*ROOT.glob("workflow/**/*.py"), *ROOT.glob("tools/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    packages = importlib.metadata.packages_distributions()
    undeclared = {
        module
        for module in imported - sys.stdlib_module_names
        if module in packages
        and DIRECT.isdisjoint(
            canonicalize_name(package).removesuffix("-headless") for package in packages[module]
        )
    }
    assert not undeclared, "name it in requirements/environments.toml"


# The bootstrap --------------------------------------------------------------------------------


def test_both_readers_of_the_pins_agree():
    written = {name.lower(): version for name, version in PINS.values()}
    assert bootstrap.read_pins() == written


def test_bootstrap_stays_with_the_standard_library():
    tree = ast.parse((ROOT / "tools/bootstrap.py").read_text())
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names


def test_an_old_python_can_read_the_bootstrap_and_say_what_it_needs():
    source = (ROOT / "tools/bootstrap.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    with pytest.raises(SyntaxError):
        ast.parse("with (open(a) as b, open(c) as d):\n    pass", feature_version=(3, 6))
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and "version_info" in ast.unparse(node.test):
            break
        assert ast.unparse(node) == "import sys" or isinstance(node, ast.Expr)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device: '/x'", "disk became full"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NameResolutionError'\n"
            "ERROR: No matching distribution found for pip==26.3",
            "index could not be reached",
        ),
        ("ERROR: No matching distribution found for numpy==9.9", "does not have numpy==9.9"),
        ("The virtual environment was not created because ensurepip is not available", "python3"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "MAX_JOBS=1"),
        ("error: subprocess-exited-with-error", "setup.log"),
    ],
)
def test_failures_are_explained_in_one_sentence(output, sentence):
    text = bootstrap.explain(output, "installing packages")
    assert sentence in text
    assert "\n" not in text and text.endswith(".") and "same command again" in text


def test_progress_of_a_compilation():
    assert bootstrap.progress("x\n  [1/77] c++ a\n  [12/77] c++ b\n") == ", file 12 of 77"
    assert bootstrap.progress("Collecting numpy\n") == ""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Let the bootstrap work in a temporary folder."""
    venv = tmp_path / ".venv"
    monkeypatch.setattr(bootstrap, "VENV", venv)
    monkeypatch.setattr(bootstrap, "PYTHON", venv / "bin/python")
    monkeypatch.setattr(bootstrap, "STAMP", venv / "lumbarflow-setup")
    monkeypatch.setattr(bootstrap, "STATE", tmp_path / "state")
    monkeypatch.setattr(bootstrap, "LOG", tmp_path / "setup.log")
    return tmp_path


def test_ready_only_with_this_stamp(elsewhere, monkeypatch):
    assert not bootstrap.is_ready()
    bootstrap.PYTHON.parent.mkdir(parents=True)
    bootstrap.PYTHON.touch()
    assert not bootstrap.is_ready()
    bootstrap.STAMP.write_text(bootstrap.stamp())
    assert bootstrap.is_ready()

    pins = elsewhere / "pins.txt"
    pins.write_text(bootstrap.PINS.read_text() + "another==1\n")
    monkeypatch.setattr(bootstrap, "PINS", pins)
    assert not bootstrap.is_ready()


@pytest.mark.parametrize(
    ("version", "command", "other"),
    [
        ("3.11.7", "python -m venv {}", False),
        ("3.11.7", "python -m venv --clear {}", False),
        ("3.11.7", "", False),
        ("3.11.7", "python -m venv /elsewhere/.venv", True),
        ("3.12.1", "python -m venv {}", True),
    ],
)
def test_an_environment_of_another_place_or_python_is_recognised(tmp_path, version, command, other):
    text = f"version = {version}\ncommand = {command.format(tmp_path)}\n"
    (tmp_path / "pyvenv.cfg").write_text(text)
    assert bootstrap.is_of_another_place(tmp_path) is other


def test_half_installed_packages_are_found(tmp_path):
    site = tmp_path / "lib/python3.11/site-packages"
    for name, files in {
        "whole": ["whole.py", "METADATA", "RECORD"],
        "cut": ["METADATA", "RECORD"],
        "early": ["early.py", "METADATA"],
    }.items():
        metadata = site / f"{name}-1.dist-info"
        metadata.mkdir(parents=True)
        for file in files:
            (site / file if file.endswith(".py") else metadata / file).touch()
        if "RECORD" in files:
            (metadata / "RECORD").write_text(
                f"{name}.py,sha256=x,1\n__pycache__/{name}.pyc,,\n{metadata.name}/METADATA,,\n"
            )
    found = {path.name for path in bootstrap.incomplete_packages(tmp_path)}
    assert found == {"cut-1.dist-info", "early-1.dist-info"}


def test_the_wheel_is_kept_apart_by_torch_mmcv_machine_and_cuda(tmp_path, monkeypatch):
    pins = bootstrap.read_pins()
    cuda = {"TORCH_CUDA_ARCH_LIST": "8.0;9.0"}
    monkeypatch.setenv("LUMBARFLOW_CACHE", str(tmp_path))
    folders = {
        bootstrap.wheel_folder(pins, None),
        bootstrap.wheel_folder(pins | {"torch": "2.9.0"}, None),
        bootstrap.wheel_folder(pins | {"mmcv": "2.2.0"}, None),
        bootstrap.wheel_folder(pins, cuda),
    }
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "wheels"}

    monkeypatch.delenv("LUMBARFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert bootstrap.wheel_folder(pins, None).parents[1] == tmp_path / "xdg/lumbarflow"


def program(folder: Path, name: str, output: str) -> None:
    """Make a program that prints `output`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("release", "built"), [("release 12.8, V12.8.93", True), ("release 13.0, V13.0.88", False)]
)
def test_cuda_operators_need_a_card_and_a_fitting_nvcc(tmp_path, monkeypatch, release, built):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("FORCE_CUDA", raising=False)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    program(tmp_path / "bin", "nvcc", release)
    program(tmp_path / "bin", "nvidia-smi", "No devices were found")
    assert bootstrap.cuda_build() is None
    program(tmp_path / "bin", "nvidia-smi", "9.0")
    cuda = bootstrap.cuda_build()
    if built:
        assert cuda == {
            "FORCE_CUDA": "1",
            "CUDA_HOME": str(tmp_path),
            "TORCH_CUDA_ARCH_LIST": "9.0",
        }
    else:
        assert cuda is None


def test_a_full_disk_is_foreseen(elsewhere, monkeypatch):
    usage = bootstrap.shutil.disk_usage(elsewhere)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with pytest.raises(bootstrap.SetupError, match=r"needs about \d+\.\d GB more .* has 1\.0 GB"):
        bootstrap.check_disk(build=False)


def test_pip_does_without_its_cache_where_only_that_does_not_fit(elsewhere, monkeypatch, capsys):
    monkeypatch.delenv("PIP_NO_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere))
    usage = bootstrap.shutil.disk_usage(elsewhere)
    free = int(bootstrap.VENV_SIZE + bootstrap.DOWNLOAD_SIZE + 1e9)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: usage._replace(free=free))
    bootstrap.check_disk(build=False)
    assert os.environ.pop("PIP_NO_CACHE_DIR") == "1"
    assert "not kept in pip's cache" in capsys.readouterr().out
    usage = usage._replace(free=int(free + bootstrap.DOWNLOAD_SIZE))
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: usage)
    bootstrap.check_disk(build=False)
    assert "PIP_NO_CACHE_DIR" not in os.environ


def test_a_failing_command_leaves_its_output_in_the_log(elsewhere):
    command = [sys.executable, "-c", "print('No space left on device'); raise SystemExit(1)"]
    with pytest.raises(bootstrap.SetupError, match="disk became full while trying"):
        bootstrap.run(command, "trying")
    assert "No space left on device" in bootstrap.LOG.read_text()


def test_no_compiler_is_one_sentence_and_no_traceback(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "CXX"}
    environment |= {"PATH": str(tmp_path), "LUMBARFLOW_CACHE": str(tmp_path)}
    # A checkout of its own: this one has its .venv.
    for name in ("tools/bootstrap.py", "requirements/pins.txt"):
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, tmp_path / "checkout/tools/bootstrap.py"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lumbarflow: error: no C++ compiler was found")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "checkout/.venv").exists()


# make test and make bench ---------------------------------------------------------------------


def test_a_failure_ends_the_run_after_its_folder(tmp_path):
    for folder, body in {"first": "assert False", "second": "pass"}.items():
        (tmp_path / folder).mkdir()
        code = f"def test_{folder}_a():\n    {body}\n\ndef test_{folder}_b():\n    pass\n"
        (tmp_path / folder / f"test_{folder}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "tools.test_groups", "-p", "no:cacheprovider"]
    for order, outcome in [
        (("first", "second"), "1 failed, 1 passed"),
        (("second", "first"), "1 failed, 3 passed"),
    ]:
        done = subprocess.run(
            [*command, "-c", os.devnull, *(tmp_path / folder for folder in order)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert outcome in done.stdout.splitlines()[-1]
        assert done.returncode != 0


RESULT = {"name": "metrics", "figures": {"ratio": 2.34567}, "targets": {"ratio": 2}, "met": True}


def test_benchmarks_become_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    assert bench.main() == 0
    assert not (tmp_path / "RESULTS.md").exists()

    (tmp_path / "metrics.py").write_text(f"print('on the way')\nprint('''{json.dumps(RESULT)}''')")
    assert bench.main() == 0
    assert "| ratio | 2.346 | 2 |" in (tmp_path / "RESULTS.md").read_text()
    assert "on the way" in capsys.readouterr().out

    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    assert bench.main() == 1
    text = (tmp_path / "RESULTS.md").read_text()
    assert "`benchmarks/broken.py` failed" in text and "Targets met." in text


@pytest.mark.parametrize("line", ["", "text", "[1]", '{"name": "a"}', "3"])
def test_a_last_line_that_is_no_result_is_a_failure(line):
    assert bench.read_result(line) is None
    assert bench.read_result(json.dumps(RESULT)) == RESULT
