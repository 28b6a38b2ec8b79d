"""The grid of designs, measured: every (attention, layer or mix, pooling) cell on one data set.

One forward pass a model gives all cells (lab.readout); one draw of bootstrap weights serves all
intervals, so any two cells are paired.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab import readout, results
from lab.data import Dataset
from lab.models import EmbeddingModel, architecture, settings
from lab.pooling import LAYER_MIXES
from lab.probes import PROBES
from lab.stats import Score, bootstrap_weights, compare_all, interval


@dataclass(frozen=True)
class Cell:
    """One design on one data set.

    Attributes:
        settings: what was set, as columns of the tidy table: checkpoint, attention, ..., dataset.
        score: the probe's score, with its units for intervals and paired tests.
        last: the number of the model's last layer, which is "last" in labels.
    """

    settings: Mapping[str, Any]
    score: Score
    last: int

    @property
    def layers(self) -> str:
        """The layer or layer mix as labels name it: "last", "layer 15", "mean_of_all"."""
        mix, layer = self.settings["layer_mix"], self.settings["layer"]
        return mix or ("last" if layer == self.last else f"layer {layer}")

    @property
    def label(self) -> str:
        """The name of the design: its own, or as ``results.setting`` writes reported numbers."""
        named = self.settings.get("design")
        return named or results.setting({**self.settings, "layer_mix": self.layers})


def evaluate(
    model: EmbeddingModel,
    dataset: Dataset,
    *,
    seed: int,
    poolings: Sequence[str] = readout.DEFAULT_POOLINGS,
    layers: Sequence[int] | None = None,
    mixes: Sequence[str] = (),
    only: Set[tuple[str, int | str]] | None = None,
    progress: bool = True,
) -> list[Cell]:
    """Every (layer, pooling) and (mix, pooling) of one model on one data set, from one pass.

    ``layers`` and ``mixes`` name what is scored, ``only`` some (pooling, layer or mix) of those.
    """
    count = architecture.depth(model.encoder.model)
    if layers is not None:
        layers = sorted({model.encoder.layer_index(layer, count) for layer in layers})
    read = None if mixes else layers
    read_outs = readout.read_out(
        model, dataset.texts, poolings=poolings, layers=read, progress=progress
    )
    probe = PROBES[dataset.kind]
    common = {
        **settings(model),
        "repair": None,  # read-outs come before a repair that is attached to the model
        "dataset": dataset.name,
        "split": dataset.split,
        "truncated": int((read_outs.cut > 0).sum()),
        "seed": seed,
    }
    cells = []
    for place in _places(read_outs, poolings, layers, mixes):
        pooling, where = _design(place)
        if only is not None and (pooling, where) not in only:
            continue
        embeddings = (
            read_outs.mix(where, pooling) if isinstance(where, str) else read_outs[where, pooling]
        )
        score = probe(dataset, embeddings, seed=seed)
        cells.append(Cell({**common, **place}, score, read_outs.states - 1))
    return cells


def _places(
    read_outs: readout.ReadOuts,
    poolings: Sequence[str],
    layers: Sequence[int] | None,
    mixes: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Where each cell lies, as columns of the tidy table."""
    for pooling in poolings:
        for index in read_outs.layers if layers is None else layers:
            yield {"layer": index, "layer_mix": None, "pooling": pooling}
        for mix in mixes:
            yield {"layer": None, "layer_mix": mix, "pooling": pooling}


def designs(
    model: EmbeddingModel,
    dataset: Dataset,
    chosen: Sequence[tuple[str, str]],
    *,
    seed: int,
    progress: bool = True,
) -> list[Cell]:
    """Only some designs of one model, as (pooling, layers): ("mean", "last"), ("max", "layer 7").

    Raises:
        LookupError: an unknown pooling or layer mix.
        ValueError: a layer that does not exist.
    """
    count = architecture.depth(model.encoder.model)
    wanted = [(pooling, _place(layers, count)) for pooling, layers in chosen]
    places = [place for _, place in wanted]
    cells = evaluate(
        model,
        dataset,
        seed=seed,
        poolings=list(dict.fromkeys(pooling for pooling, _ in wanted)),
        layers=sorted({place for place in places if isinstance(place, int)}),
        mixes=list(dict.fromkeys(place for place in places if isinstance(place, str))),
        only=set(wanted),
        progress=progress,
    )
    order = {design: number for number, design in enumerate(wanted)}
    return sorted(cells, key=lambda cell: order[_design(cell.settings)])


def _design(settings: Mapping[str, Any]) -> tuple[str, int | str]:
    """The pooling and the layer or mix of a cell."""
    mix = settings["layer_mix"]
    return settings["pooling"], settings["layer"] if mix is None else mix


def _place(layers: str, count: int) -> int | str:
    """A label of layers as a layer number or the name of a mix."""
    if layers == "last":
        return count
    name, _, number = layers.partition(" ")
    if name == "layer" and number.isdigit():
        return int(number)
    LAYER_MIXES[layers]
    return layers


def tabulate(
    cells: Iterable[Cell], *, notebook: str, rng: np.random.Generator, resamples: int = 1000
) -> pd.DataFrame:
    """The tidy table of cells with 95 % bootstrap intervals over texts, pairs or queries.

    Cells of one data set and length bin share one draw of weights.
    """
    weights: dict[tuple[Any, ...], np.ndarray] = {}
    rows = []
    for cell in cells:
        score = cell.score
        key = (*map(cell.settings.get, ("dataset", "split", "bin")), score.n)
        if key not in weights:
            weights[key] = bootstrap_weights(score.n, resamples, rng)
        found = interval(score, weights[key])
        rows.append(
            results.row(
                notebook=notebook,
                probe=score.probe,
                metric=score.metric,
                value=found.value,
                low=found.low,
                high=found.high,
                n=found.n,
                **cell.settings,
            )
        )
    return results.table(rows)


def best(cells: Sequence[Cell]) -> Cell:
    """The cell with the highest score: for choosing on a development split, never on a test."""
    return max(cells, key=lambda cell: cell.score.value)


def matching(cells: Iterable[Cell], **wanted: Any) -> list[Cell]:
    """The cells whose settings, or label or layers, are these."""

    def value(cell: Cell, key: str) -> Any:
        return getattr(cell, key) if key in ("label", "layers") else cell.settings[key]

    return [cell for cell in cells if all(value(cell, key) == wanted[key] for key in wanted)]


def contrast(
    cells: Iterable[Cell],
    baseline: str,
    *,
    notebook: str,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> pd.DataFrame:
    """Each cell against the cell labelled ``baseline`` on the same texts: the comparisons table.

    One family per checkpoint, data set, split and length bin: Holm corrects over its comparisons.

    Raises:
        LookupError: a family has no such baseline.
        ValueError: two cells of a family have one label.
    """
    families: dict[tuple[Any, ...], list[Cell]] = {}
    names = ("checkpoint", "dataset", "split", "bin")
    for cell in cells:
        families.setdefault(tuple(map(cell.settings.get, names)), []).append(cell)
    tables = []
    for key, family in families.items():
        scores = {cell.label: cell.score for cell in family}
        if len(scores) < len(family):
            labels = [cell.label for cell in family]
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"two designs are labelled {twice!r} on {key[1]}; keep one of them")
        found = compare_all(scores, baseline, rng=rng, resamples=resamples)
        context = {"notebook": notebook, **dict(zip(names, key, strict=True))}
        seed = int(family[0].settings["seed"])
        tables.append(results.comparison_table(found, **context, seed=seed))
    return pd.concat(tables, ignore_index=True)
