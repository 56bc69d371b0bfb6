"""`history.jsonl`: a line a split and epoch, written as training goes on, with the time left."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from ..files import write_text


class History:
    """Rows of the training history; `history.jsonl` is whole after every epoch."""

    def __init__(self, path: Path, epochs: int, log: logging.Logger):
        self.path = path
        self.epochs = epochs
        self.rows: list[dict[str, Any]] = []
        self._log = log
        self._resumed_at = 0
        self._started = time.monotonic()

    def resume(self, rows: list[dict[str, Any]], epoch: int) -> None:
        """Go on after `epoch` (counted from 1) with the rows up to it."""
        self.rows = [row for row in rows if row["epoch"] <= epoch]
        self._resumed_at = epoch
        self._started = time.monotonic()
        self._write()
        self._log.info("going on after epoch %d of %d", epoch, self.epochs)

    def add(
        self,
        epoch: int,
        split: str,
        loss: float | None,
        metrics: dict[str, float],
        seconds: float,
        images: int,
        times=None,
        losses=None,
        learning_rate=None,
    ) -> None:
        """Add a row: `epoch` from 1, mean loss, metrics, duration in seconds, films seen."""
        row = {
            "epoch": epoch,
            "split": split,
            "loss": None if loss is None else round(float(loss), 6),
            "metrics": {name: round(float(value), 6) for name, value in metrics.items()},
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 3) if seconds > 0 else None,
        }
        row["learning_rate"] = learning_rate
        self.rows.append(row)
        self._write()
        if split == "val":
            self._tell(epoch)

    def progress(self, *_):
        pass

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation row with the highest Dice, the first of equals."""
        rows = [row for row in self.rows if row["split"] == "val"]
        return max(rows, key=lambda row: row["metrics"]["dice"], default=None)

    def _tell(self, epoch: int) -> None:
        rows = {row["split"]: row for row in self.rows if row["epoch"] == epoch}
        done = epoch - self._resumed_at
        left = (time.monotonic() - self._started) / max(done, 1) * (self.epochs - epoch)
        loss = rows.get("train", {}).get("loss")
        self._log.info(
            "epoch %d of %d: training loss %s, validation Dice %.3f, about %d min %02d s left",
            epoch,
            self.epochs,
            "-" if loss is None else f"{loss:.3f}",
            rows["val"]["metrics"]["dice"],
            left // 60,
            left % 60,
        )

    def _write(self) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
