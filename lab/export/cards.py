"""What a page shows of a run: how it ended, its figures and its tables; their files are copied."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from lab import manifest, reading
from lab.export import page
from lab.runner import claims
from lab.runner.parameters import SET_BY_RUNNER
from lab.series import records

TABLES = {"results.parquet": "Results", "comparisons.parquet": "Comparisons"}
MEASURED = {"value", "difference", "low", "high"}
ROWS = 300  # a table longer than this is cut on the page, which says so; the CSV has all


@dataclass
class Table:
    """A table as texts, row by row; ``links``: where a text of the first column leads to."""

    title: str
    file: str
    heads: list[str]
    rows: list[list[str]]
    same: str
    left_out: int
    numeric: list[str]
    links: dict[str, str] = field(default_factory=dict)


@dataclass
class Figure:
    """A saved figure; ``run``, its ``state`` and its ``page`` say where it is from."""

    name: str
    alt: str
    caption: str
    file: str
    csv: str
    format: str
    drawing: Markup | None
    run: str
    state: str
    page: str


@dataclass
class Run:
    """A run: ``stem`` names its page and its folder in the site, ``label`` the run to a reader."""

    stem: str
    label: str
    title: str
    state: str
    reason: str
    facts: list[str] = field(default_factory=list)
    parameters: list[tuple[str, str]] = field(default_factory=list)
    page: str = ""
    notebook: str = ""
    draws: bool = False
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def run(folder: Path, site: Path, label: str = "") -> Run:
    """What is shown of the run in ``folder``; its page, notebook and figures are in the site.

    A run that is going on has no page yet: its notebook is being written.

    Raises:
        ValueError: no run, two runs of one name, a damaged figure or notebook, a finished run whose
            files are not what it wrote.
    """
    content = manifest.read(folder)
    found = records.record(folder)
    state, reason = (found.state, found.reason) if found else ("", "")
    if state == "ok" and (names := claims.damaged(folder, content)):
        raise ValueError(
            f"{folder}: gone or not what the run wrote: {', '.join(names)}; run it again"
        )
    stem = stem_of(folder, content)
    if (site / stem).exists():
        raise ValueError(f"two runs would share the page {stem}.html; export each run once")
    (site / stem).mkdir()
    executed = folder / manifest.EXECUTED
    readable = executed.is_file() and state != manifest.RUNNING
    title = reading.title(reading.load(executed)) if readable else ""
    shown = Run(
        stem=stem,
        label=label or folder.name,
        title=title or Path(content["identity"]["notebook"]).stem,
        state=state,
        reason=reason,
        facts=_facts(content),
        parameters=[
            (name, repr(entry["value"]))
            for name, entry in content["identity"]["parameters"].items()
            if name != SET_BY_RUNNER
        ],
    )
    if readable:
        about = {"stem": stem, "title": shown.title, "state": state, "run": shown.label}
        html, shown.draws = page.render(executed, about)
        shown.page, shown.notebook = f"{stem}.html", f"{stem}.ipynb"
        (site / shown.page).write_text(html, encoding="utf-8")
        shutil.copyfile(executed, site / shown.notebook)
    saved = sorted((folder / "figures").glob("*.json"))
    shown.figures = [
        _figure(about, site / stem, shown)
        for about in saved
        if not about.name.endswith(".plotly.json")
    ]
    return shown


def stem_of(folder: Path, content: Mapping[str, Any]) -> str:
    """The name of a run among others: its notebook and its folder, which ends in the run id."""
    notebook = Path(content["identity"]["notebook"]).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{notebook}-{folder.name}")


def tables(folder: Path, place: Path) -> list[Table]:
    """The run's own tables; ``place``, its folder in the site, gets each as CSV."""
    return [
        table(pd.read_parquet(folder / file), title, place / f"{Path(file).stem}.csv")
        for file, title in TABLES.items()
        if (folder / file).is_file()
    ]


def _facts(content: Mapping[str, Any]) -> list[str]:
    """When, how long and from which code, as far as the manifest says."""
    outcome, code = content["outcome"], content.get("code", {})
    facts = [str(content["profile"])] if content.get("profile") else []
    if outcome.get("started"):
        started = datetime.fromisoformat(outcome["started"])
        facts.append(f"{started:%Y-%m-%d %H:%M} UTC")
        if "seconds" in outcome:  # by a clock that never goes back
            facts.append(f"{outcome['seconds']:.0f} s")
    if code.get("commit"):
        changed = " with changes" if code.get("dirty") else ""
        facts.append(f"commit {code['commit'][:8]}{changed}")
    return facts


def _figure(about: Path, folder: Path, run: Run) -> Figure:
    """One figure's entry; its files are copied into the run's folder of the site.

    Raises:
        ValueError: a file of the figure is missing.
    """
    words = json.loads(about.read_text(encoding="utf-8"))
    name, moving = words["name"], words["kind"] == "interactive"
    file = f"{name}.plotly.json" if moving else f"{name}.svg"
    for wanted in (file, f"{name}.csv"):
        if not (about.parent / wanted).is_file():
            raise ValueError(f"{about} describes {wanted}, which is not beside it; run it again")
        shutil.copyfile(about.parent / wanted, folder / wanted)
    drawing = None
    if moving:
        figure = json.loads((about.parent / file).read_text(encoding="utf-8"))
        drawing = page.drawing(figure, words["alt"])
    place = folder.name
    return Figure(
        name=name, alt=words["alt"], caption=words["caption"], file=f"{place}/{file}",
        csv=f"{place}/{name}.csv", format="JSON" if moving else "SVG", drawing=drawing,
        run=run.label, state=run.state, page=run.page,
    )  # fmt: skip


def table(frame: pd.DataFrame, title: str, csv: Path) -> Table:
    """A table to read: columns with one value go into the caption, intervals beside their value.

    ``csv`` gets all of it.
    """
    frame.to_csv(csv, index=False, lineterminator="\n")
    kept = [c for c in frame.columns if frame[c].notna().any()]
    alone = [c for c in kept if len(frame) > 1 and len(frame[c].unique()) == 1]
    alone = [c for c in alone if c not in MEASURED]
    same = " · ".join(f"{c} {_cell(frame[c].iloc[0])}" for c in alone)
    shown = frame[[c for c in kept if c not in alone]].head(ROWS)
    numeric = [c for c in shown.columns if pd.api.types.is_numeric_dtype(shown[c])]
    texts = shown.map(_cell)
    for column in MEASURED & set(shown.columns):
        texts[column] = shown[column].map(_measured)
    for value in ("value", "difference"):
        if {value, "low", "high"} <= set(texts.columns):
            interval = texts[value] + " [" + texts["low"] + ", " + texts["high"] + "]"
            texts[value] = interval.where(shown["low"].notna(), texts[value])
            texts = texts.drop(columns=["low", "high"])
    return Table(
        title=title, file=f"{csv.parent.name}/{csv.name}", heads=[str(c) for c in texts.columns],
        rows=texts.to_numpy().tolist(), same=same, left_out=len(frame) - len(shown),
        numeric=numeric,
    )  # fmt: skip


def _cell(value: Any) -> str:
    """A setting or count as the page shows it: four digits, nothing for missing."""
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _measured(value: Any) -> str:
    """A measured number: four digits, zeros kept, so that a column lines up."""
    return "" if pd.isna(value) else f"{value:#.4g}"
