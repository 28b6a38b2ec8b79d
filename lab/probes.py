"""What frozen embeddings are good for: one probe per kind of data set, each returning a Score.

Protocols and main scores are mteb's (2.26; equal on the same vectors, see the tests), as is the
arithmetic: the embeddings' own type, float32 at least. ``embeddings[i]`` is the vector of
``dataset.texts[i]``; ``seed`` is mteb's task seed (42 there), idle where nothing is drawn.
"""

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lab.registry import Registry
from lab.stats import Score
from lab.stats.weighted import average_precision, mean, spearman, v_measure

if TYPE_CHECKING:
    from lab.data import Dataset

Probe = Callable[..., Score]
PROBES: Registry[Probe] = Registry("probe")

# What the units of each probe are scored by: units -> Score. So that stored units can be read back.
SCORES: dict[str, Callable[..., Score]] = {
    "sts": partial(Score, "sts", "cosine_spearman", statistic=spearman),
    "pair_classification": partial(
        Score, "pair_classification", "max_ap", statistic=average_precision
    ),
    "classification": partial(Score, "classification", "accuracy", statistic=mean),
    "clustering": partial(
        Score, "clustering", "v_measure", statistic=v_measure, swappable=False, recentred=True
    ),
    "retrieval": partial(Score, "retrieval", "ndcg_at_10", statistic=mean),
}
EXPERIMENTS = 10  # mteb's n_experiments and n_clusters
SAMPLES_PER_LABEL = 8
CLUSTERING_SAMPLE = 16_384
DEPTH = 10


@PROBES
def sts(dataset: "Dataset", embeddings: np.ndarray, *, seed: int) -> Score:
    """Spearman's correlation of the cosine of each pair with its gold score; unit: a pair.

    Units hold the rank of the cosine within this setting, so that two settings can be swapped.

    Raises:
        ValueError: a vector that is missing, not finite or zero; cosines or gold all equal.
    """
    from scipy.stats import rankdata
    from sklearn.metrics.pairwise import paired_cosine_distances

    vectors = checked(dataset, embeddings, cosine=True)
    first, second, gold = (dataset.frame[name].to_numpy() for name in ("first", "second", "score"))
    cosine = 1 - paired_cosine_distances(vectors[first], vectors[second])
    for what, values in (("cosine", cosine), ("gold score", gold)):
        if np.ptp(values) == 0:
            raise ValueError(
                f"{dataset.name}: the {what} of all {len(gold)} pairs is {values[0]}; Spearman's "
                "correlation is undefined: the embeddings have collapsed, or n is too small"
            )
    units = np.column_stack([rankdata(cosine), np.asarray(gold, dtype=float)])
    return SCORES["sts"](units=units)


@PROBES
def pair_classification(dataset: "Dataset", embeddings: np.ndarray, *, seed: int) -> Score:
    """Average precision of telling pairs apart, best of 4 similarities; unit: a pair.

    mteb's ``max_ap``: the largest over cosine, dot product, Manhattan and Euclidean (there also the
    model's own similarity, which for a SentenceTransformer is one of these). Units hold ranks.

    Raises:
        ValueError: a vector that is missing, not finite or zero; all labels equal.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import pairwise

    vectors = checked(dataset, embeddings, cosine=True)
    first, second = (vectors[dataset.frame[name].to_numpy()] for name in ("first", "second"))
    label = dataset.frame["label"].to_numpy().astype(float)
    if np.ptp(label) == 0:
        raise ValueError(f"{dataset.name}: all {len(label)} labels are {bool(label[0])}; need both")
    similarities = [
        1 - pairwise.paired_cosine_distances(first, second),
        np.array([np.dot(a, b) for a, b in zip(first, second, strict=True)]),
        -pairwise.paired_manhattan_distances(first, second),
        -pairwise.paired_euclidean_distances(first, second),
    ]
    units = np.column_stack([*map(rankdata, similarities), label])
    return SCORES["pair_classification"](units=units)


@PROBES
def classification(dataset: "Dataset", embeddings: np.ndarray, *, seed: int) -> Score:
    """Accuracy of logistic regression on 8 texts a label, mean of 10 draws; unit: a test text.

    A unit is the share of the ten classifiers that got the text right, so intervals are over test
    texts with the ten training draws held fixed. As in mteb, fitting stops after 100 iterations,
    converged or not, and each draw shuffles the order that the previous one left.

    Raises:
        ValueError: a vector that is missing or not finite; no test text or fewer than two labels.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    vectors = checked(dataset, embeddings)
    parts = {name: rows for name, rows in dataset.frame.groupby("part", sort=False)}
    if set(parts) != {"train", "test"} or parts["train"]["label"].nunique() < 2:
        raise ValueError(
            f"{dataset.name}: classification needs a train part of two labels or more and a test "
            f"part; got {dataset.frame.groupby('part')['label'].nunique().to_dict()}"
        )
    train, test = parts["train"], parts["test"]
    x_train, x_test = vectors[train["text"].to_numpy()], vectors[test["text"].to_numpy()]
    y_train, y_test = train["label"].to_numpy(), test["label"].to_numpy()
    right = np.zeros(len(test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for chosen in _undersampled(y_train, seed):
            model = LogisticRegression(max_iter=100, random_state=seed)
            right += model.fit(x_train[chosen], y_train[chosen]).predict(x_test) == y_test
    return SCORES["classification"](units=right[:, None] / EXPERIMENTS)


def _undersampled(labels: np.ndarray, seed: int) -> Iterator[list[int]]:
    """Rows of the training set of each experiment, drawn as mteb draws them."""
    order = list(range(len(labels)))
    for _ in range(EXPERIMENTS):
        np.random.RandomState(seed).shuffle(order)  # mteb's generator
        taken: Counter[str] = Counter()
        chosen = []
        for row in order:
            if taken[labels[row]] < SAMPLES_PER_LABEL:
                chosen.append(row)
                taken[labels[row]] += 1
        yield chosen


@PROBES
def clustering(
    dataset: "Dataset", embeddings: np.ndarray, *, seed: int, size: int = CLUSTERING_SAMPLE
) -> Score:
    """V-measure of mini-batch k-means, mean of 10 samples drawn with replacement; unit: a text.

    mteb's fast protocol on every text given: 16384 draws a sample whatever the number of texts (a
    smaller ``size`` is quicker and no longer mteb's number). A unit holds how often each sample
    drew the text and the cluster it fell in. Clusters of two settings have unrelated numbers, so
    units cannot be swapped.

    Raises:
        ValueError: a vector that is missing or not finite; fewer than two labels.
    """
    from sklearn.cluster import MiniBatchKMeans

    rows = dataset.frame["text"].to_numpy()
    vectors = checked(dataset, embeddings)[rows]
    names, label = np.unique(dataset.frame["label"].to_numpy().astype(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{dataset.name}: clustering needs two labels or more; got {list(names)}")
    draw = random.Random(seed)  # mteb's generator
    counts = np.zeros((len(rows), EXPERIMENTS))
    clusters = np.zeros((len(rows), EXPERIMENTS))
    for experiment in range(EXPERIMENTS):
        sample = np.array(draw.choices(range(len(rows)), k=size))
        model = MiniBatchKMeans(len(names), batch_size=512, n_init=1, random_state=seed)
        clusters[sample, experiment] = model.fit_predict(vectors[sample])
        counts[:, experiment] = np.bincount(sample, minlength=len(rows))
    units = np.column_stack([counts, clusters, label])
    return SCORES["clustering"](units=units)


@PROBES
def retrieval(dataset: "Dataset", embeddings: np.ndarray, *, seed: int) -> Score:
    """nDCG@10 of ranking all documents by cosine, by trec_eval itself; unit: a query.

    Exact search. Only documents as close as the tenth are handed to trec_eval, ties included (it
    orders them by identifier). Queries without a relevant document are left out, as in mteb; a
    text that is both query and document may retrieve itself, also as in mteb.

    Raises:
        ValueError: a vector that is missing, not finite or zero; no query with a relevant document.
    """
    import pytrec_eval

    if dataset.queries is None or dataset.documents is None:
        raise ValueError(f"{dataset.name}: retrieval needs queries and documents; it has none")
    vectors = checked(dataset, embeddings, cosine=True)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    relevant: dict[int, dict[str, int]] = defaultdict(dict)
    for query, document, relevance in dataset.frame[["query", "document", "relevance"]].to_numpy():
        relevant[int(query)][str(int(document))] = int(relevance)
    best = {query: max(grades.values()) for query, grades in relevant.items()}
    queries = [int(query) for query in dataset.queries if best.get(int(query), 0) > 0]
    if not queries:
        raise ValueError(f"{dataset.name}: no query of {len(dataset.queries)} has a relevant text")
    run = _search(vectors, np.array(queries), np.asarray(dataset.documents))
    judged = {str(q): relevant[q] for q in queries}
    measured = pytrec_eval.RelevanceEvaluator(judged, {f"ndcg_cut.{DEPTH}"}).evaluate(run)
    units = np.array([[measured[str(q)][f"ndcg_cut_{DEPTH}"]] for q in queries])
    return SCORES["retrieval"](units=units)


def _search(
    vectors: np.ndarray, queries: np.ndarray, documents: np.ndarray, rows: int = 256
) -> dict[str, dict[str, float]]:
    """Per query the documents at least as close as the tenth, with their cosines."""
    corpus = vectors[documents].T
    run = {}
    for at in range(0, len(queries), rows):
        some = queries[at : at + rows]
        cosines = vectors[some] @ corpus
        worst = np.partition(cosines, -min(DEPTH, len(documents)), axis=1)
        kept = cosines >= worst[:, -min(DEPTH, len(documents)), None]
        for query, cosine, keep in zip(some, cosines, kept, strict=True):
            found = zip(documents[keep], cosine[keep], strict=True)
            run[str(query)] = {str(document): float(value) for document, value in found}
    return run


def checked(dataset: "Dataset", embeddings: np.ndarray, *, cosine: bool = False) -> np.ndarray:
    """The embeddings in float32 or wider, once they are known to be usable.

    Raises:
        ValueError: not one row per text; NaN or infinity; a zero vector where cosines are taken.
            The message names the text.
    """
    vectors = np.asarray(embeddings)
    texts = dataset.texts
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ValueError(
            f"{dataset.name}: one vector per text wanted, ({len(texts)}, d); got {vectors.shape}: "
            "embed dataset.texts, in order"
        )
    if vectors.dtype.itemsize < 4 or vectors.dtype.kind != "f":
        vectors = vectors.astype(np.float32)
    problems = [("is not finite", ~np.isfinite(vectors).all(axis=1))]
    if cosine:
        problems.append(("is all zeros, so it has no cosine", ~vectors.any(axis=1)))
    for problem, bad in problems:
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"{dataset.name}: the vector of text {row} of {len(texts)} {problem} "
                f"({int(bad.sum())} such): {texts[row][:40]!r}"
            )
    return vectors
