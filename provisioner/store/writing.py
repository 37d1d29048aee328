"""What a batch of changes comes to, as rows: pure. And the statements that put them down.

Rule 1: many changes of one machine in a batch are one row: the last word wins, for the facts are folded beforehand.
Rule 2: a batch of vitals alone touches the few columns that vitals move, and nothing else of the facts; a delta touches
        none at all: what it says of a machine's sequence is found beside the vitals when the world is loaded.
Rule 3: rows go down in the order in which tables refer to each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Delete, Dialect, Table, Update, bindparam, delete, update
from sqlalchemy.dialects.sqlite import Insert, insert

from provisioner.packing import Packer
from provisioner.store import auditing, schema
from provisioner.world import (
    Accepted,
    Answered,
    Asked,
    Audited,
    Certified,
    Change,
    CredentialRevoked,
    Facts,
    Forgotten,
    InventoryKept,
    Met,
    Noted,
    Parted,
    Revoked,
    SilenceNoted,
    TokenMade,
    TokenRevoked,
    TokenUsed,
    VitalsKept,
    VitalsMoved,
    World,
)

Row = dict[str, Any]
Statement = Insert | Update | Delete
NAMES = tuple(field.name for field in fields(Facts))


@dataclass(slots=True)
class Batch:
    """Rows by table; built once, then put down in one transaction."""

    whole: set[str] = field(default_factory=set)  # machines whose facts are written whole
    vitals: dict[str, VitalsKept | None] = field(default_factory=dict)  # None: a new life, without vitals
    moves: list[VitalsMoved] = field(default_factory=list)
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    unsent: set[bytes] = field(default_factory=set)  # digests whose bytes must be there already
    seen: dict[tuple[str, bytes], tuple[float, float]] = field(default_factory=dict)
    certificates: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    tokens: dict[str, None] = field(default_factory=dict)
    token_uses: list[Row] = field(default_factory=list)
    revoked: list[Row] = field(default_factory=list)
    answers: list[Row] = field(default_factory=list)
    audit: list[Audited] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)  # of machines whose inventory this batch has changed


def gather(before: World, numbered: Iterable[tuple[int, Change]]) -> Batch:  # noqa: C901, PLR0912 - one arm a change
    """The rows of these changes, but for the facts themselves: `World.after` has those."""
    batch = Batch()
    for number, change in numbered:
        match change:
            case VitalsKept():
                batch.vitals[change.machine_id] = change
            case VitalsMoved():
                batch.moves.append(change)
            case Noted():
                batch.events.append({"revision": number, **_columns(change, schema.events)})
            case Answered():
                batch.answers.append(_columns(change, schema.answers))
            case Audited():
                batch.audit.append(change)
            case CredentialRevoked():
                batch.revoked.append(_columns(change, schema.revoked_credentials))
            case TokenMade() | TokenRevoked():
                batch.tokens[change.token_id] = None
            case TokenUsed():
                batch.token_uses.append(_columns(change, schema.token_uses))
            case InventoryKept():
                batch.whole.add(change.machine_id)
                _see(batch, before, change)
            case Certified():
                batch.whole.add(change.machine_id)
                batch.certificates.append(_columns(change, schema.certificates))
            case Asked():
                batch.whole.add(change.machine_id)
                batch.vitals[change.machine_id] = None
                batch.digests[change.machine_id] = b""
            case Accepted() | Forgotten() | Revoked() | Met() | Parted() | SilenceNoted():
                batch.whole.add(change.machine_id)
    return batch


def _columns(change: Change, table: Table) -> Row:
    return {column.name: getattr(change, column.name) for column in table.columns if hasattr(change, column.name)}


def _see(batch: Batch, before: World, change: InventoryKept) -> None:
    """The inventory that it takes the place of was there until now."""
    facts = before.machines.get(change.machine_id)
    old = batch.digests.get(change.machine_id, facts.inventory_digest if facts else b"")
    for digest in (old, change.digest):
        if digest:
            first, _ = batch.seen.get((change.machine_id, digest), (change.at, 0.0))
            batch.seen[change.machine_id, digest] = (first, change.at)
    batch.digests[change.machine_id] = change.digest
    if change.body is None:
        if change.digest not in batch.bodies:
            batch.unsent.add(change.digest)
    else:
        batch.bodies.setdefault(change.digest, change.body)


def put_down(connection: Connection, batch: Batch, after: World, packer: Packer) -> None:
    """All of the batch, in the caller's transaction."""
    _machines(connection, batch, after.machines)
    _vitals(connection, batch.vitals)
    _moves(connection, batch.moves)
    _many(connection, BODIES, [{"digest": digest, "body": packer.pack(body)} for digest, body in batch.bodies.items()])
    _many(
        connection,
        SEEN,
        [
            {"machine_id": machine_id, "digest": digest, "first_seen_at": first, "last_seen_at": last}
            for (machine_id, digest), (first, last) in batch.seen.items()
        ],
    )
    _many(connection, CERTIFICATES, batch.certificates)
    _many(connection, EVENTS, [_of_its_life(row, after) for row in batch.events])
    _many(connection, TOKENS, [_columns_of_token(after, token_id) for token_id in batch.tokens])
    _many(connection, TOKEN_USES, batch.token_uses)
    _many(connection, REVOKED, batch.revoked)
    _many(connection, ANSWERS, batch.answers)
    auditing.append(connection, batch.audit)


def _of_its_life(event: Row, after: World) -> Row:
    """With the incarnation of its machine."""
    facts = after.machines.get(event["machine_id"])
    return {**event, "incarnation": facts.incarnation if facts else 0}


def _columns_of_token(after: World, token_id: str) -> Row:
    facts = after.tokens[token_id]
    return {column.name: getattr(facts, column.name) for column in schema.tokens.columns}


def _machines(connection: Connection, batch: Batch, facts: Mapping[str, Facts]) -> None:
    _many(connection, MACHINES, [{name: getattr(facts[key], name) for name in NAMES} for key in batch.whole])
    moved = [facts[key] for key in batch.vitals if key not in batch.whole]
    _many(
        connection,
        MACHINES_MOVED,
        [
            {
                "key": one.id,
                "run_id": one.run_id,
                "sequence": one.sequence,
                "problem_count": one.problem_count,
                "last_heard_at": one.last_heard_at,
                "revision": one.revision,
            }
            for one in moved
        ],
    )


def _vitals(connection: Connection, changes: Mapping[str, VitalsKept | None]) -> None:
    gone = [{"key": key} for key, change in changes.items() if change is None]
    _many(connection, VITALS_GONE, gone)
    _many(connection, MOVES_GONE, gone)
    _many(
        connection,
        VITALS,
        [
            {
                "machine_id": change.machine_id,
                "run_id": change.run_id,
                "sequence": change.sequence,
                "vitals": change.vitals,
                "problems": change.problems,
                "at": change.at,
            }
            for change in changes.values()
            if change is not None
        ],
    )


def _moves(connection: Connection, changes: Sequence[VitalsMoved]) -> None:
    if changes:
        text, names = _made(MOVES, connection.dialect, MOVED)
        connection.exec_driver_sql(text, list(map(attrgetter(*names), changes)))


def _many(connection: Connection, statement: Statement, rows: Sequence[Row]) -> None:
    if rows:
        text, names = _made(statement, connection.dialect, tuple(rows[0]))
        connection.exec_driver_sql(text, [tuple(row[name] for name in names) for row in rows])


@cache
def _made(statement: Statement, dialect: Dialect, keys: tuple[str, ...]) -> tuple[str, Sequence[str]]:
    """As the database reads it, and the order of its values: to work that out for each batch takes longer than it."""
    compiled = statement.compile(dialect=dialect, column_keys=list(keys))
    return str(compiled), tuple(compiled.positiontup or ())


def _upsert(table: Table, *, moves: Iterable[str] | None = None) -> Insert:
    """Insert, or else set these columns (all but the key by default) to the new values; none: leave the row be."""
    keys = [column.name for column in table.primary_key]
    statement = insert(table)
    names = [column.name for column in table.columns if column.name not in keys] if moves is None else list(moves)
    if not names:
        return statement.on_conflict_do_nothing(index_elements=keys)
    return statement.on_conflict_do_update(index_elements=keys, set_={name: statement.excluded[name] for name in names})


MACHINES = _upsert(schema.machines)
MACHINES_MOVED = update(schema.machines).where(schema.machines.c.id == bindparam("key"))  # sets what the rows name
VITALS = _upsert(schema.vitals)
MOVES = _upsert(schema.moves)
MOVED = tuple(column.name for column in schema.moves.columns)
VITALS_GONE = delete(schema.vitals).where(schema.vitals.c.machine_id == bindparam("key"))
MOVES_GONE = delete(schema.moves).where(schema.moves.c.machine_id == bindparam("key"))
BODIES = _upsert(schema.inventories, moves=())
SEEN = _upsert(schema.seen, moves=["last_seen_at"])
CERTIFICATES = _upsert(schema.certificates)
EVENTS = insert(schema.events)
TOKENS = _upsert(schema.tokens)
TOKEN_USES = _upsert(schema.token_uses, moves=())
REVOKED = _upsert(schema.revoked_credentials)
ANSWERS = _upsert(schema.answers, moves=())
