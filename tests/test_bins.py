"""Length bins that are data sets, and the same texts cut to several lengths."""

import numpy as np
import pandas as pd
import pytest

from lab import models, spaces
from lab.collapse.bins import label, quantile_edges, split_by_length, unit_lengths
from lab.collapse.cutting import TOLERANCE, cut_documents, cuts, token_lengths
from lab.data import Dataset
from lab.probes import PROBES

EDGES = [0, 10, 20, 30]
BINS = ["[0, 10)", "[10, 20)", "[20, 30)"]
ENGLISH = (
    "The quick brown fox, unbelievably, jumped over 1,234 lazy dogs; antidisestablishmentarianism "
    "isn't easily tokenised by anybody's vocabulary, naïve or otherwise. "
)


def dataset(kind, texts, frame, **more):
    return Dataset(name="some", kind=kind, split="test", texts=texts, frame=pd.DataFrame(frame),
                   origin="test", licence="CC0-1.0", sha256={}, n=None, seed=0, **more)  # fmt: skip


def names(count):
    return [f"text {number}" for number in range(count)]


@pytest.fixture(scope="module")
def llama():
    """One token a byte, and one special token at each end."""
    return models.load("random:llama")


@pytest.fixture
def topics(rng):
    """Texts of 0 to 29 tokens with three classes of unequal size, and ten train rows."""
    lengths = rng.integers(0, 30, 400)
    part = np.where(np.arange(400) < 10, "train", "test")
    frame = {"text": np.arange(400), "label": rng.choice(list("abc"), 400, p=[0.6, 0.3, 0.1])}
    return dataset("classification", names(400), {**frame, "part": part}), lengths


@pytest.fixture
def search(rng):
    """Sixty queries, of which every third has two relevant documents, over a corpus of ninety."""
    queries, documents = np.arange(60), np.arange(60, 150)
    first = rng.choice(documents, 60, replace=False)
    rows = [(query, int(first[query]), 1) for query in queries]
    rows += [(query, int(rng.choice(documents)), 2) for query in queries[::3]]
    rows += [(query, int(rng.choice(documents)), 0) for query in queries]
    frame = pd.DataFrame(rows, columns=["query", "document", "relevance"])
    frame = frame.groupby(["query", "document"], sort=False, as_index=False)["relevance"].max()
    lengths = np.concatenate([rng.integers(100, 200, 60), rng.integers(0, 30, 90)])
    return dataset("retrieval", names(150), frame, queries=queries, documents=documents), lengths


# --- labels ------------------------------------------------------------------------------------


def test_a_bin_holds_its_lower_edge_and_not_its_upper_one():
    found = label([0, 9, 10, 19, 20, 29], EDGES)
    assert list(found) == [BINS[0], BINS[0], BINS[1], BINS[1], BINS[2], BINS[2]]


def test_lengths_outside_of_all_bins_have_no_label():
    found = label([4, 5, 30, 7], [5, 10, 30])
    assert pd.isna(found).tolist() == [True, False, True, False]


def test_the_last_bin_is_open_if_its_edge_is_infinite():
    assert list(label([400, 100_000], [0, 400, np.inf])) == ["[400, inf)", "[400, inf)"]


def test_categories_are_all_bins_in_order_empty_ones_too():
    found = label([25, 5], EDGES)
    assert found.categories.tolist() == BINS and found.ordered


@pytest.mark.parametrize("edges", [[5], [0, 10, 10], [10, 0], [0, 2.5, 5], [0, np.inf, np.inf],
                                   [-np.inf, 0, 1], [0, np.nan]])  # fmt: skip
def test_edges_that_make_no_bins_are_refused(edges):
    with pytest.raises(ValueError, match="edges are two whole numbers or more that grow"):
        label([1, 2], edges)


@pytest.mark.parametrize("lengths", [[1.5, 2.0], [[1, 2]], ["a"]])
def test_lengths_that_are_no_whole_numbers_are_refused(lengths):
    with pytest.raises(TypeError, match="whole numbers of tokens"):
        label(lengths, EDGES)


def test_quantile_edges_hold_all_lengths_about_equally_many_in_each_bin(rng):
    lengths = rng.integers(5, 400, 1000)
    edges = quantile_edges(lengths, 4)
    counts = label(lengths, edges).value_counts()
    assert counts.sum() == 1000
    assert counts.min() > 240 and counts.max() < 260
    assert edges[0] == lengths.min() and edges[-1] == lengths.max() + 1


def test_too_few_different_lengths_for_so_many_bins_are_refused():
    with pytest.raises(ValueError, match="2 different lengths do not fill 3 bins evenly"):
        quantile_edges([4, 4, 4, 4, 5], 3)


# --- splits ------------------------------------------------------------------------------------


def test_every_bin_has_as_many_texts_of_every_class(topics, rng):
    data, lengths = topics
    bins = split_by_length(data, lengths, EDGES, least=20, rng=rng)
    assert list(bins) == BINS
    scored = data.frame[data.frame["part"] == "test"]
    in_bins = pd.crosstab(scored["label"], np.asarray(label(lengths[scored["text"]], EDGES)))
    for name, one in bins.items():
        test = one.frame[one.frame["part"] == "test"]
        assert test["label"].value_counts().to_dict() == in_bins.min(axis=1).to_dict()
        assert set(label(lengths[test["text"]], EDGES)) == {name}
        assert one.n == len(test) == in_bins.min(axis=1).sum()
        assert not test["text"].duplicated().any()


def test_train_rows_texts_and_name_are_the_same_in_every_bin(topics, rng):
    data, lengths = topics
    train = data.frame[data.frame["part"] == "train"].reset_index(drop=True)
    for one in split_by_length(data, lengths, EDGES, least=20, rng=rng).values():
        found = one.frame[one.frame["part"] == "train"].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, train)
        assert (one.name, one.texts, one.kind) == (data.name, data.texts, data.kind)


def test_a_bin_of_any_kind_is_scored_by_its_probe(topics, search, rng):
    embeddings = rng.normal(size=(400, 8))
    pairs = {"first": np.arange(0, 400, 2), "second": np.arange(1, 400, 2)}
    graded = dataset("sts", names(400), {**pairs, "score": rng.random(200)})
    matched = dataset("pair_classification", names(400), {**pairs, "label": rng.random(200) < 0.4})
    sections = dataset("clustering", names(400), topics[0].frame[["text", "label"]])
    for data in (topics[0], search[0], graded, matched, sections):
        lengths = search[1] if data is search[0] else topics[1]
        bins = split_by_length(data, lengths, EDGES, least=5, rng=rng)
        scores = [PROBES[data.kind](one, embeddings[: len(data.texts)], seed=0)
                  for one in bins.values()]  # fmt: skip
        assert len({score.n for score in scores}) == 1
        assert len({score.value for score in scores}) == 3


def test_a_pair_is_as_long_as_its_longer_text(rng):
    data = dataset("sts", names(4), {"first": [0, 2], "second": [1, 3], "score": [1.0, 2.0]})
    lengths = [3, 12, 8, 5]
    assert unit_lengths(data, lengths).tolist() == [12, 8]
    bins = split_by_length(data, lengths, [0, 10, 20], least=1, rng=rng)
    assert [one.frame["score"].tolist() for one in bins.values()] == [[2.0], [1.0]]


def test_labels_of_graded_pairs_are_not_balanced_and_those_of_matched_pairs_are(rng):
    pairs = {"first": np.arange(0, 80, 2), "second": np.arange(1, 80, 2), "score": np.arange(40.0)}
    entails = np.arange(40) % 10 == 0
    lengths = np.repeat(np.where(np.arange(40) < 20, 5, 15), 2)
    graded = dataset("sts", names(80), {**pairs, "label": np.where(lengths[::2] < 9, "x", "y")})
    bins = split_by_length(graded, lengths, [0, 10, 20], least=20, rng=rng)
    assert [len(one.frame) for one in bins.values()] == [20, 20]
    entails[:15] = True
    matched = dataset("pair_classification", names(80), {**pairs, "label": entails})
    bins = split_by_length(matched, lengths, [0, 10, 20], least=5, rng=rng)
    assert [one.frame["label"].sum() for one in bins.values()] == [2, 2]
    assert [(~one.frame["label"]).sum() for one in bins.values()] == [5, 5]


def test_a_query_belongs_to_the_bin_of_its_longest_relevant_document(search, rng):
    data, lengths = search
    relevant = data.frame[data.frame["relevance"] > 0]
    for name, one in split_by_length(data, lengths, EDGES, least=5, rng=rng).items():
        assert len(one.queries) == one.n == one.frame["query"].nunique()
        for query in one.queries:
            longest = lengths[relevant.loc[relevant["query"] == query, "document"]].max()
            assert label([longest], EDGES)[0] == name
            mine = one.frame["query"] == query
            whole = data.frame[data.frame["query"] == query].reset_index(drop=True)
            pd.testing.assert_frame_equal(one.frame[mine].reset_index(drop=True), whole)


def test_the_corpus_stays_whole(search, rng):
    data, lengths = search
    for one in split_by_length(data, lengths, EDGES, least=5, rng=rng).values():
        assert np.array_equal(one.documents, data.documents) and one.texts == data.texts


def test_most_cuts_every_bin_with_its_classes_in_proportion(topics, rng):
    data, lengths = topics
    whole = split_by_length(data, lengths, EDGES, least=20, rng=rng)[BINS[0]]
    share = whole.frame.query("part == 'test'")["label"].value_counts(normalize=True)
    for one in split_by_length(data, lengths, EDGES, least=20, most=41, rng=rng).values():
        counts = one.frame.query("part == 'test'")["label"].value_counts()
        assert one.n == counts.sum() == 41
        assert (np.abs(counts - 41 * share) < 1).all()


def test_a_class_that_most_would_leave_nothing_of_is_refused_by_name(rng):
    labels = ["a"] * 60 + ["b"] * 38 + ["c", "d"]
    data = dataset("clustering", names(200), {"text": np.arange(200), "label": labels * 2})
    lengths = [5] * 100 + [15] * 100
    with pytest.raises(ValueError, match=r"most=20 leaves nothing of 'c', 'd', .* 1 of 100 units "
                       r"in each bin; raise most \(100 is enough\)"):  # fmt: skip
        split_by_length(data, lengths, [0, 10, 20], least=5, most=20, rng=rng)
    for one in split_by_length(data, lengths, [0, 10, 20], least=5, most=100, rng=rng).values():
        assert set(one.frame["label"]) == set("abcd")


def test_the_draw_is_that_of_the_generator(topics):
    data, lengths = topics
    frames = [
        split_by_length(data, lengths, EDGES, least=20, rng=np.random.default_rng(seed))[BINS[0]]
        for seed in (1, 1, 2)
    ]
    first, again, other = (one.frame["text"].tolist() for one in frames)
    assert first == again != other


def test_notes_say_what_was_left_out(topics, rng):
    data, lengths = topics
    bins = split_by_length(data, lengths, [0, 10, 20], least=20, rng=rng)
    outside = (lengths[10:] >= 20).sum()
    for name, one in bins.items():
        assert one.notes[0].startswith(f"bin {name}: {one.n} of ")
        assert one.notes[1] == f"{outside} of 390 units lie outside of all bins"


def test_a_class_that_a_bin_lacks_is_left_out_of_all_and_named(rng):
    labels = [*"aabbc", *"aabb"]
    data = dataset("clustering", names(9), {"text": np.arange(9), "label": labels})
    bins = split_by_length(data, [5] * 5 + [15] * 4, [0, 10, 20], least=2, rng=rng)
    for one in bins.values():
        assert sorted(one.frame["label"]) == ["a", "a", "b", "b"]
        assert one.notes[1] == "in some bin there is no c: left out of all"


def test_texts_in_both_parts_are_those_that_are_still_scored(topics, rng):
    data, lengths = topics
    data = Dataset(**{**data.__dict__, "repeated": tuple(range(10, 60))})
    for one in split_by_length(data, lengths, EDGES, least=20, most=30, rng=rng).values():
        scored = set(one.frame.loc[one.frame["part"] == "test", "text"])
        assert set(one.repeated) == scored & set(range(10, 60))


def test_bins_with_too_few_units_are_named_with_their_counts(topics, rng):
    data, lengths = topics
    lengths = np.where(lengths < 10, 45, lengths)
    lengths[10:13] = [5, 6, 35]
    with pytest.raises(ValueError, match=r"too few units in 2 of 4 bins, 20 or more wanted: "
                       r"'\[0, 10\)' has 2, '\[30, 40\)' has 1; choose other edges"):  # fmt: skip
        split_by_length(data, lengths, [0, 10, 20, 30, 40], least=20, rng=rng)


def test_too_few_units_after_balancing_name_the_scarcest_class_and_its_bin(rng):
    frame = {"text": np.arange(40), "label": ["a"] * 19 + ["b"] + ["a"] + ["b"] * 19}
    data = dataset("clustering", names(40), frame)
    with pytest.raises(ValueError, match=r"balanced 2 units of 2 classes are left in each bin; 10 "
                       r"or more of 2 .* 'a' has 1 in '\[10, 20\)', 'b' has 1 in"):  # fmt: skip
        split_by_length(data, [5] * 20 + [15] * 20, [0, 10, 20], least=10, rng=rng)


def test_one_class_that_is_left_is_no_task(rng):
    frame = {"text": np.arange(6), "label": list("aabaac")}
    data = dataset("clustering", names(6), frame)
    with pytest.raises(ValueError, match=r"2 units of 1 classes .* 1 or more of 2 classes wanted"):
        split_by_length(data, [5] * 3 + [15] * 3, [0, 10, 20], least=1, rng=rng)


def test_lengths_of_other_texts_and_kinds_without_a_probe_are_refused(topics, rng):
    data, lengths = topics
    with pytest.raises(ValueError, match=r"some: one length per text wanted, \(400,\); got \(399,"):
        split_by_length(data, lengths[1:], EDGES, least=1, rng=rng)
    pairs = dataset("pairs", names(2), {"anchor": [0], "positive": [1]})
    with pytest.raises(LookupError, match="no kind of data set named 'pairs'; have classification"):
        split_by_length(pairs, [1, 2], EDGES, least=1, rng=rng)
    with pytest.raises(ValueError, match="1 <= least <= most"):
        split_by_length(data, lengths, EDGES, least=20, most=10, rng=rng)
    train = dataset("classification", names(2), {"text": [0, 1], "label": ["a", "b"],
                                                 "part": ["train", "train"]})  # fmt: skip
    with pytest.raises(ValueError, match="some: nothing to score: no test text"):
        split_by_length(train, [1, 2], EDGES, least=1, rng=rng)


# --- lengths and cuts --------------------------------------------------------------------------


def test_lengths_count_special_tokens_and_template_and_no_cut(llama):
    texts = ["a", "rain", "é", "x" * 1000]
    assert token_lengths(llama, texts).tolist() == [3, 6, 4, 1002]
    asked = models.variant(llama, template="q: {text}!", max_length=20)
    assert token_lengths(asked, texts).tolist() == [7, 10, 8, 1006]


def test_lengths_are_those_that_a_pass_reads(minilm):
    texts = [ENGLISH[:cut] for cut in (3, 40, 90, 200)]
    tokens = [minilm.tokenizer(text)["input_ids"] for text in texts]
    assert token_lengths(minilm, texts).tolist() == [len(ids) for ids in tokens]


@pytest.mark.parametrize("name", ["minilm", "llama"])
def test_cuts_are_beginnings_of_exactly_n_tokens(name, request):
    model = request.getfixturevalue(name)
    texts = [ENGLISH[start:] * 4 for start in range(0, 40, 4)]
    texts = [text.replace("ï", "i") for text in texts]
    wanted = [7, 8, 9, 20, 33, 100]
    found = cuts(model, texts, wanted)
    assert list(found) == wanted
    for n, pieces in found.items():
        assert token_lengths(model, pieces).tolist() == [n] * len(texts)
        assert all(text.startswith(piece) for text, piece in zip(texts, pieces, strict=True))


def test_a_text_of_n_tokens_is_not_cut(minilm):
    assert cuts(minilm, ["rain and snow  "], [4, 5]) == {4: ["rain and"], 5: ["rain and snow  "]}


def test_special_tokens_and_template_count_in_a_cut(llama):
    asked = models.variant(llama, template="query: {text} end")
    found = cuts(asked, ["rain and snow"], [17, 20])
    assert found == {17: ["rain"], 20: ["rain an"]}
    assert token_lengths(asked, found[17] + found[20]).tolist() == [17, 20]
    with pytest.raises(ValueError, match="special tokens, sink and template take 13"):
        cuts(asked, ["rain and snow"], [13])


def test_no_cut_goes_through_a_character_and_none_falls_further_short(llama):
    text = "aé€😀" * 6
    lengths = range(3, 50)
    found = cuts(llama, [text], lengths)
    for n in lengths:
        count = int(token_lengths(llama, found[n])[0])
        assert text.startswith(found[n][0])
        assert n - TOLERANCE <= count <= n


def test_a_text_that_is_too_short_for_a_cut_is_named_with_its_length(llama):
    with pytest.raises(ValueError, match=r"text 1 of 3 has 6 tokens, too few for a cut of 8 "
                       r"\(2 such texts\): 'snow'"):  # fmt: skip
        cuts(llama, ["a rainy day", "snow", "ice"], [5, 8])


@pytest.mark.parametrize(
    ("n", "error", "why"),
    [
        (2, ValueError, "a cut of 2 tokens leaves nothing of text 0: .* take 2"),
        (2.0, TypeError, "the length of a cut is a whole number of tokens; got 2.0"),
        (True, TypeError, "whole number"),
        (300, ValueError, "a cut of 300 tokens is longer than the 256 that the model reads"),
    ],
)
def test_lengths_that_no_cut_can_have_are_refused(llama, n, error, why):
    short = models.variant(llama, max_length=256)
    with pytest.raises(error, match=why):
        cuts(short, ["x" * 500], [n])


def test_a_cut_that_only_blanks_would_be_left_of_is_refused(llama):
    with pytest.raises(ValueError, match=r"text 0 .* cannot be cut to 6 tokens"):
        cuts(llama, ["        rain"], [6])


def test_bad_texts_are_named_by_row(llama):
    with pytest.raises(ValueError, match=r"text 1 \('  '\) is empty or blank"):
        token_lengths(llama, ["a", "  "])
    with pytest.raises(TypeError, match="text 1 is a NoneType"):
        cuts(llama, ["abc", None], [3])


# --- documents ---------------------------------------------------------------------------------


@pytest.fixture
def corpus():
    """Two queries, one of them also a document, and documents of which two begin alike."""
    texts = ["snow in june, a long query", "what is rain", "rain is water", "rain is wet", "ice"]
    frame = {"query": [0, 0, 1, 1, 1], "document": [0, 2, 2, 3, 4], "relevance": [1, 1, 1, 2, 0]}
    return dataset("retrieval", texts, frame, queries=np.array([0, 1]),
                   documents=np.array([0, 2, 3, 4]), notes=("before",))  # fmt: skip


def test_documents_are_cut_and_queries_are_not(llama, corpus):
    found = cut_documents(llama, corpus, 11)
    assert [found.texts[place] for place in found.queries] == corpus.texts[:2]
    assert [found.texts[place] for place in found.documents] == ["snow in j", "rain is w", "ice"]
    assert len(found.texts) == len(set(found.texts)) == 5
    assert found.n == 2


def test_of_documents_that_become_equal_the_highest_judgement_counts(llama, corpus):
    found = cut_documents(llama, corpus, 11)
    judged = {
        (found.texts[query], found.texts[document]): relevance
        for query, document, relevance in found.frame.to_numpy()
    }
    snow, rain = corpus.texts[:2]
    assert judged == {(snow, "snow in j"): 1, (snow, "rain is w"): 1, (rain, "rain is w"): 2,
                      (rain, "ice"): 0}  # fmt: skip
    assert found.notes == (
        "before",
        "3 of 4 documents cut to 11 tokens, others are no longer",
        "1 documents became equal to another",
    )


def test_a_cut_longer_than_every_document_changes_nothing(llama, corpus):
    found = cut_documents(llama, corpus, 100)
    expected = {tuple(corpus.texts[x] for x in row[:2]) for row in corpus.frame.to_numpy()}
    assert {tuple(found.texts[x] for x in row[:2]) for row in found.frame.to_numpy()} == expected
    (space,) = spaces.embed(llama, corpus.texts + found.texts, progress=False)
    scores = [spaces.score(space, one, seed=0).score for one in (corpus, found)]
    np.testing.assert_allclose(scores[0].units, scores[1].units)


def test_only_retrieval_has_documents_to_cut(llama, topics):
    with pytest.raises(ValueError, match="some is classification; only retrieval has documents"):
        cut_documents(llama, topics[0], 20)
