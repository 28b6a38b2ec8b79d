"""Projections of embeddings to two or three dimensions, with how far each can be trusted.

To add one, write ``(rows, dimensions, seed) -> coordinates`` and decorate it with ``@PROJECTIONS``.
"""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from lab.registry import Registry

PROJECTIONS: Registry[Callable[[np.ndarray, int, int], np.ndarray]] = Registry("projection")

NEIGHBOURS = 15


@PROJECTIONS
def pca(rows: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """The first principal components; linear, so distances shrink but never grow."""
    from sklearn.decomposition import PCA

    return PCA(dimensions, svd_solver="full").fit_transform(rows)


@PROJECTIONS
def umap(rows: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """UMAP by cosine (McInnes et al. 2018, arXiv:1802.03426): neighbourhoods, not distances.

    One thread, so that a seed gives the same coordinates every time.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value")
        warnings.filterwarnings("ignore", "Tensorflow", ImportWarning)  # its parametric kind
        from umap import UMAP

        return UMAP(
            n_neighbors=min(NEIGHBOURS, len(rows) - 1), n_components=dimensions, metric="cosine",
            random_state=seed,
        ).fit_transform(rows)  # fmt: skip


def project(rows: np.ndarray, name: str, *, seed: int, dimensions: int = 2) -> pd.DataFrame:
    """Coordinates x, y (and z) of rows (n, d), one frame row each, in their order.

    Raises:
        LookupError: an unknown projection.
        ValueError: fewer rows or columns than can be projected.
    """
    method = PROJECTIONS[name]
    if not isinstance(rows, np.ndarray) or not np.isfinite(rows).all():
        raise ValueError("a map needs an array of finite numbers; see lab.probes.checked")
    if dimensions not in (2, 3):
        raise ValueError(f"a map has 2 or 3 dimensions; got {dimensions}")
    if rows.ndim != 2 or len(rows) < 2 * dimensions or rows.shape[1] < dimensions:
        raise ValueError(f"a map of {dimensions} dimensions needs more than rows {rows.shape}")
    if np.ptp(rows, axis=0).max() == 0:
        raise ValueError(f"all {len(rows)} rows are equal: there is nothing to map")
    return pd.DataFrame(method(rows, dimensions, seed), columns=list("xyz"[:dimensions]))


def trust(rows: np.ndarray, coordinates: pd.DataFrame, neighbours: int = 10) -> float:
    """How many of the neighbours on the map are neighbours in the space, 1 for all.

    Trustworthiness by cosine (Venna & Kaski 2001), scikit-learn's.
    """
    from sklearn.manifold import trustworthiness

    most = (len(rows) - 1) // 2
    if neighbours >= most + 1:
        raise ValueError(
            f"trust over {neighbours} neighbours needs more than {2 * neighbours} rows"
        )
    if not rows.any(axis=1).all():
        raise ValueError("trust by cosine needs rows with a direction; one is a zero vector")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(trustworthiness(unit, coordinates.to_numpy(), n_neighbors=neighbours))
