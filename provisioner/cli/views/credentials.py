"""Certificates of people and tools. Which of them is shown is good, unless it says otherwise."""

from collections.abc import Sequence

from bedplate.v1.fleet_pb2 import Credential
from provisioner.cli.table import Cell, Column, table
from provisioner.cli.terminal import Terminal
from provisioner.cli.views import words

COLUMNS = (
    Column("NAME"),
    Column("ROLE"),
    Column("STATE"),
    Column("MADE"),
    Column("BY"),
    Column("EXPIRES"),
    Column("SERIAL NUMBER"),
)


def credentials(found: Sequence[Credential], terminal: Terminal, now: float) -> list[str]:
    if not found:
        return ["no certificate"]
    return table(COLUMNS, [_row(one, now) for one in found], terminal)


def _row(one: Credential, now: float) -> list[Cell | str]:
    return [
        one.name,
        one.role,
        Cell("revoked", "dim") if one.HasField("revoked_at") else Cell("good", "green"),
        words.ago(one.made_at, now),
        one.made_by or "-",
        words.ahead(one.expires_at, now),
        one.serial_number,
    ]
