"""Where a model comes from: a package, an untrained control, a folder or the hub."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.transformer import Transformer
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from lab.manifest import record_input, recording
from lab.models.architecture import plain_states, probe_ids
from lab.models.checkpoints import CHECKPOINTS, write_random
from lab.models.embedding_model import EmbeddingModel
from lab.paths import cache
from lab.registry import unknown

ENCODER = "lab.models.encoder.Encoder"
TRUSTED = ("lab.", "sentence_transformers.")  # code that is installed here, not brought along


def open_model(
    name: str, *, seed: int | None, revision: str | None, **options: Any
) -> SentenceTransformer:
    """The model called ``name`` as sentence-transformers loads it; see :func:`lab.models.load`.

    Raises:
        LookupError: nothing is called that.
        ValueError: damaged or missing weights; ``seed`` or ``revision`` where there is none.
        ConnectionError: the hub gave no such model, with what to do instead.
    """
    if os.environ.get("LAB_MODE") == "batch":
        disable_progress_bar()
    control = name.startswith("random:")
    local = control or name in CHECKPOINTS or (bool(name) and Path(name).is_dir())
    if seed is not None and not control:
        raise ValueError(f"seed is for the weights of random: controls; {name!r} has its own")
    if revision is not None and local:
        raise ValueError(f"revision is for hub repositories; {name!r} is none")
    if name in CHECKPOINTS:
        return _from_folder(name, CHECKPOINTS[name].folder(), **options)
    if control:
        with tempfile.TemporaryDirectory(prefix="lab-random-") as folder:
            write_random(name.removeprefix("random:"), Path(folder), seed or 0)
            return _from_folder(name, Path(folder), **options)
    if local:
        return _from_folder(name, Path(name), **options)
    if name.count("/") != 1 or name[0] in "./~":
        # One word is a misspelt checkpoint or a missing folder far more often than a hub id.
        raise LookupError(
            unknown("checkpoint", name, [*CHECKPOINTS, "random:llama"])
            + "; a folder must exist, a hub id has the form owner/name"
        )
    return _from_hub(name, revision=revision, **options)


def is_lab_model(folder: Path) -> bool:
    """Whether a folder holds a saved lab model and no code but ours and sentence-transformers'."""
    file = folder / "modules.json"
    kinds = [module["type"] for module in json.loads(file.read_text())] if file.is_file() else []
    return ENCODER in kinds and all(kind.startswith(TRUSTED) for kind in kinds)


def _from_folder(name: str, folder: Path, **options: Any) -> SentenceTransformer:
    ours = is_lab_model(folder)
    options["trust_remote_code"] = ours or options["trust_remote_code"]
    if recording():
        files = {
            str(path): _sha256(path) for path in sorted(folder.resolve().glob("*.safetensors"))
        }
        # The weights of a random control are gone after loading; its seed names them.
        known = {} if name.startswith("random:") else files
        record_input("model", name=name, files=known, sha256=sorted(files.values()))
    kind = EmbeddingModel if ours else SentenceTransformer
    try:
        model = kind(str(folder), local_files_only=True, **options)
    except SafetensorError as error:
        cure = "restore the folder"
        if folder.is_relative_to(cache()):
            cure = "delete that folder, it will be made again"
        raise ValueError(f"the weights in {folder} are damaged ({error}); {cure}") from error
    _refuse_missing(name, model)
    return model


def _from_hub(name: str, **options: Any) -> SentenceTransformer:
    try:
        model = SentenceTransformer(name, **options)
    except OSError as error:
        offline = os.environ.get("HF_HUB_OFFLINE")
        raise ConnectionError(
            f"{name!r} is no folder, and the model hub gave no such model: {error}. Without a hub: "
            f"use a packaged model ({', '.join(CHECKPOINTS)}), or download the repository on a "
            "connected machine and give its folder"
            + ("; HF_HUB_OFFLINE is set here" if offline else "")
        ) from error
    _refuse_missing(name, model)
    record_input("model", name=name, revision=getattr(model[0].config, "_commit_hash", None))
    return model


def _refuse_missing(name: str, model: SentenceTransformer) -> None:
    """Refuse a checkpoint without some of the weights that its hidden states depend on.

    transformers makes them up and only logs it. It marks every weight that it has loaded.
    """
    if not isinstance(model[0], Transformer):
        return
    parameters = model[0].model.named_parameters()
    absent = {key: p for key, p in parameters if not getattr(p, "_is_hf_initialized", False)}
    missing = _used(model[0].model, absent) if absent else []
    if missing:
        raise ValueError(
            f"the checkpoint of {name!r} lacks {len(missing)} weights of a "
            f"{type(model[0].model).__name__}: {', '.join(missing[:5])}"
            + (", ..." if len(missing) > 5 else "")
            + "; random ones would be in their place. Restore the weights, or the config.json that "
            "belongs to them"
        )


def _used(model: PreTrainedModel, parameters: dict[str, torch.nn.Parameter]) -> list[str]:
    """Those that the last hidden states have a gradient for: all but heads and poolers."""
    trainable = [parameter.requires_grad for parameter in parameters.values()]
    ids = probe_ids(model, 5)
    with torch.enable_grad():
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        states = plain_states(model, input_ids=ids, attention_mask=torch.ones_like(ids))
        gradients = torch.autograd.grad(states.sum(), [*parameters.values()], allow_unused=True)
    for parameter, before in zip(parameters.values(), trainable, strict=True):
        parameter.requires_grad_(before)
    return [key for key, found in zip(parameters, gradients, strict=True) if found is not None]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
