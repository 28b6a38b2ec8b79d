"""Adapters: what they leave alone, what they change, and that nothing of them is left."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import DECODERS, ENCODERS

from lab import models
from lab.models.architecture import reaches_first_token
from lab.training import adapters
from lab.training.adapters import Lora

TEXTS = ["A man is playing a guitar.", "x", "Two dogs run through deep snow, barking at a hare."]
ATTENTION = {"attention": "bidirectional", "temperature": 1.5}


@pytest.fixture
def llama():
    return models.load("random:llama", device="cpu", **ATTENTION)


def train_a_little(model, *, spread=0.05):
    """As if the adapter had been trained: its B is no longer zero."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=spread, generator=generator)


def adapter_weights(model):
    return {name: w.detach().clone() for name, w in model.named_parameters() if "lora_" in name}


def taking_gradients(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("architecture", [*DECODERS, *ENCODERS])
def test_on_every_architecture_it_starts_neutral_learns_and_folds_in(architecture):
    model = models.load(f"random:{architecture}", device="cpu")
    before = model.encode(TEXTS)
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    adapters.add(model, Lora(rank=2), seed=0)
    assert np.array_equal(model.encode(TEXTS), before)

    train_a_little(model)
    model.train()
    model(model.preprocess(TEXTS))["sentence_embedding"].sum().backward()
    trained = {name: w.grad for name, w in model.named_parameters() if w.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert all(gradient is not None for gradient in trained.values())  # none is out of the pass

    adapted = model.encode(TEXTS)
    assert np.abs(adapted - before).max() > 1e-2
    adapters.merge(model)
    assert np.allclose(model.encode(TEXTS), adapted, atol=1e-5 * np.abs(adapted).max())
    assert {name: weight.shape for name, weight in model.state_dict().items()} == shapes


def test_its_output_is_that_of_the_formula(llama, rng):
    adapters.add(llama, Lora(rank=2, alpha=6, dropout=0.5, targets=["up_proj"]), seed=0)
    train_a_little(llama)
    layer = llama.encoder.model.layers[1].mlp.up_proj
    x = torch.tensor(rng.normal(size=(5, 64)), dtype=torch.float32)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ layer.base_layer.weight.T + 6 / 2 * x @ a.T @ b.T
    assert torch.allclose(layer(x), expected, atol=1e-6)


# --- what takes gradients ----------------------------------------------------------------------


def test_only_the_adapter_and_the_modules_after_the_encoder_take_gradients():
    model = models.load("random:llama", device="cpu", layers="learned")
    model.append(torch.nn.Linear(64, 8))
    adapters.add(model, Lora(), seed=0)
    head = {"1.scalars", "1.gamma", "2.weight", "2.bias"}
    assert head < taking_gradients(model)
    assert all("lora_" in name for name in taking_gradients(model) - head)
    assert not hasattr(model[2], "lora_A")  # "all-linear" means those of the transformer layers
    adapters.merge(model)
    assert taking_gradients(model) == {name for name, _ in model.named_parameters()}


def test_a_pooler_that_no_embedding_passes_gets_no_adapter():
    model = models.load("random:bert", device="cpu")
    adapters.add(model, Lora(), seed=0)
    assert not any("pooler" in name for name in taking_gradients(model))


def test_an_adapter_on_a_model_in_eval_mode_drops_nothing_out(llama):
    adapters.add(llama, Lora(dropout=0.9), seed=0)
    assert not any(module.training for module in llama.modules())


def test_targets_are_names_or_ends_of_names():
    def adapted(targets, name="llama"):
        model = models.load(f"random:{name}", device="cpu")
        adapters.add(model, Lora(rank=1, targets=targets), seed=0)
        return sum("lora_A" in name for name in taking_gradients(model))

    assert adapted(["q_proj"]) == 3
    assert adapted(["q_proj", "mlp.up_proj"]) == 6
    assert adapted(["layers.1.self_attn.q_proj"]) == 1
    assert adapted("all-linear") == 21
    assert adapted(["dense"], "bert") == 9  # of attention, in and out; not of the pooler


# --- attention and temperature -----------------------------------------------------------------


def reach(model):
    """How far the first token sees the last one, through the encoder's own pass."""
    kept = []

    def run(ids, mask):
        kept.clear()
        features = {"input_ids": ids, "attention_mask": mask}
        model.encoder.read(features, lambda _, hidden: kept.append(hidden), stop_after=3)
        return kept[-1]

    return reaches_first_token(model.encoder.model, run)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "bert"])
@pytest.mark.parametrize("stage", ["adapter", "merged"])
def test_attention_mode_and_temperature_act_with_an_adapter_and_after_it(name, stage):
    model = models.load(f"random:{name}", device="cpu", **ATTENTION)
    adapters.add(model, Lora(rank=2), seed=0)
    train_a_little(model)
    if stage == "merged":
        adapters.merge(model)
    assert reach(model) > 1e-6
    causal = models.variant(model, attention="causal")
    assert reach(causal) == 0
    cooler = models.variant(model, temperature=1.0)
    vectors = model.encode(TEXTS)
    assert np.abs(cooler.encode(TEXTS) - vectors).max() > 1e-5
    assert np.array_equal(models.variant(cooler, temperature=1.5).encode(TEXTS), vectors)


def test_the_temperature_with_an_adapter_is_that_of_the_merged_weights():
    hot = models.load("random:llama", device="cpu", temperature=2.0)
    plain = models.load("random:llama", device="cpu")
    for model in (hot, plain):
        adapters.add(model, Lora(rank=2), seed=0)
        train_a_little(model)
    adapters.merge(plain)
    expected = models.variant(plain, temperature=2.0).encode(TEXTS)
    assert np.allclose(hot.encode(TEXTS), expected, atol=1e-5)


def test_gradients_are_equal_with_and_without_checkpointing(llama):
    adapters.add(llama, Lora(rank=2, dropout=0.0), seed=0)
    train_a_little(llama)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            llama.encoder.model.activation_checkpointing_enable()
        llama.train().zero_grad()
        llama(llama.preprocess(TEXTS))["sentence_embedding"].square().sum().backward()
        gradients.append([w.grad.clone() for w in llama.parameters() if w.requires_grad])
    assert all(map(torch.equal, *gradients))


# --- seeds -------------------------------------------------------------------------------------


def test_the_seed_decides_the_adapter_and_leaves_the_global_generator_alone(llama):
    drawn = []
    for seed in (3, 3, 4):
        model = models.variant(llama)
        state = torch.get_rng_state()
        adapters.add(model, Lora(rank=2), seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(adapter_weights(model))
    first, again, other = drawn
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_an_adapter_is_float32_on_a_model_in_half_precision():
    model = models.load("random:llama", device="cpu", dtype="bfloat16")
    adapters.add(model, Lora(rank=2), seed=0)
    assert {weight.dtype for weight in adapter_weights(model).values()} == {torch.float32}
    train_a_little(model)
    adapted = model.encode(TEXTS)
    adapters.merge(model)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    cosines = torch.nn.functional.cosine_similarity(
        torch.tensor(adapted), torch.tensor(model.encode(TEXTS))
    )
    assert cosines.min() > 0.999


# --- merging -----------------------------------------------------------------------------------

RELOAD = """
import json, sys
import numpy as np
from lab import models
np.save(sys.argv[2], models.load(sys.argv[1], device="cpu").encode(json.loads(sys.argv[3])))
"""


def test_a_merged_model_reloads_in_a_fresh_process_with_identical_vectors(llama, tmp_path):
    adapters.add(llama, Lora(rank=2), seed=0)
    train_a_little(llama)
    adapters.merge(llama)
    vectors = llama.encode(TEXTS)
    llama.save_pretrained(str(tmp_path / "model"))
    assert not list(tmp_path.rglob("*adapter*"))
    reloaded = models.load(tmp_path / "model", device="cpu")
    assert np.array_equal(reloaded.encode(TEXTS), vectors)
    assert models.settings(reloaded)["attention"] == "bidirectional"
    place = tmp_path / "vectors.npy"
    call = [sys.executable, "-c", RELOAD, str(tmp_path / "model"), str(place), json.dumps(TEXTS)]
    run = subprocess.run(call, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr[-3000:]
    assert np.array_equal(np.load(place), vectors)


def test_a_second_adapter_goes_on_after_the_first_is_merged(llama):
    for _ in range(2):
        before = llama.encode(TEXTS)
        adapters.add(llama, Lora(rank=2), seed=0)
        train_a_little(llama)
        assert np.abs(llama.encode(TEXTS) - before).max() > 1e-2
        adapters.merge(llama)
    assert not any("lora" in name or "base_layer" in name for name in llama.state_dict())


def test_models_that_share_the_weights_are_left_alone(llama):
    before = llama.encode(TEXTS)
    other = models.variant(llama)
    adapters.add(other, Lora(rank=2), seed=0)
    assert taking_gradients(llama) == {name for name, _ in llama.named_parameters()}
    tables = [model.encoder.model.embed_tokens.weight for model in (llama, other)]
    assert tables[0].data_ptr() == tables[1].data_ptr()  # nothing is copied for it
    train_a_little(other)
    adapters.merge(other)
    assert np.array_equal(llama.encode(TEXTS), before)
    assert np.abs(other.encode(TEXTS) - before).max() > 1e-2


def test_parameters_that_are_tied_stay_tied(llama):
    layers = llama.encoder.model.layers
    layers[2].mlp.up_proj.weight = layers[1].mlp.up_proj.weight
    adapters.add(llama, Lora(rank=2, targets=["q_proj"]), seed=0)
    assert layers[2].mlp.up_proj.weight is layers[1].mlp.up_proj.weight


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"rank": 0}, ValueError, "the rank of an adapter is 1 or more; got 0"),
        ({"rank": 2.0}, TypeError, r"is a whole number; got 2\.0"),
        ({"rank": True}, TypeError, "is a whole number; got True"),
        ({"alpha": 0}, ValueError, "alpha of an adapter is finite and above 0; got 0"),
        ({"alpha": float("inf")}, ValueError, "finite and above 0; got inf"),
        ({"alpha": "32"}, TypeError, "alpha of an adapter is a number; got '32'"),
        ({"dropout": 1.0}, ValueError, r"0 or more and below 1; got 1\.0"),
        ({"dropout": -0.1}, ValueError, r"0 or more and below 1; got -0\.1"),
        ({"dropout": float("nan")}, ValueError, "0 or more and below 1; got nan"),
        ({"targets": "q_proj"}, ValueError, r"'all-linear' or a list of .*; got 'q_proj'"),
        ({"targets": []}, ValueError, r"list of module names .*; got \[\]"),
        ({"targets": [1]}, ValueError, r"list of module names .*; got \[1\]"),
    ],
)
def test_an_adapter_out_of_range_is_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        Lora(**options)


def test_a_target_that_matches_nothing_is_refused_with_the_names_that_exist(llama):
    before = set(llama.state_dict())
    with pytest.raises(ValueError, match="target 'query' matches no linear module") as caught:
        adapters.add(llama, Lora(targets=["q_proj", "query"]), seed=0)
    names = "q_proj k_proj v_proj o_proj".split()
    for name in [f"self_attn.{name}" for name in names] + ["mlp.gate_proj", "mlp.down_proj"]:
        assert str(caught.value).count(name) == 1
    assert set(llama.state_dict()) == before  # nothing was half done
    with pytest.raises(ValueError, match="'proj' matches no linear module"):
        adapters.add(llama, Lora(targets=["proj"]), seed=0)  # names end at a dot


def test_a_second_adapter_on_top_of_the_first_is_refused(llama):
    adapters.add(llama, Lora(rank=2), seed=0)
    with pytest.raises(ValueError, match="has an adapter already; merge it before"):
        adapters.add(llama, Lora(rank=2), seed=0)


def test_a_model_without_a_transformer_is_refused(llama):
    from sentence_transformers import SentenceTransformer

    head_only = SentenceTransformer(modules=[llama[1]], device="cpu")
    with pytest.raises(ValueError, match="first module of this model, LayerMix, has no transf"):
        adapters.add(head_only, Lora(), seed=0)


def test_merging_without_an_adapter_is_refused(llama):
    with pytest.raises(ValueError, match="no adapter to merge"):
        adapters.merge(llama)


def test_merging_an_adapter_that_is_not_finite_is_refused_by_name(llama):
    adapters.add(llama, Lora(rank=2), seed=0)
    layer = llama.encoder.model.layers[1].mlp.up_proj
    torch.nn.init.constant_(layer.lora_B["default"].weight, float("nan"))
    before = set(llama.state_dict())
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj is not finite; go back"):
        adapters.merge(llama)
    assert set(llama.state_dict()) == before


def test_a_model_with_an_adapter_is_not_saved_without_its_weights(tmp_path):
    model = models.load("random:llama")
    adapters.add(model, Lora(rank=2), seed=0)
    with pytest.raises(ValueError, match=r"adapter that is not folded in.*merge\(model\) first"):
        model.save_pretrained(str(tmp_path / "model"))
