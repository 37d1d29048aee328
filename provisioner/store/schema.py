"""The tables. The migrations make them; a test compares the two.

Rule 1: only types and statements that PostgreSQL has too.
Rule 2: `machines` has one column for each field of `world.Facts`, by the same name: a row is the facts.
Rule 3: bodies (inventories, vitals) are bytes of protos; a column stands beside them only where something looks by it.
"""

from dataclasses import fields

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from provisioner.world import Facts

HEAD = "0006"  # the migration that these tables are; a test says so

metadata = MetaData()
_KEY = BigInteger().with_variant(Integer(), "sqlite")  # there, the row's own number: no index beside it

counters = Table(  # one row
    "counters",
    metadata,
    Column("id", _KEY, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("pruned_revision", BigInteger, nullable=False),  # of the youngest event that is not kept any more
    Column("fleet", Text, nullable=False, server_default=""),  # a name that no other store has: made once, with it
)

_TYPES = {str: Text, bytes: LargeBinary, int: BigInteger, bool: Boolean, float: Double, float | None: Double}

machines = Table(
    "machines",
    metadata,
    *(
        Column(field.name, _TYPES[field.type], primary_key=field.name == "id", nullable=field.type == float | None)  # type: ignore[index]
        for field in fields(Facts)
    ),
)

vitals = Table(
    "vitals",
    metadata,
    Column("machine_id", Text, ForeignKey("machines.id"), primary_key=True),
    Column("run_id", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("vitals", LargeBinary, nullable=False),
    Column("problems", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
)

moves = Table(  # deltas to them: those of the same run with a higher sequence
    "moves",
    metadata,
    Column("machine_id", Text, ForeignKey("machines.id"), primary_key=True),
    Column("place", BigInteger, primary_key=True),  # used again and again: rows of before are passed over
    Column("run_id", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("delta", LargeBinary, nullable=False),
)

inventories = Table(
    "inventories",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("body", LargeBinary, nullable=False),  # packed
)

seen = Table(  # which machine had which inventory
    "seen",
    metadata,
    Column("machine_id", Text, ForeignKey("machines.id"), primary_key=True),
    Column("digest", LargeBinary, ForeignKey("inventories.digest"), primary_key=True),
    Column("first_seen_at", Double, nullable=False),
    Column("last_seen_at", Double, nullable=False),
    Index("seen_by_digest", "digest"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial_number", Text, primary_key=True),
    Column("machine_id", Text, ForeignKey("machines.id"), nullable=False),
    Column("key_sha256", LargeBinary, nullable=False),
    Column("not_after", Double, nullable=False),
    Column("at", Double, nullable=False),
    Index("certificates_by_machine", "machine_id"),
)

events = Table(
    "events",
    metadata,
    Column("revision", _KEY, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("machine_id", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("because", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("incarnation", BigInteger, nullable=False, server_default="0"),
    Column("count", BigInteger, nullable=False, server_default="0"),
    Index("events_by_machine", "machine_id", "revision"),
    Index("events_by_age", "at"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("uses_allowed", BigInteger, nullable=False),
    Column("review", Boolean, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_at", Double),
)

token_uses = Table(
    "token_uses",
    metadata,
    Column("token_id", Text, ForeignKey("tokens.id"), primary_key=True),
    Column("key_sha256", LargeBinary, primary_key=True),
    Column("machine_id", Text, nullable=False),
    Column("at", Double, nullable=False),
)

revoked_credentials = Table(  # of people: all of a name made until then, or one serial number; the other is empty
    "revoked_credentials",
    metadata,
    Column("name", Text, primary_key=True),
    Column("serial_number", Text, primary_key=True),
    Column("at", Double, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("method", Text, nullable=False),
    Column("request_sha256", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
    Index("answers_by_age", "at"),
)

sinks = Table(  # where events go to: an MQTT broker, a webhook
    "sinks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),  # it has had all events up to here
    Column("lost", BigInteger, nullable=False),  # how many it never had: they were dropped before
)

audit = Table(  # a chain, see provisioner.chain: never changed, never pruned
    "audit",
    metadata,
    Column("sequence", _KEY, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("machine_id", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("previous_sha256", LargeBinary, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Index("audit_by_who", "who", "sequence"),
    Index("audit_by_machine", "machine_id", "sequence"),
    Index("audit_by_age", "at_ns"),
    Index("audit_by_method", "method", "sequence"),
)

audit_head = Table(  # one row: the last entry's place and hash
    "audit_head",
    metadata,
    Column("id", _KEY, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
)
