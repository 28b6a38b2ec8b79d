"""Settings across data sets: exact by hand, nominal in simulation, honest about few data sets."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import results, stats
from lab.stats import across


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collection():
    """Statsmodels' multipletests collects garbage in every call: 0.1 s with torch loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda *_: 0)
        yield


def tidy(table):
    """A dict setting -> one value per data set, as rows."""
    return pd.DataFrame([
        {"setting": name, "dataset": f"data {place}", "value": float(value)}
        for name, column in table.items() for place, value in enumerate(column)
    ])  # fmt: skip


def against_zero(differences, **others):
    columns = {"a": differences, **others, "zero": [0] * len(differences)}
    return across.compare(tidy(columns), baseline="zero")


def test_six_data_sets_of_one_sign_give_what_is_worked_out_by_hand():
    (row,) = against_zero([1, 2, 3, 4, 5, 6]).to_dict("records")
    assert (row["n"], row["positive"], row["negative"], row["zero"]) == (6, 6, 0, 0)
    assert row["p"] == row["p_min"] == row["p_holm"] == row["p_holm_min"] == 2 / 2**6 == 0.03125
    assert (row["difference"], row["low"], row["high"], row["level"]) == (3.5, 1, 6, 1 - 2 / 2**6)
    assert (row["effect"], row["test"], row["can_be_significant"]) == (1, "wilcoxon", True)
    assert row["verdict"] == "significant: above zero on 6 of 6 data sets"


def test_with_six_data_sets_nothing_survives_a_second_comparison():
    found = against_zero([1, 2, 3, 4, 5, 6], b=[7, 8, 9, 10, 11, 12])
    assert list(found["p_holm"]) == list(found["p_holm_min"]) == [0.0625, 0.0625]
    assert not found["can_be_significant"].any()


def test_the_verdict_of_six_data_sets_and_four_comparisons_is_the_arithmetic():
    others = {name: [1, 2, 3, 4, 5, 6] for name in "bcd"}
    verdicts = set(against_zero([1, 2, 3, 4, 5, 6], **others)["verdict"])
    assert verdicts == {"cannot be significant: 6 data sets and 4 comparisons reach 0.125 at best"}


def test_ties_get_mid_ranks_and_their_own_null():
    # |1 1 2 1| has ranks 2 2 4 2, W+ = 8 of 10: sums of 8 or more in (1 + 3) of 16 sign patterns.
    (row,) = against_zero([1, 1, 2, -1]).to_dict("records")
    assert row["p"] == 2 * 4 / 16
    assert row["effect"] == (2 + 2 + 4 - 2) / 10


def test_zero_differences_have_no_rank():
    (row,) = against_zero([3, -1, 0, 0]).to_dict("records")
    assert (row["effect"], row["p"], row["p_min"]) == ((2 - 1) / (2 + 1), 1, 2 / 2**2)


def test_holm_s_textbook_case():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


def test_the_p_values_of_a_table_are_corrected_over_its_rows():
    rng = np.random.default_rng(0)
    values = tidy(
        {name: rng.normal(shift, 1, 12) for name, shift in {"a": 0, "b": 1, "c": 2, "d": 4}.items()}
    )
    found = across.compare(values)
    assert len(found) == 6
    assert list(found["setting"]) == list("aaabbc")
    assert list(found["baseline"]) == list("bcdcdd")
    np.testing.assert_allclose(found["p_holm"], stats.holm(found["p"]))


def test_each_row_is_scipy_s_test_of_the_same_differences():
    rng = np.random.default_rng(1)
    values = tidy({"a": rng.normal(1, 1, 10), "b": rng.normal(size=10), "c": rng.normal(size=10)})
    wide = across.grid(values)
    for row in across.compare(values, baseline="c").to_dict("records"):
        differences = wide[row["setting"]] - wide["c"]
        assert row["p"] == pytest.approx(scipy.stats.wilcoxon(differences, method="exact").pvalue)
        ranks = scipy.stats.rankdata(np.abs(differences))
        assert row["effect"] == pytest.approx((ranks * np.sign(differences)).sum() / 55)
        assert row["level"] >= 0.95


def test_the_smallest_adjusted_p_is_the_smallest_over_all_signs_of_the_data():
    sizes = {"a": [1, 2, 3, 4], "b": [4, 3, 2, 1], "c": [0, 0, 5, 6]}  # zeros leave c two data sets
    lowest = np.ones(3)
    for signs in product([-1, 1], repeat=4):
        signed = {name: np.multiply(size, signs) for name, size in sizes.items()}
        found = across.compare(tidy({**signed, "zero": [0] * 4}), baseline="zero")
        lowest = np.minimum(lowest, found["p_holm"])
    np.testing.assert_allclose(found["p_holm_min"], lowest)
    np.testing.assert_allclose(lowest, [3 / 8, 3 / 8, 1 / 2])


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_no_adjusted_p_is_below_the_smallest_that_was_said_to_be_possible(seed, n, count):
    rng = np.random.default_rng(seed)
    columns = {f"s{i}": np.round(rng.normal(i, 1, n)) for i in range(count)}
    found = across.compare(tidy(columns))
    assert (found["p_holm"] >= found["p_holm_min"] - 1e-12).all()
    assert (found["can_be_significant"] | ~(found["p_holm"] < 0.05)).all()
    cannot = found["verdict"].str.startswith("cannot be significant")
    assert (cannot == ~found["can_be_significant"]).all()


def test_the_other_side_turns_signs_and_nothing_else():
    rng = np.random.default_rng(2)
    columns = {"a": rng.normal(size=9), "b": rng.normal(size=9)}
    (one,), (two,) = (
        across.compare(tidy(columns), baseline=name).to_dict("records") for name in "ab"
    )
    assert (one["p"], one["p_min"]) == (two["p"], two["p_min"])
    assert (one["difference"], one["effect"]) == pytest.approx((-two["difference"], -two["effect"]))
    assert (one["low"], one["high"]) == pytest.approx((-two["high"], -two["low"]))


def test_the_family_wise_error_stays_below_alpha_when_nothing_differs():
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(600):
        columns = rng.normal(size=(4, 9)) + rng.normal(size=9)
        p = [stats.wilcoxon((column - columns[3]).tolist()).p for column in columns[:3]]
        false += min(stats.holm(p)) < 0.05
    assert 0.005 < false / 600 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_one_comparison_rejects_at_the_exact_rate_of_its_null():
    rng = np.random.default_rng(4)
    p = [stats.wilcoxon(x.tolist()).p for x in rng.normal(size=(3000, 9))]
    null = np.array([stats.wilcoxon(np.arange(1, 10) * np.array(s)).p
                     for s in product([-1, 1], repeat=9)])  # fmt: skip
    assert np.mean(np.array(p) < 0.05) == pytest.approx((null < 0.05).mean(), abs=0.012)


def test_too_few_data_sets_have_no_interval_and_are_stored_without_one():
    found = against_zero([1, 2, 3, 4, 5])
    assert found[["low", "high", "level"]].isna().all(axis=None)
    assert found["verdict"][0].startswith("cannot be significant: 5 data sets and 1 comparison ")
    stored = results.comparison_table(
        found.filter(results.COMPARISON_COLUMNS), metric="main score", dataset="5 data sets"
    )
    assert stored["difference"][0] == 3
    assert stored["low"].isna().all()
    assert (stored["test"][0], stored["n"][0], stored["p_min"][0]) == ("wilcoxon", 5, 0.0625)


def test_equal_settings_have_p_one_and_no_effect():
    (row,) = against_zero([0, 0, 0]).to_dict("records")
    assert (row["p"], row["effect"], row["difference"], row["zero"]) == (1, 0, 0, 3)
    assert "3 data sets (3 without a difference)" in row["verdict"]


def test_the_verdict_says_which_side_and_how_often():
    lower = [-1, -2, -3, -4, -5, -6, -7, 0.5]
    (row,) = against_zero(lower).to_dict("records")
    assert row["verdict"] == "significant: below zero on 7 of 8 data sets"
    (row,) = against_zero([-1, 2, -3, 4, -5, 6, -7, 8]).to_dict("records")
    assert row["verdict"] == "not shown to differ over 8 data sets"


# Ranks


def test_the_critical_difference_is_that_of_demsar():
    # Demsar 2006, section 3.2.2: 4 classifiers, 14 data sets, alpha 0.05: q = 2.569, CD = 1.25.
    rng = np.random.default_rng(0)
    found = across.ranks(tidy({name: rng.normal(size=14) for name in "abcd"}))
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(20 / 84), abs=1e-3)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)


def test_friedman_s_p_is_scipy_s_and_pairs_are_separable_beyond_the_critical_difference():
    rng = np.random.default_rng(1)
    columns = {
        name: rng.normal(shift, 1, 12)
        for name, shift in {"a": 0, "b": 3, "c": 1, "d": 4, "e": 2}.items()
    }
    found = across.ranks(tidy(columns))
    assert found.friedman_p == scipy.stats.friedmanchisquare(*columns.values()).pvalue
    assert list(found.mean.index) == ["d", "b", "e", "c", "a"]
    beyond = {
        (a, b) for a, b in product(found.mean.index, repeat=2)
        if found.mean[b] - found.mean[a] > found.critical_difference
    }  # fmt: skip
    assert set(found.separable) == beyond != set()


def test_ranks_turn_round_where_lower_is_better():
    rng = np.random.default_rng(2)
    values = tidy({name: rng.normal(size=7) for name in "abc"})
    up, down = (across.ranks(values, lower_is_better=lower) for lower in (False, True))
    np.testing.assert_allclose(up.mean + down.mean[up.mean.index], 4)


def test_settings_that_tie_everywhere_have_no_order():
    found = across.ranks(tidy({name: [1, 2, 3] for name in "abc"}))
    assert (found.friedman_p, found.separable, set(found.mean)) == (1, [], {2.0})


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.drop(columns="value"), "no column named 'value'"),
        (lambda v: pd.concat([v, v.iloc[:1]]), "several values for .*'a'.*average the seeds"),
        (lambda v: v.drop(index=1), "1 of 8 cells .* the first: setting 'a' on 'data 1'"),
        (lambda v: v.replace({"value": {3.0: np.inf}}), "1 of 8 cells .* 'a' on 'data 2'"),
        (lambda v: v[v["setting"] == "a"], "two settings and two data sets .* got 1 and 4"),
        (lambda v: v[v["dataset"] == "data 0"], "got 2 and 1; within one data set"),
    ],
)
def test_a_table_that_is_not_one_value_per_cell_is_refused(change, message):
    values = tidy({"a": [1, 2, 3, 4], "b": [0, 0, 0, 0]})
    with pytest.raises((ValueError, LookupError), match=message):
        across.compare(change(values))


def test_an_unknown_baseline_a_bad_alpha_and_two_settings_to_rank_are_refused():
    values = tidy({"mean": [1, 2, 3], "last": [0, 0, 0]})
    with pytest.raises(LookupError, match="did you mean 'mean'"):
        across.compare(values, baseline="maen")
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        across.compare(values, alpha=5)
    with pytest.raises(ValueError, match="three settings or more; got 2"):
        across.ranks(values)
