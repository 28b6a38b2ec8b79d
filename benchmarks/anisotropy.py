"""Measures of anisotropy against one matrix product, the IsoScore package, and all pairs.

    python benchmarks/anisotropy.py [--huge] [--out FILE] [--threads N]

How pairs are measured: side_by_side.py. ``--huge`` streams 10 million rows instead, from a file
of 31 GB that is written to the temporary folder first. Exit code 1: a bound is missed.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from side_by_side import Ratio, in_child, interleaved, main, peak_above, ratio

WIDTH = 768
CHUNK = 8192  # rows: 25 MB
FAMILY, ALONE, PAIRS, MEMORY = 2.0, 1.0, 0.01, 1500.0  # the bounds; the last in MB
REPEATS = 3


def base(n: int) -> np.ndarray:
    """Rows with a mean, a decaying spectrum and one rogue dimension, as embeddings have them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, WIDTH), dtype=np.float32)
    rows *= np.linspace(2, 0.2, WIDTH, dtype=np.float32)
    rows += 0.3
    rows[:, 7] += 20
    return rows


def chunks(n: int, rows: np.ndarray) -> Iterator[np.ndarray]:
    """``n`` rows in chunks, cut from ``rows`` again and again."""
    for at in range(0, n, CHUNK):
        start = at % len(rows)
        yield rows[start : start + min(CHUNK, n - at)]


def family(n: int, rows: np.ndarray, form: str) -> None:
    """Every measure of mean and covariance with its interval, in one pass."""
    from lab import anisotropy

    anisotropy.tabulate(anisotropy.scan(chunks(n, rows), form=form, sample=0))


def product(n: int, rows: np.ndarray) -> None:
    """X^T X of the same chunks, summed: numpy's, which is faster than torch's on a CPU."""
    total = np.zeros((WIDTH, WIDTH))
    for chunk in chunks(n, rows):
        total += chunk.T @ chunk


def isoscore(rows: np.ndarray) -> None:
    """IsoScore with its interval."""
    from lab import anisotropy

    anisotropy.measure(rows, ["isoscore"])


def package(rows: np.ndarray) -> None:
    """IsoScore by the package of its authors, 2.0.1."""
    from IsoScore.IsoScore import IsoScore

    IsoScore(rows)


def average_cosine(rows: np.ndarray) -> None:
    """The average cosine with its interval."""
    from lab import anisotropy

    anisotropy.measure(rows, ["average_cosine"])


def pairwise(rows: np.ndarray) -> None:
    """The average cosine by all pairs, in blocks that fit the cache."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    total = sum(float((unit[at : at + 1000] @ unit.T).sum()) for at in range(0, len(unit), 1000))
    (total - len(unit)) / (len(unit) * (len(unit) - 1))


def of_file(path: str) -> None:
    """Every measure of mean and covariance of an .npy file."""
    from lab import anisotropy

    anisotropy.tabulate(anisotropy.scan(path, sample=0))


def child(what: str, path: str) -> float:
    """What a fresh process measures: our peak memory (MB), or whether the package can allocate."""
    if what == "peak":
        of_file_warm = base(2000)
        np.save(Path(path).with_name("warm.npy"), of_file_warm)
        of_file(str(Path(path).with_name("warm.npy")))  # lazy imports
        return peak_above(lambda: of_file(path))
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    try:
        package(np.load(path))
    except (MemoryError, RuntimeError):
        return 0.0
    return 1.0


def write(path: Path, n: int, rows: np.ndarray) -> None:
    """``n`` rows into an .npy file."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks(n, rows):
            chunk.tofile(file)


def on_disk(n: int, rows: np.ndarray, folder: str) -> Iterator[Ratio]:
    """Peak memory over a file of ``n`` rows, against the bound in MB."""
    path = Path(folder) / f"rows-{n}.npy"
    write(path, n, rows)
    start = time.perf_counter()
    peak = in_child(__file__, "peak", str(path))
    seconds = time.perf_counter() - start
    size = path.stat().st_size / 1e6
    yield ratio(f"peak MB of all measures / {MEMORY:.0f}, from disk ({seconds:.0f} s)",
                f"{n} rows", "MB", [(peak, MEMORY)], 1.0)  # fmt: skip
    if n >= 10_000_000:
        done = in_child(__file__, "package", str(path))
        yield ratio("the package finishes within this machine's memory (1 = yes)",
                    f"{size:.0f} MB", "", [(done, 1.0)], None)  # fmt: skip
    path.unlink()


def measure(options: argparse.Namespace) -> Iterator[Ratio]:
    """All ratios, as they come."""
    rows = base(CHUNK * 16)
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as folder:
        yield from on_disk(10_000_000 if options.huge else 1_000_000, rows, folder)
    if options.huge:
        return
    for form in ("raw", "unit"):
        pairs = interleaved(
            lambda form=form: family(1_000_000, rows, form),
            lambda: product(1_000_000, rows),
            REPEATS,
        )
        for quantity in pairs:
            bound = FAMILY if quantity == "cpu" else None
            yield ratio(f"every moment measure, {form} / X^T X", "1M x 768", f"{quantity} s",
                        pairs[quantity], bound)  # fmt: skip
    cases = [
        ("isoscore / IsoScore 2.0.1", isoscore, package, 100_000, ALONE),
        ("average cosine / all pairs", average_cosine, pairwise, 20_000, PAIRS),
    ]
    for case, ours, theirs, n, bound in cases:
        part = rows[:n]
        pairs = interleaved(lambda f=ours, x=part: f(x), lambda f=theirs, x=part: f(x), REPEATS)
        for quantity in pairs:
            yield ratio(case, f"{n // 1000}k x 768", f"{quantity} s", pairs[quantity],
                        bound if quantity == "cpu" else None)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(__doc__, measure, child, {"huge": "only 10 million rows from disk (31 GB)"}))
