"""A CSV with every kind of defect at known rows: to try a report on, and to test it against."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

WORDS = 50_000  # of the one very long text
ACCENTS = "Café, naïve façade: "  # what cp1252 writes in bytes that are not UTF-8
CRLF = "\r\n"


def write(
    path: Path, texts: Sequence[str], labels: Sequence[str], *, rng: np.random.Generator
) -> pd.DataFrame:
    """The defects that were put into the CSV at ``path``, in the order of rows: row, line, kind.

    Columns text and label, a byte-order mark, lines ending in CRLF; row i holds the i-th text
    unless something was done to it at a place drawn by ``rng``. A duplicate equals row 1, which
    nothing is done to, a near duplicate does but for case.

    Args:
        path: of the file, which is replaced.
        texts: 40 or more, all different.
        labels: of each.
        rng: draws the rows that get a defect.

    Raises:
        ValueError: fewer than 40 texts, two of them equal, or not one label for each.
    """
    if len(texts) < 40 or len(set(texts)) < len(texts) or len(labels) != len(texts):
        raise ValueError(
            f"40 different texts or more, and a label for each; got {len(set(texts))} different "
            f"ones of {len(texts)}, and {len(labels)} labels"
        )
    long = " ".join(" ".join(texts).split()[:WORDS])
    long = " ".join([long] * (WORDS // len(long.split()) + 1))
    spoiled: list[tuple[str, bytes | None]] = [
        ("empty", b""), ("empty", b""), ("empty", b'"   "'), ("missing", b"NaN"),
        ("duplicate", _cell(texts[0])), ("duplicate", _cell(texts[0])),
        ("near duplicate", _cell(texts[0].swapcase())),
        ("very long", _cell(" ".join(long.split()[:WORDS]))),
        ("encoding", _cell(ACCENTS + texts[1], "cp1252")),
        ("encoding", _cell(ACCENTS + texts[2], "latin-1")),
        ("control characters", _cell("A bell \x07 rings. " + texts[3])),
        ("damaged characters", _cell("CafÃ© " + texts[4])),
        ("ragged", _cell(texts[5]) + b",one,cell too many"),
        ("malformed", b'"a quote" that ends too soon'),
        ("no label", None),
    ]  # fmt: skip
    places = 1 + rng.permutation(len(texts) - 1)[: len(spoiled)]
    done = dict(zip(places.tolist(), spoiled, strict=True))
    found, line = [], 2
    with Path(path).open("wb") as file:
        file.write(b"\xef\xbb\xbftext,label\r\n")
        for at, (text, label) in enumerate(zip(texts, labels, strict=True)):
            kind, cell = done.get(at, ("", None))
            row = _cell(text) if cell is None else cell
            row += b"," + (b"" if kind == "no label" else _cell(label)) + CRLF.encode()
            file.write(row)
            if kind:
                found.append((at + 1, line, kind))
            line += row.count(b"\n")
    return pd.DataFrame(found, columns=["row", "line", "kind"])


def _cell(text: str, encoding: str = "utf-8") -> bytes:
    """A quoted cell of a CSV."""
    return ('"' + text.replace('"', '""') + '"').encode(encoding, "replace")
