"""Masked next token prediction: what teaches a decoder to use the tokens on its right.

Some tokens are masked, and each is predicted from the state of the token *before* it, where a
causal model makes its predictions (LLM2Vec, arXiv:2404.05961, section 2.2).
"""

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lab.models.architecture import depth, evaluating
from lab.training import checkpoints, guards, session
from lab.training.adapters import Lora
from lab.training.heads import Head, tied_head
from lab.training.masking import LLAMA_MASKING, Block, Masking, blocks, collator
from lab.training.recipe import Recipe
from lab.training.trainer import Trained

if TYPE_CHECKING:
    from lab.models import EmbeddingModel

IGNORED = -100  # the label of a token that is not to be predicted
MNTP = Recipe(
    steps=1000,
    batch=32,
    learning_rate=5e-5,
    warmup=0.0,
    weight_decay=0.0,
    max_length=512,
    backbone="lora",
    lora=Lora(rank=16, alpha=32, dropout=0.05),
)


def mntp(
    model: "EmbeddingModel",
    texts: Sequence[str],
    recipe: Recipe = MNTP,
    *,
    masking: Masking = LLAMA_MASKING,
    head: Head | None = None,
    held_out: Sequence[str] | None = None,
    progress: bool = True,
) -> Trained:
    """Train a decoder in place to predict masked tokens, and say how it went.

    The texts are joined and cut into blocks of ``recipe.max_length`` tokens; what is left over is
    left out, as are template and sink. Attention mode and temperature are the model's: LLM2Vec
    makes it bidirectional first. The same call gives the same weights to the last bit on CPU.

    The defaults are those of LLM2Vec's code for Llama, which trains on wikitext-103. There the rate
    falls from 5e-5 so slowly that it is nearly constant over the 1000 steps; here it falls to 0.

    Args:
        model: a lab model of a decoder.
        texts: to learn from; no labels are needed.
        recipe: backbone "lora" or "full"; its loss temperature plays no part.
        masking: ``LLAMA_MASKING`` or ``MISTRAL_MASKING`` of the paper, or another.
        head: states (n, dim) to logits (n, vocabulary), which is not trained; default the input
            embeddings of a model that has them tied (:func:`lab.training.heads.tied_head`).
        held_out: texts for a held-out loss before and after, under equal masks.
        progress: show a bar after two seconds (not under LAB_MODE=batch).

    Raises:
        ValueError: an encoder; a head that has to be given; too few texts for a batch of blocks;
            blocks longer than the model's positions; a recipe that is not for this.
        FloatingPointError: a loss that is not finite, at which step.
        MemoryError: memory ran out; what to lower.
    """
    begun = time.perf_counter()
    _check(recipe)
    head = tied_head(model) if head is None else head
    data = blocks(model, texts, recipe.max_length)
    if len(data) < recipe.batch:
        raise ValueError(
            f"the texts fill {len(data)} blocks, fewer than a batch of {recipe.batch}: take more "
            "texts, a smaller batch or a smaller max_length"
        )

    def held_out_loss() -> float:
        return np.nan if held_out is None else loss_on(model, held_out, recipe, masking, head)

    before = held_out_loss()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(session.own_generators(model.device))
        stack.enter_context(session.chosen_parameters(model, recipe))
        guards.check_weights(model, recipe)
        stack.enter_context(session.recomputing(model, recipe.gradient_checkpointing))
        losses = _run(model, head, data, recipe, masking, folder, progress)
        count = sum(tensor.numel() for tensor in checkpoints.trainable(model).values())
    log = pd.DataFrame({"step": range(recipe.steps + 1), "loss": [np.nan, *losses]})
    log["held_out_loss"] = [before, *[np.nan] * (recipe.steps - 1), held_out_loss()]
    return Trained(log, time.perf_counter() - begun, count, recipe.steps, repeated=0)


@torch.no_grad()
def loss_on(
    model: "EmbeddingModel", texts: Sequence[str], recipe: Recipe, masking: Masking, head: Head
) -> float:
    """The mean of -log p over the masked tokens of texts, under masks that ``recipe.seed`` draws.

    Raises:
        ValueError: the texts are too short for one block; no token was masked.
    """
    data, collate = blocks(model, texts, recipe.max_length), collator(model, masking, recipe.seed)
    total, count = 0.0, 0
    with evaluating(model):
        for start in range(0, len(data), recipe.batch):
            batch = collate(data[start : start + recipe.batch])
            ids, labels = (batch[key].to(model.device) for key in ("input_ids", "labels"))
            loss, masked = NextTokens(model, head).summed(ids, labels)
            total, count = total + float(loss), count + masked
    if not count:
        raise ValueError(f"no token of {len(data)} blocks was masked: take more texts")
    return total / count


class NextTokens(nn.Module):
    """The model that is trained: input ids (batch, seq) and labels to a mean cross-entropy."""

    def __init__(self, model: "EmbeddingModel", head: Head) -> None:
        super().__init__()
        self.model = model
        self.head = [head]  # in a list: no parameters of it are trained or saved

    def forward(self, input_ids: Tensor, labels: Tensor, **_: Any) -> dict[str, Tensor]:
        """``loss``, the mean over the labelled tokens of a batch; 0 where there is none."""
        total, count = self.summed(input_ids, labels)
        loss = total / max(count, 1)
        guards.check_finite("loss", loss.detach())
        return {"loss": loss}

    def summed(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        """Sum and number of -log p(token i | state i - 1) over the labelled tokens i > 0."""
        states, wanted = last_states(self.model, input_ids)[:, :-1], labels[:, 1:]
        chosen = wanted != IGNORED  # the logits of all tokens would be gigabytes
        logits = self.head[0](states[chosen]).float()
        loss = nn.functional.cross_entropy(logits, wanted[chosen], reduction="sum")
        return loss, int(chosen.sum())


def last_states(model: "EmbeddingModel", input_ids: Tensor) -> Tensor:
    """(batch, seq, dim) the last states of unpadded blocks under the model's settings."""
    kept: list[Tensor] = []
    last = depth(model.encoder.model)
    model.encoder.read(
        {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)},
        lambda layer, hidden: kept.append(hidden) if layer == last else None,
        stop_after=last,
    )
    return kept[0]


# --- the run -----------------------------------------------------------------------------------


def _check(recipe: Recipe) -> None:
    guards.check_gradient_checkpointing(recipe)
    if recipe.backbone == "frozen":
        raise ValueError("MNTP trains the backbone: take backbone='lora' or 'full'")
    for name in ("mini_batch", "evaluate_every", "save_every"):
        if getattr(recipe, name) is not None:
            raise ValueError(f"MNTP knows no {name}; leave it None, got {getattr(recipe, name)}")


def _run(
    model: "EmbeddingModel",
    head: Head,
    data: list[Block],
    recipe: Recipe,
    masking: Masking,
    folder: Path,
    progress: bool,
) -> list[float]:
    """The loss of every step."""
    from transformers import PrinterCallback, Trainer

    from lab.training.loop import Progress, arguments

    trainer = Trainer(
        NextTokens(model, head),
        arguments(model, recipe, folder, saves=False, evaluates=False),
        train_dataset=data,
        data_collator=collator(model, masking, recipe.seed),
        callbacks=[Progress()] if progress and os.environ.get("LAB_MODE") != "batch" else None,
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    except FloatingPointError as error:
        where = f"step {trainer.state.global_step + 1} of {recipe.steps}"
        raise guards.stopped(error, where, []) from error
    except (MemoryError, RuntimeError) as error:
        if not guards.out_of_memory(error):
            raise
        where = f"step {trainer.state.global_step + 1} of {recipe.steps}"
        raise guards.too_much(error, where, recipe) from error
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
