"""What every explorer has in common: two faces, answers to controls, a status, text as text."""

import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from lab.plotting.columns import plain

if TYPE_CHECKING:
    from ipywidgets import Widget
    from plotly.graph_objects import Figure as PlotlyFigure

# What a user's own input can bring about; anything else is a fault of ours, and says so.
INPUT_ERRORS = (ValueError, LookupError, OSError, MemoryError, ImportError)
FAULTS = (KeyError, IndexError)  # LookupErrors that Python raises of itself, with no words
NOT_YET = "the controls are being made ready …"
FAILED = "background:#B00020;color:#fff;padding:1px 6px"  # ground and ink, so in any theme


class Explorer(Protocol):
    """Something to explore: live controls, the same as a figure without a kernel, its numbers."""

    def live(self) -> "Widget":
        """Controls and figures that answer through the kernel."""

    def frames(self) -> "PlotlyFigure":
        """The same settings as frames with sliders or menus, for a page without a kernel."""

    def table(self) -> pd.DataFrame:
        """The numbers behind :meth:`frames`, one row per mark."""


def is_live() -> bool:
    """Whether a kernel will stay behind the page: not in a batch run (``LAB_MODE=batch``)."""
    return os.environ.get("LAB_MODE") != "batch"


def show(explorer: Explorer) -> None:
    """Display the live controls; in a batch run nothing, since a page would show them dead.

    The cell below it saves :meth:`Explorer.frames`, which both kinds of run have.
    """
    import ipywidgets as widgets
    from IPython.display import display

    from lab.explore.patience import Patience

    if is_live():
        Patience()
        place = widgets.VBox([widgets.HTML(f"<p>{NOT_YET}</p>")])
        display(place)  # before a model is loaded or a first map made, which takes its time
        place.children = [explorer.live()]


def text(value: Any) -> str:
    """A value from data as it may stand in a widget: markup in it is shown, not obeyed."""
    return escape(plain(value))


def download(table: pd.DataFrame, name: str) -> str:
    """A link (HTML) by which a reader saves the numbers that are shown; they are in the link.

    Columns without any value are left out.
    """
    filled = table.dropna(axis=1, how="all")
    raw = b64encode(filled.to_csv(index=False, lineterminator="\n").encode()).decode()
    return (
        f'<a download="{name}.csv" style="text-decoration:underline" '
        f'href="data:text/csv;charset=utf-8;base64,{raw}">'
        f"save these numbers ({name}.csv)</a>"
    )


class Answers:
    """What controls do when somebody changes them; to a change by the program there is none."""

    def __init__(self) -> None:
        self._silent = False

    def to(self, controls: Iterable["Widget"], answer: Callable[[], None]) -> None:
        """Call ``answer`` whenever the value of one of the controls changes."""
        for control in controls:
            control.observe(lambda _: None if self._silent else answer(), "value")

    @contextmanager
    def silent(self) -> Iterator[None]:
        """While the block runs, controls change without an answer."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before


class Status:
    """A status line with a bar, read aloud by screen readers: what goes on, or what went wrong.

    Attributes:
        widget: to be placed among the controls.
        failed: whether the line says what went wrong.
    """

    def __init__(self) -> None:
        import ipywidgets as widgets

        self.failed = False
        self._line = widgets.HTML()
        self._bar = widgets.FloatProgress(min=0, max=1, layout={"width": "12em", "display": "none"})
        self.widget = widgets.HBox([self._bar, self._line])
        self.say("ready")

    def say(self, words: str) -> None:
        """Show a plain message."""
        self._write(words, failed=False)

    def fail(self, words: str) -> None:
        """Show what went wrong, in words that say what to do."""
        self._write(words, failed=True)

    @contextmanager
    def during(self, what: str) -> Iterator[Callable[[float], None]]:
        """Say ``what`` while the block runs, then how long it took, or what was wrong.

        Yields a function that moves the bar: it takes the share done, from 0 to 1. An error of
        INPUT_ERRORS ends the block with its own words; any other with its type as well. No
        traceback reaches the page, and the figures keep what they showed before. An interrupt
        is said, and goes on to whoever runs the block.
        """
        started = time.perf_counter()
        self.say(f"{what} …")
        try:
            yield self._move
        except Exception as error:  # the answer to a click is a sentence, whatever broke
            own = isinstance(error, INPUT_ERRORS) and not isinstance(error, FAULTS)
            fault = f"{what} failed: {type(error).__name__}: {error}".rstrip(": ")
            self.fail((own and str(error)) or fault)
        except KeyboardInterrupt:
            self.fail(f"{what}: interrupted")
            raise
        else:
            self.say(f"{what}: {time.perf_counter() - started:.2f} s")
        finally:
            self._bar.layout.display = "none"

    def _move(self, share: float) -> None:
        self._bar.layout.display = None
        self._bar.value = share

    def _write(self, words: str, *, failed: bool) -> None:
        self.failed, look = failed, f' style="{FAILED}"' if failed else ""
        self._line.value = f'<span role="status"{look}>{text(words)}</span>'
