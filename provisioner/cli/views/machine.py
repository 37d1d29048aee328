"""One machine on a page: who, where and in what phase; what it is made of; what nobody could find out.

Lists that are long on some machines are folded, and say how many they hold back.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from bedplate.v1.fleet_pb2 import GetMachineResponse, Machine
from bedplate.v1.snapshot_pb2 import Disk, Gpu, Inventory, Problem, Snapshot
from provisioner.cli.terminal import Terminal, cut, flowed, plain, wrapped
from provisioner.cli.views import machines, words
from provisioner.cli.views.nics import Nic, nics, virtual_links

LABEL = 11
SKEW_S = 30.0  # of a host's clock: less is not worth a line of the page
FOLD = 16
FOLD_PROBLEMS = 6


def page(answer: GetMachineResponse, terminal: Terminal, now: float, *, everything: bool = False) -> list[str]:
    """`everything` folds nothing."""
    machine, snapshot = answer.machine, answer.snapshot
    inventory = snapshot.inventory
    lines = _opening(machine, terminal, now)
    if not snapshot.HasField("inventory"):
        return [*lines, "", *wrapped("It has sent no snapshot yet.", terminal.page_width)]
    sections: Sequence[tuple[str, list[str]]] = (
        ("Machine", _who(inventory)),
        ("System", _system(inventory, machine)),
        ("CPU", _cpu(inventory)),
        ("Memory", _memory(snapshot)),
        ("NUMA", _numa(inventory)),
        ("GPUs", _gpus(inventory)),
    )
    lines.append("")
    for label, texts in sections:
        lines += _section(label, texts, terminal)
    lines += _nics(snapshot, terminal, everything=everything)
    lines += _section("Disks", _disks(inventory.disks), terminal)
    return [*lines, *_problems(snapshot.problems, terminal, everything=everything)]


def _opening(machine: Machine, terminal: Terminal, now: float) -> list[str]:
    phase, colour = words.phase(machine.phase)
    name, life = plain(machine.machine_id), f"life {machine.incarnation}"
    lines = [f"{terminal.paint(plain(machine.hostname) or name, 'bold')}  {name}, {life}"]
    first, *more = wrapped(machine.because or "-", terminal.page_width, first=f"{phase}: ", rest="  ")
    lines += [terminal.paint(phase, colour) + first.removeprefix(phase), *more]
    came = [("asked", machine.asked_at, "asked_at"), ("accepted", machine.accepted_at, "accepted_at")]
    facts = [f"heard {machines.heard(machine, now)}" + (f" from {machine.peer}" if machine.peer else "")]
    facts += [f"{word} {words.instant(stamp)}" for word, stamp, name in came if machine.HasField(name)]  # type: ignore[arg-type]
    return [*lines, *flowed(facts, terminal.page_width), *_clock(machine, terminal)]


def _clock(machine: Machine, terminal: Terminal) -> list[str]:
    """A sentence where the host's clock is far from the provisioner's."""
    skew = machine.clock_skew_s
    if abs(skew) <= SKEW_S:
        return []
    text = f"Its clock is {words.span(abs(skew))} {'ahead' if skew > 0 else 'behind'}: set it right (timedatectl)."
    return [terminal.paint(line, "yellow") for line in wrapped(text, terminal.page_width)]


def _section(label: str, texts: Iterable[str], terminal: Terminal) -> list[str]:
    """A label, and lines that stand beside it; nothing where there is nothing to say."""
    lines: list[str] = []
    for text in texts:
        first = (label if not lines else "").ljust(LABEL)
        lines += wrapped(text, terminal.page_width, first=first, rest=" " * LABEL)
    if lines:
        lines[0] = terminal.paint(label, "bold") + lines[0][len(label) :]
    return lines


def _who(inventory: Inventory) -> list[str]:
    identity = inventory.identity
    name = " ".join(word for word in (identity.vendor, _unless_in(identity.product, identity.vendor)) if word)
    serial = f"serial {identity.product_serial}" if identity.product_serial else ""
    bios = f"BIOS {identity.bios_version}" if identity.bios_version else ""
    virtual = f"virtual ({identity.hypervisor})" if identity.hypervisor else ""
    bmc = f"BMC {identity.bmc_mac}" if identity.bmc_mac else ""
    return [text] if (text := ", ".join(word for word in (name, serial, virtual, bios, bmc) if word)) else []


def _unless_in(product: str, vendor: str) -> str:
    """'NVIDIA DGX-2H', 'NVIDIA' -> 'DGX-2H'"""
    return product.removeprefix(vendor).strip() if vendor else product


def _system(inventory: Inventory, machine: Machine) -> list[str]:
    os = inventory.os
    kernel = f"kernel {os.kernel}" if os.kernel else ""
    arch = os.architecture
    agent = f"agent {machine.agent_version}" if machine.agent_version else ""
    name = os.name or os.id
    image = os.image_version if os.image_version not in name else ""
    text = ", ".join(word for word in (name, image, kernel, arch, agent) if word)
    return [text] if text else []


def _cpu(inventory: Inventory) -> list[str]:
    cpu = inventory.cpu
    sockets = f"{cpu.sockets} x {cpu.model or 'CPU'}" if cpu.sockets else cpu.model
    cores = words.count(cpu.cores, "core") if cpu.HasField("cores") else ""
    threads = words.count(cpu.threads, "thread") if cpu.HasField("threads") else ""
    text = ", ".join(word for word in (sockets, cores, threads) if word)
    return [text] if text else []


def _memory(snapshot: Snapshot) -> list[str]:
    memory, host = snapshot.inventory.memory, snapshot.vitals.host
    texts = [words.binary(memory.total_bytes)] if memory.HasField("total_bytes") else []
    if host.HasField("memory_available_bytes"):
        texts.append(f"{words.binary(host.memory_available_bytes)} available")
    if memory.huge_page_bytes:
        texts.append(f"{words.binary(memory.huge_page_bytes)} in huge pages")
    return [", ".join(texts)] if texts else []


def _numa(inventory: Inventory) -> list[str]:
    nodes = inventory.numa_nodes
    if not nodes:
        return []
    parts = [f"{node.number}" + (f" (cpus {node.cpus})" if node.cpus else "") for node in nodes[:FOLD]]
    more = f", and {len(nodes) - FOLD} more" if len(nodes) > FOLD else ""
    return [f"{words.count(len(nodes), 'node')}: {', '.join(parts)}{more}"]


def _gpus(inventory: Inventory) -> list[str]:
    """Alike ones together: '8 x NVIDIA H100 80GB HBM3, 18 NVLinks each'."""
    driver = inventory.nvidia_driver
    version = driver.module_version or driver.library_version
    opened = " (open)" if driver.open_module else ""
    said = [f"driver {version}{opened}"] if version else []
    said += [f"CUDA {driver.cuda_version}"] if driver.cuda_version else []
    if driver.library_version and driver.module_version and driver.library_version != driver.module_version:
        said.append(f"library {driver.library_version}: wants a reboot")
    lines = [f"{number} x {text}" for text, number in Counter(map(_gpu, inventory.gpus)).items()]
    return [*lines, *([", ".join(said)] if said else [])]


def _gpu(gpu: Gpu) -> str:
    links = sum(1 for link in gpu.nvlinks if link.active)
    name = gpu.name or "GPU"
    memory = "" if "GB" in name or not gpu.memory_bytes else f", {words.binary(gpu.memory_bytes)}"
    return f"{name}{memory}" + (f", {words.count(links, 'NVLink')} each" if links else "")


def _nics(snapshot: Snapshot, terminal: Terminal, *, everything: bool) -> list[str]:
    """Columns beside the label; virtual functions and virtual interfaces are counted."""
    found = nics(snapshot.inventory, snapshot.vitals)
    real = [nic for nic in found if everything or not nic.place.virtual_function]
    shown = real if everything else real[:FOLD]
    lines = _nic_columns(shown, terminal)
    virtual = virtual_links(snapshot.inventory)
    rest = [f"{len(real) - len(shown)} more"] if len(real) > len(shown) else []
    rest += [words.count(len(found) - len(real), "virtual function")] if len(found) > len(real) else []
    rest += [words.count(len(virtual), "virtual interface")] if virtual and not everything else []
    lines += [f"and {', '.join(rest)} (--all shows them)"] if rest else []
    if everything and virtual:
        lines += flowed(virtual, terminal.page_width - LABEL, first="virtual: ")
    label = terminal.paint("NICs", "bold") + " " * (LABEL - len("NICs"))
    return [(" " * LABEL if number else label) + text for number, text in enumerate(lines)]


def _nic_columns(shown: Sequence[Nic], terminal: Terminal) -> list[str]:
    """'mlx5_0 (ib0)  400 Gb/s InfiniBand  active  0000:18:00.0  NUMA 0': the first is cut where all do not fit."""
    rows = [(plain(nic.title), plain(nic.speed), plain(nic.state), _where(nic), nic.style) for nic in shown]
    first, speed, state, where = (max((len(str(row[n])) for row in rows), default=0) for n in range(4))
    gaps = 2 * sum(1 for width in (speed, state, where) if width)
    first = min(first, max(terminal.page_width - LABEL - speed - state - where - gaps, 12))
    return [
        "  ".join(
            text
            for text, width in (
                (cut(name, first).ljust(first), first),
                (fast.ljust(speed), speed),
                (terminal.paint(how, style) + " " * (state - len(how)), state),
                (place, where),
            )
            if width
        )
        for name, fast, how, place, style in rows
    ]


def _where(nic: Nic) -> str:
    return f"{plain(nic.place.address)}  {nic.place.numa}" if nic.place.address else "not on PCI"


def _disks(disks: Iterable[Disk]) -> list[str]:
    """Alike ones together: '2 x 1.9 TB SAMSUNG MZ1L21T9: nvme0n1, nvme1n1'."""
    groups: dict[str, list[str]] = {}
    for disk in disks:
        size = words.decimal(disk.size_bytes) if disk.HasField("size_bytes") else ""
        kind = "removable" if disk.removable else ("rotating" if disk.rotational else "")
        groups.setdefault(" ".join(word for word in (size, kind, disk.model) if word) or "disk", []).append(disk.name)
    return [f"{len(names)} x {text}: {_folded(names)}" for text, names in groups.items()]


def _folded(names: Sequence[str]) -> str:
    more = f" and {len(names) - FOLD} more" if len(names) > FOLD else ""
    return ", ".join(names[:FOLD]) + more


def _problems(problems: Sequence[Problem], terminal: Terminal, *, everything: bool) -> list[str]:
    """Who could not answer, and why. What the machine simply lacks comes last."""
    if not problems:
        return _section("Problems", ["none"], terminal)
    ordered = sorted(problems, key=lambda problem: problem.kind == Problem.KIND_ABSENT)
    shown = ordered if everything else ordered[:FOLD_PROBLEMS]
    more = [f"and {len(ordered) - len(shown)} more (--all shows them)"] if len(ordered) > len(shown) else []
    return _section("Problems", [*(_problem(problem) for problem in shown), *more], terminal)


def _problem(problem: Problem) -> str:
    known = problem.kind in Problem.Kind.values()  # a younger agent may have more
    word = Problem.Kind.Name(problem.kind) if known else f"kind {problem.kind}"
    kind = word.removeprefix("KIND_").lower().replace("_", " ")
    part = f" {problem.part}" if problem.part else ""
    return f"{problem.probe}{part}: {kind}: {problem.detail}" if problem.detail else f"{problem.probe}{part}: {kind}"
