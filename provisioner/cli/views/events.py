"""What happened, a line each; oldest first, as one reads."""

from collections.abc import Sequence

from bedplate.v1.fleet_pb2 import Event, Machine
from provisioner.cli.table import Cell, Column, table
from provisioner.cli.terminal import Terminal, cut, plain
from provisioner.cli.views import words

COLUMNS = (
    Column("REVISION", right=True),
    Column("AT"),
    Column("WHAT"),
    Column("MACHINE", at_most=32),
    Column("WHY", at_most=0),
)
STYLES = {"machine.present": "green", "machine.silent": "red", "machine.asked": "yellow", "machine.accepted": "cyan"}


def events(found: Sequence[Event], terminal: Terminal) -> list[str]:
    """On a narrow terminal the table goes without who did it; `because` says it where it matters."""
    if not found:
        return ["no event"]
    return table(COLUMNS, [_row(event) for event in found], terminal)


def event_line(event: Event, terminal: Terminal) -> str:
    """One event as it happens: a watch cannot know how wide its columns will be."""
    who = plain(event.hostname or event.machine_id)
    said = plain(": ".join(part for part in (who, event.because) if part))
    return _watched(words.clock(event.at), event.kind, STYLES.get(event.kind, ""), 18, said, terminal)


def machine_line(machine: Machine, terminal: Terminal, *, gone: bool, at: str) -> str:
    """A machine that changed; `gone` where the filter lets it through no more, or it was forgotten."""
    phase, colour = words.phase(machine.phase)
    said = f"{machine.hostname or machine.machine_id}: {machine.because}"
    return _watched(at, "gone" if gone else phase, "dim" if gone else colour, 8, plain(said), terminal)


def _watched(at: str, word: str, style: str, width: int, said: str, terminal: Terminal) -> str:  # noqa: PLR0913, PLR0917 - a line's parts, in order
    word = plain(word).ljust(width)
    room = (terminal.width or 1 << 20) - len(at) - len(word) - 4
    return f"{at}  {terminal.paint(word, style)}  {cut(said, room)}"


def _row(event: Event) -> list[Cell | str]:
    return [
        str(event.revision),
        words.instant(event.at),
        Cell(event.kind, STYLES.get(event.kind, "")),
        event.hostname or event.machine_id or "-",
        event.because,
    ]
