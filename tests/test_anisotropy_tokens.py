"""Measures of token states: limits, brute force, other libraries; words of models read by hand."""

import re

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA, TruncatedSVD

from lab import data, models, results, stats
from lab.anisotropy.contextual import contextual
from lab.anisotropy.occurrences import CONTEXTS, draw_sample, own_spans, words_of
from lab.anisotropy.tokens import (
    adjusted,
    dc_energy,
    hc_energy,
    intra_sentence_similarity,
    maximum_explained_variance,
    random_word_cosine,
    random_word_variance,
    self_similarity,
)
from lab.models.architecture import layers as layers_of
from lab.models.texts import TruncationWarning

OF_STATES = (
    self_similarity,
    intra_sentence_similarity,
    maximum_explained_variance,
    hc_energy,
    lambda states: maximum_explained_variance(states, centred=True),
)


def cloud(rng, n=40, d=12):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 1


def cosine(x, y):
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def mean_cosine(rows):
    return 1 - pdist(rows, "cosine").mean()


# Limits


def test_identical_occurrences_are_wholly_self_similar(rng):
    word = np.repeat(rng.normal(size=(1, 30)), 7, axis=0)
    assert self_similarity(word) == pytest.approx(1, abs=1e-12)
    assert self_similarity(word * rng.uniform(1, 9, (7, 1))) == pytest.approx(1, abs=1e-12)
    assert self_similarity(np.eye(9)) == pytest.approx(0, abs=1e-12)
    assert self_similarity(np.array([[1.0, 2.0], [-1.0, -2.0]])) == pytest.approx(-1, abs=1e-12)


def test_one_token_is_its_own_sentence(rng):
    assert intra_sentence_similarity(rng.normal(size=(1, 30))) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [2, 9, 100])
def test_orthogonal_tokens_have_the_intra_sentence_similarity_of_their_number(n):
    assert intra_sentence_similarity(np.eye(n)) == pytest.approx(n**-0.5, abs=1e-12)


def test_one_direction_explains_rank_one(rng):
    occurrences = np.outer(rng.normal(size=20), rng.normal(size=30))
    assert maximum_explained_variance(occurrences) == pytest.approx(1, abs=1e-12)
    assert maximum_explained_variance(occurrences, centred=True) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(20_000, 8), (4, 500), (300, 300)])
def test_isotropic_occurrences_are_explained_by_little_more_than_the_least(n, d, rng):
    found = maximum_explained_variance(rng.normal(size=(n, d)))
    edge = (1 + (min(n, d) / max(n, d)) ** 0.5) ** 2  # Marchenko and Pastur's largest eigenvalue
    assert 1 / min(n, d) <= found < 1.1 * edge / min(n, d)
    assert maximum_explained_variance(np.eye(d)) == pytest.approx(1 / d, rel=1e-9)


def test_identical_tokens_have_no_energy_but_their_mean_and_those_of_mean_zero_none_of_it(rng):
    tokens = np.repeat(rng.normal(size=(1, 30)), 7, axis=0)
    assert hc_energy(tokens) == pytest.approx(0, abs=1e-12)
    assert dc_energy(tokens) == pytest.approx(1, abs=1e-12)
    states = cloud(rng)
    assert hc_energy(states - states.mean(0)) == pytest.approx(1, abs=1e-12)


def test_random_tokens_have_the_energy_of_their_number(rng):
    found = [hc_energy(rng.normal(size=(5, 200))) for _ in range(200)]
    assert np.mean(found) == pytest.approx(4 / 5, abs=0.005)


# Two routes


def test_self_similarity_equals_all_pairs(rng):
    occurrences = cloud(rng)
    assert self_similarity(occurrences) == pytest.approx(mean_cosine(occurrences), abs=1e-12)


def test_intra_sentence_similarity_equals_its_definition(rng):
    tokens = cloud(rng)
    mean = tokens.mean(0)
    by_hand = np.mean([cosine(mean, token) for token in tokens])
    assert intra_sentence_similarity(tokens) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_mev_equals_singular_values_and_centred_the_pca_of_its_code(shape, rng):
    occurrences = rng.normal(size=shape) + 1
    squares = np.linalg.svd(occurrences, compute_uv=False) ** 2
    found = maximum_explained_variance(occurrences)
    assert found == pytest.approx(squares[0] / squares.sum(), rel=1e-12)
    of_code = PCA(n_components=1).fit(occurrences).explained_variance_ratio_[0]
    centred = maximum_explained_variance(occurrences, centred=True)
    assert centred == pytest.approx(of_code, rel=1e-9)
    of_baseline = TruncatedSVD(2, algorithm="arpack").fit(occurrences).explained_variance_ratio_[0]
    assert len({round(number, 3) for number in (found, of_code, of_baseline)}) == 3


def test_hc_energy_equals_the_centring_matrix(rng):
    tokens = cloud(rng)
    n = len(tokens)
    J = np.eye(n) - np.ones((n, n)) / n
    by_hand = np.linalg.norm(J @ tokens) ** 2 / np.linalg.norm(tokens) ** 2
    assert hc_energy(tokens) == pytest.approx(by_hand, rel=1e-12)
    assert dc_energy(tokens) == pytest.approx(1 - by_hand, rel=1e-12)


@pytest.mark.parametrize("measure", OF_STATES)
def test_rotation_scale_and_order_change_nothing(measure, rng):
    states = cloud(rng)
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    for other in (states @ turn, 3 * states, rng.permutation(states)):
        assert measure(other) == pytest.approx(measure(states), rel=1e-9)


@pytest.mark.parametrize("measure", OF_STATES)
def test_single_precision_is_read_as_it_is(measure, rng):
    states = cloud(rng).astype(np.float32)
    assert measure(states) == pytest.approx(measure(states.astype(np.float64)), rel=1e-12)


# What is subtracted


def test_the_baselines_are_those_of_their_measures(rng):
    states = cloud(rng)
    assert random_word_cosine(states).value == pytest.approx(mean_cosine(states), abs=1e-12)
    for centred in (False, True):
        expected = maximum_explained_variance(states, centred=centred)
        assert random_word_variance(states, centred=centred).value == pytest.approx(expected)


def test_a_resample_of_random_words_leaves_out_pairs_of_a_word_with_itself(rng):
    states = cloud(rng, n=6)
    score = random_word_cosine(states)
    drawn = np.array([0, 0, 0, 2, 5, 5])
    pairs = [
        cosine(states[i], states[j]) for a, i in enumerate(drawn) for b, j in enumerate(drawn)
        if a != b and i != j
    ]  # fmt: skip
    weights = np.bincount(drawn, minlength=6).astype(float)[None]
    assert score.statistic(score.units, weights)[0] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_resampling_with_the_component_held_fixed_follows_the_exact_resamples(rng):
    states = cloud(rng, n=400, d=8) + 2
    score = random_word_variance(states)
    weights = stats.bootstrap_weights(400, 60, rng)
    exact = [
        maximum_explained_variance(np.repeat(states, row.astype(int), axis=0)) for row in weights
    ]
    found = score.statistic(score.units, weights)
    assert (found <= np.array(exact) + 1e-12).all()  # theirs is the best component for each
    assert np.corrcoef(found, exact)[0, 1] > 0.99
    assert np.std(found) == pytest.approx(np.std(exact), rel=0.05)


def test_an_adjusted_interval_holds_the_uncertainty_of_both_samples(rng):
    score = random_word_cosine(cloud(rng, n=60))
    baseline = random_word_cosine(rng.normal(size=(50, 12)) + 0.3)
    draws = stats.bootstrap_weights(60, 4000, rng), stats.bootstrap_weights(50, 4000, rng)
    found = adjusted(score, baseline, *draws)
    assert found.value == pytest.approx(score.value - baseline.value, abs=1e-12)
    assert (found.n, found.resamples) == (60, 4000)
    each = [stats.interval(*pair) for pair in zip((score, baseline), draws, strict=True)]
    width = np.hypot(*(one.high - one.low for one in each))
    assert found.high - found.low == pytest.approx(width, rel=0.06)


def test_weights_of_other_units_are_refused(rng):
    score, baseline = random_word_cosine(cloud(rng, n=6)), random_word_cosine(cloud(rng, n=5))
    good = stats.bootstrap_weights(6, 10, rng), stats.bootstrap_weights(5, 10, rng)
    for bad in (good[::-1], (good[0], good[1][:4])):
        with pytest.raises(ValueError, match=r"weights \(R, 6\) and baseline weights \(R, 5\)"):
            adjusted(score, baseline, *bad)
    with pytest.raises(ValueError, match="level"):
        adjusted(score, baseline, *good, level=1)


# Bad states


@pytest.mark.parametrize("measure", [self_similarity, intra_sentence_similarity])
def test_zero_vectors_are_refused_where_a_cosine_is_taken(measure, rng):
    states = cloud(rng, n=5)
    states[3] = 0
    with pytest.raises(ValueError, match=r"(occurrence|token) 3 of 5 is a zero vector"):
        measure(states)


@pytest.mark.parametrize("measure", [*OF_STATES, random_word_cosine, random_word_variance])
def test_states_that_are_no_finite_floats_are_refused(measure, rng):
    states = cloud(rng, n=5)
    states[3, 0] = np.inf
    with pytest.raises(ValueError, match=r"(occurrence|token|random word) 3 of 5 is not finite"):
        measure(states)
    with pytest.raises(TypeError, match="float32 or float64; got int64"):
        measure(np.ones((5, 3), dtype=int))
    with pytest.raises(ValueError, match=r"are \(n, d\)"):
        measure(np.ones(5))


@pytest.mark.parametrize("measure", [self_similarity, maximum_explained_variance])
def test_one_occurrence_has_no_pair(measure, rng):
    with pytest.raises(ValueError, match="pairs of occurrences need 2 or more; got 1"):
        measure(cloud(rng, n=1))


def test_what_has_no_mean_no_energy_or_no_variance_is_refused():
    opposite = np.array([[1.0, 2.0], [-1.0, -2.0]])
    with pytest.raises(ValueError, match="the mean of the 2 tokens is zero"):
        intra_sentence_similarity(opposite)
    with pytest.raises(ValueError, match="all 4 tokens are zero vectors"):
        hc_energy(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="all 4 occurrences are zero vectors"):
        maximum_explained_variance(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="all 4 occurrences are equal"):
        maximum_explained_variance(np.full((4, 3), 0.1), centred=True)


# Words of texts


def spans_of_words(text):
    """Tokens as a BERT would have them, by hand: words and marks."""
    return np.array([(at, at + len(word)) for word, at in _places(text)]).reshape(-1, 2)


def _places(text):
    at = 0
    for word in text.replace(",", " ,").replace(".", " .").split():
        at = text.index(word, at)
        yield word, at
        at += len(word)


def test_words_are_runs_of_letters_with_the_tokens_that_overlap_them():
    text = "Snow fell, unhurried."
    spans = np.array([(0, 4), (4, 9), (9, 10), (10, 13), (13, 20), (20, 21)])  # space joined
    found = {word: (place.first, place.last) for word, place in words_of(3, text, spans)}
    assert found == {"Snow": (0, 1), "fell": (1, 2), "unhurried": (3, 5)}


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_word_that_was_cut_is_left_out(cut):
    text = "Snow fell, unhurried."
    spans = np.array([(0, 4), (4, 9), (9, 10), (10, 13), (13, 20), (20, 21)])[:-cut]
    found = [word for word, _ in words_of(0, text, spans)]
    assert found == (["Snow", "fell", "unhurried"] if cut == 1 else ["Snow", "fell"])


def test_a_text_without_words_has_none():
    assert list(words_of(0, "... !", spans_of_words("... !"))) == []


class WordTokenizer:
    """A tokenizer of words and marks with one special token at either end."""

    is_fast = True

    def __call__(self, texts, **_):
        spans = [spans_of_words(text).tolist() for text in texts]
        return {
            "offset_mapping": [[[0, 0], *one, [0, 0]] for one in spans],
            "special_tokens_mask": [[1, *[0] * len(one), 1] for one in spans],
        }


@pytest.mark.parametrize(("before", "after"), [("", ""), ("say, now ", " .")])
@pytest.mark.parametrize("cut", [0, 2])
def test_own_spans_count_characters_of_the_text_itself(before, after, cut):
    text = "Snow fell, unhurried."
    found = own_spans(WordTokenizer(), [text], before=before, after=after, cut=[cut])
    np.testing.assert_array_equal(found[0], spans_of_words(text)[: 5 - cut])


RECURRING = [f"the {thing} and the other thing" for thing in "abcdefghij"]


def sampled(texts, rng, **numbers):
    spans = [spans_of_words(text) for text in texts]
    numbers = {"words": 99, "occurrences": 99, "random_words": 99, **numbers}
    return draw_sample(texts, spans, rng=rng, **numbers)


def words_at(texts, sample, slots):
    for place in sample.places[slots]:
        spans = spans_of_words(texts[place.row])[place.first : place.last]
        yield texts[place.row][spans[0, 0] : spans[-1, 1]]


def test_every_slot_of_a_word_holds_that_word(rng):
    sample = sampled(RECURRING, rng)
    assert sample.names == ["and", "other", "the", "thing"]
    for name, slots in zip(sample.names, sample.words, strict=True):
        assert list(words_at(RECURRING, sample, slots)) == [name] * 10
        assert [place.row for place in sample.places[slots]] == list(range(10))
        assert {place.first for place in sample.places[slots] if name == "the"} <= {0}
    assert [place.row for place in sample.places[sample.random]] == list(range(10))


def test_fewer_are_drawn_where_fewer_are_asked_for(rng):
    sample = sampled(RECURRING, rng, words=3, occurrences=4, random_words=6)
    assert len(sample.names) == len(sample.words) == 3
    assert [slots.stop - slots.start for slots in sample.words] == [4, 4, 4]
    assert len(sample.places[sample.random]) == 6
    for slots in sample.matched:
        assert len(set(slots)) == 4
        assert set(slots) <= set(range(sample.random.start, sample.random.stop))


def test_a_repeated_text_is_one_context(rng):
    texts = [*RECURRING[: CONTEXTS - 1]] * 5
    with pytest.raises(ValueError, match="needed; got 0 in 4 different texts with a word"):
        sampled(texts, rng)
    sample = sampled([*texts, RECURRING[-1]], rng)
    assert [slots.stop - slots.start for slots in sample.words] == [CONTEXTS] * 4


def test_random_words_are_any_word_of_a_text(rng):
    seen = set()
    for _ in range(30):
        sample = sampled(RECURRING, rng)
        seen |= set(words_at(RECURRING, sample, sample.random))
    assert seen == {"the", "and", "other", "thing", *"abcdefghij"}


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"words": 1}, "words must be 2 or more here; got 1"),
        ({"occurrences": 1}, "occurrences must be 2 or more here; got 1"),
        ({"random_words": 98}, "random_words must be 99 or more here; got 98"),
    ],
)
def test_numbers_below_their_least_are_refused(numbers, said, rng):
    with pytest.raises(ValueError, match=said):
        sampled(RECURRING, rng, **numbers)


# Models


TEXTS = data.load("wordnet-definitions", "dev").texts[300:360]
NAMES = ["llama", "bert", "gpt2", "albert", "t5"]


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama")


def by_hand(model, texts):
    """layer -> (word -> its states, states of the tokens of every text), text by text."""
    tokenizer = model.tokenizer
    words, tokens = {}, {}
    for text in texts:
        batch = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        ids = torch.tensor([batch["input_ids"]])
        with torch.no_grad():
            hidden = model.encoder.model(ids, output_hidden_states=True).hidden_states
        own = np.flatnonzero(1 - np.array(batch["special_tokens_mask"]))
        seen = set()
        for match in re.finditer(r"\w+", text):
            start, end = match.span()
            inside = [
                at for at in own
                if batch["offset_mapping"][at][0] < end and batch["offset_mapping"][at][1] > start
            ]  # fmt: skip
            if match.group() in seen:
                continue
            seen.add(match.group())
            for layer, states in enumerate(hidden):
                of_word = states[0, inside].mean(0).numpy()
                words.setdefault(layer, {}).setdefault(match.group(), []).append(of_word)
        for layer, states in enumerate(hidden):
            tokens.setdefault(layer, []).append(states[0, own].numpy())
    return words, tokens


@pytest.mark.parametrize(
    ("name", "side"), [("llama", "left"), ("bert", "left"), *((name, "right") for name in NAMES)]
)
def test_the_table_equals_states_read_text_by_text(name, side):
    model = models.load(f"random:{name}", padding_side=side)
    found = contextual(
        model, TEXTS, seed=0, words=10**4, occurrences=100, random_words=100, resamples=20,
        token_budget=200,
    ).set_index(["layer", "metric"])["value"]  # fmt: skip
    words, tokens = by_hand(model, TEXTS)
    for layer, of_layer in words.items():
        each = [np.stack(states) for states in of_layer.values() if len(states) >= CONTEXTS]
        expected = {
            "self_similarity": np.mean([mean_cosine(one) for one in each]),
            "maximum_explained_variance": np.mean(
                [np.linalg.norm(one, 2) ** 2 / np.linalg.norm(one) ** 2 for one in each]
            ),
            "intra_sentence_similarity": np.mean(
                [np.mean([cosine(t, one.mean(0)) for t in one]) for one in tokens[layer]]
            ),
            "hc_energy": np.mean(
                [np.square(t - t.mean(0)).sum() / np.square(t).sum() for t in tokens[layer]]
            ),
        }
        for metric, value in expected.items():
            assert found[layer, metric] == pytest.approx(value, abs=2e-5), (layer, metric)


@pytest.fixture(scope="module")
def table(llama):
    return contextual(llama, TEXTS, seed=0, occurrences=10, random_words=40, resamples=200)


def test_what_is_adjusted_is_the_difference_from_what_random_words_show(table):
    value = table.pivot(index="layer", columns="metric", values="value")
    cosines, variance = value["random_word_cosine"], value["random_word_variance"]
    for metric in ("self_similarity", "intra_sentence_similarity"):
        np.testing.assert_allclose(value[f"{metric}_adjusted"], value[metric] - cosines)
    mev = value["maximum_explained_variance"]
    np.testing.assert_allclose(value["maximum_explained_variance_adjusted"], mev - variance)
    assert (value["maximum_explained_variance_matched"] < mev).all()


def test_a_word_at_the_first_layer_of_a_model_without_positions_is_always_the_same(llama):
    texts = [f"a {text}" for text in RECURRING]  # no word begins a text in one, but not in another
    found = contextual(llama, texts, seed=0, layers=[0], resamples=50, occurrences=9)
    value = found.set_index("metric")["value"]
    assert value["self_similarity"] == pytest.approx(1, abs=1e-6)
    assert value["maximum_explained_variance"] == pytest.approx(1, abs=1e-6)
    assert value["self_similarity_adjusted"] > 0


def test_the_table_has_a_row_a_layer_and_metric_and_fits_the_tidy_table(table):
    assert table.groupby("layer").size().tolist() == [10] * 4
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    n = table.set_index("metric")["n"].groupby("metric").first()
    assert n["hc_energy"] == n["intra_sentence_similarity"] == len(TEXTS)
    assert n["random_word_cosine"] == 40
    rows = [{"checkpoint": "random:llama", **row} for row in table.to_dict("records")]
    assert len(results.table(rows)) == len(table)


def test_the_same_seed_gives_the_same_table_whatever_the_batches(llama, table):
    again = contextual(
        llama, TEXTS, seed=0, occurrences=10, random_words=40, resamples=200, token_budget=150
    )
    np.testing.assert_allclose(again["value"], table["value"], atol=1e-5)
    np.testing.assert_allclose(again[["low", "high"]], table[["low", "high"]], atol=1e-5)
    other = contextual(llama, TEXTS, seed=1, occurrences=10, random_words=40, resamples=200)
    assert (other["value"] != table["value"]).any()


def test_layers_are_read_once_and_in_order(llama, table):
    some = contextual(
        llama, TEXTS, seed=0, layers=[-1, 1, 3], occurrences=10, random_words=40, resamples=200
    )
    assert list(some["layer"].unique()) == [1, 3]
    expected = table[table["layer"].isin([1, 3])].reset_index(drop=True)
    np.testing.assert_allclose(some["value"], expected["value"], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"template": "say: {text} !"}, {"max_length": 9}],
    ids=["plain", "around", "cut"],
)
def test_own_tokens_lie_behind_the_prefix_and_spell_the_text(name, settings):
    model = models.load(f"random:{name}", **settings)
    encoder = model.encoder
    tokenised = encoder.tokenise(TEXTS)
    before, after = encoder.template.split("{text}")
    cut = [text.cut for text in tokenised]
    spans = own_spans(encoder.tokenizer, TEXTS, before=before, after=after, cut=cut)
    assert (settings.get("max_length") == 9) == any(cut)
    for text, one, own in zip(TEXTS, tokenised, spans, strict=True):
        ids = one.ids[one.prefix : one.prefix + len(own)]
        assert len(ids) == len(own) > 0
        spelled = encoder.tokenizer.decode(ids).replace(" ", "").lower()
        assert spelled == text[own[0, 0] : own[-1, 1]].replace(" ", "").lower()


def test_the_sink_and_the_template_are_left_out():
    sunk = models.load("random:llama", sink="<s>")
    assert sunk.encoder.tokenise(TEXTS)[0].prefix == 1
    plain = contextual(models.load("random:llama"), TEXTS, seed=0, layers=[0], resamples=20)
    found = contextual(sunk, TEXTS, seed=0, layers=[0], resamples=20)
    around = models.load("random:llama", template="say {text} !", sink="<s>")
    framed = contextual(around, TEXTS, seed=0, layers=[0], resamples=20)
    np.testing.assert_allclose(found["value"], plain["value"], atol=1e-6)
    np.testing.assert_allclose(framed["value"], plain["value"], atol=1e-6)


def test_texts_that_were_cut_are_measured_as_far_as_they_go_and_named():
    model = models.load("random:llama", max_length=24)
    with pytest.warns(TruncationWarning, match="texts are longer than the model's 24 tokens"):
        found = contextual(model, TEXTS, seed=0, layers=[1], resamples=20, occurrences=10)
    assert found["value"].notna().all()


def test_only_sampled_states_are_kept(llama, monkeypatch):
    from lab.anisotropy import contextual as module

    kept = []
    read = module._read
    monkeypatch.setattr(module, "_read", lambda *a: [read(*a), kept.append(a[2])])
    contextual(llama, TEXTS, seed=0, words=3, occurrences=5, random_words=7, resamples=20)
    assert kept[0].of_slots.shape == (3 * 5 + 7, 4, llama.encoder.model.config.hidden_size)
    assert kept[0].of_texts.shape == (4, 2, len(TEXTS))


def test_bad_requests_are_refused(llama, monkeypatch):
    with pytest.raises(ValueError, match="nothing to read: texts is empty"):
        contextual(llama, [], seed=0)
    with pytest.raises(ValueError, match="nothing to read: layers is empty"):
        contextual(llama, TEXTS, seed=0, layers=[])
    with pytest.raises(ValueError, match="layer 9 does not exist"):
        contextual(llama, TEXTS, seed=0, layers=[9])
    with pytest.raises(TypeError, match="texts is one string"):
        contextual(llama, "a text", seed=0)
    with pytest.raises(ValueError, match=r"text 1 .* is empty or blank"):
        contextual(llama, ["a", " "], seed=0)
    with pytest.raises(ValueError, match="two words that occur in 5 or more different texts"):
        contextual(llama, TEXTS[:3], seed=0)
    monkeypatch.setattr(type(llama.tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="no character offsets, which whole words need"):
        contextual(llama, TEXTS, seed=0)


def test_states_that_are_not_finite_are_named():
    broken = models.load("random:llama")
    with torch.no_grad():
        layers_of(broken.encoder.model)[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="is not finite; it begins in hidden state 2 of 3"):
        contextual(broken, TEXTS, seed=0)


def test_a_zero_state_is_named():
    broken = models.load("random:llama")
    with torch.no_grad():
        broken.encoder.model.get_input_embeddings().weight.zero_()
    said = r"text \d+ \('.*'\), hidden state 0: token 0 of \d+ is a zero vector"
    with pytest.raises(ValueError, match=said):
        contextual(broken, TEXTS, seed=0)
