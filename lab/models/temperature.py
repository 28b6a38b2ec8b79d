"""The attention temperature: softmax(logits / temperature), on any architecture.

How logits are reached is in :mod:`lab.models.interception`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lab.models.architecture import architecture, attention_modules, backbone, depth, layers
from lab.models.interception import inside, install


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
    modules = attention_modules(model)
    if temperature and not modules:
        raise ValueError(f"{name} has no dot-product attention, so it has no attention temperature")
    if temperature and len(temperature.values) > 1 and len(layers(model)) < depth(model):
        raise ValueError(f"all layers of {name} are one module; give it one temperature")
    if temperature and temperature.reference_length:
        _refuse_soft_cap(model, "log-n temperatures")
    for layer, module in modules:
        inverse = 1.0 / temperature.of_layer(layer) if temperature else None
        inside(module).inverse = None if inverse == 1.0 else inverse
    if temperature:
        install(model)
    model._lab_temperature = temperature  # type: ignore[assignment]


def _refuse_soft_cap(model: nn.Module, what: str) -> None:
    if getattr(backbone(model).config.get_text_config(), "attn_logit_softcapping", None):
        raise ValueError(
            f"{architecture(model)} caps its logits with one number for all texts, so {what} "
            "can't act on it; give a number"
        )


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
    install(model)
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
    modules = [module for _, module in attention_modules(model)]
    try:
        for module in modules:
            inside(module).inverse = inverse.to(next(model.parameters()).dtype)
        yield
    finally:
        for module in modules:
            inside(module).inverse = None


@contextmanager
def inverse_temperatures(model: nn.Module, inverse: Tensor) -> Iterator[None]:
    """For the length of a block, one tensor (layer,) of 1 / temperature, through which a gradient
    passes: to learn temperatures. What was set before comes back.

    Raises:
        ValueError: not one number per layer; what :func:`set_temperature` refuses; log-n scaling.
    """
    own: Temperature | None = getattr(model, "_lab_temperature", None)
    if inverse.shape != (depth(model),):
        raise ValueError(
            f"one inverse temperature per layer wanted, ({depth(model)},); got "
            f"{tuple(inverse.shape)}"
        )
    if own and own.reference_length:
        raise ValueError("temperatures can't be learned on top of log-n scaling; take that off")
    _refuse_soft_cap(model, "learned temperatures")
    set_temperature(model, Temperature((1.0,) * depth(model)))
    try:
        for layer, module in attention_modules(model):
            inside(module).inverse = inverse[layer : layer + 1]
        yield
    finally:
        set_temperature(model, own)
