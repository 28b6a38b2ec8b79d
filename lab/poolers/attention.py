"""Poolings by attention: latents that read the items, items that read latents, or one another.

All three are one pre-norm block with different queries and keys:

====================  ==========  ================  ====================
pooling               queries     keys and values   mean over
====================  ==========  ================  ====================
``cross_attention``   latents     items             latents
``latent_attention``  items       latents           items that count
``self_attention``    items       items             items that count
====================  ==========  ================  ====================
"""

from typing import Any

import torch
from torch import Tensor, nn

from lab.poolers.pooler import POOLERS, Pooler, positive
from lab.pooling import POOLINGS, Tokens

HEADS = 8
PAPER_CODE: dict[str, Any] = {
    "latents": 768,
    "heads": 32,
    "dim_head": 2048,
    "ffn": 4,
    "mask": False,
    "item_rows": 32,
    "normalise": True,
}  # Tang & Yang's pooler (arXiv:2409.02727) with the sizes that their code has for every model
NV_EMBED: dict[str, Any] = {
    "latents": 512,
    "heads": 8,
    "dim_head": 4096,
    "ffn": 4,
    "normalise": True,
}  # NV-Embed's pooler (arXiv:2405.17428) with the sizes of its code


class Attention(nn.Module):
    """Multi-head attention without biases: softmax(Q K^T / sqrt(dim_head)) V W_o."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, heads * dim_head, bias=False)
        self.key = nn.Linear(dim, heads * dim_head, bias=False)
        self.value = nn.Linear(dim, heads * dim_head, bias=False)
        self.output = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, query, dim); queries or context may have a batch of 1, mask is (batch, key)."""
        batch = max(len(queries), len(context))
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(batch, -1, -1, -1)
            for projected in (self.query(queries), self.key(context), self.value(context))
        )
        keep = None if mask is None else mask[:, None, None]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.output(mixed.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Linear, GEGLU (x * gelu(gate)), Linear, with biases; ``hidden`` is the width between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 2 * hidden)
        self.output = nn.Linear(hidden, dim)

    def forward(self, states: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        values, gates = self.inner(states).chunk(2, -1)
        return self.output(values * nn.functional.gelu(gates))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, both with a residual to the queries.

    Args:
        dim: width of queries and context.
        heads: of the attention.
        dim_head: width of a head; default ``dim // heads``.
        ffn: width of the feed-forward layer as a multiple of ``dim``; 0 leaves it out.

    Raises:
        ValueError: heads that don't divide ``dim`` without a ``dim_head``; a size out of range.
    """

    def __init__(self, dim: int, heads: int, dim_head: int | None, ffn: float) -> None:
        super().__init__()
        positive(heads=heads)
        if dim_head is None and dim % heads:
            raise ValueError(f"{heads} heads don't divide dim {dim}; give heads or dim_head")
        each = dim // heads if dim_head is None else dim_head
        positive(dim_head=each)
        hidden = round(ffn * dim)
        if hidden < (ffn != 0):
            raise ValueError(f"ffn is a multiple of dim {dim}, 0 for none; {ffn} leaves no width")
        self.norm_queries, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, each)
        self.feed_forward = (
            nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, hidden)) if hidden else None
        )

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, query, dim) the queries after they have read the context (mask: batch, key)."""
        read = self.attention(self.norm_queries(queries), self.norm_context(context), mask)
        states = queries + read
        return states if self.feed_forward is None else states + self.feed_forward(states)


def _sized(dim: int, size: int, *, heads: int = HEADS, **_: Any) -> dict[str, Any]:
    """Heads of this width, and a feed-forward layer as wide as all of them together."""
    return {"dim_head": size, "ffn": heads * size / dim}


@POOLERS.named("cross_attention")
class CrossAttention(Pooler):
    """The mean of latents that have read the items: latents are queries, items keys and values.

    The pooling head of Tang & Yang (arXiv:2409.02727, sections 3.2 and 3.3), in the layout of
    their code (``PerceiverResampler``). Over tokens it is their last-layer trainable pooling, over
    layers the multi-layers one. Our sizes follow the model and are small; those of their code, and
    its attention to pads, are ``PAPER_CODE``. With a single item the softmax is over one key: the
    weights of queries and keys have no gradient, and the head is an MLP.

    Args:
        dim: width of the states.
        items: see :class:`lab.poolers.Pooler`.
        latents: learned queries, drawn from N(0, 1); their code has 768.
        heads: of the attention; their code has 32.
        dim_head: width of a head, default ``dim // heads``; their code has 2048.
        ffn: width of the feed-forward layer as a multiple of ``dim``; their code has 4.
        mask: False lets the latents read what does not count, pads included, as their code does.
        item_scale: standard deviation of the item embedding at the start; 1 as in their code.
        **common: ``item_rows`` and ``normalise`` of :class:`lab.poolers.Pooler`.
    """

    sized = staticmethod(_sized)

    def __init__(
        self,
        dim: int,
        items: int | None = None,
        *,
        latents: int = 16,
        heads: int = HEADS,
        dim_head: int | None = None,
        ffn: float = 1.0,
        mask: bool = True,
        item_scale: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(dim, items, item_scale=item_scale, **common)
        positive(latents=latents)
        self.mask = mask
        self.latents = nn.Parameter(torch.randn(latents, dim))
        self.block = Block(dim, heads, dim_head, ffn)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """See :meth:`Pooler.forward`; without ``mask`` every item counts."""
        return super().forward(states, mask if self.mask else torch.ones_like(mask))

    def pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        """(batch, dim) the mean over the latents."""
        return self.block(self.latents[None], states, tokens.mask).mean(1)


@POOLERS.named("latent_attention")
class LatentAttention(Pooler):
    """The mean of items that have read latents: items are queries, latents keys and values.

    The latent attention layer of NV-Embed (arXiv:2405.17428, section 3.1) as its code has it: the
    paper's text has no scale in the softmax and a plain GELU. Each item is mapped by itself. Our
    sizes follow the model; those of the code are ``NV_EMBED``. Without what attention and
    feed-forward add it is the mean.

    Args:
        dim: width of the states.
        items: see :class:`lab.poolers.Pooler`.
        latents: learned keys and values, drawn from N(0, 1).
        heads: of the attention.
        dim_head: width of a head, default ``dim // heads``; the code has 4096.
        ffn: width of the feed-forward layer as a multiple of ``dim``; the code has 4.
        **common: ``item_rows``, ``item_scale``, ``normalise`` of :class:`lab.poolers.Pooler`.
    """

    sized = staticmethod(_sized)

    def __init__(
        self,
        dim: int,
        items: int | None = None,
        *,
        latents: int = 512,
        heads: int = HEADS,
        dim_head: int | None = None,
        ffn: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(dim, items, **common)
        positive(latents=latents)
        self.latents = nn.Parameter(torch.randn(latents, dim))
        self.block = Block(dim, heads, dim_head, ffn)

    def pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        """(batch, dim) the mean over the items that count."""
        return POOLINGS["mean"](self.block(states, self.latents[None]), tokens)


@POOLERS.named("self_attention")
class SelfAttention(Pooler):
    """The mean of items that have read one another.

    The comparison column "self-attn" of NV-Embed (arXiv:2405.17428, tables 2 and 3), which the
    paper does not spell out. Our reading: the block of ``latent_attention`` with the items in place
    of the latents, so that the two differ in nothing else.

    Args:
        dim: width of the states.
        items: see :class:`lab.poolers.Pooler`.
        heads: of the attention.
        dim_head: width of a head, default ``dim // heads``.
        ffn: width of the feed-forward layer as a multiple of ``dim``; 0: attention only.
        **common: ``item_rows``, ``item_scale``, ``normalise`` of :class:`lab.poolers.Pooler`.
    """

    sized = staticmethod(_sized)

    def __init__(
        self,
        dim: int,
        items: int | None = None,
        *,
        heads: int = HEADS,
        dim_head: int | None = None,
        ffn: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(dim, items, **common)
        self.block = Block(dim, heads, dim_head, ffn)

    def pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        """(batch, dim) the mean over the items that count."""
        return POOLINGS["mean"](self.block(states, states, tokens.mask), tokens)
