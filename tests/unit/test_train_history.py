"""The history file."""

from __future__ import annotations

import json
import logging

import pytest

from lumbarflow.train.history import History

log = logging.getLogger("lumbarflow.test")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def add_epoch(history, epoch, dice, loss=0.5):
    history.add(epoch, "train", loss, {}, 2.0, 8)
    history.add(epoch, "val", None, {"dice": dice}, 0.5, 2)


def test_rows_are_on_disk_as_they_come(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path, 2, log)
    history.add(1, "train", 0.12345678, {}, 2.0, 8)
    assert rows(path) == [
        {
            "epoch": 1,
            "split": "train",
            "loss": 0.123457,
            "metrics": {},
            "seconds": 2.0,
            "images_per_second": 4.0,
        }
    ]
    history.add(1, "val", None, {"dice": 0.75}, 0.0, 2)
    assert rows(path)[1] == {
        "epoch": 1,
        "split": "val",
        "loss": None,
        "metrics": {"dice": 0.75},
        "seconds": 0.0,
        "images_per_second": None,
    }
    assert [file.name for file in tmp_path.iterdir()] == ["history.jsonl"]


def test_best_is_the_first_epoch_of_the_highest_dice(tmp_path):
    history = History(tmp_path / "history.jsonl", 4, log)
    assert history.best is None
    for epoch, score in enumerate([0.2, 0.9, 0.9, 0.1], start=1):
        add_epoch(history, epoch, score)
    assert history.best["epoch"] == 2


def test_resume_drops_later_rows(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path, 3, log)
    for epoch in (1, 2):
        add_epoch(history, epoch, 0.5)
    saved = history.rows
    again = History(path, 3, log)
    again.resume(saved, 1)
    assert [(row["epoch"], row["split"]) for row in rows(path)] == [(1, "train"), (1, "val")]
    add_epoch(again, 2, 0.7)
    assert [row["epoch"] for row in rows(path)] == [1, 1, 2, 2]
    assert again.best["epoch"] == 2


def test_progress_is_told_with_the_time_left(tmp_path, caplog):
    history = History(tmp_path / "history.jsonl", 2, log)
    with caplog.at_level(logging.INFO):
        history.add(1, "train", 0.5, {}, 2.0, 8)
        assert not caplog.messages
        history.add(1, "val", None, {"dice": 0.25}, 1.0, 2)
    (message,) = caplog.messages
    assert message.startswith(
        "epoch 1 of 2: training loss 0.500, validation Dice 0.250, about 0 min"
    )


def test_what_else_is_known_follows_the_common_keys(tmp_path):
    history = History(tmp_path / "history.jsonl", 1, log)
    history.add(
        *(1, "train", 0.75, {}, 2.0, 8),
        times={"data": 0.25, "forward": 0.123456},
        losses={"dice": 0.5, "cross_entropy": 0.25000001},
        learning_rate=0.00012345678,
    )
    (row,) = rows(tmp_path / "history.jsonl")
    assert list(row)[:6] == ["epoch", "split", "loss", "metrics", "seconds", "images_per_second"]
    assert row["times"] == {"data": 0.25, "forward": 0.123}
    assert row["losses"] == {"dice": 0.5, "cross_entropy": 0.25}
    assert row["learning_rate"] == 0.000123457


def test_losses_are_told_by_name_where_there_are_several(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    history = History(tmp_path / "history.jsonl", 2, log)
    for epoch, losses in enumerate([{"dice": 0.5}, {"dice": 0.25, "mask": 0.5}], start=1):
        history.add(epoch, "train", sum(losses.values()), {}, 2.0, 8, losses=losses)
        history.add(epoch, "val", None, {"dice": 0.25}, 1.0, 2)
    one, two = caplog.messages
    assert "training loss 0.500, validation" in one
    assert "training loss 0.750 (dice 0.250, mask 0.500), validation" in two


class Clock:
    """A monotonic clock that is set by hand."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("lumbarflow.train.history.time", clock)
    return clock


def test_a_long_epoch_tells_its_progress_every_half_minute(tmp_path, caplog, clock):
    caplog.set_level(logging.INFO)
    history = History(tmp_path / "history.jsonl", 4, log)
    for step in range(1, 101):
        clock.now += 1
        history.progress(1, step, 100, step / 100)
    assert caplog.messages == [
        "epoch 1 of 4: step 30 of 100, training loss 0.300, about 6 min 10 s left",
        "epoch 1 of 4: step 60 of 100, training loss 0.600, about 5 min 40 s left",
        "epoch 1 of 4: step 90 of 100, training loss 0.900, about 5 min 10 s left",
    ]


def test_short_epochs_tell_no_steps(tmp_path, caplog, clock):
    caplog.set_level(logging.INFO)
    history = History(tmp_path / "history.jsonl", 5, log)
    for epoch in range(1, 6):
        for step in range(1, 21):
            clock.now += 1
            history.progress(epoch, step, 20, 0.5)
        add_epoch(history, epoch, 0.5)
    assert [message.split(":")[0] for message in caplog.messages] == [
        f"epoch {epoch} of 5" for epoch in range(1, 6)
    ]
    assert not any("step" in message for message in caplog.messages)


def test_the_loss_is_read_only_for_a_line(tmp_path, clock):
    class Loss:
        def __float__(self):
            raise AssertionError("waited for")

    history = History(tmp_path / "history.jsonl", 1, log)
    history.progress(1, 1, 10, Loss())
    clock.now += 60
    with pytest.raises(AssertionError, match="waited for"):
        history.progress(1, 2, 10, Loss())


def test_time_left_after_a_resumption_counts_from_it(tmp_path, caplog, clock):
    caplog.set_level(logging.INFO)
    history = History(tmp_path / "history.jsonl", 100, log)
    clock.now += 5000
    history.resume([], 90)
    clock.now += 720
    history.progress(91, 1, 2, 0.5)
    add_epoch(history, 92, 0.5)
    assert caplog.messages[1].endswith("about 3 h 48 min left")
    assert caplog.messages[2].endswith("about 48 min 00 s left")


def test_a_board_gets_every_row_and_begins_anew_at_a_resumption(tmp_path):
    class Board:
        def __init__(self):
            self.rows = []

        def add(self, row):
            self.rows.append(row)

        def restart(self, rows):
            self.rows = list(rows)

    board = Board()
    history = History(tmp_path / "history.jsonl", 3, log, board)
    for epoch in (1, 2):
        add_epoch(history, epoch, 0.5)
    assert board.rows == history.rows
    again = History(tmp_path / "history.jsonl", 3, log, board)
    again.resume(history.rows, 1)
    assert [row["epoch"] for row in board.rows] == [1, 1]
    add_epoch(again, 2, 0.7)
    assert board.rows == again.rows == rows(tmp_path / "history.jsonl")
