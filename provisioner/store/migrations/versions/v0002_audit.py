"""The audit: what people wrote, as a chain of hashes; and where the chain ends, so that a cut end is found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NOTHING = bytes(32)
_TEXTS = ("who", "role", "method", "request_id", "machine_id", "before", "after")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", KEY, primary_key=True, autoincrement=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        sa.Column("previous_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
    )
    op.create_index("audit_by_who", "audit", ["who", "sequence"])
    op.create_index("audit_by_machine", "audit", ["machine_id", "sequence"])
    op.create_index("audit_by_age", "audit", ["at_ns"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", KEY, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
    )
    op.bulk_insert(head, [{"id": 1, "sequence": 0, "sha256": NOTHING}])
