"""GPUs, as NVIDIA's driver describes them, and those that only the PCI bus or the kernel module knows.

Three sources are compared, for a GPU can leave the driver's list without a word in any log. What the driver says
changes without an event too (MIG, ECC, the fabric): so it is asked on a timer as well.
"""

from typing import Any

from bedplate.v1.snapshot_pb2 import Gpu, Inventory, NvidiaDriver, NvLink, Problem, Snapshot
from nodeagent.host import Host
from nodeagent.nvml import presence
from nodeagent.root import Root

ON = ("pci", "module")
EVERY_S = 60.0
LIMIT_S = 6.0  # the worker's client has a deadline of 5


def probe(host: Host) -> Snapshot:
    answer = host.ask("nvml")
    gpus = [_gpu(gpu) for gpu in answer["gpus"] if "uuid" in gpu]
    known = {gpu["pci_address"] for gpu in answer["gpus"]}
    driver = NvidiaDriver(**answer["driver"]) if "driver" in answer else None
    problems = [problem for gpu in answer["gpus"] for problem in problems_of(gpu)]
    return Snapshot(
        inventory=Inventory(gpus=gpus, nvidia_driver=driver), problems=[*problems, *_missing(host.root, known)]
    )


def problems_of(gpu: dict[str, Any]) -> list[Problem]:
    """Why a GPU, or a field of it, could not be read."""
    found = [*([gpu["unanswered"]] if "unanswered" in gpu else []), *gpu.get("problems", [])]
    return [
        Problem(kind=Problem.Kind.Value(f"KIND_{one['kind']}"), part=gpu["pci_address"], detail=one["detail"])
        for one in found
    ]


def _gpu(gpu: dict[str, Any]) -> Gpu:
    plain = {key: value for key, value in gpu.items() if key not in {"nvlinks", "problems"}}
    return Gpu(**plain, nvlinks=[_nvlink(link) for link in gpu.get("nvlinks", [])])


def _nvlink(link: dict[str, Any]) -> NvLink:
    plain = {key: value for key, value in link.items() if key != "remote"}
    remote = NvLink.Remote.Value(f"REMOTE_{link.get('remote', 'unspecified').upper()}")
    return NvLink(**plain, remote=remote)


def _missing(root: Root, known: set[str]) -> list[Problem]:
    """GPUs that are on the bus, or that the kernel module holds, and that the driver's library does not list."""
    bus = set(presence.on_the_bus(root))
    held = set(presence.held_by_the_driver(root))
    return [_missing_one(root, address, on_bus=address in bus) for address in sorted((bus | held) - known)]


def _missing_one(root: Root, address: str, *, on_bus: bool) -> Problem:
    foreign = presence.foreign_driver(root, address) if on_bus else None
    if foreign:
        kind, why = Problem.KIND_ABSENT, f"{foreign} holds it, not NVIDIA's driver"
    elif on_bus:
        kind, why = Problem.KIND_LOST, "it is on the PCI bus, and the driver does not list it"
    else:
        kind, why = Problem.KIND_LOST, "the driver holds it, and it is no longer on the PCI bus"
    return Problem(kind=kind, part=address, detail=f"cannot read GPU {address}: {why}")
