"""A trainable pooling as a part of a model: loaded, changed, saved, refused."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from lab import models
from lab.models.embedding_model import EmbeddingModel
from lab.models.layer_mix import LayerMix
from lab.models.trained_pooling import TrainedPooling
from lab.poolers import POOLERS, build
from lab.pooling import POOLINGS

TEXTS = ["a short text", "a text that is quite a bit longer than the other one", "yes"]
OPTIONS = {"cross_attention": {"latents": 4}, "latent_attention": {"latents": 4}}


def load(name="random:llama", **settings):
    return models.load(name, device="cpu", **settings)


@pytest.fixture(scope="module")
def llama():
    return load()


@pytest.fixture(scope="module")
def bert():
    return load("random:bert")


def stir(model):
    """Draw all weights of the head anew, so that none of them stands at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.head.parameters():
            weight.normal_(0, 0.3, generator=generator)
    return model


def hidden_states(model, text):
    """Every hidden state (layer, token, dim) of one text by plain transformers."""
    batch = model.tokenizer([text], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return torch.cat(model.encoder.model(**batch, output_hidden_states=True).hidden_states)


# --- what it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(POOLERS))
@pytest.mark.parametrize("layers", [None, 1])
def test_over_tokens_it_is_the_pooler_of_the_states_of_one_layer(llama, name, layers):
    model = models.variant(llama, pooling=name, layers=layers, pooler=OPTIONS.get(name), seed=3)
    stir(model)
    for text, found in zip(TEXTS, model.encode(TEXTS), strict=True):
        states = hidden_states(model, text)[-1 if layers is None else layers][None]
        expected = model.head.pool(states, torch.ones(states.shape[:2], dtype=torch.bool))
        np.testing.assert_allclose(found, expected[0].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(POOLERS))
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_over_layers_it_is_the_pooler_of_their_pooled_states(bert, name, pooling):
    model = models.variant(bert, pooling=pooling, layers=name, pooler=OPTIONS.get(name))
    stir(model)
    for text, found in zip(TEXTS, model.encode(TEXTS), strict=True):
        states = hidden_states(model, text)[1:]
        pooled = (states.mean(1) if pooling == "mean" else states[:, -1])[None]
        expected = model.head.pool(pooled, torch.ones(pooled.shape[:2], dtype=torch.bool))
        np.testing.assert_allclose(found, expected[0].detach(), rtol=1e-4, atol=1e-5)


def test_over_some_layers_it_reads_those():
    model = load(pooling="last", layers="token_weights", pooler={"over": [-1]})
    np.testing.assert_allclose(model.encode(TEXTS), load(pooling="last").encode(TEXTS), atol=1e-6)
    assert model.encoder.layers == [3] and model.head.items == 1
    two = load(layers="token_weights", pooler={"over": [-1, 0]})
    both = (load(layers=0).encode(TEXTS) + load().encode(TEXTS)) / 2
    np.testing.assert_allclose(two.encode(TEXTS), both, atol=1e-6)


@pytest.mark.parametrize("setting", ["pooling", "layers"])
@pytest.mark.parametrize("name", sorted(POOLERS))
def test_neither_the_padding_side_nor_the_batch_changes_an_embedding(llama, setting, name):
    model = stir(models.variant(llama, **{setting: name}, pooler=OPTIONS.get(name)))
    together = {
        side: models.variant(model, padding_side=side).encode(TEXTS) for side in ("left", "right")
    }
    alone = np.stack([model.encode(text) for text in TEXTS])
    for found in together.values():
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


def test_what_the_template_leaves_out_is_left_out_here_too():
    options = {"template": "query: {text}", "pool_template": False}
    ours, plain = (
        load("random:bert", pooling=name, **options) for name in ("token_weights", "mean")
    )
    np.testing.assert_allclose(ours.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)


def test_a_model_in_half_precision_keeps_a_float32_pooling():
    model = load(pooling="cross_attention", dtype="bfloat16")
    assert {weight.dtype for weight in model.head.parameters()} == {torch.float32}
    assert model(model.preprocess(TEXTS))["sentence_embedding"].dtype == torch.bfloat16
    np.testing.assert_allclose(
        model.encode(TEXTS), load(pooling="cross_attention").encode(TEXTS), atol=0.1
    )
    assert np.isfinite(model.half().encode(TEXTS)).all()


# --- how it is drawn, kept and left ------------------------------------------------------------


def test_the_weights_are_drawn_from_the_seed_and_nothing_else():
    first, again, other = (load(pooling="cross_attention", seed=seed) for seed in (5, 5, 6))
    weights = [model.head.state_dict() for model in (first, again, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["pool.latents"], weights[2]["pool.latents"])
    torch.manual_seed(5)
    assert torch.equal(build("cross_attention", 64).latents, first.head.pool.latents)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    TrainedPooling("cross_attention", 64)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_seed_draws_a_pooling_of_a_model_with_weights_of_its_own(tmp_path, llama):
    llama.save_pretrained(str(tmp_path))
    drawn = load(tmp_path, pooling="cross_attention", seed=4)
    assert torch.equal(
        drawn.head.pool.latents,
        models.variant(llama, pooling="cross_attention", seed=4).head.pool.latents,
    )
    with pytest.raises(ValueError, match="seed is for the weights of random: controls"):
        load(tmp_path, pooling="mean", seed=4)


def test_a_variant_shares_the_backbone_and_draws_its_own_pooling(llama):
    one, other = (models.variant(llama, pooling="latent_attention", seed=seed) for seed in (0, 1))
    for theirs, ours in zip(llama.encoder.parameters(), one.encoder.parameters(), strict=True):
        assert theirs is ours
    assert not torch.equal(one.head.pool.latents, other.head.pool.latents)
    assert isinstance(llama.head, LayerMix)


def test_a_pooling_that_is_there_is_shared_by_a_variant(llama):
    model = stir(models.variant(llama, pooling="latent_attention"))
    for changes in ({"temperature": 0.8}, {"layers": 1}, {"attention": "bidirectional"}):
        other = models.variant(model, **changes)
        assert other.head.pool.latents is model.head.pool.latents
        assert not np.allclose(other.encode(TEXTS), model.encode(TEXTS), atol=1e-4)
    over = stir(models.variant(llama, layers="latent_attention"))
    other = models.variant(over, pooling="last")
    assert other.head.pool.latents is over.head.pool.latents
    assert models.settings(other)["pooling"] == "last"


@pytest.mark.parametrize("setting", ["pooling", "layers"])
@pytest.mark.parametrize("pooling", ["mean", None])
def test_the_way_back_restores_the_model(llama, setting, pooling):
    trained = models.variant(llama, **{setting: "self_attention"})
    back = models.variant(trained, pooling=pooling, layers=None)
    assert isinstance(back.head, LayerMix)
    assert models.settings(back) == models.settings(llama)
    assert np.array_equal(back.encode(TEXTS), llama.encode(TEXTS))


def test_a_fixed_pooling_alone_leads_back_to_the_layer_that_was_read(llama):
    back = models.variant(models.variant(llama, pooling="token_weights", layers=2), pooling="last")
    expected = models.variant(llama, pooling="last", layers=2)
    assert models.settings(back) == models.settings(expected)
    assert np.array_equal(back.encode(TEXTS), expected.encode(TEXTS))


def test_learned_layer_weights_survive_another_pooling(llama):
    learned = stir(models.variant(llama, layers="learned"))
    assert models.variant(learned, pooling="last").head.scalars is learned.head.scalars


# --- what the settings say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pooling": "cross_attention"}, {"pooling": "cross_attention", "layer": 3}),
        ({"pooling": "token_weights", "layers": 1}, {"pooling": "token_weights", "layer": 1}),
        ({"layers": "cross_attention"}, {"pooling": "mean", "layer_mix": "cross_attention"}),
        (
            {"pooling": "last", "layers": "token_weights", "pooler": {"over": [-1]}},
            {"pooling": "last", "layer_mix": "token_weights", "layer": 3},
        ),
        ({"layers": "learned"}, {"pooling": "mean", "layer_mix": "learned"}),
    ],
)
def test_settings_say_what_is_trained(llama, changes, expected):
    found = models.settings(models.variant(llama, **changes))
    assert {key: found[key] for key in ("pooling", "layer", "layer_mix")} == {
        "layer": None,
        "layer_mix": None,
        **expected,
    }


def test_the_width_of_the_model_is_that_of_the_pooling(llama):
    model = models.variant(llama, pooling="low_rank_attention", pooler={"heads": 3})
    assert model.get_embedding_dimension() == 3 * 64 == model.encode("text").shape[-1]


# --- saving ------------------------------------------------------------------------------------

SAVED = {
    "tokens": {"pooling": "cross_attention", "pooler": {"latents": 4}, "layers": 2},
    "latents": {"pooling": "latent_attention", "padding_side": "left"},
    "layers": {"pooling": "last", "layers": "cross_attention", "attention": "bidirectional"},
    "some layers": {"layers": "token_weights", "pooler": {"over": [3, 1], "item_scale": 0.5}},
    "wide": {"pooling": "low_rank_attention", "temperature": 0.8},
}
RELOAD = """
import json, sys
from pathlib import Path
import numpy as np
from sentence_transformers import SentenceTransformer
from lab import models
root, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
for folder in sorted(root.iterdir()):
    stock = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    ours = models.load(str(folder), device="cpu")
    facts = {k: v for k, v in models.settings(ours).items() if k != "checkpoint"}
    (folder / "settings.json").write_text(json.dumps(facts))
    np.save(folder / "stock.npy", stock.encode(texts))
    np.save(folder / "ours.npy", ours.encode(texts))
    ours.save_pretrained(str(folder / "again"))
    np.save(folder / "again.npy", models.load(str(folder / "again"), device="cpu").encode(texts))
"""


def test_saved_models_give_the_same_vectors_in_a_fresh_process(tmp_path):
    expected = {}
    for case, changes in SAVED.items():
        model = stir(load(**changes))
        model.save_pretrained(str(tmp_path / case))
        facts = {k: v for k, v in models.settings(model).items() if k != "checkpoint"}
        expected[case] = model.encode(TEXTS), facts
    command = [sys.executable, "-c", RELOAD, str(tmp_path), json.dumps(TEXTS)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=560)
    assert run.returncode == 0, run.stderr[-3000:]
    for case, (vectors, facts) in expected.items():
        for way in ("stock", "ours", "again"):
            assert np.array_equal(np.load(tmp_path / case / f"{way}.npy"), vectors), (case, way)
        assert json.loads((tmp_path / case / "settings.json").read_text()) == facts


def test_a_saved_model_keeps_its_pooling_unless_one_is_named(tmp_path, llama):
    model = stir(models.variant(llama, pooling="cross_attention"))
    model.save_pretrained(str(tmp_path))
    kept, drawn = (
        load(tmp_path, attention="bidirectional"),
        load(tmp_path, pooling="cross_attention"),
    )
    assert torch.equal(kept.head.pool.latents, model.head.pool.latents)
    assert not torch.equal(drawn.head.pool.latents, model.head.pool.latents)
    assert isinstance(load(tmp_path, pooling="mean").head, LayerMix)


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["pooling", "layers"])
def test_a_gradient_reaches_pooling_and_backbone(setting):
    model = load(**{setting: "cross_attention"}, pooler={"latents": 4}).train()
    model(model.preprocess(TEXTS))["sentence_embedding"].square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in model.head.parameters())
    assert model.encoder.model.get_input_embeddings().weight.grad.abs().max() > 0


def test_a_pooling_is_trained_by_sentence_transformers(llama):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = models.variant(llama, pooling="latent_attention", pooler={"latents": 4}).train()
    model.encoder.requires_grad_(False)
    loss, columns = MultipleNegativesRankingLoss(model), (["a b", "c d", "e f"], ["b", "d", "f"])
    optimiser = torch.optim.Adam(model.head.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        value = loss([model.preprocess(column) for column in columns], None)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]
    llama.encoder.requires_grad_(True)


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"pooling": "cross_attention", "layers": "token_weights"},
            ValueError,
            "pooling='cross_attention' and layers='token_weights' would both be trained",
        ),
        (
            {"pooling": "cross_attention", "layers": "learned"},
            ValueError,
            "layers='learned' would both be trained",
        ),
        (
            {"pooling": "cross_attention", "layers": "first_last"},
            ValueError,
            "reads the tokens of one layer, here there are 2; name one",
        ),
        ({"pooler": {"latents": 2}}, ValueError, "pooler and seed are for a trainable pooling"),
        ({"pooling": "mean", "seed": 1}, ValueError, "pooler and seed are for a trainable"),
        (
            {"pooling": "cross_attention", "pooler": {"latent": 2}},
            LookupError,
            "no option of cross_attention named 'latent'.*did you mean 'latents'",
        ),
        ({"pooling": "token_weights", "pooler": {"over": [1]}}, LookupError, "named 'over'"),
        (
            {"layers": "token_weights", "pooler": {"over": [4]}},
            ValueError,
            "layer 4 does not exist",
        ),
        ({"pooling": "cros_attention"}, LookupError, "did you mean 'cross_attention'"),
        ({"layers": "cros_attention"}, LookupError, "did you mean 'cross_attention'"),
        ({"pooler_options": {}}, LookupError, "no setting named 'pooler_options'"),
        (
            {"pooling": "token_weights", "extension": "parallel-windows/16"},
            ValueError,
            "token_weights reads the token states of a text, which parallel windows don't have",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(llama, changes, error, message):
    with pytest.raises(error, match=message):
        models.variant(llama, **changes)
    assert isinstance(llama.head, LayerMix)


@pytest.mark.parametrize("over", [5, None, "last", ["last"], [], [True], [1.0], {1: 2}])
def test_what_is_no_list_of_layers_is_refused(llama, over):
    says = f"over is a list of layers, one or more, such as [-1]; got {over!r}"
    with pytest.raises(ValueError, match=re.escape(says)):
        models.variant(llama, layers="token_weights", pooler={"over": over})


@pytest.mark.parametrize(
    ("over", "which"), [([-1, -1], ""), ([3, -1], ", which are the layers [3, 3]")]
)
def test_a_layer_that_is_read_twice_is_refused(llama, over, which):
    says = f"over names every layer once; got {over}{which}"
    with pytest.raises(ValueError, match=re.escape(says)):
        models.variant(llama, layers="token_weights", pooler={"over": over})


def test_a_second_trained_part_is_refused_beside_the_one_that_is_there(llama):
    tokens = models.variant(llama, pooling="cross_attention")
    for layers in ("learned", "token_weights"):
        with pytest.raises(ValueError, match="would both be trained"):
            models.variant(tokens, layers=layers)
    for layers in ("learned", "token_weights"):
        with pytest.raises(ValueError, match="would both be trained"):
            models.variant(models.variant(llama, layers=layers), pooling="cross_attention")
    moved = models.variant(
        models.variant(llama, layers="learned"), pooling="self_attention", layers=-1
    )
    assert models.settings(moved)["pooling"] == "self_attention"
    with pytest.raises(ValueError, match="one layer, here there are 3"):
        models.variant(tokens, layers="mean_of_all")


def test_parallel_windows_are_pooled_over_layers_but_not_over_tokens(llama):
    long = " ".join(f"word{number}" for number in range(40))
    tokens = models.variant(llama, pooling="token_weights")
    with pytest.raises(ValueError, match="parallel windows"):
        models.variant(tokens, extension="parallel-windows/16")
    layers = models.variant(llama, layers="token_weights", extension="parallel-windows/16")
    plain = models.variant(llama, layers="mean_of_all", extension="parallel-windows/16")
    np.testing.assert_allclose(layers.encode([long, "a"]), plain.encode([long, "a"]), atol=1e-5)
    tokens.encoder.configure(extension="parallel-windows/16")
    with pytest.raises(ValueError, match="parallel windows don't have"):
        tokens.encode([long])


def test_a_pooling_of_another_width_than_the_next_module_takes_is_refused(llama):
    from sentence_transformers.sentence_transformer.modules import Dense

    model = EmbeddingModel(modules=[*models.variant(llama), Dense(64, 8)], device="cpu")
    model.lab_name = "with a projection"
    assert models.variant(model, pooling="token_weights").encode("text").shape == (8,)
    with pytest.raises(ValueError, match="gives 128 dimensions, but the Dense behind it takes 64"):
        models.variant(model, pooling="low_rank_attention", pooler={"heads": 2})


def test_what_is_not_finite_is_refused_outside_of_training(llama):
    model = stir(models.variant(llama, pooling="cross_attention"))
    with torch.no_grad():
        model.head.pool.block.attention.value.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="has weights that are not finite"):
        model.encode(TEXTS)
    features = model.train()(model.preprocess(TEXTS))
    assert features["sentence_embedding"].isnan().any()


@pytest.mark.parametrize(("reads", "items"), [("tokens", 3), ("layers", None), ("words", None)])
def test_what_is_read_and_how_many_must_agree(reads, items):
    with pytest.raises(ValueError, match="reads 'tokens' with items=None or 'layers'"):
        TrainedPooling("cross_attention", 64, reads, items)


def test_no_name_means_two_things():
    assert set(POOLERS).isdisjoint(POOLINGS)
