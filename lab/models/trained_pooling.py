"""The second module of a lab model, in place of the layer mix: a trainable pooling."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from sentence_transformers.base.modules.module import Module

from lab.poolers import build


class TrainedPooling(Module):
    """A trainable pooling of token states, or of the pooled states of layers; saved with the model.

    Args:
        pooler: a name in ``lab.poolers.POOLERS``.
        dim: width of the states.
        reads: "tokens" of the deepest layer that the encoder reads, or "layers": the states that it
            has pooled.
        items: how many layers there are; None for tokens.
        options: of the pooler.
        name: what it is called in tables; default the pooler's name.
        seed: of the weights; torch's global generator is left alone. A loaded module has its own.

    Raises:
        LookupError, ValueError: an unknown pooler or option, one out of range, tokens with
            ``items`` or layers without.
    """

    config_keys: list[str] = ["pooler", "dim", "reads", "items", "options", "name"]  # noqa: RUF012

    def __init__(
        self,
        pooler: str,
        dim: int,
        reads: Literal["tokens", "layers"] = "tokens",
        items: int | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (reads, items is None) not in (("tokens", True), ("layers", False)):
            raise ValueError(
                "a trained pooling reads 'tokens' with items=None or 'layers' with their number; "
                f"got reads={reads!r}, items={items}"
            )
        self.pooler, self.dim, self.reads, self.items = pooler, dim, reads, items
        self.options, self.name = dict(options or {}), name or pooler
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # that of the CPU only
            self.pool = build(pooler, dim, items, **self.options)

    def get_embedding_dimension(self) -> int:
        """Dimensions that come out."""
        return self.pool.out_dim

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``sentence_embedding`` (batch, out_dim) in the dtype of the states.

        Raises:
            ValueError: token states of parallel windows, which are not those of a text.
            FloatingPointError: an embedding is not finite (outside of training).
        """
        if self.reads == "layers":
            states = features["layer_embeddings"]
            mask = states.new_ones(states.shape[:2], dtype=torch.bool)
        else:
            if "windows" in features:
                raise ValueError(windows_refused(self.name))
            states = features["token_embeddings"]
            mask = features.get("pool_mask")
            mask = (features["attention_mask"] if mask is None else mask).bool()
        embeddings = self.pool(states, mask)
        if not self.training and not embeddings.isfinite().all():
            raise FloatingPointError("an embedding of this batch is not finite")
        features["sentence_embedding"] = embeddings
        return features

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Save what it is and its weights."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:  # type: ignore[override]
        """Load a saved pooling with its weights; called by ``SentenceTransformer``."""
        hub = {
            key: value
            for key, value in kwargs.items()
            if key in ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        }
        module = cls(**cls.load_config(model_name_or_path, **hub))
        cls.load_torch_weights(model_name_or_path, model=module, **hub)
        return module


def windows_refused(name: str) -> str:
    """What to say of a pooling of tokens under an extension that reads parallel windows."""
    return (
        f"{name} reads the token states of a text, which parallel windows don't have: take another "
        f"extension, or pool the layers with it (pooling='mean', layers={name!r})"
    )
