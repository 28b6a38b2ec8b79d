"""What is wrong with one cell, and which column of a file holds the texts."""

import math
import re
import statistics
from collections.abc import Sequence
from typing import Any

from lab.corpus.rows import HALF
from lab.report.defects import excerpt

MISSING = {"nan", "NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None"}
LONG = 5000  # words; about the 8192 tokens that the longest windows of common models have
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\ufeff]")
ESCAPED = re.compile("[\udc80-\udcff]")
SURROGATE = re.compile("[\ud800-\udfff]")
SHOWN_AROUND = 40  # characters shown around a byte that is not UTF-8
TEXT_LIKE = 20  # characters: the median of a column that looks like text

Wrong = list[tuple[str, str]]


def cell(value: Any) -> Wrong:
    """(kind, detail) of everything wrong with the cell of a text; nothing if it is sound."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return [("missing", "is null" if value is None else "is NaN")]
    if not isinstance(value, str):
        said = excerpt(str(value))
        return [("not a string", f"{said} is a {type(value).__name__}, not a string")]
    if value.strip() in MISSING:
        return [("missing", f"holds the word {value.strip()!r}, which stands for no value")]
    if not value.strip():
        return [("empty", "is empty" if not value else f"holds {len(value)} blanks only")]
    if SURROGATE.search(value):
        return [("encoding", _undecoded(value))]
    return [*_long(value), *_control(value), *_damaged(value)]


def label(value: Any) -> tuple[str | None, Wrong]:
    """The label as text, None if there is none, and everything wrong with it.

    Whole numbers and booleans are labels too; 3.0 and 3 are the same.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int):
        return str(value), []
    wrong = cell(value)
    if any(kind in ("missing", "not a string", "empty", "encoding") for kind, _ in wrong):
        return None, [("no label", detail) for _, detail in wrong]
    return value.strip(), [(kind, f"the label: {detail}") for kind, detail in wrong]


def _undecoded(text: str) -> str:
    """What the bytes are that are not UTF-8, and what they would say in a Western encoding."""
    found = ESCAPED.search(text)
    if not found:
        return f"holds {HALF}"
    at = found.start()
    window = SURROGATE.sub(lambda c: c[0] if ESCAPED.match(c[0]) else "?", text[max(0, at - 20) :])
    raw = window[:SHOWN_AROUND].encode("utf-8", "surrogateescape")
    byte = ord(found[0]) - 0xDC00
    try:
        name, read = "cp1252", raw.decode("cp1252")
    except UnicodeDecodeError:
        name, read = "latin-1", raw.decode("latin-1")
    return f"byte 0x{byte:02X} at character {at + 1} is not UTF-8; as {name} it reads {read!r}"


def _long(text: str) -> Wrong:
    words = len(text.split()) if len(text) > 2 * LONG else 0
    if words <= LONG:
        return []
    return [("very long", f"{words:,} words, {len(text):,} characters: {excerpt(text)}")]


def _control(text: str) -> Wrong:
    found = CONTROL.findall(text)
    if not found:
        return []
    which = ", ".join(f"U+{ord(one):04X}" for one in sorted(set(found)))
    return [("control characters", f"{len(found)} ({which}): {excerpt(text)}")]


def _damaged(text: str) -> Wrong:
    """U+FFFD, and UTF-8 that was read as cp1252: undoing that gives a shorter, valid text."""
    if text.isascii():
        return []
    if lost := text.count("\ufffd"):
        return [("damaged characters", f"{lost} lost to U+FFFD: {excerpt(text)}")]
    try:
        mended = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return []
    pairs = enumerate(zip(text, mended, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), len(mended) - 1)
    around = slice(max(0, at - 15), at + 15)
    said = f"{text[around]!r} is UTF-8 read as cp1252, and was {mended[around]!r}"
    return [("damaged characters", f"{said}; it is measured as it is")]


def text_column(name: str, columns: Sequence[str], rows: Sequence[Any]) -> tuple[str, str]:
    """The one column of a file that looks like text, and the words that say so.

    It looks like text if half of its cells have TEXT_LIKE characters or more, and either blanks or
    letters beyond ASCII, and most of them differ.

    Raises:
        ValueError: no column looks like text, or several do (which).
    """
    found = [column for column in columns if looks_like_text([r.get(column) for r in rows])]
    if len(found) == 1:
        return found[0], f"column {found[0]!r} was taken for the texts: no other looks like text"
    said = "none of them looks" if not found else f"{', '.join(map(repr, found))} look"
    raise ValueError(
        f"{name} has the columns {', '.join(map(repr, columns))}; {said} like text: say which "
        "column is meant, with --text"
    )


def looks_like_text(cells: Sequence[Any]) -> bool:
    """Whether the cells are texts, as :func:`text_column` has it."""
    texts = [one for one in cells if isinstance(one, str) and one.strip()]
    if 2 * len(texts) < len(cells) or not texts:
        return False
    wordy = sum(" " in one.strip() or not one.isascii() for one in texts)
    long = statistics.median(map(len, texts)) >= TEXT_LIKE
    return long and 2 * wordy > len(texts) and 2 * len(set(texts)) > len(texts)
