"""Length collapse as it shows in embeddings: how alike texts of a bin are, how far bins are apart.

Rows (n, d) come with the label of their bin: texts of several lengths, or the same texts cut to
several (:mod:`lab.collapse.cutting`). In the second case ``texts`` says which text each row is a
piece of: the texts are the units, and a text is never compared with itself.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lab import results
from lab.anisotropy.rows import checked_rows, unit_rows
from lab.anisotropy.stream import GROUPS
from lab.collapse.legibility import chance, length_probe
from lab.collapse.membership import Labels, Texts
from lab.collapse.products import Pair, Sums, jackknives
from lab.stats import Comparison, bootstrap_weights, interval
from lab.stats.jackknife import Jackknife


def similarity_by_length(
    embeddings: np.ndarray,
    labels: Labels,
    *,
    texts: Texts | None = None,
    groups: int = GROUPS,
) -> dict[Pair, Jackknife]:
    """The mean cosine within each bin, at (bin, bin), and between any two, at (bin, other).

    Over all pairs of different texts, exact in O(n d): (norm(sum of u)^2 - n) / (n (n - 1)) within
    a bin of n unit vectors u, mean . mean between bins without a text in common. Bins come in the
    order of their categories, else of their first row. Groups are runs of neighbouring texts, so
    texts that depend on their neighbours make intervals wider.

    Jackknives subtract: (longest, longest) - (shortest, shortest) is how much similarity grew, one
    setting's minus another's what it changed; :func:`compared` tests that.

    Args:
        embeddings: (n, d) float32 or float64.
        labels: (n,) the bin of each row.
        texts: (n,) which text each row is a piece of; default: each row a text of its own.
        groups: of the jackknife; no more than texts in the smallest bin are made.

    Raises:
        TypeError, ValueError: rows that are no finite numbers, or zero; a row without label; a bin
            of fewer than 4 texts (which); a text twice in a bin.
    """
    rows = unit_rows(checked_rows(embeddings))
    return jackknives(lambda sums: sums.products, rows, labels, texts, groups)


def bin_shift(
    embeddings: np.ndarray,
    labels: Labels,
    *,
    texts: Texts | None = None,
    relative: bool = False,
    groups: int = GROUPS,
) -> dict[Pair, Jackknife]:
    """The squared Euclidean distance between the means of any two bins, without the bias of noise.

    norm(mean_a - mean_b)^2 - tr(cov_a) / n_a - tr(cov_b) / n_b for different texts, norm(mean of
    a - b)^2 - tr(cov of a - b) / n for the same ones: zero on average where the bins differ in
    nothing, negative half of the time then, and not clipped. ``relative``: divided by the mean of
    tr(cov_a) and tr(cov_b). Embeddings are taken as they are; bring them to unit norm first if only
    directions matter. Where there is next to no shift the estimate is skewed and its interval
    conservative: up to about 1.5 times too wide.

    Args:
        embeddings: (n, d) float32 or float64.
        labels: (n,) the bin of each row.
        texts: (n,) which text each row is a piece of; default: each row a text of its own.
        relative: to the spread within the bins.
        groups: of the jackknife.

    Raises:
        TypeError, ValueError: as :func:`similarity_by_length`; a single bin; relative to bins
            without any spread.
    """

    def distance(sums: Sums) -> np.ndarray:
        products, spread = sums.products, sums.spread
        found = np.add.outer(np.diag(products), np.diag(products)) - 2 * products
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * found / np.add.outer(spread, spread) if relative else found

    found = jackknives(distance, checked_rows(embeddings), labels, texts, groups, within=False)
    if not found:
        raise ValueError("a shift is between two bins or more; all rows have one label")
    return found


def compared(one: Jackknife, other: Jackknife, level: float = 0.95) -> Comparison:
    """``one`` minus ``other`` on the same groups of texts, with interval and p by Student's t.

    Two lengths of the same texts, or two settings at one length. ``effect``: the difference over
    (standard error x sqrt(n)). The test is parametric: ``p_min`` is 0.

    Raises:
        ValueError: other groups, so nothing is paired; level outside (0, 1).
    """
    gap = one - other
    low, high = map(float, gap.interval(level))
    difference, error = float(gap.value), float(gap.standard_error) * math.sqrt(gap.n)
    effect = 0.0 if difference == 0 else math.copysign(math.inf, difference)
    effect = difference / error if error > 0 else effect
    return Comparison(difference, low, high, float(gap.p()), 0.0, effect, gap.n, "jackknife t")


def tabulate(
    embeddings: np.ndarray,
    labels: Labels,
    lengths: Sequence[int] | np.ndarray,
    *,
    rng: np.random.Generator,
    seed: int,
    texts: Texts | None = None,
    resamples: int = 2000,
    **about: Any,
) -> pd.DataFrame:
    """The tidy table of the phenomenon: similarity, shift and legibility of length, with intervals.

    Probe "length"; metrics average_cosine, bin_shift, relative_bin_shift, those of
    :func:`lab.collapse.legibility.length_probe` and the accuracy of chance. The label of a bin goes
    to the column "bin", that of a cut, a whole number, to "length", both of a pair to "bin" as
    "a | b".

    Args:
        embeddings: (n, d) float32 or float64.
        labels: (n,) the bin of each row, or the length it was cut to.
        lengths: (n,) tokens of each row.
        texts: (n,) which text each row is a piece of; default: each row a text of its own.
        rng: resamples texts for the intervals of the length probe.
        seed: of its folds.
        resamples: of its intervals.
        **about: further columns, such as those of ``space.settings`` and dataset.

    Raises:
        TypeError, ValueError: as the functions above.
    """
    rows: list[dict[str, Any]] = []
    measured = {
        "average_cosine": similarity_by_length(embeddings, labels, texts=texts),
        "bin_shift": bin_shift(embeddings, labels, texts=texts),
        "relative_bin_shift": bin_shift(embeddings, labels, texts=texts, relative=True),
    }
    for metric, found in measured.items():
        for pair, one in found.items():
            low, high = map(float, one.interval())
            value = {"value": float(one.value), "low": low, "high": high, "n": one.n}
            rows.append({"metric": metric, **_place(pair), **value})
    scores = length_probe(embeddings, labels, lengths, seed=seed, texts=texts)
    weights = bootstrap_weights(next(iter(scores.values())).n, resamples, rng)
    for metric, score in scores.items():
        read = interval(score, weights)
        value = {"value": read.value, "low": read.low, "high": read.high, "n": read.n}
        rows.append({"metric": metric, **value})
    rows.append({"metric": "bin_accuracy_of_chance", "value": chance(labels)})
    common = {"probe": "length", "dim": embeddings.shape[1], "seed": seed, **about}
    return results.table({**common, **row} for row in rows)


def _place(pair: Pair) -> dict[str, Any]:
    first, second = pair
    if first != second:
        return {"bin": f"{first} | {second}"}
    return {"length" if isinstance(first, int) else "bin": first}
