"""A table as a file to compute with (CSV, Parquet) or to read (LaTeX, HTML)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lab.registry import unknown

SET = ("parameter.", "setting", "baseline")  # columns of what was set, not measured: every digit
LATEX = str.maketrans(
    {
        **{one: f"\\{one}" for one in "&%$#_{}"},
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    }
)  # fmt: skip
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding-bottom: .5rem; }}
th, td {{ text-align: left; padding: .2rem .7rem; border-bottom: 1px solid #8886; }}
thead th {{ position: sticky; top: 0; background: Canvas; }}
</style></head>
<body><main>
{table}
</main></body></html>
"""


def write(table: pd.DataFrame, path: Path, title: str) -> None:
    """Nothing; the table is in ``path``, in the format of its suffix, whole or not at all.

    CSV and Parquet hold every row and column. LaTeX (booktabs) and HTML (no script, no request) are
    to be read: as :func:`shown`.

    Raises:
        LookupError: a suffix that is none of .csv, .parquet, .tex, .html.
        OSError: the file cannot be written.
    """
    if path.suffix not in WRITERS:
        raise LookupError(unknown("table format", path.suffix, WRITERS))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        WRITERS[path.suffix](table, temporary, title)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as texts: no empty column, value [low, high] in one column.

    What was measured has four digits, what was set all it needs.
    """
    kept = table[[name for name in table.columns if table[name].notna().any()]]
    digits = {name: 12 if str(name).startswith(SET) else 4 for name in kept.columns}
    texts = kept.apply(lambda column: column.map(lambda one: _text(one, digits[column.name])))
    for centre in ("value", "difference"):
        if {centre, "low", "high"} <= set(texts.columns):
            interval = texts[centre] + " [" + texts["low"] + ", " + texts["high"] + "]"
            texts[centre] = interval.where(kept["low"].notna(), texts[centre])
            texts = texts.drop(columns=["low", "high"])
    return texts


def _text(value: Any, digits: int) -> str:
    """One line: a break would end a row of LaTeX."""
    if pd.isna(value):
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else " ".join(str(value).split())


def _csv(table: pd.DataFrame, path: Path, title: str) -> None:
    table.to_csv(path, index=False, lineterminator="\n")


def _parquet(table: pd.DataFrame, path: Path, title: str) -> None:
    table.to_parquet(path, index=False)


def _latex(table: pd.DataFrame, path: Path, title: str) -> None:
    texts = shown(table).map(_escaped)
    texts.columns = pd.Index([_escaped(str(name)) for name in texts.columns])
    latex = texts.style.hide(axis="index").to_latex(
        hrules=True,
        environment="longtable",
        column_format="l" * len(texts.columns),
        caption=_escaped(" ".join(title.split())),
    )
    path.write_text(latex, encoding="utf-8")


def _escaped(text: str) -> str:
    """As LaTeX prints it; a row that begins with "[" would be an argument of the line before."""
    return "{}" * text.startswith("[") + text.translate(LATEX)


def _html(table: pd.DataFrame, path: Path, title: str) -> None:
    from markupsafe import escape

    with pd.option_context("display.max_colwidth", None):  # else a long text ends in "..."
        rows = shown(table).to_html(index=False, border=0)
    rows = rows.replace("<thead>", f"<caption>{escape(title)}</caption><thead>", 1)
    rows = rows.replace("<th>", '<th scope="col">')  # cells are escaped: these are the header's
    path.write_text(PAGE.format(title=escape(title), table=rows), encoding="utf-8")


WRITERS: dict[str, Callable[[pd.DataFrame, Path, str], None]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".tex": _latex,
    ".html": _html,
}
