"""The rows of a user's CSV, JSONL or Parquet file, streamed, with where each stands in the file.

Bytes that are not UTF-8 come through as lone surrogates (Python's ``surrogateescape``), so a bad
row harms no other and can be shown as it is.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab.corpus.rows import BATCH
from lab.corpus.sources import LINES, PARQUET, is_string, opened
from lab.registry import unknown

DELIMITED = {".csv": ",;\t|", ".tsv": "\t"}  # ending -> delimiters it may have
ENDINGS = (*DELIMITED, PARQUET, *LINES)
LONGEST = 1 << 24  # characters of a cell or a line; beyond it, a quote was never closed
BOM = b"\xef\xbb\xbf"
HEAD = 4096  # bytes looked at to tell text from what is none
SAMPLE = 200  # records of a JSONL file whose keys are its columns


@dataclass(frozen=True)
class Row:
    """One row of the file.

    Attributes:
        number: from 1, the header not counted.
        line: of the file on which it begins, from 1; None in Parquet.
        cells: by column; None if the row can't be read.
        wrong: (kind, detail) of what is wrong with the row itself.
    """

    number: int
    line: int | None
    cells: Mapping[str, Any] | None
    wrong: tuple[str, str] | None = None


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
            ValueError: a line longer than LONGEST, or a damaged file (where).
        """
        if self.delimiter:
            return _of_csv(self)
        return _of_parquet(self, columns) if self.path.suffix == PARQUET else _of_jsonl(self.path)

    def check(self, column: str) -> str:
        """The column, if the file has it; LookupError names what there is, and the nearest."""
        if column not in self.columns:
            raise LookupError(f"{self.path.name}: {unknown('column', column, self.columns)}")
        return column


def source(path: Path) -> Source:
    """A file and its columns.

    Raises:
        ValueError: no such file, another kind of file, an empty or damaged one, one that is not
            UTF-8 as a whole, two columns of one name.
    """
    if not path.is_file():
        near = ", ".join(sorted(p.name for p in path.parent.glob("*") if p.name.endswith(ENDINGS)))
        there = f"; in that folder there is {near}" if near else ""
        raise ValueError(f"no file at {path}{there}")
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"a report reads files ending in {', '.join(ENDINGS)}; got {path.name}")
    try:
        if path.suffix == PARQUET:
            with pq.ParquetFile(path) as file:
                return Source(path, tuple(file.schema_arrow.names))
        with opened(path) as stream:
            head = stream.read(HEAD)
        _refuse_other_bytes(path, head)
        bom = ("begins with a byte-order mark, which is no part of the first cell",)
        notes = bom if head.startswith(BOM) else ()
        return _csv_source(path, notes) if path.suffix in DELIMITED else _jsonl_source(path, notes)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise ValueError(f"{path.name} can't be read, or is damaged: {error}") from error


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


def _text(path: Path) -> io.TextIOWrapper:
    """The file as text, to be closed; bytes that are not UTF-8 become lone surrogates."""
    return io.TextIOWrapper(opened(path), "utf-8-sig", errors="surrogateescape", newline="")


def _bounded(path: Path, stream: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a file, none of which may fill the memory."""
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise ValueError(
                f"{path.name}: line {number} is longer than the limit of {LONGEST:,} characters; "
                "is it one row a line?"
            )
        yield line


def _csv_source(path: Path, notes: tuple[str, ...]) -> Source:
    with _text(path) as stream:
        header = next(_bounded(path, stream))
    delimiters = DELIMITED[path.suffix]
    delimiter = max(delimiters, key=header.count)
    columns = next(csv.reader([header], delimiter=delimiter), [])
    names = tuple(name.strip() or f"(column {at})" for at, name in enumerate(columns, 1))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path.name}: two columns are named {twice[0]!r}; rename one of them")
    if any("\udc80" <= character <= "\udcff" for character in header):
        raise ValueError(
            f"{path.name}: the header is not UTF-8, so the file is in another encoding; save it "
            f"as UTF-8, for instance with iconv -f WINDOWS-1252 -t UTF-8 {path.name}"
        )
    if delimiter != delimiters[0]:
        notes = (*notes, f"cells are separated by {delimiter!r}, the most frequent in its header")
    return Source(path, names, notes, delimiter)


def _of_csv(file: Source) -> Iterator[Row]:
    before = csv.field_size_limit(LONGEST)
    with _text(file.path) as stream:
        try:
            lines = _bounded(file.path, stream)
            reader = csv.reader(lines, delimiter=file.delimiter, strict=True)
            number, line = 0, 1
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    wrong = ("malformed", f"{error}; it ends on line {reader.line_num}")
                    cells = None
                if number:
                    yield (
                        _csv_row(file.columns, number, line, cells)
                        if cells is not None
                        else Row(number, line, None, wrong)
                    )
                number, line = number + 1, reader.line_num + 1
        finally:
            csv.field_size_limit(before)


def _csv_row(columns: Sequence[str], number: int, line: int, cells: list[str]) -> Row:
    cells = cells or [""]  # a blank line
    if len(cells) != len(columns) and cells != [""]:
        wrong = ("ragged", f"has {len(cells)} cells, the header has {len(columns)}")
        return Row(number, line, None, wrong)
    filled = cells + [""] * (len(columns) - len(cells))
    return Row(number, line, dict(zip(columns, filled, strict=True)))


def _jsonl_source(path: Path, notes: tuple[str, ...]) -> Source:
    columns: dict[str, None] = {}
    for row, _ in zip(_of_jsonl(path), range(SAMPLE), strict=False):
        columns |= dict.fromkeys(row.cells or {})
    if not columns:
        raise ValueError(f"{path.name}: none of the first {SAMPLE} lines is a JSON object")
    return Source(path, tuple(columns), notes)


def _of_jsonl(path: Path) -> Iterator[Row]:
    with _text(path) as stream:
        for number, line in enumerate(_bounded(path, stream), 1):
            cells, wrong = _object(line)
            yield Row(number, number, cells, wrong)


def _object(line: str) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    if not line.strip():
        return None, ("empty", "a blank line")
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, ("malformed", f"is not JSON: {error}")
    if not isinstance(cells, dict):
        return None, ("malformed", f"is a JSON {type(cells).__name__}, not an object")
    return cells, None


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
