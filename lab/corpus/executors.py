"""Who embeds the shards: this process, processes of this machine, or Ray actors."""

import os
from collections.abc import Callable, Sequence

from lab.corpus.actors import actors
from lab.corpus.children import processes
from lab.corpus.plan import Plan
from lab.corpus.resources import Listen, Resources, Stop
from lab.registry import Registry

Executor = Callable[[Plan, Sequence[int], Resources, Listen, Stop], None]

EXECUTORS: Registry[Executor] = Registry("executor")
EXECUTORS(processes)
EXECUTORS(actors, "ray")


@EXECUTORS
def serial(
    plan: Plan, numbers: Sequence[int], resources: Resources, listen: Listen, stop: Stop
) -> None:
    """Nothing; the shards are done, or we were told to stop. In this process: for a debugger.

    Raises:
        ValueError: more than one worker; a row that cannot be embedded.
        LookupError, OSError: as :class:`lab.corpus.worker.Worker`.
    """
    from lab.corpus.worker import Worker, short, work

    if resources.workers > 1:
        raise ValueError(f"the executor 'serial' is one worker; got {resources.workers}")
    options = resources.options(f"{os.uname().nodename}:{os.getpid()}", plan.digest)
    listen({"event": "loading"})
    with Worker(plan.out, plan.root, **options) as worker:
        listen({"event": "ready"})
        work(
            worker,
            numbers,
            begin=lambda number: listen({"event": "begin", "shard": number}),
            done=lambda entry: listen({"event": "done", **short(entry)}),
            stopped=lambda: stop.times > 0,
        )
