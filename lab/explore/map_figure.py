"""One live map: a figure of points that says what is pointed at and what is lassoed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.plotting import maps as drawing

if TYPE_CHECKING:
    from plotly.graph_objects import FigureWidget

    from lab.explore.embedding_map import EmbeddingMap

HOVERED = 20_000  # points whose words travel with the figure; of more, the kernel is asked
LAYOUT = {  # two beside each other in a window of 1280 pixels with its side bar, one HTML legend
    "width": 415, "height": 510, "margin": {"t": 124, "r": 34, "l": 8, "b": 8},
    "title": {"y": 1, "yanchor": "top", "pad": {"t": 12, "l": 8}, "font": {"size": 12}},
    "showlegend": False, "modebar": {"orientation": "v"},
}  # fmt: skip


def live_figure(
    of: "EmbeddingMap",
    places: pd.DataFrame,
    *,
    style: Callable[[Any], None],
    hovered: Callable[[list[int]], None],
    chosen: Callable[[list[int]], None],
) -> "FigureWidget":
    """The drawn points at ``places``, styled by ``style``.

    ``hovered`` and ``chosen`` are told positions of points; the first only where there are too
    many points to send all words.
    """
    from plotly.graph_objects import FigureWidget

    shown, _ = of.shown([])
    drawn = drawing.point_map(pd.concat([shown, places], axis=1).assign(all=""), colours=["all"])
    style(drawn)
    live = FigureWidget(drawn)
    live.update_layout(LAYOUT)
    points = live.data[0]
    if len(shown) <= HOVERED:
        points.update(hoverinfo="text", hovertext=drawing.said(of.points, ["text", *of.colours]))
    else:
        points.on_hover(lambda _, hit, __: hovered(hit.point_inds))
    points.on_selection(lambda _, hit, __: chosen(hit.point_inds))
    points.on_click(lambda _, hit, __: chosen(hit.point_inds))
    points.on_deselect(lambda *_: chosen([]))
    return live
