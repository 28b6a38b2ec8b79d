"""Processes of this machine, each with a warm model; one that dies is replaced."""

import builtins
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lab.corpus.plan import Plan
from lab.corpus.resources import Event, Listen, Resources, Stop

DEATHS = 2  # of workers on one shard, after which it is not tried again
LOOK = 0.2  # seconds between two looks for a signal
TAIL = 2000  # bytes of a dead worker's standard error that are shown


class Child:
    """A worker's process, and a thread that passes its events on; None is the last of them."""

    def __init__(
        self,
        plan: Plan,
        numbers: Sequence[int],
        resources: Resources,
        place: int,
        events: "queue.Queue[tuple[Child, Event | None]]",
    ) -> None:
        self.place = place
        self.shard: int | None = None
        self.error: Exception | None = None
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lab.corpus.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | resources.variables() | resources.gpu_of(place),
            text=True,
        )
        job = {
            "out": str(plan.out.resolve()),
            "root": str(plan.root.resolve()),
            "numbers": list(numbers),
            "options": resources.options(f"{os.uname().nodename}:{self._process.pid}", plan.digest),
        }
        threading.Thread(target=self._talk, args=(job, events), daemon=True).start()

    def hear(self, event: Event) -> None:
        """Nothing; notes which shard it is at, or why it ends."""
        if event["event"] == "begin":
            self.shard = event["shard"]
        elif event["event"] == "error":
            self.error = getattr(builtins, event["kind"])(event["message"])

    def end(self, *, at_once: bool) -> None:
        """Nothing; it ends after the shard in hand, or at once."""
        self._process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def wait(self) -> str:
        """How it died, once it is gone; empty if it ended well."""
        code = self._process.wait()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died before it had read its job
            self._process.stdin.close()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - TAIL))
        said = self._stderr.read().decode(errors="replace").strip()
        self._stderr.close()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"{how}; it last said: {said or 'nothing'}" if code else ""

    def _talk(self, job: dict[str, Any], events: "queue.Queue[tuple[Child, Event | None]]") -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(job) + "\n")
            stdin.flush()
            for line in stdout:
                if line.endswith("\n"):  # else it was killed while it wrote
                    events.put((self, json.loads(line)))
        except BrokenPipeError:
            pass  # it is gone, which the end of its events says
        finally:
            stdout.close()
            events.put((self, None))


def processes(
    plan: Plan, numbers: Sequence[int], resources: Resources, listen: Listen, stop: Stop
) -> None:
    """Nothing; the shards are done, or we were told to stop.

    A worker that dies is replaced, unless the shard it died on has now killed two.

    Raises:
        ValueError, LookupError, OSError, ImportError: what a worker could not do.
        ChildProcessError: workers die again on the shard that killed one (an OSError).
        FloatingPointError: an embedding is not finite.
        RuntimeError: an error in the lab itself.
    """
    events: queue.Queue[tuple[Child, Event | None]] = queue.Queue()
    running = [Child(plan, numbers, resources, place, events) for place in range(resources.workers)]
    deaths: Counter[int | None] = Counter()
    failure: Exception | None = None
    asked = 0
    try:
        while running:
            if (wanted := stop.times or bool(failure)) > asked:
                asked = wanted
                for child in running:
                    child.end(at_once=asked > 1)
            try:
                child, event = events.get(timeout=LOOK)
            except queue.Empty:
                continue
            if event is not None:
                child.hear(event)
                listen(event)
                continue
            running.remove(child)
            how = child.wait()
            if child.error:
                failure = failure or child.error
            elif how and not stop.times:
                deaths[child.shard] += 1
                listen({"event": "died", "shard": child.shard, "how": how})
                if deaths[child.shard] < DEATHS and not failure:
                    running.append(Child(plan, numbers, resources, child.place, events))
                else:
                    failure = failure or ChildProcessError(_epitaph(plan, child.shard, how))
    finally:
        for child in running:
            child.end(at_once=True)
            child.wait()
    if failure:
        raise failure


def _epitaph(plan: Plan, number: int | None, how: str) -> str:
    """What to say when workers die and die again."""
    where = "before its first shard" if number is None else f"in {plan.shards[number]}"
    return (
        f"{DEATHS} workers died {where}: {how}. If memory ran out, start fewer workers, lower the "
        "token budget, or cut smaller shards into another folder"
    )
