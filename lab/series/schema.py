"""What may stand in a series file, and how it is read: strictly, and never executed."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Ge, Gt, Len
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from lab import runner

Name = Annotated[str, StringConstraints(pattern=f"^{runner.NAMES.pattern}$")]
EXPONENT = re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$")  # 1e-3, which YAML 1.1 reads as text


def _whole_or_share(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("a share is of one GPU, so a number above 1 must be whole")
    return gpus


class Limits(BaseModel):
    """What bounds a run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    profile: str | None = Field(
        default=None, description="A set of parameters the notebook stores."
    )
    timeout: Annotated[float, Gt(0)] | None = Field(default=None, description="Seconds for a run.")
    threads: Annotated[int, Ge(1)] | None = Field(
        default=None, description="Of a run; default: the cores, shared by the runs at a time."
    )
    memory: Annotated[float, Gt(0)] | None = Field(
        default=None, description="GB of data that each process of a run may have."
    )
    gpus: Annotated[float, Ge(0), AfterValidator(_whole_or_share)] | None = Field(
        default=None,
        description="Of a run, which then sees no others: a number, or a share of one such as 0.5.",
    )


class RunsOf(Limits):
    """The runs of one notebook: one, or one for each point of a grid."""

    notebook: str | Annotated[int, Ge(0)] = Field(
        description="A number, a name, or a path from the series file."
    )
    parameters: dict[str, Any] = Field(default={}, description="Values for all of these runs.")
    grid: dict[str, Annotated[list[Any], Len(1)]] = Field(
        default={}, description="Lists of values; every combination is a run."
    )
    after: list[str] = Field(
        default=[], description="Names of the runs that must have finished before."
    )


class SeriesFile(BaseModel):
    """A series of runs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str = Field(default="", description="What the series is about.")
    defaults: Limits = Field(
        default=Limits(), description="For every run that does not say otherwise."
    )
    runs: Annotated[dict[Name, RunsOf], Len(1)] = Field(description="The runs by name.")
    figures: dict[str, list[str]] = Field(
        default={},
        description="Groups of figures: a title, and the runs whose figures belong together.",
    )


# The keys that may stand at a depth of the file: its own, those of defaults, those of a run.
KEYS = {1: SeriesFile.model_fields, 2: Limits.model_fields, 3: RunsOf.model_fields}


def read(path: Path) -> SeriesFile:
    """The checked content of a series file.

    Raises:
        ValueError: no such file, not YAML, a key that is unknown (with the nearest), missing or
            given twice, or a value of the wrong kind.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ValueError(f"no series file at {path}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # no such day, no UTF-8
        raise ValueError(f"{path} cannot be read as YAML: {error}") from None
    try:
        return SeriesFile.model_validate(content)
    except ValidationError as error:
        says = "; ".join(_explain(dict(problem)) for problem in error.errors())
        raise ValueError(f"{path}: {says}") from None


def _explain(problem: dict[str, Any]) -> str:
    where = [str(part) for part in problem["loc"] if part != "[key]"]
    place, came = ".".join(where) or "the file", f"came {problem['input']!r:.80}"
    if problem["type"] == "model_type":  # nothing, a text or a list
        return f"{place}: wanted keys ({', '.join(KEYS[min(len(where) + 1, max(KEYS))])}), {came}"
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']}, {came}"
    keys = KEYS[min(len(where), max(KEYS))]
    near = difflib.get_close_matches(where[-1], keys, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no key {'.'.join(where)!r}; there are {', '.join(keys)}{hint}"


class _Loader(yaml.SafeLoader):
    """Plain data only: no tag makes an object, no key stands twice, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for (key_node, _), key in zip(node.value, keys, strict=True):
            if key != "<<" and keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
        return dict(super().construct_mapping(node, deep))


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))
