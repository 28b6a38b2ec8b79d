"""What interactive figures are made of: text that stays text, a slider, a menu, traces refilled."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lab.plotting.columns import plain


def as_text(value: Any, most: int | None = None) -> str:
    """A value as plotly may draw it: markup in it is shown, a dollar starts no formula.

    Of more than ``most`` characters the beginning, with an ellipsis.
    """
    words = plain(value)
    words = words if most is None or len(words) <= most else words[: most - 1] + "…"
    return escape(words, quote=False).replace("$", "&#36;")  # plotly knows no &quot;


def slider(over: str, frames: Sequence[str], **place: Any) -> dict[str, Any]:
    """A slider with one step per frame, without animation; below the figure unless placed."""
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": True},
             "transition": {"duration": 0}}  # fmt: skip
    steps = [{"method": "animate", "label": name, "args": [[name], still]} for name in frames]
    said = {"prefix": f"{as_text(over)}: "}
    return {"steps": steps, "currentvalue": said, "pad": {"t": 45}, **place}


def menu(shown: Mapping[str, Sequence[bool]], **place: Any) -> dict[str, Any]:
    """A menu above the figure; every entry shows its traces and hides all others."""
    buttons = [
        {"label": as_text(name), "method": "restyle", "args": [{"visible": list(seen)}]}
        for name, seen in shown.items()
    ]
    return {"buttons": buttons, "x": 0, "xanchor": "left", "yanchor": "bottom", **place}


def refill(traces: Iterable[Any], new: Iterable[Any]) -> None:
    """Give the traces of a live figure what as many others of their kinds hold."""
    for trace, other in zip(traces, new, strict=True):
        trace.update({key: held for key, held in other.to_plotly_json().items() if key != "type"})
