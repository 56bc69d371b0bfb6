"""`history.jsonl`: a line a split and epoch, written as training goes on; progress in the log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

from ..files import write_text

_SILENCE = 30.0  # seconds between two lines of progress within an epoch


class Board(Protocol):
    """What shows the rows of a history elsewhere as they come."""

    def restart(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show these rows and no others."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Show one more row."""


class History:
    """Rows of the training history; `history.jsonl` is whole after every epoch.

    Args:
        path: of `history.jsonl`.
        epochs: of the whole training.
        log: where progress is told.
        board: gets every row as well, where given.
    """

    def __init__(self, path: Path, epochs: int, log: logging.Logger, board: Board | None = None):
        self.path = path
        self.epochs = epochs
        self.rows: list[dict[str, Any]] = []
        self._log = log
        self._board = board
        self._resumed_at = 0
        self._started = self._told = time.monotonic()

    def resume(self, rows: list[dict[str, Any]], epoch: int) -> None:
        """Go on after `epoch` (counted from 1) with the rows up to it."""
        self.rows = [row for row in rows if row["epoch"] <= epoch]
        self._resumed_at = epoch
        self._started = self._told = time.monotonic()
        self._write()
        if self._board is not None:
            self._board.restart(self.rows)
        self._log.info("going on after epoch %d of %d", epoch, self.epochs)

    def add(
        self,
        epoch: int,
        split: str,
        loss: float | None,
        metrics: Mapping[str, float],
        seconds: float,
        images: int,
        *,
        times: Mapping[str, float] | None = None,
        losses: Mapping[str, float] | None = None,
        learning_rate: float | None = None,
    ) -> None:
        """Add a row; what is not given of the last three is not in it.

        Args:
            epoch: from 1.
            split: `train` or `val`.
            loss: mean over the epoch; None where it is not computed.
            metrics: of the validation films; `dice` is needed.
            seconds: duration.
            images: films seen.
            times: seconds of it by what they went into: `data`, `forward`, `backward`, `step`.
            losses: the means by name whose sum is `loss`.
            learning_rate: at the end of the epoch.
        """
        row = {
            "epoch": epoch,
            "split": split,
            "loss": None if loss is None else round(float(loss), 6),
            "metrics": _rounded(metrics, 6),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 3) if seconds > 0 else None,
        }
        if times is not None:
            row["times"] = _rounded(times, 3)
        if losses is not None:
            row["losses"] = _rounded(losses, 6)
        if learning_rate is not None:
            row["learning_rate"] = float(f"{learning_rate:.6g}")
        self.rows.append(row)
        self._write()
        if self._board is not None:
            self._board.add(row)
        if split == "val":
            self._tell(epoch)

    def progress(self, epoch: int, step: int, steps: int, loss: SupportsFloat) -> None:
        """Tell within a long epoch how far it is: every 30 s at most, and not at its ends.

        Args:
            epoch: from 1.
            step: steps of the epoch that are done.
            steps: of the whole epoch.
            loss: of the last step; read only for a line that is written, as the value of a tensor
                has to be waited for on a GPU.
        """
        if not 0 < step < steps or time.monotonic() - self._told < _SILENCE:
            return
        self._log.info(
            "epoch %d of %d: step %d of %d, training loss %.3f, %s",
            epoch,
            self.epochs,
            step,
            steps,
            float(loss),
            self._left(epoch - 1 + step / steps),
        )
        self._told = time.monotonic()

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation row with the highest Dice, the first of equals."""
        rows = [row for row in self.rows if row["split"] == "val"]
        return max(rows, key=lambda row: row["metrics"]["dice"], default=None)

    def _tell(self, epoch: int) -> None:
        rows = {row["split"]: row for row in self.rows if row["epoch"] == epoch}
        train = rows.get("train", {"loss": None})
        loss = "-" if train["loss"] is None else f"{train['loss']:.3f}"
        losses = [f"{name} {value:.3f}" for name, value in train.get("losses", {}).items()]
        self._log.info(
            "epoch %d of %d: training loss %s, validation Dice %.3f, %s",
            epoch,
            self.epochs,
            f"{loss} ({', '.join(losses)})" if len(losses) > 1 else loss,
            rows["val"]["metrics"]["dice"],
            self._left(epoch),
        )
        self._told = time.monotonic()

    def _left(self, done: float) -> str:
        """The time left after `done` epochs, at the pace since the beginning or resumption."""
        pace = (time.monotonic() - self._started) / (done - self._resumed_at)
        minutes, seconds = divmod(round(pace * (self.epochs - done)), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"about {hours} h {minutes:02d} min left"
        return f"about {minutes} min {seconds:02d} s left"

    def _write(self) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))


def _rounded(numbers: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(float(number), digits) for name, number in numbers.items()}
