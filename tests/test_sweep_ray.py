"""Sweeps on a Ray cluster of two nodes with a pretended GPU each: placement, losses, a stop."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import combinations
from pathlib import Path

import pytest
from tiny_notebook import LAB, build, manifest_of
from tiny_series import processes_of, whole

from lab import cluster, manifest, paths
from lab.corpus.embedding import embed
from lab.corpus.plan import Request
from lab.models.checkpoints import byte_tokenizer, random_model, tiny_config
from lab.runner import claims
from lab.series import plan, records, status

pytest.importorskip("ray")

CELL = """import json, os, pathlib, subprocess, time
root = pathlib.Path({root!r})
begun = time.monotonic()
child = subprocess.Popen(["sleep", "300"])
(root / "started" / str(n)).touch()
while (root / "wait").exists():
    time.sleep(0.1)
"""
SAVE = """import numpy as np
from lab import results
draws = np.random.default_rng(n).standard_normal(5)
_ = results.save(results.table(
    results.row(probe="p", metric="m", layer=i, value=float(v), seed=n) for i, v in enumerate(draws)
), out_dir)
about = {"from": begun, "to": time.monotonic(), "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}
(root / "seen" / f"{n}.json").write_text(json.dumps(about))"""
SERIES = """defaults: {gpus: 1}
runs:
  whole: {notebook: 01_a.ipynb, grid: {n: [1, 2, 3]}}
  half: {notebook: 01_a.ipynb, grid: {n: [4, 5]}, gpus: 0.5}
  two: {notebook: 01_a.ipynb, parameters: {n: 6}, gpus: 2}
"""
WHOLE = "runs: {whole: {notebook: 01_a.ipynb, grid: {n: [1, 2, 3]}, gpus: 1}}"


def wait_for(condition, seconds=150):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class Nodes:
    """The cluster of ray_nodes.py, in a folder of its own: sockets want a short path."""

    def __init__(self, folder):
        self.folder = folder
        self.variables = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(paths.ROOT), os.environ.get("PYTHONPATH", "")]),
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_enable_worker_prestart": "0",
        }
        errors = Path(folder, "errors")
        with errors.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, Path(__file__).parent / "ray_nodes.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=self.variables,
            )
        address = self.process.stdout.readline().strip()
        assert address, errors.read_text()
        self.variables["RAY_ADDRESS"] = address

    def ask(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def sweep(self, series):
        """The process of a sweep on the cluster."""
        command = [*LAB, "sweep", series.path, "--out", series.out, "--executor", "ray"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.variables
        )


@pytest.fixture(scope="module")
def nodes():
    folder = tempfile.mkdtemp(prefix="r")
    found = Nodes(folder)
    try:
        yield found
    finally:
        found.process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def series_of(root, text=WHOLE, out="ray"):
    """A series whose runs wait while the file ``wait`` is there, and note when and where."""
    for name in ("started", "seen"):
        (root / name).mkdir(exist_ok=True)
    if not (root / "01_a.ipynb").exists():
        build(root / "01_a.ipynb", CELL.replace("{root!r}", repr(str(root))), SAVE)
    (root / "s.yaml").write_text(text)
    return plan.load(root / "s.yaml", root / out)


def tables_of(series):
    there = records.read(series.runs.values())
    found = {key: records.of(run, there) for key, run in series.runs.items()}
    return {k: (r.folder / "results.parquet").read_bytes() for k, r in found.items() if r}


def started(root):
    return sorted(int(path.name) for path in (root / "started").iterdir())


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The series one after another on this machine, with a pretended GPU: (tables, output)."""
    root = tmp_path_factory.mktemp("serial")
    series = series_of(root, SERIES, "serial")
    done = subprocess.run(
        [*LAB, "sweep", series.path, "--out", series.out],
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "7"},
    )
    assert {s["gpu"] for s in seen(root).values()} == {"7"}
    return tables_of(series), done.stdout


def seen(root):
    return {int(f.stem): json.loads(f.read_text()) for f in (root / "seen").iterdir()}


def test_the_series_of_one_machine_gives_the_same_tables_on_two_nodes(nodes, serial, tmp_path):
    series = series_of(tmp_path, SERIES)
    output, errors = nodes.sweep(series).communicate(timeout=200)
    assert output.splitlines()[0].startswith("6 runs, 4 at a time"), errors
    assert output.splitlines()[-1] == "6 runs: 5 ok, 1 refused", output
    assert "no node of the Ray cluster has CPU 1 and GPU 2, which the run asks for" in output
    tables, alone = serial
    assert alone.splitlines()[-1] == "6 runs: 5 ok, 1 refused"
    assert "the run asks for 2 GPUs, this machine shows 1" in alone
    assert tables_of(series) == tables and len(set(tables.values())) == 5
    _check_placement(seen(tmp_path))
    for one in status.read(series):
        if one.state == "ok":
            environment = manifest_of(one.folder)["environment"]
            gpu = seen(tmp_path)[int(one.key.partition("=")[2].strip("]"))]["gpu"]
            assert environment["variables"]["CUDA_VISIBLE_DEVICES"] == gpu
            assert environment["threads"] == 1
    wait_for(lambda: not processes_of(str(tmp_path)), 10)


def _check_placement(runs):
    """Both nodes were used, and nothing but halves was on one GPU at one time."""
    assert {run["gpu"] for run in runs.values()} == {"0", "1"}
    for a, b in combinations(runs, 2):
        apart = runs[a]["to"] < runs[b]["from"] or runs[b]["to"] < runs[a]["from"]
        halves = {a, b} == {4, 5}
        assert halves or apart or runs[a]["gpu"] != runs[b]["gpu"], runs


def test_runs_of_a_lost_node_and_a_lost_worker_are_done_again_elsewhere(nodes, serial, tmp_path):
    series = series_of(tmp_path)
    (tmp_path / "wait").touch()
    process = nodes.sweep(series)
    wait_for(lambda: len(started(tmp_path)) == 2)
    first = {one.key: one for one in status.read(series) if one.state == "running"}
    gpus = {k: manifest_of(r.folder)["environment"]["variables"] for k, r in first.items()}
    on = {variables["CUDA_VISIBLE_DEVICES"]: key for key, variables in gpus.items()}
    theirs = processes_of(str(tmp_path))
    nodes.ask("lose")
    os.kill(manifest_of(first[on["0"]].folder)["outcome"]["runner"]["pid"], signal.SIGKILL)
    wait_for(lambda: not set(theirs) & set(processes_of(str(tmp_path))))
    (tmp_path / "wait").unlink()
    output, errors = process.communicate(timeout=200)
    nodes.ask("add")
    assert output.splitlines()[-1] == "3 runs: 3 ok", output + errors
    tables, _ = serial
    assert tables_of(series) == {key: tables[key] for key in series.runs}
    assert {run["gpu"] for run in seen(tmp_path).values()} == {"0"}
    folders = sorted(f for f in (series.out / "01_a").iterdir() if f.is_dir())
    states = {f.name: manifest_of(f)["outcome"]["state"] for f in folders}
    asides = {f"{first[key].folder.name}.1": "interrupted" for key in on.values()}
    assert states == {one.folder.name: "ok" for one in status.read(series)} | asides
    wait_for(lambda: not processes_of(str(tmp_path)), 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_or_killed_sweep_leaves_no_process_on_the_nodes(nodes, tmp_path, number):
    series = series_of(tmp_path)
    (tmp_path / "wait").touch()
    process = nodes.sweep(series)
    wait_for(lambda: len(started(tmp_path)) == 2)
    assert len(processes_of(str(tmp_path))) >= 6  # of each run: its own, the kernel and its child
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    if number == signal.SIGTERM:
        assert process.returncode == 5 and errors == ""
        assert output.splitlines()[-1] == "3 runs: 2 interrupted, 1 not started"
        assert processes_of(str(tmp_path)) == []
    wait_for(lambda: not processes_of(str(tmp_path)), 30)
    states = {one.key: one.state for one in status.read(series)}
    assert sorted(states.values()) == ["interrupted", "interrupted", "not run"]


def test_a_folder_that_a_lost_machine_still_holds_is_waited_for(tmp_path):
    folder = tmp_path / "a-12345678"
    folder.mkdir()
    runner = {"pid": 1, "host": "elsewhere"}
    manifest.write(folder, whole(state=manifest.RUNNING, runner=runner))
    lock = (folder / manifest.LOCK).open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with (
        pytest.raises(ValueError, match="the same run is going on in"),
        claims.claimed(folder, "12345678", force=False),
    ):
        pass
    threading.Timer(0.5, lock.close).start()
    with claims.claimed(folder, "12345678", force=False, patience=30):
        aside = manifest_of(folder.with_name("a-12345678.1"))["outcome"]
        assert aside["state"] == "interrupted"


def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1"):
        cluster.connected(1).__enter__()


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'embedding-lab\[scale\]'"):
        cluster.connected(1).__enter__()


EMBED = """import sys
from pathlib import Path
from lab.corpus.embedding import embed
from lab.corpus.plan import Request
from lab.corpus.resources import Resources
corpus, out, model = sys.argv[1:]
request = Request(model, shard_rows=20)
embed(Path(corpus), Path(out), request, Resources(2, 1, gpus=1.0), executor="ray")"""


def test_shards_of_a_lost_node_are_embedded_elsewhere(nodes, tmp_path):
    """The last test: the second node does not come back."""
    model, corpus = str(tmp_path / "model"), tmp_path / "c.jsonl"
    config = tiny_config(
        "bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    random_model(config, seed=0).save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    texts = ({"text": f"text {i} " * (1 + i % 7)} for i in range(4000))
    corpus.write_text("".join(json.dumps(text) + "\n" for text in texts))

    def shards(out):
        return {f.name: f.read_bytes() for f in (tmp_path / out / "shards").glob("*.parquet")}

    process = subprocess.Popen(
        [sys.executable, "-c", EMBED, corpus, tmp_path / "ray", model],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=nodes.variables,
        text=True,
    )
    wait_for(lambda: process.poll() is not None or len(shards("ray")) >= 4)
    nodes.ask("lose")
    assert process.poll() is None and len(shards("ray")) < 200
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    embed(corpus, tmp_path / "serial", Request(model, shard_rows=20), executor="serial")
    assert shards("ray") == shards("serial") and len(shards("ray")) == 200
