"""A file of one's own texts under a model: columns and model chosen by hand, the report at once."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab import models, plotting
from lab.explore.faces import Status, text
from lab.models import EmbeddingModel
from lab.report import defects, drawing, page
from lab.report.findings import findings
from lab.report.health import Health, K, examine
from lab.report.rows import source
from lab.report.survey import survey

if TYPE_CHECKING:
    from ipywidgets import HTML, Widget
    from plotly.graph_objects import Figure as PlotlyFigure

PREVIEW = 3  # rows shown of a column before it is examined
MOST_POINTS = 2000  # on the map, which draws each as an element of the page
CHOICES = 30  # texts whose neighbours can be asked for
NO_LABEL = "(no labels)"
MOST_UPLOAD = 8 << 20  # bytes that a page hands to a kernel in one message


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
        """One row a point of the map: x, y, tokens, times a neighbour, label, text."""
        points = drawing.points(self.health)
        if len(points) <= MOST_POINTS:
            return points
        rng = np.random.default_rng(self.health.seed)
        kept = np.sort(rng.choice(len(points), MOST_POINTS, replace=False))
        return points.iloc[kept].reset_index(drop=True)

    def frames(self) -> "PlotlyFigure":
        """The texts on a map (PCA), with a menu for what colours them."""
        points = self.table()
        colours = [name for name in ("tokens", "times_a_neighbour", "label") if name in points]
        share = points.attrs.get("share", drawing.points(self.health).attrs["share"])
        note = f"two components hold {share:.0%} of the variance"
        return plotting.interactive_map(points, colours=colours, hover="text", note=note)

    def live(self) -> "Widget":
        """File, columns and model to choose; findings, defects, map, hubs and neighbours."""
        return _Panel(self).widget

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


class _Panel:
    """The live face: widgets, and what happens when one is touched."""

    def __init__(self, explorer: YourData) -> None:
        import ipywidgets as widgets

        self.explorer, self.status, self._filling = explorer, Status(), False
        wide = {"style": {"description_width": "5em"}, "layout": {"width": "24em"}}
        self.file = widgets.Text(description="file", continuous_update=False, **wide)
        self.upload = widgets.FileUpload(description="upload", multiple=False)
        self.column = widgets.Dropdown(description="texts", **wide)
        self.label = widgets.Dropdown(description="labels", **wide)
        self.model = widgets.Dropdown(options=explorer.names(), description="model", **wide)
        self.k = widgets.IntSlider(K, 1, 20, description="k", continuous_update=False)
        self.query = widgets.Dropdown(description="text", layout={"width": "40em"})
        go = widgets.Button(description="examine", button_style="primary")
        export = widgets.Button(description="export page")
        names = ("preview", "found", "rows", "hubs", "near", "place")
        self.shown: dict[str, HTML] = {name: widgets.HTML() for name in names}
        self.map = widgets.VBox()
        tabs = widgets.Tab([self.shown["found"], self.shown["rows"], self.map])
        tabs.titles = ("findings", "defects", "map")
        self.widget = widgets.VBox([
            widgets.HBox([self.file, self.upload], layout={"flex_flow": "row wrap"}),
            widgets.HBox([self.column, self.label, self.model], layout={"flex_flow": "row wrap"}),
            self.shown["preview"], widgets.HBox([go, export, self.status.widget]),
            self.shown["place"], tabs, self.k, self.shown["hubs"], self.query, self.shown["near"],
        ])  # fmt: skip
        self._fill()
        self.file.observe(lambda _: self._open(), "value")
        self.upload.observe(lambda _: self._take(), "value")
        for control in (self.column, self.label, self.model):
            control.observe(lambda _: self._preview(), "value")
        self.k.observe(lambda _: self._near(), "value")
        self.query.observe(lambda _: self._near(), "value")
        go.on_click(lambda _: self._examine())
        export.on_click(lambda _: self._export())

    def _fill(self) -> None:
        """Every control and every picture as the health of now is."""
        survey = self.explorer.health.survey
        self.file.value = str(survey.path)
        self._columns(survey.text, survey.label)
        self._show()

    def _columns(self, text_column: str | None, label: str | None) -> None:
        columns = list(source(Path(self.file.value)).columns)
        first = text_column if text_column in columns else columns[0]
        self._filling = True  # the preview waits until all is in place
        self.column.options, self.column.value = columns, first
        self.label.options = [NO_LABEL, *columns]
        self.label.value = label if label in columns else NO_LABEL
        self._filling = False
        self._preview()

    def _open(self) -> None:
        with self.status.during("opening the file"):
            self._columns(self.column.value, self.label.value)

    def _take(self) -> None:
        """An uploaded file, put beside the reports under its own name."""
        if not self.upload.value:
            return
        with self.status.during("taking the file"):
            (given,) = self.upload.value
            if given["size"] > MOST_UPLOAD:
                raise ValueError(
                    f"{given['name']} has {given['size']:,} bytes, more than the limit of "
                    f"{MOST_UPLOAD:,} for an upload; give its path instead"
                )
            self.explorer.out.mkdir(parents=True, exist_ok=True)
            path = self.explorer.out / Path(given["name"]).name
            path.write_bytes(bytes(given["content"]))
            self.file.value = str(path)

    def _preview(self) -> None:
        """The first rows of the columns chosen, and the model that will read them."""
        if self._filling:
            return
        with self.status.during("reading the first rows"):
            columns = [self.column.value]
            if self.label.value not in (NO_LABEL, self.column.value):
                columns.append(self.label.value)
            rows = source(Path(self.file.value)).rows(columns)
            cells = [[_cut(one.cells, name) for name in columns] for one in islice(rows, PREVIEW)]
            shown = _html(pd.DataFrame(cells, columns=columns))
            model = text(f"first rows; to be read by {self.model.value}")
            self.shown["preview"].value = f"{shown}<small>{model}</small>"

    def _examine(self) -> None:
        with self.status.during("examining") as move:
            label = None if self.label.value == NO_LABEL else self.label.value
            path = Path(self.file.value)
            self.explorer.examine(path, self.column.value, label, self.model.value, move)
            self._show()

    def _export(self) -> None:
        with self.status.during("writing the page"):
            health = self.explorer.health
            stem = health.survey.path.name.split(".")[0]
            path = page.write(health, self.explorer.out / f"{stem}-report")
            self.shown["place"].value = f"written: {text(path)}"

    def _show(self) -> None:
        """Findings, defects, the map and the texts to choose from."""
        from plotly.graph_objects import FigureWidget

        health = self.explorer.health
        said = [f"<li><b>{text(one.about)}</b> ({text(one.state)}): {text(one.says)}</li>"
                for one in findings(health)]  # fmt: skip
        self.shown["found"].value = f"<ul>{''.join(said)}</ul>"
        counted = defects.counts(health.survey.defects)
        listed = health.survey.defects[["kind", "row", "line", "detail"]].head(100)
        self.shown["rows"].value = _html(counted) + _html(listed)
        self.map.children = [FigureWidget(self.explorer.frames())]
        texts = health.survey.texts
        self.query.options = [
            (" ".join(f"row {texts['row'].iloc[at]}: {texts['text'].iloc[at][:60]}".split()), at)
            for at in range(min(CHOICES, len(texts)))
        ]
        self.query.value = 0
        self._near()

    def _near(self) -> None:
        """The hubs, and the neighbours of the text chosen, for the k of now."""
        if self.query.value is None:
            return
        with self.status.during("looking up neighbours"):
            health, k = self.explorer.health, self.k.value
            self.shown[
                "hubs"
            ].value = f"<b>among the {k} nearest of the most texts</b>{_html(health.hubs(k))}"
            near = _html(health.nearest(self.query.value, k))
            self.shown["near"].value = f"<b>nearest to it</b>{near}"


def _cut(cells: Any, name: str) -> str:
    return defects.excerpt(str((cells or {}).get(name, "")))


def _html(table: pd.DataFrame) -> str:
    """A table for a widget; markup in its cells is shown, not obeyed."""
    return table.to_html(
        index=False, escape=True, border=0, justify="left", float_format="{:.3f}".format
    )
