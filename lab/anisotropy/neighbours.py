"""Measures of neighbourhoods: hubness by cosine, intrinsic dimension by Euclidean distance."""

import numpy as np

from lab.anisotropy.measure import of_rows
from lab.anisotropy.rows import Rows

HUB_NEIGHBOURS = 10
MLE_NEIGHBOURS = 20


def k_occurrence(rows: Rows, k: int = HUB_NEIGHBOURS, keep: np.ndarray | None = None) -> np.ndarray:
    """(m,) N_k: how often each kept row is among the k nearest by cosine of another; mean k.

    Radovanović et al. 2010 (JMLR 11, section 2). Default: all rows are kept. A row is not its own
    neighbour. Which of two equally near rows counts is arbitrary.

    Raises:
        ValueError: k below 1; k rows or fewer; a zero vector (which row); one dimension; all rows
            of one direction, where every order of neighbours is as good as any other.
    """
    keep = rows.all if keep is None else keep
    if k < 1:
        raise ValueError(f"k is how many neighbours count, 1 or more; got {k}")
    rows.count(keep, least=k + 1)
    numbers, distances = rows.by_angle.among(keep, k)
    if distances.max() < 8 * np.finfo(rows.vectors.dtype).eps:
        raise ValueError(
            f"all {len(numbers)} rows have the same direction, so their nearest neighbours are "
            "arbitrary; the embeddings have collapsed"
        )
    return np.bincount(numbers.ravel(), minlength=len(rows))[keep]


@of_rows("unit-normed")
def hubness(rows: Rows, keep: np.ndarray) -> float:
    """S_10, the skewness of :func:`k_occurrence`: some rows are near to very many if it is large.

    Radovanović et al. 2010 (JMLR 11, section 2), population moments. If every row is as often a
    neighbour as every other, as on a regular ring, the skewness is 0/0 and is defined as 0. It
    depends on n, d and k: isotropic rows have about 0.3 at n = 3000 and d = 768 by cosine, and
    much more by Euclidean distance.

    Raises:
        ValueError: as :func:`k_occurrence`; ten rows or fewer.
    """
    from scipy.stats import skew

    counts = k_occurrence(rows, keep=keep)
    return 0.0 if np.ptp(counts) == 0 else float(skew(counts))


@of_rows("as given")
def two_nn(rows: Rows, keep: np.ndarray) -> float:
    """Intrinsic dimension by TwoNN: (n - 1) / sum of log(r2 / r1), r the two nearest distances.

    Facco et al. 2017 (Scientific Reports 7:12140): the ratios have a Pareto law whose exponent is
    the dimension; this is its unbiased maximum-likelihood estimate (Denti et al. 2022, Scientific
    Reports 12:20005), by scikit-dimension. Too low above ten dimensions or so, by a fifth at 20 and
    n = 4000, for want of rows. Scale, shift and rotation change nothing.

    Raises:
        ValueError: fewer than three rows; equal rows (which two), whose ratio is infinite; every
            row as far from its second neighbour as from its first.
    """
    return _two_nn(rows, keep, method="mle", discard_fraction=0.0)


@of_rows("as given")
def two_nn_fit(rows: Rows, keep: np.ndarray) -> float:
    """Intrinsic dimension by TwoNN as its paper fits it, and as scikit-dimension does by default.

    Facco et al. 2017 (Scientific Reports 7:12140, Methods): the slope through the origin of
    -log(1 - F) over log(r2 / r1), F the empirical distribution, without the largest tenth of the
    ratios. That tenth is where the two estimates part: near-duplicates have huge ratios, which pull
    :func:`two_nn` down and have no say here.

    Raises:
        ValueError: as :func:`two_nn`.
    """
    return _two_nn(rows, keep, method="linear", discard_fraction=0.1)


@of_rows("as given")
def mle_dimension(rows: Rows, keep: np.ndarray) -> float:
    """Intrinsic dimension by maximum likelihood from the distances r_1 .. r_20 of every row.

    1 / mean over rows of (1/19) sum_j log(r_20 / r_j). Levina & Bickel 2004 (NIPS 17, equation 8)
    by scikit-dimension, averaged as MacKay & Ghahramani (2005, a comment on it) do: the inverses,
    not the estimates. Lower than :func:`two_nn` on curved or bounded data, since 20 neighbours
    reach further than two. Scale, shift and rotation change nothing.

    Raises:
        ValueError: 20 rows or fewer; equal rows (which two); all 20 neighbours of every row equally
            far.
    """
    from skdim.id import MLE

    rows.count(keep, least=MLE_NEIGHBOURS + 1)
    numbers, distances = rows.by_distance.among(keep, MLE_NEIGHBOURS)
    _check_distances(rows, keep, numbers, distances)
    with np.errstate(divide="ignore"):  # a row whose neighbours are equally far: its inverse is 0
        fitted = MLE().fit(distances, precomputed_knn_arrays=(distances, numbers))
    return float(fitted.dimension_)


def _two_nn(rows: Rows, keep: np.ndarray, *, method: str, discard_fraction: float) -> float:
    """TwoNN from the distances at hand."""
    from skdim.id import TwoNN

    rows.count(keep, least=3)
    numbers, distances = rows.by_distance.among(keep, 2)
    _check_distances(rows, keep, numbers, distances)
    estimator = TwoNN(discard_fraction=discard_fraction, dist=True, method=method)
    with np.errstate(divide="ignore"):  # it takes -log(1 - F) at F = 1 too, which is not used
        return float(estimator.fit(distances).dimension_)


def _check_distances(
    rows: Rows, keep: np.ndarray, numbers: np.ndarray, distances: np.ndarray
) -> None:
    """Refuse equal rows, and rows that are all equally far apart."""
    left = np.flatnonzero(keep)
    if (distances[:, 0] == 0).any():
        if not np.ptp(rows.vectors[keep], axis=0).any():
            raise ValueError(f"all {len(left)} rows are equal; they have no dimension")
        at = int((distances[:, 0] == 0).argmax())
        pair = sorted((rows.number(int(left[at])), rows.number(int(numbers[at, 0]))))
        raise ValueError(
            f"rows {pair[0]} and {pair[1]} are equal, which makes the ratio of their neighbours' "
            f"distances infinite ({int((distances[:, 0] == 0).sum())} rows have an equal); drop "
            "repeated rows first, for instance with numpy.unique(rows, axis=0)"
        )
    if (distances == distances[:, :1]).all():
        raise ValueError(
            f"the {distances.shape[1]} nearest neighbours of every row are equally far, as in a "
            "regular simplex: the estimate is infinite"
        )
