"""One forward pass, every read-out: all layers and all token poolings of a list of texts.

States are pooled as they stream by and written to a file, so memory grows neither with the number
of read-outs nor with the number of texts. Poolings that are weighted sums share one matrix product
per layer.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.models import EmbeddingModel, architecture
from lab.models.modules import TokenisedText, report_truncation
from lab.pooling import LAYER_MIXES, POOLINGS, Tokens, WeightedSum

DEFAULT_POOLINGS = tuple(POOLINGS)


@dataclass(frozen=True)
class ReadOuts:
    """Embeddings of the same texts under every pooling of every layer, kept on disk.

    ``read_outs[layer, pooling]`` is (texts, dim) float32 in the order of the texts;
    ``read_outs.mix(name, pooling)`` weighs the layers. The file goes when the object goes.

    Attributes:
        layers: the hidden states that were read.
        poolings: the token poolings that were read.
        lengths: (texts,) tokens of each text, special tokens included, after any cut.
        cut: (texts,) tokens that a text lost because it was longer than the model.
    """

    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    lengths: np.ndarray
    cut: np.ndarray
    states: int
    _order: np.ndarray = field(repr=False)
    _dim: int = field(repr=False)
    _file: BinaryIO = field(repr=False)

    def __getitem__(self, key: tuple[int, str]) -> np.ndarray:
        """The embeddings (texts, dim) of one layer (negative counts from the end), one pooling.

        Raises:
            LookupError: that layer or pooling was not read.
        """
        layer, pooling = key
        layer = layer + self.states if layer < 0 else layer
        if layer not in self.layers or pooling not in self.poolings:
            raise LookupError(f"({layer}, {pooling!r}) was not read; there are layers "
                              f"{self.layers} and poolings {', '.join(self.poolings)}")
        cell = self.layers.index(layer) * len(self.poolings) + self.poolings.index(pooling)
        count = len(self.lengths) * self._dim
        flat = np.empty(count, dtype=np.float32)
        self._file.seek(cell * count * 4)
        self._file.readinto(flat)  # type: ignore[attr-defined]
        embeddings = np.empty((len(self.lengths), self._dim), dtype=np.float32)
        embeddings[self._order] = flat.reshape(embeddings.shape)
        return embeddings

    def mix(self, name: str, pooling: str) -> np.ndarray:
        """The embeddings (texts, dim) under a layer mix: pooling and fixed mixes commute."""
        weights = LAYER_MIXES[name](self.states).numpy()
        return np.sum([weights[layer] * self[int(layer), pooling]
                       for layer in np.flatnonzero(weights)], axis=0, dtype=np.float32)

    def items(self) -> Iterator[tuple[tuple[int, str], np.ndarray]]:
        """Every ((layer, pooling), embeddings), one in memory at a time."""
        for layer in self.layers:
            for pooling in self.poolings:
                yield (layer, pooling), self[layer, pooling]


def read_out(
    model: EmbeddingModel,
    texts: Sequence[str],
    *,
    poolings: Sequence[str] = DEFAULT_POOLINGS,
    layers: Sequence[int] | None = None,
    prompt: str | None = None,
    token_budget: int | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> ReadOuts:
    """All read-outs of ``texts`` from one forward pass each.

    Args:
        model: a lab model; its own pooling and layers play no part.
        texts: what to embed.
        poolings: names in ``POOLINGS``; default all.
        layers: hidden states 0 .. L, negative from the end; default all.
        prompt: put before the template, as in ``encode``.
        token_budget: padded tokens a batch; default 2048 on a CPU, 32768 on a GPU.
        folder: where the file with the embeddings is made; default the system's temporary folder.
        progress: show a bar after two seconds, unless in a batch run.

    Raises:
        TypeError, ValueError: a bad text (which row), an unknown pooling, a missing layer.
        FloatingPointError: a read-out is not finite (which text, from which layer on).
        OSError: no room for the file.

    Warns:
        TruncationWarning: texts that are longer than the model; ``ReadOuts.cut`` says which.
    """
    tokenised = model.encoder.tokenise(texts, prompt)
    report_truncation(tokenised)
    wanted = _layers(model, layers)
    file = tempfile.TemporaryFile(dir=folder, prefix="lab-readouts-")
    order: list[int] = []
    dim = 0
    batches = stream(model, tokenised, poolings=poolings, layers=wanted, token_budget=token_budget)
    quiet = not progress or os.environ.get("LAB_MODE") == "batch"
    with tqdm(total=len(texts), desc="read-outs", unit="text", delay=2, disable=quiet) as bar:
        for rows, pooled in batches:
            _check_finite(model, pooled, rows, texts, wanted)
            dim = pooled.shape[-1]
            _write(file, pooled, len(order), len(texts))
            order += rows
            bar.update(len(rows))
    return ReadOuts(
        layers=tuple(wanted), poolings=tuple(poolings), states=_states(model),
        lengths=np.array([len(text.ids) for text in tokenised]),
        cut=np.array([text.cut for text in tokenised]),
        _order=np.array(order), _dim=dim, _file=file,
    )


def stream(
    model: EmbeddingModel,
    tokenised: Sequence[TokenisedText],
    *,
    poolings: Sequence[str],
    layers: Sequence[int],
    token_budget: int | None = None,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Batches of (rows, embeddings (layer, pooling, row, dim) float32), longest texts first."""
    encoder, device = model.encoder, model.device
    encoder.count_frequencies(poolings)
    model.eval()
    budget = token_budget or (2048 if device.type == "cpu" else 32768)
    for rows in batches_by_tokens([len(text.ids) for text in tokenised], budget):
        features: dict[str, Any] = encoder.collate([tokenised[row] for row in rows])
        features = {key: value.to(device) if isinstance(value, Tensor) else value
                    for key, value in features.items()}
        pool = _pool_all(poolings, encoder.tokens(features))
        kept: dict[int, Tensor] = {}

        def keep(layer: int, hidden: Tensor, pool: Any = pool, kept: Any = kept) -> None:
            if layer in layers:
                kept[layer] = pool(hidden)

        with torch.inference_mode():
            encoder.read(features, keep, stop_after=max(layers))
            pooled = torch.stack([kept[layer] for layer in layers])
        yield rows, pooled.cpu().numpy()


def batches_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows in batches of at most ``budget`` padded tokens, longest first; one row at the least."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _pool_all(poolings: Sequence[str], tokens: Tokens) -> Any:
    """A function hidden (batch, seq, dim) -> all poolings (pooling, batch, dim) in float32."""
    chosen = [POOLINGS[name] for name in poolings]
    linear = [place for place, pool in enumerate(chosen) if isinstance(pool, WeightedSum)]
    weights = None
    if linear:
        weights = torch.stack([chosen[place].weights(tokens) for place in linear], 1)
    outside = ~tokens.mask[..., None]
    padded = bool(outside.any())

    def pool(hidden: Tensor) -> Tensor:
        states = hidden.float()
        pooled: list[Any] = [None] * len(chosen)
        if weights is not None:
            inside = states.masked_fill(outside, 0.0) if padded else states
            for place, one in zip(linear, torch.bmm(weights, inside).unbind(1), strict=True):
                pooled[place] = one
        for place, function in enumerate(chosen):
            if pooled[place] is None:
                pooled[place] = function(states, tokens)
        return torch.stack(pooled)

    return pool


def _states(model: EmbeddingModel) -> int:
    """How many hidden states there are: layers + 1."""
    return architecture.depth(model.encoder.model) + 1


def _layers(model: EmbeddingModel, layers: Sequence[int] | None) -> list[int]:
    """Layer indices as 0 .. L."""
    states = _states(model)
    return list(range(states)) if layers is None else [
        model.encoder.layer_index(layer, states - 1) for layer in layers
    ]


def _check_finite(model: EmbeddingModel, pooled: np.ndarray, rows: list[int],
                  texts: Sequence[str], layers: Sequence[int]) -> None:
    """Raise for the first text whose read-out is not finite."""
    if np.isfinite(pooled).all():
        return
    bad = rows[int(np.flatnonzero(~np.isfinite(pooled).all((0, 1, 3)))[0])]
    raise FloatingPointError(model.describe_nonfinite(bad, texts[bad]))


def _write(file: BinaryIO, pooled: np.ndarray, start: int, texts: int) -> None:
    """Put a batch where it belongs: the file is (layer, pooling, text in reading order, dim)."""
    layers, poolings, rows, dim = pooled.shape
    for cell, part in enumerate(pooled.reshape(layers * poolings, rows, dim)):
        try:
            file.seek((cell * texts + start) * dim * 4)
            file.write(np.ascontiguousarray(part, dtype=np.float32).data)
        except OSError as error:
            size = layers * poolings * texts * dim * 4 / 1e9
            raise OSError(error.errno, f"the read-outs need {size:.1f} GB of temporary disk: "
                          f"{error.strerror}; read fewer layers or poolings, or give another "
                          "folder=") from error
