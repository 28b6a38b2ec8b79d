import json
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pandas as pd
import plotly
import pytest
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tiny_notebook import build, lab
from tiny_series import measured, pretend, whole, wrote
from traitlets.config import Config

from lab import plotting, results
from lab.export import export, page
from lab.series import plan

EVIL = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"
ALT = "Spearman by pooling and layer; mean at layer one is highest"
STEM = "01_pooling-cpu-0123abcd"

TABLE = pd.DataFrame({
    "pooling": ["mean", "mean", "last", "last", EVIL, EVIL], "layer": [0, 1] * 3,
    "attention": "causal", "dataset": "toy", "metric": "spearman", "seed": 0, "n": 50,
    "value": [30.5, 44.25, 20.0, 31.0, 25.0, 26.0],
    "low": [28.0, 41.0, 17.0, 29.0, 22.0, 24.0], "high": [33.0, 47.0, 22.0, 34.0, 27.0, 28.0],
})  # fmt: skip

SETUP = """
import pandas as pd
from pathlib import Path
from lab import plotting
folder = Path(out_dir)
table = pd.read_parquet(folder / "results.parquet")
"""
STATIC = f"""
figure = plotting.heat_map(table, rows="pooling", columns="layer").figure
plotting.save(figure, table, out_dir, "heat", alt={ALT!r}, caption="By layer.")
"""
SLIDER = f"""
figure = plotting.interactive_heat_map(table, rows="pooling", columns="attention", frame="layer")
plotting.save_interactive(figure, table, out_dir, "slider", alt={ALT!r})
"""
WEBGL = f"""
import plotly.graph_objects as go
go.Figure(go.Scattergl(x=[1, 2, 3], y=[3, 1, 2], text=[{EVIL!r}] * 3, mode="markers"))
"""
OUTPUTS = f"""
from IPython.display import HTML, Javascript, Math, display
print({EVIL!r})
links = "<a href='javascript:1'>link</a> <a href='02.ipynb'>next</a>"
display(HTML({EVIL!r} + "<p onclick='window.pwned=1'>kept " + links + "</p>"))
display(Javascript("window.pwned=1"), Math(r"\\alpha^2"))
"""
INLINE = "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()"
PROSE = rf"""# 01 · Does pooling matter?

Inline $\tau$ and $\text{{{EVIL}}}$, and

$$p_i = \frac{{\exp(s_i / \tau)}}{{Z}}$$

{EVIL} and [a paper](https://example.org/paper)

| a | b |
| - | - |
| 1 | 2 |
"""


def executed(folder):
    cells = [
        new_markdown_cell(PROSE),
        new_code_cell(f"out_dir = {str(folder)!r}", metadata={"tags": ["parameters"]}),
        *map(new_code_cell, (SETUP, STATIC, SLIDER, WEBGL, OUTPUTS, INLINE)),
        new_code_cell("import ipywidgets\nipywidgets.IntSlider()"),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    book = new_notebook(cells=cells)
    with tempfile.TemporaryDirectory(prefix="lab-") as sockets:
        # A place of its own for the sockets: two test processes would share the default one.
        ipc = {"transport": "ipc", "ip": f"{sockets}/k"}
        NotebookClient(
            book,
            kernel_name="python3",
            startup_timeout=180,
            config=Config(KernelManager=ipc, AsyncKernelManager=ipc),
        ).execute()
    nbformat.write(book, folder / "executed.ipynb")


def manifest(**outcome):
    identity = {
        "notebook": "notebooks/01_pooling.ipynb",
        "parameters": {
            "pooling": {"value": EVIL, "default": False},
            "out_dir": {"value": "somewhere", "default": False},
        },
    }
    ended = {  # the clock went back meanwhile
        "reason": "", "started": "2026-01-02T03:04:05.000+00:00",
        "finished": "2019-01-02T03:04:47.000+00:00", "seconds": 41.6,
    }  # fmt: skip
    about = {"profile": "cpu", "code": {"commit": "c0ffee00" * 5, "dirty": True}}
    return whole(identity, **ended | outcome) | about


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "01_pooling" / "cpu-0123abcd"
    folder.mkdir(parents=True)
    TABLE.to_parquet(folder / "results.parquet")
    executed(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest()), encoding="utf-8")
    wrote(folder)
    return folder


@pytest.fixture(scope="module")
def dead(run):
    folder = run.parent / "cpu-dead0000"
    folder.mkdir()
    end = manifest(state="dead", reason=f"the kernel died {EVIL}")
    (folder / "manifest.json").write_text(json.dumps(end), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def site(run, dead, tmp_path_factory):
    return export([run, dead], tmp_path_factory.mktemp("out") / "site").parent


@pytest.fixture(scope="module")
def pages(site):
    names = {"overview": "index.html", "notebook": f"{STEM}.html"}
    read = {key: (site / name).read_text("utf-8") for key, name in names.items()}
    return {key: BeautifulSoup(html, "html.parser") for key, html in read.items()}


@pytest.fixture(params=["overview", "notebook"])
def soup(request, pages):
    return pages[request.param]


def test_the_site_holds_pages_notebook_figures_tables_and_one_plotly(site, run):
    assert (site / f"{STEM}.ipynb").read_bytes() == (run / "executed.ipynb").read_bytes()
    for name in ("heat.svg", "heat.csv", "slider.plotly.json", "slider.csv"):
        assert (site / STEM / name).read_bytes() == (run / "figures" / name).read_bytes()
    shipped = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    assert [p.read_bytes() for p in site.rglob("*plotly*.js")] == [shipped.read_bytes()]
    assert len(pd.read_csv(site / STEM / "results.csv")) == len(TABLE)


def test_every_address_on_a_page_is_a_file_of_the_site_or_a_place_on_the_page(soup, site):
    found = soup.select("[src], [href]")
    assert found
    for element in found:
        address = element.get("src") or element.get("href")
        assert address, element
        if address.startswith("data:image/") or address == "https://example.org/paper":
            continue  # a picture inside the page; a link that only a reader follows
        file, _, place = address.partition("#")
        if file:
            assert (site / file).is_file(), address
        elif place:
            assert soup.find(id=place) is not None, address


def test_a_page_runs_only_the_scripts_we_ship(soup):
    scripts = [s for s in soup.find_all("script") if s.get("type") != "application/json"]
    assert [s["src"] for s in scripts] == ["plotly.min.js", "site.js"]
    (policy,) = soup.select("meta[http-equiv='Content-Security-Policy']")
    assert {f"'nonce-{s['nonce']}'" for s in scripts} == set(
        re.findall("'nonce-[^']*'", policy["content"])
    )
    assert "default-src 'none'" in policy["content"]
    attributes = [name for element in soup.find_all(True) for name in element.attrs]
    assert not [name for name in attributes if name.startswith("on")]
    assert not soup.select("[href^='javascript:']")


def test_every_picture_is_described_and_every_header_has_a_scope(soup):
    assert soup.find_all("img")
    assert all(image["alt"].strip() for image in soup.find_all("img"))
    assert all(place["aria-label"] == ALT or "without a description" in place["aria-label"]
               for place in soup.select(".canvas"))  # fmt: skip
    assert soup.find_all("th")
    assert all(header.get("scope") in ("col", "row") for header in soup.find_all("th"))


def test_a_page_has_a_language_landmarks_one_title_and_a_skip_link(soup):
    assert soup.html["lang"] == "en"
    assert soup.title.get_text(strip=True)
    assert len(soup.find_all("main")) == len(soup.find_all("h1")) == 1
    assert soup.find("header") and soup.find("footer") and soup.find("nav")
    assert soup.select_one("a.skip")["href"] == "#" + soup.main["id"]
    assert len({e["id"] for e in soup.select("[id]")}) == len(soup.select("[id]"))


def test_the_page_shows_as_many_figures_as_the_notebook_has(pages, run):
    book = nbformat.read(run / "executed.ipynb", as_version=4)
    kinds = {"application/vnd.plotly.v1+json", "image/svg+xml", "image/png"}
    outputs = [set(o.get("data", {})) for c in book.cells for o in c.get("outputs", [])]
    assert sum(bool(kinds & data) for data in outputs) == 4
    assert len(pages["notebook"].select("main .canvas, main img")) == 4


def test_formulas_become_mathml_and_their_text_stays_text(pages):
    formulas = pages["notebook"].find_all("math")
    assert [f["display"] for f in formulas] == ["inline", "inline", "block", "inline"]
    assert "τ" in formulas[0].get_text()
    assert "<script>" in formulas[1].get_text().replace("\xa0", " ")
    assert formulas[2].find("mfrac")


def test_a_formula_that_cannot_be_read_is_shown_as_it_was_written():
    assert page.mathml(r"\left( x", display=False) == r'<code class="tex">\left( x</code>'


def test_widgets_become_a_note_and_scripts_leave_nothing_behind(pages):
    text = pages["notebook"].main.get_text()
    assert "Here JupyterLab shows a control." in text
    assert "kept link next" in text
    assert EVIL in text  # what print wrote


def test_the_overview_shows_parameters_states_and_the_interval_beside_each_value(pages):
    overview = pages["overview"]
    assert [s.get_text() for s in overview.select("article .state")] == ["ok", "dead"]
    assert "the kernel died </script>" in overview.select_one(".reason").get_text()
    assert overview.select_one(".parameters dd").get_text() == repr(EVIL)
    assert "somewhere" not in overview.get_text()  # out_dir is where the run lay, not a setting
    assert "42 s" in overview.select_one(".meta").get_text()
    table = overview.select_one("table")
    assert [h.get_text() for h in table.select("thead th")] == ["pooling", "layer", "value"]
    cells = [cell.get_text() for cell in table.select("tbody tr")[1]]
    assert cells == ["mean", "1", "44.25 [41.00, 47.00]"]
    assert "attention causal · dataset toy · metric spearman" in table.caption.get_text()


def test_the_same_runs_give_the_same_pages(run, dead, site, tmp_path):
    again = export([run, dead], tmp_path / "again").parent
    files = sorted(p.relative_to(site) for p in site.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((site / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_a_site_is_replaced_whole_and_nothing_else_ever_is(dead, tmp_path):
    out = tmp_path / "site"
    export([dead], out)
    (out / "stale.html").write_text("old")
    export([dead], out)
    assert not (out / "stale.html").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["site"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("words")
    with pytest.raises(ValueError, match="is not a site of ours"):
        export([dead], precious)
    assert (precious / "thesis.tex").read_text() == "words"


def test_a_finished_run_whose_table_was_changed_by_hand_is_no_page(run, tmp_path):
    changed = tmp_path / "cpu-changed0"
    shutil.copytree(run, changed)
    TABLE.assign(value=9.0).to_parquet(changed / "results.parquet")
    with pytest.raises(ValueError, match=r"not what the run wrote: results.parquet; run it again"):
        export([changed], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_run_that_cannot_be_exported_leaves_the_earlier_site(run, dead, tmp_path):
    out = tmp_path / "site"
    export([dead], out)
    before = (out / "index.html").read_bytes()
    broken = tmp_path / "01_pooling" / "cpu-broken00"
    shutil.copytree(run, broken)
    (broken / "figures" / "heat.csv").unlink()
    with pytest.raises(ValueError, match=r"not what the run wrote: figures/heat\.csv"):
        export([dead, broken], out)
    wrote(broken)
    with pytest.raises(ValueError, match=r"describes heat\.csv, which is not beside it"):
        export([dead, broken], out)
    (broken / "executed.ipynb").write_text("{")
    wrote(broken)
    with pytest.raises(ValueError, match="not a notebook"):
        export([broken], out)
    assert (out / "index.html").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01_pooling", "site"]


def test_a_site_that_cannot_be_moved_into_place_leaves_the_earlier_one(dead, tmp_path, monkeypatch):
    out = tmp_path / "site"
    export([dead], out)
    before = (out / "index.html").read_bytes()
    rename = Path.rename

    def refuse(self, target):
        if (self / "index.html").exists() and Path(target) == out and "-old" not in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        export([dead], out)
    assert (out / "index.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_bad_calls_say_what_is_wrong(dead, tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        export([], tmp_path / "site")
    with pytest.raises(ValueError, match=r"it has no manifest\.json"):
        export([tmp_path], tmp_path / "site")
    with pytest.raises(ValueError, match="two runs would share the page"):
        export([dead, dead], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_long_table_is_cut_and_says_so(dead, tmp_path):
    long = tmp_path / "cpu-10000000"
    shutil.copytree(dead, long)
    frame = pd.DataFrame({"layer": range(1000), "value": 0.5, "low": 0.25, "high": 0.75})
    frame.to_parquet(long / "results.parquet")
    html = export([long], tmp_path / "site").read_text("utf-8")
    assert html.count("<tr>") == 301
    assert "(the first 300 rows; 700 more in the CSV)" in html
    assert (
        html.count("0.5000 [0.2500, 0.7500]") == 300
    )  # a constant interval stays beside its value


def test_a_figure_s_data_cannot_end_its_script_block():
    html = str(page.drawing({"data": [{"text": [EVIL, "<!--"]}], "layout": {}}, ALT))
    inside = html.partition('<script type="application/json">')[2].removesuffix("</script></div>")
    assert "<" not in inside
    assert json.loads(inside)["data"][0]["text"] == [EVIL, "<!--"]


@pytest.fixture
def look(visit, site):
    """Opens a page of the site by its name."""
    return lambda name, **options: visit(site / name, **options)


@pytest.mark.browser
@pytest.mark.parametrize(("name", "figures"), [("index.html", 2), (f"{STEM}.html", 4)])
def test_a_page_draws_everything_asks_nobody_and_runs_nothing_foreign(look, name, figures):
    view = look(name)
    drawn = view.evaluate("[...document.images].filter(i => i.naturalWidth > 0).length")
    drawn += view.locator(".canvas:has(.main-svg)").count()
    assert drawn == figures
    assert view.evaluate("[...document.images].every(i => i.alt.trim())")
    assert view.evaluate("window.pwned") is None
    assert not view.outside
    assert not view.problems


@pytest.mark.browser
def test_a_key_moves_the_slider_and_the_cells_and_hovering_runs_nothing(look):
    view = look(f"{STEM}.html")
    canvas = view.locator(".canvas").first
    shown = "c => c.calcdata[0][0].z.map(row => [...row])"
    before = canvas.evaluate(shown)
    assert before == [[30.5], [20.0], [25.0]]
    slider = view.get_by_role("slider", name="layer").first
    slider.press("ArrowRight")
    view.wait_for_function("document.querySelector('.canvas').calcdata[0][0].z[0][0] === 44.25")
    assert canvas.evaluate(shown) == [[44.25], [31.0], [26.0]]
    assert slider.get_attribute("aria-valuetext") == view.locator("output").first.inner_text()
    assert not view.locator(".slider-container, .updatemenu-container").count(), "nobody can press"
    for place in view.locator(".canvas .nsewdrag").all():
        place.hover()
        view.wait_for_timeout(150)
    assert view.evaluate("window.pwned") is None
    assert not view.problems


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index.html", f"{STEM}.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_reads_a_page_without_scrolling_sideways_in_good_contrast(look, name, scheme):
    view = look(name, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    assert view.evaluate(CONTRAST) == []


SERIES = """title: Twenty-four runs and two more
runs:
  grid: {notebook: 01_a.ipynb, grid: {n: [ALL]}}
  lone: {notebook: 02_b.ipynb}
  later: {notebook: 02_b.ipynb, parameters: {n: 9}, after: [lone]}
figures:
  All of the grid: [grid]
""".replace("ALL", ", ".join(map(str, range(24))))
KILLED = {"pid": 2**22 + 1, "host": "elsewhere"}  # no such process


def ended(run, figures, at):
    """A run of the series as if it had ended; every third one with comparisons too."""
    state = {5: "failed", 6: "running"}.get(at, "ok")
    reason = f"ValueError: {EVIL}" if state == "failed" else ""
    running = {"runner": KILLED} if state == "running" else {}
    folder = pretend(run, state, table=measured(at / 10, 0.5), reason=reason, **running)
    shutil.copyfile(run.task.notebook, folder / "executed.ipynb")
    shutil.copytree(figures, folder / "figures")
    if at % 3 == 0:
        row = {"metric": "m", "setting": "a", "baseline": "b", "difference": 0.5, "p": 0.01}
        results.save(results.comparison_table(pd.DataFrame([row])), folder, "comparisons")
    wrote(folder)
    return folder


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A series of 26: 22 ok, one failed, one whose runner was killed, one ok alone, one not run."""
    root = tmp_path_factory.mktemp("series")
    for name in ("01_a", "02_b"):
        build(root / f"{name}.ipynb", title=rf"# {name} · Is $\tau$ a question?")
    (root / "s.yaml").write_text(SERIES)
    loaded = plan.load(root / "s.yaml", root / "runs")
    plotting.use_style()
    figure = plotting.heat_map(TABLE[:4], rows="pooling", columns="layer").figure
    plotting.save(figure, TABLE[:4], root, "heat", alt=ALT, caption="By layer.")
    for at, run in enumerate(loaded.runs.values()):
        if at < 25:
            ended(run, root / "figures", at)
    lone = loaded.runs["lone"]
    moving = plotting.interactive_heat_map(
        TABLE[:4], rows="pooling", columns="attention", frame="layer"
    )
    folder = lone.parent / f"lone-{lone.id[:8]}"
    plotting.save_interactive(moving, TABLE[:4], folder, "slider", alt=ALT)
    return loaded


@pytest.fixture(scope="module")
def series_site(series, tmp_path_factory):
    return export(series, tmp_path_factory.mktemp("series-out") / "site").parent


@pytest.fixture(scope="module")
def first(series_site):
    return BeautifulSoup((series_site / "index.html").read_text("utf-8"), "html.parser")


def test_the_page_of_a_series_has_a_row_for_every_run_and_hides_none(series, first, series_site):
    rows = first.select("table.runs tbody tr")
    cells = [[cell.get_text(" ", strip=True) for cell in row.select("th, td")] for row in rows]
    ids = [f" · {run.id[:8]}" for run in list(series.runs.values())[:-1]]
    keys = [key + own for key, own in zip(series.runs, [*ids, ""], strict=True)]
    assert [cell[0] for cell in cells] == keys
    assert all(cell[1].endswith("?") for cell in cells)
    states = ["ok"] * 5 + ["failed", "interrupted"] + ["ok"] * 18 + ["not run"]
    assert [cell[2] for cell in cells] == states
    assert [cell[4] for cell in cells] == [f"n {at}" for at in range(24)] + ["", ""]
    assert cells[5][5] == f"ValueError: {EVIL}"
    assert cells[6][5] == f"the runner (pid {KILLED['pid']} on elsewhere) is gone"
    links = [row.select_one("th a") for row in rows]
    assert all((series_site / link["href"]).is_file() for link in links[:-1])
    assert len({link["href"] for link in links[:-1]}) == 25 and links[-1] is None
    assert first.h1.get_text() == "Twenty-four runs and two more"
    assert "26 runs: 23 ok, 1 not run, 1 interrupted, 1 failed." in first.get_text()


def test_every_figure_of_a_series_names_its_run_links_to_it_and_stands_in_a_group(series, first):
    groups = {s.h2.get_text(): s.select("figure") for s in first.select("section[id^=figures-]")}
    assert list(groups) == ["All of the grid", r"02_b · Is $\tau$ a question?"]
    grid, lone = groups.values()
    assert [f.select_one(".run-name").get_text() for f in grid] == [
        f"{key} · {run.id[:8]}" for key, run in series.runs.items() if run.name == "grid"
    ]
    assert all(f.img["alt"] == ALT and "By layer" in f.figcaption.get_text() for f in grid)
    assert [f.select_one(".state").get_text() for f in grid if f.select_one(".state")] == [
        "failed", "interrupted",
    ]  # fmt: skip
    assert len(lone) == 2 and lone[1].select_one(".canvas")["aria-label"] == ALT
    for figure, run in zip(grid, series.runs.values(), strict=False):
        assert run.id[:8] in figure.select_one(".run-name")["href"]


def test_the_tables_of_a_series_hold_its_finished_runs_and_link_to_them(series, first, series_site):
    tables = first.select("#tables table")
    assert [t.caption.get_text().split(",")[0] for t in tables] == [
        "Results", "Comparisons", "Results", "Comparisons",
    ]  # fmt: skip
    results_of_grid = pd.read_csv(series_site / "tables" / "01_a-results.csv")
    assert set(results_of_grid["parameter.n"]) == set(range(24)) - {5, 6}
    heads = [head.get_text() for head in tables[0].select("thead th")]
    assert heads == ["run", "parameter.n", "layer", "value"]
    cells = [[c.get_text() for c in row.select("th, td")] for row in tables[0].select("tbody tr")]
    assert cells[2][1:] == ["1", "0", "0.1000 [-0.9000, 1.100]"]
    linked = [row.th.a["href"] for row in tables[0].select("tbody tr")]
    assert len(linked) == 44 and all((series_site / file).is_file() for file in linked)


def test_every_address_of_a_series_is_a_file_of_its_site_or_a_place_on_a_page(series_site):
    pages = {file.name: file.read_text("utf-8") for file in series_site.glob("*.html")}
    soups = {name: BeautifulSoup(html, "html.parser") for name, html in pages.items()}
    ids = {name: {e["id"] for e in soup.select("[id]")} for name, soup in soups.items()}
    assert len(soups) == 1 + 25
    for name, soup in soups.items():
        for element in soup.select("[src], [href]"):
            file, _, place = (element.get("src") or element.get("href")).partition("#")
            assert not file or (series_site / file).is_file(), element
            assert not place or place in ids[file or name], element


def test_the_page_of_a_series_runs_only_the_scripts_we_ship(first):
    assert not first.select("script:not([src]):not([type='application/json'])")
    assert [s["src"] for s in first.select("script[src]")] == ["plotly.min.js", "site.js"]
    assert len({e["id"] for e in first.select("[id]")}) == len(first.select("[id]"))


def test_lab_export_takes_a_series_file_and_names_a_damaged_table(tmp_path):
    build(tmp_path / "02_b.ipynb")
    (tmp_path / "s.yaml").write_text("runs: {lone: {notebook: 02_b.ipynb}}")
    small = plan.load(tmp_path / "s.yaml", tmp_path / "runs")
    folder = pretend(small.runs["lone"], table=measured(0.1, 0.5))
    shutil.copyfile(tmp_path / "02_b.ipynb", folder / "executed.ipynb")
    done = lab("export", small.path, "--runs", small.out, "--out", tmp_path / "site")
    assert done.stdout == f"{tmp_path / 'site' / 'index.html'}\n", done.stderr
    here = export(small, tmp_path / "here").parent
    for file in ("index.html", f"02_b-{folder.name}.html", "tables/02_b-results.csv"):
        assert (here / file).read_bytes() == (tmp_path / "site" / file).read_bytes()
    (folder / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        export(small, tmp_path / "here")
    assert (here / "index.html").is_file()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_series_is_drawn_and_read_on_a_phone_with_the_network_cut(visit, series_site, scheme):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    view = visit(series_site / "index.html", **phone)
    assert view.evaluate("[...document.images].filter(i => i.naturalWidth > 0).length") == 25
    assert view.locator(".canvas:has(.main-svg)").count() == 1
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    assert view.evaluate(CONTRAST) == []
    assert view.evaluate("window.pwned") is None
    assert not view.outside and not view.problems


CONTRAST = """() => {  // texts whose colour is nearer to their background than WCAG AA allows
  const light = c => { const [r, g, b] = c.map(v => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const rgba = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgba(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('.canvas, script') || !e.getClientRects().length) continue;
    const pair = [light(rgba(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < 4.5) poor.push(e.outerHTML.slice(0, 120));
  }
  return poor;
}"""
