"""Projections: against other routes, the same twice, and what cannot be mapped."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from lab.projections import PROJECTIONS, project, trust


def test_pca_is_scikit_learns_and_keeps_distances_within_a_plane(rng):
    rows = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 9))
    found = project(rows, "pca", seed=0).to_numpy()
    between = np.linalg.norm(rows[:, None] - rows, axis=2)
    assert np.allclose(np.linalg.norm(found[:, None] - found, axis=2), between)
    assert np.allclose(np.abs(found), np.abs(PCA(2).fit_transform(rows)))


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_projection_is_the_same_twice_and_finds_two_groups(rng, name, dimensions):
    groups = (
        np.repeat([[0.0], [9.0]], 30, axis=0) * np.eye(2)[[0] * 30 + [1] * 30] @ np.ones((2, 8))
    )
    rows = rng.standard_normal((60, 8)) + groups
    rows[:30, 0] += 20
    found = project(rows, name, seed=3, dimensions=dimensions)
    assert list(found) == list("xyz"[:dimensions])
    assert found.equals(project(rows, name, seed=3, dimensions=dimensions))
    apart = np.linalg.norm(found[:30].mean() - found[30:].mean())
    assert apart > found[:30].std().max()


def test_trust_is_one_for_the_space_itself_and_about_a_half_for_noise(rng):
    angle = rng.uniform(0, 1, 100)
    rows = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(100)])
    itself = project(rows, "pca", seed=0)
    assert trust(rows, itself) == pytest.approx(1, abs=0.01)
    shuffled = itself.sample(frac=1, random_state=0)
    assert trust(rows, shuffled) < 0.7


@pytest.mark.parametrize(
    ("rows", "name", "dimensions", "error", "message"),
    [
        (np.eye(9), "pcs", 2, LookupError, "did you mean 'pca'"),
        (np.eye(9), "pca", 4, ValueError, "2 or 3 dimensions; got 4"),
        (np.eye(3), "pca", 2, ValueError, r"needs more than rows \(3, 3\)"),
        (np.ones((9, 3)), "pca", 2, ValueError, "all 9 rows are equal"),
    ],
)
def test_what_cannot_be_mapped_is_refused(rows, name, dimensions, error, message):
    with pytest.raises(error, match=message):
        project(rows, name, seed=0, dimensions=dimensions)


def test_trust_needs_enough_rows(rng):
    with pytest.raises(ValueError, match="needs more than 20 rows"):
        trust(rng.standard_normal((12, 4)), project(rng.standard_normal((12, 4)), "pca", seed=0))
