"""Hashes of weights, bit for bit."""

import hashlib

import torch
from torch import Tensor, nn


def of_weights(module: nn.Module) -> str:
    """The sha256 of all parameters and buffers with their names, types and shapes."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(f"{name} {of_tensor(tensor)}\n".encode())
    return found.hexdigest()


def of_tensor(tensor: Tensor) -> str:
    """The sha256 of a tensor: type, shape and bytes, on whatever device."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    found.update(flat.numpy().data)
    return found.hexdigest()
