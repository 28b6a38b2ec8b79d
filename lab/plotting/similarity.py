"""Plotly heat maps of the similarity of texts: two settings side by side, or many in frames."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.plotting.columns import floats, grid, levels, require
from lab.plotting.parts import as_text, menu, slider
from lab.plotting.style import COLOURS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_TICKS = 14  # under a matrix: of more sentences every second, third ... has its number
LABEL = 24  # characters of a text beside its row
LOOK: dict[str, Any] = {
    "template": "simple_white", "font": {"family": "system-ui, sans-serif", "size": 13}
}  # fmt: skip


def similarity(now: np.ndarray, start: np.ndarray, texts: Sequence[str]) -> "Figure":
    """The cosines of texts (n, n) beside their change since a start setting, on its own scale.

    The left scale spans both settings, so that colours stay as the setting changes; the diagonal,
    1 by definition, is left out of it.

    Raises:
        ValueError: not one row and column per text, twice.
    """
    from plotly.subplots import make_subplots

    n = len(texts)
    if not now.shape == start.shape == (n, n):
        raise ValueError(f"({n}, {n}) cosines wanted, twice; got {now.shape} and {start.shape}")
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.03)
    traces, layout = similarity_numbers(now, start)
    for column, (numbers, axis) in enumerate(zip(traces, layout, strict=True), 1):
        figure.add_trace(_map(texts, numbers["z"], axis), row=1, col=column)
    figure.update_layout(
        **LOOK, autosize=True, height=180 + 26 * n, margin={"t": 10, "r": 10, "b": 120, "l": 10},
        coloraxis={"colorscale": "Cividis", "colorbar": _bar("cosine", 0.24)},
        coloraxis2={"colorscale": "PuOr", "colorbar": _bar("change since the start", 0.76)},
    )  # fmt: skip
    figure.update_layout(layout)
    figure.update_yaxes(autorange="reversed", type="category", automargin=True)
    figure.update_xaxes(type="category", tickangle=0, tickfont={"size": 11}, nticks=MOST_TICKS)
    return figure


def similarity_numbers(
    now: np.ndarray, start: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What of :func:`similarity` moves with the setting: of each trace, and of the layout."""
    change = now - start
    least, most = float(min(now.min(), start.min())), max(float(np.abs(change).max()), 0.01)
    ranges = {"coloraxis": {"cmin": least, "cmax": 1}, "coloraxis2": {"cmin": -most, "cmax": most}}
    return [{"z": now}, {"z": change}], ranges


def similarity_frames(cosines: pd.DataFrame, scores: pd.DataFrame) -> "Figure":
    """A heat map of texts with a menu of poolings and a slider of layers; below it their score.

    ``cosines``: layer, pooling, first, second, value, with every pair of texts in every (layer,
    pooling). ``scores``: layer, pooling, value, low, high, n, without the undefined ones. Menu and
    slider are independent: a frame moves all poolings, the menu chooses the one that is seen.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, an empty key, two rows for one mark, or texts that differ.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    keys = ["layer", "pooling", "first", "second"]
    require(cosines, keys, ["value"])
    require(scores, keys[:2], ["value", "low", "high", "n"])
    texts, poolings, layers = (levels(cosines[name]) for name in ("first", "pooling", "layer"))
    if len(cosines) != len(layers) * len(poolings) * len(texts) ** 2:
        raise ValueError("every layer and pooling must hold every pair of texts")

    def numbers(layer: Any, pooling: str) -> tuple[np.ndarray, pd.DataFrame]:
        part, at = (_at(table, layer, pooling) for table in (cosines, scores))
        return grid(part, "first", "second", "value", (texts, texts)), at

    figure = make_subplots(2, 1, row_heights=[0.72, 0.28], vertical_spacing=0.1)
    for pooling in poolings:
        values, at = numbers(layers[-1], pooling)
        figure.add_trace(_map(texts, values, "coloraxis"), row=1, col=1)
        figure.add_trace(_mark(at), row=2, col=1)
    for pooling in poolings:
        figure.add_trace(_curve(scores[scores["pooling"] == pooling]), row=2, col=1)
    figure.frames = [
        go.Frame(
            name=str(layer),
            data=[
                trace
                for values, at in (numbers(layer, pooling) for pooling in poolings)
                for trace in (go.Heatmap(z=values), _mark(at))
            ],
            traces=list(range(2 * len(poolings))),
        )
        for layer in layers
    ]
    owners = [_of(trace, len(poolings)) for trace in range(len(figure.data))]
    least = float(floats(cosines["value"]).min())
    figure.update_layout(
        **LOOK, height=330 + 34 * len(texts), showlegend=False,
        margin={"t": 60, "r": 10, "b": 10, "l": 10},
        coloraxis={"colorscale": "Cividis", "cmin": least, "cmax": 1,
                   "colorbar": {"title": {"text": "cosine", "side": "right"}, "y": 0.66,
                                "len": 0.7}},
        sliders=[slider("layer", [str(layer) for layer in layers], active=len(layers) - 1,
                        pad={"t": 65})],
        updatemenus=[menu({name: [owner == place for owner in owners]
                           for place, name in enumerate(poolings)}, y=1.02)],
        yaxis={"autorange": "reversed", "type": "category", "automargin": True},
        xaxis={"type": "category", "tickangle": 0}, xaxis2={"title": {"text": "layer"}},
        yaxis2={"title": {"text": "Spearman"}},
    )  # fmt: skip
    for owner, trace in zip(owners, figure.data, strict=True):
        trace.visible = owner == 0
    return figure


def _of(trace: int, poolings: int) -> int:
    """Which pooling a trace belongs to: pairs of map and mark first, then the curves."""
    return trace // 2 if trace < 2 * poolings else trace - 2 * poolings


def _at(table: pd.DataFrame, layer: Any, pooling: str) -> pd.DataFrame:
    return table[(table["layer"] == layer) & (table["pooling"] == pooling)]


def _map(texts: Sequence[str], values: np.ndarray, axis: str) -> Any:
    """One heat map: numbered texts beside its rows, their numbers under its columns."""
    import plotly.graph_objects as go

    rows = [f"{place} · {as_text(text, LABEL)}" for place, text in enumerate(texts, 1)]
    short = [as_text(text, 90) for text in texts]
    return go.Heatmap(
        z=values, x=[str(place) for place in range(1, len(texts) + 1)], y=rows, coloraxis=axis,
        text=[[f"{first}<br>{second}" for second in short] for first in short],
        hovertemplate="<b>%{z:.3f}</b><br>%{text}<extra></extra>", xgap=1, ygap=1,
    )  # fmt: skip


def _curve(scores: pd.DataFrame) -> Any:
    """The score of one pooling over the layers, with intervals."""
    import plotly.graph_objects as go

    value, low, high = (floats(scores[name]) for name in ("value", "low", "high"))
    hover = [f"layer {row.layer}: {row.value:.3f} [{row.low:.3f}, {row.high:.3f}], n {row.n:.0f}"
             for row in scores.itertuples()]  # fmt: skip
    bars = {"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low}
    return go.Scatter(
        x=scores["layer"].tolist(), y=value, error_y=bars, mode="lines+markers", hovertext=hover,
        hoverinfo="text", marker={"color": COLOURS[0], "size": 6}, line={"width": 1},
    )  # fmt: skip


def _mark(scores: pd.DataFrame) -> Any:
    """A ring around the layer that is shown, if its score is defined."""
    import plotly.graph_objects as go

    ring = {"symbol": "circle-open", "size": 16, "color": COLOURS[1], "line": {"width": 3}}
    return go.Scatter(
        x=scores["layer"].tolist(), y=floats(scores["value"]), mode="markers", marker=ring,
        hoverinfo="skip",
    )  # fmt: skip


def _bar(title: str, x: float) -> dict[str, Any]:
    """A colour bar below its heat map."""
    words = {"text": title, "side": "top"}
    return {"orientation": "h", "x": x, "y": 0, "yanchor": "top", "ypad": 38, "len": 0.42,
            "thickness": 12, "nticks": 4, "tickangle": 0, "title": words}  # fmt: skip
