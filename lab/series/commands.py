"""The commands on series of runs: sweep, status, compare, verify, clean, series-schema."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab import paths

if TYPE_CHECKING:
    from lab.series.plan import Series
    from lab.series.records import Record
    from lab.series.status import Standing

DIFFERS = 2
REFRESH = 1.0  # seconds
MEGABYTE = 1e6

SeriesPath = Annotated[Path, typer.Argument(metavar="SERIES", help="A series file: series/*.yaml.")]
HERE = "Where the run folders are; default: runs/."
Out = Annotated[Path, typer.Option(help=HERE, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Nothing; the commands are part of ``app``."""
    for command in (sweep, status, compare, verify, clean):
        app.command()(command)
    app.command("series-schema")(series_schema)


def sweep(
    series: SeriesPath,
    jobs: Annotated[
        int | None,
        typer.Option("-j", "--jobs", min=1, help="Runs at a time; of ray: its cores."),
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="serial, processes or ray; default: processes if -j > 1.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Part I of N, as in a Slurm array.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run and why; start nothing.")
    ] = False,
    out: Out = paths.RUNS,
) -> None:
    """Run what a series lacks; finished runs are skipped. Start it again to resume.

    Exit codes: 0 every run is ok or skipped, 1 refused, 5 interrupted, else the largest of the
    runs' own.
    """
    from lab.series import locks, plan, records
    from lab.series import sweep as sweeping
    from lab.series.executors import EXECUTORS

    whole = plan.load(series, out)
    chosen = plan.shard(whole, *_part(shard)) if shard else whole
    make = EXECUTORS[executor or ("serial" if (jobs or 1) == 1 else "processes")]
    if dry_run:
        _decisions(chosen)
        return
    with locks.swept(whole.out, whole.path.stem, shard or ""):
        there = records.read(chosen.runs.values())
        why = {key: records.reason(run, there) for key, run in chosen.runs.items()}
        workers = make(jobs)
        _say(f"{len(chosen.runs)} runs, {workers.jobs} at a time, in {whole.out}")
        count = 0

        def say(ended: sweeping.Ended) -> None:
            nonlocal count
            count += 1
            because = f"  ({why[ended.key]})" if ended.state in ("ok", "failed") else ""
            _say(f"[{count}/{len(chosen.runs)}] {ended.line}{because}")

        ended = sweeping.sweep(chosen, workers, say)
    _say(sweeping.summary(ended))
    raise typer.Exit(sweeping.exit_code(ended))


def status(series: SeriesPath, out: Out = paths.RUNS, as_json: AsJson = False) -> None:
    """How the runs of a series stand; in a terminal, until the sweep that is going on has ended."""
    from lab.series import locks, plan
    from lab.series import status as standing

    found = plan.load(series, out)
    if as_json:
        _json([one.as_json() for one in standing.read(found)])
        return
    if not sys.stdout.isatty():
        for one in standing.read(found):
            _say(one.line)
        _say(standing.summary(standing.read(found)))
        return
    from rich.live import Live

    with Live(_table(standing.read(found)), auto_refresh=False) as live:
        while locks.sweeping(found.out):
            time.sleep(REFRESH)
            live.update(_table(standing.read(found)), refresh=True)
        live.update(_table(standing.read(found)), refresh=True)


def compare(
    what: Annotated[
        list[Path], typer.Argument(metavar="SERIES|RUN...", help="A series file, or run folders.")
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", metavar="FILE", help="Write .csv, .parquet, .tex, .html; repeat."),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--runs", metavar="DIR", help=HERE, show_default=False)
    ] = paths.RUNS,
    comparisons: Annotated[
        bool, typer.Option("--comparisons", help="The paired comparisons with tie groups instead.")
    ] = False,
    metric: Annotated[str | None, typer.Option(help="Only this metric.")] = None,
) -> None:
    """One table over the finished runs: measurements with intervals, parameters as columns."""
    from lab.series import formats, tables

    found = _finished(what, runs)
    table = tables.comparisons(found) if comparisons else tables.measurements(found)
    if metric:
        table = tables.only(table, metric)
    title = what[0].stem if len(what) == 1 else f"{len(found)} runs"
    for path in out or []:
        formats.write(table, path, title)
        _say(f"{path}")
    if not out:
        from rich.console import Console

        Console().print(_rich(formats.shown(table)))


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    tolerance: Annotated[
        float, typer.Option(help="Absolute and relative; numbers may differ by it.")
    ] = 0.0,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole run.")] = None,
) -> None:
    """Run it again elsewhere and compare every table; exit 2 if one differs."""
    from lab.series import verify as verification

    verdict = verification.verify(run, tolerance=tolerance, timeout=timeout)
    if verdict.changed:
        _say(f"changed since: {', '.join(verdict.changed)}")
    for line in verdict.differences:
        _say(line)
    if verdict.run.exit_code:
        _say(f"the repetition {verdict.run.line}")
        raise typer.Exit(verdict.run.exit_code)
    _say(f"{'differs' if verdict.differences else 'same'}: {', '.join(verdict.compared)}")
    raise typer.Exit(DIFFERS if verdict.differences else 0)


def clean(
    out: Out = paths.RUNS,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them; without it they are only listed.")
    ] = False,
) -> None:
    """Run folders that failed, died, were interrupted, moved aside, or have no manifest."""
    from lab.series import clean as cleaning

    found = cleaning.leftovers(out)
    for one in found:
        if delete:
            cleaning.delete(one)
        _say(f"{one.size / MEGABYTE:9.1f} MB  {one.folder}  {one.why}")
    total = sum(one.size for one in found) / MEGABYTE
    verb = "deleted" if delete else "would be deleted with --delete"
    _say(f"{len(found)} folders, {total:.1f} MB {verb}")


def series_schema() -> None:
    """The JSON schema of series files, for editors."""
    from lab.series import schema

    _json(schema.SeriesFile.model_json_schema())


def _part(shard: str) -> tuple[int, int]:
    number, slash, count = shard.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise ValueError(f"--shard wants i/n such as 1/4, came {shard!r}")
    return int(number), int(count)


def _decisions(series: "Series") -> None:
    """Nothing; one line a run says what a sweep would do."""
    from lab.series import records

    there = records.read(series.runs.values())
    decisions = {key: records.decide(run, there) for key, run in series.runs.items()}
    for key, decision in decisions.items():
        _say(f"{decision.action:<5} {key}: {decision.why}")
    runs = sum(decision.action == "run" for decision in decisions.values())
    _say(f"{runs} to run, {len(decisions) - runs} to skip")


def _finished(what: Sequence[Path], out: Path) -> "list[Record]":
    """The finished runs of a series, or those in the folders; what is left out is said."""
    from lab.series import plan, records

    if len(what) == 1 and what[0].suffix in (".yaml", ".yml"):
        series = plan.load(what[0], out)
        there = records.read(series.runs.values())
        found = {key: records.of(run, there) for key, run in series.runs.items()}
    else:
        found = {str(folder): records.record(folder) for folder in what}
    finished = [one for one in found.values() if one and one.state == "ok"]
    missing = [key for key, one in found.items() if not one or one.state != "ok"]
    if missing:
        sys.stderr.write(f"left out, not finished: {', '.join(missing)}\n")
    if not finished:
        raise ValueError(f"no finished run among {', '.join(map(str, what))}; `lab sweep` first")
    return finished


def _table(standings: "Sequence[Standing]") -> Any:
    from rich.table import Table
    from rich.text import Text

    from lab.series import status as standing

    table = Table("run", "state", "s", "reason", caption=standing.summary(standings))
    for one in standings:
        seconds = "" if one.seconds is None else f"{one.seconds:.0f}"
        state = Text(one.state, style=standing.STYLES[one.state])
        table.add_row(Text(one.key), state, seconds, Text(one.reason))
    return table


def _rich(texts: Any) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(*map(str, texts.columns))
    for row in texts.itertuples(index=False):
        table.add_row(*map(Text, row))
    return table


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _json(content: object) -> None:
    _say(json.dumps(content, indent=1, default=str))
