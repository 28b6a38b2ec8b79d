"""Low-rank adapters (LoRA) on the transformer of a lab model: put on, trained, folded in.

>>> add(model, Lora(rank=16, alpha=32), seed=0)  # the embeddings are as before: B is zero
>>> ...  # train: only the adapter and the modules after the encoder take gradients
>>> merge(model)  # a plain lab model again, which saves and loads like any other
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lab.models.architecture import architecture, backbone, layers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Lora:
    """What a LoRA adapter looks like: W x becomes W x + (alpha / rank) B A dropout(x).

    A (rank, in) is drawn, B (out, rank) starts at zero. Hu et al. 2021 (arXiv:2106.09685, section
    4.1), as peft computes it.

    Attributes:
        rank: of the product B A, 1 or more.
        alpha: over ``rank``, what the product is multiplied with; above 0.
        dropout: of the adapter's input in training, 0 or more and below 1.
        targets: "all-linear", which is every linear module of the transformer layers (as QLoRA,
            arXiv:2305.14314, section 4; no pooler of a BERT, no head), or the names of some:
            "q_proj", or a longer end of a name, "mlp.up_proj".

    Raises:
        TypeError, ValueError: a value of another type, or out of range.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.1
    targets: str | list[str] | tuple[str, ...] = ALL_LINEAR

    def __post_init__(self) -> None:
        """Check the values."""
        if isinstance(self.rank, bool) or not isinstance(self.rank, int):
            raise TypeError(f"the rank of an adapter is a whole number; got {self.rank!r}")
        if self.rank < 1:
            raise ValueError(f"the rank of an adapter is 1 or more; got {self.rank}")
        for name in ("alpha", "dropout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"the {name} of an adapter is a number; got {value!r}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"the alpha of an adapter is finite and above 0; got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"the dropout of an adapter is 0 or more and below 1; got {self.dropout}"
            )
        if self.targets == ALL_LINEAR:
            return
        names = self.targets
        listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        if not listed or not names:
            raise ValueError(
                f"targets is {ALL_LINEAR!r} or a list of module names such as ['q_proj', 'v_proj'];"
                f" got {names!r}"
            )
        object.__setattr__(self, "targets", tuple(names))  # a recipe that holds it can be hashed


def add(model: "SentenceTransformer", lora: Lora, *, seed: int) -> None:
    """Put a new adapter on the model's transformer; embeddings are as before until it is trained.

    Afterwards the adapter takes gradients, the transformer's own weights do not, and the modules
    after the encoder are as they were; so are models that share weights with this one
    (``lab.models.variant``). Attention mode, temperature and extension act as before: only the
    linear modules inside the attention modules are wrapped.

    The adapter's weights are float32 even where the transformer's are bfloat16 or float16, in which
    small updates vanish (peft's choice for its own models; ``add_adapter`` alone doesn't make it);
    its output is cast to the transformer's type.

    Args:
        model: a lab model, or another whose first module is a transformer, without an adapter.
        lora: what to add.
        seed: decides A bit for bit, on any device; the global generators are left alone.

    Raises:
        ValueError: no transformer; it has an adapter; a target matches no linear module of the
            layers (names those that exist).
    """
    from peft import LoraConfig
    from peft.functional import cast_adapter_dtype
    from transformers.pytorch_utils import Conv1D

    transformer = _transformer(model)
    if _adapted(transformer):
        raise ValueError("this model has an adapter already; merge it before adding another")
    chosen = _chosen(transformer, lora)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft only divides it
        lora_dropout=lora.dropout,
        target_modules=list(chosen),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in chosen.values()),
    )
    _own_parameters(transformer)
    with torch.random.fork_rng(devices=[]):  # peft draws on the CPU
        torch.manual_seed(seed)
        transformer.add_adapter(config)
    cast_adapter_dtype(transformer, "default")
    transformer.train(transformer.training)  # new modules are in training mode, whatever the rest


def merge(model: "SentenceTransformer") -> None:
    """Fold the adapter into the weights: a plain lab model with equal embeddings, in place.

    W becomes W + (alpha / rank) B A, computed in float32 and rounded to the type of W: in half
    precision updates below its resolution are lost, so load in float32 what is to be merged, and
    train under autocast. All weights of the transformer take gradients again. Other models that
    shared weights with this one keep theirs.

    Raises:
        ValueError: there is no adapter; a merged weight is not finite (names the module).
    """
    transformer = _transformer(model)
    adapted = _adapted(transformer)
    if not adapted:
        raise ValueError(
            "this model has no adapter to merge; lab.training.adapters.add puts one on"
        )
    for name, layer in adapted.items():
        if not all(weight.isfinite().all() for weight in layer.parameters()):
            raise ValueError(
                f"the adapter of {name} is not finite; go back to an earlier checkpoint, and train "
                "with a lower learning rate or in float32"
            )
    for name, layer in adapted.items():
        plain = layer.get_base_layer()
        plain.weight = nn.Parameter(plain.weight.detach().clone())  # variants share the old numbers
        layer.merge()
        transformer.set_submodule(name, plain)
    del transformer.peft_config
    transformer._hf_peft_config_loaded = False
    transformer.requires_grad_(True)


def _transformer(model: "SentenceTransformer") -> PreTrainedModel:
    """The transformer of the first module."""
    found = getattr(model[0], "model", None)
    if not isinstance(found, nn.Module) or not isinstance(backbone(found), PreTrainedModel):
        raise ValueError(
            f"the first module of this model, {type(model[0]).__name__}, has no transformer that "
            "could carry an adapter; load one with lab.models.load"
        )
    return backbone(found)


def _own_parameters(transformer: PreTrainedModel) -> None:
    """Give it parameters of its own, on the same numbers in memory: variants share the objects.

    Otherwise freezing one model would freeze the others.
    """
    own: dict[int, nn.Parameter] = {}
    for module in transformer.modules():
        for name, shared in module.named_parameters(recurse=False):
            if id(shared) not in own:  # parameters that are tied stay so
                own[id(shared)] = nn.Parameter(shared.detach(), shared.requires_grad)
            module.register_parameter(name, own[id(shared)])


def _adapted(transformer: PreTrainedModel) -> dict[str, Any]:
    """The modules that carry an adapter, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = transformer.named_modules()
    return {name: module for name, module in modules if isinstance(module, BaseTunerLayer)}


def _chosen(transformer: PreTrainedModel, lora: Lora) -> dict[str, nn.Module]:
    """The linear modules that the adapter goes on, by their full names."""
    linear = _linear(transformer)
    if lora.targets == ALL_LINEAR:
        return linear
    chosen: dict[str, nn.Module] = {}
    for target in lora.targets:
        found = {name for name in linear if f".{name}".endswith(f".{target}")}
        if not found:
            ends = dict.fromkeys(_within_layer(name, transformer) for name in linear)
            raise ValueError(
                f"the LoRA target {target!r} matches no linear module in the layers of "
                f"{architecture(transformer)}; these exist: {', '.join(ends)} (or the end of a "
                f"name), or all of them, {ALL_LINEAR!r}"
            )
        chosen |= {name: linear[name] for name in found}
    return {name: linear[name] for name in linear if name in chosen}


def _linear(transformer: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear modules of the transformer layers, by their full names, in order."""
    from transformers.pytorch_utils import Conv1D

    inside = {id(module) for layer in layers(transformer) for module in layer.modules()}
    return {
        name: module
        for name, module in transformer.named_modules()
        if id(module) in inside and isinstance(module, nn.Linear | Conv1D)
    }


def _within_layer(name: str, transformer: PreTrainedModel) -> str:
    """The name of a module from its layer on: ``self_attn.q_proj``."""
    prefixes = [
        place
        for place, module in transformer.named_modules()
        if any(module is layer for layer in layers(transformer))
    ]
    return next(
        name.removeprefix(f"{prefix}.") for prefix in prefixes if name.startswith(f"{prefix}.")
    )
