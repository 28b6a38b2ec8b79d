"""What the embedding map says in words and tables of HTML; all text from data is escaped."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lab.explore.faces import text
from lab.explore.map_space import Maps, Setting

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LONGEST = 160  # characters of a text in a table
SAME = 0.99  # Jaccard of two maps from which on the seed is said to change nothing
SEEDLESS = (
    " The seed changes next to nothing here (pca draws no lots, and tsne begins from the principal "
    "components), so that seeds agree is no sign that the map can be trusted."
)
SIGNS = {"circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "x": "✖", "triangle-up": "▲",
         "star": "★", "triangle-down": "▼", "circle-open": "○", "square-open": "□",
         "diamond-open": "◇"}  # fmt: skip


def work(settings: Sequence[Setting], maps: Maps) -> str:
    """What two settings need computed, in words; nothing if their maps are there."""
    new = [name for name, one in zip("AB", settings, strict=True) if not maps.made(one)]
    what = f"{settings[0].projection} of {len(maps.drawn):,} points for {' and '.join(new)}"
    return f"computing {what}" if new else ""


def title(name: str, setting: Setting, maps: Maps, about: str) -> str:
    """What a map is of, and how far it can be trusted, or why that cannot be said."""
    try:
        found = maps.faithfulness(setting).to_dict("records")
    except ValueError as error:
        trust = [text(error)]
    else:
        trust = [
            f"{one['metric']} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
            for one in found
        ]
        trust[-1] += f", {found[0]['n']} points checked"
    return "<br>".join([f"<b>{text(name)}</b>", text(setting.label), *trust, about])


def listing(
    table: pd.DataFrame, chosen: int, space: str, cosines: Sequence[float] | None = None
) -> str:
    """The chosen points and their neighbours as an HTML table, one row per point.

    ``table``: that of :meth:`lab.explore.embedding_map.EmbeddingMap.neighbours_of`; ``chosen``:
    how many there are in all; ``cosines``: of each to the query, where there was one.
    """
    heads = ["row", "text", "nearest in the space, by cosine"]
    heads[1:1] = [] if cosines is None else ["cosine"]
    rows = []
    for place, (_, group) in enumerate(table.groupby("point", sort=False)):
        first = group.iloc[0]
        near = "".join(f"<li>{one.cosine:.3f} {_short(one.neighbour_text)}</li>"
                       for one in group.itertuples())  # fmt: skip
        cells = [str(first["row"]), _short(first["text"]), f"<ol>{near}</ol>"]
        cells[1:1] = [] if cosines is None else [f"{cosines[place]:.3f}"]
        rows.append("".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells))
    shown = table["point"].nunique()
    count = f"{chosen} points" if shown == chosen else f"the first {shown} of {chosen} points"
    return (
        f"<table><caption>{count}; neighbours in {text(space)}</caption><thead><tr>"
        + "".join(f"<th scope='col' style='text-align:left'>{head}</th>" for head in heads)
        + "</tr></thead><tbody>"
        + "".join(f"<tr style='vertical-align:top'>{row}</tr>" for row in rows)
        + "</tbody></table>"
    )


def legend(figure: "Figure") -> str:
    """The legend of a map as one line of HTML, for all maps that share it.

    Names in the figure are escaped already.
    """
    entries = "".join(
        f'<span style="margin-right:1em"><span aria-hidden="true" '
        f'style="color:{trace.marker.color}">{SIGNS[trace.marker.symbol]}</span> '
        f"{trace.name}</span>"
        for trace in figure.data[1:]
        if trace.visible
    )
    words = (  # on paper as the maps are, in a dark theme too
        "white-space:normal;overflow-wrap:anywhere;margin:0;padding:2px 8px;background:#fff;"
        "color:#222"
    )
    entries = entries or "see the colour bar"
    return f"<p style='{words}'><b>{figure.layout.legend.title.text}</b>: {entries}</p>"


def of_seeds(label: str, faith: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """How far the maps of several seeds can be trusted and how far they agree, in sentences."""
    said = []
    for metric, part in faith.groupby("metric", sort=False):
        values = ", ".join(f"{value:.3f}" for value in part["value"])
        said.append(f"{metric} {values}")
    n, k = pairs["n"].iloc[0], pairs["neighbours"].iloc[0]
    seeds = ", ".join(str(seed) for seed in faith["seed"].unique())
    return (
        f"<p><b>{text(label)}</b> under seeds {seeds} (points checked for each: "
        f"{faith['n'].iloc[0]} of {n}): {'; '.join(said)}. Of a point's {k} neighbours on the map, "
        f"two seeds agree on {_span(pairs['jaccard'])} (Jaccard, mean over points; "
        f"{pairs['by_chance'].iloc[0]:.3f} by chance); disparity after alignment "
        f"{_span(pairs['disparity'])}; {len(pairs)} pairs of seeds."
        f"{SEEDLESS if pairs['jaccard'].min() >= SAME else ''}</p>"
    )


def _span(values: pd.Series) -> str:
    return f"{values.min():.3f} to {values.max():.3f}"


def _short(words: object) -> str:
    flat = " ".join(str(words).split())
    return text(flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…")
