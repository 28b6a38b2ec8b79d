"""Hashes of weights, bit for bit, and of tokenizers.

They tell what differs by chance or by work, and nobody forges weights here: XXH3 with 128 bits is
as fast as memory, several times as fast as sha256.
"""

import json
from typing import Any

import torch
from torch import Tensor, nn
from xxhash import xxh3_128


def of_weights(module: nn.Module) -> str:
    """The XXH3 of all parameters and buffers with their names, types and shapes."""
    found = xxh3_128()
    for name, tensor in {**dict(module.named_buffers()), **module.state_dict()}.items():
        found.update(f"{name} {of_tensor(tensor)}\n".encode())
    return found.hexdigest()


def of_tensor(tensor: Tensor) -> str:
    """The XXH3 of a tensor: type, shape and bytes, on whatever device."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    found = xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    found.update(flat.numpy().data)
    return found.hexdigest()


def of_tokenizer(tokenizer: Any) -> str | None:
    """The XXH3 of all rules of a tokenizer; None for one in Python, which shows none of them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    rules = json.loads(backend.to_str()) | {"padding": None, "truncation": None}  # of the last call
    return str(xxh3_128(json.dumps(rules).encode()).hexdigest())
