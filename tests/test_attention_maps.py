"""Attention maps: those that transformers computes, under the settings of the model, one by one."""

import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny import DECODERS, ENCODERS, build, ids

from lab import models
from lab.models.architecture import position_ids
from lab.models.attention import prepare
from lab.models.attention_maps import read_maps
from lab.models.encoder import Encoder
from lab.models.temperature import Temperature, set_temperature

ALL = DECODERS + ENCODERS
LONG, SHORT = 9, 6


def wrapped(model, attention="native"):
    """What ``read_maps`` needs of a lab model, around a tiny transformers model."""
    prepare(model, attention, None)
    encoder = SimpleNamespace(model=model, attention=attention, extends=None)
    encoder.read = partial(Encoder.read, encoder)
    return SimpleNamespace(encoder=encoder)


def batch(texts, side="right"):
    """Token ids (1, n) of each text in one padded batch."""
    rows, masks = [], []
    for tokens in texts:
        gap = (LONG - tokens.shape[1], 0) if side == "left" else (0, LONG - tokens.shape[1])
        rows.append(torch.nn.functional.pad(tokens, gap, value=1))
        masks.append(torch.nn.functional.pad(torch.ones_like(tokens), gap))
    return {"input_ids": torch.cat(rows), "attention_mask": torch.cat(masks)}


def maps_of(model, features, attention="native"):
    """Every map of a pass, which nothing but a test should keep."""
    found = []
    read_maps(wrapped(model, attention), features, lambda layer, maps, _: found.append(maps))
    return found


def own_maps(model, tokens):
    """The maps that transformers itself gives out, of a model that is eager from the beginning."""
    mask = torch.ones_like(tokens)
    places = position_ids(model, mask)
    more = {} if places is None else {"position_ids": places}
    with torch.no_grad():
        out = model(tokens, attention_mask=mask, output_attentions=True, **more)
    return out.attentions


@pytest.mark.parametrize("name", ALL)
def test_maps_are_those_that_transformers_gives_out(name):
    found, expected = (
        maps_of(build(name), batch([ids()])),
        own_maps(build(name, attn_implementation="eager"), ids()),
    )
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == (1, 4, LONG, LONG)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ALL)
def test_rows_sum_to_one_and_pads_are_inert(name, side):
    # T5 does not scale its dot products: with sharp random weights float32 loses digits.
    model = build(name).double() if name == "t5" else build(name)
    texts = [ids(LONG), ids(SHORT, seed=1)]
    features = batch(texts, side)
    together = maps_of(model, features)
    for row, tokens in enumerate(texts):
        real = features["attention_mask"][row].bool()
        alone = maps_of(model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
        for padded, expected in zip(together, alone, strict=True):
            cut = padded[row][:, real][:, :, real]
            assert (cut.sum(-1) - 1).abs().max() < 1e-5
            torch.testing.assert_close(cut, expected[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ALL)
def test_a_temperature_raises_the_weights_of_the_first_layer_to_its_inverse(name, side):
    features = batch([ids(LONG), ids(SHORT, seed=1)], side)
    real = features["attention_mask"].bool()[:, None, :, None]
    flat = maps_of(build(name), features)[0]
    for value in (0.5, 2.0):
        model = build(name)
        set_temperature(model, Temperature((value,)))
        found = maps_of(model, features)
        assert all(maps.isfinite().all() for maps in found)  # rows that are all pads, too
        power = flat ** (1 / value)
        expected = power / power.sum(-1, keepdim=True)
        torch.testing.assert_close(found[0] * real, expected * real, atol=1e-5, rtol=1e-3)
        assert ((found[0] - flat) * real).abs().max() > 1e-3
        assert torch.equal(found[0].argmax(-1) * real[..., 0], flat.argmax(-1) * real[..., 0])
        change = (of_entropy(found[0]) - of_entropy(flat)) * real[..., 0]
        assert (change * (1 if value > 1 else -1)).min() > -1e-5
        assert change.abs().max() > 1e-4


def of_entropy(maps):
    """(batch, head, query) in nats."""
    return torch.special.entr(maps).sum(-1)


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "gpt_neo"])
def test_maps_show_the_attention_mode(name):
    causal = maps_of(build(name), batch([ids()]))
    assert all(maps.triu(1).abs().max() == 0 for maps in causal)
    both = maps_of(build(name), batch([ids()]), "bidirectional")
    assert all(maps.triu(1).abs().max() > 1e-4 for maps in both)


@pytest.mark.parametrize(("name", "projection"), [("llama", "v_proj"), ("bert", "value")])
def test_values_are_those_of_the_projection_one_for_each_key_head(name, projection):
    changes = {"num_key_value_heads": 2} if name == "llama" else {}
    model, seen, values = build(name, **changes), [], []
    for part, module in model.named_modules():
        if part.endswith(projection):
            module.register_forward_hook(lambda *call: seen.append(call[-1]))
    read_maps(wrapped(model), batch([ids()]), lambda layer, maps, value: values.append(value))
    for value, projected in zip(values, seen[-3:], strict=True):
        assert value.shape == (1, 2 if name == "llama" else 4, LONG, 16)
        assert torch.equal(value.transpose(1, 2).flatten(2), projected)


@pytest.mark.parametrize(
    ("name", "kept"), [("llama", 0), ("bert", 0), ("mpnet", 0), ("gpt_neo", 1)]
)
def test_maps_are_gone_before_the_next_one_comes_or_the_one_after_that(name, kept):
    alive, seen = [], []

    def look(layer, maps, value):
        alive.append(sum(one() is not None for one in seen))
        seen.append(weakref.ref(maps))

    read_maps(wrapped(build(name)), batch([ids()]), look)
    assert alive == [0, kept, kept]


@pytest.mark.parametrize("name", ["llama", "bert", "mpnet", "gpt_neo", "t5", "deberta-v2"])
@pytest.mark.parametrize("fails", [False, True])
def test_reading_leaves_the_model_as_it_was_even_after_an_exception(name, fails):
    model = build(name)
    backend, state = model.config._attn_implementation, states_of(model)
    assert backend == "sdpa" or name in ("mpnet", "gpt_neo", "t5", "deberta-v2")

    def look(layer, maps, value):
        if fails and layer == 1:
            raise KeyboardInterrupt

    model.train()
    if fails:
        with pytest.raises(KeyboardInterrupt):
            read_maps(wrapped(model), batch([ids()]), look)
    else:
        read_maps(wrapped(model), batch([ids()]), look)
    assert model.training
    model.eval()
    assert model.config._attn_implementation == backend
    assert torch._C._len_torch_function_stack() == 0
    assert torch.equal(states_of(model), state)
    assert len(maps_of(model, batch([ids()]))) == 3


def states_of(model):
    kept = []
    with torch.no_grad():
        wrapped(model).encoder.read(batch([ids()]), lambda layer, hidden: kept.append(hidden), 3)
    return torch.stack(kept)


def test_a_model_in_training_is_read_without_dropout():
    model = build("bert")
    expected = maps_of(model, batch([ids()]))
    model.train()
    for ours, plain in zip(maps_of(model, batch([ids()])), expected, strict=True):
        assert torch.equal(ours, plain)


def test_states_come_along_and_in_order():
    model, order, kept = build("bert"), [], []
    read_maps(
        wrapped(model),
        batch([ids()]),
        lambda layer, maps, value: order.append(("map", layer)),
        lambda layer, hidden: kept.append(hidden) or order.append(("state", layer)),
    )
    expected = [("state", 0)]
    for layer in range(3):
        expected += [("map", layer), ("state", layer + 1)]
    assert order == expected
    torch.testing.assert_close(torch.stack(kept), states_of(model), atol=1e-4, rtol=1e-4)


def test_settings_of_a_lab_model_act():
    model = models.load("random:bert", temperature=0.5, template="say: {text}")
    features = model.encoder.collate(model.encoder.tokenise(["a text", "another"]))
    kept = []
    read_maps(model, features, lambda layer, maps, value: kept.append(maps))
    other = models.variant(model, temperature=1.0)
    plain = []
    read_maps(other, features, lambda layer, maps, value: plain.append(maps))
    power = plain[0][0] ** 2
    torch.testing.assert_close(
        kept[0][0], power / power.sum(-1, keepdim=True), atol=1e-6, rtol=1e-4
    )
    assert features["input_ids"].shape[1] > len("another")


def test_a_model_that_runs_while_maps_of_another_are_read_disturbs_neither():
    model, other = (models.load("random:mpnet", seed=seed) for seed in (0, 1))
    sharp = models.variant(other, temperature=0.5)
    features = model.encoder.collate(model.encoder.tokenise(["a text", "another"]))
    alone, kept, within = [], [], []
    read_maps(model, features, lambda layer, maps, value: alone.append(maps))
    expected = [one.encode(["q"]) for one in (other, sharp)]

    def look(layer, maps, value):
        kept.append(maps)
        within.append([one.encode(["q"]) for one in (other, sharp)])

    read_maps(model, features, look)
    for ours, plain in zip(kept, alone, strict=True):
        assert torch.equal(ours, plain)
    assert len(within) == 3
    assert all((one == two).all() for rows in within for one, two in zip(rows, expected, strict=1))
    assert torch._C._len_torch_function_stack() == 0
    assert (sharp.encode(["q"]) == expected[1]).all()


def test_a_backend_that_keeps_its_weights_is_named(monkeypatch):
    model = build("llama")
    monkeypatch.setattr(type(model), "set_attn_implementation", lambda self, name: None)
    with pytest.raises(ValueError, match="llama keeps its attention weights to itself"):
        maps_of(model, batch([ids()]))


def test_a_model_without_attention_is_named(monkeypatch):
    from lab.models import attention_maps

    monkeypatch.setattr(attention_maps, "attention_modules", lambda model: [])
    with pytest.raises(ValueError, match="llama has no dot-product attention, so it has no maps"):
        maps_of(build("llama"), batch([ids()]))
