"""Similarity, shift and legibility of length, against brute force, planted data and simulation."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from lab import results
from lab.collapse.bins import label
from lab.collapse.legibility import chance, length_probe
from lab.collapse.phenomenon import bin_shift, compared, similarity_by_length, tabulate
from lab.stats import bootstrap_weights, compare, interval

SHORT, LONG = "[0, 100)", "[100, 200)"


def two_bins(rng, n, *, dim=6, shift=0.0):
    """n rows in each of two bins, whose means differ by ``shift`` in one dimension."""
    rows = rng.normal(size=(2 * n, dim)) + 0.7
    rows[n:, 0] += shift
    return rows, np.repeat([SHORT, LONG], n)


def pieces(rng, n, *, dim=6, growth=0.8):
    """Pieces of n texts at 16 and 64 tokens: a direction of their own, and one that all share."""
    own, common = rng.normal(size=(n, dim)), np.ones(dim)
    rows = [own + scale * common + 0.3 * rng.normal(size=(n, dim)) for scale in (0.2, growth)]
    return np.vstack(rows), np.repeat([16, 64], n), np.tile(np.arange(n), 2)


def brute_force(rows, labels, texts, first, second, function):
    """The mean of a function over all pairs of rows, one of each bin, of different texts."""
    labels, found = np.asarray(labels), []
    pairs = product(np.flatnonzero(labels == first), np.flatnonzero(labels == second))
    for i, j in pairs:
        if texts[i] != texts[j]:
            found.append(function(rows[i], rows[j]))
    return np.mean(found)


def cosine(x, y):
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


# --- similarity --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_similarity_is_the_mean_over_all_pairs_within_and_between_bins(rng, dtype):
    rows, labels = two_bins(rng, 12)
    found = similarity_by_length(rows.astype(dtype), labels)
    assert list(found) == [(SHORT, SHORT), (SHORT, LONG), (LONG, LONG)]
    for (first, second), one in found.items():
        expected = brute_force(rows, labels, np.arange(24), first, second, cosine)
        assert float(one.value) == pytest.approx(expected, abs=1e-6)
        assert one.n == (12 if first == second else 24)


def test_pieces_of_one_text_are_never_compared_with_each_other(rng):
    rows, labels, texts = pieces(rng, 10)
    for (first, second), one in similarity_by_length(rows, labels, texts=texts).items():
        expected = brute_force(rows, labels, texts, first, second, cosine)
        assert float(one.value) == pytest.approx(expected, abs=1e-12)
        assert one.n == 10
    alone = similarity_by_length(rows, labels)[16, 64]
    assert float(alone.value) > float(similarity_by_length(rows, labels, texts=texts)[16, 64].value)


def test_bins_may_share_some_of_their_texts(rng):
    rows, labels = two_bins(rng, 12)
    texts = [*range(12), *range(6, 18)]
    for (first, second), one in similarity_by_length(rows, labels, texts=texts).items():
        expected = brute_force(rows, labels, texts, first, second, cosine)
        assert float(one.value) == pytest.approx(expected, abs=1e-12)
        assert one.n == (12 if first == second else 18)


def test_a_small_bin_may_have_the_first_texts_of_a_large_one(rng):
    rows = rng.normal(size=(104, 6)) + 0.7
    labels, texts = np.repeat([0, 1], [100, 4]), np.r_[np.arange(100), np.arange(4)]
    found = similarity_by_length(rows, labels, texts=texts)
    for (first, second), one in found.items():
        expected = brute_force(rows, labels, texts, first, second, cosine)
        assert float(one.value) == pytest.approx(expected, abs=1e-12)
    assert found[1, 1].sizes.tolist() == [1, 1, 1, 1]
    assert found[0, 0].sizes.tolist() == [25, 25, 25, 25]
    for group, value in enumerate(found[0, 1].left_out):
        keep = texts != group
        keep[4 + 24 * group : 28 + 24 * group] = False
        kept = rows[keep], labels[keep], texts[keep]
        assert value == pytest.approx(brute_force(*kept, 0, 1, cosine))


def test_bins_that_share_texts_so_that_no_groups_fit_all_are_refused_by_name(rng):
    labels = np.repeat(["a", "b", "c", "d", "all"], [4, 4, 4, 4, 5])
    texts = [*range(16), 0, 4, 8, 12, 16]
    with pytest.raises(
        ValueError,
        match=r"bin 'all': 5 of its 5 texts are in one group of the jackknife, .* fewer bins",
    ):
        similarity_by_length(rng.normal(size=(21, 3)), labels, texts=texts)


def test_the_jackknife_is_the_statistic_without_each_group_of_texts(rng):
    rows, labels, texts = pieces(rng, 12)
    found = similarity_by_length(rows, labels, texts=texts, groups=4)[16, 64]
    for group, value in enumerate(found.left_out):
        keep = texts // 3 != group
        kept = rows[keep], labels[keep], texts[keep]
        assert value == pytest.approx(brute_force(*kept, 16, 64, cosine))
    assert found.sizes.tolist() == [3, 3, 3, 3]


def test_rows_in_any_order_give_the_same_similarity(rng):
    rows, labels, texts = pieces(rng, 10)
    order = rng.permutation(20)
    one = similarity_by_length(rows, labels, texts=texts)[64, 64]
    other = similarity_by_length(rows[order], labels[order], texts=texts[order])[64, 64]
    assert float(one.value) == pytest.approx(float(other.value))


def test_orthogonal_texts_have_similarity_zero_and_equal_ones_one():
    found = similarity_by_length(np.vstack([np.eye(5), np.ones((5, 5))]), list("aaaaabbbbb"))
    values = [float(one.value) for one in found.values()]
    assert values == pytest.approx([0, 5**-0.5, 1])


def test_bins_come_in_the_order_of_their_categories(rng):
    rows, _ = two_bins(rng, 5)
    labels = label([150] * 5 + [50] * 5, [0, 100, 200, 300])
    for given in (labels, pd.Series(labels)):
        assert list(similarity_by_length(rows, given)) == [
            (SHORT, SHORT), (SHORT, LONG), (LONG, LONG)
        ]  # fmt: skip
    assert next(iter(similarity_by_length(rows, np.asarray(labels)))) == (LONG, LONG)


def test_intervals_of_similarity_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    population = rng.normal(size=(100_000, 6)) + 0.7
    units = population / np.linalg.norm(population, axis=1, keepdims=True)
    truth = np.square(units.mean(axis=0)).sum()
    held = np.zeros(2)
    for _ in range(100):
        found = similarity_by_length(*two_bins(rng, 40))
        for at, pair in enumerate([(SHORT, SHORT), (SHORT, LONG)]):
            low, high = found[pair].interval()
            held[at] += low <= truth <= high
    assert (held >= 88).all()


def test_growth_of_similarity_in_the_same_texts_is_found_and_no_growth_is_not(rng):
    rows, labels, texts = pieces(rng, 60)
    found = similarity_by_length(rows, labels, texts=texts)
    grown = compared(found[64, 64], found[16, 16])
    assert grown.difference == pytest.approx(float(found[64, 64].value - found[16, 16].value))
    assert grown.low < grown.difference < grown.high
    assert grown.low > 0.1 and grown.p < 1e-4 and grown.n == 60
    rows, labels, texts = pieces(rng, 60, growth=0.2)
    found = similarity_by_length(rows, labels, texts=texts)
    assert compared(found[64, 64], found[16, 16]).p > 0.05


def test_the_same_texts_give_a_narrower_interval_of_growth_than_other_texts(rng):
    rows, labels, texts = pieces(rng, 60, growth=0.3)
    paired = similarity_by_length(rows, labels, texts=texts)
    rows[60:] = rng.permutation(rows[60:])
    alone = similarity_by_length(rows, labels)
    widths = [np.ptp((found[64, 64] - found[16, 16]).interval()) for found in (paired, alone)]
    assert widths[0] < 0.7 * widths[1]


def test_nothing_differs_from_itself(rng):
    found = similarity_by_length(*two_bins(rng, 8))[SHORT, SHORT]
    same = compared(found, found)
    assert (same.difference, same.p, same.effect, same.low, same.high) == (0, 1, 0, 0, 0)


def test_other_texts_are_not_paired(rng):
    ten, eleven = (similarity_by_length(*two_bins(rng, n))[SHORT, SHORT] for n in (10, 11))
    with pytest.raises(ValueError, match="a paired difference needs the same units"):
        compared(ten, eleven)


# --- shift -------------------------------------------------------------------------------------


def test_the_shift_is_the_distance_of_means_less_what_noise_adds(rng):
    rows, labels = two_bins(rng, 15, shift=1.0)
    a, b = rows[:15], rows[15:]
    noise = (a.var(axis=0, ddof=1).sum() + b.var(axis=0, ddof=1).sum()) / 15
    expected = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() - noise
    found = bin_shift(rows, labels)
    assert list(found) == [(SHORT, LONG)]
    assert float(found[SHORT, LONG].value) == pytest.approx(expected)
    spread = (a.var(axis=0, ddof=1).sum() + b.var(axis=0, ddof=1).sum()) / 2
    relative = bin_shift(rows, labels, relative=True)[SHORT, LONG]
    assert float(relative.value) == pytest.approx(expected / spread)


def test_the_shift_of_the_same_texts_takes_the_noise_of_their_differences(rng):
    rows, labels, texts = pieces(rng, 15)
    moved = rows[15:] - rows[:15]
    expected = np.square(moved.mean(axis=0)).sum() - moved.var(axis=0, ddof=1).sum() / 15
    found = bin_shift(rows, labels, texts=texts)[16, 64]
    assert float(found.value) == pytest.approx(expected)


def test_bins_of_one_distribution_have_no_shift_on_average():
    rng = np.random.default_rng(5)
    found = [bin_shift(*two_bins(rng, 20)) for _ in range(300)]
    values = np.array([float(one[SHORT, LONG].value) for one in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300)
    assert 0.3 < (values < 0).mean() < 0.7
    biased = 2 * 6 / 20  # the expected squared distance of two means
    assert values.mean() + 3 * values.std() / np.sqrt(300) < biased / 4


def test_pieces_that_do_not_differ_have_no_shift_on_average():
    rng = np.random.default_rng(6)
    values = []
    for _ in range(300):
        rows, labels, texts = pieces(rng, 20, growth=0.2)
        values.append(float(bin_shift(rows, labels, texts=texts)[16, 64].value))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)


def test_intervals_of_a_shift_hold_it_about_as_often_as_they_say():
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(100):
        low, high = bin_shift(*two_bins(rng, 40, shift=1.0))[SHORT, LONG].interval()
        held += low <= 1 <= high
    assert held >= 88


def test_a_common_offset_moves_no_shift(rng):
    rows, labels = two_bins(rng, 15, shift=1.0)
    near, far = (bin_shift(rows + offset, labels)[SHORT, LONG] for offset in (0, 1e4))
    assert float(near.value) == pytest.approx(float(far.value), rel=1e-6)


# --- what is refused ---------------------------------------------------------------------------


def test_bins_with_too_few_texts_are_named(rng):
    rows = rng.normal(size=(9, 3))
    with pytest.raises(
        ValueError, match=r"needs 4 texts or more in each bin; 'b' has 3, 'c' has 2"
    ):
        similarity_by_length(rows, list("aaaabbbcc"))


def test_a_row_outside_of_all_bins_is_named(rng):
    rows = rng.normal(size=(10, 3))
    labels = label([5] * 4 + [50] + [15] * 5, [0, 10, 20])
    with pytest.raises(ValueError, match=r"row 4 of 10 has no label \(1 such\).* outside of all"):
        similarity_by_length(rows, labels)


def test_two_pieces_of_a_text_in_a_bin_are_refused(rng):
    with pytest.raises(ValueError, match="row 3 is a second piece of its text in bin 'a'"):
        bin_shift(rng.normal(size=(8, 3)), list("aaaabbbb"), texts=[0, 1, 2, 0, 0, 1, 2, 3])


def test_bad_rows_and_labels_are_refused(rng):
    rows, labels = two_bins(rng, 5)
    with pytest.raises(ValueError, match="one label a row wanted, 10; got 9"):
        similarity_by_length(rows, labels[1:])
    with pytest.raises(ValueError, match="one text a row wanted, 10; got 3"):
        similarity_by_length(rows, labels, texts=[1, 2, 3])
    rows[3] = 0
    with pytest.raises(ValueError, match="row 3 of 10 is a zero vector"):
        similarity_by_length(rows, labels)
    rows[3, 0] = np.nan
    with pytest.raises(ValueError, match="row 3 of 10 is not finite"):
        bin_shift(rows, labels)


def test_one_bin_has_no_shift_and_no_spread_no_relative_one(rng):
    with pytest.raises(ValueError, match="a shift is between two bins or more"):
        bin_shift(rng.normal(size=(8, 3)), ["a"] * 8)
    with pytest.raises(ValueError, match="needs finite values"):
        bin_shift(np.repeat(np.eye(2), 4, axis=0), list("aaaabbbb"), relative=True)


# --- legibility --------------------------------------------------------------------------------


def planted(rng, n, *, dim=10, strength=3.0):
    """Embeddings with one direction proportional to the logarithm of the length."""
    lengths = rng.integers(10, 400, n)
    rows = rng.normal(size=(n, dim))
    rows += strength * np.log(lengths)[:, None] * rng.normal(size=dim)
    return rows, np.asarray(label(lengths, [0, 100, 200, 300, 400])), lengths


def test_a_direction_of_length_is_found(rng):
    found = length_probe(*planted(rng, 200, strength=30), seed=0)
    assert found["length_r2"].value > 0.98
    assert found["length_spearman"].value > 0.95
    assert found["bin_accuracy"].value > 0.9


def test_without_a_signal_nothing_can_be_read_off():
    rng = np.random.default_rng(8)
    held, values = 0, []
    for seed in range(12):
        rows, labels, lengths = planted(rng, 120, strength=0)
        found = length_probe(rows, labels, lengths, seed=seed)
        read = interval(found["bin_accuracy"], bootstrap_weights(120, 500, rng))
        held += read.low <= 0.25 + 1e-9 <= read.high
        values.append([found[name].value for name in ("length_r2", "length_spearman")])
        assert found["length_r2"].value < 0.06
    assert held >= 10
    assert np.abs(np.mean(values, axis=0)).max() < 0.08


def test_r2_and_spearman_are_those_of_the_libraries(rng):
    found = length_probe(*planted(rng, 90, strength=0.3), seed=0)
    predicted, true = found["length_r2"].units.T
    assert found["length_r2"].value == pytest.approx(r2_score(true, predicted))
    rho = scipy_stats.spearmanr(predicted, true).statistic
    assert found["length_spearman"].value == pytest.approx(rho)


@pytest.mark.parametrize("name", ["length_r2", "length_spearman"])
def test_a_text_that_counts_twice_is_as_good_as_two(rng, name):
    rows, labels, texts = pieces(rng, 30)
    score = length_probe(rows, labels, labels + texts, seed=0, texts=texts)[name]
    weights = bootstrap_weights(30, 5, rng)
    repeated = [np.repeat(score.units, counts.astype(int), axis=0) for counts in weights]
    expected = [score.statistic(units, np.ones((1, 30)))[0] for units in repeated]
    np.testing.assert_allclose(score.statistic(score.units, weights), expected)


def test_texts_are_the_units_and_all_their_pieces_count(rng):
    rows, labels, texts = pieces(rng, 40)
    found = length_probe(rows, labels, labels, seed=0, texts=texts)
    assert {score.n for score in found.values()} == {40}
    units = found["length_r2"].units
    assert r2_score(units[:, 2:].ravel(), units[:, :2].ravel()) == pytest.approx(
        found["length_r2"].value
    )
    assert set(found["bin_accuracy"].units[:, 0]) <= {0, 0.5, 1}


def test_no_text_is_on_both_sides(rng):
    """Every text has its own length and its own place: known neighbours would give it away."""
    n, dim = 60, 80
    own = rng.normal(size=(n, dim))
    rows = np.vstack([own + 0.01 * rng.normal(size=(n, dim)) for _ in range(4)])
    lengths = np.tile(rng.integers(10, 400, n), 4)
    labels = np.tile(np.where(lengths[:n] > 200, "long", "short"), 4)
    leaking = length_probe(rows, labels, lengths, seed=0)
    honest = length_probe(rows, labels, lengths, seed=0, texts=np.tile(np.arange(n), 4))
    assert leaking["length_r2"].value > 0.9 and leaking["bin_accuracy"].value > 0.95
    assert honest["length_r2"].value < 0.1 and honest["bin_accuracy"].value < 0.7


def test_the_ridge_agrees_with_least_squares_where_rows_are_many(rng):
    rows, labels, lengths = planted(rng, 600, dim=4, strength=0.4)
    found = length_probe(rows, labels, lengths, seed=0)["length_r2"].value
    fitted = LinearRegression().fit(rows, np.log(lengths))
    assert found == pytest.approx(fitted.score(rows, np.log(lengths)), abs=0.03)


def test_scale_of_a_dimension_plays_no_part(rng):
    rows, labels, lengths = planted(rng, 80, strength=0.3)
    one = length_probe(rows, labels, lengths, seed=0)
    scaled = length_probe(rows * np.logspace(-3, 3, 10), labels, lengths, seed=0)
    for name, score in one.items():
        assert scaled[name].value == pytest.approx(score.value, abs=1e-6)


def test_two_settings_on_the_same_texts_are_paired(rng):
    rows, labels, lengths = planted(rng, 100)
    noisy = rows + 40 * rng.normal(size=rows.shape)
    clear, blurred = (length_probe(x, labels, lengths, seed=0) for x in (rows, noisy))
    for name, score in clear.items():
        found = compare(score, blurred[name], rng=rng, resamples=300)
        assert found.low > 0 and found.p < 0.02


def test_chance_is_the_share_of_the_largest_bin():
    assert chance(list("aaab")) == 0.75
    assert chance(label([5, 15], [0, 10, 20, 30])) == 0.5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"lengths": np.full(20, 7)}, "two bins and two lengths or more; got .* 7 to 7"),
        ({"lengths": np.arange(20)}, r"one positive length a row wanted, \(20,\)"),
        ({"lengths": np.arange(1, 20)}, r"one positive length a row wanted, \(20,\); got \(19,\)"),
        ({"labels": ["a"] * 20}, r"two bins and two lengths or more; got \['a'\]"),
        ({"labels": ["a"] * 17 + ["b"] * 3}, "5 folds need as many rows of each bin.* 'b' has 3:"),
        ({"texts": [0] * 2 + [*range(1, 19)]}, "as many pieces as the others; they have 1 to 2"),
        ({"folds": 1}, "two folds are the least"),
    ],
)
def test_what_cannot_be_probed_is_refused(rng, change, why):
    given = {"labels": list("ab") * 10, "lengths": np.arange(1, 21)} | change
    with pytest.raises(ValueError, match=why):
        length_probe(rng.normal(size=(20, 3)), seed=0, **given)


# --- table -------------------------------------------------------------------------------------


def test_the_table_of_bins_is_valid_and_says_which_bin(rng):
    rows, _, lengths = planted(rng, 100)
    order = label(lengths, [0, 100, 200, 300, 400])
    found = tabulate(rows, order, lengths, rng=rng, seed=3, resamples=50, notebook="t",
                     checkpoint="c", dataset="d")  # fmt: skip
    assert results.validate(found) is found
    cosines = found[found["metric"] == "average_cosine"]
    assert len(cosines) == 4 + 6 and found["metric"].nunique() == 7
    assert cosines["bin"].tolist()[:2] == [SHORT, f"{SHORT} | {LONG}"]
    expected = similarity_by_length(rows, order)[SHORT, SHORT]
    assert cosines["value"].iloc[0] == pytest.approx(float(expected.value))
    assert found["length"].isna().all() and (found["dim"] == 10).all()
    assert (found["probe"] == "length").all() and (found["dataset"] == "d").all()


def test_the_table_of_cuts_says_which_length(rng):
    rows, labels, texts = pieces(rng, 20)
    found = tabulate(rows, labels, labels, texts=texts, rng=rng, seed=3, resamples=50)
    cosines = found[found["metric"] == "average_cosine"]
    assert cosines["length"].tolist() == [16, pd.NA, 64]
    assert cosines["bin"].fillna("").tolist() == ["", "16 | 64", ""]
    assert (found["n"].dropna() == 20).all()
