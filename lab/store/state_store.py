"""Hidden states on disk, under an address that says what they were computed from.

A store is one folder of *shards* (:mod:`lab.store.shards`), each with the states of some texts
under one address, which begins its name; of read-outs, with some layers of a call. A shard never
changes: other processes find it whole or not at all, and what one process has mapped into memory
stays readable when another deletes the file. There is no index and no lock. Two processes that
compute the same texts at the same time both write them; the surplus goes, like everything, when it
was not used for longest.
"""

import atexit
import errno
import functools
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import Tensor

from lab.paths import cache
from lab.store import PARTIAL, STATES, SUFFIX, shards
from lab.store.shards import DamagedError, Place

SHARD = 2**26  # bytes of states after which a shard is written: what an interrupted run loses
TEMPORARY = "lab-states-"
STALE = 3600  # seconds after which an unfinished shard belongs to a process that is no more


class StateStore:
    """A folder of hidden states that never grows beyond a size; see the module.

    Args:
        folder: default ``states`` in the lab's cache (``LAB_CACHE``, else the user's cache).
        max_bytes: of all shards; the least recently used go first.

    Raises:
        ValueError: ``max_bytes`` is not positive.
    """

    def __init__(self, folder: str | Path | None = None, *, max_bytes: int = 20 * 10**9) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes is the size of a store, 1 or more; got {max_bytes}")
        self.folder = Path(folder or cache() / STATES).expanduser().resolve()
        self.max_bytes = max_bytes

    def shelves(self, addresses: Sequence[str], keys: Sequence[bytes]) -> list["Shelf"]:
        """One shelf per address with what the store has of the texts with these keys (sha256).

        Warns:
            UserWarning: a shard is damaged; it is deleted and its texts count as not stored.
        """
        held: set[Path] = set()
        return [Shelf(self, address, keys, held) for address in addresses]

    def make_room(self, size: int, held: Collection[Path] = ()) -> None:
        """Delete least recently used shards until ``size`` more bytes fit; those ``held`` stay.

        Raises:
            ValueError: they can't fit into the store beside what is held.
            OSError: they can't fit on the disk.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files, total = [], 0
        for file in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process makes room too
                facts = file.stat()
                if file.suffix == SUFFIX:
                    files.append((facts.st_mtime_ns, file, facts.st_size))
                    total += facts.st_size
                elif file.name.startswith(PARTIAL) and facts.st_mtime < time.time() - STALE:
                    file.unlink()
        disk = total + shutil.disk_usage(self.folder).free
        for _, file, taken in sorted(files):
            if total + size > min(self.max_bytes, disk) and file not in held:
                file.unlink(missing_ok=True)
                total -= taken
        if total + size > self.max_bytes:
            raise ValueError(
                f"{_megabytes(size)} of hidden states are to be stored beside {_megabytes(total)} "
                f"of files that the same request reads, more than the {_megabytes(self.max_bytes)} "
                "that this store may hold: raise its max_bytes, store half precision "
                "(dtype='bfloat16'), or ask for fewer texts at a time"
            )
        if total + size > disk:
            raise _no_room(errno.ENOSPC, f"{_megabytes(disk - total)} are free", size, self.folder)


@contextmanager
def throw_away() -> Iterator[StateStore]:
    """An empty store that is deleted after the block; what was read of it stays in memory."""
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
        yield StateStore(folder)


@functools.cache
def of_process() -> StateStore:
    """A store, empty at first, that lasts as long as this process."""
    folder = tempfile.mkdtemp(prefix=TEMPORARY)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return StateStore(folder)


class Shelf:
    """The states of some texts under one address: those in the store, and those that are added.

    ``key in shelf`` says whether it has a text, ``shelf[key]`` is its :class:`Place`. Comes from
    :meth:`StateStore.shelves`; ``held`` are the shards that all shelves of one request read.
    """

    def __init__(
        self, store: StateStore, address: str, keys: Sequence[bytes], held: set[Path]
    ) -> None:
        self._store, self._address, self._held = store, address, held
        self._places: dict[bytes, Place] = {}
        self._added: dict[bytes, Tensor] = {}
        self._bytes = 0
        wanted = set(keys)
        for file in sorted(store.folder.glob(f"{address}-*{SUFFIX}")):
            missing = wanted - self._places.keys()
            if missing:
                self._places |= self._read(file, missing)

    def __contains__(self, key: bytes) -> bool:
        """Whether the states of a text are here."""
        return key in self._places or key in self._added

    def __getitem__(self, key: bytes) -> Place:
        """Where the states of a text are; flush first what was added."""
        return self._places[key]

    def reserve(self, size: int) -> None:
        """Make room for ``size`` bytes more; see :meth:`StateStore.make_room`."""
        self._store.make_room(size, self._held)

    def add(self, key: bytes, states: Tensor) -> None:
        """Put the states (rows, dim) of a text here; written when a shard is full, or flushed."""
        self._added[key] = states
        self._bytes += states.nbytes
        if self._bytes >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last time.

        Raises:
            ValueError: the store is too small.
            OSError: it could not be written; nothing half-written is left.
        """
        if not self._added:
            return
        name, content, places = shards.packed(self._added)
        file = self._store.folder / f"{self._address}-{name}"
        self._store.make_room(len(content), self._held)
        try:
            shards.write(file, content)
        except OSError as error:
            raise _no_room(error.errno, error.strerror, len(content), file.parent) from error
        self._held.add(file)
        self._store.make_room(0, self._held)  # another process may have written meanwhile
        # Mapped from the disk, unless another process has deleted it already.
        self._places |= self._read(file, places) or places
        self._added, self._bytes = {}, 0

    def _read(self, file: Path, wanted: Collection[bytes]) -> dict[bytes, Place]:
        """The places of the wanted texts that a shard holds, if it is there and whole."""
        try:
            found = shards.read(file, wanted)
        except FileNotFoundError:  # another process has made room
            return {}
        except DamagedError as error:
            file.unlink(missing_ok=True)
            warnings.warn(
                f"stored hidden states are damaged, deleted and computed again: {error} ({file})",
                stacklevel=2,
            )
            return {}
        if found:
            self._held.add(file)
            with suppress(OSError):  # a store that is only read keeps no order of use
                now = time.time_ns()
                os.utime(file, ns=(now, now))
        return found


def _no_room(number: int | None, why: str | None, size: int, folder: Path) -> OSError:
    return OSError(
        number,
        f"{_megabytes(size)} of hidden states can't be written ({why}); what was written before "
        "stays and is not computed again: make room, or give StateStore another folder",
        str(folder),
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
