"""The runs that a series file asks for, each with its parameters, its id and what it waits for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

from lab import manifest, share
from lab.registry import unknown
from lab.runner import notebooks, parameters
from lab.series import schema


@dataclass(frozen=True)
class Task:
    """What an executor is given: the arguments of ``runner.run``, which can be sent elsewhere."""

    notebook: Path
    overrides: dict[str, Any]
    profile: str
    name: str
    out: Path
    timeout: float | None
    threads: int | None
    memory: float | None
    gpus: float


@dataclass(frozen=True)
class Planned:
    """One run: ``key`` names it in the series, ``name`` is what the file calls it."""

    key: str
    name: str
    task: Task
    settings: dict[str, Any]
    identity: dict[str, Any]
    after: tuple[str, ...]

    @property
    def id(self) -> str:
        """The run id, as ``runner.run`` will compute it while nothing changes."""
        return str(self.identity["id"])

    @property
    def parent(self) -> Path:
        """The folder that holds the folders of this notebook's runs."""
        return self.task.out / self.task.notebook.stem


@dataclass(frozen=True)
class Series:
    """The runs by key, in the order of the file, the folder they go to, the groups of figures."""

    path: Path
    out: Path
    title: str
    runs: dict[str, Planned]
    figures: dict[str, list[str]]


def given(what: Sequence[Path], out: Path) -> Series | None:
    """The series, if it is one series file that a command was given; else None."""
    if len(what) == 1 and what[0].suffix in (".yaml", ".yml"):
        return load(what[0], out)
    return None


def load(path: Path, out: Path) -> Series:
    """The checked series of a file, its runs to be in ``out``; nothing is started or written.

    Raises:
        ValueError: a file, run, parameter, grid or dependency that is not sound; two runs with one
            id. The message names the file and the run.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    content = schema.read(path)
    keys: dict[str, list[str]] = {}
    planned: list[Planned] = []
    plan = _Planner(path, out, content.defaults)
    for name in _order(content.runs, path):
        after = tuple(key for other in content.runs[name].after for key in keys[other])
        try:
            found = plan.runs(name, content.runs[name], after)
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path}: run {name!r}: {error}") from None
        keys[name] = [run.key for run in found]
        planned += found
    _check_distinct(planned, path)
    for title, names in content.figures.items():
        for name in names:
            if name not in content.runs:
                says = unknown("run", name, content.runs)
                raise ValueError(f"{path}: figures {title!r}: {says}")
    by_key = {run.key: run for run in planned}
    ordered = {key: by_key[key] for name in content.runs for key in keys[name]}
    return Series(path, out, content.title, ordered, content.figures)


class _Planner:
    """What the runs of a file share: read once, for identities cost a tenth of a second."""

    def __init__(self, path: Path, out: Path, defaults: schema.Limits) -> None:
        self.path, self.out, self.defaults = path, out, defaults
        self.around = manifest.surroundings()
        self.signatures: dict[Path, parameters.Signature] = {}

    def runs(self, name: str, spec: schema.RunsOf, after: tuple[str, ...]) -> list[Planned]:
        """The runs of one entry of the file."""
        notebook = self.notebook(spec.notebook)
        if notebook not in self.signatures:
            self.signatures[notebook] = parameters.read(notebook)
        both = sorted(spec.parameters.keys() & spec.grid.keys())
        if both:
            raise ValueError(f"{', '.join(both)}: both in parameters and in grid; keep one")
        points = [dict(zip(spec.grid, p, strict=True)) for p in product(*spec.grid.values())]
        return [self.run(name, notebook, spec, point, after) for point in points]

    def run(
        self,
        name: str,
        notebook: Path,
        spec: schema.RunsOf,
        point: Mapping[str, Any],
        after: tuple[str, ...],
    ) -> Planned:
        """The run at one point of the grid."""
        signature = self.signatures[notebook]
        profile = spec.profile or self.defaults.profile or parameters.PROFILE
        overrides = {**spec.parameters, **point}
        settings = parameters.resolve(signature, overrides, profile)
        settings.pop(parameters.SET_BY_RUNNER, None)
        defaults = {key: p.default for key, p in signature.parameters.items()}
        bounds = {limit: self.limit(spec, limit) for limit in ("timeout", "threads", "memory")}
        gpus = self.limit(spec, "gpus") or 0.0
        task = Task(notebook, overrides, profile, name, self.out, gpus=gpus, **bounds)
        identity = manifest.identity(notebook, settings, defaults, self.around)
        at = ",".join(f"{key}={_shown(v, spec.grid[key])}" for key, v in point.items())
        key = f"{name}[{at}]" if at else name
        return Planned(key, name, task, settings, identity, after)

    def limit(self, spec: schema.RunsOf, name: str) -> Any:
        """What the entry says or, where it says nothing, what holds for every run."""
        own = getattr(spec, name)
        return getattr(self.defaults, name) if own is None else own

    def notebook(self, name: str | int) -> Path:
        """The notebook of that number or name, or at that path from the series file."""
        name = str(name)
        path = self.path.parent / name if name.endswith(".ipynb") else notebooks.find(name)
        return path.resolve()


def _shown(value: object, among: Iterable[object]) -> str:
    """The value as text; quoted where another one in the list would read the same: 1 and "1"."""
    return repr(value) if sum(str(other) == str(value) for other in among) > 1 else str(value)


def _order(runs: Mapping[str, schema.RunsOf], path: Path) -> list[str]:
    """The names, each after those it waits for."""
    for name, run in runs.items():
        for other in run.after:
            if other not in runs:
                raise ValueError(f"{path}: run {name!r} is after: {unknown('run', other, runs)}")
    try:
        return list(
            TopologicalSorter({name: run.after for name, run in runs.items()}).static_order()
        )
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise ValueError(f"{path}: runs wait for each other: {cycle}; break the circle") from None


def _check_distinct(planned: Iterable[Planned], path: Path) -> None:
    first: dict[tuple[Path, str], Planned] = {}
    for run in planned:
        other = first.setdefault((run.parent, run.id), run)
        if other is not run:
            raise ValueError(
                f"{path}: {other.key!r} and {run.key!r} have one id, {run.id[:8]}: "
                "the same notebook with the same parameters; delete one"
            )


def shard(series: Series, number: int, count: int) -> Series:
    """The part ``number`` of ``count`` (from 1) of a series; together the parts are the series.

    Runs that wait for each other stay in one part. The same file gives the same parts everywhere.

    Raises:
        ValueError: number outside 1..count.
    """
    share.check(number, count)
    place = {key: at for at, key in enumerate(series.runs)}
    parts: list[list[str]] = [[] for _ in range(count)]
    for family in sorted(_families(series), key=lambda keys: (-len(keys), place[keys[0]])):
        min(parts, key=len).extend(family)
    chosen = sorted(parts[number - 1], key=place.__getitem__)
    return replace(series, runs={key: series.runs[key] for key in chosen})


def _families(series: Series) -> list[list[str]]:
    """The keys of runs that are linked by dependencies, each family in the order of the file."""
    families: dict[str, list[str]] = {}
    for key, run in series.runs.items():
        merged = families.setdefault(key, [key])
        for other in run.after:
            theirs = families.setdefault(other, [other])
            if theirs is not merged:
                merged += theirs
                families.update(dict.fromkeys(theirs, merged))
    place = {key: at for at, key in enumerate(series.runs)}
    distinct = {id(keys): keys for keys in families.values()}
    return [sorted(keys, key=place.__getitem__) for keys in distinct.values()]
