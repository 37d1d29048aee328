"""docs/install.md, and other pages, as far as a program can follow them: the blocks, by the heading they stand under.

Rule: what is run is what stands there. Left out are only the lines that fetch Debian's packages, for the disk has them,
      and a test says that it has.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/install.md"


def blocks(heading: str, kind: str = "sh", page: Path = PAGE) -> list[str]:
    """The code blocks under a heading, in their order; AssertionError where there are none."""
    found = re.findall(rf"^```{kind}\n(.*?)^```", part(heading, page), flags=re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page.name} has no {kind} block under {heading!r}"
    return found


def part(heading: str, page: Path = PAGE) -> str:
    """What stands under a heading; AssertionError where there is none."""
    parts = re.split(rf"^## {re.escape(heading)}\n", page.read_text(), flags=re.MULTILINE)
    assert len(parts) == 2, f"docs/{page.name} has no heading {heading!r}"
    return re.split(r"^## ", parts[1], flags=re.MULTILINE)[0]


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
