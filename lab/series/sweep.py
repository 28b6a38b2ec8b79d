"""A series run to its end: what is finished is skipped, what waits for a failed run never starts.

The order comes from the dependencies, everything else from the manifests, so a sweep that was
killed is resumed by starting it again.
"""

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path

from lab import manifest, runner
from lab.runner import claims
from lab.series import records
from lab.series.plan import Planned, Series, Task
from lab.series.pools import Executor

FINE = ("ok", "skipped")
BLOCKED, REFUSED, UNSTARTED = "blocked", "refused", "not started"
CODES = {BLOCKED: 0, REFUSED: 1, UNSTARTED: 0}  # a run that was blocked is not what went wrong
INTERRUPTED = 5


@dataclass(frozen=True)
class Ended:
    """How one run of a sweep ended; no folder: it was never started."""

    key: str
    state: str
    reason: str = ""
    folder: Path | None = None
    seconds: float | None = None

    @property
    def line(self) -> str:
        """State, run, time and reason."""
        took = f" {self.seconds:.1f} s" if self.seconds is not None else ""
        reason = f": {self.reason}" if self.reason else ""
        return " ".join(f"{self.state:<11} {self.key}{took}{reason}".splitlines())


Say = Callable[[Ended], None]


def sweep(series: Series, executor: Executor, say: Say = lambda ended: None) -> list[Ended]:
    """How every run ended, in the order in which they did; ``say`` gets each at once.

    A run starts when those it waits for are ok or skipped. One that cannot be started is "refused",
    one that waits for a run that is not fine "blocked". SIGINT and SIGTERM end the runs going on as
    interrupted, the others are "not started". The executor is closed.
    """
    graph = TopologicalSorter({key: run.after for key, run in series.runs.items()})
    graph.prepare()
    place = {key: at for at, key in enumerate(series.runs)}
    ended: dict[str, Ended] = {}
    going: dict[Future[runner.Run | None], Planned] = {}

    def close(one: Ended) -> None:
        ended[one.key] = one
        say(one)
        graph.done(one.key)

    def finish(futures: Iterable[Future[runner.Run | None]]) -> None:
        for future in futures:
            close(_outcome(going.pop(future), future))

    with runner.signals(executor.stop):
        try:
            while graph.is_active():
                for key in sorted(graph.get_ready(), key=place.__getitem__):
                    run = series.runs[key]
                    if outcome := _without_running(run, ended):
                        close(outcome)
                        continue
                    going[executor.submit(_task(run, executor.threads))] = run
                    finish(future for future in list(going) if future.done())
                finish(wait(going, timeout=0.5, return_when=FIRST_COMPLETED).done)
        except BaseException:
            executor.stop(signal.SIGTERM)
            raise
        finally:
            executor.close()
    return list(ended.values())


def exit_code(ended: list[Ended]) -> int:
    """0 if every run is fine, 5 if the sweep was interrupted, else the largest code of its runs."""
    if any(one.state == UNSTARTED for one in ended):
        return INTERRUPTED
    return max(((CODES | manifest.EXIT_CODES)[one.state] for one in ended), default=0)


def summary(ended: list[Ended]) -> str:
    """How many runs ended in which way."""
    counts = Counter(one.state for one in ended)
    order = [state for state in manifest.EXIT_CODES | CODES if state in counts]
    ways = ", ".join(f"{counts[state]} {state}" for state in order)
    return f"{len(ended)} runs: {ways}" if ended else "0 runs"


def _task(run: Planned, share: int) -> Task:
    """The task with its number of threads: what the file says, else its share of the cores."""
    return replace(run.task, threads=run.task.threads or share)


def _without_running(run: Planned, ended: Mapping[str, Ended]) -> Ended | None:
    """The end of a run that need not, or must not, be started."""
    for other in run.after:
        if ended[other].state not in FINE:
            return Ended(run.key, BLOCKED, f"waits for {other}, which is {ended[other].state}")
    finished = claims.finished_run(run.parent, run.id)
    return Ended(run.key, "skipped", "finished", finished) if finished else None


def _outcome(run: Planned, future: "Future[runner.Run | None]") -> Ended:
    try:
        done = future.result()
    except (ValueError, LookupError, OSError) as error:
        return Ended(run.key, REFUSED, str(error))
    if done is None:
        return Ended(run.key, UNSTARTED, "the sweep was told to stop")
    found = records.record(done.folder)
    reason = done.line.removeprefix(done.state).removeprefix(": ")
    if found and found.id != run.id:
        changed = ", ".join(records.differing(run.identity["hashed"], found.hashed))
        reason = f"{reason}; since the sweep began, changed: {changed}".removeprefix("; ")
    return Ended(run.key, done.state, reason, done.folder, found.seconds if found else None)
