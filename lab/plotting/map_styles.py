"""What the points of a map look like by a column: colours, symbols and their legend."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lab.plotting.columns import floats, levels
from lab.plotting.parts import as_text
from lab.plotting.style import COLOURS

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "triangle-down")
IN_SPACE = (*SYMBOLS[:5], "circle-open", "square-open", "diamond-open")  # plotly has no others
MOST_LEVELS = 8  # of a column of names: there are as many colours, and symbols in three dimensions


def colour_styles(column: pd.Series) -> list[dict[str, Any]]:
    """The style of the points and of the legend's colours, one per trace."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = floats(column).astype(np.float32)
        scale = {"colorscale": "Cividis", "cmin": float(np.nanmin(values)), "showscale": True,
                 "cmax": float(np.nanmax(values)) or 1.0}  # fmt: skip
        bar = {"title": {"text": as_text(column.name)}, "thickness": 12, "len": 0.6, "y": 0.3}
        return [{"marker": {"color": values, "opacity": 0.8, "colorbar": bar, **scale}},
                *_entries([], {})]  # fmt: skip
    names, codes = _codes(column)
    steps = [(edge / MOST_LEVELS, colour) for place, colour in enumerate(COLOURS)
             for edge in (place, place + 1)]  # fmt: skip
    marker = {"color": codes, "opacity": 0.8, "colorscale": steps, "cmin": -0.5,
              "cmax": MOST_LEVELS - 0.5, "showscale": False}  # fmt: skip
    return [{"marker": marker}, *_entries(names, {"color": COLOURS})]


def shape_styles(column: pd.Series | None, marks: Sequence[str]) -> list[Any]:
    """The symbols of the points, then the style of the legend's, one per trace."""
    if column is None:
        return ["circle", *_entries([], {})]
    names, codes = _codes(column)
    entries = _entries(names, {"symbol": marks, "color": ["#555555"] * MOST_LEVELS})
    return [np.array(marks)[codes.astype(int)], *entries]


def _entries(names: Sequence[Any], marks: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """One style for every place of the legend; those without a name are not shown."""
    return [
        {"name": as_text(names[place]) if place < len(names) else "",
         "visible": place < len(names), "showlegend": place < len(names),
         "marker": {"size": 8, **{key: values[place] for key, values in marks.items()}}}
        for place in range(MOST_LEVELS)
    ]  # fmt: skip


def _codes(column: pd.Series) -> tuple[list[Any], np.ndarray]:
    """The names of a column and the number of each row's."""
    names = levels(column)
    if len(names) > MOST_LEVELS:
        raise ValueError(
            f"{len(names)} values of {column.name!r}, {MOST_LEVELS} marks to tell them apart; "
            "keep the most frequent ones and call the rest 'other'"
        )
    codes = column.map({name: place for place, name in enumerate(names)})
    return names, codes.to_numpy(np.float32)
