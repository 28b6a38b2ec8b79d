"""What a model and the process are for the length of a run, and are no more afterwards."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lab.models.texts import TruncationWarning
from lab.training import adapters
from lab.training.recipe import Recipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@contextmanager
def chosen_parameters(model: "SentenceTransformer", recipe: Recipe) -> Iterator[None]:
    """The recipe's backbone takes gradients; then all is as before, an adapter folded in."""
    flags = {name: tensor.requires_grad for name, tensor in model.named_parameters()}
    attributes = set(vars(model))
    adapted = False
    try:
        if recipe.backbone == "frozen":
            model[0].requires_grad_(False)
        if recipe.backbone == "lora":
            adapters.add(model, recipe.lora, seed=recipe.seed)
            adapted = True
        yield
    except BaseException:
        if adapted:  # an adapter of zeros changes no bit
            for name, tensor in model.named_parameters():
                if name not in flags and "lora_" in name:
                    torch.nn.init.zeros_(tensor)
        raise
    finally:
        for name in vars(model).keys() - attributes:  # accelerate's wrapper around ``forward``
            delattr(model, name)
        if adapted:
            adapters.merge(model)
        for name, tensor in model.named_parameters():
            tensor.requires_grad_(flags[name])
        model.eval()


@contextmanager
def recomputing(model: nn.Module, on: bool) -> Iterator[None]:
    """Gradient checkpointing of every transformer in the model; TrainingArguments leave it on."""
    from transformers import PreTrainedModel

    found = [each for each in model.modules() if on and isinstance(each, PreTrainedModel)]
    for transformer in found:
        transformer.activation_checkpointing_enable()
    try:
        yield
    finally:
        for transformer in found:
            transformer.activation_checkpointing_disable()


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """Random numbers of its own: those outside go on as if nothing had been drawn."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - transformers seeds it
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def counting_cuts(
    model: "SentenceTransformer", recipe: Recipe
) -> Iterator[Callable[..., dict[str, Any]]]:
    """The model's ``preprocess``; its truncation warnings become one, or none with a max_length."""
    cut: list[TruncationWarning] = []
    count = 0

    def preprocess(texts: list[str], *args: Any, **kwargs: Any) -> dict[str, Any]:
        nonlocal count
        count += len(texts)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TruncationWarning)
            features = model.preprocess(texts, *args, **kwargs)
        for item in caught:
            if isinstance(item.message, TruncationWarning):
                cut.append(item.message)
            else:
                warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
        return features

    yield preprocess
    if cut and recipe.max_length is None:
        warnings.warn(TruncationWarning.merged(cut, count), stacklevel=4)
