"""Saving figures: the picture, the table it was drawn from and its alt text, together.

``figures/name.svg`` (or ``name.plotly.json``), ``name.csv`` and ``name.json`` with alt text,
caption, how it was drawn and the digests of the other two. :mod:`lab.plotting` is where notebooks
import from; :mod:`lab.plotting.redrawing` draws a saved figure again.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from lab.plotting.columns import plain
from lab.plotting.picture import picture
from lab.plotting.record import Record, draw_again, drawn_from, record, to_csv

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

SVG, PLOTLY = "image/svg+xml", "application/vnd.plotly.v1+json"
SHORTEST_ALT = 20  # characters; "a plot of results" says nothing to who cannot see it
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class ChangedByHand(UserWarning):
    """A figure was changed after it was drawn: its table does not give it again."""


@dataclass(frozen=True)
class Words:
    """What is said about a figure: its name, whether it is static or interactive, its texts."""

    name: str
    kind: str
    alt: str
    caption: str

    @property
    def title(self) -> str:
        """The caption, or the name in words."""
        return self.caption or self.name.replace("_", " ")


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

    A caption ends with n where the table has it: its one value, or its least and greatest.
    The same figure gives the same bytes: fixed id salt, no date, no version. ``fig`` is closed, so
    that a notebook does not show it twice. What a function of :mod:`lab.plotting` drew is drawn
    once more from the CSV: if that gives the same bytes, the JSON says how; if not, because the
    axes were changed meanwhile, a :class:`ChangedByHand` warns.

    Raises:
        ValueError: an alt text too short to describe it, a name that is no file name, a table that
            is empty or not what was drawn, or a name that an interactive figure has.
        OSError: a file cannot be written; what was there before is still there.
    """
    import matplotlib.pyplot as plt

    words = _words(name, "static", alt, with_n(caption, table))
    svg = static_svg(fig, words)
    beside = _beside(fig, table, words, lambda again: static_svg(again, words) == svg)
    path = write(Path(out_dir) / "figures", words, ".svg", svg, *beside)
    plt.close(fig)
    return Saved(path, words.alt, words.caption, SVG, svg.decode())


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
    words = _words(name, "interactive", alt, with_n(caption, table))
    text = plotly_json(fig)
    beside = _beside(fig, table, words, lambda again: plotly_json(again) == text)
    path = write(Path(out_dir) / "figures", words, ".plotly.json", text, *beside)
    return Saved(path, words.alt, words.caption, PLOTLY, json.loads(text))


def static_svg(fig: Figure, words: Words) -> bytes:
    """A matplotlib figure as the bytes of its file."""
    return picture(fig, "svg", words.title, words.alt)


def plotly_json(fig: "PlotlyFigure") -> bytes:
    """A plotly figure as the bytes of its file."""
    return fig.to_json(engine="json").encode()


def write(
    folder: Path, words: Words, suffix: str, content: bytes, csv: str, draw: Record | None
) -> Path:
    """The picture's path, once all three files are in place.

    Raises:
        ValueError: a figure of another kind has that name.
        OSError: a file cannot be written; what was there before is still there.
    """
    about = folder / f"{words.name}.json"
    if about.exists() and json.loads(about.read_text(encoding="utf-8"))["kind"] != words.kind:
        raise ValueError(
            f"figure {words.name!r} exists and is not {words.kind}; give this one another name"
        )
    files = {f"{words.name}{suffix}": content, f"{words.name}.csv": csv.encode()}
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    told = {**vars(words), "draw": draw, "sha256": digests}
    files[about.name] = (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder, files)
    return folder / f"{words.name}{suffix}"


def with_n(caption: str, table: pd.DataFrame) -> str:
    """The caption, and of how many, where the table has a column n."""
    n = table["n"].dropna() if "n" in table.columns else pd.Series()
    if not caption.strip() or n.empty or not pd.api.types.is_numeric_dtype(n):
        return caption
    said = " to ".join(plain(number) for number in dict.fromkeys([n.min(), n.max()]))
    return f"{caption.strip().removesuffix('.')}; n = {said}."


def _words(name: str, kind: str, alt: str, caption: str) -> Words:
    """The words, if they say something and the name can be a file's."""
    words = Words(name, kind, _alt(alt), _line(caption, "caption"))
    if not NAME.fullmatch(name):
        raise ValueError(f"a figure's name is lower case letters, digits, _ and -; got {name!r}")
    return words


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


def _beside(
    fig: Any, table: pd.DataFrame, words: Words, same: Callable[[Any], bool]
) -> tuple[str, Record | None]:
    """The table as CSV, and how the figure is drawn from that; None where it was drawn by hand."""
    import matplotlib.pyplot as plt

    if table.empty:
        raise ValueError(f"figure {words.name!r} has an empty table; save what it was drawn from")
    csv, drawn = to_csv(table), drawn_from(fig)
    if drawn is None:
        return csv, None
    about = record(fig, table)
    with mpl.rc_context():
        try:
            again = draw_again(about, csv)
        except (LookupError, ValueError) as error:
            says = f"figure {words.name!r} is not drawn from the table that it is saved with"
            raise ValueError(f"{says}: {error}") from error
        alike = same(again)
    if isinstance(again, Figure):
        plt.close(again)
    if not alike and to_csv(drawn) != csv:
        raise ValueError(
            f"figure {words.name!r} was drawn from another table ({len(drawn)} rows) than it is "
            f"saved with ({len(table)}); save it with the one that it was drawn from"
        )
    if not alike:
        warnings.warn(
            f"figure {words.name!r} was changed after it was drawn, or drawn without use_style(), "
            "so its table does not give it again; use an option of its function, or give it axes "
            "of your own (ax=)",
            ChangedByHand,
            stacklevel=3,
        )
    return csv, about if alike else None


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    """Write every file beside its place first, then move all of them in; the last one last."""
    ready = {folder / f".{name}.part": folder / name for name in files}
    try:
        for part, place in ready.items():
            part.write_bytes(files[place.name])
        for part, place in ready.items():
            part.replace(place)
    finally:
        for part in ready:
            part.unlink(missing_ok=True)
