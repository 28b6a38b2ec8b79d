"""How attention filters texts, layer by layer: one forward pass, a tidy frame.

Zhou et al. (arXiv:2410.24200) explain length collapse by the filter rate of attention maps, which
falls with the length of a text. Here it is measured, with what it acts on and what it leads to;
:mod:`lab.collapse.summary` says what a frame holds on average.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab import results
from lab.collapse.filter_rate import contraction, of_maps, uniform_causal
from lab.collapse.maps import centre
from lab.models import EmbeddingModel, settings
from lab.models.attention_maps import read_maps
from lab.models.texts import TokenisedText, check_texts, truncation
from lab.readout import batches_by_tokens

OF_HEADS = ("filter_rate", "entropy", "spread", "contraction", "uniform_causal")
METRICS = (*OF_HEADS, "hc_share", "token_similarity")
# Settings that play no part here, or show in the length.
LEFT_OUT = ("max_length", "layer", "pooling", "layer_mix", "repair")


def measure(
    model: EmbeddingModel,
    texts: Sequence[str],
    *,
    heads: bool = False,
    token_budget: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """One row a text and hidden state: what attention did before it, how alike its tokens are.

    Columns are the settings of the model, ``text`` (its row), ``length`` (tokens n, special ones
    included), ``layer`` (0 = embeddings, l = the state that attention layer l leads to) and

    - ``filter_rate``, ``entropy`` (nats), ``spread`` (of the logits), ``contraction``: means over
      the heads of layer l, see :mod:`lab.collapse.filter_rate`; empty for layer 0, ``contraction``
      also where a model writes its attention inline, and all that is not defined for one token;
    - ``uniform_causal``: the filter rate of uniform attention, where no token sees a later one (a
      causal model); empty otherwise;
    - ``hc_share``: the share of the energy of the tokens that is not in their mean
      (:func:`lab.anisotropy.tokens.hc_energy`);
    - ``token_similarity``: the mean cosine of all pairs of tokens.

    The maps of one layer and one batch are in memory at a time: heads x batch x n^2 numbers, and
    what eager attention needs beside them.

    Args:
        model: a lab model; its pooling and layers play no part.
        texts: the same ones cut to several lengths show length without topic; variants of the
            model with several ``max_length`` cut them, and warn.
        heads: one row a text, layer 1 .. L and ``head`` instead, without the columns of the states.
        token_budget: padded tokens a batch; default 2048 on a CPU, 32768 on a GPU.
        progress: show a bar after two seconds, unless in a batch run.

    Raises:
        TypeError, ValueError: a bad text (which row), no text, a text in several parallel windows,
            a model without attention maps, a map that is not finite, a zero state.
        FloatingPointError: a state is not finite (which text, from which layer on).

    Warns:
        TruncationWarning: texts that are longer than the model; what was cut is not measured.
    """
    texts = texts if isinstance(texts, str) else list(texts)
    check_texts(texts)
    if not texts:
        raise ValueError("nothing to read: texts is empty")
    tokenised = model.eval().encoder.tokenise(texts)
    for warning in truncation(tokenised):
        warnings.warn(warning, stacklevel=2)
    budget = token_budget or (2048 if model.device.type == "cpu" else 32768)
    quiet = not progress or os.environ.get("LAB_MODE") == "batch"
    parts: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    with tqdm(total=len(texts), desc="attention maps", unit="text", delay=2, disable=quiet) as bar:
        for rows in batches_by_tokens([len(text.ids) for text in tokenised], budget):
            parts.append(_read(model, rows, [tokenised[row] for row in rows], texts))
            bar.update(len(rows))
    attention, states = (
        pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)
    )
    place = ["text", "length", "layer"]
    if heads:
        frame = attention
    else:
        by_layer = attention.drop(columns="head").groupby(place, as_index=False).mean()
        frame = states.merge(by_layer, "left", on=place)
    wanted = [*place, "head", *OF_HEADS] if heads else [*place, *METRICS]
    frame = frame.reindex(columns=wanted).sort_values(place, kind="stable")
    chosen = {k: v for k, v in settings(model).items() if k not in LEFT_OUT}
    named = {name: value for name, value in results.row(**chosen).items() if name in chosen}
    frame = frame.reset_index(drop=True)
    return pd.concat([pd.DataFrame(named, index=frame.index), frame], axis=1)


def _read(
    model: EmbeddingModel,
    rows: Sequence[int],
    batch: Sequence[TokenisedText],
    texts: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is measured of the heads and of the states of some texts in one pass."""
    features = {
        key: value.to(model.device) if isinstance(value, Tensor) else value
        for key, value in model.encoder.collate(batch).items()
    }
    real = features["attention_mask"].bool()
    place = {"text": rows, "length": [len(text.ids) for text in batch]}
    references: list[float] = []
    of_heads: list[pd.DataFrame] = []
    of_states: list[pd.DataFrame] = []
    bad: list[int] = []

    def take_state(layer: int, hidden: Tensor) -> None:
        finite = hidden.isfinite().all(-1).where(real, True).all(-1)
        bad.extend(torch.nonzero(~finite).flatten().tolist())
        if bad:
            return
        zero = ((hidden == 0).all(-1) & real).any(-1)
        if zero.any():
            row = rows[int(zero.nonzero()[0])]
            raise ValueError(
                f"text {row} ({texts[row][:40]!r}), hidden state {layer}: a token is a zero "
                "vector and has no cosine"
            )
        of_states.append(_table(place, layer, _of_states(hidden, real)))

    def take_map(layer: int, maps: Tensor, values: Tensor | None) -> None:
        if bad:
            return
        if layer == 0:
            references[:] = _references(maps, real)
        try:
            found = of_maps(maps, real)
        except ValueError as error:
            raise ValueError(f"layer {layer + 1}, of texts {list(rows)} {error}") from None
        if values is not None:
            found["contraction"] = contraction(maps, values, real)
        of_heads.append(_table({**place, "uniform_causal": references}, layer + 1, found))

    read_maps(model, features, take_map, take_state)
    if bad:  # only now: to find the layer takes another pass
        raise FloatingPointError(model.describe_nonfinite(rows[bad[0]], texts[rows[bad[0]]]))
    return pd.concat(of_heads), pd.concat(of_states)


def _table(
    place: Mapping[str, Sequence[float]], layer: int, found: dict[str, Tensor]
) -> pd.DataFrame:
    """One row a text, or a text and head, from numbers (text,) or (text, head)."""
    arrays = {name: numbers.cpu().numpy() for name, numbers in found.items()}
    shape = next(iter(arrays.values())).shape
    heads = shape[1] if len(shape) > 1 else 1
    own = {name: np.repeat(values, heads) for name, values in place.items()}
    head = {"head": np.tile(np.arange(heads), shape[0])} if len(shape) > 1 else {}
    numbers = {name: array.ravel().astype(float) for name, array in arrays.items()}
    return pd.DataFrame({**own, "layer": layer, **head, **numbers})


def _references(maps: Tensor, real: Tensor) -> list[float]:
    """The filter rate of uniform attention for each text in which no token sees a later one.

    NaN for others, and for a text of one token, which has no later one to see.
    """
    ahead = maps.triu(1).amax((1, 3)).where(real, 0).amax(-1)
    lengths = zip(real.sum(-1).tolist(), ahead.tolist(), strict=True)
    return [math.nan if ahead or n < 2 else uniform_causal(n) for n, ahead in lengths]


def _of_states(hidden: Tensor, real: Tensor) -> dict[str, Tensor]:
    """The measures of the states (text, n, dim) of every text."""
    states = hidden.float().where(real[..., None], 0)
    count = real.sum(-1)
    norms = states.norm(dim=-1)
    high = centre(states.mT, real.float()[:, None]).square().sum((-1, -2))
    total = (states / norms.where(real, 1)[..., None]).sum(-2).square().sum(-1)
    pairs = (count * (count - 1)).float()
    return {
        "hc_share": high / norms.square().sum(-1),
        "token_similarity": (total - count) / pairs.where(pairs > 0, math.nan),
    }
