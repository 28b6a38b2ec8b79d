"""Isotropy regularisers for training: functions of embeddings, and a loss that adds one to another.

>>> loss = Regularised(MultipleNegativesRankingLoss(model), partial(istar, zeta=0.2), weight=-0.1)
>>> SentenceTransformerTrainer(model, loss=loss, ...).train()  # logs base and istar beside loss

A regulariser is what a positive weight makes smaller, which spreads the embeddings; a negative
weight contracts them. To add one, write ``embeddings, *, settings -> scalar`` and decorate it with
``@REGULARISERS`` and ``@_on_embeddings``.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from lab.registry import Registry
from lab.shapes import Embeddings, checked

Regulariser = Callable[..., Tensor]
Terms = dict[str, Tensor]
Columns = Sequence[int] | None
CURE = "check the data, lower the learning rate, or train in float32"

REGULARISERS: Registry[Regulariser] = Registry("regulariser")


def _on_embeddings(function: Regulariser) -> Regulariser:
    """The function, of at least two finite embeddings, in float32 at least.

    Mixed precision is off inside: a covariance in bfloat16 has two digits.
    """

    @wraps(function)
    def regulariser(embeddings: Tensor, **settings: Any) -> Tensor:
        embeddings = _several_finite(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            return function(embeddings, **settings)

    return regulariser


@checked
def _several_finite(embeddings: Embeddings) -> Embeddings:
    """The embeddings in float32, or float64 as they are."""
    if len(embeddings) < 2:
        raise ValueError(
            f"isotropy needs 2 embeddings or more, got {len(embeddings)}: take larger batches "
            "or, where only the last one is too small, dataloader_drop_last=True"
        )
    _refuse_rows(~embeddings.isfinite().all(-1), f"not finite: {CURE}")
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def _lengths(embeddings: Tensor) -> Tensor:
    """(batch,) the Euclidean norms, none of them zero."""
    lengths = torch.linalg.vector_norm(embeddings, dim=-1)
    _refuse_rows(lengths == 0, "zero and has no cosine: drop it (padding, in a token table)")
    return lengths


def _refuse_rows(bad: Tensor, why: str) -> None:
    rows = bad.nonzero().flatten().tolist()
    if rows:
        raise ValueError(f"embedding {rows[0]} of {len(bad)} ({len(rows)} such) is {why}")


@REGULARISERS
@_on_embeddings
def cosreg(embeddings: Embeddings) -> Tensor:
    """The sum of cos(w_i, w_j) over i != j, divided by N^2: the average cosine times (N - 1) / N.

    Computed as ``(|sum_i w_i / |w_i||^2 - N) / N^2``, in O(N dim). Between -1 / N, where the unit
    vectors sum to zero, and (N - 1) / N, where all are equal; orthonormal rows give 0. Only the
    mean direction counts: a batch around the origin is optimal in however few dimensions it lies.

    Source: CosReg, Gao et al. 2019 (arXiv:1907.12009), its text. There the rows are the tied input
    and output embeddings of a language model: ``cosreg(model.get_input_embeddings().weight)``.

    Raises:
        ValueError: fewer than two rows; a row that is zero or not finite.
    """
    n = len(embeddings)
    total = (1 / _lengths(embeddings)) @ embeddings
    return (total.square().sum() - n) / n**2


@REGULARISERS
@_on_embeddings
def gor(
    embeddings: Embeddings, *, mean_weight: float = 1.0, second_moment_weight: float = 1.0
) -> Tensor:
    """Global orthogonal regularisation: M1^2 + max(0, M2 - 1 / dim), in O(N^2 dim).

    M1 and M2 are the means of cos and cos^2 over pairs i != j; a uniform sphere has 0 and 1 / dim.
    Orthonormal rows give 0, equal rows 1 + (1 - 1 / dim). The weights are those of the two terms.

    Source: Zhang et al. 2017 (arXiv:1708.06320), as sentence-transformers computes it.

    Raises:
        ValueError: fewer than two rows; a row that is zero or not finite; both weights 0.
    """
    from sentence_transformers.sentence_transformer import losses

    _lengths(embeddings)
    stock: Any = losses.GlobalOrthogonalRegularizationLoss  # only its ``forward`` needs a model
    loss = stock(None, mean_weight=mean_weight, second_moment_weight=second_moment_weight)
    return torch.stack(list(loss.compute_loss_from_embeddings([embeddings]).values())).sum()


@_on_embeddings
def isoscore_star(
    embeddings: Embeddings, *, zeta: float, shrinkage_covariance: Tensor | None = None
) -> Tensor:
    """IsoScore* in [0, 1]: the IsoScore of S = (1 - zeta) C + zeta C0; 1 is isotropic.

    C is the sample covariance of the batch (over N - 1), C0 ``shrinkage_covariance`` (dim, dim), by
    default the identity; zeta 0 gives IsoScore, 1 ignores the batch. Computed as
    (PR - 1) / (dim - 1), PR = (tr S)^2 / tr S^2, which equals the published route over singular
    values and has a smooth gradient.

    The value depends on zeta and on the scale of C0: state both. Against the identity, embeddings
    of small variance score near 1 whatever their shape, and can raise their score by shrinking:
    unit vectors have tr C <= 1, the identity has dim. Give them the covariance of a larger sample.

    Source: I-STAR, Rudman & Eickhoff, ICLR 2024 (arXiv:2305.19358), where C0 is that of a larger
    sample; equal to ``IsoScore_star`` of the authors' package IsoScore 2.0.1.

    Raises:
        ValueError: fewer than two rows or dimensions; a row that is not finite; zeta outside
            [0, 1]; C0 of another shape, not symmetric or not finite; S = 0.
    """
    dim = embeddings.shape[-1]
    if dim < 2:
        raise ValueError("IsoScore compares variances of several dimensions; got embeddings of 1")
    if not 0 <= zeta <= 1:
        raise ValueError(f"zeta is the part of the shrinkage covariance, 0 to 1; got {zeta}")
    given = torch.eye(dim) if shrinkage_covariance is None else shrinkage_covariance
    if given.shape != (dim, dim) or not torch.allclose(given, given.T):
        raise ValueError(
            f"the shrinkage covariance is a symmetric finite ({dim}, {dim}), as the embeddings are "
            f"of {dim} dimensions: torch.cov(sample.T); got {tuple(given.shape)}"
        )
    # The shift changes no covariance, and makes that of equal embeddings exactly zero.
    shifted = embeddings - embeddings[0].detach()
    covariance = (1 - zeta) * shifted.T.cov() + zeta * given.to(embeddings)
    squares = covariance.square().sum()
    if squares == 0:
        raise ValueError(f"all {len(embeddings)} embeddings are equal: IsoScore needs zeta > 0")
    return (covariance.trace().square() / squares - 1) / (dim - 1)


@REGULARISERS
def istar(
    embeddings: Embeddings, *, zeta: float, shrinkage_covariance: Tensor | None = None
) -> Tensor:
    """The I-STAR penalty 1 - IsoScore*: 0 for an isotropic batch.

    A positive weight raises isotropy, a negative one lowers it, which the authors found better on
    most tasks; they penalise the token states of all layers. The rest: :func:`isoscore_star`.
    """
    return 1 - isoscore_star(embeddings, zeta=zeta, shrinkage_covariance=shrinkage_covariance)


class Regularised(nn.Module):
    """A sentence-transformers loss: the base loss plus weight x regulariser, from one forward pass.

    ``forward`` returns the terms, {"base": ..., regulariser: weight x value}, which the trainer
    adds and logs; those of a base that has several keep their names. Regularised can be nested.

    Args:
        loss: the base, with ``compute_loss_from_embeddings(embeddings, labels)``.
        regulariser: embeddings (batch, dim) -> scalar; with settings, a ``functools.partial``.
        weight: of the regulariser; positive spreads the embeddings, negative contracts them.
        where: the columns (0 = anchors) whose values are averaged, default all. Columns are read
            one by one, since texts of a pair are meant to be close; each device reads its own.

    Raises:
        TypeError: the base does not compute from embeddings; names the stock losses that do.
        ValueError: the weight is not finite.
    """

    def __init__(
        self, loss: Any, regulariser: Regulariser, weight: float, *, where: Columns = None
    ) -> None:
        super().__init__()
        if not _takes_embeddings(loss):
            from sentence_transformers.sentence_transformer import losses

            able = ", ".join(name for name in vars(losses) if _takes_embeddings(vars(losses)[name]))
            raise TypeError(
                f"{type(loss).__name__} does not compute from embeddings and labels, so it would "
                f"need a second forward pass; these do: {able}"
            )
        if not math.isfinite(weight):
            raise ValueError(f"the weight of a regulariser is a finite number; got {weight}")
        # The trainer finds the model by this name, to put a distributed one in its place.
        self.model = loss.model if hasattr(loss, "model") else loss.sentence_embedder
        self.loss, self.regulariser, self.weight, self.where = loss, regulariser, weight, where
        self.name: str = getattr(regulariser, "func", regulariser).__name__

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Any) -> Terms:
        """The terms of a batch of tokenised columns; each column passes the model once."""
        embeddings = [self.model(column)["sentence_embedding"] for column in sentence_features]
        return self.compute_loss_from_embeddings(embeddings, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Any) -> Terms:
        """The terms, whose sum is the loss, of one (batch, dim) tensor per column.

        Raises:
            ValueError: no such column, two terms of one name, or what the regulariser refuses.
            FloatingPointError: a term is not finite.
        """
        base = self.loss.compute_loss_from_embeddings(embeddings, labels)
        terms = dict(base) if isinstance(base, dict) else {"base": base}
        if self.name in terms:
            raise ValueError(f"the base loss has a term {self.name!r} already; add it once")
        columns = range(len(embeddings)) if self.where is None else self.where
        if not len(columns) or not set(columns) <= set(range(len(embeddings))):
            raise ValueError(f"where={self.where!r} of {len(embeddings)} columns, counted from 0")
        values = [self.regulariser(embeddings[column]) for column in columns]
        terms[self.name] = self.weight * torch.stack(values).mean()
        bad = {name: value.item() for name, value in terms.items() if not value.isfinite()}
        if bad:
            raise FloatingPointError(f"terms of the loss are not finite, {bad}: {CURE}")
        return terms

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss: its parts and their settings but for tensors."""
        given = getattr(self.regulariser, "keywords", {})
        settings = {name: value for name, value in given.items() if not torch.is_tensor(value)}
        parts = {"loss": self.loss, "regulariser": self.name, **settings}
        return {**parts, "weight": self.weight, "where": self.where}


def _takes_embeddings(loss: object) -> bool:
    """Whether a loss, or a class of them, computes from embeddings and labels.

    Not MSELoss and EmbedDistillLoss: their method takes the teacher's embeddings for labels.
    """
    method = getattr(loss, "compute_loss_from_embeddings", None)
    return method is not None and "labels" in inspect.signature(method).parameters
