"""The attention view and the length cloud, without a browser: numbers, figures, controls."""

import functools

import numpy as np
import pandas as pd
import pytest
from tiny import build

from lab import models
from lab.collapse.filter_rate import attention_entropy, uniform_causal
from lab.explore import attention_view, cloud_readings, head_readings, length_cloud
from lab.models.checkpoints import byte_tokenizer
from lab.paths import NOTEBOOKS
from lab.plotting.clouds import MOVING
from lab.plotting.heads import Heads, head_traces

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script> $x$ & so"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    build("bert").save_pretrained(path)
    byte_tokenizer(special=True).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def view(folder):
    return attention_view.AttentionView(
        HOSTILE, folder, temperatures=[0.5, 1.0, 2.0], checkpoints=[], layer=2, head=1
    )


def test_a_reading_s_maps_are_the_model_s_and_its_numbers_are_those_of_the_maps(view, folder):
    import torch

    read = view.read(folder, "bidirectional", 1.0, "some text")
    model = models.load(folder, attn_implementation="eager").encoder
    features = model.collate(model.tokenise(["some text"]))
    inputs = {key: features[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        theirs = model.model(**inputs, output_attentions=True).attentions
    np.testing.assert_allclose(read.maps, torch.stack(theirs)[:, 0].numpy(), atol=1e-5)
    entropies = attention_entropy(torch.from_numpy(read.maps)).numpy()
    np.testing.assert_allclose(read.grid("entropy"), entropies, rtol=1e-5)


def test_a_reading_is_that_of_the_attention_and_the_temperature_asked_for(view):
    under = view.readings()
    assert list(under) == ["bidirectional (as trained)", "causal"]
    for temperatures in under.values():
        cold, _, hot = (read.grid("entropy").mean() for read in temperatures.values())
        assert cold < hot
    assert all(np.triu(read.maps, 1).max() == 0 for read in under["causal"].values())
    assert np.triu(under["bidirectional (as trained)"][1.0].maps, 1).max() > 0


def test_the_table_has_every_number_of_every_head_in_every_frame(view):
    table = view.table()
    layers, heads = view.readings()["causal"][1.0].maps.shape[:2]
    assert len(table) == 2 * 3 * layers * heads * 3
    one = table[(table["attention"] == "causal") & (table["temperature"] == "2.0")
                & (table["layer"] == 2) & (table["bin"] == "head 1")]  # fmt: skip
    numbers = view.readings()["causal"][2.0].numbers
    row = numbers[(numbers["layer"] == 2) & (numbers["head"] == 1)].iloc[0]
    assert one.set_index("metric")["value"].to_dict() == {
        name: row[name] for name in ("filter_rate", "entropy", "spread")
    }


def test_a_text_of_more_weights_than_a_browser_redraws_is_refused_with_the_limit(folder):
    model = models.load(folder)
    with pytest.raises(
        ValueError, match=r"has 42 tokens .* texts of up to \d+ tokens of .*shorten"
    ):
        head_readings.read_heads(model, "a" * 40, most=1000)


def test_a_page_s_slider_moves_all_attentions_and_its_menu_shows_one(view):
    figure = view.frames()
    assert [frame.name for frame in figure.frames] == ["0.5", "1", "2"]
    assert all(len(frame.data) == len(figure.data) == 8 for frame in figure.frames)
    assert all("visible" not in trace.to_plotly_json() for f in figure.frames for trace in f.data)
    first, second = (button.args[0]["visible"] for button in figure.layout.updatemenus[0].buttons)
    assert first == [True] * 4 + [False] * 4 and second == first[::-1]
    assert figure.layout.sliders[0].active == 1


def test_tiles_hold_every_map_in_its_place():
    maps = np.random.default_rng(0).dirichlet(np.ones(3), (2, 4, 3)).astype(np.float32)
    numbers = pd.DataFrame([{"layer": k + 1, "head": h, "filter_rate": 1.0, "entropy": 1.0,
                             "spread": 1.0} for k in range(2) for h in range(4)])  # fmt: skip
    traces = head_traces(Heads(list("abc"), maps, numbers), 2, 1)
    tiles = np.asarray(traces[2].z)
    np.testing.assert_array_equal(tiles[3:6, 3:6], np.asarray(traces[3].z))
    np.testing.assert_allclose((tiles[:3, 9:] / 255) ** 2, maps[0, 3], atol=5e-3)
    with pytest.raises(LookupError, match=r"no head 4 in layer 1: layers are 1 .. 2, heads 0 .. 3"):
        head_traces(Heads(list("abc"), maps, numbers), 1, 4)
    with pytest.raises(ValueError, match="do not go with 8 heads and 2 tokens"):
        Heads(["a", "b"], maps, numbers)


def test_the_text_of_a_view_is_shown_and_never_obeyed(view):
    import json

    def strings(node):
        if isinstance(node, dict):
            node = list(node.values())
        if isinstance(node, list):
            for each in node:
                yield from strings(each)
        elif isinstance(node, str):
            yield node

    figure = json.loads(view.frames().to_json())
    words = [word for trace in figure["data"] for word in strings(trace.get("text", []))]
    words += figure["layout"]["xaxis4"]["ticktext"]
    assert words and any("&lt;" in word for word in words)
    assert not any("<" in word for word in words)


def test_live_controls_redraw_and_a_refused_text_leaves_the_picture(view):
    live = attention_view._Live(view)
    before = [np.array(trace.z) for trace in live.figure.data]
    live.temperature.value = 4.0
    after = [np.array(trace.z) for trace in live.figure.data]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    live._choose(None, type("Points", (), {"xs": [2.2], "ys": [0.8]}), None)
    assert (live.layer.value, live.head.value) == (1, 2)
    assert "layer 1, head 2" in live.figure.layout.annotations[3].text
    drawn = np.array(live.figure.data[3].z)
    live.text.value = "  "
    assert not live.status.failed, "a text is read when it is said to be complete"
    live.button.click()
    assert "is empty or blank" in live.status._line.value
    np.testing.assert_array_equal(live.figure.data[3].z, drawn)
    live.attention.value = "causal"
    live.text.value = "abc"
    live.button.click()
    assert live.figure.layout.annotations[0].text.endswith(f"{uniform_causal(5):.2f})")


def test_a_model_that_cannot_be_loaded_or_refuses_the_text_leaves_the_one_that_is_shown(
    folder, monkeypatch
):
    view = attention_view.AttentionView("a" * 20, folder, checkpoints=["no-such", "random:bert"])
    live = attention_view._Live(view)
    live.attention.value = "causal"
    drawn = np.array(live.figure.data[2].z)
    for model, why in (("no-such", "no-such"), ("random:bert", "has 22 tokens")):
        if model == "random:bert":
            most = functools.partial(head_readings.read_heads, most=1000)
            monkeypatch.setattr(attention_view, "read_heads", most)
        live.model.value = model
        assert live.status.failed and why in live.status._line.value
        assert (live.model.value, live.attention.value) == (folder, "causal")
        assert live.attention.options[0] == ("bidirectional (as trained)", "bidirectional")
        np.testing.assert_array_equal(live.figure.data[2].z, drawn)


@pytest.fixture
def clouds(rng):
    wide = rng.normal(size=(30, 6))
    narrow = wide * 0.3 + np.array([3.0, 0, 0, 0, 0, 0])
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (wide, narrow)]
    return {(8, 1.0): unit[0], (64, 1.0): unit[1]}


def test_the_spread_of_a_unit_cloud_is_one_minus_its_mean_cosine(clouds):
    found = cloud_readings.similarity(clouds, cloud_readings.plane(list(clouds.values())))
    for row in found.to_dict("records"):
        cloud = clouds[row["length"], row["temperature"]]
        cosines = (cloud @ cloud.T)[~np.eye(len(cloud), dtype=bool)]
        assert row["value"] == pytest.approx(cosines.mean(), abs=1e-12)
        assert 1 - row["value"] == pytest.approx(cloud.var(0, ddof=1).sum(), abs=1e-12)
        assert row["low"] < row["value"] < row["high"] and row["n"] == 30


def test_the_plane_is_a_projection_fitted_around_every_cloud_s_own_mean(clouds):
    plane = cloud_readings.plane(list(clouds.values()))
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    moved = [rows + 100 * place for place, rows in enumerate(clouds.values())]
    np.testing.assert_allclose(np.abs(cloud_readings.plane(moved).axes @ plane.axes.T), np.eye(2),
                               atol=1e-9)  # fmt: skip
    for rows in clouds.values():
        spots, shares = plane.place(rows), plane.share(rows)
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1)
        assert (gaps <= np.linalg.norm(rows[:, None] - rows[None], axis=-1) + 1e-12).all()
        assert 0 < shares < 1
    with pytest.raises(ValueError, match="all equal"):
        cloud_readings.plane([np.ones((5, 3))])


@pytest.fixture(scope="module")
def cloud(folder):
    texts = [f"{word} {HOSTILE}" for word in ("one", "two", "three", "four", "five")]
    return length_cloud.LengthCloud(models.load(folder), texts, [24, 8], [1.0, 4.0])


def test_a_cloud_s_axes_never_change_and_its_frames_hold_the_points_of_every_setting(cloud):
    figure = cloud.frames()
    points, curve = cloud.drawn()
    assert [frame.name for frame in figure.frames] == ["8", "24"]
    assert all(frame.layout.to_plotly_json() == {} for frame in figure.frames)
    still = len(figure.data) - 2 * MOVING
    assert still == 2 and list(figure.frames[0].traces) == list(range(still, len(figure.data)))
    hot = points[(points["length"] == 24) & (points["temperature"] == 4.0)]
    np.testing.assert_array_equal(figure.frames[1].data[MOVING].x, hot["x"])
    for axis in "xy":
        low, high = figure.layout[f"{axis}axis"].range
        assert low < points[axis].min() and points[axis].max() < high
    value = curve[(curve["length"] == 24) & (curve["temperature"] == 4.0)].iloc[0]
    said = figure.frames[1].data[MOVING + 1].text[0]
    assert f"mean cosine {value['value']:.3f}" in said and "n = 5 texts" in said
    assert f"the plane holds {value['share']:.0%}" in said
    names = [name for trace in figure.data[still::MOVING] for name in trace.text]
    assert names and not any("<" in name for name in names)
    assert len(cloud.table()) == 2 * 2 * 2


def test_the_sliders_of_a_live_cloud_move_points_words_and_ring(cloud):
    controls, _, place = cloud.live().children
    figure = place.children[0].children[0]
    length, temperature = controls.children
    for control, value in ((length, 24), (temperature, 4.0)):
        before = [np.array(trace.x) for trace in figure.data[-MOVING:]]
        words = figure.data[-2].text[0]
        control.value = value
        assert (np.array(figure.data[-MOVING].x) != before[0]).any()
        assert figure.data[-2].text[0] != words
    assert figure.data[-1].x[0] == 24


def test_a_cloud_of_equal_texts_has_no_variance_to_be_held_and_is_said_to_be_one_point(cloud):
    header = "the same long header of every text"
    texts = [f"{header} and then {word} others" for word in ("no", "two", "three", "all", "few")]
    alike = length_cloud.LengthCloud(cloud._model, texts, [8, 48], [1.0])
    table = alike.table()
    assert table.loc[table["metric"] == "plane_share", "length"].tolist() == [48]
    words = [frame.data[1].text[0] for frame in alike.frames().frames]
    assert "the same one" in words[0] and "the plane holds" in words[1]
    same = length_cloud.LengthCloud(cloud._model, [header] * 5, [8, 16], [1.0])
    with pytest.raises(ValueError, match=r"that differ; got \(10, \d+\), each .* all equal"):
        same.table()


def test_too_little_for_a_cloud_or_a_view_is_refused_in_words(folder, cloud):
    with pytest.raises(ValueError, match=r"two lengths or more, .* got \[8\], \[1.0\] and 5 texts"):
        length_cloud.LengthCloud(cloud._model, cloud._texts, [8, 8], [1.0])
    short = length_cloud.LengthCloud(cloud._model, [*cloud._texts, "no"], [8, 24], [1.0])
    with pytest.raises(ValueError, match="text 5 of 6 has 4 tokens, too few for a cut of"):
        short.table()
    with pytest.raises(ValueError, match=r"needs positive temperatures; got \[0.0\]"):
        attention_view.AttentionView("a", folder, temperatures=[0.0])


@pytest.mark.browser
def test_in_jupyterlab_another_head_is_drawn_large(open_notebook):
    page = open_notebook(
        NOTEBOOKS / "09_attention_view.ipynb", checkpoint="random:bert", temperatures=[1.0],
        layer=1, head=0, text="<img src=x onerror=alert(1)> one",
    )  # fmt: skip
    figure = page.locator(".js-plotly-plot").first
    figure.get_by_text("layer 1, head 0:").wait_for()
    page.locator(".widget-slider .noUi-handle").nth(2).press("ArrowRight")
    figure.get_by_text("layer 1, head 1:").wait_for()
    assert page.locator("img[src='x']").count() == 0
