"""Statistics of units under weights: (units (n, k), weights (R, n)) -> R values.

Weights count how often each unit is taken. The result equals the ordinary statistic on units that
are repeated that often, for all R at once: sort once, cumulate weights. Undefined is NaN.
"""

import numpy as np


def mean(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of the only column."""
    return weights @ units[:, 0] / weights.sum(axis=1)


def spearman(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation of two columns by weighted mid-ranks, ties included.

    The mid-rank of a group of ties is the weight below it plus half its own (and a constant), so
    sorting once and cumulating the weights gives the ranks of every resample.
    """
    by_weight = np.ascontiguousarray(weights.T, dtype=float)  # (n, R): gathers copy whole rows
    groups = [np.unique(column, return_inverse=True)[1] for column in units.T]
    order = np.argsort(groups[0], kind="stable")
    x, y = (group[order] for group in groups)
    by_weight = by_weight[order]
    rank_x, square_x = _centred_ranks(by_weight, x)
    rank_y, square_y = _centred_ranks(by_weight, y)
    product = np.einsum("nr,nr,nr->r", by_weight, rank_x[x], rank_y[y])
    with np.errstate(invalid="ignore"):
        return product / np.sqrt(square_x * square_y)


def _centred_ranks(weights: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred mid-ranks of each group of ties (G, R) and their weighted sum of squares (R,)."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    mass = np.add.reduceat(weights[order], starts, axis=0)
    total = np.cumsum(mass, axis=0)
    ranks = total - mass / 2 - total[-1] / 2
    return ranks, np.einsum("gr,gr,gr->r", mass, ranks, ranks)


def average_precision(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of a column of scores for the last, the labels; of several the largest.

    Sum over thresholds of precision times gain in recall; tied scores share a threshold.
    """
    each = [_average_precision(column, units[:, -1], weights) for column in units.T[:-1]]
    return np.max(each, axis=0)


def _average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))
    ranked = weights[:, order]
    retrieved = np.cumsum(np.add.reduceat(ranked, starts, axis=1), axis=1)
    gain = np.add.reduceat(ranked * labels[order], starts, axis=1)
    found = np.cumsum(gain, axis=1)
    with np.errstate(invalid="ignore"):
        area = (gain * found / np.maximum(retrieved, 1e-300)).sum(axis=1)
        return area / found[:, -1]


def v_measure(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean V-measure over clusterings; columns: counts, cluster numbers, then the label.

    Each clustering saw its own sample: text i enters with its count there times its weight.
    """
    experiments = units.shape[1] // 2
    counts, clusters = units[:, :experiments], units[:, experiments:-1].astype(int)
    label = units[:, -1].astype(int)
    each = [_v_measure(weights * counts[:, e], label, clusters[:, e]) for e in range(experiments)]
    return np.mean(each, axis=0)


def _v_measure(weights: np.ndarray, label: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    from scipy.sparse import csr_array

    shape = (label.max() + 1, cluster.max() + 1)
    cell = label * shape[1] + cluster
    entries = (np.ones(len(cell)), (np.arange(len(cell)), cell))
    one_hot = csr_array(entries, shape=(len(cell), shape[0] * shape[1]))
    table = (weights @ one_hot).reshape(-1, *shape)
    table = table / table.sum(axis=(1, 2), keepdims=True)
    of_label, of_cluster = (_entropy(table.sum(axis=axis)) for axis in (2, 1))
    joint = _entropy(table.reshape(len(table), -1))
    information = np.maximum(of_label + of_cluster - joint, 0)
    tiny = 1e-12  # a single label or cluster is homogeneous or complete by definition
    homogeneity = np.where(of_label < tiny, 1, information / np.maximum(of_label, tiny))
    completeness = np.where(of_cluster < tiny, 1, information / np.maximum(of_cluster, tiny))
    both = homogeneity + completeness
    return np.where(both < tiny, 0, 2 * homogeneity * completeness / np.maximum(both, tiny))


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
