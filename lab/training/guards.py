"""What can go wrong in a run, said so that one knows what to do."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lab.training.pairs import Pairs
from lab.training.recipe import Recipe

RECOMPUTES_SINCE = "5.23"  # transformers; before, gradients under hooks were wrong by 4-90 %
ALLOCATORS = ("DefaultCPUAllocator", "not enough memory", "out of memory")
SHOWN = 3  # texts of a bad batch


def check_data(pairs: Pairs, held_out: Pairs | None, recipe: Recipe) -> None:
    """Refuse pairs that a recipe can't be run on.

    Raises:
        ValueError: fewer pairs than a batch, held-out pairs of another form or with texts that are
            trained on, or ``evaluate_every`` without held-out pairs.
    """
    for each in (pairs, held_out) if held_out else (pairs,):
        if len(each) < recipe.batch:
            raise ValueError(
                f"{each.name} has {len(each)} pairs, fewer than a batch of {recipe.batch}: take a "
                "smaller batch or more data"
            )
    if held_out is None:
        if recipe.evaluate_every is not None:
            raise ValueError(
                f"evaluate_every={recipe.evaluate_every} needs held_out pairs; "
                "Pairs.split gives some"
            )
        return
    if held_out.columns != pairs.columns:
        raise ValueError(
            f"held-out pairs have {', '.join(held_out.columns)} and those trained on "
            f"{', '.join(pairs.columns)}, so their losses can't be compared"
        )
    known = set(pairs.texts)
    shared = [text for text in held_out.texts if text in known]
    if shared:
        raise ValueError(
            f"{len(shared)} of {len(held_out.texts)} held-out texts are trained on, such as "
            f"{shared[0][:40]!r}; Pairs.split keeps them apart"
        )


def check_weights(model: nn.Module, recipe: Recipe) -> None:
    """Refuse a model of which nothing, or nothing that can be trained well, takes gradients.

    Raises:
        ValueError: no parameter takes a gradient; one that does is in half precision.
    """
    taking = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not taking:
        raise ValueError(
            "backbone='frozen' leaves nothing to train, since the modules after the first have no "
            "parameters: load the model with a trainable pooling, or take backbone='lora' or 'full'"
            if recipe.backbone == "frozen"
            else f"no parameter of the model takes a gradient under backbone={recipe.backbone!r}"
        )
    half = [f"{name} ({p.dtype})" for name, p in taking if p.dtype.itemsize < 4]
    if half:
        raise ValueError(
            f"{len(half)} parameters that are trained are in half precision, such as {half[0]}, "
            "where small updates vanish: load the model with dtype='float32' and compute in "
            "precision='bfloat16'"
        )


def check_gradient_checkpointing(recipe: Recipe) -> None:
    """Refuse to recompute layers where that gave wrong gradients under hooks.

    Raises:
        RuntimeError: transformers is too old.
    """
    import transformers
    from packaging.version import parse

    old = parse(transformers.__version__) < parse(RECOMPUTES_SINCE)
    if recipe.gradient_checkpointing and old:
        raise RuntimeError(
            f"gradient_checkpointing needs transformers {RECOMPUTES_SINCE} or newer, since the "
            f"lab reads hidden states by hooks; {transformers.__version__} is installed"
        )


def check_finite(what: str, value: Tensor) -> None:
    """Raise FloatingPointError if a number of a step is not finite."""
    number = value.item()
    if not math.isfinite(number):
        raise FloatingPointError(f"the {what} is {number:g}")


def stopped(error: FloatingPointError, where: str, good: Sequence[Path]) -> FloatingPointError:
    """What to say of a number that is not finite: where, what is left, what to do."""
    kept = (
        f"the last checkpoint from which a step succeeded is {good[-1]}"
        if good
        else "there is no checkpoint from which a step succeeded"
    )
    return FloatingPointError(
        f"{where}: {error}; {kept}. Lower the learning rate, raise loss_temperature, train in "
        "float32, or check these texts"
    )


def described(rows: Sequence[int], pairs: Pairs) -> str:
    """Which rows a batch held, and the beginning of some texts."""
    texts = "; ".join(
        " / ".join(repr(text[:30]) for text in pairs.rows.iloc[row]) for row in rows[:SHOWN]
    )
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"rows {', '.join(map(str, rows))} of {pairs.name}: {texts}{more}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ALLOCATORS)


def too_much(error: BaseException, where: str, recipe: Recipe) -> MemoryError:
    """What to say when memory ran out: which settings to lower, as they are now."""
    names = ("mini_batch", "batch", "max_length")
    settings = ", ".join(f"{name} (now {getattr(recipe, name)})" for name in names)
    checkpointing = "" if recipe.gradient_checkpointing else ", or set gradient_checkpointing=True"
    first = str(error).partition("\n")[0] or type(error).__name__
    return MemoryError(
        f"{where}: out of memory ({first}); lower {settings}{checkpointing}. Only batch changes "
        "the loss that is aimed at; mini_batch and gradient_checkpointing cost time alone"
    )
