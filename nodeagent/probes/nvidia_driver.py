"""NVIDIA's kernel module, as /proc tells without its library: which version runs, and whether it is the open one."""

import re

from bedplate.v1.snapshot_pb2 import Inventory, NvidiaDriver, Snapshot
from nodeagent.host import Host

ON = ("module",)


def probe(host: Host) -> Snapshot:
    text = host.root.text("proc/driver/nvidia/version")
    return Snapshot(inventory=Inventory(nvidia_driver=_module(text))) if text else Snapshot()


def _module(text: str) -> NvidiaDriver:
    """'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build …' -> 580.105.08, open"""
    line = text.partition("\n")[0]
    version = re.search(r"\b\d+\.\d+(\.\d+)?\b", line)
    return NvidiaDriver(module_version=version[0] if version else None, open_module="Open Kernel Module" in line)
