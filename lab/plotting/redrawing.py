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
from lab.plotting.style import FAMILIES, current_style, use_style
from lab.registry import unknown

# What the JSON beside a figure holds, and its record of how the figure was drawn.
TOLD: dict[str, type] = {"name": str, "kind": str, "alt": str, "caption": str, "sha256": dict}
DRAW: dict[str, type] = {"function": str, "options": dict, "types": dict, "style": dict}


def redraw_all(folder: Path, out: Path, **options: Any) -> Iterator[Path]:
    """The pictures of all figures in ``folder`` and in its folders, in folders alike of ``out``.

    ``options``: as :func:`redraw`. An ``out`` inside ``folder`` is not looked into, so that its
    pictures are not drawn again as figures of their own.

    Raises:
        ValueError: there is no figure; or, after all others, some can't be drawn again.
        LookupError: no such format or style.
        OSError: a file can't be written.
    """
    form, style = _asked(**options)
    inside = out.resolve() if folder.resolve() in out.resolve().parents else None
    abouts = [
        about for about in sorted(folder.rglob("*.json"))
        if not about.name.endswith(".plotly.json") and inside not in about.resolve().parents
    ]  # fmt: skip
    if not abouts:
        raise ValueError(f"no saved figures in {folder}: wanted NAME.json beside NAME.csv")
    refused = []
    for about in abouts:
        try:
            yield redraw(about, out / about.parent.relative_to(folder), form=form, **style)
        except (ValueError, LookupError, FileNotFoundError) as error:
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
        ValueError: the JSON is damaged or doesn't say how it was drawn, or the table is another.
        OSError: a file is missing or can't be written.
    """
    form, style = _asked(form=form, **style)
    told = _told(about)
    name, draw = told["name"], told["draw"]
    data = _kept(about.with_suffix(".csv"), told, "the table that was drawn")
    words = Words(name, told["kind"], told["alt"], told["caption"])
    if draw is None and words.kind == "interactive":
        drawing = about.with_name(f"{name}.plotly.json")
        frames = _kept(drawing, told, "the figure that was saved")
        return _as_stored(frames, out, words, data.decode(), form, style)
    if draw is None:
        raise ValueError(f"{about} doesn't say how its figure was drawn: it was drawn by hand")
    with mpl.rc_context():
        figure = draw_again(draw, data.decode(), **style)
        beside = data.decode(), {**draw, "style": current_style()}
        if words.kind == "interactive":
            path = write(out, words, ".plotly.json", plotly_json(figure), *beside)
            return _still(figure, path.with_name(f"{name}.pdf"), style) if form == "pdf" else path
        return write(out, words, f".{form}", _closed(figure, form, words), *beside)


def _asked(form: str = "svg", **style: str) -> tuple[str, dict[str, str]]:
    """The format and the style, if there are such; the session keeps its own."""
    if form not in FORMATS:
        raise LookupError(unknown("format", form, FORMATS))
    with mpl.rc_context():
        use_style(**style)
    return form, style


def _told(about: Path) -> dict[str, Any]:
    """What the JSON says of its figure.

    Raises:
        ValueError: it is not what saving the figure of this name wrote.
    """
    try:
        told = json.loads(about.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{about} is damaged: {error}") from error
    draw = told.get("draw", {}) if isinstance(told, dict) else {}
    if not (_holds(told, TOLD) and (draw is None or _holds(draw, DRAW))):
        raise ValueError(f"{about} is damaged: it wants {', '.join([*TOLD, 'draw'])} as saved")
    if told["name"] != about.stem:
        raise ValueError(f"{about} is of a figure named {told['name']!r}; give it its name back")
    return told


def _holds(found: Any, wanted: dict[str, type]) -> bool:
    """Whether it is a mapping with these keys, of these types."""
    return isinstance(found, dict) and all(isinstance(found.get(k), t) for k, t in wanted.items())


def _kept(file: Path, told: dict[str, Any], what: str) -> bytes:
    """The bytes of a file beside the JSON, if they are those that were saved."""
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != told["sha256"].get(file.name):
        raise ValueError(f"{file} is not {what}")
    return data


def _as_stored(
    content: bytes, out: Path, words: Words, csv: str, form: str, style: dict[str, str]
) -> Path:
    """An explorer's frames, which are stored whole: as they are, or a still of the first."""
    import plotly.io

    path = write(out, words, ".plotly.json", content, csv, None)
    if form != "pdf":
        return path
    figure = plotly.io.from_json(content.decode())
    return _still(figure, path.with_name(f"{words.name}.pdf"), style)


def _still(figure: Any, path: Path, style: dict[str, str]) -> Path:
    """The still of the first frame, as wide and in the family that was asked for."""
    if "family" in style:
        figure.update_layout(font={"family": FAMILIES[style["family"]]})
    return export_static(figure, path, width=style.get("width", "page"))


def _closed(figure: Any, form: str, words: Words) -> bytes:
    """The picture of a figure that nothing will show any more."""
    import matplotlib.pyplot as plt

    content = picture(figure, form, words.title, words.alt)
    plt.close(figure)
    return content
