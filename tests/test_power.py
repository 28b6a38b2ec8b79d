"""Power: closed forms against other libraries, everything against simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.power import TTestPower

from lab import stats
from lab.stats import Comparison, Score, power
from lab.stats.weighted import mean


def comparison(d_z, n=400, sd=0.2, half=1.96):
    """A comparison with this effect: difference d_z x sd, and its normal interval."""
    error = sd / math.sqrt(n)
    difference = d_z * sd
    low, high = difference - half * error, difference + half * error
    return Comparison(difference, low, high, 0.01, 0.001, d_z, n, "permutation")


@pytest.mark.parametrize("d_z", [0.05, 0.2, -0.3])
@pytest.mark.parametrize("comparisons", [1, 4])
def test_the_number_of_texts_is_that_of_the_paired_t_test_of_statsmodels(d_z, comparisons):
    found = power.texts_needed(comparison(d_z), comparisons=comparisons)
    theirs = TTestPower().solve_power(abs(d_z), alpha=0.05 / comparisons, power=0.8)
    assert found.n == pytest.approx(theirs, abs=5)  # Student's needs about z^2 / 2 more


def test_a_test_on_the_texts_needed_has_the_power_asked_for(rng):
    found = power.texts_needed(comparison(0.25), power=0.9, comparisons=2)
    drawn = rng.normal(0.25, 1, size=(8000, int(found.n)))
    p = scipy.stats.ttest_1samp(drawn, 0, axis=1).pvalue
    assert np.mean(p < 0.05 / 2) == pytest.approx(0.9, abs=0.015)


def test_half_the_difference_needs_four_times_the_texts():
    one, half = (power.texts_needed(comparison(d)).n for d in (0.02, 0.01))
    assert half == pytest.approx(4 * one, abs=4)


def test_the_texts_needed_come_from_a_comparison_as_it_is_made(rng):
    units = rng.normal([[0.3], [0]], size=(2, 500))
    a, b = (Score("classification", "accuracy", x[:, None], mean) for x in units)
    found = stats.compare(a, b, rng=rng)
    needed = power.texts_needed(found)
    differences = units[0] - units[1]
    d_z = differences.mean() / differences.std()
    expected = TTestPower().solve_power(d_z, alpha=0.05, power=0.8)
    assert needed.n == pytest.approx(expected, rel=0.1)
    assert needed.low < needed.n < needed.high < math.inf
    table = stats.compare_all({"a": a, "b": b}, "b", rng=np.random.default_rng(0))
    assert power.texts_needed(next(table.itertuples())).n == pytest.approx(needed.n, rel=0.2)


def test_an_interval_with_zero_in_it_needs_any_number_of_texts():
    found = power.texts_needed(comparison(0.05, n=400))
    assert found.low < found.n < found.high == math.inf
    assert power.texts_needed(comparison(0.0)).n == math.inf


def test_no_number_of_texts_is_below_the_one_that_a_permutation_can_reject_with():
    found = power.texts_needed(comparison(50), comparisons=4)
    assert found.n == found.least == 8
    endless = Comparison(1.0, 1.0, 1.0, 0.1, 0.1, math.inf, 5, "permutation")
    assert power.texts_needed(endless).n == 6


@pytest.mark.parametrize("comparisons", range(1, 8))
def test_the_least_number_is_the_first_whose_smallest_p_survives_holm(comparisons):
    least = power.least_units(0.05, comparisons)
    best = {n: stats.holm([stats.attainable_p(n)] * comparisons)[0] for n in (least - 1, least)}
    assert best[least] < 0.05 <= best[least - 1]


def test_what_is_detectable_on_n_texts_needs_n_texts():
    for n in (50, 1379):
        d_z = power.detectable(n, comparisons=3)
        assert power.texts_needed(comparison(d_z * 1.0001), comparisons=3).n == n
        theirs = TTestPower().solve_power(nobs=n, alpha=0.05 / 3, power=0.8)
        assert d_z == pytest.approx(theirs, rel=0.04)
    assert power.detectable(5) == math.inf


# Data sets


def test_wilcoxon_s_power_without_an_effect_is_its_exact_size(rng):
    assert power.wilcoxon_power(0, 5, rng=rng) == 0
    for n, size in ((6, 2 / 64), (8, 10 / 256)):  # sums up to 0, and up to 3 of either sign
        found = power.wilcoxon_power(0, n, rng=rng, simulations=20_000)
        assert found == pytest.approx(size, abs=0.005)


def test_wilcoxon_s_power_is_that_of_its_test_applied_one_by_one():
    found = power.wilcoxon_power(0.8, 11, rng=np.random.default_rng(0), simulations=300)
    drawn = np.random.default_rng(0).normal(size=(300, 11)) + 0.8
    assert found == np.mean([stats.wilcoxon(x.tolist()).p < 0.05 for x in drawn])


def test_the_data_sets_needed_have_the_power_and_one_fewer_has_less(rng):
    differences = np.array([3.0, 1, 2, -1, 4, 0.5, 1.5])
    found = power.datasets_needed(differences, rng=rng, comparisons=2, simulations=4000)
    effect = differences.mean() / differences.std(ddof=1)
    assert found.effect == pytest.approx(effect)
    options = {"rng": rng, "comparisons": 2, "simulations": 20_000}
    assert power.wilcoxon_power(effect, int(found.n), **options) > 0.785
    assert power.wilcoxon_power(effect, int(found.n) - 1, **options) < 0.815
    assert found.low < found.n < found.high


def test_a_large_shift_needs_no_fewer_than_the_smallest_p_allows(rng):
    found = power.datasets_needed([9.9, 10, 10.1, 10], rng=rng, comparisons=4)
    assert (found.n, found.least) == (8, 8)


def test_a_small_shift_needs_student_s_number_over_the_efficiency(rng):
    differences = np.array([1.0, -1, 1, -1, 1, -1, 1, -1]) + 0.1
    found = power.datasets_needed(differences, rng=rng)
    student = TTestPower().solve_power(found.effect, alpha=0.05, power=0.8)
    assert found.n == pytest.approx(student * math.pi / 3, rel=0.01)
    assert found.high == math.inf


def test_simulation_and_efficiency_meet_where_one_takes_over(rng):
    effect = power.detectable(240) * math.sqrt(math.pi / 3)
    unit = np.array([1.0, -1, 1, -1])
    differences = unit / unit.std(ddof=1) + effect
    found = power.datasets_needed(differences, rng=rng, simulations=4000)
    assert found.n == pytest.approx(240, rel=0.06)


def test_the_interval_of_the_effect_covers_at_its_nominal_rate(rng):
    covered = 0
    for _ in range(200):
        _, low, high = power._standardised(rng.normal(0.7, 1, 8))
        covered += low < 0.7 < high
    assert covered / 200 == pytest.approx(0.95, abs=0.05)


def test_turning_the_sign_changes_no_number(rng):
    values = [3.0, 1, 2, -1, 4]
    one, two = (
        power.datasets_needed(np.multiply(values, sign), rng=np.random.default_rng(0))
        for sign in (1, -1)
    )
    assert one.n == pytest.approx(two.n, abs=1)
    assert one.effect == -two.effect


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: power.datasets_needed([1.0], rng=rng), "two finite differences or more"),
        (lambda rng: power.datasets_needed([1, math.nan], rng=rng), "two finite differences"),
        (lambda rng: power.datasets_needed([2, 2, 2], rng=rng), "all 3 differences are equal"),
        (lambda rng: power.datasets_needed([1, 2], rng=rng, power=1), "a power lies between"),
        (lambda rng: power.datasets_needed([1, 2], rng=rng, simulations=0), "one simulation"),
        (lambda rng: power.texts_needed(comparison(0.1), power=80), "such as 0.8; got 80"),
        (lambda rng: power.texts_needed(comparison(0.1), comparisons=0), "one comparison wanted"),
        (lambda rng: power.detectable(0), "one unit wanted; got n=0"),
        (lambda rng: power.wilcoxon_power(1, 0, rng=rng), "one data set wanted; got n=0"),
        (lambda rng: power.least_units(1.5), "strictly between 0 and 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(call, message, rng):
    with pytest.raises(ValueError, match=message):
        call(rng)
