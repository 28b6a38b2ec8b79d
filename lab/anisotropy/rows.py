"""A sample of rows in memory, and the measures that read it whole: sphere and partition function.

Measures of neighbourhoods are in ``neighbours``. Every measure takes ``keep``, a mask of the rows
to measure; what all leave-outs share is computed once and kept in :class:`Rows`, n x n numbers at
the most. Rows keep their precision, what is derived from them is float64.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lab.anisotropy.measure import of_rows

T = 2.0  # of the Gaussian kernel of uniformity, as in the paper
WIDTH = 40  # neighbours that are kept of every row: twice what a measure reads, for leave-outs
BLOCK = 64  # rows whose neighbours are subtracted from them at a time


def checked_rows(rows: np.ndarray, what: str = "row") -> np.ndarray:
    """The same array, once it is known to be a table of finite float32 or float64 numbers.

    Raises:
        TypeError: no numpy array of float32 or float64.
        ValueError: another shape; NaN or infinity (in which ``what``).
    """
    kind = getattr(rows, "dtype", type(rows).__name__)
    if not isinstance(rows, np.ndarray) or kind not in (np.float32, np.float64):
        raise TypeError(
            f"{what}s are a numpy array of float32 or float64; got {kind}: "
            "convert them and know what is lost"
        )
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"{what}s are (n, d), n and d at least 1; got {rows.shape}")
    _refuse(~np.isfinite(rows).all(axis=1), what, "is not finite")
    return rows


def unit_rows(rows: np.ndarray, what: str = "row") -> np.ndarray:
    """(n, d) the rows divided by their Euclidean norms, in float64.

    Raises:
        ValueError: a zero vector; one dimension, in which all directions are +1 or -1.
    """
    if rows.shape[1] < 2:
        raise ValueError(f"cosines need two dimensions or more; {what}s of one are all +1 or -1")
    norms = np.linalg.norm(rows.astype(np.float64, copy=False), axis=1, keepdims=True)
    _refuse(norms[:, 0] == 0, what, "is a zero vector, which has no direction")
    return rows / norms


def _refuse(bad: np.ndarray, what: str, why: str) -> None:
    """Raise if some rows are bad, naming the first."""
    if bad.any():
        raise ValueError(
            f"{what} {int(bad.argmax())} of {len(bad)} {why} ({int(bad.sum())} such); "
            "drop it, or see why the encoder gave it"
        )


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of every row by Euclidean distance, itself excluded, nearest first.

    Attributes:
        points: (n, d) the rows.
        numbers: (n, width) which rows are near.
        distances: (n, width) how far they are: norms of differences, so that equal rows have
            distance zero and nothing cancels between rows far from the origin.
    """

    points: np.ndarray
    numbers: np.ndarray
    distances: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, width: int = WIDTH) -> "Neighbours":
        """The ``width`` nearest of every row (n - 1 if there are no more), by exact search."""
        from sklearn.neighbors import NearestNeighbors

        points = points.astype(np.float64, copy=False)
        near = NearestNeighbors(n_neighbors=min(width, len(points) - 1), algorithm="brute")
        numbers = near.fit(points - points.mean(0)).kneighbors(return_distance=False)
        blocks = [slice(at, at + BLOCK) for at in range(0, len(points), BLOCK)]
        apart = [np.linalg.norm(points[b, None] - points[numbers[b]], axis=2) for b in blocks]
        distances = np.concatenate(apart)
        order = np.argsort(distances, axis=1, kind="stable")
        sorted_ = (np.take_along_axis(array, order, axis=1) for array in (numbers, distances))
        return cls(points, *sorted_)

    def among(self, keep: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(m, k) numbers and distances of the k nearest kept rows of each of the m kept rows.

        Searched anew where the neighbours at hand do not hold k kept ones for every row.
        """
        kept = keep[self.numbers[keep]]
        rank = kept.cumsum(axis=1)
        if rank[:, -1].min() < k:
            again = Neighbours.of(self.points[keep], k)
            return np.flatnonzero(keep)[again.numbers], again.distances
        first = kept & (rank <= k)
        return self.numbers[keep][first].reshape(-1, k), self.distances[keep][first].reshape(-1, k)


@dataclass(frozen=True, eq=False)
class Rows:
    """A sample of embeddings in memory, with what its measures share.

    Attributes:
        vectors: (n, d) float32 or float64, n >= 2; never changed.
        numbers: (n,) what each row is called in messages; default its position.

    Raises:
        TypeError: integers, half precision, no numpy array.
        ValueError: another shape, NaN or infinity (which row), fewer than two rows.
    """

    vectors: np.ndarray
    numbers: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        checked_rows(self.vectors)
        if len(self) < 2:
            raise ValueError("measures of rows need 2 rows or more; got 1")

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.vectors)

    @property
    def d(self) -> int:
        """The width of the rows."""
        return self.vectors.shape[1]

    def number(self, row: int) -> int:
        """What a row is called in messages."""
        return row if self.numbers is None else int(self.numbers[row])

    @property
    def all(self) -> np.ndarray:
        """(n,) the mask that keeps every row."""
        return np.ones(len(self), dtype=bool)

    def count(self, keep: np.ndarray, least: int = 2) -> int:
        """How many rows ``keep`` leaves in.

        Raises:
            ValueError: no boolean mask of these rows; fewer than ``least`` rows left.
        """
        if keep.dtype != bool or keep.shape != (len(self),):
            raise ValueError(
                f"keep is a boolean mask of {len(self)} rows; got {keep.dtype} {keep.shape}"
            )
        left = int(keep.sum())
        if left < least:
            raise ValueError(f"this measure needs {least} rows or more; got {left} of {len(self)}")
        return left

    @cached_property
    def units(self) -> np.ndarray:
        """(n, d) the rows divided by their norms; ValueError for a zero vector or d = 1."""
        zero = ~self.vectors.any(axis=1)
        if zero.any():
            raise ValueError(
                f"row {self.number(int(zero.argmax()))} of {len(self)} is a zero vector, which has "
                f"no direction ({int(zero.sum())} such); drop it, or see why the encoder gave it"
            )
        return unit_rows(self.vectors)

    @cached_property
    def kernel(self) -> np.ndarray:
        """(n, n) exp(-2 norm(u_i - u_j)^2) of the unit rows, zero on the diagonal."""
        kernel = self.units @ self.units.T
        kernel -= 1
        kernel *= 2 * T
        np.exp(kernel, out=kernel)
        np.fill_diagonal(kernel, 0)
        return kernel

    @cached_property
    def projections(self) -> np.ndarray:
        """(n, d) the rows in the basis of the eigenvectors of X^T X, uncentred."""
        vectors = self.vectors.astype(np.float64, copy=False)
        return vectors @ np.linalg.eigh(vectors.T @ vectors)[1]

    @cached_property
    def by_angle(self) -> Neighbours:
        """The nearest rows by cosine, which are those nearest on the unit sphere."""
        return Neighbours.of(self.units)

    @cached_property
    def by_distance(self) -> Neighbours:
        """The nearest rows by Euclidean distance."""
        return Neighbours.of(self.vectors)


def uniformity_optimum(d: int, t: float = T) -> float:
    """The uniformity of the uniform distribution on the unit sphere of d dimensions, its minimum.

    -2t + log 0F1(; d/2; t^2), which is about -4 + 8/d for t = 2 and large d. Wang & Isola 2020
    (arXiv:2005.10242, section 4.1.2) prove that the uniform distribution is the minimiser.

    Raises:
        ValueError: fewer than two dimensions.
    """
    from scipy.special import hyp0f1

    if d < 2:
        raise ValueError(f"uniformity is defined on spheres of two dimensions or more; got {d}")
    return float(np.log(hyp0f1(d / 2, t**2)) - 2 * t)


@of_rows("unit-normed", isotropic=lambda n, d: uniformity_optimum(d))
def uniformity(rows: Rows, keep: np.ndarray) -> float:
    """The log of the mean over pairs i < j of exp(-2 norm(u_i - u_j)^2): -8 to 0, low is uniform.

    Wang & Isola 2020 (arXiv:2005.10242, section 4.1.2) with t = 2. Rows are brought to unit norm
    here, which the authors' function leaves to its caller. The range above the optimum is narrow in
    many dimensions: see :func:`uniformity_gap`. Shrinking or stretching a row changes nothing.

    Raises:
        ValueError: a zero vector (which row), one dimension, fewer than two rows.
    """
    left = rows.count(keep)
    weights = keep.astype(np.float64)
    return float(np.log(weights @ rows.kernel @ weights / (left * (left - 1))))


@of_rows("unit-normed", isotropic=lambda n, d: 0.0)
def uniformity_gap(rows: Rows, keep: np.ndarray) -> float:
    """Uniformity minus its optimum in as many dimensions: comparable across widths, 0 is uniform.

    The optimum is that of a distribution: a few rows that avoid each other lie below it.

    Raises:
        ValueError: as :func:`uniformity`.
    """
    return uniformity(rows, keep) - uniformity_optimum(rows.d)


@of_rows("as given")
def partition_isotropy(rows: Rows, keep: np.ndarray) -> float:
    """I(W) = min Z(c) / max Z(c), Z(c) = sum of exp(c . x): 0 to 1, and 1 is isotropic.

    Mu & Viswanath 2018 (arXiv:1702.01417, section 2.2): c runs over the eigenvectors of X^T X, not
    centred. We take +c and -c, since the sign of an eigenvector is arbitrary; published code takes
    whichever sign it was given. Eigenvectors are those of all rows, also when ``keep`` leaves some
    out: their directions are part of the definition, not of the sample. It depends on the scale of
    the rows; raw states of a language model give numbers near 0. Rotation changes nothing unless
    two eigenvalues are equal, where the eigenvectors themselves are arbitrary.

    Raises:
        ValueError: fewer than two rows.
    """
    from scipy.special import logsumexp

    rows.count(keep)
    chosen = rows.projections[keep]
    log_z = np.concatenate([logsumexp(chosen, axis=0), logsumexp(-chosen, axis=0)])
    return float(np.exp(log_z.min() - log_z.max()))
