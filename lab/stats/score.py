"""A score with its interval: a statistic of units (texts, pairs, queries) that accepts weights.

Resampling is a matrix of counts, so that one draw of them serves every cell of a grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lab.stats.significance import tail

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]

CHUNK = 1 << 20  # weights evaluated at a time: 8 MB, so that memory does not grow with resamples


@dataclass(frozen=True, eq=False)
class Score:
    """One measurement of one setting: units (n, k) and the statistic that makes one number of them.

    ``statistic(units, weights)`` maps weights (R, n), how often each unit counts, to R values. With
    several columns the last is the gold (score, label), equal in all settings that are compared;
    ``gold=False`` says that every column is measured.
    ``swappable``: a unit may be exchanged with the same unit of another setting. Units of rank
    statistics hold ranks *within their setting*, which makes them so; cluster numbers are not.
    ``recentred``: resampling itself moves the statistic (repeated texts look like tight clusters),
    so the mean of its draws is moved back to its value.
    """

    probe: str
    metric: str
    units: np.ndarray = field(repr=False)
    statistic: Statistic = field(repr=False)
    swappable: bool = True
    recentred: bool = False
    gold: bool = True

    def __post_init__(self) -> None:
        """Refuse units that are not a table of finite numbers."""
        if self.units.ndim != 2 or not len(self.units):
            raise ValueError(f"units of {self.metric} must be (n, k), n >= 1: {self.units.shape}")
        bad = ~np.isfinite(self.units).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"unit {row} of {len(bad)} of {self.metric} is not finite ({self.units[row]}); "
                "repair or drop it in every setting before comparing"
            )

    @property
    def n(self) -> int:
        """How many units there are."""
        return len(self.units)

    @cached_property
    def value(self) -> float:
        """The statistic with every unit counted once."""
        return float(self.statistic(self.units, np.ones((1, self.n)))[0])

    @property
    def measured(self) -> np.ndarray:
        """The columns that belong to the setting: all but the gold."""
        return self.units[:, :-1] if self.has_gold else self.units

    @property
    def has_gold(self) -> bool:
        """Whether the last column is the gold."""
        return self.gold and self.units.shape[1] > 1


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; ``resamples``: those in which the value was defined."""

    value: float
    low: float
    high: float
    n: int
    resamples: int


def bootstrap_weights(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Counts (resamples, n): how often each of n units is drawn; every row sums to n.

    Raises:
        ValueError: fewer than two units, or no resample.
    """
    if n < 2 or resamples < 1:
        raise ValueError(f"a bootstrap needs n >= 2 units and a resample; got n={n}, {resamples=}")
    draws = rng.integers(0, n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=resamples * n)
    return counts.reshape(resamples, n).astype(float)


def interval(score: Score, weights: np.ndarray, level: float = 0.95) -> Interval:
    """The score with its percentile bootstrap interval (Efron & Tibshirani 1993, section 13.3).

    Resamples in which the statistic is undefined (a constant column, no positive) are left out and
    counted. The interval is widened, if need be, to hold the value.

    Raises:
        ValueError: level outside (0, 1), weights of another n, over 5 % undefined resamples.
    """
    draws = draws_of(score, weights)
    low, high = percentiles(draws, level, score.metric)
    low, high = min(low, score.value), max(high, score.value)
    return Interval(score.value, low, high, score.n, int(np.isfinite(draws).sum()))


def draws_of(score: Score, weights: np.ndarray) -> np.ndarray:
    """The statistic under every row of weights, evaluated in chunks."""
    if weights.ndim != 2 or weights.shape[1] != score.n:
        raise ValueError(
            f"weights for {score.n} units wanted, (R, {score.n}); got {weights.shape}: "
            "draw them with bootstrap_weights(score.n, ...)"
        )
    draws = evaluate(score.statistic, score.units, weights)
    return draws + (score.value - np.nanmean(draws)) if score.recentred else draws


def evaluate(statistic: Statistic, units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The statistic under every row of weights (R, n), in chunks that keep memory small: (R,)."""
    step = max(1, CHUNK // weights.shape[1])
    parts = [statistic(units, weights[at : at + step]) for at in range(0, len(weights), step)]
    return np.concatenate(parts)


def percentiles(draws: np.ndarray, level: float, metric: str) -> tuple[float, float]:
    """Both ends of the percentile interval of the draws that are defined, 95 % of them at least."""
    outside = tail(level)
    defined = draws[np.isfinite(draws)]
    if len(defined) < 0.95 * len(draws):
        raise ValueError(
            f"{metric} is undefined in {len(draws) - len(defined)} of {len(draws)} resamples: "
            "too few or too uniform units for an interval"
        )
    low, high = np.quantile(defined, [outside, 1 - outside])
    return float(low), float(high)


def check_pair(a: Score, b: Score) -> None:
    """Nothing, or a ValueError that says why two scores cannot be paired unit by unit."""
    for what in ("probe", "metric", "n"):
        if getattr(a, what) != getattr(b, what):
            raise ValueError(
                f"a paired comparison needs one {what}; got {getattr(a, what)!r} and "
                f"{getattr(b, what)!r}: score both settings on the same data"
            )
    if a.units.shape != b.units.shape or a.has_gold != b.has_gold:
        raise ValueError(
            f"a paired comparison needs the same columns, so equally many seeds; got units "
            f"{a.units.shape} and {b.units.shape}"
        )
    if a.has_gold and not np.array_equal(a.units[:, -1], b.units[:, -1]):
        raise ValueError("the gold of the two scores differs: score both settings on the same data")
