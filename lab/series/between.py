"""Runs tested against each other: the values of one parameter, paired over independent units.

Rows of one run share model and texts, so they are no replicates: layers, poolings and metrics of a
data set rise and fall together. A unit is a data set (or what the caller names), with one number
for each value of the parameter; whatever else varies has to be chosen or averaged by name.
"""

from collections.abc import Sequence

import pandas as pd

from lab.registry import unknown
from lab.series import tables
from lab.stats import across

UNIT = "dataset"
OWN = {tables.RUN, "metric", *tables.MEASURED}
SEEDS = ("seed", f"{tables.PREFIX}seed")  # averaged: they are no new data set
UNITS = {UNIT: "data sets", **dict.fromkeys(SEEDS, "seeds")}


def compare(
    table: pd.DataFrame,
    column: str,
    *,
    unit: str = UNIT,
    average: Sequence[str] = (),
    baseline: str | None = None,
    alpha: float = 0.05,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Paired tests between the values of ``column``, every metric by itself; and what is left out.

    ``table``: as :func:`tables.measurements`. Rows without a value in ``column`` or ``unit`` do not
    take part. Of the others, a unit needs one row for each value of ``column``, after the mean over
    seeds and over the columns in ``average``; the rest must agree. Columns: metric, setting and
    baseline (values of ``column`` as text), ``rows`` behind each number (at least), what
    :func:`across.compare` gives (Wilcoxon's exact test, Hodges and Lehmann's shift, Holm over the
    rows of a metric), and tie groups as :func:`tables.comparisons`. Second come the metrics that
    were left out, each with the reason.

    Raises:
        LookupError: no such column or baseline.
        ValueError: no metric can be compared; the message is the reason for the first.
    """
    for name in (column, unit, *average):
        if name not in table.columns:
            raise LookupError(unknown("column", name, table.columns))
    if {column, unit, *average} & OWN or column in (unit, *average):
        raise ValueError(
            f"cannot compare {column} over {unit} with the mean over {list(average)}: they must be "
            f"different columns, and none of {', '.join(sorted(OWN))}"
        )
    found, left_out = [], {}
    averaged = {*SEEDS, *average} - {column, unit}
    for metric, rows in table.groupby("metric", sort=False):
        try:
            values = _values(rows.dropna(subset=[column, unit]), column, unit, averaged)
        except ValueError as error:
            left_out[str(metric)] = str(error)
            continue
        base = None if baseline is None else _level(baseline, values["setting"])
        tests = across.compare(values, baseline=base, alpha=alpha, units=_units(unit))
        tests.insert(0, "metric", str(metric))
        tests.insert(3, "rows", int(values["rows"].min()))
        found.append(tests)
    if not found:
        raise ValueError("; ".join(f"metric {m}: {why}" for m, why in list(left_out.items())[:1]))
    return tables.grouped(pd.concat(found, ignore_index=True), ["metric"], alpha), left_out


def _values(rows: pd.DataFrame, column: str, unit: str, averaged: set[str]) -> pd.DataFrame:
    """One row per setting and unit (column dataset), the settings from the last to the first."""
    levels = _ordered(rows[column])
    units = list(dict.fromkeys(rows[unit].map(tables.plain)))
    if len(levels) < 2 or len(units) < 2:
        hint = f"; --unit {SEEDS[1]} asks whether the seed decides it, on these data alone"
        raise ValueError(
            f"two values of {column} and two {_units(unit)} or more wanted; there are "
            f"{len(levels)} and {len(units)}{hint if unit == UNIT and len(levels) > 1 else ''}"
        )
    texts = rows.drop(columns=list(OWN)).map(tables.plain)
    _check_alone(texts, column, unit)
    labels = [name for name in texts if _goes_with(texts[name], texts[column])]
    texts = texts.drop(columns=[name for name in labels if name not in (column, unit)])
    others = [name for name in texts if name not in (column, unit)]
    _check_single(texts, [column, unit], [name for name in others if name not in averaged])
    _check_same(texts, column, unit, others, rows[tables.RUN])
    cells = pd.DataFrame(
        {"setting": texts[column], "dataset": texts[unit], "value": rows["value"].astype(float)}
    )
    means = cells.groupby(["setting", "dataset"], sort=False)["value"].agg(["mean", "size"])
    order = pd.MultiIndex.from_product([levels[::-1], units], names=means.index.names)
    values = means.reindex(order).reset_index()
    values.columns = pd.Index([*across.KEYS, "value", "rows"])
    _check_units(values, unit)
    return values


def _check_alone(texts: pd.DataFrame, column: str, unit: str) -> None:
    """ValueError where another parameter changes with ``column``, so that no one can tell which."""
    with_it = [
        name for name in texts
        if name.startswith(tables.PREFIX) and name not in (column, unit)
        and _goes_with(texts[name], texts[column])
    ]  # fmt: skip
    causes = 0 if column.startswith(tables.PREFIX) else 1  # a result's column has one of its own
    if len(with_it) > causes:
        raise ValueError(
            f"{', '.join(with_it)} changes together with {column}: no test tells which of them "
            "makes the difference; compare runs that differ in one"
        )


def _goes_with(one: pd.Series, other: pd.Series) -> bool:
    """Whether ``one`` varies, and has one value for each of ``other``."""
    return len(set(one)) > 1 and int(one.groupby(other).nunique().max()) == 1


def _check_single(texts: pd.DataFrame, cell: list[str], others: list[str]) -> None:
    """ValueError that names what varies within a unit, and how to choose."""
    many = texts.groupby(cell)[others].nunique().max()
    vary = {str(name): texts[name].unique() for name in many.index[many > 1]}
    if vary:
        shown = "; ".join(f"{name} ({_some(values)})" for name, values in vary.items())
        first, values = next(iter(vary.items()))
        raise ValueError(
            f"rows that share a {cell[1]} are not independent, and these vary within one: {shown}. "
            f"Choose with --where {first}={values[0]}, or take the mean with --average {first}"
        )


def _check_same(
    texts: pd.DataFrame, column: str, unit: str, others: list[str], runs: pd.Series
) -> None:
    """ValueError where the values of ``column`` were not measured on the same in a unit."""
    repeated = texts.duplicated(keep=False)
    if repeated.any():
        names = ", ".join(runs[repeated].unique()[:2])
        raise ValueError(f"measured twice, by {names}: {_row(texts[repeated].iloc[0])}; keep one")
    for name, rows in texts.groupby(unit, sort=False):
        found = {
            level: set(some[others].itertuples(index=False, name=None))
            for level, some in rows.groupby(column, sort=False)
        }
        (first, whole), *rest = found.items()
        for level, these in rest:
            if these != whole:
                wrong = min(these ^ whole)
                raise ValueError(
                    f"{column} {first} and {level} were not measured alike on {unit} {name}: one "
                    f"of them alone has {_row(pd.Series(wrong, others))}; choose with --where"
                )


def _check_units(values: pd.DataFrame, unit: str) -> None:
    """ValueError where the units are copies of each other: a seed that changes nothing."""
    table = across.grid(values)
    rows = set(table.itertuples(index=False, name=None))
    if len(rows) == 1 and len(set(*rows)) > 1:
        raise ValueError(
            f"all {len(table)} {_units(unit)} have the same values: {unit} changes nothing that is "
            "measured here, so they are one measurement"
        )


def _ordered(values: pd.Series) -> list[str]:
    """The distinct values as text: numbers by size, texts as they come."""
    distinct = values.drop_duplicates()
    try:
        distinct = distinct.iloc[distinct.astype(float).argsort()]
    except (TypeError, ValueError):
        pass
    return list(dict.fromkeys(distinct.map(tables.plain)))


def _level(asked: str, levels: pd.Series) -> str:
    for text in (asked, tables.number(asked)):
        if text in set(levels):
            return text
    raise LookupError(unknown("value", asked, set(levels)))


def _units(unit: str) -> str:
    return UNITS.get(unit, f"values of {unit}")


def _some(values: Sequence[str]) -> str:
    shown = ", ".join(text or "empty" for text in values[:4])
    return f"{shown}, ..." if len(values) > 4 else shown


def _row(texts: pd.Series) -> str:
    return ", ".join(f"{name} {text}" for name, text in texts.items() if text)
