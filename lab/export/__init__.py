"""A folder of offline pages from run folders: an overview, a page per notebook, figures and tables.

The folder works from disk, asks no host, and is replaced in one step: what was there before stays
until the new one is complete.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from lab import manifest, reading
from lab.export import page
from lab.runner.parameters import SET_BY_RUNNER

MARKER = "site.json"  # what tells a folder that we made, and may replace, from any other
MADE_BY = {"made_by": "embedding-lab export", "format": 1}
STATIC = ("site.css", "site.js")
TABLES = {"results.parquet": "Results", "comparisons.parquet": "Comparisons"}
ROWS = 300  # a table longer than this is cut on the page, which says so; the CSV has all


@dataclass
class _Table:
    """A table as the overview shows it: texts, row by row."""

    title: str
    file: str
    heads: list[str]
    rows: list[list[str]]
    same: str
    left_out: int
    numeric: set[str]


@dataclass
class _Figure:
    """A saved figure as the overview shows it."""

    name: str
    alt: str
    caption: str
    file: str
    csv: str
    format: str
    drawing: Markup | None


@dataclass
class _Run:
    """A run as the overview shows it."""

    stem: str
    title: str
    state: str
    reason: str
    facts: list[str]
    parameters: list[tuple[str, str]]
    page: str = ""
    notebook: str = ""
    draws: bool = False
    figures: list[_Figure] = field(default_factory=list)
    tables: list[_Table] = field(default_factory=list)


def export(runs: list[Path], out: Path) -> Path:
    """The site's index.html, once the whole site is in place.

    Raises:
        ValueError: no run, a folder that is no run, two runs of one name, a damaged figure, or an
            ``out`` that holds something we did not make.
        OSError: a file cannot be written; the site that was there is still there.
    """
    out = Path(out)
    if not runs:
        raise ValueError("nothing to export: give at least one run folder")
    _check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _build([Path(run) for run in runs], building)
        building.chmod(0o755)
        _swap(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / "index.html"


def _check_free(out: Path) -> None:
    """Refuse a place that holds anything but a site of ours."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    marker = out / MARKER
    if not marker.is_file() or json.loads(marker.read_text(encoding="utf-8")) != MADE_BY:
        raise ValueError(f"{out} exists and is not a site of ours; choose another folder")


def _swap(building: Path, out: Path) -> None:
    """Put the new site where the old one was; the old one comes back if that fails."""
    if not out.exists():
        building.rename(out)
        return
    old = building.with_name(building.name + "-old")
    out.rename(old)
    try:
        building.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _build(folders: Sequence[Path], site: Path) -> None:
    """Every file of the site."""
    runs = [_run(folder, site) for folder in folders]
    for file in STATIC:
        shutil.copyfile(page.TEMPLATES / file, site / file)
    draws = any(figure.drawing for run in runs for figure in run.figures)
    if draws or any(run.draws for run in runs):
        import plotly

        shutil.copyfile(
            Path(plotly.__file__).parent / "package_data" / "plotly.min.js", site / "plotly.min.js"
        )
    loader = jinja2.FileSystemLoader(page.TEMPLATES)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    nonce = page.nonce(repr(runs).encode())
    html = templates.get_template("index.html.j2").render(
        runs=runs, draws=draws, nonce=nonce, policy=page.policy(nonce), summary=_summary(runs)
    )
    (site / "index.html").write_text(html, encoding="utf-8")
    (site / MARKER).write_text(json.dumps(MADE_BY) + "\n", encoding="utf-8")


def _summary(runs: Sequence[_Run]) -> str:
    """How many runs, and how they ended when not all of them are well."""
    count = f"{len(runs)} run" + ("s" if len(runs) > 1 else "")
    bad = [run.state for run in runs if run.state not in ("ok", "skipped")]
    ended = ", ".join(f"{bad.count(state)} {state}" for state in dict.fromkeys(bad))
    return f"{count}, {ended}." if bad else f"{count}."


def _run(folder: Path, site: Path) -> _Run:
    """One run's card; its page, notebook, figures and tables are written into the site."""
    content = manifest.read(folder)
    identity, outcome = content["identity"], content["outcome"]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{Path(identity['notebook']).stem}-{folder.name}")
    if (site / stem).exists():
        raise ValueError(f"two runs would share the page {stem}.html; export each run once")
    (site / stem).mkdir()
    executed = folder / manifest.EXECUTED
    title = reading.title(reading.load(executed)) if executed.is_file() else ""
    run = _Run(
        stem=stem,
        title=title or Path(identity["notebook"]).stem,
        state=outcome["state"],
        reason=outcome.get("reason", ""),
        facts=_facts(content),
        parameters=[
            (name, repr(entry["value"]))
            for name, entry in identity["parameters"].items()
            if name != SET_BY_RUNNER
        ],
    )
    if executed.is_file():
        html, run.draws = page.render(executed, stem=stem, title=run.title, state=run.state)
        run.page, run.notebook = f"{stem}.html", f"{stem}.ipynb"
        (site / run.page).write_text(html, encoding="utf-8")
        shutil.copyfile(executed, site / run.notebook)
    saved = sorted((folder / "figures").glob("*.json"))
    run.figures = [_figure(f, site / stem) for f in saved if not f.name.endswith(".plotly.json")]
    run.tables = [
        _table(folder / file, title, site / stem)
        for file, title in TABLES.items()
        if (folder / file).is_file()
    ]
    return run


def _facts(content: dict[str, Any]) -> list[str]:
    """When, how long and from which code, as far as the manifest says."""
    outcome, code = content["outcome"], content.get("code", {})
    facts = [str(content["profile"])] if content.get("profile") else []
    if outcome.get("started"):
        started = datetime.fromisoformat(outcome["started"])
        facts.append(f"{started:%Y-%m-%d %H:%M} UTC")
        if outcome.get("finished"):
            seconds = (datetime.fromisoformat(outcome["finished"]) - started).total_seconds()
            facts.append(f"{seconds:.0f} s")
    if code.get("commit"):
        changed = " with changes" if code.get("dirty") else ""
        facts.append(f"commit {code['commit'][:8]}{changed}")
    return facts


def _figure(about: Path, folder: Path) -> _Figure:
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
    return _Figure(
        name=name, alt=words["alt"], caption=words["caption"], file=f"{place}/{file}",
        csv=f"{place}/{name}.csv", format="JSON" if moving else "SVG", drawing=drawing,
    )  # fmt: skip


def _table(path: Path, title: str, folder: Path) -> _Table:
    """A table's entry: columns with one value go into the caption, intervals beside their value."""
    frame = pd.read_parquet(path)
    csv = path.with_suffix(".csv").name
    frame.to_csv(folder / csv, index=False, lineterminator="\n")
    kept = [c for c in frame.columns if frame[c].notna().any()]
    alone = [c for c in kept if len(frame) > 1 and len(frame[c].unique()) == 1]
    same = " · ".join(f"{c} {_cell(frame[c].iloc[0])}" for c in alone)
    shown = frame[[c for c in kept if c not in alone]].head(ROWS)
    numeric = {c for c in shown.columns if pd.api.types.is_numeric_dtype(shown[c])}
    texts = shown.map(_cell)
    for column in {"value", "difference", "low", "high"} & set(shown.columns):
        texts[column] = shown[column].map(_measured)
    for value in ("value", "difference"):
        if {value, "low", "high"} <= set(texts.columns):
            texts[value] = texts[value] + " [" + texts["low"] + ", " + texts["high"] + "]"
            texts = texts.drop(columns=["low", "high"])
    return _Table(
        title=title, file=f"{folder.name}/{csv}", heads=[str(c) for c in texts.columns],
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
