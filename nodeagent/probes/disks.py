"""Whole block devices that are hardware."""

import re

from bedplate.v1.snapshot_pb2 import Disk, Inventory, Snapshot
from nodeagent.host import Host
from nodeagent.pci import address_in
from nodeagent.root import Root

ON = ("block",)

BLOCK = "sys/block"

# Made of other devices, of memory, or of a network. Not told by "virtual" in the path: there an NVMe disk with several
# paths has its one face, too.
MADE_UP = re.compile(r"(?:loop|ram|zram|dm-|md|nbd|rbd|drbd|zd|fd)\d+.*|md_.+")


def probe(host: Host) -> Snapshot:
    root = host.root
    names = [name for name in root.names(BLOCK) if not MADE_UP.fullmatch(name)]
    disks = [_disk(root, name) for name in names if root.natural(f"{BLOCK}/{name}/hidden") != 1]
    return Snapshot(inventory=Inventory(disks=disks))


def _disk(root: Root, name: str) -> Disk:
    path = f"{BLOCK}/{name}"
    sectors = root.natural(f"{path}/size", bits=54)
    return Disk(
        name=name,
        model=root.text(f"{path}/device/model"),
        serial=root.text(f"{path}/device/serial") or root.text(f"{path}/serial") or _scsi_serial(root, path),
        wwn=root.text(f"{path}/wwid") or root.text(f"{path}/device/wwid"),
        size_bytes=None if sectors is None else sectors * 512,  # sysfs counts so, whatever the disk does
        pci_address=address_in(root.real(path)),
        rotational=_flag(root.natural(f"{path}/queue/rotational")),
        removable=_flag(root.natural(f"{path}/removable")),
    )


def _scsi_serial(root: Root, path: str) -> str | None:
    """The unit's serial number page (0x80): four bytes of header, then text."""
    page = root.data(f"{path}/device/vpd_pg80") or b""
    return page[4:].decode("ascii", "replace").strip("\0 ") or None


def _flag(value: int | None) -> bool | None:
    return None if value is None else value == 1
