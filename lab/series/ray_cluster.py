"""Runs on a Ray cluster: each is a task, sent where the cores and GPUs for it are free.

Ray says which node, sets CUDA_VISIBLE_DEVICES there, and sends a run elsewhere when its worker or
its node is lost. The run is that of ``runner.run``, in a process group of its own: it ends with the
Ray worker that watches it, however that ends. The machines must share the folder of the runs.
"""

import os
from contextlib import ExitStack
from typing import Any

from lab import cluster, runner
from lab.series.plan import Task
from lab.series.pools import Execute, Executor, Pool, execute

RETRIES = 3  # of a run whose worker or node is lost; one that failed is not done again
LOOK = 0.5  # seconds between two looks for a signal
LEASE = 120.0  # seconds in which a file system frees the lock of a machine that is lost


def on_ray(jobs: int | None) -> Executor:
    """Runs on a Ray cluster: that many at a time, by default as many as it has cores.

    How many of these run at once is Ray's to say: those whose cores and GPUs are free.
    """
    with ExitStack() as opening:
        ray = opening.enter_context(cluster.connected(len(os.sched_getaffinity(0))))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node.get("CPU", 0)) for node in nodes]
        jobs = jobs or max(1, sum(cores))
        threads = max(1, min(sum(cores) // jobs, max(cores)))
        return Pool(jobs, threads, _sending(ray, nodes), opening.pop_all().close)


def _sending(ray: Any, nodes: list[dict[str, float]]) -> Execute:
    remote = ray.remote(_work)

    def run(task: Task, told: runner.Told) -> runner.Run | None:
        wanted = {"CPU": task.threads or 1, "GPU": task.gpus}
        if not any(all(node.get(k, 0) >= n for k, n in wanted.items()) for node in nodes):
            largest = ", ".join(sorted({_shown(node) for node in nodes}))
            raise ValueError(
                f"no node of the Ray cluster has {_shown(wanted)}, which the run asks for; there "
                f"are nodes with {largest}"
            )
        options = remote.options(
            num_cpus=wanted["CPU"], num_gpus=wanted["GPU"], max_retries=RETRIES, name=task.name
        )
        return _result(ray, options.remote(task), told)

    return run


def _result(ray: Any, sent: Any, told: runner.Told) -> runner.Run | None:
    """The run, once it is over; None if it was told to stop before it started."""
    cancelled = False
    while True:
        try:
            found: runner.Run = ray.get(sent, timeout=LOOK)
            return found
        except ray.exceptions.GetTimeoutError:
            if told() and not cancelled:
                cancelled = True
                ray.cancel(sent)
        except ray.exceptions.TaskCancelledError:
            return None
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            says = str(error).strip().splitlines()[0]
            raise OSError(f"its worker was lost {RETRIES + 1} times: {says}") from None


def _work(task: Task) -> runner.Run:
    """The run, in the main thread of a Ray worker, which ``ray.cancel`` interrupts like Ctrl-C."""
    return execute(task, None, patience=LEASE)


def _shown(resources: dict[str, float]) -> str:
    return f"CPU {resources.get('CPU', 0):g} and GPU {resources.get('GPU', 0):g}"
