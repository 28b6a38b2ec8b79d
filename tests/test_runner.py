"""Runs of real notebooks with real kernels, through the command line or `runner.run`."""

import hashlib
import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tiny_notebook import LAB, build, executed, folder_of, lab, manifest_of, printed
from tiny_series import processes_of, whole

from lab import atomic, manifest, runner
from lab.runner import parameters

SECRET = 'a"b\'c\\ """ \n\t{n} $HOME `id`; __import__("os").mkdir("pwned") # é漢'
WIDGET = """from IPython.display import display
view = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "w"}
display(view, raw=True)"""
APART = "import subprocess; _ = subprocess.Popen(['sleep', '300'], start_new_session=True)"
CASES = {
    "failed": (["print('before')", "1 / 0", "print('never')"], []),
    "dead": (["print('before')", "import os; os.kill(os.getpid(), 9)", "print('never')"], []),
    "timeout": (
        [f"print('before', flush=True)\n{APART}\nimport time; time.sleep(100)"],
        ["--timeout", "25"],
    ),
    "exits": (["import sys; sys.exit(0)", "print('never')"], []),
    "magic": (["%nosuchmagic"], []),
    "process_killed": (
        [f"{APART}\nimport os; os.kill(os.getppid(), 9)", "import time; time.sleep(60)"],
        [],
    ),
    "one": ([f"{APART}\nopen('where.txt', 'w').write(str(n))"], ["-p", "n=1", "--threads", "1"]),
    "two": (["open('where.txt', 'w').write(str(n))"], ["-p", "n=2", "--threads", "2"]),
    "environment": (
        [
            "import json, os, sys\njson.dump(dict(os.environ), open('environment.json', 'w'))",
            "print(sys.executable)\nos.write(2, b'a line on stderr')\n"
            "print(os.path.abspath(out_dir))",
        ],
        ["--threads", "1"],
    ),
    "widget": ([WIDGET], []),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every case, run once, four at a time: {name: (finished process, run folder)}."""
    root = tmp_path_factory.mktemp("cases")
    books = {name: build(root / f"{name}.ipynb", *cells) for name, (cells, _) in CASES.items()}

    def run(name):
        return lab("run", books[name], "--out", root / "runs", *CASES[name][1])

    with ThreadPoolExecutor(4) as pool:
        finished = dict(zip(CASES, pool.map(run, CASES), strict=True))
    return {name: (process, folder_of(process)) for name, process in finished.items()}


@pytest.mark.parametrize(
    ("name", "state", "code"),
    [
        ("one", "ok", 0),
        ("failed", "failed", 2),
        ("dead", "dead", 3),
        ("timeout", "timeout", 4),
        ("exits", "failed", 2),
        ("magic", "failed", 2),
        ("process_killed", "dead", 3),
    ],
)
def test_state_exit_code_and_last_line_agree(done, name, state, code):
    process, folder = done[name]
    outcome = manifest_of(folder)["outcome"]
    assert (outcome["state"], outcome["exit_code"], process.returncode) == (state, code, code)
    assert process.stdout.splitlines()[-1].startswith(state)
    assert outcome["reason"].splitlines() == ([outcome["reason"]] if outcome["reason"] else [])


def test_the_last_line_names_the_failing_cell_and_the_reason(done):
    last = done["failed"][0].stdout.splitlines()[-1]
    assert last == "failed in cell 5 [cell-4] `1 / 0`: ZeroDivisionError: division by zero"
    assert manifest_of(done["failed"][1])["outcome"]["stopped_in"]["number"] == 5


def test_trap_1_a_dead_kernel_leaves_no_cell_completed_that_never_ran(done):
    _, folder = done["dead"]
    cells = {cell["id"]: cell for cell in executed(folder)["cells"]}
    status = {
        key: cell["metadata"].get("papermill", {}).get("status") for key, cell in cells.items()
    }
    assert (status["cell-3"], status["cell-4"], status["cell-5"]) == (
        "completed",
        "failed",
        "pending",
    )
    assert "signal SIGKILL" in cells["lab-error"]["source"]
    order = list(cells)
    assert order[0] == "lab-error" and order.index("lab-error-anchor") == order.index("cell-4") - 1
    assert executed(folder)["metadata"]["papermill"]["exception"] is True
    assert manifest_of(folder)["outcome"]["signal"] == signal.SIGKILL
    assert "before" in printed(folder)
    nbformat.validate(nbformat.read(folder / "executed.ipynb", 4))


def test_a_failed_notebook_has_papermills_banner_and_what_was_printed_before(done):
    first = executed(done["failed"][1])["cells"][0]
    assert "An Exception was encountered" in "".join(first["source"])
    assert printed(done["failed"][1]) == "before\n"


def test_a_run_out_of_time_keeps_what_was_printed(done):
    assert "before" in printed(done["timeout"][1])
    assert manifest_of(done["timeout"][1])["outcome"]["reason"] == "it took longer than 25 s"


@pytest.mark.parametrize("name", ["one", "timeout", "process_killed"])
def test_no_process_outlives_its_run_even_in_a_session_of_its_own(done, name):
    assert processes_of(str(done[name][1])) == []


def test_a_cell_that_exits_quietly_is_no_success(done):
    assert "sys.exit" in manifest_of(done["exits"][1])["outcome"]["reason"]


@pytest.mark.parametrize(("name", "n"), [("one", 1), ("two", 2)])
def test_trap_9_relative_files_land_in_the_runs_own_folder(done, name, n):
    assert (done[name][1] / "where.txt").read_text() == str(n)


def test_trap_8_nothing_warns_about_tcp_and_runs_at_once_all_end(done):
    texts = [process.stdout + process.stderr for process, _ in done.values()]
    for name in ("log.txt", "executed.ipynb"):
        texts += [(folder / name).read_text() for _, folder in done.values()]
    assert not any("over TCP" in text for text in texts)


def test_trap_10_papermills_input_path_is_a_path(done):
    for name, (_, folder) in done.items():
        assert Path(executed(folder)["metadata"]["papermill"]["input_path"]).name == f"{name}.ipynb"


def test_trap_16_no_widget_view_or_state_is_in_an_executed_notebook(done):
    content = executed(done["widget"][1])
    (output,) = (o for cell in content["cells"] for o in cell.get("outputs", []))
    assert output["data"] == {"text/plain": ["w"]}
    assert "widgets" not in content["metadata"]


@pytest.mark.parametrize(("name", "threads"), [("one", 1), ("two", 2), ("environment", 1)])
def test_trap_22_the_threads_in_the_manifest_are_those_asked_for(done, name, threads):
    assert manifest_of(done[name][1])["environment"]["threads"] == threads


def test_the_kernel_sees_the_batch_environment_and_this_interpreter(done):
    _, folder = done["environment"]
    seen = json.loads((folder / "environment.json").read_text())
    wanted = {"LAB_MODE": "batch", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    assert {key: seen[key] for key in wanted} == wanted
    assert seen["LAB_RUN_DIR"] == str(folder)
    assert "matplotlib_inline" in seen["MPLBACKEND"]
    assert printed(folder).splitlines()[0] == manifest_of(folder)["environment"]["executable"]
    assert str(folder) in printed(folder)  # out_dir


def test_the_log_has_a_line_a_cell_and_the_tail_of_stderr(done):
    log = (done["environment"][1] / "log.txt").read_text()
    assert log.count(" started: ") == 5
    assert "stderr | a line on stderr" in log and log.splitlines()[-1].endswith(" ok")


def test_the_table_of_parameters_is_below_the_title(done):
    cell = executed(done["two"][1])["cells"][1]
    assert cell["metadata"]["tags"] == ["lab-parameters"]
    assert "| n | **`2`** | int | `3` | how many |" in "".join(cell["source"])


def test_the_manifest_has_every_group_and_the_hash_of_every_output(done):
    _, folder = done["two"]
    content = manifest_of(folder)
    assert content["identity"]["parameters"] == {"n": {"value": 2, "default": False}}
    assert content["identity"]["id"].startswith(folder.name.rpartition("-")[2])
    assert set(content["code"]) == {"commit", "dirty", "diff"}
    assert content["environment"]["packages"]["papermill"]
    cells = content["outcome"]["cells"]
    assert [cell["number"] for cell in cells] == [2, None, 3, 4]
    assert all(cell["started"] <= cell["finished"] for cell in cells)
    here = {"executed.ipynb", "where.txt"} | ({"code.diff"} if content["code"]["diff"] else set())
    assert set(content["outcome"]["outputs"]) == here
    digest = hashlib.sha256((folder / "where.txt").read_bytes()).hexdigest()
    assert content["outcome"]["outputs"]["where.txt"] == digest
    assert not list(folder.glob(".lock")) and not list(folder.glob("inputs.jsonl"))


# Stopping


def start(book, runs, marker):
    """A `lab run` that has reached the cell that writes ``marker`` = pid of the kernel."""
    process = subprocess.Popen(
        [*LAB, "run", str(book), "--out", str(runs)], stdout=subprocess.PIPE, text=True
    )
    wait_for(marker.exists, 60)
    return process, int(marker.read_text())


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def gone(pid):
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def sleeper(tmp_path):
    marker = tmp_path / "marker"
    cell = f"""import os, pathlib, time
{APART}
print("before", flush=True)
pathlib.Path({str(marker)!r} + ".new").write_text(str(os.getpid()))
os.rename({str(marker)!r} + ".new", {str(marker)!r})
time.sleep(100)"""
    return build(tmp_path / "sleeper.ipynb", cell, "print('never')"), marker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_trap_2_a_stopped_runner_leaves_the_print_the_state_and_no_kernel(tmp_path, number):
    book, marker = sleeper(tmp_path)
    process, kernel = start(book, tmp_path / "runs", marker)
    again = lab("run", book, "--out", tmp_path / "runs")
    assert again.returncode == 1 and "the same run is going on" in again.stderr
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    folder = Path(output.splitlines()[-2])
    assert process.returncode == 5
    assert output.splitlines()[-1].startswith("interrupted in cell 4 [cell-3]")
    assert manifest_of(folder)["outcome"]["state"] == "interrupted"
    assert manifest_of(folder)["outcome"]["signal"] == number
    assert "before" in printed(folder) and gone(kernel) and not processes_of(str(folder))
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_trap_2_a_killed_runner_leaves_the_print_the_state_and_no_kernel(tmp_path):
    book, marker = sleeper(tmp_path)
    process, kernel = start(book, tmp_path / "runs", marker)
    process.kill()
    process.communicate()
    (folder,) = (path for path in (tmp_path / "runs" / "sleeper").iterdir() if path.is_dir())
    wait_for(lambda: manifest_of(folder)["outcome"]["state"] != "running", 20)
    assert manifest_of(folder)["outcome"]["state"] == "interrupted"
    assert "before" in printed(folder) and gone(kernel)
    wait_for(lambda: not processes_of(str(folder)), 10)


# Run once, and never over what is there


def tree(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run whose notebook has read a file and been given a hostile text."""
    root = tmp_path_factory.mktemp("finished")
    source = root / "source.bin"
    source.write_bytes(b"first")
    cells = (
        "import hashlib, json, pathlib\nfrom lab import manifest",
        f"source = pathlib.Path({str(source)!r})\n"
        "digest = hashlib.sha256(source.read_bytes()).hexdigest()\n"
        "for _ in range(2):\n"
        "    manifest.record_input('dataset', name='d', files={source: digest})",
        "pathlib.Path(out_dir, 'seen.json').write_text(json.dumps([text, sizes]))",
    )
    book = build(
        root / "07_{once}.ipynb",
        *cells,
        parameters="text: str = 'x'\nsizes: tuple[int, ...] = (1,)\nout_dir: str = 'runs'",
        reads="print(len(text), type(sizes).__name__)",
    )
    nb = nbformat.read(book, 4)
    nb.metadata.clear()
    nbformat.write(nb, book)
    options = {"overrides": {"text": SECRET, "sizes": [4, 5]}, "out": root / "runs"}
    return book, source, options, runner.run(book, **options)


def test_trap_7_a_notebook_without_a_kernelspec_is_run(finished):
    *_, run = finished
    assert (run.state, run.exit_code) == ("ok", 0), run.line


def test_a_hostile_text_reaches_the_notebook_as_the_text_it_is(finished):
    book, _, _, run = finished
    assert json.loads((run.folder / "seen.json").read_text()) == [SECRET, [4, 5]]
    assert "tuple" in printed(run.folder)
    assert not list(book.parent.rglob("pwned"))


def test_what_the_notebook_reads_is_in_the_manifest_once(finished):
    _, source, _, run = finished
    digest = hashlib.sha256(b"first").hexdigest()
    known = [{"kind": "dataset", "name": "d", "files": {str(source): digest}}]
    assert manifest_of(run.folder)["inputs"] == known


def test_a_finished_run_is_skipped_and_its_folder_left_as_it_is(finished):
    book, _, options, run = finished
    before = tree(run.folder)
    again = runner.run(book, name="other", **options)
    assert (again.state, again.exit_code, again.folder) == ("skipped", 0, run.folder)
    assert tree(run.folder) == before and len(list(run.folder.parent.glob("*-*"))) == 1


def test_a_changed_markdown_cell_is_the_same_run_and_changed_code_is_another(finished):
    book, _, options, run = finished
    text = book.read_text()
    book.write_text(text.replace("# A question", "# Another question"))
    assert runner.run(book, **options).state == "skipped"
    book.write_text(text.replace("range(2)", "range(3)"))
    values = {"text": SECRET, "sizes": (4, 5)}
    assert manifest.identity(book, values, values)["id"] != run.id
    book.write_text(text)
    assert manifest.identity(book, values, values)["id"] == run.id


def test_force_and_a_changed_input_run_again_and_lose_nothing(finished):
    book, source, options, run = finished
    before = tree(run.folder)
    forced = runner.run(book, force=True, **options)
    assert forced.state == "ok" and forced.folder == run.folder
    assert tree(run.folder.with_name(run.folder.name + ".1")) == before
    source.write_bytes(b"second")
    assert runner.run(book, **options).state == "ok"
    assert tree(run.folder.with_name(run.folder.name + ".1")) == before
    assert run.folder.with_name(run.folder.name + ".2").is_dir()


def test_a_failed_run_is_kept_aside_when_it_is_run_again(done):
    process, folder = done["failed"]
    before = tree(folder)
    again = lab("run", process.args[4], "--out", folder.parent.parent)
    assert again.returncode == 2 and folder_of(again) == folder
    assert tree(folder.with_name(folder.name + ".1")) == before


# Refused, and nothing written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": {"alhpa": 3}}, "no parameter named 'alhpa'"),
        ({"overrides": {"n": "0.8"}}, "parameter 'n' wants int"),
        ({"overrides": {"out_dir": "../../x"}}, "set by the runner"),
        ({"profile": "gpu"}, "no profile named 'gpu'"),
        ({"name": "../x"}, "letters, digits"),
        ({"name": ".x"}, "letters, digits"),
        ({"name": "é"}, "letters, digits"),
        ({"name": "a" * 81}, "at most 80"),
        ({"threads": -1}, "must be positive"),
        ({"timeout": 0}, "must be positive"),
    ],
)
def test_traps_3_and_4_what_is_refused_leaves_no_run_folder(tmp_path, options, message):
    book = build(tmp_path / "01_a.ipynb")
    with pytest.raises((ValueError, LookupError), match=message):
        runner.run(book, out=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["...ipynb", "..ipynb", ".sweeps.ipynb"])
def test_a_notebook_whose_name_would_lead_out_of_the_runs_folder_is_refused(tmp_path, name):
    book = build(tmp_path / "01_a.ipynb").rename(tmp_path / name)
    with pytest.raises(ValueError, match="may not begin with a dot"):
        runner.run(book, out=tmp_path / "deep" / "runs")
    assert not (tmp_path / "deep").exists()


def test_a_runs_folder_that_cannot_be_made_is_an_error_and_nothing_is_lost(tmp_path):
    book = build(tmp_path / "01_a.ipynb")
    (tmp_path / "file").write_text("kept")
    refused = lab("run", book, "--out", tmp_path / "file")
    assert refused.returncode == 1 and str(tmp_path / "file") in refused.stderr
    assert (tmp_path / "file").read_text() == "kept"


def test_a_run_under_which_the_code_was_changed_is_not_ok(tmp_path, monkeypatch):
    around = manifest.surroundings()
    found = [around, around | {"data": "other", "lab": "other"}]
    monkeypatch.setattr(manifest, "surroundings", lambda: found.pop(0))
    run = runner.run(build(tmp_path / "01_a.ipynb"), out=tmp_path / "runs", threads=1)
    assert (run.state, run.exit_code) == ("failed", 2)
    assert run.reason == "data, lab code changed while the run was going on; run it again"
    assert manifest_of(run.folder)["outcome"]["state"] == "failed"


def test_a_full_disk_fails_the_run_and_the_manifest_says_so(tmp_path):
    # A limit on file sizes stands for the full disk: the same error on the same calls.
    book = build(tmp_path / "01_a.ipynb", "print('before')", "print('x' * 2_000_000)")
    command = f'ulimit -f 1000; exec {" ".join(LAB)} run "$0" --out "$1"'
    done = subprocess.run(
        ["bash", "-c", command, book, tmp_path / "runs"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    folder = folder_of(done)
    assert done.returncode == 2 and "File too large" in done.stdout.splitlines()[-1]
    assert manifest_of(folder)["outcome"]["state"] == "failed"
    assert printed(folder) == "before\n"  # the last notebook that was whole
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_no_room_for_the_manifest_starts_nothing_and_leaves_nothing(tmp_path):
    book = build(tmp_path / "01_a.ipynb")
    command = f'ulimit -f 8; exec {" ".join(LAB)} run "$0" --out "$1"'
    done = subprocess.run(
        ["bash", "-c", command, book, tmp_path / "runs"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1 and "File too large" in done.stderr
    assert not list((tmp_path / "runs" / "01_a").glob("*-*"))


# The manifest's own functions


def test_a_manifest_is_replaced_whole_or_not_at_all(tmp_path):
    first = whole()
    manifest.write(tmp_path, first)
    with pytest.raises(UnicodeEncodeError):
        atomic.write(tmp_path / "manifest.json", "half of it, then no text: \ud800")
    assert manifest.read(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_outside_of_a_run_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAB_RUN_DIR", raising=False)
    manifest.record_input("dataset", name="x")
    assert not list(tmp_path.iterdir())


def test_the_diff_holds_changed_and_untracked_files_and_leaves_the_repository_alone(
    tmp_path, monkeypatch
):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    folder = tmp_path / "runs"
    folder.mkdir()
    (tmp_path / ".gitignore").write_text("runs/\n")
    (tmp_path / "a.py").write_text("first\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    monkeypatch.setattr(manifest.paths, "ROOT", tmp_path)
    clean = manifest.code(folder)
    assert clean == {"commit": git("rev-parse", "HEAD").strip(), "dirty": False, "diff": None}
    (tmp_path / "a.py").write_text("second\n")
    (tmp_path / "new.py").write_text("third\n")
    before, objects = git("status", "--porcelain"), sorted((tmp_path / ".git").rglob("objects/*/*"))
    assert manifest.code(folder)["dirty"] is True
    diff = (folder / "code.diff").read_text()
    assert "-first\n+second" in diff and "new.py" in diff and "+third" in diff
    assert git("status", "--porcelain") == before
    assert sorted((tmp_path / ".git").rglob("objects/*/*")) == objects


# The notebooks' own files


def test_trap_25_a_notebook_run_and_stripped_is_the_committed_bytes(tmp_path):
    book = build(tmp_path / "01_a.ipynb", "print(n)", profiles={"gpu": {"n": 9}})
    notebook = nbformat.read(book, 4)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["kernelspec"] = kernel
    nbformat.write(notebook, book)
    keys = "metadata.papermill cell.metadata.papermill cell.metadata.execution"
    strip = ["nbstripout", "--keep-id", "--extra-keys", f"{keys} metadata.language_info"]
    strip[0] = str(Path(LAB[0]).parent / strip[0])
    subprocess.run([*strip, str(book)], check=True)
    committed = book.read_bytes()
    notebook = nbformat.read(book, 4)
    NotebookClient(notebook, kernel_name="python3", startup_timeout=180).execute()
    nbformat.write(notebook, book)
    assert book.read_bytes() != committed
    subprocess.run([*strip, str(book)], check=True)
    assert book.read_bytes() == committed
    assert parameters.read(book).profiles["gpu"] == {"n": 9}


def test_a_run_in_a_thread_needs_no_signal_handlers(tmp_path):
    book = build(tmp_path / "01_a.ipynb", "import os; os.getpid()")
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(runner.run, book, out=tmp_path / "runs", threads=1).result()
    assert run.state == "ok" and signal.getsignal(signal.SIGTERM) is before
    assert Path.cwd() != run.folder
