"""A folder of offline pages from runs or a series: a first page, a page per notebook, figures.

The folder works from disk, asks no host, and is replaced in one step: what was there before stays
until the new one is complete.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jinja2

from lab.export import folder, overview, page
from lab.series.plan import Series

MARKER = "site.json"  # what tells a folder that we made, and may replace, from any other
MADE_BY = {"made_by": "embedding-lab export", "format": 1}
STATIC = ("site.css", "site.js")


def export(what: Sequence[Path] | Series, out: Path) -> Path:
    """The index.html of a site of run folders or of a series, once the whole site is in place.

    Raises:
        ValueError: no run, a folder that is no run, two runs of one name, a damaged figure or
            table, or an ``out`` that holds something we did not make.
        OSError: a file cannot be written; the site that was there is still there.
    """
    if not isinstance(what, Series) and not what:
        raise ValueError("nothing to export: give at least one run folder")
    with folder.new(Path(out), "exists and is not a site of ours", _ours) as site:
        if isinstance(what, Series):
            _write(overview.of_series(what, site), site)
        else:
            _write(overview.of_runs([Path(run) for run in what], site), site)
    return Path(out) / "index.html"


def _ours(out: Path) -> bool:
    marker = out / MARKER
    return marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == MADE_BY


def _write(shown: overview.Overview, site: Path) -> None:
    """The first page and what all pages share."""
    for file in STATIC:
        shutil.copyfile(page.TEMPLATES / file, site / file)
    draws = any(figure.drawing for run in shown.runs for figure in run.figures)
    if draws or any(run.draws for run in shown.runs):
        import plotly

        shutil.copyfile(
            Path(plotly.__file__).parent / "package_data" / "plotly.min.js", site / "plotly.min.js"
        )
    loader = jinja2.FileSystemLoader(page.TEMPLATES)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    nonce = page.nonce(repr(shown).encode())
    html = templates.get_template("index.html.j2").render(
        page=shown, draws=draws, nonce=nonce, policy=page.policy(nonce)
    )
    (site / "index.html").write_text(html, encoding="utf-8")
    (site / MARKER).write_text(json.dumps(MADE_BY) + "\n", encoding="utf-8")
