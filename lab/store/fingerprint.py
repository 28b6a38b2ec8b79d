"""What hidden states depend on, as hashes: of a model, and of what it reads of a text."""

import functools
import hashlib
import importlib.metadata
import json
import os
from typing import Any

import torch
from torch import Tensor, nn

from lab import paths
from lab.manifest import cpu, digest
from lab.models import EmbeddingModel, architecture
from lab.models.texts import TokenisedText
from lab.store.hashing import of_weights

LIBRARIES = ("torch", "transformers")
KNOWN = ("lab", *LIBRARIES)  # whose code is in the fingerprint, by content or version
BLAS = ("MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "CUBLAS_", "NVIDIA_TF32_OVERRIDE")
# Where a config came from or how it was saved, which does not change what the model computes.
INCIDENTAL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


def fingerprint(model: EmbeddingModel) -> str:
    """The sha256 (64 hex digits) of everything but the text that decides the model's states.

    That is: each weight of the transformer bit for bit, its configuration, attention mode,
    temperature and extension, the code of the lab's poolings and models and the versions of torch
    and transformers. Tokenizer, template, sink, prompt and maximal length act on the token ids and
    belong to :func:`key`; padding side, device and the modules after the encoder have no part.
    Reads all weights, at about 5 GB a second: a change in place goes unnoticed by anything cheaper
    (peft merges through ``.data``, which no version counter sees).

    Raises:
        ValueError: the model has an adapter that is not merged.
    """
    encoder = model.encoder
    transformer = encoder.model
    if _adapted(transformer):
        raise ValueError(
            "the model has an adapter, whose scale and on-off switch are not among its weights; "
            "fold it in first: lab.training.adapters.merge(model)"
        )
    config = transformer.config
    facts = {
        "modules": {name: _class(module) for name, module in transformer.named_modules()},
        "weights": of_weights(transformer),
        "config": {k: v for k, v in config.to_dict().items() if k not in INCIDENTAL},
        "implementation": config._attn_implementation,
        "attention": [encoder.attention, encoder.native_is_causal],
        "temperature": [encoder.temperature, getattr(transformer, "_lab_temperature", None)],
        "extension": encoder.extension,
        "code": of_code("pooling.py", "models/**/*.py"),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    return _sha(facts)


def address(model_fingerprint: str, **facts: Any) -> str:
    """The sha256 of a model's fingerprint and of what is wanted of its states."""
    return _sha({"model": model_fingerprint, **facts})


def key(text: TokenisedText) -> bytes:
    """The sha256 (32 bytes) of what a model reads of a text: token ids, pool, where it stands."""
    return hashlib.sha256(
        json.dumps([text.ids, text.pool, text.prefix, text.suffix]).encode()
    ).digest()


def unseen(model: EmbeddingModel) -> str | None:
    """What acts on a model's passes and is not in its fingerprint; None where nothing does.

    Looked for are what a notebook may do to a model: an adapter, a hook, another ``forward``, a
    class of its own, an attention that is observed, replaced, or has a temperature that is learned.
    """
    transformer = model.encoder.model
    if _adapted(transformer):
        return "an adapter that is not merged"
    for name, module in transformer.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if not all(_known(hook) for hook in hooks):
            return f"a hook on {name or 'the model'}"
        if "forward" in vars(module) or not _known(type(module)):
            return f"a forward of its own in {name or 'the model'}"
        acts = getattr(module, "_lab_inside", None)
        if acts and (acts.attend or acts.observe or isinstance(acts.inverse, Tensor)):
            return f"what is set inside {name}"
    return None


def numerics(model: EmbeddingModel) -> dict[str, Any]:
    """What the last bits of a pass depend on beside the model: machine, threads, precision."""
    kind = model.device.type
    matmul, sdp = torch.backends.cuda.matmul, torch.backends.cuda
    return {
        "device": [kind, torch.cuda.get_device_name(model.device) if kind == "cuda" else cpu()],
        "vector": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": [torch.get_float32_matmul_precision(), matmul.allow_tf32],
        "autocast": [torch.is_autocast_enabled(kind), str(torch.get_autocast_dtype(kind))],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "attention": [
            sdp.flash_sdp_enabled(), sdp.mem_efficient_sdp_enabled(), sdp.math_sdp_enabled(),
            sdp.cudnn_sdp_enabled(), torch.backends.mkldnn.enabled,
        ],
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(BLAS)},
    }  # fmt: skip


@functools.cache
def of_code(*patterns: str) -> str:
    """The sha256 of files of the lab: its version would not change with every mended line."""
    root = paths.ROOT / "lab"
    files = sorted({file for pattern in patterns for file in root.glob(pattern)})
    return _sha({file.relative_to(root).as_posix(): digest(file) for file in files})


def _adapted(transformer: nn.Module) -> bool:
    return getattr(architecture.backbone(transformer), "_hf_peft_config_loaded", False)


def _class(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _known(item: object) -> bool:
    """Whether a class or function is of the lab or of a library whose version counts."""
    return getattr(item, "__module__", "").partition(".")[0] in KNOWN


def _sha(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
