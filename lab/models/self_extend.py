"""SelfExtend: exact positions near by, grouped ones far away, in one softmax.

Jin et al. 2024 (arXiv:2401.01325), as LongEmbed uses it (arXiv:2404.12096, section 3.2); keys after
the query, which those papers do not have, mirror those before it. The attention functions of
transformers get queries and keys that are rotated already, so what is added here is the rotation
that is missing, by the modelling file's own function.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lab.models import architecture
from lab.models.architecture import attention_modules, backbone
from lab.models.interception import inside, install, is_inline, of_modelling_file
from lab.models.positions import rotary_modules

BACKENDS = ("sdpa", "eager")
CELLS = 2**22  # logits that are in memory at a time

Turn = Callable[[Tensor, Tensor], Tensor]  # states (batch, head, seq, dim), steps (batch, seq)


def relative_positions(length: int, group: int, window: int) -> Tensor:
    """(length, length) the relative position D' at which query i (row) sees key j (column).

    D' = D for ``|D| < w`` with D = j - i, else sign(D) (floor(a/g) - floor(b/g) + w - floor(w/g))
    with a the larger and b the smaller index (core.md 6.1).
    """
    place = torch.arange(length)
    distance = place - place[:, None]
    larger, smaller = torch.maximum(place, place[:, None]), torch.minimum(place, place[:, None])
    far = larger // group - smaller // group + window - window // group
    return torch.where(distance.abs() < window, distance, distance.sign() * far)


@contextmanager
def self_extended(
    model: nn.Module, mask: Tensor, *, length: int, group: int, window: int
) -> Iterator[None]:
    """For the length of a block, texts of more than ``length`` tokens are read with SelfExtend.

    ``mask`` (batch, seq) is 1 for real tokens, ``group`` how many positions become one from the
    distance ``window`` on.

    Raises:
        ValueError: what :func:`refuse` refuses; gradient checkpointing, whose recomputation would
            run after this batch is forgotten.
    """
    refuse(model)
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    if recomputes and torch.is_grad_enabled():
        raise ValueError(
            "self-extend can't be recomputed under gradient checkpointing; turn one of the two off"
        )
    counted = (mask.long().cumsum(-1) - 1).clamp(min=0)
    reach = torch.where(mask.sum(-1) > length, window, mask.shape[1])
    modules = attention_modules(model)
    rotating = [modules[place] for place in _rotating(model)]
    install(model)
    try:
        for layer, module in rotating:
            turn = partial(_turned, model, layer, module)
            inside(module).attend = partial(
                _attend, turn=turn, place=counted, group=group, window=window, reach=reach
            )
        yield
    finally:
        for _, module in rotating:
            inside(module).attend = None


def refuse(model: nn.Module) -> None:
    """Refuse a model whose attention function can't be replaced.

    Raises:
        ValueError: attention that is written inline, another backend than sdpa or eager, several
            rotary modules.
    """
    name, backend = architecture.architecture(model), backbone(model).config._attn_implementation
    if any(is_inline(module) for _, module in attention_modules(model)):
        raise ValueError(
            f"{name} writes its attention inline, where self-extend can't replace it; another "
            "extension of rotary positions can act"
        )
    if backend not in BACKENDS:
        raise ValueError(
            f"self-extend needs a mask that {backend} attention does not get; load {name} with "
            "attn_implementation='sdpa' or 'eager'"
        )
    if len(rotary_modules(model)) > 1:
        raise ValueError(f"{name} has several rotary modules; self-extend needs one for all layers")


def _turned(
    model: nn.Module, layer: int, module: nn.Module, vectors: Tensor, steps: Tensor
) -> Tensor:
    """Rotated queries or keys (batch, head, seq, dim), turned further by ``steps`` (batch, seq)."""
    (rotary,) = rotary_modules(model)
    config = backbone(model).config.get_text_config()
    by_kind = "layer_type" in architecture.parameters(type(rotary).forward)
    kind = {"layer_type": config.layer_types[layer]} if by_kind else {}
    cos, sin = rotary(vectors.float(), steps, **kind)
    apply = of_modelling_file(module, "apply_rotary_pos_emb")
    part = cos.shape[-1]  # models with a partial rotation split there, some of them in `apply`
    front = vectors[..., :part].float()
    turned, _ = apply(front, front, cos, sin)
    return torch.cat([turned.to(vectors.dtype), vectors[..., part:]], -1)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    turn: Turn,
    place: Tensor,
    group: int,
    window: int,
    reach: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """An attention function of transformers that sees what is ``reach`` away at grouped positions.

    ``place`` (batch, seq) are positions, ``reach`` (batch,) the window of each text. A few queries
    at a time, so that memory grows with the number of keys only. Returns the weights under eager.
    """
    grouped, shift = place // group, window - window // group
    repeats = query.shape[1] // key.shape[1]
    plain, far = (keys.repeat_interleave(repeats, 1) for keys in (key, turn(key, grouped - place)))
    value = value.repeat_interleave(repeats, 1)
    after = turn(query, grouped + shift - place)  # for keys that come before the query
    before = turn(query, grouped - shift - place)  # for keys that come after it
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    keep = module.config._attn_implementation == "eager"  # type: ignore[union-attr]
    outputs, maps = [], []
    size = max(1, CELLS // (len(query) * query.shape[1] * key.shape[2]))
    for rows in torch.arange(query.shape[2], device=query.device).split(size):
        distance = (place[:, None] - place[:, rows, None])[:, None]  # (batch, 1, query, key)
        seen = _seen(attention_mask, rows, key.shape[2], causal and not keep)
        logits = query[:, :, rows] @ plain.mT
        for vectors, where in (
            (after, distance <= -reach.view(-1, 1, 1, 1)),
            (before, distance >= reach.view(-1, 1, 1, 1)),
        ):
            if (where & seen).any():
                logits = torch.where(where, vectors[:, :, rows] @ far.mT, logits)
        weights = _softmax(logits.float() * scaling, seen, softcap).to(value.dtype)
        weights = torch.dropout(weights, dropout, module.training)
        outputs.append(weights @ value)
        maps += [weights] if keep else []
    output = torch.cat(outputs, 2).transpose(1, 2).contiguous()
    return output, torch.cat(maps, 2) if keep else None


def _softmax(logits: Tensor, seen: Tensor, softcap: float | None) -> Tensor:
    """Attention weights; those of a query that sees no key are even, not NaN."""
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return logits.masked_fill(~seen, torch.finfo(logits.dtype).min).softmax(-1)


def _seen(mask: Tensor | None, rows: Tensor, keys: int, causal: bool) -> Tensor:
    """(batch or 1, 1, query, key) which keys these queries see."""
    if mask is None:
        places = torch.arange(keys, device=rows.device)
        return ((places <= rows[:, None]) if causal else (places >= 0)[None])[None, None]
    mask = mask[:, :, rows]
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def _rotating(model: nn.Module) -> list[int]:
    """Which attention modules rotate queries and keys; the others (NoPE layers) have no positions.

    Measured once: from one pass with all tokens at position 0 and one with all at position 3, whose
    states are the same. What is rotated must be so as :func:`_turned` rotates, or two rotations
    would not add up.

    Raises:
        ValueError: some module does something else, such as scaling or a norm after the rotation.
    """
    known: list[int] | None = getattr(model, "_lab_rotating", None)
    if known is None:
        modules = attention_modules(model)
        at_zero, at_three = _queries_and_keys(model, 0), _queries_and_keys(model, 3)
        known = [
            place
            for place, (layer, module) in enumerate(modules)
            if _is_rotated(model, layer, module, at_zero[module], at_three[module])
        ]
        model._lab_rotating = known  # type: ignore[assignment]
    return known


def _is_rotated(
    model: nn.Module, layer: int, module: nn.Module, at_zero: list[Tensor], at_three: list[Tensor]
) -> bool:
    steps = torch.full(at_zero[0].shape[::2], 3, device=at_zero[0].device)
    ours = [_turned(model, layer, module, vectors, steps) for vectors in at_zero]
    if all(map(_close, at_three, ours)):
        return True
    if all(map(_close, at_three, at_zero)):
        return False
    raise ValueError(
        f"layer {layer} of {architecture.architecture(model)} does more to its queries and keys "
        "than rotate them (it scales the rotation, or something follows it), so self-extend can't "
        "act; another extension of rotary positions can"
    )


def _close(found: Tensor, expected: Tensor) -> bool:
    tolerance = torch.finfo(found.dtype).eps ** 0.75 * float(expected.abs().max())
    return bool((found - expected).abs().max() <= tolerance)


def _queries_and_keys(model: nn.Module, position: int) -> dict[nn.Module, list[Tensor]]:
    """What each attention function gets in a pass with all tokens at one position."""
    refuse(model)
    install(model)
    kept: dict[nn.Module, list[Tensor]] = {}

    def keep(module: nn.Module, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        kept[module] = [query, key]
        return _attend(module, query, key, *args, **{**kwargs, **nowhere})

    ids = architecture.probe_ids(model, 3)
    same = torch.full_like(ids, position)
    nowhere = {"turn": lambda vectors, steps: vectors, "place": same, "group": 1, "window": 1}
    nowhere["reach"] = torch.full_like(ids[:, 0], 3)
    modules = [module for _, module in attention_modules(model)]
    with architecture.evaluating(model):
        try:
            for module in modules:
                inside(module).attend = keep
            architecture.plain_states(
                model, input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=same
            )
        finally:
            for module in modules:
                inside(module).attend = None
    return kept
