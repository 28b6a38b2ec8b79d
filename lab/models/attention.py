"""Which tokens see which, on any transformers model, without subclassing.

:func:`prepare` sets what a mode needs on the config, once; :func:`forward_kwargs` gives what it
needs with every batch. Masks are built by transformers' own builders, in the format that the
backend wants: nothing is copied from modelling files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import masking_utils

from lab.models.architecture import architecture, backbone, is_decoder, position_ids, windows
from lab.registry import Registry


@dataclass(frozen=True)
class Mode:
    """An attention mode: what to set on the config once, and what to pass with every batch.

    Attributes:
        is_causal: value of ``config.is_causal`` for a decoder; None leaves the checkpoint's own.
        sees: for an encoder, a transformers mask function AND-ed to the native mask; None for no
            change. It takes the prefix lengths and returns the function.
        prefix: whether the mode needs the number of prefix tokens of each text.
    """

    is_causal: bool | None
    sees: Callable[[Tensor | None], Callable[..., Any]] | None = None
    prefix: bool = False


MODES: Registry[Mode] = Registry("attention mode")
MODES(Mode(None), "native")
MODES(Mode(False), "bidirectional")
MODES(Mode(True, lambda _: masking_utils.causal_mask_function), "causal")
MODES(
    Mode(
        True,
        lambda ends: masking_utils.or_masks(
            masking_utils.causal_mask_function, _prefix_block(ends)
        ),
        prefix=True,
    ),
    "prefix",
)


def _prefix_block(ends: Tensor | None) -> Callable[..., Any]:
    """A mask function: both query and key lie before the end of the prefix of their text."""

    def block(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query < ends[batch]) & (key < ends[batch])  # type: ignore[index]

    return block


def prepare(model: nn.Module, mode: str, native_is_causal: bool | str | None) -> None:
    """Set ``config.is_causal`` for a mode, once per model object; call it again to change mode.

    ``config.is_causal = False`` turns any decoder of transformers >= 5.2 bidirectional, with and
    without padding. It must be an attribute of the loaded config: as a loading option it is
    dropped in silence (core.md 1.1). ``native_is_causal`` is the checkpoint's own value, and a
    text or None where it has none.

    Raises:
        LookupError: no such mode.
    """
    wanted = MODES[mode].is_causal if is_decoder(model) else None
    value = native_is_causal if wanted is None else wanted
    config = backbone(model).config
    if not isinstance(value, bool):
        config.__dict__.pop("is_causal", None)
    else:
        config.is_causal = value


def forward_kwargs(
    model: nn.Module, mode: str, mask: Tensor, prefix_lengths: Tensor | None = None
) -> dict[str, Any]:
    """The keyword arguments of a forward call under ``mode``: attention mask and position ids.

    Args:
        model: a model that :func:`prepare` has set to the same mode.
        mode: a name in ``MODES``.
        mask: (batch, seq) 1 for real tokens.
        prefix_lengths: (batch,) tokens of each text, counted from its first real one, that see
            each other both ways. In layers with a sliding window a decoder's prefix reaches over
            the window, an encoder's does not (transformers ORs the first and ANDs the second).

    Raises:
        ValueError: the mode needs a custom mask and the attention backend ignores those.
    """
    positions = position_ids(model, mask)
    kwargs: dict[str, Any] = {"attention_mask": mask}
    if positions is not None:
        kwargs["position_ids"] = positions
    chosen, decoder = MODES[mode], is_decoder(model)
    custom = chosen.prefix if decoder else chosen.sees is not None
    if custom or (decoder and chosen.is_causal is False and windows(model)):
        _refuse_flash(model, mode)
    if custom:
        ends = None
        if prefix_lengths is not None:
            ends = (mask.cumsum(-1) == 0).sum(-1) + prefix_lengths
        build = _decoder_prefix_mask if decoder else _encoder_mask
        kwargs["attention_mask"] = build(model, mask, positions, ends, chosen)
    return kwargs


def _refuse_flash(model: nn.Module, mode: str) -> None:
    """Flash attention ignores custom masks in silence and cuts a two-sided window one short."""
    backend = str(backbone(model).config._attn_implementation)
    if "flash" in backend:
        raise ValueError(
            f"attention={mode!r} needs a mask on {architecture(model)} that {backend} gets "
            "wrong in silence; load the model with attn_implementation='sdpa' or 'eager'"
        )


def _like(model: nn.Module, mask: Tensor) -> Tensor:
    """What the mask builders want to know of the inputs: shape, dtype, device."""
    return torch.empty(*mask.shape, 1, dtype=next(model.parameters()).dtype, device=mask.device)


def _decoder_prefix_mask(
    model: nn.Module, mask: Tensor, positions: Tensor | None, ends: Tensor | None, mode: Mode
) -> Any:
    index = torch.arange(mask.shape[1], device=mask.device)
    inside = (index < ends[:, None]) & mask.bool()  # type: ignore[index]
    return masking_utils.create_masks_for_generate(
        config=backbone(model).config,
        inputs_embeds=_like(model, mask),
        attention_mask=mask,
        past_key_values=None,
        position_ids=positions,
        block_sequence_ids=torch.where(inside, 0, -1),
    )


def _encoder_mask(
    model: nn.Module, mask: Tensor, positions: Tensor | None, ends: Tensor | None, mode: Mode
) -> Any:
    config = backbone(model).config
    built = {
        "full_attention": masking_utils.create_bidirectional_mask,
        "sliding_attention": masking_utils.create_bidirectional_sliding_window_mask,
    }
    kinds = set(getattr(config, "layer_types", None) or ()) | {"full_attention"}
    masks = {
        kind: built[kind](
            config=config,
            inputs_embeds=_like(model, mask),
            attention_mask=mask,
            and_mask_function=mode.sees(ends),  # type: ignore[misc]
        )
        for kind in kinds
    }
    return masks if len(masks) > 1 else masks["full_attention"]
