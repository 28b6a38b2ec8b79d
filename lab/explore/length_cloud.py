"""Do texts draw together as they grow? The same texts cut to several lengths, at several tau.

All embeddings are brought to unit norm. Then the mean squared distance of a cloud's points from
their centre is 1 - mean cosine of two texts, so a cloud that contracts and texts that become alike
are one and the same; only the picture, which shows two of many dimensions, is an approximation.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab import results
from lab.explore.cloud_readings import Clouds, embed, place, plane, similarity
from lab.explore.faces import Answers, Status, is_live
from lab.explore.live_figure import SAME_SCALE, beside_one_another, live_figure
from lab.plotting.clouds import MOVING, cloud_panels, interactive_cloud_panels, moving
from lab.plotting.parts import refill

if TYPE_CHECKING:
    from ipywidgets import Widget
    from plotly.graph_objects import Figure as PlotlyFigure

    from lab.models import EmbeddingModel

LABEL = "mean cosine of two texts"


class LengthCloud:
    """The same texts at several lengths and temperatures: an explorer.

    All settings are embedded at once, with a bar, when the numbers are first asked for; the
    controls then only choose among them.

    Args:
        model: a lab model.
        texts: each at least as long as the longest cut.
        lengths: in tokens, special ones included.
        temperatures: of the attention.
        pooling: a name in ``POOLINGS``.
        names: what a point says when it is pointed at; default the text's beginning.
        about: further columns of the table, such as notebook and dataset.

    Raises:
        ValueError: fewer than two lengths, no temperature, fewer than four texts.
    """

    def __init__(
        self,
        model: "EmbeddingModel",
        texts: Sequence[str],
        lengths: Sequence[int],
        temperatures: Sequence[float],
        *,
        pooling: str = "mean",
        names: Sequence[str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.lengths = sorted(dict.fromkeys(lengths))
        self.temperatures = sorted(dict.fromkeys(map(float, temperatures)))
        if len(self.lengths) < 2 or not self.temperatures or len(texts) < 4:
            raise ValueError(
                "a cloud that contracts needs two lengths or more, a temperature and four texts; "
                f"got {self.lengths}, {self.temperatures} and {len(texts)} texts"
            )
        self._model, self._texts, self._pooling = model, list(texts), pooling
        self._names, self._about = list(names or texts), dict(about or {})
        self._clouds: dict[tuple[int, float], np.ndarray] = {}
        self._drawn: tuple[pd.DataFrame, pd.DataFrame] | None = None

    @property
    def clouds(self) -> Clouds:
        """{(length, temperature): (texts, dim)}; the first time, all texts are embedded.

        Raises:
            TypeError, ValueError: as :func:`embed`.
        """
        from tqdm.auto import tqdm

        if not self._clouds:
            steps = len(self.lengths) * len(self.temperatures)
            with tqdm(total=steps, desc="settings", disable=not is_live()) as bar:
                self._clouds = embed(self._model, self._texts, self.lengths, self.temperatures,
                                     pooling=self._pooling, on_step=bar.update)  # fmt: skip
        return self._clouds

    def drawn(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The points of all settings, :func:`place`, and how alike they are, :func:`similarity`."""
        if self._drawn is None:
            on = plane(list(self.clouds.values()))
            points = place(self.clouds, self._names, on)
            self._drawn = points, similarity(self.clouds, on)
        return self._drawn

    def start(self) -> tuple[int, float]:
        """What is shown first: the shortest cut, at a temperature of 1 if that is there."""
        return self.lengths[0], 1.0 if 1.0 in self.temperatures else self.temperatures[0]

    def table(self) -> pd.DataFrame:
        """The tidy table: average_cosine and, where texts differ, plane_share of every setting."""
        from lab import models

        own = {k: v for k, v in models.settings(self._model).items() if k != "max_length"}
        common = {**own, "probe": "length", "pooling": self._pooling, **self._about}
        rows = []
        for row in self.drawn()[1].to_dict("records"):
            at = {"temperature": str(row["temperature"]), "length": row["length"], "n": row["n"]}
            ends = {key: row[key] for key in ("value", "low", "high")}
            rows.append({**common, **at, "metric": "average_cosine", **ends})
            if np.isfinite(row["share"]):
                rows.append({**common, **at, "metric": "plane_share", "value": row["share"]})
        return results.table(rows)

    def frames(self) -> "PlotlyFigure":
        """A slider over length and a menu over temperature."""
        return interactive_cloud_panels(*self.drawn(), self.start(), label=LABEL)

    def live(self) -> "Widget":
        """Sliders over length and temperature; both choose among what is embedded already."""
        import ipywidgets as widgets

        points, curve = self.drawn()
        length, temperature = (
            widgets.SelectionSlider(options=options, value=value, description=words,
                                    style={"description_width": "initial"})
            for options, value, words in zip(
                (self.lengths, self.temperatures), self.start(), ("length", "temperature"),
                strict=True,
            )
        )  # fmt: skip
        figure = live_figure(cloud_panels(points, curve, self.start(), label=LABEL), "length_cloud")
        figure.update_layout(SAME_SCALE)
        status = Status()

        def show() -> None:
            at = length.value, temperature.value
            with status.during(f"{at[0]} tokens, temperature {at[1]:g}"), figure.batch_update():
                refill(figure.data[-MOVING:], moving(points, curve, at))

        Answers().to([length, temperature], show)
        row = widgets.HBox([length, temperature], layout={"flex_flow": "row wrap"})
        return widgets.VBox([row, status.widget, beside_one_another(figure)])
