"""How a figure was drawn, left on the figure, so that it can be drawn again from its table.

A figure function under :func:`recorded` leaves its name, table and options on the figure that it
made. :func:`record` turns them into JSON, :func:`draw_again` into a figure: same CSV, same options,
same style, same picture. Axes given by the caller (``ax=``) are the caller's, and leave nothing.
"""

import inspect
import io
import json
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from matplotlib.artist import Artist

from lab.plotting.style import current_style, use_style
from lab.registry import Registry

P = ParamSpec("P")
R = TypeVar("R")
Record = dict[str, Any]  # function, options, types of the CSV's columns, style: all of it JSON

FIGURES: Registry[Callable[..., Any]] = Registry("figure function")
LEFT = "_lab_drawing"


def recorded(function: Callable[P, R]) -> Callable[P, R]:
    """The figure function ``(table, **options) -> axes or plotly figure``, leaving a record."""

    @wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> R:
        made = function(*args, **kwargs)
        (_, table), *options = inspect.signature(function).bind(*args, **kwargs).arguments.items()
        if dict(options).get("ax") is None:
            setattr(_figure(made), LEFT, (function.__name__, table, dict(options)))
        return made

    FIGURES(draw)
    return draw


def drawn_from(figure: Any) -> pd.DataFrame | None:
    """The table that the figure was drawn from; None where no figure function made it."""
    return getattr(figure, LEFT, (None, None, None))[1]


def record(figure: Any, table: pd.DataFrame) -> Record:
    """How the figure is drawn from ``table``, the CSV beside it, in what JSON can hold.

    Raises:
        AttributeError: no figure function made it.
        TypeError: an option that JSON cannot hold.
    """
    function, _, options = getattr(figure, LEFT)
    return {
        "function": function,
        "options": json.loads(json.dumps(options, default=_plain)),
        "types": _types(table),
        "style": current_style(),
    }


def draw_again(about: Record, csv: str, **style: Any) -> Any:
    """The figure drawn again from its CSV; ``style`` replaces width or family. Sets the style.

    Raises:
        LookupError: no such figure function or style, or a column that is not there.
        ValueError: options that the function does not take, or a table that it refuses.
    """
    function, options = FIGURES[about["function"]], about["options"]
    try:
        table = _table(csv, about["types"])
        use_style(**{**about["style"], **style})
    except TypeError as error:
        raise ValueError(f"the record wants a type or a style that is none: {error}") from error
    try:
        inspect.signature(function).bind(table, **options)
    except TypeError as error:
        raise ValueError(f"{about['function']} takes other options by now: {error}") from error
    return _figure(function(table, **options))


def to_csv(table: pd.DataFrame) -> str:
    """The table as it lies beside its figure; equal tables give equal text."""
    return table.to_csv(index=False, lineterminator="\n")


def _figure(made: Any) -> Any:
    """The figure of axes, or the plotly figure that it is."""
    return made.get_figure(root=True) if isinstance(made, Artist) else made


def _types(table: pd.DataFrame) -> dict[str, Any]:
    """The types that a reader of the CSV would not guess; the names of a categorical in order."""
    guessed = _table(to_csv(table), {}).dtypes
    return {
        column: list(dtype.categories) if isinstance(dtype, pd.CategoricalDtype) else str(dtype)
        for column, dtype in table.dtypes.items()
        if dtype != guessed[str(column)] and table[column].notna().any()
    }


def _table(csv: str, types: dict[str, Any]) -> pd.DataFrame:
    """The table of a CSV, where only an empty cell is missing."""
    dtypes = {
        column: pd.CategoricalDtype(kind) if isinstance(kind, list) else kind
        for column, kind in types.items()
    }
    return pd.read_csv(io.StringIO(csv), dtype=dtypes, keep_default_na=False, na_values=[""])


def _plain(value: Any) -> Any:
    """A numpy number as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an option of a figure is text, a number or a list of them; got {value!r}")
