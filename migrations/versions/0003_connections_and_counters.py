"""Live connections and counters of limits, as `flask e2emsg revision` writes them."""

from alembic import op

from flask_e2emsg.store import schema

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade():
    schema.upgrade(op, since=1, to=2)


def downgrade():
    schema.downgrade(op, since=2, to=1)
