"""A cloud of texts that contracts: where its points are, and how alike they are, by setting.

``(points, curve) -> plotly figure``. Above, the points of one setting on axes that never change;
below, one curve for each level of the menu, and a ring around the setting that is shown.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.plotting.columns import floats, levels, plain, require
from lab.plotting.parts import as_text, menu, slider
from lab.plotting.style import COLOURS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x", "star", "hexagon")
MOVING = 3  # traces that follow the setting: the points, what is said of them, the ring


def cloud_panels(
    points: pd.DataFrame, curve: pd.DataFrame, at: tuple[Any, Any], *, label: str
) -> "Figure":
    """The cloud and the curves with one setting, (length, temperature), shown.

    The curves come first, the three traces of :func:`moving` last.

    Args:
        points: columns length, temperature, name, x and y; the same names under every setting.
        curve: columns length, temperature, value, low, high, n and share (of the variance of that
            cloud, in the plane; NaN where it has none), one row a setting.
        at: the setting.
        label: what ``value`` is.

    Raises:
        LookupError: a column or the setting is not there.
        ValueError: no rows, no numbers, two rows for one setting.
    """
    import plotly.graph_objects as go

    keys = ("length", "temperature")
    require(points, (*keys, "name"), ("x", "y"), unique=False)
    require(curve, keys, ("value", "low", "high", "n", "share"))
    figure = go.Figure(data=[*_curves(curve), *moving(points, curve, at)])
    figure.update_layout(**_layout(points, curve, label))
    return figure


def interactive_cloud_panels(
    points: pd.DataFrame, curve: pd.DataFrame, at: tuple[Any, Any], *, label: str
) -> "Figure":
    """The same with a slider over length and a menu over temperature; needs no kernel.

    Every temperature has traces of its own, which the slider moves all at once; the menu shows one.

    Raises:
        LookupError, ValueError: as :func:`cloud_panels`.
    """
    import plotly.graph_objects as go

    figure = cloud_panels(points, curve, at, label=label)
    lengths, temperatures = levels(curve["length"]), levels(curve["temperature"])
    still = len(figure.data) - MOVING
    shown = [
        trace.update(visible=temperature == at[1])
        for temperature in temperatures
        for trace in moving(points, curve, (at[0], temperature))
    ]
    drawn = go.Figure(data=[*figure.data[:still], *shown], layout=figure.layout)
    drawn.frames = [
        go.Frame(
            name=plain(length),
            traces=list(range(still, still + len(shown))),
            data=[
                {key: trace[key] for key in ("type", "x", "y", "text") if trace[key] is not None}
                for temperature in temperatures
                for trace in moving(points, curve, (length, temperature))
            ],
        )
        for length in lengths
    ]
    choices = {
        f"temperature {plain(chosen)}":
            [True] * still + [each == chosen for each in temperatures for _ in range(MOVING)]
        for chosen in temperatures
    }  # fmt: skip
    above = {"x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}  # in sight of what it moves
    steps = slider("length in tokens", [frame.name for frame in drawn.frames],
                   active=lengths.index(at[0]), **above | {"pad": {"b": 30}})  # fmt: skip
    drawn.update_layout(
        height=figure.layout.height + 150, margin={"t": 185},
        sliders=[steps],
        updatemenus=[menu(choices, y=1.0, active=temperatures.index(at[1]), pad={"b": 115})],
    )  # fmt: skip
    return drawn


def moving(points: pd.DataFrame, curve: pd.DataFrame, at: tuple[Any, Any]) -> list[Any]:
    """What follows the setting: the points, what is said of them, and a ring on the curve.

    Raises:
        LookupError: a setting that is not in the tables.
    """
    import plotly.graph_objects as go

    length, temperature = at
    cloud, row = _at(points, at), _at(curve, at).iloc[0]
    place = levels(curve["temperature"]).index(temperature)
    colour = COLOURS[place % len(COLOURS)]
    words = (
        f"{plain(length)} tokens, temperature {plain(temperature)}, n = {row['n']:.0f} texts<br>"
        f"{_numbers(row)}<br>{_held(row['share'])}"
    )
    x, y = _range(points)
    return [
        go.Scatter(x=floats(cloud["x"]), y=floats(cloud["y"]), mode="markers",
                   text=[as_text(name, 80) for name in cloud["name"]], hoverinfo="text",
                   marker={"color": colour, "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7,
                           "opacity": 0.75}, xaxis="x", yaxis="y", showlegend=False),
        go.Scatter(x=[x[0]], y=[y[1] - 0.02 * (y[1] - y[0])], text=[words], mode="text",
                   textposition="bottom right", hoverinfo="skip", showlegend=False,
                   cliponaxis=False, xaxis="x", yaxis="y"),
        go.Scatter(x=[float(length)], y=[row["value"]], mode="markers", hoverinfo="skip",
                   marker={"symbol": "circle-open", "size": 18, "color": "#000000",
                           "line": {"width": 2.5}}, showlegend=False, xaxis="x2", yaxis="y2"),
    ]  # fmt: skip


def _curves(curve: pd.DataFrame) -> list[Any]:
    """One line with intervals for each temperature."""
    import plotly.graph_objects as go

    lines = []
    for place, temperature in enumerate(levels(curve["temperature"])):
        line = curve[curve["temperature"] == temperature].sort_values("length")
        value = floats(line["value"])
        lines.append(go.Scatter(
            x=floats(line["length"]), y=value, name=plain(temperature), xaxis="x2", yaxis="y2",
            mode="lines+markers", hoverinfo="text",
            text=[_numbers(row) for row in line.to_dict("records")],
            error_y={"array": floats(line["high"]) - value, "symmetric": False, "thickness": 1,
                     "arrayminus": value - floats(line["low"]), "width": 3},
            line={"color": COLOURS[place % len(COLOURS)], "dash": DASHES[place % len(DASHES)]},
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
        ))  # fmt: skip
    return lines


def _layout(points: pd.DataFrame, curve: pd.DataFrame, label: str) -> dict[str, Any]:
    """Axes of both panels: those of the cloud hold every setting at equal scale, and stay."""
    x, y = _range(points)
    bare = {"showticklabels": False, "ticks": "", "zeroline": False, "mirror": True}
    lengths = levels(curve["length"])
    return {
        "template": "simple_white", "height": 760, "margin": {"t": 20, "l": 65, "r": 20, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "xaxis": {**bare, "range": x, "domain": [0, 1], "anchor": "y",
                  "title": _axis("a projection: distances shrink in it, they never grow")},
        "yaxis": {**bare, "range": y, "domain": [0.46, 1], "anchor": "x", "scaleanchor": "x"},
        "xaxis2": {"type": "log", "tickvals": lengths, "ticktext": [plain(n) for n in lengths],
                   "title": _axis("length in tokens"), "anchor": "y2", "domain": [0, 1]},
        "yaxis2": {"title": _axis(as_text(label)), "domain": [0, 0.32], "anchor": "x2"},
        "legend": {"title": _axis("temperature"), "orientation": "h", "x": 0, "y": 0.33,
                   "yanchor": "bottom"},
    }  # fmt: skip


def _axis(words: str) -> dict[str, Any]:
    return {"text": words, "font": {"size": 13}}


def _range(points: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Limits of both axes that hold the points of all settings, with room for a line of words."""
    sides = [
        (float(floats(points[axis]).min()), float(floats(points[axis]).max())) for axis in "xy"
    ]
    margin = 0.04 * max(high - low for low, high in sides)
    (left, right), (bottom, top) = sides
    return [left - margin, right + margin], [bottom - margin, top + 8 * margin]


def _at(table: pd.DataFrame, at: tuple[Any, Any]) -> pd.DataFrame:
    """The rows of one setting."""
    found = table[(table["length"] == at[0]) & (table["temperature"] == at[1])]
    if found.empty:
        raise LookupError(
            f"nothing at length {at[0]} and temperature {at[1]}; there are lengths "
            f"{levels(table['length'])} and temperatures {levels(table['temperature'])}"
        )
    return found


def _held(share: float) -> str:
    if np.isnan(share):
        return "all points are the same one: there is no variance"
    return f"the plane holds {share:.0%} of this cloud's variance"


def _numbers(row: Mapping[Any, Any] | pd.Series) -> str:
    return f"mean cosine {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
