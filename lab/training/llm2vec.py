"""LLM2Vec: a causal language model becomes a text encoder, without any labels.

>>> done = convert(models.load("smollm2-135m"), texts, held_out=others, folder="runs/llm2vec")
>>> done.model.encode(["A text."])

Three steps (BehnamGhader et al. 2024, arXiv:2404.05961): attention in both directions, masked next
token prediction (:mod:`lab.training.mntp`), unsupervised SimCSE (:mod:`lab.training.simcse`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import models
from lab.models import EmbeddingModel
from lab.training.heads import Head
from lab.training.masking import LLAMA_MASKING, Masking
from lab.training.mntp import MNTP
from lab.training.mntp import mntp as train_mntp
from lab.training.recipe import Recipe
from lab.training.simcse import DROPOUT, SIMCSE
from lab.training.simcse import simcse as train_simcse
from lab.training.trainer import Trained


@dataclass(frozen=True)
class Converted:
    """What came of a conversion.

    Attributes:
        model: the encoder.
        mntp: how the first training went; its held-out loss is that of masked tokens.
        simcse: how the second went; its held-out loss is InfoNCE.
    """

    model: EmbeddingModel
    mntp: Trained
    simcse: Trained


def convert(
    model: EmbeddingModel,
    texts: Sequence[str],
    *,
    held_out: Sequence[str] | None = None,
    mntp: Recipe = MNTP,
    simcse: Recipe = SIMCSE,
    masking: Masking = LLAMA_MASKING,
    dropout: float = DROPOUT,
    head: Head | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Converted:
    """A bidirectional encoder with weights of its own, and how each step went.

    The model that is given stays as it is. Pooling and the other settings are its own; the paper
    takes the mean. Both steps read the same texts; for others, as in the paper, call
    :func:`lab.training.mntp.mntp` and :func:`lab.training.simcse.simcse` one by one.

    Args:
        model: a lab model of a decoder, with backbone "lora" in both recipes.
        texts: to learn from.
        held_out: other texts, for losses before and after each step.
        mntp: the recipe of the first training.
        simcse: the recipe of the second.
        masking: of the first.
        dropout: of the attention in the second.
        head: the language-model head, where the model has one of its own.
        folder: where the model is saved after each step, as ``mntp`` and ``simcse``; None: nowhere.
        progress: show bars after two seconds.

    Raises:
        ValueError: a recipe that trains all weights, which the given model shares; what the steps
            refuse.
    """
    for name, recipe in {"mntp": mntp, "simcse": simcse}.items():
        if recipe.backbone != "lora":
            raise ValueError(
                f"convert trains adapters and leaves the model that it is given as it is; got "
                f"backbone={recipe.backbone!r} for {name}: take 'lora', or call the steps one by "
                "one, which train in place"
            )
    encoder = models.variant(model, attention="bidirectional")
    first = train_mntp(
        encoder, texts, mntp, masking=masking, head=head, held_out=held_out, progress=progress
    )
    if folder is not None:
        encoder.save_pretrained(str(Path(folder) / "mntp"))
    second = train_simcse(
        encoder, texts, simcse, dropout=dropout, held_out=held_out, progress=progress
    )
    if folder is not None:
        encoder.save_pretrained(str(Path(folder) / "simcse"))
    return Converted(encoder, first, second)
