"""Every registered pooling and layer mix obeys the laws of its kind."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.pooling import CHUNK, LAYER_MIXES, POOLINGS, Tokens, WeightedSum, one_layer

DIM, LAYERS = 5, 3
LINEAR = {name for name, pool in POOLINGS.items() if isinstance(pool, WeightedSum)}
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=4)
fast = settings(max_examples=25, deadline=None)


def batch(sizes, *, left=0, right=0, filler=0.0, seed=0):
    """Hidden states (layer, text, seq, dim) and tokens; the content depends on the text alone."""
    width = max(sizes) + left + right
    hidden = torch.full((LAYERS, len(sizes), width, DIM), filler)
    mask = torch.zeros(len(sizes), width, dtype=torch.bool)
    frequency = torch.full((len(sizes), width), 0.5)
    for text, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(seed + text)
        place = slice(width - right - size, width - right) if left else slice(0, size)
        hidden[:, text, place] = torch.randn(LAYERS, size, DIM, generator=generator)
        frequency[text, place] = torch.rand(size, generator=generator) * 1e-2
        mask[text, place] = True
    return hidden, Tokens(mask, frequency)


@pytest.fixture(params=sorted(POOLINGS))
def pool(request):
    """Every registered token pooling."""
    return POOLINGS[request.param]


@pytest.mark.parametrize("name", sorted(POOLINGS))
@fast
@given(
    sizes=lengths,
    left=st.integers(0, 3),
    right=st.integers(0, 3),
    filler=st.sampled_from([0.0, 7.0, float("nan"), float("inf"), -float("inf")]),
)
def test_padding_never_matters(name, sizes, left, right, filler):
    plain = POOLINGS[name](*batch(sizes))
    padded = POOLINGS[name](*batch(sizes, left=left, right=right, filler=filler))
    assert padded.isfinite().all()
    torch.testing.assert_close(padded, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(POOLINGS))
@fast
@given(sizes=lengths)
def test_a_text_alone_equals_the_text_in_a_batch(name, sizes):
    hidden, tokens = batch(sizes)
    together = POOLINGS[name](hidden, tokens)
    for text, size in enumerate(sizes):
        one = Tokens(tokens.mask[text : text + 1, :size], tokens.frequency[text : text + 1, :size])
        alone = POOLINGS[name](hidden[:, text : text + 1, :size], one)
        torch.testing.assert_close(alone[:, 0], together[:, text], rtol=1e-5, atol=1e-5)


def test_one_real_token_returns_its_state(pool):
    hidden, tokens = batch([1, 1], left=2)
    torch.testing.assert_close(pool(hidden, tokens), hidden[:, :, -1], rtol=1e-5, atol=1e-6)


def test_equal_tokens_return_their_state_up_to_the_length(pool):
    hidden = torch.randn(1, 1, 1, DIM).expand(LAYERS, 1, 4, DIM)
    tokens = Tokens(torch.ones(1, 4, dtype=torch.bool), torch.full((1, 4), 1e-3))
    expected = hidden[:, :, 0] * (2.0 if pool.__name__ == "root_length_mean" else 1.0)
    torch.testing.assert_close(pool(hidden, tokens), expected, rtol=1e-5, atol=1e-5)


def test_the_inputs_are_left_untouched(pool):
    hidden, tokens = batch([3, 5])
    copies = hidden.clone(), tokens.mask.clone(), tokens.frequency.clone()
    pool(hidden, tokens)
    assert torch.equal(hidden, copies[0])
    assert torch.equal(tokens.mask, copies[1])
    assert torch.equal(tokens.frequency, copies[2])


def test_layers_are_pooled_independently(pool):
    hidden, tokens = batch([3, 5])
    each = torch.stack([pool(layer, tokens) for layer in hidden])
    torch.testing.assert_close(pool(hidden, tokens), each)


def test_gradients_are_finite_and_reach_only_real_tokens(pool):
    hidden, tokens = batch([3, 5], filler=2.0)
    hidden.requires_grad_()
    pool(hidden, tokens).sum().backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad[:, ~tokens.mask] == 0).all()


def test_half_precision_states_come_back_in_their_type_close_to_float32(pool):
    hidden, tokens = batch([400])
    half = pool(hidden.to(torch.bfloat16), tokens)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), pool(hidden, tokens), rtol=0.05, atol=0.05)


def test_nothing_but_padding_is_an_error_that_names_the_text():
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match="text 1 of 2 has no token to pool"):
        Tokens(mask)


def test_a_mask_of_numbers_is_an_error():
    with pytest.raises(ValueError, match="boolean"):
        Tokens(torch.ones(2, 3))


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_shapes_that_do_not_fit_are_an_error_that_names_the_axes(name):
    hidden, tokens = batch([3, 5])
    with pytest.raises((TypeError, RuntimeError)):
        POOLINGS[name](hidden[:, :, :2], tokens)


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_weights_are_zero_on_pads_and_sum_to_one(name):
    _, tokens = batch([3, 7, 1], left=2)
    weights = POOLINGS[name].weights(tokens)
    assert (weights[~tokens.mask] == 0).all()
    sums = tokens.mask.sum(-1).sqrt() if name == "root_length_mean" else torch.ones(3)
    torch.testing.assert_close(weights.sum(-1), sums)


# --- by hand: a numpy loop for each pooling ----------------------------------------------------

BY_HAND = {
    "mean": lambda x, p: x.mean(0),
    "first": lambda x, p: x[0],
    "last": lambda x, p: x[-1],
    "position_weighted_mean": lambda x, p: np.average(x, 0, np.arange(1, len(x) + 1)),
    "root_length_mean": lambda x, p: x.sum(0) / np.sqrt(len(x)),
    "inverse_frequency_mean": lambda x, p: np.average(x, 0, 1e-3 / (1e-3 + p)),
    "mean_without_first": lambda x, p: x[1:].mean(0) if len(x) > 1 else x[0],
    "last_half_mean": lambda x, p: x[len(x) // 2 :].mean(0),
    "norm_weighted_mean": lambda x, p: np.average(x, 0, np.linalg.norm(x, axis=1)),
    "max": lambda x, p: x.max(0),
    "min": lambda x, p: x.min(0),
    "log_mean_exp": lambda x, p: np.log(np.exp(x).mean(0)),
    "cubic_power_mean": lambda x, p: np.cbrt((x**3).mean(0)),
    "late_chunking": lambda x, p: by_chunks(x),
}


def by_chunks(states):
    """The mean direction of the means of equal chunks, as long as those means on average."""
    chunks = np.array_split(states, math.ceil(len(states) / CHUNK))
    means = np.array([chunk.mean(0) for chunk in chunks])
    norms = np.linalg.norm(means, axis=1)
    return (means / norms[:, None]).mean(0) * norms.mean()


def test_every_pooling_has_a_value_by_hand():
    assert set(BY_HAND) == set(POOLINGS)


@pytest.mark.parametrize("name", sorted(POOLINGS))
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_every_pooling_equals_its_value_by_hand(name, size):
    hidden, tokens = batch([size, 3], right=2)
    states = hidden[1, 0, :size].double().numpy()
    expected = BY_HAND[name](states, tokens.frequency[0, :size].double().numpy())
    found = POOLINGS[name](hidden, tokens)[1, 0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [64, 65, 127, 128, 129, 200])
def test_late_chunks_are_equal_and_no_longer_than_allowed(size):
    hidden, tokens = batch([size, 3, 70], left=2)
    hidden *= 100
    found = POOLINGS["late_chunking"](hidden, tokens)[1].numpy()
    for text, length in enumerate([size, 3, 70]):
        expected = by_chunks(hidden[1, text, -length:].double().numpy())
        np.testing.assert_allclose(found[text], expected, rtol=1e-4, atol=1e-5)


def test_a_chunk_of_large_states_has_no_more_say_in_late_chunking_than_another():
    hidden, tokens = batch([128])
    loud = hidden.clone()
    loud[:, :, :64] *= 100
    plain, louder = (POOLINGS["late_chunking"](states, tokens) for states in (hidden, loud))
    cosine = torch.cosine_similarity(plain, louder, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    means = POOLINGS["mean"](hidden, tokens), POOLINGS["mean"](loud, tokens)
    assert (torch.cosine_similarity(*means, dim=-1) < 0.999).all()


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        ("mean", "mean"),
        ("first", "cls"),
        ("last", "lasttoken"),
        ("max", "max"),
        ("root_length_mean", "mean_sqrt_len_tokens"),
        ("position_weighted_mean", "weightedmean"),
    ],
)
def test_the_stock_modes_agree_with_sentence_transformers(ours, stock):
    from sentence_transformers.sentence_transformer.modules import Pooling

    hidden, tokens = batch([3, 6, 1], right=2)
    features = {"token_embeddings": hidden[0], "attention_mask": tokens.mask.long()}
    expected = Pooling(DIM, stock)(features)["sentence_embedding"]
    torch.testing.assert_close(POOLINGS[ours](hidden[0], tokens), expected)


def test_frequency_weights_without_frequencies_are_an_error():
    with pytest.raises(ValueError, match="frequency of each token"):
        POOLINGS["inverse_frequency_mean"](torch.zeros(1, 2, 3), Tokens(torch.ones(1, 2) > 0))


# --- layer mixes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LAYER_MIXES))
@pytest.mark.parametrize("states", [5, 7, 31])
def test_layer_weights_sum_to_one_and_leave_the_embeddings_out(name, states):
    weights = LAYER_MIXES[name](states)
    assert weights.shape == (states,)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == 0


def test_layer_mixes_by_hand():
    assert LAYER_MIXES["last"](5).tolist() == [0, 0, 0, 0, 1]
    assert LAYER_MIXES["first_last"](5).tolist() == [0, 0.5, 0, 0, 0.5]
    assert LAYER_MIXES["last_four"](6).tolist() == [0, 0, 0.25, 0.25, 0.25, 0.25]
    assert LAYER_MIXES["mean_of_all"](5).tolist() == [0, 0.25, 0.25, 0.25, 0.25]
    assert one_layer(-2, 5).tolist() == [0, 0, 0, 1, 0]


def test_a_mix_that_needs_more_layers_and_a_missing_layer_are_errors():
    with pytest.raises(ValueError, match="needs 4 layers"):
        LAYER_MIXES["last_four"](4)
    with pytest.raises(ValueError, match=r"layer 5 does not exist.*0 \(embeddings\) to 4"):
        one_layer(5, 5)


def test_unknown_names_are_errors_that_name_the_nearest():
    with pytest.raises(LookupError, match=r"no pooling named 'maen'.*did you mean 'mean'"):
        POOLINGS["maen"]
    with pytest.raises(LookupError, match="did you mean 'first_last'"):
        LAYER_MIXES["first-last"]


def test_a_name_can_be_registered_once():
    with pytest.raises(ValueError, match="'mean' is already registered"):
        POOLINGS(lambda hidden, tokens: hidden, "mean")
