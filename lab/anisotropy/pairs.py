"""Measures of pairs that belong together: alignment, absolute and against the hardest negative.

Both are :class:`~lab.stats.Score` objects with a pair as the unit, so intervals and paired tests of
``lab.stats`` apply. Vectors are brought to unit norm here; lower is better.
"""

import numpy as np

from lab.anisotropy.rows import checked_rows, unit_rows
from lab.stats import Score
from lab.stats.weighted import mean


def alignment(first: np.ndarray, second: np.ndarray, *, alpha: float = 2.0) -> Score:
    """The mean of norm(u_i - v_i)^alpha over pairs of unit vectors; unit: a pair.

    Wang & Isola 2020 (arXiv:2005.10242, section 4.1.1). With alpha = 2 it is 2 - 2 x mean cosine.
    Pairs are what should be close: SimCSE takes those of STS with a score of 4 or more.

    Args:
        first: (n, d) float32 or float64.
        second: (n, d) row i belongs with row i of ``first``.
        alpha: the power of the distance, positive.

    Raises:
        TypeError: integers, half precision, no numpy array.
        ValueError: other shapes, NaN or infinity, a zero vector (which row of which), bad alpha.
    """
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha is a positive power; got {alpha}")
    u, v = _units(first, second)
    distances = np.linalg.norm(u - v, axis=1)
    return Score("alignment", f"distance_to_the_{alpha:g}", distances[:, None] ** alpha, mean)


def relative_alignment(first: np.ndarray, second: np.ndarray, *, chunk: int = 1024) -> Score:
    """The mean of norm(u_i - v_i)^2 minus the smallest norm(u_i - v_k)^2, k != i; unit: a pair.

    Negative where a vector is closer to its own partner than to any other. Oh et al. 2023
    (Geodesic Multi-Modal Mixup, arXiv:2203.03897); we follow the authors' code, which looks for
    the hardest negative in one direction, among the second vectors. Repeated texts are each
    other's hardest negatives: drop them before. Resampling keeps the negatives of every pair.

    Args:
        first: (n, d) float32 or float64, n >= 2.
        second: (n, d) row i belongs with row i of ``first``.
        chunk: rows of ``first`` that are compared with all of ``second`` at a time.

    Raises:
        TypeError: integers, half precision, no numpy array.
        ValueError: other shapes, NaN or infinity, a zero vector (which row of which), a single
            pair, a chunk below 1.
    """
    u, v = _units(first, second)
    if len(u) < 2 or chunk < 1:
        raise ValueError(
            f"a negative is the partner of another pair, so two pairs or more are needed, and a "
            f"chunk of one row or more; got {len(u)} and {chunk}"
        )
    parts = []
    for start in range(0, len(u), chunk):
        cosines = u[start : start + chunk] @ v.T
        own = np.arange(len(cosines)), np.arange(start, start + len(cosines))
        positive = cosines[own]
        cosines[own] = -np.inf
        parts.append(2 * (cosines.max(axis=1) - positive))
    return Score("alignment", "distance_beyond_negative", np.concatenate(parts)[:, None], mean)


def _units(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of the pairs at unit norm."""
    names = "first row", "second row"
    sides = [checked_rows(side, name) for side, name in zip((first, second), names, strict=True)]
    if sides[0].shape != sides[1].shape:
        raise ValueError(
            f"row i of the first belongs with row i of the second, so both are (n, d); "
            f"got {sides[0].shape} and {sides[1].shape}"
        )
    u, v = (unit_rows(side, name) for side, name in zip(sides, names, strict=True))
    return u, v
