"""Where the four panels of attention heads stand, and how they are coloured."""

import math
from collections.abc import Sequence
from typing import Any

from lab.plotting.parts import as_text

FULL = 255  # a weight of one as it is stored: a byte a weight keeps pages small
TICKS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)  # weights, on the root scale of the colours
LONGEST = 16  # characters of a token beside the map; hovering tells it whole
LABELLED = 40  # tokens; of more every second, third ... has its label
SQUARE = {"constrain": "domain", "scaleanchor": "x4"}
ROWS = ((0.855, 0.955), (0.52, 0.77), (0.0, 0.36))  # from the top, shares of the height


def panel_layout(
    names: Sequence[str],
    shape: tuple[int, int],
    chosen: tuple[int, int],
    *,
    most: float,
    reference: float,
) -> dict[str, Any]:
    """Axes, colour scales, titles and the outline of the chosen head, for four heat maps.

    Args:
        names: the tokens.
        shape: layers, heads.
        chosen: the layer, from 1, and the head, from 0, that is shown large.
        most: the filter rate at the upper end of the colours.
        reference: the filter rate of uniform causal attention over as many tokens.
    """
    (layers, heads), (layer, head), n = shape, chosen, len(names)
    step = 1 + (n - 1) // LABELLED
    words = [as_text(token, LONGEST) for token in names[::step]]
    tokens = {"tickvals": list(range(0, n, step)), "showgrid": False, "zeroline": False,
              "ticktext": words, "ticks": ""}  # fmt: skip
    by_head = {"tickvals": list(range(0, heads, 1 + heads // 16)), "showgrid": False,
               "range": [-0.5, heads - 0.5], "zeroline": False, "ticks": ""}  # fmt: skip
    by_layer = {"tickvals": list(range(1, layers + 1, 1 + layers // 8)), "showgrid": False,
                "range": [layers + 0.5, 0.5], "zeroline": False, "ticks": ""}  # fmt: skip
    wide = [[0.0, 0.46], [0.54, 1.0], [0.0, 1.0], [0.0, 1.0]]
    rows = [ROWS[0], ROWS[0], ROWS[1], ROWS[2]]
    titles = [
        f"filter rate<br>(uniform causal: {reference:.2f})",
        f"entropy in nats<br>(uniform over {n}: {math.log(max(n, 2)):.2f})",
        "maps of all heads: layers down, heads across",
        f"layer {layer}, head {head}: from token (row) to token (column)",
    ]
    ticks = {"tickvals": [FULL * math.sqrt(tick) for tick in TICKS],
             "ticktext": [f"{tick:.0%}" for tick in TICKS]}  # fmt: skip
    axes: dict[str, Any] = {}
    for place, (x, y) in enumerate(zip(wide, rows, strict=True), 1):
        across, down = (tokens, tokens) if place == 4 else (by_head, by_layer)
        axes[f"xaxis{place}"] = {**across, "domain": x, "anchor": f"y{place}"}
        axes[f"yaxis{place}"] = {**down, "domain": list(y), "anchor": f"x{place}"}
    axes["xaxis4"] |= {"side": "top", "tickangle": -60, "constrain": "domain",
                       "range": [-0.5, n - 0.5]}  # fmt: skip
    axes["yaxis4"] |= {"range": [n - 0.5, -0.5], **SQUARE}
    return {
        "template": "simple_white", "height": 1100, "margin": {"t": 60, "l": 70, "r": 20, "b": 20},
        "font": {"family": "system-ui, sans-serif", "size": 12}, **axes,
        "annotations": [_title(words, wide[i][0], rows[i][1], 62 if i == 3 else 4)
                        for i, words in enumerate(titles)],
        "shapes": [*_borders(layers, heads), *(_outline(p, layer, head) for p in (1, 2, 3))],
        "coloraxis": _scale(most, 0.0, 0.46), "coloraxis2": _scale(math.log(max(n, 2)), 0.54, 1.0),
        "coloraxis3": {**_scale(FULL, 0.0, 1.0), "colorbar": {
            **_bar(0.0, 1.0, ROWS[1][0] - 0.02), **ticks}},
    }  # fmt: skip


def _scale(top: float, left: float, right: float) -> dict[str, Any]:
    return {"colorscale": "Cividis", "cmin": 0.0, "cmax": top,
            "colorbar": _bar(left, right, ROWS[0][0] - 0.02)}  # fmt: skip


def _bar(left: float, right: float, top: float) -> dict[str, Any]:
    return {"orientation": "h", "x": left, "xanchor": "left", "len": right - left, "y": top,
            "yanchor": "top", "thickness": 8, "xpad": 0, "outlinewidth": 0}  # fmt: skip


def _title(words: str, x: float, y: float, above: int) -> dict[str, Any]:
    return {"text": words, "x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left",
            "yanchor": "bottom", "align": "left", "yshift": above, "showarrow": False,
            "font": {"size": 13}}  # fmt: skip


def _borders(layers: int, heads: int) -> list[dict[str, Any]]:
    """White lines between the tiles."""
    line = {"type": "line", "xref": "x3", "yref": "y3", "line": {"color": "white", "width": 2}}
    across = [{"x0": h - 0.5, "x1": h - 0.5, "y0": 0.5, "y1": layers + 0.5}
              for h in range(1, heads)]  # fmt: skip
    down = [{"y0": k + 0.5, "y1": k + 0.5, "x0": -0.5, "x1": heads - 0.5} for k in range(1, layers)]
    return [{**line, **ends} for ends in (*across, *down)]


def _outline(panel: int, layer: int, head: int) -> dict[str, Any]:
    """A frame around the chosen head in one of the first three panels."""
    return {"type": "rect", "xref": f"x{panel}", "yref": f"y{panel}", "x0": head - 0.5,
            "x1": head + 0.5, "y0": layer - 0.5, "y1": layer + 0.5,
            "line": {"color": "#D55E00", "width": 3}, "opacity": 1,
            "fillcolor": "rgba(0,0,0,0)"}  # fmt: skip
