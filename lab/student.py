"""The student edition of notebooks: solutions taken out, stubs, hints and self-checks kept."""

import copy
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lab import atomic, paths, reading

SOLUTION = "solution"
GOES_ON = "raises-exception"  # the tag by which "Run All" does not stop at a cell that fails
NOTE = (
    "*Student edition.* Fill in the cells that begin with `# Exercise` and run the folded cell"
    " below each: it says nothing when the answer is right, and gives a hint when it is not."
    " Exercises without such a cell have no check: try them, and say what you found."
)


def edition(content: dict[str, Any]) -> dict[str, Any]:
    """A notebook as students get it: without its solutions, with a note on how to work.

    The check below an exercise stays as it is, folded since it may show the way, and may fail
    without ending "Run All".

    Raises:
        ValueError: a notebook without a solution, which is nothing to hand out.
    """
    cells = content["cells"]
    if not any(SOLUTION in reading.tags(cell) for cell in cells):
        raise ValueError(f"{reading.title(content)!r} has no cell tagged {SOLUTION!r}")
    kept = []
    for cell, above in zip(cells, [{}, *cells], strict=False):
        if SOLUTION in reading.tags(cell):
            continue
        kept.append(copy.deepcopy(cell))
        if SOLUTION in reading.tags(above):
            kept[-1]["metadata"]["tags"] = [*reading.tags(cell), GOES_ON]
            kept[-1]["metadata"]["jupyter"] = {"source_hidden": True}
    note = {"cell_type": "markdown", "id": "student-edition", "metadata": {}, "source": NOTE}
    return content | {"cells": [kept[0], note, *kept[1:]]}


def student(
    out: Annotated[Path, typer.Option(help="The folder of the notebooks.")] = Path("student"),
) -> None:
    """The notebooks without their solutions; a file that a student has changed is not replaced."""
    if out.resolve() == paths.NOTEBOOKS.resolve() or (out.exists() and not out.is_dir()):
        raise ValueError(f"--out is a folder for the student edition alone; {out} is not")
    out.mkdir(parents=True, exist_ok=True)
    fresh = {
        path.name: json.dumps(edition(reading.load(path)), indent=1, ensure_ascii=False) + "\n"
        for path in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
    }
    for name, content in fresh.items():
        target = out / name
        if target.exists() and target.read_bytes() != content.encode():
            sys.stderr.write(f"kept: {target} has been changed; delete it to get it anew\n")
            continue
        atomic.write(target, content)
        sys.stdout.write(f"{target}\n")
