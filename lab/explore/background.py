"""Work that takes long, in a thread of its own: meanwhile the controls go on answering."""

from collections.abc import Callable
from threading import Lock, Thread

from lab.explore.faces import Status

Work = Callable[[Callable[[float], None]], None]


class Background:
    """One thread for what takes long; of several requests of one kind that wait, the newest counts.

    Args:
        status: says what is being done and how far it is, or what went wrong.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._waiting: dict[str, Work] = {}
        self._deciding = Lock()
        self._thread: Thread | None = None

    def ask(self, what: str, work: Work) -> None:
        """Run ``work`` after what runs now, and say ``what`` meanwhile.

        ``work`` takes a function that moves the bar, from 0 to 1. What it raises is said.
        """
        with self._deciding:
            self._waiting[what] = work
            if self._thread is None:
                self._thread = Thread(target=self._run, daemon=True)
                self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return self._thread is not None

    def wait(self) -> None:
        """Return when nothing runs or waits any more."""
        while thread := self._thread:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._deciding:
                if not self._waiting:
                    self._thread = None
                    return
                what = next(iter(self._waiting))
                work = self._waiting.pop(what)
            with self._status.during(what) as move:
                work(move)
