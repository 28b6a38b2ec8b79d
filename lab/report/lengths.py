"""How alike texts of about the same length are, and whether long ones are more alike."""

from typing import Any

import numpy as np

from lab.collapse import bins, phenomenon
from lab.stats.jackknife import Jackknife

BINS = 4


def by_length(vectors: np.ndarray, tokens: np.ndarray) -> dict[str, Jackknife]:
    """The mean cosine of two texts in each bin of length, shortest first.

    As many bins as the lengths allow, BINS at the most, about equally many texts in each.

    Raises:
        ValueError: too few different lengths for two bins.
    """
    for count in range(min(BINS, len(tokens) // 6), 1, -1):
        try:
            names = bins.label(tokens, bins.quantile_edges(tokens, count))
            found = phenomenon.similarity_by_length(vectors, names)
        except ValueError:
            continue
        return {str(one): value for (one, other), value in found.items() if one == other}
    different = len(np.unique(tokens))
    raise ValueError(f"{len(tokens)} texts of {different} different lengths fill no two bins")


def apart(one: Jackknife, other: Jackknife, level: float = 0.95) -> dict[str, Any]:
    """The difference of two sets of texts that share none: value, low, high, n.

    Errors add in squares; Student's t of the set with fewer groups, which is conservative.
    """
    from scipy.stats import t

    difference = float(one.value - other.value)
    error = float(np.hypot(one.standard_error, other.standard_error))
    half = error * float(t.ppf((1 + level) / 2, min(len(one.sizes), len(other.sizes)) - 1))
    low, high = difference - half, difference + half
    return {"value": difference, "low": low, "high": high, "n": one.n + other.n}
