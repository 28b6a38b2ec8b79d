"""The documentation site, built once: whole, offline, readable, and deaf to text from data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import pytest
from bs4 import BeautifulSoup, SoupStrainer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pages import DESK, PHONE, ZOOM, faults
from tiny_series import whole

from lab import manifest, paths

EVIL = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"
ALT = "Three points on a line that rises from one to three"
PLOTLY = "application/vnd.plotly.v1+json"
DRAWING = {"data": [{"type": "scatter", "x": [1, 2, 3], "y": [1, 2, 3], "text": [EVIL] * 3}]}


def executed():
    """A notebook as a run leaves it, with all kinds of output and hostile text in each."""
    shown = [
        new_output("display_data", {PLOTLY: DRAWING}, metadata={PLOTLY: {"alt": ALT}}),
        new_output("display_data", {"text/html": f"<b onclick='pwned=1'>kept</b>{EVIL}"}),
        new_output("display_data", {"text/markdown": EVIL, "text/plain": EVIL}),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}}),
        new_output("stream", name="stdout", text=EVIL),
    ]
    return new_notebook(cells=[
        new_markdown_cell("# 00 · What does one change do?\n\nA formula: $\\alpha^2$."),
        new_code_cell("show()", outputs=shown),
        new_code_cell("answer = 1", metadata={"tags": ["solution"]}),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def site(shared):
    """The site, built once for all workers: a build writes into docs/_generated."""
    with shared("docs") as folder:
        return folder / "site" if (folder / "site").exists() else build(folder)


def left_by_runs(folder, notebook, name, parameters, month=1, **about):
    run = folder / notebook / name
    run.mkdir(parents=True)
    end = {"finished": f"2026-{month:02}-01T00:00:00+00:00"}
    manifest.write(run, whole({"parameters": parameters}, **end) | about)
    nbformat.write(executed(), run / "executed.ipynb")


def build(folder):
    given = {"n": {"value": 40, "default": False}, "seed": {"value": 0, "default": True}}
    left_by_runs(folder / "runs", "00_start_here", "cpu-12345678", given)
    for place, month in {"runs": 1, "runs/quick": 2}.items():
        left_by_runs(folder / place, "08_bench", f"from-month-{month}", {}, month)
    left_by_runs(folder / "runs", "09_attention_view", "of-an-older-lab", {}, format=0)
    built, doctrees = folder / "site", folder / "doctrees"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going",
         "-d", doctrees, paths.ROOT / "docs", built],
        env={**os.environ, "LAB_DOCS_RUNS": str(folder / "runs")},
        capture_output=True, text=True, timeout=560,
    )  # fmt: skip
    if done.returncode or done.stderr:
        shutil.rmtree(folder)
    assert (done.returncode, done.stderr) == (0, "")
    (built / "said.txt").write_text(done.stdout)
    return built


ASKING = SoupStrainer(["a", "iframe", "img", "link", "meta", "script", "source"])


def pages(site):
    for path in sorted(site.rglob("*.html")):
        if "_static" not in path.parts:
            text = path.read_text(encoding="utf-8")
            yield path, BeautifulSoup(text, "html.parser", parse_only=ASKING)


def test_every_module_figure_notebook_and_document_has_its_place(site):
    modules = [p for p in (paths.ROOT / "lab").rglob("*.py") if p.name != "__init__.py"]
    names = {".".join(p.relative_to(paths.ROOT).with_suffix("").parts) for p in modules}
    assert names - {p.stem for p in (site / "_generated/reference").glob("*.html")} == set()
    wanted = {p.stem for p in paths.NOTEBOOKS.glob("[0-9]*.ipynb")}
    assert wanted == {p.stem for p in (site / "_generated/notebooks").glob("*.html")}
    gallery = "".join(p.read_text() for p in (site / "_generated/gallery").glob("*.html"))
    soup = BeautifulSoup(gallery, "html.parser")
    alts = {image.get("alt") for image in soup.select("figure img")}
    alts |= {place["aria-label"] for place in soup.select(".canvas")}
    saved = [p for p in paths.FIGURES.glob("*/*.json") if not p.name.endswith(".plotly.json")]
    assert len(saved) > 40, "the search finds what it looks for"
    assert {json.loads(p.read_text(encoding="utf-8"))["alt"] for p in saved} - alts == set()
    for path in (paths.ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").is_file()


def test_a_notebook_is_shown_as_its_best_run_left_it_and_says_which(site):
    pages = site / "_generated/notebooks"
    notes = {name: " ".join(BeautifulSoup((pages / f"{name}.html").read_text(), "html.parser")
                            .select_one("article .note").get_text().split())
             for name in ("00_start_here", "08_bench", "09_attention_view")}  # fmt: skip
    assert "run cpu-12345678, with n = 40." in notes["00_start_here"]
    assert "run from-month-1, at the notebook’s defaults." in notes["08_bench"], "not the quick one"
    assert "Shown without outputs" in notes["09_attention_view"]
    said = (site / "said.txt").read_text()
    assert said.startswith("left out: ") and "of-an-older-lab" in said and said.count("\n") == 1


def test_no_page_names_a_host_to_load_from_and_every_link_inside_leads_somewhere(site):
    for path, page in pages(site):
        loaded = [t.get("src") for t in page.find_all(src=True)]
        loaded += [t["href"] for t in page.find_all("link") if "stylesheet" in t.get("rel", [])]
        assert [one for one in loaded if one.startswith(("http", "//"))] == [], path
        assert page.find("meta", {"http-equiv": "Content-Security-Policy"}), path
        assert all(image.get("alt", "").strip() for image in page.find_all("img")), path
        for link in page.select("a[href]"):
            target = urlparse(link["href"])
            if not target.scheme and target.path:
                assert (path.parent / unquote(target.path)).exists(), (path, link["href"])


def test_annotations_of_arrays_read_as_they_were_written(site):
    page = BeautifulSoup(
        (site / "_generated/reference/lab.pooling.html").read_text(), "html.parser"
    )
    signature = page.find("dt", id="lab.pooling.cubic_power_mean").get_text()
    assert "hidden: Float[Tensor, '*layer batch seq dim']" in signature
    assert "Float[Tensor, '*layer batch dim']" in signature


def test_outputs_of_a_run_are_shown_and_solutions_folded(site):
    page = (site / "_generated/notebooks/00_start_here.html").read_text()
    shown = BeautifulSoup(page, "html.parser")
    assert shown.find("math") and shown.find(class_="canvas")["aria-label"] == ALT
    assert "Here JupyterLab shows a control." in shown.get_text()
    assert "answer = 1" in shown.find("details").get_text(), "solutions are folded"
    assert not shown.find(onclick=True) and not shown.find("img", onerror=True)


KINDS = [
    ("index.html", "light"), ("howto/pooling.html", "dark"), ("teach/reading.html", "light"),
    ("_generated/gallery/06_long_context.html", "dark"),
    ("_generated/notebooks/00_start_here.html", "light"),
    ("_generated/reference/lab.models.loading.html", "light"),
]  # fmt: skip


# A while after a resize the theme makes what now scrolls, and only that, reachable by keyboard.
REACHED = """width => innerWidth === width && [...document.querySelectorAll('pre, '
    + '.nboutput > .output_area, .cell_output > .output, .jp-RenderedHTMLCommon, '
    + '.pst-scrollable-table-container')].every(e => e.tabIndex ===
        (e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight ? 0 : -1))"""


@pytest.mark.browser
@pytest.mark.parametrize(("name", "scheme"), KINDS)
def test_a_page_asks_nobody_draws_all_fits_every_screen_and_can_be_read_by_everyone(
    visit, site, name, scheme
):
    view = visit(Path(site / name), color_scheme=scheme)
    assert view.evaluate("document.documentElement.dataset.theme") == scheme
    for screen in (DESK, ZOOM, PHONE):
        view.set_viewport_size(screen["viewport"])
        view.wait_for_function(REACHED, arg=screen["viewport"]["width"])
        assert faults(view) == [], screen
    assert view.evaluate("window.pwned") is None
