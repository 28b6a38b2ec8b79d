"""Who may write a run folder: one process at a time, and never where a finished run is."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import manifest

RESERVE = 1 << 18  # bytes held in the lock file, so that a full disk cannot hide how a run ended


@contextmanager
def claimed(folder: Path, run_id: str, force: bool) -> Iterator[Path | None]:
    """The folder of a finished run of this id, or None: then ``folder`` is new, empty and locked.

    A folder that is there already is moved to ``.1``, ``.2``, ...: nothing is lost.

    Raises:
        ValueError: the same run is going on in another process.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / manifest.LOCK).open("a") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        finished = None if force else finished_run(folder.parent, run_id)
        if not finished:
            _move_aside(folder)
            folder.mkdir()
            lock = (folder / manifest.LOCK).open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
    if finished:
        yield finished
        return
    with lock:
        try:
            lock.write(os.urandom(RESERVE))
            lock.flush()
            yield None
            (folder / manifest.LOCK).unlink()
        finally:
            if not (folder / manifest.NAME).exists():  # nothing was started
                shutil.rmtree(folder)


def finished_run(parent: Path, run_id: str) -> Path | None:
    """The folder of a finished run of this id whose inputs and outputs are all as they were."""
    for candidate in sorted(parent.glob(f"*-{run_id[:8]}")):
        if not (candidate / manifest.NAME).is_file():
            continue
        content = manifest.read(candidate)
        ok = content["outcome"]["state"] == "ok" and content["identity"]["id"] == run_id
        whole = ok and all((candidate / f).is_file() for f in content["outcome"]["outputs"])
        if whole and not manifest.changed_inputs(content):
            return candidate
    return None


def _move_aside(folder: Path) -> None:
    if not folder.exists():
        return
    if (folder / manifest.LOCK).exists():
        with (folder / manifest.LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"the same run is going on in {folder}; wait for it or stop it"
                ) from None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    shutil.move(folder, aside)


def release_reserve(folder: Path) -> None:
    """Nothing; what the lock file held is free for the manifest and the log."""
    os.truncate(folder / manifest.LOCK, 0)
