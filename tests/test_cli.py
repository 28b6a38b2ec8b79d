import json
import shutil
import subprocess
import sys
import time

import pytest
from tiny_notebook import LAB, PARAMETERS, build, folder_of, lab

from lab import cli, doctor, paths

HEAVY = {"torch", "umap", "ray", "mteb", "transformers", "papermill", "pandas", "matplotlib"}


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    build(tmp_path / "00_start.ipynb", title="# 00 · Where do I start?\n\nClaim: none  \nTime: 3 s")
    build(tmp_path / "01_pooling.ipynb", profiles={"gpu": {"n": 9}})
    build(tmp_path / "01_pooled.ipynb")
    return tmp_path


def call(monkeypatch, capsys, *words):
    """Exit code, standard output and standard error of `lab` run in this process."""
    monkeypatch.setattr(sys, "argv", ["lab", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output = capsys.readouterr()
    return stopped.value.code, output.out, output.err


@pytest.mark.parametrize("module", ["lab", "lab.cli", "lab.runner", "lab.doctor", "lab.manifest"])
def test_trap_24_importing_pulls_in_nothing_heavy(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_help_and_list_answer_within_a_second(words):
    def seconds():
        begun = time.perf_counter()
        assert lab(*words).returncode == 0
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(4)) < 1


@pytest.mark.parametrize(
    "words",
    [
        ["--bogus"],
        ["run"],
        ["run", "--bogus"],
        ["run", "x.ipynb", "--timeout", "soon"],
        ["run", "missing.ipynb"],
        ["run", "no_such_notebook"],
        ["nonsense"],
        ["params", "a.py"],
        [],
    ],
)
def test_trap_11_a_usage_error_exits_with_1(words):
    done = lab(*words)
    assert done.returncode == 1
    assert not words or len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_list_shows_number_question_claim_and_time(notebooks, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "list")
    assert code == 0
    (row,) = (line for line in out.splitlines() if "00_start" in line)
    assert "Where do I start?" in row and "none" in row and "3 s" in row


@pytest.mark.parametrize(
    ("asked", "stem"),
    [("00", "00_start"), ("0", "00_start"), ("01_pooli", "01_pooling"), ("01_pooled", "01_pooled")],
)
def test_a_notebook_is_found_by_number_or_name(notebooks, asked, stem):
    assert cli.find(asked) == notebooks / f"{stem}.ipynb"


def test_a_name_that_fits_two_or_none_is_refused(notebooks):
    with pytest.raises(ValueError, match="fits 01_pooled, 01_pooling"):
        cli.find("01")
    with pytest.raises(LookupError, match="did you mean '01_pooling'"):
        cli.find("01_poling")


def test_params_shows_type_default_profile_and_help(notebooks, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "params", "01_pooling")
    (row,) = (line for line in out.splitlines() if "how many" in line)
    assert code == 0 and [word.strip() for word in row.split("│")[1:-1]] == [
        "n",
        "int",
        "3",
        "9",
        "how many",
    ]


def test_params_as_json_is_the_schema_and_the_profiles(notebooks, monkeypatch, capsys):
    _, out, _ = call(monkeypatch, capsys, "params", "01_pooling", "--json")
    found = json.loads(out)
    assert found["schema"]["properties"]["n"]["type"] == "integer"
    assert found["profiles"]["gpu"] == {"n": 9}


def test_a_type_in_square_brackets_is_shown_as_it_is(tmp_path, monkeypatch, capsys):
    book = build(tmp_path / "a.ipynb", parameters='xs: list[str] = ["a"]', reads="print(xs)")
    assert "list[str]" in call(monkeypatch, capsys, "params", book)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "alhpa=3"], "did you mean 'alpha'"),
        (["-p", "n=0.8"], "parameter 'n' wants int, came 0.8 (float)"),
        (["-p", "n"], "wanted -p name=value"),
        (["-p", "out_dir=../../x"], "set by the runner"),
        (["--profile", "gpu"], "no profile named 'gpu'"),
        (["--name", "a/../../b"], "letters, digits"),
    ],
)
def test_trap_3_a_wrong_setting_is_refused_in_one_line(tmp_path, words, message):
    book = build(
        tmp_path / "01_a.ipynb",
        parameters=f"{PARAMETERS}\nalpha: float = 1.0",
        reads="print(n, alpha, out_dir)",
    )
    done = lab("run", book, "--out", tmp_path / "runs", *words)
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_a_run_prints_its_progress_folder_and_end_and_is_skipped_the_second_time(tmp_path):
    book = build(tmp_path / "01_a.ipynb", profiles={"gpu": {"n": 9}})
    words = ["run", book, "--out", tmp_path / "runs", "--profile", "gpu"]
    first, second = lab(*words), lab(*words)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    lines = first.stdout.splitlines()
    assert "cell 3/3 started: cell 3 [cell-2]" in lines[-3] and lines[-1] == "ok"
    assert folder_of(first).name.startswith("gpu-") and folder_of(first) == folder_of(second)
    assert second.stdout.splitlines()[-1].startswith("skipped: a finished run is in")
    assert first.stderr == second.stderr == ""


def test_in_a_terminal_the_progress_is_one_line_that_goes_away(tmp_path):
    if not shutil.which("script"):
        pytest.skip("util-linux's script makes the terminal; ends when it is installed")
    book = build(tmp_path / "01_a.ipynb")
    command = " ".join([*LAB, "run", str(book), "--out", str(tmp_path / "runs")])
    typescript = ["script", "-qec", command, "/dev/null"]
    done = subprocess.run(typescript, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "ok"
    assert "started" not in done.stdout and "\x1b[2K" in done.stdout


def test_an_export_of_what_is_no_run_folder_is_refused(tmp_path):
    done = lab("export", tmp_path, "--out", tmp_path / "site")
    assert done.returncode == 1 and not (tmp_path / "site").exists()


def test_doctor_has_one_line_a_finding_each_trouble_with_a_cure():
    findings = doctor.examine()
    subjects = [finding.subject for finding in findings]
    assert subjects[:3] == ["python", "kernel", "packages"] and "runs" in subjects
    for finding in findings:
        assert len(finding.line.splitlines()) == 1
        assert finding.state == "ok" or finding.cure


def test_doctor_names_the_package_that_is_not_as_pinned(tmp_path, monkeypatch):
    (tmp_path / "constraints.txt").write_text("papermill==0.0.1\nnosuchpackage==1\n")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    finding = next(f for f in doctor.examine() if f.subject == "packages")
    assert (
        finding.state == "note" and "papermill" in finding.found and "wanted 0.0.1" in finding.found
    )


def test_doctor_names_a_mirror_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "gone"))
    finding = next(f for f in doctor.examine() if f.subject == "mirror")
    assert finding.state == "missing" and "gone" in finding.line
