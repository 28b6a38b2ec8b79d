"""How a model knows where a token stands: found by structure and measured, not by a list of names.

Everything that moves positions (:mod:`lab.models.extension`) stands on this.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lab.models import architecture, states

ROTARY, LEARNED, OTHER = "rotary", "learned", "relative or none"


def rotary_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that turn position ids into rotary angles: they hold inverse frequencies."""
    return [
        module
        for module in architecture.backbone(model).modules()
        if frequencies(module) and "position_ids" in architecture.parameters(type(module).forward)
    ]


def frequencies(module: nn.Module) -> dict[str, Tensor]:
    """The inverse frequencies in use, theta^(-2j/d) for j = 0 .. d/2 - 1, by buffer name.

    More than one set where kinds of layers have their own (Gemma 3, ModernBERT).
    """
    return {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if name.endswith("inv_freq") and "original" not in name
    }


def follows_batch(module: nn.Module) -> bool:
    """Whether a rotary module picks its frequencies by the longest text of a batch."""
    kinds: Any = getattr(module, "rope_type", "default")
    kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any("dynamic" in kind or kind == "longrope" for kind in kinds)


def scheme(model: nn.Module) -> str:
    """The position scheme: "rotary", "learned" (a table of absolute positions), else the third.

    "relative or none" is every other: a relative bias (T5), ALiBi (Bloom), disentangled attention
    (DeBERTa), no positions at all, and mixtures with one of those (MPNet).

    Measured: with every token at the same position, a model of the first two kinds can't tell the
    order of the tokens before the last one.
    """
    ids = architecture.probe_ids(model, 3)  # as few as a narrow window lets see each other
    counted = architecture.position_ids(model, torch.ones_like(ids))
    if counted is None:
        return OTHER
    same = counted[:, -1:].expand_as(ids).contiguous()
    asked: list[nn.Module] = []

    def look(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if any(holds(value, same) for value in (*args, *kwargs.values())):
            asked.append(module)

    tables = on_tables(model, lambda table: table.register_forward_pre_hook(look, with_kwargs=True))
    try:
        with architecture.evaluating(model):
            rows = (ids, ids[:, [1, 0, 2]])
            first, turned = (_after_one_layer(model, row, same) for row in rows)
    finally:
        for hook in tables:
            hook.remove()
    change = (first - turned)[:, -1].abs().max() / first[:, -1].abs().max()
    if change > 16 * torch.finfo(first.dtype).eps:
        return OTHER
    if rotary_modules(model):
        return OTHER if asked else ROTARY
    return LEARNED if asked else OTHER


def on_tables(model: nn.Module, register: Callable[[nn.Module], Any]) -> list[Any]:
    """What ``register`` gives for each embedding table of the model: the handles of hooks."""
    modules: Iterable[nn.Module] = architecture.backbone(model).modules()
    return [register(module) for module in modules if isinstance(module, nn.Embedding)]


def holds(value: object, positions: Tensor) -> bool:
    """Whether an argument of an embedding table is these position ids."""
    return isinstance(value, Tensor) and torch.equal(value, positions)


def _after_one_layer(model: nn.Module, ids: Tensor, positions: Tensor) -> Tensor:
    """(1, seq, dim) the states after the first layer."""
    kept: list[Tensor] = []
    states.read(
        model,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": positions},
        lambda layer, hidden: kept.append(hidden),
        stop_after=1,
    )
    return kept[1]
