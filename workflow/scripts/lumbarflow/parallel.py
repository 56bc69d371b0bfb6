"""The same work on every film, on all cores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import starmap
from typing import Any

import cv2


def each(
    work: Callable[..., Any], tasks: Sequence[tuple], processes: int, log: logging.Logger
) -> Iterator[Any]:
    """Results of `work` on each of the tasks, in order, with progress told.

    Args:
        work: what is done with a film; with several processes it and its arguments are pickled.
        tasks: the arguments of each call.
        processes: how many to use.
        log: where progress is told.
    """
    started = told = time.monotonic()
    threads, count = cv2.getNumThreads(), min(processes, len(tasks))
    if count <= 1:
        results = starmap(work, tasks)
        pool = None
    else:
        # Each process computes on one core. OpenCV's threads do not survive a fork, and a process
        # that inherits them waits for them for ever: they are stopped before.
        cv2.setNumThreads(1)
        pool = ProcessPoolExecutor(count)
        results = pool.map(work, *zip(*tasks, strict=True))
    try:
        for number, result in enumerate(results, start=1):
            yield result
            now = time.monotonic()
            if now - told > 5 or number == len(tasks):
                told = now
                left = (now - started) / number * (len(tasks) - number)
                log.info("film %d of %d, about %.0f s left", number, len(tasks), left)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)
