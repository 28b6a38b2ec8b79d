"""Checkpoints of a run: small, whole or refused, and never another run's.

A checkpoint holds the parameters that take gradients, what the trainer needs to go on (optimiser,
schedule, random states, log) and ``run.json``: the configuration it belongs to and the sha256 of
every other file. It is written into a folder of another name, which is then renamed.
"""

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lab import atomic
from lab.store.hashing import of_weights
from lab.training.pairs import Pairs
from lab.training.recipe import Recipe

WEIGHTS, RUN, PARTIAL = "trainable.safetensors", "run.json", "partial"
KEPT = 2  # the last may hold weights that don't give a finite loss; the one before it did

Configuration = dict[str, Any]


class CheckpointWarning(UserWarning):
    """A checkpoint was passed over because a file of it is missing or not as it was written."""


def configuration(model: nn.Module, pairs: Pairs, recipe: Recipe) -> Configuration:
    """Everything that decides the final weights, by name: recipe, data, model before training."""
    return {
        **{f"recipe: {name}": value for name, value in recipe.deciding().items()},
        "texts of the pairs (sha256)": pairs.fingerprint(),
        **{f"module {place}": _module(module) for place, module in enumerate(model.children())},
        "weights before training (xxh3)": of_weights(model),
    }


def _module(module: nn.Module) -> str:
    """The class of a module of a sentence-transformers model, and its settings."""
    known: Configuration = getattr(module, "get_config_dict", dict)()
    return f"{type(module).__name__} {json.dumps(known, sort_keys=True, default=str)}"


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that take gradients, by name."""
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


# --- writing -----------------------------------------------------------------------------------


def write_weights(model: nn.Module, folder: Path) -> None:
    """Write the trainable parameters into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu() for name, tensor in trainable(model).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


def write_whole(folder: Path, mine: Configuration, write: Callable[[Path], Path]) -> None:
    """Have a checkpoint written beside its place, seal it, and move it there in one step."""
    beside = folder / PARTIAL
    shutil.rmtree(beside, ignore_errors=True)
    written = write(beside)
    files = {file.name: _sha256(file) for file in sorted(written.iterdir())}
    seal = json.dumps({"configuration": mine, "files": files}, indent=1)
    (written / RUN).write_text(seal, encoding="utf-8")
    for file in written.iterdir():
        atomic.on_disk(file)
    place = folder / written.name
    shutil.rmtree(place, ignore_errors=True)
    written.replace(place)
    atomic.on_disk(folder)
    shutil.rmtree(beside, ignore_errors=True)
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


# --- reading -----------------------------------------------------------------------------------


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder by their step, the earliest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.search(r"-\d+$", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """After which step a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def latest(folder: Path, mine: Configuration) -> Path | None:
    """The last whole checkpoint of a folder, if there is one.

    Raises:
        ValueError: it belongs to another configuration; says what differs, field by field.

    Warns:
        CheckpointWarning: a later one is not whole.
    """
    for checkpoint in reversed(checkpoints(folder)):
        fault, theirs = _fault(checkpoint)
        if fault:
            warnings.warn(
                CheckpointWarning(f"{checkpoint} is not whole ({fault}); going on without it"),
                stacklevel=3,
            )
            continue
        _refuse_another(checkpoint, theirs, mine)
        return checkpoint
    return None


def _fault(checkpoint: Path) -> tuple[str | None, Configuration]:
    """What is wrong with the files of a checkpoint, if anything, and its configuration."""
    try:
        seal = json.loads((checkpoint / RUN).read_text(encoding="utf-8"))
        theirs, files = seal["configuration"], seal["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"{RUN}: {error}", {}
    for name, digest in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing", theirs
        if _sha256(checkpoint / name) != digest:
            return f"{name} is not as it was written", theirs
    return None, theirs


def _refuse_another(checkpoint: Path, theirs: Configuration, mine: Configuration) -> None:
    mine = json.loads(json.dumps(mine))
    absent = "nothing"
    differing = [
        f"{name}: {theirs.get(name, absent)} there, {mine.get(name, absent)} now"
        for name in dict.fromkeys([*mine, *theirs])
        if theirs.get(name, absent) != mine.get(name, absent)
    ]
    if differing:
        raise ValueError(
            f"{checkpoint} belongs to another configuration:\n  "
            + "\n  ".join(differing)
            + "\nGo back to that one (a model that was trained already is to be loaded anew), take "
            "another folder, or begin again in this one with resume=False"
        )


def restore(model: nn.Module, checkpoint: Path) -> None:
    """Give the trainable parameters of a model the values in a checkpoint.

    Raises:
        ValueError: other parameters are stored than take gradients.
    """
    stored, wanted = load_file(checkpoint / WEIGHTS), trainable(model)
    if stored.keys() != wanted.keys():
        other = sorted(stored.keys() ^ wanted.keys())
        raise ValueError(
            f"{checkpoint} holds other parameters than are trained ({len(other)} differ, such as "
            f"{other[0]})"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(stored[name])


def discard(folder: Path) -> None:
    """Remove the checkpoints of a folder, to begin again."""
    for checkpoint in checkpoints(folder):
        shutil.rmtree(checkpoint)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
