"""What a training run is: every setting that decides the weights, and a fingerprint of them."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from lab.registry import unknown
from lab.training.adapters import Lora

PRECISIONS = ("float32", "bfloat16")
BACKBONES = ("frozen", "lora", "full")
REPORTING = ("evaluate_every", "save_every")  # they decide what is seen of a run, not its outcome
COUNTS = {"steps": 1, "batch": 2, "seed": 0}  # whole numbers, and the smallest of each
COUNTS_OR_NONE = {"mini_batch": 1, "max_length": 1, "evaluate_every": 1, "save_every": 1}
LARGEST_SEED = 2**32 - 1  # numpy's


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW on InfoNCE, the rate rising linearly and then falling to 0.

    Attributes:
        steps: updates of the weights.
        batch: pairs a step; each anchor is told from the other pairs' positives and negatives.
        learning_rate: its peak, at the end of the warmup.
        warmup: share of the steps, below 1, in which the rate rises from 0 (the first step of a
            warmup has rate 0).
        weight_decay: AdamW's, on matrices; biases and norms have none, as in transformers.
        loss_temperature: what cosines are divided by in the loss.
        mini_batch: texts a forward pass, for batches that don't fit in memory: the same loss by
            gradient caching (Gao et al. 2021, arXiv:2101.06983); None: the batch at once.
        max_length: tokens after which texts are cut in training; None: the model's length.
        precision: "bfloat16" computes in it by autocast; weights and updates stay as loaded.
        gradient_checkpointing: keep only the inputs of layers and compute the rest again.
        backbone: what of the first module is trained: nothing ("frozen"), an adapter that is
            folded in at the end ("lora"), all ("full"). The modules after it always are.
        lora: the adapter, for backbone="lora".
        seed: of batches, dropout and the adapter.
        evaluate_every: steps between two held-out losses; None: only the first and the last.
        save_every: steps between two checkpoints; None: only one at the end.

    Raises:
        TypeError, ValueError, LookupError: a setting of the wrong type, out of range, or unknown.
    """

    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    loss_temperature: float = 0.05
    mini_batch: int | None = None
    max_length: int | None = None
    precision: str = "float32"
    gradient_checkpointing: bool = False
    backbone: str = "frozen"
    lora: Lora = field(default_factory=Lora)
    seed: int = 0
    evaluate_every: int | None = None
    save_every: int | None = None

    def __post_init__(self) -> None:
        """Check every setting; numbers become plain ones."""
        for name, least in COUNTS.items():
            self._set(name, _count(name, getattr(self, name), least))
        for name, least in COUNTS_OR_NONE.items():
            if getattr(self, name) is not None:
                self._set(name, _count(name, getattr(self, name), least))
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed is at most {LARGEST_SEED}; got {self.seed}")
        for name in ("learning_rate", "loss_temperature"):
            self._set(name, _number(name, getattr(self, name)))
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0; got {getattr(self, name)}")
        for name in ("warmup", "weight_decay"):
            self._set(name, _number(name, getattr(self, name)))
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more; got {getattr(self, name)}")
        if self.warmup >= 1:
            raise ValueError(f"warmup is a share of the steps, below 1; got {self.warmup}")
        for name, known in {"precision": PRECISIONS, "backbone": BACKBONES}.items():
            if getattr(self, name) not in known:
                raise LookupError(unknown(name, getattr(self, name), known))
        if not isinstance(self.gradient_checkpointing, bool):
            raise TypeError(
                f"gradient_checkpointing is True or False; got {self.gradient_checkpointing!r}"
            )
        if not isinstance(self.lora, Lora):
            raise TypeError(f"lora is a Lora(rank=..., alpha=...); got {self.lora!r}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def deciding(self) -> dict[str, Any]:
        """The settings that decide the final weights, by name; those of ``lora`` only if used."""
        used = [each.name for each in fields(self) if each.name not in (*REPORTING, "lora")]
        adapter = asdict(self.lora) if self.backbone == "lora" else {}
        settings = {name: getattr(self, name) for name in used}
        return settings | {f"lora.{name}": value for name, value in adapter.items()}

    def fingerprint(self) -> str:
        """The sha256 of ``deciding()``: equal for two recipes that give the same weights.

        Of one model and one set of pairs, on one machine with the same versions and threads.
        """
        text = json.dumps(self.deciding(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _count(name: str, value: object, least: int) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is a whole number; got {value!r}")
    if value < least:
        raise ValueError(f"{name} is {least} or more; got {value}")
    return int(value)


def _number(name: str, value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} is a number; got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} is a finite number; got {value}")
    return float(value)
