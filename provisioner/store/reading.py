"""What the store answers, as plain functions of a connection: bodies and histories by key.

Rule: every read is a look-up by key, or bounded by a limit.
"""

from dataclasses import fields, replace

from sqlalchemy import Connection, and_, func, select

from bedplate.v1.uplink_pb2 import Delta
from provisioner.packing import Packer
from provisioner.store.rows import Answer, Event, Seen, VitalsRow
from provisioner.store.schema import (
    answers,
    certificates,
    counters,
    events,
    inventories,
    machines,
    moves,
    revoked_credentials,
    seen,
    token_uses,
    tokens,
    vitals,
)
from provisioner.vitals import folded
from provisioner.world import Facts, TokenFacts, World

FACTS = select(*(machines.c[field.name] for field in fields(Facts)))
EVENTS = select(*(events.c[field.name] for field in fields(Event)))
MOVED = (  # deltas that the facts of their machines do not have
    select(moves.c.machine_id, moves.c.sequence, moves.c.at)
    .join(machines, and_(machines.c.id == moves.c.machine_id, machines.c.run_id == moves.c.run_id))
    .where(moves.c.sequence > machines.c.sequence, machines.c.forgotten_at.is_(None))
    .order_by(moves.c.sequence)
)
AFTER_ALL_TEXTS = "\U0010ffff"


def world(connection: Connection, started_at: float) -> World:
    """Everything but bodies."""
    row = connection.execute(select(counters)).one()
    known = {facts.id: facts for facts in (Facts(*row) for row in connection.execute(FACTS))}
    for name, sequence, at in connection.execute(MOVED):
        known[name] = replace(known[name], sequence=sequence, last_heard_at=at)
    newest = connection.execute(select(func.max(events.c.revision))).scalar()
    return World(
        epoch=row.epoch,
        started_at=started_at,
        revision=row.revision,
        machines=known,
        tokens=_tokens(connection),
        machines_revision=max((facts.revision for facts in known.values()), default=0),
        events_revision=max(newest or 0, row.pruned_revision),
        revoked={(name, serial): at for name, serial, at in connection.execute(select(revoked_credentials))},
    )


def fleet(connection: Connection) -> str:
    name: str = connection.execute(select(counters.c.fleet)).scalar_one()
    return name


def _tokens(connection: Connection) -> dict[str, TokenFacts]:
    used: dict[str, set[bytes]] = {}
    for token_id, key in connection.execute(select(token_uses.c.token_id, token_uses.c.key_sha256)):
        used.setdefault(token_id, set()).add(key)
    return {
        row.id: TokenFacts(**row._mapping, used_by=frozenset(used.get(row.id, ())))  # noqa: SLF001 - its public name
        for row in connection.execute(select(tokens))
    }


def inventory(connection: Connection, digest: bytes) -> bytes | None:
    packed = connection.execute(select(inventories.c.body).where(inventories.c.digest == digest)).scalar()
    return None if packed is None else Packer().unpack(packed)


def has_inventory(connection: Connection, digest: bytes) -> bool:
    statement = select(inventories.c.digest).where(inventories.c.digest == digest)
    return connection.execute(statement).first() is not None


def vitals_of(connection: Connection, machine_id: str) -> VitalsRow | None:
    columns = (vitals.c.run_id, vitals.c.sequence, vitals.c.vitals, vitals.c.problems, vitals.c.at)
    row = connection.execute(select(*columns).where(vitals.c.machine_id == machine_id)).first()
    return _moved(connection, machine_id, VitalsRow(*row)) if row else None


def _moved(connection: Connection, machine_id: str, row: VitalsRow) -> VitalsRow:
    """With the deltas that came since it was written."""
    younger = (moves.c.machine_id == machine_id, moves.c.run_id == row.run_id, moves.c.sequence > row.sequence)
    statement = select(moves.c.sequence, moves.c.delta, moves.c.at).where(*younger).order_by(moves.c.sequence)
    if not (since := connection.execute(statement).all()):
        return row
    whole = folded(row.vitals, [Delta.FromString(one.delta) for one in since]).SerializeToString(deterministic=True)
    return replace(row, sequence=since[-1].sequence, vitals=whole, at=since[-1].at)


def evidence(connection: Connection, machine_id: str) -> bytes | None:
    return connection.execute(select(machines.c.evidence).where(machines.c.id == machine_id)).scalar()


def history(connection: Connection, machine_id: str) -> list[Seen]:
    """The one that it has now first, then the newest."""
    current = select(machines.c.inventory_digest).where(machines.c.id == machine_id).scalar_subquery()
    newest = ((seen.c.digest == current).desc(), seen.c.last_seen_at.desc(), seen.c.first_seen_at.desc())
    columns = (seen.c.digest, seen.c.first_seen_at, seen.c.last_seen_at)
    statement = select(*columns).where(seen.c.machine_id == machine_id).order_by(*newest)
    return [Seen(*row) for row in connection.execute(statement)]


def events_of(  # noqa: PLR0913 - a query, by name
    connection: Connection,
    *,
    after: int,
    before: int | None,
    machine_id: str,
    kind_prefix: str,
    limit: int,
    newest_first: bool,
) -> list[Event]:
    statement = EVENTS.where(events.c.revision > after)
    if before is not None:
        statement = statement.where(events.c.revision < before)
    if machine_id:
        statement = statement.where(events.c.machine_id == machine_id)
    if kind_prefix:
        statement = statement.where(events.c.kind >= kind_prefix, events.c.kind < kind_prefix + AFTER_ALL_TEXTS)
    order = events.c.revision.desc() if newest_first else events.c.revision
    return [Event(*row) for row in connection.execute(statement.order_by(order).limit(limit))]


def pruned_revision(connection: Connection) -> int:
    revision: int = connection.execute(select(counters.c.pruned_revision)).scalar_one()
    return revision


def answered(connection: Connection, caller: str, request_id: str) -> Answer | None:
    columns = (answers.c.method, answers.c.request_sha256, answers.c.response, answers.c.at)
    statement = select(*columns).where(answers.c.caller == caller, answers.c.request_id == request_id)
    row = connection.execute(statement).first()
    return Answer(*row) if row else None


def certified_until(connection: Connection) -> dict[str, float]:
    """Until when the certificate of each machine lasts that lasts longest, of those that it ever had."""
    statement = select(certificates.c.machine_id, func.max(certificates.c.not_after))
    rows = connection.execute(statement.group_by(certificates.c.machine_id))
    return {row.machine_id: row[1] for row in rows}


def is_issued(connection: Connection, serial_number: str) -> bool:
    statement = select(certificates.c.machine_id).where(certificates.c.serial_number == serial_number)
    return connection.execute(statement).first() is not None
