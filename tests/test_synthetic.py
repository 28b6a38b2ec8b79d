"""Generated retrieval sets: same bytes as the shipped ones, and what their texts promise."""

import importlib.util
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lab import data, manifest, paths
from lab.data import haystack, synthetic, templates

TASKS = {"passkey": synthetic.passkey, "needle": synthetic.needle}
ENDINGS = tuple(ending for ending, *_ in templates.FACTS)
MANIFEST = json.loads((paths.DATA / "manifest.json").read_text())


@pytest.fixture(autouse=True)
def only_shipped(monkeypatch, tmp_path):
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


def corpus(dataset):
    return [dataset.texts[i] for i in dataset.documents]


def pairs(dataset):
    table = dataset.frame[["query", "document"]].to_numpy()
    return [(dataset.texts[query], dataset.texts[document]) for query, document in table]


# what is shipped ---------------------------------------------------------------------------------


def test_the_build_script_gives_the_bytes_of_the_manifest(monkeypatch, tmp_path):
    where = importlib.util.spec_from_file_location("passkey", paths.DATA / "build/passkey.py")
    script = importlib.util.module_from_spec(where)
    where.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["passkey.py", "--out", str(tmp_path)])
    script.main()
    built = json.loads((tmp_path / "manifest.json").read_text())
    assert len(built["datasets"]) == 5 and len(built["files"]) == 20
    for part in ("datasets", "files"):
        assert {key: MANIFEST[part][key] for key in built[part]} == built[part]


@pytest.mark.parametrize("length", [256, 1024])
@pytest.mark.parametrize("split", ["test", "dev"])
def test_the_seed_of_a_shipped_set_is_its_length(length, split):
    shipped, ours = data.load(f"passkey-{length}", split), synthetic.passkey(length, seed=length)
    if split == "dev":
        ours = synthetic.passkey(length, seed=length, split="dev")
    assert (shipped.origin, ours.origin) == ("shipped", "generated")
    assert shipped.name == ours.name and shipped.texts == ours.texts
    pd.testing.assert_frame_equal(shipped.frame, ours.frame)
    assert np.array_equal(shipped.documents, ours.documents)
    assert synthetic.key_position(shipped).tolist() == synthetic.key_position(ours).tolist()


# texts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [256, 257, 1000, 32768])
def test_every_document_has_three_words_for_four_tokens(task, length):
    made = task(length, seed=1, documents=5, queries=5)
    assert {len(text.split()) for text in corpus(made)} == {round(0.75 * length)}


def test_a_seed_gives_one_set_and_another_seed_another(task):
    one, same, other = (task(300, seed=seed) for seed in (5, 5, 6))
    assert one.texts == same.texts and one.frame.equals(same.frame)
    assert not set(one.texts[: len(one.queries)]) == set(other.texts[: len(other.queries)])
    assert not set(corpus(one)) & set(corpus(other))


def test_test_and_dev_ask_different_questions_of_the_same_documents(task):
    test, dev = (task(256, seed=2, queries=30, split=split) for split in ("test", "dev"))
    assert corpus(test) == corpus(dev) and len(set(corpus(test))) == 100
    assert (len(test.queries), len(dev.queries)) == (30, 70)
    assert not {q for q, _ in pairs(test)} & {q for q, _ in pairs(dev)}


def test_exactly_one_document_holds_the_answer(task):
    made = task(256, seed=3, queries=100)
    for question, document in pairs(made):
        for other in corpus(made):
            if other == document:
                haystack.position(question, other)
            else:
                with pytest.raises(ValueError, match="does not hold the answer to"):
                    haystack.position(question, other)


def test_a_code_is_said_twice_and_belongs_to_one_person():
    made = synthetic.passkey(512, seed=9, queries=100)
    codes = [re.findall(r"\d{5}", text) for text in corpus(made)]
    assert all(len(found) == 2 and len(set(found)) == 1 for found in codes)
    assert len({found[0] for found in codes}) == 100


def words(text):
    return set(re.findall(r"[\w-]+", text.lower()))


def test_a_hundred_facts_are_unique_and_their_questions_are_in_other_words():
    assert len(haystack.FACTS) == len(set(haystack.FACTS.values())) == 100
    answers = [answer for *_, listed in templates.FACTS for answer in listed.split()]
    assert len(set(answers)) == 100
    towns = set()
    for question, fact in haystack.FACTS.items():
        told = words(fact) & {answer.lower() for answer in answers}
        assert len(told) == 1 and not told & words(question)
        assert len(words(question) - words(fact)) >= 3
        towns |= {word for word in words(question) & words(fact) if word.endswith(ENDINGS)}
    assert len(towns) == 100


def test_filler_holds_no_answer_and_no_town():
    said = words(" ".join(part for choices in templates.SLOTS.values() for part in choices))
    said |= words(" ".join(templates.FILLER))
    answers = {word for *_, listed in templates.FACTS for word in listed.split()}
    assert not said & answers
    assert not {word for word in said if word.startswith(tuple(map(str.lower, templates.STEMS)))}


def test_the_filler_of_needles_varies_within_and_between_documents():
    made = synthetic.needle(2048, seed=4)
    sentences = [text.split(". ") for text in corpus(made)]
    kinds = {sentence for text in sentences for sentence in text}
    assert len(kinds) > 0.8 * sum(map(len, sentences))
    assert all(len(set(text)) > 0.95 * len(text) for text in sentences)


# positions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 0.0, 1, 1.0])
def test_a_key_can_begin_and_end_its_document(task, depth):
    made = task(256, seed=1, depth=depth)
    assert set(synthetic.key_position(made)) == {float(depth)}
    for question, document in pairs(made):
        name = question.removeprefix("What is the safe code of ").rstrip("?")
        first, last = f"The safe code of {name} is ", f" is the safe code of {name}."
        key = haystack.FACTS.get(question)
        if depth == 0:
            assert document.startswith(key or first)
        else:
            assert document.endswith(key or last)


@pytest.mark.parametrize("depth", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("length", [256, 4096])
def test_a_key_stands_at_the_sentence_boundary_nearest_to_its_depth(task, depth, length):
    made = task(length, seed=1, depth=depth, documents=20, queries=20)
    half_a_sentence = 8 / (0.75 * length - 20)  # the longest has 16 words
    assert np.abs(synthetic.key_position(made) - depth).max() <= half_a_sentence
    assert made.name.endswith(f"-{length}-at-{depth:g}")


def test_random_positions_are_uniform(task):
    places = [
        synthetic.key_position(task(2048, seed=seed, queries=100)).tolist() for seed in range(6)
    ]
    assert stats.kstest(np.ravel(places), "uniform").pvalue > 0.01


def test_a_position_is_counted_in_words():
    question, fact = next(iter(haystack.FACTS.items()))
    assert haystack.position(question, f"One two three. {fact} Four.") == 3 / 4
    key = templates.KEY.format(name="Ada Xu", code=12345)
    question = templates.QUERY.format(name="Ada Xu")
    assert haystack.position(question, f"One. {key} Two three four.") == 1 / 4


# from the catalogue ------------------------------------------------------------------------------


def test_a_length_that_is_not_shipped_is_generated_by_name(task, tmp_path, monkeypatch):
    monkeypatch.setenv(manifest.RUN_DIR, str(tmp_path))
    name = f"{task.__name__}-300"
    loaded, made = data.load(name), task(300, seed=300)
    assert (loaded.name, loaded.origin, loaded.sha256) == (name, "generated", {})
    assert loaded.texts == made.texts and loaded.licence.startswith("Apache-2.0")
    assert name in data.DATASETS and f"retrieval/{name}" in data.DATASETS
    assert data.load(f"retrieval/{name}").texts == loaded.texts
    few = data.load(name, "dev", n=7, seed=1, full_corpus=True)
    assert (len(few.queries), len(few.documents)) == (7, 100)
    recorded = [json.loads(line) for line in (tmp_path / "inputs.jsonl").read_text().splitlines()]
    assert {(x["name"], x["origin"]) for x in recorded} == {(name, "generated")}


def test_generated_sets_have_one_line_each_in_the_listing():
    table = data.listing().set_index("name")
    for name in ("passkey-LENGTH", "needle-LENGTH"):
        row = table.loc[name]
        assert (row["kind"], row["splits"], row["rows"]) == ("retrieval", "dev, test", "50, 50")
        assert row["origins"] == "generated"
        source = data.DATASETS[name.replace("LENGTH", "256")].open()
        assert ", ".join(source.splits) == row["splits"]
    assert [name for name in table.index if name.startswith("needle")] == ["needle-LENGTH"]


def test_what_is_no_length_of_a_generated_set_is_an_unknown_name():
    for name in ("needle", "needle-", "needle-long", "needle-LENGTH", "needle-1e3", "haystack-512"):
        assert name not in data.DATASETS
        with pytest.raises(LookupError, match=r"no data set named .*, needle-LENGTH, "):
            data.load(name)


# bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, -512, 255, 32769])
def test_a_length_out_of_range_is_refused(task, length):
    message = f"the length in tokens must be a whole number from 256 to 32768; got {length}$"
    with pytest.raises(ValueError, match=message):
        task(length, seed=0)
    if length > 0:
        with pytest.raises(ValueError, match=message):
            data.load(f"{task.__name__}-{length}")


@pytest.mark.parametrize("length", [512.0, "512", True, None])
def test_a_length_that_is_no_whole_number_is_refused(task, length):
    with pytest.raises(TypeError, match="length in tokens must be a whole number from 256 to 327"):
        task(length, seed=0)


def test_counts_depths_and_splits_that_cannot_be_are_refused(task):
    for given, message in (
        ({"documents": 1}, "the number of documents must be a whole number from 2 to 100; got 1"),
        ({"documents": 101}, "documents must be a whole number from 2 to 100; got 101"),
        ({"queries": 0}, "the number of queries must be a whole number from 1 to 100; got 0"),
        ({"documents": 9, "queries": 10}, "queries must be a whole number from 1 to 9; got 10"),
        ({"depth": 1.01}, r"from 0 \(first\) to 1 \(last\); got 1.01; None draws a place"),
        ({"depth": float("nan")}, "got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            task(256, seed=0, **given)
    with pytest.raises(LookupError, match=r"no split of .*-256 named 'dev'; have test"):
        task(256, seed=0, queries=100, split="dev")


def test_positions_are_only_of_whole_documents_of_these_sets():
    with pytest.raises(ValueError, match="is no question of the passkey or the needle sets"):
        synthetic.key_position(data.load("manpages", n=3))
    question, document = pairs(synthetic.passkey(256, seed=0, depth=1))[0]
    with pytest.raises(ValueError, match=f"the answer to '{re.escape(question)}': it was cut"):
        haystack.position(question, document[:500])
