"""The same texts at several lengths: topic held fixed, so that it is not mistaken for length."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lab.data import Dataset
from lab.models import EmbeddingModel
from lab.models.texts import TEXT, TextError, check_texts

TOLERANCE = 3  # tokens: of a character of four bytes that does not fit, three might have


def token_lengths(model: EmbeddingModel, texts: Sequence[str]) -> np.ndarray:
    """(n,) tokens of each text as the model reads it, before any cut.

    Special tokens, sink and template count.

    Raises:
        TypeError, ValueError: a text that cannot be embedded (which row).
    """
    check_texts(texts)
    return np.array([_length(model, row, text) for row, text in enumerate(texts)], dtype=np.int64)


def cuts(
    model: EmbeddingModel, texts: Sequence[str], lengths: Sequence[int]
) -> dict[int, list[str]]:
    """The beginning of every text, n tokens long, for each n: the matched-content control.

    Lengths are those of :func:`token_lengths`: special tokens, sink and template count. A text is
    cut at the end of a token, found by the tokenizer's character offsets, and tokenised again. With
    WordPiece that gives n tokens. Byte-level BPE may split a character or the blanks between two
    words differently there; the text is then cut a token earlier, and is up to 3 short of n.

    Raises:
        TypeError: something is not a string; a length is no whole number.
        ValueError: a text shorter than a cut (its row and length); a cut that leaves nothing of a
            text, is longer than the model reads, or cannot be made within 3 tokens; a text that
            cannot be embedded; a tokenizer without character offsets.
    """
    check_texts(texts)
    for n in lengths:
        _check(model, n)
    counted = token_lengths(model, texts)
    for n in lengths:
        if len(short := np.flatnonzero(counted < n)):
            row = short[0]
            raise ValueError(
                f"text {row} of {len(texts)} has {counted[row]} tokens, too few for a cut of {n} "
                f"({len(short)} such texts): {texts[row][:40]!r}; leave them out or cut shorter"
            )
    found: dict[int, list[str]] = {int(n): [] for n in lengths}
    for row, (text, count) in enumerate(zip(texts, counted.tolist(), strict=True)):
        ends = _ends(model, text)
        for n, pieces in found.items():
            pieces.append(_cut(model, row, text, ends, count, n))
    return found


def cut_documents(model: EmbeddingModel, dataset: Dataset, n: int) -> Dataset:
    """The retrieval data set with every document cut to n tokens; queries stay whole.

    Shorter documents stay as they are, and ``notes`` say how many: nDCG against n then is of one
    set of queries and answers. Documents that become equal are one document from then on, of whose
    judgements the highest counts, as when a data set is loaded.

    Raises:
        TypeError: n is no whole number.
        ValueError: another kind of data set; otherwise as :func:`cuts`.
    """
    if dataset.kind != "retrieval" or dataset.queries is None or dataset.documents is None:
        raise ValueError(f"{dataset.name} is {dataset.kind}; only retrieval has documents")
    _check(model, n)
    shortened = {}
    for place in dataset.documents:
        text = dataset.texts[place]
        count = _length(model, place, text)
        if count > n:
            shortened[place] = _cut(model, place, text, _ends(model, text), count, n)
    documents = [shortened.get(place, dataset.texts[place]) for place in dataset.documents]
    queries = [dataset.texts[place] for place in dataset.queries]
    texts = list(dict.fromkeys([*queries, *documents]))
    position = {text: place for place, text in enumerate(texts)}
    moved = dict(zip(dataset.documents, (position[text] for text in documents), strict=True))
    asked = dict(zip(dataset.queries, (position[text] for text in queries), strict=True))
    frame = dataset.frame.assign(
        query=dataset.frame["query"].map(asked), document=dataset.frame["document"].map(moved)
    )
    frame = frame.groupby(["query", "document"], sort=False, as_index=False)["relevance"].max()
    kept = np.array(list(dict.fromkeys(moved.values())))
    note = f"{len(shortened)} of {len(documents)} documents cut to {n} tokens, others are no longer"
    merged = len(documents) - len(kept)
    notes = (*dataset.notes, note, *[f"{merged} documents became equal to another"] * bool(merged))
    return replace(
        dataset, texts=texts, frame=frame, queries=np.array(list(asked.values())), documents=kept,
        n=len(asked), notes=notes,
    )  # fmt: skip


def _length(model: EmbeddingModel, row: int, text: str) -> int:
    """Tokens of one text; its row is for the error."""
    try:
        (found,) = model.encoder.tokenise([text])
    except TextError as error:
        raise TextError(row, error.text, error.why) from None
    return len(found.ids) + found.cut


def _check(model: EmbeddingModel, n: Any) -> None:
    """Refuse lengths that no cut can have."""
    encoder = model.encoder
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"the length of a cut is a whole number of tokens; got {n!r}")
    if not encoder.tokenizer.is_fast:
        kind = type(encoder.tokenizer).__name__
        raise ValueError(f"{kind} gives no character offsets to cut at; use a fast tokenizer")
    if encoder.max_length is not None and n > encoder.max_length:
        raise ValueError(
            f"a cut of {n} tokens is longer than the {encoder.max_length} that the model reads; "
            "cut shorter or raise max_length"
        )


def _ends(model: EmbeddingModel, text: str) -> list[int]:
    """Where each token of the text itself ends, in characters."""
    before, after = model.encoder.template.split(TEXT)
    batch = model.encoder.tokenizer(
        before + text + after,
        truncation=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    start, stop = len(before), len(before) + len(text)
    spans = zip(batch["offset_mapping"], batch["special_tokens_mask"], strict=True)
    own = [span for span, special in spans if not special and span[0] < stop and span[1] > start]
    return [min(end, stop) - start for _, end in own]


def _cut(
    model: EmbeddingModel, row: int, text: str, ends: Sequence[int], count: int, n: int
) -> str:
    """The longest beginning of a text of ``count`` tokens that has at most n of them."""
    if count == n:
        return text
    around = count - len(ends)
    if n <= around:
        raise ValueError(
            f"a cut of {n} tokens leaves nothing of text {row}: special tokens, sink and template "
            f"take {around}; ask for more"
        )
    for end in dict.fromkeys(reversed(ends[: n - around])):
        piece = text[:end]
        length = _length(model, row, piece) if piece.strip() else 0
        if length <= n:
            break
    if length < max(1, n - TOLERANCE):
        raise ValueError(
            f"text {row} ({text[:40]!r}) cannot be cut to {n} tokens: its nearest beginning has "
            f"{length}; leave it out"
        )
    return piece
