"""Which words of which texts are read: whole words that recur, and random words to compare with."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

CONTEXTS = 5
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Occurrence:
    """A word in a text: which text, and its first and last token + 1 among the text's own."""

    row: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Sample:
    """What is read of some texts, numbered by slots: the words one after the other, random words.

    Attributes:
        places: (slots,) where each is found.
        names: (words,) the words.
        bounds: (words + 1,) word i holds the slots bounds[i] .. bounds[i + 1].
        matched: (words,) for each word as many slots of random words as it has occurrences.
    """

    places: list[Occurrence] = field(repr=False)
    names: list[str]
    bounds: list[int] = field(repr=False)
    matched: list[np.ndarray] = field(repr=False)

    @property
    def words(self) -> list[slice]:
        """The slots of each word."""
        return [slice(start, end) for start, end in pairwise(self.bounds)]

    @property
    def random(self) -> slice:
        """The slots of the random words."""
        return slice(self.bounds[-1], len(self.places))


def own_spans(
    tokenizer: Any, texts: Sequence[str], *, before: str, after: str, cut: Sequence[int]
) -> list[np.ndarray]:
    """For each text, (tokens, 2) where its own tokens begin and end in it, in characters.

    Own are neither special tokens nor those of what stands before and after the text; the last
    ``cut[row]`` of them were cut. They are the tokens that ``lab.models.texts.tokenise`` counts as
    inside the text.

    Raises:
        ValueError: the tokenizer gives no character offsets.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets, which whole words need; use a "
            "fast tokenizer"
        )
    batch = tokenizer(
        [before + text + after for text in texts],
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    found = []
    for row, text in enumerate(texts):
        spans = np.array(batch["offset_mapping"][row]) - len(before)
        own = ~np.array(batch["special_tokens_mask"][row], dtype=bool)
        if before or after:
            own &= (spans[:, 0] < len(text)) & (spans[:, 1] > 0)
        found.append(spans[own][: own.sum() - cut[row]])
    return found


def words_of(row: int, text: str, spans: np.ndarray) -> Iterator[tuple[str, Occurrence]]:
    """Every word of a text, with the run of its tokens that overlap it.

    A word is a run of letters and digits, case as it is. Words without a token are left out, and so
    are those that were cut.

    Args:
        row: the number of the text.
        text: the text.
        spans: (tokens, 2) where in it each of its tokens begins and ends.
    """
    for match in WORD.finditer(text):
        start, end = match.span()
        first = int(np.searchsorted(spans[:, 1], start, side="right"))
        last = int(np.searchsorted(spans[:, 0], end, side="left"))
        if first < last and spans[last - 1, 1] >= end:
            yield match.group(), Occurrence(row, first, last)


def draw_sample(
    texts: Sequence[str],
    spans: Sequence[np.ndarray],
    *,
    rng: np.random.Generator,
    words: int,
    occurrences: int,
    random_words: int,
) -> Sample:
    """Words that recur, with some of their contexts, and one random word from each of some texts.

    A word recurs if it occurs in five or more different texts; its first place in each is taken.
    A text that is repeated counts once.

    Args:
        texts: the texts.
        spans: for each, (tokens, 2) where in it each of its tokens begins and ends.
        rng: draws words, contexts and random words.
        words: how many words at the most, 2 or more.
        occurrences: how many contexts of each at the most, 2 or more.
        random_words: how many random words at the most, no fewer than ``occurrences``.

    Raises:
        ValueError: a number below its least; fewer than two words recur.
    """
    leasts = {"words": (words, 2), "occurrences": (occurrences, 2)}
    for name, (number, least) in {**leasts, "random_words": (random_words, occurrences)}.items():
        if number < least:
            raise ValueError(f"{name} must be {least} or more here; got {number}")
    contexts: dict[str, list[Occurrence]] = defaultdict(list)
    by_text: list[list[Occurrence]] = []
    rows: dict[str, int] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, row)
    for text, row in rows.items():
        found = list(words_of(row, text, spans[row]))
        for word, place in dict(reversed(found)).items():  # the first of each
            contexts[word].append(place)
        if found:
            by_text.append([place for _, place in found])
    recurring = sorted(word for word, places in contexts.items() if len(places) >= CONTEXTS)
    if len(recurring) < 2:
        raise ValueError(
            f"two words that occur in {CONTEXTS} or more different texts are needed; got "
            f"{len(recurring)} in {len(by_text)} different texts with a word: give more texts"
        )
    names = [recurring[at] for at in _draw(rng, len(recurring), words)]
    of_words = [
        [contexts[w][at] for at in _draw(rng, len(contexts[w]), occurrences)] for w in names
    ]
    chosen = [by_text[at] for at in _draw(rng, len(by_text), random_words)]
    at_random = [found[rng.integers(len(found))] for found in chosen]
    sizes = [len(places) for places in of_words]
    bounds = [0, *np.cumsum(sizes).tolist()]
    matched = [bounds[-1] + _draw(rng, len(at_random), size) for size in sizes]
    places = [place for one in [*of_words, at_random] for place in one]
    return Sample(places, names, bounds, matched)


def _draw(rng: np.random.Generator, of: int, most: int) -> np.ndarray:
    """At most so many different numbers below ``of``, in order."""
    return np.sort(rng.choice(of, size=min(of, most), replace=False))
