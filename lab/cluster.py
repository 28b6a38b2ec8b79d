"""Ray: a cluster that runs, or one of our own for as long as it is needed.

Ray is an extra: ``pip install 'embedding-lab[scale]'``. ``RAY_ADDRESS`` names the cluster ("auto":
the one that runs on this machine); without it one is started here, on 127.0.0.1. Neither has a
dashboard or usage statistics of ours. Its machines must see the same files as this one.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab import paths

STORE = 100 << 20  # bytes of the object store: only arguments and small results pass through it
ANSWER = 10.0  # seconds that a cluster may take to accept a connection
# How the variables begin that workers get.
FORWARDED = ("LAB_", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME")


@contextmanager
def connected(cores: int) -> Iterator[Any]:
    """Ray, connected to the cluster that runs, or to one of ours with so many cores.

    One that is connected already stays so, and stays connected.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: no cluster answers at RAY_ADDRESS, or it has another Ray or Python.
    """
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
    address = os.environ.get("RAY_ADDRESS") or "local"
    ours: dict[str, Any] = {
        "num_cpus": cores,
        "object_store_memory": STORE,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    _check_answers(address)
    try:
        ray.init(
            address,
            runtime_env={"env_vars": variables()},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(ours if address == "local" else {}),
        )
    except RuntimeError as error:  # of another version, as Ray says it
        raise ConnectionError(f"RAY_ADDRESS={address}: {error}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def variables() -> dict[str, str]:
    """What a worker needs of our environment: where ``lab``, the data and the models are.

    A worker that ends leaves the processes it started to themselves: those of a run see it, save
    what they have and end with their kernel, which they could not if Ray killed them.
    """
    inherited = os.environ.get("PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)} | {
        "PYTHONPATH": os.pathsep.join([str(paths.ROOT), *([inherited] if inherited else [])]),
        "RAY_kill_child_processes_on_worker_exit": "0",
    }


def _check_answers(address: str) -> None:
    """Nothing; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # local, auto
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); start one with `ray start "
            "--head`, or unset RAY_ADDRESS for one of our own"
        ) from None
