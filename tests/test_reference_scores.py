"""The reference scores of real weights on real data; docs/log.md quotes them."""

import pytest

from lab import grid, models
from lab.data import load

PROMPT_EOL = 'This sentence : "{text}" means in one word:"'

pytestmark = [pytest.mark.weights, pytest.mark.mirror, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def stsb(mirror):
    return load("stsb-en", "test")


def scores(model, dataset, designs):
    """100 x Spearman of each design."""
    cells = grid.designs(model, dataset, designs, seed=0, progress=False)
    return [100 * cell.score.value for cell in cells]


def test_minilm_on_stsb(minilm, stsb):
    found = scores(minilm, stsb, [("mean", "last"), ("first", "last"), ("last", "last")])
    assert found == pytest.approx([82.0, 73.5, 78.0], abs=0.3)


@pytest.mark.slow
def test_smollm2_on_stsb_without_a_sink(smollm2, stsb):
    found = scores(smollm2, stsb, [("mean", "last"), ("last", "last"), ("mean", "layer 15")])
    assert found[:2] == pytest.approx([37.2, 31.6], abs=0.3)
    assert found[2] == pytest.approx(14.9, abs=1.0)


@pytest.mark.slow
def test_smollm2_on_stsb_with_a_sink(smollm2, stsb):
    found = scores(models.variant(smollm2, sink=True), stsb, [("mean", "layer 15")])
    assert found == pytest.approx([49.3], abs=1.0)


@pytest.mark.slow
def test_smollm2_on_stsb_with_prompt_eol(smollm2, stsb):
    found = scores(models.variant(smollm2, template=PROMPT_EOL), stsb, [("last", "last")])
    assert found == pytest.approx([66.4], abs=0.3)
