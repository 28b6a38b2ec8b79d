"""Which bin and which text each row of embeddings belongs to."""

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

Labels: TypeAlias = Sequence[Hashable] | np.ndarray | pd.Categorical | pd.Series
Texts: TypeAlias = Sequence[Hashable] | np.ndarray | pd.Series


def membership(
    n: int, labels: Labels, texts: Texts | None
) -> tuple[np.ndarray, list[Hashable], np.ndarray]:
    """Per row the number of its bin, the bins' names in order, and per row the number of its text.

    Bins come in the order of their categories, else of their first row.

    Raises:
        ValueError: not one label or text a row, or a row without (outside of all bins, say).
    """
    bins, units = pd.Series(labels), pd.Series(np.arange(n) if texts is None else texts)
    for what, given in (("label", bins), ("text", units)):
        if len(given) != n:
            raise ValueError(f"one {what} a row wanted, {n}; got {len(given)}")
        if given.isna().any():
            row = int(given.isna().to_numpy().argmax())
            raise ValueError(
                f"row {row} of {n} has no {what} ({int(given.isna().sum())} such), as a length has "
                "that is outside of all bins; leave these rows out"
            )
    if not isinstance(bins.dtype, pd.CategoricalDtype):
        bins = bins.astype(pd.CategoricalDtype(bins.unique()))
    bins = bins.cat.remove_unused_categories()
    return bins.cat.codes.to_numpy(), bins.cat.categories.tolist(), pd.factorize(units)[0]
