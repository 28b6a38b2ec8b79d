"""Projections: against other routes, the same twice, and what cannot be mapped."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import procrustes
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from lab.projections import PROJECTIONS, align, faithfulness, near, project, stability, trust


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


def plane(rng, n):
    return pd.DataFrame(rng.standard_normal((n, 2)), columns=["x", "y"])


@pytest.mark.parametrize("neighbours", [1, 7, 20])
def test_trustworthiness_and_continuity_are_scikit_learns_both_ways(rng, neighbours):
    rows, places = rng.standard_normal((70, 9)), plane(rng, 70)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = faithfulness(rows, places, neighbours=neighbours).set_index("metric")["value"]
    there = trustworthiness(unit, places.to_numpy(), n_neighbors=neighbours)
    back = trustworthiness(places.to_numpy(), unit, n_neighbors=neighbours)
    assert found.to_list() == pytest.approx([there, back], abs=1e-12)


def test_a_few_points_estimate_the_trust_of_all_and_chunks_change_nothing(rng, monkeypatch):
    rows, places = rng.standard_normal((300, 5)), plane(rng, 300)
    exact = faithfulness(rows, places)
    monkeypatch.setattr("lab.projections.CHUNK", 700)
    assert faithfulness(rows, places).equals(exact)
    parts = [faithfulness(rows, places, most=60, seed=seed) for seed in range(40)]
    assert set(parts[0]["n"]) == {60} and set(parts[0]["of"]) == {300}
    inside = [(part["low"] <= exact["value"]) & (exact["value"] <= part["high"]) for part in parts]
    assert np.mean(inside) > 0.85
    assert np.mean([part["value"] for part in parts]) == pytest.approx(
        exact["value"].mean(), abs=0.01
    )


def test_align_undoes_shift_turn_mirror_and_scale_and_its_disparity_is_scipys(rng):
    fixed, angle = plane(rng, 30), 0.7
    turn = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])
    moved = pd.DataFrame(3 * fixed.to_numpy() @ turn + [5, -2], columns=["x", "y"])
    back, left = align(moved, fixed)
    assert np.allclose(back, fixed) and left == pytest.approx(0, abs=1e-12)
    other = plane(rng, 30)
    assert align(other, fixed)[1] == pytest.approx(procrustes(fixed, other)[2])


def test_seeds_agree_fully_on_one_map_and_by_chance_on_unrelated_ones(rng):
    one = plane(rng, 2000)
    turned = one.rename(columns={"x": "y", "y": "x"})[["x", "y"]]
    found = stability({0: one, 1: turned, 2: plane(rng, 2000)}).set_index(["seed", "other"])
    assert found.loc[(0, 1), "jaccard"] == 1 and found.loc[(0, 1), "disparity"] < 1e-9
    apart = found.loc[(0, 2)]
    assert apart["jaccard"] == pytest.approx(apart["by_chance"], abs=0.002)
    assert apart["disparity"] > 0.9


def test_a_point_is_not_its_own_neighbour_also_among_equal_points():
    places = pd.DataFrame({"x": [0.0] * 6 + [9.0], "y": 0.0})
    found = near(places, 3)
    assert not (found == np.arange(7)[:, None]).any()
    assert [len(set(row)) for row in found.tolist()] == [3] * 7


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: faithfulness(np.eye(9), pd.DataFrame(np.eye(9)), neighbours=5),
         "trust over 5 neighbours needs more than 10 rows"),
        (lambda: faithfulness(np.eye(9), pd.DataFrame(np.eye(8)), neighbours=2),
         "a map of 8 points is not one of 9 rows"),
        (lambda: faithfulness(np.eye(9), pd.DataFrame(np.eye(9)), neighbours=2, most=1),
         "needs 2 points or more; got most=1"),
        (lambda: align(pd.DataFrame(np.ones((4, 2))), pd.DataFrame(np.eye(4)[:, :2])),
         "all points of a map lie at one place"),
        (lambda: align(pd.DataFrame(np.eye(4)), pd.DataFrame(np.eye(3))), "cannot be aligned"),
        (lambda: stability({0: pd.DataFrame(np.eye(9))}), "two seeds or more; got 1"),
        (lambda: stability(dict.fromkeys((0, 1), pd.DataFrame(np.eye(9))), 5),
         "needs more than 10 points; got 9"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(refused, message):
    with pytest.raises(ValueError, match=message):
        refused()
