"""Runs as an RO-Crate: their files with checksums, and what made them, in one JSON-LD graph.

RO-Crate 1.1 with the profile Process Run Crate 0.5 (https://w3id.org/ro/wfrun/process/0.5): a run
is a CreateAction, its instrument the notebook, its objects what it read, its results what it wrote.
The graph itself names no person, no host and no path of a machine; parameters, names of inputs, the
words of an exception and the files of a run (code.diff, executed.ipynb) are copied as they are.
Nothing is asked of the network.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import data, manifest
from lab.export import cards, folder
from lab.models.checkpoints import CHECKPOINTS
from lab.runner import claims
from lab.runner.parameters import SET_BY_RUNNER
from lab.series import records
from lab.series.plan import Series

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

VERSION = "1.1"  # of RO-Crate: the one that the profile extends
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"  # defines environment and sha256
STATUS = "http://schema.org/{}ActionStatus"
FORMATS = {
    ".csv": "text/csv", ".diff": "text/x-diff", ".ipynb": "application/x-ipynb+json",
    ".json": "application/json", ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf", ".png": "image/png", ".svg": "image/svg+xml", ".txt": "text/plain",
}  # fmt: skip
MACHINE = ("os", "python", "cpu", "cores", "threads", "memory_limit")


def ended(series: Series) -> tuple[list[Path], list[str]]:
    """The folders of the runs of a series that have ended, however; the keys of the others."""
    there = records.read(series.runs.values())
    found = {key: records.of(run, there) for key, run in series.runs.items()}
    ended = {key: r.folder for key, r in found.items() if r and r.state != manifest.RUNNING}
    return list(ended.values()), [key for key in found if key not in ended]


def export(runs: Sequence[Path], out: Path, name: str) -> Path:
    """The folder ``out``, which is new and holds the crate; the same runs give the same bytes.

    Raises:
        ValueError: no run, a folder that is no run, one that is going on, or whose files are not
            what it wrote; two runs of one name; an ``out`` that holds something.
        OSError: a file cannot be written; nothing is left.
    """
    from rocrate.rocrate import ROCrate

    if not runs:
        raise ValueError("nothing to put into a crate: give at least one run that has ended")
    ended = [_ended(run) for run in runs]
    crate = ROCrate(version=VERSION)
    crate.metadata.extra_contexts.append(TERMS)
    licences = dict(data.listing().set_index("name")["licence"])
    licences |= {key: entry.licence for key, entry in CHECKPOINTS.items()}
    actions = [_action(crate, run, licences) for run in ended]
    profile = _about(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    crate.root_dataset["name"] = name
    crate.root_dataset["description"] = f"{len(ended)} runs of notebooks: what was run, on what."
    crate.root_dataset["datePublished"] = max(_times(run)[-1] for run in ended)
    crate.root_dataset["conformsTo"] = profile
    crate.root_dataset["mentions"] = actions
    with folder.new(Path(out), "is not empty; a crate replaces nothing", lambda _: False) as place:
        crate.write(place)
    return Path(out)


def _ended(run: Path) -> records.Record:
    """The run in a folder, if it has ended and its files are what it wrote."""
    content = manifest.read(run)
    found = records.record(run)
    if found is None or found.state == manifest.RUNNING:
        raise ValueError(f"{run} is going on; wait for it")
    if names := claims.damaged(run, content):
        raise ValueError(f"{run}: gone or not what the run wrote: {', '.join(names)}")
    return found


def _action(crate: "ROCrate", run: records.Record, licences: Mapping[str, str]) -> "Entity":
    """The run with all that it refers to."""
    content = run.content
    stem = cards.stem_of(run.folder, content)
    if f"#run-{stem}" in crate:
        raise ValueError(f"two runs would share the folder {stem}; give each run once")
    files = _files(crate, run, stem)
    diff = files.pop(manifest.DIFF, None)
    notebook = _notebook(crate, content["identity"])
    read = [notebook, _code(crate, content), diff, _requirements(crate, content["environment"])]
    read += [_input(crate, entry, licences) for entry in content["inputs"]]
    read += _parameters(crate, content["identity"], stem)
    ok = run.state == "ok"  # other reasons than what a notebook raised tell of the machine
    error = f"failed: {run.reason}" if run.state == "failed" else run.state
    started, *finished = _times(run)
    return _about(
        crate, f"#run-{stem}", "CreateAction",
        name=f"{Path(content['identity']['notebook']).stem}, {run.folder.name}",
        identifier=run.id,
        startTime=started,
        endTime=finished[0] if finished else None,
        actionStatus={"@id": STATUS.format("Completed" if ok else "Failed")},
        error=None if ok else error,
        instrument=notebook,
        object=[one for one in read[1:] if one],
        result=list(files.values()),
        environment=_variables(crate, content["environment"]["variables"]),
        additionalProperty=_machine(crate, content["environment"]),
    )  # fmt: skip


def _times(run: records.Record) -> list[str]:
    """When the run started and, unless its runner was killed, when it ended."""
    outcome = run.content["outcome"]
    return [outcome[key] for key in ("started", "finished") if key in outcome]


def _about(crate: "ROCrate", place: str, kind: str, /, **properties: Any) -> "Entity":
    """The entity of that name, which is no file; made at its first use, without what is empty."""
    from rocrate.model.contextentity import ContextEntity

    known = {key: value for key, value in properties.items() if value not in (None, "", [])}
    found = crate.get(place)
    return found or crate.add(ContextEntity(crate, place, {"@type": kind, **known}))


def _file(crate: "ROCrate", source: Any, place: str, sha: str, **properties: Any) -> "Entity":
    """The file at ``place`` in the crate, with its checksum."""
    kind = FORMATS.get(Path(place).suffix)
    known = {"sha256": sha, **({"encodingFormat": kind} if kind else {}), **properties}
    return crate.add_file(source, place, properties=known, record_size=True)


def _files(crate: "ROCrate", run: records.Record, stem: str) -> dict[str, "Entity"]:
    """What the run wrote, by its path in the run folder; figures with their alt text."""
    described: dict[str, dict[str, str]] = {}
    for about in (run.folder / "figures").glob("*.json"):
        if not about.name.endswith(".plotly.json"):
            words = json.loads(about.read_text(encoding="utf-8"))
            told = {"name": words["caption"] or words["name"], "description": words["alt"]}
            described |= {f"figures/{file}": told for file in words["sha256"]}
    return {
        name: _file(crate, run.folder / name, f"{stem}/{name}", sha, **described.get(name, {}))
        for name, sha in run.content["outcome"].get("outputs", {}).items()
    }


def _notebook(crate: "ROCrate", identity: Mapping[str, Any]) -> "Entity":
    """The notebook as it was run: its file, or its checksum alone where it has changed since."""
    source, sha = Path(identity["notebook"]), identity["notebook_sha256"]
    about = {"name": source.stem, "version": sha[:8]}
    if source.is_file() and manifest.digest(source) == sha:
        place = f"notebooks/{source.stem}-{sha[:8]}.ipynb"
        kinds = {"@type": ["File", "SoftwareSourceCode"]}
        return crate.get(place) or _file(crate, source, place, sha, **kinds, **about)
    says = "The notebook has changed since; the executed one holds the code that was run."
    return _about(
        crate, f"#notebook-{sha}", "SoftwareSourceCode", sha256=sha, description=says, **about
    )


def _code(crate: "ROCrate", content: Mapping[str, Any]) -> "Entity":
    """The lab at the commit of the run; the diff, if there was one, is a file beside it."""
    commit, packages = content["code"]["commit"], content["environment"]["packages"]
    version = packages.get("embedding-lab")
    return _about(
        crate, f"#code-{commit or version}", "SoftwareSourceCode",
        name="embedding-lab", version=version, identifier=commit,
        license=_licence(crate, "Apache-2.0"),
    )  # fmt: skip


def _requirements(crate: "ROCrate", environment: Mapping[str, Any]) -> "Entity":
    """Every installed package as a requirements file, one for all runs that had the same."""
    text = "".join(f"{name}=={version}\n" for name, version in environment["packages"].items())
    sha = hashlib.sha256(text.encode()).hexdigest()
    place = f"environment/requirements-{sha[:8]}.txt"
    says = "The installed packages of the run"
    return crate.get(place) or _file(crate, StringIO(text), place, sha, description=says)


def _input(crate: "ROCrate", entry: Mapping[str, Any], licences: Mapping[str, str]) -> "Entity":
    """A data set, a model or kept read-outs that were read: checksums and licence, no copies."""
    name = entry.get("name") or entry.get("model") or entry["kind"]
    files = dict(sorted(entry["files"].items()))
    facts = {k: v for k, v in entry.items() if k not in ("files", "name", "kind", "sha256")}
    key = _short([name, facts, list(files.values())])
    return _about(
        crate, f"#{entry['kind']}-{key}", "Collection",
        name=name,
        description=", ".join(f"{k} {v}" for k, v in facts.items() if v is not None),
        license=_licence(crate, licences.get(name, "")),
        hasPart=[_part(crate, path, sha) for path, sha in files.items()],
    )  # fmt: skip


def _part(crate: "ROCrate", path: str, sha: str) -> "Entity":
    """A file that was read and is not in the crate."""
    return _about(crate, f"#sha256-{sha}", "CreativeWork", name=Path(path).name, sha256=sha)


def _licence(crate: "ROCrate", words: str) -> "Entity | None":
    """What is known of a licence, in the words of the manifest of the data."""
    if not words or words == "not specified":
        return None
    return _about(crate, f"#licence-{_short(words)}", "CreativeWork", name=words)


def _parameters(crate: "ROCrate", identity: Mapping[str, Any], stem: str) -> list["Entity"]:
    values = {name: entry["value"] for name, entry in identity["parameters"].items()}
    values.pop(SET_BY_RUNNER, None)
    return [_value(crate, f"#run-{stem}-{name}", name, value) for name, value in values.items()]


def _variables(crate: "ROCrate", variables: Mapping[str, str]) -> list["Entity"]:
    """The environment variables that the runner set, without those that hold a path."""
    kept = {name: value for name, value in variables.items() if "/" not in value}
    return _shared(crate, "variable", kept.items())


def _machine(crate: "ROCrate", environment: Mapping[str, Any]) -> list["Entity"]:
    gpus = [("gpu", gpu) for gpu in environment["gpus"]]
    return _shared(crate, "machine", [(name, environment[name]) for name in MACHINE] + gpus)


def _shared(crate: "ROCrate", kind: str, pairs: Iterable[tuple[str, Any]]) -> list["Entity"]:
    """Facts that several runs have in common, each once in the crate."""
    known = [(name, value) for name, value in pairs if value is not None]
    return [_value(crate, f"#{kind}-{name}-{_short(value)}", name, value) for name, value in known]


def _value(crate: "ROCrate", place: str, name: str, value: Any) -> "Entity":
    plain = isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value))
    text = value if plain else json.dumps(value)
    return _about(crate, place, "PropertyValue", name=name, value=text)


def _short(content: object) -> str:
    """Eight hex digits that name the content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
