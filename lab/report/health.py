"""How a model fares on the texts of a file: the shape of the space, lengths, hubs, neighbours."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lab.anisotropy import Rows, k_occurrence
from lab.corpus.columns import OWN, Columns, default_prompt
from lab.models import EmbeddingModel, settings
from lab.models.texts import TextError, TruncationWarning
from lab.report import measures
from lab.report.defects import excerpt
from lab.report.lengths import by_length
from lab.report.measures import K
from lab.report.survey import Survey
from lab.stats.jackknife import Jackknife

NEAR = 0.98  # cosine of two texts that are all but the same to the model
TOGETHER = 1024  # texts between two moves of the bar
PAIRS = 1000  # near duplicates that are listed

Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Health:
    """Embeddings of the texts of a survey, and what can be read off them.

    Attributes:
        survey: the file; ``of``: the settings of the model as columns of the tidy table.
        vectors: (texts, dim) float32, what ``model.encode`` returns.
        tokens: (texts,) of each text before any cut; ``cut``: those the model did not read.
        seed: of jackknife groups and of the choice of texts that are shown.
        seconds: that embedding took.
    """

    survey: Survey
    of: dict[str, Any]
    vectors: np.ndarray = field(repr=False)
    tokens: np.ndarray = field(repr=False)
    cut: np.ndarray = field(repr=False)
    seed: int
    seconds: float

    @cached_property
    def rows(self) -> Rows:
        """The vectors, with their neighbours."""
        return Rows(self.vectors)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The tidy results: one row a number, with its interval and n."""
        return self._measured[0]

    @property
    def refused(self) -> dict[str, str]:
        """What could not be measured, and why, by section."""
        return self._measured[1]

    @cached_property
    def _measured(self) -> tuple[pd.DataFrame, dict[str, str]]:
        return measures.tidy(self)

    @cached_property
    def by_length(self) -> dict[str, Jackknife]:
        """The mean cosine in each bin of length, shortest first.

        Raises:
            ValueError: too few different lengths for two bins.
        """
        return by_length(self.vectors, self.tokens)

    def hubs(self, k: int = K, top: int = 5) -> pd.DataFrame:
        """The texts that are most often among the k nearest of others: place, times, text.

        Raises:
            ValueError: k texts or fewer, or all vectors of one direction.
        """
        times = k_occurrence(self.rows, k)
        worst = np.argsort(-times, kind="stable")[:top]
        return pd.DataFrame(
            {
                "place": [self.survey.place(at) for at in worst],
                "times": times[worst],
                "text": [excerpt(self.survey.texts["text"].iloc[at]) for at in worst],
            }
        )

    def nearest(self, at: int, k: int = 5) -> pd.DataFrame:
        """The k nearest of the ``at``-th text: place, cosine, label, text.

        Raises:
            ValueError: k texts or fewer.
        """
        if not 1 <= k < len(self.vectors):
            raise ValueError(f"{k} neighbours wanted; the text has {len(self.vectors) - 1}")
        cosines = self.rows.units @ self.rows.units[at]
        cosines[at] = -np.inf
        near = np.argsort(-cosines, kind="stable")[:k]
        texts = self.survey.texts.iloc[near]
        shown = {"place": [self.survey.place(one) for one in near], "cosine": cosines[near]}
        label = {} if self.survey.label is None else {"label": texts["label"].fillna("").tolist()}
        return pd.DataFrame({**shown, **label, "text": texts["text"].map(excerpt).tolist()})

    @cached_property
    def queries(self) -> np.ndarray:
        """(5,) the texts whose neighbours are shown: drawn by the seed."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.choice(len(self.vectors), 5, replace=False))

    @cached_property
    def near_duplicates(self) -> pd.DataFrame:
        """Pairs with a cosine of NEAR or more, nearest first: row, other row, cosine, both texts.

        Of every text the 40 nearest are looked at.
        """
        found = self.rows.by_angle
        cosines = 1 - found.distances**2 / 2
        first, rank = np.nonzero(cosines >= NEAR)
        second = found.numbers[first, rank]
        pairs = pd.DataFrame(
            {"a": np.minimum(first, second), "b": np.maximum(first, second),
             "cosine": cosines[first, rank]}
        )  # fmt: skip
        pairs = pairs.drop_duplicates(["a", "b"]).sort_values(
            ["cosine", "a", "b"], ascending=[False, True, True]
        )
        pairs = pairs.head(PAIRS)
        texts = self.survey.texts
        return pd.DataFrame(
            {
                "place": [self.survey.place(at) for at in pairs["b"]],
                "is near to": [self.survey.place(at) for at in pairs["a"]],
                "cosine": pairs["cosine"].to_numpy(),
                "text": [excerpt(texts["text"].iloc[at]) for at in pairs["b"]],
                "near text": [excerpt(texts["text"].iloc[at]) for at in pairs["a"]],
            }
        )

    @cached_property
    def texts(self) -> pd.DataFrame:
        """One row a measured text: row, line, label, tokens, cut, times a neighbour, nearest."""
        found = self.rows.by_angle
        near = self.survey.texts.iloc[found.numbers[:, 0]]
        return self.survey.texts[["row", "line", "label"]].assign(
            tokens=self.tokens,
            cut=self.cut,
            times_a_neighbour=k_occurrence(self.rows, K),
            nearest_row=near["row"].to_numpy(),
            nearest_cosine=1 - found.distances[:, 0] ** 2 / 2,
            text=self.survey.texts["text"].map(excerpt),
        )


def examine(
    survey: Survey, model: EmbeddingModel, *, seed: int = 0, progress: Progress | None = None
) -> Health:
    """The embeddings of a survey's texts under ``model``, ready to be read.

    Raises:
        ValueError: a text that the model cannot embed (its row); all vectors of one direction.
        FloatingPointError: an embedding that is not finite.
    """
    begun = time.perf_counter()
    columns, prompt = Columns.of(model, (), ()), default_prompt(model)
    texts = survey.texts["text"].tolist()
    vectors, lengths, cut = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # the report says it, text by text
        for start in range(0, len(texts), TOGETHER):
            part = texts[start : start + TOGETHER]
            try:
                found, seen, lost = columns.read(model, part, prompt=prompt)
            except TextError as error:
                raise ValueError(f"{survey.place(start + error.row)}: {error.why}") from None
            vectors.append(found[OWN])
            lengths.append(seen)
            cut.append(lost)
            if progress:
                progress((start + len(part)) / len(texts))
    tokens, lost = np.concatenate(lengths), np.concatenate(cut)
    rows = np.concatenate(vectors)
    if np.ptp(rows, axis=0).max() == 0:
        raise ValueError(
            f"the model gives all {len(rows)} texts the same vector, so nothing can be measured; "
            f"the first text is {excerpt(texts[0])}"
        )
    took = time.perf_counter() - begun
    return Health(survey, settings(model), rows, tokens + lost, lost, seed, took)
