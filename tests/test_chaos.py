"""A hundred runs while runners, processes and kernels are killed: nothing is lost, nothing lies."""

import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from os import kill

import numpy as np
import pytest
from tiny_notebook import LAB, build, executed, manifest_of
from tiny_series import processes_of

from lab import manifest, results
from lab.runner import claims
from lab.series import plan, status

RUNS, TIMED = 100, 4
SEED = 6
ROUNDS = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]
FAULTS = {"exit": 4, "kill": 4, "term": 2, "process": 4, "quota": 4, "raise": 4}  # how many
CELLS = (
    """import os, pathlib, resource, signal, time
fault = pathlib.Path({root!r}, "faults", str(n))
kind = fault.read_text() if fault.exists() else ""
fault.unlink(missing_ok=True)""",
    """import numpy as np
from lab import results
draws = np.random.default_rng(n).standard_normal(50)
table = results.table(
    results.row(probe="p", metric="m", layer=i, value=float(v), seed=n) for i, v in enumerate(draws)
)""",
    """if kind == "exit":
    os._exit(7)
elif kind == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif kind == "term":
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(600)
elif kind == "process":
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
elif kind == "hang":
    time.sleep(600)
elif kind == "quota":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
elif kind == "raise":
    1 / 0
_ = results.save(table, out_dir)""",
)
SERIES = f"""runs:
  short: {{notebook: 01_chaos.ipynb, grid: {{n: {list(range(TIMED, RUNS))}}}, timeout: 120}}
  timed: {{notebook: 01_chaos.ipynb, grid: {{n: {list(range(TIMED))}}}, timeout: 20}}
"""


def undisturbed(n, folder):
    """The bytes of the table that run ``n`` must leave, made without a notebook."""
    draws = np.random.default_rng(n).standard_normal(50)
    rows = [
        results.row(probe="p", metric="m", layer=i, value=float(v), seed=n)
        for i, v in enumerate(draws)
    ]
    return results.save(results.table(rows), folder).read_bytes()


def plant(root, rng):
    """Nothing; some runs get a fault, which strikes once, when the run first gets there."""
    kinds = [kind for kind, count in FAULTS.items() for _ in range(count)]
    struck = rng.choice(np.arange(TIMED, RUNS), len(kinds), replace=False)
    faults = dict(zip(map(int, struck), kinds, strict=True)) | {0: "hang", 1: "hang"}
    (root / "faults").mkdir()
    for n, kind in faults.items():
        (root / "faults" / str(n)).write_text(kind)


def start(series):
    command = [*LAB, "sweep", str(series.path), "--out", str(series.out), "-j", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def torment(sweep, root, seconds, rng):
    """Nothing; for so long, processes of the runs are killed at random, kernels among them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and sweep.poll() is None:
        time.sleep(float(rng.uniform(1, 4)))
        pids = processes_of(str(root))
        if pids:
            with suppress(ProcessLookupError):
                kill(int(rng.choice(pids)), int(rng.choice([signal.SIGKILL, signal.SIGTERM])))


def corrupt(folders, rng):
    """The folders of finished runs whose table was damaged: a bit, the end, all of it."""
    chosen = [folders[i] for i in rng.choice(len(folders), min(3, len(folders)), replace=False)]
    for way, folder in enumerate(chosen):
        path = folder / "results.parquet"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if way == 2:
            path.unlink()
        else:
            path.write_bytes(data[: len(data) // 2] if way else data)
    return chosen


def finished(series):
    """The folders of runs that are ok and whole: not those that were damaged before."""
    ok = [one.folder for one in status.read(series) if one.state == "ok"]
    return [folder for folder in ok if not claims.damaged(folder, manifest_of(folder))]


@pytest.mark.timeout(1800)
def test_whatever_is_killed_a_resumed_sweep_ends_as_an_undisturbed_one(tmp_path):
    rng = np.random.default_rng(SEED)
    build(
        tmp_path / "01_chaos.ipynb",
        *(cell.replace("{root!r}", repr(str(tmp_path))) for cell in CELLS),
    )
    (tmp_path / "s.yaml").write_text(SERIES)
    series = plan.load(tmp_path / "s.yaml", tmp_path / "runs")
    plant(tmp_path, rng)
    damaged = []
    for number in ROUNDS:
        sweep = start(series)
        torment(sweep, tmp_path, float(rng.uniform(8, 16)), rng)
        sweep.send_signal(number)
        sweep.communicate(timeout=300)
        damaged += corrupt(finished(series), rng)
    start(series).communicate(timeout=900)
    damaged += corrupt(finished(series), rng)
    for _ in range(6):
        sweep = start(series)
        output, _ = sweep.communicate(timeout=900)
        if sweep.returncode == 0:
            break
    assert sweep.returncode == 0, output
    _check_runs(series, tmp_path)
    _check_states(series, len(damaged))
    deadline = time.monotonic() + 20
    while left := processes_of(str(tmp_path)):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    last, _ = start(series).communicate(timeout=300)
    assert last.splitlines()[-1] == f"{RUNS} runs: {RUNS} skipped"


def _check_runs(series, root):
    """Every run is there exactly once, whole, with the table of an undisturbed one."""
    folders = {f.name for f in (series.out / "01_chaos").iterdir() if f.is_dir()}
    current = {name for name in folders if "." not in name}
    assert current == {f"{run.name}-{run.id[:8]}" for run in series.runs.values()}
    for run in series.runs.values():
        folder = run.parent / f"{run.name}-{run.id[:8]}"
        wanted = undisturbed(run.settings["n"], root / "oracle")
        assert (folder / "results.parquet").read_bytes() == wanted, run.key
        content = manifest_of(folder)
        assert content["identity"]["id"] == run.id and content["outcome"]["state"] == "ok"
        assert manifest.outputs(folder) == content["outcome"]["outputs"]
        assert all(cell["finished"] for cell in content["outcome"]["cells"])
        cells = [c for c in executed(folder)["cells"] if c["cell_type"] == "code"]
        assert {c["metadata"]["papermill"]["status"] for c in cells} == {"completed"}
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def _check_states(series, damaged):
    """What was moved aside says how it ended, and none of it says ok or running."""
    asides = sorted((series.out / "01_chaos").glob("*-*.*"))
    begun = [folder for folder in asides if (folder / "manifest.json").exists()]
    assert all(not (folder / "executed.ipynb").exists() for folder in set(asides) - set(begun))
    outcomes = [manifest_of(folder)["outcome"] for folder in begun]
    assert all(one["exit_code"] == manifest.EXIT_CODES[one["state"]] for one in outcomes)
    counts = Counter(one["state"] for one in outcomes)
    assert counts.keys() <= {"failed", "dead", "timeout", "interrupted"}, counts
    reasons = [one["reason"] for one in outcomes if one["state"] == "failed"]
    lost = [reason for reason in reasons if reason.startswith("gone or not what the run wrote")]
    raised = [reason for reason in reasons if "ZeroDivisionError" in reason]
    full = [reason for reason in reasons if "File too large" in reason]
    assert len(lost) == damaged > 0
    assert 0 < len(raised) <= FAULTS["raise"] and 0 < len(full) <= FAULTS["quota"]
    assert len(lost) + len(raised) + len(full) == len(reasons), set(reasons)
    assert counts["dead"] > 0 and counts["timeout"] >= 1
