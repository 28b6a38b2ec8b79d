"""Two small sets that multiply: token poolings and layer mixes.

A *token pooling* turns the states of one text into one vector, a *layer mix* turns the pooled
vectors of all layers into one embedding. Published designs are points of the grid
(attention x token pooling x layer mix); every other point comes free.

To add a token pooling that is a weighted sum of the states, write one function that returns the
weights and decorate it with ``@weighting``; for any other, write ``(hidden, tokens) -> pooled``
and decorate it with ``@POOLINGS``. To add a layer mix, write ``n -> weights`` and decorate it with
``@LAYER_MIXES``. The contract tests (tests/test_contracts.py) apply by themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lab.registry import Registry
from lab.shapes import Hidden, Pooled, Weights, checked


@dataclass(frozen=True)
class Tokens:
    """Which positions of a padded batch count, and how frequent their tokens are.

    Attributes:
        mask: (batch, seq) True where a token takes part in the pooling.
        frequency: (batch, seq) relative frequency of each token in a reference corpus; only
            the frequency-weighted poolings need it.
    """

    mask: Tensor
    frequency: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse a batch that holds a text with nothing to pool."""
        if self.mask.dtype != torch.bool or self.mask.ndim != 2:
            raise ValueError(
                f"a token mask is boolean and (batch, seq); got {self.mask.dtype} of shape "
                f"{tuple(self.mask.shape)}; compare the attention mask with 0"
            )
        empty = (~self.mask.any(-1)).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"text {empty[0]} of {len(self.mask)} has no token to pool (its mask is all "
                "False); drop empty texts before encoding"
            )

    @property
    def rank(self) -> Tensor:
        """(batch, seq) 1, 2, 3, ... over the tokens that count; pads repeat the last number."""
        return self.mask.cumsum(-1)

    @cached_property
    def outside(self) -> Tensor:
        """Positions that do not count, numbered through the flattened (batch x seq)."""
        return (~self.mask).flatten().nonzero().flatten()

    def fill(self, hidden: Tensor, value: float) -> Tensor:
        """A copy of the states with ``value`` at the positions that do not count.

        Whole rows are overwritten, so NaN in a pad stays out; a broadcast ``masked_fill`` takes
        several times as long.

        Raises:
            TypeError: states and tokens differ in batch or seq.
        """
        if hidden.shape[-3:-1] != self.mask.shape:
            raise TypeError(
                f"states (*layer, batch, seq, dim) = {tuple(hidden.shape)} do not fit "
                f"a token mask (batch, seq) = {tuple(self.mask.shape)}"
            )
        rows = hidden.flatten(-3, -2).index_fill(-2, self.outside, value)
        return rows.unflatten(-2, self.mask.shape)


class Pooling(Protocol):
    """A token pooling: ``(*layer, batch, seq, dim)`` and tokens to ``(*layer, batch, dim)``."""

    @property
    def __name__(self) -> str:
        """The name it is registered under."""

    def __call__(self, hidden: Hidden, tokens: Tokens) -> Pooled:
        """The pooled states, accumulated in float32 and returned in the states' own dtype."""


CHUNK = 64  # tokens of a late chunk, at most

POOLINGS: Registry[Pooling] = Registry("pooling")
LAYER_MIXES: Registry[Callable[[int], Tensor]] = Registry("layer mix")


@dataclass(frozen=True)
class WeightedSum:
    """A token pooling that is a weighted sum of the states, with weights the states don't enter.

    Such poolings of one batch share one matrix product for all layers (lab.readout).
    """

    weights: Callable[[Tokens], Tensor]
    needs_frequency: bool = False

    @property
    def __name__(self) -> str:
        """The name of the weight function, which is the name of the pooling."""
        return self.weights.__name__

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """The docstring of the weight function."""
        return self.weights.__doc__

    def __call__(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """The weighted sum over the tokens of every text: (*layer, batch, dim)."""
        return weighted_sum(hidden, self.weights(tokens), tokens)


@checked
def weighted_sum(hidden: Hidden, weights: Weights, tokens: Tokens) -> Pooled:
    """The sum over seq of weights x hidden: ``(*layer, batch, dim)``, dtype as ``hidden``.

    Positions that do not count are replaced by zero first, so that even NaN in a pad stays out.
    Sums run in float32: half precision loses the tail of long texts.
    """
    states = tokens.fill(hidden.float(), 0.0)
    return _sum(weights.float(), states).to(hidden.dtype)


def weighting(weights: Callable[[Tokens], Tensor]) -> Callable[[Tokens], Tensor]:
    """Register a function tokens -> weights (batch, seq) as a token pooling of the same name."""
    POOLINGS(WeightedSum(weights))
    return weights


def frequency_weighting(weights: Callable[[Tokens], Tensor]) -> Callable[[Tokens], Tensor]:
    """Register, as ``weighting`` does, a function that reads ``tokens.frequency``."""
    POOLINGS(WeightedSum(weights, needs_frequency=True))
    return weights


def needs_frequency(name: str) -> bool:
    """Whether the pooling of this name reads the frequency of each token."""
    return getattr(POOLINGS[name], "needs_frequency", False)


def _sum(weights: Tensor, states: Tensor) -> Tensor:
    """Weights (..., seq) times states (..., seq, dim), summed over seq (einsum would copy)."""
    return (weights.unsqueeze(-2) @ states).squeeze(-2)


def _normalised(weights: Tensor, mask: Tensor) -> Tensor:
    """Weights that are zero outside the mask and sum to one over the tokens of each text."""
    weights = torch.where(mask, weights, 0.0)
    return weights / weights.sum(-1, keepdim=True)


# --- token poolings: weighted sums -------------------------------------------------------------


@weighting
def mean(tokens: Tokens) -> Tensor:
    """Equal weights: the mean over the tokens."""
    return _normalised(torch.ones_like(tokens.mask, dtype=torch.float), tokens.mask)


@weighting
def first(tokens: Tokens) -> Tensor:
    """All weight on the first token that counts: [CLS] in a BERT-like encoder."""
    return (tokens.mask & (tokens.rank == 1)).float()


@weighting
def last(tokens: Tokens) -> Tensor:
    """All weight on the last token that counts: EOS, or the last word of a prompt."""
    rank = tokens.rank
    return (tokens.mask & (rank == rank[:, -1:])).float()


@weighting
def position_weighted_mean(tokens: Tokens) -> Tensor:
    """Weights 1, 2, 3, ... so later tokens, which have seen more, count more.

    SGPT (arXiv:2202.08904, section 3.1.2). Positions count the tokens that are pooled; code that
    counts absolute positions changes its answer under left padding.
    """
    return _normalised(tokens.rank.float(), tokens.mask)


@weighting
def root_length_mean(tokens: Tokens) -> Tensor:
    """The sum over tokens divided by the square root of their number.

    Universal Sentence Encoder (arXiv:1803.11175); the direction equals that of the mean.
    """
    count = tokens.mask.sum(-1, keepdim=True)
    return torch.where(tokens.mask, count.float().rsqrt(), 0.0)


@frequency_weighting
def inverse_frequency_mean(tokens: Tokens, a: float = 1e-3) -> Tensor:
    """Weights a / (a + p(token)), normalised: rare tokens count more.

    SIF (Arora et al., ICLR 2017, algorithm 1, line 2) with its a; we divide by the sum of the
    weights where the paper divides by the number of words, so one token returns its own state.
    The removal of the first principal component is a separate repair.

    Raises:
        ValueError: the token frequencies are not known.
    """
    if tokens.frequency is None:
        raise ValueError(
            "inverse_frequency_mean needs the frequency of each token in a reference corpus; "
            "load the model with lab.models.load, which counts it, or pass Tokens(mask, frequency)"
        )
    return _normalised(a / (a + tokens.frequency), tokens.mask)


@weighting
def mean_without_first(tokens: Tokens) -> Tensor:
    """The mean over all tokens but the first, which in a causal LM is often an attention sink.

    Sinks: Xiao et al. (arXiv:2309.17453, section 3.1). A text of one token keeps that token.
    """
    rank = tokens.rank
    keep = tokens.mask & ((rank > 1) | (rank[:, -1:] == 1))
    return _normalised(keep.float(), keep)


@weighting
def last_half_mean(tokens: Tokens) -> Tensor:
    """The mean over the last half of the tokens (the middle one included).

    Between ``last`` and ``mean``: the second copy of an echoed text (arXiv:2402.15449, section 3).
    """
    rank = tokens.rank
    keep = tokens.mask & (2 * rank > rank[:, -1:])
    return _normalised(keep.float(), keep)


# --- token poolings: functions of the states ---------------------------------------------------


@POOLINGS
@checked
def norm_weighted_mean(hidden: Hidden, tokens: Tokens) -> Pooled:
    """The mean with weights proportional to the Euclidean norm of each token's state.

    Norms as word importance: Schakel & Wilson (arXiv:1508.02297, section 3).
    States that are all zero fall back to equal weights, the limit of vanishing equal norms.
    """
    states = tokens.fill(hidden.float(), 0.0)
    norms = states.norm(dim=-1)
    total = norms.sum(-1, keepdim=True)
    weights = torch.where(
        total > 0, norms / total.clamp_min(torch.finfo(norms.dtype).tiny), mean(tokens)
    )
    return _sum(weights, states).to(hidden.dtype)


@POOLINGS.named("max")
@checked
def maximum(hidden: Hidden, tokens: Tokens) -> Pooled:
    """The largest value of each dimension over the tokens (InferSent, arXiv:1705.02364)."""
    return tokens.fill(hidden, -torch.inf).amax(-2)


@POOLINGS.named("min")
@checked
def minimum(hidden: Hidden, tokens: Tokens) -> Pooled:
    """The smallest value of each dimension over the tokens (arXiv:1803.01400, power -inf)."""
    return tokens.fill(hidden, torch.inf).amin(-2)


@POOLINGS
@checked
def log_mean_exp(hidden: Hidden, tokens: Tokens) -> Pooled:
    """The log of the mean of exp over the tokens: a soft maximum, between mean and max."""
    states = tokens.fill(hidden.float(), -torch.inf)
    count = tokens.mask.sum(-1)[:, None].float()
    return (states.logsumexp(-2) - count.log()).to(hidden.dtype)


@POOLINGS
@checked
def cubic_power_mean(hidden: Hidden, tokens: Tokens) -> Pooled:
    """The signed cube root of the mean cube over the tokens.

    The power mean of Rückle et al. (arXiv:1803.01400, section 3) with p = 3, where odd powers
    keep the sign.
    """
    cubes = tokens.fill(hidden.float(), 0.0).pow_(3)
    average = _sum(mean(tokens), cubes)
    return (average.sign() * average.abs().pow(1 / 3)).to(hidden.dtype)


@POOLINGS
@checked
def late_chunking(hidden: Hidden, tokens: Tokens) -> Pooled:
    """The mean of the unit vectors along the means of chunks, times the average norm of those.

    A chunk is at most ``CHUNK`` tokens, chunks of a text are equally long but for one token, and
    their states have seen the whole text. Each has the same say in the direction, whatever the norm
    of its mean; a text of one chunk gives its ``mean``.

    After late chunking (Günther et al. 2024, arXiv:2409.04701), which keeps the chunks' vectors
    apart, so that a query can find the best one; here they make one vector for the text.
    """
    states = tokens.fill(hidden.float(), 0.0)
    length = tokens.rank[:, -1:]
    chunks = (length + CHUNK - 1) // CHUNK
    chunk = (tokens.rank - 1) * chunks // length
    places = torch.arange(int(chunks.max()), device=chunk.device)
    inside = (chunk[:, None] == places[:, None]) & tokens.mask[:, None]  # (batch, chunk, seq)
    means = (inside / inside.sum(-1, keepdim=True).clamp_min(1)) @ states
    direction = torch.nn.functional.normalize(means, dim=-1).sum(-2) / chunks
    norm = means.norm(dim=-1).sum(-1, keepdim=True) / chunks
    return (direction * norm).to(hidden.dtype)


# --- layer mixes: number of states L + 1 -> weights over hidden states 0 .. L ------------------


def one_layer(layer: int, states: int) -> Tensor:
    """All weight on one hidden state: 0 = embeddings, L = last, negative from the end.

    Raises:
        ValueError: there is no such layer.
    """
    if not -states <= layer < states:
        raise ValueError(
            f"layer {layer} does not exist; this model has hidden states 0 (embeddings) to "
            f"{states - 1} (last), or -{states} to -1 from the end"
        )
    weights = torch.zeros(states)
    weights[layer] = 1.0
    return weights


def _equal(layers: list[int], states: int) -> Tensor:
    """Equal weights on some hidden states, which sum to one."""
    return torch.stack([one_layer(layer, states) for layer in layers]).mean(0)


@LAYER_MIXES.named("last")
def last_layer(states: int) -> Tensor:
    """The last hidden state, after the final norm."""
    return one_layer(-1, states)


@LAYER_MIXES
def first_last(states: int) -> Tensor:
    """The mean of the first transformer layer and the last (SimCSE's avg_first_last, its code).

    BERT-flow's text (arXiv:2011.05864, section 4) may be read as embeddings + last; SimCSE's code
    takes hidden_states[1].
    """
    return _equal([1, -1], states)


@LAYER_MIXES
def last_four(states: int) -> Tensor:
    """The mean of the last four hidden states (BERT, arXiv:1810.04805, section 5.3: their sum).

    Raises:
        ValueError: the model has fewer than four layers.
    """
    if states < 5:
        raise ValueError(f"last_four needs 4 layers, this model has {states - 1}; use mean_of_all")
    return _equal([-4, -3, -2, -1], states)


@LAYER_MIXES
def mean_of_all(states: int) -> Tensor:
    """The mean of all transformer layers, embeddings left out."""
    return _equal(list(range(1, states)), states)
