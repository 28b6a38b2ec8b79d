import csv
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from tiny_series import whole

from lab import plotting
from lab.export import export

ALT = "Spearman correlation by pooling and layer; mean at layer two is highest"


pytestmark = pytest.mark.usefixtures("a_style_of_its_own")


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    rows = [
        {"attention": attention, "layer": layer, "pooling": pooling, "dataset": "toy",
         "metric": "spearman", "value": value, "low": value - 2, "high": value + 1, "n": 50}
        for attention in ("causal", "bidirectional")
        for pooling in ("last", "mean", "first")
        for layer in (2, 0, 1)
        for value in [float(rng.uniform(10, 60))]
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"layer": "Int64", "n": "Int64"})


@pytest.fixture
def causal(table):
    return table[table["attention"] == "causal"]


@pytest.fixture
def comparisons():
    return pd.DataFrame({
        "setting": ["mean", "max", "first"], "baseline": "last", "metric": "spearman",
        "difference": [3.0, 0.2, -4.0], "low": [1.0, -1.0, -6.0], "high": [5.0, 1.5, -2.0],
        "p": [0.004, 0.6, 0.002], "p_holm": [0.008, 0.6, 0.006], "p_min": 0.001, "n": 120,
    })  # fmt: skip


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_every_cell_of_a_heat_map_is_the_table_s_value_in_its_place(causal):
    ax = plotting.heat_map(causal, rows="pooling", columns="layer")
    drawn = np.asarray(ax.images[0].get_array())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["last", "mean", "first"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2"]
    for row in causal.itertuples():
        assert drawn[["last", "mean", "first"].index(row.pooling), row.layer] == row.value


@pytest.mark.parametrize(("lower", "pick"), [(False, "idxmax"), (True, "idxmin")])
def test_the_best_cell_of_a_heat_map_is_outlined(causal, lower, pick):
    ax = plotting.heat_map(causal, rows="pooling", columns="layer", lower_is_better=lower)
    best = causal.loc[getattr(causal["value"], pick)()]
    (box,) = ax.patches
    at = (int(best["layer"]) - 0.5, ["last", "mean", "first"].index(best["pooling"]) - 0.5)
    assert box.get_xy() == at


@pytest.mark.parametrize("values", [[-0.001, 0.3], [-0.2, 0.01], [0.0, 0.0]])
def test_no_difference_is_the_grey_in_the_middle_and_has_no_sign(values):
    table = pd.DataFrame({"a": ["x", "y"], "b": "z", "value": values})
    ax = plotting.heat_map(table, rows="a", columns="b", centre=0)
    assert ax.images[0].norm(0.0) == 0.5
    assert "-0.00" not in texts(ax)


@pytest.mark.parametrize(
    ("top", "said"), [(4, ["1", "2"]), (40, ["1", "10", "20"]), (2e6, ["$\\mathdefault{10^{6}}$"])]
)
def test_a_log_axis_has_numbers_that_can_be_read(top, said):
    table = pd.DataFrame({"x": [1, 2, 3], "value": [1, 2, top], "low": 1, "high": top, "line": "a"})
    ax = plotting.curves(table, x="x", hue="line", log_y=True)
    ax.figure.canvas.draw()
    assert set(said) <= {tick.get_text() for tick in ax.get_yticklabels()}


def test_a_missing_cell_stays_empty_and_is_not_called_a_number(causal):
    ax = plotting.heat_map(causal.iloc[1:], rows="pooling", columns="layer")
    assert ax.images[0].get_array().mask.sum() == 1
    assert len(texts(ax)) == 8


def test_only_cells_that_can_be_read_are_annotated():
    many = pd.DataFrame({"a": np.repeat(range(20), 20), "b": np.tile(range(20), 20), "value": 1.0})
    many["value"] += np.arange(400)
    assert not texts(plotting.heat_map(many, rows="a", columns="b"))


def test_a_number_in_a_cell_has_contrast_with_the_cell(causal):
    ax = plotting.heat_map(causal, rows="pooling", columns="layer")
    image = ax.images[0]
    for text in ax.texts:
        column, row = (int(x) for x in text.get_position())
        cell = image.cmap(image.norm(image.get_array()[row, column]))[:3]
        light = sorted(
            sum(w * c**2.2 for w, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))
            for rgb in (cell, to_rgb(text.get_color()))
        )
        assert (light[1] + 0.05) / (light[0] + 0.05) > 4.4, text


def test_layer_curves_go_through_the_points_in_the_order_of_the_layers(causal):
    ax = plotting.layer_curves(causal, hue="pooling")
    assert [line.get_label() for line in ax.lines] == ["last", "mean", "first"]
    for line, (_, part) in zip(ax.lines, causal.groupby("pooling", sort=False), strict=True):
        part = part.sort_values("layer")
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
        np.testing.assert_array_equal(line.get_ydata(), part["value"])
    last = causal[causal["pooling"] == "last"].sort_values("layer")
    bars = np.array(ax.collections[0].get_segments())  # low and high end of each
    np.testing.assert_array_equal(bars[:, :, 1], last[["low", "high"]])


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("count", [3, plotting.FEW, plotting.FEW + 1])
def test_curves_go_through_the_points_in_the_order_of_any_column_of_numbers(count, log_x):
    places = [float(2**at) for at in reversed(range(count))]
    table = pd.concat([
        pd.DataFrame({"sample_size": places, "pooling": name, "value": up + np.arange(count),
                      "low": up - 0.25 + np.arange(count), "high": up + 0.5 + np.arange(count)})
        for up, name in enumerate(["last", "mean", "first"])
    ])  # fmt: skip
    ax = plotting.curves(table, x="sample_size", hue="pooling", log_x=log_x)
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log" if log_x else "linear", "sample size")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["last", "mean", "first"]
    for line, drawn, name in zip(ax.lines, ax.collections, ["last", "mean", "first"], strict=True):
        part = table[table["pooling"] == name].sort_values("sample_size")
        np.testing.assert_array_equal(line.get_xdata(), part["sample_size"])
        np.testing.assert_array_equal(line.get_ydata(), part["value"])
        corners = {(x, y) for path in drawn.get_paths() for x, y in path.vertices}
        assert len(drawn.get_paths()) == (count if count <= plotting.FEW else 1)  # bars, or a band
        for side in ("low", "high"):
            assert corners >= set(zip(part["sample_size"], part[side], strict=True))


@pytest.mark.parametrize("width", ["page", "column"])
def test_bars_stand_beside_each_other_inside_the_axes(width):
    plotting.use_style(width)
    many = pd.DataFrame([
        {"line": f"line {name}", "x": 10**at, "value": at, "low": at - 1, "high": at + 1}
        for name in range(9) for at in range(3)
    ])  # fmt: skip
    for log_x in (False, True):
        ax = plotting.curves(many, x="x", hue="line", log_x=log_x)
        ax.figure.canvas.draw()
        for kind in (ax.lines, ax.collections):
            at = np.array([[one.get_transform().transform((x, 0))[0] for x in (1, 10, 100)]
                           for one in kind])  # fmt: skip
            np.testing.assert_allclose(np.diff(at, axis=0), plotting.APART / 72 * ax.figure.dpi)
            assert ax.bbox.x0 < at.min() and at.max() < ax.bbox.x1
            assert at.max() - at.min() > 0.6 * ax.bbox.width, "the data's limits, not the page's"


def test_a_curve_without_an_interval_has_no_bar(causal):
    known = causal.assign(low=np.nan, high=np.nan)
    ax = plotting.curves(known, x="layer", hue="pooling", log_y=True)
    assert [len(bars.get_segments()) for bars in ax.collections] == [0, 0, 0]
    assert ax.get_ylim()[0] > 0


@pytest.mark.parametrize("width", ["page", "column"])
def test_panels_show_each_value_alone_at_equal_scale(causal, width):
    plotting.use_style(width)
    both = pd.concat(
        [causal.assign(task="a $1"), causal.assign(task="b", value=causal["value"] - 1)]
    )
    first = plotting.curves(both, x="layer", hue="pooling", panels="task", label="score")
    top, bottom = axes = first.figure.axes
    assert first is top and (top.get_xlabel(), bottom.get_xlabel()) == ("", "layer")
    assert [ax.get_legend().get_title().get_text() for ax in axes] == [r"a \$1", "b"]
    assert top.get_xlim() == bottom.get_xlim() and top.get_ylim() == bottom.get_ylim()
    for ax, name in zip(axes, ("a $1", "b"), strict=True):
        part = both[both["task"] == name]
        alone = plotting.curves(part, x="layer", hue="pooling")
        for one, other in zip(ax.lines, alone.lines, strict=True):
            np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    with pytest.raises(LookupError, match="no column named 'tsk'"):
        plotting.curves(both, x="layer", hue="pooling", panels="tsk")
    with pytest.raises(ValueError, match="panels='task' makes axes of its own: leave out ax"):
        plotting.curves(both, x="layer", hue="pooling", panels="task", ax=top)
    with pytest.raises(ValueError, match="2 rows for one mark"):
        plotting.curves(both, x="layer", hue="pooling")


def test_layer_curves_are_the_curves_over_the_layer(causal):
    one, two = (
        plotting.layer_curves(causal, hue="pooling"),
        plotting.curves(causal, x="layer", hue="pooling"),
    )
    for first, second in zip(one.lines, two.lines, strict=True):
        np.testing.assert_array_equal(first.get_xydata(), second.get_xydata())
    assert (one.get_xlabel(), two.get_xlabel()) == ("layer (0 = token embeddings)", "layer")
    assert one.get_ylabel() == two.get_ylabel() == "spearman · toy"


def test_a_curve_is_not_drawn_where_its_axis_has_no_place(causal):
    with pytest.raises(ValueError, match="'layer' goes down to 0: a log axis has no place"):
        plotting.curves(causal, x="layer", hue="pooling", log_x=True)
    endless = causal.assign(rate=causal["layer"].astype(float).replace(2, np.inf))
    with pytest.raises(ValueError, match="'rate' is infinite in 3 of 9 rows"):
        plotting.curves(endless, x="rate", hue="pooling")
    with pytest.raises(LookupError, match=r"no column named 'layr'.*did you mean 'layer'"):
        plotting.curves(causal, x="layr", hue="pooling")


def test_forty_curves_are_forty_pairs_of_colour_and_marker():
    names = np.repeat([f"p{i}" for i in range(40)], 2)
    many = pd.DataFrame({"pooling": names, "layer": [0, 1] * 40, "value": 1.0, "low": 0, "high": 2})
    lines = plotting.layer_curves(many, hue="pooling").lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 40


def test_the_first_eight_curves_differ_in_grey_print_too():
    names = np.repeat([f"p{i}" for i in range(8)], 2)
    many = pd.DataFrame({"pooling": names, "layer": [0, 1] * 8, "value": 1.0, "low": 0, "high": 2})
    lines = plotting.layer_curves(many, hue="pooling").lines
    assert len({line.get_marker() for line in lines}) == 8


def test_a_forest_fills_exactly_the_differences_that_holm_leaves(comparisons):
    ax = plotting.forest(comparisons)
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    filled = [line.get_markerfacecolor() != "white" for line in marks]
    assert filled == [True, False, True]
    assert [line.get_xdata()[0] for line in marks] == [3.0, 0.2, -4.0]
    spans = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert spans == [[1.0, 5.0], [-1.0, 1.5], [-6.0, -2.0]]
    assert ax.get_xlabel() == "difference from last · spearman"


def test_a_forest_says_n_and_the_smallest_p_that_was_possible(comparisons):
    ax = plotting.forest(comparisons)
    notes = [label.get_text() for label in ax.child_axes[0].get_yticklabels()]
    assert notes[0] == "n 120 · p 0.008 (min 0.001)"


def test_scores_show_one_dot_with_its_interval_per_row(table):
    final = table[table["layer"] == 2]
    ax = plotting.scores(final, rows=["pooling", "attention"], hue="attention")
    np.testing.assert_array_equal([line.get_xdata()[0] for line in ax.lines], final["value"])
    assert ax.get_yticklabels()[0].get_text() == "last · causal"
    assert len({line.get_color() for line in ax.lines}) == 2


def test_a_map_colours_names_apart_and_numbers_by_scale():
    rng = np.random.default_rng(1)
    points = pd.DataFrame(rng.normal(size=(30, 2)), columns=["x", "y"])
    points["topic"], points["norm"] = ["a", "b", "c"] * 10, rng.random(30)
    by_name = plotting.scatter_map(points, colour="topic")
    assert [len(marks.get_offsets()) for marks in by_name.collections] == [10, 10, 10]
    by_number = plotting.scatter_map(points, colour="norm")
    np.testing.assert_array_equal(by_number.collections[0].get_array(), points["norm"])
    with pytest.raises(ValueError, match="30 values of 'name', 11 marks"):
        plotting.scatter_map(points.assign(name=[f"t{i}" for i in range(30)]), colour="name")
    with pytest.raises(ValueError, match="1 of 30 points have no 'x' or 'y'"):
        plotting.scatter_map(points.assign(x=[np.nan, *range(29)]))


def test_dollar_signs_in_data_start_no_formula(causal, tmp_path):
    odd = causal.assign(pooling=causal["pooling"].replace("mean", r"cost $\frac{ $5"))
    figure = plotting.heat_map(odd, rows="pooling", columns="layer").figure
    assert plotting.save(figure, odd, tmp_path, "odd", alt=ALT).path.is_file()


DRAW = {
    "heat_map": lambda t: plotting.heat_map(t, rows="pooling", columns="layer"),
    "layer_curves": lambda t: plotting.layer_curves(t, hue="pooling"),
    "curves": lambda t: plotting.curves(t, x="layer", hue="pooling"),
    "scores": lambda t: plotting.scores(t, rows=["pooling", "layer"]),
    "interactive_heat_map": lambda t: plotting.interactive_heat_map(
        t, rows="pooling", columns="layer", frame="dataset"
    ),
}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
class TestEveryFigureRefuses:
    def test_an_empty_table(self, draw, causal):
        with pytest.raises(ValueError, match="the table has no rows"):
            draw(causal.iloc[:0])

    def test_a_missing_column(self, draw, causal):
        with pytest.raises(LookupError, match=r"no column named 'pooling'; .* did you mean"):
            draw(causal.rename(columns={"pooling": "poolings"}))

    def test_a_column_without_any_number(self, draw, causal):
        with pytest.raises(ValueError, match="'value' holds no number in any of its 9 rows"):
            draw(causal.assign(value=np.nan))

    def test_an_infinite_number(self, draw, causal):
        with pytest.raises(ValueError, match="'value' is infinite in 9 of 9 rows"):
            draw(causal.assign(value=np.inf))

    def test_an_empty_key(self, draw, causal):
        with pytest.raises(ValueError, match="'pooling' is empty in 3 of 9 rows"):
            draw(causal.assign(pooling=causal["pooling"].where(causal["pooling"] != "mean")))

    def test_two_rows_for_one_mark_and_names_what_tells_them_apart(self, draw, table):
        with pytest.raises(ValueError, match=r"2 rows for one mark .*differ in attention"):
            draw(table)


def test_styles_have_names_and_sizes():
    plotting.use_style("column", "serif")
    assert mpl.rcParams["figure.figsize"][0] == 3.3
    plotting.use_style(5.5)
    assert mpl.rcParams["figure.figsize"][0] == 5.5
    with pytest.raises(LookupError, match="did you mean 'column'"):
        plotting.use_style("columns")
    with pytest.raises(LookupError, match="no family named 'mono'"):
        plotting.use_style("page", "mono")
    with pytest.raises(ValueError, match="in inches"):
        plotting.use_style(-1)


def saved_heat(causal, folder, **options):
    figure = plotting.heat_map(causal, rows="pooling", columns="layer").figure
    return plotting.save(figure, causal, folder, "heat", **{"alt": ALT, **options})


def test_the_same_figure_is_the_same_bytes(causal, tmp_path):
    one, two = (saved_heat(causal, tmp_path / name) for name in "ab")
    for suffix in (".svg", ".csv", ".json"):
        first, second = one.path.with_suffix(suffix), two.path.with_suffix(suffix)
        assert first.read_bytes() == second.read_bytes()


def test_a_saved_svg_is_an_image_with_title_and_description_and_needs_no_font(causal, tmp_path):
    alt = "Rows <first & last>: mean is highest at layer two"
    svg = saved_heat(causal, tmp_path, alt=alt, caption="A & B").path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.attrib["role"] == "img"
    assert root.find(f"{space}title").text == "A & B; n = 50."
    assert root.find(f"{space}desc").text == alt
    assert root.find(f".//{space}text") is None
    assert mpl.__version__ not in svg


def test_the_table_lies_beside_the_figure_and_the_digests_are_theirs(causal, tmp_path):
    path = saved_heat(causal, tmp_path, caption="Where it is.").path
    assert path == tmp_path / "figures" / "heat.svg"
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    words = ("static", ALT, "Where it is; n = 50.")
    assert (about["kind"], about["alt"], about["caption"]) == words
    for name, digest in about["sha256"].items():
        assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == digest
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["value"]) for row in rows] == causal["value"].tolist()
    assert sorted(p.name for p in path.parent.iterdir()) == ["heat.csv", "heat.json", "heat.svg"]


@pytest.mark.parametrize(
    ("n", "said"),
    [
        ([4, 4], "It; n = 4."), ([9.0, 4], "It; n = 4 to 9."),
        ([None, None], "It."), (["a", "b"], "It."),
    ],
)  # fmt: skip
def test_a_caption_says_of_how_many(tmp_path, n, said):
    table = pd.DataFrame({"a": ["x", "y"], "value": [1, 2], "low": 0, "high": 3, "n": n})
    ax = plotting.scores(table, rows="a")
    saved = plotting.save(ax.figure, table, tmp_path, "dots", alt=ALT, caption="It. ")
    assert saved.caption == said
    ax = plotting.scores(table, rows="a")
    assert plotting.save(ax.figure, table, tmp_path, "dots", alt=ALT).caption == ""


@pytest.mark.parametrize("alt", ["", "A heat map", "   short   alt   ", "\n" * 40])
def test_an_alt_text_that_says_nothing_is_refused(causal, tmp_path, alt):
    with pytest.raises(ValueError, match="alt text must say what the figure shows"):
        saved_heat(causal, tmp_path, alt=alt)
    assert not list(tmp_path.iterdir())


def test_bad_names_control_characters_and_empty_tables_are_refused(causal, tmp_path):
    figure = plotting.heat_map(causal, rows="pooling", columns="layer").figure
    for name in ("../heat", "Heat", "", "heat.svg"):
        with pytest.raises(ValueError, match="a figure's name is"):
            plotting.save(figure, causal, tmp_path, name, alt=ALT)
    with pytest.raises(ValueError, match="control character"):
        plotting.save(figure, causal, tmp_path, "heat", alt=ALT + "\x00")
    with pytest.raises(ValueError, match="empty table"):
        plotting.save(figure, causal.iloc[:0], tmp_path, "heat", alt=ALT)


def test_a_disk_that_fills_up_leaves_the_earlier_figure(causal, tmp_path, monkeypatch):
    path = saved_heat(causal, tmp_path).path
    before = {p: p.read_bytes() for p in path.parent.iterdir()}
    write = type(path).write_bytes

    def full(self, data):
        if "csv" in self.name:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        saved_heat(causal, tmp_path, alt="Another text that describes the same figure")
    assert {p: p.read_bytes() for p in path.parent.iterdir()} == before


def test_a_saved_figure_shows_itself_with_its_alt_text(causal, tmp_path):
    from IPython.core.formatters import DisplayFormatter

    saved = saved_heat(causal, tmp_path)
    formatter = DisplayFormatter(active_types=["text/plain", "image/svg+xml"])
    data, metadata = formatter.format(saved)
    assert data["image/svg+xml"] == saved.path.read_text(encoding="utf-8")
    assert data["text/plain"] == ALT
    assert metadata["image/svg+xml"]["alt"] == ALT
    assert not plt.get_fignums()


def test_a_slider_has_one_step_per_value_and_every_cell_its_value(table):
    figure = plotting.interactive_heat_map(
        table, rows="pooling", columns="attention", frame="layer"
    )
    assert [frame.name for frame in figure.frames] == ["0", "1", "2"]
    assert [step.label for step in figure.layout.sliders[0].steps] == ["0", "1", "2"]
    for row in table.itertuples():
        (heat,) = figure.frames[row.layer].data
        at = (list(heat.y).index(row.pooling), list(heat.x).index(row.attention))
        assert heat.z[at] == row.value
        assert f"[{row.low:.3f}, {row.high:.3f}] n 50" in heat.hovertext[at[0]][at[1]]


def test_markup_in_data_is_shown_by_plotly_and_not_obeyed(table):
    evil = "</script><img src=x onerror=alert(1)>"
    odd = table.assign(pooling=table["pooling"].replace("mean", evil))
    figure = plotting.interactive_heat_map(odd, rows="pooling", columns="layer", frame="attention")
    text = figure.to_json()
    assert "<img" not in text.replace("\\u003c", "<")
    assert "&lt;img src=x onerror=alert(1)" in text.replace("\\u003c", "<").replace("\\u0026", "&")


def test_an_interactive_figure_is_saved_like_any_other(table, tmp_path):
    def saved(folder):
        figure = plotting.interactive_heat_map(
            table, rows="pooling", columns="attention", frame="layer"
        )
        return plotting.save_interactive(figure, table, folder, "slider", alt=ALT)

    one, two = saved(tmp_path / "a"), saved(tmp_path / "b")
    assert one.path.name == "slider.plotly.json"
    assert one.path.read_bytes() == two.path.read_bytes()
    about = json.loads(one.path.with_name("slider.json").read_text(encoding="utf-8"))
    assert (about["kind"], about["alt"]) == ("interactive", ALT)
    data, metadata = one._repr_mimebundle_()
    assert set(data) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert metadata["application/vnd.plotly.v1+json"]["alt"] == ALT


def test_a_static_and_an_interactive_figure_do_not_share_a_name(causal, table, tmp_path):
    saved_heat(causal, tmp_path)
    figure = plotting.interactive_heat_map(
        table, rows="pooling", columns="layer", frame="attention"
    )
    with pytest.raises(ValueError, match="'heat' exists and is not interactive"):
        plotting.save_interactive(figure, table, tmp_path, "heat", alt=ALT)


# Maps with a menu of colours


@pytest.fixture
def points(rng):
    """Six texts in three layers, in three dimensions."""
    rows = [
        {"layer": layer, "text": f"text {row}", "words": 3 + row, "topic": "b" if row % 2 else "a",
         **dict(zip("xyz", rng.normal(size=3), strict=True))}
        for layer in (2, 0, 1) for row in range(6)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def flat(points):
    """One layer in two dimensions."""
    return points[points["layer"] == 0].drop(columns=["z", "layer"])


def moved(figure):
    """What plotly.js shows of a figure's only trace once its slider is at each step in turn."""
    shown = figure.data[0].to_plotly_json()
    for step in figure.layout.sliders[0].steps:
        (name,) = step.args[0]
        (frame,) = (frame for frame in figure.frames if frame.name == name)
        (trace,) = frame.data
        shown = {**shown, **trace.to_plotly_json()}
        yield name, shown


@pytest.mark.parametrize(("axes", "kind"), [("xy", "scatter"), ("xyz", "scatter3d")])
def test_a_map_has_two_or_three_dimensions_as_its_points_have(points, axes, kind):
    chosen = points[points["layer"] == 0].drop(columns=[a for a in "xyz" if a not in axes])
    figure = plotting.interactive_map(chosen, colours=["words"], hover="text")
    (trace,) = figure.data
    assert trace.type == kind
    for axis in axes:
        np.testing.assert_array_equal(trace[axis], chosen[axis])
    assert list(trace.marker.color) == chosen["words"].tolist()
    assert not figure.frames and not figure.layout.sliders


@pytest.mark.parametrize("drop", [["z"], []])
def test_every_step_of_the_slider_moves_all_points_to_the_places_of_its_frame(points, drop):
    figure = plotting.interactive_map(
        points.drop(columns=drop), colours=["topic"], hover="text", frame="layer"
    )
    steps = dict(moved(figure))
    assert list(steps) == ["0", "1", "2"]
    assert figure.layout.sliders[0].currentvalue.prefix == "layer: "
    for name, shown in steps.items():
        part = points[points["layer"] == int(name)]
        for axis in {"x", "y", "z"} - set(drop):
            np.testing.assert_array_equal(shown[axis], part[axis])
    first = points[points["layer"] == 0]
    np.testing.assert_array_equal(figure.data[0].x, first["x"])


def test_the_menu_changes_the_colours_of_the_marks_and_the_words_at_the_bar(points):
    chosen = flat(points).assign(topic=lambda t: t["topic"].where(t.index % 3 > 0, "c"))
    figure = plotting.interactive_map(chosen, colours=["words", "topic"], hover="text")
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["words", "topic"]
    assert [button.method for button in menu.buttons] == ["update", "update"]
    names = list(dict.fromkeys(chosen["topic"]))
    wanted = [chosen["words"].tolist(), [names.index(name) for name in chosen["topic"]]]
    for button, numbers in zip(menu.buttons, wanted, strict=True):
        restyle, relayout = button.args
        assert restyle == {"marker.color": [numbers]}
        assert relayout == {"coloraxis.colorbar.title.text": button.label}
    assert list(figure.data[0].marker.color) == wanted[0]
    assert figure.layout.coloraxis.colorbar.title.text == "words"
    assert figure.data[0].marker.coloraxis == "coloraxis"


def test_the_slider_does_not_undo_the_colours_that_the_menu_has_set(points):
    figure = plotting.interactive_map(
        points, colours=["words", "topic"], hover="text", frame="layer"
    )
    restyle, _ = figure.layout.updatemenus[0].buttons[1].args
    figure.data[0].marker.color = restyle["marker.color"][0]
    for _, shown in moved(figure):
        assert list(shown["marker"]["color"]) == [0, 1, 0, 1, 0, 1]
        assert list(shown["hovertext"]) == list(figure.data[0].hovertext)


def test_names_take_the_order_of_a_categorical(points):
    order = pd.Categorical(points["topic"], categories=["b", "a"])
    figure = plotting.interactive_map(
        flat(points.assign(topic=order)), colours=["topic"], hover="text"
    )
    assert list(figure.data[0].marker.color) == [1, 0, 1, 0, 1, 0]


def test_a_point_says_its_text_and_every_colour_and_a_long_text_is_cut(points):
    chosen = flat(points)
    long = chosen.assign(text=["<" * 100, *chosen["text"][1:]])
    figure = plotting.interactive_map(long, colours=["words", "topic"], hover="text")
    first, second, *_ = figure.data[0].hovertext
    assert first == "&lt;" * 79 + "…<br>words: 3<br>topic: a"
    assert second == "text 1<br>words: 4<br>topic: b"
    assert figure.data[0].hoverinfo == "text"


def test_markup_in_the_data_of_a_map_is_shown_by_plotly_and_not_obeyed(points):
    evil = "<img src=x onerror=alert(1)>"
    odd = points.rename(columns={"topic": evil, "layer": "<b>"}).replace({evil: {"a": evil}})
    odd = odd.assign(text=evil + odd["text"]).astype({"<b>": str})
    odd["<b>"] += "</script>"
    figure = plotting.interactive_map(odd, colours=[evil, "words"], hover="text", frame="<b>")
    text = figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")
    assert set(re.findall(r"<[^>]*>", text)) == {"<br>"}
    safe = "&lt;img src=x onerror=alert(1)&gt;"
    assert figure.data[0].hovertext[0] == f"{safe}text 0<br>{safe}: {safe}<br>words: 3"
    assert figure.layout.updatemenus[0].buttons[0].label == safe
    assert figure.layout.coloraxis.colorbar.title.text == safe
    assert figure.frames[0].name == "2&lt;/script&gt;"


def exported(figure, table, folder):
    """The overview page of a run that saved this figure."""
    plotting.save_interactive(figure, table, folder / "run", "map", alt=ALT)
    about = whole({"notebook": "notebooks/02_maps.ipynb"})
    (folder / "run" / "manifest.json").write_text(json.dumps(about), encoding="utf-8")
    return export([folder / "run"], folder / "site")


def test_an_exported_map_asks_nobody_and_is_the_figure(points, tmp_path):
    figure = plotting.interactive_map(
        points, colours=["words", "topic"], hover="text", frame="layer"
    )
    index = exported(figure, points, tmp_path)
    page = BeautifulSoup(index.read_text("utf-8"), "html.parser")
    addresses = [e.get("src") or e.get("href") for e in page.select("[src], [href]")]
    assert all((index.parent / a.partition("#")[0]).exists() for a in addresses)
    (policy,) = page.select("meta[http-equiv='Content-Security-Policy']")
    assert policy["content"].startswith("default-src 'none'")
    (drawing,) = page.select(".drawing script")
    assert drawing["type"] == "application/json"
    assert json.loads(drawing.string) == json.loads(figure.to_json())
    assert "://" not in drawing.string  # no address: of a tile, a font, an image or geography
    assert page.select_one(".canvas")["aria-label"] == ALT


class TestAMapRefuses:
    def refused(self, points, message, error=ValueError, **options):
        options = {"colours": ["words"], "hover": "text", **options}
        with pytest.raises(error, match=message):
            plotting.interactive_map(points, **options)

    def test_no_colour(self, points):
        self.refused(points, "needs a column to colour by", colours=[])

    def test_an_empty_table(self, points):
        self.refused(points.iloc[:0], "the table has no rows")

    @pytest.mark.parametrize(
        ("column", "options"),
        [("x", {}), ("y", {}), ("text", {}), ("words", {}), ("layer", {"frame": "layer"})],
    )
    def test_a_missing_column(self, points, column, options):
        renamed = points.rename(columns={column: f"{column}_"})
        self.refused(renamed, f"no column named '{column}'", LookupError, **options)

    @pytest.mark.parametrize("axis", ["x", "y", "z"])
    def test_a_missing_or_infinite_coordinate(self, points, axis):
        holes = points.assign(**{axis: points[axis].where(points.index != 4)})
        self.refused(holes, "1 of 18 points have no coordinate; drop them first")
        endless = points.assign(**{axis: points[axis].where(points.index != 4, np.inf)})
        self.refused(endless, f"'{axis}' is infinite in 1 of 18 rows")

    def test_a_missing_or_infinite_colour(self, points):
        gone = points.assign(words=points["words"].where(points.index != 4))
        self.refused(gone, "'words' is empty in 1 of 18 rows")
        logs = points.assign(words=points["words"].where(points.index != 4, -np.inf))
        self.refused(logs, "'words' is infinite in 1 of 18 rows")

    def test_frames_of_different_sizes(self, points):
        self.refused(points.iloc[1:], r"hold the same points; got \[6, 6, 5\]", frame="layer")

    def test_frames_of_different_points_or_colours(self, points):
        turned = pd.concat([points.iloc[:6], points.iloc[6:12][::-1], points.iloc[12:]])
        message = r"same order, .*; point 0 is \['text 5', 8\] in 0 and \['text 0', 3\] in 1"
        self.refused(turned, message, frame="layer")
        norms = points.assign(words=points["x"])
        self.refused(
            norms, "every 'layer' must hold the same points .* same colours", frame="layer"
        )
