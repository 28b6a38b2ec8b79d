"""Pairs and recipes: what may be trained on, and what decides the outcome."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lab import data
from lab.data import Dataset
from lab.training.adapters import Lora
from lab.training.pairs import Pairs, from_dataset, join
from lab.training.recipe import Recipe


def rows(n, *, negative=True, tag=""):
    columns = ["anchor", "positive", *(["negative"] if negative else [])]
    return pd.DataFrame({name: [f"{tag}{name} {row}" for row in range(n)] for name in columns})


def dataset(kind, texts, frame, split="train"):
    return Dataset("toy", kind, split, texts, pd.DataFrame(frame), "test", "CC0", {}, None, 0)


# --- what pairs are ------------------------------------------------------------------------------


def test_columns_come_in_the_order_that_the_loss_reads_them_in():
    pairs = Pairs("toy", rows(3)[["negative", "positive", "anchor"]])
    assert pairs.columns == ["anchor", "positive", "negative"]
    assert pairs.without_negatives().columns == ["anchor", "positive"]


def test_rows_are_numbered_from_nought_however_they_came():
    assert list(Pairs("toy", rows(5).iloc[[4, 2]]).rows.index) == [0, 1]


def changed(column, row, value):
    frame = rows(4).astype(object)
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    "frame, kind, message",
    [
        (rows(0), ValueError, "toy is empty"),
        (rows(2)[["anchor"]], ValueError, "columns anchor, positive and optionally negative"),
        (rows(2).assign(score=1.0), ValueError, "got anchor, positive, negative, score"),
        (changed("negative", 2, None), ValueError, "row 2 has no negative"),
        (changed("negative", 1, np.nan), ValueError, "row 1 has no negative"),
        (changed("anchor", 3, "  "), ValueError, "the anchor of row 3 is blank"),
        (changed("positive", 1, 7), TypeError, "the positive of row 1 is 7, not a text"),
        (changed("positive", 1, None), TypeError, "the positive of row 1 is None, not a text"),
        (changed("negative", 1, "positive 1"), ValueError, r"row 1 \(1 such\) has its positive as"),
    ],
)
def test_bad_rows_are_refused_by_number(frame, kind, message):
    with pytest.raises(kind, match=message):
        Pairs("toy", frame)


def test_repeated_rows_are_those_that_share_a_text_with_another_in_any_column():
    frame = rows(6)
    assert Pairs("toy", frame).repeated == 0
    frame.loc[0, "anchor"] = frame.loc[3, "negative"]
    frame.loc[1, "positive"] = frame.loc[5, "positive"]
    assert Pairs("toy", frame).repeated == 4


def test_a_row_that_repeats_its_own_text_is_no_repeat():
    frame = rows(3, negative=False)
    frame.loc[1, "positive"] = frame.loc[1, "anchor"]
    assert Pairs("toy", frame).repeated == 0


# --- parts of pairs ------------------------------------------------------------------------------


def test_a_sample_has_distinct_rows_and_depends_on_its_seed():
    pairs = Pairs("toy", rows(50))
    one, again, other = (pairs.sample(20, seed=seed) for seed in (1, 1, 2))
    assert len(set(one.rows["anchor"])) == 20
    pd.testing.assert_frame_equal(one.rows, again.rows)
    assert not one.rows.equals(other.rows)
    with pytest.raises(ValueError, match="toy has 50 rows to draw from; got n=51"):
        pairs.sample(51, seed=0)


def test_a_split_shares_no_text_and_loses_no_row(rng):
    frame = rows(200, negative=False)
    frame["anchor"] = [f"anchor {number}" for number in rng.integers(90, size=200)]
    pairs = Pairs("toy", frame)
    train, held_out = pairs.split(0.25, seed=3)
    assert set(train.texts).isdisjoint(held_out.texts)
    together = pd.concat([train.rows, held_out.rows]).sort_values("positive").to_numpy()
    np.testing.assert_array_equal(together, frame.sort_values("positive").to_numpy())
    assert 40 <= len(held_out) <= 50


def test_a_split_keeps_rows_together_that_are_linked_through_others():
    chain = pd.DataFrame({"anchor": list("abcd"), "positive": list("bcde")})
    pairs = Pairs("toy", pd.concat([chain, rows(4, negative=False)]))
    for seed in range(10):
        _, held_out = pairs.split(0.3, seed=seed)
        assert set(held_out.texts).isdisjoint("abcde")


def test_a_split_that_can_hold_nothing_out_is_refused():
    frame = rows(10).assign(anchor="the same")
    with pytest.raises(ValueError, match=r"no 20% of its 10 rows.*smallest group.*has 10"):
        Pairs("toy", frame).split(0.2, seed=0)
    with pytest.raises(ValueError, match="share is above 0 and below 1; got 1"):
        Pairs("toy", frame).split(1, seed=0)


def test_joined_sets_hold_all_rows_in_random_order_and_all_notes():
    one = Pairs("one", rows(9, tag="a "), notes=("2 left out",))
    both = join([one, Pairs("two", rows(7, tag="b "))], seed=0)
    assert (both.name, len(both), both.notes) == ("one+two", 16, ("one: 2 left out",))
    assert set(both.rows["anchor"][:9]) != set(one.rows["anchor"])
    assert set(both.texts) == set(one.texts) | set(rows(7, tag="b ").to_numpy().ravel())


def test_sets_with_and_without_negatives_are_not_joined():
    with pytest.raises(ValueError, match="bare: no hard negatives, which the other sets have"):
        join([Pairs("rich", rows(2)), Pairs("bare", rows(2, negative=False))], seed=0)
    with pytest.raises(ValueError, match="no set of pairs"):
        join([], seed=0)


def test_the_fingerprint_of_pairs_is_of_texts_in_their_order_and_places():
    pairs = Pairs("toy", rows(4))
    assert Pairs("another name", rows(4)).fingerprint() == pairs.fingerprint()
    moved = rows(4)
    moved.loc[0, ["anchor", "positive"]] = ["anchor 0positive", " 0"]
    others = [rows(4).iloc[::-1], rows(3), rows(4)[["anchor", "positive"]], moved]
    prints = {Pairs("toy", frame).fingerprint() for frame in others}
    assert len(prints | {pairs.fingerprint()}) == 5


# --- from data sets ------------------------------------------------------------------------------


def test_pairs_come_as_they_are():
    frame = {"anchor": [0, 1], "positive": [2, 0], "negative": [1, 2]}
    pairs = from_dataset(dataset("pairs", ["x", "y", "z"], frame))
    assert pairs.rows.to_numpy().tolist() == [["x", "z", "y"], ["y", "x", "z"]]


def test_retrieval_gives_queries_with_their_relevant_documents():
    frame = {"query": [0, 0, 1], "document": [2, 3, 3], "relevance": [1, 0, 2]}
    pairs = from_dataset(dataset("retrieval", ["q", "r", "d", "e"], frame))
    assert pairs.rows.to_numpy().tolist() == [["q", "d"], ["r", "e"]]


def test_pair_classification_gives_true_pairs_with_a_false_text_of_the_same_first():
    first, second = [0, 0, 0, 1, 0, 1, 2], [3, 4, 5, 3, 6, 7, 3]
    label = [True, True, True, True, False, False, True]
    texts = [f"t{place}" for place in range(8)]
    found = from_dataset(
        dataset("pair_classification", texts, {"first": first, "second": second, "label": label})
    )
    expected = [["t0", "t3", "t6"], ["t0", "t4", "t6"], ["t0", "t5", "t6"], ["t1", "t3", "t7"]]
    assert found.rows.to_numpy().tolist() == expected
    assert found.notes == ("1 pairs without a hard negative left out",)


def test_pair_classification_without_false_pairs_gives_no_negatives():
    frame = {"first": [0, 1], "second": [2, 2], "label": [True, True]}
    found = from_dataset(dataset("pair_classification", ["x", "y", "z"], frame))
    assert (found.columns, found.notes) == (["anchor", "positive"], ())


def test_kinds_without_pairs_and_test_splits_are_refused():
    frame = {"first": [0], "second": [1], "score": [0.5]}
    with pytest.raises(LookupError, match="no kind of data set to train on named 'sts'"):
        from_dataset(dataset("sts", ["x", "y"], frame))
    frame = {"anchor": [0], "positive": [1]}
    with pytest.raises(ValueError, match="trained on the test split can't be judged on it"):
        from_dataset(dataset("pairs", ["x", "y"], frame, split="test-triplets"))


def test_a_shipped_set_gives_pairs():
    loaded = data.load("wordnet-definitions", "dev")
    pairs = from_dataset(loaded)
    assert len(pairs) == (loaded.frame["relevance"] > 0).sum()
    texts = dict.fromkeys(loaded.texts)
    assert all(text in texts for text in pairs.texts)


# --- recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, kind, message",
    [
        ({"steps": 0}, ValueError, "steps is 1 or more; got 0"),
        ({"steps": 2.0}, TypeError, "steps is a whole number; got 2.0"),
        ({"batch": 1}, ValueError, "batch is 2 or more; got 1"),
        ({"batch": True}, TypeError, "batch is a whole number; got True"),
        ({"mini_batch": 0}, ValueError, "mini_batch is 1 or more; got 0"),
        ({"max_length": "long"}, TypeError, "max_length is a whole number; got 'long'"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate is above 0; got 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate is a finite number; got nan"),
        ({"loss_temperature": -1}, ValueError, "loss_temperature is above 0; got -1"),
        ({"warmup": 1.0}, ValueError, "warmup is a share of the steps, below 1; got 1"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay is 0 or more; got -0.1"),
        ({"weight_decay": "0.1"}, TypeError, "weight_decay is a number; got '0.1'"),
        ({"precision": "bfloat61"}, LookupError, "precision.*did you mean 'bfloat16'"),
        ({"backbone": "qlora"}, LookupError, "have frozen, full, lora; did you mean 'lora'"),
        ({"gradient_checkpointing": 1}, TypeError, "gradient_checkpointing is True or False"),
        ({"lora": 16}, TypeError, r"lora is a Lora\(rank=..., alpha=...\); got 16"),
        ({"seed": -1}, ValueError, "seed is 0 or more; got -1"),
        ({"seed": 2**32}, ValueError, "seed is at most 4294967295"),
        ({"save_every": 0}, ValueError, "save_every is 1 or more; got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, kind, message):
    with pytest.raises(kind, match=message):
        Recipe(**{"steps": 10, **setting})


OTHER = {
    "steps": 11,
    "batch": 32,
    "learning_rate": 2e-3,
    "warmup": 0.2,
    "weight_decay": 0.0,
    "loss_temperature": 0.1,
    "mini_batch": 8,
    "max_length": 16,
    "precision": "bfloat16",
    "gradient_checkpointing": True,
    "backbone": "full",
    "lora": Lora(rank=8),
    "seed": 1,
    "evaluate_every": 2,
    "save_every": 5,
}


@pytest.mark.parametrize("name", OTHER)
def test_the_fingerprint_is_of_what_decides_the_weights(name):
    recipe = Recipe(steps=10, backbone="lora")
    other = replace(recipe, **{name: OTHER[name]})
    same = name in ("evaluate_every", "save_every")
    assert (other.fingerprint() == recipe.fingerprint()) is same


def test_every_setting_is_in_the_test_of_the_fingerprint():
    assert set(OTHER) == set(Recipe.__dataclass_fields__)


def test_the_fingerprint_is_of_values_not_of_their_types():
    plain = Recipe(steps=10, learning_rate=1.0)
    assert Recipe(steps=np.int64(10), learning_rate=1).fingerprint() == plain.fingerprint()


def test_an_adapter_that_is_not_used_is_no_part_of_the_fingerprint():
    recipe = Recipe(steps=10, backbone="full")
    assert replace(recipe, lora=Lora(rank=8)).fingerprint() == recipe.fingerprint()
