"""Read-outs against one plain forward pass, and one read-out against sentence-transformers.

    python benchmarks/read_outs.py [--quick] [--out FILE] [--threads N]

Both sides run in this one process in turn, A B A B, and the table holds medians of the pairwise
ratios. Bounds are on CPU time of the process (all threads), which other programs on the machine
disturb less than wall time; wall time stands beside it. Idle threads sleep (OMP_WAIT_POLICY): by
default they spin, and on a busy machine most of the CPU time is then waiting. Memory is measured in
a fresh process a side. Exit code 1: a bound is missed.
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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded

MEMORY_REPEATS = 3
# Freed blocks go back at once: otherwise the peak holds what the allocator happens to keep.
PROMPT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
TIMED = {"minilm-l6": 300, "smollm2-135m": 40}  # texts
ALL, ENCODE, MEMORY = 1.25, 1.0, 1.2  # the bounds


@dataclass(frozen=True)
class Ratio:
    """Ours divided by theirs: median, smallest and largest of the pairs."""

    case: str
    checkpoint: str
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


def mixed_texts(n: int, *, median: int = 25, seed: int = 0) -> list[str]:
    """``n`` pieces of shipped texts whose number of words is log-normal, 3 to 250 words."""
    from lab import data

    rng = np.random.default_rng(seed)
    sets = [data.load(name) for name in ("manpages", "debian-synopsis")]
    long = [
        words
        for each in sets
        for row in each.documents
        if len(words := each.texts[row].split()) >= 100
    ]
    texts = []
    for size in np.exp(rng.normal(np.log(median), 0.9, n)).clip(3, 250).astype(int):
        words = long[rng.integers(len(long))]
        start = rng.integers(max(1, len(words) - size))
        texts.append(" ".join(words[start : start + size]))
    return texts


# --- the sides ---------------------------------------------------------------------------------


def all_read_outs(model, texts: list[str]) -> None:  # noqa: ANN001
    """Every layer and every pooling; pays for tokens, batches, pooling, checks and the file."""
    from lab.readout import read_out

    read_out(model, texts, progress=False)


def one_read_out(model, texts: list[str]) -> None:  # noqa: ANN001
    """The mean of the last layer."""
    from lab.readout import read_out

    read_out(model, texts, layers=[-1], poolings=["mean"], progress=False)


def plain_forward(model, texts: list[str]) -> None:  # noqa: ANN001
    """Transformers alone over the batches that ``read_out`` makes: same rows, same padding."""
    import torch

    from lab.readout import batches_by_tokens

    encoder = model.encoder
    tokens = encoder.tokenise(texts)
    cache = {} if encoder.model.config.model_type == "bert" else {"use_cache": False}
    with torch.inference_mode():
        for rows in batches_by_tokens([len(text.ids) for text in tokens], 2048):
            batch = encoder.collate([tokens[row] for row in rows])
            encoder.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **cache
            )


def encode(model, texts: list[str]) -> None:  # noqa: ANN001
    """``encode`` of a model, stock or ours, batch size 32."""
    model.encode(texts, show_progress_bar=False)


def stock(name: str):  # noqa: ANN201
    """The same checkpoint in plain sentence-transformers, pooled by the mean."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from lab.models.checkpoints import CHECKPOINTS

    transformer = Transformer(str(CHECKPOINTS[name].folder()))
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[transformer, pooling], device="cpu")


# --- time --------------------------------------------------------------------------------------


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
    case: str, checkpoint: str, quantity: str, pairs: list[tuple[float, float]], bound: float | None
) -> Ratio:
    """The summary of measured pairs."""
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [one / other for one, other in pairs]
    return Ratio(
        case,
        checkpoint,
        quantity,
        ours,
        theirs,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        len(pairs),
        bound,
    )


def times(name: str, n: int, repeats: int) -> list[Ratio]:
    """All time ratios of one checkpoint."""
    from lab import models

    model, texts = models.load(name, pooling="mean", device="cpu"), mixed_texts(n)
    base = stock(name)
    cases = [
        ("all read-outs / plain forward", all_read_outs, model, plain_forward, model, ALL),
        ("one read-out / stock encode", one_read_out, model, encode, base, ENCODE),
        ("model.encode / stock encode", encode, model, encode, base, None),
    ]
    found = []
    for case, ours, our_model, theirs, their_model, bound in cases:
        pairs = interleaved(
            lambda f=ours, m=our_model: f(m, texts),
            lambda f=theirs, m=their_model: f(m, texts),
            repeats,
        )
        found += [
            ratio(
                case, name, f"{quantity} s", pairs[quantity], bound if quantity == "cpu" else None
            )
            for quantity in pairs
        ]
    return found


# --- memory ------------------------------------------------------------------------------------


def peak_of(side: str, name: str, n: int, median: int) -> float:
    """MB that one side needs above the loaded model, measured in a fresh process."""
    command = [sys.executable, __file__, "--child", side, name, str(n), str(median)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | PROMPT_MALLOC)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def child(side: str, name: str, n: str, median: str) -> None:
    """Print the peak resident memory of one side above what the loaded model holds.

    Each side has done one short text before (lazy imports, token frequencies), and the weights
    have been read from their mapped file. The high-water mark is reset through
    /proc/self/clear_refs.
    """
    from lab import models

    model = models.load(name, device="cpu")
    texts = mixed_texts(int(n), median=int(median))
    run = {"all": all_read_outs, "plain": plain_forward}[side]
    run(model, ["A text."])
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run(model, texts)
    print((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    """A size in kB from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def memories(name: str, n: int, repeats: int) -> list[Ratio]:
    """Peak memory of all read-outs against the plain forward, on mixed and on short texts."""
    found = []
    for what, median in (("mixed", 25), ("short", 4)):
        pairs = [
            (peak_of("all", name, n, median), peak_of("plain", name, n, median))
            for _ in range(repeats)
        ]
        found.append(
            ratio(f"all read-outs / plain forward, {what} texts", name, "peak MB", pairs, MEMORY)
        )
    return found


def growth(name: str, repeats: int) -> Ratio:
    """Peak memory of all read-outs of 8000 short texts against 2000."""
    pairs = [(peak_of("all", name, 8000, 4), peak_of("all", name, 2000, 4)) for _ in range(repeats)]
    return ratio("all read-outs, 8000 / 2000 short texts", name, "peak MB", pairs, MEMORY)


# --- report ------------------------------------------------------------------------------------


def machine(threads: int) -> dict[str, object]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    packages = ("torch", "transformers", "sentence-transformers", "numpy")
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
        f"{found.case:48} {found.checkpoint:13} {found.quantity:8} {found.ours:8.2f} "
        f"{found.theirs:8.2f} {found.ratio:6.3f}  {found.low:.3f}-{found.high:.3f}  {bound}",
        flush=True,
    )


def main() -> int:
    """Measure, print, write; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="minilm-l6 only, fewer repeats")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # texts that are cut
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if options.child:
        child(*options.child)
        return 0
    import torch

    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the child processes
    report = machine(options.threads)
    repeats, memory_repeats = (3, 1) if options.quick else (5, MEMORY_REPEATS)
    ratios: list[Ratio] = []
    for name, n in list(TIMED.items())[: 1 if options.quick else None]:
        for found in [*times(name, n, repeats), *memories(name, n, memory_repeats)]:
            show(found)
            ratios.append(found)
    ratios.append(growth("minilm-l6", memory_repeats))
    show(ratios[-1])
    if options.out:
        report["ratios"] = [asdict(found) | {"holds": found.holds} for found in ratios]
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(found.holds for found in ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
