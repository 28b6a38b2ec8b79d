"""A sweep of 24 real runs: two at a time against one, its cost over bare nbclient, its resume.

    python benchmarks/sweep.py [--quick] [--out FILE]

Real runs are of notebook 00 on MiniLM, one seed each, one thread each, in three blocks that are
swept in turn by both executors: `lab sweep` as a user starts it, wall time. What a run costs beyond
its cells is measured on a notebook with almost none: a sweep of 8 against `nbclient` in a process
that has imported everything; its bound is on CPU time, as everywhere in this folder. Two processes
of bare matrix products show what the cores can do at once: cores that share a unit of arithmetic do
less than twice. ``--quick``: 6 real runs. Exit code 1: a bound is missed, or a table of the
parallel sweep is not, byte for byte, that of the serial one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nbformat
from side_by_side import Ratio, main, ratio

SPEED, COST, RESUME = 1 / 1.7, 3.0, 2.0  # the bounds: ratio, seconds a run, seconds
BLOCKS, RUNS, QUICK, SHORT = 3, 8, 2, 8
REAL = "{notebook: '00', threads: 1, parameters: {checkpoint: minilm-l6, n: 20, resamples: 100}, "
ARITHMETIC = "import torch; a = torch.randn(1200, 1200); [a @ a for _ in range(60)]"
TINY = "n: int = 3  # how many\nout_dir: str = 'runs'"


def series(root: Path, name: str, entry: str, values: Sequence[int], parameter: str) -> Path:
    """A series file of one run a value."""
    path = root / f"{name}.yaml"
    path.write_text(f"runs: {{{name}: {entry}grid: {{{parameter}: {list(values)}}}}}}}\n")
    return path


def sweep(path: Path, out: Path, jobs: int) -> float:
    """Seconds that `lab sweep` takes."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "lab.cli", "sweep", str(path), "--out", str(out)]
    done = subprocess.run([*command, "-j", str(jobs)], capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{path}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds


def of_real_runs(root: Path, runs: int) -> Iterator[Ratio]:
    """Speed and equality of tables; then the second sweep of everything."""
    pairs = []
    for block in range(BLOCKS):
        seeds = range(block * runs, (block + 1) * runs)
        path = series(root, f"real{block}", REAL, seeds, "seed")
        pairs.append((sweep(path, root / "two", 2), sweep(path, root / "one", 1)))
    one, two = (
        {(p.parent.name, p.name): p.read_bytes() for p in (root / out).rglob("*.parquet")}
        for out in ("one", "two")
    )
    if not one or one != two:
        raise RuntimeError("the parallel sweep left other tables than the serial one")
    yield ratio(f"{BLOCKS * runs} runs, -j 2 / -j 1", "notebook 00", "wall s", pairs, SPEED)
    yield ratio("two matrix products at once / in turn", "no lab", "wall s", ceiling(), None)
    path = series(root, "real", REAL, range(BLOCKS * runs), "seed")
    seconds = min(sweep(path, root / "two", 2) for _ in range(3))
    yield ratio("second sweep / 2 s", "notebook 00", "wall s", [(seconds, RESUME)], 1.0)


def ceiling() -> list[tuple[float, float]]:
    """Seconds of two processes of one thread at once, and in turn: what the cores allow."""
    command = [sys.executable, "-c", ARITHMETIC]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}

    def at_once() -> None:
        both = [subprocess.Popen(command, env=alone) for _ in range(2)]
        for one in both:
            one.wait()

    def in_turn() -> None:
        for _ in range(2):
            subprocess.run(command, env=alone, check=True)

    return [(timed(at_once)[1], timed(in_turn)[1]) for _ in range(BLOCKS)]


def of_one_run(root: Path) -> Iterator[Ratio]:
    """What a run of a sweep takes beyond bare nbclient, in seconds."""
    cells = [nbformat.v4.new_code_cell(text) for text in (TINY, "print(n, out_dir)")]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "01_tiny.ipynb")
    path = series(root, "tiny", "{notebook: 01_tiny.ipynb, threads: 1, ", range(SHORT), "n")
    swept = timed(lambda: sweep(path, root / "tiny", 1))
    bare(root)
    client = timed(lambda: [bare(root) for _ in range(SHORT)])
    for quantity, ours, theirs in zip(("cpu s", "wall s"), swept, client, strict=True):
        cost = (ours - theirs) / SHORT
        yield ratio("(a run of a sweep - bare nbclient) / 3 s", "no cells", quantity,
                    [(cost, COST)], 1.0 if quantity == "cpu s" else None)  # fmt: skip


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of CPU time, of this process and its children, and of wall time."""
    begun, cpu = time.perf_counter(), used()
    call()
    return used() - cpu, time.perf_counter() - begun


def used() -> float:
    """Seconds of CPU time so far, of this process and of the children that have ended."""
    return sum(os.times()[:4])


def bare(root: Path) -> None:
    """The same notebook by nbclient alone."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    quiet = Config({"AsyncKernelManager": {"transport": "ipc"}})  # TCP warns on every start
    notebook = nbformat.read(root / "01_tiny.ipynb", 4)
    NotebookClient(notebook, kernel_name="python3", config=quiet).execute()


def measure(options: argparse.Namespace) -> Iterator[Ratio]:
    """All ratios, as they come."""
    with tempfile.TemporaryDirectory() as scratch:
        yield from of_one_run(Path(scratch))
        yield from of_real_runs(Path(scratch), QUICK if options.quick else RUNS)


if __name__ == "__main__":
    sys.exit(main(__doc__, measure, lambda: 0.0, {"quick": "6 real runs in place of 24"}))
