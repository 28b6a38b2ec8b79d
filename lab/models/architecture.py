"""What a transformers model is made of, found without a list of names.

Layers and attention modules are found by structure, decoder or encoder is measured, position ids
follow the position scheme. Everything that changes a model (attention, temperature, states) stands
on this.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def backbone(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, also from inside a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore


def architecture(model: nn.Module) -> str:
    """The architecture's name as transformers calls it (``config.model_type``), for messages."""
    return str(backbone(model).config.model_type)


def depth(model: nn.Module) -> int:
    """L, the number of times that a state passes a transformer layer."""
    return int(backbone(model).config.get_text_config().num_hidden_layers)


def layers(model: nn.Module) -> list[nn.Module]:
    """The transformer layers in the order of the forward pass.

    One module where all layers share their weights (ALBERT): it is entered L times.

    Raises:
        ValueError: the model has no list of layers.
    """
    lists = [module for module in backbone(model).modules() if isinstance(module, nn.ModuleList)]
    alike = [found for found in lists if len(found) and len({type(item) for item in found}) == 1]
    fitting = [found for found in alike if len(found) == depth(model)]
    if not alike:
        raise ValueError(f"{architecture(model)} has no list of transformer layers to read")
    return list((fitting or sorted(alike, key=len, reverse=True))[0])


@cache
def uses_interface(forward: Callable[..., Any]) -> bool:
    """Whether this forward asks transformers' registry for its attention function."""
    try:
        return "get_interface(" in inspect.getsource(forward)
    except (OSError, TypeError):
        return False


def attention_modules(model: nn.Module) -> list[tuple[int, nn.Module]]:
    """(layer, module) for every module that computes softmax(QK^T), in order; may be empty."""
    found = []
    for index, layer in enumerate(layers(model)):
        inner = list(layer.modules())
        by_interface = [module for module in inner if uses_interface(type(module).forward)]
        named = [module for module in inner if "Attention" in type(module).__name__]
        innermost = [
            module
            for module in named
            if not any(child in named for child in module.modules() if child is not module)
        ]
        found += [(index, module) for module in by_interface or innermost]
    return found


def windows(model: nn.Module) -> bool:
    """Whether some layers of the model see only a sliding window."""
    config = backbone(model).config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    return bool(kinds) or bool(getattr(config, "sliding_window", None))


@cache
def parameters(forward: Callable[..., Any]) -> frozenset[str]:
    """The parameter names of a model class's forward."""
    return frozenset(inspect.signature(forward).parameters)


def no_cache(model: nn.Module) -> dict[str, bool]:
    """``use_cache=False`` where the model knows it: the default cache costs memory and batches."""
    known = "use_cache" in parameters(type(backbone(model)).forward)
    return {"use_cache": False} if known else {}


def position_ids(model: nn.Module, mask: Tensor) -> Tensor | None:
    """(batch, seq) position ids that count real tokens, whatever the padding; None if not taken.

    RoBERTa-like models (a learned position table with a padding index) count from padding_idx + 1
    and give pads the padding index; every other scheme counts from 0 (core.md 1.3).
    """
    if "position_ids" not in parameters(type(backbone(model)).forward):
        return None
    counted = (mask.long().cumsum(-1) - 1).clamp(min=0)
    offset = _padding_position(model)
    return counted if offset is None else torch.where(mask.bool(), counted + offset + 1, offset)


def positions(model: nn.Module) -> int | None:
    """How many tokens the position scheme has room for; None where it has no limit."""
    config = backbone(model).config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    offset = _padding_position(model)
    if not isinstance(most, int) or most < 1:
        return None
    return most if offset is None else most - offset - 1


def _padding_position(model: nn.Module) -> int | None:
    """The position of pads in RoBERTa-like models, whose tokens count from the next one."""
    for module in backbone(model).modules():
        offset = getattr(module, "padding_idx", None)
        table = getattr(module, "position_embeddings", None)
        if isinstance(offset, int) and isinstance(table, nn.Embedding):
            return offset
    return None


def buffered_masks(model: nn.Module) -> int | None:
    """How many tokens fit the causal masks that a model keeps as buffers (GPT-Neo); else None."""
    sizes = [
        buffer.shape[-1]
        for _, module in attention_modules(model)
        for buffer in module.buffers()
        if buffer.ndim == 4 and buffer.shape[-1] == buffer.shape[-2]
    ]
    return min(sizes, default=None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """For the length of a block: no gradients and no dropout, whatever the model is doing."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@torch.no_grad()
def reaches_first_token(model: nn.Module, run: Callable[[Tensor, Tensor], Tensor]) -> float:
    """How much the first state changes, relative to its size, when only the last token changes.

    Zero under a causal mask. ``run`` maps input ids and a mask (batch, seq) to the last states.
    """
    ids = probe_ids(model, 5)
    other = ids.clone()
    other[:, -1] = ids[:, 0]
    mask = torch.ones_like(ids)
    before, after = run(ids, mask)[:, 0], run(other, mask)[:, 0]
    return float((before - after).abs().max() / before.abs().max())


def probe_ids(model: nn.Module, length: int) -> Tensor:
    """A few distinct ordinary token ids, shape (1, length), on the model's device."""
    size = backbone(model).config.get_text_config().vocab_size
    ids = torch.linspace(size * 0.4, size * 0.9, length).long()
    return ids[None].to(next(model.parameters()).device)


def is_decoder(model: nn.Module) -> bool:
    """Whether the untouched model is causal: measured, not read from a list of names.

    Measured with ``config.is_causal`` as it would be by default, so that a decoder that was saved
    as bidirectional is still known as a decoder.
    """
    config = backbone(model).config
    known = getattr(model, "_lab_is_decoder", None)
    if known is None:
        saved = config.__dict__.pop("is_causal", None)
        try:
            with evaluating(model):
                known = (
                    reaches_first_token(
                        model,
                        lambda ids, mask: plain_states(model, input_ids=ids, attention_mask=mask),
                    )
                    < 1e-6
                )
        finally:
            if saved is not None:
                config.is_causal = saved
        model._lab_is_decoder = known  # type: ignore[assignment]
    return bool(known)


def plain_states(model: nn.Module, **inputs: Any) -> Tensor:
    """The last hidden states (batch, seq, dim) of one forward call without a cache."""
    if "position_ids" not in inputs:
        inputs["position_ids"] = position_ids(model, inputs["attention_mask"])
    if inputs["position_ids"] is None:
        del inputs["position_ids"]
    return model(**inputs, **no_cache(model))[0]
