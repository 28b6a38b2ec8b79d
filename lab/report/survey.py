"""One pass over a file: every defect of every row, and the texts that will be measured."""

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import xxhash

from lab.report import defects, judge
from lab.report.defects import KINDS, Defect, excerpt, place
from lab.report.lines import Row
from lab.report.rows import Source, source

MOST_ROWS = 5_000_000  # of a file: each is remembered, to find duplicates, in about 200 bytes
MOST_DEFECTS = 200_000  # that are listed one by one
MOST_TEXT = 1 << 30  # characters of the texts that are held to be measured
LOOKED_AT = 200  # rows that tell which column holds texts
LEAST = 12  # different texts: ten neighbours of each, also when one text is left out


@dataclass(frozen=True, eq=False)
class Survey:
    """What a file holds.

    Attributes:
        path: the file; ``text``, ``label``: its columns (no label: None).
        rows: how many rows it has.
        texts: one row each: row, line, text, label (None: without); distinct texts, in file order.
        distinct: how many distinct texts there are; more than ``texts`` if they are a sample.
        defects: as :func:`lab.report.defects.table`.
        notes: what was decided, in sentences.
    """

    path: Path
    text: str
    label: str | None
    rows: int
    texts: pd.DataFrame = field(repr=False)
    distinct: int
    defects: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...]

    @property
    def sampled(self) -> bool:
        """Whether fewer texts are measured than there are."""
        return len(self.texts) < self.distinct

    def place(self, number: int) -> str:
        """How a reader finds the ``number``-th of the texts."""
        found = self.texts.iloc[number]
        return place(int(found["row"]), None if pd.isna(found["line"]) else int(found["line"]))


def survey(
    path: Path,
    *,
    text: str | None = None,
    label: str | None = None,
    most: int = 10_000,
    seed: int = 0,
) -> Survey:
    """What a file holds, row by row; it is streamed, so it may be larger than the memory.

    Args:
        path: a .csv, .tsv, .jsonl, .jsonl.gz or .parquet file.
        text: the column of the texts; default: the only one that looks like text, which is said.
        label: the column of the labels, if there is one.
        most: texts that are measured; of more a random sample is taken, defects are of all rows.
        seed: of the sample.

    Raises:
        ValueError: no file, another kind, empty, not UTF-8 as a whole, no or several columns of
            texts, more than MOST_ROWS rows or MOST_TEXT characters, fewer than LEAST usable texts.
        LookupError: no such column; the message names what there is, and the nearest.
    """
    if most < LEAST:
        raise ValueError(f"{most} rows are too few to measure: {LEAST} or more wanted")
    file = source(Path(path))
    notes = list(file.notes)
    if text is None:
        text, said = guess(file, label)
        notes.append(said)
    if judge.looks_like_text([text]):
        name = excerpt(text)
        notes.append(f"the name of column {name} reads like a text: has the file no header?")
    columns = list(dict.fromkeys(file.check(name) for name in (text, label) if name is not None))
    seen = _Seen(file, text, label, most, np.random.default_rng(seed))
    for row in file.rows(columns):
        seen.take(row)
    return seen.result(notes, seed)


def guess(file: Source, label: str | None = None) -> tuple[str, str]:
    """The column that looks like text beside that of the labels, and the words that say so.

    Raises:
        ValueError: no row, no such column, or several.
    """
    rows = list(islice(file.rows(file.columns), LOOKED_AT))
    if not rows:
        raise ValueError(f"{file.path.name} has a header, but no row")
    columns = [column for column in file.columns if column != label]
    try:
        return judge.text_column(file.path.name, columns, [one.cells for one in rows if one.cells])
    except ValueError as error:
        unread = [one for one in rows if one.wrong and one.cells is None]
        if not unread:
            raise
        first = f"{place(unread[0].number, unread[0].line)}: {': '.join(unread[0].wrong or ())}"
        raise ValueError(
            f"{error}. {len(unread)} of {len(rows)} rows can't be read; {first}"
        ) from None


class _Seen:
    """What was seen of a file so far: hashes of all texts, defects, a reservoir of texts."""

    def __init__(
        self, file: Source, text: str, label: str | None, most: int, rng: np.random.Generator
    ) -> None:
        self.file, self.text, self.label, self.most, self.rng = file, text, label, most, rng
        self.rows = self.distinct = self.characters = self.lost = 0
        self.defects: list[Defect] = []
        self.kinds: Counter[str] = Counter()
        self.kept: list[tuple[int, int | None, str, str | None]] = []
        self.exact: dict[int, tuple[int, int | None, str | None]] = {}
        self.folded: dict[int, tuple[int, int | None]] = {}

    def take(self, row: Row) -> None:
        """Judge a row; it is kept, or why not is noted."""
        self.rows = row.number
        if row.number > MOST_ROWS:
            raise ValueError(
                f"{self.file.path.name} has more rows than the limit of {MOST_ROWS:,}, each of "
                "which is remembered to find duplicates; cut the file into parts"
            )
        if row.wrong:
            self._note(*row.wrong, row)
        if row.cells is None:
            self.lost += row.lines - 1
            return
        wrong = judge.cell(row.cells.get(self.text))
        if self.text not in row.cells:
            said = excerpt(", ".join(row.cells) or "none")
            wrong = [("missing", f"has no {self.text!r}; it has {said}")]
        label, of_label = (None, []) if self.label is None else judge.label(
            row.cells.get(self.label)
        )  # fmt: skip
        for kind, detail in [*wrong, *of_label]:
            self._note(kind, detail, row)
        if all(KINDS[kind].measured for kind, _ in wrong):
            self._text(row, row.cells[self.text], label)

    def _text(self, row: Row, text: str, label: str | None) -> None:
        """A sound text: a duplicate, or one more for the reservoir."""
        first = self.exact.setdefault(_hash(text), (row.number, row.line, label))
        if first[0] != row.number:
            said = f"equals {place(*first[:2])}"
            if label != first[2]:
                mine, other = ("none" if one is None else excerpt(one) for one in (label, first[2]))
                said += f", but its label is {mine}, not {other}"
            self._note("duplicate", said, row)
            return
        like = self.folded.setdefault(_hash(_folded(text)), (row.number, row.line))
        if like[0] != row.number:
            self._note("near duplicate", f"equals {place(*like)} but for case or blanks", row)
        self.distinct += 1
        at = len(self.kept) if self.distinct <= self.most else self.rng.integers(self.distinct)
        if at < self.most:  # algorithm R (Vitter 1985): every text is as likely to stay
            gone = len(self.kept[at][2]) if at < len(self.kept) else 0
            self.kept[at : at + 1] = [(row.number, row.line, text, label)]
            self.characters += len(text) - gone
        if self.characters > MOST_TEXT:
            raise ValueError(
                f"{self.file.path.name}: the texts to be measured have more characters than the "
                f"limit of {MOST_TEXT:,} by row {row.number}; take fewer with --max-rows"
            )

    def _note(self, kind: str, detail: str, row: Row) -> None:
        self.kinds[kind] += 1
        if len(self.defects) < MOST_DEFECTS:
            self.defects.append(Defect(kind, row.number, row.line, detail))

    def result(self, notes: list[str], seed: int) -> Survey:
        """What the file holds, once it was read to its end.

        Raises:
            ValueError: fewer than LEAST texts that can be measured, and what is wrong with others.
        """
        name = self.file.path.name
        found = [Defect("file", None, 1, note) for note in self.file.notes]
        table = defects.table([*found, *self.defects])
        if self.distinct < LEAST:
            counted = defects.counts(table[table["kind"] != "file"])
            said = "; ".join(f"{r.kind}: {r.rows} (row {r.which})" for r in counted.itertuples())
            if self.kinds["encoding"]:
                said += ". Save the file as UTF-8: bytes of another encoding are not guessed"
            raise ValueError(
                f"{name}: {self.distinct} of {self.rows} rows have a text in column "
                f"{self.text!r} that can be measured and that no earlier row has; a report needs "
                f"{LEAST} or more, each of which has ten neighbours. {said}"
            )
        if self.lost:
            notes.append(
                f"{self.lost:,} more lines are lost to quotes that are not closed; the malformed "
                "rows say which"
            )
        listed = sum(self.kinds.values())
        if listed > MOST_DEFECTS:
            notes.append(f"{listed:,} defects; the first {MOST_DEFECTS:,} are listed")
        if self.distinct > len(self.kept):
            notes.append(
                f"{len(self.kept):,} of {self.distinct:,} different texts are measured, drawn with "
                f"seed {seed}; defects are those of all rows"
            )
        texts = pd.DataFrame(sorted(self.kept), columns=["row", "line", "text", "label"])
        texts["line"] = texts["line"].astype("Int64")
        return Survey(
            self.file.path, self.text, self.label, self.rows, texts, self.distinct, table,
            tuple(notes),
        )  # fmt: skip


def _hash(text: str) -> int:
    return xxhash.xxh3_128_intdigest(text.encode())


def _folded(text: str) -> str:
    """The text without what a reader hardly sees: case, runs of blanks, forms of characters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
