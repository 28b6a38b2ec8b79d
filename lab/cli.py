"""The command ``lab``: one notebook, a series of them, a study, a corpus; data, models, pages.

Exit codes: 0 done, 1 refused (also every usage error: click's own 2 means a failed cell here),
2 a cell failed, 3 the kernel died, 4 timeout, 5 interrupted. Heavy imports are in the commands.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from lab import paths, publish, share, student
from lab.corpus import command as corpus
from lab.report import command as reports
from lab.series import commands as series
from lab.series.console import AsJson, printable, say_json

if TYPE_CHECKING:
    import pandas as pd

    from lab.runner.execution import Event

REFUSED = 1
INTERRUPTED = 5
CTRL_C = 130  # how typer reports it

HELP = """Notebooks on text-embedding models: what there is, run one, make pages of it.

Exit codes of run: 0 ok or skipped, 1 refused, 2 a cell failed, 3 the kernel died, 4 timeout,
5 interrupted."""

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)
data_app = typer.Typer(help="What data sets there are; fetch one into the mirror.")
app.add_typer(data_app, name="data")
series.register(app)
app.command()(corpus.embed)
app.command()(student.student)
app.command()(reports.report)
publish.register(app)

Notebook = Annotated[str, typer.Argument(help="A path, a number (01) or a name (01_pooling).")]
Runs = Annotated[
    list[Path],
    typer.Argument(
        help="Run folders, or a folder of runs: the newest finished one of each notebook.",
        metavar="RUN...",
    ),
]


def main() -> None:
    """Runs the command line; exits with 0-5 as the module says."""
    command = typer.main.get_command(app)
    try:
        code = command.main(standalone_mode=False) or 0
    except typer.TyperException as error:  # usage: click would exit with 2
        says = error.format_message()  # empty: `lab` alone, which has shown the help
        _stop(f"refused: {says}; `lab --help` shows what there is" if says else "", REFUSED)
    except (ValueError, LookupError, OSError, ImportError, FloatingPointError) as error:
        _stop(f"refused: {error}", REFUSED)
    except typer.Abort:
        code = CTRL_C
    if code == CTRL_C:
        _stop("interrupted", INTERRUPTED)
    sys.exit(code)


def _stop(message: str, code: int) -> NoReturn:
    # One line, whatever the message holds: the last line of output is for programs.
    sys.stdout.flush()
    sys.stderr.write(printable(" ".join(message.split())) + "\n")
    sys.exit(code)


@app.command("list")
def list_notebooks() -> None:
    """The notebooks: number, question, what it examines, what it needs."""
    from lab import reading

    table = Table("notebook", "question", "claim", "time")
    for path in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")):
        content = reading.load(path)
        card = reading.card(content)
        table.add_row(
            path.stem, reading.title(content), card.get("claim", ""), card.get("time", "")
        )
    Console().print(table)


@app.command()
def params(notebook: Notebook, as_json: AsJson = False) -> None:
    """The parameters of a notebook: names, types, ranges, defaults, help; and its profiles."""
    from lab.runner import parameters

    signature = parameters.read(find(notebook))
    if as_json:
        schema = signature.model.model_json_schema()
        say_json(
            {"notebook": str(signature.notebook), "schema": schema, "profiles": signature.profiles}
        )
        return
    profiles = {key: chosen for key, chosen in signature.profiles.items() if chosen}
    folded = (Column(head, overflow="fold") for head in ("type", "default", *profiles))
    table = Table(Column("parameter", no_wrap=True), *folded, "help")
    for name, p in signature.parameters.items():
        chosen = [repr(v[name]) if name in v else "" for v in profiles.values()]
        # Text, not markup: rich would read `list[str]` as a style.
        table.add_row(*map(_text, [name, p.type, repr(p.default), *chosen, p.help]))
    Console().print(table)


@app.command()
def run(
    notebook: Notebook,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Once each.")
    ] = None,
    profile: Annotated[str, typer.Option(help="A set of parameters the notebook stores.")] = "cpu",
    name: Annotated[
        str | None, typer.Option(help="Of the run folder, instead of the profile.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where run folders go; default: runs/.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole run.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: every core.")] = None,
    force: Annotated[bool, typer.Option(help="Run again; a finished run is moved aside.")] = False,
) -> None:
    """Run a notebook with checked parameters; prints the run folder, then how it ended."""
    from lab import runner
    from lab.runner import parameters

    path = find(notebook)
    overrides = parameters.parse(parameters.read(path), parameter or [])
    with _progress() as listen:
        done = runner.run(
            path,
            overrides,
            profile=profile,
            name=name,
            out=out,
            timeout=timeout,
            threads=threads,
            force=force,
            listen=listen,
        )
    sys.stdout.write(f"{done.folder}\n{done.line}\n")
    raise typer.Exit(done.exit_code)


@data_app.callback(invoke_without_command=True)
def data(context: typer.Context, as_json: AsJson = False) -> None:
    """The data sets: kind, where each can be had from, licence."""
    if context.invoked_subcommand is None:
        from lab import data as datasets

        _show(datasets.listing(), as_json)


@data_app.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="A name that `lab data` lists.")]) -> None:
    """Fetch a data set into the mirror (LAB_DATA) and check its checksum."""
    from lab import data as datasets

    sys.stdout.write(f"{datasets.fetch(name)}\n")


@app.command()
def models(as_json: AsJson = False) -> None:
    """The models: where each comes from, its licence, whether it is here, how to get it."""
    from lab import models as checkpoints

    _show(checkpoints.listing(), as_json)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A name in data/studies, or a YAML file.")],
    profile: Annotated[str, typer.Option(help="A set of values that the study stores.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Where cells go.")] = paths.RUNS / "study",
    shard: Annotated[str, typer.Option(help="i/n: every n-th cell from the i-th on.")] = "1/1",
    device: Annotated[str | None, typer.Option(help="Default: the GPU if there is one.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="A name of `lab models`, a folder or a hub id, instead of the study's."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="A design; repeat for more.")
    ] = None,
) -> None:
    """Train and evaluate the cells of a study that OUT lacks; run again, it goes on."""
    from lab import study as studies

    part = share.read(shard)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is a folder, where cells go; {out} is a file")
    begun = time.monotonic()

    def listen(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begun:7.1f} s  {line}\n")
        sys.stdout.flush()

    changes = {} if checkpoint is None else {"checkpoint": checkpoint}
    planned = studies.load(name, profile, **changes)
    planned = planned.only(only) if only else planned
    studies.run(planned, out, shard=part, device=device, listen=listen)
    sys.stdout.write(f"{out}\n")


@app.command()
def figures(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="The folder of the figures.")] = paths.FIGURES,
) -> None:
    """Copy the figures of runs, with their data, as the reference: OUT/NOTEBOOK/."""
    from lab import manifest

    for folder in manifest.latest(runs):
        target = out / Path(manifest.read(folder)["identity"]["notebook"]).stem
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "figures", target)
        sys.stdout.write(f"{target}\n")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What this machine has, one line each with the cure; exit 1 if something needed is missing."""
    from lab import doctor as checks

    findings = checks.examine()
    if as_json:
        say_json([vars(finding) for finding in findings])
    else:
        console = Console(soft_wrap=True)
        for finding in findings:
            console.print(_text(finding.line), style=checks.STYLES[finding.state])
    raise typer.Exit(REFUSED if any(f.state == "missing" for f in findings) else 0)


def find(notebook: str) -> Path:
    """The path of a notebook given as a path, a number or a (beginning of a) name."""
    from lab.runner import notebooks

    return notebooks.find(notebook)


@contextmanager
def _progress() -> Iterator[Any]:
    """A listener: one live line in a terminal, one plain line an event elsewhere."""
    from lab import runner

    if not sys.stdout.isatty():
        begun = time.monotonic()

        def plain(event: "Event") -> None:
            if text := runner.describe(event):
                sys.stdout.write(f"{time.monotonic() - begun:7.1f} s  {text}\n")
                sys.stdout.flush()

        yield plain
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("cell {task.completed}/{task.total}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def live(event: "Event") -> None:
            if event["event"] == "start":
                bar.update(
                    task, completed=event["count"], total=event["total"], description=event["line"]
                )

        yield live


def _show(table: "pd.DataFrame", as_json: bool) -> None:
    if as_json:
        say_json(table.to_dict(orient="records"))
        return
    shown = Table(*map(str, table.columns))
    for row in table.itertuples(index=False):
        shown.add_row(*(_text(str(value)) for value in row))
    Console().print(shown)


def _text(value: str) -> Any:
    from rich.text import Text

    return Text(value)


if __name__ == "__main__":
    main()
