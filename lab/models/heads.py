"""Which second module a lab model has: fixed weights over layers, or a trained pooling."""

from collections.abc import Mapping
from typing import Any, Literal

from lab.models import architecture
from lab.models.embedding_model import EmbeddingModel, Head
from lab.models.layer_mix import LayerMix
from lab.models.trained_pooling import TrainedPooling, windows_refused
from lab.poolers import POOLERS
from lab.pooling import LAYER_MIXES, POOLINGS, one_layer
from lab.registry import unknown


def choose(
    model: EmbeddingModel,
    changes: Mapping[str, Any],
    pooler: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> tuple[list[int], Head]:
    """The hidden states to read and the module that makes one embedding of them.

    A trainable pooling that ``changes`` names is drawn anew. One that is there stays, weights and
    all, until its own setting, pooling or layers, changes.

    Args:
        model: as it is.
        changes: what is asked for of ``pooling`` and ``layers``; None: the default.
        pooler: options of the trainable pooling; ``over`` lists the hidden states it reads.
        seed: of its weights; default 0.

    Raises:
        LookupError, ValueError: no such layer, mix, pooling or option; more than one thing to
            train; tokens of several layers; options without a trainable pooling.
    """
    head, encoder = model.head, model.encoder
    kept = _trained(head)
    wanted: dict[str, Any] = {"pooling": None, "layers": None, **kept, **changes}
    pooling, layers = wanted["pooling"], wanted["layers"]
    new = {key for key, name in changes.items() if name in POOLERS}
    _refuse(pooling, layers, bool(new) or (pooler is None and seed is None))
    count, dim = architecture.depth(encoder.model), encoder.get_embedding_dimension()
    options = dict(pooler or {})

    def draw(name: str, reads: Literal["tokens", "layers"], items: int | None) -> TrainedPooling:
        drawn = TrainedPooling(name, dim, reads, items, options, seed=seed or 0)
        return drawn.to(model.device).train(model.training)

    if "layers" in new:
        over = read_over(options.pop("over", [*range(1, count + 1)]))
        chosen = read_over([encoder.layer_index(layer, count) for layer in over], named=over)
        return chosen, draw(layers, "layers", len(chosen))
    mix: Head
    if "layers" in changes:
        chosen, mix = layer_mix(layers, count + 1)
    else:
        chosen, mix = encoder.layers, LayerMix([1.0]) if "pooling" in kept else head
    if pooling not in POOLERS:
        if isinstance(pooling, str) and pooling not in POOLINGS:
            raise LookupError(unknown("pooling", pooling, [*POOLINGS, *POOLERS]))
        return chosen, mix
    if len(chosen) > 1:
        raise ValueError(
            f"pooling={pooling!r} reads the tokens of one layer, here there are {len(chosen)}; "
            f"name one (layers=-1), or pool the layers with it (layers={pooling!r})"
        )
    return chosen, draw(pooling, "tokens", None) if "pooling" in new else head


def read_over(over: object, named: object = None) -> list[int]:
    """The hidden states that a trainable pooling over layers reads, as given, once checked.

    Args:
        over: their numbers.
        named: what to show in a message, where ``over`` was made of something else.

    Raises:
        ValueError: no list of whole numbers, an empty one, or one that names a layer twice.
    """
    shown = over if named is None else named
    if (
        not isinstance(over, list)
        or not over
        or not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in over)
    ):
        raise ValueError(f"over is a list of layers, one or more, such as [-1]; got {shown!r}")
    if len(set(over)) < len(over):
        which = "" if named is None else f", which are the layers {over}"
        raise ValueError(f"over names every layer once; got {shown!r}{which}")
    return over


def _trained(head: Head) -> dict[str, str]:
    """The setting under which a head is trained, pooling or layers, and its name; or nothing."""
    if isinstance(head, TrainedPooling):
        return {"pooling" if head.reads == "tokens" else "layers": head.name}
    return {"layers": head.name} if head.learned else {}


def _refuse(pooling: Any, layers: Any, named: bool) -> None:
    """Refuse two things to train, and options of a trainable pooling that is not named."""
    if not named:
        raise ValueError(
            "pooler and seed are for a trainable pooling; name it along with them, as pooling= or "
            f"layers=: {', '.join(POOLERS)}"
        )
    if pooling in POOLERS and (layers in POOLERS or layers == "learned"):
        raise ValueError(
            f"pooling={pooling!r} and layers={layers!r} would both be trained; take a fixed "
            "pooling (pooling='mean') or one layer (layers=-1)"
        )


def check(model: EmbeddingModel) -> None:
    """Refuse a head that does not fit what comes before or after it.

    Raises:
        ValueError: tokens of parallel windows; a module behind it that wants another width.
    """
    head, extends = model.head, model.encoder.extends
    if not isinstance(head, TrainedPooling):
        return
    if head.reads == "tokens" and extends and extends.windows:
        raise ValueError(windows_refused(head.name))
    width = head.get_embedding_dimension()
    for module in list(model)[2:3]:
        wants = getattr(module, "in_features", width)
        if wants != width:
            raise ValueError(
                f"{head.name} gives {width} dimensions, but the {type(module).__name__} behind it "
                f"takes {wants}; take a pooling of that width"
            )


def layer_mix(layers: int | str | None, states: int) -> tuple[list[int], LayerMix]:
    """The hidden states to pool and the module that weighs them.

    Raises:
        LookupError, ValueError: no such layer or mix.
    """
    if layers == "learned":
        chosen = list(range(1, states))
        return chosen, LayerMix([1 / len(chosen)] * len(chosen), "learned", learned=True)
    layers = "last" if layers is None else layers
    if isinstance(layers, bool) or not isinstance(layers, int | str):
        raise ValueError(f"layers is a number or a name such as 'last_four'; got {layers!r}")
    if isinstance(layers, str) and layers not in LAYER_MIXES:
        raise LookupError(unknown("layer mix", layers, [*LAYER_MIXES, "learned", *POOLERS]))
    weights = LAYER_MIXES[layers](states) if isinstance(layers, str) else one_layer(layers, states)
    chosen = weights.nonzero().flatten().tolist()
    name = layers if isinstance(layers, str) else f"layer_{chosen[0]}"
    return chosen, LayerMix(weights[chosen].tolist(), name)
