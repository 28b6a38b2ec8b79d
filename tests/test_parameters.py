import ast
import json

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_notebook import build

from lab.runner import parameters

TYPES = """from typing import Annotated, Literal
from annotated_types import Ge, Le
alpha: float = 0.5  # weight of the prior
n: int = 3
layers: int | None = None  # which layers, or all
pool: Literal["mean", "max"] = "mean"  # how
share: Annotated[float, Ge(0), Le(1)] = 0.25
names: list[str] = ["a", "b"]
sizes: tuple[int, ...] = (1, 2)
fast: bool = True
text: str = "x"
copy: str | None = None"""
READ = "print(alpha, n, layers, pool, share, names, sizes, fast, text, copy)"


@pytest.fixture
def signature(tmp_path):
    return parameters.read(build(tmp_path / "01_a.ipynb", parameters=TYPES, reads=READ))


def refused(tmp_path, match, *, cells=(), error=ValueError, **options):
    path = build(tmp_path / "01_a.ipynb", *cells, **options)
    with pytest.raises(error, match=match):
        parameters.read(path)


def test_the_defaults_are_the_literals_of_the_cell(signature):
    values = parameters.resolve(signature, {})
    assert values == {
        "alpha": 0.5,
        "n": 3,
        "layers": None,
        "pool": "mean",
        "share": 0.25,
        "names": ["a", "b"],
        "sizes": (1, 2),
        "fast": True,
        "text": "x",
        "copy": None,
    }


def test_trap_6_an_annotated_optional_is_there_with_type_default_and_help(signature):
    layers = signature.parameters["layers"]
    assert (layers.type, layers.default, layers.help) == (
        "int | None",
        None,
        "which layers, or all",
    )


def test_trap_3_an_unknown_parameter_is_refused_with_the_nearest_name(signature):
    with pytest.raises(LookupError, match=r"'alhpa'.*did you mean 'alpha'"):
        parameters.resolve(signature, {"alhpa": 3})
    with pytest.raises(LookupError, match="did you mean 'alpha'"):
        parameters.parse(signature, ["alhpa=3"])


def test_trap_4_a_notebook_without_a_tagged_cell_is_refused(tmp_path):
    path = build(tmp_path / "01_a.ipynb")
    content = json.loads(path.read_text())
    content["cells"][1]["metadata"]["tags"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="0 cells tagged 'parameters', wanted exactly one"):
        parameters.read(path)


def test_a_notebook_with_two_tagged_cells_is_refused(tmp_path):
    path = build(tmp_path / "01_a.ipynb")
    content = json.loads(path.read_text())
    content["cells"][2]["metadata"]["tags"] = ["parameters"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="2 cells tagged"):
        parameters.read(path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a: int = 2\ntwice: int = 2 * a", "not a literal"),
        ("twice = 2", "wanted 'name: type = literal"),
        ("import os", "wanted 'name: type"),
        ("a: int", "not a literal"),
        ("a: int = 1\na: int = 2", "declared twice"),
        ("a: int = 0.5", "parameter 'a' wants int, came 0.5"),
        ("a: int = True", "parameter 'a' wants int, came True"),
        ("a: dict = {}", "type 'dict' is none that a parameter can have"),
        ("a: __import__('os').sep = 1", "none that a parameter can have"),
        ("a: int = ", "is not Python"),
        ("a: Annotated[int, open('x')] = 1", "a range in"),
    ],
)
def test_trap_5_only_typed_literals_stand_in_the_parameters_cell(tmp_path, cell, message):
    refused(tmp_path, message, parameters=cell, reads="print(a, twice)")


@pytest.mark.parametrize(
    "reading",
    [
        "print(n)",
        "f'{n:3d}'",
        "%time sorted(range(n))",
        "!echo {n}",
        "x = !echo {n}",
        "%%timeit\nrange(n)",
        "%%bash\necho $n",
        "n += 1",
        "await f(n)",
        "def f():\n    return [n for _ in range(2)]",
    ],
)
def test_a_parameter_is_read_when_any_later_cell_uses_it(tmp_path, reading):
    path = build(tmp_path / "01_a.ipynb", parameters="n: int = 3", reads=reading)
    assert list(parameters.read(path).parameters) == ["n"]


@pytest.mark.parametrize("other", ["print(m)", "'n'", "# n", "%matplotlib inline", "print(x.n)"])
def test_a_parameter_that_is_never_read_is_refused(tmp_path, other):
    refused(tmp_path, "'n' of 01_a.ipynb is never read", parameters="n: int = 3", reads=other)


def test_a_parameter_that_is_assigned_again_before_it_is_read_is_refused(tmp_path):
    refused(
        tmp_path,
        "assigned again in 01_a.ipynb cell 3",
        parameters="n: int = 3",
        reads="n = 5",
        cells=["print(n)"],
    )


def test_a_later_cell_that_is_not_python_is_refused_before_anything_runs(tmp_path):
    refused(tmp_path, "cell 4 is not Python", cells=["if True"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=5", 5),
        ("alpha=2", 2.0),
        ("alpha=1e-3", 0.001),
        ("layers=7", 7),
        ("layers=null", None),
        ("layers=None", None),
        ("fast=false", False),
        ("fast=False", False),
        ("text=5", "5"),
        ('text="5"', "5"),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ("names=[mean, max]", ["mean", "max"]),
        ('names=["mean"]', ["mean"]),
        ("sizes=[4, 5]", (4, 5)),
        ("sizes=(4, 5)", (4, 5)),
        ("pool=max", "max"),
        ("copy=no", "no"),
    ],
)
def test_a_value_on_the_command_line_is_read_as_its_parameter_wants(signature, text, value):
    values = parameters.resolve(signature, parameters.parse(signature, [text]))
    found = values[text.partition("=")[0]]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    "n=0.8 n='5' n=true n=x n= alpha=x alpha=NaN alpha=Infinity fast=1 fast=yes pool=median "
    "share=1.5 share=-0.1 names=a sizes=[1,x] layers=a".split(),
)
def test_a_mistyped_value_is_refused_with_what_was_wanted_and_what_came(signature, text):
    name = text.partition("=")[0]
    with pytest.raises(ValueError, match=f"parameter '{name}' wants .*, came "):
        parameters.resolve(signature, parameters.parse(signature, [text]))


@pytest.mark.parametrize("text", ["n", "=3", "n 3", "a b=3"])
def test_what_is_no_assignment_is_refused(signature, text):
    with pytest.raises(ValueError, match="wanted -p name=value"):
        parameters.parse(signature, [text])


def test_a_parameter_given_twice_is_refused(signature):
    with pytest.raises(ValueError, match="'n' is given twice"):
        parameters.parse(signature, ["n=3", "n=4"])


def test_an_override_that_is_no_literal_is_refused(signature):
    with pytest.raises(ValueError, match="parameter 'n' must be a plain literal"):
        parameters.resolve(signature, {"n": object()})


def test_out_dir_belongs_to_the_runner(tmp_path):
    found = parameters.read(build(tmp_path / "01_a.ipynb"))
    with pytest.raises(ValueError, match="set by the runner to the run folder; use --out"):
        parameters.resolve(found, {"out_dir": "../../x"})


def test_a_profile_is_overridden_by_what_is_given(tmp_path):
    found = parameters.read(build(tmp_path / "01_a.ipynb", profiles={"gpu": {"n": 9}}))
    assert parameters.resolve(found, {}, "cpu")["n"] == 3
    assert parameters.resolve(found, {}, "gpu")["n"] == 9
    assert parameters.resolve(found, {"n": 4}, "gpu")["n"] == 4
    with pytest.raises(LookupError, match=r"no profile named 'gpuu'.*did you mean 'gpu'"):
        parameters.resolve(found, {}, "gpuu")


def test_a_notebook_whose_profile_is_wrong_is_refused(tmp_path):
    refused(tmp_path, "wants int, came 'many'", profiles={"gpu": {"n": "many"}})
    refused(tmp_path, "did you mean 'n'", profiles={"gpu": {"nn": 3}}, error=LookupError)


def test_the_schema_accepts_what_the_model_accepts(signature):
    schema = signature.model.model_json_schema()
    jsonschema.validate({"n": 5, "layers": None, "share": 1, "pool": "max"}, schema)
    for wrong in ({"n": "5"}, {"share": 2}, {"pool": "median"}, {"alhpa": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert schema["properties"]["alpha"]["description"] == "weight of the prior"


def test_the_table_has_one_row_a_parameter_and_marks_what_differs(signature):
    values = parameters.resolve(signature, {"n": 5, "text": "a|b`c\n<script>"})
    rows = parameters.table(signature, values).splitlines()
    assert len(rows) == 2 + len(values)
    assert "| n | **`5`** | int | `3` |" in rows[3]
    assert "a\\|b`c\\n<script> " not in rows[10] and "`` 'a\\|b`c\\n<script>' ``" in rows[10]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_command_line_when_quoted(signature, text):
    given_as = f"text={json.dumps(text)}"
    assert parameters.parse(signature, [given_as]) == {"text": text}
    assert ast.literal_eval(repr(parameters.resolve(signature, {"text": text})["text"])) == text


@pytest.mark.parametrize("name", ["a.py", "missing.ipynb", "broken.ipynb", "old.ipynb"])
def test_what_is_no_notebook_is_refused(tmp_path, name):
    (tmp_path / "a.py").write_text("n: int = 3")
    (tmp_path / "broken.ipynb").write_text("{")
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3, "worksheets": []}')
    with pytest.raises(ValueError, match=r"not an \.ipynb|no notebook at|is not a notebook"):
        parameters.read(tmp_path / name)
