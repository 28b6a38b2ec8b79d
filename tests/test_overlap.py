"""What was chosen or fitted on must not be judged: found by unit, refused exactly, taken out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lab import data
from lab.collapse.overlap import (
    check_disjoint,
    check_fit_texts,
    check_learned_on,
    judged,
    overlap,
    without,
)
from lab.data import Dataset
from lab.probes import PROBES


def dataset(kind, texts, name="made", documents=None, **columns):
    """A data set whose frame holds texts instead of positions, which come from their order."""
    frame = pd.DataFrame(columns)
    for column in frame.columns.intersection(["first", "second", "text", "query", "document"]):
        frame[column] = [texts.index(text) for text in frame[column]]
    queries = frame["query"].unique() if kind == "retrieval" else None
    places = None if documents is None else np.array([texts.index(text) for text in documents])
    return Dataset(name=name, kind=kind, split="test", texts=list(texts), frame=frame,
                   origin="test", licence="CC0-1.0", sha256={}, n=None, seed=0,
                   queries=queries, documents=places)  # fmt: skip


def sts(*pairs):
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    score = np.arange(len(pairs)) / 5
    return dataset("sts", sorted({*first, *second}), first=first, second=second, score=score)


def scored(train, test):
    part = ["train"] * len(train) + ["test"] * len(test)
    label = ["ab"[place % 2] for place in range(len(part))]
    texts = list(dict.fromkeys(train + test))
    return dataset("classification", texts, text=list(train + test), label=label, part=part)


def search(corpus, **relevant):
    """Queries by what is relevant for them; each document grades 1, and '-' before it means 0."""
    rows = [(query, one) for query, found in relevant.items() for one in found.split()]
    query, document = ([row[side].lstrip("-") for row in rows] for side in (0, 1))
    grade = [int(not one.startswith("-")) for _, one in rows]
    texts = list(dict.fromkeys([*query, *corpus.split()]))
    return dataset("retrieval", texts, documents=corpus.split(),
                   query=query, document=document, relevance=grade)  # fmt: skip


# --- what is judged ----------------------------------------------------------------------------


def test_only_what_a_score_is_made_of_is_judged():
    assert judged(sts("ab", "cd")).to_numpy().tolist() == [["a", "b"], ["c", "d"]]
    assert judged(scored("abc", "de"))["text"].tolist() == ["d", "e"]
    found = judged(search("p r s", q="p -r", v="s"))
    assert found.to_numpy().tolist() == [["q", "p"], ["v", "s"]]


def test_a_kind_that_no_probe_scores_is_refused():
    pairs = dataset("pairs", ["a", "b"])
    with pytest.raises(LookupError, match="no kind of data set named 'pairs'"):
        judged(pairs)
    with pytest.raises(LookupError, match="no kind of data set named 'pairs'"):
        check_disjoint({"dev": pairs}, {"bin": sts("ab")})


def test_of_two_sets_of_pairs_the_pair_counts_in_either_order_and_the_sentence_does_not():
    dev = sts("ab", "cd", "ef")
    assert overlap(dev, sts("ac", "be")).empty
    assert overlap(dev, sts("ba", "fe")).index.tolist() == [0, 2]
    assert overlap(sts("aa"), sts("ab")).empty


def test_between_pairs_and_other_kinds_any_text_counts():
    dev = sts("ab", "cd", "ef")
    assert overlap(dev, scored("ab", "dx")).index.tolist() == [1]
    assert overlap(scored("xy", "dx"), dev).index.tolist() == [2]


def test_texts_that_a_classifier_is_fitted_on_count_where_they_are_judged_and_only_there():
    assert overlap(scored("a", "bc"), scored("bc", "xy")).empty
    assert overlap(scored("a", "bc"), scored("ad", "xy")).empty
    assert overlap(scored("a", "bc"), scored("x", "cb")).index.tolist() == [1, 2]
    assert overlap(scored("ab", "cd"), scored("xy", "be")).index.tolist() == [1]


def test_of_learned_pairs_any_text_counts():
    pairs = dataset("pairs", list("abcd"), anchor=[0, 2], positive=[1, 3])
    assert overlap(pairs, sts("ax")).index.tolist() == [0]
    assert overlap(pairs, search("d e", q="d")).index.tolist() == [1]
    assert overlap(pairs, sts("xy")).empty
    left = without(pairs, sts("ax"))
    assert (left.frame["anchor"].tolist(), left.n) == ([2], 1)
    with pytest.raises(ValueError, match="made: nothing is left"):
        without(pairs, sts("ax", "cy"))


def test_documents_of_one_corpus_may_be_relevant_on_both_sides_and_queries_may_not_be_shared():
    dev = search("r s t", q="r", v="s")
    assert overlap(dev, search("r s t", w="r", x="s")).empty
    assert overlap(dev, search("r s t", v="t")).index.tolist() == [1]


def test_relevant_documents_of_different_corpora_count():
    dev = search("r s", q="r", v="s")
    # r is a document of both and so does not count; as a query of the other set it does
    assert overlap(dev, search("r m", w="r")).empty
    assert overlap(dev, search("m n", r="m")).index.tolist() == [0]
    assert overlap(dev, scored("ab", "sx")).index.tolist() == [1]
    assert overlap(dev, search("m n", w="m -n")).empty


def test_a_query_that_is_a_document_too_counts_as_a_query():
    dev, test = search("q r s", q="r"), search("q r s", q="s")
    assert overlap(dev, test).index.tolist() == [0]


# --- refusing ----------------------------------------------------------------------------------


def test_an_overlap_names_the_sets_the_number_and_the_first():
    test = {"[0, 9)": sts("xy"), "[9, 99)": sts("dc", "fe")}
    with pytest.raises(
        ValueError,
        match=r"2 of 3 rows that the dev set 'mine' has are judged in the test set '\[9, 99\)', "
        r"the first: 'c \| d'; .* take lab\.collapse\.overlap\.without\(it, \*test\)",
    ):
        check_disjoint({"other": sts("ac"), "mine": sts("ab", "cd", "ef")}, test)
    check_disjoint({"other": sts("ac")}, test)


def test_train_rows_of_a_dev_set_may_not_be_judged_and_may_be_train_rows_of_the_test():
    check_disjoint({"dev": scored("ab", "cd")}, {"bin": scored("ab", "ef")})
    dev, test = scored("ab", "cd"), scored("xy", "be")
    with pytest.raises(ValueError, match=r"1 of 4 rows that the dev set 'dev' has .* first: 'b'"):
        check_disjoint({"dev": dev}, {"bin": test})
    check_disjoint({"dev": without(dev, test)}, {"bin": test})


def test_shipped_splits_with_the_same_train_rows_are_disjoint():
    dev, test = (data.load("debian-sections", split) for split in ("dev", "test"))
    check_disjoint({"dev": dev}, {"test": test})
    assert without(dev, test) is dev


def test_what_was_learned_on_may_not_be_judged_either():
    pairs = dataset("pairs", list("abcd"), anchor=[0, 2], positive=[1, 3])
    check_learned_on({"mine": pairs, "other": sts("ab")}, {"bin": sts("xy")})
    with pytest.raises(ValueError, match="1 of 2 rows that the learned set 'mine' has are judged"):
        check_learned_on({"mine": pairs}, {"bin": sts("ax")})
    shared = search("r s", q="r"), search("r s", w="r")
    check_learned_on({"mine": shared[0]}, {"bin": shared[1]})


def test_fit_texts_that_are_judged_are_refused_and_documents_are_not():
    check_fit_texts(["a", "r", "s"], {"bin": search("r s", q="r")})
    with pytest.raises(
        ValueError,
        match="1 of the 3 texts that repairs are fitted on are judged in the test set 'bin', the "
        "first: 'q'; leave them out",
    ):
        check_fit_texts(["a", "q", "s"], {"bin": search("r s", q="r")})
    with pytest.raises(ValueError, match="2 of the 2 texts"):
        check_fit_texts(["b", "a"], {"bin": sts("ab", "cd")})


# --- taking out --------------------------------------------------------------------------------


def test_what_is_left_without_the_overlap_is_disjoint_and_says_what_went():
    dev, test = sts("ab", "cd", "ef"), [sts("ba"), sts("fe")]
    left = without(dev, *test)
    assert judged(left).to_numpy().tolist() == [["c", "d"]]
    assert left.texts == dev.texts
    assert left.notes == ("2 rows are left out, which a test set judges too",)
    assert left.n == 1
    check_disjoint({"dev": left}, dict(enumerate(test)))
    assert without(dev, sts("xy")) is dev


def test_of_retrieval_the_whole_query_goes():
    dev = search("r s t", q="r s", v="s -t", w="t")
    left = without(dev, scored("a", "s"))
    assert [dev.texts[query] for query in left.queries] == ["w"]
    assert [dev.texts[query] for query in left.frame["query"]] == ["w"]
    np.testing.assert_array_equal(left.documents, dev.documents)
    vectors = np.eye(len(dev.texts))
    assert PROBES["retrieval"](left, vectors, seed=0).n == left.n == 1


def test_train_rows_stay_but_those_that_are_judged():
    left = without(scored("abcd", "ef"), scored("ax", "be"))
    assert left.frame["part"].tolist() == ["train"] * 3 + ["test"]
    assert left.n == 1


def test_a_text_that_is_left_in_one_part_alone_is_no_longer_one_of_both():
    data = replace(scored("abc", "bcd"), repeated=(1, 2))
    assert without(data, scored("x", "by")).repeated == (2,)


def test_a_set_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(
        ValueError, match="made: nothing is left that is not judged in 'made'; take another"
    ):
        without(sts("ab", "cd"), sts("ba", "dc"))


@pytest.mark.parametrize("name", ["stsb-en", "sick"])
def test_splits_that_share_sentences_share_few_pairs_and_can_be_cured(mirror, name):
    dev, test = (data.load(name, split) for split in ("dev", "test"))
    shared = overlap(dev, test)
    assert 0 < len(shared) < 0.03 * len(dev.frame)
    left = without(dev, test)
    assert len(left.frame) == len(dev.frame) - len(shared)
    check_disjoint({"dev": left}, {"test": test})
