"""Deltas beside the vitals that they move: what a machine reports is written as it came, and folded when it is read."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "moves",
        sa.Column("machine_id", sa.Text(), sa.ForeignKey("machines.id"), primary_key=True),
        sa.Column("place", sa.BigInteger(), primary_key=True),
        sa.Column("run_id", sa.LargeBinary(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("delta", sa.LargeBinary(), nullable=False),
    )
