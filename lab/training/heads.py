"""The language-model head of a decoder: its states to the logits of the next token."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lab.models.architecture import (
    architecture,
    backbone,
    evaluating,
    is_decoder,
    plain_states,
    probe_ids,
)

if TYPE_CHECKING:
    from lab.models import EmbeddingModel

Head = Callable[[Tensor], Tensor]
GIVE = "give head=AutoModelForCausalLM.from_pretrained(...).get_output_embeddings()"


def tied_head(model: "EmbeddingModel") -> Head:
    """The head of a model that predicts with its input embeddings E: states to states E^T.

    It is compared with the logits of transformers' own causal language model on a few tokens.

    Raises:
        ValueError: an encoder; a head of its own, without which an embedding model is loaded; a
            head that is not this product alone (Gemma 2 caps its logits, Phi adds a bias).
    """
    transformer = backbone(model.encoder.model)
    name, config = architecture(transformer), transformer.config.get_text_config()
    if not is_decoder(transformer):
        raise ValueError(f"{name} is no decoder, so it has no next token to predict")
    if not config.tie_word_embeddings:
        raise ValueError(
            f"this {name} has a language-model head of its own (its config says "
            f"tie_word_embeddings=False), and an embedding model is loaded without it; {GIVE}"
        )
    table: Any = transformer.get_input_embeddings()

    def head(states: Tensor) -> Tensor:
        return nn.functional.linear(states, table.weight)

    capped = getattr(config, "final_logit_softcapping", None)  # which few tokens don't show
    if capped or not _is_head(head, transformer):
        raise ValueError(
            f"{name} predicts with more than its input embeddings (a cap, a scale, a bias, a layer "
            f"in between); {GIVE}, in a function that does the rest too"
        )
    return head


def _is_head(head: Head, transformer: Any) -> bool:
    """Whether it gives the logits of transformers' causal language model of this architecture."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # without weights: those of the transformer are put in
        whole = AutoModelForCausalLM.from_config(copy.deepcopy(transformer.config))
    setattr(whole, whole.base_model_prefix, transformer)
    whole.get_output_embeddings().weight = transformer.get_input_embeddings().weight
    if any(weight.is_meta for weight in whole.parameters()):
        return False
    ids = probe_ids(transformer, 5)
    with evaluating(transformer):
        whole.eval()
        theirs = whole(input_ids=ids, use_cache=False).logits
        ours = head(plain_states(transformer, input_ids=ids, attention_mask=torch.ones_like(ids)))
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
