"""Measures of rows and of pairs: closed forms, brute force and other libraries, leave-outs."""

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.integrate import quad
from scipy.spatial.distance import cdist, pdist
from sklearn.neighbors import NearestNeighbors

from lab import stats
from lab.anisotropy.measure import MEASURES, ROWS
from lab.anisotropy.neighbours import (
    hubness,
    k_occurrence,
    mle_dimension,
    two_nn,
    two_nn_fit,
)
from lab.anisotropy.pairs import alignment, relative_alignment
from lab.anisotropy.rows import (
    Neighbours,
    Rows,
    partition_isotropy,
    uniformity,
    uniformity_gap,
    uniformity_optimum,
)

NEIGHBOURHOODS = (hubness, two_nn, two_nn_fit, mle_dimension)
DIMENSIONS = (two_nn, two_nn_fit, mle_dimension)
EVERY = (uniformity, uniformity_gap, partition_isotropy, *NEIGHBOURHOODS)


def of(measure, vectors):
    rows = Rows(vectors)
    return measure(rows, rows.all)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rotated(vectors, rng):
    d = vectors.shape[1]
    return vectors @ np.linalg.qr(rng.normal(size=(d, d)))[0]


def cloud(rng, n=300, d=12):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 1


def ring(n):
    angle = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(angle), np.sin(angle)])


def cube(rng, d):
    """4000 points of the d-dimensional unit cube, turned into 30 dimensions."""
    flat = np.zeros((4000, 30))
    flat[:, :d] = rng.random((4000, d))
    return rotated(flat, rng)


def test_every_measure_of_rows_is_registered():
    registered = [one.function for one in MEASURES.values() if one.reads == ROWS]
    assert set(registered) == set(EVERY)


# Uniformity


@pytest.mark.parametrize(
    ("d", "value"), [(3, -2.0798), (16, -3.5130), (128, -3.9375), (768, -3.9896)]
)
def test_uniformity_of_the_uniform_sphere_is_its_closed_form(d, value, rng):
    assert uniformity_optimum(d) == pytest.approx(value, abs=5e-5)
    rows = rng.normal(size=(3000, d)).astype(np.float32)
    assert of(uniformity, rows) == pytest.approx(uniformity_optimum(d), abs=0.003)
    assert of(uniformity_gap, rows) == pytest.approx(0, abs=0.003)


@pytest.mark.parametrize("d", [2, 3, 16, 128])
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_the_optimum_is_the_integral_over_the_angle_between_two_random_directions(d, t):
    def density(angle):
        return np.sin(angle) ** (d - 2)

    def weighed(angle):
        return density(angle) * np.exp(-2 * t * (1 - np.cos(angle)))

    mean = quad(weighed, 0, np.pi)[0] / quad(density, 0, np.pi)[0]
    assert uniformity_optimum(d, t) == pytest.approx(np.log(mean), abs=1e-9)


def test_two_antipodal_points_have_uniformity_minus_eight():
    assert of(uniformity, np.array([[3.0, 4.0], [-3.0, -4.0]])) == pytest.approx(-8, abs=1e-12)


def test_collapsed_rows_have_uniformity_zero():
    assert of(uniformity, np.full((20, 5), 0.3)) == pytest.approx(0, abs=1e-12)


def test_uniformity_equals_the_pairwise_form_of_its_paper(rng):
    rows = cloud(rng)
    of_scipy = np.log(np.exp(-2 * pdist(unit(rows)) ** 2).mean())
    of_paper = torch.pdist(torch.tensor(unit(rows))).pow(2).mul(-2).exp().mean().log().item()
    assert of(uniformity, rows) == pytest.approx(of_scipy, abs=1e-12)
    assert of(uniformity, rows) == pytest.approx(of_paper, abs=1e-12)


# Partition isotropy


def test_a_cross_polytope_is_perfectly_isotropic():
    assert of(partition_isotropy, np.vstack([np.eye(6), -np.eye(6)])) == pytest.approx(1, abs=1e-12)


def test_partition_isotropy_of_gaussians_depends_on_scale_and_shift(rng):
    rows = rng.normal(size=(5000, 50))
    assert of(partition_isotropy, unit(rows)) == pytest.approx(0.990, abs=0.005)
    assert of(partition_isotropy, unit(rows + 1)) == pytest.approx(0.243, abs=0.003)
    assert of(partition_isotropy, rows) == pytest.approx(0.81, abs=0.05)  # 0.77 to 0.82 over seeds


def test_partition_isotropy_equals_its_sum_of_exponentials_over_both_signs(rng):
    rows = cloud(rng) / 10
    _, _, vectors = np.linalg.svd(rows)
    z = [np.exp(rows @ c).sum() for v in vectors for c in (v, -v)]
    assert of(partition_isotropy, rows) == pytest.approx(min(z) / max(z), rel=1e-9)
    assert of(partition_isotropy, -rows) == pytest.approx(min(z) / max(z), rel=1e-9)


def test_partition_isotropy_of_raw_states_underflows_and_never_overflows(rng):
    assert of(partition_isotropy, 500 * cloud(rng)) == 0.0
    assert 0 < of(partition_isotropy, rng.normal(size=(300, 12)) + 20) < 1e-30


def test_fewer_rows_than_dimensions_leave_directions_that_see_nothing(rng):
    rows = rng.normal(size=(4, 9)) / 5
    found = of(partition_isotropy, rows)
    _, _, vectors = np.linalg.svd(rows)
    z = [np.exp(rows @ c).sum() for v in vectors for c in (v, -v)]
    assert found == pytest.approx(min(z) / max(z), rel=1e-9)


def test_leave_outs_keep_the_eigenvectors_of_all_rows(rng):
    vectors = cloud(rng) / 10
    keep = rng.random(len(vectors)) < 0.8
    basis = np.linalg.eigh(vectors.T @ vectors)[1]
    z = np.exp(np.hstack([vectors[keep] @ basis, -vectors[keep] @ basis])).sum(0)
    assert partition_isotropy(Rows(vectors), keep) == pytest.approx(z.min() / z.max(), rel=1e-9)


# Hubness


def by_sort(rows, k):
    cosine = unit(rows) @ unit(rows).T
    np.fill_diagonal(cosine, -2)
    return np.bincount(np.argsort(-cosine, axis=1)[:, :k].ravel(), minlength=len(rows))


@pytest.mark.parametrize("k", [1, 10, 45])
def test_k_occurrence_equals_a_full_sort_and_scikit_learn(k, rng):
    vectors = cloud(rng)
    found = k_occurrence(Rows(vectors), k)
    near = NearestNeighbors(n_neighbors=k, metric="cosine").fit(vectors).kneighbors()[1]
    np.testing.assert_array_equal(found, by_sort(vectors, k))
    np.testing.assert_array_equal(found, np.bincount(near.ravel(), minlength=len(vectors)))
    assert found.mean() == k


def test_hubness_is_the_skewness_of_k_occurrence(rng):
    vectors = cloud(rng)
    counts = by_sort(vectors, 10)
    centred = counts - counts.mean()
    by_hand = (centred**3).mean() / (centred**2).mean() ** 1.5
    assert of(hubness, vectors) == pytest.approx(by_hand, rel=1e-12)
    assert of(hubness, vectors) == pytest.approx(scipy.stats.skew(counts), rel=1e-12)


def test_isotropic_rows_are_little_hubby_and_shifted_rows_very(rng):
    rows = rng.normal(size=(3000, 768)).astype(np.float32)
    assert 0.2 < of(hubness, rows) < 0.45  # 0.27 to 0.38 over six seeds, core.md has 0.29
    assert 2.5 < of(hubness, rows + np.float32(0.5)) < 5.5  # 3.1 to 4.5, core.md has 3.42


def test_a_regular_ring_has_no_hubs():
    np.testing.assert_array_equal(k_occurrence(Rows(ring(50))), 10)
    assert of(hubness, ring(50)) == 0.0


def test_a_hub_is_in_everybodys_neighbourhood(rng):
    vectors = np.vstack([rng.normal(size=(200, 100)), np.zeros((1, 100))]) + 0.5
    counts = k_occurrence(Rows(vectors))
    assert counts.argmax() == 200
    assert counts[200] > 150


# Intrinsic dimension


CUBES = [(1, 1.01, 1.00), (2, 2.04, 1.97), (5, 4.65, 4.55), (10, 8.97, 8.24), (20, 15.97, 14.8)]


@pytest.mark.parametrize(("d", "of_two_nn", "of_mle"), CUBES)
def test_dimensions_of_cubes_are_those_known(d, of_two_nn, of_mle, rng):
    rows = Rows(cube(rng, d))
    # one draw of 4000 ratios has a standard error of 1.6 %; the reference is one draw, too
    assert two_nn(rows, rows.all) == pytest.approx(of_two_nn, rel=0.06)
    assert two_nn_fit(rows, rows.all) == pytest.approx(of_two_nn, rel=0.06)
    assert mle_dimension(rows, rows.all) == pytest.approx(of_mle, rel=0.02)


def test_two_nn_equals_its_formula(rng):
    vectors = cloud(rng)
    r = np.sort(cdist(vectors, vectors), axis=1)
    by_formula = (len(vectors) - 1) / np.log(r[:, 2] / r[:, 1]).sum()
    assert of(two_nn, vectors) == pytest.approx(by_formula, rel=1e-12)


def test_the_fit_of_two_nn_equals_the_least_squares_of_its_paper(rng):
    vectors = cloud(rng)
    r = np.sort(cdist(vectors, vectors), axis=1)
    x = np.sort(np.log(r[:, 2] / r[:, 1]))[: int(0.9 * len(r))]
    y = -np.log(1 - np.arange(1, len(x) + 1) / len(r))
    assert of(two_nn_fit, vectors) == pytest.approx(np.linalg.lstsq(x[:, None], y)[0][0], rel=1e-9)


def test_mle_equals_its_formula(rng):
    vectors = cloud(rng)
    r = np.sort(cdist(vectors, vectors), axis=1)[:, 1:21]
    inverses = np.log(r[:, -1:] / r[:, :-1]).sum(1) / 19
    assert of(mle_dimension, vectors) == pytest.approx(1 / inverses.mean(), rel=1e-12)


def test_neighbours_of_a_cloud_far_from_the_origin_are_exact(rng):
    vectors = cloud(rng) + 1e8  # a Gram matrix of these is all rounding
    found = Neighbours.of(vectors, 15)
    apart = cdist(vectors, vectors)
    np.testing.assert_array_equal(found.numbers, np.argsort(apart, axis=1)[:, 1:16])
    np.testing.assert_allclose(found.distances, np.sort(apart, axis=1)[:, 1:16], rtol=1e-12)


def test_dimensions_equal_scikit_dimension_on_the_rows_themselves(rng):
    from skdim.id import MLE, TwoNN

    vectors = cloud(rng)
    assert of(two_nn_fit, vectors) == pytest.approx(TwoNN().fit(vectors).dimension_, rel=1e-9)
    with np.errstate(divide="ignore"):
        free = TwoNN(method="mle", discard_fraction=0).fit(vectors)
    assert of(two_nn, vectors) == pytest.approx(free.dimension_, rel=1e-9)
    assert of(mle_dimension, vectors) == pytest.approx(MLE().fit(vectors).dimension_, rel=1e-9)


def test_near_duplicates_pull_down_one_estimate_of_two_nn_and_not_its_fit(rng):
    vectors = rng.normal(size=(1000, 10))
    copied = np.vstack([vectors, vectors[:25] + 1e-6 * rng.normal(size=(25, 10))])
    assert of(two_nn, vectors) == pytest.approx(of(two_nn_fit, vectors), rel=0.1)
    assert of(two_nn, copied) < 0.3 * of(two_nn, vectors)
    assert of(two_nn_fit, copied) == pytest.approx(of(two_nn_fit, vectors), rel=0.2)


# What leaves a measure unchanged


@pytest.mark.parametrize("measure", EVERY)
def test_rotation_changes_nothing(measure, rng):
    vectors = cloud(rng) / 10
    assert of(measure, rotated(vectors, rng)) == pytest.approx(of(measure, vectors), rel=1e-9)


@pytest.mark.parametrize("measure", [uniformity, uniformity_gap, hubness])
def test_the_length_of_a_row_changes_nothing_on_the_sphere(measure, rng):
    vectors = cloud(rng)
    stretched = vectors * rng.uniform(0.1, 10, size=(len(vectors), 1))
    assert of(measure, stretched) == pytest.approx(of(measure, vectors), rel=1e-9)


@pytest.mark.parametrize("measure", DIMENSIONS)
def test_scale_and_shift_change_no_dimension(measure, rng):
    vectors = cloud(rng)
    assert of(measure, 3 * vectors + 1000) == pytest.approx(of(measure, vectors), rel=1e-9)


@pytest.mark.parametrize("measure", EVERY)
def test_the_order_of_rows_changes_nothing(measure, rng):
    vectors = cloud(rng) / 10
    shuffled = rng.permutation(vectors)
    assert of(measure, shuffled) == pytest.approx(of(measure, vectors), rel=1e-9)


@pytest.mark.parametrize("measure", EVERY)
def test_single_precision_is_kept_and_loses_nothing(measure, rng):
    vectors = (cloud(rng) / 10).astype(np.float32)
    rows = Rows(vectors)
    assert rows.vectors is vectors
    before = vectors.copy()
    wide = of(measure, vectors.astype(np.float64))
    assert measure(rows, rows.all) == pytest.approx(wide, rel=1e-12)
    np.testing.assert_array_equal(vectors, before)


# Leave-outs


@pytest.mark.parametrize("measure", [one for one in EVERY if one is not partition_isotropy])
def test_a_leave_out_equals_the_rows_that_are_left(measure, rng):
    vectors = cloud(rng)
    rows = Rows(vectors)
    for share in (0.95, 0.5, 0.1):
        keep = rng.random(len(vectors)) < share
        assert measure(rows, keep) == pytest.approx(of(measure, vectors[keep]), rel=1e-9)


@pytest.mark.parametrize("measure", NEIGHBOURHOODS)
def test_a_whole_neighbourhood_left_out_is_searched_anew(measure, rng, monkeypatch):
    vectors = np.vstack([rng.normal(size=(200, 5)), rng.normal(size=(100, 5)) / 100 + 3])
    keep = np.arange(300) < 225  # 25 of a tight cluster of 100 are left: fewer of the nearest 40
    expected = of(measure, vectors[keep])
    rows = Rows(vectors)
    measure(rows, rows.all)
    searches = []
    again = Neighbours.of.__func__
    monkeypatch.setattr(Neighbours, "of", classmethod(lambda *a: searches.append(1) or again(*a)))
    assert measure(rows, keep) == pytest.approx(expected, rel=1e-9)
    assert len(searches) == (0 if measure in (two_nn, two_nn_fit) else 1)


def test_leave_outs_share_one_search(rng, monkeypatch):
    searches = []
    search = Neighbours.of.__func__
    monkeypatch.setattr(Neighbours, "of", classmethod(lambda *a: searches.append(1) or search(*a)))
    rows = Rows(cloud(rng))
    groups = rng.permutation(300) % 20
    for group in range(20):
        for measure in NEIGHBOURHOODS:
            measure(rows, groups != group)
    assert len(searches) == 2  # by angle and by distance


# Bad input


def with_value(value):
    vectors = np.ones((5, 3))
    vectors[2, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "error", "said"),
    [
        (with_value(np.nan), ValueError, r"row 2 of 5 is not finite \(1 such\)"),
        (with_value(-np.inf), ValueError, "row 2 of 5 is not finite"),
        (np.ones((5, 3), dtype=int), TypeError, "float32 or float64; got int64"),
        (np.ones((5, 3), dtype=np.float16), TypeError, "float32 or float64; got float16"),
        (torch.ones(5, 3), TypeError, "numpy array of float32 or float64; got torch.float32"),
        ([[1.0, 2.0]], TypeError, "numpy array of float32 or float64; got list"),
        (np.ones(5), ValueError, r"rows are \(n, d\), n and d at least 1; got \(5,\)"),
        (np.ones((5, 3, 2)), ValueError, r"got \(5, 3, 2\)"),
        (np.ones((5, 0)), ValueError, r"got \(5, 0\)"),
        (np.ones((1, 3)), ValueError, "2 rows or more; got 1"),
    ],
)
def test_rows_that_cannot_be_measured_are_refused(vectors, error, said):
    with pytest.raises(error, match=said):
        Rows(vectors)


@pytest.mark.parametrize("measure", [uniformity, uniformity_gap, hubness])
def test_a_zero_vector_is_refused_where_a_norm_is_needed(measure, rng):
    vectors = cloud(rng)
    vectors[[7, 9]] = 0
    with pytest.raises(ValueError, match=r"row 7 of 300 is a zero vector.*\(2 such\)"):
        of(measure, vectors)


@pytest.mark.parametrize("measure", [partition_isotropy, *DIMENSIONS])
def test_a_zero_vector_is_fine_where_no_norm_is_needed(measure, rng):
    vectors = cloud(rng) / 10
    vectors[7] = 0
    assert np.isfinite(of(measure, vectors))


@pytest.mark.parametrize("measure", [uniformity, uniformity_gap, hubness])
def test_one_dimension_has_no_cosines(measure, rng):
    with pytest.raises(ValueError, match="cosines need two dimensions or more"):
        of(measure, rng.normal(size=(30, 1)))
    with pytest.raises(ValueError, match="two dimensions or more; got 1"):
        uniformity_optimum(1)


@pytest.mark.parametrize("measure", DIMENSIONS)
def test_a_line_has_dimension_one_in_one_dimension_too(measure, rng):
    assert of(measure, rng.random(size=(1000, 1))) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("measure", DIMENSIONS)
def test_equal_rows_are_named_not_dropped(measure, rng):
    vectors = cloud(rng) + 1e6  # their distance would not be zero by way of a Gram matrix
    vectors[200] = vectors[30]
    rows = Rows(vectors)
    with pytest.raises(ValueError, match=r"rows 30 and 200 are equal.*\(2 rows have an equal\)"):
        measure(rows, rows.all)
    with pytest.raises(ValueError, match="rows 30 and 200 are equal"):
        measure(rows, np.arange(300) > 20)
    assert np.isfinite(measure(rows, np.arange(300) != 30))


@pytest.mark.parametrize("measure", DIMENSIONS)
def test_constant_rows_have_no_dimension(measure):
    with pytest.raises(ValueError, match="all 40 rows are equal; they have no dimension"):
        of(measure, np.full((40, 3), 0.1))


def test_rows_of_one_direction_have_no_nearest_neighbours(rng):
    direction = rng.normal(size=(1, 8))
    for vectors in (np.repeat(direction, 30, axis=0), direction * rng.uniform(1, 9, size=(30, 1))):
        for precision in (np.float32, np.float64):
            with pytest.raises(ValueError, match="all 30 rows have the same direction"):
                of(hubness, vectors.astype(precision))


@pytest.mark.parametrize("measure", DIMENSIONS)
def test_a_regular_simplex_has_no_finite_estimate(measure):
    with pytest.raises(ValueError, match="neighbours of every row are equally far"):
        of(measure, np.eye(30))


def test_a_row_whose_neighbours_are_equally_far_adds_nothing_to_the_mean(rng):
    simplex = np.eye(25, 30)
    vectors = np.vstack([simplex, rng.normal(size=(100, 30)) + 50])
    r = np.sort(cdist(vectors, vectors), axis=1)[:, 1:21]
    inverses = np.log(r[:, -1:] / r[:, :-1]).sum(1) / 19
    assert of(mle_dimension, vectors) == pytest.approx(1 / inverses.mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("measure", "least"), [(uniformity, 2), (partition_isotropy, 2), (hubness, 11), (two_nn, 3),
                           (two_nn_fit, 3), (mle_dimension, 21)],
)  # fmt: skip
def test_too_few_rows_are_refused_also_when_some_are_left_out(measure, least, rng):
    rows = Rows(cloud(rng, n=30))
    assert np.isfinite(measure(rows, np.arange(30) < least))
    said = f"needs {least} rows or more; got {least - 1} of 30"
    with pytest.raises(ValueError, match=said):
        measure(rows, np.arange(30) < least - 1)


def test_k_must_be_positive(rng):
    with pytest.raises(ValueError, match="k is how many neighbours count, 1 or more; got 0"):
        k_occurrence(Rows(cloud(rng)), 0)


@pytest.mark.parametrize("keep", [np.arange(30), np.ones(29, dtype=bool)])
def test_what_is_kept_is_a_mask_of_the_rows(keep, rng):
    with pytest.raises(ValueError, match="keep is a boolean mask of 30 rows; got"):
        uniformity(Rows(cloud(rng, n=30)), keep)


# Pairs


def test_alignment_is_twice_the_distance_of_the_mean_cosine_from_one(rng):
    first, second = cloud(rng), cloud(rng)
    cosine = (unit(first) * unit(second)).sum(1)
    assert alignment(first, second).value == pytest.approx(2 - 2 * cosine.mean(), rel=1e-12)
    assert alignment(first, first * 3).value == pytest.approx(0, abs=1e-25)
    assert alignment(first, -first).value == pytest.approx(4, rel=1e-12)


def test_alignment_of_another_power_is_the_mean_of_powers(rng):
    first, second = cloud(rng), cloud(rng)
    apart = np.sqrt(((unit(first) - unit(second)) ** 2).sum(1))
    assert alignment(first, second, alpha=1).value == pytest.approx(apart.mean(), rel=1e-12)
    assert alignment(first, second, alpha=1).metric != alignment(first, second).metric


@pytest.mark.parametrize("chunk", [1, 7, 300, 1024])
def test_relative_alignment_equals_brute_force_in_chunks_of_any_size(chunk, rng):
    first, second = cloud(rng), cloud(rng)
    squares = cdist(unit(first), unit(second), "sqeuclidean")
    positive = squares.diagonal().copy()
    np.fill_diagonal(squares, np.inf)
    found = relative_alignment(first, second, chunk=chunk)
    np.testing.assert_allclose(found.units[:, 0], positive - squares.min(1), atol=1e-12)
    assert found.value == pytest.approx((positive - squares.min(1)).mean(), rel=1e-12)


def test_relative_alignment_equals_the_code_of_its_authors(rng):
    first, second = (torch.tensor(unit(cloud(rng, n=40))) for _ in "xy")
    apart = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").pow(2)
    positive = apart.diagonal().clone()
    of_authors = (positive - apart.fill_diagonal_(10000.0).min(dim=1).values).mean().item()
    found = relative_alignment(first.numpy(), second.numpy()).value
    assert found == pytest.approx(of_authors, rel=1e-9)


def test_relative_alignment_is_negative_if_and_only_if_partners_are_nearest(rng):
    first = cloud(rng)
    assert (relative_alignment(first, first).units < 0).all()
    assert (relative_alignment(first, np.roll(first, 1, axis=0)).units > 0).all()


def test_alignments_have_intervals_and_paired_tests(rng):
    first = cloud(rng)
    near, far = first + rng.normal(size=first.shape) / 5, first + rng.normal(size=first.shape)
    for measure in (alignment, relative_alignment):
        close, wide = measure(first, near), measure(first, far)
        found = stats.interval(wide, stats.bootstrap_weights(300, 500, rng))
        assert found.low < found.value < found.high
        compared = stats.compare(close, wide, rng=rng, resamples=200)
        assert compared.high < 0
        assert compared.p < 0.01


@pytest.mark.parametrize("measure", [alignment, relative_alignment])
def test_pairs_that_cannot_be_measured_are_refused(measure, rng):
    good = cloud(rng, n=5, d=3)
    with pytest.raises(ValueError, match=r"both are \(n, d\); got \(5, 3\) and \(4, 3\)"):
        measure(good, good[:4])
    with pytest.raises(ValueError, match="second row 2 of 5 is not finite"):
        measure(good, with_value(np.nan))
    with pytest.raises(ValueError, match="first row 0 of 5 is a zero vector"):
        measure(good * (np.arange(5)[:, None] > 0), good)
    with pytest.raises(TypeError, match="second rows are a numpy array of float32 or float64"):
        measure(good, good.astype(np.float16))
    with pytest.raises(ValueError, match="cosines need two dimensions or more; first rows"):
        measure(good[:, :1], good[:, :1])


def test_options_of_alignment_are_checked(rng):
    good = cloud(rng, n=5)
    with pytest.raises(ValueError, match="alpha is a positive power; got 0"):
        alignment(good, good, alpha=0)
    with pytest.raises(ValueError, match=r"two pairs or more are needed.*got 1 and 1024"):
        relative_alignment(good[:1], good[:1])
    with pytest.raises(ValueError, match="got 5 and 0"):
        relative_alignment(good, good, chunk=0)
