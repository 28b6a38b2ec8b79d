"""What hidden states depend on, as hashes: of a model, and of what it reads of a text."""

import functools
import hashlib
import importlib.metadata
import json
from typing import Any

from lab import paths
from lab.manifest import digest
from lab.models import EmbeddingModel, architecture
from lab.models.texts import TokenisedText
from lab.training.hashing import of_weights

OWN = ("hidden_states", "wanted")
LIBRARIES = ("torch", "transformers")
# Where a config came from or how it was saved, which does not change what the model computes.
INCIDENTAL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")


def fingerprint(model: EmbeddingModel) -> str:
    """The sha256 (64 hex digits) of everything but the text that decides the model's states.

    That is: each weight of the transformer bit for bit, its configuration, attention mode,
    temperature and extension, the code of the lab and the versions of torch and transformers.
    Tokenizer, template, sink, prompt and maximal length act on the token ids and belong to
    :func:`key`; padding side, device and the modules after the encoder have no part. Reads all
    weights, at 1 to 2 GB a second: a change in place goes unnoticed by anything cheaper (peft
    merges through ``.data``, which no version counter sees).

    Raises:
        ValueError: the model has an adapter that is not merged.
    """
    encoder = model.encoder
    transformer = encoder.model
    if getattr(architecture.backbone(transformer), "_hf_peft_config_loaded", False):
        raise ValueError(
            "the model has an adapter, whose scale and on-off switch are not among its weights; "
            "fold it in first: lab.training.adapters.merge(model)"
        )
    config = transformer.config
    facts = {
        "class": type(transformer).__name__,
        "weights": of_weights(transformer),
        "config": {k: v for k, v in config.to_dict().items() if k not in INCIDENTAL},
        "implementation": config._attn_implementation,
        "attention": [encoder.attention, encoder.native_is_causal],
        "temperature": encoder.temperature,
        "extension": encoder.extension,
        "code": _of_code(),
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


@functools.cache
def _of_code() -> str:
    """What computes states: the version of the lab would not change with every mended line."""
    root = paths.ROOT / "lab"
    own = [root / "pooling.py", *(root / "training" / f"{name}.py" for name in OWN)]
    files = [*own, *sorted((root / "models").rglob("*.py"))]
    return _sha({file.name: digest(file) for file in files})


def _sha(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
