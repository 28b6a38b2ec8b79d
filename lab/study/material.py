"""What every cell of a study shares: training pairs and the data sets that it is judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab import data
from lab.collapse.overlap import without
from lab.data import Dataset
from lab.study.plan import Part, Study
from lab.training.pairs import Pairs, from_dataset, join


@dataclass(frozen=True)
class Material:
    """Text pairs to train on, others for the loss curve, and data sets to be judged on.

    Attributes:
        train: training pairs.
        held_out: pairs that are not trained on.
        evaluate: data sets of the probes, by the name they have in tables.
        options: of the probe on each of them.
        notes: rows that were left out because an evaluation set judges them.
        sha256: of every file that was read.
    """

    train: Pairs
    held_out: Pairs
    evaluate: dict[str, Dataset]
    options: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    sha256: dict[str, str]

    @property
    def texts(self) -> list[str]:
        """Every text of it once: what a frozen backbone reads for training and evaluation."""
        pairs = [self.train, self.held_out]
        columns = [text for one in pairs for text in one.rows.to_numpy().ravel().tolist()]
        return list(dict.fromkeys([*columns, *self.judged]))

    @property
    def judged(self) -> list[str]:
        """Every text of the evaluation sets once."""
        texts = (text for dataset in self.evaluate.values() for text in dataset.texts)
        return list(dict.fromkeys(texts))


def gather(study: Study) -> Material:
    """The material of a study; training pairs that are judged anywhere are left out and counted.

    Raises:
        LookupError, ValueError, FileNotFoundError, ConnectionError: as ``lab.data.load``; a data
            set without text pairs; a set of evaluation named twice.
    """
    judged = [_load(part, study) for part in study.evaluate]
    evaluate = {dataset.name: dataset for dataset in judged}
    if len(evaluate) < len(judged):
        raise ValueError(
            f"every data set once in evaluate; got {[dataset.name for dataset in judged]}"
        )
    learned = [without(_load(part, study), *judged) for part in study.train]
    sets = [from_dataset(dataset) for dataset in learned]
    halves = [one.split(study.held_out, seed=study.data_seed) for one in sets]
    train, held_out = (_joined(part, study.data_seed) for part in zip(*halves, strict=True))
    kept = ~held_out.rows.isin(train.texts).any(axis=1)  # sets may share a text with each other
    return Material(
        train=train,
        held_out=Pairs(held_out.name, held_out.rows[kept], held_out.notes),
        evaluate=evaluate,
        options={
            found.name: one.options for found, one in zip(judged, study.evaluate, strict=True)
        },
        notes=train.notes,
        sha256={k: v for one in (*learned, *judged) for k, v in one.sha256.items()},
    )


def _joined(sets: Sequence[Pairs], seed: int) -> Pairs:
    """One set of all: with hard negatives in every row, or in none."""
    if any("negative" in one.columns for one in sets):
        sets = [with_negatives(one, seed=seed) for one in sets]
    return join(sets, seed=seed)


def with_negatives(pairs: Pairs, seed: int) -> Pairs:
    """The pairs as they are if they have hard negatives, else each with another row's positive.

    So that sets with and without hard negatives can stand in one batch, whose loss has one form.
    Such a negative is as hard as those in the batch; the note says so.
    """
    if "negative" in pairs.columns:
        return pairs
    turned = np.random.default_rng(seed).permutation(len(pairs))
    positives = pairs.rows["positive"].to_numpy()
    drawn = np.empty_like(positives)
    drawn[turned] = positives[np.roll(turned, 1)]  # of the next row in random order: not its own
    rows = pairs.rows.assign(negative=drawn)
    note = "negatives are positives of other rows, drawn at random"
    return Pairs(pairs.name, rows[rows["negative"] != rows["positive"]], (*pairs.notes, note))


def _load(part: Part, study: Study) -> Dataset:
    return data.load(
        part.name, part.split, n=part.n, seed=study.data_seed, full_corpus=part.full_corpus
    )
