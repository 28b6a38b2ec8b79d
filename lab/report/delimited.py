"""Rows of CSV and TSV files: their header, and quotes that are closed too late or never."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.report import lines
from lab.report.lines import Row

DELIMITED = {".csv": ",;\t|", ".tsv": "\t"}  # ending -> delimiters it may have


def header(path: Path) -> tuple[tuple[str, ...], str]:
    """The names of the columns, and the delimiter: the one that cuts the header into most cells.

    Raises:
        ValueError: it can't be read, or is not UTF-8.
    """
    found = {delimiter: _first(path, delimiter) for delimiter in DELIMITED[path.suffix]}
    delimiter = max(found, key=lambda one: len(found[one]))
    columns = found[delimiter]
    if not columns:
        raise ValueError(
            f"{path.name}: line 1 can't be read as a header: it is blank, or a quote in it is not "
            "closed"
        )
    if any("\udc80" <= character <= "\udcff" for character in "".join(columns)):
        raise ValueError(
            f"{path.name}: the header is not UTF-8, so the file is in another encoding; save it "
            f"as UTF-8, for instance with iconv -f WINDOWS-1252 -t UTF-8 {path.name}"
        )
    names = tuple(name.strip() or f"(column {at})" for at, name in enumerate(columns, 1))
    return names, delimiter


def _first(path: Path, delimiter: str) -> list[str]:
    """The cells of the header under a delimiter; none if it can't be read so."""
    with lines.text(path) as stream:
        try:
            return next(csv.reader(lines.bounded(path, stream), delimiter=delimiter, strict=True))
        except csv.Error:
            return []


def rows(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    """Every row of the file in order.

    Raises:
        ValueError: a line longer than the limit.
    """
    before = csv.field_size_limit(lines.LONGEST)
    with lines.text(path) as stream:
        try:
            reader = csv.reader(lines.bounded(path, stream), delimiter=delimiter, strict=True)
            number, line = 0, 1
            while True:
                try:
                    cells, error = next(reader), ""
                except StopIteration:
                    return
                except csv.Error as found:
                    cells, error = [], str(found)
                count = reader.line_num + 1 - line
                if number and error:
                    yield Row(number, line, None, ("malformed", _lost(error, line, count)), count)
                elif number:
                    yield _row(columns, number, line, cells, count, delimiter)
                number, line = number + 1, reader.line_num + 1
        finally:
            csv.field_size_limit(before)


def _lost(error: str, line: int, count: int) -> str:
    if count == 1:
        return error
    return (
        f"{error}: a quote opens here and is not closed in time; the {count} lines from {line} to "
        f"{line + count - 1} are lost, whatever rows they held"
    )


def _row(
    columns: Sequence[str], number: int, line: int, cells: list[str], count: int, delimiter: str
) -> Row:
    cells = cells or [""]  # a blank line
    if len(cells) != len(columns) and cells != [""]:
        wrong = ("ragged", f"has {len(cells)} cells, the header has {len(columns)}")
        return Row(number, line, None, wrong, count)
    filled = dict(zip(columns, cells + [""] * (len(columns) - len(cells)), strict=True))
    return Row(number, line, filled, _swallowed(columns, cells, delimiter), count)


def _swallowed(
    columns: Sequence[str], cells: Sequence[str], delimiter: str
) -> tuple[str, str] | None:
    """What is wrong if a cell holds two lines or more, each of which would be a row."""
    for cell in cells:
        inner = cell.splitlines()[1:-1] if "\n" in cell or "\r" in cell else []
        cut = csv.reader(inner, delimiter=delimiter)
        if len(inner) > 1 and len(columns) > 1 and all(len(one) == len(columns) for one in cut):
            said = f"{len(inner)} lines in a cell have as many cells as the header"
            return "rows in a cell", f"{said}: was a quote closed too late?"
    return None
