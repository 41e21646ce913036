"""The tables. A row keeps what queries need in columns and the whole value as JSON in `body`."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"}
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite itself keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times are kept with their zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


rebuilds = Table(
    "rebuilds",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("image", String(64), nullable=False),
    # The image while the rebuild is open, else NULL: the database itself allows one open rebuild per image.
    Column("open_image", String(64), unique=True),
    Column("state", String(24), nullable=False, index=True),
    Column("new_digest", String(71)),
    Column("revision", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_rebuilds_image_created_at", "image", "created_at"),
)

# Which rebuilds came with that of their parent image, on whose card they are shown. Nothing is ever taken out, so
# the sum of the children's revisions only grows.
children = Table(
    "children",
    metadata,
    Column("parent_id", String(16), primary_key=True),
    Column("child_id", String(16), primary_key=True),
)

checks = Table(
    "checks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("checked_at", UtcDateTime, nullable=False),
    Column("told", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# Which rebuilds a check's card shows: its revision grows when one of them changes state.
check_rebuilds = Table(
    "check_rebuilds",
    metadata,
    Column("check_id", Integer, ForeignKey("checks.id"), primary_key=True),
    Column("rebuild_id", String(16), primary_key=True, index=True),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("image", String(64), primary_key=True),
    Column("checked_at", UtcDateTime, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

slots = Table(
    "slots",
    metadata,
    Column("slot", UtcDateTime, primary_key=True),
    Column("claimed_at", UtcDateTime, nullable=False),
    Column("finished", Boolean, nullable=False, default=False),
)

base_digests = Table(
    "base_digests",
    metadata,
    Column("base", String(512), primary_key=True),
    Column("digest", String(71), primary_key=True),
    Column("first_seen", UtcDateTime, nullable=False),
    Column("last_seen", UtcDateTime, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(512), primary_key=True),
    Column("subscribed", Boolean, nullable=False),
    Column("gone_at", UtcDateTime),
    Column("body", LargeBinary, nullable=False),
)

# The cards that are wanted, and what each conversation has: `delivered` is written only after Teams accepted a card.
cards = Table(
    "cards",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("subject", String(16), nullable=False),
    Column("subject_id", String(16), nullable=False),
    Column("conversation_id", String(512), ForeignKey("conversations.id"), nullable=False),
    Column("activity_id", String(512)),
    Column("delivered", Integer, nullable=False, default=0),
    Column("fingerprint", String(64), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", UtcDateTime),
    UniqueConstraint("subject", "subject_id", "conversation_id"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("actor_id", String(256), nullable=False),
    Column("actor_name", String(256), nullable=False),
    Column("actor_principal_name", String(256), nullable=False),
    Column("action", String(64), nullable=False),
    Column("image", String(64), nullable=False, index=True),
    Column("rebuild_id", String(16), nullable=False),
    Column("old_state", String(24), nullable=False),
    Column("new_state", String(24), nullable=False),
    Column("old_digest", String(71), nullable=False),
    Column("new_digest", String(71), nullable=False),
    Column("comment", Text, nullable=False),
    Column("extra", JSON, nullable=False),
)

# At most one hold per image, be it a snooze or not.
holds = Table(
    "holds",
    metadata,
    Column("image", String(64), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

# Plain messages to conversations that are about no check and no rebuild.
announcements = Table(
    "announcements",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# What arrived already: service hooks and queue messages can come more than once.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(256), primary_key=True),
    Column("at", UtcDateTime, nullable=False, index=True),
)

# Documents that change, as they were fetched last.
pages = Table(
    "pages",
    metadata,
    Column("url", String(512), primary_key=True),
    Column("etag", String(256), nullable=False),
    Column("fetched_at", UtcDateTime, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
