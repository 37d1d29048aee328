"""Which NVIDIA GPUs a machine has, without asking NVIDIA's library: from the PCI bus and from the kernel module.

Both are needed. A GPU may leave the library's list without a word in the kernel's log, and only a count from another
source shows it; and a machine where neither shows anything is spared the library altogether.
"""

import re

from nodeagent.root import Root

_NVIDIA = 0x10DE
_DISPLAY = 0x03
_DEVICES = "sys/bus/pci/devices"
_DRIVER = "proc/driver/nvidia"
_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([01][0-9a-f])(?:\.([0-7]))?")


def driver_loaded(root: Root) -> bool:
    return root.exists(_DRIVER)


def on_the_bus(root: Root) -> list[str]:
    """Addresses of NVIDIA's display-class PCI functions, physical ones: a virtual function is a guest's GPU."""
    return [
        name
        for name in root.names(_DEVICES)
        if root.number(f"{_DEVICES}/{name}/vendor") == _NVIDIA
        and (root.number(f"{_DEVICES}/{name}/class") or 0) >> 16 == _DISPLAY
        and not root.exists(f"{_DEVICES}/{name}/physfn")
    ]


def held_by_the_driver(root: Root) -> list[str]:
    return [name.lower() for name in root.names(f"{_DRIVER}/gpus")]


def for_the_driver(root: Root) -> list[str]:
    """Those that NVIDIA's driver should answer for: all but those that another driver holds."""
    bus = [address for address in on_the_bus(root) if not foreign_driver(root, address)]
    return sorted({*bus, *held_by_the_driver(root)})


def foreign_driver(root: Root, address: str) -> str | None:
    """'vfio-pci' where a GPU is given to something else than NVIDIA's driver."""
    driver = root.link(f"{_DEVICES}/{address}/driver")
    return driver if driver != "nvidia" else None


def normal(address: str) -> str | None:
    """'00000000:A8:00.0' -> '0000:a8:00.0', as the kernel writes it; None for what is no address.

    NVML prints eight digits of the domain, the kernel at least four, and domains beyond 16 bits exist. A guest sees
    'fffffff:ffff:ff' at the far end of a link.
    """
    found = _ADDRESS.fullmatch(address.lower())
    if not found:
        return None
    domain, bus, device, function = found.groups()
    return f"{int(domain, 16):04x}:{bus}:{device}.{function or 0}"
