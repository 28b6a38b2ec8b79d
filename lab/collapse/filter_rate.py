"""The filter rate of attention maps, and what a map does to the differences between tokens.

J = I - 11^T / n centres over the tokens of a text. What it keeps of the states is their high
frequencies (HC), what it takes away their mean (DC), and sigma_a = norm2(J A), the *filter rate*,
bounds how much of HC an attention map A lets pass. Zhou et al. (arXiv:2410.24200, "Length-Induced
Embedding Collapse"), theorem 2, after Wang et al. 2022 (arXiv:2203.05962). Smaller filters more.

The paper treats encoders. A causal map is another object: its first row is one-hot and uniform rows
do not make it zero; :func:`uniform_causal` is what to hold it against.

Maps are (..., query, key), softmax weights: rows sum to 1. A ``mask`` (..., n), True for real
tokens, cuts pads in rows and columns; its leading axes are the first of those of the maps, so that
(batch, n) goes with (batch, head, n, n).
"""

import math
from functools import cache

import torch
from torch import Tensor

from lab.collapse.maps import centre, each_map, largest_singular_value, real_tokens


def filter_rate(maps: Tensor, mask: Tensor | None = None) -> Tensor:
    """norm2(J A) of every map, (...), to a relative error of 1e-3 from below.

    Equal rows 0, a permutation 1; it may exceed 1. J A is never formed: a block Krylov method on
    products with A and A^T from a fixed start (:func:`lab.collapse.maps.largest_singular_value`).
    Below 1e-3 rounding shows: the error is then up to 1e-6.

    Args:
        maps: (..., n, n) attention weights; half precision is computed in float32.
        mask: (..., n) True for real tokens.

    Raises:
        TypeError: maps or mask are of another kind.
        ValueError: not square, a mask of other axes or without a real token, NaN, a negative
            weight, a row that does not sum to 1 over real tokens (which map).
    """
    return each_map(maps, mask, _filter_rate)


def attention_entropy(maps: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean entropy in nats of the rows of every map, (...): one-hot 0, uniform log n.

    Args:
        maps: (..., n, n) attention weights.
        mask: (..., n) True for real tokens; only their rows count.

    Raises:
        TypeError, ValueError: as :func:`filter_rate`.
    """
    return each_map(maps, mask, _entropy_and_spread)[..., 0]


def logit_spread(maps: Tensor, mask: Tensor | None = None) -> Tensor:
    """The standard deviation of the logits over keys, mean over rows, of every map: (...).

    log A differs from the logits by a constant of its row, which a deviation does not see. A weight
    of zero (masked, or a logit so low that it underflowed) says nothing of its logit and is left
    out, so a very sharp map seems flatter than it is. A map without two weights above zero in any
    row (one-hot, one token) has none: NaN.

    Args:
        maps: (..., n, n) attention weights.
        mask: (..., n) True for real tokens.

    Raises:
        TypeError, ValueError: as :func:`filter_rate`.
    """
    return each_map(maps, mask, _entropy_and_spread)[..., 1]


def of_maps(maps: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """``filter_rate``, ``entropy`` and ``spread`` of every map, each (...), from one check.

    Args:
        maps: (..., n, n) attention weights.
        mask: (..., n) True for real tokens.

    Raises:
        TypeError, ValueError: as :func:`filter_rate`.
    """

    def measure(part: Tensor, real: Tensor) -> Tensor:
        rate = _filter_rate(part, real)
        return torch.cat([rate[:, None], _entropy_and_spread(part, real)], -1)

    found = each_map(maps, mask, measure)
    return dict(zip(("filter_rate", "entropy", "spread"), found.unbind(-1), strict=True))


def contraction(maps: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """normF(J A V) / normF(J V) of every head, (..., head): what it leaves of HC, at most sigma_a.

    NaN where the values do not differ, as with one token.

    Args:
        maps: (..., head, n, n) attention weights.
        values: (..., key head, n, dim); under grouped-query attention each serves several heads.
        mask: (..., n) True for real tokens.

    Raises:
        TypeError: maps or mask are of another kind.
        ValueError: axes that do not fit each other, a text without a real token.
    """
    passed, given = _high_frequencies(maps, values, mask)
    return passed / given.where(given > 0, math.nan)


def theorem_2(
    maps: Tensor, states: Tensor, weight: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Both sides, each (..., head), of normF(J A X W) <= norm2(J A) norm2(W) normF(J X).

    Theorem 2 of the paper, head by head. A bias of the values plays no part: A leaves it the same
    in all rows and J takes it away. The filter rate comes from below, so equality may seem
    exceeded by its error, 1e-3.

    Args:
        maps: (..., head, n, n) attention weights.
        states: (..., n, d) what enters the value projection.
        weight: (key head, dim, d) its weight as ``nn.Linear`` keeps it, a head at a time.
        mask: (..., n) True for real tokens.

    Raises:
        TypeError, ValueError: as :func:`filter_rate` and :func:`contraction`.
    """
    rate = filter_rate(maps, mask)
    states, weight = states.unsqueeze(-3).to(rate.dtype), weight.to(rate.dtype)
    left, _ = _high_frequencies(maps, states @ weight.mT, mask)
    norms = torch.linalg.matrix_norm(weight, 2).repeat_interleave(rate.shape[-1] // len(weight))
    return left, rate * norms * _centred_norm(states, real_tokens(maps, mask)[..., :1, :])


def gaussian_law(n: int, spread: float) -> float:
    """2 sqrt((e^(s^2) - 1) / n): about the filter rate of iid Gaussian logits of deviation s.

    The largest singular value of a random matrix with entries of mean 1 / n and the variance of a
    log-normal weight, (e^(s^2) - 1) / n^2. Good up to s of about 1; for s above 1.5 heavy tails
    dominate and the filter rate hardly falls with n. A temperature acts through s / temperature.

    Raises:
        ValueError: no token, or a negative spread.
    """
    _check_law(n, spread)
    return 2 * math.sqrt(math.expm1(spread**2) / n)


def printed_bound(n: int, spread: float) -> float:
    """sqrt(n / (2 sqrt(1 + e^(-2 s^2)) (n - 1)^(3/2) + 1)), theorem 3 as transcribed.

    Transcribed from a secondary source, for queries and keys whose logits have deviation s; its
    statement in the paper was not to be had. It is *not* a bound: for iid Gaussian logits it holds
    at s <= 0.5 and fails at s = 1 up to n = 256 and at s >= 1.5 for all n up to 1024 (s = 2,
    n = 256: 0.18 against 0.80 measured). A permutation has 1 for every n.

    Raises:
        ValueError: no token, or a negative spread.
    """
    _check_law(n, spread)
    return math.sqrt(n / (2 * math.sqrt(1 + math.exp(-2 * spread**2)) * (n - 1) ** 1.5 + 1))


@cache
def uniform_causal(n: int) -> float:
    """The filter rate of causal attention that is uniform over what each token sees.

    It *grows* with n (0.99, 1.24, 1.42 at n = 16, 64, 256), where a uniform map of an encoder
    has 0: filter rates of causal maps are read against this, not against 0.

    Raises:
        ValueError: no token.
    """
    _check_law(n, 0)
    seen = torch.arange(1, n + 1, dtype=torch.float64)

    def transposed(rows: Tensor) -> Tensor:
        return (rows / seen).flip(-1).cumsum(-1).flip(-1)

    real = torch.ones_like(seen)[None]
    return float(largest_singular_value(lambda rows: rows.cumsum(-1) / seen, transposed, real))


def _filter_rate(maps: Tensor, real: Tensor) -> Tensor:
    return largest_singular_value(
        lambda rows: rows @ maps.mT, lambda rows: rows @ maps, real.to(maps.dtype)
    )


def _entropy_and_spread(maps: Tensor, real: Tensor) -> Tensor:
    """(some, 2) from one logarithm; a weight of zero adds nothing to either."""
    known = maps.sign()
    count = known.sum(-1)
    logs = maps.clamp(min=torch.finfo(maps.dtype).tiny).log_().mul_(known)
    entropy = -torch.linalg.vecdot(maps.flatten(1), logs.flatten(1)) / real.sum(-1)
    means = logs.sum(-1) / count.clamp(min=1)
    deviations = logs.sub_(means[..., None]).mul_(known).norm(dim=-1)
    rows = deviations / (count - 1).clamp(min=1).sqrt()
    spread = rows.sum(-1) / (count > 1).sum(-1)  # 0 / 0: no row has two weights
    return torch.stack([entropy, spread], -1)


def _high_frequencies(maps: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """normF(J A V) and normF(J V) of every head, each (..., head)."""
    real = real_tokens(maps, mask)
    heads, n = maps.shape[-3], maps.shape[-1]
    if values.shape[:-3] != maps.shape[:-3] or values.shape[-2] != n or heads % values.shape[-3]:
        raise ValueError(
            f"values {tuple(values.shape)} do not fit maps {tuple(maps.shape)}; wanted "
            "(..., key head, n, dim) with heads a multiple of key heads"
        )
    wide = torch.promote_types(maps.dtype, torch.float32)
    values = values.to(wide).repeat_interleave(heads // values.shape[-3], -3)
    values = values.where(real[..., None], 0)
    return _centred_norm(maps.to(wide) @ values, real), _centred_norm(values, real)


def _centred_norm(states: Tensor, real: Tensor) -> Tensor:
    """normF(J X) of states (..., n, dim) over real tokens (..., n)."""
    real = real[..., None]
    return centre(states.where(real, 0).mT, real.to(states).mT).norm(dim=(-1, -2))


def _check_law(n: int, spread: float) -> None:
    if n < 1 or not spread >= 0:
        raise ValueError(f"a law needs n >= 1 tokens and a spread >= 0; got n={n}, {spread=}")
