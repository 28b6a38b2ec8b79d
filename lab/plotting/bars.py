"""Bars: how many there are of each."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from lab.plotting import fitting
from lab.plotting.columns import floats, require
from lab.plotting.record import recorded
from lab.plotting.style import COLOURS, escaped, new_axes


@recorded
def bars(
    table: pd.DataFrame,
    *,
    x: str,
    value: str = "value",
    ax: Axes | None = None,
    label: str | None = None,
    x_label: str | None = None,
    log: bool = False,
) -> Axes:
    """One bar per row of the table over the numbers in column ``x``; ``log``: of its height.

    Raises:
        LookupError: a column that is not there.
        ValueError: no rows, no numbers, an infinite one, an empty key, or two rows for one bar.
    """
    require(table, (x,), (value, x))
    ax = new_axes(ax)
    at = floats(table[x])
    ax.bar(at, floats(table[value]), width=0.9, color=COLOURS[0])
    if log:
        fitting.log_axis(ax)
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    fitting.label(ax, escaped(x_label or x.replace("_", " ")), escaped(label or value))
    ax.grid(axis="y", color="#dddddd", lw=0.6)
    return ax
