"""What this machine has for the workbench, one finding a line, each with its cure."""

import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import manifest, paths

STYLES = {"ok": "green", "note": "yellow", "missing": "red"}
ENOUGH = 5 << 30  # bytes: a model, its converted weights and a few runs
ROOM = 2 << 30  # bytes of memory: one run at the defaults of its notebook
FEW = 1024  # open files, processes: a run has a few dozen of each
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``ok``, ``note`` (works, with a limit) or ``missing`` (needed)."""

    state: str
    subject: str
    found: str
    cure: str = ""

    @property
    def line(self) -> str:
        """State, subject, what was found and the cure."""
        cure = f" -> {self.cure}" if self.cure else ""
        return f"{self.state:8}{self.subject:10}{self.found}{cure}"


def examine() -> list[Finding]:
    """Every finding, in the order in which a newcomer would meet the trouble."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python, _kernel, _packages, _scale, _weights, _data, _chromium, _gpu, _threads, _memory,
        _limits, _mirror,
    )  # fmt: skip
    return [check() for check in checks] + list(_folders()) + [_locks()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Finding("ok", "python", f"{version} at {sys.executable}")
    return Finding(
        "missing", "python", version, "the pins are verified on 3.11: use a 3.11 environment"
    )


def _kernel() -> Finding:
    if importlib.util.find_spec("ipykernel"):
        return Finding("ok", "kernel", f"always this interpreter, {sys.executable}")
    return Finding("missing", "kernel", "no ipykernel here", "make install")


def _packages() -> Finding:
    file = paths.ROOT / "constraints.txt"
    if not file.is_file():
        return Finding("note", "packages", "no constraints.txt", "use a checkout of the project")
    pins = dict(re.findall(r"^([\w.-]+)\s*==\s*([^\s;#]+)", file.read_text(encoding="utf-8"), re.M))
    have = {name: _version(name) for name in pins}
    off = [
        f"{n} {v} (wanted {pins[n]})" for n, v in have.items() if v and v.split("+")[0] != pins[n]
    ]
    cure = "pip install -e .[all] -c constraints.txt"
    if off:
        return Finding("note", "packages", "not as verified: " + ", ".join(off), cure)
    gone = sorted(name for name in _required() if not _version(name))
    if gone:
        return Finding("missing", "packages", ", ".join(gone), cure)
    return Finding(
        "ok", "packages", f"{sum(map(bool, have.values()))} of {len(pins)} pins here, all as pinned"
    )


def _required() -> list[str]:
    """The names of what the project cannot run without."""
    wanted = importlib.metadata.requires("embedding-lab") or []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted if "extra ==" not in line]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _weights() -> Finding:
    cure = "make models"
    if not importlib.util.find_spec("lab.models"):
        return Finding("missing", "weights", "lab.models is not there", cure)
    from lab import models

    listing = models.listing()
    here = listing[listing["present"].astype(bool)]["name"].tolist()
    gone = listing[~listing["present"].astype(bool)]["name"].tolist()
    if gone:
        return Finding("note", "weights", f"missing: {', '.join(gone)}", f"{cure}; see lab models")
    return Finding("ok", "weights", ", ".join(here))


def chromium() -> str | None:
    """The browser for images and page tests: $CHROMIUM, $BROWSER_PATH, then the path."""
    named = (os.environ.get("CHROMIUM"), os.environ.get("BROWSER_PATH"))
    candidates = [path for path in named if path] + [shutil.which(name) for name in BROWSERS]
    return next((path for path in candidates if path and Path(path).exists()), None)


def _chromium() -> Finding:
    browser = chromium()
    if browser:
        return Finding("ok", "chromium", browser)
    cure = "apt-get install chromium, or set CHROMIUM; only browser tests and plotly images need it"
    return Finding("note", "chromium", "none found", cure)


def _gpu() -> Finding:
    found = manifest.gpus()
    if found:
        return Finding(
            "ok",
            "gpu",
            "; ".join(f"{gpu['name']}, driver {gpu['driver_version']}" for gpu in found),
        )
    return Finding("note", "gpu", "none", "the cpu profile needs none; --profile gpu would be slow")


def _threads() -> Finding:
    cores = len(os.sched_getaffinity(0))
    asked = os.environ.get("OMP_NUM_THREADS")
    shell = f"; OMP_NUM_THREADS={asked} in this shell holds in JupyterLab only" if asked else ""
    return Finding("ok", "threads", f"{cores} (lab run --threads changes it){shell}")


def _memory() -> Finding:
    """What is free of this machine, or of the container's share of it."""
    if not (known := Path("/proc/meminfo")).is_file():
        return Finding("note", "memory", "unknown here", f"a run wants {ROOM >> 30} GiB")
    info = dict(re.findall(r"^(\w+):\s+(\d+) kB", known.read_text(), re.M))
    free, total = (int(info[name]) << 10 for name in ("MemAvailable", "MemTotal"))
    share = Path("/sys/fs/cgroup/memory.max")
    if share.is_file() and (text := share.read_text().strip()).isdecimal():
        used = int(share.with_name("memory.current").read_text())
        total, free = min(total, int(text)), min(free, int(text) - used)
    found = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < ROOM:
        return Finding("note", "memory", found, f"a run wants {ROOM >> 30} GiB; lab sweep -j 1")
    return Finding("ok", "memory", f"{found}, room for {free // ROOM} runs")


def _limits() -> Finding:
    """Open files and processes (threads count) that the shell allows; -1 is no limit."""
    have = {
        "n": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "u": resource.getrlimit(resource.RLIMIT_NPROC)[0],
    }
    cures = [f"ulimit -{option} {FEW}" for option, most in have.items() if 0 <= most < FEW]
    found = f"{have['n']} open files, {have['u']} processes"
    return Finding("note" if cures else "ok", "limits", found, "; ".join(cures))


def _scale() -> Finding:
    version = _version("ray")
    if version:
        return Finding("ok", "ray", version)
    cure = "pip install -e .[scale] -c constraints.txt; only many GPUs or machines need it"
    return Finding("note", "ray", "not here", cure)


def _data() -> Finding:
    """Whether the shipped data is what its manifest says."""
    index = paths.DATA / "manifest.json"
    if not index.is_file():
        return Finding("missing", "data", f"no {index}", "use a checkout of the project")
    recorded = json.loads(index.read_text(encoding="utf-8"))["files"]
    files = {name: (paths.DATA / name, facts["sha256"]) for name, facts in recorded.items()}
    bad = [n for n, (f, sha) in files.items() if not f.is_file() or manifest.digest(f) != sha]
    if bad:
        return Finding("missing", "data", f"gone or changed: {', '.join(bad)}", "git checkout data")
    return Finding("ok", "data", f"{len(recorded)} shipped files, all as recorded")


def _mirror() -> Finding:
    folder = paths.mirror()
    if folder is None:
        return Finding(
            "note", "mirror", "LAB_DATA is not set", "only the shipped data; lab data tells more"
        )
    if not folder.is_dir():
        return Finding(
            "missing", "mirror", f"LAB_DATA={folder} is no folder", "mkdir it or unset LAB_DATA"
        )
    return Finding("ok", "mirror", str(folder))


def _folders() -> Iterator[Finding]:
    """Whether runs and caches can be written, and how much room there is."""
    hub = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    for subject, folder in (
        ("runs", paths.RUNS),
        ("cache", paths.cache()),
        ("hub cache", Path(hub)),
    ):
        place = _place(folder)
        free = shutil.disk_usage(place).free
        found = f"{folder}, {free / 2**30:.1f} GiB free"
        if not os.access(place, os.W_OK):
            yield Finding("missing", subject, f"{found}, not writable", f"chmod u+w {place}")
        elif free < ENOUGH:
            yield Finding(
                "note", subject, found, f"free some room: {ENOUGH >> 30} GiB are comfortable"
            )
        else:
            yield Finding("ok", subject, found)


def _place(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _locks() -> Finding:
    """Whether two processes of this machine can tell that a run is going on."""
    try:
        with (
            tempfile.NamedTemporaryFile(dir=_place(paths.RUNS)) as one,
            Path(one.name).open() as two,
        ):
            fcntl.flock(one, fcntl.LOCK_EX)
            fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding("ok", "locks", f"{paths.RUNS} can be locked")
    except OSError as error:
        why = str(error.strerror)
    else:
        why = "a lock keeps nobody out"
    return Finding("missing", "locks", f"{paths.RUNS}: {why}", "mount it with flock, or use --out")
