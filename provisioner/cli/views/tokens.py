"""Join tokens, without their secrets."""

from collections.abc import Sequence

from bedplate.v1.fleet_pb2 import Token
from provisioner.cli.table import Cell, Column, table
from provisioner.cli.terminal import Terminal
from provisioner.cli.views import words

COLUMNS = (
    Column("TOKEN"),
    Column("STATE"),
    Column("USES", right=True),
    Column("EXPIRES"),
    Column("REVIEW"),
    Column("CREATED"),
    Column("BY"),
)


def tokens(found: Sequence[Token], terminal: Terminal, now: float) -> list[str]:
    if not found:
        return ["no token"]
    return table(COLUMNS, [_row(token, now) for token in found], terminal)


def state(token: Token, now: float) -> tuple[str, str]:
    """Whether it still lets a machine ask, and its colour."""
    if token.HasField("revoked_at"):
        return "revoked", "dim"
    if words.seconds(token.expires_at) <= now:
        return "expired", "dim"
    if token.uses_allowed and token.uses >= token.uses_allowed:
        return "used up", "dim"
    return "open", "green"


def _row(token: Token, now: float) -> list[Cell | str]:
    return [
        token.token_id,
        Cell(*state(token, now)),
        f"{token.uses} of {token.uses_allowed}" if token.uses_allowed else f"{token.uses} of any",
        words.ahead(token.expires_at, now),
        "yes" if token.review else "no",
        words.ago(token.created_at, now),
        token.created_by or "-",
    ]
