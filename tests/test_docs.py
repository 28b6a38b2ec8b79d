"""The documentation: its snippets run, its commands exist, what it names is there."""

import importlib
import os
import re
import subprocess
import sys

import click
import pandas as pd
import pytest
import typer

from lab import paths, reading
from lab.cli import app, find

DOCS = paths.ROOT / "docs"
WRITTEN = sorted([*DOCS.glob("*.md"), *DOCS.glob("howto/*.md"), *DOCS.glob("teach/*.md")])
TAUGHT = [page for page in WRITTEN if page.parent != DOCS or page.name == "start.md"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")
CODE = re.compile(r"`([^`\n]+)`")


def text(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    return [code for kind, code in FENCE.findall(text(page)) if kind == language]


RUN_ALL = """
import json, os, pathlib, sys, tempfile, traceback, warnings
warnings.simplefilter("error")
for name, code in json.load(sys.stdin):
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ.pop("LAB_DATA", None)
        try:
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
        except BaseException:
            print(name, traceback.format_exc())
        os.chdir("/")
"""


def test_every_snippet_runs(tmp_path):
    import json

    pages = [(str(page), "\n".join(blocks(page, "python"))) for page in TAUGHT]
    wanted = [page for page in pages if page[1]]
    assert len(wanted) >= 8, "the search finds what it looks for"
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], input=json.dumps(wanted), text=True, capture_output=True,
        env={**os.environ, "LAB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}, timeout=560,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def test_the_module_on_the_explorer_page_passes_the_linter():
    code = blocks(DOCS / "howto/explorer.md", "python")[0]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", "lab/explore/norms.py", "-"],
        input=code, text=True, capture_output=True, timeout=300, cwd=paths.ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def commands(page):
    """Every `lab ...` line of the page, in fences and in running text."""
    lines = [line for code in blocks(page, "console") for line in code.splitlines()]
    inline = CODE.findall(FENCE.sub("", text(page)))
    return [line for line in lines + inline if line.startswith("lab ")]


def check(line):
    """Nothing, if the command, its options and, of `run`, its notebook and parameters exist."""
    words = line.partition("#")[0].split()[1:]
    command = typer.main.get_command(app)
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            assert not words or words[0].startswith("-") or command.name == "data", line
            return
        command = command.commands[words.pop(0)]
    if command.name in ("run", "params") and words:
        assert find(words[0]).is_file(), line
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if re.fullmatch(r"--?[a-z-]+", word):
            assert word in known | {"--help"}, f"{line}: no option {word}"


@pytest.mark.parametrize("page", TAUGHT, ids=lambda page: page.stem)
def test_every_command_of_a_page_exists(page):
    for line in commands(page):
        check(line)


def test_a_command_that_does_not_exist_is_found():
    for line in ("lab runn 00", "lab run 00 --profil gpu", "lab run template"):
        with pytest.raises((AssertionError, ValueError, LookupError)):
            check(line)


def there(name):
    """Whether a dotted name of lab can be reached, attributes included."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", TAUGHT, ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page):
    names = [word for word in CODE.findall(text(page)) if re.fullmatch(r"lab(\.\w+)+", word)]
    assert [name for name in names if not there(name)] == []
    files = [
        word for word in CODE.findall(text(page))
        if re.fullmatch(r"(lab|tests|data|series|notebooks|docs)/[\w/.*]+", word)
    ]  # fmt: skip
    files = [file for file in files if "NN_" not in file]
    assert [file for file in files if not any(paths.ROOT.glob(file.rstrip("/")))] == []


def test_every_feature_has_its_answer_and_a_proof_that_is_there():
    lines = [line for line in text(DOCS / "features.md").splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) > 20, "the search finds what it looks for"
    assert [row for row in rows if row[1].split(":")[0] not in ("yes", "partly", "no")] == []
    proofs = {row[0]: CODE.findall(row[2]) for row in rows}
    assert len(proofs) == len(rows) and all(proofs.values())
    files = {file for found in proofs.values() for file in found}
    assert [file for file in files if not (paths.ROOT / file).is_file()] == []


def test_every_work_that_the_lab_cites_is_in_the_reading_list():
    sources = [*(paths.ROOT / "lab").rglob("*.py"), *(paths.ROOT / "data/studies").glob("*.yaml")]
    cited = {one for path in sources for one in ARXIV.findall(text(path)) if "arXiv" in text(path)}
    for path in paths.NOTEBOOKS.glob("*.ipynb"):
        cells = reading.load(path)["cells"]
        cited |= {one for cell in cells for one in ARXIV.findall(reading.source(cell))}
    assert len(cited) > 40, "the search finds what it looks for"
    assert cited - set(ARXIV.findall(text(DOCS / "teach/reading.md"))) == set()


def test_the_instructor_page_has_goal_minutes_and_needs_of_every_notebook():
    rows = re.findall(
        r"^\| \{notebook\}`(\d\d)` \| \S.+ \| (\d+) \| \S.+ \|$",
        text(DOCS / "teach/instructor.md"), re.MULTILINE,
    )  # fmt: skip
    numbers = sorted(path.name[:2] for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
    assert [number for number, _ in rows] == numbers


def quoted():
    """What the lesson says of its figures, written from their tables."""
    sinks = pd.read_csv(paths.FIGURES / "00_start_here/sink_by_layer.csv")
    ends = sinks["layer"].agg(["min", "max"])
    rows = sinks[sinks["layer"].isin([*ends, 15])].set_index("layer").sort_values("sink")
    without, sunk = (part for _, part in sorted(rows.groupby(rows["sink"] != "none")))

    def told(row):
        return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"

    cuts = pd.read_csv(paths.FIGURES / "04_length_collapse/cosine_by_length.csv")
    of = {name: [f"{value:.2f}" for value in part["value"]]
          for name, part in cuts.groupby("model_and_texts")}  # fmt: skip
    short, *_, before, longest = of["encoder, same texts, cut"]
    least, *more = of["encoder, natural length"]
    fall = of["decoder, same texts, cut"]
    at = {(name, layer): f"{part['value'][layer]:.2f}" for layer in ends
          for name, part in (("none", without), ("sink", sunk))}  # fmt: skip
    assert at["none", ends["min"]] == at["sink", ends["min"]]
    return [
        f"without a sink {told(without.loc[15])}, with it {told(sunk.loc[15])}",
        f"at layer 0 both {at['none', 0]}, at the last layer {at['none', ends['max']]} and "
        f"{at['sink', ends['max']]}",
        f'"{sunk.loc[15, "value"]:.2f} against {without.loc[15, "value"]:.2f}',
        f"{' and '.join(more)} against {least}",
        f"is {short} at 32 tokens, {before} at 256 and {longest} at 512",
        f"falls from {fall[0]} to {fall[-1]}",
    ]


def test_the_lesson_quotes_the_tables_of_its_figures():
    lesson = " ".join(text(DOCS / "teach/lesson.md").split())
    assert [sentence for sentence in quoted() if sentence not in lesson] == []
    numbers = re.findall(r"-?\d+\.\d+", lesson)
    assert sorted(numbers) == sorted(re.findall(r"-?\d+\.\d+", " ".join(quoted())))
