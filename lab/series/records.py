"""What the run folders say about planned runs: state, and why one would be run (again)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import manifest
from lab.runner import claims
from lab.series.plan import Planned


@dataclass(frozen=True)
class Record:
    """A run folder as its manifest tells it, or as it must be when its runner is gone."""

    folder: Path
    content: dict[str, Any]
    state: str
    reason: str

    @property
    def id(self) -> str:
        """The run id."""
        return str(self.content["identity"]["id"])

    @property
    def name(self) -> str:
        """What the run was called: its folder without the id."""
        return self.folder.name.rpartition("-")[0]

    @property
    def hashed(self) -> dict[str, Any]:
        """What went into the id."""
        return dict(self.content["identity"]["hashed"])

    @property
    def seconds(self) -> float | None:
        """How long the run took, by a clock that never goes back; None while it is running."""
        found = self.content["outcome"].get("seconds")
        return None if found is None else float(found)


@dataclass(frozen=True)
class Decision:
    """What a sweep does with a run, and why: "skip" or "run"; ``folder``: the finished run."""

    action: str
    why: str
    folder: Path | None = None


Records = dict[Path, list[Record]]  # by the folder of the notebook


def record(folder: Path) -> Record | None:
    """The run in ``folder``; None where its manifest is damaged or missing.

    A manifest that says "running" though nothing holds the folder's lock is of a run whose runner
    was killed: its state is "interrupted".
    """
    working = claims.held(folder)  # before the manifest is read: it may end in between
    content = claims.known(folder)
    if content is None:
        return None
    state, reason = content["outcome"]["state"], content["outcome"].get("reason", "")
    if state == manifest.RUNNING and not working:
        runner = content["outcome"]["runner"]
        reason = f"the runner (pid {runner['pid']} on {runner['host']}) is gone"
        state = "interrupted"
    return Record(folder, content, state, reason)


def read(runs: Iterable[Planned]) -> Records:
    """Every run folder of the notebooks of ``runs``, each manifest read once."""
    parents = dict.fromkeys(run.parent for run in runs)
    return {parent: [r for f in _folders(parent) if (r := record(f))] for parent in parents}


def of(run: Planned, there: Records) -> Record | None:
    """The folder that stands for a planned run: the finished one, else that of its own name."""
    found = [one for one in there[run.parent] if one.id == run.id]
    finished = [one for one in found if one.state == "ok"]
    mine = [one for one in found if one.name == run.name]
    return next(iter([*finished, *mine, *found]), None)


def decide(run: Planned, there: Records) -> Decision:
    """What a sweep does with the run, and the reason, down to the part of the id that changed."""
    finished = claims.finished_run(run.parent, run.id)
    if finished:
        return Decision("skip", "finished", finished)
    return Decision("run", reason(run, there))


def reason(run: Planned, there: Records) -> str:
    """Why the run would be run: "new", "again: ..." or "changed since ...: ..."."""
    mine = of(run, there)
    return _unfit(mine) if mine else changes(run, there)


def _unfit(there: Record) -> str:
    """Why a run of the same id does not do."""
    if there.state == manifest.RUNNING:
        return f"running in {there.folder}"
    if there.state != "ok":
        return f"again: it was {there.state}: {there.reason}".removesuffix(": ")
    if names := claims.damaged(there.folder, there.content):
        return f"again: gone or not what the run wrote: {', '.join(names)}"
    if paths := manifest.changed_inputs(there.content):
        return f"again: inputs changed: {', '.join(paths)}"
    return "finished"


def changes(run: Planned, there: Records) -> str:
    """What is not as in the run of the same parameters, else of the same name; or "new"."""
    others = [one for one in there[run.parent] if one.state == "ok"]
    now = run.identity["hashed"]
    same = [one for one in others if one.hashed["parameters"] == _plain(now["parameters"])]
    named = [one for one in others if one.name == run.name]
    nearest = min(same or named, key=lambda one: len(_differing(one.hashed, now)), default=None)
    if nearest is None:
        return "new"
    return f"changed since {nearest.folder.name}: {', '.join(differing(nearest.hashed, now))}"


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The parts of two identities that differ, in words; parameters with their values."""
    was, values = before["parameters"], _plain(now["parameters"])
    return [manifest.PARTS[part] for part in _differing(before, now) if part in manifest.PARTS] + [
        f"parameter {name} {was.get(name, 'missing')!r} -> {values.get(name, 'missing')!r}"
        for name in {**was, **values}
        if (name in was, was.get(name)) != (name in values, values.get(name))
    ]


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [part for part in now if before[part] != _plain(now[part])]


def _plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def writers(sha: str, out: Path) -> list[Record]:
    """The runs below ``out`` that have written a file with this sha256: their manifests list it."""
    folders = [file.parent for file in sorted(out.glob(f"*/*/{manifest.NAME}"))]
    found = [one for folder in folders if (one := record(folder))]
    return [one for one in found if sha in one.content["outcome"].get("outputs", {}).values()]


def _folders(parent: Path) -> list[Path]:
    """The run folders of a notebook, without those that were moved aside."""
    return sorted(parent.glob("*-????????"))
