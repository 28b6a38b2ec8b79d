"""Context extension: every method against its oracle, on real modelling code."""

import copy
import math
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Normalize
from tiny import build, ids

from lab import models
from lab.models import architecture, attention_maps, moved_positions, self_extend, states
from lab.models.attention import forward_kwargs, prepare
from lab.models.extension import EXTENSIONS, Extension, Method, check, extended
from lab.models.interception import inside, install
from lab.models.moved_positions import grouped, interpolated, ntk_factor, recurrent
from lab.models.positions import frequencies, rotary_modules, scheme
from lab.models.self_extend import relative_positions
from lab.models.temperature import (
    Temperature,
    inverse_temperatures,
    set_temperature,
    temperature_of_batch,
)
from lab.pooling import POOLINGS
from lab.readout import read_out

ROTARY = (
    "llama mistral qwen3 gemma2 gemma3_text gpt_neox phi phi3 olmo2 smollm3 modernbert-decoder "
    "falcon modernbert nomic_bert gte eurobert"
).split()
LEARNED = "gpt2 opt gpt_neo bert distilbert roberta electra albert".split()
OTHER = "bloom t5 mpnet deberta-v2".split()
INLINE = {"falcon"}
SCHEMES = {
    **dict.fromkeys(ROTARY, "rotary"),
    **dict.fromkeys(LEARNED, "learned"),
    **dict.fromkeys(OTHER, "relative or none"),
}
# One setting of each method, on texts of more than 12 tokens.
SETTINGS = {
    "parallel-windows": "parallel-windows/12",
    "grouped": "grouped/12",
    "recurrent": "recurrent/12",
    "interpolated": "interpolated/12",
    "ntk": "ntk/12",
    "self-extend": "self-extend/12/3/5",
}
NUMBERS = {"ntk": "/1", "self-extend": "/1/5"}  # that change nothing at any length
SHORT = "hello you"  # 11 tokens: 9 bytes and <s> </s>
LONG = "a text of 40 bytes goes on for some while"
READ = {"llama", "bert"}
CASES = [
    (name, method)
    for name in ("llama", "gemma3_text", "gpt_neox", "modernbert", "bert", "roberta", "opt", "t5")
    for method, entry in EXTENSIONS.items()
    if not entry.schemes or SCHEMES[name] in entry.schemes
]


def run(model, setting, tokens, *, mode="native", left=0, mask=None):
    """The last states (batch, seq, dim) of the real tokens under an extension."""
    prepare(model, mode, None)
    pad = torch.nn.functional.pad
    mask = pad(torch.ones_like(tokens) if mask is None else mask, (left, 0))
    inputs = {"input_ids": pad(tokens, (left, 0), value=1), **forward_kwargs(model, mode, mask)}
    kept = []
    with (
        torch.no_grad(),
        temperature_of_batch(model, mask),
        extended(model, Extension.parse(setting), mask, inputs) as changed,
    ):
        states.read(model, changed, lambda layer, hidden: kept.append(hidden))
    return kept[-1][:, left:]


def close(found, expected, tolerance=1e-5):
    """Equal but for rounding, relative to the largest number."""
    return (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.fixture(scope="module")
def loaded():
    """One sharpened lab model per architecture for the whole module."""
    built = {}

    def load(name):
        if name not in built:
            built[name] = models.load(f"random:{name}")
            with torch.no_grad():
                for key, parameter in built[name].encoder.model.named_parameters():
                    if parameter.ndim >= 2 and "embed" not in key and "wte" not in key:
                        parameter.mul_(4)
        return built[name]

    return load


# --- formulas ----------------------------------------------------------------------------------


def test_the_relative_positions_of_self_extend_are_those_of_the_paper():
    found = relative_positions(10, group=2, window=4)
    assert found[0].tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6]
    assert found[4].tolist() == [-4, -3, -2, -1, 0, 1, 2, 3, 4, 4]


@settings(deadline=None)
@given(length=st.integers(1, 40), group=st.integers(1, 7), window=st.integers(1, 20))
def test_relative_positions_equal_the_formula_pair_by_pair(length, group, window):
    found = relative_positions(length, group, window)
    for i in range(length):
        for j in range(length):
            far = max(i, j) // group - min(i, j) // group + window - window // group
            expected = j - i if abs(j - i) < window else int(math.copysign(far, j - i))
            assert found[i, j] == expected
    assert torch.equal(found, -found.T)


def places(place, length, original):
    """Where the tokens of one text stand."""
    return place(torch.arange(length), torch.tensor(length), original)


@settings(deadline=None)
@given(length=st.integers(1, 300), original=st.integers(2, 60))
def test_moved_positions_obey_their_laws(length, original):
    scale = math.ceil(length / original)
    by_period = places(recurrent, length, original)
    assert torch.equal(by_period[original:], by_period[: max(0, length - original)])
    by_group = places(grouped, length, original)
    assert by_group.max() < original
    assert (by_group.bincount()[:-1] == scale).all()
    between = places(interpolated, length, original)
    assert between.max() < original
    assert torch.equal(between[::scale], torch.arange(len(between[::scale])).float())
    torch.testing.assert_close(
        between.diff(), torch.full((length - 1,), 1 / scale), atol=1e-5, rtol=0
    )
    for found in (by_period, by_group, between):
        assert length > original or torch.equal(found, torch.arange(length).to(found))


def test_the_factor_of_ntk_is_that_of_longembed_where_it_has_one():
    assert [ntk_factor(s) for s in (1, 2, 4, 8)] == [1, 3, 5, 10]
    assert [ntk_factor(s) for s in (3, 6, 16, 64)] == [4, 7.5, 20, 80]


def test_ntk_lowers_all_frequencies_but_the_first_to_those_of_a_larger_base():
    (rotary,) = rotary_modules(build("llama"))
    (own,) = frequencies(rotary).values()
    with moved_positions._based(rotary, 5.0):
        (found,) = frequencies(rotary).values()
        assert found[0] == 1
        expected = (10000 * 5.0) ** (-torch.arange(0, 16, 2) / 16)
        torch.testing.assert_close(found, expected)
    assert frequencies(rotary)["inv_freq"] is own
    assert not [name for name in rotary.state_dict()], "frequencies are not saved as weights"


# --- position schemes --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMES)
def test_the_position_scheme_is_found_by_measurement(name):
    for sharpness in (1.0, 4.0):
        assert scheme(build(name, sharpness=sharpness)) == SCHEMES[name]


def test_rotary_code_that_is_not_in_use_is_no_rotary_scheme():
    assert scheme(build("falcon", alibi=True)) == "relative or none"


def test_a_table_beside_a_relative_scheme_is_not_a_learned_scheme():
    assert scheme(build("deberta-v2", position_biased_input=True)) == "relative or none"


# --- laws of all methods -----------------------------------------------------------------------


def test_every_method_has_a_setting_here():
    assert set(SETTINGS) == set(EXTENSIONS)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_short_text_is_untouched_and_batch_mates_and_padding_never_matter(loaded, name, method):
    plain = loaded(name)
    model = models.variant(plain, extension=SETTINGS[method])
    short, long = (model.encode([text]) for text in (SHORT, LONG))
    assert np.array_equal(short, plain.encode([SHORT])), "not bit for bit"
    assert np.abs(long - plain.encode([LONG])).max() > 1e-4 * np.abs(long).max()
    texts = [SHORT, LONG, LONG[:20]]
    expected = np.concatenate([short, long, model.encode([LONG[:20]])])
    for side in ("left", "right"):
        batch = models.variant(model, padding_side=side).encode(texts)
        np.testing.assert_allclose(batch, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("method", ["grouped", "recurrent", "interpolated"])
def test_pads_behind_a_text_longer_than_the_table_ask_for_no_row_beyond_it(loaded, name, method):
    most = architecture.positions(loaded(name).encoder.model)
    model = models.variant(loaded(name), extension=f"{method}/{most}")
    texts = ["ab " * most, "cd " * (most // 2), "ef"]  # 3, 1.5 times the table, and less
    alone = np.concatenate([model.encode([text]) for text in texts])
    np.testing.assert_allclose(model.encode(texts), alone, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize(("name", "method"), [case for case in CASES if case[0] in READ])
def test_read_outs_equal_encode(loaded, name, method):
    model = models.variant(loaded(name), extension=SETTINGS[method])
    texts = [LONG, SHORT, LONG[::-1]]
    found = read_out(model, texts, poolings=("mean", "last", "max"), layers=[1, 3])
    for (layer, pooling), embeddings in found.items():
        other = models.variant(model, layers=layer, pooling=pooling)
        np.testing.assert_allclose(embeddings, other.encode(texts), atol=2e-5)
    assert found.lengths.tolist() == [len(LONG) + 2, len(SHORT) + 2, len(LONG) + 2]


@pytest.mark.parametrize("name", [name for name in ROTARY if name not in INLINE])
@pytest.mark.parametrize("method", NUMBERS)
def test_a_method_with_numbers_that_change_nothing_is_the_plain_model(name, method):
    model = build(name, **({"attn_logit_softcapping": 2.0} if name == "gemma2" else {}))
    setting = f"{method}/12{NUMBERS[method]}"
    for mode in ("native", "bidirectional"):
        expected = run(model, None, ids(40), mode=mode)
        assert close(run(model, setting, ids(40), mode=mode), expected)
        assert close(run(model, setting, ids(40), mode=mode, left=3), expected)


# --- rotary positions --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale", "factor"), [("llama", 2, 3), ("gpt_neox", 4, 5)])
def test_ntk_equals_a_model_with_a_larger_base(name, scale, factor):
    tokens = ids(12 * scale)
    rope = dict(build(name).config.rope_parameters)
    based = build(name, rope_parameters={**rope, "rope_theta": rope["rope_theta"] * factor})
    expected = run(based, None, tokens)
    assert not close(run(build(name), None, tokens), expected, 1e-3)
    assert close(run(build(name), "ntk/12", tokens), expected)
    assert close(run(build(name), f"ntk/12/{factor}", tokens), expected)


def test_ntk_changes_the_base_of_window_layers_too():
    rope = build("gemma3_text").config.rope_parameters
    based = {kind: {**one, "rope_theta": one["rope_theta"] * 3} for kind, one in rope.items()}
    expected = run(build("gemma3_text", rope_parameters=based), None, ids(24))
    assert close(run(build("gemma3_text"), "ntk/12", ids(24)), expected)


@pytest.mark.parametrize("name", ["llama", "phi"])
def test_interpolated_positions_equal_linear_scaling_of_transformers(name):
    rope = dict(build(name).config.rope_parameters)
    scaled = build(name, rope_parameters={**rope, "rope_type": "linear", "factor": 3.0})
    expected = run(scaled, None, ids(36))
    assert not close(run(build(name), None, ids(36)), expected, 1e-3)
    assert close(run(build(name), "interpolated/12", ids(36)), expected)


@pytest.mark.parametrize(("method", "place"), [("grouped", grouped), ("recurrent", recurrent)])
def test_rotary_positions_are_moved(method, place):
    model, tokens = build("llama"), ids(31)
    with torch.no_grad():
        expected = model(
            tokens,
            position_ids=places(place, 31, 12)[None],
            attention_mask=torch.ones_like(tokens),  # else they are taken for packed texts
            use_cache=False,
        )[0]
    assert close(run(model, f"{method}/12", tokens, left=2), expected)


# --- learned tables ----------------------------------------------------------------------------


def rows_by_hand(method, rows, length):
    """The positions of a text, by hand: rows (n, dim) of a table whose first L rows are used."""
    original = 20
    scale = math.ceil(length / original)
    if method == "interpolated":
        at = np.arange(length) / scale
        columns = [np.interp(at, np.arange(len(rows)), column) for column in rows.T.numpy()]
        return torch.tensor(np.array(columns)).T
    pick = [p // scale if method == "grouped" else p % original for p in range(length)]
    return rows[pick]


@pytest.mark.parametrize("method", ["grouped", "recurrent", "interpolated"])
@pytest.mark.parametrize(
    ("name", "table", "offset"),
    [
        ("bert", "embeddings.position_embeddings", 0),
        ("roberta", "embeddings.position_embeddings", 2),
        ("gpt2", "wpe", 0),
        ("opt", "decoder.embed_positions", 2),
    ],
)
@pytest.mark.parametrize("room", [20, 23])
def test_a_learned_table_equals_one_that_is_stretched_by_hand(name, table, offset, method, room):
    """Texts of 50 tokens on a table of 20 rows, all of which L takes, or of 23."""
    config_rows = room + (offset if name == "roberta" else 0)  # OPT adds its offset by itself
    small, tokens = build(name, max_position_embeddings=config_rows), ids(50)
    large = build(name, max_position_embeddings=50 + (offset if name == "roberta" else 0))
    weights = dict(small.state_dict())
    own = weights.pop(f"{table}.weight")
    large.load_state_dict(weights, strict=False)
    with torch.no_grad():
        large.get_submodule(table).weight[offset:] = rows_by_hand(method, own[offset:], 50)
    expected = run(large, None, tokens)
    found = run(small, f"{method}/20", tokens, left=3)
    assert close(found, expected)
    assert torch.equal(small.get_submodule(table).weight, own), "the table stays as it is"


def test_interpolation_of_a_table_reaches_a_gradient():
    model = build("bert", max_position_embeddings=20)
    mask = torch.ones(1, 40).long()
    inputs = {"input_ids": ids(40), **forward_kwargs(model, "native", mask)}
    with extended(model, Extension.parse("interpolated/20"), mask, inputs) as changed:
        model(**changed)[0].pow(2).sum().backward()
    assert (model.embeddings.position_embeddings.weight.grad.abs().sum(-1) > 0).all()


# --- SelfExtend --------------------------------------------------------------------------------

OUTPUTS = {
    "llama": "layers.0.self_attn.o_proj",
    "gpt_neox": "layers.0.attention.dense",
    "phi": "layers.0.self_attn.dense",
    "gemma3_text": "layers.0.self_attn.o_proj",
    "modernbert": "layers.0.attn.Wo",
}


def unrotated(model, tokens):
    """Queries, keys, values (head, seq, dim) of the first layer before their rotation.

    At position 0, where the rotation is none.
    """
    _, module = architecture.attention_modules(model)[0]
    kept = []

    def keep(module, query, key, value, *args, **kwargs):
        kept.append((query[0], key[0], value[0], kwargs["scaling"]))
        return query.transpose(1, 2), None

    install(model)
    inside(module).attend = keep
    try:
        with torch.no_grad():
            model(tokens, position_ids=torch.zeros_like(tokens), attention_mask=tokens * 0 + 1)
    finally:
        inside(module).attend = None
    return kept[0]


def turned(vectors, angle_steps, theta, rotary_dim):
    """Vectors (head, dim) rotated by a number of positions: pairs j and j + r/2, float64."""
    half = rotary_dim // 2
    angles = angle_steps * theta ** (-2 * torch.arange(half).double() / rotary_dim)
    first, second = vectors[..., :half], vectors[..., half:rotary_dim]
    rotated = [
        first * angles.cos() - second * angles.sin(),
        second * angles.cos() + first * angles.sin(),
    ]
    return torch.cat([*rotated, vectors[..., rotary_dim:]], -1)


def by_hand(model, tokens, relative, sees):
    """The first layer's attention maps and outputs, pair by pair, in float64."""
    query, key, value, scaling = (
        part.double() if isinstance(part, torch.Tensor) else part
        for part in unrotated(model, tokens)
    )
    config = model.config
    rope = config.rope_parameters
    rope = rope.get(config.layer_types[0], rope) if getattr(config, "layer_types", None) else rope
    rotary_dim = int(query.shape[-1] * rope.get("partial_rotary_factor", 1.0))
    repeats = len(query) // len(key)
    key, value = key.repeat_interleave(repeats, 0), value.repeat_interleave(repeats, 0)
    length = query.shape[1]
    logits = torch.full((len(query), length, length), -math.inf).double()
    for i in range(length):
        for j in range(length):
            if sees(i, j):
                moved = turned(key[:, j], relative[i, j], rope["rope_theta"], rotary_dim)
                logits[:, i, j] = (query[:, i] * moved).sum(-1) * scaling
    maps = logits.softmax(-1)
    return maps, (maps @ value).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("mode", ["native", "bidirectional"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_self_extend_equals_rotations_pair_by_pair(name, mode):
    windowless = {"layer_types": ["full_attention"] * 3} if name in ("gemma3_text",) else {}
    model, tokens = build(name, **windowless), ids(30)
    kept = []
    module = model.get_submodule(OUTPUTS[name])
    module.register_forward_pre_hook(lambda module, args: kept.append(args[0][0].double()))
    run(model, "self-extend/12/3/5", tokens, mode=mode)
    found = kept[-1]
    kept.clear()
    causal = mode == "native" and name != "modernbert"
    window = 3 if name == "modernbert" else 99  # the first layer sees 3 tokens to each side

    def sees(i, j):
        return (j <= i or not causal) and abs(i - j) <= window

    _, expected = by_hand(model, tokens, relative_positions(30, 3, 5), sees)
    assert close(found, expected)
    if name != "modernbert":  # whose window is narrower than w
        _, plain = by_hand(model, tokens, relative_positions(30, 1, 5), sees)
        assert not close(plain, expected, 1e-3), "the law above can fail"


def test_attention_maps_can_be_read_under_self_extend(loaded):
    model = models.variant(loaded("llama"), extension="self-extend/12/3/5", temperature=1.0)
    item = model.encoder.tokenise([LONG])[0]
    seen = []
    attention_maps.read_maps(
        model, model.encoder.collate([item]), lambda layer, weights, values: seen.append(weights)
    )
    assert len(seen) == 3
    expected, _ = by_hand(
        model.encoder.model,
        torch.tensor([item.ids]),
        relative_positions(len(item.ids), 3, 5),
        lambda i, j: j <= i,
    )
    torch.testing.assert_close(seen[0][0].double(), expected, atol=1e-5, rtol=1e-4)


def test_self_extend_in_parts_is_self_extend_in_one(monkeypatch):
    model = build("llama")
    whole = run(model, "self-extend/12/3/5", ids(30), left=4)
    monkeypatch.setattr(self_extend, "CELLS", 500)  # 3 queries at a time
    assert close(run(model, "self-extend/12/3/5", ids(30), left=4), whole)


def test_the_temperature_divides_the_logits_of_self_extend_too():
    tokens = ids(24)
    model = build("llama")
    set_temperature(model, Temperature((math.log(12) / math.log(24),)))
    expected = run(model, "self-extend/12/3/5", tokens)
    set_temperature(model, Temperature(reference_length=12))
    assert close(run(model, "self-extend/12/3/5", tokens), expected)
    set_temperature(model, None)
    assert not close(run(model, "self-extend/12/3/5", tokens), expected, 1e-3)
    inverse = torch.full((3,), math.log(24) / math.log(12)).requires_grad_()
    mask = torch.ones_like(tokens)
    inputs = {"input_ids": tokens, **forward_kwargs(model, "native", mask)}
    with (
        inverse_temperatures(model, inverse),
        extended(model, Extension.parse("self-extend/12/3/5"), mask, inputs) as changed,
    ):
        learned = model(**changed, use_cache=False)[0]
    learned.pow(3).mean().backward()
    assert close(learned.detach(), expected)
    assert (inverse.grad != 0).all()


def test_layers_without_positions_are_left_alone():
    model = build("smollm3", no_rope_layers=[1, 0, 1])
    check(model, Extension.parse("self-extend/12/3/5"))
    assert self_extend._rotating(model) == [0, 2]
    assert close(run(model, "self-extend/12/1/5", ids(30)), run(model, None, ids(30)))


def test_self_extend_refuses_what_it_would_get_wrong():
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
    scaled["original_max_position_embeddings"] = 128
    with pytest.raises(ValueError, match=r"layer 0 of llama does more .* than rotate them"):
        run(build("llama", rope_parameters=scaled), "self-extend/12/3/5", ids(30))
    with pytest.raises(ValueError, match="falcon writes its attention inline"):
        check(build("falcon"), Extension.parse("self-extend/12/3/5"))
    model = build("llama")
    model.activation_checkpointing_enable()
    mask = torch.ones(1, 30).long()
    with (
        pytest.raises(ValueError, match="under gradient checkpointing"),
        extended(model, Extension.parse("self-extend/12/3/5"), mask, {}),
    ):
        pass


# --- parallel windows --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert"])
@pytest.mark.parametrize(
    ("settings", "around"),
    [
        ({}, ("<s>", "</s>")),
        ({"template": "q: {text}!", "pool_template": False}, ("<s>q: ", "!</s>")),
        ({"sink": "<mask>"}, ("<mask><s>", "</s>")),
    ],
)
def test_parallel_windows_equal_windows_that_are_encoded_by_hand(loaded, name, settings, around):
    model = models.variant(loaded(name), extension="parallel-windows/12", **settings)
    before, after = (
        model.tokenizer(part, add_special_tokens=False)["input_ids"] for part in around
    )
    text = model.tokenizer(LONG, add_special_tokens=False)["input_ids"]
    room = 12 - len(before) - len(after)
    starts = [*range(0, len(text) - room, room), len(text) - room]
    pooled = []
    for start in starts:
        row = torch.tensor([[*before, *text[start : start + room], *after]])
        assert row.shape == (1, 12)
        with torch.no_grad():
            hidden = model.encoder.model(row, attention_mask=torch.ones_like(row))[0][0]
        inner = hidden[len(before) : len(before) + room]
        if "template" in settings:
            hidden = torch.cat([inner, hidden[-1:]])  # and the special token after it
        pooled.append(hidden[1:] if "sink" in settings else hidden)
    expected = torch.stack([part.mean(0) for part in pooled]).mean(0).numpy()
    np.testing.assert_allclose(model.encode(LONG), expected, atol=1e-5)


def test_the_mean_of_windows_is_taken_before_a_normalisation(loaded):
    model = models.variant(loaded("bert"), extension="parallel-windows/12")
    raw = model.encode([LONG, SHORT])
    model.append(Normalize())
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode([LONG, SHORT]), expected, atol=1e-6)


def test_token_states_of_parallel_windows_are_refused(loaded):
    model = models.variant(loaded("bert"), extension="parallel-windows/12")
    for output in ("token_embeddings", None):
        with pytest.raises(ValueError, match="only output_value='sentence_embedding'"):
            model.encode([LONG], output_value=output)
    long, short = model.encoder.tokenise([LONG, SHORT])
    with pytest.raises(ValueError, match="a text of 43 tokens in several windows"):
        model.encoder.collate([short, long])
    assert "windows" not in model.encoder.collate([short])


def test_a_window_without_room_for_a_text_is_refused(loaded):
    template = "a long instruction: {text}"
    model = models.variant(loaded("bert"), extension="parallel-windows/12", template=template)
    with pytest.raises(ValueError, match=r"take 22 tokens, which leaves no room .* of 12"):
        model.encode([LONG])


# --- lengths -----------------------------------------------------------------------------------


def test_texts_are_read_whole_unless_a_length_is_given_along_with_the_extension():
    model = models.load("random:bert", extension="grouped/100")
    assert model.encoder.max_length is None
    long = "word " * 300  # 1502 tokens on 514 positions, and no warning of a cut
    assert np.isfinite(model.encode([long])).all()
    short = models.load("random:bert", extension="grouped/100", max_length=700)
    assert (short.encoder.max_length, models.settings(short)["max_length"]) == (700, 700)
    back = models.variant(short, extension=None)
    assert (back.encoder.max_length, models.settings(back)["extension"]) == (512, None)
    again = models.variant(back, extension="recurrent/50")
    assert (again.encoder.max_length, again.encoder.extension) == (None, "recurrent/50")
    assert models.variant(again, max_length=60, pooling="max").encoder.max_length == 60


@pytest.mark.parametrize("method", ["grouped", "recurrent", "interpolated", "parallel-windows"])
@pytest.mark.parametrize("name", ["roberta", "opt", "electra", "albert", "distilbert", "gpt2"])
def test_texts_longer_than_every_table_can_be_read(name, method):
    model = models.load(f"random:{name}", extension=f"{method}/300")
    assert np.isfinite(model.encode(["word " * 130, SHORT])).all()


def test_masks_that_are_kept_as_buffers_limit_the_length():
    assert models.load("random:gpt_neo", extension="grouped/300").encoder.max_length == 514
    assert models.load("random:gpt_neo", extension="parallel-windows/9").encoder.max_length is None
    with pytest.raises(ValueError, match=r"outside 1 \.\. 514"):
        models.load("random:gpt_neo", extension="grouped/300", max_length=515)
    with pytest.raises(ValueError, match="max_length must be 1 or more; got 0"):
        models.load("random:llama", extension="grouped/300", max_length=0)


# --- a setting like others ---------------------------------------------------------------------


@pytest.mark.parametrize("method", SETTINGS)
def test_an_extension_is_saved_pickled_and_copied(loaded, tmp_path, method):
    model = models.variant(loaded("llama"), extension=SETTINGS[method])
    texts = [LONG * 20, SHORT]  # 822 tokens, of which 512 were read without the extension
    expected = model.encode(texts)
    assert models.settings(model)["extension"] == SETTINGS[method]
    model.save_pretrained(str(tmp_path / "model"))
    back = models.load(tmp_path / "model")
    assert models.settings(back)["extension"] == SETTINGS[method]
    for other in (back, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.encode(texts), expected)
    assert models.variant(back, extension=None).encoder.max_length == 512
    assert models.variant(back, pooling="max").encoder.extension == SETTINGS[method]


def test_an_extension_works_with_other_settings(loaded):
    for method in SETTINGS:
        model = models.variant(
            loaded("llama"),
            extension=SETTINGS[method],
            attention="prefix",
            temperature="log-n/8",
            sink="<mask>",
            template="q: {text}",
            padding_side="left",
            layers="first_last",
        )
        alone = np.concatenate([model.encode([text]) for text in (SHORT, LONG)])
        np.testing.assert_allclose(model.encode([SHORT, LONG]), alone, atol=2e-5)


def test_half_precision_passes_the_same_checks():
    for method in ("self-extend/12/3/5", "interpolated/12"):
        model = models.load("random:llama", dtype="bfloat16", extension=method)
        assert np.isfinite(model.encode([LONG])).all()


def test_training_sees_the_extension(loaded):
    model = copy.deepcopy(models.variant(loaded("bert"), extension="parallel-windows/12"))
    features = model.preprocess([LONG, SHORT])
    model.train()(features)["sentence_embedding"].pow(2).sum().backward()
    assert features["sentence_embedding"].shape == (2, 64)
    assert model.encoder.model.embeddings.position_embeddings.weight.grad[:12].abs().sum() > 0


def test_what_does_not_act_is_an_error(monkeypatch):
    idle = Method(
        "idle/L", lambda length: True, around=lambda model, mask, inputs, *_: nullcontext(inputs)
    )
    monkeypatch.setitem(EXTENSIONS._items, "idle", idle)
    with pytest.raises(ValueError, match=r"llama with sdpa .*'idle/12': it does not reach"):
        models.load("random:llama", extension="idle/12")


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("groupt/12", LookupError, "did you mean 'grouped'"),
        ("grouped", ValueError, "not of the form grouped/L; one extension at a time, and L >= 2"),
        ("grouped/1", ValueError, "not of the form"),
        ("grouped/12.5", ValueError, "not of the form"),
        ("grouped/-3", ValueError, "not of the form"),
        ("grouped/x", ValueError, "not of the form"),
        ("grouped/1_0", ValueError, "not of the form"),
        ("grouped/ 12", ValueError, "not of the form"),
        ("ntk/12/1_0.5", ValueError, "not of the form"),
        ("grouped/12/3", ValueError, "not of the form"),
        ("grouped/12+ntk/12", ValueError, "one extension at a time"),
        ("grouped/515", ValueError, "llama has 514 positions; L = 515 is more"),
        ("parallel-windows/515", ValueError, "llama has 514 positions"),
        ("ntk/12/0", ValueError, r"ntk/L/lambda with lambda > 0"),
        ("ntk/12/1e999", ValueError, "not of the form"),
        ("self-extend/12", ValueError, "not of the form self-extend/L/g/w with whole numbers"),
        ("self-extend/12/0/4", ValueError, "g >= 1 and 1 <= w < L"),
        ("self-extend/12/2/0", ValueError, "not of the form"),
        ("self-extend/12/2/12", ValueError, "not of the form"),
        ("self-extend/12/2.5/4", ValueError, "not of the form"),
        (512, ValueError, "extension must be"),
    ],
)
def test_a_bad_setting_is_refused(loaded, setting, error, message):
    with pytest.raises(error, match=message):
        models.variant(loaded("llama"), extension=setting)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in (*OTHER, "bert")
        for method, entry in EXTENSIONS.items()
        if entry.schemes and SCHEMES[name] not in entry.schemes
    ],
)
def test_the_wrong_position_scheme_is_refused_by_name(name, method):
    can = {
        "learned": "bert can take parallel-windows, grouped, recurrent, interpolated$",
        "relative or none": f"{name} can take parallel-windows$",
    }[SCHEMES[name]]
    start = f"{name} has {SCHEMES[name]} positions and extension '{method}' acts on .*; "
    with pytest.raises(ValueError, match=start + can):
        check(build(name), Extension.parse(SETTINGS[method]))


def test_backends_that_get_moved_positions_wrong_are_refused():
    model = build("llama")
    scheme(model)
    model.config._attn_implementation_internal = "flash_attention_2"
    mask = torch.ones(1, 30).long()
    for method in ("grouped", "recurrent", "interpolated", "self-extend"):
        with (
            pytest.raises(ValueError, match="flash_attention_2 attention"),
            extended(model, Extension.parse(SETTINGS[method]), mask, {}),
        ):
            pass


def test_frequencies_that_follow_the_batch_are_refused():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = build("llama", rope_parameters=rope)
    with pytest.raises(ValueError, match="follow the longest text of a batch"):
        check(model, Extension.parse("grouped/12"))
    check(model, Extension.parse("parallel-windows/12"))


def test_every_method_takes_its_trial_and_its_neutral_numbers():
    for name, method in EXTENSIONS.items():
        for numbers in (method.trial, method.neutral):
            if numbers and name != "parallel-windows":
                text = "/".join([name, *map(str, numbers)])
                assert Extension.parse(text).numbers == numbers


def test_poolings_of_windows_are_merged_for_every_pooling(loaded):
    model = models.variant(loaded("llama"), extension="parallel-windows/12")
    found = read_out(model, [LONG, SHORT], layers=[3])
    assert all(found[3, name].shape == (2, 64) for name in POOLINGS)
