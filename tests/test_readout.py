"""Read-outs: equal to encode and to transformers by hand, from one pass, on disk, honest."""

import gc
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import models, readout
from lab.models import states
from lab.models.architecture import layers as layers_of
from lab.models.texts import TruncationWarning
from lab.pooling import LAYER_MIXES, POOLINGS, Tokens
from lab.readout import batches_by_tokens, read_out

TEXTS = [
    "A man is playing a guitar.",
    "x",
    "Two dogs run through deep snow, barking at a hare.",
    "Rain.",
    "The old clock in the hall struck nine and nobody looked up.",
]


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama")


@pytest.fixture(scope="module")
def everything(llama):
    return read_out(llama, TEXTS, token_budget=80)


def refilled(model, value):
    """A second model with one weight of its last layer overwritten."""
    broken = models.load("random:llama")
    with torch.no_grad():
        layers_of(broken.encoder.model)[1].mlp.down_proj.weight[0, 0] = value
    return broken


# --- the same numbers as everywhere else -------------------------------------------------------


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_every_cell_equals_encode(llama, everything, pooling):
    for layer in everything.layers:
        model = models.variant(llama, layers=layer, pooling=pooling)
        np.testing.assert_allclose(everything[layer, pooling], model.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "bert", "albert", "modernbert", "gpt2"])
def test_every_cell_equals_hidden_states_pooled_by_hand(name, side):
    model = models.load(f"random:{name}", padding_side=side)
    found = read_out(model, TEXTS, token_budget=200)
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = model.encoder.model(ids, output_hidden_states=True).hidden_states
        tokens = Tokens(torch.ones_like(ids, dtype=torch.bool), model.encoder.frequency[ids])
        assert len(hidden) == len(found.layers) == found.states
        for (layer, pooling), embeddings in found.items():
            expected = POOLINGS[pooling](hidden[layer], tokens)[0].numpy()
            np.testing.assert_allclose(embeddings[row], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("mix", ["last", "first_last", "mean_of_all"])
def test_a_mix_equals_the_layer_mix_of_the_model(llama, everything, mix):
    model = models.variant(llama, layers=mix, pooling="max")
    np.testing.assert_allclose(everything.mix(mix, "max"), model.encode(TEXTS), atol=1e-5)


def test_every_mix_that_fits_is_float32(everything):
    for mix in set(LAYER_MIXES) - {"last_four"}:
        assert everything.mix(mix, "mean").dtype == np.float32


def test_settings_of_the_model_act(llama):
    model = models.variant(
        llama,
        attention="bidirectional",
        temperature=0.5,
        sink=True,
        template="say: {text}",
        pool_template=False,
    )
    found = read_out(model, TEXTS, poolings=["mean"])
    np.testing.assert_allclose(found[-1, "mean"], model.encode(TEXTS), atol=1e-5)
    prompted = read_out(model, TEXTS, poolings=["mean"], prompt="query: ")
    expected = model.encode(TEXTS, prompt="query: ")
    np.testing.assert_allclose(prompted[-1, "mean"], expected, atol=1e-5)
    assert np.abs(prompted[-1, "mean"] - found[-1, "mean"]).max() > 1e-4


def test_real_weights_equal_encode(minilm):
    found = read_out(minilm, TEXTS, layers=[-1], poolings=["mean"])
    unit = found[-1, "mean"] / np.linalg.norm(found[-1, "mean"], axis=1, keepdims=True)
    np.testing.assert_allclose(unit, minilm.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_neither_token_budget_nor_order_of_texts_matters(llama, everything, budget):
    order = [3, 0, 4, 2, 1]
    found = read_out(llama, [TEXTS[row] for row in order], token_budget=budget)
    assert found.lengths.tolist() == everything.lengths[order].tolist()
    for key, embeddings in found.items():
        np.testing.assert_allclose(embeddings, everything[key][order], atol=1e-5)


# --- what is read, and what it costs -----------------------------------------------------------


def counted(module, run):
    """How often ``module`` is called while ``run()`` runs."""
    calls = []
    handle = module.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        run()
    finally:
        handle.remove()
    return len(calls)


def test_each_batch_takes_one_forward_pass(llama, everything):
    batches = batches_by_tokens(everything.lengths.tolist(), 80)
    assert len(batches) > 1
    passes = counted(llama.encoder.model, lambda: read_out(llama, TEXTS, token_budget=80))
    assert passes == len(batches)


def test_layers_after_the_last_one_wanted_do_not_run(llama):
    first, second, third = layers_of(llama.encoder.model)
    read = lambda: read_out(llama, TEXTS, layers=[1])  # noqa: E731
    mlps = [counted(layer.mlp, read) for layer in (first, second, third)]
    assert mlps == [1, 0, 0]


def test_negative_layers_count_from_the_end(llama, everything):
    found = read_out(llama, TEXTS, layers=[-1, 1, 3], poolings=["mean", "mean"])
    assert found.layers == (3, 1)
    assert found.poolings == ("mean",)
    assert np.array_equal(found[-1, "mean"], found[3, "mean"])
    np.testing.assert_allclose(found[-3, "mean"], everything[1, "mean"], atol=1e-5)


def test_what_was_not_read_is_an_error_that_says_what_was(llama):
    found = read_out(llama, TEXTS, layers=[1], poolings=["mean"])
    with pytest.raises(LookupError, match=r"\(2, 'mean'\) was not read; there are layers \(1,\)"):
        found[2, "mean"]
    with pytest.raises(LookupError, match=r"was not read.*poolings mean"):
        found[1, "max"]
    with pytest.raises(LookupError, match="was not read"):
        found.mix("first_last", "mean")


def test_unknown_settings_are_errors(llama):
    with pytest.raises(LookupError, match="did you mean 'mean'"):
        read_out(llama, TEXTS, poolings=["maen"])
    with pytest.raises(ValueError, match="layer 4 does not exist"):
        read_out(llama, TEXTS, layers=[4])
    for nothing in ({"layers": []}, {"poolings": []}):
        with pytest.raises(ValueError, match=f"nothing to read: {next(iter(nothing))} is empty"):
            read_out(llama, TEXTS, **nothing)
    with pytest.raises(ValueError, match="texts is empty"):
        read_out(llama, [])


def test_a_second_read_inside_the_first_is_refused(llama):
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}

    def nested(layer, hidden):
        states.read(llama.encoder.model, inputs, lambda *_: None)

    with pytest.raises(RuntimeError, match="is being read already"):
        states.read(llama.encoder.model, inputs, nested)
    read_out(llama, TEXTS[:1], poolings=["mean"])  # and the model is free again


# --- bad texts, bad weights, long texts --------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ("", ValueError, r"text 1 .* is empty or blank"),
        (" \n", ValueError, r"text 1 .* is empty or blank"),
        (None, TypeError, "text 1 is a NoneType"),
    ],
)
def test_a_bad_text_is_named_by_its_row(llama, bad, error, message):
    with pytest.raises(error, match=message):
        read_out(llama, ["good", bad])


def test_a_text_without_tokens_is_named_by_its_row_however_many_come_before(minilm):
    row = readout.CHUNK + 2
    texts = ["good"] * row + ["\u200b"]  # a character that BERT's tokenizer drops
    with pytest.raises(ValueError, match=f"text {row} .* gives no token"):
        read_out(minilm, texts)


def test_one_string_is_refused(llama):
    with pytest.raises(TypeError, match="give a list"):
        read_out(llama, "a text")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_an_error_that_names_text_and_layer(llama, value):
    # Texts are read longest first: the message must name the row in the caller's order.
    message = r"text 2 \('Two dogs run.*not finite; it begins in hidden state 2 of 3"
    with pytest.raises(FloatingPointError, match=message):
        read_out(refilled(llama, value), TEXTS[:4])


def test_cut_texts_are_counted_and_reported(llama):
    short = models.variant(llama, max_length=20)
    with pytest.warns(TruncationWarning, match="3 of 5 texts are longer.*20 tokens") as caught:
        found = read_out(short, TEXTS, layers=[-1], poolings=["mean"])
    assert [each.filename for each in caught] == [__file__]
    whole = np.array([len(text) + 2 for text in TEXTS])  # one token a byte, <s> and </s>
    assert found.cut.tolist() == np.maximum(whole - 20, 0).tolist()
    assert found.lengths.tolist() == np.minimum(whole, 20).tolist()


# --- the file ----------------------------------------------------------------------------------

FULL = """
import resource, sys
from lab import models
from lab.readout import read_out
model = models.load("random:llama")
texts = [f"text number {row}" for row in range(200)]
calls = []
model.encoder.model.register_forward_pre_hook(lambda *_: calls.append(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    read_out(model, texts, token_budget=200)
except OSError as error:
    print(len(calls), error.errno, error)
"""


def test_a_full_disk_is_found_at_the_first_batch_and_says_how_much_was_wanted():
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    calls, _, message = done.stdout.split(" ", 2)
    size = 200 * 4 * len(POOLINGS) * 64 * 4 / 1e9
    assert calls == "1"
    assert f"the read-outs need {size:.1f} GB of temporary disk" in message
    assert "folder=" in message


def test_a_system_that_cannot_reserve_room_gives_the_same_read_outs(
    llama, everything, tmp_path, monkeypatch
):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    found = read_out(llama, TEXTS, token_budget=80, folder=tmp_path)
    for key, embeddings in found.items():
        assert np.array_equal(embeddings, everything[key])


def open_files(folder):
    """Targets of this process's open files in ``folder``."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
    targets = [os.readlink(link) for link in links if os.path.islink(link)]  # noqa: PTH114, PTH115
    return [target for target in targets if target.startswith(str(folder))]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")  # noqa: PTH112
def test_the_file_has_no_name_and_goes_with_the_object(llama, tmp_path):
    found = read_out(llama, TEXTS, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(open_files(tmp_path)) == 1
    del found
    gc.collect()
    assert open_files(tmp_path) == []


def test_cells_come_back_as_often_as_wanted_and_are_the_readers_own(everything):
    first = everything[1, "mean"]
    first[:] = 0
    assert everything[1, "mean"].any()
    assert dict(everything.items()).keys() == {
        (layer, pooling) for layer in range(4) for pooling in POOLINGS
    }


# --- batches -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), max_size=40), budget=st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget_longest_first(lengths, budget):
    batches = batches_by_tokens(lengths, budget)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    for batch, after in itertools.pairwise(batches):  # no batch could take one more
        assert max(lengths[row] for row in batch) * (len(batch) + 1) > budget or not after
