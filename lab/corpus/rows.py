"""The rows of a shard, read without its whole file; what cannot be embedded, and why."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab.corpus.sources import KINDS, PARQUET, Shard, opened

HALF = "half of a surrogate pair, which is no character"
BATCH = 4096  # rows of a Parquet file that are decoded together

Record = tuple[Any, Any, str]  # id, text, why there is neither


@dataclass(frozen=True)
class Rows:
    """The rows of a shard that can be embedded, and those that cannot.

    Attributes:
        numbers: the number of each row in its file, from 0.
        ids: the id of each row.
        texts: the text of each row.
        bad: for each refused row its number and why.
    """

    numbers: list[int]
    ids: list[Any]
    texts: list[str]
    bad: list[dict[str, Any]]

    def without(self, refused: Mapping[int, str]) -> "Rows":
        """The same rows, some of them bad now: a place in ``texts`` -> why."""
        kept = [place for place in range(len(self.texts)) if place not in refused]
        bad = [{"row": self.numbers[place], "why": why} for place, why in refused.items()]
        return Rows(
            [self.numbers[place] for place in kept],
            [self.ids[place] for place in kept],
            [self.texts[place] for place in kept],
            sorted([*self.bad, *bad], key=lambda one: int(one["row"])),
        )


class Reader:
    """Reads shards; the file stays open where the last one ended, so that going on costs nothing.

    A compressed JSONL file is unpacked from its beginning for a shard before the last one read, a
    Parquet file from the beginning of the row group.

    Args:
        root: the folder that paths are relative to.
        text: the column of the texts.
        ids: the column of the ids, if there is one; else an id is the row's number in the corpus.
        kind: what the ids are.
    """

    def __init__(self, root: Path, text: str, ids: str | None, kind: str) -> None:
        self._root, self._text, self._ids, self._kind = root, text, ids, kind
        self._columns = [text, *([ids] if ids else [])]
        self._lines: tuple[str, IO[bytes]] | None = None
        self._batches: _Batches | None = None

    def read(self, shard: Shard) -> Rows:
        """The rows of a shard: each one is either there or among the bad ones.

        Raises:
            ValueError: the file has fewer rows than it had.
        """
        records = self._of_parquet if shard.path.endswith(PARQUET) else self._of_lines
        rows = Rows([], [], [], [])
        for place, (name, text, why) in enumerate(records(shard)):
            why = why or bad_text(text) or self._bad_id(name)
            if why:
                rows.bad.append({"row": shard.start + place, "why": why})
                continue
            rows.numbers.append(shard.start + place)
            rows.ids.append(shard.first + place if self._ids is None else name)
            rows.texts.append(text)
        if (found := len(rows.texts) + len(rows.bad)) != shard.stop - shard.start:
            raise ValueError(f"{shard} has {found} rows only; the file changed meanwhile")
        return rows

    def close(self) -> None:
        """Nothing; no file is open any more."""
        if self._lines:
            self._lines[1].close()
        if self._batches:
            self._batches.file.close()
        self._lines = self._batches = None

    def _of_parquet(self, shard: Shard) -> Iterator[Record]:
        if self._batches is None or not self._batches.leads_to(shard):
            self.close()
            self._batches = _Batches(self._root, shard, self._columns)
        for batch in self._batches.take(shard):
            found = batch.to_pydict()
            texts = found[self._text]
            ids = found[self._ids] if self._ids else [None] * len(texts)
            yield from ((name, text, "") for name, text in zip(ids, texts, strict=True))

    def _of_lines(self, shard: Shard) -> Iterator[Record]:
        if self._lines is None or self._lines[0] != shard.path:
            self.close()
            self._lines = shard.path, opened(self._root / shard.path)
        file = self._lines[1]
        file.seek(shard.offset)
        lines = (file.readline() for _ in range(shard.stop - shard.start))
        yield from (self._record(line) for line in lines if line)

    def _record(self, line: bytes) -> Record:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            return None, None, f"is not JSON: {error}"
        if not isinstance(record, dict):
            return None, None, f"is a JSON {type(record).__name__}, not an object"
        for column in self._columns:
            if column not in record:
                return None, None, f"has no {column!r}; it has {', '.join(record) or 'nothing'}"
        return record[self._ids] if self._ids else None, record[self._text], ""

    def _bad_id(self, name: Any) -> str:
        if self._ids is None:
            return ""
        if type(name) is not KINDS[self._kind]:
            return f"has the id {name!r}; the ids of this corpus are {self._kind}"
        if isinstance(name, int) and not -(2**63) <= name < 2**63:
            return f"has the id {name}, which is beyond int64"
        if isinstance(name, str) and not _encodable(name):
            return f"has an id with {HALF}"
        return ""


def bad_text(text: Any) -> str:
    """Why this is no text that can be embedded, or nothing."""
    if not isinstance(text, str):
        return f"has no text: {str(text)[:40]!r} is a {type(text).__name__}, not a string"
    if not text.strip():
        return "has an empty or blank text"
    return "" if _encodable(text) else f"has a text with {HALF}"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Batches:
    """The rows of a Parquet file from the row group on in which a shard begins."""

    def __init__(self, root: Path, shard: Shard, columns: Sequence[str]) -> None:
        self.path, self.file = shard.path, pq.ParquetFile(root / shard.path)
        group, self.at = self._group(shard.start)
        groups = range(group, self.file.num_row_groups)
        self._coming = self.file.iter_batches(BATCH, row_groups=groups, columns=list(columns))
        self._batch: pa.RecordBatch | None = None

    def leads_to(self, shard: Shard) -> bool:
        """Whether the shard lies ahead, and no later row group is a shorter way to it."""
        return self.path == shard.path and self._group(shard.start)[1] <= self.at <= shard.start

    def take(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """The rows of the shard; the next shard begins here or later."""
        while self.at < shard.stop:
            batch = self._batch or next(self._coming, None)
            if batch is None:
                return
            low, high = max(shard.start - self.at, 0), min(shard.stop - self.at, len(batch))
            if low < high:
                yield batch.slice(low, high - low)
            self.at += high
            self._batch = batch.slice(high) if high < len(batch) else None

    def _group(self, row: int) -> tuple[int, int]:
        """The row group that holds a row, and the number of its first row."""
        first = 0
        for group in range(self.file.num_row_groups):
            rows = self.file.metadata.row_group(group).num_rows
            if row < first + rows:
                return group, first
            first += rows
        raise ValueError(
            f"{self.path} has {first} rows, row {row} was wanted; it changed meanwhile"
        )
