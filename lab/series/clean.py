"""Run folders that no longer serve, and caches: listed, and deleted only when asked."""

import fcntl
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import manifest, paths, store
from lab.runner import claims
from lab.series import records

RUN_FOLDER = re.compile(r"(?P<run>.+-[0-9a-f]{8})(\.\d+)?")


@dataclass(frozen=True)
class Leftover:
    """A run folder that did not end well, or was moved aside, or a cache; why; bytes."""

    folder: Path
    why: str
    size: int


def leftovers(out: Path) -> list[Leftover]:
    """The run folders below ``out`` that are not finished and that no process works on.

    That is: failed, dead, timeout, interrupted, moved aside for a later run, killed before the
    manifest was written, or with one that is damaged. Nothing else is touched: what a notebook
    saved by hand, folders that only look like runs, runs of another format, what a link leads to,
    and runs that were going on on another host, whose locks need not be seen here.

    Raises:
        ValueError: ``out`` is no folder.
    """
    if not out.is_dir():
        raise ValueError(f"no folder of runs at {out}")
    return [
        Leftover(folder, why, sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()))
        for folder in _run_folders(out)
        if (why := _why(folder)) and not claims.held(folder)
    ]


def delete(leftover: Leftover) -> None:
    """Nothing; the folder is gone.

    Raises:
        ValueError: it is not what was listed any more: a process has taken it up meanwhile.
    """
    folder = leftover.folder
    with (folder.parent / manifest.LOCK).open("a") as queue:  # no run starts here meanwhile
        fcntl.flock(queue, fcntl.LOCK_EX)
        if claims.held(folder) or _why(folder) != leftover.why:
            raise ValueError(f"{folder} was taken up meanwhile; nothing in it was deleted")
        shutil.rmtree(folder)


def caches() -> list[Leftover]:
    """What was kept to be used again, one entry a store: everything in it can be computed again."""
    found = []
    for name in (store.STATES, store.READ_OUTS):
        files = store.files(name)
        size = sum(file.stat().st_size for file in files)
        why = f"{len(files)} files, computed again when they are needed"
        found.append(Leftover(paths.cache() / name, why, size))
    return [one for one in found if one.size]


def empty(cache: Leftover) -> None:
    """Nothing; the files of a store are gone. Runs that read them go on."""
    for file in store.files(cache.folder.name):
        file.unlink(missing_ok=True)


def _run_folders(out: Path) -> Iterator[Path]:
    for folder in sorted(out.glob("*/*")):
        linked = folder.is_symlink() or folder.parent.is_symlink()
        if folder.is_dir() and not linked and RUN_FOLDER.fullmatch(folder.name):
            yield folder


def _why(folder: Path) -> str:
    """Why nobody needs the folder, or an empty text."""
    found = records.record(folder)
    if found is None:
        return f"no {manifest.NAME} that can be read" if _ours(folder) else ""
    if _elsewhere(found):
        return ""
    if found.state not in ("ok", manifest.RUNNING):
        return f"{found.state}: {found.reason}".removesuffix(": ")
    aside = re.search(r"\.\d+$", folder.name)
    return "moved aside for a later run" if aside and found.state == "ok" else ""


def _ours(folder: Path) -> bool:
    """Whether a run began in a folder without a manifest that any code can read."""
    try:
        manifest.read(folder)
    except manifest.OtherFormatErrorError:
        return False
    except ValueError:
        pass
    names = {path.name for path in folder.iterdir()}
    return names <= {manifest.LOCK} or {manifest.NAME, manifest.LOG} <= names


def _elsewhere(found: records.Record) -> bool:
    """Whether the manifest says that a process of another host is at work."""
    outcome = found.content["outcome"]
    return bool(
        outcome["state"] == manifest.RUNNING and outcome["runner"]["host"] != socket.gethostname()
    )
