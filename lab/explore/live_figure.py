"""Plotly figures in JupyterLab that fill their place, however wide it becomes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from anywidget import AnyWidget
from plotly.graph_objects import Figure, FigureWidget
from plotly.serializers import custom_serializers

if TYPE_CHECKING:
    from ipywidgets import Widget

# Plotly's own answer to a width is one to the window's, which a side bar does not change.
ESM = """
export default { render({ el }) {
  const seen = new ResizeObserver(() => window.dispatchEvent(new Event("resize")));
  const begin = () => el.isConnected ? seen.observe(el.parentElement) : setTimeout(begin, 50);
  begin();
  return () => seen.disconnect();
} };
"""

# A picture of equal scales keeps its ranges: plotly would widen them anew at every change of width.
SAME_SCALE = {"xaxis": {"constrain": "domain"}, "yaxis": {"constrain": "domain"}}


class LiveFigure(FigureWidget):
    """A figure that a page finds as it is now; plotly's is as it was made when a page is reloaded.

    Changes are sent to the pages that are open, not kept in the state that a new one asks for.
    """

    def get_state(
        self, key: str | Iterable[str] | None = None, drop_defaults: bool = False
    ) -> dict[str, Any]:
        """The state that a page gets, with data and layout of now."""
        state = super().get_state(key, drop_defaults)
        if made := vars(self).get("_layout_obj"):  # not yet while it is being made
            now = {"_widget_data": self._data, "_widget_layout": made._props}
            state |= {
                name: custom_serializers["to_json"](held, self)
                for name, held in now.items() if name in state
            }  # fmt: skip
        return state


class _Width(AnyWidget):
    """Not to be seen; tells the figures beside it when their place changes its size."""

    _esm = ESM


def live_figure(figure: Figure, name: str) -> LiveFigure:
    """The figure with a kernel behind it; its camera button saves ``name``.svg."""
    made = LiveFigure(figure)
    made.update_layout(autosize=True, width=None)
    made._config = {"responsive": True, "displaylogo": False,
                    "toImageButtonOptions": {"format": "svg", "filename": name}}  # fmt: skip
    return made


def beside_one_another(*figures: FigureWidget, least: str = "20em") -> "Widget":
    """Figures in a row that share its width, one below the other where it is too narrow."""
    import ipywidgets as widgets

    grows: dict[str, Any] = {"flex": f"1 1 {least}", "min_width": "0", "overflow": "hidden"}
    parts = [widgets.VBox([figure], layout=grows) for figure in figures]
    return widgets.HBox([*parts, _Width()], layout={"flex_flow": "row wrap"})
