"""Frozen backbone: hidden states are computed once, and every head trains on them.

>>> model = lab.models.load("smollm2-135m", pooling="cross_attention")
>>> cached = states(model, texts)  # one forward pass a text; the next time none
>>> train(frozen.model(cached, model[1]), pairs, recipe)  # trains the head of model itself
"""

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.input_module import InputModule
from torch import Tensor, nn

from lab.models import EmbeddingModel, heads
from lab.models.encoder import Encoder
from lab.models.layer_mix import LayerMix
from lab.models.loading import settings, variant
from lab.models.trained_pooling import TrainedPooling
from lab.training.hidden_states import states, states_of
from lab.training.wanted import Kind, States, Wanted, wanted_by

__all__ = ["CachedStates", "States", "Wanted", "attach", "model", "states", "states_of"]


class CachedStates(InputModule):
    """The first module of a frozen model: texts to their hidden states, which are looked up.

    Features are those that the lab's encoder gives: ``token_embeddings`` (text, token, dim) padded
    on the right to the longest text of the batch, with ``attention_mask``, or ``layer_embeddings``
    (text, layer, dim). A batch of texts is their numbers until it is on its device
    (``input_ids``, the name by which sentence-transformers knows the features of a column).

    Args:
        states: what to look up; None in a checkpoint that was loaded: weights of a head to resume
            from, no model that can encode.
        fingerprint: of the model that computed them.
    """

    config_keys: list[str] = ["fingerprint"]  # noqa: RUF012
    config_file_name = "cached_states.json"

    def __init__(self, states: States | None = None, fingerprint: str | None = None) -> None:
        super().__init__()
        self.states = states
        self.fingerprint = states.fingerprint if states else fingerprint

    @property
    def max_seq_length(self) -> None:
        """None, and can't be set: texts were cut when their states were computed."""

    def get_embedding_dimension(self) -> int:
        """The width of a state."""
        return self._looked_up.dim

    def preprocess(  # type: ignore[override]
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        max_length: int | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """The numbers of texts as ``input_ids`` (text, 1).

        Raises:
            LookupError: a text whose states were not asked for.
            ValueError: a prompt or a length, which the states were not computed with.
        """
        for name, value in (("prompt", prompt), ("max_length", max_length)):
            if value:
                raise ValueError(
                    f"{name}={value!r} would change hidden states that are computed already; set "
                    "template or max_length on the model before frozen.states"
                )
        rows = torch.tensor(self._looked_up.rows(inputs)).unsqueeze(-1)
        return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add the states of the texts, on the device of ``input_ids``."""
        rows = features["input_ids"]
        return features | self._looked_up.batch(rows[:, 0].tolist(), rows.device)

    @property
    def _looked_up(self) -> States:
        if self.states is None:
            raise ValueError(
                "this is a checkpoint of a head without hidden states; resume training from it, "
                "or give its head to frozen.attach(model, head)"
            )
        return self.states

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save the model's fingerprint; states stay where they are."""
        self.save_config(output_path)


def model(states: States, *modules: nn.Module) -> SentenceTransformer:
    """A model of the texts of ``states``: they are looked up, ``modules`` make embeddings of them.

    Embeddings are those of the model the states come from, with these modules behind its encoder:
    ``frozen.model(states, *list(model)[1:])`` equals ``model``. The modules are the objects given:
    whatever trains the frozen model trains them.

    Args:
        states: of all texts that will be embedded.
        modules: the head, and what else comes after an encoder (Normalize, Dense).

    Raises:
        ValueError: no module, a head that reads other states, or one that reads pads
            (``mask=False``), of which no states are kept.
    """
    if not modules:
        raise ValueError("a frozen model needs a head: frozen.model(states, model[1])")
    _check_reads(modules[0], states.kind, states.dim)
    if getattr(modules[0], "options", {}).get("mask") is False and states.kind.pooling is None:
        raise ValueError(
            "a pooling without a mask reads the states of pads, which depend on the batch and are "
            "not kept; take mask=True, or train it behind the encoder itself"
        )
    devices = [parameter.device for module in modules for parameter in module.parameters()]
    device = devices[0] if devices else torch.device("cpu")
    return SentenceTransformer(modules=[CachedStates(states), *modules], device=str(device))


def attach(model: EmbeddingModel, head: nn.Module, wanted: Wanted | None = None) -> EmbeddingModel:
    """A second lab model with the same weights in memory and ``head`` as its second module.

    What comes behind the head (Normalize, Dense) stays.

    Args:
        model: the one whose states the head was trained on.
        head: a ``LayerMix`` or ``TrainedPooling``; the same object, moved to the model's device.
        wanted: what the head reads, such as ``states.kind``; default what the model's encoder is
            set to.

    Raises:
        ValueError: the head reads other states; a repair behind it was fitted on another one.
    """
    repair = settings(model)["repair"]
    if repair:
        raise ValueError(
            f"another head would change what this model's {repair} reads, and that was fitted on "
            "the present one; attach the head first, then fit and attach the repair"
        )
    other = variant(model)
    encoder = other.encoder
    if wanted is not None:
        kind = wanted.of(encoder)
        now = {name: getattr(encoder, name) for name in Encoder.settings}
        del now["native_is_causal"]  # of the checkpoint, no setting
        pooling = kind.pooling or encoder.pooling  # which nobody reads where tokens are read
        encoder.configure(**{**now, "layers": kind.layers, "pooling": pooling})
    other[1] = head.to(model.device)
    _check_reads(head, wanted_by(other), encoder.get_embedding_dimension())
    heads.check(other)
    return other.eval()


def _check_reads(head: nn.Module, kind: Kind, dim: int) -> None:
    """Refuse states that a head of the lab does not read."""
    given = ("tokens", None, dim) if kind.pooling is None else ("layers", len(kind.layers), dim)
    if isinstance(head, TrainedPooling):
        wants = (head.reads, head.items, head.dim)
    elif isinstance(head, LayerMix):
        wants = ("layers", len(head.weights), dim)
    else:
        return
    if given != wants:
        said = [f"{what} (items {items}, dim {width})" for what, items, width in (wants, given)]
        raise ValueError(
            f"{head.name} reads {said[0]}, the states are {said[1]}: ask for the right ones with "
            "frozen.states(model, texts), where model has this head, or states_of and Wanted"
        )
