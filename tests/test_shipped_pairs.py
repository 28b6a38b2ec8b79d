"""Shipped training pairs: none of their texts is evaluated on, and how they were made."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from lab import data, paths
from lab.data import sources

SPLITS = [
    ("wordnet-pairs", "train", 6000),
    ("wordnet-pairs", "dev", 600),
    ("debian-pairs", "train", 3000),
    ("debian-pairs", "dev", 300),
]
NAMES = ["wordnet-pairs", "debian-pairs"]
COLUMNS = ("anchor", "positive", "negative")
WORDS = 8  # of a shingle


@pytest.fixture(autouse=True)
def only_shipped(monkeypatch):
    monkeypatch.delenv("LAB_DATA", raising=False)


def same(text):
    return " ".join(text.lower().split())


def bare(texts):
    """The texts without case and punctuation."""
    return {" ".join(re.findall(r"\w+", text.lower())) for text in texts}


def rows(name, split):
    return data.DATASETS[name].open().read(split)


def texts(table, *columns):
    return [same(text) for c in columns or COLUMNS if c in table for text in table[c]]


@pytest.fixture(scope="module")
def evaluated():
    """Set -> every normalised text of its files, whatever the split; and all the tables."""
    found, tables = {}, {}
    for source in sources.read_manifest(paths.DATA, "shipped"):
        if source.kind == "pairs":
            continue
        for name in (name for name in source.files if not name.startswith("qrels/")):
            table = tables[source.key, name] = source.read(name)
            held = found.setdefault(source.key, set())
            for column in {"text", "sentence1", "sentence2"} & set(table):
                held |= set(texts(table, column))
    assert len(found) > 5 and all(found.values())
    return found, tables


@pytest.fixture(scope="module")
def stripped(evaluated):
    """Set -> every text of its files without case and punctuation."""
    return {key: bare(held) for key, held in evaluated[0].items()}


@pytest.fixture(scope="module")
def build():
    """The module data/build/pairs.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(paths.DATA / "build"))
        yield importlib.import_module("pairs")
    for name in ("pairs", "archive", "debian", "wordnet"):
        sys.modules.pop(name, None)


# nothing that is evaluated on --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "split", "_"), SPLITS)
def test_no_text_is_in_any_shipped_evaluation_set(evaluated, stripped, name, split, _):
    trained = set(texts(rows(name, split)))
    for key, held in evaluated[0].items():
        assert not trained & held, key
        assert not bare(trained) & stripped[key], key


@pytest.mark.parametrize("split", ["train", "dev"])
def test_no_word_definition_or_synset_of_a_wordnet_set_is_trained_on(evaluated, split):
    table = rows("wordnet-pairs", split)
    words = {text.split(": ")[0] for text in texts(table, "anchor")}
    definitions = set(texts(table, "positive", "negative"))
    for key, held in evaluated[0].items():
        if key == "sts/wordnet-similarity":
            parts = [text.split(": ", 1) for text in held]
            assert not words & {word for word, _ in parts}
            assert not definitions & {definition for _, definition in parts}
        assert not words & held and not definitions & held
    asked = set(evaluated[1]["retrieval/wordnet-definitions", "corpus"]["id"])
    assert len(asked) == 3000 and not asked & set(table["synset"])


@pytest.mark.parametrize("split", ["train", "dev"])
def test_no_package_of_an_evaluation_set_is_trained_on(evaluated, split):
    asked = set(evaluated[1]["retrieval/debian-synopsis", "corpus"]["id"])
    for (key, _), table in evaluated[1].items():
        if key.endswith("debian-sections"):
            asked |= set(table["package"])
    assert len(asked) == 2500 + 1400 and not asked & set(rows("debian-pairs", split)["package"])


@pytest.mark.parametrize("split", ["train", "dev"])
def test_no_long_text_is_a_part_of_an_evaluation_text(evaluated, split):
    """A text within another shares its first words with it; only those need the whole search."""
    starting = {}
    for held in evaluated[0].values():
        for text in held:
            words = text.split()
            for i in range(len(words) - WORDS + 1):
                starting.setdefault(tuple(words[i : i + WORDS]), []).append(text)
    for name in NAMES:
        for text in texts(rows(name, split)):
            words = tuple(text.split()[:WORDS])
            assert not any(text in other for other in starting.get(words, []))


# what a row is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_dev_and_train_share_no_text_and_no_word_asked_for(name):
    train, dev = rows(name, "train"), rows(name, "dev")
    assert not set(texts(train)) & set(texts(dev))
    if name == "wordnet-pairs":
        train, dev = ({text.split(": ")[0] for text in texts(x, "anchor")} for x in (train, dev))
        assert not train & dev


@pytest.mark.parametrize("name", NAMES)
def test_every_text_has_one_role_and_every_pair_is_there_once(name):
    both = [rows(name, split) for split in ("train", "dev")]
    anchors, positives = ([t for x in both for t in texts(x, c)] for c in ("anchor", "positive"))
    assert len(set(anchors)) == len(anchors) and len(set(positives)) == len(positives)
    others = {text for table in both for text in texts(table, "positive", "negative")}
    assert not set(anchors) & others


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_negative_is_another_definition_than_the_positive(split):
    table = rows("wordnet-pairs", split)
    positives, negatives = texts(table, "positive"), texts(table, "negative")
    assert all(p != n for p, n in zip(positives, negatives, strict=True))
    assert "negative" not in rows("debian-pairs", split)


@pytest.mark.parametrize(("name", "split", "n"), SPLITS)
def test_sets_have_the_stated_size_and_short_texts(name, split, n):
    table, source = rows(name, split), data.DATASETS[name].open()
    assert len(table) == n and not table.isna().any(axis=None)
    assert (paths.DATA / source.files[split]).stat().st_size < 500_000
    words = [len(text.split()) for text in texts(table, "positive")]
    assert max(words) <= 40
    if name == "debian-pairs":
        assert 25 <= np.median(words) <= 35 and min(words) >= 10
        assert table["positive"].str.endswith((".", "!", "?")).all()
    else:
        assert min(words) >= 4
        shown = table["anchor"].str.contains(": ")
        assert 0.4 < shown.mean() < 0.6  # the note says: about half
        assert table["anchor"].where(~shown, "word").str.fullmatch("[a-z]{3,}").all()


# loading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_pairs_is_rows_of_the_file(name):
    loaded = data.load(name, "train", n=500, seed=0)
    columns = [c for c in COLUMNS if c in rows(name, "train")]
    assert (loaded.kind, loaded.origin, list(loaded.frame)) == ("pairs", "shipped", columns)
    drawn = [tuple(loaded.texts[i] for i in row) for row in loaded.frame.to_numpy()]
    assert len(set(drawn)) == 500
    assert set(drawn) <= set(rows(name, "train")[columns].itertuples(index=False, name=None))
    again, other = (data.load(name, "train", n=500, seed=seed).texts for seed in (0, 1))
    assert again == loaded.texts != other


def test_there_is_no_test_split_to_evaluate_on():
    with pytest.raises(
        LookupError, match="no split of wordnet-pairs named 'test'; have dev, train"
    ):
        data.load("wordnet-pairs")


def test_the_listing_has_them_under_their_short_names():
    listed = data.listing().set_index("name").loc[NAMES]
    assert list(listed["kind"]) == ["pairs"] * 2
    assert list(listed["rows"]) == ["6000, 600", "3000, 300"]
    assert list(listed["origins"]) == ["shipped"] * 2


# how they are made -------------------------------------------------------------------------------


def test_a_description_is_cut_after_a_sentence(build):
    sentence = "Ten words that end with a stop, as e.g. here."
    assert build.lead(f"{sentence} {sentence}\nAnother paragraph.") == (
        f"{sentence} {sentence} Another paragraph."
    )
    five = " ".join([sentence] * 5)
    assert build.lead(five) == " ".join([sentence] * 4)
    assert build.lead("word " * 41) == ""


def test_a_word_is_shown_in_an_example_that_holds_it_and_not_a_longer_word(build):
    synset = build.wordnet.Synset(
        "n1", ["art"], "", [], ["an article of clothing", "the arts thrive"]
    )
    assert build.in_context("art", synset) is None
    synset.examples.append("she studied fine arts in Rome")
    assert build.in_context("art", synset) == "art: she studied fine arts in Rome"


def test_a_small_wordnet_gives_co_hyponyms_and_leaves_out_what_is_held(build, monkeypatch):
    def synset(key, words, definition, parent, *examples):
        return build.wordnet.Synset(key, words, definition, [parent] if parent else [], [*examples])

    known = [
        synset("n0", ["beast"], "a living thing that can move", ""),
        synset(
            "n1", ["hound", "mutt"], "one that barks at strangers", "n0", "a hound was at the door"
        ),
        synset("n2", ["kitten"], "one that catches many mice", "n0"),
        synset("n3", ["mutt"], "one of no certain breed", "n0"),
        synset("n4", ["pony"], "one that is in the test set", "n0"),
        synset("n5", ["granite"], "one with no sibling at all", "n9"),
    ]
    monkeypatch.setattr(build, "N_WORDNET", {"train": 2})
    senses = Counter({"mutt": 2}) | Counter({w: 1 for s in known for w in s.words})
    senses = {word: (n, 0) for word, n in senses.items()}
    synsets = {s.key: s for s in known}
    held = {"one that is in the test set"}
    made = build.wordnet_pairs(synsets, senses, held)["train"]
    by_anchor = {row["anchor"]: row for row in made}
    assert set(by_anchor) == {"hound: a hound was at the door", "kitten"}
    hound = by_anchor["hound: a hound was at the door"]
    assert hound["synset"] == "n1" and hound["positive"] == known[1].definition
    assert hound["negative"] == known[2].definition  # not that of the other mutt
    assert by_anchor["kitten"]["negative"] in {known[1].definition, known[3].definition}
    with pytest.raises(ValueError, match="train wants 2 rows; the source has 1"):
        build.wordnet_pairs(synsets, senses, held | {"kitten"})


def test_a_description_within_an_evaluated_text_is_left_out(build, monkeypatch):
    body = "A tool that reads {} and writes what it has found there."
    names = ["logs", "mail", "maps"]
    described = [
        {"package": n, "synopsis": f"reader of {n}", "body": body.format(n)} for n in names
    ]
    monkeypatch.setattr(build, "N_DEBIAN", {"dev": 1, "train": 1})
    made = build.debian_pairs(described, {f"first. {body.format('mail')} last.".lower()})
    assert {row["package"] for table in made.values() for row in table} == {"logs", "maps"}


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """A copy of data/ whose pairs were built again from the packages."""
    if not os.environ.get("LAB_REBUILD") or shutil.which("apt-get") is None:
        pytest.skip("fetches through apt: set LAB_REBUILD=1 on Debian 12 to run this")
    copy = tmp_path_factory.mktemp("rebuilt") / "data"
    shutil.copytree(paths.DATA, copy, ignore=shutil.ignore_patterns("pairs", "__pycache__"))
    subprocess.run([sys.executable, copy / "build/pairs.py", "--out", copy], check=True)
    return copy


@pytest.mark.parametrize("name", NAMES)
def test_the_script_gives_the_same_bytes(rebuilt, name):
    key = f"pairs/{name}"
    new, old = (json.loads((x / "manifest.json").read_text()) for x in (rebuilt, paths.DATA))
    if new["datasets"][key]["source"] != old["datasets"][key]["source"]:
        pytest.skip(f"the source moved to {new['datasets'][key]['source']}")
    assert new["datasets"][key] == old["datasets"][key]
    for file in new["datasets"][key]["files"]:
        assert (rebuilt / file).read_bytes() == (paths.DATA / file).read_bytes()
