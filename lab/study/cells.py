"""Train and evaluate the cells of a study: whatever the folder lacks, in any number of shards."""

import fcntl
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from lab import manifest, share
from lab.models.texts import TruncationWarning
from lab.paths import ROOT
from lab.store.state_store import StateStore
from lab.study import stored
from lab.study.bench import Bench
from lab.study.material import Material, gather
from lab.study.plan import Study, digest
from lab.study.stored import Planned

Listener = Callable[[str], None]

OWN = ("models", "poolers", "training")
LIBRARIES = ("torch", "transformers", "sentence-transformers", "scikit-learn")


def plan(study: Study, folder: Path, material: Material) -> list[Planned]:
    """Every cell of a study: designs that train under each seed, the others once, as seed 0."""
    facts = {"data": material.sha256, "weights": _weights(study.checkpoint), "code": _code()}
    return [
        Planned(
            design,
            seed,
            settings,
            digest({"plan": settings, **facts}),
            stored.path_of(folder, design.label, seed, settings),
        )
        for design, seed, settings in study.cells()
    ]


def run(
    study: Study,
    folder: Path | str,
    *,
    shard: tuple[int, int] = (1, 1),
    store: StateStore | None = None,
    device: str | None = None,
    progress: bool = True,
    listen: Listener = lambda line: None,
) -> list[Path]:
    """The files of the cells that this call trained; those that are there already are left alone.

    Args:
        study: the plan.
        folder: where cells go, each as one file in ``cells/``.
        shard: (i, n): every n-th cell from the i-th on; shards may run at the same time.
        store: where hidden states of a frozen backbone are kept; default the lab's cache.
        device: torch device; default the GPU if there is one.
        progress: show bars on what takes more than two seconds.
        listen: gets one line per cell.

    Raises:
        ValueError: a shard outside 1..n, and whatever loading, training and probing refuse.
    """
    part, parts = share.check(*shard)
    folder = Path(folder)
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    material = gather(study)
    cells = plan(study, folder, material)[part - 1 :: parts]
    missing = [cell for cell in cells if not cell.finished()]
    listen(f"{study.name}: {len(missing)} of {len(cells)} cells to do in shard {part}/{parts}")
    for note in material.notes:
        listen(note)
    bench = Bench(study, material, folder, store, device, progress)
    done = []
    with warnings.catch_warnings():
        if study.max_length is not None:  # a setting: what it cuts is counted in each cell
            warnings.simplefilter("ignore", TruncationWarning)
        for cell, make in bench.makers(missing):
            with claimed(cell.path) as mine:
                if not mine:
                    listen(f"{cell.name}: another process is at it")
                if not mine or cell.finished():
                    continue
                finished = make()
                stored.write(cell.path, finished)
            done.append(cell.path)
            scores = ", ".join(f"{k} {v.value:.3f}" for k, v in finished.scores.items())
            seconds = finished.about["spent"]["seconds"]
            listen(f"{len(done)}/{len(missing)} {cell.name}, {seconds:.1f} s: {scores}")
    return done


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process may make a cell: no other one is at it, as long as the block lasts.

    The lock goes with the process that holds it, however that ends.
    """
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    path.with_suffix(".lock").unlink(missing_ok=True)


def _weights(checkpoint: str) -> str:
    """What the weights are: a name, or the sha256 of all files of a folder."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return checkpoint
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return digest({str(f.relative_to(folder)): manifest.digest(f) for f in files})


def _code() -> str:
    """What computes a cell: the modules of the lab that do, and the libraries' versions."""
    lab = ROOT / "lab"
    files = [lab / "pooling.py", lab / "probes.py", lab / "losses.py"]
    files += [file for part in OWN for file in sorted((lab / part).rglob("*.py"))]
    versions = {name: version(name) for name in LIBRARIES}
    return digest({str(f.relative_to(lab)): manifest.digest(f) for f in files} | versions)
