"""Under which root a machine's certificate is; which certificates of people were taken back; writes by their method."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("machines", sa.Column("issuer", sa.LargeBinary(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "revoked_credentials",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("serial_number", sa.Text(), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
    )
    op.create_index("audit_by_method", "audit", ["method", "sequence"])
