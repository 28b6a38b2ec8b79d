"""The process that runs one notebook with papermill, and what is made of the events it reports.

`lab.runner` starts it as ``python -m lab.runner.execution``, writes one JSON line (the job) to its
standard input and keeps that open: when it closes, the runner is gone and the run is ended.
Events are JSON lines on a pipe of their own, for a kernel inherits standard output.
"""

import ast
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import atomic, manifest
from lab.runner import processes

Event = dict[str, Any]
Journal = Callable[[Event], None]

TABLE_TAG = "lab-parameters"
ERROR_TAG = "papermill-error-cell-tag"  # papermill's own: it removes these cells before a new run
WIDGET = "application/vnd.jupyter.widget-view+json"
INJECTED = "injected-parameters"
GIGABYTE = 10**9


def main() -> None:
    """Nothing; runs the job read from standard input and reports how it ended."""
    job = json.loads(sys.stdin.readline())
    os.set_inheritable(job["lock"], False)  # held until this process ends, and by no kernel
    if job["memory"]:
        resource.setrlimit(resource.RLIMIT_DATA, (int(job["memory"] * GIGABYTE),) * 2)
    events: list[Event] = []
    pipe = os.fdopen(job["events"], "w", buffering=1, encoding="utf-8")

    def journal(event: Event) -> None:
        events.append(event)
        with suppress(BrokenPipeError):
            pipe.write(json.dumps(event) + "\n")
            pipe.flush()

    orphaned = threading.Event()
    threading.Thread(target=_watch_runner, args=(job, events, orphaned), daemon=True).start()
    end = _execute(job, journal)
    if orphaned.is_set():
        conclude(Path(job["folder"]), events, "interrupted", "the runner was killed", None)
        (Path(job["folder"]) / manifest.LOCK).unlink(missing_ok=True)
        shutil.rmtree(Path(os.environ["JUPYTER_RUNTIME_DIR"]).parent, ignore_errors=True)
    journal({"event": "end", **end})


def _watch_runner(job: dict[str, Any], events: Sequence[Event], orphaned: threading.Event) -> None:
    sys.stdin.read()
    orphaned.set()
    kernel = next((event["pid"] for event in events if event["event"] == "kernel"), None)
    if kernel is not None:
        processes.kill_group(kernel)
    processes.kill_run(Path(job["folder"]))
    if kernel is None:
        os._exit(1)


def _execute(job: dict[str, Any], journal: Journal) -> Event:
    """How the notebook ended: state, reason and the kernel's signal."""
    # jsonschema checks IRIs with it, which notebooks have none of; its grammar takes a second.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source, target = job["notebook"], str(Path(job["folder"]) / manifest.EXECUTED)
    if hashlib.sha256(Path(source).read_bytes()).hexdigest() != job["notebook_sha256"]:
        return {"state": "failed", "reason": f"{source} was changed while the run was starting"}
    kernel = _prepare_papermill(target, job["table"], journal)
    try:
        papermill.execute_notebook(
            source.replace("{", "{{").replace("}", "}}"),  # papermill formats its paths
            target.replace("{", "{{").replace("}", "}}"),
            parameters=ast.literal_eval(job["parameters"]),
            engine_name="lab",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            autosave_cell_every=5,
        )
    except PapermillExecutionError as error:
        says = f"{error.ename}: {error.evalue}".splitlines()[0].rstrip(": ")
        if not error.traceback:  # an IPython magic that failed
            says = "the cell failed without a traceback; its output says why"
        return {"state": "failed", "reason": says}
    except Exception as error:
        dead = isinstance(error, DeadKernelError) or "Kernel died" in str(error)
        code = kernel[0].returncode if kernel else None
        number = -code if code is not None and code < 0 else None
        if dead:
            how = f" (signal {signal.Signals(number).name})" if number else f" (exit status {code})"
            reason = f"the kernel died{'' if code is None else how}"
            return {"state": "dead", "reason": reason, "signal": number}
        traceback.print_exc()
        return {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
    return {"state": "ok", "reason": ""}


def _prepare_papermill(target: str, table: str, journal: Journal) -> list[Any]:
    """The kernel's process, once started; papermill gets our engine, translator and writer."""
    import logging

    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.iorw import LocalHandler, papermill_io
    from papermill.translators import PythonTranslator, papermill_translators

    process: list[Any] = []

    class Exact(PythonTranslator):
        """Literals as ``repr`` writes them: papermill turns a tuple into a string."""

        translate = classmethod(lambda cls, value: repr(value))

    class Whole(LocalHandler):
        """Notebooks replaced in one step: a full disk leaves the last good one."""

        def write(self, text: str, path: str) -> None:
            atomic.write(Path(path), text)

    class Engine(NBClientEngine):
        """Papermill's engine with our hooks, the table on top and no TCP."""

        @classmethod
        def execute_managed_notebook(cls, manager: Any, kernel_name: str, **_: object) -> Any:
            _insert_table(manager.nb.cells, table)
            client = _client(manager, kernel_name, journal, process)
            return client.execute()

    logging.getLogger("papermill").setLevel(logging.ERROR)
    papermill_translators.register("python3", Exact)
    papermill_io.register(target, Whole())
    papermill_engines.register("lab", Engine)
    return process


def _insert_table(cells: list[Any], table: str) -> None:
    """Nothing; the parameter table becomes a Markdown cell below the title."""
    from nbformat.v4 import new_markdown_cell

    clear = {
        "status": "pending",
        "exception": None,
        "start_time": None,
        "end_time": None,
        "duration": None,
    }
    cell = new_markdown_cell(
        table, id=TABLE_TAG, metadata={"tags": [TABLE_TAG], "papermill": clear}
    )
    cells.insert(1 if cells and cells[0].cell_type == "markdown" else 0, cell)


def _client(manager: Any, kernel_name: str, journal: Journal, process: list[Any]) -> Any:
    from papermill.clientwrap import PapermillNotebookClient
    from traitlets.config import Config

    ipc = {"transport": "ipc"}  # no port to race for, and nobody else on the machine can listen
    total = sum(cell.cell_type == "code" for cell in manager.nb.cells)
    seen = {"code": 0}

    def on_notebook_start(**_: object) -> None:
        process.append(client.km.provisioner.process)
        journal({"event": "kernel", "pid": process[0].pid, "total": total})

    def on_cell_execute(cell: Any, cell_index: int) -> None:
        seen["code"] += 1
        where = _place(manager.nb.cells, cell_index)
        journal(
            {"event": "start", "at": manifest.now(), "count": seen["code"], "total": total, **where}
        )

    def on_cell_executed(cell: Any, cell_index: int, execute_reply: Any) -> None:
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
        if execute_reply and execute_reply["content"]["status"] == "ok":
            journal({"event": "done", "at": manifest.now(), "id": cell.id})

    client = PapermillNotebookClient(
        manager,
        config=Config({"KernelManager": ipc, "AsyncKernelManager": ipc}),
        kernel_name=kernel_name,
        iopub_timeout=60,
        store_widget_state=False,
        on_notebook_start=on_notebook_start,
        on_cell_execute=on_cell_execute,
        on_cell_executed=on_cell_executed,
    )
    return client


def _place(cells: Sequence[Any], index: int) -> dict[str, Any]:
    """A cell's number in the notebook as the user has it (ours do not count), id and first line."""
    added = {TABLE_TAG, INJECTED}
    ours = [bool(added & set(cell.metadata.get("tags", []))) for cell in cells]
    number = None if ours[index] else index + 1 - sum(ours[:index])
    lines = [line for line in cells[index].source.splitlines() if line.strip()]
    return {"number": number, "id": cells[index].id, "line": lines[0].strip() if lines else ""}


def cell_times(events: Sequence[Event]) -> list[dict[str, Any]]:
    """One entry a started code cell: number, id, first line, start, end (None: never finished)."""
    done = {event["id"]: event["at"] for event in events if event["event"] == "done"}
    return [
        {
            "number": event["number"],
            "id": event["id"],
            "line": event["line"],
            "started": event["at"],
            "finished": done.get(event["id"]),
        }
        for event in events
        if event["event"] == "start"
    ]


def conclude(
    folder: Path, events: Sequence[Event], state: str, reason: str, number: int | None
) -> dict[str, Any] | None:
    """The cell that the run stopped in, or None; manifest and notebook now tell how it ended.

    A notebook in which a code cell never ran is not "ok", whatever papermill says: `sys.exit(0)` in
    a cell stops it without an error. Nor is a run whose data, lab code or environment is no longer
    what its id says.
    """
    cells = cell_times(events)
    stopped = next((cell for cell in cells if cell["finished"] is None), None)
    if state == "ok" and stopped:
        state, reason = "failed", "the cell ended the run (sys.exit); the cells after it never ran"
    if state in ("dead", "timeout", "interrupted"):
        mark_stopped(folder / manifest.EXECUTED, cells, f"{state}: {reason}")
    content = manifest.read(folder)
    if state == "ok" and (changed := manifest.moved(content["identity"]["hashed"])):
        state = "failed"
        reason = f"{', '.join(changed)} changed while the run was going on; run it again"
    content["inputs"] = manifest.inputs(folder)
    content["outcome"] |= {
        "state": state,
        "reason": reason,
        "exit_code": manifest.EXIT_CODES[state],
        "signal": number,
        "finished": manifest.now(),
        "seconds": time.monotonic() - content["outcome"]["clock"],
        "stopped_in": stopped,
        "cells": cells,
        "outputs": manifest.outputs(folder),
    }
    manifest.write(folder, content)
    (folder / manifest.INPUTS).unlink(missing_ok=True)
    return stopped


def mark_stopped(path: Path, cells: Sequence[dict[str, Any]], message: str) -> None:
    """Nothing; in the notebook at ``path`` only cells that finished are completed, and it says why.

    After a dead kernel papermill leaves every cell `completed`, also those that never ran, and no
    trace of the error.
    """
    from html import escape

    if not path.is_file():
        return
    notebook = json.loads(path.read_text(encoding="utf-8"))
    finished = {cell["id"] for cell in cells if cell["finished"]}
    stopped = next((cell["id"] for cell in cells if not cell["finished"]), None)
    kept: list[dict[str, Any]] = []
    reached = True
    for cell in notebook["cells"]:
        status = cell["metadata"].setdefault("papermill", {})
        if cell["id"] == stopped:
            anchor = '<a id="papermill-error-cell"></a>**The run stopped in the next cell.**'
            kept.append(_error_cell("lab-error-anchor", f"{anchor} {escape(message)}"))
            reached = False
            status |= {"status": "failed", "exception": True}
        elif cell["cell_type"] == "code" and cell["source"]:
            reached = cell["id"] in finished
            status["status"] = "completed" if reached else "pending"
        else:
            status["status"] = "completed" if reached else "pending"
        kept.append(cell)
    link = " [Go to the cell](#papermill-error-cell)." if stopped else ""
    kept.insert(
        0, _error_cell("lab-error", f"**This run did not finish.** {escape(message)}.{link}")
    )
    notebook["cells"] = kept
    notebook["metadata"].setdefault("papermill", {})["exception"] = True
    atomic.write(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _error_cell(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {"tags": [ERROR_TAG]}, "source": text}


if __name__ == "__main__":
    main()
