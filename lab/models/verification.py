"""A model's settings, tried on a few tokens: what does not act is an error, never silence.

Every failure of an attention switch is silent upstream (a flag that is dropped, a mask that a
backend ignores, a temperature that never reaches the softmax), so every encoder is checked once
when it is configured: a handful of forward passes over five tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from lab.models import architecture
from lab.models.architecture import is_decoder, probe_ids
from lab.models.attention import MODES, prepare
from lab.models.encoder import Encoder
from lab.models.extension import Extension
from lab.models.temperature import Temperature, set_temperature

LENGTH, PREFIX = 5, 3  # tokens of the probe, and of its instruction
PADS = [(0, 0), (3, 0), (0, 3)]  # pads to the left and to the right of the tokens
NOT_FINITE = "its states are not finite"


def verify(encoder: Encoder) -> None:
    """Check that attention, padding, temperature and extension do what the settings say.

    Raises:
        ValueError: something does not act; names the architecture, the backend and what it can do.
    """
    with architecture.evaluating(encoder.model):
        _verify(encoder)


def _verify(encoder: Encoder) -> None:
    name = architecture.architecture(encoder.model)
    backend = encoder.model.config._attn_implementation
    wrong = _what_is_wrong(encoder, encoder.attention)
    if wrong == NOT_FINITE:
        raise ValueError(
            f"the states of {name} are not finite: check its weights, the dtype and "
            f"the temperature {encoder.temperature!r}"
        )
    if wrong:
        can = [mode for mode in MODES if not _tried(encoder, mode)]
        raise ValueError(
            f"{name} with {backend} attention can't do attention="
            f"{encoder.attention!r}: {wrong}; it can do {', '.join(can)}"
        )
    temperature = Temperature.parse(encoder.temperature, architecture.depth(encoder.model))
    if temperature and {*temperature.values, temperature.reference_length} != {1.0, None}:
        if not _temperature_acts(encoder, temperature):
            raise ValueError(
                f"the temperature does not reach the attention of {name} with "
                f"{backend}; try attn_implementation='eager'"
            )
    if encoder.extends and not encoder.extends.windows:
        wrong = _extension_is_wrong(encoder, encoder.extends)
        if wrong:
            raise ValueError(
                f"{name} with {backend} attention can't do extension={encoder.extension!r}: {wrong}"
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
        before, after = (_last_states(encoder, row, PADS[:1]) for row in (ids, _changed(ids, -1)))
        padded, later = (_last_states(encoder, row, PADS[1:]) for row in (ids, _changed(ids, -1)))
        inside = _last_states(encoder, _changed(ids, PREFIX - 1), PADS[:1])
    except (ValueError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    if not all(states.isfinite().all() for states in (before, after, padded, later, inside)):
        return NOT_FINITE
    two_sided = mode == "bidirectional" or (mode == "native" and _natively_two_sided(encoder))
    wrong = _flow_is_wrong(before, after, two_sided, "the last token")
    wrong = wrong or _flow_is_wrong(padded, later, two_sided, "the last token before padding")
    if mode == "prefix":
        wrong = wrong or _flow_is_wrong(before, inside, True, "the last token of the instruction")
    return wrong or _padding_is_wrong(before, padded)


def _changed(ids: Tensor, place: int) -> Tensor:
    """The same tokens with another one at a place."""
    other = ids.clone()
    other[:, place] = ids[:, (place + 1) % LENGTH]
    return other


def _natively_two_sided(encoder: Encoder) -> bool:
    """Whether the untouched checkpoint lets every token see every other."""
    return not is_decoder(encoder.model) or encoder.native_is_causal is False


def _flow_is_wrong(before: Tensor, after: Tensor, must_reach: bool, what: str) -> str:
    """An empty string, or that a change of some token reached the first one when it must not, ...

    Arguments are the states (text, seq, dim) before and after that change.
    """
    reach = (before - after)[:, 0].abs().amax(-1) / before[:, 0].abs().amax(-1)
    if ((reach > 1e-6) == must_reach).all():
        return ""
    return f"a change of {what} {'does not reach' if must_reach else 'reaches'} the first one"


def _padding_is_wrong(alone: Tensor, padded: Tensor) -> str:
    """An empty string, or by how much padding changes the states."""
    tolerance = torch.finfo(alone.dtype).eps ** 0.5 * float(alone.abs().max())
    change = float((padded - alone).abs().max())
    return "" if change <= tolerance else f"padding changes the states by {change:.2g}"


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
            "prefix_lengths": torch.full((len(pads),), PREFIX, device=ids.device),
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


def _extension_is_wrong(encoder: Encoder, own: Extension) -> str:
    """An empty string, or what an extension does not do; it is tried with a short length."""
    ids, method = probe_ids(encoder.model, LENGTH), own.method

    def tried(numbers: tuple[float, ...] | None, pads: list[tuple[int, int]]) -> Tensor:
        encoder.extends = replace(own, numbers=numbers) if numbers else None
        return _last_states(encoder, ids, pads)

    try:
        plain, alone = tried(None, PADS[:1]), tried(method.trial, PADS[:1])
        if torch.equal(plain, alone):
            return "it does not reach the positions"
        if method.neutral and _padding_is_wrong(plain, tried(method.neutral, PADS[:1])):
            return "it changes the states even when it moves no position"
        return _padding_is_wrong(alone, tried(method.trial, PADS[1:]))
    finally:
        encoder.extends = own


@contextmanager
def _temporarily(encoder: Encoder, now: Temperature | None, own: Temperature) -> Iterator[None]:
    """Another temperature for the length of a block."""
    set_temperature(encoder.model, now)
    try:
        yield
    finally:
        set_temperature(encoder.model, own)
