"""One pass over any number of rows: every measure with its interval, in a few hundred MB.

Rows fall into groups by their number. A group keeps its moments, so leaving it out is a subtraction
and the interval a jackknife; measures that need rows read a random sample, drawn in the same pass.
Group and sample depend on a row's number only: chunks may be cut anywhere, and two halves merged
are the whole.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.anisotropy.measure import MEASURES, MOMENTS, ROWS, Measure
from lab.anisotropy.moments import Directions, Moments, Room, in_cache
from lab.anisotropy.rows import Rows
from lab.stats.jackknife import Jackknife

GROUPS, SAMPLE = 20, 2000
PIECE = 3 << 23  # bytes that are read together
LONGEST = 12  # a group's runs of neighbouring rows grow 1, 2, 4, ... 2^12 rows long
FLOATS = (np.float32, np.float64)

Source = np.ndarray | Tensor | str | Path | Iterable[np.ndarray]


class Stream:
    """Moments by group and a random sample of the rows seen so far.

    Memory is groups x d^2 x 8 bytes, and the sample. The runs of rows that a group takes grow with
    the stream, so any number of rows fills the groups evenly to a factor of two or three. Rows that
    depend on their neighbours (sorted by topic, cut from one document) make the groups differ, and
    the intervals wider, as they should.

    Args:
        unit: bring every row to unit norm first.
        centre: (d,) subtracted from every row first; its own uncertainty is not in any interval.
        covariance: False keeps directions only, which takes O(n d) instead of O(n d^2).
        groups: of the jackknife; intervals use Student's t on groups - 1 degrees of freedom.
        sample: rows kept for the measures that read rows; 0 for none.
        seed: of the sample.
        start: number of the first row, for a part of a larger whole that is merged later.
        device: where the arithmetic runs.
    """

    def __init__(
        self,
        *,
        unit: bool = False,
        centre: np.ndarray | None = None,
        covariance: bool = True,
        groups: int = GROUPS,
        sample: int = SAMPLE,
        seed: int = 0,
        start: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if groups < 2 or sample < 0:
            raise ValueError(f"two groups or more, no negative sample; got {groups=}, {sample=}")
        self.unit, self.centre, self.seed, self.sample = unit, centre, seed, sample
        self.covariance, self.device, self.row = covariance, torch.device(device), start
        self.groups: list[Any] = [None] * groups  # Moments, or Directions without covariance
        self._rooms = Room(), Room()
        self._spans: list[tuple[int, int]] = []
        self._keys = np.empty(0, dtype=np.uint64)
        self._numbers = np.empty(0, dtype=np.int64)
        self._kept: np.ndarray | None = None

    @property
    def form(self) -> str:
        """What was done to the rows before measuring: raw, centred, unit or centred unit."""
        names = ["centred"] * (self.centre is not None) + ["unit"] * self.unit
        return " ".join(names) or "raw"

    @property
    def filled(self) -> list[Any]:
        """The moments of the groups that have rows."""
        return [group for group in self.groups if group is not None]

    @property
    def n(self) -> int:
        """Rows seen."""
        return sum(group.n for group in self.filled)

    @property
    def total(self) -> Any:
        """The moments (or directions) of all rows.

        Raises:
            ValueError: no row was seen.
        """
        if not self.filled:
            raise ValueError("no rows yet: update(chunk) first")
        whole = self.filled[0].copy()
        for group in self.filled[1:]:
            whole += group
        return whole

    def update(self, chunk: np.ndarray | Tensor) -> "Stream":
        """This stream, with the rows (n, d) of one more chunk.

        Raises:
            TypeError: no array of float32 or float64.
            ValueError: not two-dimensional, another width, NaN, infinite or, where rows are brought
                to unit norm, zero: the message gives the row's number. Nothing of the chunk's
                remaining rows is taken.
        """
        width = self.filled[0].d if self.filled else None
        checked = check_rows(chunk, width=width)
        if self.centre is not None and np.shape(self.centre) != (checked.shape[1],):
            raise ValueError(f"centre is {np.shape(self.centre)}, rows are {checked.shape[1]} wide")
        with _one_torch_thread():
            for piece in checked.split(_rows_of(checked.shape[1], checked.dtype.itemsize)):
                self._take(piece)
        return self

    def _take(self, piece: Tensor) -> None:
        piece = piece.to(self.device)
        numbers = np.arange(self.row, self.row + len(piece))
        owner = _group(numbers, len(self.groups))
        if self.unit or self.centre is not None:
            piece = self._rooms[0].like(piece).copy_(piece)
        found: dict[int, Directions] = {}
        at = 0
        for block in in_cache(piece):
            norms = self._prepare(block, self.row + at)
            mine = owner[at : at + len(block)]
            for group, directions in Directions.by_group(block, norms, mine).items():
                if group in found:
                    found[group] += directions
                else:
                    found[group] = directions
            at += len(block)
        for group, directions in found.items():
            moments: Any = directions
            if self.covariance:
                moments = Moments.of(
                    _select(piece, np.flatnonzero(owner == group)), directions, self._rooms[1]
                )
            self._absorb(group, moments)
        if self.sample:
            self._draw(piece, numbers)
        if self._spans and self._spans[-1][1] == self.row:
            self._spans[-1] = (self._spans[-1][0], self.row + len(piece))
        else:
            self._spans.append((self.row, self.row + len(piece)))
        self.row += len(piece)

    def _absorb(self, group: int, found: Any) -> None:
        if self.groups[group] is None:
            self.groups[group] = found
        else:
            self.groups[group] += found

    def _prepare(self, rows: Tensor, first: int) -> Tensor:
        """The norms of the rows, once these were brought, in place, to the form measured."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        _refuse(~norms.isfinite(), first, "is not finite (or its norm overflows)")
        if self.centre is not None:
            rows -= torch.as_tensor(self.centre, dtype=rows.dtype, device=rows.device)
            norms = torch.linalg.vector_norm(rows, dim=1)
        if self.unit:
            _refuse(norms == 0, first, "is a zero vector, which has no direction")
            rows /= norms[:, None]
            norms = torch.ones_like(norms)
        return norms

    def _draw(self, rows: Tensor, numbers: np.ndarray) -> None:
        """Keep the rows with the smallest keys: a sample without replacement that merges."""
        keys = _key(numbers, self.seed)
        if len(self._keys) == self.sample:
            chosen = np.flatnonzero(keys < self._keys[-1])
        else:
            chosen = np.arange(len(keys))
        self._keep(keys[chosen], numbers[chosen], _select(rows, chosen).cpu().numpy())

    def _keep(self, keys: np.ndarray, numbers: np.ndarray, rows: np.ndarray) -> None:
        if not len(keys):
            return
        keys = np.concatenate([self._keys, keys])
        numbers = np.concatenate([self._numbers, numbers])
        rows = rows if self._kept is None else np.concatenate([self._kept, rows])
        order = np.argsort(keys)[: self.sample]
        self._keys, self._numbers, self._kept = keys[order], numbers[order], rows[order]

    def merge(self, other: "Stream") -> "Stream":
        """This stream with the rows of ``other``, which saw another part of the same whole.

        Raises:
            ValueError: other options, centre or width; rows of one number in both.
        """
        if self._options() != other._options() or not np.array_equal(
            np.asarray(self.centre), np.asarray(other.centre)
        ):
            raise ValueError(
                "streams merge if form, centre, covariance, groups, sample and seed are the same; "
                f"got {self._options()} and {other._options()}"
            )
        if not other.filled:
            return self
        if self.filled and self.filled[0].d != other.filled[0].d:
            raise ValueError(f"widths {self.filled[0].d} and {other.filled[0].d} do not merge")
        for first, last in self._spans:
            for start, stop in other._spans:
                if max(first, start) < min(last, stop):
                    raise ValueError(
                        f"both streams saw rows {max(first, start)} to {min(last, stop) - 1}; give "
                        "the second one start=, the number of its first row in the whole"
                    )
        for number, group in enumerate(other.groups):
            if group is not None:
                self._absorb(number, group.copy())
        if other._kept is not None:
            self._keep(other._keys, other._numbers, other._kept)
        self._spans = sorted(self._spans + other._spans)
        self.row = max(self.row, other.row)
        return self

    def _options(self) -> tuple[object, ...]:
        """What must be the same in streams that are compared or merged."""
        return self.form, self.covariance, len(self.groups), self.sample, self.seed

    def paired_with(self, other: "Stream") -> None:
        """Nothing, if both streams saw rows of the same numbers and sampled the same.

        Raises:
            ValueError: they did not, so nothing is paired.
        """
        mine, theirs = ([g.n for g in s.filled] for s in (self, other))
        if mine != theirs or not np.array_equal(self._numbers, other._numbers):
            raise ValueError(
                "a paired difference needs the same units in the same groups and one sample of "
                f"rows; got {self.n} rows and {other.n}, seeds {self.seed} and {other.seed}"
            )

    @property
    def rows(self) -> Rows:
        """The sample of rows, in an order that only the seed decides.

        Raises:
            ValueError: no row was seen.
        """
        if self._kept is None:
            raise ValueError("no rows were sampled: update(chunk) first, with sample above 0")
        return Rows(self._kept, self._numbers)

    def jackknife(self, measures: Sequence[str]) -> dict[str, Jackknife]:
        """Each measure with its value and what it is without each group; see :func:`jackknives`."""
        chosen = {name: MEASURES[name] for name in measures}
        for name, one in chosen.items():
            if one.unit_only and not self.unit:
                raise ValueError(f"{name} is defined for rows of unit norm; use form='unit'")
            if one.reads == MOMENTS and not self.covariance:
                raise ValueError(f"{name} reads the covariance, which this stream left out")
        of_rows = {name: one for name, one in chosen.items() if one.reads == ROWS}
        others = {name: one for name, one in chosen.items() if one.reads != ROWS}
        found = self.of_moments(others) if others else {}
        found |= self._of_rows(of_rows) if of_rows else {}
        return {name: found[name] for name in measures}

    def of_moments(self, functions: Mapping[str, Callable[[Any], Any]]) -> dict[str, Jackknife]:
        """Functions of moments, numbers or arrays (the spectrum, say), over leave-one-group-out.

        Raises:
            ValueError: fewer than four rows; whatever a function refuses.
        """
        filled, total = self.filled, self.total
        if total.n < 4:
            raise ValueError(f"an interval needs four rows or more; got {total.n}")
        values = {name: function(total) for name, function in functions.items()}
        left_out: dict[str, list[Any]] = {name: [] for name in functions}
        for group in filled:
            rest = total - group
            for name, function in functions.items():
                left_out[name].append(function(rest))
        sizes = np.array([group.n for group in filled])
        return {
            name: Jackknife(np.asarray(values[name]), np.asarray(left_out[name]), sizes)
            for name in functions
        }

    def _of_rows(self, measures: dict[str, Measure]) -> dict[str, Jackknife]:
        rows = self.rows
        n = len(rows)
        if n < 4:
            raise ValueError(f"an interval needs four rows or more; got {n}")
        owner = np.arange(n) % min(len(self.groups), n)
        everything = np.ones(n, dtype=bool)
        sizes = np.bincount(owner)
        found = {}
        for name, measure in measures.items():
            try:
                value = measure(rows, everything)
                left_out = [measure(rows, owner != group) for group in range(len(sizes))]
            except ValueError as error:
                raise ValueError(f"{name}: {error}; or leave {name} out of measures=") from None
            found[name] = Jackknife(np.asarray(value), np.asarray(left_out), sizes)
        return found


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Torch on one thread: numpy's matrix products keep all of theirs awake between two of them.

    Threads of torch's beside those would only wait (benchmarks/anisotropy.py: 2.0 became 1.7).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _refuse(bad: Tensor, first: int, why: str) -> None:
    """Raise if some rows are bad; ``first`` is the number of the first of them."""
    if bad.any():
        row = first + int(bad.nonzero()[0])
        raise ValueError(f"row {row} {why}; {int(bad.sum())} such in rows {first} and on")


def check_rows(rows: np.ndarray | Tensor, *, width: int | None = None) -> Tensor:
    """The rows (n, d) as a tensor, once type and shape are known to be right.

    Raises:
        TypeError: no array, or neither float32 nor float64.
        ValueError: not two-dimensional, empty, or not ``width`` wide.
    """
    if not isinstance(rows, np.ndarray | Tensor):
        raise TypeError(f"rows are an array (n, d); got {type(rows).__name__}")
    name = str(rows.dtype).removeprefix("torch.")
    if name not in ("float32", "float64"):
        raise TypeError(
            f"rows are float32 or float64; got {name}: convert them and know what is lost, "
            "rows.astype('float32') or rows.float()"
        )
    if rows.ndim != 2 or not rows.shape[0] or not rows.shape[1]:
        raise ValueError(f"rows are (n, d), n and d at least 1; got {tuple(rows.shape)}")
    if width is not None and rows.shape[1] != width:
        raise ValueError(f"this chunk is {rows.shape[1]} wide; the rows before it were {width}")
    if isinstance(rows, Tensor):
        return rows.detach()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes
        return torch.from_numpy(np.ascontiguousarray(rows))


def chunks(source: Source) -> Iterator[np.ndarray | Tensor]:
    """The rows of an array, of an ``.npy`` file or of an iterable of chunks, piece by piece.

    Files are read, not mapped, so that memory holds one piece.

    Raises:
        ValueError: a file that is no ``.npy`` file in C order.
    """
    if isinstance(source, str | Path):
        yield from _file(Path(source))
    elif isinstance(source, np.ndarray | Tensor):
        yield source
    else:
        yield from source


def _file(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
        except ValueError as error:
            raise ValueError(f"{path} is no .npy file: {error}") from None
        if fortran or len(shape) != 2:
            raise ValueError(f"{path} holds {shape} (Fortran order: {fortran}); wanted rows (n, d)")
        rows = _rows_of(shape[1], dtype.itemsize)
        for at in range(0, shape[0], rows):
            count = min(rows, shape[0] - at) * shape[1]
            piece = np.fromfile(file, dtype, count)
            if len(piece) < count:
                raise ValueError(f"{path} ends early: {shape[0]} rows are promised")
            yield piece.reshape(-1, shape[1])


def _rows_of(width: int, size: int) -> int:
    """How many rows of this width and size of a number are read together."""
    return max(1, PIECE // (width * size))


def _select(rows: Tensor, index: np.ndarray) -> Tensor:
    """These rows; neighbours without a copy."""
    if len(index) and index[-1] - index[0] == len(index) - 1:
        return rows[int(index[0]) : int(index[-1]) + 1]
    return rows[torch.from_numpy(index).to(rows.device)]


def _group(number: np.ndarray, groups: int) -> np.ndarray:
    """Which group each row falls into: in round r every group takes 2^r neighbouring rows."""
    turn = np.minimum(np.log2(number // groups + 1).astype(int), LONGEST)
    length = 1 << turn
    return (number - groups * (length - 1)) // length % groups


def _key(number: np.ndarray, seed: int) -> np.ndarray:
    """A random 64-bit key for each row number, no two alike (Steele et al. 2014, splitmix64)."""
    start = seed * 0xD1342543DE82EF95 % (1 << 64)
    mixed = (number.astype(np.uint64) + np.uint64(start) + np.uint64(1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
