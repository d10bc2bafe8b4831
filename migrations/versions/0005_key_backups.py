"""Backups of identity keys, as `flask e2emsg revision` writes them."""

from alembic import op

from flask_e2emsg.store import schema

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade():
    schema.upgrade(op, since=3, to=4)


def downgrade():
    schema.downgrade(op, since=4, to=3)
