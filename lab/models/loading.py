"""One way to load a model, whatever it is: the result is a sentence-transformers model.

>>> model = load("smollm2-135m", attention="bidirectional", temperature=0.8, pooling="last")
>>> model.encode(["A text."]).shape
(1, 576)
>>> model.save_pretrained("folder"); load("folder")
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling as StockPooling

from lab.models import heads
from lab.models.checkpoints import CHECKPOINTS
from lab.models.embedding_model import EmbeddingModel
from lab.models.encoder import Encoder
from lab.models.layer_mix import LayerMix
from lab.models.origins import is_lab_model, open_model
from lab.models.texts import TEXT
from lab.models.trained_pooling import TrainedPooling
from lab.models.verification import verify
from lab.poolers import POOLERS
from lab.registry import unknown

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
DTYPES = ("float32", "bfloat16", "float16")
OF_HEAD = ("pooling", "layers")
OF_POOLER = ("pooler", "seed")
DEFAULTS = {"attention": "native", "template": TEXT, "pool_template": True, "pooling": "mean"}


def load(
    name: str | Path,
    *,
    attention: str | None = None,
    temperature: float | Sequence[float] | str | None = None,
    extension: str | None = None,
    sink: bool | str | None = None,
    template: str | None = None,
    pool_template: bool | None = None,
    pooling: str | None = None,
    layers: int | str | None = None,
    pooler: Mapping[str, Any] | None = None,
    padding_side: str | None = None,
    max_length: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int | None = None,
) -> EmbeddingModel:
    """A sentence-transformers model of ``name`` with these settings, verified to act.

    Args:
        name: a packaged checkpoint (``lab models``), ``random:`` + a checkpoint or architecture
            (an untrained control), a folder, or a hub id.
        attention: native, causal, bidirectional, or prefix (the instruction is seen by all of it).
        temperature: of the attention softmax: a number, one per layer, or "log-n/512".
        extension: how texts are read that are longer than the model was made for, without
            training: "parallel-windows/512", "grouped/512", "recurrent/512", "interpolated/512",
            "ntk/512" or "self-extend/512/3/256" (``lab.models.extension.EXTENSIONS``). Nothing
            changes for a text of at most 512 tokens; longer ones are read whole unless
            ``max_length`` is given along with it.
        sink: a token to begin every text with and leave out of the pool; True takes the
            checkpoint's own (its BOS or CLS token if it names none).
        template: what is encoded, with ``{text}`` once.
        pool_template: False leaves template and prompt tokens out of the pool, if there are any.
        pooling: a name in ``lab.pooling.POOLINGS``; default the checkpoint's own, else mean. Or a
            trainable one, in ``lab.poolers.POOLERS``, of the tokens of one layer.
        layers: a hidden state (0 = embeddings, -1 = last), a name in ``LAYER_MIXES``, or "learned".
            Or a trainable pooling, in ``lab.poolers.POOLERS``, of the pooled states of all layers
            but the embeddings. Of pooling and layers, one at most is trained.
        pooler: options of the trainable pooling, such as {"latents": 32}; over the layers also
            "over", the hidden states it reads.
        padding_side: "left" or "right"; default the tokenizer's. It never changes an embedding.
        max_length: tokens after which a text is cut; default the tokenizer's, none with an
            extension.
        device: torch device; default the GPU if there is one.
        dtype: of the weights: float32, bfloat16, float16; default that of a saved lab model, else
            float32.
        attn_implementation: sdpa, eager, flex_attention, ...; default transformers' choice.
        revision: commit of a hub repository.
        trust_remote_code: allow code that comes with a hub model.
        seed: of the weights of a ``random:`` control and of a trainable pooling; default 0.

    For a folder that holds a lab model, what is not given is taken from there; a trainable pooling
    that is named is drawn anew.

    Raises:
        LookupError, ValueError: an unknown or impossible setting, with what is possible.
        ModuleNotFoundError: the package of the weights is missing, with the command to get it.
        ConnectionError: the hub can't be reached, with what to do instead.
    """
    name = str(name)
    options = {
        "dtype": _dtype(dtype, Path(name)),
        **({"attn_implementation": attn_implementation} if attn_implementation else {}),
    }
    draws = pooling in POOLERS or layers in POOLERS
    control = name.startswith("random:")
    base = open_model(
        name,
        seed=seed if control or not draws else None,
        revision=revision,
        device=device,
        trust_remote_code=trust_remote_code,
        model_kwargs=options,
    )
    model = _as_lab_model(base, name, trust_remote_code)
    changes = {
        "attention": attention,
        "temperature": temperature,
        "extension": extension,
        "sink": sink,
        "template": template,
        "pool_template": pool_template,
        "pooling": pooling,
        "layers": layers,
        "padding_side": padding_side,
        "max_length": max_length,
        "pooler": pooler,
        "seed": seed if draws else None,
    }
    _configure(model, **{key: value for key, value in changes.items() if value is not None})
    verify(model.encoder)
    return model.eval()


def variant(model: EmbeddingModel, **changes: Any) -> EmbeddingModel:
    """A second model with the same weights in memory and some settings changed (see ``load``).

    ``None`` brings a setting back to its default; padding side and length to those at loading. A
    change of ``extension`` without ``max_length`` does that to the length. A trainable pooling that
    is named gets weights of its own, from ``seed``; one that is there already is shared.

    Raises:
        LookupError, ValueError: an unknown or impossible setting, with what is possible; one that
            changes what a repair of the model was fitted on.
    """
    repair = settings(model)["repair"]
    if repair and changes.keys() - {"padding_side"}:
        raise ValueError(
            f"{', '.join(changes)} would change what this model's {repair} reads, and that was "
            "fitted under other settings; change the model first, then fit and attach"
        )
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    other = copy.deepcopy(model, shared)
    _configure(other, **changes)
    if changes.keys() - {*OF_HEAD, *OF_POOLER}:  # a head has no part in what is verified
        verify(other.encoder)
    return other


def settings(model: EmbeddingModel) -> dict[str, Any]:
    """What ``load`` was asked for, as columns of the tidy table."""
    encoder, head = model.encoder, model.head
    trained = isinstance(head, TrainedPooling)
    over_layers = head.reads == "layers" if trained else len(encoder.layers) > 1
    repairs = [str(module.repair_name) for module in model if hasattr(module, "repair_name")]
    one = len(encoder.layers) == 1
    templated = encoder.template != TEXT
    return {
        "checkpoint": model.lab_name,
        "attention": encoder.attention,
        "temperature": encoder.temperature,
        "extension": encoder.extension,
        "sink": encoder.sink,
        "template": encoder.template if templated else None,
        "template_pooled": ("pooled" if encoder.pool_template else "left out")
        if templated
        else None,
        "max_length": encoder.max_length,
        "layer": encoder.layers[0] if one else None,
        "pooling": encoder.pooling if over_layers or not trained else head.name,
        "layer_mix": head.name if over_layers else None,
        "repair": " + ".join(repairs) or None,
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


def _dtype(dtype: str | None, folder: Path) -> Any:
    """The type of the weights: as asked, as saved for a lab model, else float32."""
    if dtype is None:
        return "auto" if is_lab_model(folder) else torch.float32
    if dtype not in DTYPES:
        raise LookupError(unknown("dtype", dtype, DTYPES))
    return getattr(torch, dtype)


def _as_lab_model(base: SentenceTransformer, name: str, trust: bool) -> EmbeddingModel:
    """The same model with our encoder and layer mix in place of transformer and pooling."""
    modules = list(base)
    if not isinstance(base, EmbeddingModel):
        if not isinstance(modules[0], Encoder):  # else a lab model that came from the hub
            modules = _our_modules(base, modules, name)
        prompts: dict[str, Any] = base.prompts
        base = EmbeddingModel(
            modules=modules,
            device=str(base.device),
            prompts=prompts,
            default_prompt_name=base.default_prompt_name,
            trust_remote_code=trust,
        )
    base.lab_name = Path(name).name if isinstance(modules[0], Encoder) and "/" in name else name
    return base


def _our_modules(base: SentenceTransformer, modules: list[Any], name: str) -> list[Any]:
    """Encoder and layer mix with the pooling of the checkpoint, and the modules after it."""
    first, *rest = modules
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
    encoder = Encoder.around(first, pooling=pooling, pool_template=pool_template)
    return [encoder, LayerMix([1.0]), *rest]


def _configure(model: EmbeddingModel, **changes: Any) -> None:
    """Apply changed settings to encoder and head, and count frequencies."""
    encoder = model.encoder
    now = {key: getattr(encoder, key) for key in Encoder.settings if key != "native_is_causal"}
    for key in changes:
        if key not in (*now, *OF_POOLER):
            raise LookupError(unknown("setting", key, (*now, *OF_POOLER)))
    drawn = {key: changes.pop(key) for key in OF_POOLER if key in changes}
    if "extension" in changes:
        now["max_length"] = None  # long texts are what it is for
    if drawn or changes.keys() & OF_HEAD:
        asked = {key: changes[key] for key in OF_HEAD if key in changes}
        now["layers"], model[1] = heads.choose(model, asked, **drawn)
        changes.pop("layers", None)
        if changes.get("pooling") in POOLERS:
            changes["pooling"] = None  # nobody reads what the encoder pools
    if isinstance(changes.get("sink"), bool):
        changes["sink"] = _default_sink(model) if changes["sink"] else None
    for key, value in changes.items():
        now[key] = DEFAULTS.get(key) if value is None else value
    encoder.configure(**now)
    heads.check(model)


def _default_sink(model: EmbeddingModel) -> str:
    """The token that begins every text when a sink is asked for without naming one."""
    tokenizer = model.tokenizer
    known = CHECKPOINTS[model.lab_name].sink if model.lab_name in CHECKPOINTS else None
    token = known or tokenizer.bos_token or tokenizer.cls_token
    if token is None:
        raise ValueError(f"{model.lab_name} has no BOS or CLS token; name one: sink='<token>'")
    return token
