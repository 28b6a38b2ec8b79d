import errno
import gzip
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import anisotropy, cli, cluster, models, paths
from lab.anisotropy import Stream
from lab.corpus import accumulators, command, embedding, output, plan, sources
from lab.corpus import worker as workers
from lab.corpus.children import processes
from lab.corpus.embedding import embed
from lab.corpus.executors import EXECUTORS
from lab.corpus.ledger import Ledger
from lab.corpus.plan import Request
from lab.corpus.resources import Resources, Stop
from lab.corpus.rows import Reader
from lab.models.checkpoints import byte_tokenizer, random_model, tiny_config
from lab.models.encoder import Encoder
from lab.models.texts import TextError
from lab.readout import read_out

WORDS = "red sky sea old new cat dog ice oak bird".split()
MANY = 200_000


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with one layer of width 16 over bytes, and a Dense and a Normalize after it."""
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny_config(
        "bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    random_model(config, seed=0).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def normalised(tiny, tmp_path_factory):
    """The same with a Normalize module, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    transformer = modules.Transformer(tiny)
    parts = [transformer, modules.Pooling(16, "max"), modules.Normalize()]
    folder = tmp_path_factory.mktemp("normalised")
    SentenceTransformer(modules=parts, device="cpu").save(str(folder))
    return str(folder)


def sentences(n, seed=0):
    rng = random.Random(seed)
    return [
        f"{' '.join(rng.choices(WORDS, k=rng.randint(1, 5)))} {number:x}" for number in range(n)
    ]


def write_lines(path, records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def corpus_of(path, texts):
    return write_lines(path, [{"text": text} for text in texts])


def vectors(out, column="embedding"):
    files = sorted((out / "shards").glob("*.parquet"))
    return np.concatenate([output.read(file, column) for file in files])


def column(out, name):
    files = sorted((out / "shards").glob("*.parquet"))
    return [value for file in files for value in pq.read_table(file)[name].to_pylist()]


def entries(out):
    return [json.loads(file.read_text()) for file in sorted((out / "ledger").glob("*.json"))]


def shard_bytes(out):
    return {file.name: file.read_bytes() for file in sorted((out / "shards").iterdir())}


def measured(out):
    return json.loads((out / "summary.json").read_text())["measures"]


def asked(model, **options):
    """A request without measures, which say of few rows that they are few."""
    return Request(model, **{"measures": "none", **options})


def serial(corpus, out, request, **options):
    return embed(corpus, out, request, Resources(), executor="serial", **options)


# --- the vectors -------------------------------------------------------------------------------


def test_without_a_choice_of_read_outs_a_row_is_what_encode_returns(tmp_path, normalised):
    texts = sentences(95)
    request = asked(normalised, shard_rows=20)
    serial(corpus_of(tmp_path / "c.jsonl", texts), tmp_path / "out", request)
    model = models.load(normalised)
    assert np.allclose(vectors(tmp_path / "out"), model.encode(texts), atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors(tmp_path / "out"), axis=1), 1)
    assert column(tmp_path / "out", "id") == list(range(95))
    lengths = [len(text.ids) for text in model.encoder.tokenise(texts)]
    assert column(tmp_path / "out", "n_tokens") == lengths


def test_the_models_own_prompt_and_a_given_one_are_those_of_encode(tmp_path, tiny):
    texts = sentences(9)
    model = models.load(tiny)
    model.prompts, model.default_prompt_name = {"query": "find: "}, "query"
    model.save_pretrained(str(tmp_path / "model"))
    corpus = corpus_of(tmp_path / "c.jsonl", texts)
    serial(corpus, tmp_path / "own", asked(str(tmp_path / "model")))
    assert np.allclose(vectors(tmp_path / "own"), model.encode(texts), atol=1e-6)
    serial(corpus, tmp_path / "given", asked(str(tmp_path / "model"), prompt="say: "))
    assert np.allclose(vectors(tmp_path / "given"), model.encode(texts, prompt="say: "), atol=1e-6)
    assert not np.allclose(vectors(tmp_path / "given"), vectors(tmp_path / "own"), atol=1e-3)


def test_several_read_outs_and_layer_mixes_come_from_one_pass(tmp_path):
    texts = sentences(30)
    request = asked(
        "random:bert",
        poolings=["mean", "last"],
        layers=[-1, 1, "first_last"],
        settings={"attention": "causal", "temperature": 0.5},
        shard_rows=13,
    )
    serial(corpus_of(tmp_path / "c.jsonl", texts), tmp_path / "out", request)
    model = models.load("random:bert", attention="causal", temperature=0.5)
    found = read_out(model, texts, poolings=["mean", "last"], progress=False)
    for pooling in ("mean", "last"):
        for name, wanted in (
            ("layer_3", found[3, pooling]),
            ("layer_1", found[1, pooling]),
            ("first_last", found.mix("first_last", pooling)),
        ):
            assert np.allclose(vectors(tmp_path / "out", f"{pooling}_{name}"), wanted, atol=1e-5)


def test_float16_is_the_rounded_float32(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(20))
    serial(corpus, tmp_path / "wide", asked(tiny))
    serial(corpus, tmp_path / "half", asked(tiny, store="float16"))
    assert vectors(tmp_path / "half").dtype == np.float16
    wide = vectors(tmp_path / "wide")
    assert np.array_equal(vectors(tmp_path / "half"), wide.astype(np.float16))
    with pytest.raises(ValueError, match=r"holds 7e\+04, which is beyond float16; store float32"):
        output.stored(np.full((1, 2), 7e4, np.float32), "float16")


def test_truncated_texts_are_marked_and_counted(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", ["short", "long " * 20])
    summary = serial(corpus, tmp_path / "out", asked(tiny, settings={"max_length": 10}))
    assert column(tmp_path / "out", "truncated") == [False, True]
    assert column(tmp_path / "out", "n_tokens") == [7, 10]
    assert (summary["truncated"], summary["tokens"]) == (1, 17)


def test_a_file_says_what_it_is_made_of(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(5))
    serial(corpus, tmp_path / "out", asked(tiny, settings={"attention": "causal"}, shard_rows=3))
    schema = pq.read_schema(tmp_path / "out/shards/000001.parquet")
    about = json.loads(schema.metadata[output.METADATA])
    assert about["source"]["path"] == "c.jsonl" and about["rows"] == [3, 5]
    assert about["model"]["attention"] == "causal" and len(about["weights"]) == 32
    assert schema.field("embedding").type == pa.list_(pa.float32(), 16)


# --- reading -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    lines=st.integers(1, 60),
    groups=st.integers(1, 25),
    rows=st.integers(1, 23),
    kind=st.sampled_from([".parquet", ".jsonl", ".jsonl.gz"]),
    seed=st.integers(0, 99),
)
def test_shards_read_in_any_order_are_the_rows_of_the_file(
    tmp_path_factory, lines, groups, rows, kind, seed
):
    folder = tmp_path_factory.mktemp("corpus")
    texts = [f"{number} é\n\u2028 {'x' * (number % 7)}" for number in range(lines)]
    table = [{"text": text, "key": f"k{number}"} for number, text in enumerate(texts)]
    path = folder / f"c{kind}"
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), path, row_group_size=groups)
    else:
        write_lines(path, table)
    shards = sources.cut([sources.examine(folder, path, "text", "key", rows)], rows)
    order = random.Random(seed).sample(shards, len(shards))
    reader = Reader(folder, "text", "key", "string")
    found = {shard.number: reader.read(shard) for shard in order}
    reader.close()
    assert [text for shard in shards for text in found[shard.number].texts] == texts
    keys = [key for shard in shards for key in found[shard.number].ids]
    assert keys == [f"k{number}" for number in range(lines)]


def test_a_folder_is_read_file_by_file_and_ids_count_through(tmp_path, tiny):
    texts = sentences(25)
    (tmp_path / "c/sub").mkdir(parents=True)
    corpus_of(tmp_path / "c/a.jsonl.gz", texts[:9])
    pq.write_table(pa.table({"text": texts[9:16]}), tmp_path / "c/b.parquet", row_group_size=2)
    corpus_of(tmp_path / "c/sub/c.jsonl", texts[16:])
    corpus_of(tmp_path / "c/.hidden.jsonl", ["no part of it"])
    serial(tmp_path / "c", tmp_path / "out", asked(tiny, shard_rows=4))
    assert column(tmp_path / "out", "id") == list(range(25))
    assert np.allclose(vectors(tmp_path / "out"), models.load(tiny).encode(texts), atol=1e-6)
    assert [entry["source"] for entry in entries(tmp_path / "out")] == [
        *["a.jsonl.gz"] * 3,
        *["b.parquet"] * 2,
        *["sub/c.jsonl"] * 3,
    ]


BAD = [
    ({"text": " \n"}, "has an empty or blank text"),
    ({"text": None}, "has no text: 'None' is a NoneType, not a string"),
    ({"text": 7}, "has no text: '7' is a int, not a string"),
    ({"text": "\ud800"}, "has a text with half of a surrogate pair, which is no character"),
    ({"other": "x"}, "has no 'text'; it has other"),
    ([1], "is a JSON list, not an object"),
]


@pytest.mark.parametrize(("record", "why"), BAD)
def test_a_bad_row_stops_everything_by_name_or_is_left_out_and_listed(tmp_path, tiny, record, why):
    good = [{"text": "one"}, {"text": "two"}, {"text": "four"}]
    corpus = write_lines(tmp_path / "c.jsonl", [*good[:2], record, good[2]])
    with pytest.raises(ValueError) as caught:
        serial(corpus, tmp_path / "stop", asked(tiny))
    assert str(caught.value).startswith(f"shard 0 (c.jsonl, rows 0 to 3): row 2 {why}")
    assert "--on-bad skip" in str(caught.value)
    assert list((tmp_path / "stop/shards").iterdir()) == []
    summary = serial(corpus, tmp_path / "stop", asked(tiny, on_bad="skip"))  # as it was told to
    assert summary["skipped"] == 1 and column(tmp_path / "stop", "id") == [0, 1, 3]
    assert entries(tmp_path / "stop")[0]["skipped"] == [{"row": 2, "why": why}]


def test_a_line_that_is_no_json_is_a_bad_row_too_even_the_first(tmp_path, tiny):
    (tmp_path / "c.jsonl").write_bytes(b'{"text": \n{"text": "one"}\n\xff\n{"text": "two"}')
    serial(tmp_path / "c.jsonl", tmp_path / "out", asked(tiny, on_bad="skip"))
    whys = [bad["why"] for bad in entries(tmp_path / "out")[0]["skipped"]]
    assert [why.startswith("is not JSON: ") for why in whys] == [True, True]
    assert column(tmp_path / "out", "id") == [1, 3]


def test_texts_that_the_tokenizer_refuses_are_bad_rows(tmp_path, tiny, monkeypatch):
    tokenise = Encoder.tokenise

    def picky(self, texts, *args):
        for row, text in enumerate(texts):
            if text.startswith("\u200b"):  # which some tokenizers make nothing of
                raise TextError(row, text, "gives no token")
        return tokenise(self, texts, *args)

    monkeypatch.setattr(Encoder, "tokenise", picky)
    corpus = corpus_of(tmp_path / "c.jsonl", ["one", "\u200b", "two", "\u200b\u200b"])
    request = asked(tiny)
    with pytest.raises(ValueError, match="row 1 gives no token"):
        serial(corpus, tmp_path / "stop", request)
    serial(corpus, tmp_path / "skip", replace(request, on_bad="skip"))
    assert [bad["row"] for bad in entries(tmp_path / "skip")[0]["skipped"]] == [1, 3]
    assert np.allclose(
        vectors(tmp_path / "skip"), models.load(tiny).encode(["one", "two"]), atol=1e-6
    )


def test_a_shard_of_bad_rows_only_is_an_empty_file(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", ["one", "two", "", " ", *sentences(5)])
    summary = serial(corpus, tmp_path / "out", asked(tiny, on_bad="skip", shard_rows=2))
    assert (summary["rows"], summary["skipped"]) == (7, 2)
    assert pq.read_metadata(tmp_path / "out/shards/000001.parquet").num_rows == 0


def test_an_id_of_another_kind_is_a_bad_row(tmp_path, tiny):
    records = [{"text": "one", "key": 5}, {"text": "two", "key": "x"}, {"text": "two"}]
    corpus = write_lines(tmp_path / "c.jsonl", records)
    request = asked(tiny, id_column="key", on_bad="skip")
    serial(corpus, tmp_path / "out", request)
    assert column(tmp_path / "out", "id") == [5]
    whys = [bad["why"] for bad in entries(tmp_path / "out")[0]["skipped"]]
    assert whys == ["has the id 'x'; the ids of this corpus are int64", "has no 'key'; it has text"]


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([1, 2**63, -(2**63) - 1], f"has the id {2**63}, which is beyond int64"),
        (
            ["a", "\ud800", "b\udfff"],
            "has an id with half of a surrogate pair, which is no character",
        ),
    ],
)
def test_an_id_that_no_file_can_hold_is_a_bad_row_before_anything_is_embedded(
    tmp_path, tiny, ids, why
):
    corpus = write_lines(tmp_path / "c.jsonl", [{"text": "one", "key": key} for key in ids])
    request = asked(tiny, id_column="key")
    with pytest.raises(ValueError, match=r"row 1 .* \(1 more in this shard\); mend the corpus"):
        serial(corpus, tmp_path / "stop", request)
    serial(corpus, tmp_path / "out", replace(request, on_bad="skip"))
    assert column(tmp_path / "out", "id") == ids[:1]
    skipped = entries(tmp_path / "out")[0]["skipped"]
    assert skipped[0] == {"row": 1, "why": why} and skipped[1]["row"] == 2


def test_the_largest_int64_is_an_id_and_an_uint64_beyond_it_a_bad_row(tmp_path, tiny):
    keys = pa.array([2**63 - 1, 2**64 - 1], pa.uint64())
    pq.write_table(pa.table({"text": ["one", "two"], "key": keys}), tmp_path / "c.parquet")
    request = asked(tiny, id_column="key", on_bad="skip")
    assert serial(tmp_path / "c.parquet", tmp_path / "out", request)["skipped"] == 1
    assert column(tmp_path / "out", "id") == [2**63 - 1]


def test_json_too_deep_to_be_read_is_a_bad_row(tmp_path, tiny):
    deep = "[" * 100_000 + "]" * 100_000
    lines = [deep, '{"text": "one"}', f'{{"text": {deep}}}']
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    serial(tmp_path / "c.jsonl", tmp_path / "out", asked(tiny, on_bad="skip"))
    assert [bad["row"] for bad in entries(tmp_path / "out")[0]["skipped"]] == [0, 2]


def test_a_corpus_that_cannot_be_meant_is_refused_before_a_model_is_loaded(tmp_path):
    nothing = asked("no model of this name")

    def refused(corpus, request=nothing, kind=ValueError):
        with pytest.raises(kind) as caught:
            serial(corpus, tmp_path / "out", request)
        return str(caught.value)

    assert "no corpus at" in refused(tmp_path / "missing")
    (tmp_path / "c.csv").write_text("text")
    assert "ending in .parquet, .jsonl, .jsonl.gz or a folder" in refused(tmp_path / "c.csv")
    (tmp_path / "empty").mkdir()
    assert "holds no file ending in" in refused(tmp_path / "empty")
    (tmp_path / "empty.jsonl").touch()
    assert "has no row" in refused(tmp_path / "empty.jsonl")
    corpus = write_lines(tmp_path / "c.jsonl", [{"texts": "one"}])
    assert "did you mean 'texts'?" in refused(corpus, kind=LookupError)
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n' * 99)[:-9])
    assert "can't be read, or is damaged" in refused(tmp_path / "c.jsonl.gz")
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    assert "can't be read, or is damaged" in refused(tmp_path / "c.parquet")
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "c.parquet")
    assert "column 'text' is int64, not strings" in refused(tmp_path / "c.parquet")
    pq.write_table(pa.table({"text": ["a"], "key": [0.5]}), tmp_path / "c.parquet")
    request = replace(nothing, id_column="key")
    assert "column 'key' is double" in refused(tmp_path / "c.parquet", request)


def test_ids_are_of_one_kind_in_all_files(tmp_path, tiny):
    (tmp_path / "c").mkdir()
    write_lines(tmp_path / "c/a.jsonl", [{"text": "one", "key": 1}])
    write_lines(tmp_path / "c/b.jsonl", [{"text": "two", "key": "x"}])
    with pytest.raises(ValueError, match=r"got int64 in a.jsonl, string in b.jsonl"):
        serial(tmp_path / "c", tmp_path / "out", asked(tiny, id_column="key"))


def test_a_request_and_resources_refuse_what_cannot_be_meant(tmp_path):
    with pytest.raises(LookupError, match="did you mean 'float16'"):
        Request("m", store="float-16")
    with pytest.raises(ValueError, match="one row or more; got 0"):
        Request("m", shard_rows=0)
    with pytest.raises(ValueError, match="see Resources"):
        Request("m", settings={"device": "cpu"})
    with pytest.raises(ValueError, match="workers must be 1 or more; got 0"):
        Resources(workers=0)
    with pytest.raises(ValueError, match="0 or more; got -1"):
        Resources(gpus=-1)
    with pytest.raises(LookupError, match="executor"):
        embed(tmp_path, tmp_path / "out", Request("m"), executor="dask")
    with pytest.raises(ValueError, match="got 3/2"):
        embed(tmp_path, tmp_path / "out", Request("m"), share=(3, 2))


def test_the_output_may_not_lie_in_the_corpus_nor_among_other_files(tmp_path, tiny):
    corpus_of(tmp_path / "c.jsonl", ["one"])
    with pytest.raises(ValueError, match="lies in the corpus"):
        serial(tmp_path, tmp_path / "out", asked(tiny))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(ValueError, match="holds something else than embeddings"):
        serial(tmp_path / "c.jsonl", tmp_path / "out", asked(tiny))


# --- one folder, one request -------------------------------------------------------------------


def test_other_settings_in_a_folder_are_refused_one_by_one(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(6))
    first = asked(tiny, poolings=["mean"], settings={"attention": "causal"})
    serial(corpus, tmp_path / "out", first)
    other = asked(tiny, poolings=["last"], settings={"temperature": 0.5}, store="float16")
    with pytest.raises(ValueError) as caught:
        serial(corpus, tmp_path / "out", other)
    for said in (
        "poolings was ['mean'], came ['last']",
        "attention was 'causal', came None",
        "temperature was None, came 0.5",
        "store was 'float32', came 'float16'",
        "give another folder",
    ):
        assert said in str(caught.value)


def test_other_weights_under_the_same_name_are_refused(tmp_path, tiny):
    shutil.copytree(tiny, tmp_path / "model")
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(6))
    request = asked(str(tmp_path / "model"), shard_rows=3)
    serial(corpus, tmp_path / "out", request)
    config = tiny_config(
        "bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    random_model(config, seed=1).save_pretrained(tmp_path / "model")
    (tmp_path / "out/ledger/000001.json").unlink()
    with pytest.raises(ValueError, match=r"was begun otherwise: weights was '\w{32}', came"):
        serial(corpus, tmp_path / "out", request)


def test_another_tokenizer_under_the_same_name_is_refused(tmp_path, tiny):
    shutil.copytree(tiny, tmp_path / "model")
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(6))
    request = asked(str(tmp_path / "model"), shard_rows=3)
    serial(corpus, tmp_path / "out", request)
    (tmp_path / "out/ledger/000001.json").unlink()
    embed_again = partial(serial, corpus, tmp_path / "out", request)
    embed_again()  # the same rules
    (tmp_path / "out/ledger/000001.json").unlink()
    byte_tokenizer(special=False).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"was begun otherwise: tokenizer was '\w{32}', came"):
        embed_again()


def test_another_version_or_other_code_of_the_lab_is_refused(tmp_path, tiny, monkeypatch):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(6))
    serial(corpus, tmp_path / "out", asked(tiny, shard_rows=3))
    (tmp_path / "out/ledger/000001.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(workers, "version", lambda name: "0.1")
        with pytest.raises(ValueError, match=r"begun otherwise: .*torch was '[^']+', came '0.1'"):
            serial(corpus, tmp_path / "out", asked(tiny, shard_rows=3))
    monkeypatch.setattr(workers, "CODE", ("pooling.py",))
    with pytest.raises(ValueError, match=r"was begun otherwise: code was '\w{64}', came"):
        serial(corpus, tmp_path / "out", asked(tiny, shard_rows=3))


@pytest.mark.parametrize(
    "mistyped",
    [
        {"poolings": ["meen"]},
        {"layers": [99]},
        {"layers": ["first_lst"]},
        {"settings": {"attention": "casual"}},
        {"model": "no model of this name"},
    ],
)
def test_what_is_mistyped_spoils_no_folder(tmp_path, tiny, mistyped):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(6))
    with pytest.raises((LookupError, ValueError, OSError)):
        serial(corpus, tmp_path / "out", replace(asked(tiny), **mistyped))
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(7))  # mended as well
    assert serial(corpus, tmp_path / "out", asked(tiny))["rows"] == 7


def test_of_two_processes_that_begin_a_folder_otherwise_one_is_refused(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(6))
    first = plan.make(corpus, tmp_path / "out", asked(tiny, shard_rows=2))
    second = plan.make(corpus, tmp_path / "out", asked(tiny, shard_rows=3))
    for numbers, made in ((3, first), (2, second)):
        assert len(made.shards) == numbers
    with pytest.raises(ValueError, match=r"another process has begun .* otherwise"):
        EXECUTORS["serial"](first, range(3), Resources(), print, Stop())
    with pytest.raises(ValueError, match=r"another process has begun .* otherwise"):
        plan.accept(first, {})  # it was replaced while the model was loaded
    EXECUTORS["serial"](second, range(2), Resources(), print, Stop())
    with pytest.raises(ValueError, match="shard_rows was 3, came 2"):
        plan.make(corpus, tmp_path / "out", asked(tiny, shard_rows=2))


def test_a_corpus_that_changed_is_refused_file_by_file_but_a_touched_one_is_not(tmp_path, tiny):
    (tmp_path / "c").mkdir()
    for name in "ab":
        corpus_of(tmp_path / f"c/{name}.jsonl", sentences(3))
    serial(tmp_path / "c", tmp_path / "out", asked(tiny))
    os.utime(tmp_path / "c/a.jsonl", (1, 1))
    assert serial(tmp_path / "c", tmp_path / "out", asked(tiny))
    corpus_of(tmp_path / "c/a.jsonl", sentences(3, seed=1))
    (tmp_path / "c/b.jsonl").rename(tmp_path / "c/d.jsonl")
    with pytest.raises(
        ValueError, match=r"d.jsonl is new, b.jsonl is gone, a.jsonl has other bytes"
    ):
        serial(tmp_path / "c", tmp_path / "out", asked(tiny))


def test_a_plan_of_another_format_is_refused(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(3))
    serial(corpus, tmp_path / "out", asked(tiny))
    (tmp_path / "out/plan.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"plan.json is damaged or not ours \(format 99, wanted 1"):
        serial(corpus, tmp_path / "out", asked(tiny))


# --- going on ----------------------------------------------------------------------------------


def test_only_what_is_missing_or_damaged_is_done_again_and_that_is_said(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(50))
    out, request = tmp_path / "out", asked(tiny, shard_rows=10)
    serial(corpus, out, request)
    before = shard_bytes(out)
    flipped = bytearray(before["000001.parquet"])
    flipped[len(flipped) // 2] ^= 1
    (out / "shards/000001.parquet").write_bytes(flipped)
    (out / "shards/000002.parquet").unlink()
    (out / "ledger/000003.json").write_text("{")
    said = []
    serial(corpus, out, request, listen=said.append)
    damaged = {event["shard"]: event["why"] for event in said if event["event"] == "damaged"}
    assert sorted(damaged) == [1, 2, 3]
    assert "has sha256" in damaged[1] and "is gone" in damaged[2] and "damaged" in damaged[3]
    assert [event["shard"] for event in said if event["event"] == "begin"] == [1, 2, 3]
    assert shard_bytes(out) == before
    assert [entry["attempt"] for entry in entries(out)] == [1, 2, 2, 2, 1]


def test_a_finished_folder_is_not_worked_on_again(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(9))
    first = serial(corpus, tmp_path / "out", asked(tiny))
    said = []
    again = embed(corpus, tmp_path / "out", asked(tiny), listen=said.append)
    assert again == first
    assert [event["event"] for event in said] == ["plan", "summary"]


def test_array_jobs_share_a_corpus_and_the_last_one_sums_up(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(30))
    request = asked(tiny, shard_rows=5)
    assert serial(corpus, tmp_path / "out", request, share=(1, 2)) is None
    assert [entry["shard"] for entry in entries(tmp_path / "out")] == [0, 2, 4]
    assert serial(corpus, tmp_path / "out", request, share=(2, 2))["rows"] == 30


def full_disk(size):
    """No file may grow beyond this many bytes; the system says so as it does of a full disk."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.parametrize(
    ("size", "measures"),
    [(200 * 16 * 4 + 100, "none"), (20_000, "all")],  # read-outs fit, a file or a state does not
)
def test_a_file_that_cannot_be_written_is_said_and_nothing_half_written_is_left(
    tmp_path, tiny, size, measures
):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(400))
    out, request = tmp_path / "out", Request(tiny, shard_rows=200, measures=measures)
    serial(corpus, tmp_path / "whole", request)
    try:
        full_disk(size)
        with pytest.raises(OSError, match=r"shard 0 \(c.jsonl, rows 0 to 199\)") as caught:
            serial(corpus, out, request)
    finally:
        full_disk(resource.RLIM_INFINITY)
    assert caught.value.errno == errno.EFBIG
    left = [path.name for path in out.rglob("*") if path.is_file()]
    kept = [".lock", "plan.json", "settings.json", "claims", "000000.attempt"]
    assert sorted(left) == sorted([*kept, *["000000.parquet"] * (measures == "all")])
    serial(corpus, out, request)
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")


# --- measures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("measures", ["all", "directions"])
def test_measures_that_ride_along_are_those_of_the_vectors_in_one_piece(tmp_path, tiny, measures):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(300))
    summary = serial(corpus, tmp_path / "out", Request(tiny, shard_rows=70, measures=measures))
    whole = Stream(covariance=measures == "all").update(vectors(tmp_path / "out"))
    refused = summary["refused"]["embedding"]
    wanted = anisotropy.tabulate(
        whole, [row["measure"] for row in summary["measures"]["embedding"]]
    )
    assert set(refused) <= {"two_nn"}
    found = [row[key] for row in summary["measures"]["embedding"] for key in ("value", "low")]
    assert np.allclose(found, wanted[["value", "low"]].to_numpy().ravel(), rtol=1e-5, atol=1e-7)


def test_a_state_that_was_saved_goes_on_as_if_it_had_not_been(tmp_path, rng):
    rows = rng.normal(size=(3000, 6)).astype(np.float32)
    whole = Stream(sample=50).update(rows)
    first, second = Stream(sample=50).update(rows[:900]), Stream(sample=50, start=900)
    second.update(rows[900:])
    for name, stream in (("a", first), ("b", second)):
        accumulators.save(tmp_path / f"{name}.npz", {"x": stream, "y": Stream(sample=50)})
    loaded = [accumulators.load(tmp_path / f"{name}.npz", "x") for name in "ab"]
    merged, kept = loaded[0].merge(loaded[1]), first.merge(second)
    merged.paired_with(whole)
    pd.testing.assert_frame_equal(anisotropy.tabulate(merged), anisotropy.tabulate(kept))
    pd.testing.assert_frame_equal(
        anisotropy.tabulate(merged), anisotropy.tabulate(whole), check_exact=False, rtol=1e-4
    )
    assert accumulators.load(tmp_path / "a.npz", "y").n == 0
    with pytest.raises(ValueError, match="both streams saw rows"):
        merged.merge(second)


def test_measures_do_not_depend_on_whether_states_were_lost(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(60))
    request = Request(tiny, shard_rows=20)
    serial(corpus, tmp_path / "a", request)
    serial(corpus, tmp_path / "b", request, share=(1, 2))
    (tmp_path / "b/measures/000000.npz").unlink()
    (tmp_path / "b/measures/000002.npz").write_bytes(b"PK")
    serial(corpus, tmp_path / "b", request, share=(2, 2))
    assert measured(tmp_path / "a") == measured(tmp_path / "b")
    assert [path.name for path in (tmp_path / "b/measures").iterdir()] == ["embedding.npz"]
    assert accumulators.load(tmp_path / "b/measures/embedding.npz", "embedding").n == 60


def test_too_few_texts_for_a_measure_are_no_failure(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", ["one"])
    summary = serial(corpus, tmp_path / "out", Request(tiny))
    assert summary["rows"] == 1 and summary["measures"]["embedding"] == []
    whys = summary["refused"]["embedding"].values()
    assert any("an interval needs four rows or more; got 1" in why for why in whys)


# --- processes ---------------------------------------------------------------------------------

DRIVER = (
    "import typer; from lab.corpus import command; "
    "app = typer.Typer(); app.command()(command.embed); app()"
)


def start(corpus, out, model, *options):
    """`lab embed` in a process group of its own."""
    arguments = [str(corpus), "--model", model, "--out", str(out), *map(str, options)]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
    )


def finish(process, timeout=500):
    said = process.communicate(timeout=timeout)[0]
    assert process.returncode == 0, said
    return said


def alive(group):
    """The processes of a group that are no zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own) == group and state != "Z":
            found.append(int(folder.name))
    return found


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def done(out):
    return len(list((out / "ledger").glob("*.json"))) if out.exists() else 0


def wait_for_shards(out, number):
    wait_for(lambda: done(out) >= number)


def test_killed_three_times_and_gone_on_with_the_output_is_that_of_an_undisturbed_run(
    tmp_path, tiny
):
    rng = random.Random(7)
    corpus = corpus_of(
        tmp_path / "c.jsonl", (f"{rng.choice(WORDS)} {number:x}" for number in range(MANY))
    )
    options = ["--shard-rows", 5000, "--token-budget", 16384, "--threads", 1, "-j", 2]
    finish(start(corpus, tmp_path / "whole", tiny, *options))
    out, before = tmp_path / "out", 0
    for _ in range(3):
        process = start(corpus, out, tiny, *options)
        wait_for_shards(out, before + rng.randint(1, 8))
        time.sleep(rng.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        before = done(out)
        assert before < MANY // 5000
    finish(start(corpus, out, tiny, *options))
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")
    assert measured(out) == measured(tmp_path / "whole")
    attempts = [entry["attempt"] for entry in entries(out)]
    assert sum(attempts) - len(attempts) <= 3 * 2  # at most one shard a worker and kill
    assert column(out, "id") == list(range(MANY))
    for worker in {entry["worker"] for entry in entries(tmp_path / "whole")}:
        own = [entry for entry in entries(tmp_path / "whole") if entry["worker"] == worker]
        peaks = sorted(entry["peak_mb"] for entry in own)
        assert peaks[-1] <= 1.1 * peaks[len(peaks) // 2], "memory grows with the corpus"


def test_two_processes_share_a_folder_and_do_every_shard_once(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(20000))
    out, options = tmp_path / "out", ["--shard-rows", 100, "--threads", 1]
    both = [start(corpus, out, tiny, *options) for _ in range(2)]
    for process in both:
        finish(process)
    assert [entry["attempt"] for entry in entries(out)] == [1] * 200
    assert len({entry["worker"] for entry in entries(out)}) == 2
    assert column(out, "id") == list(range(20000))


def test_a_worker_that_is_killed_is_replaced_and_sigterm_ends_after_the_shard_in_hand(
    tmp_path, tiny
):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(40000))
    out, options = tmp_path / "out", ["--shard-rows", 200, "--threads", 1]
    process = start(corpus, out, tiny, *options)
    wait_for(lambda: done(out) >= 2)
    (worker,) = (pid for pid in alive(process.pid) if pid != process.pid)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len({entry["worker"] for entry in entries(out)}) == 2)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=200)[0]
    assert process.returncode not in (0, -signal.SIGTERM) and "killed by SIGKILL" in said
    assert alive(process.pid) == []
    left = [path for path in (out / "shards").iterdir() if path.name.startswith(".")]
    assert len(left) <= 1  # of the worker that was killed
    assert 2 < done(out) < 200 and len(shard_bytes(out)) - len(left) == done(out)


def test_workers_go_with_the_process_that_started_them(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(40000))
    process = start(corpus, tmp_path / "out", tiny, "--shard-rows", 500, "--threads", 1)
    wait_for(lambda: done(tmp_path / "out") >= 1)
    assert len(alive(process.pid)) == 2
    process.kill()
    process.communicate()
    wait_for(lambda: alive(process.pid) == [], seconds=10)


def test_what_a_worker_cannot_do_is_the_error_of_the_call(tmp_path, tiny):
    corpus = corpus_of(tmp_path / "c.jsonl", ["one", ""])
    with pytest.raises(ValueError, match=r"^shard 0 \(c.jsonl, rows 0 to 1\): row 1 has an empty"):
        embed(corpus, tmp_path / "out", asked(tiny))


def test_a_shard_that_kills_its_workers_is_named_after_the_second(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text(
        '#!/bin/sh\nread job\necho \'{"event": "begin", "shard": 1}\'\nsleep 0.1\nkill -9 $$\n'
    )
    script.chmod(0o755)
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(4))
    made = plan.make(corpus, tmp_path / "out", Request("m", shard_rows=2))
    monkeypatch.setattr(sys, "executable", str(script))
    said = []
    with pytest.raises(OSError, match=r"2 workers died in shard 1 \(c.jsonl, rows 2 to 3\)"):
        processes(made, [0, 1], Resources(), said.append, Stop())
    assert [event["event"] for event in said] == ["begin", "died"] * 2


def test_a_refusal_of_a_worker_is_one_line_of_the_command(tmp_path, tiny, monkeypatch, capsys):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(4))
    words = ["embed", corpus, "--model", tiny, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["lab", *map(str, words)])
    for error in (ChildProcessError("2 workers died"), FloatingPointError("not finite")):
        monkeypatch.setattr(embedding, "embed", mock.Mock(side_effect=error))
        with pytest.raises(SystemExit, match="1"):
            cli.main()
        assert capsys.readouterr().err == f"refused: {error}\n"


def test_actors_get_the_cache_of_this_process(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cluster.variables()["XDG_CACHE_HOME"] == str(tmp_path)


def test_a_claim_is_refused_to_another_process_and_let_go_at_its_end(tmp_path):
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(4))
    made = plan.make(corpus, tmp_path / "out", Request("m", shard_rows=2))
    code = (
        "import sys; from pathlib import Path; from lab.corpus import ledger, plan\n"
        "found = ledger.Ledger(plan.read(Path(sys.argv[1])))\n"
        "claims = [found.claim(number) for number in (0, 1)]\n"
        "print([claim.__enter__() for claim in claims], flush=True); sys.stdin.read()"
    )
    with Ledger(made) as ledger, ledger.claim(0) as mine:
        assert mine
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "out")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
        )
        assert other.stdout.readline() == "[False, True]\n"
        with ledger.claim(1) as theirs:
            assert not theirs
        other.kill()
        other.communicate()
        with ledger.claim(1) as again:
            assert again


def test_ray_actors_make_the_same_files(tmp_path, tiny):
    pytest.importorskip("ray")
    corpus = corpus_of(tmp_path / "c.jsonl", sentences(300))
    serial(corpus, tmp_path / "serial", Request(tiny, shard_rows=50))
    code = (
        "import sys; from pathlib import Path; from lab.corpus.embedding import embed\n"
        "from lab.corpus.plan import Request; from lab.corpus.resources import Resources\n"
        "corpus, out, model = sys.argv[1:]\n"
        "embed(Path(corpus), Path(out), Request(model, shard_rows=50), Resources(2, 1), "
        "executor='ray')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(corpus), str(tmp_path / "ray"), tiny],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert shard_bytes(tmp_path / "ray") == shard_bytes(tmp_path / "serial")
    assert measured(tmp_path / "ray") == measured(tmp_path / "serial")


# --- the command -------------------------------------------------------------------------------


def test_the_command_reads_temperatures_and_layers():
    assert command._temperature("0.5") == 0.5
    assert command._temperature("0.5,1,2") == [0.5, 1.0, 2.0]
    assert command._temperature("log-n/512") == "log-n/512"
    assert command._temperature(None) is None
    assert [command._layer(text) for text in ("-1", "15", "last_four")] == [-1, 15, "last_four"]


def test_a_log_has_rates_troubles_and_an_end():
    count = command.Count()
    plan_event = {"event": "plan", "shards": 4, "waiting": 2, "rows": 20}
    said = count.hear(plan_event | {"corpus_rows": 40, "files": 3})
    assert said == "40 rows in 3 files, 4 shards, 2 of them done"
    count.hear({"event": "ready"})
    count.working -= 2
    finished = {"event": "done", "rows": 9, "skipped": 1, "tokens": 100, "seconds": 1}
    assert count.hear(finished) == ""
    said = count.hear(finished)
    assert said.startswith("shard 4/4  10 texts/s  100 tokens/s  0 s left")
    assert "shard 3 is embedded again: gone" in count.hear(
        {"event": "damaged", "shard": 3, "why": "gone"}
    )
    said = count.hear({"event": "summary", "rows": 38, "skipped": 2, "truncated": 0})
    assert said == "38 texts embedded, 2 left out"


# --- the plan on paper -------------------------------------------------------------------------


def test_the_table_of_the_billion_is_what_its_formula_gives(capsys):
    text = (paths.ROOT / "docs/billion.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    assert capsys.readouterr().out in text
