"""Where the runs of a series are executed: one after another, or several at a time.

An executor starts what it is given and can be told to stop; it knows no series and no dependency.
``EXECUTORS`` has one function jobs -> Executor for each way.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from lab import runner
from lab.registry import Registry
from lab.series.plan import Task


class Executor(Protocol):
    """Executes tasks; ``jobs`` of them at a time."""

    jobs: int

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


EXECUTORS: Registry[Callable[[int], Executor]] = Registry("executor")


def execute(task: Task, told: runner.Told) -> runner.Run | None:
    """The run of a task, in a process and process group of its own; None if told to stop before."""
    if told():
        return None
    return runner.run(
        task.notebook,
        task.overrides,
        profile=task.profile,
        name=task.name,
        out=task.out,
        timeout=task.timeout,
        threads=task.threads,
        memory=task.memory,
        told=told,
    )


class Serial:
    """One run after another; a run may use every core."""

    def __init__(self) -> None:
        self.jobs = 1
        self._signal: int | None = None

    def submit(self, task: Task) -> "Future[runner.Run | None]":
        """The run, which is over."""
        future: Future[runner.Run | None] = Future()
        try:
            future.set_result(execute(task, lambda: self._signal))
        except (ValueError, LookupError, OSError) as error:
            future.set_exception(error)
        return future

    def stop(self, number: int) -> None:
        """Nothing; the run going on ends as interrupted, and no other is started."""
        self._signal = number

    def close(self) -> None:
        """Nothing."""


class Processes:
    """``jobs`` runs at a time, each in processes of its own; a thread watches each of them."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._signal: int | None = None
        self._pool = ThreadPoolExecutor(jobs)

    def submit(self, task: Task) -> "Future[runner.Run | None]":
        """The run, when there is room for it."""
        return self._pool.submit(execute, task, lambda: self._signal)

    def stop(self, number: int) -> None:
        """Nothing; runs going on end as interrupted, and no other is started."""
        self._signal = number

    def close(self) -> None:
        """Nothing, once every run has ended."""
        self._pool.shutdown()


@EXECUTORS
def serial(jobs: int) -> Executor:
    """One run after another."""
    if jobs != 1:
        raise ValueError(f"the executor 'serial' has one run at a time, came -j {jobs}")
    return Serial()


@EXECUTORS
def processes(jobs: int) -> Executor:
    """That many runs at a time on this machine."""
    return Processes(jobs)
