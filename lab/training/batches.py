"""Which pairs stand in one batch, for the trainer of sentence-transformers."""

from collections.abc import Iterator

from datasets import Dataset
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from lab.training.pairs import Pairs

ROW = "label"  # a column that reaches the loss, which reads none, and is no text to the sampler


class Apart(NoDuplicatesBatchSampler):
    """Batches of pairs of which no two share a text, so that no negative is known to be false."""

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of row numbers; as many an epoch as ``len`` says.

        Raises:
            ValueError: the pairs can't be put so far apart.
        """
        given = 0
        for rows in super().__iter__():
            yield rows
            given += 1
        if given < len(self):
            raise ValueError(
                f"pairs that share a text can't stand in one batch, and of these "
                f"{len(self.dataset)} pairs only {given} batches of {self.batch_size} could be "
                f"filled, {len(self)} wanted: take a smaller batch or pairs with fewer repeated "
                "texts"
            )


def rows_of(pairs: Pairs) -> Dataset:
    """The texts and row numbers as the trainer reads them."""
    columns = {name: pairs.rows[name].tolist() for name in pairs.columns}
    return Dataset.from_dict({**columns, ROW: list(range(len(pairs)))})
