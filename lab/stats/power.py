"""How much data a difference would need: texts within a data set, data sets across.

Planning, not evidence: the observed difference is taken for the true one, and one that was picked
because it was large is overestimated. Each number has an interval for how well it is known. For
several comparisons alpha is divided by their number, which is Holm's first and hardest step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from lab.stats.paired import Comparison
from lab.stats.significance import attainable_p, tail

LARGEST = 256  # data sets up to which Wilcoxon's test is simulated; above, its efficiency is used
EFFICIENCY = 3 / math.pi  # of Wilcoxon's test against Student's on normal differences
ASSUMES = {
    "texts": "normal approximation; the observed difference and spread are the true ones",
    "data sets": "normal differences with the observed mean and standard deviation",
}


@dataclass(frozen=True)
class Needed:
    """How many units a two-sided test needs; infinite where the effect may be none.

    Attributes:
        n: for the observed effect; ``low`` and ``high``: for both ends of its 95 % interval (of
            the comparison's own level for texts).
        effect: the standardised difference d_z: difference over the standard deviation of units.
        least: below it no data whatever give a p below alpha: the floor 2 / 2^n.
        level: alpha over the number of comparisons.
        assumes: what the number rests on.
    """

    n: float
    low: float
    high: float
    effect: float
    least: int
    level: float
    power: float
    assumes: str


def texts_needed(
    comparison: Comparison, *, alpha: float = 0.05, power: float = 0.8, comparisons: int = 1
) -> Needed:
    """How many texts (units) a paired test needs for the difference of this comparison.

    ((z_(1 - level/2) + z_power) / d_z)^2, from the bootstrap's standard error, so for every metric;
    a row of ``compare_all`` does as well. A difference of exactly 0 would need infinitely many.

    Raises:
        ValueError: alpha, power or the number of comparisons out of range.
    """
    z, least = _z(alpha, power, comparisons), least_units(alpha, comparisons)
    sd = abs(comparison.difference / comparison.effect) if comparison.effect else math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.array([comparison.difference, comparison.low, comparison.high]) / np.float64(
            sd
        )
    n = [max(least, _ceil(z, effect)) for effect in effects]
    return _needed(n, effects, least, alpha / comparisons, power, ASSUMES["texts"])


def datasets_needed(
    differences: Sequence[float],
    *,
    rng: np.random.Generator,
    alpha: float = 0.05,
    power: float = 0.8,
    comparisons: int = 1,
    simulations: int = 2000,
) -> Needed:
    """How many data sets Wilcoxon's exact test needs for differences like these, one per data set.

    By simulation (power to about one percentage point) up to 256 data sets; above, from Student's
    test and the asymptotic efficiency 3 / pi of Wilcoxon's. The interval of n is that of mean / sd
    by the noncentral t: with few data sets, wide.

    Raises:
        ValueError: fewer than two differences, one not finite, all equal; alpha, power, the number
            of comparisons or of simulations out of range.
    """
    z, least = _z(alpha, power, comparisons), least_units(alpha, comparisons)
    level = alpha / comparisons
    noise = _noise(rng, simulations, LARGEST)
    effects = _standardised(differences)
    n = [_smallest(effect, noise, least, level, power, z) for effect in effects]
    return _needed(n, effects, least, level, power, ASSUMES["data sets"])


def detectable(n: int, *, alpha: float = 0.05, power: float = 0.8, comparisons: int = 1) -> float:
    """The smallest standardised difference d_z that a paired test on n texts finds at this power.

    (z_(1 - level/2) + z_power) / sqrt(n), a normal approximation: a little too small below 30
    units. Infinite where no data can give a p below alpha / comparisons. Times the standard
    deviation of units, it is in points of the metric.

    Raises:
        ValueError: alpha, power or the number of comparisons out of range, or no units.
    """
    z, least = _z(alpha, power, comparisons), least_units(alpha, comparisons)
    if n < 1:
        raise ValueError(f"at least one unit wanted; got n={n}")
    return math.inf if n < least else z / math.sqrt(n)


def wilcoxon_power(
    effect: float,
    n: int,
    *,
    rng: np.random.Generator,
    alpha: float = 0.05,
    comparisons: int = 1,
    simulations: int = 2000,
) -> float:
    """The share of simulations in which Wilcoxon's exact test on n data sets gives p < alpha.

    Differences are normal with mean ``effect`` standard deviations; with effect 0 it is the rate
    of false positives.

    Raises:
        ValueError: alpha or a number out of range.
    """
    _level(alpha, comparisons)
    if n < 1:
        raise ValueError(f"at least one data set wanted; got n={n}")
    return _rejected(effect, _noise(rng, simulations, n), alpha / comparisons)


def least_units(alpha: float = 0.05, comparisons: int = 1) -> int:
    """The smallest n at which a sign-flip test over units can give p < alpha / comparisons.

    At 0.05, 6 data sets for one comparison, 7 for two or three, 8 for four to six.

    Raises:
        ValueError: alpha outside (0, 1), or no comparison.
    """
    level = _level(alpha, comparisons)
    return next(n for n in count(1) if attainable_p(n) < level)


def _level(alpha: float, comparisons: int) -> float:
    tail(alpha)
    if comparisons < 1:
        raise ValueError(f"at least one comparison wanted; got {comparisons}")
    return alpha / comparisons


def _z(alpha: float, power: float, comparisons: int) -> float:
    """The distance, in standard errors, at which a two-sided test has the power."""
    from scipy.stats import norm

    level = _level(alpha, comparisons)
    if not alpha < power < 1:
        raise ValueError(f"a power lies between alpha, {alpha}, and 1, such as 0.8; got {power}")
    return float(norm.isf(level / 2) + norm.ppf(power))


def _ceil(z: float, effect: float, efficiency: float = 1.0) -> float:
    return math.ceil((z / effect) ** 2 / efficiency) if effect else math.inf


def _needed(
    n: Sequence[float],
    effects: np.ndarray,
    least: int,
    level: float,
    power: float,
    assumes: str,
) -> Needed:
    """The number for the effect, and for both ends of its interval: no end if that holds zero."""
    effect, low, high = effects
    ends = sorted(n[1:]) if low * high > 0 else [min(n), math.inf]
    return Needed(n[0], ends[0], ends[1], float(effect), least, level, power, assumes)


def _standardised(differences: Sequence[float]) -> np.ndarray:
    """Mean over standard deviation with the 95 % interval of the noncentral t: (3,)."""
    from scipy.special import nctdtrinc  # the noncentrality at which t has this probability

    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"two finite differences or more wanted, one per data set; got {values}")
    sd = values.std(ddof=1)
    if sd <= 1e-12 * np.abs(values).max():
        raise ValueError(f"all {len(values)} differences are equal: there is no spread to plan for")
    root = math.sqrt(len(values))
    t = values.mean() / sd * root
    return np.array([t, *nctdtrinc(len(values) - 1, [0.975, 0.025], t)]) / root


def _noise(rng: np.random.Generator, simulations: int, n: int) -> np.ndarray:
    if simulations < 1:
        raise ValueError(f"at least one simulation wanted; got {simulations}")
    return rng.normal(size=(simulations, n))


def _rejected(effect: float, noise: np.ndarray, level: float) -> float:
    """The share of rows of normal differences with p below the level by the exact test."""
    from scipy.stats import wilcoxon  # exact and vectorised; normal differences have no ties

    return float((wilcoxon(noise + effect, axis=1, method="exact").pvalue < level).mean())


def _smallest(
    effect: float, noise: np.ndarray, least: int, level: float, power: float, z: float
) -> float:
    """The smallest number of data sets with the power, by bisection on the same noise."""
    low, high = least - 1, noise.shape[1]  # the power is too small at low, and suffices at high
    if least > high or _rejected(effect, noise, level) < power:
        return max(least, _ceil(z, effect, EFFICIENCY))
    while high - low > 1:
        middle = (low + high) // 2
        if _rejected(effect, noise[:, :middle], level) < power:
            low = middle
        else:
            high = middle
    return high
