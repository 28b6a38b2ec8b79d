"""Settings compared across data sets: exact tests on one number per setting and data set.

A few data sets can support little, whatever the numbers: every row says the smallest p that could
have come out, and whether significance was within reach at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lab.registry import unknown
from lab.stats.significance import hodges_lehmann, holm, nemenyi, tail, wilcoxon

KEYS = ["setting", "dataset"]


def compare(
    values: pd.DataFrame,
    *,
    baseline: str | None = None,
    alpha: float = 0.05,
    units: str = "data sets",
) -> pd.DataFrame:
    """One row per pair of settings over the data sets: against ``baseline``, or all pairs.

    ``values``: one row per setting and data set with columns setting, dataset, value; seeds are
    averaged before. A difference is setting minus baseline. Columns:

    - ``n`` data sets, of them ``positive``, ``negative`` and ``zero`` differences;
    - ``difference``, the Hodges-Lehmann shift, with its exact interval [low, high] at ``level``,
      the coverage it attains; empty where the data sets are too few for 1 - alpha;
    - ``p`` of Wilcoxon's exact test, and ``p_min``, the smallest that it can give: 2 / 2^n, n
      without the zeros;
    - ``p_holm`` and ``p_holm_min``, both after Holm's correction over the rows of this table;
      ``can_be_significant``: whether the latter is below alpha;
    - ``effect``, the matched-pairs rank-biserial correlation: rank sum of the positive less that of
      the negative differences, over both (Kerby 2014); 1 if all differences are positive;
    - ``test``, "wilcoxon", and ``verdict``, the same in words.

    ``units`` says what column dataset holds, where a verdict should not call it data sets.

    ``results.comparison_table(found.filter(results.COMPARISON_COLUMNS), metric=...)`` takes it.

    Raises:
        LookupError: a column that is not there, or an unknown baseline.
        ValueError: a cell missing, repeated or not finite; fewer than two settings or data sets;
            alpha outside (0, 1).
    """
    tail(alpha)
    table = grid(values)
    pairs = list(_pairs(list(table.columns), baseline))
    rows = [_row(a, b, table[a] - table[b], 1 - alpha) for a, b in pairs]
    found = pd.DataFrame(rows)
    at = list(found.columns).index("p_min") + 1
    found.insert(at, "p_holm", holm(found["p"]))
    found.insert(at + 1, "p_holm_min", holm(found["p_min"]))  # Holm's is monotone in every p
    found.insert(at + 2, "can_be_significant", found["p_holm_min"] < alpha)
    found["verdict"] = [_verdict(row, len(found), alpha, units) for row in found.to_dict("records")]
    return found


def grid(values: pd.DataFrame) -> pd.DataFrame:
    """The values as data sets x settings, both in the order given: complete and finite.

    Raises:
        LookupError: a column that is not there.
        ValueError: a cell missing, repeated or not finite; fewer than two settings or data sets.
    """
    for name in [*KEYS, "value"]:
        if name not in values.columns:
            raise LookupError(unknown("column", name, map(str, values.columns)))
    repeated = values.duplicated(KEYS)
    if repeated.any():
        first = values.loc[repeated, KEYS].iloc[0].to_dict()
        raise ValueError(f"several values for {first}: average the seeds, keep one metric each")
    cells = values.set_index(["dataset", "setting"])["value"].astype(float)
    settings, datasets = (values[name].unique() for name in KEYS)
    table = cells.unstack().reindex(index=datasets, columns=settings)  # noqa: PD010  sorted by it
    if min(table.shape) < 2:
        raise ValueError(
            f"two settings and two data sets or more wanted; got {len(settings)} and "
            f"{len(datasets)}; within one data set, use stats.compare_all"
        )
    holes = np.argwhere(~np.isfinite(table.to_numpy()))
    if len(holes):
        row, column = holes[0]
        raise ValueError(
            f"{len(holes)} of {table.size} cells are missing or not finite, the first: setting "
            f"{settings[column]!r} on {datasets[row]!r}; measure it or leave that data set out"
        )
    return table


@dataclass(frozen=True)
class Ranks:
    """Average ranks of settings over data sets, 1 the best, and what tells them apart.

    Attributes:
        mean: average rank of every setting, best first.
        friedman_p: of Friedman's test that all settings rank alike (its chi-squared form).
        critical_difference: of average ranks, at ``alpha``, by Nemenyi.
        p: Nemenyi's p of every pair.
        n: how many data sets.
    """

    mean: pd.Series
    friedman_p: float
    critical_difference: float
    p: pd.DataFrame = field(repr=False)
    n: int
    alpha: float

    @property
    def separable(self) -> list[tuple[str, str]]:
        """The pairs that Nemenyi's test separates, the better setting first."""
        return [
            (a, b) for a, b in combinations(self.mean.index, 2) if self.p.loc[a, b] < self.alpha
        ]


def ranks(values: pd.DataFrame, *, alpha: float = 0.05, lower_is_better: bool = False) -> Ranks:
    """Average ranks with Friedman's test and Nemenyi's critical difference (Demsar 2006, 3.2).

    ``values`` as for :func:`compare`. Nemenyi's test compares all pairs and holds for many data
    sets; for few, the exact test of :func:`compare` is the one to report.

    Raises:
        LookupError, ValueError: as :func:`compare`; and for fewer than three settings.
    """
    from scipy.stats import friedmanchisquare, studentized_range

    tail(alpha)
    table = grid(values)
    n, k = table.shape
    if k < 3:
        raise ValueError(f"ranks are compared among three settings or more; got {k}: use compare")
    ranked = table.rank(axis=1, ascending=lower_is_better)
    same = bool((ranked == (k + 1) / 2).all(axis=None))  # the statistic is then 0 / 0
    p = 1.0 if same else float(friedmanchisquare(*table.to_numpy().T).pvalue)
    quantile = studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2)
    difference = float(quantile * np.sqrt(k * (k + 1) / (6 * n)))
    mean = ranked.mean().sort_values(kind="stable")
    return Ranks(mean, p, difference, nemenyi(table), n, alpha)


def _pairs(settings: Sequence[str], baseline: str | None) -> Sequence[tuple[str, str]]:
    if baseline is None:
        return list(combinations(settings, 2))
    if baseline not in settings:
        raise LookupError(unknown("setting", baseline, settings))
    return [(name, baseline) for name in settings if name != baseline]


def _row(setting: str, baseline: str, differences: pd.Series, level: float) -> dict[str, Any]:
    listed = differences.tolist()
    test, shift = wilcoxon(listed), hodges_lehmann(listed, level)
    known = np.isfinite([shift.low, shift.high]).all()
    low, high, attained = (shift.low, shift.high, shift.level) if known else [np.nan] * 3
    return {
        "setting": setting, "baseline": baseline,
        "n": len(differences), "positive": test.positive, "negative": test.negative,
        "zero": test.zero, "difference": shift.value, "low": low, "high": high, "level": attained,
        "p": test.p, "p_min": test.p_min, "effect": _rank_biserial(differences), "test": "wilcoxon",
    }  # fmt: skip


def _rank_biserial(differences: pd.Series) -> float:
    from scipy.stats import rankdata

    kept = differences[differences != 0]
    sizes = rankdata(np.abs(kept))
    return float((sizes * np.sign(kept)).sum() / sizes.sum()) if len(kept) else 0.0


def _verdict(row: dict[str, Any], comparisons: int, alpha: float, units: str) -> str:
    data = f"{row['n']} {units}" + (f" ({row['zero']} without a difference)" * bool(row["zero"]))
    if not row["can_be_significant"]:
        over = f"{comparisons} comparison" + "s" * (comparisons > 1)
        return f"cannot be significant: {data} and {over} reach {row['p_holm_min']:.3g} at best"
    if row["p_holm"] >= alpha:
        return f"not shown to differ over {data}"
    side, count = ("above", "positive") if row["effect"] > 0 else ("below", "negative")
    return f"significant: {side} {row['baseline']!s} on {row[count]} of {data}"
