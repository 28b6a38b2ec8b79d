"""Attention modes and padding on every architecture: information flows where it should."""

import pytest
import torch
from tiny import DECODERS, ENCODERS, LENGTH, WINDOWED, build, ids

from lab.models import architecture, states
from lab.models.attention import MODES, forward_kwargs, prepare
from lab.models.temperature import temperature_of_batch

# What transformers 5.23 cannot do, measured (docs/decisions.md, D6).
IMPOSSIBLE = {
    ("gpt_neo", "bidirectional"): "its causal mask is a buffer of its own",
    ("gpt_neo", "prefix"): "its causal mask is a buffer of its own",
    ("bloom", "prefix"): "ALiBi is built from a 2-D mask",
    ("deberta-v2", "causal"): "disentangled attention takes a 2-D mask",
    ("deberta-v2", "prefix"): "disentangled attention takes a 2-D mask",
}
CASES = [
    (name, mode) for name in DECODERS + ENCODERS for mode in MODES if (name, mode) not in IMPOSSIBLE
]
PREFIX = 4


@torch.no_grad()
def last_states(model, mode, tokens, *, left=0, right=0):
    """The last states of the real tokens under a mode, with pads around them."""
    prepare(model, mode, None)
    pad = torch.nn.functional.pad
    mask = pad(torch.ones_like(tokens), (left, right))
    inputs = forward_kwargs(model, mode, mask, torch.tensor([PREFIX] * len(tokens)))
    kept = {}
    with temperature_of_batch(model, mask):
        states.read(
            model,
            {"input_ids": pad(tokens, (left, right), value=1), **inputs},
            lambda layer, hidden: kept.__setitem__(layer, hidden),
        )
    return kept[architecture.depth(model)][:, left : left + tokens.shape[1]]


def changed(tokens, position):
    """The same tokens with another one at a position."""
    other = tokens.clone()
    other[0, position] = (other[0, position] + 77) % 200 + 10
    return other


@pytest.fixture(scope="module")
def model_of():
    """One model per architecture for the whole module."""
    built = {}
    return lambda name: built.setdefault(name, build(name))


def test_at_least_14_decoders_and_6_encoders_are_told_apart_by_measurement(model_of):
    assert len(DECODERS) >= 14
    assert len(ENCODERS) >= 6
    found = {name: architecture.is_decoder(model_of(name)) for name in DECODERS + ENCODERS}
    assert found == {**dict.fromkeys(DECODERS, True), **dict.fromkeys(ENCODERS, False)}


@pytest.mark.parametrize(("name", "mode"), CASES)
@pytest.mark.parametrize(("left", "right"), [(0, 0), (4, 0), (0, 4)])
def test_the_last_token_reaches_the_first_only_when_attention_is_bidirectional(
    model_of, name, mode, left, right
):
    model, tokens = model_of(name), ids()
    before = last_states(model, mode, tokens, left=left, right=right)
    after = last_states(model, mode, changed(tokens, -1), left=left, right=right)
    reach = (before - after)[0, 0].abs().max()
    two_sided = mode == "bidirectional" or (mode == "native" and name in ENCODERS)
    if two_sided:
        assert reach > 1e-3
    else:
        assert reach == 0


@pytest.mark.parametrize("name", [name for name, mode in CASES if mode == "prefix"])
@pytest.mark.parametrize("left", [0, 4])
def test_the_end_of_the_prefix_reaches_its_start_and_what_follows_it_does_not(model_of, name, left):
    model, tokens = model_of(name), ids()
    before = last_states(model, "prefix", tokens, left=left)
    inside = last_states(model, "prefix", changed(tokens, PREFIX - 1), left=left)
    after = last_states(model, "prefix", changed(tokens, PREFIX), left=left)
    assert (before - inside)[0, 0].abs().max() > 1e-3
    assert (before - after)[0, :PREFIX].abs().max() == 0


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_padding_on_either_side_changes_nothing(model_of, name, mode):
    model, tokens = model_of(name), ids()
    alone = last_states(model, mode, tokens)
    scale = alone.abs().max()
    assert (last_states(model, mode, tokens, left=5) - alone).abs().max() < 1e-5 * scale
    assert (last_states(model, mode, tokens, right=5) - alone).abs().max() < 1e-5 * scale


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_left_padding_without_our_position_ids_is_wrong(model_of, name):
    model, tokens = model_of(name), ids()
    prepare(model, "native", None)
    pad = torch.nn.functional.pad
    with torch.no_grad():
        alone = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]
        padded = model(
            input_ids=pad(tokens, (5, 0), value=1),
            attention_mask=pad(torch.ones_like(tokens), (5, 0)),
        )[0][:, 5:]
    assert (alone - padded).abs().max() > 0.1  # the law above can fail


def test_our_position_ids_equal_those_roberta_derives_from_its_input(model_of):
    model, tokens = model_of("roberta"), torch.cat([ids(), torch.ones(1, 3).long()], -1)
    mask = (tokens != 1).long()
    ours = architecture.position_ids(model, mask)
    theirs = model.embeddings.create_position_ids_from_input_ids(tokens, 1)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", sorted(WINDOWED - {"modernbert"}))
def test_a_bidirectional_window_is_as_wide_on_both_sides(name):
    model = build(name, num_hidden_layers=1, layer_types=["sliding_attention"])
    tokens = ids(15)
    before = last_states(model, "bidirectional", tokens)
    after = last_states(model, "bidirectional", changed(tokens, 7))
    touched = (before - after)[0].abs().amax(-1) > 0
    reached = touched.nonzero().flatten().tolist()
    assert reached[0] == 14 - reached[-1]
    assert reached == list(range(reached[0], reached[-1] + 1))
    assert 0 < reached[0] < 7


def test_changing_modes_back_and_forth_leaves_no_trace(model_of):
    model, tokens = model_of("llama"), ids()
    native = last_states(model, "native", tokens)
    last_states(model, "bidirectional", tokens)
    assert torch.equal(last_states(model, "native", tokens), native)


def test_an_unknown_mode_is_an_error_that_names_the_nearest(model_of):
    with pytest.raises(LookupError, match="did you mean 'bidirectional'"):
        prepare(model_of("llama"), "bidirektional", None)


def test_a_custom_mask_under_flash_attention_is_refused(model_of):
    model = build("llama")
    architecture.is_decoder(model)
    model.config._attn_implementation_internal = "flash_attention_2"
    mask = torch.ones(1, LENGTH).long()
    with pytest.raises(ValueError, match=r"prefix.*flash_attention_2"):
        forward_kwargs(model, "prefix", mask, torch.tensor([PREFIX]))


def test_a_bidirectional_window_under_flash_attention_is_refused():
    model = build("mistral", sliding_window=6)
    architecture.is_decoder(model)
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match=r"bidirectional.*flash_attention_2"):
        forward_kwargs(model, "bidirectional", torch.ones(1, LENGTH).long())
