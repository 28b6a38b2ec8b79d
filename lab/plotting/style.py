"""The look of every figure: colours, markers and lines, matplotlib's defaults, axes to draw on."""

from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes

from lab.plotting.columns import plain
from lab.registry import unknown

# Okabe & Ito, "Color Universal Design" (2008): eight colours that the colour-blind tell apart.
# Their yellow is last: it is the one that is faint on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")  # 11 and 8 share no factor:
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))  # 88 pairs of marker and colour
COLOUR_MAP = "cividis"
WIDTHS = {"column": 3.3, "page": 6.9}  # inches, of a two-column paper
PANEL = 0.5  # of the usual height, where several axes stand one below the other
SMALLEST = 6.0  # points; no text is smaller
FAMILIES = {"sans": "DejaVu Sans", "serif": "DejaVu Serif"}


def use_style(width: str | float = "page", family: str = "sans") -> None:
    """Set matplotlib's defaults to print size; ``width`` is a name in WIDTHS or inches.

    Raises:
        LookupError: unknown width or family. ValueError: a width that is not positive.
    """
    if isinstance(width, str) and width not in WIDTHS:
        raise LookupError(unknown("width", width, WIDTHS))
    if family not in FAMILIES:
        raise LookupError(unknown("family", family, FAMILIES))
    inches = WIDTHS[width] if isinstance(width, str) else float(width)
    if not 0 < inches < 100:
        raise ValueError(f"a figure's width is in inches, above 0 and below 100; got {width!r}")
    size = 7.5 if inches < 5 else 9.0
    mpl.rcParams.update({
        "figure.figsize": (inches, inches * 0.62), "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "font.family": "sans-serif" if family == "sans" else "serif",
        "font.sans-serif": [FAMILIES["sans"]], "font.serif": [FAMILIES["serif"]],
        "mathtext.fontset": "dejavusans" if family == "sans" else "dejavuserif",
        "font.size": size, "axes.titlesize": size + 1, "axes.labelsize": size,
        "xtick.labelsize": size - 1, "ytick.labelsize": size - 1, "legend.fontsize": size - 1,
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "axes.linewidth": 0.7, "lines.linewidth": 1.4, "lines.markersize": 4.2,
        "legend.frameon": False, "image.cmap": COLOUR_MAP,
        "axes.prop_cycle": cycler(color=COLOURS),
        "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
        "svg.fonttype": "path", "pdf.fonttype": 42,
    })  # fmt: skip


def current_style() -> dict[str, Any]:
    """The width and the family that :func:`use_style` was last called with."""
    inches = mpl.rcParams["figure.figsize"][0]
    named = {size: name for name, size in WIDTHS.items()}
    serif = mpl.rcParams["font.family"] == ["serif"]
    return {"width": named.get(inches, inches), "family": "serif" if serif else "sans"}


def escaped(name: Any) -> str:
    """As matplotlib may draw it: a dollar sign in data starts no formula."""
    return plain(name).replace("$", r"\$")


def new_axes(ax: Axes | None, height: float | None = None, extra: float = 0.0) -> Axes:
    """The axes given, or those of a new figure in the style's width and the height needed.

    ``height``, else the style's own, and ``extra`` for a legend above the axes, in inches.
    """
    import matplotlib.pyplot as plt

    if ax is not None:
        return ax
    width, usual = mpl.rcParams["figure.figsize"]
    return plt.subplots(figsize=(width, (height or usual) + extra), layout="constrained")[1]


def stacked(*extra: float) -> list[Axes]:
    """Axes one below the other with the same limits, as many as heights for legends above them."""
    import matplotlib.pyplot as plt

    width, usual = mpl.rcParams["figure.figsize"]
    heights = [PANEL * usual + inches for inches in extra]
    rows = plt.subplots(
        len(heights), sharex=True, sharey=True, squeeze=False, layout="constrained",
        figsize=(width, sum(heights)), height_ratios=heights,
    )  # fmt: skip
    return list(rows[1][:, 0])
