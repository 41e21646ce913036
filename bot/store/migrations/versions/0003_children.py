"""Children"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "children",
        sa.Column("parent_id", sa.String(length=16), nullable=False),
        sa.Column("child_id", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("parent_id", "child_id"),
    )


def downgrade() -> None:

    op.drop_table("children")
