"""Moments, spectrum and stream: closed forms, brute force, the published package, any chunking."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp

from lab import anisotropy
from lab.anisotropy import MEASURES, Moments, Stream, spectrum
from lab.anisotropy.stream import _group, _key
from lab.stats.jackknife import Jackknife, jackknife

OF_MOMENTS = [name for name, one in MEASURES.items() if one.reads != "rows"]
SHIFT_FREE = [name for name in OF_MOMENTS if MEASURES[name].form == "centred"]
SCALE_FREE = sorted(set(OF_MOMENTS) - {"isoscore_star(zeta=0.5)", "partition_second_order"})


def moments(rows):
    return Moments.of(torch.from_numpy(np.ascontiguousarray(rows)))


def value(name, rows):
    return MEASURES[name](moments(rows))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def published_isoscore(rows):
    """The six steps of the paper, by PCA."""
    d = rows.shape[1]
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T))
    scaled = np.sqrt(d) * eigenvalues / np.linalg.norm(eigenvalues)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    return ((d - defect**2 * (d - np.sqrt(d))) ** 2 - d) / (d * (d - 1))


# Moments


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_moments_are_those_of_numpy_far_from_the_origin_too(rng, dtype, tolerance):
    rows = (rng.standard_normal((500, 7)) + 100 * np.arange(7)).astype(dtype)
    found = moments(rows)
    exact = rows.astype(float)
    assert np.allclose(found.mean, exact.mean(0), rtol=1e-7)
    assert np.allclose(found.covariance, np.cov(exact.T), atol=tolerance)
    assert np.allclose(found.directions.total, unit(exact).sum(0), rtol=1e-5)
    assert np.allclose(found.directions.squares, (unit(exact) ** 2).sum(0), rtol=1e-5)


def test_two_halves_add_up_to_the_whole_and_a_half_can_be_taken_away(rng):
    rows = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5)) + 3
    first, second, whole = moments(rows[:120]), moments(rows[120:]), moments(rows)
    for found, wanted in ((first + second, whole), (whole - first, second)):
        assert found.n == wanted.n
        for mine, theirs in (
            (found.mean, wanted.mean),
            (found.scatter, wanted.scatter),
            (found.directions.total, wanted.directions.total),
            (found.directions.squares, wanted.directions.squares),
        ):
            assert torch.allclose(mine, theirs, rtol=1e-10)


def test_adding_forgets_the_spectrum_computed_before(rng):
    rows = rng.standard_normal((50, 4))
    some = moments(rows[:20])
    before = some.spectrum
    some += moments(rows[20:])
    assert np.allclose(some.spectrum, moments(rows).spectrum)
    assert not np.allclose(some.spectrum, before)


# Oracles of the measures


def test_average_cosine_is_the_mean_off_diagonal_of_the_gram_matrix(rng):
    rows = rng.standard_normal((200, 30)) + 0.4
    gram = unit(rows) @ unit(rows).T
    brute = (gram.sum() - len(rows)) / (200 * 199)
    assert value("average_cosine", rows) == pytest.approx(brute, abs=1e-12)
    assert spectrum.contributions(moments(rows)).sum() == pytest.approx(brute, abs=1e-12)


def test_contributions_are_those_of_all_pairs(rng):
    u = unit(rng.standard_normal((12, 5)) + 1)
    brute = np.mean([u[a] * u[b] for a, b in itertools.permutations(range(12), 2)], axis=0)
    assert np.allclose(spectrum.contributions(moments(u)), brute, atol=1e-14)


def test_average_cosine_of_a_shifted_gaussian_and_of_one_ray(rng):
    rows = rng.standard_normal((3000, 64)) + 0.5
    assert value("average_cosine", rows) == pytest.approx(16 / (16 + 64), abs=0.01)
    assert value("average_cosine", np.outer(rng.random(50) + 1, np.ones(4))) == pytest.approx(1)


@pytest.mark.parametrize(("n", "d"), [(500, 3), (2000, 50), (1000, 100), (768, 768), (200, 768)])
def test_isoscore_is_the_published_one(rng, n, d):
    rows = rng.standard_normal((n, d)) * np.linspace(0.5, 2, d)
    assert value("isoscore", rows) == pytest.approx(published_isoscore(rows), abs=1e-10)


@pytest.mark.parametrize("zeta", [0.0, 0.3, 0.9, 1.0])
def test_isoscore_and_its_star_are_those_of_the_published_package(rng, zeta):
    from IsoScore.IsoScore import IsoScore, IsoScore_star

    rows = rng.standard_normal((600, 40)) @ rng.standard_normal((40, 40))
    assert value("isoscore", rows) == pytest.approx(float(IsoScore(rows)), abs=1e-6)
    theirs = float(IsoScore_star(rows, torch.eye(40), zeta))
    assert spectrum.isoscore_star(moments(rows), zeta) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(("n", "spread"), [(200, 0.0114), (768, 0.003), (3000, 0.0008)])
def test_corrected_isoscore_of_an_isotropic_gaussian_is_one_at_any_size(n, spread):
    draws = [np.random.default_rng(seed).standard_normal((n, 768)) for seed in range(6)]
    corrected = np.array([value("isoscore_corrected", rows) for rows in draws])
    assert np.abs(corrected - 1).max() < 0.03
    assert np.abs(corrected - 1).max() < 4 * spread  # what the estimate itself varies
    law = MEASURES["isoscore"].isotropic(n, 768)
    assert value("isoscore", draws[0]) == pytest.approx(law, abs=0.005)
    assert law == pytest.approx((768 * n / (768 + n) - 1) / 767, abs=0.002)


def test_the_corrected_traces_are_unbiased(rng):
    variances = np.array([3.0, 2.0, 1.0, 1.0, 0.5])
    draws = [rng.standard_normal((12, 5)) * np.sqrt(variances) for _ in range(4000)]
    found = np.array([spectrum.unbiased_traces(moments(rows)) for rows in draws])
    error = found.std(0) / np.sqrt(len(found))
    true = [variances.sum() ** 2, (variances**2).sum()]
    assert np.all(np.abs(found.mean(0) - true) < 3 * error)
    assert np.all(np.abs([value("participation_ratio", x) for x in draws[:50]]) < 5)


def test_ten_live_dimensions_of_twenty(rng):
    rows = np.hstack([rng.standard_normal((4000, 10)), np.zeros((4000, 10))])
    assert value("isoscore", rows) == pytest.approx(9 / 19, abs=0.005)
    assert value("participation_ratio", rows) == pytest.approx(10, abs=0.1)


def test_effective_rank_of_an_identity_of_one_ray_and_of_gaussians(rng):
    assert value("effective_rank", np.eye(8)) == pytest.approx(8)
    assert value("effective_rank", np.outer(np.arange(1.0, 9), np.ones(5))) == pytest.approx(1)
    assert value("effective_rank", rng.standard_normal((768, 768))) == pytest.approx(618, abs=2)
    assert value("effective_rank", rng.standard_normal((7680, 768))) == pytest.approx(758, abs=1)


def test_effective_rank_and_rankme_by_singular_values(rng):
    rows = rng.standard_normal((40, 12)) + 1
    singular = np.linalg.svd(rows, compute_uv=False)
    p = singular / singular.sum()
    assert value("effective_rank", rows) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    p = p + 1e-7
    assert value("rankme", rows) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_spectrum_is_that_of_scikit_learn(rng):
    from sklearn.decomposition import PCA

    rows = rng.standard_normal((100, 6)) @ rng.standard_normal((6, 6)) + 2
    pca = PCA().fit(rows)
    assert np.allclose(moments(rows).spectrum, pca.explained_variance_)
    cumulative = anisotropy.cumulative_variance(moments(rows))
    assert np.allclose(cumulative, np.cumsum(pca.explained_variance_ratio_))
    assert value("first_component_share", rows) == pytest.approx(cumulative[0])


def test_partition_approximations_by_their_formulas(rng):
    rows = unit(rng.standard_normal((300, 10)) + 0.3)
    total = np.linalg.norm(rows.sum(0))
    singular = np.linalg.svd(rows, compute_uv=False)
    assert value("partition_first_order", rows) == pytest.approx((300 - total) / (300 + total))
    above, below = 300 - total + singular[-1] ** 2 / 2, 300 + total + singular[0] ** 2 / 2
    assert value("partition_second_order", rows) == pytest.approx(above / below)
    centred = unit(rng.standard_normal((20000, 10)))
    assert value("partition_first_order", centred) == pytest.approx(1, abs=0.02)


def test_mean_share_is_the_energy_of_the_mean(rng):
    rows = rng.standard_normal((100, 4)) + 2
    brute = (rows.mean(0) ** 2).sum() / (rows**2).sum(1).mean()
    assert value("mean_share", rows) == pytest.approx(brute)


# Invariances


@pytest.mark.parametrize("name", OF_MOMENTS)
def test_rotations_change_nothing(rng, name):
    rows = unit(rng.standard_normal((200, 6)) + 0.5)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert value(name, rows @ turn) == pytest.approx(value(name, rows), rel=1e-9)


@pytest.mark.parametrize("name", SCALE_FREE)
def test_scale_changes_nothing_where_that_is_claimed(rng, name):
    rows = rng.standard_normal((200, 6)) + 0.5
    assert value(name, 7 * rows) == pytest.approx(value(name, rows), rel=1e-9)


@pytest.mark.parametrize("name", SHIFT_FREE)
def test_a_shift_changes_no_measure_of_the_covariance(rng, name):
    rows = rng.standard_normal((200, 6))
    assert value(name, rows + 5) == pytest.approx(value(name, rows), rel=1e-9)


def test_a_shift_does_change_what_is_not_centred(rng):
    rows = rng.standard_normal((200, 6))
    for name in sorted({"average_cosine", "effective_rank", "mean_share"}):
        assert abs(value(name, rows + 5) - value(name, rows)) > 0.1


# The stream


def streamed(rows, cuts, **options):
    stream = Stream(**options)
    for chunk in np.split(rows, cuts):
        stream.update(chunk)
    return stream


def same(a, b):
    assert a.n == b.n and np.array_equal(a.rows.vectors, b.rows.vectors)
    for mine, theirs in zip(a.groups, b.groups, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.n == theirs.n
            assert torch.allclose(mine.scatter, theirs.scatter, rtol=1e-9, atol=1e-9)
            assert torch.allclose(mine.mean, theirs.mean, rtol=1e-12)
            assert torch.allclose(mine.directions.total, theirs.directions.total, rtol=1e-9)
            assert torch.allclose(mine.directions.squares, theirs.directions.squares, rtol=1e-9)


def test_without_covariance_the_cosine_is_the_same(rng):
    rows = rng.standard_normal((300, 8)) + 1
    whole = anisotropy.tabulate(Stream().update(rows), ["average_cosine"])
    light = anisotropy.tabulate(Stream(covariance=False, sample=0).update(rows))
    assert list(light["measure"]) == ["average_cosine", "partition_first_order"]
    pd.testing.assert_frame_equal(light.iloc[:1], whole)


def test_chunks_may_be_cut_anywhere(rng):
    rows = rng.standard_normal((1000, 8)) + 1
    whole = streamed(rows, [], sample=100)
    same(whole, streamed(rows, [1, 2, 300, 777], sample=100))


def test_two_parts_merged_are_the_whole(rng):
    rows = rng.standard_normal((1000, 8)) + 1
    whole = streamed(rows, [], sample=100)
    second = Stream(sample=100, start=371).update(rows[371:])
    same(whole, Stream(sample=100).update(rows[:371]).merge(second))
    first = Stream(sample=100).update(rows[:371])
    same(whole, Stream(sample=100, start=371).update(rows[371:]).merge(first))


def test_groups_take_turns_and_stay_about_equal():
    for n in (25, 100, 5000, 300_000):
        sizes = np.bincount(_group(np.arange(n), 20), minlength=20)
        assert sizes.sum() == n and sizes.min() >= 1
        assert sizes.max() <= 2 * sizes.min() + 1, n


def test_the_sample_is_drawn_without_replacement_and_evenly(rng):
    numbers = np.arange(4000.0)
    kept = np.concatenate(
        [Stream(sample=200, seed=s).update(numbers[:, None] + 1).rows.vectors for s in range(20)]
    )
    assert len(np.unique(_key(np.arange(100_000), 0))) == 100_000
    counts = np.histogram(kept, bins=4, range=(0, 4001))[0]
    assert np.all(np.abs(counts - 1000) < 120)
    same_seed = Stream(sample=200).update(numbers[:, None] + 1).rows.vectors
    assert len(np.unique(same_seed)) == 200


def test_a_file_gives_what_the_array_gives(rng, tmp_path, monkeypatch):
    rows = rng.standard_normal((500, 6)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.setattr("lab.anisotropy.stream.PIECE", 64 * 24)
    names = ["isoscore", "average_cosine"]
    of_file = anisotropy.measure(tmp_path / "rows.npy", names)
    pd.testing.assert_frame_equal(of_file, anisotropy.measure(rows, names), rtol=1e-6)
    of_chunks = anisotropy.measure(iter(np.split(rows, 5)), names)
    pd.testing.assert_frame_equal(of_chunks, of_file, rtol=1e-6)


@pytest.mark.parametrize("form", anisotropy.FORMS)
def test_forms_are_what_they_say(rng, form):
    rows = rng.standard_normal((300, 6)) + 2
    ready = rows - rows.mean(0) if "centred" in form else rows
    ready = unit(ready) if "unit" in form else ready
    names = ["average_cosine", "effective_rank", "isoscore"]
    found = anisotropy.measure(rows, names, form=form)
    assert list(found["form"]) == [form] * 3
    wanted = anisotropy.measure(ready, names)
    assert np.allclose(found[["value", "low", "high"]], wanted[["value", "low", "high"]])


# Intervals


def test_the_jackknife_of_a_mean_is_its_standard_error(rng):
    x = rng.standard_normal(40)
    left_out = [(x.sum() - one) / 39 for one in x]
    found = jackknife(x.mean(), left_out, np.ones(40))
    assert found.standard_error == pytest.approx(x.std(ddof=1) / np.sqrt(40))
    low, high = found.interval()
    assert low < x.mean() < high
    assert found.p() == pytest.approx(ttest_1samp(x, 0).pvalue, rel=1e-6)


def test_groups_of_unequal_size_are_weighed(rng):
    sizes = np.array([5, 10, 15, 20, 10, 12])
    errors = []
    for _ in range(400):
        x = rng.standard_normal(sizes.sum())
        parts = np.split(x, np.cumsum(sizes)[:-1])
        left = [(x.sum() - part.sum()) / (len(x) - len(part)) for part in parts]
        errors.append(jackknife(x.mean(), left, sizes).standard_error)
    assert np.mean(np.square(errors)) == pytest.approx(1 / sizes.sum(), rel=0.1)


@pytest.mark.parametrize(
    "name", ["average_cosine", "isoscore_corrected", "participation_ratio", "first_component_share"]
)
def test_intervals_cover_as_often_as_they_say(rng, name):
    mix = rng.standard_normal((8, 8))
    big = rng.standard_normal((200_000, 8)) @ mix + 0.5
    truth = value(name, big)
    n = 2000  # enough for the sample-size bias of the raw ratios to be small beside the interval
    covered = 0
    for at in range(0, len(big), n):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = anisotropy.measure(big[at : at + n], [name]).iloc[0]
        covered += row["low"] <= truth <= row["high"]
    assert 88 <= covered <= 100, covered


def test_paired_differences_need_the_same_rows(rng):
    rows = rng.standard_normal((400, 6))
    a, b = Stream().update(rows), Stream().update(rows * np.linspace(1, 2, 6))
    found = anisotropy.difference(a, b, ["isoscore"]).iloc[0]
    assert found["low"] < found["difference"] < found["high"] and 0 < found["p"] < 0.05
    assert anisotropy.difference(a, a, ["isoscore"]).iloc[0]["p"] == 1
    with pytest.raises(ValueError, match="same units in the same groups"):
        anisotropy.difference(a, Stream().update(rows[:300]), ["isoscore"])


def test_every_measure_has_a_row_with_n_d_and_form(rng):
    rows = rng.standard_normal((400, 6)) + 0.5
    table = anisotropy.measure(rows, form="unit")
    assert list(table["measure"]) == list(MEASURES)
    assert (table["dim"] == 6).all() and (table["form"] == "unit").all()
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    raw = anisotropy.measure(rows)
    assert set(table["measure"]) - set(raw["measure"]) == {"partition_second_order"}


def test_the_dimensions_that_carry_the_cosine_are_named(rng):
    rows = rng.standard_normal((500, 20))
    rows[:, 7] += 30
    table = anisotropy.contributions_table(Stream().update(rows), top=3)
    assert table["dimension"].iloc[0] == 7 and table["share"].iloc[0] > 0.99
    with pytest.raises(ValueError, match="top is 1 to 20"):
        anisotropy.contributions_table(Stream().update(rows), top=21)


def test_the_spectrum_comes_with_intervals(rng):
    table = anisotropy.spectrum_table(Stream().update(rng.standard_normal((300, 5))))
    assert table["cumulative"].iloc[-1] == pytest.approx(1)
    assert (table["low"] <= table["cumulative"] + 1e-12).all()


# Bad input


def test_fewer_rows_than_dimensions_is_said_with_what_isotropic_rows_show(rng):
    rows = rng.standard_normal((50, 100))
    with pytest.warns(anisotropy.SampleSizeWarning, match=r"50 rows of 100.*isotropic rows: 0.3"):
        anisotropy.measure(rows, ["isoscore"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anisotropy.measure(rows, ["isoscore_corrected", "average_cosine"])


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.ones((4, 3), dtype=int), TypeError, "rows are float32 or float64; got int64"),
        (np.ones((4, 3), dtype=np.float16), TypeError, "got float16"),
        (torch.ones(4, 3, dtype=torch.bfloat16), TypeError, "got bfloat16"),
        ([[1.0, 2.0]], TypeError, "got list"),
        (np.ones(4), ValueError, r"got \(4,\)"),
        (np.ones((0, 4)), ValueError, r"got \(0, 4\)"),
        (np.array([[1.0, 2], [np.nan, 1]]), ValueError, "row 1 is not finite"),
        (np.array([[1.0, 2], [1, 3], [np.inf, 1]]), ValueError, "row 2 is not finite"),
    ],
)
def test_bad_rows_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        Stream().update(rows)


def test_a_row_is_named_by_its_number_in_the_whole_stream(rng):
    stream = Stream().update(rng.standard_normal((10, 3)))
    bad = rng.standard_normal((5, 3))
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 12 is not finite"):
        stream.update(bad)
    with pytest.raises(ValueError, match="4 wide; the rows before it were 3"):
        stream.update(np.ones((2, 4)))
    with pytest.raises(ValueError, match="row 11 is a zero vector"):
        Stream(unit=True).update(np.vstack([np.ones((11, 3)), np.zeros((1, 3))]))


@pytest.mark.parametrize("name", OF_MOMENTS)
def test_one_row_is_too_few_for_every_measure_of_spread(name):
    if name in ("effective_rank", "rankme", "mean_share", "partition_second_order"):
        return
    with pytest.raises(ValueError, match=r"needs \d rows or more; got 1"):
        value(name, np.array([[0.6, 0.8]]))


@pytest.mark.parametrize("name", SHIFT_FREE)
def test_equal_rows_have_no_shape(name):
    with pytest.raises(ValueError, match="all 6 rows are equal"):
        value(name, np.full((6, 3), 0.1, dtype=np.float32))


def test_what_is_undefined_is_refused(rng):
    with pytest.raises(ValueError, match="undefined for one dimension"):
        value("isoscore", rng.standard_normal((9, 1)))
    with pytest.raises(ValueError, match="2 of 9 rows are zero vectors"):
        value("average_cosine", np.vstack([np.ones((7, 2)), np.zeros((2, 2))]))
    with pytest.raises(ValueError, match="all 4 rows are zero"):
        value("effective_rank", np.zeros((4, 2)))
    with pytest.raises(ValueError, match="all 4 rows are zero"):
        value("mean_share", np.zeros((4, 2)))
    with pytest.raises(ValueError, match="zeta is a share"):
        spectrum.isoscore_star(moments(rng.standard_normal((9, 2))), 1.5)
    with pytest.raises(ValueError, match="measure unit rows"):
        value("partition_second_order", rng.standard_normal((9, 2)) + 10)
    with pytest.raises(ValueError, match="four rows or more; got 3"):
        anisotropy.measure(rng.standard_normal((3, 2)), ["isoscore"])
    with pytest.raises(ValueError, match="no rows yet"):
        _ = Stream().total
    with pytest.raises(LookupError, match="did you mean 'isoscore'"):
        anisotropy.measure(rng.standard_normal((9, 2)), ["isoscor"])
    with pytest.raises(LookupError, match="did you mean 'centred'"):
        anisotropy.measure(rng.standard_normal((9, 2)), form="centered")
    with pytest.raises(ValueError, match="gives them once"):
        anisotropy.measure(iter([rng.standard_normal((9, 2))]), form="centred")
    with pytest.raises(ValueError, match="two groups or more, no negative"):
        Stream(groups=1)


def test_streams_that_do_not_belong_together_are_not_merged(rng):
    rows = rng.standard_normal((30, 3))
    with pytest.raises(
        ValueError, match="both streams saw rows 0 to 29; give the second one start="
    ):
        Stream().update(rows).merge(Stream().update(rows))
    with pytest.raises(ValueError, match="streams merge if form"):
        Stream().update(rows).merge(Stream(unit=True, start=30).update(rows))


def test_files_that_hold_no_rows_are_refused(tmp_path, rng):
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ValueError, match=r"is no .npy file"):
        anisotropy.measure(tmp_path / "text.npy", ["isoscore"])
    np.save(tmp_path / "column.npy", np.asfortranarray(rng.standard_normal((5, 4))))
    with pytest.raises(ValueError, match="Fortran order: True"):
        anisotropy.measure(tmp_path / "column.npy", ["isoscore"])
    np.save(tmp_path / "cut.npy", rng.standard_normal((50, 4)))
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="ends early"):
        anisotropy.measure(tmp_path / "cut.npy", ["isoscore"])


def test_a_jackknife_needs_two_groups():
    with pytest.raises(ValueError, match="two groups or more"):
        Jackknife(np.array(1.0), np.array([1.0]), np.array([3]))


def test_short_vectors_have_directions_too(rng):
    rows = rng.standard_normal((50, 8)).astype(np.float32)
    short = rows.copy()
    short[5] *= 1e-20
    names = ["average_cosine"]
    assert np.allclose(
        anisotropy.measure(short, names)["value"], anisotropy.measure(rows, names)["value"]
    )


def test_large_values_far_from_the_origin_are_not_called_equal(rng):
    rows = rng.standard_normal((300, 8))
    far = anisotropy.measure(1e-2 * rows + 1e6, ["isoscore"])["value"].item()
    assert far == pytest.approx(anisotropy.measure(rows, ["isoscore"])["value"].item(), rel=1e-6)
    with pytest.raises(ValueError, match="overflow; divide them by a constant"):
        anisotropy.measure(rows * 1e100, ["isoscore"])


def test_rows_of_constant_sum_have_a_first_component():
    base = np.array([[1, -1, 0, 0], [0, 0, 1, -1], [2, -2, 0, 0.0]])
    rows = np.vstack([base, -base])
    found = anisotropy.measure(rows, ["first_component_share"])["value"].item()
    values = np.linalg.eigvalsh(np.cov(rows.T))
    assert found == pytest.approx(values[-1] / values.sum())


def test_streams_with_other_centres_or_the_same_rows_are_not_merged(rng):
    rows = rng.standard_normal((60, 3))
    first = Stream(centre=np.zeros(3), sample=0).update(rows[:30])
    with pytest.raises(ValueError, match="streams merge if form, centre"):
        first.merge(Stream(centre=np.ones(3), sample=0, start=30).update(rows[30:]))
    with pytest.raises(ValueError, match="saw rows 0 to 29"):
        first.merge(Stream(centre=np.zeros(3), sample=0).update(rows[30:]))
    assert first.merge(Stream(centre=np.zeros(3), sample=0)).n == 30
    empty = Stream(centre=np.zeros(3), sample=0)
    assert empty.merge(first).n == 30
    with pytest.raises(ValueError, match=r"centre is \(2,\), rows are 3 wide"):
        Stream(centre=np.zeros(2)).update(rows)


def test_differences_need_one_sample(rng):
    rows = rng.standard_normal((2500, 4))
    with pytest.raises(ValueError, match="seeds 0 and 1"):
        anisotropy.difference(
            anisotropy.scan(rows, seed=0), anisotropy.scan(rows, seed=1), ["uniformity"]
        )


def test_repeated_rows_are_named_by_their_numbers_and_by_the_measure(rng):
    rows = rng.standard_normal((300, 8))
    rows[101] = rows[7]
    with pytest.raises(ValueError, match=r"two_nn: rows 7 and 101 are equal.*leave two_nn out"):
        anisotropy.measure(rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: anisotropy.measure(x, "isoscore"), "measures is a list of names"),
        (lambda x: anisotropy.measure(x, []), "measures is a list of names"),
        (lambda x: anisotropy.measure(x, ["partition_second_order"]), "use form='unit'"),
        (
            lambda x: anisotropy.tabulate(anisotropy.scan(x, covariance=False), ["isoscore"]),
            "isoscore reads the covariance, which this stream left out",
        ),
        (lambda x: anisotropy.measure(x[:, :1], ["average_cosine"]), "two dimensions or more"),
    ],
)
def test_what_a_stream_cannot_give_is_refused(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(rng.standard_normal((30, 4)))


def test_nothing_is_shared_where_there_is_no_cosine(rng):
    table = anisotropy.contributions_table(Stream().update(rng.standard_normal((300, 8))))
    assert table["share"].isna().all() and table["contribution"].notna().all()


def test_a_file_mapped_into_memory_is_read_as_it_is(rng, tmp_path):
    rows = rng.standard_normal((50, 4))
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    names = ["isoscore"]
    assert anisotropy.measure(mapped, names).equals(anisotropy.measure(rows, names))
    assert np.array_equal(mapped, rows)


def test_a_jackknife_of_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite values"):
        jackknife(0.5, [np.nan, 0.5, 0.4], [1, 1, 1])
