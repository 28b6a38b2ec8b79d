"""Notebook files as plain JSON: quick to read, and never executed."""

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Cell = dict[str, Any]

MAGIC = re.compile(r"^\s*(?:[\w, ]+=\s*)?[%!?]|\?\s*$")
PYTHON_MAGICS = ("%%time", "%%timeit", "%%capture", "%%prun")
WORD = re.compile(r"[A-Za-z_]\w*")


def load(notebook: Path) -> dict[str, Any]:
    """The content of an ``.ipynb`` file of format 4.

    Raises:
        ValueError: no such file, another kind of file, or not a notebook inside.
    """
    if notebook.suffix != ".ipynb":
        raise ValueError(f"{notebook} is not an .ipynb file; convert it with jupytext --to ipynb")
    if not notebook.is_file():
        raise ValueError(f"no notebook at {notebook}; `lab list` shows what there is")
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{notebook} is not a notebook: {error}") from None
    if not isinstance(content, dict) or content.get("nbformat") != 4 or "cells" not in content:
        raise ValueError(
            f"{notebook} is not a notebook of format 4; open and save it in JupyterLab"
        )
    return content


def source(cell: Cell) -> str:
    """The text of a cell, which the format stores as one string or as lines."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def tags(cell: Cell) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def code_cells(content: dict[str, Any]) -> list[str]:
    """The texts of the code cells, in order."""
    return [source(cell) for cell in content["cells"] if cell.get("cell_type") == "code"]


def title(content: dict[str, Any]) -> str:
    """The first Markdown heading, or an empty text."""
    for cell in content["cells"]:
        heading = re.search(r"^#+ +(.+)$", source(cell), re.MULTILINE)
        if cell.get("cell_type") == "markdown" and heading:
            return heading[1].strip()
    return ""


def card(content: dict[str, Any]) -> dict[str, str]:
    """The lines ``Claim: ...``, ``Needs: ...``, ``Time: ...`` of the first Markdown cell."""
    first = next((source(c) for c in content["cells"] if c.get("cell_type") == "markdown"), "")
    lines = re.finditer(
        r"^\W*(claim|needs|time)\b[^:]*:\W*(.+)$", first, re.MULTILINE | re.IGNORECASE
    )
    return {line[1].lower(): line[2].replace("*", "").strip() for line in lines}


def check_all_read(names: Iterable[str], cells: Sequence[Cell], notebook: str, first: int) -> None:
    """Nothing, if every name is read by ``cells`` (the first is number ``first``) before it is set.

    Raises:
        ValueError: a name that is never read, one that is assigned again before anything reads it,
            or a cell that is not Python.
    """
    waiting = dict.fromkeys(names)
    for number, cell in enumerate(cells, first):
        if cell.get("cell_type") != "code":
            continue
        for loads, stores in _uses(source(cell), f"{notebook} cell {number}"):
            for name in loads & waiting.keys():
                del waiting[name]
            if lost := stores & waiting.keys():
                raise ValueError(
                    f"parameter {min(lost)!r} is assigned again in {notebook} cell {number} before "
                    "anything reads it, so overriding it would change nothing"
                )
    if waiting:
        raise ValueError(
            f"parameter {', '.join(map(repr, waiting))} of {notebook} is never read after its "
            "cell; use it or delete it"
        )


def _uses(text: str, where: str) -> Iterator[tuple[set[str], set[str]]]:
    """Names read and names plainly assigned, one pair for each top-level statement."""
    tree = _parsed(text)
    if tree is None:
        text, words = _without_magics(text)
        yield words, set()
        tree = _parsed(text)
    if tree is None:
        raise ValueError(f"{where} is not Python, so it could only fail when it is run")
    for statement in tree.body:
        names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        loads = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            loads.add(statement.target.id)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        yield loads, {target.id for target in targets if isinstance(target, ast.Name)}


def _parsed(text: str) -> ast.Module | None:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is the notebook's own warning
        try:
            return compile(text, "<cell>", "exec", flags)
        except (SyntaxError, ValueError):
            return None


def _without_magics(text: str) -> tuple[str, set[str]]:
    """The text with IPython's own lines blanked, and the words on those lines: ``!echo {n}``."""
    if text.lstrip().startswith("%%") and not text.lstrip().startswith(PYTHON_MAGICS):
        return "", set(WORD.findall(text))
    lines, words = [], set()
    for line in text.splitlines():
        if MAGIC.search(line):
            words.update(WORD.findall(line))
            line = " " * (len(line) - len(line.lstrip())) + "pass"
        lines.append(line)
    return "\n".join(lines), words
