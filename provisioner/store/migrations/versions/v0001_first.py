"""The first tables: facts of machines, bodies, events, tokens, answers.

Rule: a migration that has landed is never changed. It says its tables itself, for the schema of today moves on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXTS = ("waits_because", "hostname", "product", "serial", "gpu_model", "os", "kernel", "agent_version", "boot_id")


def upgrade() -> None:
    _counters()
    _machines()
    _bodies()
    _certificates()
    _events()
    _tokens()
    _answers()


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)


def _bytes(name: str) -> "sa.Column[bytes]":
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def _number(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _time(name: str, *, maybe: bool = False) -> "sa.Column[float]":
    return sa.Column(name, sa.Double(), nullable=maybe)


def _flag(name: str) -> "sa.Column[bool]":
    return sa.Column(name, sa.Boolean(), nullable=False)


def _counters() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("id", KEY, primary_key=True, autoincrement=False),
        _number("epoch"),
        _number("revision"),
        _number("pruned_revision"),
    )
    op.bulk_insert(counters, [{"id": 1, "epoch": 0, "revision": 0, "pruned_revision": 0}])


def _machines() -> None:
    op.create_table(
        "machines",
        sa.Column("id", sa.Text(), primary_key=True, nullable=False),
        *(_number(name) for name in ("incarnation", "gpu_count", "rdma_count", "sequence", "problem_count")),
        *(_number(name) for name in ("session_epoch", "revision")),
        *(_bytes(name) for name in ("key_sha256", "evidence", "inventory_digest", "run_id")),
        *(_text(name) for name in (*_TEXTS, "session", "peer", "parted_because")),
        _time("asked_at"),
        *(_time(name, maybe=True) for name in ("accepted_at", "forgotten_at", "certified_at", "last_heard_at")),
        _time("clock_skew_s", maybe=True),
        _flag("silent_noted"),
    )


def _bodies() -> None:
    op.create_table(
        "vitals",
        sa.Column("machine_id", sa.Text(), sa.ForeignKey("machines.id"), primary_key=True, nullable=False),
        _bytes("run_id"),
        _number("sequence"),
        _bytes("vitals"),
        _bytes("problems"),
        _time("at"),
    )
    op.create_table(
        "inventories", sa.Column("digest", sa.LargeBinary(), primary_key=True, nullable=False), _bytes("body")
    )
    op.create_table(
        "seen",
        sa.Column("machine_id", sa.Text(), sa.ForeignKey("machines.id"), primary_key=True, nullable=False),
        sa.Column("digest", sa.LargeBinary(), sa.ForeignKey("inventories.digest"), primary_key=True, nullable=False),
        _time("first_seen_at"),
        _time("last_seen_at"),
    )
    op.create_index("seen_by_digest", "seen", ["digest"])


def _certificates() -> None:
    op.create_table(
        "certificates",
        sa.Column("serial_number", sa.Text(), primary_key=True, nullable=False),
        sa.Column("machine_id", sa.Text(), sa.ForeignKey("machines.id"), nullable=False),
        _bytes("key_sha256"),
        _time("not_after"),
        _time("at"),
    )
    op.create_index("certificates_by_machine", "certificates", ["machine_id"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("revision", KEY, primary_key=True, autoincrement=False),
        _time("at"),
        *(_text(name) for name in ("kind", "machine_id", "hostname", "because", "actor")),
    )
    op.create_index("events_by_machine", "events", ["machine_id", "revision"])
    op.create_index("events_by_age", "events", ["at"])


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), primary_key=True, nullable=False),
        _bytes("secret_sha256"),
        _time("created_at"),
        _time("expires_at"),
        _number("uses_allowed"),
        _flag("review"),
        _text("created_by"),
        _time("revoked_at", maybe=True),
    )
    op.create_table(
        "token_uses",
        sa.Column("token_id", sa.Text(), sa.ForeignKey("tokens.id"), primary_key=True, nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), primary_key=True, nullable=False),
        _text("machine_id"),
        _time("at"),
    )


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("caller", sa.Text(), primary_key=True, nullable=False),
        sa.Column("request_id", sa.Text(), primary_key=True, nullable=False),
        _text("method"),
        _bytes("request_sha256"),
        _bytes("response"),
        _time("at"),
    )
    op.create_index("answers_by_age", "answers", ["at"])
