"""What a cloud of texts is in numbers: its embeddings, a plane to see it in, how alike they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab.anisotropy.rows import unit_rows
from lab.collapse.cutting import cuts
from lab.collapse.phenomenon import similarity_by_length

if TYPE_CHECKING:
    from lab.models import EmbeddingModel

Clouds = Mapping[tuple[int, float], np.ndarray]


@dataclass(frozen=True)
class Plane:
    """Two directions that all clouds are drawn in.

    Attributes:
        centre: (dim,) what is drawn at the origin: the mean of all clouds.
        axes: (2, dim) orthonormal.
    """

    centre: np.ndarray
    axes: np.ndarray

    def place(self, rows: np.ndarray) -> np.ndarray:
        """(n, 2) coordinates of rows (n, dim)."""
        return (rows - self.centre) @ self.axes.T

    def share(self, rows: np.ndarray) -> float:
        """How much of the variance of a cloud the plane holds, 0 to 1; of equal rows NaN."""
        if _equal(rows):
            return float("nan")
        return float(self.place(rows).var(0).sum() / rows.var(0).sum())


def _equal(rows: np.ndarray) -> bool:
    """Whether rows differ by no more than rounding does."""
    return bool(np.ptp(rows, axis=0).max() <= 1e-5 * np.abs(rows).max())


def plane(clouds: Sequence[np.ndarray]) -> Plane:
    """The plane of the first two principal components of all clouds, each around its own mean.

    Fitted to all settings at once, so that none is favoured: a plane fitted to one cloud would hold
    more of that one's variance than of any other's, and the others would seem to contract.

    Raises:
        ValueError: fewer than three rows or two columns, or clouds without any spread.
    """
    from sklearn.decomposition import PCA

    spread = np.concatenate([rows - rows.mean(0) for rows in clouds])
    equal = all(map(_equal, clouds))
    if len(spread) < 3 or spread.shape[1] < 2 or equal:
        raise ValueError(
            f"a plane needs three rows or more, of two columns or more, that differ; got "
            f"{spread.shape}{', each cloud of rows that are all equal' if equal else ''}"
        )
    found = PCA(2, svd_solver="full").fit(spread)
    return Plane(np.mean([rows.mean(0) for rows in clouds], axis=0), found.components_)


def place(clouds: Clouds, names: Sequence[str], on: Plane) -> pd.DataFrame:
    """Where every text is under every setting: length, temperature, name, x, y."""
    parts = [
        pd.DataFrame(on.place(rows), columns=["x", "y"]).assign(
            length=length, temperature=temperature, name=list(names)
        )
        for (length, temperature), rows in clouds.items()
    ]
    return pd.concat(parts, ignore_index=True)


def similarity(clouds: Clouds, on: Plane) -> pd.DataFrame:
    """The mean cosine of two texts under every setting, with interval, n and the plane's share.

    Columns length, temperature, value, low, high, n, share. Intervals are jackknives over texts.

    Raises:
        ValueError: fewer than four texts.
    """
    rows = []
    for (length, temperature), cloud in clouds.items():
        one = similarity_by_length(cloud, np.zeros(len(cloud), dtype=int))[0, 0]
        low, high = map(float, one.interval())
        rows.append({"length": length, "temperature": temperature, "value": float(one.value),
                     "low": low, "high": high, "n": one.n, "share": on.share(cloud)})  # fmt: skip
    return pd.DataFrame(rows)


def embed(
    model: "EmbeddingModel",
    texts: Sequence[str],
    lengths: Sequence[int],
    temperatures: Sequence[float],
    *,
    pooling: str = "mean",
    layer: int = -1,
    on_step: Callable[[], None] = lambda: None,
) -> dict[tuple[int, float], np.ndarray]:
    """{(length, temperature): (texts, dim) of unit norm} of the same texts under every setting.

    ``on_step`` is called after each setting.

    Raises:
        TypeError, ValueError: as :func:`lab.collapse.cutting.cuts`: a text that is shorter than a
            cut (which), a length that is longer than the model reads.
    """
    from lab import models, spaces

    pieces = cuts(model, texts, lengths)
    found = {}
    for temperature in temperatures:
        variant = models.variant(model, temperature=float(temperature))
        for length in lengths:
            space = next(spaces.embed(variant, pieces[length], poolings=[pooling], layers=[layer],
                                      progress=False))  # fmt: skip
            found[int(length), float(temperature)] = unit_rows(space.rows(pieces[length]))
            on_step()
    return found
