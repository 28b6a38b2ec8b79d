"""Saving figures: the picture, the table it was drawn from and its alt text, together.

``figures/name.svg`` (or ``name.plotly.json``), ``name.csv`` and ``name.json`` with alt text,
caption and the digests of the other two. :mod:`lab.plotting` is where notebooks import from.
"""

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import pandas as pd
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

SVG, PLOTLY = "image/svg+xml", "application/vnd.plotly.v1+json"
SHORTEST_ALT = 20  # characters; "a plot of results" says nothing to who cannot see it
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Saved:
    """A saved figure; as the last line of a cell it is shown once, with its alt text.

    The notebook's output keeps the alt text in its metadata and as the plain-text form, which is
    where :mod:`lab.export` and a terminal find it.
    """

    path: Path
    alt: str
    caption: str
    mime: str
    content: Any

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        about = {"alt": self.alt, "caption": self.caption}
        return {self.mime: self.content, "text/plain": self.alt}, {self.mime: about}

    def __repr__(self) -> str:
        """The file and its alt text, for a terminal."""
        return f"Saved({self.path.name}: {self.alt})"


def save(
    fig: Figure,
    table: pd.DataFrame,
    out_dir: str | Path,
    name: str,
    *,
    alt: str,
    caption: str = "",
) -> Saved:
    """The saved figure, to be shown as the cell's last line: SVG, CSV and JSON are written.

    The same figure gives the same bytes: fixed id salt, no date, no version. ``fig`` is closed, so
    that a notebook does not show it twice.

    Raises:
        ValueError: an alt text too short to describe it, a name that is no file name, an empty
            table, or a name that an interactive figure has.
        OSError: a file cannot be written; what was there before is still there.
    """
    import matplotlib.pyplot as plt

    alt, caption = _alt(alt), _line(caption, "caption")
    svg = _accessible(_draw(fig), caption or name.replace("_", " "), alt)
    path = _write(Path(out_dir), name, ".svg", "static", svg, table, alt, caption)
    plt.close(fig)
    return Saved(path, alt, caption, SVG, svg)


def save_interactive(
    fig: "PlotlyFigure",
    table: pd.DataFrame,
    out_dir: str | Path,
    name: str,
    *,
    alt: str,
    caption: str = "",
) -> Saved:
    """The saved plotly figure, to be shown as the cell's last line: its JSON, CSV and alt text.

    Raises:
        ValueError, OSError: as :func:`save`.
    """
    alt, caption = _alt(alt), _line(caption, "caption")
    text = fig.to_json(engine="json")
    path = _write(Path(out_dir), name, ".plotly.json", "interactive", text, table, alt, caption)
    return Saved(path, alt, caption, PLOTLY, json.loads(text))


def _line(text: str, what: str) -> str:
    """The text on one line; control characters, which no XML file may hold, are refused."""
    flat = " ".join(text.split())
    if not flat.isprintable():
        raise ValueError(f"the {what} holds a control character: {flat!r}")
    return flat


def _alt(alt: str) -> str:
    """The alt text on one line, long enough to say something."""
    flat = _line(alt, "alt text")
    if len(flat) < SHORTEST_ALT:
        raise ValueError(
            f"alt text must say what the figure shows, in {SHORTEST_ALT} characters or more; "
            f"got {len(flat)}: {flat!r}"
        )
    return flat


def _draw(fig: Figure) -> str:
    """The figure as SVG, the same bytes for the same figure."""
    import matplotlib as mpl

    page = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "embedding-lab", "svg.fonttype": "path"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        fig.savefig(page, format="svg", metadata=nothing)
    return page.getvalue()


def _accessible(svg: str, title: str, alt: str) -> str:
    """The SVG as an image with a title and a description for screen readers."""
    _, opening, rest = svg.partition("<svg ")  # drops the prolog, which no HTML page may hold
    attributes, end, body = rest.partition(">")
    if not (opening and end):
        raise ValueError("matplotlib wrote no <svg> element")
    words = f"<title>{escape(title)}</title>\n <desc>{escape(alt)}</desc>"
    return f'{opening}role="img" {attributes}{end}\n {words}{body}'


def _write(
    out_dir: Path,
    name: str,
    suffix: str,
    kind: str,
    picture: str,
    table: pd.DataFrame,
    alt: str,
    caption: str,
) -> Path:
    """The picture's path, once all three files are in place."""
    if not NAME.fullmatch(name):
        raise ValueError(f"a figure's name is lower case letters, digits, _ and -; got {name!r}")
    if table.empty:
        raise ValueError(f"figure {name!r} comes with an empty table; save what it was drawn from")
    folder = out_dir / "figures"
    about = folder / f"{name}.json"
    if about.exists() and json.loads(about.read_text(encoding="utf-8"))["kind"] != kind:
        raise ValueError(f"figure {name!r} exists and is not {kind}; give this one another name")
    files = {
        f"{name}{suffix}": picture,
        f"{name}.csv": table.to_csv(index=False, lineterminator="\n"),
    }
    digests = {file: hashlib.sha256(text.encode()).hexdigest() for file, text in files.items()}
    words = {"name": name, "kind": kind, "alt": alt, "caption": caption, "sha256": digests}
    files[about.name] = json.dumps(words, indent=1, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder, files)
    return folder / f"{name}{suffix}"


def _replace(folder: Path, files: dict[str, str]) -> None:
    """Write every file beside its place first, then move all of them in; the last one last."""
    ready = {folder / f".{name}.part": folder / name for name in files}
    try:
        for part, place in ready.items():
            part.write_bytes(files[place.name].encode())
        for part, place in ready.items():
            part.replace(place)
    finally:
        for part in ready:
            part.unlink(missing_ok=True)
