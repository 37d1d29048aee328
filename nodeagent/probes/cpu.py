"""The processors, all sockets together."""

import re

from bedplate.v1.snapshot_pb2 import Cpu, Inventory, Snapshot
from nodeagent.host import Host

ON = ("cpu",)


def probe(host: Host) -> Snapshot:
    root = host.root
    counted = host.ask("cpu")
    packages = {
        root.natural(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/topology/physical_package_id")
    }
    cpu = Cpu(
        model=_model(root.text("proc/cpuinfo") or ""),
        sockets=len(packages - {None}) or None,
        cores=counted.get("cores"),
        threads=counted.get("threads"),
    )
    return Snapshot(inventory=Inventory(cpu=cpu))


def _model(cpuinfo: str) -> str | None:
    """'model name  : Intel(R) Xeon(R) Platinum 8480C' -> 'Intel(R) Xeon(R) Platinum 8480C'"""
    found = re.search(r"^(?:model name|Processor|cpu model)\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else None
