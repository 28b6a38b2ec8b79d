"""LLM2Vec: what is masked and predicted, what dropout does, and that the chain converts a model."""

import math
import random

import numpy as np
import pytest
import torch
from tiny import DECODERS
from torch import nn
from transformers import AutoModelForCausalLM

from lab import models
from lab.models.architecture import attention_modules, reaches_first_token
from lab.training import llm2vec
from lab.training.adapters import Lora
from lab.training.heads import tied_head
from lab.training.masking import LLAMA_MASKING, MISTRAL_MASKING, Masking, blocks, collator
from lab.training.mntp import MNTP, NextTokens, loss_on, mntp
from lab.training.recipe import Recipe
from lab.training.simcse import SIMCSE, attention_dropout, simcse

WORDS = "the cat sat on a mat and then some dog ran far away from it".split()
MASK = 3
LORA = Lora(rank=8, alpha=16, dropout=0.05)
NEXT = Recipe(
    steps=40, batch=4, learning_rate=1e-2, max_length=32, backbone="lora", lora=LORA, seed=1
)
SHORT = Recipe(steps=4, batch=4, learning_rate=1e-2, max_length=32, backbone="lora", lora=LORA)
TWICE = Recipe(
    steps=5, batch=8, learning_rate=1e-2, max_length=24, backbone="lora", lora=LORA, seed=1
)


def sentences(count, seed=0):
    drawn = np.random.default_rng(seed)
    return [" ".join(drawn.choice(WORDS, 8)) + "." for _ in range(count)]


TEXTS, OTHERS = sentences(40), sentences(10, seed=1)


@pytest.fixture
def llama():
    """A causal decoder that predicts with its input embeddings."""
    model = models.load("random:llama", device="cpu")
    model.encoder.model.config.tie_word_embeddings = True
    return model


@pytest.fixture
def both_ways(llama):
    return models.variant(llama, attention="bidirectional")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# --- prediction --------------------------------------------------------------------------------


@torch.no_grad()
def predicted(model, ids, shift):
    """-log p of every token by hand, from the state ``shift`` places before it, in float64."""
    states = []
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    model.encoder.read(inputs, lambda _, hidden: states.append(hidden), stop_after=3)
    last = states[-1].double().numpy()
    table = model.encoder.model.get_input_embeddings().weight.double().numpy()
    result = np.full(ids.shape, np.nan)
    for row in range(len(ids)):
        for place in range(shift, ids.shape[1]):
            logits = table @ last[row, place - shift]
            result[row, place] = np.log(np.exp(logits).sum()) - logits[ids[row, place]]
    return result


def test_a_masked_token_is_predicted_from_the_state_of_the_token_before_it(both_ways):
    torch.manual_seed(0)
    nn.init.normal_(both_ways.encoder.model.get_input_embeddings().weight)  # far from uniform
    ids = torch.randint(4, 250, (3, 9))
    labels = torch.where(torch.rand(3, 9) < 0.5, ids, -100)
    labels[0, 0] = ids[0, 0]  # the first token has no token before it
    chosen = (labels != -100).numpy()
    loss = NextTokens(both_ways, tied_head(both_ways))(ids, labels)["loss"].item()
    before, at = (predicted(both_ways, ids, shift)[chosen] for shift in (1, 0))
    assert loss == pytest.approx(np.nanmean(before), rel=1e-5)
    assert abs(loss - at.mean()) > 0.1  # as it would be without the shift


def test_a_batch_without_a_masked_token_has_no_loss(both_ways):
    ids = torch.randint(4, 250, (2, 9))
    loss = NextTokens(both_ways, tied_head(both_ways))(ids, torch.full_like(ids, -100))["loss"]
    assert loss.item() == 0


def test_the_loss_on_texts_is_the_mean_over_all_masked_tokens(both_ways):
    data, collate = blocks(both_ways, TEXTS, 32), collator(both_ways, LLAMA_MASKING, 1)
    wanted = []
    for start in range(0, len(data), 4):
        batch = collate(data[start : start + 4])
        labels, ids = batch["labels"].numpy(), batch["input_ids"]
        targets = torch.where(batch["labels"] == -100, ids, batch["labels"])
        states = []
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            both_ways.encoder.read(inputs, lambda _, h, kept=states: kept.append(h), stop_after=3)
            logits = states[-1] @ both_ways.encoder.model.get_input_embeddings().weight.T
        for row, place in zip(*np.nonzero(labels[:, 1:] != -100), strict=True):
            wanted.append(-float(logits[row, place].log_softmax(-1)[targets[row, place + 1]]))
    loss = loss_on(both_ways, TEXTS, NEXT, LLAMA_MASKING, tied_head(both_ways))
    assert loss == pytest.approx(np.mean(wanted), rel=1e-5)


# --- heads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "gemma", "smollm3", "opt", "falcon", "bloom"])
def test_a_tied_head_gives_the_logits_of_the_causal_language_model(name, tmp_path):
    model = models.load(f"random:{name}", device="cpu")
    transformer = model.encoder.model
    whole = AutoModelForCausalLM.from_config(transformer.config).eval()
    getattr(whole, whole.base_model_prefix).load_state_dict(transformer.state_dict())
    whole.tie_weights()
    ids = torch.randint(10, 250, (1, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = transformer(ids)[0]
        assert torch.allclose(tied_head(model)(states), whole(ids).logits, atol=1e-4)
    for training in (False, True):
        transformer.train(training)
        tied_head(model)
        assert transformer.training == training  # the comparison leaves no trace


@pytest.mark.parametrize(
    ("name", "tied", "message"),
    [
        ("bert", True, "bert is no decoder"),
        ("llama", False, "llama has a language-model head of its own .* give head="),
        ("gemma2", True, "gemma2 predicts with more than its input embeddings"),
        ("phi", True, "phi predicts with more than its input embeddings"),
        ("modernbert-decoder", True, "more than its input embeddings"),
    ],
)
def test_a_head_that_is_not_tied_has_to_be_given(name, tied, message):
    model = models.load(f"random:{name}", device="cpu")
    model.encoder.model.config.tie_word_embeddings = tied
    with pytest.raises(ValueError, match=message):
        mntp(model, TEXTS, NEXT)


def test_a_head_that_is_given_is_used_and_not_trained(both_ways):
    both_ways.encoder.model.config.tie_word_embeddings = False
    head = nn.Linear(64, 260)
    before = weights(head)
    trained = mntp(both_ways, TEXTS, SHORT, head=head)
    assert equal(weights(head), before)
    assert trained.parameters == 3 * 8 * (4 * 64 + 2 * (64 + 32) + 3 * (64 + 128))


# --- masks and blocks --------------------------------------------------------------------------


def test_blocks_are_the_texts_with_their_special_tokens_one_after_the_other(llama):
    read = [llama.tokenizer(text)["input_ids"] for text in TEXTS]
    joined = [token for ids in read for token in ids]
    found = blocks(llama, TEXTS, 32)
    assert len(found) == len(joined) // 32
    assert [token for block in found for token in block["input_ids"]] == joined[: 32 * len(found)]
    special = [token in (0, 2) for token in joined[: 32 * len(found)]]
    assert [bool(s) for block in found for s in block["special_tokens_mask"]] == special


def drawn(model, masking, seed=0):
    """Tokens as they were, as they are read, and which of them are to be predicted."""
    data = blocks(model, sentences(400), 64)
    before = torch.tensor([block["input_ids"] for block in data])
    batch = collator(model, masking, seed)(data)
    return before, batch["input_ids"], batch["labels"]


def test_the_masking_of_llama_is_eighty_ten_ten(llama):
    before, after, labels = drawn(llama, LLAMA_MASKING)
    chosen = labels != -100
    ordinary = before > 3
    n = int(ordinary.sum())
    assert not chosen[~ordinary].any()  # special tokens stay
    assert torch.equal(labels[chosen], before[chosen])
    assert torch.equal(after[~chosen], before[~chosen])
    for observed, share, of in [
        (chosen.sum(), 0.2, n),
        ((after == MASK)[chosen].sum(), 0.8, int(chosen.sum())),
        ((after == before)[chosen].sum(), 0.1 + 0.1 / 260, int(chosen.sum())),
    ]:
        assert abs(int(observed) - share * of) < 4 * math.sqrt(of * share * (1 - share))


def test_the_masking_of_mistral_replaces_every_token_that_is_drawn(llama):
    before, after, labels = drawn(llama, MISTRAL_MASKING)
    chosen = labels != -100
    n = int((before > 3).sum())
    assert (after[chosen] == MASK).all()
    assert torch.equal(after[~chosen], before[~chosen])
    assert abs(int(chosen.sum()) - 0.8 * n) < 4 * math.sqrt(n * 0.16)


def test_masks_depend_on_the_seed_only(llama):
    first, again, other = (drawn(llama, LLAMA_MASKING, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_a_mask_token_an_underscore_stands_for_it_and_the_tokenizer_stays(llama):
    llama.tokenizer.mask_token = llama.tokenizer.pad_token = None
    _, after, labels = drawn(llama, MISTRAL_MASKING)
    underscore = llama.tokenizer.convert_tokens_to_ids("_")
    assert (after[labels != -100] == underscore).all()
    assert llama.tokenizer.mask_token is None
    with pytest.raises(ValueError, match="'no such' is no token of this tokenizer"):
        collator(llama, Masking(token="no such"), 0)


# --- masked next token prediction ----------------------------------------------------------------


def test_training_lowers_the_loss_on_texts_that_it_has_not_seen(both_ways):
    reached = both_ways.encode(OTHERS)
    trained = mntp(both_ways, TEXTS, NEXT, held_out=OTHERS)
    losses = trained.log["held_out_loss"]
    assert losses.iloc[0] == pytest.approx(math.log(260), abs=0.1)  # it knows nothing
    assert losses.iloc[-1] < losses.iloc[0] - 0.3
    assert losses.iloc[1:-1].isna().all()
    assert list(trained.log["step"]) == list(range(41))
    assert np.isnan(trained.log["loss"].iloc[0]) and trained.log["loss"].iloc[1:].notna().all()
    assert loss_on(both_ways, OTHERS, NEXT, LLAMA_MASKING, tied_head(both_ways)) == losses.iloc[-1]
    assert np.abs(both_ways.encode(OTHERS) - reached).max() > 1e-2
    assert not both_ways.training
    assert not any("lora" in name for name in both_ways.state_dict())


def test_the_same_call_gives_the_same_bits_and_leaves_the_generators_alone(llama):
    found = []
    for seed in (0, 0, 7):
        model = models.variant(llama, attention="bidirectional")
        torch.manual_seed(seed)  # of no effect
        state, others = torch.get_rng_state(), random.getstate()
        mntp(model, TEXTS, SHORT)
        assert torch.equal(torch.get_rng_state(), state)
        assert random.getstate() == others
        found.append(weights(model))
    assert equal(found[0], found[1]) and equal(found[0], found[2])
    model = models.variant(llama, attention="bidirectional")
    mntp(model, TEXTS, Recipe(**{**vars(SHORT), "seed": 5}))
    assert not equal(weights(model), found[0])


def test_all_weights_can_be_trained_and_recomputed(both_ways):
    recipe = Recipe(steps=3, batch=4, max_length=32, backbone="full", gradient_checkpointing=True)
    before = weights(both_ways)
    trained = mntp(both_ways, TEXTS, recipe)
    assert trained.parameters == sum(weight.numel() for weight in both_ways.parameters())
    changed = [
        name for name, tensor in both_ways.state_dict().items() if (tensor != before[name]).any()
    ]
    assert len(changed) == len(before)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(both_ways):
    calls = []

    def head(states):
        calls.append(1)
        scale = float("nan") if len(calls) == 3 else 1.0
        return scale * nn.functional.pad(states, (0, 260 - 64))

    before = weights(both_ways)
    with pytest.raises(FloatingPointError, match="step 3 of 5: the loss is nan"):
        mntp(both_ways, TEXTS, Recipe(**{**vars(NEXT), "steps": 5}), head=head)
    assert equal(weights(both_ways), before)  # without the adapter


def test_no_bar_is_shown_in_a_batch_job(both_ways, monkeypatch):
    def shown():
        raise AssertionError("a bar")

    monkeypatch.setattr("lab.training.loop.Progress", shown)
    monkeypatch.setenv("LAB_MODE", "batch")
    mntp(both_ways, TEXTS, Recipe(steps=1, batch=4, max_length=32, backbone="lora"))
    monkeypatch.delenv("LAB_MODE")
    with pytest.raises(AssertionError, match="a bar"):
        mntp(both_ways, TEXTS, Recipe(steps=1, batch=4, max_length=32, backbone="lora"))


# --- SimCSE ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "falcon"])
def test_dropout_makes_two_readings_differ_while_training_and_only_then(name):
    model = models.load(f"random:{name}", device="cpu")
    settings = [
        {key: str(value) for key, value in {**vars(module), **module._modules}.items()}
        for _, module in attention_modules(model.encoder.model)
    ]
    features = {k: v for k, v in model.preprocess(TEXTS[:2]).items() if torch.is_tensor(v)}

    @torch.no_grad()
    def differ():
        one, other = (model(dict(features))["sentence_embedding"] for _ in range(2))
        return not torch.equal(one, other)

    with attention_dropout(model, 0.3):
        assert not differ()
        model.train()
        assert differ()
    model.eval()
    again = [
        {key: str(value) for key, value in {**vars(module), **module._modules}.items()}
        for _, module in attention_modules(model.encoder.model)
    ]
    assert [s.keys() for s in settings] == [s.keys() for s in again]
    drops = [key for key in settings[0] if "drop" in key]
    assert [[s[k] for k in drops] for s in settings] == [[s[k] for k in drops] for s in again]


def test_the_share_of_attention_weights_that_is_dropped_is_the_one_asked_for(llama):
    seen = []
    original = nn.functional.scaled_dot_product_attention

    def watch(*args, dropout_p=0.0, **kwargs):
        seen.append(dropout_p)
        return original(*args, dropout_p=dropout_p, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", watch)
        simcse(llama, TEXTS, Recipe(**{**vars(TWICE), "steps": 1}), dropout=0.25)
    assert seen and set(seen) == {0.25}


def test_dropout_comes_back_after_an_error(llama):
    attention = llama.encoder.model.layers[0].self_attn
    with pytest.raises(RuntimeError, match="stop"), attention_dropout(llama, 0.3):
        assert attention.attention_dropout == 0.3
        raise RuntimeError("stop")
    assert attention.attention_dropout == 0.0


def test_simcse_moves_different_texts_apart(both_ways):
    trained = simcse(both_ways, TEXTS, TWICE, held_out=OTHERS)
    held_out = trained.log["held_out_loss"].dropna()
    assert held_out.iloc[-1] < held_out.iloc[0]
    assert trained.log["loss"].iloc[-1] < trained.log["loss"].dropna().iloc[0]


def test_equal_texts_never_stand_in_one_batch(llama):
    trained = simcse(llama, [*TEXTS, TEXTS[0]], Recipe(**{**vars(TWICE), "steps": 1}))
    assert trained.repeated == 2


# --- the chain ---------------------------------------------------------------------------------


def reach(model):
    def run(ids, mask):
        kept = []
        features = {"input_ids": ids, "attention_mask": mask}
        model.encoder.read(features, lambda _, hidden: kept.append(hidden), stop_after=3)
        return kept[-1]

    return reaches_first_token(model.encoder.model, run)


def test_the_chain_turns_a_causal_model_into_an_encoder(llama, tmp_path):
    vectors = llama.encode(OTHERS)
    done = llm2vec.convert(
        llama, TEXTS, held_out=OTHERS, mntp=SHORT, simcse=TWICE, folder=tmp_path / "run"
    )
    assert reach(llama) == 0 < reach(done.model)
    assert np.array_equal(llama.encode(OTHERS), vectors)  # the given model stays as it is
    assert all(weight.requires_grad for weight in llama.parameters())
    for step in (done.mntp, done.simcse):
        held_out = step.log["held_out_loss"].dropna()
        assert held_out.iloc[-1] < held_out.iloc[0]
    assert models.settings(done.model)["attention"] == "bidirectional"
    saved = models.load(tmp_path / "run" / "simcse", device="cpu")
    assert np.array_equal(saved.encode(OTHERS), done.model.encode(OTHERS))
    between = models.load(tmp_path / "run" / "mntp", device="cpu").encode(OTHERS)
    assert np.abs(between - done.model.encode(OTHERS)).max() > 1e-3
    assert np.abs(between - vectors).max() > 1e-2


def test_the_numbers_are_those_of_the_paper():
    assert (MNTP.steps, MNTP.batch, MNTP.max_length, MNTP.learning_rate) == (1000, 32, 512, 5e-5)
    assert (SIMCSE.steps, SIMCSE.batch, SIMCSE.max_length) == (1000, 128, 128)
    assert (SIMCSE.learning_rate, SIMCSE.loss_temperature) == (3e-5, 1 / 20)
    assert MNTP.lora == SIMCSE.lora == Lora(rank=16, alpha=32, dropout=0.05)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "texts", "message"),
    [
        ({"backbone": "frozen"}, TEXTS, "MNTP trains the backbone"),
        ({"mini_batch": 2}, TEXTS, "MNTP knows no mini_batch; leave it None, got 2"),
        ({"save_every": 2}, TEXTS, "MNTP knows no save_every"),
        ({}, TEXTS[:2], "fill 2 blocks, fewer than a batch of 4"),
        ({"max_length": 300}, TEXTS[:2], "2 texts have .* tokens, fewer than one block of 300"),
        ({"max_length": 999}, TEXTS, "2 tokens or more and at most 514, .*; got max_length=999"),
        ({"max_length": 1}, TEXTS, "got max_length=1"),
        ({}, [*TEXTS, " "], "text 40 .* blank"),
    ],
)
def test_what_mntp_cannot_train_on_is_refused(llama, changes, texts, message):
    before = weights(llama)
    with pytest.raises(ValueError, match=message):
        mntp(llama, texts, Recipe(**{**vars(NEXT), **changes}))
    assert equal(weights(llama), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "above 0 and at most 1; got 0.0"),
        ({"share": 1.2}, "above 0 and at most 1; got 1.2"),
        ({"masked": 0.8, "random": 0.3}, "at most 1 together; got 0.8 and 0.3"),
        ({"random": -0.1}, "got 0.8 and -0.1"),
        ({"masked": float("nan")}, "got nan and 0.1"),
    ],
)
def test_a_masking_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Masking(**options)


def test_what_simcse_cannot_do_is_refused(llama):
    with pytest.raises(ValueError, match="a frozen one computes without"):
        simcse(llama, TEXTS, Recipe(steps=1, batch=4))
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="dropout is above 0 and below 1"):
            simcse(llama, TEXTS, TWICE, dropout=share)
    falcon = models.load("random:falcon", device="cpu")
    with pytest.raises(ValueError, match="dropout does not reach the attention of falcon"):
        simcse(falcon, TEXTS, TWICE)


def test_a_conversion_that_would_change_the_given_model_is_refused(llama):
    with pytest.raises(ValueError, match="backbone='full' for simcse: take 'lora'"):
        llm2vec.convert(llama, TEXTS, simcse=Recipe(steps=1, backbone="full"))
