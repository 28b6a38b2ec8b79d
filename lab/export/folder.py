"""A folder that is written whole or not at all, and replaces only what we made."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def check(out: Path, refusal: str, ours: Callable[[Path], bool]) -> None:
    """Nothing, if ``out`` may be written as :func:`new` does.

    Raises:
        ValueError: it holds something we may not replace; in these words.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or ours(out))):
        raise ValueError(f"{out} {refusal}; choose another folder")


@contextmanager
def new(out: Path, refusal: str, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to write into; it becomes ``out`` at the end, or is gone if something failed.

    An ``out`` that holds something is replaced if it is ``ours``, else refused with these words.

    Raises:
        ValueError: ``out`` holds something we may not replace.
        OSError: it cannot be written; what was there is still there.
    """
    check(out, refusal, ours)
    out = out.resolve()  # a link stays one: what it names is replaced
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield building
        building.chmod(0o755)
        _swap(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _swap(building: Path, out: Path) -> None:
    """Put the new folder where the old one was; the old one comes back if that fails."""
    if not out.exists():
        building.rename(out)
        return
    old = building.with_name(building.name + "-old")
    out.rename(old)
    try:
        building.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)
