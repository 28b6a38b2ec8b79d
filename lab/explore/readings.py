"""What a bench says of embeddings: cosines, the nearest texts, a score beside another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from lab.stats import Score


def cosine(embeddings: np.ndarray) -> np.ndarray:
    """The cosines (n, n) of embeddings (n, dim), the diagonal exactly 1.

    Raises:
        ValueError: an embedding is zero (which line), so it has no direction.
    """
    norms = np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
    if not norms.all():
        line = int(np.argmin(norms)) + 1
        raise ValueError(f"the embedding of line {line} is zero under this setting: no cosine")
    unit = embeddings / norms
    cosines = np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(cosines, 1)
    return cosines


def mean_cosine(cosines: np.ndarray) -> float:
    """The mean over all pairs of different texts: near 1, all texts point the same way."""
    return float(cosines[~np.eye(len(cosines), dtype=bool)].mean())


def neighbours(now: np.ndarray, start: np.ndarray, row: int, most: int = 5) -> pd.DataFrame:
    """The texts nearest to one of them: text, cosine, rank, and both at the start.

    Ranks count from 1, the text itself left out; equal cosines share the order of the texts.
    """
    others = np.delete(np.arange(len(now)), row)
    table = pd.DataFrame({"text": others, "cosine": now[row, others],
                          "cosine_at_start": start[row, others]})  # fmt: skip
    for name, of in (("rank", "cosine"), ("rank_at_start", "cosine_at_start")):
        table[name] = table[of].rank(ascending=False, method="first").astype(int)
    return table.sort_values("rank").head(most).reset_index(drop=True)


def pair_table(now: np.ndarray, start: np.ndarray, texts: Sequence[str]) -> pd.DataFrame:
    """One row for two different texts: their lines, from 1, both, cosine, cosine at the start."""
    first, second = np.triu_indices(len(texts), 1)
    words = np.array(texts, dtype=object)
    return pd.DataFrame({
        "line": first + 1, "other_line": second + 1, "sentence": words[first],
        "other_sentence": words[second], "cosine": now[first, second],
        "cosine_at_start": start[first, second],
    })  # fmt: skip


def verdict(
    now: "Score | str", start: "Score | str", *, seed: int, resamples: int
) -> dict[str, Any]:
    """Score, interval, n, and the difference from the start with the interval of paired resamples.

    Keys value, low, high, n; start; difference, difference_low, difference_high. Those that are
    undefined are missing, and ``undefined`` says why.
    """
    from lab.stats import bootstrap_weights, compare, interval

    if isinstance(now, str):
        return {"undefined": now}
    weights = bootstrap_weights(now.n, resamples, np.random.default_rng(seed))
    found = interval(now, weights)
    said = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    if isinstance(start, str):
        return said | {"undefined": f"at the start: {start}"}
    pair = compare(now, start, rng=np.random.default_rng(seed), resamples=resamples)
    return said | {"start": start.value, "difference": pair.difference,
                   "difference_low": pair.low, "difference_high": pair.high}  # fmt: skip
