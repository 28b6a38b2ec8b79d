"""Attention maps as a measure wants them: checked, without pads, a few at a time.

And the one expensive thing that is measured of them: the largest singular value of the centred map.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BLOCK = 4  # start vectors: with one, a singular value just above many others goes unseen
GAIN = 1e-4  # of the squared value: a step that gains no larger share is the last
STEPS = 64  # the last in any case
LEAST = 1e-3  # of the longest: a direction that is shorter is mostly rounding
CHUNK = 1 << 20  # elements worked on at a time: 4 MB stay in a cache


def each_map(
    maps: Tensor, mask: Tensor | None, measure: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """What ``measure`` makes of every map, with the leading axes of ``maps`` and then its own.

    ``measure`` gets some maps (some, n, n), zero in pads and in float32 at least, and which tokens
    are real (some, n).

    Raises:
        TypeError, ValueError: as :func:`lab.collapse.filter_rate.filter_rate`.
    """
    real = real_tokens(maps, mask)
    leading, n = maps.shape[:-2], maps.shape[-1]
    flat, tokens = maps.reshape(-1, n, n), real.reshape(-1, n)
    size = max(1, CHUNK // n**2)
    found = []
    for at in range(0, len(flat), size):
        part, own = flat[at : at + size], tokens[at : at + size]
        wide = part.to(torch.promote_types(maps.dtype, torch.float32))
        if not own.all():
            wide = wide.masked_fill(~(own[:, :, None] & own[:, None, :]), 0)
        _check_rows(wide, own, torch.finfo(maps.dtype).eps, at, leading)
        found.append(measure(wide, own))
    whole = torch.cat(found)
    return whole.reshape(leading + whole.shape[1:])


def real_tokens(maps: Tensor, mask: Tensor | None) -> Tensor:
    """(..., n) which tokens of each map are real: the mask spread over the axes it lacks.

    Raises:
        TypeError: maps are no tensor of floating point, the mask is not boolean.
        ValueError: maps that are not square, a mask of other axes or without a real token.
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        kind = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise TypeError(f"maps are a floating-point tensor (..., n, n); got {kind}")
    if maps.ndim < 2 or maps.shape[-1] != maps.shape[-2] or not maps.numel():
        raise ValueError(
            f"maps are square and not empty, (..., n, n); got {tuple(maps.shape)}; give one row "
            "for every key"
        )
    *leading, n, _ = maps.shape
    if mask is None:
        return torch.ones(*leading, n, dtype=torch.bool, device=maps.device)
    if mask.dtype != torch.bool:
        raise TypeError(f"a mask is boolean; got {mask.dtype}; compare the attention mask with 0")
    own = list(mask.shape[:-1])
    if mask.shape[-1:] != (n,) or own != leading[: len(own)]:
        raise ValueError(
            f"a mask {tuple(mask.shape)} does not fit maps {tuple(maps.shape)}; give (..., {n}) "
            "with the first axes of the maps"
        )
    if not mask.any(-1).all():
        empty = (~mask.any(-1)).nonzero()[0].tolist()
        raise ValueError(f"text {empty} of the mask has no real token; drop it")
    return mask.reshape(*own, *[1] * (len(leading) - len(own)), n).expand(*leading, n)


def _check_rows(maps: Tensor, real: Tensor, eps: float, start: int, leading: torch.Size) -> None:
    """Refuse a map whose real rows are no weights, by its index; these begin at map ``start``."""
    sums = maps.sum(-1)
    off = real & ~((sums - 1).abs() <= 1e-4 + eps)  # NaN and infinity are not within
    if not off.any():
        if maps.amin() >= 0:
            return
        off = (maps < 0).any(-1)
    at, row = off.nonzero()[0].tolist()
    index = [int(i) for i in np.unravel_index(start + at, leading)] if leading else []
    total, least = float(sums[at, row]), float(maps[at, row].amin())
    why = f"sums to {total:.6g}, not 1" if math.isfinite(total) else "holds NaN or infinity"
    why = f"holds the negative weight {least:.3g}" if least < 0 else why
    raise ValueError(
        f"map {index}: row {row} {why}; give attention weights after the softmax, and the mask "
        "of real tokens"
    )


def centre(rows: Tensor, real: Tensor) -> Tensor:
    """Rows (..., n), zero in pads, minus their mean over real tokens: J applied to each.

    Twice, since a mean that is large against what it leaves is not taken away by one rounding.

    Args:
        rows: numbers, 0 where ``real`` is.
        real: 1 for real tokens and 0 for pads, in the type of the rows.
    """
    count = real.sum(-1, keepdim=True)
    for _ in range(2):
        rows = torch.addcmul(rows, real, rows.sum(-1, keepdim=True) / count, value=-1)
    return rows


def largest_singular_value(
    product: Callable[[Tensor], Tensor], transposed: Callable[[Tensor], Tensor], real: Tensor
) -> Tensor:
    """norm2(J A) of some maps (some,), which are given as functions: rows -> A rows, A^T rows.

    Block Lanczos on (J A)^T J A, a form of the block Krylov method of Musco & Musco 2015
    (arXiv:1504.05477, algorithm 2), orthogonalised twice against the whole basis. ``inner`` is that
    matrix in the basis. What is left where the space is exhausted (a permutation, rank one) is
    rounding and is zeroed. Where the spectrum has no gap, what is still to come at the end is about
    half the number of steps times the last gain; with a gap it is less.

    Args:
        product: rows (some, block, n), one vector each, to A times each.
        transposed: the same with A^T.
        real: (some, n) 1 for real tokens and 0 for pads, in the type to compute in.
    """
    count, n = real.shape
    most = min(n, BLOCK * STEPS)
    block = _orthonormal(_start(real), real.new_zeros(count))
    basis = block.new_empty(count, most, n)
    inner, largest, size = block.new_zeros(count, 0, 0), block.new_zeros(count), 0
    while True:
        before, size = size, min(most, size + BLOCK)
        basis[:, before:size] = block[:, : size - before]
        known = basis[:, :size]
        block = transposed(centre(product(known[:, before:]), real[:, None]))
        rows = block @ known.mT
        inner = torch.cat([torch.cat([inner, rows[:, :, :before].mT], 2), rows], 1)
        found = torch.linalg.eigvalsh(inner.double())[:, -1].clamp(min=0).to(block)
        if size == most or (found - largest <= GAIN * found).all():
            return found.sqrt()
        largest = found
        block = torch.baddbmm(block, rows, known, alpha=-1)
        block = torch.baddbmm(block, block @ known.mT, known, alpha=-1)
        block = _orthonormal(block, LEAST * found)


def _orthonormal(block: Tensor, least: Tensor) -> Tensor:
    """Orthonormal rows with the span of those given, then zero rows where that is smaller.

    Directions no longer than ``least`` (some,), or than a share LEAST of the longest, are rounding.
    """
    squares, directions = (part.flip(-1) for part in torch.linalg.eigh(block @ block.mT))
    floor = torch.maximum(least, LEAST * squares[:, 0].clamp(min=0).sqrt())
    kept = squares > floor[:, None].square()
    return torch.where(kept, squares.rsqrt(), 0)[..., None] * (directions.mT @ block)


def _start(real: Tensor) -> Tensor:
    """(some, block, n) centred Gaussian vectors, the same wherever the pads are."""
    drawn = np.random.default_rng(0).standard_normal((real.shape[-1], BLOCK))
    place = (real.cumsum(-1).long() - 1).clamp(min=0)
    rows = torch.from_numpy(drawn).to(real)[place].mT * real[:, None]
    return centre(rows, real[:, None])
