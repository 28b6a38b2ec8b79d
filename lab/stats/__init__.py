"""Intervals and paired tests within one data set: scores in, numbers with their uncertainty out.

A :class:`Score` is a statistic of units (texts, pairs, queries) that accepts weights. Resampling is
a matrix of counts, two settings are paired by sharing it, and one draw serves every cell of a grid.
Tests across data sets and corrections are in ``significance``, and can be had from here as well.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from lab.registry import unknown
from lab.stats.significance import (
    Shift,
    Signed,
    attainable_p,
    hodges_lehmann,
    holm,
    nemenyi,
    tail,
    tie_groups,
    wilcoxon,
)

__all__ = [
    "Comparison",
    "Interval",
    "Score",
    "Shift",
    "Signed",
    "Statistic",
    "association",
    "attainable_p",
    "bootstrap_weights",
    "compare",
    "compare_all",
    "hodges_lehmann",
    "holm",
    "interval",
    "nemenyi",
    "pairwise_p",
    "tie_groups",
    "wilcoxon",
]

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]

EXACT_UNITS = 12  # up to 2**12 = 4096 sign patterns are enumerated, more are sampled
CHUNK = 1 << 20  # weights evaluated at a time: 8 MB, so that memory does not grow with resamples


@dataclass(frozen=True, eq=False)
class Score:
    """One measurement of one setting: units (n, k) and the statistic that makes one number of them.

    ``statistic(units, weights)`` maps weights (R, n), how often each unit counts, to R values. With
    several columns the last is the gold (score, label), equal in all settings that are compared.
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


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; ``resamples``: those in which the value was defined."""

    value: float
    low: float
    high: float
    n: int
    resamples: int


@dataclass(frozen=True)
class Comparison:
    """First setting minus second on the same units: interval, p, smallest possible p, effect."""

    difference: float
    low: float
    high: float
    p: float
    p_min: float
    effect: float
    n: int
    test: str


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
    draws = _draws(score, weights)
    low, high = _percentiles(draws, level, score.metric)
    low, high = min(low, score.value), max(high, score.value)
    return Interval(score.value, low, high, score.n, int(np.isfinite(draws).sum()))


def compare(
    a: Score, b: Score, *, rng: np.random.Generator, resamples: int = 1000, level: float = 0.95
) -> Comparison:
    """``a`` minus ``b`` on the same units: paired bootstrap interval and paired permutation p.

    The permutation swaps the two settings unit by unit. It is exact (all 2^m patterns of the m
    units that differ) for m <= 12, else sampled with p = (b + 1) / (resamples + 1). ``p_min`` is
    the smallest p that could have come out. Where units cannot be swapped (V-measure) p is read off
    the paired bootstrap: 2 (b + 1) / (resamples + 1), b = resamples on the other side of zero.
    ``effect`` is the difference over (bootstrap standard error x sqrt(n)): Cohen's d_z for a mean,
    and the same scale for every other statistic. All units equal: p = 1, effect 0.

    Raises:
        ValueError: other probe, metric, number of units or gold; fewer than two units; bad level.
    """
    _check_pair(a, b)
    weights = bootstrap_weights(a.n, resamples, rng)
    swaps = rng.random(weights.shape) < 0.5
    return _comparison(a, b, _draws(a, weights) - _draws(b, weights), swaps, level)


def compare_all(
    scores: Mapping[str, Score],
    baseline: str,
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row per setting against ``baseline``, with Holm's correction over the rows.

    All rows share one draw of weights and one of swaps, so a row does not depend on the order of
    the settings. ``results.comparison_table`` adds the columns that name the experiment.

    Raises:
        LookupError: the baseline is not among the settings.
        ValueError: nothing to compare with it, and whatever :func:`compare` refuses.
    """
    if baseline not in scores:
        raise LookupError(unknown("setting", baseline, scores))
    others = [name for name in scores if name != baseline]
    if not others:
        raise ValueError(f"nothing to compare with {baseline!r}: give at least two settings")
    base = scores[baseline]
    for name in others:
        _check_pair(scores[name], base)
    weights = bootstrap_weights(base.n, resamples, rng)
    swaps = rng.random(weights.shape) < 0.5
    base_draws = _draws(base, weights)
    rows = []
    for name in others:
        draws = _draws(scores[name], weights) - base_draws
        found = _comparison(scores[name], base, draws, swaps, level)
        context = {"probe": base.probe, "metric": base.metric}
        rows.append({**context, "setting": name, "baseline": baseline, **asdict(found)})
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table


def pairwise_p(
    scores: Mapping[str, Score], *, rng: np.random.Generator, resamples: int = 1000
) -> pd.DataFrame:
    """Holm-adjusted p of every pair of settings: a symmetric table with 1 on its diagonal."""
    names = list(scores)
    table = pd.DataFrame(1.0, index=names, columns=names)
    pairs = list(combinations(names, 2))
    raw = [compare(scores[a], scores[b], rng=rng, resamples=resamples).p for a, b in pairs]
    for (a, b), p in zip(pairs, holm(raw), strict=True):
        table.loc[a, b] = table.loc[b, a] = p
    return table


def association(
    scores: Sequence[Score],
    values: Sequence[float],
    *,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Spearman's correlation, over settings, of a number of each setting with its score.

    The settings, and the number of each, are held fixed and the units that scores are made of are
    resampled, the same for all settings: the interval says how sure the order of *these* settings
    is, and nothing about others. It is widened, if need be, to hold the observed value. ``n`` is
    the number of settings.

    Raises:
        ValueError: fewer than three settings, not one value each, a value that is not finite, all
            values or all scores equal, or scores on other units.
    """
    from scipy.stats import rankdata

    if len(scores) < 3 or len(scores) != len(values):
        raise ValueError(
            f"a correlation over settings needs three or more, with one value each; got "
            f"{len(scores)} scores and {len(values)} values"
        )
    numbers = np.asarray(values, dtype=float)
    lost = np.flatnonzero(~np.isfinite(numbers))
    if len(lost):
        raise ValueError(
            f"value {lost[0]} of {len(numbers)} is {numbers[lost[0]]}; leave that setting out"
        )
    for score in scores[1:]:
        _check_pair(score, scores[0])
    weights = bootstrap_weights(scores[0].n, resamples, rng)
    draws = np.column_stack([_draws(score, weights) for score in scores])
    observed = np.array([[score.value for score in scores]])
    middle = (len(numbers) + 1) / 2  # the mean of any ranks: sums below are exact, so |rho| <= 1
    x = rankdata(numbers) - middle
    ranks = [rankdata(y, axis=1) - middle for y in (observed, draws)]
    with np.errstate(invalid="ignore"):
        point, spread = (r @ x / np.sqrt((r**2).sum(1) * (x @ x)) for r in ranks)
    if not np.isfinite(point[0]):
        raise ValueError("a correlation needs values and scores that are not all equal")
    spread = np.where(np.isfinite(draws).all(1), spread, np.nan)
    low, high = _percentiles(spread, level, "Spearman's correlation over settings")
    value = float(point[0])
    defined = int(np.isfinite(spread).sum())
    return Interval(value, min(low, value), max(high, value), len(scores), defined)


def _draws(score: Score, weights: np.ndarray) -> np.ndarray:
    """The statistic under every row of weights, evaluated in chunks."""
    if weights.ndim != 2 or weights.shape[1] != score.n:
        raise ValueError(
            f"weights for {score.n} units wanted, (R, {score.n}); got {weights.shape}: "
            "draw them with bootstrap_weights(score.n, ...)"
        )
    draws = _evaluate(score.statistic, score.units, weights)
    return draws + (score.value - np.nanmean(draws)) if score.recentred else draws


def _evaluate(statistic: Statistic, units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    step = max(1, CHUNK // weights.shape[1])
    parts = [statistic(units, weights[at : at + step]) for at in range(0, len(weights), step)]
    return np.concatenate(parts)


def _check_pair(a: Score, b: Score) -> None:
    for what in ("probe", "metric", "n"):
        if getattr(a, what) != getattr(b, what):
            raise ValueError(
                f"a paired comparison needs one {what}; got {getattr(a, what)!r} and "
                f"{getattr(b, what)!r}: score both settings on the same data"
            )
    if a.units.shape[1] > 1 and not np.array_equal(a.units[:, -1], b.units[:, -1]):
        raise ValueError("the gold of the two scores differs: score both settings on the same data")


def _comparison(
    a: Score, b: Score, draws: np.ndarray, swaps: np.ndarray, level: float
) -> Comparison:
    low, high = _percentiles(draws, level, a.metric)
    difference = a.value - b.value
    error = float(np.nanstd(draws)) * math.sqrt(a.n)
    effect = 0.0 if difference == 0 else math.copysign(math.inf, difference)
    if error > 1e-12:
        effect = difference / error
    p, p_min = _permutation_p(a, b, swaps) if a.swappable else _bootstrap_p(draws, difference)
    test = "permutation" if a.swappable else "bootstrap"
    return Comparison(difference, low, high, p, p_min, effect, a.n, test)


def _permutation_p(a: Score, b: Score, swaps: np.ndarray) -> tuple[float, float]:
    """The paired permutation p and the smallest one possible.

    Both settings' units are stacked and a swap is a pair of weights (0, 1) instead of (1, 0): every
    weighted statistic, rank statistics included, is permuted without code of its own.
    """
    differ = np.flatnonzero((a.units != b.units).any(axis=1))
    if not len(differ):
        return 1.0, 1.0
    exact = len(differ) <= EXACT_UNITS
    if exact:
        patterns = (np.arange(2 ** len(differ))[:, None] >> np.arange(len(differ))) & 1
        swaps = np.zeros((len(patterns), a.n))
        swaps[:, differ] = patterns
    units = np.vstack([a.units, b.units])
    swaps = np.vstack([np.zeros((1, a.n)), swaps])  # the first row is what was observed
    first = _evaluate(a.statistic, units, np.hstack([1 - swaps, swaps]))
    gaps = np.abs(first - _evaluate(a.statistic, units, np.hstack([swaps, 1 - swaps])))
    below = gaps[1:] < gaps[0] - 1e-9 * np.nanmax(gaps)  # undefined counts as extreme
    extreme = int((~below).sum())
    floor = attainable_p(len(differ))
    if exact:
        return extreme / len(below), floor
    return (extreme + 1) / (len(below) + 1), max(floor, 1 / (len(below) + 1))


def _bootstrap_p(draws: np.ndarray, difference: float) -> tuple[float, float]:
    defined = draws[np.isfinite(draws)]
    p_min = min(1.0, 2 / (len(defined) + 1))
    if difference == 0:
        return 1.0, p_min
    other_side = int((defined * math.copysign(1, difference) <= 0).sum())
    return min(1.0, 2 * (other_side + 1) / (len(defined) + 1)), p_min


def _percentiles(draws: np.ndarray, level: float, metric: str) -> tuple[float, float]:
    outside = tail(level)
    defined = draws[np.isfinite(draws)]
    if len(defined) < 0.95 * len(draws):
        raise ValueError(
            f"{metric} is undefined in {len(draws) - len(defined)} of {len(draws)} resamples: "
            "too few or too uniform units for an interval"
        )
    low, high = np.quantile(defined, [outside, 1 - outside])
    return float(low), float(high)
