"""A fitted repair as a module of a model: the repaired encoder is still a SentenceTransformer.

>>> repair = whitening().fit(read_out(model, train)[-1, "mean"])
>>> repaired = attach(model, repair)
>>> repaired.save_pretrained("folder"); lab.models.load("folder")
"""

import copy
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers.base.modules.module import Module

from lab.models.embedding_model import EmbeddingModel
from lab.models.loading import variant
from lab.repairs.estimator import Repair, restore, store

ARRAYS = "repair.safetensors"


class RepairModule(Module):
    """A fitted repair between the layer mix and what follows it.

    The repair's own ``transform`` runs, in float64 on the CPU, so a model's vectors are those of
    the repair bit for bit on any device; the arrays stay in float64 when the model is halved. No
    gradient passes through.

    Args:
        repair: what to hold; a copy is kept.

    Raises:
        sklearn.exceptions.NotFittedError: the repair is not fitted.
    """

    def __init__(self, repair: Repair) -> None:
        super().__init__()
        store(repair)  # refuses what is not fitted
        self.repair = copy.copy(repair)

    @property
    def repair_name(self) -> str:
        """The name of the repair in ``lab.repairs.REPAIRS``, with the options that were given."""
        return self.repair.label

    def get_embedding_dimension(self) -> int:
        """Dimensions that come out."""
        return self.repair.n_features_out_

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Repair ``sentence_embedding`` (batch, dim); half precision comes out as float32.

        Raises:
            ValueError: a gradient is asked for; whatever the repair refuses.
        """
        embeddings = features["sentence_embedding"]
        if embeddings.requires_grad:
            raise ValueError(
                f"no gradient passes through a fitted repair ({self.repair_name}): train the model "
                "without it, then fit it on the trained model's embeddings and attach it"
            )
        wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        repaired = torch.from_numpy(self.repair.transform(wide.cpu().numpy()))
        features["sentence_embedding"] = repaired.to(embeddings.device)
        return features

    def get_config_dict(self) -> dict[str, Any]:
        """Name, options and provenance of the repair."""
        return store(self.repair)[0]

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save name, options and provenance as JSON, the arrays as safetensors."""
        self.save_config(output_path)
        save_file(store(self.repair)[1], Path(output_path) / ARRAYS)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> Self:  # type: ignore[override]
        """Load a saved repair; called by ``SentenceTransformer``.

        Raises:
            FileNotFoundError: the arrays are missing.
        """
        hub = {
            key: value
            for key, value in kwargs.items()
            if key in ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        }
        arrays = cls.load_file_path(model_name_or_path, ARRAYS, **hub)
        if arrays is None:
            raise FileNotFoundError(
                f"{model_name_or_path} has a repair without its {ARRAYS}; save the model again"
            )
        return cls(restore(cls.load_config(model_name_or_path, **hub), load_file(arrays)))


def attach(model: EmbeddingModel, repair: Repair) -> EmbeddingModel:
    """A second model with the same weights in memory and the repair behind its layer mix.

    It comes before Normalize or Dense, if there are any, and after a repair that is there already.
    Fit it on what ``lab.readout`` reads; a second one on what the first makes of that.

    Raises:
        TypeError: not a lab model, or not a repair.
        sklearn.exceptions.NotFittedError: the repair is not fitted.
        ValueError: fitted on another width, or on unit-norm vectors, which no layer mix gives.
    """
    if not isinstance(model, EmbeddingModel) or not isinstance(repair, Repair):
        raise TypeError(
            "attach takes a model of lab.models.load and a repair of lab.repairs; got "
            f"{type(model).__name__} and {type(repair).__name__}"
        )
    module = RepairModule(repair)
    modules = list(model)
    at = 2
    while at < len(modules) and isinstance(modules[at], RepairModule):
        at += 1
    sized: list[Any] = [
        module for module in modules[:at] if hasattr(module, "get_embedding_dimension")
    ]
    width, fitted = sized[-1].get_embedding_dimension(), repair.fitted_on_
    if fitted.d != width:
        raise ValueError(
            f"{module.repair_name} was fitted on d = {fitted.d}, but what comes before it in this "
            f"model gives d = {width}: fit it on this model's read-outs (lab.readout.read_out)"
        )
    if fitted.unit_norm:
        raise ValueError(
            f"{module.repair_name} was fitted on unit-norm vectors, but behind the layer mix, "
            "before any Normalize, vectors have other norms: fit it on this model's read-outs "
            "(lab.readout.read_out)"
        )
    other = variant(model)
    other.insert(at, module)
    return other
