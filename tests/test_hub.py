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
            ]
        )
    }
    assert {(address.repo, address.revision) for address in hub.HUB.values()} <= known
