"""The whole PCI tree: every function, with the bridges above it and its link at best."""

from bedplate.v1.snapshot_pb2 import Inventory, PciDevice, Snapshot
from nodeagent.host import Host
from nodeagent.pci import chain, gigatransfers, width
from nodeagent.root import Root

ON = ("pci",)

DEVICES = "sys/bus/pci/devices"


def probe(host: Host) -> Snapshot:
    devices = [_device(host.root, address) for address in host.root.names(DEVICES)]
    return Snapshot(inventory=Inventory(pci_devices=devices))


def _device(root: Root, address: str) -> PciDevice:
    path = f"{DEVICES}/{address}"
    return PciDevice(
        address=address.lower(),
        chain=chain(root.real(path)),
        vendor_id=root.natural(f"{path}/vendor", bits=32),
        device_id=root.natural(f"{path}/device", bits=32),
        subsystem_vendor_id=root.natural(f"{path}/subsystem_vendor", bits=32),
        subsystem_device_id=root.natural(f"{path}/subsystem_device", bits=32),
        revision=root.natural(f"{path}/revision", bits=32),
        driver=root.link(f"{path}/driver"),
        numa_node=root.natural(f"{path}/numa_node", bits=31),
        max_gigatransfers=gigatransfers(root.text(f"{path}/max_link_speed")),
        max_width=width(root.natural(f"{path}/max_link_width")),
        physical_function=root.link(f"{path}/physfn"),
        **{"class": root.natural(f"{path}/class", bits=32)},
    )
