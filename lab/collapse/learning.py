"""One attention temperature per layer, learned on a development set by gradient."""

import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.data import Dataset
from lab.models import EmbeddingModel
from lab.models.architecture import depth
from lab.models.temperature import inverse_temperatures
from lab.models.texts import TokenisedText, TruncationWarning, truncation
from lab.registry import unknown

COLUMNS = {
    "retrieval": ["query", "document"],
    "pairs": ["anchor", "positive"],
    "sts": ["first", "second"],
}


@dataclass(frozen=True)
class Learned:
    """What was learned, and how.

    Attributes:
        temperatures: one per layer, for ``models.variant(model, temperature=...)``.
        losses: of each step, before it was taken; the first is that of the model at temperature 1.
    """

    temperatures: list[float]
    losses: list[float]


@dataclass(frozen=True)
class Batch:
    """Pairs of texts, two columns, with their gold similarities or, without, what is alike."""

    columns: tuple[list[str], list[str]]
    gold: list[float] | None


def learn_temperatures(
    model: EmbeddingModel,
    dataset: Dataset,
    *,
    steps: int,
    batch: int = 16,
    rate: float = 0.05,
    seed: int = 0,
    loss_temperature: float = 0.05,
    max_length: int | None = None,
    progress: bool = True,
) -> Learned:
    """One temperature per layer that lowers the loss on a development set; weights stay frozen.

    Adam on log tau, from tau = 1 exactly; a temperature that the model has plays no part. Cosines
    are those of the model's own embeddings, under its pooling and layers.

    Zhou et al. (arXiv:2410.24200) set one temperature by hand; learning them is ours.

    Args:
        model: a lab model; it comes back as it was.
        dataset: retrieval, pairs or sts, of another split than "test".
        steps: how many updates.
        batch: pairs a step, drawn anew for each.
        rate: Adam's learning rate: about the share by which a step changes a temperature.
        seed: draws the batches.
        loss_temperature: divides the cosines in the loss; no attention temperature.
        max_length: tokens after which texts are cut while learning; default the model's length.
        progress: show a bar after two seconds.

    Raises:
        TypeError: steps or batch is no whole number.
        ValueError: the test split; a number out of range; too few pairs that can stand in one
            batch; an architecture that can't (ALBERT: one module for all layers; Gemma 2: capped
            logits).
        LookupError: another kind of data set.
        FloatingPointError: a loss or gradient that is not finite, at which step.

    Warns:
        TruncationWarning: texts longer than the model, unless ``max_length`` is given.
    """
    for name, value in {"steps": steps, "rate": rate, "loss_temperature": loss_temperature}.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a positive number; got {value}")
    for name, count in {"steps": steps, "batch": batch}.items():
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise TypeError(f"{name} is a whole number; got {count}")
    batches = draw_batches(dataset, batch, np.random.default_rng(seed))
    logs = torch.zeros(depth(model.encoder.model), device=model.device, requires_grad=True)
    optimiser = torch.optim.Adam([logs], lr=rate)
    losses: list[float] = []
    cut: list[TruncationWarning] = []
    quiet = not progress or os.environ.get("LAB_MODE") == "batch"
    with _frozen(model):
        for step in tqdm(range(steps), desc="temperatures", unit="step", delay=2, disable=quiet):
            drawn = next(batches)
            texts = [model.encoder.tokenise(one, max_length=max_length) for one in drawn.columns]
            cut += [warning for column in texts for warning in truncation(column)]
            optimiser.zero_grad()
            loss = loss_at(model, texts, drawn.gold, logs, loss_temperature=loss_temperature)
            loss.backward()
            _check_finite(loss, logs, f"step {step} of {steps}")
            optimiser.step()
            losses.append(loss.item())
    if cut and max_length is None:
        warnings.warn(TruncationWarning.merged(cut, 2 * batch * steps), stacklevel=2)
    return Learned(logs.detach().exp().tolist(), losses)


def loss_at(
    model: EmbeddingModel,
    columns: Sequence[Sequence[TokenisedText]],
    gold: Sequence[float] | None,
    logs: Tensor,
    *,
    loss_temperature: float,
) -> Tensor:
    """The loss of pairs of texts under log temperatures (layer,), with a gradient to these.

    Without gold it is InfoNCE: the second text of a pair among those of all pairs. With gold it is
    CoSENT, which wants pairs of higher gold to have higher cosines. Both are those of
    sentence-transformers.

    Raises:
        ValueError: an architecture without temperatures per layer.
    """
    from sentence_transformers.sentence_transformer import losses

    inverse = (-logs).exp().to(next(model.parameters()).dtype)
    with inverse_temperatures(model.encoder.model, inverse):
        embeddings = [_embed(model, texts) for texts in columns]
    stock: Any = losses.MultipleNegativesRankingLoss if gold is None else losses.CoSENTLoss
    labels = None if gold is None else torch.tensor(gold, device=model.device)
    loss = stock(None, scale=1 / loss_temperature)  # only its ``forward`` needs a model
    return loss.compute_loss_from_embeddings(embeddings, labels)


def _embed(model: EmbeddingModel, texts: Sequence[TokenisedText]) -> Tensor:
    """(batch, dim) what the model's modules make of tokenised texts, with a gradient."""
    features = {
        key: value.to(model.device) if isinstance(value, Tensor) else value
        for key, value in model.encoder.collate(texts).items()
    }
    return model(features)["sentence_embedding"].float()


@contextmanager
def _frozen(model: EmbeddingModel) -> Iterator[None]:
    """For the length of a block no weight takes a gradient, and dropout is off."""
    training = model.training
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        model.train(training)
        for parameter in wanting:
            parameter.requires_grad_(True)


def _check_finite(loss: Tensor, logs: Tensor, where: str) -> None:
    assert logs.grad is not None  # the loss has just gone backward
    bad = (~logs.grad.isfinite()).nonzero().flatten().tolist()
    if bad or not loss.isfinite():
        raise FloatingPointError(
            f"{where}: the loss is {loss.item():g} and the gradient is not finite in layers {bad}; "
            "check the weights, run in float32, or raise loss_temperature"
        )


# --- batches -----------------------------------------------------------------------------------


def draw_batches(dataset: Dataset, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Endless batches of ``size`` pairs, each drawn without replacement.

    Without gold, no text in a batch is known to belong to another pair of it: such a negative
    would be false.

    Raises:
        ValueError: the test split, a size below 2, or too few such pairs.
        LookupError: not retrieval, pairs or sts.
    """
    if dataset.kind not in COLUMNS:
        raise LookupError(
            unknown("kind of data set to learn temperatures on", dataset.kind, COLUMNS)
        )
    if dataset.split == "test":
        raise ValueError(
            f"{dataset.name}: temperatures learned on the test split have seen what they are "
            "judged on; learn them on dev or train"
        )
    if size < 2:
        raise ValueError(f"a batch is two pairs or more, so that they can be compared; got {size}")
    rows = dataset.frame
    if "relevance" in rows:
        rows = rows[rows["relevance"] > 0]
    return _batches(dataset, rows.reset_index(drop=True), size, rng)


def _batches(
    dataset: Dataset, rows: pd.DataFrame, size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    pairs = rows[COLUMNS[dataset.kind]].to_numpy()
    gold = rows["score"].to_numpy(float) if "score" in rows else None
    partners: dict[int, set[int]] = defaultdict(set)
    for one, other in pairs.tolist():
        partners[one] |= {one, other}
        partners[other] |= {one, other}
    while True:
        order = rng.permutation(len(pairs))
        taken = order if gold is not None else _apart(pairs, order, partners, size)
        if len(taken) < size:
            raise ValueError(
                f"{dataset.name}: {len(taken)} of {len(pairs)} pairs can stand in one batch; "
                f"{size} wanted: take a smaller batch or more data"
            )
        first, second = ([dataset.texts[place] for place in one] for one in pairs[taken[:size]].T)
        yield Batch((first, second), None if gold is None else gold[taken[:size]].tolist())


def _apart(
    pairs: np.ndarray, order: np.ndarray, partners: dict[int, set[int]], size: int
) -> np.ndarray:
    """The first pairs in that order of which no text is a partner of another pair's."""
    taken: list[int] = []
    seen: set[int] = set()
    for row in order:
        one, other = pairs[row]
        if one not in seen and other not in seen:
            taken.append(row)
            seen |= partners[one] | partners[other]
            if len(taken) == size:
                break
    return np.array(taken)
