"""How GPUs and NICs hang together, at 80 columns: by NUMA node first, then as a matrix.

A machine without GPUs has another question: where does each of its NICs sit?
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bedplate.v1.snapshot_pb2 import Inventory, Topology, Vitals
from provisioner.cli.terminal import Terminal, flowed, plain, wrapped
from provisioner.cli.views import words
from provisioner.cli.views.nics import Nic, nics, virtual_links

PATHS: Mapping[int, tuple[str, str]] = {
    Topology.PATH_SELF: ("X", "the same part"),
    Topology.PATH_NVLINK: ("NV#", "NVLinks, and how many"),
    Topology.PATH_PIX: ("PIX", "at most one PCIe switch"),
    Topology.PATH_PXB: ("PXB", "several PCIe switches"),
    Topology.PATH_PHB: ("PHB", "a PCIe host bridge"),
    Topology.PATH_NODE: ("NODE", "host bridges of one NUMA node"),
    Topology.PATH_SYS: ("SYS", "between NUMA nodes"),
    Topology.PATH_UNSPECIFIED: ("?", "not known"),
}
NEAREST = "*"
SHORT = 3
LONGEST_COUNT = 9  # digits: `int` refuses thousands of them


def topology(title: str, inventory: Inventory, vitals: Vitals, terminal: Terminal) -> list[str]:
    """`title` is who this is of: "gpu-1 (m-4kq7zt2x)"."""
    gpus = [part for part in inventory.topology.parts if part.gpu]
    found = nics(inventory, vitals)
    if not gpus:
        return [*_without_gpus(title, inventory, found, terminal)]
    others = [part for part in inventory.topology.parts if not part.gpu]
    head = f"{title}: {words.count(len(gpus), 'GPU')}, {words.count(len(others), 'NIC')}"
    lines = [terminal.paint(plain(head), "bold")]
    for node in sorted({_numa(part) for part in inventory.topology.parts}, key=lambda node: (node is None, node or 0)):
        lines += ["", *_node(node, inventory, found, terminal)]
    return [*lines, "", *matrices(inventory.topology, terminal)]


def matrices(topology: Topology, terminal: Terminal) -> list[str]:
    """GPUs against NICs, then GPUs against each other, then the words that occur."""
    gpus = [n for n, part in enumerate(topology.parts) if part.gpu]
    others = [n for n, part in enumerate(topology.parts) if not part.gpu]
    cells = _cells(topology)
    lines: list[str] = []
    if others:
        lines += [terminal.paint("GPUs to NICs", "bold") + f"  ({NEAREST} nearest)"]
        lines += _grid(topology, gpus, others, cells, terminal)
    if len(gpus) > 1:
        lines += ["", *_gpu_to_gpu(topology, gpus, cells, terminal)]
    shown = {text.rstrip(NEAREST) for text in cells.values()} - {"X"}
    shown |= {"NV#"} if len({word for word in shown if word.startswith("NV")}) > 1 else set()
    said = [f"{word} {means}" for word, means in PATHS.values() if word in shown]
    return [*lines, "", *flowed(said, terminal.page_width)]


def _numa(part: Topology.Part) -> int | None:
    return part.numa_node if part.HasField("numa_node") else None


def _node(node: int | None, inventory: Inventory, found: Sequence[Nic], terminal: Terminal) -> list[str]:
    """One NUMA node: its GPUs with the NICs nearest to each, then the NICs that are nearest to none."""
    parts = inventory.topology.parts
    here = [part for part in parts if _numa(part) == node]
    cpus = next((part.cpus for part in here if part.cpus), "")
    head = "NUMA node not known" if node is None else f"NUMA {node}" + (f"  cpus {cpus}" if cpus else "")
    rails = {part.name: _rails(part, parts) for part in parts if part.gpu}
    width, beside = max(map(len, rails), default=0), max(map(len, rails.values()), default=0)
    lines = [terminal.paint(plain(head), "bold")]
    for part in (part for part in here if part.gpu):
        path = PATHS.get(part.nearest_path, PATHS[Topology.PATH_UNSPECIFIED])[0]
        first = f"  {part.name:{width}}  {part.pci_address}  {path:4}  "
        first += f"{rails[part.name]:{beside}}  " if beside else ""
        near = part.nearest or ["no NIC that is known to be near"]
        lines += flowed(near, terminal.page_width, first=plain(first))
    served = {name for part in parts for name in part.nearest}
    rest = [part.name for part in here if not part.gpu and part.name not in served]
    rest += [nic.title for nic in found if nic.name not in {p.name for p in parts} and nic.place.numa_node == node]
    return [*lines, *(flowed(rest, terminal.page_width, first="  other NICs: ") if rest else [])]


def _rails(gpu: Topology.Part, parts: Iterable[Topology.Part]) -> str:
    """'rail 3', 'rails 0,2'; blank where none of its nearest NICs is on one."""
    numbers = sorted({part.rail for part in parts if part.name in gpu.nearest and part.HasField("rail")})
    return f"rail{'s' if len(numbers) > 1 else ''} {','.join(map(str, numbers))}" if numbers else ""


def _cells(topology: Topology) -> dict[tuple[int, int], str]:
    """What stands where, from either side."""
    cells = {(n, n): "X" for n in range(len(topology.parts))}
    for pair in topology.pairs:
        a, b = pair.one, pair.other
        word = PATHS.get(pair.path, PATHS[Topology.PATH_UNSPECIFIED])[0]
        cells[a, b] = cells[b, a] = f"NV{pair.nvlinks}" if pair.path == Topology.PATH_NVLINK else word
    for n, part in enumerate(topology.parts):
        for other, near in enumerate(topology.parts):
            if near.name in part.nearest and not near.gpu and (n, other) in cells:
                cells[n, other] += NEAREST
    return cells


def _gpu_to_gpu(
    topology: Topology, gpus: Sequence[int], cells: Mapping[tuple[int, int], str], terminal: Terminal
) -> list[str]:
    """One line where all reach each other alike, as behind NVSwitches."""
    kinds = {cells.get((a, b), "?") for a in gpus for b in gpus if a != b}
    head = terminal.paint("GPUs to GPUs", "bold")
    if len(kinds) == 1:
        kind = kinds.pop()
        links = kind.removeprefix("NV")
        counted = kind.startswith("NV") and links.isdecimal() and len(links) <= LONGEST_COUNT
        said = words.count(int(links), "NVLink") if counted else kind
        return [f"{head}  {said} between any two"]
    return [head, *_grid(topology, gpus, gpus, cells, terminal)]


def _grid(
    topology: Topology,
    rows: Sequence[int],
    columns: Sequence[int],
    cells: Mapping[tuple[int, int], str],
    terminal: Terminal,
) -> list[str]:
    """As many columns beside each other as the width holds, the others in a grid of their own below."""
    names = [plain(part.name) for part in topology.parts]
    heads, key = _heads([names[n] for n in columns])
    width = max([*map(len, heads), *(len(cells.get((row, column), "?")) for row in rows for column in columns)]) + 1
    side = max(len(names[row]) for row in rows) + 2
    fit = max(1, (terminal.page_width - side) // width)
    lines: list[str] = []
    for start in range(0, len(columns), fit):
        shown, titles = columns[start : start + fit], heads[start : start + fit]
        lines.append((" " * (side + 2) + "".join(title.ljust(width) for title in titles)).rstrip())
        for row in rows:
            texts = "".join(_paint(cells.get((row, column), "?"), width, terminal) for column in shown)
            lines.append(f"  {names[row]:{side}}{texts}".rstrip())
    return [*lines, *(flowed(key, terminal.page_width, first="  ") if key else [])]


def _paint(cell: str, width: int, terminal: Terminal) -> str:
    style = "green" if cell.endswith(NEAREST) else ("dim" if cell in {"SYS", "X", "?"} else "")
    return terminal.paint(cell, style) + " " * (width - len(cell))


def _heads(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Short heads and their key: mlx5_0 mlx5_4 mlx5_bond_0 -> 0 4 a, ['N is mlx5_N', 'a is mlx5_bond_0'].

    The names of the commonest pattern keep their numbers, for a person knows the NICs by them; others get a letter.
    """
    if max(map(len, names)) <= SHORT:
        return list(names), []
    stems = [name.rstrip("0123456789") for name in names]
    common = Counter(stems).most_common(1)[0][0]
    letters = (chr(ord("a") + n % 26) * (n // 26 + 1) for n in range(len(names)))
    heads, key = [], [f"N is {common}N"]
    for name, stem in zip(names, stems, strict=True):
        number = name[len(stem) :]
        if stem == common and number and len(number) <= SHORT:
            heads.append(number)
        else:
            heads.append(next(letters))
            key.append(f"{heads[-1]} is {name}")
    return heads, key if any(head.isdecimal() for head in heads) else key[1:]


def _without_gpus(title: str, inventory: Inventory, found: Sequence[Nic], terminal: Terminal) -> list[str]:
    shown = [nic for nic in found if not nic.place.virtual_function]
    virtual, folded = virtual_links(inventory), len(found) - len(shown)
    lines = [terminal.paint(plain(f"{title}: no GPU, {words.count(len(shown), 'NIC')}"), "bold")]
    for nic in shown:
        lines += ["", *_seat(nic, terminal)]
    if folded:
        lines += ["", f"and {words.count(folded, 'virtual function')} of these"]
    if virtual:
        lines += ["", *flowed(virtual, terminal.page_width, first="virtual, on no bus: ")]
    return lines


def _seat(nic: Nic, terminal: Terminal) -> list[str]:
    """Who it is, where it sits, and the way down to it."""
    place, width = nic.place, terminal.page_width
    state = ", ".join(word for word in (nic.state, nic.speed) if word)
    driver = f"driver {place.driver}" if place.driver else "no driver"
    head = plain("  ".join(word for word in (nic.title, state, driver) if word))
    if not place.address:
        return [head, "  sits on no PCI device"]
    if place.numa_node is None:
        node = "NUMA node not known (its firmware does not say)"
    else:
        node = f"NUMA node {place.numa_node}" + (f" (cpus {place.cpus})" if place.cpus else "")
    lines = [head, *wrapped(f"sits at {place.address}, on {node}", width, first="  ", rest="  ")]
    way = [*place.chain, place.address]
    return [*lines, *flowed(way, width, first="  way: ", gap=" > ")] if place.chain else lines
