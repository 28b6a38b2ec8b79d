"""Pages that are made of what the repository holds: notebooks, figures, registries.

They are written below ``docs/_generated`` (not committed) each time before Sphinx reads.
"""

import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx

import lab
from lab import manifest, paths, reading
from lab.export import page
from lab.registry import Registry

RUNS = "LAB_DOCS_RUNS"
NOT_RUN = """:::{note}
Shown without outputs: no finished run was there when this page was built. `make docs` runs what
lacks one.
:::"""
RUN = """:::{note}
Outputs of the finished run `%s`, %s.
:::"""


def write(app: Sphinx, config: Any) -> None:
    """Nothing; all generated pages are there, and none of an earlier build."""
    folder = Path(app.srcdir) / "_generated"
    shutil.rmtree(folder, ignore_errors=True)
    for name, pages in (("notebooks", notebooks()), ("gallery", gallery()), ("has", registries())):
        (folder / name).mkdir(parents=True)
        for file, text in pages:
            (folder / name / file).write_text(text, encoding="utf-8")


# --- notebooks ---------------------------------------------------------------------------------


def notebooks() -> Iterator[tuple[str, str]]:
    """Every numbered notebook: as its newest finished run left it, else its source.

    Runs of few texts (``make quick``) only stand in where there is no other.
    """
    folder = Path(os.environ.get(RUNS) or paths.RUNS)
    executed = finished(folder / "quick") | finished(folder)
    for source in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb")):
        run = executed.get(source.stem)
        book = nbformat.read(run / "executed.ipynb" if run else source, as_version=4)
        yield source.name, nbformat.writes(shown(book, how_it_was_run(run) if run else NOT_RUN))


def finished(folder: Path) -> dict[str, Path]:
    """The newest finished run of each notebook below ``folder``; none is fine.

    A manifest that can't be read hides itself alone, and is named.
    """
    newest = {}
    for notebook in sorted({file.parent.parent for file in folder.glob(f"*/*/{manifest.NAME}")}):
        states = {}
        for file in sorted(notebook.glob(f"*/{manifest.NAME}")):
            try:
                states[file.parent] = manifest.read(file.parent)["outcome"]
            except ValueError as error:  # of an older lab, say: no reason not to build the site
                sys.stdout.write(f"left out: {error}\n")
        ended = [(s["finished"], run) for run, s in states.items() if s["state"] == "ok"]
        newest |= {notebook.name: max(ended)[1]} if ended else {}
    return newest


def how_it_was_run(run: Path) -> str:
    """A note on the run: its name, and the parameters that are not the notebook's defaults."""
    given = manifest.read(run)["identity"]["parameters"]
    other = [f"`{name} = {one['value']!r}`" for name, one in given.items() if not one["default"]]
    return RUN % (run.name, f"with {', '.join(other)}" if other else "at the notebook's defaults")


def shown(book: nbformat.NotebookNode, note: str) -> nbformat.NotebookNode:
    """The notebook for the site: outputs made harmless, solutions folded, a note on its outputs."""
    page.prepare(book)
    for cell in book.cells:
        cell.metadata = {"tags": list(cell.metadata.get("tags", []))}
        if "solution" in cell.metadata["tags"]:
            cell.metadata["tags"].append("hide-input")
        if cell.cell_type == "code":
            cell.outputs = [plain(output) for output in cell.outputs]
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    book.metadata["language_info"] = {"name": "python"}
    noted = nbformat.v4.new_markdown_cell(note)
    noted["id"] = "how-it-was-run"
    book.cells.insert(1, noted)
    return book


def plain(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output as harmless HTML or as text, with the widgets and the scripts left out."""
    data = output.get("data")
    if data is None:
        return output
    mime = next((mime for mime in page.SHOWN if mime in data), "text/plain")
    drawn = {page.PLOTLY: page.figure, "text/html": lambda o: page.tame(o.data["text/html"])}
    if mime in drawn:
        output.data = {"text/html": drawn[mime](output)}
    elif mime.startswith("image/"):
        output.data = {"text/html": page.picture(output, mime)}
    else:
        output.data = {"text/plain": data.get("text/plain", "")}
    return output


# --- figures -----------------------------------------------------------------------------------


def gallery() -> Iterator[tuple[str, str]]:
    """A page for each folder of ``figures/``: every figure with its caption and its numbers."""
    for folder in sorted(path for path in paths.FIGURES.iterdir() if path.is_dir()):
        parts = [f"# {title(folder)}", f"Drawn by {{notebook}}`{folder.name[:2]}`."]
        for about in sorted(folder.glob("*.json")):
            if not about.name.endswith(".plotly.json"):
                parts.append(figure(folder.name, json.loads(about.read_text(encoding="utf-8"))))
        yield f"{folder.name}.md", "\n\n".join(parts) + "\n"


def title(folder: Path) -> str:
    """The question of the notebook that drew these figures."""
    notebook = paths.NOTEBOOKS / f"{folder.name}.ipynb"
    return reading.title(reading.load(notebook)) if notebook.is_file() else folder.name


def figure(folder: str, about: dict[str, Any]) -> str:
    """The Markdown of one figure: the picture, then links to its files."""
    names = {".csv": "its numbers (CSV)", ".svg": "the picture (SVG)", ".plotly.json": "plotly"}
    name, up = about["name"], "../../../figures"
    files = [suffix for suffix in names if f"{name}{suffix}" in about["sha256"]]
    links = [f"{{download}}`{names[s]} <{up}/{folder}/{name}{s}>`" for s in files]
    return f"## {name.replace('_', ' ')}\n\n```{{lab-figure}} {folder}/{name}\n```\n\n" + (
        f"Files: {', '.join(links)}"
    )


# --- registries --------------------------------------------------------------------------------


def registries() -> Iterator[tuple[str, str]]:
    """One page: every registry of the package, what is in it, and the first sentence of each."""
    parts = ["# What there is, by name", "Everything that is asked for by a name, as registered."]
    for where, registry in sorted(found().items()):
        rows = [f"`{name}`\n: {first_sentence(item)}" for name, item in registry.items()]
        parts += [f"## {where.removeprefix('lab.')}", f"Every {registry.kind}.", *rows]
    yield "index.md", "\n\n".join(parts) + "\n"


def found() -> dict[str, Registry[Any]]:
    """Every filled registry by the dotted name under which it was first defined."""
    seen: dict[int, tuple[str, Registry[Any]]] = {}
    for module in pkgutil.walk_packages(lab.__path__, "lab."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Registry) and len(value):
                where = f"{module.name}.{name}"
                defined = f"{name}:" in inspect.getsource(importlib.import_module(module.name))
                if id(value) not in seen or defined:
                    seen[id(value)] = (where, value)
    return dict(seen.values())


def first_sentence(item: Any) -> str:
    """The first line of its docstring as Markdown that cannot be anything else, or its repr."""
    text = inspect.getdoc(item) if callable(item) else ""
    line = re.sub(r":\w+:(`[^`]+`)", r"\1", (text or "").partition("\n")[0].replace("``", "`"))
    return line.replace("*", "\\*").replace("<", "&lt;") or f"`{str(item)[:90]}`"
