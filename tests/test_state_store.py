"""The store of hidden states: whole or not at all, found by content, never beyond its size."""

import errno
import hashlib
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from xxhash import xxh3_128

from lab import models
from lab.store import PARTIAL, state_store
from lab.store import shards as shards_module
from lab.store.state_store import STALE, StateStore
from lab.training.hidden_states import Wanted, states_of

ADDRESS, OTHER = "a" * 64, "b" * 64


def key(name):
    return hashlib.sha256(str(name).encode()).digest()


def states(name, rows=3, dim=8):
    """Drawn from the name, so that any process knows what must come back."""
    seed = int.from_bytes(key(name)[:4], "big")
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def put(store, names, address=ADDRESS, **shape):
    (shelf,) = store.shelves([address], [key(name) for name in names])
    for name in names:
        if key(name) not in shelf:
            shelf.add(key(name), states(name, **shape))
    shelf.flush()
    return shelf


def got(store, names, address=ADDRESS):
    """What the store has of these names."""
    (shelf,) = store.shelves([address], [key(name) for name in names])
    return {name: shelf[key(name)].states for name in names if key(name) in shelf}


def shards(store):
    return sorted(store.folder.glob("*.safetensors"))


@pytest.fixture
def store(tmp_path):
    return StateStore(tmp_path / "states", max_bytes=10**6)


# --- what comes back -----------------------------------------------------------------------------


def test_states_come_back_as_they_were_put_in(store):
    names = ["one", "two", "three"]
    (shelf,) = store.shelves([ADDRESS], [key(name) for name in names])
    for rows, name in enumerate(names, 1):
        shelf.add(key(name), states(name, rows))
    shelf.flush()
    found = got(store, names)
    assert all(torch.equal(found[name], states(name, rows)) for rows, name in enumerate(names, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_comes_back_to_the_last_bit(store, dtype):
    (shelf,) = store.shelves([ADDRESS], [key("x")])
    shelf.add(key("x"), states("x").to(dtype))
    shelf.flush()
    assert torch.equal(got(store, ["x"])["x"], states("x").to(dtype))
    assert torch.equal(shelf[key("x")].states, states("x").to(dtype))


def test_a_text_is_looked_up_by_itself_so_more_texts_add_only_the_new_ones(store):
    put(store, ["one", "two"])
    before = shards(store)
    put(store, ["two", "three", "one"])
    (new,) = set(shards(store)) - set(before)
    assert len(new.read_bytes()) < 1000
    assert set(got(store, ["one", "two", "three", "four"])) == {"one", "two", "three"}


def test_another_address_has_nothing(store):
    put(store, ["one"])
    assert got(store, ["one"], OTHER) == {}


def test_a_shard_is_named_by_its_content(store):
    put(store, ["one", "two"])
    (shard,) = shards(store)
    assert shard.stem == f"{ADDRESS}-{xxh3_128(shard.read_bytes()).hexdigest()}"


def test_a_full_shard_is_written_before_the_end(store, monkeypatch):
    monkeypatch.setattr(state_store, "SHARD", 2 * states("x").nbytes)
    (shelf,) = store.shelves([ADDRESS], [key(name) for name in range(5)])
    for name in range(5):
        shelf.add(key(name), states(name))
    assert set(got(store, range(5))) == {0, 1, 2, 3}  # an interruption loses the fifth
    shelf.flush()
    assert len(shards(store)) == 3
    assert all(torch.equal(one, states(name)) for name, one in got(store, range(5)).items())


def test_what_is_found_is_mapped_and_not_read_into_memory(store):
    code = (
        "import sys, torch\n"
        "from lab.store.state_store import StateStore\n"
        "status = lambda: open('/proc/self/status').read()\n"
        "anonymous = lambda: int(status().split('RssAnon:')[1].split()[0])\n"
        "(shelf,) = StateStore(sys.argv[1]).shelves(['a' * 64], [bytes.fromhex(sys.argv[2])])\n"
        "before = anonymous()\n"
        "print(shelf[bytes.fromhex(sys.argv[2])].states.sum().item(), anonymous() - before)\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to see the memory of a process")
    store.max_bytes = 10**8
    put(store, ["large"], rows=10_000, dim=512)  # 20 MB
    run = [sys.executable, "-c", code, str(store.folder), key("large").hex()]
    total, grown = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert float(total) == pytest.approx(states("large", 10_000, 512).sum().item(), rel=1e-4)
    assert int(grown) < 4000  # kB


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 9, 60, 300, -1], ids=lambda at: f"byte {at}")
def test_a_flipped_byte_is_found_and_nothing_of_the_shard_is_trusted(store, where):
    put(store, ["one", "two"])
    (shard,) = shards(store)
    content = bytearray(shard.read_bytes())
    content[where] ^= 1
    shard.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged, deleted and computed again"):
        assert got(store, ["one", "two"]) == {}
    assert shards(store) == []
    put(store, ["one", "two"])
    assert torch.equal(got(store, ["one"])["one"], states("one"))


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_shard_that_was_cut_short_is_found(store, kept):
    put(store, ["one", "two"])
    (shard,) = shards(store)
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.warns(UserWarning, match="damaged"):
        assert got(store, ["one"]) == {}
    assert shards(store) == []


def test_a_shard_under_the_name_of_another_is_not_trusted(store):
    put(store, ["one"])
    put(store, ["two"])
    first, second = shards(store)
    first.write_bytes(second.read_bytes())
    with pytest.warns(UserWarning, match="the hash of its bytes is not"):
        assert len(got(store, ["one", "two"])) == 1


def test_a_damaged_shard_that_is_not_wanted_costs_nothing(store):
    put(store, ["one"])
    (shard,) = shards(store)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert got(store, ["another"]) == {}
    assert shards(store) == [shard]


# --- size ----------------------------------------------------------------------------------------


def size_of(store):
    return sum(shard.stat().st_size for shard in shards(store))


def one_shard(tmp_path):
    other = StateStore(tmp_path / "measure")
    put(other, ["x"])
    return size_of(other)


def test_a_store_never_grows_beyond_its_size_and_the_least_recently_used_goes(tmp_path):
    store = StateStore(tmp_path / "states", max_bytes=3 * one_shard(tmp_path))
    for name in range(3):
        put(store, [name])
    assert len(shards(store)) == 3
    got(store, [0])  # used again, so 1 is the oldest
    put(store, [3])
    assert set(got(store, range(4))) == {0, 2, 3}
    for name in range(4, 20):
        put(store, [name])
        assert size_of(store) <= store.max_bytes


def test_the_order_of_use_counts_other_addresses_too(tmp_path):
    store = StateStore(tmp_path / "states", max_bytes=2 * one_shard(tmp_path))
    put(store, ["x"], OTHER)
    put(store, ["x"])
    got(store, ["x"], OTHER)
    put(store, ["y"])
    assert (len(got(store, ["x"], OTHER)), len(got(store, ["x", "y"]))) == (1, 1)


def test_what_this_request_reads_or_wrote_stays_whoever_is_older(tmp_path):
    store = StateStore(tmp_path / "states", max_bytes=3 * one_shard(tmp_path))
    put(store, ["mine"])
    put(store, ["unused"])
    first, second = store.shelves([ADDRESS, OTHER], [key("mine"), key("new"), key("more")])
    for shard in shards(store):  # another process used all others later
        os.utime(shard, (0, 0) if key("mine") in shard.read_bytes() else None)
    second.add(key("new"), states("new"))
    second.flush()
    first.add(key("more"), states("more"))
    first.flush()
    assert set(got(store, ["mine", "unused", "more"])) == {"mine", "more"}
    assert set(got(store, ["new"], OTHER)) == {"new"}


def test_the_size_holds_when_another_process_writes_at_the_same_moment(tmp_path, monkeypatch):
    store = StateStore(tmp_path / "states", max_bytes=2 * one_shard(tmp_path))
    write = shards_module.write

    def together(file, content):
        write(file, content)
        for name in ("c" * 64, "d" * 64):
            write(file.with_stem(name), content)

    monkeypatch.setattr(shards_module, "write", together)
    shelf = put(store, ["mine"])
    assert size_of(store) <= store.max_bytes
    assert torch.equal(shelf[key("mine")].states, states("mine"))
    assert "mine" in got(store, ["mine"])


def test_states_that_another_process_deletes_at_once_are_used_all_the_same(store, monkeypatch):
    write = shards_module.write

    def deleted(file, content):
        write(file, content)
        file.unlink()

    monkeypatch.setattr(shards_module, "write", deleted)
    shelf = put(store, ["one", "two"])
    assert shards(store) == []
    assert all(torch.equal(shelf[key(name)].states, states(name)) for name in ("one", "two"))


def test_states_stay_readable_when_their_shard_is_deleted(store):
    shelf = put(store, ["one"])
    found = got(store, ["one"])["one"]
    for shard in shards(store):
        shard.unlink()
    assert torch.equal(found, states("one"))
    assert torch.equal(shelf[key("one")].states, states("one"))


def test_a_request_larger_than_the_store_says_what_it_needs(tmp_path):
    size = one_shard(tmp_path)
    store = StateStore(tmp_path / "states", max_bytes=2 * size)
    put(store, ["old"])
    (shelf,) = store.shelves([ADDRESS], [key("old"), key("new")])
    with pytest.raises(ValueError, match=r"5\.0 MB of hidden.* beside 0\.0 MB of files that"):
        shelf.reserve(5_000_000)
    assert "old" in got(store, ["old"])
    shelf.add(key("new"), states("new", rows=100))
    with pytest.raises(ValueError, match="raise its max_bytes, store half precision"):
        shelf.flush()
    assert set(got(store, ["old", "new"])) == {"old"}


def test_a_store_without_room_for_anything_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_bytes is the size of a store, 1 or more; got 0"):
        StateStore(tmp_path, max_bytes=0)


def test_unfinished_shards_of_processes_that_are_no_more_are_removed(store):
    put(store, ["one"])
    old, new = store.folder / f"{PARTIAL}old", store.folder / f"{PARTIAL}new"
    for file in (old, new):
        file.write_bytes(b"half a shard")
    os.utime(old, (time.time() - STALE - 1,) * 2)
    put(store, ["two"])
    assert not old.exists()
    assert new.exists()


def test_the_folder_is_in_the_cache_of_the_lab(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    assert StateStore().folder == tmp_path / "states"


# --- what is not to be kept ----------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own, for the stores of this process."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    state_store.of_process.cache_clear()
    yield
    state_store.of_process.cache_clear()


def temporary(folder):
    return list(folder.glob(f"{state_store.TEMPORARY}*"))


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("given", [True, False])
def test_what_no_hash_sees_is_neither_found_nor_kept(passes, tmp_path, monkeypatch, given):
    monkeypatch.delenv("LAB_REUSE")
    store = StateStore(tmp_path / "cache" / "states") if given else None
    model, texts = models.load("random:llama", device="cpu"), ["a cat", "rain"]
    passes.clear()
    hook = model.encoder.model.layers[1].register_forward_hook(lambda *call: call[2] * 0)
    (zeroed,) = states_of(model, texts, [Wanted("mean", (-1,))], store=store)
    assert zeroed["a cat"].abs().max() == 0, "readable after its file is gone"
    hook.remove()
    (plain,) = states_of(model, texts, [Wanted("mean", (-1,))], store=store)
    assert plain["a cat"].abs().max() > 0
    assert sum(passes) == 4
    model.encoder.model.layers[1].register_forward_hook(lambda *call: call[2] * 0)
    (again,) = states_of(model, texts, [Wanted("mean", (-1,))], store=store)
    assert torch.equal(again["a cat"], zeroed["a cat"])
    assert len(shards(StateStore())) == 1
    assert temporary(tmp_path) == []


@pytest.mark.usefixtures("own_cache")
def test_without_reuse_passes_are_shared_in_a_process_and_with_no_other(
    passes, tmp_path, monkeypatch
):
    model = models.load("random:llama", device="cpu")
    monkeypatch.delenv("LAB_REUSE")
    (kept,) = states_of(model, ["a cat"], [Wanted("mean")])
    passes.clear()
    monkeypatch.setenv("LAB_REUSE", "0")
    for _ in range(2):
        (found,) = states_of(model, ["a cat"], [Wanted("mean")])
        assert torch.equal(found["a cat"], kept["a cat"])
    assert passes == [1], "computed although the cache has it, and once"
    assert len(temporary(tmp_path)) == len(shards(StateStore())) == 1
    monkeypatch.delenv("LAB_REUSE")
    states_of(model, ["a cat"], [Wanted("mean")])
    assert passes == [1]


def test_the_store_of_a_process_goes_with_it(tmp_path):
    code = (
        "from lab.store.state_store import of_process\n"
        "folder = of_process().folder\n"
        "assert folder.is_dir() and of_process().folder == folder\n"
        "print(folder)\n"
    )
    variables = os.environ | {"TMPDIR": str(tmp_path)}
    call = subprocess.run(
        [sys.executable, "-c", code], env=variables, check=True, capture_output=True, text=True
    )
    folder = Path(call.stdout.strip())
    assert folder.parent == tmp_path.resolve() and not folder.exists()


# --- full disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_up_leaves_nothing_half_written(store, monkeypatch, call):
    put(store, ["one"])
    before = {file: file.read_bytes() for file in store.folder.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
    (shelf,) = store.shelves([ADDRESS], [key("two")])
    shelf.add(key("two"), states("two"))
    with pytest.raises(OSError, match="MB of hidden states can't be written") as caught:
        shelf.flush()
    assert caught.value.errno == errno.ENOSPC
    assert "No space left on device" in str(caught.value)
    assert "what was written before stays" in str(caught.value)
    assert {file: file.read_bytes() for file in store.folder.iterdir()} == before
    monkeypatch.undo()
    shelf.flush()  # nothing is lost: after making room it goes on
    assert set(got(store, ["one", "two"])) == {"one", "two"}


def test_a_disk_without_room_is_found_before_anything_is_computed(store, monkeypatch):
    put(store, ["one"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    store.max_bytes = 10**12
    (shelf,) = store.shelves([ADDRESS], [key("one"), key("two")])
    shelf.reserve(4_000_000)
    with pytest.raises(OSError, match=r"6\.0 MB of hidden.*written \(5\.0 MB are free\)") as caught:
        shelf.reserve(6_000_000)
    assert caught.value.errno == errno.ENOSPC


def test_a_small_disk_makes_room_like_a_small_store(store, monkeypatch):
    put(store, ["old"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    (shelf,) = store.shelves([ADDRESS], [key("two")])
    shelf.reserve(200)
    assert got(store, ["old"]) == {}


# --- several processes ---------------------------------------------------------------------------


def work(folder, seed, low, high, size):
    """Put texts and look others up, 40 times; how many were found."""
    draw, store, used = random.Random(seed), StateStore(folder, max_bytes=size), 0
    for _ in range(40):
        names = draw.sample(range(low, high), 4)
        shelf = put(store, names)
        assert all(torch.equal(shelf[key(name)].states, states(name)) for name in names)
        for name, found in got(store, range(low, high)).items():
            assert torch.equal(found, states(name)), name
            used += 1
    return used


@pytest.mark.parametrize(
    ("ranges", "shards_kept"),
    [(((0, 12), (0, 12)), 1000), (((0, 12), (12, 24)), 1000), (((0, 12), (6, 18)), 5)],
    ids=["the same texts", "other texts", "with eviction"],
)
def test_two_processes_may_write_read_and_delete_at_the_same_time(tmp_path, ranges, shards_kept):
    put(StateStore(tmp_path / "measure"), range(4))
    (shard,) = (tmp_path / "measure").iterdir()
    size = shards_kept * shard.stat().st_size
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit locks of torch's threads
    with ProcessPoolExecutor(2, fresh) as pool:
        found = [
            pool.submit(work, tmp_path / "states", seed, *limits, size)
            for seed, limits in enumerate(ranges)
        ]
        assert all(one.result(timeout=300) > 0 for one in found)
    store = StateStore(tmp_path / "states", max_bytes=size)
    assert size_of(store) <= size
    assert {file.suffix for file in store.folder.iterdir()} == {".safetensors"}
