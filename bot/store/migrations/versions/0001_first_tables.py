"""First tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.String(length=256), nullable=False),
        sa.Column("actor_name", sa.String(length=256), nullable=False),
        sa.Column("actor_principal_name", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("image", sa.String(length=64), nullable=False),
        sa.Column("rebuild_id", sa.String(length=16), nullable=False),
        sa.Column("old_state", sa.String(length=24), nullable=False),
        sa.Column("new_state", sa.String(length=24), nullable=False),
        sa.Column("old_digest", sa.String(length=71), nullable=False),
        sa.Column("new_digest", sa.String(length=71), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("extra", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_image"), ["image"], unique=False)

    op.create_table(
        "base_digests",
        sa.Column("base", sa.String(length=512), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("base", "digest"),
    )
    op.create_table(
        "checks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(length=512), nullable=False),
        sa.Column("subscribed", sa.Boolean(), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "documents",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "rebuilds",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("image", sa.String(length=64), nullable=False),
        sa.Column("open_image", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("new_digest", sa.String(length=71), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("open_image", name=op.f("uq_rebuilds_open_image")),
    )
    with op.batch_alter_table("rebuilds", schema=None) as batch_op:
        batch_op.create_index("ix_rebuilds_image_created_at", ["image", "created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_rebuilds_state"), ["state"], unique=False)

    op.create_table(
        "slots",
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("slot"),
    )
    op.create_table(
        "verdicts",
        sa.Column("image", sa.String(length=64), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("image"),
    )
    op.create_table(
        "cards",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subject", sa.String(length=16), nullable=False),
        sa.Column("subject_id", sa.String(length=16), nullable=False),
        sa.Column("conversation_id", sa.String(length=512), nullable=False),
        sa.Column("activity_id", sa.String(length=512), nullable=True),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subject", "subject_id", "conversation_id", name=op.f("uq_cards_subject")),
    )
    op.create_table(
        "check_rebuilds",
        sa.Column("check_id", sa.Integer(), nullable=False),
        sa.Column("rebuild_id", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["check_id"],
            ["checks.id"],
        ),
        sa.PrimaryKeyConstraint("check_id", "rebuild_id"),
    )
    with op.batch_alter_table("check_rebuilds", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_check_rebuilds_rebuild_id"), ["rebuild_id"], unique=False)


def downgrade() -> None:

    with op.batch_alter_table("check_rebuilds", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_check_rebuilds_rebuild_id"))

    op.drop_table("check_rebuilds")
    op.drop_table("cards")
    op.drop_table("verdicts")
    op.drop_table("slots")
    with op.batch_alter_table("rebuilds", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rebuilds_state"))
        batch_op.drop_index("ix_rebuilds_image_created_at")

    op.drop_table("rebuilds")
    op.drop_table("documents")
    op.drop_table("conversations")
    op.drop_table("checks")
    op.drop_table("base_digests")
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_image"))
        batch_op.drop_index(batch_op.f("ix_audit_at"))

    op.drop_table("audit")
