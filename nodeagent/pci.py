"""How sysfs writes PCI addresses and links: the small reading that several probes share."""

import re

ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")


def address_in(path: str) -> str | None:
    """The PCI device that a sysfs path goes through last.

    'sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0' -> '0000:00:03.0'
    """
    found = [part for part in path.split("/") if ADDRESS.fullmatch(part)]
    return found[-1] if found else None


def chain(path: str) -> list[str]:
    """The bridges above the device at the end of a sysfs path, from the host bridge down."""
    parts = path.split("/")[:-1]
    return [part for part in parts if ADDRESS.fullmatch(part) or HOST_BRIDGE.fullmatch(part)]


def gigatransfers(text: str | None) -> float | None:
    """'32.0 GT/s PCIe' -> 32.0; 'Unknown' -> None"""
    found = re.match(r"(\d+(?:\.\d+)?) GT/s", text or "")
    return float(found[1]) if found else None


def width(lanes: int | None) -> int | None:
    """Lanes of a link; 0 is no link and 255 is how the kernel says that it does not know."""
    return lanes if lanes is not None and 0 < lanes < 64 else None  # noqa: PLR2004 - PCIe ends at 32
