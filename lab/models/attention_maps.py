"""Attention maps of one forward pass, layer by layer: never those of all layers in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lab.models.architecture import architecture, attention_modules, backbone, depth, evaluating
from lab.models.embedding_model import EmbeddingModel
from lab.models.interception import inside, install

OnMap = Callable[[int, Tensor, Tensor | None], None]
OnHidden = Callable[[int, Tensor], None]


def read_maps(
    model: EmbeddingModel,
    features: dict[str, Any],
    on_map: OnMap,
    on_hidden: OnHidden | None = None,
) -> None:
    """Run one pass over a batch under the model's settings and hand over every attention map.

    ``on_map(l, A, V)`` gets the weights A (batch, head, query, key) of layer l = 0 .. L-1, after
    the softmax at the model's temperature, and the values V (batch, key head, key, dim), None where
    the architecture writes its attention inline. Rows of real tokens sum to 1; those of pads mean
    nothing. ``on_hidden(l, h)`` gets the hidden states as in :func:`lab.models.states.read`.

    The backend is eager and dropout off for the length of the call: no other backend keeps the
    weights. A model that can't change its backend has them computed a second time.

    Args:
        model: a lab model.
        features: what ``model.encoder.collate`` makes of tokenised texts, on the model's device.
        on_map: what to do with a map; it is gone afterwards unless kept.
        on_hidden: what to do with the hidden states.

    Raises:
        ValueError: the architecture has no attention weights to read.
    """
    encoder = model.encoder
    hidden = on_hidden or (lambda layer, states: None)
    with _observed(encoder.model, on_map):
        encoder.read(features, hidden, depth(encoder.model))


@contextmanager
def _observed(model: nn.Module, on_map: OnMap) -> Iterator[None]:
    modules = attention_modules(model)
    if not modules:
        raise ValueError(f"{architecture(model)} has no dot-product attention, so it has no maps")
    seen = iter(range(depth(model)))  # layers that share their weights are one module

    def observe(weights: Tensor | None, value: Tensor | None) -> None:
        if weights is None:
            raise ValueError(
                f"{architecture(model)} keeps its attention weights to itself; no map can be read"
            )
        on_map(next(seen), weights, value)

    transformer: Any = backbone(model)
    backend = transformer.config._attn_implementation
    try:
        transformer.set_attn_implementation("eager")
        install(model)
        for _, module in modules:
            inside(module).observe = observe
        with evaluating(model):
            yield
    finally:
        for _, module in modules:
            inside(module).observe = None
        transformer.set_attn_implementation(backend)
