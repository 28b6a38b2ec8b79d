"""The folder of a report: one page that needs nothing else, tables, figures, manifest.

The page holds no script and its policy allows none; text from data is escaped by the template.
"""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from lab import manifest, results
from lab.export import folder
from lab.export.page import TEMPLATES
from lab.plotting import Saved
from lab.report import defects, drawing, labels
from lab.report.findings import findings
from lab.report.health import Health
from lab.report.measures import K

MADE_BY = "embedding-lab report"
REFUSAL = "exists and is no report of ours, or holds other files beside one"
LEFT = {".ipynb_checkpoints"}  # what JupyterLab leaves in a folder where it was opened
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LISTED = 200  # defects of each kind, and labels, on the page; the CSV has all
PAIRS = 30  # near duplicates on the page


def write(health: Health, out: Path) -> Path:
    """The report.html in the folder ``out``, once all of it is in place.

    Beside it: report, defects, texts, near_duplicates and labels (where there are some) as .parquet
    and .csv, figures, manifest. In a CSV, a cell that a spreadsheet would take for a formula begins
    with an apostrophe.

    Raises:
        ValueError: ``out`` holds something that is no report.
        OSError: a file cannot be written; what was there is still there.
    """
    with folder.new(Path(out), REFUSAL, _ours) as place:
        results.save(health.table, place, "report")
        health.table.to_csv(place / "report.csv", index=False, lineterminator="\n")
        tables = {
            "defects": health.survey.defects,
            "texts": health.texts,
            "near_duplicates": health.near_duplicates,
        }
        if "labels" not in health.refused:
            tables["labels"] = labels.by_label(health.rows, health.survey.texts["label"], K)
        for name, table in tables.items():
            table.to_parquet(place / f"{name}.parquet", index=False)
            _harmless(table).to_csv(place / f"{name}.csv", index=False, lineterminator="\n")
        figures = drawing.save(health, place)
        shown = _html(health, figures, tables.get("labels"))
        (place / "report.html").write_text(shown, encoding="utf-8")
        about = _manifest(health, place)
        (place / manifest.NAME).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Path(out) / "report.html"


def check(out: Path) -> None:
    """Nothing, if a report may be written there: before the work is done.

    Raises:
        ValueError: ``out`` holds something that is no report, or more than one.
    """
    folder.check(Path(out), REFUSAL, _ours)


def _ours(out: Path) -> bool:
    """Whether all that the folder holds is a report of ours."""
    try:
        about = json.loads((out / manifest.NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(about, dict) or about.get("made_by") != MADE_BY:
        return False
    known = {*about.get("outputs", ()), manifest.NAME}
    found = (path.relative_to(out) for path in out.rglob("*") if not path.is_dir())
    return all(path.as_posix() in known or LEFT & set(path.parts) for path in found)


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before what a spreadsheet would run."""
    words = table.select_dtypes(["object", "string"]).columns
    guard = {name: table[name].map(_guarded, na_action="ignore") for name in words}
    return table.assign(**guard)


def _guarded(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r")) else cell


def _manifest(health: Health, place: Path) -> dict[str, Any]:
    """What was read, with what, on which machine, and what was written."""
    survey = health.survey
    return {
        "made_by": MADE_BY,
        "format": 1,
        "file": {
            "name": survey.path.name,
            "bytes": survey.path.stat().st_size,
            "sha256": manifest.digest(survey.path),
            "rows": survey.rows,
        },
        "columns": {"text": survey.text, "label": survey.label},
        "texts": {"distinct": survey.distinct, "measured": len(survey.texts)},
        "notes": list(survey.notes),
        "model": {key: value for key, value in health.of.items() if value is not None},
        "seed": health.seed,
        "not_measured": health.refused,
        "made": manifest.now(),
        "code": manifest.code(place),
        "environment": manifest.environment({}, _threads()),
        "outputs": manifest.outputs(place),
    }


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _html(health: Health, figures: list[Saved], by_label: pd.DataFrame | None) -> str:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    survey = health.survey
    found = survey.defects
    listed = {
        kind: part.head(LISTED)
        for kind, part in found.groupby("kind", sort=False)
    }  # fmt: skip
    measures = health.table[health.table["probe"] != "length"]
    shown = {
        "policy": POLICY,
        "style": Markup((TEMPLATES / "site.css").read_text(encoding="utf-8")),
        "title": survey.path.name,
        "health": health,
        "survey": survey,
        "findings": findings(health),
        "counts": _cells(defects.counts(found)),
        "defects": {
            kind: (_cells(_places(part)), int((found["kind"] == kind).sum()) - len(part))
            for kind, part in listed.items()
        },
        "measures": _cells(_measures(measures)),
        "hubs": _cells(health.hubs(top=10)),
        "nearest": [
            (survey.place(at), defects.excerpt(survey.texts["text"].iloc[at]),
             _cells(health.nearest(at)))
            for at in health.queries
        ],
        "pairs": _cells(health.near_duplicates.head(PAIRS)),
        "more_pairs": max(0, len(health.near_duplicates) - PAIRS),
        "labels": None if by_label is None else _cells(
            by_label.nlargest(LISTED, "texts").sort_values("label")
        ),
        "more_labels": 0 if by_label is None else max(0, len(by_label) - LISTED),
        "figures": {one.path.stem: (_data(one.content), one) for one in figures},
        "sha256": manifest.digest(survey.path),
        "made": manifest.now()[:16].replace("T", " "),
    }  # fmt: skip
    return templates.get_template("report.html.j2").render(**shown)


def _data(svg: str) -> str:
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def _places(part: pd.DataFrame) -> pd.DataFrame:
    where = [
        defects.place(*(None if pd.isna(one) else int(one) for one in pair))
        for pair in zip(part["row"], part["line"], strict=True)
    ]
    return pd.DataFrame({"where": where, "what": part["detail"].to_numpy()})


def _measures(table: pd.DataFrame) -> pd.DataFrame:
    shown = table[["probe", "metric", "value"]].copy()
    shown["95 % interval"] = [
        "" if pd.isna(low) else f"{low:#.4g} to {high:#.4g}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    return shown.assign(n=table["n"])


def _cells(table: pd.DataFrame) -> dict[str, Any]:
    """Heads and rows of text for the template, with which columns are numbers."""
    numeric = [str(c) for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
    return {
        "heads": [str(column) for column in table.columns],
        "rows": [[_text(value) for value in row] for row in table.itertuples(index=False)],
        "numeric": numeric,
    }


def _text(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:#.4g}" if isinstance(value, float) else str(value)
