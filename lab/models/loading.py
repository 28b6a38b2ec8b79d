"""One way to load a model, whatever it is: the result is a sentence-transformers model.

>>> model = load("smollm2-135m", attention="bidirectional", temperature=0.8, pooling="last")
>>> model.encode(["A text."]).shape
(1, 576)
>>> model.save_pretrained("folder"); load("folder")
"""

import copy
import hashlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling as StockPooling
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from lab.manifest import record_input, recording
from lab.models import architecture, checkpoints
from lab.models.checkpoints import CHECKPOINTS
from lab.models.encoder import Encoder
from lab.models.layer_mix import LayerMix
from lab.models.texts import TEXT, TruncationWarning, check_texts
from lab.models.verification import verify
from lab.pooling import LAYER_MIXES, one_layer

if TYPE_CHECKING:
    import pandas as pd

STOCK_POOLINGS = {
    "cls": "first",
    "lasttoken": "last",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "root_length_mean",
    "weightedmean": "position_weighted_mean",
}


class EmbeddingModel(SentenceTransformer):
    """A ``SentenceTransformer`` that refuses bad texts by row and never hides NaN or truncation."""

    lab_name: str  # what it was loaded as

    @property
    def encoder(self) -> Encoder:
        """The first module: tokens, attention, temperature, pooling."""
        return cast(Encoder, self[0])

    @property
    def layer_mix(self) -> LayerMix:
        """The second module: the weights over the pooled layers."""
        return cast(LayerMix, self[1])

    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """``SentenceTransformer.encode`` with checks.

        Raises:
            TypeError, ValueError: a text is no string, empty or blank (which row).
            FloatingPointError: an embedding is not finite (which text, from which layer on).

        Warns:
            TruncationWarning: some texts were longer than the model; one warning a call.
        """
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        check_texts(texts)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TruncationWarning)
            result = super().encode(inputs, *args, **kwargs)
        cut = [item for item in caught if issubclass(item.category, TruncationWarning)]
        for item in caught:
            if item not in cut:
                warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
        if cut:
            more = f" (and {len(cut) - 1} more batches)" if len(cut) > 1 else ""
            warnings.warn(f"{cut[0].message}{more}", TruncationWarning, stacklevel=2)
        self._check_finite(result, texts)
        return result

    def _check_finite(self, result: Any, texts: list[str]) -> None:
        """Raise for the first embedding that is not finite."""
        if not isinstance(result, np.ndarray | Tensor):
            return
        rows = np.atleast_2d(
            result if isinstance(result, np.ndarray) else result.detach().float().cpu().numpy()
        )
        if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(-1))[0])
            raise FloatingPointError(self.describe_nonfinite(bad, texts[bad]))

    @torch.no_grad()
    def describe_nonfinite(self, row: int, text: str) -> str:
        """What to tell the user of a text whose embedding is not finite: where it begins."""
        features = self.encoder.collate(self.encoder.tokenise([text]))
        features = {
            key: value.to(self.device) if isinstance(value, Tensor) else value
            for key, value in features.items()
        }
        bad: list[int] = []

        def look(layer: int, hidden: Tensor) -> None:
            if not hidden.isfinite().all():
                bad.append(layer)

        count = architecture.depth(self.encoder.model)
        self.encoder.read(features, look, stop_after=count)
        where = f"hidden state {bad[0]} of {count}" if bad else "the pooling; all states are finite"
        return (
            f"the embedding of text {row} ({text[:40]!r}) is not finite; it begins in {where}. "
            "Check the weights, or run in float32 instead of half precision"
        )


def load(
    name: str,
    *,
    attention: str | None = None,
    temperature: float | Sequence[float] | str | None = None,
    sink: bool | str | None = None,
    template: str | None = None,
    pool_template: bool | None = None,
    pooling: str | None = None,
    layers: int | str | None = None,
    padding_side: str | None = None,
    max_length: int | None = None,
    device: str | None = None,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> EmbeddingModel:
    """A sentence-transformers model of ``name`` with these settings, verified to act.

    Args:
        name: a packaged checkpoint (``lab models``), ``random:`` + a checkpoint or architecture
            (an untrained control), a folder, or a hub id.
        attention: native, causal, bidirectional, or prefix (the instruction is seen by all of it).
        temperature: of the attention softmax: a number, one per layer, or "log-n/512".
        sink: a token to begin every text with and leave out of the pool; True takes the
            checkpoint's own (its BOS or CLS token if it names none).
        template: what is encoded, with ``{text}`` once.
        pool_template: False leaves template and prompt tokens out of the pool.
        pooling: a name in ``lab.pooling.POOLINGS``; default the checkpoint's own, else mean.
        layers: a hidden state (0 = embeddings, -1 = last), a name in ``LAYER_MIXES``, or "learned".
        padding_side: "left" or "right"; default the tokenizer's. It never changes an embedding.
        max_length: tokens after which a text is cut.
        device: torch device; default the GPU if there is one.
        dtype: of the weights: float32, bfloat16, float16.
        attn_implementation: sdpa, eager, flex_attention, ...; default transformers' choice.
        revision: commit of a hub repository.
        trust_remote_code: allow code that comes with a hub model.
        seed: of the weights of a ``random:`` control.

    For a folder that holds a lab model, what is not given is taken from there.

    Raises:
        LookupError, ValueError: an unknown or impossible setting, with what is possible.
        ModuleNotFoundError: the package of the weights is missing, with the command to get it.
        ConnectionError: the hub can't be reached, with what to do instead.
    """
    base = _base(
        name,
        seed,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        model_kwargs={
            "dtype": getattr(torch, dtype),
            **({"attn_implementation": attn_implementation} if attn_implementation else {}),
        },
    )
    model = _as_lab_model(base, name, trust_remote_code)
    changes = {
        "attention": attention,
        "temperature": temperature,
        "sink": sink,
        "template": template,
        "pool_template": pool_template,
        "pooling": pooling,
        "layers": layers,
        "padding_side": padding_side,
        "max_length": max_length,
    }
    _configure(model, **{key: value for key, value in changes.items() if value is not None})
    return model.eval()


def variant(model: EmbeddingModel, **changes: Any) -> EmbeddingModel:
    """A second model with the same weights in memory and some settings changed (see ``load``).

    ``None`` brings a setting back to its default.
    """
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    other = copy.deepcopy(model, shared)
    _configure(other, **changes)
    return other


def settings(model: EmbeddingModel) -> dict[str, Any]:
    """What ``load`` was asked for, as columns of the tidy table."""
    encoder, mix = model.encoder, model.layer_mix
    return {
        "checkpoint": model.lab_name,
        "attention": encoder.attention,
        "temperature": encoder.temperature,
        "sink": encoder.sink,
        "template": None if encoder.template == TEXT else encoder.template,
        "layer": encoder.layers[0] if len(encoder.layers) == 1 else None,
        "pooling": encoder.pooling,
        "layer_mix": None if len(encoder.layers) == 1 else mix.name,
    }


def listing() -> "pd.DataFrame":
    """What can be loaded without a hub: name, role, licence, whether it is there, how to get it."""
    import pandas as pd

    rows = [
        {
            "name": item.name,
            "role": item.role,
            "source": item.requirement,
            "licence": item.licence,
            "present": item.present(),
            "how to get it": item.how_to_get(),
        }
        for item in CHECKPOINTS.values()
    ]
    rows.append(
        {
            "name": "random:<checkpoint or architecture>",
            "role": "untrained control",
            "source": "a config",
            "licence": "none needed",
            "present": True,
            "how to get it": "nothing to get",
        }
    )
    return pd.DataFrame(rows)


def _base(name: str, seed: int, **options: Any) -> SentenceTransformer:
    """A stock model: from a package, a control, a folder or the hub."""
    if name in CHECKPOINTS:
        return _from_folder(name, CHECKPOINTS[name].folder(), **options)
    if name.startswith("random:"):
        with tempfile.TemporaryDirectory(prefix="lab-random-") as folder:
            checkpoints.write_random(name.removeprefix("random:"), Path(folder), seed)
            return _from_folder(name, Path(folder), **options)
    if Path(name).is_dir():
        return _from_folder(name, Path(name), **options)
    if "/" not in name:
        # One word is a misspelt checkpoint or a missing folder far more often than a hub id.
        raise LookupError(
            checkpoints.unknown("checkpoint", name, [*CHECKPOINTS, "random:llama"])
            + "; a folder must exist, a hub id has the form owner/name"
        )
    return _from_hub(name, **options)


def _from_folder(name: str, folder: Path, **options: Any) -> SentenceTransformer:
    options.pop("revision")
    options["trust_remote_code"] = True if _is_lab_model(folder) else options["trust_remote_code"]
    if recording():
        weights = sorted(folder.resolve().glob("*.safetensors"))
        files = {str(path): _sha256(path) for path in weights}
        # The weights of a random control are gone after loading; its seed names them.
        record_input(
            "model",
            name=name,
            files={} if name.startswith("random:") else files,
            sha256=sorted(files.values()),
        )
    return _stock(str(folder), local_files_only=True, **options)


def _from_hub(name: str, **options: Any) -> SentenceTransformer:
    try:
        model = _stock(name, **options)
    except OSError as error:
        raise ConnectionError(
            f"{name!r} is no folder, and the model hub gave no such model: {error}. Without a hub: "
            f"use a packaged model ({', '.join(CHECKPOINTS)}), download the repository on a "
            "connected machine and give its folder, or unset HF_HUB_OFFLINE"
        ) from error
    record_input("model", name=name, revision=getattr(model[0].config, "_commit_hash", None))
    return model


def _stock(path: str, **options: Any) -> SentenceTransformer:
    """Load with sentence-transformers; a lab model comes back as an ``EmbeddingModel``."""
    if os.environ.get("LAB_MODE") == "batch":
        disable_progress_bar()
    kind = EmbeddingModel if _is_lab_model(Path(path)) else SentenceTransformer
    return kind(path, **options)


def _is_lab_model(folder: Path) -> bool:
    """Whether a folder holds a saved lab model."""
    modules = folder / "modules.json"
    return modules.is_file() and "lab.models.encoder.Encoder" in modules.read_text()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_lab_model(base: SentenceTransformer, name: str, trust: bool) -> EmbeddingModel:
    """The same model with our encoder and layer mix in place of transformer and pooling."""
    if isinstance(base, EmbeddingModel):
        base.lab_name = Path(name).name
        return base
    first, *rest = base
    if not isinstance(first, Transformer):
        raise ValueError(f"{name} begins with {type(first).__name__}, the lab needs a Transformer")
    pooling, pool_template = "mean", True
    if rest and isinstance(rest[0], StockPooling):
        stock: Any = rest.pop(0)
        # module_kwargs is empty where sentence-transformers guessed the modules of a bare
        # checkpoint; its guess for a causal LM is the last token, ours is the mean.
        if base.module_kwargs:
            if stock.pooling_mode not in STOCK_POOLINGS:
                raise ValueError(
                    f"{name} pools with {stock.pooling_mode!r}; the lab knows "
                    f"{', '.join(STOCK_POOLINGS)}"
                )
            pooling, pool_template = STOCK_POOLINGS[stock.pooling_mode], stock.include_prompt
    prompts: dict[str, Any] = base.prompts
    encoder = Encoder.around(first, pooling=pooling, pool_template=pool_template)
    model = EmbeddingModel(
        modules=[encoder, LayerMix([1.0]), *rest],
        device=str(base.device),
        prompts=prompts,
        default_prompt_name=base.default_prompt_name,
        trust_remote_code=trust,
    )
    model.lab_name = name
    return model


def _configure(model: EmbeddingModel, **changes: Any) -> None:
    """Apply changed settings to encoder and layer mix, count frequencies, and verify."""
    encoder = model.encoder
    now = {key: getattr(encoder, key) for key in Encoder.settings if key != "native_is_causal"}
    if "layers" in changes:
        now["layers"], model[1] = _layer_mix(changes.pop("layers"), model)
    if changes.get("sink") is True:
        changes["sink"] = _default_sink(model)
    if changes.get("sink") is False:
        changes["sink"] = None
    defaults = {"attention": "native", "template": TEXT, "pool_template": True, "pooling": "mean"}
    for key, value in changes.items():
        if key not in now:
            raise LookupError(checkpoints.unknown("setting", key, [*now, "layers"]))
        now[key] = defaults.get(key) if value is None else value
    encoder.configure(**now)
    verify(encoder)


def _default_sink(model: EmbeddingModel) -> str:
    """The token that begins every text when a sink is asked for without naming one."""
    tokenizer = model.tokenizer
    known = CHECKPOINTS[model.lab_name].sink if model.lab_name in CHECKPOINTS else None
    token = known or tokenizer.bos_token or tokenizer.cls_token
    if token is None:
        raise ValueError(f"{model.lab_name} has no BOS or CLS token; name one: sink='<token>'")
    return token


def _layer_mix(layers: int | str | None, model: EmbeddingModel) -> tuple[list[int], LayerMix]:
    """The hidden states to pool and the module that weighs them."""
    count = architecture.depth(model.encoder.model) + 1
    if layers == "learned":
        chosen = list(range(1, count))
        return chosen, LayerMix([1 / len(chosen)] * len(chosen), "learned", learned=True)
    layers = "last" if layers is None else layers
    weights = LAYER_MIXES[layers](count) if isinstance(layers, str) else one_layer(layers, count)
    chosen = weights.nonzero().flatten().tolist()
    name = layers if isinstance(layers, str) else f"layer_{chosen[0]}"
    return chosen, LayerMix(weights[chosen].tolist(), name)
