"""What the first page of a site shows: of some runs, a card each; of a series, all in one view."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lab import manifest, reading
from lab.export import cards as shown
from lab.export.cards import Figure, Run, Table
from lab.series import records, status, tables
from lab.series.plan import Series
from lab.series.records import Record

TABLES = "tables"  # the folder of the series' own tables in the site


@dataclass
class Row:
    """A run in the list of a series: its question, the parameters in which its kind differs."""

    run: Run
    question: str
    settings: list[tuple[str, str]]
    seconds: str


@dataclass
class Group:
    """Figures that belong together."""

    title: str
    figures: list[Figure]


@dataclass
class Overview:
    """The first page: ``cards`` of some runs, or ``rows``, tables and figures of a series."""

    title: str
    summary: str
    cards: list[Run] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """Every run of the page."""
        return self.cards or [row.run for row in self.rows]


def of_runs(folders: Sequence[Path], site: Path) -> Overview:
    """A card for each run folder; what the pages need is in the site.

    Raises:
        ValueError: a folder that is no run, two runs of one name, a damaged figure.
    """
    runs = [shown.run(folder, site) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        run.tables = shown.tables(folder, site / run.stem)
    count = f"{len(runs)} run" + ("s" if len(runs) > 1 else "")
    bad = [run.state for run in runs if run.state not in ("ok", "skipped")]
    ended = ", ".join(f"{bad.count(state)} {state}" for state in dict.fromkeys(bad))
    return Overview("", f"{count}, {ended}." if bad else f"{count}.", cards=runs)


def of_series(series: Series, site: Path) -> Overview:
    """Every planned run with its state, the tables of each notebook's runs, groups of figures.

    Raises:
        ValueError: a damaged figure or table; the message names it.
    """
    there = records.read(series.runs.values())
    found = {key: records.of(run, there) for key, run in series.runs.items()}
    standings = status.read(series)
    settings = _settings({key: one for key, one in found.items() if one})
    rows = [
        Row(
            _run(one, site),
            reading.title(reading.load(series.runs[one.key].task.notebook)),
            settings.get(one.key, []),
            _seconds(one.seconds),
        )
        for one in standings
    ]
    by_key = {key: row.run for key, row in zip(series.runs, rows, strict=True)}
    (site / TABLES).mkdir()
    finished = [one for one in found.values() if one and one.state == "ok"]
    links = {one.folder.name: by_key[key].page for key, one in found.items() if one}
    return Overview(
        title=series.title or series.path.stem,
        summary=f"{status.summary(standings)}.",
        rows=rows,
        tables=list(_tables(finished, site / TABLES, links)),
        groups=_groups(series, by_key),
    )


def _run(standing: status.Standing, site: Path) -> Run:
    """The run of a series as its folder tells it, or that there is none yet."""
    if standing.folder is None:
        return Run("", standing.key, standing.key, standing.state, standing.reason)
    label = f"{standing.key} · {standing.folder.name.rpartition('-')[2]}"
    return shown.run(standing.folder, site, label)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _by_notebook(found: Iterable[Record]) -> list[list[Record]]:
    families: dict[Path, list[Record]] = defaultdict(list)
    for one in found:
        families[one.folder.parent].append(one)
    return list(families.values())


def _settings(found: Mapping[str, Record]) -> dict[str, list[tuple[str, str]]]:
    """By key, the parameters in which a run differs from other runs of its notebook."""
    differ: dict[Path, list[str]] = {}
    for family in _by_notebook(found.values()):
        names = [name.removeprefix(tables.PREFIX) for name in tables.parameters(family).columns]
        differ |= {run.folder: names for run in family}
    return {
        key: [(n, repr(v)) for n, v in run.hashed["parameters"].items() if n in differ[run.folder]]
        for key, run in found.items()
    }


def _tables(finished: Iterable[Record], place: Path, links: dict[str, str]) -> list[Table]:
    """Measurements and comparisons of the runs of each notebook, as far as they saved any."""
    join: dict[str, Callable[[Sequence[Record]], pd.DataFrame]] = {
        tables.RESULTS: tables.measurements,
        tables.COMPARISONS: tables.comparisons,
    }
    made = []
    for family in _by_notebook(finished):
        notebook = family[0].folder.parent.name
        title = reading.title(reading.load(family[0].folder / manifest.EXECUTED)) or notebook
        for file, joined in join.items():
            runs = [run for run in family if (run.folder / file).is_file()]
            if runs:
                what, csv = shown.TABLES[file], place / f"{notebook}-{Path(file).stem}.csv"
                table = shown.table(joined(runs), f"{what}, {title}", csv)
                table.links = {name: page for name, page in links.items() if page}
                made.append(table)
    return made


def _groups(series: Series, by_key: dict[str, Run]) -> list[Group]:
    """The groups that the series names, then what is in none of them, by notebook."""
    named: dict[str, list[Run]] = defaultdict(list)
    for key, planned in series.runs.items():
        named[planned.name].append(by_key[key])
    grouped = {name for names in series.figures.values() for name in names}
    runs = {title: [r for n in names for r in named[n]] for title, names in series.figures.items()}
    for name, members in named.items():
        if name not in grouped:
            for run in members:
                runs.setdefault(run.title, []).append(run)
    groups = [Group(title, _side_by_side(members)) for title, members in runs.items()]
    return [group for group in groups if group.figures]


def _side_by_side(runs: Iterable[Run]) -> list[Figure]:
    """The figures of the runs; those of one name, from several runs, stand together."""
    by_name: dict[str, list[Figure]] = defaultdict(list)
    for run in runs:
        for figure in run.figures:
            by_name[figure.name].append(figure)
    return [figure for figures in by_name.values() for figure in figures]
