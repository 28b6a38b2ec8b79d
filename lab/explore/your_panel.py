"""The live face of a report: file, columns and model to choose, and what is found."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.explore.faces import Status, text
from lab.explore.live_figure import beside_one_another, live_figure
from lab.explore.upload import Upload
from lab.report import defects, page
from lab.report.findings import findings
from lab.report.measures import K
from lab.report.rows import ENDINGS, Source, source, stem
from lab.report.survey import guess

if TYPE_CHECKING:
    from ipywidgets import HTML

    from lab.explore.your_data import YourData

PREVIEW = 3  # rows shown of a column before it is examined
LISTED = 100  # defects
CHOICES = 30  # texts whose neighbours can be asked for
NO_LABEL = "(no labels)"


class Panel:
    """The live face: widgets, and what happens when one is touched."""

    def __init__(self, explorer: "YourData") -> None:
        import ipywidgets as widgets

        self.explorer, self.status, self._filling = explorer, Status(), False
        wide = {"style": {"description_width": "5em"}, "layout": {"width": "24em"}}
        self.file = widgets.Text(description="file", continuous_update=False, **wide)
        self.upload = Upload(self.status, self._kept_at, self._opened)
        self.column = widgets.Dropdown(description="texts", **wide)
        self.label = widgets.Dropdown(description="labels", **wide)
        self.model = widgets.Dropdown(options=explorer.names(), description="model", **wide)
        self.k = widgets.IntSlider(K, 1, 20, description="neighbours", continuous_update=False)
        self.query = widgets.Dropdown(description="of the text", layout={"width": "40em"})
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

    def _columns(self, text_column: str | None, label: str | None) -> str:
        """What was chosen in place of a column that the file lacks; empty if it has both."""
        file, said = source(Path(self.file.value)), []
        columns = list(file.columns)
        first = text_column
        if first not in columns:
            first, looks = _texts(file)
            said.append(f"it has no column {text_column!r}; {first!r} was chosen for the texts")
            said += [] if looks else ["it does not look like texts: is there another?"]
        if label not in (NO_LABEL, None, *columns):
            said.append(f"it has no column {label!r}; no labels were chosen")
        self._filling = True  # the preview waits until all is in place
        self.column.options, self.column.value = columns, first
        self.label.options = [NO_LABEL, *columns]
        self.label.value = label if label in columns else NO_LABEL
        self._filling = False
        self._write_preview()
        return f"{file.path.name}: {'; '.join(said)}" if said else ""

    def _open(self) -> None:
        said = ""
        with self.status.during("opening the file"):
            said = self._columns(self.column.value, self.label.value)
        if said:
            self.status.say(said)

    def _kept_at(self, name: str) -> Path:
        """Where an uploaded file is kept: in a folder of its own beside the reports."""
        if not name.endswith(ENDINGS):
            raise ValueError(f"a report reads files ending in {', '.join(ENDINGS)}; got {name}")
        return self.explorer.out / "uploads" / name

    def _opened(self, path: Path) -> None:
        if self.file.value == str(path):  # the same name again: other bytes
            self._open()
        self.file.value = str(path)

    def _preview(self) -> None:
        if not self._filling:
            with self.status.during("reading the first rows"):
                self._write_preview()

    def _write_preview(self) -> None:
        """The first rows of the columns chosen, and the model that will read them."""
        columns = [self.column.value]
        if self.label.value not in (NO_LABEL, self.column.value):
            columns.append(self.label.value)
        rows = source(Path(self.file.value)).rows(columns)
        cells = [[_cut(one.cells, name) for name in columns] for one in islice(rows, PREVIEW)]
        shown = _html(pd.DataFrame(cells, columns=columns))
        label = NO_LABEL if self.label.value == NO_LABEL else f"labels from {self.label.value!r}"
        words = f"texts from {self.column.value!r}, {label}; to be read by {self.model.value}"
        self.shown["preview"].value = f"{shown}<small>{text(words)}</small>"

    def _examine(self) -> None:
        with self.status.during("examining") as move:
            label = None if self.label.value == NO_LABEL else self.label.value
            path = Path(self.file.value)
            self.explorer.examine(path, self.column.value, label, self.model.value, move)
            self._show()

    def _export(self) -> None:
        with self.status.during("writing the page"):
            health = self.explorer.health
            path = page.write(health, self.explorer.out / f"{stem(health.survey.path)}-report")
            self.shown["place"].value = f"written: {text(path)}"

    def _show(self) -> None:
        """Findings, defects, the map and the texts to choose from."""
        health = self.explorer.health
        said = [f"<li><b>{text(one.about)}</b> ({text(one.state)}): {text(one.says)}</li>"
                for one in findings(health)]  # fmt: skip
        said += [f"<li>{text(note)}</li>" for note in health.survey.notes]
        self.shown["found"].value = f"<ul>{''.join(said)}</ul>"
        every = health.survey.defects
        listed = every[["kind", "row", "line", "detail"]].head(LISTED)
        more = f"<p>the first {LISTED} of {len(every):,}:</p>" if len(every) > LISTED else ""
        self.shown["rows"].value = _html(defects.counts(every)) + more + _html(listed)
        drawn = live_figure(self.explorer.frames(), "map")
        self.map.children = [beside_one_another(drawn)]
        texts = health.survey.texts
        self._filling = True  # neighbours are looked up once all is in place
        self.query.options = [
            (" ".join(f"row {texts['row'].iloc[at]}: {texts['text'].iloc[at][:60]}".split()), at)
            for at in range(min(CHOICES, len(texts)))
        ]
        self.query.value, self._filling = 0, False
        self._write_near()

    def _near(self) -> None:
        if not self._filling:
            with self.status.during("looking up neighbours"):
                self._write_near()

    def _write_near(self) -> None:
        """The hubs, and the neighbours of the text chosen, for the k of now."""
        health, k = self.explorer.health, self.k.value
        hubs, near = _html(health.hubs(k)), _html(health.nearest(self.query.value, k))
        self.shown["hubs"].value = f"<b>hubs: among the {k} nearest of the most texts</b>{hubs}"
        self.shown["near"].value = f"<b>nearest to this text</b>{near}"


def _texts(file: Source) -> tuple[str, bool]:
    """The column that looks like texts, or the first; and whether one does."""
    try:
        return guess(file)[0], True
    except ValueError:
        return file.columns[0], False


def _cut(cells: Any, name: str) -> str:
    return defects.excerpt(str((cells or {}).get(name, "")))


def _html(table: pd.DataFrame) -> str:
    """A table for a widget; markup in its cells is shown, not obeyed."""
    with pd.option_context("display.max_colwidth", None):  # which would cut every cell at 50
        html = table.to_html(index=False, escape=True, border=0, float_format="{:.3f}".format)
    return html.replace("<th>", '<th style="text-align:left">')  # beside JupyterLab's own style
