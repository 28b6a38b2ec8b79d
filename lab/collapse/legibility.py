"""How well the length of a text can be read off its embedding, by a linear model held out."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from lab.anisotropy.rows import checked_rows
from lab.collapse.membership import Labels, Texts, membership
from lab.stats import Score
from lab.stats.weighted import mean, spearman

PENALTIES = np.logspace(-1, 5, 13)  # of the ridge, on standardised embeddings


def length_probe(
    embeddings: np.ndarray,
    labels: Labels,
    lengths: Sequence[int] | np.ndarray,
    *,
    seed: int,
    texts: Texts | None = None,
    folds: int = 5,
) -> dict[str, Score]:
    """What held-out texts reveal of their length: three scores; unit: a text.

    ``length_r2``: R^2 of ridge regression on the logarithm of the length, 1 - sum of squared errors
    / sum of squares about the mean, below 0 if that were the better guess. ``length_spearman``: the
    rank correlation of the same predictions with the length. ``bin_accuracy``: how often logistic
    regression guesses the bin; see :func:`chance`.

    Folds hold as many rows of each bin as of any other and never cut a text in two, so that pieces
    of one text are on one side. Embeddings are standardised within the training folds; the ridge's
    penalty is chosen there too, by leaving out rows, not texts. Intervals (``lab.stats.interval``)
    are over held-out texts with the fitted models held fixed; two settings with one seed and the
    same texts are paired. The protocol is ours; Adi et al. (arXiv:1608.04207, section 3) guess bins
    of length with a network.

    Args:
        embeddings: (n, d) float32 or float64.
        labels: (n,) the bin of each row, or the length it was cut to.
        lengths: (n,) tokens of each row.
        seed: of the folds.
        texts: (n,) which text each row is a piece of, each with as many pieces as the others;
            default: each row a text of its own.
        folds: of the cross-validation.

    Raises:
        TypeError, ValueError: rows that are no finite numbers; not one positive length a row, or
            all equal; a row without a label; fewer than two bins, or one of fewer rows than folds
            (which); texts with different numbers of pieces.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = checked_rows(embeddings).astype(np.float64)
    codes, names, units = membership(len(rows), labels, texts)
    known = _checked(codes, names, lengths, folds)
    pieces = np.bincount(units)
    if (pieces != pieces[0]).any():
        raise ValueError(
            f"every text needs as many pieces as the others; they have {pieces.min()} to "
            f"{pieces.max()}: leave out the texts that lack one"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(rows, codes, units))
    ridge = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    predicted = cross_val_predict(ridge, rows, np.log(known), cv=splits)
    right = cross_val_predict(logistic, rows, codes, cv=splits) == codes

    by_text = np.argsort(units, kind="stable").reshape(-1, pieces[0])
    ranks = pd.Series(predicted).rank().to_numpy()
    both = np.hstack([predicted[by_text], np.log(known)[by_text]])
    ranked = np.hstack([ranks[by_text], known[by_text]])
    accuracy = right[by_text].mean(axis=1, keepdims=True)
    return {
        "length_r2": Score("length", "length_r2", both, explained),
        "length_spearman": Score("length", "length_spearman", ranked, rank_correlation),
        "bin_accuracy": Score("length", "bin_accuracy", accuracy, mean),
    }


def chance(labels: Labels) -> float:
    """The accuracy of always guessing the largest bin: what a length probe must beat."""
    codes, _, _ = membership(len(labels), labels, None)
    return float(np.bincount(codes).max() / len(codes))


def explained(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted R^2 (R,) of units (text, predictions then true values of all pieces)."""
    predicted, true = np.hsplit(units, 2)
    true, predicted = true - true.mean(), predicted - true.mean()
    count = weights.sum(axis=1) * true.shape[1]
    errors = weights @ np.square(true - predicted).sum(axis=1)
    about = weights @ np.square(true).sum(axis=1) - (weights @ true.sum(axis=1)) ** 2 / count
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - errors / about


def rank_correlation(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Spearman's rho (R,) of units (text, predictions then true values of all pieces)."""
    predicted, true = np.hsplit(units, 2)
    pairs = np.column_stack([predicted.ravel(), true.ravel()])
    return spearman(pairs, np.repeat(weights, true.shape[1], axis=1))


def _checked(
    codes: np.ndarray, names: list[Hashable], lengths: Sequence[int] | np.ndarray, folds: int
) -> np.ndarray:
    """The lengths as numbers, once lengths and bins can be told apart and held out."""
    known = np.asarray(lengths, dtype=float)
    if known.shape != codes.shape or not (np.isfinite(known) & (known > 0)).all():
        raise ValueError(f"one positive length a row wanted, ({len(codes)},); got {known.shape}")
    if len(names) < 2 or np.ptp(known) == 0:
        raise ValueError(
            f"a length probe needs two bins and two lengths or more; got {names} and lengths "
            f"{known.min():g} to {known.max():g}"
        )
    counts = np.bincount(codes)
    few = [f"{names[b]!r} has {counts[b]}" for b in np.flatnonzero(counts < folds)]
    if few or folds < 2:
        raise ValueError(
            f"{folds} folds need as many rows of each bin, and two folds are the least; "
            f"{', '.join(few)}: take more texts, other edges or fewer folds"
        )
    return known
