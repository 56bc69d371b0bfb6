"""The history file."""

from __future__ import annotations

import json
import logging

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
