"""The files of a corpus, and the shards they are cut into."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lab import manifest
from lab.registry import unknown

PARQUET, LINES = ".parquet", (".jsonl", ".jsonl.gz")
ENDINGS = (PARQUET, *LINES)
ROW = "row"  # the kind of id when there is no id column: the row's number in the corpus
KINDS: dict[str, type] = {"int64": int, "string": str}


@dataclass(frozen=True)
class Source:
    """One file of a corpus.

    Attributes:
        path: relative to the corpus, with ``/``.
        size: bytes.
        mtime: time of the last change in ns; ``sha256``: of the whole file.
        rows: rows (Parquet) or lines (JSONL).
        ids: what its ids are: ``row``, ``int64`` or ``string``.
        offsets: the byte of the uncompressed text at which each shard begins; empty for Parquet.
    """

    path: str
    size: int
    mtime: int
    sha256: str
    rows: int
    ids: str
    offsets: Sequence[int] = field(repr=False)


@dataclass(frozen=True)
class Shard:
    """Some neighbouring rows of one file.

    Attributes:
        number: of the shard, from 0.
        path: of its file.
        start: number in its file of the first row; ``stop``: of the row after the last.
        first: number in the whole corpus of the first row.
        offset: the byte it begins at, in a JSONL file.
    """

    number: int
    path: str
    start: int
    stop: int
    first: int
    offset: int

    def __str__(self) -> str:
        """How messages name it."""
        return f"shard {self.number} ({self.path}, rows {self.start} to {self.stop - 1})"


def find(corpus: Path) -> tuple[Path, list[Path]]:
    """The folder that paths are relative to, and the files of a corpus, sorted by path.

    Hidden files and those with other endings are left out.

    Raises:
        ValueError: nothing is there, or nothing of a known kind.
    """
    kinds = ", ".join(ENDINGS)
    if corpus.is_file():
        if not corpus.name.endswith(ENDINGS):
            raise ValueError(f"a corpus is a file ending in {kinds} or a folder; got {corpus}")
        return corpus.parent, [corpus]
    if not corpus.is_dir():
        raise ValueError(f"no corpus at {corpus}; give a file ({kinds}) or a folder of them")
    found = sorted(
        path
        for path in corpus.rglob("*")
        if path.name.endswith(ENDINGS)
        and not any(part.startswith(".") for part in path.relative_to(corpus).parts)
        and path.is_file()
    )
    if not found:
        raise ValueError(f"{corpus} holds no file ending in {kinds}")
    return corpus, found


def examine(root: Path, path: Path, text: str, ids: str | None, rows: int) -> Source:
    """What a file holds, once its columns are known to be there. Reads the file to its end.

    Args:
        root: what the path of the source is relative to.
        path: the file.
        text: the column of the texts.
        ids: the column of the ids, if there is one.
        rows: of a shard.

    Raises:
        LookupError: no such column (with the nearest).
        ValueError: a damaged file, texts that are no strings, ids that are no integers or strings.
    """
    look = _examine_parquet if path.name.endswith(PARQUET) else _examine_lines
    try:
        count, kind, offsets = look(path, text, ids, rows)
        sha256 = manifest.digest(path)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise ValueError(f"{path} can't be read, or is damaged: {error}") from error
    state = path.stat()
    name = path.relative_to(root).as_posix()
    return Source(name, state.st_size, state.st_mtime_ns, sha256, count, kind, offsets)


def survey(
    root: Path, files: Sequence[Path], text: str, ids: str | None, rows: int
) -> list[Source]:
    """What each of the files holds; the arguments are those of :func:`examine`.

    Raises:
        ValueError: ids of several kinds, or no row at all; as :func:`examine`.
        LookupError: as :func:`examine`.
    """
    sources = [examine(root, path, text, ids, rows) for path in files]
    kinds = {source.ids: source.path for source in sources if source.rows}
    if not kinds:
        raise ValueError(f"the corpus {root} has no row")
    if len(kinds) > 1:
        found = ", ".join(f"{kind} in {path}" for kind, path in kinds.items())
        raise ValueError(f"ids are of one kind in all files; got {found}")
    return sources


def unchanged(
    out: Path, root: Path, files: Sequence[Path], known: Sequence[Source]
) -> list[Source]:
    """The known sources, with the times of today's files.

    Raises:
        ValueError: a file was added, taken away or written anew with other bytes; says which.
    """
    names = {path.relative_to(root).as_posix(): path for path in files}
    planned = {source.path: source for source in known}
    changes = [f"{name} is new" for name in sorted(names.keys() - planned)]
    changes += [f"{name} is gone" for name in sorted(planned.keys() - names)]
    result = []
    for name, source in planned.items():
        if name not in names:
            continue
        state = names[name].stat()
        if (state.st_size, state.st_mtime_ns) != (source.size, source.mtime):
            if manifest.digest(names[name]) != source.sha256:
                changes.append(f"{name} has other bytes")
            source = replace(source, mtime=state.st_mtime_ns)
        result.append(source)
    if changes:
        raise ValueError(
            f"the corpus is not the one that {out} was begun with: {', '.join(changes)}; restore "
            "it, or give another folder"
        )
    return result


def cut(sources: Sequence[Source], rows: int) -> list[Shard]:
    """All shards of a corpus, in the order of its files and rows."""
    shards: list[Shard] = []
    first = 0
    for source in sources:
        for place, start in enumerate(range(0, source.rows, rows)):
            stop = min(start + rows, source.rows)
            offset = source.offsets[place] if source.offsets else 0
            shards.append(Shard(len(shards), source.path, start, stop, first + start, offset))
        first += source.rows
    return shards


def opened(path: Path) -> IO[bytes]:
    """A JSONL file, unpacked if it is compressed."""
    return cast(IO[bytes], gzip.open(path)) if path.name.endswith(".gz") else path.open("rb")


def _examine_lines(path: Path, text: str, ids: str | None, rows: int) -> tuple[int, str, list[int]]:
    """Lines, the kind of ids, and the byte at which every ``rows``-th line begins."""
    count, at, offsets = 0, 0, []
    kind = None
    with opened(path) as file:
        for line in file:
            if count % rows == 0:
                offsets.append(at)
            if kind is None:
                kind = _kind_of(path, count, line, text, ids)
            at += len(line)
            count += 1
    if count and kind is None:
        raise ValueError(f"{path} holds {count} lines, but none of them is a JSON object")
    return count, kind or ROW, offsets


def _kind_of(path: Path, row: int, line: bytes, text: str, ids: str | None) -> str | None:
    """The kind of ids of a line that has the columns; None for a line that is no object."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    _check_columns(path, text, ids, list(record))
    if ids is None:
        return ROW
    kind = next((name for name, one in KINDS.items() if type(record[ids]) is one), None)
    if kind is None:
        raise ValueError(f"{path}, row {row}: an id is an integer or a string; got {record[ids]!r}")
    return kind


def _examine_parquet(
    path: Path, text: str, ids: str | None, rows: int
) -> tuple[int, str, list[int]]:
    """Rows, the kind of ids, and no offsets: a Parquet file knows where its rows are."""
    with pq.ParquetFile(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
    _check_columns(path, text, ids, schema.names)
    if not is_string(schema.field(text).type):
        raise ValueError(f"{path}: column {text!r} is {schema.field(text).type}, not strings")
    if ids is None:
        return count, ROW, []
    kind = schema.field(ids).type
    if not (is_string(kind) or pa.types.is_integer(kind)):
        raise ValueError(f"{path}: ids are integers or strings; column {ids!r} is {kind}")
    return count, "string" if is_string(kind) else "int64", []


def _check_columns(path: Path, text: str, ids: str | None, columns: Sequence[str]) -> None:
    for column in (text, *([ids] if ids else [])):
        if column not in columns:
            raise LookupError(f"{path}: {unknown('column', column, columns)}")


def is_string(kind: pa.DataType) -> bool:
    """Whether a column of that type holds strings, dictionary-encoded ones included."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(plain) or pa.types.is_large_string(plain)
