"""`lab embed` against sentence-transformers' encode: the same model, texts and threads, in one run.

    python benchmarks/corpus.py [--quick] [--kills] [--texts N] [--out FILE] [--threads N]

Both sides run in turn with the model loaded. Ours reads the texts from a JSONL file and writes
Parquet, checksums, ledger and the states of the measures; theirs has the texts in memory and keeps
the vectors. The summary at the end is timed by itself: it takes as long for any number of texts.
`--kills` kills a run with SIGKILL three times, resumes it and compares its files with those of an
undisturbed one. Exit code 1: a bound is missed. docs/billion.md is calculated from the rates.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from read_outs import mixed_texts, stock
from side_by_side import Ratio, machine, ratio, show

MODEL, COLUMN = "minilm-l6", "mean_layer_6"
WORDS = 8  # of the median text
BOUND = 1.0  # our CPU seconds / theirs
KILLS = 3
DRIVER = "import typer; from lab.corpus.command import embed; typer.run(embed)"


def write_corpus(texts: list[str], path: Path) -> Path:
    """A JSONL file with these texts."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def timed(side: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """CPU and wall seconds of a call, and what it returned."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = side()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}, found


def ours(corpus: Path, out: Path, options: argparse.Namespace) -> tuple[dict, float, dict]:
    """Seconds for all shards, seconds for the summary, and the summary."""
    from lab.corpus.embedding import embed
    from lab.corpus.plan import Request, make
    from lab.corpus.resources import Resources
    from lab.corpus.worker import Worker, work

    def quiet(_: object) -> None: ...

    request = Request(MODEL, poolings=["mean"], layers=[-1], shard_rows=options.shard_rows)
    plan = make(corpus, out, request)
    numbers = range(len(plan.shards))
    resources = Resources(threads=options.threads, device="cpu")
    with Worker(out, plan.root, **resources.options("ours", plan.digest)) as worker:
        worked, _ = timed(lambda: work(worker, numbers, quiet, quiet, stopped=lambda: False))
    summed, summary = timed(lambda: embed(corpus, out, request, resources, verify=False))
    return worked, summed["wall"], summary or {}


def compare(
    texts: list[str], folder: Path, options: argparse.Namespace
) -> tuple[list[Ratio], dict]:
    """The ratios of seconds, and the rates of our side."""
    from lab.corpus import output

    corpus, model = write_corpus(texts, folder / "corpus.jsonl"), stock(MODEL)
    model.encode(texts[:64], show_progress_bar=False)
    pairs: dict[str, list[tuple[float, float]]] = {"cpu": [], "wall": []}
    for repeat in range(options.repeats):
        out = folder / f"out-{repeat}"
        worked, summed, summary = ours(corpus, out, options)
        took, wanted = timed(lambda: model.encode(texts, show_progress_bar=False))
        files = sorted((out / "shards").iterdir())
        found = np.concatenate([output.read(file, COLUMN) for file in files])
        assert np.allclose(found, wanted, atol=1e-5), "the vectors are not those of encode"
        for quantity, both in pairs.items():
            both.append((worked[quantity], took[quantity]))
    rates = {
        "texts": len(texts),
        "shard_rows": options.shard_rows,
        "tokens_per_text": summary["tokens"] / len(texts),
        "texts_per_s": len(texts) / worked["wall"],
        "tokens_per_s": summary["tokens"] / worked["wall"],
        "bytes_per_text": summary["bytes"] / len(texts),
        "summary_s": summed,
    }
    bounds, case = {"cpu": BOUND, "wall": None}, "lab embed / stock encode"
    ratios = [ratio(case, MODEL, f"{one} s", pairs[one], bounds[one]) for one in pairs]
    return ratios, rates


def killed(texts: list[str], folder: Path, options: argparse.Namespace) -> dict:
    """What became of a run that was killed three times: equal files, shards done twice."""
    corpus = write_corpus(texts, folder / "corpus.jsonl")
    arguments = [str(corpus), "--model", MODEL, "--shard-rows", str(options.shard_rows)]
    arguments += ["--threads", str(options.threads), "--device", "cpu"]
    rng, out = random.Random(0), folder / "killed"

    def start(where: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", DRIVER, *arguments, "--out", str(where)]
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)

    def done() -> int:
        return len(list((out / "ledger").glob("*.json")))

    shards = -(-len(texts) // options.shard_rows)
    for kill in range(1, KILLS + 1):
        process, goal = start(out), done() + rng.randint(1, max(1, shards // (KILLS + 1)))
        while done() < min(goal, shards - KILLS + kill - 1) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for where in (out, folder / "undisturbed"):
        assert start(where).wait() == 0
    pair = [
        {file.name: file.read_bytes() for file in (where / "shards").iterdir()}
        for where in (out, folder / "undisturbed")
    ]
    entries = [json.loads(file.read_text()) for file in (out / "ledger").glob("*.json")]
    again = sum(entry["attempt"] - 1 for entry in entries)
    return {"kills": KILLS, "equal": pair[0] == pair[1], "shards": shards, "done_again": again}


def main() -> int:
    """Measure, print, write; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2000 texts instead of 200 000")
    parser.add_argument("--kills", action="store_true", help="also kill and resume a run")
    parser.add_argument("--texts", type=int, help="default 200 000")
    parser.add_argument("--repeats", type=int, default=1, help="pairs; default 1")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": str(options.threads)}
    import torch

    torch.set_num_threads(options.threads)
    n = options.texts or (2000 if options.quick else 200_000)
    options.shard_rows = max(1000, min(10_000, n // 20))
    report: dict = machine(options.threads)
    texts = mixed_texts(n, median=WORDS)
    with tempfile.TemporaryDirectory(prefix="lab-corpus-") as folder:
        found, report["rates"] = compare(texts, Path(folder), options)
    for one in found:
        show(one)
    print(json.dumps(report["rates"], indent=1))
    report["ratios"] = [asdict(one) | {"holds": one.holds} for one in found]
    if options.kills:
        with tempfile.TemporaryDirectory(prefix="lab-corpus-") as folder:
            options.shard_rows = max(50, min(10_000, n // 20))
            report["killed"] = killed(texts, Path(folder), options)
        print(report["killed"])
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    holds = all(one.holds for one in found)
    return 0 if holds and report.get("killed", {"equal": True})["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
