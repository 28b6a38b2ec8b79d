"""What a corpus is embedded with: processes, threads, devices."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab import manifest, paths

Event = dict[str, Any]
Listen = Callable[[Event], None]


@dataclass(frozen=True)
class Resources:
    """Nothing of the output depends on these but its last digits.

    Attributes:
        workers: processes (or Ray actors), each with a model of its own.
        threads: of each; default the cores divided by the workers.
        device: of torch; default the GPU if there is one. Processes take several GPUs in turn.
        token_budget: padded tokens a batch; default 2048 on a CPU, 32768 on a GPU.
        gpus: of each Ray actor; a fraction lets several share one.
    """

    workers: int = 1
    threads: int | None = None
    device: str | None = None
    token_budget: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant.

        Raises:
            ValueError: no worker, thread or token, a negative share of a GPU.
        """
        counts = {
            "workers": self.workers,
            "threads": self.threads,
            "token_budget": self.token_budget,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} must be 1 or more; got {count}")
        if self.gpus < 0:
            raise ValueError(f"gpus is the share of each worker, 0 or more; got {self.gpus}")

    @property
    def cores(self) -> int:
        """Threads of each worker."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.workers)

    def options(self, name: str, planned: str) -> dict[str, Any]:
        """Of a :class:`lab.corpus.worker.Worker` of this name, for the plan with this digest."""
        return {
            "planned": planned,
            "name": name,
            "threads": self.cores,
            "device": self.device,
            "token_budget": self.token_budget,
        }

    def variables(self) -> dict[str, str]:
        """Environment variables of a worker's process, which must be set before it starts."""
        inherited = os.environ.get("PYTHONPATH")
        return {
            "OMP_NUM_THREADS": str(self.cores),
            "RAYON_NUM_THREADS": str(self.cores),  # of the tokenizers
            "TOKENIZERS_PARALLELISM": "true" if self.cores > 1 else "false",
            "LAB_MODE": "batch",
            "PYTHONPATH": os.pathsep.join([str(paths.ROOT), *([inherited] if inherited else [])]),
        }

    def gpu_of(self, place: int) -> dict[str, str]:
        """The variable that shows worker ``place`` one GPU; empty with one GPU, none, or a choice.

        A device with a number ("cuda:1") is a choice.
        """
        if self.device not in (None, "cuda"):
            return {}
        known = manifest.visible_gpus()
        return {manifest.VISIBLE_GPUS: known[place % len(known)]} if len(known) > 1 else {}


@dataclass
class Stop:
    """How often we were told to stop: once means after the shards in hand, twice at once."""

    times: int = 0
