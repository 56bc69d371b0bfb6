"""Films a second from Orthanc: dcmtk's getscu, our retrieval alone, and with all that follows.

All three bring the same uncompressed films of 2500 x 1500 pixels of 16 bits from the same Orthanc
to the same disk, in turns:

- `getscu`: one process and one C-GET that lists all studies, received directly to disk with the
  largest PDU. A process, or a C-GET, for each study was slower, and so were other options.
- `raw`: our associations, each object written as it comes.
- `whole`: the retrieval of the workflow: de-identified objects, PNGs and manifest.

Seconds are of getscu's process and, for ours, from the first connection to the last file, without
Python's start. Memory is the sum over the process and its children of the proportional set size
(Linux, /proc/PID/smaps_rollup), looked at ten times a second while `whole` runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "workflow" / "scripts")]

import pytest  # noqa: E402
from integration.loads import big_film  # noqa: E402
from integration.servers import CALLER, HOST, TITLE, Orthanc, orthanc, program  # noqa: E402

_SAMPLES_A_SECOND = 10
TARGETS = {
    "raw_to_getscu": "at least 1.0",
    "whole_to_getscu": "at least 0.5",
    "memory_mb": "below 600",
    "memory_many_mb": "below 600",
    "memory_many_to_few": "below 1.15",
}


def getscu(server: Orthanc, out: Path, studies: list[str]) -> float:
    """Retrieve all studies with getscu; return the seconds that it took."""
    command = [program("getscu"), "-S", "+B", "-pdu", "131072", "-od", out]
    command += ["-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=" + "\\".join(studies)]
    command += ["-aet", CALLER, "-aec", TITLE, HOST, str(server.port)]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def ours(what: str, server: Orthanc, out: Path) -> tuple[float, float]:
    """Retrieve in a process of its own; return seconds and the most memory in MB."""
    options = json.dumps({"port": server.port, "out": str(out)})
    command = [sys.executable, Path(__file__).with_name("_retrieving.py"), what, options]
    most = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            most = max(most, sum(map(memory_mb, family(process.pid))))
            time.sleep(1 / _SAMPLES_A_SECOND)
        output = process.stdout.read()
    if process.returncode:
        sys.exit(f"The retrieval ({what}) failed.")
    return float(output.splitlines()[-1]), most


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for known in found:  # grows on the way
        try:
            for task in Path(f"/proc/{known}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
    return found


def memory_mb(pid: int) -> float:
    """The proportional set size of a process."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass  # it ended meanwhile
    return 0.0


def in_folder(folder: Path, count: int, work: Callable[[Path], object], pattern: str) -> object:
    """Do `work` in an empty folder, check that it left `count` files, and remove them."""
    out = folder / "out"
    out.mkdir()
    result = work(out)
    found = sum(1 for _ in out.glob(pattern))
    shutil.rmtree(out)
    os.sync()  # what this one wrote is no burden of the next
    if found != count:
        sys.exit(f"{found} of {count} films came.")
    return result


def compare(server: Orthanc, folder: Path, studies: list[str], films: int, times: int) -> dict:
    """Take turns; return the figures but those of many films."""
    ways = {
        "getscu": lambda: (in_folder(folder, films, lambda o: getscu(server, o, studies), "*"), 0),
        "raw": lambda: in_folder(folder, films, lambda o: ours("raw", server, o), "*"),
        "whole": lambda: in_folder(folder, films, lambda o: ours("whole", server, o), "png/*.png"),
    }
    rates = {name: [] for name in ways}
    memory = []
    for number in range(times):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for name in order:
            seconds, most = ways[name]()
            rates[name].append(films / seconds)
            if name == "whole":
                memory.append(most)
            print(f"{number + 1}. {name}: {films / seconds:.1f} films/s, {most:.0f} MB", flush=True)
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {f"{name}_films_per_second": value for name, value in median.items()} | {
        "raw_to_getscu": median["raw"] / median["getscu"],
        "whole_to_getscu": median["whole"] / median["getscu"],
        "memory_mb": statistics.median(memory),
    }


def load(server: Orthanc, first: int, end: int) -> list[str]:
    """Store films of these numbers; return the UIDs of their studies."""
    studies = {}

    def film(number: int):
        made = big_film(number)
        studies[str(made.StudyInstanceUID)] = None
        return made

    server.load(map(film, range(first, end)))
    os.sync()
    return list(studies)


def main() -> None:
    """Run the comparison and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="20 and 60 films in place of 200, 1000"
    )
    few, many, times = (20, 60, 3) if parser.parse_args().quick else (200, 1000, 5)
    with tempfile.TemporaryDirectory(prefix="retrieval-") as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free / 1e9
        needed = many * 25e-3  # GB: each film in the archive, de-identified, as PNG
        if free < needed:
            sys.exit(f"{folder} needs {needed:.0f} GB and has {free:.0f}: set TMPDIR elsewhere.")
        with orthanc(folder / "orthanc") as server:
            print(f"Loading {few} films into Orthanc", flush=True)
            studies = load(server, 0, few)
            figures = {"films": few} | compare(server, folder, studies, few, times)
            print(f"Loading {many} films", flush=True)
            load(server, few, many)
            _, most = in_folder(folder, many, lambda o: ours("whole", server, o), "png/*.png")
            print(f"whole, {many} films: {most:.0f} MB", flush=True)
    figures |= {
        "films_many": many,
        "memory_many_mb": most,
        "memory_many_to_few": most / figures["memory_mb"],
    }
    met = (
        figures["raw_to_getscu"] >= 1.0
        and figures["whole_to_getscu"] >= 0.5
        and max(most, figures["memory_mb"]) < 600
        and figures["memory_many_to_few"] < 1.15
    )
    result = {"name": "retrieval", "figures": figures, "targets": TARGETS, "met": met}
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        main()
    except pytest.skip.Exception as missing:
        sys.exit(f"{missing}.")
