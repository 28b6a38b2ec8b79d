"""A file of one's own texts under a model: columns and model chosen by hand, the report at once."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab import models, plotting
from lab.models import EmbeddingModel
from lab.report import drawing
from lab.report.health import Health, examine
from lab.report.survey import survey

if TYPE_CHECKING:
    from ipywidgets import Widget
    from plotly.graph_objects import Figure as PlotlyFigure

MOST_POINTS = 2000  # on the map, which draws each as an element of the page


class YourData:
    """The explorer of a report.

    Args:
        health: what is shown first.
        model: under which.
        out: the folder of exported reports and uploaded files.
        most: texts measured at the most when a file is examined anew.
    """

    def __init__(
        self, health: Health, model: EmbeddingModel, out: str | Path, *, most: int = 10_000
    ) -> None:
        self.health, self.out, self.most = health, Path(out), most
        self._models = {model.lab_name: model}
        self._name = model.lab_name

    def table(self) -> pd.DataFrame:
        """One row a point of the map: x, y, log2 of its tokens, times a neighbour, label, text.

        In ``attrs``: the share of the variance, and which texts are drawn, in words.
        """
        points, seed = drawing.points(self.health), self.health.seed
        n, share = len(points), points.attrs["share"]
        drawn = f"all {n:,} texts"
        if n > MOST_POINTS:
            kept = np.random.default_rng(seed).choice(n, MOST_POINTS, replace=False)
            points = points.iloc[np.sort(kept)].reset_index(drop=True)
            drawn = f"{MOST_POINTS:,} of {n:,} texts, drawn with seed {seed}"
        points.attrs = {"share": share, "drawn": drawn}
        return points

    def frames(self) -> "PlotlyFigure":
        """The texts on a map (PCA), with a menu for what colours them."""
        points = self.table()
        colours = [name for name in ("log2_tokens", "times_a_neighbour", "label") if name in points]
        said = points.attrs
        words = f"{said['drawn']}; two components hold {said['share']:.0%} of the variance"
        return plotting.interactive_map(points, colours=colours, hover="text", note=words)

    def live(self) -> "Widget":
        """File, columns and model to choose; findings, defects, map, hubs and neighbours."""
        from lab.explore.your_panel import Panel

        return Panel(self).widget

    def examine(
        self, path: Path, column: str, label: str | None, name: str, move: Callable[[float], None]
    ) -> None:
        """Nothing; ``health`` is that of another file, column or model.

        Raises:
            ValueError, LookupError, OSError, ImportError, FloatingPointError: as survey, load and
                examine; what was there stays.
        """
        seed = self.health.seed
        found = survey(path, text=column, label=label, most=self.most, seed=seed)
        if name not in self._models:
            self._models[name] = models.load(name)
        self.health = examine(found, self._models[name], seed=seed, progress=move)
        self._name = name

    def names(self) -> list[str]:
        """The models that can be chosen: the one at hand, and those that are installed."""
        there = models.listing()
        installed = there.loc[there["present"], "name"].tolist()
        return list(dict.fromkeys([self._name, *(one for one in installed if ":" not in one)]))
