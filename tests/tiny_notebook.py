"""Notebooks of a few cells, built for one test, and the command line that runs them."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

LAB = [sys.executable, "-m", "lab.cli"]
PARAMETERS = "n: int = 3  # how many\nout_dir: str = 'runs'  # where results go"
READS = "seen = (n, out_dir)"


def build(path, *cells, parameters=PARAMETERS, reads=READS, profiles=None, title="# A question"):
    """Writes a notebook: title, parameters cell, a cell that reads them, then ``cells``."""
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    codes = [new_code_cell(text) for text in ([reads] if reads else []) + list(cells)]
    notebook = new_notebook(cells=[new_markdown_cell(title), tagged, *codes])
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    if profiles is not None:
        notebook.metadata["lab"] = {"profiles": profiles}
    path = Path(path)
    nbformat.write(notebook, path)
    return path


def lab(*arguments, timeout=120, **options):
    """The finished process of one `lab` command."""
    command = [*LAB, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


def folder_of(done):
    """The run folder that `lab run` printed on its last line but one."""
    return Path(done.stdout.splitlines()[-2])


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def executed(folder):
    return json.loads((folder / "executed.ipynb").read_text())


def printed(folder):
    """All text that the executed notebook's cells printed."""
    outputs = [o for cell in executed(folder)["cells"] for o in cell.get("outputs", [])]
    return "".join("".join(o.get("text", "")) for o in outputs)
