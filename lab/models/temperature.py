"""The attention temperature: softmax(logits / temperature), on any architecture.

Registered attention functions are wrapped under their own names, so that every name-based branch
upstream stays valid; where a model writes its attention inline, the softmax that its attention
module calls is intercepted. Both leave an untouched module exactly as it was.
"""

import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lab.models.architecture import (
    architecture,
    attention_modules,
    backbone,
    depth,
    layers,
    uses_interface,
)


@dataclass(frozen=True)
class Temperature:
    """softmax(logits / temperature): one number, one per layer, or one that falls with length.

    Attributes:
        values: one number for all layers, or one per layer.
        reference_length: for log-n scaling: the temperature of a text of n tokens is
            log(reference) / log(n), and 1 up to the reference length. LongEmbed (arXiv:2404.12096,
            section 3) after Su (2021) and Chiang & Cholak (2022).
    """

    values: tuple[float, ...] = (1.0,)
    reference_length: int | None = None

    @classmethod
    def parse(cls, setting: object, layer_count: int) -> "Temperature | None":
        """Read a setting: None, a number, a list with one number per layer, or ``"log-n/512"``.

        Raises:
            ValueError: not a positive finite number, the wrong number of layers, or another text.
        """
        if setting is None:
            return None
        if isinstance(setting, str):
            name, _, length = setting.partition("/")
            if name != "log-n" or not length.isdigit() or int(length) < 2:
                raise ValueError(
                    f"temperature {setting!r} is not known; give a positive number, one per layer, "
                    "or 'log-n/L' with the length L >= 2 in tokens up to which nothing changes"
                )
            return cls(reference_length=int(length))
        values: Sequence[Any] = setting if isinstance(setting, list | tuple) else [setting]
        for value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise ValueError(
                    f"an attention temperature is a positive finite number; got {value!r}"
                )
        if len(values) not in (1, layer_count):
            raise ValueError(
                f"{len(values)} temperatures for {layer_count} layers; give one, or one per layer"
            )
        return cls(tuple(float(value) for value in values))

    def of_layer(self, layer: int) -> float:
        """The temperature of one layer."""
        return self.values[layer] if len(self.values) > 1 else self.values[0]

    def inverse_by_length(self, lengths: Tensor) -> Tensor:
        """(batch,) 1 / temperature for texts of these lengths, under log-n scaling."""
        reference = math.log(self.reference_length or 2)
        return (lengths.clamp(min=1).float().log() / reference).clamp(min=1.0)


def set_temperature(model: nn.Module, temperature: Temperature | None) -> None:
    """Divide all attention logits by ``temperature`` from now on; None restores the model.

    *All* logits, after a soft cap and with a relative position bias or ALiBi, as the official
    TempScale does (core.md 3.1). The setting lives on the attention modules, not around a call,
    so recomputation under gradient checkpointing sees it too.

    Raises:
        ValueError: no module computes dot-product attention; layers that share their weights
            (ALBERT) with one temperature per layer; log-n with a soft cap (Gemma 2).
    """
    name = architecture(model)
    modules: list[tuple[int, Any]] = attention_modules(model)  # Any: they get attributes of ours
    if temperature and not modules:
        raise ValueError(f"{name} has no dot-product attention, so it has no attention temperature")
    if temperature and len(temperature.values) > 1 and len(layers(model)) < depth(model):
        raise ValueError(f"all layers of {name} are one module; give it one temperature")
    softcap = getattr(backbone(model).config.get_text_config(), "attn_logit_softcapping", None)
    if temperature and temperature.reference_length and softcap:
        raise ValueError(
            f"{name} caps its logits with one number for all texts, so log-n "
            "temperatures can't act on it; give a number"
        )
    for layer, module in modules:
        inverse = 1.0 / temperature.of_layer(layer) if temperature else None
        module._lab_inverse = None if inverse == 1.0 else inverse
        module._lab_by_length = bool(temperature and temperature.reference_length)
        if not uses_interface(type(module).forward) and not getattr(module, "_lab_hooked", False):
            module.register_forward_pre_hook(_enter_inline)
            module.register_forward_hook(_leave_inline, always_call=True)
            module._lab_hooked = True
    model._lab_temperature = temperature  # type: ignore[assignment]


@contextmanager
def temperature_of_batch(model: nn.Module, mask: Tensor) -> Iterator[None]:
    """Around a forward call: see to it that the temperature acts, and tell it the lengths.

    Raises:
        ValueError: log-n scaling together with gradient checkpointing, whose recomputation would
            run after this batch is forgotten.
    """
    temperature = getattr(model, "_lab_temperature", None)
    if temperature is None:
        yield
        return
    _wrap_registered(backbone(model).config._attn_implementation)
    if not temperature.reference_length:
        yield
        return
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    if recomputes and torch.is_grad_enabled():
        raise ValueError(
            "log-n temperatures can't be recomputed under gradient checkpointing; "
            "turn one of the two off"
        )
    inverse = temperature.inverse_by_length(mask.sum(-1))
    modules: list[Any] = [module for _, module in attention_modules(model)]
    try:
        for module in modules:
            module._lab_inverse = inverse.to(next(model.parameters()).dtype)
        yield
    finally:
        for module in modules:
            module._lab_inverse = None


def _inverse_of(module: nn.Module) -> "float | Tensor | None":
    """What the logits of this attention module are multiplied with; None leaves them alone."""
    return getattr(module, "_lab_inverse", None)


def _own_eager(module: nn.Module) -> Callable[..., Any]:
    """The ``eager_attention_forward`` of the modelling file that a module's class comes from."""
    for kind in type(module).__mro__:
        found = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if found is not None:
            return found
    raise ValueError(f"{type(module).__name__} has no eager attention; use sdpa")


def _scale_arguments(inverse: "float | Tensor", query: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """Divide logits by acting on what they are made of; returns the query, edits ``kwargs``."""
    bias = kwargs.get("position_bias")
    if isinstance(inverse, Tensor):
        inverse = inverse.view(-1, 1, 1, 1)
        if bias is not None:
            kwargs["position_bias"] = bias * inverse
        return query * inverse
    scaling = kwargs.get("scaling")
    kwargs["scaling"] = (query.shape[-1] ** -0.5 if scaling is None else scaling) * inverse
    if kwargs.get("softcap") is not None:
        kwargs["softcap"] = kwargs["softcap"] * inverse
    if bias is not None:
        kwargs["position_bias"] = bias * inverse
    return query


def _wrap_registered(name: str) -> None:
    """Wrap the attention function registered under ``name``, once per process, under its name."""
    current = ALL_ATTENTION_FUNCTIONS._global_mapping.get(name)
    if getattr(current, "_lab", False):
        return

    def attention(module: nn.Module, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        inverse = _inverse_of(module)
        if inverse is not None:
            query = _scale_arguments(inverse, query, kwargs)
        return (current or _own_eager(module))(module, query, *args, **kwargs)

    attention._lab = True  # type: ignore[attr-defined]
    AttentionInterface.register(name, attention)


_INLINE = threading.local()
_SOFTMAX = {torch.softmax, torch.nn.functional.softmax, Tensor.softmax}


class _InlineTemperature(TorchFunctionMode):
    """While one attention module runs, multiply what enters its softmax."""

    def __init__(self, inverse: "float | Tensor") -> None:
        super().__init__()
        self.inverse = inverse

    def _scaled(self, logits: Tensor) -> Tensor:
        inverse = self.inverse
        if isinstance(inverse, Tensor):
            if logits.ndim != 4 or len(logits) != len(inverse):
                raise ValueError(
                    "log-n temperatures need logits (batch, head, query, key); this "
                    f"model has {tuple(logits.shape)}; give a number"
                )
            inverse = inverse.view(-1, 1, 1, 1)
        # Masked logits sit at finfo.min; dividing by a temperature below 1 would make them -inf
        # and a fully masked row NaN.
        return (logits * inverse).clamp(min=torch.finfo(logits.dtype).min)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _SOFTMAX and args and args[0].ndim >= 3:
            args = (self._scaled(args[0]), *args[1:])
        if func is torch.nn.functional.scaled_dot_product_attention:
            inverse = self.inverse
            inverse = inverse.view(-1, 1, 1, 1) if isinstance(inverse, Tensor) else inverse
            args = (args[0] * inverse, *args[1:])
            mask = kwargs.get("attn_mask")
            if mask is not None and mask.is_floating_point():
                kwargs["attn_mask"] = (mask * inverse).clamp(min=torch.finfo(mask.dtype).min)
        return func(*args, **kwargs)


def _enter_inline(module: nn.Module, _: Any) -> None:
    inverse = _inverse_of(module)
    mode = _InlineTemperature(inverse) if inverse is not None else None
    _INLINE.stack = [*getattr(_INLINE, "stack", []), mode]
    if mode is not None:
        mode.__enter__()


def _leave_inline(module: nn.Module, *_: Any) -> None:
    *_INLINE.stack, mode = _INLINE.stack
    if mode is not None:
        mode.__exit__(None, None, None)
