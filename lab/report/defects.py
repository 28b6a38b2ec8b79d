"""What can be wrong with a row, and how a row is named."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

SHOWN = 60  # characters of a text that messages show


@dataclass(frozen=True)
class Kind:
    """A kind of defect: what it means to a reader, and whether such a row is measured all the same.

    Attributes:
        says: what it means, a clause.
        measured: the text of such a row is embedded and measured.
    """

    says: str
    measured: bool


KINDS = {
    "malformed": Kind("the line can't be read as a row", False),
    "ragged": Kind("another number of cells than the header has", False),
    "missing": Kind("there is no text: null, NaN, or a word that stands for it", False),
    "not a string": Kind("the cell holds a number or the like", False),
    "empty": Kind("the text is empty or blank", False),
    "encoding": Kind("bytes that are not UTF-8; what they mean is not guessed", False),
    "duplicate": Kind("the same text as an earlier row, which is the one that is measured", False),
    "near duplicate": Kind("all but the same as another row", True),
    "rows in a cell": Kind("a cell holds lines that look like rows of the file", True),
    "very long": Kind("longer than models read", True),
    "control characters": Kind("characters that no reader sees", True),
    "damaged characters": Kind("traces of an earlier wrong decoding", True),
    "no label": Kind("the text counts in nothing about labels", True),
    "file": Kind("of the file as a whole", True),
}
COLUMNS = ["kind", "row", "line", "detail", "measured"]


@dataclass(frozen=True)
class Defect:
    """One thing wrong with one row.

    Attributes:
        kind: of KINDS.
        row: its number, from 1, the header not counted; None: of the file.
        line: of the file on which it begins, from 1; None where the file has no lines.
        detail: what is wrong, with other rows by number.
    """

    kind: str
    row: int | None
    line: int | None
    detail: str

    @property
    def place(self) -> str:
        """How a reader finds it."""
        return place(self.row, self.line)


def place(row: int | None, line: int | None) -> str:
    """The row as a user counts: "row 17 (line 18 of the file)"; "the file" for no row.

    >>> place(17, 18)
    'row 17 (line 18 of the file)'
    """
    if row is None:
        return "the file"
    return f"row {row}" if line is None else f"row {row} (line {line} of the file)"


def excerpt(text: str) -> str:
    r"""The beginning of a text in quotes; what a terminal or a spreadsheet would obey is spelled.

    >>> excerpt("a\x00b")
    "'a\\x00b'"
    """
    return repr(text[:SHOWN]) + ("…" if len(text) > SHOWN else "")


def table(defects: Sequence[Defect]) -> pd.DataFrame:
    """One row a defect, in the order of kinds, then of rows; numbers are nullable integers."""
    order = {kind: number for number, kind in enumerate(KINDS)}
    ranked = sorted(defects, key=lambda one: (order[one.kind], one.row or 0))
    rows = [(d.kind, d.row, d.line, d.detail, KINDS[d.kind].measured) for d in ranked]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"row": "Int64", "line": "Int64", "measured": bool})


def counts(defects: pd.DataFrame) -> pd.DataFrame:
    """One row for each kind that occurs: kind, rows, measured, which (the first), meaning."""
    found = []
    for kind in (kind for kind in KINDS if (defects["kind"] == kind).any()):
        numbers = defects.loc[defects["kind"] == kind, "row"]
        first = ", ".join(str(number) for number in numbers.dropna().unique()[:8])
        found.append(
            {
                "kind": kind,
                "rows": len(numbers),
                "measured": "yes" if KINDS[kind].measured else "no",
                "which": first + (", …" if numbers.nunique() > 8 else ""),
                "meaning": KINDS[kind].says,
            }
        )
    return pd.DataFrame(found, columns=["kind", "rows", "measured", "which", "meaning"])
