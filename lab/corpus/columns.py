"""The vectors of a list of texts: several read-outs, or what ``encode`` returns, in one pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lab.models import EmbeddingModel, architecture
from lab.pooling import LAYER_MIXES
from lab.readout import ReadOuts, read_out

OWN = "embedding"
TOGETHER = 1024  # texts that go through the modules after the pooling together


@dataclass(frozen=True)
class Columns:
    """Which vectors there are of a text.

    Without a choice of poolings and layers there is one column, ``embedding``, and it is what
    ``model.encode`` returns: the model's own pooling and layers, then every module after them.
    Otherwise columns are ``{pooling}_layer_{number}`` or ``{pooling}_{layer mix}``, as pooled:
    Normalize, Dense or a repair are no part of a read-out.

    Attributes:
        poolings: token poolings, one at least.
        layers: numbers of hidden states, 0 to L, or names of layer mixes.
        own: whether it is the one column of ``encode``.
    """

    poolings: tuple[str, ...]
    layers: tuple[int | str, ...]
    own: bool

    @classmethod
    def of(
        cls, model: EmbeddingModel, poolings: Sequence[str], layers: Sequence[int | str]
    ) -> "Columns":
        """The columns for a choice; of a missing half, the model's pooling, or its last layer.

        Raises:
            LookupError, ValueError: a layer mix or hidden state that is not there.
        """
        encoder = model.encoder
        if not poolings and not layers:
            return cls((encoder.pooling,), tuple(encoder.layers), own=True)
        last = depth(model)
        numbers = [
            layer if isinstance(layer, str) else encoder.layer_index(layer, last)
            for layer in (layers or (-1,))
        ]
        for name in (name for name in numbers if isinstance(name, str)):
            LAYER_MIXES[name]  # unknown: says what there is
        return cls(
            tuple(dict.fromkeys(poolings or (encoder.pooling,))),
            tuple(dict.fromkeys(numbers)),
            own=False,
        )

    def read(
        self,
        model: EmbeddingModel,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        token_budget: int | None = None,
    ) -> tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]:
        """Each column (texts, dim) float32; tokens of each text; tokens cut from each.

        Raises:
            TypeError, ValueError, LookupError, FloatingPointError, OSError: as
                :func:`lab.readout.read_out`.

        Warns:
            TruncationWarning: texts that are longer than the model.
        """
        found = read_out(
            model,
            texts,
            poolings=self.poolings,
            layers=self._states(depth(model)),
            prompt=prompt,
            token_budget=token_budget,
            progress=False,
        )
        vectors = {OWN: _finished(model, found)} if self.own else self._named(found)
        return vectors, found.lengths, found.cut

    def _states(self, last: int) -> list[int]:
        """The hidden states that have to be read."""
        numbers: set[int] = set()
        for layer in self.layers:
            if isinstance(layer, int):
                numbers.add(layer)
            else:
                numbers.update(LAYER_MIXES[layer](last + 1).nonzero().flatten().tolist())
        return sorted(numbers)

    def _named(self, found: ReadOuts) -> dict[str, np.ndarray]:
        vectors = {}
        for layer in self.layers:
            for pooling in self.poolings:
                if isinstance(layer, int):
                    vectors[f"{pooling}_layer_{layer}"] = found[layer, pooling]
                else:
                    vectors[f"{pooling}_{layer}"] = found.mix(layer, pooling)
        return vectors


def depth(model: EmbeddingModel) -> int:
    """The number of a model's last hidden state."""
    return architecture.depth(model.encoder.model)


def default_prompt(model: EmbeddingModel) -> str | None:
    """What ``model.encode`` puts before every text when no prompt is given."""
    name = model.default_prompt_name
    return None if name is None else model.prompts[name]


@torch.inference_mode()
def _finished(model: EmbeddingModel, found: ReadOuts) -> np.ndarray:
    """The embeddings (texts, dim) that the modules after the encoder make of its layers."""
    kind = next(model.parameters()).dtype
    layers = [torch.from_numpy(found[layer, model.encoder.pooling]) for layer in found.layers]
    parts = []
    for part in torch.stack(layers, 1).split(TOGETHER):
        features = {"layer_embeddings": part.to(model.device, kind)}
        for module in list(model)[1:]:
            features = module(features)
        parts.append(features["sentence_embedding"].float().cpu())
    return torch.cat(parts).numpy()
