"""Ray actors, each with a warm model, on one machine or on a cluster with a shared file system."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lab import cluster
from lab.corpus.plan import Plan
from lab.corpus.resources import Listen, Resources, Stop

RETRIES = 3  # of a shard whose actor is lost with its process or node
LOOK = 0.2  # seconds between two looks for a signal


def actors(
    plan: Plan, numbers: Sequence[int], resources: Resources, listen: Listen, stop: Stop
) -> None:
    """Nothing; the shards are done, or we were told to stop. Each actor has one shard at a time.

    The shard of an actor that is lost goes to the next that is free, and a new actor is started
    where there is room for it.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError, OSError: what a worker could not do.
        ChildProcessError: actors are lost again and again, on one shard or while they load.
    """
    with cluster.connected(resources.workers * resources.cores) as ray:
        kind = ray.remote(_Actor).options(
            num_cpus=resources.cores,
            num_gpus=resources.gpus,
            runtime_env={"env_vars": resources.variables()},
        )
        waiting = list(numbers)
        losses: Counter[int | None] = Counter()
        idle: list[tuple[Any, int]] = []
        running: dict[Any, tuple[Any, int, int | None]] = {}  # actor, place, shard; None: it loads

        def start(place: int) -> None:
            actor = kind.remote()
            options = resources.options(f"ray:{place}", plan.digest)
            ready = actor.load.remote(str(plan.out.resolve()), str(plan.root.resolve()), options)
            running[ready] = actor, place, None

        def lose(place: int, number: int | None, error: Exception) -> None:
            how = str(error).strip().splitlines()[0]
            losses[number] += 1
            if losses[number] > RETRIES:
                where = "while it loaded" if number is None else f"in {plan.shards[number]}"
                raise ChildProcessError(f"the actor was lost {where}, {RETRIES + 1} times: {how}")
            listen({"event": "died", "shard": number, "how": how})
            waiting[:0] = [] if number is None else [number]
            start(place)

        for place in range(resources.workers):
            start(place)
        while (waiting and not stop.times) or any(n is not None for _, _, n in running.values()):
            while idle and waiting and not stop.times:
                (actor, place), number = idle.pop(), waiting.pop(0)
                running[actor.embed.remote(number)] = actor, place, number
                listen({"event": "begin", "shard": number})
            if stop.times > 1:
                return
            for task in ray.wait(list(running), num_returns=1, timeout=LOOK)[0]:
                actor, place, done = running.pop(task)
                try:
                    entry = ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    lose(place, done, error)
                    continue
                losses.pop(None, None)
                idle.append((actor, place))
                if entry:
                    listen({"event": "done", **entry})


class _Actor:
    """A worker in an actor's process; its events are return values."""

    def load(self, out: str, root: str, options: dict[str, Any]) -> None:
        """Nothing; the model is warm."""
        from pathlib import Path

        from lab.corpus.worker import Worker

        self._worker = Worker(Path(out), Path(root), **options)

    def embed(self, number: int) -> dict[str, Any] | None:
        """What a listener needs of the entry of a shard."""
        from lab.corpus.worker import short

        entry = self._worker.embed(number)
        return short(entry) if entry else None
