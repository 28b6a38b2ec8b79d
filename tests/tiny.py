"""Tiny random models of every architecture the lab is tested on, built in memory."""

import torch
from torch import nn

from lab.models.checkpoints import random_model, tiny_config

DECODERS = (
    "llama mistral qwen2 qwen3 gemma gemma2 gemma3_text gpt2 gpt_neox phi phi3 olmo2 smollm3 opt "
    "modernbert-decoder falcon gpt_neo bloom"
).split()
ENCODERS = (
    "bert distilbert roberta xlm-roberta modernbert nomic_bert gte jina_embeddings_v3 eurobert "
    "electra albert t5 mpnet deberta-v2"
).split()
WINDOWED = {"mistral", "gemma2", "gemma3_text", "modernbert", "modernbert-decoder"}
# A window of 6 tokens, and every second layer with one, so that windows act on short texts.
LAYER_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
CHANGES = {
    "mistral": {"sliding_window": 6},
    "gemma2": {"sliding_window": 6},
    "gemma3_text": {"sliding_window": 6, "layer_types": LAYER_TYPES},
    "modernbert": {"local_attention": 6, "layer_types": LAYER_TYPES},
    "modernbert-decoder": {"local_attention": 6, "layer_types": LAYER_TYPES},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "conv_kernel_size": 3,
    },
}
LENGTH = 9


def build(architecture: str, *, sharpness: float = 4.0, **changes: object) -> nn.Module:
    """A tiny model whose matrices are scaled up so that attention matters."""
    config = tiny_config(architecture, **{**CHANGES.get(architecture, {}), **changes})
    model = random_model(config, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embed" not in name and "wte" not in name:
                parameter.mul_(sharpness)
    return model


def ids(length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    """(1, length) token ids without special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, 250, (1, length), generator=generator)
