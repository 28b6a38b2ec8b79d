"""Two Ray nodes on this machine, each with two cores and a pretended GPU, 0 and 1.

Run as a program: it says the address of the cluster; a line on its standard input takes the second
node away, as if its machine had lost power, or brings a new one; when the input ends, all ends.
"""

import sys

from ray._private import utils
from ray.cluster_utils import Cluster

ATTEMPTS = 3  # Ray gives a node 15 s to start, which a busy machine may not keep


def add(cluster, gpu):
    for attempt in range(ATTEMPTS):
        try:
            return cluster.add_node(
                num_cpus=2,
                num_gpus=1,
                env_vars={"CUDA_VISIBLE_DEVICES": str(gpu)},
                include_dashboard=False,
                include_log_monitor=False,
                no_monitor=True,
                object_store_memory=80 << 20,
            )
        except Exception:
            if attempt == ATTEMPTS - 1:
                raise


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    utils.get_dashboard_dependency_error = lambda: ImportError("not wanted: agents start faster")
    cluster = Cluster()
    add(cluster, 0)
    second = add(cluster, 1)
    say(cluster.address)
    for line in sys.stdin:
        if line == "lose\n":
            cluster.remove_node(second, allow_graceful=False)
        else:
            second = add(cluster, 1)
        say("done")
    cluster.shutdown()


if __name__ == "__main__":
    main()
