"""The grid of designs: labels, choices, tables and contrasts."""

import numpy as np
import pytest

from lab import data, grid, models, probes, results


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama", attention="causal")


@pytest.fixture(scope="module")
def pairs():
    return data.load("wordnet-similarity", "dev", n=25)


@pytest.fixture(scope="module")
def cells(llama, pairs):
    return grid.evaluate(
        llama, pairs, poolings=["mean", "max"], mixes=["first_last"], seed=0, progress=False
    )


def test_a_cell_for_every_layer_mix_and_pooling(cells):
    assert len(cells) == 2 * (4 + 1)
    assert {cell.label for cell in cells} >= {
        "causal / mean / last",
        "causal / max / layer 0",
        "causal / mean / first_last",
    }


def test_a_score_equals_the_probe_on_the_embeddings_of_the_model_itself(llama, pairs, cells):
    for design in ({"layers": 2}, {"layers": "first_last"}):
        model = models.variant(llama, pooling="max", **design)
        expected = probes.PROBES["sts"](pairs, model.encode(pairs.texts), seed=0).value
        label = f"causal / max / {design['layers']}".replace("/ 2", "/ layer 2")
        (cell,) = grid.matching(cells, label=label)
        assert cell.score.value == pytest.approx(expected, abs=1e-6)


def test_designs_are_some_cells_of_the_grid_in_the_order_asked_for(llama, pairs, cells):
    chosen = [("max", "first_last"), ("mean", "layer 1"), ("max", "last")]
    found = grid.designs(llama, pairs, chosen, seed=0, progress=False)
    labels = ["causal / max / first_last", "causal / mean / layer 1", "causal / max / last"]
    assert [cell.label for cell in found] == labels
    for cell in found:
        (same,) = grid.matching(cells, label=cell.label)
        assert same.score.value == pytest.approx(cell.score.value, abs=1e-6)


def test_layers_that_do_not_exist_are_refused_and_none_is_scored_twice(llama, pairs):
    for layers in ([77], [-9]):
        with pytest.raises(ValueError, match="does not exist"):
            grid.evaluate(llama, pairs, layers=layers, mixes=["last"], seed=0)
    with pytest.raises(ValueError, match="layer 99 does not exist"):
        grid.designs(llama, pairs, [("mean", "layer 99"), ("mean", "mean_of_all")], seed=0)
    with pytest.raises(LookupError, match="did you mean 'first_last'"):
        grid.designs(llama, pairs, [("mean", "first-last")], seed=0)
    same = grid.evaluate(llama, pairs, poolings=["mean"], layers=[-1, 3], seed=0, progress=False)
    assert len(same) == 1


def test_the_best_cell_has_the_highest_score(cells):
    assert grid.best(cells).score.value == max(cell.score.value for cell in cells)


def test_the_table_has_a_row_a_cell_with_an_interval_around_the_value(cells):
    table = grid.tabulate(cells, notebook="test", rng=np.random.default_rng(0), resamples=50)
    assert len(table) == len(cells)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert results.validate(table) is table


def test_templates_pooled_and_left_out_are_different_designs(llama, pairs):
    template = {"template": "query: {text}"}
    both = [
        cell
        for pooled in (True, False)
        for cell in grid.designs(
            models.variant(llama, **template, pool_template=pooled),
            pairs,
            [("mean", "last")],
            seed=0,
            progress=False,
        )
    ]
    assert len({cell.label for cell in both}) == 2
    assert len(grid.tabulate(both, notebook="t", rng=np.random.default_rng(0), resamples=50)) == 2


def test_a_contrast_is_paired_with_its_baseline_and_corrected_within_its_family(cells):
    found = grid.contrast(
        cells, "causal / max / last", notebook="test", rng=np.random.default_rng(0), resamples=99
    )
    assert len(found) == len(cells) - 1
    assert (found["p_holm"] >= found["p"]).all()
    (base,) = grid.matching(cells, label="causal / max / last")
    for row in found.itertuples():
        (cell,) = grid.matching(cells, label=row.setting)
        assert row.difference == pytest.approx(cell.score.value - base.score.value)


def test_two_designs_of_one_label_and_a_missing_baseline_are_refused(cells):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="two designs are labelled"):
        grid.contrast([*cells, cells[0]], "causal / max / last", notebook="test", rng=rng)
    with pytest.raises(LookupError, match="causal / max / last"):
        grid.contrast(cells, "causal / max / lst", notebook="test", rng=rng)
