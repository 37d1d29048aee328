"""What the machine runs."""

import shlex

from bedplate.v1.snapshot_pb2 import Inventory, Os, Snapshot
from nodeagent.host import Host

ON = ("module",)

# Loaded modules that matter to GPUs and RDMA; most in the kernel's own tree say no version, and are not listed.
MODULES = (
    "bnxt_re",
    "efa",
    "ib_umad",
    "ib_uverbs",
    "irdma",
    "mlx5_core",
    "mlx5_ib",
    "nvidia",
    "nvidia_fs",
    "nvidia_peermem",
    "nvidia_uvm",
)


def probe(host: Host) -> Snapshot:
    root = host.root
    release = _os_release(root.text("etc/os-release") or root.text("usr/lib/os-release") or "")
    told = host.ask("uname")
    versions = {module: root.text(f"sys/module/{module}/version") for module in MODULES}
    system = Os(
        id=release.get("ID"),
        version=release.get("VERSION_ID"),
        name=release.get("PRETTY_NAME"),
        image_version=release.get("IMAGE_VERSION"),
        kernel=told.get("kernel"),
        architecture=told.get("architecture"),
        command_line=root.text("proc/cmdline"),
        module_versions={module: version for module, version in versions.items() if version},
    )
    return Snapshot(inventory=Inventory(os=system))


def _os_release(text: str) -> dict[str, str]:
    """'PRETTY_NAME="Debian 12"' -> {"PRETTY_NAME": "Debian 12"}, and so each line; comments are left out."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): _unquoted(value.strip()) for key, sign, value in pairs if sign}


def _unquoted(value: str) -> str:
    if value[:1] in {'"', "'"} and value[-1:] == value[:1] and value.count(value[0]) > 1:
        return "".join(shlex.split(value)) if "\\" in value else value[1:-1]
    return value
