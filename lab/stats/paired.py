"""Paired tests of settings on the same units of one data set; their order beside a number of each.

Two settings are paired by sharing the weights of a bootstrap and the swaps of a permutation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from lab.registry import unknown
from lab.stats.score import (
    Interval,
    Score,
    bootstrap_weights,
    check_pair,
    draws_of,
    evaluate,
    percentiles,
)
from lab.stats.significance import attainable_p, holm

EXACT_UNITS = 12  # up to 2**12 = 4096 sign patterns are enumerated, more are sampled


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
    check_pair(a, b)
    weights = bootstrap_weights(a.n, resamples, rng)
    swaps = rng.random(weights.shape) < 0.5
    return _comparison(a, b, draws_of(a, weights) - draws_of(b, weights), swaps, level)


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
        check_pair(scores[name], base)
    weights = bootstrap_weights(base.n, resamples, rng)
    swaps = rng.random(weights.shape) < 0.5
    base_draws = draws_of(base, weights)
    rows = []
    for name in others:
        draws = draws_of(scores[name], weights) - base_draws
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
        check_pair(score, scores[0])
    weights = bootstrap_weights(scores[0].n, resamples, rng)
    draws = np.column_stack([draws_of(score, weights) for score in scores])
    observed = np.array([[score.value for score in scores]])
    middle = (len(numbers) + 1) / 2  # the mean of any ranks: sums below are exact, so |rho| <= 1
    x = rankdata(numbers) - middle
    ranks = [rankdata(y, axis=1) - middle for y in (observed, draws)]
    with np.errstate(invalid="ignore"):
        point, spread = (r @ x / np.sqrt((r**2).sum(1) * (x @ x)) for r in ranks)
    if not np.isfinite(point[0]):
        raise ValueError("a correlation needs values and scores that are not all equal")
    spread = np.where(np.isfinite(draws).all(1), spread, np.nan)
    low, high = percentiles(spread, level, "Spearman's correlation over settings")
    value = float(point[0])
    defined = int(np.isfinite(spread).sum())
    return Interval(value, min(low, value), max(high, value), len(scores), defined)


def _comparison(
    a: Score, b: Score, draws: np.ndarray, swaps: np.ndarray, level: float
) -> Comparison:
    low, high = percentiles(draws, level, a.metric)
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
    first = evaluate(a.statistic, units, np.hstack([1 - swaps, swaps]))
    gaps = np.abs(first - evaluate(a.statistic, units, np.hstack([swaps, 1 - swaps])))
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
