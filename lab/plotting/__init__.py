"""Figures from the tidy table: ``(table, ..., ax) -> ax``, then :func:`save`.

A figure function reads its table and nothing else, takes one row per mark and refuses a table that
has two, so no average hides in a figure. Told apart by colour and by marker or line style at once
(Okabe-Ito colours; cividis for numbers), figures survive grey print and colour blindness.

A saved figure is drawn again from the CSV and the JSON beside it, to the byte, without a run:
``lab redraw figures``. For a paper, ``lab redraw figures --out paper --width column --family serif
--format pdf``: any width, either family, a vector file. :func:`save` holds figures to that: it
draws each one a second time, from its table. So say what a figure shows by an option (``mark_x``,
``log_y``) and not by changing its axes; or give it axes of your own (``ax=``), then nobody checks.

Text in an SVG is outlined (``svg.fonttype: path``) in the DejaVu fonts that matplotlib ships: the
same bytes and the same look on every machine, with no font to install. Its price, text that cannot
be searched, is paid by the alt text inside the file and the CSV beside it. A PDF embeds its fonts.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from lab.plotting import fitting
from lab.plotting.bars import bars
from lab.plotting.columns import floats, grid, levels, measure, plain, require
from lab.plotting.figures import ChangedByHand, Saved, save, save_interactive
from lab.plotting.interactive import interactive_heat_map, interactive_map
from lab.plotting.ranks import critical_difference
from lab.plotting.record import recorded
from lab.plotting.stills import NoChromium, export_static
from lab.plotting.style import (
    COLOUR_MAP,
    COLOURS,
    LINES,
    MARKERS,
    SMALLEST,
    escaped,
    new_axes,
    stacked,
    use_style,
)

__all__ = [
    "ChangedByHand", "NoChromium", "Saved", "bars", "critical_difference", "curves",
    "export_static", "forest", "heat_map", "interactive_heat_map", "interactive_map",
    "layer_curves", "save", "save_interactive", "scatter_map", "scores", "use_style",
]  # fmt: skip

ANNOTATED = 150  # cells; more numbers than that nobody reads
FEW, APART = 8, 3.0  # places on an x axis that have room for bars beside each other; points


@recorded
def heat_map(
    table: pd.DataFrame,
    *,
    rows: str,
    columns: str,
    value: str = "value",
    ax: Axes | None = None,
    label: str | None = None,
    lower_is_better: bool = False,
    centre: float | None = None,
) -> Axes:
    """One coloured cell per row of the table, the best outlined; a missing cell stays hatched.

    ``centre``, zero for differences, gets the grey in the middle of the colours, so that a gain is
    yellow and a loss is blue. Up to ANNOTATED cells also show their number. Intervals do not fit
    into a cell: they are in the CSV that :func:`save` writes beside the figure.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an empty key, or two rows for one cell.
    """
    require(table, (rows, columns), (value,))
    sides = levels(table[rows]), levels(table[columns])
    values = grid(table, rows, columns, value, sides)
    said, names = escaped(label or measure(table, value)), [escaped(name) for name in sides[0]]
    height = 0.9 + fitting.cell_height(names, usual=0.24) * len(values)
    ax = new_axes(ax, height=max(height, fitting.bar_height(said)))
    ax.set_facecolor("white")
    ax.patch.set_hatch("////")
    ax.patch.set_edgecolor("#bbbbbb")
    norm = None if centre is None else CenteredNorm(centre)
    image = ax.imshow(np.ma.masked_invalid(values), cmap=COLOUR_MAP, norm=norm, aspect="auto")
    ax.set_yticks(range(len(sides[0])), fitting.beside(ax, names))
    legible = 12 if fitting.is_narrow(ax) else 20  # of the layers of a deep model, not every number
    step = 1 + len(sides[1]) // legible
    ax.set_xticks(range(0, len(sides[1]), step), [escaped(name) for name in sides[1][::step]])
    if max(len(escaped(name)) for name in sides[1]) > 4:
        ax.tick_params(axis="x", labelrotation=35)
        for tick in ax.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    ax.set(xlabel=columns.replace("_", " "), ylabel=rows.replace("_", " "))
    best = np.nanmin(values) if lower_is_better else np.nanmax(values)
    for row, column in np.argwhere(values == best):
        ax.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=COLOURS[1], lw=2, zorder=3)
        )
    if values.size <= ANNOTATED:
        _annotate(ax, values, image)
    fitting.colour_bar(ax, image, said)
    return ax


@recorded
def layer_curves(
    table: pd.DataFrame,
    *,
    hue: str,
    ax: Axes | None = None,
    label: str | None = None,
    mark_y: float | None = None,
) -> Axes:
    """One line per ``hue`` over the layers, with its intervals; a thin one at ``mark_y``.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an empty key, or two rows for one point.
    """
    ax = curves(table, x="layer", hue=hue, ax=ax, label=label, mark_y=mark_y)
    ax.set_xlabel("layer (0 = token embeddings)")
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    return ax


@recorded
def curves(
    table: pd.DataFrame,
    *,
    x: str,
    hue: str,
    ax: Axes | None = None,
    label: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    mark_x: float | None = None,
    mark_y: float | None = None,
    panels: str | None = None,
) -> Axes:
    """One line per ``hue`` over the numbers in column ``x``, with its intervals.

    Over few numbers the intervals are bars, and lines stand a little beside each other, so that
    none hides another; over more than FEW they are bands. ``mark_x`` and ``mark_y`` are places of
    thin lines: a window, a baseline, a chance level.
    ``panels`` gives each value of a column axes of its own, one below the other, at equal scale.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an empty key, two rows for one point, an infinite ``x``,
            a number that is not positive on a log axis, or ``panels`` on axes that are given.
    """
    require(table, (hue, x, *([panels] if panels else [])), ("value", "low", "high", x))
    if panels:
        if ax is not None:
            raise ValueError(f"panels={panels!r} makes axes of its own: leave out ax")
        draw = partial(curves, x=x, hue=hue, label=label, log_x=log_x, log_y=log_y,
                       mark_x=mark_x, mark_y=mark_y)  # fmt: skip
        parts = {name: table[table[panels] == name] for name in levels(table[panels])}
        said = ([escaped(name) for name in levels(part[hue])] for part in parts.values())
        axes = stacked(*map(fitting.legend_height, said))
        for one, (name, part) in zip(axes, parts.items(), strict=True):
            if legend := draw(part, ax=one).get_legend():
                legend.set_title(escaped(name))
            one.label_outer()
        return axes[0]
    for column in [*([x] if log_x else []), *(["value"] if log_y else [])]:
        if (floats(table[column]) <= 0).any():
            least = table[column].min()
            raise ValueError(f"{column!r} goes down to {least}: a log axis has no place for that")
    names = [escaped(name) for name in levels(table[hue])]
    ax = new_axes(ax, extra=fitting.legend_height(names))
    few = table[x].nunique() <= FEW
    for place, name in enumerate(levels(table[hue])):
        line = table[table[hue] == name].sort_values(x)
        at, value, low, high = (floats(line[c]) for c in (x, "value", "low", "high"))
        colour = COLOURS[place % len(COLOURS)]
        curve = ax.plot(
            at, value, color=colour, label=names[place], marker=MARKERS[place % len(MARKERS)],
            linestyle=LINES[place % len(LINES)], markevery=max(1, len(at) // 12),
        )  # fmt: skip
        if few:
            known = ~np.isnan(low + high)
            bars = ax.vlines(at[known], low[known], high[known], colors=colour, lw=1.1)
            _step_aside(ax, [*curve, bars], place - (len(names) - 1) / 2)
        else:
            ax.fill_between(at, low, high, color=colour, alpha=0.14, lw=0)
    if few:
        ax.margins(x=0.03 + fitting.share(ax, APART * len(names) / 2))
    fitting.label(ax, escaped(x.replace("_", " ")), escaped(label or measure(table, "value")))
    if log_x:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda number, _: plain(number))
    ax.grid(axis="y", color="#dddddd", lw=0.6)
    fitting.legend(ax, names, title=hue.replace("_", " "))
    _mark(ax, mark_x, mark_y)
    if log_y:
        fitting.log_axis(ax)
    return ax


@recorded
def forest(
    comparisons: pd.DataFrame,
    *,
    rows: str | Sequence[str] = "setting",
    ax: Axes | None = None,
    level: float = 0.05,
    label: str | None = None,
) -> Axes:
    """Paired differences with intervals around a zero line; filled = significant after Holm.

    Beside each row stand n, the corrected p and the smallest p the test could have given
    (``p_min``): where that is above ``level``, no data could have filled the marker.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an empty key, or two rows for one difference.
    """
    keys = [rows] if isinstance(rows, str) else list(rows)
    require(comparisons, keys, ("difference", "low", "high", "p_holm", "p_min", "n"))
    names = list(comparisons[keys].map(escaped).agg(" · ".join, axis=1))
    ax = new_axes(ax, height=1.0 + fitting.row_height(names, usual=0.27) * len(names))
    significant = floats(comparisons["p_holm"]) < level
    _intervals(ax, comparisons, "difference", [COLOURS[0]] * len(names), significant, ["o"])
    ax.axvline(0, color="#444444", lw=0.8, zorder=1)
    fitting.name_rows(ax, names)
    notes = ax.secondary_yaxis("right")
    notes.set_yticks(range(len(names)), [
        f"n {n:.0f} · p {p:.2g} (min {least:.1g})"
        for n, p, least in zip(*(floats(comparisons[c]) for c in ("n", "p_holm", "p_min")),
                               strict=True)
    ])  # fmt: skip
    notes.tick_params(length=0)
    notes.spines["right"].set_visible(False)
    fitting.label(ax, escaped(label or _against(comparisons)))
    marks = [
        Line2D([], [], color=COLOURS[0], marker="o", mfc=face, label=text)
        for face, text in (
            (COLOURS[0], f"p < {level:g} after Holm"),
            ("white", "not shown to differ"),
        )
    ]
    where: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    if fitting.is_narrow(ax):
        where = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
    ax.legend(handles=marks, ncols=2, **where)
    return ax


@recorded
def scores(
    table: pd.DataFrame,
    *,
    rows: str | Sequence[str],
    hue: str | None = None,
    ax: Axes | None = None,
    label: str | None = None,
    rows_label: str = "",
    mark_x: float | None = None,
) -> Axes:
    """One dot with its interval per row of the table, in the table's order, coloured by ``hue``.

    ``mark_x`` is the place of a thin line: zero, a baseline, a chance level.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an empty key, or two rows for one dot.
    """
    keys = [rows] if isinstance(rows, str) else list(rows)
    require(table, keys + ([hue] if hue else []), ("value", "low", "high"))
    named = list(table[keys].map(escaped).agg(" · ".join, axis=1))
    names = levels(table[hue]) if hue else [""]
    height = 0.8 + fitting.row_height(named, usual=0.24) * len(table)
    ax = new_axes(ax, height, extra=fitting.legend_height([*map(escaped, names)] if hue else []))
    place = [names.index(name) for name in table[hue]] if hue else [0] * len(table)
    colours = [COLOURS[p % len(COLOURS)] for p in place]
    markers = [MARKERS[p % len(MARKERS)] for p in place]
    _intervals(ax, table, "value", colours, np.ones(len(table), bool), markers)
    fitting.name_rows(ax, named)
    fitting.label(ax, escaped(label or measure(table, "value")), escaped(rows_label))
    ax.grid(axis="both", color="#e4e4e4", lw=0.6)
    if hue:
        _legend(ax, hue, names)
    _mark(ax, mark_x)
    return ax


@recorded
def scatter_map(
    points: pd.DataFrame,
    *,
    colour: str | None = None,
    x: str = "x",
    y: str = "y",
    ax: Axes | None = None,
) -> Axes:
    """One dot per point at equal scale; numbers colour by cividis, names by colour and marker.

    No ticks: the axes of a projection carry no unit.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, a coordinate or colour that is missing, or more names than marks.
    """
    require(points, [colour] if colour else [], (x, y), unique=False)
    holes = int((np.isnan(floats(points[x])) | np.isnan(floats(points[y]))).sum())
    if holes:
        raise ValueError(f"{holes} of {len(points)} points have no {x!r} or {y!r}; drop them first")
    by_number = colour if colour and pd.api.types.is_numeric_dtype(points[colour]) else None
    names = levels(points[colour]) if colour and not by_number else []
    ax = new_axes(ax, extra=fitting.legend_height([*map(escaped, names)]))
    size = float(np.clip(2400 / len(points), 3, 28))
    if by_number:
        marks = ax.scatter(points[x], points[y], c=floats(points[by_number]), s=size, lw=0)
        ax.figure.colorbar(marks, ax=ax, label=by_number.replace("_", " "), pad=0.02)
    else:
        if len(names) > len(MARKERS):
            raise ValueError(
                f"{len(names)} values of {colour!r}, {len(MARKERS)} marks to tell them apart; "
                "keep the most frequent ones and call the rest 'other'"
            )
        for place, name in enumerate(names or [""]):
            part = points[points[colour] == name] if colour else points
            ax.scatter(part[x], part[y], s=size, lw=0, alpha=0.8,
                       color=COLOURS[place % len(COLOURS)], marker=MARKERS[place])  # fmt: skip
        if colour:
            _legend(ax, colour, names)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return ax


def _step_aside(ax: Axes, marks: Sequence[Artist], steps: float) -> None:
    """Move lines to the right, not their data; only now, or the limits would be the page's."""
    aside = ScaledTranslation(steps * APART / 72, 0, ax.figure.dpi_scale_trans)
    for mark in marks:
        mark.set_transform(ax.transData + aside)


def _mark(ax: Axes, x: float | None = None, y: float | None = None) -> None:
    """Thin lines at ``x`` and ``y``."""
    for place, line in ((x, ax.axvline), (y, ax.axhline)):
        if place is not None:
            line(place, color="#444444", lw=0.8)


def _against(comparisons: pd.DataFrame) -> str:
    """What the differences are, with the baseline where the table has exactly one."""
    names = comparisons["baseline"].unique() if "baseline" in comparisons.columns else []
    what = f"difference from {plain(names[0])}" if len(names) == 1 else "paired difference"
    metric = measure(comparisons, "value")
    return what if metric == "value" else f"{what} · {metric}"


def _annotate(ax: Axes, values: np.ndarray, image: Any) -> None:
    """Write each cell's number, dark on light and light on dark."""
    span = np.nanmax(np.abs(values))
    digits = 1 if span >= 10 else 2
    size = _cell_size(ax, values.shape[1])
    if size < SMALLEST:
        return
    for (row, column), number in np.ndenumerate(values):
        if np.isnan(number):
            continue
        red, green, blue = (c**2.2 for c in to_rgb(image.cmap(image.norm(number))))
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179  # WCAG: equal contrast there
        ax.text(column, row, f"{number:z.{digits}f}", ha="center", va="center",
                color="black" if light else "white", size=size)  # fmt: skip


def _cell_size(ax: Axes, columns: int) -> float:
    """A font size at which four characters fit into a cell; axes fill 2/3 of a figure or half."""
    share = 0.5 if fitting.is_narrow(ax) else 0.68
    points = ax.figure.bbox.width / ax.figure.dpi * 72 * share / columns
    return min(points / 2.9, mpl.rcParams["font.size"] - 1)


def _intervals(
    ax: Axes,
    table: pd.DataFrame,
    value: str,
    colours: Sequence[str],
    filled: np.ndarray,
    markers: Sequence[str],
) -> None:
    """Dots with their intervals, one line each from the top; an unknown interval is not drawn."""
    low, middle, high = (floats(table[c]) for c in ("low", value, "high"))
    ax.hlines(range(len(table)), low, high, colors=list(colours), lw=1.6, zorder=2)
    for place, (number, colour, full) in enumerate(zip(middle, colours, filled, strict=True)):
        ax.plot(number, place, color=colour, marker=markers[place % len(markers)],
                mfc=colour if full else "white", ms=5, zorder=3)  # fmt: skip


def _legend(ax: Axes, title: str, names: Sequence[Any]) -> None:
    """Colour and marker of every level."""
    marks = [
        Line2D([], [], ls="", marker=MARKERS[place % len(MARKERS)], label=escaped(name),
               color=COLOURS[place % len(COLOURS)])
        for place, name in enumerate(names)
    ]  # fmt: skip
    said = [escaped(name) for name in names]
    fitting.legend(ax, said, handles=marks, title=title.replace("_", " "))
