"""The second module of a lab model: the pooled layers to one embedding."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from sentence_transformers.base.modules.module import Module
from torch import nn


class LayerMix(Module):
    """A weighted sum over the layers that the encoder pooled: the sentence embedding.

    Args:
        weights: one per pooled layer. Fixed as they are, or, when ``learned``, the start of a
            scalar mix: gamma * sum_l softmax(w)_l h_l (ELMo, arXiv:1802.05365, equation 1).
        name: what the mix is called in tables.
        learned: whether softmax weights and gamma are trained.
    """

    config_keys: list[str] = ["weights", "name", "learned"]  # noqa: RUF012

    def __init__(self, weights: Sequence[float], name: str = "last", learned: bool = False) -> None:
        super().__init__()
        self.name, self.learned = name, learned
        self.weights = [float(weight) for weight in weights]
        if learned:
            self.scalars = nn.Parameter(torch.zeros(len(self.weights)))
            self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``sentence_embedding`` (batch, dim).

        Raises:
            FloatingPointError: an embedding is not finite (outside of training).
        """
        layers = features["layer_embeddings"]
        if not self.training and not layers.isfinite().all():
            raise FloatingPointError("an embedding of this batch is not finite")
        if len(self.weights) == 1 and not self.learned:
            features["sentence_embedding"] = layers[:, 0]
            return features
        weights = torch.tensor(self.weights, device=layers.device)
        if self.learned:
            weights = self.gamma * self.scalars.softmax(0)
        mixed = torch.einsum("bld,l->bd", layers.float(), weights.float())
        features["sentence_embedding"] = mixed.to(layers.dtype)
        return features

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Save the weights and, when learned, the parameters."""
        self.save_config(output_path)
        if self.learned:
            self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:  # type: ignore[override]
        """Load a saved mix; called by ``SentenceTransformer``."""
        hub = {
            key: value
            for key, value in kwargs.items()
            if key in ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        }
        mix = cls(**cls.load_config(model_name_or_path, **hub))
        if mix.learned:
            cls.load_torch_weights(model_name_or_path, model=mix, **hub)
        return mix
