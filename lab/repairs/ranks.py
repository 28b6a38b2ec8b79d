"""Repairs that act on each dimension alone and keep its order: quantiles and ranks."""

import numpy as np

from lab.repairs.checks import refuse_constant, whole
from lab.repairs.estimator import Arrays, repair

NO_ORDER = "no order to keep"
QUANTILES = 1000  # scikit-learn's default


def to_normal(rows: np.ndarray, arrays: Arrays) -> np.ndarray:
    """Every value at the quantile that a normal variable has where it lies in its dimension."""
    from sklearn.preprocessing import QuantileTransformer

    quantiles = arrays["quantiles"]
    fitted = QuantileTransformer(n_quantiles=len(quantiles), output_distribution="normal")
    fitted.n_quantiles_, fitted.n_features_in_ = quantiles.shape
    fitted.quantiles_, fitted.references_ = quantiles, np.linspace(0, 1, len(quantiles))
    return fitted.transform((rows - arrays["mean"]) / arrays["scale"])


@repair(to_normal)
def quantile(rows: np.ndarray, *, quantiles: int | None = None) -> Arrays:
    """Every dimension made standard normal, by scikit-learn's QuantileTransformer.

    The copula of the dimensions stays: they become normal one by one, not jointly. Values outside
    the range fitted on become +-5.2. Dimensions are z-scored first: scikit-learn takes all values
    within 1e-7 of the smallest for the smallest, which would flatten a dimension of small scale.

    Args:
        rows: the embeddings.
        quantiles: how many landmarks a dimension; default one a row, at most 1000.

    Raises:
        ValueError: more quantiles than rows; a constant dimension.
    """
    from sklearn.preprocessing import QuantileTransformer

    n = len(rows)
    refuse_constant(rows, NO_ORDER)
    chosen = min(n, QUANTILES) if quantiles is None else quantiles
    count = whole("quantiles", chosen, n, f"{n} rows", least=2)
    mean, scale = rows.mean(0), rows.std(0)
    fitted = QuantileTransformer(n_quantiles=count, subsample=None).fit((rows - mean) / scale)
    return {"mean": mean, "scale": scale, "quantiles": fitted.quantiles_}


def share_below_minus_above(rows: np.ndarray, arrays: Arrays) -> np.ndarray:
    """The share of the sample below every value minus the share above it: (n, d) in [-1, 1]."""
    sample = arrays["sample"]
    n = sample.shape[1]
    shares = np.empty_like(rows)
    for dimension, values in enumerate(sample):
        not_above = np.searchsorted(values, rows[:, dimension], "right")
        shares[:, dimension] = np.searchsorted(values, rows[:, dimension], "left") + not_above - n
    return shares / n


@repair(share_below_minus_above)
def rank(rows: np.ndarray) -> Arrays:
    """Every value's rank in the sample fitted on, from -1 (below all of it) to 1 (above).

    The share of the sample below minus the share above: 2 (r - 1/2) / n - 1 for the r-th of n
    values, ties sharing their mean rank. Uniform on [-1, 1] and not on [0, 1], where all vectors
    would lie in one orthant with an average cosine of 3/4. A monotone map of a dimension, applied
    to both, changes nothing. The sample is kept (8 n d bytes): fit it on some thousand rows.

    Raises:
        ValueError: a constant dimension.
    """
    refuse_constant(rows, NO_ORDER)
    return {"sample": np.ascontiguousarray(np.sort(rows, axis=0).T)}
