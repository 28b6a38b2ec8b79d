"""Data sets: one typed frame whether the files are shipped, in a local mirror or from the hub.

::

    load(name, split) -> Dataset(texts, frame)      frame holds positions into texts

``texts`` are unique, so each is embedded once; ``frame`` says what belongs together. Files are
verified by sha256 before they are parsed (``lab.data.sources``) and read by kind
(``lab.data.readers``).
A name is the last part of a data set's folder ("stsb-en"); where two folders share it, the shipped
one has the short name and the other is asked for in full ("pairs/wordnet-definitions").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lab import paths
from lab.data import hub
from lab.data.readers import READERS, SAMPLERS, TEXT_COLUMNS, Rows, count
from lab.data.sources import Source, available, read_manifest
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


@dataclass(frozen=True)
class Entry:
    """A named data set and every place it can be had from, in the order they are tried."""

    name: str
    key: str
    sources: tuple[Source, ...]
    hub: hub.Hub | None

    @property
    def origins(self) -> list[str]:
        """Where it can be read from now; the hub counts unless it is switched off."""
        on_hub = self.hub is not None and not hub.offline()
        return list(dict.fromkeys([s.origin for s in self.sources] + ["hub"] * on_hub))

    def open(self) -> Source:
        """The first readable copy; downloads from the hub when there is no other.

        Raises:
            ConnectionError: only the hub has it and the hub cannot be reached.
        """
        if self.sources:
            return self.sources[0]
        assert self.hub is not None  # an entry has a copy or an address
        return self.hub.download()


class Catalogue(Mapping[str, Entry]):
    """Every known data set by name, read from the manifests each time it is asked."""

    def _entries(self) -> dict[str, Entry]:
        by_key: dict[str, list[Source]] = {}
        for source in available():
            by_key.setdefault(source.key, []).append(source)
        by_key.update({key: [] for key in hub.HUB if key not in by_key})
        entries: dict[str, Entry] = {}
        for key, copies in by_key.items():
            short = key.split("/")[-1]
            name = key if short in entries else short
            entries[name] = Entry(name, key, tuple(copies), hub.HUB.get(key))
        return entries

    def __getitem__(self, name: str) -> Entry:
        """The entry of that short or full name; LookupError lists the others and the nearest."""
        entries = self._entries()
        by_key = {entry.key: entry for entry in entries.values()}
        if name not in entries and name not in by_key:
            raise LookupError(unknown("data set", name, entries))
        return entries.get(name) or by_key[name]

    def __iter__(self) -> Iterator[str]:
        """Names: shipped ones, then the mirror's, then what only the hub has."""
        return iter(self._entries())

    def __contains__(self, name: object) -> bool:
        """Whether there is a data set of that short or full name."""
        return any(name in (entry.name, entry.key) for entry in self._entries().values())

    def __len__(self) -> int:
        """How many are known."""
        return len(self._entries())


DATASETS = Catalogue()


def load(
    name: str,
    split: str = "test",
    *,
    n: int | None = None,
    seed: int = 0,
    full_corpus: bool = False,
) -> Dataset:
    """The data set ``name``, verified, as unique texts and a frame of positions into them.

    The first of shipped, mirror, hub that has it is read. ``n`` keeps that many units, drawn by
    ``seed``: pairs; scored texts, each label in proportion (and as many train texts); or queries,
    with the documents judged for them as the corpus, or with all documents if ``full_corpus``.
    Sets without splits have the one split "all"; of classification its halves, cut by ``seed``,
    are the train and the test part.

    Raises:
        LookupError: no such data set or split.
        FileNotFoundError: a file, or the manifest in ``LAB_DATA``, is missing.
        TypeError: ``n`` is not a whole number.
        ValueError: a damaged file, a blank text, or an ``n`` that cannot be drawn.
        ConnectionError: only the hub has it and it cannot be reached.
    """
    entry = DATASETS[name]
    name, source = entry.name, entry.open()
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


def listing() -> pd.DataFrame:
    """One row per data set: what it is, under which licence, and where it can be had from now.

    ``repeated`` counts texts that occur in two splits, as far as the manifest states it; rows are
    those of each split, and empty for a hub set that was never downloaded.
    """
    table = pd.DataFrame([_listed(entry) for entry in DATASETS.values()])
    order = ["name", "kind", "splits", "rows", "licence", "licence_class", "origins", "checked"]
    return table[[*order, "repeated"]].astype({"repeated": "Int64"})


def _listed(entry: Entry) -> dict[str, object]:
    about = {"name": entry.name, "origins": ", ".join(entry.origins)}
    if not entry.sources:
        assert entry.hub is not None  # an entry has a copy or an address
        return about | {
            "kind": entry.hub.kind,
            "splits": ", ".join(entry.hub.splits),
            "rows": "",
            "licence": entry.hub.licence,
            "licence_class": entry.hub.licence_class,
            "checked": "at the download",
            "repeated": pd.NA,
        }
    source = entry.sources[0]
    return about | {
        "kind": source.kind,
        "splits": ", ".join(source.splits),
        "rows": ", ".join(str(source.rows(split)) for split in source.splits),
        "licence": source.entry["licence"],
        "licence_class": source.entry["licence_class"],
        "checked": source.checked,
        "repeated": source.entry.get("texts_in_two_splits", pd.NA),
    }


def fetch(name: str) -> Path:
    """The folder of ``name`` in the mirror, downloaded from the hub unless it is there intact.

    Every file is written under a temporary name and renamed, the manifest (with the sha256 of each
    file) last, so a fetch that stops half-way leaves the mirror as it was.

    Raises:
        LookupError: no such data set on the hub.
        ValueError: ``LAB_DATA`` is not set.
        ConnectionError: the hub cannot be reached.
    """
    mirror = paths.mirror()
    if mirror is None:
        raise ValueError(
            "fetching writes into the mirror and LAB_DATA is not set; set it to the folder that "
            "is, or shall become, the mirror"
        )
    address, present = hub.find(name), []
    if mirror.is_dir() and any(mirror.iterdir()):
        present = [s for s in read_manifest(mirror, "mirror") if s.key == address.key]
    if not any(source.intact() for source in present):
        address.download(mirror)
    return mirror / address.key
