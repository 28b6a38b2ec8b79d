"""Maps of many points in plotly: colour and shape by a column each, frames that move the points.

One trace holds all points, so that a point keeps its number whatever is shown, lassoed or moved;
WebGL draws it. Behind it stand traces of no point: the entries of the legend. Text from the table
is escaped, because plotly reads names and hovers as a kind of HTML.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.plotting.columns import floats, levels, plain, require
from lab.plotting.map_styles import IN_SPACE, MOST_LEVELS, SYMBOLS, colour_styles, shape_styles
from lab.plotting.parts import as_text, slider
from lab.plotting.style import COLOURS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LONGEST = 80  # characters of a text when its point is pointed at
FADED = 0.12


def point_map(
    points: pd.DataFrame,
    *,
    colours: Sequence[str],
    shape: str | None = None,
    hover: Sequence[str] = (),
    frame: str | None = None,
    title: str = "",
) -> "Figure":
    """A plotly scatter of columns x, y and, if there, z, drawn by WebGL.

    Colours and symbols have a legend; numbers colour by cividis. With two ``colours`` or more, a
    menu changes between them. ``frame``, a column, adds a slider that moves the points: every
    frame holds the same points in the same order.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no colour, a coordinate that is missing, names for more than
            MOST_LEVELS marks, frames of different points.
    """
    import plotly.graph_objects as go

    if not colours:
        raise ValueError("a map needs a column to colour by")
    axes = _axes(points)
    keys = [*([frame] if frame else []), *([shape] if shape else [])]
    require(points, [*keys, *hover, *colours], axes, unique=False)
    if holes := int(points[axes].isna().any(axis=1).sum()):
        raise ValueError(f"{holes} of {len(points)} points have no coordinate; drop them first")
    names = levels(points[frame]) if frame else [None]
    parts = [points if name is None else points[points[frame] == name] for name in names]
    if {tuple(part.index - part.index[0]) for part in parts} != {tuple(range(len(parts[0])))}:
        raise ValueError(f"every {frame!r} must hold the same points, each frame's rows together")
    first, mark = parts[0], go.Scatter3d if "z" in axes else go.Scattergl
    figure = go.Figure(mark(places(first), mode="markers", showlegend=False, hoverinfo="none"))
    figure.add_traces([mark({axis: [None] for axis in axes}, mode="markers", hoverinfo="skip")
                       for _ in range(2 * MOST_LEVELS)])  # fmt: skip
    if hover:
        figure.data[0].update(hoverinfo="text", hovertext=said(first, hover))
    restyle(figure, first[colours[0]], first[shape] if shape else None)
    figure.update_layout(_layout(points, axes, title))
    if len(colours) > 1:
        figure.update_layout(updatemenus=[_menu(first, colours)])
    if frame:
        figure.frames = [
            go.Frame(name=as_text(name), data=[mark(places(part))], traces=[0])
            for name, part in zip(names, parts, strict=True)
        ]
        steps = slider(frame, [as_text(name) for name in names])
        hidden = {"font": {"color": "rgba(0,0,0,0)"}}  # of the steps: long names would overlap
        shown = {"currentvalue": steps["currentvalue"] | {"font": {"color": "#222222"}}}
        figure.update_layout(sliders=[steps | hidden | shown])
    return figure


def redraw(table: "pd.DataFrame | str | Path") -> "Figure":
    """The figure of an embedding map's table, or of the CSV of it: no projection is computed.

    Every column that is no text, row, setting or coordinate may colour; the first one of few names
    shapes.

    Raises:
        OSError: no such file. LookupError, ValueError: as :func:`point_map`.
    """
    if not isinstance(table, pd.DataFrame):
        table = pd.read_csv(table, keep_default_na=False)
    colours = [c for c in table.columns if c not in {"text", "row", "setting", "x", "y", "z"}]
    few = (name for name in colours if table[name].nunique() <= MOST_LEVELS)
    return point_map(
        table, colours=colours, shape=next(few, None), hover=["text", *colours], frame="setting"
    )


def restyle(figure: Any, colour: pd.Series, shape: pd.Series | None) -> None:
    """Nothing; the points of :func:`point_map` have these colours, symbols and their legend.

    Raises:
        ValueError: more names than marks.
    """
    marks = SYMBOLS if figure.data[0].type == "scattergl" else IN_SPACE
    symbols, *shapes = shape_styles(shape, marks)
    points, *colours = colour_styles(colour)
    if shape is not None and [one["name"] for one in colours] == [one["name"] for one in shapes]:
        for one, mark in zip(colours, marks, strict=True):  # the same names: one entry for both
            one["marker"]["symbol"] = mark
        _, *shapes = shape_styles(None, marks)
    else:
        for one in colours:
            one["marker"]["symbol"] = marks[0]
    points["marker"] |= {"symbol": symbols, "size": _size(len(colour), figure.data[0].type)}
    for trace, style in zip(figure.data, [points, *colours, *shapes], strict=True):
        trace.update(style)
    names = [one.name for one in (colour, shape) if one is not None]
    figure.update_layout(legend_title_text=as_text(" · ".join(map(str, dict.fromkeys(names)))))


def emphasise(figure: Any, chosen: Sequence[int] | np.ndarray) -> None:
    """Nothing; these points of :func:`point_map` stand out, all alike if there are none.

    On a plane the others fade, in a space the chosen are larger.
    """
    points, rows = figure.data[0], [int(row) for row in chosen]
    if points.type == "scattergl":
        points.update(selectedpoints=rows or None, unselected={"marker": {"opacity": FADED}})
        return
    size = _size(len(points.x), points.type)
    sizes = np.full(len(points.x), size, dtype=np.float32)
    sizes[rows] = 3 * size
    points.marker.size = sizes if rows else size


def places(points: pd.DataFrame) -> dict[str, np.ndarray]:
    """The coordinates as a trace of :func:`point_map` takes them, in single precision."""
    return {axis: floats(points[axis]).astype(np.float32) for axis in _axes(points)}


def ranges(parts: Sequence[pd.DataFrame]) -> dict[str, list[float]]:
    """Per axis the range that holds all points of all parts, with a margin."""
    found = {}
    for axis in _axes(parts[0]):
        low = min(float(part[axis].min()) for part in parts)
        high = max(float(part[axis].max()) for part in parts)
        margin = 0.05 * (high - low) or 1.0
        found[axis] = [low - margin, high + margin]
    return found


def said(points: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """What every point says when it is pointed at: markup in data is shown, not obeyed."""
    lines = [
        [_shortened(value) if place == 0 else f"{as_text(column)}: {_shortened(value)}"
         for value in points[column]]
        for place, column in enumerate(columns)
    ]  # fmt: skip
    return ["<br>".join(words) for words in zip(*lines, strict=True)]


def _shortened(value: Any) -> str:
    return as_text(" ".join(plain(value).split()), LONGEST)


def _axes(points: pd.DataFrame) -> list[str]:
    return [axis for axis in ("x", "y", "z") if axis != "z" or "z" in points.columns]


def _size(n: int, kind: str) -> float:
    """Pixels of a mark: smaller, the more there are; plotly draws them larger in a space."""
    return float(np.clip(90 / np.sqrt(n) + 2.5, 3, 8)) / (1 if kind == "scattergl" else 2)


def _menu(points: pd.DataFrame, colours: Sequence[str]) -> dict[str, Any]:
    """A menu that changes what colours the points, and the legend with it."""
    buttons = []
    for column in colours:
        styles = colour_styles(points[column])
        marker = styles[0]["marker"]
        change: dict[str, list[Any]] = {
            f"marker.{key}": [marker.get(key)] + [None] * MOST_LEVELS
            for key in ("colorscale", "cmin", "cmax", "showscale", "colorbar.title.text")
        }
        change["marker.colorbar.title.text"] = [as_text(column)] * (MOST_LEVELS + 1)
        change["marker.color"] = [marker["color"].tolist(), *COLOURS]
        for key in ("visible", "showlegend", "name"):
            change[key] = [True if key == "visible" else False if key == "showlegend" else "",
                           *(style[key] for style in styles[1:])]  # fmt: skip
        title = {"legend.title.text": as_text(column)}
        buttons.append({"label": as_text(column), "method": "update",
                        "args": [change, title, list(range(MOST_LEVELS + 1))]})  # fmt: skip
    return {"buttons": buttons, "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom"}


def _layout(points: pd.DataFrame, axes: Sequence[str], title: str) -> dict[str, Any]:
    """The layout: no ticks, since the axes of a projection carry no unit; room for the legend."""
    plain_axis = {
        "showticklabels": False,
        "title": {"text": ""},
        "zeroline": False,
        "ticks": "",
        "showline": False,
    }
    sides = {f"{axis}axis": {**plain_axis, "range": span}
             for axis, span in ranges([points]).items()}  # fmt: skip
    if "z" in axes:
        place: dict[str, Any] = {"scene": sides, "dragmode": "orbit"}
    else:
        sides["yaxis"] |= {"scaleanchor": "x"}
        place = {**sides, "dragmode": "lasso"}
    return {
        "template": "simple_white", "height": 560, "hovermode": "closest", "uirevision": "points",
        "margin": {"t": 74, "r": 10, "l": 10, "b": 10}, "title": {
            "text": title, "font": {"size": 13}, "x": 0, "xanchor": "left", "pad": {"l": 10}},
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "v", "itemclick": False, "itemdoubleclick": False,
                   "tracegroupgap": 0, "y": 1}, **place,
    }  # fmt: skip
