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
from lab.report.health import Health, K

MADE_BY = "embedding-lab report"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LISTED = 200  # defects on the page, of each kind; the CSV has all
PAIRS = 30  # near duplicates on the page


def write(health: Health, out: Path) -> Path:
    """The report.html in the folder ``out``, once all of it is in place.

    Beside it: report, defects, texts and near_duplicates as .parquet and .csv, figures, manifest.

    Raises:
        ValueError: ``out`` holds something that is no report.
        OSError: a file cannot be written; what was there is still there.
    """
    with folder.new(Path(out), "exists and is no report of ours", _ours) as place:
        results.save(health.table, place, "report")
        health.table.to_csv(place / "report.csv", index=False, lineterminator="\n")
        tables = {
            "defects": health.survey.defects,
            "texts": health.texts,
            "near_duplicates": health.near_duplicates,
        }
        for name, table in tables.items():
            table.to_parquet(place / f"{name}.parquet", index=False)
            table.to_csv(place / f"{name}.csv", index=False, lineterminator="\n")
        figures = drawing.save(health, place)
        (place / "report.html").write_text(_html(health, figures), encoding="utf-8")
        about = _manifest(health, place)
        (place / manifest.NAME).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Path(out) / "report.html"


def _ours(out: Path) -> bool:
    marker = out / manifest.NAME
    if not marker.is_file():
        return False
    return json.loads(marker.read_text(encoding="utf-8")).get("made_by") == MADE_BY


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


def _html(health: Health, figures: list[Saved]) -> str:
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
        "labels": None if "labels" in health.refused else _cells(
            labels.by_label(health.rows, survey.texts["label"], K)
        ),
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
