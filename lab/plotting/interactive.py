"""Plotly figures with a slider, alive without a kernel: ``(table, ...) -> figure``.

Frames instead of widgets: a page has no kernel to ask, and one widget view stops every other.
Text from the table is escaped, because plotly reads labels and hovers as a kind of HTML.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.plotting.columns import floats, grid, levels, measure, plain, require
from lab.plotting.parts import as_text, slider
from lab.plotting.record import recorded

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@recorded
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
        go.Frame(name=as_text(name), data=[_heat(part, rows, columns, value, sides)])
        for name, part in ((name, table[table[frame] == name]) for name in levels(table[frame]))
    ]
    figure = go.Figure(data=frames[0].data, frames=frames)
    number = floats(table[value])
    bar = {"title": {"text": as_text(label), "side": "right"}}
    figure.update_layout(
        template="simple_white", height=240 + 28 * len(sides[0]),
        font={"family": "system-ui, sans-serif", "size": 13}, margin={"t": 30, "r": 10},
        coloraxis={"colorscale": "Cividis", "cmin": float(np.nanmin(number)),
                   "cmax": float(np.nanmax(number)), "colorbar": bar},
        xaxis={"title": {"text": as_text(columns)}, "type": "category"},
        yaxis={"title": {"text": as_text(rows)}, "type": "category", "autorange": "reversed",
               "automargin": True},
        sliders=[slider(frame, [f.name for f in frames])],
    )  # fmt: skip
    return figure


@recorded
def interactive_map(
    points: pd.DataFrame,
    *,
    colours: Sequence[str],
    hover: str,
    frame: str | None = None,
    note: str = "",
) -> "Figure":
    """A plotly scatter of columns x, y and, if there, z; a menu changes what colours the points.

    ``frame``, a column, adds a slider that moves the points: every frame holds the same points in
    the same order, with the same colours. Numbers colour by cividis; names by their rank in it, and
    stand in the hover text with the column ``hover``. Text from the table is escaped; a ``note``
    stands below the map.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no colour, a coordinate that is missing, an infinite number, frames of
            different points.
    """
    import plotly.graph_objects as go

    axes = [axis for axis in ("x", "y", "z") if axis != "z" or "z" in points.columns]
    if not colours:
        raise ValueError("an interactive map needs a column to colour by")
    numeric = [c for c in colours if c in points and pd.api.types.is_numeric_dtype(points[c])]
    keys = [*([frame] if frame else []), hover, *colours]
    require(points, keys, [*axes, *numeric], unique=False)
    holes = int(points[axes].isna().any(axis=1).sum())
    if holes:
        raise ValueError(f"{holes} of {len(points)} points have no coordinate; drop them first")
    names = levels(points[frame]) if frame else [None]
    parts = [points if name is None else points[points[frame] == name] for name in names]
    if frame:
        _same_points(parts, names, frame, [hover, *colours])
    mark = go.Scatter3d if "z" in axes else go.Scatter
    places = [mark({axis: floats(part[axis]) for axis in axes}) for part in parts]
    figure = go.Figure(data=places[:1])
    figure.update_traces(
        mode="markers", hoverinfo="text",
        hovertext=[_point(row, hover, colours) for row in parts[0].to_dict("records")],
        marker={"size": 3 if "z" in axes else 6, "opacity": 0.8, "coloraxis": "coloraxis",
                "color": _ranks(parts[0][colours[0]])},
    )  # fmt: skip
    if frame:  # of places only: whatever a frame holds would undo what the menu has set
        figure.frames = [
            go.Frame(name=as_text(name), data=[place])
            for name, place in zip(names, places, strict=True)
        ]
    plain_axis = {"showticklabels": False, "title": {"text": ""}, "zeroline": False}
    scene = {f"{axis}axis": plain_axis for axis in axes}
    figure.update_layout(
        template="simple_white", height=520,
        margin={"t": 60, "r": 40, "l": 40, "b": 40 if note else 10},
        font={"family": "system-ui, sans-serif", "size": 13},
        coloraxis={"colorscale": "Cividis", "colorbar": {"title": {"text": as_text(colours[0])}}},
        updatemenus=[_colour_menu(parts[0], colours)],
        **({"scene": scene} if "z" in axes else scene),
        **({"sliders": [slider(frame, [as_text(name) for name in names])]} if frame else {}),
    )  # fmt: skip
    if note:
        figure.add_annotation(text=as_text(note), showarrow=False, xref="paper", yref="paper",
                              x=0, y=0, yshift=-8, xanchor="left", yanchor="top")  # fmt: skip
    return figure


def _same_points(
    parts: Sequence[pd.DataFrame], names: Sequence[Any], frame: str, columns: Sequence[str]
) -> None:
    """Nothing, or an error that says which frame holds other points than the first."""
    if len({len(part) for part in parts}) > 1:
        raise ValueError(f"every {frame!r} must hold the same points; got {[*map(len, parts)]}")
    first, *others = (part[columns].to_numpy(object) for part in parts)
    for name, other in zip(names[1:], others, strict=True):
        differs = (other != first).any(axis=1)
        if differs.any():
            row = int(differs.argmax())
            raise ValueError(
                f"every {frame!r} must hold the same points in the same order, with the same "
                f"colours; point {row} is {first[row].tolist()} in {plain(names[0])} and "
                f"{other[row].tolist()} in {plain(name)}"
            )


def _colour_menu(part: pd.DataFrame, colours: Sequence[str]) -> dict[str, Any]:
    """A menu with one entry for every column that may colour the points."""
    entries = [
        {
            "label": as_text(column), "method": "update",
            "args": [{"marker.color": [_ranks(part[column])]},
                     {"coloraxis.colorbar.title.text": as_text(column)}],
        }
        for column in colours
    ]  # fmt: skip
    return {"buttons": entries, "x": 0, "y": 1.12, "xanchor": "left", "yanchor": "top"}


def _ranks(column: pd.Series) -> list[float]:
    """Numbers as they are; names as their place among the names."""
    if pd.api.types.is_numeric_dtype(column):
        return floats(column).tolist()
    names = levels(column)
    return [float(names.index(name)) for name in column]


def _point(row: dict[str, Any], hover: str, colours: Sequence[str]) -> str:
    """What one point says when it is pointed at."""
    told = (f"{as_text(column)}: {as_text(row[column])}" for column in colours)
    return "<br>".join([as_text(row[hover], 80), *told])


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
        z=grid(part, rows, columns, value, sides), x=[as_text(c) for c in sides[1]],
        y=[as_text(r) for r in sides[0]], hovertext=hover, hoverinfo="text", coloraxis="coloraxis",
        xgap=1, ygap=1,
    )  # fmt: skip


def _hover(cell: pd.Series, rows: str, row: Any, columns: str, column: Any, value: str) -> str:
    """What one cell says when it is pointed at."""
    lines = [f"<b>{cell[value]:.3f}</b>" if pd.notna(cell[value]) else "no value"]
    if {"low", "high"} <= set(cell.index) and pd.notna(cell["low"]) and pd.notna(cell["high"]):
        lines[0] += f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    if "n" in cell.index and pd.notna(cell["n"]):
        lines[0] += f" n {cell['n']:.0f}"
    lines += [f"{as_text(rows)}: {as_text(row)}", f"{as_text(columns)}: {as_text(column)}"]
    return "<br>".join(lines)
