"""What happened, a line each; oldest first, as one reads."""

from collections.abc import Sequence

from bedplate.v1.fleet_pb2 import Event, Machine
from provisioner.cli.table import GAP, Cell, Column, table, width_of
from provisioner.cli.terminal import Terminal, cut, plain, wrapped
from provisioner.cli.views import words

WIDE = (Column("REVISION", right=True), Column("AT"), Column("WHAT"), Column("MACHINE", at_most=32))
NARROW = (Column("AT"), Column("WHAT"), Column("MACHINE", at_most=24))
WHY = Column("WHY", at_most=0)
ROOMY = 120
LEAST_WHY = 24
STYLES = {"machine.present": "green", "machine.silent": "red", "machine.asked": "yellow", "machine.accepted": "cyan"}


def events(found: Sequence[Event], terminal: Terminal) -> list[str]:
    """The sentence is whole at every width: it goes on below itself. Revision and year need room."""
    if not found:
        return ["no event"]
    roomy = terminal.width is None or terminal.width >= ROOMY
    columns = WIDE if roomy else NARROW
    rows = [_row(event)[0 if roomy else 1 :] for event in found]
    if not roomy:
        rows = [[words.instant(event.at)[5:], *row[1:]] for event, row in zip(found, rows, strict=True)]
    left = width_of(columns, rows) + len(GAP)
    room = 1 << 20 if terminal.width is None else max(terminal.width, left + LEAST_WHY)
    why = [wrapped(event.because, room, first=" " * left) for event in found]
    rows = [[*row, said[0].strip()] for row, said in zip(rows, why, strict=True)]
    head, *lines = table((*columns, WHY), rows, Terminal(colours=terminal.colours))
    return [head, *(text for line, said in zip(lines, why, strict=True) for text in (line, *said[1:]))]


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
    kind = Cell(event.kind, STYLES.get(event.kind, ""))
    return [str(event.revision), words.instant(event.at), kind, event.hostname or event.machine_id or "-"]
