"""What every benchmark of this folder needs: pairs of sides in one process, ratios, a record.

Both sides run in turn, A B A B; a ratio is the median of the pairs. Bounds are on CPU time of the
process (all threads), which other programs on the machine disturb less than wall time. Idle
threads sleep (OMP_WAIT_POLICY): by default they spin, and on a busy machine most of the CPU time is
then waiting.
"""

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
os.environ["LAB_REUSE"] = "0"  # what is timed is computed, in runs that are started from here too

# Freed blocks go back at once: otherwise the peak holds what the allocator happens to keep.
PROMPT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


@dataclass(frozen=True)
class Ratio:
    """Ours divided by theirs: median, smallest and largest of the pairs.

    ``subject``: the checkpoint, or the rows that were measured.
    """

    case: str
    subject: str
    quantity: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    pairs: int
    bound: float | None

    @property
    def holds(self) -> bool:
        """Whether the bound, if there is one, is kept."""
        return self.bound is None or self.ratio <= self.bound


def interleaved(
    ours: Callable[[], None], theirs: Callable[[], None], repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Pairs (ours, theirs) in seconds, of wall and of CPU time, after one warm-up each."""
    pairs: dict[str, list[tuple[float, float]]] = {"cpu": [], "wall": []}
    ours(), theirs()
    for _ in range(repeats):
        measured = [_timed(side) for side in (ours, theirs)]
        for place, quantity in enumerate(pairs):
            pairs[quantity].append((measured[0][place], measured[1][place]))
    return pairs


def _timed(side: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    side()
    return time.process_time() - cpu, time.perf_counter() - wall


def ratio(
    case: str, subject: str, quantity: str, pairs: list[tuple[float, float]], bound: float | None
) -> Ratio:
    """The summary of measured pairs."""
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [one / other for one, other in pairs]
    return Ratio(
        case,
        subject,
        quantity,
        ours,
        theirs,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        len(pairs),
        bound,
    )


def machine(threads: int) -> dict[str, object]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    packages = ("torch", "transformers", "sentence-transformers", "numpy", "scipy")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": sys.version.split()[0],
        "os": platform.system(),
        "load_before": os.getloadavg()[0],
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "omp_wait_policy": os.environ["OMP_WAIT_POLICY"],
    }


def show(found: Ratio) -> None:
    """One line of the table."""
    bound = f"<= {found.bound}" + ("" if found.holds else "  MISSED") if found.bound else ""
    print(
        f"{found.case:48} {found.subject:13} {found.quantity:8} {found.ours:8.2f} "
        f"{found.theirs:8.2f} {found.ratio:6.3f}  {found.low:.3f}-{found.high:.3f}  {bound}",
        flush=True,
    )


def peak_above(run: Callable[[], object]) -> float:
    """MB of resident memory that a call needs at its peak, above what the process holds before.

    The high-water mark is reset through /proc/self/clear_refs.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """A size in kB from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def in_child(script: str, *arguments: str) -> float:
    """The number that ``script --child ARGUMENTS`` prints last, from a fresh process."""
    command = [sys.executable, script, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | PROMPT_MALLOC)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def main(
    doc: str,
    measure: Callable[[argparse.Namespace], Iterable[Ratio]],
    child: Callable[..., float],
    flags: Mapping[str, str],
) -> int:
    """Measure, print, write; 1 when a bound is missed.

    ``measure`` gives ratios as they come; ``child`` is what a fresh process does; ``flags`` are
    switches with their help.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for flag, words in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=words)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if options.child:
        print(child(*options.child))
        return 0
    import torch

    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the child processes
    report = machine(options.threads)
    ratios = []
    for found in measure(options):
        show(found)
        ratios.append(found)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report["ratios"] = [asdict(found) | {"holds": found.holds} for found in ratios]
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(found.holds for found in ratios) else 1
