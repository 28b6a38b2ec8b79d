"""The mechanism of length collapse on models: equal to dense algebra on transformers' own maps."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import processors

from lab import models, results
from lab.anisotropy.tokens import hc_energy, self_similarity
from lab.collapse import mechanism
from lab.collapse.filter_rate import uniform_causal
from lab.collapse.mechanism import METRICS, measure
from lab.collapse.summary import slope, summarise
from lab.models.architecture import layers
from lab.models.texts import TruncationWarning

TEXTS = [
    "A man is playing a guitar.",
    "x",
    "Two dogs run through deep snow, barking at a hare.",
    "Rain.",
]
OF_HEADS = list(METRICS[:4])


@pytest.fixture(scope="module")
def bert():
    return models.load("random:bert")


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama")


def by_hand(model, text):
    """Rows (layer, measure) of one text, from what transformers gives out, by dense algebra."""
    transformer = model.encoder.model
    backend = transformer.config._attn_implementation
    transformer.set_attn_implementation("eager")
    tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        out = transformer(tokens, output_attentions=True, output_hidden_states=True)
    transformer.set_attn_implementation(backend)
    rows = []
    for layer, states in enumerate(out.hidden_states):
        maps = out.attentions[layer - 1][0].double() if layer else None
        states = states[0].double().numpy()
        row = {"length": tokens.shape[1], "layer": layer, "hc_share": hc_energy(states)}
        row["token_similarity"] = self_similarity(states)
        if maps is not None:
            centred = maps - maps.mean(-2, keepdim=True)
            row["filter_rate"] = float(torch.linalg.svdvals(centred)[:, 0].mean())
            row["entropy"] = float(torch.special.entr(maps).sum(-1).mean())
        rows.append(row)
    return pd.DataFrame(rows)


# --- the frame -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["bert", "llama", "modernbert", "mpnet", "t5", "gpt2"])
def test_every_row_equals_dense_algebra_on_one_text_alone(name, side):
    model = models.load(f"random:{name}", padding_side=side)
    frame = measure(model, TEXTS)
    assert list(frame["text"]) == [row for row in range(len(TEXTS)) for _ in range(4)]
    for row, text in enumerate(TEXTS):
        expected = by_hand(model, text)
        found = frame[frame["text"] == row].reset_index(drop=True)
        for column in expected:
            np.testing.assert_allclose(
                found[column], expected[column], rtol=2e-3, atol=2e-5, err_msg=column
            )


def test_the_spread_is_that_of_the_logits_and_the_contraction_that_of_the_values(bert):
    frame = measure(bert, TEXTS[:1], heads=True)
    attention = bert.encoder.model.encoder.layer[0].attention.self
    tokens = torch.tensor([bert.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        states = bert.encoder.model.embeddings(tokens)
        query, key, value = (
            layer(states)[0].unflatten(-1, (4, 16)).transpose(0, 1)
            for layer in (attention.query, attention.key, attention.value)
        )
    logits = query @ key.mT / 4
    mixed = logits.softmax(-1) @ value
    left, given = ((one - one.mean(1, keepdim=True)).norm(dim=(1, 2)) for one in (mixed, value))
    first = frame[frame["layer"] == 1]
    np.testing.assert_allclose(first["spread"], logits.std(-1).mean(-1), rtol=1e-4)
    np.testing.assert_allclose(first["contraction"], left / given, rtol=1e-4)
    assert list(first["head"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("budget", [1, 80, 10_000])
def test_neither_token_budget_nor_order_of_texts_matters(llama, budget):
    whole = measure(llama, TEXTS)
    turned = measure(llama, TEXTS[::-1], token_budget=budget)
    turned["text"] = len(TEXTS) - 1 - turned["text"]
    turned = turned.sort_values(["text", "layer"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(whole, turned, rtol=1e-4, atol=1e-6)


def test_by_heads_the_mean_over_heads_is_the_frame(bert):
    frame, heads = measure(bert, TEXTS), measure(bert, TEXTS, heads=True)
    assert len(heads) == len(TEXTS) * 3 * 4
    assert set(frame) - set(heads) == {"hc_share", "token_similarity"}
    mean = heads.groupby(["text", "layer"])[OF_HEADS].mean()
    deeper = frame[frame["layer"] > 0].set_index(["text", "layer"])[OF_HEADS]
    pd.testing.assert_frame_equal(mean, deeper)


def test_embeddings_have_states_but_no_attention(bert):
    frame = measure(bert, TEXTS)
    first, deeper = frame[frame["layer"] == 0], frame[frame["layer"] > 0]
    assert first[[*OF_HEADS, "uniform_causal"]].isna().all(axis=None)
    assert deeper[OF_HEADS].notna().all(axis=None)
    assert frame[["hc_share", "token_similarity"]].notna().all(axis=None)


def test_attention_that_is_written_inline_has_no_contraction():
    frame = measure(models.load("random:mpnet"), TEXTS)
    assert frame["contraction"].isna().all()
    assert frame.loc[frame["layer"] > 0, "filter_rate"].notna().all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_causal_models_come_with_their_reference(llama, bert, side):
    frame = measure(models.variant(llama, padding_side=side), TEXTS)
    deeper = frame[frame["layer"] > 0]
    expected = [uniform_causal(length) for length in deeper["length"]]
    np.testing.assert_allclose(deeper["uniform_causal"], expected)
    both = models.variant(llama, attention="bidirectional")
    assert measure(both, TEXTS)["uniform_causal"].isna().all()
    assert measure(bert, TEXTS)["uniform_causal"].isna().all()


def test_settings_of_the_model_are_columns_and_act(bert):
    sharp = models.variant(bert, temperature=[0.5, 0.6, 0.7], template="say: {text}")
    frame, plain = measure(sharp, TEXTS), measure(bert, TEXTS)
    assert set(frame["temperature"]) == {"0.5 0.6 0.7"}
    assert set(frame["template"]) == {"say: {text}"}
    assert plain["temperature"].isna().all()
    assert (frame["length"] - plain["length"] == len("say: ")).all()
    assert {"checkpoint", "attention", "extension"} < set(frame)
    assert {"pooling", "repair", "layer_mix", "max_length"}.isdisjoint(frame)


def test_attention_is_sharper_at_a_lower_temperature(bert):
    entropy = {
        value: measure(models.variant(bert, temperature=value), TEXTS).groupby("layer")["entropy"]
        for value in (0.5, 1.0, 2.0)
    }
    assert entropy[0.5].mean()[1] < entropy[1.0].mean()[1] < entropy[2.0].mean()[1]


def test_a_text_of_one_token_does_not_show_whether_a_model_is_causal():
    for attention in ("causal", "bidirectional"):
        model = models.load("random:llama", attention=attention)
        single = processors.TemplateProcessing(single="$A")
        model.tokenizer.backend_tokenizer.post_processor = single
        frame = measure(model, ["x", "xy"])
        references = frame[frame["layer"] > 0].groupby("text")["uniform_causal"]
        assert references.count().tolist() == [0, 3 if attention == "causal" else 0]


def test_a_text_of_one_token_has_nothing_to_filter():
    model = models.load("random:llama")
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    frame = measure(model, ["x", "xy"])
    one = frame[frame["text"] == 0]
    assert (one["length"] == 1).all()
    deeper = one[one["layer"] > 0]
    assert (deeper["filter_rate"] == 0).all()
    assert (deeper["entropy"] == 0).all()
    assert one[["spread", "contraction", "token_similarity"]].isna().all(axis=None)
    np.testing.assert_allclose(one["hc_share"], 0, atol=1e-6)


def test_real_weights_behave(minilm):
    frame = measure(minilm, TEXTS)
    deeper = frame[frame["layer"] > 0]
    assert (deeper["contraction"] < deeper["filter_rate"]).all()
    assert (deeper["entropy"] < np.log(deeper["length"])).all()
    similar = frame.groupby("layer")["token_similarity"].mean()
    assert similar[6] > similar[0] + 0.1  # tokens of a text grow alike with depth
    for row, text in enumerate(TEXTS):
        expected = by_hand(minilm, text)
        found = frame[frame["text"] == row].reset_index(drop=True)
        for column in expected:
            np.testing.assert_allclose(found[column], expected[column], rtol=2e-3, atol=1e-5)


def test_maps_of_one_layer_are_measured_before_those_of_the_next(bert, monkeypatch):
    import weakref

    seen, alive = [], []

    def counted(maps, mask):
        alive.append(sum(one() is not None for one in seen))
        seen.append(weakref.ref(maps))
        return found(maps, mask)

    found = mechanism.of_maps
    monkeypatch.setattr(mechanism, "of_maps", counted)
    measure(bert, TEXTS, token_budget=40)
    assert len(seen) > 3
    assert set(alive) == {0}


def test_there_is_no_bar_in_a_batch_run(bert, monkeypatch, capsys):
    monkeypatch.setattr(mechanism, "tqdm", lambda **options: opened.append(options) or Bar())
    opened: list[dict] = []
    measure(bert, TEXTS)
    measure(bert, TEXTS, progress=False)
    monkeypatch.setenv("LAB_MODE", "batch")
    measure(bert, TEXTS)
    assert [options["disable"] for options in opened] == [False, True, True]
    assert all(options["delay"] == 2 for options in opened)


class Bar:
    """A progress bar that shows nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        pass


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one string", TypeError, "give a list"),
        ([], ValueError, "texts is empty"),
        (["fine", 3], TypeError, "text 1"),
        (["fine", " "], ValueError, "text 1"),
    ],
)
def test_bad_texts_are_refused_by_row(bert, texts, error, message):
    with pytest.raises(error, match=message):
        measure(bert, texts)


def test_texts_that_are_cut_are_said_once(bert):
    short = models.variant(bert, max_length=8)
    with pytest.warns(TruncationWarning, match="3 of 4 texts are longer") as caught:
        frame = measure(short, [*TEXTS[:1], "x", *TEXTS[2:3], "A third long text"])
    assert len(caught) == 1
    assert frame["length"].max() == 8


def test_one_text_cut_to_several_lengths_has_a_slope(bert):
    texts = ["Two dogs run through deep snow, barking at a hare.", "A clock struck nine again."]
    frames = []
    for length in (8, 16, 24):
        with pytest.warns(TruncationWarning, match="2 of 2 texts"):
            frames.append(measure(models.variant(bert, max_length=length), texts))
    frame = pd.concat(frames)
    assert list(slope(frame, seed=0)["n"]) == [2, 2, 2]
    assert set(summarise(frame, seed=0)["length"]) == {8, 16, 24}


@pytest.mark.parametrize("layer", [0, 1])
def test_states_that_are_not_finite_name_the_text_and_the_layer(layer):
    model = models.load("random:llama")
    with torch.no_grad():
        layers(model.encoder.model)[layer].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=rf"text 2 .*begins in hidden state {layer + 1}"):
        measure(model, TEXTS)


def test_maps_that_are_not_finite_name_the_layer_and_the_texts():
    model = models.load("random:bert")
    with torch.no_grad():
        layers(model.encoder.model)[1].attention.self.key.weight.fill_(math.inf)
    with pytest.raises(ValueError, match=r"layer 2, of texts \[2, 0, 3, 1\] map \[0, 0\]: row 0"):
        measure(model, TEXTS)


def test_a_zero_state_is_named(bert):
    model = models.load("random:bert")
    last = layers(model.encoder.model)[-1].output.LayerNorm
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    with pytest.raises(ValueError, match=r"text 2 .*hidden state 3: a token is a zero vector"):
        measure(model, TEXTS)


def test_parallel_windows_have_no_maps_of_a_text(bert):
    model = models.variant(bert, extension="parallel-windows/8")
    with pytest.raises(ValueError, match="in several windows"):
        measure(model, TEXTS)


# --- summaries -----------------------------------------------------------------------------------


def made(lengths=(16, 64, 256), texts=12, exponent=-0.5, rng=None):
    """A frame of texts cut to several lengths, with a filter rate that is a power of the length."""
    rows = [
        {"checkpoint": "made", "temperature": None, "text": text, "length": n, "layer": layer}
        for layer in (0, 1, 2)
        for n in lengths
        for text in range(texts)
    ]
    frame = pd.DataFrame(rows)
    noise = rng.normal(0, 0.1, len(frame)) if rng else 0.0
    rate = 2 * frame["length"] ** float(exponent) * np.exp(noise)
    empty = dict.fromkeys(METRICS, math.nan)
    return frame.assign(**empty).assign(filter_rate=rate.where(frame["layer"] > 0), hc_share=0.5)


def test_a_summary_has_the_mean_over_texts_with_an_interval(rng):
    frame = made(rng=rng)
    table = results.validate(summarise(frame, seed=3, notebook="n", dataset="d"))
    assert set(table["metric"]) == {"filter_rate", "hc_share"}
    assert set(table["probe"]) == {"mechanism"}
    assert (table["n"] == 12).all()
    row = table[(table["layer"] == 2) & (table["length"] == 64)].set_index("metric")
    values = frame[(frame["layer"] == 2) & (frame["length"] == 64)]["filter_rate"]
    assert row.loc["filter_rate", "value"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(12)
    width = row.loc["filter_rate", "high"] - row.loc["filter_rate", "low"]
    assert width == pytest.approx(2 * half, rel=0.3)
    assert row.loc["hc_share", "low"] == row.loc["hc_share", "high"] == 0.5
    assert "filter_rate" not in set(table[table["layer"] == 0]["metric"])
    pd.testing.assert_frame_equal(table, summarise(frame, seed=3, notebook="n", dataset="d"))


def test_groups_are_what_the_tidy_table_tells_apart(rng):
    cold, warm = made(rng=rng), made(rng=rng).assign(temperature="0.5")
    table = summarise(pd.concat([cold, warm]), seed=0)
    assert len(table) == 2 * len(summarise(cold, seed=0))
    assert set(table["temperature"].dropna()) == {"0.5"}
    bins = cold[cold["length"] == 16].assign(bin="[0, 100)", length=lambda frame: frame["text"] + 9)
    table = summarise(bins, seed=0)
    assert table["length"].isna().all()
    assert (table["n"] == 12).all()


def test_measured_frames_are_summarised(bert):
    frame = measure(bert, TEXTS)
    frame["length"] = 50
    table = summarise(frame, seed=0)
    assert len(table) == 2 + 3 * 6
    assert (table["n"] == len(TEXTS)).all()
    assert (table["checkpoint"] == "random:bert").all()


def test_a_single_text_has_no_interval():
    table = summarise(made(texts=1), seed=0)
    assert table["low"].isna().all()
    assert (table["n"] == 1).all()


def test_a_text_twice_in_a_group_is_refused():
    frame = made()
    with pytest.raises(ValueError, match="text 0 is twice among"):
        summarise(pd.concat([frame, frame]), seed=0)


@pytest.mark.parametrize("summary", [summarise, slope])
def test_a_frame_by_heads_is_refused(bert, summary):
    with pytest.raises(ValueError, match="without heads=True"):
        summary(measure(bert, TEXTS, heads=True), seed=0)


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.3])
def test_the_slope_of_a_power_law_is_its_exponent(exponent):
    table = results.validate(slope(made(exponent=exponent), seed=0))
    assert list(table["layer"]) == [1, 2]  # embeddings have no filter rate
    assert set(table["metric"]) == {"filter_rate_slope"}
    for end in ("value", "low", "high"):
        np.testing.assert_allclose(table[end], exponent, atol=1e-9)
    assert (table["n"] == 12).all()


def test_the_slope_is_least_squares_over_all_rows(rng):
    frame = made(rng=rng)
    table = slope(frame, seed=0)
    for layer in (1, 2):
        own = frame[frame["layer"] == layer]
        expected = np.polyfit(np.log(own["length"]), np.log(own["filter_rate"]), 1)[0]
        row = table[table["layer"] == layer].iloc[0]
        assert row["value"] == pytest.approx(expected)
        assert row["low"] < expected < row["high"]


def test_texts_are_resampled_with_all_their_lengths(rng):
    """A text that is high at all its lengths moves the level, not the slope."""
    levels = made(texts=30)
    levels["filter_rate"] *= np.exp(rng.normal(0, 1, 30))[levels["text"]]
    narrow = slope(levels, seed=0).iloc[0]
    strangers = levels.assign(text=range(len(levels)))
    wide = slope(strangers, seed=0).iloc[0]
    assert narrow["high"] - narrow["low"] < 1e-6
    assert wide["high"] - wide["low"] > 0.1
    assert narrow["value"] == pytest.approx(wide["value"])


def test_another_measure_has_a_slope_too(bert):
    frame = measure(bert, TEXTS)
    assert set(slope(frame, seed=0, metric="entropy")["metric"]) == {"entropy_slope"}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (made(lengths=(16,)), "two lengths and two texts; got 1 and 12"),
        (made(texts=1), "got 3 and 1"),
        (made().assign(filter_rate=0.0), "filter_rate of text 0 in layer 0 is 0 and has no log"),
    ],
)
def test_what_has_no_slope_is_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        slope(frame, seed=0)
