"""The live face of the embedding map: its controls, two maps side by side, a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab import projections
from lab.explore.background import Background
from lab.explore.faces import Status, text
from lab.explore.live_figure import beside_one_another
from lab.explore.map_controls import lengths, of_side
from lab.explore.map_export import EXPORTS
from lab.explore.map_figure import figure_of
from lab.explore.map_points import few_levels
from lab.explore.map_space import Setting
from lab.explore.map_words import legend, listing, of_seeds, title, work
from lab.explore.passes import Progress
from lab.plotting import maps as drawing

if TYPE_CHECKING:
    from lab.explore.embedding_map import EmbeddingMap

LISTED = 20  # chosen points whose neighbours are listed
FOUND = 10  # points that a typed query finds
SEEDS = 5
SUBMIT = {"event": "submit"}  # what a text box tells when Enter is pressed
NOTHING = "no column"


class LiveMap:
    """The widgets of one :class:`lab.explore.embedding_map.EmbeddingMap`.

    Attributes:
        widget: to be displayed.
        figures: the two maps, once there are some.
        chosen: positions of the points that were lassoed, clicked or found.
    """

    def __init__(self, of: "EmbeddingMap") -> None:
        import ipywidgets as w

        self.of, self.chosen = of, np.array([], dtype=int)
        self.figures: list[Any] = []
        self._pair: list[tuple[pd.DataFrame, float]] = []
        self.status, self.computing, a = Status(), Status(), of.stops[0]
        self.background = Background(self.computing)
        self.computing.say("")
        self.computing.widget.layout.margin = "0 1em"
        wide = {"layout": {"width": "20em"}, "style": {"description_width": "6.5em"}}
        self.projection = w.Dropdown(options=list(projections.PROJECTIONS), value=a.projection,
                                     description="projection", **wide)  # fmt: skip
        self.dimensions = w.Dropdown(options=[("plane", 2), ("space", 3)], value=a.dimensions,
                                     description="map in", **wide)  # fmt: skip
        self.sides = [of_side(of.maps.spaces, stop, wide) for stop in [*of.stops, a][:2]]
        self.way = w.FloatSlider(value=0, min=0, max=1, step=0.05, description="from A to B",
                                 readout_format=".0%", **wide)  # fmt: skip
        self.colour = w.Dropdown(options=of.colours, description="colour by", **wide)
        self.shape = w.Dropdown(options=[NOTHING, *of.colours], description="shape by", **wide)
        self.neighbours = w.IntSlider(value=of.maps.neighbours, min=2, max=50,
                                      description="neighbours", continuous_update=False,
                                      **wide)  # fmt: skip
        self.lengths = lengths(of.points, wide)
        self.query = w.Text(placeholder="words, or a text", description="search", **wide)
        self.kind = w.Dropdown(options=["contained in a text", "near in the space of A"],
                               layout={"width": "14em"})  # fmt: skip
        search = w.Button(description="Search", layout={"width": "6em"})
        several = w.Button(description=f"Compare {SEEDS} seeds of A", layout={"width": "16em"})
        self.format = w.Dropdown(options=list(EXPORTS), layout={"width": "14em"})
        export = w.Button(description="Export A", layout={"width": "8em"})
        self.trust, self.notes, self.pointed, self.listing, self.legend = (
            w.HTML() for _ in range(5)
        )
        self.canvas = w.VBox()
        for control in (self.projection, self.dimensions, self.neighbours,
                        *(c for side in self.sides for c in side.values())):  # fmt: skip
            control.observe(self._settled, "value")
        for control in (self.colour, self.shape):
            control.observe(self._recoloured, "value")
        for control in (self.way, *([self.lengths] if self.lengths else [])):
            control.observe(self._moved, "value")
        search.on_click(self.search)
        self.query.on_msg(lambda _, said, __: self.search() if said == SUBMIT else None)
        several.on_click(self.several)
        export.on_click(self.export)
        layers = [list(side.values()) for side in self.sides]
        rows = [
            [w.VBox([self.projection, self.dimensions, self.neighbours]),
             *(w.VBox([w.HTML(f"<b>{name}</b>"), *side])
               for name, side in zip("AB", layers, strict=True)),
             w.VBox([self.colour, self.shape, self.way, *filter(None, [self.lengths])])],
            [self.status.widget, self.computing.widget, several], [self.pointed],
            [self.query, self.kind, search, self.format, export],
        ]  # fmt: skip
        boxes = [w.HBox(row, layout={"flex_flow": "row wrap"}) for row in rows]
        boxes[2:2] = [self.trust, self.legend, self.canvas]
        self.widget = w.VBox([*boxes, self.notes, self.listing])
        self._drawn = self.settings()
        self._settled()

    def setting(self, side: int) -> Setting:
        """What the controls of side A (0) or B (1) say."""
        control = self.sides[side]
        stop = self.of.stops[min(side, len(self.of.stops) - 1)]
        return Setting(
            control["layer"].value, control["pooling"].value, control["repair"].value,
            self.projection.value, self.dimensions.value, stop.seed,
        )  # fmt: skip

    def settings(self) -> list[Setting]:
        """What the controls of both sides say."""
        return [self.setting(0), self.setting(1)]

    def _settled(self, change: Any = None) -> None:
        """A setting was chosen: its maps are drawn, now or once they have been computed."""
        if change is not None and change["owner"] is self.neighbours:
            self.of.maps.neighbours = self.neighbours.value
        wanted = self.settings()
        if doing := work(wanted, self.of.maps):
            self.background.ask(doing, self._compute, lambda _: self._settled())
        else:
            if self.computing.failed:
                self.computing.say("")  # not of these maps
            with self.status.during("map"):
                self._show(wanted)

    def _compute(self, move: Progress) -> None:
        """Compute what the controls say, unless they say something else meanwhile."""
        wanted = self.settings()
        for done, setting in enumerate(wanted):
            if self.settings() == wanted:
                move(done / len(wanted))
                self.of.maps.coordinates(setting)

    def _show(self, wanted: list[Setting]) -> None:
        """Two maps whose coordinates are known: a plane and a space are of different figures."""
        pair = self.of.maps.aligned(wanted)
        new = not self._pair or pair[0][0].shape != self._pair[0][0].shape
        if new:
            self._lassoed = False
            self.figures = [
                figure_of(
                    self.of, places, name, style=self._style, hovered=self._point,
                    clicked=self.choose, lassoed=self._lasso,
                )
                for (places, _), name in zip(pair, ("map_a", "map_b"), strict=True)
            ]  # fmt: skip
        self._pair, self._drawn = pair, wanted
        self._place()
        if new:
            self.canvas.children = [beside_one_another(*self.figures)]

    def _recoloured(self, _: Any = None) -> None:
        """Another column colours or shapes the points."""
        with self.status.during("colours"):
            for figure in self.figures:
                self._style(figure)

    def _style(self, figure: Any) -> None:
        """The chosen colours and shapes; below the map what they leave out.

        Not in one batch: plotly's widget would mix up what it sends for several traces.
        """
        colour, shape = self.colour.value, self.shape.value
        found, notes = self.of.shown([colour])
        symbols = None
        if shape != NOTHING:
            symbols, note = few_levels(self.of.points[shape], drawing.MOST_LEVELS)
            notes = list(dict.fromkeys([*notes, note]))
        drawing.restyle(figure, found[colour], symbols)
        self.legend.value = legend(figure)
        self.notes.value = text("; ".join(filter(None, [self.of.drawn_how, *notes])))

    def _moved(self, change: Any) -> None:
        """The points of the left map go some of the way from A to B; only some lengths are seen."""
        with self.status.during("drawing"):
            self._place(sides=(0,) if change["owner"] is self.way else (0, 1))

    def _place(self, sides: Sequence[int] = (0, 1)) -> None:
        """Coordinates, ranges and titles of the figures; B stands still while A moves."""
        if not self._pair:
            return
        (start, _), (end, left) = self._pair
        share = self.way.value
        span = drawing.ranges([start, end])
        hidden = np.zeros(len(start), dtype=bool)
        if self.lengths:
            low, high = self.lengths.value
            hidden = ~self.of.points["tokens"].between(low, high).to_numpy()
        seen = f"{(~hidden).sum()} of {len(hidden)} points"
        if len(self.of.points) < len(self.of.all):
            seen += f"<br>{text(self.of.drawn_how)}"
        where = f"A, {share:.0%} of the way to B" if share else "A"
        shown = [(start + share * (end - start), where, seen),
                 (end, "B", f"disparity of A and B {left:.2f}")]  # fmt: skip
        for side in sides:
            figure, (places, name, about) = self.figures[side], shown[side]
            with figure.batch_update():
                places = places.copy()
                places.loc[hidden] = np.nan  # still there, so that numbers of points stay theirs
                figure.data[0].update(drawing.places(places))
                axes = figure.layout.scene if "z" in places else figure.layout
                axes.update({f"{axis}axis": {"range": limits} for axis, limits in span.items()})
                figure.layout.title.text = title(name, self._drawn[side], self.of.maps, about)

    def _point(self, rows: list[int]) -> None:
        """What is under the pointer, when there are too many points to send all words."""
        if rows:
            row = self.of.points.iloc[rows[0]]
            self.pointed.value = " · ".join(text(str(row[c])[:120]) for c in
                                            ["text", *self.of.colours])  # fmt: skip

    def _lasso(self, rows: list[int]) -> None:
        self._lassoed = True
        self.choose(rows)

    def choose(self, rows: Any, cosines: Any = None) -> None:
        """These points stand out on both maps and are listed with their neighbours."""
        with self.status.during("neighbours"):
            self.chosen = np.asarray(rows, dtype=int)
            for figure in self.figures:
                drawing.emphasise(figure, self.chosen)
            self.listing.value, a = "", self._drawn[0]
            table = self.of.neighbours_of(self.chosen[:LISTED], a)
            self.listing.value = listing(table, len(self.chosen), a.space, cosines)

    def search(self, _: Any = None) -> None:
        """The points whose text contains the words, or that are nearest to them."""
        found: list[tuple[Any, Any]] = []
        with self.status.during("search"):
            if self.kind.index == 0:
                found.append((self.of.containing(self.query.value), None))
            else:
                count = min(FOUND, len(self.of.points))
                found.append(self.of.near_query(self.query.value, self._drawn[0], count))
        for rows, cosines in found:
            if self._lassoed:  # a lasso hides what was found, and only the browser knows of it
                self._pair = []
                self._show(self._drawn)
            self.choose(rows, cosines)

    def several(self, _: Any = None) -> None:
        """The map A under several seeds: how far each can be trusted, how far they agree."""
        first = self._drawn[0]
        seeds = range(first.seed, first.seed + SEEDS)
        self.background.ask(
            f"maps of {SEEDS} seeds",
            lambda move: self.of.maps.uncertainty(first, seeds, move),
            lambda found: setattr(self.trust, "value", of_seeds(first.label, *found)),
        )

    def export(self, _: Any = None) -> None:
        """Map A, or the way from A to B, as files; the status line says where they are."""
        written: list[str] = []
        with self.status.during("export"):
            found = EXPORTS[self.format.value](self.of, *self._drawn)
            written += [path.as_posix() for path in found]
        if written:
            self.status.say(f"written: {', '.join(written)}")
