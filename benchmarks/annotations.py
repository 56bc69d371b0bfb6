"""830 annotated films: seconds to read and check them, and to decide that nothing has changed.

- `read`: one VIA file with 12 structures of about 40 points on each film becomes records and
  findings, by the function that the workflow's job calls; without the start of Python and the
  writing of the records.
- `unchanged`: the workflow ran to its end on 830 small films annotated in one VIA file; then it is
  started again with nothing to do, in turns with a workflow of a single finished rule. Seconds are
  of the whole process; the difference of the medians is what the workflow adds to Snakemake's own
  start. `--quick` trains one network in place of five.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "workflow" / "scripts")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from harness import TINY, Workflow  # noqa: E402

from lumbarflow.annotate.records import build_records  # noqa: E402

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]
TARGETS = {"read_seconds": "at most 5", "unchanged_beyond_start_seconds": "at most 10"}
#: Rows and columns of a detector, and of the films that the whole workflow is run on.
LARGE, SMALL = (2500, 1500), (250, 150)
POINTS = 40

# Class, level, centre and size as shares of the film's height, and tilt in degrees.
SPINE = [
    ("lumbar_vertebra", "T12", (0.24, 0.08), (0.105, 0.080), -6),
    ("lumbar_vertebra", "L1", (0.25, 0.18), (0.110, 0.082), -4),
    ("lumbar_vertebra", "L2", (0.26, 0.28), (0.115, 0.084), -2),
    ("lumbar_vertebra", "L3", (0.265, 0.38), (0.120, 0.084), 0),
    ("lumbar_vertebra", "L4", (0.265, 0.48), (0.120, 0.084), 4),
    ("lumbar_vertebra", "L5", (0.26, 0.58), (0.120, 0.084), 10),
    ("sacral_vertebra", "S1", (0.255, 0.68), (0.110, 0.086), 25),
    ("sacral_vertebra", "S2", (0.23, 0.78), (0.090, 0.080), 35),
    ("cage", None, (0.265, 0.531), (0.070, 0.016), 6),
    ("screw", None, (0.225, 0.47), (0.120, 0.016), 4),
    ("screw", None, (0.220, 0.57), (0.120, 0.016), 10),
    ("instrumentation", None, (0.15, 0.52), (0.016, 0.140), 6),
]


def regions(size: tuple[int, int], rng: np.random.Generator) -> list[dict]:
    """A film's VIA regions, drawn a little differently on each."""
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    # A superellipse: a box with rounded corners.
    cos, sin = np.cos(angle), np.sin(angle)
    unit = np.sign(cos) * np.abs(cos) ** 0.4 + 1j * np.sign(sin) * np.abs(sin) ** 0.4
    shift, scale = rng.uniform(-0.02, 0.02), size[0] * rng.uniform(0.95, 1.0)
    found = []
    for name, level, (x, y), (width, height), tilt in SPINE:
        outline = unit.real * width / 2 + 1j * unit.imag * height / 2
        outline = outline * np.exp(1j * np.radians(tilt)) + x + shift + 1j * y
        outline = outline * scale + rng.normal(0, size[0] / 5000, POINTS)
        drawn = {
            "name": "polygon",
            "all_points_x": outline.real.round(2).tolist(),
            "all_points_y": outline.imag.round(2).tolist(),
        }
        attributes = {"structure": name, "level": level or ""}
        found.append({"shape_attributes": drawn, "region_attributes": attributes})
    return found


def via_file(path: Path, names: Sequence[str], size: tuple[int, int]) -> None:
    """Write one VIA file with the regions of all films."""
    rng = np.random.default_rng(830)
    entries = {
        f"{name}{n}": {
            "filename": name,
            "size": n,
            "regions": regions(size, rng),
            "file_attributes": {},
        }
        for n, name in enumerate(names)
    }
    path.write_text(json.dumps(entries))


def read(folder: Path, films: int, times: int) -> dict:
    """Seconds to parse and check one VIA file of all films."""
    path = folder / "reader.json"
    names = [f"film{n:04d}.png" for n in range(films)]
    via_file(path, names, LARGE)
    images = pd.DataFrame(
        {
            "image_id": [f"img-{n:04d}" for n in range(films)],
            "file_name": names,
            "status": "accepted",
            "rows": LARGE[0],
            "columns": LARGE[1],
            "pixel_spacing_mm": 0.15,
        }
    )
    settings = {"class_attribute": "structure", "level_attribute": "level", "ignore": []}
    seconds = []
    for number in range(times):
        started = time.perf_counter()
        records, findings = build_records([path], images, CLASSES, settings)
        seconds.append(time.perf_counter() - started)
        print(f"{number + 1}. read and checked: {seconds[-1]:.2f} s", flush=True)
    structures = sum(len(record["structures"]) for record in records)
    if len(records) != films or structures != films * len(SPINE):
        sys.exit(f"{len(records)} records with {structures} structures were read.")
    return {
        "films": films,
        "structures": structures,
        "findings": len(findings),
        "file_mb": path.stat().st_size / 1e6,
        "read_seconds": statistics.median(seconds),
    }


def finished_workflow(folder: Path, films: int, models: list[str]) -> Workflow:
    """The workflow, run to its end on a folder of small annotated films."""
    pictures = folder / "films"
    pictures.mkdir()
    rng = np.random.default_rng(1)
    names = [f"film{n:04d}.png" for n in range(films)]
    for name in names:
        film = np.full(SMALL, rng.integers(60, 120), np.uint8)
        film[::4] += rng.integers(0, 40, SMALL[1], dtype=np.uint8)
        cv2.imwrite(str(pictures / name), film)
    via = folder / "reader.json"
    via_file(via, names, SMALL)
    workflow = Workflow(
        folder / "workflow",
        {
            "source": "folder",
            "folder": {"path": str(pictures)},
            "annotations": {"via": [str(via)]},
            # What costs time at the acquisition and is no part of this comparison.
            "privacy": {"find_burned_in_text": False, "verify": "off"},
            "splits": {"test": 5, "validation": 5 / films},
            "models": models,
            "networks": {
                name: settings | {"iterations": 2, "epoch_iterations": 2, "size": [64, 64]}
                for name, settings in TINY["networks"].items()
            },
            "evaluation": {"bootstrap_samples": 100},
            "report": {"films": 1},
        },
    )
    started = time.perf_counter()
    run = workflow.run()
    if run.status:
        sys.exit(f"The workflow failed:\n{run.output}")
    print(f"The first run took {time.perf_counter() - started:.0f} s", flush=True)
    return workflow


def single_rule(folder: Path) -> None:
    """A workflow of one rule, run to its end."""
    folder.mkdir()
    (folder / "Snakefile").write_text(
        'rule all:\n    output: "done"\n    shell: "touch {output}"\n'
    )
    subprocess.run(snakemake(), cwd=folder, check=True, capture_output=True)


def snakemake() -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "2"]


def unchanged(folder: Path, films: int, models: list[str], times: int) -> dict:
    """Seconds of starts with nothing to do, of ours and of a workflow of one rule, in turns."""
    workflow = finished_workflow(folder, films, models)
    single = folder / "single"
    single_rule(single)
    seconds: dict[str, list[float]] = {"ours": [], "single": []}
    for number in range(times):
        started = time.perf_counter()
        run = workflow.run()
        seconds["ours"].append(time.perf_counter() - started)
        if run.status or run.ran:
            sys.exit(f"Something was done though nothing had changed:\n{run.output}")
        started = time.perf_counter()
        subprocess.run(snakemake(), cwd=single, check=True, capture_output=True)
        seconds["single"].append(time.perf_counter() - started)
        print(
            f"{number + 1}. nothing to do: {seconds['ours'][-1]:.1f} s, "
            f"one rule {seconds['single'][-1]:.1f} s",
            flush=True,
        )
    ours, start = (statistics.median(values) for values in seconds.values())
    return {
        "films_of_the_workflow": films,
        "networks": len(models),
        "unchanged_seconds": ours,
        "start_seconds": start,
        "unchanged_beyond_start_seconds": ours - start,
    }


def main() -> None:
    """Time both and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="60 films and one network through the workflow"
    )
    quick = parser.parse_args().quick
    films, models = (60, ["unet"]) if quick else (830, list(TINY["networks"]))
    times = 3 if quick else 5
    with tempfile.TemporaryDirectory(prefix="annotations-") as name:
        folder = Path(name)
        print("Reading and checking 830 films in one VIA file", flush=True)
        figures = read(folder, 830, times)
        print(f"A run of the workflow on {films} films", flush=True)
        figures |= unchanged(folder, films, models, times)
    met = figures["read_seconds"] <= 5 and figures["unchanged_beyond_start_seconds"] <= 10
    print(json.dumps({"name": "annotations", "figures": figures, "targets": TARGETS, "met": met}))


if __name__ == "__main__":
    main()
