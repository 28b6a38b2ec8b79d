"""Measures of the mean, the covariance and the mean direction: exact, whatever the number of rows.

Every function takes :class:`~lab.anisotropy.moments.Moments`, or just their directions. ``form``
says what a definition does to the rows it is given; "as given" reads them raw, so whether they were
centred or brought to unit norm before is the caller's choice, and stands in every table.
"""

import math

import numpy as np

from lab.anisotropy.measure import MEASURES, MOMENTS, Measure, of_directions, of_moments
from lab.anisotropy.moments import Directions, Moments

ZETA = 0.5


def _isotropic_rank(n: int, d: int) -> float:
    """The participation ratio that an isotropic Gaussian shows at this sample size.

    E tr(S)^2 over E tr(S^2) of a Wishart matrix with n - 1 degrees of freedom.
    """
    return (d * (n - 1) + 2) / (n + d)


@of_directions(isotropic=lambda n, d: 0.0)
def average_cosine(moments: Moments | Directions) -> float:
    """The mean cosine over all pairs of different rows, in [-1 / (n - 1), 1]; 0 is isotropic.

    (n norm(m)^2 - 1) / (n - 1) with m the mean of the unit rows: exact, no pairs. Ethayarajh 2019
    (arXiv:1909.00512, section 3.3), whose code draws with replacement and so includes pairs of a
    row with itself.

    Raises:
        ValueError: a zero vector, fewer than two rows.
    """
    return float(contributions(moments).sum())


def contributions(moments: Moments | Directions) -> np.ndarray:
    """(d,) what each dimension adds to the average cosine; they sum to it.

    Timkey & van Schijndel 2021 (arXiv:2109.04404, section 3), over pairs of different rows.

    Raises:
        ValueError: a zero vector, fewer than two rows.
    """
    rows = moments.directions
    if rows.zeros:
        raise ValueError(
            f"{rows.zeros} of {rows.n} rows are zero vectors, which have no cosine; "
            "drop them, or see why the encoder gave them"
        )
    n = _rows(rows, 2)
    if rows.d < 2:
        raise ValueError("cosines need two dimensions or more; rows of one are all +1 or -1")
    return ((rows.total**2 - rows.squares) / (n * (n - 1))).cpu().numpy()


@of_moments("centred", isotropic=_isotropic_rank, biased=True)
def participation_ratio(moments: Moments) -> float:
    """tr(C)^2 / tr(C^2): how many dimensions of equal variance there seem to be, 1 to d.

    Biased by sample size: an isotropic Gaussian gives about d n / (d + n).

    Raises:
        ValueError: fewer than two rows; all rows equal.
    """
    first, second = _traces(moments)
    return first**2 / second


@of_moments("centred", isotropic=lambda n, d: d)
def participation_ratio_corrected(moments: Moments) -> float:
    """The participation ratio with numerator and denominator unbiased for Gaussian rows.

    See :func:`unbiased_traces`. Their ratio is only nearly unbiased, and it is not clipped at d,
    which would bias it again.

    Raises:
        ValueError: fewer than three rows; all rows equal; so few rows that no variance in common
            can be told from noise.
    """
    square_of_trace, trace_of_square = unbiased_traces(moments)
    if trace_of_square <= 0:
        raise ValueError(
            f"{moments.n} rows of {moments.d} dimensions are too few for a corrected participation "
            "ratio: what they have in common cannot be told from noise"
        )
    return square_of_trace / trace_of_square


def unbiased_traces(moments: Moments) -> tuple[float, float]:
    """Estimates of tr(C)^2 and tr(C^2) whose expectation is exact for Gaussian rows.

    Srivastava 2005 (J. Japan Statist. Soc. 35), with n - 1 degrees of freedom.

    Raises:
        ValueError: fewer than three rows; all rows equal.
    """
    n = _rows(moments, 3) - 1
    first, second = _traces(moments)
    scale = n**2 / ((n - 1) * (n + 2))
    square_of_trace = scale * ((1 + 1 / n) * first**2 - 2 * second / n)
    return square_of_trace, scale * (second - first**2 / n)


@of_moments("centred", isotropic=lambda n, d: (_isotropic_rank(n, d) - 1) / (d - 1), biased=True)
def isoscore(moments: Moments) -> float:
    """IsoScore as published, in [0, 1]: (participation ratio - 1) / (d - 1).

    Rudman et al. 2022 (arXiv:2108.07344, section 4), whose six steps reduce to this; equal to the
    package IsoScore 2.0.1, which needs n > d and all rows in memory. Scale, shift and rotation
    leave it unchanged. **It measures its sample size**: see ``isotropic`` in every table, and
    :func:`isoscore_corrected`.

    Raises:
        ValueError: fewer than two rows; one dimension; all rows equal.
    """
    return _score(participation_ratio(moments), moments.d)


@of_moments("centred", isotropic=lambda n, d: 1.0)
def isoscore_corrected(moments: Moments) -> float:
    """IsoScore with the corrected participation ratio: comparable across numbers of rows.

    Not clipped: an isotropic space is as often above 1 as below.

    Raises:
        ValueError: as :func:`isoscore` and :func:`participation_ratio_corrected`.
    """
    return _score(participation_ratio_corrected(moments), moments.d)


def isoscore_star(moments: Moments, zeta: float = ZETA) -> float:
    """IsoScore* with shrinkage ``zeta`` towards the identity: IsoScore of (1 - zeta) C + zeta I.

    Rudman & Eickhoff 2024 (arXiv:2305.19358, section 3). It depends on zeta and on the scale of the
    rows; zeta 0 is IsoScore, zeta 1 is 1 whatever the rows.

    Raises:
        ValueError: zeta outside [0, 1]; otherwise as :func:`isoscore`.
    """
    if not 0 <= zeta <= 1:
        raise ValueError(f"zeta is a share between 0 and 1; got {zeta}")
    first, second = _traces(moments)
    d, rest = moments.d, 1 - zeta
    shrunk_first = rest * first + zeta * d
    shrunk_second = rest**2 * second + 2 * rest * zeta * first + zeta**2 * d
    return _score(shrunk_first**2 / shrunk_second, d)


MEASURES(Measure(isoscore_star, MOMENTS, "centred", biased=True), f"isoscore_star(zeta={ZETA})")


@of_moments("as given", biased=True)
def effective_rank(moments: Moments) -> float:
    """Exp of the entropy of the normalised singular values of the rows, 1 to min(n, d).

    Roy & Vetterli 2007 (EUSIPCO), singular values not squared. Rows far from the origin have rank
    near 1 whatever else they do: centre them to ask about the rest.

    Raises:
        ValueError: all rows zero.
    """
    return math.exp(_entropy(_shares(moments)))


@of_moments("as given", biased=True)
def rankme(moments: Moments) -> float:
    """RankMe: the effective rank with 1e-7 added to every share.

    Garrido et al. 2023 (arXiv:2210.02885, equation 1). Compare at equal n and d only.

    Raises:
        ValueError: all rows zero.
    """
    shares = _shares(moments)[: min(moments.n, moments.d)] + 1e-7
    return math.exp(-float((shares * np.log(shares)).sum()))


@of_moments("centred", biased=True)
def first_component_share(moments: Moments) -> float:
    """The share of the variance along the first principal component, 1 / d to 1.

    Raises:
        ValueError: fewer than two rows; all rows equal.
    """
    from scipy.sparse.linalg import eigsh

    first, _ = _traces(moments)
    scatter = moments.scatter.cpu().numpy()
    if moments.d == 1:
        return 1.0
    start = np.random.default_rng(0).standard_normal(moments.d)  # the same digits every time
    largest = eigsh(scatter, 1, v0=start, return_eigenvectors=False)[0]
    return float(largest) / (first * (moments.n - 1))


@of_moments("as given", isotropic=lambda n, d: 1 / n)
def mean_share(moments: Moments) -> float:
    """The share of the energy that the mean vector holds: norm(mean)^2 / mean of norm(x)^2.

    The DC energy of the rows; 1 minus it is their HC energy. Isotropic rows have 1 / n.

    Raises:
        ValueError: all rows zero.
    """
    mean = float(moments.mean @ moments.mean)
    energy = mean + float(moments.scatter.trace()) / moments.n
    if energy <= 0:
        raise ValueError(f"all {moments.n} rows are zero; there is no energy to share")
    return mean / energy


@of_directions()
def partition_first_order(moments: Moments | Directions) -> float:
    """The first approximation of partition isotropy: (n - norm(s)) / (n + norm(s)), s = sum of u.

    Mu & Viswanath 2018 (arXiv:1702.01417, section 2.2), for small norms; read on unit rows.

    Raises:
        ValueError: a zero vector, fewer than two rows.
    """
    contributions(moments)  # refuses what has no direction
    length = float(moments.directions.total.norm())
    return (moments.n - length) / (moments.n + length)


@of_moments("as given", unit_only=True)
def partition_second_order(moments: Moments) -> float:
    """The second approximation of partition isotropy, with the extreme singular values s.

    (n - norm(sum x) + s_min^2 / 2) / (n + norm(sum x) + s_max^2 / 2), Mu & Viswanath 2018 (section
    2.2). An expansion about norm zero: give it rows of unit norm.

    Raises:
        ValueError: rows whose mean is longer than 1, where it means nothing.
    """
    length = moments.n * float(moments.mean.norm())
    if length > moments.n:
        raise ValueError(
            f"the mean of the rows has norm {length / moments.n:.3g}; the second-order "
            "approximation of partition isotropy is for small norms: measure unit rows"
        )
    values = moments.uncentred_spectrum
    low, high = (values[-1] if moments.n >= moments.d else 0.0), values[0]
    return float((moments.n - length + low / 2) / (moments.n + length + high / 2))


def cumulative_variance(moments: Moments) -> np.ndarray:
    """(d,) share of the variance in the first 1, 2, ... d principal components.

    Raises:
        ValueError: fewer than two rows; all rows equal.
    """
    _traces(moments)
    return np.cumsum(moments.spectrum) / moments.spectrum.sum()


def _rows(moments: Moments | Directions, least: int) -> int:
    if moments.n < least:
        raise ValueError(f"this measure needs {least} rows or more; got {moments.n}")
    return moments.n


def _traces(moments: Moments) -> tuple[float, float]:
    """tr(S) and tr(S^2) of the sample covariance S."""
    n = _rows(moments, 2) - 1
    first = float(moments.scatter.trace()) / n
    second = float(moments.scatter.square().sum()) / n**2
    noise = moments.d * (moments.eps * float(moments.mean.abs().max())) ** 2
    if first <= noise or not second:
        raise ValueError(
            f"all {moments.n} rows are equal, as far as their type can tell: they have no "
            "variance, so no measure of its shape"
        )
    if not math.isfinite(second):
        raise ValueError("the squares of these rows overflow; divide them by a constant first")
    return first, second


def _score(ratio: float, d: int) -> float:
    if d < 2:
        raise ValueError("IsoScore is undefined for one dimension; give rows of two or more")
    return (ratio - 1) / (d - 1)


def _shares(moments: Moments) -> np.ndarray:
    """Singular values of the rows over their sum."""
    singular = np.sqrt(moments.uncentred_spectrum)
    if not singular[0]:
        raise ValueError(f"all {moments.n} rows are zero; they have no rank")
    return singular / singular.sum()


def _entropy(shares: np.ndarray) -> float:
    filled = shares[shares > 0]
    return -float((filled * np.log(filled)).sum())
