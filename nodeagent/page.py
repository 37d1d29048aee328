"""A snapshot as a page that a person reads: what the machine is, what its dials say, and at the end what is amiss.

Rule 1: 80 columns; what does not fit is cut, except a problem, which is wrapped.
Rule 2: what was not measured is not shown, and a part that the machine does not have has no heading.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from bedplate.v1.snapshot_pb2 import Disk, Gpu, Inventory, Link, PciDevice, Problem, RdmaDevice, Snapshot, Vitals
from nodeagent.topology import by_number

WIDTH = 80
KINDS = {
    Problem.KIND_UNSPECIFIED: "unclear",
    Problem.KIND_ABSENT: "absent",
    Problem.KIND_NO_PERMISSION: "denied",
    Problem.KIND_TIMEOUT: "too late",
    Problem.KIND_LOST: "lost",
    Problem.KIND_FAILED: "failed",
}

Row = Sequence[str]
Part = TypeVar("Part", Disk, Link, RdmaDevice)


def page(snapshot: Snapshot) -> str:
    """The whole page; it ends with a line feed."""
    inventory, vitals = snapshot.inventory, snapshot.vitals
    taken_at = f"{snapshot.taken_at.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
    lines = [f"{inventory.identity.hostname or 'a machine without a name'}  {taken_at}", ""]
    lines += [_cut(f"{name:<10} {text}") for name, text in _facts(snapshot) if text]
    lines += _section("GPUs", [_gpu(at, gpu, vitals) for at, gpu in enumerate(inventory.gpus)])
    lines += _section("Network interfaces", [_link(link, vitals) for link in _by_number(inventory.links)])
    lines += _section(
        "RDMA devices", [row for device in _by_number(inventory.rdma_devices) for row in _rdma(device, vitals)]
    )
    lines += _section("Disks", [_disk(disk) for disk in _by_number(inventory.disks)])
    lines += _section("File systems", [_filesystem(mount, vitals) for mount in sorted(vitals.filesystems)])
    lines += _section("PCI links below their best", list(_slow_links(inventory, vitals)))
    return "\n".join([*lines, *_problems(snapshot.problems)]) + "\n"


def _by_number(parts: Iterable[Part]) -> list[Part]:
    """In the order of their names as people count: mlx5_2 before mlx5_10."""
    return sorted(parts, key=lambda part: by_number(part.name))


def _facts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    inventory = snapshot.inventory
    who, system, cpu, driver = inventory.identity, inventory.os, inventory.cpu, inventory.nvidia_driver
    serial = f"serial {who.product_serial}" if who.product_serial else ""
    yield "machine", _joined(f"{who.vendor} {who.product}".strip(), serial, _virtual(who.hypervisor))
    yield "firmware", _joined(who.bios_version, who.bios_date)
    yield "system", _joined(system.name, f"kernel {system.kernel}" if system.kernel else "", system.architecture)
    counts = ((cpu.sockets, "socket"), (cpu.cores, "core"), (cpu.threads, "thread"))
    yield "processor", _joined(cpu.model, *(_count(number, word) for number, word in counts if number))
    nodes = len(inventory.numa_nodes)
    yield "memory", _joined(_size(inventory.memory.total_bytes), _count(nodes, "NUMA node") if nodes else "")
    yield "pci", _count(len(inventory.pci_devices), "device")
    models = Counter(gpu.name for gpu in inventory.gpus)
    cuda = f"CUDA {driver.cuda_version}" if driver.cuda_version else ""
    version = driver.module_version or driver.library_version
    yield "gpus", ", ".join(f"{count} x {name}" for name, count in sorted(models.items()))
    yield "driver", _joined(f"NVIDIA {version}" if version else "", cuda, "open module" if driver.open_module else "")
    yield "load", _load(snapshot.vitals)


def _load(vitals: Vitals) -> str:
    host = vitals.host
    available = _size(host.memory_available_bytes)
    return _joined(
        f"{host.load_1m:.2f}" if host.HasField("load_1m") else "",
        f"{available} of memory available" if available else "",
        f"kernel tainted ({host.kernel_taint})" if host.kernel_taint else "",
    )


def _gpu(at: int, gpu: Gpu, vitals: Vitals) -> Row:
    now = vitals.gpus.get(gpu.uuid)
    return (
        f"GPU{at}",
        gpu.pci_address,
        gpu.name,
        _size(gpu.memory_bytes),
        f"{now.celsius:.0f} °C" if now and now.HasField("celsius") else "",
        f"{now.watts:.0f} W" if now and now.HasField("watts") else "",
        f"{len(gpu.nvlinks)} NVLinks" if gpu.nvlinks else "",
    )


def _link(link: Link, vitals: Vitals) -> Row:
    now = vitals.links.get(link.name)
    state = f"{now.operational_state} {_gigabits(now.gigabits)}".strip() if now else ""
    mac = link.mac if len(link.mac) <= len("00:00:00:00:00:00") else ""  # IPoIB's are no use to an eye
    return (link.name, state, link.pci_address or link.kind, link.driver, " ".join(link.addresses[:1]), mac)


def _rdma(device: RdmaDevice, vitals: Vitals) -> Iterator[Row]:
    for port in device.ports:
        key = f"{device.name}/{port.number}"
        now = vitals.rdma_ports.get(key)
        state = f"{now.state} {_gigabits(now.gigabits)}".strip() if now else ""
        yield (key, state, device.pci_address, device.model, port.link_layer, " ".join(port.links))


def _disk(disk: Disk) -> Row:
    spins = "" if not disk.HasField("rotational") else "rotational" if disk.rotational else "solid"
    return (disk.name, _size(disk.size_bytes), disk.pci_address, disk.model, spins, disk.serial)


def _filesystem(mount: str, vitals: Vitals) -> Row:
    now = vitals.filesystems[mount]
    return (mount, f"{_size(now.free_bytes)} free of {_size(now.size_bytes)}", "read-only" if now.read_only else "")


def _slow_links(inventory: Inventory, vitals: Vitals) -> Iterator[Row]:
    """Width alone: a device slows its link when it idles, and does not narrow it."""
    for device in inventory.pci_devices:
        now = vitals.pci_links.get(device.address)
        if now and device.max_width and now.width < device.max_width:
            yield (device.address, _device(device), f"x{now.width} of x{device.max_width}")


def _device(device: PciDevice) -> str:
    return device.driver or f"{device.vendor_id:04x}:{device.device_id:04x}"


def _problems(problems: Sequence[Problem]) -> list[str]:
    if not problems:
        return ["", "Every probe answered."]
    lines = ["", "Problems"]
    for problem in problems:
        head = f"  {KINDS.get(problem.kind, 'unclear'):<8} {problem.probe}: "
        lines += textwrap.wrap(problem.detail, WIDTH, initial_indent=head, subsequent_indent=" " * 11)
    return lines


def _section(title: str, rows: Sequence[Row]) -> list[str]:
    """Columns as wide as they need to be; empty ones fall away."""
    if not rows:
        return []
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    table = zip(*columns, strict=True)
    return ["", title, *(_cut("  " + "  ".join(map(str.ljust, row, widths))) for row in table)]


def _cut(line: str) -> str:
    line = " ".join(line.splitlines()).rstrip()
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _virtual(hypervisor: str) -> str:
    return f"virtual ({hypervisor})" if hypervisor else ""


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _gigabits(number: float) -> str:
    return f"{number:g} Gb/s" if number else ""


def _size(count: float) -> str:
    """25276510208 -> '23.5 GiB'"""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1000:  # noqa: PLR2004 - three digits are shown
            return f"{count:.3g} {unit}" if count else ""
        count /= 1024
    return f"{count:.4g} PiB"
