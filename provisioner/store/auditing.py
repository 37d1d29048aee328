"""The audit's rows: appended in the transaction of the effect that they tell of, and read back in order.

Rule 1: an entry is never changed and never dropped: pruning does not know this table.
Rule 2: where the chain ends is read and moved in the writer's own transaction, so that two programs that write to one
        store (the provisioner, and a command of the host's administrator) lengthen one chain.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace

from sqlalchemy import Connection, insert, or_, select, update

from provisioner.chain import Entry, Link, sealed
from provisioner.changes import Audited
from provisioner.store.schema import audit, audit_head

ENTRIES = select(*(audit.c[field.name] for field in fields(Entry)))
HEAD = select(audit_head.c.sequence, audit_head.c.sha256).where(audit_head.c.id == 1)
STATES = (audit.c.before, audit.c.after)
NANOS = 1_000_000_000


def append(connection: Connection, changes: Sequence[Audited]) -> None:
    """In the caller's transaction."""
    if not changes:
        return
    last, entries = head(connection), []
    for change in changes:
        entries.append(_entry(last, change))
        last = Link(entries[-1].sequence, entries[-1].sha256)
    connection.execute(insert(audit), [asdict(entry) for entry in entries])
    connection.execute(
        update(audit_head).where(audit_head.c.id == 1).values(sequence=last.sequence, sha256=last.sha256)
    )


def _entry(last: Link, change: Audited) -> Entry:
    entry = Entry(
        last.sequence + 1,
        round(change.at * NANOS),
        change.who,
        change.role,
        change.method,
        change.request_id,
        change.machine_id,
        change.before,
        change.after,
        last.sha256,
        b"",
    )
    return replace(entry, sha256=sealed(entry))


def head(connection: Connection) -> Link:
    row = connection.execute(HEAD).one()
    return Link(row.sequence, row.sha256)


def entries_of(  # noqa: PLR0913 - a query, by name
    connection: Connection,
    *,
    after: int = 0,
    before: int | None = None,
    who: str = "",
    machine_id: str = "",
    since_ns: int | None = None,
    until_ns: int | None = None,
    limit: int = 100,
    newest_first: bool = False,
) -> tuple[list[Entry], Link]:
    """At most `limit` entries behind `after` and in front of `before`, and the head of the same instant.

    Of a machine is what was done to it, and what changed it on the way: the newcomer that takes another's place.
    """
    wanted = [audit.c.sequence > after]
    if before is not None:
        wanted.append(audit.c.sequence < before)
    if who:
        wanted.append(audit.c.who == who)
    if machine_id:
        named = f'"machine_id":"{machine_id}"'  # as audited.py writes it
        wanted.append(
            or_(audit.c.machine_id == machine_id, *(state.contains(named, autoescape=True) for state in STATES))
        )
    if since_ns is not None:
        wanted.append(audit.c.at_ns >= since_ns)
    if until_ns is not None:
        wanted.append(audit.c.at_ns < until_ns)
    order = audit.c.sequence.desc() if newest_first else audit.c.sequence
    rows = connection.execute(ENTRIES.where(*wanted).order_by(order).limit(limit))
    return [Entry(*row) for row in rows], head(connection)


def by_methods(connection: Connection, methods: Sequence[str]) -> list[Entry]:
    """All entries of these methods, oldest first: for methods of which there are few."""
    return [
        Entry(*row) for row in connection.execute(ENTRIES.where(audit.c.method.in_(methods)).order_by(audit.c.sequence))
    ]
