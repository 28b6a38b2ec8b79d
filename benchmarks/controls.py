"""How soon explorers are there, and how soon a control answers, in a real JupyterLab.

    python benchmarks/controls.py [--quick] [--out FILE]

Every explorer's notebook is opened at its defaults by a JupyterLab that has just been started, in
the system's Chromium. Two times: from the start of the server to the first control on the page; and
from the key that moves a slider to the redrawn figure (plotly's own event; of notebook 12, which
redraws tables, to the changed page), 20 moves. ``--quick``: the bench alone. Exit code 1: a bound
is missed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from side_by_side import Ratio, main, ratio

from lab import doctor
from lab.paths import NOTEBOOKS, ROOT

sys.path.insert(0, str(ROOT / "tests"))

import jupyter
import pages

THERE, ANSWER, MOVES = 60.0, 0.5, 20  # bounds in seconds; how many moves
SLIDERS = {
    "08_bench": "layer", "09_attention_view": "head", "10_embedding_map": "from A to B",
    "11_length_cloud": "length", "12_your_data": "neighbours",
}  # fmt: skip
TABLES = {"12_your_data"}  # what redraws no figure
AT_REST = """() => [...document.querySelectorAll('[role=status]')]
    .every(one => !one.textContent.endsWith('…'))"""
# When the key went down, and when the last figure was redrawn after it, or the last table.
WATCH = """tables => {
    window.asked = window.answered = 0;
    document.addEventListener('keydown', () => { window.asked = performance.now(); }, true);
    const answer = () => { window.answered = performance.now(); };
    if (tables) new MutationObserver(answer).observe(
        document.querySelector('.jp-Notebook'), {subtree: true, childList: true});
    else document.querySelectorAll('.js-plotly-plot').forEach(
        plot => plot.on('plotly_afterplot', answer));
}"""


def opened(browser: Any, base: str, notebook: str) -> Any:
    """The page of a notebook, whose cells are being run."""
    page = browser.new_page(viewport={"width": 1280, "height": 2000})
    page.set_default_timeout(90_000)
    page.goto(f"{base}/lab/tree/{notebook}.ipynb?token={jupyter.TOKEN}&reset",
              wait_until="domcontentloaded")  # fmt: skip
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    page.wait_for_function(jupyter.IDLE)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_selector(".widget-slider .noUi-handle")
    return page


def moves(page: Any, name: str) -> list[float]:
    """Seconds from a key on the slider to what it redraws, for each move: there and back again."""
    settled(page)
    page.evaluate(WATCH, name in TABLES)
    slider = page.locator(".widget-slider").filter(
        has=page.get_by_text(SLIDERS[name], exact=True)
    )  # fmt: skip
    handle, taken = slider.locator(".noUi-handle").first, []
    lowest = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemin")
    keys = ("ArrowRight", "ArrowLeft") if lowest else ("ArrowLeft", "ArrowRight")
    for move in range(MOVES):
        handle.focus()
        handle.press(keys[move % 2])
        page.wait_for_function("() => window.answered > window.asked")
        settled(page)
        taken.append(page.evaluate("(window.answered - window.asked) / 1000"))
        page.evaluate("window.answered = 0")
    return taken


def settled(page: Any) -> None:
    """Nothing, once the kernel has been idle for a moment and no status says what goes on."""
    for _ in range(2):
        page.wait_for_timeout(250)
        page.wait_for_function(jupyter.IDLE)
        page.wait_for_function(AT_REST)


def measure(options: argparse.Namespace) -> Iterator[Ratio]:
    """Both times of every explorer, as they come; each over its bound."""
    from playwright.sync_api import sync_playwright

    chosen = dict(list(SLIDERS.items())[: 1 if options.quick else None])
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=doctor.chromium(), args=pages.CHROMIUM)
        for name, label in chosen.items():
            with tempfile.TemporaryDirectory() as root:
                jupyter.with_parameters(
                    NOTEBOOKS / f"{name}.ipynb", Path(root, f"{name}.ipynb"), {}
                )  # fmt: skip
                begun = time.perf_counter()
                with jupyter.jupyterlab(Path(root)) as base:
                    page = opened(browser, base, name)
                    seconds = time.perf_counter() - begun
                    yield ratio("server start to first control / 60 s", name, "wall s",
                                [(seconds, THERE)], 1.0)  # fmt: skip
                    taken = [(one, ANSWER) for one in moves(page, name)]
                    yield ratio(f"{label}: key to redrawn / 0.5 s", name, "wall s", taken, 1.0)
                    page.close()
        browser.close()


if __name__ == "__main__":
    sys.exit(main(__doc__, measure, lambda: 0.0, {"quick": "the bench alone"}))
