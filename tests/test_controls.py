"""Every control of every notebook that has some, touched in a real JupyterLab.

``LAB_PROBE`` names a program that opens a notebook in JupyterLab, runs it, moves every slider,
menu, box and button, and exits with 0 if each changed something on the page, no cell and no script
failed and nothing was asked of another machine.
"""

import ast
import json
import os
import subprocess
import sys

import pytest
from test_notebooks import NOTEBOOKS, SMALL, code

from lab import doctor
from lab.models.checkpoints import CHECKPOINTS
from lab.runner import parameters

REACT = "60"  # seconds: a new t-SNE or model takes some, and CI has two cores for all tests
# At their defaults: a slider needs two stops, UMAP compiles, random weights leave nothing to map.
LIVE = {"temperatures", "projection", "checkpoint", "lengths"}


def has_controls(name):
    """Whether a cell calls ``show`` of :mod:`lab.explore.faces`."""
    calls = (
        node for _, tree in code(name) for node in ast.walk(tree) if isinstance(node, ast.Call)
    )
    return any(ast.unparse(call.func).endswith("faces.show") for call in calls)


EXPLORERS = [
    path.stem for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) if has_controls(path.stem)
]


def test_the_search_for_controls_finds_them():
    assert len(EXPLORERS) >= 5


@pytest.mark.browser
@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_changes_something_and_nothing_fails(name, tmp_path):
    probe = os.environ.get("LAB_PROBE")
    if not probe:
        pytest.skip("no probe: set LAB_PROBE to a program that drives JupyterLab")
    if not doctor.chromium():
        pytest.skip("no Chromium on the path; install it (Debian: chromium)")
    if not CHECKPOINTS["minilm-l6"].present():
        pytest.skip("weights missing: run `make models`")
    path = NOTEBOOKS / f"{name}.ipynb"
    wanted = set(parameters.read(path).parameters) & set(SMALL) - LIVE
    small = {key: SMALL[key] for key in sorted(wanted)}
    small["out_dir"] = str(tmp_path / "out")
    given = [word for key, value in small.items() for word in ("-p", f"{key}={json.dumps(value)}")]
    command = [sys.executable, probe, "live", "--notebook", path, "--out", tmp_path,
               "--min-controls", "2", "--react-timeout", REACT, *given]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=560,
        env=os.environ | {"LAB_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
