"""The commands that hand runs on: export (pages), crate (RO-Crate), redraw (figures), whose."""

from pathlib import Path
from typing import Annotated

import typer

from lab import paths
from lab.series.console import say, say_aside

What = Annotated[
    list[Path],
    typer.Argument(
        help="A series file; or run folders, or a folder of runs: the newest finished one of each "
        "notebook.",
        metavar="SERIES|RUN...",
    ),
]
Where = Annotated[
    Path,
    typer.Option("--runs", metavar="DIR", help="Where run folders are; default: runs/.",
                 show_default=False),
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Nothing; the commands are part of ``app``."""
    for command in (export, crate, whose, redraw):
        app.command()(command)


def export(
    what: What,
    out: Annotated[Path, typer.Option(help="The folder of the pages.")] = Path("site"),
    runs: Where = paths.RUNS,
) -> None:
    """Pages that need no network: one for each run, and one over all of them."""
    from lab import export as pages
    from lab import manifest
    from lab.series import plan

    series = plan.given(what, runs)
    say(pages.export(series or manifest.latest(what), out))


def crate(
    what: What,
    out: Annotated[Path, typer.Option(help="A new folder.")] = Path("crate"),
    runs: Where = paths.RUNS,
) -> None:
    """Runs as an RO-Crate (Process Run Crate 0.5): files, checksums, and how they came about."""
    from lab import manifest
    from lab.export import crate as crates
    from lab.series import plan

    series = plan.given(what, runs)
    if series is None:
        say(crates.export(manifest.latest(what), out, "Runs of embedding-lab"))
        return
    ended, missing = crates.ended(series)
    if missing:
        say_aside(f"left out, not ended: {', '.join(missing)}")
    say(crates.export(ended, out, series.title or series.path.stem))


def redraw(
    folder: Annotated[Path, typer.Argument(help="Saved figures, in it or in folders in it.")] = (
        paths.FIGURES
    ),
    out: Annotated[
        Path | None, typer.Option(help="Where the figures go, with their data; default: FOLDER.")
    ] = None,
    width: Annotated[
        str | None, typer.Option(help="column or page, of a two-column paper.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="sans or serif.")] = None,
    form: Annotated[str, typer.Option("--format", help="svg, or pdf with its fonts.")] = "svg",
) -> None:
    """Draw saved figures again from the tables beside them: no run, no model, seconds."""
    from lab.plotting import redrawing

    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"--out is a folder, where the figures go; {out} is a file")
    style = {key: name for key, name in (("width", width), ("family", family)) if name}
    if out is None and (style or form != "svg"):
        raise ValueError("another width, family or format is another picture: say where with --out")
    for path in redrawing.redraw_all(folder, out or folder, form=form, **style):
        say(path)


def whose(
    file: Annotated[Path, typer.Argument(help="A figure, a table, anything a run has written.")],
    runs: Where = paths.RUNS,
) -> None:
    """The run that has written a file, found by its checksum; exit 1 if there is none."""
    from lab import manifest
    from lab.series import records

    if not file.is_file():
        raise ValueError(f"no file at {file}")
    found = records.writers(manifest.digest(file), runs)
    if not found:
        raise ValueError(f"no run in {runs} has written these bytes: {file}")
    for record in found:
        code = record.content["code"]
        changed = " with changes" if code["dirty"] else ""
        say(f"{record.folder}  run {record.id}  commit {code['commit']}{changed}")
