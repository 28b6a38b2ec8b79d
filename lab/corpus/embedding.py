"""A corpus to vectors, from the first shard to the summary; begun, gone on with or finished."""

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import atomic
from lab import share as shares
from lab.corpus import plan as plans
from lab.corpus.executors import EXECUTORS
from lab.corpus.ledger import Ledger
from lab.corpus.plan import Plan, Request
from lab.corpus.resources import Listen, Resources, Stop

SUMMARY = "summary.json"


def embed(
    corpus: Path,
    out: Path,
    request: Request,
    resources: Resources | None = None,
    *,
    executor: str = "processes",
    share: tuple[int, int] = (1, 1),
    verify: bool = True,
    listen: Listen | None = None,
) -> dict[str, Any] | None:
    """The summary of a corpus whose vectors are all in ``out``; None while shards are missing.

    What is done already is not done again, whoever did it. Several calls may work on one folder at
    the same time, on one machine or on several.

    Args:
        corpus: a file (.parquet, .jsonl, .jsonl.gz) or a folder of them.
        out: where the vectors go: a new folder, or one that was begun with the same request.
        request: what is wanted of the corpus.
        resources: what it is done with.
        executor: ``processes``, ``serial`` or ``ray``.
        share: (i, n): only every n-th shard, from the i-th on; for the i-th of n array jobs.
        verify: check the files of finished shards against their checksums first.
        listen: gets every event: plan, damaged, loading, ready, begin, done, died, summary.

    Raises:
        ValueError: a bad corpus, row (which) or share; ``out`` was begun otherwise (how).
        LookupError: an unknown column, model, setting, pooling, layer mix or executor.
        OSError: no room; what is done stays done.
        ChildProcessError: workers that die again and again on one shard (an OSError).
        FloatingPointError: the model gives a vector that is not finite.
        KeyboardInterrupt: SIGINT or SIGTERM came; the shards in hand were finished first.
    """
    run, say = EXECUTORS[executor], listen or (lambda event: None)
    resources = resources or Resources()
    part, parts = shares.check(*share)
    plan = plans.make(corpus, out, request)
    numbers = list(range(part - 1, len(plan.shards), parts))
    with Ledger(plan) as ledger:
        if verify:
            ledger.verify(numbers, lambda number, why: _damaged(plan, number, why, say))
        waiting = ledger.pending(numbers)
        say(_start(plan, numbers, waiting))
        with _interruptible() as stop:
            if waiting:
                run(plan, waiting, resources, say, stop)
        left = len(ledger.pending(numbers))
        if left and stop.times:
            raise KeyboardInterrupt(f"stopped with {left} of {len(numbers)} shards to do")
        if ledger.pending(range(len(plan.shards))):
            return None
        summary = _summary(plan, ledger)
    say({"event": "summary", **{key: summary[key] for key in ("rows", "skipped", "truncated")}})
    return summary


def _start(plan: Plan, numbers: Sequence[int], waiting: Sequence[int]) -> dict[str, Any]:
    rows = sum(plan.shards[number].stop - plan.shards[number].start for number in waiting)
    return {
        "event": "plan",
        "shards": len(numbers),
        "waiting": len(waiting),
        "rows": rows,
        "corpus_rows": plan.rows,
        "files": len(plan.sources),
    }


def _damaged(plan: Plan, number: int, why: str, say: Listen) -> None:
    """Nothing; what was made of a damaged shard goes with it."""
    (plan.out / SUMMARY).unlink(missing_ok=True)
    say({"event": "damaged", "shard": number, "why": why})


def _summary(plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """The summary of a finished folder, which is made if it is not there yet."""
    path = plan.out / SUMMARY
    with plans.locked(plan.out):
        if not path.exists():
            atomic.write(path, json.dumps(_summarise(plan, ledger), indent=1) + "\n")
        return dict(json.loads(path.read_text(encoding="utf-8")))


def _summarise(plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """Counts over all shards, and the measures of every column."""
    counts = dict.fromkeys(("rows", "truncated", "tokens", "seconds", "bytes"), 0)
    skipped = 0
    for entry in ledger.entries():
        skipped += len(entry["skipped"])
        for name in counts:
            counts[name] += entry[name]
    settings = json.loads((plan.out / plans.SETTINGS).read_text(encoding="utf-8"))
    summary = {"shards": len(plan.shards), **counts, "skipped": skipped, **settings}
    if plan.request.measures != "none":
        from lab.corpus import accumulators  # needs torch, which a second look at a folder does not

        summary |= accumulators.summarise(plan, list(settings["columns"]))
    return summary


@contextmanager
def _interruptible() -> Iterator[Stop]:
    """Counts SIGINT and SIGTERM while the context is open (main thread only)."""
    stop = Stop()

    def count(*_: object) -> None:
        stop.times += 1

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
