"""Poolers by name, and how large they are: comparisons at an equal number of parameters."""

import inspect
from typing import Any

import torch
from torch import nn

from lab.poolers.pooler import POOLERS, Pooler
from lab.registry import unknown


def build(name: str, dim: int, items: int | None = None, **options: Any) -> Pooler:
    """A new trainable pooling, its weights drawn from torch's global generator.

    Args:
        name: in ``POOLERS``.
        dim: width of the states.
        items: how many layers it reads; None where it reads tokens.
        **options: of the class; what is not given gets its default.

    Raises:
        LookupError: no pooling or option of that name, with what there is.
        ValueError: an option out of range.
    """
    kind = POOLERS[name]
    both = (inspect.signature(one.__init__).parameters for one in (Pooler, kind))
    known = {
        key for signature in both for key, one in signature.items() if one.kind == one.KEYWORD_ONLY
    }
    for key in options:
        if key not in known:
            raise LookupError(unknown(f"option of {name}", key, known))
    return kind(dim, items, **options)


def parameters(module: nn.Module) -> int:
    """How many numbers of a module are trained: its parameters that take a gradient."""
    return sum(one.numel() for one in module.parameters() if one.requires_grad)


def within(
    name: str, dim: int, budget: int, items: int | None = None, **fixed: Any
) -> dict[str, Any]:
    """The options of the largest such pooling with at most ``budget`` parameters.

    One size is turned. By attention it is ``dim_head``, with a feed-forward layer as wide as all
    heads together, while heads and latents stay; in ``low_rank_attention`` it is the heads;
    ``token_weights`` has none.

    Args:
        name: in ``POOLERS``.
        dim: width of the states.
        budget: parameters, at most.
        items: as for :func:`build`.
        **fixed: options that are not turned, such as ``latents=16``.

    Raises:
        LookupError: no pooling or option of that name.
        ValueError: the smallest one has more parameters, how many.
    """
    kind = POOLERS[name]

    def options(size: int) -> dict[str, Any]:
        return {**kind.sized(dim, size, **fixed), **fixed}

    def count(size: int) -> int:
        with torch.device("meta"):
            return parameters(build(name, dim, items, **options(size)))

    if count(1) > budget:
        raise ValueError(
            f"the smallest {name} at dim {dim} with {options(1)} has {count(1)} parameters, the "
            f"budget is {budget}; raise it, or fix a smaller option"
        )
    fits, fails = 1, 2
    if count(fails) == count(fits):  # nothing to turn, or all of it is fixed
        return options(fits)
    while count(fails) <= budget:
        fits, fails = fails, 2 * fails
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if count(middle) <= budget else (fits, middle)
    return options(fits)
