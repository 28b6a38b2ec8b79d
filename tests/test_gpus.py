"""GPUs of one machine handed out among runs: shares add up, nothing is given twice."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from tiny_notebook import build

from lab import manifest
from lab.series import plan
from lab.series.gpus import Gpus


def never():
    return None


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    return Gpus()


def test_no_gpu_is_given_to_more_than_its_whole_and_all_runs_get_theirs(two):
    used, most, lock = {"4": 0.0, "7": 0.0}, [], threading.Lock()

    def run(gpus):
        with two.taken(gpus, never) as names:
            shares = dict.fromkeys(names.split(","), min(gpus, 1.0))
            assert len(shares) == max(1, gpus)
            for sign in (1, -1):
                with lock:
                    for name, share in shares.items():
                        used[name] += sign * share
                    most.append(max(used.values()))
                threading.Event().wait(0.001)

    wanted = np.random.default_rng(6).choice([0.1, 0.3, 0.5, 1.0, 2.0], 100)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, wanted.tolist()))
    assert max(most) == pytest.approx(1.0) and used == pytest.approx({"4": 0, "7": 0}, abs=1e-9)


def test_shares_fill_a_gpu_before_they_touch_the_next(two):
    with ExitStack() as held:
        given = [held.enter_context(two.taken(share, never)) for share in (0.5, 0.5, 1.0)]
    assert given[0] == given[1] != given[2]
    with two.taken(2, never) as both:
        assert sorted(both.split(",")) == ["4", "7"]


def test_a_run_that_was_told_to_stop_waits_no_longer_and_gets_no_gpu(two):
    with two.taken(2, never):
        with two.taken(1, lambda: 15) as names:
            assert names == ""
        with two.taken(0, never) as names:
            assert names is None
    with two.taken(2, never) as names:
        assert names


@pytest.mark.parametrize(("visible", "found"), [("", 0), ("-1", 0), ("3", 1), ("0,-1,2", 1)])
def test_more_gpus_than_the_machine_shows_are_refused(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(manifest.visible_gpus()) == found
    with (
        pytest.raises(ValueError, match=f"asks for 2 GPUs, this machine shows {found}; run it on"),
        Gpus().taken(2, never),
    ):
        pass


def read(root, defaults, entry):
    build(root / "01_a.ipynb")
    text = f"defaults: {{{defaults}}}\nruns: {{a: {{notebook: 01_a.ipynb, {entry}}}}}"
    (root / "s.yaml").write_text(text)
    return plan.load(root / "s.yaml", root / "runs").runs["a"].task


def test_a_run_may_want_no_gpu_where_the_others_do(tmp_path):
    assert read(tmp_path, "gpus: 1", "gpus: 0").gpus == 0
    assert read(tmp_path, "gpus: 1", "timeout: 5").gpus == 1
    assert read(tmp_path, "timeout: 5", "gpus: 0.25").gpus == 0.25


@pytest.mark.parametrize(
    ("gpus", "says"), [("1.5", "must be whole, came 1.5"), ("-1", "greater than or equal to 0")]
)
def test_a_number_of_gpus_that_cannot_be_meant_is_refused(tmp_path, gpus, says):
    with pytest.raises(ValueError, match=rf"runs.a.gpus: .*{says}"):
        read(tmp_path, "timeout: 5", f"gpus: {gpus}")
