"""File systems on disks: how full, and whether they turned read-only."""

from typing import Any

from bedplate.v1.snapshot_pb2 import FilesystemVitals, Snapshot, Vitals
from nodeagent.host import Host

EVERY_S = 60.0


def probe(host: Host) -> Snapshot:
    vitals = {mount["mount"]: _filesystem(mount) for mount in _one_each(host.ask("filesystems"))}
    return Snapshot(vitals=Vitals(filesystems=vitals))


def _one_each(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each device the mount with the shortest path: containers mount the same one again and again."""
    found: dict[str, dict[str, Any]] = {}
    for mount in sorted(mounts, key=lambda mount: (len(mount["mount"]), mount["mount"])):
        if not mount["device"].startswith("/dev/loop"):
            found.setdefault(mount["device"], mount)
    return list(found.values())


def _filesystem(mount: dict[str, Any]) -> FilesystemVitals:
    return FilesystemVitals(
        size_bytes=mount.get("size_bytes"), free_bytes=mount.get("free_bytes"), read_only=mount.get("read_only")
    )
