"""Attention heads side by side: what each does in one number, all maps at a glance, one map large.

``(numbers, maps, tokens) -> plotly figure``. Filter rate and entropy are heat maps layer x head,
the maps of all heads are one picture of tiles, and the chosen head's map is drawn with its tokens.
Colours of maps go with the root of a weight, since most are small; hovering tells numbers.
Every scale is the same whatever the temperature: a change of colour is a change of attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.plotting.columns import require
from lab.plotting.head_layout import FULL, panel_layout
from lab.plotting.parts import as_text, menu, slider

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Heads:
    """One reading of a text: its tokens, and the maps and numbers of all heads.

    Attributes:
        tokens: as they may be shown.
        maps: (layer, head, query, key) attention weights.
        numbers: one row a head: layer (from 1), head (from 0), filter_rate, entropy, spread.
    """

    tokens: Sequence[str]
    maps: np.ndarray
    numbers: pd.DataFrame

    def __post_init__(self) -> None:
        """Refuse numbers, maps and tokens of different heads or texts."""
        require(self.numbers, ("layer", "head"), ("filter_rate", "entropy", "spread"))
        layers, heads, n = self.maps.shape[:3]
        if (len(self.numbers), n, n) != (layers * heads, len(self.tokens), self.maps.shape[3]):
            raise ValueError(
                f"maps {self.maps.shape} do not go with {len(self.numbers)} heads and "
                f"{len(self.tokens)} tokens"
            )

    def grid(self, measure: str) -> np.ndarray:
        """(layer, head) of one of the numbers."""
        return self.numbers[measure].to_numpy(float).reshape(self.maps.shape[:2])


def head_panels(read: Heads, layer: int, head: int, *, most: float, reference: float) -> "Figure":
    """The four panels of one reading, the chosen head outlined.

    Args:
        read: the reading.
        layer: of the chosen head, from 1.
        head: of the chosen head, from 0.
        most: the filter rate at the upper end of the colours.
        reference: the filter rate of uniform causal attention over as many tokens, to be told.

    Raises:
        LookupError: no such layer or head.
    """
    import plotly.graph_objects as go

    figure = go.Figure(data=head_traces(read, layer, head))
    figure.update_layout(
        **panel_layout(read.tokens, read.maps.shape[:2], (layer, head), most=most,
                       reference=reference)
    )  # fmt: skip
    return figure


def interactive_head_panels(
    readings: Mapping[str, Mapping[float, Heads]],
    layer: int,
    head: int,
    *,
    reference: float,
    start: float = 1.0,
) -> "Figure":
    """The panels with a slider over temperature and a menu over attention; needs no kernel.

    Args:
        readings: {attention: {temperature: reading}} of one text, the same temperatures in each.
        layer: of the head that is shown large, from 1.
        head: of the head that is shown large, from 0.
        reference: the filter rate of uniform causal attention, to be told.
        start: the temperature that is shown first, if it is there.

    Raises:
        LookupError: no such layer or head.
        ValueError: other temperatures under one attention than under another.
    """
    import plotly.graph_objects as go

    names = list(readings)
    temperatures = list(readings[names[0]])
    for name in names:
        if list(readings[name]) != temperatures:
            raise ValueError(
                f"{name!r} was read at {list(readings[name])}, {names[0]!r} at {temperatures}; "
                "one slider moves both, so they need the same temperatures"
            )
    everything = [read for under in readings.values() for read in under.values()]
    most = float(max(read.numbers["filter_rate"].max() for read in everything))
    at = temperatures.index(start) if start in temperatures else 0
    frames = [
        go.Frame(
            name=f"{temperature:g}",
            data=[
                {key: trace[key] for key in ("type", "z", "customdata") if trace[key] is not None}
                for name in names
                for trace in head_traces(readings[name][temperature], layer, head)
            ],
        )
        for temperature in temperatures
    ]
    shown = [
        trace.update(visible=place == 0)
        for place, name in enumerate(names)
        for trace in head_traces(readings[name][temperatures[at]], layer, head)
    ]
    figure = go.Figure(data=shown, frames=frames)
    first = everything[0]
    layout = panel_layout(first.tokens, first.maps.shape[:2], (layer, head), most=most,
                          reference=reference)  # fmt: skip
    figure.update_layout(**layout)
    above = {"x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}  # in sight of what it moves
    steps = slider("attention temperature", [frame.name for frame in frames], active=at,
                   **above | {"pad": {"b": 25}})  # fmt: skip
    owners = [name for name in names for _ in range(len(shown) // len(names))]
    choices = {name: [owner == name for owner in owners] for name in names}
    figure.update_layout(
        height=figure.layout.height + 120, margin={"t": 180},
        sliders=[steps], updatemenus=[menu(choices, y=1.0, pad={"b": 110})],
    )  # fmt: skip
    return figure


def head_traces(read: Heads, layer: int, head: int) -> list[Any]:
    """The four heat maps of a reading: filter rate, entropy, all maps, the map of one head.

    Raises:
        LookupError: no such layer or head.
    """
    import plotly.graph_objects as go

    layers, heads, n = read.maps.shape[:3]
    if not (1 <= layer <= layers and 0 <= head < heads):
        raise LookupError(
            f"there is no head {head} in layer {layer}: layers are 1 .. {layers}, heads "
            f"0 .. {heads - 1}"
        )
    told = np.stack([read.grid(name) for name in ("filter_rate", "entropy", "spread")], -1)
    hover = (
        "layer %{y}, head %{x}<br>filter rate %{customdata[0]:.3f}<br>entropy "
        "%{customdata[1]:.2f} nats<br>logit spread %{customdata[2]:.2f}<extra></extra>"
    )
    sides = {"x": np.arange(heads), "y": np.arange(1, layers + 1), "xgap": 1, "ygap": 1}
    weights = read.maps[layer - 1, head]
    pairs = [[f"{as_text(a)} → {as_text(b)}" for b in read.tokens] for a in read.tokens]
    return [
        *(
            go.Heatmap(z=told[..., place], customdata=told.round(3), hovertemplate=hover,
                       coloraxis=f"coloraxis{place + 1 if place else ''}",
                       xaxis=f"x{place + 1}", yaxis=f"y{place + 1}", **sides)
            for place in (0, 1)
        ),
        go.Heatmap(z=_bytes(_tiles(read.maps)), x0=0.5 / n - 0.5, dx=1 / n, y0=0.5 / n + 0.5,
                   dy=1 / n, coloraxis="coloraxis3", xaxis="x3", yaxis="y3",
                   hovertemplate="layer %{y:.0f}, head %{x:.0f}<extra></extra>"),
        go.Heatmap(z=_bytes(weights), customdata=weights.round(3), text=pairs,
                   hovertemplate="%{text}: %{customdata:.1%}<extra></extra>",
                   coloraxis="coloraxis3", xaxis="x4", yaxis="y4"),
    ]  # fmt: skip


def _tiles(maps: np.ndarray) -> np.ndarray:
    """(layer, head, n, n) maps as one picture (layer * n, head * n)."""
    layers, heads, n = maps.shape[:3]
    return maps.transpose(0, 2, 1, 3).reshape(layers * n, heads * n)


def _bytes(weights: np.ndarray) -> np.ndarray:
    """Weights as bytes on a root scale."""
    return np.rint(FULL * np.sqrt(weights.clip(0, 1))).astype(np.uint8)
