"""The tidy table: fixed schema, saved whole or not at all, byte-stable, and set beside papers."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab import results, stats
from lab.results.reported import OUTCOMES
from lab.stats import Score
from lab.stats.weighted import mean

HERE = str(Path(__file__).parent)


def one(**changes):
    values = {
        "notebook": "01_pooling",
        "checkpoint": "tiny",
        "attention": "causal",
        "temperature": 0.8,
        "layer": 3,
        "pooling": "mean",
        "dataset": "stsb-en",
        "split": "test",
        "probe": "sts",
        "metric": "cosine_spearman",
        "value": 0.493,
        "low": 0.471,
        "high": 0.512,
        "n": 1379,
        "seed": 0,
    }
    return results.row(**{**values, **changes})


def grid():
    poolings = ("mean", "last")
    return results.table(
        [one(pooling=p, layer=i, value=0.48 + i / 100) for p in poolings for i in range(3)]
    )


def compared(shift, names=("causal / mean / last", "causal / last / last")):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 200))
    units = {names[0]: noise[0] + shift, names[1]: noise[1]}
    scores = {
        name: Score("sts", "cosine_spearman", values[:, None], mean)
        for name, values in units.items()
    }
    return stats.compare_all(scores, names[1], rng=rng, resamples=200)


# Schema


def test_the_columns_are_those_agreed_on_in_their_order():
    measurement = (
        "notebook checkpoint attention temperature extension sink template template_pooled "
        "max_length layer pooling layer_mix repair design training dataset split bin "
        "length position "
        "probe metric form value low high n dim parameters truncated seed"
    )
    comparison = (
        "notebook checkpoint dataset split bin probe metric setting baseline "
        "difference low high p p_holm p_min test effect n seed"
    )
    assert results.COLUMNS == measurement.split()
    assert results.COMPARISON_COLUMNS == comparison.split()


def test_what_is_not_given_is_empty_and_types_are_fixed():
    table = results.table([one(sink=None)])
    assert list(table.columns) == results.COLUMNS
    assert table[["sink", "template", "layer_mix", "truncated"]].isna().all(axis=None)
    assert [str(table[c].dtype) for c in ("sink", "layer", "value")] == ["str", "Int64", "float64"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [(0.8, "0.8"), (1, "1"), ("logn", "logn"), ([1, 0.9], "1 0.9"), (np.float32(0.5), "0.5")],
)
def test_a_temperature_is_kept_as_text(given, kept):
    assert one(temperature=given)["temperature"] == kept


def test_an_unknown_column_is_refused_with_the_nearest():
    with pytest.raises(LookupError, match=r"no column of results named 'poolng'.*'pooling'"):
        one(poolng="mean")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 1.5}, "'layer' holds Int64; got 1.5"),
        ({"pooling": 3}, "'pooling' holds str; got 3"),
        ({"sink": True}, "'sink' holds str; got True"),
        ({"value": "0.5"}, "'value' holds float64; got '0.5'"),
    ],
)
def test_a_value_of_another_type_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        one(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": np.nan}, "row 1 of 2: 'value' is empty or NaN"),
        ({"metric": None}, "row 1 of 2: 'metric' is empty"),
        ({"value": np.inf, "high": np.inf}, "'value' is infinite"),
        ({"value": 0.6}, "the interval misses 'value'"),
        ({"low": 0.5}, "the interval misses 'value'"),
        ({"low": None}, "only one end of the interval"),
        ({"layer": 3, "value": 0.48}, "a row before it measures the same"),
    ],
)
def test_an_unsound_row_is_refused_by_its_number(changes, message):
    with pytest.raises(ValueError, match=message):
        results.table([one(), one(**{"layer": 4, **changes})])


def test_another_order_or_type_is_not_our_table():
    table = grid()
    with pytest.raises(ValueError, match="another order"):
        results.validate(table[table.columns[::-1]])
    with pytest.raises(ValueError, match=r"missing \['seed'\], unexpected \['sed'\]"):
        results.validate(table.rename(columns={"seed": "sed"}))
    with pytest.raises(ValueError, match="column 'layer' must be Int64, got float64"):
        results.validate(table.astype({"layer": float}))


def test_a_value_needs_no_interval():
    assert len(results.table([one(low=None, high=None)])) == 1


# Files


@pytest.mark.parametrize("make", [grid, lambda: results.comparison_table(compared(1), seed=0)])
def test_saving_and_loading_is_the_identity_and_byte_stable(make, tmp_path):
    table = make()
    path = results.save(table, tmp_path / "new")
    first = path.read_bytes()
    loaded = results.load(path)
    pd.testing.assert_frame_equal(loaded, table)
    assert results.save(loaded, tmp_path / "new").read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["results.parquet"]


def test_another_process_writes_the_same_bytes(tmp_path):
    code = "import test_results as t; t.results.save(t.grid(), 'there')"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": HERE, "PYTHONHASHSEED": "7"},
        check=True,
    )
    here = results.save(grid(), tmp_path / "here").read_bytes()
    assert (tmp_path / "there/results.parquet").read_bytes() == here


def test_a_file_of_another_version_is_refused(tmp_path):
    path = results.save(grid(), tmp_path)
    content = pq.read_table(path)
    later = {"lab.table": "results", "lab.version": "99"}
    for metadata in (later, None):
        pq.write_table(content.replace_schema_metadata(metadata), path)
        with pytest.raises(ValueError, match=r"of version '4'.*run the notebook again"):
            results.load(path)


def test_a_changed_cell_in_a_file_is_found_on_loading(tmp_path):
    path = results.save(grid(), tmp_path)
    content = pq.read_table(path)
    at = content.column_names.index("value")
    spoilt = pa.array([float("nan")] * len(content))
    pq.write_table(content.set_column(at, "value", spoilt), path)
    with pytest.raises(ValueError, match="'value' is empty or NaN"):
        results.load(path)


def test_a_full_disk_leaves_the_previous_file_as_it_was(tmp_path):
    results.save(grid(), tmp_path)
    before = (tmp_path / "results.parquet").read_bytes()
    code = """
        import resource, test_results as t
        table = t.grid().assign(value=0.49)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        t.results.save(table, ".")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": HERE},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "could not write" in ended.stderr
    assert "what was there before is unchanged" in ended.stderr
    assert (tmp_path / "results.parquet").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["results.parquet"]


def test_an_invalid_table_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="empty or NaN"):
        results.save(grid().assign(value=np.nan), tmp_path)
    assert not list(tmp_path.iterdir())


# Reading


def test_a_shown_cell_is_a_value_with_its_interval():
    shown = results.show(grid(), "pooling", "layer")
    assert list(shown.index) == ["mean", "last"]
    assert list(shown.columns) == [0, 1, 2]
    assert shown.loc["mean", 1] == "49.0 [47.1, 51.2]"
    bare = results.show(results.table([one(low=None, high=None)]), "pooling", "layer", digits=2)
    assert bare.loc["mean", 3] == "49.30"


def test_empty_keys_and_missing_cells_are_shown_empty():
    table = results.table([one(layer=None), one(pooling="last")])
    shown = results.show(table, ["pooling", "layer_mix"], "layer")
    assert shown.loc[("mean", ""), ""] == "49.3 [47.1, 51.2]"
    assert shown.loc[("mean", ""), 3] == ""


def test_two_measurements_in_one_cell_say_in_what_they_differ():
    with pytest.raises(ValueError, match=r"2 rows in one cell.*differ in \['dataset'\]"):
        results.show(results.table([one(), one(dataset="other")]), "pooling", "layer")
    with pytest.raises(LookupError, match="did you mean 'pooling'"):
        results.show(grid(), "poling", "layer")


def test_differences_are_shown_with_theirs():
    table = results.comparison_table(compared(1), dataset="stsb-en")
    assert results.show(table, "setting", "baseline", scale=1).iloc[0, 0] == "1.1 [0.9, 1.3]"


# Comparisons and papers


def test_comparisons_carry_the_context_of_the_experiment():
    context = {"notebook": "01", "checkpoint": "tiny", "dataset": "stsb-en", "seed": 3}
    table = results.comparison_table([compared(1)], **context)
    assert list(table.columns) == results.COMPARISON_COLUMNS
    assert table.loc[0, list(context)].to_dict() == context
    with pytest.raises(LookupError, match="did you mean 'dataset'"):
        results.comparison_table(compared(1), datset="stsb-en")


def test_every_reported_number_says_where_it_is_from():
    table = results.reported()
    filled = table[["paper", "arxiv", "source", "follows", "provenance", "model", "dataset"]]
    assert not filled.isna().any(axis=None)
    assert set(table["follows"]) == {"text", "code"}
    assert set(",".join(table["provenance"]).split(",")) <= set("CPISMN")
    assert np.isfinite(table["value"]).all()
    where = [c for c in table.columns if c not in ("value", "scale_note", "source", "provenance")]
    assert not table.duplicated(where).any()


def test_reported_averages_are_those_of_their_rows():
    table = results.reported("longembed2024").pivot_table(
        index="model", columns="dataset", values="value"
    )
    average = table.pop("LongEmbed (6)")
    wrong = (table.mean(axis=1) - average).abs() > 0.06  # rounding explains no more
    assert list(table.index[wrong]) == ["GTR"]  # its scale_note says so


def test_reported_deltas_are_those_of_the_paper():
    table = results.reported("tang2024").pivot_table(
        index="metric", columns=["pooling", "layer_mix"], values="value"
    )
    best = table["mean", "cross_attention"] - table["last", "last"]
    assert best["cosine_spearman"] == pytest.approx(0.0166)
    assert best["ndcg_at_10"] == pytest.approx(0.0226)
    assert best["v_measure"] == pytest.approx(-0.0246)


def test_an_unknown_paper_names_the_nearest():
    with pytest.raises(LookupError, match="did you mean 'tang2024'"):
        results.reported("tang2025")


def test_a_claim_puts_the_better_setting_first():
    claims = results.claims("tang2024")
    assert len(claims) == 3 * 6  # pairs of four models, in three kinds of task
    assert (claims["by"] > 0).all()
    sts = claims[claims["metric"] == "cosine_spearman"]
    assert "bidirectional / mean / cross_attention" not in set(sts["worse"])
    assert claims["worse"].str.count("/").eq(2).all()


def test_a_setting_is_labelled_by_what_is_given():
    row = {"attention": "causal", "pooling": "mean", "layer_mix": np.nan, "template": None}
    assert results.setting(row) == "causal / mean"


@pytest.mark.parametrize(
    ("shift", "outcome"), [(1, "order holds"), (-1, "order fails"), (0, "undecided")]
)
@pytest.mark.parametrize("turned", [False, True])
def test_an_order_holds_fails_or_is_undecided(shift, outcome, turned):
    # The paper: bidirectional / mean / cross_attention above causal / last / last.
    names = ["bidirectional / mean / cross_attention", "causal / last / last"]
    ours = compared(shift, names) if not turned else compared(-shift, names[::-1])
    found = results.against_reported(
        results.comparison_table(ours, checkpoint="tiny", dataset="stsb-en"), "tang2024"
    )
    assert set(found["outcome"]) == {outcome, "not measured"}
    met = found[found["outcome"] == outcome]
    assert list(met["better"]) == [names[0]]
    assert met["low"].item() < met["difference"].item() < met["high"].item()
    assert met["measured_on"].item() == "stsb-en"
    assert set(found["outcome"]) <= set(OUTCOMES)


def test_a_reported_gain_stands_beside_every_comparison_of_its_change():
    ours = pd.concat(
        results.comparison_table(compared(shift), checkpoint="tiny", dataset="stsb-en", bin=name)
        for name, shift in (("[0, 9)", 1), ("[9, 99)", -1))
    )
    found = results.against_gains(ours, "zhou2024")
    gains = [0.53, 0.82, 0.94, 1.10]  # both versions of the abstract, two benchmarks each
    assert sorted(found["reported_gain"].unique()) == gains
    assert list(found["outcome"]) == ["order holds", "order fails"] * 4
    assert set(found["bin"]) == {"[0, 9)", "[9, 99)"}
    with pytest.raises(LookupError, match="no gain of tang2024"):
        results.against_gains(ours, "tang2024")
