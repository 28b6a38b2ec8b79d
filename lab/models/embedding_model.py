"""The model that the lab hands out: a ``SentenceTransformer`` that checks what goes in and out."""

import inspect
import warnings
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from lab.models import architecture
from lab.models.encoder import Encoder
from lab.models.layer_mix import LayerMix
from lab.models.texts import TextError, TruncationWarning, check_texts
from lab.models.trained_pooling import TrainedPooling

Head = LayerMix | TrainedPooling
ENCODE = inspect.signature(SentenceTransformer.encode)


class EmbeddingModel(SentenceTransformer):
    """A ``SentenceTransformer`` that refuses bad texts by row and never hides NaN or truncation."""

    lab_name: str  # what it was loaded as

    @property
    def encoder(self) -> Encoder:
        """The first module: tokens, attention, temperature, pooling."""
        return cast(Encoder, self[0])

    @property
    def head(self) -> Head:
        """The second module: what makes one embedding of the states that the encoder read."""
        return cast(Head, self[1])

    @property
    def layer_mix(self) -> LayerMix:
        """The head of a model without a trained pooling: the weights over the pooled layers."""
        return cast(LayerMix, self[1])

    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """``SentenceTransformer.encode`` with checks; texts may come in any iterable.

        Raises:
            TypeError, ValueError: a text is no string, empty or blank (which row); token states
                are asked for under parallel windows, which don't have them of a text.
            FloatingPointError: a state is not finite (which text, from which layer on).

        Warns:
            TruncationWarning: some texts were longer than the model; one warning a call. The
                processes of a multi-process pool warn for themselves.
        """
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        check_texts(texts)
        given = ENCODE.bind(self, inputs, *args, **kwargs).arguments
        output, extends = given.get("output_value", "sentence_embedding"), self.encoder.extends
        if output != "sentence_embedding" and extends and extends.windows:
            raise ValueError(
                f"extension {self.encoder.extension!r} reads long texts in windows, so only "
                f"output_value='sentence_embedding' is of a text; got {output!r}"
            )
        prompt = self._resolve_prompt(given.get("prompt"), given.get("prompt_name"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TruncationWarning)
            try:
                result = super().encode(
                    inputs if isinstance(inputs, str) else texts, *args, **kwargs
                )
            except TextError as error:  # its row counts within a batch sorted by length
                raise TextError(texts.index(error.text), error.text, error.why) from None
            except FloatingPointError:
                raise FloatingPointError(self.first_nonfinite(texts, prompt)) from None
        cut = [item.message for item in caught if issubclass(item.category, TruncationWarning)]
        for item in caught:
            if item.message not in cut:
                warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
        if cut:
            warnings.warn(
                TruncationWarning.merged(cast(list[TruncationWarning], cut), len(texts)),
                stacklevel=2,
            )
        return result

    def first_nonfinite(self, texts: list[str], prompt: str | None = None) -> str:
        """Which text first gives a state that is not finite, and in which layer that begins."""
        for row, text in enumerate(texts):
            if self._nonfinite_layer(text, prompt) is not None:
                return self.describe_nonfinite(row, text, prompt)
        return (
            "an embedding is not finite though all states are: the pooling overflowed, or has "
            "weights that are not finite"
        )

    def describe_nonfinite(self, row: int, text: str, prompt: str | None = None) -> str:
        """What to say of a text whose embedding is not finite: where that begins, what to do."""
        layer = self._nonfinite_layer(text, prompt)
        count = architecture.depth(self.encoder.model)
        where = "the pooling" if layer is None else f"hidden state {layer} of {count}"
        return (
            f"the embedding of text {row} ({text[:40]!r}) is not finite; it begins in {where}. "
            "Check the weights, or run in float32 instead of half precision"
        )

    @torch.no_grad()
    def _nonfinite_layer(self, text: str, prompt: str | None) -> int | None:
        """The first hidden state of a text that is not finite, if there is one."""
        features = self.encoder.collate_windows(self.encoder.tokenise([text], prompt))
        features = {
            key: value.to(self.device) if isinstance(value, Tensor) else value
            for key, value in features.items()
        }
        bad: list[int] = []

        def look(layer: int, hidden: Tensor) -> None:
            if not hidden.isfinite().all():
                bad.append(layer)

        self.encoder.read(features, look, architecture.depth(self.encoder.model))
        return bad[0] if bad else None
