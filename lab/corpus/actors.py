"""Ray actors, each with a warm model, on one machine or on a cluster with a shared file system.

Ray is an extra: ``pip install 'embedding-lab[scale]'``. ``RAY_ADDRESS`` names a cluster that runs;
without it one is started here, on 127.0.0.1, without a dashboard or usage statistics.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lab.corpus.plan import Plan
from lab.corpus.resources import Listen, Resources, Stop

STORE = 100 << 20  # bytes of the object store: only entries of the ledger pass through it
RETRIES = 2  # of an actor whose process or node is lost
LOOK = 0.2  # seconds between two looks for a signal


def actors(
    plan: Plan, numbers: Sequence[int], resources: Resources, listen: Listen, stop: Stop
) -> None:
    """Nothing; the shards are done, or we were told to stop. Each actor has one shard at a time.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError, OSError: what a worker could not do.
    """
    with _cluster(resources) as ray:
        kind = ray.remote(_Actor).options(
            num_cpus=resources.cores,
            num_gpus=resources.gpus,
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
            runtime_env={"env_vars": resources.variables()},
        )
        out, root = str(plan.out.resolve()), str(plan.root.resolve())
        idle = [
            kind.remote(out, root, resources.options(f"ray:{place}"))
            for place in range(resources.workers)
        ]
        waiting = list(numbers)
        running: dict[Any, tuple[Any, int]] = {}
        while running or (waiting and not stop.times):
            while idle and waiting and not stop.times:
                actor, number = idle.pop(), waiting.pop(0)
                running[actor.embed.remote(number)] = actor, number
                listen({"event": "begin", "shard": number})
            if stop.times > 1:
                return
            for task in ray.wait(list(running), num_returns=1, timeout=LOOK)[0]:
                actor, number = running.pop(task)
                idle.append(actor)
                try:
                    entry = ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    where = plan.shards[number]
                    raise RuntimeError(f"the actor died in {where}: {error}") from None
                if entry:
                    listen({"event": "done", **entry})


class _Actor:
    """A worker in an actor's process; its events are return values."""

    def __init__(self, out: str, root: str, options: dict[str, Any]) -> None:
        from pathlib import Path

        from lab.corpus.worker import Worker

        self._worker = Worker(Path(out), Path(root), **options)

    def embed(self, number: int) -> dict[str, Any] | None:
        """What a listener needs of the entry of a shard."""
        from lab.corpus.worker import short

        entry = self._worker.embed(number)
        return short(entry) if entry else None


@contextmanager
def _cluster(resources: Resources) -> Iterator[Any]:
    """Ray, connected to a cluster that runs or to one that is ours while the context is open."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the executor 'ray' needs Ray: pip install 'embedding-lab[scale]'"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {
        "num_cpus": resources.workers * resources.cores,
        "object_store_memory": STORE,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    options = {"address": address} if address else local
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        yield ray
    finally:
        ray.shutdown()
