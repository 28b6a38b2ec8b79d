"""Executors: they start the runs they are given and can be told to stop.

An executor knows no series and no dependency.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from lab import runner
from lab.series.plan import Task

Execute = Callable[[Task, runner.Told], runner.Run | None]


class Executor(Protocol):
    """Executes tasks; ``jobs`` of them at a time, each with ``threads`` if it does not say."""

    jobs: int
    threads: int

    def submit(self, task: Task) -> "Future[runner.Run | None]":
        """The run to be: None if the executor was told to stop before it started.

        The future raises ValueError, LookupError or OSError for a run that was refused.
        """

    def stop(self, number: int) -> None:
        """Nothing; runs going on end as interrupted by this signal, and no other is started.

        It is called from a signal handler: it may set a value and take no lock.
        """

    def close(self) -> None:
        """Nothing, once every run has ended and its processes are gone."""


class Pool:
    """``jobs`` runs at a time by ``execute``; a thread watches each of them."""

    def __init__(
        self, jobs: int, threads: int, execute: Execute, close: Callable[[], None] = lambda: None
    ) -> None:
        self.jobs = jobs
        self.threads = threads
        self._execute = execute
        self._close = close
        self._signal: int | None = None
        self._pool = ThreadPoolExecutor(jobs)

    def submit(self, task: Task) -> "Future[runner.Run | None]":
        """The run, when there is room for it."""
        return self._pool.submit(self._unless_stopped, task)

    def stop(self, number: int) -> None:
        """Nothing; runs going on end as interrupted, and no other is started."""
        self._signal = number

    def close(self) -> None:
        """Nothing, once every run has ended."""
        self._pool.shutdown()
        self._close()

    def _unless_stopped(self, task: Task) -> runner.Run | None:
        return None if self._signal else self._execute(task, lambda: self._signal)


def execute(
    task: Task, told: runner.Told | None, *, gpus: str | None = None, patience: float = 0.0
) -> runner.Run:
    """The run of a task, in a process and process group of its own, as :func:`lab.runner.run`."""
    return runner.run(
        task.notebook,
        task.overrides,
        profile=task.profile,
        name=task.name,
        out=task.out,
        timeout=task.timeout,
        threads=task.threads,
        memory=task.memory,
        gpus=gpus,
        patience=patience,
        told=told,
    )
