"""The tables of many runs in one: measurements, and comparisons with their tie groups."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from lab import manifest, results
from lab.registry import unknown
from lab.series.records import Record
from lab.stats import significance

RUN = "run"
PREFIX = "parameter."
RESULTS, COMPARISONS = "results.parquet", "comparisons.parquet"
MEASURED = results.RESULTS.measured  # the columns that hold what came out
CONTEXT = ["dataset", "split", "bin", "probe", "metric", "seed", "checkpoint", "notebook"]


def measurements(runs: Sequence[Record]) -> pd.DataFrame:
    """Every measurement of the runs: columns run, parameter.NAME for those that differ, and ours.

    Raises:
        ValueError: a run without a table, or with one that it did not write, or of another schema
            version; the message names the run.
    """
    return _joined(runs, {run.folder.name: _table(run, RESULTS) for run in runs})


def comparisons(runs: Sequence[Record], alpha: float = 0.05) -> pd.DataFrame:
    """Every paired comparison of those runs that have a table of them.

    ``separable``: p_holm < alpha. ``group``: settings (and the baseline) that share a letter are
    not separable from each other; empty where not every pair of them was compared.

    Raises:
        ValueError: a table its run did not write, or of another schema version; no run has one.
    """
    with_tables = [run for run in runs if COMPARISONS in run.content["outcome"]["outputs"]]
    if not with_tables:
        raise ValueError("none of these runs holds comparisons.parquet")
    tables = {
        run.folder.name: grouped(_table(run, COMPARISONS), CONTEXT, alpha) for run in with_tables
    }
    return _joined(with_tables, tables)


def where(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """The rows whose cell in ``column`` reads ``value``; an empty text asks for empty cells.

    Raises:
        LookupError: no such column, or no such value in it.
    """
    if column not in table.columns:
        raise LookupError(unknown("column", column, table.columns))
    texts = table[column].map(plain)
    kept = texts.isin([value, number(value)])
    if not kept.any():
        raise LookupError(unknown(column, value, texts.unique()))
    return table[kept].reset_index(drop=True)


def plain(value: Any) -> str:
    """A cell as text: numbers as one would write them, "" for an empty one."""
    if not isinstance(value, list) and pd.isna(value):
        return ""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def number(text: str) -> str:
    """The text as :func:`plain` writes the number in it: "1.0" is "1"; other texts as they are."""
    try:
        return plain(float(text))
    except ValueError:
        return text


def unlike(runs: Sequence[Record]) -> list[str]:
    """What the runs do not share besides parameters: data, lab code, environment, code cells.

    Code cells are compared among the runs of one notebook.
    """
    found = {}
    for part, words in manifest.PARTS.items():
        own = part == "code_cells"
        kinds = {(run.folder.parent.name if own else "", run.hashed[part]) for run in runs}
        found[words] = len(kinds) - len({notebook for notebook, _ in kinds})
    return [words for words, more in found.items() if more]


def parameters(runs: Sequence[Record]) -> pd.DataFrame:
    """The parameters in which the runs differ, a column each; a row for each run, by its folder.

    A parameter that a notebook does not have is empty; one with values of several kinds is text.
    """
    values = {run.folder.name: run.hashed["parameters"] for run in runs}
    names = dict.fromkeys(name for known in values.values() for name in known)
    columns = {name: [known.get(name) for known in values.values()] for name in names}
    differ = {f"{PREFIX}{n}": _column(v) for n, v in columns.items() if len(set(map(repr, v))) > 1}
    rows = pd.Index(list(values), dtype="str", name=RUN)
    return pd.DataFrame(differ, index=range(len(rows))).set_axis(rows)


def _table(run: Record, name: str) -> pd.DataFrame:
    path, wrote = run.folder / name, run.content["outcome"]["outputs"].get(name)
    if wrote is None:
        raise ValueError(f"run {run.folder} has no {name}: its notebook saves no such table")
    if not path.is_file() or manifest.digest(path) != wrote:
        raise ValueError(f"run {run.folder}: {name} is gone or not what the run wrote; sweep again")
    try:
        return results.load(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"run {run.folder}: {error}") from None


def _joined(runs: Sequence[Record], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table under the other; run and parameters come first."""
    if len(tables) < len(runs):
        raise ValueError("two run folders have one name; give each run once")
    own = parameters(runs)
    parts = []
    for folder, table in tables.items():
        settings = own.loc[[folder] * len(table)].reset_index()
        parts.append(pd.concat([settings, table.reset_index(drop=True)], axis=1))
    return pd.concat(parts, ignore_index=True)


def grouped(table: pd.DataFrame, context: Sequence[str], alpha: float) -> pd.DataFrame:
    """The comparisons with ``separable`` and, where every pair is there, the groups of both.

    Rows with the same ``context`` belong together.
    """
    table = table.assign(p_used=table["p_holm"].fillna(table["p"]))
    letters: dict[tuple[int, str], str] = {}
    for _, rows in table.groupby(list(context), dropna=False, sort=False):
        found = _letters(rows, alpha)
        letters |= {(at, name): group for at in rows.index for name, group in found.items()}
    for column, who in (("group", "setting"), ("baseline_group", "baseline")):
        groups = [letters.get(pair) for pair in zip(table.index, table[who], strict=True)]
        table[column] = pd.Series(groups, index=table.index, dtype="str")
    return table.assign(separable=table["p_used"] < alpha).drop(columns="p_used")


def _letters(rows: pd.DataFrame, alpha: float) -> dict[str, str]:
    """The tie group of each setting; none where a pair of settings was not compared."""
    first = rows["baseline"].iloc[0]
    names = list(dict.fromkeys([first, *rows["baseline"], *rows["setting"]]))
    p = pd.DataFrame(float("nan"), index=names, columns=names)
    differences = {first: 0.0}
    for row in rows.to_dict("records"):
        a, b = row["setting"], row["baseline"]
        p.loc[a, b] = p.loc[b, a] = row["p_used"]
        differences |= {a: row["difference"]} if b == first else {}
        differences |= {b: -row["difference"]} if a == first else {}
    if any(pd.isna(p.loc[a, b]) for a, b in combinations(names, 2)):
        return {}
    ties = significance.tie_groups(differences, p.fillna(1.0), alpha)  # the diagonal
    return dict(zip(ties["setting"], ties["group"], strict=True))


def _column(values: Sequence[Any]) -> pd.Series:
    """The values as one column: of their kind, or as texts where there are several."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pd.Series(values, dtype="Int64" if kinds == {int} else "Float64")
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    return pd.Series([None if value is None else str(value) for value in values], dtype="str")
