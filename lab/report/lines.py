"""A row of a file, and the lines of a text file, none of which may fill the memory."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.corpus.sources import opened

LONGEST = 1 << 24  # characters of a cell or a line; beyond it, a quote was never closed


@dataclass(frozen=True)
class Row:
    """One row of the file.

    Attributes:
        number: from 1, the header not counted.
        line: of the file on which it begins, from 1; None in Parquet.
        cells: by column; None if the row can't be read.
        wrong: (kind, detail) of what is wrong with the row itself.
        lines: of the file that it takes up.
    """

    number: int
    line: int | None
    cells: Mapping[str, Any] | None
    wrong: tuple[str, str] | None = None
    lines: int = 1


def text(path: Path) -> io.TextIOWrapper:
    """The file as text, to be closed; bytes that are not UTF-8 become lone surrogates."""
    return io.TextIOWrapper(opened(path), "utf-8-sig", errors="surrogateescape", newline="")


def bounded(path: Path, stream: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a file.

    Raises:
        ValueError: one longer than LONGEST.
    """
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise ValueError(
                f"{path.name}: line {number} is longer than the limit of {LONGEST:,} characters; "
                "is it one row a line?"
            )
        yield line
