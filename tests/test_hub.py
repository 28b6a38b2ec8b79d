"""The hub path with the real client: a hub on the loopback serves small repositories.

The client reads ``HF_ENDPOINT`` when it is imported, so what uses it runs in a process of its own.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from lab import data, paths
from lab.data import hub, sources

REPORT = """
import json, sys
from lab import data
for name in sys.argv[1:]:
    x = data.load(name)
    row = {"texts": x.texts, "frame": x.frame.to_dict("list"), "origin": x.origin}
    row |= {"checked": x.checked, "files": sorted(x.sha256)}
    if x.kind == "retrieval":
        row |= {"documents": x.documents.tolist(), "queries": x.queries.tolist()}
    print(json.dumps(row))
"""
FETCH = "import sys; from lab import data; print(data.fetch(sys.argv[1]))"


class LoopbackHub(BaseHTTPRequestHandler):
    """What `dataset_info` and `hf_hub_download` ask of a hub, for the server's `repos`."""

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path.split('?')[0]}")
        answer = self.answer(self.path.split("?")[0])
        self.send_response(200 if answer else 404)
        headers, content = answer or ({}, b"")
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def answer(self, path):
        info = re.fullmatch(r"/api/datasets/(.+)/revision/([0-9a-f]{40})", path)
        file = re.fullmatch(r"/datasets/(.+)/resolve/([0-9a-f]{40})/(.+)", path)
        if info and info[1] in self.server.repos:
            files = self.server.repos[info[1]].items()
            siblings = [
                {"rfilename": name, "size": len(content), "blobId": self.server.blob(content)}
                for name, content in files
            ]
            body = {"id": info[1], "sha": info[2], "siblings": siblings}
            return {"Content-Type": "application/json"}, json.dumps(body).encode()
        if file and file[3] in self.server.repos.get(file[1], {}):
            content = self.server.repos[file[1]][file[3]]
            etag = hashlib.sha1(content).hexdigest()
            return {"ETag": f'"{etag}"', "X-Repo-Commit": file[2]}, content
        return None

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), LoopbackHub) as running:
        running.repos, running.asked = {}, []
        running.blob = lambda content: hashlib.sha1(
            b"blob %d\0" % len(content) + content
        ).hexdigest()
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def run(tmp_path, server):
    """Run a script that sees the loopback hub; `environment` adds to what it sees."""

    def call(script, *arguments, **environment):
        seen = {
            **{k: v for k, v in os.environ.items() if k not in ("LAB_DATA", "HF_HUB_OFFLINE")},
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
            "LAB_CACHE": str(tmp_path / "cache"),
            "NO_PROXY": "127.0.0.1",
            **environment,
        }
        command = [sys.executable, "-W", "error", "-c", script, *arguments]
        return subprocess.run(command, env=seen, capture_output=True, text=True, check=False)

    return call


def jsonl(frame):
    return frame.to_json(orient="records", lines=True).encode()


def parquet(frame):
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def shipped(key, *names):
    source = data.DATASETS[key].open()
    return [source.read(name) for name in names]


@pytest.fixture
def repos(server):
    """Rows of shipped sets as the hub would lay them out, under addresses `lab` knows."""
    (pairs,) = shipped("wordnet-similarity", "test")
    train, test = shipped("debian-sections", "train", "test")
    codes = {label: i for i, label in enumerate(sorted(set(train["label"])))}
    labelled = [
        x.assign(label_text=x["label"], label=x["label"].map(codes))[
            ["text", "label", "label_text"]
        ]
        for x in (train, test)
    ]
    corpus, queries, qrels = shipped("wordnet-definitions", "corpus", "queries", "qrels/test")
    half = len(corpus) // 2
    server.repos |= {
        "mteb/stsbenchmark-sts": {
            "README.md": b"no table",
            "train.jsonl": jsonl(pairs),
            "validation.jsonl": jsonl(pairs),
            "test.jsonl": jsonl(pairs),
        },
        "mteb/banking77": {
            "data/train-00000-of-00001.parquet": parquet(labelled[0]),
            "test.csv": labelled[1].to_csv(index=False).encode(),
        },
        "mteb/scifact": {
            "corpus/corpus-00000-of-00002.parquet": parquet(corpus[:half]),
            "corpus/corpus-00001-of-00002.parquet": parquet(corpus[half:]),
            "queries.jsonl": jsonl(queries.rename(columns={"id": "_id"})),
            "qrels/train.jsonl": jsonl(qrels),
            "qrels/test.jsonl": jsonl(qrels),
        },
    }
    return server.repos


def test_shipped_mirror_and_hub_give_the_same_frame(run, repos, tmp_path, monkeypatch):
    names = {
        "stsb-en": "wordnet-similarity",
        "banking77": "debian-sections",
        "scifact": "wordnet-definitions",
    }
    done = run(REPORT, *names)
    assert done.returncode == 0, done.stderr
    from_hub = [json.loads(line) for line in done.stdout.splitlines()]
    from_data = [data.load(name) for name in names.values()]
    shutil.copytree(paths.DATA, tmp_path / "mirror")
    sources.record(tmp_path / "empty", {}, {})
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "mirror"))
    monkeypatch.setattr(paths, "DATA", tmp_path / "empty")
    from_mirror = [data.load(name) for name in names.values()]
    for ours, theirs, far in zip(from_data, from_mirror, from_hub, strict=True):
        assert (ours.origin, theirs.origin, far["origin"]) == ("shipped", "mirror", "hub")
        assert ours.texts == theirs.texts == far["texts"]
        pd.testing.assert_frame_equal(ours.frame, theirs.frame)
        pd.testing.assert_frame_equal(ours.frame, pd.DataFrame(far["frame"]), check_dtype=False)
        assert ours.sha256 == theirs.sha256
        assert far["checked"] == hub.STATED
        if ours.documents is not None:
            assert ours.documents.tolist() == theirs.documents.tolist() == far["documents"]
            assert ours.queries.tolist() == theirs.queries.tolist() == far["queries"]


def test_a_set_is_downloaded_once_at_its_pinned_revision(run, repos, server):
    first = run(REPORT, "stsb-en")
    asked = len(server.asked)
    again = run(REPORT, "stsb-en", HF_HUB_OFFLINE="1")
    assert (first.returncode, again.returncode) == (0, 0) and first.stdout == again.stdout
    assert len(server.asked) == asked
    revision = hub.find("stsb-en").revision
    assert all(revision in path for path in server.asked if "stsbenchmark" in path)


def test_fetch_fills_a_mirror_and_repairs_a_damaged_copy(run, repos, tmp_path):
    mirror = tmp_path / "mirror"
    done = run(FETCH, "stsb-en", LAB_DATA=str(mirror))
    assert done.stdout.strip() == str(mirror / "sts/stsb-en"), done.stderr
    manifest = json.loads((mirror / "manifest.json").read_text())
    for file, about in manifest["files"].items():
        assert hashlib.sha256((mirror / file).read_bytes()).hexdigest() == about["sha256"]
    (mirror / "sts/stsb-en/test.jsonl.gz").write_bytes(b"damaged")
    assert "is damaged" in run(REPORT, "stsb-en", LAB_DATA=str(mirror)).stderr
    assert run(FETCH, "stsb-en", LAB_DATA=str(mirror)).returncode == 0
    loaded = json.loads(run(REPORT, "stsb-en", LAB_DATA=str(mirror)).stdout)
    assert loaded["origin"] == "mirror"
    assert json.loads((mirror / "manifest.json").read_text()) == manifest


def test_other_content_under_the_recorded_revision_is_refused(run, repos, tmp_path):
    mirror = tmp_path / "mirror"
    assert run(FETCH, "stsb-en", LAB_DATA=str(mirror)).returncode == 0
    before = (mirror / "manifest.json").read_text()
    (mirror / "sts/stsb-en/test.jsonl.gz").unlink()
    repos["mteb/stsbenchmark-sts"]["test.jsonl"] += b'{"sentence1":"x","sentence2":"y","score":0}\n'
    shutil.rmtree(tmp_path / "hf")
    done = run(FETCH, "stsb-en", LAB_DATA=str(mirror))
    assert re.search(r"test.jsonl at b0fd\w+: expected sha256 \w{64}, got \w{64}; del", done.stderr)
    assert (mirror / "manifest.json").read_text() == before


def test_a_download_that_is_not_what_the_commit_holds_is_refused(run, repos, server, tmp_path):
    server.blob = lambda content: "0" * 40
    done = run(REPORT, "stsb-en")
    assert re.search(
        r"ValueError: mteb/stsbenchmark-sts/\S+ at \w+: the hub states git", done.stderr
    )
    assert not (tmp_path / "cache").exists()


def test_a_repository_without_the_split_says_what_it_has(run, repos):
    del repos["mteb/stsbenchmark-sts"]["validation.jsonl"]
    assert (
        "has no 'validation' among ['train.jsonl', 'test.jsonl']" in run(REPORT, "stsb-en").stderr
    )


@pytest.mark.parametrize(
    "environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}]
)
def test_a_hub_out_of_reach_names_what_to_do_instead(run, environment):
    said = run(REPORT, "stsb-en", **environment).stderr.splitlines()[-1]
    assert said.startswith("ConnectionError: stsb-en is on the Hugging Face hub (mteb/stsbenchmark")
    for way_out in ("set LAB_DATA", "`lab data fetch stsb-en`", "use a shipped set:", "manpages"):
        assert way_out in said


def test_a_repository_that_is_gone_is_told_as_such(run):
    said = run(REPORT, "stsb-en").stderr
    assert "ConnectionError: stsb-en is on the Hugging Face hub" in said and "404" in said


def test_fetch_refuses_without_a_mirror_a_foreign_folder_and_an_unknown_name(monkeypatch, tmp_path):
    monkeypatch.delenv("LAB_DATA", raising=False)
    with pytest.raises(ValueError, match="LAB_DATA is not set"):
        data.fetch("stsb-en")
    (tmp_path / "other").touch()
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds no manifest\.json"):
        data.fetch("stsb-en")
    with pytest.raises(
        LookupError, match=r"no data set on the hub named 'stsb'.*did you mean 'sts"
    ):
        data.fetch("stsb")


# LongEmbed ---------------------------------------------------------------------------------------

SPLIT = """
import json, sys
from lab import data
for split in sys.argv[2:]:
    x = data.load(sys.argv[1], split)
    asked = {x.texts[q]: x.texts[d] for q, d in zip(x.frame["query"], x.frame["document"])}
    documents = sorted(x.texts[i] for i in x.documents)
    print(json.dumps([x.origin, asked, documents, x.frame["relevance"].unique().tolist()]))
"""
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
MTEB_TASKS = {  # passkey, too, was read so until mteb made a copy of it
    "needle": "LEMBNeedleRetrieval",
    "narrativeqa": "LEMBNarrativeQARetrieval",
    "qmsum": "LEMBQMSumRetrieval",
    "2wikimqa": "LEMBWikimQARetrieval",
    "summ-screen-fd": "LEMBSummScreenFDRetrieval",
}


def long_texts(lengths):
    """LongEmbed's three tables; ids are used again for every length, which is the hardest case."""
    tables = {"corpus": [], "queries": [], "qrels": []}
    for length in lengths:
        of = {"context_length": length} if length else {}
        for i in range(4):
            tables["corpus"].append({"doc_id": f"d{i}", "text": f"document {i} of {length}", **of})
        for i in range(2):
            tables["queries"].append({"qid": f"q{i}", "text": f"query {i} of {length}", **of})
            tables["qrels"].append({"qid": f"q{i}", "doc_id": f"d{3 - i}", **of})
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


@pytest.fixture
def long_repo(server):
    """dwzhu/LongEmbed, one folder a task; returns its tables by task."""
    tasks = {
        folder: long_texts(LENGTHS if folder in ("passkey", "needle") else [None])
        for folder in ("passkey", "needle", "narrativeqa", "qmsum", "2wikimqa", "summ_screen_fd")
    }
    server.repos["dwzhu/LongEmbed"] = {
        f"{folder}/{name}.jsonl": jsonl(table)
        for folder, tables in tasks.items()
        for name, table in tables.items()
    }
    return tasks


def mteb_reads(task, tables, monkeypatch):
    """What mteb's own code makes of the tables: split -> query text -> texts of its documents."""
    datasets = pytest.importorskip("datasets")
    read = {name: datasets.Dataset.from_pandas(table) for name, table in tables.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda **address: read)
    task.load_data()
    asked = {}
    for split, judged in task.relevant_docs.items():
        corpus = {name: document["text"] for name, document in task.corpus[split].items()}
        found = {
            task.queries[split][query]: corpus[document]
            for query, documents in judged.items()
            for document in documents
        }
        asked[split] = (found, sorted(corpus.values()))
    return asked


@pytest.mark.parametrize("name", ["needle", "summ-screen-fd"])
def test_longembed_is_read_as_mteb_reads_it(run, long_repo, server, monkeypatch, name):
    mteb = pytest.importorskip("mteb", reason="install the extra: pip install '.[mteb]'")
    folder, task = name.replace("-", "_"), MTEB_TASKS[name]
    theirs = mteb_reads(mteb.get_tasks(tasks=[task])[0], long_repo[folder], monkeypatch)
    done = run(SPLIT, f"longembed-{name}", *hub.find(f"longembed-{name}").splits)
    assert done.returncode == 0, done.stderr
    for wanted, line in zip(theirs.values(), done.stdout.splitlines(), strict=True):
        origin, asked, documents, relevance = json.loads(line)
        assert (origin, relevance) == ("hub", [1])
        assert (asked, documents) == wanted and len(documents) == 4
    fetched = [x for x in server.asked if x.startswith("GET") and "/resolve/" in x]
    assert len(fetched) == 3 and all(f"/{folder}/" in path for path in fetched)


def test_each_length_of_passkey_has_its_own_documents(run, long_repo):
    done = run(SPLIT, "longembed-passkey", "test_256", "test_32768")
    assert done.returncode == 0, done.stderr
    for length, line in zip((256, 32768), done.stdout.splitlines(), strict=True):
        _, asked, documents, _ = json.loads(line)
        assert documents == [f"document {i} of {length}" for i in range(4)]
        assert asked == {f"query {i} of {length}": f"document {3 - i} of {length}" for i in (0, 1)}
    said = run(SPLIT, "longembed-passkey", "test").stderr
    assert "no split of longembed-passkey named 'test'; have test_1024, test_16384" in said


def test_a_length_that_longembed_lacks_is_told(run, long_repo, server):
    tables = long_texts(LENGTHS[:-1])
    server.repos["dwzhu/LongEmbed"] |= {f"needle/{x}.jsonl": jsonl(t) for x, t in tables.items()}
    said = run(SPLIT, "longembed-needle", "test_256").stderr
    assert "ValueError: retrieval/longembed-needle: qrels/test_32768 has no rows" in said
    del server.repos["dwzhu/LongEmbed"]["qmsum/qrels.jsonl"]
    said = run(SPLIT, "longembed-qmsum", "test").stderr
    assert "6e346642246bfb4928c560ee08640dc84d074e8c: it has no 'qrels' among ['qmsum/cor" in said


def test_every_address_is_that_of_mteb():
    mteb = pytest.importorskip("mteb", reason="install the extra: pip install '.[mteb]'")
    known = {
        tuple(task.metadata.dataset[x] for x in ("path", "revision"))
        for task in mteb.get_tasks(
            tasks=[
                "STSBenchmark",
                "STS13",
                "STS14",
                "STS15",
                "STS16",
                "Banking77Classification",
                "SciFact",
                "NFCorpus",
                *MTEB_TASKS.values(),
            ]
        )
    }
    assert {(address.repo, address.revision) for address in hub.HUB.values()} <= known


def test_splits_and_folders_of_longembed_are_those_of_mteb():
    mteb = pytest.importorskip("mteb", reason="install the extra: pip install '.[mteb]'")
    for name, task in MTEB_TASKS.items():
        theirs, ours = mteb.get_tasks(tasks=[task])[0].metadata, hub.find(f"longembed-{name}")
        assert ours.folder == theirs.dataset["name"] + "/"
        assert ours.splits == tuple(x.replace("validation", "dev") for x in theirs.eval_splits)
        assert ours.licence == theirs.license
    passkey = mteb.get_tasks(tasks=["LEMBPasskeyRetrieval"])[0].metadata
    assert hub.find("longembed-passkey").splits == tuple(passkey.eval_splits)
