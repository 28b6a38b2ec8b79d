"""What is read of a forward pass, and what comes of it: the hidden states of texts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lab.models import EmbeddingModel, architecture
from lab.models.encoder import Encoder
from lab.models.texts import TokenisedText, mean_of_windows
from lab.models.trained_pooling import TrainedPooling
from lab.pooling import POOLINGS, Tokens
from lab.store.shards import Place


@dataclass(frozen=True)
class Wanted:
    """What is read of a forward pass: the token states of one layer, or pooled layers.

    Attributes:
        pooling: a name in ``lab.pooling.POOLINGS``; None for the states of the tokens themselves
            (those that take part in the pooling: no sink, no template that is left out).
        layers: hidden states 0 .. L, negative from the end; default the last for token states,
            1 .. L for pooled ones.
    """

    pooling: str | None = None
    layers: tuple[int, ...] | None = None

    def of(self, encoder: Encoder) -> "Kind":
        """The same with the layers of this encoder, 0 .. L.

        Raises:
            LookupError, ValueError: no such pooling or layer; token states of several layers.
        """
        if self.pooling is not None:
            POOLINGS[self.pooling]  # LookupError where there is none
        count = architecture.depth(encoder.model)
        default = (count,) if self.pooling is None else tuple(range(1, count + 1))
        layers = default if self.layers is None else self.layers
        if not layers or (self.pooling is None and len(layers) > 1):
            raise ValueError(
                "wanted are the token states of one layer, or one or more pooled layers; got "
                f"pooling={self.pooling!r}, layers={self.layers!r}"
            )
        return Kind(self.pooling, tuple(encoder.layer_index(layer, count) for layer in layers))


@dataclass(frozen=True)
class Kind(Wanted):
    """What is wanted, with the layers of one encoder: numbers 0 .. L."""

    layers: tuple[int, ...] = ()

    def items(self, text: TokenisedText) -> int:
        """How many states there are of a text."""
        return sum(text.pool) if self.pooling is None else len(self.layers)

    def read(self, hidden: Tensor, tokens: Tokens, windows: Tensor | None) -> Tensor:
        """Of one layer (batch, seq, dim): its tokens (token, dim), or it pooled (text, dim)."""
        if self.pooling is None:
            return hidden[tokens.mask]
        return mean_of_windows(POOLINGS[self.pooling](hidden, tokens), windows)

    def by_text(self, read: dict[int, Tensor], tokens: Tokens) -> Sequence[Tensor]:
        """What was read of a batch as (item, dim) for each text, on the CPU."""
        if self.pooling is None:
            return read[self.layers[0]].cpu().split(tokens.mask.sum(-1).tolist())
        return torch.stack([read[layer] for layer in self.layers], 1).cpu().unbind()


@dataclass(frozen=True, eq=False)
class States:
    """The hidden states of texts, mapped into memory from the disk: ``states[text]``.

    A text takes tokens x dim x 4 bytes in float32 (SmolLM2: 2.3 KB a token, 350 MB for 10 000
    texts of 15 tokens) or, pooled, layers x dim x 4 (69 KB); half of it in half precision. That is
    on the disk and, as far as there is room, in the system's page cache; a process itself holds the
    batches that it makes of them.

    Attributes:
        kind: what was read.
        texts: each once, in the order in which they were first given.
        dtype: that of the model, in which batches are given; the stored one may be narrower.
        fingerprint: of the model (:func:`lab.store.fingerprint.fingerprint`).
    """

    kind: Kind
    texts: tuple[str, ...]
    dtype: torch.dtype
    fingerprint: str
    places: list[Place] = field(repr=False)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts)}

    @property
    def dim(self) -> int:
        """The width of a state."""
        return self.places[0].shard.shape[1]

    def rows(self, texts: Sequence[str]) -> list[int]:
        """The numbers of these texts.

        Raises:
            LookupError: a text whose states were not asked for.
        """
        for text in texts:
            if text not in self._rows:
                raise LookupError(
                    f"the hidden states of {str(text)[:40]!r} are not among those of these "
                    f"{len(self)} texts: give all texts to frozen.states (what is stored is only "
                    "looked up), or encode with frozen.attach(model, head)"
                )
        return [self._rows[text] for text in texts]

    def batch(self, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """The states of some texts as the lab's encoder gives them, padded to the longest text."""
        found = [self.places[row].states for row in rows]
        if self.kind.pooling is not None:
            return {"layer_embeddings": torch.stack(found).to(device, self.dtype)}
        lengths = torch.tensor([len(one) for one in found])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return {
            "token_embeddings": pad_sequence(found, batch_first=True).to(device, self.dtype),
            "attention_mask": mask.long().to(device),
        }

    def __getitem__(self, text: str) -> Tensor:
        """(item, dim) the states of a text, in the stored dtype; an item is a token or a layer."""
        return self.places[self.rows([text])[0]].states

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.texts)


def wanted_by(model: EmbeddingModel) -> Kind:
    """What the second module of a lab model reads."""
    layers = tuple(model.encoder.layers)
    if isinstance(model.head, TrainedPooling) and model.head.reads == "tokens":
        return Kind(None, (max(layers),))
    return Kind(model.encoder.pooling, layers)
