"""Texts to token ids: template, sink, cut to length, what is pooled, windows, batches.

What is cut from a text that is too long is the end of the *text*: the rest of its template and the
special tokens after it stay, so that the last token keeps its meaning. Texts that can't be embedded
are refused by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TEXT = "{text}"


class TruncationWarning(UserWarning):
    """Some texts were longer than the model and lost their end.

    Attributes:
        texts: how many, of how many (``of``), against which ``limit`` in tokens.
        longest: tokens of the longest, ``tokens``: cut from all of them together.
    """

    def __init__(self, texts: int, of: int, limit: int, longest: int, tokens: int) -> None:
        self.texts, self.of, self.limit, self.longest, self.tokens = (
            texts,
            of,
            limit,
            longest,
            tokens,
        )
        super().__init__(
            f"{texts} of {of} texts are longer than the model's {limit} tokens and lost their end "
            f"(longest {longest}, {tokens} tokens cut)"
        )

    @classmethod
    def merged(cls, batches: Sequence["TruncationWarning"], of: int) -> "TruncationWarning":
        """One warning for the warnings of several batches of ``of`` texts."""
        return cls(
            sum(batch.texts for batch in batches),
            of,
            batches[0].limit,
            max(batch.longest for batch in batches),
            sum(batch.tokens for batch in batches),
        )


class TextError(ValueError):
    """A text that cannot be embedded: its row, the text and why."""

    def __init__(self, row: int, text: str, why: str) -> None:
        self.row, self.text, self.why = row, text, why
        super().__init__(f"text {row} ({text[:40]!r}) {why}")


@dataclass(frozen=True)
class TokenisedText:
    """One text as token ids.

    Attributes:
        ids: token ids, special tokens, template and sink included.
        pool: for each id, whether it takes part in the pooling.
        prefix: how many leading ids lie before the text (sink, BOS, instruction).
        suffix: how many ids lie after it (rest of the template, EOS or SEP).
        cut: how many tokens of the text were left out because the model is too short.
    """

    ids: list[int]
    pool: list[bool]
    prefix: int
    suffix: int
    cut: int


def tokenise(
    tokenizer: Any,
    texts: Sequence[str],
    *,
    before: str,
    after: str,
    sink: int | None,
    pool_template: bool,
    limit: int,
) -> list[TokenisedText]:
    """The token ids of ``before + text + after`` for each text.

    Raises:
        TypeError: something is not a string.
        ValueError: a text is empty, blank or gives no token, or has no room within ``limit``;
            the tokenizer gives no offsets, which anything around a text needs.
    """
    check_texts(texts)
    around = bool(before or after)
    if around and not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets, which templates and prompts "
            "need; use a fast tokenizer"
        )
    batch = tokenizer(
        [before + text + after for text in texts],
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_special_tokens_mask=True,
        return_offsets_mapping=around,
        verbose=False,
    )
    special_ids = set(tokenizer.all_special_ids)
    result = []
    for row, text in enumerate(texts):
        inside = [not special for special in batch["special_tokens_mask"][row]]
        if around:
            start, end = len(before), len(before) + len(text)
            spans = batch["offset_mapping"][row]
            inside = [
                ordinary and span[0] < end and span[1] > start
                for ordinary, span in zip(inside, spans, strict=True)
            ]
        ids = batch["input_ids"][row]
        if True not in inside:
            raise TextError(row, text, "gives no token; drop it before encoding")
        if sink is not None and ids[0] != sink:
            ids, inside = [sink, *ids], [False, *inside]
        ids, inside, cut = _cut(ids, inside, limit)
        if True not in inside:
            why = f"has no room within {limit} tokens beside template, prompt and special tokens"
            raise TextError(row, text, f"{why}; shorten them or raise max_length")
        prefix = inside.index(True)
        if pool_template or not around:
            pool = [place > 0 or sink is None for place in range(len(ids))]
        else:
            pool = [
                own or (place > prefix and ids[place] in special_ids)
                for place, own in enumerate(inside)
            ]
        suffix = inside[::-1].index(True)
        result.append(TokenisedText(ids, pool, prefix, suffix, cut))
    return result


def _cut(ids: list[int], inside: list[bool], limit: int) -> tuple[list[int], list[bool], int]:
    """Ids and marks without the last tokens of the text itself that don't fit, and their number."""
    cut = max(0, len(ids) - limit)
    if not cut:
        return ids, inside, 0
    own = [place for place, mine in enumerate(inside) if mine]
    drop = set(own[-cut:])
    kept = [place for place in range(len(ids)) if place not in drop]
    return [ids[place] for place in kept], [inside[place] for place in kept], cut


def windows(text: TokenisedText, length: int) -> list[TokenisedText]:
    """The parallel windows of a text: at most ``length`` ids each, what is around the text in all.

    The last window holds the last tokens of the text and overlaps the one before it (LongEmbed,
    arXiv:2404.12096, section 3). A text of at most ``length`` ids is its own only window.

    Raises:
        ValueError: what is around the text leaves no room in a window.
    """
    if len(text.ids) <= length:
        return [text]
    end = len(text.ids) - text.suffix
    room = length - text.prefix - text.suffix
    if room < 1:
        raise ValueError(
            f"template, prompt and special tokens take {text.prefix + text.suffix} tokens, which "
            f"leaves no room for a text in a window of {length}; shorten them or lengthen it"
        )

    def window(start: int) -> TokenisedText:
        ids, pool = (
            [*row[: text.prefix], *row[start : start + room], *row[end:]]
            for row in (text.ids, text.pool)
        )
        return TokenisedText(ids, pool, text.prefix, text.suffix, cut=0)

    return [window(min(start, end - room)) for start in range(text.prefix, end, room)]


def mean_of_windows(pooled: Tensor, counts: Tensor | None) -> Tensor:
    """(..., text, dim) the mean over each text's windows of (..., window, dim), in float32.

    ``counts`` (text,) says how many windows a text has; None: there are no windows to merge.
    """
    if counts is None:
        return pooled
    parts = pooled.split(counts.tolist(), -2)
    return torch.stack([part.float().mean(-2) for part in parts], -2).to(pooled.dtype)


def collate(texts: Sequence[TokenisedText], pad: int, left: bool) -> dict[str, Any]:
    """A padded batch: ``input_ids``, ``attention_mask``, ``pool_mask``, ``prefix_lengths``."""
    width = max(len(text.ids) for text in texts)

    def padded(rows: list[list[Any]], filler: Any) -> Tensor:
        fill = [[filler] * (width - len(row)) for row in rows]
        return torch.tensor(
            [gap + row if left else row + gap for row, gap in zip(rows, fill, strict=True)]
        )

    return {
        "input_ids": padded([text.ids for text in texts], pad),
        "attention_mask": padded([[1] * len(text.ids) for text in texts], 0),
        "pool_mask": padded([text.pool for text in texts], False),
        "prefix_lengths": torch.tensor([text.prefix for text in texts]),
        "modality": "text",
    }


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what can't be encoded, naming the row.

    Raises:
        TypeError: not a list of strings.
        ValueError: an empty or blank text.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string; give a list of texts")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"text {row} is a {type(text).__name__} ({str(text)[:40]!r}); "
                "give strings, drop missing values before encoding"
            )
        if not text.strip():
            why = "is empty or blank; an embedding of nothing would be an invention"
            raise TextError(row, text, f"{why}: drop such texts before encoding")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            why = "holds half of a surrogate pair, which is no character; repair its decoding"
            raise TextError(row, text, why)


def truncation(texts: Sequence[TokenisedText]) -> list[TruncationWarning]:
    """One warning if some of these texts were cut: how many, how much; else none."""
    cut = [text for text in texts if text.cut]
    if not cut:
        return []
    longest = max(len(text.ids) + text.cut for text in cut)
    lost = sum(text.cut for text in cut)
    return [TruncationWarning(len(cut), len(texts), len(cut[0].ids), longest, lost)]
