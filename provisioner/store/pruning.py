"""What is forgotten in time: old inventories, old events, old answers. The world does not change by it.

Rule 1: the inventory that a machine has now is kept, however old.
Rule 2: how far the events were cut is kept, so that a watcher that resumes from before it can be told.
Rule 3: what a sink has not had is kept longer, and not for ever: what it loses then is counted.
"""

from sqlalchemy import Connection, and_, delete, exists, func, or_, select, update

from provisioner.store import delivering
from provisioner.store.rows import Policy, Pruned
from provisioner.store.schema import answers, counters, events, inventories, machines, seen


def prune(connection: Connection, now: float, policy: Policy) -> Pruned:
    """In the caller's transaction."""
    inventories_gone = _inventories(connection, now - policy.inventory_s, policy.inventories)
    events_gone, lost = _events(connection, now - policy.event_s, now - policy.event_s - policy.undelivered_s)
    answers_gone = connection.execute(delete(answers).where(answers.c.at < now - policy.answer_s)).rowcount
    return Pruned(inventories_gone, events_gone, answers_gone, lost)


def _inventories(connection: Connection, oldest: float, most: int) -> int:
    newest_first = (seen.c.last_seen_at.desc(), seen.c.first_seen_at.desc(), seen.c.digest)
    rank = func.row_number().over(partition_by=seen.c.machine_id, order_by=newest_first)
    ranked = select(seen.c.machine_id, seen.c.digest, seen.c.last_seen_at, rank.label("rank")).subquery()
    stale = (
        select(ranked.c.machine_id, ranked.c.digest)
        .join(machines, machines.c.id == ranked.c.machine_id)
        .where(ranked.c.digest != machines.c.inventory_digest)
        .where(or_(ranked.c.last_seen_at < oldest, ranked.c.rank > most))
        .subquery()
    )
    matches = and_(stale.c.machine_id == seen.c.machine_id, stale.c.digest == seen.c.digest)
    connection.execute(delete(seen).where(exists().where(matches)))
    held = exists().where(seen.c.digest == inventories.c.digest)
    return connection.execute(delete(inventories).where(~held)).rowcount


def _events(connection: Connection, oldest: float, oldest_undelivered: float) -> tuple[int, dict[str, int]]:
    """How many are gone, and how many of them which sink had not had."""
    last, had = _last_before(connection, oldest), delivering.slowest(connection)
    if had is not None:
        last = max(min(last, had), _last_before(connection, oldest_undelivered))
    if not last:
        return 0, {}
    lost = delivering.cut(connection, last)
    gone = connection.execute(delete(events).where(events.c.revision <= last)).rowcount
    connection.execute(update(counters).values(pruned_revision=last))
    return gone, lost


def _last_before(connection: Connection, at: float) -> int:
    """The revision of the youngest event that is older than that; 0 where there is none."""
    return connection.execute(select(func.max(events.c.revision)).where(events.c.at < at)).scalar() or 0
