"""One forward pass, every read-out: all layers and all token poolings of a list of texts.

States are pooled as they stream by and each layer's read-outs go to a file at once, so memory
grows neither with the number of read-outs nor with the number of texts (benchmarks/read_outs.py).
Poolings that are weighted sums share one matrix product per layer. Inside a run, what was computed
before is read from the disk instead, bit for bit the same (:mod:`lab.store.reuse`).
"""

import os
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.models import EmbeddingModel, architecture
from lab.models.texts import (
    TextError,
    TokenisedText,
    TruncationWarning,
    check_texts,
    mean_of_windows,
)
from lab.pooling import LAYER_MIXES, POOLINGS, Tokens, WeightedSum
from lab.store import reuse

DEFAULT_POOLINGS = tuple(POOLINGS)
CHUNK = 1024  # texts that are tokenised together
Chunk = tuple[list[int], list[TokenisedText]]  # rows, and what a model reads of them


class _Cells:
    """Arrays (texts, dim) of float32 behind each other in a temporary file, which goes with it.

    The room is taken at the first write: a full disk is found before hours of work, not after. Not
    so where the system can't reserve room (macOS, Windows): there the file only gets its length.
    """

    def __init__(self, folder: Path | None, cells: int, texts: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix="lab-readouts-")
        weakref.finalize(self, self._file.close)
        self._cells, self._texts, self._dim = cells, texts, 0

    def write(self, start: int, cell: int, pooled: np.ndarray) -> None:
        """Put (cells, rows, dim) where it belongs: from this cell and this text on."""
        if not self._dim:
            self._reserve(pooled.shape[-1])
        for place, rows in enumerate(pooled, cell):
            self._file.seek((place * self._texts + start) * self._dim * 4)
            self._file.write(rows.data)

    def read(self, order: np.ndarray, cell: int) -> np.ndarray:
        """One cell (texts, dim); ``order`` says where each of its rows belongs."""
        stored = np.empty((self._texts, self._dim), dtype=np.float32)
        self._file.seek(cell * stored.nbytes)
        self._file.readinto(stored.data)
        rows = np.empty_like(stored)
        rows[order] = stored
        return rows

    def _reserve(self, dim: int) -> None:
        size = self._cells * self._texts * dim * 4
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, size)
            else:
                self._file.truncate(size)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the read-outs need {size / 1e9:.1f} GB of temporary disk: "
                f"{error.strerror}; read fewer layers or poolings, or give another "
                "folder=",
            ) from error
        self._dim = dim


@dataclass(frozen=True)
class ReadOuts:
    """Embeddings of the same texts under every pooling of every layer, kept on disk.

    ``read_outs[layer, pooling]`` is (texts, dim) float32 in the order of the texts;
    ``read_outs.mix(name, pooling)`` weighs the layers. What a model does after pooling (Normalize,
    Dense) is not part of a read-out. The file goes when the object goes.

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
    _cell: reuse.Cell = field(repr=False)

    def __getitem__(self, key: tuple[int, str]) -> np.ndarray:
        """The embeddings (texts, dim) of one layer (negative counts from the end), one pooling.

        Raises:
            LookupError: that layer or pooling was not read.
        """
        layer, pooling = key
        layer = layer + self.states if layer < 0 else layer
        if layer not in self.layers or pooling not in self.poolings:
            raise LookupError(
                f"({layer}, {pooling!r}) was not read; there are layers "
                f"{self.layers} and poolings {', '.join(self.poolings)}"
            )
        cell = self.layers.index(layer) * len(self.poolings) + self.poolings.index(pooling)
        return self._cell(cell)

    def mix(self, name: str, pooling: str) -> np.ndarray:
        """The embeddings (texts, dim) under a layer mix: pooling and fixed mixes commute."""
        weights = LAYER_MIXES[name](self.states).numpy()
        return sum(weights[layer] * self[int(layer), pooling] for layer in np.flatnonzero(weights))

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
        TypeError, ValueError: a bad text (which row), no text, no pooling, a missing layer.
        LookupError: an unknown pooling.
        FloatingPointError: a read-out is not finite (which text, from which layer on).
        OSError: no room for the file.

    Warns:
        TruncationWarning: texts that are longer than the model; ``ReadOuts.cut`` says which.
        UserWarning: inside a run, what an earlier one kept is damaged, or nothing can be kept.
    """
    texts = texts if isinstance(texts, str) else list(texts)
    wanted, names = _layers(model, layers), list(dict.fromkeys(poolings))
    for what, given in (("texts", texts), ("layers", wanted), ("poolings", names)):
        if not len(given):
            raise ValueError(f"nothing to read: {what} is empty")
    check_texts(texts)
    encoder = model.eval().encoder
    encoder.count_frequencies(names)
    budget = token_budget or (2048 if model.device.type == "cpu" else 32768)
    chunks = _tokenised(model, texts, prompt)
    lengths, cut = np.zeros((2, len(texts)), dtype=np.int64)

    def counted() -> Iterator[Chunk]:
        for rows, tokenised in chunks():
            lengths[rows] = [len(text.ids) for text in tokenised]
            cut[rows] = [text.cut for text in tokenised]
            yield rows, tokenised

    def computed() -> reuse.Cell:
        file = _Cells(folder, len(wanted) * len(names), len(texts))
        order: list[int] = []
        quiet = not progress or os.environ.get("LAB_MODE") == "batch"
        with tqdm(total=len(texts), desc="read-outs", unit="text", delay=2, disable=quiet) as bar:
            for rows, batch in _batches(counted(), budget):
                write = partial(file.write, len(order))
                finite = _pool_batch(model, batch, names, wanted, write)
                if not finite.all():
                    bad = rows[int(np.flatnonzero(~finite)[0])]
                    raise FloatingPointError(model.describe_nonfinite(bad, texts[bad], prompt))
                order += rows
                bar.update(len(rows))
        return partial(file.read, np.array(order))

    cell = reuse.recall(
        computed, model, counted(), layers=wanted, poolings=names, token_budget=budget
    )
    if cut.any():
        warnings.warn(_truncation(lengths, cut), stacklevel=2)
    return ReadOuts(
        layers=tuple(wanted),
        poolings=tuple(names),
        states=_states(model),
        lengths=lengths,
        cut=cut,
        _cell=cell,
    )


def _tokenised(
    model: EmbeddingModel, texts: Sequence[str], prompt: str | None
) -> Callable[[], Iterator[Chunk]]:
    """Rows and what the model reads of them, chunk by chunk, as often as it is called.

    Only one chunk is in memory at a time; if it is the only one, texts are tokenised once.
    """
    chunks = list(_chunks(texts))

    @lru_cache(maxsize=1)
    def tokens(place: int) -> list[TokenisedText]:
        rows = chunks[place]
        try:
            return model.encoder.tokenise([texts[row] for row in rows], prompt)
        except TextError as error:
            raise TextError(rows[error.row], error.text, error.why) from None

    return lambda: ((rows, tokens(place)) for place, rows in enumerate(chunks))


def _truncation(lengths: np.ndarray, cut: np.ndarray) -> TruncationWarning:
    """The warning for texts of these tokens that lost so many."""
    rows = np.flatnonzero(cut)
    limit, longest = int(lengths[rows[0]]), int((lengths + cut)[rows].max())
    return TruncationWarning(len(rows), len(cut), limit, longest, int(cut.sum()))


def _chunks(texts: Sequence[str]) -> Iterator[list[int]]:
    """Rows in chunks, longest texts first: only one chunk of token ids is in memory at a time."""
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), row))
    for start in range(0, len(order), CHUNK):
        yield order[start : start + CHUNK]


def _batches(chunks: Iterator[Chunk], budget: int) -> Iterator[Chunk]:
    """Rows and tokens of chunks in batches of at most ``budget`` padded tokens."""
    for rows, tokenised in chunks:
        for places in batches_by_tokens([len(text.ids) for text in tokenised], budget):
            yield [rows[place] for place in places], [tokenised[place] for place in places]


def batches_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows in batches of at most ``budget`` padded tokens, longest first; one row at the least."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _pool_batch(
    model: EmbeddingModel,
    texts: Sequence[TokenisedText],
    poolings: Sequence[str],
    layers: Sequence[int],
    write: Callable[[int, np.ndarray], None],
) -> np.ndarray:
    """(texts,) whether all read-outs of a text are finite; ``write`` gets them layer by layer."""
    encoder = model.encoder
    features = {
        key: value.to(model.device) if isinstance(value, Tensor) else value
        for key, value in encoder.collate_windows(texts).items()
    }
    pool = _pool_all(poolings, encoder.tokens(features))
    finite = np.ones(len(texts), dtype=bool)

    def keep(layer: int, hidden: Tensor) -> None:
        if layer in layers:
            pooled = mean_of_windows(pool(hidden), features.get("windows")).cpu().numpy()
            finite[:] &= np.isfinite(pooled).all((0, 2))
            write(layers.index(layer) * len(poolings), pooled)

    with torch.inference_mode():
        encoder.read(features, keep, stop_after=max(layers))
    return finite


def _pool_all(poolings: Sequence[str], tokens: Tokens) -> Callable[[Tensor], Tensor]:
    """A function hidden (batch, seq, dim) -> all poolings (pooling, batch, dim) in float32."""
    chosen = [POOLINGS[name] for name in poolings]
    linear = {place: pool for place, pool in enumerate(chosen) if isinstance(pool, WeightedSum)}
    weights = None
    if linear:
        weights = torch.stack([pool.weights(tokens) for pool in linear.values()], 1)

    def pool(hidden: Tensor) -> Tensor:
        states = hidden.float()
        pooled: list[Any] = [None] * len(chosen)
        if weights is not None:
            sums = torch.bmm(weights, tokens.fill(states, 0.0)).unbind(1)
            for place, one in zip(linear, sums, strict=True):
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
    """Layer indices as 0 .. L, each once."""
    last = _states(model) - 1
    return (
        list(range(last + 1))
        if layers is None
        else list(dict.fromkeys(model.encoder.layer_index(layer, last) for layer in layers))
    )
