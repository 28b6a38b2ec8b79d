"""What every data set is once it is read: unique texts to embed, and a frame of positions."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.data.readers import READERS, SAMPLERS, TEXT_COLUMNS, Rows, count
from lab.data.sources import Source
from lab.manifest import record_input
from lab.registry import unknown


@dataclass(frozen=True)
class Dataset:
    """Unique texts to embed, and a frame of positions into them.

    kind                 columns of ``frame``
    sts                  first, second, score (on the data set's own range)
    pair_classification  first, second, label (bool)
    classification       text, label (str), part ("train" rows fit, "test" rows are scored)
    clustering           text, label (str)
    retrieval            query, document, relevance; also ``queries`` and ``documents`` (the corpus)
    pairs                anchor, positive and, in some sets, negative

    ``repeated`` are positions of texts that occur in the train and in the test part; ``notes`` say
    what was left out; ``checked`` what the sha256 sums were taken from.
    """

    name: str
    kind: str
    split: str
    texts: list[str]
    frame: pd.DataFrame
    origin: str
    licence: str
    sha256: dict[str, str]
    n: int | None
    seed: int
    checked: str = "manifest"
    queries: np.ndarray | None = None
    documents: np.ndarray | None = None
    repeated: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def read(
    source: Source,
    split: str,
    *,
    seed: int,
    name: str | None = None,
    n: int | None = None,
    full_corpus: bool = False,
) -> Dataset:
    """One split of one source, sampled if ``n`` says so and recorded as an input of the run.

    ``name`` is what it was asked for by: the last part of its key unless given. The rest, and what
    is raised, is that of :func:`lab.data.load`.
    """
    name = name or source.key.split("/")[-1]
    if split not in source.splits:
        raise LookupError(unknown(f"split of {name}", split, source.splits))
    kind, rng = source.kind_of(split), np.random.default_rng(seed)
    rows = READERS[kind](source, split, rng)
    if n is not None:
        n = _drawable(n, count(rows, kind), f"{name}/{split}")
        rows = SAMPLERS[kind](rows, n, rng, full_corpus)
    files = {str(source.root / file): digest for file, digest in source.digests(split).items()}
    record_input(
        "dataset", name=name, split=split, origin=source.origin, n=n, seed=seed, files=files
    )
    return _assemble(name, split, source, rows, n=n, seed=seed)


def _drawable(n: int, units: int, what: str) -> int:
    """``n`` as a plain int, if so many units can be drawn from ``units``."""
    message = (
        f"n={n!r} of {what}: it has {units} to draw from; ask for a whole number from 1 to "
        f"{units}, or None for all"
    )
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(message)
    if not 1 <= n <= units:
        raise ValueError(message)
    return int(n)


def _assemble(
    name: str, split: str, source: Source, rows: Rows, *, n: int | None, seed: int
) -> Dataset:
    """Texts replaced by positions into the list of unique texts, in order of appearance."""
    kind = source.kind_of(split)
    frame = rows.frame.reset_index(drop=True)
    columns = [column for column in TEXT_COLUMNS[kind] if column in frame]
    if kind == "retrieval":
        listed = [*frame["query"], *rows.documents]
    else:
        listed = frame[columns].to_numpy().ravel().tolist()
    texts = list(dict.fromkeys(listed))
    position = {text: i for i, text in enumerate(texts)}
    frame = frame.assign(**{c: frame[c].map(position).astype(np.int64) for c in columns})
    queries = documents = None
    if kind == "retrieval":
        queries = frame["query"].unique()
        documents = np.array([position[text] for text in rows.documents])
    repeated: tuple[int, ...] = ()
    if kind == "classification":
        parts = frame.groupby("text")["part"].nunique()
        repeated = tuple(parts[parts > 1].index)
    return Dataset(
        name=name,
        kind=kind,
        split=split,
        texts=texts,
        frame=frame,
        origin=source.origin,
        licence=source.entry["licence"],
        sha256=source.digests(split),
        n=n,
        seed=seed,
        checked=source.checked,
        queries=queries,
        documents=documents,
        repeated=repeated,
        notes=rows.notes,
    )
