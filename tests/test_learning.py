"""Temperatures learned by gradient: the gradient is right, and nothing but temperatures changes."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from lab import models
from lab.collapse.learning import draw_batches, learn_temperatures, loss_at
from lab.data import Dataset
from lab.models.texts import TruncationWarning

WORDS = "rain snow dog guitar clock river deep quiet nine hall runs strikes under over old".split()
SCALE = 20.0  # one over the loss temperature


def sentences(rng, n, words=5):
    drawn = [" ".join(rng.choice(WORDS, words)) for _ in range(3 * n)]
    return list(dict.fromkeys(drawn))[:n]


def dataset(kind, texts, split="dev", **columns):
    return Dataset(name="made", kind=kind, split=split, texts=texts, frame=pd.DataFrame(columns),
                   origin="test", licence="CC0-1.0", sha256={}, n=None, seed=0)  # fmt: skip


def sharpened(name, **settings):
    """An untrained model whose matrices are scaled up so that attention matters."""
    model = models.load(name, **settings)
    for parameter in model.encoder.model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    return model


@pytest.fixture(scope="module")
def llama():
    return sharpened("random:llama")


@pytest.fixture(scope="module")
def search():
    """Eight queries, each the beginning of its document; other rows are judged irrelevant."""
    documents = sentences(np.random.default_rng(1), 8, 9)
    queries = [" ".join(text.split()[:4]) for text in documents]
    query, document = np.arange(8).repeat(2), np.arange(8).repeat(2) + 8
    document[1::2] = 8 + (np.arange(8) + 3) % 8
    return dataset("retrieval", queries + documents, query=query, document=document,
                   relevance=[1, 0] * 8)  # fmt: skip


@pytest.fixture(scope="module")
def alike():
    rng = np.random.default_rng(2)
    return dataset("sts", sentences(rng, 16), first=np.arange(8), second=np.arange(8, 16),
                   score=rng.permutation(8) / 2)  # fmt: skip


def cosines(rows, others):
    return (rows @ others.T) / np.outer(*(np.linalg.norm(r, axis=1) for r in (rows, others)))


def infonce(first, second):
    """The mean of log sum_j exp(s c_ij) - s c_ii, in numpy."""
    logits = SCALE * cosines(first, second)
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits.diagonal()))


def cosent(first, second, gold):
    """log(1 + sum over gold_i > gold_j of exp(s (c_j - c_i))), in numpy."""
    same = SCALE * cosines(first, second).diagonal()
    terms = [same[j] - same[i] for i in range(8) for j in range(8) if gold[i] > gold[j]]
    return float(np.log1p(np.exp(terms).sum()))


def by_hand(model, data, temperature=None):
    """The loss over a whole data set of a model at fixed temperatures, by ``encode`` and numpy."""
    rows = models.variant(model, temperature=temperature).encode(data.texts).astype(float)
    if data.kind == "sts":
        first, second = (rows[data.frame[side]] for side in ("first", "second"))
        return cosent(first, second, data.frame["score"])
    return infonce(rows[:8], rows[8:])


def of_all(model, data, logs):
    """The same by :func:`loss_at`."""
    batch = next(draw_batches(data, 8, np.random.default_rng(0)))
    texts = [model.encoder.tokenise(column) for column in batch.columns]
    return loss_at(model, texts, batch.gold, logs, loss_temperature=1 / SCALE)


# --- the gradient ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["search", "alike"])
@pytest.mark.parametrize("taus", [None, [0.7, 1.3, 0.9]])
def test_the_loss_is_that_of_the_model_at_these_temperatures(llama, kind, taus, request):
    data = request.getfixturevalue(kind)
    loss = of_all(llama, data, torch.tensor(taus or [1.0, 1.0, 1.0]).log())
    assert loss.item() == pytest.approx(by_hand(llama, data, taus), rel=1e-4)


@pytest.mark.parametrize("kind", ["search", "alike"])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_the_gradient_equals_finite_differences_through_fixed_temperatures(name, kind, request):
    data, model = request.getfixturevalue(kind), sharpened(f"random:{name}")
    taus = np.array([0.8, 1.2, 1.1])
    logs = torch.tensor(np.log(taus), dtype=torch.float32, requires_grad=True)
    of_all(model, data, logs).backward()
    step = 0.01
    expected = []
    for layer in range(3):
        shift = np.exp(step * np.eye(3)[layer])
        up, down = (by_hand(model, data, list(t)) for t in (taus * shift, taus / shift))
        expected.append((up - down) / (2 * step))
    assert np.abs(expected).max() > 0.01, "the temperatures matter"
    np.testing.assert_allclose(logs.grad, expected, rtol=0.02, atol=2e-3 * np.abs(expected).max())


# --- learning ----------------------------------------------------------------------------------


def test_it_starts_at_the_plain_model_exactly(llama, search):
    plain = of_all(llama, search, torch.zeros(3)).item()
    found = learn_temperatures(llama, search, steps=1, batch=8, rate=1e-3)
    assert found.losses == [pytest.approx(plain, rel=1e-6)]
    assert plain == pytest.approx(by_hand(llama, search), rel=1e-4)
    tempered = models.variant(llama, temperature=0.5)
    again = learn_temperatures(tempered, search, steps=1, batch=8, rate=1e-3)
    assert again == found, "a temperature that the model has plays no part"


def test_the_first_step_moves_each_temperature_by_the_rate(llama, search):
    found = learn_temperatures(llama, search, steps=1, batch=8, rate=0.1)
    np.testing.assert_allclose(np.abs(np.log(found.temperatures)), 0.1, rtol=1e-3)


@pytest.mark.parametrize("kind", ["search", "alike"])
def test_the_loss_falls_and_the_temperatures_give_it_to_a_variant(llama, kind, request):
    data = request.getfixturevalue(kind)
    found = learn_temperatures(llama, data, steps=15, batch=8, rate=0.1)
    assert len(found.losses) == 15
    assert found.losses[-1] < found.losses[0] - 0.02
    learned = models.variant(llama, temperature=found.temperatures)
    assert learned.encoder.temperature == found.temperatures
    assert by_hand(llama, data, found.temperatures) < found.losses[0] - 0.02


def test_a_planted_temperature_is_found(llama):
    """Gold similarities are those of the model with a cold second layer: CoSENT leads there."""
    rng = np.random.default_rng(3)
    texts = sentences(rng, 64, 12)
    planted = models.variant(llama, temperature=[1.0, 0.5, 1.0])
    rows = planted.encode(texts)
    gold = torch.cosine_similarity(*map(torch.tensor, (rows[:32], rows[32:]))).numpy()
    data = dataset("sts", texts, first=np.arange(32), second=np.arange(32, 64), score=gold)
    found = learn_temperatures(llama, data, steps=40, batch=32, rate=0.05, loss_temperature=0.01)
    first, second, third = np.log(found.temperatures)
    assert second < -0.3
    assert max(abs(first), abs(third)) < abs(second)


def test_two_runs_are_equal_bit_for_bit_and_another_seed_differs(llama, search):
    one, same, other = (
        learn_temperatures(llama, search, steps=3, batch=4, seed=seed) for seed in (5, 5, 6)
    )
    assert one == same
    assert one != other


def test_the_model_comes_back_as_it_was(llama, search):
    model = models.variant(llama, temperature=0.7)
    frozen = next(model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = model.encode(search.texts)
    frozen.requires_grad_(False)
    model.train()
    try:
        learn_temperatures(model, search, steps=2, batch=4)
        assert model.training
        assert not frozen.requires_grad
        assert all(one.requires_grad for one in model.parameters() if one is not frozen)
    finally:
        frozen.requires_grad_(True)
        model.eval()
    assert all(one.grad is None for one in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(model.encode(search.texts), rows)
    assert model.encoder.temperature == 0.7


def test_dropout_is_off_while_it_learns(search):
    model = sharpened("random:bert")
    assert model.encoder.model.config.hidden_dropout_prob > 0
    quiet = learn_temperatures(model, search, steps=2, batch=8)
    try:
        assert learn_temperatures(model.train(), search, steps=2, batch=8) == quiet
    finally:
        model.eval()


def test_texts_are_cut_at_the_length_asked_for_and_cuts_nobody_asked_for_are_told(search):
    model = sharpened("random:llama", max_length=12)
    with pytest.warns(TruncationWarning, match="16 of 16 texts are longer than the model's 12"):
        found = learn_temperatures(model, search, steps=1, batch=8)
    longer = sharpened("random:llama")
    assert learn_temperatures(longer, search, steps=1, batch=8, max_length=12) == found


# --- batches -----------------------------------------------------------------------------------


def test_no_text_of_a_batch_is_known_to_belong_to_another_pair_of_it():
    texts = [f"text {place}" for place in range(20)]
    rng = np.random.default_rng(0)
    anchor, positive = rng.integers(0, 10, 60), rng.integers(10, 20, 60)
    known = set(zip(anchor.tolist(), positive.tolist(), strict=True))
    data = dataset("pairs", texts, anchor=anchor, positive=positive)
    batches = draw_batches(data, 2, rng)
    drawn = set()
    for _ in range(40):
        batch = next(batches)
        first, second = ([texts.index(text) for text in column] for column in batch.columns)
        assert batch.gold is None
        inside = {(a, b) for a in first for b in second} & known
        assert inside == set(zip(first, second, strict=True))
        drawn |= inside
    assert len(drawn) > 20, "batches are drawn anew"


def test_only_relevant_documents_are_drawn(search):
    batch = next(draw_batches(search, 8, np.random.default_rng(0)))
    for query, document in zip(*batch.columns, strict=True):
        assert document.startswith(query)


def test_pairs_with_gold_are_drawn_without_replacement_and_keep_it(alike):
    batch = next(draw_batches(alike, 8, np.random.default_rng(0)))
    assert sorted(batch.gold) == sorted(alike.frame["score"])
    row = [alike.texts.index(text) for text in batch.columns[0]]
    np.testing.assert_array_equal(alike.frame["score"].to_numpy()[row], batch.gold)


def test_batches_that_cannot_be_drawn_are_refused_with_what_can(search, alike):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="made: 8 of 8 pairs can stand in one batch; 9 wanted"):
        next(draw_batches(search, 9, rng))
    with pytest.raises(ValueError, match="8 of 8 pairs"):
        next(draw_batches(alike, 16, rng))
    star = dataset("pairs", list("abcd"), anchor=[0, 0, 0], positive=[1, 2, 3])
    with pytest.raises(ValueError, match="made: 1 of 3 pairs can stand in one batch; 2 wanted"):
        next(draw_batches(star, 2, rng))
    with pytest.raises(ValueError, match=r"a batch is two pairs or more.* got 1"):
        draw_batches(search, 1, rng)


# --- refusals ----------------------------------------------------------------------------------


def test_the_test_split_and_other_kinds_are_refused(llama, search):
    judged = dataset("retrieval", search.texts, "test", **search.frame)
    with pytest.raises(ValueError, match="made: temperatures learned on the test split have seen"):
        learn_temperatures(llama, judged, steps=1)
    topics = dataset("clustering", ["a", "b"], text=[0, 1], label=["x", "y"])
    with pytest.raises(LookupError, match=r"no kind of data set to learn .* named 'clustering'"):
        learn_temperatures(llama, topics, steps=1)


@pytest.mark.parametrize(
    ("name", "why"),
    [("gemma2", "gemma2 caps its logits"), ("albert", "all layers of albert are one module")],
)
def test_architectures_without_a_temperature_of_each_layer_are_refused_by_name(name, why, search):
    model = models.load(f"random:{name}")
    with pytest.raises(ValueError, match=why):
        learn_temperatures(model, search, steps=1, batch=4)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("option", ["steps", "rate", "loss_temperature"])
def test_numbers_that_are_not_positive_are_refused(llama, search, option, value):
    with pytest.raises(ValueError, match=f"{option} must be a positive number; got {value}"):
        learn_temperatures(llama, search, **{"steps": 1, option: value})


@pytest.mark.parametrize("option", ["steps", "batch"])
@pytest.mark.parametrize("value", [2.5, 3.0, True])
def test_counts_that_are_no_whole_numbers_are_refused(llama, search, option, value):
    with pytest.raises(TypeError, match=f"{option} is a whole number; got {value}"):
        learn_temperatures(llama, search, **{"steps": 1, option: value})


def test_a_gradient_that_is_not_finite_names_the_step(llama, search, monkeypatch):
    steps = []

    def broken(*args, **options):
        steps.append(loss_at(*args, **options))
        return steps[-1] * (math.nan if len(steps) == 3 else 1)

    monkeypatch.setattr("lab.collapse.learning.loss_at", broken)
    with pytest.raises(FloatingPointError, match=r"step 2 of 5: the loss is nan .* layers \[0, 1"):
        learn_temperatures(llama, search, steps=5, batch=4)
    assert all(parameter.requires_grad for parameter in llama.parameters())
