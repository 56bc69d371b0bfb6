"""The event files: read by TensorBoard's own reader."""

from __future__ import annotations

import logging
import socket
from itertools import pairwise

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lumbarflow.train.history import History
from lumbarflow.train.tensorboard import TensorBoard

log = logging.getLogger("lumbarflow.test")


def begin(folder, epochs=6):
    return History(folder / "history.jsonl", epochs, log, TensorBoard(folder / "tensorboard"))


def add_epoch(history, epoch, dice):
    history.add(
        *(epoch, "train", 1.5 / epoch, {}, 20.0, 160),
        times={"data": 2.0, "backward": 10.0},
        losses={"loss_mask": 1 / epoch, "loss_box": 0.5 / epoch},
        learning_rate=0.001,
    )
    history.add(epoch, "val", None, {"dice": dice}, 5.0, 10)


def read(folder, split):
    """Tag -> [(epoch, value)] of a split, as TensorBoard shows it."""
    shown = EventAccumulator(str(folder / "tensorboard" / split)).Reload()
    return {
        tag: [(event.step, event.value) for event in shown.Scalars(tag)]
        for tag in shown.Tags()["scalars"]
    }


def events(folder, split):
    """Every event of the files of a split, in order."""
    files = sorted((folder / "tensorboard" / split).iterdir())
    return [event for file in files for event in EventFileLoader(str(file)).Load()]


def test_each_number_of_a_row_is_a_curve(tmp_path):
    history = begin(tmp_path)
    add_epoch(history, 1, 0.5)
    add_epoch(history, 2, 0.75)
    train, validation = read(tmp_path, "train"), read(tmp_path, "val")
    assert train == {
        "loss": [(1, 1.5), (2, 0.75)],
        "losses/loss_mask": [(1, 1.0), (2, 0.5)],
        "losses/loss_box": [(1, 0.5), (2, 0.25)],
        "learning_rate": [(1, pytest.approx(0.001)), (2, pytest.approx(0.001))],
        "seconds": [(1, 20.0), (2, 20.0)],
        "images_per_second": [(1, 8.0), (2, 8.0)],
        "times/data": [(1, 2.0), (2, 2.0)],
        "times/backward": [(1, 10.0), (2, 10.0)],
    }
    assert validation == {
        "metrics/dice": [(1, 0.5), (2, 0.75)],
        "seconds": [(1, 5.0), (2, 5.0)],
        "images_per_second": [(1, 2.0), (2, 2.0)],
    }


def test_rows_are_on_disk_as_they_come(tmp_path):
    history = begin(tmp_path)
    for epoch in (1, 2, 3):
        add_epoch(history, epoch, 0.5)
        assert [step for step, _ in read(tmp_path, "train")["loss"]] == list(range(1, epoch + 1))


def test_no_epoch_appears_twice_after_a_resumption(tmp_path):
    history = begin(tmp_path)
    for epoch in (1, 2, 3):
        add_epoch(history, epoch, 0.1 * epoch)
    # Killed in the fourth epoch while it wrote; its checkpoint is of the second.
    (file,) = (tmp_path / "tensorboard" / "train").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    again = begin(tmp_path)
    again.resume(history.rows, 2)
    for epoch in (3, 4):
        add_epoch(again, epoch, 0.25 * epoch)
    assert read(tmp_path, "val")["metrics/dice"] == [
        *((1, pytest.approx(0.1)), (2, pytest.approx(0.2)), (3, 0.75), (4, 1.0)),
    ]
    for split in ("train", "val"):
        # Of every event in the files, not only of those that TensorBoard makes of them.
        steps = [event.step for event in events(tmp_path, split) if event.HasField("summary")]
        assert steps == [1, 2, 3, 4]


def test_a_new_training_begins_empty(tmp_path):
    add_epoch(begin(tmp_path), 1, 0.5)
    begin(tmp_path)
    assert not list(tmp_path.rglob("*tfevents*"))


def test_rows_of_a_resumption_are_dated_without_the_break(tmp_path):
    history = begin(tmp_path)
    for epoch in (1, 2, 3):
        add_epoch(history, epoch, 0.5)
    begin(tmp_path).resume(history.rows, 3)
    moments = [event.wall_time for event in events(tmp_path, "train") if event.HasField("summary")]
    for earlier, later in pairwise(moments):
        assert later - earlier == pytest.approx(25.0, abs=0.01)


def test_nothing_names_the_machine(tmp_path):
    add_epoch(begin(tmp_path), 1, 0.5)
    for path in (tmp_path / "tensorboard").rglob("*tfevents*"):
        assert socket.gethostname() not in path.name
        assert socket.gethostname().encode() not in path.read_bytes()
