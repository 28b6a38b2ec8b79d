"""Spaces of a model: one pass for all data sets, and the same numbers as each on its own."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import cosine_similarity

from lab import anisotropy, grid, models, results, spaces
from lab.data import Dataset
from lab.models.texts import TruncationWarning
from lab.probes import PROBES
from lab.readout import read_out
from lab.repairs import centring, flow, whitening
from lab.repairs.module import attach

WORDS = "rain snow dog guitar clock river deep quiet nine hall runs strikes under over old".split()
SHORT = 20  # tokens; a token is a byte here


def sentences(rng, n):
    """n texts of three to six words, all different."""
    drawn = [" ".join(rng.choice(WORDS, rng.integers(3, 7))) for _ in range(3 * n)]
    return list(dict.fromkeys(drawn))[:n]


def dataset(name, kind, texts, split="test", **columns):
    return Dataset(name=name, kind=kind, split=split, texts=texts, frame=pd.DataFrame(columns),
                   origin="test", licence="CC0-1.0", sha256={}, n=None, seed=0)  # fmt: skip


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama")


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(1)
    first, second = np.arange(0, 24, 2), np.arange(1, 24, 2)
    return dataset("pairs", "sts", sentences(rng, 24), first=first, second=second,
                   score=rng.permutation(12) / 3)  # fmt: skip


@pytest.fixture(scope="module")
def topics(pairs):
    """Two labels, train and test; five of its texts are in ``pairs`` too, in another order."""
    rng = np.random.default_rng(2)
    texts = [*sentences(rng, 30), *pairs.texts[4::-1]]
    label = np.where(["dog" in text for text in texts], "dog", "other")
    part = np.where(np.arange(35) % 2, "train", "test")
    return dataset("topics", "classification", texts, text=np.arange(35), label=label, part=part)


@pytest.fixture(scope="module")
def train():
    return sentences(np.random.default_rng(3), 40)


@pytest.fixture(scope="module")
def together(pairs, topics, train):
    return [*train, *pairs.texts, *topics.texts]


@pytest.fixture(scope="module")
def space(llama, together):
    (only,) = spaces.embed(llama, together, progress=False)
    return only


@pytest.fixture(scope="module")
def white(space, train):
    return whitening(components=3).fit(space.rows(train))


@pytest.fixture(scope="module")
def cells(space, pairs, train, white):
    repairs = (None, centring().fit(space.rows(train)), white)
    return [spaces.score(space, pairs, seed=0, repair=repair) for repair in repairs]


# --- one pass ----------------------------------------------------------------------------------


def test_one_pass_over_each_text_serves_all_data_sets_layers_and_poolings(llama, together):
    batches = []
    handle = llama.encoder.model.register_forward_pre_hook(
        lambda _, args, given: batches.append(len(given["input_ids"])), with_kwargs=True
    )
    try:
        found = list(
            spaces.embed(
                llama, together, poolings=["mean", "max", "last"], layers=None, progress=False
            )
        )
    finally:
        handle.remove()
    assert len(found) == 3 * 4
    assert len(set(together)) < len(together)
    assert sum(batches) == len(set(together))
    assert all(list(one.texts) == list(dict.fromkeys(together)) for one in found)


def test_a_space_says_which_design_it_is(llama):
    found = list(spaces.embed(llama, ["one", "two"], poolings=["max", "mean"], layers=[-1, 1, 3]))
    designs = [(one.settings["layer"], one.settings["pooling"]) for one in found]
    assert designs == [(3, "max"), (3, "mean"), (1, "max"), (1, "mean")]
    for one in found:
        assert one.last == 3
        assert one.settings["checkpoint"] == "random:llama"
        assert one.settings["layer_mix"] is None and one.settings["repair"] is None


def test_rows_come_in_the_order_asked_for_and_as_often(space, together):
    asked = [together[row] for row in (7, 2, 7, 90)]
    where = [list(space.texts).index(text) for text in asked]
    assert np.array_equal(space.rows(asked), space.embeddings[where])
    assert np.array_equal(space.rows(iter(asked)), space.rows(asked))


@pytest.mark.parametrize("name", ["pairs", "topics"])
def test_rows_are_those_of_the_data_set_embedded_alone(llama, together, name, request):
    texts = request.getfixturevalue(name).texts
    alone = read_out(llama, texts, poolings=["mean", "last"], layers=[1, -1])
    for one in spaces.embed(llama, together, poolings=["mean", "last"], layers=[1, -1]):
        expected = alone[one.settings["layer"], one.settings["pooling"]]
        np.testing.assert_allclose(one.rows(texts), expected, atol=1e-5)


def test_any_iterable_of_texts_will_do(llama):
    (one,) = spaces.embed(llama, (text for text in ["b", "a", "b"]))
    assert list(one.texts) == ["b", "a"]
    assert one.rows(["a"]).shape == (1, 64)


# --- scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pairs", "topics"])
def test_a_score_is_the_probe_s_on_the_data_set_embedded_alone(llama, space, name, request):
    data = request.getfixturevalue(name)
    cell = spaces.score(space, data, seed=5)
    alone = read_out(llama, data.texts, poolings=["mean"], layers=[-1])[-1, "mean"]
    expected = PROBES[data.kind](data, alone, seed=5)
    np.testing.assert_allclose(cell.score.units, expected.units)
    assert cell.score.value == pytest.approx(expected.value)
    about = {key: cell.settings[key] for key in ("dataset", "split", "seed", "truncated")}
    assert about == {"dataset": name, "split": "test", "seed": 5, "truncated": 0}


def test_a_cell_is_that_of_the_grid(llama, space, pairs, cells):
    (other,) = grid.designs(llama, pairs, [("mean", "last")], seed=0, progress=False)
    assert other.settings == cells[0].settings
    assert (other.label, other.last) == (cells[0].label, cells[0].last)
    assert other.score.value == pytest.approx(cells[0].score.value)


@pytest.mark.parametrize("name", ["pairs", "topics"])
def test_a_repaired_score_is_the_probe_s_on_the_transformed_embeddings(
    llama, space, white, name, request
):
    data = request.getfixturevalue(name)
    alone = read_out(llama, data.texts, poolings=["mean"], layers=[-1])[-1, "mean"]
    repaired = spaces.score(space, data, seed=0, repair=white).score
    expected = PROBES[data.kind](data, white.transform(alone), seed=0)
    np.testing.assert_allclose(repaired.units, expected.units)
    assert not np.allclose(repaired.units, spaces.score(space, data, seed=0).score.units)


@pytest.mark.parametrize(
    ("repair", "label"),
    [
        (centring(), "centring"),
        (whitening(kind="pca", components=3), "whitening(components=3)"),
        (whitening(components=np.int64(3)), "whitening(components=3)"),
        (whitening(shrinkage=0.5, kind="zca"), "whitening(kind=zca, shrinkage=0.5)"),
        (
            flow(transforms=2, hidden=4, epochs=1, patience=2, batch=20, learning_rate=0.01),
            "flow(batch=20, epochs=1, hidden=4, learning_rate=0.01, patience=2, transforms=2)",
        ),
    ],
)
def test_a_repair_is_labelled_on_one_line_by_its_name_and_what_is_not_its_default(
    space, pairs, train, repair, label
):
    cell = spaces.score(space, pairs, seed=0, repair=repair.fit(space.rows(train)))
    assert cell.settings["repair"] == label
    assert cell.label == f"native / mean / last / {label}"


def test_options_of_a_score_go_to_the_probe(space, topics):
    frame = {"text": topics.frame["text"], "label": topics.frame["label"]}
    sections = dataset("sections", "clustering", topics.texts, **frame)
    found = spaces.score(space, sections, seed=2, size=60).score
    expected = PROBES["clustering"](sections, space.rows(topics.texts), seed=2, size=60)
    np.testing.assert_array_equal(found.units, expected.units)
    assert found.units[:, :10].sum() == 10 * 60  # ten samples of as many texts as asked for


# --- shapes ------------------------------------------------------------------------------------


def test_the_shape_of_a_space_is_a_valid_table_of_the_measures_asked_for(space, topics):
    found = spaces.shape(
        space, ["average_cosine", "uniformity"], notebook="t", seed=4, texts=topics.texts,
        dataset="topics", split="test",
    )  # fmt: skip
    assert results.validate(found) is found
    rows = space.rows(topics.texts)
    cosines = cosine_similarity(rows)[~np.eye(len(rows), dtype=bool)]
    assert found["metric"].tolist() == ["average_cosine", "uniformity"]
    assert found["value"][0] == pytest.approx(cosines.mean(), abs=1e-6)
    expected = anisotropy.measure(rows, ["average_cosine", "uniformity"], seed=4)
    for column in ("value", "low", "high", "n", "dim"):
        np.testing.assert_allclose(found[column].astype(float), expected[column])
    same = {"probe": "anisotropy", "form": "raw", "dataset": "topics", "split": "test",
            "pooling": "mean", "layer": 3, "seed": 4, "truncated": 0, "n": 35,
            "dim": 64}  # fmt: skip
    for column, value in same.items():
        assert (found[column] == value).all(), column
    assert found["repair"].isna().all()


def test_the_shape_of_a_repaired_space_is_that_of_its_transformed_rows(space, train, white):
    found = spaces.shape(
        space, ["isoscore"], notebook="t", seed=0, texts=train, form="centred", repair=white
    )
    assert (found["repair"][0], found["form"][0]) == ("whitening(components=3)", "centred")
    assert (found["n"][0], found["dim"][0]) == (40, 3)
    assert found["value"][0] == pytest.approx(1)  # the rows it was fitted on are white


def test_a_shape_is_of_all_texts_unless_some_are_named(space, together):
    found = spaces.shape(space, ["average_cosine"], notebook="t", seed=0)
    assert found["n"][0] == len(set(together))
    unit = space.embeddings / np.linalg.norm(space.embeddings, axis=1, keepdims=True)
    n = len(unit)
    expected = (np.square(unit.sum(0)).sum() - n) / (n * (n - 1))
    assert found["value"][0] == pytest.approx(expected, abs=1e-6)


def test_shapes_and_scores_of_all_spaces_and_repairs_are_one_valid_table(llama, pairs, train, rng):
    tables, scored = [], []
    found = spaces.embed(llama, [*train, *pairs.texts], poolings=["mean", "max"], layers=[1, -1])
    for one in found:
        for repair in (None, centring().fit(one.rows(train))):
            scored.append(spaces.score(one, pairs, seed=0, repair=repair))
            for form in ("raw", "unit"):
                about = {"notebook": "t", "seed": 0, "form": form, "repair": repair}
                tables.append(spaces.shape(one, ["average_cosine"], dataset="pairs", **about))
    tables.append(grid.tabulate(scored, notebook="t", rng=rng, resamples=40))
    whole = pd.concat(tables, ignore_index=True)
    assert results.validate(whole) is whole
    assert len(whole) == 4 * 2 * (2 + 1)


def test_cut_texts_are_counted_data_set_by_data_set(llama, pairs, topics):
    short = models.variant(llama, max_length=SHORT)
    with pytest.warns(TruncationWarning):
        (cut,) = spaces.embed(short, [*pairs.texts, *topics.texts])
    for data in (pairs, topics):
        long = sum(len(text) + 2 > SHORT for text in data.texts)  # one token a byte, <s> and </s>
        assert 0 < long < len(data.texts)
        assert cut.truncated(data.texts) == long
        assert spaces.score(cut, data, seed=0).settings["truncated"] == long
        about = {"notebook": "t", "seed": 0, "texts": data.texts}
        assert (spaces.shape(cut, ["average_cosine"], **about)["truncated"] == long).all()


# --- tables and contrasts of repairs -----------------------------------------------------------


def test_cells_with_repairs_are_rows_of_the_tidy_table(cells, rng):
    found = grid.tabulate(cells, notebook="t", rng=rng, resamples=50)
    assert results.validate(found) is found
    assert found["repair"].isna().tolist() == [True, False, False]
    assert found["repair"].tolist()[1:] == ["centring", "whitening(components=3)"]
    np.testing.assert_allclose(found["value"], [cell.score.value for cell in cells])


def test_repairs_are_contrasted_with_the_space_as_it_is(cells, rng):
    found = grid.contrast(cells, "native / mean / last", notebook="t", rng=rng, resamples=99)
    assert results.validate(found) is found
    plain, *repaired = (cell.score.value for cell in cells)
    assert found["setting"].tolist() == [
        "native / mean / last / centring",
        "native / mean / last / whitening(components=3)",
    ]
    np.testing.assert_allclose(found["difference"], np.array(repaired) - plain)
    assert (found["p_holm"] >= found["p"]).all()


def test_two_repairs_of_one_label_are_refused(cells, space, pairs, rng):
    fewer = whitening(components=3).fit(space.rows(pairs.texts))
    twice = [*cells, spaces.score(space, pairs, seed=0, repair=fewer)]
    with pytest.raises(ValueError, match="a row before it measures the same"):
        grid.tabulate(twice, notebook="t", rng=rng, resamples=50)
    with pytest.raises(ValueError, match=r"two designs are labelled .*whitening\(components=3\)'"):
        grid.contrast(twice, "native / mean / last", notebook="t", rng=rng)


def test_a_repair_attached_to_the_model_is_in_no_read_out_and_in_no_label(
    llama, space, pairs, train
):
    repaired = attach(llama, centring().fit(space.rows(train)))
    assert models.settings(repaired)["repair"] == "centring"
    (one,) = spaces.embed(repaired, pairs.texts)
    (cell,) = grid.designs(repaired, pairs, [("mean", "last")], seed=0, progress=False)
    np.testing.assert_allclose(one.rows(pairs.texts), space.rows(pairs.texts), atol=1e-5)
    assert one.settings["repair"] is None
    assert cell.label == "native / mean / last"


# --- tokens and pieces -------------------------------------------------------------------------


def test_the_token_table_is_the_model_s_with_the_frequencies_of_its_poolings(llama):
    vectors, frequency = spaces.token_table(llama)
    weights = llama.encoder.model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(vectors, weights)
    assert frequency.shape == (len(vectors),)
    assert frequency.min() == 0 and frequency.sum() == pytest.approx(1)


def test_a_text_s_rarest_token_is_the_one_of_lowest_frequency(llama):
    _, frequency = spaces.token_table(llama)
    (e,), (z,) = (llama.tokenizer(c, add_special_tokens=False)["input_ids"] for c in "ez")
    assert 0 < frequency[z] < frequency[e]
    unseen = "\x01"
    (never,) = llama.tokenizer(unseen, add_special_tokens=False)["input_ids"]
    assert frequency[never] == 0
    found = spaces.rarest(llama, ["eee", "ze", "ee" + unseen])
    least = frequency[frequency > 0].min()
    np.testing.assert_allclose(found, np.log10([frequency[e], frequency[z], least]))


def test_pieces_are_the_beginnings_of_texts_in_every_length_asked_for(together):
    long = [f"{text} {text}" for text in together]
    found = spaces.pieces(long, shortest=2, longest=6, seed=1)
    assert all(text.startswith(piece) for text, piece in zip(long, found, strict=True))
    assert {len(piece.split()) for piece in found} == {2, 3, 4, 5, 6}
    assert found == spaces.pieces(long, shortest=2, longest=6, seed=1)
    assert found != spaces.pieces(long, shortest=2, longest=6, seed=2)


def test_pieces_of_no_word_or_longer_than_a_text_are_refused():
    with pytest.raises(ValueError, match="pieces have 1 word or more; got 0 to 3"):
        spaces.pieces(["a b c"], shortest=0, longest=3, seed=0)
    with pytest.raises(ValueError, match="1 word or more; got 3 to 2"):
        spaces.pieces(["a b c"], shortest=3, longest=2, seed=0)
    with pytest.raises(ValueError, match="up to 3 words need texts as long; text 1 has 2: 'a b'"):
        spaces.pieces(["a b c", "a b", "a b"], shortest=1, longest=3, seed=0)


# --- bad input ---------------------------------------------------------------------------------


def test_a_text_that_was_not_embedded_is_named(space, pairs):
    stranger = "x" * 100
    message = f"'{'x' * 40}' is not among the {len(space.texts)} texts of this space; give all data"
    foreign = dataset("foreign", "sts", [*pairs.texts, stranger], first=[0], second=[24], score=[1])
    for ask in (
        lambda: space.rows([pairs.texts[0], stranger]),
        lambda: space.truncated([stranger]),
        lambda: spaces.score(space, foreign, seed=0),
        lambda: spaces.shape(space, ["average_cosine"], notebook="t", seed=0, texts=[stranger]),
    ):
        with pytest.raises(LookupError, match=message):
            ask()


def test_bad_texts_are_refused_by_their_row_in_what_was_given(llama):
    with pytest.raises(TypeError, match="texts is one string; give a list"):
        next(spaces.embed(llama, "abc"))
    with pytest.raises(ValueError, match=r"text 3 \('  '\) is empty or blank"):
        next(spaces.embed(llama, ["a", "a", "a", "  "]))
    with pytest.raises(TypeError, match="text 1 is a list"):
        next(spaces.embed(llama, ["a", ["b"]]))
    with pytest.raises(ValueError, match="texts is empty"):
        next(spaces.embed(llama, []))


def test_unknown_poolings_layers_measures_and_forms_are_refused(llama, space):
    with pytest.raises(LookupError, match="did you mean 'mean'"):
        next(spaces.embed(llama, ["a"], poolings=["maen"]))
    with pytest.raises(ValueError, match="layer 4 does not exist"):
        next(spaces.embed(llama, ["a"], layers=[4]))
    about = {"notebook": "t", "seed": 0}
    with pytest.raises(LookupError, match="did you mean 'isoscore'"):
        spaces.shape(space, ["isocore"], **about)
    with pytest.raises(LookupError, match="did you mean 'centred'"):
        spaces.shape(space, ["isoscore"], form="centered", **about)
    with pytest.raises(LookupError, match="no column of results named 'data'"):
        spaces.shape(space, ["average_cosine"], data="pairs", **about)
    with pytest.raises(ValueError, match="no measure to take"):
        spaces.shape(space, [], **about)


def test_a_measure_that_tells_of_the_number_of_texts_first_warns(space, pairs):
    about = {"notebook": "t", "seed": 0, "texts": pairs.texts}
    with pytest.warns(anisotropy.SampleSizeWarning, match="24 rows of 64 dimensions: .*isoscore"):
        spaces.shape(space, ["isoscore"], **about)
    spaces.shape(space, ["average_cosine", "isoscore_corrected"], **about)


def test_a_repair_of_another_space_and_one_that_is_not_fitted_are_refused(space, pairs, rng):
    with pytest.raises(NotFittedError, match="not fitted"):
        spaces.score(space, pairs, seed=0, repair=centring())
    narrow = centring().fit(rng.normal(size=(9, 5)))
    with pytest.raises(ValueError, match="fitted on d = 5 dimensions; got d = 64"):
        spaces.score(space, pairs, seed=0, repair=narrow)
