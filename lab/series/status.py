"""How a series stands, from the manifests alone."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import manifest
from lab.series import records
from lab.series.plan import Planned, Series

MISSING = "not run"
INTEREST = (manifest.RUNNING, "dead", "failed", "timeout", "interrupted", MISSING, "ok")
STYLES = {
    "ok": "green",
    manifest.RUNNING: "cyan",
    MISSING: "dim",
    "interrupted": "yellow",
    "timeout": "yellow",
    "failed": "red",
    "dead": "red",
}


@dataclass(frozen=True)
class Standing:
    """One planned run: its state, why it is so, how long it took or has been going on."""

    key: str
    state: str
    reason: str
    seconds: float | None
    folder: Path | None

    @property
    def line(self) -> str:
        """State, run, time and reason."""
        took = "" if self.seconds is None else f" {self.seconds:.1f} s"
        reason = f": {self.reason}" if self.reason else ""
        return " ".join(f"{self.state:<11} {self.key}{took}{reason}".splitlines())

    def as_json(self) -> dict[str, object]:
        """Plain values by name."""
        return asdict(self) | {"folder": str(self.folder) if self.folder else None}


def read(series: Series) -> list[Standing]:
    """One entry a planned run, in the order of the file.

    A manifest that says "running" is believed only while a process holds its folder. Outputs are
    not read: a sweep does that before it skips a run.
    """
    there = records.read(series.runs.values())
    return [_standing(run, there) for run in series.runs.values()]


def summary(standings: Sequence[Standing]) -> str:
    """How many runs there are in each state, the finished ones first."""
    counts = Counter(one.state for one in standings)
    order = [state for state in STYLES if state in counts]
    return f"{len(standings)} runs: " + ", ".join(f"{counts[state]} {state}" for state in order)


def telling(standings: Sequence[Standing], room: int) -> list[Standing]:
    """As many as there is room for (at least one), in their order: what goes on or wrong first."""
    first = sorted(standings, key=lambda one: INTEREST.index(one.state))[: max(1, room)]
    return [one for one in standings if one in first]


def _standing(run: Planned, there: records.Records) -> Standing:
    found = records.of(run, there)
    if found is None:
        why = records.changes(run, there)
        return Standing(run.key, MISSING, "" if why == "new" else why, None, None)
    seconds = found.seconds
    if found.state == manifest.RUNNING:
        seconds = max(0.0, time.monotonic() - found.content["outcome"]["clock"])
        if found.content["outcome"]["runner"]["host"] != os.uname().nodename:
            seconds = None  # a clock of another machine
    return Standing(run.key, found.state, found.reason, seconds, found.folder)
