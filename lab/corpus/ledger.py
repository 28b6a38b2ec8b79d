"""What is done: one entry a shard, and a claim on it while somebody works.

``000012.json`` says that shard 12 is done and what its file's checksum is; ``000012.attempt`` who
tried last. Claims are locks on one byte each of one file: the system lets go of them when a process
ends, however it ends. They hold between machines where the file system passes POSIX locks on (NFS
4, Lustre with flock); without that, give each machine a share of its own (``--shard i/n``).
"""

import fcntl
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import atomic, manifest
from lab.corpus.plan import LEDGER, SHARDS, STATES, Plan

CLAIMS = "claims"
CHECKS = 4  # files that are read together to verify them

Entry = dict[str, Any]


class Ledger:
    """The entries of a plan's folder. One a process: closing a second one would drop all claims."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._folder = plan.out / LEDGER
        self._claims = (self._folder / CLAIMS).open("ab")

    def __enter__(self) -> "Ledger":
        """This ledger."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing; see :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Nothing; all claims are let go."""
        self._claims.close()

    def done(self, number: int) -> bool:
        """Whether a shard is done."""
        return self._entry(number).exists()

    def pending(self, numbers: Iterable[int]) -> list[int]:
        """Those of the shards that are not done."""
        names = {path.name for path in self._folder.iterdir()}
        return [number for number in numbers if self._entry(number).name not in names]

    def entries(self) -> Iterator[Entry]:
        """The entries of all shards that are done, in order.

        Raises:
            ValueError: a damaged entry.
        """
        waiting = set(self.pending(range(len(self.plan.shards))))
        for number in range(len(self.plan.shards)):
            if number not in waiting:
                yield self.entry(number)

    def entry(self, number: int) -> Entry:
        """What is known of a shard that is done.

        Raises:
            ValueError: it is damaged.
        """
        path = self._entry(number)
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
            found["sha256"], found["rows"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error})") from None
        return found

    @contextmanager
    def claim(self, number: int) -> Iterator[bool]:
        """Whether the shard is ours alone while the context is open."""
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except BlockingIOError:
            yield False
            return
        except PermissionError:  # what some systems say of a lock that another process holds
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, number)

    def begin(self, number: int, worker: str) -> int:
        """Which attempt this is, from 1; what a killed one left half-written is gone."""
        path = self._folder / f"{number:06d}.attempt"
        try:
            last = int(json.loads(path.read_text(encoding="utf-8"))["attempt"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            last = 0  # the first, or a power cut: it only counts
        for folder in (SHARDS, LEDGER, STATES):
            for left in (self.plan.out / folder).glob(f".{number:06d}.*"):
                left.unlink(missing_ok=True)
        content = {"attempt": last + 1, "worker": worker, "begun": manifest.now()}
        atomic.write(path, json.dumps(content) + "\n")
        return last + 1

    def finish(self, number: int, entry: Entry) -> None:
        """Nothing; the shard is done from now on."""
        atomic.write(self._entry(number), json.dumps(entry) + "\n")

    def verify(self, numbers: Iterable[int], say: Callable[[int, str], None]) -> None:
        """Nothing; shards whose file is not what their entry says are not done any more.

        ``say`` gets the number of each of them and why. One that somebody works on is left alone.
        """
        waiting = set(self.pending(range(len(self.plan.shards))))
        done = [number for number in numbers if number not in waiting]
        with ThreadPoolExecutor(CHECKS) as pool:
            for number, why in zip(done, pool.map(self._damage, done), strict=True):
                if not why:
                    continue
                with self.claim(number) as mine:
                    if mine:
                        self._entry(number).unlink(missing_ok=True)
                        say(number, why)

    def _damage(self, number: int) -> str:
        """What is wrong with a shard that is done, or nothing."""
        path = self.plan.path(number)
        try:
            wanted = self.entry(number)["sha256"]
            found = manifest.digest(path)
        except FileNotFoundError:
            return f"{path.name} is gone"
        except ValueError as error:
            return str(error)
        return "" if found == wanted else f"{path.name} has sha256 {found}, wanted {wanted}"

    def _entry(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"
