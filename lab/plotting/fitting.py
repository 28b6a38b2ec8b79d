"""The same figure over a page and in one column: where its words stand, and how they break.

Over a page a legend stands right of the axes and a name left of its row. A column has no room for
that: legends and names stand above what they name, and long words break into lines.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

NARROW = 5.0  # inches; a figure below is one column of a paper
LINE = 0.125  # inches from one line of small text to the next
# Characters that fit in a column: along an axis, left of long and of short rows, in a whole line.
X_LABEL, Y_LABEL, ROW, BESIDE, WHOLE = 38, 28, 24, 14, 54


def is_narrow(ax: Axes | None = None) -> bool:
    """Whether the figure of ``ax``, or one in the present style, is one column wide."""
    width = ax.figure.bbox.width / ax.figure.dpi if ax else mpl.rcParams["figure.figsize"][0]
    return bool(width < NARROW)


def share(ax: Axes, points: float) -> float:
    """The share of the width of the axes that so many points are, or somewhat more."""
    return float(points / (0.6 * ax.figure.bbox.width / ax.figure.dpi * 72))


def wrapped(text: str, most: int) -> str:
    """The text in lines of ``most`` characters, broken behind blanks and signs where it can be."""
    lines = [""]
    for piece in re.findall(rf".{{1,{most}}}?(?:[ _/·-]+|$)|.{{1,{most}}}", text):
        if len(lines[-1]) + len(piece.rstrip()) > most:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def label(ax: Axes, x: str, y: str = "") -> None:
    """Nothing; the axes say what they show, in lines that fit."""
    if is_narrow(ax):
        x, y = wrapped(x, X_LABEL), wrapped(y, Y_LABEL)
    ax.set(xlabel=x, ylabel=y)


def log_axis(ax: Axes) -> None:
    """Nothing; the y axis is a log one, with plain numbers on it as long as few say enough."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    decades = math.log10(high / low)
    if decades < 3:
        subs = (1, 2, 5) if decades < 2 else (1,)
        ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=subs))
        ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda number, _: f"{number:,.9g}"))
        ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def legend(ax: Axes, names: Sequence[str], **options: Any) -> None:
    """Nothing; a legend stands right of the axes, or above them in a column."""
    if is_narrow(ax):
        where = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": _abreast(names),
                 "alignment": "left", "columnspacing": 1.2, "handlelength": 2.6}  # fmt: skip
    else:
        where = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    ax.legend(**options, **where)


def legend_height(names: Sequence[str]) -> float:
    """Inches that a legend adds to the height of a figure in the present style."""
    return LINE * (1.6 + -(-len(names) // _abreast(names))) if names and is_narrow() else 0.0


def colour_bar(ax: Axes, image: Any, said: str) -> None:
    """Nothing; a bar says what the colours are, right of the axes, or above them in a column."""
    above: dict[str, Any] = {"location": "top", "aspect": 40, "fraction": 0.06}
    ax.figure.colorbar(image, ax=ax, label=said, pad=0.02, **(above if is_narrow(ax) else {}))


def bar_height(said: str) -> float:
    """Inches of the lowest figure whose colour bar has room for these words."""
    return 0.0 if is_narrow() else 0.8 + 0.0075 * mpl.rcParams["font.size"] * len(said)


def beside(ax: Axes, names: Sequence[str]) -> list[str]:
    """Names left of rows that nothing can stand above, in lines in a column."""
    return [wrapped(name, ROW) for name in names] if is_narrow(ax) else list(names)


def row_height(names: Sequence[str], usual: float) -> float:
    """Inches of one row with its name, ``usual`` where the name is beside it."""
    return 0.16 + LINE * lines(names, WHOLE) if _above(names) else usual


def cell_height(names: Sequence[str], usual: float) -> float:
    """Inches of one row of cells with its name beside it, in lines in a column."""
    return max(usual, LINE * lines(names, ROW)) if is_narrow() else usual


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Nothing; rows 0, 1, ... of the axes have their names, from the top."""
    above = is_narrow(ax) and _above(names)
    ax.set_yticks(range(len(names)), [""] * len(names) if above else names)
    ax.set_ylim(len(names) - 0.5, -0.9 if above else -0.5)
    if above:
        for row, name in enumerate(names):
            ax.annotate(
                wrapped(name, WHOLE), (0.0, row - 0.2), (3, 0), ax.get_yaxis_transform(),
                textcoords="offset points", va="bottom", size=mpl.rcParams["ytick.labelsize"],
                linespacing=1.0, zorder=2.5, annotation_clip=False,
                bbox={"fc": "white", "ec": "none", "pad": 0.4},
            ).set_in_layout(False)  # fmt: skip


def lines(names: Sequence[str], most: int) -> int:
    """The lines of the name that has the most, ``most`` characters in each."""
    return max(wrapped(name, most).count("\n") + 1 for name in names)


def _above(names: Sequence[str]) -> bool:
    """Whether names stand above their rows in the present style: long ones in a column."""
    return is_narrow() and max(map(len, names)) > BESIDE


def _abreast(names: Sequence[str]) -> int:
    """How many names of a legend fit beside each other in a column."""
    return max(1, min(len(names), WHOLE // (max(map(len, names)) + 8)))
