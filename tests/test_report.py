"""A user's file under a model: every defect by its row, health, and a page that runs nothing."""

import gzip
import json
import re
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bs4 import BeautifulSoup
from tiny_notebook import lab

from lab import cli, data, models
from lab.anisotropy import Rows
from lab.explore.your_data import YourData
from lab.models.checkpoints import byte_tokenizer, random_model, tiny_config
from lab.report import defects, example, findings, judge, labels, lines, page
from lab.report import survey as surveys
from lab.report.health import examine
from lab.report.survey import survey

EVIL = "<img src=x onerror=window.pwned=1></script><script>window.pwned=1</script> $x$ of a text"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with one layer of width 16 over bytes, which reads 400 of them."""
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny_config(
        "bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    random_model(config, seed=0).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """200 real texts in a CSV with defects, and which defects: the oracle."""
    shipped = data.load("debian-sections", "test")
    texts = [shipped.texts[at] for at in shipped.frame["text"]]
    pairs = zip(texts, shipped.frame["label"], strict=True)
    sound = [pair for pair in pairs if pair[0].isascii() and not judge.cell(pair[0])][:200]
    path = tmp_path_factory.mktemp("example") / "texts.csv"
    rng = np.random.default_rng(7)
    return path, example.write(path, *map(list, zip(*sound, strict=True)), rng=rng)


@pytest.fixture(scope="module")
def health(written, tiny):
    model = models.load(tiny, max_length=64)
    return examine(survey(written[0], label="label"), model)


def csv(path, *lines, head="text,label"):
    path.write_bytes("\n".join([head, *lines, ""]).encode("utf-8", "surrogateescape"))
    return path


def sentences(n):
    return [f"the sentence of number {number} is {number * number}" for number in range(n)]


def test_every_defect_is_named_with_its_row_and_line_and_nothing_else(written):
    path, put = written
    found = survey(path, label="label").defects
    named = set(found[["row", "line", "kind"]].dropna().itertuples(index=False, name=None))
    assert named == set(put.itertuples(index=False, name=None))
    assert len(put) == 15 and "byte-order mark" in found.set_index("kind").loc["file", "detail"]


def test_what_is_said_of_a_row_is_what_is_wrong_with_it(written):
    found = survey(written[0], label="label").defects.groupby("kind")["detail"].agg(list)
    assert all(one.startswith("equals row 1 (line 2 of the file)") for one in found["duplicate"])
    assert all("0xE9 at character 4" in one and "Café, naïve" in one for one in found["encoding"])
    assert "50,000 words" in found["very long"][0] and "U+0007" in found["control characters"][0]
    assert "'Café " in found["damaged characters"][0]
    assert "has 4 cells, the header has 2" in found["ragged"][0]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_jsonl_and_parquet_are_judged_by_the_same_rules(tmp_path, kind):
    texts = [*sentences(14), None, "  ", "NaN", "the sentence of number 3 is 9"]
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        bad = pa.array([*(t and t.encode() for t in texts), b"caf\xe9 au lait"], pa.binary())
        pq.write_table(pa.table({"text": bad.view(pa.string())}), path)
    else:
        lines = [json.dumps({"text": one}).encode() for one in [*texts, "caf\xe9 au lait"]]
        lines[-1] = b'{"text": "caf\xe9 au lait"}'
        path.write_bytes(b"\n".join([*lines, b"{", b'{"text": 3}', b'{"other": "x"}', b"[]", b""]))
    found = survey(path, text="text")
    named = found.defects.set_index("row")["kind"].to_dict()
    same = {15: "missing", 16: "empty", 17: "missing", 18: "duplicate", 19: "encoding"}
    more = {20: "malformed", 21: "not a string", 22: "missing", 23: "malformed"}
    assert named == same | (more if kind == "jsonl" else {})
    assert found.distinct == 14
    assert found.defects["line"].isna().all() == (kind == "parquet")


def test_a_quote_that_never_closes_is_named_where_it_opens_with_the_lines_it_costs(tmp_path):
    first = [f"{one},a" for one in sentences(14)]
    found = survey(csv(tmp_path / "t.csv", *first, '"open,a', "lost,b", "lost,c"), text="text")
    assert found.defects[["kind", "row", "line"]].to_numpy().tolist() == [["malformed", 15, 16]]
    assert "the 3 lines from 16 to 18 are lost" in found.defects["detail"][0]
    assert any(note.startswith("2 more lines are lost") for note in found.notes)
    late = ['"open,a', *(f"{one} again,b" for one in sentences(14)), 'a 5" one,c']
    with pytest.raises(ValueError, match=r"1 of 1 rows can't be read; row 1 \(line 2"):
        survey(csv(tmp_path / "t.csv", *late))
    late[-1] = 'closed at last",c'
    found = survey(csv(tmp_path / "t.csv", *first, *late), text="text").defects
    assert found[["kind", "row"]].to_numpy().tolist() == [["rows in a cell", 15]]
    assert found["detail"][0].startswith("14 lines in a cell")


def test_every_defect_of_a_label_is_listed_beside_those_of_its_text(tmp_path):
    bad = [",", "x,", "a\x07,b\x07", f"{sentences(1)[0]},b"]
    lines = [f"{one},a" for one in sentences(14)]
    found = survey(csv(tmp_path / "t.csv", *lines, *bad), text="text", label="label").defects
    named = sorted(map(tuple, found[["row", "kind"]].to_numpy().tolist()))
    assert named == [(15, "empty"), (15, "no label"), (16, "no label"), (17, "control characters"),
                     (17, "control characters"), (18, "duplicate")]  # fmt: skip
    assert found["detail"].str.startswith("the label: 1 (U+0007)").sum() == 1
    assert found["detail"].str.endswith("its label is 'b', not 'a'").sum() == 1


def test_the_header_is_cut_where_it_gives_most_columns_even_if_quoted(tmp_path):
    lines = [f"{one}, and so on;a" for one in sentences(14)]
    found = survey(csv(tmp_path / "t.csv", *lines, head='"a, b, c";label'), text="a, b, c")
    assert found.distinct == 14 and "separated by ';'" in found.notes[0]
    found = survey(csv(tmp_path / "t.csv", *sentences(14), head='"two\nlines"'))
    assert found.text == "two\nlines" and found.texts["line"][0] == 3


def test_a_file_without_a_header_is_asked_about(tmp_path):
    first, *others = sentences(15)
    notes = survey(csv(tmp_path / "t.csv", *others, head=first)).notes
    assert any("has the file no header?" in note for note in notes)


def test_a_sample_of_a_longer_file_is_fair_and_defects_are_those_of_all_rows(tmp_path):
    path = csv(tmp_path / "t.csv", *sentences(40), "", head="text")
    hits = np.zeros(41)
    for seed in range(300):
        found = survey(path, text="text", most=12, seed=seed)
        hits[found.texts["row"]] += 1
        assert found.sampled and found.defects["row"].tolist() == [41]
    assert (np.abs(hits[1:] - 90) < 5 * np.sqrt(300 * 0.3 * 0.7)).all() and hits.sum() == 3600


def test_without_text_the_only_column_that_looks_like_text_is_taken_and_it_says_so(tmp_path):
    path = csv(tmp_path / "t.csv", *(f"{i},{one}" for i, one in enumerate(sentences(14))),
               head="id,body")  # fmt: skip
    found = survey(path)
    assert found.text == "body" and "'body' was taken" in found.notes[0]
    path = csv(tmp_path / "t.csv", *(f"{one},{one}" for one in sentences(14)), head="title,body")
    with pytest.raises(ValueError, match="'title', 'body' look like text: say which"):
        survey(path)


BAD = {
    "no file at": lambda p: p / "none.csv",
    "files ending in": lambda p: csv(p / "t.xls"),
    "is empty": lambda p: (p / "e.csv").write_bytes(b"\xef\xbb\xbf\n") and p / "e.csv",
    "not UTF-8 but UTF-16": lambda p: (
        (p / "u.csv").write_text("text\na\n", "utf-16") and p / "u.csv"
    ),
    "the header is not UTF-8": lambda p: csv(p / "h.csv", "a", head="t\udce9xt"),
    "two columns are named 'text'": lambda p: csv(p / "d.csv", "a,b", head="text,text"),
    "no column named 'text'; have texte; did you mean 'texte'": lambda p: csv(
        p / "m.csv", "a", head="texte"
    ),
    "0 of 3 rows have a text": lambda p: csv(p / "z.csv", ",", " ,", ",a"),
    r"1 of 30 rows .* duplicate: 29 \(row 2, 3, 4": lambda p: csv(p / "q.csv", *["same,a"] * 30),
    "a report needs 12 or more": lambda p: csv(p / "f.csv", *sentences(5), head="text"),
    "is a folder; a report is of one file": lambda p: (p / "f.csv").mkdir() or p / "f.csv",
    "line 1 can't be read as a header": lambda p: csv(p / "b.csv", "text", "a", head=""),
    "0 of 0 rows have a text": lambda p: csv(p / "h.csv", head="text"),
    "p.parquet: two columns are named 'text'": lambda p: stored(p / "p.parquet", ["text"] * 2),
    "z.jsonl.gz is cut off or damaged after row [1-9]": lambda p: zipped(p / "z.jsonl.gz", -9),
    "z.jsonl.gz can't be read, or is damaged": lambda p: zipped(p / "z.jsonl.gz", 9),
    r"rename the file 'caf\\udce9.csv'": lambda p: csv(p / "caf\udce9.csv", "a"),
    r"have \\x1b\[31m": lambda p: csv(p / "c.csv", "a", head="\x1b[31m"),
}  # fmt: skip


def stored(path, names):
    """A Parquet file with the same texts under every name."""
    pq.write_table(pa.table([pa.array(sentences(14))] * len(names), names=names), path)
    return path


def zipped(path, end):
    """A JSONL file in gzip, cut off."""
    lines = (json.dumps({"text": f"{one} {hash(one)}"}) for one in sentences(5000))
    path.write_bytes(gzip.compress("\n".join(lines).encode())[:end])
    return path


@pytest.mark.parametrize("words", BAD)
def test_a_bad_file_is_refused_in_exact_words_with_exit_code_1(
    words, tmp_path, monkeypatch, capsys
):
    path = BAD[words](tmp_path)
    monkeypatch.setattr(sys, "argv", ["lab", "report", str(path), "--text", "text"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 1 and re.search(words, said) and "Traceback" not in said


def test_a_file_beyond_the_limits_is_refused_with_the_limit(tmp_path, monkeypatch):
    path = csv(tmp_path / "t.csv", *sentences(30), head="text")
    monkeypatch.setattr(surveys, "MOST_ROWS", 20)
    with pytest.raises(ValueError, match="more rows than the limit of 20"):
        survey(path, text="text")
    monkeypatch.setattr(surveys, "MOST_ROWS", 100)
    monkeypatch.setattr(surveys, "MOST_TEXT", 500)
    with pytest.raises(ValueError, match=r"limit of 500 by row \d+; take fewer with --max-rows"):
        survey(path, text="text")
    monkeypatch.setattr(lines, "LONGEST", 20)
    with pytest.raises(ValueError, match="line 2 is longer than the limit of 20 characters"):
        survey(path, text="text")


def test_label_agreement_is_one_for_clusters_and_chance_for_labels_drawn_at_random(rng):
    names = np.repeat(["a", "b"], 30)
    centres = np.repeat(np.eye(8)[:2] * 9, 30, axis=0)
    cloud = Rows(centres + rng.standard_normal((60, 8)) * 0.1)
    found = labels.agreement(cloud, names, 5, rng)
    assert found["agreement"].value == 1 and found["chance"].value == pytest.approx(29 / 59)
    low, high = labels.agreement(cloud, rng.permutation(names), 5, rng)["excess"].interval()
    assert low < 0 < high
    with pytest.raises(ValueError, match="one label only"):
        labels.agreement(cloud, ["a"] * 60, 5, rng)


def test_neighbours_and_hubs_are_those_of_a_search_by_hand(health):
    unit = health.vectors / np.linalg.norm(health.vectors, axis=1, keepdims=True)
    cosines = unit.astype(float) @ unit.T.astype(float)
    np.fill_diagonal(cosines, -np.inf)
    by_hand = np.argsort(-cosines, axis=1)[:, :10]
    times = np.bincount(by_hand.ravel(), minlength=len(unit))
    assert abs(health.texts["times_a_neighbour"].to_numpy() - times).sum() <= 4  # ties
    assert health.nearest(3)["cosine"].to_numpy() == pytest.approx(cosines[3, by_hand[3, :5]])
    assert health.hubs(top=1)["times"].iloc[0] >= times.max() - 1


def test_truncation_is_counted_text_by_text(health):
    lengths = np.array([len(one.encode()) for one in health.survey.texts["text"]])
    assert ((health.cut > 0) == (lengths > 62)).all()
    shares = health.table.set_index("metric")["value"]
    assert shares["truncated_share"] == (health.cut > 0).mean()
    assert any("lose their end" in one.says for one in findings.findings(health))


def test_a_model_that_gives_every_text_the_same_vector_is_refused(written, tiny, monkeypatch):
    def constant(self, model, part, **_):
        n = len(part)
        return {"embedding": np.ones((n, 4), np.float32)}, np.ones(n, int), np.zeros(n, int)

    monkeypatch.setattr("lab.report.health.Columns.read", constant)
    with pytest.raises(ValueError, match=r"all \d+ texts the same vector"):
        examine(survey(written[0], label="label"), models.load(tiny))


def test_the_command_writes_a_page_that_runs_nothing_from_data(tmp_path, tiny):
    texts = [f"{EVIL} {number}" for number in range(14)]
    lines = [json.dumps({EVIL: one, "label": EVIL[: 9 + at % 2]}) for at, one in enumerate(texts)]
    path = tmp_path / "evil.jsonl"
    path.write_text("\n".join([*lines, "{" + EVIL, ""]))
    begun = time.monotonic()
    done = lab("report", path, "--label", "label", "--model", tiny, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "malformed: 1 (row 15)" in done.stdout and time.monotonic() - begun < 120
    html = (tmp_path / "out" / "report.html").read_text("utf-8")
    soup = BeautifulSoup(html, "html.parser")
    assert not soup.select("script") and not soup.select("[onerror]")
    assert all(image["src"].startswith("data:image/svg+xml") for image in soup.select("img"))
    assert all(image["alt"] for image in soup.select("img")) and EVIL[:40] in soup.get_text()
    policy = soup.select_one("meta[http-equiv]")["content"]
    assert "default-src 'none'" in policy and "script-src" not in policy
    for link in soup.select("[href]"):
        assert link["href"].startswith("#") or (tmp_path / "out" / link["href"]).is_file()
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert about["file"]["rows"] == 15 and about["columns"]["text"] == EVIL
    named = pd.read_csv(tmp_path / "out" / "defects.csv")
    assert named[["kind", "row", "line"]].to_numpy().tolist()[0] == ["malformed", 15, 15]


def test_a_report_replaces_a_report_and_nothing_else(health, tmp_path):
    page.write(health, tmp_path / "out")
    first = (tmp_path / "out" / "defects.csv").read_bytes()
    page.write(health, tmp_path / "out")
    assert (tmp_path / "out" / "defects.csv").read_bytes() == first
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no report of ours"):
        page.write(health, tmp_path / "mine")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="or holds other files beside one"):
        page.check(tmp_path / "out")
    for damaged in ("{", "[]"):
        (tmp_path / "mine" / "manifest.json").write_text(damaged)
        with pytest.raises(ValueError, match="is no report of ours"):
            page.check(tmp_path / "mine")


def test_a_label_that_a_spreadsheet_would_run_is_quoted_and_all_labels_are_in_a_csv(tmp_path, tiny):
    lines = [f"{one},{'=1+1' if at % 2 else 'b'}" for at, one in enumerate(sentences(14))]
    found = survey(csv(tmp_path / "t.csv", *lines), text="text", label="label")
    page.write(examine(found, models.load(tiny)), tmp_path / "out")
    assert set(pd.read_csv(tmp_path / "out" / "texts.csv")["label"]) == {"'=1+1", "b"}
    assert set(pd.read_parquet(tmp_path / "out" / "texts.parquet")["label"]) == {"=1+1", "b"}
    assert set(pd.read_csv(tmp_path / "out" / "labels.csv")["label"]) == {"'=1+1", "b"}


def test_the_explorer_answers_in_words_shows_markup_and_keeps_what_it_had(health, tiny, tmp_path):
    from lab.explore.your_panel import Panel

    path = csv(tmp_path / "t.csv", *(f"{one} {EVIL}" for one in range(14)), head="<b>text</b>")
    model = models.load(tiny, max_length=64)
    panel = Panel(YourData(health, model, tmp_path))
    hubs = panel.shown["hubs"].value
    panel.k.value = 3
    assert panel.shown["hubs"].value != hubs
    panel.file.value = str(tmp_path / "none.csv")
    assert "no file at" in panel.status.widget.children[1].value
    panel.file.value = str(path)
    assert (
        panel.column.options == ("<b>text</b>",) and "<b>text" not in panel.shown["preview"].value
    )
    panel._examine()
    assert panel.explorer.health.survey.rows == 14, panel.status.widget.children[1].value
    assert not any("<img" in one.value for one in panel.shown.values())
    panel._export()
    assert (tmp_path / "t-report" / "report.html").is_file()
    line = panel.status.widget.children[1]
    panel.file.value = str(csv(tmp_path / "u.csv", *(f"{i},{one}" for i, one in
                               enumerate(sentences(14))), head="id,<i>body</i>"))  # fmt: skip
    assert panel.column.value == "<i>body</i>" and "has no column" in line.value
    assert "<i>" not in line.value


def hand_over(panel, name, text, piece=100):
    """What a browser does with one file: piece by piece, each asked for; how many there were."""
    content, asked = text.encode(), [0]
    panel.upload.send = lambda message: asked.append(message["at"])
    for at in asked:
        about = {"name": name, "size": len(content), "at": at}
        panel.upload._take(None, about, [memoryview(content[at : at + piece])])
    return len(asked)


def test_an_upload_is_kept_apart_and_opened_and_a_wrong_one_is_answered_in_words(
    health, tiny, tmp_path
):
    from lab.explore.your_panel import Panel

    panel = Panel(YourData(health, models.load(tiny, max_length=64), tmp_path))
    line = panel.status.widget.children[1]
    (tmp_path / "texts.csv").write_text("mine")
    rows = "\n".join(["body", *sentences(14)])
    assert hand_over(panel, "../texts.csv", rows) == 1 + len(rows) // 100 > 3
    assert (tmp_path / "texts.csv").read_text() == "mine" and panel.column.value == "body"
    assert panel.file.value == str(tmp_path / "uploads" / "texts.csv")
    assert (tmp_path / "uploads" / "texts.csv").read_text() == rows
    hand_over(panel, "texts.csv", "\n".join(["other", *sentences(15)]))
    assert panel.column.value == "other", "the same name again is opened anew"
    before = panel.file.value
    panel.upload._take(None, {"name": "late.csv", "size": 9, "at": 5}, [b"late"])
    assert panel.file.value == before, "a piece of a file that is not being taken"
    hand_over(panel, "texts.csv", "")
    assert "is empty" in line.value, "what was wrong is not said over"
    hand_over(panel, "texts.xls", "x")
    assert "files ending in .csv" in line.value
    panel.upload._take(None, {"name": "a.csv", "size": 9, "at": 0, "wrong": "gone"}, [])
    assert "could not read a.csv: gone" in line.value
    (tmp_path / "uploads" / ".late.csv.part").unlink()
    assert sorted(path.name for path in (tmp_path / "uploads").iterdir()) == ["texts.csv"]


def test_a_map_of_fewer_texts_than_there_are_says_so(health, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("lab.explore.your_data.MOST_POINTS", 50)
    explorer = YourData(health, models.load(tiny), tmp_path)
    said = explorer.frames().layout.annotations[0].text
    n = len(health.survey.texts)
    assert f"50 of {n} texts, drawn with seed 0; two components hold" in said
    assert len(explorer.table()) == 50


def test_a_cell_is_named_for_what_it_is():
    kinds = {
        None: "missing", float("nan"): "missing", "null": "missing", 3: "not a string",
        "": "empty", "\t": "empty", "caf\udce9": "encoding", "a\x00b": "control characters",
        "a\ufffd": "damaged characters", "CafÃ©": "damaged characters", "Ãƒ": "damaged characters",
        "word " * 5001: "very long",
    }  # fmt: skip
    assert [judge.cell(value)[0][0] for value in kinds] == list(kinds.values())
    assert judge.cell("A plain text, with Müller and 東京.") == []
    assert judge.label(3.0) == ("3", []) and judge.label(True) == ("True", [])
    assert defects.excerpt("=1+1").startswith("'")
