"""Crates of real runs, read back with rocrate's own reader, and the run that a file is from."""

import hashlib
import json
import shutil
import socket
from importlib import resources
from urllib.parse import unquote

import pytest
from rocrate.rocrate import ROCrate
from tiny_notebook import build, lab

from lab import manifest, publish, runner, store
from lab.export import crate as crates
from lab.series import plan, records

WRITES = """from pathlib import Path
import matplotlib.pyplot as plt, pandas as pd
from lab import data, plotting
texts = data.load("wordnet-similarity", n=5)
figure, axes = plt.subplots(); axes.plot([0, n])
plotting.save(figure, pd.DataFrame({"n": [n]}), out_dir, "line", alt="A line from zero to n.")
Path(out_dir, "a b, ü.csv").write_text("x")
assert n < 9, "n is too large" """
SERIES = """title: Lines
runs:
  line: {notebook: 01_a.ipynb, grid: {n: [3, 9]}}
  later: {notebook: 01_a.ipynb, parameters: {n: 4}, after: [line]}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A notebook run twice, the second time to a failure, and a series that has them and more."""
    root = tmp_path_factory.mktemp("crate")
    notebook = build(root / "01_a.ipynb", WRITES)
    for n in (3, 9):
        runner.run(notebook, {"n": n}, name="line", out=root / "runs", threads=1)
    (root / "s.yaml").write_text(SERIES)
    return root


@pytest.fixture(scope="module")
def runs(root):
    found = [records.record(folder) for folder in (root / "runs").glob("*/line-*")]
    return {one.state: one for one in found}


@pytest.fixture(scope="module")
def crate(root, tmp_path_factory):
    place = tmp_path_factory.mktemp("out") / "crate"
    done = lab("crate", root / "s.yaml", "--runs", root / "runs", "--out", place)
    assert (done.returncode, done.stdout) == (0, f"{place}\n"), done.stderr
    assert done.stderr == "left out, not ended: later\n"
    return place


@pytest.fixture(scope="module")
def graph(crate):
    content = json.loads((crate / "ro-crate-metadata.json").read_text("utf-8"))
    entities = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(entities) == len(content["@graph"]), "an id stands for one thing"
    return content["@context"], entities


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def referred(value):
    """Every id that a value refers to."""
    if isinstance(value, list):
        return [one for part in value for one in referred(part)]
    return [value["@id"]] if isinstance(value, dict) else []


def linked(entities, entity, key):
    return [entities[place] for place in referred(entity[key])]


def test_every_file_of_a_crate_is_described_and_its_bytes_are_those_described(crate, graph):
    _, entities = graph
    files = {key: e for key, e in entities.items() if "File" in e["@type"]}
    there = {p.relative_to(crate).as_posix() for p in crate.rglob("*") if p.is_file()}
    assert {unquote(key) for key in files} == there - {"ro-crate-metadata.json"}
    for key, entity in files.items():
        path = crate / unquote(key)
        assert (entity["sha256"], entity["contentSize"]) == (sha(path), str(path.stat().st_size))
    assert set(referred(entities["./"]["hasPart"])) == set(files)


def test_every_id_is_in_the_graph_or_an_address_and_nothing_is_left_unlinked(graph):
    _, entities = graph
    named = {one for entity in entities.values() for v in entity.values() for one in referred(v)}
    outside = {place for place in named if place not in entities}
    assert outside == {
        "https://w3id.org/ro/crate/1.1",
        "http://schema.org/CompletedActionStatus", "http://schema.org/FailedActionStatus",
    }  # fmt: skip
    assert set(entities) - named == {"ro-crate-metadata.json"}


def test_every_term_is_defined_by_the_contexts_that_the_crate_names(graph):
    context, entities = graph
    assert context == ["https://w3id.org/ro/crate/1.1/context", crates.TERMS]
    vendored = json.loads(resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_text())
    terms = set(vendored["@context"]) | {"environment"}  # which the second context defines
    used = {key for entity in entities.values() for key in entity} - {"@id", "@type"}
    types = {
        t for e in entities.values() for t in ([e["@type"]], e["@type"])[type(e["@type"]) is list]
    }
    assert used | types <= terms


def test_rocrate_s_own_reader_gives_the_same_entities(crate, graph):
    _, entities = graph
    read = ROCrate(crate)
    assert {e.id: e.properties() for e in read.get_entities()} == entities
    assert not [file for file in read.data_entities if not file.source.is_file()]


def test_a_run_is_an_action_on_what_it_read_that_made_what_it_wrote(graph, runs):
    _, entities = graph
    actions = [e for e in entities.values() if e["@type"] == "CreateAction"]
    assert linked(entities, entities["./"], "mentions") == actions and len(actions) == 2
    assert (
        entities["./"]["conformsTo"] == {"@id": crates.PROFILE}
        and entities["./"]["name"] == "Lines"
    )
    by_status = {a["actionStatus"]["@id"].rpartition("/")[2]: a for a in actions}
    for status, state in (("CompletedActionStatus", "ok"), ("FailedActionStatus", "failed")):
        action, run = by_status[status], runs[state]
        outcome, environment = run.content["outcome"], run.content["environment"]
        assert action["identifier"] == run.id and "agent" not in action
        assert (action["startTime"], action["endTime"]) == (outcome["started"], outcome["finished"])
        written = {e["sha256"] for e in linked(entities, action, "result")}
        assert written == {v for k, v in outcome["outputs"].items() if k != manifest.DIFF}
        settings = {
            e["name"]: e["value"]
            for key in ("object", "environment", "additionalProperty")
            for e in linked(entities, action, key)
            if e["@type"] == "PropertyValue"
        }
        assert settings["n"] == {"ok": 3, "failed": 9}[state]
        assert settings["OMP_NUM_THREADS"] == "1" and settings["threads"] == 1
        assert settings["cpu"] == environment["cpu"]
        (read,) = (e for e in linked(entities, action, "object") if e["@type"] == "Collection")
        (entry,) = run.content["inputs"]
        assert read["name"] == "wordnet-similarity" and "n 5" in read["description"]
        parts = linked(entities, read, "hasPart")
        assert {part["sha256"] for part in parts} == set(entry["files"].values())
        assert entities[read["license"]["@id"]]["name"].startswith("WordNet 3.0 licence")
        (notebook,) = linked(entities, action, "instrument")
        assert notebook["sha256"] == run.content["identity"]["notebook_sha256"]
        names = {e.get("name") for e in linked(entities, action, "object")}
        assert "embedding-lab" in names
    failed = by_status["FailedActionStatus"]
    assert failed["error"] == "failed: AssertionError: n is too large"
    assert "error" not in by_status["CompletedActionStatus"]


def test_a_figure_in_a_crate_keeps_its_alt_text(graph):
    _, entities = graph
    drawn = [e for key, e in entities.items() if key.endswith("line.svg")]
    assert [e["description"] for e in drawn] == ["A line from zero to n."] * 2


def test_the_graph_names_no_host_and_no_path_of_the_machine(crate, root):
    text = (crate / "ro-crate-metadata.json").read_text("utf-8")
    assert str(root) not in text and "/runs/" not in text and "/site-packages" not in text
    assert f'"{socket.gethostname()}"' not in text


def test_the_same_runs_give_the_same_crate_and_nothing_is_asked_of_the_network(
    crate, runs, root, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    series = plan.load(root / "s.yaml", root / "runs")
    again = crates.export(crates.ended(series)[0], tmp_path / "again", "Lines")
    files = sorted(p.relative_to(crate) for p in crate.rglob("*"))
    assert files == sorted(p.relative_to(again) for p in again.rglob("*"))
    assert all((crate / f).read_bytes() == (again / f).read_bytes()
               for f in files if (crate / f).is_file())  # fmt: skip


def test_a_notebook_that_has_changed_since_is_named_by_its_checksum_alone(runs, tmp_path):
    folder = tmp_path / "01_a" / runs["ok"].folder.name
    shutil.copytree(runs["ok"].folder, folder)
    content = manifest.read(folder)
    content["identity"]["notebook"] = str(tmp_path / "gone.ipynb")
    manifest.write(folder, content)
    out = crates.export([folder], tmp_path / "crate", "One")
    (action,) = ROCrate(out).get_by_type("CreateAction")
    notebook = action["instrument"]
    assert notebook["sha256"] == content["identity"]["notebook_sha256"]
    assert notebook.id == f"#notebook-{notebook['sha256']}" and not (out / "notebooks").exists()


def test_an_input_of_each_kind_is_named(runs, tmp_path):
    folder = tmp_path / "01_a" / runs["ok"].folder.name
    shutil.copytree(runs["ok"].folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(manifest.RUN_DIR, str(tmp_path))
        manifest.record_input("dataset", name="sts", files={"a.csv": "0" * 64})
        manifest.record_input("model", name="tiny-bert", revision=None)
        facts = {"model": "minilm", "layers": [1], "poolings": ["mean"]}
        manifest.record_input("cache", store=store.READ_OUTS, address="1" * 64, **facts)
        manifest.record_input("page", address="2" * 64)
    content = manifest.read(folder) | {"inputs": manifest.inputs(tmp_path)}
    manifest.write(folder, content)
    read = ROCrate(crates.export([folder], tmp_path / "crate", "One")).get_by_type("Collection")
    assert sorted(one["name"] for one in read) == ["minilm", "page", "sts", "tiny-bert"]


def test_a_run_whose_runner_was_killed_names_neither_host_nor_process(runs, tmp_path):
    folder = tmp_path / "01_a" / runs["ok"].folder.name
    shutil.copytree(runs["ok"].folder, folder)
    content = manifest.read(folder)
    outcome = {"state": manifest.RUNNING, "runner": {"pid": 999999, "host": "node-7"}}
    manifest.write(folder, content | {"outcome": content["outcome"] | outcome})
    out = crates.export([folder], tmp_path / "crate", "One")
    (action,) = ROCrate(out).get_by_type("CreateAction")
    assert action["error"] == "interrupted"
    assert "node-7" not in (out / "ro-crate-metadata.json").read_text("utf-8")


def test_what_cannot_be_a_crate_is_refused_and_leaves_nothing(runs, tmp_path):
    ok = runs["ok"].folder
    with pytest.raises(ValueError, match="at least one run that has ended"):
        crates.export([], tmp_path / "crate", "None")
    with pytest.raises(ValueError, match="two runs would share the folder"):
        crates.export([ok, ok], tmp_path / "crate", "Two")
    damaged = tmp_path / "01_a" / ok.name
    shutil.copytree(ok, damaged)
    (damaged / "figures" / "line.csv").write_text("n\n4\n")
    with pytest.raises(ValueError, match=r"not what the run wrote: figures/line\.csv"):
        crates.export([damaged], tmp_path / "crate", "One")
    content = manifest.read(damaged)
    with (damaged / manifest.LOCK).open("wb") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        manifest.write(damaged, content | {"outcome": content["outcome"] | {"state": "running"}})
        with pytest.raises(ValueError, match="is going on; wait for it"):
            crates.export([damaged], tmp_path / "crate", "One")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("words")
    with pytest.raises(ValueError, match="is not empty; a crate replaces nothing"):
        crates.export([ok], tmp_path / "full", "One")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01_a", "full"]


def test_a_figure_is_told_whose_it_is_by_its_bytes_wherever_it_lies(runs, root, tmp_path):
    ok = runs["ok"]
    copied = shutil.copyfile(ok.folder / "figures" / "line.svg", tmp_path / "renamed.svg")
    done = lab("whose", copied, "--runs", root / "runs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{ok.folder}  run {ok.id}  commit ")
    copied.write_text(copied.read_text() + "\n")
    with pytest.raises(ValueError, match="has written these bytes"):
        publish.whose(copied, root / "runs")
    assert records.writers(sha(ok.folder / "figures" / "line.csv"), root / "runs") == [ok]
