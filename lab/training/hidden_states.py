"""Hidden states of texts: one forward pass a text serves every read-out and is kept on disk.

>>> wanted = [Wanted("last"), Wanted("mean"), Wanted()]  # layers pooled in two ways; last tokens
>>> last, mean, tokens = states_of(model, texts, wanted)
>>> tokens["A text."].shape  # (tokens of the text, dim)
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from sentence_transformers.util import batch_to_device
from torch import Tensor
from tqdm.auto import tqdm

from lab.models import EmbeddingModel
from lab.models.texts import TextError, TokenisedText, check_texts, truncation
from lab.pooling import needs_frequency
from lab.readout import batches_by_tokens
from lab.registry import unknown
from lab.store import fingerprint, reusing
from lab.store.hashing import of_tensor
from lab.store.state_store import Shelf, StateStore, of_process, throw_away
from lab.training.wanted import Kind, States, Wanted, wanted_by

__all__ = ["Kind", "States", "Wanted", "states", "states_of", "wanted_by"]

FILES = ("training/hidden_states.py", "training/wanted.py")
CODE = fingerprint.of_code(*FILES)
DTYPES = ("float32", "bfloat16", "float16")


def states(
    model: EmbeddingModel,
    texts: Sequence[str],
    *,
    store: StateStore | None = None,
    dtype: str | None = None,
    token_budget: int | None = None,
    progress: bool = True,
) -> States:
    """What the second module of ``model`` reads of ``texts``; see :func:`states_of`."""
    options: Any = {"store": store, "dtype": dtype, "token_budget": token_budget}
    return states_of(model, texts, [wanted_by(model)], progress=progress, **options)[0]


def states_of(
    model: EmbeddingModel,
    texts: Sequence[str],
    wanted: Sequence[Wanted],
    *,
    store: StateStore | None = None,
    dtype: str | None = None,
    token_budget: int | None = None,
    progress: bool = True,
) -> list[States]:
    """The hidden states of ``texts``, one ``States`` per item of ``wanted``, of one pass a text.

    What the store has is not computed. What is computed is stored as it comes, so that an
    interrupted run goes on where it was. Where something acts on the model that no hash sees
    (:func:`lab.store.fingerprint.unseen`), all is computed and nothing stays in any store.

    Args:
        model: a lab model without an adapter; a default prompt that it has comes before the texts.
        texts: what to read; duplicates are read once.
        wanted: what to read of a pass.
        store: default the one in the lab's cache; under ``LAB_REUSE=0`` one of this process.
        dtype: of what is stored: float32, bfloat16, float16; default the model's own.
        token_budget: padded tokens a batch; default 2048 on a CPU, 32768 on a GPU.
        progress: show a bar after two seconds, unless in a batch run.

    Raises:
        TypeError, ValueError: a bad text (which row); nothing to read; a layer that does not exist;
            token states of parallel windows; an adapter; more than the store may hold.
        LookupError: an unknown pooling or dtype.
        FloatingPointError: a state is not finite (which text, from which layer on).
        OSError: no room on the disk.

    Warns:
        TruncationWarning: texts that are longer than the model.
        UserWarning: a stored file is damaged; its texts are computed again.
    """
    texts = texts if isinstance(texts, str) else list(texts)
    check_texts(texts)
    encoder = model.eval().encoder
    asked = [one.of(encoder) for one in wanted]
    kinds = list(dict.fromkeys(asked))
    for what, given in (("texts", texts), ("wanted", kinds)):
        if not given:
            raise ValueError(f"nothing to read: {what} is empty")
    if dtype is not None and dtype not in DTYPES:
        raise LookupError(unknown("dtype", dtype, DTYPES))
    own = next(encoder.model.parameters()).dtype
    stored = own if dtype is None else getattr(torch, dtype)
    encoder.count_frequencies([kind.pooling for kind in kinds if kind.pooling])
    unique = list(dict.fromkeys(texts))
    try:
        tokenised = encoder.tokenise(unique, model._resolve_prompt(None, None))  # as encode does
    except TextError as error:
        raise TextError(texts.index(error.text), error.text, error.why) from None
    for warning in truncation(tokenised):
        warnings.warn(warning, stacklevel=2)
    keys = [fingerprint.key(text) for text in tokenised]
    of_model = fingerprint.fingerprint(model)
    addresses = [_address(of_model, kind, stored, encoder.frequency) for kind in kinds]
    with _usable(model, kinds, store) as usable:
        shelves = dict(zip(kinds, usable.shelves(addresses, keys), strict=True))
        lacking = {
            key: (text, read)
            for key, text, read in zip(keys, unique, tokenised, strict=True)
            if any(key not in shelf for shelf in shelves.values())
        }
        if lacking:
            _compute(model, texts, lacking, shelves, stored, token_budget, progress)
    return [
        States(kind, tuple(unique), own, of_model, [shelves[kind][key] for key in keys])
        for kind in asked
    ]


@contextmanager
def _usable(
    model: EmbeddingModel, kinds: Sequence[Kind], store: StateStore | None
) -> Iterator[StateStore]:
    """The store to read and write: an empty one where no hash sees all that the states depend on.

    Without reuse one per process, so that the cells of a study share their passes in it.
    """
    if fingerprint.unseen(model, [kind.pooling for kind in kinds if kind.pooling]):
        with throw_away() as empty:
            yield empty
    else:
        yield store or (StateStore() if reusing(default="1") else of_process())


def _address(of_model: str, kind: Kind, stored: torch.dtype, frequency: Tensor | None) -> str:
    """What one kind of states is filed under."""
    counted = kind.pooling is not None and needs_frequency(kind.pooling)
    return fingerprint.address(
        of_model,
        code=CODE,
        pooling=kind.pooling,
        layers=kind.layers,
        stored=str(stored),
        frequency=of_tensor(frequency) if counted and frequency is not None else None,
    )


def _compute(
    model: EmbeddingModel,
    texts: Sequence[str],
    lacking: dict[bytes, tuple[str, TokenisedText]],
    shelves: dict[Kind, Shelf],
    stored: torch.dtype,
    token_budget: int | None,
    progress: bool,
) -> None:
    """Put on each shelf what it lacks of the texts with these keys."""
    items = sum(
        kind.items(text)
        for kind, shelf in shelves.items()
        for key, (_, text) in lacking.items()
        if key not in shelf
    )
    width = model.encoder.get_embedding_dimension()
    next(iter(shelves.values())).reserve(items * width * stored.itemsize)
    budget = token_budget or (2048 if model.device.type == "cpu" else 32768)
    quiet = not progress or os.environ.get("LAB_MODE") == "batch"
    keys = list(lacking)
    lengths = [len(text.ids) for _, text in lacking.values()]
    with tqdm(total=len(keys), desc="hidden states", unit="text", delay=2, disable=quiet) as bar:
        for places in batches_by_tokens(lengths, budget):
            batch = [keys[place] for place in places]
            read = _forward(model, [lacking[key][1] for key in batch], list(shelves), stored)
            for shelf, of_texts in zip(shelves.values(), read, strict=True):
                for key, one in zip(batch, of_texts, strict=True):
                    if not one.isfinite().all():
                        text = lacking[key][0]
                        raise FloatingPointError(_not_finite(model, texts, text, stored))
                    if key not in shelf:
                        shelf.add(key, one)
            bar.update(len(batch))
    for shelf in shelves.values():
        shelf.flush()


def _forward(
    model: EmbeddingModel,
    batch: Sequence[TokenisedText],
    kinds: Sequence[Kind],
    stored: torch.dtype,
) -> list[Sequence[Tensor]]:
    """One pass over some texts: for each kind the states (item, dim) of each text."""
    encoder = model.encoder
    of_tokens = any(kind.pooling is None for kind in kinds)
    collate = encoder.collate if of_tokens else encoder.collate_windows  # the former refuses them
    features = batch_to_device(collate(batch), model.device)
    tokens, windows = encoder.tokens(features), features.get("windows")
    read: list[dict[int, Tensor]] = [{} for _ in kinds]

    def keep(layer: int, hidden: Tensor) -> None:
        for kind, layers in zip(kinds, read, strict=True):
            if layer in kind.layers:
                layers[layer] = kind.read(hidden, tokens, windows).to(stored)

    with torch.no_grad():
        encoder.read(features, keep, stop_after=max(max(kind.layers) for kind in kinds))
    return [kind.by_text(layers, tokens) for kind, layers in zip(kinds, read, strict=True)]


def _not_finite(model: EmbeddingModel, texts: Sequence[str], text: str, stored: torch.dtype) -> str:
    """What to say of a text whose states are not finite."""
    prompt = model._resolve_prompt(None, None)
    said = model.describe_nonfinite(list(texts).index(text), text, prompt)
    if stored == torch.float16:
        said += "; float16 ends at 65504, dtype='bfloat16' keeps the range of float32"
    return said
