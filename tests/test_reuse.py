"""Read-outs that were computed before: the same bits without a pass, and nothing stale."""

import errno
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_series import whole
from torch import nn
from transformers import AttentionInterface
from typer.testing import CliRunner

from lab import cli, models, runner, store
from lab.models.encoder import Encoder
from lab.models.texts import TruncationWarning
from lab.pooling import POOLINGS
from lab.readout import CHUNK, read_out
from lab.registry import Registry
from lab.series import verify
from lab.store import fingerprint, reuse, shards
from lab.training import adapters

TEXTS = ["a cat", "the mat on which a cat sat", "x", "rain", "it was raining all day", "a cat!"]
POOLS = ["mean", "max", "last", "inverse_frequency_mean"]


def tiny(name="llama"):
    model = models.load(f"random:{name}", device="cpu")
    model.encoder.frequency = torch.arange(1, 261) / 260  # counting takes longer than these tests
    return model


@pytest.fixture(scope="module")
def base():
    return tiny()


@pytest.fixture
def llama(base):
    """A model of its own over shared weights."""
    return models.variant(base)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The folder of the read-outs, as inside a run."""
    monkeypatch.setenv("LAB_REUSE", "1")
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "read-outs"


def computed(model, texts=TEXTS, **options):
    """What comes without the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_REUSE", "0")
        return read_out(model, texts, **options)


def same(found, expected):
    assert (found.layers, found.poolings) == (expected.layers, expected.poolings)
    assert np.array_equal(found.lengths, expected.lengths)
    assert np.array_equal(found.cut, expected.cut)
    for key, embeddings in expected.items():
        assert found[key].dtype == np.float32
        assert found[key].tobytes() == embeddings.tobytes(), key
    return True


# --- the same bits, without a pass ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_second_call_makes_no_pass_and_gives_the_same_bits(name, passes):
    model, options = tiny(name), {"poolings": POOLS, "token_budget": 20}
    passes.clear()
    first = read_out(model, TEXTS, **options)
    assert sum(passes) == len(TEXTS)
    passes.clear()
    again = read_out(model, TEXTS, **options)
    assert passes == []
    assert same(again, first)
    assert same(again, computed(model, **options))


def test_another_object_with_the_same_weights_finds_them_too(llama, passes, tmp_path):
    first = read_out(llama, TEXTS, poolings=POOLS)
    llama.save_pretrained(str(tmp_path / "saved"))
    other = models.load(tmp_path / "saved", device="cpu")
    passes.clear()
    found = read_out(other, TEXTS, poolings=POOLS)
    assert passes == []
    assert same(found, first)


def test_a_call_for_some_of_the_layers_finds_them_and_one_for_more_keeps_only_those(
    llama, passes, place
):
    read_out(llama, TEXTS, poolings=POOLS, layers=[1, 3])
    (kept,) = place.iterdir()
    passes.clear()
    assert same(
        read_out(llama, TEXTS, poolings=POOLS, layers=[-1]),
        computed(llama, poolings=POOLS, layers=[3]),
    )
    passes.clear()
    everything = read_out(llama, TEXTS, poolings=POOLS)
    assert sum(passes) == len(TEXTS)
    assert same(everything, computed(llama, poolings=POOLS))
    more = [file for file in place.iterdir() if file != kept]
    assert len(more) == 1 and kept.exists()
    found = read_out(llama, TEXTS, poolings=POOLS, layers=[3, 0, 1])
    assert same(found, computed(llama, poolings=POOLS, layers=[3, 0, 1]))


def test_more_texts_than_are_tokenised_together_are_found_as_well(llama, passes, monkeypatch):
    assert CHUNK > 2
    monkeypatch.setattr("lab.readout.CHUNK", 2)
    first = read_out(llama, TEXTS, poolings=["mean"])
    passes.clear()
    assert same(read_out(llama, TEXTS, poolings=["mean"]), first)
    assert passes == []


def test_the_warning_that_texts_were_cut_comes_both_times(llama, passes):
    short = models.variant(llama, max_length=8)
    said = []
    passes.clear()
    for _ in range(2):
        with pytest.warns(TruncationWarning) as caught:
            read_out(short, TEXTS, poolings=["mean"])
        said.append([str(one.message) for one in caught])
    assert said[0] == said[1]
    assert sum(passes) == len(TEXTS)


def test_a_run_notes_what_it_did_not_compute(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUN_DIR", str(tmp_path))
    read_out(llama, TEXTS, poolings=["mean"], layers=[2])
    assert not (tmp_path / "inputs.jsonl").exists()
    read_out(llama, TEXTS, poolings=["mean"], layers=[2])
    (entry,) = map(json.loads, (tmp_path / "inputs.jsonl").read_text().splitlines())
    assert (entry["kind"], entry["store"], entry["layers"]) == ("cache", "read-outs", [2])
    assert (entry["model"], entry["files"]) == ("random:llama", {}), "it may go at any time"


# --- nothing stale -------------------------------------------------------------------------------


def one_weight(model):
    with torch.no_grad():
        model.encoder.model.layers[1].mlp.up_proj.weight[3, 5] += 1e-4


def one_weight_unnoticed(model):
    model.encoder.model.layers[1].mlp.up_proj.weight.data[3, 5] += 1e-4


def signs_of_a_matrix(model):
    model.encoder.model.layers[1].mlp.up_proj.weight.data.neg_()


def rows_of_a_matrix(model):
    weight = model.encoder.model.layers[1].mlp.up_proj.weight
    weight.data.copy_(weight.data.flip(0))


def a_buffer_that_is_not_saved(model):
    model.encoder.model.rotary_emb.inv_freq.mul_(1.01)


def a_merged_adapter(model):
    adapters.add(model, adapters.Lora(rank=2), seed=0)
    for name, weight in model.encoder.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    adapters.merge(model)


def another_activation(model):
    model.encoder.model.layers[1].mlp.act_fn = nn.Identity()


def a_scale_of_logits(model):
    model.encoder.model.layers[1].self_attn.scaling *= 0.3


def the_epsilon_of_a_norm(model):
    model.encoder.model.layers[1].input_layernorm.variance_epsilon = 1.0


def the_scale_of_positions(model):
    model.encoder.model.rotary_emb.attention_scaling = 2.0


IN_PLACE = [
    one_weight,
    one_weight_unnoticed,
    signs_of_a_matrix,
    rows_of_a_matrix,
    a_buffer_that_is_not_saved,
    a_merged_adapter,
    another_activation,
    a_scale_of_logits,
    the_epsilon_of_a_norm,
    the_scale_of_positions,
]
SETTINGS = [
    {"attention": "bidirectional"},
    {"temperature": 0.9},
    {"temperature": [1.0, 1.0, 0.9]},
    {"extension": "ntk/8"},
    {"template": "query: {text}"},
    {"sink": "<mask>"},
    {"max_length": 8},
    {"padding_side": "left"},
]
OPTIONS = [
    {"texts": [*TEXTS[:-1], "a cat?"]},
    {"texts": TEXTS[:-1]},
    {"texts": [*TEXTS, "another"]},
    {"texts": TEXTS[::-1]},
    {"poolings": ["mean"]},
    {"poolings": POOLS[::-1]},
    {"token_budget": 20},
    {"prompt": "query: "},
]


def misses(passes, model, texts=TEXTS, **options):
    """Whether a call is computed, and is then what it is without the store."""
    passes.clear()
    found = read_out(model, texts, **options)
    done = sum(passes) == len(texts)
    return done and same(found, computed(model, texts, **options))


@pytest.mark.parametrize("change", IN_PLACE, ids=lambda f: f.__name__)
def test_a_model_that_was_changed_in_place_is_computed_anew(passes, change):
    model = tiny()
    before = read_out(model, TEXTS, poolings=POOLS)
    change(model)
    assert misses(passes, model, poolings=POOLS)
    after = read_out(model, TEXTS, poolings=POOLS)
    assert after[-1, "mean"].tobytes() != before[-1, "mean"].tobytes()


@pytest.mark.filterwarnings("ignore::lab.models.texts.TruncationWarning")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_another_setting_is_computed_anew(llama, passes, settings):
    read_out(llama, TEXTS, poolings=POOLS)
    assert misses(passes, models.variant(llama, **settings), poolings=POOLS)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_another_call_is_computed_anew(llama, passes, options):
    read_out(llama, TEXTS, poolings=POOLS)
    assert misses(passes, llama, **{"poolings": POOLS, **options})


def test_other_token_frequencies_are_computed_anew_where_they_are_read(llama, passes):
    for poolings in (POOLS, ["mean"]):
        read_out(llama, TEXTS, poolings=poolings)
    llama.encoder.frequency = llama.encoder.frequency.flip(0)
    assert misses(passes, llama, poolings=POOLS)
    assert not misses(passes, llama, poolings=["mean"])


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (fingerprint.importlib.metadata, "version", lambda _: "0"),
        (fingerprint, "cpu", lambda: "another processor"),
        (torch, "get_num_threads", lambda: 7),
        (torch, "are_deterministic_algorithms_enabled", lambda: True),
    ],
    ids=["versions", "processor", "threads", "algorithms"],
)
def test_other_versions_and_machines_compute_anew(llama, passes, monkeypatch, where, name, value):
    read_out(llama, TEXTS, poolings=POOLS)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, value)
        assert misses(passes, llama, poolings=POOLS)
    assert not misses(passes, llama, poolings=POOLS)


def test_the_slope_of_an_activation_counts(passes):
    model = tiny()
    mlp = model.encoder.model.layers[1].mlp
    mlp.act_fn = nn.LeakyReLU(0.01)
    read_out(model, TEXTS, poolings=POOLS)
    mlp.act_fn.negative_slope = 0.5
    assert misses(passes, model, poolings=POOLS)


def test_the_function_in_an_activation_counts(passes):
    model = tiny("gemma")
    act = model.encoder.model.layers[1].mlp.act_fn
    assert isinstance(act.act, partial)
    read_out(model, TEXTS, poolings=POOLS)
    act.act = partial(nn.functional.gelu, approximate="none")
    assert misses(passes, model, poolings=POOLS)
    act.act = lambda hidden: hidden
    assert fingerprint.unseen(model)


@pytest.mark.parametrize(
    ("of", "name"),
    [(reuse, "readout.py"), (fingerprint, "pooling.py"), (fingerprint, "encoder.py")],
)
def test_other_code_computes_anew(llama, passes, monkeypatch, of, name):
    read_out(llama, TEXTS, poolings=POOLS)
    digest = fingerprint.digest
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "digest", lambda f: "new" if f.name == name else digest(f))
        assert not misses(passes, llama, poolings=POOLS), "this process runs what it imported"
        patch.setattr(of, "CODE", fingerprint.of_code(*of.FILES))  # as a process started now
        assert misses(passes, llama, poolings=POOLS)
    assert not misses(passes, llama, poolings=POOLS)


def a_hook(model):
    model.encoder.model.layers[1].register_forward_hook(lambda module, args, output: output)


def a_forward(model):
    layer = model.encoder.model.layers[1]
    layer.forward = layer.forward


def a_class(model):
    class Own(nn.Identity):
        pass

    model.encoder.model.layers[1].mlp.act_fn = Own()


def an_adapter(model):
    adapters.add(model, adapters.Lora(rank=2), seed=0)


def an_observer(model):
    from lab.models.interception import inside

    inside(model.encoder.model.layers[1].self_attn).observe = lambda weights, values: None


def doubled(function):
    """A function of a notebook."""
    return lambda *args, **kwargs: function(*args, **kwargs) * 2


def tokens_of_its_own(model):
    tokens = model.encoder.tokens
    model.encoder.tokens = lambda features: tokens(features)


def an_encoder_of_its_own(model):
    class Own(Encoder):
        pass

    model.encoder.__class__ = Own


ON_ONE = [
    a_hook,
    a_forward,
    a_class,
    an_adapter,
    an_observer,
    tokens_of_its_own,
    an_encoder_of_its_own,
]


@pytest.mark.parametrize("change", ON_ONE, ids=lambda f: f.__name__)
def test_what_no_hash_sees_is_computed_every_time_and_not_kept(passes, place, change):
    model = tiny()
    change(model)
    assert fingerprint.unseen(model)
    assert misses(passes, model, poolings=["mean"])
    assert misses(passes, model, poolings=["mean"])
    assert not place.exists()


def test_a_forward_that_a_class_was_given_is_computed_every_time(llama, passes, monkeypatch):
    kind = type(llama.encoder.model.layers[1].mlp)
    read_out(llama, TEXTS, poolings=["mean"])
    monkeypatch.setattr(kind, "forward", doubled(kind.forward))
    for _ in range(2):
        assert misses(passes, llama, poolings=["mean"])


def test_a_forward_of_another_class_of_a_library_is_another_model(llama, passes, monkeypatch):
    read_out(llama, TEXTS, poolings=["mean"])
    kind = type(llama.encoder.model.layers[1].input_layernorm)
    monkeypatch.setattr(kind, "forward", nn.Identity.forward)
    assert misses(passes, llama, poolings=["mean"])


@pytest.mark.parametrize("when", ["forward", "forward_pre"])
def test_a_hook_on_all_modules_is_computed_every_time(llama, passes, when):
    read_out(llama, TEXTS, poolings=["mean"])
    register = getattr(nn.modules.module, f"register_module_{when}_hook")
    handle = register(lambda *_: None)
    try:
        for _ in range(2):
            assert misses(passes, llama, poolings=["mean"])
    finally:
        handle.remove()
    assert not misses(passes, llama, poolings=["mean"])


def test_an_attention_of_a_notebook_is_computed_every_time(passes, monkeypatch):
    known = AttentionInterface._global_mapping
    monkeypatch.setattr(AttentionInterface, "_global_mapping", dict(known))
    model = tiny()
    for factor in (1.0, 0.3):

        def mine(module, query, *args, factor=factor, **kwargs):
            return known["sdpa"](module, query * factor, *args, **kwargs)

        AttentionInterface.register("mine", mine)
        model.encoder.model.config._attn_implementation = "mine"
        for _ in range(2):
            assert misses(passes, model, poolings=["mean"])
    AttentionInterface.register("sdpa", mine)
    model.encoder.model.config._attn_implementation = "sdpa"
    assert fingerprint.unseen(model), "a name of the library with another function"


def test_nothing_in_a_model_as_it_is_loaded_is_out_of_sight():
    for name in ("llama", "gemma", "gpt2"):
        assert fingerprint.unseen(tiny(name)) is None, name


def test_a_pooling_of_a_notebook_is_computed_every_time(llama, passes, place, monkeypatch):
    known = Registry("pooling")
    known._items = {**POOLINGS._items, "mine": lambda hidden, tokens: hidden[:, 0]}
    for module in ("lab.pooling", "lab.readout", "lab.store.fingerprint"):
        monkeypatch.setattr(f"{module}.POOLINGS", known)
    for _ in range(2):
        assert misses(passes, llama, poolings=["mean", "mine"])
    assert not place.exists()


def test_states_that_are_not_finite_are_not_kept(place):
    model = tiny()
    model.encoder.model.layers[1].mlp.up_proj.weight.data[0] = float("nan")
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="not finite"):
            read_out(model, TEXTS, poolings=["mean"])
    assert not place.exists()


# --- trouble -------------------------------------------------------------------------------------


def test_a_damaged_file_is_reported_deleted_and_computed_again(llama, passes, place):
    first = read_out(llama, TEXTS, poolings=POOLS)
    (file,) = place.iterdir()
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    passes.clear()
    with pytest.warns(UserWarning, match="damaged, deleted and computed again"):
        found = read_out(llama, TEXTS, poolings=POOLS)
    assert same(found, first)
    assert sum(passes) == len(TEXTS)
    assert not misses(passes, llama, poolings=POOLS)


def test_a_full_disk_costs_the_next_run_time_and_this_one_nothing(llama, place, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write", full)
    with pytest.warns(reuse.NotKeptWarning, match=r"not kept .*No space left"):
        found = read_out(llama, TEXTS, poolings=POOLS)
    assert same(found, computed(llama, poolings=POOLS))
    assert list(place.iterdir()) == []


def test_a_cache_that_is_no_folder_costs_this_run_nothing(llama, place):
    place.parent.mkdir()
    place.write_text("in the way")
    with pytest.warns(reuse.NotKeptWarning, match="not kept"):
        found = read_out(llama, TEXTS, poolings=POOLS)
    assert same(found, computed(llama, poolings=POOLS))


def test_a_large_call_is_not_kept(llama, place, monkeypatch):
    monkeypatch.setattr(reuse, "LARGEST", 1000)
    read_out(llama, TEXTS, poolings=POOLS)
    assert not place.exists()


def test_the_least_recently_used_goes_first(llama, passes, place, monkeypatch):
    calls = [[text] for text in TEXTS[:4]]
    read_out(llama, calls[0], poolings=["mean"])
    (file,) = place.iterdir()
    monkeypatch.setattr(reuse, "ROOM", 3 * file.stat().st_size)
    for call in (calls[1], calls[2], calls[0], calls[3]):
        read_out(llama, call, poolings=["mean"])
    assert len(list(place.iterdir())) == 3
    passes.clear()
    for call in (calls[0], calls[2], calls[3]):
        read_out(llama, call, poolings=["mean"])
    assert passes == []
    assert misses(passes, llama, calls[1], poolings=["mean"])


WORK = """
import json, sys
from lab import models
from lab.readout import read_out
model, texts = models.load("random:llama", device="cpu"), json.loads(sys.argv[1])
for at in range(int(sys.argv[2]), 12):
    print(read_out(model, texts[: 2 + at % 3], poolings=["mean"])[-1, "mean"].tobytes().hex())
"""


def test_two_processes_at_once_get_the_same_bits(place):
    model = models.load("random:llama", device="cpu")
    expected = [computed(model, TEXTS[: 2 + at % 3], poolings=["mean"]) for at in range(12)]
    wanted = [one[-1, "mean"].tobytes().hex() for one in expected]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, json.dumps(TEXTS), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    for number, process in enumerate(both):
        assert process.communicate(timeout=200)[0].split() == wanted[number:]
        assert process.returncode == 0
    assert len(list(place.iterdir())) == 3, "the same content has the same name"


# --- the switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "0"])
def test_it_is_off_unless_it_is_switched_on(llama, passes, place, monkeypatch, value):
    monkeypatch.delenv("LAB_REUSE")
    if value:
        monkeypatch.setenv("LAB_REUSE", value)
    for _ in range(2):
        read_out(llama, TEXTS, poolings=["mean"])
    assert sum(passes) == 2 * len(TEXTS)
    assert not place.exists()


def test_a_mistyped_switch_is_refused(llama, monkeypatch):
    monkeypatch.setenv("LAB_REUSE", "yes")
    with pytest.raises(ValueError, match=r"LAB_REUSE is 1 .* or 0; got 'yes'"):
        read_out(llama, TEXTS)


@pytest.mark.parametrize(
    ("outside", "reuse", "inside"), [(None, True, "1"), ("0", True, "0"), ("1", False, "0")]
)
def test_the_runner_switches_it_on_unless_told_not_to(monkeypatch, outside, reuse, inside):
    monkeypatch.delenv("LAB_REUSE")
    if outside:
        monkeypatch.setenv("LAB_REUSE", outside)
    variables = runner.batch_variables(Path("run"), Path("scratch"), 1, reuse)
    assert variables[store.SWITCH] == inside


def test_verifying_a_run_computes_everything(tmp_path, monkeypatch):
    def run(*_, **options):
        raise InterruptedError(options["reuse"])

    content = whole(outputs={"results.parquet": ""}) | {"environment": {"threads": 1}}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    monkeypatch.setattr(verify.claims, "damaged", lambda *_: [])
    monkeypatch.setattr(runner, "run", run)
    with pytest.raises(InterruptedError, match="False"):
        verify.verify(tmp_path)


def test_lab_clean_lists_the_caches_and_empties_them_only_when_asked(llama, place):
    read_out(llama, TEXTS, poolings=["mean"])
    (place / "notes.txt").write_text("not ours")
    ask = ["clean", "--cache"]
    listed = CliRunner().invoke(cli.app, ask).output
    assert str(place) in listed and "1 files" in listed and "would be deleted" in listed
    assert len(list(place.iterdir())) == 2
    assert CliRunner().invoke(cli.app, [*ask, "--delete"]).exit_code == 0
    assert [file.name for file in place.iterdir()] == ["notes.txt"]
    assert "0 folders" in CliRunner().invoke(cli.app, ask).output


def test_the_numerics_name_the_variables_that_change_sums(llama):
    found = fingerprint.numerics(llama)
    assert found["variables"]["MKL_CBWR"] == os.environ["MKL_CBWR"]
    assert found["threads"] == torch.get_num_threads()
