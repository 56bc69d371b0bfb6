"""Killed pulls and killed archives: what is on disk is whole, and the end is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from integration.loads import small_film
from integration.servers import orthanc, proxy

from lumbarflow.files import read_grey, read_json

FILMS = 100
KILLS = 20
RESTARTS = 5
BYTES_PER_SECOND = 250_000  # per connection: about 30 of the small films
# The columns of images/manifest.parquet that other programs rely on.
LISTED = [
    "image_id", "patient_id", "study_id", "study_day", "rows", "columns", "pixel_spacing_mm",
    "view", "status", "reason",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        server.load(small_film(number) for number in range(FILMS))
        yield server


class Pull:
    """A retrieving process."""

    def __init__(self, port: int, out: Path):
        command = [sys.executable, Path(__file__).with_name("pull.py")]
        self.out = out
        self.process = subprocess.Popen(
            [*command, json.dumps({"port": port, "out": str(out)})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.process.stdout.readline()  # the imports are done

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Wait until something is reached, or the process ends."""
        while self.runs and not reached():
            time.sleep(0.001)

    def wait_for_films(self, more: int) -> None:
        """Wait until so many more films are on disk than now."""
        wanted = count(self.out) + more
        self.wait_for(lambda: count(self.out) >= wanted)

    def kill(self) -> None:
        """Kill the process, not its children; they have to go by themselves."""
        self.process.kill()
        self.process.communicate()
        end = time.monotonic() + 10
        while members(self.process.pid):
            assert time.monotonic() < end, "children of a killed pull are still running"
            time.sleep(0.01)

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and what was said."""
        _, text = self.process.communicate()
        return self.process.returncode, text

    def clear(self) -> None:
        """End whatever is left of it."""
        for pid in members(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def started():
    """Starts pulls, and ends what is left of them after the test."""
    pulls = []

    def start(port: int, out: Path) -> Pull:
        pulls.append(Pull(port, out))
        return pulls[-1]

    yield start
    for pull in pulls:
        pull.clear()


def members(group: int) -> list[int]:
    """The running processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state parent group ...; the name may hold blanks.
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it ended meanwhile
        if int(pgrp) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def count(out: Path) -> int:
    """How many films are on disk."""
    return sum(1 for _ in (out / "png").glob("[!.]*"))


def writing(out: Path) -> bool:
    """Whether a file is being written, which has another name until it is whole."""
    return any(path.name.startswith(".") for path in out.rglob(".*"))


def names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def check_whole(out: Path) -> None:
    """Every file but a temporary one can be read, and what the manifest lists is there."""
    for path in out.rglob("[!.]*.*"):
        if path.suffix == ".png":
            read_grey(path)
        elif path.suffix == ".dcm":
            assert pydicom.dcmread(path).pixel_array.size
        elif path.suffix == ".json":
            read_json(path)
    manifest = out / "manifest.parquet"
    if manifest.exists():
        for row in pd.read_parquet(manifest).query("status == 'accepted'").itertuples():
            assert read_grey(out / "png" / f"{row.image_id}.png").shape == (row.rows, row.columns)
            stored = pydicom.dcmread(out / "dicom" / f"{row.image_id}.dcm")
            assert stored.pixel_array.shape == (row.rows, row.columns)


def listed(out: Path) -> str:
    """The manifest's listed columns, as CSV."""
    return pd.read_parquet(out / "manifest.parquet")[LISTED].to_csv(index=False)


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert Pull(server.port, out).finish() == (0, "")
    table = pd.read_parquet(out / "manifest.parquet")
    assert len(table) == FILMS and set(table["status"]) == {"accepted"}
    check_whole(out)
    return out


def check_same(out: Path, undisturbed: Path) -> None:
    assert listed(out) == listed(undisturbed)
    assert names(out) == names(undisturbed)  # nothing half-written is left behind
    check_whole(out)


def test_a_pull_killed_at_any_point_ends_as_if_undisturbed(server, undisturbed, started, tmp_path):
    chance = random.Random(20)
    killed_at = []
    with proxy(server.port, bytes_per_second=BYTES_PER_SECOND) as slow:
        while len(killed_at) < KILLS:
            pull = started(slow.port, tmp_path)
            kind = ["films", "writing", "time"][len(killed_at) % 3]
            if kind != "time":
                pull.wait_for_films(chance.randint(1, 8))
            if kind == "writing":
                pull.wait_for(lambda: writing(tmp_path))
            else:
                end = time.monotonic() + chance.uniform(0, 0.15)
                pull.wait_for(lambda end=end: time.monotonic() >= end)
            if pull.runs:
                pull.kill()
                killed_at.append(count(tmp_path))
                check_whole(tmp_path)
            else:
                assert pull.finish() == (0, "")
    assert killed_at[0] < FILMS / 2 and len(set(killed_at)) > KILLS / 4
    assert started(server.port, tmp_path).finish() == (0, "")
    check_same(tmp_path, undisturbed)


def test_a_pull_from_an_archive_that_restarts_ends_as_if_undisturbed(
    server, undisturbed, started, tmp_path
):
    chance = random.Random(5)
    with proxy(server.port, bytes_per_second=BYTES_PER_SECOND / 5) as slow:
        pull = started(slow.port, tmp_path)
        try:
            for number in range(RESTARTS):
                pull.wait_for_films(chance.randint(1, 8))
                assert pull.runs and count(tmp_path) < FILMS
                (server.stop if number % 3 == 2 else server.kill)()
                time.sleep(chance.uniform(0, 0.5))
                server.start()
                check_whole(tmp_path)
        finally:
            if not server.answers():
                server.start()
        status, text = pull.finish()
    assert status == 0, text
    assert text.count("Trying again") >= RESTARTS
    check_same(tmp_path, undisturbed)
