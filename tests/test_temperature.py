"""The attention temperature: three independent routes agree, and one is no change."""

import math

import pytest
import torch
from test_attention import last_states
from tiny import DECODERS, ENCODERS, build, ids

from lab import models
from lab.models import architecture, states
from lab.models.attention import forward_kwargs, prepare
from lab.models.temperature import (
    Temperature,
    inverse_temperatures,
    set_temperature,
    temperature_of_batch,
)

ALL = DECODERS + ENCODERS
PER_LAYER = (1.7, 0.6, 3.0)
# Logits that hold more than the dot product: folding a temperature into the weights is not the
# same there (core.md 1.2, attention.md 4.3), so those have a route of their own below.
MORE_THAN_DOT = {"gemma2", "bloom", "mpnet", "t5"}
WITHOUT_SCALING = {"modernbert", "modernbert-decoder"}


def values_of(name):
    """One temperature per layer, or one where all layers share their weights."""
    return (1.7,) if name == "albert" else PER_LAYER


def by_attribute(model, temperature):
    """Route 2: divide the ``scaling`` attribute of every attention module."""
    for layer, module in architecture.attention_modules(model):
        module.scaling = module.scaling / temperature.of_layer(layer)


def divide_rows(linear, start, stop, value):
    """Divide some output rows of a linear layer, bias included; Conv1D keeps them in columns."""
    columns = type(linear).__name__ == "Conv1D"
    part = linear.weight[:, start:stop] if columns else linear.weight[start:stop]
    part.div_(value)
    if linear.bias is not None:
        linear.bias[start:stop].div_(value)


@torch.no_grad()
def by_weights(name, model, temperature):
    """Route 3: divide what makes the queries: rows of W_q and b_q, or the gain of a query norm."""
    config = model.config
    heads = config.num_attention_heads
    for layer, module in architecture.attention_modules(model):
        value = temperature.of_layer(layer)
        parts = dict(module.named_modules())
        if "q_norm" in parts:
            gain = parts["q_norm"].weight
            gain.copy_((1 + gain) / value - 1 if name == "gemma3_text" else gain / value)
        elif name in ("gpt_neox", "falcon_new", "bloom"):
            size = config.hidden_size // heads
            rows = parts["query_key_value"]
            rows.weight.view(heads, 3, size, -1)[:, 0].div_(value)
            rows.bias.view(heads, 3, size)[:, 0].div_(value)
        else:
            key = next(
                key
                for key in (
                    "q_proj",
                    "query",
                    "q_lin",
                    "q",
                    "query_proj",
                    "qkv_proj",
                    "Wqkv",
                    "c_attn",
                    "query_key_value",
                    "qkv",
                )
                if key in parts
            )
            fused = key in ("qkv_proj", "Wqkv", "c_attn", "query_key_value", "qkv")
            width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
            linear = parts[key]
            outputs = width if fused else linear.weight.shape[0]
            divide_rows(linear, 0, outputs, value)


@pytest.mark.parametrize("name", ALL)
def test_temperature_one_is_the_untouched_model_bit_for_bit(name):
    model, tokens = build(name), ids()
    untouched = last_states(model, "native", tokens, left=3)
    set_temperature(model, Temperature((1.0,)))
    assert torch.equal(last_states(model, "native", tokens, left=3), untouched)
    set_temperature(model, Temperature((2.0,)))
    assert (last_states(model, "native", tokens, left=3) - untouched).abs().max() > 1e-4
    set_temperature(model, None)
    assert torch.equal(last_states(model, "native", tokens, left=3), untouched)


@pytest.mark.parametrize("name", [n for n in ALL if n not in MORE_THAN_DOT])
def test_three_routes_to_a_temperature_agree(name):
    temperature, tokens = Temperature(values_of(name)), ids()
    ours = build(name)
    set_temperature(ours, temperature)
    expected = last_states(ours, "native", tokens, left=3)
    scale = expected.abs().max()

    folded = build(name)
    by_weights(name, folded, temperature)
    assert (last_states(folded, "native", tokens, left=3) - expected).abs().max() < 2e-6 * scale

    attributed = build(name)
    modules = [module for _, module in architecture.attention_modules(attributed)]
    if all(isinstance(getattr(module, "scaling", None), float) for module in modules):
        by_attribute(attributed, temperature)
        change = (last_states(attributed, "native", tokens, left=3) - expected).abs().max()
        assert change < 2e-6 * scale


@pytest.mark.parametrize("name", ["llama", "bert", "qwen3", "gemma3_text", "gpt2", "phi", "olmo2"])
def test_the_attribute_route_exists_where_the_test_above_relies_on_it(name):
    modules = [module for _, module in architecture.attention_modules(build(name))]
    assert all(isinstance(module.scaling, float) for module in modules)


def test_a_soft_cap_is_divided_too():
    temperature, tokens = Temperature((1.7,)), ids()
    ours, other = (
        build("gemma2", attn_logit_softcapping=2.0),
        build("gemma2", attn_logit_softcapping=2.0),
    )
    set_temperature(ours, temperature)
    for _, module in architecture.attention_modules(other):
        module.scaling /= 1.7
        module.attn_logit_softcapping = module.attn_logit_softcapping / 1.7
    expected = last_states(other, "native", tokens)
    assert (
        last_states(ours, "native", tokens) - expected
    ).abs().max() < 2e-6 * expected.abs().max()


@torch.no_grad()
def test_a_relative_position_bias_is_divided_too():
    tokens = ids()
    for name in ("t5", "mpnet"):
        ours, other = build(name).double(), build(name).double()
        set_temperature(ours, Temperature((1.7,)))
        for module_name, module in other.named_modules():
            if module_name.endswith((".q", ".attn.q")):
                divide_rows(module, 0, module.weight.shape[0], 1.7)
            if module_name.endswith("relative_attention_bias"):
                module.weight.div_(1.7)
        expected = last_states(other, "native", tokens)
        change = (last_states(ours, "native", tokens) - expected).abs().max()
        assert change < 2e-6 * expected.abs().max()


@torch.no_grad()
def test_alibi_is_divided_too():
    tokens = ids()
    ours, other = build("bloom"), build("bloom")
    set_temperature(ours, Temperature((1.7,)))
    for _, module in architecture.attention_modules(other):
        module.beta, module.inv_norm_factor = module.beta / 1.7, module.inv_norm_factor / 1.7
    expected = last_states(other, "native", tokens)
    change = (last_states(ours, "native", tokens) - expected).abs().max()
    assert change < 2e-6 * expected.abs().max()


@pytest.mark.parametrize("name", ALL)
def test_a_low_temperature_gives_no_nan_where_left_pads_mask_whole_rows(name):
    # T5 does not scale its dot products: with sharp random weights float32 loses digits.
    model = build(name).double() if name == "t5" else build(name)
    set_temperature(model, Temperature((0.5,)))
    alone = last_states(model, "native", ids())
    padded = last_states(model, "native", ids(), left=4)
    assert padded.isfinite().all()
    assert (alone - padded).abs().max() < 1e-5 * alone.abs().max()


@torch.no_grad()
def test_attention_gets_flatter_as_the_temperature_rises():
    entropies = []
    for value in (0.25, 0.5, 1.0, 2.0, 4.0):
        model = build("llama")
        model.set_attn_implementation("eager")
        set_temperature(model, Temperature((value,)))
        last_states(model, "bidirectional", ids())  # makes the wrapper act on this backend
        maps = model(
            ids(), attention_mask=torch.ones(1, 9).long(), output_attentions=True, use_cache=False
        ).attentions[0]
        entropies.append(float(-(maps * maps.clamp_min(1e-30).log()).sum(-1).mean()))
    assert entropies == sorted(entropies)
    assert entropies[-1] <= math.log(9)


def test_the_switch_of_a_backend_keeps_the_temperature():
    model, tokens = build("llama"), ids()
    set_temperature(model, Temperature((2.0,)))
    expected = last_states(model, "native", tokens)
    model.set_attn_implementation("eager")
    assert (last_states(model, "native", tokens) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "mpnet", "gpt_neo", "bloom"])
def test_log_n_divides_by_log_reference_over_log_n_for_each_text_of_a_batch(name):
    long, short = ids(16), ids(8)
    model = build(name)
    set_temperature(model, Temperature(reference_length=8))
    batch = torch.cat([long, torch.nn.functional.pad(short, (0, 8), value=1)])
    mask = torch.ones_like(batch)
    mask[1, 8:] = 0
    prepare(model, "native", None)
    both = read(model, batch, mask)
    same = build(name)
    set_temperature(same, Temperature((math.log(8) / math.log(16),)))
    expected = read(same, long, torch.ones_like(long))
    assert (both[0] - expected[0]).abs().max() < 1e-5 * expected.abs().max()
    untouched = read(build(name), short, torch.ones_like(short))
    assert (both[1, :8] - untouched[0]).abs().max() < 1e-5 * untouched.abs().max()


def read(model, tokens, mask):
    """The last states of a batch, temperature included."""
    kept = []
    with torch.no_grad(), temperature_of_batch(model, mask):
        states.read(
            model,
            {"input_ids": tokens, **forward_kwargs(model, "native", mask)},
            lambda layer, hidden: kept.append(hidden),
        )
    return kept[-1]


def test_gradients_with_checkpointing_equal_those_without():
    def gradient(checkpointing):
        model = build("llama")
        set_temperature(model, Temperature((1.5,)))
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()
        prepare(model, "bidirectional", None)
        mask = torch.ones(1, 9).long()
        kept = []
        with temperature_of_batch(model, mask):
            states.read(
                model,
                {"input_ids": ids(), **forward_kwargs(model, "bidirectional", mask)},
                lambda layer, hidden: kept.append(hidden.mean()),
            )
        torch.stack(kept).sum().backward()
        return model.layers[0].self_attn.q_proj.weight.grad

    assert torch.equal(gradient(True), gradient(False))


def test_log_n_under_gradient_checkpointing_is_refused():
    model = build("llama")
    model.activation_checkpointing_enable()
    set_temperature(model, Temperature(reference_length=4))
    with (
        pytest.raises(ValueError, match="gradient checkpointing"),
        temperature_of_batch(model, torch.ones(1, 9).long()),
    ):
        pass


def test_an_exception_inside_inline_attention_leaves_no_mode_on_the_stack():
    model = build("mpnet")
    set_temperature(model, Temperature((2.0,)))
    _, module = architecture.attention_modules(model)[0]
    handle = module.dropout.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read(model, ids(), torch.ones(1, 9).long())
    handle.remove()
    assert torch._C._len_torch_function_stack() == 0
    assert read(model, ids(), torch.ones(1, 9).long()).isfinite().all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (0, "positive finite"),
        (-1.0, "positive finite"),
        (float("nan"), "positive finite"),
        (float("inf"), "positive finite"),
        (True, "positive finite"),
        ([1.0, 0.0, 1.0], "positive"),
        ([1.0, 2.0], "2 temperatures for 3 layers"),
        ("log-n", "log-n/L"),
        ("warm", "log-n/L"),
    ],
)
def test_a_temperature_that_is_none_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Temperature.parse(setting, 3)


def test_shared_layers_take_one_temperature_only():
    with pytest.raises(ValueError, match="albert are one module"):
        set_temperature(build("albert"), Temperature(PER_LAYER))


def test_a_soft_cap_refuses_log_n():
    with pytest.raises(ValueError, match="caps its logits"):
        set_temperature(build("gemma2"), Temperature(reference_length=8))


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("albert", "gemma2")])
def test_a_tensor_of_temperatures_acts_as_the_numbers_do_and_passes_a_gradient(name):
    model, tokens = build(name), ids()
    plain = last_states(model, "native", tokens, left=2)
    set_temperature(model, Temperature(PER_LAYER))
    fixed = last_states(model, "native", tokens, left=2)
    set_temperature(model, None)
    inverse = (1 / torch.tensor(PER_LAYER)).requires_grad_()
    with inverse_temperatures(model, inverse):
        learned = last_states.__wrapped__(model, "native", tokens, left=2)  # with its gradient
    learned.pow(3).mean().backward()
    assert (learned - fixed).abs().max() < 1e-5 * fixed.abs().max()
    assert (inverse.grad != 0).all()
    again = last_states(model, "native", tokens, left=2)
    assert torch.equal(again, plain), "what was set before comes back"


def test_temperatures_that_cannot_be_learned_are_refused():
    numbers = torch.ones(3)
    with (
        pytest.raises(ValueError, match="gemma2 caps its logits"),
        inverse_temperatures(build("gemma2"), numbers),
    ):
        pass
    with (
        pytest.raises(ValueError, match="albert are one module"),
        inverse_temperatures(build("albert"), numbers),
    ):
        pass
    model = build("llama")
    with (
        pytest.raises(ValueError, match=r"\(3,\); got \(2,\)"),
        inverse_temperatures(model, numbers[:2]),
    ):
        pass
    set_temperature(model, Temperature(reference_length=4))
    with pytest.raises(ValueError, match="on top of log-n"), inverse_temperatures(model, numbers):
        pass


@pytest.mark.parametrize("temperature", [1.0, [1.0, 1.0, 1.0]])
def test_temperatures_of_one_are_no_change_and_no_error(temperature):
    assert models.load("random:llama", temperature=temperature, device="cpu")
