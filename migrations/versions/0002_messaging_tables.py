"""The messaging tables, as `flask e2emsg revision` writes them into a host's history."""

from alembic import op

from flask_e2emsg.store import schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade():
    schema.upgrade(op, since=0, to=1)


def downgrade():
    schema.downgrade(op, since=1, to=0)
