"""Measures of the states of tokens: how contextual they are, and how much of a text they share.

Ethayarajh 2019 (arXiv:1909.00512, "How Contextual are Contextualized Word Representations?"),
section 3, and the energy of a text's mean state. Pure functions of arrays (n, d);
:mod:`lab.anisotropy.contextual` reads the states of a model.

An anisotropic layer makes everything similar, so he subtracts what random words of the layer show
(section 3.4): the average cosine from self-similarity and intra-sentence similarity, the share of
their first component from the maximum explainable variance. See :func:`adjusted`.
"""

import numpy as np

from lab.anisotropy.rows import checked_rows, unit_rows
from lab.stats import Interval, Score
from lab.stats.significance import tail


def self_similarity(occurrences: np.ndarray) -> float:
    """SelfSim: the mean cosine over all pairs j != k of occurrences of one word; identical: 1.

    (norm(sum of u)^2 - n) / (n (n - 1)), exact and without pairs. Definition 1 of the paper; its
    code samples 1000 of the pairs where there are more.

    Args:
        occurrences: (n, d) states of the word in n >= 2 contexts.

    Raises:
        TypeError: integers, half precision, no numpy array.
        ValueError: fewer than two occurrences; NaN, infinity or a zero vector (which occurrence).
    """
    units = _unit(occurrences, "occurrence", least=2)
    return float(_mean_cosine(units, np.ones((1, len(units))))[0])


def intra_sentence_similarity(tokens: np.ndarray) -> float:
    """IntraSim: the mean cosine of the tokens of a text with their mean vector; one token: 1.

    Definition 2 of the paper. The mean is of the tokens as given, not at unit norm. It holds each
    token once, so n orthogonal tokens of one length give 1 / sqrt(n), which no baseline takes away:
    compare texts of one length.

    Args:
        tokens: (n, d) states of the tokens of one text.

    Raises:
        TypeError: integers, half precision, no numpy array.
        ValueError: NaN, infinity or a zero vector (which token); a mean of zero.
    """
    units = _unit(tokens, "token")
    mean = tokens.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(mean)
    if length <= np.finfo(np.float64).eps * np.abs(tokens).max():
        raise ValueError(f"the mean of the {len(tokens)} tokens is zero and has no direction")
    return float((units @ mean).mean() / length)


def maximum_explained_variance(occurrences: np.ndarray, *, centred: bool = False) -> float:
    """MEV: the share of the energy of a word's occurrences along their first component.

    sigma_1^2 / sum of sigma_i^2, between 1 / min(n, d) and 1; 1 if one static vector explains all
    occurrences up to their length. Definition 3 of the paper, whose singular values are those of
    the occurrences as they are. Its code takes scikit-learn's ``PCA``, which centres them first:
    ``centred=True``, another number, and a small one where the mean is what they share. Few
    occurrences give large values: compare at equal n.

    Args:
        occurrences: (n, d) states of the word in n >= 2 contexts.
        centred: subtract the mean of the occurrences first.

    Raises:
        TypeError: integers, half precision, no numpy array.
        ValueError: fewer than two occurrences; NaN or infinity (which occurrence); all zero or,
            centred, all equal.
    """
    along, energy = _first_component(occurrences, "occurrence", centred).sum(axis=0)
    return float(along / energy)


def hc_energy(tokens: np.ndarray) -> float:
    """The share of the energy of a text's tokens that is not in their mean, 0 to 1.

    norm(J X)^2 / norm(X)^2 with J = I - 11^T / n, Frobenius norms: identical tokens 0, tokens of
    mean zero 1. Random tokens give (n - 1) / n, so compare texts of one length only.

    Args:
        tokens: (n, d) states of the tokens of one text.

    Raises:
        TypeError: integers, half precision, no numpy array.
        ValueError: NaN or infinity (which token); all tokens zero.
    """
    states = checked_rows(tokens, "token").astype(np.float64, copy=False)
    energy = np.square(states).sum()
    if energy == 0:
        raise ValueError(f"all {len(states)} tokens are zero vectors; there is no energy to share")
    return float(np.square(states - states.mean(axis=0)).sum() / energy)


def dc_energy(tokens: np.ndarray) -> float:
    """The share of the energy of a text's tokens that is in their mean: 1 - :func:`hc_energy`."""
    return 1 - hc_energy(tokens)


def random_word_cosine(occurrences: np.ndarray) -> Score:
    """The average cosine of random words, to subtract from SelfSim and IntraSim; unit: a word.

    Section 3.4, equation 4 of the paper: words drawn at random, from different texts. Pairs of a
    word with itself are left out, also in a resample; the paper's code, which draws pairs with
    replacement, includes them.

    Args:
        occurrences: (n, d) states of random words, n >= 2.

    Raises:
        TypeError, ValueError: as :func:`self_similarity`.
    """
    units = _unit(occurrences, "random word", least=2)
    return Score("contextual", "random_word_cosine", units, _mean_cosine)


def random_word_variance(occurrences: np.ndarray, *, centred: bool = False) -> Score:
    """The MEV of random words, to subtract from that of one word; unit: a word.

    Section 3.4 of the paper. A unit holds the energy along the first component and all energy, so
    resampling keeps that component fixed: right to first order. (The paper's code gives the
    baseline yet another form, the variance of uncentred scores over the total variance.)

    Args:
        occurrences: (n, d) states of random words, n >= 2.
        centred: subtract their mean first, as for the MEV it is subtracted from.

    Raises:
        TypeError, ValueError: as :func:`maximum_explained_variance`.
    """
    units = _first_component(occurrences, "random word", centred)
    return Score("contextual", "random_word_variance", units, _ratio)


def adjusted(
    score: Score,
    baseline: Score,
    weights: np.ndarray,
    baseline_weights: np.ndarray,
    level: float = 0.95,
) -> Interval:
    """The score minus its anisotropy baseline, with the percentile interval of the difference.

    Both are resampled, independently: the words that are measured and the random words are
    different samples. ``n`` is that of the score.

    Args:
        score: of words or texts.
        baseline: of random words.
        weights: (R, n) of ``lab.stats.bootstrap_weights`` for the units of the score.
        baseline_weights: (R, m) for those of the baseline.
        level: coverage of the interval.

    Raises:
        ValueError: weights of other units, or of different numbers of resamples; a bad level.
    """
    sizes = (len(weights), score.n), (len(weights), baseline.n)
    if (weights.shape, baseline_weights.shape) != sizes:
        raise ValueError(
            f"weights (R, {score.n}) and baseline weights (R, {baseline.n}) wanted; got "
            f"{weights.shape} and {baseline_weights.shape}"
        )
    outside = tail(level)
    draws = score.statistic(score.units, weights)
    draws = draws - baseline.statistic(baseline.units, baseline_weights)
    low, high = np.quantile(draws, [outside, 1 - outside])
    value = score.value - baseline.value
    return Interval(value, float(low), float(high), score.n, len(weights))


def _first_component(states: np.ndarray, what: str, centred: bool) -> np.ndarray:
    """(n, 2) the energy of each row along the first right singular vector, and all its energy."""
    from scipy.linalg import eigh

    rows = _at_least(checked_rows(states, what), 2).astype(np.float64, copy=False)
    rows = rows - rows.mean(axis=0) if centred else rows
    energy = np.square(rows).sum(axis=1)
    if energy.sum() <= rows.size * (np.finfo(np.float64).eps * np.abs(states).max()) ** 2:
        alike = "equal" if centred else "zero vectors"
        raise ValueError(f"all {len(rows)} {what}s are {alike}; there is no variance to explain")
    wide = rows.shape[1] > len(rows)
    gram = rows @ rows.T if wide else rows.T @ rows
    vector = eigh(gram, subset_by_index=[len(gram) - 1] * 2)[1][:, 0]
    first = rows.T @ vector if wide else vector
    along = np.square(rows @ (first / np.linalg.norm(first)))
    return np.column_stack([along, energy])


def _mean_cosine(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean cosine over pairs of different units, for every row of weights."""
    total = np.square(weights @ units).sum(axis=1)
    own = np.square(weights).sum(axis=1)
    return (total - own) / (weights.sum(axis=1) ** 2 - own)


def _ratio(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted sum of the first column over that of the second."""
    along, energy = (weights @ units).T
    return along / energy


def _unit(states: np.ndarray, what: str, least: int = 1) -> np.ndarray:
    return unit_rows(_at_least(checked_rows(states, what), least), what)


def _at_least(states: np.ndarray, least: int) -> np.ndarray:
    if len(states) < least:
        raise ValueError(f"pairs of occurrences need {least} or more; got {len(states)}")
    return states
