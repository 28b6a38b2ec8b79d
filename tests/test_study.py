"""A study: its plan as configuration, its cells as files, and the record that is read back."""

import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from sentence_transformers.sentence_transformer.modules import Normalize
from typer.testing import CliRunner

from lab import cli, data, models, results, study
from lab.models.texts import TruncationWarning
from lab.poolers import parameters
from lab.probes import PROBES
from lab.store.state_store import StateStore
from lab.study import cells, material, stored
from lab.study.bench import Bench
from lab.study.record import as_reported
from lab.training.pairs import from_dataset

TINY = {
    "question": "Does anything happen?",
    "checkpoint": "random:llama",
    "baseline": "causal / last / last",
    "seeds": [0, 1],
    "max_length": 24,
    "recipe": {"backbone": "frozen", "steps": 3, "batch": 8},
    "designs": [
        {"attention": "causal", "pooling": "last", "reported": "causal / last / last"},
        {"attention": "causal", "pooling": "last", "layers": "cross_attention",
         "reported": "causal / last / cross_attention", "pooler": {"latents": 4}},
    ],
    "grid": [{"attention": ["causal", "bidirectional"], "pooling": ["token_weights", "mean"]}],
    "train": [{"name": "wordnet-pairs", "split": "train", "n": 60}],
    "held_out": 0.2,
    "evaluate": [
        {"name": "wordnet-similarity", "split": "test", "n": 20},
        {"name": "debian-sections-clusters", "split": "test", "n": 30},
    ],
    "profiles": {"cpu": {}, "lora": {"recipe": {"backbone": "lora"}, "seeds": [0]}},
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """A function that writes the tiny study with changes and gives its path."""

    def write(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}))
        return path

    return write


@pytest.fixture
def tiny(written):
    return study.load(written())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The tiny study, run: (study, folder, store)."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    planned = study.load(folder / "tiny.yaml")
    store = StateStore(folder / "states")
    study.run(planned, folder / "out", store=store, progress=False)
    return planned, folder / "out", store


def _paths(planned, folder):
    return [
        stored.path_of(folder, design.label, seed, settings)
        for design, seed, settings in planned.cells()
    ]


# The plan


def test_designs_are_those_listed_and_then_the_grid_crossed(tiny):
    assert tiny.labels() == [
        "causal / last / last", "causal / last / cross_attention",
        "causal / token_weights / last", "causal / mean / last",
        "bidirectional / token_weights / last", "bidirectional / mean / last",
    ]  # fmt: skip
    assert tiny.trainable() == [tiny.labels()[place] for place in (1, 2, 4)]
    assert tiny.labels("bidirectional") == tiny.labels()[4:]


def test_a_profile_replaces_fields_and_single_ones_of_the_recipe(written):
    changed = study.load(written(), "lora", recipe={"steps": 5})
    assert changed.seeds == [0]
    recipe = changed.recipe_of(7)
    assert (recipe.backbone, recipe.steps, recipe.batch, recipe.seed) == ("lora", 5, 8, 7)
    assert changed.trainable() == changed.labels(), "with an adapter every design is trained"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sede": [0]}, "no key named 'sede'; .*did you mean 'seeds'"),
        ({"train": [{"name": "a", "split": "b", "m": 3}]}, "no key named 'm'; have full_corpus"),
        ({"recipe": {"step": 3}}, "no field of a recipe named 'step'.*did you mean 'steps'"),
        ({"recipe": {"steps": 0}}, "steps"),
        ({"recipe": {"steps": "many"}}, "steps"),
        ({"baseline": "causal / last"}, "no design to be the baseline named 'causal / last'"),
        ({"designs": [*TINY["designs"], TINY["designs"][0]]}, "two designs are called"),
        ({"grid": [{"attention": "casual"}]}, "no attention named 'casual'.*did you mean 'causal'"),
        ({"grid": [{"attention": "causal", "pooling": "meen"}]}, "no pooling named 'meen'"),
        ({"grid": [{"attention": "causal", "layers": "lst"}]}, "no layer mix named 'lst'"),
        ({"grid": [{"attention": "causal", "pooler": {"latents": 3}}]}, "nothing to train"),
        ({"seeds": [1, 1]}, "every seed once"),
        ({"seeds": []}, "seeds"),
        ({"evaluate": []}, "evaluate"),
    ],
)
def test_a_faulty_study_file_is_refused_with_the_place(written, changes, says):
    with pytest.raises(ValueError, match=f"tiny.yaml, profile cpu: .*{says}"):
        study.load(written(**changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"profiles": ["cpu"]}, r"profiles is a mapping .*; got \['cpu'\]"),
        ({"profiles": {"cpu": ["a"]}}, r"the profile is a mapping .*; got \['a'\]"),
        ({"recipe": 3}, "recipe is a mapping .*; got 3"),
        ({"recipe": None}, "recipe: steps is missing"),
        ({"recipe": {}}, "recipe: steps is missing"),
        ({"recipe": {"steps": 1, "backbone": "lor"}}, "named 'lor'.*did you mean 'lora'"),
        ({"recipe": {"steps": 1, "lora": {"rnk": 1}}}, "recipe's lora named 'rnk'.*mean 'rank'"),
        ({"recipe": {"steps": 1, "lora": {"rank": 0}}}, "rank of an adapter is 1 or more; got 0"),
        ({"recipe": {"steps": 1, "lora": 3}}, "lora is a Lora.*; got 3"),
        ({"grid": {"attention": "causal"}}, "grid is a list .*; got {'attention': 'causal'}"),
        ({"grid": [["a"]]}, r"an entry of grid is a mapping .*; got \['a'\]"),
        ({"designs": None}, "designs is a list .*; got None"),
        ({"designs": ["causal"]}, r"designs\.0: .*dictionary"),
        ({"seeds": [0, -1]}, r"seeds\.1: .*greater than or equal to 0; got -1"),
        ({"seeds": [2**32]}, r"seeds\.0: .*less than or equal to 4294967295"),
        ({"data_seed": -1}, "data_seed: .*greater than or equal to 0"),
        ({3: "a"}, "a study is a mapping from names"),
        (
            {"grid": [{"attention": "causal", "layers": "token_weights", "pooler": {"over": 5}}]},
            r"designs\.2: over is a list of layers, one or more, such as \[-1\]; got 5",
        ),
    ],
)
def test_what_has_the_wrong_shape_is_refused_with_the_place(tmp_path, changes, says):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    with pytest.raises(ValueError, match=f"(?s)tiny.yaml, profile cpu: .*{says}"):
        study.load(tmp_path / "tiny.yaml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1", "expected ',' or ']'"),
        (b"- a", r"a study is a mapping .*; got \['a'\]"),
        (b"text", "a study is a mapping .*; got 'text'"),
        (b"a: \xff", "can't decode byte 0xff"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_with_the_place(tmp_path, content, says):
    (tmp_path / "tiny.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s)tiny.yaml, profile cpu: .*{says}"):
        study.load(tmp_path / "tiny.yaml")


def test_an_empty_profile_changes_nothing(written, tiny):
    assert study.load(written(profiles={"cpu": None})) == tiny


def test_another_checkpoint_takes_the_place_of_the_study_s(written):
    assert study.load(written(), checkpoint="random:bert").checkpoint == "random:bert"


def test_an_unknown_study_or_profile_is_named_with_the_nearest(written):
    with pytest.raises(LookupError, match="did you mean 'pooling_attention'"):
        study.load("pooling_atention")
    with pytest.raises(LookupError, match="no profile of tiny named 'gpu'; have cpu, lora"):
        study.load(written(), "gpu")


@pytest.mark.parametrize("profile", ["cpu", "mirror", "gpu", "lora"])
def test_the_shipped_study_is_sound_under_each_profile(profile):
    planned = study.load("pooling_attention", profile)
    assert set(planned.evaluate[0].model_dump()) >= {"name", "split", "n"}
    pooled = [one for one in planned.designs if one.reported]
    claimed = {results.setting(row) for row in results.reported("tang2024").to_dict("records")}
    assert {one.reported for one in pooled} == claimed, "every reported model is a row"
    parts = {part.name for part in planned.train} & {part.name for part in planned.evaluate}
    assert not parts


def test_sizes_can_be_changed_of_parts_that_have_one(tiny, written):
    small = tiny.sized(train=30, share=0.5)
    assert [part.n for part in (*small.train, *small.evaluate)] == [30, 10, 15]
    whole = study.load(written(evaluate=[{"name": "manpages", "split": "test"}]))
    with pytest.raises(ValueError, match="manpages is evaluated whole"):
        whole.sized(share=0.5)
    with pytest.raises(ValueError, match=re.escape("a share lies in (0, 1]; got 0")):
        tiny.sized(share=0)


def test_training_pairs_that_an_evaluation_set_judges_are_left_out(written, monkeypatch):
    judged = data.load("wordnet-definitions", "test", n=10)
    leaky = data.load("wordnet-pairs", "train", n=60)
    leaky.texts[int(leaky.frame["positive"][3])] = judged.texts[int(judged.frame["query"][0])]
    load = data.load

    def loaded(name, *args, **kwargs):
        return leaky if name == "wordnet-pairs" else load(name, *args, **kwargs)

    monkeypatch.setattr("lab.study.material.data.load", loaded)
    evaluate = [{"name": "wordnet-definitions", "split": "test", "n": 10}]
    found = material.gather(study.load(written(evaluate=evaluate)))
    assert len(found.train) + len(found.held_out) == 59
    assert found.notes == ("wordnet-pairs: 1 rows are left out, which a test set judges too",)
    negative = next(iter(leaky.frame["negative"][5:6]))
    leaky.texts[int(negative)] = judged.texts[int(judged.frame["document"][1])]
    assert "2 rows are left out" in material.gather(study.load(written(evaluate=evaluate))).notes[0]
    assert set(found.train.texts) <= set(found.texts) >= set(judged.texts)


def test_sets_without_hard_negatives_get_the_positives_of_other_rows(written):
    train = [
        {"name": name, "split": "train", "n": 30} for name in ("wordnet-pairs", "debian-pairs")
    ]
    found = material.gather(study.load(written(train=train)))
    bare = from_dataset(data.load("debian-pairs", "train", n=30))
    drawn = material.with_negatives(bare, seed=0)
    assert sorted(drawn.rows["negative"]) == sorted(bare.rows["positive"])
    assert (drawn.rows["negative"] != drawn.rows["positive"]).all()
    assert drawn.rows.equals(material.with_negatives(bare, seed=0).rows)
    assert "drawn at random" in found.notes[0] and len(found.train) + len(found.held_out) == 60
    assert not set(found.train.texts) & set(found.held_out.texts)
    kinds = [sum(text in bare.texts for text in one.rows["anchor"]) for one in
             (found.train, found.held_out)]  # fmt: skip
    assert min(kinds) > 0, "each set is trained on and held out"


# Identity


def test_a_cell_is_found_by_what_decides_its_numbers(tiny):
    def digests(planned):
        return [settings for _, _, settings in planned.cells()]

    first = digests(tiny)
    assert len(set(first)) == len(first) == 3 + 2 * 3
    same = tiny.model_copy(update={"question": "?", "name": "other", "seeds": [1, 0]})
    assert set(digests(same)) == set(first)
    renamed = [one.model_copy(update={"name": f"n {one.label}"}) for one in tiny.designs]
    assert digests(tiny.model_copy(update={"designs": renamed})) == first
    seen = tiny.model_copy(update={"recipe": {**tiny.recipe, "evaluate_every": 1}})
    assert digests(seen) == first, "what is only looked at decides nothing"
    for change in ({"max_length": 25}, {"held_out": 0.3}, {"data_seed": 1}, {"sink": True}):
        assert not set(digests(tiny.model_copy(update=change))) & set(first)
    longer = tiny.model_copy(update={"recipe": {**tiny.recipe, "steps": 4}})
    assert set(digests(longer)) & set(first) == {first[0], first[5], first[8]}, "untrained ones"


def test_other_code_or_weights_make_another_cell(tiny, tmp_path, monkeypatch):
    found = material.gather(tiny)
    first = cells.plan(tiny, tmp_path, found)
    assert [one.identity for one in cells.plan(tiny, tmp_path, found)] == [
        one.identity for one in first
    ]
    monkeypatch.setattr(cells, "_code", lambda: "other code")
    for before, after in zip(first, cells.plan(tiny, tmp_path, found), strict=True):
        assert before.path == after.path and before.identity != after.identity
    monkeypatch.undo()
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "vocab.txt").write_text("a")
    one = cells._weights(str(folder))
    (folder / "vocab.txt").write_text("b")
    assert cells._weights(str(folder)) != one and cells._weights("random:llama") == "random:llama"


# Running


def test_every_cell_is_one_file_and_a_second_run_does_nothing(done):
    planned, folder, store = done
    files = sorted(folder.rglob("*.parquet"))
    assert len(files) == 3 + 2 * 3
    assert study.run(planned, folder, store=store, progress=False) == []
    assert not list(folder.glob("checkpoints/*")), "nothing is left of finished training"


def test_a_lost_cell_is_made_again_with_the_same_numbers(done, tmp_path):
    planned, folder, store = done
    lost = cells.plan(planned, folder, material.gather(planned))[2]
    assert planned.trains(lost.design) and lost.finished()
    before = stored.read(lost.path)
    lost.path.unlink()
    assert study.run(planned, folder, store=store, progress=False) == [lost.path]
    after = stored.read(lost.path)
    assert after.log.equals(before.log)
    for name, score in before.scores.items():
        assert np.array_equal(score.units, after.scores[name].units)


def test_shards_together_are_the_whole(done, tmp_path):
    planned, folder, store = done
    some = planned.only(planned.labels()[2:4])
    made = [
        study.run(some, tmp_path, shard=(part, 3), store=store, progress=False)
        for part in (1, 2, 3)
    ]
    wanted = cells.plan(some, folder, material.gather(some))
    assert sorted(path.name for paths in made for path in paths) == sorted(
        cell.path.name for cell in wanted
    )
    for path in (path for paths in made for path in paths):
        ours, whole = stored.read(path), stored.read(folder / "cells" / path.name)
        for name, score in ours.scores.items():
            assert np.array_equal(score.units, whole.scores[name].units)
    with pytest.raises(ValueError, match="1 <= i <= n, such as 1/4; got 4/3"):
        study.run(some, tmp_path, shard=(4, 3))


def test_an_untrained_cell_scores_as_the_model_itself(done):
    planned, folder, _ = done
    record = study.read(planned, folder)
    found = record.finished["bidirectional / mean / last", 0]
    model = models.load("random:llama", attention="bidirectional", pooling="mean", max_length=24)
    dataset = data.load("wordnet-similarity", "test", n=20)
    with pytest.warns(TruncationWarning):
        vectors = model.encode(dataset.texts)
    direct = PROBES["sts"](dataset, vectors, seed=0)
    assert found.about["truncated"]["wordnet-similarity"] == 40
    assert found.scores["wordnet-similarity"].value == pytest.approx(direct.value, abs=1e-3)
    assert found.about["columns"]["training"] is None and found.log.empty


def test_an_adapter_is_trained_in_every_cell(written, tmp_path):
    planned = study.load(written(), "lora").only(["bidirectional / mean / last"])
    made = study.run(planned, tmp_path / "out", progress=False)
    found = stored.read(made[0])
    assert found.about["columns"]["training"] == "lora, 3 steps"
    assert found.about["spent"]["parameters"] > 1000 and len(found.log) >= 3
    for path in made:
        path.unlink()
    again = study.run(planned, tmp_path / "out", progress=False)
    other = stored.read(again[0])
    for name, score in found.scores.items():
        assert np.array_equal(score.units, other.scores[name].units), "same seed, same numbers"


def test_the_command_runs_a_shard_and_says_what_it_does(written, tmp_path):
    path = written(grid=[], seeds=[0])
    command = [sys.executable, "-m", "lab.cli", "study", str(path), "--out", str(tmp_path / "o")]
    command += ["--only", "causal / last / last"]
    done = subprocess.run([*command, "--shard", "1/2"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "tiny: 1 of 1 cells to do in shard 1/2" in done.stdout
    refused = subprocess.run([*command, "--shard", "two"], capture_output=True, text=True)
    assert refused.returncode == 1 and "a share is i/n, such as 1/4" in refused.stderr


@pytest.fixture
def command(monkeypatch):
    """A function that runs `lab study`: the checkpoint that would be run, or what is raised."""
    found = []
    monkeypatch.setattr(study, "run", lambda planned, *_, **__: found.append(planned.checkpoint))

    def invoke(*words):
        done = CliRunner().invoke(cli.app, ["study", *map(str, words)])
        return done.exception or found[-1]

    return invoke


def test_the_command_takes_another_checkpoint(written, tmp_path, command):
    there = [written(), "--out", tmp_path / "o"]
    assert command(*there) == "random:llama"
    assert command(*there, "--checkpoint", "random:bert") == "random:bert"


@pytest.mark.parametrize("shard", ["two", "²/2", "1/²", "1", "-1/2"])
def test_the_command_refuses_what_is_no_shard(written, command, shard):
    refused = command(written(), "--shard", shard)
    assert isinstance(refused, ValueError) and f"i/n, such as 1/4; got {shard!r}" in str(refused)


def test_the_command_refuses_a_file_as_the_folder_of_cells(written, command):
    refused = command(written(), "--out", written())
    assert isinstance(refused, ValueError) and "tiny.yaml is a file" in str(refused)


# The record


def test_a_stored_cell_is_read_back_as_it_was(done, tmp_path):
    planned, folder, _ = done
    cell = stored.read(_paths(planned, folder)[1])
    stored.write(tmp_path / "again.parquet", cell)
    again = stored.read(tmp_path / "again.parquet")
    assert again.about == cell.about and again.log.equals(cell.log)
    assert list(again.scores) == list(cell.scores)
    for name, score in cell.scores.items():
        other = again.scores[name]
        assert np.array_equal(score.units, other.units) and score.value == other.value
        assert (score.swappable, score.recentred) == (other.swappable, other.recentred)


def test_a_damaged_or_foreign_file_is_refused(done, tmp_path):
    planned, folder, _ = done
    whole = _paths(planned, folder)[0].read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half.parquet is damaged .* delete it"):
        stored.read(tmp_path / "half.parquet")
    saved = results.save(results.table([{"probe": "p", "metric": "m", "value": 1.0}]), tmp_path)
    with pytest.raises(ValueError, match="is no cell of version 1"):
        stored.read(saved)
    for path in _paths(planned, tmp_path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole)
    with pytest.raises(ValueError, match="holds another cell than its name says"):
        study.read(planned, tmp_path)


def test_scores_are_averaged_over_seeds_and_paired_by_text(done, rng):
    planned, folder, _ = done
    record = study.read(planned, folder)
    assert record.missing == []
    values = record.values().set_index(["design", "dataset", "seed"])["value"].sort_index()
    for cell in record.averaged:
        seeds = values[cell.label, cell.settings["dataset"]]
        assert cell.score.value == pytest.approx(seeds.mean())
        assert cell.score.n == (20 if cell.score.probe == "sts" else 30)
    tests = record.tests_on_texts(notebook="t", rng=rng, resamples=50)
    assert len(tests) == 2 * (len(planned.designs) - 1)
    assert set(tests["baseline"]) == {planned.baseline}
    means = record.means().set_index(["setting", "dataset"])["value"]
    one = tests.iloc[0]
    expected = means[one["setting"], one["dataset"]] - means[planned.baseline, one["dataset"]]
    assert one["difference"] == pytest.approx(expected)


def test_a_record_says_what_is_missing_and_refuses_to_be_empty(done, tmp_path):
    planned, folder, _ = done
    more = study.read(planned.model_copy(update={"seeds": [0, 1, 2]}), folder)
    assert len(more.missing) == 3 and len(more.values()) == 18
    for read in (more.means, lambda: more.averaged):
        with pytest.raises(ValueError, match=r"3 cells of tiny are missing.* it goes on"):
            read()
    with pytest.raises(ValueError, match="holds no cell of the study tiny"):
        study.read(planned, tmp_path)


def test_losses_and_budgets_are_tables(done):
    planned, folder, _ = done
    record = study.read(planned, folder)
    curves = record.curves()
    assert set(curves["design"]) == set(planned.trainable()) and set(curves["seed"]) == {0, 1}
    assert curves["loss"].notna().any() and curves["held_out_loss"].notna().any()
    budgets = record.budgets().set_index("design")["parameters"]
    assert budgets["causal / mean / last"] == 0 and budgets["causal / token_weights / last"] > 0


def test_a_budget_shrinks_what_is_larger_and_leaves_the_rest(written):
    planned = study.load(written(budget=9000))
    bench = Bench(planned, material.gather(planned), None, None, "cpu", False)
    base = bench.backbone("causal")
    sizes = {
        one.label: parameters(bench.variant(base, one, 0).head)
        for one in planned.designs
        if one.attention == "causal" and one.trained
    }
    plain = models.variant(base, layers="cross_attention", pooler={"latents": 4}, seed=0)
    assert parameters(plain.head) > 9000 >= sizes["causal / last / cross_attention"] > 4000
    free = models.variant(base, pooling="token_weights", seed=0)
    assert sizes["causal / token_weights / last"] == parameters(free.head)


def test_reported_designs_that_are_trained_get_the_names_of_the_reported_numbers(written, tmp_path):
    designs = [{**one, "reported": name} for one, name in zip(
        [TINY["designs"][0], TINY["designs"][1], {"attention": "bidirectional", "pooling": "mean",
         "layers": "cross_attention", "pooler": {"latents": 4}}],
        ["causal / last / last", "causal / last / cross_attention",
         "bidirectional / mean / cross_attention"], strict=True)]  # fmt: skip
    planned = study.load(written(designs=designs, grid=[], seeds=[0]))
    study.run(planned, tmp_path, store=StateStore(tmp_path / "s"), progress=False)
    record = study.read(planned, tmp_path)
    found = as_reported(record, notebook="t", rng=np.random.default_rng(0), resamples=50)
    assert set(found["baseline"]) == {"causal / last / cross_attention"}, "not the untrained one"
    assert set(found["setting"]) == {"bidirectional / mean / cross_attention"} and len(found) == 2
    against = results.against_reported(found, paper="tang2024")
    assert (against["outcome"] != "not measured").any()
    assert len(record.machines) == 1


def test_a_cell_that_another_process_is_at_is_passed_over(done):
    planned, folder, store = done
    lost = _paths(planned, folder)[1]
    content = lost.read_bytes()
    lost.unlink()
    said = []
    with cells.claimed(lost) as mine:
        assert mine
        found = study.run(planned, folder, store=store, progress=False, listen=said.append)
    assert found == [] and "another process is at it" in said[-1]
    with cells.claimed(lost) as again:
        assert again and not lost.with_suffix(".lock").read_text()
    lost.write_bytes(content)
    assert not list(folder.rglob("*.lock"))


def test_what_comes_behind_the_head_is_kept_on_stored_states(written, tmp_path):
    whole = models.load("random:bert")
    whole.append(Normalize())
    checkpoint = str(tmp_path / "model")
    whole.save_pretrained(checkpoint)
    planned = study.load(written(checkpoint=checkpoint, max_length=512, grid=[], seeds=[0]))
    bench = Bench(planned, material.gather(planned), tmp_path, StateStore(tmp_path), "cpu", False)
    listed = cells.plan(planned, tmp_path, bench.material)[:1]
    with pytest.warns(TruncationWarning):
        ((_, make),) = bench.makers(listed)
    frozen, model = make.args[2], make.args[1]
    assert len(list(model)) == 3, "encoder, layer mix, Normalize"
    assert [type(one) for one in frozen][1:] == [type(one) for one in model][1:]


def test_plans_are_read_from_the_package():
    assert "pooling_attention" in study.names()
