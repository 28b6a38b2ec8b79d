"""Reading a tidy table before it is drawn: what is refused, in which order, under which words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lab.registry import unknown


def require(
    table: pd.DataFrame, keys: Sequence[str], numbers: Sequence[str], unique: bool = True
) -> None:
    """Nothing, or an error that says why the figure cannot be drawn from the table as it is.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an infinite one, an empty key, two rows for one mark.
    """
    for column in (*keys, *numbers):
        if column not in table.columns:
            raise LookupError(unknown("column", column, map(str, table.columns)))
    if table.empty:
        raise ValueError("the table has no rows, so there is nothing to draw; check its filter")
    if np.isnan(floats(table[numbers[0]])).all():
        raise ValueError(f"column {numbers[0]!r} holds no number in any of its {len(table)} rows")
    for column in numbers:
        if endless := int(np.isinf(floats(table[column])).sum()):
            raise ValueError(f"column {column!r} is infinite in {endless} of {len(table)} rows")
    for column in keys:
        if empty := int(table[column].isna().sum()):
            raise ValueError(
                f"column {column!r} is empty in {empty} of {len(table)} rows; "
                "draw only the rows that have it"
            )
    if unique and table.duplicated(list(keys)).any():
        raise ValueError(_repeated(table, list(keys), numbers))


def _repeated(table: pd.DataFrame, keys: list[str], numbers: Sequence[str]) -> str:
    """The message for two rows that would be one mark: which, and what tells them apart."""
    first = table.loc[table.duplicated(keys), keys].iloc[0]
    same = table[(table[keys] == first).all(axis=1)]
    differ = [c for c in table.columns if c not in numbers and len(same[c].unique()) > 1]
    where = ", ".join(f"{key}={name!s}" for key, name in first.items())
    apart = f"they differ in {', '.join(map(str, differ))}" if differ else "they are repeated"
    return f"{len(same)} rows for one mark ({where}); keep one of them: {apart}"


def grid(
    table: pd.DataFrame, rows: str, columns: str, value: str, sides: tuple[list[Any], list[Any]]
) -> np.ndarray:
    """The values as an array over the two ``sides``, NaN where the table has no row."""
    cells = table.set_index([rows, columns])[value]
    at = pd.MultiIndex.from_product(sides, names=[rows, columns])
    return floats(cells.reindex(at)).reshape(len(sides[0]), len(sides[1]))


def levels(column: pd.Series) -> list[Any]:
    """Its distinct values: numbers and categories in their order, names as they first appear."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [name for name in column.cat.categories if (column == name).any()]
    names = list(column.unique())
    return sorted(names) if pd.api.types.is_numeric_dtype(column) else names


def floats(column: pd.Series) -> np.ndarray:
    """The column as floats, missing as NaN."""
    return column.to_numpy(float, na_value=np.nan)


def plain(name: Any) -> str:
    """A value as a reader writes it: 3 for 3.0, a registry name as it is registered."""
    if isinstance(name, float | np.floating) and float(name).is_integer():
        return str(int(name))
    return str(name)


def measure(table: pd.DataFrame, value: str) -> str:
    """What the numbers are: metric and data set where the table has exactly one of each."""
    named = [table[c].unique() for c in ("metric", "dataset") if c in table.columns]
    said = [str(names[0]) for names in named if len(names) == 1 and pd.notna(names[0])]
    return " · ".join(said) if said and value == "value" else value
