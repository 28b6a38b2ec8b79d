"""Intervals and paired tests: scores in, numbers with their uncertainty out.

Within one data set, units (texts, pairs, queries) are resampled and swapped. Tests of a table of
settings and data sets are in :mod:`lab.stats.across`, how much data a difference would need in
:mod:`lab.stats.power`; import these two as modules.
"""

from lab.stats.paired import Comparison, association, compare, compare_all, pairwise_p
from lab.stats.score import Interval, Score, Statistic, bootstrap_weights, interval
from lab.stats.seeds import Components, mean_over_seeds, variance_components
from lab.stats.significance import (
    Shift,
    Signed,
    attainable_p,
    hodges_lehmann,
    holm,
    nemenyi,
    tie_groups,
    wilcoxon,
)

__all__ = [
    "Comparison",
    "Components",
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
    "mean_over_seeds",
    "nemenyi",
    "pairwise_p",
    "tie_groups",
    "variance_components",
    "wilcoxon",
]
