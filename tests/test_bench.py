"""The bench: its lines, what a pass keeps, what is said of two settings, and its controls."""

import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import distance
from scipy.stats import spearmanr

from lab import data
from lab.explore import passes
from lab.explore.bench import EXAMPLES, Bench
from lab.explore.passes import MOST_LINES, Passes, Setting, read_lines
from lab.explore.readings import cosine, mean_cosine, neighbours, verdict
from lab.paths import NOTEBOOKS
from lab.plotting.similarity import similarity, similarity_frames
from lab.pooling import POOLINGS

TINY = Setting("random:bert")
EVIL = "<img src=x onerror=alert(1)> </script><script>alert(2)</script> $x$"


@pytest.fixture(scope="module")
def bench():
    pairs = data.load("wordnet-similarity", "dev", n=12)
    texts = [EVIL, *EXAMPLES[:3]]
    return Bench(TINY, pairs, texts=texts, poolings=["mean", "last"], resamples=60)


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        ("", "there is none"),
        (" \n\n \t", "there is none"),
        ("one alone\n", "there is only one"),
        ("a\nb\n\n b \n", r"line 4 repeats line 2 \('b'\)"),
        ("\n".join(map(str, range(500))), f"500 lines came and the bench shows {MOST_LINES}"),
    ],
)
def test_lines_that_make_no_bench_are_refused_with_what_to_do(pasted, said):
    with pytest.raises(ValueError, match=said):
        read_lines(pasted)


def test_lines_are_stripped_and_blank_ones_left_out():
    assert read_lines("  a b\n\n\r\nc\u00a0\n") == ["a b", "c"]


def test_a_pass_gives_what_the_model_encodes_and_is_made_once(bench):
    moves = []
    made = bench.passes.read(TINY, bench.texts, moves.append)
    expected = bench.passes.model(TINY).encode(bench.texts)
    np.testing.assert_allclose(made.embeddings(TINY), expected, atol=1e-5)
    other = replace(TINY, layer=1, pooling="max")
    assert bench.passes.read(other, bench.texts) is made
    assert bench.passes.read(replace(TINY, temperature=0.5), bench.texts) is not made
    with pytest.raises(LookupError, match="was not read"):
        made.embeddings(replace(TINY, layer=99))


def test_more_texts_than_fit_together_keep_their_order_and_the_bar_moves():
    moves, texts = [], [f"{'word ' * (place % 7)}{place}" for place in range(40)]
    passes = Passes()
    many = passes.read(TINY, texts, moves.append).embeddings(TINY)
    assert moves == sorted(moves) and moves[0] == 0 and len(moves) == 3
    one = passes.read(TINY, texts[20:22]).embeddings(TINY)
    np.testing.assert_allclose(many[20:22], one, atol=1e-5)


def test_the_passes_that_are_compared_stay_and_others_go_when_the_disk_is_full(monkeypatch):
    made = Passes()
    settings = [replace(TINY, temperature=1 + place / 4) for place in range(9)]
    first = made.read(TINY, ["a", "b"])
    cells = [first.embeddings(replace(TINY, layer=layer)) for layer in range(first.states)]
    assert first.size == len(POOLINGS) * sum(one.nbytes for one in cells)
    monkeypatch.setattr(passes, "KEPT", 7 * first.size)
    for one in settings:
        made.read(one, ["a", "b"])
    assert [made.made(one, ["a", "b"]) for one in settings] == [False] * 2 + [True] * 7
    monkeypatch.setattr(passes, "KEPT", 0)
    made.read(settings[-1], ["a", "b"])
    assert sum(made.made(one, ["a", "b"]) for one in settings) == passes.NEEDED


def test_a_text_that_is_too_long_is_named_with_how_much_is_lost():
    passes = Passes()
    limit = passes.model(TINY).encoder.max_length
    (said,) = passes.read(TINY, ["short", "x" * (limit + 100)]).too_long()
    found = re.match(r"Line 2 has (\d+) tokens, (\d+) more than the (\d+) that", said)
    has, more, reads = map(int, found.groups())
    assert reads == limit and has - more == limit and more > 90


def test_what_cannot_be_done_is_said_and_the_line_is_named(bench):
    with pytest.raises(ValueError, match="needs an instruction before the text"):
        bench.passes.read(replace(TINY, attention="prefix"), bench.texts)
    with pytest.raises(ValueError, match=r"line 21 \('  '\)"):
        bench.passes.read(TINY, [f"text {place}" for place in range(20)] + ["  "])


def test_cosines_are_those_of_scipy_and_a_zero_vector_is_refused(rng):
    vectors = rng.normal(size=(5, 3))
    found = cosine(vectors.astype(np.float32))
    for i, j in ((0, 1), (3, 4)):
        by_hand = 1 - distance.cosine(vectors[i], vectors[j])
        assert found[i, j] == pytest.approx(by_hand, abs=1e-6)
    assert (np.diag(found) == 1).all()
    assert mean_cosine(np.array([[1, 0.2], [0.4, 1]])) == pytest.approx(0.3)
    vectors[2] = 0
    with pytest.raises(ValueError, match="line 3 is zero"):
        cosine(vectors)


def test_neighbours_leave_out_the_text_itself_and_say_its_rank_at_the_start():
    now = np.array([[1, 0.1, 0.9, 0.5], [0.1, 1, 0, 0], [0.9, 0, 1, 0], [0.5, 0, 0, 1.0]])
    start = np.array([[1, 0.8, 0.2, 0.4], [0.8, 1, 0, 0], [0.2, 0, 1, 0], [0.4, 0, 0, 1.0]])
    near = neighbours(now, start, 0, most=2)
    assert near["text"].tolist() == [2, 3] and near["rank"].tolist() == [1, 2]
    assert near["rank_at_start"].tolist() == [3, 2]
    assert near["cosine_at_start"].tolist() == [0.2, 0.4]


def test_a_verdict_is_spearman_and_its_difference_is_that_of_both(bench):
    now, start = bench.score(replace(TINY, layer=0)), bench.score(TINY)
    found = verdict(now, start, seed=0, resamples=60)
    vectors = bench.passes.read(TINY, bench.pairs.texts).embeddings(TINY)
    frame = bench.pairs.frame
    cosines = cosine(vectors)[frame["first"], frame["second"]]
    assert found["start"] == pytest.approx(spearmanr(cosines, frame["score"])[0])
    assert found["difference"] == pytest.approx(found["value"] - found["start"])
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    assert found["n"] == 12
    same = verdict(start, start, seed=0, resamples=60)
    assert same["difference"] == same["difference_low"] == same["difference_high"] == 0
    assert verdict("why", start, seed=0, resamples=60) == {"undefined": "why"}


def test_equal_cosines_leave_a_score_undefined_and_without_a_row(bench):
    first = replace(TINY, layer=0, pooling="first")  # of every text the same special token
    assert "is undefined" in bench.score(first)
    poolings = ["mean", "first"]
    other = Bench(TINY, bench.pairs, texts=bench.texts, poolings=poolings, resamples=60)
    rows = other.scores().groupby("pooling")["layer"].min()
    assert rows["mean"] == 0 and rows["first"] == 1


def test_frames_move_all_poolings_and_the_menu_shows_one(bench):
    figure = bench.frames()
    states = bench.passes.read(TINY, bench.texts).states
    assert [frame.name for frame in figure.frames] == [str(layer) for layer in range(states)]
    assert len(figure.layout.sliders[0].steps) == states
    for layer, frame in enumerate(figure.frames):
        for place, pooling in enumerate(bench.poolings):
            setting = replace(TINY, layer=layer, pooling=pooling)
            drawn = np.asarray(frame.data[2 * place].z)
            np.testing.assert_allclose(drawn, bench.cosine(setting, bench.texts))
    for place, button in enumerate(figure.layout.updatemenus[0].buttons):
        seen = np.flatnonzero(button.args[0]["visible"]).tolist()
        assert seen == [2 * place, 2 * place + 1, 2 * len(bench.poolings) + place]
    assert "<img" not in figure.to_json() and "<script" not in figure.to_json()
    assert len(bench.table()) == states * 2 * (len(bench.texts) ** 2 + 1)


def test_a_picture_of_other_sizes_or_with_a_hole_is_refused(bench):
    with pytest.raises(ValueError, match="cosines wanted, twice"):
        similarity(np.eye(3), np.eye(2), ["a", "b", "c"])
    with pytest.raises(ValueError, match="every pair of texts"):
        similarity_frames(bench.cosines().iloc[1:], bench.scores())


def said(widget):
    """All that the widgets say, in one text."""
    own = getattr(widget, "value", "")
    return " ".join([str(own), *map(said, getattr(widget, "children", ()))])


def test_controls_show_one_change_go_back_and_keep_what_was_shown_on_an_error(bench):
    from lab.explore.bench_controls import Controls

    controls = Controls(bench)
    settings = controls._settings
    controls._pairs.wait()
    assert "This is the start." in said(controls.widget)
    before = np.array(controls._figure.data[0].z)
    settings["pooling"].value = "last"
    assert "pooling mean → last" in said(controls.widget)
    assert "difference from the start" in said(controls.widget)
    shown = np.array(controls._figure.data[0].z)
    np.testing.assert_allclose(controls._figure.data[1].z, shown - before)
    settings["attention"].value = "prefix"
    assert "needs an instruction" in said(controls.widget)
    assert settings["attention"].value == "native" and settings["pooling"].value == "last"
    np.testing.assert_array_equal(controls._figure.data[0].z, shown)
    controls._back.click()
    assert controls._now == controls._start and settings["attention"].value == "native"
    np.testing.assert_array_equal(controls._figure.data[0].z, before)
    controls._lines.value = "only this"
    controls._read.click()
    assert "there is only one" in said(controls.widget)
    np.testing.assert_array_equal(controls._figure.data[0].z, before)
    controls._lines.value = f"{EVIL}\nanother\nthird"
    controls._read.click()
    assert np.shape(controls._figure.data[0].z) == (3, 3)
    assert controls._of.options[0] == (f"1 · {EVIL}", 0)
    html = " ".join((controls._notes.value, controls._near.value, controls._score.value))
    assert "<img" not in html and "<script" not in html


def test_while_pairs_are_read_controls_answer_and_what_is_not_needed_any_more_is_given_up(
    bench, monkeypatch
):
    from lab.explore import passes
    from lab.explore.bench_controls import Controls

    controls = Controls(bench)
    controls._pairs.wait()
    alone, go_on, read = threading.Event(), threading.Event(), passes._read

    def slowly(model, group, prompt, above):
        if group[0] in bench.pairs.texts:
            alone.set()
            assert go_on.wait(60)
        return read(model, group, prompt, above)

    monkeypatch.setattr(passes, "_read", slowly)
    settings = controls._settings
    settings["temperature"].value = 0.5  # new sentences are read at once, its pairs by and by
    assert alone.wait(60) and controls._pairs.busy
    assert "the pairs are being read" in controls._score.value
    settings["pooling"].value = "last"
    assert "pooling mean → last" in controls._notes.value
    assert controls._pairs.busy, "the pooling did not wait for the pairs"
    go_on.set()
    controls._pairs.wait()
    assert "the pairs are being read" not in controls._score.value
    assert "temperature 1 → 0.5; pooling mean → last" in controls._notes.value
    now, start = (bench.score(one) for one in (controls._now, controls._start))
    assert f"{now.value:.3f}" in controls._score.value
    assert f"{now.value - start.value:+.3f}" in controls._score.value


@pytest.mark.browser
def test_in_a_browser_a_pooling_redraws_the_matrix_and_pasted_markup_stays_text(open_notebook):
    page = open_notebook(
        NOTEBOOKS / "08_bench.ipynb", checkpoint="random:bert", others=[], n_dev=12, resamples=50,
        poolings=["mean"],
    )  # fmt: skip
    corner = "document.querySelector('.js-plotly-plot').data[0].z[0][1]"
    page.locator(".js-plotly-plot .heatmaplayer image").first.wait_for()
    before = page.evaluate(f"() => {corner}")
    page.get_by_label("pooling").select_option("last")
    page.wait_for_function(f"before => {corner} !== before", arg=before)
    page.get_by_text("pooling mean → last").wait_for()
    attention = page.get_by_label("attention")
    attention.select_option("prefix")
    page.get_by_text("needs an instruction").wait_for()
    page.wait_for_function("menu => menu.value === 'native'", arg=attention.element_handle())
    page.get_by_label("sentences").fill("$x$ <img src=x onerror=window.pwned=1>\nanother line")
    page.get_by_role("button", name="Read these sentences").click()
    page.locator(".ytick text").filter(has_text="1 · $x$ <img").first.wait_for()
    assert page.evaluate("window.pwned") is None
