"""The list of machines: a line each, and a last line that counts.

Why a machine is in its phase must be readable where it matters: on a narrow terminal the sentence of each machine that
is not present stands under its line, and the others go without.
"""

from collections import Counter
from collections.abc import Sequence

from bedplate.v1.fleet_pb2 import Machine, Phase
from provisioner.cli.table import GAP, Cell, Column, table, width_of
from provisioner.cli.terminal import Terminal, wrapped
from provisioner.cli.views import words

NARROW = (
    Column("ID"),
    Column("HOSTNAME", at_most=32),
    Column("PHASE"),
    Column("GPUS", right=True),
    Column("MODEL", at_most=24),
    Column("NICS", right=True),
    Column("LAST HEARD"),
)
WIDE = (
    *NARROW,
    Column("PRODUCT"),
    Column("SERIAL", at_most=24),
    Column("OS", at_most=24),
    Column("KERNEL", at_most=32),
    Column("AGENT", at_most=16),
    Column("PROBLEMS", right=True),
    Column("LIFE", right=True),
    Column("PEER"),
)
WHY = Column("WHY", at_most=0)
ROOM_FOR_WHY = 36


def machines(found: Sequence[Machine], terminal: Terminal, now: float, *, wide: bool = False) -> list[str]:
    """Lines, the last of which counts; nothing but a sentence where there is none."""
    if not found:
        return ["no machine"]
    columns = WIDE if wide else NARROW
    rows = [_row(machine, now, wide=wide) for machine in found]
    left = width_of(columns, rows) + len(GAP)
    if wide or terminal.width is None:
        terminal = Terminal(colours=terminal.colours)  # what was asked for as wide is whole: the terminal folds it
    elif terminal.width - left < ROOM_FOR_WHY:
        head, *lines = table(columns, rows, terminal)
        return [*_with(lines, [_why(machine, terminal.page_width, "    ") for machine in found], head), counts(found)]
    room = 1 << 20 if terminal.width is None else terminal.width
    why = [_why(machine, room, " " * left) or [machine.because] for machine in found]
    rows = [[*row, said[0].strip()] for row, said in zip(rows, why, strict=True)]
    head, *lines = table((*columns, WHY), rows, terminal)
    return [*_with(lines, [said[1:] for said in why], head), counts(found)]


def counts(found: Sequence[Machine]) -> str:
    """'9 machines: 8 present, 1 silent'"""
    return f"{words.count(len(found), 'machine')}: {_tally(Counter(machine.phase for machine in found))}"


def line(machine: Machine) -> str:
    """One machine in one line: 'gpu-1 (m-4kq7zt2x)', or its id where it has no name."""
    return f"{machine.hostname} ({machine.machine_id})" if machine.hostname else machine.machine_id


def heard(machine: Machine, now: float) -> str:
    return words.ago(machine.last_heard_at, now) if machine.HasField("last_heard_at") else "never"


def _tally(tally: Counter[Phase.ValueType]) -> str:
    """Those that are well first, then those that somebody has to look at."""
    first = [Phase.PHASE_PRESENT, Phase.PHASE_ACCEPTED, Phase.PHASE_PENDING, Phase.PHASE_SILENT]
    order = [value for value in first if tally[value]] + sorted(set(tally) - set(first))
    return ", ".join(f"{tally[value]:,} {words.phase(value)[0]}" for value in order)


def _row(machine: Machine, now: float, *, wide: bool) -> list[Cell | str]:
    phase, colour = words.phase(machine.phase)
    row: list[Cell | str] = [
        machine.machine_id,
        machine.hostname or "-",
        Cell(phase, colour),
        str(machine.gpu_count),
        words.model(machine.gpu_model) or "-",
        str(machine.rdma_count),
        heard(machine, now),
    ]
    if not wide:
        return row
    fields = (machine.product, machine.serial, machine.os, machine.kernel, machine.agent_version)
    problems = Cell(str(machine.problem_count), "yellow" if machine.problem_count else "")
    return [*row, *(field or "-" for field in fields), problems, str(machine.incarnation), machine.peer or "-"]


def _why(machine: Machine, width: int, indent: str) -> list[str]:
    """Of a machine that is not well, the whole sentence, in lines."""
    if machine.phase == Phase.PHASE_PRESENT or not machine.because:
        return []
    return wrapped(machine.because, width, first=indent)


def _with(lines: Sequence[str], more: Sequence[list[str]], head: str) -> list[str]:
    return [head, *(text for line, below in zip(lines, more, strict=True) for text in (line, *below))]
