"""Run folders that no longer serve, and caches: listed, and deleted only when asked."""

import re
import shutil
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

    That is: failed, dead, timeout, interrupted, moved aside for a later run, or without a manifest.
    Only folders named like those of runs are looked at: what a notebook saved by hand stays.
    """
    return [
        Leftover(folder, why, sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()))
        for folder in _run_folders(out)
        if (why := _why(folder)) and not claims.held(folder)
    ]


def delete(leftover: Leftover) -> None:
    """Nothing; the folder is gone.

    Raises:
        ValueError: a process has taken it up meanwhile.
    """
    if claims.held(leftover.folder):
        raise ValueError(f"a run is going on in {leftover.folder}")
    shutil.rmtree(leftover.folder)


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
        if folder.is_dir() and not folder.is_symlink() and RUN_FOLDER.fullmatch(folder.name):
            yield folder


def _why(folder: Path) -> str:
    """Why nobody needs the folder, or an empty text."""
    found = records.record(folder)
    if found is None:
        return f"no {manifest.NAME} that can be read"
    if found.state not in ("ok", manifest.RUNNING):
        return f"{found.state}: {found.reason}".removesuffix(": ")
    aside = re.search(r"\.\d+$", folder.name)
    return "moved aside for a later run" if aside and found.state == "ok" else ""
