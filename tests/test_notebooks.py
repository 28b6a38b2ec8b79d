"""Every notebook: its form, read without running it, and one run with models of no weights."""

import ast
import builtins
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from pages import DESK, PHONE, ZOOM, faults
from wrong_answers import WRONG

from lab import export, reading, results, runner, student
from lab.models.checkpoints import CHECKPOINTS, byte_tokenizer, random_model, tiny_config
from lab.paths import NOTEBOOKS, ROOT
from lab.plotting.record import FIGURES
from lab.runner import parameters

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
BOOKS = {path.stem: nbformat.read(path, nbformat.NO_CONVERT) for path in PATHS}
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# A decimal that is neither part of an arXiv id nor the level of a test.
RESULT = re.compile(r"(?<![\d:.])(?!0\.05\b)\d+\.\d+")
SAVES = {"save", "save_interactive"}
DRAWS = set(FIGURES)
LIBRARIES = {"plotting", "plt", "ax", "axes", "sns", "px", "go", "fig"}
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# By parameter name, shared by all notebooks. Models of five layers, which "last_four" needs.
SMALL = {
    "checkpoint": "random:llama", "decoder": "llama", "encoder": "bert", "resamples": 50,
    "n": 12, "n_dev": 12, "n_test": 12, "n_tasks": 8, "n_labels": 24,
    "control": "random:bert", "middle": 2, "n_texts": 60, "n_cloud": 200, "largest": 400,
    "n_pairs": 20, "n_queries": 20, "components": 4, "max_length": 24,
    "n_decoder": 12, "n_natural": 120, "n_natural_decoder": 120, "bins": 2,
    "n_cut": 24, "n_cut_decoder": 24, "n_inside": 4,
    "cut_lengths": [80, 120, 160], "decoder_lengths": [80, 120], "lengths": [256, 512],
    "n_documents": 6, "window": 300, "most": 400, "decoder_window": 32,
    "temperatures": [0.8], "decoder_temperatures": [0.8], "reference_length": 16, "text_length": 48,
    "steps": 2, "others": ["random:bert"], "max_rows": 60, "n_points": 60, "projection": "pca",
    "training_pairs": 240, "training_steps": 2, "training_seeds": [0, 1], "share": 0.2,
    "budget": 60000, "designs": [
        "causal / last + head (model 2, code)", "causal / last / cross_attention",
        "bidirectional / mean / cross_attention", "bidirectional / token_weights / last",
        "causal / mean + head", "bidirectional / mean + head",
    ],
}  # fmt: skip
FOLDERS = ("decoder", "encoder")

each = pytest.mark.parametrize("name", BOOKS)


def code(name):
    """(cell, its tree) for every code cell, IPython's own syntax turned into Python."""
    python = TransformerManager().transform_cell
    cells = [cell for cell in BOOKS[name].cells if cell.cell_type == "code"]
    return [(cell, ast.parse(python(cell.source))) for cell in cells]


def calls(tree, of=None):
    """The calls in a tree of `plotting.<name>`, or of any library that draws."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            root = node.func.value
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            if not isinstance(root, ast.Name):
                continue
            if root.id == "plotting" and node.func.attr in of if of else root.id in LIBRARIES:
                yield node


def tagged(name, tag):
    return [cell.id for cell in BOOKS[name].cells if tag in cell.metadata.get("tags", [])]


@each
def test_a_notebook_is_valid_and_its_cells_have_names(name):
    book = BOOKS[name]
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    nbformat.validate(book)
    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids)
    assert [i for i in ids if not SLUG.fullmatch(i)] == []
    assert book.metadata.kernelspec.display_name == "Python 3 (ipykernel)"


@each
def test_a_notebook_is_committed_without_outputs(name):
    for cell in BOOKS[name].cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.id
    line = re.search(r"nbstripout --verify (.+) notebooks", (ROOT / "Makefile").read_text())
    stripped = [sys.executable, "-m", "nbstripout", "--verify", *shlex.split(line[1])]
    path = NOTEBOOKS / f"{name}.ipynb"
    done = subprocess.run([*stripped, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@each
def test_a_notebook_asks_a_question_and_says_what_is_claimed_and_how_long_it_takes(name):
    first = BOOKS[name].cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert name == "template" or reading.title(BOOKS[name]).endswith("?")
    for word in ("Claim", "Time"):
        assert len(re.findall(rf"^{word}: \S", first.source, re.MULTILINE)) == 1, word


@each
def test_every_parameter_is_typed_and_explained(name):
    signature = parameters.read(NOTEBOOKS / f"{name}.ipynb")  # refuses no and two such cells
    assert [p.name for p in signature.parameters.values() if not p.help] == []
    assert {"seed", "out_dir"} <= set(signature.parameters)


@each
def test_cells_are_short_and_the_notebook_defines_next_to_nothing(name):
    for cell, _ in code(name):
        assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= 20, cell.id
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = [node.name for _, tree in code(name) for node in ast.walk(tree)
               if isinstance(node, kinds)]  # fmt: skip
    assert len(defined) <= 2, f"{defined} belong into the package"


@each
def test_figures_are_drawn_without_loops(name):
    for cell, tree in code(name):
        for loop in (node for node in ast.walk(tree) if isinstance(node, LOOPS)):
            assert not list(calls(loop)), f"{cell.id}: one call of lab.plotting draws a figure"


@each
def test_every_figure_is_saved_under_its_own_name_with_a_text_for_those_who_cannot_see_it(name):
    names = []
    for cell, tree in code(name):
        saved = list(calls(tree, SAVES))
        drawn = [call for call in calls(tree, DRAWS) if "ax" not in {k.arg for k in call.keywords}]
        assert len(drawn) <= len(saved), f"{cell.id}: a figure that is not saved"
        for call in saved:
            alt = [k.value.value for k in call.keywords if k.arg == "alt"]
            assert alt and len(alt[0]) >= 20, f"{cell.id}: say what the figure shows"
            names.append(call.args[3].value)
    assert names and len(set(names)) == len(names), names


@each
def test_a_notebook_ends_with_exercises_that_check_themselves(name):
    stubs, solutions = tagged(name, "exercise"), tagged(name, "solution")
    assert stubs and len(stubs) == len(solutions)
    ids = [cell.id for cell in BOOKS[name].cells]
    for stub, solution in zip(stubs, solutions, strict=True):
        place = ids.index(stub)
        assert ids[place + 1] == solution and ids[place + 2] in tagged(name, "check"), stub
    headings = [cell.source for cell in BOOKS[name].cells if cell.cell_type == "markdown"]
    assert any(text.startswith("## Exercises") for text in headings)


@each
def test_the_last_cell_saves_the_results(name):
    cell, _ = code(name)[-1]
    assert "results.save(" in cell.source


@each
def test_no_result_is_typed_into_the_prose(name):
    for cell in BOOKS[name].cells:
        if cell.cell_type == "markdown" and ("What we see" in cell.source or "-see" in cell.id):
            assert RESULT.findall(cell.source) == [], f"{cell.id}: let a cell print it"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained models of five layers: {parameter: folder}; as in SmolLM2 no BOS token."""
    folders = {}
    for parameter in FOLDERS:
        folder = tmp_path_factory.mktemp(parameter)
        config = tiny_config(SMALL[parameter], num_hidden_layers=5)
        random_model(config, seed=0).save_pretrained(folder)
        byte_tokenizer(special=parameter == "encoder").save_pretrained(folder)
        folders[parameter] = str(folder)
    return folders


# Run before the solution: the stub and every wrong answer must fail the check, with a hint.
MUST_FAIL = """exec({answer!r})
try:
    exec({check!r})
except AssertionError as hint_of_check:
    if not str(hint_of_check):
        raise RuntimeError("the check of {stub} fails without a hint") from hint_of_check
else:
    raise RuntimeError({stub!r} + " passes its check with " + {answer!r})
"""


def proved(name, folder):
    """The notebook, in ``folder``, with stubs and wrong answers tried before each solution."""
    book, cells = copy.deepcopy(BOOKS[name]), []
    for place, cell in enumerate(book.cells):
        cells.append(cell)
        if "exercise" in cell.metadata.get("tags", []):
            answers = [cell.source, *WRONG.get(name, {}).get(cell.id, [])]
            for n, answer in enumerate(answers):
                check = book.cells[place + 2].source
                source = MUST_FAIL.format(answer=answer, check=check, stub=cell.id)
                cells.append(nbformat.v4.new_code_cell(source, id=f"{cell.id}-fails-{n}"))
    book.cells = cells
    folder.mkdir(exist_ok=True)
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def run(name, models, out, monkeypatch, **options):
    """The finished run of a notebook at small parameters, with an empty cache and no network."""
    monkeypatch.setenv("LAB_CACHE", str(out / "cache"))
    path = proved(name, out / "proved")
    declared = parameters.read(path).parameters
    small = {key: value for key, value in (SMALL | models).items() if key in declared}
    left = {key for key, p in declared.items() if p.default in CHECKPOINTS} - set(small)
    assert not left, f"{name} would need weights: add {left} to SMALL"
    done = runner.run(path, small, out=out / "runs", threads=1, timeout=300, **options)
    assert done.state == "ok", done.line
    return done.folder


def tables(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def finished(models, shared):
    """A function name -> the folder of the notebook's finished run, made once for all workers."""

    def of(name):
        with shared(name) as root:
            done = root / "done"
            if not done.exists():
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir()
                with pytest.MonkeyPatch.context() as patch:
                    done.write_text(str(run(name, models, root, patch)))
            return Path(done.read_text())

    return of


@each
def test_a_notebook_runs_its_stubs_fail_its_solutions_pass_and_it_leaves_its_figures(
    name, finished
):
    folder = finished(name)
    table = pd.read_parquet(folder / "results.parquet")
    assert list(table.columns) == list(results.COLUMNS) and len(table)
    assert set(table["notebook"]) == {name}
    saved = [call.args[3].value for _, tree in code(name) for call in calls(tree, SAVES)]
    for figure in saved:
        assert {(folder / "figures" / f"{figure}{end}").is_file() for end in (".csv", ".json")} == {
            True
        }
        about = json.loads((folder / "figures" / f"{figure}.json").read_text(encoding="utf-8"))
        whole = about["kind"] == "interactive"  # its JSON is all of it
        assert about["draw"] or whole, f"{figure} can't be drawn again from its table"
    assert "ChangedByHand" not in (folder / "executed.ipynb").read_text(encoding="utf-8")


def test_the_same_parameters_give_the_same_bytes(finished, models, tmp_path, monkeypatch):
    first = tables(finished("00_start_here"))
    assert set(first) == {"results.parquet", "comparisons.parquet"}
    assert tables(run("00_start_here", models, tmp_path, monkeypatch)) == first


@pytest.mark.browser
@each
def test_the_page_of_a_notebook_is_sound_at_a_desk_on_a_phone_and_enlarged(
    name, finished, visit, tmp_path
):
    site = export.export([finished(name)], tmp_path / "site").parent
    (page,) = (path for path in site.glob("*.html") if path.name != "index.html")
    for screen in (DESK, PHONE, ZOOM):
        assert faults(visit(page, **screen)) == [], screen


@each
def test_the_student_edition_is_the_notebook_without_its_solutions(name):
    whole = reading.load(NOTEBOOKS / f"{name}.ipynb")
    edition = student.edition(whole)
    nbformat.validate(nbformat.from_dict(edition))
    solutions = [cell["id"] for cell in whole["cells"] if "solution" in reading.tags(cell)]
    ids = [cell["id"] for cell in edition["cells"] if cell["id"] != "student-edition"]
    assert solutions and ids == [c["id"] for c in whole["cells"] if c["id"] not in solutions]
    sources = {cell["id"]: reading.source(cell) for cell in whole["cells"]}
    assert all(reading.source(c) == sources[c["id"]] for c in edition["cells"] if c["id"] in ids)
    may_fail = [cell["id"] for cell in edition["cells"] if "raises-exception" in reading.tags(cell)]
    assert len(may_fail) == len(solutions), "Run All goes on past a check that fails"
    folded = [c["id"] for c in edition["cells"] if c["metadata"].get("jupyter")]
    assert folded == may_fail, "the code of a check shows the way"


@each
def test_no_cell_of_the_student_edition_needs_a_name_of_a_solution(name):
    """A check may not lean on a variable that only the solution left out here would make."""
    known = {*dir(builtins), "display"}
    left_out = tagged(name, "solution")
    for cell, tree in code(name):
        if cell.id in left_out:
            continue
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        known |= {node.id for node in names if not isinstance(node.ctx, ast.Load)}
        known |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        defined = ast.FunctionDef | ast.ClassDef
        known |= {node.name for node in ast.walk(tree) if isinstance(node, defined)}
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.alias)]
        known |= {(node.asname or node.name).partition(".")[0] for node in imported}
        assert {node.id for node in names} - known == set(), cell.id


def test_every_exercise_has_a_wrong_answer_that_is_tried():
    stubs = {name: set(tagged(name, "exercise")) for name in BOOKS if name != "template"}
    assert {name: set(wrong) for name, wrong in WRONG.items()} == stubs


def test_what_a_student_has_written_is_kept_and_a_notebook_without_solutions_is_refused(
    tmp_path, capsys
):
    student.student(tmp_path)
    mine = tmp_path / "00_start_here.ipynb"
    mine.write_text(mine.read_text().replace("answer = {}", "answer = {1: 2}"))
    before = mine.read_text()
    student.student(tmp_path)
    assert mine.read_text() == before and "00_start_here" in capsys.readouterr().err
    mine.write_bytes(b"\xff not text")
    student.student(tmp_path)
    assert mine.read_bytes() == b"\xff not text"
    for wrong in (mine, NOTEBOOKS):
        with pytest.raises(ValueError, match="--out is a folder for the student edition alone"):
            student.student(wrong)
    with pytest.raises(ValueError, match="no cell tagged 'solution'"):
        student.edition(student.edition(reading.load(NOTEBOOKS / "00_start_here.ipynb")))


def test_there_are_notebooks_and_the_search_for_results_in_prose_finds_them():
    assert len(BOOKS) >= 2
    assert RESULT.findall("rises to 0.71, see arXiv:2409.02727; p < 0.05") == ["0.71"]
    assert os.environ["HF_HUB_OFFLINE"] == "1"
