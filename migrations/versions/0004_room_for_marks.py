"""Room for marks in the pages of PostgreSQL, as `flask e2emsg revision` writes them."""

from alembic import op

from flask_e2emsg.store import schema

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    schema.upgrade(op, since=2, to=3)


def downgrade():
    schema.downgrade(op, since=3, to=2)
