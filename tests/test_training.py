"""Training: the loss that is meant, the same bits every time, and errors that say what to do."""

import gc
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from lab import models
from lab.models.texts import TruncationWarning
from lab.store.hashing import of_weights
from lab.training import checkpoints, guards
from lab.training.adapters import Lora
from lab.training.loop import Loop
from lab.training.pairs import Pairs
from lab.training.recipe import Recipe
from lab.training.trainer import train

RECIPE = Recipe(steps=6, batch=8, learning_rate=3e-3, backbone="lora", lora=Lora(rank=4))
FROZEN = {"layers": "learned", "attention": "bidirectional"}
# What kills a run half-way and goes on with it, in processes of their own.
RUNS = {
    "lora with dropout": replace(RECIPE, lora=Lora(rank=4, dropout=0.5), save_every=2),
    "cached loss": replace(RECIPE, mini_batch=3, lora=Lora(rank=4, dropout=0.5), save_every=2),
    "learned mix": replace(RECIPE, backbone="frozen", save_every=3),
}


def drawn(n, seed, *, negative=False):
    """Three small letters and the same as capitals in another order; no two texts are equal."""
    rng = np.random.default_rng(seed)
    sets = rng.permutation(list(combinations(range(12), 3)))[: 2 * n]
    letters = {"anchor": (sets[:n], "a"), "positive": (sets[:n], "A")}
    letters |= {"negative": (sets[n:], "A")} if negative else {}
    spelt = {
        name: [
            f"{' '.join(chr(ord(first) + i) for i in rng.permutation(row))} {seed}" for row in part
        ]
        for name, (part, first) in letters.items()
    }
    return Pairs("toy", pd.DataFrame(spelt))


PAIRS, HELD_OUT = drawn(20, 1), drawn(16, 2)  # six steps are three epochs; two batches
GOLD = [row % 5 for row in range(len(HELD_OUT))]


def tiny(name="random:llama", **settings):
    return models.load(name, device="cpu", **{"attention": "bidirectional", **settings})


def bits(model):
    return of_weights(model)


def run(recipe=RECIPE, pairs=PAIRS, model=None, **options):
    """A trained tiny model and what the run did."""
    model = model or tiny(**FROZEN)
    return model, train(model, pairs, recipe, progress=False, **options)


@pytest.fixture(scope="module", autouse=True)
def _quick_collection():
    """Each run collects garbage; that of the imports need not be searched every time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def plain():
    """The run that others are compared with."""
    return run(held_out=HELD_OUT)


def info_nce(columns, temperature):
    """The loss by its definition, in float64."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in columns]
    cosines = unit[0].astype(np.float64) @ np.concatenate(unit[1:]).T.astype(np.float64)
    logits = cosines / temperature
    every = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    return (every - np.diag(logits[:, : len(logits)])).mean()


# --- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("negative", [False, True], ids=["pairs", "triplets"])
def test_losses_before_the_first_update_are_infonce_by_hand(negative):
    pairs, held_out = (drawn(8, seed, negative=negative) for seed in (1, 2))
    model = tiny()
    columns = [
        [model.encode(each.rows[name].tolist()) for name in each.columns]
        for each in (held_out, pairs)
    ]
    recipe = Recipe(steps=1, batch=8, backbone="full", loss_temperature=0.07)
    log = run(recipe, pairs, model, held_out=held_out)[1].log
    expected = [info_nce(each, 0.07) for each in columns]
    found = [log["held_out_loss"][0], log["loss"][1]]
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_lora_lowers_the_held_out_loss_of_a_bidirectional_decoder():
    pairs, held_out = drawn(96, 3, negative=True), drawn(24, 4, negative=True)
    recipe = replace(RECIPE, steps=20, evaluate_every=8)
    trained = run(recipe, pairs, tiny(), held_out=held_out)[1]
    measured = trained.log.dropna(subset="held_out_loss")
    assert measured["step"].tolist() == [0, 8, 16, 20]
    losses = measured["held_out_loss"].to_numpy()
    assert losses[-1] < losses[0] / 2
    assert trained.log["loss"].notna().sum() == trained.steps == 20


@pytest.mark.parametrize("negative", [False, True], ids=["pairs", "triplets"])
def test_the_cached_loss_is_the_plain_one_step_by_step(negative):
    pairs = drawn(20, 1, negative=negative)
    recipe = replace(RECIPE, steps=4, lora=Lora(rank=4, dropout=0))
    logs = [
        run(replace(recipe, mini_batch=size), pairs, held_out=drawn(8, 2, negative=negative))[1].log
        for size in (None, 3)
    ]
    np.testing.assert_allclose(logs[0], logs[1], atol=2e-5)


def test_no_two_pairs_of_a_batch_share_a_text(monkeypatch):
    pairs = drawn(40, 5)
    frame = pairs.rows.assign(anchor=[pairs.rows["anchor"][row % 12] for row in range(40)])
    frame.loc[3, "positive"] = frame.loc[30, "positive"]
    frame.loc[7, "positive"] = frame.loc[9, "anchor"]
    repeating, batches = Pairs("repeating", frame), []
    stock = Loop.compute_loss

    def seen(self, model, inputs, *args, **kwargs):
        batches.append(inputs["label"].tolist())
        return stock(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Loop, "compute_loss", seen)
    _, trained = run(replace(RECIPE, steps=10), repeating)
    assert trained.repeated == repeating.repeated == 40
    assert [len(rows) for rows in batches] == [8] * 10
    for rows in batches:
        texts = repeating.rows.iloc[rows].to_numpy().ravel().tolist()
        assert len(set(texts)) == len(texts)


# --- recomputation and precision -----------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layers": 1},  # the pass is left early
        {"layers": "learned", "temperature": 0.6},
        {"temperature": [0.5, 1.0, 1.5]},
        {"pooling": "last", "padding_side": "left", "attention": "causal"},
        {"attention": "prefix", "template": "query: {text}"},
        {"extension": "grouped/4"},
    ],
    ids=str,
)
def test_gradients_are_the_same_when_layers_are_computed_again(settings, monkeypatch):
    found = []
    stock = Loop._clip_grad_norm

    def kept(self, model):
        taking = checkpoints.trainable(model).items()
        found.append({name: p.grad.clone() for name, p in taking if p.grad is not None})
        return stock(self, model)

    monkeypatch.setattr(Loop, "_clip_grad_norm", kept)
    recipe = replace(RECIPE, steps=1)
    run(recipe, model=tiny(**settings))
    run(replace(recipe, gradient_checkpointing=True), model=tiny(**settings))
    one, other = found
    assert any(grad.abs().max() > 1e-4 for grad in one.values())
    for name, grad in one.items():
        torch.testing.assert_close(other[name], grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "settings", [{"temperature": "log-n/4"}, {"extension": "self-extend/4/2/2"}], ids=str
)
def test_what_cannot_be_computed_again_is_refused(settings):
    with pytest.raises(ValueError, match="can't be recomputed under gradient checkpointing"):
        run(replace(RECIPE, gradient_checkpointing=True), model=tiny(**settings))


def test_layers_are_indeed_computed_again(monkeypatch):
    calls = []
    stock = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        "transformers.modeling_utils.checkpoint",
        lambda *args, **kwargs: calls.append(1) or stock(*args, **kwargs),
    )
    model, _ = run(replace(RECIPE, steps=1, gradient_checkpointing=True))
    assert calls
    assert not model.encoder.model.is_activation_checkpointing


def test_gradient_checkpointing_under_an_old_transformers_is_refused(monkeypatch):
    monkeypatch.setattr("transformers.__version__", "5.17.0")
    with pytest.raises(RuntimeError, match=r"needs transformers 5.23 or newer.*5.17.0 is"):
        run(replace(RECIPE, gradient_checkpointing=True))
    run(replace(RECIPE, steps=1))


def test_bfloat16_computes_in_it_and_leaves_no_trace(plain):
    model, trained = run(replace(RECIPE, precision="bfloat16"), held_out=HELD_OUT)
    losses, exact = trained.log["loss"].dropna(), plain[1].log["loss"].dropna()
    assert 1e-5 < np.abs(losses - exact).max() < 0.05
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    text = ["balon neroti"]
    np.testing.assert_array_equal(model.encode(text), models.variant(model).encode(text))
    again, _ = run(held_out=HELD_OUT)  # and the next run is in float32
    assert bits(again) == bits(plain[0])


# --- the same bits -------------------------------------------------------------------------------


def test_the_same_recipe_gives_the_same_bits_and_another_seed_does_not(plain):
    assert bits(run(held_out=HELD_OUT)[0]) == bits(plain[0])
    other, log = run(replace(RECIPE, seed=1), held_out=HELD_OUT)
    assert bits(other) != bits(plain[0])
    assert log.log["loss"][1] != plain[1].log["loss"][1]  # of other pairs: B of LoRA is still zero


def test_nothing_that_only_watches_a_run_changes_it(plain, tmp_path):
    torch.manual_seed(99)
    recipe = replace(RECIPE, evaluate_every=1, save_every=1)
    watched, _ = run(recipe, held_out=drawn(8, 9), folder=tmp_path)
    assert bits(watched) == bits(plain[0]) == bits(run()[0])


def test_held_out_batches_are_the_same_for_every_seed(plain):
    _, other = run(replace(RECIPE, seed=1), held_out=HELD_OUT)
    assert other.log["held_out_loss"][0] == plain[1].log["held_out_loss"][0]


def test_random_generators_outside_go_on_as_if_nothing_had_been_drawn():
    def draws():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002

    model = tiny()
    seen = []
    for between in (lambda: None, lambda: run(replace(RECIPE, steps=1), model=model)):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
        between()
        seen.append(draws())
    assert seen[0] == seen[1]


# --- what is trained, and what is left ------------------------------------------------------------


def test_a_frozen_backbone_keeps_every_bit_and_its_dropout_off():
    model = tiny("random:bert", layers="learned", attention="native")
    assert model.encoder.model.config.hidden_dropout_prob > 0
    before = bits(model[0])
    pairs = drawn(8, 1)
    columns = [model.encode(pairs.rows[name].tolist()) for name in pairs.columns]
    recipe = Recipe(steps=3, batch=8, learning_rate=0.1)
    trained = run(recipe, pairs, model)[1]
    assert bits(model[0]) == before
    assert trained.parameters == 4  # three layers and the scale
    assert trained.log["loss"][0] == pytest.approx(info_nce(columns, 0.05), rel=2e-6)
    assert not torch.equal(model[1].scalars.detach(), torch.zeros(3))


def test_dropout_acts_where_the_backbone_is_trained():
    model, pairs = tiny("random:bert", attention="native"), drawn(8, 1)
    columns = [model.encode(pairs.rows[name].tolist()) for name in pairs.columns]
    recipe = Recipe(steps=1, batch=8, backbone="full")
    trained = run(recipe, pairs, model)[1]
    assert abs(trained.log["loss"][0] - info_nce(columns, 0.05)) > 1e-3


@pytest.mark.parametrize("backbone", ["lora", "full", "frozen"])
def test_a_trained_model_is_a_plain_lab_model(backbone):
    model = tiny(**FROZEN)
    model[1].gamma.requires_grad_(backbone != "full")
    model.encoder.model.config.use_cache = True
    model.encoder.model.config.bos_token_id = 7  # not the tokenizer's
    config, names = model.encoder.model.config.to_dict(), list(model.state_dict())
    attributes, flags = set(vars(model)), {n: p.requires_grad for n, p in model.named_parameters()}
    recipe = replace(RECIPE, steps=2, backbone=backbone, gradient_checkpointing=True)
    run(recipe, model=model)
    assert (model.encoder.model.config.to_dict(), list(model.state_dict())) == (config, names)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert set(vars(model)) == attributes
    assert not any(module.training for module in model.modules())


def test_a_model_of_sentence_transformers_alone_trains_as_well():
    stock = tiny("random:bert", attention="native")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    around = Transformer.__new__(Transformer)
    around.__dict__.update(stock[0].__dict__)
    model = SentenceTransformer(modules=[around, Pooling(stock.get_embedding_dimension(), "mean")])
    before = bits(model)
    trained = run(Recipe(steps=2, batch=8, backbone="full"), model=model)[1]
    assert bits(model) != before
    assert trained.parameters == sum(p.numel() for p in model.parameters())


def test_a_run_prints_nothing_unless_asked_to(capfd):
    model = tiny(**FROZEN)
    capfd.readouterr()
    run(model=model, held_out=HELD_OUT)
    assert capfd.readouterr() == ("", "")


def test_parallel_windows_train_but_not_in_mini_batches():
    recipe = replace(RECIPE, steps=2)
    model = tiny(extension="parallel-windows/5")
    trained = run(recipe, model=model, held_out=HELD_OUT)[1]
    assert trained.log["loss"].dropna().gt(0).all()
    with pytest.raises(ValueError, match=r"mini_batch=3 .* several windows a text"):
        run(replace(recipe, mini_batch=3), model=model)


def test_texts_longer_than_the_model_give_one_warning_unless_a_length_is_asked_for():
    recipe = Recipe(steps=2, batch=8, backbone="full")
    with pytest.warns(TruncationWarning, match="32 of 32 texts are longer") as caught:
        run(recipe, model=tiny(max_length=4))
    assert len(caught) == 1
    model, cut = tiny(), tiny(max_length=4)
    run(replace(recipe, max_length=4), model=model)
    assert model.max_seq_length != 4
    with pytest.warns(TruncationWarning):
        run(recipe, model=cut)
    assert bits(model) == bits(cut)


# --- checkpoints ---------------------------------------------------------------------------------


def work(folder, name):
    """One run of RUNS in a folder."""
    return run(RUNS[name], folder=folder / name, held_out=HELD_OUT)


def left_by_a_killed_run(folder, name, after):
    """The last checkpoint of a process that is killed in a step, or while one was written."""
    if os.fork():
        _, status = os.wait()
        assert status == signal.SIGKILL
        return checkpoints.step_of(checkpoints.checkpoints(folder / name)[-1])
    stock, write = Loop.training_step, checkpoints.write_weights

    def step(self, *args, **kwargs):
        if self.state.global_step == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return stock(self, *args, **kwargs)

    def torn(model, place):
        write(model, place)
        if place.name == f"checkpoint-{-after}":
            os.kill(os.getpid(), signal.SIGKILL)

    Loop.training_step, checkpoints.write_weights = step, torn
    work(folder, name)
    return None


def child(*arguments):
    """What this file prints when it is run in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.fixture(scope="module")
def later(plain, tmp_path_factory):
    """A folder with killed runs and a saved model, and what a fresh process makes of them."""
    folder = tmp_path_factory.mktemp("later")
    plain[0].save_pretrained(str(folder / "model"))
    return folder, child(folder)


def test_a_killed_run_goes_on_to_the_same_bits_in_a_fresh_process(later, tmp_path):
    folder, (*resumed, _) = later
    for name, found in zip(RUNS, resumed, strict=True):
        model, trained = work(tmp_path, name)
        logs = [pd.read_pickle(folder / f"{name}.pkl"), trained.log]
        assert found == bits(model), name
        pd.testing.assert_frame_equal(*logs, check_exact=True)


def test_a_checkpoint_holds_what_is_trained_and_little_more(tmp_path):
    _, trained = run(replace(RECIPE, save_every=2), folder=tmp_path)
    whole = checkpoints.checkpoints(tmp_path)
    assert [path.name for path in whole] == ["checkpoint-4", "checkpoint-6"]
    weights = (whole[-1] / checkpoints.WEIGHTS).stat().st_size
    assert 4 * trained.parameters < weights < 4 * trained.parameters + 10_000


@pytest.mark.parametrize("steps", [2, 3], ids=["at the end of an epoch", "within one"])
def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch, steps):
    recipe = replace(RECIPE, steps=steps)
    model, trained = run(recipe, folder=tmp_path, held_out=HELD_OUT)
    monkeypatch.setattr(Loop, "training_step", lambda *_: pytest.fail("it trains"))
    again, found = run(recipe, folder=tmp_path, held_out=HELD_OUT)
    assert bits(again) == bits(model)
    pd.testing.assert_frame_equal(found.log, trained.log, check_exact=True)


def spoil(checkpoint, how):
    file = checkpoint / "optimizer.pt"
    if how == "is missing":
        file.unlink()
    elif how == "is not as it was written":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        (checkpoint / checkpoints.RUN).write_text("{")


@pytest.mark.parametrize("how", ["is missing", "is not as it was written", "run.json: Expecting"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path, how):
    recipe = replace(RECIPE, save_every=2)
    model, _ = run(recipe, folder=tmp_path)
    spoil(tmp_path / "checkpoint-6", how)
    with pytest.warns(checkpoints.CheckpointWarning, match=f"checkpoint-6 is not whole .*{how}"):
        again, _ = run(recipe, folder=tmp_path)
    assert bits(again) == bits(model)
    run(recipe, folder=tmp_path)  # it has been written anew


def test_a_checkpoint_of_another_configuration_is_refused_field_by_field(tmp_path):
    run(folder=tmp_path)
    with pytest.raises(ValueError) as caught:
        run(replace(RECIPE, learning_rate=1e-4, lora=Lora(rank=2)), folder=tmp_path)
    message = str(caught.value)
    assert "checkpoint-6 belongs to another configuration" in message
    assert "recipe: learning_rate: 0.003 there, 0.0001 now" in message
    assert "recipe: lora.rank: 4 there, 2 now" in message
    assert message.count(" there, ") == 2
    for options, field in [
        ({"pairs": drawn(20, 8)}, r"texts of the pairs \(sha256\)"),
        ({"model": tiny(layers="learned", attention="causal")}, "module 0: .*causal"),
        ({"model": tiny(**FROZEN, seed=1)}, r"weights before training \(xxh3\)"),
        ({"recipe": replace(RECIPE, backbone="full")}, "recipe: lora.rank: 4 there, nothing now"),
    ]:
        with pytest.raises(ValueError, match=field):
            run(folder=tmp_path, **options)
    recipe = replace(RECIPE, learning_rate=1e-4)
    begun_again, _ = run(recipe, folder=tmp_path, resume=False)
    assert bits(begun_again) == bits(run(recipe)[0])


def test_a_run_that_goes_on_takes_the_intervals_that_it_is_asked_for(tmp_path, monkeypatch):
    recipe = replace(RECIPE, save_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "training_step", failing(KeyboardInterrupt(), at=3))
        with pytest.raises(KeyboardInterrupt):
            run(recipe, folder=tmp_path)
    assert [path.name for path in checkpoints.checkpoints(tmp_path)] == ["checkpoint-2"]
    _, trained = run(replace(recipe, save_every=5, evaluate_every=3), folder=tmp_path,
                     held_out=HELD_OUT)  # fmt: skip
    assert trained.log.dropna(subset="held_out_loss")["step"].tolist() == [3, 6]
    names = [path.name for path in checkpoints.checkpoints(tmp_path)]
    assert names == ["checkpoint-5", "checkpoint-6"]


# --- errors --------------------------------------------------------------------------------------


def failing(error, at):
    """A step that raises after so many updates."""
    stock = Loop.training_step

    def step(self, *args, **kwargs):
        if self.state.global_step == at:
            raise error
        return stock(self, *args, **kwargs)

    return step


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_rows_and_checkpoint(
    tmp_path, monkeypatch
):
    stock = SentenceTransformer.forward

    def forward(self, features, **kwargs):
        result = stock(self, features, **kwargs)
        if len(checkpoints.checkpoints(tmp_path)) == 2:
            result["sentence_embedding"] = result["sentence_embedding"] * torch.nan
        return result

    monkeypatch.setattr(SentenceTransformer, "forward", forward)
    with pytest.raises(FloatingPointError) as caught:
        run(replace(RECIPE, save_every=2), folder=tmp_path)
    message = str(caught.value)
    assert message.startswith("step 5 of 6, which was not taken, rows ")
    assert "of toy: " in message
    assert f"the loss is nan; the last checkpoint from which a step succeeded is {tmp_path}" in (
        message
    )
    assert "checkpoint-2. Lower the learning rate" in message
    assert [p.name for p in checkpoints.checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
    named = message.partition("rows ")[2].partition(" of toy")[0]
    assert len(set(named.split(", "))) == RECIPE.batch


def test_a_gradient_that_is_not_finite_is_not_stepped_along(monkeypatch):
    kept = {}

    def spoil_gradient(module, grad_input, grad_output):
        return (grad_input[0] * torch.inf, *grad_input[1:])

    model = tiny(**FROZEN)
    before = bits(model)
    stock = Loop.training_step

    def step(self, model, *args, **kwargs):
        kept.update({n: p.detach().clone() for n, p in checkpoints.trainable(model).items()})
        if self.state.global_step == 2:
            checkpoints.trainable(model)["1.gamma"].register_hook(lambda grad: grad * torch.nan)
        return stock(self, model, *args, **kwargs)

    monkeypatch.setattr(Loop, "training_step", step)
    with pytest.raises(FloatingPointError, match=r"step 3 of 6.*the norm of the gradient is nan; "
                       "there is no checkpoint from which"):  # fmt: skip
        run(model=model)
    assert torch.equal(model[1].gamma.detach(), kept["1.gamma"])
    assert bits(model[0]) == bits(tiny(**FROZEN)[0])  # the adapter is gone
    assert bits(model) != before


def test_weights_that_are_not_finite_are_named_with_the_held_out_pairs():
    model = tiny()
    with torch.no_grad():
        model.encoder.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    recipe = Recipe(steps=2, batch=8, backbone="full")
    with pytest.raises(FloatingPointError, match=r"held-out pairs after step 0 of 2: .*not finite"):
        run(recipe, model=model, held_out=HELD_OUT)
    with pytest.raises(FloatingPointError, match=r"step 1 of 2.*the loss is nan"):
        run(recipe, model=model)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
    ids=["GPU", "Python", "CPU"],
)
def test_running_out_of_memory_says_what_to_lower(error, monkeypatch):
    monkeypatch.setattr(Loop, "training_step", failing(error, at=1))
    with pytest.raises(MemoryError) as caught:
        run(replace(RECIPE, max_length=32))
    message = str(caught.value)
    assert message.startswith("step 2 of 6")
    settings = "mini_batch (now None), batch (now 8), max_length (now 32)"
    assert f"lower {settings}, or set gradient_checkpointing=True" in message
    assert caught.value.__cause__ is error


def test_another_error_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(Loop, "training_step", failing(RuntimeError("shapes differ"), at=0))
    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        run()


def test_a_model_survives_a_run_that_was_stopped(monkeypatch):
    model = tiny()
    before = bits(model)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "training_step", failing(KeyboardInterrupt(), at=3))
        with pytest.raises(KeyboardInterrupt):
            run(model=model)
    assert bits(model) == before
    assert bits(run(model=model)[0]) == bits(run(model=tiny())[0])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"pairs": drawn(7, 1)}, "toy has 7 pairs, fewer than a batch of 8"),
        ({"held_out": drawn(7, 2)}, "toy has 7 pairs, fewer than a batch of 8"),
        ({"held_out": drawn(8, 2, negative=True)}, "held-out pairs have anchor, positive, neg"),
        ({"held_out": PAIRS}, "40 of 40 held-out texts are trained on, such as '"),
        ({"recipe": replace(RECIPE, evaluate_every=2)}, "evaluate_every=2 needs held_out pairs"),
        ({"recipe": replace(RECIPE, save_every=2)}, "save_every=2 needs a folder"),
        ({"recipe": replace(RECIPE, backbone="frozen"), "model": tiny()}, "nothing to train"),
        (
            {"recipe": replace(RECIPE, backbone="full"), "model": tiny(dtype="bfloat16")},
            r"parameters that are trained are in half precision, such as 0\.model",
        ),
        ({"recipe": replace(RECIPE, lora=Lora(targets=["qq"]))}, "'qq' matches no linear module"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_pairs_that_cannot_be_put_apart_are_refused():
    pairs = drawn(24, 1)
    same = pairs.rows.assign(anchor=[pairs.rows["anchor"][row % 6] for row in range(24)])
    with pytest.raises(
        ValueError, match="of these 24 pairs only 0 batches of 8 could be filled, 3"
    ):
        run(pairs=Pairs("toy", same))


def test_a_checkpoint_with_other_parameters_is_not_taken(tmp_path):
    model = tiny(**FROZEN)
    checkpoints.write_weights(model[1], tmp_path)
    with pytest.raises(ValueError, match="holds other parameters than are trained"):
        checkpoints.restore(model, tmp_path)


def test_the_batch_of_an_error_is_described_with_few_texts():
    said = guards.described([4, 2, 9, 0], PAIRS)
    assert said.startswith("rows 4, 2, 9, 0 of toy: ")
    assert said.endswith(" and 1 more")


# --- what a trained model is good for ------------------------------------------------------------


def test_a_saved_trained_model_gives_the_same_vectors_and_mteb_score_in_a_fresh_process(
    plain, later
):
    folder, (*_, score) = later
    columns = [plain[0].encode(HELD_OUT.rows[name].tolist()) for name in HELD_OUT.columns]
    assert np.abs(columns[0] - tiny(**FROZEN).encode(HELD_OUT.rows["anchor"].tolist())).max() > 1e-3
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), columns)
    cosines = torch.cosine_similarity(*map(torch.tensor, columns))
    assert float(score) == pytest.approx(spearmanr(cosines, GOLD).statistic, abs=1e-6)


def mteb_score(model):
    """mteb's Spearman correlation on a tiny task in memory."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mteb
        from datasets import Dataset
        from mteb.abstasks import AbsTaskSTS
        from test_mteb import metadata

        columns = {"sentence1": HELD_OUT.rows["anchor"], "sentence2": HELD_OUT.rows["positive"]}
        rows = Dataset.from_dict({**columns, "score": GOLD})

        class LocalSTS(AbsTaskSTS):
            min_score, max_score = 0, 4

            def load_data(self, **_):
                self.dataset, self.data_loaded = {"test": rows}, True

        LocalSTS.metadata = metadata(mteb, "LocalTrainedSTS", "STS", "cosine_spearman")
        result = mteb.evaluate(model, LocalSTS(), cache=None, show_progress_bar=False)
    return result.task_results[0].get_score()


def main(folder):
    """Let runs be killed in processes of their own, go on with them, and use the saved model."""
    # In step 6, while checkpoint-4 was written, and in step 5.
    left = [left_by_a_killed_run(folder, *each) for each in zip(RUNS, (5, -4, 4), strict=True)]
    assert left == [4, 2, 3]
    for name in RUNS:
        model, trained = work(folder, name)
        trained.log.to_pickle(folder / f"{name}.pkl")
        yield bits(model)
    model = models.load(str(folder / "model"), device="cpu")
    columns = [model.encode(HELD_OUT.rows[name].tolist()) for name in HELD_OUT.columns]
    np.save(folder / "vectors.npy", columns)
    yield mteb_score(model)


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in main(Path(sys.argv[1])))
