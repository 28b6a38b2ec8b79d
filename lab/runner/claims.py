"""Who may write a run folder: one process at a time, and never where a finished run is."""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import manifest

RESERVE = 1 << 18  # bytes held in the lock file, so that a full disk cannot hide how a run ended
LINGER = 20.0  # seconds that the process of a killed runner may take to save what it has


@dataclass(frozen=True)
class Claim:
    """The folder of a finished run, or the descriptor that locks a new, empty one."""

    finished: Path | None
    lock: int | None


@contextmanager
def claimed(folder: Path, run_id: str, force: bool, patience: float = 0.0) -> Iterator[Claim]:
    """A finished run of this id, or ``folder``, which is new, empty and locked.

    The lock is held by every process that inherits its descriptor. A folder that is there already
    is moved to ``.1``, ``.2``, ...: nothing is lost. ``patience``: seconds to wait for a process
    that holds the folder; one whose runner was killed on this machine gets 20 s in any case.

    Raises:
        ValueError: the same run is going on in another process.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _wait(folder, patience)
    with (folder.parent / manifest.LOCK).open("a") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        _settle(folder)
        finished = None if force else finished_run(folder.parent, run_id)
        if not finished:
            _disown(folder.parent, run_id)
            _move_aside(folder)
            folder.mkdir()
            lock = (folder / manifest.LOCK).open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
    if finished:
        yield Claim(finished, None)
        return
    with lock:
        try:
            lock.write(os.urandom(RESERVE))
            lock.flush()
            yield Claim(None, lock.fileno())
            (folder / manifest.LOCK).unlink()
        finally:
            if not (folder / manifest.NAME).exists():  # nothing was started
                shutil.rmtree(folder)


def finished_run(parent: Path, run_id: str) -> Path | None:
    """The folder of a finished run of this id whose inputs and outputs are all as they were."""
    for candidate, content in _runs(parent, run_id):
        ok = content["outcome"]["state"] == "ok"
        if ok and not damaged(candidate, content) and not manifest.changed_inputs(content):
            return candidate
    return None


def damaged(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """The outputs of the run in ``folder`` that are gone or not what it wrote."""
    return [
        name
        for name, sha in content["outcome"].get("outputs", {}).items()
        if not (folder / name).is_file() or manifest.digest(folder / name) != sha
    ]


def known(folder: Path) -> dict[str, Any] | None:
    """The manifest in ``folder``, or None where it is damaged or missing."""
    try:
        return manifest.read(folder)
    except ValueError:
        return None


def held(folder: Path) -> bool:
    """Whether a process is at work on the run in ``folder``, on any machine that sees it."""
    try:
        lock = (folder / manifest.LOCK).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def release_reserve(folder: Path) -> None:
    """Nothing; what the lock file held is free for the manifest and the log."""
    os.truncate(folder / manifest.LOCK, 0)


def _runs(parent: Path, run_id: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    for candidate in sorted(parent.glob(f"*-{run_id[:8]}")):
        content = known(candidate)
        if content and content["identity"]["id"] == run_id:
            yield candidate, content


def _wait(folder: Path, patience: float) -> None:
    """Nothing, once no process holds ``folder`` or the time is over."""
    begun = time.monotonic()
    while held(folder):
        limit = max(patience, LINGER if _runner_gone(folder) else 0.0)
        if time.monotonic() - begun >= limit:
            return
        time.sleep(0.1)


def _settle(folder: Path) -> None:
    """Nothing; no process writes ``folder``, and its manifest says how the run ended.

    Raises:
        ValueError: a run is going on there.
    """
    if held(folder):
        raise ValueError(f"the same run is going on in {folder}; wait for it or stop it")
    content = known(folder)
    if content and content["outcome"]["state"] == manifest.RUNNING:
        pid = content["outcome"]["runner"]["pid"]
        _end(folder, content, "interrupted", f"the runner (pid {pid}) is gone")


def _runner_gone(folder: Path) -> bool:
    """Whether the runner was killed, so that only its process is left, saving what it has."""
    content = known(folder)
    if not content:
        return False
    runner = content["outcome"]["runner"]
    return runner["host"] == socket.gethostname() and not alive(runner["pid"])


def _disown(parent: Path, run_id: str) -> None:
    """Nothing; a run that says ok and whose outputs are not what it wrote no longer says so."""
    for folder, content in _runs(parent, run_id):
        names = damaged(folder, content) if content["outcome"]["state"] == "ok" else []
        if names:
            _end(folder, content, "failed", f"gone or not what the run wrote: {', '.join(names)}")


def _end(folder: Path, content: dict[str, Any], state: str, reason: str) -> None:
    code = manifest.EXIT_CODES[state]
    content["outcome"] |= {"state": state, "reason": reason, "exit_code": code}
    manifest.write(folder, content)


def _move_aside(folder: Path) -> None:
    if not folder.exists():
        return
    if {path.name for path in folder.iterdir()} <= {manifest.LOCK}:  # killed before it began
        shutil.rmtree(folder)
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    shutil.move(folder, aside)
