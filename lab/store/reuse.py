"""Read-outs that were computed before, found by content instead of computed again.

What a pass gives depends in its last bits on how texts are batched and on the machine. So it is the
whole call that is found: model, texts in their order, poolings, batch size, machine; a hit is then
bit for bit what would be computed. Layers are kept one by one: a call that asks for fewer, or for
others, finds those that are there.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from lab.manifest import record_input
from lab.models import EmbeddingModel
from lab.models.texts import TokenisedText
from lab.paths import cache
from lab.pooling import needs_frequency
from lab.store import READ_OUTS, fingerprint, reusing
from lab.store.hashing import of_tensor
from lab.store.state_store import Shelf, StateStore

ROOM = 10 * 10**9  # bytes of the store; the least recently used go first
FILES = ("readout.py",)
CODE = fingerprint.of_code(*FILES)
LARGEST = 10**9  # bytes of one call; a larger one is computed every time
Cell = Callable[[int], np.ndarray]  # place of (layer, pooling) -> (texts, dim) float32


class NotKeptWarning(UserWarning):
    """Read-outs could not be kept, so the next run computes them again; this one has them."""


def recall(
    compute: Callable[[], Cell],
    model: EmbeddingModel,
    texts: Iterable[tuple[Sequence[int], Sequence[TokenisedText]]],
    *,
    layers: Sequence[int],
    poolings: Sequence[str],
    token_budget: int,
) -> Cell:
    """The cells of a call: those that are kept or, if a layer is missing, those computed now.

    Nothing is looked up or kept outside of a run (:func:`lab.store.reusing`), where something acts
    on the call that no hash sees (:func:`lab.store.fingerprint.unseen`), or of more than
    ``LARGEST`` bytes. A run notes in its manifest what it found.

    Args:
        compute: makes the passes.
        model: a lab model.
        texts: chunks of rows and of what the model reads of them, in the order of the passes.
        layers: hidden states that are asked for, 0 .. L.
        poolings: names in ``POOLINGS``.
        token_budget: padded tokens a batch.

    Raises:
        ValueError: ``LAB_REUSE`` is neither 0 nor 1.

    Warns:
        UserWarning: a kept file is damaged; it is deleted and computed again.
        NotKeptWarning: what was computed could not be written.
    """
    if not reusing() or fingerprint.unseen(model, poolings):
        return compute()
    address = _address(model, texts, poolings, token_budget)
    store = StateStore(cache() / READ_OUTS, max_bytes=ROOM)
    keys = [_key(layer, pooling) for layer in layers for pooling in poolings]
    (shelf,) = store.shelves([address], keys)
    if all(key in shelf for key in keys):
        facts = {"model": model.lab_name, "layers": list(layers), "poolings": list(poolings)}
        record_input("cache", store=READ_OUTS, address=address, **facts)
        return lambda place: shelf[keys[place]].states.numpy().copy()
    cell = compute()
    if cell(0).nbytes * len(keys) <= LARGEST:
        try:
            _keep(shelf, cell, keys)
        except OSError as error:
            said = f"these read-outs are not kept for the next run: {error}"
            warnings.warn(said, NotKeptWarning, stacklevel=3)
    return cell


def _address(
    model: EmbeddingModel,
    texts: Iterable[tuple[Sequence[int], Sequence[TokenisedText]]],
    poolings: Sequence[str],
    token_budget: int,
) -> str:
    """What a call is filed under: the hash of all that its numbers depend on, but the layers."""
    read = hashlib.sha256()
    for rows, tokenised in texts:
        read.update(json.dumps(list(rows)).encode())
        for text in tokenised:
            read.update(fingerprint.key(text))
    encoder = model.encoder
    counted = any(map(needs_frequency, poolings)) and encoder.frequency is not None
    return fingerprint.address(
        fingerprint.fingerprint(model),
        code=CODE,
        numerics=fingerprint.numerics(model),
        padding=[encoder.padding_side, encoder.tokenizer.pad_token_id],
        texts=read.hexdigest(),
        poolings=list(poolings),
        token_budget=token_budget,
        frequency=of_tensor(encoder.frequency) if counted else None,
    )


def _keep(shelf: Shelf, cell: Cell, keys: Sequence[bytes]) -> None:
    """Nothing; the cells that the shelf lacks are on the disk."""
    for place, key in enumerate(keys):
        if key not in shelf:
            shelf.add(key, torch.from_numpy(cell(place)))
    shelf.flush()


def _key(layer: int, pooling: str) -> bytes:
    return hashlib.sha256(f"{layer} {pooling}".encode()).digest()
