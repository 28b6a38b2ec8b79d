"""How contextual the words of a model are, layer by layer: one forward pass, a tidy table.

Only the states of sampled words stay in memory, (words x occurrences + random words) x layers x
dim float32, and two numbers a text and layer.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.anisotropy.occurrences import Sample, draw_sample, own_spans
from lab.anisotropy.tokens import (
    adjusted,
    hc_energy,
    intra_sentence_similarity,
    maximum_explained_variance,
    random_word_cosine,
    random_word_variance,
    self_similarity,
)
from lab.models import EmbeddingModel, architecture
from lab.models.texts import TEXT, TokenisedText, check_texts, truncation
from lab.readout import batches_by_tokens
from lab.stats import Interval, Score, bootstrap_weights, interval
from lab.stats.weighted import mean


def contextual(
    model: EmbeddingModel,
    texts: Sequence[str],
    *,
    seed: int,
    layers: Sequence[int] | None = None,
    words: int = 200,
    occurrences: int = 20,
    random_words: int = 1000,
    resamples: int = 1000,
    token_budget: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Self-similarity, intra-sentence similarity, MEV and HC energy of every layer, with intervals.

    One row a measurement, in columns of ``lab.results``: layer, probe ("contextual"), metric,
    value, low, high, n, seed. Metrics:

    - ``self_similarity``, ``maximum_explained_variance``: means over words, n of them;
    - ``intra_sentence_similarity``, ``hc_energy``: means over texts, all tokens of each;
    - ``random_word_cosine``, ``random_word_variance``: what random words show;
    - the first three ``_adjusted``: minus what random words show;
    - ``maximum_explained_variance_matched``: minus that of as many random words as the word has
      occurrences, since few occurrences alone make it large. The paper's baseline is that of all
      random words.

    Against Ethayarajh 2019 (arXiv:1909.00512): a word is a run of letters and digits, case as it
    is, and its state the mean over its tokens (his code has word pieces for BERT, tokens of spaCy
    for GPT-2). As in the paper it occurs in five or more different texts (his code counts five
    occurrences); we read its first place in each. ``words`` words and ``occurrences`` contexts are
    drawn at random where he takes all. One random word comes from each of ``random_words`` texts,
    as in his code. Tokenizers that join a space to the word after it give a word another token
    where it begins a text. Special tokens, sink and template are left out everywhere: where a
    causal model makes an attention sink of its first token, give it a ``sink``, or a few first
    words of texts hold nearly all the variance that the baselines see.

    Args:
        model: a lab model with a fast tokenizer; its pooling plays no part.
        texts: many, with words that recur.
        seed: of what is drawn: words, occurrences, random words, resamples.
        layers: hidden states 0 .. L, negative from the end; default all.
        words: how many words are measured at the most.
        occurrences: how many contexts of a word are read at the most.
        random_words: how many texts give a random word at the most.
        resamples: of the bootstraps over words, texts and random words.
        token_budget: padded tokens a batch; default 2048 on a CPU, 32768 on a GPU.
        progress: show a bar after two seconds, unless in a batch run.

    Raises:
        TypeError, ValueError: a bad text (which row), a missing layer, a slow tokenizer, fewer than
            two words that recur, a number below its least, a zero vector (which text and layer).
        FloatingPointError: a state is not finite (which text, from which layer on).

    Warns:
        TruncationWarning: texts that are longer than the model; what was cut is not measured.
    """
    rng = np.random.default_rng(seed)
    texts = texts if isinstance(texts, str) else list(texts)
    encoder = model.eval().encoder
    count = architecture.depth(encoder.model)
    wanted = range(count + 1) if layers is None else layers
    chosen = sorted({encoder.layer_index(layer, count) for layer in wanted})
    for what, given in (("texts", texts), ("layers", chosen)):
        if not len(given):
            raise ValueError(f"nothing to read: {what} is empty")
    check_texts(texts)
    tokenised = encoder.tokenise(texts)
    before, after = encoder.template.split(TEXT)
    cut = [text.cut for text in tokenised]
    spans = own_spans(encoder.tokenizer, texts, before=before, after=after, cut=cut)
    sample = draw_sample(
        texts, spans, rng=rng, words=words, occurrences=occurrences, random_words=random_words
    )
    states = _States(texts, [len(one) for one in spans], sample, chosen)
    _read(model, tokenised, states, token_budget, progress)
    for warning in truncation(tokenised):
        warnings.warn(warning, stacklevel=2)
    sizes = len(sample.words), len(texts), len(sample.places) - sample.bounds[-1]
    weights = [bootstrap_weights(size, resamples, rng) for size in sizes]
    rows = [
        {
            "layer": layer, "probe": "contextual", "metric": metric, "value": found.value,
            "low": found.low, "high": found.high, "n": found.n, "seed": seed,
        }
        for at, layer in enumerate(chosen)
        for metric, found in _measured(states.of_slots[:, at], states.of_texts[at], sample, weights)
    ]  # fmt: skip
    return pd.DataFrame(rows)


class _States:
    """What is kept of the states as they stream by.

    Attributes:
        of_slots: (slots, layers, dim) float32 states of the sampled words.
        of_texts: (layers, 2, texts) intra-sentence similarity and HC energy.
    """

    of_slots: np.ndarray

    def __init__(
        self, texts: Sequence[str], lengths: Sequence[int], sample: Sample, layers: Sequence[int]
    ) -> None:
        self.texts, self.lengths, self.places, self.layers = texts, lengths, sample.places, layers
        self.of_texts = np.empty((len(layers), 2, len(texts)))
        self._slots: dict[int, list[int]] = defaultdict(list)
        for slot, place in enumerate(sample.places):
            self._slots[place.row].append(slot)

    def take(self, row: int, layer: int, tokens: np.ndarray) -> None:
        """Measure one text in one layer by its own tokens (n, d); keep its sampled words."""
        at = self.layers.index(layer)
        if not hasattr(self, "of_slots"):
            shape = len(self.places), len(self.layers), tokens.shape[1]
            self.of_slots = np.empty(shape, dtype=np.float32)
        try:
            self.of_texts[at, :, row] = intra_sentence_similarity(tokens), hc_energy(tokens)
        except ValueError as error:
            where = f"text {row} ({self.texts[row][:40]!r}), hidden state {layer}"
            raise ValueError(f"{where}: {error}") from None
        for slot in self._slots.get(row, ()):
            place = self.places[slot]
            self.of_slots[slot, at] = tokens[place.first : place.last].mean(axis=0)


def _read(
    model: EmbeddingModel,
    tokenised: Sequence[TokenisedText],
    states: _States,
    token_budget: int | None,
    progress: bool,
) -> None:
    """One forward pass over all texts, batch by batch, longest first."""
    budget = token_budget or (2048 if model.device.type == "cpu" else 32768)
    quiet = not progress or os.environ.get("LAB_MODE") == "batch"
    with tqdm(total=len(tokenised), desc="words", unit="text", delay=2, disable=quiet) as bar:
        for rows in batches_by_tokens([len(text.ids) for text in tokenised], budget):
            _read_batch(model, rows, [tokenised[row] for row in rows], states)
            bar.update(len(rows))


def _read_batch(
    model: EmbeddingModel, rows: Sequence[int], batch: Sequence[TokenisedText], states: _States
) -> None:
    """One forward pass over some texts."""
    features = model.encoder.collate(batch)
    mask = features["attention_mask"].bool()
    bad: list[int] = []

    def keep(layer: int, hidden: Tensor) -> None:
        if layer not in states.layers or bad:
            return
        for row, text, state, real in zip(rows, batch, hidden.float().cpu(), mask, strict=True):
            tokens = state[real][text.prefix : text.prefix + states.lengths[row]].numpy()
            if not np.isfinite(tokens).all():
                bad.append(row)
                return
            states.take(row, layer, tokens)

    on_device = {
        key: value.to(model.device) if isinstance(value, Tensor) else value
        for key, value in features.items()
    }
    with torch.inference_mode():
        model.encoder.read(on_device, keep, stop_after=max(states.layers))
    if bad:  # only now: to find the layer takes another pass
        raise FloatingPointError(model.describe_nonfinite(bad[0], states.texts[bad[0]]))


def _measured(
    states: np.ndarray, of_texts: np.ndarray, sample: Sample, weights: Sequence[np.ndarray]
) -> list[tuple[str, Interval]]:
    """Every metric of one layer with its interval."""
    draws_words, draws_texts, draws_random = weights
    cosine = random_word_cosine(states[sample.random])
    variance = random_word_variance(states[sample.random])
    similar = [self_similarity(states[slots]) for slots in sample.words]
    explained = np.array([maximum_explained_variance(states[slots]) for slots in sample.words])
    chance = np.array([maximum_explained_variance(states[slots]) for slots in sample.matched])
    found = []
    for metric, units, draws, baseline in (
        ("self_similarity", similar, draws_words, cosine),
        ("intra_sentence_similarity", of_texts[0], draws_texts, cosine),
        ("maximum_explained_variance", explained, draws_words, variance),
    ):
        score = _score(metric, units)
        found.append((metric, interval(score, draws)))
        found.append((f"{metric}_adjusted", adjusted(score, baseline, draws, draws_random)))
    others: list[tuple[Score, Any]] = [
        (_score("maximum_explained_variance_matched", explained - chance), draws_words),
        (_score("hc_energy", of_texts[1]), draws_texts),
        (cosine, draws_random),
        (variance, draws_random),
    ]
    return found + [(score.metric, interval(score, draws)) for score, draws in others]


def _score(metric: str, units: Any) -> Score:
    return Score("contextual", metric, np.asarray(units)[:, None], mean)
