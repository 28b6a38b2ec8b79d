"""Repairs: published values, closed forms, scikit-learn and brute force as second routes."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.linalg import inv, sqrtm
from scipy.stats import multivariate_normal, norm, ortho_group, rankdata
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.utils import estimator_checks

from lab import models
from lab.anisotropy import contributions
from lab.anisotropy.moments import Directions
from lab.repairs import (
    REPAIRS,
    all_but_the_top,
    centring,
    cluster_removal,
    flow,
    flows,
    none,
    quantile,
    rank,
    restore,
    rogue_dimension_removal,
    store,
    whitening,
    z_score,
)
from lab.repairs.estimator import CHUNK
from lab.repairs.module import RepairModule, attach

# Options with which every repair fits some hundred rows in a second.
SMALL = {
    "cluster_removal": {"clusters": 3, "components": 2},
    "flow": {"transforms": 2, "hidden": 8, "epochs": 3},
    "whitening": {"components": 8},
}
TEXTS = ["A man is playing a guitar.", "x", "Two dogs run through deep snow, barking at a hare."]


def small(name):
    return REPAIRS[name](**SMALL.get(name, {}))


def draw(rng, n=3000, d=64, mean=3.0):
    """Correlated Gaussian rows away from the origin: core.md, check of the fixes."""
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + mean


def eigenvalues(X):
    return np.linalg.eigvalsh(np.cov(X.T))


def isoscore(X):
    """IsoScore by its published route: Rudman et al. (2022), algorithm 1."""
    d = X.shape[1]
    variances = PCA().fit(X).transform(X).var(0, ddof=1)
    normed = np.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normed - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    return ((d - defect**2 * (d - np.sqrt(d))) ** 2 - d) / (d * (d - 1))


def average_cosine(X):
    """By all pairs."""
    n = len(X)
    return (cosine_similarity(X).sum() - n) / (n * (n - 1))


# --- centring and z-score ----------------------------------------------------------------------


def test_centring_brings_the_average_cosine_to_minus_one_over_n_minus_one(rng):
    X = draw(rng, n=1000)
    assert average_cosine(X) > 0.05
    assert average_cosine(centring().fit_transform(X)) == pytest.approx(-1 / 999, rel=0.02)


def test_centring_pairs_of_opposite_rows_gives_that_value_exactly(rng):
    half = rng.normal(size=(50, 7))
    X = np.vstack([half, -half]) + 5
    assert average_cosine(centring().fit_transform(X)) == pytest.approx(-1 / 99, abs=1e-14)


def test_z_score_equals_the_standard_scaler(rng):
    X, Y = draw(rng), draw(rng)
    ours, theirs = z_score().fit(X), StandardScaler().fit(X)
    np.testing.assert_allclose(ours.transform(Y), theirs.transform(Y), atol=1e-12)


def shares(X):
    return contributions(Directions.of(torch.from_numpy(X)))


def test_z_scored_dimensions_contribute_next_to_nothing_to_the_average_cosine(rng):
    X = draw(rng)
    before, after = shares(X), shares(z_score().fit_transform(X))
    assert before.max() > 1e-3
    assert abs(after).max() < 1e-4
    assert after.sum() == pytest.approx(-1 / 2999, rel=0.05)


# --- all-but-the-top, rogue dimensions ---------------------------------------------------------


def test_all_but_the_top_removes_the_top_eigenvalues_and_keeps_the_others(rng):
    X = draw(rng)
    before = eigenvalues(X)
    after = eigenvalues(all_but_the_top(components=3).fit_transform(X))
    assert abs(after[:3]).max() < 1e-12
    np.testing.assert_allclose(after[3:], before[:-3], rtol=1e-9)


@pytest.mark.parametrize(("d", "expected"), [(64, 1), (150, 2), (260, 3)])
def test_all_but_the_top_removes_one_direction_a_hundred_dimensions(rng, d, expected):
    repair = all_but_the_top().fit(rng.normal(size=(60, d)))
    assert np.trace(repair.arrays_["matrix"]) == pytest.approx(d - expected)


@pytest.mark.parametrize("n", [300, 40], ids=["more rows", "fewer rows than dimensions"])
def test_all_but_the_top_equals_a_singular_value_decomposition(rng, n):
    X, Y = draw(rng, n=n), draw(rng, n=20)
    top = np.linalg.svd(X - X.mean(0))[2][:5]
    expected = Y - X.mean(0)
    for direction in top:
        expected = expected - np.outer(expected @ direction, direction)
    repaired = all_but_the_top(components=5).fit(X).transform(Y)
    np.testing.assert_allclose(repaired, expected, atol=1e-9)


def test_isoscore_mostly_falls_with_all_but_the_top_and_always_rises_with_z_scores(rng):
    """Over 300 draws: -0.010 on average with the top 3 removed, above 0 in six of them."""
    falls = []
    for _ in range(12):
        X = draw(rng)
        before, kept = isoscore(X), eigenvalues(X)[:-3]
        after = isoscore(all_but_the_top(components=3).fit_transform(X))
        ratio = kept.sum() ** 2 / (kept**2).sum()  # the participation ratio of what is left
        assert after == pytest.approx((ratio - 1) / 63, abs=1e-12)
        falls.append(after - before)
        assert 0.002 < isoscore(z_score().fit_transform(X)) - before < 0.016
    assert -0.017 < np.median(falls) < -0.003
    assert np.mean(np.array(falls) < 0) > 0.8


def test_rogue_dimensions_are_found_by_name_and_zeroed(rng):
    X = rng.normal(size=(500, 30))
    X[:, [4, 17]] += [30, -50]
    repair = rogue_dimension_removal(drop=2).fit(X)
    repaired = repair.transform(X)
    assert repair.arrays_["dropped"].tolist() == [17, 4]
    assert not repaired[:, [4, 17]].any()
    kept = np.delete(np.arange(30), [4, 17])
    assert np.array_equal(repaired[:, kept], X[:, kept])
    assert average_cosine(X) > 0.9 > 0.01 > abs(average_cosine(repaired))
    assert np.array_equal(repair.transform(repaired), repaired)


# --- whitening ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_whitened_rows_have_the_identity_covariance_and_isoscore_one(rng, kind):
    Y = whitening(kind=kind).fit_transform(draw(rng))
    assert abs(np.cov(Y.T) - np.eye(64)).max() < 1e-9
    assert abs(isoscore(Y) - 1) < 1e-12


@pytest.mark.parametrize("k", [64, 10])
def test_whitening_equals_scikit_learns(rng, k):
    X, Y = draw(rng), draw(rng, n=50)
    theirs = PCA(k, whiten=True, svd_solver="full").fit(X)
    ours = whitening(components=k).fit(X)
    np.testing.assert_allclose(ours.transform(Y), theirs.transform(Y), atol=1e-8)


def test_whitening_equals_the_published_code_up_to_the_sign_of_each_direction(rng):
    X = draw(rng)
    u, s, _ = np.linalg.svd(np.cov(X.T))  # bojone/BERT-whitening, compute_kernel_bias
    theirs = (X - X.mean(0)) @ (u @ np.diag(1 / np.sqrt(s)))[:, :20]
    ours = whitening(components=20).fit_transform(X)
    np.testing.assert_allclose(abs(ours), abs(theirs), atol=1e-8)


def test_zca_is_the_inverse_square_root_of_the_covariance(rng):
    X = draw(rng)
    matrix = whitening(kind="zca").fit(X).arrays_["matrix"]
    np.testing.assert_allclose(matrix, inv(sqrtm(np.cov(X.T))), atol=1e-7)


def test_ledoit_wolf_whitening_inverts_scikit_learns_covariance(rng):
    X = draw(rng, n=50)  # fewer rows than dimensions
    covariance = LedoitWolf().fit(X).covariance_ * 50 / 49
    matrix = whitening(shrinkage="ledoit-wolf").fit(X).arrays_["matrix"]
    np.testing.assert_allclose(matrix.T @ covariance @ matrix, np.eye(64), atol=1e-9)


def test_full_shrinkage_only_turns_and_scales(rng):
    X = draw(rng)
    Y = whitening(shrinkage=1.0).fit_transform(X)
    scale = np.sqrt(np.trace(np.cov(X.T)) / 64)
    np.testing.assert_allclose(Y @ Y.T, (X - X.mean(0)) @ (X - X.mean(0)).T / scale**2, atol=1e-9)


def test_whitening_says_what_to_do_where_the_covariance_has_too_small_a_rank(rng):
    X = draw(rng, n=40)
    with pytest.raises(ValueError, match=r"d = 64 has rank 39: give components <= 39, a shrink"):
        whitening().fit(X)
    Y = whitening(components=39).fit_transform(X)
    np.testing.assert_allclose(np.cov(Y.T), np.eye(39), atol=1e-9)
    twice = np.hstack([draw(rng, d=5)] * 2)
    with pytest.raises(ValueError, match="has rank 5"):
        whitening().fit(twice)


# --- clusters ----------------------------------------------------------------------------------


def blobs(rng, n=900, d=12):
    """Three clouds far apart, each with its own covariance."""
    far = 100 * np.eye(3, d)
    return np.vstack([draw(rng, n=n // 3, d=d, mean=0) + centre for centre in far])


def test_every_cluster_loses_its_top_eigenvalues_and_its_mean(rng):
    X = blobs(rng)
    Y = cluster_removal(clusters=3, components=4).fit_transform(X)
    for rows in np.split(np.arange(900), 3):
        after, before = eigenvalues(Y[rows]), eigenvalues(X[rows])
        assert abs(after[:4]).max() < 1e-10
        np.testing.assert_allclose(after[4:], before[:-4], rtol=1e-8)
        np.testing.assert_allclose(Y[rows].mean(0), 0, atol=1e-10)


def test_a_new_row_belongs_to_the_nearest_centroid(rng):
    X, Y = blobs(rng), blobs(rng)
    repair = cluster_removal(clusters=3, components=4).fit(X)
    parts = [
        all_but_the_top(components=4).fit(X[rows]).transform(Y[rows])
        for rows in np.split(np.arange(900), 3)
    ]
    np.testing.assert_allclose(repair.transform(Y), np.vstack(parts), atol=1e-9)


def test_one_cluster_is_all_but_the_top(rng):
    X = draw(rng)
    one = cluster_removal(clusters=1, components=3).fit_transform(X)
    np.testing.assert_allclose(one, all_but_the_top(components=3).fit_transform(X), atol=1e-9)


def test_a_cluster_of_which_nothing_would_be_left_is_refused(rng):
    with pytest.raises(ValueError, match=r"has \d+ rows.*dissolve=True, fewer clusters"):
        cluster_removal(clusters=27, components=12).fit(draw(rng, n=200))
    near, far = rng.normal(size=(30, 6)), rng.normal(size=(6, 6)) + 100
    assert cluster_removal(clusters=2, components=4).fit_transform(np.vstack([near, far])).any()
    with pytest.raises(ValueError, match=r"has 5 rows, but removing 4 .* of 6 rows or more"):
        cluster_removal(clusters=2, components=4).fit(np.vstack([near, far[:5]]))
    same = np.repeat(rng.normal(size=(2, 8)), 20, axis=0)  # two distinct rows, three clusters
    with pytest.raises(ValueError, match=r"cluster \d of 3 has 0 rows"):
        cluster_removal(clusters=3, components=1).fit(same)


def test_rows_of_a_dissolved_cluster_go_to_the_nearest_of_the_others(rng):
    outlier = np.eye(1, 12) * 400
    X = np.vstack([blobs(rng), outlier])
    with pytest.raises(ValueError, match="has 1 rows"):
        cluster_removal(clusters=4, components=4).fit(X)
    repair = cluster_removal(clusters=4, components=4, dissolve=True).fit(X)
    assert len(repair.arrays_["centroids"]) == 3
    first = np.vstack([X[:300], outlier])
    expected = all_but_the_top(components=4).fit_transform(first)
    np.testing.assert_allclose(repair.transform(first), expected, atol=1e-8)


# --- quantiles and ranks -----------------------------------------------------------------------


def test_quantile_equals_scikit_learns_and_is_normal_dimension_by_dimension(rng):
    X, Y = np.exp(draw(rng, n=500, d=5) / 5), np.exp(draw(rng, n=100, d=5) / 5)
    theirs = QuantileTransformer(n_quantiles=500, output_distribution="normal").fit(X)
    ours = quantile().fit(X)
    np.testing.assert_allclose(ours.transform(Y), theirs.transform(Y), atol=1e-5)
    expected = norm.ppf(np.linspace(0, 1, 500)[1:-1])
    for column in np.sort(ours.transform(X), axis=0).T:
        np.testing.assert_allclose(column[1:-1], expected, atol=1e-9)


def test_rank_equals_scipys_mean_ranks_on_the_sample(rng):
    X = rng.integers(0, 9, size=(60, 4)).astype(float)  # with ties
    expected = 2 * (rankdata(X, axis=0) - 0.5) / 60 - 1
    np.testing.assert_allclose(rank().fit_transform(X), expected, atol=1e-14)


def test_rank_of_a_new_row_counts_the_sample_below_and_above(rng):
    X, Y = rng.normal(size=(60, 4)), rng.normal(size=(30, 4))
    below = (X[None] < Y[:, None]).mean(1)
    counted = below - (X[None] > Y[:, None]).mean(1)
    np.testing.assert_allclose(rank().fit(X).transform(Y), counted, atol=1e-14)


def test_a_monotone_map_of_every_dimension_changes_no_rank(rng):
    X, Y = rng.normal(size=(60, 4)), rng.normal(size=(30, 4))
    assert np.array_equal(rank().fit(np.exp(X)).transform(np.exp(Y)), rank().fit(X).transform(Y))


# --- flow --------------------------------------------------------------------------------------


def banana(rng, n):
    first = rng.normal(size=n)
    return np.column_stack([5 + first, 2 * (first**2 + 0.3 * rng.normal(size=n))])


@pytest.fixture(scope="module")
def bent():
    """A flow fitted on a banana."""
    return flow(transforms=6, hidden=32, epochs=60).fit(banana(np.random.default_rng(1), 2000))


def test_a_flow_is_invertible(rng, bent):
    X = banana(rng, 200)
    latent = bent.transform(X)
    np.testing.assert_allclose(flows.from_gaussian(latent, bent.arrays_), X, atol=1e-9)


def test_the_likelihood_of_a_flow_has_the_jacobian_that_autograd_finds(rng):
    X = draw(rng, n=400, d=5)
    arrays = flow(transforms=4, hidden=16, epochs=10).fit(X).arrays_
    network = flows._rebuilt(arrays)
    for row in X[:5]:
        point = flows._scaled(row[None], arrays)[0]
        jacobian = torch.autograd.functional.jacobian(network().transform, point).numpy()
        jacobian = jacobian / arrays["scale"]
        latent = flows.to_gaussian(row[None], arrays)[0]
        expected = norm.logpdf(latent).sum() + np.linalg.slogdet(jacobian)[1]
        assert flows.log_likelihood(row[None], arrays)[0] == pytest.approx(expected, abs=1e-9)


def test_the_density_of_a_flow_integrates_to_one(bent):
    first, second = np.linspace(-1, 11, 300), np.linspace(-8, 60, 700)
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    cell = (first[1] - first[0]) * (second[1] - second[0])
    density = np.exp(flows.log_likelihood(grid, bent.arrays_))
    assert density.sum() * cell == pytest.approx(1, abs=0.01)


def test_a_flow_fits_a_banana_better_than_a_gaussian_does(rng, bent):
    X, new = banana(np.random.default_rng(1), 2000), banana(rng, 1000)
    gaussian = multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(new).mean()
    truth = (
        norm.logpdf(new[:, 0], 5).mean()
        + norm.logpdf(new[:, 1], 2 * (new[:, 0] - 5) ** 2, 0.6).mean()
    )
    reached = flows.log_likelihood(new, bent.arrays_).mean()
    assert gaussian + 0.5 < reached < truth + 0.01
    latent = bent.transform(new)
    assert abs(np.cov(latent.T) - np.eye(2)).max() < 0.3
    assert abs(spearman_of_squares(latent)) < 0.2 < 0.8 < abs(spearman_of_squares(new - [5, 0]))


def spearman_of_squares(X):
    return np.corrcoef(rankdata(X[:, 0] ** 2), rankdata(X[:, 1]))[0, 1]


def test_an_untrained_flow_is_a_z_score_of_the_rows_it_would_train_on(rng):
    X = draw(rng, n=100, d=6)
    repair = flow(epochs=0).fit(X)
    expected = (X - repair.arrays_["mean"]) / repair.arrays_["scale"]
    np.testing.assert_allclose(repair.transform(X), expected, atol=1e-12)
    assert len(repair.arrays_["held_out"]) == 1


def test_a_flow_keeps_its_best_epoch_and_stops_when_patience_is_over(rng):
    X = rng.normal(size=(60, 8))  # too few rows to learn anything from
    repair = flow(epochs=500, patience=3, learning_rate=1e-2).fit(X)
    history = repair.arrays_["held_out"]
    assert len(history) == history.argmax() + 4
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).numpy()
    held = flows.log_likelihood(X[order[:6]], repair.arrays_).mean()
    assert held + np.log(repair.arrays_["scale"]).sum() == pytest.approx(history.max(), abs=1e-12)


def test_a_flow_depends_on_rows_and_seed_alone_and_leaves_torchs_generator(rng):
    X = draw(rng, n=100, d=6)
    settings = {"transforms": 3, "hidden": 8, "epochs": 3}
    first = flow(**settings).fit(X).transform(X)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert np.array_equal(flow(**settings).fit(X).transform(X), first)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert np.array_equal(flow(**settings).fit(X).transform(X), first)
    assert not np.array_equal(flow(**settings, seed=1).fit(X).transform(X), first)


def test_a_flow_that_diverges_says_so(rng):
    with pytest.raises(FloatingPointError, match=r"diverged in epoch \d+; lower learning_rate"):
        flow(learning_rate=1e6, epochs=20).fit(draw(rng, n=200, d=6))


# --- laws of all repairs -----------------------------------------------------------------------

ROTATE = ["none", "centring", "all_but_the_top", "zca", "cluster_removal"]


@pytest.mark.parametrize("name", ROTATE)
def test_repairs_without_axes_of_their_own_commute_with_rotation(rng, name):
    X, Y = blobs(rng), blobs(rng)
    Q = ortho_group.rvs(12, random_state=1)
    options = {"clusters": 3, "components": 2} if name == "cluster_removal" else {}
    repair = whitening(kind="zca") if name == "zca" else REPAIRS[name](**options)
    straight = repair.fit(X).transform(Y) @ Q
    np.testing.assert_allclose(repair.fit(X @ Q).transform(Y @ Q), straight, atol=1e-7)


def test_whitening_rotates_to_the_same_inner_products(rng):
    X, Y = draw(rng), draw(rng, n=30)
    Q = ortho_group.rvs(64, random_state=1)
    straight, turned = whitening().fit(X).transform(Y), whitening().fit(X @ Q).transform(Y @ Q)
    np.testing.assert_allclose(turned @ turned.T, straight @ straight.T, atol=1e-7)


@pytest.mark.parametrize("name", ["z_score", "rogue_dimension_removal", "quantile", "rank"])
def test_repairs_by_dimension_do_not_commute_with_rotation(rng, name):
    X = draw(rng, d=12)
    Q = ortho_group.rvs(12, random_state=1)
    straight = REPAIRS[name]().fit_transform(X) @ Q
    assert abs(REPAIRS[name]().fit_transform(X @ Q) - straight).max() > 0.1


@pytest.mark.parametrize("name", ["z_score", "quantile", "rank", "flow"])
def test_the_scale_of_a_dimension_does_not_matter_where_each_is_scaled_alone(rng, name):
    X, Y = draw(rng, n=300, d=5), draw(rng, n=50, d=5)
    scale = np.array([1, 1e-32, 1e3, 1e-9, 7])  # all-MiniLM-L6-v2 has dimensions that small
    straight = small(name).fit(X).transform(Y)
    np.testing.assert_allclose(small(name).fit(X * scale).transform(Y * scale), straight, atol=1e-6)


@pytest.mark.parametrize("make", [none, centring, z_score, rank, lambda: whitening(kind="zca")])
def test_repairing_what_is_repaired_changes_nothing(rng, make):
    once = make().fit_transform(draw(rng))
    np.testing.assert_allclose(make().fit_transform(once), once, atol=1e-9)


def test_none_changes_no_bit(rng):
    X = draw(rng).astype(np.float32)
    assert np.array_equal(none().fit_transform(X), X)


@pytest.mark.parametrize("name", REPAIRS)
class TestEveryRepair:
    def test_float32_comes_out_as_float32_of_the_float64_result(self, rng, name):
        X = draw(rng, n=300, d=16).astype(np.float32)
        single, double = small(name).fit(X), small(name).fit(X.astype(np.float64))
        assert single.transform(X).dtype == np.float32
        assert np.array_equal(
            single.transform(X), double.transform(X.astype(np.float64)).astype(np.float32)
        )

    def test_input_and_fitted_arrays_are_left_untouched(self, rng, name):
        X = draw(rng, n=300, d=16)
        before = X.copy()
        repair = small(name).fit(X)
        arrays = {key: value.copy() for key, value in repair.arrays_.items()}
        repair.transform(X)
        assert np.array_equal(X, before)
        assert all(np.array_equal(repair.arrays_[key], arrays[key]) for key in arrays)

    def test_a_row_is_repaired_alone_as_among_others(self, rng, name):
        X = draw(rng, n=300, d=16)
        repair = small(name).fit(X)
        alone = np.vstack([repair.transform(row[None]) for row in X[:20]])
        np.testing.assert_allclose(alone, repair.transform(X)[:20], atol=1e-10)

    def test_it_is_stored_as_json_and_arrays(self, rng, name):
        X = draw(rng, n=300, d=16)
        repair = small(name).fit(X, split="dev")
        facts, arrays = store(repair)
        again = restore(json.loads(json.dumps(facts)), arrays)
        assert np.array_equal(again.transform(X), repair.transform(X))
        assert again.get_params() == repair.get_params()
        assert again.fitted_on_ == repair.fitted_on_
        assert again.fitted_on_.split == "dev"

    def test_it_is_a_scikit_learn_transformer(self, rng, name):
        X = draw(rng, n=300, d=16)
        repair = small(name)
        with pytest.raises(NotFittedError):
            repair.transform(X)
        fitted = clone(repair).fit(X)
        assert not hasattr(repair, "arrays_")
        assert np.array_equal(repair.fit_transform(X), fitted.transform(X))
        assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(X), fitted.transform(X))
        pipeline = make_pipeline(small(name), LogisticRegression()).fit(X, X[:, 0] > 3)
        assert pipeline.predict(X).shape == (300,)
        pipeline.fit(X, X[:, 0] > 3, **{f"{name}__split": "dev"})
        assert pipeline[0].fitted_on_.split == "dev"
        estimator_checks.check_get_params_invariance(name, small(name))
        estimator_checks.check_set_params(name, small(name))
        estimator_checks.check_parameters_default_constructible(name, small(name))
        estimator_checks.check_no_attributes_set_in_init(name, small(name))

    def test_the_test_split_is_refused_unless_asked_for_by_name(self, rng, name):
        X = draw(rng, n=300, d=16)
        with pytest.raises(ValueError, match=r"has seen what it is judged on.*transductive=True"):
            small(name).fit(X, split="test")
        with pytest.raises(LookupError, match=r"no split named 'tran'.*did you mean 'train'"):
            small(name).fit(X, split="tran")
        assert small(name).fit(X).fitted_on_.split == "train"
        assert small(name).fit(X, split="test", transductive=True).fitted_on_.split == "test"

    def test_bad_rows_are_refused(self, rng, name):
        X = draw(rng, n=300, d=16)
        repair = small(name).fit(X)
        bad = X.copy()
        bad[7, 3] = np.nan
        bad[9, 3] = -np.inf
        for method in (small(name).fit, repair.transform):
            with pytest.raises(ValueError, match=r"row 7 of 300 is not finite \(2 such\)"):
                method(bad)
            with pytest.raises(TypeError, match=r"float32 or float64; got int64"):
                method(X.astype(int))
            with pytest.raises(TypeError, match=r"got float16.*astype\(np.float32\)"):
                method(X.astype(np.float16))
            with pytest.raises(ValueError, match=r"got shape \(16,\)"):
                method(X[0])
            with pytest.raises(ValueError, match=r"got shape \(0, 16\)"):
                method(X[:0])
        with pytest.raises(ValueError, match=r"fitted on d = 16 dimensions; got d = 15"):
            repair.transform(X[:, 1:])
        with pytest.raises(ValueError, match="two rows or more; got 1"):
            small(name).fit(X[:1])


@pytest.mark.parametrize("name", ["z_score", "quantile", "rank", "flow"])
def test_a_constant_dimension_is_refused_by_number(rng, name):
    X = draw(rng, n=300, d=16)
    X[:, 5] = 2.5
    with pytest.raises(ValueError, match=r"dimension 5 has the value 2.5 in all \d+ rows \(1 such"):
        small(name).fit(X)


def test_directions_that_rows_do_not_vary_in_are_not_removed(rng):
    with pytest.raises(ValueError, match="the 50 rows vary in 0 only"):
        all_but_the_top().fit(np.full((50, 4), 0.1, dtype=np.float32))
    with pytest.raises(ValueError, match=r"2 directions are to be removed.* vary in 1 only"):
        all_but_the_top(components=2).fit(np.outer(rng.standard_normal(30), np.ones(5)))


def test_a_dimension_that_is_constant_up_to_rounding_is_refused(rng):
    X = draw(rng, n=50, d=4)
    X[:, 2] = 0.1
    X[7, 2] += 2e-17
    with pytest.raises(ValueError, match=r"dimension 2 has the value 0\.1"):
        z_score().fit(X)


def test_a_zero_vector_is_refused_only_where_a_norm_is_needed(rng):
    X = draw(rng, n=300, d=16)
    X[[8, 11]] = 0
    with pytest.raises(ValueError, match="2 of 300 rows are zero vectors"):
        rogue_dimension_removal().fit(X)
    assert z_score().fit(X).transform(X).shape == X.shape


@pytest.mark.parametrize(
    ("repair", "message"),
    [
        (all_but_the_top(components=16), "components is a whole number from 1 to 15 with"),
        (all_but_the_top(components=2.0), "got 2.0"),
        (all_but_the_top(components=True), "got True"),
        (whitening(components=17), "from 1 to 16 with d = 16; got 17"),
        (whitening(components=0), "got 0"),
        (whitening(shrinkage=0), "a number in"),
        (whitening(shrinkage="oracle"), "'ledoit-wolf' or a number in"),
        (rogue_dimension_removal(drop=16), "drop is a whole number from 1 to 15"),
        (cluster_removal(clusters=301), "clusters is a whole number from 1 to 300"),
        (cluster_removal(components=16), "components is a whole number from 1 to 15"),
        (quantile(quantiles=301), "quantiles is a whole number from 2 to 300 with 300 rows"),
        (flow(hidden=0), "hidden is a whole number from 1"),
        (flow(learning_rate=-1.0), "learning_rate is a positive number"),
    ],
    ids=repr,
)
def test_an_impossible_option_is_refused_with_what_is_possible(rng, repair, message):
    with pytest.raises(ValueError, match=message):
        repair.fit(draw(rng, n=300, d=16))


def test_an_unknown_kind_or_option_is_refused(rng):
    with pytest.raises(LookupError, match="did you mean 'zca'"):
        whitening(kind="zac").fit(draw(rng, n=300, d=16))
    with pytest.raises(TypeError, match="component"):
        whitening(component=3)


def test_too_few_rows_or_dimensions_are_refused(rng):
    one = rng.normal(size=(30, 1))
    for repair in (all_but_the_top(), rogue_dimension_removal(), flow(), cluster_removal()):
        with pytest.raises(ValueError, match="d = 1"):
            repair.fit(one)
    with pytest.raises(ValueError, match="20 rows or more with d >= 2; got 19"):
        flow().fit(rng.normal(size=(19, 4)))
    with pytest.raises(ValueError, match="components has no possible value with 2 rows in d = 4"):
        all_but_the_top().fit(rng.normal(size=(2, 4)))
    with pytest.raises(ValueError, match="has rank 0"):
        whitening().fit(np.ones((30, 4)))


def test_what_it_was_fitted_on_is_recorded(rng):
    X = draw(rng, n=300, d=16)
    seen = centring().fit(X, split="dev").fitted_on_
    assert (seen.split, seen.n, seen.d, seen.unit_norm) == ("dev", 300, 16, False)
    assert centring().fit(np.asfortranarray(X)).fitted_on_.sha256 == seen.sha256
    assert centring().fit(X[::-1]).fitted_on_.sha256 != seen.sha256
    assert centring().fit(X / np.linalg.norm(X, axis=1, keepdims=True)).fitted_on_.unit_norm


def test_more_rows_than_a_chunk_are_repaired_like_few(rng):
    X = rng.normal(size=(CHUNK + 5, 3))
    repair = cluster_removal(clusters=2, components=1).fit(X)
    np.testing.assert_allclose(repair.transform(X)[-9:], repair.transform(X[-9:]), atol=1e-12)


def test_affine_repairs_need_neither_a_flow_nor_transformers():
    code = (
        "import sys, numpy as np\n"
        "from lab.repairs import whitening\n"
        "whitening().fit_transform(np.random.default_rng(0).normal(size=(30, 4)))\n"
        "print([n for n in ('zuko', 'transformers') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- inside a model ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama", device="cpu")


@pytest.fixture(scope="module")
def fitted():
    """Every repair, fitted on rows of the width of the tiny models."""
    X = draw(np.random.default_rng(3), n=200, mean=0.2)
    return {name: small(name).fit(X) for name in REPAIRS}


RELOAD = """
import json, sys
from pathlib import Path
import numpy as np
from sentence_transformers import SentenceTransformer
from lab import models
root, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
for folder in sorted(root.iterdir()):
    stock = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    ours = models.load(folder, device="cpu")
    assert ours[2].repair_name.split("(")[0] == folder.name
    np.save(folder / "stock.npy", stock.encode(texts))
    np.save(folder / "ours.npy", ours.encode(texts))
"""


def test_saved_with_any_repair_a_model_gives_the_same_vectors_in_a_fresh_process(
    tmp_path, llama, fitted
):
    expected, plain = {}, llama.encode(TEXTS)
    for name, repair in fitted.items():
        model = attach(llama, repair)
        assert isinstance(model, SentenceTransformer)
        expected[name] = model.encode(TEXTS)
        np.testing.assert_allclose(expected[name], repair.transform(plain), atol=1e-6)
        assert model.get_embedding_dimension() == repair.n_features_out_ == expected[name].shape[1]
        model.save_pretrained(str(tmp_path / name))
    assert np.array_equal(llama.encode(TEXTS), plain)
    assert {file.suffix for file in tmp_path.rglob("2_RepairModule/*")} == {".json", ".safetensors"}
    run = subprocess.run(
        [sys.executable, "-c", RELOAD, str(tmp_path), json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for name, vectors in expected.items():
        assert np.array_equal(np.load(tmp_path / name / "stock.npy"), vectors), name
        assert np.array_equal(np.load(tmp_path / name / "ours.npy"), vectors), name


def test_a_reloaded_repair_keeps_its_options_and_what_it_was_fitted_on(tmp_path, llama, fitted):
    attach(llama, fitted["whitening"]).save_pretrained(str(tmp_path / "model"))
    again = models.load(tmp_path / "model")[2].repair
    assert again.get_params() == fitted["whitening"].get_params()
    assert again.fitted_on_ == fitted["whitening"].fitted_on_
    (tmp_path / "model/2_RepairModule/repair.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"a repair without its repair\.safetensors"):
        models.load(tmp_path / "model")


def test_the_repaired_model_shares_the_weights(llama, fitted):
    model = attach(llama, fitted["centring"])
    assert next(model.parameters()).data_ptr() == next(llama.parameters()).data_ptr()
    assert len(model) == len(llama) + 1
    assert models.variant(model, padding_side="right")[2].repair_name == "centring"


@pytest.mark.parametrize("change", [{"pooling": "last"}, {"temperature": 0.5}, {"layers": 1}])
def test_a_repaired_model_refuses_settings_that_its_repair_was_not_fitted_on(llama, fitted, change):
    model = attach(llama, fitted["centring"])
    with pytest.raises(ValueError, match="fitted under other settings; change the model first"):
        models.variant(model, **change)


def test_the_model_keeps_its_own_copy_of_the_repair(rng, llama):
    repair = centring().fit(rng.normal(size=(50, 64)))
    model = attach(llama, repair)
    before = model.encode(TEXTS)
    repair.fit(rng.normal(size=(50, 64)) + 9)
    assert np.array_equal(model.encode(TEXTS), before)


def test_the_repair_comes_before_normalize_and_dense(llama, fitted):
    model = models.variant(llama)
    model.append(Dense(8, 5, bias=False))
    model.append(Normalize())
    repaired = attach(model, fitted["whitening"])
    assert [type(module).__name__ for module in repaired][2:] == [
        "RepairModule",
        "Dense",
        "Normalize",
    ]
    assert repaired.get_embedding_dimension() == 5
    np.testing.assert_allclose(np.linalg.norm(repaired.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_a_second_repair_comes_after_the_first(rng, llama, fitted):
    first = fitted["whitening"]
    second = z_score().fit(first.transform(draw(rng, n=50)))
    both = attach(attach(llama, first), second)
    assert [both[2].repair_name, both[3].repair_name] == ["whitening(components=8)", "z_score"]
    assert models.settings(both)["repair"] == "whitening(components=8) + z_score"
    expected = second.transform(first.transform(llama.encode(TEXTS)))
    np.testing.assert_allclose(both.encode(TEXTS), expected, atol=1e-6)


def test_half_precision_is_repaired_in_full(fitted):
    half = models.load("random:llama", device="cpu", dtype="bfloat16")
    plain = half.encode(TEXTS)
    repaired = attach(half, fitted["z_score"]).encode(TEXTS, convert_to_tensor=True)
    assert repaired.dtype == torch.float32
    np.testing.assert_allclose(repaired, fitted["z_score"].transform(plain), atol=1e-6)


def test_a_gradient_through_a_repair_is_refused(fitted):
    features = {"sentence_embedding": torch.ones(2, 64, requires_grad=True)}
    with pytest.raises(ValueError, match=r"no gradient passes through a fitted repair \(centring"):
        RepairModule(fitted["centring"])(features)


def test_attach_refuses_what_does_not_fit(rng, llama, fitted):
    with pytest.raises(NotFittedError):
        attach(llama, centring())
    with pytest.raises(ValueError, match=r"fitted on d = 32, but .* gives d = 64"):
        attach(llama, centring().fit(rng.normal(size=(50, 32))))
    unit = rng.normal(size=(50, 64))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    with pytest.raises(ValueError, match=r"fitted on unit-norm vectors.*before any Normalize"):
        attach(llama, centring().fit(unit))
    with pytest.raises(TypeError, match="got EmbeddingModel and StandardScaler"):
        attach(llama, StandardScaler().fit(unit))
    stock = SentenceTransformer(modules=list(llama))
    with pytest.raises(TypeError, match="got SentenceTransformer and centring"):
        attach(stock, fitted["centring"])
