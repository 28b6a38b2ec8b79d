"""Series files of a few runs, and run folders as if their runs had ended, without a kernel."""

import os
import socket
import time
from pathlib import Path

from lab import manifest, results


def runs(**entries):
    """A series file of runs of 01_a, given as YAML."""
    return "runs:\n" + "".join(
        f"  {name}: {{notebook: 01_a.ipynb, {rest}}}\n" for name, rest in entries.items()
    )


def pretend(run, state="ok", *, table=None, name=None, **outcome):
    """The folder of a planned run, as if it had ended so."""
    folder = run.parent / f"{name or run.name}-{run.id[:8]}"
    folder.mkdir(parents=True)
    if table is not None:
        results.save(table, folder)
    content = {
        "identity": run.identity,
        "environment": {"threads": 1},
        "outcome": {
            "state": state,
            "reason": "",
            "clock": time.monotonic(),
            "seconds": 1.5,
            "runner": {"pid": os.getpid(), "host": socket.gethostname()},
            "outputs": manifest.outputs(folder),
        }
        | outcome,
    }
    manifest.write(folder, content)
    return folder


def wrote(folder):
    """Nothing; the manifest says that the run wrote what its folder holds now."""
    content = manifest.read(folder)
    content["outcome"]["outputs"] = manifest.outputs(folder)
    manifest.write(folder, content)


def whole(identity=None, **outcome):
    """As little as a manifest may say."""
    hashed = {"parameters": {}} | dict.fromkeys(manifest.PARTS, "0")
    about = {"id": "12345678", "notebook": "01_a.ipynb", "parameters": {}, "hashed": hashed}
    runner = {"pid": os.getpid(), "host": socket.gethostname()}
    end = {"state": "ok", "clock": 0.0, "runner": runner, "outputs": {}}
    return {
        "format": manifest.FORMAT,
        "identity": about | (identity or {}),
        "outcome": end | outcome,
    }


def measured(*values, **columns):
    rows = [
        results.row(probe="p", metric="m", layer=at, value=v, low=v - 1, high=v + 1, **columns)
        for at, v in enumerate(values)
    ]
    return results.table(rows)


def processes_of(text):
    """The pids of processes of runs whose folder has ``text`` in its path."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes()
        except OSError:
            continue
        if b"LAB_RUN_DIR=" in variables and text.encode() in variables:
            found.append(int(process.name))
    return found
