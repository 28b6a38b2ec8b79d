"""Remedies against length collapse: tried alike, chosen on dev alone, judged in every bin."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lab import grid, models, plotting, results, spaces
from lab.collapse import trials
from lab.collapse.candidates import TEMPERATURES, fit_by_length
from lab.collapse.cutting import token_lengths
from lab.collapse.remedies import (
    Candidate,
    Trial,
    candidates,
    choose,
    evaluate,
    growth,
    judge,
    temperature_curve,
)
from lab.data import Dataset
from lab.grid import Cell
from lab.probes import PROBES
from lab.repairs import centring, whitening
from lab.stats import Score, compare_all, holm
from lab.stats.weighted import mean

WORDS = "rain snow dog guitar clock river deep quiet nine hall runs strikes under over old".split()
BASE = Candidate("baseline", "baseline")
SHORT, LONG = "[0, 40)", "[40, 200)"
ABOUT = {"notebook": "t", "rng": np.random.default_rng(0), "resamples": 99}


def sentences(rng, n, words):
    """n different texts of so many words."""
    drawn = [" ".join(rng.choice(WORDS, words)) for _ in range(3 * n)]
    return list(dict.fromkeys(drawn))[:n]


def dataset(kind, texts, name="made", split="test", queries=None, documents=None, **columns):
    return Dataset(name=name, kind=kind, split=split, texts=texts, frame=pd.DataFrame(columns),
                   origin="test", licence="CC0-1.0", sha256={}, n=None, seed=0,
                   queries=queries, documents=documents)  # fmt: skip


def pairs(seed, words, split="test", n=12, name="made"):
    rng = np.random.default_rng(seed)
    first, second = np.arange(0, 2 * n, 2), np.arange(1, 2 * n, 2)
    gold = rng.permutation(n) / 3
    texts = sentences(rng, 2 * n, words)
    return dataset("sts", texts, name, split, first=first, second=second, score=gold)


@pytest.fixture(scope="module")
def llama():
    """An untrained model whose matrices are scaled up so that attention matters."""
    model = models.load("random:llama")
    for parameter in model.encoder.model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    return model


@pytest.fixture(scope="module")
def fit_texts():
    rng = np.random.default_rng(9)
    return [*sentences(rng, 30, 4), *sentences(rng, 30, 11)]


@pytest.fixture(scope="module")
def sets():
    dev = {"one": pairs(1, 5, "dev", name="one"), "two": pairs(2, 8, "dev", name="two")}
    return dev, {SHORT: pairs(3, 4), LONG: pairs(4, 12)}


@pytest.fixture(scope="module")
def remedies(llama):
    return candidates(llama, temperatures=(0.5, 1.0), part_temperatures=(0.3,),
                      reference_lengths=(8,), edges=(0, 40, 200), windows=(16,))  # fmt: skip


@pytest.fixture(scope="module")
def tried(llama, remedies, fit_texts, sets):
    dev, test = sets
    return evaluate(llama, remedies, fit_texts=fit_texts, dev=dev, test=test, seed=0)


# --- candidates --------------------------------------------------------------------------------


def test_the_default_families_are_complete_with_labels_of_their_own(llama):
    found = candidates(llama, edges=(0, 100), learned=[0.9, 0.8, 1.1])
    assert list(dict.fromkeys(one.family for one in found)) == [
        "baseline", "temperature", "temperature per layer", "log-n", "learned temperature",
        "centring", "whitening", "all_but_the_top", "centring per length bin", "pooling",
        "late chunking", "chunk and average",
    ]  # fmt: skip
    assert len({one.label for one in found}) == len(found)
    assert [one.settings["temperature"] for one in found[1:8]] == list(TEMPERATURES)
    length = llama.encoder.max_length  # so that windows read no more than the baseline
    expected = {"extension": "parallel-windows/128", "max_length": length}
    assert found[-1].settings == expected


def test_thirds_of_the_layers_are_tempered_in_turn_and_each_layer_once():
    model = models.load("random:bert")
    found = [one for one in candidates(model) if one.family == "temperature per layer"]
    assert found[:3] == [one for one in found if "0.6" in one.label]
    values = np.array([one.settings["temperature"] for one in found[:3]])
    np.testing.assert_array_equal((values == 0.6).sum(0), 1)
    np.testing.assert_array_equal(np.sort(values, axis=0)[1:], 1)
    assert values[0][0] == values[1][1] == values[2][2] == 0.6


def test_empty_sequences_leave_families_out_and_the_read_out_is_that_of_all(llama):
    found = candidates(llama, temperatures=(), part_temperatures=(), reference_lengths=(),
                       repairs=(), poolings=(), windows=(), late_chunking=False)  # fmt: skip
    assert found == [BASE]
    elsewhere = candidates(llama, pooling="max", layer=1, poolings=("mean",))
    assert {one.layer for one in elsewhere} == {1}
    assert {one.pooling for one in elsewhere if one.family != "pooling"} == {"max", "late_chunking"}


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"temperatures": (0,)}, ValueError, "a positive finite number; got 0"),
        ({"part_temperatures": (-1.0,)}, ValueError, "a positive finite number; got -1.0"),
        ({"reference_lengths": (1,)}, ValueError, "'log-n/1' is not known"),
        ({"learned": [0.5, 0.6]}, ValueError, "2 temperatures for 3 layers"),
        ({"poolings": ("maen",)}, LookupError, "did you mean 'mean'"),
        ({"pooling": "maen"}, LookupError, "did you mean 'mean'"),
        ({"windows": (1,)}, ValueError, "not of the form parallel-windows/L"),
    ],
)
def test_candidates_that_no_model_can_be_are_refused_when_they_are_made(llama, options, error, why):
    with pytest.raises(error, match=why):
        candidates(llama, **options)


def test_numbers_of_numpy_are_temperatures_too(llama):
    found = candidates(llama, temperatures=np.array([0.5, 1], dtype=np.float32),
                       learned=np.ones(3, dtype=np.float32))  # fmt: skip
    assert [one.settings["temperature"] for one in found[1:3]] == [0.5, 1.0]
    assert [1.0, 1.0, 1.0] in [one.settings.get("temperature") for one in found]


def test_a_model_of_two_layers_has_no_thirds(llama, monkeypatch):
    monkeypatch.setattr("lab.collapse.candidates.depth", lambda model: 2)
    with pytest.raises(
        ValueError, match=r"2 layers has no three parts; give part_temperatures=\(\)"
    ):
        candidates(llama)
    assert candidates(llama, part_temperatures=())


# --- trials ------------------------------------------------------------------------------------


def by_hand(model, candidate, texts, fit_texts):
    """What a candidate makes of texts by another route: encode, repair in numpy."""
    layers = {} if candidate.layer == -1 else {"layers": candidate.layer}
    changed = models.variant(model, pooling=candidate.pooling, **layers, **candidate.settings)
    both = changed.encode([*texts, *fit_texts])
    rows, fit = both[: len(texts)], both[len(texts) :]
    if candidate.family == "centring":
        return rows - fit.mean(0)
    if candidate.family == "centring per length bin":
        long, fit_long = (token_lengths(model, some) >= 40 for some in (texts, fit_texts))
        centres = np.stack([fit[~fit_long].mean(0), fit[fit_long].mean(0)])
        return rows - centres[long.astype(int)]
    return rows if candidate.repair is None else candidate.repair.fit(fit).transform(rows)


def test_every_trial_s_score_is_that_of_its_model_embeddings_and_repair(
    llama, remedies, tried, fit_texts, sets
):
    data = sets[0] | sets[1]
    assert len(tried) == len(remedies) * 4
    found = {(one.candidate.label, one.dataset): one.cell.score.value for one in tried}
    texts = [text for one in data.values() for text in one.texts]
    for candidate in remedies:
        rows = by_hand(llama, candidate, texts, fit_texts).reshape(4, 24, -1)
        for embeddings, (name, one) in zip(rows, data.items(), strict=True):
            expected = PROBES[one.kind](one, embeddings, seed=0).value
            assert found[candidate.label, name] == pytest.approx(expected, abs=1e-6), candidate
    assert len(set(found.values())) > 40, "candidates differ, so a mix-up would be seen"


def test_trials_come_in_the_order_of_the_candidates_and_tell_dev_from_test(remedies, tried, sets):
    assert [trial.candidate.label for trial in tried[::4]] == [one.label for one in remedies]
    for trial in tried:
        assert trial.judged == (trial.dataset in sets[1])
        assert trial.cell.settings["split"] == ("test" if trial.judged else "dev")
        assert trial.cell.settings["bin"] == (trial.dataset if trial.judged else None)


def test_candidates_of_the_same_settings_share_one_pass_over_each_text(
    llama, fit_texts, sets, monkeypatch
):
    asked = []

    def embed(model, texts, **options):
        asked.append((model.encoder.temperature, len(list(texts)), options["poolings"]))
        return real(model, texts, **options)

    real = spaces.embed
    monkeypatch.setattr(trials.spaces, "embed", embed)
    some = [
        BASE,
        Candidate("t", "cold", {"temperature": 0.5}),
        Candidate("pooling", "max", pooling="max"),
        Candidate("repair", "c", repair=centring()),
        Candidate("t", "cold and centred", {"temperature": 0.5}, repair=centring()),
    ]
    dev, test = sets
    evaluate(llama, some, fit_texts=fit_texts, dev=dev, test=test, seed=0)
    everything = len(fit_texts) + 4 * 24
    assert asked == [(None, everything, ["mean", "max"]), (0.5, everything, ["mean"])]


def test_a_temperature_of_one_is_the_baseline_to_the_last_bit(tried):
    one, base = (
        [t.cell.score for t in tried if t.candidate.label == label]
        for label in ("temperature 1", "baseline")
    )
    assert all(np.array_equal(a.units, b.units) for a, b in zip(one, base, strict=True))


def test_all_trials_are_rows_of_the_tidy_table(tried, rng):
    table = grid.tabulate((t.cell for t in tried), notebook="t", rng=rng, resamples=20)
    assert results.validate(table) is table
    assert table["bin"].dropna().unique().tolist() == [SHORT, LONG]
    assert set(table["temperature"].dropna()) == {
        "0.5", "1", "0.3 1 1", "1 0.3 1", "1 1 0.3", "log-n/8"
    }  # fmt: skip
    assert table["repair"].dropna().unique().tolist() == [
        "centring", "whitening(shrinkage=ledoit-wolf)", "all_but_the_top",
        "centring per length bin",
    ]  # fmt: skip


def test_remedies_work_on_encoders_and_on_bins_of_other_kinds(fit_texts):
    rng = np.random.default_rng(5)
    texts = sentences(rng, 40, 5)
    label, part = np.array(["a", "b"] * 20), np.repeat(["train", "test"], 20)
    test = dataset("classification", texts, text=np.arange(40), label=label, part=part)
    some = [BASE, Candidate("t", "cold", {"temperature": 0.5}), Candidate("l", "first", layer=1)]
    model = models.load("random:bert")
    found = evaluate(
        model, some, fit_texts=(), dev={"dev": pairs(1, 5)}, test={"all": test}, seed=0
    )
    assert [trial.cell.score.metric for trial in found[:2]] == ["cosine_spearman", "accuracy"]
    assert [trial.cell.settings["layer"] for trial in found] == [3, 3, 3, 3, 1, 1]


def test_labels_that_repeat_and_a_missing_baseline_are_refused(llama, sets):
    def asked(*some, dev=sets[0], test=sets[1]):
        return evaluate(llama, some, fit_texts=(), dev=dev, test=test, seed=0)

    cold = Candidate("t", "cold", {"temperature": 0.5})
    with pytest.raises(ValueError, match="2 candidates are labelled 'cold'"):
        asked(BASE, cold, cold)
    with pytest.raises(ValueError, match=r"one candidate is the baseline.*got 0 of that family"):
        asked(cold)
    with pytest.raises(ValueError, match="got 2 of that family among 2"):
        asked(BASE, Candidate("baseline", "another"))
    with pytest.raises(ValueError, match="a dev set and a test set wanted; got 0 and 2"):
        asked(BASE, dev={})
    with pytest.raises(ValueError, match="got 2 and 0"):
        asked(BASE, test={})
    with pytest.raises(ValueError, match="a positive finite number; got -1"):
        asked(BASE, Candidate("t", "below", {"temperature": -1}))


def test_sets_that_overlap_and_repairs_that_saw_the_test_are_refused(llama, sets):
    dev, test = sets
    some = [BASE, Candidate("c", "c", repair=centring())]
    with pytest.raises(ValueError, match=r"12 of 12 rows that the dev set 'again' has"):
        evaluate(llama, some, fit_texts=(), dev={"again": test[LONG]}, test=test, seed=0)
    texts = test[LONG].texts[:3]
    with pytest.raises(ValueError, match="3 of the 3 texts that repairs are fitted on are judged"):
        evaluate(llama, some, fit_texts=texts, dev=dev, test=test, seed=0)
    with pytest.raises(
        ValueError, match="12 of 12 rows that the learned set 'mine' has are judged in the test set"
    ):
        evaluate(llama, some, fit_texts=(), dev=dev, test=test, seed=0,
                 learned_on={"mine": test[SHORT]})  # fmt: skip
    other = sentences(np.random.default_rng(7), 9, 6)
    with pytest.raises(ValueError, match="fitted on the test split has seen"):
        evaluate(llama, some, fit_texts=other, dev=dev, test=test, seed=0, fit_split="test")


# --- a repair per length bin -------------------------------------------------------------------


def test_centring_per_length_bin_takes_away_a_shift_that_depends_on_length(rng):
    lengths = rng.integers(0, 300, 200)
    rows = rng.normal(size=(200, 5))
    shifted = rows + (lengths[:, None] // 100) * np.arange(1, 6)
    fitted = fit_by_length(
        centring(), shifted, lengths, (0, 100, 200, 300), split="train", least=20
    )
    found = fitted.transform(shifted, lengths)
    for low in (0, 100, 200):
        inside = (lengths >= low) & (lengths < low + 100)
        np.testing.assert_allclose(found[inside], rows[inside] - rows[inside].mean(0), atol=1e-12)


def test_any_repair_is_fitted_per_bin_on_the_rows_of_that_bin_alone(rng):
    lengths, rows = np.repeat([5, 50], 30), rng.normal(size=(60, 4)).astype(np.float32)
    fitted = fit_by_length(
        whitening(components=2), rows, lengths, (0, 10, 100), split="dev", least=9
    )
    new = rng.normal(size=(3, 4)).astype(np.float32)
    found = fitted.transform(new, np.array([50, 5, 7]))
    assert found.dtype == np.float32
    for row, part in ((0, rows[30:]), (1, rows[:30]), (2, rows[:30])):
        expected = whitening(components=2).fit(part).transform(new[[row]])
        np.testing.assert_allclose(found[[row]], expected, rtol=1e-5)


def test_bins_with_too_few_fit_texts_are_named(rng):
    lengths = np.array([1] * 30 + [150] * 4 + [250])
    with pytest.raises(
        ValueError,
        match=r"too few texts to fit centring in 2 of 3 length bins, 20 or more wanted: "
        r"\[100, 200\) has 4, \[200, 300\) has 1; fit on more texts",
    ):
        fit_by_length(centring(), rng.normal(size=(35, 3)), lengths, (0, 100, 200, 300),
                      split="train", least=20)  # fmt: skip


def test_a_text_in_no_fitted_bin_and_the_test_split_are_refused(rng):
    rows, lengths = rng.normal(size=(30, 3)), np.full(30, 5)
    fitted = fit_by_length(centring(), rows, lengths, (0, 10), split="train", least=2)
    with pytest.raises(ValueError, match=r"text 1 has 10 tokens and lies in none .*\[0, 10\) \(2"):
        fitted.transform(rows[:3], np.array([5, 10, 99]))
    with pytest.raises(ValueError, match="text 0 has 5 tokens and lies in none"):
        fit_by_length(centring(), rows, lengths, (6, 10), split="train", least=2)
    with pytest.raises(ValueError, match="fitted on the test split"):
        fit_by_length(centring(), rows, lengths, (0, 10), split="test", least=2)


# --- choosing ----------------------------------------------------------------------------------


def trial(candidate, units, name="dev", judged=False, **changes):
    """A trial whose score is the mean of these units."""
    score = Score("retrieval", "ndcg_at_10", np.asarray(units, dtype=float)[:, None], mean)
    settings = {"checkpoint": "m", "dataset": "d", "split": "test", "seed": 0, "layer": 3,
                "layer_mix": None, "bin": name if judged else None}  # fmt: skip
    return Trial(candidate, name, judged, Cell({**settings, **changes}, score, 3))


COLD, WARM, WHITE = (
    Candidate(family, label)
    for family, label in (("temperature", "cold"), ("temperature", "warm"), ("repair", "white"))
)


def test_the_best_of_each_family_is_chosen_by_its_mean_over_dev_sets():
    found = choose([
        trial(BASE, [1.0, 1.0], "a"), trial(BASE, [1.0, 1.0], "b"),
        trial(COLD, [0.9, 0.9], "a"), trial(COLD, [0.1, 0.1], "b"),
        trial(WARM, [0.6, 0.6], "a"), trial(WARM, [0.5, 0.5], "b"),
        trial(WHITE, [0.0, 0.0], "a"), trial(WHITE, [0.0, 0.0], "b"),
    ])  # fmt: skip
    assert found == {"temperature": WARM, "repair": WHITE}


def test_test_scores_never_change_the_choice_and_the_first_of_equals_is_taken():
    dev = [trial(COLD, [0.5, 0.7]), trial(WARM, [0.6, 0.6])]
    test = [trial(COLD, [0.0, 0.0], "bin", True), trial(WARM, [1.0, 1.0], "bin", True)]
    assert choose(dev) == choose(test + dev) == {"temperature": COLD}
    with pytest.raises(ValueError, match="no remedy was tried on a dev set"):
        choose(test)
    with pytest.raises(ValueError, match="no remedy was tried on a dev set"):
        choose([trial(BASE, [1.0, 1.0])])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_dev_score_that_is_not_finite_is_refused_with_candidate_and_set(value, place):
    tried = [trial(COLD, [0.5, 0.7], "a"), trial(WARM, [0.6, 0.6], "a")]
    candidate = (COLD, WARM)[place]
    score = SimpleNamespace(value=value)  # as of a rank correlation where all cosines are one
    tried[place] = Trial(candidate, "mine", False, Cell({}, score, 3))
    name = candidate.label
    with pytest.raises(ValueError, match=rf"'{name}' scores {value} on the dev set 'mine'"):
        choose(tried)


# --- judging -----------------------------------------------------------------------------------


def planted(rng, gains, n=(60, 40)):
    """Trials in two bins where COLD adds some gain per bin, with noise, and WHITE nothing."""
    found = []
    for name, gain, size in zip((SHORT, LONG), gains, n, strict=True):
        base = rng.uniform(size=size)
        found += [
            trial(BASE, base, name, True),
            trial(COLD, base + gain + 0.05 * rng.normal(size=size), name, True),
            trial(WHITE, base + 0.05 * rng.normal(size=size), name, True),
        ]
    return found


CHOSEN = {"temperature": COLD, "repair": WHITE}


def test_each_remedy_is_compared_with_the_baseline_in_each_bin(rng):
    tried = planted(rng, (0.0, 0.2))
    found = judge(tried, CHOSEN, **ABOUT)
    assert results.validate(found) is found
    assert found[["bin", "setting", "baseline"]].to_numpy().tolist() == [
        [name, label, "baseline"] for name in (SHORT, LONG) for label in ("cold", "white")
    ]
    value = {(t.candidate.label, t.dataset): t.cell.score.value for t in tried}
    expected = [
        value[row.setting, row.bin] - value["baseline", row.bin] for row in found.itertuples()
    ]
    np.testing.assert_allclose(found["difference"], expected)
    assert found["n"].tolist() == [60, 60, 40, 40]
    assert (found["p"] < 0.05).tolist()[2]
    assert (found["p_min"] == 0.01).all()


def test_holm_runs_over_all_remedies_and_bins_together(rng):
    tried = planted(rng, (0.02, 0.02))
    found = judge(tried, CHOSEN, **{**ABOUT, "rng": np.random.default_rng(3)})
    np.testing.assert_allclose(found["p_holm"], holm(found["p"]))
    alone = []
    again = np.random.default_rng(3)
    for name in (SHORT, LONG):
        scores = {t.candidate.label: t.cell.score for t in tried if t.dataset == name}
        alone.append(compare_all(scores, "baseline", rng=again, resamples=99))
    alone = pd.concat(alone)
    np.testing.assert_allclose(found["p"], alone["p"])
    np.testing.assert_allclose(found["low"], alone["low"])
    assert (found["p_holm"].to_numpy() > alone["p_holm"].to_numpy()).any()


def test_trials_of_two_models_or_data_sets_are_not_judged_together(rng):
    tried = planted(rng, (0, 0))
    other = trial(BASE, [1.0, 2.0], "another", True, dataset="e")
    with pytest.raises(ValueError, match=r"trials of one dataset wanted, got \['d', 'e'\]"):
        judge([*tried, other], CHOSEN, **ABOUT)
    with pytest.raises(ValueError, match="no candidate was tried on a test set"):
        judge([trial(BASE, [1.0, 2.0])], CHOSEN, **ABOUT)


def test_what_was_not_tried_is_named_with_what_was(rng):
    tried = planted(rng, (0, 0))
    with pytest.raises(
        LookupError, match=r"'warm' was not tried on '\[0, 40\)'; there are the bin"
    ):
        judge(tried, {"temperature": WARM}, **ABOUT)
    with pytest.raises(
        LookupError, match=r"not tried on '\[0, 4\)'; .*\[0, 40\), \[40, 200\) and 3"
    ):
        growth(tried, CHOSEN, shortest="[0, 4)", longest=LONG, **ABOUT)


# --- does the gain grow with length? -----------------------------------------------------------


def grown(tried, chosen=CHOSEN):
    about = {"notebook": "t", "rng": np.random.default_rng(0), "resamples": 2000}
    return growth(tried, chosen, shortest=SHORT, longest=LONG, **about)


def test_growth_is_the_gain_on_long_texts_minus_the_gain_on_short_ones(rng):
    tried = planted(rng, (0.05, 0.2))
    found = grown(tried)
    assert results.validate(found) is found
    judged = judge(tried, CHOSEN, **ABOUT).set_index(["setting", "bin"])["difference"]
    for row in found.itertuples():
        expected = judged[row.setting, LONG] - judged[row.setting, SHORT]
        assert row.difference == pytest.approx(expected)
    assert found["bin"].unique().tolist() == [f"{LONG} minus {SHORT}"]
    assert (found["n"] == 100).all() and (found["test"] == "bootstrap").all()
    np.testing.assert_allclose(found["p_holm"], holm(found["p"]))


@pytest.mark.parametrize("alike", [True, False])
def test_the_interval_of_growth_is_that_of_two_independent_samples(rng, alike):
    gains = [0.1 * rng.normal(size=n) for n in (50, 80)]
    gains = [gains[0], gains[0]] if alike else gains
    tried = []
    for name, gain in zip((SHORT, LONG), gains, strict=True):
        base = rng.uniform(size=len(gain))
        tried += [trial(BASE, base, name, True), trial(COLD, base + gain, name, True)]
    error = np.sqrt(sum(gain.var() / len(gain) for gain in gains))
    row = grown(tried, {"temperature": COLD}).iloc[0]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert row["low"] < row["difference"] < row["high"]


def test_growth_is_found_where_it_is_planted_and_not_where_the_gain_is_even(rng):
    p = grown(planted(rng, (0.0, 0.1))).set_index("setting")["p_holm"]
    assert p["cold"] < 0.01
    even = grown(planted(rng, (0.1, 0.1))).set_index("setting")
    assert even.loc["cold", "low"] < 0 < even.loc["cold", "high"]
    assert even.loc["cold", "p"] > 0.05


def test_growth_of_a_remedy_that_changes_nothing_is_zero_with_p_one(rng):
    tried = planted(rng, (0.0, 0.0))
    same = [trial(WARM, t.cell.score.units[:, 0], t.dataset, True)
            for t in tried if t.candidate == BASE]  # fmt: skip
    found = growth([*tried, *same], {"temperature": WARM}, shortest=SHORT, longest=LONG, **ABOUT)
    assert found[["difference", "low", "high", "p"]].to_numpy().tolist() == [[0, 0, 0, 1]]


def test_growth_works_on_scores_of_ranks_and_of_trials_that_were_run(tried):
    chosen = choose(tried)
    found = growth(tried, chosen, shortest=SHORT, longest=LONG, **ABOUT)
    assert found["setting"].tolist() == [one.label for one in chosen.values()]
    assert found["metric"].unique().tolist() == ["cosine_spearman"]


# --- the curve ---------------------------------------------------------------------------------


def test_the_curve_holds_every_temperature_on_every_dev_set_and_bin(tried, rng):
    table = temperature_curve(tried, notebook="t", rng=rng, resamples=20)
    assert results.validate(table) is table
    assert len(table) == 2 * (2 + 2)
    assert set(table["temperature"]) == {"0.5", "1"}
    assert table["bin"].isna().sum() == 4
    bins = table.dropna(subset="bin").astype({"temperature": float})
    axes = plotting.curves(bins, x="temperature", hue="bin")
    assert sorted(axes.lines[0].get_xdata()) == [0.5, 1.0]
    with pytest.raises(ValueError, match="no candidate of the family 'temperature'"):
        temperature_curve([trial(BASE, [1.0, 2.0])], notebook="t", rng=rng)
