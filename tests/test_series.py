"""Series files, what they ask for, and what is read from run folders. No kernel is started."""

import json
import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_notebook import build, lab
from tiny_series import measured, pretend, runs, wrote

from lab import manifest, results
from lab.paths import NOTEBOOKS, ROOT
from lab.runner import claims
from lab.series import clean, formats, locks, plan, records, schema, status, tables, verify

PARAMETERS = """n: int = 3  # how many
text: str = "x"
rate: float = 0.5
sizes: list[int] = [1, 2]
out_dir: str = "runs"
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a notebook; returns a function that writes a series file and plans it."""
    for name in ("01_a", "02_b"):
        build(
            tmp_path / f"{name}.ipynb",
            parameters=PARAMETERS,
            reads="print(n, text, rate, sizes, out_dir)",
        )

    def planned(text):
        path = tmp_path / "s.yaml"
        path.write_text(text, encoding="utf-8")
        return plan.load(path, tmp_path / "runs")

    planned.root = tmp_path
    return planned


# The file


def test_the_shipped_series_are_sound_and_their_schema_is_the_one_beside_them():
    files = sorted((ROOT / "series").glob("*.yaml"))
    assert files
    for file in files:
        assert plan.load(file, ROOT / "runs").runs
    shipped = json.loads((ROOT / "series" / "schema.json").read_text())
    assert shipped == schema.SeriesFile.model_json_schema()


def test_the_example_of_the_documentation_is_sound_and_shows_every_key(tmp_path):
    text = (ROOT / "docs" / "series.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "s.yaml").write_text(text)
    assert len(plan.load(tmp_path / "s.yaml", tmp_path / "runs").runs) == 7
    keys = {key for level in schema.KEYS.values() for key in level}
    assert not [key for key in keys if f"{key}:" not in text]


def test_the_default_series_has_every_notebook_once():
    found = plan.load(ROOT / "series" / "default.yaml", ROOT / "runs").runs.values()
    assert [r.task.notebook for r in found] == sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def test_the_json_schema_refuses_what_the_reader_refuses():
    import jsonschema

    wanted = schema.SeriesFile.model_json_schema()
    jsonschema.validate({"runs": {"a": {"notebook": "00"}}}, wanted)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"runs": {"a": {"notebook": "00", "grids": {}}}}, wanted)


def test_a_grid_is_every_combination_in_order_and_keeps_the_fixed_parameters(place):
    found = place(runs(a="parameters: {text: y}, grid: {n: [1, 2, 5], rate: [1e-3, 0.5]}")).runs
    points = [(run.settings["n"], run.settings["rate"]) for run in found.values()]
    assert points == list(product([1, 2, 5], [0.001, 0.5]))
    assert {run.settings["text"] for run in found.values()} == {"y"}
    assert list(found)[1] == "a[n=1,rate=0.5]"
    assert len({run.id for run in found.values()}) == 6


def test_limits_come_from_the_run_then_from_the_defaults(place):
    text = "defaults: {timeout: 9, threads: 2}\n" + runs(a="timeout: 5", b="parameters: {n: 1}")
    a, b = place(text).runs.values()
    assert (a.task.timeout, a.task.threads, a.task.memory) == (5, 2, None)
    assert (b.task.timeout, b.task.profile) == (9, "cpu")


def test_a_dependency_is_on_every_run_of_that_name_and_the_file_keeps_its_order(place):
    found = place(runs(last="after: [a], parameters: {n: 9}", a="grid: {n: [1, 2]}")).runs
    assert list(found) == ["last", "a[n=1]", "a[n=2]"]
    assert found["last"].after == ("a[n=1]", "a[n=2]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {a: {notebok: x.ipynb}}", "no key 'runs.a.notebok'; .*did you mean 'notebook'"),
        ("run: {}\nruns: {a: {notebook: x}}", "no key 'run'; .*did you mean 'runs'"),
        (
            "defaults: {timout: 3}\nruns: {a: {notebook: x}}",
            "'defaults.timout'.*did you mean 'timeout'",
        ),
        ("runs: {a: {}}", "runs.a.notebook: Field required"),
        ("runs: {}", "runs: .*at least 1"),
        ("", r"the file: wanted keys \(title, defaults, runs, figures\), came None"),
        ("runs: {a: 01_a.ipynb}", r"runs.a: wanted keys \(profile, .*came '01_a.ipynb'"),
        ("runs: {a: {notebook: x, after: 2024-13-02}}", "read as YAML: month must be in 1..12"),
        ("runs: " + "[" * 3000, "cannot be read as YAML"),
        ("runs: [", "cannot be read as YAML"),
        ("runs: {a: {notebook: x}, a: {notebook: y}}", "the key 'a' stands twice"),
        ("runs: {a: !!python/object/apply:os.system [touch pwned]}", "cannot be read as YAML"),
        ("runs: {../a: {notebook: x}}", "runs.../a: String should match pattern"),
        (f"runs: {{{'a' * 81}: {{notebook: x}}}}", "String should match pattern"),
        ("runs: {é: {notebook: x}}", "String should match pattern"),
        (runs(a="timeout: -1"), "timeout: Input should be greater than 0, came -1"),
        (runs(a="threads: two"), "threads: Input should be a valid integer, came 'two'"),
        (runs(a="grid: {n: []}"), "grid.n: .*at least 1 item"),
        (runs(a="grid: {m: [1]}"), "run 'a': no parameter named 'm'"),
        (runs(a="grid: {siz: [[1]]}"), "did you mean 'sizes'"),
        (runs(a="grid: {n: [1, one]}"), "run 'a': parameter 'n' wants int, came 'one'"),
        (runs(a="grid: {n: [1]}, parameters: {n: 2}"), "n: both in parameters and in grid"),
        (runs(a="parameters: {out_dir: ../../x}"), "out_dir is set by the runner"),
        (runs(a="parameters: {text: no}"), "parameter 'text' wants str, came False"),
        (
            runs(a="parameters: {text: 2024-11-21}"),
            "run 'a': parameter 'text' must be a plain lit.*quote",
        ),
        (runs(a=r'parameters: {text: "\uD800"}'), "parameter 'text' must be a plain literal"),
        (runs(a="parameters: {sizes: &a [*a]}"), "parameter 'sizes' must be .*Circular reference"),
        (runs(a=f"parameters: {{sizes: {'[' * 250}{']' * 250}}}"), "parameter 'sizes' must be"),
        (runs(a="parameters: {rate: .nan}"), "run 'a': parameter 'rate' wants float"),
        (runs(a="profile: gpu"), "run 'a': no profile named 'gpu'"),
        (runs(a="grid: {n: [1, 1]}"), r"'a\[n=1\]' and 'a\[n=1\]' have one id"),
        (runs(a="", b="parameters: {n: 3}"), "'a' and 'b' have one id, .*; delete one"),
        (runs(a="after: [b]"), "run 'a' is after: no run named 'b'"),
        (runs(a="after: [a]"), "wait for each other: a -> a;"),
        (
            runs(a="after: [b]", b="after: [c]", c="after: [a]"),
            "wait for each other: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c);",
        ),
        (runs(a="") + "figures: {all: [a, c]}", "figures 'all': no run named 'c'"),
        ("runs: {a: {notebook: gone.ipynb}}", "run 'a': no notebook at"),
        ("runs: {a: {notebook: ...ipynb}}", "run 'a': a notebook's name may not begin with a dot"),
        ("runs: {a: {notebook: nosuch}}", "run 'a': no notebook named 'nosuch'"),
    ],
)
def test_what_is_not_sound_is_refused_with_its_place_and_nothing_is_written(place, text, message):
    before = {path.name for path in place.root.iterdir()}
    with pytest.raises(ValueError, match=message) as refused:
        place(text)
    assert "s.yaml" in str(refused.value)
    assert {path.name for path in place.root.iterdir()} <= before | {"s.yaml"}


def test_a_series_file_that_is_a_folder_is_none(place):
    for path in (place.root, place.root / "01_a.ipynb" / "s.yaml"):
        with pytest.raises(ValueError, match=f"no series file at {path}"):
            plan.load(path, place.root / "runs")


def test_hostile_texts_are_values_and_reach_no_path(place):
    (run,) = place(runs(a="""parameters: {text: "../../x'; import os #"}""")).runs.values()
    assert run.settings["text"] == "../../x'; import os #"
    assert run.parent == place.root / "runs" / "01_a"


def test_values_that_read_alike_have_distinct_keys(tmp_path):
    book = build(tmp_path / "01_a.ipynb", parameters="n: str | int | None = None", reads="print(n)")
    (tmp_path / "s.yaml").write_text(f"runs: {{a: {{notebook: {book}, grid: {{n: [1, '1', 2]}}}}}}")
    assert list(plan.load(tmp_path / "s.yaml", tmp_path).runs) == ["a[n=1]", "a[n='1']", "a[n=2]"]


# Shards


SHARDED = runs(
    a="grid: {n: [1, 2, 3, 4, 5, 6, 7]}",
    b="parameters: {n: 10}, after: [c]",
    c="parameters: {n: 11}",
    d="parameters: {n: 12}, after: [b]",
)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_shards_are_a_partition_that_never_cuts_a_dependency(place, count):
    series = place(SHARDED)
    parts = [plan.shard(series, number, count).runs for number in range(1, count + 1)]
    assert sorted(key for part in parts for key in part) == sorted(series.runs)
    for part in parts:
        assert all(set(run.after) <= part.keys() for run in part.values())
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 or max(sizes) == 3  # b, c and d stay together
    assert parts == [plan.shard(place(SHARDED), n, count).runs for n in range(1, count + 1)]


@pytest.mark.parametrize(("number", "count"), [(0, 2), (3, 2), (1, 0)])
def test_a_shard_that_is_none_is_refused(place, number, count):
    with pytest.raises(ValueError, match=f"1 <= i <= n, such as 1/4; got {number}/{count}"):
        plan.shard(place(SHARDED), number, count)


# What the folders say


def why(series, key="a"):
    return records.decide(series.runs[key], records.read(series.runs.values()))


def test_a_run_that_is_not_there_is_new_and_a_finished_one_is_skipped(place):
    series = place(runs(a=""))
    assert why(series) == records.Decision("run", "new")
    folder = pretend(series.runs["a"], table=measured(1.0))
    assert why(series) == records.Decision("skip", "finished", folder)


def test_the_reason_names_the_part_of_the_identity_that_changed(place, monkeypatch):
    pretend(place(runs(a="")).runs["a"])
    assert why(place(runs(a="parameters: {n: 4}"))).why.endswith(": parameter n 3 -> 4")
    book = place.root / "01_a.ipynb"
    book.write_text(book.read_text().replace("# A question", "# Another question"))
    assert why(place(runs(a=""))).action == "skip"
    around = manifest.surroundings()
    for part, word in manifest.PARTS.items():
        if part == "code_cells":
            continue
        monkeypatch.setattr(manifest, "surroundings", lambda part=part: around | {part: "other"})
        assert why(place(runs(a=""))).why.endswith(f": {word}")
    monkeypatch.undo()
    book.write_text(book.read_text().replace("print(n,", "print( n,"))
    assert why(place(runs(a=""))).why.endswith(": code cells")


def test_of_two_runs_the_one_with_the_same_parameters_explains_best(place):
    series = place(runs(a="grid: {sizes: [[1], [2]]}"))
    for run in series.runs.values():
        pretend(run)
    book = place.root / "01_a.ipynb"
    book.write_text(book.read_text().replace("print(n,", "print( n,"))
    again = place(runs(a="grid: {sizes: [[1], [2]]}"))
    for key in again.runs:
        assert why(again, key).why.endswith(": code cells")


def test_a_run_that_ended_badly_or_lost_its_results_is_run_again_and_says_so(place):
    series = place(runs(a="grid: {n: [1, 2, 3]}"))
    one, two, three = series.runs.values()
    pretend(one, "dead", reason="the kernel died")
    folder = pretend(two, table=measured(1.0))
    data = bytearray((folder / "results.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "results.parquet").write_bytes(data)
    folder = pretend(three, table=measured(1.0))
    (folder / "results.parquet").unlink()
    assert why(series, one.key).why == "again: it was dead: the kernel died"
    for run in (two, three):
        assert why(series, run.key).why == "again: gone or not what the run wrote: results.parquet"


def test_a_run_that_lost_its_results_no_longer_says_ok_once_it_is_run_again(place):
    (run,) = place(runs(a="")).runs.values()
    for name in ("a", "other"):
        folder = pretend(run, table=measured(1.0), name=name)
        (folder / "results.parquet").unlink()
    with claims.claimed(run.parent / f"a-{run.id[:8]}", run.id, force=False) as claim:
        assert claim.finished is None
    for name in (f"a-{run.id[:8]}.1", f"other-{run.id[:8]}"):
        outcome = manifest.read(run.parent / name)["outcome"]
        assert (outcome["state"], outcome["exit_code"]) == ("failed", 2)
        assert outcome["reason"] == "gone or not what the run wrote: results.parquet"


def test_a_run_whose_input_changed_is_run_again(place):
    series = place(runs(a=""))
    source = place.root / "weights.bin"
    source.write_bytes(b"one")
    folder = pretend(series.runs["a"])
    content = manifest.read(folder)
    content["inputs"] = [{"kind": "model", "files": {str(source): manifest.digest(source)}}]
    manifest.write(folder, content)
    assert why(series).action == "skip"
    source.write_bytes(b"two")
    assert why(series).why == f"again: inputs changed: {source}"


def test_a_file_is_hashed_again_only_when_it_was_written_to(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = manifest.digest(path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", None)
        assert manifest.digest(path) == first
    old = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))  # same size, same time of change
    assert manifest.digest(path) != first


def test_the_identity_sees_every_module_of_the_lab(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    for name in ("__init__.py", "x/__init__.py"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "manifest.py"))
    before = manifest.surroundings()["lab"]
    (tmp_path / "__init__.py").write_text("# changed")
    assert manifest.surroundings()["lab"] != before


def test_a_manifest_that_says_running_is_believed_only_while_its_folder_is_held(place):
    series = place(runs(a="", b="parameters: {n: 1}"))
    for run in series.runs.values():
        folder = pretend(run, "running")
        (folder / manifest.LOCK).write_text("")
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX)"
    command = [sys.executable, "-c", f"{holder}; print(flush=True); time.sleep(60)"]
    process = subprocess.Popen([*command, folder / manifest.LOCK], stdout=subprocess.PIPE)
    process.stdout.readline()
    a, b = status.read(series)
    process.kill()
    process.communicate()
    assert (a.state, b.state) == ("interrupted", "running")
    assert a.reason == f"the runner (pid {os.getpid()} on {socket.gethostname()}) is gone"
    assert b.seconds >= 0
    assert [one.state for one in status.read(series)] == ["interrupted", "interrupted"]


def test_status_tells_every_state_in_the_order_of_the_file(place):
    series = place(runs(a="grid: {n: [1, 2, 3, 4]}"))
    one, two, three, _ = series.runs.values()
    pretend(one)
    pretend(two, "timeout", reason="it took longer than 8 s")
    pretend(three)
    (three.parent / f"a-{three.id[:8]}" / manifest.NAME).write_text("{")
    found = status.read(series)
    assert [s.state for s in found] == ["ok", "timeout", "not run", "not run"]
    assert found[1].line == "timeout     a[n=2] 1.5 s: it took longer than 8 s"
    assert status.summary(found) == "4 runs: 1 ok, 2 not run, 1 timeout"
    done = lab("status", series.path, "--out", series.out)
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["ok", "timeout"]
    shown = json.loads(lab("status", series.path, "--out", series.out, "--json").stdout)
    assert [one["state"] for one in shown] == [one.state for one in found]


def test_a_finished_run_of_another_name_stands_for_the_planned_one(place):
    series = place(runs(a=""))
    folder = pretend(series.runs["a"], name="other")
    assert why(series).folder == folder and status.read(series)[0].folder == folder


# One sweep at a time


def test_the_second_sweep_is_told_who_holds_the_folder(tmp_path):
    with (
        locks.swept(tmp_path, "first", ""),
        pytest.raises(ValueError, match="being swept") as refused,
    ):
        with locks.swept(tmp_path, "second", ""):
            pass
    says = str(refused.value)
    assert f"process {os.getpid()} on {socket.gethostname()} since 20" in says and "first" in says
    with locks.swept(tmp_path, "second", ""):
        assert locks.sweeping(tmp_path)
    assert not locks.sweeping(tmp_path)


def test_shards_share_a_folder_and_a_whole_sweep_does_not(tmp_path):
    with locks.swept(tmp_path, "s", "1/2"), locks.swept(tmp_path, "s", "2/2"):
        for part in ("", "1/2"):
            with pytest.raises(ValueError, match="shard 1/2"), locks.swept(tmp_path, "s", part):
                pass


def test_a_shard_has_one_lock_however_it_is_written(place):
    series = place(runs(a=""))
    with locks.swept(series.out, "s", "1/4"):
        done = lab("sweep", series.path, "--out", series.out, "--shard", "01/4")
    assert done.returncode == 1 and "(shard 1/4)" in done.stderr


def test_a_sweep_that_ends_while_it_is_looked_at_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_held", lambda path: path.unlink() or True)
    (tmp_path / locks.FOLDER).mkdir()
    (tmp_path / locks.FOLDER / "s-whole.json").write_text("{}")
    with locks.swept(tmp_path, "other", ""):
        left = [path.name for path in (tmp_path / locks.FOLDER).glob("*.json")]
    assert left == ["other-whole.json"]


def test_a_sweep_that_fails_leaves_no_lock_file(tmp_path):
    with pytest.raises(BrokenPipeError), locks.swept(tmp_path, "s", ""):
        raise BrokenPipeError
    assert not list((tmp_path / locks.FOLDER).glob("*.json"))


def test_what_a_killed_sweep_left_is_taken_over(tmp_path):
    code = f"""from lab.series import locks
import os, pathlib
with locks.swept(pathlib.Path({str(tmp_path)!r}), "s", ""):
    os.kill(os.getpid(), 9)"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert list((tmp_path / locks.FOLDER).glob("*.json"))
    with locks.swept(tmp_path, "s", ""):
        pass


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(place):
    series = place(runs(a=""))
    series.out.write_text("a file")
    done = lab("sweep", series.path, "--out", series.out)
    assert done.returncode == 1 and str(series.out) in done.stderr
    assert len(done.stderr.splitlines()) == 1 and series.out.read_text() == "a file"


# Tables over runs


@pytest.fixture
def compared(place):
    series = place(runs(a="grid: {n: [1, 2]}") + "  b: {notebook: 02_b.ipynb, parameters: {n: 7}}")
    for at, run in enumerate(series.runs.values()):
        pretend(run, table=measured(float(at), at + 0.5))
    return series


def finished(series):
    return [records.of(run, records.read(series.runs.values())) for run in series.runs.values()]


def test_the_table_over_runs_is_theirs_with_run_and_differing_parameters(compared):
    table = tables.measurements(finished(compared))
    assert list(table.columns[:2]) == ["run", "parameter.n"]
    assert table["parameter.n"].tolist() == [1, 1, 2, 2, 7, 7]
    for run, rows in table.groupby("run"):
        (folder,) = compared.out.glob(f"*/{run}")
        own = results.load(folder / "results.parquet")
        pd.testing.assert_frame_equal(rows[own.columns].reset_index(drop=True), own)


def test_a_parameter_of_several_kinds_is_text_and_a_missing_one_empty():
    assert tables._column([1, None, 2]).dtype == "Int64"
    assert tables._column([1, 0.5]).tolist() == [1.0, 0.5]
    assert tables._column([True, None]).dtype == "boolean"
    assert tables._column([[1, 2], "x"]).tolist() == ["[1, 2]", "x"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: (path.unlink(), wrote(path.parent)), "has no results.parquet"),
        (lambda path: path.unlink(), "results.parquet is gone or not what the run wrote; sweep"),
        (
            lambda path: results.save(measured(9.0), path.parent),
            "results.parquet is gone or not what the run wrote; sweep again",
        ),
        (lambda path: path.write_bytes(b"PAR1"), "run .*a-"),
        (
            lambda path: (pd.DataFrame({"x": [1]}).to_parquet(path), wrote(path.parent)),
            r"run .*a-.*holds table None of version None; wanted .*version",
        ),
    ],
)
def test_a_table_that_is_not_one_of_ours_names_its_run(compared, break_it, message):
    break_it(finished(compared)[0].folder / "results.parquet")
    found = finished(compared)
    with pytest.raises(ValueError, match=message) as refused:
        tables.measurements(found)
    assert str(found[0].folder) in str(refused.value)


def comparison(setting, baseline, difference, p):
    return {
        "metric": "m", "setting": setting, "baseline": baseline, "difference": difference,
        "low": difference - 1, "high": difference + 1, "p": p, "p_holm": p,
    }  # fmt: skip


def test_tie_groups_are_letters_where_every_pair_was_compared(place):
    series = place(runs(a="grid: {n: [1, 2]}"))
    one, two = series.runs.values()
    # worst ~ middle, middle ~ best, but best > worst: two overlapping groups
    full = [("b", "a", 2.0, 0.01), ("c", "a", 1.0, 0.5), ("c", "b", -1.0, 0.4)]
    for run, rows in ((one, full), (two, full[:2])):
        table = results.comparison_table(pd.DataFrame([comparison(*row) for row in rows]))
        folder = pretend(run)
        results.save(table, folder, "comparisons")
        wrote(folder)
    found = tables.comparisons(finished(series))
    assert found["separable"].tolist() == [True, False, False, True, False]
    assert found["group"].tolist()[:3] == ["a", "ab", "ab"]
    assert found["baseline_group"].tolist()[:3] == ["b", "b", "a"]
    assert found["group"][3:].isna().all()  # c against b was not compared


def test_csv_and_parquet_hold_everything_and_latex_and_html_are_to_be_read(compared, tmp_path):
    table = tables.measurements(finished(compared))
    for suffix in formats.WRITERS:
        formats.write(table, tmp_path / f"t{suffix}", "a <title>")
    assert pd.read_csv(tmp_path / "t.csv")["value"].tolist() == table["value"].tolist()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)
    latex = (tmp_path / "t.tex").read_text()
    assert r"\toprule" in latex and "0.5 [-0.5, 1.5]" in latex and "layer_mix" not in latex
    html = (tmp_path / "t.html").read_text()
    assert "a &lt;title&gt;" in html and "0.5 [-0.5, 1.5]" in html
    assert "<script" not in html and "http" not in html
    with pytest.raises(LookupError, match=r"no table format named '.xlsx'"):
        formats.write(table, tmp_path / "t.xlsx", "t")


def test_a_table_is_written_whole_or_not_at_all(compared, tmp_path, monkeypatch):
    def half(table, path, title):
        path.write_text("half")
        raise OSError("no space left")

    (tmp_path / "t.csv").write_text("before")
    monkeypatch.setitem(formats.WRITERS, ".csv", half)
    with pytest.raises(OSError, match="no space"):
        formats.write(tables.measurements(finished(compared)), tmp_path / "t.csv", "t")
    assert (tmp_path / "t.csv").read_text() == "before"
    assert not list(tmp_path.glob(".t.csv*"))


def test_texts_for_latex_are_escaped(tmp_path):
    formats.write(pd.DataFrame({"a_b": ["50% & more_so"]}), tmp_path / "t.tex", "t")
    latex = (tmp_path / "t.tex").read_text()
    assert r"a\_b" in latex and r"50\% \& more\_so" in latex


def test_lab_compare_says_what_it_leaves_out(compared):
    folder = finished(compared)[0].folder
    content = manifest.read(folder)
    content["outcome"]["state"] = "failed"
    manifest.write(folder, content)
    done = lab("compare", compared.path, "--runs", compared.out)
    assert done.returncode == 0 and done.stderr == "left out, not finished: a[n=1]\n"
    assert "2.5" in done.stdout
    nothing = lab("compare", folder)
    assert nothing.returncode == 1 and "no finished run" in nothing.stderr


# Verification and cleaning


def test_equal_tables_do_not_differ_and_a_changed_cell_is_named(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    results.save(measured(1.0, 2.0, dataset="d"), old)
    results.save(measured(1.0, 2.0, dataset="d"), new)
    assert verify.differences(old, new, "results.parquet", 0.0) == []
    results.save(measured(1.0, 2.0 + 1e-9, dataset="d"), new)
    (line, *_) = verify.differences(old, new, "results.parquet", 0.0)
    assert "row 1, value: 2.0 became 2.000000001" in line and "dataset d" in line
    assert verify.differences(old, new, "results.parquet", 1e-6) == []
    results.save(measured(1.0), new)
    assert verify.differences(old, new, "results.parquet", 1) == [
        "results.parquet: 2 rows became 1"
    ]
    (new / "results.parquet").unlink()
    assert "not written again" in verify.differences(old, new, "results.parquet", 1)[0]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ([1.0, None], [1.0, None], True),
        ([1.0, None], [1.0, 2.0], False),
        (["a", None], ["a", None], True),
        (["a", None], ["a", "b"], False),
        (["a", "b"], ["a", "c"], False),
        ([1, 2], [1.0, 2.0], True),
        ([True, False], [True, True], False),
    ],
)
def test_cells_are_compared_as_numbers_texts_and_gaps(before, after, same):
    found = verify._equal(pd.Series(before), pd.Series(after), 0.0)
    assert bool(np.all(found)) is same


def test_only_a_finished_and_undamaged_run_with_tables_is_verified(place):
    series = place(runs(a="grid: {n: [1, 2, 3]}"))
    one, two, three = series.runs.values()
    with pytest.raises(ValueError, match="is failed, not ok"):
        verify.verify(pretend(one, "failed"))
    folder = pretend(two, table=measured(1.0))
    (folder / "results.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="not what the run wrote: results"):
        verify.verify(folder)
    with pytest.raises(ValueError, match="holds no table"):
        verify.verify(pretend(three))


def test_clean_lists_what_did_not_end_well_and_deletes_only_when_asked(place):
    series = place(runs(a="grid: {n: [1, 2, 3, 4]}"))
    one, two, three, four = series.runs.values()
    kept = pretend(one, table=measured(1.0))
    failed = pretend(two, "failed", reason="ZeroDivisionError")
    gone = pretend(three, "running")
    aside = pretend(four).rename(four.parent / f"a-{four.id[:8]}.1")
    bare = one.parent / "a-0123abcd"
    bare.mkdir()
    by_hand = one.parent / "dev"
    by_hand.mkdir()
    found = {leftover.folder: leftover.why for leftover in clean.leftovers(series.out)}
    assert found.keys() == {failed, gone, aside, bare}
    assert found[failed] == "failed: ZeroDivisionError" and "is gone" in found[gone]
    dry = lab("clean", "--out", series.out)
    assert dry.returncode == 0 and "4 folders" in dry.stdout and failed.exists()
    lab("clean", "--out", series.out, "--delete")
    left = {path for path in one.parent.iterdir() if path.is_dir()}
    assert left == {kept, by_hand}


def test_clean_leaves_a_run_that_is_going_on(place):
    (run,) = place(runs(a="")).runs.values()
    with claims.claimed(run.parent / f"a-{run.id[:8]}", run.id, force=False) as claim:
        assert claim.finished is None and clean.leftovers(run.task.out) == []
