"""Repairs that are affine maps: y = (x - mean) @ matrix, each with its own way to fit the two."""

from numbers import Real

import numpy as np
import torch

from lab.anisotropy.moments import Directions
from lab.anisotropy.spectrum import contributions
from lab.registry import unknown
from lab.repairs.checks import refuse_constant, whole
from lab.repairs.estimator import Arrays, repair

KINDS = ("pca", "zca")


def affine(rows: np.ndarray, arrays: Arrays) -> np.ndarray:
    """(x - mean) @ matrix for every row x: (n, d')."""
    return (rows - arrays["mean"]) @ arrays["matrix"]


@repair(affine)
def none(rows: np.ndarray) -> Arrays:
    """The embeddings as they are: the baseline of every comparison of repairs."""
    d = rows.shape[1]
    return {"mean": np.zeros(d), "matrix": np.eye(d)}


@repair(affine)
def centring(rows: np.ndarray) -> Arrays:
    """The embeddings minus their mean: the average cosine of rows of equal norm becomes about 0.

    A few rows of large norm may still point the same way.
    """
    return {"mean": rows.mean(0), "matrix": np.eye(rows.shape[1])}


@repair(affine)
def z_score(rows: np.ndarray) -> Arrays:
    """The embeddings minus their mean over their standard deviation, dimension by dimension.

    Timkey & van Schijndel (arXiv:2109.04404), who call it standardization. The deviation divides
    by n, as scikit-learn's StandardScaler does.

    Raises:
        ValueError: a constant dimension.
    """
    refuse_constant(rows, "no standard deviation to divide by")
    return {"mean": rows.mean(0), "matrix": np.diag(1 / rows.std(0))}


@repair(affine)
def all_but_the_top(rows: np.ndarray, *, components: int | None = None) -> Arrays:
    """The embeddings minus their mean, without the directions of largest variance.

    Mu & Viswanath (ICLR 2018, arXiv:1702.01417). The isotropy I(W) of that paper rises; IsoScore
    may fall, because the removed directions count as dimensions without variance.

    We project the centred vector. A widely copied implementation projects x itself, which adds the
    same constant vector to every row and so undoes the centring along the removed directions.

    Args:
        rows: the embeddings.
        components: how many directions; default max(1, round(d / 100)), the paper's rule of thumb.

    Raises:
        ValueError: as many components as dimensions, or as the rank n - 1 of the centred rows.
    """
    n, d = rows.shape
    chosen = max(1, round(d / 100)) if components is None else components
    count = whole("components", chosen, min(d - 1, n - 2), f"{n} rows in d = {d}")
    mean = rows.mean(0)
    axes = principal_axes(rows - mean, count)
    return {"mean": mean, "matrix": np.eye(d) - axes.T @ axes}


@repair(affine)
def whitening(
    rows: np.ndarray,
    *,
    kind: str = "pca",
    components: int | None = None,
    shrinkage: float | str | None = None,
) -> Arrays:
    """The embeddings made uncorrelated, of variance one: (x - mean) U_k S_k^(-1/2), cov = U S U^T.

    BERT-whitening (Su et al. 2021, arXiv:2103.15316), its code: covariance over n - 1, no L2 norm
    (which in a model is the Normalize module that follows). The sign of each direction is fixed as
    in scikit-learn's PCA. ZCA turns back by U_k^T: of all whitenings it changes the rows least
    (Kessy et al. 2018, arXiv:1512.00809).

    Args:
        rows: the embeddings.
        kind: "pca", or "zca", which keeps d dimensions (of rank k).
        components: k, how many directions of largest variance are kept; default all d.
        shrinkage: pull the covariance towards the identity of the same trace by this share, in
            (0, 1], or by "ledoit-wolf"'s estimate; default not at all.

    Raises:
        ValueError: the covariance has a smaller rank than ``components``; impossible options.
        LookupError: an unknown kind.
    """
    n, d = rows.shape
    if kind not in KINDS:
        raise LookupError(unknown("kind of whitening", kind, KINDS))
    count = d if components is None else whole("components", components, d, f"d = {d}")
    mean = rows.mean(0)
    values, axes = np.linalg.eigh(_covariance(rows - mean, shrinkage))
    values, axes = values[::-1], axes[:, ::-1]
    rank = int((values > values[0] * d * np.finfo(float).eps).sum())
    if count > rank:
        raise ValueError(
            f"whitening to {count} dimensions divides by {count} variances, but the covariance of "
            f"{n} rows in d = {d} has rank {rank}: give components <= {rank}, a shrinkage "
            "('ledoit-wolf' or a number in (0, 1]), or more rows"
        )
    largest = np.abs(axes).argmax(0)
    axes = (axes * np.sign(axes[largest, np.arange(d)]))[:, :count]
    matrix = axes / np.sqrt(values[:count])
    return {"mean": mean, "matrix": matrix @ axes.T if kind == "zca" else matrix}


@repair(affine)
def rogue_dimension_removal(rows: np.ndarray, *, drop: int = 3) -> Arrays:
    """The embeddings with zeros in the dimensions that contribute most to the average cosine.

    Timkey & van Schijndel (arXiv:2109.04404): one to three rogue dimensions often dominate.
    ``arrays_["dropped"]`` says which, the largest first.

    Args:
        rows: the embeddings.
        drop: how many dimensions.

    Raises:
        ValueError: as many as there are; a zero vector.
    """
    d = rows.shape[1]
    count = whole("drop", drop, d - 1, f"d = {d}")
    shares = contributions(Directions.of(torch.from_numpy(rows)))
    dropped = np.argsort(-shares, kind="stable")[:count]
    kept = np.ones(d)
    kept[dropped] = 0
    return {"mean": np.zeros(d), "matrix": np.diag(kept), "dropped": dropped}


def principal_axes(centred: np.ndarray, count: int) -> np.ndarray:
    """(count, d) orthonormal directions of largest variance of rows whose mean is zero.

    Raises:
        ValueError: the rows vary in fewer directions than that.
    """
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if len(centred) > centred.shape[1] else "full"
    rank = np.linalg.matrix_rank(centred)
    if rank < count:
        raise ValueError(
            f"{count} directions are to be removed, but the {len(centred)} rows vary in {rank} "
            "only; remove fewer, or drop repeated rows"
        )
    return PCA(count, svd_solver=solver).fit(centred).components_


def _covariance(centred: np.ndarray, shrinkage: float | str | None) -> np.ndarray:
    """The covariance over n - 1, shrunk towards the identity of the same trace."""
    from sklearn.covariance import ledoit_wolf_shrinkage, shrunk_covariance

    covariance = centred.T @ centred / (len(centred) - 1)
    if shrinkage is None:
        return covariance
    if shrinkage == "ledoit-wolf":
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    if isinstance(shrinkage, bool) or not isinstance(shrinkage, Real) or not 0 < shrinkage <= 1:
        raise ValueError(
            f"shrinkage is None, 'ledoit-wolf' or a number in (0, 1]; got {shrinkage!r}"
        )
    return shrunk_covariance(covariance, float(shrinkage))
