"""Loading, settings, saving: the result is a SentenceTransformer that keeps its promises."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny import DECODERS, ENCODERS
from tokenizers.normalizers import Replace

from lab import models
from lab.models.checkpoints import (
    _once,
    byte_tokenizer,
    convert_gguf,
    random_model,
    tiny_config,
    write_random,
)
from lab.models.texts import TruncationWarning

TEXTS = ["A man is playing a guitar.", "x", "Two dogs run through deep snow, barking at a hare."]
INSTRUCTION = "Represent the sentence: {text}"


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama")


@pytest.fixture(scope="module")
def bert():
    return models.load("random:bert")


def last_hidden(model, text):
    """The last hidden states of one text and its ids, by transformers alone."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return model.encoder.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
        )[0][0].numpy(), ids[0].tolist()


def test_the_result_is_a_sentence_transformer(llama):
    assert isinstance(llama, SentenceTransformer)
    assert llama.get_embedding_dimension() == 64
    assert llama.encode(TEXTS).shape == (3, 64)
    assert llama.encode(TEXTS[0]).shape == (64,)
    assert llama.similarity(llama.encode(TEXTS), llama.encode(TEXTS)).shape == (3, 3)


def test_mean_pooling_equals_a_mean_by_hand(llama):
    states, _ = last_hidden(llama, TEXTS[2])
    np.testing.assert_allclose(llama.encode([TEXTS[2]])[0], states.mean(0), atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "roberta"])
def test_batch_size_and_padding_side_never_matter(name, side):
    model = models.load(f"random:{name}", padding_side=side, pooling="last")
    alone = np.stack([model.encode([text])[0] for text in TEXTS])
    np.testing.assert_allclose(model.encode(TEXTS, batch_size=3), alone, atol=1e-5)


def test_a_sink_token_is_prepended_attended_and_left_out_of_the_pool(llama):
    model = models.variant(llama, sink="<mask>")
    _, ids = last_hidden(model, "<mask>" + TEXTS[0])
    assert ids[1] == model.tokenizer.mask_token_id  # <s> <mask> ...: the text of the oracle
    item = model.encoder.tokenise([TEXTS[0]])[0]
    assert item.ids[0] == model.tokenizer.mask_token_id
    assert item.pool == [False] + [True] * (len(item.ids) - 1)


def test_a_sink_that_the_tokenizer_puts_there_anyway_is_not_doubled(llama):
    model = models.variant(llama, sink=True)
    states, ids = last_hidden(model, TEXTS[0])
    item = model.encoder.tokenise([TEXTS[0]])[0]
    assert item.ids == ids
    np.testing.assert_allclose(model.encode([TEXTS[0]])[0], states[1:].mean(0), atol=1e-5)


def test_the_template_is_pooled_or_left_out(llama):
    inside = models.variant(llama, template=INSTRUCTION)
    outside = models.variant(llama, template=INSTRUCTION, pool_template=False)
    states, _ = last_hidden(llama, INSTRUCTION.format(text=TEXTS[0]))
    prefix = 1 + len("Represent the sentence: ")  # <s> and one token a byte
    np.testing.assert_allclose(inside.encode([TEXTS[0]])[0], states.mean(0), atol=1e-5)
    np.testing.assert_allclose(outside.encode([TEXTS[0]])[0], states[prefix:].mean(0), atol=1e-5)


def test_a_prompt_left_out_of_the_pool_equals_sentence_transformers(tmp_path, minilm):
    from lab.models.checkpoints import CHECKPOINTS

    stock = SentenceTransformer(str(CHECKPOINTS["minilm-l6"].folder()), device="cpu")
    ours = models.variant(minilm, pool_template=False)
    np.testing.assert_allclose(
        minilm.encode(TEXTS, prompt="query: "), stock.encode(TEXTS, prompt="query: "), atol=1e-6
    )
    stock[1].include_prompt = False
    np.testing.assert_allclose(
        ours.encode(TEXTS, prompt="query: "), stock.encode(TEXTS, prompt="query: "), atol=1e-6
    )


def test_a_prefix_is_seen_by_all_of_itself(llama):
    model = models.variant(llama, attention="prefix", template=INSTRUCTION)
    causal = models.variant(llama, template=INSTRUCTION)
    assert np.abs(model.encode(TEXTS) - causal.encode(TEXTS)).max() > 1e-3


def test_a_prefix_without_an_instruction_is_refused(minilm):
    model = models.variant(minilm, attention="prefix")
    with pytest.raises(ValueError, match="needs an instruction before the text"):
        model.encode(TEXTS)


@pytest.mark.parametrize("layers", [2, -2, "first_last", "mean_of_all", "learned"])
def test_layers_and_mixes_equal_sums_by_hand(llama, layers):
    model = models.variant(llama, layers=layers, pooling="last")
    ids = torch.tensor([model.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        states = model.encoder.model(ids, output_hidden_states=True, use_cache=False).hidden_states
    last = np.stack([state[0, -1].numpy() for state in states])
    expected = {
        2: last[2],
        -2: last[2],
        "first_last": (last[1] + last[3]) / 2,
        "mean_of_all": last[1:].mean(0),
        "learned": last[1:].mean(0),
    }[layers]
    np.testing.assert_allclose(model.encode([TEXTS[0]])[0], expected, atol=1e-5)


def test_a_variant_shares_the_weights_and_leaves_the_original_alone(llama):
    before = llama.encode(TEXTS)
    other = models.variant(llama, attention="bidirectional", temperature=0.5)
    assert other.encode(TEXTS).shape == before.shape
    assert np.abs(other.encode(TEXTS) - before).max() > 1e-3
    assert np.array_equal(llama.encode(TEXTS), before)
    ours, theirs = next(llama.parameters()), next(other.parameters())
    assert ours.data_ptr() == theirs.data_ptr()
    back = models.variant(other, attention=None, temperature=None)
    assert np.array_equal(back.encode(TEXTS), before)


SAVED = {
    "bidirectional": ("llama", {"attention": "bidirectional"}),
    "causal encoder": ("bert", {"attention": "causal"}),
    "prefix": ("llama", {"attention": "prefix", "template": INSTRUCTION, "pool_template": False}),
    "temperature": ("llama", {"temperature": 0.7}),
    "temperature per layer": ("bert", {"temperature": [0.7, 1.3, 2.0]}),
    "log-n": ("llama", {"temperature": "log-n/8"}),
    "extension": ("llama", {"extension": "self-extend/12/3/5"}),
    "inline temperature": ("mpnet", {"temperature": 0.7}),
    "sink and left padding": ("bert", {"sink": "<mask>", "padding_side": "left"}),
    "length": ("llama", {"max_length": 30}),
    "frequency": ("llama", {"pooling": "inverse_frequency_mean"}),
    "max of a layer": ("bert", {"pooling": "max", "layers": 1}),
    "mix": ("llama", {"layers": "first_last"}),
    "learned mix": ("bert", {"layers": "learned", "pooling": "first"}),
}
RELOAD = """
import json, sys, warnings
import numpy as np
from sentence_transformers import SentenceTransformer
from lab import models
from pathlib import Path
root, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    stock = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    ours = models.load(str(folder), device="cpu")
    facts = {k: v for k, v in models.settings(ours).items() if k != "checkpoint"}
    (folder / "settings.json").write_text(json.dumps(facts))
    np.save(folder / "stock.npy", stock.encode(texts))
    np.save(folder / "ours.npy", ours.encode(texts))
    ours.save_pretrained(str(root / "again" / folder.name))
"""


@pytest.mark.filterwarnings("ignore::lab.models.texts.TruncationWarning")
def test_saved_models_give_the_same_vectors_in_a_fresh_process(tmp_path):
    expected = {}
    for case, (name, settings) in SAVED.items():
        model = models.load(f"random:{name}", device="cpu", **settings)
        if case == "learned mix":
            with torch.no_grad():
                model.layer_mix.scalars.copy_(torch.tensor([0.1, 0.7, -0.4]))
        model.save_pretrained(str(tmp_path / "first" / case))
        facts = {k: v for k, v in models.settings(model).items() if k != "checkpoint"}
        expected[case] = model.encode(TEXTS), facts
    for stage in ("first", "again"):
        root = tmp_path / stage if stage == "first" else tmp_path / "first" / "again"
        run = subprocess.run(
            [sys.executable, "-c", RELOAD, str(root), json.dumps(TEXTS)],
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        for case, (vectors, facts) in expected.items():
            assert np.array_equal(np.load(root / case / "stock.npy"), vectors), (stage, case)
            assert np.array_equal(np.load(root / case / "ours.npy"), vectors), (stage, case)
            assert json.loads((root / case / "settings.json").read_text()) == facts
        if stage == "again":
            break


def test_a_chat_template_is_never_wrapped_around_a_text(llama):
    model = models.variant(llama)
    model.tokenizer.chat_template = "{% for m in messages %}<s>user {{ m.content }}{% endfor %}"
    assert np.array_equal(model.encode(TEXTS), llama.encode(TEXTS))


def test_a_random_control_depends_on_its_seed_only():
    first = models.load("random:llama", seed=1).encode(TEXTS)
    assert np.array_equal(models.load("random:llama", seed=1).encode(TEXTS), first)
    assert np.abs(models.load("random:llama", seed=2).encode(TEXTS) - first).max() > 1e-2


def test_half_precision_passes_the_same_checks():
    model = models.load("random:llama", dtype="bfloat16", attention="bidirectional")
    assert model.encode(TEXTS).shape == (3, 64)


@pytest.mark.filterwarnings("ignore::lab.models.texts.TruncationWarning")
def test_a_long_text_is_cut_at_the_end_of_the_text_and_the_template_stays():
    model = models.load("random:llama", template='"{text}" means', max_length=20)
    item = model.encoder.tokenise(["abc" * 20])[0]
    assert len(item.ids) == 20
    assert model.tokenizer.decode(item.ids) == '<s>"abcabcabca" means</s>'
    assert item.cut == 60 - 10


def test_truncation_is_counted_and_reported():
    model = models.load("random:llama", max_length=20)
    with pytest.warns(TruncationWarning, match=r"1 of 3 texts are longer than the model's 20 tok"):
        model.encode([*TEXTS[:2], "short"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode(["short"])


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["a", ""], ValueError, r"text 1 .* is empty or blank"),
        (["a", " \n\t"], ValueError, r"text 1 .* is empty or blank"),
        (["a", None], TypeError, "text 1 is a NoneType"),
        (["a", 3.0], TypeError, "text 1 is a float"),
        (["a", float("nan")], TypeError, "text 1 is a float"),
    ],
)
def test_a_text_that_is_none_is_refused_by_row(llama, texts, error, message):
    with pytest.raises(error, match=message):
        llama.encode(texts)


def test_nan_weights_are_reported_with_text_and_layer():
    model = models.load("random:llama")
    with torch.no_grad():
        model.encoder.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"text 0 \('A man.*begins in hidden state 2 of 3"):
        model.encode(TEXTS)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"pooling": "maen"}, LookupError, "did you mean 'mean'"),
        ({"attention": "bidirektional"}, LookupError, "did you mean 'bidirectional'"),
        ({"layers": 9}, ValueError, r"layer 9 does not exist.*0 \(embeddings\) to 3"),
        ({"layers": "firstlast"}, LookupError, "did you mean 'first_last'"),
        ({"temperature": 0}, ValueError, "positive finite"),
        ({"temperature": float("nan")}, ValueError, "positive finite"),
        ({"temperature": [1.0, 2.0]}, ValueError, "2 temperatures for 3 layers"),
        ({"sink": "<bos>"}, ValueError, "no token of this tokenizer"),
        ({"template": "no slot"}, ValueError, "exactly once"),
        ({"padding_side": "centre"}, ValueError, "'left' or 'right'"),
        ({"max_length": 0}, ValueError, r"outside 1 \.\. 514"),
        ({"template": 3}, ValueError, "template must be str"),
        ({"pooling": ["mean"]}, ValueError, "pooling must be str"),
        ({"pool_template": "no"}, ValueError, "pool_template must be bool"),
        ({"layers": 1.5}, ValueError, "layers is a number or a name"),
        ({"layers": True}, ValueError, "layers is a number or a name"),
        ({"dtype": "flot32"}, LookupError, "did you mean 'float32'"),
        ({"revision": "main"}, ValueError, "revision is for hub repositories"),
        ({"max_length": 10**6}, ValueError, r"outside 1 \.\. 514"),
    ],
)
def test_a_bad_setting_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        models.load("random:llama", **settings)


@pytest.mark.parametrize(
    "refused",
    [
        {"max_length": 10**9},
        {"max_length": 0, "extension": "grouped/5"},
        {"sink": "zzz"},
        {"padding_side": "x"},
        {"attention": "both"},
        {"pooling": "maen"},
        {"layers": [9]},
        {"template": "no slot"},
        {"extension": "grouped/515"},
        {"temperature": [1.0, 2.0]},
    ],
)
def test_settings_of_which_one_is_refused_change_nothing(refused):
    model = models.load("random:llama", temperature=0.7, padding_side="left", max_length=60)
    before, expected = models.settings(model), model.encode(TEXTS)
    others = {"temperature": 0.3, "attention": "bidirectional", "pooling": "max", "max_length": 9}
    with pytest.raises((ValueError, LookupError)):
        model.encoder.configure(**{**others, "padding_side": "right", **refused})
    assert models.settings(model) == before
    assert np.array_equal(model.encode(TEXTS), expected)


def test_a_soft_cap_that_refuses_a_temperature_leaves_the_attention_alone():
    model = models.load("random:gemma2")
    expected = model.encode(TEXTS)
    with pytest.raises(ValueError, match="caps its logits"):
        model.encoder.configure(attention="bidirectional", temperature="log-n/8", sink="<s>")
    assert np.array_equal(model.encode(TEXTS), expected)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "gpt_neo",
            {"attention": "bidirectional"},
            r"gpt_neo .*can't do .*bidirectional.*it can do n",
        ),
        (
            "deberta-v2",
            {"attention": "causal"},
            r"deberta-v2 .*can't do .*causal.*it can do native",
        ),
        (
            "bloom",
            {"attention": "prefix"},
            r"bloom .*can't do .*prefix.*it can do native, bidirect",
        ),
        ("albert", {"temperature": [1.0, 2.0, 3.0]}, "albert are one module"),
        ("gemma2", {"temperature": "log-n/8"}, "caps its logits"),
    ],
)
def test_what_an_architecture_cannot_do_is_an_error_that_names_it(name, settings, message):
    with pytest.raises(ValueError, match=message):
        models.load(f"random:{name}", **settings)


def test_a_saved_bidirectional_decoder_can_go_back_to_its_native_attention(llama, tmp_path):
    models.variant(llama, attention="bidirectional").save_pretrained(str(tmp_path / "model"))
    back = models.load(str(tmp_path / "model"), attention="native")
    assert np.array_equal(back.encode(TEXTS), llama.encode(TEXTS))


def test_a_prefix_that_would_be_causal_is_refused():
    with pytest.raises(ValueError, match=r"gpt_neo .*the last token of the instruction does not"):
        models.load("random:gpt_neo", attention="prefix", template=INSTRUCTION)


def test_a_lab_model_that_comes_as_a_stock_object_keeps_its_settings(llama, tmp_path):
    """As from a hub: sentence-transformers loads it first, with the user's trust."""
    from lab.models.loading import _as_lab_model

    model = models.variant(llama, attention="bidirectional", layers="first_last", pooling="max")
    model.save_pretrained(str(tmp_path / "model"))
    stock = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    ours = _as_lab_model(stock, "owner/model", True)
    assert models.settings(ours)["layer_mix"] == "first_last"
    assert np.array_equal(ours.encode(TEXTS), model.encode(TEXTS))


def test_code_that_comes_with_a_folder_is_not_run_unasked(llama, tmp_path):
    folder = tmp_path / "evil"
    llama.save_pretrained(str(folder))
    listed = json.loads((folder / "modules.json").read_text())
    listed.append({"idx": 9, "name": "9", "path": "", "type": "evilmod.Evil"})
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "evilmod.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        models.load(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["roberta", "mpnet"])
@pytest.mark.filterwarnings("ignore::lab.models.texts.TruncationWarning")
def test_a_long_text_fits_the_positions_that_roberta_really_has(name):
    model = models.load(f"random:{name}")
    model.tokenizer.model_max_length = 10**30  # as of a tokenizer that states no limit
    other = models.load(f"random:{name}", max_length=512)
    assert other.encode(["long " * 300]).shape == (1, 64)
    assert models.variant(model, max_length=None).encode(["long " * 300]).shape == (1, 64)
    with pytest.raises(ValueError, match=r"outside 1 \.\. 512"):
        models.load(f"random:{name}", max_length=513)


def test_errors_and_counts_of_encode_are_about_all_texts_not_about_a_batch(llama):
    texts = ["aaaa bbbb ccc"] * 40 + ["\u200b"] + ["d"] * 5
    bert = models.variant(llama, max_length=6)
    with pytest.warns(TruncationWarning, match="40 of 45 texts"):
        bert.encode(texts[:40] + texts[41:])
    wordpiece = models.load("random:llama")
    wordpiece.tokenizer._tokenizer.normalizer = Replace("\u200b", "")
    with pytest.raises(ValueError, match=r"text 40 .* gives no token"):
        wordpiece.encode(texts)


@pytest.mark.parametrize(
    "form",
    [
        {"convert_to_numpy": False},
        {"output_value": None},
        {"output_value": "token_embeddings"},
        {"precision": "int8"},
        {"convert_to_tensor": True},
        {"prompt": "query: "},
    ],
)
@pytest.mark.filterwarnings("ignore:Computing int8")
def test_nan_is_found_in_every_form_of_output(form):
    model = models.load("random:llama")
    with torch.no_grad():
        model.encoder.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"text 0 .*hidden state 3 of 3"):
        model.encode(TEXTS, **form)


def test_weights_that_are_not_finite_are_not_blamed_on_the_attention(tmp_path):
    model = models.load("random:llama")
    with torch.no_grad():
        model.encoder.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="states of llama are not finite: check its weights"):
        models.variant(model, attention="causal")


def test_leaving_out_a_template_that_is_not_there_leaves_out_nothing(minilm):
    ours = models.variant(minilm, pool_template=False)
    assert np.array_equal(ours.encode(TEXTS), minilm.encode(TEXTS))


def test_none_brings_length_and_padding_side_back(llama):
    model = models.variant(llama, max_length=20, padding_side="left")
    back = models.variant(model, max_length=None, padding_side=None)
    assert (back.encoder.max_length, back.encoder.padding_side) == (512, "right")


def test_a_saved_half_precision_model_comes_back_as_it_was(tmp_path):
    model = models.load("random:llama", dtype="bfloat16")
    model.save_pretrained(str(tmp_path / "model"))
    back = models.load(str(tmp_path / "model"))
    assert back.encoder.model.dtype == torch.bfloat16
    assert np.array_equal(back.encode(TEXTS), model.encode(TEXTS))


def test_texts_may_come_in_any_iterable(llama):
    import pandas as pd

    expected = llama.encode(TEXTS)
    for texts in (tuple(TEXTS), pd.Series(TEXTS), np.array(TEXTS), iter(TEXTS)):
        assert np.array_equal(llama.encode(texts), expected)


def test_damaged_weights_are_named_with_the_cure(llama, tmp_path):
    llama.save_pretrained(str(tmp_path / "model"))
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"the weights in .* are damaged .*restore the folder"):
        models.load(tmp_path / "model")


def without(folder, *keys):
    """The checkpoint of a folder, less the weights whose names end like this."""
    file = folder / "model.safetensors"
    weights = {name: w for name, w in load_file(file).items() if not name.endswith(keys)}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("lab_model", [False, True])
@pytest.mark.parametrize(
    ("name", "key"), [("llama", "1.mlp.up_proj.weight"), ("bert", "2.output.dense.bias")]
)
def test_missing_weights_are_named_instead_of_made_up(tmp_path, name, key, lab_model):
    if lab_model:
        models.load(f"random:{name}", layers=1).save_pretrained(str(tmp_path))
    else:
        write_random(name, tmp_path, seed=0)
    without(tmp_path, key)
    message = rf"checkpoint of '.*' lacks 1 weights of a \w+Model: \S*{key}; .*Restore the weights"
    with pytest.raises(ValueError, match=message):
        models.load(tmp_path)


def test_of_many_missing_weights_the_first_are_named(tmp_path):
    write_random("llama", tmp_path, seed=0)
    without(tmp_path, "proj.weight")
    with pytest.raises(ValueError, match=r"lacks 21 weights of a LlamaModel: (\S+, ){5}\.\.\.;"):
        models.load(tmp_path)


def test_a_missing_pooler_or_head_that_no_state_depends_on_is_not_missed(bert, tmp_path):
    bert.save_pretrained(str(tmp_path))
    without(tmp_path, "pooler.dense.weight", "pooler.dense.bias")
    with torch.no_grad():
        model = models.load(tmp_path)
    assert np.array_equal(model.encode(TEXTS), bert.encode(TEXTS))
    assert all(parameter.requires_grad for parameter in model.encoder.model.parameters())


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_a_complete_checkpoint_of_every_architecture_lacks_nothing(tmp_path, name):
    from lab.models.origins import open_model

    write_random(name, tmp_path, seed=0)
    options = {"seed": None, "revision": None, "trust_remote_code": False}
    assert open_model(str(tmp_path), **options)[0].model.config.model_type == name


def test_a_disk_too_full_for_a_checkpoint_is_reported_with_the_room_it_needs(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="Windows can't limit a file's size")
    model, tokenizer = random_model(tiny_config("llama"), seed=0), byte_tokenizer()
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", lambda *_, **__: model)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: tokenizer)
    target, size = tmp_path / "made", sum(w.numel() for w in model.parameters()) * 4 / 1e6
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            _once(target, lambda folder: convert_gguf(tmp_path / "a.gguf", folder))
        with pytest.raises(OSError, match="or set TMPDIR to another folder"):
            models.load("random:llama")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = f"a checkpoint of {size:.1f} MB can't be written to {tmp_path}: "
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("; make room there, or set LAB_CACHE to another folder")
    assert list(tmp_path.iterdir()) == []


def test_a_switch_that_does_not_act_is_found_out(llama):
    """The probe at load sees what upstream swallows: here, a model that ignores is_causal."""
    from lab.models.verification import verify

    model = models.variant(llama, attention="bidirectional")
    for layer in model.encoder.model.layers:
        layer.self_attn.is_causal = True
    model.encoder.model.config.is_causal = True
    with pytest.raises(ValueError, match="does not reach the first one"):
        verify(model.encoder)


def test_unknown_names_missing_weights_and_a_hub_out_of_reach_say_what_to_do(monkeypatch):
    with pytest.raises(LookupError, match="did you mean 'smollm2-135m'"):
        models.load("smolm2-135m")
    with pytest.raises(LookupError, match=r"no architecture named 'lama'.*did you mean"):
        models.load("random:lama")
    with pytest.raises(ConnectionError, match=r"use a packaged model .smollm2-135m, minilm-l6"):
        models.load("nobody/no-such-model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="make models"):
        models.load("minilm-l6")


def test_import_lab_pulls_in_nothing_heavy():
    heavy = "{'torch', 'transformers', 'umap', 'ray', 'mteb'}"
    code = f"import sys, lab, lab.models, lab.data; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- the packaged weights ----------------------------------------------------------------------


@pytest.mark.weights
def test_smollm2_is_converted_whole_and_carries_no_chat_template(smollm2):
    assert sum(p.numel() for p in smollm2.encoder.model.parameters()) == 134_515_008
    assert smollm2.tokenizer.chat_template is None
    assert len(smollm2.encoder.tokenise(["A man is playing a guitar."])[0].ids) == 7
    assert smollm2.encoder.model.dtype == torch.float32


@pytest.mark.weights
def test_minilm_equals_the_stock_model(minilm):
    from lab.models.checkpoints import CHECKPOINTS

    stock = SentenceTransformer(str(CHECKPOINTS["minilm-l6"].folder()), device="cpu")
    np.testing.assert_allclose(minilm.encode(TEXTS), stock.encode(TEXTS), atol=1e-6)


@pytest.mark.weights
@pytest.mark.parametrize("settings", [{"attention": "bidirectional"}, {"temperature": 0.7}])
def test_padding_never_matters_for_real_weights_at_512_tokens(smollm2, minilm, settings):
    long = " ".join(TEXTS) + " The snow lay deep on the fields. " * 60
    for model in (smollm2, minilm):
        other = models.variant(model, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            alone = other.encode([TEXTS[0]])
            padded = other.encode([TEXTS[0], long])[:1]
        assert np.abs(alone - padded).max() < 1e-4 * np.abs(alone).max()
