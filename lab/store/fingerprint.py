"""What hidden states depend on, as hashes: of a model, and of what it reads of a text."""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_all

from lab import paths
from lab.manifest import cpu, digest
from lab.models import EmbeddingModel, architecture
from lab.models.interception import registered
from lab.models.texts import TokenisedText
from lab.pooling import POOLINGS
from lab.store.hashing import of_weights

LIBRARIES = ("torch", "transformers")
FILES = ("pooling.py", "models/**/*.py")  # of the lab, that decide what a pass gives
KNOWN = ("lab", *LIBRARIES)  # whose code is in the fingerprint, by content or version
BLAS = ("MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "CUBLAS_", "NVIDIA_TF32_OVERRIDE")
# Where a config came from or how it was saved, which does not change what the model computes.
INCIDENTAL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
WHERE_FROM = ("name_or_path", "training")  # attributes of a module that change no pass in eval mode


def fingerprint(model: EmbeddingModel) -> str:
    """The sha256 (64 hex digits) of everything but the text that decides the model's states.

    That is: each weight of the transformer bit for bit, the class and the numbers of each of its
    modules, its configuration, attention mode, temperature and extension, the code of the lab's
    poolings and models (as imported) and the versions of torch and transformers. Tokenizer,
    template, sink, prompt and maximal length act on the token ids and belong to :func:`key`;
    padding side, device and the modules after the encoder have no part.
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
    implementation = config._attn_implementation
    facts = {
        "modules": {name: _module(module) for name, module in transformer.named_modules()},
        "weights": of_weights(transformer),
        "config": {k: v for k, v in config.to_dict().items() if k not in INCIDENTAL},
        "implementation": [implementation, _name(registered(implementation))],
        "attention": [encoder.attention, encoder.native_is_causal],
        "temperature": [encoder.temperature, getattr(transformer, "_lab_temperature", None)],
        "extension": encoder.extension,
        "code": CODE,
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


def unseen(model: EmbeddingModel, poolings: Iterable[str] = ()) -> str | None:
    """What acts on passes, or on their poolings, and is in no fingerprint; None: nothing does.

    Looked for is what a notebook may do to a model: an adapter, a hook, on all modules too, another
    ``forward``, of a class too, a class or a function of its own, an attention that it registered,
    one that is observed, replaced, or has a temperature that is learned; and its own poolings.

    Not found are functions replaced inside a library's or the lab's own modules, such as
    ``apply_rotary_pos_emb`` or a method of ``Encoder``, and a module of the lab that was reloaded:
    do that under ``LAB_REUSE=0``, which reads and keeps nothing.
    """
    encoder = model.encoder
    transformer = encoder.model
    if _adapted(transformer):
        return "an adapter that is not merged"
    for_all = [hooks_of_all._global_forward_hooks, hooks_of_all._global_forward_pre_hooks]
    if not all(_known(hook) for hooks in for_all for hook in hooks.values()):
        return "a hook on all modules"
    implementation = transformer.config._attn_implementation
    attention = registered(implementation)
    if not (attention is None or _known(attention)):
        return f"the attention {implementation!r}, which is registered elsewhere"
    if not _known(type(encoder)) or _own(encoder):
        return "a function of its own in the encoder"
    if foreign := [name for name in poolings if not _known(_function(name))]:
        return f"the pooling {foreign[0]!r}, which is registered elsewhere"
    for name, module in transformer.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if not all(_known(hook) for hook in hooks):
            return f"a hook on {name or 'the model'}"
        if _own(module) or not (_known(type(module)) and _known(type(module).forward)):
            return f"a function of its own in {name or 'the model'}"
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


def of_code(*patterns: str) -> str:
    """The sha256 of files of the lab: its version would not change with every mended line.

    Called where a module is imported: later the disk may hold other code than the process runs.
    """
    root = paths.ROOT / "lab"
    files = sorted({file for pattern in patterns for file in root.glob(pattern)})
    return _sha({file.relative_to(root).as_posix(): digest(file) for file in files})


def _adapted(transformer: nn.Module) -> bool:
    return getattr(architecture.backbone(transformer), "_hf_peft_config_loaded", False)


def _module(module: nn.Module) -> list[Any]:
    """Class, forward, and whatever number, switch, word or function a module keeps."""
    plain = {
        name: _name(value) if callable(value) else value
        for name, value in vars(module).items()
        if (callable(value) or isinstance(value, bool | int | float | str | None))
        and not (name.startswith("_") or name in WHERE_FROM)
    }
    return [_name(type(module)), _name(type(module).forward), plain]


def _name(item: object) -> str:
    if isinstance(item, partial):
        return f"{_name(item.func)} {item.args} {item.keywords}"
    return f"{getattr(item, '__module__', None)}.{getattr(item, '__qualname__', None)}"


def _known(item: object) -> bool:
    """Whether a class or function is of the lab or of a library whose version counts."""
    item = item.func if isinstance(item, partial) else item
    return (getattr(item, "__module__", None) or "").partition(".")[0] in KNOWN


def _own(module: nn.Module) -> bool:
    """Whether a method of this one object is replaced, or a function of it comes from elsewhere."""
    return any(
        callable(getattr(type(module), name, None)) or not _known(value)
        for name, value in vars(module).items()
        if callable(value)
    )


def _function(pooling: str) -> object:
    return getattr(POOLINGS[pooling], "weights", POOLINGS[pooling])


def _sha(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


CODE = of_code(*FILES)
