"""The bench: what happens to these sentences when one thing is changed?

Their similarity, the neighbours of one of them and a score on graded pairs, under a setting and
beside a start setting; live (:mod:`lab.explore.bench_controls`) or as frames over layers and
poolings. The score is Spearman's correlation of the cosine with the given similarity.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab.explore.passes import Pass, Passes, Progress, Setting, read_lines
from lab.explore.readings import cosine

if TYPE_CHECKING:
    from ipywidgets import Widget
    from plotly.graph_objects import Figure as PlotlyFigure

    from lab.data import Dataset
    from lab.stats import Score

# Four families: said otherwise, turned round, the same words in another order, another matter.
EXAMPLES = (
    "A man is playing a guitar on the stage.",
    "Someone performs music for an audience.",
    "A man is not playing a guitar on the stage.",
    "The dog chased the cat across the garden.",
    "The cat chased the dog across the garden.",
    "The cat was chased across the garden by the dog.",
    "Interest rates rose by half a point on Tuesday.",
    "The central bank made borrowing more expensive.",
    "Interest rates fell by half a point on Tuesday.",
    "Snow fell in the mountains overnight.",
    "Snow.",
    "Several passes in the mountains are closed this morning, because a good deal of snow fell "
    "during the night and the ploughs will not be out before noon.",
)


class Bench:
    """An explorer of settings: texts to look at, graded pairs to score on, a setting to start from.

    Args:
        start: the first setting, which the later ones are compared with.
        pairs: sentence pairs with scores (``data.load`` of kind "sts").
        texts: the sentences to begin with.
        checkpoints: what the model menu offers besides that of ``start``.
        poolings: those of :meth:`frames`; live there are all.
        seed, resamples: of the bootstrap behind every interval.
    """

    def __init__(
        self,
        start: Setting,
        pairs: "Dataset",
        *,
        texts: Sequence[str] = EXAMPLES,
        checkpoints: Sequence[str] = (),
        poolings: Sequence[str] = ("mean", "first", "last", "max"),
        seed: int = 0,
        resamples: int = 1000,
    ) -> None:
        self.start, self.pairs, self.seed, self.resamples = start, pairs, seed, resamples
        self.texts, self.poolings = read_lines("\n".join(texts)), tuple(poolings)
        self.checkpoints = tuple(dict.fromkeys([start.checkpoint, *checkpoints]))
        self.passes = Passes()

    def live(self) -> "Widget":
        """The controls, with matrix, neighbours and score; they share the passes made so far."""
        from lab.explore.bench_controls import Controls

        return Controls(self).widget

    def frames(self) -> "PlotlyFigure":
        """The matrix and the score with a slider of layers and a menu of poolings."""
        from lab.plotting.similarity import similarity_frames

        return similarity_frames(self.cosines(), self.scores())

    def table(self) -> pd.DataFrame:
        """The numbers behind :meth:`frames`: cosines of texts, and scores with their intervals."""
        cosines = self.cosines().assign(metric="cosine")
        scores = self.scores()[["layer", "pooling", "metric", "value", "low", "high", "n"]]
        return pd.concat([cosines, scores], ignore_index=True)

    def settings(self) -> list[Setting]:
        """The start setting under every layer and every pooling of the frames."""
        layers = range(self.passes.read(self.start, self.texts).states)
        return [replace(self.start, layer=layer, pooling=pooling)
                for layer, pooling in product(layers, self.poolings)]  # fmt: skip

    def cosines(self) -> pd.DataFrame:
        """layer, pooling, first, second, value: every pair of texts in every frame."""
        first, second = zip(*product(self.texts, repeat=2), strict=True)
        return pd.concat(
            [
                pd.DataFrame({"layer": one.layer, "pooling": one.pooling, "first": first,
                              "second": second, "value": self.cosine(one, self.texts).ravel()})
                for one in self.settings()
            ], ignore_index=True,
        )  # fmt: skip

    def scores(self) -> pd.DataFrame:
        """The tidy table of the scores of all frames; a layer without a defined score has no row.

        Undefined is a score where all cosines are equal: so are the first tokens of layer 0.
        """
        from lab.grid import Cell, tabulate
        from lab.models import settings

        read = self._pairs_under(self.start)
        about = {**settings(self.passes.model(self.start)), "dataset": self.pairs.name,
                 "split": self.pairs.split, "truncated": int((read.cut > 0).sum()),
                 "seed": self.seed}  # fmt: skip
        found = [(one, self.score(one)) for one in self.settings()]
        cells = [
            Cell({**about, "layer": one.layer, "pooling": one.pooling}, score, read.states - 1)
            for one, score in found
            if not isinstance(score, str)
        ]
        rng = np.random.default_rng(self.seed)
        return tabulate(cells, notebook="08_bench", rng=rng, resamples=self.resamples)

    def cosine(self, setting: Setting, texts: Sequence[str]) -> np.ndarray:
        """The cosines (texts, texts) under a setting."""
        return cosine(self.passes.read(setting, texts).embeddings(setting))

    def score(self, setting: Setting, move: Progress | None = None) -> "Score | str":
        """The score on the graded pairs, or why it is undefined."""
        from lab.probes import PROBES

        embeddings = self._pairs_under(setting, move).embeddings(setting)
        try:
            return PROBES["sts"](self.pairs, embeddings, seed=self.seed)
        except ValueError as error:
            return str(error)

    def _pairs_under(self, setting: Setting, move: Progress | None = None) -> Pass:
        return self.passes.read(setting, self.pairs.texts, move)
