"""What the terminal can do, and text that cannot do anything to it.

Rule 1: what a machine says of itself may hold anything, escape sequences too: `plain` goes over all of it before it is
        printed for a person.
Rule 2: colours only on a terminal, and never with NO_COLOR (no-color.org).
Rule 3: a pipe has no width: nothing is cut off there, unless COLUMNS says otherwise.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

CODES: Mapping[str, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
PAGE_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Terminal:
    """`width` is None where there is no terminal; what is set like a page is then as wide as one."""

    width: int | None = None
    colours: bool = False

    @property
    def page_width(self) -> int:
        return PAGE_WIDTH if self.width is None else max(self.width, 40)

    def paint(self, text: str, style: str) -> str:
        if not self.colours or not style:
            return text
        return f"\x1b[{';'.join(CODES[word] for word in style.split())}m{text}\x1b[0m"


def terminal(stream: TextIO | None = None) -> Terminal:
    out = sys.stdout if stream is None else stream
    is_one = out.isatty()
    colours = is_one and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    wide = is_one or os.environ.get("COLUMNS", "").isdecimal()
    return Terminal(width=shutil.get_terminal_size().columns if wide else None, colours=colours)


def plain(text: str) -> str:
    r"""One line that a terminal only shows: 'a\x1b[2Jb\n' -> 'a\\x1b[2Jb\\n'."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def cut(text: str, width: int) -> str:
    """'bedplate', 5 -> 'bedp…'"""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def wrapped(text: str, width: int, *, first: str = "", rest: str | None = None) -> list[str]:
    """The text in lines of at most that width, the first begun by `first` and the others by `rest` (blanks if None)."""
    rest = " " * len(first) if rest is None else rest
    lines = textwrap.wrap(
        plain(text), width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=True
    )
    return lines or [first.rstrip()]


def flowed(items: Iterable[str], width: int, *, first: str = "", gap: str = ", ") -> list[str]:
    """Items put one after another into lines, never broken inside one: for lists of names."""
    lines, indent = [first], " " * len(first)
    for item in map(plain, items):
        line = lines[-1]
        if line in (first, indent):
            lines[-1] = line + item
        elif len(line) + len(gap) + len(item) <= width:
            lines[-1] = line + gap + item
        else:
            lines[-1] = (line + gap).rstrip()
            lines.append(indent + item)
    return lines
