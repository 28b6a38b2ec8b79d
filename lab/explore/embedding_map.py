"""The embedding map: texts as points, one map per setting, and how far each can be trusted."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab.explore.map_points import draw, few_levels, nearest, unit
from lab.explore.map_space import Maps, Setting, Spaces
from lab.plotting import maps as drawing
from lab.registry import unknown

if TYPE_CHECKING:
    from ipywidgets import Widget
    from plotly.graph_objects import Figure

    from lab.models import EmbeddingModel

TEXT = "text"
MOST = 30_000  # points that a browser moves within about half a second


class EmbeddingMap:
    """An explorer of texts as points: two settings side by side, points moving between them.

    Args:
        points: one row per text: its ``text``, ``tokens`` if a slider over lengths is wanted, and
            columns to colour and shape by.
        spaces: the embeddings of these texts by layer and pooling, as ``read_out`` returns them.
        stops: the settings of :meth:`frames`, in their order; the first two are shown live first.
            Default: the last layer, then the first, of the first pooling.
        model: what embeds a typed query; without one, only words are searched for.
        colours: columns to colour and shape by; default all but ``text``.
        most: points that are drawn; more are sampled, and neighbours are those among all of them.
        by: the column by whose values the sample is stratified.
        seed: of that sample.
        neighbours: k of trustworthiness and of agreement between seeds.
        folder: where exports go.

    Raises:
        LookupError: a column that is not there.
        ValueError: no points, other embeddings than points, fewer than two stops.
    """

    def __init__(
        self,
        points: pd.DataFrame,
        spaces: Spaces,
        *,
        stops: Sequence[Setting] = (),
        model: "EmbeddingModel | None" = None,
        colours: Sequence[str] = (),
        most: int = MOST,
        by: str | None = None,
        seed: int = 0,
        neighbours: int = 10,
        folder: str | Path = ".",
    ) -> None:
        points = points.reset_index(drop=True)
        self.colours = list(colours) or [name for name in points.columns if name != TEXT]
        for column in (TEXT, *self.colours):
            if column not in points.columns:
                raise LookupError(unknown("column", column, map(str, points.columns)))
        if not self.colours:
            raise ValueError(f"a map needs a column to colour by beside {TEXT!r}")
        first, last = (spaces[layer, spaces.poolings[0]] for layer in
                       (spaces.layers[0], spaces.layers[-1]))  # fmt: skip
        if not len(first) == len(last) == len(points):
            raise ValueError(f"{len(last)} embeddings for {len(points)} points")
        drawn, self.drawn_how = draw(points, most, by, seed)
        self.all, self.points = points, points.iloc[drawn].reset_index(drop=True)
        self.maps, self.model, self.folder = Maps(spaces, drawn, neighbours), model, Path(folder)
        self.stops = list(stops) or [
            Setting(layer, spaces.poolings[0], seed=seed)
            for layer in dict.fromkeys([spaces.layers[-1], spaces.layers[0]])
        ]
        self._units = lru_cache(maxsize=2)(lambda setting: unit(self.maps.repaired(setting)[1]))

    def live(self) -> "Widget":
        """Controls, two maps side by side, and the table of the chosen points."""
        from lab.explore.map_live import LiveMap

        return LiveMap(self).widget

    def frames(self) -> "Figure":
        """The maps of all stops, each turned onto the one before, with a slider between them."""
        return drawing.redraw(self.table())

    def table(self, stops: Sequence[Setting] = ()) -> pd.DataFrame:
        """One row per point and stop: setting, row, text, columns as they are shown, x, y (z).

        Enough for :func:`lab.plotting.maps.redraw`, also from the CSV beside a saved figure.
        """
        stops = stops or self.stops
        shown, _ = self.shown(self.colours)
        names = shown.select_dtypes("category").columns
        shown = shown.astype(dict.fromkeys(names, object))
        parts = [
            pd.concat([shown, places.reset_index(drop=True)], axis=1).assign(setting=stop.label)
            for stop, (places, _) in zip(stops, self.maps.aligned(stops), strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def uncertainty(self) -> pd.DataFrame:
        """Trustworthiness and continuity of every stop, with interval and disparity, one row each.

        The disparity is that to the stop before it.
        """
        parts = [
            self.maps.faithfulness(stop).assign(setting=stop.label, disparity=left)
            for stop, (_, left) in zip(self.stops, self.maps.aligned(self.stops), strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def shown(self, columns: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
        """The drawn points with columns as colours take them, and what was left out, in words.

        Numbers stay numbers; of names the most frequent stay, the rest is called "other".
        """
        found, notes = self.points[[TEXT]].assign(row=self.maps.drawn), []
        for column in columns:
            values = self.points[column]
            number = pd.api.types.is_numeric_dtype(values) and not values.isna().any()
            if not number or pd.api.types.is_bool_dtype(values):
                values, note = few_levels(values, drawing.MOST_LEVELS)
                notes += [note] if note else []
            found[column] = values
        return found, notes

    def exported(self, setting: Setting) -> pd.DataFrame:
        """The drawn points with all their columns, as they are, their row and coordinates."""
        places = self.maps.coordinates(setting).reset_index(drop=True)
        return pd.concat([self.points.assign(row=self.maps.drawn), places], axis=1)

    def containing(self, words: str) -> np.ndarray:
        """Positions on the map of the texts that contain the words, in any case.

        Raises:
            ValueError: no words, or no such text.
        """
        if not words.strip():
            raise ValueError("type some words to search for")
        found = self.points[TEXT].astype(str).str.contains(words.strip(), case=False, regex=False)
        if not found.any():
            raise ValueError(f"none of the {len(found)} texts on the map contains {words!r}")
        return np.flatnonzero(found)

    def near_query(self, query: str, setting: Setting, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions on the map and cosines of the k texts there nearest to a typed one.

        Raises:
            ValueError: no query, no model, fewer than k points.
        """
        from lab.readout import read_out

        if not query.strip():
            raise ValueError("type a text to look for its neighbours")
        if self.model is None:
            raise ValueError("only a model can embed a query: EmbeddingMap(..., model=model)")
        where = setting.layer, setting.pooling
        found = read_out(self.model, [query], poolings=[where[1]], layers=[where[0]])[where]
        fitted, _ = self.maps.repaired(setting)
        if fitted is not None:
            found = np.asarray(fitted.transform(found), dtype=found.dtype)
        rows, cosines = nearest(self._units(setting)[self.maps.drawn], unit(found), k)
        return rows[0], cosines[0]

    def neighbours_of(
        self, chosen: Sequence[int] | np.ndarray, setting: Setting, k: int = 5
    ) -> pd.DataFrame:
        """One row per chosen point on the map and neighbour of it: rank, cosine, both texts.

        Neighbours are the exact nearest by cosine in the whole space, also among points that are
        not drawn.

        Raises:
            ValueError: nothing chosen, or no k other points.
        """
        if not len(chosen):
            raise ValueError(
                "no point was chosen: draw a lasso around some, or search for a word in them"
            )
        rows = self.maps.drawn[np.asarray(chosen, dtype=int)]
        units = self._units(setting)
        near, cosines = nearest(units, units[rows], min(k, len(units) - 1), itself=rows)
        texts = self.all[TEXT].astype(str).to_numpy()
        m, k = near.shape
        return pd.DataFrame({
            "point": np.repeat(chosen, k), "row": np.repeat(rows, k),
            "text": np.repeat(texts[rows], k), "rank": np.tile(np.arange(1, k + 1), m),
            "neighbour": near.ravel(), "cosine": cosines.ravel(),
            "neighbour_text": texts[near.ravel()],
        })  # fmt: skip


def seeds(setting: Setting, count: int) -> list[Setting]:
    """The same setting under ``count`` seeds, its own first: stops that show UMAP's chance."""
    return [replace(setting, seed=setting.seed + step) for step in range(count)]
