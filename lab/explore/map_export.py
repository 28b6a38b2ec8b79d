"""A map as files that other tools open: Parquet, the TensorBoard projector's TSV, one HTML page."""

import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab import atomic
from lab.plotting.figures import SHORTEST_ALT
from lab.plotting.maps import redraw

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from lab.explore.embedding_map import EmbeddingMap
    from lab.explore.map_space import Setting

STATIC = ("site.css", "site.js")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style></head>
<body><main><h1>{title}</h1>
{drawing}
<p>{alt}</p></main>
<script nonce="{nonce}">{library}</script>
<script nonce="{nonce}">{script}</script></body></html>
"""


def parquet(points: pd.DataFrame, path: Path) -> Path:
    """The file: one row per point with its text, columns and coordinates.

    Embedding Atlas takes such a file by its documentation (it was not tried here):
    ``embedding-atlas map.parquet --text text --x x --y y``.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replaced(path) as part:
        points.to_parquet(part, index=False)
    return path


def projector(points: pd.DataFrame, rows: np.ndarray, folder: Path) -> tuple[Path, Path]:
    """vectors.tsv and metadata.tsv for the Embedding Projector of TensorBoard: "Load".

    Vectors are the embeddings (n, d) themselves, not the map. Tabs, line breaks and control
    characters in a cell become spaces, because the format knows no quotes. The header line stands
    over two columns or more, as the projector wants it.

    Raises:
        ValueError: other rows than points, or a single column.
        OSError: a file cannot be written.
    """
    if len(points) != len(rows):
        raise ValueError(f"{len(rows)} vectors for {len(points)} points")
    if points.shape[1] < 2:
        raise ValueError("the projector takes a header only over two columns or more")
    folder.mkdir(parents=True, exist_ok=True)
    vectors, metadata = folder / "vectors.tsv", folder / "metadata.tsv"
    with atomic.replaced(vectors) as part:
        np.savetxt(part, rows, fmt="%.9g", delimiter="\t", encoding="utf-8")
    lines = [points.columns, *points.itertuples(index=False)]
    text = "".join("\t".join(_cell(value) for value in line) + "\n" for line in lines)
    atomic.write(metadata, text)
    return vectors, metadata


def page(figure: "Figure", path: Path, *, title: str, alt: str) -> Path:
    """One HTML file that needs nothing else: plotly is inside, and no host is asked.

    The figure travels as JSON in a block that is not executed and cannot be ended from inside; the
    page's own policy runs only the scripts that carry its number.

    Raises:
        ValueError: an alt text too short to describe the map.
        OSError: the file cannot be written.
    """
    from plotly.offline import get_plotlyjs

    from lab.export.page import TEMPLATES, drawing, nonce, policy

    if len(alt) < SHORTEST_ALT:
        raise ValueError(f"alt text must say what the map shows; got {alt!r}")
    drawn = drawing(json.loads(figure.to_json()), alt)
    number = nonce(drawn.encode())
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in STATIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, PAGE.format(
        title=escape(title), alt=escape(alt), drawing=drawn, style=style, script=script,
        library=get_plotlyjs(), nonce=number, policy=policy(number),
    ))  # fmt: skip
    return path


def _cell(value: object) -> str:
    """A value on one line without tabs; an empty one as a space, which the projector keeps."""
    words = "".join(c if c.isprintable() else " " for c in str(value))
    return words or " "


def _parquet(of: "EmbeddingMap", a: "Setting", _: "Setting") -> list[Path]:
    return [parquet(of.exported(a), of.folder / "map.parquet")]


def _projector(of: "EmbeddingMap", a: "Setting", _: "Setting") -> list[Path]:
    points = of.points.assign(row=of.maps.drawn)
    return list(projector(points, of.maps.repaired(a)[1][of.maps.drawn], of.folder))


def _page(of: "EmbeddingMap", a: "Setting", b: "Setting") -> list[Path]:
    stops = list(dict.fromkeys([a, b]))
    alt = f"Map of {of.drawn_how}: {'; then '.join(stop.label for stop in stops)}."
    figure = redraw(of.table(stops))
    return [page(figure, of.folder / "map.html", title="Embedding map", alt=alt)]


EXPORTS: Mapping[str, Callable[["EmbeddingMap", "Setting", "Setting"], list[Path]]] = {
    "Parquet": _parquet,
    "TSV for the projector": _projector,
    "HTML, one file": _page,
}
