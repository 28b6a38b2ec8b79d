"""One sweep at a time in a folder of runs; parts of a sweep (shards) may share it."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import manifest

FOLDER = ".sweeps"


@contextmanager
def swept(out: Path, series: str, part: str) -> Iterator[None]:
    """Nothing; while the context is open no other sweep of ``out`` can start.

    ``part``: "" for a whole sweep, "2/4" for a shard, which lets other shards in. The lock goes
    with the process that holds it, however that ends: what a dead sweep left is taken over.

    Raises:
        ValueError: another sweep is going on; the message says who holds the folder, and since.
        OSError: the folder cannot be written to.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{series}-{part.replace('/', '-of-') or 'whole'}.json"
    with (folder / manifest.LOCK).open("a") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        for other in sorted(folder.glob("*.json")):
            if (holder := _holder(other)) and not (part and holder["part"] and other.name != name):
                shard = f" (shard {holder['part']})" if holder["part"] else ""
                raise ValueError(
                    f"{out} is being swept by process {holder['pid']} on {holder['host']} since "
                    f"{holder['since']}: {holder['series']}{shard}; wait for it or stop it"
                )
        about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": manifest.now(),
            "series": series,
            "part": part,
        }
        mine = (folder / name).open("w", encoding="utf-8")
        fcntl.flock(mine, fcntl.LOCK_EX)
        mine.write(json.dumps(about) + "\n")  # before the queue moves on: the next one reads it
        mine.flush()
    with mine:
        try:
            yield
        finally:
            (folder / name).unlink(missing_ok=True)


def sweeping(out: Path) -> bool:
    """Whether a sweep of ``out`` is going on."""
    return any(_held(path) for path in (out / FOLDER).glob("*.json"))


def _holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lock file, or None where nobody does; asked by who has the queue."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if _held(path) else None
    except FileNotFoundError:  # the sweep has just ended
        return None


def _held(path: Path) -> bool:
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
