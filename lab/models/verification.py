"""A model's settings, tried on a few tokens: what does not act is an error, never silence.

Every failure of an attention switch is silent upstream (a flag that is dropped, a mask that a
backend ignores, a temperature that never reaches the softmax), so every encoder is checked once
when it is configured: a handful of forward passes over five tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lab.models import architecture
from lab.models.architecture import probe_ids
from lab.models.attention import MODES, prepare
from lab.models.encoder import Encoder
from lab.models.temperature import Temperature, set_temperature

LENGTH = 5


@torch.no_grad()
def verify(encoder: Encoder) -> None:
    """Check that attention, padding and temperature do what the settings say.

    Raises:
        ValueError: something does not act; names the architecture, the backend and what it can do.
    """
    training = encoder.model.training
    encoder.model.eval()
    try:
        _verify(encoder)
    finally:
        encoder.model.train(training)


def _verify(encoder: Encoder) -> None:
    name = architecture.architecture(encoder.model)
    backend = encoder.model.config._attn_implementation
    wrong = _what_is_wrong(encoder, encoder.attention)
    if wrong:
        can = [mode for mode in MODES if not _tried(encoder, mode)]
        raise ValueError(
            f"{name} with {backend} attention can't do attention="
            f"{encoder.attention!r}: {wrong}; it can do {', '.join(can)}"
        )
    temperature = Temperature.parse(encoder.temperature, architecture.depth(encoder.model))
    if temperature and (*temperature.values, temperature.reference_length) != (1.0, None):
        if not _temperature_acts(encoder, temperature):
            raise ValueError(
                f"the temperature does not reach the attention of {name} with "
                f"{backend}; try attn_implementation='eager'"
            )


def _tried(encoder: Encoder, mode: str) -> str:
    """What is wrong with another mode on this model; the encoder's own mode is put back."""
    own = encoder.attention
    try:
        encoder.attention = mode
        prepare(encoder.model, mode, encoder.native_is_causal)
        return _what_is_wrong(encoder, mode)
    finally:
        encoder.attention = own
        prepare(encoder.model, own, encoder.native_is_causal)


def _what_is_wrong(encoder: Encoder, mode: str) -> str:
    """An empty string, or what does not act."""
    try:
        ids = probe_ids(encoder.model, LENGTH)
        other = ids.clone()
        other[:, -1] = ids[:, 0]
        runs = [(_last_states(encoder, row, PADS[:1]), "without padding") for row in (ids, other)]
        padded, padded_after = (_last_states(encoder, row, PADS[1:]) for row in (ids, other))
    except (ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    (before, how), (after, _) = runs
    return _flow_is_wrong(before, after, mode, how) or _padding_is_wrong(
        before, padded, padded_after, mode
    )


PADS = [(0, 0), (3, 0), (0, 3)]  # pads to the left and to the right of the tokens


def _flow_is_wrong(before: Tensor, after: Tensor, mode: str, how: str) -> str:
    """An empty string, or that a change of the last token went where it must not, or not where.

    Arguments are the states (text, seq, dim) before and after that change.
    """
    reach = (before - after)[:, 0].abs().amax(-1) / before[:, 0].abs().amax(-1)
    reaches = reach > 1e-6
    if mode == "native" or (reaches == (mode == "bidirectional")).all():
        return ""
    flow = "reaches" if reaches.any() else "does not reach"
    return f"a change of the last token {flow} the first one, {how}"


def _padding_is_wrong(alone: Tensor, before: Tensor, after: Tensor, mode: str) -> str:
    """An empty string, or by how much padding changes the states or the flow between them."""
    tolerance = torch.finfo(alone.dtype).eps ** 0.5 * float(alone.abs().max())
    change = float((before - alone).abs().max())
    if not change <= tolerance:
        return f"padding changes the states by {change:.2g}"
    return _flow_is_wrong(before, after, mode, "with padding")


def _last_states(encoder: Encoder, ids: Tensor, pads: list[tuple[int, int]]) -> Tensor:
    """(padding, seq, dim) the last states of the tokens, once for each padding, in one batch."""
    filler = encoder.tokenizer.pad_token_id or 0
    pad = torch.nn.functional.pad
    count = architecture.depth(encoder.model)
    kept: list[Tensor] = []
    encoder.read(
        {
            "input_ids": torch.cat([pad(ids, sides, value=filler) for sides in pads]),
            "attention_mask": torch.cat([pad(torch.ones_like(ids), sides) for sides in pads]),
            "prefix_lengths": torch.full((len(pads),), LENGTH - 2, device=ids.device),
        },
        lambda layer, hidden: kept.append(hidden) if layer == count else None,
        stop_after=count,
    )
    return torch.stack(
        [states[left : left + LENGTH] for states, (left, _) in zip(kept[0], pads, strict=True)]
    )


def _temperature_acts(encoder: Encoder, temperature: Temperature) -> bool:
    """Whether the states change with the temperature; log-n is tried with a short reference."""
    tried = Temperature(reference_length=2) if temperature.reference_length else temperature
    ids = probe_ids(encoder.model, LENGTH)
    with _temporarily(encoder, None, temperature):
        untouched = _last_states(encoder, ids, PADS[:1])
    with _temporarily(encoder, tried, temperature):
        return not torch.equal(_last_states(encoder, ids, PADS[:1]), untouched)


@contextmanager
def _temporarily(encoder: Encoder, now: Temperature | None, own: Temperature) -> Iterator[None]:
    """Another temperature for the length of a block."""
    set_temperature(encoder.model, now)
    try:
        yield
    finally:
        set_temperature(encoder.model, own)
