"""Remedies against length collapse as data: what to change in a model or to do to its embeddings.

A :class:`Candidate` is one point; a *family* is what is compared with other families, after its
best member was chosen on a development set (:mod:`lab.collapse.remedies`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from lab.collapse.bins import label as length_bin
from lab.models import EmbeddingModel
from lab.models.architecture import depth
from lab.models.extension import Extension
from lab.models.temperature import Temperature
from lab.pooling import POOLINGS as TOKEN_POOLINGS
from lab.repairs import Repair, all_but_the_top, centring, whitening

BASELINE = "baseline"
TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)  # to no change, and a control beyond it
POOLINGS = ("max", "last", "position_weighted_mean", "mean_without_first", "norm_weighted_mean")


@dataclass(frozen=True)
class Candidate:
    """One remedy: settings of the model, then a read-out, then a repair of its embeddings.

    Attributes:
        family: what kind of remedy; ``"baseline"`` for the model as it is.
        label: which one, such as "temperature 0.8"; no two candidates share it.
        settings: what :func:`lab.models.variant` changes, ``{"temperature": 0.8}``.
        pooling: a name in ``lab.pooling.POOLINGS``.
        layer: the hidden state, negative from the end.
        repair: an unfitted repair of :mod:`lab.repairs`, or none.
        edges: length bins in tokens, of which each gets a repair of its own; None: one for all.
    """

    family: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "mean"
    layer: int = -1
    repair: Repair | None = None
    edges: tuple[float, ...] | None = None

    @property
    def repair_name(self) -> str | None:
        """The repair as the tidy table names it."""
        if self.repair is None:
            return None
        return self.repair.label + (" per length bin" if self.edges else "")


def candidates(
    model: EmbeddingModel,
    *,
    pooling: str = "mean",
    layer: int = -1,
    temperatures: Sequence[float] = TEMPERATURES,
    part_temperatures: Sequence[float] = (0.6, 0.8),
    reference_lengths: Sequence[int] = (32, 64, 128),
    learned: Sequence[float] | None = None,
    repairs: Sequence[Repair] = (
        centring(),
        whitening(shrinkage="ledoit-wolf"),
        all_but_the_top(),
    ),
    edges: Sequence[float] | None = None,
    poolings: Sequence[str] = POOLINGS,
    windows: Sequence[int] = (128,),
    late_chunking: bool = True,
) -> list[Candidate]:
    """The baseline and every family of remedies; an empty sequence leaves a family out.

    Args:
        model: what the remedies are for; its number of layers and its length are read.
        pooling: of the baseline and of all remedies that are no pooling.
        layer: the hidden state of all candidates.
        temperatures: one for all layers (TempScale, Zhou et al. 2024, arXiv:2410.24200); with 1 in
            it, to do nothing can be chosen; that shares the pass of the baseline.
        part_temperatures: of the first, the middle or the last third of the layers alone.
        reference_lengths: L0 of log-n scaling, tau = log L0 / log n for n > L0 tokens (LongEmbed,
            arXiv:2404.12096); texts of up to L0 tokens stay as they are.
        learned: one temperature per layer, from :mod:`lab.collapse.learning`.
        repairs: unfitted; each is a family.
        edges: length bins in tokens, for centring each with its own mean; they must hold every
            text. None leaves it out.
        poolings: alternatives to ``pooling``, one family.
        windows: tokens of a chunk that the model reads alone, as a text of its own
            (``extension="parallel-windows/L"``).
        late_chunking: whether to have the pooling of that name, chunks after the whole was read.

    Raises:
        ValueError: a temperature or a window that no model takes; thirds of fewer than 3 layers.
        LookupError: an unknown pooling.
    """
    count = depth(model.encoder.model)
    base = Candidate(BASELINE, BASELINE, pooling=pooling, layer=layer)

    def tempered(family: str, label: str, temperature: object) -> Candidate:
        return replace(base, family=family, label=label, settings={"temperature": temperature})

    found = [base]
    found += [tempered("temperature", f"temperature {tau:g}", tau) for tau in _plain(temperatures)]
    for tau in _plain(part_temperatures):
        for name, values in _thirds(count, tau).items():
            label = f"temperature {tau:g} in the {name} third"
            found.append(tempered("temperature per layer", label, values))
    found += [tempered("log-n", f"log-n/{n}", f"log-n/{n}") for n in reference_lengths]
    if learned is not None:
        found.append(tempered("learned temperature", "learned temperature", _plain(learned)))
    for one in repairs:
        found.append(replace(base, family=type(one).__name__, label=one.label, repair=one))
    if edges is not None:
        name = "centring per length bin"
        by_length = replace(base, repair=centring(), edges=tuple(edges))
        found.append(replace(by_length, family=name, label=name))
    for name in poolings:
        found.append(replace(base, family="pooling", label=name, pooling=name))
    if late_chunking:
        name = "late chunking"
        found.append(replace(base, family=name, label=name, pooling="late_chunking"))
    for length in windows:
        name = f"parallel-windows/{length}"
        settings = {"extension": name, "max_length": model.encoder.max_length}
        found.append(replace(base, family="chunk and average", label=name, settings=settings))
    for candidate in found:
        TOKEN_POOLINGS[candidate.pooling]
        Temperature.parse(candidate.settings.get("temperature"), count)
        Extension.parse(candidate.settings.get("extension"))
    return found


def _plain(numbers: Sequence[float]) -> list[float]:
    """Numbers of Python, where those of numpy were given."""
    return np.asarray(numbers).tolist()


def _thirds(layer_count: int, temperature: float) -> dict[str, list[float]]:
    """One temperature per layer, 1 but for a third of the layers.

    Raises:
        ValueError: fewer than three layers.
    """
    if layer_count < 3:
        raise ValueError(
            f"a model of {layer_count} layers has no three parts; give part_temperatures=()"
        )
    parts = np.array_split(np.arange(layer_count), 3)
    return {
        name: [temperature if index in part else 1.0 for index in range(layer_count)]
        for name, part in zip(("first", "middle", "last"), parts, strict=True)
    }


# --- a repair per length bin -------------------------------------------------------------------


@dataclass(frozen=True)
class ByLength:
    """Fitted repairs, one per length bin; the bins are those of :mod:`lab.collapse.bins`."""

    edges: tuple[float, ...]
    repairs: Mapping[str, Repair]

    def transform(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The rows (n, d), each repaired as its length (n,) in tokens asks for.

        Raises:
            ValueError: a length outside of all bins (which row).
        """
        bins = _bins(lengths, self.edges)
        width = next(iter(self.repairs.values())).n_features_out_
        repaired = np.empty((len(rows), width), rows.dtype)
        for name in bins.unique():
            repaired[bins == name] = self.repairs[name].transform(rows[bins == name])
        return repaired


def fit_by_length(
    repair: Repair,
    rows: np.ndarray,
    lengths: np.ndarray,
    edges: Sequence[float],
    *,
    split: str,
    least: int,
) -> ByLength:
    """The repair fitted in every length bin by itself; length-bin centring if it is ``centring``.

    Bin means, covariances, ... are those of the bin alone, so a shift between lengths goes. So does
    what differs in topic between short and long texts.

    Args:
        repair: unfitted, of :mod:`lab.repairs`.
        rows: (n, d) embeddings to fit on.
        lengths: (n,) of their texts in tokens.
        edges: of the bins.
        split: of the texts: "train" or "dev".
        least: texts that a bin must have.

    Raises:
        ValueError: bins with too few texts, by name and count; a length outside of all bins; what
            the repair refuses, such as the test split.
    """
    bins = _bins(lengths, edges)
    counts = {name: int((bins == name).sum()) for name in bins.categories}
    few = {name: count for name, count in counts.items() if count < least}
    if few:
        listed = ", ".join(f"{name} has {count}" for name, count in few.items())
        raise ValueError(
            f"too few texts to fit {repair.label} in {len(few)} of {len(counts)} length bins, "
            f"{least} or more wanted: {listed}; fit on more texts or choose other edges"
        )
    fitted = {name: clone(repair).fit(rows[bins == name], split=split) for name in counts}
    return ByLength(tuple(edges), fitted)


def _bins(lengths: np.ndarray, edges: Sequence[float]) -> pd.Categorical:
    """The bin of each length, none of them outside."""
    bins = length_bin(lengths, edges)
    outside = np.flatnonzero(bins.isna())
    if len(outside):
        raise ValueError(
            f"text {outside[0]} has {lengths[outside[0]]} tokens and lies in none of the length "
            f"bins {', '.join(bins.categories)} ({len(outside)} such); widen the edges"
        )
    return bins
