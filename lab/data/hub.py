"""Data sets of the Hugging Face hub, at pinned revisions, rewritten into the mirror's layout.

Repositories and revisions are those of mteb's task metadata (mteb 2.26); only sets whose rows are
those of the mirror's set of the same name, or that the mirror lacks, are listed.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import paths
from lab.data import layouts
from lab.data.sources import Source, hub_cache, read_manifest, store
from lab.registry import unknown

TABLES = re.compile(r"\.(parquet|csv|tsv|jsonl)(\.gz)?$")
STATED = "hash stated by the hub at the pinned revision; recorded at the first download"
Layout = Callable[[Mapping[str, Path], Sequence[str]], dict[str, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Hub:
    """The address of one data set on the hub, at one commit, in one folder of the repository.

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
    layout: Layout = layouts.one_table_a_split
    folder: str = ""

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
        try:
            tables = self.layout(files, self.splits)
        except LookupError as error:
            raise ValueError(f"{self.repo} at {self.revision}: {error}") from error
        store(into, self.key, entry, tables)
        return next(s for s in read_manifest(into, "hub") if s.key == self.key)

    def _download(self) -> dict[str, tuple[Path, Any]]:
        """Name in the repository -> the downloaded file and what the hub states about it."""
        from huggingface_hub import HfApi, errors, hf_hub_download

        if offline():
            raise self._unreachable("HF_HUB_OFFLINE is set")
        try:
            info = HfApi().dataset_info(self.repo, revision=self.revision, files_metadata=True)
            listed = [x for x in info.siblings or [] if TABLES.search(x.rfilename)]
            stated = [x for x in listed if x.rfilename.startswith(self.folder)]
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


LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
LONGEMBED = {  # folder -> splits; mteb 2.26 reads passkey from a copy of its own
    "narrativeqa": ("test",),
    "qmsum": ("test",),
    "2wikimqa": ("test",),
    "summ_screen_fd": ("dev",),
    "passkey": tuple(f"test_{length}" for length in LENGTHS),
    "needle": tuple(f"test_{length}" for length in LENGTHS),
}
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
        layout=layouts.beir,
    ),
    Hub(
        "retrieval/nfcorpus",
        "mteb/nfcorpus",
        "ec0fa4fe99da2ff19ca1214b7966684033a58814",
        "not specified",
        "unstated",
        layout=layouts.beir,
    ),
    *(
        Hub(
            f"retrieval/longembed-{folder.replace('_', '-')}",
            "dwzhu/LongEmbed",
            "6e346642246bfb4928c560ee08640dc84d074e8c",
            "not specified",
            "unstated",
            splits,
            layout=layouts.longembed,
            folder=f"{folder}/",
        )
        for folder, splits in LONGEMBED.items()
    ),
)
HUB = {address.key: address for address in _ADDRESSES}
