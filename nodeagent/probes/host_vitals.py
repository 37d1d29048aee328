"""The host as a whole, now."""

from bedplate.v1.snapshot_pb2 import HostVitals, Snapshot, Vitals
from nodeagent.host import Host

EVERY_S = 10.0


def probe(host: Host) -> Snapshot:
    root = host.root
    vitals = HostVitals(
        boot_id=root.text("proc/sys/kernel/random/boot_id"),
        load_1m=_load_1m(root.text("proc/loadavg")),
        memory_available_bytes=host.ask("memory").get("available_bytes"),
        kernel_taint=root.natural("proc/sys/kernel/tainted"),
        booted_at_s=host.ask("boot").get("booted_at_s"),
    )
    return Snapshot(vitals=Vitals(host=vitals))


def _load_1m(text: str | None) -> float | None:
    """'0.52 0.58 0.59 1/467 12345' -> 0.52"""
    return float(text.split()[0]) if text else None
