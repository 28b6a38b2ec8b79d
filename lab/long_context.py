"""Whether a model finds one sentence in a long text, against what cutting the text explains.

Accuracy at 1 with exact binomial intervals, by length and by where the sentence stands, beside two
baselines of a window: the law window / length + chance, and a bag of words that follows it.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab.probes import checked
from lab.stats import Score
from lab.stats.weighted import mean

if TYPE_CHECKING:
    from lab.data import Dataset

METRIC = "accuracy_at_1"
TIE = 1e-9  # cosines that differ by less are the same: rounding in double precision


def truncation_accuracy(window: int, length: int, candidates: int) -> float:
    """Accuracy at 1 of a model that reads the first ``window`` of ``length`` tokens: a probability.

    window / length + 1 / candidates, at most 1: the sentence lies in the window, or the model
    guesses (Zhu et al. 2024, arXiv:2404.12096; its exact form, share + (1 - share) / candidates, is
    below by share / candidates). Units are those of both arguments. The generated sets are named
    by tokens at 0.75 words each; a tokenizer that makes fewer of a text sees more of it, so give
    the length it counts.

    Raises:
        ValueError: an argument below 1.
    """
    if min(window, length, candidates) < 1:
        raise ValueError(
            "window, length and candidates must be 1 or more; got "
            f"window={window}, length={length}, candidates={candidates}"
        )
    return min(1.0, window / length + 1 / candidates)


def bag_of_words(texts: list[str], window: int) -> np.ndarray:
    """TF-IDF vectors (n, vocabulary) of the first ``window`` words of each text, float32.

    A truncating encoder that finds every key in its window and none behind it, so on the generated
    sets it scores what :func:`truncation_accuracy` says. A word counts once a text, however often
    it occurs; its weight (inverse document frequency) is that of these texts.

    Raises:
        ValueError: a window below 1, or a text without a word of two characters in its window.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if window < 1:
        raise ValueError(f"a window is 1 word or more; got {window}")
    read = [" ".join(text.split()[:window]) for text in texts]
    vectors = TfidfVectorizer(binary=True, dtype=np.float32).fit_transform(read)
    empty = np.flatnonzero(vectors.getnnz(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"text {empty[0]} has no word of two characters in its first {window}: "
            f"{texts[empty[0]][:40]!r}"
        )
    return vectors.toarray()


def accuracy(dataset: "Dataset", embeddings: np.ndarray) -> Score:
    """The share of queries to which a relevant document is closest by cosine; unit: a query.

    With relevance 0 or 1 this is nDCG@1, mteb's main score of the synthetic tasks. A tie is a miss:
    a relevant document has to be closer than every other, so equal embeddings score 0, not chance.

    Raises:
        ValueError: not a retrieval set; a vector that is missing, not finite or zero; a query
            without a relevant document.
    """
    queries, documents = dataset.queries, dataset.documents
    if queries is None or documents is None:
        raise ValueError(f"{dataset.name}: accuracy at 1 needs queries and documents; it has none")
    vectors = checked(dataset, embeddings, cosine=True).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors[queries] @ vectors[documents].T
    judged = dataset.frame[dataset.frame["relevance"] > 0]
    relevant = pd.crosstab(judged["query"], judged["document"])
    relevant = relevant.reindex(index=queries, columns=documents, fill_value=0).to_numpy() > 0
    alone = np.flatnonzero(~relevant.any(axis=1))
    if len(alone):
        text = dataset.texts[queries[alone[0]]]
        raise ValueError(f"{dataset.name}: no document is relevant to the query {text[:60]!r}")
    right = np.where(relevant, cosines, -np.inf).max(axis=1)
    wrong = np.where(relevant, -np.inf, cosines).max(axis=1)
    units = (right > wrong + TIE).astype(float)
    return Score("retrieval", METRIC, units[:, None], mean)


def exact_interval(score: Score, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of an accuracy: its coverage is at least ``level`` for every n.

    Unlike a bootstrap it has a width when all units are hits or all are misses.

    Raises:
        ValueError: units other than 0 and 1.
    """
    from scipy.stats import binomtest

    if score.units.shape[1] != 1 or not np.isin(score.units, (0, 1)).all():
        raise ValueError(f"an exact interval needs hits and misses (1 and 0), not {score.metric}")
    found = binomtest(int(score.units.sum()), score.n).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def by_position(
    score: Score, positions: np.ndarray, *, length: int, bins: int
) -> list[dict[str, object]]:
    """One row per filled bin of positions, for ``lab.results.row``: a column of the heat map.

    Columns: length, position (the middle of one of ``bins`` equal parts of 0..1), probe, metric,
    value, low, high (exact interval) and n. A part in which no key stands has no row.

    Args:
        score: of :func:`accuracy`.
        positions: (queries,) where the key of each query stands, of
            ``lab.data.synthetic.key_position``.
        length: of the texts, in tokens.
        bins: how many parts.

    Raises:
        ValueError: not one position per query, one outside 0..1, no bin, or no hits and misses.
    """
    if positions.shape != (score.n,):
        raise ValueError(
            f"one position for each of {score.n} queries wanted, ({score.n},); got "
            f"{positions.shape}"
        )
    if bins < 1 or not ((positions >= 0) & (positions <= 1)).all():
        raise ValueError(
            f"positions from 0 to 1 in 1 bin or more wanted; got bins={bins} and positions from "
            f"{positions.min()} to {positions.max()}"
        )
    placed = np.minimum((positions * bins).astype(int), bins - 1)
    rows: list[dict[str, object]] = []
    for place in np.unique(placed).tolist():
        part = Score(score.probe, score.metric, score.units[placed == place], score.statistic)
        low, high = exact_interval(part)
        where = {"length": length, "position": (place + 0.5) / bins}
        measured = {"probe": part.probe, "metric": part.metric, "value": part.value}
        rows.append(where | measured | {"low": low, "high": high, "n": part.n})
    return rows
