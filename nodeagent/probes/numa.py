"""The NUMA nodes: which processors and how much memory each has, and how far they are from each other."""

import re

from bedplate.v1.snapshot_pb2 import Inventory, NumaNode, Snapshot
from nodeagent.host import Host
from nodeagent.root import Root

ON = ("node", "memory", "cpu")


def probe(host: Host) -> Snapshot:
    folders = [(path, re.search(r"/node(\d+)$", path)) for path in host.root.glob("sys/devices/system/node/node[0-9]*")]
    nodes = [_node(host.root, path, int(number[1])) for path, number in folders if number]
    return Snapshot(inventory=Inventory(numa_nodes=sorted(nodes, key=lambda node: node.number)))


def _node(root: Root, path: str, number: int) -> NumaNode:
    return NumaNode(
        number=number,
        cpus=root.text(f"{path}/cpulist"),
        memory_bytes=_memory_bytes(root.text(f"{path}/meminfo") or ""),
        distances=[int(distance) for distance in (root.text(f"{path}/distance") or "").split()],
    )


def _memory_bytes(meminfo: str) -> int | None:
    """'Node 0 MemTotal:  527957272 kB' -> 540628246528"""
    found = re.search(r"MemTotal:\s+(\d+) kB", meminfo)
    return int(found[1]) * 1024 if found else None
