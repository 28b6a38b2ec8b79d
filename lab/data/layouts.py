"""How repositories of the hub are laid out: their files in, rows in the mirror's fields out.

A layout maps names in the repository to downloaded files, and our splits, to tables by the mirror's
file names: one per split, or corpus, queries and qrels/SPLIT. LookupError: a file is not there.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # our name -> the hub's
NAMES = {"_id": "id", "query_id": "query-id", "corpus_id": "corpus-id"}

Files = Mapping[str, Path]
Tables = dict[str, list[dict[str, Any]]]


def one_table_a_split(files: Files, splits: Sequence[str]) -> Tables:
    """Rows of texts or pairs, a file (or several shards) for each split."""
    return {split: _rows(_read(files, SPLITS[split])) for split in splits}


def beir(files: Files, splits: Sequence[str]) -> Tables:
    """Corpus and queries for all splits, and a file of judgements for each."""
    judged = {x: path for x, path in files.items() if not re.search("corpus|queries", x)}
    tables = {x: _rows(_read(files, x)) for x in ("corpus", "queries")}
    return tables | {f"qrels/{x}": _rows(_read(judged, SPLITS[x])) for x in splits}


def longembed(files: Files, splits: Sequence[str]) -> Tables:
    """One file each of corpus, queries and judgements, which name only what is relevant.

    The synthetic tasks have eight ``context_length``: each is a split ("test_256") with documents
    of its own. A real task has one split. Read as mteb 2.26 reads it, but for questions
    that needle asks twice at one length: both their documents become relevant to one query.
    """
    tables = {
        "corpus": _read(files, "corpus").rename(columns={"doc_id": "id"}),
        "queries": _read(files, "queries").rename(columns={"qid": "id"}),
        "qrels": _read(files, "qrels").rename(columns={"qid": "query-id", "doc_id": "corpus-id"}),
    }
    for name, table in tables.items():
        lengths = table.get("context_length")
        split = splits[0] if lengths is None else "test_" + lengths.astype(int).astype(str)
        tables[name] = table.assign(split=split)
    judged = tables.pop("qrels").assign(score=1)
    texts = {name: _rows(table, "split") for name, table in tables.items()}
    return texts | {f"qrels/{x}": _rows(judged[judged["split"] == x]) for x in splits}


def _read(files: Files, word: str) -> pd.DataFrame:
    """The table of all files with ``word`` as a whole word in their path, in order."""
    found = [x for x in sorted(files) if re.search(rf"(?<![a-z]){word}(?![a-z])", x)]
    if not found:
        raise LookupError(f"it has no {word!r} among {[*files]}")
    return pd.concat([_frame(files[x]) for x in found], ignore_index=True)


def _rows(frame: pd.DataFrame, *more: str) -> list[dict[str, Any]]:
    """Rows of a table in the mirror's fields and ``more``; ids are strings, a label is its name."""
    frame = frame.rename(columns=NAMES)
    if "label_text" in frame:
        frame = frame.assign(label=frame["label_text"])
    number = int if "corpus-id" in frame else float
    kinds = {"id": str, "query-id": str, "corpus-id": str, "label": str, "score": number}
    kept = [x for x in ("id", "title", "text", "sentence1", "sentence2") if x in frame]
    kept += [x for x in ("query-id", "corpus-id", "label", "score", *more) if x in frame]
    frame = frame[kept].astype({x: kinds[x] for x in kept if x in kinds})
    return frame.to_dict("records")


def _frame(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if ".jsonl" in path.suffixes:
        return pd.read_json(path, lines=True, dtype=False)
    separator = "\t" if ".tsv" in path.suffixes else ","
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
