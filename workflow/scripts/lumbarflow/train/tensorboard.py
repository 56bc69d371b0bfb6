"""The history of a training as TensorBoard shows it, written epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class TensorBoard:
    """Event files of one training, a TensorBoard run for each split, an epoch a step.

    PyTorch's own writer keeps a thread, which does not outlive the fork of a loader's workers, and
    names its files after the machine. Here every row is on disk when :meth:`add` returns.

    Args:
        folder: gets `train/` and `val/` with one event file each; those of an earlier training are
            removed at once.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.restart([])

    def restart(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Begin anew with these rows: what a resumption drops is in no file, so no epoch is twice.

        The rows are dated as if they had been one training without a break that ends now.
        """
        # File by file: on a network drive a folder that a TensorBoard reads cannot be removed.
        for path in self._folder.glob("*/events.out.tfevents.*"):
            path.unlink(missing_ok=True)
        # A new name: a TensorBoard that is open would read on within a file of the same name.
        self._name = f"events.out.tfevents.{time.time_ns()}"
        now, later = time.time(), sum(row["seconds"] for row in rows)
        for row in rows:
            later -= row["seconds"]
            self._write(row, now - later)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row of the history, see :meth:`lumbarflow.train.history.History.add`."""
        self._write(row, time.time())

    def _write(self, row: Mapping[str, Any], moment: float) -> None:
        path = self._folder / row["split"] / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(row)]
        events = [Event(wall_time=moment, step=row["epoch"], summary=Summary(value=values))]
        if not path.exists():
            events.insert(0, Event(wall_time=moment, file_version="brain.Event:2"))
        with path.open("ab") as handle:
            writer = RecordWriter(handle)
            for event in events:
                writer.write(event.SerializeToString())


def _scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Tag and value of each number of a row; a group's numbers have its name before theirs."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", number) for name, number in value.items())
        elif key not in ("epoch", "split") and value is not None:
            yield key, value
