"""Where data files come from: three folders of one layout, every file checked before it is parsed.

shipped (``data/``), mirror (the folder in ``LAB_DATA``) and hub (downloaded at a pinned revision
and rewritten into the same layout, ``lab/hub.py``) each hold a ``manifest.json`` that names their
data sets and the sha256 of their files, so one reader serves all three.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lab import atomic, paths

MANIFEST = "manifest.json"
REMEDY = {
    "shipped": "restore it with `git checkout -- data`",
    "mirror": "copy it again from where the mirror came from, or run `lab data fetch {name}` if "
    "the hub has it",
    "hub": "delete {folder} and load again: it is downloaded anew",
}
KINDS = {  # the folder of a data set in a mirror says its kind
    "sts": "sts",
    "words": "sts",
    "classification": "classification",
    "clustering": "clustering",
    "retrieval": "retrieval",
    "longdoc": "retrieval",
}


@dataclass(frozen=True)
class Source:
    """One data set as the manifest of one folder describes it.

    ``key`` is its folder below the root ("sts/stsb-en"), ``entry`` its manifest entry and
    ``recorded`` the manifest's table of all files (sha256, bytes, rows).
    """

    origin: str
    key: str
    root: Path
    entry: Mapping[str, Any]
    recorded: Mapping[str, Mapping[str, Any]]

    @property
    def kind(self) -> str:
        """Kind stated by the manifest, else the one its folder and fields imply."""
        folder = self.key.split("/")[0]
        labelled = "label" in self.entry["fields"]
        implied = "pair_classification" if labelled else "pairs"
        return self.entry.get("kind") or KINDS.get(folder, implied)

    def kind_of(self, split: str) -> str:
        """Kind of one split: triplets of an entailment set are training pairs."""
        return "pairs" if split.endswith("-triplets") else self.kind

    @property
    def files(self) -> dict[str, str]:
        """Short name ("test", "corpus", "qrels/test") -> file below the root."""
        named = {}
        for file in self.entry["files"]:
            stem = Path(file).name.split(".")[0]
            named[f"qrels/{stem}" if Path(file).parent.name == "qrels" else stem] = file
        return named

    @property
    def splits(self) -> list[str]:
        """Splits that can be asked for; a retrieval set has one per qrels file."""
        if self.kind == "retrieval":
            found = [x.removeprefix("qrels/") for x in self.files if x.startswith("qrels/")]
        else:
            found = [split for split in self.entry["splits"] if split in self.files]
        usual = ("train", "dev", "test")
        return [x for x in usual if x in found] + [x for x in found if x not in usual]

    def rows(self, split: str) -> int:
        """Rows of a split: pairs, texts, or judged queries."""
        stated = self.entry["splits"].get(f"qrels/{split}", self.entry["splits"].get(split))
        return stated["queries"] if isinstance(stated, Mapping) else int(stated)

    @property
    def checked(self) -> str:
        """What the checksums of this copy were taken from."""
        return self.entry.get("checked", "manifest")

    def digest(self, name: str) -> str:
        """The recorded sha256 of the file called ``name`` in ``files``.

        Raises:
            ValueError: the manifest records none.
        """
        file = self.files[name]
        if "sha256" not in self.recorded.get(file, {}):
            raise ValueError(
                f"{self.root / MANIFEST} records no sha256 for {file}, and no file is read "
                f"unverified; {self.remedy()}"
            )
        return self.recorded[file]["sha256"]

    def digests(self, split: str) -> dict[str, str]:
        """File -> sha256 of every file that loading ``split`` reads."""
        names = [split]
        if self.kind == "retrieval":
            names = [f"qrels/{split}", "corpus", "queries"]
        elif self.kind == "classification" and split not in ("train", "all"):
            names = ["train", split]
        return {self.files[name]: self.digest(name) for name in names}

    def intact(self) -> bool:
        """Whether every file is there with its recorded sha256."""
        files = {self.root / file: self.digest(name) for name, file in self.files.items()}
        return all(path.is_file() and _sha256(path) == files[path] for path in files)

    def remedy(self) -> str:
        """What to do about a file of this origin that is missing or damaged."""
        folder = self.root / self.key
        return REMEDY[self.origin].format(name=self.key.split("/")[-1], folder=folder)

    def read(self, name: str) -> pd.DataFrame:
        """Rows of the file called ``name`` in ``files``, after its checksum was found right.

        Raises:
            FileNotFoundError: the manifest names it and it is not there.
            ValueError: its sha256 is another one, or a row is not JSON.
        """
        path, expected = self.root / self.files[name], self.digest(name)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {self.remedy()}")
        content = path.read_bytes()
        got = hashlib.sha256(content).hexdigest()
        if got != expected:
            raise ValueError(
                f"{path} is damaged: expected sha256 {expected}, got {got}; {self.remedy()}"
            )
        return _parse(path, content)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _parse(path: Path, content: bytes) -> pd.DataFrame:
    if path.suffix == ".tsv":
        header, *lines = content.decode().rstrip("\n").split("\n")
        cells = [line.split("\t") for line in lines]
        return pd.DataFrame(cells, columns=header.split("\t")).astype({"score": int})
    # Not splitlines: a text may hold U+2028 or a form feed.
    lines = gzip.decompress(content).decode().rstrip("\n").split("\n")
    rows = []
    for i, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, row {i}: not a JSON object ({error})") from error
    return pd.DataFrame(rows)


def read_manifest(root: Path, origin: str) -> Iterator[Source]:
    """Every data set that ``root/manifest.json`` lists, in its order.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    path = root / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{root} holds no {MANIFEST}, so it is no data folder"
            + (
                "; point LAB_DATA at a mirror, fill an empty folder with `lab data fetch NAME`, "
                "or unset it"
                if origin == "mirror"
                else f"; {REMEDY[origin]}"
            )
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for key, entry in manifest["datasets"].items():
        yield Source(origin, key, root, entry, manifest["files"])


def hub_cache() -> Path:
    """Folder in which hub data sets are kept, rewritten into the mirror's layout."""
    return paths.cache() / "data"


def available() -> list[Source]:
    """Every copy that can be read now: shipped first, then the mirror, then earlier downloads."""
    found = list(read_manifest(paths.DATA, "shipped"))
    mirror, kept = paths.mirror(), hub_cache()
    if mirror is not None:
        found += read_manifest(mirror, "mirror")
    if (kept / MANIFEST).is_file():
        found += read_manifest(kept, "hub")
    return found


def store(
    root: Path, key: str, entry: Mapping[str, Any], tables: Mapping[str, list[dict[str, Any]]]
) -> None:
    """Write ``tables`` (by the names of ``Source.files``) as a data set and record it.

    Same rows, same bytes: the gzip header carries no time. Each file appears whole or not at all,
    and the manifest, written last, names only files that are there.
    """
    recorded, splits = {}, {}
    for name, rows in tables.items():
        if not rows:
            raise ValueError(f"{key}: {name} has no rows, so there is nothing to store")
        qrels = name.startswith("qrels/")
        file, content = f"{key}/{name}", _tsv(rows) if qrels else _jsonl(rows)
        file += ".tsv" if qrels else ".jsonl.gz"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        atomic.write(root / file, content)
        digest = hashlib.sha256(content).hexdigest()
        recorded[file] = {"sha256": digest, "bytes": len(content), "rows": len(rows)}
        queries = len({row["query-id"] for row in rows}) if qrels else 0
        splits[name] = {"queries": queries, "judgements": len(rows)} if qrels else len(rows)
    fields = {name.split("/")[0]: list(rows[0]) for name, rows in tables.items()}
    about = {
        **entry,
        "fields": fields if "corpus" in tables else next(iter(fields.values())),
        "splits": splits,
        "files": sorted(recorded),
        "bytes": sum(x["bytes"] for x in recorded.values()),
    }
    record(root, {key: about}, recorded)


def record(
    root: Path, entries: Mapping[str, Mapping[str, Any]], files: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add data sets and their files to the manifest of ``root``, which is begun if need be."""
    path = root / MANIFEST
    manifest: dict[str, Any] = {"format": 1, "datasets": {}, "files": {}}
    if path.is_file():
        manifest = json.loads(path.read_text(encoding="utf-8"))
    for part, new in (("datasets", entries), ("files", files)):
        manifest[part] = dict(sorted({**manifest[part], **new}.items()))
    root.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return gzip.compress(lines.encode(), compresslevel=9, mtime=0)


def _tsv(rows: list[dict[str, Any]]) -> bytes:
    header = ("query-id", "corpus-id", "score")
    lines = ["\t".join(header), *("\t".join(str(row[x]) for x in header) for row in rows)]
    return ("\n".join(lines) + "\n").encode()
