"""Controls of the embedding map: those of one side, and the range of lengths that is seen."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.explore.map_space import NO_REPAIR, REPAIRS_SHOWN, Setting, Spaces

if TYPE_CHECKING:
    from ipywidgets import Widget


def of_side(spaces: Spaces, stop: Setting, wide: dict[str, Any]) -> "dict[str, Widget]":
    """The controls of one side, at ``stop``: layer, pooling, repair."""
    import ipywidgets as w

    layer = w.SelectionSlider(options=list(spaces.layers), value=stop.layer,
                              description="layer", continuous_update=False, **wide)  # fmt: skip
    poolings, repairs = list(spaces.poolings), [NO_REPAIR, *REPAIRS_SHOWN]
    return {
        "layer": layer,
        "pooling": w.Dropdown(options=poolings, value=stop.pooling, description="pooling", **wide),
        "repair": w.Dropdown(options=repairs, value=stop.repair, description="repair", **wide),
    }


def lengths(points: pd.DataFrame, wide: dict[str, Any]) -> "Widget | None":
    """A slider over the tokens there are, or None without a column of several lengths."""
    import ipywidgets as w

    if "tokens" not in points or points["tokens"].nunique() < 2:
        return None
    least, most = (int(points["tokens"].agg(what)) for what in ("min", "max"))
    return w.IntRangeSlider(value=(least, most), min=least, max=most, description="tokens", **wide)
