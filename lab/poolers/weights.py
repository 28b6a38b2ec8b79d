"""Poolings by learned weights: weighted sums of the items themselves, nothing in between."""

from typing import Any

import torch
from torch import Tensor, nn

from lab.poolers.pooler import POOLERS, Pooler, positive
from lab.pooling import POOLINGS, Tokens


@POOLERS.named("low_rank_attention")
class LowRankAttention(Pooler):
    """The weighted sums of several heads side by side: out_dim is heads x dim.

    LAMA (Mehta et al., arXiv:1912.00835, equation 3.13): with c the mean item, each item h has
    tanh((P^T c) * (Q^T h)), scaled to unit norm over the heads, and a softmax over items gives the
    weights of a head. So two weights of a head differ by a factor of e^2 at most. There is no
    official code; an unofficial one learns c and leaves out the norm, we follow the text.

    Args:
        dim: width of the states.
        items: see :class:`lab.poolers.Pooler`.
        heads: columns of P and Q, 2 or more: over one head the norm leaves only a sign, which has
            no gradient.
        **common: ``item_rows``, ``item_scale``, ``normalise`` of :class:`lab.poolers.Pooler`.

    Raises:
        ValueError: fewer than two heads.
    """

    def __init__(
        self, dim: int, items: int | None = None, *, heads: int = 8, **common: Any
    ) -> None:
        super().__init__(dim, items, **common)
        positive(heads=heads)
        if heads < 2:
            raise ValueError(
                f"low_rank_attention has no gradient with {heads} head; give 2 or more"
            )
        self.out_dim = heads * dim
        self.context = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, heads)))
        self.item = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, heads)))

    def pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        """(batch, heads x dim) one weighted sum a head."""
        weights = self.weights(states, tokens)
        return (weights.transpose(1, 2) @ states).flatten(1)

    def weights(self, states: Tensor, tokens: Tokens) -> Tensor:
        """(batch, item, heads) what each head weighs an item with."""
        context = POOLINGS["mean"](states, tokens) @ self.context
        aligned = torch.tanh(context[:, None] * (states @ self.item))
        scores = nn.functional.normalize(aligned, dim=-1)
        return scores.masked_fill(~tokens.mask[..., None], -torch.inf).softmax(1)

    @staticmethod
    def sized(dim: int, size: int, **fixed: Any) -> dict[str, Any]:
        """This many heads and one more, since one alone has no gradient."""
        return {"heads": size + 1}


@POOLERS.named("token_weights")
class TokenWeights(Pooler):
    """The sum of the items, weighted with the softmax of a learned linear score w h.

    The vector w begins at zero, so before training it is the mean.

    Args:
        dim: width of the states.
        items: see :class:`lab.poolers.Pooler`.
        **common: ``item_rows``, ``item_scale``, ``normalise`` of :class:`lab.poolers.Pooler`.
    """

    def __init__(self, dim: int, items: int | None = None, **common: Any) -> None:
        super().__init__(dim, items, **common)
        self.score = nn.Parameter(torch.zeros(dim))

    def pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        """(batch, dim) the weighted sum."""
        weights = (states @ self.score).masked_fill(~tokens.mask, -torch.inf).softmax(-1)
        return (weights[:, None] @ states).squeeze(1)
