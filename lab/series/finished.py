"""The commands on finished runs: compare, verify."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab import paths
from lab.series.console import HERE, say, say_aside

if TYPE_CHECKING:
    import pandas as pd

    from lab.series.records import Record

DIFFERS = 2
WIDE = 10_000  # columns of what is no terminal
SHOWN = ["metric", "setting", "baseline", "n", "difference", "low", "high", "p_holm", "effect"]
SHOWN += ["group", "baseline_group", "verdict"]  # of paired tests, in a console


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
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Only these rows; bin= takes the empty; repeat."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric.")] = None,
    comparisons: Annotated[
        bool, typer.Option("--comparisons", help="The comparisons within runs, with tie groups.")
    ] = False,
    between: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Test its values: parameter.NAME, or another column."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="VALUE", help="Test against this value, not all pairs.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What is paired; default: dataset.")
    ] = None,
    average: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Take the mean over it, as over seeds; repeat."),
    ] = None,
) -> None:
    """One table over the finished runs: measurements with intervals, parameters as columns.

    With --between the values of one parameter are tested against each other, each metric by itself:
    Wilcoxon's exact signed-rank test over data sets, the shift (Hodges and Lehmann) with its
    interval, Holm's correction over the pairs, the smallest p that could have come out, tie groups.
    Rows of one data set are not independent. So each data set gives one number for each value: the
    mean over seeds, of rows that agree in all else. Where layers or poolings vary, choose with
    --where, or take the mean with --average. With one data set only, --unit parameter.seed asks
    whether the seed decides the difference there.

    A console shows the columns to read; a file has them all.
    """
    if between is None and (alone := [unit, baseline, *(average or [])]) != [None, None]:
        raise ValueError(f"--unit, --baseline and --average belong to --between; came {alone}")
    if between and comparisons:
        raise ValueError("--between tests across runs, --comparisons shows those within: give one")
    found = _finished(what, runs)
    chosen = [*([f"metric={metric}"] if metric else []), *(where or [])]
    table = _chosen(found, comparisons, chosen)
    title = what[0].stem if len(what) == 1 else f"{len(found)} runs"
    if between:
        about = " and ".join([f"over {unit or 'dataset'}", *chosen])
        title = f"{title}: {between} {about}"
        table = _tests(found, table, between, unit, average or [], baseline)
    _show(table, out or [], title, SHOWN if between else list(table.columns))


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
        say(f"changed since: {', '.join(verdict.changed)}")
    for line in verdict.differences:
        say(line)
    if verdict.run.exit_code:
        say(f"the repetition {verdict.run.line}")
        raise typer.Exit(verdict.run.exit_code)
    say(f"{'differs' if verdict.differences else 'same'}: {', '.join(verdict.compared)}")
    raise typer.Exit(DIFFERS if verdict.differences else 0)


def _finished(what: Sequence[Path], out: Path) -> "list[Record]":
    """The finished runs of a series, or those in the folders; what is left out is said."""
    from lab.series import plan, records

    if series := plan.given(what, out):
        there = records.read(series.runs.values())
        found = {key: records.of(run, there) for key, run in series.runs.items()}
    else:
        found = {str(folder): records.record(folder) for folder in what}
    finished = [one for one in found.values() if one and one.state == "ok"]
    missing = [key for key, one in found.items() if not one or one.state != "ok"]
    if missing:
        say_aside(f"left out, not finished: {', '.join(missing)}")
    if not finished:
        raise ValueError(f"no finished run among {', '.join(map(str, what))}; `lab sweep` first")
    return finished


def _chosen(found: "list[Record]", comparisons: bool, chosen: Sequence[str]) -> "pd.DataFrame":
    """The table over the runs, of it the rows that were asked for."""
    from lab.series import tables

    table = tables.comparisons(found) if comparisons else tables.measurements(found)
    for condition in chosen:
        column, equals, value = condition.partition("=")
        if not equals:
            raise ValueError(f"--where wants COLUMN=VALUE such as layer=15, came {condition!r}")
        table = tables.where(table, column, value)
    return table


def _tests(
    found: "list[Record]",
    table: "pd.DataFrame",
    column: str,
    unit: str | None,
    average: Sequence[str],
    baseline: str | None,
) -> "pd.DataFrame":
    """The paired tests; what stands in their way is said."""
    from lab.series import between, tables

    if parts := tables.unlike(found):
        say_aside(f"the runs differ in more than parameters: {', '.join(parts)}")
    tests, left_out = between.compare(
        table, column, unit=unit or between.UNIT, average=average, baseline=baseline
    )
    for metric, why in left_out.items():
        say_aside(f"left out, {metric}: {why}")
    return tests


def _show(table: "pd.DataFrame", out: Sequence[Path], title: str, columns: list[str]) -> None:
    """The table in every file of ``out``; without one, those columns in the console."""
    from lab.series import formats

    for path in out:
        formats.write(table, path, title)
        say(f"{path}")
    if not out:
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else WIDE)
        console.print(_rich(formats.shown(table[columns])))


def _rich(texts: "pd.DataFrame") -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(*map(str, texts.columns))
    for row in texts.itertuples(index=False):
        table.add_row(*map(Text, row))
    return table
