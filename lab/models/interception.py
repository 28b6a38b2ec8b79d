"""What the lab changes or reads inside attention, on any architecture.

Registered attention functions are wrapped under their own names, so that every name-based branch
upstream stays valid; where a model writes its attention inline, the softmax that its attention
module calls is intercepted. What happens there is said on the attention module (:class:`Inside`);
without a word an untouched module stays exactly as it was.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lab.models.architecture import attention_modules, backbone, uses_interface


@dataclass
class Inside:
    """What happens inside one attention module.

    Attributes:
        inverse: the logits are multiplied with it: a number, or a tensor with one number for each
            text of the batch, or for all; None leaves them alone.
        attend: computes attention in place of the registered function and with its arguments.
        observe: is shown the attention weights (batch, head, query, key) and, where the
            architecture passes them, the values (batch, key head, key, dim); the weights are None
            where the backend keeps them to itself.
    """

    inverse: "float | Tensor | None" = None
    attend: Callable[..., Any] | None = None
    observe: Callable[[Tensor | None, Tensor | None], None] | None = None


def inside(module: nn.Module) -> Inside:
    """The one :class:`Inside` of an attention module."""
    found = getattr(module, "_lab_inside", None)
    if found is None:
        found = module._lab_inside = Inside()  # type: ignore[assignment]
    return found


def install(model: nn.Module) -> None:
    """See to it that :class:`Inside` is heeded from now on; cheap to call before every pass.

    Registrations are per process, and a model may change its backend after loading.
    """
    for _, module in attention_modules(model):
        if not uses_interface(type(module).forward) and not getattr(module, "_lab_hooked", False):
            module.register_forward_pre_hook(_enter_inline)
            module.register_forward_hook(_leave_inline, always_call=True)
            module._lab_hooked = True  # type: ignore[assignment]
    _wrap_registered(backbone(model).config._attn_implementation)


def registered(name: str) -> Callable[..., Any] | None:
    """The attention function registered under ``name``, as it was before the lab wrapped it."""
    found = ALL_ATTENTION_FUNCTIONS.get(name)
    return getattr(found, "_lab_wraps", found)


def is_inline(module: nn.Module) -> bool:
    """Whether this attention module writes its attention out instead of asking the registry."""
    return not uses_interface(type(module).forward)


def own_eager(module: nn.Module) -> Callable[..., Any]:
    """The ``eager_attention_forward`` of the modelling file that a module's class comes from."""
    return of_modelling_file(module, "eager_attention_forward")


def of_modelling_file(module: nn.Module, name: str) -> Callable[..., Any]:
    """A function of the modelling file that a module's class comes from.

    Raises:
        ValueError: the file has no such function.
    """
    for kind in type(module).__mro__:
        found = getattr(sys.modules.get(kind.__module__), name, None)
        if found is not None:
            return found
    raise ValueError(f"the modelling file of {type(module).__name__} has no {name}")


def _scale_arguments(inverse: "float | Tensor", query: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """Multiply logits by acting on what they are made of; returns the query, edits ``kwargs``."""
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
    if hasattr(current, "_lab_wraps"):
        return

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        word: Inside | None = getattr(module, "_lab_inside", None)
        if word is None:
            return (current or own_eager(module))(module, query, key, value, *args, **kwargs)
        if word.inverse is not None:
            query = _scale_arguments(word.inverse, query, kwargs)
        if word.observe is not None and args and args[0] is None:
            # eager attention of ModernBERT's decoder adds its mask without asking if there is one
            args = (query.new_zeros(1, 1, 1, 1), *args[1:])
        attend = word.attend or current or own_eager(module)
        found = attend(module, query, key, value, *args, **kwargs)
        if word.observe is not None:
            word.observe(found[1], value)
        return found

    attention._lab_wraps = current  # type: ignore[attr-defined]
    AttentionInterface.register(name, attention)


_INLINE = threading.local()
_SOFTMAX = {torch.softmax, torch.nn.functional.softmax, Tensor.softmax}


class _Inline(TorchFunctionMode):
    """While one attention module runs, multiply what enters its softmax and show what leaves it."""

    def __init__(self, word: Inside) -> None:
        super().__init__()
        self.inverse, self.observe = word.inverse, word.observe

    def _factor(self, logits: Tensor) -> "float | Tensor":
        inverse = self.inverse
        if not isinstance(inverse, Tensor):
            return 1.0 if inverse is None else inverse
        if logits.ndim != 4 or len(inverse) not in (1, len(logits)):
            raise ValueError(
                "log-n temperatures need logits (batch, head, query, key); this "
                f"model has {tuple(logits.shape)}; give a number"
            )
        return inverse.view(-1, 1, 1, 1)

    def _softmax(self, func: Any, logits: Tensor, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        if self.inverse is not None:
            # Masked logits sit at finfo.min; dividing by a temperature below 1 would make them
            # -inf and a fully masked row NaN.
            least = torch.finfo(logits.dtype).min
            logits = (logits * self._factor(logits)).clamp(min=least)
        weights = func(logits, *args, **kwargs)
        if self.observe is not None:
            self.observe(weights, None)
        return weights

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _SOFTMAX and args and args[0].ndim >= 3:
            return self._softmax(func, args[0], args[1:], kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention:
            if self.inverse is not None:
                inverse = self._factor(args[0])
                args = (args[0] * inverse, *args[1:])
                mask = kwargs.get("attn_mask")
                if mask is not None and mask.is_floating_point():
                    kwargs["attn_mask"] = (mask * inverse).clamp(min=torch.finfo(mask.dtype).min)
            if self.observe is not None:
                self.observe(_weights(*args, **kwargs), args[2])
        return func(*args, **kwargs)


def _weights(
    query: Tensor,
    key: Tensor,
    _value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(Q K^T scale + mask), which ``scaled_dot_product_attention`` keeps to itself."""
    logits = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones_like(logits[0, 0], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.where(attn_mask, 0.0, torch.finfo(logits.dtype).min)
    return (logits if attn_mask is None else logits + attn_mask).softmax(-1)


@contextmanager
def leaving_nothing_behind() -> Iterator[None]:
    """Whatever ends the block, KeyboardInterrupt too: no interception that it began stays on.

    torch leaves out even hooks that are always called where the end is no ``Exception``. What was
    on before stays: a model may run while another one's attention is being observed.
    """
    before = len(getattr(_INLINE, "stack", []))
    try:
        yield
    finally:
        while len(getattr(_INLINE, "stack", [])) > before:
            _leave_inline()


def _enter_inline(module: nn.Module, _: Any) -> None:
    word: Inside | None = getattr(module, "_lab_inside", None)
    idle = word is None or (word.inverse is None and word.observe is None)
    mode = None if idle else _Inline(word)  # type: ignore[arg-type]
    _INLINE.stack = [*getattr(_INLINE, "stack", []), mode]
    if mode is not None:
        mode.__enter__()


def _leave_inline(*_: Any) -> None:
    *_INLINE.stack, mode = _INLINE.stack
    if mode is not None:
        mode.__exit__(None, None, None)
