"""Saved figures drawn again: from the table and the JSON beside them, in any width and family."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

from lab.plotting.figures import Words, plotly_json, write
from lab.plotting.picture import FORMATS, picture
from lab.plotting.record import draw_again
from lab.plotting.stills import export_static
from lab.plotting.style import current_style
from lab.registry import unknown


def redraw_all(folder: Path, out: Path, **options: Any) -> Iterator[Path]:
    """The pictures of all figures in ``folder`` and in its folders, in folders alike of ``out``.

    ``options``: as :func:`redraw`.

    Raises:
        ValueError: there is no figure; or, after all others, some can't be drawn again.
        LookupError, OSError: as :func:`redraw`.
    """
    abouts = [a for a in sorted(folder.rglob("*.json")) if not a.name.endswith(".plotly.json")]
    if not abouts:
        raise ValueError(f"no saved figures in {folder}: wanted NAME.json beside NAME.csv")
    refused = []
    for about in abouts:
        try:
            yield redraw(about, out / about.parent.relative_to(folder), **options)
        except ValueError as error:
            refused.append(str(error))
    if refused:
        raise ValueError(f"{len(refused)} of {len(abouts)} not drawn: {'; '.join(refused)}")


def redraw(about: Path, out: Path, *, form: str = "svg", **style: Any) -> Path:
    """The picture, drawn again from the CSV beside ``about`` and written to ``out`` with both.

    ``style``: ``width`` and ``family`` as :func:`lab.plotting.use_style` takes them, where they are
    not to be those that the figure was saved with. In these, an SVG is the same to the byte. An
    interactive figure keeps its form, and gets a still of its first frame beside it as a PDF; one
    without a record is stored whole and written as it is.

    Raises:
        LookupError: no such format, style or figure function.
        ValueError: nothing says how it was drawn, or the table is another than was drawn.
        OSError: a file is missing or can't be written.
    """
    if form not in FORMATS:
        raise LookupError(unknown("format", form, FORMATS))
    told = json.loads(about.read_text(encoding="utf-8"))
    name, draw = told["name"], told.get("draw")
    data = about.with_suffix(".csv").read_bytes()
    if hashlib.sha256(data).hexdigest() != told["sha256"][f"{name}.csv"]:
        raise ValueError(f"{about.with_suffix('.csv')} is not the table that was drawn")
    words = Words(name, told["kind"], told["alt"], told["caption"])
    if draw is None and words.kind == "interactive":
        return _as_stored(about, out, words, data.decode(), form)
    if draw is None:
        raise ValueError(f"{about} doesn't say how its figure was drawn: it was drawn by hand")
    with mpl.rc_context():
        figure = draw_again(draw, data.decode(), **style)
        beside = data.decode(), {**draw, "style": current_style()}
        if words.kind == "interactive":
            path = write(out, words, ".plotly.json", plotly_json(figure), *beside)
            return export_static(figure, path.with_name(f"{name}.pdf")) if form == "pdf" else path
        return write(out, words, f".{form}", _closed(figure, form, words), *beside)


def _as_stored(about: Path, out: Path, words: Words, csv: str, form: str) -> Path:
    """An explorer's frames, which are stored whole: as they are, or a still of the first."""
    import plotly.io

    content = about.with_name(f"{words.name}.plotly.json").read_bytes()
    path = write(out, words, ".plotly.json", content, csv, None)
    if form != "pdf":
        return path
    return export_static(plotly.io.from_json(content.decode()), path.with_name(f"{words.name}.pdf"))


def _closed(figure: Any, form: str, words: Words) -> bytes:
    """The picture of a figure that nothing will show any more."""
    import matplotlib.pyplot as plt

    content = picture(figure, form, words.title, words.alt)
    plt.close(figure)
    return content
