"""One notebook, run with checked parameters in a process and a folder of its own.

A run is named by what it computes: id = hash(code cells, parameters, data, lab code, environment).
A finished run with the same id is not run again, and its folder is never written to.
"""

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import manifest, paths, store
from lab.runner import claims, execution, parameters, processes

Listen = Callable[[execution.Event], None]
Told = Callable[[], int | None]  # the signal that ends a run, once there is one

GRACE = 10.0  # seconds between killing a kernel and killing the process that saves its notebook
STDERR_LINES = 50
NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True)
class Run:
    """How a run ended, and where it is."""

    state: str
    reason: str
    folder: Path
    id: str
    cell: dict[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """0 ok or skipped, 2 failed, 3 dead, 4 timeout, 5 interrupted (1 is: refused)."""
        return manifest.EXIT_CODES[self.state]

    @property
    def line(self) -> str:
        """State, reason and the cell it stopped in, in one line."""
        cell = f" in {_name(self.cell)}" if self.cell else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.state}{cell}{reason}".replace("\n", " ")


@dataclass
class _Stop:
    """Why the run is to be stopped, once it is, and the running processes."""

    told: Told = lambda: None
    state: str | None = None
    reason: str = ""
    signal: int | None = None
    since: float = 0.0
    events: list[execution.Event] = field(default_factory=list)

    def ask(self, state: str, reason: str, number: int | None = None) -> None:
        if self.state is None:
            self.state, self.reason, self.signal = state, reason, number

    def interrupt(self, number: int) -> None:
        self.ask("interrupted", f"the runner got {signal.Signals(number).name}", number)


def run(
    notebook: Path | str,
    overrides: Mapping[str, object] | None = None,
    *,
    profile: str = parameters.PROFILE,
    name: str | None = None,
    out: Path | None = None,
    timeout: float | None = None,
    threads: int | None = None,
    memory: float | None = None,
    gpus: str | None = None,
    force: bool = False,
    reuse: bool = True,
    patience: float = 0.0,
    listen: Listen | None = None,
    told: Told | None = None,
) -> Run:
    """The run of ``notebook``, in ``out/NN_slug/<name or profile>-<first 8 of its id>``.

    ``timeout`` bounds the whole run in seconds, ``memory`` the data of each of its processes in GB
    (RLIMIT_DATA); ``threads`` defaults to the cores this process may use, ``gpus`` (as in
    CUDA_VISIBLE_DEVICES) to those it sees; ``force`` runs again and moves a finished run aside;
    with ``reuse`` False nothing that an earlier run computed is used, nor with LAB_REUSE=0;
    ``patience`` is how many seconds to wait for another process to leave the folder; ``listen``
    gets every event. ``told`` is asked for the signal that ends the run; without it the run listens
    to SIGINT and SIGTERM itself.

    Raises:
        ValueError, LookupError: refused, and nothing was started or written: an unknown, mistyped
            or never-read parameter, no or two parameter cells, a bad name, a run still going on.
        OSError: the runs folder cannot be written to.
    """
    path = Path(notebook).resolve()
    signature = parameters.read(path)
    values = parameters.resolve(signature, overrides or {}, profile)
    cores = threads or len(os.sched_getaffinity(0))
    limits = {"threads": threads, "timeout": timeout, "memory": memory}
    if bad := {name: limit for name, limit in limits.items() if limit is not None and limit <= 0}:
        raise ValueError(f"threads, timeout and memory must be positive, came {bad}")
    label = name or profile
    if not NAMES.fullmatch(label):
        raise ValueError(
            "a run's name has letters, digits, '.', '_', '-' only (ASCII), at most 80 of them, and "
            f"begins with a letter or digit; came {label!r}"
        )
    free = {key: value for key, value in values.items() if key != parameters.SET_BY_RUNNER}
    defaults = {key: p.default for key, p in signature.parameters.items()}
    identity = manifest.identity(path, free, defaults)
    folder = (out or paths.RUNS).resolve() / path.stem / f"{label}-{identity['id'][:8]}"
    with (
        _interruptible(told) as stop,
        claims.claimed(folder, identity["id"], force, patience) as claim,
    ):
        if claim.finished:
            done = claim.finished
            return Run("skipped", f"a finished run is in {done}", done, identity["id"])
        with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as scratch:
            variables = batch_variables(folder, Path(scratch), cores, reuse, gpus)
            environment = manifest.environment(variables, cores, memory)
            job = _start(signature, values, identity, folder, environment, label, profile)
            job["lock"] = claim.lock
            end = _supervise(job, folder, Path(scratch), stop, timeout, listen)
            return _close(folder, Path(scratch), identity["id"], stop, end)


def _start(
    signature: parameters.Signature,
    values: dict[str, Any],
    identity: dict[str, Any],
    folder: Path,
    environment: dict[str, Any],
    label: str,
    profile: str,
) -> dict[str, Any]:
    """The job for the run's process; its folder holds the manifest before anything runs."""
    values = dict(values)
    if parameters.SET_BY_RUNNER in values:
        values[parameters.SET_BY_RUNNER] = "."  # the kernel runs in the folder; no path leaks
    manifest.write(
        folder,
        {
            "format": manifest.FORMAT,
            "name": label,
            "profile": profile,
            "identity": identity,
            "code": manifest.code(folder),
            "environment": environment,
            "inputs": [],
            "outcome": {
                "state": manifest.RUNNING,
                "started": manifest.now(),
                "clock": time.monotonic(),  # of this machine since its start: it never goes back
                "runner": {"pid": os.getpid(), "host": socket.gethostname()},
            },
        },
    )
    changed = {key: v for key, v in values.items() if v != signature.parameters[key].default}
    return {
        "notebook": str(signature.notebook),
        "notebook_sha256": identity["notebook_sha256"],
        "folder": str(folder),
        "parameters": repr(changed),  # not JSON, which has no tuples
        "table": parameters.table(signature, values),
        "variables": environment["variables"],
        "memory": environment["memory_limit"],
    }


def batch_variables(
    folder: Path, scratch: Path, threads: int, reuse: bool, gpus: str | None = None
) -> dict[str, str]:
    """The environment variables that every run sets, whatever the shell had.

    Kernel, IPython and runtime folders are the run's own: always this interpreter, no start-up
    files of the user, no history to lock, and socket paths short enough for IPC.
    """
    hub = {} if os.environ.get("LAB_ALLOW_HUB") == "1" else {"HF_HUB_OFFLINE": "1"}
    visible = os.environ.get(manifest.VISIBLE_GPUS) if gpus is None else gpus
    seen = {} if visible is None else {manifest.VISIBLE_GPUS: visible}
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return (
        hub
        | seen
        | dict.fromkeys(pools, str(threads))
        | {
            "LAB_MODE": "batch",
            manifest.RUN_DIR: str(folder),
            store.SWITCH: str(int(reuse and store.reusing(default="1"))),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONHASHSEED": "0",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "JUPYTER_PATH": str(scratch / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
            "IPYTHONDIR": str(scratch / "ipython"),
        }
    )


def _supervise(
    job: dict[str, Any],
    folder: Path,
    scratch: Path,
    stop: _Stop,
    timeout: float | None,
    listen: Listen | None,
) -> dict[str, Any]:
    """State, reason and signal of the run, once its processes are gone."""
    with (folder / manifest.LOG).open("a", buffering=1, encoding="utf-8") as log:

        def hear(event: execution.Event) -> None:
            stop.events.append(event)
            try:
                log.write(f"{manifest.now()} {text}\n" if (text := describe(event)) else "")
            except OSError as error:
                stop.ask("failed", f"{manifest.LOG} cannot be written: {error}")
            if listen:
                listen(event)

        with (scratch / "stderr").open("wb") as stderr:
            child, pipe = _launch(job, folder, scratch, stderr.fileno())
        try:
            _follow(child, pipe, stop, timeout, hear)
        except BaseException:
            processes.kill_group(child.pid)
            raise
        finally:
            processes.kill_run(folder)  # what the notebook started and left behind, too
    if stop.state:
        return {"state": stop.state, "reason": stop.reason, "signal": stop.signal}
    return next((e for e in stop.events if e["event"] == "end"), None) or {
        "state": "dead",
        "reason": f"the run's process died (exit status {child.returncode})",
        "signal": -child.returncode if child.returncode < 0 else None,
    }


def _close(folder: Path, scratch: Path, run_id: str, stop: _Stop, end: Mapping[str, Any]) -> Run:
    """The run as its manifest now tells it; the tail of stderr and the last line are in the log."""
    claims.release_reserve(folder)
    try:
        cell = execution.conclude(
            folder, stop.events, end["state"], end["reason"], end.get("signal")
        )
        outcome = manifest.read(folder)["outcome"]
        result = Run(outcome["state"], outcome["reason"], folder, run_id, cell)
        with (folder / manifest.LOG).open("a", encoding="utf-8") as log:
            log.writelines(f"stderr | {line}\n" for line in _tail(scratch / "stderr"))
            log.write(f"{manifest.now()} {result.line}\n")
    except OSError as error:
        reason = f"{end['state']} {end['reason']}; {folder} cannot be written: {error}"
        return Run("failed", reason, folder, run_id)
    return result


def _launch(job: dict[str, Any], folder: Path, scratch: Path, stderr: int) -> tuple[Any, int]:
    """The run's process, in a session of its own, and the reading end of its events."""
    spec = scratch / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (scratch / "runtime").mkdir(mode=0o700)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    inherited = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    reading_end, writing_end = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "lab.runner.execution"],
        stdin=subprocess.PIPE,
        stdout=stderr,
        stderr=stderr,
        cwd=folder,
        env=inherited | job["variables"],
        pass_fds=[writing_end, job["lock"]],
        start_new_session=True,
        text=True,
    )
    os.close(writing_end)
    assert child.stdin is not None
    child.stdin.write(json.dumps(job | {"events": writing_end}) + "\n")
    child.stdin.flush()
    return child, reading_end


def _follow(child: Any, pipe: int, stop: _Stop, timeout: float | None, hear: Listen) -> None:
    """Nothing; returns when the process has closed its events and is gone."""
    begun = time.monotonic()
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(0.2):
                chunk = os.read(pipe, 1 << 16)
                if not chunk:
                    break
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    hear(json.loads(line))
            if number := stop.told():
                stop.interrupt(number)
            if timeout is not None and time.monotonic() - begun > timeout:
                stop.ask("timeout", f"it took longer than {timeout:g} s")
            if stop.state:
                _kill(child, stop)
    os.close(pipe)
    child.wait()
    child.stdin.close()
    for event in stop.events:
        if event["event"] == "kernel":
            processes.kill_group(event["pid"])


def _kill(child: Any, stop: _Stop) -> None:
    """Nothing; kills the kernel, so that its process saves what it has; later that process too."""
    kernel = next((event["pid"] for event in stop.events if event["event"] == "kernel"), None)
    ended = any(event["event"] == "end" for event in stop.events)
    if not stop.since:
        stop.since = time.monotonic()
        if kernel and not ended:
            processes.kill_group(kernel)
    if not kernel or time.monotonic() - stop.since > GRACE:
        processes.kill_group(child.pid)


@contextmanager
def _interruptible(told: Told | None) -> Iterator[_Stop]:
    """A stop asked for by ``told`` or, without it, by SIGINT and SIGTERM."""
    stop = _Stop(told or (lambda: None))
    with nullcontext() if told else signals(stop.interrupt):
        yield stop


@contextmanager
def signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Nothing; SIGINT and SIGTERM go to ``handle`` while the context is open (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: handle(n)) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(event: execution.Event) -> str:
    """One line for the log, or an empty text for an event that needs none."""
    if event["event"] == "kernel":
        return f"kernel started, {event['total']} code cells"
    if event["event"] == "start":
        return f"cell {event['count']}/{event['total']} started: {_name(event)}"
    return ""


def _name(cell: Mapping[str, Any]) -> str:
    """How a message names a cell: its number in the notebook, its id and its first line."""
    if cell["number"] is None:
        return "the injected parameters"
    line = cell["line"] if len(cell["line"]) <= 60 else cell["line"][:57] + "..."
    return f"cell {cell['number']} [{cell['id']}] `{line}`"


def _tail(path: Path) -> list[str]:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - (1 << 16)))
        return stream.read().decode(errors="replace").splitlines()[-STDERR_LINES:]
