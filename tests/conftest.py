"""Shared by all tests: no network, one thread a process, nothing from earlier runs."""

import os

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", LAB_REUSE="0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from contextlib import contextmanager

import numpy as np
import pytest
from filelock import FileLock
from jupyter import open_notebook, served  # noqa: F401 - fixtures
from pages import browser, visit  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A function name -> a folder that all workers share, theirs alone while the context lasts."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @contextmanager
    def locked(name):
        folder = root / f"shared-{name}"
        with FileLock(f"{folder}.lock"):
            yield folder

    return locked


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for every test."""
    return np.random.default_rng(20241121)


def _installed(checkpoint: str) -> bool:
    from lab.models.checkpoints import CHECKPOINTS

    return CHECKPOINTS[checkpoint].present()


@pytest.fixture(scope="session")
def minilm():
    """The packaged sentence encoder; skips with the command that installs it."""
    if not _installed("minilm-l6"):
        pytest.skip("weights missing: run `make models`")
    from lab.models import load

    return load("minilm-l6")


@pytest.fixture(scope="session")
def smollm2():
    """The packaged causal LLM; skips with the command that installs it."""
    if not _installed("smollm2-135m"):
        pytest.skip("weights missing: run `make models`")
    from lab.models import load

    return load("smollm2-135m")


@pytest.fixture(scope="session")
def mirror() -> str:
    """The data mirror; skips when LAB_DATA is not set."""
    if not os.environ.get("LAB_DATA"):
        pytest.skip("no mirror: set LAB_DATA to a folder in the layout of data/README.md")
    return os.environ["LAB_DATA"]


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """How many texts each forward pass has read since the list was cleared."""
    from lab.models.encoder import Encoder

    sizes, read = [], Encoder.read

    def counting(self, features, *args, **kwargs):
        sizes.append(len(features["input_ids"]))
        return read(self, features, *args, **kwargs)

    monkeypatch.setattr(Encoder, "read", counting)
    return sizes


@pytest.fixture
def a_style_of_its_own():
    """The style of our figures, set for one test; its figures are closed after it."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from lab import plotting

    with mpl.rc_context():
        mpl.use("agg")
        plotting.use_style()
        yield
        plt.close("all")
