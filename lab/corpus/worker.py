"""A warm model that embeds one shard after the other."""

import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from lab import manifest, models
from lab.corpus import accumulators, output, plan
from lab.corpus.columns import Columns, default_prompt
from lab.corpus.ledger import Entry, Ledger
from lab.corpus.rows import Reader, Rows
from lab.corpus.sources import Shard
from lab.models.texts import TextError, TruncationWarning
from lab.store import fingerprint
from lab.store.hashing import of_tokenizer, of_weights

PAUSE = 0.5  # seconds between two looks at shards that others work on
PROBE = "A text."
LIBRARIES = ("torch", "transformers", "sentence-transformers")  # that compute
VERSIONS = (*LIBRARIES, "tokenizers", "pyarrow")
# Of the lab, that computes.
CODE = (
    *("pooling.py", "readout.py", "corpus/columns.py"),
    *("models/**/*.py", "poolers/*.py", "repairs/*.py"),
)

Read = tuple[Rows, Mapping[str, np.ndarray], np.ndarray, np.ndarray]


class Worker:
    """A loaded model and the folder it works for. One a process: its ledger is.

    Args:
        out: the folder, with its plan.
        root: where the corpus lies.
        planned: the digest of the plan.
        name: of the worker, in the ledger.
        threads: of torch; default as they are.
        device: of torch; default the GPU if there is one.
        token_budget: padded tokens a batch; default that of :func:`lab.readout.read_out`.

    Raises:
        ValueError: the folder was begun with another plan, model, tokenizer, code or version.
        LookupError, ConnectionError, ModuleNotFoundError: as :func:`lab.models.load`.
    """

    def __init__(
        self,
        out: Path,
        root: Path,
        *,
        planned: str,
        name: str,
        threads: int | None = None,
        device: str | None = None,
        token_budget: int | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.name, self.token_budget = name, token_budget
        self.plan = plan.taken(out, root, planned)
        request = self.plan.request
        self.model = models.load(request.model, device=device, **request.settings)
        self.columns = Columns.of(self.model, request.poolings, request.layers)
        self.prompt = default_prompt(self.model) if request.prompt is None else request.prompt
        probe, _, _ = self.columns.read(self.model, [PROBE], prompt=self.prompt)
        self.empty = {name: vectors[:0] for name, vectors in probe.items()}
        self.settings = {
            "model": models.settings(self.model),
            "weights": of_weights(self.model),
            "tokenizer": of_tokenizer(self.model.encoder.tokenizer),
            "code": fingerprint.of_code(*CODE),
            "versions": {name: version(name) for name in LIBRARIES},
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "prompt": self.prompt,
            "columns": {name: vectors.shape[1] for name, vectors in probe.items()},
        }
        plan.accept(self.plan, self.settings)
        self.reader = Reader(root, request.text_column, request.id_column, self.plan.ids)
        self.ledger = Ledger(self.plan)

    def __enter__(self) -> Self:
        """This worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing; its files are closed and its claims let go."""
        self.reader.close()
        self.ledger.close()

    def embed(self, number: int, begin: Callable[[int], None] | None = None) -> Entry | None:
        """The ledger's new entry of a shard; None if it is done or another process is at it.

        ``begin`` is called with the number once the shard is ours.

        Raises:
            ValueError: a row that cannot be embedded, vectors that are not finite; which.
            OSError: no room; what was there before is untouched.
        """
        with self.ledger.claim(number) as mine:
            if not mine or self.ledger.done(number):
                return None
            if begin:
                begin(number)
            shard = self.plan.shards[number]
            attempt = self.ledger.begin(number, self.name)
            try:
                entry = self._embed(shard)
            except OSError as error:
                raise OSError(error.errno, f"{shard}: {error.strerror or error}") from error
            except (TypeError, ValueError, ArithmeticError) as error:
                raise ValueError(f"{shard}: {error}") from error
            entry |= {"worker": self.name, "attempt": attempt, "finished": manifest.now()}
            self.ledger.finish(number, entry)
            return entry

    def _embed(self, shard: Shard) -> Entry:
        begun = time.monotonic()
        request = self.plan.request
        rows, found, lengths, cut = self._read(self._accept(self.reader.read(shard)))
        vectors = {name: output.stored(one, request.store) for name, one in found.items()}
        path = self.plan.path(shard.number)
        sha256 = output.write(path, rows, self.plan.ids, vectors, lengths, cut, self._about(shard))
        if request.measures != "none":
            accumulators.save(
                accumulators.state_path(self.plan, shard.number),
                {
                    name: accumulators.of(one, shard.first, request.measures)
                    for name, one in vectors.items()
                },
            )
        return {
            "shard": shard.number,
            "file": path.name,
            "sha256": sha256,
            "bytes": path.stat().st_size,
            "source": shard.path,
            "start": shard.start,
            "stop": shard.stop,
            "rows": len(rows.texts),
            "skipped": rows.bad,
            "truncated": int((cut > 0).sum()),
            "tokens": int(lengths.sum()),
            "seconds": round(time.monotonic() - begun, 3),
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "peak_mb": peak_mb(),
            "versions": {name: version(name) for name in VERSIONS},
        }

    def _accept(self, rows: Rows) -> Rows:
        """The rows, unless some are bad and those are to stop everything."""
        if rows.bad and self.plan.request.on_bad == "stop":
            first, more = rows.bad[0], len(rows.bad) - 1
            raise ValueError(
                f"row {first['row']} {first['why']}"
                + (f" ({more} more in this shard)" if more else "")
                + "; mend the corpus, or leave such rows out and list them: --on-bad skip"
            )
        return rows

    def _read(self, rows: Rows) -> Read:
        """Rows, their vectors, tokens and cut tokens; without rows that give no token."""
        if not rows.texts:
            nothing = np.zeros(0, dtype=np.int64)
            return rows, self.empty, nothing, nothing
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # the ledger counts them
            try:
                budget = self.token_budget
                found = self.columns.read(
                    self.model, rows.texts, prompt=self.prompt, token_budget=budget
                )
            except TextError:
                return self._read(self._accept(rows.without(self._refused(rows.texts))))
        return rows, *found

    def _refused(self, texts: Iterable[str]) -> dict[int, str]:
        """Texts that the tokenizer makes nothing of: place -> why."""
        refused = {}
        for place, text in enumerate(texts):
            try:
                self.model.encoder.tokenise([text], self.prompt)
            except TextError as error:
                refused[place] = error.why
        return refused

    def _about(self, shard: Shard) -> dict[str, Any]:
        """What the vectors of a shard are made of: only what the same run gives again."""
        source = next(one for one in self.plan.sources if one.path == shard.path)
        return {
            **self.settings,
            "source": {"path": shard.path, "sha256": source.sha256},
            "rows": [shard.start, shard.stop],
            "store": self.plan.request.store,
        }


def work(
    worker: Worker,
    numbers: Iterable[int],
    begin: Callable[[int], None],
    done: Callable[[Entry], None],
    stopped: Callable[[], bool],
) -> None:
    """Nothing; every one of the shards is done, by this worker or another, unless stopped.

    A shard that another process works on is waited for: should that process die, it is taken over.

    Raises:
        ValueError, OSError: as :meth:`Worker.embed`.
    """
    waiting = list(numbers)
    while waiting := worker.ledger.pending(waiting):
        moved = False
        for number in waiting:
            if stopped():
                return
            if entry := worker.embed(number, begin):
                done(entry)
                moved = True
        if not moved:
            time.sleep(PAUSE)


def short(entry: Entry) -> dict[str, Any]:
    """What a listener needs of an entry: a line stays short however many rows were skipped."""
    kept = {key: entry[key] for key in ("shard", "rows", "tokens", "seconds", "worker")}
    return kept | {"skipped": len(entry["skipped"])}


def peak_mb() -> float:
    """The most resident memory this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
