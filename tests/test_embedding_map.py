"""The embedding map: its numbers against other routes, its files, its words to a mistake."""

import json
import os
import re
import threading
from html import escape
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from sklearn.neighbors import NearestNeighbors

from lab import data, models, projections
from lab.explore.embedding_map import EmbeddingMap, seeds
from lab.explore.map_export import page, parquet, projector
from lab.explore.map_live import LiveMap
from lab.explore.map_points import draw, few_levels, nearest, texts_of, unit
from lab.explore.map_space import Setting
from lab.explore.map_words import listing, of_seeds
from lab.models.checkpoints import byte_tokenizer, random_model, tiny_config
from lab.plotting import maps as drawing
from lab.projections import stability
from lab.readout import read_out

EVIL = ["<img src=x onerror=window.ran=1>", "</script><script>window.ran=1</script>", "$x$ &amp;",
        '"><svg onload=window.ran=1>', "tab\there\nline\rreturn\u2028separator"]  # fmt: skip


class Spaces:
    """Read-outs of two layers, drawn at random; or the array that is given."""

    poolings = ("mean", "max")

    def __init__(self, n, rows=None):
        self.layers = (0, 3) if rows is None else (0,)
        made = np.random.default_rng(n).standard_normal((4, n, 8)).astype(np.float32)
        self.rows = made if rows is None else [rows, rows]

    def __getitem__(self, key):
        return self.rows[2 * self.layers.index(key[0]) + self.poolings.index(key[1])]


def table(n):
    rng = np.random.default_rng(n)
    return pd.DataFrame({
        "text": [f"{EVIL[row % 5]} text {row}" for row in range(n)],
        "kind": rng.choice(list("abcdefghijkl"), n), EVIL[0]: rng.choice(EVIL, n),
        "tokens": rng.integers(1, 99, n),
    })  # fmt: skip


def explorer(n=60, rows=None, stops=(3, 0), **options):
    stops = [Setting(layer, "mean", projection="pca") for layer in ((0,) if rows is not None else
                                                                    stops)]  # fmt: skip
    return EmbeddingMap(table(n), Spaces(n, rows), stops=stops, **options)


def said(live, status="status"):
    return re.sub(r"<[^>]+>", "", getattr(live, status)._line.value)


def drawn(of):
    """A live map, once its first maps are drawn."""
    live = LiveMap(of)
    live.background.wait()
    return live


def test_texts_of_data_sets_stand_once_each_with_where_they_are_from():
    found = texts_of([data.load("debian-sections", "dev", seed=0, n=20),
                      data.load("wordnet-pairs", "dev", seed=0, n=20)])  # fmt: skip
    assert list(found) == ["text", "dataset", "role", "label"] and found["text"].is_unique
    assert set(found["role"]) == {"text", "anchor", "positive", "negative"}
    assert (found["label"] == "none").equals(found["dataset"] == "wordnet-pairs")
    with pytest.raises(ValueError, match="name at least one data set"):
        texts_of([])


def test_a_stratified_draw_keeps_shares_and_says_its_seed():
    points = pd.DataFrame({"of": ["a"] * 700 + ["b"] * 200 + ["c"] * 99 + [None]})
    kept, how = draw(points, 100, "of", 3)
    assert how == "100 of 1000 points, drawn by of in proportion with seed 3"
    assert points["of"].iloc[kept].value_counts().to_dict() == {"a": 70, "b": 20, "c": 10}
    assert (np.diff(kept) > 0).all() and np.array_equal(kept, draw(points, 100, "of", 3)[0])
    assert not np.array_equal(kept, draw(points, 100, "of", 4)[0])
    assert draw(points, 1000, "of", 3)[1] == "all 1000 points"
    with pytest.raises(LookupError, match="did you mean 'of'"):
        draw(points, 100, "off", 3)


def test_too_many_names_keep_the_most_frequent_and_say_so():
    column = pd.Series([*"aaabbc", *"defg", None], name="kind")
    kept, note = few_levels(column, 4)
    assert list(kept.cat.categories)[:2] == ["a", "b"] and kept.cat.categories[-1] == "other"
    assert note == ("kind: 8 values, the 3 most frequent shown; the rest, 5 points, is called "
                    "'other'")  # fmt: skip
    assert few_levels(column, 8)[1] == "" and "(missing)" in set(few_levels(column, 8)[0])
    ranges, note = few_levels(pd.Series(range(100), name="tokens"), 8)
    assert ranges.value_counts().to_list() == [25] * 4 and note.endswith("100 numbers as 4 ranges")


def test_neighbours_are_scikit_learns_and_nothing_is_its_own(rng):
    rows = unit(rng.standard_normal((200, 6)))
    chosen = [5, 9, 77]
    found, cosines = nearest(rows, rows[chosen], 4, itself=chosen)
    model = NearestNeighbors(metric="cosine", algorithm="brute").fit(rows)
    distances, there = model.kneighbors(rows[chosen], 5)
    assert np.array_equal(found, there[:, 1:]) and np.allclose(cosines, 1 - distances[:, 1:])
    with pytest.raises(ValueError, match="4 neighbours were wanted; there are 3 other points"):
        nearest(rows[:4], rows[:1], 4, itself=[0])


def test_neighbours_are_looked_for_among_points_that_are_not_drawn_too():
    of = explorer(n=60, most=20, by="kind", seed=1)
    assert len(of.points) == 20 and of.drawn_how.startswith("20 of 60 points, drawn by kind")
    found = of.neighbours_of([2, 7], of.stops[0])
    assert set(found["neighbour"]) - set(of.maps.drawn), "from the whole space"
    assert found["row"].unique().tolist() == of.maps.drawn[[2, 7]].tolist()


def test_a_saved_table_draws_the_same_figure_again_without_a_projection(tmp_path, monkeypatch):
    of = explorer()
    figure = of.frames()
    of.table().to_csv(tmp_path / "map.csv", index=False, lineterminator="\n")
    monkeypatch.setattr("lab.projections.project", None)
    again = drawing.redraw(tmp_path / "map.csv")
    assert again.to_json() == figure.to_json()
    assert [frame.name for frame in figure.frames] == [
        "layer 3, mean; pca, seed 0", "layer 0, mean; pca, seed 0"]  # fmt: skip
    assert [len(part.data[0].x) for part in figure.frames] == [60, 60]


def test_no_text_of_data_is_markup_in_a_figure():
    text = json.dumps(json.loads(explorer().frames().to_json()))
    assert "<img" not in text and "<script" not in text and "<svg" not in text
    assert "&lt;img src=x" in text and "$x$" not in text and "&#36;x&#36;" in text


def test_colour_and_shape_are_of_any_column_and_have_a_legend():
    of = explorer()
    figure = drawing.point_map(of.table().query("setting.str.contains('layer 3')"),
                               colours=["kind"], shape="kind")  # fmt: skip
    points, *legend = figure.data
    names = [trace.name for trace in legend if trace.visible]
    assert names == [*of.table()["kind"].unique()] and len(names) == 8
    shown = of.table()["kind"].iloc[:60]
    pairs = set(zip(shown, points.marker.color, points.marker.symbol, strict=True))
    assert len(pairs) == shown.nunique(), "one colour and one symbol per name"
    with pytest.raises(ValueError, match="12 values of 'kind', 8 marks"):
        drawing.restyle(figure, table(60)["kind"], None)


def test_every_control_changes_what_is_shown():
    live = drawn(explorer())
    left, right = live.figures
    before = np.array(left.data[0].x)
    live.way.value = 1.0
    assert (
        np.allclose(left.data[0].x, right.data[0].x) and "100% of the way" in left.layout.title.text
    )
    live.way.value = 0.0
    assert np.array_equal(left.data[0].x, before)
    live.lengths.value = (10, 50)
    inside = live.of.points["tokens"].between(10, 50)
    assert np.array_equal(np.isfinite(left.data[0].x), inside)
    assert f"{inside.sum()} of 60 points" in left.layout.title.text
    live.sides[0]["repair"].value = "whitening"
    live.background.wait()
    assert "layer 3, mean, whitening" in live.figures[0].layout.title.text
    live.dimensions.value = 3
    live.background.wait()
    assert live.figures[0].data[0].type == "scatter3d"
    live.choose([4])
    assert np.ptp(live.figures[0].data[0].marker.size) > 0, "a chosen point is larger in space"
    live.dimensions.value = 2
    live.query.value, live.kind.index = "TEXT 11", 0
    live.search()
    assert live.chosen.tolist() == [11] and live.figures[0].data[0].selectedpoints == (11,)
    live.several()
    live.background.wait()
    assert "under seeds 0, 1, 2, 3, 4" in live.trust.value


def test_while_a_map_is_computed_controls_answer_for_the_maps_that_are_drawn(monkeypatch):
    live = drawn(explorer())
    computing, go_on, project = threading.Event(), threading.Event(), projections.project
    made = []

    def slowly(rows, name, **kwargs):
        made.append(rows[0, 0])
        computing.set()
        assert go_on.wait(60)
        return project(rows, name, **kwargs)

    monkeypatch.setattr(projections, "project", slowly)
    live.sides[0]["pooling"].value = "max"
    assert computing.wait(60) and said(live, "computing") == ("computing pca of 60 points for A …")
    live.way.value = 0.5
    assert "50% of the way" in live.figures[0].layout.title.text
    assert "layer 3, mean" in live.figures[0].layout.title.text, (
        "what is drawn, not what was asked for"
    )
    live.choose([4])
    assert "layer 3, mean" in live.listing.value
    live.sides[0]["repair"].value = "centring"  # instead of the first, and only the last of two
    live.sides[0]["repair"].value = "whitening"
    go_on.set()
    live.background.wait()
    assert "layer 3, max, whitening" in live.figures[0].layout.title.text
    assert len(made) == 2, "the map that is computed, and the last that was asked for"
    live.sides[0]["repair"].value = "none"
    assert "whitening" not in live.figures[0].layout.title.text, "kept, so drawn at once"


def test_mistakes_are_answered_in_words_and_lose_nothing():
    live = drawn(explorer(n=24))
    x = np.array(live.figures[0].data[0].x)
    live.choose([])
    assert said(live) == ("no point was chosen: draw a lasso around some, or search for a word "
                          "in them")  # fmt: skip
    live.query.value = "zebra"
    live.search()
    assert said(live) == "none of the 24 texts on the map contains &#x27;zebra&#x27;"
    live.kind.index = 1
    live.search()
    assert said(live).startswith("only a model can embed a query")
    live.neighbours.value = 12
    live.several()
    live.background.wait()
    assert said(live, "computing").startswith("trust over 12 neighbours needs more than 24 rows")
    assert "needs more than 24 rows" in live.figures[0].layout.title.text, "and the map is there"
    assert np.array_equal(live.figures[0].data[0].x, x)
    equal = drawn(explorer(n=24, rows=np.ones((24, 5), dtype=np.float32)))
    assert said(equal, "computing") == "all 24 rows are equal: there is nothing to map"
    equal.choose([1])
    assert said(equal).startswith("neighbours: ")
    with pytest.raises(LookupError, match="did you mean 'kind'"):
        explorer(colours=["knd"])
    with pytest.raises(ValueError, match="60 embeddings for 59 points"):
        EmbeddingMap(table(59), Spaces(60))


def test_a_table_and_a_sentence_hold_no_markup_of_data():
    of = explorer()
    html = listing(of.neighbours_of(range(5), of.stops[0]), 7, EVIL[0], [0.5] * 5)
    assert "the first 5 of 7 points" in html and "<img" not in html and "<script" not in html
    faith, pairs = of.maps.uncertainty(of.stops[0], [0, 1])
    assert "<img" not in of_seeds(EVIL[0], faith, pairs)
    assert [stop.seed for stop in seeds(of.stops[0], 3)] == [0, 1, 2]


def test_a_typed_text_finds_itself_under_a_model_and_a_repair(tmp_path):
    folder = tmp_path / "tiny"
    config = tiny_config("bert", hidden_size=16, num_hidden_layers=2, num_attention_heads=1,
                         intermediate_size=16)  # fmt: skip
    random_model(config, seed=0).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    model, points = models.load(str(folder)), table(60)
    of = EmbeddingMap(points, read_out(model, points["text"], poolings=["mean"]), model=model,
                      stops=[Setting(2, "mean", projection="pca")], most=30)  # fmt: skip
    for repair in ("none", "centring", "all_but_the_top"):
        setting = Setting(2, "mean", repair, "pca")
        rows, cosines = of.near_query(of.points["text"][7], setting, 4)
        assert rows[0] == 7 and cosines[0] == pytest.approx(1, abs=1e-4), repair
        by_hand = of.neighbours_of([7], setting, k=59).set_index("neighbour")["cosine"]
        assert cosines[1:] == pytest.approx(by_hand[of.maps.drawn[rows[1:]]].tolist(), abs=1e-4)
    live = drawn(of)
    live.kind.index, live.query.value = 1, of.points["text"][7]
    live.search()
    assert live.chosen[0] == 7 and "<th scope='col' style='text-align:left'>cosine" in (
        live.listing.value)  # fmt: skip


def test_seeds_of_a_method_that_draws_no_lots_are_no_sign_of_trust():
    of = explorer()
    said = of_seeds("a", *of.maps.uncertainty(of.stops[0], [0, 1]))
    assert "The seed changes next to nothing" in said
    noise = pd.DataFrame(np.random.default_rng(0).standard_normal((60, 2)), columns=["x", "y"])
    faith, _ = of.maps.uncertainty(of.stops[0], [0, 1])
    pairs = stability({0: of.maps.coordinates(of.stops[0]), 1: noise})
    assert "next to nothing" not in of_seeds("a", faith, pairs)


def test_a_sample_is_said_on_the_map_and_only_the_map_that_moves_is_sent():
    live = drawn(explorer(n=60, most=20, by="kind", seed=1))
    assert "20 of 60 points, drawn by kind" in live.figures[0].layout.title.text
    sent = []
    live.figures[1].layout.on_change(lambda *_: sent.append(1), "title")
    still = live.figures[1].data[0].x
    live.way.value = 0.5
    assert live.figures[1].data[0].x is still or np.array_equal(live.figures[1].data[0].x, still)
    assert not sent and "50% of the way" in live.figures[0].layout.title.text


def test_exports_come_back_as_they_went_out(tmp_path):
    of = explorer(folder=tmp_path)
    points = of.exported(of.stops[0])
    assert pd.read_parquet(parquet(points, tmp_path / "map.parquet")).equals(points)
    vectors, metadata = projector(of.points, of.maps.repaired(of.stops[0])[1], tmp_path)
    assert np.allclose(np.loadtxt(vectors, delimiter="\t"), Spaces(60)[3, "mean"])
    lines = metadata.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 61 and {line.count("\t") for line in lines} == {3}
    with pytest.raises(ValueError, match="60 points"):
        projector(of.points, np.ones((3, 2)), tmp_path)
    live = drawn(of)
    for kind in live.format.options:
        live.format.value = kind
        live.export()
        assert said(live).startswith("written: "), kind
    html = (tmp_path / "map.html").read_text(encoding="utf-8")
    shown = html.split('type="application/json">')[1].split("</script>")[0]
    assert json.loads(shown)["frames"] and "<" not in shown
    with pytest.raises(ValueError, match="alt text"):
        page(of.frames(), tmp_path / "x.html", title="x", alt="x")


SHOWN = """import sys
sys.path.insert(0, folder)
from test_embedding_map import explorer
from lab.explore.faces import show
show(explorer(n=n, colours=["kind", "<img src=x onerror=window.ran=1>", "tokens"]))"""


# Two maps with all their points, as wide as their places.
SETTLED = """(all => all.length === 2 && all.every(e => e.data?.[0]?.x?.length === 200
    && Math.abs(e._fullLayout.width - e.clientWidth) <= 1)
)([...document.querySelectorAll('.js-plotly-plot')])"""
# Every widget takes too long for anywidget.
LATE = """const real = AbortSignal.timeout;
AbortSignal.timeout = ms => real.call(AbortSignal, ms === 2000 ? 1 : ms);"""
TITLE = "document.querySelector('.js-plotly-plot').layout.title.text"


@pytest.fixture
def two_maps(open_notebook, tmp_path):
    """A page with the maps A and B of 200 texts."""
    made = tmp_path / "made" / "map.ipynb"
    made.parent.mkdir()
    first = new_code_cell(f"folder = {str(Path(__file__).parent)!r}\nn = 80",
                          metadata={"tags": ["parameters"]})  # fmt: skip
    nbformat.write(new_notebook(cells=[first, new_code_cell(SHOWN)]), made)
    page = open_notebook(made, n=200)
    page.wait_for_function(SETTLED)
    return page


@pytest.mark.browser
def test_a_page_opened_again_shows_the_maps_of_now_and_they_answer_however_late_they_began(
    two_maps,
):
    pooling = ".widget-dropdown:has-text('pooling') select"
    two_maps.locator(pooling).first.select_option("max")
    two_maps.wait_for_function(f"{TITLE}.includes('layer 3, max')")
    places = "[...document.querySelectorAll('.js-plotly-plot')].map(e => [...e.data[0].x])"
    before = two_maps.evaluate(places)
    two_maps.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    address, context = two_maps.url, two_maps.context
    two_maps.goto("about:blank")
    again = context.new_page()
    try:
        again.set_default_timeout(90_000)
        again.add_init_script(LATE)
        again.goto(address)
        again.wait_for_function(SETTLED)
        assert again.evaluate(places) == before
        again.wait_for_function(f"{TITLE}.includes('layer 3, max')")
        again.locator(pooling).first.select_option("mean")
        again.wait_for_function(f"{TITLE}.includes('layer 3, mean')")
        assert again.evaluate(places) != before
    finally:
        again.close()


@pytest.mark.browser
def test_a_lasso_lists_points_and_no_text_runs_in_the_page(two_maps):
    page = two_maps
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)]
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=8)
    page.mouse.up()
    page.wait_for_selector("caption:has-text('the first 20 of 200 points')")
    search = page.get_by_placeholder("words, or a text")
    search.fill("text 7")
    search.press("Enter")
    seen = "[...document.querySelectorAll('.js-plotly-plot')].map(e => e.data[0].selectedpoints)"
    page.wait_for_selector("caption:has-text('11 points')")
    page.wait_for_function(f"{seen}.every(rows => rows?.length === 11)")  # not the lasso's
    wide = "[...document.querySelectorAll('.js-plotly-plot')].map(e => e._fullLayout.width)"
    before = page.evaluate(wide)
    page.set_viewport_size({"width": 1150, "height": 1600})
    page.wait_for_function(f"{wide}.every((one, at) => one < {before!r}[at])")
    page.set_viewport_size({"width": 1280, "height": 1600})
    page.wait_for_function(f"{wide}.every((one, at) => one == {before!r}[at])")
    page.mouse.move(*[(a + b) / 2 for a, b in zip(spots[0], spots[2], strict=True)])
    for name in ("colour by", "shape by"):
        page.locator(f".widget-dropdown:has-text('{name}') select").select_option(index=1)
    names = "[...document.querySelectorAll('.js-plotly-plot')].at(-1)._fullData.map(t => t.name)"
    page.wait_for_function(f"{names}.includes({escape(EVIL[0], quote=False)!r})")
    page.locator(".widget-dropdown:has-text('pooling') select").first.select_option("max")
    page.wait_for_function(f"{TITLE}.includes('layer 3, max')")  # computed by another thread
    page.screenshot(path=os.environ.get("MAP_SHOT"))
    assert page.evaluate("window.ran") is None, "a text of the data ran as script"


@pytest.mark.browser
def test_the_exported_page_is_drawn_with_the_network_cut_and_runs_no_text(tmp_path, visit):
    path = page(explorer().frames(), tmp_path / "map.html", title=EVIL[1], alt=" ".join(EVIL[:4]))
    shown = visit(path)
    before = shown.evaluate("[...document.querySelector('.canvas')._fullData[0].x]")
    shown.get_by_role("slider").press("End")
    shown.get_by_role("combobox", name="colour by").select_option(index=1)
    assert shown.evaluate("[...document.querySelector('.canvas')._fullData[0].x]") != before
    assert shown.locator(".legendtext").count() > 4
    assert shown.evaluate("window.ran") is None and shown.title() == EVIL[1]
    assert shown.problems == shown.outside == []
