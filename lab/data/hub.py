"""Data sets of the Hugging Face hub, at pinned revisions, rewritten into the mirror's layout.

Repositories and revisions are those of mteb's task metadata (mteb 2.26); only sets whose rows are
those of the mirror's set of the same name, or that the mirror lacks, are listed.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lab import paths
from lab.data.sources import Source, hub_cache, read_manifest, store
from lab.registry import unknown

TABLES = re.compile(r"\.(parquet|csv|tsv|jsonl)(\.gz)?$")
STATED = "hash stated by the hub at the pinned revision; recorded at the first download"
SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # our name -> the hub's


@dataclass(frozen=True)
class Hub:
    """The address of one data set on the hub, at one commit.

    A downloaded file is checked against its entry in ``sha256`` or, where that has none, against
    what an earlier download recorded; always also against the content hash which the hub states
    for it at the pinned commit (sha256 of a large file, git's blob id of a small one).
    """

    key: str
    repo: str
    revision: str
    licence: str
    licence_class: str
    splits: tuple[str, ...] = ("test",)
    about: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of the data set: its folder."""
        return self.key.split("/")[0]

    def download(self, into: Path | None = None) -> Source:
        """The data set rewritten into the folder ``into`` (default: the hub cache), and recorded.

        Raises:
            ConnectionError: the hub cannot be reached or does not answer with the files.
            ValueError: a file has another hash than it should, or the repository lacks a split.
        """
        into = into or hub_cache()
        recorded, files, digests = self._recorded(into), {}, {}
        for name, (path, stated) in self._download().items():
            digests[name] = self._verify(name, path, stated, recorded)
            files[name] = path
        committed = set(files) <= set(self.sha256)
        entry = {
            "kind": self.kind,
            "source": f"Hugging Face hub, {self.repo} @ {self.revision}",
            "licence": self.licence,
            "licence_class": self.licence_class,
            "checked": "sha256 committed in lab/hub.py" if committed else STATED,
            "hub": digests,
            **self.about,
        }
        store(into, self.key, entry, self._tables(files))
        return next(s for s in read_manifest(into, "hub") if s.key == self.key)

    def _download(self) -> dict[str, tuple[Path, Any]]:
        """Name in the repository -> the downloaded file and what the hub states about it."""
        from huggingface_hub import HfApi, errors, hf_hub_download

        if offline():
            raise self._unreachable("HF_HUB_OFFLINE is set")
        try:
            info = HfApi().dataset_info(self.repo, revision=self.revision, files_metadata=True)
            stated = [x for x in info.siblings or [] if TABLES.search(x.rfilename)]
            fetched = [
                hf_hub_download(self.repo, x.rfilename, repo_type="dataset", revision=self.revision)
                for x in stated
            ]
        except (errors.HTTPError, errors.EntryNotFoundError, ConnectionError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise self._unreachable(reason) from error
        return {x.rfilename: (Path(path), x) for x, path in zip(stated, fetched, strict=True)}

    def _unreachable(self, reason: str) -> ConnectionError:
        name = self.key.split("/")[-1]
        shipped = [source.key.split("/")[-1] for source in read_manifest(paths.DATA, "shipped")]
        return ConnectionError(
            f"{name} is on the Hugging Face hub ({self.repo}), which cannot be reached from here "
            f"({reason}); set LAB_DATA to a mirror that holds it, run `lab data fetch {name}` on a "
            f"connected machine and copy its mirror here, or use a shipped set: "
            f"{', '.join(shipped)}"
        )

    def _recorded(self, into: Path) -> dict[str, str]:
        """sha256 of the repository's files as an earlier download into this folder found them."""
        known = list(read_manifest(into, "hub")) if (into / "manifest.json").is_file() else []
        entries = [source.entry for source in known if source.key == self.key]
        same = [x for x in entries if x.get("source", "").endswith(self.revision)]
        return dict(same[0]["hub"]) if same else {}

    def _verify(self, name: str, path: Path, stated: Any, recorded: Mapping[str, str]) -> str:
        """The sha256 of a downloaded file; ValueError if it, or the stated hash, is another."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        known = self.sha256.get(name, recorded.get(name, digest))
        checks = [("expected sha256", known, digest)]
        if stated.lfs is not None:
            checks.append(("the hub states sha256", stated.lfs.sha256, digest))
        else:
            checks.append(("the hub states git blob", stated.blob_id, blob))
        for what, expected, got in checks:
            if expected != got:
                raise ValueError(
                    f"{self.repo}/{name} at {self.revision}: {what} {expected}, got {got}; "
                    f"delete {path} and try again"
                )
        return digest

    def _tables(self, files: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
        """Rows by the mirror's file names: one per split, or corpus, queries and qrels/SPLIT."""
        if self.kind != "retrieval":
            return {split: _rows(self._find(files, SPLITS[split])) for split in self.splits}
        judged = {x: p for x, p in files.items() if not re.search("corpus|queries", x)}
        tables = {x: _rows(self._find(files, x)) for x in ("corpus", "queries")}
        for split in self.splits:
            tables[f"qrels/{split}"] = _rows(self._find(judged, SPLITS[split]))
        return tables

    def _find(self, files: Mapping[str, Path], word: str) -> list[Path]:
        """Files with ``word`` as a whole word in their path, in order (a table may be sharded)."""
        found = [x for x in sorted(files) if re.search(rf"(?<![a-z]){word}(?![a-z])", x)]
        if not found:
            raise ValueError(f"{self.repo} at {self.revision} has no {word!r} among {[*files]}")
        return [files[x] for x in found]


def _rows(files: list[Path]) -> list[dict[str, Any]]:
    """Rows of a table in the mirror's fields; ids are strings and a label is its name."""
    frame = pd.concat([_frame(path) for path in files], ignore_index=True)
    frame = frame.rename(columns={"_id": "id", "query_id": "query-id", "corpus_id": "corpus-id"})
    if "label_text" in frame:
        frame = frame.assign(label=frame["label_text"])
    number = int if "corpus-id" in frame else float
    kinds = {"id": str, "query-id": str, "corpus-id": str, "label": str, "score": number}
    kept = [x for x in ("id", "title", "text", "sentence1", "sentence2") if x in frame]
    kept += [x for x in ("query-id", "corpus-id", "label", "score") if x in frame]
    frame = frame[kept].astype({x: kinds[x] for x in kept if x in kinds})
    return frame.to_dict("records")


def _frame(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if ".jsonl" in path.suffixes:
        return pd.read_json(path, lines=True, dtype=False)
    separator = "\t" if ".tsv" in path.suffixes else ","
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)


def offline() -> bool:
    """Whether the hub is switched off, as huggingface_hub reads ``HF_HUB_OFFLINE``."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def find(name: str) -> Hub:
    """The address of the data set of that short or full name.

    Raises:
        LookupError: the hub has no address for it.
    """
    short = {key.split("/")[-1]: address for key, address in HUB.items()}
    if name not in short and name not in HUB:
        raise LookupError(unknown("data set on the hub", name, short))
    return HUB.get(name) or short[name]


_STS = {"score_range": [0, 5]}
_ADDRESSES = (
    Hub(
        "sts/stsb-en",
        "mteb/stsbenchmark-sts",
        "b0fddb56ed78048fa8b90373c8a3cfc37b684831",
        "not specified",
        "unstated",
        ("train", "dev", "test"),
        _STS,
    ),
    Hub(
        "sts/sts13",
        "mteb/sts13-sts",
        "7e90230a92c190f1bf69ae9002b8cea547a64cca",
        "not specified",
        "unstated",
        about=_STS,
    ),
    Hub(
        "sts/sts14",
        "mteb/sts14-sts",
        "6031580fec1f6af667f0bd2da0a551cf4f0b2375",
        "not specified",
        "unstated",
        about=_STS,
    ),
    Hub(
        "sts/sts15",
        "mteb/sts15-sts",
        "ae752c7c21bf194d8b67fd573edf7ae58183cbe3",
        "not specified",
        "unstated",
        about=_STS,
    ),
    Hub(
        "sts/sts16",
        "mteb/sts16-sts",
        "4d8694f8f0e0100860b497b999b3dbed754a0513",
        "not specified",
        "unstated",
        about=_STS,
    ),
    Hub(
        "classification/banking77",
        "mteb/banking77",
        "0fd18e25b25c072e09e0d92ab615fda904d66300",
        "MIT",
        "open",
        ("train", "test"),
    ),
    Hub(
        "retrieval/scifact",
        "mteb/scifact",
        "d56462d0e63a25450459c4f213e49ffdb866f7f9",
        "CC BY-NC 4.0",
        "noncommercial",
        ("train", "test"),
    ),
    Hub(
        "retrieval/nfcorpus",
        "mteb/nfcorpus",
        "ec0fa4fe99da2ff19ca1214b7966684033a58814",
        "not specified",
        "unstated",
    ),
)
HUB = {address.key: address for address in _ADDRESSES}
