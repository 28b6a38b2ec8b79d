"""The rows of a user's CSV, JSONL or Parquet file, streamed, with where each stands in the file.

Bytes that are not UTF-8 come through as lone surrogates (Python's ``surrogateescape``), so a bad
row harms no other and can be shown as it is.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab.corpus.rows import BATCH
from lab.corpus.sources import LINES, PARQUET, is_string, opened
from lab.registry import unknown
from lab.report import delimited, lines
from lab.report.defects import excerpt
from lab.report.delimited import DELIMITED
from lab.report.lines import Row

ENDINGS = (*DELIMITED, PARQUET, *LINES)
BOM = b"\xef\xbb\xbf"
HEAD = 4096  # bytes looked at to tell text from what is none
SAMPLE = 200  # records of a JSONL file whose keys are its columns
NEAR = 8  # files that are named when the one that was wanted is not there
DAMAGE = (pa.ArrowException, OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Source:
    """A file, what it holds and how it is read.

    Attributes:
        path: the file.
        columns: their names in order.
        notes: (what is said of the file as a whole).
        delimiter: between cells, of a file that has one.
    """

    path: Path
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    delimiter: str = field(default="", repr=False)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row of the file in order; ``columns`` are those that will be looked at.

        Raises:
            ValueError: a line longer than the limit, or a damaged file (after which row).
        """
        number = 0
        try:
            for row in self._rows(columns):
                number = row.number
                yield row
        except DAMAGE as error:
            name = self.path.name
            raise ValueError(f"{name} is cut off or damaged after row {number}: {error}") from error

    def _rows(self, columns: Sequence[str]) -> Iterator[Row]:
        if self.delimiter:
            return delimited.rows(self.path, self.columns, self.delimiter)
        return _of_parquet(self, columns) if self.path.suffix == PARQUET else _of_jsonl(self.path)

    def check(self, column: str) -> str:
        """The column, if the file has it.

        Raises:
            LookupError: it has not; the message names what there is, and the nearest.
            ValueError: its name can't be written down.
        """
        if column not in self.columns:
            raise LookupError(f"{self.path.name}: {unknown('column', column, self.columns)}")
        if not _writable(column):
            raise ValueError(f"{self.path.name}: rename the column {column!r}: it is no UTF-8")
        return column


def stem(path: Path) -> str:
    """The name of the file without its ending.

    >>> stem(Path("talks.2024.jsonl.gz"))
    'talks.2024'
    """
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def source(path: Path) -> Source:
    """A file and its columns.

    Raises:
        ValueError: no such file, another kind of file, an empty or damaged one, one that is not
            UTF-8 as a whole, two columns of one name.
    """
    if not _writable(path.name):
        raise ValueError(f"rename the file {path.name!r}: its name is not UTF-8")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a report is of one file")
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.name.endswith(ENDINGS))
        more = f" and {len(near) - NEAR} more" if len(near) > NEAR else ""
        there = f"; in that folder there is {', '.join(near[:NEAR])}{more}" if near else ""
        raise ValueError(f"no file at {path}{there}")
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"a report reads files ending in {', '.join(ENDINGS)}; got {path.name}")
    try:
        found = _of_kind(path)
    except DAMAGE as error:
        raise ValueError(f"{path.name} can't be read, or is damaged: {error}") from error
    twice = [name for name in found.columns if found.columns.count(name) > 1]
    if twice:
        raise ValueError(f"{path.name}: two columns are named {twice[0]!r}; rename one of them")
    return found


def _of_kind(path: Path) -> Source:
    if path.suffix == PARQUET:
        with pq.ParquetFile(path) as file:
            return Source(path, tuple(file.schema_arrow.names))
    with opened(path) as stream:
        head = stream.read(HEAD)
    _refuse_other_bytes(path, head)
    bom = ("begins with a byte-order mark, which is no part of the first cell",)
    notes = bom if head.startswith(BOM) else ()
    if path.suffix not in DELIMITED:
        return _jsonl_source(path, notes)
    columns, delimiter = delimited.header(path)
    if delimiter != DELIMITED[path.suffix][0]:
        said = f"cells are separated by {delimiter!r}, which cuts its header into most cells"
        notes = (*notes, said)
    return Source(path, columns, notes, delimiter)


def _writable(name: str) -> bool:
    """Whether the name can be written as UTF-8: lone surrogates stand for bytes that can't."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _refuse_other_bytes(path: Path, head: bytes) -> None:
    """Refuse an empty file and what is no UTF-8 text from its first bytes on."""
    if not head.removeprefix(BOM).strip():
        raise ValueError(f"{path.name} is empty: a header and rows were wanted")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) > len(head) / 10:
        raise ValueError(
            f"{path.name} is not UTF-8 but UTF-16, or no text at all: it begins with the bytes "
            f"{head[:4].hex(' ')}; save it as UTF-8, for instance with "
            f"iconv -f UTF-16 -t UTF-8 {path.name} > new{path.suffix}"
        )
    if head.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path.name} is a zip archive, such as a spreadsheet; save it as CSV")


def _jsonl_source(path: Path, notes: tuple[str, ...]) -> Source:
    columns: dict[str, None] = {}
    for row, _ in zip(_of_jsonl(path), range(SAMPLE), strict=False):
        columns |= dict.fromkeys(row.cells or {})
    if not columns:
        raise ValueError(f"{path.name}: none of the first {SAMPLE} lines is a JSON object")
    return Source(path, tuple(columns), notes)


def _of_jsonl(path: Path) -> Iterator[Row]:
    with lines.text(path) as stream:
        for number, line in enumerate(lines.bounded(path, stream), 1):
            cells, wrong = _object(line)
            yield Row(number, number, cells, wrong)


def _object(line: str) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    if not line.strip():
        return None, ("empty", "a blank line")
    try:
        cells = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return None, ("malformed", f"can't be read as JSON: {error}")
    if not isinstance(cells, dict):
        return None, ("malformed", f"is a JSON {type(cells).__name__}, not an object")
    return cells, None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; an error where a name stands twice, since either value may be meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has two values named {excerpt(twice)}")
    return found


def _of_parquet(file: Source, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    with pq.ParquetFile(file.path) as stored:
        for batch in stored.iter_batches(BATCH, columns=list(columns)):
            found = {name: _values(batch[name]) for name in columns}
            for cells in zip(*found.values(), strict=True):
                number += 1
                yield Row(number, None, dict(zip(found, cells, strict=True)))


def _values(column: pa.Array) -> list[Any]:
    """The cells; strings byte by byte, since nothing makes a Parquet file hold UTF-8 only."""
    if not is_string(column.type):
        return column.to_pylist()
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    raw = plain.cast(pa.large_binary()).to_pylist()
    return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in raw]
