"""Run every script of benchmarks/ and write benchmarks/RESULTS.md.

A benchmark prints what it does and ends with one JSON object on its last line:
`{"name": ..., "figures": {...}, "targets": {...}, "met": true}`. One that fails does not stop the
others; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def read_result(line: str) -> dict[str, Any] | None:
    """Return a benchmark's result from its last line, None where the line is not one."""
    try:
        result = json.loads(line)
    except ValueError:
        return None
    keys = {"name": str, "figures": dict, "targets": dict, "met": bool}
    if not isinstance(result, dict):
        return None
    return result if all(isinstance(result.get(k), t) for k, t in keys.items()) else None


def run(script: Path, quick: bool) -> dict[str, Any] | None:
    """Run one benchmark, its output shown as it comes; return its result, None if it failed."""
    print(f"== {script.name}", flush=True)
    command = [sys.executable, "-u", str(script), *(["--quick"] if quick else [])]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=FOLDER.parent) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
    return read_result(last) if process.returncode == 0 else None


def show(value: Any) -> str:
    """Return a figure for the table: four significant digits are plenty."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")


def render(results: dict[str, dict[str, Any] | None], quick: bool) -> str:
    """Return RESULTS.md.

    Args:
        results: the result, None where the benchmark failed, by the script's name.
        quick: whether the smaller sizes were run.
    """
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    sizes = "`--quick` sizes" if quick else "full sizes"
    lines = [
        "# Benchmark results",
        "",
        f"Written by `make bench`: {machine}, {sizes}.",
        "Comparisons are side by side in one run on one machine.",
    ]
    for script, result in results.items():
        lines += ["", f"## {result['name'] if result else script}", ""]
        if result is None:
            lines.append(f"`benchmarks/{script}` failed: no result.")
            continue
        lines += [f"Targets {'met' if result['met'] else 'not met'}.", ""]
        lines += ["| figure | value | target |", "|---|---|---|"]
        targets = result["targets"]
        names = [*result["figures"], *(name for name in targets if name not in result["figures"])]
        for name in names:
            value, target = result["figures"].get(name, ""), targets.get(name, "")
            lines.append(f"| {show(name)} | {show(value)} | {show(target)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all benchmarks; return the exit status."""
    parser = argparse.ArgumentParser(description="Run benchmarks/*.py, write RESULTS.md.")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, about a minute each")
    quick = parser.parse_args().quick
    scripts = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
    if not scripts:
        print("There are no benchmarks in benchmarks/.")
        return 0
    results = {script.name: run(script, quick) for script in scripts}
    (FOLDER / "RESULTS.md").write_text(render(results, quick), encoding="utf-8")
    print("Wrote benchmarks/RESULTS.md")
    failed = [name for name, result in results.items() if result is None]
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
