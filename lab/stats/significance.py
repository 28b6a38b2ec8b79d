"""Many comparisons, several data sets: exact signed-rank tests, Holm's correction, tie groups.

statsmodels and scikit-posthocs do what they have. Wilcoxon's null distribution is enumerated here:
scipy's is exact only without ties and offers no quantiles for Hodges and Lehmann's interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Signed:
    """Wilcoxon's exact two-sided p over ``n`` non-zero differences, and sign counts."""

    p: float
    p_min: float
    n: int
    positive: int
    negative: int
    zero: int


@dataclass(frozen=True)
class Shift:
    """Hodges-Lehmann shift; ``level``: exact coverage of [low, high], at least what was asked."""

    value: float
    low: float
    high: float
    level: float
    n: int


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm-adjusted p values in the order given: never below the raw ones, monotone in them.

    Raises:
        ValueError: none given, or one outside [0, 1].
    """
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p, dtype=float)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"Holm's correction needs p values within [0, 1]; got {values}")
    return multipletests(values, method="holm")[1]


def attainable_p(n: int) -> float:
    """The smallest two-sided p of a sign-flip test on n units, all signs equal: 2 / 2^n.

    Wilcoxon's test on 6 data sets reaches 0.031: one dissenting data set rules out p < 0.05, and
    Holm over two comparisons rules it out altogether.
    """
    return min(1.0, 2.0 ** (1 - n))


def wilcoxon(differences: Sequence[float]) -> Signed:
    """Wilcoxon's signed-rank test across data sets: exact two-sided p, smallest p, sign counts.

    Zero differences are dropped (Wilcoxon 1945), ties get mid-ranks and their own exact null.

    Raises:
        ValueError: a difference that is not finite, or none at all.
    """
    from scipy.stats import rankdata

    values = _differences(differences)
    kept = values[values != 0]
    counts = (int((values > 0).sum()), int((values < 0).sum()), int((values == 0).sum()))
    if not len(kept):
        return Signed(1.0, 1.0, 0, *counts)
    doubled = np.rint(2 * rankdata(np.abs(kept))).astype(int)  # mid-ranks are halves
    null = _rank_sums(doubled)
    statistic = doubled[kept > 0].sum()
    p = min(1.0, 2 * min(null[: statistic + 1].sum(), null[statistic:].sum()))
    return Signed(float(p), attainable_p(len(kept)), len(kept), *counts)


def hodges_lehmann(differences: Sequence[float], level: float = 0.95) -> Shift:
    """The median of all pairwise means (Walsh averages) with its exact signed-rank interval.

    The interval inverts Wilcoxon's test (Hollander & Wolfe 1973, section 3.3), so it leaves out 0
    exactly when that test rejects. Too few data sets for the level: (-inf, inf) with level 1.

    Raises:
        ValueError: a difference that is not finite, none at all, or a level outside (0, 1).
    """
    values, outside = _differences(differences), tail(level)
    n = len(values)
    walsh = np.sort(((values[:, None] + values[None, :]) / 2)[np.triu_indices(n)])
    cumulative = np.cumsum(_rank_sums(np.arange(1, n + 1)))
    k = int(np.searchsorted(cumulative, outside, side="right"))  # largest with P(W < k) <= outside
    centre = float(np.median(walsh))
    if k == 0:
        return Shift(centre, -math.inf, math.inf, 1.0, n)
    covered = float(1 - 2 * cumulative[k - 1])
    return Shift(centre, float(walsh[k - 1]), float(walsh[-k]), covered, n)


def nemenyi(values: pd.DataFrame) -> pd.DataFrame:
    """Nemenyi's p of every pair of settings (columns) over data sets (rows), on Friedman's ranks.

    The test behind critical-difference diagrams (Demsar 2006), from scikit-posthocs; its
    ``critical_difference_diagram`` takes this table.

    Raises:
        ValueError: fewer than two data sets, or an empty cell.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman

    if len(values) < 2 or values.isna().any(axis=None):
        raise ValueError(f"Nemenyi's test needs >= 2 data sets, no empty cell; got\n{values}")
    return posthoc_nemenyi_friedman(values)


def tie_groups(
    values: Mapping[str, float] | pd.Series, p: pd.DataFrame, alpha: float = 0.05
) -> pd.DataFrame:
    """Settings from best to worst with letters: two that share one are not separable at ``alpha``.

    ``p``: a symmetric table from ``stats.pairwise_p`` (one data set) or :func:`nemenyi` (several).
    ``with_best``: shares a letter with the best. Letters: scikit-posthocs' compact letter display.

    Raises:
        LookupError: a setting without a row in ``p``.
        ValueError: alpha outside (0, 1).
    """
    from scikit_posthocs import compact_letter_display

    tail(alpha)
    ranked = pd.Series(dict(values), dtype=float).sort_values(ascending=False, kind="stable")
    missing = [name for name in ranked.index if name not in p.index]
    if missing:
        raise LookupError(f"no p values for {missing}; the table has {list(p.index)}")
    letters = compact_letter_display(p.loc[ranked.index, ranked.index], alpha=alpha)
    groups = [letters[name].replace(" ", "") for name in ranked.index]
    with_best = [bool(set(group) & set(groups[0])) for group in groups]
    columns = {"setting": list(ranked.index), "value": ranked.to_numpy()}
    return pd.DataFrame({**columns, "group": groups, "with_best": with_best})


def tail(level: float) -> float:
    """The probability on each side of a two-sided level; ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"a level lies strictly between 0 and 1, such as 0.95; got {level}")
    return (1 - level) / 2


def _differences(differences: Sequence[float]) -> np.ndarray:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"one difference per data set wanted, at least one; got {values.shape}")
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise ValueError(f"difference {row} of {len(values)} is {values[row]}: leave it out")
    return values


def _rank_sums(ranks: np.ndarray) -> np.ndarray:
    """Probability of every sum of ranks when each enters by a fair coin: Wilcoxon's null."""
    mass = np.zeros(int(ranks.sum()) + 1)
    mass[0] = 1.0
    for rank in ranks:
        mass[rank:] = (mass[rank:] + mass[:-rank]) / 2
        mass[:rank] /= 2
    return mass
