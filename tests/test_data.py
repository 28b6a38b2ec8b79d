"""Shipped sets, the three origins, sub-sampling, and what a damaged or wrong input is told."""

import importlib.util
import itertools
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lab import data, paths
from lab.data import readers, sources

SHIPPED = [
    (source.key.split("/")[-1], split)
    for source in sources.read_manifest(paths.DATA, "shipped")
    for split in source.splits
]
MANIFEST = json.loads((paths.DATA / "manifest.json").read_text())


@pytest.fixture(autouse=True)
def only_shipped(monkeypatch, tmp_path):
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """An empty mirror; `put` adds a data set to it."""
    root = tmp_path / "mirror"
    sources.record(root, {}, {})
    monkeypatch.setenv("LAB_DATA", str(root))
    return root


def put(root, key, tables, **entry):
    sources.store(root, key, {"licence": "none", "licence_class": "open", **entry}, tables)


def used_positions(loaded, frame=None):
    frame = loaded.frame if frame is None else frame
    columns = frame.columns.intersection(readers.TEXT_COLUMNS[loaded.kind])
    return frame[columns].to_numpy().ravel()


# shipped sets ------------------------------------------------------------------------------------


def check_invariants(loaded):
    used = used_positions(loaded)
    assert len(loaded.frame) and used.min() >= 0 and used.max() < len(loaded.texts)
    assert len(set(loaded.texts)) == len(loaded.texts)
    assert all(isinstance(text, str) and text.strip() for text in loaded.texts)
    everything = set(used)
    if loaded.kind == "retrieval":
        everything |= set(loaded.documents)
        assert set(loaded.frame["document"]) <= set(loaded.documents)
        relevant = loaded.frame[loaded.frame["relevance"] > 0]
        assert set(relevant["query"]) == set(loaded.queries)
    if loaded.kind == "classification":
        assert set(loaded.frame["part"]) <= {"train", "test"}
        assert loaded.frame["label"].map(type).eq(str).all()
    if loaded.kind == "pair_classification":
        assert loaded.frame["label"].dtype == bool
    if loaded.kind == "sts":
        assert loaded.frame["score"].dtype == float and loaded.frame["score"].notna().all()
    assert everything == set(range(len(loaded.texts))), "a text is embedded and never used"


@pytest.mark.parametrize(("name", "split"), SHIPPED)
def test_every_shipped_split_loads_with_what_its_kind_promises(name, split):
    loaded = data.load(name, split)
    assert (loaded.name, loaded.split, loaded.origin) == (name, split, "shipped")
    assert all(MANIFEST["files"][file]["sha256"] == sha for file, sha in loaded.sha256.items())
    check_invariants(loaded)


@pytest.mark.parametrize("name", sorted({name for name, _ in SHIPPED}))
def test_no_text_of_test_is_in_another_split(name):
    def asked(split):
        loaded, frame = data.load(name, split), data.load(name, split).frame
        if loaded.kind == "classification" and split != "train":
            frame = frame[frame["part"] == "test"]
        return {loaded.texts[i] for i in used_positions(loaded, frame)}

    splits = [split for known, split in SHIPPED if known == name]
    for one, other in itertools.combinations(splits, 2):
        assert not asked(one) & asked(other)


@pytest.mark.parametrize("name", ["debian-synopsis", "manpages", "wordnet-definitions"])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_no_query_is_a_part_of_its_relevant_document(name, split):
    loaded = data.load(name, split)
    for query, document in loaded.frame[["query", "document"]].to_numpy():
        assert loaded.texts[query].lower() not in loaded.texts[document].lower()


def test_the_shipped_files_are_those_of_the_manifest_and_small():
    there = {p.relative_to(paths.DATA).as_posix() for p in paths.DATA.glob("*/**/*") if p.is_file()}
    there = {p for p in there if p.endswith((".gz", "qrels/test.tsv", "qrels/dev.tsv"))}
    assert there == set(MANIFEST["files"])
    for file, about in MANIFEST["files"].items():
        assert (paths.DATA / file).stat().st_size == about["bytes"]
    assert sum(p.stat().st_size for p in paths.DATA.rglob("*") if p.is_file()) < 10_000_000


def test_the_readme_has_a_row_for_every_file_that_agrees_with_the_manifest():
    rows = {}
    for line in (paths.DATA / "README.md").read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if len(cells) == 8 and re.fullmatch(r"[0-9a-f]{64}", cells[6]):
            rows[cells[0]] = cells
    assert set(rows) == set(MANIFEST["files"])
    for file, (_, name, origin, licence, n, size, sha, script) in rows.items():
        about = MANIFEST["files"][file]
        entry = next(e for k, e in MANIFEST["datasets"].items() if file.startswith(f"{k}/"))
        assert (int(n), int(size), sha) == (about["rows"], about["bytes"], about["sha256"])
        assert (origin, licence) == (entry["source"], entry["licence"])
        assert f"/{name}/" in file and (paths.DATA / script).is_file()


def test_every_licence_text_that_is_named_is_there():
    for entry in MANIFEST["datasets"].values():
        for file in re.findall(r"LICENSES/[\w.]+", entry["licence"]):
            assert len((paths.DATA / file).read_text()) > 300
    source = data.DATASETS["manpages"].open()
    assert source.read("corpus")["notice"].str.contains(r"copyright|\(c\)", case=False).all()


def test_taxonomy_scores_are_spread_evenly():
    for split in ("dev", "test"):
        counts, _ = np.histogram(
            data.load("wordnet-similarity", split).frame["score"], np.linspace(0.1, 1, 10)
        )
        assert counts.min() >= 95


def test_wu_palmer_of_a_small_tree_is_what_the_paper_defines(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.DATA / "build"))
    where = importlib.util.spec_from_file_location("wn", paths.DATA / "build/wordnet.py")
    wordnet = importlib.util.module_from_spec(where)
    monkeypatch.setitem(sys.modules, "wn", wordnet)
    where.loader.exec_module(wordnet)
    parents = {
        "root": [],
        "animal": ["root"],
        "dog": ["animal"],
        "cat": ["animal"],
        "stone": ["root"],
        "pet": ["root"],
        "lap dog": ["dog", "pet"],
    }
    tree = wordnet.Taxonomy(
        {key: wordnet.Synset(key, [key], "", up) for key, up in parents.items()}
    )
    assert tree.wu_palmer("dog", "dog") == 1
    assert tree.wu_palmer("dog", "cat") == pytest.approx(2 * 2 / (1 + 1 + 4))
    assert tree.wu_palmer("dog", "stone") == pytest.approx(2 * 1 / (2 + 1 + 2))
    assert tree.wu_palmer("lap dog", "cat") == pytest.approx(2 * 2 / (2 + 1 + 4))
    assert tree.wu_palmer("lap dog", "pet") == pytest.approx(2 * 2 / (1 + 0 + 4))


@pytest.mark.parametrize("length", [256, 512, 1024, 2048, 4096])
def test_a_reader_of_the_first_part_finds_passkeys_in_proportion(length):
    found = {share: [] for share in (1, 2, 4)}
    for split in ("dev", "test"):
        loaded = data.load(f"passkey-{length}", split)
        for query, document in loaded.frame[["query", "document"]].to_numpy():
            words = loaded.texts[document].split()
            assert len(words) == round(0.75 * length)
            name = loaded.texts[query].removeprefix("What is the safe code of ").rstrip("?")
            for share, hits in found.items():
                hits.append(name in " ".join(words[: len(words) // share]))
    assert all(found[1])
    for share in (2, 4):
        low, high = stats.binom.interval(0.999, len(found[share]), 1 / share)
        assert low <= sum(found[share]) <= high


# sampling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "split"), [pair for pair in SHIPPED if pair[1] == "test"])
def test_a_sample_is_drawn_by_its_seed_and_keeps_what_its_kind_promises(name, split):
    one, same = (data.load(name, split, n=20, seed=3) for _ in range(2))
    other = data.load(name, split, n=20, seed=4)
    pd.testing.assert_frame_equal(one.frame, same.frame)
    assert one.texts == same.texts != other.texts
    assert (one.n, one.seed) == (20, 3)
    check_invariants(one)
    if one.kind == "retrieval":
        assert len(one.queries) == 20 and set(one.documents) == set(one.frame["document"])
        whole, full = data.load(name, split), data.load(name, split, n=20, seed=3, full_corpus=True)
        assert len(full.documents) == len(whole.documents) > len(one.documents)
        assert len(full.queries) == 20


def test_a_sample_of_labelled_texts_has_every_label_in_proportion(mirror):
    rows = [
        {"text": f"{label}{i}", "label": label}
        for label, n in (("a", 60), ("b", 30), ("c", 1))
        for i in range(n)
    ]
    put(mirror, "clustering/uneven", {"test": rows})
    counts = Counter(data.load("uneven", n=31, seed=1).frame["label"])
    assert counts == {"a": 20, "b": 10, "c": 1}
    assert set(data.load("uneven", n=3).frame["label"]) == {"a", "b", "c"}


def test_a_classification_sample_fits_on_as_many_texts_of_the_same_labels():
    parts = data.load("debian-sections", n=40).frame.groupby("part")["label"]
    assert parts.size().to_dict() == {"test": 40, "train": 40}
    assert set(parts.get_group("train")) == set(parts.get_group("test"))


@pytest.mark.parametrize("n", [0, -3, 1001, 1.5, 20.0, float("nan"), "20", True])
def test_a_sample_size_that_cannot_be_drawn_is_refused(n):
    message = (
        f"n={n!r} of wordnet-similarity/test: it has 1000 to draw from; ask for a whole number "
        "from 1 to 1000, or None for all"
    )
    with pytest.raises(ValueError if type(n) is int else TypeError, match=f"^{message}$"):
        data.load("wordnet-similarity", n=n)


def test_a_sample_size_may_come_from_numpy():
    loaded = data.load("wordnet-similarity", n=np.int64(20))
    assert (len(loaded.frame), type(loaded.n)) == (20, int)


def test_a_corpus_that_is_cut_to_judged_documents_says_so(mirror):
    judged = [(0, 0), (0, 1), (1, 2), (1, 0), (2, 3)]
    put(
        mirror,
        "retrieval/small",
        {
            "corpus": [{"id": f"d{i}", "text": f"document {i}"} for i in range(6)],
            "queries": [{"id": f"q{i}", "text": f"query {i}"} for i in range(3)],
            "qrels/test": [
                {"query-id": f"q{q}", "corpus-id": f"d{d}", "score": 1} for q, d in judged
            ],
        },
    )
    cut = data.load("small", n=2)
    note = f"corpus cut to the {len(cut.documents)} of 6 documents judged for these 2 queries"
    assert len(cut.documents) < 6
    assert [each.startswith(note) for each in cut.notes] == [True]
    assert data.load("small").notes == data.load("small", n=2, full_corpus=True).notes == ()
    put(
        mirror,
        "retrieval/all-judged",
        {
            "corpus": [{"id": "d", "text": "document"}],
            "queries": [{"id": "q", "text": "query"}],
            "qrels/test": [{"query-id": "q", "corpus-id": "d", "score": 1}],
        },
    )
    assert data.load("all-judged", n=1).notes == ()


# kinds of a mirror -------------------------------------------------------------------------------


def test_a_text_in_train_and_test_is_kept_and_reported(mirror):
    put(
        mirror,
        "classification/twice",
        {
            "train": [{"text": "same", "label": "a"}, {"text": "other", "label": "b"}],
            "test": [{"text": "new", "label": "a"}, {"text": "same", "label": "a"}],
        },
    )
    loaded = data.load("twice")
    assert [loaded.texts[i] for i in loaded.repeated] == ["same"]
    assert len(loaded.frame) == 4 and len(loaded.texts) == 3


def test_a_set_without_splits_is_halved_by_the_seed_and_has_only_all(mirror):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(20)]
    put(mirror, "classification/whole", {"all": rows})
    counts = data.load("whole", "all").frame.groupby(["part", "label"]).size()
    assert counts.to_list() == [5, 5, 5, 5]
    with pytest.raises(LookupError, match="no split of whole named 'test'; have all"):
        data.load("whole")


def test_entailment_is_true_contradiction_false_and_neutral_is_counted(mirror):
    labels = ["entailment", "neutral", "contradiction"]
    rows = [{"sentence1": f"a{x}", "sentence2": f"b{x}", "label": x} for x in labels]
    put(mirror, "pairs/nli", {"test": rows})
    loaded = data.load("nli")
    assert loaded.kind == "pair_classification"
    assert loaded.frame["label"].to_list() == [True, False]
    assert loaded.notes == ("1 neutral pairs left out",)
    rows[1]["label"] = "maybe"
    put(mirror, "pairs/nli", {"test": rows})
    with pytest.raises(ValueError, match=r"labels \['maybe'\]; wanted true and false"):
        data.load("nli")


def test_a_short_name_is_the_shipped_set_and_the_full_name_the_mirrors(mirror):
    put(
        mirror,
        "pairs/wordnet-definitions",
        {"train": [{"word": "a", "definition": "first letter"}]},
    )
    assert data.load("wordnet-definitions").origin == "shipped"
    loaded = data.load("pairs/wordnet-definitions", "train")
    assert (loaded.origin, loaded.kind, loaded.texts) == ("mirror", "pairs", ["a", "first letter"])
    names = data.listing()["name"].to_list()
    assert "pairs/wordnet-definitions" in names and len(set(names)) == len(names)


def test_the_listing_says_kind_rows_licence_and_origin(monkeypatch):
    table = data.listing().set_index("name")
    row = table.loc["debian-sections"]
    assert (row["kind"], row["splits"], row["rows"]) == (
        "classification",
        "train, dev, test",
        "700, 200, 500",
    )
    assert row["origins"] == "shipped" and row["licence_class"] == "free-mixed"
    assert table.loc["stsb-en", "origins"] == "hub"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert data.listing().set_index("name").loc["stsb-en", "origins"] == ""


# bad input ---------------------------------------------------------------------------------------


def test_unknown_names_and_splits_say_what_there_is():
    with pytest.raises(
        LookupError, match=r"no data set named 'wordnet-similarty'.*did you mean 'w"
    ):
        data.load("wordnet-similarty")
    with pytest.raises(
        LookupError, match="no split of manpages named 'tests'; have dev, test; did"
    ):
        data.load("manpages", "tests")


def shipped_copy(tmp_path, monkeypatch):
    copy = tmp_path / "data"
    shutil.copytree(paths.DATA, copy)
    monkeypatch.setattr(paths, "DATA", copy)
    return copy / "sts/wordnet-similarity/test.jsonl.gz"


def test_a_damaged_file_is_named_with_both_checksums_and_a_remedy(tmp_path, monkeypatch):
    file = shipped_copy(tmp_path, monkeypatch)
    good = data.load("wordnet-similarity").sha256["sts/wordnet-similarity/test.jsonl.gz"]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=rf"test.jsonl.gz is damaged: expected sha256 {good}, got "
        r"[0-9a-f]{64}; restore it with `git checkout -- data`",
    ):
        data.load("wordnet-similarity")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"test.jsonl.gz is missing; restore it with `git"):
        data.load("wordnet-similarity")


def test_a_file_without_a_recorded_checksum_is_not_read(mirror):
    put(mirror, "sts/one", {"test": [{"sentence1": "a", "sentence2": "b", "score": 1}]})
    manifest = json.loads((mirror / "manifest.json").read_text())
    manifest["files"] = {}
    (mirror / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"records no sha256 for sts/one/test.jsonl.gz"):
        data.load("one")


def test_a_mirror_without_manifest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"holds no manifest.json.*point LAB_DATA at a mirr"
    ):
        data.load("manpages")


@pytest.mark.parametrize("text", ["", " \n", None, float("nan"), 7])
def test_a_row_without_text_is_named(mirror, text):
    rows = [
        {"sentence1": "a", "sentence2": "b", "score": 1.0},
        {"sentence1": "c", "sentence2": text, "score": 2.0},
    ]
    put(mirror, "sts/holes", {"test": rows})
    with pytest.raises(
        ValueError, match=r"sts/holes/test.jsonl.gz, row 2: second is .*, not a text"
    ):
        data.load("holes")


def test_scores_outside_the_stated_range_missing_columns_and_labels_are_refused(mirror):
    rows = [{"sentence1": "a", "sentence2": "b", "score": x} for x in (1.0, 5.5)]
    put(mirror, "sts/wide", {"test": rows}, score_range=[0, 5])
    with pytest.raises(ValueError, match=r"row 2: score 5.5 is outside \[0, 5\]"):
        data.load("wide")
    put(mirror, "sts/narrow", {"test": [{"sentence1": "a", "score": 1}]})
    with pytest.raises(ValueError, match=r"has no \['second'\], which every sts set has"):
        data.load("narrow")
    put(mirror, "clustering/unlabelled", {"test": [{"text": "a", "label": None}]})
    with pytest.raises(ValueError, match="row 1: no label"):
        data.load("unlabelled")


def test_a_judgement_of_a_document_that_is_not_there_is_refused(mirror):
    put(
        mirror,
        "retrieval/loose",
        {
            "corpus": [{"id": "d", "text": "document"}],
            "queries": [{"id": "q", "text": "query"}],
            "qrels/test": [{"query-id": "q", "corpus-id": "e", "score": 1}],
        },
    )
    with pytest.raises(ValueError, match="qrels name 'e', which retrieval/loose/corpus"):
        data.load("loose")


# the real mirror ---------------------------------------------------------------------------------

REAL = Path(paths.mirror()) if paths.mirror() else None
IN_MIRROR = [
    (source.key, split)
    for source in (sources.read_manifest(REAL, "mirror") if REAL else [])
    for split in source.splits
]


@pytest.mark.mirror
@pytest.mark.skipif(REAL is None, reason="LAB_DATA is not set; set it to a mirror to run this")
@pytest.mark.parametrize(("key", "split"), IN_MIRROR)
def test_every_split_of_the_mirror_loads(monkeypatch, key, split):
    monkeypatch.setenv("LAB_DATA", str(REAL))
    loaded = data.load(key, split)
    assert loaded.origin == "mirror" and len(loaded.sha256) >= 1
    check_invariants(loaded)
    check_invariants(data.load(key, split, n=10))


@pytest.mark.mirror
@pytest.mark.skipif(REAL is None, reason="LAB_DATA is not set; set it to a mirror to run this")
def test_scores_keep_their_range_and_nothing_shipped_is_a_copy(monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(REAL))
    for name, low, high, n in (("stsb-en", 0, 5, 1379), ("sick", 1, 5, 4927)):
        score = data.load(name).frame["score"]
        assert (score.min(), score.max(), len(score)) == (low, high, n)
    theirs = json.loads((REAL / "manifest.json").read_text())["files"].values()
    ours = MANIFEST["files"].values()
    assert not {x["sha256"] for x in theirs} & {x["sha256"] for x in ours}
