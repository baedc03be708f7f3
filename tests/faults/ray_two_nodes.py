"""A real Ray cluster of two nodes on this machine: prints its address
and the process id of the second node, ends with its stdin."""

import sys

from ray.cluster_utils import Cluster


def main():
    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(**{key: node[key] for key in ("num_cpus", "object_store_memory")})
    cluster.wait_for_nodes()
    raylet = second.all_processes["raylet"][0].process
    print(cluster.address, raylet.pid, flush=True)  # noqa: T201
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
