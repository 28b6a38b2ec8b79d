"""Files that are there whole or not at all, whatever happens while they are written."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path, prefix: str | None = None) -> Iterator[Path]:
    """A temporary name beside ``path``, which takes its place when the context ends well.

    By then its bytes, and its name, are on the disk. ``prefix``: of the temporary name, by which
    what a killed process left is known; default: a dot and the name.

    Raises:
        OSError: it could not be written; nothing is left of it, and what was there before stays.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix or f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        on_disk(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        on_disk(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write(path: Path, content: bytes | str, prefix: str | None = None) -> None:
    """Nothing; ``path`` has that content, or is what it was.

    Raises:
        OSError: as :func:`replaced`; it says how much was to be written and where.
    """
    raw = content.encode() if isinstance(content, str) else content
    try:
        with replaced(path, prefix) as temporary:
            temporary.write_bytes(raw)
    except OSError as error:
        raise OSError(
            error.errno,
            f"could not write {len(raw)} bytes ({error.strerror}); what was there before is "
            "unchanged: free space and save again",
            str(path),
        ) from error


def on_disk(path: Path) -> None:
    """Nothing; returns once a file, or a folder's list of names, has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
