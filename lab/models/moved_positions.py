"""Positions of long texts, moved or stretched to where a model has been trained.

Each function is handed a batch that holds texts of more than L tokens; shorter ones stay as they
are. n is the length of a text in tokens, s = ceil(n / L) its scale (core.md 6.1, after LongEmbed,
arXiv:2404.12096; how its s differs is said in :mod:`lab.models.extension`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab.models import architecture
from lab.models.positions import frequencies, holds, on_tables, rotary_modules

Inputs = dict[str, Any]  # of a forward call


def scale(lengths: Tensor, original: int) -> Tensor:
    """The scale s = ceil(n / L) of texts of n tokens."""
    return (lengths + original - 1) // original


def grouped(position: Tensor, lengths: Tensor, original: int) -> Tensor:
    """The positions floor(p / s): s neighbours share one, and all are below L."""
    return position // scale(lengths, original)


def recurrent(position: Tensor, lengths: Tensor, original: int) -> Tensor:
    """The positions p mod L: they begin again after L tokens."""
    return position % original


def interpolated(position: Tensor, lengths: Tensor, original: int) -> Tensor:
    """The positions p / s: every s-th token at an original one, the others evenly in between.

    Rotary angles are those of the fraction. Between two rows of a learned table the embedding is on
    the straight line, so E[i s] = E_original[i]. Past the last row, where L is the whole table, it
    is the last row.
    """
    return position / scale(lengths, original)


@contextmanager
def moved(
    place: Callable[[Tensor, Tensor, int], Tensor],
    model: nn.Module,
    mask: Tensor,
    inputs: Inputs,
    original: int,
) -> Iterator[Inputs]:
    """The inputs with other position ids, as ``place`` maps them."""
    refuse_flash(model)
    counted = (mask.long().cumsum(-1) - 1).clamp(min=0)
    places = place(counted, mask.sum(-1, keepdim=True), original)
    given = inputs["position_ids"]  # RoBERTa counts from an offset

    def at(positions: Tensor) -> Inputs:
        ids = positions + (given - counted)
        # Pads are never seen, but their ids must be in the table, and behind a long text are not.
        return {**inputs, "position_ids": torch.where(mask.bool(), ids, torch.zeros_like(ids))}

    if rotary_modules(model) or not places.is_floating_point():
        yield at(places)
        return
    low = places.floor().long()
    last = architecture.positions(model)
    high = (low + 1).clamp(max=None if last is None else last - 1)
    with _between(model, at(low)["position_ids"], at(high)["position_ids"], places - low):
        yield at(low)


@contextmanager
def _between(model: nn.Module, low: Tensor, high: Tensor, part: Tensor) -> Iterator[None]:
    """A table that is asked for rows ``low`` answers with ``part`` of the way to rows ``high``."""

    def blend(table: nn.Module, args: tuple, kwargs: dict[str, Any], found: Tensor) -> Any:
        if not any(holds(value, low) for value in (*args, *kwargs.values())):
            return None
        args = tuple(high if holds(value, low) else value for value in args)
        kwargs = {key: high if holds(value, low) else value for key, value in kwargs.items()}
        return torch.lerp(found, table.forward(*args, **kwargs), part[..., None].to(found.dtype))

    hooks = on_tables(model, lambda table: table.register_forward_hook(blend, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def refuse_flash(model: nn.Module) -> None:
    """Flash attention takes a text whose positions don't count up for several packed ones."""
    backend = str(architecture.backbone(model).config._attn_implementation)
    if "flash" in backend:
        raise ValueError(
            f"{backend} attention takes moved positions of {architecture.architecture(model)} for "
            "several texts, in silence; load the model with attn_implementation='sdpa' or 'eager'"
        )


# --- frequencies that fall ---------------------------------------------------------------------


def ntk_factor(scale: float) -> float:
    """Lambda for a text of s = ``scale`` times L tokens: 3, 5, 10 at s = 2, 4, 8 as in LongEmbed.

    In between on straight lines from (1, 1); beyond 8, where the paper has no value, 1.25 s.
    """
    return 1.25 * scale if scale > 8 else float(np.interp(scale, [1, 2, 4, 8], [1, 3, 5, 10]))


@contextmanager
def ntk(
    model: nn.Module, mask: Tensor, inputs: Inputs, original: int, factor: float | None = None
) -> Iterator[Inputs]:
    """Base theta times lambda, for each text its own; all rotary modules, those of windows too."""
    scales = scale(mask.sum(-1), original)
    factors = [
        1.0 if value == 1 else factor or ntk_factor(value) for value in map(int, scales.tolist())
    ]
    of_text = torch.tensor(factors, device=mask.device)[:, None, None]

    def turn(module: nn.Module, args: tuple, kwargs: dict[str, Any], found: Any) -> Any:
        for value in set(factors) - {1.0}:
            with _based(module, value):
                other = module.forward(*args, **kwargs)
            mine = of_text == torch.tensor(value)
            found = tuple(torch.where(mine, *pair) for pair in zip(other, found, strict=True))
        return found

    modules = rotary_modules(model)
    hooks = [module.register_forward_hook(turn, with_kwargs=True) for module in modules]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _based(module: nn.Module, factor: float) -> Iterator[None]:
    """A rotary module whose base is ``factor`` times as large: frequency j times factor^(-2j/d)."""
    own = frequencies(module)
    try:
        for name, values in own.items():
            steps = torch.arange(len(values), device=values.device) / len(values)
            setattr(module, name, values * factor**-steps)
        yield
    finally:
        for name, values in own.items():
            setattr(module, name, values)
