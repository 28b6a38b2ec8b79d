"""Data sets: one typed frame whether the files are shipped, in a local mirror or from the hub.

::

    load(name, split) -> Dataset(texts, frame)      frame holds positions into texts

``texts`` are unique, so each is embedded once; ``frame`` says what belongs together. Files are
verified by sha256 before they are parsed (``lab.data.sources``) and read by kind
(``lab.data.readers``).
A name is the last part of a data set's folder ("stsb-en"); where two folders share it, the shipped
one has the short name and the other is asked for in full ("pairs/wordnet-definitions"). Names such
as "needle-1024" and "passkey-8192" are of sets that are generated (``lab.data.synthetic``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lab import paths
from lab.data import hub, synthetic
from lab.data.dataset import Dataset, read
from lab.data.sources import Source, available, read_manifest
from lab.registry import unknown

__all__ = ["DATASETS", "Catalogue", "Dataset", "Entry", "fetch", "listing", "load"]


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
        found = entries.get(name) or by_key.get(name) or _generated(name)
        if found is None:
            known = [*entries, *(str(row["name"]) for row in synthetic.listing())]
            raise LookupError(unknown("data set", name, known))
        return found

    def __iter__(self) -> Iterator[str]:
        """Names: shipped ones, the mirror's, what only the hub has; not the generated ones."""
        return iter(self._entries())

    def __contains__(self, name: object) -> bool:
        """Whether there is a data set of that short or full name, generated ones included."""
        listed = any(name in (entry.name, entry.key) for entry in self._entries().values())
        return listed or (isinstance(name, str) and synthetic.find(name) is not None)

    def __len__(self) -> int:
        """How many are known."""
        return len(self._entries())


DATASETS = Catalogue()


def _generated(name: str) -> Entry | None:
    source = synthetic.find(name)
    if source is None:
        return None
    return Entry(source.key.split("/")[-1], source.key, (source,), None)


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
    are the train and the test part. What a generated set holds does not depend on ``seed``.

    Raises:
        LookupError: no such data set or split.
        FileNotFoundError: a file, or the manifest in ``LAB_DATA``, is missing.
        TypeError: ``n`` is not a whole number.
        ValueError: a damaged file, a blank text, an ``n`` that cannot be drawn, or a length that
            cannot be generated.
        ConnectionError: only the hub has it and it cannot be reached.
    """
    entry = DATASETS[name]
    return read(entry.open(), split, seed=seed, name=entry.name, n=n, full_corpus=full_corpus)


def listing() -> pd.DataFrame:
    """One row per data set: what it is, under which licence, and where it can be had from now.

    ``repeated`` counts texts that occur in two splits, as far as the manifest states it; rows are
    those of each split, and empty for a hub set that was never downloaded. Generated sets have one
    row for all lengths.
    """
    rows = [_listed(entry) for entry in DATASETS.values()]
    table = pd.DataFrame(rows + synthetic.listing())
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
