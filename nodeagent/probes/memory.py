"""Main memory, and how much of it is set aside as huge pages."""

import re

from bedplate.v1.snapshot_pb2 import Inventory, Memory, Snapshot
from nodeagent.host import Host
from nodeagent.root import Root

ON = ("memory",)

HUGE_PAGES = "sys/kernel/mm/hugepages"


def probe(host: Host) -> Snapshot:
    total = host.ask("memory").get("total_bytes")
    return Snapshot(inventory=Inventory(memory=Memory(total_bytes=total, huge_page_bytes=_huge_page_bytes(host.root))))


def _huge_page_bytes(root: Root) -> int | None:
    """Over all page sizes; None where the kernel knows none."""
    sizes = [(name, re.fullmatch(r"hugepages-(\d+)kB", name)) for name in root.names(HUGE_PAGES)]
    pages = [(root.natural(f"{HUGE_PAGES}/{name}/nr_hugepages"), size) for name, size in sizes if size]
    counted = [count * int(size[1]) * 1024 for count, size in pages if count is not None]
    return sum(counted) if counted else None
