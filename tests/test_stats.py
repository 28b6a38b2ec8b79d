"""Statistics: exact on tiny cases, equal to scipy where scipy has it, nominal on simulated data."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import stats
from lab.stats import Score
from lab.stats.weighted import mean, spearman, v_measure


def of(values, metric="accuracy"):
    return Score("classification", metric, np.asarray(values, dtype=float)[:, None], mean)


def ranked(values, gold):
    units = np.column_stack([scipy.stats.rankdata(values), gold])
    return Score("sts", "cosine_spearman", units, spearman)


def every_resample(n):
    draws = np.array(list(product(range(n), repeat=n)))
    return np.array([np.bincount(draw, minlength=n) for draw in draws], dtype=float)


# Intervals


def test_weights_count_n_draws_in_every_row():
    weights = stats.bootstrap_weights(7, 5000, np.random.default_rng(0))
    assert (weights.sum(axis=1) == 7).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(weights.var(axis=0), 6 / 7, atol=0.1)  # of a binomial(7, 1/7)


def test_the_interval_over_all_resamples_is_the_quantile_of_all_means():
    values = np.array([0.0, 1.0, 5.0, 2.0])
    means = [values[list(draw)].mean() for draw in product(range(4), repeat=4)]
    found = stats.interval(of(values), every_resample(4), level=0.9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))
    assert (found.value, found.n, found.resamples) == (2.0, 4, 256)


def test_the_interval_agrees_with_the_bootstrap_of_scipy():
    rng = np.random.default_rng(3)
    x = rng.normal(size=80)
    y = x + rng.normal(size=80)
    ours = stats.interval(ranked(x, y), stats.bootstrap_weights(80, 4000, rng))
    theirs = scipy.stats.bootstrap(
        (x, y),
        lambda a, b: scipy.stats.spearmanr(a, b)[0],
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.025)


def test_an_interval_covers_at_its_nominal_rate():
    rng = np.random.default_rng(0)
    found = [
        stats.interval(of(rng.normal(size=60)), stats.bootstrap_weights(60, 400, rng), level=0.9)
        for _ in range(400)
    ]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.85 < covered < 0.94  # standard error 0.015; percentile intervals cover a little less


def test_the_interval_of_a_biased_statistic_is_moved_back_to_its_value():
    rng = np.random.default_rng(1)
    units = np.column_stack([np.ones(80), rng.integers(0, 8, (80, 2))]).astype(float)
    weights = stats.bootstrap_weights(80, 500, rng)
    assert v_measure(units, weights).mean() > v_measure(units, np.ones((1, 80)))[0] + 0.05
    score = Score("clustering", "v_measure", units, v_measure, swappable=False, recentred=True)
    found = stats.interval(score, weights)
    assert found.low < found.value < found.high


# Comparisons of two settings


def test_the_exact_p_is_that_of_scipy():
    rng = np.random.default_rng(5)
    a, b = rng.normal([[0.8], [0]], size=(2, 9))
    ours = stats.compare(of(a), of(b), rng=rng)
    theirs = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.p_min == 2 / 2**9
    assert ours.difference == pytest.approx(np.mean(a - b))


def test_the_sampled_p_is_near_that_of_scipy_for_a_rank_statistic():
    rng = np.random.default_rng(8)
    gold = rng.normal(size=40)
    a, b = gold + rng.normal(size=(2, 40)) * [[0.7], [1.3]]
    first, second = ranked(a, gold), ranked(b, gold)

    def difference(x, y):
        return scipy.stats.spearmanr(x, gold)[0] - scipy.stats.spearmanr(y, gold)[0]

    theirs = scipy.stats.permutation_test(
        (first.units[:, 0], second.units[:, 0]),
        difference,
        permutation_type="samples",
        vectorized=False,
        n_resamples=1500,
        rng=rng,
    )
    ours = stats.compare(first, second, rng=rng, resamples=4000)
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.04)
    assert ours.p_min == 1 / 4001


def test_permutation_p_values_are_uniform_when_nothing_differs():
    rng = np.random.default_rng(2)
    p = [
        stats.compare(of(rng.normal(size=20)), of(rng.normal(size=20)), rng=rng, resamples=199).p
        for _ in range(400)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=8), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_swapping_the_settings_turns_the_sign_only(steps, seed):
    a, b = of(np.arange(len(steps)) + np.array(steps)), of(np.arange(len(steps)))
    there = stats.compare(a, b, rng=np.random.default_rng(seed), resamples=50)
    back = stats.compare(b, a, rng=np.random.default_rng(seed), resamples=50)
    assert there.p == back.p
    assert (there.low, there.difference) == pytest.approx((-back.high, -back.difference))
    assert there.p >= there.p_min


def test_settings_without_a_difference_have_p_one():
    found = stats.compare(of([1, 2, 3]), of([1, 2, 3]), rng=np.random.default_rng(0))
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.p, found.p_min, found.effect) == (1, 1, 0)


def test_no_sampled_p_is_below_one_over_the_number_of_samples():
    noise = np.random.default_rng(0).normal(size=(2, 40))
    found = stats.compare(of(noise[0] + 9), of(noise[1]), rng=np.random.default_rng(1))
    assert found.p == found.p_min == 1 / 1001


def test_units_that_do_not_differ_limit_what_p_can_come_out():
    a = np.zeros(50)
    a[:3] = 1
    found = stats.compare(of(a), of(np.zeros(50)), rng=np.random.default_rng(0))
    assert found.p == found.p_min == 2 / 2**3


def test_the_effect_of_a_mean_is_the_standardised_mean_difference():
    rng = np.random.default_rng(4)
    a, b = rng.normal([[0.5], [0]], size=(2, 300))
    found = stats.compare(of(a), of(b), rng=rng, resamples=4000)
    assert found.effect == pytest.approx(np.mean(a - b) / np.std(a - b), rel=0.06)


def test_clusterings_are_compared_by_the_bootstrap():
    rng = np.random.default_rng(6)
    label = rng.integers(0, 3, 200)

    def score(noise):
        cluster = np.where(rng.random(200) < noise, rng.integers(0, 3, 200), label)
        units = np.column_stack([np.ones(200), cluster, label]).astype(float)
        return Score("clustering", "v_measure", units, v_measure, swappable=False, recentred=True)

    good, bad = score(0.1), score(0.6)
    found = stats.compare(good, bad, rng=rng, resamples=500)
    assert (found.test, found.p, found.p_min) == ("bootstrap", 2 / 501, 2 / 501)
    assert stats.compare(good, good, rng=rng, resamples=500).p == 1


def test_all_settings_share_one_draw_so_their_order_is_irrelevant():
    rng = np.random.default_rng(9)
    scores = {
        name: of(rng.normal(size=30) + shift) for name, shift in zip("abc", range(3), strict=True)
    }
    turned = {name: scores[name] for name in "cba"}
    one, two = (
        stats.compare_all(some, "a", rng=np.random.default_rng(1), resamples=300)
        .sort_values("setting")
        .reset_index(drop=True)
        for some in (scores, turned)
    )
    pd.testing.assert_frame_equal(one, two)
    assert list(one["setting"]) == ["b", "c"]
    np.testing.assert_allclose(one["p_holm"], stats.holm(one["p"]))
    assert (one["p_holm"] >= one["p"]).all()


# A number of each setting against its score


def settings_of(rng, n=30, shifts=(0, 0.3, 0.1, 0.5, 0.2)):
    """Scores of settings on the same n units, near enough to each other to change places."""
    noise = rng.normal(size=n)
    return [of(noise + shift + rng.normal(size=n) / 2) for shift in shifts]


@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5], [3, 1, 1, -2, 0.5], [2, 2, 2, 2, 9]])
def test_the_association_is_spearman_s_of_scipy_over_the_settings(rng, values):
    scores = settings_of(rng)
    found = stats.association(scores, values, rng=rng, resamples=50)
    expected = scipy.stats.spearmanr(values, [score.value for score in scores]).statistic
    assert found.value == pytest.approx(expected)
    assert found.n == 5


def test_the_interval_of_an_association_resamples_the_units_of_all_settings_at_once(rng):
    scores, values = settings_of(rng), [3, 1, 2, 5, 2]
    found = stats.association(
        scores, values, rng=np.random.default_rng(7), resamples=300, level=0.9
    )
    drawn = stats.bootstrap_weights(30, 300, np.random.default_rng(7))
    units = np.column_stack([score.units for score in scores])
    draws = [
        scipy.stats.spearmanr(values, np.average(units, axis=0, weights=one)).statistic
        for one in drawn
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])))
    assert found.low < found.value < found.high
    assert found.resamples == 300


def test_a_monotone_relation_is_one_however_noisy_the_units_that_the_settings_share(rng):
    noise = 100 * rng.normal(size=40)
    scores = [of(noise + shift) for shift in (0, 0.1, 0.5, 0.6)]
    for values, sign in (([1, 10, 100, 1e9], 1), ([5, 0, -1, -1e9], -1)):
        found = stats.association(scores, values, rng=rng, resamples=200)
        assert (found.value, found.low, found.high) == (sign, sign, sign)


@given(st.integers(0, 10_000), st.integers(3, 6), st.sampled_from([0.01, 0.5, 0.95]))
@settings(max_examples=40, deadline=None)
def test_the_interval_of_an_association_holds_its_value(seed, count, level):
    rng = np.random.default_rng(seed)
    scores = settings_of(rng, 12, rng.normal(size=count) / 5)
    values = rng.permutation(count)
    found = stats.association(scores, values, rng=rng, resamples=60, level=level)
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_only_the_order_of_the_values_matters_and_that_of_the_settings_does_not():
    scores = settings_of(np.random.default_rng(0))
    values = np.array([0.2, 3, 1, 7, 5])
    order = [4, 2, 0, 1, 3]
    asked = [
        (scores, values),
        (scores, np.exp(values)),
        ([scores[place] for place in order], values[order]),
        (scores, pd.Series(values, index=list("abcde"))),
    ]
    one, *others = (
        stats.association(*each, rng=np.random.default_rng(1), resamples=99) for each in asked
    )
    for other in others:
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


def test_resamples_in_which_all_settings_tie_are_left_out_and_counted():
    better = np.array([1, 1, 1, 1] + [0] * 16)  # without these four, settings are equal: 1 %
    scores = [of(better * step) for step in range(3)]
    found = stats.association(scores, [1, 2, 3], rng=np.random.default_rng(0))
    drawn = stats.bootstrap_weights(20, 1000, np.random.default_rng(0))
    assert found.resamples == (drawn[:, :4].sum(axis=1) > 0).sum() < 1000
    assert (found.low, found.high) == pytest.approx((1, 1))


# Several data sets, many comparisons


@pytest.mark.parametrize(
    ("n", "p"),
    [(4, 0.125), (6, 0.031), (8, 0.0078), (11, 9.8e-4), (14, 1.2e-4), (15, 6.1e-5)],
)
def test_the_smallest_p_of_wilcoxon_is_two_over_two_to_the_n(n, p):
    assert stats.attainable_p(n) == pytest.approx(p, rel=0.02)
    assert stats.wilcoxon(np.arange(1, n + 1)).p == stats.attainable_p(n)


def test_six_data_sets_cannot_survive_holm_over_two_comparisons():
    best = [stats.attainable_p(6)] * 2
    assert (stats.holm(best) > 0.05).all()


@pytest.mark.parametrize("n", [5, 13, 30])
def test_wilcoxon_is_exact_as_in_scipy(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    found = stats.wilcoxon(values)
    assert found.p == pytest.approx(scipy.stats.wilcoxon(values, method="exact").pvalue)
    assert (found.positive, found.negative) == ((values > 0).sum(), (values < 0).sum())


def test_wilcoxon_with_ties_and_zeros_is_the_permutation_of_all_signs():
    values = np.array([1, 1, 2, -1, 3, 3, 0, -2, 5.0, 0])
    every_sign = scipy.stats.PermutationMethod(n_resamples=np.inf)
    theirs = scipy.stats.wilcoxon(values[values != 0], method=every_sign)
    found = stats.wilcoxon(values)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.n, found.zero) == (8, 2)


def test_wilcoxon_of_zeros_only_has_p_one():
    assert stats.wilcoxon([0, 0, 0]) == stats.Signed(1, 1, 0, 0, 0, 3)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_shift_interval_holds_what_the_test_does_not_reject(level):
    values = np.random.default_rng(0).normal(1, 1, 12)
    found = stats.hodges_lehmann(values, level)
    for shift in np.linspace(-1, 3, 201):
        accepted = scipy.stats.wilcoxon(values - shift, method="exact").pvalue > 1 - level
        assert accepted == (found.low < shift < found.high)
    assert found.level >= level


def test_the_shift_is_the_median_of_pairwise_means():
    # Walsh averages of 1, 2, 6: 1, 1.5, 2, 3.5, 4, 6.
    found = stats.hodges_lehmann([1, 2, 6])
    assert found.value == 2.75
    assert (found.low, found.high, found.level) == (-math.inf, math.inf, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_holm_is_monotone_and_never_below_the_raw_p(p):
    adjusted = stats.holm(p)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= np.array(p)).all()
    m = len(p)
    steps = np.maximum.accumulate(np.sort(p) * (m - np.arange(m)))
    np.testing.assert_allclose(np.sort(adjusted), np.minimum(steps, 1))


def test_settings_that_cannot_be_separated_share_a_letter():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=60)
    shifts = {"worst": 0, "good": 3, "as good": 3.01}
    scores = {k: of(noise + s + rng.normal(size=60) / 5) for k, s in shifts.items()}
    table = stats.pairwise_p(scores, rng=rng, resamples=300)
    groups = stats.tie_groups({k: s.value for k, s in scores.items()}, table)
    assert set(groups["setting"][:2]) == {"good", "as good"}
    assert list(groups["with_best"]) == [True, True, False]
    assert groups["group"][0] == groups["group"][1] != groups["group"][2]


def test_nemenyi_separates_only_what_ranks_consistently():
    rng = np.random.default_rng(1)
    values = pd.DataFrame(rng.normal([0, 0, 5], size=(20, 3)), columns=list("abc"))
    p = stats.nemenyi(values)
    assert p.loc["a", "b"] > 0.05 > p.loc["a", "c"]
    assert list(stats.tie_groups(values.mean(), p)["with_best"]) == [True, False, False]


# Bad input


def test_a_unit_that_is_nan_is_named_by_its_row():
    with pytest.raises(ValueError, match="unit 2 of 4 of accuracy is not finite"):
        of([1, 2, np.nan, 3])


def test_another_number_of_units_cannot_be_paired():
    with pytest.raises(ValueError, match="one n; got 3 and 4"):
        stats.compare(of([1, 2, 3]), of([1, 2, 3, 4]), rng=np.random.default_rng(0))


def test_another_metric_or_gold_cannot_be_paired():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one metric; got 'accuracy' and 'f1'"):
        stats.compare(of([1, 2]), of([1, 2], "f1"), rng=rng)
    with pytest.raises(ValueError, match="gold of the two scores differs"):
        stats.compare(ranked([1, 2, 3], [1, 2, 3]), ranked([1, 2, 3], [3, 2, 1]), rng=rng)


def test_one_unit_has_no_interval():
    with pytest.raises(ValueError, match="n >= 2 units"):
        stats.compare(of([1]), of([2]), rng=np.random.default_rng(0))


def test_weights_of_another_data_set_are_refused():
    weights = stats.bootstrap_weights(5, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"\(R, 3\); got \(10, 5\)"):
        stats.interval(of([1, 2, 3]), weights)


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan])
def test_a_level_lies_between_zero_and_one(level):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        stats.interval(of([1, 2, 3]), np.ones((4, 3)), level=level)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        stats.hodges_lehmann([1, 2, 3], level)


def test_an_interval_of_mostly_undefined_resamples_is_refused():
    weights = stats.bootstrap_weights(3, 200, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"cosine_spearman is undefined in .* of 200 resamples"):
        stats.interval(ranked([1, 2, 3], [1, 1, 2]), weights)


def test_an_unknown_baseline_names_the_nearest():
    with pytest.raises(LookupError, match="did you mean 'mean'"):
        stats.compare_all({"mean": of([1, 2]), "last": of([2, 3])}, "maen", rng=None)


def test_bad_p_values_and_differences_are_refused():
    with pytest.raises(ValueError, match="within"):
        stats.holm([0.1, 1.2])
    with pytest.raises(ValueError, match="difference 1 of 2 is nan"):
        stats.wilcoxon([0.1, np.nan])
    with pytest.raises(LookupError, match="no p values for"):
        stats.tie_groups({"a": 1.0}, pd.DataFrame())


@pytest.mark.parametrize(
    ("scores", "values", "message"),
    [
        ([of([1, 2]), of([2, 3])], [1, 2], "three or more, with one value each; got 2 scores"),
        ([of([1, 2])] * 3, [1, 2], "one value each; got 3 scores and 2 values"),
        ([of([1, 2]), of([2, 3]), of([4, 3])], [1, math.nan, 2], "value 1 of 3 is nan"),
        ([of([1, 2]), of([2, 3]), of([4, 3])], [1, 2, math.inf], "value 2 of 3 is inf"),
        ([of([1, 2]), of([2, 3]), of([4, 3])], [5, 5, 5], "values and scores that are not all"),
        ([of([1, 2]), of([2, 1]), of([1, 2])], [1, 2, 3], "values and scores that are not all"),
        ([of([1, 2]), of([2, 3]), of([4, 3, 2])], [1, 2, 3], "one n; got 3 and 2"),
        ([of([1, 2]), of([2, 3]), of([4, 3], "f1")], [1, 2, 3], "one metric; got 'f1'"),
        ([of([1]), of([2]), of([3])], [1, 2, 3], "n >= 2 units"),
        (
            [ranked([1, 2, 3], [1, 2, 3]), ranked([1, 3, 2], [1, 2, 3]),
             ranked([2, 1, 3], [3, 2, 1])], [1, 2, 3], "gold of the two scores differs",
        ),
        (
            [of([0, 0, 0, shift]) for shift in range(3)], [1, 2, 3],
            "over settings is undefined in .* of 1000 resamples",
        ),
    ],
)  # fmt: skip
def test_an_association_of_what_cannot_be_associated_is_refused(rng, scores, values, message):
    with pytest.raises(ValueError, match=message):
        stats.association(scores, values, rng=rng)


@pytest.mark.parametrize("options", [{"level": 95}, {"resamples": 0}])
def test_an_association_needs_a_level_between_zero_and_one_and_a_resample(rng, options):
    with pytest.raises(ValueError, match=r"between 0 and 1|a resample"):
        stats.association(settings_of(rng), [1, 2, 3, 4, 5], rng=rng, **options)
