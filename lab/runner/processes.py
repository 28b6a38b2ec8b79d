"""The processes of a run, ended: those of a group, and those that left it."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from lab import manifest


def kill_group(leader: int) -> None:
    """Nothing; every process of the group is killed, and it is fine if there is none left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_run(folder: Path) -> None:
    """Nothing; every other process of the run in ``folder`` is killed, whatever its session.

    A process is known by the environment it was started with (/proc, so Linux only): one that was
    given an empty environment and a session of its own is not found.
    """
    killed: set[int] = set()
    while left := set(_of_run(folder)) - killed:  # again: they may have started others
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= left


def _of_run(folder: Path) -> list[int]:
    mark = os.fsencode(f"{manifest.RUN_DIR}={folder}")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]
