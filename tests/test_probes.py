"""Probes: equal to mteb on the same vectors, statistics equal to scipy's and sklearn's."""

import re
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, ndcg_score, v_measure_score

from lab import probes, stats
from lab.probes import PROBES
from lab.stats.weighted import average_precision, mean, spearman, v_measure

SEED = 42  # mteb's
SIZE = 1024  # of a clustering sample: 16 times quicker than mteb's default


@dataclass
class Data:
    """What a probe reads of a Dataset."""

    name: str
    kind: str
    texts: list[str]
    frame: pd.DataFrame
    queries: np.ndarray | None = None
    documents: np.ndarray | None = None
    vectors: np.ndarray = field(default_factory=lambda: np.zeros(0))


def sts(rng, n=120):
    texts = [f"sentence {i}" for i in range(2 * n)]
    vectors = rng.normal(size=(2 * n, 16)).astype(np.float32)
    share = rng.uniform(0, 1, n)[:, None].astype(np.float32)
    vectors[n:] = share * vectors[:n] + (1 - share) * vectors[n:]
    gold = np.round(5 * share[:, 0] + rng.normal(size=n) / 2, 0).clip(0, 5)  # many ties
    frame = pd.DataFrame({"first": range(n), "second": range(n, 2 * n), "score": gold})
    return Data("pairs", "sts", texts, frame, vectors=vectors)


def pair_classification(rng, n=120):
    data = sts(rng, n)
    frame = data.frame.drop(columns="score").assign(label=data.frame["score"] >= 3)
    vectors = data.vectors * rng.uniform(0.5, 2, (2 * n, 1)).astype(np.float32)
    return Data("duplicates", "pair_classification", data.texts, frame, vectors=vectors)


def labelled(rng, n=300, labels=4):
    label = rng.integers(0, labels, n)
    centres = rng.normal(size=(labels, 12))
    vectors = (centres[label] + 1.5 * rng.normal(size=(n, 12))).astype(np.float32)
    return [f"text {i}" for i in range(n)], np.array([f"class {i}" for i in label]), vectors


def classification(rng):
    texts, label, vectors = labelled(rng)
    part = np.where(np.arange(len(texts)) < 180, "train", "test")
    frame = pd.DataFrame({"text": range(len(texts)), "label": label, "part": part})
    return Data("topics", "classification", texts, frame, vectors=vectors)


def clustering(rng):
    texts, label, vectors = labelled(rng)
    frame = pd.DataFrame({"text": range(len(texts)), "label": label})
    return Data("groups", "clustering", texts, frame, vectors=vectors)


def retrieval(rng, queries=40, documents=200):
    vectors = rng.normal(size=(queries + documents, 16)).astype(np.float32)
    rows = []
    for query in range(queries):
        for grade, document in enumerate(rng.choice(documents, 3, replace=False), 1):
            vectors[queries + document] += 0.4 * grade * vectors[query]
            rows.append((query, queries + document, grade))
    vectors[queries + 1] = vectors[queries]  # two documents that always tie
    texts = [f"passage {i}" for i in range(len(vectors))]
    frame = pd.DataFrame(rows, columns=["query", "document", "relevance"])
    positions = (np.arange(queries), np.arange(queries, queries + documents))
    return Data("search", "retrieval", texts, frame, *positions, vectors=vectors)


MAKERS = {f.__name__: f for f in (sts, pair_classification, classification, clustering, retrieval)}


@cache
def data_of(kind):
    return MAKERS[kind](np.random.default_rng(len(kind)))


@cache
def score_of(kind):
    data = data_of(kind)
    options = {"size": SIZE} if kind == "clustering" else {}
    return PROBES[kind](data, data.vectors, seed=SEED, **options)


# Parity with mteb: its evaluation code, an encoder that looks vectors up.


@pytest.fixture(scope="module")
def mteb_scores():
    import datasets
    from mteb import abstasks

    def split(**columns):
        return datasets.Dataset.from_dict(columns)

    def texts(data, positions):
        return [data.texts[i] for i in positions]

    def in_memory(data):
        frame = data.frame
        if data.kind in ("sts", "pair_classification"):
            pairs = {"sentence1": texts(data, frame["first"])}
            pairs["sentence2"] = texts(data, frame["second"])
            if data.kind == "sts":
                return {"test": split(**pairs, score=list(frame["score"]))}
            return {"test": split(**pairs, labels=[int(x) for x in frame["label"]])}
        if data.kind == "classification":
            return datasets.DatasetDict(
                {
                    part: split(text=texts(data, rows["text"]), label=list(rows["label"]))
                    for part, rows in frame.groupby("part")
                }
            )
        if data.kind == "clustering":
            whole = split(sentences=texts(data, frame["text"]), labels=list(frame["label"]))
            return datasets.DatasetDict({"test": whole})
        judged = {}
        for query, document, grade in frame.itertuples(index=False):
            judged.setdefault(str(query), {})[str(document)] = int(grade)
        sides = {
            side: split(id=[str(i) for i in ids], text=texts(data, ids))
            for side, ids in (("queries", data.queries), ("corpus", data.documents))
        }
        return {"default": {"test": {**sides, "relevant_docs": judged, "top_ranked": None}}}

    found = {}
    for kind, (base, task_type, metric) in TASKS.items():
        data = data_of(kind)
        task = in_memory_task(getattr(abstasks, base), task_type, metric)
        task.dataset, task.data_loaded = in_memory(data), True
        encoder = lookup_encoder(dict(zip(data.texts, data.vectors, strict=True)))
        found[kind] = task.evaluate(encoder, "test", encode_kwargs={})["default"]["main_score"]
    return found


TASKS = {
    "sts": ("AbsTaskSTS", "STS", "cosine_spearman"),
    "pair_classification": ("AbsTaskPairClassification", "PairClassification", "max_ap"),
    "classification": ("AbsTaskClassification", "Classification", "accuracy"),
    "clustering": ("AbsTaskClustering", "Clustering", "v_measure"),
    "retrieval": ("AbsTaskRetrieval", "Retrieval", "ndcg_at_10"),
}


def in_memory_task(base, task_type, metric):
    from mteb.abstasks.task_metadata import TaskMetadata

    metadata = TaskMetadata(
        name="InMemory",
        description="Made by a test.",
        dataset={"path": "none", "revision": "none"},
        type=task_type,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=metric,
    )
    # Clustering embeds 4 % of the texts by default; the probe takes every text it is given.
    clustering = {"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": SIZE}
    return type("InMemory", (base,), {"metadata": metadata, **clustering})()


def lookup_encoder(vectors):
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta

    class Lookup(AbsEncoder):
        def __init__(self):
            self.mteb_model_meta = ModelMeta.create_empty()

        def encode(self, inputs, **_):
            return np.stack([vectors[text] for batch in inputs for text in batch["text"]])

    return Lookup()


@pytest.mark.parametrize("kind", MAKERS)
def test_the_main_score_equals_that_of_mteb(kind, mteb_scores):
    # mteb rounds retrieval scores to five digits; its other scores are full floats.
    tolerance = 5.1e-6 if kind == "retrieval" else 1e-6
    assert score_of(kind).value == pytest.approx(mteb_scores[kind], abs=tolerance)
    assert 0.2 < mteb_scores[kind] < 0.98  # neither chance nor perfect: agreement means something


@pytest.mark.usefixtures("mteb_scores")  # imports mteb, slowly, once
def test_the_defaults_are_those_of_mteb():
    from mteb.abstasks import AbsTaskClassification, AbsTaskClustering

    ours = (probes.EXPERIMENTS, probes.SAMPLES_PER_LABEL, probes.EXPERIMENTS)
    theirs = AbsTaskClassification
    assert ours == (theirs.n_experiments, theirs.samples_per_label, AbsTaskClustering.n_clusters)
    assert theirs.evaluator_model.get_params()["max_iter"] == 100
    assert AbsTaskClustering.max_documents_per_cluster == probes.CLUSTERING_SAMPLE
    assert AbsTaskClustering.k_mean_batch_size == 512


# Weighted statistics: the same as the ordinary ones on repeated units.


def weighted_cases():
    rng = np.random.default_rng(7)
    n = 60
    ties = rng.integers(0, 6, (n, 2)).astype(float)
    smooth = np.column_stack([rng.normal(size=n), rng.integers(0, 2, n)])
    clusters = rng.integers(0, 4, (n, 3))
    tied = np.column_stack([ties[:, 0], clusters[:, -1] > 0]).astype(float)

    def precision(units):
        return average_precision_score(units[:, 1], units[:, 0])

    def by_hand(units):
        return v_measure_score(
            np.repeat(units[:, 2], units[:, 0].astype(int)),
            np.repeat(units[:, 1], units[:, 0].astype(int)),
        )

    return {
        "spearman with ties": (ties, spearman, lambda u: spearmanr(*u.T)[0]),
        "spearman without": (rng.normal(size=(n, 2)), spearman, lambda u: spearmanr(*u.T)[0]),
        "average precision": (smooth, average_precision, precision),
        "average precision with ties": (tied, average_precision, precision),
        "v-measure": (clusters.astype(float), v_measure, by_hand),
        "mean": (ties[:, :1], mean, lambda u: u.mean()),
    }


@pytest.mark.parametrize("case", weighted_cases())
def test_weights_are_repetitions(case):
    units, statistic, oracle = weighted_cases()[case]
    weights = stats.bootstrap_weights(len(units), 20, np.random.default_rng(1))
    repeated = [oracle(np.repeat(units, row.astype(int), axis=0)) for row in weights]
    np.testing.assert_allclose(statistic(units, weights), repeated, atol=1e-12)


@pytest.mark.parametrize("statistic", [spearman, average_precision])
def test_what_a_resample_leaves_undefined_is_nan(statistic):
    units = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]])
    assert np.isnan(statistic(units, np.array([[2.0, 0.0, 0.0]]))).all()


def test_a_thousand_resamples_of_spearman_are_quick():
    import time

    rng = np.random.default_rng(0)
    units = np.column_stack([rng.permutation(1379), rng.integers(0, 26, 1379)]).astype(float)
    weights = stats.bootstrap_weights(1379, 1000, rng)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        spearman(units, weights)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.25  # 0.045 s on two idle cores; looping over scipy takes 0.9 s


# Laws of every probe


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "clustering"])
def test_shuffled_vectors_score_at_chance(kind):
    data = data_of(kind)
    shuffled = np.random.default_rng(5).permutation(data.vectors)
    chance = {"sts": 0, "classification": 0.25, "retrieval": 0.05}
    chance["pair_classification"] = data_of("pair_classification").frame["label"].mean()
    assert PROBES[kind](data, shuffled, seed=SEED).value == pytest.approx(chance[kind], abs=0.2)


@pytest.mark.parametrize("kind", ["sts", "pair_classification", "retrieval"])
def test_rotation_and_common_scale_change_nothing(kind):
    data = data_of(kind)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    vectors = data.vectors.astype(float)
    plain = PROBES[kind](data, vectors, seed=SEED).value
    assert PROBES[kind](data, 7 * vectors @ rotation, seed=SEED).value == pytest.approx(plain)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_unit_is_a_scored_text_pair_or_query(kind):
    data, score = data_of(kind), score_of(kind)
    units = {"classification": 120, "clustering": 300, "retrieval": 40}
    assert score.n == units.get(kind, len(data.frame))
    weights = stats.bootstrap_weights(score.n, 200, np.random.default_rng(0))
    found = stats.interval(score, weights)
    assert found.low < found.value < found.high


def test_more_of_the_same_seed_is_the_same_score_and_another_seed_is_not():
    data = data_of("classification")
    first, again, other = (
        PROBES["classification"](data, data.vectors, seed=seed).value for seed in (1, 1, 2)
    )
    assert first == again != other


def test_ndcg_equals_that_of_sklearn_where_nothing_ties():
    data = data_of("retrieval")
    vectors = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    vectors[41] = -vectors[40]  # the tie of the fixture, undone
    found = PROBES["retrieval"](data, vectors, seed=SEED).units[:, 0]
    grades = np.zeros((40, 240))
    grades[data.frame["query"], data.frame["document"]] = data.frame["relevance"]
    cosines = vectors[:40] @ vectors[40:].T
    sklearn = [ndcg_score([g[40:]], [c], k=10) for g, c in zip(grades, cosines, strict=True)]
    np.testing.assert_allclose(found, sklearn, atol=1e-6)


def test_ties_at_the_tenth_place_are_all_handed_to_trec_eval():
    texts = [f"t{i}" for i in range(31)]
    frame = pd.DataFrame({"query": [0], "document": [30], "relevance": [1]})
    data = Data("ties", "retrieval", texts, frame, np.array([0]), np.arange(1, 31))
    vectors = np.tile([1.0, 0.0], (31, 1))
    # All 30 tie: trec_eval orders by identifier, descending as text: 9, 8, 7, 6, 5, 4, 30, ...
    assert PROBES["retrieval"](data, vectors, seed=0).value == pytest.approx(1 / np.log2(8))


def test_queries_without_a_relevant_document_are_left_out():
    data = data_of("retrieval")
    frame = data.frame.assign(relevance=data.frame["relevance"].where(data.frame["query"] > 4, 0))
    fewer = Data("search", "retrieval", data.texts, frame, data.queries, data.documents)
    assert PROBES["retrieval"](fewer, data.vectors, seed=0).n == 35
    none = Data("search", "retrieval", data.texts, frame[:0], data.queries, data.documents)
    with pytest.raises(ValueError, match="no query of 40 has a relevant text"):
        PROBES["retrieval"](none, data.vectors, seed=0)


# Bad input


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_named_by_its_text(kind, value):
    data = data_of(kind)
    vectors = data.vectors.copy()
    vectors[7, 3] = value
    data = SimpleNamespace(**{**vars(data), "texts": list(data.texts)})
    data.texts[7] = "x" * 60
    with pytest.raises(ValueError, match=f"text 7 of .* is not finite .*'{'x' * 40}'$"):
        PROBES[kind](data, vectors, seed=SEED)


@pytest.mark.parametrize("kind", ["sts", "pair_classification", "retrieval"])
def test_a_zero_vector_has_no_cosine(kind):
    data = data_of(kind)
    vectors = data.vectors.copy()
    vectors[3] = 0
    with pytest.raises(ValueError, match=r"text 3 of .* is all zeros.*" + re.escape(data.texts[3])):
        PROBES[kind](data, vectors, seed=SEED)


@pytest.mark.parametrize("kind", MAKERS)
def test_one_vector_per_text_is_wanted(kind):
    data = data_of(kind)
    with pytest.raises(ValueError, match=rf"one vector per text wanted, \({len(data.texts)}, d\)"):
        PROBES[kind](data, data.vectors[1:], seed=SEED)


def test_collapsed_embeddings_have_no_spearman_correlation():
    data = data_of("sts")
    with pytest.raises(ValueError, match=r"cosine of all 120 pairs is .* undefined"):
        PROBES["sts"](data, np.ones_like(data.vectors), seed=SEED)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pair_classification", "all 120 labels are True"),
        ("clustering", "needs two labels or more"),
        ("classification", "train part of two labels or more"),
    ],
)
def test_a_single_label_is_refused(kind, message):
    data = data_of(kind)
    label = True if kind == "pair_classification" else "only"
    same = Data("same", kind, data.texts, data.frame.assign(label=label))
    with pytest.raises(ValueError, match=message):
        PROBES[kind](same, data.vectors, seed=SEED)


def test_half_precision_is_scored_in_single():
    data = data_of("sts")
    half = data.vectors.astype(np.float16)
    single = PROBES["sts"](data, half.astype(np.float32), seed=0)
    assert PROBES["sts"](data, half, seed=0).value == single.value


def test_an_unknown_kind_says_what_there_is():
    with pytest.raises(LookupError, match="did you mean 'retrieval'"):
        PROBES["retrievel"]
