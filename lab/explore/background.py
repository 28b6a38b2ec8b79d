"""Work that takes long, in a thread of its own: meanwhile the controls go on answering."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from lab.explore.faces import Status
from lab.explore.passes import Progress


class Background:
    """One thread for what takes long; of several requests of one kind that wait, the newest counts.

    Args:
        status: says what is being done and how far it is, or what went wrong.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._waiting: dict[str, Callable[[], None]] = {}
        self._deciding = Lock()
        self._thread: Thread | None = None
        self._ended: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self, what: str, work: Callable[[Progress], Any], then: Callable[[Any], None]) -> None:
        """Run ``work`` after what runs now, saying ``what``; then hand its result to ``then``.

        ``work`` takes a function that moves the bar; what it raises is said. ``then`` is called
        by the event loop that this was called from, because a figure must not be drawn by one
        thread while another hears what the browser says of it; without a loop, by :meth:`wait`.
        """
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

        def run() -> None:
            with self._status.during(what) as move:
                result = work(move)
                self._ended.put(lambda: then(result))
                if self._loop:
                    self._loop.call_soon_threadsafe(self._end)

        with self._deciding:
            self._waiting[what] = run
            if self._thread is None:
                self._thread = Thread(target=self._run, daemon=True)
                self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return self._thread is not None

    def wait(self) -> None:
        """Return when nothing runs or waits any more and everything has been handed over."""
        while self.busy or not self._ended.empty():
            if thread := self._thread:
                thread.join()
            self._end()

    def _end(self) -> None:
        """Hand over what has been computed since the last time."""
        with suppress(Empty):
            while True:
                self._ended.get_nowait()()

    def _run(self) -> None:
        while True:
            with self._deciding:
                if not self._waiting:
                    self._thread = None
                    return
                run = self._waiting.pop(next(iter(self._waiting)))
            run()
