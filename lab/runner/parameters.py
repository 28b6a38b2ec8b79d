"""The typed parameters of a notebook, read from its one cell tagged ``parameters``.

Each line there is ``name: type = literal  # help``. The cell is read with ``ast`` and never
executed; what comes out is a pydantic model that `lab params`, the command line, the profiles and
the table at the top of an executed notebook all share. Types: ``str int float bool``,
``list[...]``, ``tuple[...]``, ``X | None``, ``Literal[...]`` for choices and
``Annotated[int, Ge(1), Le(9)]`` (from `annotated_types`) for ranges.
"""

import ast
import io
import json
import tokenize
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import from_json

from lab import reading
from lab.registry import unknown

PROFILE = "cpu"  # the profile that needs no entry in the notebook: its defaults
SET_BY_RUNNER = "out_dir"  # the run folder; not part of what a run is, so not part of its id
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
SCALARS = {"str": str, "int": int, "float": float, "bool": bool}
LIMITS = ("Ge", "Gt", "Le", "Lt", "Interval", "Len", "MinLen", "MaxLen", "MultipleOf")
IMPORTS = ("typing", "annotated_types", "__future__")


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: its name, type as written, default and help."""

    name: str
    type: str
    default: Any
    help: str
    annotation: Any

    def accepts(self, value: object) -> bool:
        """Whether ``value`` has the type and lies in the range."""
        try:
            _adapter(self.annotation).validate_json(json.dumps(value))
        except (ValueError, TypeError, RecursionError):
            return False
        return True


@dataclass(frozen=True)
class Signature:
    """What a notebook takes: its parameters by name, the model that checks them, its profiles."""

    notebook: Path
    parameters: dict[str, Parameter]
    model: type[BaseModel]
    profiles: dict[str, dict[str, Any]]


def read(notebook: Path) -> Signature:
    """The checked signature of ``notebook``: its parameters, their model and its profiles.

    Raises:
        ValueError: a hidden file, no cell or two cells tagged ``parameters``, anything but typed
            literals in it, a default of the wrong type, or a parameter that no later cell reads.
        LookupError: a profile sets a parameter that does not exist.
    """
    if notebook.stem.startswith("."):  # its runs would be in a hidden folder, or outside of theirs
        raise ValueError(f"a notebook's name may not begin with a dot, came {notebook.name!r}")
    content = reading.load(notebook)
    cells = content["cells"]
    tagged = [i for i, cell in enumerate(cells) if "parameters" in reading.tags(cell)]
    if len(tagged) != 1:
        raise ValueError(
            f"{notebook.name} has {len(tagged)} cells tagged 'parameters', wanted exactly one; "
            "tag it in JupyterLab's property inspector (View > Right Sidebar)"
        )
    parameters = _parse_cell(
        reading.source(cells[tagged[0]]), f"{notebook.name} cell {tagged[0] + 1}"
    )
    reading.check_all_read(parameters, cells[tagged[0] + 1 :], notebook.name, tagged[0] + 2)
    stored = content.get("metadata", {}).get("lab", {}).get("profiles", {})
    signature = Signature(
        notebook, parameters, _model(notebook, parameters), {PROFILE: {}, **stored}
    )
    for profile in signature.profiles:
        resolve(signature, {}, profile)
    return signature


def resolve(
    signature: Signature, overrides: Mapping[str, object], profile: str = PROFILE
) -> dict[str, Any]:
    """Every parameter's value: the defaults, then the profile's, then ``overrides``, all checked.

    Raises:
        LookupError: an unknown profile or parameter (with the nearest name).
        ValueError: a value of the wrong type or out of range; ``out_dir``, which the runner sets.
    """
    if profile not in signature.profiles:
        raise LookupError(unknown("profile", profile, signature.profiles))
    chosen = {**signature.profiles[profile], **overrides}
    for name in chosen:
        if name not in signature.parameters:
            raise LookupError(unknown("parameter", name, signature.parameters))
        if name == SET_BY_RUNNER:
            raise ValueError(
                f"{SET_BY_RUNNER} is set by the runner to the run folder; use --out DIR"
            )
    values = {name: p.default for name, p in signature.parameters.items()} | chosen
    return _validated(signature, values)


def parse(signature: Signature, texts: Iterable[str]) -> dict[str, Any]:
    """Overrides from ``name=value`` texts, each read as what its parameter's type accepts.

    A value is tried as JSON, as a Python literal, as a YAML list and, last, as the text itself, so
    that ``n=5`` is a number for an int and a text for a str. What none of them makes fit keeps its
    first reading, and `resolve` refuses it.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"wanted -p name=value, came {text!r}")
        if name in found:
            raise ValueError(f"parameter {name!r} is given twice: {found[name]!r} and {value!r}")
        if name not in signature.parameters:
            raise LookupError(unknown("parameter", name, signature.parameters))
        readings = list(_readings(value))
        found[name] = next(filter(signature.parameters[name].accepts, readings), readings[0])
    return found


def table(signature: Signature, values: Mapping[str, object]) -> str:
    """A Markdown table of ``values`` beside defaults and help; what differs is in bold."""
    rows = ["| parameter | value | type | default | help |", "| --- | --- | --- | --- | --- |"]
    for name, p in signature.parameters.items():
        same = name == SET_BY_RUNNER or values[name] == p.default
        value = _code(values[name]) if same else f"**{_code(values[name])}**"
        kind = p.type.replace(" | ", " or ").replace("|", " or ")
        rows.append(f"| {name} | {value} | {kind} | {_code(p.default)} | {_plain(p.help)} |")
    return "\n".join(rows)


def _code(value: object) -> str:
    """``repr`` in a code span that survives back-ticks and the table's own bars."""
    text = repr(value)
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _readings(text: str) -> Iterable[Any]:
    for reader in (json.loads, ast.literal_eval):
        try:
            yield reader(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    if text.startswith("["):
        import yaml

        try:
            yield yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            pass
    yield text


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _model(notebook: Path, parameters: Mapping[str, Parameter]) -> type[BaseModel]:
    # The fields have names of their own: a parameter may be called `copy` or `schema`.
    fields: dict[str, Any] = {
        f"field_{name}": (p.annotation, Field(p.default, alias=name, description=p.help or None))
        for name, p in parameters.items()
    }
    title = "".join(c if c.isalnum() else "_" for c in notebook.stem)
    return create_model(f"Parameters_{title}", __config__=STRICT, **fields)


def _validated(signature: Signature, values: Mapping[str, object]) -> dict[str, Any]:
    for name, value in values.items():
        _check_plain(name, value)
    try:
        # By way of JSON, where a list may fill a tuple and nothing else is converted.
        model = signature.model.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise ValueError(_explain(signature, error, values)) from None
    return {name: getattr(model, f"field_{name}") for name in values}


def _check_plain(name: str, value: object) -> None:
    """Nothing for what JSON can say: no date, no half of a character, no list within itself.

    Raises:
        ValueError: it is something else.
    """
    try:
        from_json(json.dumps({name: value}))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"parameter {name!r} must be a plain literal, came {value!r:.80} "
            f"({type(value).__name__}): {error}; quote what is to be a text"
        ) from None


def _explain(signature: Signature, error: ValidationError, values: Mapping[str, object]) -> str:
    lines = []
    for name in dict.fromkeys(str(problem["loc"][0]) for problem in error.errors()):
        says = next(p["msg"] for p in error.errors() if p["loc"][0] == name)
        lines.append(
            f"parameter {name!r} wants {signature.parameters[name].type}, came {values[name]!r} "
            f"({type(values[name]).__name__}): {says}"
        )
    return "; ".join(lines)


def _parse_cell(text: str, where: str) -> dict[str, Parameter]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(
            f"{where} (parameters) is not Python: {error.msg} in line {error.lineno}"
        ) from None
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, Parameter] = {}
    for node in tree.body:
        line = ast.get_source_segment(text, node)
        if isinstance(node, ast.ImportFrom) and node.module in IMPORTS:
            continue
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            raise ValueError(f"{where}: wanted 'name: type = literal  # help', came {line!r}")
        name = node.target.id
        if name in found:
            raise ValueError(f"{where}: parameter {name!r} is declared twice")
        kind = ast.get_source_segment(text, node.annotation) or ""
        help_text = comments.get(node.end_lineno or 0, "")
        found[name] = Parameter(
            name,
            kind,
            _literal(node, line, where),
            help_text,
            _annotation(node.annotation, kind, where),
        )
    return found


def _literal(node: ast.AnnAssign, line: str | None, where: str) -> Any:
    try:
        if node.value is not None:
            return ast.literal_eval(node.value)
    except ValueError:
        pass
    raise ValueError(
        f"{where}: {line!r} is not a literal. Overrides are put in a cell after this one, so a "
        "value computed here would go stale; compute it in a later cell"
    )


def _annotation(node: ast.expr, kind: str, where: str) -> Any:
    """The type that ``node`` spells, built without evaluating anything.

    Raises:
        ValueError: a type that parameters cannot have.
    """
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in SCALARS:
            return SCALARS[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_annotation(left, kind, where), _annotation(right, kind, where)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return typing.Optional[_annotation(inner, kind, where)]  # noqa: UP045
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return list[_annotation(inner, kind, where)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=parts)):
            return tuple[tuple(_element(part, kind, where) for part in parts)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="tuple"), slice=inner):
            return tuple[_annotation(inner, kind, where)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            choices = ast.literal_eval(inner)
            return typing.Literal[choices]
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *limits])):
            bounds = [_limit(limit, kind, where) for limit in limits]
            return typing.Annotated[(_annotation(inner, kind, where), *bounds)]
    raise ValueError(
        f"{where}: type {kind!r} is none that a parameter can have; use str, int, float, bool, "
        "list[...], tuple[...], X | None, Literal[...] or Annotated[int, Ge(1), Le(9)]"
    )


def _element(node: ast.expr, kind: str, where: str) -> Any:
    """One entry of ``tuple[...]``, where an ellipsis may follow the first."""
    ellipsis = isinstance(node, ast.Constant) and node.value is ...
    return ... if ellipsis else _annotation(node, kind, where)


def _limit(node: ast.expr, kind: str, where: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LIMITS:
        positional = [ast.literal_eval(argument) for argument in node.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        return getattr(annotated_types, node.func.id)(*positional, **named)
    raise ValueError(f"{where}: a range in {kind!r} is one of {', '.join(LIMITS)}, with literals")
