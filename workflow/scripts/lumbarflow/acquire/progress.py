"""Progress of long work: how much is done, how fast, what failed and how long it may still take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable


class Progress:
    """Counts pieces of work and logs now and then; may be shared by threads.

    A line is logged when `every` seconds have passed since the last one, and when the last piece is
    through. The rate is that of the whole time since the object was made: make it when the work
    starts, and leave out what was there before.
    """

    def __init__(
        self,
        total: int,
        log: logging.Logger,
        unit: str = "films",
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Start the clock.

        Args:
            total: pieces of work in all; may be raised while more is found.
            log: where lines go.
            unit: what a piece is called, in the plural.
            every: shortest time between lines, seconds.
            clock: the time, seconds.
        """
        self.total = total
        self._log, self._unit, self._every, self._clock = log, unit, every, clock
        self._lock = threading.Lock()
        self._done = self._failures = 0
        self._started = self._told = clock()

    def done(self, n: int = 1) -> None:
        """Count `n` pieces that are through."""
        self._count(n, 0)

    def failed(self) -> None:
        """Count a piece that did not work; it is through as well."""
        self._count(0, 1)

    def _count(self, done: int, failures: int) -> None:
        with self._lock:  # held while logging, so that lines come in order
            self._done += done
            self._failures += failures
            now = self._clock()
            if self._done + self._failures >= self.total or now - self._told >= self._every:
                self._told = now
                self._log.info("%s", self._line(now - self._started))

    def _line(self, seconds: float) -> str:
        through = self._done + self._failures
        rate = through / max(seconds, 1e-3)
        parts = [f"{rate:.1f} {self._unit}/s" if rate >= 1 else f"{60 * rate:.1f} {self._unit}/min"]
        if through < self.total:
            parts.append(f"{in_words((self.total - through) / max(rate, 1e-9))} left")
        if self._failures:
            parts.append(f"{self._failures} failed")
        return f"{through} of {self.total} {self._unit} ({', '.join(parts)})"


def in_words(seconds: float) -> str:
    """A length of time as people say it: `about 3 min`."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"about {round(seconds, -1):.0f} s"
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return f"about {minutes} min"
    hours, minutes = divmod(round(minutes, -1), 60)
    if hours < 48:
        return f"about {hours} h {minutes} min" if minutes else f"about {hours} h"
    return f"about {round(hours / 24)} days"
