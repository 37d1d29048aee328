"""Events out: how far each sink has had the events, what an event is of, and a name for the fleet that makes them."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "sinks",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
    )
    for name in ("incarnation", "count"):
        op.add_column("events", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("counters", sa.Column("fleet", sa.Text(), nullable=False, server_default=""))
    counters = sa.table("counters", sa.column("fleet"))
    op.execute(counters.update().values(fleet=secrets.token_hex(8)))
