"""Tables of text: columns two blanks apart, as wide as what is in them, the last one cut at the terminal's edge.

A table is data: heads, and rows of cells; a cell is text with an optional style, and never holds an escape sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.cli.terminal import Terminal, cut, plain

GAP = "  "


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """`at_most` bounds a column whose text comes from a machine: one long name does not push the others off."""

    head: str
    right: bool = False
    at_most: int = 40


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], terminal: Terminal) -> list[str]:
    """Lines; the first holds the heads."""
    cells = [[_cell(cell, column) for cell, column in zip(row, columns, strict=True)] for row in rows]
    widths = [max([len(column.head), *(len(row[n].text) for row in cells)]) for n, column in enumerate(columns)]
    head = [Cell(column.head, "bold") for column in columns]
    return [_line(row, columns, widths, terminal) for row in [head, *cells]]


def width_of(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> int:
    """How wide the table becomes when nothing cuts it."""
    lines = table(columns, rows, Terminal())
    return max(map(len, lines))


def _cell(cell: Cell | str, column: Column) -> Cell:
    text, style = (cell, "") if isinstance(cell, str) else (cell.text, cell.style)
    return Cell(cut(plain(text), column.at_most) if column.at_most else plain(text), style)


def _line(row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], terminal: Terminal) -> str:
    room = terminal.width if terminal.width is not None else 1 << 20
    pieces: list[str] = []
    used = 0
    last = len(row) - 1
    for number, (cell, column, width) in enumerate(zip(row, columns, widths, strict=True)):
        left = room - used
        if left <= 0:
            break
        text = cut(cell.text, left)
        padding = " " * max(0, min(width, left) - len(text))
        painted = terminal.paint(text, cell.style) if text else ""
        if column.right:
            pieces.append(padding + painted)
        else:
            pieces.append(painted if number == last else painted + padding)
        used += width + len(GAP)
    return GAP.join(pieces).rstrip()
