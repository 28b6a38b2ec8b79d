"""Texts with one sentence to find: how the keys are drawn, and what is written around them.

Everything is drawn from one ``random.Random``, whose numbers are the same on every machine.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from numbers import Integral
from typing import Any

import numpy as np

from lab.data import templates

SHORTEST, LONGEST = 256, 32768
MOST = 100  # there are as many names, and as many facts

Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Task:
    """How to draw n pairs of a question and the key that answers it, and what surrounds a key."""

    keys: Callable[[int, random.Random], list[tuple[str, str]]]
    filler: Callable[[random.Random], Iterator[str]]


def tables(
    task: Task,
    length: int,
    *,
    seed: int,
    documents: int = 100,
    queries: int = 50,
    depth: float | None = None,
) -> Tables:
    """Rows of corpus, queries, qrels/test and, if a question is left for it, qrels/dev.

    The arguments, and what is raised, are those of :func:`lab.data.synthetic.passkey`.
    """
    _check(length, documents, queries, depth)
    rng = random.Random(seed)
    keys = task.keys(documents, rng)
    texts = [_document(key, task.filler(rng), length, depth, rng) for _, key in keys]
    order = rng.sample(range(documents), documents)
    judged = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in order]
    written: Tables = {
        "corpus": [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)],
        "queries": [{"id": f"q{i}", "text": question} for i, (question, _) in enumerate(keys)],
        "qrels/test": judged[:queries],
        "qrels/dev": judged[queries:],
    }
    return {name: rows for name, rows in written.items() if rows}


def _check(length: int, documents: int, queries: int, depth: float | None) -> None:
    for what, given, low, high in (
        ("length in tokens", length, SHORTEST, LONGEST),
        ("number of documents", documents, 2, MOST),
        ("number of queries", queries, 1, documents),
    ):
        message = f"the {what} must be a whole number from {low} to {high}; got {given!r}"
        if isinstance(given, bool) or not isinstance(given, Integral):
            raise TypeError(message)
        if not low <= given <= high:
            raise ValueError(message)
    if depth is not None and not 0 <= depth <= 1:
        raise ValueError(
            f"depth is where the key stands, from 0 (first) to 1 (last); got {depth!r}; None draws "
            "a place for every document"
        )


def _document(
    key: str, filler: Iterator[str], length: int, depth: float | None, rng: random.Random
) -> str:
    """Round(0.75 ``length``) words, the last sentence of filler cut to fit."""
    room = round(0.75 * length) - len(key.split())
    sentences: list[str] = []
    words = 0
    while words < room:
        sentence = next(filler).split()[: room - words]
        sentences.append(" ".join(sentence))
        words += len(sentence)
    sentences.insert(_boundary(sentences, depth, rng), key)
    return " ".join(sentences)


def _boundary(sentences: list[str], depth: float | None, rng: random.Random) -> int:
    """Before which sentence the key goes; a random key never follows the one that was cut."""
    if depth is None:
        return rng.randint(0, len(sentences) - 1)
    before = np.cumsum([0, *(len(sentence.split()) for sentence in sentences)])
    return int(np.abs(before - depth * before[-1]).argmin())


def _people(n: int, rng: random.Random) -> list[tuple[str, str]]:
    lasts = rng.sample(templates.LAST, n)
    names = [f"{first} {last}" for first, last in zip(templates.FIRST[:n], lasts, strict=True)]
    codes = rng.sample(range(10_000, 100_000), n)
    return [
        (templates.QUERY.format(name=name), templates.KEY.format(name=name, code=code))
        for name, code in zip(names, codes, strict=True)
    ]


def _repeated(rng: random.Random) -> Iterator[str]:
    start = rng.randrange(len(templates.FILLER))
    yield from islice(cycle(templates.FILLER), start, None)


FACTS = {  # question -> fact
    question.format(town=stem + ending): fact.format(town=stem + ending, answer=answer)
    for ending, fact, question, answers in templates.FACTS
    for stem, answer in zip(templates.STEMS, answers.split(), strict=True)
}


def _facts(n: int, rng: random.Random) -> list[tuple[str, str]]:
    return rng.sample(sorted(FACTS.items()), n)


def _prose(rng: random.Random) -> Iterator[str]:
    while True:
        words = {slot: rng.choice(choices) for slot, choices in templates.SLOTS.items()}
        sentence = rng.choice(templates.PATTERNS).format(**words)
        yield sentence[0].upper() + sentence[1:]


TASKS = {"passkey": Task(_people, _repeated), "needle": Task(_facts, _prose)}

ASKED = re.compile(re.escape(templates.QUERY).replace(r"\{name\}", "(.+)"))


def position(question: str, document: str) -> float:
    """Words before the key that answers ``question`` over words of filler: 0 first, 1 last.

    Raises:
        ValueError: a question of another set, or a document without its key.
    """
    name = ASKED.fullmatch(question)
    if name is None and question not in FACTS:
        raise ValueError(f"{question[:60]!r} is no question of the passkey or the needle sets")
    key = FACTS[question] if name is None else templates.KEY.format(name=name[1], code="{code}")
    before, found, _ = document.partition(key.split("{code}")[0])
    if not found:
        raise ValueError(
            f"the document does not hold the answer to {question!r}: it was cut, or is another"
        )
    return len(before.split()) / (len(document.split()) - len(key.split()))
