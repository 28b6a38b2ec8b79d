"""Unsupervised SimCSE: a text is to be closest to itself, read a second time with other dropout."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from lab.models.architecture import architecture, attention_modules
from lab.training.adapters import Lora
from lab.training.pairs import Pairs
from lab.training.recipe import Recipe
from lab.training.session import own_generators
from lab.training.trainer import Trained, train

if TYPE_CHECKING:
    from lab.models import EmbeddingModel

DROPOUT = 0.3
NAMES = ("attention_dropout", "attn_dropout", "dropout")  # of it, on transformers' attention
SIMCSE = Recipe(
    steps=1000,
    batch=128,
    learning_rate=3e-5,
    warmup=0.0,
    weight_decay=0.0,
    loss_temperature=1 / 20,
    max_length=128,
    backbone="lora",
    lora=Lora(rank=16, alpha=32, dropout=0.05),
)


def simcse(
    model: "EmbeddingModel",
    texts: Sequence[str],
    recipe: Recipe = SIMCSE,
    *,
    dropout: float = DROPOUT,
    held_out: Sequence[str] | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train a model in place to tell texts apart under dropout, and say how it went.

    InfoNCE on pairs of a text with itself (Gao et al. 2021, arXiv:2104.08821, section 3), by
    :func:`lab.training.trainer.train`. The defaults are those of LLM2Vec's code, which puts the
    dropout into the attention weights, and trains on a million sentences of Wikipedia. There the
    rate is nearly constant over the 1000 steps; here it falls to 0.

    Args:
        model: a lab model.
        texts: to learn from; no labels are needed. Equal ones never stand in one batch.
        recipe: backbone "lora" or "full".
        dropout: of the attention weights while training; afterwards it is as before. That of the
            adapter comes on top, and alone would not do: a new adapter is zero.
        held_out: other texts, for a loss before and after. It is without dropout, so that it tells
            how far apart different texts are, and nothing of the two readings of one.
        folder: of checkpoints; see ``train``.
        progress: show a bar after two seconds.

    Raises:
        ValueError: a frozen backbone; a dropout out of range, or that does not act in this model;
            what ``train`` refuses.
    """
    if recipe.backbone == "frozen":
        raise ValueError(
            "SimCSE needs dropout in the backbone, and a frozen one computes without: take "
            "backbone='lora' or 'full'"
        )
    others = None if held_out is None else _twice("held out", held_out)
    with attention_dropout(model, dropout):
        return train(
            model,
            _twice("simcse", texts),
            recipe,
            folder=folder,
            held_out=others,
            progress=progress,
        )


def _twice(name: str, texts: Sequence[str]) -> Pairs:
    """Every text with itself."""
    return Pairs(name, pd.DataFrame({"anchor": texts, "positive": texts}))


@contextmanager
def attention_dropout(model: "EmbeddingModel", share: float) -> Iterator[None]:
    """For the length of a block: this dropout of attention weights while the model trains.

    Raises:
        ValueError: not above 0 and below 1; a model that reads the same whatever it is.
    """
    if not 0 < share < 1:
        raise ValueError(f"dropout is above 0 and below 1; got {share}")
    places = [
        (module, name)
        for _, module in attention_modules(model.encoder.model)
        for name in NAMES
        if hasattr(module, name)
    ]
    before = [_dropout(module, name, share) for module, name in places]
    try:
        if not _readings_differ(model):
            raise ValueError(
                f"dropout does not reach the attention of {architecture(model.encoder.model)}, so "
                "two readings of a text are the same; SimCSE can't train it"
            )
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            _dropout(module, name, value)


def _dropout(module: nn.Module, name: str, value: float) -> float:
    """Set a dropout, which is a number or a module; returns what it was."""
    found: Any = getattr(module, name)
    if isinstance(found, nn.Dropout):
        before, found.p = found.p, value
        return before
    setattr(module, name, value)
    return float(found)


@torch.no_grad()
def _readings_differ(model: "EmbeddingModel") -> bool:
    """Whether a model in training reads a text differently each time."""
    training = model.training
    features = {
        key: value.to(model.device) if isinstance(value, Tensor) else value
        for key, value in model.preprocess(["Some words to be read twice."]).items()
    }
    try:
        with own_generators(model.device):
            model.train()
            one, other = (model(dict(features))["sentence_embedding"] for _ in range(2))
    finally:
        model.train(training)
    return not torch.equal(one, other)
