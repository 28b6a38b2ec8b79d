"""What models are trained on: pairs of texts that belong together, some with a hard negative.

>>> pairs = from_dataset(lab.data.load("snli-devtest", "dev-triplets"))
>>> train, held_out = pairs.sample(2000, seed=0).split(0.1, seed=0)
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.data import Dataset
from lab.registry import Registry

COLUMNS = ("anchor", "positive", "negative")
FROM_DATASET: Registry[Callable[[Dataset], "Pairs"]] = Registry("kind of data set to train on")


@dataclass(frozen=True)
class Pairs:
    """Texts that should be close, row by row, and optionally one that should be far.

    Attributes:
        name: what tables call it.
        rows: columns anchor, positive and, in all rows or not at all, negative; rows are numbered
            from 0.
        notes: what was left out.

    Raises:
        TypeError: a text is no string (which row and column).
        ValueError: other columns, no rows, a blank text, a missing negative, a negative that is
            the row's own positive.
    """

    name: str
    rows: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every row, and number them."""
        columns = list(self.rows.columns)
        if sorted(columns) not in (sorted(COLUMNS[:2]), sorted(COLUMNS)):
            raise ValueError(
                f"{self.name}: pairs have the columns anchor, positive and optionally negative; "
                f"got {', '.join(map(str, columns)) or 'none'}"
            )
        if not len(self.rows):
            raise ValueError(f"{self.name} is empty: there is nothing to train on")
        ordered = [column for column in COLUMNS if column in columns]
        rows = self.rows[ordered].reset_index(drop=True)
        for column in ordered:
            _check_texts(self.name, column, rows[column].tolist())
        if "negative" in ordered:
            same = (rows["negative"] == rows["positive"]).to_numpy().nonzero()[0]
            if len(same):
                raise ValueError(
                    f"{self.name}: row {same[0]} ({len(same)} such) has its positive as its "
                    f"negative, {rows['positive'][same[0]][:40]!r}; drop it"
                )
        object.__setattr__(self, "rows", rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def columns(self) -> list[str]:
        """Which of anchor, positive and negative there are, in this order."""
        return list(self.rows.columns)

    @property
    def texts(self) -> list[str]:
        """The distinct texts, in order of appearance, for a store of hidden states."""
        return list(dict.fromkeys(self.rows.to_numpy().ravel().tolist()))

    @property
    def repeated(self) -> int:
        """How many rows share a text with another row, and so never stand in a batch with it."""
        _, counts = np.unique(self._groups(), return_counts=True)
        return int(counts[counts > 1].sum())

    def _groups(self) -> np.ndarray:
        """(rows,) equal numbers for rows that share a text, directly or through other rows."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        width, size = len(self.columns), len(self)
        codes, texts = pd.factorize(self.rows.to_numpy().ravel())
        rows = np.repeat(np.arange(size), width)
        links = coo_matrix(
            (np.ones(len(rows)), (rows, size + codes)), shape=2 * [size + len(texts)]
        )
        return connected_components(links, directed=False)[1][:size]

    def fingerprint(self) -> str:
        """The sha256 of all texts in their order, and of the columns; not of the name."""
        digest = hashlib.sha256("\0".join(self.columns).encode())
        for text in self.rows.to_numpy().ravel():
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()

    def sample(self, n: int, seed: int) -> "Pairs":
        """``n`` rows drawn without replacement.

        Raises:
            ValueError: there are not so many.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"{self.name} has {len(self)} rows to draw from; got n={n}")
        drawn = np.random.default_rng(seed).permutation(len(self))[:n]
        return Pairs(self.name, self.rows.iloc[drawn], self.notes)

    def split(self, share: float, seed: int) -> tuple["Pairs", "Pairs"]:
        """``(train, held_out)`` that have no text in common; at most ``share`` is held out.

        Rows that share a text, directly or through other rows, stay together; such groups are
        taken in random order, and one that does not fit any more is passed over.

        Raises:
            ValueError: a share outside (0, 1), or one for which no group is small enough.
        """
        if not 0 < share < 1:
            raise ValueError(f"share is above 0 and below 1; got {share}")
        groups = self._groups()
        sizes, left = np.bincount(groups), int(share * len(self))
        held = np.zeros(len(sizes), bool)
        for group in np.random.default_rng(seed).permutation(len(sizes)):
            if sizes[group] <= left:
                held[group], left = True, left - sizes[group]
        if not held.any():
            raise ValueError(
                f"{self.name}: no {share:.0%} of its {len(self)} rows can be held out, since the "
                f"smallest group of rows with common texts has {sizes.min()}; take a larger share"
            )
        parts = (self.rows[~held[groups]], self.rows[held[groups]])
        train, held_out = (Pairs(self.name, part, self.notes) for part in parts)
        return train, held_out

    def without_negatives(self) -> "Pairs":
        """The same pairs without hard negatives."""
        return Pairs(self.name, self.rows[list(COLUMNS[:2])], self.notes)


def join(sets: Sequence[Pairs], seed: int) -> Pairs:
    """All rows of several sets in random order, under their names joined by "+".

    Raises:
        ValueError: no set, or some with hard negatives and some without.
    """
    if not sets:
        raise ValueError("there is no set of pairs to join")
    bare = [each.name for each in sets if "negative" not in each.columns]
    if 0 < len(bare) < len(sets):
        raise ValueError(
            f"{', '.join(bare)}: no hard negatives, which the other sets have; join the others' "
            "without_negatives(), since a loss has one form for all rows"
        )
    rows = pd.concat([each.rows for each in sets], ignore_index=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    notes = tuple(f"{each.name}: {note}" for each in sets for note in each.notes)
    return Pairs("+".join(each.name for each in sets), rows.iloc[order], notes)


def from_dataset(dataset: Dataset) -> Pairs:
    """The pairs of a data set that belong together: see the functions of its kind below.

    Raises:
        LookupError: a kind without such pairs.
        ValueError: the test split, which a model should not have seen.
    """
    make = FROM_DATASET[dataset.kind]
    if dataset.split.startswith("test"):
        raise ValueError(f"{dataset.name}: a model trained on the test split can't be judged on it")
    return make(dataset)


@FROM_DATASET.named("pairs")
def _of_pairs(dataset: Dataset) -> Pairs:
    """Anchor, positive and negative as they are."""
    columns = [column for column in COLUMNS if column in dataset.frame]
    return Pairs(dataset.name, _spelt_out(dataset, dataset.frame[columns]), dataset.notes)


@FROM_DATASET.named("retrieval")
def _of_retrieval(dataset: Dataset) -> Pairs:
    """Every query with each of its relevant documents."""
    relevant = dataset.frame[dataset.frame["relevance"] > 0]
    rows = pd.DataFrame({"anchor": relevant["query"], "positive": relevant["document"]})
    return Pairs(dataset.name, _spelt_out(dataset, rows), dataset.notes)


@FROM_DATASET.named("pair_classification")
def _of_pair_classification(dataset: Dataset) -> Pairs:
    """Pairs labelled True; a False text of the same first text is the hard negative.

    The k-th True pair of a text gets its k-th False one, again from the first when there are
    fewer. Pairs whose first text has none are left out, unless no pair has one.
    """
    labels = dataset.frame["label"].astype(bool)
    true, false = dataset.frame[labels], dataset.frame[~labels]
    far = false.groupby("first")["second"].agg(list).to_dict()
    place = true.groupby("first").cumcount()
    rows = pd.DataFrame({"anchor": true["first"], "positive": true["second"]})
    able = rows["anchor"].isin(far)
    if not able.any():
        return Pairs(dataset.name, _spelt_out(dataset, rows), dataset.notes)
    rows = rows[able].assign(
        negative=[
            far[first][k % len(far[first])]
            for first, k in zip(rows["anchor"][able], place[able], strict=True)
        ]
    )
    left_out = int((~able).sum())
    note = (f"{left_out} pairs without a hard negative left out",) if left_out else ()
    return Pairs(dataset.name, _spelt_out(dataset, rows), dataset.notes + note)


def _spelt_out(dataset: Dataset, rows: pd.DataFrame) -> pd.DataFrame:
    """Positions replaced by the texts they stand for."""
    texts = np.array(dataset.texts, dtype=object)
    return pd.DataFrame({column: texts[rows[column]] for column in rows})


def _check_texts(name: str, column: str, texts: list[object]) -> None:
    for row, text in enumerate(texts):
        if column == "negative" and not isinstance(text, str) and bool(pd.isna(text)):
            raise ValueError(
                f"{name}: row {row} has no negative; give every row one, or leave out the column"
            )
        if not isinstance(text, str):
            raise TypeError(f"{name}: the {column} of row {row} is {text!r}, not a text")
        if not text.strip():
            raise ValueError(f"{name}: the {column} of row {row} is blank; drop the row")
