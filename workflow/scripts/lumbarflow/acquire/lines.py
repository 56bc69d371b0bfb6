"""Several lasting associations with an archive, and the one place where requests are repeated."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVar

from pynetdicom.association import Association

from .dimse import Archive, OnStore, PassingError, associate, cut

_LONGEST_PAUSE = 30.0  # seconds

Item = TypeVar("Item")
Result = TypeVar("Result")


class Line:
    """A lasting association: opened at the first request, and anew after it broke.

    Args:
        archive: whom to call.
        on_store: see :func:`association`.
        stopped: when set, nothing more is tried.
        told: called with a sentence before a request is repeated.
    """

    def __init__(
        self,
        archive: Archive,
        on_store: OnStore | None,
        stopped: threading.Event,
        told: Callable[[str], None],
    ):
        self._archive, self._on_store = archive, on_store
        self._stopped, self._told = stopped, told
        self._assoc: Association | None = None

    def do(self, request: Callable[[Association], Result]) -> Result:
        """Return `request(association)`, repeated after growing pauses while failures may pass.

        Raises:
            InputError: the failure cannot pass, or did not within `archive.attempts`.
        """
        for attempt in range(1, self._archive.attempts + 1):
            try:
                if self._assoc is None or not self._assoc.is_established:
                    self._assoc = associate(self._archive, self._on_store)
                return request(self._assoc)
            except PassingError as error:
                self.close()
                if attempt == self._archive.attempts or self._stopped.is_set():
                    raise
                # Random, so that parallel lines do not come back all at once.
                pause = min(_LONGEST_PAUSE, 2.0**attempt) * random.uniform(0.5, 1)
                self._told(f"{error} Trying again in {pause:.0f} s.")
                self._stopped.wait(pause)
        raise AssertionError("archive.attempts is at least 1")

    def close(self) -> None:
        """Break the association off, if there is one."""
        if self._assoc is not None:
            cut(self._assoc)
        self._assoc = None

    def release(self) -> None:
        """End the association in order, if there is one."""
        if self._assoc is not None and self._assoc.is_established:
            self._assoc.release()
        self._assoc = None


class Lines:
    """The associations of one run, as a context: released at the end, broken off on a failure.

    Args:
        archive: whom to call, and on how many associations.
        on_store: see :func:`lumbarflow.acquire.dimse.association`.
        told: called with a sentence before a request is repeated.
    """

    def __init__(self, archive: Archive, on_store: OnStore | None, told: Callable[[str], None]):
        self._stopped = threading.Event()
        self._lines = [
            Line(archive, on_store, self._stopped, told) for _ in range(archive.associations)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        for line in self._lines:
            (line.close if kind else line.release)()

    def do(self, request: Callable[[Association], Result]) -> Result:
        """Make one request; see :meth:`Line.do`."""
        return self._lines[0].do(request)

    def share(
        self, items: Iterable[Item], action: Callable[[Line, Item], Result]
    ) -> Iterator[Result]:
        """Yield `action(line, item)` of every item as they get done, on one thread a line.

        Raises:
            Exception: the first that an action raises; the other threads end with their item.
        """
        todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
        for item in items:
            todo.put(item)
        count = todo.qsize()

        def work(line: Line) -> None:
            while not self._stopped.is_set():
                try:
                    item = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((action(line, item), None))
                except BaseException as error:
                    done.put((None, error))
                    return

        for line in self._lines[:count]:
            threading.Thread(target=work, args=(line,), daemon=True).start()
        for _ in range(count):
            result, error = done.get()
            if error is not None:
                raise error
            yield result
