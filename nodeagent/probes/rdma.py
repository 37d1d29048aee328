"""RDMA devices and their ports, as built and cabled."""

from bedplate.v1.snapshot_pb2 import Inventory, RdmaDevice, RdmaPort, Snapshot
from nodeagent.host import Host
from nodeagent.pci import address_in
from nodeagent.root import Root

ON = ("infiniband", "net")

DEVICES = "sys/class/infiniband"


def probe(host: Host) -> Snapshot:
    devices = [_device(host.root, name) for name in host.root.names(DEVICES)]
    return Snapshot(inventory=Inventory(rdma_devices=devices))


def _device(root: Root, name: str) -> RdmaDevice:
    path = f"{DEVICES}/{name}"
    numbers = sorted(int(number) for number in root.names(f"{path}/ports") if number.isdecimal())
    return RdmaDevice(
        name=name,
        # A software device (rxe) has none; its own path then goes through no PCI device either.
        pci_address=address_in(root.real(f"{path}/device")),
        node_guid=root.text(f"{path}/node_guid"),
        system_image_guid=root.text(f"{path}/sys_image_guid"),
        firmware_version=root.text(f"{path}/fw_ver"),
        model=root.text(f"{path}/hca_type"),
        board_id=root.text(f"{path}/board_id"),
        ports=[_port(root, path, number) for number in numbers],
    )


def _port(root: Root, path: str, number: int) -> RdmaPort:
    port = f"{path}/ports/{number}"
    # RoCE says which interface its first address is on; a software device names its parent; of others the interfaces
    # of the same PCI function that have this port's number.
    told = {root.text(f"{port}/gid_attrs/ndevs/0"), root.text(f"{path}/parent")} - {None}
    return RdmaPort(
        number=number,
        link_layer=root.text(f"{port}/link_layer"),
        links=sorted(link for link in told | set(_links_of(root, path, number)) if link),
    )


def _links_of(root: Root, path: str, number: int) -> list[str]:
    net = f"{path}/device/net"
    return [name for name in root.names(net) if root.natural(f"{net}/{name}/dev_port") == number - 1]
