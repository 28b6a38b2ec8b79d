"""Training seeds: means over them are tested by text, their variance is told from the data's."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from lab import stats
from lab.stats import Score
from lab.stats.mixed_model import anova
from lab.stats.weighted import average_precision, mean, spearman, v_measure

SOURCES = ["dataset", "design x dataset", "seed", "seed x dataset"]


def accuracy(values):
    return Score("classification", "accuracy", np.asarray(values, float)[:, None], mean)


def sts(values, gold):
    return Score(
        "sts", "cosine_spearman", np.column_stack([scipy.stats.rankdata(values), gold]), spearman
    )


def clustering(rng, label):
    clusters = np.where(rng.random((len(label), 2)) < 0.4, 0, label[:, None])
    units = np.column_stack([np.ones((len(label), 2)), clusters, label]).astype(float)
    return Score("clustering", "v_measure", units, v_measure, swappable=False, recentred=True)


def pairs(rng, label):
    units = np.column_stack([scipy.stats.rankdata(label + rng.normal(size=len(label))), label])
    return Score("pair_classification", "max_ap", units, average_precision)


LABEL = np.arange(40) % 2
GOLD = np.random.default_rng(7).normal(size=40)
OF_SEED = {
    "classification": lambda rng: accuracy(rng.random(40)),
    "sts": lambda rng: sts(GOLD + rng.normal(size=40), GOLD),
    "pair classification": lambda rng: pairs(rng, LABEL),
    "clustering": lambda rng: clustering(rng, np.arange(40) % 4),
}


@pytest.fixture(params=OF_SEED)
def seeds(request, rng):
    return [OF_SEED[request.param](rng) for _ in range(3)]


# One score of several seeds


def test_the_value_is_the_mean_of_the_seeds_values(seeds):
    found = stats.mean_over_seeds(seeds)
    assert found.value == pytest.approx(np.mean([score.value for score in seeds]))
    assert (found.n, found.probe, found.metric) == (40, seeds[0].probe, seeds[0].metric)
    assert (found.swappable, found.recentred) == (seeds[0].swappable, seeds[0].recentred)


def test_every_resample_is_the_mean_of_the_seeds_on_the_same_texts(seeds, rng):
    weights = stats.bootstrap_weights(40, 30, rng)
    together = stats.mean_over_seeds(seeds)
    each = [score.statistic(score.units, weights) for score in seeds]
    np.testing.assert_allclose(together.statistic(together.units, weights), np.mean(each, axis=0))


def test_the_mean_of_one_seed_is_that_seed(seeds, rng):
    weights = stats.bootstrap_weights(40, 50, rng)
    assert stats.interval(stats.mean_over_seeds(seeds[:1]), weights) == stats.interval(
        seeds[0], weights
    )


def test_a_mean_of_seeds_compares_with_another_for_every_probe(seeds, rng):
    one, other = (stats.mean_over_seeds(some) for some in (seeds[:2], seeds[1:]))
    found = stats.compare(one, other, rng=rng, resamples=50)
    assert found.difference == pytest.approx((seeds[0].value - seeds[2].value) / 2)
    assert found.low < found.difference < found.high
    assert found.test == ("permutation" if seeds[0].swappable else "bootstrap")


def test_the_interval_is_that_of_a_brute_force_bootstrap(rng):
    gold = rng.normal(size=25)
    drawn = [gold + rng.normal(size=25) for _ in range(3)]
    weights = stats.bootstrap_weights(25, 200, rng)
    found = stats.interval(stats.mean_over_seeds([sts(x, gold) for x in drawn]), weights, 0.9)
    values = []
    for row in weights.astype(int):
        at = np.repeat(np.arange(25), row)
        values.append(np.mean([scipy.stats.spearmanr(x[at], gold[at])[0] for x in drawn]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])))


def test_the_permutation_p_of_a_tiny_case_is_the_one_found_by_hand(rng):
    # Text differences of the seed means: 1, 0.5, -0.25. |sum| = 1.25 or more: (+ + +), (+ + -)
    # and their negatives, 4 of 8 sign patterns.
    a = stats.mean_over_seeds([accuracy([1, 1, 0.5]), accuracy([1, 0, 0])])
    b = stats.mean_over_seeds([accuracy([0, 0, 0.5]), accuracy([0, 0, 0.5])])
    found = stats.compare(a, b, rng=rng)
    assert found.difference == pytest.approx(1.25 / 3)
    assert (found.p, found.p_min) == (4 / 8, 2 / 8)


def test_the_permutation_p_of_a_rank_statistic_swaps_all_seeds_of_a_text(rng):
    gold = np.arange(6.0)
    a, b = ([sts(gold + rng.normal(size=6) * s, gold) for _ in range(2)] for s in (1, 4))

    def gap(swap):
        total = 0.0
        for one, two in zip(a, b, strict=True):
            left = np.where(swap, two.units[:, 0], one.units[:, 0])
            right = np.where(swap, one.units[:, 0], two.units[:, 0])
            total += scipy.stats.spearmanr(left, gold)[0] - scipy.stats.spearmanr(right, gold)[0]
        return abs(total) / 2

    observed = gap(np.zeros(6, bool))
    gaps = [gap(np.array(swap, bool)) for swap in product([0, 1], repeat=6)]
    found = stats.compare(stats.mean_over_seeds(a), stats.mean_over_seeds(b), rng=rng)
    assert found.p == pytest.approx(np.mean(np.array(gaps) >= observed - 1e-9))


def test_permutation_p_values_of_means_are_uniform_when_designs_can_be_exchanged():
    rng = np.random.default_rng(4)
    p = []
    for _ in range(300):
        text = rng.normal(size=(20, 1))  # seeds of a design agree on a text: they are no new texts
        drawn = [text + rng.normal(size=(20, 1)) + rng.normal(size=(20, 3)) / 3 for _ in range(2)]
        a, b = (stats.mean_over_seeds([accuracy(x) for x in one.T]) for one in drawn)
        p.append(stats.compare(a, b, rng=rng, resamples=199).p)
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001


def test_the_order_of_the_seeds_is_irrelevant(seeds):
    weights = stats.bootstrap_weights(40, 50, np.random.default_rng(0))
    one, two = (stats.interval(stats.mean_over_seeds(s), weights) for s in (seeds, seeds[::-1]))
    assert (one.low, one.value, one.high) == pytest.approx((two.low, two.value, two.high))


def test_designs_with_other_numbers_of_seeds_are_not_compared(seeds, rng):
    two, three = stats.mean_over_seeds(seeds[:2]), stats.mean_over_seeds(seeds)
    with pytest.raises(ValueError, match=r"equally many seeds; got units \(40, \d+\) and \(40, "):
        stats.compare(two, three, rng=rng)


def test_seeds_of_other_texts_or_gold_and_none_at_all_are_refused():
    with pytest.raises(ValueError, match="one score per seed; got none"):
        stats.mean_over_seeds([])
    with pytest.raises(ValueError, match="one n; got 2 and 3"):
        stats.mean_over_seeds([accuracy([1, 2, 3]), accuracy([1, 2])])
    with pytest.raises(ValueError, match="gold of the two scores differs"):
        stats.mean_over_seeds([sts([1, 2, 3], [1, 2, 3]), sts([1, 2, 3], [3, 2, 1])])


def test_the_gold_of_two_means_is_still_compared():
    a, b = (stats.mean_over_seeds([sts([1, 2, 3], gold)] * 2) for gold in ([1, 2, 3], [3, 2, 1]))
    with pytest.raises(ValueError, match="gold of the two scores differs"):
        stats.compare(a, b, rng=np.random.default_rng(0))


# Variances


def measured(rng, a=3, b=5, r=4, sd=(1.0, 0.5, 0.4, 0.3)):
    """Values of `a` designs on `b` data sets with `r` seeds, and planted standard deviations."""
    noise = (sd[0] * rng.normal(size=(1, b, 1)) + sd[1] * rng.normal(size=(a, b, 1))
             + sd[2] * rng.normal(size=(a, 1, r)) + sd[3] * rng.normal(size=(a, b, r)))  # fmt: skip
    rows = [
        (f"design {i}", f"data {j}", k, 0.2 * i + noise[i, j, k])
        for i, j, k in product(range(a), range(b), range(r))
    ]
    return pd.DataFrame(rows, columns=["design", "dataset", "seed", "value"])


def squares(values):
    """Mean squares of the same layout, from statsmodels' least squares."""
    formula = "value ~ C(design) * C(dataset) + C(design):C(seed)"
    table = anova_lm(ols(formula, values).fit())
    names = ["C(dataset)", "C(design):C(dataset)", "C(design):C(seed)", "Residual"]
    return table.loc[names, "mean_sq"].to_numpy(), table.loc[names, "df"].to_numpy()


def test_the_moments_solve_the_mean_squares_of_statsmodels(rng):
    values = measured(rng)
    (dataset, cell, seed, rest), _ = squares(values)
    expected = [(dataset - cell) / (3 * 4), (cell - rest) / 4, (seed - rest) / 5, rest]
    np.testing.assert_allclose(anova(values), expected)


@pytest.mark.parametrize("sd", [(1, 0.5, 0.4, 0.3), (9, 0.5, 0.05, 0.02), (0.05, 0.02, 0.03, 0.01)])
def test_reml_equals_the_closed_form_on_a_balanced_table(sd):
    values = measured(np.random.default_rng(1), b=8, sd=sd)
    found = stats.variance_components(values)
    assert list(found.table["source"]) == SOURCES
    assert (found.table["anova"] > 0).all()
    np.testing.assert_allclose(found.table["variance"], found.table["anova"], rtol=1e-4)
    np.testing.assert_allclose(found.table["sd"] ** 2, found.table["variance"])
    assert found.table["share"].sum() == pytest.approx(1)
    assert (found.method, found.note) == ("REML", "")
    assert list(found.table["n"]) == [8, 24, 12, 96]


def test_planted_variances_are_recovered(rng):
    sd = np.array([1, 0.5, 0.4, 0.3])
    found = np.array([anova(measured(rng, sd=sd)) for _ in range(300)])
    error = found.std(axis=0) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - sd**2) < 4 * error).all()


def test_a_variance_that_would_be_negative_is_zero_and_the_others_are_pooled():
    values = next(
        drawn
        for seed in range(50)
        for drawn in [measured(np.random.default_rng(seed), sd=(1, 0, 0.4, 0.5))]
        if anova(drawn)[1] < -0.01 and anova(drawn)[2] > 0.05
    )
    (dataset, cell, seed, rest), (_, of_cell, _, of_rest) = squares(values)
    pooled = (cell * of_cell + rest * of_rest) / (of_cell + of_rest)  # no interaction: one error
    expected = [(dataset - pooled) / (3 * 4), 0, (seed - pooled) / 5, pooled]
    found = stats.variance_components(values)
    np.testing.assert_allclose(found.table["variance"], expected, rtol=1e-4)
    assert list(found.table["boundary"]) == [False, True, False, False]
    assert found.note == "estimated as zero, the boundary: design x dataset"
    assert found.table["anova"][1] < 0


def restricted(values):
    """The four variances by a REML of our own: dense, on logarithms, without statsmodels."""
    one_hot = [pd.get_dummies(values[list(names)].astype(str).agg("/".join, axis=1)).to_numpy(float)
               for names in (["dataset"], ["design", "dataset"], ["design", "seed"])]  # fmt: skip
    parts = [z @ z.T for z in one_hot] + [np.eye(len(values))]
    x = pd.get_dummies(values["design"]).to_numpy(float)
    y = values["value"].to_numpy()

    def deviance(logs):
        inverse = np.linalg.inv(sum(np.exp(s) * p for s, p in zip(logs, parts, strict=True)))
        middle = x.T @ inverse @ x
        rest = y - x @ np.linalg.solve(middle, x.T @ inverse @ y)
        logdets = np.linalg.slogdet(middle)[1] - np.linalg.slogdet(inverse)[1]
        return logdets + rest @ inverse @ rest

    options = {"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000}
    found = scipy.optimize.minimize(deviance, [-1.0] * 4, method="Nelder-Mead", options=options)
    return np.exp(found.x)


@pytest.mark.parametrize("sd", [(1, 0.5, 0.4, 0.3), (9, 0.5, 0.2, 0.02)])
def test_a_table_with_missing_cells_is_fitted_by_reml_as_by_a_dense_one(sd):
    values = measured(np.random.default_rng(3), sd=sd).drop(index=[3, 17, 40])
    found = stats.variance_components(values)
    np.testing.assert_allclose(found.table["variance"], restricted(values), rtol=1e-2)
    assert found.table["anova"].isna().all()
    assert found.method == "REML"


def test_the_boundary_is_found_where_variances_are_orders_of_magnitude_apart():
    values = measured(np.random.default_rng(2), sd=(0.01, 2, 2, 0.01)).drop(index=[3, 17, 40])
    found = stats.variance_components(values)  # BFGS stops at 0.0014 for the data sets
    assert found.note == "estimated as zero, the boundary: dataset"
    assert found.method == "REML"


def test_the_fit_does_not_depend_on_the_unit_of_the_metric_or_the_order_of_rows(rng):
    values = measured(rng)
    shuffled = values.assign(value=values["value"] * 1e-3 + 5).sample(frac=1, random_state=1)
    one, two = (stats.variance_components(v).table["variance"] for v in (values, shuffled))
    np.testing.assert_allclose(one, two * 1e6, rtol=1e-4)


def test_the_error_of_a_difference_is_that_of_the_covariance_it_states(rng):
    values = measured(rng, a=2).sort_values(["design", "dataset", "seed"])
    found = stats.variance_components(values)
    variance = dict(zip(found.table["source"], found.table["variance"], strict=True))

    def same(*columns):
        names = values[list(columns)].astype(str).agg("/".join, axis=1).to_numpy()
        return names[:, None] == names

    covariance = (
        variance["dataset"] * same("dataset")
        + variance["design x dataset"] * same("design", "dataset")
        + variance["seed"] * same("design", "seed")
        + variance["seed x dataset"] * np.eye(len(values))
    )
    contrast = np.repeat([1, -1], 20) / 20
    expected = math.sqrt(contrast @ covariance @ contrast)
    assert found.standard_error() == pytest.approx(expected)
    assert found.standard_error(5, 4) == pytest.approx(expected)


def test_more_of_a_source_reduces_its_part_of_the_error_only(rng):
    found = stats.variance_components(measured(rng))
    variance = dict(zip(found.table["source"], found.table["variance"], strict=True))
    plan = found.plan(datasets=[5, 10**9], seeds=[4, 10**9]).set_index(["datasets", "seeds"])
    of_seeds = math.sqrt(2 * variance["seed"] / 4)
    of_data = math.sqrt(2 * variance["design x dataset"] / 5)
    assert plan.loc[(10**9, 4), "standard_error"] == pytest.approx(of_seeds)
    assert plan.loc[(5, 10**9), "standard_error"] == pytest.approx(of_data)
    np.testing.assert_allclose(plan[SOURCES[1:]].sum(axis=1), 1)
    assert plan.loc[(5, 4), "standard_error"] == found.standard_error()


@pytest.mark.parametrize("sd", [(1, 0.5, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0)])
def test_seeds_that_change_nothing_are_a_result_and_no_warning(sd, rng):
    found = stats.variance_components(measured(rng, sd=sd))
    assert list(found.table["boundary"][2:]) == [True, True]
    assert list(found.table["variance"][2:]) == [0, 0]
    assert found.method == "ANOVA"
    assert "seed, seed x dataset" in found.note
    assert np.isfinite(found.plan([5], [4]).to_numpy(float)).all()


def test_the_text_s_variance_stands_beside_the_others_without_a_share(rng):
    values = measured(rng).assign(text_se=0.1)
    table = stats.variance_components(values).table
    bare = stats.variance_components(values.drop(columns="text_se")).table
    assert table["source"].iloc[-1] == "text"
    assert table["variance"].iloc[-1] == pytest.approx(0.01)
    assert np.isnan(table["share"].iloc[-1])
    pd.testing.assert_frame_equal(table.iloc[:4], bare, check_dtype=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.drop(columns="seed"), "no column named 'seed'"),
        (lambda v: pd.concat([v, v.iloc[:1]]), "two values for {'design': 'design 0'"),
        (lambda v: v.assign(value=v["value"].where(v.index != 7)), "row 7 of 60 has a hole"),
        (lambda v: v[v["seed"] == 0], "got {'seeds in every design': 1}"),
        (lambda v: v[v["design"] == "design 0"], "got {'designs': 1}"),
        (lambda v: v[v["dataset"] == "data 0"], "'data sets': 1, 'data sets for every seed': 1"),
    ],
)
def test_a_table_that_cannot_tell_them_apart_is_refused(change, message, rng):
    with pytest.raises((ValueError, LookupError), match=message):
        stats.variance_components(change(measured(rng)))


def test_a_plan_without_data_or_seeds_is_refused(rng):
    found = stats.variance_components(measured(rng))
    with pytest.raises(ValueError, match="at least one data set and one seed wanted; got 5, 0"):
        found.plan([5], [0])
    with pytest.raises(ValueError, match="wanted; got 0, 4"):
        found.standard_error(datasets=0)
