"""Who wrote what, a line each; the change as words: 'm-4kq7zt2x: phase pending -> accepted'."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bedplate.v1.fleet_pb2 import AuditEntry
from provisioner.cli.table import GAP, Column, table, width_of
from provisioner.cli.terminal import Terminal, wrapped
from provisioner.cli.views import words

COLUMNS = (
    Column("ENTRY", right=True),
    Column("AT"),
    Column("WHO"),
    Column("WHAT"),
)
CHANGE = Column("CHANGE", at_most=0)
LEAST_CHANGE = 24
KEYS = {  # in the order in which they are said
    "machines": "machine_id",
    "standings": "machine_id",
    "tokens": "token_id",
    "certificates": "name",
    "roots": "sha256",
    "beside": "machine_id",
}
ORIGIN = "peer"  # of a machine that comes in: what comes once, and is nothing that it was or is
FRACTION = re.compile(r"(?<=T\d\d:\d\d:\d\d)\.\d+(?=Z$)")
States = Mapping[tuple[str, str], Mapping[str, Any]]


def entries(found: Sequence[AuditEntry], terminal: Terminal) -> list[str]:
    """The change is whole at every width: it goes on below itself."""
    if not found:
        return ["no entry"]
    rows = [_row(entry) for entry in found]
    left = width_of(COLUMNS, rows) + len(GAP)
    room = 1 << 20 if terminal.width is None else max(terminal.width, left + LEAST_CHANGE)
    changes = [wrapped(change(entry), room, first=" " * left) for entry in found]
    rows = [[*row, said[0].strip()] for row, said in zip(rows, changes, strict=True)]
    head, *lines = table((*COLUMNS, CHANGE), rows, Terminal(colours=terminal.colours))
    return [head, *(text for line, said in zip(lines, changes, strict=True) for text in (line, *said[1:]))]


def change(entry: AuditEntry) -> str:
    """One line. What this program cannot read is shown as it is."""
    try:
        before, after = _states(entry.before), _states(entry.after)
    except (ValueError, TypeError, AttributeError):
        return f"{entry.before} -> {entry.after}"
    keys = sorted({**before, **after}, key=lambda key: [*KEYS, key[0]].index(key[0]))
    said = [_said(*key, before.get(key), after.get(key)) for key in keys]
    return "; ".join(said) or (f"{entry.machine_id}: was so already" if entry.machine_id else "was so already")


def _row(entry: AuditEntry) -> list[str]:
    return [str(entry.sequence), words.instant(entry.at), f"{entry.who} ({entry.role})", entry.method]


def _states(text: str) -> States:
    """By kind and id. How a machine stands is said with what it is."""
    whole = json.loads(text) if text else {}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, states in whole.items():
        for state in states:
            of = ("machines" if kind == "standings" else kind, state.get(KEYS.get(kind, ""), ""))
            found.setdefault(of, {}).update({name: state[name] for name in state if name != KEYS.get(kind)})
    return found


def _said(kind: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    called = (after or before or {}).get("hostname", "")
    if kind == "beside":
        return f"beside {name}" + (f" ({called})" if called else "")
    if after is None:
        return f"{name}" + (f" ({called})" if called else "") + ": gone"
    if before is None:
        return f"{name}: made, {', '.join(_facts(after))}"
    return f"{name}: {', '.join(_moves(before, after)) or 'as it was'}"


def _facts(after: Mapping[str, Any]) -> Iterator[str]:
    for field, value in after.items():
        yield f"{'from' if field == ORIGIN else field} {_word(value)}"


def _moves(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for field in {**before, **after}:
        if field == ORIGIN:
            yield f"from {after.get(field)}"
            continue
        yield f"{field} {_word(before.get(field, 'none'))} -> {_word(after.get(field, 'none'))}"


def _word(value: object) -> str:
    """'PHASE_PENDING' -> 'pending', '2026-11-23T11:47:04.018247168Z' -> '2026-11-23T11:47:04Z'"""
    text = FRACTION.sub("", str(value))
    return text.removeprefix("PHASE_").lower() if text.startswith(("PHASE_", "True")) else text
