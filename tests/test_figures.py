"""The reference figures and what a paper asks of them; figures drawn again from their tables."""

import json
import os
import re
import shutil
import zlib

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from typer.testing import CliRunner

from lab import plotting
from lab.cli import app
from lab.paths import FIGURES, ROOT
from lab.plotting import stills
from lab.plotting.record import draw_again
from lab.plotting.redrawing import redraw, redraw_all
from lab.plotting.style import COLOUR_MAP, COLOURS, MARKERS, SMALLEST

ALT = "Scores of two poolings by layer, the mean above the last token in every layer."
ABOUTS = [path for path in sorted(FIGURES.rglob("*.json")) if ".plotly." not in path.name]
TOLD = {path: json.loads(path.read_text(encoding="utf-8")) for path in ABOUTS}
STATIC = [path for path in ABOUTS if TOLD[path]["kind"] == "static"]
ONE_OF_EACH = list({TOLD[path]["draw"]["function"]: path for path in STATIC}.values())
STYLES = [("column", "serif"), ("column", "sans"), ("page", "serif"), ("page", "sans")]
# Machado, Oliveira & Fernandes, IEEE TVCG 15 (2009), severity 1, on linear RGB; and luminance.
SEEN_BY = {
    "full colour": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
    "grey print": [[0.2126, 0.7152, 0.0722]] * 3,
}  # fmt: skip
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip


pytestmark = pytest.mark.usefixtures("a_style_of_its_own")


@pytest.fixture
def table():
    return pd.DataFrame({
        "pooling": np.repeat(["mean", "last"], 5), "layer": np.tile(np.arange(5), 2),
        "value": np.linspace(0.1, 0.7, 10), "low": 0.0, "high": 0.9,
    }).astype({"layer": "Int64"})  # fmt: skip


def named(one):
    return f"{one.parent.name[:2]}_{one.stem}" if hasattr(one, "stem") else one


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# The reference figures


def test_every_reference_figure_is_drawn_again_to_the_byte(tmp_path):
    list(redraw_all(FIGURES, tmp_path))
    wanted = {path: data for path, data in files(FIGURES).items() if path.name != "README.md"}
    again = files(tmp_path)
    assert sorted(again) == sorted(wanted) and len(again) == 3 * len(ABOUTS)
    assert [str(path) for path in wanted if again[path] != wanted[path]] == []


@pytest.mark.parametrize(
    ("about", "width", "family"),
    [(about, *STYLES[0]) for about in STATIC[::3]]
    + [(about, *style) for about in ONE_OF_EACH for style in STYLES[1:]],
    ids=named,
)
def test_a_figure_is_legible_and_whole_in_every_style(about, width, family):
    csv = about.with_suffix(".csv").read_text(encoding="utf-8")
    figure = draw_again(TOLD[about]["draw"], csv, width=width, family=family)
    figure.canvas.draw()
    ink = (np.asarray(figure.canvas.buffer_rgba())[..., :3] < 250).any(axis=2)
    assert ink[1:-1, 1:-1].any()
    sides = {"top": ink[0], "bottom": ink[-1], "left": ink[:, 0], "right": ink[:, -1]}
    assert [side for side, line in sides.items() if line.any()] == [], "cut off"
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    assert (box.min > -0.05).all() and (box.max < page + 0.05).all()  # a legend has a clear rim
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert min(text.get_fontsize() for text in texts) >= SMALLEST
    inside = max(ax.get_window_extent().width for ax in figure.axes) / figure.bbox.width
    assert inside > (0.4 if width == "column" else 0.2), "no room is left for the data"


# Colours


def lab_colours(colours, seen_by):
    """CIELAB (D65) of sRGB colours as they are seen."""
    rgb = np.asarray(colours)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    light = np.clip(linear @ np.array(SEEN_BY[seen_by]).T, 0, 1) @ XYZ.T / XYZ.sum(axis=1)
    x, y, z = np.where(light > 216 / 24389, np.cbrt(light), (24389 / 27 * light + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_two_series_differ_by_colour_or_in_grey_by_their_marker(seen_by):
    seen = lab_colours([to_rgb(colour) for colour in COLOURS], seen_by)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    pairs = [(i, j) for i in range(len(COLOURS)) for j in range(i)]
    if seen_by == "grey print":
        assert all(apart[i, j] > 15 or MARKERS[i] != MARKERS[j] for i, j in pairs)
    else:
        assert min(apart[pair] for pair in pairs) > 15


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_the_scale_of_numbers_gets_lighter_all_the_way(seen_by):
    scale = mpl.colormaps[COLOUR_MAP](np.linspace(0, 1, 64))[:, :3]
    light = lab_colours(scale, seen_by)[:, 0]
    assert np.diff(light).min() > 0 and light[-1] - light[0] > 60


# Drawn again


def saved(table, folder, beside=None):
    ax = plotting.layer_curves(table, hue="pooling", label="score", mark_y=0.5)
    data = table if beside is None else beside
    return plotting.save(ax.figure, data, folder, "line", alt=ALT).path


def renamed(table, mean, last):
    return table.assign(pooling=table["pooling"].map({"mean": mean, "last": last}))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: t, id="as it is"),
        pytest.param(lambda t: renamed(t, "1.0", "0.8"), id="numbers as text"),
        pytest.param(lambda t: renamed(t, "NA", "None"), id="words that look like nothing"),
        pytest.param(lambda t: renamed(t, True, False), id="true and false"),
        pytest.param(lambda t: renamed(t, '" $x$,\n<b>', "é"), id="text that breaks"),
        pytest.param(
            lambda t: t.assign(pooling=pd.Categorical(t["pooling"], ["last", "mean"])),
            id="an order of its own",
        ),
        pytest.param(
            lambda t: t.assign(value=t["value"].astype("float32"), low=np.nan, high=np.nan),
            id="short floats",
        ),
    ],
)
def test_a_table_gives_its_figure_again_whatever_its_types(change, table, tmp_path):
    path = saved(change(table), tmp_path)
    before = files(tmp_path)
    assert redraw(path.with_suffix(".json"), path.parent) == path
    assert files(tmp_path) == before


def test_another_style_is_another_picture_of_the_same_data(table, tmp_path):
    path = saved(table, tmp_path)
    about, out = path.with_suffix(".json"), tmp_path / "paper"
    narrow = redraw(about, out, width="column", family="serif")
    assert narrow.read_bytes() != path.read_bytes()
    assert (out / "line.csv").read_bytes() == path.with_suffix(".csv").read_bytes()
    before = files(out)
    assert redraw(out / "line.json", out) == narrow  # its JSON says its style
    assert files(out) == before
    assert mpl.rcParams["figure.figsize"][0] == 6.9, "the session keeps its style"


@pytest.mark.parametrize(("family", "font"), [("sans", b"DejaVuSans"), ("serif", b"DejaVuSerif")])
def test_a_pdf_embeds_its_fonts_says_what_it_shows_and_is_the_same_bytes(
    family, font, table, tmp_path
):
    about = saved(table, tmp_path).with_suffix(".json")
    one, two = (redraw(about, tmp_path / n, form="pdf", family=family) for n in "ab")
    pdf = one.read_bytes()
    assert pdf == two.read_bytes() and b"CreationDate" not in pdf
    assert set(re.findall(rb"/BaseFont /(?:[A-Z]+\+)?([\w-]+)", pdf)) == {font}
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert ALT.encode() in pdf
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    drawn = [zlib.decompress(part) for part in streams if part[:1] == b"x"]
    assert any(b" Tj" in part or b" TJ" in part for part in drawn), "text stays text"


def test_a_figure_with_another_table_is_refused(table, tmp_path):
    for other in (table.assign(value=0.3), table[table["layer"] < 3]):
        with pytest.raises(ValueError, match=r"'line' was drawn from another table \(10 rows\)"):
            saved(table, tmp_path, beside=other)
    with pytest.raises(ValueError, match=r"'line' is not drawn from the table .*: no column"):
        saved(table, tmp_path, beside=table.drop(columns="pooling"))
    assert not files(tmp_path)


def test_columns_that_are_not_drawn_may_be_saved(table, tmp_path):
    path = saved(table, tmp_path, beside=table.assign(n=3))
    assert redraw(path.with_suffix(".json"), tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_figure_changed_by_hand_is_saved_with_a_warning_and_not_drawn_again(table, tmp_path):
    ax = plotting.layer_curves(table, hue="pooling")
    ax.set_title("mine")
    with pytest.warns(plotting.ChangedByHand, match="'line' was changed after it was drawn"):
        path = plotting.save(ax.figure, table, tmp_path, "line", alt=ALT).path
    about = path.with_suffix(".json")
    assert json.loads(about.read_text())["draw"] is None
    with pytest.raises(ValueError, match=r"line\.json doesn't say how its figure was drawn"):
        redraw(about, tmp_path)


def test_words_on_axes_and_below_a_map_are_options_that_are_drawn_again(table, tmp_path):
    few = table[:5].assign(y=[1.0, 2, 3, 4, 5])
    forest = plotting.scores(few, rows="layer", rows_label="$ of a layer")
    bars = plotting.bars(few, x="y", log=True, x_label="times a neighbour")
    points = few.rename(columns={"value": "x"})
    cloud = plotting.interactive_map(points, colours=["low"], hover="pooling", note="<b> 3 %")
    assert (forest.get_ylabel(), bars.get_xlabel()) == (r"\$ of a layer", "times a neighbour")
    assert cloud.layout.annotations[0].text == "&lt;b&gt; 3 %"
    for ax, name in ((forest, "forest"), (bars, "bars")):
        plotting.save(ax.figure, few, tmp_path, name, alt=ALT)  # a warning would be an error
    plotting.save_interactive(cloud, points, tmp_path, "cloud", alt=ALT)
    abouts = [json.loads((tmp_path / f"figures/{n}.json").read_text()) for n in ("bars", "cloud")]
    assert all(about["draw"] for about in abouts)


def test_a_figure_on_axes_of_one_s_own_is_not_checked(table, tmp_path):
    _, axes = plt.subplots(1, 2)
    for ax in axes:
        plotting.layer_curves(table, hue="pooling", ax=ax)
    path = plotting.save(axes[0].figure, table.assign(value=0), tmp_path, "two", alt=ALT).path
    assert json.loads(path.with_suffix(".json").read_text())["draw"] is None


def damaged(about, **changes):
    told = json.loads(about.read_text())
    told["draw"].update(changes)
    about.write_text(json.dumps(told))
    return about


def test_what_cannot_be_drawn_again_is_said_and_the_rest_is_drawn(table, tmp_path):
    at = {n: saved(table, tmp_path / n).with_suffix(".json") for n in "abcd"}
    damaged(at["a"], options={"hue": "pooling", "colour": "red"})
    at["b"].with_suffix(".csv").write_text("pooling,layer\n")
    done = redraw_all(tmp_path, tmp_path / "out")
    assert [next(done).parent.parent.name for _ in "cd"] == ["c", "d"]
    says = r"layer_curves takes other options by now: .*'colour'; .*line\.csv is not the table"
    with pytest.raises(ValueError, match=f"2 of 4 not drawn: {says}"):
        next(done)
    with pytest.raises(LookupError, match=r"no figure function named 'curve'.*mean 'curves'"):
        redraw(damaged(at["c"], function="curve"), tmp_path)
    with pytest.raises(LookupError, match="no format named 'eps'"):
        redraw(at["d"], tmp_path, form="eps")
    with pytest.raises(ValueError, match="no saved figures in"):
        list(redraw_all(tmp_path / "nothing", tmp_path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param('{"name": ', "is damaged: Expecting value", id="cut off"),
        pytest.param("[]", "is damaged: it wants name, kind", id="a list"),
        pytest.param("{}", "is damaged: it wants name, kind", id="empty"),
        pytest.param({"name": "../../line"}, r"named '\.\./\.\./line'", id="another name"),
        pytest.param({"sha256": {}}, "is not the table that was drawn", id="no digest"),
        pytest.param({"draw": []}, "is damaged: it wants", id="a record that is none"),
        pytest.param({"types": {"layer": "nonsense"}}, "type or a style that is none", id="a type"),
        pytest.param({"style": {"colour": 1}}, "type or a style that is none", id="a style"),
    ],
)
def test_a_damaged_record_is_named_and_the_other_figures_are_drawn(content, says, table, tmp_path):
    bad, good = (saved(table, tmp_path / n).with_suffix(".json") for n in "ab")
    told = json.loads(bad.read_text())
    for key, value in content.items() if isinstance(content, dict) else ():
        (told["draw"] if key in told["draw"] else told)[key] = value
    bad.write_text(content if isinstance(content, str) else json.dumps(told))
    done = redraw_all(tmp_path, tmp_path / "deep" / "out")
    assert next(done).stem == good.stem
    with pytest.raises(ValueError, match=f"1 of 2 not drawn: .*{says}"):
        next(done)
    assert not list(tmp_path.glob("line*"))


def test_pictures_that_lie_among_the_figures_are_not_figures_of_their_own(table, tmp_path):
    saved(table, tmp_path)
    for _ in range(2):
        (path,) = redraw_all(tmp_path, tmp_path / "paper", width="column")
        assert path == tmp_path / "paper" / "figures" / "line.svg"
    assert len(list(tmp_path.rglob("line.svg"))) == 2


def test_a_stored_figure_that_was_changed_since_is_refused(tmp_path):
    figure, numbers = go.Figure(go.Scatter(y=[1, 2])), pd.DataFrame({"y": [1, 2]})
    path = plotting.save_interactive(figure, numbers, tmp_path, "frames", alt=ALT).path
    about = path.with_name("frames.json")
    assert redraw(about, tmp_path / "again").read_bytes() == path.read_bytes()
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"frames\.plotly\.json is not the figure that was saved"):
        redraw(about, tmp_path / "again")


def test_the_still_of_an_interactive_figure_has_the_width_and_the_family_asked_for(
    tmp_path, monkeypatch
):
    asked = []

    def still(figure, path, *, width):
        asked.append((path.name, width, figure.layout.font.family))
        return path

    monkeypatch.setattr("lab.plotting.redrawing.export_static", still)
    figure, numbers = go.Figure(go.Scatter(y=[1, 2])), pd.DataFrame({"y": [1, 2]})
    path = plotting.save_interactive(figure, numbers, tmp_path, "frames", alt=ALT).path
    redraw(path.with_name("frames.json"), tmp_path, form="pdf", width="column", family="serif")
    assert asked == [("frames.pdf", "column", "DejaVu Serif")]


def test_the_command_changes_a_style_only_in_another_folder(table, tmp_path):
    saved(table, tmp_path / "mine")
    before = files(tmp_path / "mine")
    asked = ["redraw", str(tmp_path / "mine"), "--width", "column", "--format", "pdf"]
    refused = CliRunner().invoke(app, asked)
    assert isinstance(refused.exception, ValueError)
    assert "say where with --out" in str(refused.exception)
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "paper")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "paper" / "figures" / "line.pdf").read_bytes()[:5] == b"%PDF-"
    assert CliRunner().invoke(app, ["redraw", str(tmp_path / "mine")]).exit_code == 0
    for wrong, says in (("README", "README is a file"), ("paper", "no width named 'wide'")):
        (tmp_path / "README").touch()
        asked = ["redraw", str(tmp_path / "mine"), "--out", str(tmp_path / wrong)]
        refused = CliRunner().invoke(app, [*asked, "--width", "wide"])
        assert says in str(refused.exception)
    assert files(tmp_path / "mine") == before


def test_make_figures_runs_no_model():
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    rule = re.search(r"^figures: (\w*).*\n((?:\t.*\n)+)", make, re.MULTILINE)
    assert rule.groups() == ("install", "\t$(BIN)/lab redraw figures\n")


# Stills of plotly figures


@pytest.fixture
def slider(table):
    both = pd.concat([table.assign(model=name) for name in ("a", "b <i>")])
    return plotting.interactive_heat_map(both, rows="pooling", columns="layer", frame="model")


def test_without_a_browser_a_still_becomes_a_page_and_says_what_to_install(
    slider, tmp_path, monkeypatch
):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-chromium"))
    with pytest.warns(plotting.NoChromium, match="apt-get install chromium"):
        page = plotting.export_static(slider, tmp_path / "still.pdf")
    assert page == tmp_path / "still.html" and not (tmp_path / "still.pdf").exists()
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", text) == []
    assert "b <i>" not in text and "b &lt;i&gt;" in text


@pytest.mark.skipif(
    not (os.environ.get("BROWSER_PATH") or shutil.which("chromium")), reason="no Chromium here"
)
def test_with_a_browser_a_still_is_a_picture_of_one_step(slider, tmp_path):
    path = plotting.export_static(slider, tmp_path / "still.svg", frame="b &lt;i&gt;")
    assert path == tmp_path / "still.svg"
    svg = path.read_text(encoding="utf-8")
    assert svg.startswith("<svg") and "model: b &#60;i&#62;" in svg
    assert "slider" not in svg and "<i>" not in svg


def test_a_still_of_frames_that_move_a_part_keeps_the_rest():
    figure = go.Figure([go.Scatter(y=[1, 2]), go.Scatter(y=[3, 4])])
    figure.frames = [go.Frame(name="moved", data=[go.Scatter(y=[5, 6])], traces=[1])]
    figure.update_layout(sliders=[{"currentvalue": {"prefix": "step: "}}])
    still = stills._still(figure, "moved")
    assert [list(trace.y) for trace in still.data] == [[1, 2], [5, 6]]
    assert still.layout.title.text == "step: moved" and not still.layout.sliders


def test_a_still_of_no_step_kind_or_width_is_refused(slider, tmp_path):
    with pytest.raises(LookupError, match="no frame named 'c'; have a, "):
        plotting.export_static(slider, tmp_path / "still.pdf", frame="c")
    with pytest.raises(LookupError, match="no kind of still picture named 'eps'"):
        plotting.export_static(slider, tmp_path / "still.eps")
    with pytest.raises(LookupError, match="no width named 'wide'"):
        plotting.export_static(go.Figure(), tmp_path / "still.pdf", width="wide")
