"""A copy of the workflow in a temporary folder, run by the real Snakemake as a user would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import yaml

from lumbarflow.config import overlay

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "workflow", "config", "profiles", "envs")
ERROR_PREFIX = "lumbarflow: error: "

# A whole cohort in seconds: small films, few patients, hardly any training.
NETWORK = {"width": 16, "size": [160, 96], "iterations": 4, "epoch_iterations": 2, "batch_size": 2}
TINY = {
    "synthetic": {
        "patients": 8,
        "scale": 0.15,
        "follow_up_fraction": 0.5,
        # On films as small as these nobody can tell a marker from a name.
        "side_marker_fraction": 0,
        "burned_in_text_fraction": 0,
        "seed": 7,
    },
    "splits": {"test": 0.25, "validation": 0.2},
    "networks": {
        name: dict(NETWORK) for name in ("unet", "mask_rcnn", "pspnet", "deeplabv3", "yolact")
    },
    "evaluation": {"bootstrap_samples": 100},
    "report": {"films": 2},
}


@dataclass
class Run:
    """What a finished Snakemake left: exit status and everything it printed."""

    status: int
    output: str

    @property
    def sentence(self) -> str:
        """The error sentence, without its prefix; the run must have ended with exactly one."""
        lines = [line for line in self.output.splitlines() if line.startswith(ERROR_PREFIX)]
        assert lines, self.output
        assert len(set(lines)) == 1, lines
        return lines[-1].removeprefix(ERROR_PREFIX)

    @property
    def ran(self) -> set[str]:
        """Names of the rules of which jobs ran."""
        return {job.split()[0] for job in self.jobs}

    @property
    def jobs(self) -> list[str]:
        """The jobs that ran, sorted, each as its rule and the values of its wildcards."""
        jobs: list[str] = []
        for line in self.output.splitlines():
            if mark := re.fullmatch(r"(?:local)?(?:rule|checkpoint) (\w+):", line):
                jobs.append(mark[1])
            elif line.startswith("    wildcards: "):
                jobs[-1] += "".join(f" {value}" for value in re.findall(r"=([^,]*)", line))
        return sorted(job for job in jobs if job != "all")


class Workflow:
    """A checkout in `folder` with a configuration file of its own."""

    def __init__(self, folder: Path, config: dict):
        self.folder = folder
        self.results = folder / "results"
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, folder / part, **ignored(source))
        self._config = config
        self._write(config)

    def _write(self, config: dict) -> None:
        (self.folder / "test.yaml").write_text(yaml.safe_dump(config))

    def overlay(self, changes: dict) -> None:
        """Change some keys of the configuration file that the folder was made with."""
        self._write(overlay(self._config, changes))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake in a process group of its own."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=1"]
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("LUMBARFLOW_KEY", None)
        return subprocess.Popen(
            [*command, "--configfile", "test.yaml", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            # A runner that was started in the background ignores Ctrl-C, and so would its children.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str) -> Run:
        """Run Snakemake to its end."""
        process = self.start(*arguments)
        output, _ = process.communicate()
        return Run(process.returncode, output)

    def interrupt_when(self, text: str, log: str, *arguments: str) -> Run:
        """Run Snakemake and press Ctrl-C once `text` stands in a log file of the results."""
        process = self.start(*arguments)
        path = self.results / "logs" / log
        while process.poll() is None and not (path.exists() and text in path.read_text()):
            time.sleep(0.2)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate()
        return Run(process.returncode, output)


def ignored(source: Path) -> dict:
    return {"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}


def result_files(folder: Path) -> dict[str, Path]:
    """Every result by its relative path; logs and what jobs write on the way aside."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in ("logs", "benchmarks", "incoming")
    }


def times(folder: Path) -> dict[str, int]:
    """When each result was written, in nanoseconds."""
    return {name: path.stat().st_mtime_ns for name, path in result_files(folder).items()}


def contents(folder: Path) -> dict[str, str]:
    """A digest of each result."""
    files = result_files(folder)
    return {name: sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
