"""The process of a worker: its job on standard input, an event a line on standard output.

It ends when its shards are done, after the shard in hand when it gets SIGTERM, and at once when
standard input closes, because then whoever started it is gone.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

# What a message is enough for.
KINDS = (OSError, LookupError, ImportError, ValueError, FloatingPointError)


def main() -> int:
    """0 if all went well, else 1; then the last event says what was wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent decides
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no event
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        _work(job, events, stop)
    except KINDS as error:
        kind = next(kind for kind in KINDS if isinstance(error, kind))
        _say(events, {"event": "error", "kind": kind.__name__, "message": _text(error)})
    except BaseException:
        _say(events, {"event": "error", "kind": "RuntimeError", "message": traceback.format_exc()})
    else:
        return 0
    return 1


def _work(job: dict[str, Any], events: IO[str], stop: threading.Event) -> None:
    from lab.corpus.worker import Worker, short, work

    _say(events, {"event": "loading"})
    with Worker(Path(job["out"]), Path(job["root"]), **job["options"]) as worker:
        _say(events, {"event": "ready"})
        work(
            worker,
            job["numbers"],
            begin=lambda number: _say(events, {"event": "begin", "shard": number}),
            done=lambda entry: _say(events, {"event": "done", **short(entry)}),
            stopped=stop.is_set,
        )


def _say(events: IO[str], event: dict[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


def _text(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
