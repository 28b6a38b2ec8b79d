"""Paired tests across runs: units that are independent, and no significance made of many rows."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from tiny_notebook import build, lab
from tiny_series import pretend, runs

from lab import results
from lab.series import between, finished, formats, plan, tables

T = "parameter.temperature"
DATA = [f"d{i}" for i in range(6)]


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collection():
    """Statsmodels' multipletests collects garbage in every call: 0.1 s with torch loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda *_: 0)
        yield


def measured(value, *, parameters=(T,), **axes):
    """A table over runs: a row for every point of ``axes``, each parameters' point a run."""
    rows, runs = [], []
    for point in product(*axes.values()):
        named = dict(zip(axes, point, strict=True))
        own = {name: one for name, one in named.items() if name in COLUMNS}
        rows.append(results.row(**({"probe": "p", "metric": "m"} | own), value=value(**named)))
        runs.append({"run": str(point), **{p: named[p.split(".")[1]] for p in parameters}})
    return pd.concat([pd.DataFrame(runs), results._frame(results.RESULTS, rows)], axis=1)


COLUMNS = set(results.COLUMNS) - {"temperature"}


def effect(temperature, dataset="d0", **_):
    """Rises with the temperature, by another step on each data set."""
    return temperature * (int(dataset[1]) + 1)


def test_each_data_set_is_one_difference_and_the_numbers_are_those_worked_out_by_hand():
    found, left_out = between.compare(measured(effect, temperature=[0, 1], dataset=DATA), T)
    (row,) = found.to_dict("records")
    assert left_out == {}
    assert (row["metric"], row["setting"], row["baseline"]) == ("m", "1", "0")
    assert (row["n"], row["rows"], row["p"], row["p_min"]) == (6, 1, 2 / 64, 2 / 64)
    assert (row["difference"], row["low"], row["high"], row["effect"]) == (3.5, 1, 6, 1)
    assert (row["group"], row["baseline_group"]) == ("a", "b")
    assert row["verdict"] == "significant: above 0 on 6 of 6 data sets"


def test_many_rows_of_a_data_set_have_to_be_chosen_or_averaged_and_add_no_unit():
    layers = list(range(40))
    table = measured(effect, temperature=[0, 1], dataset=DATA[:3], layer=layers)
    with pytest.raises(
        ValueError, match=r"layer \(0, 1, 2, 3, ...\)\. Choose with --where layer=0"
    ):
        between.compare(table, T)
    chosen, _ = between.compare(tables.where(table, "layer", "7"), T)
    mean, _ = between.compare(table, T, average=["layer"])
    for found, rows in ((chosen, 1), (mean, 40)):
        (row,) = found.to_dict("records")
        assert (row["n"], row["rows"], row["p"], row["p_min"]) == (3, rows, 0.25, 0.25)
        assert row["verdict"].startswith("cannot be significant: 3 data sets")


def test_without_an_effect_the_tests_reject_no_more_often_than_they_say():
    rng = np.random.default_rng(0)
    naive = honest = 0
    table = measured(lambda **_: 0.0, temperature=[0, 1], dataset=DATA, layer=list(range(10)))
    shift = {(t, d): 0.0 for t in (0, 1) for d in DATA}
    for _ in range(40):
        shift = {key: rng.normal() for key in shift}  # a data set's layers move together
        cells = [shift[key] for key in zip(table[T], table["dataset"], strict=True)]
        values = table.assign(value=np.array(cells) + rng.normal(0, 0.1, len(table)))
        found, _ = between.compare(values, T, average=["layer"])
        honest += bool(found["p"].iloc[0] < 0.05)
        wide = values.pivot_table("value", ["dataset", "layer"], T)
        naive += bool(scipy.stats.wilcoxon(wide[1], wide[0]).pvalue < 0.05)
    assert honest <= 5  # 1 of 40 is expected: six data sets reject at 2 / 64
    assert naive > 12  # what pooling the rows of the layers would have claimed


def test_seeds_are_averaged_and_must_be_the_same_on_both_sides():
    seeds = {"parameters": (T, "parameter.seed"), "seed": [0, 1, 2]}

    def value(seed, **named):
        return effect(**named) * (1 + seed)

    table = measured(value, temperature=[0, 1], dataset=DATA, **seeds)
    (row,) = between.compare(table, T)[0].to_dict("records")
    assert (row["n"], row["rows"], row["difference"]) == (6, 3, 2 * 3.5)
    with pytest.raises(ValueError, match=r"0 and 1 were not measured alike on dataset d0: one of"):
        between.compare(table[(table[T] == 0) | (table["seed"] < 2)], T)


def test_over_seeds_the_claim_is_about_one_data_set_and_asked_for():
    axes = {"temperature": [0, 1], "dataset": ["d0"], "seed": list(range(6))}
    table = measured(
        lambda temperature, seed, **_: temperature * (seed + 1.0),
        parameters=(T, "parameter.seed"), **axes,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"there are 2 and 1; --unit parameter.seed asks"):
        between.compare(table, T)
    (row,) = between.compare(table, T, unit="parameter.seed")[0].to_dict("records")
    assert (row["n"], row["p"]) == (6, 2 / 64) and row["verdict"].endswith("on 6 of 6 seeds")


def test_a_seed_that_changes_nothing_is_no_replicate():
    axes = {"temperature": [0, 1], "dataset": ["d0"], "seed": list(range(9))}
    table = measured(effect, parameters=(T, "parameter.seed"), **axes)
    with pytest.raises(ValueError, match="all 9 seeds have the same values"):
        between.compare(table, T, unit="parameter.seed")


def test_two_parameters_that_change_together_cannot_be_told_apart():
    table = measured(effect, temperature=[0, 1], dataset=DATA)
    table["parameter.model"] = table[T].map({0: "a", 1: "b"})
    with pytest.raises(ValueError, match=rf"parameter.model changes together with {T}"):
        between.compare(table, T)


def test_a_column_of_the_results_that_repeats_the_setting_stands_in_no_way():
    table = measured(effect, temperature=[0, 1], dataset=DATA)
    table["temperature"] = table[T].astype(str)
    assert between.compare(table, T)[0]["n"].tolist() == [6]
    assert between.compare(table, "temperature")[0]["n"].tolist() == [6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pd.concat([t, t.head(1).assign(run="other")]), r"measured twice, by .*, other"),
        (lambda t: t[1:], r"1 of 12 cells are missing .* setting '0' on 'd0'"),
        (
            lambda t: t.assign(layer=t[T].where(t["dataset"] == "d0", 0)),
            r"alike on dataset d0: .*0",
        ),
        (lambda t: t[t[T] == 0], "two values of .* wanted; there are 1 and 6$"),
        (lambda t: t.assign(dataset=None), "there are 0 and 0"),
    ],
)
def test_what_cannot_be_paired_is_refused_with_its_place(change, message):
    with pytest.raises(ValueError, match=message):
        between.compare(change(measured(effect, temperature=[0, 1], dataset=DATA)), T)


def test_each_metric_is_corrected_by_itself_and_what_is_left_out_says_why():
    def value(metric, temperature, dataset):
        return effect(temperature, dataset) * {"m": 1, "other": -1, "few": 1}[metric]

    table = measured(value, temperature=[0, 9, 10], dataset=DATA, metric=["m", "other", "few"])
    table = table[(table["metric"] != "few") | (table["dataset"] == "d0")]
    found, left_out = between.compare(table, T)
    pairs = [("9", "10"), ("0", "10"), ("0", "9")]
    for metric, rows in found.groupby("metric"):
        assert {*zip(rows["baseline"], rows["setting"], strict=True)} == {*pairs}
        assert rows["p_holm"].tolist() == [3 * 2 / 64] * 3 and rows["group"].unique() == ["a"]
        assert (rows["difference"] > 0).all() == (metric == "m")
    assert left_out.keys() == {"few"} and "there are 3 and 1" in left_out["few"]
    against, _ = between.compare(table, T, baseline="9.0")
    assert against["p_holm"].tolist() == [2 * 2 / 64] * 4 and against["group"].isna().all()
    with pytest.raises(LookupError, match="no value named '8'; have 0, 10, 9"):
        between.compare(table, T, baseline="8")


def test_a_column_that_is_none_or_cannot_be_meant_is_refused():
    table = measured(effect, temperature=[0, 1], dataset=DATA)
    with pytest.raises(LookupError, match=r"did you mean .parameter"):
        between.compare(table, "parameter.temprature")
    for words in ({"unit": T}, {"average": ["value"]}, {"average": ["metric"]}):
        with pytest.raises(ValueError, match="they must be different columns"):
            between.compare(table, T, **words)


def test_where_takes_numbers_as_one_writes_them_and_an_empty_text_for_empty_cells():
    table = measured(effect, temperature=[0.5, 1.0], dataset=DATA)
    assert len(tables.where(table, T, "1.0")) == len(tables.where(table, T, "1")) == 6
    assert len(tables.where(table, "bin", "")) == 12
    with pytest.raises(LookupError, match=r"no parameter.temperature named '2'; have 0.5, 1"):
        tables.where(table, T, "2")


@pytest.fixture
def series(tmp_path):
    """Finished runs at three rates on six data sets, each with two layers."""
    build(tmp_path / "01_a.ipynb", parameters="rate: float = 0.5\nout_dir: str = 'runs'\n",
          reads="print(rate, out_dir)")  # fmt: skip
    (tmp_path / "s.yaml").write_text(runs(a="grid: {rate: [0.25, 1e-5, 1.0]}"))
    series = plan.load(tmp_path / "s.yaml", tmp_path / "runs")
    for run in series.runs.values():
        rate = run.settings["rate"]
        rows = [
            results.row(probe="p", metric="m", dataset=d, layer=layer, value=effect(rate, d))
            for d, layer in product(DATA, [1, 2])
        ]
        pretend(run, table=results.table(rows))
    return series


def test_lab_compare_between_writes_every_format_with_plain_values(series, tmp_path):
    words = ["compare", series.path, "--runs", series.out, "--between", "parameter.rate"]
    outs = [word for suffix in formats.WRITERS for word in ("--out", tmp_path / f"t{suffix}")]
    done = lab(*words, "--where", "layer=2", *outs)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert table["setting"].tolist() == ["1", "1", "0.25"]
    assert table["baseline"].tolist() == ["0.25", "1e-05", "1e-05"]
    csv = pd.read_csv(tmp_path / "t.csv", dtype={"setting": str, "baseline": str})
    pd.testing.assert_frame_equal(csv, table, check_dtype=False)
    html, latex = ((tmp_path / f"t.{suffix}").read_text() for suffix in ("html", "tex"))
    caption = "s: parameter.rate over dataset and layer=2"
    assert f"<caption>{caption}</caption>" in html and rf"\caption{{{caption}}}" in latex
    verdict = "cannot be significant: 6 data sets and 3 comparisons reach 0.0938 at best"
    assert verdict in html and verdict in latex


def test_lab_compare_says_what_to_choose_and_that_runs_differ_in_more(series, capsys):
    def ask(**options):
        given = {"out": None, "runs": series.out, "where": None, "metric": None} | options
        defaults = {"comparisons": False, "between": None, "baseline": None, "unit": None}
        finished.compare([series.path], **(defaults | {"average": None} | given))

    with pytest.raises(ValueError, match=r"layer \(1, 2\)\. Choose with --where layer=1"):
        ask(between="parameter.rate")
    with pytest.raises(ValueError, match="wants COLUMN=VALUE such as layer=15, came 'layer'"):
        ask(where=["layer"])
    with pytest.raises(ValueError, match=r"--unit.* belong to --between"):
        ask(unit="seed")
    with pytest.raises(ValueError, match="give one"):
        ask(between="parameter.rate", comparisons=True)
    ask(between="parameter.rate", where=["layer=1"], baseline="1e-5")
    output, errors = capsys.readouterr()
    assert errors == "" and "verdict" in output and "1e-05" in output
    runs = finished._finished([series.path], series.out)
    runs[0].content["identity"]["hashed"] |= {"lab": "another", "code_cells": "another"}
    assert tables.unlike(runs) == ["code cells", "lab code"]
