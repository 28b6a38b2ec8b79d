"""One live map: a figure of points that says what is pointed at, clicked and lassoed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.explore.live_figure import SAME_SCALE, live_figure
from lab.plotting import maps as drawing

if TYPE_CHECKING:
    from plotly.graph_objects import FigureWidget

    from lab.explore.embedding_map import EmbeddingMap

HOVERED = 20_000  # points whose words travel with the figure; of more, the kernel is asked
LAYOUT = {  # of one of two; the legend of both is HTML
    "height": 510, "margin": {"t": 124, "r": 34, "l": 8, "b": 8},
    "title": {"y": 1, "yanchor": "top", "pad": {"t": 12, "l": 8}, "font": {"size": 12}},
    "showlegend": False, "modebar": {"orientation": "v"}, **SAME_SCALE,
}  # fmt: skip
Told = Callable[[list[int]], None]  # takes positions of points


def figure_of(
    of: "EmbeddingMap",
    places: pd.DataFrame,
    name: str,
    *,
    style: Callable[[Any], None],
    hovered: Told,
    clicked: Told,
    lassoed: Told,
) -> "FigureWidget":
    """The drawn points at ``places``, styled by ``style``; its camera button saves ``name``.svg.

    ``hovered`` is told only where there are too many points to send all words.
    """
    shown, _ = of.shown([])
    drawn = drawing.point_map(pd.concat([shown, places], axis=1).assign(all=""), colours=["all"])
    style(drawn)
    live = live_figure(drawn, name)
    live.update_layout(LAYOUT)
    points = live.data[0]
    if len(shown) <= HOVERED:
        points.update(hoverinfo="text", hovertext=drawing.said(of.points, ["text", *of.colours]))
    else:
        points.on_hover(lambda _, hit, __: hovered(hit.point_inds))
    points.on_selection(lambda _, hit, __: lassoed(hit.point_inds))
    points.on_click(lambda _, hit, __: clicked(hit.point_inds))
    points.on_deselect(lambda *_: clicked([]))
    return live
