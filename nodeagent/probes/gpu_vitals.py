"""What the dials of the GPUs say, all of them in one question to the driver."""

from bedplate.v1.snapshot_pb2 import GpuVitals, Snapshot, Vitals
from nodeagent.host import Host
from nodeagent.probes.gpus import problems_of

EVERY_S = 10.0
LIMIT_S = 6.0

_NOT_DIALS = frozenset({"pci_address", "uuid", "problems", "unanswered"})


def probe(host: Host) -> Snapshot:
    gpus = host.ask("nvml-vitals")["gpus"]
    dials = {gpu["uuid"]: _dials(gpu) for gpu in gpus if "uuid" in gpu}
    return Snapshot(vitals=Vitals(gpus=dials), problems=[problem for gpu in gpus for problem in problems_of(gpu)])


def _dials(gpu: dict[str, object]) -> GpuVitals:
    return GpuVitals(**{key: value for key, value in gpu.items() if key not in _NOT_DIALS})  # type: ignore[arg-type]
