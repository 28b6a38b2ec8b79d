"""The mean inner product of two rows of different texts, for every pair of bins, from sums alone.

Cosines and distances between means are functions of it. Intervals are jackknives over groups of
texts: texts that are repeated, as in a bootstrap sample, would look alike.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from lab.collapse.membership import Labels, Texts, membership
from lab.stats.jackknife import Jackknife

LEAST = 4  # texts in a bin: without one group there must be pairs

Pair = tuple[Hashable, Hashable]


@dataclass(frozen=True, eq=False)
class Sums:
    """What the rows of each bin add up to.

    Attributes:
        total: (bin, dim) their sum.
        same: (bin, bin) inner products of rows of the same text, summed.
        shared: (bin, bin) texts that are in both bins.
    """

    total: np.ndarray
    same: np.ndarray
    shared: np.ndarray

    def __add__(self, other: "Sums") -> "Sums":
        """Those of both."""
        return Sums(self.total + other.total, self.same + other.same, self.shared + other.shared)

    def __sub__(self, other: "Sums") -> "Sums":
        """Those of the rows that are not in ``other``, a part of these."""
        return Sums(self.total - other.total, self.same - other.same, self.shared - other.shared)

    @property
    def products(self) -> np.ndarray:
        """(bin, bin) the mean inner product over pairs of rows of different texts."""
        n = np.diag(self.shared)
        return (self.total @ self.total.T - self.same) / (np.outer(n, n) - self.shared)

    @property
    def spread(self) -> np.ndarray:
        """(bin,) the trace of the sample covariance."""
        return np.diag(self.same) / np.diag(self.shared) - np.diag(self.products)


def jackknives(
    function: Callable[[Sums], np.ndarray],
    rows: np.ndarray,
    labels: Labels,
    texts: Texts | None,
    groups: int,
    *,
    within: bool = True,
) -> dict[Pair, Jackknife]:
    """A function of sums, (bin, bin), and what it is without each group of texts, pair by pair.

    Groups are runs of neighbouring texts, the same for all bins, so that whatever is measured on
    the same texts can be subtracted.

    Args:
        function: sums -> (bin, bin) of numbers.
        rows: (n, d) float32 or float64.
        labels: (n,) the bin of each row.
        texts: (n,) which text each row is a piece of; None: each row is a text of its own.
        groups: no more than texts in the smallest bin are made.
        within: also of each bin with itself.

    Raises:
        ValueError: a row without label or text; a bin of fewer than 4 texts (which); two pieces of
            a text in one bin; bins that share texts so that one of them would have fewer than two
            without some group (which); a value that is not finite.
    """
    codes, names, units = membership(len(rows), labels, texts)
    _refuse_bad_bins(codes, names, units)
    owner = _owners(codes, units, min(groups, np.bincount(codes).min()))
    members = [np.flatnonzero(owner == group) for group in range(owner.max() + 1)]
    parts = [_sums(rows[at], codes[at], units[at], len(names)) for at in members]
    whole = sum(parts[1:], parts[0])
    _refuse_crowded_groups(whole, parts, names)
    value, left_out = function(whole), np.stack([function(whole - part) for part in parts])
    shared = np.stack([part.shared for part in parts])
    found = {}
    for a, b in combinations_with_replacement(range(len(names)), 2):
        if a != b or within:
            sizes = (shared[:, a, a] + shared[:, b, b] - shared[:, a, b]).astype(int)
            some = sizes > 0
            pair = names[a], names[b]
            found[pair] = Jackknife(value[a, b], left_out[some, a, b], sizes[some])
    return found


def _refuse_bad_bins(codes: np.ndarray, names: list[Hashable], units: np.ndarray) -> None:
    counts = np.bincount(codes)
    few = [f"{names[b]!r} has {counts[b]}" for b in np.flatnonzero(counts < LEAST)]
    if few:
        raise ValueError(
            f"an interval needs {LEAST} texts or more in each bin; {', '.join(few)}: choose other "
            "edges or take more texts"
        )
    twice = pd.DataFrame({"bin": codes, "text": units}).duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise ValueError(
            f"row {row} is a second piece of its text in bin {names[codes[row]]!r} "
            f"({int(twice.sum())} such); give each bin one piece of a text"
        )


def _owners(codes: np.ndarray, units: np.ndarray, groups: int) -> np.ndarray:
    """(n,) the group of each row, that of its text: runs of neighbours, alike in every bin.

    The smallest bin comes first, so that its texts are spread over all groups.
    """
    owner = np.full(units.max() + 1, -1)
    for code in np.argsort(np.bincount(codes), kind="stable"):
        new = units[(codes == code) & (owner[units] < 0)]
        owner[new] = np.arange(len(new)) * groups // max(1, len(new))
    return owner[units]


def _refuse_crowded_groups(whole: Sums, parts: list[Sums], names: list[Hashable]) -> None:
    """Without any group there must be pairs of texts in every bin."""
    n, grouped = np.diag(whole.shared), np.stack([np.diag(part.shared) for part in parts])
    crowded = np.flatnonzero(n - grouped.max(axis=0) < 2)
    if len(crowded):
        b = crowded[0]
        raise ValueError(
            f"bin {names[b]!r}: {int(grouped[:, b].max())} of its {int(n[b])} texts are in one "
            "group of the jackknife, and without it two or more must be left; the texts that it "
            "shares with other bins put them there: measure fewer bins at once"
        )


def _sums(rows: np.ndarray, codes: np.ndarray, units: np.ndarray, bins: int) -> Sums:
    total, same = np.zeros((bins, rows.shape[1])), np.zeros((bins, bins))
    shared = np.zeros((bins, bins))
    member = [np.flatnonzero(codes == code) for code in range(bins)]
    for a, first in enumerate(member):
        total[a] = rows[first].sum(axis=0, dtype=np.float64)
        for b, second in enumerate(member[a:], a):
            both, i, j = np.intersect1d(units[first], units[second], return_indices=True)
            product = np.einsum("nd,nd->", rows[first[i]], rows[second[j]], dtype=np.float64)
            same[a, b] = same[b, a] = product
            shared[a, b] = shared[b, a] = len(both)
    return Sums(total, same, shared)
