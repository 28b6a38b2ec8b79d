"""Cluster by cluster: what all-but-the-top does to the whole space, done to each region of it."""

import warnings

import numpy as np

from lab.repairs.affine import principal_axes
from lab.repairs.checks import whole
from lab.repairs.estimator import Arrays, repair


def remove_by_cluster(rows: np.ndarray, arrays: Arrays) -> np.ndarray:
    """Every row minus the mean of its cluster, without the top directions of that cluster."""
    nearest, _ = _members(rows, arrays["centroids"])
    removed = rows - arrays["means"][nearest]
    for cluster in np.unique(nearest):
        mine = nearest == cluster
        axes = arrays["axes"][cluster]
        removed[mine] -= (removed[mine] @ axes.T) @ axes
    return removed


@repair(remove_by_cluster)
def cluster_removal(
    rows: np.ndarray,
    *,
    clusters: int = 27,
    components: int = 12,
    dissolve: bool = False,
    seed: int = 0,
) -> Arrays:
    """The embeddings minus the mean of their cluster, without the top directions of that cluster.

    Rajaee & Pilehvar (ACL 2021, arXiv:2106.01183): 27 clusters and 12 directions on BERT's token
    states, then mean pooling. Here it acts on whatever rows it is given, and a new row belongs to
    the cluster of the nearest centroid; their code fits on the very states that it then evaluates.
    k-means is scikit-learn's (k-means++, best of 4 starts), theirs scipy's kmeans2 from rows drawn
    at random.

    Args:
        rows: the embeddings.
        clusters: how many.
        components: how many directions are removed from each.
        dissolve: let rows of clusters that are too small go to the nearest of the others, smallest
            cluster first, instead of refusing. k-means often gives an outlying text a cluster of
            its own. ``len(arrays_["centroids"])`` says how many are left.
        seed: of the starts of k-means.

    Raises:
        ValueError: more clusters than rows; as many components as dimensions; a cluster so small
            that nothing would be left of it (components + 2 rows are needed), unless dissolved.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n, d = rows.shape
    count = whole("clusters", clusters, n, f"{n} rows")
    top = whole("components", components, min(d - 1, n - 2), f"{n} rows in d = {d}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # duplicates: refused below, by size
        means = KMeans(count, n_init=4, random_state=seed).fit(rows).cluster_centers_
    label, sizes = _members(rows, means)
    while dissolve and len(means) > 1 and sizes.min() < top + 2:
        means = np.delete(means, sizes.argmin(), axis=0)
        label, sizes = _members(rows, means)
    if sizes.min() < top + 2:
        raise ValueError(
            f"cluster {int(sizes.argmin())} of {len(means)} has {sizes.min()} rows, but removing "
            f"{top} directions leaves something of {top + 2} rows or more: give dissolve=True, "
            f"fewer clusters, fewer components, or more rows than {n}"
        )
    parts = [rows[label == cluster] for cluster in range(len(means))]
    centres = np.stack([part.mean(0) for part in parts])
    axes = [principal_axes(part - centre, top) for part, centre in zip(parts, centres, strict=True)]
    return {"centroids": means, "means": centres, "axes": np.stack(axes)}


def _members(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the nearest centroid of every row, and how many rows each centroid has."""
    from sklearn.metrics import pairwise_distances_argmin

    label = pairwise_distances_argmin(rows, centroids)
    return label, np.bincount(label, minlength=len(centroids))
