"""How GPUs, NICs and processors hang together: path types, the NICs nearest to each GPU, rails.

Rule 1: words and verdicts are those of `nvidia-smi topo -m`, down to "no switch is flattened": a GPU and a NIC behind
        two levels of one switch are PXB, as on a DGX A100 or H100, where NCCL would say PIX.
Rule 2: this file does nothing: an inventory comes in, a topology or a text goes out, and the order in which the
        inventory lists its parts makes no difference.
Rule 3: what is not known is not guessed: where a part's device is not in the PCI tree, its path is unspecified, "?".

One difference to nvidia-smi is meant: where the machine has a single NUMA node, all sits on it, although the firmware
of such machines often says nothing (-1 in sysfs) and nvidia-smi then shows SYS, an interconnect that is not there.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import TypeAlias

from bedplate.v1.snapshot_pb2 import Gpu, Inventory, NvLink, PciDevice, Topology

Part: TypeAlias = Topology.Part
Path: TypeAlias = Topology.Path.ValueType
Near: TypeAlias = Mapping[int, list[tuple[Path, int]]]

WORDS: Mapping[Path, str] = {
    Topology.PATH_UNSPECIFIED: "?",
    Topology.PATH_SELF: "X",
    Topology.PATH_NVLINK: "NV",
    Topology.PATH_PIX: "PIX",
    Topology.PATH_PXB: "PXB",
    Topology.PATH_PHB: "PHB",
    Topology.PATH_NODE: "NODE",
    Topology.PATH_SYS: "SYS",
}

LEGEND = """\
Legend:
  X     the same part
  NV#   NVLink, and how many links
  PIX   at most one PCIe switch
  PXB   several PCIe switches, no host bridge
  PHB   a PCIe host bridge
  NODE  host bridges of one NUMA node
  SYS   the interconnect between NUMA nodes
  ?     not known"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part sits. `known` says whether its device is in the PCI tree at all."""

    address: str = ""
    bridges: tuple[str, ...] = ()
    host_bridge: str = ""
    numa_node: int | None = None
    known: bool = False

    @property
    def slot(self) -> str:
        """'0000:53:00.1' -> '0000:53:00': the functions of one device share it."""
        return self.address.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Member:
    """A part before it has neighbours: its name, its place, and the GPU that it is, if it is one."""

    name: str
    place: Place
    gpu: Gpu | None = None


def topology(inventory: Inventory) -> Topology:
    """GPUs first, by address, as nvidia-smi numbers them; then NICs, by name."""
    members = _members(inventory)
    pairs = [_pair(a, b, members) for a, b in combinations(range(len(members)), 2)]
    near = _neighbours(members, pairs)
    rails = _rails(members, near)
    cpus = {node.number: node.cpus for node in inventory.numa_nodes if node.HasField("cpus")}
    parts = [_part(number, members, near, rails, cpus) for number in range(len(members))]
    return Topology(parts=parts, pairs=pairs)


def path(a: Place, b: Place) -> Path:
    """How two different parts reach each other over PCIe; the same from either end."""
    if a.slot and a.slot == b.slot:
        return Topology.PATH_PIX
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a.bridges, b.bridges, strict=False)))
    if shared:
        one_switch = max(len(a.bridges), len(b.bridges)) - shared <= 1
        return Topology.PATH_PIX if one_switch else Topology.PATH_PXB
    if a.host_bridge and a.host_bridge == b.host_bridge:
        return Topology.PATH_PHB
    if a.numa_node is not None and a.numa_node == b.numa_node:
        return Topology.PATH_NODE
    return Topology.PATH_SYS if a.known and b.known else Topology.PATH_UNSPECIFIED


def nvlinks(a: Gpu, b: Gpu) -> int:
    """How many active NVLinks join two GPUs: those to one another, else those that both have to NVSwitches."""
    direct = min(_links_to(a, b.pci_address), _links_to(b, a.pci_address))
    return direct or min(_links_to_switches(a), _links_to_switches(b))


def matrix(topology: Topology) -> str:
    """The text that `nvidia-smi topo -m` would print, and where each part sits; no newline at its end."""
    if not topology.parts:
        return "No GPU and no NIC"
    names = [part.name for part in topology.parts]
    rows = [["", *names, "CPU affinity", "NUMA", "PCI address", "Nearest NICs", "Rail"]]
    words = _words(topology)
    for number, part in enumerate(topology.parts):
        cells = ["X" if number == other else words.get((number, other), "?") for other in range(len(names))]
        rows.append([part.name, *cells, *_columns(part)])
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return f"{_table(columns)}\n\n{LEGEND}"


def by_number(name: str) -> list[tuple[int, str]]:
    """For sorting: mlx5_2 stands before mlx5_10. A number of thousands of digits is one that `int` refuses."""
    return [
        (len(digits := piece.lstrip("0")), digits) if piece.isdecimal() else (-1, piece)
        for piece in re.split(r"([0-9]+)", name)
    ]


def _members(inventory: Inventory) -> list[Member]:
    devices = {device.address: device for device in inventory.pci_devices}
    numbers = [node.number for node in inventory.numa_nodes]
    lone = numbers[0] if len(numbers) == 1 else None
    gpus = sorted(inventory.gpus, key=lambda gpu: (gpu.pci_address, gpu.uuid))
    return [
        *(Member(f"GPU{n}", _place(gpu.pci_address, devices, lone), gpu) for n, gpu in enumerate(gpus)),
        *(Member(name, _place(address, devices, lone)) for name, address in _nics(inventory, devices)),
    ]


def _nics(inventory: Inventory, devices: Mapping[str, PciDevice]) -> list[tuple[str, str]]:
    """Name and address: RDMA devices, or interfaces that are hardware where there is none; no virtual functions."""
    nics = [(device.name, device.pci_address) for device in inventory.rdma_devices if device.pci_address]
    if not nics:
        nics = [
            (link.name, link.pci_address)
            for link in inventory.links
            if link.pci_address or (link.driver and not link.kind)
        ]
    physical = {address for _, address in nics}
    real = ((name, address) for name, address in nics if _physical_function(address, devices) not in physical)
    return sorted(real, key=lambda nic: by_number(nic[0]))


def _physical_function(address: str, devices: Mapping[str, PciDevice]) -> str | None:
    device = devices.get(address)
    return device.physical_function if device is not None and device.HasField("physical_function") else None


def _place(address: str, devices: Mapping[str, PciDevice], lone_numa_node: int | None) -> Place:
    """The host bridge is the nearest above: behind Intel VMD a second one hangs in the chain of the first."""
    device = devices.get(address)
    if device is None:
        return Place(address, numa_node=lone_numa_node)
    return Place(
        address=address,
        bridges=tuple(piece for piece in device.chain if not piece.startswith("pci")),
        host_bridge=next((piece for piece in reversed(device.chain) if piece.startswith("pci")), ""),
        numa_node=device.numa_node if device.HasField("numa_node") else lone_numa_node,
        known=True,
    )


def _pair(a: int, b: int, members: list[Member]) -> Topology.Pair:
    one, other = members[a], members[b]
    count = nvlinks(one.gpu, other.gpu) if one.gpu is not None and other.gpu is not None else 0
    way = Topology.PATH_NVLINK if count else path(one.place, other.place)
    return Topology.Pair(one=a, other=b, path=way, nvlinks=count)


def _links_to(gpu: Gpu, address: str) -> int:
    return sum(1 for link in gpu.nvlinks if link.active and link.remote_pci_address == address)


def _links_to_switches(gpu: Gpu) -> int:
    """A far end that the driver hides, as it does in virtual machines, is a switch."""
    return sum(
        1
        for link in gpu.nvlinks
        if link.active
        and (
            link.remote == NvLink.REMOTE_SWITCH
            or (link.remote == NvLink.REMOTE_UNSPECIFIED and not link.remote_pci_address)
        )
    )


def _neighbours(members: list[Member], pairs: Iterable[Topology.Pair]) -> Near:
    """For each part those of the other sort (NICs of a GPU, GPUs of a NIC) whose path is known, nearest first."""
    near: dict[int, list[tuple[Path, int]]] = {number: [] for number in range(len(members))}
    for pair in pairs:
        a, b = pair.one, pair.other
        if pair.path and (members[a].gpu is None) != (members[b].gpu is None):
            near[a].append((pair.path, b))
            near[b].append((pair.path, a))
    return {number: sorted(others) for number, others in near.items()}


def _rails(members: list[Member], near: Near) -> dict[int, int]:
    """The NICs that share switches with a GPU, in the order of the GPUs that they are nearest to.

    GPUs count by module where all say theirs: the baseboard is wired to the rails by it, while the N of mlx5_N moves.
    """
    gpus = [member.gpu for member in members if member.gpu is not None]
    modules = all(gpu.HasField("module_id") for gpu in gpus)
    order = {number: gpu.module_id if modules else number for number, gpu in enumerate(gpus)}
    serving = [
        (min(order[gpu] for way, gpu in near[number] if way == near[number][0][0]), number)
        for number, member in enumerate(members)
        if member.gpu is None and near[number] and near[number][0][0] <= Topology.PATH_PXB
    ]
    return {number: rail for rail, (_, number) in enumerate(sorted(serving))}


def _part(number: int, members: list[Member], near: Near, rails: Mapping[int, int], cpus: Mapping[int, str]) -> Part:
    """Members stand in the order of their names, and so do neighbours that tie."""
    member, others = members[number], near[number]
    nearest = others[0][0] if others and member.gpu is not None else Topology.PATH_UNSPECIFIED
    numa_node = member.place.numa_node
    return Part(
        name=member.name,
        pci_address=member.place.address,
        numa_node=numa_node,
        gpu=member.gpu is not None,
        nearest=[members[nic].name for way, nic in others if nearest and way == nearest],
        nearest_path=nearest,
        rail=rails.get(number),
        cpus=None if numa_node is None else cpus.get(numa_node),
    )


def _words(topology: Topology) -> dict[tuple[int, int], str]:
    words = {}
    for pair in topology.pairs:
        a, b = pair.one, pair.other
        word = WORDS.get(pair.path, "?")
        words[a, b] = words[b, a] = f"{word}{pair.nvlinks}" if pair.path == Topology.PATH_NVLINK else word
    return words


def _columns(part: Part) -> list[str]:
    nearest = f"{' '.join(part.nearest)} ({WORDS.get(part.nearest_path, '?')})" if part.nearest else ""
    return [
        part.cpus or "-",
        str(part.numa_node) if part.HasField("numa_node") else "-",
        part.pci_address or "-",
        nearest,
        str(part.rail) if part.HasField("rail") else "",
    ]


def _table(columns: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in columns]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    )
    return "\n".join(line.rstrip() for line in lines)
