"""The live face of the bench: controls around passes that stay in memory."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.explore import faces
from lab.explore.background import Background
from lab.explore.live_figure import beside_one_another, live_figure
from lab.explore.passes import Progress, Setting, read_lines
from lab.explore.readings import mean_cosine, neighbours, pair_table, verdict

if TYPE_CHECKING:
    from lab.explore.bench import Bench

WIDE = {"description_width": "9em"}
WHOLE = {"width": "max-content"}  # a button is as wide as its words
TEMPERATURES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)


class _SupersededError(Exception):
    """Another setting has been asked for."""


class Controls:
    """Widgets of one bench, which always say what is shown: on an error they go back to it.

    Attributes:
        widget: all of it, to be displayed.
    """

    def __init__(self, bench: "Bench") -> None:
        self._bench, self._texts = bench, bench.texts
        self._start = self._now = bench.start
        self._answers = faces.Answers()
        self._make()
        self.widget = self._arranged()
        self._show(bench.start, bench.texts)

    # --- what there is ---------------------------------------------------------------------

    def _make(self) -> None:
        import ipywidgets as widgets

        from lab.models.attention import MODES
        from lab.pooling import POOLINGS

        start = self._start
        temperatures = sorted({*TEMPERATURES, start.temperature})
        self._settings: dict[str, Any] = {
            "checkpoint": widgets.Dropdown(
                options=self._bench.checkpoints, value=start.checkpoint, description="model"
            ),
            "attention": widgets.Dropdown(
                options=list(MODES), value=start.attention, description="attention"
            ),
            "temperature": widgets.SelectionSlider(
                options=[(f"{value:g}", value) for value in temperatures], value=start.temperature,
                description="temperature τ", continuous_update=False,
            ),
            "prompt": widgets.Text(
                value=start.prompt, description="instruction", continuous_update=False,
                placeholder="put before every text",
            ),
            "layer": widgets.IntSlider(
                value=0, min=0, max=max(start.layer, 1), description="layer",
                continuous_update=False,
            ),
            "pooling": widgets.Dropdown(
                options=list(POOLINGS), value=start.pooling, description="pooling"
            ),
        }  # fmt: skip
        self._lines = widgets.Textarea(
            value="\n".join(self._texts), description="sentences", rows=7, style=WIDE,
            layout={"width": "98%"},
        )  # fmt: skip
        self._read = widgets.Button(
            description="Read these sentences", button_style="primary", layout=WHOLE
        )
        self._keep = widgets.Button(
            description="Keep as start", tooltip="compare with what is shown now", layout=WHOLE
        )
        self._back = widgets.Button(
            description="Back to start", tooltip="undo every change since the start", layout=WHOLE
        )
        self._of = widgets.Dropdown(description="neighbours of", style=WIDE,
                                    layout={"width": "98%"})  # fmt: skip
        self._status, self._scoring = faces.Status(), faces.Status()
        self._pairs = Background(self._scoring)
        self._notes = widgets.HTML()
        self._numbers = widgets.HTML()
        self._score, self._near = widgets.HTML(), widgets.HTML()
        self._picture = widgets.VBox(layout={"width": "98%", "overflow": "auto"})
        self._drawn: list[str] = []
        for control in self._settings.values():
            control.style, control.layout.width = WIDE, "26em"
        self._answers.to(self._settings.values(), self._changed)
        self._answers.to([self._of], self._tell_neighbours)
        self._read.on_click(lambda _: self._new_texts())
        self._keep.on_click(lambda _: self._new_start())
        self._back.on_click(lambda _: self._go_back())

    def _arranged(self) -> Any:
        import ipywidgets as widgets

        flow = {"flex_flow": "row wrap", "align_items": "center"}
        return widgets.VBox([
            self._lines,
            widgets.HBox([self._read, self._keep, self._back], layout=flow),
            widgets.HBox(list(self._settings.values()), layout=flow),
            self._status.widget, self._notes, self._score, self._scoring.widget, self._picture,
            self._numbers, self._of, self._near,
        ])  # fmt: skip

    # --- what a control does ---------------------------------------------------------------

    def _changed(self) -> None:
        asked = Setting(**{name: one.value for name, one in self._settings.items()})
        at_last = self._now.layer == self._settings["layer"].max
        if asked.checkpoint != self._now.checkpoint and at_last:
            asked = replace(asked, layer=-1)  # the last stays the last
        self._show(asked, self._texts)

    def _new_texts(self) -> None:
        try:
            texts = read_lines(self._lines.value)
        except ValueError as error:
            self._status.fail(f"{error}. The picture still shows the sentences before.")
            return
        if texts == self._texts:
            self._status.say(f"these {len(texts)} sentences are what is shown")
        else:
            self._show(self._now, texts)

    def _new_start(self) -> None:
        self._start = self._now
        self._show(self._now, self._texts)

    def _go_back(self) -> None:
        if self._now == self._start:
            self._status.say("this is the start: there is nothing to undo")
        else:
            self._show(self._start, self._texts)

    # --- what is shown ---------------------------------------------------------------------

    def _show(self, setting: Setting, texts: list[str]) -> None:
        """Read the texts, draw, then score on the pairs; an error leaves what was shown."""
        passes, doing = self._bench.passes, f"reading with {setting.checkpoint}"
        if not passes.loaded(setting):
            doing = f"loading {setting.checkpoint} and {doing}"
        with self._status.during(doing) as move:
            read = passes.read(setting, texts, move)
            setting = _within(setting, read.states)
            self._start = _within(self._start, passes.read(self._start, texts, move).states)
            cosines = (self._bench.cosine(setting, texts), self._bench.cosine(self._start, texts))
            self._now, self._texts, self._cosines = setting, texts, cosines
            self._last = read.states - 1
            self._set_controls()
            self._draw(read.too_long())
            self._tell_score()
        if self._status.failed and self._drawn:
            self._set_controls()

    def _tell_score(self) -> None:
        """Score what is shown and the start on the pairs, now or once these have been read."""
        bench = self._bench
        if self._unread():
            self._score.value = _score_line({"undefined": "the pairs are being read …"}, "", True)
            count = len(bench.pairs.texts)
            doing = f"reading {count} texts of the graded pairs"
            self._pairs.ask(doing, self._read_pairs, lambda _: self._tell_score())
            return
        now, start = self._now, self._start
        found = verdict(bench.score(now), bench.score(start), seed=bench.seed,
                        resamples=bench.resamples)  # fmt: skip
        self._score.value = _score_line(found, bench.pairs.name, now == start)

    def _unread(self) -> Setting | None:
        """Of what is shown and the start, one under which the pairs have not been read."""
        settings, texts = (self._now, self._start), self._bench.pairs.texts
        return next((one for one in settings if not self._bench.passes.made(one, texts)), None)

    def _read_pairs(self, move: Progress) -> None:
        """Read the pairs under what is shown, and again if that has changed meanwhile."""
        while unread := self._unread():
            with suppress(_SupersededError):
                go_on = partial(self._go_on, unread, move)
                self._bench.passes.read(unread, self._bench.pairs.texts, go_on)

    def _go_on(self, reading: Setting, move: Progress, share: float) -> None:
        """Move the bar.

        Raises:
            _SupersededError: neither what is shown nor the start needs this pass any more.
        """
        if reading.of_pass not in (self._now.of_pass, self._start.of_pass):
            raise _SupersededError
        move(share)

    def _set_controls(self) -> None:
        """Set every control to what is shown."""
        with self._answers.silent():
            self._settings["layer"].max = self._last
            for name, control in self._settings.items():
                control.value = getattr(self._now, name)
            options = [
                (f"{place} · {text[:90]}", place - 1) for place, text in enumerate(self._texts, 1)
            ]
            if tuple(options) != self._of.options:
                self._of.options, self._of.index = options, 0

    def _draw(self, too_long: Sequence[str]) -> None:
        """The picture anew if there are other texts, else only its numbers, which is faster."""
        from lab.plotting.similarity import similarity, similarity_numbers

        if self._drawn != self._texts:
            made = similarity(*self._cosines, self._texts)
            self._figure, self._drawn = live_figure(made, "similarity"), self._texts
            self._picture.children = [beside_one_another(self._figure)]
        else:
            traces, layout = similarity_numbers(*self._cosines)
            with self._figure.batch_update():
                for trace, new in zip(self._figure.data, traces, strict=True):
                    trace.update(new)
                self._figure.update_layout(layout)
        shown = pair_table(*self._cosines, self._texts).assign(**asdict(self._now))
        self._numbers.value = faces.download(shown, "similarity")
        self._notes.value = _notes(self._now.changes(self._start), self._cosines, too_long)
        self._tell_neighbours()

    def _tell_neighbours(self) -> None:
        self._near.value = _neighbour_table(neighbours(*self._cosines, self._of.value), self._texts)


def _within(setting: Setting, states: int) -> Setting:
    """The setting with the number of a layer that its model has, the last where it has fewer."""
    layer = setting.layer
    return replace(setting, layer=states - 1 if layer >= states else layer % states)


def _notes(
    changes: Sequence[str], cosines: tuple[np.ndarray, np.ndarray], too_long: Sequence[str]
) -> str:
    """What differs from the start, how close all texts are, which were cut."""
    now, start = map(mean_cosine, cosines)
    said = "This is the start." if not changes else f"Since the start: {'; '.join(changes)}."
    if len(changes) > 1:
        said += f" {len(changes)} things have changed: which of them it was, this can't tell."
    said += f" Mean cosine of different sentences {now:.3f}"
    said += "." if not changes else f", at the start {start:.3f}."
    return "<br>".join(map(faces.text, [said, *too_long]))


def _score_line(found: Mapping[str, Any], dataset: str, at_start: bool) -> str:
    """The score with its interval, and the difference from the start with its own."""
    parts = []
    if "value" in found:
        value = "{value:.3f} [{low:.3f}, {high:.3f}], n {n}".format(**found)
        parts.append(f"Spearman of cosine and given similarity: {value} pairs of {dataset}")
    if "difference" in found and not at_start:
        parts.append("difference from the start: {difference:+.3f} [{difference_low:+.3f}, "
                     "{difference_high:+.3f}], same pairs".format(**found))  # fmt: skip
    if "undefined" in found:
        parts.append(f"no score: {found['undefined']}")
    return f"<b>{faces.text('; '.join(parts))}</b>"


def _neighbour_table(table: pd.DataFrame, texts: Sequence[str]) -> str:
    """The nearest texts as an HTML table."""
    look = "text-align:left;white-space:nowrap;padding:0 1em 0 0"
    head = "".join(f'<th scope="col" style="{look}">{name}</th>'
                   for name in ("rank", "cosine", "rank at start", "cosine at start", "sentence")
                   )  # fmt: skip
    rows = "".join(
        f"<tr><td>{row.rank}</td><td>{row.cosine:.3f}</td><td>{row.rank_at_start}</td>"
        f"<td>{row.cosine_at_start:.3f}</td><td>{faces.text(texts[row.text][:200])}</td></tr>"
        for row in table.itertuples()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
