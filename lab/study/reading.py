"""Studies as files: ``data/studies/*.yaml``, their profiles and their grids of designs."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lab.paths import DATA
from lab.registry import unknown
from lab.study.plan import Design, Part, Study

STUDIES = DATA / "studies"


def names() -> list[str]:
    """The studies in ``data/studies``."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load(name: str | Path, profile: str = "cpu", **changes: Any) -> Study:
    """The study of that name, or in that file, under one of its profiles.

    A profile, and then ``changes``, replace whole fields; of ``recipe`` they replace single ones.

    Raises:
        LookupError: no study or profile of that name.
        ValueError: a file that is no study; the message says where and what is wanted.
    """
    path = Path(name) if Path(name).suffix else STUDIES / f"{name}.yaml"
    if not path.is_file():
        raise LookupError(unknown("study", str(name), names()))
    try:
        content = _mapping("a study", yaml.safe_load(path.read_text(encoding="utf-8")))
        profiles = _mapping("profiles", content.pop("profiles", None))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}, profile {profile}: {error}") from None
    if profile not in profiles:
        raise LookupError(unknown(f"profile of {path.stem}", profile, profiles))
    try:
        return Study(name=path.stem, **_resolved(content, profiles[profile], changes))
    except (ValidationError, TypeError, ValueError, LookupError) as error:
        raise ValueError(f"{path}, profile {profile}: {_explain(error)}") from None


def _resolved(content: dict[str, Any], profile: object, changes: dict[str, Any]) -> dict[str, Any]:
    """The fields of a study: with the profile and the changes in place, its grid crossed."""
    recipe: dict[str, Any] = {}
    for update in (content, _mapping("the profile", profile), changes):
        recipe |= _mapping("recipe", update.get("recipe"))
        content = {**content, **update, "recipe": recipe}
    designs = list(_list("designs", content.get("designs", [])))
    for cross in _list("grid", content.pop("grid", [])):
        designs += _crossed(_mapping("an entry of grid", cross))
    return {**content, "designs": designs}


def _crossed(cross: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the listed values: {attention: [a, b], pooling: [p]} gives two."""
    levels = [value if isinstance(value, list) else [value] for value in cross.values()]
    return [dict(zip(cross, chosen, strict=True)) for chosen in product(*levels)]


def _mapping(what: str, value: object) -> dict[str, Any]:
    """A mapping with names as keys; one that is left empty has none."""
    value = {} if value is None else value
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{what} is a mapping from names to values (name: value); got {value!r}")
    return value


def _list(what: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is a list of mappings (- name: value); got {value!r}")
    return value


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    inner: dict[str, type[BaseModel]] = {"designs": Design, "train": Part, "evaluate": Part}
    parts = []
    for one in error.errors():
        where = ".".join(map(str, one["loc"])) or "study"
        if one["type"] == "extra_forbidden":
            model = inner[str(one["loc"][0])] if len(one["loc"]) > 1 else Study
            parts.append(unknown("key", one["loc"][-1], model.model_fields))
        else:
            got = "" if one["type"] in ("value_error", "missing") else f"; got {one['input']!r}"
            parts.append(f"{where}: {one['msg'].removeprefix('Value error, ')}{got}")
    return "; ".join(parts)
