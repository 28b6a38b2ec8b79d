"""Plotly figures with a slider, alive without a kernel: ``(table, ...) -> figure``.

Frames instead of widgets: a page has no kernel to ask, and one widget view stops every other.
Text from the table is escaped, because plotly reads labels and hovers as a kind of HTML.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.plotting.columns import floats, grid, levels, measure, plain, require

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def interactive_heat_map(
    table: pd.DataFrame,
    *,
    rows: str,
    columns: str,
    frame: str,
    value: str = "value",
    label: str | None = None,
) -> "Figure":
    """A plotly heat map with a slider over ``frame``, on one colour scale; no kernel is needed.

    Hovering a cell shows its number, its interval and n where the table has them. Text from the
    table is escaped: plotly reads its labels as a kind of HTML.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an empty key, or two rows for one cell.
    """
    import plotly.graph_objects as go

    require(table, (rows, columns, frame), (value,))
    label = label or measure(table, value)
    sides = levels(table[rows]), levels(table[columns])
    frames = [
        go.Frame(name=_html(name), data=[_heat(part, rows, columns, value, sides)])
        for name, part in ((name, table[table[frame] == name]) for name in levels(table[frame]))
    ]
    figure = go.Figure(data=frames[0].data, frames=frames)
    number = floats(table[value])
    bar = {"title": {"text": _html(label), "side": "right"}}
    figure.update_layout(
        template="simple_white", height=240 + 28 * len(sides[0]),
        font={"family": "system-ui, sans-serif", "size": 13}, margin={"t": 30, "r": 10},
        coloraxis={"colorscale": "Cividis", "cmin": float(np.nanmin(number)),
                   "cmax": float(np.nanmax(number)), "colorbar": bar},
        xaxis={"title": {"text": _html(columns)}, "type": "category"},
        yaxis={"title": {"text": _html(rows)}, "type": "category", "autorange": "reversed",
               "automargin": True},
        sliders=[_slider(frame, [f.name for f in frames])],
    )  # fmt: skip
    return figure


def _html(name: Any) -> str:
    """As plotly may draw it: markup in data is shown, not obeyed."""
    return escape(plain(name), quote=False)  # plotly knows no &quot;


def _heat(
    part: pd.DataFrame, rows: str, columns: str, value: str, sides: tuple[list[Any], list[Any]]
) -> Any:
    """One frame's plotly heat map over the same sides as every other frame's."""
    import plotly.graph_objects as go

    cells = part.set_index([rows, columns])
    hover = [
        [_hover(cells.loc[(row, column)], rows, row, columns, column, value)
         if (row, column) in cells.index else "no value" for column in sides[1]]
        for row in sides[0]
    ]  # fmt: skip
    return go.Heatmap(
        z=grid(part, rows, columns, value, sides), x=[_html(c) for c in sides[1]],
        y=[_html(r) for r in sides[0]], hovertext=hover, hoverinfo="text", coloraxis="coloraxis",
        xgap=1, ygap=1,
    )  # fmt: skip


def _hover(cell: pd.Series, rows: str, row: Any, columns: str, column: Any, value: str) -> str:
    """What one cell says when it is pointed at."""
    lines = [f"<b>{cell[value]:.3f}</b>" if pd.notna(cell[value]) else "no value"]
    if {"low", "high"} <= set(cell.index) and pd.notna(cell["low"]) and pd.notna(cell["high"]):
        lines[0] += f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    if "n" in cell.index and pd.notna(cell["n"]):
        lines[0] += f" n {cell['n']:.0f}"
    lines += [f"{_html(rows)}: {_html(row)}", f"{_html(columns)}: {_html(column)}"]
    return "<br>".join(lines)


def _slider(frame: str, names: Sequence[str]) -> dict[str, Any]:
    """A slider with one step per frame, without animation."""
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": True},
             "transition": {"duration": 0}}  # fmt: skip
    steps = [{"method": "animate", "label": name, "args": [[name], still]} for name in names]
    return {"steps": steps, "currentvalue": {"prefix": f"{_html(frame)}: "}, "pad": {"t": 45}}
