"""Every hidden state of one forward pass, as it appears, with early exit."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lab.models.architecture import depth, layers, no_cache


class _Enough(Exception):  # noqa: N818 - not an error: the forward pass has given all that was asked
    """Raised inside a forward pass to leave it early; never escapes :func:`read`."""


def read(
    model: nn.Module,
    inputs: dict[str, Any],
    on_hidden: Callable[[int, Tensor], Tensor | None],
    *,
    stop_after: int | None = None,
) -> None:
    """Run one forward pass and hand over every hidden state as it appears.

    ``on_hidden(l, h)`` gets h (batch, seq, dim) for l = 0 (embeddings) to L (the model's output,
    after the final norm). A tensor that it returns for l < L replaces the state in the pass
    (clone before editing). The pass ends after state ``stop_after``.

    States are read at the *inputs* of the layers: outputs differ from ``hidden_states`` where a
    model works between layers (DeBERTa). Calls are counted, not modules (ALBERT).

    Raises:
        RuntimeError: another pass over the same model object is being read.
    """
    last = depth(model) if stop_after is None else stop_after
    if getattr(model, "_lab_reading", False):
        raise RuntimeError(
            "this model object is being read already; one pass at a time, "
            "lab.models.variant makes a second object with the same weights"
        )
    calls = iter(range(depth(model)))

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict] | None:
        layer = next(calls)
        state = args[0] if args else kwargs["hidden_states"]
        new = on_hidden(layer, state)
        if layer == last:
            raise _Enough
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers(model)]
    model._lab_reading = True  # type: ignore[assignment]
    try:
        output = model(**inputs, **no_cache(model))
        on_hidden(depth(model), output[0])
    except _Enough:
        pass
    finally:
        model._lab_reading = False  # type: ignore[assignment]
        for hook in hooks:
            hook.remove()
