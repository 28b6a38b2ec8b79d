"""The commands on series of runs: sweep, status, clean, series-schema; and those on finished runs.

``register`` is the one place that knows them all.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab import paths, share
from lab.series.console import AsJson, Out, say, say_json
from lab.series.finished import compare, verify

if TYPE_CHECKING:
    from lab.series.plan import Series
    from lab.series.status import Standing

REFRESH = 1.0  # seconds
FRAME = 6  # lines of a table besides its rows
MEGABYTE = 1e6

SeriesPath = Annotated[Path, typer.Argument(metavar="SERIES", help="A series file: series/*.yaml.")]


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
    part = share.read(shard) if shard else ()
    chosen = plan.shard(whole, *part) if part else whole
    make = EXECUTORS[executor or ("serial" if (jobs or 1) == 1 else "processes")]
    if dry_run:
        _decisions(chosen)
        return
    with locks.swept(whole.out, whole.path.stem, "/".join(map(str, part))):
        there = records.read(chosen.runs.values())
        why = {key: records.reason(run, there) for key, run in chosen.runs.items()}
        workers = make(jobs)
        say(f"{len(chosen.runs)} runs, {workers.jobs} at a time, in {whole.out}")
        count = 0

        def tell(ended: sweeping.Ended) -> None:
            nonlocal count
            count += 1
            because = f"  ({why[ended.key]})" if ended.state in ("ok", "failed") else ""
            say(f"[{count}/{len(chosen.runs)}] {ended.line}{because}")

        ended = sweeping.sweep(chosen, workers, tell)
    say(sweeping.summary(ended))
    raise typer.Exit(sweeping.exit_code(ended))


def status(series: SeriesPath, out: Out = paths.RUNS, as_json: AsJson = False) -> None:
    """How the runs of a series stand; in a terminal, until the sweep that is going on has ended."""
    from lab.series import locks, plan
    from lab.series import status as standing

    found = plan.load(series, out)
    if as_json:
        say_json([one.as_json() for one in standing.read(found)])
        return
    if not sys.stdout.isatty():
        standings = standing.read(found)
        for one in standings:
            say(one.line)
        say(standing.summary(standings))
        return
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while locks.sweeping(found.out):
            standings = standing.read(found)
            shown = standing.telling(standings, console.height - FRAME)
            live.update(_table(shown, standing.summary(standings)), refresh=True)
            time.sleep(REFRESH)
    standings = standing.read(found)
    console.print(_table(standings, standing.summary(standings)))


def clean(
    out: Out = paths.RUNS,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them; without it they are only listed.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="What runs keep for later ones, instead of runs.")
    ] = False,
) -> None:
    """Run folders that failed, died, were interrupted or moved aside; listed, or deleted."""
    from lab.series import clean as cleaning

    found = cleaning.caches() if cache else cleaning.leftovers(out)
    for one in found:
        if delete:
            (cleaning.empty if cache else cleaning.delete)(one)
        say(f"{one.size / MEGABYTE:9.1f} MB  {one.folder}  {one.why}")
    total = sum(one.size for one in found) / MEGABYTE
    verb = "deleted" if delete else "would be deleted with --delete"
    say(f"{len(found)} folders, {total:.1f} MB {verb}")


def series_schema() -> None:
    """The JSON schema of series files, for editors."""
    from lab.series import schema

    say_json(schema.SeriesFile.model_json_schema())


def _decisions(series: "Series") -> None:
    """Nothing; one line a run says what a sweep would do."""
    from lab.series import records

    there = records.read(series.runs.values())
    decisions = {key: records.decide(run, there) for key, run in series.runs.items()}
    for key, decision in decisions.items():
        say(f"{decision.action:<5} {key}: {decision.why}")
    runs = sum(decision.action == "run" for decision in decisions.values())
    say(f"{runs} to run, {len(decisions) - runs} to skip")


def _table(standings: "Sequence[Standing]", caption: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    from lab.series import status as standing

    table = Table("run", "state", "s", "reason", caption=caption)
    for one in standings:
        seconds = "" if one.seconds is None else f"{one.seconds:.0f}"
        state = Text(one.state, style=standing.STYLES[one.state])
        table.add_row(Text(one.key), state, seconds, Text(one.reason))
    return table
