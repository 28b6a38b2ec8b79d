"""Where does each head look? The maps of all heads for one text, at any attention temperature.

A control that changes the model (text, attention, temperature) costs one forward pass; one that
only changes what is shown (layer, head) costs a drawing.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.collapse.filter_rate import uniform_causal
from lab.explore.faces import Answers, Status, download
from lab.explore.head_readings import read_heads, tabulate
from lab.explore.live_figure import beside_one_another, live_figure
from lab.models.architecture import is_decoder
from lab.models.checkpoints import CHECKPOINTS
from lab.plotting.head_layout import panel_layout
from lab.plotting.heads import Heads, head_panels, head_traces, interactive_head_panels
from lab.plotting.parts import refill

if TYPE_CHECKING:
    from ipywidgets import Widget
    from plotly.graph_objects import Figure as PlotlyFigure

    from lab.models import EmbeddingModel

ATTENTIONS = ("bidirectional", "causal")
TRIED = 0.5  # the temperature that a model is loaded with, so that loading checks that it acts


class AttentionView:
    """Heads x layers of one text: an explorer (:class:`lab.explore.faces.Explorer`).

    Args:
        text: what is read first.
        checkpoint: what reads it first.
        temperatures: those of the frames; live, any from 1/4 to 4 can be chosen.
        layer: of the head that is shown large, from 1.
        head: of the head that is shown large, from 0.
        checkpoints: further ones to choose from; default those whose weights are installed.
        about: further columns of the table, such as notebook and seed.

    Raises:
        ValueError: no temperature, or one that is not positive.
    """

    def __init__(
        self,
        text: str,
        checkpoint: str = "minilm-l6",
        *,
        temperatures: Sequence[float] = (0.5, 0.7, 1.0, 1.5, 2.0),
        layer: int = 1,
        head: int = 0,
        checkpoints: Sequence[str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if not temperatures or not all(tau > 0 for tau in temperatures):
            raise ValueError(
                f"an attention view needs positive temperatures; got {[*temperatures]}"
            )
        if checkpoints is None:
            checkpoints = [name for name, entry in CHECKPOINTS.items() if entry.present()]
        self.text, self.checkpoint = text, checkpoint
        self.temperatures = sorted(dict.fromkeys(map(float, temperatures)))
        self.layer, self.head, self._about = layer, head, dict(about or {})
        self.checkpoints = list(dict.fromkeys([checkpoint, *checkpoints]))
        self._models: dict[tuple[str, str], EmbeddingModel] = {}
        self._readings: dict[str, dict[float, Heads]] = {}

    def read(self, checkpoint: str, attention: str, temperature: float, text: str) -> Heads:
        """One reading; models stay in memory, one object for each checkpoint and attention.

        Raises:
            LookupError, ValueError, OSError: as :func:`lab.models.load` and :func:`read_heads`.
        """
        model = self._model(checkpoint, attention)
        encoder = model.encoder
        kept = {key: getattr(encoder, key) for key in encoder.settings if key != "native_is_causal"}
        encoder.configure(**{**kept, "temperature": temperature})
        return read_heads(model, text)

    def readings(self) -> dict[str, dict[float, Heads]]:
        """{attention: {temperature: reading}} of the text that was given, for the frames."""
        if not self._readings:
            self._readings = {
                self._label(self.checkpoint, attention): {
                    tau: self.read(self.checkpoint, attention, tau, self.text)
                    for tau in self.temperatures
                }
                for attention in ATTENTIONS
            }
        return self._readings

    def table(self) -> pd.DataFrame:
        """The numbers of all heads in all frames; the maps themselves are in the figure alone."""
        plain = {label.split()[0]: under for label, under in self.readings().items()}
        return tabulate(plain, self.checkpoint, **self._about)

    def frames(self) -> "PlotlyFigure":
        """A slider over temperature, a menu over attention; the head shown large stays."""
        readings = self.readings()
        own = self._label(self.checkpoint, ATTENTIONS[0]).endswith(")")
        order = list(readings) if own else list(readings)[::-1]
        n = len(next(iter(readings[order[0]].values())).tokens)
        return interactive_head_panels(
            {name: readings[name] for name in order}, self.layer, self.head,
            reference=uniform_causal(n),
        )  # fmt: skip

    def live(self) -> "Widget":
        """Text, model, attention, temperature, layer and head; a click on a head chooses it."""
        return _Live(self).widget

    def _label(self, checkpoint: str, attention: str) -> str:
        """The attention's name, and whether it is the one that the model was made with."""
        encoder = self._model(checkpoint, attention).encoder
        causal = is_decoder(encoder.model) and encoder.native_is_causal is not False
        own = attention == ("causal" if causal else "bidirectional")
        return f"{attention} (as trained)" if own else attention

    def _model(self, checkpoint: str, attention: str) -> "EmbeddingModel":
        from lab import models

        key = checkpoint, attention
        if key not in self._models:
            known = [model for (name, _), model in self._models.items() if name == checkpoint]
            self._models[key] = (
                models.variant(known[0], attention=attention, temperature=TRIED)
                if known
                else models.load(checkpoint, attention=attention, temperature=TRIED)
            )
        return self._models[key]


class _Live:
    """The widgets of one view, and what they show."""

    def __init__(self, view: AttentionView) -> None:
        import ipywidgets as widgets
        import plotly.graph_objects as go

        self._view, self._answers = view, Answers()
        self.text = widgets.Textarea(view.text, description="text", rows=2, layout={"width": "98%"})
        self.button = widgets.Button(
            description="Read this text", button_style="primary", layout={"width": "max-content"}
        )
        self.model = widgets.Dropdown(options=view.checkpoints, description="model")
        self.attention = widgets.Dropdown(description="attention")
        self.temperature = widgets.FloatLogSlider(
            1.0, base=2, min=-2, max=2, step=0.125, description="temperature",
            readout_format=".2f", continuous_update=False, style={"description_width": "initial"},
        )  # fmt: skip
        self.layer = widgets.IntSlider(view.layer, min=1, max=max(1, view.layer))
        self.head = widgets.IntSlider(view.head, min=0, max=max(1, view.head))
        self.layer.description, self.head.description = "layer", "head"
        self.status, self.numbers = Status(), widgets.HTML()
        self.figure = live_figure(go.Figure(), "attention")
        self._read: Heads | None = None
        self._settings: tuple[str, str, float] | None = None  # of the reading that is shown
        self._most = 1.0
        self._offer(view.checkpoint)
        self.reread()
        self.button.on_click(lambda _: self.reread())
        self._answers.to([self.attention, self.temperature], self.reread)
        self._answers.to([self.model], self.change_model)
        self._answers.to([self.layer, self.head], self.redraw)
        box = widgets.HBox([self.button, self.model, self.attention],
                           layout={"flex_flow": "row wrap"})  # fmt: skip
        sliders = [self.temperature, self.layer, self.head]
        row = widgets.HBox(sliders, layout={"flex_flow": "row wrap"})
        self.widget = widgets.VBox([self.text, box, row, self.status.widget,
                                   beside_one_another(self.figure), self.numbers])  # fmt: skip

    def change_model(self) -> None:
        """Load a model and read the text; where one of them fails, the model before stays."""
        with self.status.during(f"loading {self.model.value}"):
            self._offer(self.model.value)
        if self.status.failed:
            self._go_back()
        else:
            self.reread()

    def reread(self) -> None:
        """One forward pass and a drawing; what is refused leaves the picture and its settings."""
        settings = self.model.value, self.attention.value, self.temperature.value
        with self.status.during("reading the text"):
            if not self.text.value.strip():
                raise ValueError("the text is empty or blank: type one")
            read = self._view.read(*settings, self.text.value)
            layers, heads = read.maps.shape[:2]
            with self._answers.silent():
                self.layer.max, self.head.max = layers, heads - 1
            self._read, self._settings = read, settings
            self._draw()
            shown = tabulate({settings[1]: {settings[2]: read}}, settings[0])
            self.numbers.value = download(shown, "attention")
        if self.status.failed:
            self._go_back()

    def redraw(self) -> None:
        """Another head of the same reading."""
        if self._read is not None:
            with self.status.during(f"layer {self.layer.value}, head {self.head.value}"):
                self._draw()

    def _offer(self, checkpoint: str) -> None:
        """The attentions of a model, its own one first and chosen."""
        labels = {self._view._label(checkpoint, name): name for name in ATTENTIONS}
        options = sorted(labels.items(), key=lambda item: not item[0].endswith(")"))
        with self._answers.silent():
            self.attention.options, self.attention.value = options, options[0][1]

    def _go_back(self) -> None:
        """The settings of what is shown; a text that was refused stays, to be mended."""
        if self._settings is not None:
            with self._answers.silent():
                self.model.value, attention, self.temperature.value = self._settings
                self._offer(self.model.value)
                self.attention.value = attention

    def _draw(self) -> None:
        """All four panels; the first time they are made, later only filled."""
        assert self._read is not None
        read, at = self._read, (self.layer.value, self.head.value)
        uniform = uniform_causal(len(read.tokens))
        self._most = max(self._most, float(read.numbers["filter_rate"].max()))  # never narrower
        if not self.figure.data:
            made = head_panels(read, *at, most=self._most, reference=uniform)
            self.figure.add_traces(made.data)
            self.figure.update_layout(made.layout, autosize=True)
            for trace in self.figure.data[:3]:
                trace.on_click(self._choose)
            return
        with self.figure.batch_update():
            refill(self.figure.data, head_traces(read, *at))
            self.figure.update_layout(
                panel_layout(
                    read.tokens, read.maps.shape[:2], at, most=self._most, reference=uniform
                ),
                overwrite=True,
            )

    def _choose(self, trace: Any, points: Any, state: Any) -> None:
        """The head that was clicked on, in any of the first three panels."""
        if points.xs:
            with self._answers.silent():
                self.layer.value, self.head.value = round(points.ys[0]), round(points.xs[0])
            self.redraw()
