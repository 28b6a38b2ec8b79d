"""The manifest of a run: what was run, on what, and how it ended. The only truth about the run.

It is written before the first cell and completed after the last; readers never look into the
notebook's own metadata for the state (a dead kernel looks like success there).
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from lab import atomic, paths, reading

NAME = "manifest.json"
FORMAT = 1
INPUTS = "inputs.jsonl"
LOG = "log.txt"
LOCK = ".lock"
EXECUTED = "executed.ipynb"
DIFF = "code.diff"
OWN_FILES = (NAME, INPUTS, LOG, LOCK)
RUN_DIR = "LAB_RUN_DIR"
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
EXIT_CODES = {"ok": 0, "skipped": 0, "failed": 2, "dead": 3, "timeout": 4, "interrupted": 5}
RUNNING = "running"
PARTS = {
    "code_cells": "code cells",
    "data": "data",
    "lab": "lab code",
    "environment": "environment",
}
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for no files at all


def record_input(kind: str, /, *, files: Mapping[str, str] | None = None, **facts: object) -> None:
    """Notes something this run reads: ``kind`` is "dataset", "model" or the like.

    ``files`` maps paths to their sha256; a finished run whose files changed since is run again. One
    JSON line in the run folder's inputs.jsonl; outside of a run nothing is written.
    """
    folder = os.environ.get(RUN_DIR)
    if folder:
        entry = {"kind": kind, **facts, "files": {str(k): v for k, v in (files or {}).items()}}
        with (Path(folder) / INPUTS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, sort_keys=True) + "\n")


def recording() -> bool:
    """Whether a run is under way that wants to know its inputs."""
    return RUN_DIR in os.environ


class OtherFormatErrorError(ValueError):
    """A manifest that other code wrote, and can read."""


def read(folder: Path) -> dict[str, Any]:
    """The manifest in ``folder``.

    Raises:
        ValueError: there is none, it is not JSON, not of a run, or lacks what every run has.
        OtherFormatErrorError: it is of another format.
    """
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} is not a run folder: it has no {NAME}") from None
    except ValueError as error:
        raise ValueError(f"{folder / NAME} is damaged ({error}); move the folder away") from None
    if not (isinstance(content, dict) and {"identity", "outcome"} <= content.keys()):
        raise ValueError(f"{folder / NAME} is not the manifest of a run")
    if (came := content.get("format", FORMAT)) != FORMAT:
        raise OtherFormatErrorError(
            f"{folder / NAME} has format {came!r}, wanted {FORMAT}: read it with the code that "
            "wrote it, or run the notebook again"
        )
    if not _whole(content):
        raise ValueError(
            f"{folder / NAME} is not the manifest of a run: something is missing that this lab "
            "writes; `lab clean` lists such folders"
        )
    return content


def _whole(content: Mapping[str, Any]) -> bool:
    """Whether everything is there that readers rely on, whatever the state of the run."""
    match content:
        case {
            "identity": {
                "id": str(),
                "notebook": str(),
                "parameters": dict(),
                "hashed": {"parameters": dict(), **hashed},
            },
            "outcome": {
                "state": str(state),
                "clock": int() | float(),
                "runner": {"pid": int(), "host": str()},
            },
        }:
            finished = state != "ok" or isinstance(content["outcome"].get("outputs"), dict)
            return finished and state in (RUNNING, *EXIT_CODES) and PARTS.keys() <= hashed.keys()
    return False


def latest(roots: Iterable[Path]) -> list[Path]:
    """Run folders as they are; of any other folder, the newest finished run of each notebook.

    Raises:
        ValueError: a folder that is no run and holds no finished one.
    """
    folders = []
    for root in roots:
        if (root / NAME).is_file():
            folders.append(root)
            continue
        newest: dict[str, tuple[str, Path]] = {}
        for file in sorted(root.glob(f"*/*/{NAME}")):
            outcome = read(file.parent)["outcome"]
            if outcome["state"] == "ok":
                found = (outcome["finished"], file.parent)
                slug = file.parent.parent.name
                newest[slug] = max(found, newest.get(slug, found))
        if not newest:
            raise ValueError(f"{root} is no run folder and holds no finished run; `lab run` first")
        folders += [folder for _, (_, folder) in sorted(newest.items())]
    return folders


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Nothing; the manifest in ``folder`` is replaced in one step or stays what it was."""
    atomic.write(folder / NAME, json.dumps(content, indent=1, default=str) + "\n")


def digest(path: Path) -> str:
    """The sha256 of a file, read once in this process for as long as nothing writes to it."""
    found = path.stat()
    return _digest(path, found.st_ino, found.st_size, found.st_ctime_ns)


@cache
def _digest(path: Path, *_: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def surroundings() -> dict[str, str]:
    """What is hashed into every run id of this installation: data, lab code, environment."""
    lab = Path(__file__).parent
    code = {f.relative_to(lab).as_posix(): digest(f) for f in sorted(lab.rglob("*.py"))}
    return {
        "data": _sha({f.relative_to(paths.DATA).as_posix(): digest(f) for f in _data_files()}),
        "lab": _sha(code),
        "environment": _sha([platform.python_version(), _locked()]),
    }


def moved(hashed: Mapping[str, Any]) -> list[str]:
    """The parts of the surroundings, in words, that are not what was hashed into a run id."""
    return [PARTS[part] for part, now in surroundings().items() if hashed[part] != now]


def identity(
    notebook: Path,
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
    around: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The run id and what was hashed into it.

    id = hash(code cells, parameters, files in data/, lab code, installed versions of what
    constraints.txt names, Python). What a run reads beyond data/ (weights, the mirror) is found
    only while it runs: `changed_inputs` checks that before a finished run is reused. ``around``:
    :func:`surroundings`, for a caller with many runs.
    """
    hashed = {
        "code_cells": _sha(reading.code_cells(reading.load(notebook))),
        "parameters": dict(parameters),
        **(surroundings() if around is None else around),
    }
    return {
        "id": _sha(hashed),
        "hashed": hashed,
        "notebook": str(notebook),
        "notebook_sha256": digest(notebook),
        "parameters": {
            name: {"value": value, "default": value == defaults[name]}
            for name, value in parameters.items()
        },
    }


def environment(
    variables: Mapping[str, str], threads: int, memory: float | None = None
) -> dict[str, Any]:
    """Versions, machine and the settings of the run's process; ``memory``: its limit in GB."""
    constraints = paths.ROOT / "constraints.txt"
    return {
        "constraints_sha256": digest(constraints) if constraints.is_file() else None,
        "packages": _installed(),
        "python": sys.version,
        "executable": sys.executable,
        "os": platform.platform(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_limit": memory,
        "gpus": gpus(),
        "variables": dict(sorted(variables.items())),
    }


def cpu() -> str:
    """The name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    named = (
        re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if info.is_file()
        else None
    )
    return named[1] if named else platform.processor()


def gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each NVIDIA GPU, as nvidia-smi tells them; none without it."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    query = "name,driver_version,memory.total"
    done = subprocess.run(
        [tool, f"--query-gpu={query}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [
        dict(zip(query.split(","), map(str.strip, line.split(",")), strict=True)) for line in lines
    ]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; else their numbers.

    An entry of -1 hides itself and all after it, as in CUDA.
    """
    visible = os.environ.get(VISIBLE_GPUS)
    if visible is None:
        return [str(number) for number in range(len(gpus()))]
    names = [name.strip() for name in visible.split(",")]
    return list(takewhile(lambda name: name not in ("", "-1"), names))


def code(folder: Path) -> dict[str, Any]:
    """The commit of the project and, when files differ from it, the diff saved in ``folder``.

    Untracked files are in the diff. It is made with an index and an object store of its own, so
    that the repository stays untouched.
    """
    commit = _git("rev-parse", "HEAD")
    if _git("rev-parse", "--git-dir") is None:
        return {"commit": None, "dirty": None, "diff": None}
    if not _git("status", "--porcelain"):
        return {"commit": commit, "dirty": False, "diff": None}
    with tempfile.TemporaryDirectory() as scratch:
        objects = _git("rev-parse", "--path-format=absolute", "--git-path", "objects") or ""
        (Path(scratch) / "objects").mkdir()
        own = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        _git("add", "--all", variables=own)
        diff = _git("diff", "--cached", commit or EMPTY_TREE, variables=own)
    (folder / DIFF).write_text((diff or "") + "\n", encoding="utf-8")
    return {"commit": commit, "dirty": True, "diff": DIFF}


def inputs(folder: Path) -> list[dict[str, Any]]:
    """What `record_input` noted, each once, in the order of first use."""
    path = folder / INPUTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in dict.fromkeys(lines)]


def changed_inputs(content: Mapping[str, Any]) -> list[str]:
    """The absolute paths among a finished run's inputs that are gone or have other bytes now."""
    known = {Path(k): v for entry in content.get("inputs", []) for k, v in entry["files"].items()}
    return [
        str(path)
        for path, sha in known.items()
        if path.is_absolute() and (not path.is_file() or digest(path) != sha)
    ]


def outputs(folder: Path) -> dict[str, str]:
    """The sha256 of every file the run left, by its path in the run folder."""
    found = (path.relative_to(folder).as_posix() for path in _files(folder))
    return {name: digest(folder / name) for name in found if name not in OWN_FILES}


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _sha(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _files(folder: Path) -> list[Path]:
    """The regular files below ``folder``, without what Python and JupyterLab leave behind."""
    skipped = {"__pycache__", ".ipynb_checkpoints"}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(folder).parts)
    )


def _data_files() -> list[Path]:
    """The shipped data, without what is only about it: editing a README makes no other run."""
    about = {"build", "LICENSES"}
    found = _files(paths.DATA)
    return [
        path
        for path in found
        if path.suffix != ".md" and not about & set(path.relative_to(paths.DATA).parts)
    ]


def _installed() -> dict[str, str]:
    found = ((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())
    return dict(sorted((name, version) for name, version in found if name))


def _locked() -> dict[str, str]:
    """Installed versions of what constraints.txt names, or of everything without that file."""
    constraints = paths.ROOT / "constraints.txt"
    have = {_canonical(name): version for name, version in _installed().items()}
    if not constraints.is_file():
        return have
    pins = re.findall(r"^([\w.-]+)\s*==", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: have[name] for name in sorted(map(_canonical, pins)) if name in have}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _git(*arguments: str, variables: Mapping[str, str] | None = None) -> str | None:
    """What git prints for the project's folder, or None where it fails or is not installed."""
    if not shutil.which("git"):
        return None
    command = ["git", "-C", str(paths.ROOT), *arguments]
    done = subprocess.run(
        command, capture_output=True, timeout=120, env=os.environ | (variables or {})
    )
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
