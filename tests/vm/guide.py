"""docs/install.md, as far as a program can follow it: its blocks, by the heading that they stand under.

Rule: what is run is what stands there. Left out are only the lines that fetch Debian's packages, for the disk has them,
      and a test says that it has.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/install.md"


def blocks(heading: str, kind: str = "sh") -> list[str]:
    """The code blocks under a heading, in their order; AssertionError where there are none."""
    part = re.split(rf"^## {re.escape(heading)}\n", PAGE.read_text(), flags=re.MULTILINE)
    assert len(part) == 2, f"docs/install.md has no heading {heading!r}"
    under = re.split(r"^## ", part[1], flags=re.MULTILINE)[0]
    found = re.findall(rf"^```{kind}\n(.*?)^```", under, flags=re.MULTILINE | re.DOTALL)
    assert found, f"docs/install.md has no {kind} block under {heading!r}"
    return found


def packages() -> set[str]:
    """What the page has people install from Debian."""
    lines = re.findall(r"^apt-get install (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    return {name for line in lines for name in line.split()}


def without(script: str, *beginnings: str) -> str:
    """The script without the lines that begin so."""
    return "".join(line for line in script.splitlines(keepends=True) if not line.startswith(beginnings))


def only(script: str, *beginnings: str) -> str:
    """The lines of the script that begin so."""
    return "".join(line for line in script.splitlines(keepends=True) if line.startswith(beginnings))
