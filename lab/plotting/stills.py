"""A plotly figure as a still picture for a paper: drawn by Chromium, or left as a page without."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from lab.plotting.style import WIDTHS
from lab.registry import unknown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

STILLS = ("pdf", "png", "svg")
PIXELS = 96  # to an inch, in a browser


class NoChromium(UserWarning):
    """No browser to draw a still picture with: the figure was written as a page instead."""


def export_static(
    figure: "Figure", path: str | Path, *, frame: str | None = None, width: str = "page"
) -> Path:
    """The file with a still of the figure, whose kind is the suffix of ``path``: pdf, svg or png.

    ``frame`` is a step of the slider, else the first; slider and menu are left out, and the title
    says which step it is. Nothing is asked from a network. Without Chromium the whole figure is
    written beside ``path`` as a page (.html) that any browser shows and prints, and a
    :class:`NoChromium` says so. Unlike :func:`save`, a browser writes other bytes each time.

    Raises:
        LookupError: no such kind, frame or width.
        OSError: the file can't be written.
    """
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    path = Path(path)
    if path.suffix[1:] not in STILLS:
        raise LookupError(unknown("kind of still picture", path.suffix[1:], STILLS))
    if width not in WIDTHS:
        raise LookupError(unknown("width", width, WIDTHS))
    still = _still(figure, frame)
    size = {"width": WIDTHS[width] * PIXELS, "height": figure.layout.height or 450}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        drawn = kaleido.calc_fig_sync(
            still.to_plotly_json(),
            opts={"format": path.suffix[1:], "scale": 3 if path.suffix == ".png" else 1, **size},
            kopts={"mathjax": False},  # which would be asked from a network
        )
    except ChromeNotFoundError:
        page = path.with_suffix(".html")
        figure.write_html(page, include_plotlyjs=True)
        warnings.warn(
            f"no Chromium here to draw {path.name} with, so it is a page, {page}; for a picture "
            "install Chromium (Debian: apt-get install chromium), or say where one is in "
            "BROWSER_PATH, and export again; or print the page to a PDF in any browser",
            NoChromium,
            stacklevel=2,
        )
        return page
    path.write_bytes(drawn)
    return path


def _still(figure: "Figure", frame: str | None) -> "Figure":
    """The figure at one step of its slider, without what only a hand can move."""
    import plotly.graph_objects as go

    still = go.Figure(figure.data, figure.layout)
    steps = {step.name: step for step in figure.frames}
    if frame is not None and frame not in steps:
        raise LookupError(unknown("frame", frame, steps))
    if steps:
        name = frame or next(iter(steps))
        step = steps[name]
        for at, moved in zip(step.traces or range(len(still.data)), step.data, strict=True):
            still.data[at].update(moved)
        still.update_layout(step.layout)
        said = figure.layout.sliders[0].currentvalue.prefix or ""
        still.update_layout(title={"text": f"{said}{name}", "font": {"size": 13}, "x": 0.5},
                            margin={"t": 50})  # fmt: skip
    still.layout.sliders = still.layout.updatemenus = None
    return still
