"""Data sets by length: a bin is a :class:`lab.data.Dataset`, so every probe works on it unchanged.

Bins of natural texts differ in topic as well as in length; :mod:`lab.collapse.cutting` cuts the
same texts to several lengths instead.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lab.data import Dataset
from lab.registry import unknown

LONGEST_OF = {
    "sts": ["first", "second"],
    "pair_classification": ["first", "second"],
    "classification": ["text"],
    "clustering": ["text"],
    "retrieval": ["document"],
}


def label(lengths: Sequence[int] | np.ndarray, edges: Sequence[float]) -> pd.Categorical:
    """The bin of each length, such as "[0, 100)"; missing where it lies outside of all bins.

    Bins hold their lower edge and not their upper one, the last bin too; it is open if its upper
    edge is infinite: "[400, inf)". The categories are all bins in order, empty ones included.

    Raises:
        TypeError: lengths that are not whole numbers.
        ValueError: fewer than two edges, edges that do not grow or are not whole numbers.
    """
    ends = np.asarray(edges, dtype=float)
    sound = np.isfinite(ends[:-1]).all() and (ends[1:] > ends[:-1]).all()
    if len(ends) < 2 or not sound or (ends != np.rint(ends)).any():
        raise ValueError(
            f"edges are two whole numbers or more that grow, the last may be infinite; got "
            f"{list(edges)}"
        )
    names = [f"[{_edge(a)}, {_edge(b)})" for a, b in pairwise(ends)]
    return pd.cut(_whole(lengths), ends, right=False, labels=names)


def quantile_edges(lengths: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """``count + 1`` edges of bins that hold all lengths, about equally many in each.

    Raises:
        TypeError: lengths that are not whole numbers.
        ValueError: no bin asked for, or too few different lengths for so many.
    """
    values = _whole(lengths)
    if count < 1 or not len(values):
        raise ValueError(f"one bin and one length or more; got {count} bins, {len(values)} lengths")
    edges = np.ceil(np.quantile(values, np.linspace(0, 1, count + 1))).astype(int)
    edges[-1] = values.max() + 1
    if (np.diff(edges) <= 0).any():
        raise ValueError(
            f"{len(np.unique(values))} different lengths do not fill {count} bins evenly: the "
            f"edges would be {edges.tolist()}; ask for fewer"
        )
    return edges.tolist()


def unit_lengths(dataset: Dataset, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """(units,) tokens of each unit that :func:`split_by_length` bins, for ``quantile_edges``.

    Raises:
        LookupError, TypeError, ValueError: as :func:`split_by_length`.
    """
    return _units(dataset, _whole(lengths))["length"].to_numpy()


def split_by_length(
    dataset: Dataset,
    lengths: Sequence[int] | np.ndarray,
    edges: Sequence[float],
    *,
    least: int,
    rng: np.random.Generator,
    most: int | None = None,
) -> dict[str, Dataset]:
    """One data set per bin, shortest first: as many units in each, as many of every class.

    A unit is as long as its longest text: the longer text of a pair, the scored text of
    classification and clustering, the longest relevant document of a query. Of every class each bin
    gets what the bin with the fewest has, drawn by ``rng``; a class that some bin lacks is left out
    of all. Train rows of classification, the corpus of retrieval, ``texts`` and the name stay, so
    that bins differ in what is scored only. ``notes`` say what was left out.

    Args:
        dataset: sts, pair_classification, classification, clustering or retrieval.
        lengths: (texts,) of ``dataset.texts``, by :func:`lab.collapse.cutting.token_lengths`.
        edges: of the bins; see :func:`label`.
        least: units that a bin must have, before and after classes are balanced.
        rng: draws the units.
        most: units a bin has at most, classes in proportion.

    Raises:
        LookupError: a kind of data set that no probe scores.
        TypeError, ValueError: not one length per text, bad edges; bins with too few units, by
            name and count; fewer than two classes that are in all bins; a class that ``most``
            leaves nothing of.
    """
    units = _units(dataset, _whole(lengths))
    units["bin"] = label(units["length"].to_numpy(), edges)
    sizes = units.groupby(["label", "bin"], observed=False).size()
    counts = sizes.unstack("bin")  # noqa: PD010  a pivot would drop empty bins
    quota = _quota(dataset.name, counts, least, most)
    outside = int(units["bin"].isna().sum())
    notes = [f"{outside} of {len(units)} units lie outside of all bins"] * bool(outside)
    lost = [str(name) for name in quota.index[quota == 0]]
    notes += [f"in some bin there is no {', '.join(lost)}: left out of all"] * bool(lost)
    found = {}
    for name in counts.columns:
        drawn = [
            rng.choice(units.index[(units["bin"] == name) & (units["label"] == one)], size, False)
            for one, size in quota[quota > 0].items()
        ]
        note = f"bin {name}: {quota.sum()} of {counts[name].sum()} units"
        kept = np.sort(np.concatenate(drawn))
        found[name] = replace(_only(dataset, kept), notes=(*dataset.notes, note, *notes))
    return found


def _units(dataset: Dataset, lengths: np.ndarray) -> pd.DataFrame:
    """Length and class of every unit, by its row in the frame or, of retrieval, its query."""
    if dataset.kind not in LONGEST_OF:
        raise LookupError(unknown("kind of data set", dataset.kind, LONGEST_OF))
    if len(lengths) != len(dataset.texts):
        raise ValueError(
            f"{dataset.name}: one length per text wanted, ({len(dataset.texts)},); got "
            f"{lengths.shape}: token_lengths(model, dataset.texts)"
        )
    rows = dataset.frame.reset_index(drop=True)
    if dataset.kind == "classification":
        rows = rows[rows["part"] == "test"]
    if dataset.kind == "retrieval":
        rows = rows[(rows["relevance"] > 0) & rows["query"].isin(dataset.queries)]
        rows = rows.set_index("query")
    if rows.empty:
        raise ValueError(f"{dataset.name}: nothing to score: no test text, or no relevant document")
    longest = lengths[rows[LONGEST_OF[dataset.kind]].to_numpy()].max(axis=1)
    classed = dataset.kind not in ("sts", "retrieval")
    labels = rows["label"].to_numpy() if classed else ["unit"] * len(rows)
    table = pd.DataFrame({"length": longest, "label": pd.Categorical(labels)}, rows.index)
    return table.groupby(level=0).agg({"length": "max", "label": "first"})


def _quota(name: str, counts: pd.DataFrame, least: int, most: int | None) -> pd.Series:
    """How many units of each class every bin gets, from counts (class, bin)."""
    if least < 1 or (most is not None and most < least):
        raise ValueError(f"1 <= least <= most units a bin wanted; got {least=}, {most=}")
    totals = counts.sum()
    few = totals[totals < least]
    if len(few):
        listed = ", ".join(f"{one!r} has {count}" for one, count in few.items())
        raise ValueError(
            f"{name}: too few units in {len(few)} of {len(totals)} bins, {least} or more wanted: "
            f"{listed}; choose other edges (quantile_edges), take more data or lower least"
        )
    quota, classes = counts.min(axis=1), min(2, len(counts))
    if quota.sum() < least or (quota > 0).sum() < classes:
        scarce = quota.nsmallest(5).index
        listed = ", ".join(
            f"{one!r} has {quota[one]} in {counts.loc[one].idxmin()!r}" for one in scarce
        )
        raise ValueError(
            f"{name}: with classes balanced {quota.sum()} units of {(quota > 0).sum()} classes are "
            f"left in each bin; {least} or more of {classes} classes wanted. The scarcest: {listed}"
        )
    if most is None or quota.sum() <= most:
        return quota
    exact = quota * most / quota.sum()
    shrunk = np.floor(exact).astype(int)
    shrunk.iloc[np.argsort(shrunk - exact, kind="stable")[: most - shrunk.sum()]] += 1
    gone = [f"{one!r}" for one in quota.index[(quota > 0) & (shrunk == 0)]]
    if gone:
        scarcest = int(quota[quota > 0].min())
        raise ValueError(
            f"{name}: {most=} leaves nothing of {', '.join(gone)}, the scarcest with {scarcest} of "
            f"{quota.sum()} units in each bin; raise most ({-(-quota.sum() // scarcest)} is enough)"
        )
    return shrunk


def _only(dataset: Dataset, kept: np.ndarray) -> Dataset:
    """The data set with these units alone."""
    frame = dataset.frame.reset_index(drop=True)
    if dataset.kind == "retrieval":
        queries = np.asarray(dataset.queries)
        frame = frame[frame["query"].isin(kept)].reset_index(drop=True)
        return replace(dataset, frame=frame, queries=queries[np.isin(queries, kept)], n=len(kept))
    stays = np.isin(frame.index, kept)
    if dataset.kind == "classification":
        scored = set(frame["text"][stays])
        stays |= (frame["part"] == "train").to_numpy()
        repeated = tuple(text for text in dataset.repeated if text in scored)
        dataset = replace(dataset, repeated=repeated)
    return replace(dataset, frame=frame[stays].reset_index(drop=True), n=len(kept))


def _whole(lengths: Any) -> np.ndarray:
    values = np.asarray(lengths)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise TypeError(
            f"lengths are whole numbers of tokens, (n,); got {values.dtype} {values.shape}"
        )
    return values


def _edge(value: float) -> str:
    return str(int(value)) if np.isfinite(value) else "inf"
