"""Accuracy at 1 on long texts against closed forms, and the long real sets of the mirror."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binom
from sklearn.metrics import ndcg_score

from lab import data, long_context, results
from lab.data import synthetic
from lab.stats import Score, compare
from lab.stats.weighted import mean

TASKS = {"passkey": synthetic.passkey, "needle": synthetic.needle}


def read(dataset, tokens):
    """The accuracy of the bag of words that reads the first so many nominal tokens."""
    vectors = long_context.bag_of_words(dataset.texts, round(0.75 * tokens))
    return long_context.accuracy(dataset, vectors)


def small(relevance, queries=2, documents=3):
    """A retrieval set of that many texts: queries first, then documents."""
    frame = pd.DataFrame(relevance, columns=["query", "document", "relevance"])
    texts = [f"text {i}" for i in range(queries + documents)]
    return SimpleNamespace(
        name="small",
        texts=texts,
        frame=frame,
        queries=np.arange(queries),
        documents=np.arange(queries, queries + documents),
    )


# the law of truncation ---------------------------------------------------------------------------


def test_the_law_is_that_of_the_specification():
    assert long_context.truncation_accuracy(512, 4096, 100) == pytest.approx(0.135)
    assert long_context.truncation_accuracy(512, 8192, 100) == pytest.approx(0.0725)
    assert long_context.truncation_accuracy(512, 512, 100) == 1
    assert long_context.truncation_accuracy(8192, 512, 100) == 1


def test_the_law_is_above_the_exact_expectation_by_less_than_chance():
    for window, length in ((1, 1000), (128, 512), (500, 512)):
        share = window / length
        exact = share + (1 - share) / 50
        gap = long_context.truncation_accuracy(window, length, 50) - exact
        assert 0 <= gap <= 1 / 50


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize(
    ("window", "length"),
    [(64, 256), (128, 512), (256, 1024), (512, 1024), (512, 4096), (512, 8192)],
)
def test_a_truncating_bag_of_words_scores_what_the_law_says(task, window, length):
    dataset = task(length, seed=length, queries=100)
    low, high = long_context.exact_interval(read(dataset, window))
    assert low <= long_context.truncation_accuracy(window, length, 100) <= high


@pytest.mark.parametrize("length", [256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_law_holds_on_the_shipped_sets(length, split):
    dataset = data.load(f"passkey-{length}", split)
    for share in (2, 4, 8):
        low, high = long_context.exact_interval(read(dataset, length // share), level=0.99)
        assert low <= long_context.truncation_accuracy(length // share, length, 100) <= high


def test_the_law_holds_over_many_seeds_within_a_narrow_interval():
    scores = [read(synthetic.passkey(1024, seed=s, queries=100), 256) for s in range(20)]
    pooled = Score("retrieval", "accuracy_at_1", np.vstack([x.units for x in scores]), mean)
    low, high = long_context.exact_interval(pooled)
    assert high - low < 0.04
    assert low <= long_context.truncation_accuracy(256, 1024, 100) <= high


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("length", [256, 2048, 8192])
def test_a_reader_of_everything_makes_no_mistake(task, length):
    dataset = task(length, seed=3, queries=100)
    assert read(dataset, length).value == read(dataset, 2 * length).value == 1


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_hit_is_a_key_within_the_window(task):
    dataset, window = task(1024, seed=7, queries=100), 300
    hits = read(dataset, window / 0.75).units[:, 0] > 0
    filler = 768 - (20 if task is synthetic.passkey else 15)
    words_before = synthetic.key_position(dataset) * filler
    assert hits[words_before <= window - 20].all()
    assert hits[words_before >= window].mean() < 0.05  # guesses


def test_bag_of_words_sees_only_the_window_and_counts_a_word_once():
    texts = ["one two three", "one two four", "one one two"]
    first, second, third = long_context.bag_of_words(texts, 2)
    assert np.array_equal(first, second)
    assert long_context.bag_of_words(["one one", "one"], 2).tolist() == [[1.0], [1.0]]
    assert third.tolist() != first.tolist()
    assert long_context.bag_of_words(texts, 9).shape == (3, 4)
    assert long_context.bag_of_words(texts, 9).dtype == np.float32


# accuracy ----------------------------------------------------------------------------------------


def test_accuracy_is_ndcg_at_1_and_has_one_unit_a_query(rng):
    rows = [(q, 20 + d, 1) for q in range(20) for d in rng.choice(30, 2, replace=False)]
    dataset = small(rows, queries=20, documents=30)
    vectors = rng.normal(size=(50, 6))
    for query, document, _ in rows:
        vectors[document] += vectors[query]
    score = long_context.accuracy(dataset, vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    gold = np.zeros((20, 30))
    for query, document, _ in rows:
        gold[query, document - 20] = 1
    cosines = unit[:20] @ unit[20:].T
    wanted = [ndcg_score(gold[[q]], cosines[[q]], k=1) for q in range(20)]
    assert score.units[:, 0].tolist() == wanted
    assert 0 < score.value < 1 and (score.probe, score.metric) == ("retrieval", "accuracy_at_1")


def test_accuracy_does_not_depend_on_the_order_or_the_scale_of_vectors(rng):
    dataset = synthetic.passkey(256, seed=1)
    vectors = rng.normal(size=(len(dataset.texts), 8))
    vectors[dataset.frame["document"]] += vectors[dataset.frame["query"]]
    scaled = vectors * rng.uniform(0.1, 10, (len(vectors), 1))
    before, after = (long_context.accuracy(dataset, x) for x in (vectors, scaled))
    assert before.units.tolist() == after.units.tolist() and 0 < before.value < 1
    moved = dataset.frame.sample(frac=1, random_state=0)
    shuffled = SimpleNamespace(**{**vars(dataset), "frame": moved})
    assert long_context.accuracy(shuffled, vectors).units.tolist() == before.units.tolist()


def test_a_tie_is_a_miss():
    dataset = small([(0, 2, 1), (1, 3, 1)])
    tied = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1], [0.3, 0]])  # texts 2 and 4: one direction
    assert long_context.accuracy(dataset, tied).units.tolist() == [[0], [1]]
    assert long_context.accuracy(dataset, np.ones((5, 4), dtype=np.float32) / 3).value == 0
    passkeys = synthetic.passkey(256, seed=1)
    constant = np.full((len(passkeys.texts), 384), 0.1, dtype=np.float32)
    assert long_context.accuracy(passkeys, constant).value == 0


def test_of_several_relevant_documents_one_must_be_closest_and_zero_is_not_relevant():
    dataset = small([(0, 2, 1), (0, 3, 1), (0, 4, 0), (1, 4, 1)])
    vectors = np.array([[1.0, 0], [0, 1], [0, -1], [1, 0.1], [0.5, 0.5]])
    assert long_context.accuracy(dataset, vectors).units.tolist() == [[1], [1]]
    vectors[3] = vectors[2]
    assert long_context.accuracy(dataset, vectors).units.tolist() == [[0], [1]]


def test_two_windows_can_be_compared_on_the_same_queries(rng):
    dataset = synthetic.passkey(1024, seed=11)
    found = compare(read(dataset, 1024), read(dataset, 256), rng=rng)
    assert found.n == 50 and found.low > 0.4 and found.p < 0.01
    assert found.difference == pytest.approx(1 - read(dataset, 256).value)


# intervals ---------------------------------------------------------------------------------------


def hits(k, n):
    return Score("retrieval", "accuracy_at_1", (np.arange(n) < k).astype(float)[:, None], mean)


@pytest.mark.parametrize(("k", "n"), [(0, 50), (7, 50), (50, 50), (1, 3)])
def test_the_interval_is_clopper_and_pearsons(k, n):
    low, high = long_context.exact_interval(hits(k, n), level=0.9)
    assert low == pytest.approx(beta.ppf(0.05, k, n - k + 1) if k else 0)
    assert high == pytest.approx(beta.ppf(0.95, k + 1, n - k) if k < n else 1)


def test_the_interval_covers_at_least_as_often_as_it_says():
    ends = [long_context.exact_interval(hits(k, 20)) for k in range(21)]
    for p in np.linspace(0.01, 0.99, 25):
        inside = [low <= p <= high for low, high in ends]
        assert binom.pmf(np.arange(21), 20, p) @ inside >= 0.95


# positions ---------------------------------------------------------------------------------------


def test_accuracy_by_position_says_where_the_window_ends():
    dataset = synthetic.passkey(2048, seed=5, queries=100)
    score, positions = read(dataset, 1024), synthetic.key_position(dataset)
    rows = long_context.by_position(score, positions, length=2048, bins=4)
    assert [row["position"] for row in rows] == [0.125, 0.375, 0.625, 0.875]
    assert [round(row["value"]) for row in rows] == [1, 1, 0, 0]
    assert sum(row["n"] for row in rows) == 100
    whole = sum(row["n"] * row["value"] for row in rows) / 100
    assert whole == pytest.approx(score.value)


def test_rows_by_position_are_rows_of_the_results_table():
    rows = []
    for length in (256, 512):
        dataset = synthetic.needle(length, seed=1)
        found = read(dataset, 128), synthetic.key_position(dataset)
        for row in long_context.by_position(*found, length=length, bins=3):
            rows.append(results.row(dataset=dataset.name, split=dataset.split, **row))
    table = results.table(rows)
    assert len(table) == 6 and table["length"].tolist() == [256] * 3 + [512] * 3
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_a_position_belongs_to_one_bin_and_an_empty_bin_has_no_row():
    positions = np.array([0.0, 0.49, 0.5, 1.0])
    rows = long_context.by_position(hits(2, 4), positions, length=300, bins=2)
    assert [(row["n"], row["value"]) for row in rows] == [(2, 1.0), (2, 0.0)]
    ends = long_context.by_position(hits(2, 2), np.array([0.0, 1.0]), length=300, bins=10)
    assert [row["position"] for row in ends] == pytest.approx([0.05, 0.95])


# bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(0, 512, 100), (512, 0, 100), (512, 512, 0), (-1, 5, 5)])
def test_a_law_of_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match=f"1 or more; got window={arguments[0]}, length="):
        long_context.truncation_accuracy(*arguments)


def test_a_window_without_words_is_refused():
    with pytest.raises(ValueError, match="a window is 1 word or more; got 0"):
        long_context.bag_of_words(["one two"], 0)
    with pytest.raises(ValueError, match="text 1 has no word of two characters in its first 2: "):
        long_context.bag_of_words(["one two", "? ! three"], 2)


def test_what_cannot_be_scored_is_refused(rng):
    dataset = small([(0, 2, 1)])
    with pytest.raises(ValueError, match="small: no document is relevant to the query 'text 1'"):
        long_context.accuracy(dataset, rng.normal(size=(5, 2)))
    with pytest.raises(ValueError, match=r"one vector per text wanted, \(5, d\); got \(4, 2\)"):
        long_context.accuracy(dataset, rng.normal(size=(4, 2)))
    with pytest.raises(ValueError, match="text 0 of 5 is all zeros"):
        long_context.accuracy(dataset, np.zeros((5, 2)))
    with pytest.raises(ValueError, match="accuracy at 1 needs queries and documents; it has none"):
        long_context.accuracy(data.load("wordnet-similarity", n=3), np.ones((6, 2)))


def test_intervals_are_of_hits_and_misses_and_bins_of_positions():
    graded = Score("retrieval", "ndcg_at_10", np.array([[0.5], [1.0]]), mean)
    with pytest.raises(ValueError, match=r"needs hits and misses \(1 and 0\), not ndcg_at_10"):
        long_context.exact_interval(graded)
    with pytest.raises(ValueError, match=r"one position for each of 4 queries.*got \(3,\)"):
        long_context.by_position(hits(1, 4), np.zeros(3), length=256, bins=2)
    for positions, bins in (([0.5, 1.5], 2), ([0.5, float("nan")], 2), ([0.5, 0.5], 0)):
        with pytest.raises(
            ValueError, match=f"positions from 0 to 1 in 1 bin or more.*bins={bins}"
        ):
            long_context.by_position(hits(1, 2), np.array(positions), length=256, bins=bins)


# long real documents -----------------------------------------------------------------------------

LONG = {  # name, split -> judged queries, documents, median words of a document
    ("peps", "title"): (685, 697, 1812),
    ("peps", "abstract"): (622, 697, 1812),
    ("qmsum", "test"): (238, 232, 8880),
    ("qmsum", "dev"): (225, 232, 8880),
    ("longdoc/manpages", "test"): (587, 634, 370),
}


@pytest.mark.mirror
@pytest.mark.parametrize(("name", "split"), LONG)
def test_long_documents_of_the_mirror_load_whole_and_sampled(mirror, name, split):
    queries, documents, median = LONG[name, split]
    whole = data.load(name, split)
    lengths = [len(whole.texts[i].split()) for i in whole.documents]
    assert (whole.origin, whole.kind) == ("mirror", "retrieval")
    assert (len(whole.queries), len(whole.documents)) == (queries, documents)
    assert np.median(lengths) == pytest.approx(median, abs=1)
    full = data.load(name, split, n=20, seed=1, full_corpus=True)
    assert (len(full.queries), len(full.documents), full.notes) == (20, documents, ())
    cut = data.load(name, split, n=20, seed=1)
    asked = [{x.texts[i] for i in x.queries} for x in (full, cut)]
    assert asked[0] == asked[1] and set(cut.documents) == set(cut.frame["document"])
    assert cut.notes[0].startswith(f"corpus cut to the {len(cut.documents)} of {documents} ")


@pytest.mark.mirror
def test_meetings_need_a_longer_window_and_man_pages_do_not(mirror, rng):
    gained = {}
    for name in ("qmsum", "longdoc/manpages"):
        dataset = data.load(name)
        short, long = (
            long_context.accuracy(dataset, long_context.bag_of_words(dataset.texts, window))
            for window in (384, 30_000)
        )
        gained[name] = compare(long, short, rng=rng)
    assert gained["qmsum"].low > 0 > gained["longdoc/manpages"].high
