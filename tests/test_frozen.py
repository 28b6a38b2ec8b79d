"""Frozen backbone: states once a text, the same embeddings, the same training."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss as CachedInfoNCE,
)
from sentence_transformers.sentence_transformer.losses import (
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.training_args import (
    SentenceTransformerTrainingArguments,
)
from tokenizers import normalizers
from torch import nn
from xxhash import xxh3_128

from lab import models
from lab.models.encoder import Encoder
from lab.models.layer_mix import LayerMix
from lab.models.texts import TruncationWarning
from lab.models.trained_pooling import TrainedPooling
from lab.poolers import POOLERS
from lab.repairs import centring
from lab.repairs.module import attach as attach_repair
from lab.store import fingerprint, state_store
from lab.store.state_store import StateStore
from lab.training import adapters, frozen
from lab.training.frozen import CachedStates, Wanted, attach, states, states_of
from lab.training.pairs import Pairs
from lab.training.recipe import Recipe
from lab.training.trainer import train

TEXTS = ["a cat", "the mat on which a cat sat", "x", "rain", "it was raining all day", "a cat!"]
HEADS = {
    "last layer": {},
    "one layer": {"layers": 1, "pooling": "max"},
    "mean of all": {"layers": "mean_of_all", "pooling": "inverse_frequency_mean"},
    "learned mix": {"layers": "learned", "pooling": "last"},
    **{f"tokens, {name}": {"pooling": name, "seed": 3} for name in POOLERS},
    **{f"layers, {name}": {"layers": name, "seed": 3} for name in POOLERS},
}
QUIET = {"device": "cpu"}


def tiny(name="random:llama", **settings):
    return models.load(name, **QUIET, **settings)


def counted():
    model = tiny()
    model.encoder.frequency = torch.arange(1, 261) / 260  # counting takes longer than these tests
    return model


@pytest.fixture(scope="module")
def base():
    return counted()


@pytest.fixture
def llama(base):
    """A model of its own over shared weights."""
    return models.variant(base)


@pytest.fixture
def store(tmp_path):
    return StateStore(tmp_path / "states")


def moved(head, seed=0):
    """A head whose weights are no longer those it started with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in head.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return head


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["random:llama", "random:bert"])
def test_states_are_those_of_the_transformer_text_by_text(name, side, store):
    model = tiny(name, padding_side=side)
    wanted = [Wanted(), Wanted(None, (1,)), Wanted("last"), Wanted("mean", (0, -1))]
    last, first, ends, means = states_of(model, TEXTS, wanted, store=store)
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = model.encoder.model(ids, output_hidden_states=True).hidden_states
        alone = torch.cat(hidden)  # (layer, token, dim)
        for found, expected in {
            last: alone[-1],
            first: alone[1],
            ends: alone[1:, -1],
            means: alone[[0, -1]].mean(1),
        }.items():
            assert found[text].shape == expected.shape
            torch.testing.assert_close(found[text], expected, atol=2e-5, rtol=1e-4)


def test_dropout_has_no_part_in_states(store):
    model = tiny("random:bert")
    found = states(model.train(), TEXTS, store=store)
    np.testing.assert_allclose(
        frozen.model(found, model.head).encode(TEXTS), model.encode(TEXTS), atol=1e-5
    )


def test_tokens_that_are_left_out_of_the_pool_are_not_stored(store):
    model = tiny(sink="<s>", template="say: {text}.", pool_template=False, pooling="token_weights")
    found = states(model, ["four"], store=store)
    assert found["four"].shape == (5, 64)  # its bytes and </s>
    np.testing.assert_allclose(
        frozen.model(found, model.head).encode("four"), model.encode("four"), atol=1e-5
    )


@pytest.mark.parametrize("setting", HEADS, ids=str)
def test_embeddings_are_those_of_the_whole_model(base, store, setting):
    model = models.variant(base, **HEADS[setting])
    moved(model.head)
    short = frozen.model(states(model, TEXTS, store=store), model.head)
    assert isinstance(short, SentenceTransformer)
    assert short[1] is model[1]
    np.testing.assert_allclose(short.encode(TEXTS[::-1]), model.encode(TEXTS[::-1]), atol=1e-5)
    np.testing.assert_allclose(
        attach(base, model.head, frozen.wanted_by(model)).encode(TEXTS),
        model.encode(TEXTS),
        atol=1e-6,
    )


def test_what_comes_behind_the_head_can_come_along(minilm, store):
    found = states(minilm, TEXTS, store=store)
    whole = frozen.model(found, *list(minilm)[1:])
    np.testing.assert_allclose(whole.encode(TEXTS), minilm.encode(TEXTS), atol=1e-5)


def test_a_default_prompt_and_parallel_windows_count_as_in_encode(store):
    model = tiny(extension="parallel-windows/12", pooling="mean", layers="learned")
    model.prompts, model.default_prompt_name = {"ask": "Q: "}, "ask"
    short = frozen.model(states(model, TEXTS, store=store), model.head)
    np.testing.assert_allclose(short.encode(TEXTS), model.encode(TEXTS), atol=1e-5)
    with pytest.raises(ValueError, match="in several windows, each with token states of its own"):
        states_of(model, TEXTS, [Wanted()], store=store)


def test_a_batch_is_padded_to_its_own_longest_text(llama, store):
    short = frozen.model(states_of(llama, TEXTS, [Wanted()], store=store)[0], nn.Identity())
    features = short[0](short.preprocess(["x", "a cat"]))
    assert features["token_embeddings"].shape == (2, len("<a cat>"), 64)
    assert features["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0], [1] * 7]
    assert (features["token_embeddings"][0, 3:] == 0).all()


@pytest.mark.parametrize(("dtype", "size"), [(None, 4), ("bfloat16", 2), ("float16", 2)])
def test_states_may_be_stored_in_half_precision(llama, store, dtype, size):
    states(llama, TEXTS, store=store, dtype="float32")
    found = states(llama, TEXTS, store=store, dtype=dtype)
    assert found["rain"].dtype.itemsize == size
    short = frozen.model(found, llama.head)
    assert short.encode(["rain"], convert_to_tensor=True).dtype == torch.float32
    np.testing.assert_allclose(
        short.encode(TEXTS), llama.encode(TEXTS), atol=1e-5 + 0.02 * (size < 4)
    )


def test_a_model_in_half_precision_gives_its_own_states(store):
    model = tiny(dtype="bfloat16", pooling="cross_attention", seed=1)
    found = states(model, TEXTS, store=store)
    short = frozen.model(found, model.head)
    assert found["rain"].dtype == torch.bfloat16
    assert short.encode(["rain"], convert_to_tensor=True).dtype == torch.bfloat16


# --- one pass a text -----------------------------------------------------------------------------


def test_one_pass_serves_every_kind_and_the_second_run_makes_none(llama, store, passes):
    wanted = [Wanted(), Wanted("last"), Wanted("mean"), Wanted("mean", (2,)), Wanted("last")]
    together = states_of(llama, TEXTS, wanted, store=store, token_budget=30)
    assert sum(passes) == len(TEXTS)
    passes.clear()
    again = states_of(llama, TEXTS[::-1], wanted, store=store)
    assert passes == []
    for one, two in zip(together, again, strict=True):
        assert all(torch.equal(one[text], two[text]) for text in TEXTS)
    assert torch.equal(together[2]["rain"][1:2], together[3]["rain"])


def test_a_second_run_with_more_texts_computes_only_the_new_ones(llama, store, passes):
    states(llama, TEXTS[:3], store=store)
    passes.clear()
    found = states(llama, [*TEXTS, *TEXTS], store=store)
    assert sum(passes) == 3
    assert found.texts == tuple(TEXTS)
    assert len(found) == 6


def test_kinds_that_are_there_are_not_stored_again(llama, store, passes):
    states_of(llama, TEXTS[:3], [Wanted("mean")], store=store)
    states_of(llama, TEXTS, [Wanted("mean"), Wanted("last")], store=store)
    assert sum(passes) == 3 + 6
    keys = [load_file(file)["keys"] for file in store.folder.iterdir()]
    assert sorted(map(len, keys)) == [3, 3, 6]


def test_an_interrupted_run_goes_on_where_it_was(llama, store, passes, monkeypatch):
    monkeypatch.setattr(state_store, "SHARD", 1)
    read = Encoder.read

    def breaking(*args, **kwargs):
        if len(passes) == 4:
            raise KeyboardInterrupt
        return read(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Encoder, "read", breaking)
        states(llama, TEXTS, store=store, token_budget=1)
    found = states(llama, TEXTS, store=store)
    assert sum(passes) == len(TEXTS)
    np.testing.assert_allclose(
        frozen.model(found, llama.head).encode(TEXTS), llama.encode(TEXTS), atol=1e-5
    )


def test_a_second_run_spends_less_than_a_twentieth_of_the_first_on_states(store, passes):
    model = tiny("random:minilm-l6")
    words = (
        "one cat sat on the mat while it rained and then another came in from the garden".split()
    )
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 40)) for _ in range(300)]
    spent = []
    passes.clear()
    for _ in range(2):
        begun = time.process_time()  # what other processes do meanwhile is not counted
        found = states_of(model, texts, [Wanted(), Wanted("mean")], store=store)
        spent.append(time.process_time() - begun)
    assert sum(passes) == len(texts)
    assert len(found[0]) == len(texts)
    assert spent[1] < 0.05 * spent[0], spent


def test_processes_that_read_the_same_texts_at_once_get_the_same_states(llama, store):
    expected = llama.encode(TEXTS)
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit locks of torch's threads
    with ProcessPoolExecutor(2, fresh) as pool:
        runs = [pool.submit(encoded, store.folder) for _ in range(2)]
        for run in runs:
            np.testing.assert_allclose(run.result(timeout=300), expected, atol=1e-5)


def encoded(folder):
    """What a process of its own reads into the store and gets."""
    model = counted()
    return frozen.model(states(model, TEXTS, store=StateStore(folder)), model.head).encode(TEXTS)


# --- content addressing --------------------------------------------------------------------------


def one_weight(model):
    with torch.no_grad():
        model.encoder.model.layers[1].mlp.up_proj.weight[3, 5] += 1e-4


def one_weight_unnoticed(model):
    weight = model.encoder.model.layers[1].mlp.up_proj.weight
    version = weight._version
    weight.data[3, 5] += 1e-4
    assert weight._version == version


def an_adapter(model):
    adapters.add(model, adapters.Lora(rank=2), seed=0)
    for name, weight in model.encoder.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    adapters.merge(model)


MATTERS = {
    "a weight": one_weight,
    "a weight behind autograd's back": one_weight_unnoticed,
    "a merged adapter": an_adapter,
    **{
        str(settings): settings
        for settings in (
            {"attention": "bidirectional"},
            {"temperature": 0.9},
            {"temperature": [1.0, 1.0, 0.9]},
            {"extension": "ntk/8"},
            {"template": "query: {text}"},
            {"sink": "<mask>"},
            {"max_length": 8},
            {"pooling": "max"},
            {"layers": "learned"},
            {"pooling": "token_weights"},
        )
    },
}


@pytest.mark.filterwarnings("ignore::lab.models.texts.TruncationWarning")
@pytest.mark.parametrize("change", MATTERS, ids=str)
def test_whatever_changes_the_states_of_a_text_is_computed_anew(store, passes, change):
    model, text = tiny(), "a text that is longer than eight"
    states(model, [text], store=store)
    if callable(MATTERS[change]):
        MATTERS[change](model)
    else:
        model = models.variant(model, **MATTERS[change])
    passes.clear()
    states(model, [text], store=store)
    assert passes == [1]


@pytest.mark.parametrize("change", [{"pool_template": False}, {"attention": "prefix"}], ids=str)
def test_what_acts_on_a_template_counts(base, store, passes, change):
    model = models.variant(base, template="query: {text}", attention="causal")
    states(model, TEXTS, store=store)
    other = models.variant(model, **change)
    passes.clear()
    found = states(other, TEXTS, store=store)
    assert sum(passes) == len(TEXTS)
    np.testing.assert_allclose(
        frozen.model(found, other.head).encode(TEXTS), other.encode(TEXTS), atol=1e-5
    )


def test_another_tokenizer_is_computed_anew_where_it_gives_other_tokens(llama, store, passes):
    states(llama, TEXTS, store=store)
    llama.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    passes.clear()
    states(llama, [*TEXTS, "A CAT", "RAIN"], store=store)
    assert passes == []
    llama.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("cat", "dog")
    states(llama, TEXTS, store=store)
    assert sum(passes) == 3


def test_other_versions_and_other_code_are_computed_anew(llama, monkeypatch):
    now = fingerprint.fingerprint(llama)
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint.importlib.metadata, "version", lambda name: "0")
        assert fingerprint.fingerprint(llama) != now
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "CODE", "mended")
        assert fingerprint.fingerprint(llama) != now
    assert fingerprint.fingerprint(llama) == now


def test_nothing_else_is_computed_anew(store, passes, tmp_path):
    model = tiny()
    states(model, TEXTS, store=store)
    model.save_pretrained(str(tmp_path / "saved"))
    for other in (
        models.variant(model, padding_side="left"),
        models.variant(model, max_length=200),  # cuts none of them
        models.variant(model, layers="last"),
        models.load(tmp_path / "saved", **QUIET),
        tiny(),  # the same weights in another place
    ):
        passes.clear()
        states(other.train(), TEXTS, store=store, token_budget=5)
        assert passes == []


def test_the_head_has_no_part(base, store, passes):
    model = models.variant(base, layers="cross_attention", seed=1)
    states(model, TEXTS, store=store)
    moved(model.head)
    other = models.variant(base, layers="self_attention")
    passes.clear()
    for one in (model, other):
        states(one, TEXTS, store=store)
    assert passes == []


def test_other_token_frequencies_count_where_they_are_read(llama, store, passes):
    wanted = [Wanted("inverse_frequency_mean"), Wanted("mean")]
    for one in wanted:
        states_of(llama, TEXTS, [one], store=store)
    llama.encoder.frequency = llama.encoder.frequency.flip(0)
    passes.clear()
    states_of(llama, TEXTS, wanted[1:], store=store)
    assert passes == []
    states_of(llama, TEXTS, wanted[:1], store=store)
    assert sum(passes) == len(TEXTS)


def test_texts_of_the_same_tokens_share_their_states(store, passes):
    model = tiny(max_length=8)
    passes.clear()
    with pytest.warns(TruncationWarning, match="2 of 2 texts"):
        found = states(model, ["the same start", "the same end"], store=store)
    assert sum(passes) == 1
    assert torch.equal(found["the same start"], found["the same end"])
    with pytest.warns(TruncationWarning, match="1 of 1 texts"):  # nor is it hidden when stored
        states(model, ["the same start"], store=store)
    assert sum(passes) == 1


def test_damaged_states_are_computed_again(llama, store, passes):
    before = states(llama, TEXTS, store=store)["rain"].clone()
    (shard,) = store.folder.iterdir()
    content = bytearray(shard.read_bytes())
    content[-7] ^= 64
    shard.write_bytes(content)
    passes.clear()
    with pytest.warns(UserWarning, match="damaged, deleted and computed again"):
        found = states(llama, TEXTS, store=store)
    assert sum(passes) == len(TEXTS)
    assert torch.equal(found["rain"], before)
    assert xxh3_128(shard.read_bytes()).hexdigest() in shard.name


# --- training ------------------------------------------------------------------------------------

ANCHORS = [f"{a} {b}" for a in ("red", "old", "tall", "wet") for b in ("cat", "house")]
PAIRS = {
    "anchor": ANCHORS,
    "positive": [f"the {text} here" for text in ANCHORS],
    "negative": [text.split()[0] for text in ANCHORS[::2] for _ in range(2)],
}
ALL = list(dict.fromkeys(text for column in PAIRS.values() for text in column))


def trained(model, folder, steps=6, loss=MultipleNegativesRankingLoss, **options):
    """The trainer of sentence-transformers for a model whose first module is frozen."""
    model[0].requires_grad_(False)
    arguments = SentenceTransformerTrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        save_strategy=options.pop("save_strategy", "no"),
        **options,
    )
    trainer = SentenceTransformerTrainer(
        model, arguments, train_dataset=Dataset.from_dict(PAIRS), loss=loss(model)
    )
    return trainer


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        ({"layers": "learned"}, MultipleNegativesRankingLoss),
        ({"pooling": "cross_attention"}, MultipleNegativesRankingLoss),
        ({"pooling": "latent_attention"}, partial(CachedInfoNCE, mini_batch_size=3)),
        ({"layers": "latent_attention"}, partial(CachedInfoNCE, mini_batch_size=3)),
    ],
    ids=["learned mix", "tokens", "tokens, cached loss", "layers, cached loss"],
)
def test_training_on_cached_states_is_training_of_the_whole_model(
    base, store, tmp_path, passes, settings, loss
):
    whole, source = (models.variant(base, **settings) for _ in range(2))
    short = frozen.model(states(source, ALL, store=store), source.head)
    passes.clear()
    on_cache = trained(short, tmp_path / "short", loss=loss)
    on_cache.train()
    assert passes == []
    on_whole = trained(whole, tmp_path / "whole", loss=loss)
    on_whole.train()
    assert len(losses(on_cache)) == 6
    np.testing.assert_allclose(losses(on_cache), losses(on_whole), rtol=2e-3)
    # Lengths are not compared: cosines give a scale no gradient, and Adam makes steps of its noise.
    one, two = (model.encode(ALL, normalize_embeddings=True) for model in (short, whole))
    np.testing.assert_allclose(one, two, atol=2e-3)
    np.testing.assert_allclose(source.encode(ALL), short.encode(ALL), atol=1e-5)


def test_the_labs_own_trainer_takes_it_and_refuses_another_length(base, store):
    model = models.variant(base, pooling="cross_attention")
    short = frozen.model(states(model, ALL, store=store), model.head)
    before = model.encode(ALL)
    pairs = Pairs("toy", pd.DataFrame(PAIRS))
    done = train(short, pairs, Recipe(steps=3, batch=2, backbone="frozen"), progress=False)
    assert done.steps == 3
    assert np.abs(model.encode(ALL) - before).max() > 1e-3
    np.testing.assert_allclose(short.encode(ALL), model.encode(ALL), atol=1e-5)
    with pytest.raises(ValueError, match="max_length=5 would change hidden states"):
        train(short, pairs, Recipe(steps=1, batch=2, backbone="frozen", max_length=5))


def test_a_checkpoint_of_the_stock_trainer_resumes_to_the_same_weights(base, store, tmp_path):
    def run(folder, **options):
        model = models.variant(base, pooling="cross_attention", seed=1)
        short = frozen.model(states(model, ALL, store=store), model.head)
        trainer = trained(short, tmp_path / folder, save_strategy="steps", save_steps=3)
        trainer.train(**options)
        return nn.utils.parameters_to_vector(model.head.parameters()).detach()

    whole = run("a")
    resumed = run("b", resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert torch.equal(whole, resumed)
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "a" / "checkpoint-3"))
    loaded = SentenceTransformer(str(tmp_path / "a" / "checkpoint-3"), trust_remote_code=True)
    assert loaded[0].fingerprint == fingerprint.fingerprint(base)
    with pytest.raises(ValueError, match="a checkpoint of a head without hidden states"):
        loaded.encode("rain")


# --- the trained model ---------------------------------------------------------------------------


def test_an_attached_head_is_a_model_that_saves_and_loads_like_any_other(base, store, tmp_path):
    head = moved(TrainedPooling("latent_attention", 64, options={"latents": 8}, seed=5))
    (tokens,) = states_of(base, TEXTS, [Wanted(None, (2,))], store=store)
    short = frozen.model(tokens, head)
    model = attach(base, head, tokens.kind)
    assert model.head is head
    assert model.encoder.layers == [2]
    assert base.encoder.layers == [3]
    weights = zip(model.encoder.parameters(), base.encoder.parameters(), strict=True)
    assert all(one is two for one, two in weights)
    np.testing.assert_allclose(model.encode(TEXTS), short.encode(TEXTS), atol=1e-5)
    model.save_pretrained(str(tmp_path / "saved"))
    again = models.load(tmp_path / "saved", **QUIET)
    assert np.array_equal(again.encode(TEXTS), model.encode(TEXTS))
    assert models.settings(again)["pooling"] == "latent_attention"


def test_a_head_that_reads_other_states_is_refused(base, store):
    pooled, tokens = states_of(base, TEXTS, [Wanted("mean"), Wanted()], store=store)
    over_tokens = TrainedPooling("cross_attention", 64)
    over_layers = TrainedPooling("cross_attention", 64, "layers", 2)
    for found, head in ((pooled, over_tokens), (tokens, over_layers), (pooled, over_layers)):
        with pytest.raises(ValueError, match=r"cross_attention reads .* the states are"):
            frozen.model(found, head)
    with pytest.raises(ValueError, match=r"\(items 1, dim 64\), .* layers \(items 3, dim 64\)"):
        frozen.model(pooled, LayerMix([1.0]))
    with pytest.raises(ValueError, match="dim 32"):
        attach(base, TrainedPooling("cross_attention", 32))
    with pytest.raises(ValueError, match="needs a head"):
        frozen.model(pooled)


def test_a_repair_does_not_survive_another_head(base, rng):
    repaired = attach_repair(base, centring().fit(rng.normal(size=(20, 64))))
    with pytest.raises(ValueError, match="attach the head first"):
        attach(repaired, TrainedPooling("cross_attention", 64))


# --- what is refused -----------------------------------------------------------------------------


def test_a_text_whose_states_were_not_asked_for_is_named(llama, store):
    short = frozen.model(states(llama, TEXTS, store=store), llama.head)
    with pytest.raises(LookupError, match=r"'never seen' are not among those of these 6 texts"):
        short.encode(["rain", "never seen"])
    with pytest.raises(LookupError, match="never seen"):
        short[0].states["never seen"]


def test_a_prompt_or_a_length_can_no_longer_change_the_states(llama, store):
    short = frozen.model(states(llama, TEXTS, store=store), llama.head)
    with pytest.raises(ValueError, match="prompt='say: ' would change hidden states"):
        short.encode(TEXTS, prompt="say: ")
    with pytest.raises(AttributeError):
        short.max_seq_length = 5


@pytest.mark.parametrize(
    ("texts", "wanted", "error", "message"),
    [
        (["a", ""], Wanted(), ValueError, "text 1 "),
        (["a", "a", None], Wanted(), TypeError, "text 2 is a NoneType"),
        ("a text", Wanted(), TypeError, "texts is one string"),
        ([], Wanted(), ValueError, "texts is empty"),
        (["a"], None, ValueError, "wanted is empty"),
        (["a"], Wanted("median"), LookupError, "no pooling named 'median'"),
        (["a"], Wanted("mean", (4,)), ValueError, "layer 4 does not exist"),
        (["a"], Wanted("mean", ()), ValueError, "one or more pooled layers"),
        (["a"], Wanted(None, (1, 2)), ValueError, "the token states of one layer"),
    ],
)
def test_what_can_not_be_read_is_refused(llama, store, texts, wanted, error, message):
    with pytest.raises(error, match=message):
        states_of(llama, texts, [wanted] if wanted else [], store=store)


def test_an_unknown_dtype_is_refused(llama, store):
    with pytest.raises(LookupError, match="no dtype named 'float8'"):
        states(llama, TEXTS, store=store, dtype="float8")


def test_an_adapter_has_to_be_merged_first(store):
    model = tiny()
    adapters.add(model, adapters.Lora(rank=2), seed=0)
    with pytest.raises(ValueError, match=r"lab\.training\.adapters\.merge"):
        states(model, TEXTS, store=store)


def test_states_that_are_not_finite_name_the_text_and_are_not_stored(store):
    model = tiny()
    with torch.no_grad():
        model.encoder.model.embed_tokens.weight[model.tokenizer("x")["input_ids"][1]] = torch.nan
    with pytest.raises(FloatingPointError, match=r"text 2 \('x'\) is not finite; it begins in"):
        states(model, TEXTS, store=store)
    assert list(store.folder.iterdir()) == []


def test_states_beyond_float16_say_which_type_has_room(store):
    model = tiny()
    with torch.no_grad():
        model.encoder.model.norm.weight.mul_(1e6)
    with pytest.raises(FloatingPointError, match="dtype='bfloat16' keeps the range"):
        states(model, TEXTS, store=store, dtype="float16")
    assert states(model, TEXTS, store=store, dtype="bfloat16")["rain"].isfinite().all()


def test_more_than_the_store_may_hold_is_refused_before_any_pass(llama, tmp_path, passes):
    small = StateStore(tmp_path, max_bytes=5000)
    with pytest.raises(ValueError, match=r"0\.0 MB of hidden states are to be stored"):
        states_of(llama, TEXTS, [Wanted()], store=small)
    assert passes == []


def test_cached_states_alone_are_no_model():
    with pytest.raises(ValueError, match="without hidden states"):
        CachedStates().preprocess(["x"])


def test_a_pooling_that_reads_pads_is_refused_on_stored_states(tmp_path):
    model = models.load("random:llama", pooling="cross_attention", pooler={"mask": False})
    found = frozen.states(model, TEXTS, store=StateStore(tmp_path), progress=False)
    with pytest.raises(ValueError, match="reads the states of pads, which depend on the batch"):
        frozen.model(found, model.head)
