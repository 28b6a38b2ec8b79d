"""The command ``lab report``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from lab.series import console
from lab.series.console import printable


def report(
    file: Annotated[Path, typer.Argument(help="A .csv, .tsv, .jsonl, .jsonl.gz or .parquet file.")],
    text: Annotated[
        str | None,
        typer.Option(help="The column of the texts; default: the only one that looks like text."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The column of the labels, if any.")] = None,
    model: Annotated[
        str, typer.Option(help="A name of `lab models`, a folder or a hub id.")
    ] = "minilm-l6",
    out: Annotated[
        Path | None, typer.Option(help="A new folder, or an earlier report; default: FILE-report.")
    ] = None,
    max_rows: Annotated[
        int, typer.Option(help="Texts measured at the most; of more, a random sample.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the sample, of intervals, of texts shown.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU.")] = None,
) -> None:
    """Is a model healthy on my texts? Defects by row, then a page: OUT/report.html."""
    from lab.report import defects
    from lab.report.rows import stem
    from lab.report.survey import survey

    begun = time.monotonic()

    def say(line: str) -> None:
        console.say(printable(line))

    out = out or file.with_name(f"{stem(file)}-report")
    found = survey(file, text=text, label=label, most=max_rows, seed=seed)
    say(f"{file.name}: {found.rows:,} rows, {found.distinct:,} different texts")
    for note in found.notes:
        say(f"  {note}")
    for one in defects.counts(found.defects).itertuples():
        say(f"  {one.kind}: {one.rows} (row {one.which}): {one.meaning}".replace("(row )", ""))
    from lab import models
    from lab.report import page
    from lab.report.findings import findings
    from lab.report.health import examine

    page.check(out)
    say(f"reading {len(found.texts):,} texts with {model} ...")
    health = examine(found, models.load(model, device=device), seed=seed)
    path = page.write(health, out)
    for finding in findings(health):
        say(f"{finding.state:>8}  {finding.about}: {finding.says}")
    say(f"{time.monotonic() - begun:.0f} s")
    say(str(path))
