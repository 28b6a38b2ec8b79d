"""Mean, scatter and mean direction of any number of rows: a small state that adds up.

``Moments.of(a) + Moments.of(b)`` are the moments of both, ``whole - part`` those of the rest. Rows
are read in their own precision (float32 or float64), sums are kept in float64, on any device.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

CACHE = 1 << 21  # bytes


@dataclass(eq=False)
class Directions:
    """What the directions of n rows add up to: all that cosines need, in O(n d).

    Attributes:
        n: rows.
        total: (d,) sum of x / norm(x).
        squares: (d,) sum of the squares of x / norm(x).
        zeros: zero vectors, which have no direction.
    """

    n: int
    total: Tensor
    squares: Tensor
    zeros: int

    @classmethod
    def of(cls, rows: Tensor) -> "Directions":
        """Those of some rows (n, d) that are known to be finite floats."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        return cls.by_group(rows, norms, np.zeros(len(rows), dtype=int))[0]

    @classmethod
    def by_group(cls, rows: Tensor, norms: Tensor, owner: np.ndarray) -> dict[int, "Directions"]:
        """The directions of each group; ``owner[i]`` is the group of row i."""
        groups = np.unique(owner)
        member = torch.from_numpy(owner == groups[:, None]).to(rows)
        directions = rows * torch.where(norms > 0, 1 / norms, 0.0)[:, None]
        totals = (member @ directions).double()
        squares = (member @ directions.square_()).double()
        sizes = np.bincount(owner)[groups]
        zeros = (member @ (norms == 0).to(rows)).long().tolist()
        return {
            int(group): cls(int(size), total, square, zero)
            for group, size, total, square, zero in zip(
                groups, sizes, totals, squares, zeros, strict=True
            )
        }

    @property
    def d(self) -> int:
        """The width of the rows."""
        return len(self.total)

    @property
    def directions(self) -> "Directions":
        """These; measures of directions read them from :class:`Moments` likewise."""
        return self

    def copy(self) -> "Directions":
        """The same numbers in tensors of their own."""
        return Directions(self.n, self.total.clone(), self.squares.clone(), self.zeros)

    def __iadd__(self, other: "Directions") -> Self:
        """Those of both, in place."""
        self.n += other.n
        self.total += other.total
        self.squares += other.squares
        self.zeros += other.zeros
        return self

    def __sub__(self, part: "Directions") -> "Directions":
        """Those of the rows that are not in ``part``."""
        return Directions(
            self.n - part.n,
            self.total - part.total,
            self.squares - part.squares,
            self.zeros - part.zeros,
        )


@dataclass(eq=False)
class Moments:
    """What n rows of width d add up to.

    Attributes:
        n: rows.
        mean: (d,) their mean.
        scatter: (d, d) sum of (x - mean)(x - mean)^T.
        directions: what their directions add up to.
        eps: relative rounding of the rows: that of float32 or float64.
    """

    n: int
    mean: Tensor
    scatter: Tensor
    directions: Directions
    eps: float

    @classmethod
    def of(
        cls, rows: Tensor, directions: Directions | None = None, room: "Room | None" = None
    ) -> "Moments":
        """The moments of some rows (n, d), n >= 1, that are known to be finite floats.

        ``directions`` if they are known already, ``room`` to work in if there is some.
        """
        directions = Directions.of(rows) if directions is None else directions
        # Taken about a row: squares of a large mean would swallow the variance in float32.
        shifted = (room or Room()).like(rows)
        total = torch.zeros_like(rows[0], dtype=torch.float64)
        for block, ready in zip(in_cache(rows), in_cache(shifted), strict=True):
            torch.sub(block, rows[0], out=ready)
            total += block.new_ones(len(block)) @ ready
        step = total / len(rows)
        scatter = _gram(shifted).double()
        return cls(
            n=len(rows),
            mean=rows[0].double() + step,
            scatter=scatter.addr_(step, step, alpha=-len(rows)),
            directions=directions,
            eps=torch.finfo(rows.dtype).eps,
        )

    @property
    def d(self) -> int:
        """The width of the rows."""
        return len(self.mean)

    def copy(self) -> "Moments":
        """The same numbers in tensors of their own."""
        return Moments(
            self.n, self.mean.clone(), self.scatter.clone(), self.directions.copy(), self.eps
        )

    def __iadd__(self, other: "Moments") -> Self:
        """The moments of both, in place (Chan, Golub & LeVeque 1983, Am. Statistician 37)."""
        self.__dict__.pop("spectrum", None)
        self.__dict__.pop("uncentred_spectrum", None)
        step = other.mean - self.mean
        n = self.n + other.n
        self.scatter += other.scatter
        self.scatter.addr_(step, step, alpha=self.n * other.n / n)
        self.mean += step * (other.n / n)
        self.directions += other.directions
        self.eps = max(self.eps, other.eps)
        self.n = n
        return self

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both."""
        whole = self.copy()
        whole += other
        return whole

    def __sub__(self, part: "Moments") -> "Moments":
        """The moments of the rows that are not in ``part``, a proper part of these."""
        n = self.n - part.n
        mean = self.mean + (self.mean - part.mean) * (part.n / n)
        step = mean - part.mean
        scatter = (self.scatter - part.scatter).addr_(step, step, alpha=-n * part.n / self.n)
        return Moments(n, mean, scatter, self.directions - part.directions, self.eps)

    @property
    def covariance(self) -> Tensor:
        """(d, d) the sample covariance, over n - 1."""
        return self.scatter / (self.n - 1)

    @cached_property
    def spectrum(self) -> np.ndarray:
        """(d,) eigenvalues of the covariance, largest first; those below rounding are zero."""
        return _eigenvalues(self.scatter) / (self.n - 1)

    @cached_property
    def uncentred_spectrum(self) -> np.ndarray:
        """(d,) eigenvalues of X^T X, largest first: squared singular values of the rows."""
        return _eigenvalues(torch.addr(self.scatter, self.mean, self.mean, alpha=self.n))


class Room:
    """Memory that is used again: to have fresh pages mapped costs as much as to fill them."""

    def __init__(self) -> None:
        self._kept = torch.empty(0)

    def like(self, rows: Tensor) -> Tensor:
        """An array of the shape, type and place of ``rows``; what it held before is gone."""
        kept = self._kept
        same = kept.dtype == rows.dtype and kept.device == rows.device
        if not same or kept.numel() < rows.numel():
            self._kept = torch.empty_like(rows).flatten()
        return self._kept[: rows.numel()].view(rows.shape)


def in_cache(rows: Tensor) -> tuple[Tensor, ...]:
    """The rows in blocks that stay in a processor's cache from one operation to the next."""
    return rows.split(max(1, CACHE // (rows.shape[1] * rows.element_size())))


def _gram(rows: Tensor) -> Tensor:
    """rows^T rows; on a CPU by numpy, which does half the work (syrk) where torch does all."""
    if rows.device.type != "cpu":
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


def _eigenvalues(matrix: Tensor) -> np.ndarray:
    """Eigenvalues of a positive semidefinite matrix, largest first, rounding errors as zeros."""
    values = np.linalg.eigvalsh(matrix.cpu().numpy())[::-1]
    return np.where(values > values[0] * len(values) * np.finfo(float).eps, values, 0.0)
