"""The NICs of a machine as a person counts them: an RDMA device and the interfaces that ride on it are one NIC.

Virtual interfaces are none; virtual functions are marked, so that a list may fold them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bedplate.v1.snapshot_pb2 import Inventory, Link, RdmaDevice, Vitals
from provisioner.cli.views import words


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device sits. `chain` holds the bridges above it, from the host bridge down; `cpus` its NUMA node's."""

    address: str = ""
    chain: tuple[str, ...] = ()
    driver: str = ""
    numa_node: int | None = None
    cpus: str = ""
    virtual_function: bool = False

    @property
    def numa(self) -> str:
        return "NUMA ?" if self.numa_node is None else f"NUMA {self.numa_node}"


@dataclass(frozen=True, slots=True)
class Nic:
    """`well` is None where nobody measured it."""

    name: str
    links: tuple[str, ...]
    place: Place
    speed: str = ""
    state: str = ""
    well: bool | None = None

    @property
    def title(self) -> str:
        """'mlx5_0 (ibp24s0)'"""
        return f"{self.name} ({', '.join(self.links)})" if self.links else self.name

    @property
    def style(self) -> str:
        return "" if self.well is None else ("green" if self.well else "red")


def nics(inventory: Inventory, vitals: Vitals) -> list[Nic]:
    """RDMA devices first, then the other interfaces that are hardware; each as people count, mlx5_2 before mlx5_10."""
    found = (
        [_rdma(device, inventory, vitals) for device in inventory.rdma_devices],
        [_plain(link, inventory, vitals) for link in _others(inventory)],
    )
    return [nic for kind in found for nic in sorted(kind, key=_by_number)]


def _by_number(nic: Nic) -> list[tuple[int, str]]:
    """By how many digits and which: `int` refuses thousands of them, and a name is what a machine says it is."""
    return [
        (len(digits := piece.lstrip("0")), digits) if piece.isdecimal() else (-1, piece)
        for piece in re.split(r"([0-9]+)", nic.name)
    ]


def virtual_links(inventory: Inventory) -> list[str]:
    return [link.name for link in inventory.links if not _is_hardware(link)]


def place(address: str, inventory: Inventory) -> Place:
    """The agent's own verdict on the NUMA node comes first: where firmware is silent, a lone node is the one."""
    device = next((device for device in inventory.pci_devices if device.address == address), None)
    part = next((part for part in inventory.topology.parts if part.pci_address == address), None)
    numa_node = part.numa_node if part is not None and part.HasField("numa_node") else None
    if device is None:
        return Place(address, numa_node=numa_node, cpus=_cpus(numa_node, inventory))
    if numa_node is None and device.HasField("numa_node"):
        numa_node = device.numa_node
    return Place(
        address=address,
        chain=tuple(device.chain),
        driver=device.driver,
        numa_node=numa_node,
        cpus=_cpus(numa_node, inventory),
        virtual_function=device.HasField("physical_function"),
    )


def _cpus(numa_node: int | None, inventory: Inventory) -> str:
    return next((node.cpus for node in inventory.numa_nodes if node.number == numa_node), "")


def _is_hardware(link: Link) -> bool:
    return bool(link.pci_address or (link.driver and not link.kind))


def _others(inventory: Inventory) -> Iterator[Link]:
    taken = {link for device in inventory.rdma_devices for link in _riding(device, inventory)}
    return (link for link in inventory.links if link.name not in taken and _is_hardware(link))


def _riding(device: RdmaDevice, inventory: Inventory) -> tuple[str, ...]:
    by_port = [name for port in device.ports for name in port.links]
    by_place = [link.name for link in inventory.links if link.pci_address and link.pci_address == device.pci_address]
    return tuple(dict.fromkeys([*by_port, *by_place]))


def _rdma(device: RdmaDevice, inventory: Inventory, vitals: Vitals) -> Nic:
    keys = [f"{device.name}/{port.number}" for port in device.ports]
    ports = [vitals.rdma_ports[key] for key in keys if key in vitals.rdma_ports]
    states = [port.state for port in ports if port.HasField("state")]
    speeds = [port.gigabits for port in ports if port.HasField("gigabits")]
    layers = dict.fromkeys(port.link_layer for port in device.ports if port.link_layer)
    return Nic(
        name=device.name,
        links=_riding(device, inventory),
        place=place(device.pci_address, inventory),
        speed=" ".join([*([words.speed(max(speeds))] if speeds else []), "/".join(layers)]).strip(),
        state="/".join(dict.fromkeys(state.lower() for state in states)),
        well=all(state == "ACTIVE" for state in states) if states else None,
    )


def _plain(link: Link, inventory: Inventory, vitals: Vitals) -> Nic:
    here = place(link.pci_address, inventory) if link.pci_address else Place()
    here = replace(here, driver=link.driver or here.driver)  # a virtio_net sits on a virtio-pci
    if link.name not in vitals.links:
        return Nic(link.name, (), here)
    now = vitals.links[link.name]
    return Nic(
        name=link.name,
        links=(),
        place=here,
        speed=words.speed(now.gigabits) if now.gigabits > 0 else "",
        state=now.operational_state,
        well=now.operational_state == "up" if now.operational_state in {"up", "down", "lowerlayerdown"} else None,
    )
