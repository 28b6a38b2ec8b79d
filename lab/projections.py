"""Projections of embeddings to two or three dimensions, with how far each can be trusted.

To add one, write ``(rows, dimensions, seed) -> coordinates`` and decorate it with ``@PROJECTIONS``.
"""

import warnings
from collections.abc import Callable, Mapping
from itertools import combinations
from threading import Lock

import numpy as np
import pandas as pd

from lab.registry import Registry

PROJECTIONS: Registry[Callable[[np.ndarray, int, int], np.ndarray]] = Registry("projection")

NEIGHBOURS = 15
PERPLEXITY = 30
CHUNK = 20_000_000  # distances in memory at once: 160 MB
_ALONE = Lock()  # not every threading layer of numba bears two callers


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
    with _ALONE, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value")
        warnings.filterwarnings("ignore", "Tensorflow", ImportWarning)  # its parametric kind
        from umap import UMAP

        return UMAP(
            n_neighbors=min(NEIGHBOURS, len(rows) - 1), n_components=dimensions, metric="cosine",
            random_state=seed,
        ).fit_transform(rows)  # fmt: skip


@PROJECTIONS
def tsne(rows: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """t-SNE by cosine (van der Maaten & Hinton 2008), begun from the principal components.

    About nine times as slow as UMAP at 10 000 rows; one thread, as above.
    """
    from sklearn.manifold import TSNE

    return TSNE(
        dimensions, perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), metric="cosine", init="pca",
        random_state=seed, n_jobs=1,
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

    The trustworthiness of :func:`faithfulness` over all rows.
    """
    return float(faithfulness(rows, coordinates, neighbours=neighbours)["value"].iloc[0])


def faithfulness(
    rows: np.ndarray,
    coordinates: pd.DataFrame,
    *,
    neighbours: int = 10,
    most: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Trustworthiness and continuity of a map of rows (n, d): value, low, high, n, of.

    1 - 2 / (k (2n - 3k - 1)) * the mean over points of the sum of (rank - k) over false neighbours
    (Venna & Kaski 2001): trustworthiness over those on the map that are none in the space,
    continuity over those in the space that are none on the map. In the space by cosine. Between
    equal distances, what counts is how many are smaller.

    Both are means over points, so ``most`` of them, drawn by ``seed``, estimate the value over all
    n without bias: every drawn point is ranked against all others, in chunks, and no n x n array
    is made. ``low`` and ``high``: 95 %, normal, of the mean over points, taken as independent;
    they leave out that another seed gives another map (see :func:`stability`).

    Raises:
        ValueError: not more than 2 k rows, a zero vector, fewer than two points to draw, or rows
            and coordinates of different counts.
    """
    n, k = len(rows), neighbours
    if len(coordinates) != n:
        raise ValueError(f"a map of {len(coordinates)} points is not one of {n} rows")
    if not 1 <= k < n / 2:
        raise ValueError(
            f"trust over {k} neighbours needs more than {2 * k} rows, and 1 neighbour or more; "
            f"got {n} rows"
        )
    if not rows.any(axis=1).all():
        raise ValueError("trust by cosine needs rows with a direction; one is a zero vector")
    if most is not None and most < 2:
        raise ValueError(f"an interval needs 2 points or more; got most={most}")
    drawn = np.arange(n)
    if most is not None and most < n:
        drawn = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    places = coordinates.to_numpy(float)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    false = np.empty((2, len(drawn)))
    size = max(1, CHUNK // n)
    for start in range(0, len(drawn), size):
        part = slice(start, start + size)
        false[:, part] = _false_neighbours(unit, places, drawn[part], k)
    scores = 1 - false * 2 / (k * (2 * n - 3 * k - 1))
    half = 1.96 * scores.std(axis=1, ddof=1) / np.sqrt(len(drawn))
    value = scores.mean(axis=1)
    return pd.DataFrame(
        {"metric": ["trustworthiness", "continuity"], "value": value, "low": value - half,
         "high": np.minimum(value + half, 1), "n": len(drawn), "of": n, "neighbours": k}
    )  # fmt: skip


def _false_neighbours(
    unit: np.ndarray, places: np.ndarray, drawn: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per drawn point the excess ranks of false neighbours, on the map and in the space."""
    from scipy.spatial.distance import cdist

    space, plane = -(unit[drawn] @ unit.T), cdist(places[drawn], places)
    for distances in (space, plane):
        distances[np.arange(len(drawn)), drawn] = np.inf  # nothing is its own neighbour
    return _excess(space, _nearest(plane, k)), _excess(plane, _nearest(space, k))


def _nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """The columns (m, k) of the k smallest of every row, in no order."""
    return np.argpartition(distances, k - 1, axis=1)[:, :k]


def _excess(distances: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(m,) sum over the chosen columns of how far their rank is above their count."""
    k = chosen.shape[1]
    each = np.take_along_axis(distances, chosen, axis=1)
    ranks = [1 + (distances < one[:, None]).sum(axis=1) for one in each.T]
    return np.maximum(np.array(ranks) - k, 0).sum(axis=0)


def align(moving: pd.DataFrame, fixed: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """The map ``moving`` shifted, turned and mirrored onto ``fixed``, at its size; and the rest.

    The disparity is 0 for maps of one shape and near 1 for unrelated ones: the share of the
    variance of ``fixed`` that no such move explains (scipy's ``procrustes``). The least-squares
    scale would shrink a map to a dot the less it agrees; here it keeps the spread of ``fixed``.

    Raises:
        ValueError: maps of different points or dimensions, or with all points at one place.
    """
    from scipy.linalg import orthogonal_procrustes

    if moving.shape != fixed.shape:
        raise ValueError(f"maps of shapes {moving.shape} and {fixed.shape} cannot be aligned")
    a, b = (one.to_numpy(float) for one in (moving, fixed))
    centre = b.mean(0)
    a, b = a - a.mean(0), b - centre
    sizes = np.linalg.norm(a), np.linalg.norm(b)
    if not all(sizes):
        raise ValueError("all points of a map lie at one place: it has no shape to align")
    turn, overlap = orthogonal_procrustes(a, b)
    aligned = a @ turn * (sizes[1] / sizes[0]) + centre
    left = 1 - (overlap / (sizes[0] * sizes[1])) ** 2
    return pd.DataFrame(aligned, columns=fixed.columns, index=moving.index), max(0.0, float(left))


def near(coordinates: pd.DataFrame, neighbours: int) -> np.ndarray:
    """The rows (n, k) nearest to every point of a map, itself left out, nearest first."""
    from scipy.spatial import KDTree

    places = coordinates.to_numpy(float)
    found = KDTree(places).query(places, neighbours + 1)[1]
    itself = found == np.arange(len(places))[:, None]
    itself[~itself.any(axis=1), -1] = True  # among more equal points than asked for
    return found[~itself].reshape(len(places), neighbours)


def stability(maps: Mapping[int, pd.DataFrame], neighbours: int = 10) -> pd.DataFrame:
    """Per pair of seeds: how far two maps of the same rows agree.

    ``jaccard``: mean over points of ``|A and B| / |A or B|`` of their k nearest on either map;
    ``by_chance``: about what unrelated maps would have; ``disparity``: that of :func:`align`.

    Raises:
        ValueError: fewer than two maps, or no more than 2 k points.
    """
    if len(maps) < 2:
        raise ValueError(f"agreement needs maps of two seeds or more; got {len(maps)}")
    n = len(next(iter(maps.values())))
    if n <= 2 * neighbours:
        raise ValueError(
            f"agreement over {neighbours} neighbours needs more than {2 * neighbours} points; "
            f"got {n}"
        )
    around = {seed: near(points, neighbours) for seed, points in maps.items()}
    expected = neighbours**2 / (n - 1)
    rows = []
    for one, other in combinations(maps, 2):
        shared = (around[one][:, :, None] == around[other][:, None, :]).any(2).sum(1)
        rows.append({
            "seed": one, "other": other, "jaccard": (shared / (2 * neighbours - shared)).mean(),
            "by_chance": expected / (2 * neighbours - expected),
            "disparity": align(maps[other], maps[one])[1], "n": n, "neighbours": neighbours,
        })  # fmt: skip
    return pd.DataFrame(rows)
