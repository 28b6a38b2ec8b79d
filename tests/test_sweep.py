"""Sweeps of real notebooks with real kernels, on both executors and through the command line."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future

import pytest
from tiny_notebook import LAB, build, lab, manifest_of
from tiny_series import measured, pretend, processes_of

from lab import manifest, paths, runner
from lab.runner import claims
from lab.series import plan, records, status, sweep
from lab.series.executors import EXECUTORS

SAVE = """import numpy as np
from lab import results
draws = np.random.default_rng(n).standard_normal(5)
_ = results.save(results.table(
    results.row(probe="p", metric="m", layer=i, value=float(v), seed=n) for i, v in enumerate(draws)
), out_dir)"""
SERIES = """runs:
  draws: {notebook: 01_a.ipynb, grid: {n: [1, 2, 3]}}
  last: {notebook: 02_b.ipynb, after: [draws], threads: 1}
"""


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def write(root, text):
    (root / "s.yaml").write_text(text)
    return plan.load(root / "s.yaml", root / "runs")


def table_of(series):
    there = records.read(series.runs.values())
    found = {key: records.of(run, there) for key, run in series.runs.items()}
    return {key: (one.folder / "results.parquet").read_bytes() for key, one in found.items()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """One series swept by both executors: {executor: (series, how its runs ended)}."""
    root = tmp_path_factory.mktemp("swept")
    for name in ("01_a", "02_b"):
        build(root / f"{name}.ipynb", SAVE)
    (root / "s.yaml").write_text(SERIES)
    found = {}
    for name, jobs in (("serial", 1), ("processes", 2)):
        series = plan.load(root / "s.yaml", root / name)
        found[name] = (series, sweep.sweep(series, EXECUTORS[name](jobs)))
    return found


def test_two_at_a_time_give_the_tables_of_one_after_another(swept):
    for _, ended in swept.values():
        assert [one.state for one in ended] == ["ok"] * 4, [one.line for one in ended]
        assert ended[-1].key == "last" and sweep.exit_code(ended) == 0
    one, two = (table_of(series) for series, _ in swept.values())
    assert one == two and len(set(one.values())) == 4 - 1  # last has the default n = 3


def test_a_run_of_a_sweep_has_the_planned_id_its_threads_and_a_time(swept):
    cores = len(os.sched_getaffinity(0))
    share = {"serial": cores, "processes": max(1, cores // 2)}
    for name, (series, ended) in swept.items():
        for one in ended:
            content = manifest_of(one.folder)
            assert content["identity"]["id"] == series.runs[one.key].id
            threads = 1 if one.key == "last" else share[name]
            assert content["environment"]["threads"] == threads
            assert content["environment"]["variables"]["OMP_NUM_THREADS"] == str(threads)
            assert content["outcome"]["seconds"] == one.seconds > 0


def test_a_second_sweep_skips_and_only_changed_code_is_run_again(swept):
    series, _ = swept["serial"]
    root = series.path.parent
    words = ["sweep", series.path, "--out", series.out, "--dry-run"]
    again = lab("sweep", series.path, "--out", series.out)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == "4 runs: 4 skipped"
    book = root / "02_b.ipynb"
    text = book.read_text()
    book.write_text(text.replace("# A question", "# Another question"))
    assert lab(*words).stdout.splitlines()[-1] == "0 to run, 4 to skip"
    book.write_text(text.replace("standard_normal(5)", "standard_normal(6)"))
    lines = lab(*words).stdout.splitlines()
    book.write_text(text)
    assert [line.split()[0] for line in lines[:-1]] == ["skip", "skip", "skip", "run"]
    assert lines[3].endswith(": code cells")


def test_lab_verify_repeats_a_run_and_tells_same_from_different(swept, tmp_path):
    _, ended = swept["serial"]
    same = lab("verify", ended[0].folder)
    assert (same.returncode, same.stdout) == (0, "same: results.parquet\n"), same.stderr
    cell = SAVE.replace("default_rng(n)", "default_rng()")
    done = runner.run(build(tmp_path / "01_a.ipynb", cell), out=tmp_path / "runs")
    differs = lab("verify", done.folder)
    assert differs.returncode == 2 and "row 0, value: " in differs.stdout
    assert differs.stdout.splitlines()[-1] == "differs: results.parquet"


def test_a_failed_run_blocks_what_waits_for_it_and_nothing_else(tmp_path):
    build(tmp_path / "01_a.ipynb", "1 / (n - 3)", "x = bytearray(10**9 if n == 5 else 1)")
    series = write(
        tmp_path,
        """runs:
  bad: {notebook: 01_a.ipynb}
  waits: {notebook: 01_a.ipynb, after: [bad], parameters: {n: 4}}
  waits_too: {notebook: 01_a.ipynb, after: [waits], parameters: {n: 6}}
  large: {notebook: 01_a.ipynb, parameters: {n: 5}, memory: 0.6}
  good: {notebook: 01_a.ipynb, parameters: {n: 7}, memory: 0.6}
""",
    )
    done = lab("sweep", series.path, "--out", series.out, "-j", 2)
    assert done.returncode == 2
    assert "blocked     waits: waits for bad, which is failed" in done.stdout
    assert "blocked     waits_too: waits for waits, which is blocked" in done.stdout
    states = {one.key: one for one in status.read(series)}
    assert {key: one.state for key, one in states.items()} == {
        "bad": "failed", "waits": "not run", "waits_too": "not run",
        "large": "failed", "good": "ok",
    }  # fmt: skip
    assert "MemoryError" in states["large"].reason
    assert manifest_of(states["good"].folder)["environment"]["memory_limit"] == 0.6


@pytest.fixture
def sleeping(tmp_path):
    """A series of four runs, of which each sleeps while the file ``sleep`` is there."""
    marker = tmp_path / "started"
    marker.mkdir()
    (tmp_path / "sleep").touch()
    cell = f"""import pathlib, subprocess, sys, time
root = pathlib.Path({str(tmp_path)!r})
child = subprocess.Popen(["sleep", "300"]) if n == 1 else None
(root / "started" / str(n)).touch()
while (root / "sleep").exists():
    time.sleep(0.1)"""
    build(tmp_path / "01_a.ipynb", cell, SAVE)
    return write(tmp_path, "runs: {a: {notebook: 01_a.ipynb, grid: {n: [1, 2, 3, 4]}}}"), marker


def start(series, *words):
    command = [*LAB, "sweep", str(series.path), "--out", str(series.out), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_says_so_leaves_no_process_and_is_resumed(sleeping, number):
    series, marker = sleeping
    process = start(series, "-j", 2)
    wait_for(lambda: len(list(marker.iterdir())) == 2, 60)
    second = lab("sweep", series.path, "--out", series.out)
    assert second.returncode == 1 and f"by process {process.pid} on" in second.stderr
    assert [s.state for s in status.read(series)] == ["running", "running", "not run", "not run"]
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 5 and errors == ""
    assert output.splitlines()[-1] == "4 runs: 2 interrupted, 2 not started"
    reason = f"the runner got {signal.Signals(number).name}"
    assert [s.reason for s in status.read(series)] == [reason, reason, "", ""]
    assert processes_of(str(series.out)) == []
    (series.path.parent / "sleep").unlink()
    if number == signal.SIGTERM:
        return
    assert start(series, "-j", 2).communicate(timeout=300)[0].splitlines()[-1] == "4 runs: 4 ok"
    assert processes_of(str(series.out)) == []


def test_a_killed_sweep_is_resumed_at_once_and_its_runs_do_not_disturb_the_new_ones(sleeping):
    series, marker = sleeping
    process = start(series, "-j", 2)
    wait_for(lambda: len(list(marker.iterdir())) == 2, 60)
    process.kill()
    (series.path.parent / "sleep").unlink()
    output, _ = start(series, "-j", 2).communicate(timeout=300)
    process.communicate()
    assert output.splitlines()[-1] == "4 runs: 4 ok", output
    assert [s.state for s in status.read(series)] == ["ok"] * 4
    asides = sorted((series.out / "01_a").glob("*.1"))
    assert {manifest_of(folder)["outcome"]["state"] for folder in asides} == {"interrupted"}
    wait_for(lambda: not processes_of(str(series.out)), 10)


def test_a_clock_that_goes_backwards_confuses_nothing(tmp_path, monkeypatch):
    ticks = iter(range(10**6, 0, -3600))
    back = "2024-11-21T00:00:00.000+00:00"
    monkeypatch.setattr(manifest, "now", lambda: back.replace("2024", str(2000 + next(ticks) % 99)))
    build(tmp_path / "01_a.ipynb", SAVE)
    series = write(tmp_path, "runs: {a: {notebook: 01_a.ipynb, grid: {n: [1, 2]}}}")
    first = sweep.sweep(series, EXECUTORS["serial"](1))
    again = sweep.sweep(series, EXECUTORS["serial"](1))
    assert [one.state for one in first + again] == ["ok", "ok", "skipped", "skipped"]
    for one in status.read(series):
        assert one.state == "ok" and 0 < one.seconds < 60


def test_a_run_that_cannot_be_started_is_refused_and_the_others_go_on(tmp_path):
    build(tmp_path / "01_a.ipynb")
    series = write(tmp_path, "runs: {a: {notebook: 01_a.ipynb, grid: {n: [1, 2]}}}")
    one, _ = series.runs.values()
    with claims.claimed(one.parent / f"a-{one.id[:8]}", one.id, force=False):
        ended = sweep.sweep(series, EXECUTORS["serial"](1))
    assert [e.state for e in ended] == ["refused", "ok"] and sweep.exit_code(ended) == 1
    assert "the same run is going on" in ended[0].reason


def test_an_executor_told_to_stop_starts_nothing(tmp_path):
    build(tmp_path / "01_a.ipynb")
    series = write(tmp_path, "runs: {a: {notebook: 01_a.ipynb}}")
    for name in ("serial", "processes"):
        executor = EXECUTORS[name](1)
        executor.stop(signal.SIGTERM)
        (ended,) = sweep.sweep(series, executor)
        assert ended.state == "not started" and sweep.exit_code([ended]) == 5
    assert not series.out.exists()


class Inline:
    """An executor that runs nothing: every run is over at once, as `ends` says."""

    def __init__(self, ends, journal):
        self.jobs, self.threads, self.ends, self.journal = 1, 1, ends, journal

    def submit(self, task):
        n = task.overrides["n"]
        self.journal.append(("submit", n))
        future = Future()
        future.set_result(runner.Run(self.ends(n), "", task.out, "id"))
        return future

    def stop(self, number):
        self.journal.append(("stop", number))

    def close(self):
        self.journal.append(("close", None))


def graph_of(root, after):
    """A series of runs r0, r1, ...: run i waits for those in ``after[i]``."""
    build(root / "01_a.ipynb")
    entries = [
        f"  r{i}: {{notebook: 01_a.ipynb, parameters: {{n: {i}}}, after: {[f'r{j}' for j in js]}}}"
        for i, js in enumerate(after)
    ]
    return write(root, "\n".join(["runs:", *entries]))


def test_runs_start_after_those_they_wait_for_and_each_end_is_told_at_once(tmp_path, rng):
    order = rng.permutation(12)
    after = [[] for _ in order]
    for place, i in enumerate(order):  # whatever the file's order, edges follow `order`
        after[i] = [int(j) for j in order[:place] if rng.random() < 0.3]
    journal = []
    series = graph_of(tmp_path, after)
    sweep.sweep(series, Inline(lambda n: "ok", journal), lambda e: journal.append(("said", e.key)))
    assert journal[-1] == ("close", None) and len(journal) == 2 * 12 + 1
    started = [n for what, n in journal if what == "submit"]
    assert all(started.index(j) < started.index(i) for i in range(12) for j in after[i])
    assert journal[1::2][:12] == [("said", f"r{n}") for n in started]


def test_exactly_what_waits_for_a_failed_run_directly_or_not_is_blocked(tmp_path):
    series = graph_of(tmp_path, [[], [0], [1], [], [3], [2, 4]])
    ended = sweep.sweep(series, Inline(lambda n: "dead" if n == 1 else "ok", []))
    states = {one.key: one.state for one in ended}
    assert states == {"r0": "ok", "r1": "dead", "r2": "blocked", "r3": "ok", "r4": "ok"} | {
        "r5": "blocked"
    }
    assert sweep.exit_code(ended) == 3
    assert sweep.summary(ended) == "6 runs: 3 ok, 1 dead, 2 blocked"


def test_an_error_in_the_sweep_itself_stops_the_runs_and_is_raised(tmp_path):
    def broken(ended):
        raise BrokenPipeError

    journal = []
    with pytest.raises(BrokenPipeError):
        sweep.sweep(graph_of(tmp_path, [[], []]), Inline(lambda n: "ok", journal), broken)
    assert journal == [("submit", 0), ("stop", signal.SIGTERM), ("close", None)]


def test_a_shard_without_runs_is_a_sweep_that_has_ended(tmp_path):
    build(tmp_path / "01_a.ipynb")
    series = write(tmp_path, "runs: {a: {notebook: 01_a.ipynb, grid: {n: [1, 2]}}}")
    done = lab("sweep", series.path, "--out", series.out, "--shard", "5/5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "0 runs"


def test_a_run_that_is_another_than_the_planned_one_says_what_changed(tmp_path):
    (run,) = graph_of(tmp_path, [[]]).runs.values()
    hashed = run.identity["hashed"] | {"environment": "other"}
    identity = run.identity | {"id": "0" * 64, "hashed": hashed}
    folder = pretend(dataclasses.replace(run, identity=identity))
    future = Future()
    future.set_result(runner.Run("ok", "", folder, "0" * 64))
    ended = sweep._outcome(run, future)
    assert (ended.state, ended.reason) == ("ok", "since the sweep began, changed: environment")


def test_serial_is_one_at_a_time():
    with pytest.raises(ValueError, match="one run at a time, came -j 2"):
        EXECUTORS["serial"](2)


@pytest.mark.parametrize("words", [["--shard", "2"], ["--shard", "3/2"], ["--executor", "slurm"]])
def test_a_wrong_option_is_refused_in_one_line(tmp_path, words):
    build(tmp_path / "01_a.ipynb")
    series = write(tmp_path, "runs: {a: {notebook: 01_a.ipynb}}")
    done = lab("sweep", series.path, "--out", series.out, *words)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert words[-1].split("/")[0] in done.stderr and not series.out.exists()


def test_a_second_sweep_of_24_finished_runs_takes_under_two_seconds(tmp_path):
    books = sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))[:6]
    entries = [
        f"  r{i}: {{notebook: {b}, grid: {{seed: [1, 2, 3, 4]}}}}" for i, b in enumerate(books)
    ]
    series = write(tmp_path, "\n".join(["runs:", *entries, ""]))
    assert len(series.runs) == 24
    for run in series.runs.values():
        folder = pretend(run, table=measured(*range(200)))
        (folder / "figure.svg").write_bytes(os.urandom(2_000_000))
        content = manifest_of(folder)
        content["outcome"]["outputs"] = manifest.outputs(folder)
        manifest.write(folder, content)

    def seconds():
        begun = time.perf_counter()
        done = lab("sweep", series.path, "--out", series.out)
        assert done.stdout.splitlines()[-1] == "24 runs: 24 skipped", done.stderr
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(4)) < 2


def test_a_sweep_loads_nothing_heavy(tmp_path):
    (tmp_path / "s.yaml").write_text(
        f"runs: {{a: {{notebook: {paths.NOTEBOOKS}/00_start_here.ipynb}}}}"
    )
    code = (
        "import sys, json; from lab import cli\n"
        f"sys.argv = ['lab', 'sweep', {str(tmp_path / 's.yaml')!r}, '--dry-run']\n"
        "try: cli.main()\nfinally: print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded.isdisjoint({"pandas", "numpy", "papermill", "torch", "ray", "transformers"})
