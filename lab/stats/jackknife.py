"""The delete-a-group jackknife: intervals for statistics that repeated rows would distort.

A bootstrap sample repeats rows, and repeated rows look like a narrower space (or like neighbours at
distance zero). Leaving a group out repeats nothing, needs one evaluation a group, and works on
merged state. Two settings are paired by sharing the groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lab.stats.significance import tail


@dataclass(frozen=True, eq=False)
class Jackknife:
    """A statistic of n units, and what it is without each group of them in turn.

    Attributes:
        value: the statistic of all units, a number or an array.
        left_out: (groups, ...) the statistic without each group.
        sizes: (groups,) how many units each group has.
    """

    value: np.ndarray
    left_out: np.ndarray = field(repr=False)
    sizes: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what gives no interval."""
        if len(self.sizes) < 2 or len(self.left_out) != len(self.sizes) or self.sizes.min() < 1:
            raise ValueError(
                f"a jackknife needs two groups or more, none empty, and one value for each; got "
                f"sizes {self.sizes.tolist()} and {len(self.left_out)} values"
            )
        if not (np.isfinite(self.value).all() and np.isfinite(self.left_out).all()):
            raise ValueError(
                f"a jackknife needs finite values; got {self.value}, and without one group each "
                f"{self.left_out}"
            )

    @property
    def n(self) -> int:
        """How many units there are."""
        return int(self.sizes.sum())

    @property
    def standard_error(self) -> np.ndarray:
        """The standard error for groups of unequal size, shaped like ``value``.

        Busing, Meijer & van der Leeden 1999 (Statistics and Computing 9), delete-m_j jackknife.
        """
        groups = len(self.sizes)
        share = (self.sizes / self.n).reshape(-1, *[1] * np.ndim(self.value))
        pseudo = self.value / share - (1 / share - 1) * self.left_out
        centre = groups * self.value - ((1 - share) * self.left_out).sum(0)
        return np.sqrt(((pseudo - centre) ** 2 / (1 / share - 1)).mean(0))

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of the interval by Student's t on (groups - 1) degrees of freedom.

        Raises:
            ValueError: level outside (0, 1).
        """
        from scipy.stats import t

        half = t.ppf(1 - tail(level), len(self.sizes) - 1) * self.standard_error
        return self.value - half, self.value + half

    def p(self, hypothesis: float = 0.0) -> np.ndarray:
        """The two-sided p of Student's t on (groups - 1) degrees of freedom; 1 for no difference.

        The test is parametric, so there is no smallest attainable p; without any spread it is 0.
        """
        from scipy.stats import t

        error = self.standard_error
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(self.value - hypothesis) / error
        return np.where(error > 0, 2 * t.sf(ratio, len(self.sizes) - 1), 1.0 * (ratio != np.inf))

    def __sub__(self, other: "Jackknife") -> "Jackknife":
        """The paired difference of two settings measured on the same units in the same groups.

        Raises:
            ValueError: the groups differ, so nothing is paired.
        """
        if not np.array_equal(self.sizes, other.sizes):
            raise ValueError(
                f"a paired difference needs the same units in the same groups; got {self.n} units "
                f"in {len(self.sizes)} groups and {other.n} in {len(other.sizes)}"
            )
        return Jackknife(self.value - other.value, self.left_out - other.left_out, self.sizes)


def jackknife(value: float, left_out: Sequence[float], sizes: Sequence[int]) -> Jackknife:
    """A :class:`Jackknife` of plain numbers."""
    return Jackknife(np.asarray(value, float), np.asarray(left_out, float), np.asarray(sizes, int))
