"""What every trainable pooling is: the items of a text in, one vector out, weights of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from lab.pooling import Tokens
from lab.registry import Registry


class Pooler(nn.Module, ABC):
    """A trainable pooling: states (batch, item, dim) and their mask to (batch, out_dim).

    An item is a token of one layer, or the pooled state of one layer. What the mask leaves out is
    set to zero first, so that even NaN in a pad stays out. All arithmetic is in float32, under
    autocast too, and the weights stay in float32 when the model is halved.

    To add one, write ``pool`` and decorate the class with ``@POOLERS.named("its_name")``.

    Args:
        dim: width of the states.
        items: how many items a text has, where each has a place of its own, as layers have; a
            learned vector E is then added to the states of each place (Tang & Yang,
            arXiv:2409.02727, their code). None or 1, as for tokens: there is no E.
        item_rows: rows of E; default one for each item.
        item_scale: standard deviation of E at the start.
        normalise: whether the pooled vectors get unit norm.

    Attributes:
        out_dim: width of the pooled vectors.

    Raises:
        ValueError: a size below 1, fewer rows of E than items, a negative scale.
    """

    def __init__(
        self,
        dim: int,
        items: int | None = None,
        *,
        item_rows: int | None = None,
        item_scale: float = 0.0,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        places = 1 if items is None else items
        rows = places if item_rows is None else item_rows
        positive(dim=dim, items=places, item_rows=rows)
        if rows < places:
            raise ValueError(f"item_rows is {rows}, but there are {places} items to tell apart")
        if not item_scale >= 0:
            raise ValueError(f"item_scale is a standard deviation, 0 or more; got {item_scale}")
        self.dim, self.items, self.out_dim, self.normalise = dim, items, dim, normalise
        several = places > 1
        self.item_embedding = nn.Parameter(item_scale * torch.randn(rows, dim)) if several else None

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The pooled vectors (batch, out_dim), in the dtype of the states.

        Args:
            states: (batch, item, dim).
            mask: (batch, item) True where an item counts.

        Raises:
            ValueError: a text without items, a mask that is not boolean, states of another shape.
            TypeError: states and mask differ in batch or item.
        """
        if states.ndim != 3 or states.shape[1:] != (self.items or states.shape[1], self.dim):
            raise ValueError(
                f"{type(self).__name__} reads states (batch, {self.items or 'item'}, {self.dim}); "
                f"got {tuple(states.shape)}"
            )
        tokens = Tokens(mask)
        with torch.autocast(states.device.type, enabled=False):
            filled = tokens.fill(states.float(), 0.0)
            if self.item_embedding is not None:
                filled = filled + self.item_embedding[: filled.shape[1]]
            pooled = self.pool(filled, tokens)
            if self.normalise:
                pooled = nn.functional.normalize(pooled, dim=-1)
        return pooled.to(states.dtype)

    @abstractmethod
    def pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        """(batch, out_dim) of float32 states (batch, item, dim), pads at zero; each has its own."""

    @staticmethod
    def sized(dim: int, size: int, **fixed: Any) -> dict[str, Any]:
        """The options that make it ``size`` large, for :func:`lab.poolers.within`; none here."""
        return {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device as asked; a change of dtype is undone."""
        return super()._apply(lambda tensor: fn(tensor).float(), recurse)


POOLERS: Registry[type[Pooler]] = Registry("trainable pooling")


def positive(**counts: object) -> None:
    """Refuse a count that is no whole number of 1 or more, by name."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is a whole number, 1 or more; got {count!r}")
