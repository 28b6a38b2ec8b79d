"""The first module of a lab model: texts to the pooled states of some layers.

A saved model names this class, so plain sentence-transformers wants ``trust_remote_code=True`` to
load it, and this package installed; :func:`lab.models.load` needs no flag.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules.transformer import (
    TRANSFORMER_TASK_DEFAULTS,
    Transformer,
)
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lab.models import architecture, states
from lab.models.attention import MODES, forward_kwargs, prepare
from lab.models.extension import Extension, check, extended
from lab.models.interception import leaving_nothing_behind
from lab.models.temperature import Temperature, set_temperature, temperature_of_batch
from lab.models.texts import (
    TEXT,
    TokenisedText,
    collate,
    mean_of_windows,
    tokenise,
    truncation,
    windows,
)
from lab.pooling import POOLINGS, Tokens, needs_frequency

UNSET = "unset"  # a config without the field is_causal, as most are
FREQUENCIES = "token_frequency.safetensors"
UNLIMITED = 10**30  # as transformers writes it
REFERENCE_SETS = ("wordnet-definitions", "debian-synopsis")


class Encoder(Transformer):
    """A transformer whose attention, temperature, sink, template and pooling are settings.

    Args:
        model_name_or_path: a hub id or a folder.
        attention: a name in ``lab.models.attention.MODES``.
        temperature: of the attention softmax: None, a number, one per layer, or ``"log-n/512"``.
        extension: how texts are read that are longer than the model was made for: None, or a name
            in ``lab.models.extension.EXTENSIONS`` with its numbers, such as ``"grouped/512"``.
        sink: a token that every text begins with and that is left out of the pool; it is prepended
            unless the tokenizer begins with it anyway. None: no such token.
        template: what is encoded, with ``{text}`` once; a prompt given to ``encode`` comes before.
        pool_template: whether the tokens of template and prompt take part in the pooling. If not,
            nor do special tokens before the text; those after it do, as in sentence-transformers.
        pooling: a name in ``lab.pooling.POOLINGS``.
        layers: hidden states to pool: 0 = embeddings, L or -1 = last; default the last.
        padding_side: "left" or "right"; default the tokenizer's.
        max_length: tokens after which a text is cut; default the tokenizer's, and with an
            extension none, as far as the model can do without.
        native_is_causal: ``config.is_causal`` of the checkpoint, kept so that a saved model can go
            back to its native attention.
        **kwargs: of sentence-transformers' ``Transformer``.
    """

    settings = (
        "attention",
        "temperature",
        "extension",
        "sink",
        "template",
        "pool_template",
        "pooling",
        "layers",
        "padding_side",
        "max_length",
        "native_is_causal",
    )
    config_keys: list[str] = [*Transformer.config_keys, *settings]  # noqa: RUF012
    tokenizer: PreTrainedTokenizerBase  # stock properties, which are None for images only
    max_seq_length: int

    def __init__(
        self,
        model_name_or_path: str,
        *,
        native_is_causal: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = {key: kwargs.pop(key) for key in self.settings if key in kwargs}
        super().__init__(model_name_or_path, **kwargs)
        self._take_over(native_is_causal)
        self.configure(**chosen)

    @classmethod
    def around(cls, transformer: Transformer, **settings: Any) -> Self:
        """An encoder that takes over the loaded model and tokenizer of a stock ``Transformer``."""
        encoder = cls.__new__(cls)
        encoder.__dict__.update(transformer.__dict__)
        encoder._take_over(None)
        # Lab models encode plain text: a chat template would wrap every sentence in silence.
        text_only = TRANSFORMER_TASK_DEFAULTS["feature-extraction"]
        encoder.modality_config, encoder.module_output_name = text_only
        encoder.configure(**settings)
        return encoder

    def _take_over(self, native_is_causal: bool | str | None) -> None:
        """Note how the loaded model and tokenizer are before a setting changes them."""
        known = getattr(self.model.config, "is_causal", UNSET)
        self.native_is_causal = known if native_is_causal is None else native_is_causal
        self.frequency: Tensor | None = None
        self._loaded = self.tokenizer.padding_side, self.tokenizer.model_max_length

    def configure(
        self,
        *,
        attention: str = "native",
        temperature: float | Sequence[float] | str | None = None,
        extension: str | None = None,
        sink: str | None = None,
        template: str = TEXT,
        pool_template: bool = True,
        pooling: str = "mean",
        layers: Sequence[int] | None = None,
        padding_side: str | None = None,
        max_length: int | None = None,
    ) -> None:
        """Apply all settings or, if one is refused, none; what is not given gets its default.

        See the class. Padding side and length not given are those of the tokenizer as it was
        loaded; with an extension the length is then not limited.

        Raises:
            ValueError, LookupError: a setting is unknown, out of range, or not possible here.
        """
        count = architecture.depth(self.model)
        _check_type("template", template, str)
        _check_type("pool_template", pool_template, bool)
        _check_type("pooling", pooling, str)
        _check_type("sink", sink, str | None)
        _check_type("extension", extension, str | None)
        _check_type("max_length", max_length, int | None)
        POOLINGS[pooling], MODES[attention]  # LookupError where there is none
        if template.count(TEXT) != 1:
            raise ValueError(f"a template holds {TEXT} exactly once; got {template!r}")
        chosen = [count] if layers is None else [self.layer_index(layer, count) for layer in layers]
        # numpy and torch numbers are saved as plain ones
        temperature = getattr(temperature, "tolist", lambda: temperature)()
        parsed = Temperature.parse(temperature, count)
        extends = Extension.parse(extension)
        if extends:
            check(self.model, extends)
        sink_id = self._find_sink(sink)
        side, length = self._side_and_length(padding_side, max_length, extends)
        self.count_frequencies([pooling])
        set_temperature(self.model, parsed)  # the last that may refuse, and the first that acts
        prepare(self.model, attention, self.native_is_causal)
        self.tokenizer.padding_side, self.tokenizer.model_max_length = side, length
        self.attention, self.temperature, self.pooling = attention, temperature, pooling
        self.template, self.pool_template, self.layers = template, pool_template, chosen
        self.sink, self.extension, self.extends = sink, extension, extends
        self._sink_id = sink_id

    def _side_and_length(
        self, padding_side: str | None, max_length: int | None, extends: Extension | None
    ) -> tuple[str, int]:
        """The padding side and the length of texts, within what the model's positions allow."""
        if padding_side not in (None, "left", "right"):
            raise ValueError(f"padding_side is 'left' or 'right'; got {padding_side!r}")
        side, length = self._loaded
        most = architecture.positions(self.model)
        if extends:
            most, length = extends.most(self.model), UNLIMITED
        if max_length is not None and max_length < 1 and most is None:
            raise ValueError(f"max_length must be 1 or more; got {max_length}")
        if max_length is not None and not 1 <= max_length <= (most or max_length):
            raise ValueError(
                f"max_length {max_length} is outside 1 .. {most}, the positions of "
                f"{architecture.architecture(self.model)}"
            )
        return padding_side or side, min(max_length or length, most or length)

    @property
    def padding_side(self) -> str:
        """The side on which batches are padded; it never changes an embedding."""
        return self.tokenizer.padding_side

    @property
    def max_length(self) -> int | None:
        """Tokens after which a text is cut; None where the tokenizer knows no limit."""
        length = self.tokenizer.model_max_length
        return None if length > 10**9 else int(length)

    @staticmethod
    def layer_index(layer: int, count: int) -> int:
        """A layer index as 0 .. L."""
        if not -count - 1 <= layer <= count:
            raise ValueError(
                f"layer {layer} does not exist; this model has hidden states 0 "
                f"(embeddings) to {count} (last), or {-count - 1} to -1 from the end"
            )
        return layer % (count + 1)

    def _find_sink(self, sink: str | None) -> int | None:
        """The id of the sink token."""
        if sink is None:
            return None
        found: Any = self.tokenizer.convert_tokens_to_ids(sink)
        unknown = found == self.tokenizer.unk_token_id and sink != self.tokenizer.unk_token
        if found is None or unknown:
            special = ", ".join(self.tokenizer.all_special_tokens)
            raise ValueError(
                f"the sink {sink!r} is no token of this tokenizer; special tokens are {special}"
            )
        return int(found)

    # --- texts to tokens -------------------------------------------------------------------

    def tokenise(
        self, texts: Sequence[str], prompt: str | None = None, max_length: int | None = None
    ) -> list[TokenisedText]:
        """The token ids of each text under the template, cut to the model's length.

        Raises:
            TypeError: something is not a string.
            ValueError: a text is empty, blank or gives no token; the template alone is too long;
                ``attention="prefix"`` without an instruction before the text.
        """
        before, after = self.template.split(TEXT)
        before = (prompt or "") + before
        if self.attention == "prefix" and not before.strip():
            raise ValueError(
                "attention='prefix' needs an instruction before the text that all of it can see: "
                f"give a template such as 'query: {TEXT}' or a prompt"
            )
        return tokenise(
            self.tokenizer,
            texts,
            before=before,
            after=after,
            sink=self._sink_id,
            pool_template=self.pool_template,
            limit=min(max_length or self.max_seq_length, self.max_seq_length),
        )

    def collate(self, texts: Sequence[TokenisedText]) -> dict[str, Any]:
        """A padded batch with one row a text; see :func:`lab.models.texts.collate`.

        Raises:
            ValueError: a text is read in several parallel windows.
        """
        features = self.collate_windows(texts)
        if "windows" in features:
            raise ValueError(
                f"extension {self.extension!r} reads a text of {max(len(t.ids) for t in texts)} "
                "tokens in several windows, each with token states of its own; only pooled "
                "embeddings can be read of it"
            )
        return features

    def collate_windows(self, texts: Sequence[TokenisedText]) -> dict[str, Any]:
        """A padded batch with one row for each parallel window, if the extension makes any.

        Then ``windows`` (text,) says how many each text has; pooled states are merged by
        :func:`lab.models.texts.mean_of_windows`.
        """
        length = self.extends.length if self.extends and self.extends.windows else None
        parts = [windows(text, length) if length else [text] for text in texts]
        rows = [window for part in parts for window in part]
        left = self.padding_side == "left"
        features = collate(rows, self.tokenizer.pad_token_id or 0, left)
        if len(rows) > len(texts):
            features["windows"] = torch.tensor([len(part) for part in parts])
        return features

    def preprocess(  # type: ignore[override]
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        processing_kwargs: dict[str, Any] | None = None,
        max_length: int | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """A padded batch of texts; warns once per batch of texts that were cut."""
        if processing_kwargs:
            raise ValueError(
                "lab encoders take no processing_kwargs; set max_length, padding_side "
                f"or template on the model; got {sorted(processing_kwargs)}"
            )
        texts = self.tokenise(inputs, prompt, max_length)
        for warning in truncation(texts):
            warnings.warn(warning, stacklevel=2)
        return self.collate_windows(texts)

    # --- tokens to pooled layers -----------------------------------------------------------

    def count_frequencies(self, poolings: Sequence[str]) -> None:
        """Count, once, the frequency of each token in the descriptions that ship in ``data/``.

        Only if one of these poolings needs it; the result is saved with the model.
        """
        if self.frequency is not None or not any(needs_frequency(name) for name in poolings):
            return
        from lab import data

        table: Any = self.model.get_input_embeddings()
        counts = torch.zeros(table.num_embeddings, dtype=torch.long)
        for name in REFERENCE_SETS:
            texts = data.load(name, "dev").texts
            batch = self.tokenizer(texts, add_special_tokens=False, verbose=False)
            ids = torch.tensor([token for ids in batch["input_ids"] for token in ids])
            counts += torch.bincount(ids, minlength=len(counts))
        self.frequency = (counts / counts.sum()).float()

    def tokens(self, features: dict[str, Any]) -> Tokens:
        """What the poolings need to know of a batch."""
        mask = features.get("pool_mask")
        mask = (features["attention_mask"] if mask is None else mask).bool()
        if self.frequency is None:
            return Tokens(mask)
        return Tokens(mask, self.frequency.to(mask.device)[features["input_ids"]])

    def read(
        self,
        features: dict[str, Any],
        on_hidden: Callable[[int, Tensor], Tensor | None],
        stop_after: int,
    ) -> None:
        """One forward pass over a batch under the settings; see :func:`lab.models.states.read`."""
        mask = features["attention_mask"]
        chosen = forward_kwargs(self.model, self.attention, mask, features.get("prefix_lengths"))
        inputs = {"input_ids": features["input_ids"], **chosen}
        with (
            leaving_nothing_behind(),
            temperature_of_batch(self.model, mask),
            extended(self.model, self.extends, mask, inputs) as inputs,
        ):
            states.read(self.model, inputs, on_hidden, stop_after=stop_after)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``layer_embeddings`` (text, layer, dim) and the deepest ``token_embeddings``.

        The latter are of parallel windows, not of texts, where the extension makes any.
        """
        tokens, pool = self.tokens(features), POOLINGS[self.pooling]
        pooled: dict[int, Tensor] = {}

        def keep(layer: int, hidden: Tensor) -> None:
            if layer in self.layers:
                pooled[layer] = mean_of_windows(pool(hidden, tokens), features.get("windows"))
                features["token_embeddings"] = hidden

        self.read(features, keep, stop_after=max(self.layers))
        features["layer_embeddings"] = torch.stack([pooled[layer] for layer in self.layers], 1)
        return features

    # --- saving ----------------------------------------------------------------------------

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save weights, tokenizer, settings and token frequencies.

        Raises:
            ValueError: an adapter is on, of which transformers would save the adapter alone.
        """
        if getattr(self.model, "_hf_peft_config_loaded", False):
            raise ValueError(
                "this model has an adapter that is not folded in, and would be saved without its "
                "weights; call lab.training.adapters.merge(model) first"
            )
        super().save(output_path, *args, **kwargs)
        if self.extends:  # the length without the extension, to go back to
            length, self.tokenizer.model_max_length = self.max_seq_length, self._loaded[1]
            self.tokenizer.save_pretrained(output_path)
            self.tokenizer.model_max_length = length
        if self.frequency is not None:
            save_file({"frequency": self.frequency.cpu()}, Path(output_path) / FREQUENCIES)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> Self:
        """Load a saved encoder with its settings; called by ``SentenceTransformer``."""
        encoder = super().load(model_name_or_path, *args, **kwargs)
        hub = {
            key: kwargs[key]
            for key in ("token", "cache_folder", "revision", "local_files_only")
            if key in kwargs
        }
        saved = cls.load_file_path(model_name_or_path, FREQUENCIES, **hub)
        if saved:
            encoder.frequency = load_file(saved)["frequency"]
        return encoder


def _check_type(setting: str, value: object, kind: Any) -> None:
    """Refuse a setting of another type; True is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(f"{setting} must be {name}; got {value!r}")
