"""Durable state in any SQLAlchemy async database: SQLite for one process, PostgreSQL for several replicas."""

from bot.store.audit import Audit
from bot.store.caches import Documents, Pages
from bot.store.cards import Cards
from bot.store.checks import Checks
from bot.store.conversations import Conversations
from bot.store.deliveries import Deliveries
from bot.store.holds import Holds
from bot.store.rebuilds import Rebuilds


class SqlStore(Rebuilds, Checks, Holds, Conversations, Cards, Audit, Deliveries, Documents, Pages):
    """Implements the ports `Store`, `CardStore`, `DocumentCache` and `PageCache`, on one database."""
