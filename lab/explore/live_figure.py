"""Plotly figures in JupyterLab that fill their place, however wide it becomes."""

from typing import TYPE_CHECKING, Any

from anywidget import AnyWidget

if TYPE_CHECKING:
    from ipywidgets import Widget
    from plotly.graph_objects import Figure, FigureWidget

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


class _Width(AnyWidget):
    """Not to be seen; tells the figures beside it when their place changes its size."""

    _esm = ESM


def live_figure(figure: "Figure", name: str) -> "FigureWidget":
    """The figure with a kernel behind it; its camera button saves ``name``.svg."""
    from plotly.graph_objects import FigureWidget

    made = FigureWidget(figure)
    made.update_layout(autosize=True, width=None)
    made._config = {"responsive": True, "displaylogo": False,
                    "toImageButtonOptions": {"format": "svg", "filename": name}}  # fmt: skip
    return made


def beside_one_another(*figures: "FigureWidget", least: str = "20em") -> "Widget":
    """Figures in a row that share its width, one below the other where it is too narrow."""
    import ipywidgets as widgets

    grows: dict[str, Any] = {"flex": f"1 1 {least}", "min_width": "0", "overflow": "hidden"}
    parts = [widgets.VBox([figure], layout=grows) for figure in figures]
    return widgets.HBox([*parts, _Width()], layout={"flex_flow": "row wrap"})
