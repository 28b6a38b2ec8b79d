"""Folders, files and moments that no one plans for: nothing is lost, and messages are exact."""

import fcntl
import json
import math
import os
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from tiny_notebook import build
from tiny_series import measured, pretend, runs

from lab import doctor, manifest, paths, runner
from lab.runner import claims
from lab.series import clean, formats, locks, plan, records, status, verify


@pytest.fixture
def series(tmp_path):
    build(tmp_path / "01_a.ipynb")
    (tmp_path / "s.yaml").write_text(runs(a="grid: {n: [1, 2]}"))
    return plan.load(tmp_path / "s.yaml", tmp_path / "runs")


# Manifests


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not the manifest of a run"),
        ('{"name": "an app"}', "is not the manifest of a run"),
        ('{"identity": {}, "outcome": {"reason": ""}}', "is not the manifest of a run"),
        ('{"identity": {}, "outcome": {}, "format": 2}', "has format 2, wanted 1: read it with"),
    ],
)
def test_a_manifest_of_something_else_or_of_another_format_is_no_run(series, text, message):
    run, _ = series.runs.values()
    folder = pretend(run)
    (folder / manifest.NAME).write_text(text)
    with pytest.raises(ValueError, match=message):
        manifest.read(folder)
    assert [one.state for one in status.read(series)] == ["not run", "not run"]


@pytest.mark.parametrize(
    ("group", "key"),
    [("identity", key) for key in ("id", "notebook", "parameters", "hashed")]
    + [("outcome", key) for key in ("state", "clock", "runner", "outputs")],
)
def test_a_manifest_that_lacks_what_every_run_has_blocks_nobody(series, group, key):
    one, two = series.runs.values()
    folder, _ = pretend(one), pretend(two)
    content = manifest.read(folder)
    del content[group][key]
    manifest.write(folder, content)
    with pytest.raises(ValueError, match="is not the manifest of a run: something is missing"):
        manifest.read(folder)
    assert [found.state for found in status.read(series)] == ["not run", "ok"]
    assert [records.decide(run, records.read([run])).action for run in (one, two)] == [
        "run",
        "skip",
    ]
    assert clean.leftovers(series.out) == []


def test_a_file_named_like_a_run_folder_disturbs_nobody(series):
    run, _ = series.runs.values()
    folder = pretend(run)
    (run.parent / f"notes-{run.id[:8]}").write_text("by hand")
    assert [one.state for one in status.read(series)] == ["ok", "not run"]
    assert claims.finished_run(run.parent, run.id) == folder


# Cleaning


def test_clean_touches_nothing_that_a_link_leads_to(series, tmp_path):
    run, _ = series.runs.values()
    pretend(run, "failed")
    shutil.move(run.parent, tmp_path / "kept")
    series.out.mkdir(exist_ok=True)
    run.parent.symlink_to(tmp_path / "kept")
    failed = next((tmp_path / "kept").iterdir())
    assert clean.leftovers(series.out) == []
    (series.out / "02_b").mkdir()
    (series.out / "02_b" / failed.name).symlink_to(failed)
    assert clean.leftovers(series.out) == []


@pytest.mark.parametrize("name", ["photos-20240101", "app-0123abcd"])
@pytest.mark.parametrize("file", ["holiday.jpg", "manifest.json"])
def test_clean_touches_no_folder_that_only_looks_like_a_run(tmp_path, name, file):
    folder = tmp_path / "2024" / name
    folder.mkdir(parents=True)
    (folder / file).write_text('{"name": "an app"}')
    assert clean.leftovers(tmp_path) == []


def test_clean_finds_a_run_whose_manifest_is_damaged_or_was_never_written(series):
    one, two = series.runs.values()
    damaged = pretend(one, table=measured(1.0))
    (damaged / manifest.LOG).write_text("a line\n")
    (damaged / manifest.NAME).write_text("{")
    early = one.parent / f"a-{two.id[:8]}"
    early.mkdir()
    (early / manifest.LOCK).write_text("reserve")
    assert {one.folder for one in clean.leftovers(series.out)} == {damaged, early}


def test_clean_leaves_a_finished_run_of_another_format(series):
    run, _ = series.runs.values()
    folder = pretend(run, table=measured(1.0))
    (folder / manifest.LOG).write_text("a line\n")
    manifest.write(folder, manifest.read(folder) | {"format": 2})
    assert clean.leftovers(series.out) == []


def test_clean_leaves_a_run_that_says_it_is_going_on_on_another_host(series):
    run, _ = series.runs.values()
    pretend(run, "running", runner={"pid": 1, "host": "elsewhere"})
    assert clean.leftovers(series.out) == []


def test_clean_deletes_nothing_that_was_taken_up_since_it_was_listed(series):
    run, _ = series.runs.values()
    pretend(run, "failed")
    (listed,) = clean.leftovers(series.out)
    listed.folder.rename(f"{listed.folder}.1")
    finished = pretend(run, "ok", table=measured(1.0))
    assert finished == listed.folder
    with pytest.raises(ValueError, match="was taken up meanwhile; nothing in it was deleted"):
        clean.delete(listed)
    assert (finished / "results.parquet").is_file()


def test_clean_wants_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no folder of runs at .*rnus"):
        clean.leftovers(tmp_path / "rnus")


# Locks


def test_a_sweep_is_seen_even_before_its_lock_file_says_who_it_is(tmp_path, monkeypatch):
    """The moment between locking the file and writing it, held still."""
    seen = []
    dumps = json.dumps

    def looking(content):
        seen.append(locks.sweeping(tmp_path))
        with (tmp_path / locks.FOLDER / manifest.LOCK).open() as queue:
            with pytest.raises(BlockingIOError):  # so no other sweep reads the file yet
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return dumps(content)

    monkeypatch.setattr(locks.json, "dumps", looking)
    with locks.swept(tmp_path, "s", ""):
        pass
    assert seen == [True]


def test_a_lock_file_that_nobody_holds_may_say_anything(tmp_path):
    (tmp_path / locks.FOLDER).mkdir()
    (tmp_path / locks.FOLDER / "s-whole.json").write_text("{")
    assert not locks.sweeping(tmp_path)
    with locks.swept(tmp_path, "s", ""):
        assert locks.sweeping(tmp_path)


def test_a_read_only_folder_is_refused_with_its_name(tmp_path):
    tmp_path.chmod(0o555)
    account = os.geteuid()
    try:
        if account == 0:  # who may write everywhere
            os.seteuid(65534)
        with pytest.raises(PermissionError, match=str(tmp_path)), locks.swept(tmp_path, "s", ""):
            pass
    finally:
        os.seteuid(account)
        tmp_path.chmod(0o755)


# Verification


def stored(tmp_path, before, after, name="t.parquet"):
    for folder, frame in (("old", before), ("new", after)):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / name
        frame.to_parquet(path) if path.suffix == ".parquet" else path.write_text(frame)
    return verify.differences(tmp_path / "old", tmp_path / "new", name, 0.0)


def test_verify_sees_an_index_lists_and_large_whole_numbers(tmp_path):
    def table(index=(1, 2), lists=((1.0, 2.0), (3.0,)), whole=(2**60, 1)):
        columns = {"lists": list(map(list, lists)), "whole": list(whole)}
        return pd.DataFrame(columns, index=pd.Index(index, name="place"))

    assert stored(tmp_path, table(), table()) == []
    for other, column in [
        (table(index=(1, 3)), "place"),
        (table(lists=((1.0, 2.0), (4.0,))), "lists"),
        (table(whole=(2**60 + 1, 1)), "whole"),
    ]:
        (line,) = stored(tmp_path, table(), other)
        assert f", {column}: " in line


def test_verify_does_not_take_a_text_for_a_gap(tmp_path):
    assert stored(tmp_path, "a,b\nx,1\n", "a,b\nx,1\n", "t.csv") == []
    assert stored(tmp_path, "a,b\nNA,1\n", "a,b\n,1\n", "t.csv") != []
    assert stored(tmp_path, "a,b\n,0.5\n", "a,b\n,0.5\n", "t.csv") == []


@pytest.mark.parametrize("tolerance", [-1, math.nan, math.inf])
def test_a_tolerance_that_says_nothing_is_refused(tmp_path, tolerance):
    with pytest.raises(ValueError, match="a tolerance is 0 or positive and finite"):
        verify.verify(tmp_path, tolerance=tolerance)


def test_verify_tells_of_a_table_that_was_not_there_before(series, tmp_path, monkeypatch):
    run, _ = series.runs.values()
    folder = pretend(run, table=measured(1.0))
    again = tmp_path / "again"

    def repeated(*_, **__):
        shutil.copytree(folder, again)
        pd.DataFrame({"x": [1]}).to_csv(again / "more.csv")
        content = manifest.read(again)
        content["outcome"]["outputs"] = manifest.outputs(again)
        manifest.write(again, content)
        return runner.Run("ok", "", again, run.id)

    monkeypatch.setattr(runner, "run", repeated)
    assert verify.verify(folder).differences == ["more.csv: was not written before"]


# Formats


class Tags(HTMLParser):
    """Every opening tag of a page with its attributes, and its texts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


HOSTILE = "<script>x</script> </td> & " + "long " * 20


def test_the_page_of_a_table_is_accessible_whole_and_asks_for_nothing(tmp_path):
    table = pd.DataFrame({"<th>": [HOSTILE, None], "value": [np.nan, 1.5], "low": [np.nan, 1.0],
                          "high": [np.nan, 2.0]})  # fmt: skip
    formats.write(table, tmp_path / "t.html", "a & <b>")
    page = Tags((tmp_path / "t.html").read_text())
    names = [tag for tag, _ in page.tags]
    assert [attributes.get("scope") for tag, attributes in page.tags if tag == "th"] == ["col"] * 2
    assert names.count("caption") == names.count("main") == 1 and "script" not in names
    assert page.tags[0] == ("html", {"lang": "en"}) and "a & <b>" in page.texts
    assert HOSTILE.strip() in page.texts and "nan" not in "".join(page.texts)
    assert not [a for _, a in page.tags if a.keys() & {"src", "href"}]


def test_what_was_set_keeps_its_digits_and_what_was_measured_has_four():
    table = pd.DataFrame({"parameter.rate": [0.123456, 1e-5], "value": [0.123456, 1e-5]})
    shown = formats.shown(table)
    assert shown["parameter.rate"].tolist() == ["0.123456", "1e-05"]
    assert shown["value"].tolist() == ["0.1235", "1e-05"]


def test_no_text_breaks_a_row_of_latex(tmp_path):
    table = pd.DataFrame({"a^b": ["[1, 2]", "one\n\ntwo", r"50% \input{x} ~#$&_"]})
    formats.write(table, tmp_path / "t.tex", "10% of_it")
    latex = (tmp_path / "t.tex").read_text()
    assert r"\caption{10\% of\_it}" in latex and r"a\textasciicircum{}b" in latex
    assert "\n{}[1, 2] \\\\\none two \\\\\n" in latex
    assert r"50\% \textbackslash{}input\{x\} \textasciitilde{}\#\$\&\_ \\" in latex


# The doctor


def test_the_doctor_tells_when_runs_cannot_be_locked(monkeypatch):
    assert doctor._locks().state == "ok"
    monkeypatch.setattr(doctor.fcntl, "flock", lambda *_: None)
    assert doctor._locks().state == "missing" and "keeps nobody out" in doctor._locks().line

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(doctor.fcntl, "flock", unsupported)
    assert "Operation not supported -> mount it with flock" in doctor._locks().line


def test_the_doctor_names_changed_data_low_limits_and_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    assert doctor._data().state == "missing" and "checkout" in doctor._data().cure
    (tmp_path / "a").write_text("changed")
    files = {"a": {"sha256": "0"}, "gone": {"sha256": "0"}}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    assert doctor._data().found == "gone or changed: a, gone"
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda limit: (256, 256))
    assert doctor._limits().cure == "ulimit -n 1024; ulimit -u 1024"
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda limit: (-1, -1))
    assert doctor._limits().state == "ok"
    monkeypatch.setattr(doctor, "ROOM", 1 << 50)
    assert doctor._memory().state == "note"


def test_a_run_read_in_the_moment_its_folder_goes_is_no_run(series):
    run, _ = series.runs.values()
    assert records.record(run.parent / "a-0123abcd") is None
