"""The critical-difference diagram: average ranks, with bars over what cannot be told."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.plotting import fitting
from lab.plotting.record import recorded
from lab.plotting.style import COLOURS, escaped, new_axes
from lab.stats import across

INK = "#333333"
ROW = 0.2  # inches from one name to the next
ABOVE = 3.0  # rows above the axis: its numbers, the critical difference and what it is


@recorded
def critical_difference(
    values: pd.DataFrame,
    *,
    alpha: float = 0.05,
    lower_is_better: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Average ranks over data sets; settings that share a bar are not separable (Demsar 2006).

    ``values``: one row per setting and data set, with columns setting, dataset, value, as
    ``stats.across.compare`` takes them. The title says Friedman's p and whether Nemenyi's test
    separates any pair; its critical difference is drawn to scale above the axis. Drawn by
    scikit-posthocs.

    Raises:
        LookupError: a column that is not there.
        ValueError: fewer than three settings or two data sets; a cell missing, repeated or not
            finite; alpha outside (0, 1).
    """
    from scikit_posthocs import critical_difference_diagram

    found = across.ranks(values, alpha=alpha, lower_is_better=lower_is_better)
    names = {name: escaped(name) for name in found.mean.index}
    own, ax = ax is None, new_axes(ax)
    drawn = critical_difference_diagram(
        found.mean.rename(names),
        found.p.rename(index=names, columns=names),
        alpha=alpha,
        ax=ax,
        left_only=True,
        label_fmt_left="{label}  {rank:.1f} ",
        text_h_margin=found.mean.iloc[0] - 0.95,  # names end left of rank 1
        elbow_props={"color": INK, "linewidth": 0.7},
        marker_props={"s": 14},
        crossbar_props={"color": COLOURS[0], "linewidth": 3, "solid_capstyle": "butt"},
    )
    for (bar,) in drawn["crossbars"]:  # from a set of names, whose order is that of a run's hashes
        bar.set_data([min(bar.get_xdata()), max(bar.get_xdata())], bar.get_ydata()[:2])
    last = drawn["labels"][-1].get_position()[1]
    _scale(ax, found)
    ax.set_ylim(last - 0.6, ABOVE)
    for text in drawn["labels"] if fitting.is_narrow(ax) else []:
        text.set_text(fitting.wrapped(text.get_text(), fitting.ROW))
    if own and isinstance(ax.figure, Figure):
        row = fitting.cell_height(list(names.values()), usual=ROW)
        ax.figure.set_figheight(0.8 + row * (ABOVE - last))
    return ax


def _scale(ax: Axes, found: across.Ranks) -> None:
    """The axis from rank 1 to the last, the critical difference above it, and the title."""
    k, width = len(found.mean), found.critical_difference
    ax.spines["top"].set_visible(True)
    ax.set_xlim(0.95, max(k, 1 + width) + 0.05)
    ax.set_xticks(range(1, k + 1))
    ax.errorbar(1 + width / 2, 1.6, xerr=width / 2, color=INK, lw=1, capsize=3)
    ax.text(1 + width / 2, 1.9, f"critical difference {width:.1f}", ha="center", va="bottom",
            color=INK, fontsize="small")  # fmt: skip
    pairs, separable = k * (k - 1) // 2, len(found.separable)
    told = f"{separable} of {pairs} pairs separable" if separable else "nothing separable"
    if width > k - 1:
        told = "no ranks could be separable"
    title = [
        f"{k} settings on {found.n} data sets: average rank, 1 = best",
        f"Friedman p {found.friedman_p:.2g}",
        f"Nemenyi at {found.alpha:g}: {told}",
    ]
    ax.set_title("\n".join(title), loc="right", fontsize="medium")
