"""Where the runs of a series are executed: here, or on the machines of a Ray cluster.

``EXECUTORS`` has one function jobs -> Executor for each way; jobs None: as many as there is room.
"""

import os
from collections.abc import Callable

from lab import runner
from lab.registry import Registry
from lab.series.gpus import Gpus
from lab.series.plan import Task
from lab.series.pools import Execute, Executor, Pool, execute
from lab.series.ray_cluster import on_ray

EXECUTORS: Registry[Callable[[int | None], Executor]] = Registry("executor")
EXECUTORS(on_ray, "ray")


@EXECUTORS
def serial(jobs: int | None) -> Executor:
    """One run after another; a run may use every core."""
    if jobs not in (None, 1):
        raise ValueError(f"the executor 'serial' has one run at a time, came -j {jobs}")
    return _here(1)


@EXECUTORS
def processes(jobs: int | None) -> Executor:
    """That many runs at a time on this machine, by default one."""
    return _here(jobs or 1)


def _here(jobs: int) -> Executor:
    """Runs on this machine, which share its cores and its GPUs."""
    return Pool(jobs, max(1, len(os.sched_getaffinity(0)) // jobs), _sharing(Gpus()))


def _sharing(gpus: Gpus) -> Execute:
    def run(task: Task, told: runner.Told) -> runner.Run | None:
        with gpus.taken(task.gpus, told) as names:
            return None if told() else execute(task, told, gpus=names)

    return run
